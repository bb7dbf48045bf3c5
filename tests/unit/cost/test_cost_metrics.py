"""Prometheus metrics: valid, escaped, and equal to the ledger."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ledger_rows import hit_row, model_row
from workbench.core.errors import ConfigError
from workbench.cost.metrics import exposition, write_textfile

HOSTILE = 'm"} 1\n# HELP x \\ '


def samples(store):
    families = text_string_to_metric_families(exposition(store).decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_an_empty_store_has_metrics_too(store):
    assert samples(store)["workbench_storage_bytes",] > 0


def test_metrics_are_the_ledgers(store):
    store.ledger.add(
        [
            model_row(usd="0.25", latency_s=0.4),
            model_row(usd="0.25", latency_s=70.0, miss="expired"),
            model_row(usd="1", outcome="lost"),
            hit_row(calls=3),
            model_row(usd="8", who="rehearsal:tester"),
            hit_row(calls=9, who="rehearsal:tester"),
        ]
    )
    found, model = samples(store), "claude-haiku-5-5"
    assert found["workbench_llm_calls_total", model, "execution", "sent", "summary"] == 2
    assert found["workbench_llm_calls_total", model, "execution", "hit", "summary"] == 3
    assert found["workbench_llm_dollars_total", model, "execution"] == 1.5
    assert found["workbench_llm_tokens_total", "cache_read", model] == 600
    assert found["workbench_llm_bytes_total", "sent"] == 15_000
    assert found["workbench_llm_cache_hits_total",] == 3
    assert found["workbench_llm_cache_misses_total", "expired"] == 1
    assert found["workbench_llm_rehearsed_calls_total",] == 1
    assert found["workbench_llm_rehearsed_dollars_total",] == 8
    assert found["workbench_llm_latency_seconds_bucket", "0.5", model] == 1
    assert found["workbench_llm_latency_seconds_bucket", "120.0", model] == 2
    assert found["workbench_llm_latency_seconds_count", model] == 2
    assert found["workbench_llm_latency_seconds_sum", model] == pytest.approx(70.4)


def test_hostile_names_stay_labels(store):
    store.ledger.add([model_row(resource=HOSTILE, task="\ud800", miss="a\nb")])
    found = samples(store)
    assert ("workbench_llm_dollars_total", "execution", HOSTILE) in found
    assert ("workbench_llm_cache_misses_total", "a\nb") in found


def test_a_textfile_is_whole_or_absent(store, tmp_path):
    file = tmp_path / "workbench.prom"
    write_textfile(store, file)
    assert b"workbench_runs" in file.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["workbench.prom"]
    with pytest.raises(ConfigError, match="none"):
        write_textfile(store, tmp_path / "none" / "workbench.prom")
