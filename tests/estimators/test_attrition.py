"""Response weights, bounds and the comparison of who stayed: against sums by hand, statsmodels and planted truths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal import inference
from biglocal.estimators import attrition, gee, response_weights
from biglocal.model import Fit, Inapplicable, Sample, Term

TRUE = 1.0


def lost(seed: int = 1, persons: int = 600, strength: float = 1.0) -> Sample:
    """Change of 1 in 2018 on average, less for who began high; who began low answers less often."""
    rng = np.random.default_rng(seed)
    area, woman = np.arange(persons) % 50, rng.random(persons) < 0.5
    start = 20 + 2 * rng.normal(size=persons) + rng.normal(size=50)[area] * 0.3
    parts = []
    for t in (2016, 2018, 2020):
        y = start + (t == 2018) * (TRUE - 0.6 * (start - 20)) + (t > 2016) * rng.normal(size=persons)
        gone = (t > 2016) & (rng.random(persons) < 1 / (1 + np.exp(strength * (start - 20))))
        parts.append(pd.DataFrame({"unit": range(persons), "time": t, "cluster": area, "whole": y, "gone": gone}))
    f = pd.concat(parts, ignore_index=True).assign(weight=1.0)
    f["level"] = np.where(woman[f["unit"]], "women", "men")
    f["age"] = rng.normal(size=persons)[f["unit"]]
    f["role"] = np.where(f["unit"] % 4 == 0, "officer", "member")
    return Sample(f.assign(y=f["whole"].mask(f["gone"])), "points", covariates=("age", "role"))


def at(fit: Fit, name: str, period: int = 2018, level: str = "") -> Term:
    return next(t for t in fit.terms if (t.name, t.period, t.level) == (name, period, level))


# --- response weights ------------------------------------------------------------------------------------------


def test_weights_are_those_of_a_logit() -> None:
    import statsmodels.api as sm

    s = lost(strength=0.4)
    f = s.frame[s.frame["time"] == 2018].assign(
        answered=lambda g: g["y"].notna(), start=s.frame["whole"][:600].to_numpy()
    )
    found = response_weights.weights(f, responded="answered", covariates=["start", "age", "role"], trim=1.0)
    x = sm.add_constant(f.assign(officer=(f["role"] == "officer").astype(float))[["start", "age", "officer"]])
    probability = sm.Logit(f["answered"].astype(float), x).fit(disp=0).predict()
    assert found.probability == pytest.approx(np.asarray(probability), rel=1e-6)
    yes = f["answered"].to_numpy()
    assert found.weights[yes] == pytest.approx(yes.mean() / np.asarray(probability)[yes], rel=1e-6)
    assert (found.weights[~yes] == 0).all()
    p = np.asarray(probability)
    pairs = p[yes][:, None] - p[~yes][None, :]
    assert found.discrimination == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    w = found.weights
    assert found.effective == pytest.approx(w.sum() ** 2 / (w @ w))
    naive = f.loc[yes, "start"].mean()
    assert abs(np.average(f["start"], weights=w) - f["start"].mean()) < 0.2 * abs(naive - f["start"].mean())
    trimmed = response_weights.weights(f, responded="answered", covariates=["start", "age", "role"], trim=0.9)
    assert trimmed.weights.max() == pytest.approx(np.quantile(w[yes], 0.9))
    assert trimmed.trimmed == int((w > np.quantile(w[yes], 0.9)).sum())


def test_weighting_by_a_cell_is_its_inverse_response_rate() -> None:
    f = pd.DataFrame({"cell": ["a"] * 10 + ["b"] * 20, "answered": [1] * 5 + [0] * 5 + [1] * 16 + [0] * 4})
    found = response_weights.weights(f, responded="answered", covariates=["cell"], trim=1.0)
    assert found.weights[0] == pytest.approx(0.7 / 0.5)
    assert found.weights[10] == pytest.approx(0.7 / 0.8)
    assert found.weights.sum() == pytest.approx(21)


def test_the_weighted_change_is_nearer_the_truth_than_the_naive() -> None:
    nearer, errors = 0, []
    for seed in range(20):
        s = lost(seed)
        seen = s.frame.dropna(subset=["y"])
        both = seen[seen["unit"].isin(seen.loc[seen["time"] == 2018, "unit"])]
        naive = at(gee.estimate(replace(s, frame=both, covariates=()), family="gaussian"), "change").estimate
        weighted = at(response_weights.estimate(s, trim=1.0), "change")
        nearer += abs(weighted.estimate - TRUE) < abs(naive - TRUE)
        errors.append((weighted.estimate - TRUE) / weighted.std_error)
    assert nearer >= 18
    assert abs(np.mean(errors)) < 1


@pytest.mark.parametrize("levels", [(), ("men", "women")])
def test_errors_are_those_of_all_equations_together(levels: tuple[str, ...]) -> None:
    """The logits', the shares' and the weighted means' equations stacked, their slopes by finite differences."""
    s = replace(lost(persons=300, strength=0.5), levels=levels)
    fit = response_weights.estimate(s, of="change")
    f = s.frame.assign(officer=(s.frame["role"] == "officer").astype(float), woman=(s.frame["level"] == "women") * 1.0)
    wide = f.pivot_table(index="unit", columns="time", values="y", dropna=False)
    first = f[f["time"] == 2016].set_index("unit")
    y = wide.to_numpy()
    x = np.column_stack([np.ones(300), first[["age", "officer"]], *([first["woman"]] if levels else []), y[:, 0]])
    x3 = np.column_stack([x, np.nan_to_num(y[:, 1])])
    r2 = np.isfinite(y[:, 1])
    r3 = r2 & np.isfinite(y[:, 2])
    k, m = x.shape[1], x3.shape[1]
    cells = [(first["woman"] == i).to_numpy() for i in (0, 1)] if levels else [np.ones(300, dtype=bool)]

    def equations(at: np.ndarray) -> np.ndarray:
        a, share2, b, share3 = at[:k], at[k], at[k + 1 : k + 1 + m], at[k + 1 + m]
        means = at[k + m + 2 :].reshape(len(cells), 3)
        p2, p3 = 1 / (1 + np.exp(-x @ a)), 1 / (1 + np.exp(-x3 @ b))
        w2, w3 = r2 * share2 / p2, r3 * share2 / p2 * share3 / p3
        blocks = [
            x * (r2 - p2)[:, None],
            (r2 - share2)[:, None],
            x3 * (r2 * (r3 - p3))[:, None],
            (r2 * (r3 - share3))[:, None],
        ]
        for inside, (one, two, three) in zip(cells, means, strict=True):
            rows = [y[:, 0] - one, w2 * (np.nan_to_num(y[:, 1]) - two), w3 * (np.nan_to_num(y[:, 2]) - three)]
            blocks.append(np.column_stack(rows) * inside[:, None])
        return np.hstack(blocks)

    from scipy.optimize import root

    start = np.zeros(k + m + 2 + 3 * len(cells))
    start[[k, k + 1 + m]] = r2.mean(), r3[r2].mean()
    start[k + m + 2 :] = 20
    solved = root(lambda at: equations(at).sum(axis=0), start, tol=1e-12).x
    area = first["cluster"].to_numpy()

    def by_area(at: np.ndarray) -> np.ndarray:
        return pd.DataFrame(equations(at)).groupby(area).sum().to_numpy()

    step = 1e-5
    moved = [(by_area(solved + d) - by_area(solved - d)) / (2 * step) for d in step * np.eye(len(solved))]
    slopes, totals = np.stack(moved, axis=2), by_area(solved)  # (areas, equations, parameters), (areas, equations)
    slope, at_means = slopes.sum(axis=0), k + m + 2
    first_stage = np.linalg.solve(slope[:at_means, :at_means], totals[:, :at_means].T).T
    adjusted = totals[:, at_means:] - first_stage @ slope[at_means:, :at_means].T
    # the equations of the means without each area in turn
    own = slope[at_means:, at_means:] - slopes[:, at_means:, at_means:]
    half = np.linalg.solve(own, adjusted[..., None])[..., 0]
    vcov = half.T @ half * 49 / 50
    means = solved[k + m + 2 :].reshape(len(cells), 3)
    for i, level in enumerate(levels or ("",)):
        for j, period in ((1, 2018), (2, 2020)):
            contrast = np.zeros(3 * len(cells))
            contrast[3 * i + j], contrast[3 * i] = 1, -1
            found = at(fit, "change", period, level)
            assert found.estimate == pytest.approx(means[i, j] - means[i, 0], rel=1e-6)
            assert found.std_error == pytest.approx(float(contrast @ vcov @ contrast) ** 0.5, rel=1e-5)


