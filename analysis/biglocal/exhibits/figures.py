"""Drawings: rows of results in, SVG, PDF and PNG out. A figure is a function of `Canvas`, named in `FIGURES`.

matplotlib draws the SVG once; Typst sets the other two from it, which costs a tenth of drawing them anew. Each mark
that stands for a number says so (`Canvas.tell`): the number in words appears under the pointer.

Colours are Okabe and Ito's blue and orange; marker shape, fill and line style differ too, so that a grey print reads
the same. Every figure carries the run's banner. The font is matplotlib's own, by file, so that another machine's
fonts change nothing.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from biglocal import specifications
from biglocal.exhibits.markup import string
from biglocal.exhibits.wording import FORMATS, decimals, interval, label, level_unit, number, order, p_phrase, percent
from biglocal.provenance import code
from biglocal.results import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from biglocal.model import Outcome, Study
    from biglocal.results import Row

BLUE, ORANGE, GREY, DARK = "#0072B2", "#D55E00", "#8c8c8c", "#222222"
TREATED: dict[str, Any] = {"color": BLUE, "marker": "o", "linestyle": "-"}
COMPARISON: dict[str, Any] = {"color": ORANGE, "marker": "s", "linestyle": "--", "markerfacecolor": "white"}
NEARER: dict[str, Any] = {"facecolor": "#c9c9c9", "linewidth": 0}
BEYOND: dict[str, Any] = NEARER | {"facecolor": BLUE}
REAL: dict[str, Any] = {"color": ORANGE, "linestyle": "--", "linewidth": 1.4}
ENDINGS = ("svg", "pdf", "png")
WIDTH = 6.3  # inches: the width of the text on A4
FAMILY, FONTS = "Big Local Sans", {400: "DejaVuSans.ttf", 700: "DejaVuSans-Bold.ttf"}
STYLE: dict[str, Any] = {
    "font.family": FAMILY,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "text.color": DARK,
    "axes.labelcolor": DARK,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "axes.unicode_minus": True,
    "svg.fonttype": "path",
    "figure.dpi": 100,
}


@dataclass(frozen=True, slots=True)
class Canvas:
    """What a drawing is given: rows with numbers in them, the study, and the words for the treated."""

    rows: tuple[Row, ...]
    study: Study
    treated: str
    told: list[Spot] = field(default_factory=list, repr=False, compare=False)

    def tell(self, ax: Axes, x: float, y: float, row: Row, *about: str, box: Box | None = None) -> None:
        """Let the mark at x, y (in the axes' units) say its row's number, after what it is `about`.

        `box`: the corners of a bar, where the mark is one.
        """
        self.say(ax, x, y, in_words(row, *about), box)

    def say(self, ax: Axes, x: float, y: float, text: str, box: Box | None = None) -> None:
        """As `tell`, in other words than those of a row."""
        if math.isfinite(x) and math.isfinite(y):
            self.told.append(Spot(ax, box or (x, y, x, y), text))


Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where in a figure a number stands, and the number in words."""

    ax: Axes
    box: Box
    text: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure as files."""

    svg: bytes
    pdf: bytes
    png: bytes


def draw(
    name: str, canvas: Canvas, banner: str, salt: str, words: tuple[str, str], before: Path | None = None
) -> Drawing:
    """Draw figure `name` of `FIGURES`. The same canvas gives the same bytes; settings stay as they were.

    `words` are the PDF's title and its alternative text. `before` is the file, without its ending, that an earlier
    run may have left: where its SVG says that it was drawn from the same things, it is taken as it is, and what was
    made of it. The caller vouches that nobody altered them.
    """
    key = _key(name, canvas, banner, salt, words)
    if before and (kept := _kept(before, key)):
        return kept
    with _style(salt):
        figure = FIGURES[name](canvas)
        if banner:
            figure.text(0.995, 0.004, banner, ha="right", va="bottom", fontsize=6.5, fontweight="bold", color="#7a1f00")
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = _bare(out.getvalue().decode()).rstrip().removesuffix("</svg>")
    svg = f"{text}{_spots(figure, canvas.told)}</svg>\n<!-- {key} -->\n".encode()
    return Drawing(svg, *_typeset(svg, *words))


def _spots(figure: Figure, told: Sequence[Spot]) -> str:
    """The marks that say their number, as shapes that cannot be seen."""
    out = []
    height = figure.get_figheight() * figure.dpi
    for spot in told:
        (x0, y0), (x1, y1) = spot.ax.transData.transform([spot.box[:2], spot.box[2:]])
        left, right = (72 / figure.dpi * x for x in sorted((x0, x1)))
        top, bottom = (72 / figure.dpi * (height - y) for y in sorted((y0, y1), reverse=True))
        shape = (
            f'circle cx="{left:.1f}" cy="{top:.1f}" r="5"'
            if spot.box[:2] == spot.box[2:]
            else f'rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        )
        out.append(f"<{shape}><title>{escape(spot.text)}</title></{shape.split()[0]}>\n")
    return f'<g class="told" fill="none" pointer-events="all">\n{"".join(out)}</g>\n' if out else ""


def _typeset(svg: bytes, title: str, alt: str) -> tuple[bytes, bytes]:
    """The SVG as a tagged PDF, without a date, and as a PNG."""
    import typst

    page = f'#set document(title: {string(title)}, date: none)\n#set text(lang: "en", region: "gb")\n'
    page += f'#set page(width: auto, height: auto, margin: 0pt)\n#image("figure.svg", alt: {string(alt)})'
    files: Any = {"main.typ": page.encode(), "figure.svg": svg}  # folder in memory: typst's types do not know of it
    fonts = typst.Fonts(include_system_fonts=False)
    pdf = typst.compile(files, format="pdf", pdf_standards=["ua-1"], timestamp=0, font_paths=fonts)
    return pdf, typst.compile(files, format="png", ppi=200, font_paths=fonts)


def _key(name: str, canvas: Canvas, banner: str, salt: str, words: tuple[str, str]) -> str:
    """Digest of all that a drawing is made from: rows, study, words, this code and the libraries."""
    shown = [replace(r, digest="") for r in canvas.rows]  # the same numbers by other code are the same drawing
    said = (name, repr(shown), repr(canvas.study), canvas.treated, banner, salt, *words)
    return f"drawn from {digest(*said, *_made_by())}"


@cache
def _made_by() -> tuple[str, ...]:
    return version("matplotlib"), version("typst"), code("exhibits/figures.py")


def _kept(before: Path, key: str) -> Drawing | None:
    paths = [before.with_suffix(f".{e}") for e in ENDINGS]
    if not all(p.is_file() for p in paths):
        return None
    drawing = Drawing(*(p.read_bytes() for p in paths))
    return drawing if drawing.svg.endswith(f"<!-- {key} -->\n".encode()) else None


def _bare(svg: str) -> str:
    """Without the names that nothing refers to, and without what matplotlib says of itself."""
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<style[^>]*>.*?</style>", "", svg, count=1, flags=re.DOTALL)
    return svg.replace("<svg ", '<svg style="stroke-linejoin:round;stroke-linecap:butt" ', 1)


def font(weight: int) -> Path:
    """The file of the figures' font in one of its weights."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", FONTS[weight])


@contextmanager
def _style(salt: str) -> Iterator[None]:
    import matplotlib
    from matplotlib import font_manager as fonts

    for weight in FONTS:
        entry = fonts.FontEntry(fname=str(font(weight)), name=FAMILY, weight=weight)
        if entry not in fonts.fontManager.ttflist:
            fonts.fontManager.ttflist.append(entry)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's own matplotlibrc changes nothing
        options: Any = STYLE | {"svg.hashsalt": salt}
        matplotlib.rcParams.update(options)
        yield


def _panels(count: int, across: int, height: float, top: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of small panels, `height` inches each, with `top` inches for the legend."""
    from matplotlib.figure import Figure

    across = min(across, count)
    down = math.ceil(count / across)
    total = down * height + top + 0.25
    figure = Figure(figsize=(WIDTH, total))
    axes = figure.subplots(down, across, squeeze=False, **options).ravel()
    figure.subplots_adjust(
        left=0.09, right=0.985, top=1 - (top + 0.24) / total, bottom=0.58 / total, wspace=0.42, hspace=0.55
    )
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, list(axes[:count])


def _outcomes(canvas: Canvas) -> list[Outcome]:
    seen = {row.outcome for row in canvas.rows}
    return [o for name, o in canvas.study.outcomes.items() if name in seen]


def _known(row: Row) -> bool:
    return row.estimate is not None


def _value(x: float | None) -> float:
    return float("nan") if x is None else x


def _errors(rows: Sequence[Row]) -> list[list[float]]:
    """Lengths of the error bars below and above; none where there is no interval."""
    ends = [(r.estimate, r.conf_low, r.conf_high) for r in rows]
    low = [0.0 if e is None or a is None else e - a for e, a, _ in ends]
    high = [0.0 if e is None or b is None else b - e for e, _, b in ends]
    return [low, high]


def _start(study: Study, rows: Sequence[Row]) -> float | None:
    years = {study.treatments[r.treatment].year for r in rows if r.treatment in study.treatments}
    year = years.pop() if len(years) == 1 else None
    return None if year is None else year - 0.5


def flow(canvas: Canvas) -> Figure:
    """Boxes: who is left after each step, treated and comparison, with the number that left."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    steps = sorted(canvas.rows, key=lambda r: r.period or 0)
    pitch = 0.62
    height = pitch * len(steps) + 0.45
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, height))
    ax.axis("off")
    columns = ((2.42, 1.8, canvas.treated, BLUE), (4.42, 1.8, "comparison", ORANGE))
    for x, width, head, colour in columns:
        ax.text(
            x + width / 2, height - 0.14, head.capitalize(), ha="center", va="center", fontweight="bold", color=colour
        )
    before: list[int | None] = [None, None]
    for i, row in enumerate(steps):
        y = height - 0.3 - pitch * (i + 0.5)
        ax.text(0.06, y, _wrap(label(canvas.study, "term", row.term), 36), va="center", ha="left", fontsize=7.5)
        control = None if row.n_units is None or row.n_treated is None else row.n_units - row.n_treated
        for j, (count, (x, width, _, colour)) in enumerate(zip((row.n_treated, control), columns, strict=True)):
            box = FancyBboxPatch((x, y - 0.19), width, 0.38, boxstyle="round,pad=0,rounding_size=0.04")
            box.set(facecolor="white", edgecolor=colour, linewidth=1, linestyle="-" if j == 0 else "--")
            ax.add_patch(box)
            text = "not counted" if count is None else f"{number(count, 0)} LSOAs"
            if j == 0 and row.n_clusters:
                text += f"\nin {number(row.n_clusters, 0)} areas"
            ax.text(x + width / 2, y, text, ha="center", va="center", fontsize=7.5, linespacing=1.25)
            about = f"{label(canvas.study, 'term', row.term)}, {columns[j][2]}"
            canvas.say(ax, x, y, f"{about}: {' '.join(text.split())}", box=(x, y - 0.19, x + width, y + 0.19))
            last = before[j]
            if i:
                ax.annotate(
                    "", (x + width / 2, y + 0.19), (x + width / 2, y + pitch - 0.19),
                    arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
                )  # fmt: skip
            if last is not None and count is not None and last != count:
                ax.text(
                    x + width / 2 + 0.07,
                    y + pitch / 2,
                    number(count - last, 0),
                    fontsize=6.5,
                    va="center",
                    color="#555555",
                )
            before[j] = count
    return figure


