"""Critic losses, penalties, constraints on parameters, pointwise terms, and divergences of the whole batch.

Losses: logistic (Goodfellow et al. 2014), Wasserstein (Arjovsky et al. 2017), hinge (Lim & Ye 2017), least squares
(Mao et al. 2017). Penalties: R1 (Mescheder et al. 2018), gradient penalty (Gulrajani et al. 2017).
Constraints: clipping (Arjovsky et al. 2017), rows of norm 1, orthonormal rows.
"""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the critic losses, penalties, constraints, terms and divergences."""
    losses, penalties, terms = "jointgen_critics.losses", "jointgen_critics.penalties", "jointgen_critics.terms"
    registry.critic_loss(
        "logistic",
        f"{losses}:Logistic",
        paper="Goodfellow et al. 2014",
        summary="f becomes log a/b in nats",
    )
    registry.critic_loss(
        "wasserstein",
        f"{losses}:Wasserstein",
        paper="Arjovsky et al. 2017",
        summary="a score; needs a bound on its slope",
    )
    registry.critic_loss("hinge", f"{losses}:Hinge", paper="Lim & Ye 2017", summary="a score with margins of 1")
    registry.critic_loss(
        "least_squares", f"{losses}:LeastSquares", paper="Mao et al. 2017", summary="a score, regressed to 1 and 0"
    )
    registry.penalty("r1", f"{penalties}:R1", paper="Mescheder et al. 2018", summary="squared slope at the data")
    registry.penalty(
        "gradient_penalty",
        f"{penalties}:GradientPenalty",
        paper="Gulrajani et al. 2017",
        summary="a slope of 1 between the two sides",
    )
    constraints = "jointgen_critics.constraints"
    registry.constraint(
        "clip",
        f"{constraints}:ClipWeights",
        paper="Arjovsky et al. 2017",
        summary="every parameter in [-bound, bound]",
    )
    registry.constraint("unit_rows", f"{constraints}:UnitRows", summary="the weights of every unit have norm 1")
    registry.constraint(
        "orthonormal", f"{constraints}:OrthonormalRows", summary="the rows of every matrix are orthonormal"
    )
    registry.term("l1", f"{terms}:L1", paper="Li et al. 2017 (ALICE)", summary="sum of absolute differences")
    registry.term("l2", f"{terms}:L2", paper="Li et al. 2017 (ALICE)", summary="sum of squared differences")
    divergences, kernels = "jointgen_critics.divergences", "jointgen_critics.kernels"
    registry.divergence(
        "mmd", f"{divergences}:MMD", paper="Gretton et al. 2012", summary="squared MMD of two samples, unbiased"
    )
    registry.divergence(
        "feature_means",
        f"{divergences}:FeatureMeans",
        paper="Salimans et al. 2016",
        summary="distance of the means of two samples",
    )
    registry.divergence(
        "sliced_wasserstein",
        f"{divergences}:SlicedWasserstein",
        paper="Kolouri et al. 2019",
        summary="squared Wasserstein-2 distance of projections",
    )
    registry.divergence(
        "pulling_away",
        f"{divergences}:PullingAway",
        paper="Zhao et al. 2017 (EBGAN)",
        summary="mean squared cosine between the rows of a sample",
    )
    registry.divergence(
        "covariance",
        f"{divergences}:Covariance",
        paper="Kumar et al. 2018 (DIP-VAE)",
        summary="distance of a sample's covariance from the identity",
    )
    registry.term("rbf", f"{kernels}:RBF", paper="Gretton et al. 2012", summary="Gaussian kernel of two values")
    registry.term("imq", f"{kernels}:IMQ", paper="Tolstikhin et al. 2018", summary="inverse multiquadratic kernel")
