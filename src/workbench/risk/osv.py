"""Whether a version is affected, as an OSV record says it: versions, and ranges of them.

Source:
    OSV schema 1.7, "Evaluation": https://ossf.github.io/osv-schema/#evaluation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from workbench.risk.records import State

__all__ = ["ECOSYSTEMS", "Advisory", "Verdict", "Version"]

ECOSYSTEMS: Final = {
    "npm": ("npm", "SemverVersion"),
    "pypi": ("PyPI", "PypiVersion"),
    "composer": ("Packagist", "ComposerVersion"),
    "maven": ("Maven", "MavenVersion"),
    "golang": ("Go", "GolangVersion"),
    "cargo": ("crates.io", "SemverVersion"),
    "gem": ("RubyGems", "RubygemsVersion"),
    "nuget": ("NuGet", "NugetVersion"),
    "hex": ("Hex", "SemverVersion"),
    "pub": ("Pub", "SemverVersion"),
    "deb": ("Debian", "DebianVersion"),
    "apk": ("Alpine", "AlpineLinuxVersion"),
}
"""Type of package URL → ecosystem of OSV and class of ``univers`` that orders its versions."""

_BUILDS: Final = frozenset({"npm", "pypi", "composer", "golang", "cargo", "nuget", "hex", "pub"})
"""Types where what follows + is the build: the same version."""
_STRICT: Final = frozenset({"deb", "apk"})
"""Types where 1.0 is not 1.0.0."""
_EVENTS: Final = frozenset({"introduced", "fixed", "last_affected"})
_NUMBERS = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18}){0,15}")
_ZEROS = re.compile(r"(?:\.0){1,15}$")
_MOST_CHARS: Final = 200
_MALFORMED: Final = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What reading ranges raises where they are of another form."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an advisory says of one version."""

    state: State
    reason: str = ""
    fixed_in: str = ""


class Version:
    """A version that compares as its ecosystem orders it.

    Numbers between points are compared as such, which is fast; ``univers`` compares the rest.

    Raises:
        ValueError: If it is none.
    """

    __slots__ = ("_kind", "_numbers", "_parsed", "name", "text")

    def __init__(self, text: str, *, kind: str) -> None:
        plain = _plain(text, kind)
        if not plain or len(plain) > _MOST_CHARS:
            raise ValueError(f"{text[:40]!r} is no version")
        self.text = plain
        self.name = _name(plain, kind)
        self._kind = kind
        self._parsed: Any = None
        self._numbers: tuple[int, ...] | None = None
        if kind not in _STRICT and _NUMBERS.fullmatch(plain):
            self._numbers = tuple(map(int, self.name.split(".")))
        else:
            self._parse()

    def _parse(self) -> Any:
        if self._parsed is None:
            from univers import versions

            try:
                self._parsed = getattr(versions, ECOSYSTEMS[self._kind][1])(self.text)
            except Exception as error:  # each class of the library has errors of its own
                raise ValueError(f"{self.text[:40]!r} is no version") from error
        return self._parsed

    def __lt__(self, other: Version) -> bool:
        if self._numbers is not None and other._numbers is not None:
            return self._numbers < other._numbers
        try:
            # Only this of its comparisons is right for every class: Alpine's >= compares texts.
            return bool(self._parse() < other._parse())
        except Exception as error:  # as above
            raise ValueError(f"{self.text[:40]!r} cannot be compared") from error


class Advisory:
    """What one record says of one package.

    Args:
        ranges: JSON text of ``affected[].ranges``.
        versions: ``affected[].versions``.
        kind: Type of package URL, a key of :data:`ECOSYSTEMS`.
    """

    def __init__(self, ranges: str, versions: Iterable[str], *, kind: str) -> None:
        self._versions = {_name(_plain(one, kind), kind) for one in versions}
        self._ranges: list[_Range] = []
        self._doubt = ""
        try:
            listed = json.loads(ranges or "[]")
            told = [one for one in listed if one["type"] != "GIT"]
            self._ranges = [_Range(one["events"], kind=kind) for one in told]
        except _MALFORMED:
            self._doubt = "ranges of the advisory not understood"
        else:
            if not told and not self._versions:
                self._doubt = "the advisory names commits only" if listed else "no versions named"

    def verdict(self, version: Version) -> Verdict | None:
        """Return what it says of a version, None where that is not affected."""
        try:
            within = [one for one in self._ranges if one.holds(version)]
            if within or version.name in self._versions:
                fixes = sorted(fix for one in within for fix in one.fixes if version < fix)
                return Verdict("affected", fixed_in=fixes[0].text if fixes else "")
        except ValueError:
            return Verdict("under_investigation", f"version {version.text[:60]!r} not understood")
        return Verdict("under_investigation", self._doubt) if self._doubt else None


class _Range:
    """From where to where a package is affected."""

    def __init__(self, events: Any, *, kind: str) -> None:
        pairs = [(what, text) for event in events for what, text in event.items()]
        points = [(_point(text, kind=kind), what) for what, text in pairs if what in _EVENTS]
        if "introduced" not in {what for _, what in points}:
            raise ValueError("a range begins nowhere")
        points.sort(key=lambda one: one[1] == "last_affected")  # may be the version introduced
        self._events = sorted(points, key=lambda one: (one[0] is not None, one[0]))
        limits = [text for what, text in pairs if what == "limit"]
        self._limits = [] if "*" in limits else [Version(one, kind=kind) for one in limits]
        self.fixes = [point for point, what in points if what == "fixed" and point is not None]

    def holds(self, version: Version) -> bool:
        """Return whether a version is affected."""
        if self._limits and not any(version < limit for limit in self._limits):
            return False
        is_affected = False
        for point, what in self._events:
            if what == "last_affected":
                is_affected = is_affected and point is not None and not point < version
            elif point is None or not version < point:
                is_affected = what == "introduced"
        return is_affected


def _point(text: Any, *, kind: str) -> Version | None:
    """Return the version of an event; None for the ``0`` that is before all."""
    return None if text == "0" else Version(text, kind=kind)


def _plain(text: str, kind: str) -> str:
    """Return a version as it is compared: without a leading v, or go, and without its build."""
    plain = text.strip().removeprefix("go" * (kind == "golang")).lstrip("vV")
    return plain.partition("+")[0] if kind in _BUILDS else plain


def _name(plain: str, kind: str) -> str:
    """Return the shortest spelling of a version: 1.0 and 1.0.0 are the same in most types."""
    if kind in _STRICT or not _NUMBERS.fullmatch(plain):
        return plain
    return _ZEROS.sub("", ".".join(str(int(one)) for one in plain.split(".")))
