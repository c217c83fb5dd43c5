"""Randomisation inference: the treatment is dealt again as it was, and the estimate made again.

Fisher's sharp null of one constant effect (Rosenbaum 2002, Observational Studies, ch. 2; Young 2019, Quarterly J Econ
134:557). Nuisance is projected out once; since it does not depend on the assignment, the coefficient of
any other assignment is a ratio of sums over those treated in it (Frisch, Waugh and Lovell), and so all
draws are sparse matrix products, equal to refits up to rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import correction
from biglocal.inference.inversion import interval
from biglocal.inference.regression import (
    Regression,
    by_group,
    coded,
    hashed,
    nested,
    parameters,
    refuse_another,
    regression,
    resampled,
    sole_att,
)
from biglocal.model import Estimator, Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Statistic = Literal["coefficient", "t"]
HELD = 16_000_000  # cells of a chunk of draws
SHARE = 4  # chunks that are a task, where a test has more: a second or two
CACHED = 60_000  # of these what is worked on at once: more would leave the processor's cache
KINDS = 200  # of units by their place in the design, at most: in a balanced panel there is one a start
TIES = 1e-9  # relative: an assignment as far out as the real one, up to rounding, is as far out


@dataclass(frozen=True, slots=True)
class RandomisationTest:
    """The test of one effect by assignments drawn as the real one.

    p counts the real assignment among the draws; `mc_error` is its Monte Carlo standard error, `mc_low` and
    `mc_high` the Clopper-Pearson interval at 99% for the p that all assignments would give (nought wide where
    all were `enumerated`). `assignments`: how many there are in all. `draws`: those that count, in which treatment is
    not collinear with the nuisance, as in the real one it is not. `drawn` (draws,): the statistic of each, signed,
    missing where it is nought over nought; `beyond` (draws,): whether it lies as far out as the real one, which is what
    p counts.
    """

    estimate: float
    statistic: float
    p_value: float
    mc_error: float
    mc_low: float
    mc_high: float
    conf_low: float
    conf_high: float
    draws: int
    enumerated: bool
    assignments: float
    drawn: NDArray[np.float64]
    beyond: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cells:
    """Sums over the rows that an assigned unit would have treated with a start: A units, L starts, m directions.

    Flat over units and starts, cell = unit x L + start (A x L,). `own`: w times the outcome left of nuisance; `real`:
    w times the real treatment left of nuisance; `rest` (A x L, 1 + m): w d d within the absorbed effect, and w times
    each direction of nuisance. `home` (A,): cluster. `kind`: rows of `rest` are those of `kinds` (K, 1 + m); None where
    the kinds are too many to gain by it. By cluster, for t only: `outcome`, `treatment` (G, m): w times directions
    times the two; `gram` (G, m (m + 1) / 2): among directions, in pairs of the upper triangle, those off the diagonal
    twice.
    """

    own: NDArray[np.float64]
    real: NDArray[np.float64]
    rest: NDArray[np.float64]
    kind: NDArray[np.int64] | None
    kinds: NDArray[np.float64]
    home: NDArray[np.int64]
    starts: int
    outcome: NDArray[np.float64]
    treatment: NDArray[np.float64]
    gram: NDArray[np.float64]
    factor: float


def randomise(
    y: ArrayLike,
    start: ArrayLike,
    assigned: ArrayLike,
    *,
    rng: np.random.Generator,
    time: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    nuisance: ArrayLike | None = None,
    fixed: Sequence[ArrayLike] = (),
    weight: ArrayLike | None = None,
    statistic: Statistic = "coefficient",
    hypothesis: float = 0.0,
    draws: int = 9_999,
    conf_level: float = 0.95,
) -> RandomisationTest:
    """Randomisation test of the effect of d = 1{time >= start} on `y` (n,), given nuisance and fixed effects.

    `start` (n,): first treated time, missing or infinite for never. Without `time` the data are a cross-section, and
    whoever has a start is treated. `assigned` (n,): what was dealt the treatment (area, cluster); within one
    the start is the same. `strata` (n,): it was dealt within these (matched sets, waves), one to an assigned
    unit; starts are shuffled among the assigned units of a stratum. `statistic`: the coefficient, or its t with
    errors clustered on `cluster` (default: the assigned unit), which is also valid for an average effect of nought in
    large samples (Zhao and Ding 2021, J Econometrics 225:278).
    The interval holds the constant effects that are not rejected.

    Raises `Inapplicable` for what `regression` refuses, a start or stratum that varies within an assigned unit, no
    stratum in which anything can be shuffled, clusters for t that are one or split an assigned unit, a t that the real
    assignment does not have, as its variance is nought, and fewer than one draw.
    """
    design = dealing(
        y, start, assigned, time=time, strata=strata, cluster=cluster, nuisance=nuisance, fixed=fixed, weight=weight,
        statistic=statistic,
    )  # fmt: skip
    return tested(
        design.cells, design.deal, rng, statistic=statistic, hypothesis=hypothesis, draws=draws, conf_level=conf_level
    )


@dataclass(frozen=True, slots=True)
class Dealing:
    """A regression whose treatment can be dealt again. `unit`, `span`, `group` (n,): the assigned unit of a row, how
    many of the starts its time has reached, its cluster."""

    fit: Regression
    cells: Cells
    deal: _Deal
    unit: NDArray[np.int64]
    span: NDArray[np.int64]
    group: NDArray[np.int64]


def dealing(
    y: ArrayLike,
    start: ArrayLike,
    assigned: ArrayLike,
    *,
    time: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    nuisance: ArrayLike | None = None,
    fixed: Sequence[ArrayLike] = (),
    weight: ArrayLike | None = None,
    statistic: Statistic = "coefficient",
) -> Dealing:
    """What `randomise` tests: its arguments and what it refuses."""
    outcome = np.asarray(y, dtype=float)
    first = np.asarray(start, dtype=float)
    first = np.where(np.isfinite(first), first, np.inf)
    when = np.zeros(len(outcome)) if time is None else np.asarray(time, dtype=float)
    if time is None:
        first = np.where(np.isinf(first), np.inf, 0.0)
    units = coded(assigned)
    n_units = int(units.max()) + 1 if len(units) else 0
    of_unit = np.full(n_units, np.nan)
    of_unit[units] = first
    if not (of_unit[units] == first).all():
        raise Inapplicable("the start of treatment varies within an assigned unit: name what it was dealt to.")
    layer = np.zeros(len(outcome), dtype=np.int64) if strata is None else coded(strata)
    if not nested(units, layer):
        raise Inapplicable("an assigned unit lies in two strata.")
    of_layer = np.empty(n_units, dtype=np.int64)
    of_layer[units] = layer
    group = units if cluster is None else coded(cluster)
    if not nested(units, group):
        raise Inapplicable("clusters split an assigned unit: cluster at least at the level of assignment.")

    fit = regression(outcome, when >= first, nuisance=nuisance, fixed=fixed, weight=weight, within=units)
    starts = np.unique(of_unit[np.isfinite(of_unit)])
    span = np.searchsorted(starts, when, side="right")
    cells = _cells(fit, span, len(starts), units, n_units, group, statistic)
    deal = _Deal(of_layer, np.where(np.isinf(of_unit), -1, np.searchsorted(starts, of_unit)))
    return Dealing(fit, cells, deal, units, span, group)


def tested(
    cells: Cells,
    deal: _Deal,
    rng: np.random.Generator,
    *,
    statistic: Statistic,
    hypothesis: float = 0.0,
    draws: int = 9_999,
    conf_level: float = 0.95,
) -> RandomisationTest:
    """The test of one outcome, from its sums; see `randomise`."""
    enumerated, assignments = deal.dealt(draws, rng)
    terms = terms_of(cells, deal, assignments, statistic)
    return judged(cells, deal, terms, enumerated, statistic=statistic, hypothesis=hypothesis, conf_level=conf_level)


def terms_of(
    cells: Cells, deal: _Deal, assignments: Iterable[NDArray[np.int32]], statistic: Statistic
) -> list[NDArray[np.float64]]:
    """What `judged` needs of each assignment, chunk by chunk: (5, draws) each."""
    return [_terms(cells, who, deal.label, statistic) for who in assignments]


def judged(
    cells: Cells,
    deal: _Deal,
    terms: Sequence[NDArray[np.float64]],
    enumerated: bool,
    *,
    statistic: Statistic,
    hypothesis: float = 0.0,
    conf_level: float = 0.95,
    ends: bool = True,
) -> RandomisationTest:
    """The test of one outcome from the `terms_of` its assignments.

    `ends`: whether the interval is wanted, else NaN.
    """
    real = _terms(cells, deal.real, deal.label, statistic)
    everything = np.concatenate(terms, axis=1)
    # under these alone is there an effect to estimate, and the real assignment is among them
    everything = everything[:, np.isfinite(everything[0])]
    count = len(everything[0])
    if not count:
        raise Inapplicable("treatment is collinear with the nuisance in every assignment drawn: draw more.")

    def value(terms: NDArray[np.float64], r: float) -> NDArray[np.float64]:
        b0, b1, q0, q1, q2 = terms
        top: NDArray[np.float64] = b0 - r * b1
        with np.errstate(divide="ignore", invalid="ignore"):
            return top / np.sqrt(q0 - 2 * r * q1 + r * r * q2) if statistic == "t" else top

    def outside(r: float) -> NDArray[np.bool_]:
        own = abs(float(value(real, r)[0]))
        return np.asarray(np.abs(value(everything, r)) >= own - TIES * own)

    def p_value(r: float) -> float:
        beyond = int(outside(r).sum())
        return beyond / count if enumerated else (1 + beyond) / (1 + count)

    beta, statistic_now = float(real[0, 0]), float(value(real, hypothesis)[0])
    if not math.isfinite(beta):
        raise Inapplicable("treatment is all but collinear with the nuisance.")
    if not math.isfinite(statistic_now):
        raise Inapplicable("the clustered variance of the estimate is not positive: take the coefficient.")
    step = float(np.std(everything[0])) or abs(beta) or 1.0
    p = p_value(hypothesis)
    low, high = interval(p_value, beta, step, conf_level) if ends else (math.nan, math.nan)
    error, mc_low, mc_high = (0.0, p, p) if enumerated else _monte_carlo(p, count)
    return RandomisationTest(
        beta, statistic_now, p, error, mc_low, mc_high, low, high, count, enumerated, deal.count,
        value(everything, hypothesis), outside(hypothesis),
    )  # fmt: skip


def randomisation(
    estimator: Estimator,  # noqa: ARG001
    sample: Sample,
    fit: Fit,
    rng: np.random.Generator,
    *,
    conf_level: float,
    draws: int,
    assigned: str | None = None,
    strata: str | None = None,
    statistic: Statistic = "t",
) -> Fit:
    """The `att` of a two-way fixed-effects fit with p-value and interval by randomisation, and what was drawn.

    `assigned` and `strata` name columns of the sample's frame. By default, where clusters hold treated and
    comparison units together (matched sets), units are shuffled within clusters; else whole clusters are shuffled.
    Raises `Inapplicable` for a fit that is not one two-way fixed-effects `att`, and as `randomise`.
    """
    test = prepared(
        sample, fit, conf_level=conf_level, draws=draws, assigned=assigned, strata=strata, statistic=statistic
    )
    return test.whole(rng)


def prepared(
    sample: Sample,
    fit: Fit,
    *,
    conf_level: float,
    draws: int,
    assigned: str | None = None,
    strata: str | None = None,
    statistic: Statistic = "t",
) -> Randomisation:
    """What `randomisation` does before it draws: its arguments and what it refuses."""
    sole_att(fit, "randomisation inference")
    if assigned is None:
        assigned, strata = dealt_by(sample, strata)
    design = dealing_of(sample, assigned, strata, statistic)
    return Randomisation(fit, design.cells, design.deal, draws, conf_level, assigned, strata or "", statistic)


@dataclass(frozen=True, slots=True)
class Randomisation:
    """A test of the `att` of `fit` that is ready to be drawn by whoever has it, whole or in shares: the same test, to
    the last digit. What it says of the draws counts the persons that the ATT does."""

    fit: Fit
    cells: Cells
    deal: _Deal
    draws: int
    conf_level: float
    assigned: str
    strata: str
    statistic: Statistic

    @property
    def count(self) -> int:
        """How many assignments are looked at: all that there are, or as many as are drawn."""
        return self.deal.several(self.draws)[1]

    def shares(self) -> list[range]:
        """The draws in runs of a second or two: one, unless the test is long."""
        if self.deal.several(self.draws)[0]:
            return [range(self.count)]
        step = a_share(len(self.deal.order), self.count)
        return [range(i, min(i + step, self.count)) for i in range(0, self.count, step)]

    def whole(self, rng: np.random.Generator) -> Fit:
        """The completed fit, in one piece."""
        return self.completed(self.drawn(rng, range(self.count)))

    def drawn(self, rng: np.random.Generator, some: range) -> NDArray[np.float64]:
        """The terms (5, draws) of `some` draws, one of `shares` or all; `rng` is as it was before the first draw."""
        all_there_are, count = self.deal.several(self.draws)
        assignments = self.deal.draw(count, all_there_are, rng, some)
        return np.concatenate(terms_of(self.cells, self.deal, assignments, self.statistic), axis=1)

    def completed(self, *shares: NDArray[np.float64]) -> Fit:
        """The fit with p-value and interval, from its shares in order."""
        att = self.fit.terms[0]
        test = judged(
            self.cells, self.deal, shares, self.deal.several(self.draws)[0], statistic=self.statistic,
            conf_level=self.conf_level,
        )  # fmt: skip
        refuse_another(att, test.estimate, att.std_error, "randomisation inference")
        facts = {
            **self.fit.facts, "draws": test.draws, "enumerated": test.enumerated, "assignments": test.assignments,
            "assigned": self.assigned, "strata": self.strata, "statistic": self.statistic,
            "p_error": test.mc_error, "p_low": test.mc_low, "p_high": test.mc_high,
        }  # fmt: skip
        term = resampled(att, test.statistic, test.p_value, test.conf_low, test.conf_high)
        bins = (replace(t, n_persons=att.n_persons, n_least=att.n_least) for t in distribution(test))
        return replace(self.fit, terms=(term, *bins), facts=facts)


def distribution(test: RandomisationTest) -> tuple[Term, ...]:
    """The statistics drawn as bins, from which p can be counted again.

    `draws`: how many. With period = bin and the interval its edges, the shares of the draws that lie as far out as the
    real assignment, `drawn_beyond`, and that do not, `drawn_nearer`; bins without any are left out. p is
    (1 + beyond) / (1 + draws); where all assignments were enumerated, the share beyond.
    """
    known = np.isfinite(test.drawn)
    values, beyond = test.drawn[known], test.beyond[known]
    spread, reach = float(values.std()) or 1.0, float(np.abs(values).max())
    width = 2.0 ** round(math.log2(spread)) / 4  # of a t, whose spread is about one, a quarter
    while reach > 50 * width:
        width *= 2
    half = math.floor(reach / width) + 1
    edges = width * np.arange(-half, half + 1)
    terms = [Term("draws", float(test.draws), tested=False)]
    for name, some in (("drawn_nearer", values[~beyond]), ("drawn_beyond", values[beyond])):
        share = np.histogram(some, edges)[0] / test.draws
        terms += [
            Term(
                name,
                float(share[i]),
                period=int(i),
                conf_low=float(edges[i]),
                conf_high=float(edges[i + 1]),
                tested=False,
            )
            for i in np.flatnonzero(share)
        ]
    return tuple(terms)


def dealt_by(sample: Sample, strata: str | None = None) -> tuple[str, str | None]:
    """The columns that name what the treatment is dealt to, and within which strata: see `randomisation`."""
    mixed = bool((sample.frame.groupby("cluster")["treated"].nunique() > 1).any())
    return ("unit", "cluster") if mixed else ("cluster", strata)


def dealing_of(sample: Sample, assigned: str, strata: str | None, statistic: Statistic = "t") -> Dealing:
    """The two-way fixed-effects regression of a sample, its treatment dealt to `assigned` within `strata`."""
    frame = sample.frame
    return dealing(
        frame["y"], frame["first_treated"], frame[assigned], time=frame["time"],
        strata=None if strata is None else frame[strata], cluster=frame["cluster"],
        nuisance=frame[list(sample.covariates)].to_numpy(dtype=float) if sample.covariates else None,
        fixed=(frame["unit"], frame["time"]), weight=frame["weight"], statistic=statistic,
    )  # fmt: skip


def _chunk(units: int, draws: int) -> int:
    """Draws that are dealt at once, of so many to so many units."""
    return max(1, min(draws, HELD // units))


def a_share(units: int, draws: int) -> int:
    """Draws that are one task of a long test, of so many to so many units."""
    return SHARE * _chunk(units, draws)


class _Deal:
    """Who can be treated instead: strata, and in each the starts to be dealt.

    A draw says, for each slot (a treated unit's start, `label`), which unit has it.
    """

    def __init__(self, layer: NDArray[np.int64], label: NDArray[np.int64]) -> None:
        self.order = np.lexsort((label == -1, layer))  # in each stratum the treated first
        self.bounds = np.flatnonzero(np.r_[True, np.diff(layer[self.order]) > 0, True])
        self.slots = [int((label[self.order[a:b]] >= 0).sum()) for a, b in itertools.pairwise(self.bounds)]
        at = [np.arange(a, a + t) for a, t in zip(self.bounds, self.slots, strict=False)]
        self.places = np.concatenate(at)
        self.label = label[self.order[self.places]]
        self.real = self.order[self.places][None, :].astype(np.int32)
        self.steps = self._steps()
        logs = 0.0
        for a, b, t in zip(self.bounds, self.bounds[1:], self.slots, strict=False):
            each = np.bincount(label[self.order[a : a + t]]) if t else np.zeros(1)
            logs += math.lgamma(b - a + 1) - math.lgamma(b - a - t + 1) - sum(math.lgamma(e + 1) for e in each)
        self.count = float(round(math.exp(logs))) if logs < 30 else math.exp(min(logs, 700.0))
        if self.count <= 1:
            raise Inapplicable("no stratum holds two assigned units with different starts: nothing can be shuffled.")

    def _steps(self) -> NDArray[np.int64]:
        """Of the shuffles, as far as a slot depends on them: place, places left with it, slot; (steps, 3)."""
        steps, done = [np.empty((0, 3), dtype=np.int64)], 0
        for a, b, t in zip(self.bounds, self.bounds[1:], self.slots, strict=False):
            if t < b - a or len(np.unique(self.label[done : done + t])) > 1:
                j = np.arange(a, min(a + t, b - 1))
                steps.append(np.column_stack([j, b - j, done + j - a]))
            done += t
        return np.concatenate(steps)

    def several(self, draws: int) -> tuple[bool, int]:
        """Whether `draws` are enough for all assignments that there are, and how many are looked at then."""
        if draws < 1:
            raise Inapplicable(f"{draws} draws: at least one.")
        enumerated = self.count <= draws
        return enumerated, round(self.count) if enumerated else draws

    def dealt(self, draws: int, rng: np.random.Generator) -> tuple[bool, Iterator[NDArray[np.int32]]]:
        """Whether all assignments that there are, and the assignments piece by piece."""
        enumerated, count = self.several(draws)
        return enumerated, self.draw(count, enumerated, rng, range(count))

    def draw(
        self, count: int, enumerate_all: bool, rng: np.random.Generator, some: range
    ) -> Iterator[NDArray[np.int32]]:
        """Of `count` assignments `some`, from a chunk's first on, as (draws, slots) unit numbers."""
        if enumerate_all:
            yield self._all()
            return
        size = _chunk(len(self.order), count)
        deck = np.empty((len(self.order), size), dtype=np.int32)
        deck[:] = self.order[:, None]
        if some.start:  # a draw takes one number a step, and a chunk before this one was as large
            rng.bit_generator.advance(some.start * len(self.steps))  # type: ignore[attr-defined]
        for start in range(some.start, some.stop, size):
            yield self._some(deck, min(size, some.stop - start), rng)

    def _some(self, deck: NDArray[np.int32], draws: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """The first steps of a Fisher-Yates shuffle of each stratum, for all draws at once: a column of `deck` each.

        `deck` comes in order and is left in order.
        """
        order = self.order.astype(np.int32)
        flat, size, each = deck.reshape(-1), deck.shape[1], np.arange(draws)  # one index is found sooner than two
        out = np.empty((len(self.places), draws), dtype=np.int32)
        pieces, touched, few = max(1, CACHED // draws), [], len(self.steps) * 8 <= len(order)
        for first in range(0, len(self.steps), pieces):
            step, left, slot = self.steps[first : first + pieces].T
            other = (rng.random((len(step), draws)) * left[:, None]).astype(np.int32)
            other += step[:, None]
            where = other * np.int64(size) + each
            if few:
                touched.append((where, other))
            for j, i, at in zip(step, slot, where, strict=True):
                flat.take(at, out=out[i], mode="clip")  # in range; of the modes the one without a copy
                flat[at] = deck[j, :draws]
        rest = np.setdiff1d(np.arange(len(self.places)), self.steps[:, 2])
        out[rest] = deck[self.places[rest], :draws]
        if few:
            for where, other in touched:
                flat[where] = order.take(other)
        else:
            deck[:] = order[:, None]
        return np.ascontiguousarray(out.T)

    def _all(self) -> NDArray[np.int32]:
        """Every different assignment once."""
        layers = []
        for a, b, t in zip(self.bounds, self.bounds[1:], self.slots, strict=False):
            members = self.order[a:b].tolist()
            label = self.label[(self.places >= a) & (self.places < b)]
            options: list[dict[int, tuple[int, ...]]] = [{}]
            for value in sorted(set(label.tolist())):
                times = int((label == value).sum())
                options = [
                    {**o, value: c}
                    for o in options
                    for c in itertools.combinations([m for m in members if not any(m in v for v in o.values())], times)
                ]
            rows = []
            for o in options:
                turn = {k: iter(v) for k, v in o.items()}
                rows.append([next(turn[v]) for v in label.tolist()])
            layers.append(rows if t else [[]])
        return np.array([list(itertools.chain(*parts)) for parts in itertools.product(*layers)], dtype=np.int32)


def _cells(
    fit: Regression,
    span: NDArray[np.int64],
    starts: int,
    units: NDArray[np.int64],
    n_units: int,
    group: NDArray[np.int64],
    statistic: Statistic,
) -> Cells:
    """`span` (n,): of the `starts`, how many a row's time has reached; it is treated by every one of these."""
    w, real = fit.weight, fit.x[:, 0]
    outcome = fit.residual + real * fit.beta[0]
    columns = np.column_stack([w * outcome, w * real, w, w[:, None] * fit.basis])
    spans = starts + 1

    def from_start(values: NDArray[np.float64], code: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        """Sums of the columns within (code, start): (size, L, k)."""
        parts = by_group(values, code * spans + span, size * spans).reshape(size, spans, -1)
        return np.asarray(parts[:, :0:-1].cumsum(axis=1)[:, ::-1])

    sums = from_start(columns, units, n_units)
    if fit.absorbed is not None:
        levels = int(fit.absorbed.max()) + 1
        total = np.bincount(fit.absorbed, w)
        home = np.empty(levels, dtype=np.int64)
        home[fit.absorbed] = units
        on = from_start(w[:, None], fit.absorbed, levels)[:, :, 0]
        sums[:, :, 2] -= by_group(on**2 / total[:, None], home, n_units)
    groups, m = int(group.max()) + 1, fit.basis.shape[1]
    of_unit = np.empty(n_units, dtype=np.int64)
    of_unit[units] = group
    flat = sums.reshape(n_units * starts, -1)
    rest = np.ascontiguousarray(flat[:, 2:])
    _, found, kind = np.unique(hashed(rest, 12), return_index=True, return_inverse=True)
    few, none = len(found) <= KINDS, np.empty((groups, 0))
    cells = Cells(
        np.ascontiguousarray(flat[:, 0]), np.ascontiguousarray(flat[:, 1]), rest, kind.ravel() if few else None,
        rest[found] if few else rest[:0], of_unit, starts, none, none, none, math.nan,
    )  # fmt: skip
    if statistic == "coefficient":
        return cells
    if groups < 2:
        raise Inapplicable(f"{groups} cluster: t has no clustered error; take the coefficient as the statistic.")
    gram = np.empty((groups, m * (m + 1) // 2))
    at = 0
    for i in range(m):  # a pass over the rows for each direction, with all from it on
        some = slice(at, at := at + m - i)
        gram[:, some] = by_group(fit.basis[:, i:], group, groups, columns[:, 3 + i])
        gram[:, some.start + 1 : at] *= 2
    return replace(
        cells, outcome=by_group(columns[:, 3:], group, groups, outcome),
        treatment=by_group(columns[:, 3:], group, groups, real), gram=gram,
        factor=correction(len(w), parameters(fit, [group]), groups),
    )  # fmt: skip


def _terms(cells: Cells, who: NDArray[np.int32], label: NDArray[np.int64], statistic: Statistic) -> NDArray[np.float64]:
    """For each assignment of `who` (draws, slots): the coefficient b0 - r b1 and its variance, quadratic in r.

    (5, draws): b0, b1, and the terms of the variance in 1, -2r and r^2, noughts for a coefficient by itself.

    An assignment whose treatment is collinear with the nuisance has no coefficient: NaN.
    """
    draws, slots = who.shape
    out = np.zeros((5, draws))
    size = max(1, CACHED // max(len(cells.outcome) if statistic == "t" else 1, slots, cells.gram.shape[1]))
    for start in range(0, draws, size):
        out[:, start : start + size] = _some_terms(cells, who[start : start + size], label, statistic)
    return out


def _some_terms(
    cells: Cells, who: NDArray[np.int32], label: NDArray[np.int64], statistic: Statistic
) -> NDArray[np.float64]:
    """`_terms` of as many assignments as the processor's cache holds: (5, draws)."""
    n, slots = who.shape
    each = np.arange(n)[:, None]
    cell = who * np.int64(cells.starts) + label
    own, real = cells.own.take(cell), cells.real.take(cell)
    if cells.kind is None:
        from scipy.sparse import csr_array

        chosen = np.ones(cell.size), cell.ravel(), np.arange(n + 1) * slots
        rest = csr_array(chosen, shape=(n, len(cells.rest))) @ cells.rest
        kind = None
    else:
        kinds = len(cells.kinds)
        kind = cells.kind.take(cell) + each * kinds
        rest = np.bincount(kind.ravel(), minlength=n * kinds).reshape(n, kinds) @ cells.kinds
    r = rest[:, 1:]
    den = rest[:, 0] - np.einsum("ij,ij->i", r, r)
    den = np.where(den > 1e-10 * np.abs(rest[:, 0]), den, np.nan)
    b = np.stack([own.sum(axis=1), real.sum(axis=1)]) / den
    out = np.zeros((5, n))
    out[:2] = b
    if statistic == "coefficient":
        return out
    if kind is None:
        rows = zip(cell, r, strict=True)
        square = np.stack([cells.rest[c, 0] - 2 * (cells.rest[c, 1:] @ along) for c, along in rows])
    else:
        square = (cells.kinds[:, 0] - 2 * r @ cells.kinds[:, 1:].T).take(kind)
    groups = len(cells.outcome)
    at = (cells.home.take(who) + each * groups).ravel()

    def grouped(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(at, values.ravel(), minlength=n * groups).reshape(n, groups), dtype=float)

    i, j = np.triu_indices(r.shape[1])
    whole = grouped(square) + (r[:, i] * r[:, j]) @ cells.gram.T
    e0 = grouped(own) - r @ cells.outcome.T - b[0][:, None] * whole
    e1 = grouped(real) - r @ cells.treatment.T - b[1][:, None] * whole
    for q, (a, c) in zip(out[2:], ((e0, e0), (e0, e1), (e1, e1)), strict=True):
        q[:] = np.einsum("ij,ij->i", a, c) * cells.factor / den**2
    return out


def _monte_carlo(p: float, draws: int, level: float = 0.99) -> tuple[float, float, float]:
    """Standard error of p from `draws` draws, and its Clopper-Pearson interval."""
    from scipy.special import betaincinv

    beyond = p * (draws + 1) - 1
    low = 0.0 if beyond <= 0 else float(betaincinv(beyond, draws - beyond + 1, (1 - level) / 2))
    high = 1.0 if beyond >= draws else float(betaincinv(beyond + 1, draws - beyond, (1 + level) / 2))
    return math.sqrt(p * (1 - p) / draws), low, high
