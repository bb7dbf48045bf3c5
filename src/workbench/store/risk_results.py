"""What notebook 07 leaves in ``result.json``, beside those of ``store.results``."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

__all__ = [
    "AssessmentResult", "CalendarRow", "ChangeRow", "CountsRow", "FreshnessRow", "LossRow",
    "RiskRow", "SourceAge",
]  # fmt: skip


class RiskRow(TypedDict):
    """A risk as the register shows it."""

    id: str
    kind: str
    """``cve`` or ``model``."""
    subject: str
    title: str
    asset: str
    component: str
    """Of a model risk: its target."""
    state: str
    """What VEX says: ``affected``, ``under_investigation``, ``fixed``, ``not_affected``."""
    level: str
    score: int
    """1 to 25; what is not known is taken at its worst."""
    score_known: int
    """The same with what is not known taken as usual."""
    likelihood: int
    impact: int
    p_exploit: float
    """Within 30 days, in [0, 1]; what is not known is taken as usual."""
    annual_loss_usd: float
    """Expected."""
    decision: str
    due: str
    """ISO date; empty: with the next upgrade."""
    owner: str
    status: str
    """``open``, ``accepted``, ``closed``."""
    first_seen: str
    missing: list[str]
    stale: list[str]
    reasons: NotRequired[list[str]]
    """Of the top risks only, like what follows."""
    explanation: NotRequired[str]
    explained_by: NotRequired[str]
    """``rules`` or a model's name."""
    techniques: NotRequired[list[str]]
    """ATT&CK or ATLAS ids; empty: unmapped."""
    fixed_in: NotRequired[str]


class SourceAge(TypedDict):
    """A source in the snapshot."""

    name: str
    status: str
    as_of: str
    age_days: int
    rows: int
    error: str


class FreshnessRow(TypedDict):
    """How far one kind of evidence goes."""

    kind: str
    checked: int
    missing: int
    stale: int
    oldest: str
    newest: str


class CalendarRow(TypedDict):
    """Risks due on one day, by level."""

    due: str
    low: int
    medium: int
    high: int
    critical: int


class LossRow(TypedDict):
    """What a year may cost, in dollars."""

    group: str
    """``all`` or an asset."""
    expected: float
    p05: float
    p50: float
    p95: float
    p99: float


class ChangeRow(TypedDict):
    """How one risk changed since the assessment before."""

    id: str
    subject: str
    asset: str
    change: str
    """``new``, ``gone``, ``worse``, ``better``, ``closed``, ``reopened``."""
    before: str
    after: str


class CountsRow(TypedDict):
    """How many risks there are of what kind."""

    risks: int
    open: int
    closed: int
    """By VEX, by fix, or by a person."""
    cves: int
    model_risks: int
    assets: int
    components: int
    kev: int
    """Open risks of vulnerabilities known to be exploited."""
    overdue: int
    due_7_days: int
    by_level: dict[str, int]
    """Open ones."""


class AssessmentResult(TypedDict):
    """``kind: assessment`` (notebook 07)."""

    kind: Literal["assessment"]
    assessment: str
    today: str
    policy: str
    snapshot: str
    snapshot_made_at: str
    snapshot_age_days: int
    sources: list[SourceAge]
    counts: CountsRow
    matrix: list[list[int]]
    """Open risks by likelihood (rows, 1 to 5) and impact (columns, 1 to 5)."""
    top: list[RiskRow]
    """The 20 worst, with reasons and explanation."""
    register: list[RiskRow]
    """The 300 worst; the whole is the artifact."""
    closed: list[dict[str, str]]
    """Closed ones, 100 at most: subject, asset, component, state, reason, source."""
    calendar: list[CalendarRow]
    decisions: dict[str, int]
    freshness: list[FreshnessRow]
    loss: list[LossRow]
    loss_assumptions: dict[str, str]
    """What the losses rest on, in words, with seed and years drawn."""
    files: list[dict[str, str | int]]
    problems: list[str]
    changes: list[ChangeRow]
    """50 at most."""
    change_counts: dict[str, int]
    since: str
    """Assessment that it is compared with; empty: the first."""
    narrative: str
    """For managers, in paragraphs."""
    narrated_by: str
    """``rules`` or a model's name."""
    explained_by: dict[str, int]
    """``rules`` or model → vulnerabilities and model risks explained."""
    cost: dict[str, float]
    """usd, calls, hits, seconds of intake, evidence, score, explain."""
