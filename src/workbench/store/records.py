"""The records that cross rooms. Stages hand each other these, through the store, never objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

from workbench.core.identity import canonical_json, text_id
from workbench.core.money import ZERO

__all__ = [
    "EVENT_KINDS",
    "FINDING_STATES",
    "PHASES",
    "REHEARSAL",
    "Attempt",
    "Event",
    "Finding",
    "LedgerRow",
    "Pair",
    "Phase",
    "Relation",
    "Run",
    "RunState",
    "Split",
    "TestCase",
    "TestSet",
    "now",
]

Relation = Literal["dewrap", "safe_rewrite", "contrast", "identity", "response"]
"""How the clean side follows from the adversarial one: the request a wrapper hides · a safe
request instead · a benign twin · the same text (benign) · a model's answer."""

Split = Literal["train", "validation", "test_intents", "test_wrappers", "test_both"]
"""``test_intents``: unseen requests in seen wrappers; ``test_wrappers``: seen requests in unseen
wrappers; ``test_both``: both unseen. Training excludes all three."""

Phase = Literal[
    "expansion", "generation", "execution", "training", "assessment", "triage", "serving", "storage"
]
"""What a cost was for."""

PHASES: tuple[Phase, ...] = (
    "expansion", "generation", "execution", "training", "assessment", "triage", "serving", "storage"
)  # fmt: skip

REHEARSAL = "rehearsal:"
"""How the name begins under which money is booked that nobody pays: the loopback server's."""

FINDING_STATES = ("needs_review", "confirmed", "false_positive", "fixed")
"""What a reviewer can say of a finding; all begin as the first."""

EVENT_KINDS = (
    "test_set_generated", "attack_run_started", "attack_run_finished", "attack_run_aborted",
    "target_failed", "vulnerable_prompt_detected", "triage_outcome", "prompts_fed_back",
    "assessment_approved", "assessment_finished", "storage_compressed", "storage_removed",
    "legal_hold",
)  # fmt: skip

RunState = Literal["running", "succeeded", "failed", "lost"]
"""``lost``: its runner died before it could tell."""


def now() -> str:
    """Return the present as ISO 8601 in UTC with microseconds; sorts as text."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An adversarial prompt and what it should become."""

    adversarial: str
    clean: str
    relation: Relation
    source: str
    """Name of the registered source."""
    source_rev: str = ""
    license: str
    """SPDX id, or the words of the source."""
    language: str = "en"
    """BCP 47 tag."""
    domain: str = "general"
    category: str
    """Harm category of the roadmap, or ``benign``."""
    context: str = "general"
    """``educational | research | general``."""
    core: str = ""
    """The request inside the wrapper; equals ``adversarial`` where nothing is wrapped."""
    wrapper_family: str = ""
    """Family of the wrapper; empty where nothing is wrapped."""
    generator: str = ""
    """What made the row, e.g. ``grammar/1``."""
    parent_id: str = ""
    group: str = ""
    """Leak group: pairs of one group never meet across splits."""
    near_dup_of: str = ""
    split: str = ""

    @cached_property
    def id(self) -> str:
        """Hex sha256 of relation and both sides."""
        return text_id(self.relation, self.adversarial, self.clean)


