"""Figures as plain Plotly JSON: no plotly import, no chart library, one look.

Colors are those of the light theme; the page's script swaps them for the dark ones by
:data:`DARK`, so every spec is valid Plotly as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any, NamedTuple

from workbench.report.palette import COLORS, DARK, TEXT
from workbench.report.tables import Rows, cell, dollars, estimate, percent, percentage_points, words
from workbench.store.results import Interval

__all__ = [
    "COLORS", "DARK", "HERO", "Beside", "Spec", "bars", "beside", "color_of", "curves", "dots",
    "frontier", "key_of", "law", "plain", "spans", "stacked", "tornado", "trends",
]  # fmt: skip

Spec = dict[str, Any]
"""A figure or a part of it, as Plotly reads it."""

HERO = "sanitizer"
"""The method that all others are compared with."""
_METHODS = {
    HERO: ("blue", "circle", "●"),
    "identity": ("gray", "square", "■"),
    "constant": ("purple", "diamond", "◆"),
    "ridge": ("orange", "triangle-up", "▲"),
    "mlp": ("vermillion", "triangle-down", "▼"),
    "hypotheses": ("sky", "pentagon", "⬟"),
    "x0": ("green", "x", "✖"),
    "eps": ("green", "cross", "✚"),
    "v": ("green", "star", "★"),
    "bridge": ("green", "hourglass", "⧗"),
}
"""Method → color, and its mark for Plotly and in text; those that diffuse share a color."""
_UNKNOWN = ("", "circle", "●")
_CYCLE = ("gray", "blue", "orange", "green", "purple", "sky", "vermillion")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_LABEL_CHARACTERS = 32
_MAX_POINTS = 200
_MAX_BARS = 30
_DECADES = 5


def plain(text: object, *, characters: int = 60) -> str:
    """Return text for a figure: Plotly reads a little HTML, hostile texts must not be it."""
    shown = "".join(one if one.isprintable() else "�" for one in str(text).replace("\u00a0", " "))
    shown = shown if len(shown) <= characters else shown[: characters - 1] + "…"
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):
        shown = shown.replace(sign, entity)
    return shown


def color_of(name: str, position: int) -> str:
    """Return the color name of a method; others take theirs by position, the first is gray.

    An ensemble, ``x0-x3``, has the color of its members.
    """
    member = name.partition("-x")[0]
    return _METHODS[member][0] if member in _METHODS else _CYCLE[position % len(_CYCLE)]


def key_of(name: str, position: int) -> tuple[str, str]:
    """Return the name of a method with its mark, and its color name."""
    return f"{name} {_METHODS.get(name, _UNKNOWN)[2]}", color_of(name, position)


def dots(
    rows: Sequence[str],
    series: Mapping[str, Mapping[str, Interval]],
    *,
    is_signed: bool = False,
) -> Spec:
    """Return a dot plot of the rates, target → row → rate, with their intervals.

    Args:
        rows: From top to bottom.
        series: A dot of each in every row that it knows.
        is_signed: Whether they are differences of rates, around zero.
    """
    traces = []
    show = percentage_points if is_signed else percent
    step = 0.54 / max(len(series), 1)
    for position, (name, points) in enumerate(series.items()):
        known = [(at, points[row]) for at, row in enumerate(rows) if row in points]
        offset = (position - (len(series) - 1) / 2) * step
        rates = [rate for _, rate in known]
        color = color_of(name, position)
        trace = _marks([rate["value"] for rate in rates], [at + offset for at, _ in known], color)
        trace["hovertext"] = [
            f"{plain(name)}, {plain(rows[at])}: {estimate(rate, show)}" for at, rate in known
        ]
        traces.append(trace | {"error_x": _whiskers(rates, color)})
    x: Spec = {"range": [-0.02, 1.02], "tickformat": ".0%"}
    if is_signed:
        ticks = [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0]
        drawn = [one[row] for one in series.values() for row in rows if row in one]
        furthest = max((max(abs(rate["low"]), abs(rate["high"])) for rate in drawn), default=1.0)
        reach = next((tick for tick in ticks[5:] if furthest <= tick + 0.01), 1.0)
        x = {"range": [-reach - 0.02, reach + 0.02], "tickvals": ticks}
        x |= {"ticktext": [percentage_points(tick).removesuffix(".0") for tick in ticks]}
        x |= {"zeroline": True, "zerolinecolor": COLORS["muted"]} | _title("percentage points")
    return _rows(traces, [(row, "") for row in rows], each=max(34, 13 * len(series)), x=x)


def bars(values: Mapping[str, float], *, show: Callable[[Any], str]) -> Spec:
    """Return horizontal bars, largest on top, each with its value beside it."""
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:_MAX_BARS]
    trace = _bars([(0.0, value) for _, value in ordered], "blue")
    trace |= {"text": [plain(show(value)) for _, value in ordered], "textposition": "outside"}
    x = {"visible": False, "range": [0, 1.15 * (ordered[0][1] if ordered else 1)]}
    return _rows([trace], [(name, "") for name, _ in ordered], each=32, x=x)


def stacked(rows: Mapping[str, Mapping[str, float]], *, colors: Sequence[str]) -> Spec:
    """Return a bar per row out of its shares, each of which the row also tells in words."""
    parts = [[*accumulate(shares.values(), initial=0.0)] for shares in rows.values()]
    traces = [_bars([one[at : at + 2] for one in parts], color) for at, color in enumerate(colors)]
    told = [cell({key: percent(one) for key, one in row.items() if one}) for row in rows.values()]
    x = {"range": [0, 1.02], "tickformat": ".0%"}
    figure = _rows(traces, [*zip(rows, map(str, told), strict=True)], each=44, x=x)
    figure["layout"]["barmode"] = "overlay"
    return figure


def spans(rows: Mapping[str, Interval], *, means: Sequence[float]) -> Spec:
    """Return dollars of each row on a log axis, 100,000-fold at most; less is drawn as nothing."""
    reach = [*means, *(row["high"] for row in rows.values())]
    top = math.ceil(math.log10(max(1.0, *reach)))
    least = 10.0 ** (top - _DECADES)
    drawn: list[Interval] = [
        {"value": max(row["value"], least), "low": max(row["low"], least), "high": row["high"]}
        for row in rows.values()
    ]
    middle = _marks([row["value"] for row in drawn], range(len(drawn)), "blue")
    middle |= {"error_x": _whiskers(drawn, "blue")}
    middle["hovertext"] = [
        f"{plain(name)}: {plain(estimate(rows[name], dollars))}" for name in rows
    ]
    mean = _marks([max(one, least) for one in means], range(len(means)), "vermillion")
    mean["marker"] |= {"symbol": "diamond-open", "size": 10, "line": {"width": 2}}
    mean["hovertext"] = [f"mean {plain(dollars(one))}" for one in means]
    ticks = [10.0 ** (top - at) for at in range(_DECADES, -1, -1)]
    x = {"type": "log", "range": [top - _DECADES - 0.1, top + 0.1], "tickvals": ticks}
    x |= {"ticktext": ["≈ 0", *(plain(dollars(one).replace(".0", "")) for one in ticks[1:])]}
    return _rows([middle, mean], [(name, "") for name in rows], each=34, x=x)


def tornado(rows: Sequence[Mapping[str, Any]], *, base: float) -> Spec:
    """Return what each assumption alone does to the yearly saving ``base``, in the order given."""
    traces = []
    reach = [base]
    for end, color in (("low", "orange"), ("high", "blue")):
        savings = [float(row[f"saving_at_{end}_usd"]) for row in rows]
        reach += savings
        shown = [plain(dollars(one)) if one != base else "" for one in savings]
        trace = _bars([(base, one) for one in savings], color)
        traces.append(trace | {"text": shown, "textposition": "outside"})
    names = [(row["name"], f"{cell(row['low'])} to {cell(row['high'])}") for row in rows]
    room = 0.22 * (max(reach) - min(reach))
    x = {"range": [min(reach) - room, max(reach) + room], "tickformat": "$~s"}
    figure = _rows(traces, names, each=40, x=x | _title("saving per year"))
    upright = {"type": "line", "x0": base, "x1": base, "yref": "paper", "y0": 0, "y1": 1}
    line = {"color": COLORS["ink"], "width": 1}
    figure["layout"] |= {"barmode": "overlay", "shapes": [upright | {"line": line}]}
    return figure


class Beside(NamedTuple):
    """A row that sets figures beside each other, each a share of the same whole."""

    name: str
    detail: str
    bar: tuple[float, float]
    """Where the bar starts and ends."""
    mark: Interval | None
    """An upright tick, with whiskers where it is a range."""
    dot: float | None = None


def beside(rows: Sequence[Beside], *, color: str) -> Spec:
    """Return bars of one color with ticks and dots on them, in the order given."""
    marked = [(at, row.mark) for at, row in enumerate(rows) if row.mark]
    ticks = _marks([mark["value"] for _, mark in marked], [at for at, _ in marked], "vermillion")
    ticks["marker"] |= {"symbol": "line-ns-open", "size": 18, "line": {"width": 3}}
    ticks["error_x"] = _whiskers([mark for _, mark in marked], "vermillion") | {"thickness": 3}
    dotted = [(at, row.dot) for at, row in enumerate(rows) if row.dot is not None]
    truth = _marks([dot for _, dot in dotted], [at for at, _ in dotted], "ink")
    reach = [end for row in rows for end in row.bar] + [dot for _, dot in dotted]
    reach += [end for _, mark in marked for end in (mark["low"], mark["high"])]
    x = {"range": [min(0.0, *reach) - 0.02, max(1.0, *reach) + 0.02], "tickformat": ".0%"}
    traces = [_bars([row.bar for row in rows], color), ticks, truth]
    names = [(row.name, row.detail) for row in rows]
    return _rows([one | {"hoverinfo": "skip"} for one in traces], names, each=40, x=x)


def law(laws: Mapping[str, Any], *, axis: str) -> Spec:
    """Return the scaling law: measured points per seed, fit, interval, baselines, forecast."""
    curve, points, forecast = laws["curve"], laws["points"], laws["forecast"]
    ahead: Interval = forecast["loss"]
    xs = [point["x"] for point in curve]
    band = _line(
        xs + xs[::-1],
        [point["high"] for point in curve] + [point["low"] for point in reversed(curve)],
        color="band",
        width=0,
    )
    seeds = _marks([point["x"] for point in points], [point["loss"] for point in points], "ink")
    seeds["marker"] |= {"symbol": "circle-open", "line": {"width": 1.5}}
    seeds["hovertext"] = [f"seed {point['seed']}: {point['loss']:.4f}" for point in points]
    aim = _marks([forecast["x"]], [ahead["value"]], "vermillion")
    aim["marker"] |= {"symbol": "diamond-open", "size": 10, "line": {"width": 1.5}}
    aim |= {"hovertext": [f"forecast: {estimate(ahead)}"]}
    traces = [
        band | {"fill": "toself", "fillcolor": COLORS["band"]},
        _line(xs, [point["loss"] for point in curve], color="blue", width=2),
        seeds,
        aim | {"error_y": _whiskers([ahead], "vermillion")},
    ]
    near = [point["loss"] for point in [*points, *curve]] + [ahead["value"]]
    span = (max(near) - min(near)) or abs(max(near)) or 1.0
    reach = [end for point in [*curve, ahead] for end in (point["low"], point["high"])]
    baselines = laws["baselines"].items()
    shown = {name: loss for name, loss in baselines if abs(loss - near[0]) < 3 * span}
    low = min([*shown.values(), *near, max(min(reach), min(near) - span)])
    high = max([*shown.values(), *near, min(max(reach), max(near) + span)])
    ticks = sorted({point["x"] for point in points} | {forecast["x"]})
    for at, (name, loss) in enumerate(shown.items()):
        line = _line([min(xs), max([*xs, *ticks])], [loss] * 2, color=color_of(name, at), width=1.5)
        line["line"]["dash"] = "dot"
        traces.append(line)
    pad = 0.06 * (high - low)
    x = {"type": "log", "tickvals": ticks, "ticktext": [str(cell(tick)) for tick in ticks]}
    y = {"range": [low - pad, high + pad]} | _title("loss: mean 1 − cosine")
    labels = _labels(shown, gap=(high - low) / 18)
    x |= _title(f"{axis} (log scale)")
    right = max([64, *(7 * len(label["text"]) + 8 for label in labels)])
    return _figure(traces, height=400, x=x, y=y, right=right, labels=labels)


def curves(runs: Sequence[Mapping[str, Any]], *, axis: str) -> Spec:
    """Return the validation loss of every run over its steps; more of the axis is darker."""
    sizes = sorted({run["axes"].get(axis, 0) for run in runs})
    ends: dict[str, list[float]] = {}
    traces = []
    for run in runs:
        size = run["axes"].get(axis, 0)
        points = [point for point in run["curve"] if "validation_loss" in point]
        points = points[:: max(1, -(-len(points) // _MAX_POINTS))]
        losses = [point["validation_loss"] for point in points]
        weight = (sizes.index(size) + 1) / len(sizes)
        steps = [point["step"] for point in points]
        trace = _line(steps, losses, color="blue", width=0.8 + 1.4 * weight)
        traces.append(trace | {"opacity": 0.25 + 0.75 * weight})
        ends.setdefault(str(cell(size)), []).extend(losses[-1:])
    every = [loss for trace in traces for loss in trace["y"]] or [0.0]
    last = {name: fmean(losses) for name, losses in ends.items() if losses}
    labels = _labels(last, gap=(max(every) - min(every)) / 16, color="blue")
    y = _title("validation loss: mean 1 − cosine")
    return _figure(traces, height=320, x=_title("training step"), y=y, right=32, labels=labels)


def trends(series: Mapping[str, Mapping[float, Interval]], *, x: str, y: str, log: str) -> Spec:
    """Return a line of each name with its intervals; axis ``log``, x or y, is logarithmic."""
    traces = []
    for position, (name, points) in enumerate(series.items(), start=1):
        color, known = color_of(name, position), [*points.values()]
        values = [one["value"] for one in known]
        marks = _marks([*points], values, color) | {"error_y": _whiskers(known, color)}
        told = [f"{plain(name)}, {cell(at)}: {cell(one['value'])}" for at, one in points.items()]
        traces += [_line([*points], values, color=color, width=1.5), marks | {"hovertext": told}]
    ticks = sorted({one for points in series.values() for one in points})
    across: Spec = {"nticks": 8}
    if log == "x":
        across = {"type": "log", "tickvals": ticks, "ticktext": [str(cell(one)) for one in ticks]}
    up: Spec = {"type": "log", "dtick": 1} if log == "y" else {"rangemode": "tozero"}
    return _figure(traces, height=320, x=across | _title(x), y=up | _title(y), right=24)


def frontier(points: Mapping[str, Rows], *, marked_gain: float) -> Spec:
    """Return a line per method through its points in order of gain; marks at one gain are larger.

    A point has ``gain``, the intervals ``semantic`` and ``safety``, and both per seed, ``seeds``.
    Gains are written beside the hero's marks only, whose line is the strongest.
    """
    traces: list[Spec] = []
    for position, (method, gains) in enumerate(points.items()):
        color, symbol = color_of(method, position), _METHODS.get(method, _UNKNOWN)[1]
        meaning, safety = ([p[name] for p in gains] for name in ("semantic", "safety"))
        seeds = [seed for point in gains for seed in point["seeds"]]
        faint = _marks([seed[0] for seed in seeds], [seed[1] for seed in seeds], color)
        faint["marker"] |= {"size": 4, "opacity": 0.4, "symbol": symbol}
        line = _marks([one["value"] for one in meaning], [one["value"] for one in safety], color)
        sizes = [13 if point["gain"] == marked_gain else 7 for point in gains]
        line["marker"] |= {"size": sizes, "symbol": symbol}
        line |= {
            "mode": "lines+markers",
            "line": {"color": COLORS[color], "width": 3 if method == HERO else 1.2},
            "error_x": _whiskers(meaning, color),
            "error_y": _whiskers(safety, color),
            "cliponaxis": False,
            "hovertext": [
                f"{plain(method)}, gain {p['gain']:g}: meaning {p['semantic']['value']:.3f}, "
                f"safety {percent(p['safety']['value'])}"
                for p in gains
            ],
        }
        if method == HERO:
            text = [f" {point['gain']:g} " for point in gains]
            line |= {"mode": "lines+markers+text", "text": text, "textposition": "bottom left"}
        traces += [faint | {"hoverinfo": "skip"}, line]
    y = {"tickformat": ".0%"} | _title("safety: unsafe probability removed →")
    x_axis = {"nticks": 6} | _title("meaning: cosine to the clean text →")
    return _figure(traces, height=460, x=x_axis, y=y, right=40)


def _figure(
    traces: list[Spec], *, height: int, x: Spec, y: Spec, right: int, labels: Sequence[Spec] = ()
) -> Spec:
    axis: Spec = {"gridcolor": COLORS["grid"], "linecolor": COLORS["muted"], "ticks": ""}
    axis |= {"zeroline": False, "automargin": True}
    layout = {
        "height": height,
        "margin": {"l": 48, "r": right, "t": 12, "b": 36},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12.5, "color": COLORS["ink"]},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": COLORS["paper"], "bordercolor": COLORS["muted"], "align": "left"},
        "xaxis": {**axis, "tickangle": 0, **x},
        "yaxis": {**axis, **y},
        "annotations": [*labels],
    }
    return {"data": [*traces], "layout": layout}


def _rows(traces: list[Spec], rows: Sequence[tuple[str, str]], *, each: int, x: Spec) -> Spec:
    """Return a figure of named rows, top to bottom; a second line tells a row's figures."""
    names = [
        plain(words(name), characters=_LABEL_CHARACTERS)
        + (f"<br><span style='font-size:11px'>{plain(detail)}</span>" if detail else "")
        for name, detail in rows
    ]
    y = {"tickvals": list(range(len(rows))), "ticktext": names, "showgrid": False}
    y |= {"range": [len(rows) - 0.5, -0.5], "ticklabelstandoff": 6}
    return _figure(traces, height=50 + each * len(rows), x={"nticks": 6, **x}, y=y, right=24)


