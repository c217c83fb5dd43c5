"""Response by wave: who was approached, who answered, who answered before."""

from __future__ import annotations

import numpy as np

from biglocal.model import Fit, Inapplicable, Sample, Term


def estimate(sample: Sample) -> Fit:
    """Terms with period = wave, of `frame.y` (1 for an answer, 0 for none), a row a person approached and wave.

    `approached`, `answered`, `new` (approached for the first time), `answered_first` (answered now and in the first
    wave), `answered_all` (answered in every wave so far): counts. `rate`: the share who answered;
    `rate_again`: the share of those who answered in the first wave and were approached again. Shares have errors
    clustered on `cluster` (ratio of sums, G/(G-1)), with G - 1 degrees of freedom. `frame.earlier` is 1 for who
    answered in the first wave.
    """
    frame = sample.frame
    if frame.empty:
        raise Inapplicable("nobody was approached.")
    first = int(frame["time"].min())
    began = frame.groupby("unit")["time"].transform("min")
    waves = sorted(int(t) for t in frame["time"].unique())
    terms: list[Term] = []
    for wave in waves:
        rows = frame[frame["time"] == wave]
        again = rows[rows["earlier"] == 1]
        so_far = frame[(frame["y"] == 1) & (frame["time"] <= wave)].groupby("unit").size()
        counts = {
            "approached": len(rows),
            "answered": int(rows["y"].sum()),
            "new": int((began[rows.index] == wave).sum()),
            "answered_first": int(again["y"].sum()),
            "answered_all": int((so_far == waves.index(wave) + 1).sum()),
        }
        terms += [
            Term(name, float(count), period=wave, tested=False, n_persons=count, n_least=count)
            for name, count in counts.items()
        ]
        for name, group in (("rate", rows), ("rate_again", again)):
            if name == "rate" or (wave > first and len(again)):  # none of the first wave may be left
                y, cluster = group["y"].to_numpy(dtype=float), group["cluster"].to_numpy()
                error, df = _error(y, cluster)
                least = min(int(y.sum()), len(y) - int(y.sum()))
                terms.append(
                    Term(
                        name, float(y.mean()), error, df, period=wave, tested=False, n_persons=len(y), n_least=least,
                    )
                )  # fmt: skip
    people = int(frame["unit"].nunique())
    return Fit(tuple(terms), len(frame), people, people, int(frame["cluster"].nunique()), caution=sample.caution)


def _error(y: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """Standard error of the mean of y (n,), clustered, and its degrees of freedom."""
    codes = np.unique(cluster, return_inverse=True)[1]
    groups = int(codes.max()) + 1
    if groups < 2:
        return float("nan"), float("nan")
    sums = np.bincount(codes, weights=y - y.mean())
    return float(np.sqrt(groups / (groups - 1) * sums @ sums) / len(y)), groups - 1.0