def test_weights_multiply_where_the_last_answer_decides_who_comes_back() -> None:
    """Who had a low last score leaves: weights from the first answer alone would not do in the third wave."""
    off: dict[str, list[float]] = {"answers": [], "first": []}
    for seed in range(12):
        rng = np.random.default_rng(900 + seed)
        n = 1200
        y = rng.normal(size=n)[:, None] + rng.normal(size=(n, 3)) + np.array([0.0, TRUE, TRUE])
        stays2 = rng.random(n) < 1 / (1 + np.exp(-y[:, 0]))
        stays3 = stays2 & (rng.random(n) < 1 / (1 + np.exp(-1.5 * (y[:, 1] - TRUE))))
        y[~stays2, 1], y[~stays3, 2] = np.nan, np.nan
        frame = pd.DataFrame({"unit": np.repeat(range(n), 3), "time": np.tile([2016, 2018, 2020], n), "y": y.ravel()})
        frame = frame.assign(cluster=frame["unit"] % 60, weight=1.0, level="")
        s = Sample(frame, "points")
        early = replace(s, frame=frame[frame["time"] != 2018])  # as though the last answer had not been seen
        off["answers"].append(at(response_weights.estimate(s), "change", 2020).estimate - TRUE)
        off["first"].append(at(response_weights.estimate(early), "change", 2020).estimate - TRUE)
    spread = float(np.std(off["answers"], ddof=1)) / 12**0.5
    assert abs(np.mean(off["answers"])) < 3.5 * spread
    assert np.mean(off["first"]) > 0.1


