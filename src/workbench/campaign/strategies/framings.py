"""Framings: known ways to put a request so that a model forgets to refuse, in our own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from random import Random
from typing import Any, Final

from workbench.campaign.strategies.base import Strategy
from workbench.campaign.strategies.past_tense import past_tense
from workbench.core.files import read_table, text_in, texts_in
from workbench.core.identity import seeded
from workbench.core.settings import seeds_folder
from workbench.data.requests import LANGUAGES, load_benign, load_requests, load_translation

__all__ = ["SHOTS", "framings", "many_shot", "translation"]

SHOTS: Final = (8, 16, 32, 64)
"""How many dialogues may go before the request of ``many_shot``."""

_TAXONOMY = ("AML.T0051", "AML.T0054")
_SLOT = "{request}"


def framings() -> list[Strategy]:
    """Return the framings; reads the shipped templates.

    Raises:
        DataError: If a line of them is broken.
    """
    told = [
        Strategy(
            name=text_in(row, "name", place=place),
            kind="framing",
            taxonomy=_TAXONOMY,
            description=text_in(row, "description", place=place),
            disguise=partial(
                _framed, name=row["name"], templates=texts_in(row, "templates", place=place)
            ),
        )
        for row, place in _rows("templates")
    ]
    written = {
        "many_shot": ("Many harmless dialogues, in which all is answered, go before.", many_shot),
        "past_tense": ("The request is put as a question about the past.", past_tense),
        "translation": ("The request is put in another language.", translation),
    }
    return told + [
        Strategy(
            name=name, kind="framing", taxonomy=_TAXONOMY, description=about, disguise=disguise
        )
        for name, (about, disguise) in written.items()
    ]


def many_shot(text: str, *, seed: int) -> str:
    """Return harmless dialogues in which the assistant always answers, then the request.

    Source:
        Anil et al. 2024, Many-shot Jailbreaking (NeurIPS); here with harmless examples.
    """
    draw = seeded("many_shot", seed, text)
    shots = draw.sample(_shots(), draw.choice(SHOTS))
    return "\n\n".join([*shots, f"User: {text}\nAssistant:"])


def translation(text: str, *, seed: int) -> str:
    """Return a shipped request in another language, or any other in a foreign-language frame.

    Source:
        Yong et al. 2023, arXiv:2310.02446.
    """
    draw = seeded("translation", seed, text)
    if known := _translations().get(text):
        return draw.choice(known)
    return _put(text, _frames()[draw.choice(LANGUAGES[1:])], draw)


def _framed(text: str, *, seed: int, name: str, templates: Sequence[str]) -> str:
    return _put(text, templates, seeded(name, seed, text))


def _put(text: str, templates: Sequence[str], draw: Random) -> str:
    # Not str.format: both sides may hold braces.
    return draw.choice(templates).replace(_SLOT, text, 1)


@cache
def _shots() -> tuple[str, ...]:
    return tuple(
        f"User: {text_in(row, 'question', place=place)}\n"
        f"Assistant: {text_in(row, 'answer', place=place)}"
        for row, place in _rows("shots")
    )


@cache
def _frames() -> Mapping[str, tuple[str, ...]]:
    return {
        text_in(row, "language", place=place): texts_in(row, "templates", place=place)
        for row, place in _rows("languages")
    }


@cache
def _translations() -> Mapping[str, tuple[str, ...]]:
    """Return the English requests that the seeds translate, each with all its translations."""
    english = {one.id: one.request for one in (*load_requests(), *load_benign())}
    found: dict[str, list[str]] = {}
    for language in LANGUAGES[1:]:
        for one in load_translation(language).requests:
            found.setdefault(english[one.id], []).append(one.request)
    return {request: tuple(several) for request, several in found.items()}


def _rows(name: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    table = read_table(seeds_folder() / "framings" / f"{name}.jsonl")
    return zip(table.rows, table.places, strict=True)