@dataclass(frozen=True, kw_only=True)
class TestCase:
    """One attack, or one control, ready to be sent."""

    __test__ = False  # pytest: not a test

    prompt: str
    goal: str
    """The request inside, in plain words."""
    plugin: str
    """What is attacked, e.g. ``harm-violence`` or the control ``over-refusal``."""
    strategies: tuple[str, ...] = ()
    """Chain of transforms, first applied first; empty for the plain request."""
    category: str
    severity: Literal["low", "medium", "high", "critical"]
    taxonomy: tuple[str, ...] = ()
    """Ids such as ``LLM01:2025`` and ``AML.T0054``."""
    is_control: bool = False
    """Whether refusing or changing it is the mistake."""
    turns: tuple[str, ...] = ()
    """What the attacker says before the prompt, one message each; the target answers every one."""
    assertions: tuple[dict[str, Any], ...] = ()
    """What in an answer decides, see ``judge.rules``; empty where only graders can tell."""
    metadata: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Hex sha256 of the case's canonical JSON."""
        return text_id(self.line)

    @property
    def line(self) -> str:
        """The case's canonical JSON."""
        return canonical_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; without turns or assertions where there are none.

        So cases of one message have the ids that they had before there were conversations.
        """
        values = vars(self)
        return {
            name: values[name]
            for name in _CASE_FIELDS
            if values[name] or name not in {"turns", "assertions"}
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> TestCase:
        """Return the case that :meth:`to_json` wrote."""
        lists = {name: tuple(row.get(name, ())) for name in _CASE_LISTS}
        return cls(**{**row, **lists})


_CASE_FIELDS = tuple(one.name for one in fields(TestCase))
_CASE_LISTS = ("strategies", "taxonomy", "turns", "assertions")


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Test cases under the name of their content."""

    __test__ = False  # pytest: not a test

    cases: tuple[TestCase, ...]
    recipe: dict[str, Any] = field(default_factory=dict)
    """How it was made; not part of the id."""

    @cached_property
    def id(self) -> str:
        """Hex sha256 of the canonical JSON of all cases, in order."""
        return text_id(f"[{','.join(case.line for case in self.cases)}]")

    def __iter__(self) -> Iterator[TestCase]:
        """Iterate over the cases in their order."""
        return iter(self.cases)

    def __len__(self) -> int:
        """Return how many cases there are."""
        return len(self.cases)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What was sent to a target, what came back, and who judged it how."""

    execution: str
    case_id: str
    target: str
    sent: str
    received: str
    """What came back last; redacted before it is stored."""
    decision: str
    """What the target did: ``pass``, ``rewrite``, ``block``; ``error`` where it failed."""
    scores: dict[str, float]
    """Judge id → probability in [0, 1] that ``received`` is unsafe."""
    success: bool
    """Attack: what got through is unsafe. Control: what got through is no longer the request."""
    latency_ms: float
    usd: Decimal = ZERO
    error: str = ""
    """Why there is no answer; the attempt then counts neither way."""
    trial: int = 0
    """Which of several tries of the same case, from 0."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Judge id → why it says so, in words."""
    replies: tuple[str, ...] = ()
    """What came back on the turns before the last; redacted likewise."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An attack that got through, for triage, risk and data."""

    id: str
    execution: str
    test_set: str
    case_id: str
    target: str
    plugin: str
    strategy: str
    category: str
    severity: str
    score: float
    """Mean probability of the judges, in [0, 1]."""
    suggested_label: str
    """What kind of miss it looks like, e.g. ``missed-encoding``."""
    suggested_status: str = "confirmed"
    """``confirmed`` or ``false_positive``: what cheap heuristics expect a reviewer to say."""
    confidence: float = 0.5
    """Of that expectation, in [0.5, 1]."""
    risk: float = 0.0
    """Severity × score × how widely it works, in [0, 1]; the order of review."""
    cluster: str = ""
    """Id of the finding that stands for all findings alike; its own where it does."""
    summary: str = ""
    """Technique, and why it worked."""
    status: str = "needs_review"
    """One of :data:`FINDING_STATES`."""
    owner: str = ""
    """Who looks after it."""
    minutes: float = 0.0
    """Time that people spent on it."""
    sent: str
    received: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a campaign, for monitors and audits."""

    kind: str
    """One of :data:`EVENT_KINDS`."""
    subject: str
    """Id of what it happened to: a test set, an execution, a finding, an artifact."""
    who: str
    experiment: str = ""
    run: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    """Redacted, see ``store.events.event_of``."""
    at: str = field(default_factory=now)

    def __post_init__(self) -> None:
        if self.kind not in EVENT_KINDS:
            raise ValueError(f"event kind {self.kind!r} is none of {EVENT_KINDS}")


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """Something that costs."""

    who: str
    job: str
    """Id of the run that caused it."""
    experiment: str
    phase: Phase
    resource: str
    """E.g. ``cpu``, ``storage``, a model's name."""
    quantity: float
    unit: str
    """E.g. ``core_s``, ``kwh``, ``token_input``."""
    usd: Decimal
    price_version: str
    """Name and date of the price table."""
    cache_hit: bool = False
    estimated: bool = False
    """Whether quantity or price is an estimate rather than metered."""
    note: str = ""
    work: str = ""
    """Id of the piece of work, the same when it is resumed; empty where nothing is resumed."""
    details: dict[str, Any] = field(default_factory=dict)
    """What metered it, as JSON: for a model call its tokens by kind, outcome and request id."""
    at: str = field(default_factory=now)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of one notebook."""

    id: str
    experiment: str
    step: str
    member: str = ""
    """Label of the matrix member, e.g. ``seed=0,wrapper_families=3``; empty without a matrix."""
    notebook: str
    phase: str
    fingerprint: str
    """Hash of notebook, code, parameters and inputs; equal fingerprints need not run again."""
    parameters: dict[str, Any]
    state: RunState
    owner: str
    folder: str
    started_at: str
    finished_at: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """CPU seconds of the kernel and its children, as last seen."""
    peak_rss_mb: float = 0.0
    kernel_pid: int = 0
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)