def test_levels_overlap_and_who_never_answered_first_are_said() -> None:
    s = replace(lost(strength=1.6), levels=("men", "women"))
    frame = s.frame.assign(y=s.frame["y"].mask((s.frame["unit"] < 7) & (s.frame["time"] == 2016)))
    fit = response_weights.estimate(replace(s, frame=frame))
    assert "7 persons without an answer in 2016 left." in fit.caution
    assert "overlap" in fit.caution
    gap = at(fit, "change", level="women").estimate - at(fit, "change", level="men").estimate
    assert at(fit, "difference").estimate == pytest.approx(gap)
    assert fit.facts["response"][2018]["discrimination"] > 0.8
    shuffled = response_weights.estimate(replace(s, frame=frame.sample(frac=1, random_state=1)))
    assert [t.estimate for t in shuffled.terms] == pytest.approx([t.estimate for t in fit.terms], rel=1e-9)
    without = response_weights.estimate(replace(s, frame=frame.dropna(subset=["y"])))  # a row that is not there
    assert [t.estimate for t in without.terms] == pytest.approx([t.estimate for t in fit.terms], rel=1e-9)


def test_what_cannot_be_weighted_is_refused() -> None:
    s = lost(persons=100)
    with pytest.raises(Inapplicable, match="everyone answered"):
        response_weights.estimate(replace(s, frame=s.frame.assign(y=s.frame["whole"])))
    with pytest.raises(Inapplicable, match="nobody answered in 2016"):
        response_weights.estimate(replace(s, frame=s.frame.assign(y=s.frame["y"].mask(s.frame["time"] == 2016))))
    with pytest.raises(Inapplicable, match="wave 2018: nobody answered in every wave so far"):
        response_weights.estimate(replace(s, frame=s.frame.assign(y=s.frame["y"].mask(s.frame["time"] == 2018))))
    with pytest.raises(Inapplicable, match="wave 2018: the covariate age is missing in 1 rows"):
        response_weights.estimate(replace(s, frame=s.frame.assign(age=s.frame["age"].mask(s.frame["unit"] == 0))))
    one_area = replace(s, frame=s.frame.assign(cluster=np.where(s.frame["level"] == "men", 1, s.frame["cluster"])))
    with pytest.raises(Inapplicable, match="hold all that is known of a term"):
        response_weights.estimate(replace(one_area, levels=("men", "women")))
    with pytest.raises(Inapplicable, match="values other than 0 and 1"):
        response_weights.weights(s.frame, responded="time", covariates=["age"])


# --- who stayed, and bounds ------------------------------------------------------------------------------------


