"""Figures as plain Plotly JSON: no plotly import, no chart library, one look.

Colors are those of the light theme; the page's script swaps them for the dark ones by
:data:`DARK`, so every spec is valid Plotly as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from workbench.report.tables import estimate, percent, words
from workbench.store.results import Interval

__all__ = ["COLORS", "DARK", "bars", "color_of", "curves", "dots", "frontier", "law", "plain"]

_THEME = {
    "ink": ("#23221f", "#e9e6dd"),
    "muted": ("#6a6860", "#a5a297"),
    "grid": ("#e9e7df", "#33322e"),
    "paper": ("#fdfdfa", "#171614"),
    "blue": ("#0072b2", "#5aa9e0"),
    "orange": ("#d98200", "#e8a33d"),
    "green": ("#00825f", "#3fbf97"),
    "vermillion": ("#c85000", "#ee8247"),
    "purple": ("#b0608f", "#d793ba"),
    "sky": ("#3d9fd6", "#86cdf5"),
    "gray": ("#8a8880", "#8f8d84"),
    "band": ("rgba(0,114,178,0.13)", "rgba(90,169,224,0.18)"),
}
COLORS: Mapping[str, str] = {name: light for name, (light, _) in _THEME.items()}
"""Okabe–Ito, a little darker where thin lines on paper need it."""

DARK: Mapping[str, str] = dict(_THEME.values())
"""Light color → dark color."""

_METHODS = {"identity": "gray", "constant": "purple", "ridge": "orange", "diffusion": "blue"}
_CYCLE = ("gray", "blue", "orange", "green", "purple", "sky", "vermillion")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_SYMBOLS = {
    "identity": "square",
    "constant": "diamond",
    "ridge": "triangle-up",
    "diffusion": "circle",
}
_LABEL_CHARACTERS = 32
_MAX_POINTS = 200
_MAX_BARS = 30


def plain(text: object, *, characters: int = 60) -> str:
    """Return text for a figure: Plotly reads a little HTML, hostile texts must not be it."""
    shown = "".join(one if one.isprintable() else "�" for one in str(text))
    shown = shown if len(shown) <= characters else shown[: characters - 1] + "…"
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):
        shown = shown.replace(sign, entity)
    return shown


def color_of(name: str, position: int) -> str:
    """Return the color name of a method; others take theirs by position, the first is gray."""
    return _METHODS.get(name, _CYCLE[position % len(_CYCLE)])


def dots(rows: Sequence[str], series: Mapping[str, Mapping[str, Interval]]) -> dict[str, Any]:
    """Return a dot plot of rates with their intervals.

    Args:
        rows: Names, top to bottom.
        series: Target → row → rate.
    """
    traces = []
    step = 0.54 / max(len(series), 1)
    for position, (name, points) in enumerate(series.items()):
        known = [(at, points[row]) for at, row in enumerate(rows) if row in points]
        offset = (position - (len(series) - 1) / 2) * step
        rates = [rate for _, rate in known]
        color = color_of(name, position)
        trace = _marks([rate["value"] for rate in rates], [at + offset for at, _ in known], color)
        trace["hovertext"] = [
            f"{plain(name)}, {plain(rows[at])}: {estimate(rate, percent)}" for at, rate in known
        ]
        traces.append(trace | {"error_x": _whiskers(rates, color)})
    layout = _layout(height=50 + max(34, 13 * len(series)) * len(rows))
    layout["yaxis"] |= _row_axis(rows)
    layout["xaxis"] |= {"range": [-0.02, 1.02], "tickformat": ".0%", "nticks": 6, "tickangle": 0}
    return {"data": traces, "layout": layout}


def bars(values: Mapping[str, float], *, show: Callable[[Any], str]) -> dict[str, Any]:
    """Return horizontal bars, largest on top, each with its value beside it."""
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:_MAX_BARS]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [value for _, value in ordered],
        "y": list(range(len(ordered))),
        "marker": {"color": COLORS["blue"]},
        "width": 0.5,
        "text": [plain(show(value)) for _, value in ordered],
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "skip",
    }
    layout = _layout(height=30 + 32 * len(ordered))
    layout["yaxis"] |= _row_axis([name for name, _ in ordered])
    layout["xaxis"] |= {"visible": False, "range": [0, 1.15 * (ordered[0][1] if ordered else 1)]}
    layout["margin"] |= {"b": 8, "r": 40}
    return {"data": [trace], "layout": layout}


def law(laws: Mapping[str, Any], *, axis: str) -> dict[str, Any]:
    """Return the scaling law: measured points per seed, fit, interval, baselines, forecast."""
    curve, points, forecast = laws["curve"], laws["points"], laws["forecast"]
    ahead: Interval = forecast["loss"]
    xs = [point["x"] for point in curve]
    band = [point["high"] for point in curve] + [point["low"] for point in reversed(curve)]
    seeds = _marks([point["x"] for point in points], [point["loss"] for point in points], "ink")
    seeds["marker"] |= {"symbol": "circle-open", "line": {"width": 1.5}}
    seeds["hovertext"] = [f"seed {point['seed']}: {point['loss']:.4f}" for point in points]
    aim = _marks([forecast["x"]], [ahead["value"]], "vermillion")
    aim["marker"] |= {"symbol": "diamond-open", "size": 10, "line": {"width": 1.5}}
    aim["hovertext"] = [f"forecast: {estimate(ahead)}"]
    filled = {
        "fill": "toself",
        "fillcolor": COLORS["band"],
        "line": {"width": 0, "color": COLORS["band"]},
    }
    traces = [
        _line(xs + xs[::-1], band, color="blue") | filled,
        _line(xs, [point["loss"] for point in curve], color="blue"),
        seeds,
        aim | {"error_y": _whiskers([ahead], "vermillion")},
    ]
    near = [point["loss"] for point in [*points, *curve]] + [ahead["value"]]
    span = (max(near) - min(near)) or abs(max(near)) or 1.0
    reach = [end for point in [*curve, ahead] for end in (point["low"], point["high"])]
    shown = {
        name: loss for name, loss in laws["baselines"].items() if abs(loss - near[0]) < 3 * span
    }
    low = min([*shown.values(), *near, max(min(reach), min(near) - span)])
    high = max([*shown.values(), *near, min(max(reach), max(near) + span)])
    pad = 0.06 * (high - low)
    layout = _layout(height=400)
    right = max([*xs, forecast["x"], *(point["x"] for point in points)])
    labels = _spread(shown, gap=(high - low) / 18)
    for position, (name, loss) in enumerate(shown.items()):
        color = color_of(name, position)
        line = {"dash": "dot", "width": 1.5, "color": COLORS[color]}
        traces.append(_line([min(xs), right], [loss, loss], color=color) | {"line": line})
        layout["annotations"].append(_label(name, labels[name], color))
    ticks = sorted({point["x"] for point in points} | {forecast["x"]})
    layout["xaxis"] |= {"type": "log", "title": _title(f"{axis} (log scale)"), "tickvals": ticks}
    layout["xaxis"] |= {"ticktext": [f"{tick:,.4g}" for tick in ticks], "tickangle": 0}
    layout["yaxis"] |= {"title": _title("loss: mean 1 − cosine"), "range": [low - pad, high + pad]}
    layout["margin"]["r"] = 64
    return {"data": traces, "layout": layout}


def curves(runs: Sequence[Mapping[str, Any]], *, axis: str) -> dict[str, Any]:
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
        trace = _line([point["step"] for point in points], losses, color="blue")
        trace["line"]["width"] = 0.8 + 1.4 * weight
        traces.append(trace | {"opacity": 0.25 + 0.75 * weight})
        ends.setdefault(f"{size:g}", []).extend(losses[-1:])
    every = [loss for trace in traces for loss in trace["y"]] or [0.0]
    last = {name: fmean(losses) for name, losses in ends.items() if losses}
    labels = _spread(last, gap=(max(every) - min(every)) / 16)
    layout = _layout(height=320)
    layout["annotations"] = [_label(name, y, "blue") for name, y in labels.items()]
    layout["margin"]["r"] = 32
    layout["xaxis"] |= {"title": _title("training step"), "tickangle": 0}
    layout["yaxis"] |= {"title": _title("validation loss: mean 1 − cosine")}
    return {"data": traces, "layout": layout}


def frontier(
    points: Mapping[str, Sequence[Mapping[str, Any]]], *, marked_gain: float
) -> dict[str, Any]:
    """Return the safety–semantic frontier: a line per method through its gains.

    Args:
        points: Method → points in order of gain, each with ``gain``, ``semantic`` and ``safety``
            (intervals over seeds) and ``seeds`` (list of ``(semantic, safety)``).
        marked_gain: The gain whose marks are larger.
    """
    traces: list[dict[str, Any]] = []
    best = max((p["semantic"]["value"] for gains in points.values() for p in gains), default=0)
    for position, (method, gains) in enumerate(points.items()):
        color = color_of(method, position)
        symbol = _SYMBOLS.get(method, "circle")
        x = [point["semantic"]["value"] for point in gains]
        side = "top right" if max(x) == best else "top left"
        seeds = [seed for point in gains for seed in point["seeds"]]
        faint = _marks([seed[0] for seed in seeds], [seed[1] for seed in seeds], color)
        faint["marker"] |= {"size": 4, "opacity": 0.4, "symbol": symbol}
        line = _marks(x, [point["safety"]["value"] for point in gains], color)
        sizes = [13 if point["gain"] == marked_gain else 7 for point in gains]
        line["marker"] |= {"size": sizes, "symbol": symbol}
        line |= {
            "mode": "lines+markers+text",
            "line": {"color": COLORS[color], "width": 1.5},
            "error_x": _whiskers([point["semantic"] for point in gains], color),
            "error_y": _whiskers([point["safety"] for point in gains], color),
            "text": _gain_labels(method, gains),
            "textposition": [side] * (len(gains) - 1) + ["top right" if len(gains) > 1 else side],
            "textfont": {"size": 12, "color": COLORS[color]},
            "cliponaxis": False,
            "hovertext": [
                f"{plain(method)}, gain {p['gain']:g}: meaning {p['semantic']['value']:.3f}, "
                f"safety {percent(p['safety']['value'])}"
                for p in gains
            ],
        }
        traces += [faint | {"hoverinfo": "skip"}, line]
    layout = _layout(height=460)
    layout["xaxis"] |= {
        "title": _title("meaning: cosine to the clean text →"),
        "nticks": 6,
        "tickangle": 0,
    }
    layout["yaxis"] |= {
        "title": _title("safety: unsafe probability removed →"),
        "tickformat": ".0%",
    }
    layout["margin"]["r"] = 40
    return {"data": traces, "layout": layout}


def _gain_labels(method: str, gains: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(gains) == 1:
        return [plain(method, characters=14)]
    *others, last = [f" {point['gain']:g} " if point["gain"] else "" for point in gains]
    return [*others, f" {plain(method, characters=14)}{last}"]


def _layout(*, height: int) -> dict[str, Any]:
    axis = {
        "gridcolor": COLORS["grid"],
        "linecolor": COLORS["muted"],
        "tickcolor": COLORS["muted"],
        "zeroline": False,
        "automargin": True,
        "ticks": "",
    }
    return {
        "height": height,
        "margin": {"l": 48, "r": 16, "t": 12, "b": 36},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12.5, "color": COLORS["ink"]},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": COLORS["paper"], "bordercolor": COLORS["muted"], "align": "left"},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
        "annotations": [],
    }


def _row_axis(names: Sequence[str]) -> dict[str, Any]:
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [plain(words(name), characters=_LABEL_CHARACTERS) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "ticklabelstandoff": 6,
    }


def _title(text: str) -> dict[str, Any]:
    return {"text": plain(text), "font": {"color": COLORS["muted"], "size": 12}, "standoff": 10}


def _marks(x: Sequence[float], y: Sequence[float], color: str) -> dict[str, Any]:
    marker = {"color": COLORS[color], "size": 8}
    shared = {"type": "scatter", "mode": "markers", "hoverinfo": "text"}
    return shared | {"x": [*x], "y": [*y], "marker": marker}


def _line(x: Sequence[float], y: Sequence[float], *, color: str) -> dict[str, Any]:
    line = {"color": COLORS[color], "width": 2}
    return {"type": "scatter", "mode": "lines", "x": [*x], "y": [*y]} | {
        "line": line,
        "hoverinfo": "skip",
    }


def _label(text: str, y: float, color: str) -> dict[str, Any]:
    return {
        "text": plain(text, characters=14),
        "xref": "paper",
        "x": 1.0,
        "xanchor": "left",
        "y": y,
        "showarrow": False,
        "font": {"color": COLORS[color], "size": 12},
    }


def _whiskers(intervals: Sequence[Interval], color: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(one["high"] - one["value"], 0) for one in intervals],
        "arrayminus": [max(one["value"] - one["low"], 0) for one in intervals],
        "color": COLORS[color],
        "thickness": 1.2,
        "width": 0,
    }


def _spread(values: Mapping[str, float], *, gap: float) -> dict[str, float]:
    placed: dict[str, float] = {}
    lowest = float("-inf")
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        lowest = max(value, lowest + gap)
        placed[name] = lowest
    return placed
