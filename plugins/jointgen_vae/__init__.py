"""VAE: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014; IWAE: Burda et al., ICLR 2016."""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the objectives of this package."""
    registry.objective(
        "vae", "jointgen_vae.objective:VAE", paper="Kingma & Welling 2014, eq 3", summary="the evidence lower bound"
    )
    registry.objective(
        "iwae", "jointgen_vae.objective:IWAE", paper="Burda et al. 2016, eq 8", summary="the K-sample bound"
    )
