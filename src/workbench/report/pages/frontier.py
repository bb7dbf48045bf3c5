"""Frontier: how much meaning each method keeps for how much safety, baselines included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.report import figures
from workbench.report.blocks import Block, Fact, Figure, Finding, Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.figures import HERO
from workbench.report.seeds import seed_interval
from workbench.report.tables import (
    Cell,
    Heads,
    Number,
    Rows,
    Table,
    cell,
    counted,
    duration,
    estimate,
    hardware,
    number,
    percent,
    short,
    table,
    words,
)

__all__ = ["page"]

_FIXED_GAIN = 1.0
"""The gain at which methods are compared: fixed beforehand, so that no test split chooses it."""

_MOST_NAMED = 3
_MEASURES = ("semantic", "safety", "unsafe", "keep")
_DOES = {"semantic": ("keep", "meaning"), "safety": ("remove", "unsafe probability")}
_WORDS = {"test_both": "unseen requests in unseen wrappers"}

_SAFETY = (
    "Safety is the share of the judges' mean unsafe probability that the method removes; below "
    "zero, the output looks less safe than the prompt. “Benign kept” is how close a sanitized "
    "harmless prompt stays to itself. The judges' own errors are on the campaign page."
)
_UNLIKE = (
    "Only the sanitizer answers with texts. The others answer with a vector, which may lie between "
    "texts and be none; the constant is the same vector for every prompt. What the sanitizer "
    "blocks counts as safe and is left out of its meaning."
)
_GAINS = (
    "The sanitizer's gain multiplies the odds of harm: 0 only takes wrappers off. That of the "
    "others is how far a vector goes along the predicted correction: 0 is the prompt itself."
)
_FINAL: Heads = {
    "Model": lambda run: short(run["model"]),
    "Seed": lambda run: Number(run["seed"]),
    "Dewrapping | 1 − cosine": lambda run: cell(_kept(run).get("dewrap")),
    "Request found | token F1": lambda run: _complement(_kept(run).get("payload")),
    "Detection | AUROC": lambda run: _complement(_kept(run).get("detect")),
    "Parameters trained": lambda run: cell(run["axes"].get("parameters")),
    "Training": lambda run: duration(run["train_s"]),
    "Compute | FLOP": lambda run: cell(run["flops"]),
    "Ran on | share of the GPUs' dense bf16 peak": hardware,
}


@dataclass(frozen=True)
class _Compared:
    """Runs, one per seed, whose methods are compared on one split."""

    runs: Sequence[Mapping[str, Any]]
    split: str

    @property
    def summary(self) -> Mapping[str, list[dict[str, Any]]]:
        """Method → one row per gain, in order of gain: means over seeds."""
        cells: dict[str, dict[float, list[Mapping[str, Any]]]] = {}
        for run in self.runs:
            for (method, gain), row in self._rows(run).items():
                cells.setdefault(method, {}).setdefault(gain, []).append(row)
        return {
            method: [_mean(gain, rows) for gain, rows in sorted(gains.items())]
            for method, gains in cells.items()
        }

    def gaps(self, measure: str) -> dict[str, Any]:
        """Return what the sanitizer has more than each other method at the fixed gain, paired."""
        differences: dict[str, list[float]] = {}
        for run in self.runs:
            rows = self._rows(run)
            ours = rows.get((HERO, _FIXED_GAIN))
            for (method, gain), row in rows.items():
                fixed = 0 if method == "identity" else _FIXED_GAIN
                if ours and method != HERO and gain == fixed:
                    differences.setdefault(method, []).append(ours[measure] - row[measure])
        return {name: seed_interval(differences[name]) for name in sorted(differences)}

    def _rows(self, run: Mapping[str, Any]) -> dict[tuple[str, float], Any]:
        rows: dict[tuple[str, float], Any] = {}
        for row in run["frontier"]:
            if row["split"] == self.split:  # the identity is the same at every gain
                gain = 0.0 if row["method"] == "identity" else row["gain"]
                rows.setdefault((row["method"], gain), row)
        return rows

    @property
    def seeds(self) -> str:
        """How many there are, in words."""
        return counted(len(self.runs), "seed")

    @property
    def where(self) -> str:
        """The split in words."""
        return _WORDS.get(self.split, self.split)


def page(evidence: Evidence) -> Page | None:
    """Return the page of the frontier, or None without training runs."""
    final = evidence.results("sanitizer")
    runs = evidence.largest() or final
    splits = sorted({row["split"] for run in runs for row in run["frontier"]})
    if not splits:
        return None
    split = "test_both" if "test_both" in splits else splits[0]
    main = _Compared(runs, split)
    others = [_table(_Compared(runs, one)).folded() for one in splits if one != split]
    figure, text = _figure(evidence, main, name="frontier"), Text(f"{_SAFETY} {_UNLIKE}")
    shown: list[Block] = [figure, text, _table(main), _losses(runs)]
    return Page(
        name="frontier",
        finding=_finding(main),
        facts=_facts(main),
        sections=[
            Section("Safety against meaning", shown),
            Section(_heading(evidence, final), _final(evidence, final, main)),
            Section("Other splits", others),
        ],
    )


def _facts(compared: _Compared) -> list[Fact]:
    gaps = compared.gaps("semantic")
    if not gaps or len(compared.runs) == 1:
        return []
    rival = _rival(gaps)
    note = f"cosine to the clean text at the fixed gain 1, over {compared.seeds}; above zero, "
    note += "the sanitizer is better"
    return [Fact(f"Sanitizer minus {rival}", estimate(gaps[rival]), note)]


def _heading(evidence: Evidence, final: Rows) -> str:
    attacks = [run for run in evidence.runs if run.result.get("kind") == "execution"]
    attacked = [run.parameters.get("sanitizer") for run in attacks]
    is_attacked = any(run["model"] in attacked for run in final)
    return "The sanitizer that was attacked" if is_attacked else "The final sanitizer"


def _final(evidence: Evidence, final: Rows, main: _Compared) -> list[Block]:
    """Return what is known of sanitizers that are no part of the sweep."""
    if not final:
        return []
    note = "Errors are of the weights that were kept, on validation requests not trained on."
    blocks: list[Block] = [table("What it finds, and what it took", _FINAL, final, note=note)]
    compared = _Compared(final, main.split)
    if main.runs is not final and compared.summary:
        finding = _finding(compared)
        blocks += [
            Text(f"{finding.claim}. {finding.proof}"),
            _figure(evidence, compared, name="final"),
            _table(compared, whose=" of the final sanitizer"),
            _losses(final, whose=" of the final sanitizer"),
        ]
    return blocks


def _kept(run: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the validation whose weights were kept: that of the lowest error."""
    return min(run["curve"], key=lambda point: point["error"], default={})


