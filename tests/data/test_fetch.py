"""Each fault of a server ends in a good file or in a clear message, never in a wrong file under the final name."""

from __future__ import annotations

import email.utils
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from biglocal.data import folder, sources
from biglocal.data.download import Patience
from biglocal.data.fetch import RECORD, Report, fetch
from biglocal.data.sources import File, Source
from biglocal.model import DataError
from data.fault_server import (
    Answer,
    Server,
    capped,
    chunked,
    drip,
    good,
    no_length,
    page,
    part_of,
    redirect,
    serving,
    silence,
    status,
)

HURRY = Patience(timeout=0.4, tries=3, pause=0.01, longest=0.2, slowest=2000)
NAME = "imd.csv"
ROWS = "".join(f"E01{i:06d},London,{i % 80}.5\n" for i in range(20_000))
GOOD = f"LSOA CODE,GOR NAME,IMD SCORE\n{ROWS}".encode()
NEWER = GOOD.replace(b".5\n", b".6\n")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving() as state:
        yield state


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "open"


def source(*addresses: str, name: str = NAME, key: str = "imd", size: int | None = None, sha256: str = "") -> Source:
    return Source(
        key, "the Indices", "a department", "open", "https://example.org/page", "OGL-UK-3.0", "cite", "2010",
        ("LSOA CODE", "IMD SCORE"), ("areas",), ("imd",), "yes", files=(File(name, addresses, size, sha256),),
    )  # fmt: skip


def run(into: Path, *listed: Source, patience: Patience = HURRY, **options: object) -> tuple[Report, ...]:
    return tuple(fetch(listed, into, patience=patience, **options))  # type: ignore[arg-type]


def visible(into: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in into.iterdir() if not p.name.startswith(".")}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# name -> the server's answers in turn; the number of requests that should do
MENDED: dict[str, tuple[list[Answer], int]] = {
    "whole": ([good(GOOD)], 1),
    "cut once, ranges": ([good(GOOD, cut=150_000), good(GOOD)], 2),
    "cut at the first byte": ([good(GOOD, cut=0), good(GOOD)], 2),
    "cut three times, ranges": ([good(GOOD, cut=90_000)] * 2 + [good(GOOD)], 3),
    "cut once, ranges refused": ([good(GOOD, cut=150_000), good(GOOD, ranges=False)], 2),
    "cut once, no mark to resume by": ([good(GOOD, cut=150_000, mark=False), good(GOOD, mark=False)], 2),
    "503 with Retry-After in seconds": ([status(503, Retry_After="0"), good(GOOD)], 2),
    "503 with a date gone by": ([status(503, Retry_After=email.utils.formatdate(0, usegmt=True)), good(GOOD)], 2),
    "429 and 500": ([status(429), status(500), good(GOOD)], 3),
    "silence, then well": ([silence(1.0), good(GOOD)], 2),
    "slow drip, then well": ([drip(GOOD, 0.02, 10), good(GOOD)], 2),
    "chunked": ([chunked(GOOD)], 1),
    "chunked and cut": ([chunked(GOOD, cut=True), good(GOOD)], 2),
    "changed in between, server says so": ([good(NEWER, cut=150_000), good(GOOD)], 2),
    "changed in between, part under another ETag": (
        [good(NEWER, cut=150_000), part_of(GOOD, '"other"'), good(GOOD)], 3,
    ),
    "a part that begins elsewhere": ([good(GOOD, cut=150_000), part_of(GOOD, '"other"', start=7), good(GOOD)], 3),
    "ranges shorter than asked for": ([capped(GOOD, 160_000)], 3),
    "range not satisfiable": ([good(GOOD, cut=150_000), status(416), good(GOOD)], 3),
}  # fmt: skip


@pytest.mark.parametrize("fault", MENDED)
def test_a_fault_that_passes_ends_in_a_good_file(fault: str, server: Server, into: Path) -> None:
    answers, requests = MENDED[fault]
    (report,) = run(into, source(server.at("/f", *answers)))
    assert report.state == "fetched", report
    assert visible(into) == {NAME: GOOD}
    assert len(server.asked("/f")) == requests
    assert sorted(p.name for p in (into / ".fetching").iterdir()) == ["lock"]


