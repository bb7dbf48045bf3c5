"""What a campaign found, in one claim and its proof, whatever was attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.report.blocks import Fact, Finding
from workbench.report.pages.campaign_judges import (
    answered_only,
    error_in_words,
    is_upper_bound,
)
from workbench.report.tables import counted, estimate, number, percent, percentage_points
from workbench.report.tables import probability as p_value

__all__ = ["CHANCE", "MEASURES", "facts", "finding", "kind_of", "targets_of", "total"]

CHANCE = 0.05
"""Adjusted p-value from which a difference is left to chance."""
MEASURES: Mapping[str, str] = {
    "totals": "attacks that succeed",
    "delivered": "requests arriving intact",
    "controls": "harmless prompts spoilt",
}
_FIXED = ("@1.0", "@1")
_PAIR = 2
_MOST_NAMED = 6
_RULES = (
    "Guards and models are counted by different rules: a guard by what it lets through, a model "
    "by what it answers. Their rates must not be compared."
)


def targets_of(analysis: Mapping[str, Any]) -> list[str]:
    """Return the targets in their order, those of which no attempt counts last."""
    rows = [*analysis["totals"], *analysis["controls"]]
    return list(dict.fromkeys([*(row["target"] for row in rows), *analysis.get("errors", ())]))


def kind_of(analysis: Mapping[str, Any], target: str) -> str:
    """Return ``guard`` or ``model``; older results know guards only."""
    return str(analysis.get("kinds", {}).get(target, "guard"))


def total(analysis: Mapping[str, Any], measure: str, target: str) -> dict[str, Any]:
    """Return the rate of a target over everything, empty where there is none."""
    mine = [dict(row) for row in analysis[measure] if row["target"] == target]
    return next((row for row in mine if row["group"] == "all"), mine[0] if mine else {})


def finding(analysis: Mapping[str, Any]) -> Finding:
    """Return what the page claims first: of guards and of models each by their own rules."""
    attacked = _attacked(analysis)
    if not attacked:
        return _no_attack(analysis)
    is_mixed = len(attacked) > 1
    tell = {"guard": _of_guards, "model": _of_models}
    told = [tell[kind](analysis, names, is_mixed=is_mixed) for kind, names in attacked.items()]
    proof = [one.proof for one in told] + [_RULES] * is_mixed
    proof += [error_in_words(analysis, kind) for kind in attacked]
    proof += [
        f"No attempt on {name} counts: {counted(failed, 'attempt')} failed or could not be judged."
        for name, failed in analysis.get("errors", {}).items()
        if failed and not total(analysis, "totals", name)
    ]
    return Finding("; ".join(one.claim for one in told), " ".join(one for one in proof if one))


def facts(analysis: Mapping[str, Any]) -> list[Fact]:
    """Return large numbers of the two targets that the claim compares first."""
    made = []
    known = next(iter(_attacked(analysis).values()), [])
    for measure, label in MEASURES.items():
        rows = [total(analysis, measure, name) for name in _compared(known)]
        if not rows or not all(rows):
            continue
        first, last = rows[0], rows[-1]
        rate, note = last["rate"], f"{last['target']}, {counted(last['attempts'], 'attempt')}"
        if len(rows) > 1:
            note += f"; {first['target']} {percent(first['rate']['value'])} (gray tick)"
        if measure == "totals" and _is_bound(analysis, last["target"]):
            label += ", at most"  # noqa: PLW2901
        ends = (rate["low"], rate["value"], rate["high"], first["rate"]["value"])
        strip = tuple(min(max(end, 0.0), 1.0) for end in ends)
        made.append(Fact(label.capitalize(), estimate(rate, percent), note, strip=strip))
    return made


def _attacked(analysis: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return kind → targets on which an attack counts, guards first."""
    known = [name for name in targets_of(analysis) if total(analysis, "totals", name)]
    kinds = {
        kind: [name for name in known if kind_of(analysis, name) == kind]
        for kind in ("guard", "model")
    }
    return {kind: names for kind, names in kinds.items() if names}


