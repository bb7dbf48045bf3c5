"""Best-of-N: small random changes, another set of them with each seed, until one gets through."""

from __future__ import annotations

import re
from random import Random
from typing import Final

from workbench.core.identity import seeded

__all__ = ["CAPITALIZED", "NOISED", "SCRAMBLED", "best_of_n"]

SCRAMBLED: Final = 0.6
"""Share of words of four or more letters whose inner letters are shuffled."""
CAPITALIZED: Final = 0.6
"""Share of letters that change between capital and small."""
NOISED: Final = 0.06
"""Share of printable ASCII characters that move to a neighbor in the table."""

_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_NEIGHBORS = {
    char: _PRINTABLE[max(place - 1, 0) : place] + _PRINTABLE[place + 1 : place + 2]
    for place, char in enumerate(_PRINTABLE)
}


def best_of_n(text: str, *, seed: int) -> str:
    """Return the text scrambled, in random case and with noise; the seed says which draw of N.

    Source:
        Hughes et al. 2024, arXiv:2412.03556, appendix A.1.
    """
    draw = seeded("best_of_n", seed, text)

    def scramble(match: re.Match[str]) -> str:
        word = match[0]
        if draw.random() >= SCRAMBLED:
            return word
        return word[0] + "".join(draw.sample(word[1:-1], len(word) - 2)) + word[-1]

    return "".join([_perturb(char, draw) for char in _LONG_WORD.sub(scramble, text)])


def _perturb(char: str, draw: Random) -> str:
    if draw.random() < CAPITALIZED:
        char = char.swapcase()
    if draw.random() < NOISED:
        char = draw.choice(_NEIGHBORS.get(char, (char,)))
    return char
