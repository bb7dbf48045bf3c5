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
    Retelling,
    load_benign,
    load_requests,
    load_retellings,
    load_translation,
)
from workbench.data.transforms import TRANSFORMS
from workbench.data.wrappers import (
    Wrapper,
    family_split,
    load_dialogues,
    load_encodings,
    load_wrappers,
    put_on,
    style,
)
from workbench.store.records import Pair, Relation

__all__ = ["GENERATOR", "HARMFUL_SHARE", "NESTED", "Ways", "stems_of"]

GENERATOR = "grammar/3"
NESTED = " nested"
"""Ends the generator of a pair in two wrappers, of which ``wrapper_family`` names the inner one."""
HARMFUL_SHARE = 0.65
"""Share of pairs that grow from harmful requests. A fifth of these ask for one of the safe
redirects, so that a little more than half of all prompts ask for harm: enough to learn attacks
from, and enough benign ones, many on the very same topics, to learn what must be left alone."""

_WRAPPED_PER_BARE = {"safe_rewrite": 5, "dewrap": 2}
"""Pairs in a wrapper for each bare one: benign prompts mostly come without a wrapper."""
_TWICE, _RETOLD, _SAFE = 0.12, 0.3, 0.3
"""Share of wrapped pairs that are wrapped twice, that a pair in other words goes with, and that one
which asks for a safe redirect goes with."""


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
    told = load_retellings() if requests is None else {}
    stems = []
    for request in _shipped(ways.languages) if requests is None else requests:
        retellings = told.get(request.id, ()) if request.language == "en" else ()
        grow = partial(
            _grow, prototype, request, weights, retellings=retellings, dialogues=ways.dialogues,
            encodings=ways.encodings,
        )  # fmt: skip
        stem = Stem(
            core=request.request,
            parent_id=request.id,
            category=request.category,
            language=request.language,
            texts=(request.request, *request.redirects, *(one.text for one in retellings)),
            grow=grow,
            size=None,
        )
        stems.append(stem)
    return stems


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
    retellings: Sequence[Retelling],
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
    untold, unasked = list(retellings), redirects.copy()
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
            pair = replace(
                prototype, adversarial=text, clean=clean, relation=relation,
                wrapper_family=wrapper.family,
            )  # fmt: skip
            if draw.random() < _TWICE:
                pair = _nested(pair, draw.choice(wrappers), inner=wrapper, draw=draw)
            pairs = [pair]
            if untold and draw.random() < _RETOLD:
                pairs.append(_retold(prototype, untold.pop(), clean if redirects else ""))
            if redirects and draw.random() < _SAFE:
                pairs += _safe(prototype, redirects, wrapper, unasked=unasked, draw=draw)
            draw.shuffle(pairs)  # a small set, which draws a pair or two, has all kinds too
            yield from pairs


def _nested(pair: Pair, outer: Wrapper, *, inner: Wrapper, draw: random.Random) -> Pair:
    """Return a pair in a second wrapper, if both are trained on or both are tests."""
    same_side = family_split(outer.family) == family_split(inner.family)
    if outer.transform or inner.transform or not same_side:
        return pair
    text = put_on(pair.adversarial, outer, number=draw.randrange(1 << 20), draw=draw)
    return replace(pair, adversarial=text, generator=pair.generator + NESTED)


def _retold(prototype: Pair, told: Retelling, clean: str) -> Pair:
    """Return the pair of a retelling; one that asks for no harm, without a clean text, stays."""
    return replace(
        prototype, adversarial=told.text, clean=clean or told.text, wrapper_family=told.family,
        relation="safe_rewrite" if clean else "identity",
    )  # fmt: skip


def _safe(
    prototype: Pair,
    redirects: Sequence[str],
    wrapper: Wrapper,
    *,
    unasked: list[str],
    draw: random.Random,
) -> Iterator[Pair]:
    """Yield a benign pair on a harmful topic: bare, once each, or in what an attack wore."""
    prototype = replace(prototype, category="benign")
    if unasked and (wrapper.transform or draw.random() < 0.5):  # noqa: PLR2004
        text = unasked.pop()
        yield replace(prototype, adversarial=text, clean=text, core=text, relation="identity")
    elif not wrapper.transform:
        core = draw.choice(redirects)
        text = put_on(core, wrapper, number=draw.randrange(1 << 20), draw=draw)
        yield replace(
            prototype, adversarial=text, clean=core, core=core, relation="dewrap",
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
