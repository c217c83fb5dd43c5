"""Estimates of many specifications at once, from repeated cross-sections: other persons every year, in the same LSOAs.

Two-way fixed effects and event studies need of the persons of an LSOA and year their weight, their weight times their
outcome, and how many they are: regressors do not vary within it (Frisch, Waugh and Lovell). The LSOAs' own effects are
taken out exactly, though weights differ by year, which leaves as many unknowns as there are years, once more for each
covariate and once for treatment. Callaway and Sant'Anna's cells are differences of four weighted means. An LSOA
without persons in some year is simply not there in it. `multiverse.sample` gives any specification the ordinary way,
on persons; the tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biglocal.estimators import correction
from biglocal.model import Inapplicable
from biglocal.specifications import Specification, grouped
from biglocal.whole_series import COLLINEAR

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from biglocal.model import Outcome

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """What persons of an LSOA and of one of `years` (T,) say, added up: `persons`, their survey `weight`, the outcome
    `by_weight` and `plain`, without it; (T, N) each."""

    years: Ints
    persons: Floats
    weight: Floats
    by_weight: Floats
    plain: Floats

    def within(self, first: int, last: int) -> Answers:
        """Those of some years."""
        span = slice(max(first - int(self.years[0]), 0), max(last - int(self.years[0]) + 1, 0))
        parts = (self.persons, self.weight, self.by_weight, self.plain)
        return Answers(self.years[span], *(v[span] for v in parts))

    def of(self, places: Ints) -> Answers:
        """Those of some LSOAs."""
        parts = (self.persons, self.weight, self.by_weight, self.plain)
        return Answers(self.years, *(v[:, places] for v in parts))

    def first(self) -> Floats:
        """The first year with an answer (N,); infinite where there is none."""
        import numpy as np

        there = self.persons > 0
        return np.where(there.any(axis=0), self.years[there.argmax(axis=0)], np.inf)


def answers(table: pd.DataFrame, outcome: Outcome, places: int, at: Ints, years: Ints) -> Answers:
    """The answers of `table`, a row a person, by LSOA, `at` (rows,) among so many `places`, -1 for none, and by `years`
    (T,), of which none is missing.

    Raises `Inapplicable` where there is none."""
    import numpy as np

    year = table["year"].to_numpy(dtype=int)
    y = table[outcome.column].to_numpy(dtype=float, na_value=np.nan)
    weight = table["weight"].to_numpy(dtype=float)
    there = (at >= 0) & np.isfinite(y) & ~np.isin(y, outcome.codes_missing) & (weight > 0)
    there &= (year >= max(outcome.first_year, years[0])) & (year <= min(outcome.last_year, years[-1]))
    if not there.any():
        raise Inapplicable(f"{outcome.label}: no values of {outcome.column}.")
    rows = np.flatnonzero(there)
    cell = at[rows] * len(years) + year[rows] - years[0]
    order = np.lexsort((table["person_id"].to_numpy(dtype=np.int64)[rows], cell))  # sums of floats have an order
    rows, cell = rows[order], cell[order]
    y, weight = y[rows], weight[rows]
    if outcome.at_least is not None:
        y = (y >= outcome.at_least).astype(float)
    y = y * outcome.scale

    def added(values: Floats | None) -> Floats:
        wide = np.bincount(cell, values, places * len(years))
        return np.asarray(wide, dtype=float).reshape(places, len(years)).T.copy()

    return Answers(years, added(None), added(weight), added(weight * y), added(y))


@dataclass(frozen=True, slots=True)
class Respondents:
    """The LSOAs (n,) of specifications that differ in weights, covariates and estimator alone.

    `answers` are theirs. `start` (n,): the year a treated LSOA's treatment starts, NaN for others.
    `area` (n,): a code of the treated LSOA's area, of a comparison LSOA that of the one it is matched to. `matched`
    (n,): weights of matching. `begins` (G,): where a cluster begins. `covariates` name -> (n, k).
    """

    answers: Answers
    start: Floats
    area: Ints
    matched: Floats
    begins: Ints
    covariates: dict[str, Floats]

    def estimates(self, specs: list[tuple[int, Specification]]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """The numbered specifications with estimate, standard error, LSOAs, treated LSOAs, clusters, and the fewest
        persons of treated and others, before and after; without those that cannot be estimated."""
        import numpy as np

        treated = np.isfinite(self.start)
        counts = (len(treated), int(treated.sum()), len(self.begins), self._fewest(treated))
        basis = _basis({s.covariates: self.covariates[s.covariates] for _, s in specs}, len(treated))
        for (weights,), some in grouped(specs, "weights"):
            w, s, factor = self.answers.weight, self.answers.by_weight, self.matched
            if weights == "respondents":
                w, s = self.answers.persons, self.answers.plain
            elif weights == "areas":
                size = np.bincount(self.area[treated], (factor * w.sum(axis=0))[treated], int(self.area.max()) + 1)
                factor = factor / size[self.area]
            w, s = w * factor, s * factor
            for (estimator,), few in grouped(some, "estimator"):
                if estimator == "callaway_santanna":
                    found = dict.fromkeys((spec.covariates for _, spec in few), self._by_cohort(w, s, treated))
                    yield from ((i, (*said, *counts)) for i, spec in few if (said := found[spec.covariates]))
            common = [(i, spec) for i, spec in some if spec.estimator != "callaway_santanna"]
            for i, said in self._at_one_start(w, s, treated, *basis, common) if common else ():
                yield i, (*said, *counts)

    def _fewest(self, treated: Mask) -> int:
        """Persons of treated or of others, before the start or from it on (others: the first start), the fewest."""

        years, start, persons = self.answers.years, self.start[treated], self.answers.persons[:, treated]
        later = (persons * (years[:, None] >= start)).sum()
        others = self.answers.persons.sum(axis=1) - persons.sum(axis=1)
        after = others[years >= start.min()].sum()
        return int(min(n for n in (later, persons.sum() - later, after, others.sum() - after) if n > 0))

    def _at_one_start(
        self,
        w: Floats,
        s: Floats,
        treated: Mask,
        x: Floats,
        at: dict[str, Ints],
        specs: list[tuple[int, Specification]],
    ) -> Iterator[tuple[int, tuple[float, float]]]:
        """Weighted least squares on the effects of LSOAs and years, for each covariate one of each year but the first,
        and treatment: from the start on, or in each year but the last before it.

        Columns are products of a basis z (`x` and treated) and a year, so that with w_i the weights of an LSOA by year
        their cross-products within LSOAs are sums of z_a z_b (diag(w_i) - w_i w_i' / sum(w_i)).
        """
        import numpy as np

        start = int(self.start[treated][0])
        seen = w.any(axis=1)
        if not seen.all():  # a year in which nobody answered is none
            w, s = w[seen], s[seen]
        years = self.answers.years[seen]
        n, k = len(years), len(x)
        size, total = w.sum(axis=0), s.sum(axis=0)
        inside = np.flatnonzero(treated)
        wt, st = w[:, inside], s[:, inside]
        there = np.asarray(wt.any(axis=1))
        after = np.asarray(there & (years >= start))
        if not after.any() or not (there & ~after).any():
            return
        deep = (x[:, None] * (w / np.sqrt(size))).reshape(k * n, -1)
        of_treated = deep[:, inside]
        gram, gram_treated = -(deep @ deep.T), -(of_treated[:n] @ of_treated.T)  # of 1 and x, of treated with these
        diagonal = np.arange(n)
        own = (x[:, None] * x).reshape(k * k, -1) @ w.T
        for (a, b), sums in zip(np.ndindex(k, k), own, strict=True):
            gram[a * n + diagonal, b * n + diagonal] += sums
        for a, sums in enumerate(x[:, inside] @ wt.T):
            gram_treated[diagonal, a * n + diagonal] += sums
        rest = s - w * (total / size)
        right, right_treated = (x @ rest.T).ravel(), rest[:, inside].sum(axis=1)
        persons = int(self.answers.persons.sum())
        for i, spec in specs:
            basis = at[spec.covariates]
            free = (basis[:, None] * n + diagonal[1:]).ravel()
            if spec.estimator == "twfe":
                choose, contrast = np.asarray(years >= start, dtype=float)[None], np.ones(1)
            elif there[years == start - 1].any():
                kept = there & (years != start - 1)
                choose, contrast = np.eye(n)[kept], after[kept] / after.sum()
            else:
                continue
            m = len(choose)
            lhs = np.empty((m + len(free), m + len(free)))
            lhs[:m, :m], lhs[:m, m:] = choose @ gram_treated[:, :n] @ choose.T, choose @ gram_treated[:, free]
            lhs[m:, :m], lhs[m:, m:] = lhs[:m, m:].T, gram[np.ix_(free, free)]
            wanted = np.zeros((len(lhs), 2))
            wanted[:m, 0], wanted[m:, 0], wanted[:m, 1] = choose @ right_treated, right[free], contrast
            solved = _solved(lhs, wanted)
            if solved is None:
                continue
            coefficients = np.zeros((2, len(basis), n))  # beta, and the row of the inverse that the estimate is
            coefficients[:, :, 1:] = solved[m:].T.reshape(2, len(basis), n - 1)
            score = _scores(w, s, size, total, x[basis], *coefficients)
            coefficients[:, 0] += solved[:m].T @ choose
            score[inside] = _scores(wt, st, size[inside], total[inside], x[np.ix_(basis, inside)], *coefficients)
            by_cluster = np.add.reduceat(score, self.begins)
            factor = correction(persons, len(lhs) + 1, len(self.begins))  # the first year counts too
            yield i, (float(contrast @ solved[:m, 0]), float(np.sqrt(by_cluster @ by_cluster * factor)))

    def _by_cohort(self, w: Floats, s: Floats, treated: Mask) -> tuple[float, float] | None:
        """Callaway and Sant'Anna's mean over all treated cohort-years, against LSOAs never treated, with the shares'
        part in the influence (`callaway_santanna` with panel = False, without covariates)."""
        import numpy as np

        years, n = self.answers.years, w.shape[1]
        starts, cohort = np.unique(self.start[treated], return_inverse=True)
        wt, st, wf, sf = w[:, treated], s[:, treated], w[:, ~treated], s[:, ~treated]
        one = np.asarray(cohort[:, None] == np.arange(len(starts)), dtype=float)
        mass, free = wt @ one, wf.sum(axis=1)  # (T, cohorts), (T,)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, of_free = (st @ one) / mass, sf.sum(axis=1) / free
        there = np.flatnonzero(w.any(axis=1))
        base = np.array([there[years[there] < g].max(initial=-1) for g in starts])
        gap = mean - of_free[:, None]
        effect = gap - gap[base, np.arange(len(starts))]
        cells = (years[:, None] >= starts) & np.isfinite(effect)
        if not cells.any():
            return None
        each = w.sum(axis=0) / self.answers.persons.sum(axis=0)  # what an LSOA counts in the shares
        share = np.bincount(cohort, each[treated]) / n
        part = np.where(cells, share, 0.0) / np.where(cells, share, 0.0).sum()
        effect = np.where(cells, effect, 0.0)
        att = float((part * effect).sum())
        moved = np.where(cells, effect - att, 0.0).sum(axis=0) / np.where(cells, share, 0.0).sum()
        load = part.copy()  # of the mean of a year, each year after the start against the last before it
        load[base, np.arange(len(starts))] -= part.sum(axis=0)
        by_mean = np.divide(load, mass, out=np.zeros_like(load), where=load != 0)
        over = load.sum(axis=1)
        over = np.divide(over, free, out=np.zeros_like(over), where=over != 0)
        score = np.empty(n)
        of_mean = np.where(load != 0, by_mean * mean, 0.0)
        score[treated] = (st * by_mean[:, cohort] - wt * of_mean[:, cohort]).sum(axis=0)
        score[treated] += moved[cohort] * each[treated] / n
        score[~treated] = np.where(over != 0, over * of_free, 0.0) @ wf - over @ sf
        score -= float(moved @ share) / n
        by_cluster = np.add.reduceat(score, self.begins)
        return att, float(np.sqrt(by_cluster @ by_cluster))


def _basis(covariates: dict[str, Floats], n: int) -> tuple[Floats, dict[str, Ints]]:
    """A constant and all covariates (k, n), on one scale for the sake of digits, and which rows each option has."""
    import numpy as np

    rows, at = [np.ones((1, n))], {}
    for name, x in covariates.items():
        at[name] = np.array([0, *range(sum(map(len, rows)), sum(map(len, rows)) + x.shape[1])])
        spread = np.sqrt(x.var(axis=0))
        rows.append(((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).T)
    return np.concatenate(rows), at


def _solved(lhs: Floats, right: Floats) -> Floats | None:
    """The solution of a system of normal equations; None where a column is collinear with the rest."""
    import numpy as np

    scale = np.sqrt(np.diag(lhs))
    if not (scale > 0).all() or not np.isfinite(lhs).all():
        return None
    unit = lhs / np.outer(scale, scale)
    try:
        lower = np.linalg.cholesky(unit)
    except np.linalg.LinAlgError:
        return None
    if np.diag(lower).min() ** 2 < COLLINEAR:
        return None
    return np.asarray(np.linalg.solve(unit, right / scale[:, None]) / scale[:, None])


def _scores(w: Floats, s: Floats, size: Floats, total: Floats, z: Floats, beta: Floats, gamma: Floats) -> Floats:
    """Of each LSOA (n,) the sum over years of g (r - its mean by weight): g = z gamma, r = s - w (z beta).

    `beta`, `gamma` (k, T), `z` (k, n), `w`, `s` (T, n): what goes with years is multiplied before what goes with LSOAs.
    """
    import numpy as np

    k = len(beta)
    pairs = [(a, b) for a in range(k) for b in range(a, k)]
    both = [gamma[a] * beta[b] + (gamma[b] * beta[a] if a != b else 0) for a, b in pairs]
    made = np.concatenate([both, gamma, beta]) @ w
    direct, pulled, left = gamma @ s, made[len(pairs) : len(pairs) + k], made[len(pairs) + k :]
    out = z[0] * direct[0]
    for a in range(1, k):
        out += z[a] * direct[a]
    for (a, b), of in zip(pairs, made, strict=False):
        out -= z[a] * z[b] * of
    out -= (z * pulled).sum(axis=0) * (total - (z * left).sum(axis=0)) / size
    return np.asarray(out)
