"""The scaling explorer: runs along an axis, the laws they may follow, and what comes next."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import ipywidgets

from workbench.core.errors import ConfigError, DataError
from workbench.core.fields import suggest
from workbench.notebook.widgets import look
from workbench.notebook.widgets.panel import Panel, check_choice
from workbench.report.tables import cell, dollars, duration, energy, estimate, number, short, words
from workbench.store.database import Store

if TYPE_CHECKING:
    import pandas as pd

    from workbench.scaling.compare import Comparison
    from workbench.scaling.fit import Law

__all__ = ["Scaling", "scaling"]

_LEAST_SIZES, _CURVE_POINTS, _LOOKED_AT = 3, 40, 20
_AHEAD = 3.0
"""Times the largest size that is forecast where no size is given."""


class _Fit(NamedTuple):
    """The runs of an experiment along an axis, fitted."""

    experiment: str
    axis: str
    frame: pd.DataFrame
    laws: Comparison
    law: Law
    x: float


class Scaling(Panel):
    """The training runs of an experiment and the laws along one of their axes.

    Args:
        store: What to read.
        experiment: Whose runs; the newest that trained something if empty.
        axis: Column of the runs, as in ``scaling.forecast.AXES``; the first that varies if empty.
        law: Name of the law; the one that foretold larger sizes best if empty.
        size: To forecast; three times the largest if 0.

    Raises:
        ConfigError: If there is no such axis or law.
    """

    title = "Scaling"

    def __init__(
        self, store: Store | None = None, *, experiment: str = "", axis: str = "", law: str = "",
        size: float = 0.0,
    ) -> None:  # fmt: skip
        from workbench.scaling.forecast import AXES
        from workbench.scaling.law import FORMS

        super().__init__(store)
        check_choice("axis", axis, ("", *AXES))
        check_choice("law", law, ("", *(one.name for one in FORMS)))
        self._experiment, self._axis, self._law, self._size = experiment, axis, law, size
        self._fitted: tuple[tuple[str, ...], Comparison] | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> dict[str, Any]:
        """Return the laws, the forecast and the residuals; the fit is made anew for other runs."""
        from workbench.cost.prices import price
        from workbench.scaling.forecast import forecast, verdict
        from workbench.scaling.runs import mean_baselines

        fit = self._fit()
        if fit is None:
            said = "No experiment has trained anything here; run experiments/quickstart.yaml"
            return {"blocks": {"none": look.text(said)}}
        usd = float(price("cpu_core_hour").usd)
        ahead = forecast(fit.law, fit.frame, axis=fit.axis, x=fit.x, usd_per_core_hour=usd)
        baselines = mean_baselines(fit.frame, axis=fit.axis)
        said = verdict(fit.frame, fit.laws, axis=fit.axis, baselines=baselines)
        blocks = {
            "what": look.text(f"{fit.experiment}: {len(fit.frame)} runs. {said}"),
            "facts": look.facts(_facts(fit, ahead)),
            "figure": _figure(fit, ahead, baselines),
            "laws": _laws(fit),
            "parameters": _parameters(fit.law),
            "gpus": _gpus(fit),
            "residuals": _residuals(fit),
            "note": look.text(str(ahead["note"])),
        }
        return {"blocks": blocks}

    def controls(self) -> list[ipywidgets.Widget]:
        """Return what to choose from."""
        from workbench.scaling.forecast import AXES
        from workbench.scaling.law import FORMS

        names = self._trained()
        choices: dict[str, list[tuple[str, Any]]] = {
            "experiment": [("the newest", ""), *((short(one), one) for one in names)],
            "axis": [("the first that varies", ""), *((words(one), one) for one in AXES)],
            "law": [("the best", ""), *((one.name, one.name) for one in FORMS)],
        }
        row: list[ipywidgets.Widget] = []
        for name, options in choices.items():
            value = getattr(self, f"_{name}")
            listed = options + [(value, value)] * (value not in dict(options).values())
            head = name.capitalize()
            row.append(ipywidgets.Dropdown(options=listed, value=value, description=head))
        size = ipywidgets.FloatText(value=self._size, description="Next size")
        for name, widget in zip((*choices, "size"), (*row, size), strict=True):
            widget.observe(lambda change, at=name: self._choose(at, change["new"]), names="value")
        return [ipywidgets.HBox([*row, size, self.button("Read again", lambda: None)])]

    def _choose(self, name: str, value: Any) -> None:
        setattr(self, f"_{name}", value)
        self.do(lambda: None)

    def _trained(self) -> list[str]:
        """Return the newest experiments that trained something."""
        runs = self.store.runs
        names = runs.experiments()[:_LOOKED_AT]
        return [name for name in names if runs.current(name, kind="training")]

    def _fit(self) -> _Fit | None:
        """Return the fit of what is chosen; None where nothing was trained."""
        from workbench.scaling.forecast import compare_axis
        from workbench.scaling.runs import training_frame

        experiment = self._experiment or next(iter(self._trained()), "")
        if not experiment:
            return None
        frame = training_frame(self.store, experiment=experiment)
        axis = self._axis or _varying(frame)
        key = (axis, *frame["run_id"])
        with self._lock:
            if self._fitted is None or self._fitted[0] != key:
                self._fitted = (key, compare_axis(frame, axis=axis))
            laws = self._fitted[1]
        if self._law and self._law not in laws.laws:
            hint = suggest(self._law, list(laws.laws))
            raise ConfigError(f"no law {self._law[:60]!r} of these runs; {hint}")
        law = laws.laws[self._law] if self._law else laws.chosen
        return _Fit(experiment, axis, frame, laws, law, self._size or _AHEAD * law.x_high[0])


def scaling(
    store: Store | None = None, *, experiment: str = "", axis: str = "", law: str = "",
    size: float = 0.0,
) -> Scaling:  # fmt: skip
    """Return the scaling explorer."""
    return Scaling(store, experiment=experiment, axis=axis, law=law, size=size)


def _varying(frame: pd.DataFrame) -> str:
    from workbench.scaling.forecast import AXES

    for axis in AXES:
        if axis in frame and frame[axis].nunique() >= _LEAST_SIZES:
            return axis
    raise DataError(f"the runs have fewer than {_LEAST_SIZES} sizes on every axis; train more")


def _facts(fit: _Fit, ahead: dict[str, Any]) -> list[tuple[str, object, str]]:
    at = f"at {fit.x:,.6g} {words(fit.axis)}"
    loss = estimate(ahead["loss"])
    return [
        ("loss", loss.value, f"{loss.interval} {at}"),
        ("if more does not help", number(ahead["constant"]), "loss, the mean of the runs"),
        ("training time", duration(ahead["train_s"]), at),
        ("money", dollars(ahead["usd"]), "of CPU time at list price"),
        ("energy", energy(ahead["kwh"]), f"{number(ahead['gco2'])} g CO₂, estimated"),
    ]


def _laws(fit: _Fit) -> look.Block:
    rows = [
        (f"{row['form']}{' (chosen)' * (fit.laws.laws[str(row['form'])] is fit.law)}", row["law"],
         cell(row["rollout_error_pct"]), cell(row["delta_aicc"]), row["starts_agreeing"],
         estimate(row["forecast"]))  # type: ignore[arg-type]  # an Interval
        for row in fit.laws.rows(fit.x)
    ]  # fmt: skip
    heads = (
        "Law",
        "In words",
        "Missed larger sizes by | %",
        "ΔAICc",
        "Starts agreeing",
        "Loss ahead",
    )
    return look.table("Laws, and how well each foretold larger sizes", heads, rows)


def _parameters(law: Law) -> look.Block:
    rows = [(name, estimate(one)) for name, one in law.parameters().items()]
    return look.table(f"Parameters: {law.words}", ("Name", "Value [95 % interval]"), rows)


def _residuals(fit: _Fit) -> look.Block:
    told = fit.law.at(fit.frame[fit.axis].to_numpy(dtype=float))
    columns = (fit.frame[name] for name in (fit.axis, "seed", "loss", "run_id"))
    rows = [
        (short(run), number(x), number(int(seed)), number(loss), number(law),
         f"{loss / law - 1:+.1%}".replace("-", "−"))
        for x, seed, loss, run, law in sorted(zip(*columns, told.tolist(), strict=True))
    ]  # fmt: skip
    heads = ("Run", words(fit.axis).capitalize(), "Seed", "Loss", "Law", "Off by")
    return look.table("Runs and what the law misses of them", heads, rows)


def _gpus(fit: _Fit) -> look.Block:
    """Return what the next size costs on rented GPUs; only some axes change how much work it is."""
    from workbench.core.gpus import gpus
    from workbench.cost.prices import prices
    from workbench.scaling.phase_cost import cost, work

    largest = fit.frame[fit.frame[fit.axis] == fit.frame[fit.axis].max()]
    size = {name: float(largest[name].mean()) for name in ("pairs", "parameters")}
    grown = "pairs" if fit.axis == "flops" else fit.axis
    if grown in size:
        size[grown] *= fit.x / float(largest[fit.axis].mean())
    found = [cost(work(largest, **size), gpu, prices()) for gpu in gpus().values()]
    rows = [
        (one["gpu"], estimate(one["gpu_hours"]), estimate(one["usd"], dollars),
         estimate(one["kwh"], energy), estimate(one["kgco2"]))
        for one in found
    ]  # fmt: skip
    heads = ("GPU", "Hours", "Cost", "Energy", "CO₂ | kg")
    return look.table("The next size on rented GPUs, estimated", heads, rows)


def _figure(fit: _Fit, ahead: dict[str, Any], baselines: dict[str, float]) -> look.Block:
    """Return the runs, the law with its interval, and the forecast, as reports draw them."""
    import numpy as np

    from workbench.report import figures

    points = fit.frame.rename(columns={fit.axis: "x"})[["x", "loss", "seed"]].to_dict("records")
    x = np.geomspace(fit.law.x_low[0], max(fit.x, fit.law.x_high[0]), _CURVE_POINTS)
    told = {"curve": fit.law.curve(x), "points": points, "forecast": ahead, "baselines": baselines}
    axis = words(fit.axis)
    alt = f"Loss by {axis}: {len(points)} runs, the {fit.law.form.name} law through them, and its"
    alt += f" forecast of {estimate(ahead['loss'])} at {fit.x:,.6g}"
    alt += "".join(f"; baseline {name} {number(loss)}" for name, loss in baselines.items())
    return look.plot(f"Loss by {axis}", figures.law(told, axis=axis), alt=alt)
