"""What those who judge a replication package ask for, by the ids and names they use; no check stands here.

Ids, names and the order are the standards' own; what a rule asks is said in our words, so the standard's text decides
where the two differ. The template README gives its sections no ids: SSDE-1 and so on count them in its order, and
`heading` is the heading it wants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Standard:
    """A standard at the version that is meant, and where it stands."""

    name: str
    version: str
    source: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: `standard` is a key of STANDARDS.

    `severity` follows the standard: `error` where it says must, `warning` for should, `info` for advice. `heading` is
    the README's heading that answers to the rule, where the standard asks for one.
    """

    id: str
    standard: str
    title: str
    asks: str
    severity: Severity = "error"
    heading: str = ""


STANDARDS = {
    "DCAS": Standard(
        "Data and Code Availability Standard",
        "1.0",
        "Koren, Connolly, Llull, Vilhuber (2022), doi 10.5281/zenodo.7436134, datacodestandard.org",
    ),
    "SSDE": Standard(
        "Template README of the Social Science Data Editors",
        "1.1",
        "Vilhuber, Connolly, Koren, Llull, Morrow (2022), doi 10.5281/zenodo.7293838",
    ),
    "CODECHECK": Standard(
        "CODECHECK configuration file, author's half",
        "1.0",
        "codecheck.org.uk/spec/config/1.0, rules by the codecheckers' register (rules-1.0.yml)",
    ),
    "CODECHECK principles": Standard(
        "CODECHECK principles",
        "1",
        "Nüst and Eglen (2021), F1000Research 10:253, doi 10.12688/f1000research.51738.2",
    ),
    "AEA": Standard(
        "AEA Data Editor's replication report",
        "at commit 1610a3f",
        "github.com/AEADataEditor/replication-template, REPLICATION.md, Classification and Reason",
    ),
}


def _dcas() -> tuple[Rule, ...]:
    asked = (
        ("Data availability statement", "Says how an outsider gets the original data: steps, limits, cost, waiting."),
        ("Raw data", "Raw data are open to all; what is not is explained under rule 1."),
        ("Analysis data", "Analysis data are in the package, unless open data lead to them in reasonable time."),
        ("Format of data", "Common statistical software reads the files; some journals ask for open formats."),
        ("Metadata", "Every variable and its allowed values are described in public."),
        ("Citation", "Every data set used is cited."),
        ("Data transformation", "The programs that lead from raw to analysis data are there."),
        ("Analysis", "The programs behind every computed result, table and figure are there."),
        ("Format of code", "Code is source that the software can run or compile as it stands."),
        ("Instruments", "Of data that the authors collected: questionnaires and how subjects were chosen."),
        ("Ethics", "Where it applies: the approval of an ethics committee."),
        ("Pre-registration", "Where it applies: the registration is named and cited."),
        ("Documentation", "A README after the Data Editors' template: data, software, hardware, run time, steps."),
        ("Location", "Data and programs lie in an archive that the journal accepts."),
        ("Licence", "A licence covers code and data and lets strangers replicate."),
        ("Omissions", "The README names every required part that is left out, and by which obligation."),
    )
    return tuple(Rule(f"DCAS-{i}", "DCAS", title, asks) for i, (title, asks) in enumerate(asked, start=1))


