"""Rosenbaum's bounds: how large a hidden bias would have to be to undo what matched sets show.

Two units alike on everything matched on may differ in their odds of treatment by a factor of up to Gamma, because
of something unseen. At each Gamma there is a largest p-value over all such biases; Gamma = 1 is the randomisation
test (Rosenbaum 2002, Observational Studies, chapter 4). The response is the change from before to after the start,
so what differs between units but does not change is no bias here; what matters is what moves changes.

The statistic is Huber's M-statistic, for sets of any size (Rosenbaum 2007, Biometrics 63:456), its largest p-value
by the separable approximation (Gastwirth, Krieger and Rosenbaum 2000, JRSS B 62:545), or for pairs Wilcoxon's
signed rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from biglocal.estimators._changes import Changes, changes
from biglocal.estimators._design import check_design
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

Statistic = Literal["huber", "signed_rank"]
Assigned = Literal["cluster", "unit"]


def estimate(
    sample: Sample,
    *,
    gammas: Sequence[float] = (1.0, 1.25, 1.5, 2.0, 3.0),
    statistic: Statistic = "huber",
    trim: float = 2.5,
    assigned: Assigned = "cluster",
    alpha: float = 0.05,
) -> Fit:
    """A term `gamma` for each of `gammas`, and `breakdown_gamma`.

    `gamma`: `estimate` is Gamma (and `level` its text), `p_value` the two-sided upper bound, twice the smaller of
    the one-sided bounds, `statistic` the deviate of the smaller. `breakdown_gamma`: the Gamma up to which the bound
    stays below `alpha`; NaN where it does not even at 1. `trim`: where Huber's function levels off, in medians of
    the absolute differences within sets (infinite: the permutational t test).

    `assigned` says what was treated. By `cluster` (areas, of several units each), each is one pair: its treated
    units' mean change against that of their comparison units, which stands in for an area that could have been
    treated; where each cluster holds one set, the set itself. By `unit`, each set on its own; sets need one treated
    unit or one comparison unit; the latter are turned about, with the outcome's sign.

    Raises `Inapplicable` where there are no sets (column `set`), for levels, covariates, a `gamma` below 1, sets that
    `assigned` cannot take, `signed_rank` on sets larger than pairs, and changes that do not vary.
    """
    frame = sample.frame
    check_design(frame)
    for what, named in (("levels", sample.levels), ("covariates", sample.covariates)):
        if named:
            raise Inapplicable(
                f"Rosenbaum's bounds take no {what} (asked for {', '.join(named)}): one sample at a time."
            )
    if not gammas or min(gammas) < 1:
        raise Inapplicable(f"Gamma is an odds ratio of at least 1 (asked for {', '.join(f'{g:g}' for g in gammas)}).")
    if statistic not in get_args(Statistic):
        raise Inapplicable(f"statistic {statistic!r} is not one of {', '.join(get_args(Statistic))}.")
    made = changes(frame)
    if not made.matched:
        raise Inapplicable(
            "no matched sets (column `set`): weights alone do not say who is held against whom. "
            "Use a matching method that makes sets."
        )
    sets = _sets(made, assigned)
    scores = signed_ranks(sets) if statistic == "signed_rank" else m_scores(sets, trim)
    treated = made.treated
    terms = [
        Term(
            "gamma", float(g), level=f"{g:g}", statistic=deviate, p_value=p, tested=False,
            n_treated=len(np.unique(made.unit[treated])), n_treated_clusters=len(np.unique(made.cluster[treated])),
        )
        for g in gammas
        for p, deviate in [p_bound(scores, g)]
    ]  # fmt: skip
    terms.append(Term("breakdown_gamma", _breakdown(scores, alpha), tested=False))
    return Fit(
        tuple(terms),
        n_obs=len(frame),
        n_units=len(np.unique(made.unit)),
        n_treated=len(np.unique(made.unit[treated])),
        n_clusters=len(np.unique(made.cluster)),
        caution=" ".join(filter(None, [sample.caution, made.caution()])),
        facts={"convention": "two-sided: twice the smaller one-sided bound, at most 1; normal approximation",
               "sets": sum(len(q) for q in scores)},
    )  # fmt: skip


def m_scores(sets: Sequence[NDArray[np.float64]], trim: float = 2.5) -> list[NDArray[np.float64]]:
    """Huber's M-scores of sets of responses, each array (n, J), the unit of its own kind first.

    The score of unit j is the sum over the others k of psi((y_j - y_k) / h), over J; psi(x) = x / trim up to 1,
    h the median absolute difference within sets, over all sets: no treatment enters it (Rosenbaum 2007, section
    4.2, equation 8).
    """
    gaps = [y[:, :, None] - y[:, None, :] for y in sets]
    if np.isfinite(trim):
        apart = [np.abs(g[:, ~np.eye(g.shape[1], dtype=bool)]).ravel() for g in gaps]
        scale = float(np.median(np.concatenate(apart)))
        if not scale > 0:
            raise Inapplicable(
                "half of the differences within sets are nought, so Huber's statistic has no scale. Set trim to "
                "infinity, or take pairs and the signed rank."
            )
        gaps = [np.clip(g / (scale * trim), -1, 1) for g in gaps]
    return _varying([g.sum(axis=2) / g.shape[1] for g in gaps])


def signed_ranks(sets: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Wilcoxon's signed ranks of pairs, (n, 2) treated first: |difference|'s rank to the larger, 0 to the smaller.

    Pairs without a difference are ranked, but score 0 on both sides (Pratt 1959, JASA 54:655; so does Rosenbaum 2002,
    section 4.3). Raises `Inapplicable` for sets larger than pairs.
    """
    from scipy.stats import rankdata

    if any(y.shape[1] != 2 for y in sets):
        largest = max(y.shape[1] for y in sets)
        raise Inapplicable(f"the signed rank is of pairs, and sets have up to {largest} units. Use statistic huber.")
    gap = np.concatenate([y[:, 0] - y[:, 1] for y in sets])
    rank = rankdata(np.abs(gap))
    return _varying([np.column_stack([rank * (gap > 0), rank * (gap < 0)])])


