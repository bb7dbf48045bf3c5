"""Findings that are one problem: each cluster is looked at once, by its riskiest finding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from workbench.data.dedupe import near_duplicates, normalize
from workbench.store.records import Finding

__all__ = ["representatives"]

_COMPARED_CHARS = 1_000
"""Beginning of a text that is compared; bounds time and memory."""
_ANSWER_CHARS = 80
"""Answers shorter than this are alike without meaning anything."""


def representatives(
    findings: Sequence[Finding], *, goals: Mapping[str, str], models: Collection[str] = ()
) -> list[str]:
    """Return per finding the id of the one that stands for it; its own where it does.

    Findings of one plugin are one problem where their goals are near-duplicates, whatever the
    disguise, or where a model gave near-duplicate answers to the findings that stand for them. What
    a guard lets through is mostly the disguise itself, so its texts say nothing. Each finding is
    compared with the one that stands for it, not with a chain of others, so clusters do not drift.

    Args:
        findings: The riskiest first: the first of a cluster stands for it.
        goals: Case id → goal; where it is empty, what was sent is compared instead.
        models: Targets whose texts are answers.
    """
    asked = [
        (one.plugin, normalize((goals.get(one.case_id) or one.sent)[:_COMPARED_CHARS]))
        for one in findings
    ]
    leaders = _first_alike(asked)
    answered = [
        at
        for at, leader in enumerate(leaders)
        if at == leader
        and findings[at].target in models
        and len(findings[at].received) >= _ANSWER_CHARS
    ]
    alike = _first_alike(
        [
            (findings[at].plugin, normalize(findings[at].received[:_COMPARED_CHARS]))
            for at in answered
        ]
    )
    joined = {at: answered[first] for at, first in zip(answered, alike, strict=True)}
    return [findings[joined.get(leader, leader)].id for leader in leaders]


def _first_alike(keys: Sequence[tuple[str, str]]) -> list[int]:
    """Return per (label, text) the first position of the kept one that it repeats, or its own."""
    firsts: dict[tuple[str, str], int] = {}
    for at, key in enumerate(keys):
        firsts.setdefault(key, at)
    if not firsts:
        return []
    labels, texts = zip(*firsts, strict=True)
    positions = list(firsts.values())
    kept = {
        key: positions[repeated] if repeated >= 0 else at
        for (key, at), repeated in zip(
            firsts.items(), near_duplicates(texts, within=labels).tolist(), strict=True
        )
    }
    return [kept[key] for key in keys]
