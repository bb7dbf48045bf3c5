"""Plugins are found by name, of this package and of others'."""

from __future__ import annotations

import pytest

from workbench.core import registry as module
from workbench.core.errors import ConfigError
from workbench.core.registry import Registry


class Point:
    """Stands for an entry point of another package."""

    loads = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> str:
        Point.loads += 1
        return f"{self.name} from outside"


@pytest.fixture
def points(monkeypatch):
    asked = []
    Point.loads = 0

    def entry_points(*, group: str):
        asked.append(group)
        return [Point("theirs"), Point("ours")]

    monkeypatch.setattr(module, "entry_points", entry_points)
    return asked


def test_names_are_sorted_and_the_decorator_gives_back_its_object(points):
    registry: Registry[object] = Registry("fruit")

    @registry.register("pear")
    def pear() -> None: ...

    registry.register("apple")("an apple")
    assert registry.get("pear") is pear
    assert registry.names() == ["apple", "ours", "pear", "theirs"]
    assert [name for name, _ in registry] == registry.names()


def test_other_packages_are_read_once_at_the_first_look_up_and_never_replace_ours(points):
    registry: Registry[str] = Registry("fruit")
    registry.register("ours")("from here")
    assert points == []
    assert registry.get("ours") == "from here"
    assert registry.get("theirs") == "theirs from outside"
    registry.names()
    assert points == ["workbench.fruit"]
    assert Point.loads == 1


def test_a_name_taken_twice_is_refused():
    registry: Registry[int] = Registry("fruit")
    registry.register("pear")(1)
    with pytest.raises(ConfigError, match="fruit 'pear' is registered twice"):
        registry.register("pear")(2)
    assert registry.get("pear") == 1


def test_an_unknown_name_lists_the_known_ones(points):
    registry: Registry[int] = Registry("fruit")
    registry.register("pear")(1)
    with pytest.raises(ConfigError, match=r"unknown fruit 'paer'; known: ours, pear, theirs"):
        registry.get("paer")
