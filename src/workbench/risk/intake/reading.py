"""What is gathered from one file; texts of strangers are cut and cleaned on their way in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.plain import one_line
from workbench.risk.intake.purls import component_text, parse_purl, with_version
from workbench.risk.records import Asset, Occurrence, State

__all__ = ["Reading", "Statement", "advisory_of", "cve_of", "mapping", "text_of"]

_NAME_CHARS = 200
_REASON_CHARS = 300
_PURL_CHARS = 500
_MOST_PROBLEMS = 100
"""Kinds of them told per file."""
_SHOWN_PLACES = 5
_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}")
_GAPS = re.compile(r"[\s\u2010-\u2015\u2212\ufe58\ufe63\uff0d-]+")
"""Blanks, hyphens and the dashes that editors put in their place."""
_ADVISORY = re.compile(r"(?:open)?[A-Z][A-Z0-9]{1,15}(?:[-:._][A-Za-z0-9]{1,30}){1,6}")
"""As OSV's sources and distributions number theirs: GHSA-…, PYSEC-2021-1, RHSA-2021:5."""
_ID_CHARS = 64


def cve_of(value: Any) -> str:
    """Return a CVE id, repaired in case, blanks and dashes only; empty where it is none."""
    if not isinstance(value, str) or len(value) > _ID_CHARS:
        return ""
    repaired = _GAPS.sub("-", value.strip()).upper()
    return repaired if _CVE.fullmatch(repaired) else ""


def advisory_of(value: Any) -> str:
    """Return the id of a CVE or of an advisory such as GHSA's; empty where it is neither."""
    found = cve_of(value)
    if found or not isinstance(value, str) or len(value) > _ID_CHARS:
        return found
    text = value.strip()
    is_other = _ADVISORY.fullmatch(text) and not text.startswith("CVE")
    return text if is_other else ""


def text_of(value: Any, limit: int = _NAME_CHARS) -> str:
    """Return a text as one clean line of bounded length; empty where it is no text."""
    if type(value) is not str:
        return ""
    if len(value) <= limit and value.isprintable():
        return value.strip()
    return one_line(value[:limit])


