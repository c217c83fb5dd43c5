"""Linear mixed models by profiled deviance, with Satterthwaite and Kenward-Roger degrees of freedom.

y = X b + sum over factors f of Z_f u_f + e, u_f of each level ~ N(0, Psi_f), e ~ N(0, sigma2 / weight). The deviance is
profiled over b and sigma2 and minimised over the relative Cholesky factors of Psi_f (Bates, Maechler, Bolker and Walker
2015, J Stat Softw 67(1), equations 34 and 42). The factor with most random effects is eliminated level by level, what
is left of the others is one dense system: nested and crossed factors alike.

The information about the variances then comes block by block, a block being the rows that share any level, directly
or not: it gives the last Newton steps to the maximum, and the degrees of freedom. The referees in the tests are R's
lme4, lmerTest and pbkrtest, and statsmodels' MixedLM, which gives no such degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from biglocal.estimators._waves import orthogonal
from biglocal.estimators._within import sums
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BLOCK = 4_000  # rows that share levels: a block's covariance is dense, 128 MB at this size
TABLE = 5_000_000  # cells of the table of cross-products that is kept: 40 MB
BOUND = 1e-8  # a relative variance below which it is at its bound, nought
NOTHING = 1e-6  # share of the residual variance of least squares below which none is left beside the random effects
WIDE = (
    1e4  # a relative factor beyond what NOTHING lets be: a search that leaps further meets rounding, not the deviance
)


@dataclass(frozen=True, slots=True)
class Factor:
    """A grouping factor: `level` (n,) codes from 0 and the columns `z` (n, q) whose coefficients vary over levels."""

    name: str
    level: NDArray[np.int64]
    z: Floats
    columns: tuple[str, ...] = ("Intercept",)


@dataclass(frozen=True, slots=True)
class Mixed:
    """`beta` (k,), `vcov` (k, k) by the model, `sigma2`, `psi` the covariance (q, q) of each factor, `loglik` (REML or
    ML). `residual` (n,) is V^-1 (y - X beta). `bound` names the factors whose covariance is singular."""

    beta: Floats
    vcov: Floats
    sigma2: float
    psi: tuple[Floats, ...]
    loglik: float
    residual: Floats
    bound: tuple[str, ...]
    converged: bool
    moments: _Moments | None
    basis: Floats


def solve(
    y: Floats, columns: dict[str, Floats], factors: tuple[Factor, ...], weight: Floats, *, reml: bool, moments: bool
) -> Mixed:
    """The maximum of the (restricted) likelihood; with `moments` what degrees of freedom are made from.

    Raises `Inapplicable` for a constant outcome, collinear columns (named), a factor with one level or with as many
    random effects as rows, no residual variation, and blocks too large for `moments`.
    """
    n, k = len(y), len(columns)
    if n == 0:
        raise Inapplicable("no rows.")
    if np.ptp(y) == 0:
        raise Inapplicable(f"the outcome is constant (always {y[0]:g}).")
    for f in factors:
        levels = int(f.level.max()) + 1
        if levels < 2:
            raise Inapplicable(f"one {f.name}: its variance needs at least two.")
        if levels * f.z.shape[1] >= n:
            raise Inapplicable(
                f"{levels * f.z.shape[1]} random effects of {f.name}, {n} rows: they cannot be told from the residual."
            )
    root = np.sqrt(weight)
    x = np.column_stack(list(columns.values())) * root[:, None]
    # solved on orthonormal columns and a residual of mean square one: the same digits on any scale
    q, r = orthogonal(x, tuple(columns))
    if n == k:
        raise Inapplicable(f"{n} rows for {k} coefficients.")
    first = q.T @ (root * y)
    e = root * y - q @ first
    scale = float(np.sqrt(e @ e / n))
    if scale <= 1e-12 * float(np.sqrt((root * y) @ (root * y) / n)):
        raise Inapplicable("the regressors predict the outcome perfectly: nothing is left to vary.")
    scaled = tuple(Factor(f.name, f.level, f.z * root[:, None], f.columns) for f in factors)
    data = _Data(q * np.sqrt(n), e / scale, scaled, reml)
    theta, converged = data.minimise()
    psi, sigma2 = data.covariances(theta)
    if sigma2 < NOTHING:
        raise _nothing(data.big)
    found = None
    if moments:
        blocks = _Blocks(data.x, data.y, scaled)
        psi, sigma2, found, polished = blocks.polish(psi, sigma2, reml)
        converged = converged and polished
    relative = [p / sigma2 for p in psi]
    deviance, gamma, inverse, _ = data.evaluate([_cholesky(p) for p in relative], sigma2)
    back = np.linalg.inv(r) * np.sqrt(n)
    beta = np.linalg.solve(r, first) + back @ gamma * scale
    residual = data.whitened(relative, gamma) / sigma2 * root / scale
    constant = (n - k if reml else n) * np.log(scale**2) - float(np.log(weight).sum())
    if reml:  # log |X'V^-1 X| of the columns as given
        constant += 2 * float(np.log(np.abs(np.diag(r))).sum()) - k * np.log(n)
    return Mixed(
        beta,
        back @ inverse @ back.T * sigma2 * scale**2,
        sigma2 * scale**2,
        tuple(p * scale**2 for p in psi),
        -(deviance + constant) / 2,
        residual,
        tuple(f.name for f, p in zip(factors, relative, strict=True) if _singular(p)),
        converged,
        found,
        back * scale,
    )


def _nothing(f: Factor) -> Inapplicable:
    return Inapplicable(f"within a {f.name} the outcome does not change but by the regressors: no residual is left.")


def _cholesky(psi: Floats) -> Floats:
    """A factor L with L L' = psi, lower triangular where psi is positive definite; also for singular psi."""
    values, vectors = np.linalg.eigh(psi)
    half = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.asarray(np.linalg.qr(half.T)[1].T)


