"""LSOAs that border on each other: from a list the user brings, or from boundaries in GeoJSON.

Two LSOAs border where their outlines share at least two points: boundaries that fit together, as those of the ONS
do, share every point of a common stretch, and a touch at one corner is no border.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from biglocal.data.folder import Folder, Found, content, refuse, texts
from biglocal.data.tables import LSOA11
from biglocal.model import DataError

if TYPE_CHECKING:
    import pandas as pd

CODE = re.compile("lsoa11cd", re.IGNORECASE)
DIGITS = 6  # of coordinates: a tenth of a metre in degrees, and exact in metres


def read(at: Folder, known: set[str]) -> pd.DataFrame:
    """The table `borders` (lsoa11, neighbour; each pair both ways), from the list if there is one.

    `known` are the LSOAs of 2011; Wales is left out. Raises `DataError` for a code that is not among them, or a
    file that is no GeoJSON of 2011 LSOAs.
    """
    import pandas as pd

    found = at.one("borders")
    pairs = _listed(found, known) if found else _touching(_outlines(_boundaries(at), known))
    both = pd.concat([pairs, pairs.rename(columns={"lsoa11": "neighbour", "neighbour": "lsoa11"})])
    both = both[both["lsoa11"] != both["neighbour"]].drop_duplicates()
    return both.sort_values(["lsoa11", "neighbour"], ignore_index=True)[["lsoa11", "neighbour"]]


def bordering(borders: pd.DataFrame, inside: set[str]) -> set[str]:
    """The LSOAs that border on one of `inside` by the table `borders`, which may have a pair once or both ways."""
    one, other = (borders[c].astype(object) for c in ("lsoa11", "neighbour"))
    return set(other[one.isin(inside)]) | set(one[other.isin(inside)])


def _boundaries(at: Folder) -> Found:
    found = at.one("boundaries")
    assert found is not None  # the tier has the table only with one of the two
    return found


def _listed(found: Found, known: set[str]) -> pd.DataFrame:
    own = {name: found.column(name) for name in ("lsoa11", "neighbour")}
    pairs = texts(found, own)
    for name, column in own.items():
        welsh = pairs[name].str.startswith("W01").fillna(False).to_numpy(dtype=bool)
        bad = ~(pairs[name].isin(known).to_numpy() | welsh)
        refuse(found, column, bad, pairs[name], "no LSOA of England in 2011", "Correct the cell, or drop the row.")
    return pairs[pairs["lsoa11"].isin(known) & pairs["neighbour"].isin(known)]


def _outlines(found: Found, known: set[str]) -> dict[str, list[Any]]:
    """LSOA -> its rings, each a list of points, from a FeatureCollection of polygons."""
    try:
        whole = json.loads(content(found.path, found.member, found.name))
        features = whole["features"]
        out: dict[str, list[Any]] = {}
        for feature in features:
            key = next((k for k in feature["properties"] if CODE.fullmatch(k)), None)
            if key is None:
                names = ", ".join(list(feature["properties"])[:6])
                raise DataError(f"{found.name}: no property LSOA11CD; it has {names}. Use the boundaries of 2011.")
            code, shape = str(feature["properties"][key]), feature["geometry"]
            if code.startswith("W01"):
                continue
            if code not in known or not re.fullmatch(LSOA11, code):
                raise DataError(f"{found.name}: {code!r} is no LSOA of England in 2011. Use the boundaries of 2011.")
            if shape["type"] not in ("Polygon", "MultiPolygon"):
                raise ValueError(shape["type"])
            polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
            out.setdefault(code, []).extend(ring for polygon in polygons for ring in polygon)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{found.name}: not a GeoJSON FeatureCollection of polygons ({type(error).__name__}). Download the "
            f"boundaries of the 2011 LSOAs as GeoJSON again."
        ) from None
    return out


def _touching(outlines: dict[str, list[Any]]) -> pd.DataFrame:
    """Pairs (lsoa11, neighbour) whose outlines share at least two points; each pair once, in the order of codes."""
    import numpy as np
    import pandas as pd

    codes = sorted(outlines)
    points = [np.asarray(ring, dtype=float)[:, :2] for code in codes for ring in outlines[code]]
    owner = np.repeat(np.arange(len(codes)), [sum(len(ring) for ring in outlines[code]) for code in codes])
    at = np.round(np.concatenate(points), DIGITS) + 0.0 if points else np.zeros((0, 2))
    frame = pd.DataFrame({"x": at[:, 0], "y": at[:, 1], "owner": owner}).drop_duplicates()
    shared = frame[frame.duplicated(["x", "y"], keep=False)]
    met = shared.merge(shared, on=["x", "y"], suffixes=("", "_other"))
    met = met[met["owner"] < met["owner_other"]]
    count = met.groupby(["owner", "owner_other"]).size()
    pairs = count[count >= 2].index.to_frame(index=False)
    names = np.array(codes, dtype=object)
    return pd.DataFrame({"lsoa11": names[pairs["owner"]], "neighbour": names[pairs["owner_other"]]})
