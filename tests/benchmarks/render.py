"""Seconds of rendering, the whole program as it is run, in a copy of the project.

nox -s benchmark -- render [--runs 3]

From rows that hold: the report in every format with nothing left of an earlier one; after one exhibit's template was
edited; that exhibit alone (`--only`); and a run in which nothing changed. The processor's seconds stand beside, as the
clock's count what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import ROOT, command, load, machine, say, table

EXHIBIT = "power"


def emptied(clone: Path) -> None:
    """Of the outputs the rows alone are left."""
    for path in (clone / "outputs" / "synthetic").iterdir():
        if path.name == "not-for-release":
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def edited(clone: Path) -> None:
    with (clone / "manuscript" / "exhibits" / f"{EXHIBIT}.md.j2").open("a", encoding="utf-8") as file:
        file.write("\nOne more sentence.\n")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=int, default=3)
    runs = options.parse_args().runs
    cases: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
        "all formats, nothing there": (emptied, ()),
        "one template edited": (edited, ()),
        f"one template edited, `--only {EXHIBIT}`": (edited, ("--only", EXHIBIT)),
        "nothing changed": (lambda _: None, ()),
    }
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "copy"
        for part in ("analysis", "manuscript", "locks", "data-raw"):
            ignored = shutil.ignore_patterns("__pycache__", "open", "secure")
            shutil.copytree(ROOT / part, clone / part, ignore=ignored)
        os.environ["PYTHONPATH"] = str(clone / "analysis")
        program = ["-m", "biglocal", "reproduce"]
        command(program)
        lines = []
        for name, (prepare, words) in cases.items():
            took = []
            for _ in range(runs):
                prepare(clone)
                took.append(command([*program, *words]))
            if words:
                command(program)  # the report whole again, for the case that follows
            lines.append([name, *(f"{statistics.median(t):.2f}" for t in zip(*took, strict=True))])
        size = (clone / "outputs" / "synthetic" / "report.html").stat().st_size
    say(table(["rendering", "seconds", "processor seconds", "peak MB"], lines))
    say(f"report.html: {size / 1e6:.2f} MB. {machine(['typst', 'python-docx'])} Load {load()}.")


if __name__ == "__main__":
    main()
