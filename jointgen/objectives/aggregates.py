"""Aggregate densities: log q(z) where z is drawn by q(z|x) and x from data, and log prod q(z_j). Torch-free.

q(z) is the mean of q(z|x) over the data, which only the rows of a batch can stand for. The decomposition of the KL in
beta-TCVAE (Chen et al. 2018, eq. 2) is written with it:

>>> from jointgen.objectives import E, p, q
>>> print(E(q.xz, log_aggregate(q.z) - log_aggregate(q.z, each=True)))
E[q(x,z)](log q(z) - log prod q(z))
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Expr
from jointgen.objectives.distributions import Conditional, Joint, Marginal


@attrs.frozen(cache_hash=True)
class AggregateDensity(Expr):
    """The log-density of a variable that a conditional draws given data, (B,) nats, by the rows of the batch.

    The conditionals given the M rows of the batch, those of all processes, stand for those given all N of the source:
    of a row's own draw its own conditional counts 1/N and the M - 1 others share the rest, which makes q(z) itself
    unbiased (stratified sampling, Chen et al. 2018, appendix C.2). A value that is no draw of the batch's rows is
    scored by the plain mean.

    Args:
        joint: The joint.
        variable: The variable, which a conditional of the joint draws.
        each: Whether every dimension is scored by itself, and the logarithms are summed: log prod_j q(z_j).

    Raises:
        ConfigError: The variable is drawn by no conditional, or stands beside others.
    """

    joint: Joint
    variable: str
    each: bool = False
    sees_batch: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        if self.variable not in self.joint.variables:
            raise ConfigError(f"{self}: no variable {self.variable!r} in {self.joint}")
        if self.factor.is_root or self.factor.moments or len(self.factor.out) > 1:
            raise ConfigError(f"{self}: {self.factor} is no conditional that draws {self.variable!r} alone")

    @property
    def factor(self) -> Conditional:
        """The conditional that draws the variable."""
        return self.joint.drawn_by(self.variable)

    @property
    def marginal(self) -> Marginal:
        """The distribution that is scored."""
        return Marginal(self.joint, (self.variable,))

    def __str__(self) -> str:
        return f"log {'prod ' if self.each else ''}{self.joint.name}({self.variable})"


def log_aggregate(marginal: Marginal, *, each: bool = False) -> AggregateDensity:
    """Return the log-density of a marginal that no factor of its joint is, such as log q(z), in nats.

    Args:
        marginal: The marginal, of one variable.
        each: Whether its dimensions are scored one by one, as if they were independent: log prod q(z).
    """
    if len(marginal.variables) != 1:
        raise ConfigError(f"log {marginal}: an aggregate density is of one variable")
    return AggregateDensity(marginal.joint, marginal.variables[0], each)
