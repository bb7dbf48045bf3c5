"""Model calls counted from the ledger, beside their estimates, priced anew."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_rows import hit_row, model_row
from workbench.core.errors import ConfigError
from workbench.cost.calls import calls_of, estimate_vs_truth, reprice, summarize, summary
from workbench.cost.usage import compute_rows, spent
from workbench.llm.messages import Usage
from workbench.llm.prices import Prices

ROWS = [
    model_row(usd="0.03", phase="generation", who="ada", at="2026-11-20T23:59:59.000000Z"),
    model_row(usd="0.01", resource="claude-opus-5-5", task="attack", miss="expired"),
    model_row(usd="0.01", outcome="batch"),
    model_row(usd="0.50", outcome="lost", estimated=True, input=0, cache_read=0, output=0),
    model_row(usd="0.001", outcome="prewarm", output=0),
    hit_row(calls=6, saved_usd="0.06"),
    hit_row(calls=1, saved_usd="0.01", outcome="joined"),
    hit_row(calls=4, outcome="rule"),
    *compute_rows(cpu_s=100, who="ada", job="run-1", experiment="sweep", phase="training"),
]


def test_a_total_by_hand():
    total = summary("total", ROWS)
    assert (total["calls"], total["lost"], total["hits"], total["rules"]) == (5, 1, 7, 4)
    assert total["hit_share"] == pytest.approx(7 / 10)
    assert total["misses"] == {"absent": 2, "expired": 1}
    assert total["usd"] == pytest.approx(0.551)
    assert total["saved_usd"] == pytest.approx(0.07)
    assert total["input_tokens"] == 4 * 1050 + 50
    assert total["cached_tokens"] == 4 * 200
    assert (total["bytes_sent"], total["bytes_received"]) == (25_000, 3_500)


@pytest.mark.parametrize("by", ["phase", "model", "task", "person", "day"])
def test_every_grouping_adds_up_to_the_total(by):
    groups, total = summarize(ROWS, by=by), summary("total", ROWS)
    assert len(groups) > 1
    for name in ("calls", "hits", "rules", "lost", "output_tokens", "bytes_sent"):
        assert sum(group[name] for group in groups) == total[name]
    assert sum(group["usd"] for group in groups) == pytest.approx(total["usd"])
    if by == "day":
        assert groups[0]["group"] == "2026-11-20"
    else:
        assert [g["usd"] for g in groups] == sorted((g["usd"] for g in groups), reverse=True)


def test_rows_from_before_the_gateway_count_as_one_call():
    old = model_row()
    bare = type(old)(**{**vars(old), "details": {}})
    assert (summary("", [bare])["calls"], summarize([bare], by="task")[0]["group"]) == (1, "other")


def test_a_bill_tells_model_calls_and_is_json(store):
    store.ledger.add(ROWS)
    bill = spent(store, "sweep")
    assert bill["calls"] == calls_of(ROWS)
    assert {row["group"] for row in bill["calls"]["by_model"]} == {
        "claude-haiku-5-5",
        "claude-opus-5-5",
    }
    assert bill["total"]["usd"] > bill["calls"]["total"]["usd"]
    json.dumps(bill, allow_nan=False)


FIGURES = {"calls": 2, "usd": ["0.01", "0.02", "0.10"]}


def estimated(store, *, work="w", at, figures=FIGURES):
    from workbench.store import calls

    clock, calls.now = calls.now, lambda: at
    try:
        store.calls.add_estimate(
            figures, work=work, job="run-1", experiment="sweep", phase="execution"
        )
    finally:
        calls.now = clock


@pytest.mark.parametrize(
    ("usd", "verdict"), [("0.02", "within"), ("0.001", "below"), ("0.2", "above")]
)
def test_an_estimate_stands_beside_what_its_work_was_billed(store, usd, verdict):
    estimated(store, at="2026-11-21T01:00:00.000000Z")
    at = "2026-11-21T02:00:00.000000Z"
    store.ledger.add(
        [
            model_row(usd="9", at="2026-11-21T00:59:59.000000Z"),
            model_row(usd="9", at=at, work="other"),
            model_row(usd=usd, at=at),
            model_row(usd="0", at=at),
        ]
    )
    (row,) = estimate_vs_truth(store, "sweep")
    assert (row["calls"], row["expected_calls"], row["verdict"]) == (2, 2, verdict)
    assert row["ratio"] == pytest.approx(float(usd) / 0.02)


def test_a_resumed_work_has_a_bill_per_estimate(store):
    for hour in ("01", "03"):
        estimated(store, at=f"2026-11-21T{hour}:00:00.000000Z")
    store.ledger.add(
        [
            model_row(usd="0.01", at="2026-11-21T02:00:00.000000Z"),
            model_row(usd="0.02", at="2026-11-21T04:00:00.000000Z"),
            model_row(usd="0.03", at="2026-11-21T05:00:00.000000Z"),
        ]
    )
    rows = estimate_vs_truth(store, "sweep")
    assert [row["verdict"] for row in rows] == ["cut short", "within"]
    assert [row["usd"] for row in rows] == pytest.approx([0.01, 0.05])


@settings(deadline=None)  # the first call loads the price table
@given(st.lists(st.sampled_from(ROWS)))
def test_pricing_anew_changes_only_dollars_of_answers(rows):
    for old, new in zip(rows, reprice(rows, Prices()), strict=True):
        assert {**vars(new), "usd": 0, "price_version": ""} == {
            **vars(old),
            "usd": 0,
            "price_version": "",
        }
        if old.details.get("outcome") not in {"sent", "batch", "prewarm"}:
            assert new == old


def test_todays_price_is_the_price_of_the_raw_usage(tmp_path):
    file = tmp_path / "own.json"
    entry = {"input": 1, "output": 2, "batch_factor": "0.5", "source": "s", "checked": "2026-11-21"}
    file.write_text(json.dumps({"version": "1", "models": {"claude-haiku-5-5": entry}}))
    prices = Prices(file)
    sent, batch = reprice([model_row(), model_row(outcome="batch")], prices)
    usage = Usage(
        input_tokens=1000, cache_read_tokens=200, cache_write_5m_tokens=50, output_tokens=100
    )
    assert sent.usd == prices.price_of(usage, model="claude-haiku-5-5", provider="anthropic")
    assert sent.usd == Decimal("0.00145")
    assert batch.usd * 2 == sent.usd
    assert sent.price_version == prices.price_version()


def test_a_model_without_a_price_today_is_refused():
    with pytest.raises(ConfigError, match="claude-gone"):
        reprice([model_row(resource="claude-gone")], Prices())
