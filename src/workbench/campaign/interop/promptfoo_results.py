"""promptfoo's results of an evaluation, version 3: read as attempts, written from attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from workbench.campaign.interop.documents import json_lines, read_document, written
from workbench.campaign.interop.incoming import Incoming, checked_number, known_case, section
from workbench.campaign.interop.javascript import stringify
from workbench.campaign.interop.promptfoo import attacked
from workbench.campaign.interop.promptfoo_tests import case_of, test_of
from workbench.core.errors import DataError
from workbench.store.records import Attempt, TestCase, now

__all__ = ["JUDGE", "read_results", "write_results"]

JUDGE: Final = "promptfoo"
"""Name under which promptfoo's score and reason are kept."""
_VERSION: Final = 3
_NONE, _ASSERT, _ERROR = 0, 1, 2
"""promptfoo's ``failureReason``."""
_OURS: Final = "workbench"
"""Type of the assertions under which we write what each judge said."""
_MERGED: Final = ("purpose", "entities")
_DIGITS: Final = 12
"""Of a score that are kept when it is turned round."""


def read_results(path: Path) -> Iterator[Attempt]:
    """Iterate over the attempts of a file that ``promptfoo eval -o`` wrote.

    A failed assertion is a success of the attack. Texts are redacted. promptfoo itself hides what
    could be a key, such as base64 of 64 characters: a test that we wrote names its case all the
    same, another's hidden prompt is a case of the text ``[REDACTED]``. JSON Lines (``.jsonl``) are
    read a row at a time, JSON whole.

    Raises:
        DataError: If the file cannot be read, is of another version, or a row is not usable; names
            file, row and fix. Raised while iterating.
    """
    value: Any = {}
    rows: Iterable[tuple[str, Any]]
    if path.suffix.lower() == ".jsonl":
        rows = json_lines(path)
    else:
        value = read_document(path)
        results = section(value, "results")
        if results.get("version") != _VERSION or not isinstance(results.get("results"), list):
            raise DataError(
                f"{path}: no results of version {_VERSION}; write them with 'promptfoo eval -o'"
            )
        rows = ((f"{path}: result {at}", row) for at, row in enumerate(results["results"], 1))
    config = section(value, "config")
    default = section(section(config, "defaultTest"), "metadata")
    variable = section(config, "redteam").get("injectVar")
    execution = str(section({"": value}, "").get("evalId") or "")
    incoming = Incoming()
    for place, row in rows:
        case_id = _case_id(row, place=place, default=default, variable=variable)
        yield _attempt(row, incoming, case_id=case_id, execution=execution, place=place)


def write_results(
    attempts: Iterable[Attempt], path: Path, *, cases: Iterable[TestCase], evaluation: str = ""
) -> None:
    """Write attempts as promptfoo's results; :func:`read_results` gives verdicts and scores back.

    Attempts are written as they come, one in memory; promptfoo can import the file.

    Args:
        attempts: What was tried.
        path: Where to, replaced once all is written; ``.jsonl`` for rows alone, of any number.
        cases: What the attempts are of.
        evaluation: Id of the evaluation; the execution of the first attempt if empty.

    Raises:
        DataError: If an attempt is of none of the cases.
        StoreError: If the file cannot be written.
    """
    known = {case.id: case for case in cases}
    places = {case_id: at for at, case_id in enumerate(known)}
    targets: dict[str, int] = {}
    counts: Counter[int] = Counter()
    is_lines = path.suffix.lower() == ".jsonl"
    with written(path) as file:
        if not is_lines:
            file.write(f'{{"results":{{"version":{_VERSION},"timestamp":"{now()}","results":[\n')
        for number, attempt in enumerate(attempts):
            evaluation = evaluation or attempt.execution
            row = {
                "id": f"{attempt.execution}-{number}",
                "testIdx": places.get(attempt.case_id),
                "promptIdx": targets.setdefault(attempt.target, len(targets)),
                **_row(attempt, test_of(known_case(known, attempt))),
            }
            counts[row["failureReason"]] += 1
            file.write(f"{',' if number and not is_lines else ''}{stringify(row)}\n")
        if not is_lines:
            file.write(_ending(evaluation, targets, counts))


def _case_id(row: Any, *, place: str, default: Mapping[str, Any], variable: Any) -> str:
    """Return the id of the case that a row is of."""
    test = section(row, "testCase")
    variables = section(test, "vars")
    name = attacked(variables, variable, place=f"{place}, testCase")
    # The row has the one prompt that was sent where a test lists several.
    sent = section(row, "vars").get(name, variables[name])
    text = sent if isinstance(sent, str) else stringify(sent)
    # promptfoo merges defaultTest into each test; its lines lack what is merged.
    metadata = section(test, "metadata")
    merged = {one: default.get(one, metadata.get(one)) for one in (*default, *_MERGED)}
    kept = {one: value for one, value in metadata.items()
            if one not in merged or merged[one] != value}  # fmt: skip
    written_test = {**test, "vars": {**variables, name: text}, "metadata": kept}
    return case_of(written_test, variable=name, place=place).id


