"""The wild cluster bootstrap-t of a linear regression, from cluster scores alone.

Cameron, Gelbach and Miller (2008, Rev Econ Stat 90:414). A draw costs a few products of cluster
scores (MacKinnon 2023, Econometrics and Statistics), and with the draws fixed, numerator and squared denominator of
t* are polynomials in the hypothesised effect, so that a confidence set by inversion costs no new draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import correction
from biglocal.inference.inversion import interval
from biglocal.inference.regression import (
    Regression,
    by_group,
    coded,
    crossed,
    of_sample,
    parameters,
    refuse_another,
    regression,
    resampled,
    sole_att,
)
from biglocal.model import Estimator, Fit, Inapplicable, Sample

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Weights = Literal["rademacher", "webb", "mammen"]
ROOT5 = math.sqrt(5.0)
# values, and their probabilities where these differ (Webb 2023, Canadian J Econ 56:839; Mammen 1993, Ann Stat 21:255)
KINDS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "rademacher": ((-1.0, 1.0), ()),
    "webb": ((-math.sqrt(1.5), -1.0, -math.sqrt(0.5), math.sqrt(0.5), 1.0, math.sqrt(1.5)), ()),
    "mammen": (
        (-(ROOT5 - 1) / 2, (ROOT5 + 1) / 2),
        ((ROOT5 + 1) / (2 * ROOT5), (ROOT5 - 1) / (2 * ROOT5)),
    ),
}
CHUNK = 1000  # draws held at once
TIES = 1e-12  # relative: as large as the sample's own t up to rounding


@dataclass(frozen=True, slots=True)
class Scores:
    """What the wild cluster bootstrap needs of the data: sums over C cells, k nuisance directions.

    A cell is a cluster, or with several ways of clustering an intersection of them. With b = the regressor and
    a = the outcome, both with every nuisance projected out, the residual under effect r is a - r b.
    `sa`, `sb` (C,): sums of w b a and w b b. `ha`, `hb` (C, k): sums of w z a and w z b over an orthonormal
    basis z of the nuisance. `home` (C,): the bootstrap cluster of each cell, of which there
    are `clusters`. `levels`: for each variance component, the cluster of each cell and its signed small-sample factor.
    """

    sa: NDArray[np.float64]
    sb: NDArray[np.float64]
    ha: NDArray[np.float64]
    hb: NDArray[np.float64]
    home: NDArray[np.int64]
    clusters: int
    levels: tuple[tuple[NDArray[np.int64], float], ...]


@dataclass(frozen=True, slots=True)
class Draws:
    """t* as a function of the hypothesised effect r, for every draw.

    t*(r) = (n0 - r n1) / sqrt(q0 - 2 r q1 + r^2 q2); `count` draws, all there are if `enumerated`.
    """

    n0: NDArray[np.float64]
    n1: NDArray[np.float64]
    q0: NDArray[np.float64]
    q1: NDArray[np.float64]
    q2: NDArray[np.float64]
    count: int
    enumerated: bool

    def t(self, r: float) -> NDArray[np.float64]:
        """t* of every draw under effect r; NaN where a draw has no variance."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((self.n0 - r * self.n1) / np.sqrt(self.q0 - 2 * r * self.q1 + r * r * self.q2))


@dataclass(frozen=True, slots=True)
class WildTest:
    """The test of one coefficient. `std_error` is CR1 and belongs to `statistic`, not to the interval."""

    estimate: float
    std_error: float
    statistic: float
    p_value: float
    conf_low: float
    conf_high: float
    draws: int
    enumerated: bool
    clusters: int


def scores(
    fit: Regression,
    cluster: Sequence[NDArray[np.int64]],
    *,
    boot: NDArray[np.int64] | None = None,
    counting: str = "nonnested",
) -> Scores:
    """Collapse a regression of one coefficient of interest to its cluster scores.

    `cluster`: one way of clustering or two, as codes (n,); with two the variance is their sum less that of
    their intersection, each with its own G/(G-1) (fwildclusterboot's default). `boot`: the clusters that
    draw a weight, by default those of the way with most of them. `counting`: see `regression.parameters`.
    """
    ways = list(cluster)
    cells = crossed(*ways)
    boot = max(ways, key=lambda c: int(c.max())) if boot is None else boot
    cells = crossed(cells, boot) if boot is not cells else cells
    n_cells = int(cells.max()) + 1
    first = np.full(n_cells, -1)
    first[cells[::-1]] = np.arange(len(cells))[::-1]
    w, b = fit.weight, fit.x[:, 0]
    a = fit.residual + b * fit.beta[0]
    sums = by_group(np.column_stack([w * b * a, w * b * b]), cells, n_cells)
    ha, hb = np.empty((n_cells, fit.basis.shape[1])), np.empty((n_cells, fit.basis.shape[1]))
    for j in range(fit.basis.shape[1]):
        z = w * fit.basis[:, j]
        ha[:, j] = np.bincount(cells, z * a, minlength=n_cells)
        hb[:, j] = np.bincount(cells, z * b, minlength=n_cells)
    n, k = len(w), parameters(fit, ways, counting)
    signed = [(c, 1.0) for c in ways]
    if len(ways) == 2:
        signed.append((crossed(*ways), -1.0))
    levels = tuple((c[first], sign * correction(n, k, int(c.max()) + 1)) for c, sign in signed)
    return Scores(sums[:, 0], sums[:, 1], ha, hb, boot[first], int(boot.max()) + 1, levels)


