"""Inventories drawn by lot, to rehearse an assessment at the size that one expects."""

from __future__ import annotations

from typing import Final

import numpy as np

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import seeded
from workbench.risk.records import EXPOSURES, Asset, Occurrence
from workbench.risk.snapshot import Snapshot

__all__ = ["draw"]

_UNKNOWN_SHARE: Final = 0.1
"""Of the assets, those of which nobody said how critical or exposed they are."""
_TEAMS: Final = ("platform", "payments", "research", "support", "web")
_SOURCE: Final = "drawn by lot"


def draw(
    snapshot: Snapshot, *, cves: int, assets: int, share: float = 1.0, seed: int = 0
) -> tuple[dict[str, Asset], list[Occurrence]]:
    """Return invented assets, and CVEs of a snapshot that stand on them.

    Args:
        snapshot: Whose CVEs are drawn, each once.
        cves: How many, or all if there are fewer.
        assets: How many.
        share: Of the assets that have each CVE, at least one; in (0, 1].
        seed: Of the draw.

    Raises:
        DataError: If the snapshot has no CVE records.
        ConfigError: If a number makes no sense.
    """
    if cves < 1 or assets < 1 or not 0 < share <= 1:
        raise ConfigError(
            f"draw {cves} CVEs on {assets} assets, each on a share of {share}: draw one or more of"
            " both, and a share in (0, 1]"
        )
    table = snapshot.table("cve")
    if table is None or not table.num_rows:
        raise DataError(
            f"snapshot {snapshot.id[:12]} has no CVE records; run `workbench risk sync`"
        )
    random = np.random.default_rng(seed)
    chosen = random.choice(table.num_rows, size=min(cves, table.num_rows), replace=False)
    ids = table["cve"].take(np.sort(chosen)).to_pylist()
    made = {one.id: one for one in (_asset(number, seed) for number in range(1, assets + 1))}
    names = list(made)
    per_cve = max(1, round(share * assets))
    occurrences = [
        Occurrence(subject=cve, asset=names[at], source=_SOURCE)
        for cve in ids
        for at in np.sort(random.choice(assets, size=per_cve, replace=False)).tolist()
    ]
    return made, occurrences


def _asset(number: int, seed: int) -> Asset:
    random = seeded("asset", number, seed)
    is_known = random.random() >= _UNKNOWN_SHARE
    return Asset(
        id=f"drawn-{number:03d}",
        name=f"Drawn asset {number}",
        criticality=random.choices((1, 2, 3, 4, 5), weights=(1, 3, 4, 3, 1))[0]
        if is_known
        else None,
        exposure=random.choices(EXPOSURES, weights=(3, 5, 2))[0] if is_known else None,
        owner=random.choice(_TEAMS),
        environment="rehearsal",
        source=_SOURCE,
    )
