"""Who could have been treated instead: the places among which the list of areas is dealt anew.

A place is a Big Local area, or the LSOAs of an MSOA without one, six at most, the most deprived first. Places of one
region and one band of deprivation (bands cut at quantiles of the MSOAs) are taken to be exchangeable: a draw gives the
names of the band's areas, with their dates, to as many of its places, each as likely. The list as it is is one of these
draws, so under the sharp null of no effect on any LSOA in any year p-values over the draws are exact for areas drawn so
(Fisher 1935; Imbens and Rubin 2015, chapter 5). The programme's areas were chosen, not drawn: places that were passed
over for reasons that go with the trend of the outcome make the test say too much. Boundaries are not exchangeable: an
area keeps its own, another place has its MSOA's. Nor does the test say anything of a null of no effect on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from biglocal.specifications import multiverse

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from biglocal.model import Study
    from biglocal.sample import Draw

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SMALLEST, LARGEST = 3, 6  # LSOAs of a place that is no area


@dataclass(frozen=True, slots=True)
class Places:
    """Who could change hands: `of` (N,) the place of each LSOA, -1 for none; `label` (P,) the area a place is, as a
    code into `names`, -1 for none; `stratum` (P,); `share` (N,) that of the area's residents who live in the LSOA."""

    of: Ints
    label: Ints
    stratum: Ints
    names: tuple[str, ...]
    share: Floats

    def drawn(self, rng: np.random.Generator) -> Ints:
        """Another list: the area that each place is now (P,), -1 for none."""
        import numpy as np

        out = np.full(len(self.label), -1)
        key, turn = rng.random(len(self.label)), rng.random(len(self.label))
        by_key = np.lexsort((key, self.stratum))
        named = np.flatnonzero(self.label >= 0)
        named = named[np.lexsort((turn[named], self.stratum[named]))]
        # the first places of a stratum in random order take its areas' names, these too in random order
        first = np.searchsorted(self.stratum[by_key], self.stratum[named])
        nth = np.arange(len(named)) - np.searchsorted(self.stratum[named], self.stratum[named])
        out[by_key[first + nth]] = self.label[named]
        return out


def exchangeable(frame: pd.DataFrame, study: Study, names: tuple[str, ...]) -> Places:
    """The places of `frame` (as `Draw.places`), and within which of them names change hands.

    LSOAs of an area with too small a share go with it. MSOAs that an area has an LSOA of are no place of their own.
    """
    import numpy as np
    import pandas as pd

    m = multiverse(study)
    code = pd.Index(names).get_indexer(pd.Index(frame["area_id"].astype(object)))
    share = np.where(code >= 0, frame["share"].to_numpy(dtype=float), np.nan)
    msoa, msoas = pd.factorize(frame["msoa11"].astype(str), sort=True)
    imd = frame["imd"].to_numpy(dtype=float)
    known = np.isfinite(imd)
    taken = np.zeros(len(msoas), dtype=bool)
    taken[msoa[code >= 0]] = True
    free = np.flatnonzero(~taken[msoa] & known)
    order = free[np.lexsort((free, -imd[free], msoa[free]))]
    rank = np.arange(len(order)) - np.searchsorted(msoa[order], msoa[order])
    order = order[rank < LARGEST]
    order = order[np.bincount(msoa[order], minlength=len(msoas))[msoa[order]] >= SMALLEST]
    of = np.where(code >= 0, code, -1)
    others, number = np.unique(msoa[order], return_inverse=True)
    of[order] = len(names) + number
    size = len(names) + len(others)
    inside = (of >= 0) & known & ~(share < study.policy.treated_share)
    count = np.bincount(of[inside], minlength=size)
    mean = np.bincount(of[inside], imd[inside], size) / np.maximum(count, 1)
    region, _ = pd.factorize(frame["region"].astype(str), sort=True)
    home = np.full(size, -1)
    at = np.flatnonzero(of >= 0)[::-1]
    home[of[at]] = region[at]
    national = np.bincount(msoa[known], imd[known]) / np.maximum(np.bincount(msoa[known]), 1)
    cuts = np.quantile(national, np.arange(1, m.bands) / m.bands)
    own = np.arange(size)
    label = np.where(own < len(names), own, -1)
    # an area without an LSOA of its own, or of unknown deprivation, keeps its name
    stratum = np.where(count > 0, home * m.bands + np.searchsorted(cuts, mean), -1 - own)
    return Places(of, label, stratum, names, share)


def relisted(draw: Draw, p: Places, area: Ints) -> Draw:
    """The draw under another list: `area` (P,) is the area that each place is now."""
    import numpy as np
    import pandas as pd

    frame = draw.places()
    of = np.where(p.of >= 0, area[p.of], -1)
    moved = of != np.where(p.of >= 0, p.label[p.of], -1)
    share = np.where(of < 0, np.nan, np.where(moved & np.isnan(p.share), 1.0, p.share))
    return draw.relabelled(
        frame.assign(area_id=pd.Categorical.from_codes(of.astype(np.int64), categories=pd.Index(p.names)), share=share)
    )
