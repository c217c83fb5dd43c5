"""One record of who, what and under which licence, and the dialects in which archives want it.

The source is `pyproject.toml` ([project] and [tool.biglocal]), with the years from `study.toml` and the data cited
from `data-raw/sources.toml`. Each function makes the whole text of one file:

    CITATION.cff    Citation File Format 1.2.0 (Druskat and others 2021, doi 10.5281/zenodo.5171937)
    codemeta.json   CodeMeta 3.0 (w3id.org/codemeta/3.0)
    .zenodo.json    the metadata of Zenodo's deposit interface (developers.zenodo.org, Deposit metadata)
    datacite.json   DataCite Metadata Schema 4.5, in the JSON that its interface takes

and `crate` the root of an RO-Crate 1.2 with the entities it points to. Nothing is made up: what the source does not
say is left out, or in DataCite, where it is required, written as DataCite says ("(:tba)").
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from biglocal.data import sources
from biglocal.model import DataError, Study, type_config
from biglocal.study import ROOT, choices

LICENCES = {"MIT": "MIT License"}  # SPDX id -> its full name
ORCID = "https://orcid.org/"
DOI = "https://doi.org/"


@dataclass(frozen=True, slots=True)
class Author:
    """A person (`family`, `given`) or a body (`name`)."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str = ""
    family: str = ""
    given: str = ""
    orcid: str = ""
    affiliation: str = ""

    @property
    def inverted(self) -> str:
        """`Family, Given`, as catalogues sort it."""
        return self.name or ", ".join(p for p in (self.family, self.given) if p)

    @property
    def full(self) -> str:
        """`Given Family`."""
        return self.name or " ".join(p for p in (self.given, self.family) if p)


@dataclass(frozen=True, slots=True)
class Replicated:
    """The study that is replicated, and who paid for it. `et_al`: `authors` are the first of more."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    title: str
    journal: str
    year: int
    volume: str
    issue: str
    doi: str
    authors: tuple[Author, ...]
    funder: str
    funder_doi: str
    award: str
    et_al: bool = False


@dataclass(frozen=True, slots=True)
class About:
    """[tool.biglocal]: what [project] has no place for."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    title: str
    abstract: str
    place: str
    authors: tuple[Author, ...]
    study: Replicated
    year: int | None = None
    released: date | None = None
    doi: str = ""
    repository: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """All that any dialect says. `years`: the first and the last that the study's outcomes cover."""

    name: str
    version: str
    description: str
    licence: str
    keywords: tuple[str, ...]
    python: str
    libraries: tuple[str, ...]
    about: About
    years: tuple[int, int]
    data: tuple[sources.Source, ...]

    @property
    def year(self) -> int:
        """Of the release, or of the copyright until there is one."""
        return self.about.released.year if self.about.released else self.about.year or 0

    @property
    def period(self) -> str:
        """The years covered, as ISO 8601 writes an interval."""
        return f"{self.years[0]}/{self.years[1]}"

    @property
    def paid(self) -> str:
        """The funding of the study, as a sentence that does not claim it for this package."""
        study = self.about.study
        return f"The study that is replicated was funded by the {study.funder}, award {study.award}."


def read(study: Study, root: Path = ROOT) -> Metadata:
    """The record, checked.

    Raises `DataError` naming the entry of pyproject.toml that is missing, unknown or not of its form: no author, an
    author with neither name nor family name, an ORCID whose check digit is wrong (ISO/IEC 7064, MOD 11-2), a DOI that
    is given as an address, neither year nor date of release, a licence that is not known here.
    """
    from pydantic import TypeAdapter, ValidationError

    path = root / "pyproject.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        project, own = raw["project"], raw["tool"]["biglocal"]
        about = TypeAdapter(About).validate_python(own)
        made = Metadata(
            project["name"], project["version"], project["description"], project["license"],
            tuple(project["keywords"]), project["requires-python"],
            tuple(sorted(_bare(d) for d in project["dependencies"])), about,
            (min(o.first_year for o in study.outcomes.values()), max(o.last_year for o in study.outcomes.values())),
            sources.read(root / "data-raw" / "sources.toml"),
        )  # fmt: skip
    except FileNotFoundError:
        raise DataError("pyproject.toml: no such file. Run from a clone of the project.") from None
    except tomllib.TOMLDecodeError as e:
        raise DataError(f"pyproject.toml: not valid TOML: {e}. Mend the line named.") from None
    except KeyError as e:
        raise DataError(f"pyproject.toml: {e.args[0]} is missing. Add it to [project] or [tool.biglocal].") from None
    except ValidationError as e:
        first = e.errors()[0]
        at = ".".join(map(str, first["loc"]))
        known = choices(str(first["loc"][-1]), About.__slots__) if "unexpected" in first["type"] else "Correct it."
        raise DataError(f"pyproject.toml: tool.biglocal.{at}: {first['msg'].lower()}. {known}") from None
    _check(made)
    return made


