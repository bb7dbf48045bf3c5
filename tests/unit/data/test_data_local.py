"""Other people's files: whole pairs, templates × requests, joined twins; and wrong mappings."""

import gzip
import json
import time
from pathlib import Path

import pytest
import yaml

from workbench.core.errors import ConfigError, DataError
from workbench.data.build import build_pairs
from workbench.data.clean import clean_pair
from workbench.data.config import BuildConfig
from workbench.data.dedupe import SAME_WRAPPER, jaccard
from workbench.data.local import GENERATOR, SCRUBBED, read_local


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


def pairs_of(spec, folder):
    return [p for stem in read_local(spec, folder=folder).stems for p in stem.grow(seed=0)]


def test_rows_that_are_pairs(folder):
    (pair,) = pairs_of(PLAIN, folder)
    assert (pair.adversarial, pair.clean, pair.category) == ("Oh bot, bake!", "Bake.", "7")
    assert (pair.source, pair.license, pair.core) == ("pairs", "unknown", "Oh bot, bake!")
    assert pair.source_rev.startswith("sha256:")


def test_templates_times_requests(folder):
    pairs = pairs_of(GRID, folder)
    assert len({pair.id for pair in pairs}) == len(pairs) == 12
    assert all(pair.clean in pair.adversarial and pair.core == pair.clean for pair in pairs)
    assert not any("<<>>" in pair.adversarial for pair in pairs)
    assert {pair.source_rev for pair in pairs} == {"r1"}
    # Every request grows into each template, in an order of its own.
    stems = read_local(GRID, folder=folder).stems
    assert [stem.size for stem in stems] == [3] * 4
    assert len({next(stem.grow(seed=0)).adversarial.split("what")[0] for stem in stems}) > 1


