"""Other people's files: whole pairs, templates × requests, joined twins; and wrong mappings."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest
import yaml

from workbench.core.errors import ConfigError, DataError
from workbench.data.build import BuildConfig, build_pairs
from workbench.data.dedupe import SAME_WRAPPER, jaccard
from workbench.data.local import read_local


@pytest.fixture
def folder(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))

    write("pairs.jsonl", [{"bad": "Oh bot, bake!", "good": "Bake.", "kind": 7, "list": []}])
    (tmp_path / "nested.json").write_text(
        json.dumps({"train": [[f"what is {n} plus {n}", "math"] for n in range(4)]})
    )
    (tmp_path / "templates.csv").write_text(
        'id,text\n0,"You are Rob, a robot. <<>> Go!"\n1,"In a story, Ann asks Ben: <<>>"\n'
        '2,"You are Rob, a robot. <<>> Go!!"\n'
    )
    write(
        "attacks.jsonl",
        [{"n": n % 2, "prompt": f"attack {n}", "goal": f"g{n % 2}"} for n in range(4)],
    )
    (tmp_path / "twins.csv").write_text("n,benign,category\n0,twin zero,cats\n1,twin one,dogs\n")
    return tmp_path


GRID = {
    "name": "grid", "path": "nested.json", "rows": "train", "columns": {"clean": 0},
    "values": {"category": "benign"}, "relation": "dewrap", "license": "CC0-1.0", "revision": "r1",
    "templates": {"path": "templates.csv", "column": "text", "placeholder": "<<>>"},
}  # fmt: skip
TWINS = {
    "name": "twins", "path": "attacks.jsonl", "relation": "contrast",
    "columns": {"adversarial": "prompt", "clean": "benign", "core": "goal", "category": "category",
                "parent_id": "n"},
    "join": {"path": "twins.csv", "key": "n"},
}  # fmt: skip
PLAIN = {
    "path": "pairs.jsonl", "relation": "safe_rewrite",
    "columns": {"adversarial": "bad", "clean": "good", "category": "kind"},
}  # fmt: skip


def test_rows_that_are_pairs(folder):
    (pair,) = read_local(PLAIN, folder=folder).grow(seed=0)
    assert (pair.adversarial, pair.clean, pair.category) == ("Oh bot, bake!", "Bake.", "7")
    assert (pair.source, pair.license, pair.core) == ("pairs", "unknown", "Oh bot, bake!")
    assert pair.source_rev.startswith("sha256:")


def test_templates_times_requests(folder):
    pairs = list(read_local(GRID, folder=folder).grow(seed=0))
    assert len({pair.id for pair in pairs}) == len(pairs) == 12
    assert all(pair.clean in pair.adversarial and pair.core == pair.clean for pair in pairs)
    assert not any("<<>>" in pair.adversarial for pair in pairs)
    assert {pair.source_rev for pair in pairs} == {"r1"}
    # Any first few already hold every template and every request.
    assert len({pair.clean for pair in pairs[:4]}) == 4


def test_variants_of_a_template_are_one_family(folder):
    pairs = read_local(GRID, folder=folder).grow(seed=0)
    families = {pair.adversarial.split(".")[0][:11]: pair.wrapper_family for pair in pairs}
    assert len(set(families.values())) == 2
    named = {**GRID, "templates": {**GRID["templates"], "family": "id"}}
    assert {pair.wrapper_family for pair in read_local(named, folder=folder).grow(seed=0)} == {
        "grid/0", "grid/1", "grid/2",
    }  # fmt: skip


def test_a_chain_of_variants_is_one_family(folder):
    words = [
        "you",
        "are",
        "rob",
        "a",
        "robot",
        "from",
        "far",
        "away",
        "who",
        "never",
        "sleeps",
        "and",
        "always",
        "tells",
        "the",
        "truth",
        "to",
        "all",
        "of",
        "his",
        "many",
        "friends",
    ]
    texts = [" ".join(["zz"] * n + words[n:]) + " <<>>" for n in (0, 5, 11)]
    (folder / "templates.csv").write_text("id,text\n" + "\n".join(f"0,{t}" for t in texts))
    assert jaccard(texts[0], texts[2]) < SAME_WRAPPER < jaccard(texts[0], texts[1])
    pairs = list(read_local(GRID, folder=folder).grow(seed=0))
    assert len({pair.wrapper_family for pair in pairs}) == 1


def test_the_core_of_a_template_is_what_was_put_into_it(folder):
    spec = {**GRID, "relation": "safe_rewrite", "columns": {"clean": 1, "core": 0}}
    for pair in read_local(spec, folder=folder).grow(seed=0):
        assert pair.clean == "math"
        assert pair.core in pair.adversarial
    for pair in read_local({**GRID, "relation": "contrast"}, folder=folder).grow(seed=0):
        assert pair.core == pair.clean


def test_renamed_labels(folder):
    spec = {**TWINS, "rename": {"category": {"cats": "pets", "dogs": "guards"}}}
    pairs = list(read_local(spec, folder=folder).grow(seed=0))
    assert {(pair.core, pair.category) for pair in pairs} == {("g0", "pets"), ("g1", "guards")}


def test_joined_twins(folder):
    pairs = sorted(read_local(TWINS, folder=folder).grow(seed=0), key=lambda pair: pair.adversarial)
    assert [pair.clean for pair in pairs] == ["twin zero", "twin one"] * 2
    assert [pair.parent_id for pair in pairs] == ["twins:0", "twins:1"] * 2
    assert [pair.core for pair in pairs] == ["g0", "g1"] * 2


def test_identity_takes_one_column(folder):
    spec = {"path": "twins.csv", "relation": "identity", "columns": {"clean": "benign"}}
    assert all(
        pair.adversarial == pair.clean for pair in read_local(spec, folder=folder).grow(seed=0)
    )


@pytest.mark.parametrize(
    ("base", "change", "error", "words"),
    [
        (PLAIN, {"relation": "nope"}, ConfigError, "relation is 'nope'; write one of dewrap"),
        (PLAIN, {"columns": "x"}, ConfigError, "columns is 'x'"),
        (PLAIN, {"columns": {"advers": "bad"}}, ConfigError, "columns: unknown field 'advers'"),
        (PLAIN, {"columns": {"clean": "good"}}, ConfigError, "map columns.adversarial"),
        (PLAIN, {"path": None}, ConfigError, "no path"),
        (PLAIN, {"path": "gone.csv"}, DataError, "gone.csv: no such file"),
        (PLAIN, {"columns": {"adversarial": "x", "clean": "good"}}, DataError, "the columns are: bad"),  # noqa: E501
        (PLAIN, {"columns": {"adversarial": "kind", "clean": "good"}}, DataError, "holds int"),
        (PLAIN, {"columns": {"adversarial": "bad", "clean": "list"}}, DataError, "holds list"),
        (GRID, {"rows": "test"}, DataError, "keys there: train"),
        (GRID, {"columns": {"adversarial": 0}}, ConfigError, "map columns.clean"),
        (GRID, {"templates": {"path": "templates.csv"}}, ConfigError, "placeholder is None"),
        (GRID, {"templates": {**GRID["templates"], "placeholder": "[]"}}, DataError, "row 1: no placeholder"),  # noqa: E501
        (GRID, {"templates": {**GRID["templates"], "x": 1}}, ConfigError, "templates: unknown field 'x'"),  # noqa: E501
        (TWINS, {"rename": {"category": {"cats": "pets"}}}, DataError, "line 2: category is 'dogs'; add it to rename.category"),  # noqa: E501
        (TWINS, {"rename": {"domain": {"cats": "pets"}}}, ConfigError, "rename.domain needs columns.domain"),  # noqa: E501
        (TWINS, {"join": {"path": "twins.csv"}}, ConfigError, "join has no 'key'"),
        (TWINS, {"join": {"path": "twins.csv", "key": "m"}}, DataError, "no column 'm'"),
        (TWINS, {"join": {"path": "attacks.jsonl", "key": "n"}}, DataError, "repeat"),
        (TWINS, {"join": {"path": "pairs.jsonl", "key": "n"}}, DataError, "no column 'n'"),
    ],
)  # fmt: skip
def test_wrong_mappings(folder, base, change, error, words):
    with pytest.raises(error) as caught:
        list(islice(read_local({**base, **change}, folder=folder).grow(seed=0), 3))
    assert words in str(caught.value)


def test_join_names_the_row_that_has_no_partner(folder):
    (folder / "twins.csv").write_text("n,benign,category\n0,twin zero,cats\n")
    with pytest.raises(DataError, match=r"attacks.jsonl: line 2: 'n' is '1', not in .*twins.csv"):
        read_local(TWINS, folder=folder)


def test_the_shipped_experiment_reads_files_of_the_shape_that_it_names(store, tmp_path):
    root = Path(__file__).resolve().parents[3]
    steps = yaml.safe_load((root / "experiments" / "local_files.yaml").read_text())["steps"]
    local = tmp_path / "data" / "local"
    for name in ("clinc150", "gptfuzz", "jbb"):
        (local / name).mkdir(parents=True)
    things = ("boat", "lantern", "bicycle", "kettle", "ladder", "violin", "carpet", "garden")
    queries = [[f"{verb} the {thing}", "x"] for verb in ("wash", "sell") for thing in things]
    data = json.dumps({"train": queries, "oos_val": [["who sang this", "oos"]]})
    (local / "clinc150" / "data_full.json.gz").write_bytes(gzip.compress(data.encode()))
    templates = [f"{n},{word * 9} [INSERT PROMPT HERE]" for n, word in enumerate("abcdef")]
    (local / "gptfuzz" / "GPTFuzzer.csv").write_text("\n".join(["id,text", *templates]))
    attack = {"index": 4, "prompt": "Be bad", "category": "Physical harm", "behavior": "x"}
    (local / "jbb" / "attacks_even.jsonl").write_text(json.dumps(attack))
    (local / "jbb" / "behaviors_even.csv").write_text(
        "index,category,harmful_goal,benign_goal\n4,Physical harm,harm me,please me\n"
    )
    config = BuildConfig(**steps["pairs"]["parameters"], folder=tmp_path)
    frame = build_pairs(store, config).frame
    (held,) = frame[frame["source"] == "jailbreakbench"].to_dict(orient="records")
    assert (held["core"], held["clean"]) == ("harm me", "please me")
    assert (held["category"], held["parent_id"]) == ("violence", "jailbreakbench:4")
    assert set(frame["relation"]) == {"dewrap", "identity", "contrast"}
