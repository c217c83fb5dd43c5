"""A verdict for each exhibit: bytes where the environment is the reference's, cells elsewhere, and nothing by default."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fake_rows
from biglocal import exhibits, provenance, results, verify
from biglocal.model import Study, Tolerance, VerifyError
from biglocal.results import Row
from biglocal.study import MANUSCRIPT, ON_REQUEST, load
from biglocal.verify import CANNOT, DIFFERS, IDENTICAL, NOT_HELD, NOT_MADE, WITHIN, Verification

ROW = Row(
    "effects/a", "d", "effects", "a", "all", "", "nearest", "start", "twfe", "cluster", "att", None, -0.5, 0.2, 99.0,
    -2.5, 0.014, 0.028, -0.9, -0.1, 0.95, "points", 1000, 100, 20, 50, "ok", "", "synthetic",
)  # fmt: skip
TOLERANCE = Tolerance(relative=1e-6, absolute=1e-8, std_errors=1e-4)


def compared(seen: Sequence[Row], tolerance: Tolerance = TOLERANCE) -> list[verify.Cell]:
    return [c for cells in verify.compare(seen, [ROW], tolerance, 0.05).values() for c in cells]


def test_compare_says_which_cell_and_by_how_much() -> None:
    assert compared([ROW]) == []
    assert compared([replace(ROW, estimate=-0.5 + 1e-5)]) == []
    (one,) = compared([replace(ROW, estimate=-0.3)])
    assert one.text == "effects/a#att: estimate is -0.3, reference -0.5, 1 standard errors apart"
    assert (one.code, one.errors) == ("beyond-tolerance", pytest.approx(1))
    (two,) = compared([replace(ROW, n_obs=999)])
    assert (two.text, two.code) == ("effects/a#att: n_obs is 999, reference 1000", "not-the-same")
    (three,) = compared([])
    assert "missing from the outputs" in three.text
    (four,) = compared([replace(ROW, status="inapplicable")])
    assert "status is 'inapplicable'" in four.text
    long = "The same words " * 20
    reasons = [replace(ROW, reason=long + end) for end in ("and these.", "and those.")]
    ((cell,),) = verify.compare(reasons[:1], reasons[1:], TOLERANCE, 0.05).values()
    assert len(cell.text) < 200
    assert "and these.'" in cell.text
    assert "and those.'" in cell.text
    assert cell.seen == repr(long + "and these.")  # JSON has it whole
    five = compared([ROW, replace(ROW, analysis="effects/b")])
    assert [c.text for c in five] == ["effects/b#att: not in the reference"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"estimate": 0.5}, "sign"),
        ({"p_value": 0.06}, "significance"),
        ({"p_adjusted": 0.0501}, "significance"),
    ],
)
def test_sign_and_significance_may_not_flip_within_any_tolerance(change: dict[str, float], code: str) -> None:
    (cell,) = compared([replace(ROW, **change)], Tolerance(relative=10, absolute=1e-8, std_errors=10))  # type: ignore[arg-type]
    assert cell.code == code


# --- a run and its reference, of made rows --------------------------------------------------------------------


@pytest.fixture(scope="module")
def study() -> Study:
    return load()


def plain(study: Study) -> list[Row]:
    return [r for r in fake_rows.rows(study) if r.part not in ON_REQUEST]


@pytest.fixture(scope="module")
def first(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and itself as the reference."""
    folder = tmp_path_factory.mktemp("first")
    out = fake_rows.outputs(folder / "synthetic", study, plain(study))
    expected = folder / "expected" / "synthetic-quick.csv"
    verify.accept(out, expected)
    return out, expected


def verdicts(found: Verification) -> dict[str, str]:
    return {v.exhibit: v.verdict for v in found.verdicts}


def requested(study: Study) -> set[str]:
    return {e for e in study.exhibits if (wanted := exhibits.parts(e)) and wanted <= set(ON_REQUEST)}


def test_the_same_run_is_identical_and_what_was_not_made_is_said(first: tuple[Path, Path], study: Study) -> None:
    found = verify.verify(*first, study)
    assert found.ok
    assert (found.environment, found.causes) == ((), ())
    said = verdicts(found)
    assert {e for e, v in said.items() if v == NOT_MADE} == requested(study)
    assert {v for e, v in said.items() if e not in requested(study)} == {IDENTICAL}
    assert verify.classification(found) == "Partial reproduction (see above)"  # some exhibits were not made


def move(rows: list[Row], exhibit: str, by: float, study: Study) -> list[Row]:
    """With one estimate that this exhibit alone is made of moved by so many standard errors."""
    others = {r.key for e in study.exhibits if e != exhibit for r in exhibits.feeding(e, rows)}
    own = {r.key for r in exhibits.feeding(exhibit, rows) if r.std_error and r.estimate} - others
    i = next(i for i, r in enumerate(rows) if r.key in own)
    return [*rows[:i], replace(rows[i], estimate=rows[i].estimate + by * rows[i].std_error), *rows[i + 1 :]]  # type: ignore[operator]


