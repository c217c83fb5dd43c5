"""Bring the open sources into a folder: what is there stays, the rest is fetched, or the person is told how.

A file gets its name only when it is whole, plays the role it is for (`data/folder.py`), and has the SHA-256 that
sources.toml gives where it gives one; until then it lies in the hidden folder `.fetching` beside.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from biglocal.data import folder
from biglocal.data.download import PATIENCE, OtherBytes, Patience, Version, ask, download, forget
from biglocal.data.sources import File, Source
from biglocal.model import DataError
from biglocal.study import ROOT

INTO = ROOT / "data-raw" / "open"
RECORD = ".fetched.json"
State = Literal["present", "fetched", "copied", "absent", "changed upstream", "needs you", "failed"]
Tick = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one source, in a sentence, and the steps that are left to a person."""

    source: str
    state: State
    said: str
    steps: tuple[str, ...] = ()


def fetch(
    sources: Sequence[Source],
    into: Path = INTO,
    *,
    given: Path | None = None,
    dry_run: bool = False,
    patience: Patience = PATIENCE,
    progress: Callable[[str], Tick] = lambda _name: lambda _done, _total: None,
) -> Iterator[Report]:
    """See to each source in turn, and report on it when it is done.

    `given`: a folder of files already downloaded, known by their columns; they are copied, and nothing is fetched.
    `dry_run`: say what would be done; nothing is written and no server is asked. `progress(name)` gives what is told
    bytes done and total of a file. Raises `DataError` for a damaged file in `into` or `given`, and while another
    fetch is at work in `into`.
    """
    if given is not None and not given.is_dir():
        raise DataError(f"--from {given}: no such folder. Give the folder that holds the files downloaded.")
    if dry_run:
        for source in sources:
            yield _plan(source, into, given)
        return
    into.mkdir(parents=True, exist_ok=True)
    with _alone(into):
        for source in sources:
            if there := _there(source, into):
                yield _again(source, into, there, patience) if given is None else _said(source, "present", there)
            elif given is not None and source.roles:
                yield _copy(source, into, given)
            elif source.files:
                yield _bring(source, into, patience, progress)
            else:
                yield _by_hand(source, into)


def _plan(source: Source, into: Path, given: Path | None) -> Report:
    if there := _there(source, into):
        return _said(source, "present", there)
    if given is not None and source.roles:
        found = _playing(source, given)
        what = f"would be copied: {', '.join(p.name for p in found)}" if found else f"not in {given.name}"
        return Report(source.key, "absent", what)
    if source.files:
        missing = [f for f in source.files if not (into / f.name).exists()]
        return Report(source.key, "absent", f"would be fetched: {', '.join(f.addresses[0] for f in missing)}")
    return _by_hand(source, into)


def _playing(source: Source, where: Path) -> tuple[Path, ...]:
    """The files of a folder that play the source's roles; none unless each role is played."""
    if not where.is_dir() or not source.roles:
        return ()
    at = folder.folder(where)
    if source.key == "police":
        return tuple(sorted({s.path for s in at.street}))
    roles = [at.roles.get(role, ()) for role in source.roles]
    return tuple(sorted({f.path for found in roles for f in found})) if all(roles) else ()


def _there(source: Source, into: Path) -> tuple[Path, ...]:
    """The files that make the source present: all its own, or the person's under other names."""
    playing, own = _playing(source, into), [into / f.name for f in source.files]
    others = [p for p in playing if p not in own]
    return playing if others or (playing and all(p.exists() for p in own)) else ()


def _said(source: Source, state: State, files: Sequence[Path]) -> Report:
    return Report(source.key, state, ", ".join(p.name for p in files))


def _again(source: Source, into: Path, there: tuple[Path, ...], patience: Patience) -> Report:
    """Hold what is present against the list and the record of the fetch, and ask whether it has changed since."""
    for file in source.files:
        path, note = into / file.name, _record(into).get(file.name)
        if path not in there or not (file.sha256 or note):
            continue
        want = file.sha256 or (note or {})["sha256"]
        if (seen := folder.digest(path)) != want:
            who = "sources.toml says" if file.sha256 else "what was fetched had"
            return Report(
                source.key, "needs you",
                f"{file.name} has sha256 {seen}, {who} {want}: it was changed here, and is left as it is. "
                f"Move it away and run again to have the publisher's.",
            )  # fmt: skip
        if file.sha256 or not note:
            continue
        try:
            now = ask(str(note["address"]), Patience(timeout=min(patience.timeout, 10.0)))
        except DataError as error:
            return Report(
                source.key, "present", f"{_said(source, 'present', there).said} (publisher not asked: {error})"
            )
        if (now.mark and note["mark"] and now.mark != note["mark"]) or now.size not in (None, note["size"]):
            return Report(
                source.key, "changed upstream",
                f"the publisher has another version of {file.name} than the one here, which is left as it is. "
                f"To have the new one, move it away and run again.",
            )  # fmt: skip
    return _said(source, "present", there)