# name -> the answer, and what the message must say
LOST: dict[str, tuple[Answer, str]] = {
    "cut each time without a byte": (good(GOOD, cut=0), "ended after 0 of"),
    "404": (status(404), "404"),
    "403": (status(403), "403"),
    "503 for long": (status(503, Retry_After="3600"), "come back in 3600 s"),
    "503 for ever": (status(503), "after 3 tries in a row"),
    "web page": (page("text/html; charset=utf-8"), "a web page instead of the file"),
    "web page that says it is a CSV": (page("text/csv"), "a web page instead of the file"),
    "silence": (silence(1.0), "nothing for 0.4 s"),
    "slow drip": (drip(GOOD, 0.02, 10), "less than 2,000 bytes a second"),
    "no length": (no_length(GOOD), "how long the file is"),
    "packed": (good(GOOD, Content_Encoding="gzip"), "packs the file"),
    "chunked and cut each time": (chunked(GOOD, cut=True), "after 3 tries in a row"),
    "other columns": (good(GOOD.replace(b"IMD SCORE", b"IMD RANKS")), "its columns are LSOA CODE, GOR NAME, IMD RANKS"),
    "empty": (good(b""), "nothing that is known"),
}


@pytest.mark.parametrize("fault", LOST)
def test_a_fault_that_stays_ends_in_a_message(fault: str, server: Server, into: Path) -> None:
    answer, says = LOST[fault]
    (report,) = run(into, source(server.at("/f", answer)))
    assert report.state == "failed"
    assert says in report.said and server.address in report.said
    assert report.steps == (
        f"Download it in a browser from https://example.org/page, put it into {into}, and run again.",
    )
    assert visible(into) == {}


@pytest.mark.parametrize("fault", LOST)
def test_a_mirror_stands_in(fault: str, server: Server, into: Path) -> None:
    listed = source(server.at("/f", LOST[fault][0]), server.at("/mirror", good(GOOD)))
    (report,) = run(into, listed)
    assert report.state == "fetched" and visible(into) == {NAME: GOOD}
    assert "Range" not in server.asked("/mirror")[0]  # another server's bytes are not mixed with these


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_a_named_file_is_whole(seed: int, server: Server, into: Path) -> None:
    """Random faults over several runs, between two versions of the file: one of them whole, or none."""
    draw = random.Random(seed)
    address = server.address + "/f"
    for _ in range(4):
        answers: list[Answer] = []
        for _ in range(draw.randrange(1, 5)):
            data = draw.choice([GOOD, NEWER])
            cut = draw.randrange(len(data))
            answers.append(
                draw.choice(
                    [
                        good(data, cut=cut), good(data, cut=cut, ranges=False), good(data, cut=cut, mark=False),
                        capped(data, cut + 1), chunked(data, cut=True), status(503), status(416), no_length(data[:cut]),
                    ]
                )
            )  # fmt: skip
        server.at("/f", *answers, *([good(draw.choice([GOOD, NEWER]))] if draw.random() < 0.3 else []))
        (report,) = run(into, source(address), patience=replace(HURRY, pause=0.0))
        assert visible(into) in ({}, {NAME: GOOD}, {NAME: NEWER})
        assert (report.state in ("fetched", "present", "changed upstream")) == bool(visible(into))


def test_the_next_run_goes_on_where_this_one_gave_up(server: Server, into: Path) -> None:
    address = server.at("/f", good(GOOD, cut=100_000), status(503))
    assert run(into, source(address))[0].state == "failed"
    assert visible(into) == {} and (into / ".fetching" / NAME).stat().st_size == 100_000
    server.at("/f", good(GOOD))
    assert run(into, source(address))[0].state == "fetched"
    assert server.asked("/f")[-1]["Range"] == "bytes=100000-" and "If-Range" in server.asked("/f")[-1]
    assert visible(into) == {NAME: GOOD}


def test_a_file_whole_but_not_named_yet_is_not_asked_for_again(server: Server, into: Path) -> None:
    address = server.at("/f", good(GOOD, cut=100_000), status(503))
    run(into, source(address))
    part = into / ".fetching" / NAME
    part.write_bytes(GOOD)
    before = len(server.seen)
    assert run(into, source(address))[0].state == "fetched"
    assert len(server.seen) == before and visible(into) == {NAME: GOOD}


