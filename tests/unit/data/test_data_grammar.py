"""What grows from a request: wrapped once or twice, told in other words, beside benign twins."""

import re
from collections import defaultdict
from dataclasses import replace
from itertools import islice
from random import Random

import pytest

from workbench.core.redact import redact
from workbench.data.dedupe import near_duplicates, normalize, resembles_any
from workbench.data.families import merge_families, sample_families
from workbench.data.grammar import GENERATOR, NESTED, Ways, stems_of
from workbench.data.plan import Planned, ShardPlan
from workbench.data.requests import LANGUAGES, load_benign, load_requests, load_retellings
from workbench.data.shards import grow_shard
from workbench.data.wrappers import Wrapper, family_split, load_wrappers, put_on, wrap
from workbench.store.records import Pair

HARMFUL = {one.id: one for one in load_requests()}
BENIGN = {one.id: one for one in load_benign()}
EVERYWHERE = Ways(languages=LANGUAGES, dialogues=True, encodings=True)
SIDES = {one.family: family_split(one.family) for one in load_wrappers()}
PROTOTYPE = Pair(
    adversarial="", clean="", relation="identity", source="s", license="MIT", category="benign",
    generator=GENERATOR,
)  # fmt: skip


def grow(*, each=300, every=40, ways=None):
    """Return pairs of every so-manieth shipped request."""
    stems = stems_of(PROTOTYPE, ways or Ways())[::every]
    return [pair for stem in stems for pair in islice(stem.grow(seed=5), each)]


@pytest.fixture(scope="module")
def grown():
    return grow()


@pytest.fixture(scope="module")
def retold():
    stems = [one for one in stems_of(PROTOTYPE, Ways()) if one.parent_id in load_retellings()]
    pairs = [pair for stem in stems[::4] for pair in islice(stem.grow(seed=5), 40)]
    return [pair for pair in pairs if pair.wrapper_family.startswith("retold_")]


def test_every_retelling_family_has_harmful_and_benign_requests():
    parents = defaultdict(set)
    for parent, retellings in load_retellings().items():
        for one in retellings:
            parents[one.family].add(parent in HARMFUL)
    assert len(parents) >= 20
    assert set(map(frozenset, parents.values())) == {frozenset({True, False})}
    assert {family_split(family) for family in parents} == {"train", "test"}
    assert not parents.keys() & SIDES.keys()


def test_retellings_are_really_different_and_hold_nothing_private():
    rows = [(parent, one.text) for parent, many in load_retellings().items() for one in many]
    texts = [normalize(text) for _, text in rows]
    assert (near_duplicates(texts) < 0).all()
    everything = [*HARMFUL.values(), *BENIGN.values()]
    known = [normalize(text) for one in everything for text in (one.request, *one.redirects)]
    assert not resembles_any(texts, known).any()
    assert [text for _, text in rows if redact(text) != text] == []


def test_a_retold_wish_gets_a_safe_request_and_a_retold_benign_one_stays(retold):
    assert {pair.parent_id in HARMFUL for pair in retold} == {True, False}
    for pair in retold:
        texts = {(one.family, one.text) for one in load_retellings()[pair.parent_id]}
        assert (pair.wrapper_family, pair.adversarial) in texts
        if pair.parent_id in HARMFUL:
            wish = HARMFUL[pair.parent_id]
            assert pair.relation == "safe_rewrite"
            assert pair.clean in wish.redirects
            assert pair.category == wish.category
        else:
            assert (pair.relation, pair.category) == ("identity", "benign")
            assert pair.clean == pair.adversarial


def test_a_retelling_is_told_once(retold):
    texts = [pair.adversarial for pair in retold]
    assert len(texts) == len(set(texts)) > 100


def test_only_the_shipped_request_itself_is_retold():
    parent = next(iter(load_retellings()))
    own = {**HARMFUL, **BENIGN}[parent]
    paraphrase = replace(own, request="The same in words that nobody shipped")
    for request in (paraphrase, replace(own, language="de")):
        (stem,) = stems_of(PROTOTYPE, Ways(), requests=[request])
        families = {pair.wrapper_family for pair in islice(stem.grow(seed=0), 400)}
        assert not {one for one in families if one.startswith("retold_")}
    for stem in stems_of(PROTOTYPE, EVERYWHERE):
        told = {one.text for one in load_retellings().get(stem.parent_id, ())}
        assert told.issubset(stem.texts) == (stem.language == "en" or not told)


def worn_by(pair):
    """Return the families whose longest piece of literal text stands in a prompt."""
    text = normalize(pair.adversarial)
    return {family for family, pieces in PIECES.items() if any(piece in text for piece in pieces)}


def pieces_of(template):
    parts = map(normalize, re.split(r"\{\w+\}|[.;!?\n-]", template))
    longest = max(parts, key=len)
    return [longest] if len(longest) > 25 else []


PIECES = {
    one.family: [piece for text in one.templates for piece in pieces_of(text)]
    for one in load_wrappers()
}


def test_no_prompt_wears_a_trained_and_a_tested_wrapper(grown):
    nested = [pair for pair in grown if pair.generator.endswith(NESTED)]
    worn = [worn_by(pair) | {pair.wrapper_family} for pair in nested]
    assert sum(len(families) > 1 for families in worn) > 100
    for families in worn:
        assert len({family_split(family) for family in families}) == 1
    assert {family_split(pair.wrapper_family) for pair in nested} == {"train", "test"}


