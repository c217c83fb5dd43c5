"""What the benchmarks share: time, memory, processes of their own, tables, and the input."""

from __future__ import annotations

import os
import platform
import re
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Took:
    """Seconds of the clock and of the processor (all threads), the middle of several runs; and the last result."""

    seconds: float
    processor: float
    result: Any


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def in_turn(runners: dict[str, Callable[[], Any]], runs: int) -> dict[str, Took]:
    """Each run once unmeasured, then all in turn, so that what else the machine does falls on all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    processor: dict[str, list[float]] = {name: [] for name in runners}
    found: dict[str, Any] = {name: run() for name, run in runners.items()}
    for _ in range(runs):
        for name, run in runners.items():
            start, used = time.perf_counter(), time.process_time()
            found[name] = run()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
    return {n: Took(statistics.median(seconds[n]), statistics.median(processor[n]), found[n]) for n in runners}


def peak() -> float:
    """Peak MB of this process alone (getrusage would give a child that of its parent)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def command(words: Sequence[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak MB of a command of this Python."""
    start = time.perf_counter()
    _, status, used = os.wait4(os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, *words]), 0)
    if status:
        raise SystemExit(f"{' '.join(words)}: failed")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown: names to the left, what follows to the right."""
    rules = [":---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rules, *rows)) + "\n"


def machine(packages: Sequence[str]) -> str:
    """The machine, and the versions of Python and of `packages`."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    found = [f"Python {platform.python_version()}"]
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.system()}; {', '.join(found)}."


def load() -> str:
    """How many processes wanted a core in the last minute, this one among them."""
    return f"{os.getloadavg()[0]:.1f}"


def simulated(folder: Path) -> Path:
    """`panel.csv`, `units.csv` and `big.csv` in `folder`: by the references' make_sim.py where it is, else of the same shape."""
    if not (folder / "big.csv").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        script = ROOT.parent / "shared" / "reference" / "make_sim.py"
        if script.is_file():
            subprocess.run([sys.executable, str(script), str(folder), "--big"], check=True)
        else:
            runpy.run_path(str(Path(__file__).with_name("simulate.py")))["write"](folder)
    return folder


RESULTS = Path(__file__).with_name("results.md")


def head(text: str) -> None:
    """Write what stands before the sections of results.md; the sections stay."""
    _write([text, *_sections()[1:]])


def put(name: str, text: str) -> None:
    """Write a section of results.md, in place of the one of that name; the others stay as they are."""
    title = f"## {name}\n"
    mine = f"{title}\n{text.strip()}\n"
    parts = _sections()
    there = any(p.startswith(title) for p in parts)
    _write([mine if p.startswith(title) else p for p in parts] + ([] if there else [mine]))


def _sections() -> list[str]:
    return re.split(r"(?m)^(?=## )", RESULTS.read_text(encoding="utf-8"))


def _write(parts: Iterable[str]) -> None:
    RESULTS.write_text("\n\n".join(p.strip() for p in parts) + "\n", encoding="utf-8")