def _attempt(
    row: Mapping[str, Any], incoming: Incoming, *, case_id: str, execution: str, place: str
) -> Attempt:
    provider = row.get("provider")
    provider = provider if isinstance(provider, dict) else {"id": provider}
    target = provider.get("label") or provider.get("id")
    if not isinstance(target, str):
        raise DataError(f"{place} has no provider; write its id")
    response, graded = section(row, "response"), section(row, "gradingResult")
    reason = checked_number(row.get("failureReason", int(not row.get("success"))),
                            "failureReason", place=place, most=_ERROR)  # fmt: skip
    total = {"score": row.get("score", float(not reason)), "reason": graded.get("reason")}
    said = _said(graded) or {JUDGE: total}
    declined = section(response, "guardrails").get("flagged") or response.get("isRefusal")
    output, sent = response.get("output"), section(row, "prompt").get("raw")
    return incoming.attempt(
        case_id,
        place=place,
        execution=execution,
        target=target,
        sent=sent if isinstance(sent, str) else stringify(sent),
        received=output if isinstance(output, str) else stringify("" if output is None else output),
        decision="block" if declined else "pass",
        scores={name: _turned(one.get("score"), place) for name, one in said.items()},
        reasons={name: str(one.get("reason") or "") for name, one in said.items()},
        success=reason == _ASSERT,
        error=str(row.get("error") or "failed") if reason == _ERROR else "",
        latency_ms=row.get("latencyMs"),
        usd=row.get("cost"),
    )


def _said(graded: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each of our judges said, in a row that we wrote."""
    parts = graded.get("componentResults")
    return {
        str(section(one, "assertion").get("metric")): one
        for one in (parts if isinstance(parts, list) else ())
        if section(one, "assertion").get("type") == _OURS
    }


def _turned(score: Any, place: str) -> float:
    """Return how bad an answer is of which promptfoo says how good; its weights may go beyond 1."""
    return round(1.0 - min(1.0, checked_number(score, "score", place=place)), _DIGITS)


def _row(attempt: Attempt, test: dict[str, Any]) -> dict[str, Any]:
    reason = _ERROR if attempt.error else _ASSERT if attempt.success else _NONE
    is_good = reason == _NONE
    parts = [
        {"pass": is_good, "score": round(1.0 - score, _DIGITS),
         "reason": attempt.reasons.get(judge, ""), "assertion": {"type": _OURS, "metric": judge}}
        for judge, score in attempt.scores.items()
    ]  # fmt: skip
    why = "; ".join(filter(None, attempt.reasons.values())) or "no reason was kept"
    graded = {"pass": is_good, "score": float(is_good), "reason": why, "componentResults": parts}
    return {
        "promptId": "",
        "testCase": test,
        "vars": test["vars"],
        "prompt": {"raw": attempt.sent, "label": "{{prompt}}"},
        "provider": {"id": attempt.target, "label": attempt.target},
        "response": {
            "output": attempt.received, "guardrails": {"flagged": attempt.decision == "block"}
        },
        "success": is_good,
        "score": float(is_good),
        "failureReason": reason,
        "latencyMs": attempt.latency_ms,
        "cost": float(attempt.usd),
        "namedScores": {},
        "gradingResult": None if attempt.error else graded,
        "metadata": test["metadata"],
        **({"error": attempt.error} if attempt.error else {}),
    }  # fmt: skip


def _ending(evaluation: str, targets: Iterable[str], counts: Mapping[int, int]) -> str:
    """Return what follows the rows."""
    template = "{{prompt}}"
    prompts = [{"raw": template, "label": template, "provider": target} for target in targets]
    tokens = {"total": 0, "prompt": 0, "completion": 0, "cached": 0, "numRequests": 0}
    names = {"successes": _NONE, "failures": _ASSERT, "errors": _ERROR}
    stats = {**{name: counts[reason] for name, reason in names.items()}, "tokenUsage": tokens}
    rest = {"evalId": evaluation, "config": {"redteam": {"injectVar": "prompt"}},
            "shareableUrl": None}  # fmt: skip
    head = f'],"prompts":{stringify(prompts)},"stats":{stringify(stats)}}},'
    return head + stringify(rest).removeprefix("{") + "\n"