def _singular(relative: Floats) -> bool:
    spread = np.sqrt(np.diag(relative))
    if (spread**2 <= BOUND).any():
        return True
    return bool(np.linalg.eigvalsh(relative / np.outer(spread, spread))[0] < 1e-6)


class _Data:
    """Cross-products of one model, from which its profiled deviance is worked out for any relative factors."""

    def __init__(self, x: Floats, y: Floats, factors: tuple[Factor, ...], reml: bool) -> None:
        from scipy import sparse

        self.x, self.y, self.factors, self.reml = x, y, factors, reml
        self.order = sorted(range(len(factors)), key=lambda i: -_effects(factors[i]))
        big = factors[self.order[0]]
        self.big, self.rest = big, [factors[i] for i in self.order[1:]]
        t = np.column_stack([x, y])
        width, groups = big.z.shape[1], int(big.level.max()) + 1
        inner = np.empty((groups, width, width))
        for a in range(width):
            for b in range(width):
                inner[:, a, b] = sums(big.level, big.z[:, a] * big.z[:, b])
        others = sparse.hstack([*(_sparse(f) for f in self.rest), sparse.csr_array(t)], format="csr")
        self.all = (others.T @ others).toarray()
        self.crossed = (_sparse(big).T @ others).tocsr()
        distinct, place, count = np.unique(inner.reshape(groups, -1), axis=0, return_inverse=True, return_counts=True)
        self.inner, self.count, self.sums = inner, np.ones(groups), None
        if len(distinct) * width**2 * others.shape[1] ** 2 <= TABLE:
            # levels with the same cross-product, such as persons seen as often, enter by the sum of theirs
            self.inner, self.count = distinct.reshape(-1, width, width), count.astype(float)
            self.sums = np.empty((len(distinct), width, width, others.shape[1], others.shape[1]))
            for i in range(len(distinct)):
                rows = np.flatnonzero(place.ravel() == i) * width
                for a in range(width):
                    for b in range(width):
                        self.sums[i, a, b] = (self.crossed[rows + a].T @ self.crossed[rows + b]).toarray()

    def taken(self, w: Floats) -> Floats:
        """What the largest factor takes from the cross-products of all else, for its `w` (levels, q, q)."""
        if self.sums is not None:
            return np.asarray(np.tensordot(w, self.sums, axes=3))
        from scipy import sparse

        block = sparse.bsr_array((w, np.arange(len(w)), np.arange(len(w) + 1)))
        return np.asarray((self.crossed.T @ (block @ self.crossed)).toarray())

    def evaluate(self, factors: list[Floats], sigma2: float | None = None) -> tuple[float, Floats, Floats, float]:
        """Deviance but for constants, coefficients, (X'V^-1X)^-1 relative to sigma2, and sigma2 profiled; with
        `sigma2` given the deviance is that at it."""
        big = factors[self.order[0]]
        width = self.inner.shape[1]
        m = np.eye(width) + big.T @ self.inner @ big
        logs = np.log(m[:, 0, 0]) if width == 1 else np.linalg.slogdet(m)[1]
        logdet = float(self.count @ logs)
        w = big @ np.linalg.inv(m) @ big.T if width > 1 else big**2 / m
        left_over = self.all - self.taken(w)
        at = sum(_effects(f) for f in self.rest)
        s = left_over[at:, at:]
        if self.rest:
            from scipy.linalg import cho_factor, cho_solve

            own = [factors[i] for i in self.order[1:]]
            inner = _times(_times(left_over[:at, :at], self.rest, own).T, self.rest, own)
            side = _times(left_over[at:, :at], self.rest, own).T
            inner[np.diag_indices_from(inner)] += 1
            chol = cho_factor(inner, lower=True)
            logdet += 2 * float(np.log(np.diag(chol[0])).sum())
            s = s - side.T @ cho_solve(chol, side)
        k = len(s) - 1
        inverse = np.linalg.inv(s[:k, :k])
        gamma = inverse @ s[:k, k]
        left = float(s[k, k] - s[:k, k] @ gamma)
        n = len(self.y)
        if left < NOTHING * 1e-3 * n:
            raise _nothing(self.big)
        free = n - k if self.reml else n
        profiled = left / free
        if self.reml:
            logdet += float(np.linalg.slogdet(s[:k, :k])[1])
        here = profiled if sigma2 is None else sigma2
        deviance = logdet + free * float(np.log(2 * np.pi * here)) + left / here
        return deviance, gamma, np.asarray(inverse, dtype=np.float64), profiled

    def minimise(self) -> tuple[Floats, bool]:
        """The relative Cholesky factors, one after the other, lower triangles by row."""
        from scipy.optimize import minimize

        start, low = [], []
        for f in self.factors:
            q = f.z.shape[1]
            # one standard deviation of each random effect is that of the residual, whatever the column's scale
            size = np.sqrt((f.z * f.z).mean(axis=0))
            for a in range(q):
                for b in range(a + 1):
                    start.append(1.0 / size[a] if a == b else 0.0)
                    low.append(0.0 if a == b else -np.inf)
        unit = np.array([s or 1.0 / size_ for s, size_ in zip(start, _sizes(self.factors), strict=True)])

        def deviance(t: Floats) -> float:
            return self.evaluate(self.split(t * unit))[0]

        begin = np.array(start) / unit
        bounds = [(max(b, -WIDE), WIDE) for b in low]
        options: dict[str, Any] = {"ftol": 1e-14, "gtol": 1e-7, "maxiter": 500}

        def search(t: Floats) -> Any:
            return minimize(deviance, t, method="L-BFGS-B", jac="3-point", bounds=bounds, options=options)  # type: ignore[call-overload] # the stubs miss pairs that hold None and numbers

        done = search(begin)
        # The deviance is even in a standard deviation, so its slope is nought at the bound whether or not it is lower
        # inside: a search that lands there is begun again from inside where that is so.
        for i in range(len(done.x)):
            if low[i] == 0 and done.x[i] < 1e-4:
                inside = [np.where(np.arange(len(done.x)) == i, size, done.x) for size in (0.03, 0.1, 0.3)]
                best = min(inside, key=deviance)
                if deviance(best) < done.fun - 1e-8:
                    again = search(best)
                    done = again if again.fun < done.fun else done
        at = done.x
        for i in range(len(at)):  # a minimum at the bound is flat there: taken, not approached
            if low[i] == 0 and 0 < at[i] < 1e-2:
                zero = at.copy()
                zero[i] = 0.0
                if deviance(zero) <= done.fun + 1e-8:
                    at = zero
        return at * unit, bool(done.success) or bool(np.abs(done.jac).max() < 1e-3)

    def split(self, theta: Floats) -> list[Floats]:
        out, at = [], 0
        for f in self.factors:
            q = f.z.shape[1]
            size = q * (q + 1) // 2
            lower = np.zeros((q, q))
            lower[np.tril_indices(q)] = theta[at : at + size]
            out.append(lower)
            at += size
        return out

    def covariances(self, theta: Floats) -> tuple[list[Floats], float]:
        factors = self.split(theta)
        sigma2 = self.evaluate(factors)[3]
        return [sigma2 * (f @ f.T) for f in factors], sigma2

    def whitened(self, relative: list[Floats], gamma: Floats) -> Floats:
        """V^-1 (y - X gamma) times sigma2, (n,), by the random effects' mixed-model equations."""
        from scipy import sparse
        from scipy.sparse.linalg import splu

        e = self.y - self.x @ gamma
        z = sparse.hstack([_sparse(f) for f in self.factors], format="csr")
        lam = sparse.block_diag(
            [
                sparse.kron(sparse.eye_array(int(f.level.max()) + 1), sparse.csr_array(_cholesky(p)))
                for f, p in zip(self.factors, relative, strict=True)
            ],
            format="csr",
        )
        zl = (z @ lam).tocsr()
        system = (zl.T @ zl + sparse.eye_array(zl.shape[1])).tocsc()
        return np.asarray(e - zl @ splu(system).solve(zl.T @ e))


