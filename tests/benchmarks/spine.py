"""The main job, timed as a user meets it: program time of whole commands, each in a fresh process.

nox -s benchmark -- spine   # prints the table; --data and --treated add the open tier
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from measure import ROOT, command, say, table


def run(words: list[str]) -> tuple[float, float, float]:
    return command(["-m", "biglocal", *words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--treated", type=Path, default=ROOT / "tests" / "fixtures" / "placebo.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = ["--outputs", folder]
        lines = [("first run", *run(["reproduce", *outputs]))]
        lines.append(("second run, nothing changed", *run(["reproduce", *outputs])))
        template = ROOT / "manuscript" / "exhibits" / "flow.md.j2"
        kept = template.read_bytes()
        try:
            template.write_bytes(kept + b"\nOne more sentence.\n")
            lines.append(("after editing one template", *run(["reproduce", *outputs])))
        finally:
            template.write_bytes(kept)
        shutil.rmtree(Path(folder) / "synthetic")
        lines.append(("first run, two workers", *run(["reproduce", "--jobs", "2", *outputs])))
        lines.append(("full draws after quick: only the bootstrap", *run(["reproduce", "--draws", "full", *outputs])))
        if args.data:
            words = ["reproduce", "open", "--data", str(args.data), "--treated", str(args.treated), *outputs]
            lines.append(("real data, placebo list", *run(words)))
    lines.append(("--help", *run(["--help"])))
    rows = [[name, f"{seconds:.1f}", f"{processor:.1f}", f"{peak:,.0f}"] for name, seconds, processor, peak in lines]
    say(table(["command", "seconds", "processor s", "peak MB"], rows))


if __name__ == "__main__":
    main()
