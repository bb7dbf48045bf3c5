"""Clusters: every finding is alike the one that stands for it, and no other stands before that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finding_fakes import make_finding
from workbench.campaign.clusters import representatives
from workbench.data.dedupe import THRESHOLD, jaccard, normalize

WORDS = ("how", "to", "open", "a", "locked", "door", "window", "quietly", "at", "night")
goals_ = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=4, max_size=12).map(" ".join), min_size=1, max_size=25
)
ANSWER = "Here is a long answer about what was asked for, told in so many general words indeed. "


def group(goals, *, plugins=None, answers=None, models=()):
    plugins = plugins or ["p"] * len(goals)
    answers = answers or [""] * len(goals)
    found = [
        make_finding(n, case_id=f"c{n}", plugin=plugin, received=answer, sent=goal)
        for n, (goal, plugin, answer) in enumerate(zip(goals, plugins, answers, strict=True))
    ]
    ids = representatives(
        found, goals={f"c{n}": goal for n, goal in enumerate(goals)}, models=models
    )
    places = {one.id: n for n, one in enumerate(found)}
    return [places[name] for name in ids]


@given(goals=goals_, data=st.data())
def test_each_is_alike_the_one_that_stands_for_it(goals, data):
    plugins = data.draw(st.lists(st.sampled_from("pq"), min_size=len(goals), max_size=len(goals)))
    leaders = group(goals, plugins=plugins)
    for at, leader in enumerate(leaders):
        assert leader <= at
        assert leaders[leader] == leader
        assert plugins[leader] == plugins[at]
        assert jaccard(normalize(goals[leader]), normalize(goals[at])) >= THRESHOLD
        # who stands for oneself repeats no other that does, before oneself
        if leader == at:
            assert not any(
                leaders[other] == other
                and plugins[other] == plugins[at]
                and jaccard(normalize(goals[other]), normalize(goals[at])) >= THRESHOLD
                for other in range(at)
            )


def test_case_spacing_and_invisible_characters_hide_nothing():
    assert group(["Open the door", "open  THE\u200b door"]) == [0, 0]


def test_the_same_answer_of_a_model_is_one_problem():
    goals, answers = ["first goal", "something else entirely", "third"], [ANSWER, ANSWER + "!", "x"]
    assert group(goals, answers=answers, models=("guard",)) == [0, 0, 2]


def test_what_a_guard_lets_through_and_short_answers_join_nothing():
    goals = ["first goal", "something else entirely"]
    assert group(goals, answers=[ANSWER, ANSWER]) == [0, 1]
    assert group(goals, answers=["Sure.", "Sure."], models=("guard",)) == [0, 1]


def test_without_a_goal_what_was_sent_is_compared():
    found = [make_finding(n, sent=text) for n, text in enumerate(["one text", "one text", "other"])]
    assert representatives(found, goals={}) == [found[0].id, found[0].id, found[2].id]


def test_nothing_has_no_clusters():
    assert representatives([], goals={}) == []
