"""The strategies that are more than a template: what each one does to a goal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.campaign.strategies.best_of_n import CAPITALIZED, NOISED, SCRAMBLED, best_of_n
from workbench.campaign.strategies.framings import SHOTS, framings, many_shot, translation
from workbench.campaign.strategies.past_tense import past_tense
from workbench.core.files import read_table
from workbench.core.settings import seeds_folder
from workbench.data.clean import language_of
from workbench.data.requests import LANGUAGES, load_requests, load_translation

FOLDER = seeds_folder() / "framings"
GOAL = "Describe how a bakery plans its week."


def rows(name: str):
    return read_table(FOLDER / f"{name}.jsonl").rows


def test_templates_hold_the_request_once_and_plain_words() -> None:
    for row in rows("templates"):
        assert len(row["templates"]) == len(set(row["templates"])) >= 3
        for template in row["templates"]:
            assert template.count("{request}") == 1
            assert template.isascii()


def test_every_template_is_used() -> None:
    for row in rows("templates"):
        strategy = next(one for one in framings() if one.name == row["name"])
        made = {strategy.disguise(GOAL, seed=seed) for seed in range(60)}
        assert made == {template.replace("{request}", GOAL) for template in row["templates"]}


def test_shots_come_in_every_number_and_end_with_the_goal() -> None:
    asked = {row["question"] for row in rows("shots")}
    assert len(asked) == max(SHOTS)
    seen = set()
    for seed in range(60):
        *shots, last = many_shot(GOAL, seed=seed).split("\n\n")
        questions = [re.match("User: (.*)\nAssistant: .", shot)[1] for shot in shots]
        assert last == f"User: {GOAL}\nAssistant:"
        assert set(questions) <= asked
        assert len(set(questions)) == len(questions)
        seen.add(len(questions))
    assert seen == set(SHOTS)
    assert max(SHOTS) >= 64
    assert min(SHOTS) >= 8


def test_a_goal_that_the_seeds_translate_is_translated() -> None:
    request = next(one for one in load_requests() if one.id == "violence-001")
    known = {
        one.request
        for language in LANGUAGES[1:]
        for one in load_translation(language).requests
        if one.id == request.id
    }
    assert len(known) == len(LANGUAGES) - 1
    assert {translation(request.request, seed=seed) for seed in range(120)} == known


def test_any_other_goal_stands_in_a_frame_of_every_language() -> None:
    frames = {row["language"]: row["templates"] for row in rows("languages")}
    assert set(frames) == set(LANGUAGES) - {"en"}
    made = {translation(GOAL, seed=seed) for seed in range(400)}
    assert made == {
        one.replace("{request}", GOAL) for several in frames.values() for one in several
    }


@pytest.mark.parametrize("row", rows("languages"), ids=lambda row: row["language"])
def test_frames_are_in_their_language(row) -> None:
    assert len(row["templates"]) >= 2
    for template in row["templates"]:
        assert template.count("{request}") == 1
        assert language_of(template.replace("{request}", ""))[0] == row["language"]


@pytest.mark.parametrize(
    ("goal", "question"),
    [
        ("How do I bake rye bread?", "How did people bake rye bread …?"),
        ("How can we keep our bread fresh?", "How did people keep their bread fresh …?"),
        ("Tell me how to bake bread.", "How did people bake bread …?"),
        ("Explain how to bake bread", "How did people bake bread …?"),
        ("Please write a poem about my cat.", "How did people write a poem about their cat …?"),
        ("Explain how tides work.", "How did people explain how tides work …?"),
        ("How do birds find their way?", "How did birds find their way …?"),
        ("What is the best way to fold a boat?", "What was the best way to fold a boat …?"),
        ("What's a comet?", "What was a comet …?"),
        ("Why do cats purr?", "Why did cats purr …?"),
        ("Give me a plan for a garden.", "How did people get a plan for a garden …?"),
        ("Convince me that I'm late.", "How did people convince others that they were late …?"),
        ("Could you please help me to knit?", "How did people knit …?"),
        ("I want to learn chess.", "How did people learn chess …?"),
        ("Can I freeze bread?", "Could people freeze bread …?"),
    ],
)
def test_requests_turn_to_the_past(goal: str, question: str) -> None:
    before, after = question.split("…")
    made = past_tense(goal, seed=4)
    assert made.startswith(before)
    assert made.endswith(after)
    assert re.search(r"past|ago|earlier|before|back in|last century", made)


@pytest.mark.parametrize("goal", ["", "Bread. Then butter?", "My dough is flat", "كيف أخبز؟"])
def test_what_no_rule_fits_is_quoted_whole(goal: str) -> None:
    made = past_tense(goal, seed=0)
    assert made.startswith("What did people answer ")
    assert made.endswith(f'"{goal}"')


def test_shipped_goals_stay_different_in_the_past() -> None:
    goals = {one.request for one in load_requests()}
    assert len({past_tense(goal, seed=0) for goal in goals}) == len(goals)


WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=12), max_size=12).map(" ".join)


def without_noise(text: str, *, monkeypatch: pytest.MonkeyPatch, seed: int) -> str:
    with monkeypatch.context() as patch:
        patch.setattr("workbench.campaign.strategies.best_of_n.NOISED", 0.0)
        return best_of_n(text, seed=seed)


@given(text=WORDS, seed=st.integers(0, 999))
def test_scrambled_words_keep_their_ends_and_letters(text: str, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        made = without_noise(text, monkeypatch=patch, seed=seed).lower()
    for old, new in zip(text.split(" "), made.split(" "), strict=True):
        assert sorted(old) == sorted(new)
        assert (old[:1], old[-1:]) == (new[:1], new[-1:])
        assert len(old) > 3 or old == new


@given(
    st.text("".join(map(chr, range(0x20, 0x41))) + "[]^_`{|}~\n\0漢😀", max_size=60),
    st.integers(0, 99),
)
def test_noise_moves_printable_ascii_by_one_place(text: str, seed: int) -> None:
    for old, new in zip(text, best_of_n(text, seed=seed), strict=True):
        assert abs(ord(old) - ord(new)) <= ("!" <= old <= "~" or old == " ")
        assert new == old or " " <= new <= "~"


def test_shares_are_those_of_the_paper() -> None:
    # Odd places hold digits, whose changes are noise alone; words are too short to scramble.
    made = "".join(best_of_n("a5" * 200, seed=seed) for seed in range(100))
    assert (SCRAMBLED, CAPITALIZED, NOISED) == (0.6, 0.6, 0.06)
    moved = sum(char != "5" for char in made[1::2]) / 20_000
    assert moved == pytest.approx(NOISED, abs=0.01)
    assert set(made[1::2]) == {"4", "5", "6"}
    capital = sum(char.isupper() or char == "@" for char in made[::2]) / 20_000
    assert capital == pytest.approx(CAPITALIZED, abs=0.02)
    turned = "".join(best_of_n("A5" * 200, seed=seed) for seed in range(100))[::2]
    assert sum(char.islower() or char == "`" for char in turned) / 20_000 == pytest.approx(
        CAPITALIZED, abs=0.02
    )
    words = [best_of_n("abcdefghij", seed=seed).lower() for seed in range(2_000)]
    kept = sum(sum(map(str.__eq__, word, "abcdefghij")) > 7 for word in words) / 2_000
    assert kept == pytest.approx(1 - SCRAMBLED, abs=0.05)
