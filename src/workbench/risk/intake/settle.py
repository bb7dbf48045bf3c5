"""Statements of VEX meet what was found, whatever the order of the files.

Where several speak of the same the most careful one counts, and the contradiction is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote

from workbench.risk.intake.inventory import asset_id
from workbench.risk.intake.purls import bases, covers
from workbench.risk.intake.reading import Reading, Statement
from workbench.risk.records import STATES, Occurrence

__all__ = ["CLOSED", "Key", "Spoken", "key_of", "settle", "united"]

CLOSED = frozenset({"fixed", "not_affected"})

Key = tuple[str, str, str]
"""Subject, asset and component of an occurrence."""

_SOURCE_CHARS = 200


def key_of(one: Occurrence) -> Key:
    """Return subject, asset and component."""
    return one.subject, one.asset, one.component


class Spoken:
    """What was said of vulnerabilities, found by where it holds.

    Args:
        said: Each with the state it gives; without component it speaks of the whole asset.
    """

    def __init__(self, said: Iterable[Occurrence]) -> None:
        self._said: dict[Key, list[Occurrence]] = {}
        for one in said:
            name = bases(one.component)[0] if one.component else ""
            self._said.setdefault((one.subject, one.asset, name), []).append(one)

    def of(self, found: Occurrence) -> list[Occurrence]:
        """Return what holds for an occurrence."""
        told = list(self._said.get((found.subject, found.asset, ""), ()))
        for name in bases(found.component) if found.component else ():
            said = self._said.get((found.subject, found.asset, name), ())
            told += [one for one in said if covers(one.component, found.component)]
        return told


def united(one: Occurrence, other: Occurrence) -> Occurrence:
    """Return one occurrence of two that tell of the same: the more careful, what both know."""
    first, second = sorted((one, other), key=lambda found: STATES.index(found.state))
    sources = dict.fromkeys([*one.source.split("; "), *other.source.split("; ")])
    return replace(
        first,
        reason=first.reason or (second.reason if first.state == second.state else ""),
        fixed_in=first.fixed_in or second.fixed_in,
        source="; ".join(filter(None, sources))[:_SOURCE_CHARS],
    )


def settle(
    readings: Sequence[Reading], *, assets: Mapping[str, str]
) -> tuple[list[Occurrence], list[str]]:
    """Return what was found, in the state that VEX gives it, and contradictions.

    A statement on something that nobody found is kept as an occurrence of its own. So are those
    that close a whole asset, or all versions: components may be matched later.

    Args:
        readings: All files.
        assets: What an asset may be called → its id.
    """
    aliases = {other: cve for one in readings for other, cve in one.aliases.items()}
    places = _Places(readings, assets=assets)
    found: dict[Key, Occurrence] = {}
    said: dict[tuple[Key, str], Occurrence] = {}
    for reading in readings:
        for one in reading.occurrences:
            subject = aliases.get(one.subject, one.subject)
            _keep(found, replace(one, subject=subject, asset=places.asset(one.asset)))
        for statement in reading.statements:
            for one in _occurrences(statement, places.of(statement, reading), aliases):
                if statement.is_vex:
                    said.setdefault((key_of(one), one.state), one)
                else:
                    _keep(found, one)
    settled, problems = _settled(found, said.values())
    return settled, [*places.problems, *problems]


def _keep(found: dict[Key, Occurrence], one: Occurrence) -> None:
    before = found.get(key_of(one))
    found[key_of(one)] = united(before, one) if before else one


def _occurrences(
    said: Statement, targets: Iterable[tuple[str, str]], aliases: Mapping[str, str]
) -> Iterator[Occurrence]:
    subject = aliases.get(said.subject, said.subject)
    for asset, component in targets:
        yield Occurrence(
            subject=subject, asset=asset, component=component, state=said.state,
            reason=said.reason, source=said.source, told_by="vex" if said.is_vex else "scanner",
        )  # fmt: skip


def _settled(
    found: dict[Key, Occurrence], said: Iterable[Occurrence]
) -> tuple[list[Occurrence], list[str]]:
    said = list(said)
    spoken = Spoken(said)
    problems: dict[str, None] = {}
    heard: set[Key] = set()

    def decided(one: Occurrence) -> Occurrence:
        told = spoken.of(one)
        heard.update(map(key_of, told))
        return _decided(one, told, problems)

    settled = [decided(one) for one in found.values()]
    for one in said:
        key = key_of(one)
        if key not in found and (one.state in CLOSED or key not in heard):
            found[key] = one
            settled.append(decided(one))
    return settled, list(problems)


def _decided(one: Occurrence, told: Sequence[Occurrence], problems: dict[str, None]) -> Occurrence:
    if not told:
        return one
    chosen = min(told, key=lambda each: STATES.index(each.state))
    other = max(told, key=lambda each: STATES.index(each.state))
    if chosen.state != other.state:
        problems[
            f"{one.subject} on {one.asset}: {chosen.source} says {chosen.state}, {other.source}"
            f" says {other.state}; the more careful counts, correct one of them"
        ] = None
    sources = dict.fromkeys([*one.source.split("; "), chosen.source])
    source = "; ".join(filter(None, sources))[:_SOURCE_CHARS]
    return replace(one, state=chosen.state, reason=chosen.reason, source=source)


class _Places:
    """Finds what files mean by the products and components that they name."""

    def __init__(self, readings: Sequence[Reading], *, assets: Mapping[str, str]) -> None:
        self._readings = readings
        self._assets = assets
        self._components: dict[str, list[tuple[str, str]]] = {}
        self._unknown: dict[str, dict[str, None]] = {}

    @property
    def problems(self) -> list[str]:
        """Return one line per file that speaks of products that are nowhere else."""
        return [
            f"{file}: speaks of {len(names):,} products that no file has, e.g."
            f" {next(iter(names))[:100]!r}; give their SBOM, or name the asset"
            for file, names in self._unknown.items()
        ]

    def asset(self, name: str) -> str:
        """Return the id of an asset that may be called by its name."""
        return asset_id(name, self._assets)

    def of(self, said: Statement, reading: Reading) -> list[tuple[str, str]]:
        """Return asset and component of everything that a statement speaks of."""
        targets: dict[tuple[str, str], None] = {}
        for product in said.products or ("",):
            for asset, component in self._product(product, said, reading):
                for part in said.parts:
                    targets[asset, self._part(part, asset, reading)] = None
                if not said.parts:
                    targets[asset, component] = None
        return list(targets)

    def _product(self, ref: str, said: Statement, reading: Reading) -> list[tuple[str, str]]:
        own = self.asset(said.asset or reading.asset)
        if not ref or (reading.is_asset_given and ref in {own, reading.asset}):
            return [(own, "")]
        home, ref = self._linked(ref, reading)
        for one in (home, *self._alike(home)):
            if ref in one.roots:
                return [(self.asset(one.asset), "")]
            if ref in one.refs:
                return [(self.asset(one.asset), one.refs[ref])]
        found = self._anywhere(ref)
        if not found:
            self._unknown.setdefault(reading.file, {})[ref] = None
            is_own = reading.is_asset_given or not said.parts
            return [(own, ref)] if is_own else [(ref, "")]
        if reading.is_asset_given:
            return [one for one in found if one[0] == own] or [(own, ref)]
        return found

    def _linked(self, ref: str, reading: Reading) -> tuple[Reading, str]:
        """Return the file and the reference in it that a link between BOMs means."""
        if not ref.startswith("urn:cdx:"):
            return reading, ref
        serial, _, rest = ref.removeprefix("urn:cdx:").partition("/")
        named = f"urn:uuid:{serial}"
        home = next((one for one in self._readings if one.serial == named), reading)
        return home, unquote(rest.partition("#")[2]) or ref

    def _alike(self, home: Reading) -> Iterator[Reading]:
        """Yield other files on the same asset: a short reference means nothing elsewhere."""
        asset = self.asset(home.asset)
        for one in self._readings:
            if one is not home and self.asset(one.asset) == asset:
                yield one

    def _anywhere(self, ref: str) -> list[tuple[str, str]]:
        """Return assets that are called so, or all components that are."""
        for one in self._readings:
            purls = (root for root in one.roots if root.startswith("pkg:"))
            if ref in one.roots or any(covers(ref, root) for root in purls):
                return [(self.asset(one.asset), "")]
        known = self._assets.get(ref) or self._assets.get(ref.casefold())
        if known:
            return [(known, "")]
        if not self._components:
            for place in dict.fromkeys(self._known()):
                for name in bases(place[1]):
                    self._components.setdefault(name, []).append(place)
        return [one for one in self._components.get(bases(ref)[0], ()) if covers(ref, one[1])]

    def _known(self) -> Iterator[tuple[str, str]]:
        """Yield asset and component of all that files list, or found something in."""
        for reading in self._readings:
            asset = self.asset(reading.asset)
            yield from ((asset, component) for component in reading.components)
            for one in reading.occurrences:
                if one.component:
                    yield self.asset(one.asset), one.component

    def _part(self, ref: str, asset: str, reading: Reading) -> str:
        """Return the component of an asset that is called so."""
        home, ref = self._linked(ref, reading)
        for one in (home, *self._readings):
            if ref in one.refs and self.asset(one.asset) == asset:
                return one.refs[ref]
        return ref