ELSEWHERE = {"machine": {"platform": "Darwin arm64", "blas": "openblas NeoverseN1"}}


def test_other_bytes_fail_in_the_same_environment_and_not_on_another_platform(
    first: tuple[Path, Path], study: Study, tmp_path: Path
) -> None:
    rows = move(plain(study), "calendar", 1e-6, study)  # a hundredth of the tolerance
    here = verify.verify(fake_rows.outputs(tmp_path / "a", study, rows), first[1], study)
    moved = {e for e, v in verdicts(here).items() if v == DIFFERS}
    assert moved == {"calendar", "everything else"}
    assert {v.code for v in here.verdicts if not v.ok} == {"other-bytes"}
    there = verify.verify(fake_rows.outputs(tmp_path / "b", study, rows, **ELSEWHERE), first[1], study)
    assert there.ok
    assert there.environment is not None
    assert "platform Linux x86_64 -> Darwin arm64" in there.environment
    assert verdicts(there)["calendar"] == WITHIN
    assert verdicts(there)["balance"] == IDENTICAL


@pytest.mark.parametrize("environment", [{}, ELSEWHERE], ids=["same", "another"])
def test_the_exhibits_with_the_moved_cell_differ_and_no_other(
    first: tuple[Path, Path], study: Study, tmp_path: Path, environment: dict[str, Any]
) -> None:
    rows = move(plain(study), "calendar", 1.0, study)
    found = verify.verify(fake_rows.outputs(tmp_path / "out", study, rows, **environment), first[1], study)
    assert not found.ok
    (one,) = [v for v in found.verdicts if v.verdict == DIFFERS and v.exhibit != "everything else"]
    assert (one.exhibit, len(one.cells)) == ("calendar", 1)
    assert one.code in ("beyond-tolerance", "sign")
    assert one.cells[0].errors == pytest.approx(1)
    text = verify.text(found)
    assert "x calendar " in text
    assert "1 standard errors apart" in text
    assert "NOT verified" in text


def test_an_edited_output_and_a_lost_one_differ(first: tuple[Path, Path], study: Study, tmp_path: Path) -> None:
    out = shutil.copytree(first[0], tmp_path / "out")
    (out / "tables" / "balance.csv").write_text("edited")
    (out / "tables" / "years.csv").unlink()
    found = verify.verify(out, first[1], study)
    assert {v.exhibit: v.code for v in found.verdicts if not v.ok} == {"balance": "altered", "years": "altered"}
    assert "tables/balance.csv: changed or lost after the run" in verify.text(found)


def test_exhibits_on_request_that_one_side_lacks_are_not_held(
    first: tuple[Path, Path], study: Study, tmp_path: Path
) -> None:
    """And do not make the others differ: the bytes of the whole report are then not those of the reference."""
    out = fake_rows.outputs(tmp_path / "all", study, fake_rows.rows(study))
    found = verify.verify(out, first[1], study)
    assert found.ok
    assert {e for e, v in verdicts(found).items() if v == NOT_HELD} >= requested(study)
    assert verdicts(found)["main_effects"] == IDENTICAL
    wider = tmp_path / "expected" / "synthetic-quick.csv"
    verify.accept(out, wider)
    back = verify.verify(first[0], wider, study)
    assert back.ok
    assert {e for e, v in verdicts(back).items() if v == NOT_MADE} == requested(study)


def test_an_analysis_that_one_side_lacks_differs(first: tuple[Path, Path], study: Study, tmp_path: Path) -> None:
    rows = [r for r in plain(study) if r.part != "dose"]
    found = verify.verify(fake_rows.outputs(tmp_path / "fewer", study, rows), first[1], study)
    assert {v.exhibit: v.code for v in found.verdicts if not v.ok}["dose"] == "row-missing"
    fewer = tmp_path / "expected" / "synthetic-quick.csv"
    verify.accept(tmp_path / "fewer", fewer)
    back = verify.verify(first[0], fewer, study)
    assert {v.exhibit: v.code for v in back.verdicts if not v.ok}["dose"] == "row-unknown"


def without(rows: list[Row], part: str) -> list[Row]:
    """The part's analyses without data, as a tier that lacks the table has them."""
    gone = {r.analysis: r for r in rows if r.part == part}
    blank = dict.fromkeys(("estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high", "df"))
    lost = [replace(r, term="", period=None, level="", status="inapplicable", reason="no table costs", **blank)  # type: ignore[arg-type]
            for r in gone.values()]  # fmt: skip
    return [*(r for r in rows if r.part != part), *lost]


