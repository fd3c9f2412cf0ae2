"""ALI: Dumoulin et al., "Adversarially Learned Inference", ICLR 2017; ALICE: Li et al., NIPS 2017."""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the objectives of this package."""
    registry.objective(
        "ali",
        "jointgen_ali.objective:ALI",
        paper="Dumoulin et al. 2017, eq 3",
        summary="match the joints by one critic",
    )
    registry.objective(
        "alice", "jointgen_ali.objective:ALICE", paper="Li et al. 2017, eq 7", summary="ALI and a cycle of x"
    )
