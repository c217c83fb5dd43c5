"""Multiple imputation by chained equations, around any model of a frame; results put together by Rubin's rules.

`impute` fills each column with missing values from a regression on all others, in turn, with parameters drawn anew
(van Buuren 2018, Flexible Imputation of Missing Data, algorithms 3.1, 3.3 and 4.3): predictive mean matching takes the
answer of one of five persons with the nearest prediction, so what is filled in is an answer that was given. Waves are
columns of their own, so every wave has its mean in every level. `pool` is Rubin (1987, Multiple Imputation for
Nonresponse in Surveys, 3.1) with the degrees of freedom of Barnard and Rubin (1999, Biometrika 86:948).

Right where what is missing depends on what was seen (missing at random). Areas have no effect of their own in the
equations.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import gee, mixed_logit, mixed_model, random_effects, within_person
from biglocal.estimators._waves import Of, people, weighed
from biglocal.model import DataError, Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Method = Literal["pmm", "normal"]
MODELS = {  # imported by name, so that their code counts in the digest of what is imputed
    "mixed_model": mixed_model.estimate, "within_person": within_person.estimate,
    "random_effects": random_effects.estimate, "gee": gee.estimate, "mixed_logit": mixed_logit.estimate,
}  # fmt: skip
DONORS = 5
RIDGE = 1e-5  # share of the predictors' variance added to it: collinear predictors still predict (mice's default)
MUCH = 0.5  # a share of missing information from which on the result hangs on the imputation


def estimate(
    sample: Sample,
    *,
    of: Of = "change",
    model: Literal["mixed_model", "within_person", "random_effects", "gee", "mixed_logit"] = "mixed_model",
    adjust: bool = False,
    imputations: int = 20,
    iterations: int = 10,
    method: Method = "pmm",
    seed: int = 1,
) -> Fit:
    """The terms of `model`, pooled. A row is a person and wave; y is missing where there is no answer, and so may be d
    and covariates that are numbers.

    Level and covariates tell what is missing; the model adjusts for the covariates where `adjust`. `facts`:
    `missing_information` (term, period, level) -> share, `imputed` (outcomes filled in). Where more than half of the
    information on a term is missing the caution says so. The same draws whatever the order of rows.

    Raises `Inapplicable` as the model does, where no outcome is missing, for a wave without any answer, and for missing
    values in covariates that are not numbers.
    """
    frame = weighed(sample).frame.sort_values(["unit", "time"], kind="stable")
    frame = frame.reset_index(drop=True)
    filled = ["y", *(["d"] if of == "association" and "d" in frame else [])]
    missing = int(frame["y"].isna().sum())
    if not frame[[*filled, *sample.covariates]].isna().any(axis=None):
        raise Inapplicable("nothing is missing: multiple imputation would do nothing. Use the model itself.")
    if frame.duplicated(["unit", "time"]).any():
        raise Inapplicable("a person has two rows in a wave: keep one.")
    if model not in MODELS:
        raise Inapplicable(f"no model '{model}'. Choose from {', '.join(MODELS)}.")
    function = MODELS[model]
    kept = sample.covariates if adjust else ()
    copies = _filled(frame, filled, sample.covariates, imputations, iterations, method, seed)
    done = pool([function(replace(sample, frame=f, covariates=kept, caution=""), of=of) for f in copies])
    share = max(done.facts["missing_information"].values(), default=0.0)
    much = (
        f"Up to {share:.0%} of the information on a term is missing, filled in by the imputation."
        if share > MUCH
        else ""
    )
    persons = people(frame)
    return replace(
        done,
        n_obs=len(frame) - missing,  # answers seen, not those filled in
        n_units=persons["n_units"],
        n_treated=persons["n_treated"],
        caution=" ".join(filter(None, [sample.caution, much, done.caution])),
        facts={**done.facts, "imputed": missing, "model": model},
    )


def fit(
    frame: pd.DataFrame,
    model: Callable[[pd.DataFrame], Fit],
    *,
    imputations: int = 20,
    iterations: int = 10,
    method: Method = "pmm",
    seed: int = 1,
) -> Fit:
    """`model` fitted to every completed copy of `frame` and pooled: any function from a frame to a fit.

    Name in `frame` only the columns that are to predict or be filled in. Raises as `impute` and `pool` do.
    """
    completed = impute(frame, imputations=imputations, iterations=iterations, method=method, seed=seed)
    return pool([model(f) for f in completed])


def impute(
    frame: pd.DataFrame, *, imputations: int = 20, iterations: int = 10, method: Method = "pmm", seed: int = 1
) -> list[pd.DataFrame]:
    """Copies of `frame` without missing values. Columns that are not numbers predict, as indicators.

    Raises `DataError` for missing values in a column that is not a number, a column without any value, and fewer than
    two imputations.
    """
    import pandas as pd

    if imputations < 2:
        raise DataError(f"{imputations} imputations: their variance needs two or more.")
    if method not in ("pmm", "normal"):
        raise DataError(f"no imputation method '{method}'. Choose from pmm, normal.")
    holes, blocks = [], {}
    for name in frame.columns:
        column = frame[name]
        number = pd.api.types.is_numeric_dtype(column.dtype)
        absent = column.isna().to_numpy()
        if absent.all():
            raise DataError(f"column {name} has no value at all: nothing can be learnt from it.")
        if absent.any() and not number:
            raise DataError(f"column {name} is not a number and is missing in {int(absent.sum())} rows: fill it in.")
        if absent.any():
            holes.append((name, absent))
        if number:
            blocks[name] = column.to_numpy(dtype=float, na_value=np.nan)[:, None]
        else:
            text = column.astype(str).to_numpy()
            found = np.unique(text)[1:]
            blocks[name] = (text[:, None] == found).astype(float)
    holes.sort(key=lambda h: int(h[1].sum()))  # the fullest first, as the simplest order that matters little
    rng = np.random.default_rng([seed, zlib.crc32(b"multiple_imputation")])
    out = []
    for _ in range(imputations):
        now = {name: block.copy() for name, block in blocks.items()}
        for name, absent in holes:
            now[name][absent, 0] = rng.choice(now[name][~absent, 0], int(absent.sum()))
        for _ in range(iterations if len(holes) > 1 else 1):
            for name, absent in holes:
                x = np.hstack([np.ones((len(frame), 1)), *(b for n, b in now.items() if n != name)])
                now[name][absent, 0] = _draw(now[name][:, 0], x, absent, method, rng)
        out.append(frame.assign(**{name: now[name][:, 0] for name, _ in holes}))
    return out


def _draw(y: Floats, x: Floats, absent: NDArray[np.bool_], method: Method, rng: np.random.Generator) -> Floats:
    """Values for the rows `absent` from a Bayesian regression on the others (van Buuren 2018, algorithms 3.1, 3.3)."""
    seen, target = x[~absent], y[~absent]
    gram = seen.T @ seen
    gram[np.diag_indices_from(gram)] *= 1 + RIDGE
    scale = 1 / np.sqrt(np.maximum(np.diag(gram), 1e-300))
    inverse = np.linalg.pinv(gram * np.outer(scale, scale), hermitian=True) * np.outer(scale, scale)
    beta = inverse @ (seen.T @ target)
    residual = target - seen @ beta
    free = max(len(target) - x.shape[1], 1)
    sd = np.sqrt(float(residual @ residual) / rng.chisquare(free))
    values, vectors = np.linalg.eigh(inverse)
    # the symmetric root: that of eigenvectors alone has their signs, which differ from one build of LAPACK to the next
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    drawn = beta + sd * root @ rng.standard_normal(len(beta))
    if method == "normal":
        return np.asarray(x[absent] @ drawn + sd * rng.standard_normal(int(absent.sum())))
    # rounded far below what tells persons apart: equals stay equal whatever the order in which a build adds up
    unit = 1e-9 * max(float(np.abs(target).max()), 1e-300)
    fitted, wanted = np.round(seen @ beta / unit), np.round(x[absent] @ drawn / unit)
    order = np.argsort(fitted, kind="stable")
    near = fitted[order]
    donors = min(DONORS, len(near))
    # the five nearest are among the five on either side
    place = np.searchsorted(near, wanted)[:, None] + np.arange(-donors, donors)
    distance = np.where(
        (place >= 0) & (place < len(near)), np.abs(near[place.clip(0, len(near) - 1)] - wanted[:, None]), np.inf
    )
    chosen = np.argsort(distance, axis=1, kind="stable")[np.arange(len(wanted)), rng.integers(0, donors, len(wanted))]
    return np.asarray(target[order][place[np.arange(len(wanted)), chosen]])


def pool(fits: Sequence[Fit]) -> Fit:
    """One fit from those of completed copies, term by term. `df` of each term is taken as that of complete data.

    Joint tests are put together by D2 of Li, Meng, Raghunathan and Rubin (1991, Stat Sinica 1:65). Raises
    `Inapplicable` where fits differ in their terms or there are fewer than two.
    """
    if len(fits) < 2:
        raise Inapplicable(f"{len(fits)} fit: Rubin's rules need two or more.")
    keys = [[(t.name, t.period, t.level) for t in f.terms] for f in fits]
    if any(k != keys[0] for k in keys):
        raise Inapplicable("the completed copies gave different terms.")
    terms, information = [], {}
    for i, key in enumerate(keys[0]):
        one = [f.terms[i] for f in fits]
        terms.append(_pooled(one))
        if one[0].std_error > 0:
            error = np.array([t.std_error for t in one])
            between = float(np.var([t.estimate for t in one], ddof=1)) * (1 + 1 / len(one))
            r, df = between / float((error**2).mean()), terms[-1].df
            information[key] = (r + 2 / (df + 3)) / (r + 1) if np.isfinite(df) else r / (r + 1)
    said = [f.caution for f in fits if f.caution]
    cautions = [f"{c} (In {said.count(c)} of {len(fits)} imputations.)" for c in sorted(set(said))]
    first = fits[0]
    counts = (first.n_obs, first.n_units, first.n_treated, first.n_clusters)
    facts = {
        "convention": f"{first.facts.get('convention', '')}; Rubin's rules, df after Barnard and Rubin",
        "imputations": len(fits),
        "missing_information": information,
    }
    return Fit(tuple(terms), *counts, caution=" ".join(cautions), facts=facts)


def _pooled(one: list[Term]) -> Term:
    m, first = len(one), one[0]
    if first.df_num is not None:
        return _joint(one)
    values = np.array([t.estimate for t in one])
    if not first.std_error > 0:  # no sampling error of its own: the middle of the copies, in logs for a ratio
        ratio = first.name == "odds_ratio"
        return replace(first, estimate=float(np.exp(np.log(values).mean()) if ratio else values.mean()))
    within = float((np.array([t.std_error for t in one]) ** 2).mean())
    between = float(values.var(ddof=1)) * (1 + 1 / m)
    complete = float(np.mean([t.df for t in one]))
    return replace(
        first,
        estimate=float(values.mean()),
        std_error=float(np.sqrt(within + between)),
        df=barnard_rubin(m, between / (within + between), complete),
    )


def barnard_rubin(imputations: int, share: float, complete: float) -> float:
    """Degrees of freedom of a pooled estimate (Barnard and Rubin 1999, equation 3): `share` of the total variance that
    is due to the missing values, (1 + 1/m) B / T, and the degrees of freedom there would be without them."""
    old = (imputations - 1) / share**2 if share > 0 else np.inf
    seen = (complete + 1) / (complete + 3) * complete * (1 - share) if np.isfinite(complete) else np.inf
    left = 1 / old + 1 / seen
    return float(1 / left) if left > 0 else np.inf


def _joint(one: list[Term]) -> Term:
    m, k = len(one), one[0].df_num or 1
    d = k * np.array([t.statistic for t in one])
    r = (1 + 1 / m) * float(np.sqrt(d).var(ddof=1))
    statistic = (float(d.mean()) / k - (m + 1) / (m - 1) * r) / (1 + r)
    df = k ** (-3 / m) * (m - 1) * (1 + 1 / r) ** 2 if r > 0 else float(np.mean([t.df for t in one]))
    return replace(one[0], statistic=max(statistic, 0.0), df=df)


def _filled(
    frame: pd.DataFrame,
    names: list[str],
    covariates: Sequence[str],
    imputations: int,
    iterations: int,
    method: Method,
    seed: int,
) -> list[pd.DataFrame]:
    """Completed copies of a frame of persons and waves: imputed with a row a person, a column a wave."""
    import pandas as pd

    persons = frame.groupby("unit", sort=True)
    wide = pd.DataFrame({"level": persons["level"].first().astype(str)})
    place: dict[tuple[str, int], str] = {}
    for name in (*names, *covariates):
        numeric = pd.api.types.is_numeric_dtype(frame[name].dtype)
        fixed = name in covariates and bool((persons[name].nunique() <= 1).all())
        if fixed:
            wide[name] = persons[name].first()
            continue
        if not numeric:
            raise Inapplicable(f"the covariate {name} is not a number and changes within persons: leave it out.")
        for t, rows in frame.groupby("time", sort=True):
            place[name, int(str(t))] = f"{name} {t}"
            wide[f"{name} {t}"] = rows.set_index("unit")[name].astype(float)
    steady = [c for c in covariates if c in wide]
    empty = [c for c in wide if wide[c].isna().all()]
    if empty:
        raise Inapplicable(f"no value of {empty[0]}: nothing can be learnt of it.")
    try:
        completed = impute(wide, imputations=imputations, iterations=iterations, method=method, seed=seed)
    except DataError as e:
        raise Inapplicable(str(e)) from None
    out = []
    for copy in completed:
        new = {c: frame["unit"].map(copy[c]) for c in steady}
        for name in {n for n, _ in place}:
            new[name] = frame[name].astype(float)
            for t in {t for n, t in place if n == name}:
                here = (frame["time"] == t) & frame[name].isna()
                new[name] = new[name].mask(here, frame["unit"].map(copy[place[name, t]]))
        out.append(frame.assign(**new))
    return out
