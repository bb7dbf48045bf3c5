"""What storage takes and costs, in the ledger: a row per day, and one per artifact let go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from workbench.store import schema
from workbench.store.isolation import everybody
from workbench.store.ledger import insert_rows, take_turn
from workbench.store.marks import Marked, marked
from workbench.store.policy import Policy
from workbench.store.records import LedgerRow
from workbench.store.transaction import transaction

if TYPE_CHECKING:
    from workbench.store.database import Store

__all__ = ["GB_FREED", "GB_MONTH", "book_storage", "freed_row", "usd_per_month"]

GB_MONTH = "gb_month"
GB_FREED = "gb_freed"

_GB = 1e9
_MONTH_DAYS = 365.25 / 12
_NANO_USD = Decimal("0.000000001")
_MOST_DAYS = 400


def usd_per_month(size: int, policy: Policy) -> Decimal:
    """Return what so many bytes cost a month."""
    return (policy.usd_per_gb_month * Decimal(size) / Decimal(10**9)).quantize(_NANO_USD)


def freed_row(store: Store, policy: Policy, *, action: str, details: dict[str, Any]) -> LedgerRow:
    """Return the row of an artifact that takes less space from now on; it costs nothing itself.

    Args:
        store: Whose user let it go.
        policy: By which, and the price.
        action: ``compressed`` or ``removed``.
        details: With ``bytes_before`` and ``bytes_after``.
    """
    freed = details["bytes_before"] - details["bytes_after"]
    saved = usd_per_month(freed, policy)
    return LedgerRow(
        who=store.settings.user, job=store.settings.run_id, experiment=store.settings.experiment,
        phase="storage", resource="storage", quantity=freed / _GB, unit=GB_FREED, usd=Decimal(0),
        price_version=policy.price_version, note=action,
        details={**details, "gb_months_saved_per_month": freed / _GB,
                 "usd_saved_per_month": str(saved)},
    )  # fmt: skip


def book_storage(store: Store, policy: Policy, *, now: datetime) -> int:
    """Add a ledger row for each day that has ended and has none; return how many.

    A row says what the artifacts took that day, what was written on it, and what that costs. Of
    what was compressed since, it is the size of today.

    Args:
        store: The store.
        policy: With the price.
        now: The present, in UTC.
    """
    engine = everybody(store.engine)
    rows = marked(engine)
    if not rows:
        return 0
    ended = now.date() - timedelta(days=1)
    with transaction(engine) as connection:
        take_turn(connection)  # two that book at once would book twice
        last = connection.execute(_last_day()).scalar()
        first = date.fromisoformat((last or rows[0].created_at)[:10])
        day = max(first + timedelta(days=bool(last)), ended - timedelta(days=_MOST_DAYS - 1))
        days = [day + timedelta(days=one) for one in range((ended - day).days + 1)]
        insert_rows(connection, [_row(store, policy, rows, one.isoformat()) for one in days])
    return len(days)


def _last_day() -> Any:
    table = schema.ledger
    return select(func.max(table.c.at)).where(table.c.phase == "storage", table.c.unit == GB_MONTH)


def _row(store: Store, policy: Policy, rows: Sequence[Marked], day: str) -> LedgerRow:
    by_kind: Counter[str] = Counter()
    written = 0
    for one in rows:
        made, gone = one.created_at[:10], one.mark.removed_at[:10]
        if made <= day and (not gone or gone > day):
            by_kind[one.kind] += max(one.mark.bytes if gone else one.mark.stored, 0)
        if made == day:
            written += max(one.mark.bytes, 0)
    size = sum(by_kind.values())
    gb_months = size / _GB / _MONTH_DAYS
    return LedgerRow(
        who=store.settings.user, job=store.settings.run_id, experiment=store.settings.experiment,
        phase="storage", resource="storage", quantity=gb_months, unit=GB_MONTH,
        usd=(policy.usd_per_gb_month * Decimal(str(gb_months))).quantize(_NANO_USD),
        price_version=policy.price_version, estimated=True, note=f"artifacts on {day}",
        details={"day": day, "bytes": size, "written_bytes": written, "by_kind": dict(by_kind)},
        at=f"{day}T23:59:59.999999Z",
    )  # fmt: skip