def drawn(
    clusters: int, draws: int, kind: Weights, rng: np.random.Generator
) -> tuple[int, bool, Iterator[NDArray[np.float64]]]:
    """How many draws, whether these are all there are, and the weights (up to `CHUNK`, clusters) piece by piece.

    Weights with equal probabilities are enumerated where their vectors are no more than `draws`.
    """
    if draws < 1:
        raise Inapplicable(f"{draws} draws: at least one.")
    values, chances = (np.array(v) for v in KINDS[kind])
    base = len(values)
    enumerate_all = not len(chances) and clusters * math.log(base) <= math.log(draws) + TIES
    count = base**clusters if enumerate_all else draws

    def pieces() -> Iterator[NDArray[np.float64]]:
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            if enumerate_all:
                which = (np.arange(start, start + size)[:, None] // base ** np.arange(clusters)) % base
            elif len(chances):
                which = (rng.random((size, clusters)) >= chances[0]).astype(np.int8)
            else:
                which = rng.integers(0, base, size=(size, clusters), dtype=np.int8)
            yield values[which] if base > 2 else values[0] + (values[1] - values[0]) * which

    return count, enumerate_all, pieces()


def bootstrap(s: Scores, weights: Iterator[NDArray[np.float64]], count: int, enumerated: bool) -> Draws:
    """The draws of one regression under given weights: common weights keep several regressions together."""
    d = float(s.sb.sum())
    single = len(s.levels) == 1 and s.clusters == len(s.home)
    order = np.argsort(s.home) if single else s.home  # cells are clusters, perhaps under other numbers
    n0, n1, q0, q1, q2 = (np.empty(count) for _ in range(5))
    marks = [] if single else [(_indicator(c), f) for c, f in s.levels]
    sa, sb, ha, hb = (v[order] for v in (s.sa, s.sb, s.ha, s.hb)) if single else (s.sa, s.sb, s.ha, s.hb)
    at = 0
    for drawn_weights in weights:
        v = drawn_weights if single else drawn_weights[:, s.home]
        piece = slice(at, at + len(v))
        at += len(v)
        # under effect r: beta* - r = (m0 - r m1) / d, and the score of a cell is c0 - r c1
        m0, m1 = v @ sa, v @ sb
        c0 = v * sa - (v @ ha) @ hb.T - (m0 / d)[:, None] * sb
        c1 = v * sb - (v @ hb) @ hb.T - (m1 / d)[:, None] * sb
        n0[piece], n1[piece] = m0, m1
        if single:
            f = s.levels[0][1]
            q0[piece] = np.einsum("ij,ij->i", c0, c0) * f
            q1[piece] = np.einsum("ij,ij->i", c0, c1) * f
            q2[piece] = np.einsum("ij,ij->i", c1, c1) * f
            continue
        q0[piece] = q1[piece] = q2[piece] = 0
        for mark, f in marks:
            e0, e1 = c0 @ mark, c1 @ mark
            q0[piece] += f * (e0 * e0).sum(axis=1)
            q1[piece] += f * (e0 * e1).sum(axis=1)
            q2[piece] += f * (e1 * e1).sum(axis=1)
    return Draws(n0, n1, q0, q1, q2, count, enumerated)


def sample_t(s: Scores) -> tuple[float, float]:
    """The estimate and its CR1 standard error, from the scores. NaN error where a two-way variance is negative."""
    d = float(s.sb.sum())
    beta = float(s.sa.sum()) / d
    own = s.sa - beta * s.sb
    v = sum(f * float((np.bincount(c, own) ** 2).sum()) for c, f in s.levels)
    return beta, math.sqrt(v) / d if v > 0 else math.nan


def wild_cluster(
    y: ArrayLike,
    x: ArrayLike,
    *cluster: ArrayLike,
    rng: np.random.Generator,
    nuisance: ArrayLike | None = None,
    fixed: Sequence[ArrayLike] = (),
    weight: ArrayLike | None = None,
    boot_cluster: ArrayLike | None = None,
    kind: Weights = "rademacher",
    null_imposed: bool = True,
    equal_tailed: bool = False,
    hypothesis: float = 0.0,
    draws: int = 9_999,
    conf_level: float = 0.95,
    counting: str = "nonnested",
) -> WildTest:
    """Wild cluster bootstrap-t of the coefficient on `x` (n,) in a weighted regression of `y` (n,).

    `nuisance` (n, k) and `fixed` effects are whatever else is in the regression; without fixed effects a
    constant is added. `cluster`: labels (n,), two such for two-way clustering; `boot_cluster`: who draws
    a weight (default: the way with most clusters). `null_imposed`: residuals under the hypothesis (WCR, the
    default, which alone has a confidence set by inversion) or not (WCU; its interval is NaN).
    p is the share of draws with |t*| > |t|, or twice the smaller tail's if `equal_tailed`. The sample itself
    counts as one of the draws, so that p is never nought (Davison and Hinkley 1997, 4.11), unless all vectors of
    weights are enumerated: then p is their share, strictly beyond, as in R's fwildclusterboot.

    Raises `Inapplicable` for what `regression` refuses, fewer than two clusters, one treated or one
    untreated cluster (the restricted and unrestricted bootstraps then give opposite answers: MacKinnon and
    Webb 2017, J Applied Econometrics 32:233), and a variance that is not positive.
    """
    ways = [coded(c) for c in cluster]
    if len(ways) not in (1, 2):
        raise Inapplicable(f"{len(ways)} ways of clustering: one or two.")
    boot = max(ways, key=lambda c: int(c.max())) if boot_cluster is None else coded(boot_cluster)
    check_clusters(np.asarray(x, dtype=float), boot)
    fit = regression(y, x, nuisance=nuisance, fixed=fixed, weight=weight, within=boot)
    s = scores(fit, ways, boot=boot, counting=counting)
    return wild_test(
        s, rng, kind=kind, null_imposed=null_imposed, equal_tailed=equal_tailed, hypothesis=hypothesis,
        draws=draws, conf_level=conf_level,
    )  # fmt: skip


def check_clusters(x: NDArray[np.float64], cluster: NDArray[np.int64]) -> None:
    """Refuse designs in which the wild bootstrap is known to fail, with the reason."""
    clusters = int(cluster.max()) + 1 if len(cluster) else 0
    if clusters < 2:
        raise Inapplicable(f"{clusters} cluster: the bootstrap needs at least two.")
    values = np.unique(x)
    if len(values) == 2:
        for value, name in zip(values[::-1], ("treated", "comparison"), strict=True):
            if len(np.unique(cluster[x == value])) == 1:
                raise Inapplicable(
                    f"1 {name} cluster: the restricted and unrestricted bootstraps then disagree; "
                    "use randomisation inference."
                )


def wild_test(
    s: Scores,
    rng: np.random.Generator,
    *,
    kind: Weights = "rademacher",
    null_imposed: bool = True,
    equal_tailed: bool = False,
    hypothesis: float = 0.0,
    draws: int = 9_999,
    conf_level: float = 0.95,
    ends: bool = True,
) -> WildTest:
    """The test from scores already made; see `wild_cluster`. `ends`: whether the interval is wanted, else NaN."""
    beta, se = sample_t(s)
    if not se > 0:
        raise Inapplicable("the clustered variance of the estimate is not positive.")
    count, enumerated, weights = drawn(s.clusters, draws, kind, rng)
    done = bootstrap(s, weights, count, enumerated)

    def share(t: NDArray[np.float64], own: float) -> float:
        slack = TIES * abs(own)
        low, high = int((t < own - slack).sum()), int((t > own + slack).sum())
        if not equal_tailed:
            low, high = 0, int((np.abs(t) > abs(own) + slack).sum())
        beyond = 2 * min(low, high) if equal_tailed else high
        return min(1.0, beyond / count if enumerated else (1 + beyond) / (1 + count))

    def p_value(r: float) -> float:
        return share(done.t(r if null_imposed else beta), (beta - r) / se)

    low, high = interval(p_value, beta, se, conf_level) if null_imposed and ends else (math.nan, math.nan)
    return WildTest(
        beta, se, (beta - hypothesis) / se, p_value(hypothesis), low, high, count, enumerated, s.clusters
    )  # fmt: skip


def wild_bootstrap(
    estimator: Estimator,  # noqa: ARG001
    sample: Sample,
    fit: Fit,
    rng: np.random.Generator,
    *,
    conf_level: float,
    draws: int,
    kind: Weights = "rademacher",
) -> Fit:
    """The `att` of a two-way fixed-effects fit with p-value and interval of the restricted wild cluster bootstrap.

    The study's path to `wild_cluster`, which says how. Raises `Inapplicable` for a fit that is not one
    two-way fixed-effects `att`, and for fewer than two treated or comparison clusters.
    """
    att = sole_att(fit, "the wild cluster bootstrap")
    cluster = coded(sample.frame["cluster"])
    check_clusters(sample.frame["d"].to_numpy(dtype=float), cluster)
    s = scores(of_sample(sample), [cluster])
    test = wild_test(s, rng, kind=kind, draws=draws, conf_level=conf_level)
    refuse_another(att, test.estimate, test.std_error, "the wild cluster bootstrap")
    facts = {
        **fit.facts, "draws": test.draws, "enumerated": test.enumerated, "std_error": test.std_error, "weights": kind,
    }  # fmt: skip
    term = resampled(att, test.statistic, test.p_value, test.conf_low, test.conf_high)
    return replace(fit, terms=(term,), facts=facts)


def _indicator(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    out = np.zeros((len(codes), int(codes.max()) + 1))
    out[np.arange(len(codes)), codes] = 1
    return out
