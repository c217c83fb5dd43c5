"""Opening a tier: what is refused at the door, what a tier says of itself, and the secure tier's folder."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from biglocal.data import load as loading
from biglocal.data import secure
from biglocal.data.load import Request, load
from biglocal.data.tables import TABLES
from biglocal.model import DataError

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMME = "area_id,area_name,wave,announced,plan_endorsed,first_spend,progress\n001,Adur,1,2010-07-27,,,fast\n"
COSTS = "area_id,year,item,amount\n001,2015,grant,1000.5\nprogramme,2015,support,20\n"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "programme.csv").write_text(PROGRAMME)
    frame = pd.DataFrame({"area_id": ["001"], "year": [2015], "item": ["grant"], "amount": [1000.5]})
    frame.to_parquet(tmp_path / "costs.parquet")
    return tmp_path


def refused(*, tier: str = "secure", data: Path | None = None, treated: Path | None = None) -> str:
    with pytest.raises(DataError) as error:
        load(tier, data=data, treated=treated)
    return str(error.value)


def test_unknown_tier() -> None:
    message = refused(tier="sekure")
    assert "'sekure' does not exist" in message and "synthetic, open, secure" in message


@pytest.mark.parametrize("tier", ["open", "secure"])
def test_folder_is_needed_and_must_exist(tier: str, tmp_path: Path) -> None:
    assert "needs --data DIR" in refused(tier=tier)
    assert "no such folder" in refused(tier=tier, data=tmp_path / "nowhere")


def test_list_must_exist(tmp_path: Path) -> None:
    message = refused(tier="open", data=tmp_path, treated=tmp_path / "none.csv")
    assert "no such file" in message and "placebo.py" in message


def test_synthetic_takes_no_folder(tmp_path: Path) -> None:
    assert "Use the tier open" in refused(tier="synthetic", data=tmp_path)


def test_order_is_the_contract() -> None:
    assert loading.order() == tuple(TABLES)


def test_secure_tier(lab: Path) -> None:
    tier = load("secure", data=lab)
    assert (tier.banner, tier.name) == ("", "secure")
    assert set(tier.digests) == {"programme", "costs"}
    assert tier.has("costs") and not tier.has("survey")
    assert tier.table("programme")["area_id"].astype(str).tolist() == ["001"]  # a code stays a text
    assert tier.table("costs")["amount"].tolist() == [1000.5]
    assert tier.table("costs") is tier.table("costs")  # read once
    assert set(tier.lacks) == set(TABLES) - {"programme", "costs", "truth", "residents_truth"}
    with pytest.raises(DataError, match=r"no table survey \(it has programme, costs\).*survey\.parquet or survey\.csv"):
        tier.table("survey")
    assert secure.notes(tier.request) == []
    assert set(secure.files(tier.request)) == {"programme.csv", "costs.parquet"}


def test_secure_csv_and_parquet_say_the_same(lab: Path) -> None:
    before = load("secure", data=lab).table("costs")
    (lab / "costs.parquet").unlink()
    (lab / "costs.csv").write_text("\ufeff" + "\n".join(COSTS.splitlines()[:2]) + "\n", encoding="utf-8")
    pd.testing.assert_frame_equal(load("secure", data=lab).table("costs"), before, check_dtype=False)


def test_secure_digest_follows_the_file(lab: Path) -> None:
    before = load("secure", data=lab).digests
    (lab / "programme.csv").write_text(PROGRAMME.replace("Adur", "Arun"))
    after = load("secure", data=lab).digests
    assert before["programme"] != after["programme"] and before["costs"] == after["costs"]


def test_secure_refuses(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    message = refused(data=empty)
    assert "survey.parquet or survey.csv" in message and "biglocal dictionary" in message
    listed = lab / "list.csv"
    listed.write_text("x")
    assert "takes no --treated" in refused(data=lab, treated=listed)
    (lab / "costs.csv").write_text(COSTS)
    message = refused(data=lab)
    assert "costs.parquet" in message and "costs.csv" in message and "Keep one" in message


def test_secure_bad_cell_names_table_column_and_row(lab: Path) -> None:
    (lab / "programme.csv").write_text(PROGRAMME.replace(",1,", ",one,"))
    with pytest.raises(DataError, match=r"table programme, column wave: text where a number belongs: 1 of 1 rows"):
        load("secure", data=lab).table("programme")


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"x" * 99), b"area_id,year\n1,2,3,4\n5", b"\xff\xfe\x00area", b'a,"b\n1', b"a,b\n1,2,3\n"],
    ids=str,
)
def test_secure_damaged_files_are_named(lab: Path, content: bytes) -> None:
    (lab / "programme.csv").write_bytes(content)
    with pytest.raises(DataError, match="programme"):
        load("secure", data=lab).table("programme")
    (lab / "costs.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"costs\.parquet: cannot be read"):
        load("secure", data=lab).table("costs")


def test_secure_needs_a_folder() -> None:
    with pytest.raises(DataError, match="needs --data DIR"):
        secure.files(Request("secure"))
