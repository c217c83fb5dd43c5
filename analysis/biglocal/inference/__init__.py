"""Inference, one way a file: each completes a fit that an estimator made, and estimates nothing anew."""

from __future__ import annotations

from functools import partial

from biglocal.inference.cluster import cluster
from biglocal.inference.multiplicity import adjust
from biglocal.inference.wild import wild_bootstrap
from biglocal.model import Infer

__all__ = ["adjust", "cluster", "infer", "wild_bootstrap"]


def infer(name: str, conf_level: float, draws: int) -> Infer:
    """The inference of that name (`model.Inference` lists them), with its settings."""
    known: dict[str, Infer] = {
        "none": partial(cluster, conf_level=conf_level),
        "cluster": partial(cluster, conf_level=conf_level),
        "wild_bootstrap": partial(wild_bootstrap, conf_level=conf_level, draws=draws),
    }
    return known[name]
