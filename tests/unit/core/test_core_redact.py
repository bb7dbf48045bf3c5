"""What is personal or secret is gone; what only looks a little like it stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.redact import PATTERNS, hide_password, redact

# put together here so that no scanner of the repository takes them for real
KEY = "sk-" + "a1B2" * 8
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0." + "c2lnbmF0dXJl"

SECRETS = {
    "api-key": [
        KEY,
        "sk-ant-api03-" + "aB3_-" * 18 + "AA",
        "sk-proj-" + "aB3_-" * 9,
        "ghp_" + "x" * 36,
        "AKIA" + "ABCDEFGH12345678",
        "xoxb-" + "1234567890-abc",
    ],
    "token": [JWT],
    "email": ["jane.doe+tag@mail.example.co.uk", "j_d@example.org"],
    "card": ["4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
    "social-security": ["078-05-1120"],
    "ip-address": ["192.168.0.1", "255.255.255.255"],
    "phone": ["+1 555 123 4567", "+49 (030) 123 456"],
    "private-key": [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
    ],
}


def test_every_pattern_has_an_example():
    assert set(SECRETS) == set(PATTERNS)


@pytest.mark.parametrize(
    ("name", "secret"), [(name, secret) for name, found in SECRETS.items() for secret in found]
)
@pytest.mark.parametrize(
    "around", ["{}", "write to {}, now", "line one\n{}\nline three", "({})", "«{}»"]
)
def test_each_is_replaced_by_its_name(name, secret, around):
    assert redact(around.format(secret)) == around.format(f"[{name}]")


@pytest.mark.parametrize(
    "text",
    [
        "How do I pick a lock in 10 minutes?",
        "version 1.2.3, released 2024-05-06 at 10:30",
        "300.300.300.300 is no address, and 1.2.3 neither",
        "sk-short is too short; so is AKIA12",
        "a@b and @handle and user@ and @example.org",
        "3.14159265358979 and 1,234,567.89",
        "ISO 27001 and RFC 3987",
        "x" * 64,
    ],
)
def test_plain_words_and_numbers_stay(text):
    assert redact(text) == text


def test_several_in_one_text():
    text = f"mail a@b.example, key {KEY}, from 10.0.0.1"
    assert redact(text) == "mail [email], key [api-key], from [ip-address]"


@given(st.text())
def test_any_text_can_be_redacted_twice_with_the_same_end(text):
    once = redact(text)
    assert redact(once) == once


@given(st.text(st.characters(exclude_characters="@-+_0123456789.")))
def test_text_without_the_marks_of_a_secret_is_untouched(text):
    assert redact(text) == text


@given(st.text(), st.text(), st.sampled_from([KEY, *SECRETS["email"], *SECRETS["private-key"]]))
def test_a_secret_between_spaces_never_survives(before, after, secret):
    assert secret not in redact(f"{before} {secret} {after}")


@pytest.mark.parametrize(
    "unit", ["a", "1", "1 ", "1.", "a.", "a@", "@a.", "A", "AA00 ", "-", "+1 ", "eyJ",
             "eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "sk-", "a-", "1-", "(", "\u0660"]
)  # fmt: skip
def test_a_megabyte_of_anything_ends(unit):
    # a pattern whose time grows with the square would run into the test's timeout; the figures
    # are in benchmarks/bench_redact.py
    assert len(redact(unit * (1_000_000 // len(unit)))) > 0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pass@host:6379/0", "redis://***@host:6379/0"),
        ("redis://user:p/a:s@s@host/0", "redis://***@host/0"),
        ("rediss://host:1/0?password=pass", "rediss://host:1/0"),
        ("redis://host?password=p@ss", "redis://***@ss"),
        ("postgresql+psycopg://u:pass@host/db", "postgresql+psycopg://***@host/db"),
        ("u:pass@host", "***@host"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("", ""),
    ],
)
def test_addresses_lose_their_password(url, shown):
    assert hide_password(url) == shown


@given(st.text(st.characters(exclude_characters="@?")), st.text(), st.sampled_from(["?", "@"]))
def test_no_part_of_a_password_is_left(before, password, mark):
    url = f"redis://{before}:<{password}>@host/0" if mark == "@" else f"redis://h/0?p=<{password}>"
    assert f"<{password}>" not in hide_password(url)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=list(PATTERNS))
@given(data=st.data())
def test_whatever_a_pattern_matches_gets_the_closer_look(pattern, data):
    found = pattern.search(data.draw(st.from_regex(pattern)))
    assert redact(found[0]) != found[0]
