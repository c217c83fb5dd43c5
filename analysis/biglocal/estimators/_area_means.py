"""Panels of whole units, and of areas: for methods that need a row in every period, or areas as units.

Treatment is given to areas, so the mean of an area's treated units, and beside it that of the units matched to them,
is a unit in its own right; methods that weigh or permute units then weigh and permute areas.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from biglocal.estimators._within import codes
from biglocal.model import Inapplicable, Sample


def balanced(sample: Sample) -> Sample:
    """The units that have a row in every period of the sample; the caution counts those that leave.

    Raises `Inapplicable` where none has.
    """
    frame = sample.frame
    periods = frame["time"].nunique()
    whole = (frame.groupby("unit")["time"].transform("nunique") == periods).to_numpy()
    if not whole.any():
        raise Inapplicable(f"no unit has a row in each of the {periods} periods.")
    gone = int(frame.loc[~whole, "unit"].nunique())
    said = f"{gone:,} unit{'s' if gone > 1 else ''} without a row in every period left." if gone else ""
    return replace(
        sample, frame=frame[whole].reset_index(drop=True), caution=" ".join(filter(None, [sample.caution, said]))
    )


def area_means(sample: Sample) -> Sample:
    """One row for each cluster, arm (and start) and period: weighted means of `balanced` units; weights add up.

    Covariates go along as means. A cluster's treated units and its comparison units stay in one cluster.
    """
    whole = balanced(sample)
    frame = whole.frame
    arm = codes(frame["cluster"], frame["treated"], frame["first_treated"].fillna(np.inf))
    weight = frame["weight"].to_numpy(dtype=float)
    columns = ["y", *sample.covariates]
    table = frame.assign(unit=arm, **{c: frame[c] * weight for c in columns})
    keys = ["unit", "time"]
    summed = table.groupby(keys, sort=True)[[*columns, "weight"]].sum()
    rest = table.groupby(keys, sort=True)[["d", "treated", "first_treated", "cluster"]].first()
    made = summed[columns].div(summed["weight"], axis=0).join(rest).assign(weight=summed["weight"], level="")
    return replace(whole, frame=made.reset_index())