def _compared(targets: Sequence[str]) -> list[str]:
    """Return the first target and the one that it is compared with, if there is another.

    That is the one at gain 1.0, else the second: fixed beforehand, not chosen by these tests.
    """
    fixed = [name for name in targets[1:] if name.endswith(_FIXED)]
    return [*targets[:1], *(fixed or targets[1:])[:1]]


def _no_attack(analysis: Mapping[str, Any]) -> Finding:
    failed = sum(analysis.get("errors", {}).values())
    if failed:
        claim = "No attack was answered and judged"
        proof = f"{counted(failed, 'attempt')} failed or could not be judged; why is below."
    else:
        claim, proof = "No attack was executed", "There is nothing to count."
    spoilt = [row for name in targets_of(analysis) if (row := total(analysis, "controls", name))]
    if spoilt:
        proof = f"{proof.removesuffix('There is nothing to count.')} {_controls(spoilt)}".strip()
    return Finding(claim, proof)


def _of_guards(analysis: Mapping[str, Any], guards: Sequence[str], *, is_mixed: bool) -> Finding:
    pair = _compared(guards)
    first, last = (total(analysis, "totals", name) for name in (pair[0], pair[-1]))
    spoilt = [total(analysis, "controls", name) for name in pair]
    intact = [total(analysis, "delivered", name) for name in pair]
    if len(pair) < _PAIR:
        claim = f"{percent(last['rate']['value'])} of attacks succeed on {pair[0]}"
        proof = f"{estimate(last['rate'], percent)} of {number(last['attempts'])} attempts; no "
        proof += "second guard was attacked."
    else:
        claim = f"Attack success {_moves(analysis, pair, 'fall')}: "
        claim += f"{percent(first['rate']['value'])} on {pair[0]}, "
        claim += f"{percent(last['rate']['value'])} behind {pair[1]}"
        proof = (
            f"In the judges' eyes {estimate(last['rate'], percent)} of {number(last['attempts'])} "
            f"attacks succeed behind {pair[1]} (compared at the fixed gain, not the best one), and "
            f"{estimate(first['rate'], percent)} on {pair[0]}. {_difference(analysis, pair)}"
        )
    if all(spoilt) and not is_mixed:
        share = percent(spoilt[-1]["rate"]["value"])
        claim += f", at the price of {share} of harmless prompts"
    if all(intact):
        proof += f" {estimate(intact[-1]['rate'], percent)} of the requests still arrive intact, "
        proof += f"plain or disguised{_against(intact)}."
    if all(spoilt):
        proof += f" {estimate(spoilt[-1]['rate'], percent)} of harmless prompts are spoilt"
        proof += f"{_against(spoilt)}."
    return Finding(claim, proof)


def _against(rows: Sequence[Mapping[str, Any]]) -> str:
    return f", against {percent(rows[0]['rate']['value'])}" if len(rows) > 1 else ""


