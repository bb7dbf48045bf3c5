"""What people used, in credits by phase, and how much they may.

``quotas`` in ``alerts.yaml`` at the root of the project says how much, beside its ``alerts``::

    quotas:
      credit_usd: 0.01
      window: month
      default: 5000
      users: {anna: 20000}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import Engine, func, select

from workbench.core.errors import BudgetError, ConfigError
from workbench.core.fields import refuse_unknown, suggest
from workbench.core.money import ZERO, usd
from workbench.store import schema
from workbench.store.ledger import TOKEN
from workbench.store.transaction import retried, transaction

__all__ = [
    "CREDIT_USD", "Quotas", "Used", "parse_quotas", "read_quotas", "refuse_over_quota", "usage",
    "window_start",
]  # fmt: skip

QuotaWindow = Literal["day", "week", "month"]
"""Calendar days, weeks from Monday and months in UTC, so that everybody knows when a new one
begins."""

CREDIT_USD = Decimal("0.01")
_FIELDS = ("credit_usd", "window", "default", "users")


@dataclass(frozen=True, kw_only=True)
class Used:
    """What somebody used in a phase."""

    phase: str
    usd: Decimal
    """Billed: model calls and targets that are paid. The estimated price of CPU time and energy is
    nobody's bill."""
    credits: Decimal


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """How many credits people may use in a window."""

    credit_usd: Decimal = CREDIT_USD
    window: QuotaWindow = "month"
    default: Decimal | None = None
    """Of users that are not named; None: no limit."""
    users: Mapping[str, Decimal] = field(default_factory=dict)

    def of(self, owner: str) -> Decimal | None:
        """Return the credits that a user may use; None without limit."""
        return self.users.get(owner, self.default)


@retried
def usage(
    engine: Engine, owner: str, *, since: str, credit_usd: Decimal = CREDIT_USD
) -> list[Used]:
    """Return what a user used since a moment, by phase, the dearest first; no rehearsals.

    Args:
        engine: Of the store.
        owner: Whose.
        since: ISO 8601 in UTC.
        credit_usd: Dollars that a credit is.
    """
    table = schema.ledger
    # amounts are texts, exact to the last digit: equal ones are counted, not added, by the database
    columns = (table.c.phase, table.c.usd)
    is_billed = (table.c.unit == TOKEN) | ~table.c.estimated
    query = select(*columns, func.count()).where(
        table.c.who == owner, table.c.at >= since, table.c.usd != "0", is_billed
    )
    paid: dict[str, Decimal] = {}
    with transaction(engine) as connection:
        for phase, amount, count in connection.execute(query.group_by(*columns)):
            paid[phase] = paid.get(phase, ZERO) + Decimal(amount) * count
    found = [Used(phase=one, usd=sums, credits=sums / credit_usd) for one, sums in paid.items()]
    return sorted(found, key=lambda one: (-one.usd, one.phase))


def window_start(window: QuotaWindow, *, now: datetime | None = None) -> str:
    """Return when the present day, week or month began, ISO 8601 in UTC."""
    day = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "week":
        day -= timedelta(days=day.weekday())
    elif window == "month":
        day = day.replace(day=1)
    return day.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def refuse_over_quota(
    engine: Engine, owner: str, *, quotas: Quotas, now: datetime | None = None
) -> None:
    """Refuse to spend where nothing is left of a user's quota.

    Args:
        engine: Of the store.
        owner: Who wants to spend.
        quotas: Limits.
        now: The present, if it is not.

    Raises:
        BudgetError: If all is used.
    """
    limit = quotas.of(owner)
    if limit is None:
        return
    since = window_start(quotas.window, now=now)
    found = usage(engine, owner, since=since, credit_usd=quotas.credit_usd)
    used = sum((one.credits for one in found), ZERO)
    if used >= limit:
        raise BudgetError(
            f"the quota of {owner!r} is {limit:,} credits a {quotas.window}: {used:,.2f} are used"
            f" since {since[:10]}; wait for the next {quotas.window}, or raise it under `quotas:`"
            " in alerts.yaml"
        )


def read_quotas(root: Path) -> Quotas:
    """Return the quotas of a project; none are without limit.

    Args:
        root: Folder of the project, with its ``alerts.yaml``.

    Raises:
        ConfigError: If the file cannot be read or says something unknown.
    """
    import yaml

    file = root / "alerts.yaml"
    if not file.exists():
        return Quotas()
    try:
        section = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{file}: {reason}; correct the file") from None
    given = section.get("quotas", {}) if isinstance(section, dict) else {}
    return parse_quotas(given, where=f"{file}, quotas")


def parse_quotas(section: Any, *, where: str) -> Quotas:
    """Return the quotas that a mapping says.

    Raises:
        ConfigError: If it says something unknown.
    """
    if not isinstance(section, dict):
        raise ConfigError(
            f"{where}: {str(section)[:60]!r}; write a mapping of {', '.join(_FIELDS)}"
        )
    refuse_unknown(section, known=_FIELDS, where=where)
    credit_usd = _amount(section.get("credit_usd", CREDIT_USD), f"{where}, credit_usd")
    if not credit_usd:
        raise ConfigError(f"{where}: credit_usd is 0; give the dollars that a credit is, e.g. 0.01")
    window = section.get("window", "month")
    if window not in get_args(QuotaWindow):
        hint = suggest(window, get_args(QuotaWindow))
        raise ConfigError(f"{where}: unknown window {str(window)[:60]!r}; {hint}")
    users = section.get("users", {})
    if not isinstance(users, dict):
        raise ConfigError(f"{where}: users {str(users)[:60]!r}; write e.g. {{anna: 20000}}")
    default = section.get("default")
    return Quotas(
        credit_usd=credit_usd,
        window=window,
        default=None if default is None else _amount(default, f"{where}, default"),
        users={str(name): _amount(value, f"{where}, {name}") for name, value in users.items()},
    )


def _amount(value: Any, where: str) -> Decimal:
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise ConfigError(f"{where}: {str(value)[:60]!r} is no number from 0 up")
    return usd(value)
