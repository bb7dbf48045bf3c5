"""Classic ciphers and codes: letters for letters, letters for signs, bytes for digits."""

from __future__ import annotations

import re
from functools import cache
from itertools import cycle
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Final

__all__ = [
    "CAESAR_SHIFT", "VIGENERE_KEY", "atbash", "braille", "caesar", "letter_numbers", "morse",
    "nato", "to_digits", "vigenere",
]  # fmt: skip

CAESAR_SHIFT: Final = 3
"""Places by which the Caesar cipher moves each letter, the number that Suetonius names."""
VIGENERE_KEY: Final = "LEMON"
"""Key of the Vigenère cipher."""

_ATBASH = str.maketrans(
    ascii_lowercase + ascii_uppercase, ascii_lowercase[::-1] + ascii_uppercase[::-1]
)
_PLACES = {letter: str(place) for place, letter in enumerate(ascii_lowercase, start=1)}

_MORSE_CODES = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- "
    "-..- -.-- --.. ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- "
    "..--.. .----. -.-.-- -..-. -.--. -.--.- .-... ---... -.-.-. -...- .-.-. -....- ..--.- .-..-. "
    "...-..- .--.-."
)
_MORSE = dict(
    zip(ascii_uppercase + digits + ".,?'!/()&:;=+-_\"$@", _MORSE_CODES.split(), strict=True)
)
_NATO_WORDS = (
    "Alfa Bravo Charlie Delta Echo Foxtrot Golf Hotel India Juliett Kilo Lima Mike November Oscar "
    "Papa Quebec Romeo Sierra Tango Uniform Victor Whiskey X-ray Yankee Zulu "
    "Zero One Two Three Four Five Six Seven Eight Nine"
)
_NATO = dict(zip(ascii_uppercase + digits, _NATO_WORDS.split(), strict=True))

_CELLS = "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵"
_CAPITAL, _NUMBER, _LETTER = "⠠⠼⠰"
_BRAILLE = str.maketrans(
    dict(zip(" ,;:.!?'-" + ascii_lowercase, "⠀⠂⠆⠒⠲⠖⠦⠄⠤" + _CELLS, strict=True))
    | dict(zip("1234567890", _CELLS[:10], strict=True))
    | {upper: _CAPITAL + cell for upper, cell in zip(ascii_uppercase, _CELLS, strict=True)}
)
# The lookahead marks a letter that would read as one more digit of the number.
_NUMBERS = re.compile("([0-9]+(?:[.,][0-9]+)*)([.,]?(?=[a-j]))?")


def caesar(text: str, *, shift: int = CAESAR_SHIFT) -> str:
    """Return the text with each ASCII letter moved ``shift`` places on; all else stays."""
    return text.translate(_shifted(shift))


def atbash(text: str) -> str:
    """Return the text with z for a, y for b and so on; its own inverse."""
    return text.translate(_ATBASH)


def vigenere(text: str, *, key: str = VIGENERE_KEY) -> str:
    """Return the text with each ASCII letter moved by the key's next capital letter, A for 0.

    All else stays and uses up no letter of the key.
    """
    rows = cycle([_shifted(ascii_uppercase.index(letter)) for letter in key])
    return "".join(
        char.translate(next(rows)) if char.isascii() and char.isalpha() else char for char in text
    )


def morse(text: str) -> str:
    """Return the text in international Morse code; a slash between words.

    Source:
        ITU-R M.1677-1, and the usual signs for ``! & ; _ " $``, which it leaves out.
    """
    words = text.upper().split()
    return " / ".join(" ".join(_MORSE.get(char, char) for char in word) for word in words)


def nato(text: str) -> str:
    """Return the text spelled out in the NATO alphabet; a slash between words.

    Source:
        ICAO Annex 10, volume II, 5.2.1.3.
    """
    words = text.upper().split()
    return " / ".join(" ".join(_NATO.get(char, char) for char in word) for word in words)


def letter_numbers(text: str) -> str:
    """Return the text with 1 for a to 26 for z, a hyphen between letters; other signs stay."""
    words = text.lower().split(" ")
    return " ".join("-".join(_PLACES.get(char, char) for char in word) for word in words)


def braille(text: str) -> str:
    """Return ASCII letters, digits and ``,;:.!?'-`` in uncontracted braille; all else stays.

    Each capital has its own sign, each number one sign, as in Unified English Braille.

    Source:
        The Rules of Unified English Braille, 2nd edition 2013, sections 4 to 8.
    """

    def mark(match: re.Match[str]) -> str:
        after = "" if match[2] is None else match[2] + _LETTER
        return _NUMBER + match[1] + after

    return _NUMBERS.sub(mark, text).translate(_BRAILLE)


def to_digits(text: str, *, base: str, width: int) -> str:
    """Return the UTF-8 bytes as numbers with a space between.

    Args:
        text: What to write.
        base: ``b`` or ``o``, as in format strings.
        width: Digits per byte.
    """
    form = f"0{width}{base}"
    return " ".join([format(byte, form) for byte in text.encode()])


@cache
def _shifted(shift: int) -> dict[int, int]:
    turn = shift % len(ascii_lowercase)
    moved = ascii_lowercase[turn:] + ascii_lowercase[:turn]
    return str.maketrans(ascii_lowercase + ascii_uppercase, moved + moved.upper())
