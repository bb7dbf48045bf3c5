"""Comparison: the same kinds of results of two experiments, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from workbench.report.blocks import Block, Figure, Finding, Page, Section, Text
from workbench.report.differences import by_chance, difference, is_apart, verdict
from workbench.report.evidence import NOTEBOOKS, Evidence
from workbench.report.figures import dots
from workbench.report.pages.campaign_finding import MEASURES, kind_of, targets_of, total
from workbench.report.pages.compare_counted import Sides, cost, risk, side_by_side, signed
from workbench.report.seeds import seed_interval
from workbench.report.tables import (
    Cell,
    Number,
    Table,
    cell,
    estimate,
    number,
    percent,
    percentage_points,
    short,
    words,
)
from workbench.store.results import Interval

__all__ = ["page"]

Show = Callable[[float], str]
_ONE_SEED = "One run is no estimate: a side with one seed has no interval."
_MOST_DOTS = 24


def page(first: Evidence, second: Evidence) -> Page:
    """Return the page that sets the second experiment beside the first."""
    sides = (first, second)
    builders: Mapping[str, Callable[[Sides], list[Block]]] = {
        "Training": _training,
        "The sanitizer": _sanitizer,
        "Campaign": _campaign,
        "Risk": risk,
        "Cost": cost,
    }
    sections = [Section(name, _tried(name, build, sides)) for name, build in builders.items()]
    claims = _tried("Finding", lambda both: [_finding(both)], sides)
    return Page(
        name="compare",
        called="Comparison",
        finding=next((one for one in claims if isinstance(one, Finding)), None),
        notes=_tried("Notes", _notes, sides),
        sections=[Section("Which two", _tried("Which two", _made, sides)), *sections],
    )


def _tried(name: str, build: Callable[[Sides], list[Any]], sides: Sides) -> list[Any]:
    try:
        return build(sides)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        told = f"{name}: a result is not as this version writes it ({type(error).__name__}: "
        return [Text(f"{told}{error}); run its step again.", is_note=True)]


def _both(sides: Sides, kind: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    first, second = (one.last(kind) for one in sides)
    return (first, second) if first and second else None


def _finding(sides: Sides) -> Finding:
    """Claim nothing but what an interval carries: the targets that both attacked."""
    names = [one.experiment for one in sides]
    rows = _rates(sides, "totals", shared_only=True)
    apart = [row for row in rows if is_apart(row[3])]
    if not rows:
        claim = f"{names[0]} and {names[1]} have no target in common"
        return Finding(claim, "What each has is below; no rate of theirs can be compared.")
    told = "; ".join(
        f"{name}: {estimate(first, percent)} and {estimate(second, percent)}, "
        f"{estimate(change, percentage_points)} points"
        for name, first, second, change in rows
    )
    claim = f"Attack success does not differ between {names[0]} and {names[1]} by more than chance"
    if apart:
        less = sum(row[3]["value"] < 0 for row in apart)
        more = len(apart) - less
        parts = [f"less on {less}"] * bool(less) + [f"more on {more}"] * bool(more)
        claim = f"Attacks succeed {' and '.join(parts)} of {len(rows)} shared targets in {names[1]}"
    return Finding(claim, f"Success on shared targets, first and second: {told}.")


def _notes(sides: Sides) -> list[Text]:
    return [Text(one, is_note=True) for one in [*_unlike(sides), *_alone(sides)]]


def _unlike(sides: Sides) -> list[str]:
    """Return what keeps rates or losses from being comparable at all."""
    told = []
    for kind, key, what in (
        ("pairs", "version", "pair sets: losses are of different test pairs"),
        ("execution", "test_set", "test sets: rates compare the tests as much as the targets"),
    ):
        if (both := _both(sides, kind)) and both[0][key] != both[1][key]:
            ids = " and ".join(short(str(one[key])) for one in both)
            told.append(f"Different {what} ({ids}).")
    if both := _both(sides, "analysis"):
        judges = [sorted(str(one["id"]) for one in found.get("judges", ())) for found in both]
        if judges[0] != judges[1]:
            told.append("Different judges: rates compare who judged as much as what was judged.")
    return told


def _alone(sides: Sides) -> list[str]:
    told = []
    for at, one in enumerate(sides):
        other = sides[1 - at]
        kinds = [kind for kind in NOTEBOOKS if one.last(kind) and not other.last(kind)]
        if kinds:
            told.append(f"Only {one.experiment} has: {', '.join(map(words, kinds))}.")
        targets, others = (targets_of(side.last("analysis") or _NOTHING) for side in (one, other))
        if others and (mine := [name for name in targets if name not in others]):
            told.append(f"Only {one.experiment} attacked: {', '.join(mine)}.")
    return told


_NOTHING: Mapping[str, Any] = {"totals": [], "controls": []}


def _made(sides: Sides) -> list[Table]:
    def ids(one: Evidence, kind: str, key: str) -> Cell:
        return short(str((one.last(kind) or {}).get(key) or "–"))

    def commits(one: Evidence) -> Cell:
        found = [str(run.result.get("stamp", {}).get("commit") or "") for run in one.runs]
        return ", ".join(dict.fromkeys(short(commit) for commit in found if commit)) or "–"

    def ended(one: Evidence) -> str:
        return max((run.finished_at for run in one.runs), default="")[:16].replace("T", " ") or "–"

    rows: Mapping[str, Callable[[Evidence], Cell]] = {
        "state": lambda one: one.state,
        "last run ended, UTC": ended,
        "runs": lambda one: str(len(one.runs)),
        "seeds per size": _seeds,
        "pair set": lambda one: ids(one, "pairs", "version"),
        "test set": lambda one: ids(one, "execution", "test_set"),
        "sanitizer": lambda one: ids(one, "sanitizer", "model"),
        "commit": commits,
    }
    heads = ("", *(one.experiment for one in sides))
    made = [(name, *map(told, sides)) for name, told in rows.items()]
    return [side_by_side("What was compared", heads, made)]


def _seeds(one: Evidence) -> str:
    counts = sorted({len(losses) for losses in _losses(one, "training").values()})
    return " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1])))) if counts else "–"


def _losses(one: Evidence, kind: str) -> dict[str, list[float]]:
    """Return the test losses by size of the axis that varies."""
    axis = one.axis()
    found: dict[str, list[float]] = {}
    for run in one.results(kind):
        size = run["axes"].get(axis)
        label = f"{cell(size)} {words(axis)}" if isinstance(size, int | float) else "all"
        found.setdefault(label, []).append(float(run["loss"]))
    return found


def _measured(values: Sequence[float]) -> Cell:
    known = seed_interval(values)
    return estimate(known) if len(values) > 1 else number(known["value"])


def _change(first: Sequence[float], second: Sequence[float]) -> Interval:
    change = difference(seed_interval(first), seed_interval(second))
    if min(len(first), len(second)) > 1:
        return change
    return {"value": change["value"], "low": change["value"], "high": change["value"]}


def _training(sides: Sides) -> list[Block]:
    found = [_losses(one, "training") for one in sides]
    return _per_seed(sides, found, "Test loss by size", note=_ONE_SEED) if all(found) else []


def _per_seed(
    sides: Sides, found: Sequence[Mapping[str, Sequence[float]]], caption: str, *, note: str
) -> list[Block]:
    rows: list[list[Cell]] = []
    changes = []
    for size in dict.fromkeys([*found[0], *found[1]]):
        first, second = (one.get(size) for one in found)
        row: list[Cell] = [size, *(_measured(one) if one else "–" for one in (first, second))]
        if first and second:
            change = _change(first, second)
            changes.append(change)
            row += [_shown(change, signed), verdict(change)]
        else:
            row += ["–", f"only in {sides[0 if first else 1].experiment}"]
        rows.append(row)
    told = f"{by_chance(changes)} {note}".strip()
    return [_differences(sides, caption, "Size", rows, note=told)]


def _shown(change: Interval, show: Show) -> Cell:
    """Return a difference as a cell; one without an interval has none."""
    if change["low"] == change["high"]:
        return Number(show(change["value"]))
    return estimate(change, show)


def _differences(
    sides: Sides, caption: str, head: str, rows: Iterable[Sequence[Cell]], *, note: str = ""
) -> Table:
    heads = (head, *(one.experiment for one in sides), "Second − first", "In words")
    return side_by_side(caption, heads, rows, note=note)


def _sanitizer(sides: Sides) -> list[Block]:
    """Return loss, meaning and safety of the final sanitizers on what is unseen in both ways."""
    measures: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
        "test loss": lambda run: float(run["loss"]),
        "meaning at gain 1": lambda run: _point(run, "semantic"),
        "safety at gain 1": lambda run: _point(run, "safety"),
        "meaning kept of harmless prompts": lambda run: _point(run, "keep"),
    }
    found: list[dict[str, list[float]]] = []
    for one in sides:
        runs = one.results("sanitizer") or one.largest()
        known = {
            name: [value for run in runs if (value := read(run)) is not None]
            for name, read in measures.items()
        }
        found.append({name: values for name, values in known.items() if values})
    if not all(found):
        return []
    return _per_seed(sides, found, "On test_both, over seeds", note=_ONE_SEED)


def _point(run: Mapping[str, Any], measure: str) -> float | None:
    return next(
        (
            float(row[measure])
            for row in run["frontier"]
            if (row["method"], row["gain"], row["split"]) == ("sanitizer", 1.0, "test_both")
        ),
        None,
    )


_Rate = tuple[str, Interval, Interval, Interval]


def _rates(sides: Sides, key: str, *, shared_only: bool = False) -> list[_Rate]:
    """Return name, both rates and their difference of each target (and group) in both."""
    both = _both(sides, "analysis")
    if both is None:
        return []
    made = []
    for target in targets_of(both[0]):
        if target not in targets_of(both[1]) or kind_of(both[0], target) != kind_of(
            both[1], target
        ):
            continue
        if shared_only or key in MEASURES:
            pairs = [(target, total(both[0], key, target), total(both[1], key, target))]
        else:
            pairs = _groups(both, key, target)
        made += [
            (name, one["rate"], two["rate"], difference(one["rate"], two["rate"]))
            for name, one, two in pairs
            if one and two and one["attempts"] and two["attempts"]
        ]
    return made


def _groups(
    both: Sequence[Mapping[str, Any]], key: str, target: str
) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    first, second = (
        {row["group"]: row for row in one.get(key, ()) if row["target"] == target} for one in both
    )
    return [
        (f"{words(name)} · {target}", first[name], second[name]) for name in first if name in second
    ]


def _campaign(sides: Sides) -> list[Block]:
    both = _both(sides, "analysis")
    if both is None:
        return []
    blocks: list[Block] = []
    for key, label in MEASURES.items():
        if rows := _rates(sides, key):
            blocks.append(_rate_table(sides, label.capitalize(), "Target", rows))
    by_plugin = _rates(sides, "by_plugin")
    if by_plugin:
        blocks.insert(0, _rate_figure(sides, by_plugin))
    for at, one in enumerate(both):
        mine, others = ({row["group"] for row in side["by_plugin"]} for side in (one, both[1 - at]))
        if mine - others:
            told = ", ".join(sorted(map(words, mine - others)))
            blocks.append(Text(f"Plugins only in {sides[at].experiment}: {told}."))
    return blocks


def _rate_table(sides: Sides, caption: str, head: str, rows: Sequence[_Rate]) -> Table:
    shown: list[list[Cell]] = [
        [
            name, estimate(first, percent), estimate(second, percent),
            estimate(change, percentage_points), verdict(change),
        ]
        for name, first, second, change in rows
    ]  # fmt: skip
    note = f"Differences in percentage points. {by_chance([row[3] for row in rows])}".strip()
    return _differences(sides, caption, head, shown, note=note)


def _rate_figure(sides: Sides, rows: Sequence[_Rate]) -> Figure:
    surest = sorted(rows, key=lambda row: not is_apart(row[3]))[:_MOST_DOTS]
    surest.sort(key=lambda row: row[3]["value"])
    drawn = {"difference": {name: change for name, _, _, change in surest}}
    left = f" Drawn are {len(surest)} of {len(rows)}; all are in the numbers."
    return Figure(
        name="plugins",
        title="What changes, by plugin and target",
        spec=dots([row[0] for row in surest], drawn, is_signed=True),
        summary=f"Right of zero attacks succeed more often in {sides[1].experiment}, left of it in "
        f"{sides[0].experiment}; 95 % intervals.{left * (len(surest) < len(rows))}",
        footer="",
        numbers=_rate_table(sides, "Attack success by plugin and target", "Plugin · target", rows),
    )
