"""From files to one .zip whose bytes depend on nothing but them: a bag (BagIt 1.0, RFC 8493), or flat lists of hashes.

Names are those in the crate; a file is its bytes, or a path where it is too large to hold.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

Contents = Mapping[str, bytes | Path]
HASHES = ("sha256", "sha512")
STORED = (".docx", ".pdf", ".png", ".whl", ".zip")  # packed already
CHUNK = 1 << 20


def sums(content: bytes | Path) -> tuple[int, tuple[str, ...]]:
    """Size in bytes, and the hashes in the order of HASHES."""
    found, size = [hashlib.new(h) for h in HASHES], 0
    for chunk in _chunks(content):
        size += len(chunk)
        for h in found:
            h.update(chunk)
    return size, tuple(h.hexdigest() for h in found)


def bag(payload: Contents, beside: Contents, info: Mapping[str, str]) -> dict[str, bytes | Path]:
    """The bag of a payload: it under `data/`, `beside` at the top, and the lists of both.

    `info`: lines of bag-info.txt, to which Payload-Oxum is added.
    """
    known = {f"data/{name}": sums(content) for name, content in payload.items()}
    oxum = f"{sum(size for size, _ in known.values())}.{len(known)}"
    lines = sorted({**info, "Payload-Oxum": oxum}.items())
    tags: dict[str, bytes | Path] = {
        "bagit.txt": b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
        "bag-info.txt": "".join(f"{label}: {' '.join(value.split())}\n" for label, value in lines).encode(),
        **beside,
    }
    tags |= {f"manifest-{h}.txt": _listed((n, s[i]) for n, (_, s) in known.items()) for i, h in enumerate(HASHES)}
    of_tags = {name: sums(content)[1] for name, content in tags.items()}
    tags |= {f"tagmanifest-{h}.txt": _listed((n, s[i]) for n, s in of_tags.items()) for i, h in enumerate(HASHES)}
    return {f"data/{name}": content for name, content in payload.items()} | tags


def flat(files: Contents) -> dict[str, bytes | Path]:
    """The files, and beside them SHA256SUMS and SHA512SUMS, as sha256sum and sha512sum read them."""
    known = {name: sums(content)[1] for name, content in files.items()}
    lists = {f"{h.upper()}SUMS": _listed((n, s[i]) for n, s in known.items()) for i, h in enumerate(HASHES)}
    return {**files, **lists}


def write(out: Path, files: Contents, time: datetime, executable: frozenset[str] = frozenset(), top: str = "") -> None:
    """Write the .zip, whole or not at all: entries by name below `top`, all of one time (UTC).

    `executable`: names that may be run (-rwxr-xr-x; the others -rw-r--r--).
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    stamp = max(time.utctimetuple()[:6], (1980, 1, 1, 0, 0, 0))  # a .zip knows no time before
    try:
        with zipfile.ZipFile(part, "w", strict_timestamps=True) as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(top + name, stamp)
                entry.create_system = 3  # Unix, on whatever system
                entry.external_attr = (0o100755 if name in executable else 0o100644) << 16
                entry.compress_type = zipfile.ZIP_STORED if name.endswith(STORED) else zipfile.ZIP_DEFLATED
                entry.file_size = content.stat().st_size if isinstance(content := files[name], Path) else len(content)
                with archive.open(entry, "w") as file:
                    for chunk in _chunks(content):
                        file.write(chunk)
        part.replace(out)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _listed(hashes: Iterable[tuple[str, str]]) -> bytes:
    """A list of hashes, by name; what would break a line is written as RFC 8493 asks."""
    escaped = ((n.replace("%", "%25").replace("\n", "%0A").replace("\r", "%0D"), h) for n, h in hashes)
    return "".join(f"{h}  {n}\n" for n, h in sorted(escaped)).encode()


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
