"""The main job, timed as a user meets it: program time of whole commands, each in a fresh process.

nox -s benchmark            # prints the table; --data and --treated add the open tier
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def measure(words: list[str]) -> tuple[float, float]:
    """Seconds and peak MB of one command."""
    start = time.perf_counter()
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "biglocal", *words])
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"biglocal {' '.join(words)} failed")
    return time.perf_counter() - start, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--treated", type=Path, default=ROOT / "tests" / "fixtures" / "placebo.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = ["--outputs", folder]
        lines = [("first run", *measure(["reproduce", *outputs]))]
        lines.append(("second run, nothing changed", *measure(["reproduce", *outputs])))
        template = ROOT / "manuscript" / "exhibits" / "flow.md.j2"
        kept = template.read_bytes()
        try:
            template.write_bytes(kept + b"\nOne more sentence.\n")
            lines.append(("after editing one template", *measure(["reproduce", *outputs])))
        finally:
            template.write_bytes(kept)
        shutil.rmtree(Path(folder) / "synthetic")
        lines.append(("first run, two workers", *measure(["reproduce", "--jobs", "2", *outputs])))
        lines.append(
            ("full draws after quick: only the bootstrap", *measure(["reproduce", "--draws", "full", *outputs]))
        )
        if args.data:
            words = ["reproduce", "open", "--data", str(args.data), "--treated", str(args.treated), *outputs]
            lines.append(("real data, placebo list", *measure(words)))
    lines.append(("--help", *measure(["--help"])))
    sys.stdout.write("| command | seconds | peak MB |\n| --- | --- | --- |\n")
    for name, seconds, peak in lines:
        sys.stdout.write(f"| {name} | {seconds:.1f} | {peak:,.0f} |\n")


if __name__ == "__main__":
    main()
