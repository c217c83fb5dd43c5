"""Street-level crime at the volume of real archives: seconds and peak memory of counting N million rows.

nox -s benchmark -- police --data DIR [--millions 2 5 10]

The volume is a real archive's months again and again, each under another month, force and identifiers.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

from measure import command, say

FORCES = ("west-yorkshire", "force-b", "force-c", "force-d", "force-e", "force-f")
MONTHS = [f"{y}-{m:02d}" for y in range(2011, 2023) for m in range(1, 13)]
JOB = """
import sys; from pathlib import Path; import pandas as pd
from biglocal.data import folder, police
at = folder.folder(Path(sys.argv[1]))
areas = pd.read_csv(sys.argv[2])[["lsoa11", "lad13"]].rename(columns={"lad13": "district"})
police.read(at.street, areas, 12)
"""


def volume(source: Path, out: Path, rows: int) -> int:
    """Write a zip of at least `rows` rows made from the months in `source`; returns how many."""
    made = 0
    with zipfile.ZipFile(source) as packed, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        months = [(name[:7], packed.read(name).decode()) for name in sorted(packed.namelist()) if "-street" in name]
        for k in range(len(FORCES) * len(MONTHS)):
            old, text = months[k % len(months)]
            month, force = MONTHS[k % len(MONTHS)], FORCES[k // len(MONTHS)]
            head, *lines = text.splitlines(keepends=True)
            body = "".join((line if line[0] == "," else f"{k:04x}{line[4:]}").replace(old, month, 1) for line in lines)
            archive.writestr(f"{month}/{month}-{force}-street.csv", head + body)
            made += len(lines)
            if made >= rows:
                return made
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with police_uk_west_yorkshire.zip and england_lsoa11.csv.gz"
    )
    parser.add_argument("--millions", type=float, nargs="+", default=[2, 5, 10])
    args = parser.parse_args()
    say("| rows | seconds | processor s | peak MB |\n| ---: | ---: | ---: | ---: |")
    for millions in args.millions:
        with tempfile.TemporaryDirectory() as folder:
            made = volume(args.data / "police_uk_west_yorkshire.zip", Path(folder) / "volume.zip", int(millions * 1e6))
            words = ["-c", JOB, folder, str(args.data / "england_lsoa11.csv.gz")]
            seconds, processor, peak = command(words)
            say(f"| {made:,} | {seconds:.1f} | {processor:.1f} | {peak:,.0f} |")


if __name__ == "__main__":
    main()