def love(canvas: Canvas) -> Figure:
    """Standardised mean differences and variance ratios, before and after matching, by covariate."""
    from matplotlib.figure import Figure

    of: dict[str, dict[str, float]] = {}
    named: dict[tuple[str, str], Row] = {}
    for row in canvas.rows:
        of.setdefault(row.outcome, {})[row.term] = _value(row.estimate)
        named[row.outcome, row.term] = row
    covariates = sorted(of, key=lambda c: (abs(of[c].get("smd_unmatched", 0.0)), order(canvas.study, "outcome", c)))
    height = 0.21 * len(covariates) + 1.05
    figure = Figure(figsize=(WIDTH, height))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    figure.subplots_adjust(left=0.385, right=0.975, top=1 - 0.33 / height, bottom=0.58 / height, wspace=0.09)
    at = range(len(covariates))
    hollow = {"color": ORANGE, "marker": "s", "markerfacecolor": "white", "linestyle": "none", "markersize": 4.5}
    full = {"color": BLUE, "marker": "o", "linestyle": "none", "markersize": 4.5}
    for ax, stem in ((left, "smd"), (right, "variance_ratio")):
        for style, when, name in ((hollow, "unmatched", "before matching"), (full, "matched", "after matching")):
            ax.plot([of[c].get(f"{stem}_{when}", float("nan")) for c in covariates], at, label=name, **style)
            for y, c in enumerate(covariates):
                if (told := named.get((c, f"{stem}_{when}"))) and _known(told):
                    what = "standardised mean difference" if stem == "smd" else "variance ratio"
                    canvas.tell(ax, _value(told.estimate), y, told, label(canvas.study, "outcome", c), what, name)
        ax.grid(axis="y", color="#e6e6e6", linewidth=0.5)
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
    threshold = canvas.study.policy.balance_threshold
    left.axvline(0, color=GREY, linewidth=0.7)
    for x in (-threshold, threshold):
        left.axvline(x, color=DARK, linewidth=0.8, linestyle=":")
    left.set(yticks=list(at), ylim=(-0.6, len(covariates) - 0.4), xlabel="Standardised mean difference")
    left.set_yticklabels(
        [_wrap(label(canvas.study, "outcome", c), 46) for c in covariates], linespacing=1.0, fontsize=6.3
    )
    right.set_xscale("log", base=2)
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    right.axvline(1, color=GREY, linewidth=0.7)
    right.xaxis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4]))
    right.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ratios = [v for c in covariates for k, v in of[c].items() if k.startswith("variance_ratio") and v > 0]
    right.set(xlabel="Variance ratio, log scale", xlim=(min([0.4, *ratios]) * 0.88, max([2.5, *ratios]) * 1.12))
    figure.legend(
        *left.get_legend_handles_labels(), loc="upper center", ncols=2, bbox_to_anchor=(0.55, 1.0), borderaxespad=0.2
    )
    return figure


def overlap(canvas: Canvas) -> Figure:
    """Distribution of the propensity score's logit in the three groups."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 2.6))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.085, right=0.985, top=0.89, bottom=0.21)
    styles = (
        ("control_unmatched", "comparison, before matching", GREY, ":"),
        ("control_matched", "comparison, after matching", ORANGE, "--"),
        ("treated", canvas.treated, BLUE, "-"),
    )
    for term, name, colour, line in styles:
        bins = sorted((r for r in canvas.rows if r.term == term and _known(r)), key=lambda r: r.period or 0)
        if not bins:
            continue
        edges = [_value(r.conf_low) for r in bins] + [_value(bins[-1].conf_high)]
        ax.stairs(
            [100 * _value(r.estimate) for r in bins], edges, label=name, color=colour, linestyle=line, linewidth=1.3
        )
        for r, (a, b) in zip(bins, itertools.pairwise(edges), strict=True):
            share = 100 * _value(r.estimate)
            canvas.say(ax, (a + b) / 2, share, f"{name}, logit {interval(a, b, 2)}: {number(share, 1)}%")
    ax.set(xlabel="Propensity score (logit)", ylabel="Share of the group, %")
    ax.set_ylim(bottom=0)
    figure.legend(loc="upper center", ncols=3, borderaxespad=0.3)
    return figure


def p_values(canvas: Canvas) -> Figure:
    """Distribution of p-values over placebo lists; level where the test is right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 2.5))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.085, right=0.985, top=0.95, bottom=0.22)
    bins = sorted((r for r in canvas.rows if r.term == "p_value" and _known(r)), key=lambda r: r.period or 0)
    edges = [_value(r.conf_low) for r in bins] + [_value(bins[-1].conf_high)]
    shares = [100 * _value(r.estimate) for r in bins]
    ax.bar(
        edges[:-1],
        shares,
        width=[b - a for a, b in itertools.pairwise(edges)],
        align="edge",
        color=BLUE,
        edgecolor="white",
    )
    for share, (a, b) in zip(shares, itertools.pairwise(edges), strict=True):
        text = f"p from {interval(a, b, 2)}: {number(share, 1)}% of lists"
        canvas.say(ax, a, 0, text, box=(a, 0, b, share))
    ax.axhline(100 / len(bins), color=DARK, linewidth=0.9, linestyle="--")
    ax.text(0.995, 100 / len(bins), "no effect, right test", ha="right", va="bottom", fontsize=7, color=DARK)
    ax.set(xlabel="p-value", ylabel="Share of placebo lists, %", xlim=(0, 1))
    return figure


