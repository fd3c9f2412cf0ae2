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
    """Half r (data) and half g (generation) of eq 11; AS-VAE-r keeps only the first, AS-VAE-g only the second.

    form: "literal" is eqs 5, 6 and 11 as printed, which does not train
        (docs/why-the-literal-as-vae-does-not-train.md); "decomposed" has the same fixed point: half r is the ELBO
        and half g the sleep term less one critic.
    ratio: the critic of the decomposed half g, "T" = p(x,z) : q(x,z) or "d" = p(x) : q(x).
    weight_r, weight_g: weights of the halves; 0 leaves one out.
    lambda, w: weights of the critic and of the sleep term in half g, decomposed; lambda ramps over the first `ramp`.
        lambda may be free of scale, { r = 0.5 }: the critic's pull on the decoder is held at r times the likelihood's
        (docs/as-vae-on-photographs.md).
    gamma: weight of a critic e = log-ratio p(z) : q(z) in half r, decomposed, that holds the aggregate posterior to the
        prior (as in Makhzani et al. 2015, AAE); f2* = rho + T + e has the same e, but lets no gradient of it reach
        the encoder. 0, the default, leaves it out. At p = q it is 0, so the fixed point stays.
    Each of these weights may be a table instead, { start, to, over, cycles }.
    vae_first: share of the run that trains half r's ELBO alone, before the full expression: the stages "vae" and
        "asvae". With 0 there is only the second, as a warm start from a VAE wants it.
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
        halves = self.literal() if self.form == "literal" else self.decomposed()
        kept = [w * half for w, half in zip(self.weights, halves, strict=True) if w != 0.0]
        full = Objective.of(kept[0] if len(kept) == 1 else kept[0] + kept[1], note=self.advice, stage="asvae")
        if self.vae_first == 0.0:
            return full
        return Stage("vae", Objective.of(elbo(q, p)), self.vae_first), Stage(full.stage, full)

    @property
    def weights(self) -> tuple[float | Weight, ...]:
        """A half without a weight is left out: its critic is not trained and its networks do not run."""
        halves = {"weight_r": self.weight_r, "weight_g": self.weight_g}
        return tuple(weight_of(name, w) if isinstance(w, WeightTable) else w for name, w in halves.items())

    def literal(self) -> tuple[Expr, Expr]:
        f1 = self.critic.log_ratio("f1", q.xz, p.x * p.z)  # eq 5
        f2 = self.critic.log_ratio("f2", p.xz, q.x * q.z)  # eq 6
        return E(q.xz, p.log_x_given_z - f1), E(p.xz, q.log_z_given_x - f2)  # eq 11

    def decomposed(self) -> tuple[Expr, Expr]:
        T = self.critic.log_ratio("T", p.xz, q.xz) if self.ratio == "T" else self.critic.log_ratio("d", p.x, q.x)
        lam = weight_of("lambda", self.lambda_, self.ramp)
        return self.half_r(), E(p.xz, weight_of("w", self.w) * q.log("z|x", stop="x") - lam * T)

    def half_r(self) -> Expr:
        bound = elbo(q, p)
        if self.gamma == 0.0:
            return bound
        e = attrs.evolve(self.critic, penalties=[]).log_ratio("e", p.z, q.z)  # a slope of codes is no slope of pixels
        return bound + E(q.xz, weight_of("gamma", self.gamma) * e)

    @property
    def advice(self) -> str:
        found = []
        if self.form == "literal":
            found.append(
                "f1 and f2 are log-ratios between a joint and a product of marginals: at the optimum they are the "
                "mutual information, tens to hundreds of nats, which a logistic critic cannot carry. form = "
                "'decomposed' has the same fixed point and compares like with like."
            )
        if self.unread:
            found.append(f"The recipe sets what this objective leaves out: {', '.join(self.unread)}.")
        return " ".join(found)

    @property
    def unread(self) -> list[str]:
        """Settings that say something and are of terms that are not there."""
        of_g, of_r = ("ratio", "lambda_", "ramp", "w"), ("gamma",)
        gone_g = self.form == "literal" or self.weight_g == 0.0
        gone_r = self.form == "literal" or self.weight_r == 0.0
        names = (of_g if gone_g else ()) + (of_r if gone_r else ())
        defaults = {field.name: field.default for field in attrs.fields(type(self))}
        return [name.rstrip("_") for name in names if getattr(self, name) != defaults[name]]
