"""What exhibits and parts cost, as measured: for `--budget`, for plans, and for those who deposit or check.

timings.toml is an input like study.toml, so that outputs made from it keep the same bytes.
`nox -s benchmark -- exhibits` measures it anew.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from biglocal.model import StudyError
from biglocal.study import ROOT

PATH = ROOT / "analysis" / "timings.toml"


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds on one core, and the peak of memory in MB (2^20 bytes) of one process."""

    seconds: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Costs on `machine` (processor, memory, system, versions), of the synthetic tier with quick draws.

    `exhibits`: each made alone from nothing, in a process of its own. `parts`: all analyses of a part, once `start` is
    done: the libraries loaded, tables read and comparisons matched.
    """

    machine: str
    start: Cost
    exhibits: dict[str, Cost]
    parts: dict[str, Cost]


def load(path: Path = PATH) -> Timings | None:
    """The measured costs; None where there are none.

    Raises `StudyError` for a file that is not one of costs.
    """
    if not path.is_file():
        return None
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        tables = [{k: Cost(**v) for k, v in raw[t].items()} for t in ("exhibits", "parts")]
        return Timings(str(raw["machine"]), Cost(**raw["start"]), *tables)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as e:
        raise StudyError(
            f"{path.name}: not a table of costs: {e}. Make it again with `nox -s benchmark -- exhibits`."
        ) from None
