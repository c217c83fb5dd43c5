"""The synthetic tier: every table, made from a seed in seconds, at true scale and with known effects.

Its effects are set from the published estimates (`synthetic_truth`), so it proves nothing about Big Local; it
shows whether the estimators find a truth that is known. Variances are measured in open data or stated as
assumed where they stand; none was chosen with an estimate of an effect in view.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from biglocal.data.tables import TABLES
from biglocal.model import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pandas as pd

    from biglocal.data.load import Request


def banner(request: Request) -> str:  # noqa: ARG001 (the same for every tier)
    """The word on every page of this tier."""
    return "SYNTHETIC"


def digests(request: Request) -> dict[str, str]:
    """SHA-256 of what each table is made from: its name, the seed, the source of these modules and of the contract."""
    here = Path(__file__).parent
    sources = [*sorted(here.glob("synthetic*.py")), here / "crime.py", here / "swemwbs.py", here / "tables.py"]
    made = hashlib.sha256()
    for path in sources:
        made.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return {t: hashlib.sha256(f"{t} {request.seed} {made.hexdigest()}".encode()).hexdigest() for t in TABLES}


def lacks(request: Request) -> dict[str, str]:  # noqa: ARG001
    """Nothing: this tier has every table."""
    return {}


def notes(request: Request) -> list[str]:
    """What a reader of these data should know: how they were made."""
    from biglocal.data.synthetic_truth import FROM, TREATED_SHARE

    return [
        f"Made from seed {request.seed}: no row is a real place, person or payment.",
        f"Effects are known (table truth): from {FROM}, whole where the share inside an area is at least "
        f"{TREATED_SHARE:g}, nil elsewhere.",
    ]


def files(request: Request) -> dict[str, str]:  # noqa: ARG001
    """None: the tables are made."""
    return {}


def _rng(request: Request, name: str) -> np.random.Generator:
    """A stream of its own for each table, so that no table depends on which was read first."""
    import numpy as np

    return np.random.default_rng([request.seed, zlib.crc32(name.encode())])


def read(name: str, request: Request, done: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """Table `name` of the contract; `done` gives the tables it rests on (areas, programme, truth)."""
    from biglocal.data import synthetic_panel, synthetic_places, synthetic_residents, synthetic_survey, synthetic_truth

    if name == "truth":
        return synthetic_truth.truth()
    rng = _rng(request, name)
    if name == "areas":
        return synthetic_places.areas(rng)
    if name == "programme":
        return synthetic_places.programme(rng, done("areas"))
    if name == "area_panel":
        return synthetic_panel.panel(rng, done("areas"), done("programme"), done("truth"))
    if name == "survey":
        return synthetic_survey.survey(rng, done("areas"), done("programme"), done("truth"))
    if name == "residents":
        return synthetic_residents.residents(rng, done("programme"))
    if name == "residents_truth":
        return synthetic_residents.truth()
    if name == "borders":
        return synthetic_places.borders(done("areas"))
    if name == "costs":
        return synthetic_places.costs(rng, done("programme"))
    raise DataError(f"tier synthetic: no table {name}; it has {', '.join(TABLES)}.")
