"""The one table between estimating and reporting: its columns, how it is read, selected from and written.

A row is a term of an analysis. From here on no microdata are read. Kept free of pandas so that
rendering and a second run, in which nothing is estimated, start at once.

A row that disclosure control withheld (release.py) has status `suppressed`, no number, and a reason that says which
rule. Of rows on persons, `n_persons` and every other count of persons is rounded; `n_least` is blank once released.

Parts and their terms (what exhibits may ask for):

programme   level = wave (`wave 1` ...): areas, lsoas, residents (estimate is the count)
flow        comparison; term = step in words, period = its order; estimate = n_treated;
            n_treated = treated LSOAs, n_units = treated and comparison LSOAs, n_clusters = Big Local areas
balance     outcome = covariate; comparison: mean_treated, mean_control_unmatched, mean_control_matched,
            smd_unmatched, smd_matched, variance_ratio_unmatched, variance_ratio_matched, ks_unmatched, ks_matched
overlap     density of the propensity logit: term = treated | control_unmatched | control_matched,
            period = bin, estimate = share of the group in the bin, conf_low and conf_high = the bin's edges;
            and term = effective_sample_size (estimate) of the matched comparison LSOAs
trends      outcome, comparison; term = treated | control, period = year: estimate (weighted mean),
            std_error and interval clustered
effects     outcome: att, by inference `cluster` and `twoway` (std_error, df, statistic, p_value, interval; cluster
            also p_adjusted), `cr2`, `wild_bootstrap` and `randomisation` (p_value, interval; of the last the statistic
            is t, beside draws, their number, and drawn_nearer and drawn_beyond, period = bin: estimate = share of the
            draws, conf_low and conf_high = the bin's edges); inference `power`:
            minimum_detectable, reference_effect (published, in size) and power (the chance to find it), and
            minimum_detectable_with, period = number of treated areas
families    outcome: cluster, holm, fdr_bh, bootstrap, romano_wolf: p_value before and after adjustment for the
            family's other outcomes, each with the estimate
truth       outcome, subgroup: att (level in subgroup), and att_year with period = year: the known effect in the sample
years       outcome: event_time with period = years since start (-1 is the base: estimate 0, no error);
            leads (joint test: statistic, df_num, df, p_value); year 0 is the treatment's start.
            Inference `parallel_trends`, of the mean over the years from the start: average_effect;
            relative_magnitudes (level = statistic = Mbar) and smoothness (level = M in standard errors, statistic = M
            in units a year): the interval under that much departure from parallel trends;
            breakdown_relative_magnitudes, breakdown_smoothness; equivalence (estimate = the size below which all
            leads are shown to lie, p_value = that of the outcome's reference effect); detectable_trend (slope a year
            that the test of the leads finds in 8 of 10 cases) and detectable_trend_bias (what it adds to the mean)
calendar    outcome: calendar with period = year; att_calendar (mean of the years after the estimator's `after`);
            leads, years (joint tests)
dose        outcome: att (at the mean dose), dose (change of the effect with 100 GBP per resident), att with level =
            third of the treated by dose, difference
counts      outcome: att (log rate ratio), percent_change
subgroups   outcome; subgroup = `progress`: att with level in `level`; difference (joint test of equal effects:
            statistic, df, p_value), and for two levels its size (estimate, std_error)
robustness  outcome, comparison, treatment: att
estimators  outcome, estimator, treatment: att; event_time and other aggregates where the estimator has them
twins       outcome, estimator (a library): att; digits to which it and its error are those of our solver
decomposition  outcome: att; by level comparison and comparison_weight (types), two_by_two and two_by_two_weight (pairs)
placebo_dates  outcome, treatment (a pretended start, years before the true one alone): att
placebo_outcomes  outcome: att
placebo     outcome, comparison: see `placebo.summary`
multiverse  outcome: see `curve.summary`
simulation  outcome, treatment, estimator, inference: see `simulation.summary`
simulated_power  the same; period = number of areas: see `simulated_power.summary`
participation  period = wave: approached, answered, new, answered_first, answered_all (counts), rate, rate_again
participants   subgroup, level: share_members, share_adults, gap
change      members' outcome, respondents, estimator, subgroup: change with period = wave, by level; difference (test
            between levels, by wave); minimum_detectable; of models for two values log odds, with odds_ratio beside
            (std_error is that of its logarithm)
association  as change, with exposure: association in place of change, without period
members_truth  change, association, odds_ratio: what is true of the members, where the data were made
losses      period = wave: answered (share), stayed (gap in the first answer), change (of those seen), lowest, highest
            (bounds), tipping
recovery    change_, association_, difference_ with truth, bias, error_ratio, coverage; period and level as above
spending    term = spent, period = year: GBP in prices of the year
equity      as subgroups: the effects that the cost-benefit analysis weights by income
cost_benefit  made of other rows (worth.py), in GBP million, present values in prices of the price year. By estimator:
            inputs: term = input (level = its name; conf_low and conf_high its range, reason its source), deflator
            (period = year), relative_income (level in subgroup);
            scenario, level = its name: point_years, benefit, cost, net_benefit (interval of joint draws), ratio,
            probability (of net benefit above nought), break_even_effect, break_even_point_years, cost_per_point_year,
            break_even_share; for the main one spent_year, cost_year, benefit_year, effect_year with period = year;
            one_way, level = input: input_low, input_high, net_benefit_low, net_benefit_high; net_benefit of the main;
            two_way, level = effect in points, period = value of a point in GBP: net_benefit;
            acceptability, period = value of a point in GBP: probability;
            equity, level in subgroup: effect, residents, weight, benefit, weighted_benefit; difference, net_benefit,
            weighted_net_benefit, break_even_weight
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from biglocal.model import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of results.csv. None is blank. `level` is the subgroup's level; `reason` also carries cautions."""

    analysis: str
    digest: str
    part: str
    outcome: str
    subgroup: str
    level: str
    comparison: str
    treatment: str
    estimator: str
    inference: str
    term: str
    period: int | None
    estimate: float | None
    std_error: float | None
    df: float | None
    statistic: float | None
    p_value: float | None
    p_adjusted: float | None
    conf_low: float | None
    conf_high: float | None
    conf_level: float | None
    unit: str
    n_obs: int | None
    n_units: int | None
    n_treated: int | None
    n_clusters: int | None
    status: str
    reason: str
    tier: str
    df_num: int | None = None  # joint tests: the number of restrictions; `df` is then the denominator's
    n_treated_clusters: int | None = None  # Big Local areas behind the term
    respondents: str = ""  # residents' survey: whose answers
    exposure: str = ""  # residents' survey: what the outcome is associated with
    n_persons: int | None = None  # where the outcome is one of persons: those behind the term
    n_least: int | None = None  # and those in the smallest group it describes or compares: never released

    @property
    def key(self) -> str:
        """The row's name, unique in a table: `years/samhi/…/cluster#event_time@2`, `…#att:fast` with a level."""
        at = "" if self.period is None else f"@{self.period}"
        return f"{self.analysis}#{self.term}{at}" + (f":{self.level}" if self.level else "")


