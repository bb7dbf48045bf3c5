from __future__ import annotations

import random
from collections import Counter

import pytest
from sqlalchemy import func, select

from campaign_fakes import Bench, Recorder, WordEncoder, WordJudge, make_case, make_set
from workbench.campaign import execute as execute_module
from workbench.campaign import executions
from workbench.campaign.execute import execute, execution_id_of
from workbench.campaign.executions import load_execution
from workbench.campaign.targets.base import PassThrough, Response
from workbench.core.errors import BudgetError, ConfigError, DataError, StoreError
from workbench.store import schema
from workbench.store.artifacts import Artifacts
from workbench.store.database import Store
from workbench.store.records import TestSet


class KilledError(BaseException):
    """Like SIGKILL: nothing in the product may catch it."""


def rows_in(store: Store) -> int:
    with store.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.attempts)).scalar_one()


def unsafe(prompt: str) -> Response:
    return Response(text=f"sure, {prompt}", decision="dewrap", latency_ms=2.0)


def test_every_case_meets_every_target_once(
    store: Store, bench: Bench, encoder: WordEncoder
) -> None:
    tests, guard = make_set(70, 5), Recorder("guard", unsafe)
    done = execute(store, tests, [PassThrough(), guard], bench, encoder=encoder)
    pairs = Counter((attempt.target, attempt.case_id) for attempt in done.attempts)
    assert pairs == Counter((t, case.id) for t in ("bare", "guard") for case in tests.cases)
    assert sorted(guard.sent) == sorted(case.prompt for case in tests.cases)
    assert (done.targets, done.baselines) == (("bare", "guard"), ("bare",))
    assert (done.errors, done.resumed, rows_in(store)) == (0, 0, 0)
    assert done == load_execution(store)
    by_id = {case.id: case for case in tests.cases}
    assert all(one.success != by_id[one.case_id].is_control for one in done.attempts)
    assert all(one.scores.keys() == {"a", "b"} for one in done.attempts)


