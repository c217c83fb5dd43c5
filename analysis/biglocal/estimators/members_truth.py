"""What is true of the members of a survey that was made: what the models of the residents' survey should find."""

from __future__ import annotations

import math

from biglocal.model import Fit, Sample, Term


def estimate(sample: Sample, *, of: str = "change") -> Fit:
    """Terms `change` (by wave and level) or `association`: each row of `sample.frame` (y, time, level) is one.

    Where `sample.unit` is log odds, an `odds_ratio` stands beside each.
    """
    terms = []
    for row in sample.frame.itertuples():
        period = int(str(row.time)) if of == "change" else None
        value = float(str(row.y))
        terms.append(Term(of, value, period=period, level=str(row.level), tested=False))
        if sample.unit == "log odds":
            terms.append(Term("odds_ratio", math.exp(value), period=period, level=str(row.level), tested=False))
    return Fit(tuple(terms), n_obs=0, n_units=0, n_treated=0, n_clusters=0)
