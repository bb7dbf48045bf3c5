"""An assessment from files to register: intake, evidence, score, decision, explanation.

::

    options = AssessOptions(files=(Path("sbom.json"),), assets=Path("assets.csv"))
    done = await assess(store, options)

A stage that is done is kept: killed anywhere, the same call goes on, asks no source and no model
twice, and leaves the register as one undisturbed run would.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import content_id
from workbench.risk.assemble import Scored, assemble, without_rejected
from workbench.risk.decide import MODEL_POLICY, POLICIES, assumptions, due_dates
from workbench.risk.diff import Changes, diff
from workbench.risk.documents.retrieve import passages_of
from workbench.risk.evidence import freshness
from workbench.risk.explain import Explained, explain_rows
from workbench.risk.explain_rules import RULES
from workbench.risk.gathered import gathered
from workbench.risk.inputs import read_inputs, scope_of
from workbench.risk.rationale import MOST, TOP, to_explain, with_explanations
from workbench.risk.records import Intake
from workbench.risk.register import (
    Assessment,
    as_risks,
    load_assessment,
    recorded,
    rows_of,
    save_assessment,
)
from workbench.risk.snapshot import Snapshot, load_snapshot
from workbench.risk.summary import figures
from workbench.store import risks as register
from workbench.store.events import tell as tell_event

if TYPE_CHECKING:
    from workbench.llm.config import GatewayConfig
    from workbench.store.database import Store

__all__ = [
    "AssessOptions", "Assessed", "Clock", "Draft", "Pending", "Stage", "assess", "draft",
]  # fmt: skip

Stage = Literal["evidence", "scores"]
"""After which somebody can be asked whether to go on."""


@dataclass(frozen=True, kw_only=True)
class AssessOptions:
    """What to assess, by which evidence and policy."""

    files: tuple[Path, ...] = ()
    """CVE ids, CSV, SBOMs, VEX, scanner output; see ``intake.read``."""
    cves: tuple[str, ...] = ()
    """Ids without a file; they stand on ``asset``."""
    assets: Path | None = None
    """Inventory."""
    asset: str = ""
    """On which asset things are that say nothing of it."""
    campaigns: tuple[str, ...] = ()
    """Executions, or the beginnings of their ids; ``newest`` for that."""
    target_assets: Mapping[str, str] = field(default_factory=dict)
    """Target of a campaign → asset that it is part of."""
    snapshot: str = ""
    """Id; empty for the newest; ``sample`` for the shipped one."""
    draw_cves: int = 0
    """So many CVEs of the snapshot are dealt over invented assets, to rehearse at size."""
    draw_assets: int = 50
    draw_share: float = 1.0
    """Of those assets, on which each CVE is."""
    policy: str = POLICIES[0]
    today: date | None = None
    """The day that is assessed; None: today, in UTC."""
    model: str = RULES
    """Who explains: ``rules``, ``routed`` for the configured models, or a model's name."""
    documents: str = ""
    """Index of documents that give context; empty: none."""
    llm: GatewayConfig | None = None
    """How models are called; as the settings say if not given."""
    years: int = 10_000
    """Drawn for the percentiles of losses."""
    seed: int = 0
    label: str = ""
    """The same work under another label is another assessment."""

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"policy is {self.policy!r}; write one of {', '.join(POLICIES)}")
        if self.today and not date(1990, 1, 1) <= self.today <= date(9000, 1, 1):
            raise ConfigError(f"today is {self.today}; give a day of our time")
        if self.seed < 0 or self.years < 1:
            what = f"seed is {self.seed}, years {self.years}"
            raise ConfigError(f"{what}; give a seed of 0 or more, and a year or more")
        if self.cves and not self.asset:
            raise ConfigError("CVE ids without a file need the asset that they are on; give asset")
        if not (self.files or self.cves or self.campaigns or self.draw_cves):
            raise ConfigError("nothing to assess; give CVE ids, files, or a campaign")


@dataclass(frozen=True, kw_only=True)
class Pending:
    """Stopped for a decision; nothing was entered in the register yet."""

    stage: Stage
    summary: Mapping[str, Any]
    """What to decide on, in plain JSON values."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Scored, decided and compared with the assessment before, not yet explained."""

    id: str
    """Of the assessment: what its rows depend on."""
    snapshot: Snapshot
    intake: Intake
    table: pa.Table
    manifest: dict[str, Any]
    """Of ``AssessmentResult`` what is known by now."""
    explained: dict[int, dict[str, Any]]
    """Position in the table → row to be explained, with its reasons and evidence."""


