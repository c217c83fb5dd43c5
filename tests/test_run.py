"""The pipeline as its users meet it: reuse, resumption, the same bytes, refusals that leave nothing behind."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import fake_rows
from biglocal import results, run
from biglocal import study as studies
from biglocal.__main__ import main
from biglocal.study import MANUSCRIPT, PATH, ROOT, expand
from biglocal.study import load as load_study


@pytest.fixture
def outputs(reproduced: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reproduced, tmp_path / "outputs")


@pytest.fixture
def no_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("an estimator was called")

    monkeypatch.setattr("biglocal.estimators.estimator", fail)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def cli(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "biglocal", *map(str, words)], capture_output=True, text=True, check=False
    )


def test_everything_is_there(reproduced: Path) -> None:
    out = reproduced / "secure"
    names = set(tree(out))
    assert names >= {"results.csv", "numbers.json", "provenance.json", "report.html", "report.pdf", "dictionary.md"}
    for exhibit in ("balance", "main_effects", "subgroups", "years"):
        assert {f"tables/{exhibit}.{e}" for e in ("csv", "md", "tex", "html")} <= names
        assert {f"figures/{exhibit}.{e}" for e in ("svg", "png", "csv")} <= names
    assert not [n for n in names if "journal" in n or ".part" in n]
    rows = results.read(out / "results.csv")
    assert {r.part for r in rows} >= {"flow", "balance", "trends", "effects", "years", "subgroups", "robustness"}
    assert all(r.reason for r in rows if r.status != "ok")


@pytest.mark.usefixtures("no_estimator")
def test_second_run_estimates_and_writes_nothing(outputs: Path, small_tier: Path) -> None:
    before = tree(outputs)
    times = {p: p.stat().st_mtime_ns for p in outputs.rglob("*")}
    done = run.reproduce("secure", data=small_tier, outputs=outputs)
    assert (done.estimated, done.written) == (0, ())
    assert tree(outputs) == before
    assert {p: p.stat().st_mtime_ns for p in outputs.rglob("*")} == times


@pytest.mark.usefixtures("no_estimator")
def test_an_edited_template_renders_and_estimates_nothing(outputs: Path, small_tier: Path, tmp_path: Path) -> None:
    manuscript = shutil.copytree(MANUSCRIPT, tmp_path / "manuscript")
    template = manuscript / "exhibits" / "main_effects.md.j2"
    text = template.read_text(encoding="utf-8")
    title = next(line for line in text.splitlines() if line.startswith("title"))
    template.write_text(text.replace(title, 'title = "Effects under another name"'), encoding="utf-8")
    done = run.reproduce("secure", data=small_tier, outputs=outputs, manuscript=manuscript)
    assert done.estimated == 0
    assert "Effects under another name" in (outputs / "secure" / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_estimator")
def test_a_lost_or_altered_output_is_made_again(outputs: Path, small_tier: Path) -> None:
    before = tree(outputs)
    (outputs / "secure" / "report.pdf").unlink()
    (outputs / "secure" / "tables" / "balance.csv").write_text("nonsense")
    run.reproduce("secure", data=small_tier, outputs=outputs)
    assert tree(outputs) == before


def test_only_what_a_setting_touches_is_estimated_again(outputs: Path, small_tier: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    text = PATH.read_text(encoding="utf-8")
    block = text.index("[outcomes.violence]")
    path.write_text(text[:block] + text[block:].replace("last_year = 2019", "last_year = 2018", 1), encoding="utf-8")
    before = {r.analysis: r for r in results.read(outputs / "secure" / "results.csv")}
    done = run.reproduce("secure", data=small_tier, outputs=outputs, study_path=path)
    moved = {
        r.analysis for r in results.read(outputs / "secure" / "results.csv") if before[r.analysis].digest != r.digest
    }
    assert moved
    family = {"families/burglary", "families/antisocial_behaviour", "families/criminal_damage"}  # resampled together
    assert {"/".join(name.split("/")[:2]) for name in moved if "/violence/" not in name} == family
    assert done.estimated == len(moved)


def test_only_takes_an_analysis_a_pattern_or_an_exhibit(small_tier: Path, tmp_path: Path) -> None:
    done = run.reproduce("secure", data=small_tier, outputs=tmp_path, only=["effects/samhi"])
    assert done.estimated == sum(a.id.startswith("effects/samhi/") for a in studies.expand(studies.load()))
    assert {r.outcome for r in results.read(tmp_path / "secure" / "results.csv")} == {"samhi"}
    done = run.reproduce("secure", data=small_tier, outputs=tmp_path, only=["flow"])
    assert (tmp_path / "secure" / "tables" / "flow.csv").exists()
    assert done.estimated == 2
    assert not (tmp_path / "secure" / "report.pdf").exists()


def test_only_keeps_rows_that_hold_and_drops_those_of_other_settings(
    outputs: Path, small_tier: Path, tmp_path: Path
) -> None:
    """provenance.json records one study: no row of another may stand beside it."""
    path = tmp_path / "study.toml"
    path.write_text(PATH.read_text(encoding="utf-8").replace("conf_level = 0.95", "conf_level = 0.9"), encoding="utf-8")
    before = results.read(outputs / "secure" / "results.csv")
    said: list[str] = []
    run.reproduce("secure", data=small_tier, outputs=outputs, only=["effects/burglary"], say=said.append)
    assert results.read(outputs / "secure" / "results.csv") == before
    assert not said
    run.reproduce(
        "secure", data=small_tier, outputs=outputs, study_path=path, only=["effects/burglary"], say=said.append
    )
    after = results.read(outputs / "secure" / "results.csv")
    assert {r.analysis for r in after} == {r.analysis for r in before if r.analysis.startswith("effects/burglary")}
    assert {r.conf_level for r in after} <= {0.9, None}
    (told,) = (s for s in said if "left out" in s)
    assert "made for other settings, data or code" in told and "years" in told and "biglocal reproduce" in told
    # a family of which only a part is fresh has no correction
    assert all(r.p_adjusted is None for r in after)


@pytest.mark.parametrize("name", ["results.csv", run.CACHE])
def test_a_number_edited_by_hand_never_reaches_a_report(outputs: Path, small_tier: Path, name: str) -> None:
    before = tree(outputs)
    path = outputs / "secure" / name
    rows = results.read(path)
    from dataclasses import replace

    results.write_text(path, results.dumps([replace(r, estimate=9.0) if r.part == "effects" else r for r in rows]))
    said: list[str] = []
    done = run.reproduce("secure", data=small_tier, outputs=outputs, say=said.append)
    assert (done.reused == 0) == (name == run.CACHE)
    assert any("is not what the last run wrote" in s for s in said) == (name == run.CACHE)
    assert tree(outputs) == before


@pytest.mark.slow
def test_two_workers_and_other_surroundings_give_the_same_bytes(
    reproduced: Path, small_tier: Path, tmp_path: Path
) -> None:
    env = {
        "PYTHONHASHSEED": "77",
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "2",
        "RAYON_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "biglocal",
            "reproduce",
            "secure",
            "--data",
            small_tier,
            "--outputs",
            tmp_path,
            "--jobs",
            "2",
        ],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = tree(tmp_path / "secure"), tree(reproduced / "secure")
    assert ours.keys() == theirs.keys()
    assert [n for n in ours if ours[n] != theirs[n]] == []


@pytest.mark.slow
def test_a_killed_run_is_completed_by_the_next(reproduced: Path, small_tier: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "biglocal", "reproduce", "secure", "--data", small_tier, "--outputs", tmp_path]
    journal = tmp_path / "secure" / run.JOURNAL
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if journal.exists() and journal.read_text().count("effects/") > 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "secure" / "results.csv").exists()
    with journal.open("a") as f:
        f.write("effects/samhi/all/nearest/twfe/common_start/cluster,half a li")  # as a kill within a write leaves it
    done = cli(*command[3:])
    assert done.returncode == 0, done.stderr
    assert " 0 reused" not in done.stdout
    ours, theirs = tree(tmp_path / "secure"), tree(reproduced / "secure")
    assert [n for n in theirs if ours.get(n) != theirs[n]] == []
    assert not journal.exists()


def test_a_damaged_results_table_is_no_cache(outputs: Path, small_tier: Path) -> None:
    before = tree(outputs)
    (outputs / "secure" / run.CACHE).write_bytes(b"\xff\xfe not a table")
    done = run.reproduce("secure", data=small_tier, outputs=outputs)
    assert done.reused == 0
    assert tree(outputs) == before


# --- refusals, through the command line -------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, outputs: Path, *words: object) -> str:
    monkeypatch.setattr(sys, "argv", ["biglocal", "reproduce", *map(str, words), "--outputs", str(outputs)])
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 2
    left = [p for p in outputs.rglob("*") if p.is_file()]
    assert left == [], "something half-written stayed behind"
    return capsys.readouterr().err


def edited(folder: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / f"{table}.parquet"
    change(pd.read_parquet(path)).to_parquet(path)


def cell(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.reset_index(drop=True)
        frame[column] = frame[column].astype(object)
        frame.loc[4, column] = value
        frame[column] = frame[column].astype(str) if isinstance(value, str) else frame[column].astype(float)
        return frame

    return change


@pytest.mark.parametrize(
    ("table", "change", "parts"),
    [
        ("areas", lambda f: f.drop(columns="imd"), ("areas", "lacks column imd", "Add the column")),
        ("areas", cell("income", "lots"), ("areas", "column income: text where a number belongs", "1 of")),
        ("area_panel", lambda f: pd.concat([f, f.iloc[[7]]]), ("area_panel", "key (lsoa11, year) stands twice")),
        ("area_panel", cell("year", 1066.0), ("area_panel", "column year: below the least, 2010", "1 of")),
        ("areas", lambda f: f.assign(lsoa11=["E01000001x", *f["lsoa11"][1:]]), ("column lsoa11: a 2011 LSOA code",)),
        ("programme", lambda f: f.iloc[1:], ("table areas, column area_id", "is not in table programme", "Add it there")),
        ("survey", lambda f: f.assign(lsoa11=f["lsoa11"].astype(str).str.replace("E019", "E018")), ("table survey, column lsoa11", "is not in table areas")),
        ("areas", lambda f: f.assign(share=0.2), ("column share", "no LSOA has a share of at least 0.5")),
    ],
)  # fmt: skip
def test_bad_tables(
    small_tier: Path,
    tmp_path: Path,
    table: str,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    parts: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(small_tier, tmp_path / "lab")
    edited(folder, table, change)
    message = refused(capsys, monkeypatch, tmp_path / "outputs", "secure", "--data", folder)
    for part in ("biglocal: ", *parts):
        assert part in message


def test_an_empty_subgroup_is_refused_before_anything_is_estimated(
    small_tier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(PATH.read_text(encoding="utf-8").replace("cuts = [34, 64]", "cuts = [34, 164]"), encoding="utf-8")
    message = refused(capsys, monkeypatch, tmp_path / "outputs", "secure", "--data", small_tier, "--study", path)
    assert "high_anxiety/age: no rows left in subgroup '65 and over'" in message
    assert "study.toml" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sythetic",), "tier 'sythetic' does not exist"),
        (("open",), "needs --data DIR"),
        (("secure", "--data", "nowhere"), "no such folder"),
        (("synthetic", "--draws", "many"), "there are quick and full"),
        (("synthetic", "--only", "tabel"), "neither an exhibit"),
        (("synthetic", "--data", "."), "takes neither --data"),
        (("synthetic", "--study", "none.toml"), "no such file"),
    ],
)
def test_bad_words(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert message in refused(capsys, monkeypatch, tmp_path, *words)


def test_a_folder_that_cannot_be_written_is_one_sentence(
    small_tier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    words = [
        "biglocal",
        "reproduce",
        "secure",
        "--data",
        str(small_tier),
        "--outputs",
        str(tmp_path / "file"),
        "--only",
        "flow",
    ]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 2
    assert "choose another --outputs" in capsys.readouterr().err


def test_synthetic_tables_carry_their_banner_into_another_tier(
    reproduced: Path, small_tier: Path, tmp_path: Path
) -> None:
    assert "SYNTHETIC" in (reproduced / "secure" / "report.html").read_text(encoding="utf-8")
    from biglocal.data.load import load

    folder = shutil.copytree(small_tier, tmp_path / "lab")
    (folder / "truth.csv").unlink()
    assert load("secure", data=folder).banner == "SYNTHETIC"


def test_a_truncated_file_of_the_open_tier(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "open"
    shutil.copytree(real_data / "raw", folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    whole = gzip.compress(gzip.decompress((folder / "imd_2010.csv.gz").read_bytes()))
    (folder / "imd_2010.csv.gz").write_bytes(whole[: len(whole) // 2])
    placebo = ROOT / "tests" / "fixtures" / "placebo.csv"
    message = refused(capsys, monkeypatch, tmp_path / "o", "open", "--data", folder, "--treated", placebo)
    assert "imd_2010.csv.gz" in message
    assert "download it again" in message


# --- verification ------------------------------------------------------------------------------------------


def verified(outputs: Path, expected: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(run, "EXPECTED", expected)
    monkeypatch.setattr(sys, "argv", ["biglocal", "verify", "secure", "--outputs", str(outputs), *words])
    with pytest.raises(SystemExit) as e:
        main()
    return int(e.value.code or 0)


def test_verify(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tmp_path / "expected"
    assert verified(outputs, expected, monkeypatch) == 1
    assert "no reference" in capsys.readouterr().err
    assert verified(outputs, expected, monkeypatch, "--accept") == 0
    assert verified(outputs, expected, monkeypatch) == 0
    path = expected / "secure-quick.csv"
    rows = results.read(path)
    i = next(i for i, r in enumerate(rows) if r.part == "effects" and r.outcome == "samhi" and r.std_error)
    from dataclasses import replace

    moved = [replace(r, estimate=r.estimate + r.std_error) if j == i else r for j, r in enumerate(rows)]
    results.write_text(path, results.dumps(moved))
    capsys.readouterr()
    assert verified(outputs, expected, monkeypatch) == 1
    said = capsys.readouterr().out
    assert f"{rows[i].key}: estimate " in said
    assert "1 standard errors apart" in said
    results.write_text(path, results.dumps(rows))
    (outputs / "secure" / "tables" / "balance.csv").write_text("altered")
    assert verified(outputs, expected, monkeypatch) == 1
    assert "tables/balance.csv: changed or lost after the run" in capsys.readouterr().out


def test_verify_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verified(tmp_path, tmp_path, monkeypatch) == 1
    assert "Run `biglocal reproduce secure` first" in capsys.readouterr().err


def test_parts_on_request_that_hold_no_longer_are_named() -> None:
    plan = expand(load_study())
    table = [r for r in fake_rows.rows(load_study()) if r.part in ("placebo", "effects")]
    assert {r.part for r in table} == {"placebo", "effects"}
    assert run._outdated(table, plan, {a.id for a in plan if a.part != "placebo"}) == ("placebo",)
    assert run._outdated(table, plan, {a.id for a in plan}) == ()
    assert run._outdated([], plan, set()) == ()