def _times(rows: Floats, factors: list[Factor], lower: list[Floats]) -> Floats:
    """`rows` (r, random effects) times the block-diagonal matrix that repeats each factor's `lower`."""
    out, at = np.empty_like(rows), 0
    for f, one in zip(factors, lower, strict=True):
        here = slice(at, at + _effects(f))
        out[:, here] = (rows[:, here].reshape(len(rows), -1, len(one)) @ one).reshape(len(rows), -1)
        at = here.stop
    return out


def _sizes(factors: tuple[Factor, ...]) -> Iterator[float]:
    for f in factors:
        size = np.sqrt((f.z * f.z).mean(axis=0))
        for a in range(f.z.shape[1]):
            yield from (float(size[a]) for _ in range(a + 1))


def _effects(f: Factor) -> int:
    return int((int(f.level.max()) + 1) * f.z.shape[1])


def _sparse(f: Factor) -> Any:
    from scipy import sparse

    n, q = f.z.shape
    columns = (f.level[:, None] * q + np.arange(q)).ravel()
    shape = (n, (int(f.level.max()) + 1) * q)
    return sparse.csr_array((f.z.ravel(), columns, np.arange(0, n * q + 1, q)), shape=shape)


@dataclass(frozen=True, slots=True)
class _Moments:
    """Of the variances that are not at their bound, m of them: the inverse of the observed and of the expected
    information (m, m); P (m, k, k) = X'V^-1 G V^-1 X and Q (m, m, k, k) = X'V^-1 G V^-1 G V^-1 X; C = (X'V^-1X)^-1."""

    observed: Floats
    expected: Floats
    p: Floats
    q: Floats
    c: Floats
    score: Floats


