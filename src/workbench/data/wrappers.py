"""Wrappers: the ways people dress a request up, as a grammar that grows any number of texts.

A text is template × slot fillers × style (opening, closing, punctuation, casing, quotes). Besides
single messages there are dialogues, whose last turn asks, and encodings, which also change letters.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from workbench.core.errors import ConfigError, DataError
from workbench.core.files import read_object, read_table, text_in, texts_in
from workbench.core.identity import seeded, stable_fraction
from workbench.core.settings import seeds_folder

__all__ = [
    "Wrapper", "family_split", "load_dialogues", "load_encodings", "load_wrappers", "put_on",
    "style", "wrap",
]  # fmt: skip

TEST_SHARE = 0.2
"""Share of wrapper families kept for tests."""

# The salt decides which families are tests. Of the salts "family/1", "family/2", ... this is the
# first that gives at least 24 of the shipped families to training, so that a sweep can go to 20
# and beyond, and at least 6 to tests, so that a mean over unseen wrappers means something. It was
# chosen by those counts alone, before any model was trained, and must not change afterwards.
_FAMILY_SALT = "family/1"

_SLOT = re.compile(r"\{(\w+)\}")
_RUNS = {"noise": (8, 30)}
"""Slot → least and most fillers that stand there in a row, as in optimized suffixes."""

_OPENINGS = (
    "Hi. ", "Hello! ",
    "Hey, ", "Good morning. ", "Good evening, ", "Dear assistant, ", "OK, ", "So, ",
    "Quick one: ", "One more thing. ", "Please read this carefully. ", "I have a task for you. ",
    "Listen: ", "Let us begin. ", "New topic. ", "A short one today. ",
)  # fmt: skip
_CLOSINGS = (
    " Thanks.", " Thank you in advance!",
    " Please.", " I am waiting.", " Take your time.", " Go ahead.",
    " Looking forward to it.", " Much appreciated.", " Be brief.", " That is all.", " Over to you.",
    " Cheers.", " Ready when you are.", " Make it good.", " No rush.", " Please and thank you.",
)  # fmt: skip
_QUOTES = (
    '"{}"', "'{}'", "\u201c{}\u201d", "\u2018{}\u2019", "\u00ab{}\u00bb", "[{}]", "<{}>", "`{}`",
)  # fmt: skip
_OFTEN, _SOMETIMES, _SELDOM = 0.5, 0.25, 0.15
_SENTENCE_ENDS = ("! ", "... ", "; ", ".\n", ".\n\n", " - ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrapper:
    """A family of templates that share one trick."""

    family: str
    templates: tuple[str, ...]
    """Texts with ``{request}`` once and any number of ``{slots}``."""
    transform: str = ""
    """Name in ``transforms.TRANSFORMS`` of how the request is written; empty: as it is."""
    is_styled: bool = True
    """Whether English openings, closings and the like may be added around the template."""


def load_wrappers(path: Path | None = None) -> list[Wrapper]:
    """Return the wrapper families shipped, or those of a JSON Lines file, in its order.

    Raises:
        DataError: If a line is broken; the message names the line, the field and the fix.
    """
    return list(_load_wrappers(path or seeds_folder() / "wrappers.jsonl").values())


@cache
def load_dialogues() -> list[Wrapper]:
    """Return the families of several turns, each written out as one text; raises likewise."""
    table = read_table(seeds_folder() / "dialogues.jsonl")
    found = []
    for place, row in zip(table.places, table.rows, strict=True):
        turns = [f"{role.capitalize()}: {text}" for role, text in row["turns"]]
        dialogue = Wrapper(
            family=text_in(row, "family", place=place),
            templates=("\n".join(turns),),
            is_styled=False,
        )
        _check_template(dialogue.templates[0], place=place, slots=_slots())
        found.append(dialogue)
    return found


@cache
def load_encodings() -> list[Wrapper]:
    """Return a family per encoding, ``encoding-base64`` for one; raises likewise."""
    table = read_table(seeds_folder() / "encodings.jsonl")
    return [
        Wrapper(
            family=f"encoding-{row['transform']}",
            templates=texts_in(row, "templates", place=place),
            transform=text_in(row, "transform", place=place),
        )
        for place, row in zip(table.places, table.rows, strict=True)
    ]


def family_split(family: str) -> Literal["train", "test"]:
    """Return the side of a wrapper family; it depends on the name alone.

    Bare text (no family) counts as seen: there is nothing unseen about wearing nothing.
    """
    if family and stable_fraction(_FAMILY_SALT, family) < TEST_SHARE:
        return "test"
    return "train"


def wrap(request: str, *, family: str, seed: int) -> str:
    """Return the request inside a wrapper; the same arguments give the same text.

    The request itself is kept letter by letter, so that it can be found again.

    Raises:
        ConfigError: If there is no such family; the message lists those there are.
    """
    known = _load_wrappers(seeds_folder() / "wrappers.jsonl")
    if family not in known:
        raise ConfigError(f"unknown wrapper family {family!r}; known: {', '.join(sorted(known))}")
    draw = seeded("wrap", family, seed, request)
    return put_on(request, known[family], number=draw.randrange(1 << 20), draw=draw)


def put_on(request: str, wrapper: Wrapper, *, number: int, draw: random.Random) -> str:
    """Return the request in one of the wrapper's templates, its slots and style drawn.

    Args:
        request: As it shall stand in the text.
        wrapper: The family.
        number: Which template; counted around.
        draw: Decides about slots and style.
    """
    before, after = _halves(wrapper.templates[number % len(wrapper.templates)])
    start, end = _fill(before, draw), _fill(after, draw)
    if not wrapper.is_styled:
        return start + request + end
    return _dress(start, request, end, draw=draw)


def style(text: str, *, draw: random.Random) -> str:
    """Return bare text with another opening, closing or casing."""
    return _dress("", text, "", draw=draw)


@cache
def _halves(template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what stands before and after the request: literal text and slot names in turn."""
    before, after = template.split("{request}")
    return tuple(_SLOT.split(before)), tuple(_SLOT.split(after))


