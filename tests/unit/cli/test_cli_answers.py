"""Answers in order as they come, whatever order they come in; progress for whoever waits."""

import asyncio
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.cli import answers
from workbench.cli.answers import Answers
from workbench.core.errors import ModelError
from workbench.llm.messages import Answer, Usage


def answer(text):
    return Answer(text=text, stop_reason="end_turn", model="m", usage=Usage())


def take(order, *, failed=(), total=5, as_json=False):
    printer = Answers(total, as_json=as_json)

    async def run():
        async with printer.watched():
            for place in order:
                is_failed = place in failed
                printer.take(place, ModelError("no") if is_failed else answer(f"text {place}"))

    asyncio.run(run())
    return printer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(5)), failed=st.sets(st.integers(0, 4)))
def test_line_n_is_prompt_n(capsys, order, failed):
    printer = take(order, failed=failed)
    lines = capsys.readouterr().out.split("\n")[:-1]
    assert lines == ["" if n in failed else f"text {n}" for n in range(5)]
    assert printer.failed == len(failed)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=st.sets(st.integers(0, 4)))
def test_what_was_bought_before_an_end_is_printed_in_its_place(capsys, taken):
    take(sorted(taken, reverse=True))
    lines = capsys.readouterr().out.split("\n")[:-1]
    wanted = [f"text {n}" if n in taken else "" for n in range(max(taken, default=-1) + 1)]
    assert lines == wanted


def test_objects_name_their_prompt_and_why_it_failed(capsys):
    take([3, 0], failed={3}, as_json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["number"], first["text"]) == (1, "text 0")
    assert second == {"number": 4, "error": "no"}


def test_an_answer_is_printed_once_all_before_it_are(capsys):
    printer = Answers(3, as_json=False)
    printer.take(1, answer("second"))
    assert capsys.readouterr().out == ""
    printer.take(0, answer("first"))
    assert capsys.readouterr().out == "first\nsecond\n"


def test_progress_is_told_while_nothing_comes(capsys, monkeypatch):
    monkeypatch.setattr(answers, "_EVERY_S", 0.001)
    printer = Answers(7, as_json=False)

    async def run():
        async with printer.watched():
            printer.take(1, ModelError("no"))
            await asyncio.sleep(0.03)

    asyncio.run(run())
    assert "1 of 7 answered, 1 of them failed" in capsys.readouterr().err.splitlines()
