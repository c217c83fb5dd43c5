"""The standards' rules: their ids, none lost, none twice."""

from __future__ import annotations

import re

from biglocal import verify
from biglocal.archive.rules import RULES, STANDARDS


def test_every_rule_has_its_standard_id_title_and_question() -> None:
    for name, rule in RULES.items():
        assert rule.id == name and rule.standard in STANDARDS
        assert rule.title and rule.asks.endswith(".")
    assert {r.standard for r in RULES.values()} == set(STANDARDS) - {"AEA"}


def test_the_availability_standard_has_its_sixteen_rules_in_order() -> None:
    assert [i for i in RULES if i.startswith("DCAS")] == [f"DCAS-{n}" for n in range(1, 17)]


def test_codecheck_ids_have_the_registers_form_and_leave_out_the_codecheckers_half() -> None:
    ours = [i for i in RULES if RULES[i].standard == "CODECHECK"]
    assert all(re.fullmatch(r"CC-(CFG|MET|BUN)-\d{3}", i) for i in ours) and ours == sorted(
        ours, key=lambda i: (("CFG", "MET", "BUN").index(i[3:6]), i)
    )
    # codechecker, report, summary and certificate come with the check (specification 1.0, CODECHECK metadata)
    assert not {f"CC-CFG-{n:03d}" for n in (8, 9, 10, 11, 12, 13, 24, 25, 26)} & set(ours)


def test_template_sections_stand_in_the_templates_order() -> None:
    numbers = [tuple(map(int, i[5:].split("."))) for i in RULES if i.startswith("SSDE")]
    assert numbers == sorted(numbers) and {n[0] for n in numbers} == set(range(1, 9))
    assert all(RULES[i].heading for i in RULES if i.startswith("SSDE"))


# AEADataEditor/replication-template, REPLICATION.md, Reason for incomplete reproducibility
AEA = {
    "Discrepancy in output", "Bugs in code", "Code missing", "Data preparation code missing", "Code not functional",
    "Software not available to replicator", "Insufficient time available to replicator", "Data missing",
    "Data not available", "Missing README",
}  # fmt: skip


def test_the_reasons_that_verify_gives_are_those_of_the_aeas_form() -> None:
    assert {name for name, _ in verify.REASONS.values()} - {""} <= AEA
