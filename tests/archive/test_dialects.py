"""Every dialect says what pyproject.toml and study.toml say: read back with a reader that is not ours, and compared.

The standards' own validators are in the environment `archive` alone (locks/archive.txt); what needs none always runs.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from biglocal.archive import dialects
from biglocal.archive.dialects import DOI, ORCID, Author, Metadata
from biglocal.model import DataError
from biglocal.study import ROOT
from biglocal.study import load as load_study

STUDY = load_study()
OURS = dialects.read(STUDY)
PERSON = Author(family="Carberry", given="Josiah", orcid="0000-0002-1825-0097", affiliation="Brown University")
FULL = dataclasses.replace(  # what an author adds on the day of release: ORCID's and DataCite's own examples
    OURS,
    about=dataclasses.replace(
        OURS.about,
        authors=(PERSON, Author(name='A Laboratory: of «colons» & "quotes"')),
        year=None,
        released=datetime.date(2026, 12, 31),
        doi="10.5072/example-full",
        repository="https://example.org/biglocal.git",
    ),
)
BOTH = pytest.mark.parametrize("made", [OURS, FULL], ids=["as committed", "as released"])


def read_yaml(text: str) -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads back what we write: locks/test.txt has it")
    return yaml.safe_load(text)


def told(made: Metadata) -> dict[str, dict[str, Any]]:
    """What each dialect says, in the same words."""
    cff = read_yaml(dialects.citation(made))
    files = {k: json.loads(v) for k, v in dialects.files(made).items() if k.endswith("json")}
    meta, zenodo, cite = files["codemeta.json"], files[".zenodo.json"], files["datacite.json"]
    root, entities = dialects.crate(made)
    by_id = {e["@id"]: e for e in entities}
    article = by_id[root["citation"]["@id"]]
    cover = next(d["date"] for d in cite["dates"] if d["dateType"] == "Other")
    issued = [d["date"] for d in cite["dates"] if d["dateType"] == "Issued"]
    return {
        "cff": {
            "title": cff["title"], "version": cff["version"], "licence": cff["license"], "keywords": cff["keywords"],
            "abstract": cff["abstract"], "doi": cff.get("doi"), "released": cff.get("date-released"),
            "authors": [a.get("name") or f"{a['given-names']} {a['family-names']}" for a in cff["authors"]],
            "orcids": [a["orcid"] for a in cff["authors"] if "orcid" in a],
            "study": cff["preferred-citation"]["title"], "study doi": DOI + cff["preferred-citation"]["doi"],
        },
        "codemeta": {
            "title": meta["name"], "version": meta["version"], "licence": meta["license"].rsplit("/", 1)[1],
            "keywords": meta["keywords"], "abstract": meta["description"],
            "doi": meta.get("identifier", "").removeprefix(DOI) or None, "released": meta.get("datePublished"),
            "authors": [a.get("name") or f"{a['givenName']} {a['familyName']}" for a in meta["author"]],
            "orcids": [a["id"] for a in meta["author"] if "id" in a],
            "study": meta["referencePublication"]["name"], "study doi": meta["referencePublication"]["id"],
            "funder": meta["funder"]["name"], "funder doi": meta["funder"]["id"], "award": meta["funding"].split()[0],
            "years": meta["schema:temporalCoverage"], "place": meta["schema:spatialCoverage"]["name"],
        },
        "zenodo": {
            "title": zenodo["title"], "version": zenodo["version"], "licence": zenodo["license"],
            "keywords": zenodo["keywords"], "abstract": zenodo["description"], "released": zenodo.get("publication_date"),
            "authors": [" ".join(reversed(a["name"].split(", "))) for a in zenodo["creators"]],
            "orcids": [ORCID + a["orcid"] for a in zenodo["creators"] if "orcid" in a],
            "study doi": DOI + zenodo["related_identifiers"][0]["identifier"],
        },
        "datacite": {
            "title": cite["titles"][0]["title"], "version": cite["version"],
            "licence": cite["rightsList"][0]["rightsIdentifier"], "keywords": [s["subject"] for s in cite["subjects"]],
            "abstract": cite["descriptions"][0]["description"], "doi": cite.get("doi"),
            "released": issued[0] if issued else None,
            "authors": [" ".join(reversed(a["name"].split(", "))) for a in cite["creators"]],
            "orcids": [i["nameIdentifier"] for a in cite["creators"] for i in a.get("nameIdentifiers", [])],
            "study doi": DOI + cite["relatedIdentifiers"][0]["relatedIdentifier"],
            "funder": cite["fundingReferences"][0]["funderName"],
            "funder doi": cite["fundingReferences"][0]["funderIdentifier"],
            "award": cite["fundingReferences"][0]["awardNumber"],
            "years": cover, "place": cite["geoLocations"][0]["geoLocationPlace"],
        },
        "crate": {
            "title": root["name"], "version": root["version"], "licence": by_id[root["license"]["@id"]]["identifier"],
            "keywords": root["keywords"], "abstract": root["description"],
            "doi": root.get("identifier", "").removeprefix(DOI) or None, "released": root.get("datePublished"),
            "authors": [by_id[a["@id"]]["name"] for a in root["author"]],
            "orcids": [a["@id"] for a in root["author"] if a["@id"].startswith(ORCID)],
            "study": article["name"], "study doi": article["@id"],
            "funder": by_id[root["funder"]["@id"]]["name"], "funder doi": root["funder"]["@id"],
            "years": root["temporalCoverage"], "place": by_id[root["spatialCoverage"]["@id"]]["name"],
        },
    }  # fmt: skip


@BOTH
def test_every_dialect_read_back_says_the_same_and_what_the_source_says(made: Metadata) -> None:
    source = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, own = source["project"], source["tool"]["biglocal"]
    outcomes = tomllib.loads((ROOT / "analysis" / "study.toml").read_text(encoding="utf-8"))["outcomes"].values()
    released = made is FULL
    expected = {
        "title": own["title"],
        "version": project["version"],
        "licence": project["license"],
        "keywords": project["keywords"],
        "abstract": own["abstract"].strip(),
        "doi": "10.5072/example-full" if released else None,
        "released": "2026-12-31" if released else None,
        "authors": [a.full for a in FULL.about.authors] if released else [a["name"] for a in own["authors"]],
        "orcids": ["https://orcid.org/0000-0002-1825-0097"] if released else [],
        "study": own["study"]["title"],
        "study doi": "https://doi.org/" + own["study"]["doi"],
        "funder": own["study"]["funder"],
        "funder doi": "https://doi.org/" + own["study"]["funder_doi"],
        "award": own["study"]["award"],
        "years": f"{min(o['first_year'] for o in outcomes)}/{max(o['last_year'] for o in outcomes)}",
        "place": own["place"],
    }
    for dialect, said in told(made).items():
        assert said == {k: expected[k] for k in said}, dialect


def test_the_committed_files_are_those_that_the_source_makes() -> None:
    for name, text in dialects.files(OURS).items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"{name} is stale: run `biglocal metadata`"


def test_data_that_are_published_are_cited_as_data_and_no_others() -> None:
    cited = {r["title"]: r for r in read_yaml(dialects.citation(OURS))["references"]}
    assert {r["type"] for r in cited.values()} == {"data"}
    for source in OURS.data:
        public = source.address and source.citation and "not public" not in source.publisher
        assert (source.name in cited) == bool(public), source.key
    samhi = next(r for title, r in cited.items() if title.startswith("Small Area Mental Health Index"))
    assert samhi["doi"] == "10.17638/datacat.liverpool.ac.uk/1188" and "url" not in samhi


def test_nothing_is_said_of_a_doi_a_release_or_a_repository_that_does_not_exist() -> None:
    whole = "".join(dialects.files(OURS).values()) + json.dumps(dialects.crate(OURS))
    assert "10.5072" not in whole and "date-released" not in whole and "codeRepository" not in whole
    # the award is the study's: no dialect gives it without saying so
    assert OURS.about.study.award in OURS.paid and "study that is replicated" in OURS.paid
    for name, text in dialects.files(OURS).items():
        if OURS.about.study.award in text:
            assert "study that is replicated" in text, name


def test_texts_that_yaml_could_misread_come_back_as_they_are() -> None:
    odd = {"a": "no", "b": "1.10", "c": "x: y # z", "d": ["- e", "'\"\\\n"], "e": {"f": ["«ü»", {"g": "~", "h": 1}]}}
    assert read_yaml(dialects.yaml(odd)) == odd


@BOTH
def test_every_entity_a_crate_points_to_is_there_once(made: Metadata) -> None:
    root, entities = dialects.crate(made)
    ids = [e["@id"] for e in entities]
    assert len(set(ids)) == len(ids)

    def pointed(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["@id"]} if set(value) == {"@id"} else set()
            return own.union(*(pointed(v) for v in value.values()))
        return set().union(*(pointed(v) for v in value)) if isinstance(value, list) else set()

    assert pointed(root) | pointed(entities) == set(ids)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "The biglocal authors"', 'family = "A"\norcid = "0000-0002-1825-0098"', "0000-0002-1825-0098 is no ORCID"),
        ('name = "The biglocal authors"', 'family = "A"\norcid = "https://orcid.org/0000"', "is no ORCID"),
        ('name = "The biglocal authors"', 'name = "A"\nfamily = "B"', "give either name, or family and given"),
        ('[[tool.biglocal.authors]]', "[[tool.biglocal.authorz]]", "authors: field required"),
        ('doi = "10.3310/GRMA6711"', 'doi = "https://doi.org/10.3310/GRMA6711"', "is no DOI"),
        ("year = 2026", "", "neither year nor released"),
        ('license = "MIT"', 'license = "GPL-9.0"', "GPL-9.0: its full name is not known"),
        ("keywords =", "key-words =", "keywords is missing"),
        ("[project]", "[project", "not valid TOML"),
    ],
    ids=["orcid digit", "orcid form", "name twice", "no authors", "doi form", "no year", "licence", "missing", "toml"],
)  # fmt: skip
def test_a_fault_in_the_source_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "pyproject.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    (tmp_path / "data-raw").mkdir()
    (tmp_path / "data-raw" / "sources.toml").write_bytes((ROOT / "data-raw" / "sources.toml").read_bytes())
    with pytest.raises(DataError, match=said):
        dialects.read(STUDY, tmp_path)


# --- the standards' own validators -------------------------------------------------------------------------


@BOTH
def test_citation_cff_holds_its_schema(made: Metadata, tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="in the environment `archive` alone: locks/archive.txt")
    path = tmp_path / "CITATION.cff"
    path.write_text(dialects.citation(made), encoding="utf-8")
    schema = "vendor.citation-file-format"
    call = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    path.write_text(dialects.citation(made).replace("title:", "titel:", 1), encoding="utf-8")
    assert subprocess.run(call, capture_output=True, check=False).returncode == 1


@BOTH
def test_datacite_holds_its_schema_and_becomes_xml(made: Metadata) -> None:
    schema = pytest.importorskip("datacite.schema45", reason="in the environment `archive` alone: locks/archive.txt")
    said = dialects.datacite(made)
    assert schema.validate(said), [e.message for e in schema.validator.iter_errors(said)]
    assert made.about.title in schema.tostring(said)
    assert not schema.validate({k: v for k, v in said.items() if k != "publisher"})


# CodeMeta 3.0's own terms (codemeta.github.io/terms) and JSON-LD's; the rest must be terms of schema.org
CODEMETA = {"@context", "id", "type", "readme", "funding", "referencePublication"}


@BOTH
def test_codemeta_uses_terms_that_are(made: Metadata) -> None:
    rocrate = pytest.importorskip("rocrate", reason="it carries schema.org; in the environment `archive` alone")
    graph = json.loads((Path(rocrate.__file__).parent / "data" / "schema.jsonld").read_text(encoding="utf-8"))["@graph"]
    terms = {t["@id"].removeprefix("schema:") for t in graph}

    def used(value: Any) -> set[str]:
        if isinstance(value, dict):
            kinds = {value["type"]} if "type" in value else set()
            return set(value) | kinds | set().union(*(used(v) for v in value.values()))
        return set().union(*(used(v) for v in value)) if isinstance(value, list) else set()

    assert {t.removeprefix("schema:") for t in used(dialects.codemeta(made)) - CODEMETA} <= terms


# the deposit interface's fields that are used here, and its words (developers.zenodo.org, Deposit metadata)
ZENODO = {
    "title", "upload_type", "version", "description", "creators", "license", "access_right", "language", "keywords",
    "publication_date", "related_identifiers", "references", "notes",
}  # fmt: skip


@BOTH
def test_zenodo_uses_fields_and_words_that_are(made: Metadata) -> None:
    said = dialects.zenodo(made)
    assert {"title", "upload_type", "description", "creators"} <= set(said) <= ZENODO
    assert said["upload_type"] == "software" and said["access_right"] == "open" and len(said["language"]) == 3
    assert all(set(c) <= {"name", "affiliation", "orcid", "gnd"} for c in said["creators"])
    assert all(r["relation"] == "references" and r["scheme"] == "doi" for r in said["related_identifiers"])
