"""What the database adds up equals the rows."""

from collections import defaultdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger_rows import hit_row, model_row
from workbench.cost.usage import compute_rows

AT = "2026-11-21T0{}:00:00.000000Z"
ROWS = [
    model_row(usd="0.25", at=AT.format(1)),
    model_row(usd="0.5", at=AT.format(2), outcome="lost", bytes_sent=7),
    hit_row(calls=5, at=AT.format(3)),
    type(model_row())(**{**vars(model_row(usd="0.125", at=AT.format(2))), "details": {}}),
    *(
        type(row)(**{**vars(row), "at": AT.format(2)})
        for row in compute_rows(cpu_s=9, who="a", job="j", experiment="e", phase="training")
    ),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.sampled_from(ROWS), max_size=12), hour=st.integers(1, 4))
def test_totals_are_the_sums_of_the_rows(store, rows, hour):
    since, wanted = AT.format(hour), defaultdict(float)
    store.ledger.add(rows)
    for row in store.ledger.rows():
        if row.at >= since:
            key = row.unit, row.details.get("outcome", "sent")
            wanted[*key, "usd"] += float(row.usd)
            wanted[*key, "quantity"] += row.quantity
            wanted[*key, "calls"] += row.details.get("calls", 1)
            wanted[*key, "bytes_sent"] += row.details.get("bytes_sent", 0)
            wanted[*key, "bytes_received"] += row.details.get("bytes_received", 0)
    found = {
        (group["unit"], group["outcome"], name): group[name]
        for group in store.ledger.totals(since=since)
        for name in ("usd", "quantity", "calls", "bytes_sent", "bytes_received")
    }
    assert found.keys() == wanted.keys()
    assert all(abs(found[name] - wanted[name]) < 1e-6 for name in found)


def test_the_newest_calls_are_the_last_rows_of_models(store):
    store.ledger.add(ROWS)
    assert [row.usd for row in store.ledger.rows(newest_calls=2)] == [ROWS[2].usd, ROWS[3].usd]
    assert len(store.ledger.rows(newest_calls=99)) == 4