@dataclass(frozen=True, kw_only=True)
class Assessed:
    """A finished assessment."""

    assessment: Assessment
    result: dict[str, Any]
    """``AssessmentResult``."""
    recorded: register.RecordCounts
    """What it changed in the register."""


async def assess(
    store: Store,
    options: AssessOptions,
    *,
    executor: Executor | None = None,
    approve: Callable[[Pending], bool] = lambda _: True,
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _all: None,
    on_text: Callable[[str], None] = lambda _: None,
    tell: Callable[[str], None] = print,
) -> Assessed | Pending:
    """Return the assessment; writes the register, may spend money on explanations.

    Args:
        store: Snapshot, campaigns and register.
        options: What to assess.
        executor: Runs the workers that gather evidence, e.g. that of a Dask client; two threads
            if not given.
        approve: Asked after evidence and after scoring; False stops there.
        progress: Told the stage and how much of it is done.
        on_text: Given the narrative as it comes.
        tell: Given a line when something is held or explained by rules.

    Raises:
        InputError: If a file, snapshot or option makes no sense; nothing was written.
        StoreError: If the store cannot be written.
    """
    today = options.today or datetime.now(UTC).date()
    clock = Clock(progress)
    made = draft(store, options, today=today, executor=executor, approve=approve, clock=clock)
    if isinstance(made, Pending):
        return made
    explained = await explain_rows(
        store, list(made.explained.values()), model=options.model, facts=made.manifest,
        documents=passages_of(store, options.documents) if options.documents else None,
        most=MOST, work=made.id, config=options.llm, on_text=on_text, tell=tell,
        progress=lambda done, whole: progress("explain", done, whole),
    )  # fmt: skip
    clock.done("explain", len(made.explained))
    table = with_explanations(made.table, made.explained, explained)
    manifest = {**made.manifest, **_explained(table, explained, clock)}
    save_assessment(store, table, manifest)
    counts = register.record(
        store.engine, recorded(table), assessment=made.id, today=today, who=store.settings.user,
        scope=scope_of(made.intake, made.snapshot),
    )  # fmt: skip
    tell_event(store, "assessment_finished", made.id, {"risks": len(table), **counts._asdict()})
    return Assessed(
        assessment=Assessment(id=made.id, table=table, manifest=manifest),
        result={"kind": "assessment", **manifest},
        recorded=counts,
    )


def draft(
    store: Store,
    options: AssessOptions,
    *,
    today: date,
    executor: Executor | None = None,
    approve: Callable[[Pending], bool] = lambda _: True,
    clock: Clock | None = None,
) -> Draft | Pending:
    """Return the assessment before anybody explains it; enters nothing in the register.

    Args and errors as of :func:`assess`.
    """
    clock = clock or Clock()
    snapshot = load_snapshot(store, options.snapshot)
    intake = read_inputs(store, options, snapshot)
    clock.done("intake", len(intake.occurrences) + len(intake.model_risks))
    cves = tuple(dict.fromkeys(one.subject for one in intake.occurrences))
    evidence = gathered(store, cves, snapshot, today=today, executor=executor)
    intake = without_rejected(intake, evidence)
    clock.done("evidence", len(cves))
    if not approve(seen := _evidence_seen(evidence, snapshot, intake, today=today)):
        return seen
    scored = assemble(
        intake, evidence, policy=options.policy, years=options.years, seed=options.seed
    )
    table = _settled(store, scored, today=today)
    manifest = figures(table, intake, today=today)
    clock.done("score", len(table))
    if not approve(seen := _scores_seen(manifest)):
        return seen
    work = _work_of(intake, snapshot, options, today=today)
    manifest |= _told(work, snapshot, options, today=today)
    manifest |= _evidence_told(evidence, scored, policy=options.policy)
    manifest |= _compared(table, _before(store, work, table, scope=scope_of(intake, snapshot)))
    return Draft(
        id=work, snapshot=snapshot, intake=intake, table=table, manifest=manifest,
        explained=to_explain(table, evidence, intake),
    )  # fmt: skip


