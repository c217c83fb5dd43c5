"""The locks: hashed, for every supported Python, without any index address. Run by `nox -s lock`; needs uv.

python .ci/lock.py [OPTIONS OF uv pip compile]
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {  # lock: groups of pyproject.toml beside the dependencies
    "run": ["build"],
    "test": ["build", "test", "cluster"],
    "lint": ["build", "test", "cluster", "lint"],
    "cluster": ["build", "cluster"],
    "archive": ["build", "archive"],
    "nox": ["nox"],
}


def stamp(lock: str) -> str:
    """What a lock is made from, for its first line: a lock with another stamp there is stale."""
    project, own = PROJECT["project"], PROJECT["dependency-groups"]
    made_from = [project["dependencies"], project["requires-python"], *(own[g] for g in LOCKS[lock])]
    return f"# made from {hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]}"


def resolve(lock: str, options: list[str]) -> None:
    """Write one lock anew; none is left that names an address."""
    path = ROOT / "locks" / f"{lock}.txt"
    groups = [f"--group={g}" for g in LOCKS[lock]]
    source = ["pyproject.toml", *groups] if lock != "nox" else groups
    subprocess.run(
        [
            "uv", "pip", "compile", *source, "--universal", "--python-version=3.11", "--generate-hashes",
            "--no-header", "--no-annotate", "--quiet", *options, f"--output-file={path}",
        ],
        check=True, cwd=ROOT,
    )  # fmt: skip
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^(-i|--(extra-)?index-url|--find-links).*|https?://\S+", text, re.MULTILINE)
    if found:
        path.unlink()
        sys.exit(f"locks/{lock}.txt would name an address ({found[0]}). Lock with the index settings cleared.")
    path.write_text(f"{stamp(lock)}\n{text}", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    for name in LOCKS:
        resolve(name, sys.argv[1:])
