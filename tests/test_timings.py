"""Measured costs: read, refused where they are none, and of what the study has."""

from __future__ import annotations

from pathlib import Path

import pytest

from biglocal import study as studies
from biglocal import timings
from biglocal.model import StudyError


def test_the_committed_file_is_of_what_the_study_has() -> None:
    study, found = studies.load(), timings.load()
    assert found is not None
    parts = {a.part for a in studies.expand(study)}
    assert set(found.exhibits) <= set(study.exhibits)
    assert set(found.parts) <= parts
    assert all(c.seconds >= 0 and c.memory_mb > 0 for c in (found.start, *found.exhibits.values()))
    # what is made alone begins, and then makes its parts
    assert found.exhibits["main_effects"].seconds > found.parts["effects"].seconds


def test_none_is_none(tmp_path: Path) -> None:
    assert timings.load(tmp_path / "timings.toml") is None


@pytest.mark.parametrize(
    "text", ["machine = ", "machine = 'x'", "machine='x'\nstart={seconds=1}\nparts={}\nexhibits={}", "start = 1"]
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "timings.toml").write_text(text)
    with pytest.raises(StudyError, match=r"timings.toml: not a table of costs: .*nox -s benchmark -- exhibits"):
        timings.load(tmp_path / "timings.toml")
