"""What every registered transform promises."""

from __future__ import annotations

import base64
import codecs
import html
import re
import string
import sys
import unicodedata
from collections.abc import Callable
from random import Random
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.data import ciphers
from workbench.data.transforms import TRANSFORMS, Transform

NAMES = TRANSFORMS.names()
TEXT = "Please bake a loaf of rye bread, then tell me how long it keeps."


def _moved(text: str, moves: Callable[[int, str], int]) -> str:
    """Each ASCII letter so many places on, as its number among them and the letter say."""
    number, moved = 0, ""
    for char in text:
        if char in string.ascii_letters:
            first = ord("a" if char.islower() else "A")
            place = (ord(char) - first + moves(number, char)) % 26
            moved, number = moved + chr(first + place), number + 1
        else:
            moved += char
    return moved


def _of_numbers(text: str, base: int) -> str:
    return bytes(int(one, base) for one in text.split()).decode()


def _of_braille(text: str) -> str:
    letters = dict(zip(BRAILLE, string.ascii_lowercase, strict=True))
    signs = dict(zip("⠀⠂⠆⠒⠲⠖⠦⠄⠤", " ,;:.!?'-", strict=True))
    digits = dict(zip(BRAILLE[:10], "1234567890", strict=True)) | {"⠂": ",", "⠲": "."}
    numbers = r"⠼([⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚]+(?:[⠂⠲][⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚]+)*)"
    plain = re.sub(numbers, lambda one: one[1].translate(str.maketrans(digits)), text)
    plain = re.sub("⠠(.)", lambda one: letters[one[1]].upper(), plain).replace("⠰", "")
    return plain.translate(str.maketrans(letters | signs))


def _of_bidi(text: str) -> str:
    lines = re.split("([\n\r\x1c-\x1e\x85\u2029]+)", text)
    for at in range(0, len(lines), 2):
        letters = [""]
        for char in lines[at][1:-1].translate(str.maketrans("()[]{}<>«»", ")(][}{><»«")):
            if unicodedata.category(char)[0] == "M":
                letters[-1] += char
            else:
                letters.append(char)
        lines[at] = letters[0] + "".join(reversed(letters[1:]))
    return "".join(lines)


BRAILLE = "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵"
CYRILLIC = str.maketrans("асеіорѕхуАВСЕНІКМОРТХУ", "aceiopsxyABCEHIKMOPTXY")
# These reach every character; the others promise their inverse for ASCII only, as they turn
# letters into look-alikes that a text may hold already.
EXACT: dict[str, Callable[[str], str]] = {
    "atbash": lambda text: _moved(text, lambda _, char: 25 - 2 * (ord(char.lower()) - ord("a"))),
    "base32": lambda text: base64.b32decode(text).decode(),
    "base64": lambda text: base64.b64decode(text, validate=True).decode(),
    "bidi": _of_bidi,
    "binary": lambda text: _of_numbers(text, 2),
    "caesar": lambda text: _moved(text, lambda *_: -3),
    "hex": lambda text: bytes.fromhex(text).decode(),
    # Not html.unescape: it turns the codes 128 to 159 into other characters.
    "html_entities": lambda text: "".join(map(chr, map(int, re.findall(r"&#(\d+);", text)))),
    "octal": lambda text: _of_numbers(text, 8),
    "reversal": lambda text: "".join(reversed(text)),
    "rot13": lambda text: codecs.decode(text, "rot13"),
    "spacing": lambda text: text[::2],
    "url_encode": lambda text: unquote(text, errors="strict"),
    "variation_selectors": lambda text: bytes(
        int(unicodedata.name(char).removeprefix("VARIATION SELECTOR-")) - 1 for char in text[1:]
    ).decode(),
    "vigenere": lambda text: _moved(text, lambda n, _: ord("A") - ord("LEMON"[n % 5])),
}
EXACT_ON_ASCII: dict[str, Callable[[str], str]] = {
    "ascii_smuggling": lambda text: "".join(
        chr(ord(char) % 0x80) if char > "\U000e0000" else char for char in text[1:]
    ),
    "braille": _of_braille,
    "full_width": lambda text: unicodedata.normalize("NFKC", text),
    "homoglyph": lambda text: text.translate(CYRILLIC),
    "zero_width": lambda text: re.sub("[\u200b-\u200d\u2060]", "", text),
}
LOSSY = {
    "a1z26", "camel_case", "leetspeak", "morse", "nato", "payload_splitting", "pig_latin",
    "regional_indicators",
}  # fmt: skip
DRAWN = {"homoglyph", "leetspeak", "payload_splitting", "zero_width"}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ASCII = st.text(string.printable, max_size=60)
SHAPES = {
    "letters": "bcdf",
    "a word that ends in a line": "b",
    "words": "We keep (12) bees. ",
    "numbers": "1.2,a",
    "space": " ",
    "lines": "\r\n",
    "emoji": "👩‍🚀🏳️‍🌈",
    "right to left": "مرحبا שלום ",
    "marks": "\u0301\u20dd",
    "signs": "&#x;%_+{}\\",
}
MOST = 100_000
"""Bytes of the longest texts here."""


