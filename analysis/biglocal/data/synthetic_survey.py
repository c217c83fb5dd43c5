"""The synthetic population survey: a repeated cross-section as thin as the Annual Population Survey."""

from __future__ import annotations

from typing import TYPE_CHECKING

from biglocal.data.synthetic_places import named
from biglocal.data.synthetic_truth import YEARS, effects
from biglocal.data.tables import QUALIFICATIONS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ITEMS = ("anxiety", "satisfaction", "happiness", "worthwhile")
HIGH = 6  # anxiety of 6 to 10 is high (FACTS, part 1)

# Respondents a LSOA and year, before 2020: gives some 13 to 15 a Big Local area (FACTS, part 1).
RESPONDENTS = 3.3
# Fieldwork of the items: from April 2011; face-to-face interviews stopped in March 2020 (sizes assumed).
FIELDWORK = {2011: 0.75, 2020: 0.6}
WEIGHT_CV = 0.6

# Share of adults at each score, 0 to 10; shaped as the published UK distributions (mean of satisfaction about 7.5).
SHARES = {
    "anxiety": (0.30, 0.10, 0.13, 0.11, 0.07, 0.08, 0.06, 0.06, 0.05, 0.02, 0.02),
    "satisfaction": (0.005, 0.004, 0.009, 0.014, 0.020, 0.075, 0.080, 0.200, 0.330, 0.145, 0.118),
    "happiness": (0.008, 0.006, 0.015, 0.024, 0.029, 0.083, 0.085, 0.170, 0.280, 0.155, 0.145),
    "worthwhile": (0.004, 0.003, 0.006, 0.010, 0.016, 0.065, 0.066, 0.170, 0.320, 0.165, 0.175),
}
# Loading of each item on general well-being: correlations of about 0.5 among the positive items and -0.37 with
# anxiety (assumed, near those ONS reports).
LOADINGS = {"anxiety": -0.5, "satisfaction": 0.75, "happiness": 0.72, "worthwhile": 0.70}
# National course, in sd of the latent score; anxiety falls to 2015 and rises to 2020 (assumed, after ONS).
COURSE = {
    "anxiety": (0.02, 0.00, -0.02, -0.03, -0.04, -0.03, -0.03, -0.02, 0.00, 0.09),
    "satisfaction": (-0.08, -0.05, -0.02, 0.00, 0.03, 0.05, 0.06, 0.06, 0.05, -0.08),
    "happiness": (-0.06, -0.05, -0.02, 0.00, 0.03, 0.04, 0.05, 0.05, 0.04, -0.07),
    "worthwhile": (-0.05, -0.04, -0.01, 0.00, 0.02, 0.03, 0.04, 0.04, 0.03, -0.05),
}
# Sd of general well-being between places (assumed: small, some 2% of the variance, as in UK multilevel studies).
PLACE_SD = {"district": 0.05, "msoa11": 0.06, "lsoa11": 0.10}
DISTRICT_YEAR_SD, LSOA_YEAR_SD = 0.03, 0.05
ON_DEPRIVATION = -0.10  # general well-being for a sd of the Index (assumed)
# What the codes of `_people` stand for.
CODED = {
    "sex": ("female", "male"),
    "qualification": QUALIFICATIONS,
    "activity": ("employed", "unemployed", "inactive"),
    "tenure": ("owner", "social", "private"),
    "ethnicity": ("white", "other"),
}
# Of general well-being by the codes of `_people`, blank last: assumed, of the size UK studies tell; with a dip in
# middle age (`personal`).
GRADIENTS = {
    "qualification": (-0.12, 0.0, 0.06, 0.0),
    "activity": (0.04, -0.45, -0.06, 0.0),
    "tenure": (0.05, -0.20, -0.05, 0.0),
}
REFUSED, DONT_KNOW = 0.004, 0.006  # codes -9 and -8


