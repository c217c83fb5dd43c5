"""The level of computational reproducibility that an exhibit reaches, on the scale of the ACRE guide.

Guide for Accelerating Computational Reproducibility in the Social Sciences, Berkeley Initiative for Transparency in the
Social Sciences, chapter 3 (bitss.github.io/ACRE/assessment.html); wording ours. Its levels are a ladder: each asks for
all below it. For data that may not be passed on it has a second one, marked by a star, on which complete instructions
for getting the data stand for the data, and a third party's certificate for a run that anyone can make.

The data made here have no raw stage, so no exhibit made of them gets above level 5, and what they reproduce is this
package's own reference, not the published study.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Share = Literal["none", "partial", "complete"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is for one exhibit. `cra` and `crr`: whether a run from the analysis data, or the raw data, gives it.

    With a star `data` and `raw` are instructions, and `cra` and `crr` certificates.
    """

    code: Share
    data: Share
    cra: bool
    cleaning: Share
    raw: Share
    crr: bool
    star: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """A rung: its meaning, on both scales, and the improvement that leads to the next, by the guide's sign."""

    number: int
    meaning: str
    starred: str
    improve: str


LEVELS = tuple(
    Level(i, *words)
    for i, words in enumerate(
        (
            ("no data or code", "no data or code", "+AC, +AD: give analysis code and data"),
            ("only code", "only code", "+AD: give analysis data, or say how to get them"),
            (
                "analysis data and code in part",
                "all analysis code, instructions for the analysis data in part",
                "+AD: complete the analysis data, or the instructions for them, and the code",
            ),
            (
                "all analysis data and code, which do not give the result",
                "all analysis code, complete instructions for the analysis data",
                "DAC: mend the analysis code until it gives the result; for closed data, have a third party certify it",
            ),
            (
                "reproducible from the analysis data",
                "a third party certifies that the analysis data give the result",
                "+CC, +RD: give cleaning code and raw data",
            ),
            ("cleaning code in part", "cleaning code in part", "+CC: complete the cleaning code"),
            ("all cleaning code", "all cleaning code", "+RD: give raw data, or say how to get them"),
            ("raw data in part", "instructions for the raw data in part", "+RD: complete them"),
            (
                "all raw data",
                "complete instructions for the raw data",
                "DCC: mend the cleaning code until raw data give the result; for closed data, have it certified",
            ),
            ("reproducible from the raw data", "a third party certifies that the raw data give the result", ""),
        ),
        start=1,
    )
)


def level(facts: Facts) -> Level:
    """The highest rung with all below it in place."""
    rungs = (
        facts.code != "none",
        facts.data != "none",
        facts.code == facts.data == "complete",
        facts.cra,
        facts.cleaning != "none",
        facts.cleaning == "complete",
        facts.raw != "none",
        facts.raw == "complete",
        facts.crr,
    )
    return LEVELS[rungs.index(False) if False in rungs else len(rungs)]


def name(facts: Facts) -> str:
    """`4*`."""
    return f"{level(facts).number}{'*' if facts.star else ''}"


def meaning(facts: Facts) -> str:
    """In words."""
    found = level(facts)
    return found.starred if facts.star else found.meaning