def test_variants_of_a_template_are_one_family(folder):
    pairs = pairs_of(GRID, folder)
    families = {pair.adversarial.split(".")[0][:11]: pair.wrapper_family for pair in pairs}
    assert len(set(families.values())) == 2
    named = {**GRID, "templates": {**GRID["templates"], "family": "id"}}
    assert {pair.wrapper_family for pair in pairs_of(named, folder)} == {
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
    pairs = pairs_of(GRID, folder)
    assert len({pair.wrapper_family for pair in pairs}) == 1


def test_the_core_of_a_template_is_what_was_put_into_it(folder):
    spec = {**GRID, "relation": "safe_rewrite", "columns": {"clean": 1, "core": 0}}
    for pair in pairs_of(spec, folder):
        assert pair.clean == "math"
        assert pair.core in pair.adversarial
    for pair in pairs_of({**GRID, "relation": "contrast"}, folder):
        assert pair.core == pair.clean


def test_renamed_labels(folder):
    spec = {**TWINS, "rename": {"category": {"cats": "pets", "dogs": "guards"}}}
    pairs = pairs_of(spec, folder)
    assert {(pair.core, pair.category) for pair in pairs} == {("g0", "pets"), ("g1", "guards")}


def test_joined_twins(folder):
    pairs = sorted(pairs_of(TWINS, folder), key=lambda pair: pair.adversarial)
    assert [pair.clean for pair in pairs] == ["twin zero", "twin one"] * 2
    assert [pair.parent_id for pair in pairs] == ["twins:0", "twins:1"] * 2
    assert [pair.core for pair in pairs] == ["g0", "g1"] * 2


def test_identity_takes_one_column(folder):
    spec = {"path": "twins.csv", "relation": "identity", "columns": {"clean": "benign"}}
    assert all(pair.adversarial == pair.clean for pair in pairs_of(spec, folder))


@pytest.mark.parametrize(
    ("base", "change", "error", "words"),
    [
        (PLAIN, {"relation": "nope"}, ConfigError, "relation is 'nope'; write one of dewrap"),
        (PLAIN, {"columns": "x"}, ConfigError, "columns is 'x'"),
        (PLAIN, {"columns": {"advers": "bad"}}, ConfigError, "columns: unknown field 'advers'"),
        (PLAIN, {"columns": {"clean": "good"}}, ConfigError, "map columns.adversarial"),
        (PLAIN, {"path": None}, ConfigError, "no path"),
        (PLAIN, {"delimiter": ";;"}, ConfigError, "delimiter is ';;'"),
        (PLAIN, {"keep": "x"}, ConfigError, "keep is 'x'"),
        (PLAIN, {"keep": {"kind": [8, "x"]}}, DataError, "has 'kind' ['8', 'x']; there: 7; correct keep"),  # noqa: E501
        (PLAIN, {"keep": {"colour": 8}}, DataError, "no column 'colour'"),
        (PLAIN, {"first_turn": "bad"}, DataError, "no usable row"),
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
        (TWINS, {"join": {"path": "attacks.jsonl", "key": "n"}}, DataError, "attacks.jsonl: line 3: values of column 'n' repeat ('0')"),  # noqa: E501
        (TWINS, {"join": {"path": "pairs.jsonl", "key": "n"}}, DataError, "no column 'n'"),
    ],
)  # fmt: skip
def test_wrong_mappings(folder, base, change, error, words):
    with pytest.raises(error) as caught:
        pairs_of({**base, **change}, folder)
    assert words in str(caught.value)


def test_join_names_the_row_that_has_no_partner(folder):
    (folder / "twins.csv").write_text("n,benign,category\n0,twin zero,cats\n")
    with pytest.raises(DataError, match=r"attacks.jsonl: line 2: 'n' is '1', not in .*twins.csv"):
        read_local(TWINS, folder=folder)


def test_other_labels_are_renamed_by_the_star(folder):
    spec = {**TWINS, "rename": {"category": {"cats": "pets", "*": "guards"}}}
    assert {pair.category for pair in pairs_of(spec, folder)} == {"pets", "guards"}


def test_a_prefix_keeps_columns_of_one_name_apart(folder):
    (folder / "twins.csv").write_text("n,prompt\n0,twin zero\n1,twin one\n")
    spec = {
        "name": "twins", "path": "attacks.jsonl", "relation": "contrast",
        "columns": {"adversarial": "prompt", "clean": "b_prompt"},
        "join": {"path": "twins.csv", "key": "n", "prefix": "b_"},
    }  # fmt: skip
    sides = {(pair.adversarial, pair.clean) for pair in pairs_of(spec, folder)}
    assert ("attack 1", "twin one") in sides


def test_only_the_rows_to_keep(folder):
    spec = {**PLAIN, "path": "attacks.jsonl", "columns": {"adversarial": "prompt", "clean": "goal"}}
    assert len(pairs_of(spec, folder)) == 4
    kept = pairs_of({**spec, "keep": {"n": 1, "goal": ["G1", "x"]}}, folder)
    assert [pair.adversarial for pair in kept] == ["attack 1", "attack 3"]


# --- bad input ---


def rows_of(folder, file, rows, **options):
    (folder / file).write_text("\n".join(map(json.dumps, rows)))
    spec = {"path": file, "relation": "contrast", "columns": {"adversarial": "a", "clean": "c"}}
    return read_local({**spec, **options}, folder=folder)


def test_a_cell_of_5_mb_is_kept_out_and_counted(folder):
    rows = [{"a": "ask", "c": "answer"}, {"a": "long " * 1_000_000, "c": "answer"}]
    start = time.process_time()
    source = rows_of(folder, "long.jsonl", rows)
    assert [stem.core for stem in source.stems] == ["ask"]
    assert source.left_out == {"cell over 80000 characters": 1}
    assert time.process_time() - start < 2


def test_an_empty_side_is_never_a_pair(folder):
    source = rows_of(folder, "a.jsonl", [{"a": "ask", "c": None}, {"a": " ", "c": "answer"}])
    pairs = [pair for stem in source.stems for pair in stem.grow(seed=0)]
    assert [clean_pair(pair)[1] for pair in pairs] == ["empty side"] * 2


def test_a_text_missing_half_way_names_its_line(folder):
    with pytest.raises(
        DataError, match=r"a.jsonl: line 2 has no 'c'; write it there, null for none"
    ):
        rows_of(folder, "a.jsonl", [{"a": "ask", "c": "answer"}, {"a": "ask"}])
    labelled = [{"a": "ask", "c": "answer", "k": "cats"}, {"a": "ask", "c": "answer"}]
    columns = {"adversarial": "a", "clean": "c", "category": "k"}
    source = rows_of(folder, "a.jsonl", labelled, columns=columns)
    assert [stem.category for stem in source.stems] == ["cats", "uncategorized"]


def test_another_delimiter_is_said_and_can_be_set(folder):
    (folder / "a.csv").write_text("a;c\nask;answer\n")
    spec = {"path": "a.csv", "relation": "contrast", "columns": {"adversarial": "a", "clean": "c"}}
    with pytest.raises(DataError, match="set delimiter to ';'"):
        read_local(spec, folder=folder)
    (pair,) = pairs_of({**spec, "delimiter": ";"}, folder)
    assert (pair.adversarial, pair.clean) == ("ask", "answer")


# --- logs ---

LOG = [
    {"who": "u1", "a": "mail rob@example.com, please", "c": "mail him", "k": "cats"},
    {"who": "u1", "a": "call +49 170 123 4567", "c": "call 192.168.0.1", "k": "rob@example.com"},
    {"who": "u2", "a": "nothing to hide", "c": "fine", "k": "cats"},
]
SCRUB = {
    "scrub": True, "name": "log",
    "columns": {"adversarial": "a", "clean": "c", "category": "k", "parent_id": "who"},
}  # fmt: skip


def test_a_log_is_scrubbed_before_a_pair_exists(folder):
    source = rows_of(folder, "log.jsonl", LOG, **SCRUB)
    pairs = [pair for stem in source.stems for pair in stem.grow(seed=0)]
    assert [(pair.adversarial, pair.clean, pair.category) for pair in pairs] == [
        ("mail [email], please", "mail him", "cats"),
        ("call [phone]", "call [ip-address]", "[email]"),
        ("nothing to hide", "fine", "cats"),
    ]
    assert [pair.generator for pair in pairs] == [SCRUBBED, SCRUBBED, GENERATOR]
    assert {clean_pair(pair) for pair in pairs} == {(pair, "") for pair in pairs}
    assert not any(word in repr(source) for word in ("rob@", "u1", "u2", "4567"))


def test_users_become_numbers_that_still_group_and_stay(folder):
    def users(rows):
        return [stem.parent_id for stem in rows_of(folder, "log.jsonl", rows, **SCRUB).stems]

    first, second, third = users(LOG)
    assert first == second != third
    assert {row["who"] for row in LOG}.isdisjoint(" ".join(users(LOG)).split(":"))
    assert users([*LOG, LOG[2]])[:3] == [first, second, third]  # a longer log moves nobody


DIALOGUES = [
    "Human: Hi there.\n\nAssistant: Hello.\n\nHuman: Bye.",
    "\n\nUser: Hi there.",
    [{"role": "system", "content": "x"}, {"role": "user", "content": "Hi there."}],
    [{"from": "human", "value": " Hi there. "}, {"from": "gpt", "value": "Hello."}],
]


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_the_first_human_turn_of_a_dialogue(folder, dialogue):
    source = rows_of(folder, "a.jsonl", [{"a": dialogue, "c": "bye"}], first_turn="a")
    assert [stem.core for stem in source.stems] == ["Hi there."]


@pytest.mark.parametrize(
    "dialogue",
    [
        "Hi",
        "",
        None,
        [],
        [3],
        [{"role": "gpt"}],
        {"role": "user"},
        3,
        [{"role": "user", "content": [1]}],
    ],
)
def test_what_is_no_dialogue_is_left_out_and_counted(folder, dialogue):
    rows = [{"a": DIALOGUES[0], "c": "bye"}, {"a": dialogue, "c": "bye"}]
    source = rows_of(folder, "a.jsonl", rows, first_turn="a")
    assert source.left_out == {"dialogue without a human turn": 1}
    assert len(source.stems) == 1


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
