"""A trained tagger at work: prompts to what they ask, whether that is harmful, and its meaning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from workbench.diffusion.tagger import Heads
from workbench.embedding.encoder import FloatArray, MiniLM, parts
from workbench.embedding.states import StateCache
from workbench.embedding.windows import merge

__all__ = ["Core", "Reader", "TextTags", "find_core"]

_AROUND = " \t\r\n\"'`“”‘’«»<>[]().,;:-"
_ENDS = (".", "?", "!")
_NEAR = 16
_LAST_BREAK = re.compile(r"""(?:[.?!:\n"'“‘«`\[<>]\s*)([\w ,'-]+)\Z""")
_FIRST_BREAK = re.compile(r"""([\w ,'-]*)[.?!\n"”’»`\]<]""")


class TextTags(NamedTuple):
    """What the tagger says of one text."""

    harm: float
    """Logit that the request is harmful."""
    wrapped: float
    """Logit that it wears a wrapper."""
    vector: FloatArray
    """``(dim,)``, of length 1: where the published encoder would put the bare request."""
    payload: FloatArray
    """``(tokens,)`` logits that a token belongs to the request."""
    spans: npt.NDArray[np.intp]
    """``(tokens, 2)``: characters of each token."""


class Core(NamedTuple):
    """Where the request of a text stands."""

    start: int
    end: int
    confidence: float
    """Mean probability of its tokens, 0 to 1; 0 where no token seems to belong to a request."""


class Reader:
    """Reads prompts with the heads of a trained tagger on its encoder.

    Args:
        heads: Trained heads.
        encoder: MiniLM with the layers that were trained with them.
        cache: Of the encoder's states, for texts that are read again and again.
    """

    def __init__(self, heads: Heads, *, encoder: MiniLM, cache: StateCache | None = None) -> None:
        self.heads = heads.eval()
        self.encoder = encoder
        self._windows = (cache or encoder).windows

    def __call__(self, texts: Sequence[str]) -> list[TextTags]:
        """Return the tags of each text, in order; long ones are read window by window."""
        return [tags for part in parts(texts) for tags in self._read(part)]

    @torch.inference_mode()
    def _read(self, texts: Sequence[str]) -> list[TextTags]:
        several = list(self._windows(texts))
        sizes = [sum(len(window.states) for window in windows) for windows in several]
        states = np.concatenate([window.states for windows in several for window in windows])
        owners = torch.repeat_interleave(torch.tensor(sizes))
        tags = self.heads(torch.from_numpy(states), owners, texts=len(texts))
        payload = np.split(tags.payload.numpy(), np.cumsum(sizes)[:-1])
        read = []
        for number, windows in enumerate(several):
            edges = np.cumsum([len(window.states) for window in windows])[:-1]
            parts = [part[1:-1] for part in np.split(payload[number], edges)]
            read.append(
                TextTags(
                    harm=float(tags.harm[number]),
                    wrapped=float(tags.wrapped[number]),
                    vector=tags.vectors[number].numpy(),
                    payload=merge(parts),
                    spans=merge([window.spans[1:-1] for window in windows]),
                )
            )
        return read


def find_core(text: str, tags: TextTags) -> Core:
    """Return the stretch of tokens with the largest sum of logits, whole words without quotes.

    Source:
        Bentley 1984, "Algorithm design techniques" (Kadane's scan), by cumulative sums.
    """
    if not len(tags.payload):
        return Core(0, len(text), 0.0)
    sums = np.concatenate([[0.0], np.cumsum(tags.payload, dtype=np.float64)])
    gains = sums[1:] - np.minimum.accumulate(sums)[:-1]
    last = int(np.argmax(gains))
    first = int(np.argmin(sums[: last + 1]))
    start, end = _whole(text, int(tags.spans[first, 0]), int(tags.spans[last, 1]))
    inner = text[start:end].strip(_AROUND)
    if not inner or gains[last] <= 0:
        return Core(0, len(text), 0.0)
    start = text.index(inner, start)
    end = start + len(inner)
    if text[end : end + 1] in _ENDS:
        end += 1
    logits = tags.payload[first : last + 1].astype(np.float64)
    return Core(start, min(end, len(text)), float(np.mean(1 / (1 + np.exp(-logits)))))


def _whole(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the stretch grown to whole words, and to the ends of its sentence if these are near.

    The first word of a request is the one that taggers miss most; where there is a capital letter
    already, it is the first.
    """
    while start < end and text[start] in _AROUND:
        start += 1
    while start > 0 and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum() and text[end - 1].isalnum():
        end += 1
    nearby = text[max(start - _NEAR, 0) : start]
    before = _LAST_BREAK.search(nearby if start > _NEAR else "\n" + nearby)
    if before and not text[start : start + 1].isupper():
        start -= len(before.group(1))
    nearby = text[end : end + _NEAR]
    after = _FIRST_BREAK.match(nearby if end + _NEAR < len(text) else nearby + "\n")
    if after:
        end += len(after.group(1))
    return start, end
