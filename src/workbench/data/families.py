"""Wrapper families across sources: which are one, and which an evaluation set wears."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Final

from workbench.data.dedupe import SAME_WRAPPER, normalize, resembles_any
from workbench.data.grammar import NESTED
from workbench.data.pairs import Stem
from workbench.data.split import group_texts
from workbench.data.wrappers import family_split

__all__ = [
    "TELLING_CHARS", "TEXTS_PER_FAMILY", "Worn", "merge_families", "resembled_families",
    "sample_families", "worn",
]  # fmt: skip

TEXTS_PER_FAMILY: Final = 24
"""Texts by which a wrapper is compared with others: one of five templates is missed once in 200."""
_PAIRS_PER_STEM = 256
"""Pairs of a stem that are looked at for those texts: all wrappers of the grammar, and more."""
TELLING_CHARS: Final = 40
"""Shortest wrapper that two sources do not have in common by chance."""

Worn = Mapping[str, Collection[tuple[str, str]]]
"""Wrapper family → some whole prompts in it and what they wear alone, both normalized."""


def sample_families(stems: Sequence[Stem], *, seed: int) -> dict[str, set[tuple[str, str]]]:
    """Return some texts of every wrapper family that the stems of one source use."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    shown: dict[str, int] = defaultdict(int)  # stems of a language that show all wrappers there are
    for stem in stems:
        if stem.size != 1 and shown[stem.language] == TEXTS_PER_FAMILY:
            continue
        shown[stem.language] += stem.size != 1
        for pair in islice(stem.grow(seed=seed), _PAIRS_PER_STEM):
            if pair.generator.endswith(NESTED):  # two families in one text
                continue
            if pair.wrapper_family and len(found[pair.wrapper_family]) < TEXTS_PER_FAMILY:
                whole, bare = normalize(pair.adversarial), worn(pair.adversarial, pair.core)
                found[pair.wrapper_family].add((whole, bare))
    return found


def worn(prompt: str, core: str) -> str:
    """Return what a prompt wears around its request, normalized; nothing where none shows."""
    return normalize(prompt.replace(core, " ")) if core and core in prompt else ""


def merge_families(families: Worn) -> dict[str, str]:
    """Return family → the name by which it is split, for families that are one by their texts."""
    rows = sorted(
        (family, text)
        for family, texts in families.items()
        for _, text in texts
        if len(text) >= TELLING_CHARS
    )
    names = [family for family, _ in rows]
    merged = group_texts(
        [text for _, text in rows], names, side=family_split, threshold=SAME_WRAPPER
    )
    return {name: title for name, title in zip(names, merged, strict=True) if name != title}


def resembled_families(families: Worn, *, whole: Sequence[str], bare: Sequence[str]) -> set[str]:
    """Return the families that attacks wear.

    Args:
        families: Where to look.
        whole: The attacks, normalized.
        bare: What attacks wear around their requests, where that is known; see :func:`worn`.
    """
    texts = [(family, *text) for family, some in families.items() for text in sorted(some)]
    is_like = resembles_any([text for _, text, _ in texts], whole, threshold=SAME_WRAPPER)
    telling = [text for text in bare if len(text) >= TELLING_CHARS]
    is_like |= resembles_any([text for *_, text in texts], telling, threshold=SAME_WRAPPER)
    return {family for (family, *_), is_known in zip(texts, is_like, strict=True) if is_known}