def randomisation(canvas: Canvas) -> Figure:
    """The statistics of treatments dealt anew as bars, the real one as a line, one panel an outcome."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    chosen = _outcomes(canvas)
    figure, axes = _panels(len(chosen), 3, 1.4, 0.28, sharex=True, sharey=True)
    for ax, outcome in zip(axes, chosen, strict=True):
        mine = [r for r in canvas.rows if r.outcome == outcome.name and _known(r)]
        bins: dict[tuple[float, float], dict[str, float]] = {}
        for r in mine:
            if r.term.startswith("drawn_"):
                bins.setdefault((_value(r.conf_low), _value(r.conf_high)), {})[r.term] = 100 * _value(r.estimate)
        for (low, high), share in bins.items():
            nearer, beyond = share.get("drawn_nearer", 0.0), share.get("drawn_beyond", 0.0)
            text = f"{number(nearer + beyond, 1)}% of draws, {number(beyond, 1)}% as far out"
            about = f"{outcome.label}, t from {interval(low, high, 2)}: {text}"
            canvas.say(ax, low, 0, about, box=(low, 0, high, nearer + beyond))
        edges = sorted({e for edge in bins for e in edge})
        parts = [bins.get(edge, {}) for edge in itertools.pairwise(edges)]
        inner = [share.get("drawn_nearer", 0.0) for share in parts]
        ax.stairs(inner, edges, fill=True, **NEARER)
        ax.stairs([sum(share.values()) for share in parts], edges, baseline=inner, fill=True, **BEYOND)
        draws = sum(_value(r.estimate) for r in mine if r.term == "draws")
        beyond = sum(share.get("drawn_beyond", 0.0) for share in bins.values()) / 100
        for r in (r for r in mine if r.statistic is not None and r.p_value is not None):
            test = f"{number(beyond * draws, 0)} of {number(draws, 0)} as far out; {p_phrase(_value(r.p_value))}"
            ax.axvline(_value(r.statistic), **REAL)
            ax.text(0.5, 1.025, test, transform=ax.transAxes, ha="center", va="bottom", fontsize=6.5)
            about = f"{outcome.label}, treatment as it was: t {number(_value(r.statistic), 2)}; {test}"
            canvas.say(ax, _value(r.statistic), max(map(sum, (s.values() for s in bins.values())), default=0.0), about)
        ax.set_title(outcome.label, pad=11)
        ax.tick_params(labelbottom=True, labelleft=True)
        ax.locator_params(axis="both", nbins=6, integer=True)
    for ax in axes[::3]:
        ax.set_ylabel("Share of draws, %")
    for ax in axes[-3:]:
        ax.set_xlabel("t")
    figure.subplots_adjust(hspace=0.8, wspace=0.22)
    figure.legend(
        handles=[
            Patch(label="drawn, nearer to nought", **NEARER), Patch(label="drawn, as far out or farther", **BEYOND),
            Line2D([], [], label="treatment as it was", **REAL),
        ],
        loc="upper center", ncols=3, borderaxespad=0.3,
    )  # fmt: skip
    return figure


def trends(canvas: Canvas) -> Figure:
    """Weighted means by year of the treated and of their matched comparison, one panel an outcome."""
    chosen = _outcomes(canvas)
    figure, axes = _panels(len(chosen), 3, 1.62, 0.28)
    for ax, outcome in zip(axes, chosen, strict=True):
        mine = [r for r in canvas.rows if r.outcome == outcome.name and _known(r)]
        for term, style, shift in (("control", COMPARISON, 0.07), ("treated", TREATED, -0.07)):
            rows = sorted((r for r in mine if r.term == term), key=lambda r: r.period or 0)
            name = canvas.treated if term == "treated" else "matched comparison"
            ax.errorbar(
                [(r.period or 0) + shift for r in rows], [_value(r.estimate) for r in rows], yerr=_errors(rows),
                label=name, elinewidth=0.7, capsize=0, linewidth=1.0, **dict(style.items()),
            )  # fmt: skip
            for r in rows:
                canvas.tell(ax, (r.period or 0) + shift, _value(r.estimate), r, outcome.label, str(r.period), name)
        _timeline(ax, outcome, [r.period or 0 for r in mine], _start(canvas.study, mine))
        ax.set_ylabel(level_unit(outcome.unit))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=2, borderaxespad=0.3)
    return figure


def event_study(canvas: Canvas) -> Figure:
    """Effect by year since start, one panel an outcome; the title tests the years before."""
    chosen = _outcomes(canvas)
    figure, axes = _panels(len(chosen), 3, 1.75, 0.12)
    for ax, outcome in zip(axes, chosen, strict=True):
        mine = [r for r in canvas.rows if r.outcome == outcome.name]
        rows = sorted((r for r in mine if r.term == "event_time" and _known(r)), key=lambda r: r.period or 0)
        ax.axhline(0, color=GREY, linewidth=0.7)
        base = [r for r in rows if r.std_error is None and r.conf_low is None]
        said = [r for r in rows if r not in base]
        ax.errorbar(
            [r.period or 0 for r in said], [_value(r.estimate) for r in said], yerr=_errors(said),
            color=BLUE, marker="o", linestyle="none", elinewidth=0.9,
        )  # fmt: skip
        ax.plot(
            [r.period or 0 for r in base], [_value(r.estimate) for r in base],
            color=DARK, marker="s", markerfacecolor="white", linestyle="none",
        )  # fmt: skip
        for r in rows:
            when = "base year" if r in base else f"{number(r.period or 0, 0)} years since start"
            canvas.tell(ax, r.period or 0, _value(r.estimate), r, outcome.label, when)
        leads = [r.p_value for r in mine if r.term == "leads" and r.p_value is not None]
        test = f"years before: {p_phrase(leads[0])}" if leads else "years before: not tested"
        ax.set_title(outcome.label, pad=11)
        ax.text(0.5, 1.025, test, transform=ax.transAxes, ha="center", va="bottom", fontsize=6.5)
        ax.axvline(-0.5, color=DARK, linewidth=0.8, linestyle=":")
        ax.set_xticks(sorted({r.period or 0 for r in rows}))
        ax.xaxis.set_major_formatter(lambda v, _: number(v, 0))
        ax.tick_params(axis="x", labelsize=6.2)
        ax.locator_params(axis="y", nbins=5)
        ax.set(ylabel=outcome.unit, xlabel="Years since start")
    figure.subplots_adjust(hspace=0.85)
    return figure


def forest(canvas: Canvas) -> Figure:
    """Point and interval for each outcome; outcomes share an axis only where they share a unit."""
    from matplotlib.figure import Figure

    rows = {r.outcome: r for r in canvas.rows if _known(r) and r.conf_low is not None}
    chosen = [o for name, o in canvas.study.outcomes.items() if name in rows]
    units: dict[tuple[str, str], list[Outcome]] = {}
    for o in chosen:
        units.setdefault((o.unit, o.better), []).append(o)
    lines = [len(os) for os in units.values()]
    gap = 0.52
    height = 0.26 * sum(lines) + gap * len(lines) + 0.3
    figure = Figure(figsize=(WIDTH, height))
    top = height - 0.08
    for (unit, better), os in units.items():
        tall = 0.26 * len(os)
        ax = figure.add_axes((0.25, (top - tall) / height, 0.46, tall / height))
        mine = [rows[o.name] for o in os]
        at = list(range(len(os)))[::-1]
        ax.axvline(0, color=GREY, linewidth=0.7)
        ax.errorbar(
            [_value(r.estimate) for r in mine],
            at,
            xerr=_errors(mine),
            color=BLUE,
            marker="o",
            linestyle="none",
            markersize=5,
        )
        limit = 1.08 * max(max(abs(_value(r.conf_low)), abs(_value(r.conf_high))) for r in mine)
        ax.set(yticks=at, ylim=(-0.6, len(os) - 0.4), xlim=(-limit, limit))
        ax.set_yticklabels([o.label for o in os], fontsize=7.5)
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=5, symmetric=True)
        ax.set_xlabel(f"{unit}; {better} is better", labelpad=1.5)
        for y, row in zip(at, mine, strict=True):
            canvas.tell(ax, _value(row.estimate), y, row, canvas.study.outcomes[row.outcome].label)
            ax.text(1.02, y, _said(row), transform=ax.get_yaxis_transform(), va="center", fontsize=7)
        top -= tall + gap
    return figure


def subgroup_forest(canvas: Canvas) -> Figure:
    """Effects by level of each subgroup, an outcome a column, with the test of the difference beside its name."""
    from matplotlib.figure import Figure

    study = canvas.study
    effects = ("att", "change", "association")
    periods = {r.period for r in canvas.rows if r.term in effects and r.conf_low is not None}
    chosen = [
        (o, p) for o in _outcomes(canvas) for p in sorted(periods, key=lambda p: p or 0)
    ]  # a wave is a column of its own
    seen = {(r.subgroup, r.level) for r in canvas.rows if r.level}
    lines: list[tuple[str, str]] = []
    for name, subgroup in study.subgroups.items():
        levels = [level for level in subgroup.levels if (name, level) in seen]
        if levels:
            lines += [(name, ""), *((name, level) for level in levels)]
    height = 0.19 * len(lines) + 1.1
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(1, len(chosen), squeeze=False, sharey=True).ravel()
    figure.subplots_adjust(left=0.185, right=0.985, top=1 - 0.3 / height, bottom=0.75 / height, wspace=0.08)
    for column, (ax, (outcome, period)) in enumerate(zip(axes, chosen, strict=True)):
        mine = [r for r in canvas.rows if r.outcome == outcome.name and r.period == period]
        of = {(r.subgroup, r.level): r for r in mine if r.term in effects and _known(r)}
        test = {r.subgroup: r for r in mine if r.term == "difference"}
        ax.axvline(0, color=GREY, linewidth=0.7)
        reach = max((abs(v) for r in of.values() for v in (r.conf_low, r.conf_high) if v is not None), default=1.0)
        ax.set_xlim(-1.08 * reach, 1.45 * reach)
        for i, (name, level) in enumerate(lines):
            y = -i
            if not level:
                if i:
                    ax.axhline(y + 0.5, color="#d9d9d9", linewidth=0.5)
                p = test[name].p_value if name in test else None
                if p is not None:
                    ax.text(
                        0.985, y, f"difference: {p_phrase(p)}", fontsize=6.5, style="normal", va="center", ha="right",
                        transform=ax.get_yaxis_transform(),
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                    )  # fmt: skip
                continue
            row = of.get((name, level))
            if row is None:
                continue
            ax.errorbar(
                [_value(row.estimate)], [y], xerr=_errors([row]), color=BLUE, marker="o", linestyle="none", markersize=4
            )
            when = "" if period is None else str(period)
            canvas.tell(ax, _value(row.estimate), y, row, outcome.label, label(study, "subgroup", name), level, when)
            behind = row.n_treated_clusters if row.n_treated_clusters is not None else row.n_treated
            if behind is not None:
                ax.text(
                    0.985, y, number(behind, 0), fontsize=6.2, va="center", ha="right", color="#555555",
                    transform=ax.get_yaxis_transform(),
                )  # fmt: skip
        ax.set_title(outcome.label if period is None else f"{outcome.label}, {period}")
        ax.set_xlabel(f"{outcome.unit};\n{outcome.better} is better")
        ax.tick_params(axis="y", length=0)
        if column == 0:
            ax.set_yticks([-i for i in range(len(lines))])
            texts = [label(study, "subgroup", n) if not level else f"{level}" for n, level in lines]
            for tick, (_, level) in zip(ax.set_yticklabels(texts), lines, strict=True):
                tick.set_fontweight("normal" if level else "bold")
    axes[0].set_ylim(-len(lines) + 0.4, 0.6)
    return figure


def trajectories(canvas: Canvas) -> Figure:
    """Change since the first wave, by wave: a panel for all and one for each subgroup, a line a level."""
    groups = sorted({r.subgroup for r in canvas.rows}, key=lambda g: order(canvas.study, "subgroup", g))
    waves = sorted({r.period for r in canvas.rows if r.period is not None})
    styles: tuple[dict[str, Any], ...] = (TREATED, COMPARISON, {"color": DARK, "marker": "^", "linestyle": ":"})
    figure, axes = _panels(len(groups), 3, 1.75, 0.0, sharey=True)
    step = 0.012 * (waves[-1] - waves[0] or 1)
    for ax, group in zip(axes, groups, strict=True):
        mine = [r for r in canvas.rows if r.subgroup == group and r.term == "change" and _known(r)]
        levels = sorted({r.level for r in mine}, key=lambda v: order(canvas.study, "level", v))
        ax.axhline(0, color=GREY, linewidth=0.7)
        for i, level in enumerate(levels):
            rows = sorted((r for r in mine if r.level == level), key=lambda r: r.period or 0)
            at = [(r.period or 0) + step * (2 * i - len(levels) + 1) for r in rows]
            ax.errorbar(
                at, [_value(r.estimate) for r in rows], yerr=_errors(rows), label=level, capsize=0,
                **styles[i % len(styles)],
            )  # fmt: skip
            for x, r in zip(at, rows, strict=True):
                canvas.tell(ax, x, _value(r.estimate), r, level or "All", str(r.period))
        ax.set_xticks(waves)
        ax.set_title("All" if group == "all" else label(canvas.study, "subgroup", group))
        if len(levels) > 1:
            ax.legend(loc="lower left", fontsize=6.2, handlelength=2.4, borderaxespad=0.1, labelspacing=0.25)
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low - 0.45 * (high - low), high)  # room for the legends
    for ax in axes[::3]:
        ax.set_ylabel(_outcomes(canvas)[0].unit)
    return figure


def participation(canvas: Canvas) -> Figure:
    """Bars a wave: how many were approached, answered, answered in the first wave too, and in every wave so far."""
    from matplotlib.figure import Figure

    of = {(r.period, r.term): int(_value(r.estimate)) for r in canvas.rows if _known(r)}
    waves = sorted({p for p, _ in of if p is not None})
    kinds: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("approached", "approached", {"facecolor": "white", "edgecolor": GREY}),
        ("answered", "answered", {"facecolor": "#9ecae1", "edgecolor": BLUE}),
        ("answered_first", "of these, answered in the first wave too", {"facecolor": BLUE, "edgecolor": BLUE}),
        ("answered_all", "of these, answered in every wave so far", {"facecolor": DARK, "edgecolor": DARK}),
    )
    height = 0.95 * len(waves) + 0.75
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.add_axes((0.08, 0.42 / height, 0.86, 1 - 1.0 / height))
    for i, wave in enumerate(waves):
        for j, (term, name, style) in enumerate(kinds):
            count = of.get((wave, term), 0)
            y = -i - 0.2 * j
            ax.barh(y, count, height=0.17, label=name if i == 0 else None, linewidth=0.8, **style)
            ax.text(count, y, f" {number(count, 0)}", va="center", fontsize=6.8)
            canvas.say(ax, 0, y, f"{wave}, {name}: {number(count, 0)}", box=(0, y - 0.085, count, y + 0.085))
    ax.set_yticks([-i - 0.3 for i in range(len(waves))])
    ax.set_yticklabels([str(w) for w in waves])
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(lambda v, _: number(v, 0))
    ax.set_xlabel("Members of partnerships", loc="left")
    ax.margins(x=0.08)
    figure.legend(loc="upper left", ncols=2, bbox_to_anchor=(0.07, 1.0), borderaxespad=0.2)
    return figure


def design_forest(canvas: Canvas) -> Figure:
    """The same effect under several designs (comparisons, estimators, dates): a line a design, an outcome a column."""
    from matplotlib.figure import Figure

    study = canvas.study
    chosen = _outcomes(canvas)
    dimensions = ("exposure", "respondents", "comparison", "estimator", "treatment")
    varying = [d for d in dimensions if len({getattr(r, d) for r in canvas.rows}) > 1] or ["comparison"]

    def design(row: Row) -> tuple[str, ...]:
        return tuple(getattr(row, d) for d in varying)

    periods = sorted({r.period for r in canvas.rows}, key=lambda p: p or 0)
    columns = [(o, p) for o in chosen for p in periods]  # a wave is a column of its own
    lines = sorted(
        {design(r) for r in canvas.rows}, key=lambda k: [order(study, d, v) for d, v in zip(varying, k, strict=True)]
    )
    words = ["\n".join(_wrap(label(study, d, v), 41) for d, v in zip(varying, k, strict=True)) for k in lines]
    tall = [0.13 * (1 + w.count("\n")) + 0.1 for w in words]
    height = sum(tall) + 1.03
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(1, len(columns), squeeze=False, sharey=True).ravel()
    figure.subplots_adjust(left=0.37, right=0.985, top=1 - 0.25 / height, bottom=0.7 / height, wspace=0.08)
    at = [-(sum(tall[:i]) + tall[i] / 2) for i in range(len(lines))]
    for ax, (outcome, period) in zip(axes, columns, strict=True):
        mine = (r for r in canvas.rows if r.outcome == outcome.name and r.period == period)
        of = {design(r): r for r in mine if _known(r)}
        ax.axvline(0, color=GREY, linewidth=0.7)
        for i, (key, y) in enumerate(zip(lines, at, strict=True)):
            if key in of:
                style = (
                    {"color": BLUE, "marker": "o"}
                    if i == 0
                    else {"color": DARK, "marker": "s", "markerfacecolor": "white"}
                )
                errors = _errors([of[key]])
                ax.errorbar([_value(of[key].estimate)], [y], xerr=errors, linestyle="none", markersize=4, **style)
                about = [label(study, d, v) for d, v in zip(varying, key, strict=True)]
                when = "" if period is None else str(period)
                canvas.tell(ax, _value(of[key].estimate), y, of[key], outcome.label, *about, when)
        ax.set_title(outcome.label if period is None else f"{outcome.label}, {period}")
        ax.set_xlabel(f"{outcome.unit};\n{outcome.better} is better")
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(at)
    axes[0].set_yticklabels(words, fontsize=7)
    axes[0].set_ylim(-sum(tall), 0)
    return figure


def specification_curve(canvas: Canvas) -> Figure:
    """Every estimate of an effect by size, an outcome a column; below each, the choices that made it.

    Simonsohn, Simmons and Nelson (2020), figure 2.
    """
    from matplotlib.figure import Figure

    study = canvas.study
    chosen = _outcomes(canvas)
    dimensions = ("treatment", "comparison", "estimator")
    lines: list[tuple[str, str]] = []
    for d in dimensions:
        seen = {getattr(r, d) for r in canvas.rows}
        lines += [(d, v) for v in sorted(seen, key=lambda v: order(study, d, v))] if len(seen) > 1 else []
    words = [_wrap(label(study, d, v), 46) for d, v in lines]
    gaps = [0.1 * (i > 0 and d != lines[i - 1][0]) for i, (d, _) in enumerate(lines)]
    tall = [0.115 * (1 + w.count("\n")) + 0.05 + g for w, g in zip(words, gaps, strict=True)]
    curve, below = 1.9, sum(tall)
    height = curve + below + 0.98
    figure = Figure(figsize=(WIDTH, height))
    shape = {"height_ratios": [curve, below], "hspace": 0.16 / (curve + below), "wspace": 0.34}
    axes = figure.subplots(2, len(chosen), squeeze=False, sharex="col", gridspec_kw=shape)
    figure.subplots_adjust(left=0.4, right=0.985, top=1 - 0.36 / height, bottom=0.54 / height)
    at = [-(sum(tall[:i]) + (t + g) / 2) for i, (t, g) in enumerate(zip(tall, gaps, strict=True))]
    for j, outcome in enumerate(chosen):
        upper, lower = axes[0, j], axes[1, j]
        of = {
            tuple(getattr(r, d) for d in dimensions): r
            for r in canvas.rows
            if r.outcome == outcome.name and _known(r) and r.part != "effects"
        }
        main = [r for r in canvas.rows if r.outcome == outcome.name and r.part == "effects" and _known(r)]
        of |= {tuple(getattr(r, d) for d in dimensions): r for r in main}
        rows = sorted(of.values(), key=lambda r: (_value(r.estimate), r.analysis))
        upper.axhline(0, color=GREY, linewidth=0.7)
        full: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 5, "elinewidth": 1.6}
        hollow = {"color": DARK, "marker": "s", "markersize": 2.8, "markerfacecolor": "white", "elinewidth": 0.7}
        grid = [
            (x, y, getattr(r, d) == v, r in main)
            for x, r in enumerate(rows)
            for y, (d, v) in zip(at, lines, strict=True)
        ]
        lower.plot(*_apart((x, y) for x, y, on, _ in grid if not on), "o", color="#cfcfcf", markersize=1.2)
        for style, own in ((hollow, False), (full, True)):
            mine = [(x, r) for x, r in enumerate(rows) if (r in main) == own]
            values = [_value(r.estimate) for _, r in mine]
            upper.errorbar([x for x, _ in mine], values, yerr=_errors([r for _, r in mine]), linestyle="none", **style)
            dots = _apart((x, y) for x, y, on, first in grid if on and first == own)
            lower.plot(*dots, "o", color=style["color"], markersize=3.4)
        for x, row in enumerate(rows):
            about = [label(study, d, getattr(row, d)) for d in dimensions]
            canvas.tell(upper, x, _value(row.estimate), row, outcome.label, *about)
        upper.set_title(outcome.label, pad=11)
        upper.text(0.5, 1.015, outcome.unit, transform=upper.transAxes, ha="center", va="bottom", fontsize=6.5)
        upper.locator_params(axis="y", nbins=5)
        upper.tick_params(axis="x", length=0, labelbottom=False)
        lower.tick_params(axis="both", length=0, labelbottom=False)
        lower.spines[["left", "bottom"]].set_visible(False)
        lower.set_xlabel(f"estimates by their size;\n{outcome.better} is better")
        lower.set_ylim(-below, 0)
        lower.set_yticks(at, words if j == 0 else [""] * len(lines), fontsize=6.3, linespacing=0.95)
    return figure


def _by_outcome(canvas: Canvas) -> list[tuple[Outcome, list[Row]]]:
    return [(o, [r for r in canvas.rows if r.outcome == o.name and _known(r)]) for o in _outcomes(canvas)]


def multiverse(canvas: Canvas) -> Figure:
    """All specifications by size, over the curves of other lists; below, a grid of the options behind them.

    Simonsohn, Simmons and Nelson (2020), figure 2. Neighbours on the curve share a column of the grid and of the band,
    so that thousands of them take no more room in the file than the eye has.
    """
    import numpy as np
    from matplotlib.figure import Figure

    study, columns, pitch = canvas.study, 240, 0.125
    panels = _by_outcome(canvas)
    lines = [
        (d, o)
        for d in specifications.DIMENSIONS
        for o in getattr(study.multiverse, d)
        if any(r.level.split(" | ")[specifications.DIMENSIONS.index(d)] == o for r in canvas.rows if " | " in r.level)
    ]
    curve, below = 2.1, pitch * len(lines)
    height = curve + below + 1.15
    figure = Figure(figsize=(WIDTH, height))
    shape = {
        "height_ratios": [curve, below],
        "hspace": 0.16 / (curve + below),
        "wspace": 0.24 if len(panels) < 3 else 0.42,
    }
    axes = figure.subplots(2, len(panels), squeeze=False, sharex="col", gridspec_kw=shape)
    figure.subplots_adjust(left=0.36, right=0.965, top=1 - 0.48 / height, bottom=0.54 / height)
    for j, (outcome, rows) in enumerate(panels):
        upper, lower = axes[0, j], axes[1, j]
        specs = sorted((r for r in rows if r.term == "specification"), key=lambda r: (_value(r.estimate), r.level))
        null = sorted((r for r in rows if r.term == "null_curve"), key=lambda r: r.period or 0)
        n = len(specs)
        at = np.linspace(0, 100, len(null))
        upper.fill_between(
            at, [_value(r.conf_low) for r in null], [_value(r.conf_high) for r in null], color="#dddddd", linewidth=0
        )
        upper.plot(at, [_value(r.estimate) for r in null], color=GREY, linewidth=0.8, linestyle="--")
        bins = np.arange(n) * min(columns, n) // n
        first = np.flatnonzero(np.diff(bins, prepend=-1))
        x = (first + np.append(first[1:], n) - 1) / 2 / max(n - 1, 1) * 100
        low = np.minimum.reduceat([_value(r.conf_low) for r in specs], first)
        high = np.maximum.reduceat([_value(r.conf_high) for r in specs], first)
        upper.fill_between(x, low, high, color=BLUE, alpha=0.25, linewidth=0)
        mean = np.add.reduceat([_value(r.estimate) for r in specs], first) / np.diff(np.append(first, n))
        upper.plot(x, mean, color=BLUE)
        upper.axhline(0, color=DARK, linewidth=0.6)
        for share in (0, 0.25, 0.5, 0.75, 1):
            i = round(share * (n - 1))
            about = (outcome.label, label(study, "level", specs[i].level))
            canvas.tell(upper, 100 * i / max(n - 1, 1), _value(specs[i].estimate), specs[i], *about)
        options = np.array([r.level.split(" | ") for r in specs])
        has = np.array([options[:, specifications.DIMENSIONS.index(d)] == o for d, o in lines], dtype=float)
        density = np.add.reduceat(has, first, axis=1) / np.diff(np.append(first, n))
        lower.imshow(
            density, aspect="auto", interpolation="none", cmap="Greys", vmin=0, vmax=1.15,
            extent=(0, 100, len(lines) - 0.5, -0.5),
        )  # fmt: skip
        for i in range(1, len(lines)):
            same = lines[i][0] == lines[i - 1][0]
            lower.axhline(i - 0.5, color="white" if same else DARK, linewidth=0.8 if same else 0.5)
        upper.set_title(outcome.label, pad=19)
        said = outcome.unit if outcome.better == "neither" else f"{outcome.unit},\n{outcome.better} is better"
        upper.text(0.5, 1.015, said, transform=upper.transAxes, ha="center", va="bottom", fontsize=6.5)
        upper.locator_params(axis="y", nbins=6)
        upper.set_xlim(0, 100)
        upper.tick_params(axis="x", length=0, labelbottom=False)
        lower.tick_params(axis="y", length=0)
        middle = "median" if len(panels) < 3 else ""
        lower.set_xticks([0, 50, 100], ["smallest", middle, "largest"], fontsize=6.3)
        for text, side in zip(lower.get_xticklabels(), ("left", "center", "right"), strict=True):
            text.set_horizontalalignment(side)  # within the panel: the next is near
        lower.set_xlabel("by size")
        words = [specifications.label(study, d, o) for d, o in lines]
        lower.set_yticks(range(len(lines)), words if j == 0 else [""] * len(lines), fontsize=6)
        if j == 0:
            for i, (d, _) in enumerate(lines):
                if i == 0 or lines[i - 1][0] != d:
                    lower.annotate(
                        specifications.label(study, d), (0.01, i), xycoords=("figure fraction", "data"), fontsize=6,
                        fontweight="bold", va="center", annotation_clip=False,
                    )  # fmt: skip
    return figure


def multiverse_choices(canvas: Canvas) -> Figure:
    """The median estimate of the specifications with each option of each choice."""
    from matplotlib.figure import Figure

    study = canvas.study
    panels = _by_outcome(canvas)
    there = {r.level for _, rows in panels for r in rows}
    chosen = [f"{d}: {o}" for d in specifications.DIMENSIONS for o in getattr(study.multiverse, d)]
    names = [n for n in chosen if n in there]
    height = 0.135 * len(names) + 1.15
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    figure.subplots_adjust(left=0.36, right=0.985, top=1 - 0.36 / height, bottom=0.7 / height, wspace=0.1)
    heads = [n.partition(": ")[0] for n in names]
    for j, (ax, (outcome, rows)) in enumerate(zip(axes[0], panels, strict=True)):
        of = {r.level: r for r in rows}
        here = [i for i, n in enumerate(names) if n in of]
        ax.axvline(0, color=GREY, linewidth=0.7)
        ax.plot([_value(of[names[i]].estimate) for i in here], here, "o", color=BLUE, markersize=4)
        for i in here:
            row = of[names[i]]
            canvas.tell(ax, _value(row.estimate), i, row, outcome.label, label(study, "level", names[i]))
        for i in range(1, len(names)):
            if heads[i] != heads[i - 1]:
                ax.axhline(i - 0.5, color="#cccccc", linewidth=0.5)
        ax.set_title(outcome.label)
        ax.set_xlabel(f"median estimate,\n{outcome.unit}")
        ax.locator_params(axis="x", nbins=4)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(names) - 0.5, -0.5)
        if j == 0:
            ax.set_yticks(range(len(names)), [label(study, "level", n) for n in names], fontsize=6)
            for i, head in enumerate(heads):
                if i == 0 or heads[i - 1] != head:
                    ax.annotate(
                        specifications.label(study, head), (0.01, i), xycoords=("figure fraction", "data"), fontsize=6,
                        fontweight="bold", va="center", annotation_clip=False,
                    )  # fmt: skip
    return figure


def multiverse_vibration(canvas: Canvas) -> Figure:
    """A map of specifications by estimate and p-value: Patel, Burford and Ioannidis (2015), figure 1."""
    import numpy as np

    panels = _by_outcome(canvas)
    figure, axes = _panels(len(panels), 2, 2.5, 0.1)
    level = 1 - canvas.study.policy.conf_level
    for ax, (outcome, rows) in zip(axes, panels, strict=True):
        x = np.array([_value(r.estimate) for r in rows])
        y = -np.log10(np.maximum([_value(r.p_value) for r in rows], 1e-12))
        right, top = 1.05 * max(np.abs(x).max(), 1e-9), 1.05 * max(y.max(), -np.log10(level) * 1.2)
        count, _, _ = np.histogram2d(y, x, bins=(60, 80), range=((0, top), (-right, right)))
        ax.imshow(
            np.sqrt(count), origin="lower", aspect="auto", interpolation="none", cmap="Blues",
            extent=(-right, right, 0, top),
        )  # fmt: skip
        ax.axvline(0, color=DARK, linewidth=0.6)
        ax.axhline(-np.log10(level), color=DARK, linewidth=0.7, linestyle="--")
        most = int(np.argmax(y))
        for i, what in ((most, "smallest p"), (int(np.argmin(x)), "smallest"), (int(np.argmax(x)), "largest")):
            about = (outcome.label, f"{what} of all specifications", label(canvas.study, "level", rows[i].level))
            canvas.tell(ax, x[i], y[i], rows[i], *about)
        ax.set_title(outcome.label)
        ax.set_xlabel(f"estimate, {outcome.unit}; {outcome.better} is better")
        ax.set_ylabel("\u2212log10 p")
        ax.locator_params(axis="x", nbins=5)
    return figure


def _apart(points: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    pairs = list(points)
    return [x for x, _ in pairs], [y for _, y in pairs]


def simulation(canvas: Canvas) -> Figure:
    """Coverage with an effect and rejections without one, a line a method, with Monte Carlo intervals."""
    from matplotlib.figure import Figure

    study = canvas.study
    names = ("outcome", "treatment", "estimator", "inference")

    def method(row: Row) -> tuple[str, ...]:
        return tuple(getattr(row, n) for n in names)

    lines = sorted(
        {method(r) for r in canvas.rows}, key=lambda k: [order(study, n, v) for n, v in zip(names, k, strict=True)]
    )
    blocks = [k[:2] for k in lines]
    at, heads, y = [], [], 0.0
    for i, block in enumerate(blocks):
        if i == 0 or block != blocks[i - 1]:
            heads.append((y, ", ".join(label(study, n, v) for n, v in zip(names, block, strict=False))))
            y -= 1
        at.append(y)
        y -= 1
    height = 0.2 * -y + 0.8
    figure = Figure(figsize=(WIDTH, height))
    left, right = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.46, right=0.985, top=1 - 0.25 / height, bottom=0.55 / height, wspace=0.1)
    level = 100 * study.policy.conf_level
    least = level - 11  # of the axis: a method that covers less stands at its edge, with the number
    for ax, term, right_value in ((left, "coverage", level), (right, "rejection_rate", 100 - level)):
        of = {method(r): r for r in canvas.rows if r.term == term and _known(r)}
        there = [(of[k], a) for k, a in zip(lines, at, strict=True) if k in of]
        seen = [(r, a) for r, a in there if term != "coverage" or 100 * _value(r.estimate) >= least]
        values = [100 * _value(r.estimate) for r, _ in seen]
        errors = [[100 * e for e in side] for side in _errors([r for r, _ in seen])]
        ax.axvline(right_value, color=DARK, linewidth=0.9, linestyle="--")
        style: dict[str, Any] = {"color": BLUE, "marker": "o", "linestyle": "none", "markersize": 3.5}
        ax.errorbar(values, [a for _, a in seen], xerr=errors, **style)
        ax.tick_params(axis="y", length=0)
        for r, a in there:
            low, value, high = (100 * _value(v) for v in (r.conf_low, r.estimate, r.conf_high))
            ends = f"{number(value, 1)}% ({percent(study.policy.conf_level)} interval {interval(low, high, 1)})"
            text = f"{_method(study, r.estimator, r.inference)}, {label(study, 'term', r.term).lower()}: {ends}"
            canvas.say(ax, value if (r, a) in seen else least + 0.3, a, text.replace("\n", " "))
            if (r, a) not in seen:
                ax.plot([least + 0.3], [a], color=ORANGE, marker="<", markersize=4)
                ax.text(least + 1, a, f"{number(100 * _value(r.estimate), 1)}%", va="center", fontsize=6, color=ORANGE)
    left.axvspan(level - 2, level + 2, color="#e8eef4", linewidth=0)
    left.set(title="Coverage, %", xlim=(least, 100.4))
    right.set(title="Rejected, %")
    right.set_xlim(left=0)
    left.set_yticks(at)
    left.set_yticklabels([_method(study, k[2], k[3]) for k in lines], fontsize=6, linespacing=0.9)
    for a, text in heads:
        where = {"transform": left.get_yaxis_transform(), "ha": "right", "va": "center"}
        left.text(-0.02, a, text, fontweight="bold", fontsize=6.5, **where)
    left.set_ylim(y + 0.4, 0.6)
    return figure


SHADES = ("#9ecae1", "#6baed6", "#3182bd", "#08519c", "#222222")  # of a rising number; markers differ too
MARKS = ("v", "s", "D", "^", "o")


def power_by_size(canvas: Canvas) -> Figure:
    """Power by the size of the effect, a line a number of areas, a panel a way of inference; at nought the size."""
    study, ways = canvas.study, _ways(canvas)
    figure, axes = _panels(len(ways), 2, 1.8, 0.3, sharey=True)
    figure.subplots_adjust(hspace=0.62, wspace=0.1)
    numbers = sorted({r.period for r in canvas.rows if r.period is not None})
    for ax, way in zip(axes, ways, strict=True):
        mine = [r for r in canvas.rows if _way(r) == way]
        for i, count in enumerate(numbers):
            of = [r for r in mine if r.period == count]
            effect = next((abs(_value(r.estimate)) for r in of if r.term == "effect"), float("nan"))
            points = sorted((r for r in of if r.term in ("size", "power")), key=lambda r: _value(r.statistic or 0.0))
            x = [effect * (r.statistic or 0.0) for r in points]
            errors = [[100 * e for e in side] for side in _errors(points)]
            last = i == len(numbers) - 1
            ax.errorbar(
                x, [100 * _value(r.estimate) for r in points], yerr=errors, color=SHADES[i % 5], marker=MARKS[i % 5],
                markersize=3, elinewidth=0.6, linewidth=1.1, markerfacecolor=SHADES[i % 5] if last else "white",
                label=f"{number(count, 0)} areas" if not last else f"all, at most {number(count, 0)}",
            )  # fmt: skip
            for at, r in zip(x, points, strict=True):
                _say_share(canvas, ax, at, r, way, f"{number(count, 0)} areas, effect {number(at, 3)}")
        for y in (100 * (1 - study.policy.conf_level), 100 * study.policy.power):
            ax.axhline(y, color=GREY, linewidth=0.7, linestyle=":")
        ax.set_title(f"{label(study, 'outcome', way[0])}, {label(study, 'inference', way[2]).lower()}")
        ax.set_xlabel(f"size of the effect, {study.outcomes[way[0]].unit}")
        ax.set_ylim(0, 103)
        ax.set_xlim(left=0)
    for ax in axes[::2]:
        ax.set_ylabel("rejected, %")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="upper center", ncols=5, borderaxespad=0.2, columnspacing=1.2
    )
    return figure


def size_by_areas(canvas: Canvas) -> Figure:
    """Rejections without effect by number of areas, ways of inference side by side, with Monte Carlo intervals."""
    study = canvas.study
    outcomes = _outcomes(canvas)
    figure, axes = _panels(len(outcomes), 2, 1.9, 0.25, sharey=True)
    names = list(dict.fromkeys(w[2] for w in _ways(canvas)))
    numbers = sorted({r.period for r in canvas.rows if r.period is not None})
    colours = (ORANGE, BLUE, DARK, GREY)
    for ax, outcome in zip(axes, outcomes, strict=True):
        for i, name in enumerate(names):
            of = [r for r in canvas.rows if (r.outcome, r.inference, r.term) == (outcome.name, name, "size")]
            x = [numbers.index(r.period or 0) + 0.16 * (i - (len(names) - 1) / 2) for r in of]
            errors = [[100 * e for e in side] for side in _errors(of)]
            style: dict[str, Any] = {
                "color": colours[i % 4],
                "marker": MARKS[i % 5],
                "linestyle": "none",
                "markersize": 3.5,
            }
            ax.errorbar(
                x, [100 * _value(r.estimate) for r in of], yerr=errors, label=label(study, "inference", name), **style
            )
            for at, r in zip(x, of, strict=True):
                _say_share(canvas, ax, at, r, _way(r), f"{number(r.period or 0, 0)} areas")
        ax.axhline(100 * (1 - study.policy.conf_level), color=DARK, linewidth=0.9, linestyle="--")
        ax.set_title(outcome.label)
        ax.set_xticks(range(len(numbers)), [*(number(n, 0) for n in numbers[:-1]), "all"])
        ax.set_xlabel("treated areas")
        ax.set_ylim(bottom=-0.8)  # room for the marks of none
    axes[0].set_ylabel("rejected without effect, %")
    figure.subplots_adjust(wspace=0.12)
    handles = {n: h for ax in axes for h, n in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="upper center", ncols=4, borderaxespad=0.3)
    return figure


def _way(row: Row) -> tuple[str, str, str]:
    return row.outcome, row.estimator, row.inference


def _ways(canvas: Canvas) -> list[tuple[str, str, str]]:
    """Outcome, estimator and inference of the rows, outcomes and inferences in their order."""
    ranks = ("wild_bootstrap", "randomisation")

    def rank(way: tuple[str, str, str]) -> tuple[object, ...]:
        return order(canvas.study, "outcome", way[0]), ranks.index(way[2]) if way[2] in ranks else -1, way[2], way[1]

    return sorted({_way(r) for r in canvas.rows}, key=rank)


def _say_share(canvas: Canvas, ax: Axes, x: float, row: Row, way: tuple[str, str, str], about: str) -> None:
    low, value, high = (100 * _value(v) for v in (row.conf_low, row.estimate, row.conf_high))
    ends = f"{number(value, 1)}% rejected ({interval(low, high, 1)})"
    canvas.say(ax, x, value, f"{label(canvas.study, 'inference', way[2])}, {about}: {ends}")


def _method(study: Study, estimator: str, inference: str) -> str:
    how = label(study, "inference", inference)
    return _wrap(f"{label(study, 'estimator', estimator)}; {how if how.isupper() else how.lower()}", 62)


def scenarios(canvas: Canvas) -> Figure:
    """Net benefit and its interval, a line a scenario; the first is the main one."""
    from matplotlib.figure import Figure

    rows = sorted(
        (r for r in canvas.rows if r.term == "net_benefit"), key=lambda r: order(canvas.study, "level", r.level)
    )
    height = 0.22 * len(rows) + 0.75
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.31, right=0.71, top=1 - 0.08 / height, bottom=0.45 / height)
    ax.axvline(0, color=GREY, linewidth=0.7)
    for i, row in enumerate(rows):
        style: dict[str, Any] = (
            {"color": BLUE, "marker": "o"} if i == 0 else {"color": DARK, "marker": "s", "markerfacecolor": "white"}
        )
        ax.errorbar([_value(row.estimate)], [-i], xerr=_errors([row]), linestyle="none", markersize=4.5, **style)
        canvas.tell(ax, _value(row.estimate), -i, row, label(canvas.study, "level", row.level))
        ax.text(1.02, -i, _said(row), transform=ax.get_yaxis_transform(), va="center", fontsize=7)
    ax.set_yticks([-i for i in range(len(rows))])
    ax.set_yticklabels([label(canvas.study, "level", r.level) for r in rows], fontsize=7.5)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-len(rows) + 0.4, 0.6)
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter(lambda v, _: number(v, 0))
    ax.set_xlabel(f"Net benefit, {rows[0].unit}")
    return figure


def tornado(canvas: Canvas) -> Figure:
    """Net benefit with one input at either end of its range, the widest bar on top; the dotted line is nought."""
    from matplotlib.figure import Figure

    study = canvas.study
    main = next(_value(r.estimate) for r in canvas.rows if r.term == "net_benefit")
    of: dict[str, dict[str, Row]] = {}
    for row in canvas.rows:
        if row.level:
            of.setdefault(row.level, {})[row.term] = row

    def at(name: str, term: str) -> float:
        return _value(of[name][term].estimate)

    names = sorted(
        of, key=lambda n: (-abs(at(n, "net_benefit_high") - at(n, "net_benefit_low")), order(study, "level", n))
    )
    height = 0.36 * len(names) + 1.1
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.34, right=0.975, top=1 - 0.3 / height, bottom=0.62 / height)
    styles: dict[str, dict[str, Any]] = {
        "low": {"facecolor": "white", "edgecolor": ORANGE, "hatch": "////", "label": "input at its low end"},
        "high": {"facecolor": BLUE, "edgecolor": BLUE, "label": "input at its high end"},
    }
    ends = [at(n, f"net_benefit_{e}") for n in names for e in styles]
    reach = max(abs(v - main) for v in ends) or 1.0
    for i, name in enumerate(names):
        for end, style in styles.items():
            value, given = at(name, f"net_benefit_{end}"), of[name][f"input_{end}"]
            bar = {k: v for k, v in style.items() if k != "label" or i == 0}
            ax.barh(-i, value - main, left=main, height=0.56, linewidth=0.8, **bar)
            other = at(name, f"net_benefit_{'low' if end == 'high' else 'high'}")
            right = value > main or (value == main and other <= main)
            text = FORMATS["given"](_value(given.estimate), given)
            about = f"{label(study, 'level', name)} at {text}"
            bar_row = of[name][f"net_benefit_{end}"]
            canvas.tell(ax, main, -i, bar_row, about, box=(main, -i - 0.28, value, -i + 0.28))
            ax.text(
                value + (0.02 if right else -0.02) * reach, -i, text,
                ha="left" if right else "right", va="center", fontsize=6.5,
            )  # fmt: skip
    ax.axvline(main, color=DARK, linewidth=0.9)
    ax.axvline(0, color=DARK, linewidth=0.9, linestyle=":")
    ax.set_xlim(min([0.0, *ends]) - 0.36 * reach, max([0.0, *ends]) + 0.22 * reach)
    ax.set_ylim(-len(names) + 0.45, 0.55)
    ax.set_yticks([-i for i in range(len(names))])
    ax.set_yticklabels([_wrap(label(study, "level", n), 36) for n in names], fontsize=7, linespacing=1.0)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(lambda v, _: number(v, 0))
    ax.set_xlabel("Net benefit, GBP million")
    figure.legend(*ax.get_legend_handles_labels(), loc="upper center", ncols=2, borderaxespad=0.3)
    return figure


def two_way(canvas: Canvas) -> Figure:
    """Net benefit over the effect and the value of a point: blue and plain above nought, orange and hatched below."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    of = {(r.level, r.period or 0): _value(r.estimate) for r in canvas.rows if _known(r)}
    effects = sorted({e for e, _ in of}, key=float)
    values = sorted({v for _, v in of})
    height = 0.3 * len(effects) + 0.75
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.115, right=0.985, top=1 - 0.08 / height, bottom=0.5 / height)
    colours = LinearSegmentedColormap.from_list("money", [ORANGE, "white", BLUE])
    most = max(abs(x) for x in of.values()) or 1.0
    for (effect, value), x in of.items():
        corner = (values.index(value), effects.index(effect))
        shade = colours(0.5 + 0.34 * x / most)  # pale enough for the text on it
        ax.add_patch(Rectangle(corner, 1, 1, facecolor=shade, edgecolor="white", linewidth=0.6))
        if x < 0:
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="///", edgecolor="#00000026", linewidth=0))
        about = f"effect {number(float(effect), 3)} points, value {number(value, 0)} GBP"
        canvas.say(ax, *corner, f"{about}: {number(x, 0)} GBP million", box=(*corner, corner[0] + 1, corner[1] + 1))
        ax.text(corner[0] + 0.5, corner[1] + 0.5, number(x, 0), ha="center", va="center", fontsize=6.8)
    ax.set(xlim=(0, len(values)), ylim=(0, len(effects)))
    ax.set_xticks([i + 0.5 for i in range(len(values))], [number(v, 0) for v in values])
    ax.set_yticks([i + 0.5 for i in range(len(effects))], [number(float(e), 3) for e in effects])
    ax.tick_params(length=0)
    ax.set(xlabel="Value of one point for a year, GBP", ylabel="Effect, points of life satisfaction")
    return figure


