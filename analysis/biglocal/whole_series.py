"""Estimates of many specifications at once, from whole series.

With whole series every estimator here is linear in the LSOAs' means before, after and in the last year before the
start, or a regression on a handful of columns: `Units` holds the LSOAs of specifications that differ in weights,
covariates, estimator and definition alone. `multiverse.sample` gives any specification the ordinary way; the tests
hold the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from biglocal.estimators import correction
from biglocal.specifications import Specification, grouped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Changes:
    """What each LSOA's outcome did at each of the `starts` (S,) there can be: the mean of the years from it on less the
    last year before (`from_last`) and less the mean of all before (`from_all`), (N, S, definitions) each. `spell` (S,):
    years from the start on."""

    starts: Floats
    spell: Floats
    from_last: Floats
    from_all: Floats


@dataclass(frozen=True, slots=True)
class Units:
    """The LSOAs (n,) of specifications that differ in weights, covariates, estimator and definition alone.

    `around` (n, 3 x definitions) as in `World`, for one start; `changes` the changes and the position of each LSOA's
    own start among theirs, that of its head for a comparison LSOA, for several; `bounds` (G,) where a cluster
    begins; `residents` and `size` those of the head and of its area.
    """

    around: Floats | None
    changes: tuple[Changes, Ints] | None
    years: int
    definitions: tuple[str, ...]
    treated: Mask
    head: Ints
    bounds: Ints
    weight: Floats
    residents: Floats
    size: Floats
    covariates: dict[str, Floats]
    sets: bool

    def estimates(self, specs: list[tuple[int, Specification]]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """The numbered specifications with what they say."""

        counts = (len(self.treated), int(self.treated.sum()), len(self.bounds))
        for (weights,), some in grouped(specs, "weights"):
            w = self.weight
            if weights != "lsoas":
                w = w * self.residents if weights == "residents" else w / self.size
            for (covariates,), few in grouped(some, "covariates"):
                x = self.covariates[covariates]
                found = {} if self.around is None else self._at_one_start(self.around, w, x)
                found |= {} if self.changes is None else self._staggered(*self.changes, w)
                for i, s in few:
                    if s.estimator in found:
                        beta, error, own = found[s.estimator]
                        d = self.definitions.index(s.definition)
                        yield i, (float(beta[d]), float(error[d]), *(own or counts))

    def _at_one_start(self, y: Floats, w: Floats, x: Floats) -> Found:
        """Least squares on one row a unit: with whole series and constant weights two-way fixed effects and event
        study are regressions of a change on treatment, and covariates by year those on the change (Frisch, Waugh and
        Lovell). All three estimators come from what is left of the means once treatment and covariates are out."""
        import numpy as np

        t, k, n, d = self.years, x.shape[1], len(w), len(self.definitions)
        basis = np.empty((n, 2 + k))
        basis[:, 0], basis[:, 1] = self.treated, 1.0
        basis[:, 2:] = x - w @ x / w.sum()
        weighted = w[:, None] * basis
        inverse = np.linalg.inv(basis.T @ weighted)
        beta = inverse @ (weighted.T @ y)
        left = y - basis @ beta
        z = (weighted @ inverse[0])[:, None]
        post, pre, base = left[:, :d], left[:, d : 2 * d], left[:, 2 * d :]
        own = w[:, None] * pre
        size = (own * pre).sum(axis=0)
        slope = (own * post).sum(axis=0) / size
        scores = np.concatenate(
            [z * (post - pre), z * (post - base), (z - own * (beta[0, d : 2 * d] / size)) * (post - slope * pre)],
            axis=1,
        )
        error = _clustered(scores, self.bounds).reshape(3, d)
        g = len(self.bounds)
        factors = (correction(n * t, 1 + k * (t - 1) + t, g), correction(n * t, (1 + k) * (t - 1) + t, g),
                   correction(n, 3 + k, g))  # fmt: skip
        after, early, latest = beta[0, :d], beta[0, d : 2 * d], beta[0, 2 * d :]
        effects = (after - early, after - latest, after - slope * early)
        return {
            name: (effect, e * factor**0.5, ())
            for name, effect, e, factor in zip(("twfe", "event_study", "ancova"), effects, error, factors, strict=True)
        }

    def _staggered(self, c: Changes, at: Ints, w: Floats) -> Found:
        found = {"callaway_santanna": self._by_cohort(c, at, w)}
        by_set = self._by_set(c.from_all, at, w) if self.sets else self._by_start(c.from_all, at, w)
        return found | ({"matched_change": by_set} if by_set else {})

    def _by_cohort(self, c: Changes, at: Ints, w: Floats) -> Say:
        """Callaway and Sant'Anna's mean over all treated unit-years, never-treated units as the comparison: by cohort
        the mean change from the last year before, with the shares' part in the influence (`callaway_santanna`)."""
        import numpy as np

        change, spell, size, n = c.from_last, c.spell, len(c.starts), len(w)
        own = np.where(self.treated, w, 0.0)
        mass = np.bincount(at, own, size)
        total = float(mass @ spell)
        share = mass * spell / total
        own /= np.where(mass > 0, mass, 1.0)[at]
        free = np.where(self.treated, 0.0, w) / w[~self.treated].sum()
        mine = change[np.arange(n), at]
        of_treated = _means(at, own, mine, size)
        of_free = np.tensordot(free, change, 1)
        effects = of_treated - of_free
        att = share @ effects
        rest = np.tensordot(change, share, (1, 0)) - share @ of_free
        mover = (share[at] * own)[:, None] * (mine - of_treated[at])
        mover += (np.where(self.treated, w, 0.0) * (spell / total)[at])[:, None] * (effects[at] - att)
        return att, _clustered(mover - free[:, None] * rest, self.bounds), ()

    def _by_start(self, change: Floats, at: Ints, w: Floats) -> Say:
        """The matched difference in changes without sets: treated units of a start against the whole comparison."""
        import numpy as np

        free = np.where(self.treated, 0.0, w) / w[~self.treated].sum()
        own = np.where(self.treated, w, 0.0) / w[self.treated].sum()
        mine = change[np.arange(len(w)), at]
        of_free = np.tensordot(free, change, 1)
        share = np.bincount(at, own, change.shape[1])
        att = own @ mine - share @ of_free
        rest = np.tensordot(change, share, (1, 0)) - share @ of_free
        influence = own[:, None] * (mine - of_free[at] - att) - free[:, None] * rest
        return att, _clustered(influence, self.bounds) * correction(len(w), 2, len(self.bounds)) ** 0.5, ()

    def _by_set(self, change: Floats, at: Ints, w: Floats) -> Say | None:
        """The matched difference in changes (`matched_change`): each set, cut at its treated unit's own start."""
        import numpy as np

        n, size = len(w), change.shape[1]
        own, rival = np.where(self.treated, w, 0.0), np.where(self.treated, 0.0, w)
        by_set = np.bincount(self.head, rival, n)[self.head]
        used = by_set > 0  # a treated unit whose matches all left says nothing
        if not (used & self.treated).any():
            return None
        share = np.where(self.treated, own, rival * own[self.head] / np.where(used, by_set, 1.0))
        share = np.where(used, share, 0.0) / own[used].sum()
        sign = np.where(self.treated, share, -share)
        mine = change[np.arange(n), at]
        att = sign @ mine
        comparison = np.where(self.treated, 0.0, share)
        mass = np.bincount(at, comparison, size)
        mean = _means(at, comparison / np.where(mass > 0, mass, 1.0)[at], mine, size)
        influence = sign[:, None] * (mine - mean[at] - np.where(self.treated[:, None], att, 0.0))
        begins = np.add.reduceat(used, self.bounds)
        clusters, units = int((begins > 0).sum()), int(used.sum())
        if (np.add.reduceat(used & self.treated, self.bounds) > 0).sum() < 2:
            return None
        error = _clustered(influence, self.bounds) * correction(units, 2, clusters) ** 0.5
        return att, error, (units, int((used & self.treated).sum()), clusters)


