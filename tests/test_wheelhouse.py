"""What the offline folder takes from the locks: the markers of the platform it is for, not of the one it is made on."""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from biglocal.study import ROOT

PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def wheelhouse() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheelhouse", ROOT / ".ci" / "wheelhouse.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(lock: str) -> list[str]:
    return [line for line in lock.splitlines() if re.match(r"[a-z0-9]", line)]


@pytest.mark.parametrize("name", ["run", "nox"])
def test_every_entry_is_for_somebody_and_keeps_its_hashes(name: str, wheelhouse: ModuleType) -> None:
    lock = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    kept = [wheelhouse.chosen(lock, p, python) for p in wheelhouse.PLATFORMS for python in PYTHONS]
    assert {line.split(" --hash")[0] for some in kept for line in some.values()} == {
        f"{r.name}{r.specifier}" for r in (Requirement(e.rstrip(" \\")) for e in entries(lock))
    }
    assert all(re.fullmatch(r"\S+==\S+( --hash=sha256:[0-9a-f]{64})+", line) for k in kept for line in k.values())
    hashes = set(re.findall(r"sha256:[0-9a-f]{64}", lock))
    assert {h for some in kept for line in some.values() for h in re.findall(r"sha256:[0-9a-f]{64}", line)} == hashes


def test_windows_has_what_only_windows_needs(wheelhouse: ModuleType) -> None:
    lock = (ROOT / "locks" / "run.txt").read_text(encoding="utf-8")
    linux, windows = (wheelhouse.chosen(lock, p, "3.11") for p in ("linux", "windows"))
    assert "colorama" in windows and "colorama" not in linux


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="one of the two platforms is this one"
)
def test_on_this_platform_it_is_what_an_installer_would_choose(wheelhouse: ModuleType) -> None:
    lock = (ROOT / "locks" / "run.txt").read_text(encoding="utf-8")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = [Requirement(e.rstrip(" \\")) for e in entries(lock)]
    here = {r.name for r in wanted if r.marker is None or r.marker.evaluate()}
    assert set(wheelhouse.chosen(lock, "linux", python)) == here


def test_a_folder_that_is_there_is_left_alone(wheelhouse: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is there already"):
        wheelhouse.make(tmp_path, [], ["3.11"])
    assert list(tmp_path.iterdir()) == []
