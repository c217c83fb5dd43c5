"""Is this bundle the one that was made? Python's standard library only, 3.8 or later: no other file is needed.

    python3 check_bundle.py [PATH]

PATH is the .zip as it was fetched, or the folder it was unpacked to; without PATH the folder that holds this file.
Every file is held against the lists of hashes in the bundle (a BagIt bag's manifests, RFC 8493, or SHA256SUMS and
SHA512SUMS) and against its own description (ro-crate-metadata.json). A line names each thing that is wrong, and the
exit code is then 1; it is 0 if nothing is, and 2 if there is no bundle at PATH. Nothing is unpacked or written.

It says that nothing has changed since the bundle was made. Whoever changes a file can also write every list anew:
hold the sha256 of the .zip against the one that the archive publishes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
import unicodedata
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable

    Files = dict[str, Callable[[], BinaryIO]]  # name -> what opens it
    Sums = dict[str, str]  # file -> hash

CRATE = "ro-crate-metadata.json"
BAG, FLAT = {"bagit.txt", "manifest-sha256.txt"}, {"SHA256SUMS", "SHA512SUMS"}  # files at the top that tell
HASHES = ("sha256", "sha512")
LARGEST = 16 * 2**30  # bytes unpacked: 20 times a bundle with all its wheels
MOST = 200_000  # files
CHUNK = 1 << 20
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)


class NoBundle(Exception):
    """There is nothing at the path that could be checked."""


class Fault(NamedTuple):
    """One thing that is wrong: of which kind, with which file; `other` is its new name, where it has one."""

    kind: str
    file: str
    note: str = ""
    other: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.file}{' ' if self.note else ''}{self.note}{self.other}"


class Checked(NamedTuple):
    """Everything that is wrong, and in a sentence what was checked."""

    faults: tuple[Fault, ...]
    said: str


def check(path: Path) -> Checked:
    """Hold a bundle, folder or .zip, nested (a bag) or flat, against its own lists.

    Raises `NoBundle` where there is no file or folder, or one that is no bundle.
    """
    if path.is_dir():
        files, faults = _folder(path)
    elif path.is_file():
        files, faults = _zip(path)
    else:
        raise NoBundle(f"{path}: no such file or folder. Give the bundle's .zip, or the folder it was unpacked to.")
    top = _top(files)
    if top is None:
        if not faults:
            raise NoBundle(f"{path}: no list of hashes is in it: no bundle, or not unpacked whole.")
        return Checked(tuple(faults), "no list of hashes could be read")
    faults += [Fault("added", n, "stands outside the bundle's folder") for n in sorted(files) if not n.startswith(top)]
    files = {name[len(top) :]: opened for name, opened in files.items() if name.startswith(top)}
    seen, sizes, broken = _digests(files)
    faults += broken
    bag = bool(BAG & set(files))
    faults += _bag(files, seen, sizes) if bag else _flat(files, seen)
    described, more = _crate(files, seen, sizes, "data/" if bag else "")
    named = {f.file for f in faults} | {f.other for f in faults}
    faults += [f for f in more if f.file not in named]
    said = (
        f"{len(files):,} files, {sum(sizes.values()):,} bytes, held against the "
        f"{'manifests of the bag' if bag else 'lists SHA256SUMS and SHA512SUMS'} and {CRATE}, "
        f"which describes {described:,} of them"
    )
    if path.is_file():
        said += f"\nsha256 of {path.name}: {_sha256(path)}"
    return Checked(tuple(faults), said)


# --- what is there ------------------------------------------------------------------------------------------


def _folder(path: Path) -> tuple[Files, list[Fault]]:
    files: Files = {}
    faults = []
    for at, folders, names in os.walk(str(path)):
        for name in sorted(folders + names):
            full = Path(at, name)
            short = full.relative_to(path).as_posix()
            kind = full.lstat().st_mode
            if stat.S_ISLNK(kind):
                faults.append(Fault("unsafe", short, "is a link: no bundle holds one"))
            elif stat.S_ISREG(kind):
                files[short] = partial(full.open, "rb")  # type: ignore[assignment]  # its overloads
            elif not stat.S_ISDIR(kind):
                faults.append(Fault("unsafe", short, "is neither a file nor a folder"))
        folders.sort()
    return files, faults + _collisions(files)


def _zip(path: Path) -> tuple[Files, list[Fault]]:
    try:
        archive = zipfile.ZipFile(str(path))
    except UNREADABLE as e:
        return {}, [Fault("broken", path.name, f"is not a whole .zip ({e}): cut short, or altered. Fetch it again.")]
    entries = archive.infolist()
    whole, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
    if len(entries) > MOST or whole > LARGEST or packed > path.stat().st_size:
        much = f"would unpack to {len(entries):,} files of {whole:,} bytes from {packed:,}"
        return {}, [Fault("unsafe", path.name, f"{much}: a trap, or no bundle. Do not unpack it.")]
    files: Files = {}
    faults = []
    for entry in entries:
        name, mode = entry.filename, entry.external_attr >> 16
        parts = re.split(r"[/\\]", name.rstrip("/"))
        wrong = (
            "climbs out of its folder" if ".." in parts
            else "is absolute" if not parts[0] or re.match("[A-Za-z]:", name)
            else "is no plain name" if "\\" in name or {"", "."} & set(parts) or any(ord(c) < 32 for c in name)
            else "is a link" if stat.S_ISLNK(mode)
            else "is encrypted" if entry.flag_bits & 1
            else "is there twice" if name in files
            else ""
        )  # fmt: skip
        if wrong:
            faults.append(Fault("unsafe", name if name.isprintable() else repr(name), f"{wrong}. Do not unpack it."))
        elif not name.endswith("/"):
            files[name] = partial(archive.open, entry)  # type: ignore[assignment]  # IO[bytes]
    return files, faults + _collisions(files)


def _collisions(files: Files) -> list[Fault]:
    """Names that are one name on some file systems."""
    first: dict[str, str] = {}
    faults = []
    for name in sorted(files):
        same = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if same != name:
            faults.append(Fault("unsafe", name, f"and {same} are one file where capitals do not count"))
    return faults


def _top(files: Files) -> str | None:
    """The folder in which the bundle stands: '', or one folder and its slash; None without a list of hashes."""
    marks = [n for n in files if n.split("/")[-1] in BAG | FLAT and n.count("/") < 2]
    if not marks:
        return None
    nearest = min(marks, key=lambda n: (n.count("/"), n))
    return nearest[: nearest.rfind("/") + 1]


def _digests(files: Files) -> tuple[dict[str, Sums], dict[str, int], list[Fault]]:
    """Each file's hashes and size, each file read once; and those that cannot be read to their end."""
    found: dict[str, Sums] = {h: {} for h in HASHES}
    sizes, broken = {}, []
    for name in sorted(files):
        sums, size = [hashlib.new(h) for h in HASHES], 0
        try:
            with files[name]() as file:
                for chunk in iter(partial(file.read, CHUNK), b""):
                    size += len(chunk)
                    for s in sums:
                        s.update(chunk)
        except UNREADABLE as e:
            broken.append(Fault("broken", name, f"cannot be read to its end ({e})"))
        for s in sums:
            found[s.name][name] = s.hexdigest()
        sizes[name] = size
    return found, sizes, broken


