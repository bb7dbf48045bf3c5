"""Everything that an assessment is about, read once: files, ids, campaigns, drawn inventories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.core.errors import DataError
from workbench.core.settings import seeds_folder
from workbench.risk.draw import draw
from workbench.risk.intake.inventory import asset_id, by_name
from workbench.risk.intake.purls import component_text
from workbench.risk.intake.read import read_all
from workbench.risk.intake.reading import advisory_of
from workbench.risk.match import matched
from workbench.risk.model_risks import model_risks
from workbench.risk.records import LEVELS, Asset, Intake, ModelRisk, Occurrence
from workbench.risk.snapshot import Snapshot

if TYPE_CHECKING:
    from workbench.risk.assess import AssessOptions
    from workbench.store.database import Store

__all__ = ["BY_HAND", "NEWEST", "read_inputs", "sample_inputs", "scope_of"]

NEWEST: Final = "newest"
"""In place of the id of an execution."""
BY_HAND: Final = "given by hand"
"""Source of ids without a file."""
_SAMPLE: Final = ("inventory.csv", "sbom.cdx.json", "vex.json")


def read_inputs(store: Store, options: AssessOptions, snapshot: Snapshot) -> Intake:
    """Return what is to be assessed, with components matched against the snapshot's advisories.

    Raises:
        DataError: If a file, an id or a campaign makes no sense.
        ConfigError: If an inventory is to be drawn and a number makes no sense.
    """
    known = {one.id: one for one in _told_assets(snapshot)}
    drawn: list[Occurrence] = []
    if options.draw_cves:
        invented, drawn = draw(
            snapshot, cves=options.draw_cves, assets=options.draw_assets,
            share=options.draw_share, seed=options.seed,
        )  # fmt: skip
        known |= invented
    intake = read_all(options.files, assets=options.assets, asset=options.asset, known=known)
    intake = matched(intake, snapshot.table("osv"), snapshot.table("packages"))
    asset = asset_id(options.asset, by_name(intake.assets))
    given = [*_by_hand(options.cves, asset=asset), *drawn]
    found = {one.id: one for one in (*given, *intake.occurrences)}
    models = _pooled(
        one
        for execution in options.campaigns
        for one in model_risks(
            store, "" if execution == NEWEST else execution, asset_of=options.target_assets
        )
    )
    assets = {one: Asset(id=one) for one in _named((*found.values(), *models))} | {**intake.assets}
    return replace(intake, assets=assets, occurrences=tuple(found.values()), model_risks=models)


def _pooled(found: Iterable[ModelRisk]) -> tuple[ModelRisk, ...]:
    """Return one risk of those that several campaigns tell of: their attempts are one sample."""
    groups: dict[str, dict[str, ModelRisk]] = {}
    for one in found:
        groups.setdefault(one.id, {})[one.execution] = one
    return tuple(_pool([*group.values()]) for group in groups.values())


def _pool(group: Sequence[ModelRisk]) -> ModelRisk:
    severities = [one.severity for one in group]
    return replace(
        group[0],
        techniques=tuple(sorted({name for one in group for name in one.techniques})),
        successes=sum(one.successes for one in group),
        attempts=sum(one.attempts for one in group),
        findings=sum(one.findings for one in group),
        confirmed=sum(one.confirmed for one in group),
        severity=max(severities, key=lambda one: [*LEVELS, one].index(one)),
        source="; ".join(one.source for one in group),
    )


def _by_hand(cves: Iterable[str], *, asset: str) -> list[Occurrence]:
    made = []
    for given in cves:
        subject = advisory_of(given)
        if not subject:
            raise DataError(f"{given[:40]!r} is no CVE id; write e.g. CVE-2021-44228")
        made.append(Occurrence(subject=subject, asset=asset, source=BY_HAND, told_by="hand"))
    return made


def _told_assets(snapshot: Snapshot) -> list[Asset]:
    """Return the assets that a service told of, e.g. ServiceNow."""
    table = snapshot.table("assets")
    if table is None:
        return []
    rows: list[dict[str, Any]] = table.drop_columns("as_of").to_pylist()
    return [
        Asset(**{name: value for name, value in row.items() if value is not None}) for row in rows
    ]


def _named(things: Iterable[Any]) -> dict[str, None]:
    return dict.fromkeys(one.asset for one in things)


def scope_of(intake: Intake, snapshot: Snapshot) -> set[tuple[str, str]]:
    """Return asset and kind of source of all that was looked at in full.

    What such a source told there before and tells no more is closed. Ids given by hand are a
    choice of somebody, a VEX speaks of some components, and an attack that was not tried again may
    still get through: these say nothing of the rest. Nor do components without advisories to
    compare them with.
    """
    looked_at: set[tuple[str, str]] = {
        (one.asset, one.told_by) for one in intake.occurrences if one.told_by in {"list", "scanner"}
    }
    osv = snapshot.table("osv")
    if intake.components is None or osv is None or not osv.num_rows:
        return looked_at
    spoken = {(one.asset, one.component) for one in intake.occurrences if one.told_by == "vex"}
    rows = intake.components.select(("asset", "purl", "name", "version")).to_pylist()
    return looked_at | {
        (row["asset"], "advisory")
        for row in rows
        if (row["asset"], component_text(row["purl"], row["name"], row["version"])) not in spoken
    }


def sample_inputs() -> tuple[tuple[Path, ...], Path]:
    """Return the files of the shipped sample, and its inventory of assets."""
    folder = seeds_folder() / "risk"
    return tuple(folder / name for name in _SAMPLE), folder / "assets.csv"
