"""Who judged a campaign: their own error, how far they agree, and what nobody measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.report.blocks import Block, Text
from workbench.report.tables import (
    Cell,
    Heads,
    cell,
    counted,
    estimate,
    number,
    percent,
    short,
    table,
    words,
)

__all__ = ["answered_only", "error_in_words", "is_upper_bound", "judges"]

_UPPER_BOUND = "answered/"
_PANEL = "panel@"
_AUROC: Heads = {
    "Judge": lambda one: short(one["id"]),
    "AUROC | against benign": lambda one: estimate(one["auroc_benign"]),
    "AUROC | against look-alikes": lambda one: estimate(one["auroc_lookalike"]),
    "Recall | harmful flagged": lambda one: percent(one["recall"]),
    "False alarms | benign": lambda one: percent(one["false_positive_rate"]),
    "False alarms | look-alikes": lambda one: percent(one["lookalike_flag_rate"]),
    "Calibration error | probability": lambda one: cell(one["calibration_error"]),
    "Threshold | probability": lambda one: cell(one["threshold"]),
}
_ACCURACY: Heads = {
    "Judge": lambda one: _name(one["judge"]),
    "Task": lambda one: one.get("task", "all"),
    "Labelled | answers": lambda one: f"{number(one['n'])}{' held out' * one.get('is_out', False)}",
    "Has an opinion | share": lambda one: percent(one["coverage"]),
    "Precision | of its yes": lambda one: _rate(one["precision"]),
    "Recall | of all successes": lambda one: _rate(one["recall"]),
    "Right | of its opinions": lambda one: _rate(one["correct"]),
}
_OPINIONS: Heads = {
    "Judge": lambda one: _name(one["judge"]),
    "Had an opinion on | attempts": lambda one: number(one["attempts"]),
    "Attacks | called a success": lambda one: number(one["attacks"]),
    "Harmless prompts | called spoilt": lambda one: number(one["controls"]),
}
_AGREEMENT: Heads = {
    "Judges": lambda row: f"{_name(row['first'])} and {_name(row['second'])}",
    "Attempts | both have an opinion": lambda row: number(row["attempts"]),
    "Agreement | share": lambda row: percent(row["observed"]),
    "Cohen's κ | beyond chance": lambda row: estimate(row["kappa"]) if row["kappa"] else "–",
}


def judges(graded: Mapping[str, Any]) -> list[Block]:
    """Return who judged, from an analysis or, before there is one, from an execution."""
    blocks: list[Block] = [Text(_about(graded))]
    if unmeasured := _unmeasured(graded):
        names = ", ".join(map(_name, unmeasured))
        blocks.append(Text(f"Whose own error nobody measured here: {names}.", is_note=True))
    if graded["judges"]:
        caption = "The error of the probes, on held-out topics of the judge set"
        blocks.append(table(caption, _AUROC, graded["judges"]))
    if accuracy := graded.get("judge_accuracy"):
        caption = "The error of the judges of answers, on labelled answers"
        note = "Wilson's 95 % intervals; no opinion on a success counts as missed. "
        note += graded.get("accuracy_note", "")
        blocks += [table(caption, _ACCURACY, _with_held_out(accuracy), note=note)]
        blocks += [_kinds(accuracy)]
    if opinions := graded.get("opinions"):
        blocks.append(table("What they said in this campaign", _OPINIONS, opinions))
    if pairs := graded.get("judge_agreement"):
        note = "κ: 1 is perfect, 0 no more than chance; –: both always said the same one thing. "
        note += "95 % bootstrap intervals over goals."
        blocks.append(table("Agreement of each two judges", _AGREEMENT, pairs, note=note))
    return blocks


def answered_only(analysis: Mapping[str, Any]) -> int:
    """Return how many successes are answers that merely were not declined."""
    said = analysis.get("opinions", ())
    return sum(int(one["attacks"]) for one in said if _UPPER_BOUND in one["judge"])


def is_upper_bound(analysis: Mapping[str, Any]) -> bool:
    """Return whether attack success is an upper bound: some who judged cannot tell harm."""
    if "opinions" in analysis:
        return answered_only(analysis) > 0
    return any(_UPPER_BOUND in row["judge"] for row in analysis.get("judge_accuracy", ()))


def error_in_words(analysis: Mapping[str, Any], kind: str) -> str:
    """Return how often the judges of guards, or of models, are wrong themselves."""
    if kind == "guard":
        told = [
            f"{short(one['id'])} misses {percent(1 - one['recall'])} of harmful texts and flags "
            f"{percent(one['false_positive_rate'])} of benign ones"
            for one in analysis["judges"]
        ]
        return f"The probes err too: {'; '.join(told)}." if told else ""
    rows = analysis.get("judge_accuracy", ())
    rows = [one for one in rows if _PANEL in one["judge"]] or rows
    rows = [one for one in rows if one.get("task") != "control" and one["n"]]
    if not rows:
        return "How often the judges of answers err was not measured here."
    return f"The judges of answers err too: {'; '.join(map(_errors, rows))}."


def _errors(row: Mapping[str, Any]) -> str:
    """Return what a row of errors says, by itself and on what was held out."""
    told = [
        f"{share} {estimate(row[key], percent)}" for key, share in
        (("precision", "their yes is right in"), ("recall", "they find"))
        if row[key]
    ]  # fmt: skip
    words_of = {"attack": "to attacks", "assertion": "that assertions decide"}
    many = f"{counted(row['n'], 'labelled answer')} {words_of.get(row.get('task', ''), '')}".strip()
    out, rest = row.get("held_out"), ""
    if out and out["recall"]:
        rest = f", {percent(out['recall']['value'])} of the {number(out['succeeded'])} held out"
    return f"of {many}, {_both(told)}{rest}"


def _with_held_out(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return rows, each followed by the same on the answers that were held out."""
    both = []
    for row in rows:
        both.append(row)
        if row.get("held_out"):
            both.append({**row, **row["held_out"], "is_out": True})
    return both


