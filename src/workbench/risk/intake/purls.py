"""Package URLs and other names of components, taken apart fast: files hold 100,000 of them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

__all__ = [
    "Purl",
    "bases",
    "component_text",
    "covers",
    "package_name",
    "parse_purl",
    "with_version",
]

_FOLDED = frozenset(
    {"apk", "bitbucket", "composer", "deb", "github", "golang", "hex", "nuget", "pypi"}
)
"""Types whose names are the same in any case."""


class Purl(NamedTuple):
    """A package URL, decoded."""

    type: str
    name: str
    """With its namespace, e.g. ``@scope/name``; as the type compares it."""
    version: str
    qualifiers: str


def parse_purl(text: str) -> Purl | None:
    """Return the parts of a package URL, or None where the text is none.

    Source:
        https://github.com/package-url/purl-spec, "How to parse a purl string in its components".
    """
    if text[:4].lower() != "pkg:":
        return None
    path, _, qualifiers = text[4:].partition("#")[0].partition("?")
    head, at, version = path.rpartition("@")
    if not at or "/" in version:  # the @ of an npm scope that was not encoded
        head, version = path, ""
    kind, _, name = head.strip("/").partition("/")
    if "%" in path:
        name, version = unquote(name), unquote(version)
    name = name.strip("/")
    if not kind or not name:
        return None
    kind = kind.lower()
    return Purl(kind, package_name(name, kind), version, qualifiers)


def package_name(name: str, kind: str) -> str:
    """Return a name as its type of package URL compares it."""
    if kind in _FOLDED:
        name = name.lower()
    return re.sub(r"[-_.]+", "-", name) if kind == "pypi" else name


def with_version(purl: str, version: str) -> str:
    """Return a package URL that has none with a version."""
    end = min((at for at in map(purl.find, "?#") if at >= 0), default=len(purl))
    return f"{purl[:end]}@{quote(version, safe=':+~.-_')}{purl[end:]}"


def component_text(purl: str, name: str, version: str) -> str:
    """Return what a component is called in risks: its package URL, else name and version."""
    return purl or f"{name} {version}".rstrip()


@lru_cache(maxsize=1 << 16)
def bases(component: str) -> tuple[str, ...]:
    """Return what a component may be called without its version, the likeliest first."""
    purl = parse_purl(component)
    if purl:
        return (f"{purl.type}/{purl.name}",)
    name, _, version = component.rpartition(" ")
    is_version = any(map(str.isdigit, version))  # "Apache Tomcat" has none
    return (component, name) if name and is_version else (component,)


def covers(said: str, found: str) -> bool:
    """Return whether a component that was said is the one found.

    What was said without version holds for all; qualifiers that it has, the one found must have.
    """
    if said == found:
        return True
    one, other = parse_purl(said), parse_purl(found)
    if one and other:
        same = one[:2] == other[:2]
        same = same and (not one.version or one.version == other.version)
        return same and _named(one.qualifiers) <= _named(other.qualifiers)
    return not one and not other and said in bases(found)


def _named(qualifiers: str) -> set[str]:
    """Return qualifiers without the type that a package of Maven has anyway."""
    return {*map(unquote, qualifiers.split("&"))} - {"", "type=jar"}