def test_comparison_of_who_stayed_is_a_regression_with_clustered_errors() -> None:
    import statsmodels.api as sm

    s = lost()
    fit = attrition.estimate(s, low=0, high=40)
    first = s.frame[s.frame["time"] == 2016]
    for period in (2018, 2020):
        stays = s.frame.loc[s.frame["time"] == period, "y"].notna().to_numpy().astype(float)
        for level, values in (
            ("", first["y"]),
            ("age", first["age"]),
            ("role: officer", (first["role"] == "officer").astype(float)),
        ):
            plain = sm.OLS(values.to_numpy(), sm.add_constant(stays)).fit(
                cov_type="cluster", cov_kwds={"groups": first["cluster"].to_numpy()}
            )
            ours = at(fit, "stayed", period, level)
            assert (ours.estimate, ours.std_error) == pytest.approx((plain.params[1], plain.bse[1]), rel=1e-9)
            assert ours.df == 49
    joint = at(fit, "stayed_joint")
    assert joint.df_num == 3
    done = inference.cluster(attrition.estimate, s, fit, np.random.default_rng(0), conf_level=0.95)
    assert at(done, "stayed_joint").p_value < 1e-6  # leaving depends on the first answer: found


def test_leaving_at_random_is_not_found_more_often_than_it_should() -> None:
    rejected = 0
    for seed in range(100):
        s = lost(seed, persons=200, strength=0.0)
        fit = attrition.estimate(s, low=0, high=40)
        done = inference.cluster(attrition.estimate, s, fit, np.random.default_rng(0), conf_level=0.95)
        rejected += at(done, "stayed_joint").p_value < 0.05
    assert rejected <= 14  # binomial bound at 99.9%


def test_bounds_by_hand_and_around_the_truth() -> None:
    s = lost()
    fit = attrition.estimate(s, low=0, high=40)
    wide = s.frame.pivot_table(index="unit", columns="time", values="y", dropna=False)
    assert at(fit, "lowest").estimate == pytest.approx((wide[2018].fillna(0) - wide[2016]).mean())
    assert at(fit, "highest").estimate == pytest.approx((wide[2018].fillna(40) - wide[2016]).mean())
    assert at(fit, "answered").estimate == pytest.approx(wide[2018].notna().mean())
    change = (wide[2018] - wide[2016]).mean()
    assert at(fit, "change").estimate == pytest.approx(change)
    unseen = wide[2018].isna()
    # were the unseen to have changed by `tipping` less than the seen, the mean change of all is nought
    everyone = np.where(unseen, change - at(fit, "tipping").estimate, wide[2018] - wide[2016])
    assert everyone.mean() == pytest.approx(0, abs=1e-12)
    whole = s.frame.pivot_table(index="unit", columns="time", values="whole")
    assert at(fit, "lowest").estimate < (whole[2018] - whole[2016]).mean() < at(fit, "highest").estimate
    width = at(fit, "highest").estimate - at(fit, "lowest").estimate
    assert width == pytest.approx(40 * (1 - at(fit, "answered").estimate))
    assert not any(t.tested for t in fit.terms if not t.name.startswith("stayed"))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.sample(frac=1, random_state=2), id="shuffle"),
        pytest.param(lambda f: f.assign(unit=1000 - f["unit"], cluster=f["cluster"].astype(str)), id="relabel"),
        pytest.param(lambda f: f.assign(weight=3.0), id="scale weights"),
        pytest.param(lambda f: f.dropna(subset=["y"]), id="no row where no answer"),
    ],
)
def test_nothing_moves(change: Any) -> None:
    s = lost(persons=200)
    one, two = (attrition.estimate(replace(s, frame=f), low=0, high=40) for f in (s.frame, change(s.frame)))
    assert [(t.name, t.period, t.level) for t in one.terms] == [(t.name, t.period, t.level) for t in two.terms]
    for a, b in zip(one.terms, two.terms, strict=True):
        wanted = pytest.approx((a.estimate, a.std_error, a.statistic), rel=1e-9, nan_ok=True)
        assert (b.estimate, b.std_error, b.statistic) == wanted


def test_what_cannot_be_compared_is_refused() -> None:
    s = lost(persons=100)
    with pytest.raises(Inapplicable, match="outside 21 to 40"):
        attrition.estimate(s, low=21, high=40)
    with pytest.raises(Inapplicable, match="wave 2018: all"):
        attrition.estimate(replace(s, frame=s.frame.assign(y=s.frame["whole"])))
    with pytest.raises(Inapplicable, match="nobody can be lost"):
        attrition.estimate(replace(s, frame=s.frame[s.frame["time"] == 2016]))
    with pytest.raises(Inapplicable, match="1 cluster"):
        attrition.estimate(replace(s, frame=s.frame.assign(cluster=1)))
    assert "extremes seen" in attrition.estimate(s).caution