def _fill(parts: tuple[str, ...], draw: random.Random) -> str:
    if len(parts) == 1:
        return parts[0]
    return "".join(_filler(part, draw) if place % 2 else part for place, part in enumerate(parts))


def _filler(slot: str, draw: random.Random) -> str:
    fillers = _slots()[slot]
    if slot not in _RUNS:
        return draw.choice(fillers)
    run = range(draw.randint(*_RUNS[slot]))
    return "".join(draw.choice(fillers) + draw.choice(("", " ")) for _ in run).strip()


def _dress(before: str, request: str, after: str, *, draw: random.Random) -> str:
    if draw.random() < _OFTEN:
        before = draw.choice(_OPENINGS) + before
    if draw.random() < _OFTEN:
        after += draw.choice(_CLOSINGS)
    if draw.random() < _SOMETIMES:
        end = draw.choice(_SENTENCE_ENDS)
        before, after = before.replace(". ", end), after.replace(". ", end)
    if draw.random() < _SELDOM:
        before, after = before.lower(), after.lower()
    # Quotes only where none stand there already.
    if before.rstrip() and not before.endswith(("'", '"', "\u201c", "\u00ab", "`", "(", "[", "<")):
        request = draw.choice(("{}", "{}", *_QUOTES)).replace("{}", request)
    return (before + request + after).strip()


def _slots() -> Mapping[str, tuple[str, ...]]:
    return _load_slots(seeds_folder() / "slots.json")


@cache
def _load_slots(path: Path) -> Mapping[str, tuple[str, ...]]:
    slots = read_object(path)
    return {slot: texts_in(slots, slot, place=str(path)) for slot in slots}


@cache
def _load_wrappers(path: Path) -> dict[str, Wrapper]:
    slots = _load_slots(path.with_name("slots.json"))
    table = read_table(path)
    wrappers: dict[str, Wrapper] = {}
    for place, row in zip(table.places, table.rows, strict=True):
        wrapper = Wrapper(
            family=text_in(row, "family", place=place),
            templates=texts_in(row, "templates", place=place),
        )
        for number, template in enumerate(wrapper.templates, start=1):
            _check_template(template, place=f"{place}: template {number}", slots=slots)
        if wrapper.family in wrappers:
            raise DataError(f"{place}: family {wrapper.family!r} occurs twice; rename it")
        wrappers[wrapper.family] = wrapper
    return wrappers


def _check_template(template: str, *, place: str, slots: Mapping[str, Any]) -> None:
    names = _SLOT.findall(template)
    if (times := names.count("request")) != 1:
        raise DataError(f"{place} needs {{request}} once, not {times} times")
    if unknown := set(names) - {"request"} - set(slots):
        raise DataError(f"{place} has slot {min(unknown)!r}; add it to slots.json")
