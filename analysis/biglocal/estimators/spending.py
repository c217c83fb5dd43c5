"""Spending of the programme, by year."""

from __future__ import annotations

import math

from biglocal.model import Fit, Inapplicable, Sample, Term


def estimate(sample: Sample) -> Fit:
    """Term `spent` with period = year: the sum of `sample.frame.y` (GBP in prices of the year) over its rows.

    Raises `Inapplicable` where there is no spending at all.
    """
    frame = sample.frame
    if not frame["y"].sum() > 0:
        raise Inapplicable("table costs holds no spending: fill it, or leave the cost-benefit analysis out.")
    terms = [
        Term("spent", math.fsum(rows["y"]), period=int(str(year)), tested=False)
        for year, rows in frame.groupby("time", sort=True)
    ]
    units = int(frame["unit"].nunique())
    return Fit(tuple(terms), n_obs=len(frame), n_units=units, n_treated=units, n_clusters=units)
