"""The nouns of the study: frozen records without logic, and the errors.

Everything else in the package takes or returns these. Records are frozen and change by
`dataclasses.replace`; a frame inside a record is never written to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

type_config: dict[str, str] = {"extra": "forbid"}  # read by pydantic in study.py: a typo is an error


Inference = Literal[
    "none", "cluster", "twoway", "cr2", "wild_bootstrap", "randomisation", "romano_wolf", "parallel_trends", "power"
]


class BiglocalError(Exception):
    """Root of every error a user can mend. Says what, what was seen, and what to do."""


class StudyError(BiglocalError):
    """study.toml names something that does not exist or cannot be."""


class DataError(BiglocalError):
    """A file or table breaks its contract; names file, column and row."""


class Inapplicable(BiglocalError):
    """A method cannot be used on this sample. Becomes a row with status `inapplicable`."""


class VerifyError(BiglocalError):
    """A result differs from the committed reference beyond the tolerance."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is measured.

    `at_least` turns a score into an indicator (1 where score >= at_least, in units of `scale`,
    so scale=100 gives percentage points). `codes_missing` are survey codes read as missing.
    `baseline`: whether its level and trend before treatment are looked at (outcomes of the area panel).
    `reference_effect`: the size of a published effect, in `unit`, that power and equivalence are held against.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    label: str
    table: Literal["area_panel", "survey", "residents"]
    column: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    family: str
    first_year: int
    last_year: int
    at_least: float | None = None
    scale: float = 1.0
    codes_missing: tuple[int, ...] = ()
    reference_effect: float | None = None
    baseline: bool = True


@dataclass(frozen=True, slots=True)
class Subgroup:
    """A dimension along which effects may differ.

    `of` says whose property it is: of the Big Local `area` (table programme), of the `lsoa` (table areas), of the
    `person` (tables survey and residents) or of the `member` (table residents). For area and lsoa a comparison LSOA
    takes the level of the treated LSOA it is matched to, so matched sets stay whole. `cuts` turns a number
    into levels: level i holds values from cuts[i-1] (exclusive) to cuts[i] (inclusive);
    `cuts_quantile` does the same with quantiles among the treated.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    label: str
    of: Literal["area", "lsoa", "person", "member"]
    column: str
    levels: tuple[str, ...]
    values: dict[str, tuple[str | int | bool, ...]] = field(default_factory=dict)
    cuts: tuple[float, ...] = ()
    cuts_quantile: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Which LSOAs stand in for the treated ones: the pool, then how it is matched.

    `pool_quantile`: the pool is the LSOAs above this national quantile of `pool_column`.
    `caliper`: in standard deviations of the propensity score's logit over the whole matching frame.
    `optional`: covariates used where the tier has them. `baseline`: outcomes of the area panel whose level and
    trend before treatment are matched on too. `level`: match LSOAs, or whole areas (a Big Local area to middle
    layer super output areas). `options`: further settings of the method, as its file documents them.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    label: str
    pool_column: str
    pool_quantile: float
    method: str
    covariates: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    ratio: int = 1
    caliper: float | None = None
    exact: tuple[str, ...] = ()
    level: Literal["lsoa", "area"] = "lsoa"
    baseline: tuple[str, ...] = ()
    options: dict[str, bool | int | float | str | tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimation:
    """How the report calls an estimator, and the settings it is used with, as its file documents them.

    `uses` names the estimator's file where the entry is another use of it under a name of its own.
    An option `dose` or `offset` names a column that the sample then carries (`sample.CARRIED`). `covariates` are
    columns of the outcome's own table or of `areas` that are adjusted for; categories become 0/1 columns.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    label: str
    uses: str = ""
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    covariates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Treatment:
    """When treatment starts. `year` is for the rule common_start; the other rules read a date of `programme`.

    A date in the first half of a year makes that year the first treated one, a later date the next:
    the first treated year is the first with at least half a year of exposure. `last_year`: later rows are left out,
    so that a start can be pretended on years before the true one.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    label: str
    rule: Literal["common_start", "announced", "plan_endorsed", "first_spend"]
    reason: str
    year: int | None = None
    last_year: int | None = None


@dataclass(frozen=True, slots=True)
class Respondents:
    """Which answers of the residents' survey an analysis rests on.

    `who`: everyone who answered in any of `waves`, in the first of them, or in every one. `missing`: rows without an
    answer `leave`, or those of `who` are kept in every wave with a missing outcome, for methods that deal with it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    label: str
    waves: tuple[int, ...]
    who: Literal["any_wave", "first_wave", "every_wave"]
    missing: Literal["leave", "keep"] = "leave"


