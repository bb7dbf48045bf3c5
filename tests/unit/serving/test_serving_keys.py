"""A key opens the service by its hash alone, within its limits."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from workbench.core.errors import ConfigError, DataError
from workbench.core.money import ZERO
from workbench.serving.keys import KeyRing, new_key
from workbench.serving.refusal import Overloaded, Refusal
from workbench.store import schema
from workbench.store.records import LedgerRow
from workbench.store.service_keys import Usage, add_key, all_keys, revoke_key
from workbench.store.transaction import transaction

CREDIT = Decimal("0.01")


def ring_of(*keys, clock=lambda: 0.0, used=None) -> KeyRing:
    ring = KeyRing(credit_usd=CREDIT, clock=clock)
    ring.update(list(keys), used or {})
    return ring


def make(**limits):
    wanted = {"quota_credits_per_day": None, "requests_per_minute": None} | limits
    return new_key(owner="anna", name="gateway", **wanted)


def test_a_key_is_found_by_either_header_and_kept_as_a_hash() -> None:
    key, secret = make()
    other, _ = make()
    ring = ring_of(other, key)
    for headers in (
        {"authorization": f"Bearer {secret.reveal()}"},
        {"authorization": f"bearer  {secret.reveal()}"},
        {"x-api-key": secret.reveal()},
    ):
        assert ring.find(headers).id == key.id
    assert secret.reveal() not in repr(key)
    assert secret.reveal().split("_", 2)[2] not in repr(key)
    assert not ring.find({"x-api-key": secret.reveal()}).digest


@given(change=st.integers(0, 60), text=st.text(max_size=80))
def test_nothing_else_opens_it(change: int, text: str) -> None:
    key, secret = make()
    ring = ring_of(key)
    value = secret.reveal()
    place = change % len(value)
    changed = value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :]
    for wrong in (changed, text, key.digest, f"wbk_{key.id}_", f"wbk__{text}", ""):
        for headers in ({"x-api-key": wrong}, {"authorization": f"Bearer {wrong}"}, {}):
            with pytest.raises(Refusal) as refused:
                ring.find(headers)
            assert refused.value.status_code == 401
            assert value not in refused.value.detail


@given(limit=st.integers(1, 5), steps=st.lists(st.floats(0, 40), min_size=1, max_size=60))
def test_no_minute_sees_more_requests_than_allowed(limit: int, steps: list[float]) -> None:
    now = 0.0
    key, _ = make(requests_per_minute=limit)
    ring = ring_of(key, clock=lambda: now)
    served: list[float] = []
    for step in steps:
        now += step
        try:
            ring.count(key)
        except Overloaded as refused:
            left = refused.retry_after_s
            assert sum(now - one < 60 for one in served) == limit
            assert 1 <= left <= 61
            oldest = served[-limit]
            assert oldest + 60 <= now + left
        else:
            served.append(now)
        assert sum(now - one < 60 for one in served) <= limit


def test_the_credits_of_a_day_end() -> None:
    key, _ = make(quota_credits_per_day=2.0)
    ring_of(key, used={key.id: Decimal("0.0199")}).count(key)
    with pytest.raises(Overloaded) as refused:
        ring_of(key, used={key.id: Decimal("0.02")}).count(key)
    assert 1 <= refused.value.retry_after_s <= 86_401
    assert refused.value.reason == "quota"


def test_keys_are_kept_listed_and_revoked(store) -> None:
    key, secret = make(quota_credits_per_day=1.5, requests_per_minute=3)
    add_key(store.engine, key)
    assert all_keys(store.engine) == [key]
    assert ring_of(*all_keys(store.engine)).find({"x-api-key": secret.reveal()}).owner == "anna"
    revoke_key(store.engine, key.id)
    [revoked] = all_keys(store.engine)
    revoke_key(store.engine, key.id)
    assert all_keys(store.engine) == [revoked]
    assert revoked.revoked_at
    with pytest.raises(Refusal):
        ring_of(revoked).find({"x-api-key": secret.reveal()})
    with pytest.raises(DataError, match="no key"):
        revoke_key(store.engine, "nobody")


def test_what_a_key_used_is_added_up_from_the_ledger(store) -> None:
    def row(job: str, usd: str, at: str, phase="serving") -> LedgerRow:
        return LedgerRow(
            who="anna", job=job, experiment="service", phase=phase, resource="cpu", quantity=1.0,
            unit="core_s", usd=Decimal(usd), price_version="1", at=at,
        )  # fmt: skip

    usage = Usage(store.engine)
    store.ledger.add([row("k1", "9", "2026-01-01T23:59:59Z"), row("k1", "1", "2026-01-02T00:00Z")])
    day = "2026-01-02T00:00:00"
    assert usage.read(day).get("k1", ZERO) in (ZERO, Decimal(1))
    store.ledger.add([row("k1", "0.25", "2026-01-02T10"), row("k2", "3", "2026-01-02T10"),
                      row("k1", "7", "2026-01-02T10", phase="execution")])  # fmt: skip
    assert usage.read("2026-01-02") == {"k1": Decimal("1.25"), "k2": Decimal(3)}
    assert usage.read("2026-01-02") == usage.read("2026-01-02")
    assert usage.read("2026-01-03") == {}


def test_a_row_that_becomes_visible_late_is_counted_once(store) -> None:
    row = LedgerRow(
        who="a", job="k", experiment="service", phase="serving", resource="cpu", quantity=1.0,
        unit="core_s", price_version="1", at="2026-01-02T10", usd=ZERO,
    )  # fmt: skip
    at = vars(row) | {"details": "{}"}
    usage = Usage(store.engine)
    with transaction(store.engine) as connection:
        connection.execute(insert(schema.ledger), at | {"id": 11, "usd": "1"})
    assert usage.read("2026-01-02") == {"k": Decimal(1)}
    with transaction(store.engine) as connection:  # of another process, whose turn took longer
        connection.execute(insert(schema.ledger), at | {"id": 10, "usd": "2"})
    for _ in range(2):
        assert usage.read("2026-01-02") == {"k": Decimal(3)}


@pytest.mark.parametrize("quota", [float("nan"), float("inf"), -1.0])
def test_a_quota_that_is_no_number_is_refused(quota: float) -> None:
    with pytest.raises(ConfigError, match="credits a day"):
        make(quota_credits_per_day=quota)
