"""promptfoo's results of an evaluation, version 3: read as attempts, written from attempts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from workbench.campaign.interop.documents import MAX_FILE_BYTES, json_lines, read_document, written
from workbench.campaign.interop.javascript import stringify
from workbench.campaign.interop.promptfoo_tests import (
    RECORD,
    case_id_of,
    case_of,
    sealed,
    test_of,
    unsealed,
)
from workbench.core.errors import DataError
from workbench.core.money import ZERO
from workbench.core.redact import redact
from workbench.store.records import Attempt, TestCase, now

__all__ = ["JUDGE", "MAX_FILE_BYTES", "read_results", "write_results"]

JUDGE: Final = "promptfoo"
"""Name under which promptfoo's score and reason are kept."""
_VERSION: Final = 3
_MAX_ROW_BYTES: Final = 32 * 2**20
_NONE, _ASSERT, _ERROR = 0, 1, 2
"""promptfoo's ``failureReason``."""
_BESIDE_IN: Final = f"{RECORD}Attempt"
"""Where in a row's metadata our own fields are."""
_BESIDE: Final = ("execution", "decision", "scores", "reasons", "trial", "success")


def read_results(path: Path) -> Iterator[Attempt]:
    """Iterate over the attempts of a file that ``promptfoo eval -o`` wrote.

    A failed assertion is a success of the attack. Texts are redacted. promptfoo itself hides what
    could be a key, such as base64 of 64 characters: a test that we wrote names its case all the
    same, another's hidden prompt is a case of the text ``[REDACTED]``. JSON Lines (``.jsonl``) are
    read a row at a time; JSON is read whole, up to :data:`MAX_FILE_BYTES`.

    Raises:
        DataError: If the file cannot be read, is of another version, or a row is not usable; names
            file, row and fix. Raised while iterating.
    """
    default: Mapping[str, Any] = {}
    execution, variable = "", None
    rows: Iterable[tuple[str, Any]]
    if path.suffix.lower() == ".jsonl":
        lines = json_lines(path, most_bytes=_MAX_ROW_BYTES)
        rows = ((f"{path}: line {number}", row) for number, row in lines)
    else:
        value = read_document(path).value
        value = value if isinstance(value, dict) else {}
        results = _section(value, "results")
        if results.get("version") != _VERSION or not isinstance(results.get("results"), list):
            raise DataError(
                f"{path}: no results of version {_VERSION}; write them with 'promptfoo eval -o'"
            )
        execution = str(value.get("evalId") or "")
        config = _section(value, "config")
        default = _section(_section(config, "defaultTest"), "metadata")
        variable = _section(config, "redteam").get("injectVar")
        rows = ((f"{path}: result {at}", row) for at, row in enumerate(results["results"], 1))
    tried: Counter[tuple[str, str]] = Counter()
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{place} is no object; write the file with 'promptfoo eval -o'")
        reader = _Row(row, place=place, default=default, variable=variable)
        case_id, target = reader.case_id(), reader.target()
        trial = tried[case_id, target]
        tried[case_id, target] += 1
        yield reader.attempt(execution, case_id=case_id, target=target, trial=trial)


