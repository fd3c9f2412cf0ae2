"""AS-VAE: both halves of the symmetric KL between q(x,z) and p(x,z) (Pu et al. 2017)."""

from __future__ import annotations

from typing import Literal

import attrs

from jointgen.objectives import (
    BalanceTable,
    CriticTable,
    E,
    Expr,
    Objective,
    Stage,
    Weight,
    WeightTable,
    check_one_ramp,
    elbo,
    non_negative_weight,
    p,
    q,
    weight_of,
)
from jointgen.plugin import ConfigError, fraction


@attrs.frozen
class ASVAE:
    """Half r (data) and half g (generation) of AS-VAE (Pu et al. 2017, eq. 11).

    AS-VAE-r keeps the first half only, AS-VAE-g the second. In the literal form, eq. 11 as printed,

        half r = E_q[log p(x|z) - f1]      f1 = log q(x,z) / p(x)p(z)      (eq. 5)
        half g = E_p[log q(z|x) - f2]      f2 = log p(x,z) / q(x)q(z)      (eq. 6)

    which does not train (docs/concepts/why-the-literal-as-vae-does-not-train.md). The decomposed form has the same
    fixed point p = q, where the model can reach it and the critic sees x itself:

        half r = E_q[log p(x|z) + log p(z) - log q(z|x)]                   the evidence lower bound
        half g = E_p[w log q(z|x) - lambda T]                              T = log p(x,z) / q(x,z)

    A critic with another view ("mean", "smoothed", "relaxed") compares other values than x, so its gradient at p = q
    need not be 0, and it moves where a model ends that does not reach p = q.

    Each weight is a number or a table { start, to, over, cycles }.

    Args:
        form: The literal or the decomposed form.
        ratio: The critic of the decomposed half g: "T" = log p(x,z) / q(x,z), or "d" = log p(x) / q(x).
        weight_r: The weight of half r; 0 leaves it out.
        weight_g: The weight of half g; 0 leaves it out.
        lambda_: The weight of the critic in the decomposed half g. It may also be independent of scale, { r = 0.5 }:
            the critic's gradient at the decoder's output is then held at r times that of the likelihood
            (docs/concepts/as-vae-on-photographs.md). weight_r and weight_g multiply afterwards: the critic's pull is
            then r weight_g / weight_r times the likelihood's.
        w: The weight of log q(z|x) in the decomposed half g.
        gamma: The weight of a critic e = log p(z) / q(z) in the decomposed half r, which holds the aggregate posterior
            to the prior (as Makhzani et al. 2015 do). At p = q it is 0, so p = q stays a fixed point. 0 leaves it out.
        ramp: The share of the stage over which lambda rises from 0.
        vae_first: The share of the run in which half r's bound is trained alone, before the full expression: the
            stages are then "vae" and "asvae". With 0 there is only the second, as a warm start from a VAE wants it.
        critic: The settings that the critics share.
    """

    form: Literal["decomposed", "literal"] = "decomposed"
    ratio: Literal["T", "d"] = "T"
    weight_r: float | WeightTable = attrs.field(default=1.0, validator=non_negative_weight)
    weight_g: float | WeightTable = attrs.field(default=1.0, validator=non_negative_weight)
    lambda_: float | WeightTable | BalanceTable = attrs.field(default=10.0, validator=non_negative_weight)
    w: float | WeightTable = attrs.field(default=1.0, validator=non_negative_weight)
    gamma: float | WeightTable = attrs.field(default=0.0, validator=non_negative_weight)
    ramp: float = attrs.field(default=0.0, validator=fraction)
    vae_first: float = attrs.field(default=0.0, validator=fraction)
    critic: CriticTable = attrs.field(factory=CriticTable)

    def __attrs_post_init__(self) -> None:
        if self.weight_r == 0.0 and self.weight_g == 0.0:
            raise ConfigError("weight_r and weight_g are both 0, so nothing is left to train")
        check_one_ramp(self.lambda_, self.ramp, "lambda", "ramp")
        if self.form == "decomposed" and self.weight_r == 0.0 and isinstance(self.lambda_, BalanceTable):
            left_out = "which weight_r = 0 leaves out; give a number"
            raise ConfigError(f"r is in units of the likelihood's pull, {left_out}", "lambda")

    def objective(self) -> Objective | tuple[Stage, ...]:
        """Return the objective with these settings, in one stage or two."""
        halves = self.literal() if self.form == "literal" else self.decomposed()
        kept = [weight * half for weight, half in zip(self.weights, halves, strict=True) if weight != 0.0]
        full = Objective.of(kept[0] if len(kept) == 1 else kept[0] + kept[1], note=self.advice, stage="asvae")
        if self.vae_first == 0.0:
            return full
        return Stage("vae", Objective.of(elbo(q, p)), self.vae_first), Stage(full.stage, full)

    @property
    def weights(self) -> tuple[float | Weight, ...]:
        """The weights of the halves. A half of weight 0 is left out: its critic and its networks do not run."""
        halves = {"weight_r": self.weight_r, "weight_g": self.weight_g}
        return tuple(weight_of(name, w) if isinstance(w, WeightTable) else w for name, w in halves.items())

    def literal(self) -> tuple[Expr, Expr]:
        """Return both halves of eq. 11 as printed."""
        f1 = self.critic.log_ratio("f1", q.xz, p.x * p.z)  # eq 5
        f2 = self.critic.log_ratio("f2", p.xz, q.x * q.z)  # eq 6
        return E(q.xz, p.log_x_given_z - f1), E(p.xz, q.log_z_given_x - f2)  # eq 11

    def decomposed(self) -> tuple[Expr, Expr]:
        """Return both halves in the form that trains."""
        T = self.critic.log_ratio("T", p.xz, q.xz) if self.ratio == "T" else self.critic.log_ratio("d", p.x, q.x)
        lam = weight_of("lambda", self.lambda_, self.ramp)
        return self.half_r(), E(p.xz, weight_of("w", self.w) * q.log("z|x", stop="x") - lam * T)

    def half_r(self) -> Expr:
        """Return the bound, with the critic of codes where gamma asks for it."""
        bound = elbo(q, p)
        if self.gamma == 0.0:
            return bound
        e = attrs.evolve(self.critic, penalties=[]).log_ratio("e", p.z, q.z)  # a slope of codes is no slope of pixels
        return bound + E(q.xz, weight_of("gamma", self.gamma) * e)

    @property
    def advice(self) -> str:
        """Advise on these settings, for `jointgen explain`."""
        found = []
        if self.form == "literal":
            found.append(
                "f1 and f2 are log-ratios between a joint and a product of marginals: at the optimum they are the "
                "mutual information, tens to hundreds of nats, which a logistic critic cannot carry. form = "
                "'decomposed' has the same fixed point p = q, where the model reaches it and the critic sees x itself, "
                "and compares like with like."
            )
        if self.unread:
            found.append(f"The recipe sets what this objective leaves out: {', '.join(self.unread)}.")
        return " ".join(found)

    @property
    def unread(self) -> list[str]:
        """The settings that the recipe gives and that belong to terms that are left out."""
        names: list[str] = []
        if self.form == "literal" or self.weight_g == 0.0:
            names += ["ratio", "lambda_", "ramp", "w"]
        if self.form == "literal" or self.weight_r == 0.0:
            names.append("gamma")
        defaults = {field.name: field.default for field in attrs.fields(type(self))}
        return [name.rstrip("_") for name in names if getattr(self, name) != defaults[name]]
