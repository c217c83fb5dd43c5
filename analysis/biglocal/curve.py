"""What the specifications of an outcome say together: the specification curve, its tests, and which choice matters.

Specification curve analysis (Simonsohn, Simmons and Nelson 2020, Nature Human Behaviour 4:1208): the statistics of
the whole curve are held against what they are where the programme changed nothing and other places were treated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from biglocal.model import Fit, Inapplicable, Term
from biglocal.specifications import DIMENSIONS, Specification, grouped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST = 99  # draws that a test may rest on


def summary(
    specs: Sequence[Specification],
    seen: Floats,
    null: Floats,
    *,
    level: float,
    units: int,
    rows: int,
    caution: str = "",
) -> Fit:
    """Every specification, and the tests of all at a confidence `level`.

    `seen` (S, 6): estimate, standard error, units, treated units and clusters of each, NaN for none; and the fewest
    persons it compares, NaN where it is none of persons. `null` (draws, S, 3): estimate, standard error and clusters
    under other lists. `units`, `rows`: the outcome's own. `caution` is said too.

    Terms: `specifications` and `draws` (counts); `curve`, with its two-sided p-value over the draws, and `drawn`, the
    mean and the middle of what the draws say (interval at the study's level), of level `median` (of the estimates),
    `share_same_sign` (of the commoner sign), `share_significant` (in the commoner direction), `stouffer` (the sum of z
    over the root of their number), `max_z` (the largest in size); `curve` of level `told_apart`: specifications that
    are, with the family-wise error held at the study's level (step-down over the draws; Westfall and Young 1993;
    Romano and Wolf 2005, Econometrica 73:1237). `vibration`: 99th less 1st percentile of the estimates, the logarithm
    of the ratio that Patel, Burford and Ioannidis (2015, J Clin Epidemiol 68:1046) take of hazard ratios;
    `vibration_p`: the same of -log10 p; `share_flipped`: with another sign than the median. `choice` (level =
    dimension): its share of the variance of the estimates, see `shares`, with `choice` of level `interactions` for the
    rest; `option` (level = dimension: option): the median estimate with it. `null_curve` (period = percentile): the
    draws' estimates by size, median and middle. `specification` (level = its name): estimate, error, t, p and interval.

    Raises `Inapplicable` for fewer than 99 draws.
    """
    import numpy as np
    from scipy.special import ndtri, stdtr, stdtrit

    alpha = 1 - level
    there = np.isfinite(seen[:, 1]) & (seen[:, 1] > 0)
    if not there.any():
        raise Inapplicable("no specification has treated and comparison LSOAs, before and after, in two areas or more.")
    good = np.asarray((np.isfinite(null[:, there]).all(axis=2) & (null[:, there, 1] > 0)).all(axis=1))
    if good.sum() < FEWEST:
        raise Inapplicable(
            f"{int(good.sum())} of {len(good)} draws went through every specification; {FEWEST} are needed. "
            f"Take out the comparison, window or covariate that leaves none."
        )
    without = _lost([s for s, ok in zip(specs, there, strict=True) if not ok], specs)
    specs = [s for s, ok in zip(specs, there, strict=True) if ok]
    seen, null = seen[there], null[good][:, there]
    estimate = np.vstack([seen[None, :, 0], null[..., 0]])  # the list as it is, then the draws
    error, df = np.vstack([seen[None, :, 1], null[..., 1]]), np.vstack([seen[None, :, 4], null[..., 2]]) - 1
    p = 2 * stdtr(df, -np.abs(estimate / error))
    z = np.sign(estimate) * -ndtri(np.maximum(p, 1e-300) / 2)
    found = p < alpha
    curve = {
        "median": np.median(estimate, axis=1),
        "share_same_sign": np.maximum((estimate > 0).mean(axis=1), (estimate < 0).mean(axis=1)),
        "share_significant": np.maximum((found & (z > 0)).mean(axis=1), (found & (z < 0)).mean(axis=1)),
        "stouffer": z.sum(axis=1) / np.sqrt(len(specs)),
        "max_z": np.abs(z).max(axis=1),
    }
    draws = len(null)
    terms = [Term("specifications", float(len(specs)), tested=False), Term("draws", float(draws), tested=False)]
    for name, values in curve.items():
        terms.append(Term("curve", float(values[0]), level=name, p_value=extreme(values)))
        low, high = np.quantile(values[1:], [alpha / 2, 1 - alpha / 2])
        mean = float(values[1:].mean())
        terms.append(Term("drawn", mean, level=name, conf_low=float(low), conf_high=float(high)))
    apart = float((step_down(np.abs(z)) < alpha).sum())
    terms.append(Term("curve", apart, level="told_apart", tested=False))
    middle = curve["median"][0]
    spread, of_p = np.quantile(seen[:, 0], [0.01, 0.99]), np.quantile(-np.log10(np.maximum(p[0], 1e-300)), [0.01, 0.99])
    terms += [
        Term("vibration", float(spread[1] - spread[0]), conf_low=float(spread[0]), conf_high=float(spread[1])),
        Term("vibration_p", float(of_p[1] - of_p[0]), conf_low=float(of_p[0]), conf_high=float(of_p[1])),
        Term("share_flipped", float((np.sign(seen[:, 0]) == -np.sign(middle)).mean()), tested=False),
    ]
    terms += [Term("choice", v, level=k, tested=False) for k, v in shares(specs, seen[:, 0]).items()]
    for dimension in DIMENSIONS:
        for (option,), some in grouped(list(enumerate(specs)), dimension):
            of = float(np.median([seen[i, 0] for i, _ in some]))
            terms.append(Term("option", of, level=f"{dimension}: {option}", tested=False))
    at = np.round(np.linspace(0, len(specs) - 1, 101)).astype(int)
    ordered = np.sort(null[..., 0], axis=1)[:, at]
    low, mid, high = np.quantile(ordered, [alpha / 2, 0.5, 1 - alpha / 2], axis=0)
    terms += [
        Term("null_curve", float(mid[i]), period=i, conf_low=float(low[i]), conf_high=float(high[i]), tested=False)
        for i in range(len(at))
    ]
    width = stdtrit(df[0], 1 - alpha / 2) * seen[:, 1]
    if of_persons := bool(np.isfinite(seen[:, 5]).all()):  # what is said of all together rests on the least of them
        terms = [replace(t, n_least=int(seen[:, 5].min())) for t in terms]
    counts: list[tuple[int | None, int | None, int | None]] = [(None, None, None)] * len(terms)
    for i, s in enumerate(specs):
        b, e = float(seen[i, 0]), float(seen[i, 1])
        terms.append(
            Term("specification", b, e, float(df[0, i]), level=s.name, statistic=b / e, p_value=float(p[0, i]),
                 conf_low=b - float(width[i]), conf_high=b + float(width[i]),
                 n_least=int(seen[i, 5]) if of_persons else None)
        )  # fmt: skip
        counts.append((int(seen[i, 2]), int(seen[i, 3]), int(seen[i, 4])))
    lost = int((~good).sum())
    said = [
        caution,
        without,
        f"{lost} draws without an estimate of every specification left." if lost else "",
    ]
    return Fit(
        tuple(terms), rows, units, int(seen[:, 3].max()), int(seen[:, 4].max()),
        caution=" ".join(filter(None, said)), facts={"counts": counts},
    )  # fmt: skip


def _lost(lost: Sequence[Specification], every: Sequence[Specification]) -> str:
    """What is said of specifications without an estimate: how many, and the options that all of them have."""
    if not lost:
        return ""
    shared = [
        f"{d} {getattr(lost[0], d)}"
        for d in DIMENSIONS
        if len({getattr(s, d) for s in lost}) == 1 < len({getattr(s, d) for s in every})
    ]
    which = f" (of those with {', '.join(shared)})" if shared else ""
    return (
        f"{len(lost)} of {len(every)} specifications{which} have no estimate and left: too few LSOAs, "
        f"or a covariate that is constant among them or collinear."
    )


def extreme(values: Floats) -> float:
    """The two-sided p-value of the first of `values` (1 + draws,): the share that is as far from nought, itself among
    them (Phipson and Smyth 2010)."""
    import numpy as np

    size = np.abs(values)
    return float((size >= size[0] * (1 - 1e-12)).mean())


def step_down(size: Floats) -> Floats:
    """Adjusted p-values (S,) of the first row of `size` (1 + draws, S) in step-down order: each specification against
    the largest of those that are not yet rejected (Romano and Wolf 2005, algorithm 4.1)."""
    import numpy as np

    order = np.argsort(-size[0], kind="stable")
    largest = np.maximum.accumulate(size[:, order[::-1]], axis=1)[:, ::-1]
    p = np.maximum.accumulate((largest >= size[0, order] * (1 - 1e-12)).mean(axis=0))
    out = np.empty_like(p)
    out[order] = p
    return np.asarray(out)


def shares(specs: Sequence[Specification], values: Floats) -> dict[str, float]:
    """How much of the variance of `values` (S,) goes with each dimension, and with none by itself (`interactions`).

    The Shapley value of a dimension in R2 of the regression on the options of all dimensions (Lindeman, Merenda and
    Gold 1980; Groemping 2007, American Statistician 61:139): what it adds, on average over all orders in which
    dimensions can be added. Combinations are ruled out, so dimensions are not orthogonal, and each order would say
    something else. Invariant to the order of options, of dimensions and of specifications.
    """
    import math

    import numpy as np

    total = float(((values - values.mean()) ** 2).sum())
    if total <= 0:
        return {**dict.fromkeys(DIMENSIONS, 0.0), "interactions": 0.0}
    blocks = []
    for d in DIMENSIONS:
        options = sorted({getattr(s, d) for s in specs})[1:]
        blocks.append(np.array([[getattr(s, d) == o for o in options] for s in specs], dtype=float))
    y = values - values.mean()
    centred = [b - b.mean(axis=0) for b in blocks]
    k = len(blocks)
    explained = np.zeros(2**k)
    for mask in range(1, 2**k):
        x = np.column_stack([centred[j] for j in range(k) if mask >> j & 1])
        fit = x @ np.linalg.lstsq(x, y, rcond=1e-10)[0] if x.shape[1] else np.zeros(len(y))
        explained[mask] = float(fit @ fit) / total
    out = {}
    for j, name in enumerate(DIMENSIONS):
        value = 0.0
        for mask in range(2**k):
            if not mask >> j & 1:
                m = mask.bit_count()
                weight = math.factorial(m) * math.factorial(k - m - 1) / math.factorial(k)
                value += weight * (explained[mask | 1 << j] - explained[mask])
        out[name] = float(value)
    return {**out, "interactions": float(1 - explained[-1])}