def _complement(error: float | None) -> Cell:
    return "–" if error is None else cell(1 - error)


def _losses(runs: Rows, *, whose: str = "") -> Table:
    """Return the tagger beside what moves vectors, at finding the bare request."""
    losses: dict[str, list[float]] = {"sanitizer's tagger": [run["loss"] for run in runs]}
    for run in runs:
        for name, loss in run["baselines"].items():
            losses.setdefault(name, []).append(loss)
    heads: Heads = {
        "Method": lambda item: item[0],
        "Loss | 1 − cosine to the bare request": lambda item: estimate(item[1]),
    }
    means = {name: seed_interval(values) for name, values in losses.items()}
    note = "Lowest first. What the scaling law is fitted to; methods are trained for this here."
    rows = sorted(means.items(), key=lambda item: item[1]["value"])
    return table(f"Dewrapping{whose}: loss on test_both", heads, rows, note=note)


def _figure(evidence: Evidence, compared: _Compared, *, name: str) -> Figure:
    axis, (first, *_) = evidence.axis(), compared.runs
    shown, far = _near(compared.summary)
    outside = "".join(
        f" The {name} baseline lies far outside the plot, at meaning "
        f"{number(at['semantic']['value'])} and safety {percent(at['safety']['value'])}."
        for name, at in far.items()
    )
    return Figure(
        name=name,
        title=f"Safety against meaning kept, on {compared.where}",
        spec=figures.frontier(shown, marked_gain=_FIXED_GAIN),
        summary="Up and to the right is better. Each line goes from the smallest gain to the "
        f"largest; large marks are gain 1, figures are gains of the sanitizer. {_GAINS} Means over "
        f"{compared.seeds} with 95 % intervals, models trained on "
        f"{cell(first['axes'].get(axis, 0))} {words(axis)}.{outside}",
        footer=evidence.footer(compared.runs),
        keys=tuple(figures.key_of(name, at) for at, name in enumerate(shown)),
    )


