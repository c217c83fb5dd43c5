"""Draws the samples of the residents' survey: whose answers, which waves, which exposure, which level.

Rows are members and waves. `unit` is the member, `time` the wave, `cluster` the Big Local area; every member counts
as treated, since all are in its partnerships: what changes or goes together here is no effect of the programme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biglocal.levels import classify
from biglocal.model import DataError, Inapplicable, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from biglocal.data.load import Tier
    from biglocal.model import Analysis, Exposure, Outcome, Respondents, Study, Subgroup

KNOWN_OF_MEMBERS = ("age", "sex", "qualification", "role")
ANSWERS = (1, 5)  # the lowest and the highest


def sample(study: Study, tier: Tier, analysis: Analysis) -> Sample:
    """The sample of an analysis of members.

    Raises `Inapplicable` where the tier has no survey of members, a wave has no answers or the exposure does not
    vary, and `DataError` where a subgroup's level is empty.
    """
    if not tier.has("residents"):
        raise Inapplicable(f"Residents' survey: {tier.lacks.get('residents', 'no table residents')}")
    if analysis.part == "members_truth":
        return _truth(study, tier, analysis)
    respondents = study.respondents[analysis.respondents]
    table = tier.table("residents").sort_values(["person_id", "year"], ignore_index=True)
    table = table[table["year"].isin(respondents.waves)].reset_index(drop=True)
    for wave in respondents.waves:
        if not table.loc[table["year"] == wave, "responded"].any():
            raise Inapplicable(f"Residents' survey: nobody answered in {wave}.")
    if analysis.part == "participation":
        return _approached(table)
    subgroup = study.subgroups.get(analysis.subgroup)
    if analysis.part == "participants":
        if subgroup is None:
            raise Inapplicable("who takes part is told by subgroup: name one.")
        return _beside_adults(study, tier, table, subgroup, analysis)
    exposure = study.exposures.get(analysis.exposure)
    return _answers(table, study.outcomes[analysis.outcome], respondents, exposure, subgroup, analysis)


def _answers(
    table: pd.DataFrame,
    outcome: Outcome,
    respondents: Respondents,
    exposure: Exposure | None,
    subgroup: Subgroup | None,
    analysis: Analysis,
) -> Sample:
    """A row a member and wave: y, unit, time, cluster, weight 1, level, d (the exposure), what is adjusted for."""
    answered = table[table["responded"].astype(bool)]
    waves_of = answered.groupby("person_id")["year"].agg(["min", "nunique"])
    wanted = {
        "any_wave": waves_of["nunique"] > 0,
        "first_wave": waves_of["min"] == respondents.waves[0],
        "every_wave": waves_of["nunique"] == len(respondents.waves),
    }[respondents.who]
    persons = waves_of.index[wanted]
    rows = answered[answered["person_id"].isin(persons)]
    if respondents.missing == "keep":
        grid = pd.MultiIndex.from_product([persons, respondents.waves], names=["person_id", "year"]).to_frame(
            index=False
        )
        rows = grid.merge(rows, on=["person_id", "year"], how="left")
        area = answered.groupby("person_id", observed=True)["area_id"].first()
        rows = rows.assign(area_id=rows["person_id"].map(area))
    known = answered.groupby("person_id", observed=True)[list(KNOWN_OF_MEMBERS)].first()  # the first that is not blank
    y = rows[outcome.column].to_numpy(dtype=float, na_value=np.nan)
    y = np.where(np.isin(y, outcome.codes_missing), np.nan, y)
    if outcome.at_least is not None:
        y = np.where(np.isfinite(y), (y >= outcome.at_least).astype(float), np.nan)
    frame = pd.DataFrame(
        {
            "y": y * outcome.scale,
            "treated": 1,
            "unit": pd.factorize(rows["person_id"], sort=True)[0],
            "time": rows["year"].to_numpy(dtype=int),
            "cluster": pd.factorize(rows["area_id"].astype(str), sort=True)[0],
            "weight": 1.0,
            "level": "",
        }
    )
    for name in KNOWN_OF_MEMBERS:
        values = rows["person_id"].map(known[name])
        numeric = pd.api.types.is_numeric_dtype(values.dtype)
        frame[name] = values.astype(float).to_numpy() if numeric else values.astype(object).to_numpy()
    own = subgroup.column if subgroup is not None else ""  # a level has an intercept of its own
    kept = respondents.missing == "keep"
    covariates: tuple[str, ...] = tuple(n for n in KNOWN_OF_MEMBERS if kept and n != own)
    needed: dict[str, Sequence[str]] = {"outcome": ["y"]} if respondents.missing == "leave" else {}
    if exposure is not None:
        frame["d"] = _exposure(rows, exposure)
        covariates = tuple(c for c in exposure.adjust if c != own)
        needed |= {"exposure": ["d"], "covariate": list(covariates)}
    elif kept:
        needed |= {"covariate": list(covariates)}
    levels: tuple[str, ...] = ()
    if subgroup is not None:
        values = rows["person_id"].map(known[subgroup.column]).reset_index(drop=True)
        frame["level"] = classify(subgroup, values, values)
        levels = subgroup.levels
        _check_levels(frame["level"], subgroup, values, analysis)
    frame, caution = _whole(frame, needed, levels)
    columns = ["y", *(["d"] if exposure is not None else []), "treated", "unit", "time", "cluster", "weight", "level"]
    frame = frame[[*columns, *covariates]].sort_values(["unit", "time"], ignore_index=True)
    return Sample(frame, outcome.unit, covariates=covariates, levels=levels, caution=caution)


def _exposure(rows: pd.DataFrame, exposure: Exposure) -> np.ndarray:
    """The exposure of each row, in the unit its coding says; NaN where one of its answers is missing."""
    mean = rows[list(exposure.columns)].astype("Float64").to_numpy(dtype=float, na_value=np.nan).mean(axis=1)
    if exposure.coding == "range":
        return np.asarray((mean - ANSWERS[0]) / (ANSWERS[1] - ANSWERS[0]))
    if exposure.coding == "agree":
        return np.where(np.isfinite(mean), (mean >= 4).astype(float), np.nan)
    if exposure.coding == "standardised":
        spread = np.nanstd(mean, ddof=1)
        if not spread > 0:
            raise Inapplicable(f"{exposure.label}: every answer is the same, so there is nothing to go with.")
        return np.asarray((mean - np.nanmean(mean)) / spread)
    return np.asarray(mean)


def _whole(frame: pd.DataFrame, needed: dict[str, Sequence[str]], levels: tuple[str, ...]) -> tuple[pd.DataFrame, str]:
    """The rows that have what is needed, and for want of what others left.

    Without numbers, which the counts of a row give, so that tables say it once.
    """
    kept = np.ones(len(frame), dtype=bool)
    said = []
    for what, columns in needed.items():
        blank = frame[list(columns)].isna().any(axis=1).to_numpy()
        if blank.any():
            said.append(f"without {'an' if what[0] in 'aeo' else 'a'} {what}")
        kept &= ~blank
    if levels:
        blank = (frame["level"] == "").to_numpy()
        if blank.any():
            said.append("of no known group")
        kept &= ~blank
    if not kept.any():
        raise Inapplicable(f"no rows are left: all are {' or '.join(said) or 'without an answer'}.")
    return frame[kept].reset_index(drop=True), f"Left out: rows {', or '.join(said)}." if said else ""


def _check_levels(level: pd.Series, subgroup: Subgroup, values: pd.Series, analysis: Analysis) -> None:
    for name in subgroup.levels:
        if not (level == name).any():
            seen = len(pd.unique(values.dropna()))
            raise DataError(
                f"{analysis.id}: no member in subgroup '{name}' ({subgroup.column} has {seen} other values); "
                f"edit subgroups.{subgroup.name} in study.toml."
            )


def _approached(table: pd.DataFrame) -> Sample:
    """Everyone approached: y is 1 for an answer, `earlier` 1 for who answered in the first wave."""
    answered = table["responded"].astype(bool)
    first = table.loc[answered & (table["year"] == table["year"].min()), "person_id"]
    waves = table[answered].groupby("person_id")["year"].nunique()
    frame = pd.DataFrame(
        {
            "y": answered.astype(float),
            "treated": 1,
            "unit": pd.factorize(table["person_id"], sort=True)[0],
            "time": table["year"].to_numpy(dtype=int),
            "cluster": pd.factorize(table["area_id"].astype(str), sort=True)[0],
            "weight": 1.0,
            "level": "",
            "earlier": table["person_id"].isin(first).astype(int),
            "waves": table["person_id"].map(waves).fillna(0).astype(int),
        }
    )
    return Sample(frame, "persons")


def _beside_adults(study: Study, tier: Tier, table: pd.DataFrame, subgroup: Subgroup, analysis: Analysis) -> Sample:
    """Members who answered in the first wave (treated 1), and adults of their areas in that year's survey (0)."""
    if subgroup.of != "person":
        raise Inapplicable(f"{subgroup.label}: the survey of the population does not ask it.")
    if not tier.has("survey"):
        raise Inapplicable(f"Adults of the areas: {tier.lacks.get('survey', 'no table survey')}")
    wave = int(table["year"].min())
    members = table[table["responded"].astype(bool) & (table["year"] == wave)]
    areas, survey = tier.table("areas"), tier.table("survey")
    inside = areas[areas["area_id"].notna() & (areas["share"] >= study.policy.treated_share)]
    home = dict(zip(inside["lsoa11"], inside["area_id"].astype(str), strict=True))
    adults = survey[(survey["year"] == wave) & survey["lsoa11"].isin(home)]
    if adults.empty:
        raise Inapplicable(f"Adults of the areas: nobody of theirs is in the survey of {wave}.")
    groups = ((members, members["area_id"].astype(str), 1), (adults, adults["lsoa11"].astype(str).map(home), 0))
    parts = []
    for rows, area, treated in groups:
        values = rows[subgroup.column].reset_index(drop=True)
        parts.append(
            pd.DataFrame(
                {
                    "y": 1.0,
                    "treated": treated,
                    "unit": rows["person_id"].to_numpy(dtype=np.int64),
                    "time": wave,
                    "cluster": area.to_numpy(dtype=object),
                    "weight": 1.0 if treated else rows["weight"].to_numpy(dtype=float),
                    "level": classify(subgroup, values, values),
                }
            )
        )
        _check_levels(parts[-1]["level"], subgroup, values, analysis)
    frame = pd.concat(parts, ignore_index=True)
    frame, caution = _whole(frame, {}, subgroup.levels)
    frame = frame.sort_values(["treated", "unit"], ignore_index=True)
    return Sample(frame, "share", levels=subgroup.levels, caution=caution)


