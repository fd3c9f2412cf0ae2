"""Writes a page for each system, from its recipe, the bibliography, and the measured and the published figures."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attrs

from _ext.markdown import definitions, plain, table, write
from jointgen.cli.listed_recipes import ShippedRecipe, described_recipes
from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.config.shipped import shipped_recipes
from jointgen.registry.components import Registry
from jointgen.reports.citations import bibliography
from jointgen.reports.explain.explain import explanation

ROW = re.compile(r"^\| ([^|]+) \| `(?:\w+/)?(\w+)\.toml` \| \d+ \| ([^|]*) \| (.*) \|$", re.MULTILINE)
ORPHAN = "---\norphan: true\n---\n\n"
"""Not in the bar at the side, which each page repeats: the table has links to all systems."""
PUBLISHED = {
    "nfvae_mnist": ("mnist", "NF (k = 80)"),
    "iafvae_mnist": ("mnist", "IAF"),
    "avb_mnist": ("mnist", "AVB"),
    "pixelcnn_mnist": ("mnist", "PixelRNN"),
    "asvae_mnist": ("mnist", "AS-VAE"),
    "asvae_mnist_literal": ("mnist", "AS-VAE"),
    "asvae_r_mnist": ("mnist", "AS-VAE-r"),
    "asvae_g_mnist": ("mnist", "AS-VAE-g"),
    "ali_mnist": ("cifar10", "ALI"),
    "wgan_mnist": ("cifar10", "WGAN"),
    "mix_wgan_mnist": ("cifar10", "MIX+WassersteinGAN"),
    "dcgan_cifar10": ("cifar10", "DCGAN"),
    "pixelcnnpp_cifar10": ("cifar10", "PixelCNN++"),
}
"""The row of the AS-VAE paper's tables that is about a recipe's system."""
DATA = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
COLUMNS = {
    "nll": "negative log-likelihood, nats",
    "nll_estimate": "estimate of the negative ELBO, nats",
    "bits": "bits per dimension",
    "rmse": "RMSE",
    "inception_score": "inception score",
}
OWN_CRITIC = {"ebgan_mnist", "began_mnist"}
"""Recipes whose critic is an autoencoder, so that the equation names none."""
FAMILIES = (
    "Encoder and decoder, by likelihoods alone",
    "Encoder and decoder, by likelihoods and critics",
    "Encoder and decoder, by critics alone",
    "A decoder and a critic",
    "Models of the data itself",
)


@attrs.frozen
class System:
    """A system of the zoo.

    Args:
        name: Its name, without its paper.
        paper: Who and when; empty where the table does not say.
        tests: The files of tests that hold its objective.
        trained: What one training of it reached.
        compiled: Its recipe.
        recipe: What the recipe says of itself.
    """

    name: str
    paper: str
    tests: str
    trained: str
    compiled: CompiledRecipe
    recipe: ShippedRecipe

    @property
    def family(self) -> str:
        """Say which of the families it is of, by what its objective is made of."""
        factors = {
            factor for joint in self.compiled.binding.joints.values() for factor in joint.factors if factor.given
        }
        critics = self.recipe.name in OWN_CRITIC or any(stage.objective.ratios for stage in self.compiled.stages)
        if not factors:
            return FAMILIES[4]
        if critics and (len(factors) == 1 or self.recipe.name in OWN_CRITIC):
            return FAMILIES[3]
        return FAMILIES[0 if not critics else 1 if re.search(r"log [pq]\(|KL", self.equation) else 2]

    @property
    def equation(self) -> str:
        """Return the text of all of its stages."""
        return "\n".join(str(stage.objective) for stage in self.compiled.stages)


def write_zoo(root: Path, registry: Registry) -> None:
    """Write a page for each system of the table of systems, and the table of all of them."""
    systems = list(systems_of(root.parent / "benchmarks/systems.md", registry))
    folder = root / "zoo/systems"
    for system in systems:
        write(folder / f"{system.recipe.name}.md", page_of(system, root / "zoo/images"))
    write(folder / "index.md", index(systems))


def systems_of(page: Path, registry: Registry) -> Iterator[System]:
    """Read the table of systems, and the recipe of each."""
    recipes, known = shipped_recipes(), {recipe.name: recipe for recipe in described_recipes()}
    for title, name, tests, trained in ROW.findall(page.read_text(encoding="utf-8")):
        split = re.fullmatch(r"(.*?)(?: \(([^()]*\d{4}\w?)\))?", title)
        assert split is not None, title
        compiled = compile_recipe(read_recipe(recipes[name], registry=registry), registry)
        yield System(split[1], split[2] or "", tests.strip(), trained.replace(r"\|", "|"), compiled, known[name])


def index(systems: list[System]) -> str:
    """Write the table of all systems, by family."""
    text = "# The systems\n\nEvery system that the AS-VAE paper names or compares with, and their relatives, by what "
    text += "the objective is made of. A figure is of one training of our own recipe: "
    text += "[numbers](../../concepts/numbers.md) says what it means.\n"
    for family in FAMILIES:
        members = [one for one in systems if one.family == family]
        rows = [[f"[{plain(one.name)}]({one.recipe.name}.md)", plain(one.paper), plain(one.trained)] for one in members]
        text += f"\n## {family}\n\n{table(['system', 'paper', 'trained'], rows)}"
    return text


def page_of(system: System, images: Path) -> str:
    """Write the page of a system."""
    recipe = system.recipe
    sections = [
        f"# {plain(system.name)}\n\n[All systems](index.md)",
        plain(recipe.title),
        *(f"![Draws of the trained model](../images/{file.name})" for file in sorted(images.glob(f"{recipe.name}.*"))),
        f"## Equation\n\n{equations(system.compiled)}",
        f"## Paper\n\n{papers(system)}",
        f"## What it needs\n\n{needs(system.compiled)}",
        f"## Figures\n\n{figures(system)}",
        f"## Recipe\n\n{listing(recipe)}",
    ]
    return ORPHAN + "\n\n".join(sections) + "\n"


def equations(compiled: CompiledRecipe) -> str:
    """Write the objective of each stage as a formula, and as the text that a recipe may have."""
    text = ""
    for stage in compiled.stages:
        text += f"Stage `{stage.name}`:\n\n" if len(compiled.stages) > 1 else ""
        text += f"$$\n{stage.objective.latex()}\n$$\n\n```text\n{stage.objective}\n```\n\n"
    return text + "The notation: [the objective language](../../concepts/objectives.md)."


def papers(system: System) -> str:
    """List the papers of a system's recipe, with links to their preprints."""
    entries = [cited(bibliography()[key]) for key in system.compiled.recipe.cite or []]
    listed = "".join(f"- {entry}\n" for entry in entries)
    text = f"{listed}\n`jointgen cite {system.recipe.name}` prints them as BibTeX. What was implemented, and pitfalls: "
    return text + "[the systems, paper by paper](../papers.md)."


