"""AVB: Mescheder, Nowozin & Geiger, "Adversarial Variational Bayes", ICML 2017."""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the objectives of this package."""
    registry.objective(
        "avb",
        "jointgen_avb.objective:AVB",
        paper="Mescheder et al. 2017, eqs 3.3 and 3.7, section 3.3",
        summary="VAE with a learned rate, for encoders without a density",
    )