def acceptability(canvas: Canvas) -> Figure:
    """Probability that net benefit is above nought, over the value of a point; the guidance's values are marked."""
    from matplotlib.figure import Figure

    rows = sorted((r for r in canvas.rows if r.term == "probability" and _known(r)), key=lambda r: r.period or 0)
    figure = Figure(figsize=(WIDTH, 2.7))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.085, right=0.975, top=0.93, bottom=0.19)
    ax.plot([r.period or 0 for r in rows], [100 * _value(r.estimate) for r in rows], color=BLUE)
    for r in rows:
        share = 100 * _value(r.estimate)
        canvas.say(ax, r.period or 0, share, f"{number(r.period or 0, 0)} GBP: {number(share, 1)}%")
    ax.axhline(50, color=GREY, linewidth=0.7)
    money = canvas.study.cost_benefit
    value = money.inputs["value"] if money else None
    for x, line in ((value.low, ":"), (value.value, "--"), (value.high, ":")) if value else ():
        if x is not None:
            ax.axvline(x, color=DARK, linewidth=0.9, linestyle=line)
            ax.text(x, 101, number(x, 0), ha="center", va="bottom", fontsize=6.5)
    ax.set(xlabel="Value of one point for a year, GBP", ylabel="Probability, %", ylim=(0, 100))
    ax.set_xlim(left=0, right=max(r.period or 0 for r in rows))
    ax.xaxis.set_major_formatter(lambda v, _: number(v, 0))
    return figure


