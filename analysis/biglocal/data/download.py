"""One file from one address: streamed to disk, resumed after a break, never taken for whole when it is not.

What is at hand lies at `part`, and beside it `part` + `.json` says which version of which address it is: only
then is the rest asked for (`Range` with `If-Range`, RFC 9110 sections 13.1.5 and 14), and a server that sends
another version, or the whole, is followed from the start. Proxies are taken from the environment.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biglocal import __version__
from biglocal.model import DataError

AGAIN = (408, 425, 429, 500, 502, 503, 504)  # what a later try may mend
PROGRESS = 1 << 18  # bytes gained that start the count of tries anew
PAGE = re.compile(rb"\s*(?:<!doctype html|<html)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try: seconds without a byte, tries in a row without 256 KiB gained, seconds of the first pause
    (doubled each time), seconds of the longest (a server's Retry-After included), and bytes a second below which,
    over `timeout`, a connection counts as broken.
    """

    timeout: float = 30.0
    tries: int = 6
    pause: float = 1.0
    longest: float = 120.0
    slowest: float = 1024.0


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Version:
    """What a server says of a file: bytes (None if it does not say), and its strong ETag or Last-Modified."""

    size: int | None
    mark: str


class OtherBytes(DataError):
    """A whole file, and not the one that sources.toml describes."""


class _Broken(Exception):
    """A fault that a later try may mend; `after` is the pause the server asks for, in seconds."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise DataError(f"{req.full_url} sends on to {newurl}, which is not encrypted. It is not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    address: str,
    part: Path,
    *,
    size: int | None = None,
    patience: Patience = PATIENCE,
    tick: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> Version:
    """Bring the file at `address` to `part`, going on from what is there; `size` is the number of bytes it must have.

    `tick` is told the bytes at hand and the total. On return `part` is whole: as long as the server said.
    Raises `OtherBytes` for a length other than `size`, and `DataError` for a refusal, a web page instead of a file, a
    server that does not say where the file ends, and when patience is at its end; what came stays for the next run.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            return _once(address, part, size, patience, tick)
        except _Broken as fault:
            failures = 1 if _size(part) - before >= PROGRESS else failures + 1
            if failures >= patience.tries:
                raise DataError(f"{fault}, after {failures} tries in a row") from fault
            if fault.after is not None and fault.after > patience.longest:
                raise DataError(f"{fault}, and it asks to come back in {fault.after:.0f} s") from fault
            wait = patience.pause * 2 ** (failures - 1) if fault.after is None else fault.after
            time.sleep(min(wait, patience.longest))


def ask(address: str, patience: Patience = PATIENCE) -> Version:
    """What the server now says of the file, without its bytes. Raises `DataError` if it does not answer."""
    try:
        with _open(urllib.request.Request(address, method="HEAD"), patience) as response:
            return Version(_number(response.headers.get("Content-Length")), _mark(response.headers))
    except (_Broken, urllib.error.HTTPError) as error:
        raise DataError(str(error)) from error


def forget(part: Path) -> None:
    """Remove what is at hand."""
    part.unlink(missing_ok=True)
    _beside(part).unlink(missing_ok=True)


def _once(
    address: str, part: Path, size: int | None, patience: Patience, tick: Callable[[int, int | None], None]
) -> Version:
    """One connection: its bytes join `part` as they come."""
    have, known = _at_hand(address, part)
    if known and known.size == have:
        return known  # stopped between the last byte and the new name
    request = urllib.request.Request(address)
    if known and have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known.mark)
    try:
        response = _open(request, patience)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            forget(part)
            raise _Broken("the server has no such range", 0) from error
        raise DataError(f"the server answers {error.code} {error.reason}") from error
    with response:
        if response.status == 206 and not (known and _continues(response.headers, have, known)):
            forget(part)
            raise _Broken("the file changed on the server during the download", 0)
        if response.status != 206:
            have = 0
        version = Version(_length(response, have), _mark(response.headers))
        if response.status == 206 and known:  # a server may send less than was asked for: the total says what is whole
            version = Version(_number(response.headers["Content-Range"].rpartition("/")[2]) or known.size, known.mark)
        _refuse(response, version.size, size)
        if (free := shutil.disk_usage(part.parent).free) < (version.size or 0) - have:
            raise DataError(f"{version.size or 0:,} bytes are to come and the disk has room for {free:,}. Make room")
        with part.open("r+b" if have else "wb") as file:
            if not have:  # an empty part first, so that no byte of another version can pass for this one's
                _beside(part).write_text(
                    json.dumps({"address": address, "size": version.size, "mark": version.mark}), encoding="utf-8"
                )
            file.seek(have)
            since, gained = time.monotonic(), 0
            while chunk := _read(response, patience):
                if file.tell() == 0 and PAGE.match(chunk):
                    raise DataError("the server sent a web page instead of the file")
                file.write(chunk)
                gained += len(chunk)
                have += len(chunk)
                tick(have, version.size)
                if (spent := time.monotonic() - since) > patience.timeout:
                    if gained < patience.slowest * spent:
                        raise _Broken(f"the server sends less than {patience.slowest:,.0f} bytes a second")
                    since, gained = time.monotonic(), 0
    if version.size is not None and have < version.size:
        raise _Broken(f"the connection ended after {have:,} of {version.size:,} bytes")
    if size is not None and have != size:
        raise OtherBytes(f"the server sent {have:,} bytes, sources.toml says {size:,}")
    return Version(have, version.mark)


