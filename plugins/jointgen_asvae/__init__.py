"""AS-VAE: Pu et al., "Adversarial Symmetric Variational Autoencoder", NIPS 2017."""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the objectives of this package."""
    registry.objective(
        "asvae",
        "jointgen_asvae.objective:ASVAE",
        paper="Pu et al. 2017, eqs 5, 6 and 11",
        summary="symmetric KL between the joints, decomposed or literal",
    )
