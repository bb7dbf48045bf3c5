"""What those who watch a campaign read, and that it takes no look at every long row."""

from __future__ import annotations

from sqlalchemy import event, insert

from workbench.store import schema
from workbench.store.events import tell
from workbench.store.live import watched_execution

_ROW = {
    "execution": "run", "trial": 0, "sent": "", "received": "", "replies": [], "decision": "",
    "scores": {}, "reasons": [], "latency_ms": 1.0, "usd": "0",
}  # fmt: skip
_MADE = [("bare", True, ""), ("bare", False, "late"), ("bare", False, ""), ("guarded", False, "")]


def test_attempts_are_counted_by_indexes(store):
    tell(store, "attack_run_started", "run", {"test_set": "set", "total": 9})
    with store.engine.begin() as connection:
        for number, (target, success, error) in enumerate(_MADE):
            told = {"target": target, "case_id": str(number), "success": success, "error": error}
            connection.execute(insert(schema.attempts), _ROW | told)
    asked = []
    listen = ("before_cursor_execute", lambda *told: asked.append(told[2:4]))
    event.listen(store.engine, *listen)
    found = watched_execution(store.engine, "run", owner=store.settings.user)
    event.remove(store.engine, *listen)
    assert found["targets"] == {"bare": [3, 1, 1], "guarded": [1, 0, 0]}
    counts = [(sql, values) for sql, values in asked if "FROM attempts" in sql]
    with store.engine.connect() as connection:
        plans = [
            " ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", on))
            for sql, on in counts
        ]
    assert "attempts_through" in plans[0]
    assert "attempts_in_error" in plans[1]
    assert "COVERING INDEX" in plans[2]
