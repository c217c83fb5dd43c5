"""LSOAs of 2001 and 2021 brought to 2011: counts conserved, shares and scores by the rules, every code accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biglocal.data import borders, folder, geography, treated
from biglocal.model import DataError

# 2021: A unchanged, B split into B1 and B2, C and D merged into M, E and F redrawn into X and Y
LOOKUP21 = """LSOA11CD,LSOA11NM,LSOA21CD,LSOA21NM,CHGIND,LAD22CD
E01000001,a,E01000001,a,U,E07
E01000002,b,E01034001,b1,S,E07
E01000002,b,E01034002,b2,S,E07
E01000003,c,E01034003,m,M,E07
E01000004,d,E01034003,m,M,E07
E01000005,e,E01034004,x,X,E07
E01000006,f,E01034004,x,X,E07
E01000006,f,E01034005,y,X,E07
W01000001,g,W01000001,g,U,W06
"""
RESIDENTS = pd.Series([1000.0, 1500, 900, 2700, 1000, 3000], index=[f"E0100000{i}" for i in range(1, 7)])


def pairs21(tmp_path: Path, text: str = LOOKUP21) -> pd.DataFrame:
    (tmp_path / "lookup.csv").write_text(text)
    found = folder.folder(tmp_path).one("lookup21")
    assert found is not None
    return geography.read_lookup21(found)


def test_the_lookup_to_2021(tmp_path: Path) -> None:
    pairs = pairs21(tmp_path)
    assert len(pairs) == 8 and list(pairs) == ["source", "lsoa11", "change"]  # Wales is out
    codes = pd.Index([*pairs["source"], "E01099999"])
    assert geography.account(codes, pairs) == {"U": 1, "S": 2, "M": 1, "X": 2, "unknown": 1}


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        (",U,", ",S,", "'S' for E01000001 and E01000001, which other rows belie"),
        ("E01034002,b2,S", "E01034002,b2,U", "which other rows belie (U is one to one"),
        ("E01034003,m,M", "E01034009,m,M", "2 such rows"),
        (",X,", ",Q,", "U, S, M or X expected"),
        ("E01034005", "", "column LSOA21CD, row 9: blank cell"),
    ],
)
def test_a_lookup_that_contradicts_itself_is_refused(tmp_path: Path, old: str, new: str, part: str) -> None:
    with pytest.raises(DataError, match=r"lookup\.csv") as error:
        pairs21(tmp_path, LOOKUP21.replace(old, new, 1))
    assert part in str(error.value)


def test_counts_by_hand(tmp_path: Path) -> None:
    pairs = pairs21(tmp_path)
    counts = pd.DataFrame(
        {"n": [5, 3, 4, 12, 8, 2]},
        index=["E01000001", "E01034001", "E01034002", "E01034003", "E01034004", "E01034005"],
    )
    got = geography.counts_to_2011(counts, pairs, RESIDENTS)["n"]
    assert got.tolist() == [5, 7, 3, 9, 2, 8]  # M by 900 to 2,700; X by 1,000 to 3,000, and y whole to f
    even = geography.counts_to_2011(counts, pairs)["n"]
    assert even.tolist() == [5, 7, 6, 6, 4, 6]
    blank = geography.counts_to_2011(counts, pairs, RESIDENTS.drop("E01000003"))["n"]
    assert blank.tolist() == [5, 7, 6, 6, 2, 8]  # one of two without residents: both evenly
    with pytest.raises(DataError, match=r"1 LSOAs are not in the lookup, the first is E01099999"):
        geography.counts_to_2011(pd.DataFrame({"n": [1]}, index=["E01099999"]), pairs)


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_conserved_whatever_the_lookup(seed: int) -> None:
    """The law: what goes in comes out, each source's shares sum to one, order of rows changes nothing."""
    rng = np.random.default_rng(seed)
    pairs = pd.DataFrame({"source": rng.integers(0, 40, 90), "lsoa11": rng.integers(0, 50, 90)}).drop_duplicates()
    pairs = pairs.astype(str).assign(change="X")
    residents = pd.Series(rng.integers(1, 3000, 45).astype(float), index=[str(i) for i in range(45)])
    values = pd.DataFrame(rng.poisson(20, (40, 3)), columns=["a", "b", "c"], index=[str(i) for i in range(40)])
    values = values[values.index.isin(pairs["source"])]
    got = geography.counts_to_2011(values, pairs, residents)
    np.testing.assert_allclose(got.sum(), values.sum(), rtol=1e-12)
    share = geography.shares(pairs, residents)
    np.testing.assert_allclose(share.groupby("source")["share"].sum(), 1, rtol=1e-12)
    mixed = geography.counts_to_2011(
        values.sample(frac=1, random_state=seed), pairs.sample(frac=1, random_state=1), residents
    )
    pd.testing.assert_frame_equal(got, mixed, rtol=1e-12)
    scaled = geography.counts_to_2011(values * 7, pairs, residents * 3)
    pd.testing.assert_frame_equal(scaled, got * 7, rtol=1e-12)


