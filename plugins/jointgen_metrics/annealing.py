"""Annealed importance sampling of log p(x), and the bounds on both sides that bidirectional Monte Carlo gives.

References:
    Neal, Annealed importance sampling, Statistics and Computing, 2001.
    Grosse, Ghahramani & Adams, Sandwiching the marginal likelihood using bidirectional Monte Carlo, arXiv:1511.02543.
    Wu, Burda, Salakhutdinov & Grosse, On the quantitative analysis of decoder-based generative models, ICLR 2017.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from jointgen.plugin import (
    HMC_TARGET,
    NOISE_BLOCK,
    Batch,
    Display,
    HMCPath,
    MetricFigure,
    ModelView,
    Noise,
    NoiseSource,
    between,
    hmc_move,
    in_float64,
    log_mean_exp,
    next_step_sizes,
    per_row,
    valid_count,
    valid_size,
)
from jointgen_metrics.latents import Codes, Values, codes_of, missing_encoder
from jointgen_metrics.likelihood import density_note

PILOT_CHAINS = 4
"""Chains of each row that only find step sizes."""
FIRST_STEP = 0.2
"""The step size that the search begins with."""
STEEPNESS = 4.0
"""The steepness of the sigmoidal schedule (Wu et al. 2017, section 4)."""

Start = Literal["prior", "encoder"]


@attrs.frozen(kw_only=True)
class Annealing:
    """The settings of chains that go from s(z), which can be drawn from, to p(x, z).

    They pass through the densities s(z)^(1-b) p(x, z)^b, b from 0 to 1, and move by Hamiltonian Monte Carlo.

    Args:
        steps: Steps of b from 0 to 1, with a move at each but the last.
        chains: Chains of each row.
        leapfrog: Leapfrog steps of each move.
        start: "prior" for s(z) = p(z), "encoder" for q(z|x) of an encoder with a density.
        rows: At most so many rows, evenly apart.
        batch: Rows that are done at a time: progress, saved results and the share of a process are in batches.
        chunk: At most so many chains, of all rows of a batch together, move at once; it does not change figures.
    """

    steps: int = attrs.field(default=500, validator=between(2, 1_000_000))
    chains: int = attrs.field(default=16, validator=between(1, 100_000))
    leapfrog: int = attrs.field(default=10, validator=between(1, 10_000))
    start: Start = attrs.field(default="prior", validator=attrs.validators.in_(("prior", "encoder")))
    rows: int = attrs.field(default=100, validator=valid_count)
    batch: int = attrs.field(default=NOISE_BLOCK, validator=valid_size)
    chunk: int = attrs.field(default=2048, validator=valid_count)

    @property
    def joint(self) -> str:
        """The joint that draws the start."""
        return "p" if self.start == "prior" else "q"

    @property
    def estimator(self) -> str:
        """The estimator in words, for `MetricFigure`."""
        way = f"{self.steps} steps from the {self.start}"
        return f"{way}, {self.chains} chains per row, HMC of {self.leapfrog} leapfrog steps"

    def schedule(self) -> list[float]:
        """The values of b from 0 to 1: the middle of a sigmoid, which is slow at both ends."""
        middle = torch.sigmoid(STEEPNESS * torch.linspace(-1, 1, self.steps + 1, dtype=torch.float64))
        return ((middle - middle[0]) / (middle[-1] - middle[0])).tolist()

    def codes(self, model: ModelView) -> tuple[Codes | None, str]:
        """The codes that are annealed, ""; or (None, the reason) where they cannot be."""
        codes, reason = codes_of(model)
        if codes is not None and self.start == "encoder" and (reason := missing_encoder(codes)):
            return None, reason
        return codes, reason


@attrs.frozen
class AIS(Annealing):
    """A lower bound on log p(x), in nats, by annealed importance sampling with HMC (Neal 2001; Wu et al. 2017).

    The log of the mean weight of annealed chains is below log p(x) in expectation, and close to it where the chains
    mix. The acceptance rate of the moves and the effective sample size are figures of their own: below an effective
    size of 2 chains or so, one chain decides, and the bound may be far too low.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        codes, reason = self.codes(model)
        if codes is None:
            return [MetricFigure("ais", "nats", "", note=reason)]

        def annealed(batch: Batch) -> Annealed:
            return batch.recall(f"{self}", lambda: self._annealed(codes, batch))

        value = per_row("ais", lambda batch: annealed(batch).log_mean, rows=self.rows, max_batch=self.batch)
        accepted = per_row(
            "ais_acceptance", lambda batch: annealed(batch).acceptance.mean(1), rows=self.rows, max_batch=self.batch
        )
        effective = per_row("ais_ess", lambda batch: annealed(batch).effective, rows=self.rows, max_batch=self.batch)
        estimator, note, display = self.estimator, density_note(model), Display(group="likelihood", order=4)
        return [
            MetricFigure(
                "ais",
                "nats",
                estimator,
                (value,),
                "lower",
                note,
                better="higher",
                display=attrs.evolve(display, title="AIS", nll=True),
            ),
            MetricFigure(
                "ais_acceptance",
                "rate",
                estimator,
                (accepted,),
                note=f"steps are sized for {HMC_TARGET}",
                display=attrs.evolve(display, title="AIS acceptance"),
            ),
            MetricFigure(
                "ais_ess",
                f"of {self.chains} chains",
                estimator,
                (effective,),
                note="effective sample size",
                display=attrs.evolve(display, title="AIS effective sample size"),
            ),
        ]

    def _annealed(self, codes: Codes, batch: Batch) -> Annealed:
        known = codes.known(codes.model.observe(batch)[1])
        chains = Chains(self, codes, known, batch.rows, batch.noise.renamed("ais"))
        return chains.forward(chains.sizes())


