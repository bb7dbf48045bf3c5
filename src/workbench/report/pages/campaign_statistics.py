"""What a campaign says beyond rates: comparisons, disguises, steadiness, errors, costs, triage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.report.blocks import Block, Figure, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.figures import color_of, dots
from workbench.report.pages.campaign_finding import CHANCE, targets_of, total
from workbench.report.tables import (
    Cell,
    Heads,
    Number,
    Rows,
    counted,
    counts,
    dollars,
    energy,
    estimate,
    number,
    percent,
    percentage_points,
    probability,
    short,
    table,
    words,
)

__all__ = ["sections", "triage"]

_MOST_DISGUISES = 14
_MOST_NAMED = 6
_FEW = 20
_WORDS = {"all": "attacks\u00a0that\u00a0succeed", "controls": "harmless\u00a0spoilt"}
_STATES = {
    "needs_review": "nobody has looked at it yet",
    "confirmed": "a person found it to be real",
    "false_positive": "a person found the judges to be wrong",
    "fixed": "it was real and was fixed",
}
_TEST: Heads = {
    "Difference | points": lambda row: estimate(row["difference"], percentage_points),
    "p | adjusted": lambda row: probability(row["p_adjusted"]),
    "q | false discoveries": lambda row: probability(row["q"]),
    "p | McNemar": lambda row: probability(row["p"]),
    "Pairs | attempts": lambda row: number(row["pairs"]),
    "Goals | independent": lambda row: number(row["goals"]),
    "Only first | pairs": lambda row: number(row["only_first"]),
    "Only second | pairs": lambda row: number(row["only_second"]),
}
_TEST_NOTE = (
    "Difference: second less first. p, adjusted: Holm over all rows, by strategy and category too: "
    "no false claim among them, with 95 %. q below .05: one in twenty of such rows may be false. "
    "Only first, only second: pairs of which one alone succeeded."
)


def sections(evidence: Evidence, analysis: Mapping[str, Any]) -> list[Section]:
    """Return what was measured beyond rates, empty sections left for the page to drop."""
    footer = evidence.footer([analysis])
    return [
        Section("Targets compared", _compared(analysis)),
        Section("What a disguise adds", _disguises(analysis, footer=footer)),
        Section("How steady the outcomes are", _steadiness(analysis)),
        Section("Errors, speed and cost", [*_errors(analysis), *_costs(evidence, analysis)]),
    ]


def triage(analysis: Mapping[str, Any]) -> list[Block]:
    """Return how many findings there are, by state, and how well their states were foretold."""
    many = counted(analysis["findings"], "finding")
    if "states" not in analysis:
        return [Text(f"{many} in all; some of them, redacted:")]
    blocks: list[Block] = [Text(f"{many} in all. {_prefill(analysis.get('prefill', {}))}")]
    if states := analysis["states"]:
        heads = ["State", "Count | findings"]
        shown = {words(name): count for name, count in states.items()}
        meanings = {words(name): meaning for name, meaning in _STATES.items()}
        caption = "Findings by state, when this was analyzed"
        blocks.append(counts(caption, heads, shown, meanings=meanings))
    return [*blocks, Text("Some of them, redacted:")] if analysis["examples"] else blocks


def _prefill(quality: Mapping[str, Any]) -> str:
    if not quality.get("n"):
        return "Nobody has decided on any of them, so how good their suggested states are is open."
    told = []
    for name, before, after in (
        ("precision", "of those suggested as real people confirmed", ""),
        ("recall", "of those that people confirmed", "had been suggested as real"),
    ):
        rate = quality["intervals"][name]
        share = estimate(rate, percent) if rate else "none"
        told.append(f"{before} {share} {after}".strip())
    decided = counted(quality["n"], "finding")
    how = f"How good the suggested states are, on {decided} that people decided on"
    return f"{how}: {'; '.join(told)}."


def _compared(analysis: Mapping[str, Any]) -> list[Block]:
    kinds = analysis.get("kinds", {})
    # a guard's success and a model's are counted by different rules
    rows = [
        row
        for row in analysis.get("comparisons", ())
        if kinds.get(row["first"]) == kinds.get(row["second"])
    ]
    if not rows:
        return []
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    said = ["Each two targets on the attempts that both answered: neither had the easier tests."]
    names: Heads = {"Targets | first → second": _pair}
    if len(pairs) == 1:
        names, (first, second) = {}, pairs[0]
        said = [f"On the attempts that both answered. First: {first}; second: {second}."]
    said += [_tally(rows, by=by) for by in ("strategy", "category")]
    told: Heads = {**names, "In words": _in_words, **_TEST}
    overall: Heads = {"Of what": lambda row: _WORDS[row["by"]], **told}
    main = [row for what in _WORDS for row in rows if row["by"] == what]
    blocks: list[Block] = [Text(" ".join(said).strip())]
    blocks.append(table("Two targets over everything", overall, main, note=_TEST_NOTE))
    for by in ("strategy", "category"):
        heads: Heads = {by.capitalize(): lambda row: words(row["group"]), **told}
        if some := sorted((row for row in rows if row["by"] == by), key=_surest):
            blocks.append(table(f"Two targets by {by}, surest first", heads, some).folded())
    return blocks


def _pair(row: Mapping[str, Any]) -> str:
    return f"{row['first']}\u00a0→ {row['second']}"


def _tally(rows: Rows, *, by: str) -> str:
    some = [row for row in rows if row["by"] == by]
    clear = sum(row["p_adjusted"] < CHANCE for row in some)
    if not some:
        return ""
    shows = "shows" if clear == 1 else "show"
    return f"By {by}, {clear} of {counted(len(some), 'comparison')} {shows} a difference."


def _in_words(row: Mapping[str, Any]) -> str:
    if row["p_adjusted"] >= CHANCE:
        return _unbroken("no difference shown")
    return _unbroken(f"{'fewer' if row['difference']['value'] < 0 else 'more'} on the second")


def _unbroken(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _surest(row: Mapping[str, Any]) -> tuple[float, float, float]:
    return row["p_adjusted"], row["p"], -abs(row["difference"]["value"])


def _disguises(analysis: Mapping[str, Any], *, footer: str) -> list[Block]:
    rows = analysis.get("mutations", ())
    if not rows:
        return []
    by_target = {
        name: [row for row in rows if row["group"] == name] for name in targets_of(analysis)
    }
    said = ["Each disguise against the plain form of the same goals on the same target."]
    if any(row["q"] < CHANCE for row in rows):
        effects = [_effect(some, name) for name, some in by_target.items() if some]
        said += effects[:_MOST_NAMED]
        said += ["Those on other targets are in the numbers."] * (len(effects) > _MOST_NAMED)
    else:
        many = counted(len({row["second"] for row in rows}), "disguise")
        said.append(
            f"None of {many}, each on {_goals(rows)}, shows an effect on any target that is more "
            "than chance explains where so many are tried."
        )
        if max(row["goals"] for row in rows) < _FEW:
            said.append("So few goals could show very large effects only.")
    return [Text(" ".join(said)), _disguise_figure(analysis, rows, footer)]


def _effect(rows: Rows, target: str) -> str:
    """Return which disguises help and hurt on a target, and how many show nothing."""
    clear = [row for row in rows if row["p_adjusted"] < CHANCE]
    likely = sum(row["q"] < CHANCE for row in rows)
    told = []
    for verb, sign in (("help", 1), ("hurt", -1)):
        some = [row for row in clear if sign * row["difference"]["value"] > 0]
        some.sort(key=lambda row: -abs(row["difference"]["value"]))
        named = [words(row["second"]) for row in some[:_MOST_NAMED]]
        named += [f"{len(some) - len(named)} more"] * (len(some) > len(named))
        if some:
            does = f"{verb}s" if len(some) == 1 else verb
            told.append(f"{len(some)} {does} the attacker ({', '.join(named)})")
    told = told or ["none shows an effect"]
    more = f"; with one false claim in twenty allowed, {likely} do" * (likely > len(clear))
    many = counted(len(rows), "disguise")
    return f"On {target}, of {many}, each on {_goals(rows)}, {' and '.join(told)}{more}."


def _goals(rows: Rows) -> str:
    least, most = (end(row["goals"] for row in rows) for end in (min, max))
    return counted(most, "goal") if least == most else f"{number(least)} to {number(most)} goals"


def _disguise_figure(analysis: Mapping[str, Any], rows: Rows, footer: str) -> Figure:
    series = {
        target: {row["second"]: row["difference"] for row in rows if row["group"] == target}
        for target in targets_of(analysis)
    }
    names = list(dict.fromkeys(row["second"] for row in sorted(rows, key=_surest)))
    shown = names[:_MOST_DISGUISES]
    shown.sort(key=lambda name: -_middle([one[name] for one in series.values() if name in one]))
    heads: Heads = {
        "Disguise": lambda row: words(row["second"]),
        "Target": lambda row: row["group"],
        "In words": _helps,
        **_TEST,
    }
    left = f" Drawn are the {len(shown)} of {len(names)} whose effect is surest; all are in the "
    left = f"{left}numbers." if len(names) > len(shown) else ""
    return Figure(
        name="disguises",
        title="What a disguise adds to the success of the plain request",
        spec=dots(shown, series, is_signed=True),
        summary="Right of zero the disguise helps the attacker, left of it the plain request does "
        f"better; 95 % intervals.{left}",
        footer=footer,
        keys=tuple((target, color_of(target, at)) for at, target in enumerate(series)),
        numbers=table(
            "Each disguise against plain", heads, sorted(rows, key=_surest),
            note=f"First: plain, second: the disguise. {_TEST_NOTE}",
        ),
    )  # fmt: skip


def _helps(row: Mapping[str, Any]) -> str:
    if row["p_adjusted"] >= CHANCE:
        return _unbroken("no effect shown")
    return _unbroken(f"{'helps' if row['difference']['value'] > 0 else 'hurts'} the attacker")


def _middle(differences: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(one["value"]) for one in differences) / max(len(differences), 1)


def _steadiness(analysis: Mapping[str, Any]) -> list[Block]:
    if "flaky" not in analysis:
        return []
    rows = analysis["flaky"]
    if not rows:
        return [Text("Each case was tried once: how steady the outcomes are is unknown.")]
    heads: Heads = {
        "Target": lambda row: row["target"],
        "Cases | tried several times": lambda row: number(row["attempts"]),
        "Did not always end alike": lambda row: number(row["successes"]),
        "Share": lambda row: estimate(row["rate"], percent),
    }
    blocks: list[Block] = [table("Cases that did not always end alike", heads, rows)]
    if cases := analysis.get("flaky_cases"):
        told: Heads = {
            "Case": lambda row: short(row["case_id"]),
            "Plugin": lambda row: words(row["plugin"]),
            "Strategy": lambda row: words(row["strategy"]),
            "Succeeded | of tries": lambda row: Number(f"{row['successes']} of {row['attempts']}"),
            "Rate": lambda row: percent(row["successes"] / row["attempts"]),
            "Target": lambda row: row["target"],
        }
        caption = f"The {counted(len(cases), 'case')} closest to half and half"
        shown = table(caption, told, cases)
        blocks.append(shown.folded() if len(cases) > _MOST_NAMED else shown)
    return blocks


def _errors(analysis: Mapping[str, Any]) -> list[Block]:
    latency, errors = analysis["latency_ms"], analysis.get("errors", {})

    heads: dict[str, Callable[[str], Cell]] = {"Target": lambda name: name}
    if errors:
        heads |= {
            "Counted | attempts": lambda name: number(_counted(analysis, name)),
            "Not counted | attempts": lambda name: number(errors.get(name, 0)),
            "Not counted | share": lambda name: _failed(analysis, name),
        }
    heads["Latency | ms: median and 90 % around it"] = lambda name: (
        estimate(latency[name]) if name in latency else "–"
    )
    if usd := analysis.get("usd"):
        heads |= {
            "Paid | US$": lambda name: dollars(usd.get(name, 0)),
            "Per 1,000 counted | US$": lambda name: _per_thousand(analysis, name),
        }
    note = ""
    if any(errors.values()):
        note = "Attempts that failed, or that no judge could judge, are no part of any rate."
    blocks: list[Block] = [
        table("Each target's answers", heads, targets_of(analysis), note=note),
    ]
    if reasons := analysis.get("error_reasons"):
        told: Heads = {
            "Target": lambda row: row["target"],
            "Error": lambda row: row["error"],
            "Count | attempts": lambda row: number(row["attempts"]),
        }
        blocks.append(table("Why attempts do not count, most frequent first", told, reasons))
    return blocks


def _counted(analysis: Mapping[str, Any], target: str) -> int:
    rows = (total(analysis, measure, target) for measure in ("totals", "controls"))
    return sum(int(row["attempts"]) for row in rows if row)


def _failed(analysis: Mapping[str, Any], target: str) -> Cell:
    failed = analysis["errors"].get(target, 0)
    tried = _counted(analysis, target) + failed
    return percent(failed / tried) if tried else "–"


def _per_thousand(analysis: Mapping[str, Any], target: str) -> Cell:
    many = _counted(analysis, target)
    return dollars(1000 * analysis["usd"].get(target, 0) / many) if many else "–"


def _costs(evidence: Evidence, analysis: Mapping[str, Any]) -> list[Block]:
    tests = evidence.last("test_set") or {}
    targets = sum(analysis["usd"].values()) if "usd" in analysis else None
    phases = (
        ("Generation", "test_set", tests.get("tests"), "test", tests.get("usd")),
        ("Execution", "execution", analysis.get("attempts"), "attempt", targets),
    )
    rows: list[list[Cell]] = []
    for phase, kind, many, unit, paid in phases:
        runs = [run for run in evidence.runs if run.result.get("kind") == kind]
        usd, kwh = evidence.spent(runs)
        known = any(run.id in evidence.bills for run in runs)
        rows.append([
            phase, "–" if many is None else counted(many, unit),
            "–" if paid is None else dollars(paid),
            dollars(usd) if known else "–", energy(kwh) if known else "–",
        ])  # fmt: skip
    if all(cell == "–" for row in rows for cell in row[2:]):
        return []
    heads = ["Phase", "Gave", "Models and targets | US$", "All | US$", "Energy"]
    note = "All: what the ledger has of it, this machine and grading models included. Generation "
    note += "is paid for once, however many targets its tests are sent to."
    return [table("What the two phases cost", heads, rows, note=note)]