def write_results(
    attempts: Iterable[Attempt], path: Path, *, cases: Iterable[TestCase], evaluation: str = ""
) -> None:
    """Write attempts as promptfoo's results; :func:`read_results` gives them back.

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
    places = {case.id: (at, case) for at, case in enumerate(cases)}
    targets: dict[str, int] = {}
    counts: Counter[int] = Counter()
    first = evaluation
    is_lines = path.suffix.lower() == ".jsonl"
    with written(path) as file:
        if not is_lines:
            file.write(f'{{"results":{{"version":{_VERSION},"timestamp":"{now()}","results":[\n')
        for number, attempt in enumerate(attempts):
            first = first or attempt.execution
            if attempt.case_id not in places:
                raise DataError(
                    f"attempt of case {attempt.case_id[:12]!r}: none of the cases; give the test "
                    "set that was executed"
                )
            at, case = places[attempt.case_id]
            prompt = targets.setdefault(attempt.target, len(targets))
            row = _row(attempt, test_of(case), test_index=at, prompt_index=prompt, number=number)
            counts[row["failureReason"]] += 1
            comma = "," if number and not is_lines else ""
            file.write(f"{comma}{stringify(row)}\n")
        if not is_lines:
            file.write(_ending(first, targets, counts))


def _ending(evaluation: str, targets: Iterable[str], counts: Mapping[int, int]) -> str:
    """Return what follows the rows."""
    template = "{{prompt}}"
    prompts = [{"raw": template, "label": template, "provider": target} for target in targets]
    names = {"successes": _NONE, "failures": _ASSERT, "errors": _ERROR}
    stats = {name: counts.get(reason, 0) for name, reason in names.items()} | _NO_TOKENS
    rest = {
        "evalId": evaluation,
        "config": {"redteam": {"injectVar": "prompt"}},
        "shareableUrl": None,
    }
    head = f'],"prompts":{stringify(prompts)},"stats":{stringify(stats)}}},'
    return head + stringify(rest).removeprefix("{") + "\n"


_NO_TOKENS: Final = {
    "tokenUsage": {"total": 0, "prompt": 0, "completion": 0, "cached": 0, "numRequests": 0}
}


class _Row:
    """One result of promptfoo."""

    def __init__(
        self, row: Mapping[str, Any], *, place: str, default: Mapping[str, Any], variable: Any
    ) -> None:
        self._row = row
        self._place = place
        self._test = _as_written(_section(row, "testCase"), default)
        names = self._test.get("vars") if isinstance(self._test.get("vars"), dict) else {}
        self._names = names or {}
        wanted = (variable, "prompt", *(self._names if len(self._names) == 1 else ()))
        self._variable = next((one for one in wanted if isinstance(one, str) and
                               one in self._names), "")  # fmt: skip

    def case_id(self) -> str:
        """Return the id of the case that the row is of."""
        if known := case_id_of(self._test):
            return known
        if not self._variable:
            raise DataError(f"{self._place} has no testCase.vars.prompt; name it redteam.injectVar")
        # The row has the one prompt that was sent where a test lists several.
        sent = _section(self._row, "vars").get(self._variable, self._names[self._variable])
        text = sent if isinstance(sent, str) else stringify(sent)
        test = {**self._test, "vars": {**self._names, self._variable: text}}
        return case_of(test, variable=self._variable, place=self._place).id

    def target(self) -> str:
        """Return the label of the provider, or its id."""
        provider = self._row.get("provider")
        provider = provider if isinstance(provider, dict) else {"id": provider}
        name = provider.get("label") or provider.get("id")
        if not isinstance(name, str):
            raise DataError(f"{self._place} has no provider; write its id")
        return name

    def attempt(self, execution: str, *, case_id: str, target: str, trial: int) -> Attempt:
        """Return the row as an attempt."""
        row, response = self._row, _section(self._row, "response")
        graded = _section(row, "gradingResult")
        reason = self._number("failureReason", _NONE if row.get("success") else _ASSERT)
        failed = reason == _ERROR
        output = response.get("output")
        declined = _section(response, "guardrails").get("flagged") or response.get("isRefusal")
        sent = _section(row, "prompt").get("raw")
        score = min(1.0, max(0.0, self._number("score", float(not reason))))
        fields: dict[str, Any] = {
            "execution": execution,
            "decision": "error" if failed else "block" if declined else "pass",
            "scores": {} if failed else {JUDGE: 1.0 - score},
            "reasons": {} if failed else {JUDGE: str(graded.get("reason") or "")},
            "trial": trial,
            "usd": Decimal(str(self._number("cost", 0.0))) or ZERO,
            "success": reason == _ASSERT,
        }
        fields |= self._own()
        fields["reasons"] = {name: redact(text) for name, text in fields["reasons"].items()}
        return Attempt(
            case_id=case_id,
            target=target,
            sent=redact(sent if isinstance(sent, str) else stringify(sent)),
            received=redact(output if isinstance(output, str) else _text(output)),
            latency_ms=float(self._number("latencyMs", 0.0)),
            error=redact(str(row.get("error") or "failed")) if failed else "",
            **fields,
        )

    def _number(self, name: str, default: float) -> float:
        value = self._row.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not (
            math.isfinite(value) and value >= 0
        ):  # fmt: skip
            raise DataError(f"{self._place}: {name} is {str(value)[:40]!r}; write a number >= 0")
        return value

    def _own(self) -> dict[str, Any]:
        """Return what we wrote beside a row, of the right kinds."""
        record = _section(self._row, "metadata").get(_BESIDE_IN)
        if record is None:
            return {}
        try:
            known = unsealed(record)
            scores = {str(name): float(score) for name, score in known["scores"].items()}
            return {
                "execution": str(known["execution"]),
                "decision": str(known["decision"]),
                "scores": scores,
                "reasons": {str(name): str(text) for name, text in known["reasons"].items()},
                "trial": int(known["trial"]),
                "usd": Decimal(known["usd"]),
                "success": bool(known["success"]),
            }
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            what = f"metadata.{_BESIDE_IN} was changed"
            raise DataError(f"{self._place}: {what}; delete it to read the row anew") from None


def _as_written(test: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return a test without what promptfoo merged into it from ``defaultTest``."""
    metadata = _section(test, "metadata")
    merged = {name: default.get(name, metadata.get(name)) for name in (*default, *_MERGED)}
    kept = {
        name: value
        for name, value in metadata.items()
        if name not in merged or merged[name] != value
    }
    return {**test, "metadata": kept}


_MERGED: Final = ("purpose", "entities")


def _section(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _text(output: Any) -> str:
    return "" if output is None else stringify(output)


def _row(
    attempt: Attempt,
    test: dict[str, Any],
    *,
    test_index: int,
    prompt_index: int,
    number: int,
) -> dict[str, Any]:
    reason = _ERROR if attempt.error else _ASSERT if attempt.success else _NONE
    score = float(reason == _NONE)
    beside = {name: getattr(attempt, name) for name in _BESIDE} | {"usd": str(attempt.usd)}
    why = "; ".join(filter(None, attempt.reasons.values())) or "no reason was kept"
    graded = {"pass": reason == _NONE, "score": score, "reason": why}
    row = {
        "id": f"{attempt.execution}-{number}",
        "promptIdx": prompt_index,
        "testIdx": test_index,
        "promptId": "",
        "testCase": test,
        "vars": test["vars"],
        "prompt": {"raw": attempt.sent, "label": "{{prompt}}"},
        "provider": {"id": attempt.target, "label": attempt.target},
        "response": {"output": attempt.received},
        "success": reason == _NONE,
        "score": score,
        "failureReason": reason,
        "latencyMs": attempt.latency_ms,
        "cost": float(attempt.usd),
        "namedScores": {},
        "gradingResult": None if attempt.error else graded,
        "metadata": {**test["metadata"], _BESIDE_IN: sealed(beside)},
    }
    return row | ({"error": attempt.error} if attempt.error else {})