def sensitivity(canvas: Canvas) -> Figure:
    """Interval of the average effect as trends may depart from parallel: an outcome a column, a restriction a row."""
    from matplotlib.figure import Figure

    chosen = _outcomes(canvas)
    figure = Figure(figsize=(WIDTH, 4.4))
    axes = figure.subplots(2, len(chosen), squeeze=False)
    figure.subplots_adjust(left=0.1, right=0.985, top=0.9, bottom=0.14, wspace=0.46, hspace=0.52)
    restrictions = (
        ("relative_magnitudes", "Relative magnitudes: largest step after the start over largest before it", BLUE, "o"),
        ("smoothness", "Smoothness: change of slope a year, in standard errors of the average", ORANGE, "s"),
    )
    for j, outcome in enumerate(chosen):
        mine = [r for r in canvas.rows if r.outcome == outcome.name]
        plain = [r for r in mine if r.term == "average_effect" and r.conf_low is not None]
        for i, (term, words, colour, marker) in enumerate(restrictions):
            ax = axes[i, j]
            rows = sorted((r for r in mine if r.term == term), key=lambda r: float(r.level))
            at = [float(r.level) for r in rows]
            gap = 0.16 * max(at, default=1.0)
            ax.axhline(0, color=GREY, linewidth=0.7)
            ax.errorbar(
                [-gap] * len(plain), [_value(r.estimate) for r in plain], yerr=_errors(plain), color=DARK, marker="D",
                markerfacecolor="white", linestyle="none", elinewidth=0.9, label="parallel trends",
            )  # fmt: skip
            for x, r in zip(at, rows, strict=True):
                low, high = r.conf_low, r.conf_high
                if low is not None and high is not None:
                    text = interval(low, high, decimals(r.unit))
                    canvas.say(ax, x, (low + high) / 2, f"{outcome.label}, {r.level}: interval {text} {r.unit}")
                    ax.plot([x, x], [low, high], color=colour, marker=marker, markersize=3, linewidth=1.4)
            for r in plain:
                canvas.tell(ax, -gap, _value(r.estimate), r, outcome.label, "parallel trends")
            ax.axvline(-gap / 2, color="#d9d9d9", linewidth=0.8)
            ax.set_xticks([-gap, *at])
            ax.set_xticklabels(["par.", *(r.level for r in rows)], fontsize=6.2)
            ax.set_ylabel(outcome.unit)
            if j == len(chosen) // 2:
                ax.set_xlabel(words)
            ax.locator_params(axis="y", nbins=6)
            if i == 0:
                ax.set_title(outcome.label, pad=11)
            ends = [r for r in mine if r.term == f"breakdown_{term}" and r.estimate is not None]
            for r in ends:
                said = "never told apart from nought" if r.estimate == 0 else f"breaks down at {_breakdown(r, rows)}"
                ax.text(0.5, 1.015, said, transform=ax.transAxes, ha="center", va="bottom", fontsize=6.5)
    return figure


