"""Optimizers, which are torch's own, and schedules of their learning rates.

Adam (Kingma & Ba 2015) and its relatives, SGD, RMSprop, Adagrad, and Muon (Jordan et al. 2024).
"""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the optimizers and schedules."""
    optimizers, schedules = "jointgen_optim.optimizers", "jointgen_optim.schedules"
    registry.optimizer("adam", f"{optimizers}:Adam", paper="Kingma & Ba 2015", summary="the default")
    registry.optimizer("adamw", f"{optimizers}:AdamW", paper="Loshchilov & Hutter 2019", summary="decoupled decay")
    registry.optimizer("sgd", f"{optimizers}:SGD", summary="stochastic gradient descent, with momentum or Nesterov's")
    registry.optimizer("rmsprop", f"{optimizers}:RMSprop", paper="Hinton 2012", summary="the gradient by its size")
    registry.optimizer("adamax", f"{optimizers}:Adamax", paper="Kingma & Ba 2015", summary="Adam by the largest slope")
    registry.optimizer("nadam", f"{optimizers}:NAdam", paper="Dozat 2016", summary="Adam with Nesterov's momentum")
    registry.optimizer("radam", f"{optimizers}:RAdam", paper="Liu et al. 2020", summary="Adam that begins carefully")
    registry.optimizer("adagrad", f"{optimizers}:Adagrad", paper="Duchi et al. 2011", summary="by all slopes so far")
    registry.optimizer(
        "muon",
        f"{optimizers}:Muon",
        paper="Jordan et al. 2024",
        summary="orthogonal steps of matrices; AdamW for all other parameters",
    )
    registry.schedule("constant", f"{schedules}:Constant", summary="the rate never falls")
    registry.schedule("linear", f"{schedules}:Linear", summary="falls on a line")
    registry.schedule(
        "cosine", f"{schedules}:Cosine", paper="Loshchilov & Hutter 2017", summary="half a cosine, also with restarts"
    )
    registry.schedule("exponential", f"{schedules}:Exponential", summary="by the same factor in every step")
    registry.schedule("polynomial", f"{schedules}:Polynomial", summary="a power of what is left")
    registry.schedule("steps", f"{schedules}:Steps", summary="by a factor at given places")
    registry.schedule(
        "inverse_sqrt",
        f"{schedules}:InverseSqrt",
        paper="Vaswani et al. 2017",
        summary="one by the root of the step",
    )
