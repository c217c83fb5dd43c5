"""Inverse-probability-of-response weights: who answered stands for those like them who did not.

In each wave after the first, a logit of answering again among those who answered in every wave before, on their answers
and what else is known of them; the inverse probabilities multiply over the waves (Robins, Rotnitzky and Zhao 1995, J
Am Stat Assoc 90:106). Weights are stabilised, so their mean is about one, and cut off at a quantile (Cole and Hernan
2008, Am J Epidemiol 168:656). Right where answering depends on nothing but what is in the logits, and where nobody is
sure not to answer: `overlap` says so. Answers after a wave was missed are not used: weights of those who come back
would be made from the few who do.

The weighted model has independence working correlation and errors clustered on the area. They know that the weights are
estimated: the logits' own errors are taken out of the sums that errors are made from (`gee.Estimated`; Robins,
Rotnitzky and Zhao 1995, theorem 1), which narrows them. They are those of leaving out each area in turn, as the largest
weights would otherwise make them too narrow. That the cut is a quantile of these weights is not in them.
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
    the lowest probability among who answered. `overlap` says what is wrong, or ''. `estimated`: how the weights of the
    rows depend on the logit, and the rows' part in it."""

    weights: Floats
    probability: Floats
    discrimination: float
    answered: int
    effective: float
    trimmed: int
    least: float
    overlap: str
    estimated: gee.Estimated


def weights(
    frame: pd.DataFrame, *, responded: str, covariates: Sequence[str], weight: str | None = None, trim: float = 1.0
) -> Response:
    """Weights of the rows of `frame` for which the column `responded` is 1, or True.

    `covariates`: numbers, or texts (as indicators), of everyone. `weight`: of the rows before. `trim`: weights above
    this quantile of theirs are set to it; 1 for none. Raises `Inapplicable` for missing covariates, where all or none
    answered, collinear covariates, and where answering is predicted perfectly.
    """
    answered = frame[responded].to_numpy(dtype=float)
    if not np.isin(answered, (0.0, 1.0)).all():
        raise Inapplicable(f"{responded} has values other than 0 and 1.")
    if answered.min() == answered.max():
        raise Inapplicable(f"{'all' if answered.all() else 'none'} of the {len(frame)} rows answered.")
    before = frame[weight].to_numpy(dtype=float) if weight else np.ones(len(frame))
    known = {"constant": np.ones(len(frame)), **regressors(frame, tuple(covariates))}
    logit = glm(answered, known, [], before, "logit")
    share = float(before @ answered / before.sum())
    yes = answered == 1
    ratio, cut = _cut(np.where(yes, share / logit.mean, 0.0), trim)
    # log(share / probability) by the coefficients and by the share; and what each row adds to their estimates
    x = np.column_stack(list(known.values()))
    slope = np.column_stack([-(1 - logit.mean)[:, None] * x, np.full(len(x), 1 / share)])
    own = logit.scores[:, None] * x @ _inverse(x, logit.working)
    part = np.column_stack([own, before * (answered - share) / before.sum()])
    return Response(
        before * ratio,
        logit.mean,
        _discrimination(logit.mean, yes),
        int(yes.sum()),
        _kish(before * ratio),
        int(cut.sum()),
        float(logit.mean[yes].min()),
        _overlap(logit.mean, before * ratio, yes),
        gee.Estimated(np.where((yes & ~cut)[:, None], slope, 0.0), part),
    )


