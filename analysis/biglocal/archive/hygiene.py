"""Rules of our own on files: licences, what does not belong in a deposit, what makes a run come out the same."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import PurePosixPath

from biglocal import results
from biglocal.archive import dialects
from biglocal.archive.package import GENERATORS, LARGEST, Answer, Package, aside, ending, judged, rule

# --- licences ---------------------------------------------------------------------------------------------------


@rule("licence-code", "Licence of the code")
def _licence_code(p: Package) -> Answer:
    """A licence file stands at the top, and is the one that pyproject.toml names."""
    text = p.texts.get("LICENSE", "")
    name = p.metadata.licence
    if not text.strip():
        return Answer("fail", ("no LICENSE at the top, or an empty one",), f"Put the text of the {name} licence there.")
    known = dialects.LICENCES[name]
    return judged([] if known in text else [f"LICENSE is not the {known} that pyproject.toml names"], name)


@rule("licence-data", "Licences of the data")
def _licence_data(p: Package) -> Answer:
    """Every source has a licence, and the README says under which one the made data and the outputs stand."""
    faults = [f"data-raw/sources.toml: {s.key}: no licence" for s in p.sources if not s.licence]
    if not re.search(r"licen[cs]e", p.texts.get("README.md", ""), re.IGNORECASE):
        faults.append("README.md does not speak of a licence")
    return judged(faults, f"{len(p.sources)} sources: {'; '.join(sorted({s.licence for s in p.sources}))}")


@rule("licence-fonts", "Licences of fonts and other people's code")
def _licence_fonts(p: Package) -> Answer:
    """Fonts, and scripts of others, have a licence beside them."""
    theirs = [n for n in p.files if ending(n) in ("ttf", "otf", "woff", "woff2") or n.endswith((".min.js", ".min.css"))]
    if not theirs:
        return aside("none is in the package; fonts in the PDF and the figures come with typst and matplotlib, whose "
                      "licences (OFL, Bitstream Vera) let documents hold them")  # fmt: skip
    beside = {
        str(PurePosixPath(n).parent) for n in p.files if re.match(r"(LICEN[CS]E|OFL|COPYING)", PurePosixPath(n).name)
    }
    return judged(
        [f"{n}: no licence beside it" for n in theirs if str(PurePosixPath(n).parent) not in beside],
        f"{len(theirs)} files",
    )


# --- what does not belong in a deposit --------------------------------------------------------------------------

SECRETS = {  # what it is: what such a text holds for certain, and the pattern; the first is quick to look for
    "a private key": ("PRIVATE KEY", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    "a key of Amazon's cloud": ("A", r"(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token of GitHub": ("gh", r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}"),
    "a token of GitLab": ("glpat-", r"glpat-[A-Za-z0-9_-]{20,}"),
    "a token of Slack": ("xox", r"xox[abprs]-[A-Za-z0-9-]{10,}"),
    "a key of Google": ("AIza", r"AIza[0-9A-Za-z_-]{35}"),
    "a key of Stripe": ("k_live_", r"[rs]k_live_[0-9A-Za-z]{16,}"),
    "a JSON web token": ("eyJ", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "a password in an address": ("://", r"://[^\s/:@'\"<>{}]+:[^\s/:@'\"<>{}]{3,}@"),
}
NAMED = ("password", "passwd", "secret", "token", "api_key", "apikey", "access_key", "credential")
NAMED_SECRET = re.compile(rf"(?:{'|'.join(NAMED)})s?[\"']?\s*[:=]\s*[\"']([^\"'\s]{{8,}})[\"']")
SECRET_FILES = re.compile(
    r"(^|/)(\.env(\.\w+)?|\.netrc|\.htpasswd|id_(rsa|dsa|ecdsa|ed25519)|.+\.(pem|key|p12|pfx|kdbx))$"
)
HOME = re.compile(
    r"(?:(?<![\w.~/-])/(?:home|Users)/[\w.-]+/|(?<![\w.~/-])/roo[t]/|(?<![A-Za-z])[A-Z]:\\+(?:Users|Documents)\b)",
    re.ASCII,
)


def _bits(text: str) -> float:
    """Entropy of the text's characters, in bits a character: words have about 3, keys 4 and more."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


@rule("no-secret", "No secret")
def _no_secret(p: Package) -> Answer:
    """No key, token or password stands in a file, and no file is one that holds such."""
    faults = [f"{n}: a file of secrets by its name" for n in p.contents if SECRET_FILES.search(n)]
    for name, text in p.texts.items():
        for kind, (needle, pattern) in SECRETS.items():
            if needle in text:
                faults += [f"{_at(name, text, m.start())}: {kind}" for m in re.finditer(pattern, text)]
        small = text.lower()
        if any(word in small for word in NAMED):
            spans = (m.span(1) for m in NAMED_SECRET.finditer(small))
            keys = ((start, text[start:end]) for start, end in spans)
            faults += [
                f"{_at(name, text, start)}: looks like a password or key"
                for start, key in keys
                if _bits(key) > 3 and re.search(r"\d", key) and "://" not in key  # an address names, it does not open
            ]
    return judged(
        faults, f"{len(p.texts):,} texts searched",
        "Take it out, of the history too, and have the key withdrawn: it is known once it is published.",
    )  # fmt: skip


