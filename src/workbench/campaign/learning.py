"""The way back: what people confirmed becomes data, weighs in generation, and is tried again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from workbench.campaign import testsets
from workbench.campaign.prefill import DECIDED
from workbench.core.errors import DataError
from workbench.core.redact import redact
from workbench.data.clean import repair
from workbench.data.dedupe import normalize
from workbench.data.inbox import Inbox
from workbench.store.database import Store
from workbench.store.events import tell
from workbench.store.findings import findings
from workbench.store.records import Finding, TestCase, TestSet
from workbench.store.test_sets import add_tag, remove_tag, tags_of

__all__ = [
    "REGRESSION", "canonical_prompts", "cases_of", "confirmed_cells", "feed_back", "real_findings",
    "regression_set", "tag_regression",
]  # fmt: skip

REGRESSION: Final = "regression"
"""Tag of the newest regression set; older ones keep their ids."""


def real_findings(store: Store, execution: str = "") -> list[Finding]:
    """Return the findings that people confirmed, mended since or not, the riskiest first."""
    found = _decided(store, execution)
    return sorted(
        (one for one in found if DECIDED[one.status]), key=lambda one: (-one.risk, one.id)
    )


def canonical_prompts(confirmed: Iterable[Finding], *, cases: Mapping[str, TestCase]) -> list[str]:
    """Return the requests behind confirmed findings: bare of disguise, redacted, each once.

    Args:
        confirmed: Findings; those of which the case, or its goal, is unknown are left out, because
            nobody can tell what their disguise hides.
        cases: Test cases by id.
    """
    distinct: dict[str, str] = {}
    for one in confirmed:
        goal = cases[one.case_id].goal if one.case_id in cases else ""
        if text := redact(" ".join(repair(goal).split())):
            distinct.setdefault(normalize(text), text)
    return list(distinct.values())


def cases_of(store: Store, found: Iterable[Finding]) -> dict[str, TestCase]:
    """Return the test cases of findings by id; those of test sets of other users are left out.

    Raises:
        StoreError: If the file of a test set is damaged.
    """
    wanted: dict[str, set[str]] = {}
    for one in found:
        wanted.setdefault(one.test_set, set()).add(one.case_id)
    owned = {one.id for one in testsets.list_test_sets(store)}
    return {
        case.id: case
        for test_set, ids in wanted.items()
        if test_set in owned
        for case in testsets.stored(store, test_set)
        if case.id in ids
    }


def feed_back(store: Store, execution: str = "") -> dict[str, Any]:
    """Return what became of the confirmed findings: reason → count, and distinct requests.

    Writes to the store: the data inbox, where they wait for a person, and the event
    ``prompts_fed_back``. What is there already is not added twice.

    Args:
        store: Where findings and inbox are.
        execution: Only the findings of this one; of all where empty.

    Raises:
        DataError: If nothing is confirmed.
    """
    confirmed = findings(store.engine, execution, status="confirmed", user=store.settings.user)
    if not confirmed:
        raise DataError("no confirmed findings; confirm some with workbench campaign findings set")
    cases = cases_of(store, confirmed)
    told = Inbox(store.home / "inbox").add_findings(confirmed, cases=cases)
    requests = len(canonical_prompts(confirmed, cases=cases))
    result = {"inbox": dict(sorted(told.items())), "requests": requests}
    subjects = dict(Counter(one.execution for one in confirmed))
    subject = execution or next(iter(subjects))
    tell(store, "prompts_fed_back", subject, {**result, "executions": subjects})
    return result


def confirmed_cells(store: Store) -> dict[tuple[str, str], int]:
    """Return (plugin, strategy) → findings confirmed less those that were false positives.

    Beside ``store.campaigns.outcomes``, which counts what judges said, this is what people said:
    generation mutates more where it is positive.
    """
    cells: Counter[tuple[str, str]] = Counter()
    for one in _decided(store):
        cells[one.plugin, one.strategy] += 1 if DECIDED[one.status] else -1
    return dict(cells)


def regression_set(store: Store) -> TestSet:
    """Return the cases of all confirmed findings, each once, the riskiest first; nothing is saved.

    Those that were fixed belong to it: they are what a regression would bring back.

    Raises:
        DataError: If nothing is confirmed in a test set of this user.
    """
    confirmed = real_findings(store)
    cases = cases_of(store, confirmed)
    chosen = {one.case_id: cases[one.case_id] for one in confirmed if one.case_id in cases}
    if not chosen:
        raise DataError("no confirmed finding has its test case in your test sets; confirm some")
    recipe = {
        "regression": {
            "findings": len(confirmed),
            "executions": sorted({one.execution for one in confirmed if one.case_id in cases}),
            "left_out": sum(one.case_id not in cases for one in confirmed),
        }
    }
    return TestSet(cases=tuple(chosen.values()), recipe=recipe)


def tag_regression(store: Store, test_set: str) -> None:
    """Make a test set the one that this user calls :data:`REGRESSION`."""
    owner = store.settings.user
    for before, tags in tags_of(store.engine, owner=owner).items():
        if REGRESSION in tags and before != test_set:
            remove_tag(store.engine, before, REGRESSION, owner=owner)
    add_tag(store.engine, test_set, REGRESSION, owner=owner)


def _decided(store: Store, execution: str = "") -> list[Finding]:
    """Return the findings that people decided on."""
    user = store.settings.user
    return [
        one
        for state in DECIDED
        for one in findings(store.engine, execution, status=state, user=user)
    ]
