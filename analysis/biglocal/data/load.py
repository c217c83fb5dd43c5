"""A tier of data: the same tables whatever their source, each read and checked once, with its digest.

    tier = load("synthetic", seed=1)         # or load("open", data=Path, treated=Path)
    tier.digest("areas")                      # cheap: no table is read
    tier.table("areas")                       # read, held against the contract, kept

A tier module (`synthetic`, `open`, `secure`) gives these functions of one `Request`:
`banner(request)` the word that stands on every page ("" for a real study),
`digests(request)` table -> digest of what it is made from, for the tables the tier has, and
`read(name, request, done)` the frame of one table, given `done(other)` for the checked others.
`lacks(request)` says for the tables or columns it has not: what is missing and how to get it.
`notes(request)` what was noticed while reading (duplicates dropped, files unused); reads what it needs.
`files(request)` the publishers' files that tables are made from, with the digest of each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from biglocal.data import swemwbs
from biglocal.data.tables import TABLES, check, several
from biglocal.model import DataError

if TYPE_CHECKING:
    import pandas as pd

TIERS = ("synthetic", "open", "secure")


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for: the tier, its seed (synthetic) or its folder and list of treated LSOAs."""

    tier: str
    seed: int = 0
    data: Path | None = None
    treated: Path | None = None
    min_months: int = 12


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier at hand. Tables are read on first use and kept for the run."""

    request: Request
    banner: str
    digests: dict[str, str]
    lacks: dict[str, str]
    _reader: Callable[[str, Request, Callable[[str], pd.DataFrame]], pd.DataFrame]
    _notes: Callable[[Request], list[str]]
    _files: Callable[[Request], dict[str, str]]
    _kept: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name: synthetic, open or secure."""
        return self.request.tier

    @property
    def quiet(self) -> bool:
        """Whether no value of its rows may stand in a message: they are confidential."""
        return self.name == "secure"

    def shown(self, values: pd.Series, most: int) -> str:
        """The values there are, for an error: the first of them in order; where rows are confidential only how many."""
        seen = sorted({str(v) for v in values.dropna().unique()})
        if self.quiet:
            return f"{len(seen)} kinds, not shown"
        return ", ".join(seen[:most]) + (f" and {len(seen) - most} more" if len(seen) > most else "")

    def notes(self) -> tuple[str, ...]:
        """What was noticed of the data, in words. May read them."""
        return tuple(self._notes(self.request))

    def files(self) -> dict[str, str]:
        """File below --data -> sha256, for each file that a table is made from; none where the tier is made."""
        return self._files(self.request)

    def digest(self, name: str) -> str:
        """Digest of what table `name` is made from; '' for a table the tier lacks."""
        return self.digests.get(name, "")

    def has(self, name: str) -> bool:
        """Whether the tier has table `name`."""
        return name in self.digests

    def table(self, name: str) -> pd.DataFrame:
        """Table `name`, checked. Raises `DataError` if the tier lacks it or it breaks its contract."""
        if name not in self.digests:
            known = ", ".join(self.digests)
            raise DataError(f"tier {self.name}: no table {name} (it has {known}). {self.lacks.get(name, '')}".rstrip())
        if name not in self._kept:
            frame = self._reader(name, self.request, self.table)
            source, quiet = f"{self.name} tier", self.quiet
            frame = check(name, frame, source, quiet=quiet)
            self._kept[name] = swemwbs.scored(frame, source, quiet=quiet) if name == "residents" else frame
        return self._kept[name]


def load(
    tier: str, *, seed: int = 0, data: Path | None = None, treated: Path | None = None, min_months: int = 12
) -> Tier:
    """Open a tier without reading its tables.

    Raises `DataError` for an unknown tier, a missing folder or file, or an option the tier does not take.
    """
    if tier not in TIERS:
        raise DataError(f"tier '{tier}' does not exist; choose one of {', '.join(TIERS)}.")
    if tier == "synthetic" and (data or treated):
        raise DataError("tier synthetic is made from a seed: it takes neither --data nor --treated. Use the tier open.")
    if tier != "synthetic" and data is None:
        raise DataError(f"tier {tier} needs --data DIR, the folder that holds its files (see data-raw/README.md).")
    if data is not None and not data.is_dir():
        raise DataError(
            f"--data {data}: no such folder. Give the folder that holds the files (see data-raw/README.md)."
        )
    if treated is not None and not treated.is_file():
        raise DataError(
            f"--treated {treated}: no such file. Give a CSV with lsoa11, area_id, area_name, wave, share; "
            f"`python data-raw/placebo.py` draws a placebo one."
        )
    request = Request(tier, seed, data, treated, min_months)
    module = importlib.import_module(f"biglocal.data.{tier}")
    return Tier(
        request, module.banner(request), module.digests(request), module.lacks(request), module.read, module.notes,
        module.files,
    )  # fmt: skip


REFERENCES = (
    ("areas", "area_id", "programme", "area_id"),
    ("area_panel", "lsoa11", "areas", "lsoa11"),
    ("borders", "lsoa11", "areas", "lsoa11"),
    ("borders", "neighbour", "areas", "lsoa11"),
    ("survey", "lsoa11", "areas", "lsoa11"),
    ("residents", "area_id", "programme", "area_id"),
)


def check_references(tier: Tier, tables: Collection[str]) -> None:
    """Hold keys of one table against those of another, for the tables named that the tier has.

    Raises `DataError` with the first key that is not there and how many more; counts only where the tier is quiet.
    """
    import pandas as pd

    for table, column, other, key in REFERENCES:
        if {table, other} <= set(tables) and tier.has(table) and tier.has(other):
            seen = pd.Index(tier.table(table)[column].dropna().unique())
            lost = seen.difference(pd.Index(tier.table(other)[key]))
            if len(lost):
                count = several(len(lost), table) if tier.quiet else f"{len(lost):,}"
                many = f"{count} such value{'s' if len(lost) > 1 else ''}"
                raise DataError(
                    f"{tier.name} tier, table {table}, column {column}: {'a value' if tier.quiet else lost[0]} is not "
                    f"in table {other} ({many}). Add it there, or drop its rows here."
                )


def order() -> tuple[str, ...]:
    """The tables of the contract, in its order."""
    return tuple(TABLES)