def _breakdown(row: Row, rows: Sequence[Row]) -> str:
    """A breakdown value on the axis its restriction is drawn on: M is kept in units, and drawn in standard errors."""
    unit = [float(r.level) / r.statistic for r in rows if r.statistic]
    return number(_value(row.estimate) * (unit[-1] if unit else 1.0), 2)


def power_curve(canvas: Canvas) -> Figure:
    """Minimum detectable effect by number of treated areas, one panel an outcome; the published effect, if any."""
    chosen = _outcomes(canvas)
    figure, axes = _panels(len(chosen), 3, 1.62, 0.28)
    for ax, outcome in zip(axes, chosen, strict=True):
        mine = [r for r in canvas.rows if r.outcome == outcome.name and _known(r)]
        line = sorted((r for r in mine if r.term == "minimum_detectable_with"), key=lambda r: r.period or 0)
        ax.plot([r.period or 0 for r in line], [_value(r.estimate) for r in line], color=BLUE, label="detectable")
        here = [r for r in mine if r.term == "minimum_detectable"]
        ax.plot(
            [r.n_treated_clusters or 0 for r in here], [_value(r.estimate) for r in here], color=BLUE, marker="o",
            markersize=5, linestyle="none", label="this design",
        )  # fmt: skip
        for r in (*line, *here):
            areas = r.n_treated_clusters if r in here else r.period
            about = f"{number(areas or 0, 0)} areas, detectable"
            canvas.tell(ax, areas or 0, _value(r.estimate), r, outcome.label, about)
        for r in mine:
            if r.term == "reference_effect":
                ax.axhline(_value(r.estimate), color=ORANGE, linestyle="--", linewidth=1.1, label="published effect")
        ax.set_title(outcome.label)
        ax.set(ylabel=outcome.unit, xlabel="Treated areas", xlim=(0, None))
        ax.set_ylim(bottom=0)
        ax.locator_params(axis="both", nbins=5)
    figure.subplots_adjust(hspace=0.8)  # the axes' names stand between a panel and the next one's title
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(list(found.values()), list(found), loc="upper center", ncols=3, borderaxespad=0.3)
    return figure


