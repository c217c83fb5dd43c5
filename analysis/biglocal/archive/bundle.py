"""One deposit that an archive can keep and check: `biglocal bundle`.

A .zip that holds a bag (BagIt 1.0, RFC 8493) that holds an RO-Crate 1.2: the source at its commit, the outputs of a
run of that source, the data that may be passed on, the wheels to install from without a network, and ARCHIVE.txt. The
same contents give the same bytes: entries in order of name, dated by the commit, with fixed permissions, and nothing
of the machine, the clock, the time zone or the locale. (Packed by zlib: another zlib may pack the same bag to other
bytes. The sha256 of its last list of hashes, which `make` gives too, is the same whatever packs it.)
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from biglocal import diff, provenance, release, results
from biglocal.archive import crate, dialects, pack
from biglocal.archive.crate import About, Action, File
from biglocal.archive.dialects import Metadata
from biglocal.model import DataError, Study, VerifyError
from biglocal.study import HERE, MANUSCRIPT, ON_REQUEST, PATH, ROOT
from biglocal.study import load as load_study

TEMPLATE = HERE / "archive" / "ARCHIVE.txt"
CHECK = HERE / "archive" / "check.py"
MEANING = {  # column of results.csv -> what it is, for who has nothing but ARCHIVE.txt
    "analysis": "name of the analysis: part, outcome, subgroup, comparison, method",
    "digest": "sha256 of everything the row depends on",
    "part": "what kind of result; parts and terms are listed in source/analysis/biglocal/results.py",
    "outcome": "what is measured (source/analysis/study.toml says each)",
    "subgroup, level": "for whom: all, or one group of a division",
    "comparison": "how the untreated areas were chosen",
    "treatment": "which date counts as the start",
    "estimator, inference": "the method, and that of its errors",
    "term": "which number of the method: att is the effect on the treated",
    "period": "year, wave or years since the start",
    "estimate, unit": "the number, and what it is measured in",
    "std_error, df, statistic, p_value": "its standard error, degrees of freedom, test and p",
    "p_adjusted": "p, adjusted for the other outcomes of its family",
    "conf_low, conf_high, conf_level": "interval, and its level (0.95)",
    "n_obs, n_units, n_treated, n_clusters": "rows, units, treated units and clusters behind it",
    "status, reason": "ok, inapplicable or suppressed; why, or a caution",
    "tier": "the data: synthetic is made, open and secure are real",
    "df_num": "restrictions of a joint test",
    "n_treated_clusters": "Big Local areas behind it",
    "respondents, exposure": "members' survey: whose answers, and what they go with",
    "n_persons": "persons behind it, rounded; n_least is always empty",
}
WHEELS = ROOT / "dist" / "offline"
ABSENT = {"SOURCE": "The program at that commit. It is not here: what leaves a laboratory is what it released."}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle: the file, its sha256, that of its last list of hashes (the same whatever packs it), and its files."""

    path: Path
    sha256: str
    contents: str
    files: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The source: its commit, when that was made, and what differs from it (names, as git says them).

    `here`: whether git is there to give it, as it is not where the source came as files (a laboratory).
    """

    id: str
    time: datetime
    changed: tuple[str, ...]
    here: bool = True


def where(tier: str, root: Path = ROOT) -> Path:
    """Where a bundle goes unless told: dist/NAME-VERSION-TIER.zip."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return root / "dist" / f"{project['name']}-{project['version']}-{tier}.zip"


