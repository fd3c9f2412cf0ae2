"""Print the table of systems in benchmarks/systems.md: `uv run python benchmarks/systems.py`.

The figure and the lines of equation come from the recipe, the tests are the files of tests/ that name it.
"""

from __future__ import annotations

import re
from pathlib import Path

from jointgen.config.recipe import read_recipe
from jointgen.objectives.objective import as_stages
from jointgen.registry.discovery import load_plugins

REPO = Path(__file__).parents[1]
NAMED = """
VAE (Kingma & Welling 2014): vae_mnist
Planar flow (Rezende & Mohamed 2015): nfvae_mnist
IAF (Kingma et al. 2016): iafvae_mnist
IWAE (Burda et al. 2016): iwae_mnist
AVB (Mescheder et al. 2017): avb_mnist
AVB with adaptive contrast: avb_ac_mnist
ALI (Dumoulin et al. 2017): ali_mnist
BiGAN (Donahue et al. 2017): bigan_mnist
ALICE, explicit cycles (Li et al. 2017): alice_mnist
ALICE, implicit cycle: alice_implicit_mnist
AS-VAE, decomposed: asvae_mnist
AS-VAE, to the letter (Pu et al. 2017): asvae_mnist_literal
AS-VAE-r: asvae_r_mnist
AS-VAE-g: asvae_g_mnist
sVAE (Chen et al. 2018): svae_mnist
GAN (Goodfellow et al. 2014): gan_mnist
DCGAN (Radford et al. 2016): dcgan_cifar10
WGAN, clipping (Arjovsky et al. 2017): wgan_mnist
WGAN-GP (Gulrajani et al. 2017): wgan_gp_cifar10
MIX+WGAN (Arora et al. 2017): mix_wgan_mnist
PixelCNN++ (Salimans et al. 2017): pixelcnnpp_cifar10
PixelRNN's stand-in, gated PixelCNN (van den Oord et al. 2016): pixelcnn_mnist
SteinVAE (Pu et al. 2017b): stein_vae_mnist
SVGD (Liu & Wang 2016): svgd_toy
AAE (Makhzani et al. 2015): aae_mnist
VAE/GAN (Larsen et al. 2016): vaegan_mnist
Triangle GAN (Gan et al. 2017): triangle_gan_mnist
CycleGAN (Zhu et al. 2017): cyclegan_digits
DiscoGAN (Kim et al. 2017): discogan_mnist
InfoGAN (Chen et al. 2016): infogan_mnist
EBGAN (Zhao et al. 2017): ebgan_mnist
M1 (Kingma et al. 2014): m1_mnist
M2 (Kingma et al. 2014): m2_mnist
Semi-supervised AS-VAE (future work of the paper): ssasvae_mnist
"""
RELATIVES = """
beta-VAE (Higgins et al. 2017): beta_vae_mnist
beta-VAE with capacity (Burgess et al. 2018): capacity_vae_mnist
FactorVAE (Kim & Mnih 2018): factor_vae_mnist
beta-TCVAE (Chen et al. 2018): beta_tcvae_mnist
InfoVAE / MMD-VAE (Zhao et al. 2019): infovae_mnist
WAE-MMD (Tolstikhin et al. 2018): wae_mmd_mnist
WAE-GAN (Tolstikhin et al. 2018): wae_gan_mnist
VampPrior (Tomczak & Welling 2018): vampprior_mnist
Two layers, bottom-up: two_layers_mnist
Two layers, top-down: two_layers_top_down_mnist
Ladder VAE (Sønderby et al. 2016): ladder_mnist
VQ-VAE (van den Oord et al. 2017): vqvae_mnist
Categorical VAE (Jang et al. 2017): categorical_vae_mnist
Conditional VAE (Sohn et al. 2015): cvae_mnist
Conditional GAN (Mirza & Osindero 2014): cgan_mnist
ACGAN (Odena et al. 2017): acgan_mnist
BigBiGAN (Donahue & Simonyan 2019): bigbigan_mnist
Hinge and spectral norm (Miyato et al. 2018): hinge_sn_cifar10
LSGAN (Mao et al. 2017): lsgan_mnist
R1 (Mescheder et al. 2018): r1gan_mnist
BEGAN (Berthelot et al. 2017): began_mnist
RealNVP (Dinh et al. 2017): realnvp_digits
PixelVAE (Gulrajani et al. 2017): pixelvae_mnist
Soft-IntroVAE / IntroVAE (Huang et al. 2018): introvae_mnist
Wake-sleep (Hinton et al. 1995): wake_sleep_mnist
f-GAN (Nowozin et al. 2016): fgan_mnist
RAE (Ghosh et al. 2020): rae_mnist
MINE critic (Belghazi et al. 2018): mine_gan_mnist
Feature matching (Salimans et al. 2016): feature_matching_mnist
GECO (Rezende & Viola 2018): geco_mnist
"""