def _both(told: list[str]) -> str:
    return f"{' and '.join(told)} of the successes" if told else "they call none a success"


def _about(graded: Mapping[str, Any]) -> str:
    told = []
    if graded["judges"]:
        reads = [f"{short(one['id'])}: {one['representation']}" for one in graded["judges"]]
        told.append(f"The probes never saw the training data. What they are: {'; '.join(reads)}.")
    if "agreement" in graded:
        told.append(_agreement(graded))
    if is_upper_bound(graded):
        told.append(
            "The judge answered/1 counts every answer that is not declined, for want of one that "
            "can tell: what it counts is an upper bound."
        )
    return " ".join(told) or "Each case says itself what a success looks like."


def _agreement(graded: Mapping[str, Any]) -> str:
    share, alpha = percent(graded["agreement"]), graded.get("alpha")
    if "agreed_on" not in graded:
        return f"They agree on {share} of attempts."
    if not graded.get("judge_agreement"):
        return "No two judges had an opinion on the same attempt: there is no agreement to measure."
    told = f"All that have an opinion agree on {share} of the "
    told += f"{counted(graded['agreed_on'], 'attempt')} on which several do; "
    if alpha is None:
        return f"{told}Krippendorff's α is undefined, as all said one and the same thing."
    return f"{told}Krippendorff's α is {number(float(alpha))} (1 is perfect, 0 chance)."


def _unmeasured(graded: Mapping[str, Any]) -> list[str]:
    """Return the judges of this campaign that have no row in either table of errors."""
    measured = {one["id"] for one in graded["judges"]}
    measured |= {one["judge"] for one in graded.get("judge_accuracy", ())}
    return [one["judge"] for one in graded.get("opinions", ()) if one["judge"] not in measured]


def _kinds(accuracy: list[Mapping[str, Any]]) -> Block:
    accuracy = [row for row in accuracy if row["by_kind"]]
    kinds = list(dict.fromkeys(kind for row in accuracy for kind in row["by_kind"]))

    def cells(kind: str) -> list[Cell]:
        shares = [row["by_kind"].get(kind) for row in accuracy]
        return [words(kind), *("–" if share is None else percent(share) for share in shares)]

    heads = [
        "Kind of answer",
        *(f"{_name(row['judge'])} | {row.get('task', 'decided rightly')}" for row in accuracy),
    ]
    return table("Decided rightly, by kind of labelled answer", heads, map(cells, kinds)).folded()


def _name(judge: str) -> str:
    """Return the id of a judge, or of several that vote as one, as people read it."""
    return " + ".join(map(short, judge.split("+")))


def _rate(interval: Mapping[str, Any] | None) -> Cell:
    return estimate(interval, percent) if interval else "–"