def cited(entry: str) -> str:
    """Write a BibTeX entry as a line."""
    fields = {key: value.strip("{}") for key, value in re.findall(r"^  (\w+) = \{(.*)\},$", entry, re.MULTILINE)}
    people = [person.partition(",")[0].strip("{}") for person in fields["author"].split(" and ")]
    who = people[0] if len(people) == 1 else " and ".join(people) if len(people) == 2 else f"{people[0]} et al."
    link = f"https://arxiv.org/abs/{fields['eprint']}" if "eprint" in fields else fields.get("url", "")
    title = f"[{plain(fields['title'])}]({link})" if link else f"*{plain(fields['title'])}*"
    place = fields.get("booktitle") or fields.get("journal") or fields.get("institution") or ""
    return f"{plain(who)}, {title}, {plain(place)}{' ' if place else ''}{fields.get('year', '')}."


def needs(compiled: CompiledRecipe) -> str:
    """Say what the objective asks of each part, and what the recipe gives it."""
    known = explanation(compiled)
    wanted: dict[str, list[str]] = {}
    for need in known["requirements"]:
        wanted.setdefault(need["part"], []).append(plain(need["needs"]))
    entries = []
    for part, component in known["components"].items():
        size = known["parameters"].get(part)
        asked = f" It needs {'; '.join(wanted[part])}." if part in wanted else ""
        entries.append((f"`{part}`", f"{plain(component)}{f', {size:,} parameters' if size else ''}.{asked}"))
    spaces = "; ".join(f"`{name}` {plain(space['space'])}" for name, space in known["variables"].items())
    return f"Variables: {spaces}.\n\n{definitions(entries)}".rstrip()


def figures(system: System) -> str:
    """Write our figure and the published one, each with its caveat."""
    text = f"Ours: {plain(system.trained)}."
    if system.recipe.time and "not measured" not in system.trained:
        text += f" One training takes {system.recipe.time}."
    if system.tests:
        text += f" The objective is held to losses by hand or closed forms by the tests {plain(system.tests)}."
    if system.recipe.name in PUBLISHED:
        text += "\n\n" + "\n".join(published(*PUBLISHED[system.recipe.name]))
        text += "\n\nNetworks and protocols, and in part the data, are not ours, so the two are no comparison: "
        text += "[published figures and their caveats](../../concepts/numbers.md#published-figures-and-their-caveats)."
    return text


def published(data: str, row: str) -> Iterator[str]:
    """Write the published figures of a row, with their notes."""
    from_file = Path(__file__).parents[2] / "jointgen/reports/comparison/published.toml"
    known = tomllib.loads(from_file.read_text(encoding="utf-8"))
    (found,) = (one for one in known[data]["rows"] if one["name"] == row)
    yield f"Published for {plain(row)} on {DATA[data]} (Pu et al. 2017):\n"
    for key, (value, *notes) in ((key, value) for key, value in found.items() if key != "name"):
        said = "; ".join(plain(known["notes"].get(note, note)) for note in notes)
        yield f"- {COLUMNS[key]}: {value} ({said})"


def listing(recipe: ShippedRecipe) -> str:
    """Write how the recipe is run, and its text."""
    text = shipped_recipes()[recipe.name].read_text(encoding="utf-8").rstrip()
    return f"```sh\nuv run jointgen run {recipe.name}\n```\n\n```toml\n{text}\n```"