def _bring(source: Source, into: Path, patience: Patience, progress: Callable[[str], Tick]) -> Report:
    """Fetch each file of a source that is absent, from the first address that gives it."""
    fetched = []
    for file in source.files:
        if (into / file.name).exists():
            continue
        part, faults, changed = into / ".fetching" / file.name, [], False
        for address in file.addresses:
            try:
                version = download(address, part, size=file.size, patience=patience, tick=progress(file.name))
                try:
                    digest = _held(part, source, file)
                except DataError:
                    forget(part)
                    raise
            except DataError as error:
                changed = changed or isinstance(error, OtherBytes)
                faults.append(f"{address}: {error}")
                continue
            _name(part, into / file.name)
            _note(into, file.name, address, version, digest)
            fetched.append(into / file.name)
            break
        else:
            why = "; ".join(faults)
            todo = (f"Download it in a browser from {source.address}, put it into {_short(into)}, and run again.",)
            if changed:
                return Report(
                    source.key, "changed upstream",
                    f"{file.name} is not the file that sources.toml describes, and was not kept: {why}",
                    (f"Look at {source.address} for what changed.",),
                )  # fmt: skip
            return Report(source.key, "failed", f"{file.name} could not be fetched: {why}", todo)
    return _said(source, "fetched", fetched)


def _held(path: Path, source: Source, file: File) -> str:
    """The SHA-256 of a file that may have its name. Raises `DataError` for one that may not."""
    digest = _sha256(path)
    if file.sha256 and digest != file.sha256:
        raise OtherBytes(f"sha256 is {digest}, sources.toml says {file.sha256}")
    if path.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"not a whole zip ({error})") from error
        if bad:
            raise DataError(f"damaged zip, at its entry {bad}")
    roles, columns = folder.played(path)
    if lost := [role for role in source.roles if role not in roles]:
        what = "nothing that is known" if not roles else f"only {', '.join(sorted(roles))}"
        raise DataError(
            f"it plays the role of {what}, not of {', '.join(lost)}; its columns are {', '.join(columns[:8]) or 'none'}"
        )
    return digest


def _copy(source: Source, into: Path, given: Path) -> Report:
    """Copy the files of a source from a folder of downloads, each whole or not at all."""
    found = _playing(source, given)
    if not found:
        todo = ("Run without --from to fetch it.",) if source.files else _by_hand(source, into).steps
        return Report(source.key, "absent", f"not in {_short(given)}", todo)
    for path in found:
        final = into / path.name
        digest = _sha256(path)
        own = next((f for f in source.files if f.sha256 and f.name == path.name), None)
        if own and digest != own.sha256:
            return Report(source.key, "failed", f"{path.name} has sha256 {digest}, sources.toml says {own.sha256}.")
        if final.exists():
            if _sha256(final) != digest:
                return Report(
                    source.key, "needs you",
                    f"{path.name} is in {_short(into)} already, with other content, and is left as it is. "
                    f"Give one of them another name.",
                )  # fmt: skip
            continue
        part = into / ".fetching" / path.name
        forget(part)
        shutil.copyfile(path, part)
        if _sha256(part) != digest:
            forget(part)
            return Report(source.key, "failed", f"{path.name} changed while it was copied. Run again.")
        _name(part, final)
    return _said(source, "copied", found)


def _by_hand(source: Source, into: Path) -> Report:
    need = {"yes": f"the tier {source.tier} does not start without it", "no": "without it what it gives is blank"}
    said = need.get(source.needed, f"this {source.needed} is needed")
    page = (f"Page: {source.address}",) if source.address else ()
    where = (f"Folder: {_short(into)}",) if source.tier == "open" else ()
    return Report(source.key, "needs you", said, (*source.steps, *page, *where))


def _name(part: Path, final: Path) -> None:
    """Give a whole file its name, in one step and never over another file."""
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    if final.exists():
        raise DataError(f"{final.name} appeared in {_short(final.parent)} meanwhile and is left as it is. Run again.")
    part.replace(final)
    forget(part)


def _record(into: Path) -> dict[str, dict[str, str | int]]:
    try:
        read: dict[str, dict[str, str | int]] = json.loads((into / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read


def _note(into: Path, name: str, address: str, version: Version, digest: str) -> None:
    notes = _record(into)
    notes[name] = {"address": address, "size": version.size or 0, "mark": version.mark, "sha256": digest}
    beside = into / ".fetching" / RECORD
    beside.write_text(json.dumps(notes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    beside.replace(into / RECORD)


@contextmanager
def _alone(into: Path) -> Iterator[None]:
    """One fetch at a time in a folder; the lock dies with the process. Windows has no such lock here."""
    (into / ".fetching").mkdir(exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (into / ".fetching" / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"another fetch is at work in {_short(into)}. Wait until it is done.") from None
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
