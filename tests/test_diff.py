"""What moved between two runs, and why."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from biglocal.diff import diff, moved
from biglocal.model import DataError
from biglocal.study import ROOT, load
from fake_rows import rows

ONLY = "--only=effects/burglary/all/nearest/twfe/common_start/cluster"


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def one_value(clone: Path) -> None:
    """Another burglary rate in one year of one treated LSOA."""
    import pandas as pd

    areas = pd.read_csv(clone / "data/areas.csv", usecols=["lsoa11", "imd", "share"])
    treated = areas[areas["share"] > 0.9].sort_values("imd")["lsoa11"].iloc[-40]  # well inside the pool
    path = clone / "data/area_panel.csv"
    panel = pd.read_csv(path)
    panel.loc[(panel["lsoa11"] == treated) & (panel["year"] == 2016), "burglary_z"] += 0.123
    panel.to_csv(path, index=False)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "data": (one_value, "cause: data: area_panel.csv changed"),
    "code": (
        lambda c: edit(c / "analysis/biglocal/estimators/twfe.py", 'd = frame["d"].to_numpy(dtype=float)', 'd = 2 * frame["d"].to_numpy(dtype=float)'),
        "cause: code: estimators/twfe.py changed",
    ),
    "lock": (lambda c: edit(c / "locks/run.txt", "numpy==", "numpy==9"), "cause: lock: numpy "),
    "seed": (lambda c: edit(c / "analysis/study.toml", "seed = 16_09_13", "seed = 16_09_14"), "cause: seed: 160913 -> 160914"),
    "study": (lambda c: edit(c / "analysis/study.toml", "conf_level = 0.95", "conf_level = 0.9"), "cause: study: policy changed"),
}  # fmt: skip


def reproduce(clone: Path, outputs: Path) -> Path:
    words = ["-m", "biglocal", "reproduce", "secure", "--data", str(clone / "data"), "--outputs", str(outputs), ONLY]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=clone,
        env={"PYTHONPATH": str(clone / "analysis")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return outputs / "secure"


@pytest.fixture(scope="module")
def clone(small_tier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that may be changed, its data as CSV, and a first run of it."""
    import pandas as pd

    to = tmp_path_factory.mktemp("clone")
    for part in ("analysis", "manuscript", "locks", "data-raw"):
        shutil.copytree(ROOT / part, to / part, ignore=shutil.ignore_patterns("__pycache__"))
    (to / "data").mkdir()
    for file in small_tier.iterdir():
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
        frame.to_csv(to / "data" / f"{file.stem}.csv", index=False)
    reproduce(to, to / "first")
    return to


@pytest.mark.parametrize("name", CHANGES)
def test_exactly_the_cause_is_named(name: str, clone: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(clone, tmp_path / "changed")
    change, said = CHANGES[name]
    change(changed)
    told = diff(clone / "first/secure", reproduce(changed, tmp_path / "second"), 0.05).splitlines()
    causes = [line for line in told if line.startswith("cause: ")]
    assert len(causes) == 1, told
    assert causes[0].startswith(said)
    if name in ("data", "code"):
        assert "1 rows differ" in "\n".join(told)


def test_two_runs_of_the_same(clone: Path) -> None:
    told = diff(clone / "first/secure", clone / "first/secure", 0.05)
    assert "cause: none" in told
    assert "0 rows differ" in told


def test_moves_in_standard_errors_sign_and_significance() -> None:
    table = [r for r in rows(load()) if r.part == "effects" and r.inference == "cluster"]
    a = replace(table[0], estimate=0.3, std_error=0.1, p_value=0.003, p_adjusted=None)
    b = replace(a, estimate=-0.05, p_value=0.62)
    ((size, said),) = moved([a, table[1]], [b, table[1]], 0.05)
    assert size == pytest.approx(3.5)
    assert (
        said
        == f"{a.key}: 0.3 -> -0.05 (3.5 standard errors); SIGN CHANGED; SIGNIFICANCE CHANGED at 0.05: p 0.003 -> 0.62"
    )
    assert moved([a], [replace(a, digest="other")], 0.05) == ()
    assert [m[1] for m in moved([a], [], 0.05)] == [f"{a.key}: only in the first run"]


def test_altered_outputs_and_empty_folders_are_told(clone: Path, tmp_path: Path) -> None:
    other = shutil.copytree(clone / "first/secure", tmp_path / "secure")
    (other / "results.csv").write_text(
        (other / "results.csv").read_text(encoding="utf-8").replace("z-score", "z"), encoding="utf-8"
    )
    assert "results.csv: changed after the run" in diff(clone / "first/secure", other, 0.05)
    with pytest.raises(DataError, match="no record of a run"):
        diff(clone / "first/secure", tmp_path, 0.05)