def estimate(
    sample: Sample,
    *,
    of: Of = "change",
    family: gee.Family = "gaussian",
    trim: float = 1.0,
    history: Literal["answers", "none"] = "answers",
) -> Fit:
    """The terms of `_waves` by weighted estimating equations (`gee`, independence), each wave after the first weighted
    to stand for everyone who answered in the first.

    A row is a person and wave, y missing where there is no answer; a row that is not there is no answer. The logit of
    each wave takes the level, the covariates, and the outcome in every wave before (`history="none"`: not); the model
    itself does not adjust for covariates. Persons without an answer in the first wave leave, and so do answers after a
    wave was missed (`facts["returned"]` of them); the caution says so. `facts["response"]`: by wave `answered`,
    `effective`, `discrimination`, `least` (the lowest probability of answering again, of who did), `trimmed`.

    Raises `Inapplicable` as `weights` and `gee` do.
    """
    import pandas as pd

    frame = weighed(sample).frame
    if frame.duplicated(["unit", "time"]).any():
        raise Inapplicable("a person has two rows in a wave: keep one.")
    if history not in ("answers", "none"):
        raise Inapplicable(f"history='{history}' is neither answers nor none.")
    waves = sorted(int(t) for t in frame["time"].unique())
    seen = frame[frame["y"].notna()].sort_values(["unit", "time"])
    first = seen[seen["time"] == waves[0]].set_index("unit")
    left = int(frame["unit"].nunique()) - len(first)
    if len(first) == 0:
        raise Inapplicable(f"nobody answered in {waves[0]}.")
    known = first[[*sample.covariates]].assign(weight=first["weight"])
    names = [*sample.covariates, *(["level"] if sample.levels else [])]
    if sample.levels:
        known["level"] = first["level"].astype(str)
    persons = len(first)
    stays, ratio = np.ones(persons, dtype=bool), np.ones(persons)  # answered so far; what it stands for, uncut
    slope, part = np.zeros((persons, 0)), np.zeros((persons, 0))
    kept, slopes, back = [first.reset_index()], [slope], 0
    facts: dict[int, dict[str, float]] = {}
    cautions = []
    last = first["y"]
    for t in waves[1:]:
        if history == "answers":
            names.append(f"answer {len(kept)}")
            known[names[-1]] = last
        rows = seen[(seen["time"] == t) & seen["unit"].isin(first.index)].set_index("unit")
        risk, answered = stays.copy(), known.index.isin(rows.index)
        back += int((answered & ~risk).sum())
        stays = risk & answered
        if not stays.any():
            raise Inapplicable(f"wave {t}: nobody answered in every wave so far.")
        if not (stays == risk).all():
            asked = known[risk].assign(answered=answered[risk].astype(float))
            try:
                found = weights(asked, responded="answered", covariates=names, weight="weight", trim=1.0)
            except Inapplicable as e:
                raise Inapplicable(f"wave {t}: {e}") from None
            new = [np.zeros((persons, found.estimated.slope.shape[1])) for _ in range(2)]
            new[0][risk], new[1][risk] = found.estimated.slope, found.estimated.part
            slope, part = np.column_stack([slope, new[0]]), np.column_stack([part, new[1]])
            before = known["weight"].to_numpy(dtype=float)
            ratio[risk] *= found.weights / before[risk]
        last = rows["y"].reindex(known.index)
        now, cut = _cut(np.where(stays, ratio, 0.0), trim) if len(part.T) else (ratio, np.zeros(persons, dtype=bool))
        place = known.index.get_indexer(rows.index)
        place = place[stays[place]]
        kept.append(rows.loc[known.index[place]].assign(weight=(known["weight"] * now).iloc[place]).reset_index())
        slopes.append(np.where(cut[place, None], 0.0, slope[place]))
        if len(part.T) and not (stays == risk).all():
            own = known["weight"].to_numpy(dtype=float) * now
            facts[t] = {
                "answered": int(stays.sum()),
                "effective": _kish(own),
                "discrimination": found.discrimination,
                "least": found.least,
                "trimmed": int(cut.sum()),
            }
            wrong = _overlap(found.probability, own[risk], stays[risk])
            if wrong:
                cautions.append(f"{t}: {wrong}")
    if not facts:
        raise Inapplicable("everyone answered in every wave: weights would do nothing. Use the model itself.")
    if left:
        cautions.append(f"{left} persons without an answer in {waves[0]} left.")
    if back:
        cautions.append("Answers after a missed wave are not used.")
    columns = part.shape[1]
    weighted = pd.concat(kept, ignore_index=True)
    early = [np.column_stack([s, np.zeros((len(s), columns - s.shape[1]))]) for s in slopes]
    # a person's part stands once, in the row of the first wave, which everyone here has
    parts = np.vstack([part, np.zeros((len(weighted) - persons, columns))])
    order = weighted.sort_values(["unit", "time"]).index.to_numpy()
    plain = replace(sample, frame=weighted.loc[order].reset_index(drop=True), covariates=())
    estimated = gee.Estimated(np.vstack(early)[order], parts[order])
    done = gee.estimate(plain, of=of, family=family, correlation="independence", estimated=estimated)
    return replace(
        done,
        caution=" ".join(filter(None, [done.caution, *cautions])),
        facts={**done.facts, "response": facts, "returned": back},
    )


def _cut(raw: Floats, trim: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Weights, those above the quantile `trim` of who has any set to it; and which were."""
    if not 0 < trim <= 1:
        raise Inapplicable(f"trim={trim} is no quantile above 0.")
    top = float(np.quantile(raw[raw > 0], trim))
    return np.minimum(raw, top), raw > top


def _kish(weight: Floats) -> float:
    return float(weight.sum() ** 2 / (weight @ weight))


def _inverse(x: Floats, working: Floats) -> Floats:
    return np.asarray(np.linalg.inv(x.T @ (working[:, None] * x)), dtype=np.float64)


def _overlap(probability: Floats, weight: Floats, yes: NDArray[np.bool_]) -> str:
    least, effective = float(probability[yes].min()), _kish(weight)
    wrong = []
    if least < LIKELY:
        wrong.append(f"a respondent had a probability of answering of {least:.3f}")
    outside = int((probability[~yes] < least).sum())
    if outside:
        wrong.append(f"{outside} who did not answer were less likely to than anyone who did")
    if effective < SHARE * yes.sum():
        wrong.append(f"{int(yes.sum())} answers are worth {effective:.0f}")
    return f"Response weights, overlap: {'; '.join(wrong)}." if wrong else ""


def _discrimination(probability: Floats, yes: NDArray[np.bool_]) -> float:
    """The share of pairs, one who answered and one who did not, in which the first was likelier to; ties a half."""
    from scipy.stats import rankdata

    ranks = rankdata(probability)
    n = int(yes.sum())
    return float((ranks[yes].sum() - n * (n + 1) / 2) / (n * (len(yes) - n)))
