"""SWEMWBS, the Short Warwick-Edinburgh Mental Wellbeing Scale: from seven answers to a metric score of 7 to 35.

Each item runs from 1 (none of the time) to 5 (all of the time), and all seven are worded positively. Their sum, 7 to
35, is turned into a metric score by the table of the Rasch analysis (Stewart-Brown et al. 2009, Health and Quality of
Life Outcomes 7:15). Rule for missing items: the table is defined for the sum of seven answers (guidance on scoring,
University of Warwick), so a person with an item missing has no score; nothing is filled in here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from biglocal.data.tables import EXPOSURES, several
from biglocal.model import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ITEMS = tuple(f"swemwbs_{i}" for i in range(1, 8))
METRIC = (
    7.00, 9.51, 11.25, 12.40, 13.33, 14.08, 14.75, 15.32, 15.84, 16.36, 16.88, 17.43, 17.98, 18.59, 19.25,
    19.98, 20.73, 21.54, 22.35, 23.21, 24.11, 25.03, 26.02, 27.03, 28.13, 29.31, 30.70, 32.55, 35.00,
)  # fmt: skip
ENOUGH = 30  # rows below which the direction of an item is not judged


def metric(total: Any) -> np.ndarray:
    """The metric score of raw sums `total` (n,), NaN for NaN.

    Raises `DataError` for a sum outside 7 to 35, or one that is not whole.
    """
    import numpy as np

    total = np.asarray(total, dtype=float)
    known = np.isfinite(total)
    bad = known & ((total < 7) | (total > 35) | (total % 1 != 0))
    if bad.any():
        raise DataError(
            f"SWEMWBS: a sum of seven items is a whole number from 7 to 35, seen {total[bad][0]:g} "
            f"({int(bad.sum()):,} such). Sum all seven items, each coded 1 to 5."
        )
    out = np.full(total.shape, np.nan)
    out[known] = np.array(METRIC)[total[known].astype(int) - 7]
    return out


def score(items: Any) -> np.ndarray:
    """The metric score (n,) of answers `items` (n, 7), 7 to 35; NaN where any of the seven is missing.

    Raises `DataError` where there are not seven columns, or an answer is not one of 1, 2, 3, 4, 5.
    """
    import numpy as np

    answers = np.asarray(items, dtype=float)
    if answers.ndim != 2 or answers.shape[1] != len(ITEMS):
        raise DataError(f"SWEMWBS: answers of shape {answers.shape}, (persons, 7) expected. Give the seven items.")
    bad = np.isfinite(answers) & ~np.isin(answers, (1, 2, 3, 4, 5))
    if bad.any():
        row, column = (int(i[0]) for i in np.nonzero(bad))
        raise DataError(
            f"SWEMWBS: item {column + 1} of row {row + 1} is {answers[row, column]:g}; answers are 1 (none of the "
            f"time) to 5 (all of the time). Recode them; set missing codes to missing."
        )
    return metric(answers.sum(axis=1))


def against_the_others(items: Any) -> tuple[tuple[int, float], ...]:
    """Items that run against the other six: (position from 0, correlation with the sum of the others).

    All seven are worded positively, so a negative corrected item-total correlation means reversed codes. An item is
    named where the upper end of the correlation's 99.9% interval (Fisher's z) lies below nought; of fewer than 30
    complete rows, or an item that never varies, nothing is said.
    """
    import numpy as np

    answers = np.asarray(items, dtype=float)
    answers = answers[np.isfinite(answers).all(axis=1)]
    if len(answers) < ENOUGH:
        return ()
    found = []
    for i in range(answers.shape[1]):
        one, rest = answers[:, i], answers.sum(axis=1) - answers[:, i]
        if one.std() == 0 or rest.std() == 0:
            continue
        r = float(np.corrcoef(one, rest)[0, 1])
        if np.arctanh(np.clip(r, -0.999999, 0.999999)) + 3.29 / np.sqrt(len(answers) - 3) < 0:
            found.append((i, r))
    return tuple(found)


def scored(frame: pd.DataFrame, source: str, *, quiet: bool = False) -> pd.DataFrame:
    """The table `residents` with its score, once its columns have been held against the contract one by one.

    `swemwbs` is made from the items wherever one is answered; rows without any item keep the score they come with.

    Raises `DataError`, naming `source` and (unless `quiet`) the person, where a row without a response has answers,
    an item runs against the other six, or a score that came along is not that of its items.
    """
    import numpy as np
    import pandas as pd

    def of(row: int) -> str:
        if quiet:
            return "which row is not said: the rows are confidential"
        return f"person_id={frame['person_id'].iloc[row]}, year={frame['year'].iloc[row]}"

    def many(rows: int) -> str:
        return several(rows, "residents") if quiet else f"{rows:,}"

    silent = ~frame["responded"].to_numpy(dtype=bool)
    answered = frame[[*ITEMS, "swemwbs", "general_health", *EXPOSURES]].notna().any(axis=1).to_numpy()
    if (silent & answered).any():
        rows = np.flatnonzero(silent & answered)
        raise DataError(
            f"{source}: table residents, column responded: 0 in a row that has answers ({of(int(rows[0]))}); "
            f"{many(len(rows))} such. Set responded to 1, or take the answers out."
        )
    items = frame[list(ITEMS)].to_numpy(dtype=float, na_value=np.nan)
    if turned := against_the_others(items):
        names = ", ".join(f"{ITEMS[i]} (correlation {r:.2f} with the sum of the others)" for i, r in turned)
        raise DataError(
            f"{source}: table residents: {names} runs against the other items, though all seven are worded "
            f"positively: are its codes reversed? Code 1 as none of the time and 5 as all of the time."
        )
    ours, given = score(items), frame["swemwbs"].to_numpy(dtype=float, na_value=np.nan)
    both = np.isfinite(ours) & np.isfinite(given)
    off = both & (np.abs(ours - given) > 0.006)  # the table has two decimals
    if off.any():
        rows = np.flatnonzero(off)
        first = int(rows[0])
        raw = bool((given[both] == np.nansum(items[both], axis=1)).all())
        what = "the raw sum of the items" if raw else "not the score of the items"
        raise DataError(
            f"{source}: table residents, column swemwbs: "
            f"{'a value' if quiet else format(given[first], 'g')} is {what}"
            f"{'' if quiet else f', whose metric score is {ours[first]:g}'} ({of(first)}); {many(len(rows))} such. "
            f"Leave the column blank: the score is made from the items."
        )
    any_item = np.isfinite(items).any(axis=1)
    return frame.assign(swemwbs=pd.Series(np.where(any_item, ours, given), index=frame.index))