def test_a_constant_score_stays_constant() -> None:
    rng = np.random.default_rng(2)
    pairs = pd.DataFrame({"source": rng.integers(0, 40, 90), "lsoa11": rng.integers(0, 50, 90)}).drop_duplicates()
    pairs = pairs.astype(str).assign(change="X")
    values = pd.DataFrame({"v": 3.7}, index=[str(i) for i in range(40)])
    got = geography.to_2011(values, pairs, pd.Series(rng.uniform(1, 9, 40), index=values.index))
    np.testing.assert_allclose(got["v"], 3.7, rtol=1e-14)


def test_there_and_back_again() -> None:
    """Counts of whole 2011 LSOAs, written in 2021 codes (splits only), come back as they were."""
    pairs = pd.DataFrame({"source": list("abcde"), "lsoa11": list("xxyzz"), "change": list("SSUSS")})
    back = geography.counts_to_2011(pd.DataFrame({"n": [1, 2, 3, 4, 5]}, index=list("abcde")), pairs)
    assert back["n"].to_dict() == {"x": 3, "y": 3, "z": 9}


def test_real_lookup_accounts_for_every_code(real_data: Path) -> None:
    found = folder.folder(real_data).one("lookup")
    assert found is not None
    pairs = geography.read_lookup(found).pairs
    seen = geography.account(pd.Index(pairs["source"]), pairs)
    assert sum(seen.values()) == pairs["source"].nunique() == 32_482 and seen["unknown"] == 0
    residents = pd.read_csv(real_data / "england_lsoa11.csv.gz").set_index("lsoa11")["population_2011"]
    ones = pd.DataFrame({"n": 1.0}, index=pairs["source"].unique())
    got = geography.counts_to_2011(ones, pairs, residents)
    assert len(got) == 32_840 and got["n"].sum() == pytest.approx(32_482, rel=1e-12)
    assert (got["n"][pairs.loc[pairs["change"] == "U", "lsoa11"]] == 1).all()
    assert (got["n"][pairs.loc[pairs["change"] == "S", "lsoa11"]] < 1).all()
    assert (got["n"][pairs.loc[pairs["change"] == "M", "lsoa11"]] >= 2).all()


# --- lists of treated LSOAs of another census -------------------------------------------------------------------------

HEAD = "lsoa21,area_id,area_name,wave,share\n"


def bring(
    tmp_path: Path, text: str, residents: pd.Series | None = None
) -> tuple[dict[str, tuple[str, float]], list[str]]:
    path = tmp_path / "list.csv"
    path.write_text(text)
    rows, notes = treated.bring(path, treated.read(path), pairs21(tmp_path), residents)
    return {r.lsoa: (r.area_id, r.share) for r in rows}, notes


def test_shares_of_2021_become_shares_of_2011(tmp_path: Path) -> None:
    rows = "E01000001,A,a,1,0.4\nE01034001,A,a,1,1\nE01034003,B,b,2,0.8\nE01034005,B,b,2,1\n"
    got, notes = bring(tmp_path, HEAD + rows)
    assert got == {
        "E01000001": ("A", 0.4),  # unchanged
        "E01000002": ("A", 0.5),  # half of its two parts
        "E01000003": ("B", 0.8), "E01000004": ("B", 0.8),  # merged: both inherit
        "E01000006": ("B", 0.5),  # one of its two sources
    }  # fmt: skip
    assert "4 LSOAs of 2021 brought to 5 of 2011: 1 unchanged, 1 split, 1 merged, 1 complex" in notes[0]
    sizes = pd.Series(
        {"E01034001": 600.0, "E01034002": 1400.0, "E01034003": 2000, "E01034004": 1000, "E01034005": 3000}
    )
    got, notes = bring(tmp_path, HEAD + rows, sizes)
    assert got["E01000002"] == ("A", 0.3) and got["E01000006"] == ("B", 0.75)
    assert "weighted by residents" in notes[0]


