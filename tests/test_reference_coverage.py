"""Every case of the reference results is a test, with the case's id in the test's id, or is out of scope for a reason.

python tests/test_reference_coverage.py     # the table, as Markdown
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

import reference_cases

HERE = Path(__file__).resolve().parent

OUT_OF_SCOPE = {
    "negbin_quine": "negative binomial: counts are modelled by Poisson pseudo-likelihood with clustered errors, which "
    "asks nothing of the variance, and takes fixed effects; a second model of dispersion would answer no question",
    "cbps_lalonde_att": "covariate-balancing propensity score: entropy balancing balances exactly and is here",
}


@lru_cache(maxsize=1)
def holders() -> dict[str, tuple[str, ...]]:
    """Case id -> the files whose test ids have it. Of overlapping ids the longest counts: `twfe_castle_weighted`
    does not hold `twfe_castle`."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-W", "ignore", "-p", "no:cacheprovider", "-m", ""]
    done = subprocess.run([*words, str(HERE)], capture_output=True, text=True, cwd=HERE.parent, check=False)
    if done.returncode:
        raise AssertionError(f"the tests cannot be collected:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    names = sorted(reference_cases._cases(), key=lambda n: (-len(n), n))
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        file, mark, test = line.partition("::")
        if mark and not file.endswith(Path(__file__).name):
            for match in re.finditer("|".join(names), test):
                found.setdefault(match[0], set()).add(file.removeprefix("tests/"))
    return {name: tuple(sorted(files)) for name, files in found.items()}


@pytest.mark.parametrize("name", sorted(reference_cases._cases()) or ["none"])
def test_case_is_held_or_out_of_scope(name: str) -> None:
    reference_cases.case("twfe_base_did")  # skips where the reference folder is not beside the project
    held = holders().get(name, ())
    reason = OUT_OF_SCOPE.get(name)
    assert held or reason, f"{name}: no test has this id, and no reason is given why it is out of scope"
    assert not (held and reason), f"{name} is said to be out of scope, but is held by {', '.join(held)}"


def test_nothing_unknown_is_out_of_scope() -> None:
    reference_cases.case("twfe_base_did")
    assert set(OUT_OF_SCOPE) <= set(reference_cases._cases())


if __name__ == "__main__":
    sys.stdout.write("| case | held by |\n| --- | --- |\n")
    for case in sorted(reference_cases._cases()):
        where = ", ".join(holders().get(case, ())) or f"out of scope: {OUT_OF_SCOPE.get(case, 'NOT SAID')}"
        sys.stdout.write(f"| {case} | {where} |\n")
