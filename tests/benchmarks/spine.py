"""The main job, timed as a user meets it: program time of whole commands, each in a fresh process.

nox -s benchmark -- spine              # to tests/benchmarks/results.md; --data and --treated add the open tier
nox -s benchmark -- spine --requests   # and the parts that take minutes: placebo lists, recovery, simulation, multiverse, a million draws
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from pathlib import Path

from measure import ROOT, command, load, put, say, table

from biglocal.study import PATH

SESSIONS = {  # of the noxfile: the exhibits that each makes
    "placebo": ["placebo"],
    "recover": ["recovery"],
    "simulate": ["simulation", "few_areas", "simulated_power"],
    "multiverse": ["multiverse"],
}


def run(words: list[str]) -> tuple[float, float, float]:
    return command(["-m", "biglocal", *words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--treated", type=Path, default=ROOT / "tests" / "fixtures" / "placebo.csv")
    parser.add_argument("--requests", action="store_true")
    args = parser.parse_args()
    began = load()
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
        if args.requests:
            for session, exhibits in SESSIONS.items():
                words = ["reproduce", *(f"--only={e}" for e in exhibits), "--jobs", "2", *outputs]
                lines.append((f"nox -s {session} -- --jobs 2", *run(words)))
            million = Path(folder) / "study.toml"
            million.write_text(
                re.sub(r"(draws_(quick|full) =) [\d_]+", r"\1 1_000_000", PATH.read_text("utf-8")), "utf-8"
            )
            words = ["reproduce", "--only=randomisation", "--study", str(million), "--jobs", "2", *outputs]
            lines.append(("a million draws of each of its tests, two workers", *run(words)))
        if args.data:
            words = ["reproduce", "open", "--data", str(args.data), "--treated", str(args.treated), *outputs]
            lines.append(("real data, placebo list", *run(words)))
    lines.append(("--help", *run(["--help"])))
    rows = [[name, f"{seconds:.1f}", f"{processor:.1f}", f"{peak:,.0f}"] for name, seconds, processor, peak in lines]
    made = table(["command", "seconds", "processor s", "peak MB"], rows)
    say(made)
    if not args.data:
        put(
            "The main job",
            f"""Made by `nox -s benchmark -- spine`: whole commands on the synthetic tier, each in a fresh process, once. Peak memory is
of the largest process. R has no like of it. Processes that wanted a core when it began and ended: {began} and {load()}.

{made}""",
        )


if __name__ == "__main__":
    main()
