"""Draw a PLACEBO list of treated LSOAs, so that the whole chain runs on real data without the real list.

    python data-raw/placebo.py --data DIR --out FILE [--areas 150] [--seed 1]

Areas are drawn, not chosen: each is 4 to 6 LSOAs of one MSOA, all among the deprived fifth of England by the
Index of Multiple Deprivation 2010, in three waves of equal size. Any effect found with such a list is chance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from biglocal.data.open import read_areas
from biglocal.model import BiglocalError
from biglocal.placebo import draw_list


def draw(data: Path, areas: int, seed: int) -> str:
    """The text of the list: a comment line, the header, one row an LSOA in the order of areas and codes.

    Raises `DataError` where the folder has too few MSOAs with enough deprived LSOAs.
    """
    import numpy as np

    rng = np.random.default_rng(seed)  # the seed of the draw stands in the list's first line
    lines = [f"# PLACEBO list of {areas} areas drawn at random, seed {seed}: not the Big Local areas"]
    lines.append("lsoa11,area_id,area_name,wave,share")
    rows = draw_list(read_areas(data), areas, rng).itertuples()
    lines += [f"{r.lsoa11},{r.area_id},Placebo area {str(r.area_id)[1:]},{r.wave},1" for r in rows]
    return "\n".join(lines) + "\n"


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
