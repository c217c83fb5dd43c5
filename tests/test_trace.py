"""From a printed number back to what it is made of."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from biglocal import results
from biglocal.model import DataError, StudyError
from biglocal.study import HERE, PATH, load
from biglocal.trace import trace

STUDY = load(PATH)


def row(out: Path) -> results.Row:
    rows = results.read(out / "results.csv")
    (one,) = (r for r in rows if r.part == "effects" and r.outcome == "burglary" and r.inference == "cluster")
    return one


def test_a_number_as_printed_leads_to_row_line_data_and_seed(reproduced: Path, small_tier: Path) -> None:
    out = reproduced / "secure"
    numbers = json.loads((out / "numbers.json").read_text(encoding="utf-8"))
    burglary = row(out)
    entry = next(
        n
        for name, n in numbers.items()
        if name.startswith("main_effects.") and n["row"] == burglary.key and "Estimate" in name
    )
    told = trace(out, entry["text"].replace("\u2212", "-"), STUDY)  # typed with a hyphen
    assert f"exhibits/main_effects.md.j2: {entry['source']}" in told
    assert f"row        {burglary.key}" in told
    assert f"estimate {burglary.estimate:.10g}" in told
    line = int(re.search(r"estimators/twfe.py line (\d+), estimate\(\)", told)[1])  # type: ignore[index]
    assert (
        (HERE / "estimators" / "twfe.py").read_text(encoding="utf-8").splitlines()[line - 1].startswith("def estimate(")
    )
    at = int(re.search(r"outcomes.burglary \(study.toml line (\d+)\)", told)[1])  # type: ignore[index]
    assert PATH.read_text(encoding="utf-8").splitlines()[at - 1] == "[outcomes.burglary]"
    assert f"default_rng([{STUDY.seed}, " in told
    table = next(p for p in small_tier.iterdir() if p.stem == "area_panel")
    assert re.search(rf"raw +{table.name}, sha256 [0-9a-f]{{12}}", told)
    assert "CHANGED SINCE" not in told


def test_the_line_of_results_is_right(reproduced: Path) -> None:
    out = reproduced / "secure"
    burglary = row(out)
    at = int(re.search(r"results.csv line (\d+)", trace(out, burglary.key, STUDY))[1])  # type: ignore[index]
    assert (out / "results.csv").read_text(encoding="utf-8").splitlines()[at - 1].startswith(burglary.analysis + ",")


def test_every_number_can_be_traced(reproduced: Path) -> None:
    out = reproduced / "secure"
    rows = {r.key for r in results.read(out / "results.csv")}
    numbers = json.loads((out / "numbers.json").read_text(encoding="utf-8"))
    lost = [name for name, n in numbers.items() if "row" in n and n["row"] not in rows]
    assert not lost
    assert sum("row" in n for n in numbers.values()) > 300
    assert all(n["source"] for n in numbers.values())


def test_an_exhibit_names_its_rows_and_files(reproduced: Path) -> None:
    out = reproduced / "secure"
    told = trace(out, "main_effects", STUDY)
    assert row(out).key in told
    for file in ("tables/main_effects.csv", "figures/main_effects.svg"):
        assert f"made       {file}, sha256 " in told


def test_unknown_numbers_and_folders_are_refused(reproduced: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no exhibit, analysis, row or number.*main_effects"):
        trace(reproduced / "secure", "77.777", STUDY)
    with pytest.raises(DataError, match=r"no record of a run.*biglocal reproduce"):
        trace(tmp_path, "1", STUDY)
