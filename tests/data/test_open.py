"""The open tier on small files laid out as the publishers' are, on bad ones, and (where it is at hand) on real data."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biglocal.data import folder, geography, police, treated
from biglocal.data import open as open_tier
from biglocal.data.load import Request, Tier, load
from biglocal.data.tables import REGIONS
from biglocal.model import DataError

# 2001 -> 2011: 1 and 2 unchanged, 3 split in two, 4 and 5 merged, 6 and 7 redrawn (complex); one of Wales
LOOKUP = """\ufeffLSOA01CD,LSOA01NM,LSOA11CD,LSOA11NM,CHGIND,LAD11CD,LAD11NM,LAD11NMW,FID
E01000001,Adur 001A,E01000001,Adur 001A,U,E07000001,Adur,,1
E01000002,Adur 001B,E01000002,Adur 001B,U,E07000001,Adur,,2
E01000003,Adur 002A,E01032513,Adur 002B,S,E07000001,Adur,,3
E01000003,Adur 002A,E01032514,Adur 002C,S,E07000001,Adur,,4
E01000004,Bury 001A,E01032515,Bury 001C,M,E08000002,Bury,,5
E01000005,Bury 001B,E01032515,Bury 001C,M,E08000002,Bury,,6
E01000006,Bury 002A,E01032516,Bury 002C,X,E08000002,Bury,,7
E01000007,Bury 002B,E01032516,Bury 002C,X,E08000002,Bury,,8
E01000007,Bury 002B,E01032517,Bury 002D,X,E08000002,Bury,,9
W01000001,Môn 001A,W01000001,Môn 001A,U,W06000001,Môn,Môn,10
"""
LSOAS = ["E01000001", "E01000002", "E01032513", "E01032514", "E01032515", "E01032516", "E01032517"]
RANK = "RANK OF IMD SCORE (where 1 is most deprived)"
IMD = f"\ufeffLSOA CODE,LA CODE,LA NAME,GOR CODE,GOR NAME,IMD SCORE,{RANK}\n" + "".join(
    f"E0100000{i},00AA,{'Adur' if i < 4 else 'Bury'},X,{'South East' if i < 4 else 'North West'},{i * 10}.5,{8 - i}\n"
    for i in range(1, 8)
)
CLASSES = ("A1", "B1", "C1", "C2", "D1", "D2", "E1", "E2")
RURAL = "code,LSOA11NM,RUC11CD,RUC11,FID\n" + "".join(
    f"{code},Place {i:03d}A,{ruc},words,{i}\n"
    for i, (code, ruc) in enumerate(zip([*LSOAS, "W01000001"], CLASSES, strict=True))
)
POPULATION = (
    "LSOA code (2011),LSOA name (2011),Local Authority District code (2019),Local Authority District name (2019),"
    '"Total population: mid 2015 (excluding prisoners)",Dependent Children aged 0-15: mid 2015 (excluding prisoners)\n'
) + "".join(f'{code},Place,E07000001,Adur,"1,{i}00",200\n' for i, code in enumerate(LSOAS))
SAMHI_V5 = "lsoa11,samhi_index.2018,samhi_dec.2018,samhi_index.2019,samhi_dec.2019\n" + "".join(
    f"{code},0.{i},5,1.{i},6\n" for i, code in enumerate(LSOAS)
)
SAMHI_TALL = "lsoa11,year,samhi_index,z_mh_rate,antidep_rate,est_qof_dep,prop_ibesa\n" + "".join(
    f"{code},{year},{year - 2018}.{i},0,0,0,0\n" for i, code in enumerate(LSOAS) for year in (2018, 2019)
)
TREATED = "lsoa11,area_id,area_name,wave,share\nE01000001,B1,Adur Park,1,1\nE01032515,B2,Bury Mill,2,0.75\n"
STREET = (
    "Crime ID,Month,Reported by,Falls within,Longitude,Latitude,Location,LSOA code,LSOA name,Crime type,"
    "Last outcome category,Context\n"
)


def street(month: str, rows: list[tuple[str, str]]) -> str:
    return STREET + "".join(f",{month},Force,Force,-1.5,53.6,On or near x,{code},n,{kind},,\n" for code, kind in rows)


def archive(path: Path, entries: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, text in entries.items():
            out.writestr(name, text)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of files under names that say nothing: gzipped, plain, below other folders, zipped."""
    root = tmp_path / "däta folder"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "one.csv.gz").write_bytes(gzip.compress(LOOKUP.encode()))
    (root / "deep" / "two.csv").write_text(IMD, encoding="utf-8")
    (root / "deep" / "er" / "three.csv").write_text(RURAL, encoding="utf-8")
    archive(root / "four.zip", {"File 7.csv": POPULATION})
    (root / "five.csv").write_text(SAMHI_V5, encoding="utf-8")
    return root


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "list.csv"
    path.write_text(TREATED, encoding="utf-8")
    return path


