"""What the stages of an assessment hand each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from workbench.core.identity import text_id

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "EXPOSURES", "LEVELS", "STATES", "Asset", "Component", "Exposure", "Intake",
    "Level", "ModelRisk", "Occurrence", "State", "Status",
]  # fmt: skip

Status = Literal["checked", "missing", "stale"]
"""Of a piece of evidence. Missing: nobody could be asked. Stale: what was last known."""

Exposure = Literal["small", "controlled", "open"]
"""Who reaches an asset: few inside · many inside, or few outside · everybody (SSVC's terms)."""

ToldBy = Literal["list", "scanner", "advisory", "vex", "hand", "campaign"]
"""What told of a risk: an assessment closes what the same kind of source tells no more."""

State = Literal["affected", "under_investigation", "fixed", "not_affected"]
"""What VEX says; the last two close a risk."""

Level = Literal["low", "medium", "high", "critical"]

EXPOSURES: tuple[Exposure, ...] = ("small", "controlled", "open")
STATES: tuple[State, ...] = ("affected", "under_investigation", "fixed", "not_affected")
LEVELS: tuple[Level, ...] = ("low", "medium", "high", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """Something that can be harmed."""

    id: str
    name: str = ""
    criticality: int | None = None
    """From 1, nobody would notice, to 5, the mission fails; None: nobody said."""
    exposure: Exposure | None = None
    owner: str = ""
    environment: str = ""
    incident_usd: float | None = None
    """What one incident costs, where the inventory says; else by impact."""
    source: str = ""
    """File and place, or service, that told of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A piece of software on an asset."""

    purl: str
    """Package URL with version; empty where the file gives none."""
    name: str
    version: str = ""
    asset: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """A vulnerability on an asset, in a component: what may become a risk."""

    subject: str
    """``CVE-…``, or the advisory's own id where no CVE is known."""
    asset: str
    component: str = ""
    """Package URL, or name and version; empty where the whole asset is meant."""
    state: State = "affected"
    reason: str = ""
    """Why it is in that state, e.g. the justification of a VEX."""
    fixed_in: str = ""
    """First version without it."""
    source: str = ""
    """File and format, or service, that told of it."""
    told_by: ToldBy = "list"
    """A list of what is on the asset; a VEX alone; an advisory on a component of the asset."""

    @cached_property
    def id(self) -> str:
        """Hex sha256 of subject, asset and component without version: the same after updates."""
        return text_id(self.subject, self.asset, _versionless(self.component))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRisk:
    """What a campaign found of one kind of attack on one target."""

    subject: str
    """Id of OWASP's list, e.g. ``LLM01:2025``; else of ATLAS; ``unmapped`` where neither fits."""
    asset: str
    """The target, or the asset that it was said to be part of."""
    target: str
    techniques: tuple[str, ...]
    """``AML.T…`` ids."""
    successes: int
    """Attempts that got through, less those that reviewers call false positives."""
    attempts: int
    severity: str
    """Worst that got through; of all that was tried where nothing did."""
    findings: int
    confirmed: int
    execution: str
    source: str = ""

    @property
    def id(self) -> str:
        """Hex sha256 of subject, asset and target."""
        return text_id(self.subject, self.asset, self.target)


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Everything that was read, before anything is judged."""

    assets: Mapping[str, Asset] = field(default_factory=dict)
    occurrences: tuple[Occurrence, ...] = ()
    components: pa.Table | None = None
    """Columns of :class:`Component`; 100,000 rows are nothing special."""
    model_risks: tuple[ModelRisk, ...] = ()
    files: tuple[Mapping[str, Any], ...] = ()
    """file, format, occurrences, components, assets of each."""
    problems: tuple[str, ...] = ()
    """What was left out and why, one line each: file, place, value, fix."""


def _versionless(component: str) -> str:
    """Return a package URL, or name, without version, qualifiers and subpath."""
    base = component.partition("#")[0].partition("?")[0]
    if base.startswith("pkg:"):
        head, at, version = base.rpartition("@")
        return head if at and "/" not in version else base
    name, _, last = base.rpartition(" ")
    return name if name and any(map(str.isdigit, last)) else base
