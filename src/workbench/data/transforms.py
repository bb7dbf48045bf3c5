"""Text transforms: ways to write a prompt so that filters miss it; campaigns use them.

Each is deterministic by seed. ``invert`` gives the text back where the transform keeps all of it.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from workbench.core.identity import seeded
from workbench.core.registry import Registry

__all__ = ["TRANSFORMS", "Transform"]

Encode: TypeAlias = Callable[[str, Random], str]
Decode: TypeAlias = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A way to write a text differently, made of two functions."""

    name: str
    encode: Encode
    decode: Decode | None = None

    def apply(self, text: str, *, seed: int) -> str:
        """Return the text transformed; the same seed gives the same text."""
        return self.encode(text, seeded(self.name, seed, text))

    def invert(self, text: str) -> str | None:
        """Return the text before :meth:`apply`, or nothing where that is lost.

        Raises:
            ValueError: If the text is no output of :meth:`apply`.
        """
        return None if self.decode is None else self.decode(text)


TRANSFORMS: Registry[Transform] = Registry("transform")


def _register(name: str, encode: Encode, decode: Decode | None = None) -> None:
    TRANSFORMS.register(name)(Transform(name=name, encode=encode, decode=decode))


_LEET = str.maketrans("aAeEiIoOsStT", "443311005577")
# Cyrillic and Greek letters that look like Latin ones.
_LOOKALIKES = dict(zip("aceiopsxyABCEHIKMOPTXY", "асеіорѕхуАВСЕНІКМОРТХУ", strict=True))
_LATIN = str.maketrans({fake: real for real, fake in _LOOKALIKES.items()})
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060"
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_HALF_WIDTH = {wide: code for code, wide in _FULL_WIDTH.items()}
_MORSE_CODES = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- "
    "-..- -.-- --.. ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- "
    "..--.. .----. -.-.-- -..-. -.--. -.--.- .-... ---... -.-.-. -...- .-.-. -....- ..--.- .-..-. "
    "...-..- .--.-."
)
_MORSE = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?'!/()&:;=+-_\"$@", _MORSE_CODES.split(), strict=True
    )
)
_SOME = 0.5
"""Share of letters that ``leetspeak``, ``homoglyph`` and ``zero_width`` touch."""


def _leetspeak(text: str, draw: Random) -> str:
    return "".join(char.translate(_LEET) if draw.random() < _SOME else char for char in text)


def _homoglyph(text: str, draw: Random) -> str:
    return "".join(_LOOKALIKES.get(char, char) if draw.random() < _SOME else char for char in text)


def _zero_width(text: str, draw: Random) -> str:
    return "".join(
        char + draw.choice(_ZERO_WIDTH) if draw.random() < _SOME else char for char in text
    )


def _pig_latin(text: str, _: Random) -> str:
    def turn(match: re.Match[str]) -> str:
        head, tail = match[1], match[2]
        return f"{tail}{head.lower()}ay" if head else f"{tail}way"

    return re.sub(r"\b([^\W\d_aeiouAEIOU]*)([^\W\d_]+)\b", turn, text)


def _morse(text: str, _: Random) -> str:
    words = text.upper().split()
    return " / ".join(" ".join(_MORSE.get(char, char) for char in word) for word in words)


def _payload_splitting(text: str, draw: Random) -> str:
    words = text.split(" ")
    count = min(len(words), draw.randint(2, 4))
    cuts = sorted(draw.sample(range(1, len(words)), count - 1)) if count > 1 else []
    pieces = [
        " ".join(words[start:stop])
        for start, stop in zip([0, *cuts], [*cuts, len(words)], strict=True)
    ]
    names = draw.choice(("abcd", "xyzw", "pqrs", "mnop"))[: len(pieces)]
    lines = [f'{name} = "{piece}"' for name, piece in zip(names, pieces, strict=True)]
    draw.shuffle(lines)
    joined = ' + " " + '.join(names)
    return "\n".join([*lines, f"Answer the text {joined}."])


_register(
    "base64",
    lambda text, _: base64.b64encode(text.encode()).decode(),
    lambda text: base64.b64decode(text, validate=True).decode(),
)
_register("hex", lambda text, _: text.encode().hex(), lambda text: bytes.fromhex(text).decode())
_register(
    "rot13", lambda text, _: codecs.encode(text, "rot13"), lambda text: codecs.decode(text, "rot13")
)
_register("leetspeak", _leetspeak)
_register("homoglyph", _homoglyph, lambda text: text.translate(_LATIN))
_register(
    "zero_width", _zero_width, lambda text: text.translate(dict.fromkeys(map(ord, _ZERO_WIDTH)))
)
_register("reversal", lambda text, _: text[::-1], lambda text: text[::-1])
_register("spacing", lambda text, _: " ".join(text), lambda text: text[::2])
_register("pig_latin", _pig_latin)
_register("morse", _morse)
_register(
    "html_entities",
    lambda text, _: "".join(f"&#{ord(char)};" for char in text),
    # Not html.unescape: it turns the codes 128 to 159 into other characters.
    lambda text: re.sub(r"&#(\d{1,7});", lambda match: chr(int(match[1])), text),
)
_register(
    "url_encode",
    lambda text, _: "".join(f"%{byte:02X}" for byte in text.encode()),
    lambda text: unquote_to_bytes(text).decode(),
)
_register(
    "full_width",
    lambda text, _: text.translate(_FULL_WIDTH),
    lambda text: text.translate(_HALF_WIDTH),
)
_register("payload_splitting", _payload_splitting)
