"""The shipped seeds are whole, and broken ones are refused by line."""

import json
import re
from pathlib import Path
from random import Random

import pytest

from workbench.core.errors import ConfigError, DataError
from workbench.data.clean import language_of
from workbench.data.dedupe import near_duplicates, normalize, resembles_any
from workbench.data.requests import (
    HARM_CATEGORIES,
    LANGUAGES,
    load_benign,
    load_requests,
    load_retellings,
    load_translation,
)
from workbench.data.transforms import TRANSFORMS
from workbench.data.wrappers import (
    family_split,
    load_dialogues,
    load_encodings,
    load_wrappers,
    style,
    wrap,
)

REQUEST = {
    "id": "a", "category": "violence", "request": "How?", "redirects": ["So."],
    "domain": "d", "context": "general",
}  # fmt: skip


def test_shipped_requests_are_many_and_really_different():
    harmful, benign = load_requests(), load_benign()
    assert {request.category for request in harmful} == set(HARM_CATEGORIES)
    assert sum(request.lookalike for request in benign) >= 200
    everything = [*harmful, *benign]
    ids = [request.id for request in everything]
    assert len(ids) == len(set(ids))
    assert len(everything) >= 1500
    assert (near_duplicates([normalize(one.request) for one in everything]) < 0).all()
    for domain in ("medical", "legal", "financial"):
        assert sum(one.domain == domain for one in everything) >= 200
    for context in ("educational", "research", "general"):
        assert sum(one.context == context for one in everything) >= 200


def test_redirects_are_many_and_really_different():
    harmful = load_requests()
    assert sum(len(one.redirects) >= 8 for one in harmful) >= 200
    redirects = [normalize(text) for one in harmful for text in one.redirects]
    assert (near_duplicates(redirects) < 0).all()
    wishes = [normalize(one.request) for one in harmful]
    assert not resembles_any(redirects, wishes).any()


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_translations_are_whole_and_in_their_language(language):
    translation = load_translation(language)
    assert len({one.id for one in translation.requests}) == len(translation.requests) >= 90
    assert {one.language for one in translation.requests} == {language}
    assert set(HARM_CATEGORIES) < {one.category for one in translation.requests}
    families = {wrapper.family for wrapper in load_wrappers()}
    assert len(translation.templates) >= 10
    assert set(translation.templates) <= families
    for templates in translation.templates.values():
        assert all(re.findall(r"\{\w+\}", text) == ["{request}"] for text in templates)
    texts = [text for one in translation.requests for text in (one.request, *one.redirects)]
    found = [language_of(text) for text in texts]
    assert sum(name == language for name, _ in found) > 0.9 * len(found)
    assert not [name for name, certainty in found if name != language and certainty > 0.9]


def test_families_are_many():
    assert len(load_wrappers()) >= 60
    assert len(load_dialogues()) >= 20
    assert {one.transform for one in load_encodings()} <= set(TRANSFORMS.names())
    families = [one.family for one in (*load_wrappers(), *load_dialogues(), *load_encodings())]
    assert len(families) == len(set(families))


def test_a_translation_of_nothing_is_refused(tmp_path, monkeypatch):
    (tmp_path / "languages").mkdir()
    row = {"parent": "violence-999", "request": "x", "redirects": ["y"]}
    (tmp_path / "languages" / "xx.jsonl").write_text(json.dumps(row))
    load_requests(), load_benign()
    monkeypatch.setattr("workbench.data.requests.seeds_folder", lambda: tmp_path)
    monkeypatch.setattr("workbench.data.requests.load_requests", list)
    monkeypatch.setattr("workbench.data.requests.load_benign", list)
    with pytest.raises(DataError, match="no request has the id 'violence-999'"):
        load_translation("xx")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": " "}, "field 'text'"),
        ({"family": 3}, "field 'family' is 3"),
        ({"parent": ""}, "field 'parent'"),
        ({"parent": "violence-999"}, "no request has the id 'violence-999'"),
    ],
)
def test_a_broken_retelling(tmp_path, monkeypatch, change, words):
    good = {"family": "f", "parent": "violence-001", "text": "Once upon a time."}
    lines = "\n".join(map(json.dumps, (good, {**good, **change})))
    (tmp_path / "retellings.jsonl").write_text(lines)
    shipped = load_requests()
    monkeypatch.setattr("workbench.data.requests.seeds_folder", lambda: tmp_path)
    monkeypatch.setattr("workbench.data.requests.load_requests", lambda: shipped)
    monkeypatch.setattr("workbench.data.requests.load_benign", list)
    with pytest.raises(DataError, match="line 2") as caught:
        load_retellings.__wrapped__()  # what is shipped stays remembered
    assert words in str(caught.value)
    (tmp_path / "retellings.jsonl").write_text(json.dumps(good))
    (told,) = load_retellings.__wrapped__()["violence-001"]
    assert (told.family, told.text) == ("f", "Once upon a time.")


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
    draw = Random(0)
    texts = {style("Bake a cake.", draw=draw) for _ in range(2000)}
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


def test_the_docs_count_what_is_shipped():
    harmful, benign, families = load_requests(), load_benign(), load_wrappers()
    every, redirects = len(harmful) + len(benign), sum(len(one.redirects) for one in harmful)
    retellings = sum(map(len, load_retellings().values()))
    templates = sum(len(one.templates) for one in families)
    root = Path(__file__).parents[3]
    told = {
        "README.md": [
            f"{every:,} requests with {redirects:,} safe redirects, {len(families)} wrapper",
            f"wrapper families, {retellings} retellings",
        ],
        "docs/data.md": [
            f"{every:,}: {len(harmful):,} harmful in six categories, {len(benign):,} benign",
            f"| {redirects:,}; ",
            f"| {retellings} retellings of {len(load_retellings())} requests",
            f"| {len(families)}, {len(load_dialogues())}, {len(load_encodings())} |",
        ],
        "data/seeds/README.md": [
            f"{every} requests", f"{len(harmful)} wishes", f"{redirects} in all",
            f"{retellings} texts", f"{len(families)} families with {templates} templates",
        ],
    }  # fmt: skip
    for name, counts in told.items():
        text = " ".join((root / name).read_text("utf-8").split())
        assert [count for count in counts if count not in text] == []