def _people(rng: np.random.Generator, need: np.ndarray, london: np.ndarray) -> dict[str, np.ndarray]:
    """Age and coded sex, qualification, activity, tenure, ethnicity of each respondent, (rows,) each; -1 is blank.

    Shares are assumed, near the 2011 Census, and lean with deprivation (`need`, standard scores).
    """
    import numpy as np

    n = len(need)

    def drawn(*limits: np.ndarray | float) -> np.ndarray:
        u = rng.random(n, dtype=np.float32)
        return np.asarray(sum((u > limit).astype(np.int8) for limit in limits))

    age = np.minimum(16 + 84 * rng.beta(1.5, 1.9, n), 99).astype(np.int8)
    old, need = ((age - 48.0) / 20.0).astype(np.float32), need.astype(np.float32)
    none = np.clip(0.14 + 0.08 * old + 0.07 * need, 0.02, 0.8)
    degree = np.clip(0.30 - 0.05 * old - 0.08 * need, 0.03, 0.9)
    working = np.where(age >= 66, 0.10, np.clip(0.75 - 0.05 * need, 0.3, 0.95))
    jobless = np.where(age >= 66, 0.0, np.clip(0.05 + 0.03 * need, 0.01, 0.2))
    owner = np.clip(0.64 + 0.08 * old - 0.14 * need, 0.05, 0.97)
    social = np.clip(0.17 + 0.11 * need, 0.01, 0.8)
    out = {
        "age": age,
        "sex": drawn(0.53),  # women answer a little more often
        "qualification": drawn(none, 1 - degree),
        "activity": drawn(working, working + jobless),
        "tenure": drawn(owner, np.minimum(owner + social, 0.99)),
        "ethnicity": drawn(np.where(london, 0.62, 0.90) - 0.02 * need),
    }
    for column, blank in {"qualification": 0.015, "activity": 0.003, "tenure": 0.005, "ethnicity": 0.003}.items():
        out[column][rng.random(n, dtype=np.float32) < blank] = -1
    return out


def _need(areas: pd.DataFrame) -> np.ndarray:
    """Standard scores of the Index (LSOAs,), blanks at the mean."""
    import numpy as np

    imd = areas["imd"].fillna(areas["imd"].mean()).to_numpy()
    return np.asarray((imd - imd.mean()) / imd.std())


def surroundings(rng: np.random.Generator, areas: pd.DataFrame) -> np.ndarray:
    """What a place and a year add to general well-being, (LSOAs, 10 years)."""
    import numpy as np
    import pandas as pd

    place = ON_DEPRIVATION * _need(areas)
    for column, sd in PLACE_SD.items():
        code = pd.factorize(areas[column])[0]
        place = place + sd * rng.standard_normal(int(code.max()) + 1)[code]
    district = pd.factorize(areas["district"])[0]
    shocks = DISTRICT_YEAR_SD * rng.standard_normal((int(district.max()) + 1, len(YEARS)))[district]
    shocks += LSOA_YEAR_SD * rng.standard_normal((len(areas), len(YEARS)))
    return np.asarray(place[:, None] + shocks)


def personal(around: np.ndarray, who: dict[str, np.ndarray]) -> np.ndarray:
    """General well-being of persons (rows,): `around` with what age and the codes of `_people` add."""
    import numpy as np

    wellbeing = around + 0.15 * ((who["age"] - 48.0) / 20.0) ** 2 - 0.12
    for column, gradient in GRADIENTS.items():
        wellbeing += np.array(gradient)[who[column]]
    return np.asarray(wellbeing)


def latent(item: str, wellbeing: np.ndarray, year: np.ndarray, sex: np.ndarray) -> np.ndarray:
    """The expected latent score of persons (rows,); the score adds a standard normal. `year` counts from the first."""
    import numpy as np

    mean = LOADINGS[item] * wellbeing + np.array(COURSE[item])[year]
    if item == "anxiety":
        mean += np.where(sex == 0, 0.05, -0.05)
    return np.asarray(mean)