def test_an_exhibit_without_data_cannot_run(first: tuple[Path, Path], study: Study, tmp_path: Path) -> None:
    out = fake_rows.outputs(tmp_path / "poor", study, without(plain(study), "dose"))
    found = verify.verify(out, first[1], study)
    (dose,) = [v for v in found.verdicts if v.exhibit == "dose"]
    assert (dose.verdict, dose.code, dose.ok) == (CANNOT, "data", False)  # the reference has it
    poor = tmp_path / "expected" / "synthetic-quick.csv"
    verify.accept(out, poor)
    again = verify.verify(out, poor, study)
    assert again.ok
    assert verdicts(again)["dose"] == CANNOT
    assert "- [x] `Data not available`" in verify.markdown(again)


def test_other_code_is_named_and_the_whole_report_is_then_not_held(
    first: tuple[Path, Path], study: Study, tmp_path: Path
) -> None:
    """The report's cards show digests of the code: a comment moves them, and no exhibit."""
    out = fake_rows.outputs(tmp_path / "out", study, plain(study), code={"estimate.py": "other"})
    (out / "report.html").write_text("another card")
    record = json.loads((out / "provenance.json").read_text())
    record["outputs"]["report.html"] = results.digest(b"another card")
    (out / "provenance.json").write_text(json.dumps(record))
    found = verify.verify(out, first[1], study)
    assert found.ok
    assert found.causes == ("code: estimate.py changed",)
    assert verdicts(found)["main_effects"] == IDENTICAL
    record["code"] = {"estimate.py": "c"}
    (out / "provenance.json").write_text(json.dumps(record))
    assert {v.exhibit: v.files for v in verify.verify(out, first[1], study).verdicts if not v.ok} == {
        "everything else": ("report.html",)
    }


def test_a_record_of_other_rows_is_no_record(first: tuple[Path, Path], study: Study, tmp_path: Path) -> None:
    """A reference edited by hand must not pass for what its record vouches for."""
    expected = Path(shutil.copytree(first[1].parent, tmp_path / "expected")) / first[1].name
    results.write_text(expected, results.dumps(move(plain(study), "calendar", 1.0, study)))
    found = verify.verify(first[0], expected, study)
    assert found.environment is None
    assert [v.exhibit for v in found.verdicts if not v.ok and v.exhibit != "everything else"] == ["calendar"]
    assert "no record of its making" in verify.text(found)


@pytest.mark.parametrize("spoil", [lambda p: p.unlink(), lambda p: p.write_text("a,b\n1,2\n")])
def test_no_reference_that_can_be_read(
    first: tuple[Path, Path], study: Study, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    expected = Path(shutil.copytree(first[1].parent, tmp_path / "expected")) / first[1].name
    spoil(expected)
    with pytest.raises(VerifyError, match="biglocal verify synthetic --accept"):
        verify.verify(first[0], expected, study)


def test_what_a_run_spoiled_is_not_accepted(first: tuple[Path, Path], tmp_path: Path) -> None:
    out = shutil.copytree(first[0], tmp_path / "synthetic")
    (out / "report.html").write_text("edited")
    with pytest.raises(VerifyError, match=r"report\.html: changed"):
        verify.accept(out, tmp_path / "expected" / "synthetic-quick.csv")
    assert not (tmp_path / "expected").exists()


def test_a_part_of_a_run_does_not_become_the_reference(study: Study, tmp_path: Path) -> None:
    out = fake_rows.outputs(tmp_path / "synthetic", study, plain(study), rendered_from="")
    with pytest.raises(VerifyError, match="accept it whole"):
        verify.accept(out, tmp_path / "expected" / "synthetic-quick.csv")
    assert not (tmp_path / "expected").exists()


def test_json_and_markdown_say_the_same(first: tuple[Path, Path], study: Study, tmp_path: Path) -> None:
    rows = move(plain(study), "dose", 3.0, study)
    found = verify.verify(fake_rows.outputs(tmp_path / "out", study, rows), first[1], study)
    told = json.loads(verify.as_json(found))
    assert not told["ok"]
    assert {v["exhibit"]: v["verdict"] for v in told["verdicts"]} == verdicts(found)
    page = verify.markdown(found)
    for v in found.verdicts:
        assert f"| {v.exhibit} | {v.verdict} |" in page
        if v.code:
            assert v.code in told["reasons"]
    assert page.count("- [x] ") == 3  # one class; a discrepancy, and exhibits that take their time
    assert "no finding about Big Local" in page


def test_every_exhibit_is_fed_by_its_parts_alone(study: Study) -> None:
    rows = fake_rows.rows(study)
    fed = set[str]()
    for name in study.exhibits:
        found = exhibits.feeding(name, rows)
        assert {r.part for r in found} <= exhibits.parts(name, MANUSCRIPT)
        fed |= {r.key for r in found}
    assert len(fed) > 0.5 * len(rows)


def test_the_machine_is_told_without_its_name() -> None:
    said = provenance.machine()
    assert set(said) == {"platform", "blas", "simd"}
    import platform

    assert platform.node() not in repr(said)
