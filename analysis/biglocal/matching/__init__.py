"""Matching methods, one a file, found by folder.

A method is a function `match(frame, *, treated, covariates, ratio, caliper, exact) -> Match`: it sees one
row a unit, says weights and sets, and nothing else. The frame's index must identify the units: rows are
put in its order first, so that the order in which they come changes no match.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from biglocal.model import Match


class Method(Protocol):
    """What a matching method looks like."""

    def __call__(
        self,
        frame: pd.DataFrame,
        *,
        treated: str,
        covariates: Sequence[str],
        ratio: int = 1,
        caliper: float | None = None,
        exact: Sequence[str] = (),
    ) -> Match:
        """Weights and sets for the rows of `frame`."""
        ...


def method(name: str) -> Method:
    """The matching method of that name."""
    found: Method = importlib.import_module(f"biglocal.matching.{name}").match
    return found
