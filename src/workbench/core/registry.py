"""Plugins by decorator, and by entry point for other people's packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from workbench.core.errors import ConfigError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind, e.g. strategies.

    Packages outside add theirs through the entry-point group ``workbench.<kind>``; it is read
    once, at the first look-up of a name.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}
        self._entry_points_read = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its object under ``name``.

        Raises:
            ConfigError: If the name is taken.
        """

        def file_under_name(item: T) -> T:
            if name in self._items:
                raise ConfigError(f"{self.kind} {name!r} is registered twice; rename one of them")
            self._items[name] = item
            return item

        return file_under_name

    def get(self, name: str) -> T:
        """Return the thing of that name.

        Raises:
            ConfigError: If there is none; the message lists those there are.
        """
        self._read_entry_points()
        try:
            return self._items[name]
        except KeyError:
            known = ", ".join(sorted(self._items))
            raise ConfigError(f"unknown {self.kind} {name!r}; known: {known}") from None

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._read_entry_points()
        return sorted(self._items)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, thing), sorted by name."""
        return ((name, self._items[name]) for name in self.names())

    def _read_entry_points(self) -> None:
        if self._entry_points_read:
            return
        self._entry_points_read = True
        for point in entry_points(group=f"workbench.{self.kind}"):
            if point.name not in self._items:
                self._items[point.name] = point.load()
