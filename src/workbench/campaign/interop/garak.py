"""garak's report, JSON Lines: read as cases and attempts, written from them."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from workbench.campaign.interop.documents import json_lines, written
from workbench.campaign.interop.incoming import Incoming, checked_case, of_one_target, paired
from workbench.core.errors import DataError
from workbench.core.plain import storable
from workbench.store.records import Attempt, TestCase, TestSet, now

__all__ = ["SUCCESS", "GarakReport", "read_garak", "write_garak"]

SUCCESS: Final = "workbench.Success"
"""Detector under which we write our verdict; where it is, the others only score."""
_STARTED, _COMPLETE = 1, 2
"""garak's ``status`` of an attempt: answered, then judged; a report has both lines of most."""
_THRESHOLD: Final = 0.5
"""garak's own, from which a detector's score is a hit."""
_MOST_OUTPUTS: Final = 1_000
_CATEGORIES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "jailbreak": (("LLM01:2025", "AML.T0054"), ("dan", "encoding", "grandma", "tap")),
    "prompt_injection": (
        ("LLM01:2025", "AML.T0051"), ("goodside", "latentinjection", "promptinject")
    ),
    "unsafe_output": (("LLM05:2025",), ("ansiescape", "exploitation", "web_injection", "xss")),
    "pii": (("LLM02:2025", "AML.T0057"), ("leakreplay",)),
    "hate_speech": (("LLM01:2025",), ("lmrc", "realtoxicityprompts")),
    "misinformation": (("LLM09:2025",), ("misleading", "packagehallucination", "snowball")),
    "system_prompt_leak": (("LLM07:2025", "AML.T0056"), ("sysprompt_extraction",)),
}  # fmt: skip
"""Our category → taxonomy and modules of probes. Source: garak 0.17.1, what its probes attack."""


@dataclass(frozen=True, kw_only=True)
class GarakReport:
    """What a report of garak says."""

    test_set: TestSet
    """Every prompt once, in order; the recipe has garak's version."""
    attempts: tuple[Attempt, ...]
    """One per output; in ``scores`` what each detector said."""
    threshold: float
    """Score from which a detector's is a hit."""
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
    answered: dict[str, tuple[str, dict[str, Any]]] = {}
    for place, entry in json_lines(path):
        kind = str(entry.get("entry_type"))[:80]
        if kind in {"start_run setup", "init"}:
            setup |= entry
        elif kind == "attempt":
            # The judged line of an attempt comes after the answered one and replaces it.
            _check_attempt(entry, place)
            answered[entry["uuid"]] = (place, entry)
        elif kind not in {"eval", "completion"}:
            skipped[kind] += 1
    limit = setup.get("run.eval_threshold")
    threshold = limit if isinstance(limit, int | float) and 0 < limit <= 1 else _THRESHOLD
    named = ("plugins.target_name", "plugins.model_name", "plugins.target_type")
    target = next((str(setup[one]) for one in named if setup.get(one)), "garak")
    execution = str(setup.get("run") or setup.get("transient.run_id") or "")
    cases: dict[str, TestCase] = {}
    attempts: list[Attempt] = []
    incoming = Incoming()
    for place, entry in answered.values():
        case = _case(entry, place)
        if case is None:
            skipped["attempt without text"] += 1
            continue
        cases.setdefault(case.id, case)
        for text, scores in _outputs(entry):
            one = incoming.attempt(
                case.id, place=place, execution=execution, target=target, sent=case.prompt,
                received=text or "", scores=scores, error="no output" if text is None else "",
            )  # fmt: skip
            verdict = one.scores.pop(SUCCESS, max(one.scores.values(), default=0.0))
            attempts.append(replace(one, success=verdict >= threshold))
    recipe = {
        "source": "garak",
        "garak_version": storable(str(setup.get("garak_version", "")))[:80],
    }
    return GarakReport(
        test_set=TestSet(cases=tuple(cases.values()), recipe=recipe),
        attempts=tuple(attempts), threshold=float(threshold), skipped=dict(skipped),
    )  # fmt: skip


def write_garak(attempts: Iterable[Attempt], path: Path, *, cases: Iterable[TestCase]) -> None:
    """Write attempts on one target as a report, with our verdict as the detector :data:`SUCCESS`.

    Args:
        attempts: What was tried; all of it is in memory.
        path: Where to; replaced once all is written.
        cases: What the attempts are of.

    Raises:
        DataError: If the attempts are on several targets, none, or of none of the cases.
        StoreError: If the file cannot be written.
    """
    tries: defaultdict[str, list[tuple[Attempt, TestCase]]] = defaultdict(list)
    for attempt, case in of_one_target(paired(attempts, cases)):
        tries[case.id].append((attempt, case))
    first = next(iter(tries.values()))[0][0]
    results: defaultdict[tuple[str, str], list[float | None]] = defaultdict(list)
    setup = {"plugins.target_type": "workbench", "plugins.target_name": first.target,
             "run.eval_threshold": _THRESHOLD, "transient.run_id": first.execution}  # fmt: skip
    start = {"garak_version": "", "start_time": now(), "run": first.execution}
    with written(path) as file:
        file.write(_line("start_run setup", setup) + _line("init", start))
        for number, several in enumerate(tries.values()):
            entry = _entry(several[0][1], [one for one, _ in several])
            file.write(_line("attempt", {"seq": number, **entry}))
            for detector, scores in entry["detector_results"].items():
                results[entry["probe_classname"], detector].extend(scores)
        for (probe, detector), scores in sorted(results.items()):
            file.write(_line("eval", {"probe": probe, "detector": detector, **_counts(scores)}))
        file.write(_line("completion", {"end_time": now(), "run": first.execution}))