class Clock:
    """Seconds of each stage, told as they end."""

    def __init__(
        self, progress: Callable[[str, int, int], None] = lambda _stage, _done, _all: None
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._began = time.monotonic()

    def done(self, stage: str, items: int) -> None:
        """Say that a stage ended, which had so many items."""
        now = time.monotonic()
        self.seconds[stage] = round(now - self._began, 3)
        self._began = now
        self._progress(stage, items, items)


def _work_of(intake: Intake, snapshot: Snapshot, options: AssessOptions, *, today: date) -> str:
    """Return the id of an assessment: what its rows depend on."""
    occurrences = sorted(
        (one.id, one.state, one.reason, one.component) for one in intake.occurrences
    )
    models = sorted(astuple(one) for one in intake.model_risks)
    assets = sorted(
        (one.id, one.criticality, one.exposure, one.owner, one.incident_usd)
        for one in intake.assets.values()
    )
    chosen = (options.policy, options.model, options.documents, options.seed, options.years)
    return content_id(
        [occurrences, models, assets, snapshot.id, today.isoformat(), chosen, options.label]
    )


def _settled(store: Store, scored: Scored, *, today: date) -> pa.Table:
    """Return the scored risks with what people decided of them, as the register will have them."""
    columns = dict(scored.columns)
    ids = _listed(columns["id"])
    seen = register.first_seen(store.engine, ids)
    since = [seen.get(one, today.isoformat()) for one in ids]
    columns["due"] = due_dates(since, scored.days.tolist())
    columns |= {"status": ["open"] * len(ids), "first_seen": since}
    rows = recorded(pa.table(columns))
    settled = register.settle(store.engine, rows, today=today)
    for name in ("status", "due", "owner", "reason", "first_seen"):
        columns[name] = [row[name] for row in settled]
    return as_risks(columns)


def _before(
    store: Store, work: str, table: pa.Table, *, scope: set[tuple[str, str]]
) -> Assessment | None:
    """Return the newest other assessment of an asset of this one; None: the first.

    It is cut to what this one looked at, so that only what is closed counts as gone.
    """
    ids, assets = {*table["id"].to_pylist()}, table["asset"].unique()
    for row in store.artifacts.rows("assessment"):
        if row["id"] == work:
            continue
        try:
            before = load_assessment(store, row["id"])
        except DataError:  # damaged: the one before that tells as well
            continue
        if not pc.any(pc.is_in(before.table["asset"], value_set=assets)).as_py():
            continue
        rows = before.table.select(["id", "asset", "told_by"]).to_pylist()
        is_shared = [one["id"] in ids or (one["asset"], one["told_by"]) in scope for one in rows]
        return replace(before, table=before.table.filter(pa.array(is_shared, pa.bool_())))
    return None


def _listed(values: Any) -> list[str]:
    return list(values.to_pylist()) if hasattr(values, "to_pylist") else list(values)


def _evidence_seen(
    evidence: pa.Table, snapshot: Snapshot, intake: Intake, *, today: date
) -> Pending:
    return Pending(
        stage="evidence",
        summary={
            "vulnerabilities": len(evidence),
            "model_risks": len(intake.model_risks),
            "snapshot": snapshot.id,
            "snapshot_age_days": snapshot.age_days(today),
            "freshness": freshness(evidence),
            "problems": len(intake.problems),
        },
    )


def _scores_seen(draft: Mapping[str, Any]) -> Pending:
    worst = [
        {name: row[name] for name in ("subject", "asset", "level", "score", "due")}
        for row in draft["top"][:TOP]
    ]
    return Pending(stage="scores", summary={"counts": draft["counts"], "worst": worst})


def _told(work: str, snapshot: Snapshot, options: AssessOptions, *, today: date) -> dict[str, Any]:
    return {
        "assessment": work,
        "today": today.isoformat(),
        "policy": options.policy,
        "snapshot": snapshot.id,
        "snapshot_made_at": snapshot.made_at,
        "snapshot_age_days": snapshot.age_days(today),
        "sources": snapshot.ages(today),
    }


def _evidence_told(evidence: pa.Table, scored: Scored, *, policy: str) -> dict[str, Any]:
    decided = {
        f"{kind}, {name}": words
        for kind, of in (("due dates", policy), ("due dates of model risks", MODEL_POLICY))
        for name, words in assumptions(of).items()
    }
    return {
        "freshness": freshness(evidence),
        "loss": scored.losses.rows,
        "loss_assumptions": scored.losses.assumptions | decided,
    }


def _compared(table: pa.Table, before: Assessment | None) -> dict[str, Any]:
    changes = diff(before.table, table) if before else Changes(counts={}, rows=[])
    return {
        "changes": changes.rows,
        "change_counts": changes.counts,
        "since": before.id if before else "",
    }


def _explained(table: pa.Table, explained: Explained, clock: Clock) -> dict[str, Any]:
    by: dict[str, int] = {}
    for one in explained.explained_by.values():
        by[one] = by.get(one, 0) + 1
    cost = {"usd": float(explained.usd), "calls": explained.calls, "hits": explained.hits}
    return {
        "top": rows_of(table.filter(pc.equal(table["status"], "open")), top=TOP),
        "narrative": explained.narrative,
        "narrated_by": explained.narrated_by,
        "explained_by": by,
        "cost": cost | {f"{stage}_s": spent for stage, spent in clock.seconds.items()},
    }