def test_an_lsoa_of_two_areas_goes_to_the_larger_share(tmp_path: Path) -> None:
    got, notes = bring(tmp_path, HEAD + "E01034001,A,a,1,0.4\nE01034002,B,b,2,0.9\n")
    assert got == {"E01000002": ("B", 0.45)} and "reached by two areas" in notes[1]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (HEAD + "E01099999,A,a,1,1\n", "column lsoa21, row 2: seen 'E01099999', no LSOA of England in 2021"),
        ("lsoa11," + HEAD + "E01000001,E01000001,A,a,1,1\n", "columns lsoa11 and lsoa21: which one counts?"),
        (HEAD + "E01034001,A,a,1,1\nE01034001,A,a,1,1\n", "column lsoa21, row 3"),
    ],
)
def test_bad_lists_of_2021(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(DataError) as error:
        bring(tmp_path, text)
    assert part in str(error.value)


# --- borders ---------------------------------------------------------------------------------------------------------


def squares(codes: dict[str, tuple[int, int]], key: str = "LSOA11CD") -> str:
    """Unit squares of a grid, with a point in the middle of each side."""

    def ring(x: int, y: int) -> list[list[float]]:
        steps = [(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5), (0, 0)]
        return [[x + a, y + b] for a, b in steps]

    features = [
        {"type": "Feature", "properties": {key: c, "n": 1}, "geometry": {"type": "Polygon", "coordinates": [ring(*at)]}}
        for c, at in codes.items()
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


GRID = {
    "E01000001": (0, 0),
    "E01000002": (1, 0),
    "E01000003": (0, 1),
    "E01000004": (1, 1),
    "E01000005": (3, 3),
    "W01000001": (2, 0),
}
KNOWN = {c for c in GRID if c.startswith("E")}


def test_borders_from_boundaries_and_from_a_list_say_the_same(tmp_path: Path) -> None:
    shapes, listed = tmp_path / "shapes", tmp_path / "listed"
    shapes.mkdir()
    listed.mkdir()
    (shapes / "any name.geojson").write_text(squares(GRID))
    got = borders.read(folder.folder(shapes), KNOWN)
    pairs = {("1", "2"), ("1", "3"), ("2", "4"), ("3", "4")}  # a corner is no border, and Wales is out
    assert {(a[-1], b[-1]) for a, b in got.itertuples(index=False)} == pairs | {(b, a) for a, b in pairs}
    rows = "".join(f"E0100000{b},E0100000{a}\n" for a, b in sorted(pairs))
    (listed / "x.csv").write_text("lsoa11,neighbour\n" + rows + "E01000005,W01000001\nE01000001,E01000001\n")
    pd.testing.assert_frame_equal(borders.read(folder.folder(listed), KNOWN), got)
    assert borders.bordering(got, {"E01000001"}) == {"E01000002", "E01000003"}
    assert borders.bordering(got[got["lsoa11"] < got["neighbour"]], {"E01000004"}) == {"E01000002", "E01000003"}


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("x.geojson", squares(GRID, "LSOA21CD"), "no property LSOA11CD; it has LSOA21CD, n"),
        ("x.geojson", squares({"E01099999": (0, 0)}), "'E01099999' is no LSOA of England in 2011"),
        ("x.geojson", '{"type": "FeatureCollection"', "not a GeoJSON FeatureCollection"),
        ("x.geojson", '{"features": [{"properties": {"LSOA11CD": "E01000001"}, "geometry": null}]}', "not a GeoJSON"),
        ("x.csv", "lsoa11,neighbour\nE01000001,E01099999\n", "column neighbour, row 2"),
    ],
)
def test_bad_boundaries(tmp_path: Path, name: str, text: str, part: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as error:
        borders.read(folder.folder(tmp_path), KNOWN)
    assert name in str(error.value) and part in str(error.value)


def test_synthetic_borders_stay_in_the_district() -> None:
    from biglocal.data.load import check_references, load

    tier = load("synthetic", seed=3)
    check_references(tier, ("borders", "areas"))
    pairs, district = tier.table("borders"), tier.table("areas").set_index("lsoa11")["district"].astype(object)
    assert (district[pairs["lsoa11"]].to_numpy() == district[pairs["neighbour"]].to_numpy()).all()
    assert 1.9 < len(pairs) / len(district) < 2