def _truth(study: Study, tier: Tier, analysis: Analysis) -> Sample:
    """What is true, one row a wave and level: y, time, level. Associations in the unit of the exposure's coding."""
    if not tier.has("residents_truth"):
        raise Inapplicable("nobody knows what is true of the members: it is recorded only for data that were made.")
    truth = tier.table("residents_truth")
    outcome, subgroup = study.outcomes[analysis.outcome], study.subgroups.get(analysis.subgroup)
    exposure = study.exposures.get(analysis.exposure)
    quantity = "+".join(exposure.columns) if exposure else "change"
    same = truth["at_least"].isna() if outcome.at_least is None else truth["at_least"] == outcome.at_least
    by = "all" if subgroup is None else subgroup.column
    rows = truth[(truth["outcome"] == outcome.column) & same & (truth["quantity"] == quantity)]
    rows = rows[rows["subgroup"] == by].sort_values(["level", "year"], ignore_index=True)
    if rows.empty:
        what = exposure.label if exposure else "change"
        raise Inapplicable(f"{outcome.label}, {what}{f' by {by}' if subgroup else ''}: what is true is not recorded.")
    unit = 1.0
    if exposure is not None:
        if exposure.coding not in ("range", "step"):
            raise Inapplicable(f"{exposure.label}: what is true is recorded for one answer up, not {exposure.coding}.")
        unit = float(ANSWERS[1] - ANSWERS[0]) if exposure.coding == "range" else 1.0
    frame = pd.DataFrame(
        {
            "y": rows["value"].to_numpy(dtype=float) * unit,
            "time": rows["year"].to_numpy(dtype=int),
            "level": "" if subgroup is None else classify(subgroup, rows["level"], rows["level"]),
        }
    )
    unit_of = outcome.unit if outcome.at_least is None else "log odds"  # as the contract records shares
    return Sample(frame, unit_of, levels=() if subgroup is None else subgroup.levels)
