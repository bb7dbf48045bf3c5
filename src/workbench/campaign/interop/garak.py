"""garak's report, JSON Lines: read as cases and attempts, written from them."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from workbench.campaign.interop.documents import check_depth, json_lines, written
from workbench.campaign.interop.promptfoo_tests import check_case
from workbench.core.errors import DataError
from workbench.core.identity import canonical_json
from workbench.core.redact import redact
from workbench.store.records import Attempt, TestCase, TestSet, now

__all__ = ["MAX_LINE_BYTES", "GarakReport", "read_garak", "write_garak"]

MAX_LINE_BYTES: Final = 32 * 2**20
"""Longest line that is read."""
_STARTED, _COMPLETE = 1, 2
"""garak's ``status`` of an attempt: answered, then judged; a report has both lines of most."""
_THRESHOLD: Final = 0.5
"""garak's own, from which a detector's score is a hit."""
_OWN: Final = "workbench"
_CATEGORIES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "ansiescape": ("unsafe_output", ("LLM05:2025",)),
    "dan": ("jailbreak", ("LLM01:2025", "AML.T0054")),
    "encoding": ("jailbreak", ("LLM01:2025", "AML.T0068")),
    "exploitation": ("unsafe_output", ("LLM05:2025",)),
    "goodside": ("prompt_injection", ("LLM01:2025", "AML.T0051")),
    "grandma": ("jailbreak", ("LLM01:2025", "AML.T0054")),
    "latentinjection": ("prompt_injection", ("LLM01:2025", "AML.T0051.001")),
    "leakreplay": ("pii", ("LLM02:2025", "AML.T0057")),
    "lmrc": ("hate_speech", ("LLM01:2025",)),
    "misleading": ("misinformation", ("LLM09:2025",)),
    "packagehallucination": ("misinformation", ("LLM09:2025", "AML.T0060")),
    "promptinject": ("prompt_injection", ("LLM01:2025", "AML.T0051.000")),
    "realtoxicityprompts": ("hate_speech", ("LLM01:2025",)),
    "snowball": ("misinformation", ("LLM09:2025",)),
    "sysprompt_extraction": ("system_prompt_leak", ("LLM07:2025", "AML.T0056")),
    "tap": ("jailbreak", ("LLM01:2025", "AML.T0054")),
    "web_injection": ("unsafe_output", ("LLM05:2025", "AML.T0077")),
    "xss": ("unsafe_output", ("LLM05:2025", "AML.T0077")),
}
"""Module of a probe → our category and taxonomy. Source: garak 0.17.1, what its probes attack."""


@dataclass(frozen=True, kw_only=True)
class GarakReport:
    """What a report of garak says."""

    test_set: TestSet
    """Every prompt once, in order; the recipe has garak's version and run."""
    attempts: tuple[Attempt, ...]
    """One per output; in ``scores`` what each detector said."""
    skipped: Mapping[str, int]
    """Kind of line → how many were not read: of other kinds, or attempts without a text."""


def read_garak(path: Path) -> GarakReport:
    """Return what a report says, texts redacted in attempts.

    An output is a success of the attack where a detector's score reaches the run's threshold.
    Attempts that were answered and never judged have no scores and no success.

    Raises:
        DataError: If the file is missing or a line is not usable; names line and fix.
    """
    setup: dict[str, Any] = {}
    skipped: Counter[str] = Counter()
    answered: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, entry in json_lines(path, most_bytes=MAX_LINE_BYTES):
        kind = str(entry.get("entry_type"))[:80]
        if kind in {"start_run setup", "init"}:
            setup |= entry
        elif kind == "attempt":
            # The judged line of an attempt comes after the answered one and replaces it.
            _check_attempt(entry, f"{path}: line {number}")
            answered[entry["uuid"]] = (number, entry)
        elif kind not in {"eval", "completion"}:
            skipped[kind] += 1
    cases: dict[str, TestCase] = {}
    attempts: list[Attempt] = []
    tried: Counter[tuple[str, str]] = Counter()
    run = _Run(setup, path)
    for number, entry in answered.values():
        case = _case(entry, f"{path}: line {number}")
        if case is None:
            skipped["attempt without text"] += 1
            continue
        cases.setdefault(case.id, case)
        for attempt in run.attempts(entry, case, f"{path}: line {number}"):
            trial = tried[case.id, attempt.target]
            tried[case.id, attempt.target] += 1
            attempts.append(_numbered(attempt, entry, trial))
    recipe = {"source": "garak", "garak_version": str(setup.get("garak_version", ""))}
    return GarakReport(
        test_set=TestSet(cases=tuple(cases.values()), recipe=recipe),
        attempts=tuple(attempts),
        skipped=dict(skipped),
    )
