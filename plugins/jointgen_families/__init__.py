"""Families of distributions for q(z|x) and p(x|z), and priors p(z).

References:
    VAE: Kingma & Welling, ICLR 2014 (reparameterised Gaussian; its KL, appendix B).
    Binary concrete and Gumbel-softmax: Maddison, Mnih & Teh, ICLR 2017; Jang, Gu & Poole, ICLR 2017
        (straight-through).
    Discretised logistic: Kingma et al., NIPS 2016 (IAF); mixtures of them: Salimans et al., ICLR 2017 (PixelCNN++).
    Continuous Bernoulli: Loaiza-Ganem & Cunningham, NeurIPS 2019.
    ALI and BiGAN: Dumoulin et al. and Donahue et al., ICLR 2017 (decoders without a density).
    Normalizing flows: Rezende & Mohamed, ICML 2015 (planar, radial); Kingma et al., NIPS 2016 (IAF); Dinh et al.,
        ICLR 2017, and Durkan et al., NeurIPS 2019 (coupling).
    AVB: Mescheder et al., ICML 2017 (encoders without a density, noise as an input; with moments, section 3.3).
    Mixtures: Graves, arXiv:1607.05690, 2016; Figurnov, Mohamed & Mnih, NeurIPS 2018 (implicit reparameterisation).
    VampPrior: Tomczak & Welling, AISTATS 2018.
"""

from __future__ import annotations

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the families and the priors."""
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
        "categorical",
        "jointgen_families.categorical:Categorical",
        paper="Jang, Gu & Poole, ICLR 2017; Maddison et al., ICLR 2017",
        summary="One of C classes: a straight-through sample path, a Gumbel-softmax reading, and exact sums.",
    )
    registry.family(
        "laplace",
        "jointgen_families.laplace:Laplace",
        summary="Independent Laplace variables: an absolute error; scales as the Gaussian's; exact mass of bins.",
    )
    registry.family(
        "discretized_logistic",
        "jointgen_families.discretized_logistic:DiscretizedLogistic",
        paper="Kingma et al., NIPS 2016 (IAF)",
        summary="The exact bin mass of a logistic as the density of quantised data; edge bins extended or bounded.",
    )
    registry.family(
        "logistic_mixture",
        "jointgen_families.logistic_mixture:LogisticMixture",
        paper="Salimans et al., ICLR 2017 (PixelCNN++)",
        summary="Mixture of discretised logistics per pixel, its channels coupled.",
    )
    registry.family(
        "continuous_bernoulli",
        "jointgen_families.continuous_bernoulli:ContinuousBernoulli",
        paper="Loaiza-Ganem & Cunningham, NeurIPS 2019",
        summary="A normalised density of grey values in a known range, with an exact sample path.",
    )
    registry.family(
        "implicit",
        "jointgen_families.implicit:Implicit",
        paper="Dumoulin et al., ICLR 2017; Mescheder et al., ICML 2017",
        summary="The trunk's output is the draw; no density. Noise enters the trunk; 0 makes it deterministic.",
    )
    registry.family(
        "implicit_basis",
        "jointgen_families.implicit_basis:ImplicitBasis",
        paper="Mescheder et al., ICML 2017",
        summary="A sum of learned noises weighted by the trunk; no density, but its mean and variance.",
    )
    registry.family(
        "planar",
        "jointgen_families.flows.planar:Planar",
        paper="Rezende & Mohamed, ICML 2015",
        summary="Planar flow of any length; its density at foreign points by an exact numeric inverse.",
    )
    registry.family(
        "iaf",
        "jointgen_families.flows.iaf:IAF",
        paper="Kingma et al., NIPS 2016",
        summary="Inverse autoregressive flow: draws in one pass per step, foreign points in D steps one after another.",
    )
    registry.family(
        "coupling",
        "jointgen_families.flows.coupling:Coupling",
        paper="Dinh et al., ICLR 2017; Durkan et al., NeurIPS 2019",
        summary="Coupling flow, affine or with splines; closed forms in both directions.",
    )
    registry.family(
        "radial",
        "jointgen_families.flows.radial:Radial",
        paper="Rezende & Mohamed, ICML 2015",
        summary="Radial flow, amortised or shared by all rows; closed forms in both directions.",
    )
    registry.family(
        "torch",
        "jointgen_families.torch_family:Torch",
        summary="Any distribution of torch.distributions over single numbers with a sample path, such as StudentT.",
    )
    registry.family(
        "zuko",
        "jointgen_families.flows.zuko_flows:Zuko",
        paper="Rozet et al., zuko; each flow's own",
        summary="zuko's flows by name: MAF, NSF, NAF, UNAF, SOSPF, BPF, CNF; quick draws or a quick density.",
    )
    registry.family(
        "ladder",
        "jointgen_families.ladder:Ladder",
        paper="Soenderby et al., NIPS 2016",
        summary="A Gaussian merged by precisions with that of another part at the same point.",
    )
    registry.family(
        "mixture",
        "jointgen_families.mixture:Mixture",
        paper="Graves, arXiv 2016; Figurnov, Mohamed & Mnih, NeurIPS 2018 (its sample path)",
        summary="Mixture of diagonal Gaussians over the whole vector; exact sample path through the weights, too.",
    )
    registry.family(
        "pixelcnn",
        "jointgen_families.autoregressive.family:PixelCNN",
        paper="van den Oord et al., ICML and NIPS 2016",
        summary="Gated PixelCNN: levels or bits of images one after another; exact probabilities, draws in D passes.",
    )
    registry.family(
        "pixelcnnpp",
        "jointgen_families.autoregressive.family:PixelCNNPP",
        paper="Salimans et al., ICLR 2017",
        summary="PixelCNN++: residual blocks in two streams, mixtures of discretised logistics with coupled channels.",
    )
    registry.prior("normal", "jointgen_families.priors:Normal", summary="Standard normal N(0, I).")
    registry.prior("uniform", "jointgen_families.priors:Uniform", summary="Uniform on (-1, 1)^D (BiGAN, DCGAN).")
    registry.prior(
        "categorical",
        "jointgen_families.categorical:CategoricalPrior",
        summary="Classes of equal or of learned probabilities, with exact sums.",
    )
    registry.family(
        "vq",
        "jointgen_families.vq:VQ",
        paper="van den Oord et al., NIPS 2017",
        summary="The nearest vectors of a codebook, straight-through; no density.",
    )
    registry.prior(
        "codebook",
        "jointgen_families.vq:Codebook",
        paper="van den Oord et al., NIPS 2017",
        summary="Equal probabilities of the codes of an encoder's codebook.",
    )
    registry.prior("bits", "jointgen_families.bits:Bits", summary="Fair coins, for codes of bits.")
    registry.prior(
        "particles",
        "jointgen_families.particles:Particles",
        paper="Liu & Wang, NIPS 2016",
        summary="Particles that are learned, without a density; with the reduction stein, SVGD.",
    )
    registry.prior("modes", "jointgen_families.particles:Modes", summary="Gaussians on a circle, as a target.")
    registry.prior(
        "learned",
        "jointgen_families.learned:Learned",
        summary="Any family with learned parameters of its own: a mixture, a Gaussian, a flow.",
    )
    registry.prior(
        "vamp",
        "jointgen_families.learned:VampPrior",
        paper="Tomczak & Welling, AISTATS 2018",
        summary="Mixture of the encoder's posteriors at learned pseudo-inputs.",
    )