def _ssde() -> tuple[Rule, ...]:
    asked: tuple[tuple[str, str, str, Severity], ...] = (
        ("1", "Overview", "What the package makes from which data, how to begin, how long it takes.", "error"),
        (
            "2",
            "Data Availability and Provenance Statements",
            "Where each data set comes from, who may use it.",
            "error",
        ),
        ("2.1", "Statement about Rights", "The authors may use the data, and may pass on what is passed on.", "error"),
        ("2.2", "License for Data", "A licence for the data in the package.", "warning"),
        ("2.3", "Summary of Availability", "One of: all, some, none of the data can be made public.", "error"),
        (
            "2.4",
            "Details on each Data Source",
            "For each source: provenance, access, licence, file, citation.",
            "error",
        ),
        ("3", "Dataset list", "Every data file, its source, and whether it is in the package.", "error"),
        ("4", "Computational requirements", "What is needed to run it.", "error"),
        (
            "4.1",
            "Software Requirements",
            "Every program and library with the version used, and what installs it.",
            "error",
        ),
        ("4.2", "Controlled Randomness", "Program and line where each seed is set, or that none is.", "error"),
        (
            "4.3",
            "Memory, Runtime, Storage Requirements",
            "Time, memory and space as measured, on which machine.",
            "error",
        ),
        ("5", "Description of programs/code", "What the programs do, in outline.", "error"),
        ("5.1", "License for Code", "A licence for the code.", "warning"),
        ("6", "Instructions to Replicators", "The steps from nothing to the results, in one line of order.", "error"),
        ("6.1", "Details", "What the steps do, and what one may need to know of each.", "warning"),
        ("7", "List of tables and programs", "Each table and figure: program, line, file, and whether open.", "error"),
        ("8", "References", "Every data set and work that the README names.", "error"),
    )
    return tuple(Rule(f"SSDE-{n}", "SSDE", title, asks, how, title) for n, title, asks, how in asked)


def _codecheck() -> tuple[Rule, ...]:
    asked: tuple[tuple[str, str, str, Severity], ...] = (
        ("CFG-001", "yaml-parses", "codecheck.yml is YAML in UTF-8.", "error"),
        ("CFG-002", "explicit-document", "It begins its document with ---.", "error"),
        ("CFG-003", "file-name-and-location", "It has this name and lies at the top.", "error"),
        ("CFG-004", "manifest-present", "It lists the outputs to be made again.", "error"),
        ("CFG-005", "manifest-item-file", "Each entry of the list names a file.", "error"),
        ("CFG-006", "manifest-path-relative", "Files are named from where codecheck.yml lies.", "error"),
        ("CFG-007", "manifest-item-comment", "Each entry says what the file is.", "info"),
        ("CFG-014", "version-present", "It says which version of the specification it follows.", "warning"),
        ("CFG-015", "version-known", "That version is a published one.", "warning"),
        ("CFG-016", "paper-present", "It names the paper.", "warning"),
        ("CFG-017", "paper-title", "The paper has a title.", "warning"),
        ("CFG-018", "paper-authors", "The paper has at least one author.", "warning"),
        ("CFG-019", "paper-author-name", "Every author has a name.", "warning"),
        ("CFG-020", "paper-author-orcid", "Every author has an ORCID, without https (version 2.0: must).", "warning"),
        ("CFG-021", "paper-reference", "It says where the paper is.", "warning"),
        ("CFG-022", "reference-not-bare-pdf", "By DOI or landing page, not by a loose PDF.", "warning"),
        ("CFG-023", "no-placeholder-values", "Nothing is left to be filled in (FIXME, TODO, XXXXX).", "error"),
        ("CFG-027", "reference-is-url", "The reference is an address.", "info"),
        ("CFG-028", "reference-prefers-doi", "The address is a DOI.", "info"),
        ("MET-001", "orcid-format", "Every ORCID has the right form and check digit.", "error"),
        ("BUN-001", "manifest-files-exist", "Every file of the list is there.", "error"),
        ("BUN-005", "licence-present", "The package states a licence.", "warning"),
    )
    return tuple(Rule(f"CC-{n}", "CODECHECK", title, asks, how) for n, title, asks, how in asked)


def _principles() -> tuple[Rule, ...]:
    asked = (
        ("Codecheckers record but do not investigate or fix", "Whether it runs is asked, not whether it is right."),
        ("Communication between humans is key", "Author and codechecker talk; forms do not replace it."),
        ("Credit is given to codecheckers", "The check is a citable work with its own authors."),
        ("Workflows must be auditable", "Someone else can run and read the computation on their own machine."),
        ("Open by default and transitional by disposition", "What can be open is; what cannot says why."),
    )
    return tuple(
        Rule(f"CODECHECK-{i}", "CODECHECK principles", t, a, "info") for i, (t, a) in enumerate(asked, start=1)
    )


RULES = {rule.id: rule for rule in (*_dcas(), *_ssde(), *_codecheck(), *_principles())}