Say = tuple["Floats", "Floats", tuple[int, ...]]  # estimates, errors by definition; counts, where they are its own
Found = dict[str, Say]


def changes_of(y: Floats, years: Ints, starts: Floats) -> Changes:
    """The changes of outcomes `y` (N, definitions, T) at those of `starts` that have a year before and one from it."""
    import numpy as np

    starts = starts[(starts > years[0]) & (starts <= years[-1])]
    total = np.concatenate([np.zeros((*y.shape[:2], 1)), y.cumsum(axis=2)], axis=2)
    at = np.searchsorted(years, starts)
    later = (total[:, :, -1:] - total[:, :, at]) / (len(years) - at)
    turned = [
        np.ascontiguousarray(v.transpose(0, 2, 1)) for v in (later - y[:, :, at - 1], later - total[:, :, at] / at)
    ]
    return Changes(starts, (len(years) - at).astype(float), *turned)


def own_start(c: Changes, row: Ints, start: Floats) -> tuple[Changes, Ints]:
    """The changes of some LSOAs, and the position of each one's own start; the first where it has none."""
    import numpy as np

    at = np.searchsorted(c.starts, np.where(np.isnan(start), c.starts[0], start))
    return replace(c, from_last=c.from_last[row], from_all=c.from_all[row]), at


def _means(group: Ints, share: Floats, values: Floats, size: int) -> Floats:
    """Sums (size, m) of share times values (n, m) within groups."""
    import numpy as np

    return np.stack([np.bincount(group, share * v, size) for v in values.T], axis=1)


def _clustered(influence: Floats, bounds: Ints) -> Floats:
    """Root of the sum of squared cluster totals, without any factor."""
    import numpy as np

    total = np.add.reduceat(influence, bounds, axis=0)
    return np.asarray(np.sqrt((total * total).sum(axis=0)))