def p_bound(scores: Sequence[NDArray[np.float64]], gamma: float) -> tuple[float, float]:
    """The largest two-sided p-value under a bias of up to `gamma`, and the deviate of the smaller side."""
    from scipy.special import ndtr

    deviate = max(_deviate(scores, gamma), _deviate([-q for q in scores], gamma))
    return min(1.0, 2 * float(ndtr(-deviate))), deviate


def _deviate(scores: Sequence[NDArray[np.float64]], gamma: float) -> float:
    """(T - E) / sqrt(V) against a large T: E the largest expectation, V the largest variance at it.

    In a set the worst bias gives odds of gamma to the units above some rank and 1 to the rest (Rosenbaum 2007,
    section 4): J - 1 candidates. Sets are taken one by one, which is right to first order in their number.
    """
    observed = expected = variance = 0.0
    for score in scores:
        q = np.sort(score, axis=1)
        size = q.shape[1]
        below = np.arange(1, size)
        odds = below + gamma * (size - below)
        low, low_square = np.cumsum(q, axis=1)[:, :-1], np.cumsum(q**2, axis=1)[:, :-1]
        total, total_square = q.sum(axis=1, keepdims=True), (q**2).sum(axis=1, keepdims=True)
        mean = (low + gamma * (total - low)) / odds
        spread = (low_square + gamma * (total_square - low_square)) / odds - mean**2
        best = mean.max(axis=1, keepdims=True)
        level = mean >= best - 1e-12 * np.abs(q).max(axis=1, keepdims=True)  # ties, as all are at gamma 1
        observed += float(score[:, 0].sum())
        expected += float(best.sum())
        variance += float(np.where(level, spread, -np.inf).max(axis=1).sum())
    return (observed - expected) / float(np.sqrt(variance))


def _breakdown(scores: Sequence[NDArray[np.float64]], alpha: float) -> float:
    """The Gamma at which the p-value's bound reaches `alpha`; NaN if it is there at 1."""
    from scipy.optimize import brentq

    def above(log_gamma: float) -> float:
        return p_bound(scores, float(np.exp(log_gamma)))[0] - alpha

    if above(0.0) >= 0:
        return float("nan")
    top = 1.0
    while above(top) < 0:
        top *= 2  # ends: without bound on Gamma the deviate goes to 0 or below
    return float(np.exp(brentq(above, 0.0, top, xtol=1e-12)))


def _varying(scores: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    if not any(np.ptp(q, axis=1).any() for q in scores if len(q)):
        raise Inapplicable("all changes within sets are equal: there is nothing to test.")
    return scores


def _sets(made: Changes, assigned: str) -> list[NDArray[np.float64]]:
    """Responses by set, one array (n, J) a size: the one unit of its kind first, large where there is an effect."""
    n = int(made.cell.max()) + 1
    t, c = np.bincount(made.cell[made.treated], minlength=n), np.bincount(made.cell[~made.treated], minlength=n)
    whole = bool((np.minimum(t, c) == 1).all()) and len(np.unique(made.unit)) == len(made.unit)
    if assigned == "unit":
        if not whole:
            raise Inapplicable(
                f"{int((np.minimum(t, c) > 1).sum())} sets have several treated and several comparison units, or their "
                f"treated units start at different times: set assigned to 'cluster', or match k to 1 or fully."
            )
        return _by_size(made, t)
    if assigned != "cluster":
        raise Inapplicable(f"assigned {assigned!r} is not one of {', '.join(get_args(Assigned))}.")
    block = np.full(n, -1)
    block[made.cell[made.treated]] = made.cluster[made.treated]
    if (block[made.cell[made.treated]] != made.cluster[made.treated]).any():
        raise Inapplicable(
            "sets hold treated units of several clusters, so clusters are no pairs: set assigned to 'unit'."
        )
    if whole and len(np.unique(block)) == n:
        return _by_size(made, t)
    weight, of_treated, of_comparison = made.cell_means()
    block = np.unique(block, return_inverse=True)[1]
    total = np.bincount(block, weight)
    pairs = [np.bincount(block, weight * v) / total for v in (of_treated, of_comparison)]
    return [np.column_stack(pairs)]


def _by_size(made: Changes, treated: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    # a set of several treated and one comparison unit is turned about: the one is first, and signs change
    turned = (treated > 1)[made.cell]
    first = made.treated != turned
    response = np.where(turned, -made.change, made.change)
    order = np.lexsort((response, ~first, made.cell))
    size = np.bincount(made.cell)
    of_row = size[made.cell[order]]
    return [response[order[of_row == j]].reshape(-1, j) for j in np.unique(size)]
