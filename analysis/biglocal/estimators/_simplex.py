"""Weights on the simplex: least |A x - b|^2 + eta |x|^2 over x >= 0 with sum one, exactly or as synthdid stops.

A is (m, n), b (m,), x (n,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def exact(a: Floats, b: Floats, eta: float) -> Floats:
    """The solution, to rounding: by its dual where the ridge shapes it, else by active sets.

    With a ridge most x may be positive, and the dual has only m unknowns; with next to none, few are, and they
    enter one by one.
    """
    m, n = a.shape
    if m > n + 1:  # rows beyond n + 1 add a constant only
        r = np.asarray(np.linalg.qr(np.column_stack([a, b]), mode="r"), dtype=float)
        a, b = r[:, :n], r[:, n]
    size = float((a**2).sum()) / n
    if eta > 1e-6 * size:
        x, nu, ridge = np.full(n, 1 / n), b - a.mean(axis=1), max(eta, size)
        while True:  # from a strong ridge down to the one asked, so that steps start near their end
            x, nu = _dual(a, b, ridge, nu)
            if ridge == eta:
                break
            ridge = max(eta, ridge / 10)
        slope = a.T @ (a @ x - b) + eta * x
        if slope @ x - slope.min() <= 1e-10 * (n * size + float(b @ b)):
            return x
    return _active(a, b, eta)


def _project(v: Floats) -> Floats:
    """The nearest point of the simplex."""
    u = np.sort(v)[::-1]
    excess = (np.cumsum(u) - 1) / np.arange(1, len(u) + 1)
    return np.asarray(np.maximum(v - excess[np.flatnonzero(u > excess)[-1]], 0))


def _dual(a: Floats, b: Floats, eta: float, nu: Floats) -> tuple[Floats, Floats]:
    """Newton steps on the dual, from `nu`: nu is the residual b - A x, and x the projection of A'nu / eta.

    The dual is concave, once differentiable and quadratic in pieces, so damped Newton steps end in the right piece.
    """

    def at(nu: Floats) -> tuple[float, Floats]:
        x = _project(a.T @ nu / eta)
        return float(nu @ b - nu @ nu / 2 + eta * (x @ x) / 2 - nu @ (a @ x)), x

    value, x = at(nu)
    scale = float(np.sqrt(b @ b)) + float(np.abs(a).max())
    for _ in range(200):
        slope = b - nu - a @ x
        if np.sqrt(slope @ slope) <= 1e-13 * scale:
            break
        inside = a[:, x > 0]
        centred = inside - inside.mean(axis=1)[:, None]
        step = np.linalg.solve(np.eye(len(b)) + centred @ centred.T / eta, slope)
        gain, length = float(slope @ step), 1.0
        while length > 1e-10:
            moved, there = at(nu + length * step)
            if moved >= value + 1e-4 * length * gain - 1e-15 * abs(value):
                break
            length /= 2
        else:
            break
        nu, value, x = nu + length * step, moved, there
    return x, nu


def _active(a: Floats, b: Floats, eta: float) -> Floats:
    """Lawson and Hanson's active sets with a sum of one, started from the best single column."""
    n = a.shape[1]
    x = np.zeros(n)
    inside = [int(np.argmin(((a - b[:, None]) ** 2).sum(axis=0)))]
    x[inside] = 1
    scale = float((a**2).sum(axis=0).max()) + float(b @ b) + eta
    for _ in range(20 * n):
        while True:
            target = _on_face(a[:, inside], b, eta)
            if (target > 0).all():
                break
            now = x[inside]
            with np.errstate(divide="ignore", invalid="ignore"):
                reach = np.where(target <= 0, now / (now - target), np.inf)
            stop = int(np.argmin(reach))
            x[inside] = now + reach[stop] * (target - now)
            x[inside[stop]] = 0
            del inside[stop]
        x[:] = 0
        x[inside] = target
        slope = a.T @ (a @ x - b) + eta * x
        level = float(slope @ x)  # the slope of every column inside
        new = int(np.argmin(slope))
        if new in inside or slope[new] > level - 1e-13 * scale:
            break
        inside.append(new)
    return x


def _on_face(a: Floats, b: Floats, eta: float) -> Floats:
    """The minimum over all x that sum to one, whatever their signs, over these columns alone."""
    k = a.shape[1]
    if k == 1:
        return np.ones(1)
    basis = np.vstack([np.eye(k - 1), -np.ones(k - 1)])  # directions that keep the sum
    last = np.zeros(k)
    last[-1] = 1
    root = np.sqrt(eta) * np.eye(k)
    z = np.linalg.lstsq(np.vstack([a @ basis, root @ basis]), np.concatenate([b - a[:, -1], -root @ last]), rcond=None)
    return np.asarray(last + basis @ z[0])


def frank_wolfe(a: Floats, b: Floats, eta: float, x: Floats, decrease: float, steps: int) -> Floats:
    """Frank-Wolfe with exact line search from `x`, as synthdid: it stops once a step gains no more than `decrease`^2.

    The gain is of the objective over m.
    """
    m = len(b)
    x, ax = x.copy(), a @ x
    before = np.inf
    for i in range(steps):
        half = (ax - b) @ a + eta * x
        best = int(np.argmin(half))
        toward = -x
        toward[best] += 1
        moved = a[:, best] - ax
        curve = float(moved @ moved) + eta * float(toward @ toward)
        if curve > 0:
            length = min(1.0, max(0.0, -float(half @ toward) / curve))
            x, ax = x + length * toward, ax + length * moved
        value = (eta * float(x @ x) + float((ax - b) @ (ax - b))) / m
        if i >= 1 and before - value <= decrease**2:
            break
        before = value
    return x


def sparse(x: Floats) -> Floats:
    """Weights up to a quarter of the largest set to nought, the rest scaled to one: synthdid's default."""
    x = np.where(x <= x.max() / 4, 0, x)
    return np.asarray(x / x.sum())