def _title(text: str) -> Spec:
    font = {"color": COLORS["muted"], "size": 12}
    return {"title": {"text": plain(text), "font": font, "standoff": 10}}


def _bars(reaches: Sequence[Sequence[float]], color: str) -> Spec:
    starts = {"base": [start for start, _ in reaches], "x": [end - start for start, end in reaches]}
    look = {"marker": {"color": COLORS[color]}, "width": 0.5, "cliponaxis": False}
    rows = {"type": "bar", "orientation": "h", "y": list(range(len(reaches)))}
    return {**rows, **starts, **look, "hoverinfo": "skip"}


def _marks(x: Sequence[float], y: Sequence[float], color: str) -> Spec:
    marker = {"color": COLORS[color], "size": 8}
    shared = {"type": "scatter", "mode": "markers", "hoverinfo": "text"}
    return {**shared, "x": [*x], "y": [*y], "marker": marker}


def _line(x: Sequence[float], y: Sequence[float], *, color: str, width: float) -> Spec:
    line = {"color": COLORS[color], "width": width}
    shared = {"type": "scatter", "mode": "lines", "hoverinfo": "skip"}
    return {**shared, "x": [*x], "y": [*y], "line": line}


def _whiskers(intervals: Sequence[Interval], color: str) -> Spec:
    above = [max(one["high"] - one["value"], 0) for one in intervals]
    below = [max(one["value"] - one["low"], 0) for one in intervals]
    look = {"color": COLORS[color], "thickness": 1.2, "width": 0}
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}


def _labels(values: Mapping[str, float], *, gap: float, color: str = "") -> list[Spec]:
    """Return the names of lines at their right end, so far apart that each can be read."""
    made = []
    lowest = float("-inf")
    positions = {name: at for at, name in enumerate(values)}
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        lowest = max(value, lowest + gap)
        font = {"color": TEXT[color or color_of(name, positions[name])], "size": 12}
        place = {"xref": "paper", "x": 1.0, "xanchor": "left", "y": lowest, "showarrow": False}
        made.append({"text": plain(name, characters=14), "font": font, **place})
    return made
