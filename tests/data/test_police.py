"""Street-level crime: three lists of categories brought to one, doubled and damaged files, gaps, and real rows."""

from __future__ import annotations

import csv
import gzip
import io
import random
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biglocal.data import folder, police, street
from biglocal.data import open as open_tier
from biglocal.model import BiglocalError, DataError

CODES = ["E01000001", "E01000002", "E01000003"]
AREAS = pd.DataFrame({"lsoa11": CODES, "district": ["E07000001"] * 3, "population": [1000, 2000, 500]})
HEAD = "Crime ID,Month,Reported by,Falls within,Longitude,Latitude,Location,LSOA code,LSOA name,Crime type,Last outcome category,Context\n"
Rows = list[tuple[str, str, str]]  # identifier, LSOA, type


def text(month: str, rows: Rows) -> str:
    lines = [
        f'{key},{month},Sussex Police,Sussex Police,-1,53,"On, or near",{code},n,{kind},,\n' for key, code, kind in rows
    ]
    return HEAD + "".join(lines)


def zipped(path: Path, files: dict[tuple[str, str], Rows]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for (month, force), rows in files.items():
            out.writestr(f"{month}/{month}-{force}-street.csv", text(month, rows))
    return path


def year(y: int, rows: Rows, force: str = "sussex") -> dict[tuple[str, str], Rows]:
    return {(f"{y}-{m:02d}", force): rows for m in range(1, 13)}


def read(root: Path, min_months: int = 12) -> tuple[pd.DataFrame, str]:
    frame, notes = police.read(folder.folder(root).street, AREAS, min_months)
    return frame.set_index(["lsoa11", "year"]), " ".join(notes)


def refused(root: Path) -> str:
    with pytest.raises(DataError) as error:
        read(root)
    return str(error.value)


# --- categories ------------------------------------------------------------------------------------------------------


def test_a_category_is_blank_before_it_exists_and_zero_after(tmp_path: Path) -> None:
    everywhere = [("", code, "Burglary") for code in CODES]
    zipped(tmp_path / "a.zip", {k: v for y in range(2011, 2015) for k, v in year(y, everywhere).items()})
    panel, _ = read(tmp_path)
    for series in police.NAMES:
        whole = {"2010-12": 2011, "2011-09": 2012, "2013-05": 2014}[police.since(series)]  # its first whole year
        for y in range(2011, 2015):
            seen = panel[series].xs(y, level="year")
            assert seen.isna().all() if y < whole else seen.notna().all(), (series, y)
    assert (panel["robbery"].dropna() == 0).all() and (panel["burglary"] == 12).all()


def test_labels_of_the_three_lists_become_one_series(tmp_path: Path) -> None:
    files = year(2012, [("", CODES[0], "Violent crime"), ("", CODES[0], "Public disorder and weapons")])
    files |= year(2014, [("", CODES[0], "Violence and sexual offences"), ("", CODES[0], "Public order"),
                         ("", CODES[1], "Possession of weapons"), ("", CODES[1], "Bicycle theft"), ("", CODES[1], "Other theft")])  # fmt: skip
    zipped(tmp_path / "a.zip", files)
    panel, _ = read(tmp_path)
    assert panel["violence"][CODES[0], 2012] == panel["violence"][CODES[0], 2014] == 12
    assert panel["public_order_and_weapons"].xs(2014, level="year").sum() == 24
    assert panel["public_order"][CODES[0], 2014] == 12 and pd.isna(panel["public_order"][CODES[0], 2012])
    assert panel["theft"][CODES[1], 2014] == 24 and panel["other_theft"][CODES[1], 2014] == 12


def test_the_lists_are_the_publishers() -> None:
    """Six, eleven and fourteen labels; every one in a series, none twice among the series of one width."""
    labels = {first: set() for first in (police.SIX, police.ELEVEN, police.FOURTEEN)}  # type: dict[str, set[str]]
    for first, some in police.SERIES.values():
        labels[first] |= set(some)
    assert len(police.LABELS) == 16  # fourteen, and the two that were renamed or divided
    assert {"Violent crime", "Public disorder and weapons"} <= set(police.LABELS)
    wide = [x for name, (first, some) in police.SERIES.items() if first != police.FOURTEEN for x in some]
    assert sorted(wide) == list(police.LABELS)  # the wide series divide all crime without overlap


def test_all_crime_leaves_antisocial_behaviour_out_and_unknown_types_in(tmp_path: Path) -> None:
    rows = [("", CODES[0], "Anti-social behaviour"), ("", CODES[0], "Drugs"), ("", CODES[1], "Time theft")]
    zipped(tmp_path / "a.zip", year(2015, rows))
    panel, notes = read(tmp_path)
    assert list(panel["all_crime"]) == [12, 12, 0]
    assert "12 rows have a crime type that is in none of the three lists (Time theft)" in notes


def test_rates(tmp_path: Path) -> None:
    from biglocal.data.crime import add_rates

    zipped(tmp_path / "a.zip", year(2015, [("", CODES[1], "Robbery"), ("", CODES[0], "Robbery")]))
    panel = add_rates(read(tmp_path)[0].reset_index(), AREAS, police.NAMES).set_index("lsoa11")
    assert panel["robbery_rate"].to_dict() == {CODES[0]: 12.0, CODES[1]: 6.0, CODES[2]: 0.0}


def test_codes_of_2021_are_brought_back(tmp_path: Path) -> None:
    rows = [
        ("", CODES[0], "Burglary"),
        ("", "E01034001", "Burglary"),
        ("", "E01034001", "Drugs"),
        ("", "E01034009", "Drugs"),
    ]
    zipped(tmp_path / "a.zip", year(2022, rows))
    share = pd.DataFrame({"source": ["E01034001"] * 2, "lsoa11": CODES[1:], "share": [0.75, 0.25]})
    frame, notes = police.read(folder.folder(tmp_path).street, AREAS, 12, share)
    panel = frame.set_index("lsoa11")
    assert panel["burglary"].to_dict() == {CODES[0]: 12, CODES[1]: 9, CODES[2]: 3}
    assert panel["all_crime"].sum() == 36
    assert "24 crimes carry a code of 2001 or 2021: brought to 2011" in " ".join(notes)
    assert "12 crimes carry a code of England that is not of 2011" in " ".join(notes)


# --- doubled rows ----------------------------------------------------------------------------------------------------


def test_a_crime_that_stands_twice_counts_once(tmp_path: Path) -> None:
    files = year(2015, [("", CODES[0], "Burglary"), ("", CODES[1], "Burglary")])
    again = ("abc", CODES[0], "Burglary")
    files["2015-02", "sussex"] = [*files["2015-02", "sussex"], again, again, ("abc", CODES[0], "Robbery")]
    files["2015-03", "sussex"] = [*files["2015-03", "sussex"], again]
    zipped(tmp_path / "a.zip", files)
    panel, notes = read(tmp_path)
    assert panel["burglary"][CODES[0], 2015] == 13  # twelve without an identifier, one with
    assert panel["robbery"][CODES[0], 2015] == 1  # one identifier, another type: another offence
    assert "2 rows stand again" in notes


def test_the_archive_that_goes_on_longest_holds_a_month(tmp_path: Path) -> None:
    one, two = [("", c, "Burglary") for c in CODES], [("", c, "Burglary") for c in CODES * 2]
    zipped(tmp_path / "z named last.zip", year(2015, one))
    zipped(tmp_path / "a named first.zip", year(2015, two) | {("2016-01", "sussex"): two})
    assert (read(tmp_path)[0]["burglary"].xs(2015, level="year") == 24).all()
    notes = folder.folder(tmp_path).notes
    assert len(notes) == 12 and all("z named last.zip" in n and "once" in n for n in notes)


def test_order_of_rows_and_files_changes_nothing(tmp_path: Path) -> None:
    draw = random.Random(4)
    kinds = [*police.LABELS, "Strange"]
    files = {
        (f"2015-{m:02d}", force): [
            (
                draw.choice(["", f"{draw.randrange(400):04x}"]),
                draw.choice([*CODES, "", "W01000001"]),
                draw.choice(kinds),
            )
            for _ in range(60)
        ]
        for m in range(1, 13)
        for force in ("sussex", "kent")
    }
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    zipped(tmp_path / "a" / "x.zip", files)
    shuffled = {k: draw.sample(v, len(v)) for k, v in reversed(files.items())}
    zipped(tmp_path / "b" / "x.zip", {k: v for k, v in shuffled.items() if k[0] < "2015-07"})
    zipped(tmp_path / "b" / "y.zip", {k: v for k, v in shuffled.items() if k[0] >= "2015-07"})
    (before, said), (after, said_after) = read(tmp_path / "a"), read(tmp_path / "b")
    pd.testing.assert_frame_equal(before, after)
    assert said == said_after


# --- gaps ------------------------------------------------------------------------------------------------------------


def test_missing_months_are_flagged_in_notes_and_in_the_table(tmp_path: Path) -> None:
    rows = [("", c, "Burglary") for c in CODES]
    files = year(2015, rows) | {k: v for k, v in year(2016, rows).items() if k[0] not in ("2016-04", "2016-05")}
    files |= year(2015, [("", "", "Drugs")], "kent") | year(2016, [("", "", "Drugs")] * 9, "kent")
    zipped(tmp_path / "a.zip", files)
    panel, notes = read(tmp_path)
    assert "sussex: no street-level file for 2016-04 to 2016-05" in notes and "kent:" not in notes
    assert panel["burglary"].xs(2016, level="year").isna().all() and panel["months"].xs(2016, level="year").eq(10).all()
    table = police.coverage(folder.folder(tmp_path).street).set_index(["force", "year"])
    assert table["missing"]["sussex", 2016] == "2016-04 2016-05" and table["months"]["sussex", 2016] == 10
    assert (table["rows"]["kent", 2016], table["nowhere"]["kent", 2016]) == (108, 108)
    assert table.loc[("sussex", 2015), ["missing", "thin", "unreliable"]].tolist() == ["", "", ""]
    assert len(table.loc[("kent", 2015), "thin"].split()) == 12  # one row against a median of five


def test_greater_manchester_is_blank_from_2019(tmp_path: Path) -> None:
    rows = [("", c, "Burglary") for c in CODES]
    zipped(
        tmp_path / "a.zip", {k: v for y in (2018, 2019, 2020) for k, v in year(y, rows, "greater-manchester").items()}
    )
    panel, notes = read(tmp_path)
    assert (panel["burglary"].xs(2018, level="year") == 12).all()
    assert panel["burglary"].drop(index=2018, level="year").isna().all()
    assert list(panel["months"].xs(2019, level="year")) == [6, 6, 6]
    assert "greater-manchester: 18 files from 2019-07 on are not reliable" in notes


# --- damaged files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda t: t.replace("LSOA code", "LSOA"), ("no column LSOA code", "publisher's own file")),
        (
            lambda t: t.replace(",,\n", "\n", 1),
            ("row 2", "expected number of columns: 12 found: 10", "download it again"),
        ),
        (lambda t: t[:-20], ("row 4", "download it again")),
        (lambda t: t.replace('"On, or near"', '"On, or near', 1), ("2015-01-sussex-street.csv", "download it again")),
    ],
)
def test_bad_files_are_named(tmp_path: Path, change: object, parts: tuple[str, ...]) -> None:
    whole = text("2015-01", [("", c, "Burglary") for c in CODES])
    (tmp_path / "2015-01-sussex-street.csv").write_text(change(whole))  # type: ignore[operator]
    message = refused(tmp_path)
    for part in ("2015-01-sussex-street.csv", *parts):
        assert part in message, message


