"""The deposit: the same bytes from the same contents, refused where it would not be true, and as archives want it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fake_rows
from biglocal import provenance, release, results
from biglocal.archive import bundle, check, crate, dialects, pack, roc
from biglocal.archive.bundle import MEANING
from biglocal.data import load as loading
from biglocal.model import BiglocalError, DataError, VerifyError
from biglocal.results import COLUMNS
from biglocal.study import ROOT
from biglocal.study import load as load_study

FIXED = {
    "GIT_AUTHOR_DATE": "2025-03-30T01:30:31 +0100", "GIT_COMMITTER_DATE": "2025-03-30T01:30:31 +0100",
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
}  # fmt: skip
TOP = "biglocal-0.1.0-synthetic/"


def git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *words], check=True, capture_output=True, text=True, env=os.environ | FIXED
    ).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in small: what a bundle reads of one, in a commit."""
    root = tmp_path_factory.mktemp("clone")
    for name in (
        "pyproject.toml",
        "LICENSE",
        "analysis/study.toml",
        "data-raw/sources.toml",
        "data-raw/published.toml",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "manuscript", root / "manuscript")
    texts = {
        "analysis/biglocal/__init__.py": "code = 1\n", "analysis/biglocal/data/synthetic.py": "", "locks/run.txt": "# made from a\n", "locks/nox.txt": "# made from b\n",
        ".gitattributes": ".git_archival.txt export-subst\n", ".git_archival.txt": "$Format:%H %ct$\n",
        ".gitignore": "outputs/\ndist/\n", ".ci/job": "#!/bin/sh\n", "an é & a space.txt": "text\n",
    }  # fmt: skip
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / ".ci/job").chmod(0o755)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=All of it")
    return root


@pytest.fixture(scope="module")
def tier() -> loading.Tier:
    """The synthetic tier with its two smallest tables, made once."""
    whole = loading.load("synthetic", seed=load_study().seed)
    whole.table("programme")
    return replace(whole, digests={t: whole.digests[t] for t in ("programme",)})


@pytest.fixture(autouse=True)
def small_data(monkeypatch: pytest.MonkeyPatch, tier: loading.Tier) -> None:
    monkeypatch.setattr(loading, "load", lambda *_, **__: tier)


@pytest.fixture(scope="module")
def done(repository: Path, tier: loading.Tier) -> Path:
    """The same with the outputs of a run beside it."""
    run(repository, tier)
    return repository


