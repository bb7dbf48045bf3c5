"""How to split compute between parameters and data, where the runs vary both.

Source:
    Hoffmann et al. 2022, arXiv:2203.15556, eq. 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.core.errors import ConfigError
from workbench.scaling.fit import Law, fit_law
from workbench.scaling.law import JOINT, TIED, Floats
from workbench.store.results import Interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["allocation", "optimum"]

_PARAMETERS = "parameters"
_TIMES = (1, 10, 100)


def optimum(law: Law, *, compute: float, flops: float) -> dict[str, Interval]:
    """Return the parameters, data and loss that a joint law gets most out of the compute with.

    ``N = G · (C/k)^(β/(α+β))``, ``D = (C/k) / N``, ``G = (α·A / (β·B))^(1/(α+β))``; their intervals
    are those of the law's draws.

    Args:
        law: Of the form ``JOINT`` or ``TIED``; parameters first.
        compute: C = k · N · D, in FLOPs, > 0.
        flops: k, FLOPs per parameter and unit of data, > 0; 6 for tokens of a language model.

    Raises:
        ConfigError: If the law is of another form, or ``compute`` or ``flops`` is not above 0.
    """
    if law.form not in {JOINT, TIED}:
        raise ConfigError(f"{law.form.name} has no optimum; fit the joint law of both axes")
    if not (compute > 0 and flops > 0):
        raise ConfigError(f"compute={compute:g}, flops={flops:g}: both must be above 0")
    best, draws = law.plain()
    n, d = _split(np.vstack([best, draws]), compute / flops)
    return {
        _PARAMETERS: _interval(n),
        "data": _interval(d),
        "loss": law.interval([float(n[0]), float(d[0])]),
    }


def allocation(frame: pd.DataFrame, *, axis: str, seed: int = 0) -> dict[str, object]:
    """Return how compute is best split between parameters and the data axis, with ``note``.

    ``rows`` has 1, 10 and 100 times the compute of the largest run; none where the runs do not
    vary both.
    """
    data = "pairs" if axis in {_PARAMETERS, "flops"} else axis
    counts = {name: frame[name].nunique() for name in (_PARAMETERS, data)}
    if min(counts.values()) < JOINT.least_sizes:
        told = " and ".join(f"{count} of {name}" for name, count in counts.items()).replace(
            "_", " "
        )
        return {"rows": [], "note": f"not known: it takes 3 sizes of both, the runs have {told}"}
    each = frame["flops"] / frame[_PARAMETERS] / frame[data]
    flops, largest = float(np.exp(np.log(each).mean())), float(frame["flops"].max())
    columns, loss = frame[[_PARAMETERS, data]].to_numpy(), frame["loss"].to_numpy()
    form = JOINT if len(frame) > len(JOINT.names) else TIED
    law = fit_law(columns, loss, form=form, clusters=frame["seed"].to_numpy(), seed=seed)
    rows = [
        {"compute": times * largest}
        | optimum(law, compute=times * largest, flops=flops)
        | {"is_within_runs": times == 1}
        for times in _TIMES
    ]
    note = (
        f"{law.words}; data: {data}; {law.starts_agreeing} of {law.starts} starts agree; compute = "
        f"{flops:.3g} FLOP × parameters × {data} (from {each.min():.3g} to {each.max():.3g} in the "
        "runs)"
    )
    return {"rows": rows, "note": note}


def _split(plain: Floats, per_flop: float) -> tuple[Floats, Floats]:
    _, a, b, alpha, beta = np.column_stack([plain, plain[:, -1]])[:, :5].T
    scale = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    n = scale * per_flop ** (beta / (alpha + beta))
    return n, per_flop / n


def _interval(values: Floats) -> Interval:
    """Return the first of the values with the 95 % interval of the others."""
    value = float(values[0])
    low, high = np.quantile(values[1:], [0.025, 0.975]).tolist()
    return {"value": value, "low": min(low, value), "high": max(high, value)}
