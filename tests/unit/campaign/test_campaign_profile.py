from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.campaign.profile import (
    MAX_BYTES,
    Tool,
    load,
    parse_profile,
    profile_template,
    read_profile,
    save,
)
from workbench.core.errors import DataError, StoreError
from workbench.store.database import Store

WHOLE = """# Purpose

Sell tea.

## Tools and interfaces

- `brew(leaf, minutes)`: makes a pot
- pour: fills a cup,
  never to the brim
* wash

```
# Policies
- not a policy
```

# Policies
1. not an item
- No coffee.

# People
- Ada Nimble
# System prompt
You sell tea.
# Canaries
- amber-heron-4821
- pii: `teal-tern-1111`
"""


def test_sections_become_fields() -> None:
    profile = parse_profile(WHOLE)
    assert profile.purpose == "Sell tea."
    assert profile.tools == (
        Tool(name="brew", about="makes a pot"),
        Tool(name="pour", about="fills a cup, never to the brim"),
        Tool(name="wash", about=""),
    )
    assert profile.policies == ("No coffee.",)
    assert profile.people == ("Ada Nimble",)
    assert profile.system_prompt == "You sell tea."
    assert profile.canary == "amber-heron-4821"
    assert profile.canaries["pii"] == "teal-tern-1111"


def test_the_template_is_a_profile() -> None:
    profile = parse_profile(profile_template())
    assert profile.purpose
    assert profile.tools
    assert profile.policies
    assert not profile.canaries  # forgotten ones would decide every leak wrongly


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Purpose"),
        ("# Purpose\n\n# Tools\n- a: b", "Purpose"),
        ("# Purpose\nx\n# Tools\n- two words", "two words"),
        ("# Purpose\nx\n# Canaries\n- abc", "abc"),
        ("# Purpose\nx\n# System prompt\n\n# Role\nYou sell tea.", "fenced block"),
        ("# Purpose\nx\n# Canaries\n- shoe: amber-heron-4821", "shoe"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        parse_profile(text, where="p.md")
    assert str(caught.value).startswith("p.md: ")


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.md"
    with pytest.raises(DataError, match="cannot be read"):
        read_profile(path)
    path.write_bytes(b"# Purpose\n\xff")
    with pytest.raises(DataError, match="byte 10 is not UTF-8"):
        read_profile(path)
    path.write_bytes(b"# Purpose\n" + b"x" * MAX_BYTES)
    with pytest.raises(DataError, match="larger than 200,000"):
        read_profile(path)
    path.write_bytes(b"\xef\xbb\xbf# Purpose\r\n\r\nSell tea.\r\n")
    assert read_profile(path).purpose == "Sell tea."


def test_secrets_never_reach_the_store(store: Store) -> None:
    profile = parse_profile("# Purpose\nsk-" + "a1" * 12 + " belongs to ada@example.org")
    assert profile.purpose == "[api-key] belongs to [email]"
    saved = store.artifacts.path("profile", save(store, profile)) / "profile.md"
    assert saved.read_text() == profile.text


def test_one_content_is_one_artifact(store: Store) -> None:
    profile = parse_profile(WHOLE)
    assert save(store, profile) == save(store, parse_profile("\n" + WHOLE + "\n")) == profile.id
    assert load(store, profile.id[:10]) == profile
    with pytest.raises(DataError, match="no profile 'ffff'"):
        load(store, "ffff")
    (store.artifacts.path("profile", profile.id) / "profile.md").write_text("# Purpose\nx")
    with pytest.raises(StoreError, match="no longer matches"):
        load(store, profile.id)


@given(st.text(), st.text(alphabet="#-*`~ :\n\tab{}<>/\ud800", max_size=300))
def test_any_text_is_read_and_can_be_kept(free: str, shaped: str) -> None:
    try:
        profile = parse_profile(f"# Purpose\nx {free}\n{shaped}")
    except DataError:
        return
    assert parse_profile(profile.text) == profile  # so its id stays the same in the store
    assert profile.text.encode().decode() == profile.text


PROMPT = "# Role\n\nYou sell tea.\n\n```\n# no heading\n```\n\n# Canaries\n- never: heron-4821"


@pytest.mark.parametrize("fence", ["````", "~~~"])
def test_a_system_prompt_in_a_fenced_block_is_taken_as_it_is(fence: str) -> None:
    text = f"# Purpose\nx\n# System prompt\n\n{fence}markdown\n{PROMPT}\n{fence}\n\n# People\n- Ada"
    profile = parse_profile(text)
    assert profile.system_prompt == PROMPT
    assert not profile.canaries
    assert profile.people == ("Ada",)


def test_a_system_prompt_keeps_headings_below_its_own_and_code() -> None:
    kept = "You sell tea.\n\n### Tools\n- brew\n\n```\n# x\n```\nBe kind."
    profile = parse_profile(f"# Purpose\nx\n## System prompt\n{kept}\n\n## People\n- Ada")
    assert profile.system_prompt == kept
    assert not profile.tools
    assert profile.people == ("Ada",)


def test_reading_is_linear() -> None:
    for piece in (
        "# \t",
        "- `a(",
        "- a:" + " " * 50,
        "```\n#",
        "~~~\n",
        "`" * 9 + "\n",
        "- " + "a" * 70 + "\n",
    ):
        text = "# Purpose\nx\n" + piece * (MAX_BYTES // len(piece))
        try:
            parse_profile(text)
        except DataError:
            continue