def mapping(value: Any) -> dict[str, Any]:
    """Return an object of a JSON document, empty where it is something else."""
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a file says of a vulnerability in products that it names in its own way."""

    subject: str
    state: State
    reason: str = ""
    asset: str = ""
    """Empty: that of the file, or those that have the products."""
    products: tuple[str, ...] = ()
    """Their bom-refs, package URLs, ids or names; empty: the whole asset."""
    parts: tuple[str, ...] = ()
    """Components of these products that are meant; empty: the products themselves."""
    is_vex: bool = True
    """Whether somebody looked; else a tool found it."""
    source: str


class Reading:
    """One file while it is read.

    Args:
        path: Of the file.
        asset: What everything in it is on; empty: as the file says, or its name.
    """

    def __init__(self, path: Path, *, asset: str = "") -> None:
        self.file = path.name
        self.format = ""
        self.is_asset_given = bool(asset)
        self.asset = asset or text_of(path.name.removesuffix(".gz").partition(".")[0]) or "unnamed"
        self.occurrences: list[Occurrence] = []
        self.statements: list[Statement] = []
        self.assets: dict[str, Asset] = {}
        self.aliases: dict[str, str] = {}
        """Other ids → CVE."""
        self.serial = ""
        self.roots: set[str] = set()
        """What the file calls the asset itself."""
        self.refs: dict[str, str] = {}
        """What the file calls its components → component."""
        self.components: dict[str, tuple[str, str, str]] = {}
        """Component → package URL, name and version."""
        self._seen = 0
        self._notes: dict[str, tuple[int, list[str]]] = {}
        self._untold = 0

    @property
    def source(self) -> str:
        """Return the file and its format."""
        return f"{self.file} ({self.format})"

    def on(self, name: Any) -> None:
        """Take the asset that the file names, where the caller named none."""
        if not self.is_asset_given and (found := text_of(name)):
            self.asset = found

    def note(self, what: str, *, place: str) -> None:
        """Remember what was left out, or is in doubt, and where; alike problems become one."""
        if what not in self._notes and len(self._notes) >= _MOST_PROBLEMS:
            self._untold += 1
            return
        count, places = self._notes.setdefault(what, (0, []))
        if len(places) < _SHOWN_PLACES:
            places.append(place)
        self._notes[what] = (count + 1, places)

    @property
    def problems(self) -> list[str]:
        """Return one line per kind of problem: file, places, what, and what to do."""
        told = []
        for what, (count, places) in self._notes.items():
            more = f" and {count - len(places):,} more" if count > len(places) else ""
            told.append(f"{self.file}: {', '.join(places)}{more}: {what}")
        if self._untold:
            told.append(f"{self.file}: {self._untold:,} more problems; correct these first")
        return told

    def objects(self, value: Any, *, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield place and object of each in a list; whatever is something else is noted."""
        if value is None:
            return
        if not isinstance(value, list):
            self.note(f"is {type(value).__name__}, not a list; left out", place=place)
            return
        for number, one in enumerate(value):
            if isinstance(one, dict):
                yield f"{place}[{number}]", one
            else:
                what = f"is {type(one).__name__}, not an object; left out"
                self.note(what, place=f"{place}[{number}]")

    def subjects(self, value: Any, others: Iterable[Any] = (), *, place: str) -> list[str]:
        """Return the CVE that is meant, or those of the others that are; else the id itself.

        What is no id at all is noted.
        """
        first = advisory_of(value)
        if first.startswith("CVE-"):
            for other in filter(None, map(advisory_of, others)):
                if not other.startswith("CVE-"):
                    self.aliases.setdefault(other, first)
            return [first]
        cves = list(dict.fromkeys(filter(None, map(cve_of, others))))
        if len(cves) == 1 and first:
            self.aliases.setdefault(first, cves[0])
        if not cves and not first:
            shown = repr(value[:_ID_CHARS] if isinstance(value, str) else value)[: _ID_CHARS + 2]
            what = f"{shown} is no CVE id; left out, write it as CVE-YYYY-NNNN"
            self.note(what, place=place)
            return []
        return cves or [first]

    def add_component(self, *, purl: Any, name: Any, version: Any, refs: Iterable[Any] = ()) -> str:
        """Keep a component and return what it is called; empty where it has no name at all.

        Args:
            purl: Its package URL, with or without version, if any.
            name: Its name.
            version: Of it, if any.
            refs: What else the file calls it.
        """
        self._seen += 1
        purl, name, version = text_of(purl, _PURL_CHARS), text_of(name), text_of(version)
        parsed = parse_purl(purl) if purl else None
        if parsed:
            name = name or parsed.name
            if not version:
                version = parsed.version
            elif not parsed.version:
                purl = with_version(purl, version)
        elif purl:
            self._note_component("package URL not understood; correct it", name)
            purl = ""
        if not name:
            self._note_component("has no name; left out", name)
            return ""
        if not version:
            self._note_component("has no version; any advisory for it counts as possible", name)
        if not purl:
            self._note_component("has no package URL; no advisory can be found for it", name)
        component = component_text(purl, name, version)
        self.components.setdefault(component, (purl, name, version))
        for ref in refs:
            if type(ref) is str and self.refs.setdefault(ref, component) != component:
                self._note_component("has the reference of another; the first one keeps it", name)
        return component

    def _note_component(self, what: str, name: str) -> None:
        self.note(what, place=f"component {self._seen} {name[:60]!r}")

    def add_occurrence(
        self, subject: str, *, asset: str = "", component: str = "", fixed_in: Any = "",
        state: State = "affected", reason: str = "",
    ) -> None:  # fmt: skip
        """Keep a vulnerability that a person or a tool found."""
        self.occurrences.append(
            Occurrence(
                subject=subject, asset=asset or self.asset, component=component, state=state,
                reason=reason, fixed_in=text_of(fixed_in), source=self.source,
            )
        )  # fmt: skip

    def add_statement(
        self, subject: str, *, state: State, why: Iterable[Any] = (), asset: str = "",
        products: Iterable[Any] = (), parts: Iterable[Any] = (), is_vex: bool = True,
    ) -> None:  # fmt: skip
        """Keep what is said of a vulnerability; ``why`` is joined by colons and cut.

        Where none of the products, or parts, can be read nothing is kept: it would speak of all.
        """
        named = []
        for given in (list(products), list(parts)):
            kept = tuple(text for one in given if (text := text_of(one, _PURL_CHARS)))
            if given and not kept:
                self.note("names nothing that it speaks of; left out", place=subject)
                return
            named.append(kept)
        told = [text for one in why if (text := text_of(one, _REASON_CHARS))]
        self.statements.append(
            Statement(
                subject=subject, state=state, reason=": ".join(told)[:_REASON_CHARS], asset=asset,
                products=named[0], parts=named[1], is_vex=is_vex, source=self.source,
            )
        )  # fmt: skip
