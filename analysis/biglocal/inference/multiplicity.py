"""Adjustment of the p-values of a family for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from biglocal.inference.regression import coded, regression
from biglocal.inference.wild import CHUNK, Weights, bootstrap, check_clusters, drawn, sample_t, scores
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

METHODS = ("holm", "hochberg", "hommel", "bonferroni", "fdr_bh", "fdr_by")


def adjust(p: Sequence[float], method: str) -> tuple[float, ...]:
    """Adjusted p-values of one family, in its order.

    Family-wise error: `bonferroni`, `holm` (Holm 1979), `hochberg` (1988), `hommel` (1988); the last two for
    independent or positively dependent tests. False discovery rate: `fdr_bh` (Benjamini-Hochberg 1995), `fdr_by`
    (Benjamini-Yekutieli 2001, any dependence).
    Raises `Inapplicable` for another name, and p-values that are missing or outside 0 to 1.
    """
    values = np.asarray(p, dtype=float)
    if method not in METHODS:
        raise Inapplicable(f"no adjustment {method!r}; there are {', '.join(METHODS)}.")
    if not ((values >= 0) & (values <= 1)).all():
        raise Inapplicable("p-values must lie between 0 and 1: leave the missing ones out of the family.")
    m = len(values)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    rank = np.arange(1, m + 1)
    if method == "bonferroni":
        adjusted = m * ranked
    elif method == "holm":
        adjusted = np.maximum.accumulate((m + 1 - rank) * ranked)
    elif method == "hochberg":
        adjusted = np.minimum.accumulate(((m + 1 - rank) * ranked)[::-1])[::-1]
    elif method == "hommel":
        adjusted = _hommel(ranked)
    else:
        factor = float((1 / rank).sum()) if method == "fdr_by" else 1.0
        adjusted = np.minimum.accumulate((factor * m / rank * ranked)[::-1])[::-1]
    out = np.empty(m)
    out[order] = np.minimum(adjusted, 1)
    return tuple(float(v) for v in out)


def _hommel(ranked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hommel's closed Simes test, by Wright's algorithm (1992, Biometrics 48:1005)."""
    m = len(ranked)
    rank = np.arange(1, m + 1)
    best = np.full(m, (m * ranked / rank).min(initial=np.inf))
    out = best.copy()
    for size in range(m - 1, 1, -1):
        head, tail = np.arange(m - size + 1), np.arange(m - size + 1, m)
        least = float((size * ranked[tail] / np.arange(2, size + 1)).min())
        best[head] = np.minimum(size * ranked[head], least)
        best[tail] = best[m - size]
        out = np.maximum(out, best)
    return np.asarray(np.maximum(out, ranked), dtype=float)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One regression of a family: arrays (n,) of its own rows, as `wild.wild_cluster` takes them."""

    y: ArrayLike
    x: ArrayLike
    cluster: ArrayLike
    nuisance: ArrayLike | None = None
    fixed: Sequence[ArrayLike] = ()
    weight: ArrayLike | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """Estimates, t statistics, bootstrap p-values each by itself, and adjusted for the family, in its order."""

    estimate: tuple[float, ...]
    statistic: tuple[float, ...]
    p_value: tuple[float, ...]
    p_adjusted: tuple[float, ...]
    draws: int


def romano_wolf(
    outcomes: Sequence[Outcome],
    *,
    rng: np.random.Generator,
    kind: Weights = "rademacher",
    draws: int = 9_999,
    counting: str = "nonnested",
) -> Family:
    """Romano and Wolf's stepdown p-values of the effect of x on several outcomes, by the wild cluster bootstrap.

    Romano and Wolf (2005, Econometrica 73:1237; 2016, Stat Prob Letters 113:38, algorithm 4.2) with the t of the
    restricted bootstrap (wild.py). A cluster has one weight in every outcome, which keeps their dependence.
    Family-wise error; the sample counts as one of the draws. Outcomes may have different rows: clusters are told
    by their labels.
    Raises `Inapplicable` for an empty family, and as `wild.wild_cluster` does, naming the outcome by its place.
    """
    if not outcomes:
        raise Inapplicable("a family without outcomes.")
    labels = np.unique(np.concatenate([np.asarray(o.cluster) for o in outcomes]))
    made = []
    for i, o in enumerate(outcomes):
        own, code = np.unique(np.asarray(o.cluster), return_inverse=True)
        try:
            check_clusters(np.asarray(o.x, dtype=float), code)
            fit = regression(o.y, o.x, nuisance=o.nuisance, fixed=o.fixed, weight=o.weight, within=code)
        except Inapplicable as e:
            raise Inapplicable(f"outcome {i}: {e}") from None
        made.append((scores(fit, [coded(code)], counting=counting), np.searchsorted(labels, own)))
    count, enumerated, pieces = drawn(len(labels), draws, kind, rng)
    signs = kind == "rademacher"  # a byte a weight: a million draws of 300 clusters are 0.3 GB and not 2.4
    weights = np.concatenate([p.astype(np.int8) if signs else p for p in pieces])
    beta, own_t, t = [], [], np.empty((count, len(made)))
    for j, (s, where) in enumerate(made):
        b, se = sample_t(s)
        if not se > 0:
            raise Inapplicable(f"outcome {j}: the clustered variance of the estimate is not positive.")
        parts = (weights[i : i + CHUNK, where].astype(float) for i in range(0, count, CHUNK))
        t[:, j] = np.abs(bootstrap(s, parts, count, enumerated).t(0.0))
        beta.append(b)
        own_t.append(b / se)
    size = np.abs(np.array(own_t))
    t = np.nan_to_num(t, nan=0.0)
    order = np.argsort(-size, kind="stable")
    # the largest of the draws among an outcome and those with smaller t than it
    largest = np.maximum.accumulate(t[:, order[::-1]], axis=1)[:, ::-1]
    stepped = np.maximum.accumulate((1 + (largest >= size[order] * (1 - 1e-12)).sum(axis=0)) / (1 + count))
    alone = (1 + (t > size * (1 + 1e-12)).sum(axis=0)) / (1 + count)
    adjusted = np.empty(len(made))
    adjusted[order] = stepped
    return Family(tuple(beta), tuple(own_t), tuple(alone.tolist()), tuple(adjusted.tolist()), count)


def together(
    samples: Sequence[Sample], fits: Sequence[Fit], *, rng: np.random.Generator, conf_level: float, draws: int
) -> tuple[Fit, ...]:
    """Each two-way fixed-effects fit of a family with its p-values before and after adjustment for the others.

    Terms, all with the estimate and a p-value: `cluster` (the t test, unadjusted), `holm` and `fdr_bh` of these;
    `bootstrap` (the wild cluster bootstrap, unadjusted) and `romano_wolf`. Clusters must have the same labels in
    every sample. Raises `Inapplicable` as `romano_wolf` does, and for a fit that is not one `att`.
    """
    from biglocal.inference.cluster import complete

    if any([t.name for t in fit.terms] != ["att"] for fit in fits):
        raise Inapplicable("p-values of a family are adjusted for single ATTs of two-way fixed effects.")
    atts = [complete(fit.terms[0], conf_level) for fit in fits]
    plain = [t.p_value for t in atts]
    family = romano_wolf(
        [
            Outcome(
                s.frame["y"], s.frame["d"], s.frame["cluster"], fixed=(s.frame["unit"], s.frame["time"]),
                nuisance=s.frame[list(s.covariates)] if s.covariates else None, weight=s.frame["weight"],
            )
            for s in samples
        ],
        rng=rng, draws=draws,
    )  # fmt: skip
    named = {
        "cluster": plain, "holm": adjust(plain, "holm"), "fdr_bh": adjust(plain, "fdr_bh"),
        "bootstrap": family.p_value, "romano_wolf": family.p_adjusted,
    }  # fmt: skip
    return tuple(
        replace(fit, terms=tuple(Term(name, att.estimate, p_value=p[i], tested=False) for name, p in named.items()))
        for i, (fit, att) in enumerate(zip(fits, atts, strict=True))
    )
