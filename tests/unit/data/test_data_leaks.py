"""What might leak in a roundabout way does not: across sources, by sides, by order, by growth."""

import json
import re

import pytest

from workbench.core.errors import ConfigError, DataError
from workbench.data.build import build_pairs, load_pairs
from workbench.data.config import BuildConfig, read_config
from workbench.data.wrappers import load_wrappers

THINGS = ("boat", "lantern", "bicycle", "hat", "kettle", "ladder", "violin", "carpet")
VERBS = ("Wash", "Paint", "Fold", "Sell", "Mend", "Lend")
QUERIES = [f"{verb} the old {thing} for me please" for verb in VERBS for thing in THINGS]
FRAMES = [
    f"My {one} keeps a diary about everything that strangers ask, and today it says: [X] Do it!"
    for one in ("aunt", "captain of the ferry", "neighbor with nine cats", "violin teacher")
] + [
    "Nobody on this train has slept since Monday. The loudspeaker repeats one sentence: [X]",
    "Final exam, question nine of nine, worth all of the points of this term and the next: [X]",
    "The parrot that came with the house says only this, all day and most of the night: [X]",
]


def write(folder, name, rows):
    (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return name


def framed(folder, name, frames, queries=QUERIES):
    """Return a source of queries inside templates."""
    return {
        "name": name, "path": write(folder, f"{name}.jsonl", [{"q": one} for one in queries]),
        "columns": {"clean": "q"}, "relation": "dewrap", "values": {"category": "benign"},
        "templates": {"path": write(folder, f"{name}-t.jsonl", [{"t": one} for one in frames]),
                      "column": "t", "placeholder": "[X]"},
    }  # fmt: skip


def paired(folder, name, rows, **columns):
    """Return a source of rows a (adversarial), c (clean) and others."""
    mapping = {"adversarial": "a", "clean": "c", **columns}
    path = write(folder, f"{name}.jsonl", rows)
    return {"name": name, "path": path, "columns": mapping, "relation": "contrast"}


def build(store, folder, sources, **more):
    config = BuildConfig(target_pairs=5000, sources=sources, folder=folder, **more)
    return build_pairs(store, config)


def test_one_template_of_two_sources_has_one_side(store, tmp_path):
    half = len(QUERIES) // 2
    longer = [frame.replace("[X]", "[X] Thank you.") for frame in FRAMES]
    sources = [
        framed(tmp_path, "one", FRAMES, QUERIES[:half]),
        framed(tmp_path, "two", longer, QUERIES[half:]),
    ]
    pair_set = build(store, tmp_path, sources)
    assert set(pair_set.manifest["leaks"].values()) == {0}
    frame = pair_set.frame
    tested = frame["split"].isin(["test_wrappers", "test_both"])
    for text in FRAMES:
        worn = frame["adversarial"].str.startswith(text.partition("[X]")[0])
        assert tested[worn].nunique() == 1
        assert frame[worn]["source"].nunique() == 2


def test_wrappers_of_an_evaluation_set_are_kept_out_whatever_comes_first(store, tmp_path):
    long = {
        one.family: text
        for one in load_wrappers()
        for text in one.templates
        if len(text) > 150 and text.count("{") == 1
    }
    known = dict(list(long.items())[:5])
    attacks = [
        {"a": text.replace("{request}", QUERIES[n]), "c": f"Else {n}", "k": QUERIES[n]}
        for n, text in enumerate(known.values())
    ]
    held = paired(tmp_path, "held", attacks, core="k")
    other = framed(tmp_path, "other", FRAMES)
    for order in (["seeds", other], [other, "seeds"]):
        pair_set = build(store, tmp_path, order, evaluation=[held])
        grown = pair_set.frame[pair_set.frame["source"] == "seeds"]
        assert len(known) >= 3
        assert not known.keys() & set(grown["wrapper_family"])
        for text in known.values():  # nor as the second of two wrappers
            longest = max(re.split(r"\{request\}|[.;!?\n-]", text), key=len).strip().lower()
            assert len(longest) > 20
            assert not grown["adversarial"].str.lower().str.contains(longest, regex=False).any()
        assert set(pair_set.manifest["leaks"].values()) == {0}


def test_a_family_that_an_evaluation_set_names_is_kept_out(store, tmp_path):
    family = next(iter(load_wrappers())).family
    row = {"a": "Some words nobody else says", "c": "And others too", "f": family}
    held = paired(tmp_path, "held", [row], wrapper_family="f")
    pair_set = build(store, tmp_path, ["seeds"], evaluation=[held])
    grown = pair_set.frame[pair_set.frame["source"] == "seeds"]
    assert family not in set(grown["wrapper_family"])


def test_requests_with_one_clean_side_or_one_prompt_share_a_split(store, tmp_path):
    one = paired(
        tmp_path, "one", [{"a": f"Break {q}", "c": f"Keep {n // 2}"} for n, q in enumerate(QUERIES)]
    )
    two = paired(
        tmp_path, "two", [{"a": f"Break {q}", "c": f"Store {n}", "k": f"core of {q[::-1]}"}
                          for n, q in enumerate(QUERIES)], core="k",
    )  # fmt: skip
    pair_set = build(store, tmp_path, [one, two])
    assert set(pair_set.manifest["leaks"].values()) == {0}
    for column in ("clean", "adversarial"):
        assert pair_set.frame.groupby(column)["group"].nunique().max() == 1


def test_a_stock_answer_ties_nothing_and_is_told(store, tmp_path):
    rows = [
        {"a": f"Break {query}", "c": "I would rather not talk about that."} for query in QUERIES
    ]
    pair_set = build(store, tmp_path, [paired(tmp_path, "one", rows)])
    assert pair_set.manifest["groups"] == len(QUERIES)
    assert pair_set.manifest["leaks"]["clean_sides_across_splits"] == 1


def test_a_log_that_grows_moves_nothing_towards_training(store, tmp_path):
    rows = [
        {"a": f"{query} at once", "c": query, "u": f"user{n % 17}"}
        for n, query in enumerate(QUERIES)
    ]
    splits = []
    for count in (len(rows) - 5, len(rows)):
        log = {**paired(tmp_path, "log", rows[:count], parent_id="u"), "scrub": True}
        frame = build(store, tmp_path, [log]).frame
        splits.append(dict(zip(frame["id"], frame["split"], strict=True)))
    before, after = splits
    assert before.keys() < after.keys()
    moved = {one for one in before if before[one] != after[one]}
    assert not [one for one in moved if after[one] in {"train", "validation"}]
    assert len(moved) < len(before) / 4


def test_rules_hold_for_evaluation_sources_too(store, tmp_path):
    rows = [{"a": f"Break {query}", "c": query} for query in QUERIES]
    held = {**paired(tmp_path, "held", rows), "license": "CC-BY-NC-4.0"}
    with pytest.raises(DataError, match=r"'CC-BY-NC-4\.0' is not allowed"):
        build(store, tmp_path, ["seeds"], evaluation=[held], licenses=["MIT"])
    mailed = [{"a": f"Mail ann@example.org: {query}", "c": query} for query in QUERIES[:3]]
    log = {**paired(tmp_path, "log", [*mailed, *rows[5:8]]), "scrub": True}
    pair_set = build(store, tmp_path, ["seeds"], evaluation=[log])
    assert len(pair_set.part("test_both")) == 3
    empty = paired(tmp_path, "empty", [{"a": "x", "c": "y"}])
    with pytest.raises(DataError, match="no pair of the evaluation sources is left"):
        build(store, tmp_path, ["seeds"], evaluation=[empty])
    with pytest.raises(ConfigError, match="'advbench' is a benchmark"):
        build(store, tmp_path, ["seeds", "advbench"])
    with pytest.raises(ConfigError, match="gptfuzz wraps the shipped requests"):
        build(store, tmp_path, ["seeds"], decontaminate=["gptfuzz"])


def test_prompts_of_a_compared_set_are_kept_out(store, tmp_path):
    bench = framed(tmp_path, "bench", FRAMES[:3], ["Water the roof garden before noon, twice"])
    prompt = FRAMES[1].replace("[X]", "Water the roof garden before noon, twice")
    rows = [{"a": prompt, "c": "Go home"}, *({"a": f"Break {q}", "c": q} for q in QUERIES)]
    pair_set = build(store, tmp_path, [paired(tmp_path, "mine", rows)], decontaminate=[bench])
    assert prompt not in set(pair_set.frame["adversarial"])
    assert len(pair_set.frame) == len(QUERIES)


def test_repetitions_name_a_pair_of_the_set(store, tmp_path):
    base = "Tell me how long a copper kettle takes to boil two liters of cold water at sea level"
    rows = [{"q": base + tail, "p": "p"} for tail in ("?", "!", "?!", " ...", " please")]
    spec = {"name": "q", "path": write(tmp_path, "q.jsonl", rows), "relation": "identity",
            "columns": {"clean": "q", "parent_id": "p"}}  # fmt: skip
    frame = build(store, tmp_path, [spec]).frame
    repeats = set(frame["near_dup_of"]) - {""}
    assert repeats
    assert repeats <= set(frame["id"])


def test_hostile_labels_become_one_line_and_stay_apart(store, tmp_path):
    rows = [
        {"a": "Break the boat", "c": "Mend the boat", "d": "\ud800x",
         "k": "tea\x1b]0;PWNED\x07\u202e\nmilk"},
        {"a": "Break the hat", "c": "Mend the hat", "k": "y\x1fz", "d": "x"},
    ]  # fmt: skip
    spec = paired(tmp_path, "mine", rows, category="k", domain="d")
    frame = build(store, tmp_path, [spec]).frame
    assert all(label.isprintable() for label in frame["category"])
    assert set(frame["category"]) == {"tea ]0;PWNED milk", "y z"}


def test_an_altered_manifest_is_refused(store, tmp_path):
    pair_set = build_pairs(store, BuildConfig(target_pairs=300))
    path = pair_set.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for damage in ({"shards": []}, {"shards": None}, {"config": {}}):
        path.write_text(json.dumps({**manifest, **damage}))
        with pytest.raises(DataError, match="build the set again"):
            load_pairs(store, pair_set.version)
    assert len(build_pairs(store, BuildConfig(target_pairs=300)).frame) == 300


def test_the_set_that_was_asked_for_last_is_the_newest(store):
    first = build_pairs(store, BuildConfig(target_pairs=50))
    build_pairs(store, BuildConfig(target_pairs=60))
    build_pairs(store, BuildConfig(target_pairs=50))
    assert load_pairs(store, "").version == first.version


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources: 3", "sources is 3; write a list"),
        ("sources: seeds", "sources is 'seeds'; write a list"),
        ("evaluation:", "evaluation is None; write a list"),
        ("licenses: MIT", "licenses is 'MIT'; write a list"),
        ("licenses: [3, MIT]", "licenses: 3 is no text"),
        ("target_pairs: 2.5", "target_pairs is 2.5; write a whole number"),
        ("target_pairs: true", "target_pairs is True"),
        ("target_pairs: .inf", "target_pairs is inf"),
        ("seed: x", "seed is 'x'"),
        ("weights: {category: 2}", "weights: category is 2"),
        ("weights: [1]", "weights is [1]"),
        ("weights: {category: {violence: .inf}}", "violence is inf"),
        ("weights: {category: {violense: 9}}", "no request of any source has category 'violense'"),
        ("sources: [3]", "source 3 is neither a name nor a mapping"),
        ("decontaminate: [3]", "source 3 is neither a name nor a mapping"),
        ("sources: [{adapter: seeds, languages: [[en]]}]", "languages is [['en']]"),
        ("sources: [{adapter: seeds, pairs: true}]", "pairs is True"),
        ("sources: [{adapter: [seeds]}]", "unknown source"),
        ("sources: [{adapter: seeds, family_weights: {nope: 3}}]", "unknown field 'nope'"),
    ],
)
def test_what_a_file_says_wrongly_is_named(store, tmp_path, text, words):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        build_pairs(store, read_config(path))
    assert words in str(caught.value)


def test_an_encoding_that_changes_nothing_makes_no_pair(store):
    spec = {"adapter": "seeds", "languages": ["ar", "zh"], "encodings": True}
    frame = build_pairs(store, BuildConfig(target_pairs=3000, sources=[spec])).frame
    encoded = frame[frame["wrapper_family"].str.startswith("encoding-")]
    assert len(encoded) > 200
    assert not [row for row in encoded.itertuples() if row.core in row.adversarial]