class _Blocks:
    """Rows that share a level, directly or through others, have a covariance; rows of two blocks have none."""

    def __init__(self, x: Floats, y: Floats, factors: tuple[Factor, ...]) -> None:
        self.x, self.y, self.factors = x, y, factors
        block = _components(factors)
        size = np.bincount(block)
        if size.max() > BLOCK:
            raise Inapplicable(
                f"{size.max()} rows share levels of {', '.join(f.name for f in factors)}: too many for degrees of "
                f"freedom (at most {BLOCK}). Ask for df='normal'."
            )
        order = np.argsort(block, kind="stable")
        start = np.concatenate([[0], np.cumsum(size)[:-1]])
        self.rows = [order[start[size == s][:, None] + np.arange(s)] for s in np.unique(size)]

    def directions(self, rows: NDArray[np.int64], free: list[tuple[int, int, int]]) -> list[Floats]:
        """G, the derivative of V by each free variance, stacked over blocks (c, s, s); the last is sigma2's."""
        out = []
        for i, a, b in free:
            f = self.factors[i]
            level = f.level[rows]
            same = level[:, :, None] == level[:, None, :]
            one, two = f.z[rows][..., a], f.z[rows][..., b]
            product = one[:, :, None] * two[:, None, :]
            out.append(np.where(same, product if a == b else product + product.swapaxes(1, 2), 0.0))
        out.append(np.broadcast_to(np.eye(rows.shape[1]), (len(rows), rows.shape[1], rows.shape[1])))
        return out

    def moments(self, psi: list[Floats], sigma2: float, free: list[tuple[int, int, int]], reml: bool) -> _Moments:
        m, k = len(free) + 1, self.x.shape[1]
        values = np.array([*(psi[i][a, b] for i, a, b in free), sigma2])
        trace, xvx, xvy = np.zeros((m, m)), np.zeros((k, k)), np.zeros(k)
        p, q, first = np.zeros((m, k, k)), np.zeros((m, m, k, k)), np.zeros(m)
        kept = []
        for rows in self.rows:
            g = self.directions(rows, free)
            v = sum(value * one for value, one in zip(values, g, strict=True))
            vi = np.linalg.inv(v)
            x, y = self.x[rows], self.y[rows]
            vx = vi @ x
            xvx += np.einsum("cij,cil->jl", x, vx)
            xvy += np.einsum("cij,ci->j", vx, y)
            h = [vi @ one for one in g]
            gx = [one @ vx for one in g]
            for i in range(m):
                first[i] += np.einsum("cii->", h[i])
                p[i] += np.einsum("cij,cil->jl", vx, gx[i])
                for j in range(i + 1):
                    trace[i, j] += np.einsum("cij,cji->", h[i], h[j])
                    q[i, j] += np.einsum("cij,cil->jl", gx[i], vi @ gx[j])
            kept.append((g, vi, y, vx))
        c: Floats = np.asarray(np.linalg.inv(xvx), dtype=np.float64)
        gamma = c @ xvy
        score, quad, xu = np.zeros(m), np.zeros((m, m)), np.zeros((m, k))
        for g, vi, y, vx in kept:
            r = np.einsum("cij,cj->ci", vi, y) - vx @ gamma
            u = [np.einsum("cij,cj->ci", one, r) for one in g]
            vu = [np.einsum("cij,cj->ci", vi, one) for one in u]
            for i in range(m):
                score[i] += float((r * u[i]).sum())
                xu[i] += np.einsum("cij,ci->j", vx, u[i])
                for j in range(i + 1):
                    quad[i, j] += float((u[i] * vu[j]).sum())
        low = np.tril_indices(m, -1)
        trace.T[low], quad.T[low] = trace[low], quad[low]
        for i in range(m):
            for j in range(i):
                q[j, i] = q[i, j].T
        quad -= xu @ c @ xu.T
        cp = c @ p
        if reml:
            trace += np.einsum("iab,jba->ij", cp, cp) - 2 * np.einsum("ab,ijba->ij", c, q)
            first -= np.einsum("iaa->i", cp)
        observed = quad - trace / 2
        try:
            inverse: Floats = np.asarray(np.linalg.inv(observed), dtype=np.float64)
        except np.linalg.LinAlgError:
            inverse = np.full((m, m), np.nan)
        expected = np.asarray(np.linalg.pinv(trace / 2), dtype=np.float64)
        return _Moments(inverse, expected, p, q, c, (score - first) / 2)

    def polish(self, psi: list[Floats], sigma2: float, reml: bool) -> tuple[list[Floats], float, _Moments, bool]:
        """Newton steps to the maximum, of the variances that are not at their bound."""
        free = [
            (i, a, b)
            for i, one in enumerate(psi)
            for a in range(len(one))
            for b in range(a + 1)
            if min(one[a, a], one[b, b]) > BOUND * sigma2 / max(float((self.factors[i].z ** 2).mean()), 1e-300)
        ]
        psi = [p.copy() for p in psi]
        singular = any(_singular(p / sigma2) and len(p) > 1 for p in psi)
        for _ in range(8):
            found = self.moments(psi, sigma2, free, reml)
            eigen = np.linalg.eigvalsh(found.observed) if np.isfinite(found.observed).all() else np.array([-1.0])
            if eigen[0] <= 0:  # at a bound the top need not be round: what is expected of it stands in
                return psi, sigma2, replace(found, observed=found.expected), singular
            step = found.observed @ found.score
            if float(step @ found.score) < 1e-18 * len(self.y) or singular:
                break
            values = np.array([*(psi[i][a, b] for i, a, b in free), sigma2]) + step
            new = [p.copy() for p in psi]
            for (i, a, b), value in zip(free, values, strict=False):
                new[i][a, b] = new[i][b, a] = value
            if values[-1] <= 0 or any(np.linalg.eigvalsh(p)[0] < 0 for p in new):
                break  # a step over the bound: what the deviance found stays
            psi, sigma2 = new, float(values[-1])
        return psi, sigma2, found, True