@dataclass(frozen=True, slots=True)
class Exposure:
    """What members say of their area that may go with an outcome: the mean of `columns` of the table residents.

    `coding`: one unit of it is the way from the lowest to the highest answer (`range`), one answer up (`step`), a
    standard deviation among the rows (`standardised`), or agreeing, that is 4 or 5, against not (`agree`).
    `adjust`: columns of residents that are adjusted for, besides the wave.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    label: str
    columns: tuple[str, ...]
    coding: Literal["range", "step", "standardised", "agree"]
    reason: str
    adjust: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grid:
    """A block of analyses: the product of its lists."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    part: str
    estimators: tuple[str, ...]
    comparisons: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    subgroups: tuple[str, ...] = ("all",)
    treatments: tuple[str, ...] = ()
    inference: tuple[Inference, ...] = ("none",)
    respondents: tuple[str, ...] = ()
    exposures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """How samples are drawn and tested: one place for the choices that hold for every analysis."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    treated_share: float
    excluded_around: Literal["none", "msoa", "district", "border"]
    exclude_other_programmes: bool
    missing_covariates: Literal["drop", "refuse"]
    cluster: Literal["set", "own"]
    conf_level: float
    multiplicity: Literal["holm", "fdr_bh"]
    balance_threshold: float
    power: float
    draws_quick: int
    draws_full: int
    placebo_lists: int
    placebo_effect: float
    simulations: int
    recoveries: int
    simulation_effects: dict[str, float]
    power_simulations: int
    power_areas: tuple[int, ...]
    power_effects: tuple[float, ...]
    min_months: int


@dataclass(frozen=True, slots=True)
class Disclosure:
    """What may leave a run on persons: the rules of the laboratory.

    `min_cell`: persons behind a number, at least. `round_to`: the base to which counts of persons are rounded, 0 for
    none. `digits`: significant digits of means and shares. `min_df`: residual degrees of freedom of a regression, at
    least. A sum is dominated where its `dominance_n` largest contributions are more than the share `dominance_k` of
    it, or where all but the two largest are together less than the share `dominance_p` of the largest. Largest and
    smallest values never leave.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    min_cell: int
    round_to: int
    digits: int
    min_df: int
    dominance_n: int
    dominance_k: float
    dominance_p: float


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far `verify` lets a cell move: relative, absolute, and in standard errors."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    relative: float
    absolute: float
    std_errors: float


@dataclass(frozen=True, slots=True)
class Input:
    """A number that the cost-benefit analysis takes as given: its value, source, and where it varies its range."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    label: str
    value: float
    unit: str
    source: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to fill in what is not known: which effect, and inputs that differ from their value (`change`).

    `effect`: the `average` after the start, the effects `by_year` of the event study, or the `known` one of made data.
    `constant_prices`: false leaves each year's spending in pounds as they were paid.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    label: str
    reason: str
    effect: Literal["average", "by_year", "known"] = "average"
    constant_prices: bool = True
    change: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Equity:
    """Weights by income: each level's income over the national median, and where that comes from."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    subgroup: str
    income: dict[str, float]
    source: str


