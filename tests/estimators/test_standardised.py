"""Change standardised to who was reached first: statsmodels' mixed model averaged by hand, laws, planted changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import mixed_model
from biglocal.model import Fit, Inapplicable, Sample, Term

SHARE, GAIN = 0.4, {2018: 2.0, 2020: 0.5}  # of persons in the group that gains, and by how much


def reached(
    seed: int = 1, persons: int = 400, areas: int = 50, covariates: tuple[str, ...] = ("age", "role")
) -> Sample:
    """Officers gain and answer again more often, others neither: the change of all is SHARE times GAIN."""
    rng = np.random.default_rng(seed)
    area, officer = rng.integers(0, areas, persons), rng.random(persons) < SHARE
    age, woman = rng.normal(50, 10, persons), rng.random(persons) < 0.5
    own = 20 + 2 * rng.normal(size=persons) + rng.normal(size=areas)[area] * 0.4
    parts = []
    for t in (2016, 2018, 2020):
        y = own + GAIN.get(t, 0.0) * officer + rng.normal(size=persons)
        gone = (t > 2016) & (rng.random(persons) < np.where(officer, 0.2, 0.7))
        parts.append(pd.DataFrame({"unit": range(persons), "time": t, "cluster": area, "y": np.where(gone, np.nan, y)}))
    f = pd.concat(parts, ignore_index=True).assign(weight=1.0)
    f["role"], f["age"] = np.where(officer, "officer", "member")[f["unit"]], age[f["unit"]]
    f["level"] = np.where(woman, "women", "men")[f["unit"]]
    return Sample(f, "points", covariates=covariates)


def by_term(fit: Fit) -> dict[tuple[str, int | None, str], tuple[float, float, float, float]]:
    return {(t.name, t.period, t.level): (t.estimate, t.std_error, t.statistic, t.df) for t in fit.terms}


def at(fit: Fit, period: int, level: str = "") -> Term:
    return next(t for t in fit.terms if (t.name, t.period, t.level) == ("change", period, level))


def test_an_average_over_all_persons_of_statsmodels_mixed_model() -> None:
    import statsmodels.formula.api as smf

    s = reached(persons=150)
    s = replace(s, frame=s.frame.assign(cluster=s.frame["unit"]))  # areas of one person: no effect of theirs
    seen = s.frame.dropna(subset=["y"]).assign(age=lambda f: f["age"] - 50, wave=lambda f: f["time"].astype(str))
    whole = s.frame[s.frame["time"] == 2016].assign(age=lambda f: f["age"] - 50)
    fitted: Any = smf.mixedlm("y ~ wave * (age + role)", seen, groups="unit").fit(reml=True, gtol=1e-10)
    names = list(fitted.fe_params.index)
    x, same = fitted.model.exog, seen["unit"].to_numpy()[:, None] == seen["unit"].to_numpy()
    v = fitted.scale * np.eye(len(x)) + float(fitted.cov_re.iloc[0, 0]) * same
    vcov = np.linalg.inv(x.T @ np.linalg.solve(v, x))
    found = mixed_model.estimate(s, standardise=True)
    for t in (2018, 2020):
        own = np.zeros((len(whole), len(names)))
        wave = f"wave[T.{t}]"
        own[:, names.index(wave)] = 1
        own[:, names.index(f"{wave}:age")] = whole["age"]
        own[:, names.index(f"{wave}:role[T.officer]")] = whole["role"] == "officer"
        mean, n = own.mean(axis=0), len(whole)
        each = (own - mean) @ fitted.fe_params.to_numpy()
        variance = mean @ vcov @ mean + each.var(ddof=1) / n
        assert at(found, t).estimate == pytest.approx(mean @ fitted.fe_params.to_numpy(), rel=1e-5)
        assert at(found, t).std_error == pytest.approx(variance**0.5, rel=1e-4)


def test_without_covariates_it_is_the_mixed_model_itself() -> None:
    for levels in ((), ("men", "women")):
        s = replace(reached(covariates=()), levels=levels)
        plain = mixed_model.estimate(replace(s, frame=s.frame.dropna(subset=["y"])))
        one, two = by_term(plain), by_term(mixed_model.estimate(s, standardise=True))
        assert one.keys() == two.keys()
        for key in one:
            assert two[key] == pytest.approx(one[key], rel=1e-8, nan_ok=True)


def test_a_group_of_persons_seen_throughout_gives_the_spread_of_plain_means() -> None:
    """The error of the model and that of the composition are together that of a mean of changes of all persons."""
    s = reached(seed=3, persons=900, covariates=("role",))
    f = s.frame.assign(cluster=s.frame["unit"])
    rng = np.random.default_rng(5)
    f["y"] = (
        rng.normal(size=900)[f["unit"]] + rng.normal(size=len(f)) + 4.0 * (f["role"] == "officer") * (f["time"] > 2016)
    )
    f = f[f["time"] < 2020]
    found = at(mixed_model.estimate(replace(s, frame=f), standardise=True), 2018)
    wide = f.pivot_table(index="unit", columns="time", values="y")
    change = wide[2018] - wide[2016]
    assert found.estimate == pytest.approx(change.mean(), rel=1e-9)
    assert found.std_error == pytest.approx(change.std(ddof=1) / 900**0.5, rel=3e-3)
    assert found.std_error > 1.3 * at(mixed_model.estimate(replace(s, frame=f, covariates=())), 2018).std_error / 1.5


def test_intervals_hold_the_change_of_all_where_those_of_the_model_without_groups_do_not() -> None:
    """60 surveys; the binomial bound at 99.9%."""
    from biglocal import inference

    held, plain_held, off = 0, 0, []
    for seed in range(60):
        s = reached(1000 + seed, persons=250, areas=30, covariates=("role",))
        plain = replace(s, frame=s.frame.dropna(subset=["y"]), covariates=())
        for sample, standardise in ((s, True), (plain, False)):
            fit = mixed_model.estimate(sample, standardise=standardise)
            done = inference.cluster(mixed_model.estimate, sample, fit, np.random.default_rng(0), conf_level=0.95)
            term = at(done, 2018)
            inside = term.conf_low <= SHARE * GAIN[2018] <= term.conf_high
            if standardise:
                held += inside
                off.append((term.estimate - SHARE * GAIN[2018]) / term.std_error)
            else:
                plain_held += inside
    assert held >= 50
    assert plain_held < 30
    assert abs(np.mean(off)) < 3.3 / 60**0.5


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.sample(frac=1, random_state=2).set_axis(f.index * 3 + 1), id="shuffle, another index"),
        pytest.param(lambda f: f.assign(unit=1000 - f["unit"], cluster=f["cluster"].astype(str)), id="relabel"),
        pytest.param(lambda f: f.assign(weight=3.0), id="scale weights"),
        pytest.param(lambda f: f.assign(age=40 - 100 * f["age"]), id="covariate on another scale"),
    ],
)
def test_nothing_moves(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    s = replace(reached(), levels=("men", "women"))
    before = s.frame.copy()
    one = by_term(mixed_model.estimate(s, standardise=True))
    two = by_term(mixed_model.estimate(replace(s, frame=change(s.frame)), standardise=True))
    pd.testing.assert_frame_equal(s.frame, before)
    assert one.keys() == two.keys()
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-6, abs=1e-8, nan_ok=True)


def test_levels_and_the_tests_between_them() -> None:
    s = replace(reached(), levels=("men", "women"))
    found = by_term(mixed_model.estimate(s, standardise=True))
    for t in (2018, 2020):
        gap = found["change", t, "women"][0] - found["change", t, "men"][0]
        assert found["difference", t, ""][0] == pytest.approx(gap)
    # one row of a joint test is the square of its t, so any of two levels may come first; of three too
    third = s.frame["unit"] % 3 == 0
    three = replace(s, frame=s.frame.assign(level=s.frame["level"].mask(third, "neither")))
    tests = []
    for levels in (("men", "women", "neither"), ("neither", "men", "women")):
        fit = mixed_model.estimate(replace(three, levels=levels), standardise=True)
        tests += [[(t.statistic, t.df) for t in fit.terms if t.df_num == 2]]
    assert len(tests[0]) == 2
    for a, b in zip(*tests, strict=True):
        assert a[0] == pytest.approx(b[0], rel=1e-6)
        assert a[1] == pytest.approx(b[1], rel=0.05)


def test_what_cannot_be_averaged_is_refused() -> None:
    s = reached(persons=80)
    with pytest.raises(Inapplicable, match="standardisation is of change"):
        mixed_model.estimate(s, of="association", standardise=True)
    with pytest.raises(Inapplicable, match="age changes within a person"):
        mixed_model.estimate(replace(s, frame=s.frame.assign(age=s.frame["time"])), standardise=True)
    with pytest.raises(Inapplicable, match="level changes within a person"):
        mixed_model.estimate(
            replace(s, frame=s.frame.assign(level=s.frame["time"].map({2016: "a", 2018: "b", 2020: "b"}))),
            standardise=True,
        )
    with pytest.raises(Inapplicable, match="1 cluster"):
        mixed_model.estimate(replace(s, frame=s.frame.assign(cluster=1)), standardise=True)
    # a role of whom nobody answered in 2020: what they changed by cannot be known
    lost = s.frame.assign(y=s.frame["y"].mask((s.frame["time"] == 2020) & (s.frame["role"] == "officer")))
    with pytest.raises(Inapplicable, match="collinear with other terms: role: officer x wave 2020"):
        mixed_model.estimate(replace(s, frame=lost), standardise=True)