def anxious(mean: np.ndarray, noise: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Who is of high anxiety (rows,), where the chance of it moves by `effect` percentage points."""
    import numpy as np
    from scipy.special import ndtr, ndtri

    chance = ndtr(mean - ndtri(np.cumsum(SHARES["anxiety"])[HIGH - 1])) + effect / 100.0
    return np.asarray(ndtr(noise) > 1.0 - chance)


def survey(rng: np.random.Generator, areas: pd.DataFrame, programme: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The `survey` table: about a million respondents of 2011 to 2020, four items of 0 to 10, no proxies.

    Effects are those of `truth`, the same for every person of a treated LSOA. High anxiety: each person has one
    draw and a chance of 6 or more; the chance moves by the stated points and whoever the draw then puts on the
    other side moves between 5 and 6. Other items: the people who can move do so by one point, with the
    chance that moves the mean as stated. Nobody else changes.

    Faults: codes -8 and -9, blank qualification, activity, tenure and ethnicity; no first quarter in 2011, a thin
    2020, LSOA-years without any respondent.
    """
    import numpy as np
    import pandas as pd
    from scipy.special import ndtr, ndtri

    n, t = len(areas), len(YEARS)
    for_places, for_people, for_scores, for_codes, for_effects = rng.spawn(5)
    people = areas["population"].fillna(1614).to_numpy(dtype=float)
    field = np.array([FIELDWORK.get(y, 1.0) for y in YEARS])
    sizes = for_places.poisson(RESPONDENTS * (people / people.mean())[:, None] * field)
    cell = np.repeat(np.arange(n * t, dtype=np.int32), sizes.ravel())
    home, year = cell // t, cell % t
    rows = len(cell)

    around = surroundings(for_places, areas).ravel()
    who = _people(for_people, _need(areas)[home], (areas["region"] == "London").to_numpy()[home])
    sex = who["sex"]
    wellbeing = personal(around[cell], who)
    person = for_scores.standard_normal(rows, dtype=np.float32)

    scores: dict[str, np.ndarray] = {}
    for item in ITEMS:
        load, mean = LOADINGS[item], latent(item, wellbeing, year, sex)
        cuts = ndtri(np.cumsum(SHARES[item])[:-1])
        noise = load * person + np.sqrt(1 - load**2) * for_scores.standard_normal(rows, dtype=np.float32)
        score = np.searchsorted(cuts, mean + noise).astype(np.int8)
        effect = effects(item, truth, areas, programme, YEARS).ravel()[cell]
        at = np.flatnonzero(effect != 0)
        if item == "anxiety":
            high = anxious(mean[at], noise[at].astype(float), effect[at])
            score[at] = np.where(high, np.maximum(score[at], HIGH), np.minimum(score[at], HIGH - 1))
        else:
            up = effect[at] > 0
            free = np.where(up, ndtr(cuts[-1] - mean[at]), ndtr(mean[at] - cuts[0]))  # chance of room to move
            moves = for_effects.random(len(at)) < np.abs(effect[at]) / free
            score[at] = np.clip(score[at] + moves * np.where(up, 1, -1), 0, 10)
        u = for_codes.random(rows, dtype=np.float32)
        score[u < REFUSED + DONT_KNOW] = -8
        score[u < REFUSED] = -9
        scores[item] = score

    quarter = 1 + np.floor(4 * for_people.random(rows, dtype=np.float32)).astype(np.int8)
    quarter[year == 0] = np.int8(2) + quarter[year == 0] % 3
    sigma2 = np.log1p(WEIGHT_CV**2)
    weight = np.exp(np.sqrt(sigma2) * for_people.standard_normal(rows) - sigma2 / 2)

    return pd.DataFrame(
        {
            "person_id": np.arange(1, rows + 1, dtype=np.int32),
            "year": np.array(YEARS, dtype=np.int16)[year],
            "quarter": quarter,
            "lsoa11": named(home, areas["lsoa11"].tolist()),
            "weight": np.round(weight, 3),
            **scores,
            "age": who["age"],
            **{column: named(who[column], values) for column, values in CODED.items()},
        }
    )