def test_cut_archives_are_refused(tmp_path: Path) -> None:
    draw = random.Random(2)
    rows = [(f"{draw.getrandbits(256):064x}", draw.choice(CODES), "Burglary") for _ in range(300)]
    whole = zipped(tmp_path / "a.zip", year(2015, rows)).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[: len(whole) // 2])
    assert "a.zip: cannot be read to its end" in refused(tmp_path)
    bad = bytearray(whole)
    bad[3000:3040] = bytes(40)
    (tmp_path / "a.zip").write_bytes(bytes(bad))
    assert "a.zip: 2015-01/2015-01-sussex-street.csv: cannot be read to its end" in refused(tmp_path)
    (tmp_path / "a.zip").unlink()
    (tmp_path / "2015-01-sussex-street.csv.gz").write_bytes(gzip.compress(text("2015-01", rows).encode())[:-200])
    assert "2015-01-sussex-street.csv.gz: cannot be read to its end" in refused(tmp_path)


def test_zip_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        out.writestr("2015-01/2015-01-sussex-street.csv", HEAD.encode() + b"," * (70 << 20))
    message = refused(tmp_path)
    assert "a.zip" in message and "would unpack to 73," in message and "download it again" in message


@pytest.mark.parametrize(
    "entry",
    [
        "../2015-01-sussex-street.csv",
        "/2015-01-sussex-street.csv",
        "a/../../2015-01-sussex-street.csv",
        "C:\\2015-01-sussex-street.csv",
    ],
)
def test_entries_that_climb_out_are_refused(tmp_path: Path, entry: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr(entry, text("2015-01", []))
    assert "points outside the archive" in refused(tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["a.zip"]


def test_rows_of_another_month_do_not_count(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", year(2015, [("", c, "Burglary") for c in CODES]))
    (tmp_path / "2016-01-sussex-street.csv").write_text(text("2015-01", [("", CODES[0], "Burglary")]))
    panel, notes = read(tmp_path, 1)
    assert panel["burglary"][CODES[0], 2015] == 12 and panel["burglary"][CODES[0], 2016] == 0
    assert "1 rows carry another month" in notes


def test_old_encodings_and_quotes_in_paths(tmp_path: Path) -> None:
    root = tmp_path / "it's, here"
    root.mkdir()
    rows = [("", c, "Burglary") for c in CODES]
    for m in range(1, 13):
        month = f"2015-{m:02d}"
        (root / f"{month}-sussex-street.csv").write_bytes(text(month, rows).replace("n,", "café,").encode("cp1252"))
    assert (read(root)[0]["burglary"] == 12).all()


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    data = tmp_path / "data"
    data.mkdir()
    zipped(data / "a.zip", year(2015, [("", c, "Burglary") for c in CODES]))
    read(data)
    (data / "2016-01-sussex-street.csv").write_text("nonsense\n1,2\n")
    refused(data)
    assert not list((tmp_path / "tmp").iterdir())


def test_in_small_bites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(tmp_path / "a.zip", year(2015, [("x", c, "Burglary") for c in CODES] * 3 + [("", CODES[0], "Drugs")]))
    before, _ = read(tmp_path)
    street._count.cache_clear()
    monkeypatch.setattr(street, "AT_ONCE", 1)
    pd.testing.assert_frame_equal(read(tmp_path)[0], before)


# --- real rows -------------------------------------------------------------------------------------------------------


def test_real_west_yorkshire_agrees_with_a_plain_count(real_data: Path) -> None:
    """Every series, LSOA and year against a few lines of plain csv; and every row accounted for."""
    plain: Counter[tuple[str, int, str]] = Counter()
    rows = blank = 0
    with zipfile.ZipFile(real_data / "police_uk_west_yorkshire.zip") as packed:
        for name in packed.namelist():
            with packed.open(name) as raw:
                for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
                    plain[row["LSOA code"], int(row["Month"][:4]), row["Crime type"]] += 1
                    rows += 1
                    blank += row["LSOA code"] == ""
    frame, covered, notes = open_tier.street_level(real_data, 1)
    assert f"{rows:,} street-level rows of 3 monthly files" in notes[0] and f"{blank:,} have no LSOA" in notes[0]
    assert covered["rows"].sum() == rows and covered["nowhere"].sum() == blank
    seen = frame.dropna(subset=["burglary"])
    labels = {
        **{s: police.SERIES[s][1] for s in police.SERIES},
        police.ALL: [x for x in police.LABELS if x != police.ANTISOCIAL],
    }
    for series, some in labels.items():
        ours = dict(zip(zip(seen["lsoa11"], seen["year"], strict=True), seen[series], strict=True))
        assert all(n == sum(plain[code, y, label] for label in some) for (code, y), n in ours.items()), series
    inside = set(seen["lsoa11"])
    outside = sum(n for (code, _, _), n in plain.items() if code and code not in inside)
    counted = seen["all_crime"].sum() + seen["antisocial_behaviour"].sum()
    assert counted + blank + outside == rows
    assert f"{outside} crimes recorded by another force" in " ".join(notes)


def test_the_verb_writes_both_tables(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from biglocal.__main__ import crime

    crime(data=real_data, outputs=tmp_path)
    said = capsys.readouterr().out
    assert "crime_coverage.csv" in said and "no street-level file for 2016-08 to 2017-06" in said
    frame = pd.read_parquet(tmp_path / "open" / "crime.parquet")
    assert (
        len(frame) == 32_844 * 3 and {"drugs", "drugs_rate"} <= set(frame) and not any(c.endswith("_z") for c in frame)
    )
    assert list(pd.read_csv(tmp_path / "open" / "crime_coverage.csv")["months"]) == [1, 1, 1]
    with pytest.raises(BiglocalError, match=r"lookup"):
        crime(data=tmp_path, outputs=tmp_path)


def test_counts_are_whole_numbers(real_data: Path) -> None:
    frame, _, _ = open_tier.street_level(real_data, 1)
    values = frame[list(police.NAMES)].to_numpy()
    assert (values[np.isfinite(values)] % 1 == 0).all()


def test_a_full_disk_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    zipped(tmp_path / "a.zip", year(2015, [("", c, "Burglary") for c in CODES]))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    with pytest.raises(OSError, match="No space left"):
        read(tmp_path)


def test_a_gzip_bomb_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(street, "LARGEST", 1 << 20)
    (tmp_path / "2015-01-sussex-street.csv.gz").write_bytes(gzip.compress(HEAD.encode() + b"," * (8 << 20)))
    assert "more than 1,048,576 bytes" in refused(tmp_path)