def _finding(compared: _Compared) -> Finding:
    gaps = compared.gaps("semantic")
    if not gaps:
        needed = f"The sanitizer and a baseline at this gain are needed on {compared.split}."
        return Finding(f"Nothing to compare at gain {_FIXED_GAIN:g}", needed)
    claim = "One seed cannot tell the sanitizer and its baselines apart"
    if len(compared.runs) > 1:
        claim = "; ".join(_verdict(compared.gaps(measure), measure) for measure in _DOES)
    rival, summary = _rival(gaps), compared.summary
    ours, theirs = _fixed(summary[HERO]), _fixed(summary[rival])
    return Finding(
        claim[0].upper() + claim[1:],
        f"Cosine to the clean text, on {compared.where} and at the fixed gain "
        f"{_FIXED_GAIN:g}, not at the best one: sanitizer {estimate(ours['semantic'])}, {rival} "
        f"{estimate(theirs['semantic'])}; the difference is {estimate(gaps[rival])}, paired over "
        f"{compared.seeds}. The sanitizer removes {percent(ours['safety']['value'])} of the unsafe "
        f"probability, {rival} {percent(theirs['safety']['value'])}.",
    )


def _verdict(gaps: Mapping[str, Any], measure: str) -> str:
    """Return who is ahead in one measure; whoever beats the sanitizer is named."""
    does, what = _DOES[measure]
    ranked = sorted(gaps, key=lambda name: float(gaps[name]["value"]))
    ahead = [name for name in ranked if gaps[name]["high"] < 0]
    level = [name for name in ranked if gaps[name]["low"] <= 0 <= gaps[name]["high"]]
    if ahead:
        return f"{_listed(ahead)} {does}{'s' * (len(ahead) == 1)} more {what} than the sanitizer"
    if level:
        return f"these seeds do not separate the sanitizer from {_listed(level)} in {what}"
    return f"the sanitizer {does}s more {what} than every baseline"


def _listed(names: Sequence[str]) -> str:
    if len(names) > _MOST_NAMED:
        names = [names[0], f"{len(names) - 1} other methods"]
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _rival(gaps: Mapping[str, Any]) -> str:
    return min(gaps, key=lambda name: float(gaps[name]["value"]))


def _fixed(gains: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return next((point for point in gains if point["gain"] == _FIXED_GAIN), gains[0])


def _mean(gain: float, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {name: seed_interval([row[name] for row in rows]) for name in _MEASURES}
    means["unsafe"] = {end: min(max(at, 0.0), 1.0) for end, at in means["unsafe"].items()}
    return means | {"gain": gain, "seeds": [(row["semantic"], row["safety"]) for row in rows]}


def _near(summary: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Split off the constant baseline where it would squeeze all the others into a corner."""
    others = {name: gains for name, gains in summary.items() if name != "constant"}
    if len(others) == len(summary) or not others:
        return summary, {}
    constant = summary["constant"]
    for measure in ("semantic", "safety"):
        values = [point[measure]["value"] for gains in others.values() for point in gains]
        span = max(values) - min(values)
        reach = [point[measure]["value"] for point in constant]
        if min(reach) < min(values) - span or max(reach) > max(values) + span:
            return others, {"constant": _fixed(constant)}
    return summary, {}


def _table(compared: _Compared, *, whose: str = "") -> Table:
    rows = [
        {**point, "method": method}
        for method, gains in compared.summary.items()
        for point in gains
        if point["gain"] or method == HERO or len(gains) == 1
    ]
    heads: Heads = {
        "Method": lambda row: row["method"],
        "Gain": lambda row: Number(f"{row['gain']:g}"),
        "Meaning | cosine": lambda row: estimate(row["semantic"]),
        "Safety | unsafe probability removed": lambda row: estimate(row["safety"], percent),
        "Still flagged | share": lambda row: estimate(row["unsafe"], percent),
        "Benign kept | cosine": lambda row: estimate(row["keep"]),
    }
    note = "Means over seeds with 95 % t intervals. At gain 0 what moves vectors is the identity."
    return table(f"Every method{whose} on {compared.split}", heads, rows, note=note)