def _check_attempt(entry: Mapping[str, Any], place: str) -> None:
    kinds = {"uuid": str, "probe_classname": str, "outputs": list, "detector_results": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(entry.get(name), kind)]
    wrong += ["status"] if entry.get("status") not in (_STARTED, _COMPLETE) else []
    if wrong:
        what = f"{wrong[0]} is {str(entry.get(wrong[0]))[:40]!r}"
        raise DataError(f"{place}: {what}; give a report that garak wrote")
    if len(entry["outputs"]) > _MOST_OUTPUTS:
        raise DataError(f"{place}: over {_MOST_OUTPUTS:,} outputs; split the line")


def _case(entry: Mapping[str, Any], place: str) -> TestCase | None:
    """Return the case of an attempt; None where its prompt has no text."""
    said = _said(entry.get("prompt"))
    if not said:
        return None
    probe, goal = entry["probe_classname"], entry.get("goal")
    module = probe.partition(".")[0]
    category = next((name for name, (_, known) in _CATEGORIES.items() if module in known), "other")
    fields = {
        "prompt": said[-1], "turns": said[:-1], "category": category, "severity": "medium",
        "goal": goal if isinstance(goal, str) and goal else said[-1],
        "plugin": f"garak-{re.sub(r'[^a-z0-9]+', '-', probe.lower()[:80]).strip('-')}",
        "taxonomy": sorted(_CATEGORIES.get(category, ((), ()))[0]),
    }  # fmt: skip
    return checked_case(fields, place=place)


def _said(prompt: Any) -> list[str]:
    """Return what the user says in a prompt: a text, a message or, since 0.11, a conversation."""
    turns = prompt.get("turns") if isinstance(prompt, dict) else None
    if not isinstance(turns, list):
        turns = [{"role": "user", "content": prompt}]
    users = (one for one in turns if isinstance(one, dict) and one.get("role") == "user")
    texts = [_text_of(one.get("content")) for one in users]
    return [text for text in texts if text is not None]


def _text_of(message: Any) -> str | None:
    text = message.get("text") if isinstance(message, dict) else message
    return text if isinstance(text, str) else None


def _outputs(entry: Mapping[str, Any]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield each output's text, if it has one, and what the detectors say of it."""
    for at, output in enumerate(entry["outputs"]):
        yield (
            _text_of(output),
            {
                detector: results[at]
                for detector, results in entry["detector_results"].items()
                if isinstance(results, list) and at < len(results) and results[at] is not None
            },
        )


def _entry(case: TestCase, several: list[Attempt]) -> dict[str, Any]:
    said = [_turn("user", text) for text in (*case.turns, case.prompt)]
    detectors = sorted({name for one in several for name in one.scores})
    verdicts = [None if one.error else float(one.success) for one in several]
    return {
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{several[0].execution} {case.id}")),
        "status": _COMPLETE, "goal": case.goal, "intent": None,
        "probe_classname": f"workbench.{case.plugin}", "probe_params": {}, "targets": [],
        "prompt": {"turns": said, "notes": {}}, "notes": {}, "reverse_translation_outputs": [],
        "outputs": [None if one.error else _message(one.received) for one in several],
        "detector_results": {
            **{name: [one.scores.get(name) for one in several] for name in detectors},
            SUCCESS: verdicts,
        },
        "conversations": [{"turns": [*said, _turn("assistant", one.received)]} for one in several],
    }  # fmt: skip


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": _message(text)}


def _message(text: str) -> dict[str, Any]:
    return {**dict.fromkeys(("lang", "data_path", "data_type", "data_checksum")), "text": text,
            "notes": {}}  # fmt: skip


def _counts(scores: list[float | None]) -> dict[str, int]:
    judged = [score >= _THRESHOLD for score in scores if score is not None]
    fails = sum(judged)
    return {"passed": len(judged) - fails, "fails": fails, "nones": len(scores) - len(judged),
            "total_evaluated": len(judged), "total_processed": len(scores)}  # fmt: skip


def _line(kind: str, fields: Mapping[str, Any]) -> str:
    return json.dumps({"entry_type": kind, **fields}) + "\n"
