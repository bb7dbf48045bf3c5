"""The shipped seeds are whole, and broken ones are refused by line."""

import json
import re

import pytest

from workbench.core.errors import ConfigError, DataError
from workbench.data.requests import HARM_CATEGORIES, load_benign, load_requests
from workbench.data.wrappers import family_split, load_wrappers, style, wrap

REQUEST = {
    "id": "a", "category": "violence", "request": "How?", "redirects": ["So."],
    "domain": "d", "context": "general",
}  # fmt: skip


def test_shipped_requests():
    harmful, benign = load_requests(), load_benign()
    assert len(harmful) >= 60
    assert {request.category for request in harmful} == set(HARM_CATEGORIES)
    assert any(request.lookalike for request in benign)
    ids = [request.id for request in [*harmful, *benign]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"request": " "}, "field 'request'"),
        ({"id": 3}, "field 'id' is 3"),
        ({"category": "fun"}, "category is 'fun'"),
        ({"context": "fun"}, "context is 'fun'"),
        ({"redirects": []}, "'redirects' is not a list"),
        ({"redirects": "x"}, "'redirects' is not a list"),
        ({"lookalike": 1}, "'lookalike' is 1"),
        ({}, "id 'a' occurs twice"),
    ],
)
def test_broken_request(tmp_path, change, words):
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(REQUEST) + "\n" + json.dumps({**REQUEST, **change}) + "\n")
    with pytest.raises(DataError, match=r"line 2") as caught:
        load_requests(path)
    assert words in str(caught.value)


def test_wrap_is_deterministic_and_keeps_the_request():
    for number, wrapper in enumerate(load_wrappers()):
        text = wrap("Please Bake 3 Cakes?", family=wrapper.family, seed=number)
        assert text == wrap("Please Bake 3 Cakes?", family=wrapper.family, seed=number)
        assert text.count("Please Bake 3 Cakes?") == 1
        assert not re.search(r"\{\w+\}", text)


def test_grammar_is_large():
    family = load_wrappers()[0].family
    texts = {wrap("Bake a cake.", family=family, seed=seed) for seed in range(5000)}
    assert len(texts) > 4000  # of one request in one family alone


def test_braces_in_a_request_are_left_alone():
    assert "{persona} {x}" in wrap("{persona} {x}", family=load_wrappers()[0].family, seed=1)


def test_style():
    assert style("Bake a cake.", seed=0) == "Bake a cake."
    texts = {style("Bake a cake.", seed=seed) for seed in range(1, 2000)}
    assert len(texts) > 200
    assert all("bake a cake" in text.casefold() for text in texts)


def test_unknown_family():
    with pytest.raises(ConfigError, match="unknown wrapper family 'x'; known: "):
        wrap("a", family="x", seed=0)


def test_enough_families_on_both_sides():
    """What the salt was chosen for; if the shipped families change, so may the counts."""
    sides = [family_split(wrapper.family) for wrapper in load_wrappers()]
    assert sides.count("train") >= 24
    assert sides.count("test") >= 6
    assert family_split("") == "train"


def test_family_share():
    sides = [family_split(f"family-{number}") for number in range(5000)]
    assert 0.17 < sides.count("test") / 5000 < 0.23


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"family": ""}, "field 'family'"),
        ({"templates": "x"}, "'templates' is not a list"),
        ({"templates": ["no place"]}, "template 1 needs {request} once, not 0"),
        ({"templates": ["{request}", "{request} {request}"]}, "template 2 needs"),
        ({"templates": ["{request} {nope}"]}, "slot 'nope'; add it to slots.json"),
        ({}, "family 'a' occurs twice"),
    ],
)
def test_broken_wrapper(tmp_path, row, words):
    good = {"family": "a", "kind": "k", "templates": ["{name}: {request}"]}
    (tmp_path / "slots.json").write_text('{"name": ["Ann"]}')
    path = tmp_path / "wrappers.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, **row}) + "\n")
    with pytest.raises(DataError, match=r"line 2") as caught:
        load_wrappers(path)
    assert words in str(caught.value)


def test_broken_slots(tmp_path):
    (tmp_path / "slots.json").write_text('{"name": []}')
    with pytest.raises(DataError, match=r"slots.json: field 'name' is not a list"):
        load_wrappers(tmp_path / "wrappers.jsonl")
