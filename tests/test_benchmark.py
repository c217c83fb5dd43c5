"""The benchmark runs, and times what it says it times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from biglocal.estimators import fit

FOLDER = Path(__file__).with_name("benchmarks")


def test_a_task_says_effect_time_and_memory(tmp_path: Path) -> None:
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
    made = f"import simulate; from pathlib import Path; simulate.write(Path({str(tmp_path)!r}), 2000, 50)"
    subprocess.run([sys.executable, "-c", made], env=here, check=True)
    words = [str(FOLDER / "estimators.py"), "--folder", str(tmp_path), "--task", "gardner", "--runs", "1"]
    kept = (FOLDER / "results.md").read_bytes()
    told = subprocess.run([sys.executable, *words], env=here, capture_output=True, text=True, check=True).stdout
    assert (FOLDER / "results.md").read_bytes() == kept  # only the whole table is written
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in told.splitlines()]
    (line,) = [c for c in cells if c and c[0] == "biglocal"]
    columns = {"y": "y", "unit": "unit", "time": "year", "first_treated": "g", "cluster": "area"}
    att = fit("imputation", pd.read_csv(tmp_path / "panel.csv"), options={"errors": "gardner"}, **columns).terms[0]
    assert line[-2:] == [f"{att.estimate:.10f}", f"{att.std_error:.10f}"]
    assert all(float(x.replace(",", "")) > 0 for x in line[2:-2])
    (held,) = [c for c in cells if c and len(c) == 5 and c[1] == "biglocal"]
    assert held[2] == "at most 1 x R did2s (3.786 s)"
    assert held[4] == "yes"
