"""Imports point one way, and starting is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from biglocal.study import HERE

ORDER = (
    "model", "data.tables", "specifications", "study", "data", "matching", "levels", "residents", "sample", "estimators", "inference", "timings",
    "placebo", "places", "curve", "whole_series", "cross_sections", "multiverse", "simulation", "simulated_power", "recovery", "cost_benefit", "results", "runs", "disclosure", "estimate", "worth",
    "release", "provenance",
    "exhibits", "new", "trace", "diff", "verify", "run", "archive", "__main__",
)  # fmt: skip


def rank(module: str) -> int:
    if module == "data.tables":
        return ORDER.index(module)
    return ORDER.index(module.split(".")[0])


def modules() -> dict[str, str]:
    found = {}
    for path in sorted(HERE.rglob("*.py")):
        name = ".".join(path.relative_to(HERE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = path.read_text(encoding="utf-8")
    return found


@pytest.mark.parametrize("name", modules())
def test_imports_point_one_way(name: str) -> None:
    for node in ast.walk(ast.parse(modules()[name])):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("biglocal"):
            inside = node.module.removeprefix("biglocal").lstrip(".")
            targets = [inside] if inside else [a.name for a in node.names if a.name != "__version__"]
            for target in targets:
                assert rank(target) <= rank(name), f"{name} imports {target}"


HEAVY = {
    "numpy",
    "pandas",
    "scipy",
    "matplotlib",
    "pyfixest",
    "statsmodels",
    "linearmodels",
    "pyarrow",
    "typst",
    "duckdb",
}


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["plan"],
        ["dictionary"],
        ["verify", "--help"],
        ["data", "--dry-run"],
        ["new", "--help"],
        ["metadata", "--check"],
    ],
)
def test_starting_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['biglocal', *sys.argv[1:]]\n"
        "from biglocal.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(','.join(sorted({HEAVY!r} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.splitlines()[-1].split(",") if done.stderr else []), done.stderr
