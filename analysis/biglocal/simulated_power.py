"""Power by simulation: each method's size, coverage and power by size of effect and number of treated areas.

Areas of the sample are drawn at random, with the LSOAs matched to them, and the outcome is drawn anew as in
`simulation`, under several multiples of the known effect. So the design's minimum detectable effects are counted and
not only worked out (`inference.power`), and what few clusters do to each way of inference can be seen (Cameron,
Gelbach and Miller 2008, Rev Econ Stat 90:414; Burlig, Preonas and Woerman 2020, J Dev Econ 144:102458).
"""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from biglocal.model import Analysis, Fit, Inapplicable, Sample, Term
from biglocal.placebo import wilson
from biglocal.simulation import DRAWS, RESAMPLED, Method, World, called, outcomes, product, replicated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from biglocal.sample import Draw
    from biglocal.simulation import Design

    Floats = NDArray[np.float64]

PART = "simulated_power"
SLOWER = 2  # all but least squares with analytic errors take every second replication
QUADRATIC = (  # estimates linear in the outcome, their squared errors quadratic: three sizes of effect give all
    "matched_change", "callaway_santanna", "imputation", "sun_abraham", "stacked", "drdid",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """A sample on some of its `areas`: `rows` (n,) of the whole, the known effect by row, and its mean over treated."""

    sample: Sample
    rows: NDArray[np.int64]
    areas: int
    effect: Floats
    truth: float


@dataclass(frozen=True, slots=True)
class Found:
    """One method on one list of areas: `tests` (sizes, 5) as `simulation.replications` has them, NaN where there are
    none; `df`, the mean known effect, areas, and rows, units, treated units and clusters."""

    tests: Floats
    df: float
    truth: float
    areas: int
    counts: tuple[int, int, int, int]


def run(
    draw: Draw,
    analyses: Sequence[Analysis],
    runs: Callable[..., Iterator[list[list[list[Found]]]]],
    rng: Callable[[str], np.random.Generator],
    advance: Callable[[int], None],
) -> Iterator[tuple[Analysis, Fit | str]]:
    """Each analysis with what its replications say, or the reason why there is nothing to say.

    As `simulation.replicated`; areas are shared too.
    """
    policy = draw.study.policy
    sizes, numbers = policy.power_effects, policy.power_areas

    def say(found: list[list[list[list[Found]]]], world: World, m: int, caution: str) -> Fit:
        every = [one[m] for batch in found for one in batch]  # by replication and number of areas
        by = list(zip(*every[:: _every(world.methods[m])], strict=True))
        return summary(by, sizes, numbers, policy.conf_level, policy.power, caution)

    yield from replicated(
        draw, analyses, runs, rng, advance, policy.power_simulations, replications, (sizes, numbers), say
    )


def replications(world: World, which: range, sizes: Sequence[float], numbers: Sequence[int]) -> list[list[list[Found]]]:
    """Replications `which`, by method and number of areas. Each draws its own areas; the fewer are among the more."""
    return [_once(world, i, sizes, numbers) for i in which]


def _once(world: World, i: int, sizes: Sequence[float], numbers: Sequence[int]) -> list[list[Found]]:
    drawn = outcomes(world, world.rng(f"{PART}/{world.outcome}/{i}"), (*sizes, -1.0, 1.0))
    codes = max(int(d.sample.frame["cluster"].max()) for d in world.designs.values()) + 1
    # one after the other, so that a longer list of clusters begins with the shorter
    place = world.rng(f"{PART}/{world.outcome}/areas/{i}").random(codes)
    parts = {(k, n): part(d, place, n) for k, d in world.designs.items() for n in numbers}
    out = []
    for m in world.methods:
        on = [parts[m.design, n] for n in numbers]
        of = [
            (p, drawn[m.design][:, p.rows], f"{PART}/{m.analysis.id}/{n}/{i}") for p, n in zip(on, numbers, strict=True)
        ]
        skipped = i % _every(m)
        out.append([_found(world, m, p, None if skipped else y, sizes, name) for p, y, name in of])
    return out


def _every(method: Method) -> int:
    return SLOWER if method.product is None or method.analysis.inference in RESAMPLED else 1


def part(design: Design, place: Floats, count: int) -> Part:
    """The `count` areas (or all there are, if fewer) that come first by `place` (clusters,), with their matched sets.

    An area is a cluster with treated LSOAs; a comparison LSOA belongs to its cluster's area or, clustered by itself,
    to that of the LSOA it is matched to. Raises `Inapplicable` where no comparison LSOA belongs to any.
    """
    import numpy as np

    frame = design.sample.frame
    cluster, unit, treated, matched = (frame[c].to_numpy() for c in ("cluster", "unit", "treated", "set"))
    is_area = np.zeros(len(place), dtype=bool)
    is_area[cluster[treated == 1]] = True
    home = np.full(int(max(unit.max(), matched.max())) + 1, -1)
    home[unit[treated == 1]] = cluster[treated == 1]
    area = np.where(is_area[cluster], cluster, np.where(matched >= 0, home[matched], -1))
    if not (area[treated == 0] >= 0).any():
        raise Inapplicable("comparison LSOAs are matched to no treated one: areas cannot be drawn with theirs.")
    there = np.flatnonzero(is_area)
    chosen = np.zeros(len(place) + 1, dtype=bool)  # the last stands for none
    chosen[there[np.argsort(place[there], kind="stable")[:count]]] = True
    rows = np.flatnonzero(chosen[area])
    effect = (design.effect if design.cells is None else np.asarray(design.cells @ design.effect))[rows]
    own = frame.iloc[rows].reset_index(drop=True)
    weight = np.where(effect != 0, own["weight"].to_numpy(dtype=float), 0.0)
    truth = float(weight @ effect / weight.sum())
    return Part(replace(design.sample, frame=own), rows, int(chosen.sum()), effect, truth)


def _found(world: World, method: Method, on: Part, y: Floats | None, sizes: Sequence[float], name: str) -> Found:
    """`y` (sizes + 2, n): the outcome under every size of effect, then under minus one and one; None: not asked."""
    import numpy as np

    frame, df, count = on.sample.frame, math.nan, len(sizes)
    tests = np.full((count, 5), np.nan)
    treated = frame["treated"].to_numpy() == 1
    units, clusters = frame["unit"].to_numpy(), frame["cluster"].to_numpy()
    counts = (len(frame), len(np.unique(units)), len(np.unique(units[treated])), len(np.unique(clusters)))
    with suppress(Inapplicable):  # counted in `summary`
        if y is None:
            pass
        elif method.product is not None:
            whole = len(frame) == len(world.designs[method.design].sample.frame)
            made = method.product if whole else product(on.sample, method.file, method.analysis.inference)
            df = getattr(made, "df", math.nan)
            known = [j for j, size in enumerate(sizes) if size == 1]  # whose coverage is counted
            tests = made.tests(y[:count], partial(world.rng, name), DRAWS, world.conf_level, known)
        elif world.outcome == "samhi" and method.file in QUADRATIC and method.analysis.inference == "cluster":
            less, one, nil = (_plain(method, on.sample, v) for v in (y[-2], y[-1], y[-1] - on.effect))
            df = nil[2]
            tests = scaled(less[1], nil, one, np.asarray(sizes, dtype=float), world.conf_level)
        else:
            small = replace(world, designs={method.design: replace(world.designs[method.design], sample=on.sample)})
            tests = np.array([called(method, v, small, name) for v in y[:count]])
    return Found(tests, df, on.truth, on.areas, counts)


def _plain(method: Method, sample: Sample, y: Floats) -> tuple[float, float, float]:
    """Estimate, standard error and degrees of freedom of the ATT."""
    from biglocal.estimators import estimator

    fit = estimator(method.file)(replace(sample, frame=sample.frame.assign(y=y)), **method.options)
    att = next(t for t in fit.terms if t.name == "att")
    return att.estimate, att.std_error, att.df


def scaled(
    less: float, nil: tuple[float, float, float], one: tuple[float, float, float], sizes: Floats, level: float
) -> Floats:
    """Tests (sizes, 5) at every size of an effect, from fits without it (`nil`), with it (`one`), and the standard
    error with its opposite (`less`).

    The outcome is that without effect plus size times the effect. An estimate linear in it, with influence linear in
    it, moves on a line, and its variance on a parabola.
    """
    import numpy as np

    from biglocal.inference.many import by_t

    estimate = nil[0] + sizes * (one[0] - nil[0])
    curve = (one[1] ** 2 + less**2) / 2 - nil[1] ** 2
    slope = (one[1] ** 2 - less**2) / 2
    return by_t(estimate, np.sqrt(nil[1] ** 2 + slope * sizes + curve * sizes**2), nil[2], level)


# --- what the replications say ---------------------------------------------------------------------------------


def summary(
    found: Sequence[Sequence[Found]],
    sizes: Sequence[float],
    numbers: Sequence[int],
    level: float,
    target: float,
    caution: str = "",
) -> Fit:
    """What replications say together: `found` by number of areas and replication.

    Terms, each with period = number of areas asked for: `replications`; `effect`, the mean known effect; `size`, the
    share that is rejected without effect; `coverage` of the known effect, and the `bias` of estimates of it, with
    its Monte Carlo error; `error_ratio`, as in `simulation`; `power`, level = statistic = the multiple of the known
    effect: the share that is told apart from none; `minimum_detectable`, the size of the mean effect at which that
    is `target`, between the multiples drawn on a line in probits; `minimum_detectable_formula`, what
    `inference.power` makes of the mean squared error and its degrees of freedom. Shares have Wilson's interval,
    and `minimum_detectable` what it leads to; without an end where the multiples drawn do not reach. Raises
    `Inapplicable` where fewer than two replications have an estimate.
    """
    import numpy as np

    from biglocal.inference.power import minimum_detectable

    terms: list[Term] = []
    off: list[str] = []
    lost = 0
    for number, every in zip(numbers, found, strict=True):
        good = [f for f in every if np.isfinite(f.tests[:, 4]).all()]
        n = len(good)
        if n < 2:
            raise Inapplicable(f"{n} replications of {number} areas to which the method applies.")
        lost += len(every) - n
        tests, truth = np.stack([f.tests for f in good]), np.array([f.truth for f in good])
        areas = max(f.areas for f in good)
        effect = float(truth.mean())
        shares = (tests[:, :, 4] < 1 - level).mean(axis=0)

        def term(name: str, value: float, number: int = number, areas: int = areas, **more: Any) -> Term:
            return Term(name, value, period=number, n_treated_clusters=areas, tested=False, **more)

        def share(name: str, value: float, n: int = n, **more: Any) -> Term:
            low, high = wilson(value, n, level)
            return term(name, value, conf_low=low, conf_high=high, **more)

        terms += [term("replications", float(n)), term("effect", effect)]
        for size, value in zip(sizes, shares, strict=True):
            if size == 0:
                terms.append(share("size", float(value)))
            else:
                terms.append(share("power", float(value), level=f"{size:g}", statistic=size))
        one = tests[:, list(sizes).index(1)]
        terms.append(share("coverage", float(((one[:, 2] <= truth) & (truth <= one[:, 3])).mean())))
        spread = float((one[:, 0] - truth).std(ddof=1))
        terms.append(term("bias", float((one[:, 0] - truth).mean()), std_error=spread / math.sqrt(n)))
        if np.isfinite(one[:, 1]).all():
            terms.append(term("error_ratio", float(one[:, 1].mean()) / spread))
        ends = [wilson(float(s), n, level) for s in shares]
        low, high = ([e[i] for e in ends] for i in (1, 0))
        at = [crossing(sizes, s, target) for s in (shares, low, high)]
        least, *between = (abs(effect) * x for x in at)
        terms.append(term("minimum_detectable", least, conf_low=between[0], conf_high=between[1]))
        if math.isnan(least):
            off.append(str(number))
        nil = tests[:, list(sizes).index(0)]
        df = float(np.mean([f.df for f in good]))
        if np.isfinite(nil[:, 1]).all() and df > 0:
            error = math.sqrt(float((nil[:, 1] ** 2).mean()))
            terms.append(
                term("minimum_detectable_formula", minimum_detectable(error, df, target=target, alpha=1 - level))
            )
    counts = max((f.counts for every in found for f in every), key=lambda c: c[0])
    left = f"{lost} replications without an estimate left." if lost else ""
    said = f"Not detectable with {', '.join(off)} areas at the largest effect drawn." if off else ""
    return Fit(tuple(terms), *counts, caution=" ".join(filter(None, [caution, left, said])))


def crossing(sizes: Sequence[float], power: Sequence[float] | Floats, target: float) -> float:
    """The size of effect at which `power` (sizes,) reaches `target`: on a line in probits; NaN where it never does."""
    from scipy.special import ndtri

    order = sorted(zip(sizes, power, strict=True))
    for (a, p), (b, q) in itertools.pairwise(order):
        if p < target <= q:
            x, y, z = (float(ndtri(min(max(v, 1e-6), 1 - 1e-6))) for v in (p, q, target))
            return a + (b - a) * (z - x) / (y - x)
    return math.nan