def apply(name: str, text: str, *, seed: int = 0) -> str:
    return TRANSFORMS.get(name).apply(text, seed=seed)


def calls_of(name: str, text: str) -> int:
    """Return how many calls of functions, generators and C functions a transform makes."""
    count = 0

    def see(*_: object) -> None:
        nonlocal count
        count += 1

    transform, before = TRANSFORMS.get(name), sys.getprofile()
    sys.setprofile(see)
    try:
        transform.apply(text, seed=0)
    finally:
        sys.setprofile(before)
    return count


def test_the_promised_ones_are_there():
    assert set(NAMES) == EXACT.keys() | EXACT_ON_ASCII.keys() | LOSSY


@pytest.mark.parametrize("name", NAMES)
def test_name_description_change_and_determinism(name):
    transform = TRANSFORMS.get(name)
    assert transform.name == name
    assert re.fullmatch(r"[A-Z][^\n]{10,90}\.", transform.description)
    assert transform.apply(TEXT, seed=1) != TEXT
    assert transform.apply(TEXT, seed=1) == transform.apply(TEXT, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_those_that_draw_say_so(name):
    transform = TRANSFORMS.get(name)
    assert transform.draws == (name in DRAWN)
    assert (len({transform.apply(TEXT, seed=seed) for seed in range(9)}) > 1) == transform.draws
    # What grows data hands in its own generator and goes on drawing from it.
    draw, untouched = Random(5), Random(5)
    transform.encode(TEXT, draw)
    assert (draw.random() != untouched.random()) == transform.draws


@pytest.mark.parametrize("name", NAMES)
@given(text=ANY_TEXT, seed=st.integers(-5, 5))
@example(text="", seed=0)
@example(text="👩‍🚀🏳️‍🌈🇩🇪", seed=0)
@example(text="مرحبا (12) שלום", seed=0)
@example(text="\u0301\u20dd\ufe0f", seed=0)
def test_any_text_is_taken(name, text, seed):
    changed = apply(name, text, seed=seed)
    assert changed.encode().decode() == changed  # no lone surrogates: it can be stored and sent
    assert changed == apply(name, text, seed=seed)


@pytest.mark.parametrize("name", EXACT | EXACT_ON_ASCII)
@given(text=ANY_TEXT | ASCII, seed=st.integers(-5, 5))
@example(text="", seed=0)
@example(text="\u0301 a\u0301(b)\r\n\n[\u0302", seed=0)
@example(text="1.a 1,2.b 3..c 40k 5A AB", seed=0)
@example(text="😊😊", seed=0)
def test_inverse(name, text, seed):
    if name in EXACT_ON_ASCII:
        text = text.encode("ascii", "ignore").decode()
    back = (EXACT | EXACT_ON_ASCII)[name](apply(name, text, seed=seed))
    assert back == text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_long_texts_take_work_in_proportion(name, shape):
    piece = SHAPES[shape]

    def text(bytes_: int) -> str:
        return piece * (bytes_ // len(piece.encode())) + "_" * (len(piece) == 1)

    short, long = (calls_of(name, text(size)) for size in (4_000, 8_000))
    assert long <= 2.1 * short + 50
    # Work inside of C, such as a pattern that backtracks, shows as the timeout of the test.
    longest = apply(name, text(MOST))
    assert len(longest) <= 12 * MOST


@pytest.mark.parametrize("name", EXACT | EXACT_ON_ASCII)
def test_a_long_text_comes_back(name):
    text = "The bees, 12 of them (all new), fly at 7.30a.\n" * (MOST // 47)
    assert (EXACT | EXACT_ON_ASCII)[name](apply(name, text)) == text


@given(text=ASCII, seed=st.integers(0, 99))
def test_splitting_loses_nothing(text, seed):
    split = apply("payload_splitting", text, seed=seed)
    for word in text.split():
        assert word in split


@given(ANY_TEXT)
def test_bytes_are_those_of_the_standards(text):
    data = text.encode()
    assert apply("base64", text) == codecs.encode(data, "base64").decode().replace("\n", "")
    assert apply("hex", text) == codecs.encode(data, "hex").decode()
    assert unquote(apply("url_encode", text), errors="strict") == text
    for name, base, width in (("binary", 2, 8), ("octal", 8, 3), ("hex", 16, 2)):
        numbers = apply(name, text)
        pieces = numbers.split() if name != "hex" else re.findall("..", numbers)
        assert {len(piece) for piece in pieces} <= {width}
        assert bytes(int(piece, base) for piece in pieces) == data


@given(st.text(st.characters(min_codepoint=160, exclude_categories=["Cs"]), max_size=60))
def test_entities_are_those_of_the_standard(text):
    entities = text.encode("ascii", "xmlcharrefreplace").decode()
    assert apply("html_entities", text) == entities
    assert "".join(html.unescape(f"&#{ord(char)};") for char in text) == text


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("", ""), ("f", "MY======"), ("fo", "MZXQ===="), ("foo", "MZXW6==="),
        ("foob", "MZXW6YQ="), ("fooba", "MZXW6YTB"), ("foobar", "MZXW6YTBOI======"),
    ],
)  # fmt: skip
def test_base32_as_in_rfc_4648(text, encoded):
    assert apply("base32", text) == encoded
    assert base64.b32decode(encoded).decode() == text


@given(ANY_TEXT | ASCII)
def test_ciphers_agree_with_each_other(text):
    rot13 = codecs.encode(text, "rot13")
    assert ciphers.caesar(text, shift=13) == ciphers.vigenere(text, key="N") == rot13
    assert ciphers.vigenere(text, key="D") == apply("caesar", text)
    # Atbash is the affine cipher 25 - x: it turns a shift around.
    turned = ciphers.atbash(ciphers.caesar(ciphers.atbash(text), shift=3))
    assert turned == ciphers.caesar(text, shift=-3)


def test_each_invisible_or_wide_character_has_the_name_of_what_it_stands_for():
    printable = "".join(map(chr, range(0x21, 0x7F)))
    pairs = [(char, unicodedata.name(char)) for char in printable]
    hidden = apply("ascii_smuggling", printable)[1:]
    assert [unicodedata.name(char) for char in hidden] == [f"TAG {name}" for _, name in pairs]
    wide = apply("full_width", printable)
    assert [unicodedata.name(char) for char in wide] == [f"FULLWIDTH {name}" for _, name in pairs]
    for char in string.ascii_letters:
        name = unicodedata.name(apply("regional_indicators", char)[0])
        assert name == f"REGIONAL INDICATOR SYMBOL LETTER {char.upper()}"
    text = "a\0é漢😀"
    selectors = apply("variation_selectors", text)[1:]
    names = [unicodedata.name(char).removeprefix("VARIATION SELECTOR-") for char in selectors]
    assert bytes(int(name) - 1 for name in names) == text.encode()


def test_lookalikes_are_cyrillic_letters_of_the_same_case():
    text = string.ascii_letters
    pairs = {
        (old, new)
        for seed in range(20)
        for old, new in zip(text, apply("homoglyph", text, seed=seed), strict=True)
        if old != new
    }
    assert len(pairs) == 22
    for old, new in pairs:
        assert unicodedata.name(new).startswith("CYRILLIC")
        assert unicodedata.category(old) == unicodedata.category(new)
        assert unicodedata.normalize("NFKC", new) == new  # normalizing does not undo it


def test_braille_has_the_dots_of_the_standard():
    dots = (
        "1 12 14 145 15 124 1245 125 24 245 13 123 134 1345 135 1234 12345 1235 234 2345 136 1236 "
        "2456 1346 13456 1356"
    )
    names = [unicodedata.name(char) for char in apply("braille", string.ascii_lowercase)]
    assert names == [f"BRAILLE PATTERN DOTS-{one}" for one in dots.split()]
    assert apply("braille", "Hi, 3.50 or 7a?") == "⠠⠓⠊⠂⠀⠼⠉⠲⠑⠚⠀⠕⠗⠀⠼⠛⠰⠁⠦"


@given(st.text(string.ascii_letters + " 019.,", min_size=1, max_size=40))
def test_bidi_looks_the_same(text):
    # An override shows the first character rightmost and the last leftmost.
    assert apply("bidi", text) == f"\u202e{text[::-1]}\u202c"


def test_bidi_turns_brackets_line_by_line_and_keeps_marks_with_their_letters():
    assert apply("bidi", "f(x)") == "\u202e(x)f\u202c"
    assert apply("bidi", "ab\n\ncd") == "\u202eba\u202c\n\n\u202edc\u202c"
    assert apply("bidi", "ne\u0301e") == "\u202eee\u0301n\u202c"


def test_known_outputs():
    assert apply("morse", "SOS now") == "... --- ... / -. --- .--"
    assert apply("pig_latin", "hello apple") == "ellohay appleway"
    assert apply("pig_latin", "rhythm a_b b2 b") == "mrhythay a_b b2 bway"
    assert apply("rot13", "Hello") == "Uryyb"
    assert apply("full_width", "Hi 1") == "Ｈｉ　１"
    assert apply("spacing", "abc") == "a b c"
    assert apply("caesar", "Xyz, abc") == "Abc, def"
    assert apply("atbash", "Wizard 7") == "Draziw 7"
    assert apply("vigenere", "Attack at dawn") == "Lxfopv ef rnhr"
    assert apply("nato", "Ice 9!") == "India Charlie Echo / Nine !"
    assert apply("a1z26", "Hi you") == "8-9 25-15-21"
    assert apply("camel_case", "Bake a RYE loaf") == "bakeARyeLoaf"
    assert apply("binary", "Hé") == "01001000 11000011 10101001"
    assert apply("octal", "Hé") == "110 303 251"
    assert apply("base32", "Hi") == "JBUQ===="


@settings(max_examples=300)
@given(st.text("bcxyz aeiou AÉß_1²\u0301", max_size=30))
def test_pig_latin_is_what_its_slow_pattern_says(text):
    def turn(match: re.Match[str]) -> str:
        head, tail = match[1], match[2]
        return f"{tail}{head.lower()}ay" if head else f"{tail}way"

    slow = re.sub(r"\b([^\W\d_aeiouAEIOU]*)([^\W\d_]+)\b", turn, text)
    assert apply("pig_latin", text) == slow


def test_a_transform_of_another_package_draws_unless_it_says_otherwise():
    shuffled = Transform(
        name="shuffled",
        description="The words are shuffled.",
        encode=lambda text, draw: " ".join(draw.sample(text.split(), len(text.split()))),
    )
    assert len({shuffled.apply(TEXT, seed=seed) for seed in range(9)}) > 1