@attrs.frozen
class BDMC(Annealing):
    """Lower and upper bounds, in nats, on log p(x) of the model's own draws (Grosse, Ghahramani & Adams 2015).

    For a draw (x, z) of p, z is an exact draw of p(z|x), from which chains can go back to the start. Both bounds hold
    in expectation. The gap between them says how far AIS with the same settings can be trusted on data that looks like
    the draws.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        codes, reason = self.codes(model)
        if codes is None:
            return [MetricFigure(name, "nats", "", note=reason) for name in ("bdmc_lower", "bdmc_upper", "bdmc_gap")]

        def ends(batch: Batch) -> tuple[Tensor, Tensor]:
            return batch.recall(f"{self}", lambda: self._ends(codes, batch))

        def figure(name: str, values: Callable[[Tensor, Tensor], Tensor], **more: Any) -> MetricFigure:
            statistics = (
                per_row(name, lambda batch: values(*ends(batch)), over="draws", rows=self.rows, max_batch=self.batch),
            )
            title = name.replace("bdmc_", "BDMC, ")
            return MetricFigure(
                name, "nats", self.estimator, statistics, display=Display(title, "likelihood", 6), **more
            )

        note = "of log p(x), x drawn from the model"
        return [
            figure("bdmc_lower", lambda lower, upper: lower, bound="lower", note=note),
            figure("bdmc_upper", lambda lower, upper: upper, bound="upper", note=note),
            figure("bdmc_gap", lambda lower, upper: upper - lower, better="lower"),
        ]

    def _ends(self, codes: Codes, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) each."""
        drawn = codes.model.sample_batch(batch, "sample")
        chains = Chains(self, codes, codes.known(drawn), batch.rows, batch.noise.renamed("bdmc"))
        sizes = chains.sizes()
        return chains.forward(sizes).log_mean, -chains.backward(codes.flat(drawn), sizes).log_mean


# --- chains ----------------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Annealed:
    """The result of annealing.

    Args:
        log_weight: (B, chains) float64, the log weight of each chain.
        acceptance: (B, chains), the mean acceptance rate of its moves.
    """

    log_weight: Tensor
    acceptance: Tensor

    @property
    def log_mean(self) -> Tensor:
        """(B,) nats: the log of the mean weight."""
        return log_mean_exp(self.log_weight, 1)

    @property
    def effective(self) -> Tensor:
        """(B,) effective sample sizes, (sum w)^2 / sum w^2, between 1 and the number of chains."""
        return 1 / self.log_weight.softmax(1).square().sum(1)


