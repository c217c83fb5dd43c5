"""Change standardised to who was reached first: marginal standardisation, or g-computation, in a linear model.

Where change differs between groups that do not answer alike, a model without the groups gives the change of those who
answered. Here each wave's change may differ by level and by every covariate, and the changes so modelled are averaged
over the persons of the sample, whether they answered in that wave or not (Lane and Nelder 1982, Biometrics 38:613;
Robins 1986, Math Modelling 7:1393). These persons are themselves a draw: the error adds, to that of the model for
persons as they are, that of their composition, by areas (Bartlett 2018, Pharm Stat 17:648, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators._effects import regressors
from biglocal.estimators._waves import Model, Of, Test, model
from biglocal.estimators._within import codes, sums
from biglocal.model import Inapplicable, Sample, Term

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Standardised:
    """`seen`: the sample's rows with an outcome; `model`: its regressors, terms as averaged over all persons; `scores`,
    (persons, k) of each row of a term's contrast: what each person's own adds to the average; `area` (persons,)."""

    seen: Sample
    model: Model
    scores: tuple[tuple[Floats, ...], ...]
    area: NDArray[np.int64]

    def terms(
        self,
        beta: Floats,
        vcov: Floats,
        test: Test,
        joined: Callable[[Floats], float],
    ) -> tuple[Term, ...]:
        """The terms, as `_waves.terms`, with the error of the composition added.

        Degrees of freedom of a sum of variances are Welch's, the composition's being areas less one; of more rows
        `joined` makes one of those of their independent parts.
        """
        areas = int(self.area.max()) + 1
        factor = areas / (areas - 1)
        out = []
        for (term, contrast), scores in zip(self.model.wanted, self.scores, strict=True):
            if contrast is None:
                out.append(term)
                continue
            parts = np.column_stack([sums(self.area, s @ beta) for s in scores])
            own, composed = contrast @ vcov @ contrast.T, factor * parts.T @ parts
            values, vectors = np.linalg.eigh(own + composed)
            if values[0] <= 1e-14 * values[-1]:
                raise Inapplicable(f"a joint test of {len(contrast)} restrictions that depend on each other.")
            dfs = []
            for v in vectors.T:
                one, two = float(v @ own @ v), float(v @ composed @ v)
                dfs.append((one + two) ** 2 / (one**2 / test(v[None] @ contrast)[1] + two**2 / (areas - 1)))
            found, df = contrast @ beta, joined(np.array(dfs))
            if len(contrast) == 1:
                out.append(replace(term, estimate=float(found[0]), std_error=float(np.sqrt(values[0])), df=df))
            else:
                statistic = float(((vectors.T @ found) ** 2 / values).sum()) / len(contrast)
                out.append(replace(term, statistic=statistic, df=df, df_num=len(contrast)))
        return tuple(out)


def standardised(sample: Sample, of: Of) -> Standardised:
    """The model of change by wave, level and covariate, from the rows with an outcome, averaged over all persons.

    A person's weight in the average is that of the first row. Raises `Inapplicable` where not change is asked, as
    `_waves.model`, for one area, and for a level or a covariate that changes within a person.
    """
    if of != "change":
        raise Inapplicable("standardisation is of change: an association is of the rows it is in.")
    frame = sample.frame.sort_values(["unit", "time"], kind="stable").reset_index(drop=True)
    seen = replace(sample, frame=frame[np.isfinite(frame["y"].to_numpy(dtype=float))].reset_index(drop=True))
    extra = regressors(frame, sample.covariates)
    unit, area = codes(frame["unit"]), codes(frame["cluster"])
    rows = np.unique(unit, return_index=True)[1]  # the first of each person
    if len(np.unique(area[rows])) < 2:
        raise Inapplicable("1 cluster: the error of who was reached needs at least two.")
    for name, values in {**extra, "level": codes(frame["level"])}.items():
        if not np.array_equal(values, values[rows][unit]):
            raise Inapplicable(f"{name} changes within a person: standardise over what persons keep.")
    plain = model(seen, of)
    waves = sorted({t.period for t, _ in plain.wanted if t.period is not None})
    here = np.isfinite(frame["y"].to_numpy(dtype=float))
    time = seen.frame["time"].to_numpy()
    columns = {n: v for n, v in plain.columns.items() if n not in extra} | {n: v[here] for n, v in extra.items()}
    products = {(n, t): f"{n} x wave {t}" for t in waves[1:] for n in extra}
    columns |= {called: extra[n][here] * (time == t) for (n, t), called in products.items()}
    names = list(columns)
    levels = sample.levels or ("",)
    weight = frame["weight"].to_numpy(dtype=float)[rows]
    level = frame["level"].to_numpy()[rows]

    def of_persons(name: str, wave: int) -> tuple[Floats, Floats]:
        """The contrast (k,) of a level's change in a wave, and each person's part in its average, (persons, k)."""
        inside = weight * (level == name) if sample.levels else weight
        own = np.zeros((len(rows), len(names)))
        own[:, names.index(f"wave {wave}" + (f" of {name}" if name else ""))] = 1
        for n in extra:
            own[:, names.index(products[n, wave])] = extra[n][rows]
        mean = inside @ own / inside.sum()
        return mean, (own - mean) * (inside / inside.sum())[:, None]

    found = {(k, t): of_persons(k, t) for k in levels for t in waves[1:]}
    wanted: list[tuple[Term, Floats | None]] = []
    scores: list[tuple[Floats, ...]] = []
    for term, contrast in plain.wanted:
        if contrast is None or term.period is None:
            wanted.append((term, None))
            scores.append(())
        elif term.name == "change":
            mean, own = found[term.level, term.period]
            wanted.append((term, mean[None]))
            scores.append((own,))
        else:
            base = found[levels[0], term.period]
            others = [found[k, term.period] for k in levels[1:]]
            wanted.append((term, np.vstack([mean - base[0] for mean, _ in others])))
            scores.append(tuple(own - base[1] for _, own in others))
    compact = np.unique(area[rows], return_inverse=True)[1].astype(np.int64)
    return Standardised(seen, Model(columns, tuple(wanted)), tuple(scores), compact)