@pytest.fixture
def clone(done: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(done, tmp_path / "clone")


def run(root: Path, tier: loading.Tier, **record: Any) -> None:
    """Outputs as a run leaves them: what is released, what is held, and the record of it all."""
    out = root / "outputs" / "synthetic"
    study = load_study(root / "analysis" / "study.toml", root / "manuscript")
    rows = [r for r in fake_rows.rows(study) if r.outcome in ("samhi", "high_anxiety") and r.part == "effects"]
    known = [replace(r, n_persons=5000, n_least=2000) if release.personal(r, study) else r for r in rows]
    held = results.loads(results.dumps(known), "results.csv")
    released, findings = release.control(held, study)
    results.write_text(out / release.HELD / "results.csv", results.dumps(held))
    results.write_text(out / release.HELD / "README.txt", release.KEPT_BACK)
    made = {
        "results.csv": results.dumps(released), "numbers.json": "{}\n", "report.html": "<p>SYNTHETIC</p>", "report.pdf": "%PDF",
        "report.docx": "PK", "tables/balance.csv": "a,b\n", "tables/balance.md": "| a |\n", "figures/balance.svg": "<svg/>",
    }  # fmt: skip
    for name, text in made.items():
        results.write_text(out / name, text)
    files = [out / n for n in made] + list(release.report(released, findings, study, {}, out))
    said = {
        "tier": "synthetic", "banner": "SYNTHETIC", "draws": "quick", "seed": study.seed, "data": tier.digests,
        "study": provenance.choices(study), "code": provenance.sources_of(root / "analysis" / "biglocal"),
        "manuscript": provenance.texts_of(root / "manuscript", root), "versions": {"python": "3.11.7"}, "locked": {},
        "lock": results.digest((root / "locks" / "run.txt").read_bytes()), "rendered_from": "key",
        "outputs": {p.relative_to(out).as_posix(): results.digest(p.read_bytes()) for p in files}, **record,
    }  # fmt: skip
    results.write_text(out / "provenance.json", json.dumps(said))


def made(root: Path, name: str = "b.zip", **options: Any) -> bundle.Made:
    return bundle.make(root.parent / name, outputs=root / "outputs", root=root, **options)


def unzipped(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {i.filename: archive.read(i) for i in archive.infolist()}


# --- the same bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_two_clones_elsewhere_later_and_abroad_give_the_same_bytes(
    clone: Path, tier: loading.Tier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat: bool
) -> None:
    first = made(clone, flat=flat)
    other = tmp_path / "an other Ólder"
    git(tmp_path, "clone", "--quiet", str(clone), str(other))
    old = os.umask(0o077)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    monkeypatch.setenv("LC_ALL", "C")
    time.tzset()
    try:
        run(other, tier)
        for path in other.rglob("*"):
            if ".git" not in path.parts:
                os.utime(path, (1, 1))
        git(other, "update-index", "--refresh")
        second = made(other, "second.zip", flat=flat)
    finally:
        os.umask(old)
        monkeypatch.undo()
        time.tzset()
    assert (first.sha256, first.contents, first.files) == (second.sha256, second.contents, second.files)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == first.sha256


def test_entries_are_sorted_dated_by_the_commit_and_of_fixed_permissions(clone: Path) -> None:
    with zipfile.ZipFile(made(clone).path) as archive:
        entries = archive.infolist()
    assert [e.filename for e in entries] == sorted(e.filename for e in entries)
    assert {e.date_time for e in entries} == {(2025, 3, 30, 0, 30, 30)}  # UTC, in a zip's steps of two seconds
    modes = {e.filename.removeprefix(TOP): e.external_attr >> 16 for e in entries}
    assert modes.pop("data/source/.ci/job") == 0o100755
    assert set(modes.values()) == {0o100644}


def test_no_path_or_clock_of_this_machine_is_inside(clone: Path) -> None:
    today = time.strftime("%Y-%m-%d").encode()
    for name, content in unzipped(made(clone).path).items():
        assert str(clone).encode() not in content and b"/tmp/" not in content, name
        if not name.startswith(f"{TOP}data/source/"):
            assert today not in content, name


# --- what is in it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_what_is_in_it_is_whole_and_described(clone: Path, tmp_path: Path, flat: bool) -> None:
    done = made(clone, flat=flat)
    faults, said = check.check(done.path)
    assert faults == ()
    assert f"{done.files:,} files" in said and done.sha256 in said
    top = "" if flat else f"{TOP}data/"
    there = unzipped(done.path)
    expected = {
        "source/analysis/study.toml", "source/an é & a space.txt", "source/locks/run.txt", "outputs/synthetic/results.csv",
        "outputs/synthetic/report.pdf", "outputs/synthetic/provenance.json", "data/programme.csv", "data/datapackage.json",
        "ro-crate-metadata.json",
    }  # fmt: skip
    assert {top + n for n in expected} <= set(there)
    assert not [n for n in there if release.HELD in n or ".git/" in n]
    graph = {e["@id"]: e for e in json.loads(there[f"{top}{crate.NAME}"])["@graph"]}
    with zipfile.ZipFile(done.path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert check.check(tmp_path / "unpacked").faults == ()
    root = graph["./"]
    assert root["datePublished"] == "2025-03-30" and "SYNTHETIC" in root["description"]
    own, _ = dialects.crate(dialects.read(load_study(), clone))
    same = {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in own.items()}
    assert {k: root[k] for k in ("keywords", "license", "author", "citation")} == {
        k: same[k] for k in ("keywords", "license", "author", "citation")
    }
    made_by = {r["@id"]: e for e in graph.values() if e["@type"] == "CreateAction" for r in listed(e["result"])}
    outputs = {n for n, e in graph.items() if e["@type"] == "File" and n.startswith(("outputs/", "data/"))}
    assert outputs == set(made_by)
    assert made_by["outputs/synthetic/tables/balance.csv"]["@id"] == "#exhibit-balance"
    for action in made_by.values():
        for entity in (*listed(action["object"]), *listed(action["result"]), *listed(action["instrument"])):
            assert entity["@id"] in graph


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_the_page_says_how_to_check_it_and_what_each_column_means(clone: Path) -> None:
    there = unzipped(made(clone).path)
    page = there[f"{TOP}ARCHIVE.txt"].decode()
    assert hashlib.sha256(there[f"{TOP}check_bundle.py"]).hexdigest() in page
    assert git(clone, "rev-parse", "HEAD").strip() in page
    assert "SYNTHETIC: every number here is computed from made data and says nothing about Big Local." in page
    named = {c for names in MEANING for c in names.split(", ")} | {"n_least"}
    assert named == set(COLUMNS) and "n_least" in MEANING["n_persons"]
    assert all(f"{names}: " in page for names in MEANING)
    assert max(map(len, page.splitlines())) <= 100 and len(page.splitlines()) < 100
    for place in ("data/source/LICENSE", "data/outputs/synthetic/numbers.json"):
        assert place in page and f"{TOP}{place}" in there


def test_the_hashes_are_those_of_sha256sum(clone: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(made(clone).path) as archive:
        archive.extractall(tmp_path)
    for algorithm in ("sha256", "sha512"):
        for kind in ("manifest", "tagmanifest"):
            words = [f"{algorithm}sum", "--check", "--quiet", "--strict", f"{kind}-{algorithm}.txt"]
            assert subprocess.run(words, cwd=tmp_path / TOP, capture_output=True, check=False).returncode == 0


# --- what it refuses ------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_left(clone: Path) -> Iterator[None]:
    yield
    assert not list(clone.parent.glob("*.zip")) and not list(clone.parent.glob(".*.part"))


@pytest.mark.usefixtures("nothing_left")
class TestRefuses:
    def test_a_change_in_no_commit(self, clone: Path) -> None:
        (clone / "analysis" / "biglocal" / "mine.py").write_text("code = 2\n")
        with pytest.raises(DataError, match=r"analysis/biglocal/mine\.py.*--allow-dirty"):
            made(clone)

    def test_an_altered_output(self, clone: Path) -> None:
        (clone / "outputs" / "synthetic" / "report.html").write_text("<p>better</p>")
        with pytest.raises(VerifyError, match=r"report\.html: changed after the run"):
            made(clone)

    def test_a_lost_output(self, clone: Path) -> None:
        (clone / "outputs" / "synthetic" / "tables" / "balance.csv").unlink()
        with pytest.raises(VerifyError, match=r"tables/balance\.csv: lost"):
            made(clone)

    def test_no_run(self, clone: Path) -> None:
        with pytest.raises(VerifyError, match="no record of a run in secure"):
            made(clone, tier="secure")

    def test_a_run_of_a_part(self, clone: Path, tier: loading.Tier) -> None:
        run(clone, tier, rendered_from="")
        with pytest.raises(VerifyError, match="a part of them"):
            made(clone)

    def test_a_run_of_another_study(self, clone: Path) -> None:
        path = clone / "analysis" / "study.toml"
        path.write_text(
            path.read_text(encoding="utf-8").replace("conf_level = 0.95", "conf_level = 0.9"), encoding="utf-8"
        )
        git(clone, "commit", "--quiet", "--all", "--message=Other choices")
        with pytest.raises(VerifyError, match=r"another source than this: study: policy changed"):
            made(clone)

    @pytest.mark.parametrize(
        ("file", "said"),
        [
            ("analysis/biglocal/__init__.py", r"code: __init__\.py changed"),
            ("manuscript/report.md.j2", r"manuscript: report\.md\.j2 changed"),
            ("locks/run.txt", "lock: "),
        ],
    )
    def test_a_run_of_another_commit(self, clone: Path, file: str, said: str) -> None:
        with (clone / file).open("a") as changed:
            changed.write("\n")
        git(clone, "commit", "--quiet", "--all", "--message=Another source")
        with pytest.raises(VerifyError, match=said):
            made(clone)

    def test_a_run_of_other_data(self, clone: Path, tier: loading.Tier) -> None:
        run(clone, tier, data={"programme": "0"})
        with pytest.raises(VerifyError, match="made from other data"):
            made(clone)

    def test_what_is_no_clone(self, clone: Path) -> None:
        shutil.rmtree(clone / ".git")
        with pytest.raises(DataError, match="git cannot give it"):
            made(clone)

    def test_wheels_of_other_locks_and_wheels_of_no_lock(self, clone: Path, tmp_path: Path) -> None:
        wheels = wheelhouse(clone, tmp_path)
        (wheels / "linux" / "b-2-py3-none-any.whl").write_bytes(b"another")
        with pytest.raises(DataError, match=r"b-2-py3-none-any\.whl is in no lock"):
            made(clone, wheelhouse=wheels)
        (wheels / "source" / "locks" / "run.txt").write_text("# made from c\n")
        with pytest.raises(DataError, match=r"of other locks \(run\.txt\)"):
            made(clone, wheelhouse=wheels)
        with pytest.raises(DataError, match="not there"):
            made(clone, wheelhouse=tmp_path / "absent")

    def test_a_disk_that_is_full(self, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(zipfile.ZipFile, "open", full)
        with pytest.raises(OSError, match="No space"):
            made(clone)


def wheelhouse(clone: Path, tmp_path: Path) -> Path:
    wheels = tmp_path / "offline"
    wheel = wheels / "linux" / "a-1-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"a wheel")
    with (clone / "locks" / "run.txt").open("a") as lock:
        lock.write(f"a==1 --hash=sha256:{hashlib.sha256(b'a wheel').hexdigest()}\n")
    git(clone, "commit", "--quiet", "--all", "--message=A lock")
    path = clone / "outputs" / "synthetic" / "provenance.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["lock"] = results.digest((clone / "locks" / "run.txt").read_bytes())
    path.write_text(json.dumps(record), encoding="utf-8")
    shutil.copytree(clone / "locks", wheels / "source" / "locks")
    return wheels


def test_wheels_go_in_once_their_locks_know_them(clone: Path, tmp_path: Path) -> None:
    there = unzipped(made(clone, wheelhouse=wheelhouse(clone, tmp_path)).path)
    assert there[f"{TOP}data/wheelhouse/linux/a-1-py3-none-any.whl"] == b"a wheel"
    assert b"--find-links data/wheelhouse/linux" in there[f"{TOP}ARCHIVE.txt"]


def test_changes_that_are_in_no_commit_go_in_beside_it_and_are_said(clone: Path, tmp_path: Path) -> None:
    (clone / "LICENSE").write_text("other\n")
    (clone / "new.txt").write_text("new\n")
    index = (clone / ".git" / "index").read_bytes()
    there = unzipped(made(clone, allow_dirty=True).path)
    assert "NOT ALL OF IT: 2 files" in there[f"{TOP}ARCHIVE.txt"].decode()
    shutil.rmtree(clone / "outputs")
    git(clone, "stash", "--quiet", "--include-untracked")
    (tmp_path / "changes.diff").write_bytes(there[f"{TOP}data/changes.diff"])
    git(clone, "apply", str(tmp_path / "changes.diff"))
    assert (clone / "LICENSE").read_text() == "other\n" and (clone / "new.txt").read_text() == "new\n"
    assert index  # and the user's own index was not touched
    assert there[f"{TOP}data/source/LICENSE"] == (ROOT / "LICENSE").read_bytes()


# --- a laboratory ---------------------------------------------------------------------------------------------


def test_a_laboratory_gives_what_control_releases_and_nothing_else(clone: Path) -> None:
    there = unzipped(made(clone, secure=True).path)
    held = (clone / "outputs" / "synthetic" / release.HELD / "results.csv").read_bytes()
    assert held not in there.values()
    assert not [n for n in there if n.startswith(f"{TOP}data/data/") or release.HELD in n]


def test_a_laboratory_that_has_the_source_as_files_alone(clone: Path, tmp_path: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD").strip()
    lab = tmp_path / "lab"
    lab.mkdir()
    archive = tmp_path / "source.tar"
    git(clone, "archive", "--format=tar", f"--output={archive}", "HEAD")
    shutil.unpack_archive(archive, lab, filter="data")
    shutil.copytree(clone / "outputs", lab / "outputs")
    record = json.loads((lab / "outputs" / "synthetic" / "provenance.json").read_text(encoding="utf-8"))
    assert record["code"] == provenance.sources_of(lab / "analysis" / "biglocal")
    with pytest.raises(DataError, match=r"no clone.*--secure"):
        made(lab)
    done = made(lab, secure=True)
    there = unzipped(done.path)
    assert check.check(done.path).faults == ()
    assert not [n for n in there if n.startswith(f"{TOP}data/source/")]
    page = there[f"{TOP}ARCHIVE.txt"].decode()
    assert commit in page and "2025-03-30" in page and "SOURCE: The program at that commit. It is not here" in page
    graph = {e["@id"]: e for e in json.loads(there[f"{TOP}data/{crate.NAME}"])["@graph"]}
    for action in (e for e in graph.values() if e["@type"] == "CreateAction"):
        assert {e["@id"] for k in ("object", "result", "instrument") for e in listed(action[k])} <= set(graph)


def test_a_laboratory_whose_rules_have_changed(clone: Path) -> None:
    out = clone / "outputs" / "synthetic"
    text = (out / release.HELD / "results.csv").read_text(encoding="utf-8")
    rows = list(results.loads(text, "x"))
    at = next(n for n, r in enumerate(rows) if release.personal(r, load_study()) and r.term == "att")
    fewer = [*rows[:at], replace(rows[at], n_persons=3, n_least=3), *rows[at + 1 :]]
    results.write_text(out / release.HELD / "results.csv", results.dumps(fewer))
    with pytest.raises(VerifyError, match="would not release"):
        made(clone, secure=True)
    shutil.rmtree(out / release.HELD)
    with pytest.raises(VerifyError, match="control cannot run again"):
        made(clone, secure=True)


def test_a_file_that_must_stay_does_not_leave_under_another_name(clone: Path) -> None:
    out = clone / "outputs" / "synthetic"
    shutil.copy(out / release.HELD / "results.csv", out / "tables" / "all.csv")
    record = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    record["outputs"]["tables/all.csv"] = results.digest((out / "tables" / "all.csv").read_bytes())
    (out / "provenance.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(VerifyError, match=r"tables/all\.csv is a file of not-for-release/"):
        made(clone, secure=True)


# --- what the standards' own programs say ---------------------------------------------------------------------


@pytest.fixture
def unpacked(clone: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(made(clone).path) as archive:
        archive.extractall(tmp_path)
    return tmp_path / TOP


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # rdflib's, of itself
@pytest.mark.parametrize("profile", ["ro-crate-1.2", "process-run-crate-0.5"])
def test_roc_validator(unpacked: Path, profile: str) -> None:
    pytest.importorskip("rocrate_validator", reason="in the environment `archive` alone: locks/archive.txt")
    assert roc.validate(unpacked / "data", profile) == ()
    if profile == "ro-crate-1.2":  # it takes half a minute
        return
    graph = json.loads((unpacked / "data" / crate.NAME).read_text(encoding="utf-8"))
    graph["@graph"] = [e for e in graph["@graph"] if e["@id"] not in (crate.PROGRAM, crate.PROFILE)]
    (unpacked / "data" / crate.NAME).write_text(json.dumps(graph), encoding="utf-8")
    assert roc.validate(unpacked / "data", profile) != ()


def test_bagit(unpacked: Path) -> None:
    bagit = pytest.importorskip("bagit", reason="in the environment `archive` alone: locks/archive.txt")
    bag = bagit.Bag(str(unpacked))
    bag.validate()
    assert (
        bag.version_info == (1, 0)
        and sorted(bag.algorithms) == ["sha256", "sha512"]
        and not list(bag.missing_optional_tagfiles())
    )
    (unpacked / "data" / "source" / "LICENSE").write_text("none")
    with pytest.raises(bagit.BagValidationError):
        bagit.Bag(str(unpacked)).validate()


def test_frictionless(unpacked: Path) -> None:
    frictionless = pytest.importorskip("frictionless", reason="in the environments `test` and `archive`")
    package = unpacked / "data" / "data" / "datapackage.json"
    assert frictionless.Package(str(package)).validate().valid
    table = package.parent / "programme.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("BL001", "BL002"), encoding="utf-8")
    assert not frictionless.Package(str(package)).validate().valid


def test_rocrate_reads_what_is_written(unpacked: Path) -> None:
    rocrate = pytest.importorskip("rocrate.rocrate", reason="in the environment `archive` alone: locks/archive.txt")
    read = rocrate.ROCrate(str(unpacked / "data"))
    assert read.version == "1.2"
    ours = {e["@id"]: e for e in json.loads((unpacked / "data" / crate.NAME).read_text(encoding="utf-8"))["@graph"]}
    theirs = {e.id: e for e in read.get_entities()}
    assert set(ours) == set(theirs)
    files = {n for n, e in ours.items() if "File" in listed(e["@type"])}
    assert {e.id for e in read.data_entities if "File" in listed(e.type)} == files
    assert {e.id for e in read.get_by_type("CreateAction")} == {e["@id"] for e in listed(ours["./"]["mentions"])}


def test_without_the_validator_it_says_where_that_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "rocrate_validator", None)
    with pytest.raises(BiglocalError, match="nox -s audit"):
        roc.validate(tmp_path, "ro-crate-1.2")


def test_the_packed_bytes_of_a_file_and_of_its_path_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 3_000_000)
    assert pack.sums(tmp_path / "x") == pack.sums(b"x" * 3_000_000)
