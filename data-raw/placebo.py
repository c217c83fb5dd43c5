"""Draw a PLACEBO list of treated LSOAs, so that the whole chain runs on real data without the real list.

    python data-raw/placebo.py --data DIR --out FILE [--areas 150] [--seed 1]

Areas are drawn, not chosen: each is 4 to 6 LSOAs of one MSOA, all among the deprived fifth of England by the
Index of Multiple Deprivation 2010, in three waves of equal size. Any effect found with such a list is chance.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from biglocal.data.open import read_areas
from biglocal.model import BiglocalError, DataError

SMALLEST, LARGEST = 4, 6


def draw(data: Path, areas: int, seed: int) -> str:
    """The text of the list: a comment line, the header, one row an LSOA in the order of areas and codes.

    Raises `DataError` where the folder has too few MSOAs with enough deprived LSOAs.
    """
    import numpy as np

    rng = np.random.default_rng(seed)  # the seed of the draw stands in the list's first line
    frame = read_areas(data)[["lsoa11", "msoa11", "imd"]].dropna().sort_values("lsoa11")
    deprived = frame[frame["imd"] >= frame["imd"].quantile(0.8)]
    groups = [(str(m), g["lsoa11"].to_numpy(dtype=str)) for m, g in deprived.groupby("msoa11") if len(g) >= SMALLEST]
    if len(groups) < areas:
        raise DataError(
            f"--areas {areas}: only {len(groups)} MSOAs hold {SMALLEST} LSOAs of the deprived fifth. "
            f"Ask for fewer areas."
        )
    # larger groups more often, so that some 750 LSOAs come together, as in the programme
    weight = np.array([min(len(lsoas), LARGEST) - SMALLEST + 1 for _, lsoas in groups], dtype=float)
    chosen = rng.choice(len(groups), size=areas, replace=False, p=weight / weight.sum())
    waves = rng.permutation(np.arange(areas) % 3 + 1)
    out = io.StringIO()
    out.write(f"# PLACEBO list of {areas} areas drawn at random, seed {seed}: not the Big Local areas\n")
    out.write("lsoa11,area_id,area_name,wave,share\n")
    for number, (group, wave) in enumerate(zip(chosen, waves, strict=True), start=1):
        lsoas = groups[group][1]
        size = min(len(lsoas), LARGEST)
        for lsoa in sorted(rng.choice(lsoas, size=size, replace=False)):
            out.write(f"{lsoa},P{number:03d},Placebo area {number:03d},{wave},1\n")
    return out.getvalue()


def main() -> int:
    """Write the list; exit code 1 with a message where it cannot be drawn."""
    parser = argparse.ArgumentParser(description="Draw a PLACEBO list of treated LSOAs.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the files of the open tier")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    parser.add_argument("--areas", type=int, default=150, help="areas to draw, a third in each wave")
    parser.add_argument("--seed", type=int, default=1, help="seed of the draw")
    given = parser.parse_args()
    try:
        text = draw(given.data, given.areas, given.seed)
    except BiglocalError as error:
        print(error, file=sys.stderr)
        return 1
    beside = given.out.with_name(given.out.name + ".part")
    beside.write_text(text, encoding="utf-8", newline="\n")
    beside.replace(given.out)
    print(f"{given.out}: {len(text.splitlines()) - 2} LSOAs in {given.areas} areas")
    return 0


if __name__ == "__main__":
    sys.exit(main())