def _components(factors: tuple[Factor, ...]) -> NDArray[np.int64]:
    """One code for all rows that share a level of any factor, directly or through other rows."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    block: NDArray[Any] = factors[0].level
    for f in factors[1:]:
        rows, columns = int(block.max()) + 1, int(f.level.max()) + 1
        pairs = sparse.coo_array((np.ones(len(block)), (block, rows + f.level)), shape=(rows + columns, rows + columns))
        block = connected_components(pairs.tocsr(), directed=False)[1][block]
        block = np.unique(block, return_inverse=True)[1]
    return np.asarray(block, dtype=np.int64)


def satterthwaite(found: Mixed, contrast: Floats) -> tuple[float, float]:
    """F and its denominator's degrees of freedom of contrast @ beta = 0, (q, k).

    One row: 2 v^2 / (g' A g), v its variance, g its gradient by the variances, A their covariance; more rows: by the
    eigenvectors of the contrast's covariance (Kuznetsova, Brockhoff and Christensen 2017, J Stat Softw 82(13), 3.2).
    """
    moments = _need(found)
    vcov = contrast @ found.vcov @ contrast.T
    values, vectors = np.linalg.eigh(vcov)
    if values[0] <= 1e-14 * values[-1]:
        raise Inapplicable(f"a joint test of {len(contrast)} restrictions that depend on each other.")
    rows = vectors.T @ contrast @ found.basis
    statistic = float(((vectors.T @ contrast @ found.beta) ** 2 / values).sum()) / len(contrast)
    dfs = []
    for row in rows:
        left = row @ moments.c
        gradient = np.array([left @ p @ left for p in moments.p])
        dfs.append(2 * float(row @ moments.c @ row) ** 2 / float(gradient @ moments.observed @ gradient))
    return statistic, joined(np.array(dfs))


def joined(df: Floats) -> float:
    """Degrees of freedom of the mean of independent squared t's, from theirs."""
    if len(df) == 1 or np.ptp(df) < 1e-8 * df.max():
        return float(df.mean())
    if df.min() <= 2:
        return 2.0
    total = float((df / (df - 2)).sum())
    return 2 * total / (total - len(df))


def kenward_roger(found: Mixed) -> Floats:
    """The covariance (k, k) of the coefficients with what estimating the variances adds (Kenward and Roger 1997,
    Biometrics 53:983, equation 3, for a covariance linear in its parameters)."""
    moments = _need(found)
    c, w, p, q = moments.c, moments.expected, moments.p, moments.q
    inner = np.einsum("ij,ijab->ab", w, q) - np.einsum("ij,iab,bc,jcd->ad", w, p, c, p)
    return np.asarray(found.basis @ (c + 2 * c @ inner @ c) @ found.basis.T)


def kenward_roger_test(found: Mixed, adjusted: Floats, contrast: Floats) -> tuple[float, float]:
    """F, scaled, and its denominator's degrees of freedom of contrast @ beta = 0 (Kenward and Roger 1997, 3)."""
    moments = _need(found)
    rows, k = contrast @ found.basis, len(contrast)
    c, w = moments.c, moments.expected
    m = rows.T @ np.linalg.inv(rows @ c @ rows.T) @ rows
    mcpc = np.array([m @ c @ p @ c for p in moments.p])
    trace = np.einsum("iaa->i", mcpc)
    a1 = float(trace @ w @ trace)
    a2 = float(np.einsum("ij,iab,jba->", w, mcpc, mcpc))
    b = (a1 + 6 * a2) / (2 * k)
    g = ((k + 1) * a1 - (k + 4) * a2) / ((k + 2) * a2)
    share = 3 * k + 2 * (1 - g)
    c1, c2, c3 = g / share, (k - g) / share, (k + 2 - g) / share
    mean = 1 / (1 - a2 / k)
    spread = 2 / k * (1 + c1 * b) / ((1 - c2 * b) ** 2 * (1 - c3 * b))
    rho = spread / (2 * mean**2)
    df = 4 + (k + 2) / (k * rho - 1)
    r = contrast @ found.beta
    wald = float(r @ np.linalg.solve(contrast @ adjusted @ contrast.T, r)) / k
    return wald * df / (mean * (df - 2)), df


def _need(found: Mixed) -> _Moments:
    if found.moments is None:
        raise Inapplicable("no information about the variances was asked for.")
    return found.moments
