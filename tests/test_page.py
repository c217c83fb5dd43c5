"""The HTML report as a reader meets it, in a browser without a network: numbers asked, tables sorted, no error.

Needs Chromium; the accessibility test also axe-core (`npm install axe-core`, its axe.min.js in BIGLOCAL_AXE).
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from biglocal import results

BEFORE = """<script>
window.said = [];
addEventListener("error", (e) => window.said.push(String(e.message)));
addEventListener("securitypolicyviolation", (e) => window.said.push(e.blockedURI));
console.error = console.warn = (...words) => window.said.push(words.join(" "));
</script>"""
AFTER = """<script>
addEventListener("load", async () => {
  let found;
  try { found = await (async () => { %s })(); } catch (e) { window.said.push(String(e)); }
  const out = document.createElement("pre");
  out.id = "found";
  const asked = performance.getEntriesByType("resource").map((r) => r.name).filter((n) => !n.startsWith("data:"));
  out.textContent = JSON.stringify({ found, said: window.said, asked });
  document.body.append(out);
});
</script></body>"""


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium on this machine")
    return found


def visit(chromium: str, page: Path, script: str, folder: Path, more: str = "") -> dict[str, Any]:
    """What `script` gives back in the page, with what the browser complained of and what it asked for."""
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{BEFORE}", 1)
    text = text.replace("</body>", more + AFTER % script, 1)
    copy = folder / "page.html"
    copy.write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    done = subprocess.run(
        [chromium, *flags, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=30000", "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert said["said"] == []  # no error, no warning
    assert said["asked"] == []  # nothing asked of any host
    return said


def test_a_number_opens_its_card(chromium: str, reproduced: Path, tmp_path: Path) -> None:
    out = reproduced / "secure"
    said = visit(
        chromium, out / "report.html",
        """
        const card = document.getElementById("card");
        const number = document.querySelector("#table-main_effects tbody button.num");
        number.focus();
        number.click();
        const read = { open: card.open, shown: card.querySelector("output").textContent, text: card.innerText,
                       printed: number.textContent, title: card.querySelector("h2").textContent };
        card.querySelector(".close").click();
        read.closed = !card.open;
        read.back = document.activeElement === number;
        const prose = document.querySelector("main p button.num");
        prose.click();
        read.prose = card.open && card.querySelector("output").textContent === prose.textContent;
        return read;
        """,
        tmp_path,
    )["found"]  # fmt: skip
    assert said["open"] and said["closed"] and said["back"] and said["prose"]
    assert said["shown"] == said["printed"]
    rows = {r.key: r for r in results.read(out / "results.csv")}
    (key,) = (k for k in rows if f"\n{k}\n" in said["text"])
    assert rows[key].estimate is not None
    assert f"{rows[key].estimate:.10g}".replace("-", "\u2212") in said["text"]
    assert re.search(r"biglocal/estimators/twfe.py, line \d+, estimate\(\), sha256 [0-9a-f]{12}", said["text"])
    assert re.search(r"area_panel.parquet, sha256 [0-9a-f]{12}", said["text"])


def test_every_number_has_a_card(chromium: str, reproduced: Path, tmp_path: Path) -> None:
    said = visit(
        chromium, reproduced / "secure" / "report.html",
        """
        const told = JSON.parse(document.getElementById("cards").textContent);
        const all = [...document.querySelectorAll("button.num")];
        return { count: all.length, lost: all.filter((b) => !told.cards[b.dataset.card]).length,
                 bare: [...document.querySelectorAll("main td.n")].filter((c) => /\\d/.test(c.textContent) && !c.querySelector("button.num")).length };
        """,
        tmp_path,
    )["found"]  # fmt: skip
    assert said["count"] > 300
    assert said["lost"] == 0
    assert said["bare"] < said["count"] / 10  # totals, published estimates and periods come from no row


def test_a_figure_says_its_values_to_the_keyboard_and_the_pointer(
    chromium: str, reproduced: Path, tmp_path: Path
) -> None:
    said = visit(
        chromium, reproduced / "secure" / "report.html",
        """
        const figure = document.querySelector("#figure-main_effects"), box = figure.querySelector(".box");
        const press = (key) => {
          box.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
          return figure.querySelector("output").textContent;
        };
        const titles = [...figure.querySelectorAll(".told title")].map((t) => t.textContent);
        const walked = titles.map(() => press("ArrowRight"));
        const ends = [press("Home"), press("End"), press("ArrowRight"), figure.querySelectorAll(".at").length];
        const spot = figure.querySelectorAll(".told > *")[0];
        spot.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
        return { titles, walked, ends, pointed: figure.querySelector("output").textContent,
                 silent: [...document.querySelectorAll("main figure")].filter((f) => !f.querySelector(".told title")).length };
        """,
        tmp_path,
    )["found"]  # fmt: skip
    titles = said["titles"]
    assert len(titles) > 1
    assert said["walked"] == titles
    assert said["ends"] == [titles[0], titles[-1], titles[-1], 1]
    assert said["pointed"] == titles[0]
    assert said["silent"] == 0


def test_a_table_sorts_both_ways_and_keeps_its_groups(chromium: str, reproduced: Path, tmp_path: Path) -> None:
    said = visit(
        chromium, reproduced / "secure" / "report.html",
        """
        const table = document.getElementById("table-balance");
        const heads = [...table.querySelectorAll("thead th")];
        const at = heads.findIndex((h) => h.classList.contains("n"));
        const column = () => [...table.tBodies].map((b) => [...b.rows].filter((r) => !r.classList.contains("group")).map((r) => r.cells[at].textContent));
        const first = () => [...table.tBodies].map((b) => b.rows[0].classList.contains("group"));
        const groups = first();
        heads[at].querySelector("button").click();
        const up = column(), how = heads[at].getAttribute("aria-sort");
        heads[at].querySelector("button").click();
        return { up, down: column(), how, then: heads[at].getAttribute("aria-sort"), same: String(groups) === String(first()) };
        """,
        tmp_path,
    )["found"]  # fmt: skip
    assert (said["how"], said["then"], said["same"]) == ("ascending", "descending", True)
    for up, down in zip(said["up"], said["down"], strict=True):
        values = [float(re.sub(r"[^\d.-]", "", v.replace("\u2212", "-"))) for v in up if re.search(r"\d", v)]
        assert values == sorted(values)
        assert sorted(up) == sorted(down)


@pytest.mark.parametrize("width", [390, 1024, 1600])
def test_nothing_stands_out_of_the_page(width: int, chromium: str, reproduced: Path, tmp_path: Path) -> None:
    """On a phone and a tablet only tables and figures are wider than the page, and these scroll by key; on a screen
    nothing is."""
    said = visit(
        chromium, reproduced / "secure" / "report.html",
        """
        if (window !== top) return { width: 0 };
        const frame = document.createElement("iframe");
        frame.style.cssText = "width: WIDTHpx; height: 900px; border: 0";
        const page = document.documentElement.outerHTML.replace(/<script>[^]*?<\\/script>/g, "");
        const there = new Promise((done) => frame.onload = done);
        frame.srcdoc = page;
        document.body.append(frame);
        await there;
        const inner = frame.contentDocument, root = inner.documentElement;
        const scrolls = (e) => ["auto", "scroll"].includes(frame.contentWindow.getComputedStyle(e).overflowX);
        const boxed = (e) => { for (let p = e; p && p !== inner.body; p = p.parentElement) if (scrolls(p)) return p; };
        const out = [...inner.querySelectorAll("main *")].filter((e) => e.getClientRects().length
          && e.getBoundingClientRect().right > root.clientWidth + 1 && !boxed(e));
        const boxes = [...inner.querySelectorAll("main *")].filter((e) => scrolls(e) && e.scrollWidth > e.clientWidth + 1);
        const found = { width: root.clientWidth, out: out.map((e) => e.outerHTML.slice(0, 150)), wide: root.scrollWidth,
                        boxes: boxes.length, unreachable: boxes.filter((e) => e.tabIndex < 0).length };
        frame.remove();
        return found;
        """.replace("WIDTH", str(width)),
        tmp_path,
    )["found"]  # fmt: skip
    assert said["out"] == []
    assert said["width"] == said["wide"] <= width
    assert said["unreachable"] == 0
    assert (said["boxes"] > 0) == (width < 1600)


def test_printed_the_page_is_paper(chromium: str, reproduced: Path, tmp_path: Path) -> None:
    """No buttons, navigation or cards on paper, and no ink for the ground."""
    if not shutil.which("pdftotext"):
        pytest.skip("needs pdftotext to read what was printed")
    page = reproduced / "secure" / "report.html"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    paper = tmp_path / "paper.pdf"
    subprocess.run(
        [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={paper}", page.as_uri()],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    text = subprocess.run(["pdftotext", str(paper), "-"], capture_output=True, check=True).stdout.decode()
    assert "Estimated effect on each outcome" in text
    for screen_only in ("Contents", "Data of Table", "Numbers behind Figure", "Close"):
        assert screen_only not in text


def test_no_violation_of_wcag_a_or_aa(chromium: str, reproduced: Path, tmp_path: Path) -> None:
    path = Path(os.environ.get("BIGLOCAL_AXE", "node_modules/axe-core/axe.min.js"))
    if not path.is_file():
        pytest.skip("no axe-core: `npm install axe-core`, or name its axe.min.js in BIGLOCAL_AXE")
    axe = f"<script>{path.read_text(encoding='utf-8')}</script>"
    for opened in ("", 'document.querySelector("button.num").click();'):
        said = visit(
            chromium, reproduced / "secure" / "report.html",
            opened + """
            const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
            const done = await axe.run(document, { runOnly: { type: "tag", values: tags } });
            return done.violations.map((v) => v.id + ": " + v.nodes.length + " x " + v.help + " " + v.nodes[0].html.slice(0, 200));
            """,
            tmp_path, axe,
        )["found"]  # fmt: skip
        assert said == []


def test_one_file_under_five_megabytes(reproduced: Path) -> None:
    page = reproduced / "secure" / "report.html"
    assert page.stat().st_size < 5e6
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r'<(?:link|script|img|iframe)[^>]*(?:src|href)="(?!data:|#)[^"]*"', text)