def _bare(requirement: str) -> str:
    return requirement.split("=")[0].split(">")[0].split("<")[0].strip()


def _check(made: Metadata) -> None:
    about = made.about
    wrong = "pyproject.toml: tool.biglocal"
    if not about.authors:
        raise DataError(f"{wrong}.authors: there is none. Name at least one: a person, or a body by `name`.")
    for author in (*about.authors, *about.study.authors):
        if bool(author.name) == bool(author.family):
            raise DataError(f"{wrong}.authors: {author.full or 'an author'}: give either name, or family and given.")
        if author.orcid and not _orcid(author.orcid):
            raise DataError(
                f"{wrong}.authors: {author.full}: {author.orcid} is no ORCID. Give 0000-0000-0000-0000, whose last "
                f"sign is a check digit, without an address before it."
            )
    for doi in (about.doi, about.study.doi, about.study.funder_doi):
        if doi and not (doi.startswith("10.") and "/" in doi):
            raise DataError(f"{wrong}: {doi} is no DOI. Give it as 10.1234/abc, without an address before it.")
    if not about.year and not about.released:
        raise DataError(f"{wrong}: neither year nor released. Give the year of the copyright, or the day of release.")
    if made.licence not in LICENCES:
        raise DataError(
            f"pyproject.toml: project.license: {made.licence}: its full name is not known here. "
            f"Add it to LICENCES of archive/dialects.py."
        )


def _orcid(text: str) -> bool:
    digits = text.replace("-", "")
    if len(text) != 19 or len(digits) != 16 or not digits[:15].isdigit():
        return False
    total = 0
    for digit in digits[:15]:
        total = (total + int(digit)) * 2
    return digits[15] == "0123456789X"[(12 - total % 11) % 11]


# --- the dialects ------------------------------------------------------------------------------------------


def files(made: Metadata) -> dict[str, str]:
    """Path from the root of the project -> text of each file that holds nothing but metadata."""
    return {
        "CITATION.cff": citation(made),
        "codemeta.json": _json(codemeta(made)),
        ".zenodo.json": _json(zenodo(made)),
        "datacite.json": _json(datacite(made)),
    }


def citation(made: Metadata) -> str:
    """CITATION.cff."""
    about, study = made.about, made.about.study
    said: dict[str, Any] = {
        "cff-version": "1.2.0",
        "title": about.title,
        "message": "If you use this package, please cite it and the report that it replicates.",
        "type": "software",
        "version": made.version,
        "license": made.licence,
        "abstract": about.abstract.strip(),
        "keywords": list(made.keywords),
        "authors": [_cff(a) for a in about.authors],
        "doi": about.doi,
        "date-released": about.released.isoformat() if about.released else "",
        "repository-code": about.repository,
        "preferred-citation": {
            "type": "article",
            "title": study.title,
            "authors": [*(_cff(a) for a in study.authors), *([{"name": "and others"}] if study.et_al else [])],
            "journal": study.journal,
            "year": study.year,
            "volume": study.volume,
            "issue": study.issue,
            "doi": study.doi,
        },
        "references": [
            _filled(
                {
                    "type": "data",
                    "title": s.name,
                    "authors": [{"name": s.publisher}],
                    "doi": s.address.removeprefix(DOI) if s.address.startswith(DOI) else "",
                    "url": "" if s.address.startswith(DOI) else s.address,
                    "notes": s.vintage,
                }
            )
            for s in made.data
            if s.published
        ],
    }
    return yaml(_filled(said))


def _cff(author: Author) -> dict[str, str]:
    said = {
        "name": author.name,
        "family-names": author.family,
        "given-names": author.given,
        "orcid": author.orcid and ORCID + author.orcid,
        "affiliation": "" if author.name else author.affiliation,  # the format has none for a body
    }
    return _filled(said)


