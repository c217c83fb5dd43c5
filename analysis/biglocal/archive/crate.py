"""The bundle's description: an RO-Crate 1.2 with a Process Run Crate's record of what made each output.

Written without a library, so that a laboratory without a network can make a bundle with what it runs on; rocrate and
roc-validator judge it (tests/archive, `nox -s bundle`). Sources: RO-Crate Metadata Specification 1.2,
w3id.org/ro/crate/1.2; Process Run Crate 0.5, w3id.org/ro/wfrun/process/0.5.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

NAME = "ro-crate-metadata.json"
VERSION = "1.2"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
PYTHON = "#python"
PROGRAM = "#biglocal"
AGENT = "#agent"
TYPES = {  # here, as each system has a table of its own; a name without an ending (LICENSE) is text
    ".csv": "text/csv", ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".j2": "text/plain", ".js": "text/javascript", ".json": "application/json", ".jsonld": "application/ld+json",
    ".md": "text/markdown", ".py": "text/x-python", ".svg": "image/svg+xml", ".tex": "application/x-tex",
    ".toml": "application/toml", ".txt": "text/plain", ".whl": "application/zip", ".html": "text/html",
    ".pdf": "application/pdf", ".png": "image/png", ".cff": "application/yaml", ".css": "text/css",
    ".yml": "application/yaml", ".yaml": "application/yaml", ".xml": "application/xml", ".ttl": "text/turtle",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """A file as the crate describes it: size in bytes, sha256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Action:
    """One program that made outputs. `program`, `took` and `made` are files of the crate; `program` may be PROGRAM."""

    id: str
    name: str
    description: str
    program: str
    took: tuple[str, ...]
    made: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class About:
    """What the root says of itself.

    `root`: its properties, with at least `name`, `license` and `author` (dialects.crate gives them), and `entities`
    those that it points to. `date`: an ISO date, of the deposit and of what was run. `version`: of the programs, and
    `python` that they ran on.
    `folders`: folder of the crate, with its slash -> what it holds.
    """

    root: Mapping[str, Any]
    entities: Sequence[Mapping[str, Any]]
    date: str
    version: str
    python: str
    folders: Mapping[str, str]


def describe(files: Mapping[str, File], actions: Iterable[Action], about: About) -> str:
    """The text of ro-crate-metadata.json: every file with size and sha256, every folder, what made what.

    The same for the same arguments, in whatever order `files` come.
    """
    date = {"endTime": about.date, "agent": {"@id": AGENT}}
    steps = list(actions)
    programs = {s.program for s in steps} - {PROGRAM}
    graph = _root(files, steps, about)
    graph += [_folder(name, files, text) for name, text in sorted(about.folders.items())]
    graph += [_file(name, files[name], programs, about) for name in sorted(files)]
    graph += [
        {
            "@id": step.id,
            "@type": "CreateAction",
            "name": step.name,
            "description": f"{step.description} Dated by the commit: a run keeps no clock.",
            "instrument": _ids([step.program])[0],
            "object": _ids(step.took),
            "result": _ids(step.made),
            **date,
        }
        for step in steps
    ]
    graph = [{k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in e.items()} for e in graph]
    context = f"https://w3id.org/ro/crate/{VERSION}/context"
    return json.dumps({"@context": context, "@graph": graph}, indent=1, ensure_ascii=False) + "\n"


def _root(files: Mapping[str, File], steps: Sequence[Action], about: About) -> list[Mapping[str, Any]]:
    loose = sorted(f for f in files if "/" not in f)
    return [
        {
            "@id": NAME,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            # 1.1 too: the profile is one of 1.1, and its validator asks for it; what is used is in both
            "conformsTo": [{"@id": f"https://w3id.org/ro/crate/{VERSION}"}, {"@id": "https://w3id.org/ro/crate/1.1"}],
        },
        {
            "@id": "./",
            "@type": "Dataset",
            **about.root,
            "datePublished": about.date,
            "conformsTo": {"@id": PROFILE},
            "hasPart": _ids([*sorted(about.folders), *loose]),
            "mentions": _ids(s.id for s in steps),
        },
        *about.entities,
        {"@id": PROFILE, "@type": ["CreativeWork", "Profile"], "name": "Process Run Crate", "version": "0.5"},
        {"@id": AGENT, "@type": "Organization", "name": "Whoever ran the commands: a run keeps no name"},
        {
            "@id": PROGRAM,
            "@type": "SoftwareApplication",
            "name": "biglocal",
            "version": about.version,
            "description": "The command line of this package.",
            "url": {"@id": "source/"},
        },
        {
            "@id": PYTHON,
            "@type": "ComputerLanguage",
            "name": "Python",
            "version": about.python,
            "url": "https://www.python.org",
        },
    ]


def _folder(name: str, files: Mapping[str, File], text: str) -> dict[str, Any]:
    inside = sorted(f for f in files if f.startswith(name))
    return {
        "@id": quote(name),
        "@type": "Dataset",
        "name": name.rstrip("/"),
        "description": text,
        "hasPart": _ids(inside),
    }


def _file(name: str, file: File, programs: set[str], about: About) -> dict[str, Any]:
    kind = name[name.rfind(".") :] if "." in name.rsplit("/", 1)[-1] else ""
    out: dict[str, Any] = {
        "@id": quote(name),
        "@type": ["File", "SoftwareSourceCode"] if name in programs else "File",
        "name": name,
        "contentSize": str(file.size),
        "encodingFormat": TYPES.get(kind, "text/plain" if not kind else "application/octet-stream"),
        "sha256": file.sha256,
    }
    if name in programs:
        out |= {"version": about.version, "programmingLanguage": {"@id": PYTHON}}
    return out


def _ids(names: Iterable[str]) -> list[dict[str, str]]:
    return [{"@id": name if name.startswith("#") else quote(name)} for name in names]