@pytest.mark.parametrize("rubbish", ["longer than the file", "no note", "note cut"])
def test_a_part_that_cannot_be_trusted_is_not_used(rubbish: str, server: Server, into: Path) -> None:
    address = server.at("/f", good(GOOD, cut=100_000), status(503))
    run(into, source(address))
    part, note = into / ".fetching" / NAME, into / ".fetching" / f"{NAME}.json"
    match rubbish:
        case "longer than the file":
            part.write_bytes(b"x" * (len(GOOD) + 1))
        case "no note":
            note.unlink()
        case _:
            note.write_text(note.read_text()[:20])
    server.at("/f", good(GOOD))
    assert run(into, source(address))[0].state == "fetched"
    assert "Range" not in server.asked("/f")[-1] and visible(into) == {NAME: GOOD}


def test_killed_midway_then_resumed(server: Server, into: Path) -> None:
    address = server.at("/f", drip(GOOD, 0.01, 4000))
    code = textwrap.dedent(f"""
        from pathlib import Path
        from biglocal.data.fetch import fetch
        from data.test_fetch import source
        print(list(fetch([source({address!r})], Path({str(into)!r}))))
    """)
    path = os.pathsep.join(p for p in sys.path if p)
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    part = into / ".fetching" / NAME
    until = time.monotonic() + 15
    while not (part.exists() and part.stat().st_size > 20_000):
        assert time.monotonic() < until and child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert visible(into) == {}
    have = part.stat().st_size
    assert GOOD.startswith(part.read_bytes())
    server.at("/f", good(GOOD))
    assert run(into, source(address))[0].state == "fetched"
    assert server.asked("/f")[-1]["Range"] == f"bytes={have}-" and visible(into) == {NAME: GOOD}


def test_one_fetch_at_a_time(server: Server, into: Path) -> None:
    pytest.importorskip("fcntl", reason="no file locks on this system")
    listed = [source(server.at("/f", good(GOOD)))]
    first = fetch([*listed, *listed], into, patience=HURRY)
    next(first)
    with pytest.raises(DataError, match="another fetch is at work"):
        run(into, *listed)
    assert next(first).state == "present"


def test_redirects_are_followed_and_loops_are_not(server: Server, into: Path, tmp_path: Path) -> None:
    end = server.at("/end", good(GOOD, cut=100_000), good(GOOD))
    (report,) = run(into, source(server.at("/f", redirect(end))))
    assert report.state == "fetched" and visible(into) == {NAME: GOOD}
    assert server.asked("/end")[1]["Range"] == "bytes=100000-"
    loop = server.address + "/loop"
    (report,) = run(tmp_path / "second", source(server.at("/loop", redirect(loop))))
    assert report.state == "failed" and "loop" in report.said
    (report,) = run(tmp_path / "second", source(server.at("/f", redirect("file:///etc/hostname"))))
    assert report.state == "failed" and visible(tmp_path / "second") == {}


@pytest.mark.parametrize("what", ["sha256", "size"])
def test_bytes_that_are_not_the_ones_listed(what: str, server: Server, into: Path) -> None:
    address = server.at("/f", good(NEWER if what == "sha256" else NEWER + b"E01999999,London,1\n"))
    pinned = {"sha256": sha(GOOD)} if what == "sha256" else {"size": len(GOOD)}
    (report,) = run(into, source(address, **pinned))  # type: ignore[arg-type]
    assert report.state == "changed upstream"
    assert "sources.toml" in report.said and visible(into) == {}
    (report,) = run(into, source(address, server.at("/mirror", good(GOOD)), **pinned))  # type: ignore[arg-type]
    assert report.state == "fetched" and visible(into) == {NAME: GOOD}


def test_a_resumed_file_of_wrong_bytes_starts_anew(server: Server, into: Path) -> None:
    listed = source(server.at("/f", good(GOOD, cut=100_000), status(503)), sha256=sha(GOOD))
    run(into, listed)
    part = into / ".fetching" / NAME
    part.write_bytes(b"?" + part.read_bytes()[1:])
    server.at("/f", good(GOOD))
    assert run(into, listed)[0].state == "changed upstream" and visible(into) == {}
    assert run(into, listed)[0].state == "fetched" and visible(into) == {NAME: GOOD}


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        entry = zipfile.ZipInfo("2016-07/2016-07-west-yorkshire-street.csv")  # dated 1980; a plain name takes the clock
        z.writestr(entry, "Month,LSOA code,Crime type\n2016-07,E01000001,Burglary\n")
    return out.getvalue()


