"""Target profiles: what is known of an application, in Markdown, before it is attacked.

The text is hostile like any other: redacted when read, never a template, fenced in prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from workbench.core.errors import DataError, StoreError
from workbench.core.identity import text_id
from workbench.core.plain import storable
from workbench.core.redact import redact
from workbench.core.settings import seeds_folder
from workbench.store.artifacts import write_atomic
from workbench.store.database import Store

__all__ = [
    "CANARY_KINDS", "MAX_BYTES", "Profile", "Tool", "load", "parse_profile", "profile_template",
    "read_profile", "save",
]  # fmt: skip

MAX_BYTES: Final = 200_000
"""Largest profile; longer ones would not fit a prompt anyway."""
CANARY_KINDS: Final = ("prompt", "secret", "pii")
"""What a planted word betrays: the instructions, a credential, another customer's data."""

_FILE = "profile.md"
_HEADING = re.compile(r"(#{1,6})[ \t]+([^\n]{1,200})")
_FENCE = re.compile(r"[ \t]{0,8}(`{3,}(?=[^`]*$)|~{3,})(.*)")
_ITEM = re.compile(r"[ \t]{0,8}[-*+][ \t]+(\S[^\n]*)")
_TOOL = re.compile(r"`?([A-Za-z_][A-Za-z0-9_.-]{0,63})(?:\([^()]{0,200}\))?`?[ \t]*(?::|$)(.*)")
_CANARY = re.compile(r"(?:([a-z]+)[ \t]*:[ \t]*)?`?([A-Za-z0-9_-]{6,80})`?")
_SECTIONS = (
    "purpose", "architecture", "tools", "policies", "people", "system prompt", "canaries",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tool:
    """Something that the application can do."""

    name: str
    about: str


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is known of an application."""

    text: str
    """All of its Markdown, redacted."""
    purpose: str
    architecture: str = ""
    tools: tuple[Tool, ...] = ()
    policies: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    """Names of test persons whose data the application holds."""
    system_prompt: str = ""
    """Its instructions, where they are known; empty otherwise."""
    canaries: Mapping[str, str] = field(default_factory=dict)
    """One of :data:`CANARY_KINDS` → word planted in the application."""

    @property
    def id(self) -> str:
        """Hex sha256 of its text."""
        return text_id("profile", self.text)

    @property
    def canary(self) -> str:
        """Word planted in the instructions, or an empty string."""
        return self.canaries.get("prompt", "")


def profile_template() -> str:
    """Return a profile to fill in: a small example with every section that must be there."""
    return (seeds_folder() / "attacks" / _FILE).read_text(encoding="utf-8")


def read_profile(path: Path) -> Profile:
    """Return the profile in a Markdown file.

    Raises:
        DataError: If the file is missing, larger than :data:`MAX_BYTES`, not UTF-8, or no profile.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: is larger than {MAX_BYTES:,} bytes; shorten the profile")
    try:
        return parse_profile(data.decode("utf-8-sig"), where=str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from None


def parse_profile(text: str, *, where: str = "profile") -> Profile:
    """Return the profile that a Markdown text describes; secrets in it are hidden.

    Raises:
        DataError: If the section ``Purpose`` is missing, ``System prompt`` is empty, or a tool or
            canary has no valid name.
    """
    text = redact(storable("\n".join(text.splitlines()))).strip()
    found = _sections(text)
    if not found.get("purpose"):
        raise DataError(f"{where}: no text under a heading '# Purpose'; write what the target does")
    instructions = _unfenced(found.get("system prompt", ""))
    if "system prompt" in found and not instructions:
        raise DataError(
            f"{where}: no text under 'System prompt'; put one with headings into a fenced block"
        )
    return Profile(
        text=text,
        purpose=found["purpose"],
        architecture=found.get("architecture", ""),
        tools=tuple(_tool(item, where=where) for item in _items(found.get("tools", ""))),
        policies=_items(found.get("policies", "")),
        people=_items(found.get("people", "")),
        system_prompt=instructions,
        canaries=dict(_canary(item, where=where) for item in _items(found.get("canaries", ""))),
    )


def save(store: Store, profile: Profile) -> str:
    """Return the id of a profile, written to the store once.

    Raises:
        StoreError: If the disk is full or read-only.
    """
    if not store.artifacts.exists("profile", profile.id):
        facts = {"purpose": profile.purpose[:200], "tools": [tool.name for tool in profile.tools]}
        with store.artifacts.create("profile", profile.id, facts) as folder:
            write_atomic(folder / _FILE, profile.text.encode())
    return profile.id


def load(store: Store, profile_id: str) -> Profile:
    """Return a profile of the store by its id, or by enough of its beginning.

    Raises:
        DataError: If there is none, or more than one.
        StoreError: If its file is damaged.
    """
    found = store.artifacts.resolve("profile", profile_id)
    path = store.artifacts.path("profile", found) / _FILE
    try:
        text = path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: damaged ({error}); save the profile again") from error
    if text_id("profile", text) != found:
        raise StoreError(f"{path}: content no longer matches its id; save the profile again")
    return parse_profile(text, where=str(path))


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each line, and whether it belongs to a fenced code block; the fences do."""
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.fullmatch(line)
        if not fence:
            fence = mark[1] if mark else ""
            yield line, bool(fence)
            continue
        yield line, True
        if mark and mark[1].startswith(fence) and not mark[2].strip():
            fence = ""


def _sections(text: str) -> dict[str, str]:
    """Return the known sections; a ``#`` inside a fenced code block is no heading.

    A system prompt goes on past headings of a lower level: they are its own.
    """
    found: dict[str, list[str]] = {}
    current, level = "", 0
    for line, in_code in _lines(text):
        heading = None if in_code else _HEADING.fullmatch(line.rstrip())
        if heading and not (current == "system prompt" and len(heading[1]) > level):
            title, level = heading[2].strip(" #").lower(), len(heading[1])
            current = next((name for name in _SECTIONS if title.startswith(name)), "")
            found.setdefault(current, [])
        else:
            found.setdefault(current, []).append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def _unfenced(section: str) -> str:
    """Return what stands in a section that is one fenced code block; any other as it is."""
    lines = list(_lines(section))
    if not all(in_code for _, in_code in lines):
        return section
    is_closed = _FENCE.fullmatch(lines[-1][0])
    return "\n".join(line for line, _ in (lines[1:-1] if is_closed else lines[1:])).strip()


def _items(section: str) -> tuple[str, ...]:
    """Return the items of a list, lines that go on included, fenced code left out."""
    items: list[str] = []
    for line, in_code in _lines(section):
        if in_code:
            continue
        if match := _ITEM.fullmatch(line):
            items.append(match[1].strip())
        elif items and line[:1].isspace() and line.strip():
            items[-1] += " " + line.strip()
    return tuple(items)


def _tool(item: str, *, where: str) -> Tool:
    match = _TOOL.fullmatch(item)
    if not match:
        raise DataError(f"{where}: tool {item[:60]!r} has no name; write '- name: what it does'")
    return Tool(name=match[1], about=match[2].strip())


def _canary(item: str, *, where: str) -> tuple[str, str]:
    match = _CANARY.fullmatch(item)
    kind = (match[1] or "prompt") if match else ""
    if not match or kind not in CANARY_KINDS:
        kinds = ", ".join(CANARY_KINDS)
        raise DataError(
            f"{where}: canary {item[:60]!r} is not usable; write '- kind: word' with one of "
            f"{kinds} and a word of 6 to 80 letters, digits and hyphens"
        )
    return kind, match[2]