def decomposition(canvas: Canvas) -> Figure:
    """Each comparison of two cohorts behind a two-way coefficient: its weight against its estimate."""
    chosen = _outcomes(canvas)
    figure, axes = _panels(len(chosen), 2, 2.3, 0.42)
    figure.subplots_adjust(left=0.115, wspace=0.3)
    kinds = (
        ("Treated vs Untreated", "treated against never treated", BLUE, "o"),
        ("Earlier vs Later Treated", "earlier against later treated", DARK, "^"),
        ("Later vs Earlier Treated", "later against already treated", ORANGE, "x"),
        ("Later vs Always Treated", "later against always treated", GREY, "D"),
    )
    for ax, outcome in zip(axes, chosen, strict=True):
        mine = [r for r in canvas.rows if r.outcome == outcome.name and _known(r)]
        weight = {r.level: _value(r.estimate) for r in mine if r.term == "two_by_two_weight"}
        whole = [_value(r.estimate) for r in mine if r.term == "att"]
        ax.axhline(0, color=GREY, linewidth=0.7)
        for value in whole:
            ax.axhline(value, color=DARK, linewidth=0.9, linestyle="--", label="their weighted mean")
        for kind, name, colour, marker in kinds:
            pairs = [r for r in mine if r.term == "two_by_two" and kind in r.level and r.level in weight]
            if not pairs:
                continue
            ax.plot(
                [weight[r.level] for r in pairs], [_value(r.estimate) for r in pairs], color=colour, marker=marker,
                linestyle="none", markersize=4.5, label=name, markerfacecolor="none" if marker != "o" else colour,
            )  # fmt: skip
            for r in pairs:
                share = f"weight {number(weight[r.level], 3)}"
                canvas.tell(ax, weight[r.level], _value(r.estimate), r, outcome.label, r.level, share)
        ax.set_title(outcome.label)
        ax.set(xlabel="Weight in the coefficient, share", ylabel=outcome.unit, xlim=(-0.02, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=3, borderaxespad=0.3)
    return figure


def _timeline(ax: Axes, outcome: Outcome, years: Sequence[int], start: float | None) -> None:
    if start is not None:
        ax.axvline(start, color=DARK, linewidth=0.8, linestyle=":")
    if years:
        first, last = min(years), max(years)
        ax.set_xlim(first - 0.5, last + 0.5)
        ax.set_xticks(range(first + first % 2, last + 1, 2))
    ax.set_title(outcome.label)


def in_words(row: Row, *about: str) -> str:
    """A number as a figure says it under the pointer: what it is about, the estimate, its unit and interval."""
    places = decimals(row.unit)
    unit = level_unit(row.unit) if row.term in ("treated", "control") else row.unit
    text = f"{number(_value(row.estimate), places)} {unit}".strip()
    if row.conf_low is not None and row.conf_high is not None and row.conf_level is not None:
        text += f" ({percent(row.conf_level)} interval {interval(row.conf_low, row.conf_high, places)})"
    if row.p_value is not None:
        text += f"; {p_phrase(row.p_value)}"
    return f"{', '.join(filter(None, about))}: {text}"


def _said(row: Row) -> str:
    places = decimals(row.unit)
    return f"{number(_value(row.estimate), places)} ({interval(_value(row.conf_low), _value(row.conf_high), places)})"


def _wrap(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


FIGURES: dict[str, Callable[[Canvas], Figure]] = {
    "flow": flow,
    "design_forest": design_forest,
    "specification_curve": specification_curve,
    "multiverse": multiverse,
    "multiverse_choices": multiverse_choices,
    "multiverse_vibration": multiverse_vibration,
    "p_values": p_values,
    "randomisation": randomisation,
    "simulation": simulation,
    "power_by_size": power_by_size,
    "size_by_areas": size_by_areas,
    "love": love,
    "overlap": overlap,
    "trends": trends,
    "event_study": event_study,
    "forest": forest,
    "subgroup_forest": subgroup_forest,
    "trajectories": trajectories,
    "participation": participation,
    "scenarios": scenarios,
    "tornado": tornado,
    "two_way": two_way,
    "acceptability": acceptability,
    "sensitivity": sensitivity,
    "power_curve": power_curve,
    "decomposition": decomposition,
}
