"""A real HTTP server on the loopback that answers as it is told: well, badly, or half."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


@dataclass
class Server:
    """`answers[path]` are used in turn, the last one again and again; `seen` has each request's line and headers."""

    address: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def at(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return self.address + path

    def asked(self, path: str, method: str = "GET") -> list[dict[str, str]]:
        return [headers for m, p, headers in self.seen if (m, p) == (method, path)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_GET(self) -> None:
        self.state.seen.append((self.command, self.path, dict(self.headers)))
        answers = self.state.answers.get(self.path, [status(404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            answer(self)
        except OSError:  # the client hung up, which is what some tests are about
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815 - the library's spelling

    def begin(self, code: int, length: int | None, **headers: str) -> None:
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def body(self, data: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(data)

    def hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state = Server(f"http://127.0.0.1:{http.server_port}")
    http.RequestHandlerClass = type("Bound", (Handler,), {"state": state})
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:12]}"'


def good(data: bytes, *, cut: int | None = None, ranges: bool = True, mark: bool = True, **headers: str) -> Answer:
    """As a server should: ranges under If-Range. With `cut`, the connection ends after so many bytes of the body."""

    def answer(h: Handler) -> None:
        extra = {"ETag": etag(data)} if mark else {}
        start = 0
        wanted = h.headers.get("Range", "")
        if ranges and wanted and h.headers.get("If-Range", etag(data)) == etag(data):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                h.begin(416, 0, Content_Range=f"bytes */{len(data)}", **extra)
                return
            h.begin(206, len(data) - start, Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}", **extra)
        else:
            h.begin(200, len(data), **extra, **headers)
        body = data[start:]
        h.body(body if cut is None else body[:cut])
        if cut is not None:
            h.hang_up()

    return answer


def part_of(data: bytes, mark: str, start: int | None = None) -> Answer:
    """A 206 that asks no questions: the rest of `data` from where the client is (or `start`), under any ETag."""

    def answer(h: Handler) -> None:
        at = int(h.headers["Range"].removeprefix("bytes=").rstrip("-")) if start is None else start
        h.begin(206, len(data) - at, Content_Range=f"bytes {at}-{len(data) - 1}/{len(data)}", ETag=mark)
        h.body(data[at:])

    return answer


def capped(data: bytes, most: int) -> Answer:
    """A server that gives at most so many bytes of a range, which it may."""

    def answer(h: Handler) -> None:
        wanted = h.headers.get("Range")
        if wanted is None:
            good(data, cut=most)(h)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        piece = data[start : start + most]
        where = f"bytes {start}-{start + len(piece) - 1}/{len(data)}"
        h.begin(206, len(piece), Content_Range=where, ETag=etag(data))
        h.body(piece)

    return answer


def status(code: int, **headers: str) -> Answer:
    return lambda h: h.begin(code, 0, **headers)


def redirect(to: str) -> Answer:
    return status(302, Location=to)


def page(kind: str) -> Answer:
    text = b"<!DOCTYPE html><html><body>The service is being mended.</body></html>"

    def answer(h: Handler) -> None:
        h.begin(200, len(text), Content_Type=kind)
        h.body(text)

    return answer


def drip(data: bytes, pause: float, piece: int = 1) -> Answer:
    def answer(h: Handler) -> None:
        h.begin(200, len(data), ETag=etag(data))
        for i in range(0, len(data), piece):
            h.wfile.write(data[i : i + piece])
            h.wfile.flush()
            time.sleep(pause)

    return answer


def silence(seconds: float) -> Answer:
    def answer(h: Handler) -> None:
        h.begin(200, 1000)
        time.sleep(seconds)
        h.hang_up()

    return answer


def no_length(data: bytes) -> Answer:
    """As HTTP/1.0 did: the end of the connection is the end of the file, or of the luck."""

    def answer(h: Handler) -> None:
        h.begin(200, None, ETag=etag(data), Connection="close")
        h.body(data)
        h.hang_up()

    return answer


def chunked(data: bytes, cut: bool = False) -> Answer:
    def answer(h: Handler) -> None:
        h.begin(200, None, ETag=etag(data), Transfer_Encoding="chunked")
        for i in range(0, len(data), 50_000):
            piece = data[i : i + 50_000]
            h.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if cut and i:
                h.hang_up()
                return
        h.wfile.write(b"0\r\n\r\n")

    return answer
