"""Rules on what a run made and on the bundle: does it hold, and what do schemas and validators say of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from biglocal import diff, provenance, results, verify
from biglocal.archive import editors, roc
from biglocal.archive.package import REPRODUCE, SESSION, Answer, Package, aside, held, judged, rule, unseen
from biglocal.data.tables import datapackage
from biglocal.model import BiglocalError
from biglocal.study import HERE, ROOT

# --- the run ----------------------------------------------------------------------------------------------------


@rule("exhibit-has-program", "Every exhibit in the outputs is one that the study makes")
def _no_orphan(p: Package) -> Answer:
    """No table or figure lies in the outputs that no template makes."""
    if not p.record:
        return unseen("no run in outputs/", REPRODUCE)
    there = [f.relative_to(p.out).as_posix() for d in ("tables", "figures") for f in sorted((p.out / d).glob("*"))]
    orphans = [
        n for n in there if PurePosixPath(n).stem not in p.study.exhibits and not PurePosixPath(n).name.startswith(".")
    ]
    return judged(orphans, f"{len(there)} files of {len(p.study.exhibits)} exhibits", f"Delete them. {REPRODUCE}")


@rule("outputs-unaltered", "Outputs are what the run wrote")
def _unaltered(p: Package) -> Answer:
    """Each output has the hash that provenance.json gives it."""
    if not p.record:
        return unseen("no run in outputs/", REPRODUCE)
    return judged(provenance.altered(p.out), f"{len(p.outputs)} outputs", REPRODUCE)


@rule("outputs-current", "Outputs are of this code")
def _current(p: Package) -> Answer:
    """What went into the last run is what is here: code, study, templates, lock."""
    if not p.record:
        return unseen("no run in outputs/", REPRODUCE)
    return judged(_since(p, p.record), "code, study, templates and lock are those of the run", REPRODUCE)


@rule("reference-current", "The committed reference is of this code", "warning")
def _reference(p: Package) -> Answer:
    """The reference that `verify` holds a run against was made by the code, study and lock that are here."""
    draws = p.record.get("draws", "quick")
    path = p.root / "outputs" / "expected" / f"{p.out.name}-{draws}.json"
    if not path.is_file():
        return unseen(f"{path.name} is not there: the reference does not say what made it", ACCEPT)
    made = json.loads(path.read_text(encoding="utf-8"))
    if made.get("results") != results.digest(path.with_suffix(".csv").read_bytes()):
        return Answer("fail", (f"{path.name} is the record of another table than {path.stem}.csv",), ACCEPT)
    return judged(_since(p, made), path.name, ACCEPT)


ACCEPT = "Run `nox -s reproduce`, look at what `nox -s verify` says, then `biglocal verify --accept`."


def _since(p: Package, record: dict[str, Any]) -> tuple[str, ...]:
    """What has changed here since a run."""
    lock = p.root / "locks" / "run.txt"
    now = {
        "code": provenance.sources_of(p.root / HERE.relative_to(ROOT)),
        "study": provenance.choices(p.study),
        "seed": p.study.seed,
        "manuscript": provenance.texts_of(p.manuscript, p.root),
        "lock": results.digest(lock.read_bytes()) if lock.is_file() else "",
    }
    return diff.causes(record, record | now)


@rule("reproduces", "The run gives the reference's results")
def _reproduces(p: Package) -> Answer:
    """`biglocal verify`: every exhibit is identical or within tolerance. The reference is of made data."""
    if p.verified is None:
        return unseen("no run in outputs/, or no reference to hold it against", REPRODUCE)
    counts = Counter(v.verdict for v in p.verified.verdicts)
    bad = [f"{v.exhibit}: {verify.REASONS[v.code][1]}" for v in p.verified.verdicts if not v.ok]
    return judged(bad, ", ".join(f"{n} {kind}" for kind, n in counts.items()), "See `nox -s verify`.")


@rule("metadata-current", "Metadata are as their source makes them")
def _metadata(p: Package) -> Answer:
    """What `biglocal metadata` writes is what it would write now: CITATION.cff, codecheck.yml, lists of the README."""
    texts = editors.files(p.metadata, p.study, p.root)
    faults = [f"{n}: {'stale' if n in p.texts else 'not there'}" for n, t in texts.items() if p.texts.get(n) != t]
    return judged(faults, ", ".join(texts), "Run `biglocal metadata`.")


# --- schemas and validators -------------------------------------------------------------------------------------


@rule("CFF 1.2.0")
def _cff(p: Package) -> Answer:
    if "CITATION.cff" not in p.texts:
        return Answer("fail", ("no CITATION.cff",), "Run `biglocal metadata`.")
    try:
        import check_jsonschema
    except ImportError:
        return unseen(f"check-jsonschema is not installed here; {SESSION}")
    from contextlib import redirect_stdout
    from io import StringIO

    said, words = StringIO(), ["--builtin-schema", "vendor.citation-file-format", "--default-filetype", "yaml"]
    try:
        with redirect_stdout(said):
            check_jsonschema.main([*words, str(p.root / "CITATION.cff")], standalone_mode=False)
    except SystemExit as e:
        if e.code:
            return Answer("fail", tuple(line.strip() for line in said.getvalue().splitlines()[1:6]))
    return held("CITATION.cff")


@rule("DataCite 4.5")
def _datacite(p: Package) -> Answer:
    if "datacite.json" not in p.texts:
        return Answer("fail", ("no datacite.json",), "Run `biglocal metadata`.")
    try:
        from datacite import schema45
    except ImportError:
        return unseen(f"datacite is not installed here; {SESSION}")
    faults = [str(e.message) for e in schema45.validator.iter_errors(json.loads(p.texts["datacite.json"]))]
    return judged(faults, "datacite.json")


@rule("Frictionless Data Package")
def _frictionless(p: Package) -> Answer:
    try:
        import frictionless
    except ImportError:
        return unseen(f"frictionless is not installed here; {SESSION}")
    report = frictionless.Package.validate_descriptor(json.loads(datapackage()))
    faults = [str(m) for (m,) in report.flatten(["message"])]
    if p.bundle is None or p.intact:
        return judged(
            faults, "the descriptor of the contract; data beside it are held against it in a bundle (--bundle)"
        )
    found = sorted(p.unpacked.rglob("data/datapackage.json"))
    for path in found:
        report = frictionless.Package(str(path)).validate()
        faults += [f"{path.parent.name}/{name}: {message}" for name, message in report.flatten(["name", "message"])[:5]]
    return judged(faults, f"the descriptor of the contract, and {len(found)} with data in the bundle")


def _of_bundle(judge: Callable[[Package], Answer]) -> Callable[[Package], Answer]:
    """A rule on the bundle: not asked without one, nor of one that is not whole."""

    def ask(p: Package) -> Answer:
        if p.bundle is None:
            return unseen("no bundle in dist/", "Run `nox -s bundle`, then this again.")
        return judge(p) if not p.intact else unseen("the bundle is not whole (bundle-intact), so it is not unpacked")

    return ask


@rule("bundle-intact", "The bundle is the one that was made")
def _intact(p: Package) -> Answer:
    """Every file of the bundle has the hash that its lists give it: `biglocal check-bundle`."""
    if p.bundle is None:
        return unseen("no bundle in dist/", "Run `nox -s bundle`, then this again.")
    return judged(p.intact, p.bundle.name, "Fetch it again, or make it again with `nox -s bundle`.")


@rule("BagIt 1.0")
@_of_bundle
def _bag(p: Package) -> Answer:
    if not (p.unpacked / "bagit.txt").is_file():
        return aside("a flat bundle holds no bag")
    try:
        import bagit
    except ImportError:
        return unseen(f"bagit is not installed here; {SESSION}")
    try:
        bagit.Bag(str(p.unpacked)).validate()
    except bagit.BagError as e:
        return Answer("fail", tuple(str(d) for d in getattr(e, "details", ()) or (e,)))
    return held("payload and tags")


def _crate(profile: str) -> Callable[[Package], Answer]:
    def judge(p: Package) -> Answer:
        at = next((f for f in (p.unpacked, p.unpacked / "data") if (f / "ro-crate-metadata.json").is_file()), None)
        if at is None:
            return Answer("fail", ("no ro-crate-metadata.json",))
        try:
            faults = roc.validate(at, profile)
        except BiglocalError:
            return unseen(f"the validator of RO-Crates is not installed here; {SESSION}")
        return judged(faults, f"{profile}, required level")

    return _of_bundle(judge)


rule("RO-Crate 1.2")(_crate("ro-crate-1.2"))
rule("Process Run Crate 0.5")(_crate("process-run-crate-0.5"))
