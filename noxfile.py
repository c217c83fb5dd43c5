#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["nox[uv]"]
# ///
"""The user interface: a session a verb. `nox -l` lists them; `nox -s reproduce -- --help` shows a verb's options."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / ".ci"))
from lock import stamp  # noqa: E402

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests"]


def _install(session: nox.Session, *locks: str) -> None:
    """Install locks with their hashes, and the project itself with nothing fetched beside."""
    paths = [ROOT / "locks" / f"{lock}.txt" for lock in locks]
    if stale := [p.name for p in paths if p.read_text().splitlines()[0] != stamp(p.stem)]:
        session.error(f"locks/{stale[0]} is stale: pyproject.toml has changed since. Run `nox -s lock`.")
    mark = Path(session.virtualenv.location, "installed")
    key = hashlib.sha256(b"".join(p.read_bytes() for p in (*paths, ROOT / "pyproject.toml")) + bytes(ROOT)).hexdigest()
    if mark.is_file() and mark.read_text() == key:
        return
    for path in paths:
        session.install("--quiet", "--require-hashes", "-r", str(path))
    session.install("--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    # a path relative to the environment, so that the clone's own may hold any letter in any locale
    for link in Path(session.virtualenv.location).glob("lib/python*/site-packages/_editable_impl_biglocal.pth"):
        link.write_text(os.path.relpath(ROOT / "analysis", link.parent) + "\n")
    mark.write_text(key)


VERBS = {  # session: what `biglocal` is called with, what `nox -l` says, and the lock if it is not `run`
    "reproduce": (["reproduce"], "Data to report; with real data: `-- open --data DIR --treated FILE`."),
    "verify": (["verify"], "Compare outputs/ with the committed reference, exhibit by exhibit."),
    "audit": (["audit"], "Every rule that data editors, codecheckers and archives judge by.", "archive"),
    "bundle": (["bundle"], "One deposit for an archive, into dist/; without libraries: `-- --no-wheelhouse`."),
    "data": (["data"], "Fetch the open data into data-raw/open, or say how to get it: `-- --help`."),
    "placebo": (["reproduce", "--only=placebo"], "200 placebo lists: how often the design rejects in vain."),
    "simulate": (["reproduce", "--only=simulation", "--only=few_areas", "--only=simulated_power"], "Size and power."),
    "multiverse": (["reproduce", "--only=multiverse"], "Every combination of choices, tested together."),
    "recover": (["reproduce", "--only=recovery"], "200 surveys of members made anew: what each model finds."),
    "cluster": (["reproduce"], "As reproduce, on a Dask cluster: `-- --scheduler tcp://HOST:8786`.", "cluster"),
}


def _verb(words: list[str], doc: str, lock: str = "run") -> Callable[[nox.Session], None]:
    def run(session: nox.Session) -> None:
        _install(session, lock)
        own = any(w.startswith("--only") for w in session.posargs)  # of the user, instead of the session's
        session.run("biglocal", *(w for w in words if not (own and w.startswith("--only"))), *session.posargs)

    run.__doc__ = doc
    return run


wheels = [] if (ROOT / "dist" / "offline").exists() or "--" in sys.argv else ["wheelhouse"]  # made before, if need be
for name, (words, *more) in VERBS.items():
    nox.session(_verb(words, *more), name=name, requires=wheels if name == "bundle" else None)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests; options go to pytest."""
    more = ["archive"] if session.name == "tests_archive" else []
    _install(session, "test", *more)
    session.run("pytest", *(f"tests/{name}" for name in more), *session.posargs)


nox.session(tests, name="tests_archive")  # those of the deposit, with the validators that judge it
nox.session(tests, name="tests_all", python=["3.11", "3.12", "3.13"])  # on every supported Python of this machine


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff and mypy --strict."""
    _install(session, "lint")
    for words in ("ruff check .", "ruff format --check .", "mypy"):
        session.run(*words.split())


@nox.session
def benchmark(session: nox.Session) -> None:
    """Times and memory, ours beside other libraries; by name another script of tests/benchmarks: `-- spine`."""
    _install(session, "test")
    name, *options = session.posargs or ["estimators"]
    session.run("python", f"tests/benchmarks/{name}.py", *options)


@nox.session(venv_backend="venv")
def wheelhouse(session: nox.Session) -> None:
    """A folder to install from without a network, Linux and Windows (dist/offline); `.ci/offline` proves it."""
    session.install("--quiet", "--require-hashes", "-r", "locks/nox.txt")
    session.run("python", ".ci/wheelhouse.py", *session.posargs)


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Resolve the locks anew (needs uv); options go to `uv pip compile`."""
    session.run("python", ".ci/lock.py", *session.posargs)


if __name__ == "__main__":
    nox.main()