def codemeta(made: Metadata) -> dict[str, Any]:
    """codemeta.json: terms of schema.org that CodeMeta's context does not name stand under its prefix `schema:`."""
    about, study = made.about, made.about.study
    return _filled(
        {
            "@context": "https://w3id.org/codemeta/3.0",
            "type": "SoftwareSourceCode",
            "name": about.title,
            "identifier": about.doi and DOI + about.doi,
            "description": about.abstract.strip(),
            "version": made.version,
            "license": f"https://spdx.org/licenses/{made.licence}",
            "keywords": list(made.keywords),
            "author": [_codemeta(a) for a in about.authors],
            "copyrightYear": made.year,
            "datePublished": about.released.isoformat() if about.released else "",
            "codeRepository": about.repository,
            "programmingLanguage": "Python",
            "runtimePlatform": f"Python {made.python}",
            "softwareRequirements": [{"type": "SoftwareApplication", "name": n} for n in made.libraries],
            "readme": "README.md",
            "funder": {"id": DOI + study.funder_doi, "type": "Organization", "name": study.funder},
            "funding": f"{study.award} (of the study that is replicated)",
            "referencePublication": {
                "id": DOI + study.doi,
                "type": "schema:ScholarlyArticle",
                "name": study.title,
                "author": [_codemeta(a) for a in study.authors],
                "datePublished": str(study.year),
            },
            "citation": _cited(made),
            "schema:temporalCoverage": made.period,
            "schema:spatialCoverage": {"type": "schema:Place", "name": about.place},
        }
    )


def _codemeta(author: Author) -> dict[str, Any]:
    where = {"type": "Organization", "name": author.affiliation} if author.affiliation else {}
    if author.name:
        return _filled({"type": "Organization", "name": author.name})
    said = {
        "id": author.orcid and ORCID + author.orcid,
        "type": "Person",
        "givenName": author.given,
        "familyName": author.family,
        "affiliation": where,
    }
    return _filled(said)


def zenodo(made: Metadata) -> dict[str, Any]:
    """.zenodo.json. The award stands in the notes: a grant that Zenodo does not list would refuse the deposit."""
    about = made.about
    related = [{"identifier": about.study.doi, "relation": "references", "scheme": "doi"}]
    related += [{"identifier": d, "relation": "references", "scheme": "doi"} for d in _dois(made)]
    return _filled(
        {
            "title": about.title,
            "upload_type": "software",
            "version": made.version,
            "description": about.abstract.strip(),
            "creators": [
                _filled({"name": a.inverted, "orcid": a.orcid, "affiliation": a.affiliation}) for a in about.authors
            ],
            "license": made.licence,
            "access_right": "open",
            "language": "eng",
            "keywords": list(made.keywords),
            "publication_date": about.released.isoformat() if about.released else "",
            "related_identifiers": related,
            "references": _cited(made),
            "notes": f"Covers {about.place}, {made.years[0]} to {made.years[1]}. {made.paid}",
        }
    )


def datacite(made: Metadata) -> dict[str, Any]:
    """datacite.json. Publisher and, before a release, the year are the archive's to correct."""
    about, study = made.about, made.about.study
    return _filled(
        {
            "schemaVersion": "http://datacite.org/schema/kernel-4",
            "doi": about.doi,
            "types": {"resourceTypeGeneral": "Software", "resourceType": "Replication package"},
            "creators": [_datacite(a) for a in about.authors],
            "titles": [{"title": about.title, "lang": "en"}],
            "publisher": {"name": "(:tba)"},  # DataCite 4.5, appendix 3: to be announced
            "publicationYear": str(made.year),
            "subjects": [{"subject": k, "lang": "en"} for k in made.keywords],
            "language": "en",
            "version": made.version,
            "rightsList": [
                {
                    "rights": LICENCES[made.licence],
                    "rightsUri": f"https://spdx.org/licenses/{made.licence}.html",
                    "rightsIdentifier": made.licence,
                    "rightsIdentifierScheme": "SPDX",
                    "schemeUri": "https://spdx.org/licenses/",
                }
            ],
            "descriptions": [{"description": about.abstract.strip(), "descriptionType": "Abstract", "lang": "en"}],
            "dates": [
                {"date": made.period, "dateType": "Other", "dateInformation": "Coverage"},  # a type of its own in 4.6
                *([{"date": about.released.isoformat(), "dateType": "Issued"}] if about.released else []),
            ],
            "geoLocations": [{"geoLocationPlace": about.place}],
            "relatedIdentifiers": [
                {"relatedIdentifier": d, "relatedIdentifierType": "DOI", "relationType": "References"}
                for d in (study.doi, *_dois(made))
            ],
            "fundingReferences": [
                {
                    "funderName": study.funder,
                    "funderIdentifier": DOI + study.funder_doi,
                    "funderIdentifierType": "Crossref Funder ID",
                    "awardNumber": study.award,
                    "awardTitle": "Award of the study that is replicated",
                }
            ],
        }
    )