@pytest.mark.parametrize("seed", range(1, 11))
def test_killed_anywhere_nothing_is_stored_twice_or_sent_again(
    store: Store, bench: Bench, encoder: WordEncoder, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill at random moments: before asking, before and after storing, around the compaction."""
    draw, tests = random.Random(seed), make_set(150, 20)
    targets = [Recorder("one", unsafe), Recorder("two")]
    stored: Counter[tuple[str, str]] = Counter()
    add, create = execute_module.add_attempts, Artifacts.create
    remove = execute_module.remove_attempts

    def maybe_die() -> None:
        if draw.random() < 0.25:
            raise KilledError

    def counting_add(engine, attempts):
        maybe_die()
        add(engine, attempts)
        stored.update((one.target, one.case_id) for one in attempts)
        maybe_die()

    def dying_remove(engine, execution):
        maybe_die()
        remove(engine, execution)
        maybe_die()

    def dying_create(self, *args):
        maybe_die()
        return create(self, *args)

    monkeypatch.setattr(execute_module, "add_attempts", counting_add)
    monkeypatch.setattr(execute_module, "remove_attempts", dying_remove)
    monkeypatch.setattr(executions, "remove_attempts", dying_remove)
    monkeypatch.setattr(Artifacts, "create", dying_create)
    kills = 0
    while True:
        known = set(stored)
        before = {target.name: len(target.sent) for target in targets}
        try:
            done = execute(
                store, tests, targets, bench, encoder=encoder, progress=lambda _: maybe_die()
            )
            break
        except KilledError:
            kills += 1
        finally:
            by_prompt = {case.prompt: case.id for case in tests.cases}
            for target in targets:
                again = {(target.name, by_prompt[p]) for p in target.sent[before[target.name] :]}
                assert again.isdisjoint(known)  # what was stored is not sent again
    assert set(stored.values()) == {1}
    assert len(done.attempts) == len(stored) == 340
    assert rows_in(store) == 0
    # At most the batch in flight is lost with each kill.
    assert sum(len(target.sent) for target in targets) <= 340 + 64 * kills
    assert kills
    assert sum(one.success for one in done.attempts) == 2 * 150


def test_a_resumed_execution_says_so(store: Store, bench: Bench, encoder: WordEncoder) -> None:
    tests, target = make_set(100), Recorder()

    def die(progress) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        execute(store, tests, [target], bench, encoder=encoder, progress=die)
    assert rows_in(store) == len(target.sent) == 64
    seen = []
    done = execute(store, tests, [target], bench, encoder=encoder, progress=seen.append)
    assert (done.resumed, len(target.sent)) == (64, 100)
    assert (seen[-1].done, seen[-1].total) == (100, 100)


def test_a_finished_execution_sends_nothing(
    store: Store, bench: Bench, encoder: WordEncoder
) -> None:
    tests, target = make_set(10), Recorder()
    first = execute(store, tests, [target], bench, encoder=encoder)
    second = execute(store, tests, [target], bench, encoder=encoder)
    assert (len(target.sent), second.resumed) == (10, 10)
    assert first.attempts == second.attempts


def test_id_depends_on_everything_that_verdicts_depend_on(
    bench: Bench, encoder: WordEncoder
) -> None:
    other_encoder = WordEncoder()
    other_encoder.id = "other"
    ids = {
        execution_id_of(tests, targets, graders, encoder=one)
        for tests, targets, graders, one in [
            (make_set(1), [Recorder()], bench, encoder),
            (make_set(2), [Recorder()], bench, encoder),
            (make_set(1), [Recorder("x")], bench, encoder),
            (make_set(1), [Recorder()], Bench(bench.judges, id="bench-2"), encoder),
            (make_set(1), [Recorder()], bench, other_encoder),
        ]
    }
    assert len(ids) == 5


def test_a_target_that_raises_leaves_errors_of_its_cases_alone(
    store: Store, bench: Bench, encoder: WordEncoder
) -> None:
    def answer(prompt: str) -> Response:
        if prompt.endswith(" 3"):
            raise RuntimeError("mail admin@example.com, it broke")
        return unsafe(prompt)

    done = execute(store, make_set(5), [Recorder("weak", answer)], bench, encoder=encoder)
    (failed,) = [attempt for attempt in done.attempts if attempt.error]
    assert failed.sent.endswith(" 3")
    assert (failed.decision, failed.success, failed.scores) == ("error", False, {})
    assert failed.error == "RuntimeError: mail [email], it broke"
    assert done.errors == 1
    assert sum(attempt.success for attempt in done.attempts) == 4


@pytest.mark.parametrize(
    ("respond", "error"),
    [
        (lambda prompts: [], "0 responses to 1 prompts"),
        (lambda prompts: None, "TypeError"),
        (
            lambda prompts: [Response(text="x", decision="maybe", latency_ms=1.0)] * len(prompts),
            "maybe",
        ),
        (
            lambda prompts: [Response(text="x", decision="pass", latency_ms=float("nan"))],
            "latency_ms is nan",
        ),
        (
            lambda prompts: [Response(text=None, decision="pass", latency_ms=1.0)] * len(prompts),
            "TypeError",
        ),
    ],
)
def test_nonsense_from_a_target_is_an_error(store, bench, encoder, respond, error) -> None:
    target = Recorder()
    target.respond = respond
    done = execute(store, make_set(1), [target], bench, encoder=encoder)
    assert done.errors == 1
    assert all(error in attempt.error for attempt in done.attempts)


def test_a_reached_budget_stops_and_keeps(store: Store, bench: Bench, encoder: WordEncoder) -> None:
    sent = []

    def answer(prompt: str) -> Response:
        if len(sent) >= 64:
            raise BudgetError("1 usd spent; raise the limit")
        sent.append(prompt)
        return unsafe(prompt)

    with pytest.raises(BudgetError):
        execute(store, make_set(100), [Recorder("paid", answer)], bench, encoder=encoder)
    assert rows_in(store) == 64


def test_a_full_disk_inside_a_target_is_not_the_targets_failure(
    store: Store, bench: Bench, encoder: WordEncoder
) -> None:
    def answer(prompt: str) -> Response:
        raise StoreError("vectors: the disk is full")

    with pytest.raises(StoreError, match="disk is full"):
        execute(store, make_set(3), [Recorder("full", answer)], bench, encoder=encoder)
    assert rows_in(store) == 0


def test_stored_texts_are_redacted_and_fit_any_database(
    store: Store, bench: Bench, encoder: WordEncoder
) -> None:
    def answer(prompt: str) -> Response:
        text = "key sk-abcdefghijklmnopqrst \ud800 \x00 " + "x" * 50_000
        return Response(text=text, decision="dewrap", latency_ms=1.0)

    tests = TestSet(cases=(make_case(1, prompt="write to jane@example.com"),))
    done = execute(store, tests, [Recorder("leaky", answer)], bench, encoder=encoder)
    (attempt,) = done.attempts
    assert attempt.sent == "write to [email]"
    assert attempt.received.startswith("key [api-key] ? \ufffd x")
    assert len(attempt.received) <= 20_000


def test_bad_arguments_are_refused(store: Store, bench: Bench, encoder: WordEncoder) -> None:
    with pytest.raises(ConfigError, match="name of its own"):
        execute(store, make_set(1), [Recorder(), Recorder()], bench, encoder=encoder)
    with pytest.raises(ConfigError, match="at least one"):
        execute(store, make_set(1), [], bench, encoder=encoder)
    with pytest.raises(ConfigError, match="no judges"):
        execute(store, make_set(1), [Recorder()], Bench([]), encoder=encoder)


def test_missing_and_damaged_executions_are_named(store: Store, bench: Bench, encoder) -> None:
    with pytest.raises(DataError, match="no execution"):
        load_execution(store)
    done = execute(store, make_set(1), [Recorder()], bench, encoder=encoder)
    (store.artifacts.path("execution", done.id) / "attempts.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="damaged"):
        load_execution(store, done.id)


def test_judges_see_each_distinct_text_of_a_batch_once(store: Store, encoder: WordEncoder) -> None:
    judge = WordJudge("a")
    execute(store, make_set(30), [PassThrough()], Bench([judge]), encoder=encoder)
    assert len(judge.seen) == len(set(judge.seen)) == 30
