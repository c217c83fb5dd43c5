"""Estimates of many specifications at once, from whole series.

With whole series every estimator here is linear in the LSOAs' means before, after and in the last year before the
start, or a regression on a handful of columns. So a specification asks no more of its LSOAs than weighted sums, by
cluster and treatment, of a few products that no draw of who was treated changes (`Series`): one multiplication by a
sparse matrix gives those of all weights and exclusions. `multiverse.sample` gives any specification the ordinary way;
the tests hold the two together.

Shapes: N places, d definitions of the outcome, S starts there can be, K covariates of any option; q ways to weigh, G
clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biglocal.estimators import correction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Changes:
    """What each LSOA's outcome did at each of the `starts` (S,) there can be: the mean of the years from it on less the
    last year before (`from_last`) and less the mean of all before (`from_all`), (N, S, d) each. `spell` (S,): years
    from the start on."""

    starts: Floats
    spell: Floats
    from_last: Floats
    from_all: Floats


@dataclass(frozen=True, slots=True)
class Series:
    """An outcome in a window of `years` (T,): `whole` (N,) where none is blank, `products` (N, P) by common start, see
    `_products`, and `changes` at the starts of areas."""

    whole: Mask
    years: Ints
    products: dict[int, Floats]
    changes: Changes | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Units, treated units and clusters of each way to weigh, (q,) each."""

    units: Ints
    treated: Ints
    clusters: Ints

    @classmethod
    def of(cls, each: Sequence[tuple[int, int, int]]) -> Counts:
        """Of (units, treated units, clusters) by way to weigh."""
        import numpy as np

        return cls(*np.array(each).T)

    def factor(self, k: Ints | int, years: int = 1) -> Floats:
        """What small samples do to a raw clustered variance (q,), with `k` parameters."""
        import numpy as np

        rows = zip(self.units * years, np.broadcast_to(k, self.units.shape), self.clusters, strict=True)
        return np.array([correction(int(n), int(own), int(g)) for n, own, g in rows])


COLLINEAR = 1e-10  # least eigenvalue of cross-products of columns of length one, below which they are collinear
Said = tuple["Floats", "Floats", Counts]  # estimates and standard errors (q, d); what they rest on


def series(y: Floats, years: Ints, x: Floats, common: Sequence[int], dated: Floats, *, whole: Mask) -> Series:
    """The outcome `y` (N, d, T) in `years`, with covariates `x` (N, K), at the `common` starts and the `dated` ones.

    No estimate depends on where the outcome's nought is: it is put in the middle, for the sake of digits.
    """
    import numpy as np

    y = y - y[whole].mean(axis=(0, 2))[:, None] if whole.any() else y
    products = {}
    for start in common:
        after = years >= start
        if after.any() and not after.all():
            before = y[:, :, ~after]
            means = np.concatenate([y[:, :, after].mean(axis=2), before.mean(axis=2), before[:, :, -1]], axis=1)
            products[start] = _products(means, x)
    return Series(whole, years, products, _changes(y, years, dated) if len(dated) else None)


