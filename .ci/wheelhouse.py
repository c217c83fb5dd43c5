"""Make the folder that a laboratory without a network installs from: wheels, the source, INSTALL.txt, SHA256SUMS.

    python .ci/wheelhouse.py [--into FOLDER] [--platform NAME] [--python VERSION]

Run by `nox -s wheelhouse`. Needs `packaging` and pip (locks/nox.txt, a plain venv), git, and a package index.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("run", "nox")
# name -> what markers see there, and the wheels its Python takes (glibc 2.28: RHEL 8, Debian 10, Ubuntu 20.04 on)
PLATFORMS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "linux": (
        {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64"},
        (*(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)), "manylinux2014_x86_64", "linux_x86_64"),
    ),
    "windows": (
        {"sys_platform": "win32", "os_name": "nt", "platform_system": "Windows", "platform_machine": "AMD64"},
        ("win_amd64",),
    ),
}
INSTALL = """\
biglocal {version} (commit {commit}): install and run without a network

Python {pythons} must be there; nothing else is fetched. Run the lines in this folder. Each wheel is held against the
hashes of source/locks; `sha256sum -c SHA256SUMS` holds the whole folder against the one that was made.

Linux x86-64 (glibc 2.28 or later):

    python{python} -m venv .venv
    .venv/bin/python -m pip install --no-index --find-links linux --require-hashes -r source/locks/run.txt
    .venv/bin/python -m pip install --no-index --no-deps --no-build-isolation -e source
    .venv/bin/biglocal reproduce
    .venv/bin/biglocal verify

Windows x86-64:

    py -{python} -m venv .venv
    .venv\\Scripts\\python -m pip install --no-index --find-links windows --require-hashes -r source/locks/run.txt
    .venv\\Scripts\\python -m pip install --no-index --no-deps --no-build-isolation -e source
    .venv\\Scripts\\biglocal reproduce
    .venv\\Scripts\\biglocal verify

The verbs of the README (`nox -s ...`), on Linux:

    .venv/bin/python -m pip install --no-index --find-links linux --require-hashes -r source/locks/nox.txt
    UV_OFFLINE=1 UV_FIND_LINKS="$PWD/linux" .venv/bin/nox -f source/noxfile.py -s reproduce

The tables of the lab: `.venv/bin/biglocal reproduce secure --data DIR` (source/data-raw/README.md).
"""


def chosen(lock: str, platform: str, python: str) -> dict[str, str]:
    """The lines of a lock that hold on a platform: name -> `name==version` and its hashes, without the marker.

    pip would read the markers of the machine it runs on, whatever platform it downloads for.
    """
    see = {
        **PLATFORMS[platform][0], "python_version": python, "python_full_version": f"{python}.0",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    out = {}
    for entry in lock.replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        text, *hashes = entry.split(" --hash=")
        wanted = Requirement(text.strip())
        if wanted.marker is None or wanted.marker.evaluate(see):
            out[wanted.name] = " ".join([f"{wanted.name}{wanted.specifier}", *(f"--hash={h.strip()}" for h in hashes)])
    return out


def download(into: Path, platform: str, python: str) -> None:
    """Every wheel that the locks ask for there. pip refuses what has another hash, and what has no wheel."""
    tags = [f"--platform={tag}" for tag in PLATFORMS[platform][1]]
    for lock in LOCKS:
        lines = chosen((ROOT / "locks" / f"{lock}.txt").read_text(encoding="utf-8"), platform, python)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{lock}.txt")
            file.write_text("\n".join(lines.values()) + "\n", encoding="utf-8")
            subprocess.run(
                [
                    sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
                    "--only-binary=:all:", f"--python-version={python}", *tags,
                    f"--dest={into}", f"--requirement={file}",
                ],
                check=True,
            )  # fmt: skip


def make(into: Path, platforms: Iterable[str], pythons: Sequence[str]) -> None:
    """The whole folder, under its name only when it is whole."""
    if into.exists():
        sys.exit(f"{into}: is there already. Move it away, or choose another --into.")
    part = into.with_name(f"{into.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for platform in platforms:
        for python in pythons:
            download(part / platform, platform, python)
    git = ["git", "-C", str(ROOT)]
    packed = subprocess.run([*git, "archive", "--format=zip", "HEAD"], check=True, capture_output=True).stdout
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(part / "source")
    commit = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True
    ).stdout
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    said = INSTALL.format(version=version, commit=commit.strip(), pythons=" or ".join(pythons), python=pythons[0])
    (part / "INSTALL.txt").write_text(said, encoding="utf-8", newline="\n")
    files = sorted(p for p in part.rglob("*") if p.is_file())
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(part).as_posix()}\n" for p in files]
    (part / "SHA256SUMS").write_text("".join(sums), encoding="utf-8", newline="\n")
    part.replace(into)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=ROOT / "dist" / "offline", help="default: dist/offline")
    parser.add_argument("--platform", action="append", choices=PLATFORMS, help="repeatable; default: all")
    parser.add_argument("--python", action="append", help="as 3.11, repeatable; default: 3.11")
    given = parser.parse_args()
    make(given.into, given.platform or PLATFORMS, given.python or ["3.11"])