OBJECTIVE_IN = {
    "vae_mnist": "bounds",
    "nfvae_mnist": "planar",
    "iafvae_mnist": "flows",
    "iwae_mnist": "bounds, reductions",
    "avb_mnist": "ratios",
    "avb_ac_mnist": "adaptive_contrast",
    "asvae_mnist": "gradients, ratios",
    "asvae_mnist_literal": "gradients, ratios",
    "asvae_r_mnist": "gradients",
    "asvae_g_mnist": "gradients",
    "pixelcnnpp_cifar10": "autoregressive",
    "stein_vae_mnist": "reductions",
    "svgd_toy": "particles",
    "two_layers_top_down_mnist": "layers",
    "ladder_mnist": "layers",
    "vqvae_mnist": "vq",
}
"""The tests of an objective, or of the family that makes the system, which do not name the recipe."""


def lines_of(path: Path) -> int:
    """Count the lines of the objective as it prints: updates, critics and weights of its last stage."""
    stages = as_stages(read_recipe(path, registry=load_plugins().registry).objective.objective())
    return len(str(stages[-1].objective).splitlines())


def tests_of(name: str) -> str:
    """Name the files of tests about systems and theorems that mention a recipe."""
    named = re.compile(rf"\b{name}\b")
    folders = (REPO / "tests" / folder for folder in ("systems", "theorems"))
    found = sorted(path for folder in folders for path in folder.glob("test_*.py"))
    files = [path for path in found if named.search(path.read_text(encoding="utf-8"))]
    names = [path.stem.removeprefix("test_") for path in files if path.stem != "test_recipes"]
    return ", ".join(dict.fromkeys([*OBJECTIVE_IN.get(name, "").split(", "), *names])).strip(", ")


def rows_of(systems: str) -> list[str]:
    """Write a row of the table for each system."""
    recipes = {path.stem.replace("_", ""): path for path in (REPO / "recipes").rglob("*.toml")}
    rows = []
    for line in systems.strip().splitlines():
        system, name = line.rsplit(": ", 1)
        path = recipes.get(name.replace("_", ""))
        if path is None:
            rows.append(f"| {system} | none yet | | | |")
            continue
        figure = re.search(r"^# figure: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        shown = (figure[1] if figure else "not measured yet").replace("|", "\\|")
        where = path.relative_to(REPO / "recipes").as_posix()
        rows.append(f"| {system} | `{where}` | {lines_of(path)} | {tests_of(path.stem)} | {shown} |")
    return rows


def main() -> None:
    """Print both tables."""
    head = ["| system | recipe | lines | tests | trained |", "|---|---|---|---|---|"]
    for title, systems in (("Named by the AS-VAE paper", NAMED), ("Relatives", RELATIVES)):
        print("\n".join([f"## {title}", "", *head, *rows_of(systems), ""]))


if __name__ == "__main__":
    main()
