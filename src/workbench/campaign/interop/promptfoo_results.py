"""promptfoo's results of an evaluation, version 3: read as attempts, written from attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from workbench.campaign.interop.documents import json_lines, read_document, stringify, written
from workbench.campaign.interop.incoming import Incoming, checked_number, objects, paired, section
from workbench.campaign.interop.promptfoo import as_test, attacked, case_of
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
    is_lines = path.suffix.lower() == ".jsonl"
    value = {} if is_lines else read_document(path)
    results = section(value, "results")
    found = results.get("results")
    if not is_lines and (results.get("version") != _VERSION or not isinstance(found, list)):
        raise DataError(
            f"{path}: no results of version {_VERSION}; write them with 'promptfoo eval -o'"
        )
    rows: Iterable[tuple[str, Any]] = json_lines(path) if is_lines else (
        (f"{path}: result {at}", row) for at, row in enumerate(found or (), 1)
    )  # fmt: skip
    config, incoming = section(value, "config"), Incoming()
    execution = str(value.get("evalId") or "")
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{place} is no object; write the file with 'promptfoo eval -o'")
        case_id = _case_id(row, config, place)
        yield _attempt(row, incoming, case_id=case_id, execution=execution, place=place)


def write_results(
    attempts: Iterable[Attempt], path: Path, *, cases: Iterable[TestCase], evaluation: str = ""
) -> None:
    """Write attempts as promptfoo's results; :func:`read_results` gives verdicts and scores back.

    Attempts are written as they come, one in memory; promptfoo can import the file.

    Args:
        attempts: What was tried.
        path: Where to, replaced once all is written.
        cases: What the attempts are of.
        evaluation: Id of the evaluation; the execution of the first attempt if empty.

    Raises:
        DataError: If an attempt is of none of the cases.
        StoreError: If the file cannot be written.
    """
    cases = tuple(cases)
    places = {case.id: at for at, case in enumerate(cases)}
    targets: dict[str, int] = {}
    counts: Counter[int] = Counter()
    before = f'{{"results":{{"version":{_VERSION},"timestamp":"{now()}","results":['
    with written(path) as file:
        for number, (attempt, case) in enumerate(paired(attempts, cases)):
            evaluation = evaluation or attempt.execution
            row = {
                "id": f"{attempt.execution}-{number}", "testIdx": places[case.id],
                "promptIdx": targets.setdefault(attempt.target, len(targets)),
                **_row(attempt, as_test(case)),
            }  # fmt: skip
            counts[row["failureReason"]] += 1
            file.write(f"{before}\n{stringify(row)}")
            before = ","
        tokens = {"total": 0, "prompt": 0, "completion": 0, "cached": 0, "numRequests": 0}
        stats = {"successes": counts[_NONE], "failures": counts[_ASSERT], "errors": counts[_ERROR]}
        prompts = [{"raw": "{{prompt}}", "label": "{{prompt}}", "provider": one} for one in targets]
        rest = {"evalId": evaluation, "config": {"redteam": {"injectVar": "prompt"}}}
        file.write(f"{before if before != ',' else ''}\n],{stringify({'prompts': prompts})[1:-1]},")
        file.write(f'"stats":{stringify(stats | {"tokenUsage": tokens})}}},{stringify(rest)[1:]}\n')


def _case_id(row: Mapping[str, Any], config: Mapping[str, Any], place: str) -> str:
    """Return the id of the case that a row is of."""
    test = section(row, "testCase")
    variables = section(test, "vars")
    name = attacked(variables, section(config, "redteam").get("injectVar"), place=place)
    # The row has the one prompt that was sent where a test lists several.
    sent = section(row, "vars").get(name, variables[name])
    text = sent if isinstance(sent, str) else stringify(sent)
    return case_of({**test, "vars": {**variables, name: text}}, variable=name, place=place).id


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
    return incoming.attempt(
        case_id, place=place, execution=execution, target=target,
        sent=_text(section(row, "prompt").get("raw")), received=_text(response.get("output")),
        decision="block" if declined else "pass", success=reason == _ASSERT,
        scores={name: _turned(one.get("score"), place) for name, one in said.items()},
        reasons={name: str(one.get("reason") or "") for name, one in said.items()},
        error=str(row.get("error") or "failed") if reason == _ERROR else "",
        latency_ms=row.get("latencyMs"), usd=row.get("cost"),
    )  # fmt: skip


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else stringify(value)


def _said(graded: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each of our judges said, in a row that we wrote."""
    return {
        str(section(one, "assertion").get("metric")): one
        for one in objects(graded.get("componentResults"))
        if section(one, "assertion").get("type") == _OURS
    }


def _turned(score: Any, place: str) -> float:
    """Return how bad an answer is of which promptfoo says how good; its weights may go beyond 1."""
    return round(1.0 - min(1.0, checked_number(score, "score", place=place, most=1e6)), 12)


def _row(attempt: Attempt, test: dict[str, Any]) -> dict[str, Any]:
    reason = _ERROR if attempt.error else _ASSERT if attempt.success else _NONE
    is_good = reason == _NONE
    parts = [
        {"pass": is_good, "score": round(1.0 - score, 12), "reason": attempt.reasons.get(judge, ""),
         "assertion": {"type": _OURS, "metric": judge}}
        for judge, score in attempt.scores.items()
    ]  # fmt: skip
    why = "; ".join(filter(None, attempt.reasons.values())) or "no reason was kept"
    graded = {"pass": is_good, "score": float(is_good), "reason": why, "componentResults": parts}
    flagged = {"flagged": attempt.decision == "block"}
    return {
        "promptId": "", "testCase": test, "vars": test["vars"], "metadata": test["metadata"],
        "prompt": {"raw": attempt.sent, "label": "{{prompt}}"},
        "provider": {"id": attempt.target, "label": attempt.target},
        "response": {"output": attempt.received, "guardrails": flagged},
        "success": is_good, "score": float(is_good), "failureReason": reason,
        "latencyMs": attempt.latency_ms, "cost": float(attempt.usd), "namedScores": {},
        "gradingResult": None if attempt.error else graded,
        **({"error": attempt.error} if attempt.error else {}),
    }  # fmt: skip