def _sha256(path: Path) -> str:
    h = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, CHUNK), b""):
            h.update(chunk)
    return h.hexdigest()


def _text(files: Files, name: str) -> str:
    try:
        with files[name]() as file:
            return file.read(64 * CHUNK).decode("utf-8")
    except (KeyError, *UNREADABLE):
        return ""


# --- against what the lists say -----------------------------------------------------------------------------


def _list(files: Files, name: str, algorithm: str) -> tuple[Sums, list[Fault]]:
    """One list of hashes, and its lines that are none."""
    sums: Sums = {}
    faults = []
    for number, line in enumerate(_text(files, name).splitlines(), start=1):
        found = re.match(r"([0-9A-Fa-f]+)[ \t]+\*?(\S.*)$", line)
        path = unquote(found.group(2)) if found else ""
        good = found and len(found.group(1)) == 2 * hashlib.new(algorithm).digest_size
        if not found or not good or path.startswith(("/", "~")) or ".." in path.split("/") or path in sums:
            faults.append(Fault("edited hash list", name, f"line {number} is no line of such a list"))
        else:
            sums[path] = found.group(1).lower()
    return sums, faults


def _against(there: set[str], seen: dict[str, Sums], lists: dict[str, str], files: Files) -> list[Fault]:
    """Files held against their lists (`lists`: hash -> name of the list).

    A file that one list has right and another wrong is whole: the list was edited.
    """
    faults = []
    sums: dict[str, Sums] = {}
    for algorithm, name in lists.items():
        if name not in files:
            faults.append(Fault("lost", name, "(a list of hashes)"))
            continue
        sums[algorithm], broken = _list(files, name, algorithm)
        faults += broken
    listed = {name for s in sums.values() for name in s}
    added = there - listed
    for name in sorted(listed - there):
        twins = [n for n in sorted(added) if all(seen[a][n] == s.get(name) for a, s in sums.items())]
        added -= set(twins[:1])
        faults.append(Fault("renamed", name, "is now ", twins[0]) if twins else Fault("lost", name))
    faults += [Fault("added", name) for name in sorted(added)]
    for name in sorted(listed & there):
        bad = [a for a, s in sums.items() if s.get(name) != seen[a][name]]
        if bad and len(bad) < len(sums):
            faults.append(Fault("edited hash list", lists[bad[0]], f"has another hash of {name}, which is whole"))
        elif bad:
            faults.append(Fault("altered", name))
    return faults


