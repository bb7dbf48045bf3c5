"""Thresholds on what is spent, sent and stored: past them a warning is shown or no run starts.

``alerts.yaml`` at the root of the project replaces the shipped ``alerts.json``::

    alerts:
      - {metric: dollars, window: day, limit: 25, action: warn}
      - {metric: calls, window: hour, limit: 100000, action: abort}
"""

from __future__ import annotations

import json
import math
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.core.errors import BudgetError, ConfigError
from workbench.core.fields import refuse_unknown, suggest
from workbench.cost.calls import BILLED
from workbench.store.database import Store
from workbench.store.ledger import TOKEN

__all__ = [
    "Alert", "Threshold", "check", "read_thresholds", "refuse_exceeded",
    "refuse_if_exceeded", "stored_bytes",
]  # fmt: skip

Metric = Literal[
    "calls", "tokens", "dollars", "bytes_sent", "bytes_received", "storage_growth_mb", "runs"
]
"""All but the last two are of model calls, rehearsals left out. Dollars are billed ones, a lost
call at its worst case; the estimated price of CPU time and energy is nobody's bill."""
Window = Literal["hour", "day", "week"]
"""Up to now."""
Action = Literal["warn", "abort"]

_SECONDS: dict[Window, int] = {"hour": 3600, "day": 86_400, "week": 604_800}
_SHIPPED = Path(__file__).with_name("alerts.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """What may not be exceeded."""

    metric: Metric
    window: Window
    limit: float
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A threshold and how matters stand."""

    threshold: Threshold
    value: float

    @property
    def state(self) -> str:
        """``ok``, or what exceeding the limit leads to."""
        return self.threshold.action if self.value > self.threshold.limit else "ok"

    def __str__(self) -> str:
        one = self.threshold
        return f"{one.metric} of the last {one.window}: {self.value:,.12g}, limit {one.limit:,.12g}"


def read_thresholds(root: Path) -> list[Threshold]:
    """Return the thresholds of a project.

    Args:
        root: Folder of the project; its ``alerts.yaml`` counts, else the shipped thresholds.

    Raises:
        ConfigError: If the file cannot be read or says something unknown.
    """
    import yaml

    file = root / "alerts.yaml"
    if not file.exists():
        file = _SHIPPED
    try:
        section = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{file}: {reason}; correct the file") from None
    if isinstance(section, dict) and section.pop("quotas", None):  # of people, see store.usage
        section = section or json.loads(_SHIPPED.read_text(encoding="utf-8"))
    entries = section["alerts"] if isinstance(section, dict) and set(section) == {"alerts"} else 0
    if not isinstance(entries, list):
        raise ConfigError(
            f"{file}: write one field, `alerts:`, and a list under it, e.g."
            " [{metric: dollars, window: day, limit: 25, action: warn}]"
        )
    return [_threshold(entry, f"{file}, alert {n}") for n, entry in enumerate(entries, 1)]


def check(store: Store, thresholds: list[Threshold], *, now: float) -> list[Alert]:
    """Return how matters stand with each threshold.

    Args:
        store: The open store.
        thresholds: What to look at.
        now: Seconds since 1970, the end of every window.
    """
    values = {
        window: _values(store, {one.metric for one in thresholds if one.window == window}, since)
        for window, seconds in _SECONDS.items()
        if (since := now - seconds)
    }
    return [Alert(threshold=one, value=values[one.window][one.metric]) for one in thresholds]


def refuse_if_exceeded(store: Store, root: Path, *, now: float) -> list[Alert]:
    """Return the same as :func:`refuse_exceeded`, after a look at how matters stand."""
    return refuse_exceeded(check(store, read_thresholds(root), now=now), root)


def refuse_exceeded(found: list[Alert], root: Path) -> list[Alert]:
    """Return the exceeded thresholds that only warn.

    Raises:
        BudgetError: If one is exceeded that aborts.
    """
    if aborting := [str(one) for one in found if one.state == "abort"]:
        raise BudgetError(
            f"{'; '.join(aborting)}; wait, or raise the limit in {root / 'alerts.yaml'}"
        )
    return [one for one in found if one.state != "ok"]


def _threshold(entry: Any, where: str) -> Threshold:
    names = [field.name for field in fields(Threshold)]
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: {str(entry)[:60]!r}; write a mapping of {', '.join(names)}")
    refuse_unknown(entry, known=names, where=where)
    if missing := [name for name in names if name not in entry]:
        raise ConfigError(f"{where}: add {', '.join(missing)}")
    for name, choices in (("metric", Metric), ("window", Window), ("action", Action)):
        if (given := entry[name]) not in get_args(choices):
            hint = suggest(given, get_args(choices))
            raise ConfigError(f"{where}: unknown {name} {str(given)[:60]!r}; {hint}")
    limit = entry["limit"]
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit < math.inf:
        raise ConfigError(f"{where}: limit {str(limit)[:60]!r} is no number from 0 up")
    return Threshold(**entry)


def _values(store: Store, metrics: set[Metric], since: float) -> dict[Metric, float]:
    """Return what was used of each metric since a moment."""
    found: dict[Metric, float] = {}
    start = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if "storage_growth_mb" in metrics:
        found["storage_growth_mb"] = stored_bytes(store.home, since=since) / 1e6
    if "runs" in metrics:
        found["runs"] = sum(run.started_at >= start for run in store.runs.find())
    if not metrics <= set(found):
        totals = store.ledger.totals(since=start)
        calls = [row for row in totals if row["unit"] == TOKEN and not row["is_rehearsal"]]
        found["dollars"] = sum(row["usd"] for row in calls)
        found["tokens"] = sum(row["quantity"] for row in calls)
        found["calls"] = sum(row["calls"] for row in calls if row["outcome"] in BILLED)
        found["bytes_sent"] = sum(row["bytes_sent"] for row in calls)
        found["bytes_received"] = sum(row["bytes_received"] for row in calls)
    return found


def stored_bytes(folder: Path, *, since: float = 0.0) -> int:
    """Return the bytes of all files below a folder that changed since then; links are left out."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # removed while we looked
                status = os.lstat(os.path.join(place, name))  # noqa: PTH118 - twice as fast
                if stat.S_ISREG(status.st_mode) and status.st_mtime >= since:
                    total += status.st_size
    return total
