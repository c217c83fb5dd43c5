"""Adjusted p-values against R's p.adjust and wildrwolf."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from biglocal.inference.multiplicity import METHODS, Outcome, adjust, romano_wolf
from biglocal.model import Inapplicable
from panels import panel
from reference_cases import case, data


@pytest.mark.parametrize(
    ("method", "theirs"),
    [(m, m) for m in ("holm", "hochberg", "hommel", "bonferroni")] + [("fdr_bh", "BH"), ("fdr_by", "BY")],
)
def test_multtest_castle(method: str, theirs: str) -> None:
    expected = case("multtest_castle")["results"]
    assert adjust(expected["p"], method) == pytest.approx(expected[theirs], rel=1e-6)


def test_hommel_is_the_closed_test_of_simes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = rng.uniform(size=5) ** 2
        closed = [
            max(
                min(len(s) * v / (i + 1) for i, v in enumerate(sorted(p[list(s)])))
                for k in range(1, 6)
                for s in itertools.combinations(range(5), k)
                if j in s
            )
            for j in range(5)
        ]
        assert adjust(p.tolist(), "hommel") == pytest.approx(closed)


@pytest.mark.parametrize("method", METHODS)
def test_laws_of_adjustment(method: str) -> None:
    p = [0.04, 0.001, 0.3, 0.04, 0.9]
    out = adjust(p, method)
    assert all(a >= b for a, b in zip(out, p, strict=True))
    assert out[0] == out[3]
    assert [adjust(p[::-1], method)[4 - i] for i in range(5)] == pytest.approx(list(out))
    assert adjust([0.03], method) == (0.03,)
    assert adjust([], method) == ()


def test_adjustments_that_cannot_be_are_refused() -> None:
    with pytest.raises(Inapplicable, match="no adjustment"):
        adjust([0.1], "sidak")
    with pytest.raises(Inapplicable, match="between 0 and 1"):
        adjust([0.1, float("nan")], "holm")


def test_romano_wolf_castle() -> None:
    expected = case("romano_wolf_castle")["results"]
    f = data("castle.csv")
    family = romano_wolf(
        [Outcome(f[o], f["post"], f["sid"], fixed=(f["sid"], f["year"])) for o in expected["outcome"]],
        rng=np.random.default_rng(11), draws=9_999, counting="full",
    )  # fmt: skip
    assert family.estimate == pytest.approx(expected["estimate"], rel=1e-6)
    assert family.statistic == pytest.approx(expected["t"], rel=1e-6)
    assert family.p_adjusted == pytest.approx(expected["p_romano_wolf"], abs=0.02)


def test_laws_of_romano_wolf() -> None:
    f = panel(seed=1, units=60, clusters=20).frame
    rng = np.random.default_rng(3)

    def outcome(y: object, rows: slice = slice(None)) -> Outcome:
        g = f[rows]
        return Outcome(np.asarray(y)[rows], g["d"], g["cluster"], fixed=(g["unit"], g["time"]))

    y = f["y"].to_numpy()
    noise = rng.normal(size=len(f))
    strong = y + 2.0 * f["d"].to_numpy()

    def p(*outcomes: Outcome) -> tuple[float, ...]:
        return romano_wolf(outcomes, rng=np.random.default_rng(5), draws=999).p_adjusted

    alone, twice = p(outcome(y)), p(outcome(y), outcome(3 * y))
    assert twice == (alone[0], alone[0])  # an outcome that says the same costs nothing
    one, two, three = p(outcome(strong), outcome(y), outcome(noise))
    assert p(outcome(noise), outcome(y), outcome(strong)) == (three, two, one)
    assert two >= alone[0]
    assert one <= two
    assert len(p(outcome(y), outcome(noise, slice(0, 400)))) == 2
    with pytest.raises(Inapplicable, match="without outcomes"):
        p()
    with pytest.raises(Inapplicable, match="outcome 1: y has 2 missing"):
        p(outcome(y), outcome(np.where(np.arange(len(y)) < 2, np.nan, y)))


def test_together_is_the_family_s_adjustments() -> None:
    from statsmodels.stats.multitest import multipletests

    import panels
    from biglocal.estimators import twfe
    from biglocal.inference.multiplicity import Outcome, together

    samples = [panels.panel(seed=s, effect=e) for s, e in ((1, 0.4), (2, 0.0), (3, 0.2))]
    fits = [twfe.estimate(s) for s in samples]
    done = together(samples, fits, rng=np.random.default_rng(5), conf_level=0.95, draws=499)
    said = [{t.name: t.p_value for t in fit.terms} for fit in done]
    plain = [s["cluster"] for s in said]
    for name in ("holm", "fdr_bh"):
        assert [s[name] for s in said] == pytest.approx(multipletests(plain, method=name)[1])
    outcomes = [
        Outcome(f["y"], f["d"], f["cluster"], fixed=(f["unit"], f["time"]), weight=f["weight"])
        for f in (s.frame for s in samples)
    ]
    family = romano_wolf(outcomes, rng=np.random.default_rng(5), draws=499)
    assert [s["romano_wolf"] for s in said] == pytest.approx(family.p_adjusted)
    assert all(s["romano_wolf"] >= s["bootstrap"] for s in said)
    assert [t.estimate for fit in done for t in fit.terms[:1]] == pytest.approx([f.terms[0].estimate for f in fits])
