"""Families of distributions for q(z|x) and p(x|z), and priors p(z).

References:
    VAE: Kingma & Welling, ICLR 2014 (reparameterised Gaussian; its KL, appendix B).
    Binary concrete: Maddison, Mnih & Teh, ICLR 2017; Jang, Gu & Poole, ICLR 2017 (straight-through).
    ALI and BiGAN: Dumoulin et al. and Donahue et al., ICLR 2017 (decoders without a density).
    Normalizing flows: Rezende & Mohamed, ICML 2015 (planar, radial).
    AVB: Mescheder et al., ICML 2017 (encoders without a density, noise as an input).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jointgen import hookimpl

if TYPE_CHECKING:
    from jointgen.registry import Registrar


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    registry.family(
        "gaussian",
        "jointgen_families.gaussian:Gaussian",
        paper="Kingma & Welling, ICLR 2014",
        summary="Diagonal Gaussian; the scale per element, per channel, global or fixed; exact mass of bins.",
    )
    registry.family(
        "bernoulli",
        "jointgen_families.bernoulli:Bernoulli",
        paper="Kingma & Welling, ICLR 2014; Maddison et al., ICLR 2017",
        summary="Independent bits, with a straight-through sample path and a binary-concrete reading.",
    )
    registry.family(
        "implicit",
        "jointgen_families.implicit:Implicit",
        paper="Dumoulin et al., ICLR 2017; Mescheder et al., ICML 2017",
        summary="The trunk's output is the draw; no density. Noise enters the trunk; 0 makes it deterministic.",
    )
    registry.family(
        "planar",
        "jointgen_families.flows.planar:Planar",
        paper="Rezende & Mohamed, ICML 2015",
        summary="Planar flow of any length; its density at foreign points by an exact numeric inverse.",
    )
    registry.prior("normal", "jointgen_families.priors:Normal", summary="Standard normal N(0, I).")
    registry.prior("uniform", "jointgen_families.priors:Uniform", summary="Uniform on (-1, 1)^D (BiGAN, DCGAN).")
