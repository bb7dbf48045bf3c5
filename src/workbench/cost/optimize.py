"""What each saving of the gateway saves, beside what the tuning guide claims (``savings.json``).

Pure functions over trials, the same work done with all savings off (``baseline``), with one alone
(``+routing``), with all that answer at once (``all``), with all but one of them (``-routing``), and
with all of them by message batch (``all+batches``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from workbench.store.results import AblationRow

__all__ = ["Trial", "faults", "table"]

_ODDS = 1.5
"""By which factor a saving has to weigh more or less beside the others for a note to say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The work done once, with some savings on."""

    usd: Decimal
    """By our ledger."""
    server_usd: Decimal
    """By the server's own."""
    seconds: float
    """Wall time."""
    calls: int
    hits: int
    rules: int
    prompt_tokens: int
    cached_tokens: int
    """Of these, read from the service's cache."""
    output_tokens: int
    in_flight: int
    """Most calls at once, as the server saw it."""
    call_ms: float = 0.0
    """Median of a call; 0 where all went by batch."""
    hit_ms: float = 0.0
    """Median of an answer from the response cache, likewise."""
    first_text_ms: float = 0.0
    """Median until the first text of a streamed answer, likewise."""


def faults(trials: Mapping[str, Trial]) -> list[str]:
    """Return what makes trials unfit for a table: bills that differ, switches without effect."""
    found = [
        f"{name}: our ledger says {trial.usd} USD, the server's {trial.server_usd}"
        for name, trial in trials.items()
        if trial.usd != trial.server_usd
    ]
    alone = {name[1:]: trial for name, trial in trials.items() if name[0] == "+"}
    return found + [
        f"{saving}: switched on alone, it changed nothing"
        for saving, trial in alone.items()
        if not _has_effect(saving, trial, trials["baseline"])
    ]


def table(trials: Mapping[str, Trial]) -> list[AblationRow]:
    """Return a row per saving, that of all together last."""
    told = json.loads(Path(__file__).with_name("savings.json").read_text("utf-8"))["savings"]
    return [_row(saving, claim, trials) for saving, claim in told.items()]


def _has_effect(saving: str, trial: Trial, base: Trial) -> bool:
    if saving == "parallel":
        return base.in_flight == 1 < trial.in_flight
    if saving == "streaming":
        return 0 < trial.first_text_ms < trial.call_ms
    return trial.usd < base.usd


def _row(saving: str, told: Mapping[str, Any], trials: Mapping[str, Trial]) -> AblationRow:
    base, alone = trials["baseline"], trials["all" if saving == "all" else f"+{saving}"]
    without, whole = ("all", "all+batches") if saving == "batches" else (f"-{saving}", "all")
    before, after = trials.get(without, trials[whole]), trials[whole]
    measured = {
        "usd": _less(base.usd, alone.usd),
        "latency": _less(base.seconds, alone.seconds),
        "tokens": _less(_tokens(base), _tokens(alone)),
        "hit": _less(alone.call_ms, alone.hit_ms),
        "first": _less(alone.call_ms, alone.first_text_ms),
        "hits": alone.hits / max(alone.hits + alone.calls, 1),
        "cached": alone.cached_tokens / alone.prompt_tokens,
        "batched": float(trials["all+batches"].usd),
    }
    grown = float(before.usd / after.usd) - 1
    notes = [told["note"].format(**measured), _interplay(saving, measured["usd"], grown, told)]
    return AblationRow(
        saving=told["title"],
        usd=float(alone.usd),
        usd_alone_reduction=measured["usd"],
        usd_without_increase=grown,
        seconds=alone.seconds,
        latency_reduction=measured["latency"],
        latency_without_increase=before.seconds / after.seconds - 1,
        tokens_reduction=measured["tokens"],
        claimed_usd=told.get("usd", []),
        claimed_tokens=told.get("tokens", []),
        claimed_latency=told.get("latency", []),
        verdict=_verdict(told, measured, is_hit=saving == "response_cache"),
        note="; ".join(note for note in notes if note),
    )


def _interplay(saving: str, alone: float, grown: float, told: Mapping[str, Any]) -> str:
    """Return why a bill without a saving grows otherwise than its share alone would have it."""
    if saving == "all" or round(grown, 3) == 0:
        return ""
    if grown < 0:
        reason = told.get("not_worth_it", "the others leave it too little to save")
        return f"without it the combined bill falls by {-grown:.1%} instead of rising: {reason}"
    expected = 1 / (1 - alone) - 1
    if grown < expected / _ODDS:
        return "weighs less beside the others, which save much of the same"
    if grown > expected * _ODDS:
        return "weighs more beside the others, as it works on what they leave of the bill"
    return ""


def _verdict(
    told: Mapping[str, Any], measured: Mapping[str, float], *, is_hit: bool
) -> Literal["reached", "missed", "no claim", "not comparable"]:
    """Return whether every claim was measured, in whole percent as claimed, up to its least."""
    by_kind = {**measured, "latency": measured["hit" if is_hit else "latency"]}
    claims = [kind for kind in ("usd", "latency", "tokens") if kind in told]
    if not claims:
        return "no claim"
    if not told.get("is_comparable", True):
        return "not comparable"
    return "reached" if all(round(by_kind[k], 2) >= told[k][0] for k in claims) else "missed"


def _less(before: float | Decimal, after: float | Decimal) -> float:
    """Return the share by which something became less; below 0 where it became more."""
    return 1 - float(after) / float(before) if before else 0.0


def _tokens(trial: Trial) -> int:
    return trial.prompt_tokens + trial.output_tokens
