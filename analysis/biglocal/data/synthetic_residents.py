"""The synthetic survey of partnership members: 2016, 2018, 2020, with a nested cohort and known attrition.

Every member has a score in every wave, seen or not; what is true of the members the first wave reached is `truth()`.
Whether a member answers again depends on the last score seen, so that means of those who stay are off, and weights
made from what was seen can put them right. Nothing here was chosen with an estimate in view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from biglocal.data.swemwbs import ITEMS, METRIC
from biglocal.data.synthetic_places import named
from biglocal.data.tables import QUALIFICATIONS, ROLES, WAVES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# 2016: 1,600 approached, 862 answered; 217 answered in all waves (FACTS, part 2). The rest is assumed: who answered
# before is approached again, who never did is not, and new members are approached and answer about as often.
APPROACHED, FIRST, COHORT = 1600, 862, 217
SECOND_ONLY, LAST_ONLY = 105, 45  # of those of 2016: 2016 and 2018; 2016 and 2020
NEW = {2018: (700, 370), 2020: (430, 230)}  # new members: approached, answered
NEW_AGAIN = 130  # of those new in 2018, answered in 2020
# Log odds of an answer (assumed): for a step of the last score seen's sd of four points, a step of qualification, and
# for officers.
ON_SCORE, ON_QUALIFICATION, ON_ROLE = 0.5, 0.3, 0.4

MALE, OFFICER = 0.42, 0.3  # shares, assumed
QUALIFIED = {"none": 0.27, "below_degree": 0.38, "degree": 0.35}  # assumed
MEAN = 23.4  # England 2010-13: 23.7 men, 23.2 women (FACTS, part 2)
AREA_SD, PERSON_SD, WAVE_SD = 0.6, 3.0, 2.6  # assumed: sd of about 4, correlation of about 0.6 between waves
BY_QUALIFICATION = {"none": -0.8, "below_degree": 0.0, "degree": 0.5}  # points in every wave, assumed
# Change since 2016 in points of the metric score (published_estimates, wp2): 2018 +1.46 overall, men 2.41, higher
# education 1.99; no qualification nil (FACTS); 2020 +0.06 for all. Women and those below a degree have what the
# shares above leave for them. Assumed: the parts add.
CHANGE = {2018: 1.46, 2020: 0.06}
MEN, DEGREE, NO_QUALIFICATION = 2.41, 1.99, 0.0
# Points for the way from the lowest to the highest of five answers (wp2): collective control, and social cohesion as
# the mean of its two items. Individual control goes with the person's own level and does nothing by itself (assumed).
ON_COLLECTIVE, ON_COHESION = 3.36, 1.09
# Odds ratio of good health (4 or 5) for the same way on belonging (baseline_belonging_general_health), all ages alike.
ON_BELONGING = 4.25
HEALTH = (0.04, 0.13, 0.38, 0.78)  # cumulated shares of answers 1 to 4, at the middle answer on belonging: assumed
STEPS = 4  # from the lowest to the highest answer


def changes() -> dict[str, dict[str, float]]:
    """Change of 2018 since 2016 by sex and by qualification, points: column -> value -> change."""
    overall = CHANGE[2018]
    women = (overall - MALE * MEN) / (1 - MALE)
    told = {"none": NO_QUALIFICATION, "degree": DEGREE}
    rest = overall - sum(QUALIFIED[q] * change for q, change in told.items())
    told["below_degree"] = rest / QUALIFIED["below_degree"]
    return {"sex": {"female": women, "male": MEN}, "qualification": {q: told[q] for q in QUALIFICATIONS}}


def truth() -> pd.DataFrame:
    """The table `residents_truth`: of all members that the first wave reached, whoever answered later.

    Changes in points; associations for one step of an answer (of five). Individual control has no row: it goes with
    the person's own level, so an association is there that is no effect of it.
    """
    import math

    import pandas as pd

    score = ("swemwbs", float("nan"))
    rows: list[tuple[object, ...]] = [(*score, "change", "all", "all", y, c) for y, c in CHANGE.items()]
    for column, by in changes().items():
        rows += [(*score, "change", column, value, 2018, c) for value, c in by.items()]
        rows += [(*score, "change", column, value, 2020, CHANGE[2020]) for value in by]
    rows += [(*score, "change", "role", role, y, c) for role in ROLES for y, c in CHANGE.items()]
    for columns, points in (
        ("collective_control", ON_COLLECTIVE),
        ("help_each_other+belonging", ON_COHESION),
        ("help_each_other", ON_COHESION / 2),
        ("belonging", ON_COHESION / 2),
    ):
        rows.append((*score, columns, "all", "all", 2016, points / STEPS))
    rows.append(("general_health", 4.0, "belonging", "all", "all", 2016, math.log(ON_BELONGING) / STEPS))
    names = ["outcome", "at_least", "quantity", "subgroup", "level", "year", "value"]
    return pd.DataFrame(rows, columns=names)


def residents(rng: np.random.Generator, programme: pd.DataFrame) -> pd.DataFrame:
    """The `residents` table: a row a member and wave in which the member was approached.

    862 of 1,600 members answer in 2016, 217 of them again in 2018 and 2020, others in one or two waves. The change
    belongs to members and is no effect of treatment, so it stands in `residents_truth`. Faults: attrition (low
    scorers, the less qualified and ordinary members leave), refreshers, missing items (the score is then blank),
    missing exposures and qualifications; of those who never answered only area and role are known.
    """
    import numpy as np
    import pandas as pd
    from scipy.special import logit, ndtr

    n, waves = APPROACHED + sum(k for k, _ in NEW.values()), len(WAVES)
    area = rng.integers(0, len(programme), n)
    male = (rng.random(n) < MALE).astype(int)
    qualification = np.searchsorted(np.cumsum(list(QUALIFIED.values()))[:-1], rng.random(n))
    officer = (rng.random(n) < OFFICER).astype(int)
    age = np.clip(np.rint(rng.normal(55, 15, n)), 18, 88).astype(int)
    person = rng.standard_normal(n)

    def answers(middle: float, load: float, spread: float) -> np.ndarray:
        """Answers of 1 to 5, (members, waves)."""
        trait = load * person + spread * rng.standard_normal(n)
        return np.clip(np.rint(middle + trait[:, None] + 0.5 * rng.standard_normal((n, waves))), 1, 5)

    individual, collective = answers(3.2, 0.2, 0.9), answers(3.7, 0.0, 0.8)
    helping, belonging = answers(3.6, 0.0, 0.8), answers(4.0, 0.0, 0.8)

    by = changes()
    early = np.array(list(by["sex"].values()))[male] + np.array(list(by["qualification"].values()))[qualification]
    change = np.column_stack([np.zeros(n), early - CHANGE[2018], np.full(n, CHANGE[2020])])
    level = MEAN + 0.25 * (2 * male - 1) + np.array(list(BY_QUALIFICATION.values()))[qualification]
    level = level + AREA_SD * rng.standard_normal(len(programme))[area] + PERSON_SD * person
    latent = level[:, None] + change + WAVE_SD * rng.standard_normal((n, waves))
    latent += ON_COLLECTIVE / STEPS * (collective - 3.7) + ON_COHESION / STEPS * ((helping + belonging) / 2 - 3.8)
    items = _items(rng, latent.ravel()).reshape(n, waves, len(ITEMS))
    score = np.array(METRIC)[items.sum(axis=2) - 7]

    # good health: marginally logistic in belonging, and alike within a person (a Gaussian copula)
    common = 0.4 * person + 0.6 * rng.standard_normal(n)
    z = common[:, None] + np.sqrt(1 - 0.4**2 - 0.6**2) * rng.standard_normal((n, waves))
    shown = logit(ndtr(z)) + np.log(ON_BELONGING) / STEPS * (belonging - 3)
    health = 1 + np.searchsorted(logit(np.array(HEALTH)), shown.ravel()).reshape(n, waves)

    approached, responded = _responses(rng, score, qualification, officer)
    who, wave = np.nonzero(approached)
    seen = responded[who, wave]
    ever = np.asarray(responded.any(axis=1))[who]
    rows = len(who)
    gone = rng.random((rows, len(ITEMS))) < np.where(rng.random(rows) < 0.03, 0.4, 0.002)[:, None]
    unknown = rng.random(n) < 0.02

    def whole(values: np.ndarray, missing: np.ndarray | float = 0.0) -> pd.Series:
        blank = ~seen | (rng.random(rows) < missing if isinstance(missing, float) else missing)
        return pd.Series(values[who, wave].astype(int)).astype("Int64").mask(blank)

    return pd.DataFrame(
        {
            "person_id": who + 1,
            "year": np.array(WAVES)[wave],
            "area_id": named(area[who], programme["area_id"].astype(str).tolist()),
            "responded": seen,
            "role": named(1 - officer[who], ROLES),
            **{item: whole(items[:, :, i], gone[:, i]) for i, item in enumerate(ITEMS)},
            "swemwbs": np.where(seen & ~gone.any(axis=1), score[who, wave], np.nan),
            "general_health": whole(health, 0.01),
            "individual_control": whole(individual, 0.015),
            "collective_control": whole(collective, 0.015),
            "help_each_other": whole(helping, 0.01),
            "belonging": whole(belonging, 0.01),
            "age": pd.Series(age[who] + np.array(WAVES)[wave] - WAVES[0]).astype("Int64").mask(~ever),
            "sex": named(np.where(ever, male[who], -1), ("female", "male")),
            "qualification": named(np.where(ever & ~unknown[who], qualification[who], -1), QUALIFICATIONS),
        }
    )


def _responses(
    rng: np.random.Generator, score: np.ndarray, qualification: np.ndarray, officer: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Who was approached, and who answered, (members, waves) each.

    Among those approached a fixed number answers: those with the largest log odds plus a logistic draw, so that the
    chance of an answer is logistic in what it depends on.
    """
    import numpy as np

    n = len(score)
    approached, responded = np.zeros((n, 3), dtype=bool), np.zeros((n, 3), dtype=bool)
    base = ON_ROLE * officer + ON_QUALIFICATION * (qualification - 1)

    def answer(members: np.ndarray, wave: int, count: int, lean: np.ndarray) -> None:
        approached[members, wave] = True
        order = np.argsort(-(lean[members] + rng.logistic(size=len(members))), kind="stable")
        responded[members[order[:count]], wave] = True

    def lean(last: int) -> np.ndarray:
        return np.asarray(base + ON_SCORE * (score[:, last] - MEAN) / 4)

    first = np.arange(APPROACHED)
    second = APPROACHED + np.arange(NEW[2018][0])
    third = APPROACHED + NEW[2018][0] + np.arange(NEW[2020][0])
    answer(first, 0, FIRST, ON_ROLE * officer)  # of the first wave nothing but the role is known before
    reached = np.flatnonzero(responded[:, 0])
    answer(reached, 1, COHORT + SECOND_ONLY, lean(0))
    answer(reached[responded[reached, 1]], 2, COHORT, lean(1))
    answer(reached[~responded[reached, 1]], 2, LAST_ONLY, lean(0))
    answer(second, 1, NEW[2018][1], ON_ROLE * officer)
    answer(second[responded[second, 1]], 2, NEW_AGAIN, lean(1))
    answer(third, 2, NEW[2020][1], ON_ROLE * officer)
    return approached, responded


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
