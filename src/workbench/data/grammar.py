"""Growing pairs from the shipped requests: each in every wrapper, dialogue, encoding and style."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import count

from workbench.core.identity import seeded
from workbench.data.pairs import Stem
from workbench.data.requests import (
    LANGUAGES,
    Request,
    load_benign,
    load_requests,
    load_translation,
)
from workbench.data.transforms import TRANSFORMS
from workbench.data.wrappers import (
    Wrapper,
    load_dialogues,
    load_encodings,
    load_wrappers,
    put_on,
    style,
)
from workbench.store.records import Pair, Relation

__all__ = ["GENERATOR", "HARMFUL_SHARE", "Ways", "stems_of"]

GENERATOR = "grammar/2"
HARMFUL_SHARE = 0.6
"""Share of pairs whose prompt asks for harm: enough to learn attacks from, and enough benign ones
to learn what must be left alone."""

_WRAPPED_PER_BARE = {"safe_rewrite": 5, "dewrap": 2}
"""Pairs in a wrapper for each bare one: benign prompts mostly come without a wrapper."""


@dataclass(frozen=True, kw_only=True)
class Ways:
    """In which ways requests are put."""

    languages: tuple[str, ...] = ("en",)
    dialogues: bool = False
    encodings: bool = False
    family_weights: Mapping[str, int] = field(default_factory=dict)
    """Wrapper family → how often it is used where the others are used once."""


def stems_of(
    prototype: Pair, ways: Ways, *, requests: Sequence[Request] | None = None
) -> list[Stem]:
    """Return a stem per request and language, each of which grows without end.

    Args:
        prototype: Source, revision and license of the pairs.
        ways: In which ways the requests are put.
        requests: What to put so; the shipped ones, in the languages of ``ways``, if not given.
    """
    weights = tuple(sorted(ways.family_weights.items()))
    return [
        Stem(
            core=request.request,
            parent_id=request.id,
            category=request.category,
            language=request.language,
            texts=(request.request, *request.redirects),
            grow=partial(
                _grow, prototype, request, weights, dialogues=ways.dialogues,
                encodings=ways.encodings,
            ),
            size=None,
        )
        for request in (_shipped(ways.languages) if requests is None else requests)
    ]  # fmt: skip


def _shipped(languages: Sequence[str]) -> Iterator[Request]:
    for language in languages:
        if language == "en":
            yield from (*load_requests(), *load_benign())
        else:
            yield from load_translation(language).requests


def _grow(
    prototype: Pair,
    request: Request,
    weights: tuple[tuple[str, int], ...],
    *,
    dialogues: bool,
    encodings: bool,
    seed: int,
) -> Iterator[Pair]:
    """Yield the pairs of one request: bare and in every wrapper in turn, template by template."""
    draw = seeded("grow", seed, request.language, request.id)
    wrappers = list(_wrappers(request.language, weights, dialogues, encodings))
    prototype = replace(
        prototype, language=request.language, domain=request.domain, category=request.category,
        context=request.context, core=request.request, parent_id=request.id,
    )  # fmt: skip
    relation: Relation = "safe_rewrite" if request.redirects else "dewrap"
    redirects = list(request.redirects)
    draw.shuffle(redirects)
    every = _WRAPPED_PER_BARE[relation]
    first, phase, bare = draw.randrange(1 << 20), draw.randrange(every), 0
    for turn in count():
        draw.shuffle(wrappers)
        for made, wrapper in enumerate(wrappers, turn * len(wrappers) + phase):
            clean = redirects[made % len(redirects)] if redirects else request.request
            if made % every == 0 and (not bare or request.language == "en"):
                yield _bare(prototype, request, clean, draw=draw, is_styled=bare > 0)
                bare += 1
            text = request.request
            if wrapper.transform:
                text = TRANSFORMS.get(wrapper.transform).encode(text, draw)
                if request.request in text:  # e.g. ROT13 of Arabic
                    continue
            text = put_on(text, wrapper, number=first + turn, draw=draw)
            yield replace(
                prototype, adversarial=text, clean=clean, relation=relation,
                wrapper_family=wrapper.family,
            )  # fmt: skip


def _bare(
    prototype: Pair, request: Request, clean: str, *, draw: random.Random, is_styled: bool
) -> Pair:
    text = request.request
    if is_styled:
        text = style(text, draw=draw)
    if request.redirects:
        return replace(prototype, adversarial=text, clean=clean, relation="safe_rewrite")
    return replace(prototype, adversarial=text, clean=text, relation="identity")


@cache
def _wrappers(
    language: str, weights: tuple[tuple[str, int], ...], dialogues: bool, encodings: bool
) -> Sequence[Wrapper]:
    """Return the wrappers of a language, one that weighs n times n; English ones fill its gaps."""
    found = load_wrappers()
    if language != "en":
        own = load_translation(language).templates if language in LANGUAGES else {}
        found = [
            replace(one, templates=own[one.family], is_styled=False)
            if one.family in own
            else replace(one, is_styled=False)
            for one in found
        ]
    found += load_dialogues() if dialogues else []
    found += load_encodings() if encodings else []
    times = dict(weights)
    return [one for one in found for _ in range(times.get(one.family, 1))]
