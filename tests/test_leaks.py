"""Nothing of a secure file's rows in any output, log or error: recognisable values are planted, and looked for."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from biglocal import release, results
from biglocal.__main__ import main
from biglocal.study import PATH

PERSON = 987_654_321  # no other number of the run begins like this
WEIGHT = 7.654321987654
AREA = "Zanzibarshire"
ODD = "Xylophone"
Done = subprocess.CompletedProcess[bytes]
MARKS = (str(PERSON), "7.6543219", AREA, ODD)


@pytest.fixture(scope="module")
def lab(small_tier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's files with values in them that one can find again; good ones."""
    folder = tmp_path_factory.mktemp("planted")
    for file in small_tier.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    survey = pd.read_parquet(folder / "survey.parquet").reset_index(drop=True)
    survey["person_id"] = survey["person_id"].astype("int64") + PERSON * 10_000_000
    survey.loc[::50, "weight"] = WEIGHT
    survey.to_parquet(folder / "survey.parquet")
    programme = pd.read_parquet(folder / "programme.parquet")
    programme["area_name"] = AREA
    programme.to_parquet(folder / "programme.parquet")
    return folder


def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: object) -> Done:
    """The same in this process: what is written to the two streams, by whomever."""
    monkeypatch.setattr(sys, "argv", ["biglocal", "reproduce", "secure", *map(str, words)])
    with pytest.raises(SystemExit) as e:
        main()
    said = capfd.readouterr()
    return subprocess.CompletedProcess([], int(str(e.value.code)), said.out.encode(), said.err.encode())


def reproduce(*words: object) -> Done:
    command = [sys.executable, "-m", "biglocal", "reproduce", "secure", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False)


def searchable(data: bytes) -> bytes:
    """A file's bytes, with the streams of a PDF unpacked."""
    if data.startswith(b"%PDF"):
        for stream in re.findall(rb"stream\r?\n(.*?)endstream", data, re.DOTALL):
            try:
                data += zlib.decompress(stream)
            except zlib.error:
                continue
    return data


def leaks(done: Done, outputs: Path, *more: str) -> list[str]:
    """Where a planted value stands, in what may leave."""
    texts = {"stdout": done.stdout, "stderr": done.stderr}
    for file in outputs.rglob("*"):
        inside = file.relative_to(outputs)
        if file.is_file() and release.HELD not in inside.parts:
            texts[str(inside)] = searchable(file.read_bytes())
    return [f"{name}: {mark}" for name, text in texts.items() for mark in (*MARKS, *more) if mark.encode() in text]


def test_a_whole_run_shows_no_row(lab: Path, tmp_path: Path) -> None:
    done = reproduce("--data", lab, "--outputs", tmp_path)
    assert done.returncode == 0, done.stderr
    assert leaks(done, tmp_path) == []
    out = tmp_path / "secure"
    assert {p.name for p in (out / release.HELD).iterdir()} >= {"README.txt", "results.csv"}
    held, shown = (results.read(p / "results.csv") for p in (out / release.HELD, out))
    assert all(r.n_least is None for r in shown)
    persons = [(a, b) for a, b in zip(held, shown, strict=True) if a.n_least is not None]
    assert persons
    for a, b in persons:  # no count of persons leaves as it was, but by chance
        assert b.n_obs is None or b.n_obs % 5 == 0
        assert b.status == "suppressed" or (a.n_least or 0) >= 10
    # what was withheld is in no number behind the text either
    assert "n_least" not in (out / "numbers.json").read_text()


def test_a_search_that_would_find_a_leak(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"a,{PERSON}\n")
    done = subprocess.CompletedProcess([], 0, b"", AREA.encode())
    assert leaks(done, tmp_path) == [f"stderr: {AREA}", f"x.csv: {PERSON}"]
    assert str(PERSON).encode() in pd.read_parquet(lab / "survey.parquet")["person_id"].astype(str).iloc[0].encode()


def put(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        column_ = frame[column].astype(object)
        column_.iloc[4] = value
        return frame.assign(**{column: column_.astype(str)})

    return change


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        ("survey", put("age", ODD), "column age"),
        ("survey", put("age", f"{PERSON}"), "column age"),
        ("survey", put("anxiety", f"{PERSON}"), "column anxiety"),
        ("survey", put("sex", ODD), "column sex"),
        ("survey", put("lsoa11", ODD), "column lsoa11"),
        ("survey", put("lsoa11", "E01999999"), "column lsoa11"),
        ("survey", put("weight", f"-{WEIGHT}"), "column weight"),
        ("survey", lambda f: pd.concat([f, f.iloc[[3]]]), "stands twice"),
        ("survey", lambda f: f.drop(columns="age"), "lacks column age"),
        ("survey", lambda f: f.set_axis([ODD, *f.columns[1:]], axis=1), "lacks column person_id"),
        ("survey", lambda f: f.set_axis([f"{PERSON}", ODD, AREA, *f.columns[3:]], axis=1), "lacks column"),
        ("programme", put("wave", ODD), "column wave"),
        ("programme", put("announced", ODD), "column announced"),
        ("areas", put("area_id", AREA), "column area_id"),
        ("areas", put("region", ODD), "column region"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_an_error_names_no_value(
    lab: Path, tmp_path: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame], says: str,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "lab"
    folder.mkdir()
    for file in lab.iterdir():
        if file.stem != table:
            (folder / file.name).symlink_to(file)
    change(pd.read_parquet(lab / f"{table}.parquet").head(500)).to_csv(folder / f"{table}.csv", index=False)
    words = ("--data", folder, "--outputs", tmp_path / "outputs", "--only", "effects/high_anxiety")
    done = refused(monkeypatch, capfd, *words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr.decode()
    assert leaks(done, tmp_path / "outputs", "E01999999") == []


def test_a_level_nobody_is_in_names_no_value(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.toml"
    study.write_text(PATH.read_text(encoding="utf-8").replace("cuts = [34, 64]", "cuts = [34, 119]"), encoding="utf-8")
    done = refused(
        monkeypatch,
        capfd,
        "--data",
        lab,
        "--outputs",
        tmp_path / "o",
        "--study",
        study,
        "--only",
        "subgroups/high_anxiety/age",
    )
    assert done.returncode == 2, done.stderr
    assert re.search(
        r"no rows left in subgroup '65 and over' \(age has values \d+ kinds, not shown\)", done.stderr.decode()
    )


def test_an_unforeseen_error_keeps_its_text_inside(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(f"could not convert string to float: '{ODD}'")

    monkeypatch.setattr("biglocal.estimate.estimate", fail)
    done = refused(monkeypatch, capfd, "--data", lab, "--outputs", tmp_path, "--only", "effects/high_anxiety")
    assert done.returncode == 2
    assert b"an unforeseen ValueError" in done.stderr
    assert leaks(done, tmp_path) == []
    assert ODD in (tmp_path / "secure" / release.HELD / "error.txt").read_text()
