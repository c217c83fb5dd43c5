"""Who takes part: the make-up of the members who answered beside that of the adults of their areas."""

from __future__ import annotations

import numpy as np

from biglocal.model import Fit, Inapplicable, Sample, Term


def estimate(sample: Sample) -> Fit:
    """Terms `share_members`, `share_adults` and `gap` (members less adults) for each level.

    Members have `frame.treated` 1, adults 0; shares are weighted by `frame.weight`. Errors are clustered on `cluster`
    (an area's members and adults together; ratio of sums, G/(G-1)), with G - 1 degrees of freedom.

    Raises `Inapplicable` where there are no members, no adults, or one area.
    """
    frame = sample.frame
    member = frame["treated"].to_numpy() == 1
    if member.all() or not member.any():
        raise Inapplicable(f"{int(member.sum())} members and {int((~member).sum())} adults: both are needed.")
    cluster = np.unique(frame["cluster"].to_numpy(dtype=str), return_inverse=True)[1]
    groups = int(cluster.max()) + 1
    if groups < 2:
        raise Inapplicable("one area: errors clustered on areas need two.")
    weight, level = frame["weight"].to_numpy(dtype=float), frame["level"].to_numpy()
    terms: list[Term] = []
    for name in sample.levels:
        inside = (level == name).astype(float)
        behind = int((member & (level == name)).sum())
        adults = int((~member & (level == name)).sum())
        others = {"share_members": int(member.sum()) - behind, "share_adults": int((~member).sum()) - adults}
        areas = len(np.unique(cluster[member & (level == name)]))
        of: list[tuple[float, np.ndarray]] = []
        for group in (member, ~member):
            total = float(weight[group].sum())
            share = float(weight[group] @ inside[group]) / total
            influence = np.where(group, weight * (inside - share), 0.0) / total
            of.append((share, np.bincount(cluster, weights=influence, minlength=groups)))
        both = (of[0][0] - of[1][0], of[0][1] - of[1][1])
        for term, (value, sums) in zip(("share_members", "share_adults", "gap"), (*of, both), strict=True):
            of_term = {"share_members": behind, "share_adults": adults}.get(term)
            least = min(behind, adults, *others.values()) if of_term is None else min(of_term, others[term])
            error = float(np.sqrt(groups / (groups - 1) * sums @ sums))
            terms.append(
                Term(
                    term, value, error, groups - 1.0, level=name, n_treated=behind, n_treated_clusters=areas,
                    tested=term == "gap", n_persons=of_term, n_least=least,
                )
            )  # fmt: skip
    return Fit(
        tuple(terms), len(frame), len(frame), int(member.sum()), groups, caution=sample.caution,
        facts={"convention": "ratio of sums, G/(G-1), t(G-1)"},
    )  # fmt: skip