ZIPS = {
    "cut, with the length of the cut": (archive()[:-30], "not a whole zip"),
    "a byte changed": (archive().replace(b"Burglary", b"Burglarx"), "damaged zip"),
    "an entry that climbs out": (archive().replace(b"2016-07/2016", b"../6-07/2016"), "outside the archive"),
}


@pytest.mark.parametrize("fault", ZIPS)
def test_a_damaged_zip_is_not_kept(fault: str, server: Server, into: Path) -> None:
    data, says = ZIPS[fault]
    listed = source(server.at("/f", good(data)), name="2016-12.zip", key="police")
    (report,) = run(into, listed)
    assert report.state == "failed" and says in report.said and visible(into) == {}
    server.at("/f", good(archive()))
    assert run(into, listed)[0].state == "fetched" and len(folder.folder(into).street) == 1


def test_what_is_there_is_never_written_over(server: Server, into: Path) -> None:
    into.mkdir()
    (into / "under another name.csv").write_bytes(NEWER)
    assert run(into, source(server.at("/f", good(GOOD))))[0] == Report("imd", "present", "under another name.csv")
    (into / "under another name.csv").rename(into / NAME)
    assert run(into, source(server.at("/f", good(GOOD)), sha256=sha(GOOD)))[0].state == "needs you"
    assert visible(into) == {NAME: NEWER} and server.seen == []


def test_changed_here_and_changed_upstream(server: Server, into: Path) -> None:
    listed = source(server.at("/f", good(GOOD)))
    assert [run(into, listed)[0].state for _ in range(2)] == ["fetched", "present"]
    assert len(server.asked("/f")) == 1 and len(server.asked("/f", "HEAD")) == 1
    server.at("/f", good(NEWER))
    (report,) = run(into, listed)
    assert report.state == "changed upstream" and visible(into) == {NAME: GOOD}
    server.at("/f", status(503))
    (report,) = run(into, listed)
    assert report.state == "present" and "not asked" in report.said
    (into / NAME).write_bytes(NEWER)
    (report,) = run(into, listed)
    assert report.state == "needs you" and "changed here" in report.said and visible(into) == {NAME: NEWER}


def test_the_record_has_no_clock_and_no_path(server: Server, into: Path, tmp_path: Path) -> None:
    address = server.at("/f", good(GOOD))
    run(into, source(address))
    run(tmp_path / "again", source(address))
    first = (into / RECORD).read_bytes()
    assert first == (tmp_path / "again" / RECORD).read_bytes()
    assert sha(GOOD).encode() in first and str(tmp_path).encode() not in first


def test_a_dry_run_asks_nobody_and_writes_nothing(server: Server, into: Path) -> None:
    (report,) = run(into, source(server.at("/f", good(GOOD))), dry_run=True)
    assert report.state == "absent" and server.address in report.said
    assert server.seen == [] and not into.exists()


def test_from_a_folder_of_downloads(server: Server, into: Path, tmp_path: Path) -> None:
    given = tmp_path / "downloads"
    (given / "deep").mkdir(parents=True)
    (given / "deep" / "whatever (1).csv").write_bytes(GOOD)
    (given / "crime.zip").write_bytes(archive())
    listed = source(server.at("/f", good(NEWER)))
    police = source(server.address, name="2016-12.zip", key="police")
    samhi = source(server.address, name="samhi.csv", key="samhi")
    states = [r.state for r in run(into, listed, police, samhi, given=given)]
    assert states == ["copied", "copied", "absent"] and server.seen == []
    assert visible(into) == {"whatever (1).csv": GOOD, "crime.zip": archive()}
    assert [r.state for r in run(into, listed, police, given=given)] == ["present", "present"]
    assert (
        run(tmp_path / "b", source(server.address, name="whatever (1).csv", sha256=sha(NEWER)), given=given)[0].state
        == "failed"
    )
    with pytest.raises(DataError, match="no such folder"):
        run(into, listed, given=tmp_path / "nowhere")


