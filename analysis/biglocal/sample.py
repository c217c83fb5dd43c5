"""Draws the rows of one analysis: who is eligible, who is matched, which outcome, which level, treated since when.

From here on names are canonical (see `Sample`), rows lie in one order whatever order they came in, and
codes stand for identities, so that nothing downstream depends on either.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biglocal import matching, residents
from biglocal.data.borders import bordering
from biglocal.data.load import Tier
from biglocal.data.tables import COVARIATES
from biglocal.levels import classify
from biglocal.model import (
    Analysis,
    Comparison,
    DataError,
    Inapplicable,
    Match,
    Outcome,
    Sample,
    Step,
    Study,
    Subgroup,
    Treatment,
)
from biglocal.study import WITH_SETS, baseline, choices, options

if TYPE_CHECKING:
    from numpy.typing import NDArray


SEE = "see data-raw/README.md"
MATCHED_ON_BASELINE = (
    "Matched on the outcome before treatment: regression to the mean can then bias a difference-in-differences "
    "(Daw and Hatfield 2018)."
)


CARRIED = {
    "spend": "Spending of the Big Local area until the outcome's last year, hundreds of GBP (of the year) per resident",
    "log_population": "Logarithm of the LSOA's residents",
}


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws samples of one study from one tier; keeps each comparison's matching for the run."""

    study: Study
    tier: Tier
    _matched: dict[str, tuple[pd.DataFrame, tuple[Step, ...]]] = field(default_factory=dict)
    _rows: dict[str, tuple[list[pd.DataFrame], int, NDArray[np.int64]]] = field(default_factory=dict)  # `positions`
    _places: pd.DataFrame | None = None  # of a list put in the place of the tier's own, see `relabelled`

    def sample(self, analysis: Analysis) -> Sample:
        """The sample of `analysis`.

        Raises `Inapplicable` (with a reason a table can print) where the tier or the design cannot serve
        it, and `DataError` where a subgroup's level is empty.
        """
        if analysis.part == "programme":
            return self._programme()
        if analysis.part == "spending":
            return self._spending()
        if analysis.respondents:
            return residents.sample(self.study, self.tier, analysis)
        if analysis.outcome not in self.study.outcomes:
            return self._cross_section(analysis)
        return self._over_time(analysis)

    def matched(self, name: str) -> tuple[pd.DataFrame, tuple[Step, ...]]:
        """The eligible LSOAs of comparison `name`, one row each, and the flow that led to them.

        Columns: those of `areas`, and treated, weight, score, cluster (the unit of assignment),
        set_lsoa (the treated LSOA a row is matched to), and as `place` and `set_place` the positions of the two
        among the LSOAs sorted by code.
        """
        if name not in self._matched:
            self._matched[name] = self._match(self.study.comparisons[name])
        return self._matched[name]

    def positions(self, table: str) -> tuple[int, NDArray[np.int64]]:
        """How many LSOAs there are, and the position of each row's among them sorted by code, -1 for none; made once a
        table."""
        of = [self.tier.table("areas"), self.tier.table(table)]
        kept = self._rows.get(table)
        if kept is None or any(a is not b for a, b in zip(kept[0], of, strict=True)):  # another tier in its place
            codes, own = pd.Index(of[0]["lsoa11"].sort_values()), of[1]["lsoa11"]
            if isinstance(own.dtype, pd.CategoricalDtype):  # one look at each LSOA, not at each of a million rows
                at = np.append(codes.get_indexer(own.cat.categories), -1)[own.cat.codes.to_numpy()]
            else:
                at = codes.get_indexer(pd.Index(own))
            kept = self._rows[table] = of, len(codes), at
        return kept[1:]

    def places(self) -> pd.DataFrame:
        """Every LSOA, indexed by code and in its order, `place` from nought: the columns of `areas`, `imd_msoa`, and
        outcomes before."""
        if self._places is not None:
            return self._places
        frame = _with_surroundings(self.tier.table("areas").sort_values("lsoa11", ignore_index=True))
        return self._with_baseline(frame.assign(place=np.arange(len(frame))).set_index("lsoa11", drop=False))

    def relabelled(self, places: pd.DataFrame) -> Draw:
        """The same places under another list: `places` are those of this draw with other `area_id` and `share`."""
        tier = replace(self.tier, _kept={**self.tier._kept, "areas": places})
        return replace(self, tier=tier, _matched={}, _places=places)

    def _covariates(self, comparison: Comparison) -> tuple[str, ...]:
        areas = self.tier.table("areas")
        here = [c for c in comparison.optional if c not in areas or areas[c].notna().any()]
        return (*comparison.covariates, *here, *(f"{o}_{w}" for o in comparison.baseline for w in ("level", "trend")))

    def _all_covariates(self, name: str) -> tuple[str, ...]:
        """What balance is looked at for: the comparison's covariates and the outcomes before treatment."""
        comparison = self.study.comparisons[name]
        return (*comparison.covariates, *comparison.optional, *baseline(self.study))

    def _match(self, comparison: Comparison) -> tuple[pd.DataFrame, tuple[Step, ...]]:
        covariates = self._covariates(comparison)
        frame, steps = self._eligible(comparison, covariates)
        whole = comparison.level == "area"
        units = _areas_of(frame, covariates, comparison.exact) if whole else frame
        match: Match = matching.method(comparison.method)(
            units,
            treated="treated",
            covariates=covariates,
            ratio=comparison.ratio,
            caliper=comparison.caliper,
            exact=comparison.exact,
            **comparison.options,
        )
        heads = np.where(match.sets >= 0, match.sets, np.arange(len(units)))
        if whole:
            match, heads = _to_lsoas(match, units, frame)
        frame = frame.assign(weight=match.weights, score=match.score)
        has_set, t = match.sets >= 0, frame["treated"].to_numpy() == 1
        area, own = (frame[c].astype(object).to_numpy() for c in ("area_id", "msoa11"))
        with_sets = comparison.method in (*WITH_SETS, "full")
        of_set = has_set & ~t & (with_sets and self.study.policy.cluster == "set")
        frame = frame.assign(
            set_lsoa=frame["lsoa11"].to_numpy(dtype=object)[heads],
            set_place=frame["place"].to_numpy()[heads],
            in_set=has_set,
            cluster=np.where(t, area, np.where(of_set, area[heads], own)).astype(str),
        )
        w = (frame["weight"] > 0).to_numpy()
        name = (
            "all of the pool" if comparison.method == "pool" else f"with a weight after matching ({comparison.method})"
        )
        steps += (Step(name, int((t & w).sum()), int((w & ~t).sum()), int(frame.loc[t & w, "area_id"].nunique())),)
        return frame, steps

    def _eligible(self, comparison: Comparison, covariates: tuple[str, ...]) -> tuple[pd.DataFrame, tuple[Step, ...]]:
        """The LSOAs that may be matched, indexed by code, and how many were left after each rule."""
        policy = self.study.policy
        frame = self.places()
        treated = frame["area_id"].notna() & (frame["share"] >= policy.treated_share)
        frame = frame.assign(treated=treated.astype(int))
        if not treated.any():
            raise DataError(
                f"{self.tier.name} tier, table areas, column share: no LSOA has a share of at least "
                f"{policy.treated_share:g}. Check the list of treated LSOAs or policy.treated_share in study.toml."
            )
        steps: list[Step] = []
        alive, inside = np.ones(len(frame), dtype=bool), treated.to_numpy()
        area = pd.factorize(frame["area_id"])[0]

        def keep(what: str, wanted: NDArray[np.bool_]) -> None:
            alive[:] &= wanted  # one copy of the frame at the end, not one a rule
            t = alive & inside
            steps.append(Step(what, int(t.sum()), int((alive & ~inside).sum()), len(np.unique(area[t]))))

        keep("LSOAs of England", np.ones(len(frame), dtype=bool))
        cut = float(frame[comparison.pool_column].quantile(comparison.pool_quantile))  # national, before anyone leaves
        partly = (frame["area_id"].notna() & (frame["treated"] == 0)).to_numpy()
        keep(f"less those inside an area with less than {policy.treated_share:.0%} of their residents", ~partly)
        if policy.excluded_around == "border":
            listed = set(frame.index[inside])
            near = frame.index.isin(list(bordering(self.tier.table("borders"), listed)))
            keep("less neighbours: untreated LSOAs that border on a treated one", inside | ~near)
        elif policy.excluded_around != "none":
            column, words = {"msoa": ("msoa11", "MSOA"), "district": ("district", "district")}[policy.excluded_around]
            around = frame[column].isin(frame.loc[inside, column].unique()).to_numpy()
            keep(f"less neighbours: untreated LSOAs in the {words} of a treated one", inside | ~around)
        if policy.exclude_other_programmes:
            keep(
                "less untreated LSOAs in another funded programme",
                inside | frame["other_programme"].isna().to_numpy(),
            )
        keep(
            f"less untreated LSOAs outside the pool ({COVARIATES[comparison.pool_column].doc}: "
            f"the lower {comparison.pool_quantile:.0%} or unknown)"
            if comparison.pool_quantile > 0
            else f"less untreated LSOAs with {COVARIATES[comparison.pool_column].doc} unknown",
            inside | (frame[comparison.pool_column] >= cut).to_numpy(dtype=bool, na_value=False),
        )
        frame = frame[alive]
        needed = [*covariates, *comparison.exact]
        lacking = [c for c in needed if frame[c].isna().all()]
        if lacking:
            raise Inapplicable(
                f"comparison {comparison.name} needs {', '.join(lacking)}, which the {self.tier.name} tier lacks: "
                f"{self.tier.lacks.get(lacking[0].rsplit('_', 1)[0], self.tier.lacks.get(lacking[0], SEE))}"
            )
        whole = frame[needed].notna().all(axis=1)
        if policy.missing_covariates == "refuse" and not whole.all():
            first = frame.index[~whole][0]
            blank = ", ".join(c for c in needed if pd.isna(frame.loc[first, c]))
            raise DataError(
                f"{self.tier.name} tier, table areas: {int((~whole).sum()):,} eligible LSOAs lack a covariate of "
                f"comparison {comparison.name}, {'one of them' if self.tier.quiet else f'first {first}'} ({blank}). "
                f"Fill them in, or set policy.missing_covariates to drop."
            )
        last = alive.copy()
        last[alive] = whole
        keep("less those with a covariate missing", last)
        return frame[whole], tuple(steps)

    def _with_baseline(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Level (mean) and trend (slope a year) of each panel outcome before the main treatment, by LSOA.

        Known where at least two years before treatment are. Blank where the tier or the treatment rule has none.
        `frame` has every LSOA in the order of codes.
        """
        start = self.study.treatments[self.study.main_treatment].year
        wanted = baseline(self.study)
        if start is None or not self.tier.has("area_panel"):
            return frame.assign(**dict.fromkeys(wanted, np.nan))
        panel = self.tier.table("area_panel")
        columns = {o: self.study.outcomes[o].column for o, _ in wanted.values()}
        early = np.flatnonzero((panel["year"] < start).to_numpy())
        out: dict[str, NDArray[np.float64]] = {}
        at = self.positions("area_panel")[1][early]
        order = np.lexsort((panel["year"].to_numpy()[early], at))  # sums in one order, whatever the table's
        before, at = panel.iloc[early[order]], at[order]
        year = before["year"].to_numpy(dtype=float)
        for name, column in columns.items():
            y = before[column].to_numpy(dtype=float, na_value=np.nan)
            ok = np.isfinite(y) & (at >= 0)
            i, x, v = at[ok], year[ok], y[ok]
            n = np.bincount(i, minlength=len(frame)).astype(float)
            with np.errstate(divide="ignore", invalid="ignore"):
                mean_x, mean_v = np.bincount(i, x, len(frame)) / n, np.bincount(i, v, len(frame)) / n
                dx = x - mean_x[i]
                slope = np.bincount(i, dx * v, len(frame)) / np.bincount(i, dx * dx, len(frame))
            out[f"{name}_level"] = np.where(n >= 2, mean_v, np.nan)
            out[f"{name}_trend"] = np.where(n >= 2, slope, np.nan)
        return frame.assign(**out)

    def _programme(self) -> Sample:
        areas, programme = self.tier.table("areas"), self.tier.table("programme")
        inside = areas[areas["area_id"].notna() & (areas["share"] >= self.study.policy.treated_share)]
        inside = inside.merge(programme[["area_id", "wave"]], on="area_id", how="left").sort_values("lsoa11")
        frame = pd.DataFrame(
            {
                "y": (inside["population"].astype(float) * inside["share"]).to_numpy(),
                "treated": 1,
                "unit": inside["lsoa11"].to_numpy(dtype=object),
                "cluster": inside["area_id"].astype(str).to_numpy(),
                "weight": 1.0,
                "level": ("wave " + inside["wave"].astype(str)).to_numpy(),
            }
        )
        return Sample(frame, "persons", levels=tuple(sorted(frame["level"].unique())))

    def _spending(self) -> Sample:
        if not self.tier.has("costs"):
            raise Inapplicable(f"Spending: {self.tier.lacks.get('costs', SEE)}")
        costs = self.tier.table("costs").sort_values(["year", "area_id", "item"], ignore_index=True)
        area = costs["area_id"].astype(str).to_numpy()
        frame = pd.DataFrame(
            {
                "y": costs["amount"].to_numpy(dtype=float),
                "time": costs["year"].to_numpy(dtype=int),
                "treated": 1,
                "unit": area,
                "cluster": area,
                "weight": 1.0,
                "level": "",
            }
        )
        return Sample(frame, "GBP")

    def _cross_section(self, analysis: Analysis) -> Sample:
        cells, flow = self.matched(analysis.comparison)
        y = {"balance": analysis.outcome, "overlap": "score"}.get(analysis.part, "weight")
        covariates = tuple(c for c in self._all_covariates(analysis.comparison) if cells[c].notna().any())
        if analysis.part == "balance":
            if cells[y].isna().all():
                source = self.study.outcomes[baseline(self.study)[y][0]].column if y in baseline(self.study) else y
                raise Inapplicable(f"The {self.tier.name} tier has no {y}: {self.tier.lacks.get(source, SEE)}")
            cells = cells[cells[y].notna()]
        frame = pd.DataFrame(
            {
                "y": cells[y].to_numpy(dtype=float),
                "treated": cells["treated"].to_numpy(),
                "unit": cells["lsoa11"].to_numpy(dtype=object),
                "cluster": cells["cluster"].to_numpy(dtype=object),
                "weight": cells["weight"].to_numpy(),
                "level": "",
            }
        )
        if analysis.part == "quality":
            frame = frame.assign(**{c: cells[c].to_numpy(dtype=float, na_value=np.nan) for c in covariates})
            return Sample(frame, "", covariates=covariates, flow=flow)
        return Sample(frame, "", flow=flow)

    def _over_time(self, analysis: Analysis) -> Sample:
        study, outcome = self.study, self.study.outcomes[analysis.outcome]
        treatment = study.treatments[analysis.treatment]
        if not self.tier.has(outcome.table):
            raise Inapplicable(f"{outcome.label}: {self.tier.lacks.get(outcome.table, f'no table {outcome.table}')}")
        source = self.tier.table(outcome.table)
        cells, flow = self.matched(analysis.comparison)
        cells = cells[cells["weight"] > 0]
        start, caution = self.starts(treatment)
        cells = cells.assign(first_treated=cells["area_id"].map(start).astype(float))
        places, row = self.positions(outcome.table)
        to_cell = np.full(places + 1, -1)  # the last is for rows of no LSOA
        to_cell[cells["place"].to_numpy()] = np.arange(len(cells))
        at = to_cell[row]
        raw = source[outcome.column].to_numpy(dtype=float, na_value=np.nan)
        year = source["year"].to_numpy(dtype=int)
        raw = np.where(np.isin(raw, outcome.codes_missing), np.nan, raw)
        wanted = (at >= 0) & (year >= outcome.first_year) & (year <= outcome.last_year) & np.isfinite(raw)
        if not wanted.any():
            raise Inapplicable(
                f"{outcome.label}: no values of {outcome.column} in {outcome.first_year}-{outcome.last_year}. "
                f"{self.tier.lacks.get(outcome.column, '')}".rstrip()
            )
        if treatment.last_year is not None:
            wanted &= year <= treatment.last_year
        more = self._carried(analysis, source, cells, np.flatnonzero(wanted), at)
        if len(names := tuple(c for c in more if c not in CARRIED)):
            known = np.isfinite(np.column_stack([more[c] for c in names])).all(axis=1)
            if not known.all():
                caution = f"{caution} {int((~known).sum()):,} rows with a covariate missing left.".strip()
                wanted[np.flatnonzero(wanted)[~known]] = False
                more = {c: v[known] for c, v in more.items()}
        rows = np.flatnonzero(wanted)
        at = at[rows]
        y = raw[rows]
        if outcome.at_least is not None:
            y = (y >= outcome.at_least).astype(float)
        treated = cells["treated"].to_numpy()[at]
        first = cells["first_treated"].to_numpy()[at]
        frame = pd.DataFrame(
            {
                "y": y * outcome.scale,
                "d": ((treated == 1) & (year[rows] >= first)).astype(float),
                "treated": treated,
                "first_treated": first,
                "unit": at,  # positions among LSOAs sorted by code: an order that rows do not change
                "time": year[rows],
                "cluster": pd.factorize(cells["cluster"], sort=True)[0][at],
                "weight": cells["weight"].to_numpy()[at],
                "level": "",
                "set": np.where(cells["in_set"], to_cell[cells["set_place"].to_numpy()], -1)[at],
                **more,
            }
        )
        if outcome.table == "survey":
            frame["weight"] *= source["weight"].to_numpy(dtype=float)[rows]
            order = np.lexsort((source["person_id"].to_numpy(dtype=np.int64)[rows], year[rows], at))
        else:
            order = np.lexsort((year[rows], at))
        self._add_truth(frame, cells, at, outcome)
        levels: tuple[str, ...] = ()
        if analysis.subgroup != "all":
            subgroup = study.subgroups[analysis.subgroup]
            frame["level"] = self._levels(analysis, subgroup, cells, at, source, rows)
            levels = subgroup.levels
        frame = frame.iloc[order].reset_index(drop=True)
        frame = frame[frame["weight"] > 0]
        # a set whose treated unit has no value of the outcome says nothing: it leaves whole
        seen = set(frame.loc[frame["treated"] == 1, "set"])
        frame = frame[(frame["set"] < 0) | frame["set"].isin(seen)]
        if levels:
            frame = frame[frame["level"] != ""]
        if study.comparisons[analysis.comparison].baseline:
            caution = f"{caution} {MATCHED_ON_BASELINE}".strip()
        reference = float("nan") if outcome.reference_effect is None else outcome.reference_effect
        frame = frame.reset_index(drop=True)
        if "spend" in more:  # a dose is one number a unit, though it was given over years
            spent = f"The dose of every year is all that an area spent up to and with {outcome.last_year}."
            caution = f"{caution} {spent}".strip()
        sample = Sample(
            frame, outcome.unit, covariates=tuple(more), levels=levels, flow=flow, caution=caution,
            reference_effect=reference,
        )  # fmt: skip
        return _with_periods_before(sample, cells, outcome.label)

    def _carried(
        self,
        analysis: Analysis,
        source: pd.DataFrame,
        cells: pd.DataFrame,
        rows: NDArray[np.int64],
        at: NDArray[np.int64],
    ) -> dict[str, NDArray[np.float64]]:
        """Further columns (rows,) that the analysis' estimator is set to use, by name; see `model.Estimation`."""
        settings = options(self.study, analysis.estimator)
        out: dict[str, NDArray[np.float64]] = {}
        for key in ("dose", "offset"):
            if key not in settings:
                continue
            name = str(settings[key])
            if name not in CARRIED:
                raise DataError(f"estimators.{analysis.estimator}.options.{key}: no {name!r}. {choices(name, CARRIED)}")
            if name == "spend":
                value = self._spend(cells, self.study.outcomes[analysis.outcome].last_year)
            else:
                value = np.log(cells["population"].to_numpy(dtype=float, na_value=np.nan))
            out[name] = value[at[rows]]
        entry = self.study.estimators.get(analysis.estimator)
        for name in entry.covariates if entry else ():
            column = source[name].iloc[rows] if name in source else cells[name].iloc[at[rows]]
            if isinstance(column.dtype, pd.CategoricalDtype):
                blank = column.isna().to_numpy()
                for level in sorted(map(str, column.cat.categories))[1:]:
                    out[f"{name}_{level}"] = np.where(blank, np.nan, (column.astype(object) == level).to_numpy(float))
            else:
                out[name] = column.to_numpy(dtype=float, na_value=np.nan)
        return out

    def _spend(self, cells: pd.DataFrame, until: int) -> NDArray[np.float64]:
        """Spending of each treated cell's area up to and with a year, hundreds of GBP per resident; NaN for others.

        Raises `Inapplicable` where an area has no row of costs at all: nothing known is not nothing spent.
        """
        if not self.tier.has("costs"):
            raise Inapplicable(f"Spending: {self.tier.lacks.get('costs', 'no table costs')}")
        costs, areas = self.tier.table("costs"), self.tier.table("areas")
        treated = set(cells.loc[cells["treated"] == 1, "area_id"].astype(object))
        if lost := treated - set(costs["area_id"].astype(object)):
            raise Inapplicable(
                f"Spending: {len(lost)} of {len(treated)} treated areas have no row in the table costs. Add their "
                f"rows; where nothing was spent, one with amount 0."
            )
        early = costs[costs["year"] <= until].sort_values(["year", "amount"])  # sums in one order, whatever the table's
        spent = early.groupby(early["area_id"].astype(object))["amount"].sum()
        inside = areas[areas["area_id"].notna()].sort_values("lsoa11")
        people = (inside["population"].astype(float) * inside["share"]).groupby(inside["area_id"].astype(object)).sum()
        area = cells["area_id"].astype(object).where(cells["treated"] == 1)
        return np.asarray(area.map(spent).astype(float).fillna(0) / area.map(people).astype(float) / 100)

    def starts(self, treatment: Treatment) -> tuple[dict[str, float], str]:
        """First treated year by area, and what is to be said of those without; raises `Inapplicable` for no dates."""
        programme = self.tier.table("programme")
        if treatment.rule == "common_start":
            return {a: float(treatment.year or 0) for a in programme["area_id"]}, ""
        dates = programme[treatment.rule]
        if dates.isna().all():
            raise Inapplicable(
                f"treatment {treatment.name}: the {self.tier.name} tier has no dates `{treatment.rule}`. "
                f"{self.tier.lacks.get(treatment.rule, '')}".rstrip()
            )
        first = dates.dt.year + (dates.dt.month > 6).astype(int)
        unknown = int(dates.isna().sum())
        note = (
            f"No date `{treatment.rule}` for {unknown} area{'' if unknown == 1 else 's'}, not in the sample."
            if unknown
            else ""
        )
        return dict(zip(programme["area_id"], first.astype(float), strict=True)), note

    def _add_truth(self, frame: pd.DataFrame, cells: pd.DataFrame, at: NDArray[np.int64], outcome: Outcome) -> None:
        if not self.tier.has("truth"):
            return
        truth = self.tier.table("truth")
        # an effect on the share above a value is none on the mean, and the other way round
        same = truth["at_least"].isna() if outcome.at_least is None else truth["at_least"] == outcome.at_least
        truth = truth[(truth["outcome"] == outcome.column) & same & (truth["scale"] == outcome.scale)]
        if truth.empty:
            return
        progress = self.tier.table("programme").set_index("area_id")["progress"].astype(object)
        of_cell = cells["area_id"].astype(object).map(progress).to_numpy(dtype=object)
        known = truth.set_index(["progress", "year"])["effect"]
        kind, kinds = pd.factorize(of_cell, use_na_sentinel=False)
        years = np.arange(outcome.first_year, outcome.last_year + 1)
        effect = known.reindex(pd.MultiIndex.from_product([kinds, years])).to_numpy(dtype=float)
        of_row = effect.reshape(len(kinds), -1)[kind[at], frame["time"].to_numpy() - outcome.first_year]
        frame["effect"] = np.where(frame["treated"] == 1, np.nan_to_num(of_row), 0.0)

    def _levels(
        self,
        analysis: Analysis,
        subgroup: Subgroup,
        cells: pd.DataFrame,
        at: NDArray[np.int64],
        source: pd.DataFrame,
        rows: NDArray[np.int64],
    ) -> NDArray[np.object_]:
        if subgroup.of == "person":
            values = source[subgroup.column].iloc[rows].reset_index(drop=True)
            level = classify(subgroup, values, values)
        else:
            if subgroup.of == "area":
                programme = self.tier.table("programme").set_index("area_id")[subgroup.column].astype(object)
                own = cells["area_id"].astype(object).map(programme)
            else:
                own = cells[subgroup.column]
            own = pd.Series(own.to_numpy(), index=cells["lsoa11"].to_numpy(dtype=object), dtype=own.dtype)
            if own.isna().all():
                raise Inapplicable(
                    f"subgroup {subgroup.name}: the {self.tier.name} tier has no {subgroup.column}. "
                    f"{self.tier.lacks.get(subgroup.column, '')}".rstrip()
                )
            # a comparison LSOA takes the level of the treated one it is matched to: sets stay whole
            values = own.reindex(cells["set_lsoa"]).reset_index(drop=True)
            reference = values[cells["treated"].to_numpy() == 1]
            level = classify(subgroup, values, reference)[at]
        for name in subgroup.levels:
            if not (level == name).any():
                raise DataError(
                    f"{analysis.outcome}/{subgroup.name}: no rows left in subgroup '{name}' "
                    f"({subgroup.column} has values {self.tier.shown(values, 8)}); edit "
                    f"subgroups.{subgroup.name} in study.toml."
                )
        return level


def _with_surroundings(areas: pd.DataFrame) -> pd.DataFrame:
    """The table with `imd_msoa` (tables.DERIVED). Trends follow the neighbourhood, not only the LSOA: placebo lists
    of deprived neighbourhoods drift from LSOAs as deprived in better ones (the placebo exhibit)."""
    people = areas["population"].astype(float).fillna(areas["population"].astype(float).median()).to_numpy()
    msoa = pd.factorize(areas["msoa11"])[0]
    imd, known = areas["imd"].to_numpy(dtype=float), areas["imd"].notna().to_numpy() & (msoa >= 0)
    # not by pandas, whose sums of categories have another last digit where these come in order
    total, weight = (np.bincount(msoa[known], v[known], msoa.max(initial=-1) + 2) for v in (imd * people, people))
    with np.errstate(divide="ignore", invalid="ignore"):
        return areas.assign(imd_msoa=(total / weight)[msoa])  # the last: of an LSOA without an MSOA


def _areas_of(frame: pd.DataFrame, covariates: tuple[str, ...], exact: tuple[str, ...]) -> pd.DataFrame:
    """Eligible LSOAs as whole areas: a Big Local area, or the untreated LSOAs of an MSOA; covariates are means
    weighted by residents (residents themselves are summed), exact columns the LSOAs' most frequent value."""
    treated = frame["treated"] == 1
    name = np.where(treated, frame["area_id"].astype(str), frame["msoa11"].astype(str))
    people = frame["population"].astype(float).fillna(frame["population"].astype(float).median())
    groups = frame.assign(unit_=name, people_=people).groupby(["treated", "unit_"], sort=True, observed=True)
    total = groups["people_"].sum()
    out: dict[str, pd.Series] = {}
    for c in covariates:
        weighted = (frame[c].astype(float) * people).groupby([frame["treated"], name], sort=True).sum()
        out[c] = pd.Series(
            total.to_numpy() if c == "population" else weighted.to_numpy() / total.to_numpy(), total.index
        )
    for c in exact:
        value, names = pd.factorize(frame[c].astype(str), sort=True)
        cell = groups.ngroup().to_numpy() * len(names) + value
        often = np.bincount(cell[value >= 0], minlength=len(total) * len(names)).reshape(len(total), -1)
        out[c] = pd.Series(names[often.argmax(axis=1)], total.index)  # of several as frequent the first by name
    units = pd.DataFrame(out).reset_index()
    return units.set_index("unit_")


def _to_lsoas(match: Match, units: pd.DataFrame, frame: pd.DataFrame) -> tuple[Match, NDArray[np.int64]]:
    """Weights and sets of areas as those of their LSOAs, and the row that stands for each row's treated area.

    An area's weight is shared out evenly over its LSOAs, so that a set's comparison LSOAs weigh together as
    much as the treated area has LSOAs; without sets, so that all of them weigh what they would as areas.
    """
    name = np.where(frame["treated"] == 1, frame["area_id"].astype(str), frame["msoa11"].astype(str))
    of = units.index.get_indexer(pd.Index(name))
    size = np.bincount(of, minlength=len(units)).astype(float)
    first = np.full(len(units), -1)
    first[of[::-1]] = np.arange(len(frame))[::-1]
    treated_unit = units["treated"].to_numpy() == 1
    mean_size = size[treated_unit].mean()
    has = match.sets >= 0
    of_set = np.where(has & ~treated_unit, size[np.where(has, match.sets, 0)], mean_size)
    weight = np.where(treated_unit, (match.weights > 0).astype(float), match.weights * of_set / np.maximum(size, 1))
    heads = first[np.where(has, match.sets, np.arange(len(units)))][of]
    sets = np.where(has[of], heads, -1)
    return Match(weight[of], sets, match.score[of]), heads


def _with_periods_before(sample: Sample, cells: pd.DataFrame, label: str) -> Sample:
    """Leave out treated units without a start or a period before it, their matched units with them, and say so."""
    frame = sample.frame
    rows = np.flatnonzero(frame["treated"].to_numpy() == 1)
    unit, at = np.unique(frame["unit"].to_numpy()[rows], return_index=True)  # rows are by unit and year: its first
    first, start = (frame[c].to_numpy()[rows[at]] for c in ("time", "first_treated"))
    never_before = unit[start <= first]
    lost = unit[np.isnan(start) | (start <= first)]
    if len(lost) == 0:
        return sample
    reason = sample.caution
    if len(never_before):
        areas = cells["area_id"].to_numpy(dtype=object)
        gone = set(areas[never_before]) - set(areas[np.setdiff1d(unit, never_before)])
        reason = (
            f"{reason} No period before treatment, as {label} begins in {int(frame['time'].min())}: "
            f"{len(never_before)} treated LSOA{'' if len(never_before) == 1 else 's'} "
            f"({len(gone)} whole area{'' if len(gone) == 1 else 's'}) left, "
            f"with the LSOAs matched to them."
        ).strip()
    matched_to = cells["set_lsoa"].isin(set(cells["lsoa11"].to_numpy(dtype=object)[lost])).to_numpy()
    frame = frame[~matched_to[frame["unit"].to_numpy()]].reset_index(drop=True)
    if not (frame["treated"] == 1).any():
        raise Inapplicable(reason)
    return replace(sample, frame=frame, caution=reason)
