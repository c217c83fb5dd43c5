"""Whether the models of the residents' survey find what is true, over many surveys made anew.

Each replication draws a survey of members by the synthetic generator, with its attrition, and estimates every analysis
of the part as the study does; what is true stands in `residents_truth`. It says nothing of real members: it shows which
way to deal with those who do not answer again comes nearer the truth where answering depends on well-being.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from biglocal.model import Fit, Inapplicable, Term
from biglocal.placebo import wilson
from biglocal.study import file_of

if TYPE_CHECKING:
    import numpy as np

    from biglocal.model import Analysis
    from biglocal.sample import Draw

Key = tuple[str, int | None, str]  # term, period, level
Found = dict[Key, tuple[float, float, float, float]]  # estimate, std_error, conf_low, conf_high
BAND = (0.93, 0.97)  # coverage taken as nominal


def run(
    draw: Draw,
    analyses: Sequence[Analysis],
    runs: Callable[[Any], Iterator[Any]],
    rng: Callable[[str], np.random.Generator],
    advance: Callable[[int], None],
) -> Iterator[tuple[Analysis, Fit | str]]:
    """Each analysis with what its replications say, or the reason why there is nothing to say.

    The replications are shared: `runs` calls functions with their arguments, in order.
    """
    if draw.tier.name != "synthetic":
        yield from ((a, "surveys are drawn anew from the synthetic tier's generator alone.") for a in analyses)
        return
    truths: list[dict[Key, float] | str] = []
    for analysis in analyses:
        try:
            truths.append(_truth(draw, analysis))
        except Inapplicable as e:
            truths.append(str(e))
    every: list[list[Found]] = []
    items = ((once, (draw, tuple(analyses), rng(f"recovery/{i}"))) for i in range(draw.study.policy.recoveries))
    for found in runs(items):
        advance(len(analyses))
        every.append(found)
    for i, (analysis, truth) in enumerate(zip(analyses, truths, strict=True)):
        level = draw.study.policy.conf_level
        yield analysis, truth if isinstance(truth, str) else summary([one[i] for one in every], truth, level)


def once(draw: Draw, analyses: Sequence[Analysis], rng: np.random.Generator) -> list[Found]:
    """What each analysis finds in one survey drawn with `rng`; empty where it does not apply to it."""
    from biglocal import inference, residents
    from biglocal.data import synthetic_residents
    from biglocal.estimators import estimator

    study = draw.study
    programme = draw.tier.table("programme").sort_values("area_id", key=lambda c: c.astype(str))  # drawn by number
    table = synthetic_residents.residents(rng, programme)
    tier = replace(draw.tier, _kept={**draw.tier._kept, "residents": table})
    infer = inference.infer("none", study.policy.conf_level, 0)
    out: list[Found] = []
    for analysis in analyses:
        options: dict[str, Any] = {}
        if analysis.estimator in study.estimators:
            options |= study.estimators[analysis.estimator].options
        if analysis.exposure:
            options["of"] = "association"
        function = estimator(file_of(study, analysis.estimator))
        try:
            sample = residents.sample(study, tier, analysis)
            fit = infer(function, sample, function(sample, **options), rng)
        except Inapplicable:
            out.append({})
            continue
        out.append(
            {
                (t.name, t.period, t.level): (t.estimate, t.std_error, t.conf_low, t.conf_high)
                for t in fit.terms
                if t.name in ("change", "association", "difference") and t.tested and t.df_num is None
            }
        )
    return out


def _truth(draw: Draw, analysis: Analysis) -> dict[Key, float]:
    """What is true of each term; of two levels also of their difference, the second less the first."""
    from biglocal import residents
    from biglocal.estimators import members_truth

    sample = residents.sample(draw.study, draw.tier, replace(analysis, part="members_truth"))
    fit = members_truth.estimate(sample, of="association" if analysis.exposure else "change")
    out = {(t.name, t.period, t.level): t.estimate for t in fit.terms if t.name != "odds_ratio"}
    if len(sample.levels) == 2:
        first, second = sample.levels
        for name, period, level in list(out):
            if level == first:
                out["difference", period, ""] = out[name, period, second] - out[name, period, first]
    return out


def summary(found: Sequence[Found], truth: dict[Key, float], level: float) -> Fit:
    """What many surveys say together: terms with the period and level of what they are about.

    `<term>_truth`, `<term>_bias` (mean estimate less the truth, with its Monte Carlo error), `<term>_error_ratio` (mean
    standard error over the standard deviation of estimates) and `<term>_coverage` (intervals that hold the truth;
    interval by Wilson 1927), where term is `change`, `association` or `difference`.

    Raises nothing: an analysis that never applied gives no term.
    """
    import numpy as np

    terms: list[Term] = []
    why: dict[str, list[str]] = {}
    for key, true in truth.items():
        name, period, group = key
        values = np.array([one[key] for one in found if key in one])
        values = values[np.isfinite(values).all(axis=1)] if len(values) else values
        if len(values) < 2:
            continue
        n, (estimate, error, low, high) = len(values), values.T
        at: dict[str, Any] = {"period": period, "level": group, "tested": False, "n_treated": n}
        spread = float(estimate.std(ddof=1))
        bias, monte_carlo = float(estimate.mean() - true), spread / n**0.5
        covered = float(((low <= true) & (true <= high)).mean())
        ends = wilson(covered, n, level)
        terms += [
            Term(f"{name}_truth", true, **at),
            Term(f"{name}_bias", bias, std_error=monte_carlo, df=n - 1.0, **at),
            Term(f"{name}_error_ratio", float(error.mean()) / spread, **at),
            Term(f"{name}_coverage", covered, conf_low=ends[0], conf_high=ends[1], **at),
        ]
        if not BAND[0] - 1e-9 <= covered <= BAND[1] + 1e-9:
            reason = _reason(bias, monte_carlo, float(error.mean()) / spread)
            if ends[1] >= BAND[0] and ends[0] <= BAND[1]:
                reason = reason.removesuffix(".") + "; it may be chance, as the Monte Carlo interval meets the band."
            about = [x for x in (None if period is None else str(period), group) if x]
            why.setdefault(reason, []).append(f"{', '.join(about)} {name}" if about else name)
    said = [f"Coverage is not nominal ({'; '.join(where)}): {reason}" for reason, where in why.items()]
    return Fit(tuple(terms), len(found), len(found), len(found), 0, caution=" ".join(said))


def _reason(bias: float, monte_carlo: float, ratio: float) -> str:
    """Why intervals hold the truth too seldom or too often: bias, as far as it is told from nought, or the errors."""
    if abs(bias) > 3 * monte_carlo:
        return "the estimate is off, as those who answered are not all."
    if ratio < 0.97:
        return "the estimate is not off, its errors are smaller than its spread."
    if ratio > 1.03:
        return "the estimate is not off, its errors are larger than its spread."
    return "the estimate is not off and its errors are as large as its spread; it is not normal."
