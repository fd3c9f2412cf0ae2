"""Trackers: those of Accelerate, each without an account or a network unless its user says so."""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the trackers."""
    trackers = "jointgen_trackers.trackers"
    registry.tracker("tensorboard", f"{trackers}:TensorBoard", summary="event files in the run folder; the default")
    registry.tracker("wandb", f"{trackers}:WandB", summary="Weights & Biases, offline until `wandb sync`")
    registry.tracker("mlflow", f"{trackers}:MLflow", summary="a data base of one file in the run folder")
    registry.tracker("trackio", f"{trackers}:Trackio", summary="a data base in the run folder, for `trackio show`")
    registry.tracker("aim", f"{trackers}:Aim", summary="a repository in the run folder, for `aim up`")
    registry.tracker("dvclive", f"{trackers}:DVCLive", summary="tables in the run folder, for `dvc plots`")
    registry.tracker("comet_ml", f"{trackers}:Comet", summary="Comet, offline until `comet upload`")
    registry.tracker("clearml", f"{trackers}:ClearML", summary="ClearML, offline until the session is imported")
    registry.tracker("swanlab", f"{trackers}:SwanLab", summary="SwanLab, offline until `swanlab sync`")