def _bag(files: Files, seen: dict[str, Sums], sizes: dict[str, int]) -> list[Fault]:
    manifests, tags = ({h: f"{kind}-{h}.txt" for h in HASHES} for kind in ("manifest", "tagmanifest"))
    payload = {n for n in files if n.startswith("data/")}
    faults = _against(payload, seen, manifests, files)
    beside = _against(set(files) - payload - set(tags.values()), seen, tags, files)
    edited = {f.file for f in beside if f.kind == "altered" and f.file in manifests.values()}
    faults += [f._replace(kind="edited hash list") if f.file in edited and f.kind == "altered" else f for f in beside]
    if _text(files, "bagit.txt").split("\n")[:1] != ["BagIt-Version: 1.0"]:
        faults.append(Fault("altered", "bagit.txt", "does not say that this is a bag of BagIt 1.0"))
    oxum = re.search(r"^Payload-Oxum: (\S+)$", _text(files, "bag-info.txt"), re.MULTILINE)
    there = f"{sum(sizes[n] for n in payload)}.{len(payload)}"
    if oxum is None or oxum.group(1) != there:
        told = oxum.group(1) if oxum else "nothing"
        faults.append(Fault("count", "bag-info.txt", f"says {told} (bytes.files) where there are {there}"))
    return faults


def _flat(files: Files, seen: dict[str, Sums]) -> list[Fault]:
    lists = {h: f"{h.upper()}SUMS" for h in HASHES}
    return _against(set(files) - set(lists.values()), seen, lists, files)


def _crate(files: Files, seen: dict[str, Sums], sizes: dict[str, int], root: str) -> tuple[int, list[Fault]]:
    """How many files the RO-Crate describes, and where it does not say what is there."""
    if root + CRATE not in files:
        return 0, [Fault("lost", root + CRATE)]
    described = {}
    try:
        graph = {e["@id"]: e for e in json.loads(_text(files, root + CRATE))["@graph"]}
        if graph[CRATE]["about"] != {"@id": "./"} or graph["./"]["@type"] != "Dataset":
            raise ValueError
        for name, entity in graph.items():
            kinds = entity["@type"]
            if "File" in ([kinds] if isinstance(kinds, str) else kinds) and not re.match("[a-z]+:", name):
                described[root + unquote(name)] = entity
    except (ValueError, KeyError, TypeError):
        return 0, [Fault("altered", root + CRATE, "is not the description of an RO-Crate")]
    faults = [Fault("lost", name, f"({CRATE} describes it)") for name in sorted(set(described) - set(files))]
    for name in sorted(set(described) & set(files)):
        told = (described[name].get("sha256"), str(described[name].get("contentSize")))
        if told != (seen["sha256"][name], str(sizes[name])):
            faults.append(Fault("altered", name, f"({CRATE} has another hash or size of it)"))
    loose = {n for n in files if n.startswith(root)} - set(described) - {root + CRATE}
    loose -= set() if root else FLAT
    return len(described), faults + [Fault("added", n, f"({CRATE} does not describe it)") for n in sorted(loose)]


def main(words: list[str]) -> int:
    """The command line; gives the exit code."""
    if len(words) > 1 or words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(f"{__doc__}")
        return 0 if len(words) == 1 else 2
    try:
        checked = check(Path(words[0]) if words else Path(__file__).resolve().parent)
    except NoBundle as e:
        sys.stderr.write(f"{e}\n")
        return 2
    for fault in checked.faults:
        sys.stdout.write(f"{fault}\n")
    count = len(checked.faults)
    verdict = f"{count} thing{'s' if count != 1 else ''} wrong" if count else "whole"
    sys.stdout.write(f"{verdict}: {checked.said}\n")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