def _datacite(author: Author) -> dict[str, Any]:
    scheme = {"nameIdentifierScheme": "ORCID", "schemeUri": ORCID.rstrip("/")}
    return _filled(
        {
            "name": author.inverted,
            "nameType": "Organizational" if author.name else "Personal",
            "givenName": author.given,
            "familyName": author.family,
            "nameIdentifiers": [{"nameIdentifier": ORCID + author.orcid, **scheme}] if author.orcid else [],
            "affiliation": [{"name": author.affiliation}] if author.affiliation else [],
        }
    )


def crate(made: Metadata) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The properties of an RO-Crate's root, and the entities that these point to, each with its `@id`.

    `datePublished`, which a root must have, is here only once there is a release: until then the deposit gives it.
    """
    about, study = made.about, made.about.study
    licence = {"@id": f"https://spdx.org/licenses/{made.licence}", "@type": "CreativeWork"}
    authors, funder = [_crate(a) for a in about.authors], {"@id": DOI + study.funder_doi}
    writers = [_crate(a) for a in study.authors]
    root = {
        "name": about.title,
        "description": about.abstract.strip(),
        "identifier": about.doi and DOI + about.doi,
        "version": made.version,
        "keywords": list(made.keywords),
        "license": {"@id": licence["@id"]},
        "author": [{"@id": a["@id"]} for a in authors],
        "funder": funder,
        "citation": {"@id": DOI + study.doi},
        "temporalCoverage": made.period,
        "spatialCoverage": {"@id": "#place"},
        "datePublished": about.released.isoformat() if about.released else "",
    }
    entities: list[dict[str, Any]] = [
        {
            **licence,
            "name": LICENCES[made.licence],
            "identifier": made.licence,
            "description": f"SPDX licence {made.licence}; its text is in LICENSE.",
        },
        *authors,
        *writers,
        *({a.affiliation: _body(a.affiliation) for a in (*about.authors, *study.authors) if a.affiliation}.values()),
        {**funder, "@type": "Organization", "name": study.funder, "description": made.paid},
        {
            "@id": DOI + study.doi,
            "@type": "ScholarlyArticle",
            "name": study.title,
            "author": [{"@id": a["@id"]} for a in writers],
            "datePublished": str(study.year),
            "isPartOf": {"@id": "#journal"},
            "funder": funder,
        },
        {"@id": "#journal", "@type": "Periodical", "name": study.journal},
        {"@id": "#place", "@type": "Place", "name": about.place},
    ]
    return _filled(root), [_filled(e) for e in entities]


def _crate(author: Author) -> dict[str, Any]:
    body = {"@type": "Organization", "name": author.name}
    person = {"@type": "Person", "name": author.full, "givenName": author.given, "familyName": author.family}
    own = (
        body
        if author.name
        else {**person, "affiliation": _body(author.affiliation) and {"@id": _at(author.affiliation)}}
    )
    return {"@id": ORCID + author.orcid if author.orcid else _at(author.full), **_filled(own)}


def _body(name: str) -> dict[str, Any]:
    return {"@id": _at(name), "@type": "Organization", "name": name} if name else {}


def _at(name: str) -> str:
    return "#" + quote(name.lower().replace(" ", "-"))


def _dois(made: Metadata) -> list[str]:
    """Of the data, where the publisher gives one; the study's own is apart."""
    found = (s.address.removeprefix(DOI) for s in made.data if s.address.startswith(DOI))
    return [d for d in dict.fromkeys(found) if d != made.about.study.doi]


def _cited(made: Metadata) -> list[str]:
    return list(dict.fromkeys(s.citation for s in made.data if s.citation))


# --- how they are written ----------------------------------------------------------------------------------


def _filled(said: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in said.items() if v not in ("", [], {}, None)}


def _json(said: dict[str, Any]) -> str:
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def yaml(said: dict[str, Any], indent: str = "") -> str:
    """Mappings and lists as YAML blocks; each text in double quotes, as JSON writes it, which YAML reads the same."""
    lines = []
    for key, value in said.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{key}:\n{yaml(value, indent + '  ')}")
        elif isinstance(value, list):
            lines.append(f"{indent}{key}:\n{''.join(_items(value, indent + '  '))}")
        else:
            lines.append(f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines)


def _items(values: Iterable[Any], indent: str) -> Iterable[str]:
    for value in values:
        if isinstance(value, dict):
            yield f"{indent}- {yaml(value, indent + '  ').removeprefix(indent + '  ')}"
        else:
            yield f"{indent}- {json.dumps(value, ensure_ascii=False)}\n"
