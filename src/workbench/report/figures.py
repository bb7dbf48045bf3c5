"""Figures as plain Plotly JSON: no plotly import, no chart library, one look.

Colors are those of the light theme; the page's script swaps them for the dark ones by
:data:`DARK`, so every spec is valid Plotly as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from workbench.report.tables import percent
from workbench.store.results import Interval

__all__ = ["COLORS", "DARK", "bars", "color_of", "curves", "dots", "frontier", "law", "plain"]

COLORS: Mapping[str, str] = {
    "ink": "#23221f",
    "muted": "#6a6860",
    "grid": "#e9e7df",
    "paper": "#fdfdfa",
    "blue": "#0072b2",
    "orange": "#d98200",
    "green": "#00825f",
    "vermillion": "#c85000",
    "purple": "#b0608f",
    "sky": "#3d9fd6",
    "gray": "#8a8880",
}
"""Okabe–Ito, a little darker where thin lines on paper need it."""

DARK: Mapping[str, str] = {
    "#23221f": "#e9e6dd",
    "#6a6860": "#a5a297",
    "#e9e7df": "#33322e",
    "#fdfdfa": "#171614",
    "#0072b2": "#5aa9e0",
    "#d98200": "#e8a33d",
    "#00825f": "#3fbf97",
    "#c85000": "#ee8247",
    "#b0608f": "#d793ba",
    "#3d9fd6": "#86cdf5",
    "#8a8880": "#8f8d84",
    "rgba(0,114,178,0.13)": "rgba(90,169,224,0.18)",
    "rgba(35,34,31,0.35)": "rgba(233,230,221,0.35)",
}
"""Light color → dark color."""

_METHODS = {"identity": "gray", "constant": "purple", "ridge": "orange", "diffusion": "blue"}
_CYCLE = ("blue", "orange", "green", "purple", "sky", "vermillion")
_BAND = "rgba(0,114,178,0.13)"
_FAINT = "rgba(35,34,31,0.35)"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_SYMBOLS = {
    "identity": "square",
    "constant": "diamond",
    "ridge": "triangle-up",
    "diffusion": "circle",
}
_LABEL_CHARACTERS = 26
_ROW_PX = 30


def plain(text: object, *, characters: int = 60) -> str:
    """Return text for a figure: Plotly reads a little HTML, hostile texts must not be it."""
    words = "".join(one if one.isprintable() else "�" for one in str(text))
    words = words if len(words) <= characters else words[: characters - 1] + "…"
    return (
        words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")
    )


def color_of(name: str, position: int) -> str:
    """Return the color name of a method or target; others take theirs by position."""
    if name in ("bare", "pass-through", "pass_through"):
        return "gray"
    return _METHODS.get(name, _CYCLE[position % len(_CYCLE)])


def dots(rows: Sequence[str], series: Mapping[str, Mapping[str, Interval]]) -> dict[str, Any]:
    """Return a dot plot of rates with their intervals.

    Args:
        rows: Labels, top to bottom.
        series: Target → row → rate.
    """
    traces = []
    step = 0.5 / max(len(series), 1)
    for position, (name, points) in enumerate(series.items()):
        known = [(at, points[row]) for at, row in enumerate(rows) if row in points]
        offset = (position - (len(series) - 1) / 2) * step
        rates = [rate for _, rate in known]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(name),
                "x": [rate["value"] for rate in rates],
                "y": [at + offset for at, _ in known],
                "error_x": _whiskers(rates, color_of(name, position)),
                "marker": {"color": COLORS[color_of(name, position)], "size": 8},
                "hovertext": [
                    f"{plain(name)}, {plain(rows[at])}: {_range(rate)}" for at, rate in known
                ],
                "hoverinfo": "text",
            }
        )
    layout = _layout(height=70 + max(_ROW_PX, 14 * len(series)) * len(rows))
    layout["yaxis"] |= _row_axis(rows)
    layout["xaxis"] |= {"range": [-0.02, 1.02], "tickformat": ".0%", "nticks": 6}
    return {"data": traces, "layout": layout}


def bars(values: Mapping[str, float], *, unit: str) -> dict[str, Any]:
    """Return horizontal bars, largest on top, each with its value beside it."""
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:_ROW_PX]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [value for _, value in ordered],
        "y": list(range(len(ordered))),
        "marker": {"color": COLORS["blue"]},
        "width": 0.5,
        "hovertext": [f"{plain(name)}: {value:,.4g} {unit}" for name, value in ordered],
        "hoverinfo": "text",
    }
    layout = _layout(height=70 + 24 * len(ordered))
    layout["yaxis"] |= _row_axis([name for name, _ in ordered])
    layout["xaxis"] |= {
        "title": _title(unit),
        "rangemode": "tozero",
        "nticks": 6,
    }
    return {"data": [trace], "layout": layout}


def law(laws: Mapping[str, Any], *, axis: str) -> dict[str, Any]:
    """Return the scaling law: measured points per seed, fit, interval, baselines, forecast."""
    curve, points = laws["curve"], laws["points"]
    forecast = laws["forecast"]
    ahead: Interval = forecast["loss"]
    xs = [point["x"] for point in curve]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": xs + xs[::-1],
            "y": [point["high"] for point in curve] + [point["low"] for point in reversed(curve)],
            "fill": "toself",
            "fillcolor": _BAND,
            "line": {"width": 0, "color": _BAND},
            "hoverinfo": "skip",
        },
        _line(xs, [point["loss"] for point in curve], color="blue"),
        {
            "type": "scatter",
            "mode": "markers",
            "x": [point["x"] for point in points],
            "y": [point["loss"] for point in points],
            "marker": _hollow("circle-open", "ink", size=7),
            "hovertext": [
                f"seed {point['seed']}: {point['loss']:.4f} at {point['x']:,.4g}"
                for point in points
            ],
            "hoverinfo": "text",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [forecast["x"]],
            "y": [ahead["value"]],
            "error_y": _whiskers([ahead], "vermillion"),
            "marker": _hollow("diamond-open", "vermillion", size=10),
            "hovertext": [
                f"forecast: {ahead['value']:.4f} [{ahead['low']:.4f}, {ahead['high']:.4f}]"
            ],
            "hoverinfo": "text",
        },
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
        dash = {"dash": "dot", "width": 1.5, "color": COLORS[color]}
        traces.append(_line([min(xs), right], [loss, loss], color=color) | {"line": dash})
        layout["annotations"].append(_label(plain(name, characters=14), labels[name], color))
    ticks = sorted({point["x"] for point in points} | {forecast["x"]})
    layout["xaxis"] |= {"type": "log", "title": _title(f"{axis} (log scale)"), "tickvals": ticks}
    layout["xaxis"]["ticktext"] = [f"{tick:,.4g}" for tick in ticks]
    layout["yaxis"] |= {"title": _title("loss: mean 1 − cosine"), "range": [low - pad, high + pad]}
    layout["margin"]["r"] = 76
    return {"data": traces, "layout": layout}


def curves(runs: Sequence[Mapping[str, Any]], *, axis: str) -> dict[str, Any]:
    """Return the validation loss of every run over its steps; more of the axis is darker."""
    sizes = sorted({run["axes"].get(axis, 0) for run in runs})
    traces = []
    for run in runs:
        size = run["axes"].get(axis, 0)
        points = [point for point in _thin(run["curve"]) if "validation_loss" in point]
        trace = _line(
            [p["step"] for p in points], [p["validation_loss"] for p in points], color="blue"
        )
        trace |= {
            "opacity": 0.25 + 0.75 * (sizes.index(size) + 1) / len(sizes),
            "name": plain(f"{axis} {size:g}, seed {run['seed']}"),
            "hoverinfo": "name+y",
        }
        trace["line"] = {
            "color": COLORS["blue"],
            "width": 0.8 + 1.4 * (sizes.index(size) + 1) / len(sizes),
        }
        traces.append(trace)
    layout = _layout(height=320)
    ends = {
        f"{size:g}": [
            r["curve"][-1]["validation_loss"] for r in runs if r["axes"].get(axis, 0) == size
        ]
        for size in sizes
    }
    losses = [loss for trace in traces for loss in trace["y"]] or [0.0]
    labels = _spread(
        {name: fmean(ends[name]) for name in ends}, gap=(max(losses) - min(losses)) / 16
    )
    layout["annotations"] = [_label(name, y, "blue") for name, y in labels.items()]
    layout["margin"]["r"] = 44
    layout["xaxis"] |= {"title": _title("step")}
    layout["yaxis"] |= {"title": _title("validation loss")}
    return {"data": traces, "layout": layout}


def frontier(points: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the safety–semantic frontier: a line per method through its gains.

    Args:
        points: Method → points in order of gain, each with ``gain``, ``semantic`` and ``safety``
            (intervals over seeds) and ``seeds`` (list of ``(semantic, safety)``).
    """
    traces: list[dict[str, Any]] = []
    for position, (method, gains) in enumerate(points.items()):
        color = color_of(method, position)
        seeds = [seed for point in gains for seed in point["seeds"]]
        symbol = _SYMBOLS.get(method, "circle")
        traces += [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [seed[0] for seed in seeds],
                "y": [seed[1] for seed in seeds],
                "marker": {"color": COLORS[color], "size": 5, "opacity": 0.4, "symbol": symbol},
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "lines+markers+text",
                "name": plain(method),
                "x": [point["semantic"]["value"] for point in gains],
                "y": [point["safety"]["value"] for point in gains],
                "error_x": _whiskers([point["semantic"] for point in gains], color)
                | {"thickness": 0.8},
                "error_y": _whiskers([point["safety"] for point in gains], color)
                | {"thickness": 0.8},
                "marker": {"color": COLORS[color], "size": 9, "symbol": symbol},
                "line": {"color": COLORS[color], "width": 1.5},
                "text": _gain_labels(method, gains),
                "textposition": "top right" if position % 2 else "bottom left",
                "textfont": {"size": 11, "color": COLORS[color]},
                "cliponaxis": False,
                "hovertext": [
                    f"{plain(method)}, gain {p['gain']:g}: semantic {p['semantic']['value']:.3f}, "
                    f"safety {p['safety']['value']:.3f}"
                    for p in gains
                ],
                "hoverinfo": "text",
            },
        ]
    layout = _layout(height=460)
    layout["xaxis"] |= {
        "title": _title("semantic: mean cosine to the clean reference"),
        "nticks": 6,
    }
    layout["yaxis"] |= {
        "title": _title("safety: reduction of unsafe probability"),
        "tickformat": ".0%",
    }
    return {"data": traces, "layout": layout}


