"""Inference, one way a file.

The ways that complete a fit of the study go by name (`infer`). The others take arrays or frames of any data:

regression     the projected regression that covariances are made from
twoway         independent, heteroskedastic (HC1 to HC3) and clustered errors, one way or more
hac            Driscoll-Kraay and panel Newey-West errors
satterthwaite  CR2 and CR3 with Satterthwaite degrees of freedom, joint tests (HTZ), the cluster jackknife
wild           wild cluster bootstrap-t, confidence sets by inversion
randomisation  the treatment dealt again among clusters, within strata
multiplicity   adjustment of p-values, and Romano-Wolf by the wild bootstrap
sensitivity    bounds when trends are not parallel (Rambachan-Roth), breakdown values
equivalence    tests that leads are small
power          power and minimum detectable effects
"""

from __future__ import annotations

from functools import partial

from biglocal.inference.cluster import cluster
from biglocal.inference.equivalence import equivalence, pre_trends
from biglocal.inference.hac import driscoll_kraay, newey_west
from biglocal.inference.multiplicity import adjust, romano_wolf
from biglocal.inference.power import minimum_detectable, power
from biglocal.inference.randomisation import randomisation, randomise
from biglocal.inference.regression import regression
from biglocal.inference.satterthwaite import corrected, jackknife, satterthwaite, wald_htz
from biglocal.inference.sensitivity import breakdown, event_study, relative_magnitudes, smoothness
from biglocal.inference.twoway import clustered, independent
from biglocal.inference.wild import wild_bootstrap, wild_cluster
from biglocal.model import Infer

__all__ = [
    "adjust",
    "breakdown",
    "cluster",
    "clustered",
    "corrected",
    "driscoll_kraay",
    "equivalence",
    "event_study",
    "independent",
    "infer",
    "jackknife",
    "minimum_detectable",
    "newey_west",
    "power",
    "pre_trends",
    "randomisation",
    "randomise",
    "regression",
    "relative_magnitudes",
    "romano_wolf",
    "satterthwaite",
    "smoothness",
    "wald_htz",
    "wild_bootstrap",
    "wild_cluster",
]


def infer(name: str, conf_level: float, draws: int) -> Infer:
    """The inference of that name (`model.Inference` lists them), with its settings."""
    known: dict[str, Infer] = {
        "none": partial(cluster, conf_level=conf_level),
        "cluster": partial(cluster, conf_level=conf_level),
        "cr2": partial(satterthwaite, conf_level=conf_level),
        "wild_bootstrap": partial(wild_bootstrap, conf_level=conf_level, draws=draws),
        "randomisation": partial(randomisation, conf_level=conf_level, draws=draws),
    }
    return known[name]
