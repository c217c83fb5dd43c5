"""The programme in numbers, by wave: areas, LSOAs, residents."""

from __future__ import annotations

from biglocal.model import Fit, Sample, Term


def estimate(sample: Sample) -> Fit:
    """Terms `areas`, `lsoas`, `residents` for each level (wave); `sample.frame.y` is residents inside the area."""
    frame = sample.frame
    terms = []
    for level in sample.levels:
        rows = frame[frame["level"] == level]
        terms += [
            Term("areas", float(rows["cluster"].nunique()), level=level, tested=False),
            Term("lsoas", float(rows["unit"].nunique()), level=level, tested=False),
            Term("residents", round(float(rows["y"].sum())), level=level, tested=False),
        ]
    return Fit(
        tuple(terms),
        n_obs=len(frame),
        n_units=int(frame["unit"].nunique()),
        n_treated=int(frame["unit"].nunique()),
        n_clusters=int(frame["cluster"].nunique()),
    )