def _open(request: urllib.request.Request, patience: Patience) -> Any:
    """An answer with its body still to come. Raises `HTTPError` for a refusal, `_Broken` for what may pass."""
    request.add_header("User-Agent", f"biglocal/{__version__} (replication package)")
    request.add_header("Accept-Encoding", "identity")  # lengths and ranges are then those of the file
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=patience.timeout)
    except urllib.error.HTTPError as error:
        if error.code in AGAIN:
            after = _seconds(error.headers.get("Retry-After", ""))
            raise _Broken(f"the server answers {error.code} {error.reason}", after) from error
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(
                f"the server's certificate is not trusted ({error.reason.verify_message}). Behind a proxy that "
                f"opens connections, set SSL_CERT_FILE to its certificate"
            ) from error
        if isinstance(error.reason, socket.gaierror):
            raise DataError(
                "no server of this name is found: is there a network, or a proxy to set (https_proxy)?"
            ) from error
        raise _Broken(f"no connection ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"the connection broke ({_said(error)})") from error


def _read(response: Any, patience: Patience) -> bytes:
    try:
        chunk: bytes = response.read1(1 << 18)
    except TimeoutError as error:
        raise _Broken(f"the server sent nothing for {patience.timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"the connection broke ({_said(error)})") from error
    return chunk


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _at_hand(address: str, part: Path) -> tuple[int, Version | None]:
    """Bytes in `part`, and the version of `address` they belong to; none where that is not known."""
    try:
        note = json.loads(_beside(part).read_text(encoding="utf-8"))
        known = Version(note["size"], note["mark"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None
    have = _size(part)
    if note["address"] != address or not known.mark or have > (have if known.size is None else known.size):
        return 0, None
    return have, known


def _continues(headers: Any, have: int, known: Version) -> bool:
    """Whether a part that was sent is the rest of the same version."""
    where = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if not where or int(where[1]) != have:
        return False
    etag, modified = headers.get("ETag"), headers.get("Last-Modified")
    same = known.mark == (etag if known.mark.startswith('"') else modified) if (etag or modified) else True
    return same and (where[2] == "*" or known.size is None or int(where[2]) == known.size)


def _length(response: Any, have: int) -> int | None:
    """Bytes of the whole file. Raises `DataError` where a cut file could not be told from a whole one."""
    rest = _number(response.headers.get("Content-Length"))
    if rest is None and not response.chunked:
        raise DataError("the server does not say how long the file is, so a cut one could not be told from a whole one")
    return None if rest is None else have + rest


def _refuse(response: Any, total: int | None, size: int | None) -> None:
    """Raises `DataError` for an answer that cannot be the file."""
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise DataError("the server sent a web page instead of the file")
    if (packed := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise DataError(f"the server packs the file ({packed}) although it was asked not to")
    if size is not None and total is not None and total != size:
        raise OtherBytes(f"the server has {total:,} bytes, sources.toml says {size:,}")


def _mark(headers: Any) -> str:
    """What names this version: the ETag if strong (a weak one may not be used with ranges), or the date of change."""
    etag: str = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _seconds(retry_after: str) -> float | None:
    """`Retry-After`: seconds, or a date."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