def make(
    out: Path,
    tier: str = "synthetic",
    *,
    outputs: Path,
    wheelhouse: Path | None = None,
    flat: bool = False,
    secure: bool = False,
    allow_dirty: bool = False,
    root: Path = ROOT,
    say: Say = lambda _: None,
) -> Made:
    """Write the bundle of a tier's outputs (`outputs`/`tier`) to `out`, whole or not at all.

    `wheelhouse`: a folder made by `nox -s wheelhouse`; None leaves wheels out. `flat`: no bag and no folder, for an
    archive that unpacks what it is given. `secure`: what may leave a laboratory, after control has run again, without
    wheels; always so for the tier secure. `root`: the clone whose commit is the source; in a laboratory it may be the
    source as files, which then is not in the bundle, but for its commit's name.

    Raises `VerifyError` for outputs that are altered, not whole or not of this source, and where control would now
    release other numbers; `DataError` for changes that are in no commit, and for a wheelhouse of other locks.
    """
    secure = secure or tier == "secure"
    commit = _commit(root)
    if not commit.here and not secure:
        raise DataError(
            "the source is no clone, so nothing says whether it was changed. Run it in a clone; or, in a laboratory, "
            "say --secure: the bundle then holds what may leave, and names the source's commit."
        )
    if commit.changed and not allow_dirty:
        raise DataError(
            f"not as in commit {commit.id[:12]}: {_some(commit.changed)}. Commit what belongs to the source, or say "
            f"--allow-dirty: the bundle then holds the changes beside the commit, and says so."
        )
    study = load_study(root / PATH.relative_to(ROOT), root / MANUSCRIPT.relative_to(ROOT))
    folder = outputs / tier
    record = _of_this_source(folder, tier, study, root)
    wheels = _wheels(wheelhouse, root) if wheelhouse is not None and not secure else {}
    payload = {f"outputs/{tier}/{n}": (folder / n).read_bytes() for n in (*record["outputs"], "provenance.json")}
    if secure:
        say("controlling what leaves")
        _gate(folder, study, payload)
    source, executable = _source(root, commit) if commit.here else ({}, frozenset())
    payload |= source
    if tier == "synthetic" and not secure:
        say("writing the synthetic data")
        payload |= _data(study, record)
    whole: dict[str, bytes | Path] = {**payload, **wheels}
    checker = CHECK.read_bytes()
    made = dialects.read(study, root)
    about = _about(made, commit, record, whole)
    at = "" if flat else "data/"
    text = _archive_text(about, made, commit, record, checker, at, bool(wheels))
    beside: dict[str, bytes | Path] = {"ARCHIVE.txt": text.encode(), "check_bundle.py": checker}
    whole |= beside if flat else {}
    said = {name: File(size, hashes[0]) for name, (size, hashes) in ((n, pack.sums(c)) for n, c in whole.items())}
    whole[crate.NAME] = crate.describe(
        said, tuple(_actions(study, record, whole, payload[f"outputs/{tier}/results.csv"])), about
    ).encode()
    if flat:
        files, top, last = pack.flat(whole), "", "SHA256SUMS"
    else:
        info = {
            "Bag-Software-Agent": f"{made.name} {made.version}",
            "Bagging-Date": commit.time.date().isoformat(),
            "External-Description": about.root["description"],
            "External-Identifier": commit.id,
            "Source-Organization": "; ".join(a.full for a in made.about.authors),
        }
        files, last = pack.bag(whole, beside, info), "tagmanifest-sha256.txt"
        top = f"{made.name}-{made.version}-{tier}/"
    say(f"packing {len(files):,} files")
    pack.write(out, files, commit.time, frozenset(at + name for name in executable), top)
    listed = files[last]
    assert isinstance(listed, bytes)
    return Made(out, pack.sums(out)[1][0], hashlib.sha256(listed).hexdigest(), len(files))


def _some(names: Iterable[str], shown: int = 5) -> str:
    first, *others = (list(names)[:shown], *list(names)[shown:])
    return ", ".join(first) + (f" and {len(others)} more" if others else "")


# --- the source ---------------------------------------------------------------------------------------------


def _git(root: Path, *words: str, **env: str) -> bytes:
    """What git says, whatever the user has set of line ends and quoting."""
    fixed = ("-c", "core.autocrlf=false", "-c", "core.quotepath=false", "-c", "status.relativePaths=false")
    try:
        done = subprocess.run(["git", "-C", str(root), *fixed, *words], capture_output=True, env=os.environ | env)
    except FileNotFoundError:
        raise DataError("git is not installed, and the source is taken from a commit. Install it.") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise DataError(f"the source is taken from a commit, and git cannot give it: {said[-1]}. Run it in a clone.")
    return done.stdout