@dataclass(frozen=True, slots=True)
class CostBenefit:
    """What turns the effect on `outcome` into money; the first scenario is the main one. `deflator`: year -> level."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    outcome: str
    comparison: str
    draws: int
    deflator: dict[int, float]
    deflator_source: str
    inputs: dict[str, Input]
    scenarios: dict[str, Scenario]
    equity: Equity


@dataclass(frozen=True, slots=True)
class Choice:
    """An option of a dimension of the multiverse, and why it could have been chosen.

    `label` is '' where the study has one for the name. Covariates name `columns`; an exclusion leaves out LSOAs with
    one of `values` in its one column; a window has its years.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    reason: str
    label: str = ""
    columns: tuple[str, ...] = ()
    values: tuple[str | bool, ...] = ()
    first_year: int = 0
    last_year: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Combinations that are ruled out: those with any of the options named, in every dimension of `out`.

    `outcomes`: those it is for; none named is all.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    out: dict[str, tuple[str, ...]]
    reason: str
    outcomes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Multiverse:
    """What could have been chosen otherwise: by dimension, option -> choice (specifications.py).

    `draws`: permutations of who was treated. `bands`: into how many bands of deprivation places are put, within which
    and within regions they change hands.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    outcomes: tuple[str, ...]
    draws: int
    bands: int
    treatment: dict[str, Choice]
    comparison: dict[str, Choice]
    covariates: dict[str, Choice]
    estimator: dict[str, Choice]
    window: dict[str, Choice]
    weights: dict[str, Choice]
    definition: dict[str, Choice]
    exclusion: dict[str, Choice]
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Study:
    """The whole of study.toml, checked."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    title: str
    seed: int
    policy: Policy
    disclosure: Disclosure
    tolerance: Tolerance
    treatments: dict[str, Treatment]
    main_treatment: str
    outcomes: dict[str, Outcome]
    subgroups: dict[str, Subgroup]
    comparisons: dict[str, Comparison]
    estimators: dict[str, Estimation]
    analyses: tuple[Grid, ...]
    exhibits: tuple[str, ...]
    cost_benefit: CostBenefit | None = None
    respondents: dict[str, Respondents] = field(default_factory=dict)
    exposures: dict[str, Exposure] = field(default_factory=dict)
    multiverse: Multiverse | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """One cell of the report. `id` is readable and unique; the rest are names in study.toml."""

    id: str
    part: str
    outcome: str
    subgroup: str
    comparison: str
    estimator: str
    inference: str
    treatment: str
    respondents: str = ""
    exposure: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the study flow: who is left, in LSOAs and Big Local areas."""

    name: str
    treated: int
    control: int
    areas: int


@dataclass(frozen=True, slots=True)
class Match:
    """What matching says, and all it says: `weights` (n,) and `sets` (n,), aligned with the frame given.

    Treated rows have weight 1 if matched and 0 if not. `sets` holds the row position of the treated
    unit a row is matched to, or -1; methods without sets give -1 throughout. `score` (n,) is the
    propensity logit where one was estimated (for the overlap exhibit), else NaN.
    """

    weights: np.ndarray
    sets: np.ndarray
    score: np.ndarray


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows of one analysis under canonical names.

    `frame` has y (float, no missing), d (0/1, treated now), treated (0/1, ever), first_treated
    (float, NaN for never), unit, time (int), cluster, weight (float > 0; 0 allowed in balance samples),
    level (str, subgroup level, '' for all), set (the treated unit a row is matched to, -1 where there are no sets;
    optional) and, on a tier with a known truth, effect (float).
    `covariates` names further columns of the frame to adjust for. `reference_effect` is the outcome's, NaN for none.
    """

    frame: pd.DataFrame
    unit: str
    covariates: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    flow: tuple[Step, ...] = ()
    caution: str = ""
    reference_effect: float = float("nan")


@dataclass(frozen=True, slots=True)
class Term:
    """One number an estimator says. Missing parts are NaN; `inference` fills p-values and intervals.

    A joint test has no estimate: `statistic` is F, `df_num` the number of restrictions, `df` the
    denominator's degrees of freedom. `tested` is False for descriptive terms: no p-value is made for them.
    Where the outcome is one of persons, `n_persons` are the persons behind the term and `n_least` those in the
    smallest group that it describes or compares; estimate.py counts them, not the estimator.
    """

    name: str
    estimate: float
    std_error: float = float("nan")
    df: float = float("nan")
    period: int | None = None
    level: str = ""
    statistic: float = float("nan")
    p_value: float = float("nan")
    conf_low: float = float("nan")
    conf_high: float = float("nan")
    n_treated: int | None = None
    n_treated_clusters: int | None = None
    df_num: int | None = None
    tested: bool = True
    n_persons: int | None = None
    n_least: int | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """All that an estimator may say: terms, counts, and in `caution` where it stands outside its assumptions."""

    terms: tuple[Term, ...]
    n_obs: int
    n_units: int
    n_treated: int
    n_clusters: int
    caution: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """What a report says of the run it comes from, besides its rows.

    `banner` is SYNTHETIC, PLACEBO or '' and stands on every page. `lacks`: table or column -> what is
    missing and how to get it. `notes`: what was noticed of the data. `digests`: table -> sha256.
    `versions`: library -> version. `draws`: resampling draws. `files`: file that tables are made from -> sha256.
    """

    tier: str
    banner: str
    lacks: dict[str, str]
    notes: tuple[str, ...]
    digests: dict[str, str]
    versions: dict[str, str]
    draws: int = 0
    files: dict[str, str] = field(default_factory=dict)


class Estimator(Protocol):
    """A pure function from a sample to a fit."""

    def __call__(self, sample: Sample, **options: Any) -> Fit:
        """Estimate; raises `Inapplicable` with a reason where the sample is not of its kind."""
        ...


class Infer(Protocol):
    """Completes a fit: p-values and intervals."""

    def __call__(self, estimator: Estimator, sample: Sample, fit: Fit, rng: np.random.Generator) -> Fit:
        """The fit with its terms completed; raises `Inapplicable` as an estimator does."""
        ...