COLUMNS = tuple(f.name for f in fields(Row))
VALUES = operator.attrgetter(*COLUMNS)  # of a row, in the columns' order
WHOLE = "# the analysis above is whole\n"  # a line of a journal
_KINDS = {f.name: str(f.type).split(" ")[0] for f in fields(Row)}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, ".10g")
    return str(value)


def dumps(rows: Iterable[Row]) -> str:
    """The rows as CSV text: LF, ten significant digits; by analysis, within one as its estimator said them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda r: r.analysis):
        writer.writerow(map(_text, VALUES(row)))
    return out.getvalue()


def loads(text: str, source: str) -> tuple[Row, ...]:
    """Rows from CSV text.

    Raises `DataError` naming source, line and column for what is not a results table.
    """
    reader = csv.reader(line for line in io.StringIO(text) if line != WHOLE)
    head = next(reader, [])
    if tuple(head) != COLUMNS:
        raise DataError(
            f"{source}: not a results table of this version: its columns are {', '.join(head) or 'none'}. "
            f"Delete it and run `biglocal reproduce` again."
        )
    rows = []
    for number, line in enumerate(reader, start=2):
        if len(line) != len(COLUMNS):
            raise DataError(
                f"{source}: line {number} has {len(line)} cells, {len(COLUMNS)} expected. Delete the file and rerun."
            )
        cells: list[object] = []
        for column, cell in zip(COLUMNS, line, strict=True):
            kind = _KINDS[column]
            try:
                cells.append(
                    cell if kind == "str" else None if cell == "" else int(cell) if kind == "int" else float(cell)
                )
            except ValueError:
                raise DataError(
                    f"{source}: line {number}, column {column}: {cell!r} is not a number. Delete the file and rerun."
                ) from None
        rows.append(Row(*cells))  # type: ignore[arg-type]  # kinds are those of the fields, by construction
    return tuple(rows)


def read(path: Path, *, torn: bool = False) -> tuple[Row, ...]:
    """Rows of a results file; none if it does not exist. `torn`: of a journal, those before its last line `WHOLE`,
    since a killed run may have left what comes after it incomplete.

    Raises `DataError` as `loads` does, and for what is no text.
    """
    if not path.exists():
        return ()
    data = path.read_bytes()
    if torn:
        head, mark, _ = data.rpartition(f"\n{WHOLE}".encode())
        data = head + mark if mark else data[: data.find(b"\n") + 1]
    try:
        return loads(data.decode("utf-8"), path.name)
    except UnicodeDecodeError:
        raise DataError(
            f"{path.name}: not a text file in UTF-8. Delete it and run `biglocal reproduce` again."
        ) from None


def select(rows: Sequence[Row], **wanted: object) -> tuple[Row, ...]:
    """Rows whose columns have the wanted values; a list or tuple means any of them.

    Raises `KeyError` for a column that does not exist, so that a template's typo is not an empty table.
    """
    for column in wanted:
        if column not in COLUMNS:
            raise KeyError(f"no column '{column}' in results; there are {', '.join(COLUMNS)}")

    found: Sequence[Row] = rows
    for column, w in wanted.items():
        values = w if isinstance(w, list | tuple | set | frozenset) else (w,)
        found = list(itertools.compress(found, map(values.__contains__, map(operator.attrgetter(column), found))))
    return tuple(found)


def write_text(path: Path, text: str) -> None:
    """Write beside, then rename: nothing half-written is ever at `path`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """As `write_text`, for bytes. A file that holds them already is left alone."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def json_lines(value: object, depth: int = 1) -> str:
    """JSON, a line to each entry down to `depth`: it can be read and compared, at a tenth of the time of `indent`."""
    if not value or not depth or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[\n" + ",\n".join(json_lines(v, depth - 1) for v in value) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(k)}: {json_lines(v, depth - 1)}" for k, v in value.items()) + "\n}"


def digest(*parts: str | bytes) -> str:
    """Sha256 of the parts, each delimited by its length, so that no two lists of parts collide."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(str(len(data)).encode() + b":" + data)
    return h.hexdigest()
