"""Linear models with fixed effects through pyfixest: the one file that knows its names.

pyfixest 0.60.0 takes fixed effects in the order of a Python set of their names, which follows the process's
string-hash seed. Two things then move: the clustered errors by about 1%, because nested effects are counted in
that order, and the last digits of everything, because it demeans in that order. Neutralised at the root: the set
is made to keep the order of the formula (`in_order`), and pyfixest is asked for the raw sandwich, to which our
own small-sample factor is applied (`estimators.correction`). A test runs hash seeds in fresh processes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import correction, counted
from biglocal.estimators._design import Linear
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def linear(frame: pd.DataFrame, columns: dict[str, NDArray[np.float64]], fixed: dict[str, NDArray[np.int64]]) -> Linear:
    """Weighted least squares of `frame.y` on `columns` and fixed effects, clustered on `frame.cluster`.

    `fixed` holds (n,) integer codes, by name. Raises `Inapplicable` for fewer than two clusters, a
    constant outcome, weights that are all zero, and columns that are collinear with the rest (named).
    """
    import pandas as pd
    import pyfixest as pf

    y, cluster = frame["y"].to_numpy(dtype=float), frame["cluster"].to_numpy()
    cluster = np.unique(cluster, return_inverse=True)[1]
    n_clusters = int(cluster.max()) + 1 if len(cluster) else 0
    weight = frame["weight"].to_numpy(dtype=float)
    if n_clusters < 2:
        raise Inapplicable(f"{n_clusters} cluster: clustered errors need at least two.")
    if not (weight > 0).any():
        raise Inapplicable("all weights are zero.")
    if np.ptp(y) == 0:
        raise Inapplicable(f"the outcome is constant (always {y[0]:g}).")
    data = pd.DataFrame({"y": y, "w": weight, "g": cluster, **columns, **fixed})
    formula = f"y ~ {' + '.join(columns)} | {' + '.join(fixed)}"
    with warnings.catch_warnings(), in_order():
        warnings.filterwarnings("ignore", category=pd.errors.Pandas4Warning)  # pyfixest 0.60 on pandas 3.1
        warnings.filterwarnings("ignore", message="(?s).*multicollinearity")  # refused below, by name
        try:
            fit = pf.feols(
                formula,
                data,
                vcov={"CRV1": "g"},
                weights="w",
                ssc=pf.ssc(k_adj=False, G_adj=False),
                demeaner=pf.MapDemeaner(fixef_tol=1e-11, fixef_maxiter=100_000),
                fixef_rm="none",
                copy_data=False,
                store_data=False,
            )
        except ValueError as e:
            raise Inapplicable(f"no fit: {e}") from None
    names = tuple(str(n) for n in fit.coef().index)
    gone = [c for c in columns if c not in names]
    if gone:
        raise Inapplicable(f"collinear with the fixed effects or other terms: {', '.join(gone)}.")
    k = counted(len(columns), list(fixed.values()), cluster)
    vcov = np.asarray(fit._vcov, dtype=float) * correction(len(y), k, n_clusters)
    return Linear(names, np.asarray(fit.coef(), dtype=float), vcov, len(y), n_clusters)


class _Ordered(dict[str, None]):
    """A set that keeps the order in which it was filled."""

    def __init__(self, items: Iterable[str] = ()) -> None:
        super().__init__(dict.fromkeys(items))


@contextmanager
def in_order() -> Iterator[None]:
    """Within it pyfixest takes fixed effects in the order of the formula, whatever the hash seed."""
    from pyfixest.estimation.formula import utils

    utils.set = _Ordered  # type: ignore[attr-defined] # pyfixest 0.60.0, formula/utils.py, _encode_fixed_effects
    try:
        yield
    finally:
        del utils.set  # type: ignore[attr-defined]