def _commit(root: Path) -> Commit:
    told = root / ".git_archival.txt"  # git archive writes the commit into it (.gitattributes)
    if not (root / ".git").exists() and told.is_file() and "$" not in (text := told.read_text(encoding="utf-8")):
        return Commit(text.split()[0], datetime.fromtimestamp(int(text.split()[1]), UTC), (), here=False)
    id_, time = _git(root, "log", "-1", "--format=%H %ct").decode().split()
    status = _git(root, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all").decode()
    changed = tuple(sorted(entry[3:] for entry in status.split("\0") if entry))
    return Commit(id_, datetime.fromtimestamp(int(time), UTC), changed)


def _source(root: Path, commit: Commit) -> tuple[dict[str, bytes], frozenset[str]]:
    """Every file of the commit, and beside it changes.diff where there are changes; which of them may be run."""
    found, executable = {}, set()
    with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", commit.id))) as archive:
        for member in archive:
            if member.issym() or member.islnk():
                raise DataError(f"{member.name} of the source is a link, which a bundle cannot hold. Make it a file.")
            if file := archive.extractfile(member):
                found[f"source/{member.name}"] = file.read()
                if member.mode & 0o100:
                    executable.add(f"source/{member.name}")
    if commit.changed:
        with tempfile.TemporaryDirectory() as scratch:  # an index of our own: the user's stays as it is
            index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
            _git(root, "read-tree", commit.id, **index)
            _git(root, "add", "--all", **index)
            words = ("--cached", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-renames")
            found["changes.diff"] = _git(root, "diff", *words, "--src-prefix=a/", "--dst-prefix=b/", commit.id, **index)
    return found, frozenset(executable)


# --- the outputs --------------------------------------------------------------------------------------------


def _of_this_source(folder: Path, tier: str, study: Study, root: Path) -> dict[str, Any]:
    """The record of a run, once its outputs are known to be whole, unaltered and made by this source.

    Raises `VerifyError` naming what is not so.
    """
    again = f"Run `biglocal reproduce {tier}` again."
    if wrong := provenance.altered(folder):
        raise VerifyError(f"{folder.name}: {_some(wrong)}. {again}")
    record = provenance.last(folder)
    missing = [n for n in ("results.csv", "numbers.json", "report.html", "report.pdf") if n not in record["outputs"]]
    if missing or not record.get("rendered_from") or record.get("tier") != tier:
        what = f"{_some(missing)} not made" if missing else "the last run made a part of them (--only)"
        raise VerifyError(f"{folder.name}: the outputs are not whole: {what}. {again}")
    now = {
        "seed": study.seed,
        "study": provenance.choices(study),
        "code": provenance.sources_of(root / HERE.relative_to(ROOT)),
        "manuscript": provenance.texts_of(root / MANUSCRIPT.relative_to(ROOT), root),
        "lock": results.digest((root / "locks" / "run.txt").read_bytes()),
    }
    if why := diff.causes(record, record | now):
        raise VerifyError(f"{folder.name}: made of another source than this: {_some(why)}. {again}")
    return record


def _gate(folder: Path, study: Study, leaving: Mapping[str, bytes]) -> None:
    """Run disclosure control again, and look for what must stay among what leaves.

    Raises `VerifyError` where it would now release other numbers, or where a file that must stay is among them.
    """
    held = folder / release.HELD / "results.csv"
    if not held.is_file():
        raise VerifyError(
            f"{folder.name}: without {release.HELD}/ control cannot run again. Make the bundle where the run was made."
        )
    released, findings = release.control(results.read(held), study)
    table = leaving[f"outputs/{folder.name}/results.csv"]
    if results.dumps(released).encode() != table or findings != release.findings(folder):
        raise VerifyError(
            f"{folder.name}: control, run again, would not release what results.csv holds: the rules or the rows have "
            f"changed. Run `biglocal reproduce {folder.name}` again."
        )
    stay = {results.digest(p.read_bytes()): p.name for p in held.parent.rglob("*") if p.is_file()}
    stay.pop(results.digest(release.KEPT_BACK), None)  # a text without a number
    stay.pop(results.digest(table), None)  # control had nothing to withhold
    for name, content in leaving.items():
        if release.HELD in Path(name).parts or results.digest(content) in stay:
            raise VerifyError(
                f"{folder.name}: {name} is a file of {release.HELD}/, which must not leave. Delete it, and run again."
            )


# --- what else goes in --------------------------------------------------------------------------------------


def _data(study: Study, record: Mapping[str, Any]) -> dict[str, bytes]:
    """The synthetic tables as CSV, every digit, with the Data Package that describes them and their bytes."""
    from biglocal.data import load as data_load
    from biglocal.data import tables

    tier = data_load.load("synthetic", seed=study.seed)
    if tier.digests != record["data"]:
        raise VerifyError("synthetic: the outputs were made from other data. Run `biglocal reproduce` again.")
    found: dict[str, bytes] = {}
    package = json.loads(tables.datapackage())
    package |= {
        "name": "biglocal-synthetic",
        "title": "Synthetic data for a replication of the Big Local study",
        "description": f"Made from seed {study.seed}: no row is a real place, person or payment.",
        "licenses": [{"name": "MIT", "path": "https://spdx.org/licenses/MIT", "title": "MIT License"}],
    }
    package["resources"] = [r for r in package["resources"] if tier.has(r["title"])]
    for resource in package["resources"]:
        content = tier.table(resource["title"]).to_csv(index=False, lineterminator="\n").encode()
        found[f"data/{resource['path']}"] = content
        resource |= {
            "format": "csv",
            "mediatype": "text/csv",
            "bytes": len(content),
            "hash": f"sha256:{hashlib.sha256(content).hexdigest()}",
        }
    found["data/datapackage.json"] = (json.dumps(package, indent=1, ensure_ascii=False) + "\n").encode()
    return found


def _wheels(wheelhouse: Path, root: Path) -> dict[str, Path]:
    """The wheels of a folder that `nox -s wheelhouse` made for these locks, each known to a lock by its hash.

    Raises `DataError` for a folder that is none, or of other locks, or that holds another wheel.
    """
    again = "Move it away, if it is there, and run `nox -s wheelhouse`, or leave wheels out with --no-wheelhouse."
    text = ""
    for lock in ("run.txt", "nox.txt"):
        theirs, ours = wheelhouse / "source" / "locks" / lock, (root / "locks" / lock).read_bytes()
        if not theirs.is_file() or theirs.read_bytes() != ours:
            how = "of other locks" if theirs.is_file() else "not there"
            raise DataError(f"--wheelhouse {wheelhouse.name}: the wheels are {how} ({lock}). {again}")
        text += ours.decode()
    found = {}
    for wheel in sorted(wheelhouse.glob("*/*.whl")):
        if pack.sums(wheel)[1][0] not in text:
            raise DataError(f"--wheelhouse {wheelhouse.name}: {wheel.name} is in no lock by its hash. {again}")
        found[f"wheelhouse/{wheel.parent.name}/{wheel.name}"] = wheel
    if not found:
        raise DataError(f"--wheelhouse {wheelhouse.name}: no wheel in it. {again}")
    return found


def _actions(study: Study, record: Mapping[str, Any], files: Iterable[str], rows: bytes) -> Iterator[Action]:
    """What made each output: data, results and control, each exhibit, the rest. What they name is a file here."""
    there = sorted(files)

    def here(*names: str) -> tuple[str, ...]:
        return tuple(n for n in names if n in there)

    def below(*starts: str) -> tuple[str, ...]:
        return tuple(n for n in there if n.startswith(starts))

    out, table = f"outputs/{record['tier']}/", f"outputs/{record['tier']}/results.csv"
    choices, data = here("source/analysis/study.toml"), below("data/")
    if data:
        yield Action(
            "#data", "Make the synthetic data", f"From seed {record['seed']}; no row is real.",
            "source/analysis/biglocal/data/synthetic.py", choices, data,
        )  # fmt: skip
    parts = {row.part for row in results.loads(rows.decode(), table)}
    asked = [f"`biglocal reproduce --only {p}`" for p in ON_REQUEST if p in parts]
    yield Action(
        "#results", "Estimate, and control what leaves",
        f"{' and '.join(['`biglocal reproduce`', *asked])}: every number of the study, {record['draws']} draws.",
        crate.PROGRAM, (*data, *choices, *here("source/locks/run.txt")),
        made := below(table, f"{out}truth.csv", f"{out}acro/", f"{out}disclosure."),
    )  # fmt: skip
    for exhibit in study.exhibits:
        if mine := below(f"{out}tables/{exhibit}.", f"{out}figures/{exhibit}."):
            yield Action(
                f"#exhibit-{exhibit}", f"Render the exhibit {exhibit}", "From rows of results.csv alone.",
                crate.PROGRAM, (table, *here(f"source/manuscript/exhibits/{exhibit}.md.j2")), mine,
            )  # fmt: skip
            made += mine
    yield Action(
        "#report", "Render the report", "From results.csv and the text; numbers.json says which row printed what.",
        crate.PROGRAM, (table, *below("source/manuscript/")), tuple(n for n in below(out) if n not in set(made)),
    )  # fmt: skip


def _about(made: Metadata, commit: Commit, record: Mapping[str, Any], files: Iterable[str]) -> About:
    tier = record["tier"]
    folders = {
        "source/": f"The program and the text at commit {commit.id}, with the locks of what it runs on and the "
        f"reference results (outputs/expected).",
        f"outputs/{tier}/": "What the program printed: results.csv, report, tables, figures, data dictionary, record.",
        "data/": "The synthetic data as CSV, with datapackage.json that describes every column.",
        "wheelhouse/": "The libraries, to install from without a network, by platform.",
    }
    there = {name: text for name, text in folders.items() if any(f.startswith(name) for f in files)}
    root, entities = dialects.crate(made)
    root |= {
        "name": f"{root['name']} ({tier} tier)",
        "description": f"{root['description']} {_banner(record)}",
        "version": f"{made.version}, commit {commit.id}",
        "publisher": root["author"][0],
    }
    return About(root, entities, commit.time.date().isoformat(), made.version, record["versions"]["python"], there)


def _banner(record: Mapping[str, Any]) -> str:
    """What kind of data this is: nothing computed from made data may be read as a finding."""
    if record["banner"] == "SYNTHETIC":
        return "SYNTHETIC: every number here is computed from made data and says nothing about Big Local."
    if record["banner"]:
        return f"{record['banner']}: real data, but not the areas of Big Local; the numbers say nothing about it."
    return "The numbers are computed from real data, which are not part of this bundle."


def _archive_text(
    about: About, made: Metadata, commit: Commit, record: Mapping[str, Any], checker: bytes, at: str, wheels: bool
) -> str:
    """ARCHIVE.txt: one page for a reader who has nothing else."""
    changed = f"\nNOT ALL OF IT: {len(commit.changed)} files were changed after it; {at}changes.diff holds the changes."
    offline = f"--no-index --find-links {at}wheelhouse/linux "
    return TEMPLATE.read_text(encoding="utf-8").format(
        name=about.root["name"],
        report=made.about.study.doi,
        banner=_banner(record),
        commit=commit.id,
        date=about.date,
        dirty=changed if commit.changed else "",
        places=_lines({f"{at}{name}": text for name, text in about.folders.items()} | ({} if commit.here else ABSENT)),
        checker=hashlib.sha256(checker).hexdigest(),
        lists="manifest-sha256.txt" if at else "SHA256SUMS",
        network="no network" if wheels else "and a package index: no wheels are here",
        find=offline if wheels else "",
        at=at,
        source=f"{at}source" if commit.here else "SOURCE",
        tier=record["tier"],
        columns=_lines(MEANING),
        licence=made.licence,
        data="The data too: the program makes them." if "data/" in about.folders else "No data are here.",
        wheels=" Each wheel holds its own licence, in its *.dist-info." if wheels else "",
    )


def _lines(said: Mapping[str, str]) -> str:
    """Name and meaning, a paragraph each, at most 80 wide."""
    return "".join(textwrap.fill(f"{n}: {m}", 80, subsequent_indent="    ") + "\n" for n, m in said.items())
