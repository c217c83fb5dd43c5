"""Inverse-probability-of-response weights: who answered stands for those like them who did not.

A logit of answering on what is known of everyone; each respondent is weighted by the probability of answering among
all over that given what is known (stabilised, so weights have mean about one), cut off at a quantile (Robins,
Rotnitzky and Zhao 1995, J Am Stat Assoc 90:106; Cole and Hernan 2008, Am J Epidemiol 168:656). Right where answering
depends on nothing but what is in the logit, and where nobody is sure not to answer: `overlap` says so.

The weighted model has independence working correlation and errors clustered on the area, which take weights as
known: with weights estimated by the right logit they are, if anything, too wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import gee
from biglocal.estimators._effects import regressors
from biglocal.estimators._glm import glm
from biglocal.estimators._waves import Of, weighed
from biglocal.model import Fit, Inapplicable, Sample

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LIKELY = 0.02  # a probability of answering below which a respondent stands for very many
SHARE = 0.5  # of its rows that a weighted sample should be worth at least


@dataclass(frozen=True, slots=True)
class Response:
    """`weights` (n,), 0 for who did not answer; `probability` (n,) of answering; `discrimination` the area under the
    curve (0.5: the logit tells nothing); `effective` rows (Kish) of `answered`; `trimmed` weights cut off; `least`,
    the lowest probability among who answered. `overlap` says what is wrong, or ''."""

    weights: Floats
    probability: Floats
    discrimination: float
    answered: int
    effective: float
    trimmed: int
    least: float
    overlap: str


def weights(
    frame: pd.DataFrame, *, responded: str, covariates: Sequence[str], weight: str | None = None, trim: float = 0.99
) -> Response:
    """Weights of the rows of `frame` for which the column `responded` is 1, or True.

    `covariates`: numbers, or texts (as indicators), of everyone. `weight`: of the rows before. `trim`: weights above
    this quantile of theirs are set to it; 1 for none. Raises `Inapplicable` for missing covariates, where all or none
    answered, collinear covariates, and where answering is predicted perfectly.
    """
    answered = frame[responded].to_numpy(dtype=float)
    if not np.isin(answered, (0.0, 1.0)).all():
        raise Inapplicable(f"{responded} has values other than 0 and 1.")
    if not 0 < trim <= 1:
        raise Inapplicable(f"trim={trim} is no quantile above 0.")
    if answered.min() == answered.max():
        raise Inapplicable(f"{'all' if answered.all() else 'none'} of the {len(frame)} rows answered.")
    before = frame[weight].to_numpy(dtype=float) if weight else np.ones(len(frame))
    known = {"constant": np.ones(len(frame)), **regressors(frame, tuple(covariates))}
    probability = glm(answered, known, [], before, "logit").mean
    share = float(before @ answered / before.sum())
    yes = answered == 1
    raw = np.where(yes, share / probability, 0.0)
    top = float(np.quantile(raw[yes], trim))
    cut = int((raw > top).sum())
    own = before * np.minimum(raw, top)
    effective = float(own.sum() ** 2 / (own @ own))
    least = float(probability[yes].min())
    wrong = []
    if least < LIKELY:
        wrong.append(f"a respondent had a probability of answering of {least:.3f}")
    outside = int((probability[~yes] < least).sum())
    if outside:
        wrong.append(f"{outside} who did not answer were less likely to than anyone who did")
    if effective < SHARE * yes.sum():
        wrong.append(f"{int(yes.sum())} answers are worth {effective:.0f}")
    overlap = f"Response weights, overlap: {'; '.join(wrong)}." if wrong else ""
    area = _discrimination(probability, yes)
    return Response(own, probability, area, int(yes.sum()), effective, cut, least, overlap)


def estimate(
    sample: Sample,
    *,
    of: Of = "change",
    family: gee.Family = "gaussian",
    trim: float = 0.99,
    baseline: Literal["outcome", "none"] = "outcome",
) -> Fit:
    """The terms of `_waves` by weighted estimating equations (`gee`, independence), each wave after the first weighted
    to stand for everyone who answered in the first.

    A row is a person and wave, y missing where there is no answer; a row that is not there is no answer. The logit of
    each wave takes the level, the covariates, and the outcome in the first wave (`baseline="none"`: not); the
    model itself does not adjust for covariates. Persons without an answer in the first wave leave, and the caution says
    how many. `facts`: by wave `answered`, `effective`, `discrimination`, `least`, `trimmed`.

    Raises `Inapplicable` as `weights` and `gee` do.
    """
    frame = weighed(sample).frame
    if frame.duplicated(["unit", "time"]).any():
        raise Inapplicable("a person has two rows in a wave: keep one.")
    waves = sorted(int(t) for t in frame["time"].unique())
    seen = frame[frame["y"].notna()]
    first = seen[seen["time"] == waves[0]].set_index("unit")
    left = int(frame["unit"].nunique()) - len(first)
    if len(first) == 0:
        raise Inapplicable(f"nobody answered in {waves[0]}.")
    known = first[[*sample.covariates]].assign(weight=first["weight"])
    names = list(sample.covariates)
    if baseline == "outcome":
        known["first answer"] = first["y"]
        names.append("first answer")
    if sample.levels:
        known["level"] = first["level"].astype(str)
        names.append("level")
    parts, cautions, facts = [first.reset_index()], [], {}
    for t in waves[1:]:
        rows = seen[(seen["time"] == t) & seen["unit"].isin(first.index)].set_index("unit")
        answered = known.assign(answered=known.index.isin(rows.index).astype(float))
        if answered["answered"].all():
            parts.append(rows.reset_index())
            continue
        try:
            found = weights(answered, responded="answered", covariates=names, weight="weight", trim=trim)
        except Inapplicable as e:
            raise Inapplicable(f"wave {t}: {e}") from None
        own = dict(zip(answered.index, found.weights, strict=True))
        parts.append(rows.assign(weight=[own[u] for u in rows.index]).reset_index())
        facts[t] = {k: getattr(found, k) for k in ("answered", "effective", "discrimination", "least", "trimmed")}
        if found.overlap:
            cautions.append(f"{t}: {found.overlap}")
    if not facts:
        raise Inapplicable("everyone answered in every wave: weights would do nothing. Use the model itself.")
    if left:
        cautions.append(f"{left} persons without an answer in {waves[0]} left.")
    import pandas as pd

    weighted = pd.concat(parts, ignore_index=True).sort_values(["unit", "time"], ignore_index=True)
    plain = replace(sample, frame=weighted, covariates=())
    done = gee.estimate(plain, of=of, family=family, correlation="independence")
    return replace(
        done, caution=" ".join(filter(None, [done.caution, *cautions])), facts={**done.facts, "response": facts}
    )


def _discrimination(probability: Floats, yes: NDArray[np.bool_]) -> float:
    """The share of pairs, one who answered and one who did not, in which the first was likelier to; ties a half."""
    from scipy.stats import rankdata

    ranks = rankdata(probability)
    n = int(yes.sum())
    return float((ranks[yes].sum() - n * (n + 1) / 2) / (n * (len(yes) - n)))