def _gain_labels(method: str, gains: Sequence[Mapping[str, Any]]) -> list[str]:
    *others, last = [f"{point['gain']:g}" for point in gains]
    return [*others, f"{plain(method, characters=14)} {last if others else ''}".strip()]


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
        "margin": {"l": 56, "r": 16, "t": 12, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12, "color": COLORS["ink"]},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": COLORS["paper"], "bordercolor": COLORS["muted"], "align": "left"},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
        "annotations": [],
    }


def _row_axis(labels: Sequence[str]) -> dict[str, Any]:
    words = [plain(label, characters=_LABEL_CHARACTERS) for label in labels]
    where = {"tickvals": list(range(len(labels))), "range": [len(labels) - 0.5, -0.5]}
    return where | {"ticktext": words, "showgrid": False}


def _hollow(symbol: str, color: str, *, size: int) -> dict[str, Any]:
    return {"color": COLORS[color], "size": size, "symbol": symbol, "line": {"width": 1.5}}


def _title(words: str) -> dict[str, Any]:
    return {"text": plain(words), "font": {"color": COLORS["muted"], "size": 12}, "standoff": 10}


def _line(x: Sequence[float], y: Sequence[float], *, color: str) -> dict[str, Any]:
    line = {"color": COLORS[color], "width": 2}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*x],
        "y": [*y],
        "line": line,
        "hoverinfo": "skip",
    }


def _label(text: str, y: float, color: str) -> dict[str, Any]:
    place = {
        "xref": "paper",
        "x": 1.0,
        "xanchor": "left",
        "xshift": 6,
        "y": y,
        "yanchor": "middle",
    }
    return place | {
        "text": text,
        "showarrow": False,
        "font": {"color": COLORS[color], "size": 11.5},
    }


def _whiskers(intervals: Sequence[Interval], color: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(one["high"] - one["value"], 0) for one in intervals],
        "arrayminus": [max(one["value"] - one["low"], 0) for one in intervals],
        "color": COLORS[color],
        "thickness": 1.5,
        "width": 0,
    }


def _range(rate: Interval) -> str:
    return f"{percent(rate['value'])} [{percent(rate['low'])}, {percent(rate['high'])}]"


def _spread(values: Mapping[str, float], *, gap: float) -> dict[str, float]:
    placed: dict[str, float] = {}
    lowest = float("-inf")
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        lowest = max(value, lowest + gap)
        placed[name] = lowest
    return placed


def _thin(points: Sequence[Mapping[str, float]], *, keep: int = 200) -> list[Mapping[str, float]]:
    stride = max(1, -(-len(points) // keep))
    return [*points[::stride]]