def test_from_a_folder_does_not_write_over_a_file_of_the_same_name(into: Path, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    into.mkdir()
    (tmp_path / "downloads" / "a.csv").write_bytes(GOOD)
    (into / "a.csv").write_bytes(b"mine\n")
    (report,) = run(into, source("http://127.0.0.1:9"), given=tmp_path / "downloads")
    assert report.state == "needs you" and visible(into) == {"a.csv": b"mine\n"}


def test_from_the_real_folder(real_data: Path, into: Path) -> None:
    states = {r.source: r.state for r in fetch(sources.read(), into, given=real_data)}
    assert {key for key, state in states.items() if state == "copied"} >= {"lookup", "imd", "rural", "samhi", "police"}
    there, here = folder.folder(real_data), folder.folder(into)
    assert {r: len(f) for r, f in here.roles.items()} == {r: len(f) for r, f in there.roles.items()}
    assert [(s.month, s.force) for s in here.street] == [(s.month, s.force) for s in there.street]


def test_without_a_network_the_message_says_so(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (report,) = run(into, source("http://127.0.0.1:9/f"))
    assert report.state == "failed" and "no connection" in report.said
    (report,) = run(into, source("http://nowhere.invalid/f"))
    assert report.state == "failed" and ("is there a network" in report.said or "no connection" in report.said)


def test_through_a_proxy(server: Server, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    server.at("http://publisher.invalid/f", good(GOOD, cut=100_000), good(GOOD))
    (report,) = run(into, source("http://publisher.invalid/f"))
    assert report.state == "fetched" and visible(into) == {NAME: GOOD}
    assert server.asked("http://publisher.invalid/f")[1]["Range"] == "bytes=100000-"


def test_a_full_disk_is_seen_before_it_is_full(server: Server, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    (report,) = run(into, source(server.at("/f", good(GOOD))))
    assert report.state == "failed" and "Make room" in report.said and visible(into) == {}


def test_progress_counts_every_byte_once(server: Server, into: Path) -> None:
    told: list[tuple[int, int | None]] = []
    listed = source(server.at("/f", good(GOOD, cut=100_000), good(GOOD)))
    list(fetch([listed], into, patience=HURRY, progress=lambda _: lambda done, total: told.append((done, total))))
    assert told == sorted(told) and told[-1] == (len(GOOD), len(GOOD))
    assert {total for _, total in told} == {len(GOOD)}


TOML: dict[str, tuple[Callable[[str], str], str]] = {
    "not TOML": (lambda t: t + "\n[", "not valid TOML"),
    "typo": (lambda t: t.replace("\npublisher =", "\npublischer =", 1), "lookup.publisher: field required"),
    "address": (lambda t: t.replace('"https://pldr', '"file:///pldr'), "begins with https://"),
    "path": (lambda t: t.replace('name = "2013-12.zip"', 'name = "../2013-12.zip"'), "not a plain file name"),
    "hash": (
        lambda t: t.replace('{ name = "2013-12.zip",', '{ name = "2013-12.zip", sha256 = "abc",'),
        "sha256 has 64",
    ),
}


@pytest.mark.parametrize("fault", TOML)
def test_a_wrong_list_is_refused(fault: str, tmp_path: Path) -> None:
    change, says = TOML[fault]
    (tmp_path / "sources.toml").write_text(change(sources.PATH.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError, match=says):
        sources.read(tmp_path / "sources.toml")


def test_every_source_can_be_got_in_some_way() -> None:
    for one in sources.read():
        assert one.files or one.steps, one.key
        assert one.rights and one.cost and one.waiting and one.columns and one.tables, one.key
        assert set(one.roles) <= {*folder.ROLES, "police"}


def test_only_names_what_is_there() -> None:
    listed = sources.read()
    assert [s.key for s in sources.chosen(listed, ["samhi", "imd"])] == ["imd", "samhi"]
    assert sources.chosen(listed, []) == listed
    with pytest.raises(DataError, match="Did you mean 'police'"):
        sources.chosen(listed, ["polise"])


def test_the_dataset_list_is_current() -> None:
    text = sources.README.read_text(encoding="utf-8")
    assert sources.insert(text, sources.read()) == text, "run `biglocal metadata`"
    changed = [replace(s, publisher="Somebody Else") for s in sources.read()]
    assert sources.insert(text, changed) != text
    with pytest.raises(DataError, match="Put them back"):
        sources.insert("no markers", changed)


def test_the_command_says_what_is_left_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "biglocal", "data", "--into", str(tmp_path / "open"), "--only", "aps"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("aps: needs you: ") and "accredited researcher" in done.stdout
    assert done.stderr.strip() == "1 needs you"
