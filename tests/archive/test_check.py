"""check-bundle finds every kind of damage, by name, with Python's standard library alone."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from biglocal.archive import check, crate, pack
from biglocal.archive.crate import About, File

PAYLOAD = {
    "a/one.txt": b"one\n" * 100, "a/two.txt": b"two\n", "b/100% sure.csv": "x,y\n1,é\n".encode(), "b/three.bin": bytes(5000),
}  # fmt: skip
TIME = datetime(2024, 2, 29, 12, 30, 30, tzinfo=UTC)
TOP = "thing-1.0/"


def files(flat: bool) -> dict[str, bytes]:
    said = {name: File(size, hashes[0]) for name, (size, hashes) in ((n, pack.sums(b)) for n, b in PAYLOAD.items())}
    about = About({"name": "n"}, (), "2024-02-29", "1", "3.11.7", {"a/": "As", "b/": "Bs"})
    payload = PAYLOAD | {crate.NAME: crate.describe(said, (), about).encode()}
    made = (
        pack.flat(payload)
        if flat
        else pack.bag(payload, {"ARCHIVE.txt": b"read me\n"}, {"External-Identifier": "c0ffee"})
    )
    return {name: content for name, content in made.items() if isinstance(content, bytes)}


@pytest.fixture(params=["nested", "flat"])
def flat(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "flat")


@pytest.fixture
def at(flat: bool) -> str:
    return "" if flat else "data/"


@pytest.fixture(params=["folder", "zip"])
def bundle(
    request: pytest.FixtureRequest, flat: bool, tmp_path: Path
) -> Callable[[dict[str, bytes | None]], list[str]]:
    """What check says of a bundle with some files changed (None: gone), as a folder and as a .zip."""

    def checked(change: dict[str, bytes | None]) -> list[str]:
        there = {n: b for n, b in (files(flat) | change).items() if b is not None}
        if request.param == "zip":
            path = tmp_path / "thing.zip"
            pack.write(path, there, TIME, top="" if flat else TOP)
        else:
            path = tmp_path / "thing"
            for name, content in there.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(content)
        return [str(f) for f in check.check(path).faults]

    return checked


Bundle = Callable[[dict[str, bytes | None]], list[str]]


def test_a_whole_one_is_whole(bundle: Bundle) -> None:
    assert bundle({}) == []


def test_one_bit(bundle: Bundle, at: str) -> None:
    assert bundle({f"{at}b/three.bin": bytes(4999) + b"\1"}) == [f"altered: {at}b/three.bin"]


def test_lost(bundle: Bundle, at: str) -> None:
    found = bundle({f"{at}a/one.txt": None})
    assert f"lost: {at}a/one.txt" in found
    assert all(f.startswith(("lost: ", "count: ")) for f in found)


def test_added(bundle: Bundle, at: str) -> None:
    found = bundle({f"{at}a/more.txt": b"more"})
    assert f"added: {at}a/more.txt" in found
    assert all(f.startswith(("added: ", "count: ")) for f in found)


def test_renamed(bundle: Bundle, at: str) -> None:
    assert bundle({f"{at}a/two.txt": None, f"{at}a/2.txt": PAYLOAD["a/two.txt"]}) == [
        f"renamed: {at}a/two.txt is now {at}a/2.txt"
    ]


def test_two_files_whose_names_were_exchanged(bundle: Bundle, at: str) -> None:
    found = bundle({f"{at}a/two.txt": PAYLOAD["a/one.txt"], f"{at}a/one.txt": PAYLOAD["a/two.txt"]})
    assert found == [f"altered: {at}a/one.txt", f"altered: {at}a/two.txt"]


@pytest.mark.parametrize("algorithm", check.HASHES)
def test_an_edited_list(bundle: Bundle, flat: bool, algorithm: str, at: str) -> None:
    name = f"{algorithm.upper()}SUMS" if flat else f"manifest-{algorithm}.txt"
    lines = files(flat)[name].decode().splitlines()
    length = len(lines[0].split()[0])
    edited = [("0" * length + line[length:]) if line.endswith("two.txt") else line for line in lines]
    found = bundle({name: ("\n".join(edited) + "\n").encode()})
    assert found and all(f.startswith(f"edited hash list: {name}") for f in found)


@pytest.mark.parametrize("line", ["no hash  a", "abc  a/one.txt", "{}  ../a", "{}  /etc/passwd"])
def test_a_line_that_is_none(bundle: Bundle, flat: bool, line: str) -> None:
    name = "SHA256SUMS" if flat else "manifest-sha256.txt"
    found = bundle({name: files(flat)[name] + line.format("0" * 64).encode() + b"\n"})
    assert any(f.startswith(f"edited hash list: {name} line ") for f in found)


def test_a_file_and_its_lists_altered_together_is_still_not_as_described(tmp_path: Path) -> None:
    payload = {n.removeprefix("data/"): b for n, b in files(False).items() if n.startswith("data/")}
    payload["a/two.txt"] = b"TWO\n"
    forged = pack.bag(payload, {"ARCHIVE.txt": b"read me\n"}, {"External-Identifier": "c0ffee"})
    pack.write(tmp_path / "t.zip", forged, TIME, top=TOP)
    faults = check.check(tmp_path / "t.zip").faults
    assert [f.file for f in faults] == ["data/a/two.txt"] and "another hash" in faults[0].note


@pytest.mark.parametrize("gone", ["manifest-sha256.txt", "tagmanifest-sha512.txt", "bag-info.txt", "ARCHIVE.txt"])
def test_a_lost_tag_file(gone: str, tmp_path: Path) -> None:
    there = {n: b for n, b in files(False).items() if n != gone}
    pack.write(tmp_path / "t.zip", there, TIME, top=TOP)
    assert gone in [f.file for f in check.check(tmp_path / "t.zip").faults]


def test_no_description(bundle: Bundle, at: str) -> None:
    assert f"lost: {at}{crate.NAME}" in bundle({f"{at}{crate.NAME}": None})
    assert f"altered: {at}{crate.NAME}" in bundle({f"{at}{crate.NAME}": b"{"})


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_zip_cut_short(share: float, tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    pack.write(path, files(False), TIME, top=TOP)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert [f.kind for f in check.check(path).faults] == ["broken"]


def test_each_byte_of_a_zip(tmp_path: Path) -> None:
    """Wherever a byte flips, it is found, or it is one that says nothing of any content (a date, a permission)."""
    path, hurt = tmp_path / "t.zip", tmp_path / "hurt.zip"
    pack.write(path, files(True), TIME)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        contents = {i.filename: archive.read(i) for i in archive.infolist()}
    missed = []
    for position in range(0, len(whole), 7):
        hurt.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        if not check.check(hurt).faults:
            with zipfile.ZipFile(hurt) as archive:
                missed += [position for n, b in contents.items() if archive.read(n) != b]
    assert missed == []


UNSAFE = {
    "../up.txt": "climbs out", "a/../../up.txt": "climbs out", "/etc/passwd": "is absolute", "C:/x": "is absolute",
    "..\\up.txt": "climbs out", "\\\\host\\x": "is absolute", "a\\b": "is no plain name", "a/./b": "is no plain name",
    "a//b": "is no plain name", "a\nb": "is no plain name",
}  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE, ids=list(map(repr, UNSAFE)))
def test_a_zip_that_climbs_out_of_its_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    pack.write(path, files(True), TIME)
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("x")
        entry.filename = name
        archive.writestr(entry, b"boo")
    faults = check.check(path).faults
    assert [f.kind for f in faults] == ["unsafe"] and faults[0].note.startswith(UNSAFE[name])
    assert not (tmp_path.parent / "up.txt").exists()


def test_a_link_a_second_entry_and_names_that_collide(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    pack.write(path, files(True), TIME)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("a/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, b"/etc/passwd")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/two.txt", b"another two\n")
        archive.writestr("A/Two.TXT", b"two\n")
    said = [str(f) for f in check.check(path).faults]
    assert any(s.startswith("unsafe: a/link is a link") for s in said)
    assert any(s.startswith("unsafe: a/two.txt is there twice") for s in said)
    assert any(s.startswith("unsafe: a/two.txt and A/Two.TXT are one file") for s in said)


def test_a_link_in_a_folder(tmp_path: Path) -> None:
    for name, content in files(True).items():
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / name).write_bytes(content)
    (tmp_path / "t" / "a" / "one.txt").unlink()
    (tmp_path / "t" / "a" / "one.txt").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "t" / "loop").symlink_to(tmp_path / "t")
    said = [str(f) for f in check.check(tmp_path / "t").faults]
    assert "unsafe: a/one.txt is a link: no bundle holds one" in said
    assert "unsafe: loop is a link: no bundle holds one" in said


def test_a_trap_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(8):
            archive.writestr(f"data/{n}", bytes(2**20))
    monkeypatch.setattr(check, "LARGEST", 2**22)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was read"))
    assert [f.kind for f in check.check(path).faults] == ["unsafe"]


def test_what_is_no_bundle(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(check.NoBundle):
            check.check(path)
        assert check.main([str(path)]) == 2
    (tmp_path / "t.zip").write_bytes(b"")
    assert [f.kind for f in check.check(tmp_path / "t.zip").faults] == ["broken"]


def test_as_it_is_shipped(tmp_path: Path) -> None:
    """One file, run by itself in the unpacked bundle, without this package, the site's packages or a cache of code."""
    payload = {n.removeprefix("data/"): b for n, b in files(False).items() if n.startswith("data/")}
    source = Path(check.__file__).read_bytes()
    bag = pack.bag(payload, {"check_bundle.py": source}, {})
    pack.write(tmp_path / "t.zip", bag, TIME, top=TOP)
    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        archive.extractall(tmp_path)
    script = tmp_path / TOP / "check_bundle.py"

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-I", "-S", str(script)], capture_output=True, text=True, check=False)

    done = run()
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "whole"), done.stdout
    assert run().returncode == 0  # the first left nothing behind
    (tmp_path / TOP / "data" / "a" / "one.txt").unlink()
    done = run()
    assert done.returncode == 1 and "lost: data/a/one.txt" in done.stdout.splitlines()


def test_it_needs_the_standard_library_and_python_3_8_alone() -> None:
    source = Path(check.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    names = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert {n.split(".")[0] for n in names} <= sys.stdlib_module_names
    newer = {"removeprefix", "removesuffix", "is_relative_to", "file_digest", "readlink", "hardlink_to", "pairwise"}
    assert not newer & {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}


def test_the_lists_of_a_flat_bundle_are_those_of_sha256sum() -> None:
    there = files(True)
    for line in there["SHA256SUMS"].decode().splitlines():
        sha, name = line.split("  ", 1)
        assert hashlib.sha256(there[name.replace("%25", "%")]).hexdigest() == sha