def _products(means: Floats, x: Floats) -> Floats:
    """Products (N, P), see `_pairs`, of one, covariates `x` (N, K) and `means` (N, 3 d): from the start on, before it,
    and in the last year before."""
    import numpy as np

    v = np.concatenate([np.ones((len(means), 1)), x, means], axis=1)
    left, right = np.array(_pairs(x.shape[1], means.shape[1] // 3)).T
    return np.ascontiguousarray(v[:, left] * v[:, right])


def _pairs(k: int, d: int) -> list[tuple[int, int]]:
    """Which of one, k covariates and 3 d means are multiplied: the first 1 + k with all, and the mean before with
    itself and with the mean from the start on."""
    post, pre, end = 1 + k, 1 + k + d, 1 + k + 3 * d
    own = [(a, b) for a in range(1 + k) for b in range(a, end)]
    return own + [(post + j, pre + j) for j in range(d)] + [(pre + j, pre + j) for j in range(d)]


def _changes(y: Floats, years: Ints, starts: Floats) -> Changes:
    """The changes of outcomes `y` (N, d, T) at those of `starts` that have a year before and one from it."""
    import numpy as np

    starts = starts[(starts > years[0]) & (starts <= years[-1])]
    total = np.concatenate([np.zeros((*y.shape[:2], 1)), y.cumsum(axis=2)], axis=2)
    at = np.searchsorted(years, starts)
    later = (total[:, :, -1:] - total[:, :, at]) / (len(years) - at)
    turned = [
        np.ascontiguousarray(v.transpose(0, 2, 1)) for v in (later - y[:, :, at - 1], later - total[:, :, at] / at)
    ]
    return Changes(starts, (len(years) - at).astype(float), *turned)


def sums(features: Floats, row: Ints, weight: Floats, begins: Ints) -> Floats:
    """Weighted sums (q, m, G) of `features` (N, m) over LSOAs `row` (n,), in clusters that begin at `begins` (G,), for
    each way to weigh them, `weight` (q, n)."""
    import numpy as np
    from scipy.sparse import csr_array

    some = weight != 0
    ends = np.concatenate([[0], np.add.reduceat(some, begins, axis=1, dtype=np.int64).ravel().cumsum()])
    of = csr_array((weight[some], np.broadcast_to(row, weight.shape)[some], ends), shape=(len(ends) - 1, len(features)))
    return np.ascontiguousarray((of @ features).reshape(len(weight), len(begins), -1).transpose(0, 2, 1))


def at_one_start(
    s: Floats, treated: Floats, columns: Sequence[int], covariates: int, years: int, counts: Counts
) -> dict[str, Said]:
    """Two-way fixed effects, event study (the mean from the start on) and ANCOVA, with some `columns` of the
    `covariates`, from the sums (q, P, G) of products: `s` of all LSOAs, `treated` of those.

    Least squares on one row a unit: with whole series and constant weights two-way fixed effects and event study are
    regressions of a change on treatment, and covariates by year those on the change (Frisch, Waugh and Lovell). All
    three come from what is left of the means once treatment and covariates are out, and the standard errors from
    its sums by cluster. NaN where a covariate is constant, or collinear with others or treatment, and for ANCOVA where
    the mean before is.
    """
    import numpy as np

    d = (s.shape[1] - (1 + covariates) * (2 + covariates) // 2) // (3 * (1 + covariates) + 2)
    place = {pair: i for i, pair in enumerate(_pairs(covariates, d))}
    basis = [0, *(1 + c for c in columns)]  # beside treatment, which comes first
    means = range(1 + covariates, 1 + covariates + 3 * d)
    square = [[place[min(a, b), max(a, b)] for b in basis] for a in basis]
    by_mean = [[place[a, b] for b in means] for a in basis]
    (q, _, g), size = s.shape, 1 + len(basis)
    gram = np.empty((q, size, size, g))
    gram[:, 1:, 1:] = s[:, square]
    gram[:, 0, 1:] = gram[:, 1:, 0] = treated[:, square[0]]
    gram[:, 0, 0] = treated[:, 0]
    cross = np.concatenate([treated[:, by_mean[:1]], s[:, by_mean]], axis=1)  # (q, size, 3 d, G)
    inverse = _inverse(gram.sum(axis=3))
    beta = inverse @ cross.sum(axis=3)
    turned = np.ascontiguousarray(beta.transpose(0, 2, 1))
    first = inverse[:, :1]

    def folded(by: Floats, of: Floats) -> Floats:
        """(q, m, size) times (q, size, ..., G)."""
        return np.asarray(by @ of.reshape(q, size, -1)).reshape(q, by.shape[1], *of.shape[2:])

    # sums (q, 3 d, G) of the residual of treatment on the other columns, over its sum of squares, times what is left
    z = folded(first, cross)[:, 0] - turned @ folded(first, gram)[:, 0]
    post, pre, last = (slice(i * d, (i + 1) * d) for i in range(3))

    def product(a: int, b: int) -> Floats:
        """Sums (q, G) of the product of what is left of two means."""
        of_a, of_b = turned[:, a : a + 1], turned[:, b : b + 1]
        inner = folded(of_b, cross[:, :, a]) + folded(of_a, cross[:, :, b])
        fitted = of_a @ folded(of_b, gram)[:, 0]
        return np.asarray(s[:, place[means[a], means[b]]] - (inner - fitted)[:, 0])

    both, own = (np.stack([product(a + j, d + j) for j in range(d)], axis=1) for a in (0, d))
    total = own.sum(axis=2)
    length = np.stack([s[:, place[means[d + j], means[d + j]]].sum(axis=1) for j in range(d)], axis=1)
    total = np.where(total > COLLINEAR * length, total, np.nan)
    slope = both.sum(axis=2) / total
    tilt = beta[:, 0, pre] / total
    scores = (
        z[:, post] - z[:, pre],
        z[:, post] - z[:, last],
        z[:, post] - slope[..., None] * z[:, pre] - tilt[..., None] * (both - slope[..., None] * own),
    )
    after, early, latest = beta[:, 0, post], beta[:, 0, pre], beta[:, 0, last]
    effects = (after - early, after - latest, after - slope * early)
    k, t = len(columns), years
    factors = (counts.factor(1 + k * (t - 1) + t, t), counts.factor((1 + k) * (t - 1) + t, t), counts.factor(3 + k))
    return {
        name: (effect, _error(score) * np.sqrt(factor)[:, None], counts)
        for name, effect, score, factor in zip(("twfe", "event_study", "ancova"), effects, scores, factors, strict=True)
    }


def _inverse(gram: Floats) -> Floats:
    """Inverses (q, k, k) of the cross-products of k columns; NaN where a column is nought or collinear with the rest.

    Rounding leaves a singular one regular, and its inverse any numbers at all.
    """
    import numpy as np

    scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    good = np.asarray((scale > 0).all(axis=1) & np.isfinite(gram).all(axis=(1, 2)))
    one = np.eye(gram.shape[1])
    unit = np.where(good[:, None, None], gram, one) / np.where(good[:, None], scale, 1.0)[:, :, None]
    unit /= np.where(good[:, None], scale, 1.0)[:, None]
    good &= np.linalg.eigvalsh(unit)[:, 0] > COLLINEAR
    inverse = np.linalg.inv(np.where(good[:, None, None], gram, one))
    inverse[~good] = np.nan
    return inverse


@dataclass(frozen=True, slots=True)
class Cohorts:
    """Treated and comparison LSOAs by cluster, for staggered starts.

    `own` (q, G): weight of the treated, all of one start, `at` (G,) among S; `mine` (q, d, G): their change at it.
    `mass` (q, G): weight of the comparison; `free` (q, S, d, G): its changes at every start.
    """

    own: Floats
    mine: Floats
    mass: Floats
    free: Floats
    at: Ints

    @classmethod
    def of(cls, change: Floats, row: Ints, at: Ints, own: Floats, rest: Floats, begins: Ints) -> Cohorts:
        """From changes (N, S, d) of LSOAs `row` (n,) at the start `at` (n,) of their areas, and weights (q, n): `own`
        of the treated, `rest` of the comparison, nought for the others."""
        import numpy as np

        n, starts, d = change.shape
        q, some = len(own), own.any(axis=0)
        free = sums(change.reshape(n, -1), row, rest, begins).reshape(q, starts, d, -1)
        mine = sums(change.reshape(n * starts, d), row * starts + at, own, begins)
        by_cluster = np.maximum.reduceat(np.where(some, at, 0), begins)
        mass = (np.add.reduceat(w, begins, axis=1) for w in (own, rest))
        return cls(next(mass), mine, next(mass), free, by_cluster)

    def means(self) -> tuple[Floats, Floats, Floats]:
        """Weight of the treated by start (q, S), their mean change, and that of the comparison (q, d, S)."""
        import numpy as np

        here = (self.at[:, None] == np.arange(self.free.shape[1])).astype(float)
        in_cohort = self.own @ here
        of_treated = (self.mine @ here) / np.where(in_cohort > 0, in_cohort, 1.0)[:, None]
        of_free = self.free.sum(axis=3) / self.mass.sum(axis=1)[:, None, None]
        return in_cohort, of_treated, np.asarray(of_free.transpose(0, 2, 1))

    def rest(self, share: Floats, of_free: Floats) -> Floats:
        """The comparison's part in the influence (q, d, G): its change less its mean, by `share` (q, S) of starts."""
        import numpy as np

        q, starts, d, g = self.free.shape
        change = (share[:, None] @ self.free.reshape(q, starts, -1)).reshape(q, d, g)
        mean = (of_free * share[:, None]).sum(axis=2)
        return np.asarray((change - self.mass[:, None] * mean[..., None]) / self.mass.sum(axis=1)[:, None, None])


def by_cohort(c: Cohorts, spell: Floats, counts: Counts) -> Said:
    """Callaway and Sant'Anna's mean over all treated unit-years, never-treated units as the comparison, from changes
    from the last year: by cohort the mean change, with the shares' part in the influence (`callaway_santanna`)."""
    import numpy as np

    in_cohort, of_treated, of_free = c.means()
    total = in_cohort @ spell
    share = in_cohort * spell / total[:, None]
    effects = of_treated - of_free
    att = (effects * share[:, None]).sum(axis=2)
    per = share / np.where(in_cohort > 0, in_cohort, 1.0)
    moved = per[:, None, c.at] * (c.mine - c.own[:, None] * of_treated[:, :, c.at])
    moved += (c.own * (spell / total[:, None])[:, c.at])[:, None] * (effects[:, :, c.at] - att[..., None])
    return att, _error(moved - c.rest(share, of_free)), counts


def by_start(c: Cohorts, counts: Counts) -> Said:
    """The matched difference in changes without sets, from changes from all years before: treated units of a start
    against the whole comparison."""
    import numpy as np

    in_cohort, _, of_free = c.means()
    all_own = c.own.sum(axis=1)
    share = in_cohort / all_own[:, None]
    att = c.mine.sum(axis=2) / all_own[:, None] - (of_free * share[:, None]).sum(axis=2)
    moved = (c.mine - c.own[:, None] * (of_free[:, :, c.at] + att[..., None])) / all_own[:, None, None]
    return att, _error(moved - c.rest(share, of_free)) * np.sqrt(counts.factor(2))[:, None], counts


def by_set(change: Floats, at: Ints, share: Floats, treated: Mask, begins: Ints, counts: Counts) -> Said:
    """The matched difference in changes (`matched_change`), each set cut at its treated unit's own start: from changes
    `change` (n, d) from all years before, at the start `at` (n,) of the set among S, under a `share` (q, n) of each
    unit as `in_sets` gives."""
    import numpy as np

    n, starts = len(at), int(at.max()) + 1
    by_start = np.zeros((n, starts, 1 + change.shape[1]))
    by_start[np.arange(n), at, 0], by_start[np.arange(n), at, 1:] = 1.0, change
    flat = by_start.reshape(n, -1)
    signed = np.where(treated, share, -share)
    by_cluster = sums(flat, np.arange(n), signed, begins).reshape(len(share), starts, -1, len(begins))
    theirs = ((share - np.where(treated, share, 0.0)) @ flat).reshape(len(share), starts, -1)
    mean = theirs[..., 1:] / np.where(theirs[..., :1] > 0, theirs[..., :1], 1.0)
    moved = by_cluster[:, :, 1:].sum(axis=1)
    att = moved.sum(axis=2)
    own = np.add.reduceat(np.where(treated, share, 0.0), begins, axis=1)
    moved -= (mean[..., None] * by_cluster[:, :, :1]).sum(axis=1) + att[..., None] * own[:, None]
    return att, _error(moved) * np.sqrt(counts.factor(2))[:, None], counts


def in_sets(weight: Floats, head: Ints, treated: Mask) -> Floats:
    """Weights (q, n) of which each treated unit has its share and its matches together the same; nought for both where
    none of its matches is left. `head` (n,): the treated unit of a set."""
    import numpy as np

    out = np.zeros_like(weight)
    for w, share in zip(weight, out, strict=True):
        theirs = np.bincount(head, np.where(treated, 0.0, w), len(w))[head]
        used = (theirs > 0) & (w > 0)
        own = np.where(treated, w, 0.0)
        share[used] = np.where(treated, own, w * own[head] / np.where(theirs > 0, theirs, 1.0))[used]
        share /= own[used].sum() or 1.0
    return out


def _error(influence: Floats) -> Floats:
    """Root (q, d) of the sum of squared cluster totals (q, d, G), without any factor."""
    import numpy as np

    return np.asarray(np.sqrt((influence * influence).sum(axis=2)))
