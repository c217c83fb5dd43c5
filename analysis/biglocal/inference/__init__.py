"""Inference, one way a file.

The ways that complete a fit of the study go by name (`infer`) and are imported here. The others are imported from
their modules, which take arrays or frames of any data; so a change to one of them computes no row of the study again:

regression     the projected regression that covariances are made from
twoway         `clustered` one way or more, `independent` (iid, HC1 to HC3)
hac            `driscoll_kraay`, `newey_west`
satterthwaite  `corrected` (CR0 to CR3, Satterthwaite degrees of freedom), `wald_htz`, `jackknife`
many           `many`: the regression's estimate and errors for many outcomes on one design
wild           `wild_cluster`: wild cluster bootstrap-t, confidence sets by inversion
randomisation  `randomise`: the treatment dealt again among clusters, within strata
multiplicity   `adjust`, and `romano_wolf` by the wild bootstrap
parallel_trends bounds, breakdown values, equivalence and the power of the test of the leads, of one event study
sensitivity    `relative_magnitudes`, `smoothness` (Rambachan-Roth), `breakdown`
equivalence    `equivalence`, `pre_trends`: that leads are small
power          `power`, `minimum_detectable`, designs
"""

from __future__ import annotations

from functools import partial

from biglocal.inference.cluster import cluster
from biglocal.inference.multiplicity import adjust
from biglocal.inference.parallel_trends import parallel_trends
from biglocal.inference.power import achieved
from biglocal.inference.randomisation import prepared, randomisation
from biglocal.inference.satterthwaite import satterthwaite
from biglocal.inference.twoway import area_and_year
from biglocal.inference.wild import wild_bootstrap
from biglocal.model import Infer

__all__ = [
    "achieved", "adjust", "area_and_year", "cluster", "infer", "parallel_trends", "prepared", "randomisation",
    "satterthwaite", "wild_bootstrap",
]  # fmt: skip


def infer(name: str, conf_level: float, draws: int, power: float = 0.8) -> Infer:
    """The inference of that name, with its settings: `model.Inference` lists them; `romano_wolf` alone is not here,
    since it takes a family of fits (`multiplicity.together`)."""
    known: dict[str, Infer] = {
        "none": partial(cluster, conf_level=conf_level),
        "cluster": partial(cluster, conf_level=conf_level),
        "twoway": partial(area_and_year, conf_level=conf_level),
        "cr2": partial(satterthwaite, conf_level=conf_level),
        "wild_bootstrap": partial(wild_bootstrap, conf_level=conf_level, draws=draws),
        "randomisation": partial(randomisation, conf_level=conf_level, draws=draws),
        "parallel_trends": partial(parallel_trends, conf_level=conf_level, target=power),
        "power": partial(achieved, conf_level=conf_level, target=power),
    }
    return known[name]