@attrs.frozen(eq=False)
class Chains:
    """The chains of a batch of rows.

    Pilot chains find the step sizes, which are then fixed: functions of the row and of b, not of the chain. So every
    move leaves its density unchanged, and the mean weight is p(x) in expectation whatever the sizes are.

    Args:
        settings: The settings of the chains.
        codes: The codes that move.
        known: Values of the data, (B, *shape).
        rows: B.
        noise: The noise of the rows.
    """

    settings: Annealing
    codes: Codes
    known: Values
    rows: int
    noise: Noise

    def forward(self, sizes: Sequence[Tensor]) -> Annealed:
        """Anneals from draws of the start. The mean weight is p(x) in expectation."""
        return self._in_chunks("forward", self._start, self.settings.schedule(), sizes)

    def backward(self, z: Tensor, sizes: Sequence[Tensor]) -> Annealed:
        """Anneals back from exact draws of p(z|x), (B, Z). The mean weight is 1 / p(x) in expectation."""

        def begin(noise: Noise, chains: int) -> Tensor:
            return z.repeat_interleave(chains, 0)

        return self._in_chunks("backward", begin, self.settings.schedule()[::-1], sizes[::-1])

    def sizes(self) -> list[Tensor]:
        """(B,) step sizes at every density between the ends, which follow the acceptance rates of pilot chains."""
        chains = min(PILOT_CHAINS, self._at_once)
        noise = self.noise.renamed("sizes").repeated(self.rows, range(chains))
        path, moves = self._path(chains), noise.named("moves", self.rows * chains)
        place = path.at(self._start(noise, chains))
        found = [place.start.new_full((self.rows,), FIRST_STEP)]
        for beta in self.settings.schedule()[1:-1]:
            place, rate = hmc_move(
                path, place, beta, found[-1].repeat_interleave(chains), self.settings.leapfrog, moves
            )
            found.append(next_step_sizes(found[-1], rate.view(self.rows, chains).mean(1)))
        return found[:-1]

    @property
    def _at_once(self) -> int:
        return max(1, self.settings.chunk // self.rows)

    def _repeated(self, chains: int) -> dict[str, Tensor]:
        return {name: value.repeat_interleave(chains, 0) for name, value in self.known.items()}

    def _start(self, noise: Noise, chains: int) -> Tensor:
        return self.codes.draw(self.settings.joint, self._repeated(chains), self.rows * chains, noise)

    def _path(self, chains: int) -> HMCPath:
        known = self._repeated(chains)
        return HMCPath(
            lambda z: self.codes.log_start(self.settings.joint, z, known, self.noise),
            lambda z: self.codes.log_joint(z, known, self.noise),
        )

    def _in_chunks(
        self, name: str, begin: Callable[[Noise, int], Tensor], betas: Sequence[float], sizes: Sequence[Tensor]
    ) -> Annealed:
        parts = []
        for first in range(0, self.settings.chains, self._at_once):
            draws = range(first, min(first + self._at_once, self.settings.chains))
            noise = self.noise.renamed(name).repeated(self.rows, draws)
            moves = noise.named("moves", self.rows * len(draws))
            parts.append(self._anneal(begin(noise, len(draws)), betas, sizes, moves))
        return Annealed(*(torch.cat(values, 1) for values in zip(*parts, strict=True)))

    def _anneal(
        self, z: Tensor, betas: Sequence[float], sizes: Sequence[Tensor], moves: NoiseSource
    ) -> tuple[Tensor, Tensor]:
        """Log weights and mean acceptance rates, (B, chains) each (Neal 2001, section 2)."""
        chains = len(z) // self.rows
        path = self._path(chains)
        place = path.at(z)
        log_weight, accepted = in_float64(torch.zeros_like(place.end)), torch.zeros_like(place.end)
        for t, (beta, after) in enumerate(itertools.pairwise(betas)):
            log_weight += (after - beta) * (in_float64(place.end) - in_float64(place.start))
            if t < len(sizes):
                step = sizes[t].repeat_interleave(chains)
                place, rate = hmc_move(path, place, after, step, self.settings.leapfrog, moves)
                accepted += rate / len(sizes)
        return log_weight.view(-1, chains), accepted.view(-1, chains)
