"""Components meet advisories: what of an inventory of software is known to be vulnerable.

Names are joined first; versions are only looked at where there is an advisory for the package.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from workbench.risk.intake.purls import Purl, bases, component_text, package_name, parse_purl
from workbench.risk.intake.settle import CLOSED, Key, Spoken, key_of, united
from workbench.risk.osv import ECOSYSTEMS, Advisory, Verdict, Version
from workbench.risk.records import STATES, Intake, Occurrence

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["match", "matched"]

_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}$")
_RELEASE = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_CODENAMES: Final = {
    "jessie": "8", "stretch": "9", "buster": "10", "bullseye": "11", "bookworm": "12",
    "trixie": "13", "forky": "14",
}  # fmt: skip
_DISTRIBUTIONS: Final = {
    ("deb", "debian"): "Debian", ("deb", "ubuntu"): "Ubuntu",
    ("apk", "alpine"): "Alpine", ("apk", "wolfi"): "Wolfi", ("apk", "chainguard"): "Chainguard",
}  # fmt: skip
_KINDS: Final = {ecosystem: kind for kind, (ecosystem, _) in ECOSYSTEMS.items()} | {
    ecosystem: kind for (kind, _), ecosystem in _DISTRIBUTIONS.items()
}
_SHOWN: Final = 20
_OPEN_DOUBT: Final = "under_investigation"


class _Package(NamedTuple):
    """What advisories call a component."""

    ecosystem: str
    name: str
    release: str
    """Of the distribution; empty: none, or unknown."""
    version: str


class _Row(NamedTuple):
    """An advisory for one package."""

    subjects: tuple[str, ...]
    id: str
    release: str
    kind: str
    ranges: str
    versions: tuple[str, ...]


def match(
    components: pa.Table, osv: pa.Table, *, asked: frozenset[str] = frozenset()
) -> tuple[list[Occurrence], list[str]]:
    """Return the vulnerabilities of components, and what could not be compared.

    One occurrence per CVE, asset and component. A component of unknown version, or one that
    cannot be understood, is under investigation for every advisory of its package.

    Args:
        components: Columns of :class:`~workbench.risk.records.Component`.
        osv: The table ``osv`` of a snapshot: one row per advisory and package.
        asked: Packages, as ``purls.bases`` names them, that were asked about: silence is an answer.
    """
    rows = _advisories(osv)
    judge = _Judge()
    found: dict[Key, Occurrence] = {}
    columns = [components[name].to_pylist() for name in ("purl", "name", "version", "asset")]
    for purl, name, version, asset, source in zip(
        *columns, components["source"].to_pylist(), strict=True
    ):
        parsed = parse_purl(purl) if purl else None
        package = _package(parsed, version) if parsed else None
        if parsed and not package:
            judge.types[parsed.type] += 1
        elif package and not (advisories := rows.get(package[:2], [])):
            judge.silent += bases(purl)[0] not in asked
        elif package:
            component = component_text(purl, name, version)
            for row, verdict in judge.verdicts(package, advisories, component=component):
                for subject in row.subjects:
                    one = Occurrence(
                        subject=subject, asset=asset, component=component, state=verdict.state,
                        reason=verdict.reason, fixed_in=verdict.fixed_in,
                        source=f"{source}; OSV {row.id}", told_by="advisory",
                    )  # fmt: skip
                    before = found.get(key_of(one))
                    found[key_of(one)] = united(before, one) if before else one
    return list(found.values()), judge.problems


def matched(intake: Intake, osv: pa.Table | None, packages: pa.Table | None = None) -> Intake:
    """Return an intake with the vulnerabilities of its components, one occurrence per risk.

    What VEX closed stays closed, and closes what is found now: in a component, in all its
    versions or on the whole asset, as it was said. An entry for a whole asset gives way to those
    for its components; several versions of a component on an asset are one risk, as open as the
    worst.

    Args:
        intake: As it was read.
        osv: The table ``osv`` of a snapshot, if there is one.
        packages: Its table ``packages``: those that were asked about.
    """
    problems = list(intake.problems)
    new: list[Occurrence] = []
    known = intake.occurrences
    if osv is not None and osv.num_rows:
        known = tuple(_renamed(known, osv))
    if intake.components is not None and intake.components.num_rows:
        if osv is None or not osv.num_rows:
            problems.append(
                f"{intake.components.num_rows:,} components were not compared: the snapshot has no"
                " advisories; run `workbench risk sync` on the file, or give a scanner's report"
            )
        else:
            asked = frozenset(packages["purl"].to_pylist() if packages is not None else ())
            new, doubts = match(intake.components, osv, asked=asked)
            problems += doubts
    return replace(intake, occurrences=_joined(known, new), problems=tuple(problems))


def _joined(known: Iterable[Occurrence], new: Iterable[Occurrence]) -> tuple[Occurrence, ...]:
    found: dict[Key, Occurrence] = {}
    for one in known:
        before = found.get(key_of(one))
        found[key_of(one)] = united(before, one) if before else one
    spoken = Spoken([one for one in found.values() if one.state in CLOSED])
    for one in new:
        before = found.get(key_of(one))
        if before:
            found[key_of(one)] = replace(before, fixed_in=before.fixed_in or one.fixed_in)
        elif told := spoken.of(one):
            said = min(told, key=lambda each: STATES.index(each.state))
            source = f"{one.source}; {said.source}"[:200]
            found[key_of(one)] = replace(one, state=said.state, reason=said.reason, source=source)
        else:
            found[key_of(one)] = one
    return tuple(_one_per_risk(_without_covered(found.values())))


def _without_covered(found: Iterable[Occurrence]) -> Iterator[Occurrence]:
    """Yield all but entries for whole assets that entries for components say as openly."""
    found = list(found)
    most: dict[tuple[str, str], int] = {}
    for one in found:
        if one.component:
            place = (one.subject, one.asset)
            state = STATES.index(one.state)
            most[place] = min(most.get(place, state), state)
    for one in found:
        at = most.get((one.subject, one.asset))
        if one.component or at is None or at > STATES.index(one.state):
            yield one


def _one_per_risk(found: Iterable[Occurrence]) -> Iterator[Occurrence]:
    groups: dict[str, list[Occurrence]] = {}
    for one in found:
        groups.setdefault(one.id, []).append(one)
    for group in groups.values():
        chosen = min(group, key=lambda one: STATES.index(one.state))
        others = [one.component for one in group if one is not chosen and one.state not in CLOSED]
        if others:
            shown = ", ".join(one.rpartition("@")[2] for one in others[:3])
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""  # noqa: PLR2004
            also = f"also found: {shown}{more}"
            chosen = replace(chosen, reason="; ".join(filter(None, (chosen.reason, also))))
        yield chosen


def _renamed(known: Iterable[Occurrence], osv: pa.Table) -> Iterator[Occurrence]:
    """Yield occurrences under their CVE where advisories say which that is."""
    known = list(known)
    wanted = {one.subject for one in known if not one.subject.startswith("CVE-")}
    cves: dict[str, str] = {}
    if wanted:
        for name, aliases in zip(osv["id"].to_pylist(), osv["aliases"].to_pylist(), strict=True):
            subjects = _subjects(name, aliases or ())
            for other in {name, *(aliases or ())} & wanted:
                if subjects[0].startswith("CVE-"):
                    cves.setdefault(other, subjects[0])
    for one in known:
        yield replace(one, subject=cves.get(one.subject, one.subject))


class _Judge:
    """Compares versions with advisories; remembers both, and what it did not understand."""

    def __init__(self) -> None:
        self.types: Counter[str] = Counter()
        self.silent = 0
        self._versions: dict[tuple[str, str], Version | None] = {}
        self._advisories: dict[int, Advisory] = {}
        self._verdicts: dict[tuple[int, str], Verdict | None] = {}
        self._unclear: dict[str, str] = {}

    def verdicts(
        self, package: _Package, rows: Iterable[_Row], *, component: str
    ) -> Iterator[tuple[_Row, Verdict]]:
        """Yield advisories that apply to a package, or may, with what they say."""
        for row in rows:
            if package.release and row.release and package.release != row.release:
                continue
            key = (id(row), package.version)
            if key not in self._verdicts:
                self._verdicts[key] = self._verdict(row, package.version)
            verdict = self._verdicts[key]
            if not verdict:
                continue
            if verdict.state == _OPEN_DOUBT and package.version:
                self._unclear.setdefault(verdict.reason, component)
            if row.release and not package.release:
                verdict = replace(
                    verdict, state=_OPEN_DOUBT, reason="release of the distribution unknown"
                )
            yield row, verdict

    def _verdict(self, row: _Row, text: str) -> Verdict | None:
        if not text:
            return Verdict(_OPEN_DOUBT, "version unknown")
        key = (row.kind, text)
        if key not in self._versions:
            try:
                self._versions[key] = Version(text, kind=row.kind)
            except ValueError:
                self._versions[key] = None
        version = self._versions[key]
        if version is None:
            return Verdict(_OPEN_DOUBT, f"version {text[:60]!r} not understood")
        if id(row) not in self._advisories:
            self._advisories[id(row)] = Advisory(row.ranges, row.versions, kind=row.kind)
        return self._advisories[id(row)].verdict(version)

    @property
    def problems(self) -> list[str]:
        """Return what was not compared, one line each."""
        told = [
            f"{component}: {reason}; taken as possibly affected, look at it"
            for reason, component in list(self._unclear.items())[:_SHOWN]
        ]
        if len(self._unclear) > _SHOWN:
            told.append(f"{len(self._unclear) - _SHOWN:,} more versions were not understood")
        for kind, count in sorted(self.types.items()):
            what = f"{count:,} components of type {kind!r} were not compared"
            told.append(f"{what}: no advisories are kept for it; give a scanner's report")
        if self.silent:
            told.append(
                f"{self.silent:,} components of packages that the snapshot was not asked about and"
                " has no advisory for; `workbench risk sync` on the file asks"
            )
        return told


def _advisories(osv: pa.Table) -> dict[tuple[str, str], list[_Row]]:
    """Return ecosystem and package → advisories."""
    names = ("id", "aliases", "ecosystem", "package", "ranges", "versions")
    rows: dict[tuple[str, str], list[_Row]] = {}
    for name, aliases, place, package, ranges, versions in zip(
        *(osv[one].to_pylist() for one in names), strict=True
    ):
        ecosystem, _, release = place.partition(":")
        kind = _KINDS.get(ecosystem)
        if kind:
            called = package.replace(":", "/") if kind == "maven" else package
            row = _Row(
                subjects=_subjects(name, aliases or ()), id=name, kind=kind, ranges=ranges or "",
                versions=tuple(versions or ()), release=_release(release, ecosystem),
            )  # fmt: skip
            rows.setdefault((ecosystem, package_name(called, kind)), []).append(row)
    return rows


def _subjects(name: str, aliases: Iterable[str]) -> tuple[str, ...]:
    """Return the CVEs that an advisory is about, e.g. of DEBIAN-CVE-2024-1; else its own id."""
    found = [told[0] for one in (name, *aliases) if (told := _CVE.search(one))]
    return tuple(dict.fromkeys(found)) or (name,)


def _package(purl: Purl, version: str) -> _Package | None:
    """Return what advisories call a component, None where there are none for its type."""
    if purl.type not in ECOSYSTEMS:
        return None
    if purl.type not in {"deb", "apk"}:
        return _Package(ECOSYSTEMS[purl.type][0], purl.name, "", version or purl.version)
    space, _, name = purl.name.rpartition("/")
    ecosystem = _DISTRIBUTIONS.get((purl.type, space))
    if not ecosystem:
        return None
    said = _qualifiers(purl.qualifiers)
    # Advisories of distributions are for source packages.
    source, _, of_source = said.get("upstream", "").partition("@")
    version = of_source or version or purl.version
    return _Package(ecosystem, source or name, _release(said.get("distro", ""), ecosystem), version)


def _qualifiers(text: str) -> dict[str, str]:
    pairs = (one.partition("=") for one in text.split("&"))
    return {name.lower(): unquote(value) for name, _, value in pairs}


def _release(text: str, ecosystem: str) -> str:
    """Return the release that advisories are made for: 12 of Debian, 3.19 of Alpine."""
    named = next((number for name, number in _CODENAMES.items() if name in text.lower()), "")
    found = _RELEASE.search(text)
    if named or not found:
        return named
    return found[1] if ecosystem == "Debian" else ".".join(filter(None, found.groups()))