def tier(data: Path, listed: Path, min_months: int = 12) -> Tier:
    return load("open", data=data, treated=listed, min_months=min_months)


def said(data: Path, listed: Path) -> str:
    """The message of the error that reading all tables raises."""
    with pytest.raises(DataError) as error:
        at = tier(data, listed)
        for name in at.digests:
            at.table(name)
    return str(error.value)


def holds(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"


# --- the tables ------------------------------------------------------------------------------------------------------


def test_areas_by_hand(data: Path, listed: Path) -> None:
    areas = tier(data, listed).table("areas").set_index("lsoa11")
    assert list(areas.index) == LSOAS  # Wales is out
    assert areas["imd"].to_dict() == dict(zip(LSOAS, [10.5, 20.5, 30.5, 30.5, 45.5, 65.5, 70.5], strict=True))
    assert list(areas["change"]) == ["U", "U", "S", "S", "M", "X", "X"]
    assert list(areas["region"].astype(str)) == ["South East"] * 4 + ["North West"] * 3
    assert list(areas["district"].astype(str)) == ["E07000001"] * 4 + ["E08000002"] * 3
    assert list(areas["msoa11"].astype(str)) == ["Adur 001"] * 2 + ["Adur 002"] * 2 + ["Bury 001"] + ["Bury 002"] * 2
    assert list(areas["rural"]) == [False] * 4 + [True] * 3
    assert list(areas["population"]) == [1000, 1100, 1200, 1300, 1400, 1500, 1600]
    assert areas["income"].isna().all()
    assert areas["area_id"].dropna().to_dict() == {"E01000001": "B1", "E01032515": "B2"}
    assert areas["share"].dropna().to_dict() == {"E01000001": 1.0, "E01032515": 0.75}


def test_merged_scores_are_weighted_where_populations_are_at_hand(data: Path, listed: Path) -> None:
    sizes = [900, 900, 900, '"1,000"', '"3,000"', 500, 1500]
    people = "".join(f"E0100000{i},{n}\n" for i, n in enumerate(sizes, start=1))
    (data / "pop.csv").write_text("LSOA CODE,TOTAL POPULATION MID 2008\n" + people)
    imd = tier(data, listed).table("areas").set_index("lsoa11")["imd"]
    assert imd["E01032515"] == pytest.approx((40.5 * 1000 + 50.5 * 3000) / 4000)
    assert imd["E01032516"] == pytest.approx((60.5 * 500 + 70.5 * 1500) / 2000)
    assert imd["E01032513"] == 30.5
    assert any("population-weighted" in note for note in open_tier.notes(Request("open", data=data, treated=listed)))


def test_a_child_with_a_parent_without_score_is_blank(data: Path, listed: Path) -> None:
    (data / "deep" / "two.csv").write_text(IMD.replace("50.5", ""), encoding="utf-8")
    imd = tier(data, listed).table("areas").set_index("lsoa11")["imd"]
    assert pd.isna(imd["E01032515"])
    assert imd.notna().sum() == 6


def test_other_layouts_of_the_indices(data: Path, listed: Path) -> None:
    head = (
        "LSOA CODE,PRE 2009 LA CODE,PRE 2009 LA NAME,POST 2009 LA CODE,POST 2009 LA NAME,GOR CODE,GOR NAME,IMD SCORE,"
        f"{RANK},INCOME SCORE,CRIME AND DISORDER SCORE\n"
    )
    rows = "".join(f"E0100000{i},00AA,A,E07,A,G,East of England,{i * 10},{i},0.{i},-1.{i}\n" for i in range(1, 8))
    (data / "deep" / "two.csv").write_text(head + rows)
    at = tier(data, listed)
    areas = at.table("areas").set_index("lsoa11")
    assert set(areas["region"].astype(str)) == {"East"}
    assert areas["income"]["E01032515"] == pytest.approx(0.45)
    assert areas["crime"]["E01000001"] == -1.1
    assert "income" not in at.lacks and "crime" not in at.lacks
    holds(
        at.lacks["health"],
        "HEALTH DEPRIVATION AND DISABILITY SCORE",
        "English Indices 2010 domain file",
        "sources.toml",
    )


def test_the_frame_fills_what_the_publishers_leave_blank(data: Path, listed: Path) -> None:
    columns = "lsoa11,name,lad13,imd2010_score,imd2010_income,imd2010_barriers,msoa11,region,population_2011,rural\n"
    rows = "".join(f"{code},Adur 001A,E0,99,0.2,12.5,E0200000{i},London,2000,\n" for i, code in enumerate(LSOAS))
    (data / "frame.csv").write_text(columns + rows + "E01032599,Adur 003A,E0,88,0.3,1,E02000009,London,1500,1\n")
    at = tier(data, listed)
    areas = at.table("areas").set_index("lsoa11")
    assert areas["imd"]["E01000001"] == 10.5  # the publisher's stands
    assert areas["income"]["E01000001"] == 0.2
    assert areas["housing"]["E01000001"] == 12.5
    assert areas["msoa11"]["E01000001"] == "E02000000"
    assert areas["population"]["E01000001"] == 2000
    new = areas.loc["E01032599"]  # in the frame only: kept, as complex, in the district its name says
    assert (new["change"], new["district"], new["imd"], new["rural"]) == ("X", "E07000001", 88, True)
    assert any("E01032599" in note for note in open_tier.notes(Request("open", data=data, treated=listed)))


@pytest.mark.parametrize("spelling", ["Yorkshire and The Humber", "YORKSHIRE AND THE HUMBER", "Yorkshire & the Humber"])
def test_regions_in_each_spelling(spelling: str) -> None:
    assert open_tier._region_name(spelling) == "Yorkshire and The Humber"
    assert open_tier._region_name("East of England") == "East"
    assert open_tier._region_name("Wales") is None
    assert all(open_tier._region_name(region) == region for region in REGIONS)


def test_order_of_rows_changes_nothing(data: Path, listed: Path) -> None:
    before = {name: tier(data, listed).table(name) for name in ("areas", "area_panel", "programme")}
    shuffle = random.Random(1).shuffle
    for path, text in (("deep/two.csv", IMD), ("deep/er/three.csv", RURAL), ("five.csv", SAMHI_V5)):
        head, *rows = text.splitlines(keepends=True)
        shuffle(rows)
        (data / path).write_text(head + "".join(rows), encoding="utf-8")
    head, *rows = LOOKUP.splitlines(keepends=True)
    shuffle(rows)
    (data / "one.csv.gz").write_bytes(gzip.compress((head + "".join(rows)).encode()))
    head, *rows = TREATED.splitlines(keepends=True)
    listed.write_text(head + "".join(reversed(rows)))
    after = tier(data, listed)
    for name, frame in before.items():
        pd.testing.assert_frame_equal(after.table(name), frame)


def test_programme(data: Path, listed: Path) -> None:
    at = tier(data, listed)
    programme = at.table("programme")
    assert list(programme["announced"].dt.strftime("%Y-%m-%d")) == ["2010-07-27", "2012-02-29"]
    assert programme[["plan_endorsed", "first_spend", "progress"]].isna().all(axis=None)
    holds(at.lacks["survey"], "UK Data Service")
    assert {"survey", "residents", "costs", "truth", "earlier_funding", "progress"} <= set(at.lacks)
    with pytest.raises(DataError, match="UK Data Service"):
        at.table("survey")


# --- SAMHI -----------------------------------------------------------------------------------------------------------


def test_samhi_wide_and_tall_say_the_same(data: Path, listed: Path) -> None:
    wide = tier(data, listed).table("area_panel")
    assert wide.set_index(["lsoa11", "year"])["samhi"]["E01032513", 2019] == 1.2
    (data / "five.csv").write_text(SAMHI_TALL)
    pd.testing.assert_frame_equal(tier(data, listed).table("area_panel"), wide)
    without_deciles = [",".join([line.split(",")[0], *line.split(",")[1::2]]) for line in SAMHI_V5.split()]  # as v4
    (data / "five.csv").write_text("\n".join(without_deciles))
    pd.testing.assert_frame_equal(tier(data, listed).table("area_panel"), wide)


def test_samhi_versions_are_never_mixed(data: Path, listed: Path) -> None:
    part = SAMHI_V5.replace("samhi_index.2018", "samhi_index.2011").splitlines(keepends=True)[:4]
    (data / "zz v5 part.csv").write_text("".join(part))
    panel = tier(data, listed).table("area_panel")
    assert sorted(panel["year"].unique()) == [2018, 2019]
    notes = open_tier.notes(Request("open", data=data, treated=listed))
    assert any("zz v5 part.csv: not used" in note and "never mixed" in note for note in notes)


def test_samhi_rows_that_stand_twice(data: Path, listed: Path) -> None:
    lines = SAMHI_V5.splitlines(keepends=True)
    (data / "five.csv").write_text("".join([*lines, lines[2], lines[3]]))
    panel = tier(data, listed).table("area_panel")
    assert len(panel) == 14
    assert any("2 rows stand twice" in note for note in open_tier.notes(Request("open", data=data, treated=listed)))
    (data / "five.csv").write_text("".join([*lines, lines[2].replace("0.1", "0.9")]))
    holds(said(data, listed), "five.csv", "lsoa11", "row 9", "E01000002", "Keep the right one")


# --- police ----------------------------------------------------------------------------------------------------------


def year_of(year: int, rows: list[tuple[str, str]], force: str = "sussex") -> dict[str, str]:
    return {f"{year}-{m:02d}/{year}-{m:02d}-{force}-street.csv": street(f"{year}-{m:02d}", rows) for m in range(1, 13)}


ROWS = [
    ("E01000001", "Burglary"), ("E01000001", "Violence and sexual offences"), ("E01000001", "Violent crime"),
    ("E01000002", "Anti-social behaviour"), ("E01000002", "Other theft"), ("", "Burglary"),
    ("W01000001", "Burglary"), ("E01032515", "Burglary"),
]  # fmt: skip


def test_police_counts(data: Path, listed: Path) -> None:
    archive(data / "2019-12.zip", year_of(2018, ROWS) | year_of(2011, ROWS))
    at = tier(data, listed)
    panel = at.table("area_panel").set_index(["lsoa11", "year"])
    first = panel.loc["E01000001", 2018]
    assert (first["burglary"], first["violence"], first["antisocial_behaviour"], first["months"]) == (12, 24, 0, 12)
    assert panel.loc["E01000002", 2018]["antisocial_behaviour"] == 12
    assert panel.loc["E01032513", 2018]["burglary"] == 0  # of a covered force, no crime in a full year
    assert panel.loc["E01032515", 2018][["burglary", "months"]].isna().all()  # another force's place: not covered
    assert pd.isna(panel.loc["E01000001", 2011]["criminal_damage"])  # four months since the category exists
    assert panel.loc["E01000001", 2011]["burglary"] == 12
    assert panel.loc["E01000001", 2018]["burglary_rate"] == pytest.approx(12 / 1000 * 1000)
    assert "burglary" not in at.lacks
    notes = " ".join(open_tier.notes(at.request))
    holds(notes, "192 street-level rows of 24 monthly files", "24 have no LSOA", "24 crimes recorded by another force")


def test_police_years_that_are_not_whole_are_blank_and_said(data: Path, listed: Path) -> None:
    entries = year_of(2018, ROWS)
    archive(data / "a.zip", dict(list(entries.items())[:3]))
    at = tier(data, listed)
    panel = at.table("area_panel").set_index(["lsoa11", "year"])
    assert panel["burglary"].isna().all()
    assert panel["months"]["E01000001", 2018] == 3
    holds(at.lacks["burglary_z"], "at most 3 of 12 months", "data.police.uk", "min_months")
    assert tier(data, listed, 3).table("area_panel").set_index(["lsoa11", "year"])["burglary"]["E01000001", 2018] == 3


def test_police_months_in_two_archives_count_once(data: Path, listed: Path) -> None:
    archive(data / "2018-12.zip", year_of(2018, [*ROWS, *ROWS]))
    archive(data / "2019-12.zip", year_of(2018, ROWS))
    panel = tier(data, listed).table("area_panel").set_index(["lsoa11", "year"])
    assert panel["burglary"]["E01000001", 2018] == 12  # the later archive's
    notes = open_tier.notes(Request("open", data=data, treated=listed))
    assert any("2018-12.zip" in note and "once" in note for note in notes)


def test_police_unpacked_and_zipped_say_the_same(data: Path, listed: Path) -> None:
    entries = year_of(2018, ROWS) | {"2018-01/2018-01-sussex-outcomes.csv": "a,b\n1,2\n"}
    packed = archive(data / "a.zip", entries)
    before = tier(data, listed).table("area_panel")
    packed.unlink()
    for name, text in entries.items():
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_text(text)
    pd.testing.assert_frame_equal(tier(data, listed).table("area_panel"), before)


def test_police_codes_of_2021_make_no_zeros(data: Path, listed: Path) -> None:
    archive(data / "a.zip", year_of(2018, [*ROWS, ("E01034000", "Burglary")]))
    panel = tier(data, listed).table("area_panel").set_index(["lsoa11", "year"])
    assert pd.isna(panel["burglary"]["E01032513", 2018])  # its crimes may stand under the 2021 code
    assert panel["burglary"]["E01000002", 2018] == 0  # seen, with other crimes


def test_police_codes_of_other_censuses_are_brought_to_2011(data: Path, listed: Path) -> None:
    rows = [("E01000003", "Burglary"), ("E01034001", "Burglary"), ("E01034002", "Burglary"), ("E01000001", "Burglary")]
    (data / "21.csv").write_text(
        "LSOA11CD,LSOA21CD,CHGIND\nE01000001,E01000001,U\nE01000002,E01034001,S\nE01000002,E01034002,S\n"
    )
    archive(data / "a.zip", year_of(2018, rows))
    at = tier(data, listed)
    burglary = at.table("area_panel").set_index(["lsoa11", "year"])["burglary"].xs(2018, level="year").dropna()
    # a 2001 LSOA that was split divides by residents, 1,200 to 1,300; two parts of 2021 go back whole; nothing is lost
    assert burglary.to_dict() == {
        "E01000001": 12, "E01000002": 24, "E01032513": pytest.approx(5.76), "E01032514": pytest.approx(6.24),
    }  # fmt: skip
    assert any("36 crimes carry a code of 2001 or 2021" in note for note in open_tier.notes(at.request))


def test_police_entry_that_climbs_out_is_refused(data: Path, listed: Path) -> None:
    archive(data / "bad.zip", {"../2018-01-sussex-street.csv": street("2018-01", ROWS)})
    holds(said(data, listed), "bad.zip", "../2018-01-sussex-street.csv", "outside the archive", "download it again")


def test_railway_police_are_the_force_of_no_place() -> None:
    areas = pd.DataFrame({"lsoa11": LSOAS, "district": ["a"] * 7})
    own = police._own_force(np.array([[9] * 7, [1] * 7]), areas, [False, True])
    assert list(own) == [1] * 7


# --- files that are missing, damaged, doubled ------------------------------------------------------------------------


def test_missing_files_are_listed_with_their_columns(data: Path, listed: Path) -> None:
    (data / "one.csv.gz").unlink()
    (data / "deep" / "two.csv").unlink()
    holds(said(data, listed), "LSOA01CD, LSOA11CD, CHGIND, LAD11CD", "LSOA CODE, IMD SCORE", "five.csv", "sources.toml")


def test_without_outcomes_there_is_no_panel(data: Path, listed: Path) -> None:
    (data / "five.csv").unlink()
    at = tier(data, listed)
    assert not at.has("area_panel")
    holds(at.lacks["samhi"], "samhi_index.YYYY", "sources.toml")
    assert "area_panel" in at.lacks


@pytest.mark.parametrize("keep", [15, 120])
def test_truncated_gzip(data: Path, listed: Path, keep: int) -> None:
    (data / "one.csv.gz").write_bytes(gzip.compress(LOOKUP.encode())[:keep])
    holds(said(data, listed), "one.csv.gz", "cut or damaged", "download it again")


def test_corrupt_zip(data: Path, listed: Path) -> None:
    whole = (data / "four.zip").read_bytes()
    (data / "four.zip").write_bytes(whole[: len(whole) // 2])
    holds(said(data, listed), "four.zip", "download it again")
    broken = bytearray(whole)
    broken[80:90] = b"x" * 10
    (data / "four.zip").write_bytes(bytes(broken))
    holds(said(data, listed), "four.zip", "download it again")


def test_two_files_of_one_role(data: Path, listed: Path) -> None:
    (data / "again.csv").write_text(IMD, encoding="utf-8")
    tier(data, listed)  # the same content: no harm
    (data / "again.csv").write_text(IMD.replace("10.5", "11.5"), encoding="utf-8")
    holds(said(data, listed), "again.csv", "deep/two.csv", "English Indices of Deprivation 2010", "Keep one")


@pytest.mark.parametrize(
    ("path", "text", "old", "new", "parts"),
    [
        ("deep/two.csv", IMD, "30.5", "n.k.", ("two.csv", "IMD SCORE", "row 4", "n.k.", "text where a number belongs")),
        ("deep/two.csv", IMD, "30.5", "300.5", ("two.csv", "IMD SCORE", "row 4", "at most 100", "Correct")),
        ("deep/two.csv", IMD, "E01000003", "E01000002", ("two.csv", "LSOA CODE", "row 4", "twice", "Keep one")),
        ("deep/two.csv", IMD, "E01000003", "95AA01S1", ("two.csv", "LSOA CODE", "row 4", "2001 LSOA code", "Correct")),
        ("deep/two.csv", IMD, "South East", "Wessex", ("two.csv", "GOR NAME", "row 2", "Wessex", "London")),
        ("deep/two.csv", IMD, ",00AA,Adur,X,South East,30.5,5", "", ("two.csv", "row", "expected 7 columns")),
        ("deep/er/three.csv", RURAL, ",C1,", ",R9,", ("three.csv", "RUC11CD", "row 4", "R9", "2011 classification")),
        ("five.csv", SAMHI_V5, "0.2", "-", ("five.csv", "samhi_index.2018", "row 4", "text where a number belongs")),
        ("five.csv", SAMHI_V5, "0.2", "99", ("five.csv", "samhi_index.2018", "row 4", "at most 15")),
        ("five.csv", SAMHI_V5, "samhi_index.2019", "samhi_index.2119", ("five.csv", "2119", "2010 to 2022")),
        ("five.csv", SAMHI_V5, "E01032513", "E01000003", ("five.csv", "lsoa11", "row 4", "2011 LSOA", "E01000003")),
        ("five.csv", SAMHI_TALL, "2019,1.2", "3019,1.2", ("five.csv", "column year", "row 7", "3019", "at most 2022")),
        ("five.csv", SAMHI_TALL, "2019,1.2", "2018,1.2", ("five.csv", "lsoa11", "row 7", "stands above", "Keep")),
    ],
)  # fmt: skip
def test_bad_cells_are_named(
    data: Path, listed: Path, path: str, text: str, old: str, new: str, parts: tuple[str, ...]
) -> None:
    (data / path).write_text(text.replace(old, new, 1), encoding="utf-8")
    holds(said(data, listed), *parts)


def test_bad_population_and_lookup(data: Path, listed: Path) -> None:
    archive(data / "four.zip", {"File 7.csv": POPULATION.replace('"1,200"', "many")})
    holds(said(data, listed), "four.zip: File 7.csv", "Total population", "row 4", "many")
    archive(data / "four.zip", {"File 7.csv": POPULATION})
    (data / "one.csv.gz").write_bytes(gzip.compress(LOOKUP.replace(",X,", ",Q,", 1).encode()))
    holds(said(data, listed), "one.csv.gz", "CHGIND", "row 8", "'Q'", "U, S, M or X")


def test_other_encodings_and_line_ends(data: Path, listed: Path) -> None:
    before = tier(data, listed).table("areas")
    text = LOOKUP.removeprefix("\ufeff").replace("\n", "\r\n") + "\r\n"
    (data / "one.csv.gz").write_bytes(gzip.compress(text.encode("cp1252")))
    pd.testing.assert_frame_equal(tier(data, listed).table("areas"), before)


# --- the list of treated LSOAs ---------------------------------------------------------------------------------------

HEAD = "lsoa11,area_id,area_name,wave,share\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("list.csv", "no column lsoa11", "nothing", "apart by commas")),
        (HEAD, ("list.csv", "empty", "placebo.py")),
        ("# PLACEBO\n" + HEAD, ("list.csv", "empty", "row 2")),
        ("lsoa11,area_id,wave,share\n", ("list.csv", "no column area_name", "area_id, wave")),
        (HEAD + "E01000001,B1,Adur,1,1\nE01000009,B1,Adur,1,1\n", ("lsoa11", "row 3", "E01000009", "Correct")),
        (HEAD + "E01000003,B1,Adur,1,1\n", ("row 2", "2001 code", "E01032513, E01032514", "Give the 2011 code")),
        (HEAD + "E01034567,B1,Adur,1,1\n", ("row 2", "2021", "lookup from 2011 to 2021")),
        (HEAD + "W01000001,B1,Adur,1,1\n", ("row 2", "Wales", "Drop the row")),
        (HEAD + "Adur 001A,B1,Adur,1,1\n", ("row 2", "not an LSOA code", "E01 and six digits")),
        (HEAD + "E01000001,B1,A,1,1\n" * 2, ("list.csv", "lsoa11", "row 3", "stands in row 2 too", "Keep one row")),
        (HEAD + "E01000001,B1,A,1,0\n", ("column share", "row 2", "'0'", "above 0 and up to 1")),
        (HEAD + "E01000001,B1,A,1,75\n", ("column share", "row 2", "'75'", "0.75, not 75")),
        (HEAD + "E01000001,B1,A,1,nan\n", ("column share", "row 2", "'nan'", "above 0 and up to 1")),
        (HEAD + "E01000001,B1,A,1,all\n", ("column share", "row 2", "'all'", "text where a number belongs")),
        (HEAD + "E01000001,B1,A,4,1\n", ("column wave", "row 2", "'4'", "waves 1, 2 and 3")),
        (HEAD + "E01000001,B1,A,one,1\n", ("column wave", "row 2", "'one'", "text where a number belongs")),
        (HEAD + "E01000001,B1,A,1,1\nE01000002,B1,A,2,1\n", ("wave", "row 3", "B1 has wave 1 in row 2", "one wave")),
        (HEAD + "E01000001,B1,A,1,1\nE01000002,B1,B,1,1\n", ("column area_name", "row 3", "'A' in row 2", "one name")),
        (HEAD + "E01000001,,A,1,1\n", ("column area_id", "row 2", "required", "Fill it")),
        (HEAD + "E01000001,B1,Adur, Park,1,1\n", ("row 2", "6 cells", "double quotes")),
        ("# PLACEBO list\n" + HEAD + "E01000001,B1,A,9,1\n", ("column wave", "row 3")),
    ],
)  # fmt: skip
def test_bad_lists_are_refused(data: Path, listed: Path, text: str, parts: tuple[str, ...]) -> None:
    listed.write_text(text, encoding="utf-8")
    holds(said(data, listed), *parts)


def test_lists_of_other_censuses(data: Path, listed: Path) -> None:
    listed.write_text(TREATED.replace("lsoa11", "lsoa01").replace("E01032515", "E01000004"))
    at = tier(data, listed)
    areas = at.table("areas").set_index("lsoa11")
    assert areas["share"].dropna().to_dict() == {"E01000001": 1.0, "E01032515": 0.375}  # half of two merged, at 0.75
    assert any("2 LSOAs of 2001 brought to 2 of 2011" in note for note in open_tier.notes(at.request))
    listed.write_text(TREATED.replace("lsoa11", "lsoa21").replace("E01032515", "E01034001"))
    holds(said(data, listed), "column lsoa21", "LSOA11CD, LSOA21CD, CHGIND", "Put it into the folder")
    before = tier(data, listed).digests
    (data / "21.csv").write_text(
        "LSOA11CD,LSOA21CD,CHGIND\nE01000001,E01000001,U\nE01032513,E01034001,S\nE01032513,E01034002,S\n"
    )
    at = tier(data, listed)
    assert at.digests["areas"] != before["areas"] and "21.csv" in open_tier.files(at.request)
    assert at.table("areas").set_index("lsoa11")["share"].dropna().to_dict() == {"E01000001": 1.0, "E01032513": 0.375}


def test_borders_are_a_table_of_their_own(data: Path, listed: Path) -> None:
    assert "geojson" in tier(data, listed).lacks["borders"]
    (data / "near.csv").write_text("lsoa11,neighbour\nE01000001,E01000002\n")
    at = tier(data, listed)
    assert "borders" not in at.lacks and at.table("borders").to_numpy().tolist() == [
        ["E01000001", "E01000002"], ["E01000002", "E01000001"],
    ]  # fmt: skip
    assert "near.csv" in open_tier.files(at.request)


def test_no_list(data: Path) -> None:
    with pytest.raises(DataError, match=r"--treated FILE.*not public.*placebo\.py"):
        load("open", data=data)


def test_banner(data: Path, listed: Path) -> None:
    assert tier(data, listed).banner == ""
    listed.write_text("\ufeff# placebo list, seed 1\r\n" + TREATED.replace("\n", "\r\n"), encoding="utf-8")
    at = tier(data, listed)
    assert at.banner == "PLACEBO"
    assert len(at.table("programme")) == 2


def test_a_list_saved_by_a_spreadsheet(data: Path, listed: Path) -> None:
    listed.write_bytes((TREATED.replace("Adur Park", '"Château, Adur"') + ",,,,\n").encode("cp1252"))
    assert tier(data, listed).table("programme")["area_name"][0] == "Château, Adur"


# --- digests ---------------------------------------------------------------------------------------------------------


def test_digests_follow_content_and_not_place(data: Path, listed: Path, tmp_path: Path) -> None:
    before = tier(data, listed).digests
    (data / "five.csv").rename(data / "deep" / "renamed.csv")
    assert tier(data, listed).digests == before
    assert tier(data, listed, 6).digests["area_panel"] != before["area_panel"]
    (data / "deep" / "renamed.csv").write_text(SAMHI_V5.replace("0.1", "0.2"))
    now = tier(data, listed).digests
    assert now["area_panel"] != before["area_panel"] and now["areas"] == before["areas"]
    listed.write_text(TREATED.replace("0.75", "0.8"))
    last = tier(data, listed).digests
    assert last["areas"] != now["areas"] and last["programme"] != now["programme"]
    assert last["area_panel"] == now["area_panel"]
    names = open_tier.files(Request("open", data=data, treated=listed))
    assert set(names) == {"deep/er/three.csv", "deep/renamed.csv", "deep/two.csv", "four.zip", "list.csv", "one.csv.gz"}
    assert not any(str(tmp_path) in name for name in names)


def test_digests_need_no_data_frames(data: Path, listed: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from biglocal.data.load import load; "
        "t = load('open', data=Path(sys.argv[1]), treated=Path(sys.argv[2])); "
        "assert t.digests and t.lacks; assert 'pandas' not in sys.modules and 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(data), str(listed)], check=True)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_numbers_with_thousands() -> None:
    found = folder.Found(Path("x.csv"), "", "x.csv", ("n",))
    assert list(folder.numbers(found, "n", pd.Series(["1,296", "5"], dtype=str))) == [1296, 5]


def test_one_parent_keeps_its_number() -> None:
    pairs = pd.DataFrame({"source": ["a", "b", "c"], "lsoa11": ["x", "y", "y"], "change": ["U", "M", "M"]})
    values = pd.DataFrame({"imd": [0.1 + 0.2, 1.0, 2.0]}, index=["a", "b", "c"])
    got = geography.to_2011(values, pairs, pd.Series({"a": 3.0, "b": 1.0, "c": 3.0}))
    assert list(got["imd"]) == [0.1 + 0.2, 1.75]


def test_list_of_treated_is_read_without_pandas(listed: Path) -> None:
    rows = treated.read(listed)
    assert [(r.row, r.lsoa, r.wave, r.share) for r in rows] == [(2, "E01000001", 1, 1.0), (3, "E01032515", 2, 0.75)]


# --- real data -------------------------------------------------------------------------------------------------------

PLACEBO = Path(__file__).parents[1] / "fixtures" / "placebo.csv"


@pytest.fixture(scope="module")
def real(real_data: Path) -> Tier:
    return load("open", data=real_data, treated=PLACEBO)


def test_real_areas(real: Tier) -> None:
    areas = real.table("areas")
    assert len(areas) == 32_844
    assert areas["imd"].notna().mean() > 0.99
    assert areas["income"].notna().sum() == 31_672
    assert areas["rural"].notna().all() and areas["population"].notna().all()
    assert areas["region"].nunique() == 9
    assert (areas["area_id"].nunique(), real.banner) == (150, "PLACEBO")
    assert 700 <= areas["area_id"].notna().sum() <= 900
    assert (areas.loc[areas["area_id"].notna(), "imd"] >= areas["imd"].quantile(0.8)).all()
    assert real.table("programme")["wave"].value_counts().to_dict() == {1: 50, 2: 50, 3: 50}


def test_real_scores_agree_with_the_prepared_frame(real: Tier, real_data: Path) -> None:
    frame = pd.read_csv(real_data / "england_lsoa11.csv.gz").set_index("lsoa11")
    areas = real.table("areas").set_index("lsoa11")
    both = frame["imd2010_score"].dropna()
    pd.testing.assert_series_equal(areas["imd"][both.index], both, check_names=False)
    assert (areas["region"].astype(str) == frame["region"].reindex(areas.index)).all()


def test_real_panel(real: Tier) -> None:
    panel = real.table("area_panel")
    assert panel.dropna(subset=["samhi"])["lsoa11"].nunique() == 31_310
    assert sorted(panel["year"].unique()) == list(range(2013, 2020))
    assert panel["burglary"].isna().all()  # three single months
    holds(real.lacks["burglary_z"], "1 of 12 months")


def test_real_crime_agrees_with_a_plain_count(real_data: Path) -> None:
    import csv
    from collections import Counter

    counts: Counter[tuple[str, int]] = Counter()
    with zipfile.ZipFile(real_data / "police_uk_west_yorkshire.zip") as packed:
        for name in packed.namelist():
            with packed.open(name) as raw:
                for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
                    if row["Crime type"] == "Burglary":
                        counts[row["LSOA code"], int(row["Month"][:4])] += 1
    panel = load("open", data=real_data, treated=PLACEBO, min_months=1).table("area_panel")
    seen = panel.dropna(subset=["burglary"])
    frame = pd.read_csv(real_data / "england_lsoa11.csv.gz").set_index("lsoa11")["police_force"]
    assert set(seen["lsoa11"]) == set(frame[frame == "West Yorkshire"].index)
    assert all(
        counts[code, year] == n for code, year, n in seen[["lsoa11", "year", "burglary"]].itertuples(index=False)
    )


def test_the_committed_placebo_list_is_the_one_that_is_drawn(real_data: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    script = Path(__file__).parents[2] / "data-raw" / "placebo.py"
    out = tmp_path / "drawn.csv"
    subprocess.run([sys.executable, script, "--data", real_data, "--out", out], check=True)
    assert out.read_bytes() == PLACEBO.read_bytes()
