"""VAE: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014; IWAE: Burda et al., ICLR 2016; reductions."""

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
    registry.estimator(
        "reinforce",
        "jointgen_vae.estimators:Reinforce",
        paper="Williams 1992",
        summary="the ELBO by the score of q(z|x), which needs no path through draws",
    )
    module = "jointgen_vae.reductions"
    registry.reduction("mean", f"{module}:Mean", summary="the mean of the draws, as without a name")
    registry.reduction(
        "logmeanexp", f"{module}:LogMeanExp", paper="Burda et al. 2016, eq 8", summary="the K-sample bound of IWAE"
    )
    registry.reduction("renyi", f"{module}:Renyi", paper="Li & Turner 2016, eq 6", summary="the bound of order alpha")
    registry.reduction(
        "ciwae", f"{module}:CIWAE", paper="Rainforth et al. 2018", summary="between the ELBO and IWAE's bound"
    )
    registry.reduction(
        "miwae",
        f"{module}:MIWAE",
        paper="Rainforth et al. 2018",
        summary="the mean of IWAE's bounds of groups of draws",
    )
    registry.reduction(
        "dreg",
        f"{module}:DReG",
        paper="Tucker et al. 2019, eq 8",
        summary="IWAE with the doubly reparameterised gradient",
    )
    registry.reduction(
        "vimco", f"{module}:VIMCO", paper="Mnih & Rezende 2016", summary="IWAE for draws without a gradient path"
    )
    registry.reduction(
        "stein", f"{module}:Stein", paper="Liu & Wang 2016; Pu et al. 2017", summary="draws follow the Stein direction"
    )
