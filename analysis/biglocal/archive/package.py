"""The rules that a package of this kind is judged by, each a small function: `biglocal audit` runs them all.

A rule of a standard has the standard's id, and what it asks stands in rules.py; one of our own says it in its
docstring. A rule answers with what it saw. It never passes by default: what cannot be seen from here is said to be so.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from biglocal import provenance, verify
from biglocal.archive import dialects
from biglocal.archive.rules import RULES, Severity
from biglocal.data import sources
from biglocal.model import BiglocalError, Study
from biglocal.study import MANUSCRIPT, PATH, ROOT
from biglocal.study import load as load_study

Verdict = Literal["pass", "fail", "advised", "not applicable", "cannot check"]
REPRODUCE = "Run `nox -s reproduce`."
GENERATORS = ("default_rng", "RandomState", "SeedSequence", "PCG64", "Philox", "Random")
DRAWS = (
    "seed", "rand", "randn", "randint", "random", "normal", "uniform", "choice", "shuffle", "permutation", "sample",
    "gauss", "uuid4", "urandom",
)  # fmt: skip
RANDOM = re.compile(
    r"default_rng|SeedSequence|(?:np|numpy)\.random\.(?!Generator)|import random|from random|uuid4|urandom"
)
VALIDATED = "schemas and validators"
SESSION = "`nox -s audit` has it"
LARGEST = 100 * 1000**2  # bytes: what hosts of source code refuse
LEFT_OUT = {".git", ".venv", ".nox", "__pycache__", "dist", "node_modules"} | {
    f".{tool}" for tool in ("mypy_cache", "ruff_cache", "pytest_cache", "hypothesis", "benchmarks")
}
OF_STANDARDS = {  # rules of standards that rules.py does not list, by the standard's own name
    "BagIt 1.0": "A bundle is a valid bag (RFC 8493)",
    "RO-Crate 1.2": "A bundle is an RO-Crate, at the required level",
    "Process Run Crate 0.5": "A bundle says what run made each output, at the required level",
    "Frictionless Data Package": "datapackage.json is valid, and the data beside it keep to it",
    "CFF 1.2.0": "CITATION.cff keeps to the schema of the Citation File Format",
    "DataCite 4.5": "datacite.json keeps to the schema of DataCite",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rule saw, and what to do about it."""

    verdict: Verdict
    said: tuple[str, ...]
    do: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A rule that can be asked."""

    id: str
    standard: str
    title: str
    asks: str
    severity: Severity
    judge: Callable[[Package], Answer]

    def answer(self, package: Package) -> Answer:
        """Ask it. A rule that only should or may be kept is advice where it is not."""
        if not package.files:
            return unseen("the folder holds no file")
        try:
            found = self.judge(package)
        except BiglocalError as e:
            return unseen(str(e))
        except OSError as e:
            return unseen(f"{Path(str(e.filename)).name}: {e.strerror}")
        advice = found.verdict == "fail" and self.severity != "error"
        return Answer("advised", found.said, found.do) if advice else found


CHECKS: dict[str, Check] = {}


def rule(id: str, title: str = "", severity: Severity = "error") -> Callable[[Callable[[Package], Answer]], None]:
    """Enter a function as the rule `id`: of rules.py where it is there, else of the standard named, or our own."""

    def enter(judge: Callable[[Package], Answer]) -> None:
        if known := RULES.get(id):
            CHECKS[id] = Check(id, known.standard, known.title, known.asks, known.severity, judge)
        elif id in OF_STANDARDS:
            CHECKS[id] = Check(id, VALIDATED, OF_STANDARDS[id], OF_STANDARDS[id], severity, judge)
        else:
            CHECKS[id] = Check(id, "this package", title, (judge.__doc__ or "").strip(), severity, judge)

    return enter


def held(*said: str) -> Answer:
    """It is kept; the evidence."""
    return Answer("pass", said)


def unseen(why: str, do: str = "") -> Answer:
    """It cannot be seen from here."""
    return Answer("cannot check", (why,), do)


def aside(why: str) -> Answer:
    """It does not apply."""
    return Answer("not applicable", (why,))


def judged(faults: Iterable[str], evidence: str, do: str = "") -> Answer:
    """It fails by its faults; without any it is kept, by the evidence."""
    found = tuple(faults)
    return Answer("fail", found, do) if found else held(evidence)


class Package:
    """What the rules look at: the files of a clone or of an unpacked source, a tier's outputs, and a bundle."""

    def __init__(self, root: Path = ROOT, outputs: Path | None = None, bundle: Path | None = None) -> None:
        self.root, self.bundle = root.resolve(), bundle
        self.out = (outputs or root / "outputs") / "synthetic"

    @cached_property
    def files(self) -> tuple[str, ...]:
        """What is or would be committed; of a folder that is no clone, all but what tools leave there."""
        words = ["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        if (self.root / ".git").exists():
            done = subprocess.run(words, capture_output=True, check=True)
            names = done.stdout.decode().split("\0")
            return tuple(sorted(n for n in set(names) if n and (self.root / n).is_file()))
        found = (p.relative_to(self.root) for p in self.root.rglob("*") if p.is_file())
        return tuple(sorted(p.as_posix() for p in found if not LEFT_OUT & set(p.parts) and not _made(p.parts)))

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that may leave, from the root or by their own name."""
        return tuple(self.record.get("outputs", ())) if self.record else ()

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """Every file of the package and of its outputs, but those too large to be looked into."""
        there = {n: self.root / n for n in self.files}
        there |= {f"outputs/{self.out.name}/{n}": self.out / n for n in self.outputs if (self.out / n).is_file()}
        return {n: p.read_bytes() for n, p in there.items() if p.stat().st_size <= LARGEST}

    @cached_property
    def texts(self) -> dict[str, str]:
        """Those that are text."""
        found = {}
        for name, data in self.contents.items():
            if b"\0" not in data[:4096]:
                try:
                    found[name] = data.decode("utf-8")
                except UnicodeDecodeError:
                    continue
        return found

    @cached_property
    def study(self) -> Study:
        """study.toml of this folder."""
        return load_study(self.root / PATH.relative_to(ROOT), self.manuscript)

    @cached_property
    def manuscript(self) -> Path:
        """The folder of templates."""
        return self.root / MANUSCRIPT.relative_to(ROOT)

    @cached_property
    def sources(self) -> tuple[sources.Source, ...]:
        """Where real data come from."""
        return sources.read(self.root / sources.PATH.relative_to(ROOT))

    @cached_property
    def metadata(self) -> dialects.Metadata:
        """Who, what, and under which licence."""
        return dialects.read(self.study, self.root)

    @cached_property
    def record(self) -> dict[str, Any]:
        """The record of the last run; empty where there is none."""
        return provenance.last(self.out)

    @cached_property
    def readme(self) -> dict[str, str]:
        """Heading of README.md, in order -> the text below it, that of headings below it too."""
        text = _without_code(self.texts.get("README.md", ""))
        marks = [(len(m[1]), m[2].strip(), m.end()) for m in re.finditer(r"^(#{1,6}) +(.+?) *#*$", text, re.MULTILINE)]
        found: dict[str, str] = {}
        for i, (deep, title, start) in enumerate(marks):
            after = (end for other, _, end in marks[i + 1 :] if other <= deep)
            body = text[start : next(after, len(text))]
            found.setdefault(title.casefold(), re.sub(r"^#.*$|<!--.*?-->", "", body, flags=re.MULTILINE).strip())
        return found

    @cached_property
    def verified(self) -> verify.Verification | None:
        """The run held against the committed reference; None where there is no run or no reference."""
        if not self.record:
            return None
        expected = self.root / "outputs" / "expected" / f"{self.out.name}-{self.record['draws']}.csv"
        return verify.verify(self.out, expected, self.study, self.manuscript) if expected.is_file() else None

    @cached_property
    def draws(self) -> tuple[tuple[str, int, str, bool], ...]:
        """Calls in the programs that make random numbers: file, line, function, and whether it is given anything."""
        programs = {
            n: t for n, t in self.texts.items() if n.endswith(".py") and n.startswith(("analysis/", "data-raw/"))
        }
        return tuple((name, *call) for name, text in programs.items() for call in _draws(text))

    @cached_property
    def unpacked(self) -> Path:
        """The bundle as a folder; unpacked only once every member is known to be harmless."""
        assert self.bundle is not None
        if self.bundle.is_dir():
            return self.bundle
        self._scratch = tempfile.TemporaryDirectory()  # goes with the package
        with zipfile.ZipFile(self.bundle) as archive:
            archive.extractall(self._scratch.name)
        inside = list(Path(self._scratch.name).iterdir())
        return inside[0] if len(inside) == 1 and inside[0].is_dir() else Path(self._scratch.name)

    @cached_property
    def intact(self) -> tuple[str, ...]:
        """What check-bundle finds wrong with the bundle."""
        from biglocal.archive import check

        assert self.bundle is not None
        try:
            return tuple(str(f) for f in check.check(self.bundle).faults)
        except check.NoBundle as e:
            return (str(e),)


def _made(parts: Sequence[str]) -> bool:
    return parts[0] == "outputs" and len(parts) > 2 and parts[1] != "expected"


def _without_code(text: str) -> str:
    return re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)


def ending(name: str) -> str:
    """`csv`."""
    return PurePosixPath(name).suffix.lstrip(".").lower()


@cache
def _draws(text: str) -> tuple[tuple[int, str, bool], ...]:
    """The calls of one program that make random numbers: line, function, and whether it is given anything."""
    if not RANDOM.search(text) or (tree := parsed(text)) is None:
        return ()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            last = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if last in GENERATORS or last in DRAWS:
                found.append((node.lineno, ast.unparse(node.func), bool(node.args or node.keywords)))
    return tuple(found)


@cache
def parsed(text: str) -> ast.Module | None:
    """A program's syntax; None for a text that is none."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return None
