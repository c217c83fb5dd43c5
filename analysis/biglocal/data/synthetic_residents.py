"""The synthetic survey of partnership members: 2016, 2018, 2020, with a nested cohort and attrition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from biglocal.data.synthetic_places import named
from biglocal.data.tables import QUALIFICATIONS, WAVES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FIRST, COHORT = 862, 217  # members who answered in 2016; those seen in all three waves (FACTS, part 2)
# Members seen in other ways (assumed): waves seen -> how many.
OTHERS = {(2016, 2018): 105, (2016, 2020): 45, (2018, 2020): 130, (2018,): 240, (2020,): 230}

# SWEMWBS: raw sum 7 to 35 -> metric score (published conversion table, Stewart-Brown et al. 2009).
METRIC = (
    7.00, 9.51, 11.25, 12.40, 13.33, 14.08, 14.75, 15.32, 15.84, 16.36, 16.88, 17.43, 17.98, 18.59, 19.25,
    19.98, 20.73, 21.54, 22.35, 23.21, 24.11, 25.03, 26.02, 27.03, 28.13, 29.31, 30.70, 32.55, 35.00,
)  # fmt: skip
MEAN = 23.4  # England 2010-13: 23.7 men, 23.2 women (FACTS, part 2)
PERSON_SD, WAVE_SD = 3.0, 2.6  # assumed: a metric score of sd about 4, correlation of about 0.55 between waves
# Change since 2016 in points of the metric score. 2018: +1.46 overall, men 2.41, higher education 1.99
# (published_estimates, wp2), no qualification about nil (FACTS): with 45% men, and 45, 35 and 20% by
# qualification, the parts below add up to these. 2020: +0.06 for all. Assumed: the parts add.
CHANGE = {2016: 0.0, 2018: 1.46, 2020: 0.06}
CHANGE_2018_SEX = {"female": -0.77, "male": 0.94}
CHANGE_2018_QUALIFICATION = {"none": -1.46, "below_degree": 0.14, "degree": 0.54}
# Points of SWEMWBS for one step of five: top against bottom 3.4 and 1.0 (wp2), here a quarter a step.
ON_COLLECTIVE, ON_HELP = 0.84, 0.25


def _items(rng: np.random.Generator, metric: np.ndarray) -> np.ndarray:
    """Seven items of 1 to 5, (rows, 7), whose converted sum has expectation `metric` (rows,) inside 7 to 35."""
    import numpy as np

    table = np.array(METRIC)
    target = np.clip(metric, table[0], table[-1])
    low = np.clip(np.searchsorted(table, target, side="right") - 1, 0, len(table) - 2)
    up = rng.random(len(target)) < (target - table[low]) / (table[low + 1] - table[low])
    total = 7 + low + up
    order = np.argsort(rng.random((len(total), 7)), axis=1)
    items = (total // 7)[:, None] + (order < (total % 7)[:, None])
    every = np.arange(len(total))
    for _ in range(6):  # members do not answer evenly: move a point from one item to another, the sum stays
        a, b = rng.integers(0, 7, len(total)), rng.integers(0, 7, len(total))
        can = (a != b) & (items[every, a] > 1) & (items[every, b] < 5)
        items[every[can], a[can]] -= 1
        items[every[can], b[can]] += 1
    return np.asarray(items)


def residents(rng: np.random.Generator, programme: pd.DataFrame) -> pd.DataFrame:
    """The `residents` table: 862 members in 2016, 217 of them again in 2018 and 2020, others in one or two waves.

    Well-being, social exposures and their changes as stated above; the change belongs to members and is no
    effect of treatment, so `truth` does not hold it. Faults: attrition (those with more education and better
    health stay), refreshers, missing items (the score is then blank), missing exposures and qualifications.
    """
    import numpy as np
    import pandas as pd

    later = {waves: k for waves, k in OTHERS.items() if waves[0] > WAVES[0]}
    n = FIRST + sum(later.values())
    area = rng.integers(0, len(programme), n)
    sex = (rng.random(n) < 0.42).astype(int)  # 1 is male
    qualification = np.searchsorted([0.27, 0.65], rng.random(n))
    age = np.clip(np.rint(rng.normal(55, 15, n)), 18, 92).astype(int)
    person = PERSON_SD * rng.standard_normal(n)
    fitness = 0.25 * person / PERSON_SD + 0.3 * (qualification - 1) - 0.015 * (age - 55) + rng.standard_normal(n)

    # Who is seen again: one draw of order among those of 2016, leaning to education and health
    lean = 0.25 * qualification + 0.3 * fitness + rng.gumbel(size=n)
    order = np.argsort(-lean[:FIRST], kind="stable")
    waves_of: list[tuple[int, ...]] = [(WAVES[0],)] * FIRST
    at = 0
    for waves, k in {WAVES: COHORT, **{w: k for w, k in OTHERS.items() if w[0] == WAVES[0]}}.items():
        for i in order[at : at + k]:
            waves_of[i] = waves
        at += k
    for waves, k in later.items():
        waves_of += [waves] * k
    who = np.repeat(np.arange(n), [len(w) for w in waves_of])
    year = np.concatenate([np.array(w) for w in waves_of])
    rows = len(who)

    def likert(middle: float, load: float, spread: float) -> np.ndarray:
        trait = load * person[who] / PERSON_SD + spread * rng.standard_normal(n)[who]
        return np.clip(np.rint(middle + trait + 0.5 * rng.standard_normal(rows)), 1, 5)

    collective, helping = likert(3.7, 0.0, 0.8), likert(3.6, 0.0, 0.8)
    individual, belonging = likert(3.2, 0.2, 0.9), likert(4.0, 0.2, 0.8)
    health = np.clip(np.rint(3.5 + 0.6 * fitness[who] + 0.25 * (belonging - 4) + 0.5 * rng.standard_normal(rows)), 1, 5)
    by_sex = np.array([CHANGE_2018_SEX["female"], CHANGE_2018_SEX["male"]])[sex]
    by_qualification = np.array([CHANGE_2018_QUALIFICATION[q] for q in QUALIFICATIONS])[qualification]
    change = np.array([CHANGE[y] for y in year]) + np.where(year == 2018, (by_sex + by_qualification)[who], 0.0)
    score = MEAN + 0.25 * (2 * sex[who] - 1) + person[who] + change
    score += ON_COLLECTIVE * (collective - 3.7) + ON_HELP * (helping - 3.6) + WAVE_SD * rng.standard_normal(rows)
    items = _items(rng, score)
    metric = np.array(METRIC)[items.sum(axis=1) - 7]
    gone = rng.random((rows, 7)) < np.where(rng.random(rows) < 0.03, 0.4, 0.002)[:, None]

    def whole(values: np.ndarray, blank: np.ndarray) -> pd.Series:
        return pd.Series(values.astype(int)).astype("Int64").mask(blank)

    return pd.DataFrame(
        {
            "person_id": who + 1,
            "year": year,
            "area_id": named(area[who], programme["area_id"].astype(str).tolist()),
            **{f"swemwbs_{i + 1}": whole(items[:, i], gone[:, i]) for i in range(7)},
            "swemwbs": np.where(gone.any(axis=1), np.nan, metric),
            "general_health": whole(health, rng.random(rows) < 0.01),
            "individual_control": whole(individual, rng.random(rows) < 0.015),
            "collective_control": whole(collective, rng.random(rows) < 0.015),
            "help_each_other": whole(helping, rng.random(rows) < 0.01),
            "belonging": whole(belonging, rng.random(rows) < 0.01),
            "age": age[who] + (year - 2016),
            "sex": named(sex[who], ("female", "male")),
            "qualification": named(np.where(rng.random(n) < 0.02, -1, qualification)[who], QUALIFICATIONS),
        }
    )