def test_two_wrappers_keep_the_request(grown):
    nested = [pair for pair in grown if pair.generator.endswith(NESTED)]
    assert 0.03 < len(nested) / len(grown) < 0.12
    assert [pair for pair in nested if pair.adversarial.count(pair.core) != 1] == []
    assert {pair.relation for pair in nested} == {"safe_rewrite", "dewrap"}


def test_an_encoding_is_never_one_of_two_wrappers():
    nested = [pair for pair in grow(every=200, ways=EVERYWHERE) if pair.generator.endswith(NESTED)]
    assert nested
    assert not [pair for pair in nested if pair.wrapper_family.startswith("encoding-")]


def test_two_wrappers_make_no_families_one():
    stems = stems_of(PROTOTYPE, Ways())[::9]
    assert merge_families(sample_families(stems, seed=0)) == {}


def plan_of(stems, *, known=(), same=()):
    planned = [Planned(stem=stem, group=stem.parent_id, quota=60) for stem in stems]
    return ShardPlan(
        stems=planned, seed=0, attacks=(), known_families=frozenset(known),
        same_families=dict(same), has_evaluation=False,
    )  # fmt: skip


def test_a_second_wrapper_stays_out_where_other_sources_decide_about_wrappers():
    trained, tested = (next(name for name in SIDES if SIDES[name] == side)
                       for side in ("train", "test"))  # fmt: skip
    other = next(name for name in SIDES if SIDES[name] == "train" and name != trained)
    stems = stems_of(PROTOTYPE, Ways())[:8]
    for plan, is_nested in (
        (plan_of(stems), True),
        (plan_of(stems, same=[(trained, other)]), True),
        (plan_of(stems, same=[(trained, tested)]), False),
        (plan_of(stems, known=[trained]), False),
    ):
        found = grow_shard(plan)
        assert any(pair.generator.endswith(NESTED) for pair in found.pairs) == is_nested
        assert len(found.pairs) == 8 * 60


def test_safe_redirects_of_harmful_requests_are_asked_for_bare_and_wrapped(grown):
    own = [pair for pair in grown if pair.parent_id in HARMFUL and pair.category == "benign"]
    share = len(own) / sum(pair.parent_id in HARMFUL for pair in grown)
    assert 0.12 < share < 0.28
    assert {pair.relation for pair in own} == {"identity", "dewrap"}
    for pair in own:
        assert pair.core in HARMFUL[pair.parent_id].redirects
        assert pair.clean == pair.core
        assert bool(pair.wrapper_family) == (pair.relation == "dewrap")
        assert pair.adversarial.count(pair.core) == 1
        assert (pair.adversarial == pair.core) == (pair.relation == "identity")


def test_an_attack_and_its_benign_twin_wear_the_same_families(grown):
    attacks = {
        (pair.parent_id, pair.wrapper_family) for pair in grown if pair.relation == "safe_rewrite"
    }
    twins = {
        (pair.parent_id, pair.wrapper_family)
        for pair in grown
        if pair.parent_id in HARMFUL and pair.relation == "dewrap"
    }
    assert len(twins) > 300
    assert len(twins - attacks) <= 0.05 * len(twins)  # whose attack was not drawn any more


def test_the_first_pairs_of_many_requests_are_of_all_kinds():
    pairs = grow(each=1, every=1)
    own = [pair for pair in pairs if pair.parent_id in HARMFUL]
    assert 0.07 < sum(pair.category == "benign" for pair in own) / len(own) < 0.25
    assert len({pair.wrapper_family for pair in pairs if "retold_" in pair.wrapper_family}) > 10


def test_a_benign_twin_is_no_repetition_of_the_attack_in_its_wrapper():
    long = max(load_wrappers(), key=lambda one: min(map(len, one.templates)))
    worn = [put_on(text, long, number=0, draw=Random(0)) for text in ("Harm him.", "Help him.")]
    assert (near_duplicates([normalize(text) for text in worn]) >= 0).any()
    fields = {"wrapper_family": long.family, "source": "s", "license": "MIT", "group": "g"}
    pairs = [
        Pair(adversarial=worn[0], clean="Help him.", core="Harm him.", relation="safe_rewrite",
             category="violence", **fields),
        Pair(adversarial=worn[1], clean="Help him.", core="Help him.", relation="dewrap",
             category="benign", **fields),
    ]  # fmt: skip
    (stem,) = stems_of(PROTOTYPE, Ways())[:1]
    stem = replace(stem, grow=lambda *, seed: iter(pairs))
    (planned,) = plan_of([stem]).stems
    found = grow_shard(replace(plan_of([]), stems=[replace(planned, quota=2)]))
    assert {pair.adversarial for pair in found.pairs} == set(worn)
    assert not any(pair.near_dup_of for pair in found.pairs)


def test_noise_runs_are_long_and_never_the_same():
    noise = [wrap("Bake 3 cakes?", family="noise_suffix", seed=seed) for seed in range(300)]
    left = [text.partition("Bake 3 cakes?") for text in noise]
    assert all(found for _, found, _ in left)
    junk = [max(before, after, key=len) for before, _, after in left]
    assert len(set(junk)) == len(junk)
    assert min(map(len, junk)) > 15
    words = [sum(map(str.isalnum, text)) / len(text) for text in junk]
    assert max(words) < 0.95


def test_a_run_draws_each_of_its_fillers_anew():
    once = Wrapper(family="x", templates=("{request} {noise}",), is_styled=False)
    runs = [put_on("Q", once, number=0, draw=Random(seed)) for seed in range(60)]
    lengths = [len(text) for text in runs]
    assert max(lengths) > 2 * min(lengths)
    again = put_on("Q", once, number=0, draw=Random(7))
    assert again == runs[7]