def _of_models(analysis: Mapping[str, Any], models: Sequence[str], *, is_mixed: bool) -> Finding:
    rows = [total(analysis, "totals", name) for name in models]
    most = "at most " * is_upper_bound(analysis)
    shares = [f"{most}{percent(row['rate']['value'])} on {row['target']}" for row in rows]
    if len(rows) == 1:
        (row,) = rows
        share = f"{most}{percent(row['rate']['value'])} of attacks"
        claim = f"{share} succeed on {row['target']}"
    elif len(rows) == _PAIR:
        claim = f"attack success {_moves(analysis, models, 'differ')}: {', '.join(shares)}"
    else:
        ranked = sorted(zip(rows, shares, strict=True), key=lambda one: one[0]["rate"]["value"])
        claim = f"attack success goes from {ranked[0][1]} to {ranked[-1][1]}, over "
        claim += counted(len(rows), "model")
    claim = claim[0].upper() + claim[1:]
    if is_mixed:
        rates = [row["rate"]["value"] for row in rows]
        ends = dict.fromkeys(map(percent, (min(rates), max(rates))))
        claim = f"on {counted(len(rows), 'model')} it is {most}{' to '.join(ends)}"
    named = [f"{_share(row)} of {number(row['attempts'])} attempts" for row in rows[:_MOST_NAMED]]
    more = len(rows) - len(named)
    proof = [f"Attacks succeed on {'; on '.join(named)}{f'; {more} more are below' * (more > 0)}."]
    if len(rows) == 1:
        proof.append("No second model was attacked.")
    proof.append(_difference(analysis, models) if len(rows) == _PAIR else _differing(analysis))
    spoilt = [row for name in models if (row := total(analysis, "controls", name))]
    if spoilt and not is_mixed:
        proof.append(_controls(spoilt[:_MOST_NAMED]))
    if most:
        proof.append(_bound(analysis))
    return Finding(claim, " ".join(one for one in proof if one))


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['target']} in {estimate(row['rate'], percent)}"


def _controls(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"Harmless prompts are spoilt on {'; on '.join(map(_share, rows))}."


def _bound(analysis: Mapping[str, Any]) -> str:
    some = answered_only(analysis)
    which = f"{number(some)} of the answers that count" if some else "Some answers that count"
    return (
        f"{which} merely were not declined (answered/1), in cases that do not say what a success "
        "looks like: the rates are upper bounds, not rates of harm."
    )


def _is_bound(analysis: Mapping[str, Any], target: str) -> bool:
    return kind_of(analysis, target) == "model" and is_upper_bound(analysis)


def _comparison(analysis: Mapping[str, Any], pair: Sequence[str]) -> dict[str, Any] | None:
    """Return how two targets compare on the attacks that both answered, if that was counted."""
    rows = (row for row in analysis.get("comparisons", ()) if row["by"] == "all")
    return next((dict(row) for row in rows if [row["first"], row["second"]] == [*pair]), None)


def _moves(analysis: Mapping[str, Any], pair: Sequence[str], verb: str) -> str:
    """Return whether attack success falls, rises or differs, no surer than the test is."""
    row = _comparison(analysis, pair)
    if row is None:
        first, last = (total(analysis, "totals", name)["rate"]["value"] for name in pair)
        if verb == "differ":
            return "by target"
        return "falls" if last < first else "does not fall"
    if row["p_adjusted"] >= CHANCE:
        return f"does not clearly {verb}"
    if verb == "differ":
        return "differs"
    return "falls" if row["difference"]["value"] < 0 else "rises"


def _difference(analysis: Mapping[str, Any], pair: Sequence[str]) -> str:
    row = _comparison(analysis, pair)
    if row is None:
        first, last = (total(analysis, "totals", name)["rate"] for name in pair)
        overlaps = first["low"] <= last["high"] and last["low"] <= first["high"]
        told: str = "The intervals overlap: this campaign alone does not settle the difference."
        return told if overlaps else ""
    told = f"On the same {counted(row['goals'], 'goal')} the difference is "
    told += f"{estimate(row['difference'], percentage_points)} points, McNemar's p "
    p = p_value(row["p_adjusted"])
    told += f"{p if p.startswith('<') else f'= {p}'} after correction for all comparisons"
    settled = row["p_adjusted"] < CHANCE
    return f"{told}{'.' if settled else ': this campaign alone does not settle it.'}"


def _differing(analysis: Mapping[str, Any]) -> str:
    rows = [
        row
        for row in analysis.get("comparisons", ())
        if row["by"] == "all" and kind_of(analysis, row["first"]) == "model"
        if kind_of(analysis, row["second"]) == "model"
    ]
    clear = sum(row["p_adjusted"] < CHANCE for row in rows)
    if not rows:
        return ""
    many = f"{clear} of {counted(len(rows), 'pair')} of models"
    return f"{many} {'differs' if clear == 1 else 'differ'} by more than chance explains."