def _at(name: str, text: str, start: int) -> str:
    return f"{name}, line {text.count(chr(10), 0, start) + 1}"


@rule("no-absolute-path", "No absolute path")
def _no_path(p: Package) -> Answer:
    """No file names a folder of somebody's machine: it would not be there on another."""
    here = str(p.root).encode()
    faults = [
        f"{n}: names the folder it was made in"
        for n, data in p.contents.items()
        if len(p.root.parts) > 2 and here in data
    ]
    near = {n: text for n, text in p.texts.items() if re.search(r"/(?:home|Users|root)/|:\\", text)}  # quick
    faults += [f"{_at(n, text, m.start())}: {m[0]}…" for n, text in near.items() for m in HOME.finditer(text)]
    return judged(faults, f"{len(p.contents):,} files searched", "Name it from the root of the project.")


@rule("no-large-file", "No file over 100 MB")
def _no_large(p: Package) -> Answer:
    """Every file is small enough for the hosts of source code and for a reader's connection."""
    there = [p.root / n for n in p.files] + [p.out / n for n in p.outputs]
    sizes = {f: f.stat().st_size for f in there if f.is_file()}
    faults = [f"{f.name}: {n / 1e6:,.0f} MB" for f, n in sizes.items() if n > LARGEST]
    return judged(faults, f"the largest has {max(sizes.values(), default=0) / 1e6:.1f} MB")


@rule("no-empty-file", "No empty file")
def _no_empty(p: Package) -> Answer:
    """An empty file is a leftover, or a result that was lost."""
    return judged([n for n, data in p.contents.items() if not data.strip()], f"{len(p.contents):,} files")


@rule("no-duplicate-file", "No duplicate file")
def _no_duplicate(p: Package) -> Answer:
    """No two files of the package are the same: one will be changed and the other not. (Outputs are made, not kept.)"""
    by_hash: dict[str, list[str]] = {}
    for name in p.files:
        if (data := p.contents.get(name, b"")).strip():
            by_hash.setdefault(results.digest(data), []).append(name)
    return judged([" = ".join(same) for same in by_hash.values() if len(same) > 1], f"{len(by_hash):,} files differ")


# --- what makes a run come out the same -------------------------------------------------------------------------


@rule("lock-has-no-address", "No network address inside the lock")
def _no_address(p: Package) -> Answer:
    """A lock names versions and hashes, and leaves it to the user from which index they come."""
    faults = []
    locks = [n for n in p.texts if re.fullmatch(r"locks/.+\.txt", n)]
    for name in locks:
        for i, line in enumerate(p.texts[name].splitlines(), 1):
            if re.search(r"://|\bgit\+|--(?:extra-)?index|--find-links|--trusted-host|^\s*-[if]\b", line):
                faults.append(f"{name}, line {i}")
    return (
        judged(faults, f"{len(locks)} locks", "Make it anew: `nox -s lock`.") if locks else Answer("fail", ("no lock",))
    )


@rule("lock-has-hashes", "Every pin has its version and hashes")
def _hashes(p: Package) -> Answer:
    """Each requirement of a lock names one version and the hashes of its files."""
    faults, count = [], 0
    for name in (n for n in p.texts if re.fullmatch(r"locks/.+\.txt", n)):
        for entry in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^\s*#.*$", "", p.texts[name], flags=re.MULTILINE)):
            if pin := re.match(r"\s*([A-Za-z0-9][\w.-]*)(.*)", entry):
                count += 1
                if not pin[2].lstrip().startswith("==") or "--hash=sha256:" not in entry:
                    faults.append(f"{name}: {pin[1]}")
    return judged(faults, f"{count:,} pins", "Make it anew: `nox -s lock`.")


SHARED = re.compile(r"(?:(?:np|numpy)\.)?random\.\w+|uuid(?:\.uuid)?4|os\.urandom")


@rule("seeds-set", "Every random number comes from a seed")
def _seeds(p: Package) -> Answer:
    """Each generator is given a seed, and none but those is used."""
    faults, begun = [], set()
    for name, line, call, given in p.draws:
        if call.rsplit(".", 1)[-1] in GENERATORS:
            begun.add((name, line))
            faults += [] if given else [f"{name}, line {line}: {call}() without a seed"]
        elif SHARED.fullmatch(call):
            faults.append(f"{name}, line {line}: {call}() draws from a state that all share, or from nowhere")
    return judged(faults, f"{len(begun)} generators in {len({n for n, _ in begun})} files; seed {p.study.seed}")
