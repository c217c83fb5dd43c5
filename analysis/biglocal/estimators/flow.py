"""The study flow: who was left after each step, in Big Local areas and LSOAs."""

from __future__ import annotations

from biglocal.model import Fit, Sample, Term


def estimate(sample: Sample) -> Fit:
    """One term a step (period its order): estimate = treated LSOAs; the other counts stand in `facts["counts"]`.

    `facts["counts"][i]` is (LSOAs in all, treated LSOAs, Big Local areas) after step i.
    """
    terms = tuple(
        Term(step.name, float(step.treated), period=i, n_treated=step.treated, tested=False)
        for i, step in enumerate(sample.flow)
    )
    last = sample.flow[-1]
    return Fit(
        terms,
        n_obs=last.treated + last.control,
        n_units=last.treated + last.control,
        n_treated=last.treated,
        n_clusters=last.areas,
        facts={"counts": tuple((s.treated + s.control, s.treated, s.areas) for s in sample.flow)},
    )
