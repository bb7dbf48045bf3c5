"""What every registered source promises."""

import json
from itertools import islice

import pytest

from workbench.core.errors import ConfigError
from workbench.data.clean import clean_pair
from workbench.data.pairs import RELATIONS
from workbench.data.sources import SOURCES, open_source

LOCAL = {
    "adapter": "local", "path": "rows.jsonl", "columns": {"clean": "q"}, "relation": "dewrap",
    "templates": {"path": "templates.jsonl", "column": "t", "placeholder": "[X]"},
}  # fmt: skip
SPECS = {"seeds": "seeds", "local": LOCAL}


@pytest.fixture
def folder(tmp_path):
    rows = [{"q": f"How many legs do {n} cats have?"} for n in range(5)]
    templates = [{"t": f"{'long way round ' * n} now say [X]"} for n in range(1, 4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "templates.jsonl").write_text("\n".join(map(json.dumps, templates)))
    return tmp_path


def test_every_source_is_tried_here():
    assert set(SPECS) == set(SOURCES.names())


@pytest.mark.parametrize("name", sorted(SPECS))
def test_pairs_are_whole_and_depend_on_the_seed_alone(name, folder):
    source = open_source(SPECS[name], folder=folder)
    assert source.name
    assert source.revision
    assert source.license
    pairs = list(islice(source.grow(seed=3), 300))
    again = list(islice(open_source(SPECS[name], folder=folder).grow(seed=3), 300))
    assert pairs == again
    assert pairs != list(islice(source.grow(seed=4), 300))
    assert pairs[:7] == list(islice(source.grow(seed=3), 7))
    for pair in pairs:
        assert clean_pair(pair) == (pair, "")
        assert pair.relation in RELATIONS
        assert pair.source == source.name
        assert pair.license == source.license
        assert pair.category
        assert pair.core


@pytest.mark.parametrize("name", sorted(SPECS))
def test_unknown_options_are_refused(name, folder):
    spec = SPECS[name] if isinstance(SPECS[name], dict) else {"adapter": name}
    with pytest.raises(ConfigError, match=r"unknown (option|field) 'colour'"):
        open_source({**spec, "colour": 1}, folder=folder)


def test_unknown_adapter(tmp_path):
    with pytest.raises(ConfigError, match="unknown source 'hub'; known: local, seeds"):
        open_source("hub", folder=tmp_path)
    with pytest.raises(ConfigError, match="neither a name nor a mapping"):
        open_source(3, folder=tmp_path)
