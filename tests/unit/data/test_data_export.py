"""Pair sets leave the store whole, and differences between two are told."""

import json

import pyarrow.parquet as pq
import pytest

import report_results
from workbench.core.errors import ConfigError
from workbench.data import plan as planning
from workbench.data.build import build_pairs
from workbench.data.compare import compare
from workbench.data.config import BuildConfig
from workbench.data.export import FORMATS, export, sample
from workbench.data.weights import weights_of


@pytest.fixture
def pair_set(store, monkeypatch):
    monkeypatch.setattr(planning, "SHARD_PAIRS", 100)
    return build_pairs(store, BuildConfig(target_pairs=300))


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_pair_arrives(pair_set, tmp_path, form):
    out = tmp_path / "out"
    export(pair_set, out, form=form)
    if form == "jsonl":
        files = out.glob("*.jsonl")
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    elif form == "parquet":
        rows = [row for file in out.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    else:
        from datasets import load_from_disk

        rows = [row for part in load_from_disk(out).values() for row in part]
    expected = pair_set.frame.to_dict(orient="records")
    assert sorted(rows, key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])
    assert "unique requests" in (out / "README.md").read_text()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_damaged_shard_leaves_no_half_export(pair_set, tmp_path):
    (pair_set.folder / pair_set.manifest["shards"][-1]["file"]).write_bytes(b"no")
    with pytest.raises(Exception, match="altered"):
        export(pair_set, tmp_path / "out", form="jsonl")
    assert list(tmp_path.glob("*out*")) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        export(pair_set, tmp_path / "out", form="jsonl")


def test_samples_are_drawn_by_seed_from_all_shards(pair_set):
    first = sample(pair_set, count=60, seed=1, only={"category": "benign"})
    assert first == sample(pair_set, count=60, seed=1, only={"category": "benign"})
    assert first != sample(pair_set, count=60, seed=2, only={"category": "benign"})
    assert len({row["id"] for row in first}) == 60
    shards = [set(frame["id"]) for frame in pair_set.shards()]
    assert all(shard & {row["id"] for row in first} for shard in shards)


def test_a_diff_counts_what_came_went_and_moved(store, tmp_path):
    def built(rows):
        (tmp_path / "q.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        spec = {"path": "q.jsonl", "columns": {"clean": "q", "category": "c"},
                "relation": "identity"}  # fmt: skip
        return build_pairs(store, BuildConfig(target_pairs=9, sources=[spec], folder=tmp_path))

    texts = ["Paint the boat", "Fold the map", "Sell the lamp", "Wash the hat"]
    old = built([{"q": text, "c": "tea"} for text in texts[:3]])
    new = built([{"q": text, "c": "milk"} for text in texts[1:]])
    found = compare(old, new)
    assert (found["kept"], found["added"], found["removed"]) == (2, 1, 1)
    assert found["relabelled"] == 2
    assert found["moved"] == {}
    assert found["added_by"]["category"] == {"milk": 1}
    assert found["removed_by"]["category"] == {"tea": 1}
    assert found["config"] == {}


def test_weights_follow_what_got_through(store):
    report_results.fill(store, report_results.results(), experiment="trial")
    (weights,) = weights_of(store, "trial").values()
    rates = {}
    for row in report_results.analysis()["by_category"]:
        if row["target"] != "bare":
            rates.setdefault(row["group"], []).append(row["rate"]["value"])
    order = sorted(rates, key=lambda name: sum(rates[name]))
    assert [weights[name] for name in order] == sorted(weights.values())
    assert weights[order[0]] < 1 < weights[order[-1]] <= 4
    BuildConfig(weights={"category": weights})
    with pytest.raises(ConfigError, match="nothing"):
        weights_of(store, "nothing")
