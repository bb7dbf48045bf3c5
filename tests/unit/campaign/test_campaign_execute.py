from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from campaign_fakes import (
    Bench,
    Recorder,
    WordEncoder,
    WordJudge,
    WordPanel,
    graders,
    make_case,
    make_set,
)
from workbench.campaign import execute as execute_module
from workbench.campaign import executions, recorder, runner, testsets
from workbench.campaign.execute import abort, execute, execution_id_of
from workbench.campaign.executions import Execution, load_execution
from workbench.campaign.grading import GuardGrader
from workbench.campaign.targets.base import PassThrough, Response
from workbench.core.errors import (
    BudgetError,
    ConfigError,
    DataError,
    LeaseHeld,
    StoreError,
    WorkbenchError,
)
from workbench.store import schema
from workbench.store.artifacts import Artifacts
from workbench.store.campaigns import outcomes
from workbench.store.database import Store
from workbench.store.events import events
from workbench.store.records import Attempt, TestSet


class KilledError(BaseException):
    """Like SIGKILL: nothing in the product may catch it."""


@pytest.fixture
def judged(bench: Bench, encoder: WordEncoder) -> dict[str, object]:
    return graders(bench, encoder)


def run(*args, **options) -> Execution:
    return asyncio.run(execute(*args, **options))


def attempts_of(done: Execution) -> list[Attempt]:
    return list(done.attempts())


def rows_in(store: Store) -> int:
    with store.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.attempts)).scalar_one()


def unsafe(prompt: str) -> Response:
    return Response(text=f"sure, {prompt}", decision="dewrap", latency_ms=2.0)


def test_every_case_meets_every_target_once(store: Store, judged) -> None:
    tests, guard = make_set(70, 5), Recorder("guard", unsafe)
    done = run(store, tests, [PassThrough(), guard], judged)
    made = attempts_of(done)
    pairs = Counter((attempt.target, attempt.case_id) for attempt in made)
    assert pairs == Counter((t, case.id) for t in ("bare", "guard") for case in tests)
    assert sorted(guard.sent) == sorted(case.prompt for case in tests)
    assert (done.targets, done.baselines) == (("bare", "guard"), ("bare",))
    assert (done.count, done.errors, done.resumed, rows_in(store)) == (150, 0, 0, 0)
    assert done == load_execution(store)
    by_id = {case.id: case for case in tests}
    assert all(one.success != by_id[one.case_id].is_control for one in made)
    assert all(one.scores.keys() == {"a", "b"} for one in made)
    assert guard.is_closed


def test_what_is_known_of_a_case_stands_beside_its_attempts(store: Store, judged) -> None:
    tests = TestSet(cases=(make_case(1, strategies=("rot13", "base64")), *make_set(0, 1)))
    rows = run(store, tests, [Recorder()], judged).table().to_pylist()
    known = {case.id: case for case in tests}
    for row in rows:
        case = known[row["case_id"]]
        facts = (case.plugin, case.category, case.severity, case.goal, case.is_control)
        told = [row[name] for name in ("plugin", "category", "severity", "goal", "is_control")]
        assert tuple(told) == facts
    assert {row["strategy"] for row in rows} == {"rot13+base64", "plain"}


@pytest.mark.parametrize("kind", ["guard", "model"])
@pytest.mark.parametrize("seed", range(1, 11))
def test_killed_anywhere_nothing_is_stored_twice_or_sent_again(
    store: Store, judged, seed: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill at random moments: before asking, before and after storing, around the compaction."""
    draw, tests = random.Random(seed), make_set(150, 20)
    shape = {"kind": kind, **({"batch": 1, "parallel": 8} if kind == "model" else {})}
    targets = [Recorder("one", unsafe, **shape), Recorder("two", **shape)]
    stored: Counter[tuple[str, str]] = Counter()
    add, create = recorder.add_attempts, Artifacts.create
    remove = execute_module.remove_attempts

    def maybe_die() -> None:
        if draw.random() < 0.2:
            raise KilledError

    def counting_add(engine, attempts, **more):
        maybe_die()
        add(engine, attempts, **more)
        stored.update((one.target, one.case_id) for one in attempts)
        maybe_die()

    def dying_remove(engine, execution, **more):
        maybe_die()
        remove(engine, execution, **more)
        maybe_die()

    def dying_create(self, *args, **more):
        maybe_die()
        return create(self, *args, **more)

    monkeypatch.setattr(recorder, "add_attempts", counting_add)
    monkeypatch.setattr(execute_module, "remove_attempts", dying_remove)
    monkeypatch.setattr(executions, "remove_attempts", dying_remove)
    monkeypatch.setattr(Artifacts, "create", dying_create)
    kills = 0
    while True:
        known = set(stored)
        before = {target.name: len(target.sent) for target in targets}
        try:
            done = run(store, tests, targets, judged, progress=lambda _: maybe_die())
            break
        except KilledError:
            kills += 1
        finally:
            by_prompt = {case.prompt: case.id for case in tests}
            for target in targets:
                again = {(target.name, by_prompt[p]) for p in target.sent[before[target.name] :]}
                assert again.isdisjoint(known)  # what was stored is not sent again
    assert set(stored.values()) == {1}
    assert done.count == len(attempts_of(done)) == len(stored) == 340
    assert load_execution(store, done.id).count == 340
    run(store, tests, targets, judged)  # whatever a kill left behind is cleared away
    assert rows_in(store) == 0
    assert kills
    want = 2 * 150 if kind == "guard" else 150  # only the first one says "sure"
    assert sum(one.success for one in attempts_of(done) if one.target == "one") == 150
    assert sum(outcome[0] for outcome in outcomes(store.engine).values()) == want


def test_a_resumed_execution_says_so(store: Store, judged) -> None:
    tests, target = make_set(100), Recorder()

    def die(progress) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run(store, tests, [target], judged, progress=die)
    assert 0 < (kept := rows_in(store)) <= len(target.sent)
    seen = []
    done = run(store, tests, [target], judged, progress=seen.append)
    assert (done.resumed, done.count) == (kept, 100)
    assert (seen[-1].done, seen[-1].total) == (100, 100)


def test_a_finished_execution_sends_nothing(store: Store, judged) -> None:
    tests, target = make_set(10), Recorder()
    first = run(store, tests, [target], judged)
    second = run(store, tests, [target], judged)
    assert (len(target.sent), second.resumed) == (10, 10)
    assert attempts_of(first) == attempts_of(second)


def test_another_label_does_the_same_work_anew(store: Store, judged) -> None:
    tests, target = make_set(3), Recorder()
    first = run(store, tests, [target], judged)
    second = run(store, tests, [target], judged, label="Tuesday")
    assert first.id != second.id
    assert len(target.sent) == 6


def test_id_depends_on_everything_that_verdicts_depend_on(bench: Bench, encoder) -> None:
    other_encoder = WordEncoder()
    other_encoder.id = "other"
    known = graders(bench, encoder)
    ids = {
        execution_id_of(tests, targets, judges, **more)
        for tests, targets, judges, more in [
            (make_set(1), [Recorder()], known, {}),
            (make_set(2), [Recorder()], known, {}),
            (make_set(1), [Recorder("x")], known, {}),
            (make_set(1), [Recorder()], graders(Bench(bench.judges, id="2"), encoder), {}),
            (make_set(1), [Recorder()], graders(bench, other_encoder), {}),
            (make_set(1), [Recorder()], known, {"trials": 2}),
            (make_set(1), [Recorder()], known, {"label": "again"}),
            (make_set(1), [Recorder(kind="model")], known, {}),
        ]
    }
    assert len(ids) == 8
    # who judges models decides nothing where there are guards alone
    other = {**known, "model": WordPanel(name="panel/2")}
    first, second = (execution_id_of(make_set(1), [Recorder()], one) for one in (known, other))
    assert first == second


def test_several_trials_are_kept_apart(store: Store, judged) -> None:
    flips: Counter[str] = Counter()

    def answer(prompt: str) -> Response:
        flips[prompt] += 1
        return Response(text="sure" if flips[prompt] % 2 else "no", decision="pass", latency_ms=1.0)

    done = run(store, make_set(5), [Recorder(answer=answer, kind="model")], judged, trials=3)
    by_case: dict[str, list[Attempt]] = {}
    for one in attempts_of(done):
        by_case.setdefault(one.case_id, []).append(one)
    assert [sorted(one.trial for one in mine) for mine in by_case.values()] == [[0, 1, 2]] * 5
    assert all(sum(one.success for one in mine) == 2 for mine in by_case.values())


def test_a_model_is_asked_in_parallel_and_never_beyond_its_bound(store: Store, judged) -> None:
    model = Recorder("model", kind="model", batch=1, parallel=7)
    run(store, make_set(100), [model], judged)
    assert model.most_in_flight == 7
    assert len(model.sent) == 100


def test_turns_go_before_the_prompt_and_the_replies_are_kept(store: Store, judged) -> None:
    class Chat(Recorder):
        async def respond(self, conversations):
            (turns,) = conversations
            self.sent.append(turns)
            replies = tuple(f"reply to {turn}" for turn in turns)
            return [
                Response(text=replies[-1], decision="pass", latency_ms=1.0, replies=replies[:-1])
            ]

    chat = Chat("chat", kind="model", batch=1)
    tests = TestSet(cases=(make_case(1, turns=("hi", "and now"), prompt="the last"),))
    (attempt,) = attempts_of(run(store, tests, [chat], judged))
    assert chat.sent == [("hi", "and now", "the last")]
    assert attempt.sent == "hi\n\nand now\n\nthe last"
    assert attempt.received == "reply to the last"
    assert attempt.replies == ("reply to hi", "reply to and now")


def test_a_target_that_raises_leaves_errors_of_its_cases_alone(store: Store, judged) -> None:
    def answer(prompt: str) -> Response:
        if prompt.endswith(" 3"):
            raise RuntimeError("mail admin@example.com, it broke")
        return unsafe(prompt)

    done = run(store, make_set(5), [Recorder("weak", answer)], judged)
    (failed,) = [attempt for attempt in attempts_of(done) if attempt.error]
    assert failed.sent.endswith(" 3")
    assert (failed.decision, failed.success, failed.scores) == ("error", False, {})
    assert failed.error == "RuntimeError: mail [email], it broke"
    assert done.errors == 1
    assert sum(attempt.success for attempt in attempts_of(done)) == 4
    (told,) = events(store.engine, kind="target_failed")
    assert told.details["error"] == failed.error


def test_only_what_failed_is_tried_again(store: Store, judged) -> None:
    broken = {2, 3}

    def answer(prompt: str) -> Response:
        if int(prompt.rsplit(maxsplit=1)[-1]) in broken:
            raise RuntimeError("down")
        return unsafe(prompt)

    target = Recorder("weak", answer)
    first = run(store, make_set(6), [target], judged)
    assert (first.errors, first.count) == (2, 6)
    assert run(store, make_set(6), [target], judged).errors == 2  # not unless asked to
    target.sent.clear()
    broken.remove(2)
    again = run(store, make_set(6), [target], judged, retry_errors=True)
    assert (again.id, again.errors, again.count) == (first.id, 1, 6)
    assert [prompt.split()[-1] for prompt in target.sent] == ["2"]
    broken.clear()
    whole = run(store, make_set(6), [target], judged, retry_errors=True)
    assert (whole.errors, whole.count, rows_in(store)) == (0, 6, 0)
    assert sum(one.success for one in attempts_of(whole)) == 6


def test_a_retry_that_is_killed_goes_on(store: Store, judged) -> None:
    is_down = True

    def answer(prompt: str) -> Response:
        if is_down:
            raise RuntimeError("down")
        return unsafe(prompt)

    def die(progress) -> None:
        raise KilledError

    target = Recorder("weak", answer)
    run(store, make_set(80), [target], judged)
    is_down = False
    with pytest.raises(KilledError):
        run(store, make_set(80), [target], judged, retry_errors=True, progress=die)
    kept, sent = rows_in(store), len(target.sent)
    assert kept
    run(store, make_set(80), [target], judged)  # reading the old one drops none of the new rows
    assert rows_in(store) == kept
    done = run(store, make_set(80), [target], judged, retry_errors=True)
    assert (done.errors, done.count, rows_in(store)) == (0, 80, 0)
    assert len(target.sent) == sent + 80 - kept


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
def test_nonsense_from_a_target_is_an_error(store: Store, judged, respond, error) -> None:
    target = Recorder()

    async def answer(prompts):
        return respond(prompts)

    target.respond = answer
    done = run(store, make_set(1), [target], judged)
    assert done.errors == 1
    assert all(error in attempt.error for attempt in attempts_of(done))


def test_a_reached_budget_stops_and_keeps(store: Store, judged) -> None:
    sent = []

    def answer(prompt: str) -> Response:
        if len(sent) >= 64:
            raise BudgetError("1 usd spent; raise the limit")
        sent.append(prompt)
        return unsafe(prompt)

    with pytest.raises(BudgetError):
        run(store, make_set(100), [Recorder("paid", answer)], judged)
    assert rows_in(store) == 64
    (told,) = events(store.engine, kind="attack_run_aborted")
    assert "raise the limit" in told.details["why"]


def test_declared_prices_are_reserved_before_and_never_exceeded(store: Store, judged) -> None:
    def paid(prompt: str) -> Response:
        return replace(unsafe(prompt), usd=Decimal("0.01"))

    target = Recorder("paid", paid, kind="model", batch=1, parallel=16)
    target.usd_per_call, target.is_metered = Decimal("0.01"), False
    with pytest.raises(BudgetError, match="raise --budget"):
        run(store, make_set(100), [target], judged, budget_usd=Decimal("0.25"))
    assert len(target.sent) == rows_in(store) == 25
    with pytest.raises(BudgetError):  # what was spent before counts
        run(store, make_set(100), [target], judged, budget_usd=Decimal("0.30"))
    assert len(target.sent) == 30
    done = run(store, make_set(100), [target], judged, budget_usd=Decimal(2))
    assert (done.count, done.usd, len(target.sent)) == (100, Decimal("1.00"), 100)
    rows = store.ledger.rows()
    assert sum(row.usd for row in rows) == Decimal("1.00")
    assert {(row.phase, row.resource, row.unit) for row in rows} == {("execution", "paid", "call")}


def test_an_abort_keeps_what_is_done(store: Store, judged, monkeypatch) -> None:
    monkeypatch.setattr(runner, "_LOOK_S", 0.005)
    tests, target = make_set(900), Recorder(batch=10)
    execution = execution_id_of(tests, [target], judged)

    def stop(progress) -> None:
        abort(store, execution)

    with pytest.raises(WorkbenchError, match="run it again"):
        run(store, tests, [target], judged, progress=stop)
    assert rows_in(store) == len(target.sent) < 900  # calls in flight ended and are kept
    assert run(store, tests, [target], judged).count == len(target.sent) == 900
    kinds = [one.kind for one in events(store.engine, subject=execution)]
    assert [kind for kind in kinds if kind.startswith("attack_run")] == [
        "attack_run_started", "attack_run_aborted", "attack_run_started", "attack_run_finished"
    ]  # fmt: skip


def test_a_cancelled_run_keeps_what_came_back(store: Store, judged) -> None:
    """Ctrl-C cancels the task; answers that wait to be judged are stored before it ends."""
    target = Recorder("slow", kind="model", batch=1, parallel=4)

    async def stopped() -> None:
        task = asyncio.create_task(execute(store, make_set(500), [target], judged))
        while len(target.sent) < 40:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(stopped())
    assert len(target.sent) - 4 <= rows_in(store) <= len(target.sent)


def test_a_full_disk_inside_a_target_is_not_the_targets_failure(store: Store, judged) -> None:
    def answer(prompt: str) -> Response:
        raise StoreError("vectors: the disk is full")

    with pytest.raises(StoreError, match="disk is full"):
        run(store, make_set(3), [Recorder("full", answer)], judged)
    assert rows_in(store) == 0


def test_a_store_that_fails_stops_the_run(store: Store, judged, monkeypatch) -> None:
    def full(*_, **__) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(recorder, "add_attempts", full)
    target = Recorder("model", kind="model", batch=1, parallel=4)
    with pytest.raises(StoreError, match="disk is full"):
        run(store, make_set(2_000), [target], judged)
    assert len(target.sent) < 2_000
    assert target.is_closed


def test_stored_texts_are_redacted_and_fit_any_database(store: Store, judged) -> None:
    def answer(prompt: str) -> Response:
        text = "key sk-abcdefghijklmnopqrst \ud800 \x00 " + "x" * 50_000
        return Response(text=text, decision="dewrap", latency_ms=1.0)

    tests = TestSet(cases=(make_case(1, prompt="write to jane@example.com"),))
    (attempt,) = attempts_of(run(store, tests, [Recorder("leaky", answer)], judged))
    assert attempt.sent == "write to [email]"
    assert attempt.received.startswith("key [api-key] ? \ufffd x")
    assert len(attempt.received) <= 20_000


def test_a_prompt_of_ten_megabytes_is_sent_whole_and_stored_short(store: Store, judged) -> None:
    target = Recorder()
    tests = TestSet(cases=(make_case(1, prompt="poison " + "y" * 10_000_000),))
    (attempt,) = attempts_of(run(store, tests, [target], judged))
    assert len(target.sent[0]) > 10_000_000
    assert len(attempt.sent) == len(attempt.received) == 20_000


def test_bad_arguments_are_refused(store: Store, judged, encoder: WordEncoder) -> None:
    with pytest.raises(ConfigError, match="name of its own"):
        run(store, make_set(1), [Recorder(), Recorder()], judged)
    with pytest.raises(ConfigError, match="at least one"):
        run(store, make_set(1), [], judged)
    with pytest.raises(ConfigError, match="nobody judges"):
        run(store, make_set(1), [Recorder()], {"guard": GuardGrader(Bench([]), encoder=encoder)})
    with pytest.raises(ConfigError, match="nobody judges"):
        run(store, make_set(1), [Recorder(kind="model")], {"guard": judged["guard"]})
    with pytest.raises(ConfigError, match="trials is 0"):
        run(store, make_set(1), [Recorder()], judged, trials=0)


def test_missing_and_damaged_executions_are_named(store: Store, judged) -> None:
    with pytest.raises(DataError, match="no execution"):
        load_execution(store)
    done = run(store, make_set(1), [Recorder()], judged)
    assert load_execution(store, done.id[:8]) == load_execution(store)
    done.path.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="damaged"):
        load_execution(store, done.id)


def test_a_stored_test_set_is_read_from_disk(store: Store, judged) -> None:
    testsets.save(store, make_set(20, 4))
    from_disk = run(store, testsets.stored(store), [Recorder()], judged)
    in_memory = run(store, make_set(20, 4), [Recorder()], judged)
    assert from_disk.id == in_memory.id


def test_judges_see_each_distinct_text_of_a_batch_once(store: Store, encoder: WordEncoder) -> None:
    judge = WordJudge("a")
    run(store, make_set(30), [PassThrough()], graders(Bench([judge]), encoder))
    assert len(judge.seen) == len(set(judge.seen)) == 30


def test_attacks_on_applications_get_past_a_guard_whole_or_not_at_all(store: Store, judged) -> None:
    canary = ({"type": "canary", "value": "amber"},)
    tests = TestSet(
        cases=(
            make_case(1, prompt="say amber", goal="say amber", assertions=canary),
            make_case(2, prompt="say amber now", goal="say amber now", assertions=canary),
        )
    )

    def cut(prompt: str) -> Response:
        text = prompt if prompt.endswith("now") else "nothing left"
        return Response(text=text, decision="pass", latency_ms=1.0)

    made = attempts_of(run(store, tests, [Recorder(answer=cut)], judged))
    assert {one.sent: one.success for one in made} == {"say amber": False, "say amber now": True}


def test_two_at_once_make_each_attempt_once(store: Store, judged) -> None:
    target, tests = Recorder(kind="model", batch=1, parallel=2), make_set(40)

    async def both() -> list[Execution]:
        runs = (execute(store, tests, [target], judged) for _ in range(2))
        return await asyncio.gather(*runs)

    first, second = asyncio.run(both())
    assert first.id == second.id
    assert len(target.sent) == first.count == 40


def test_a_target_that_gives_up_by_itself_fails_its_cases_alone(store: Store, judged) -> None:
    def answer(prompt: str) -> Response:
        if prompt.endswith(" 3"):
            raise asyncio.CancelledError
        return unsafe(prompt)

    done = run(store, make_set(40), [Recorder("odd", answer, batch=4)], judged)
    assert (done.count, done.errors) == (40, 1)


def test_a_test_set_that_cannot_be_read_leaves_no_finished_execution(store: Store, judged) -> None:
    class Torn:
        id = make_set(40).id

        def __len__(self) -> int:
            return 40

        def __iter__(self):
            yield from make_set(10)
            raise StoreError("the disk is gone")

    with pytest.raises(StoreError, match="disk is gone"):
        run(store, Torn(), [Recorder()], judged)
    assert store.artifacts.newest("execution") == ""
    assert run(store, make_set(40), [Recorder()], judged).count == 40


class Refusing(WordPanel):
    """Judges so many answers, then has no money left."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    async def grade(self, answered):
        self.left -= len(answered)
        if self.left < 0:
            raise BudgetError("the judge's budget is spent")
        return await super().grade(answered)


def test_answers_that_are_paid_are_kept_where_the_judge_cannot_go_on(store: Store, judged) -> None:
    def paid(prompt: str) -> Response:
        return replace(unsafe(prompt), usd=Decimal("0.01"))

    model = Recorder("paid", paid, kind="model", batch=1, parallel=8)
    model.usd_per_call, model.is_metered = Decimal("0.01"), False
    broke = {**judged, "model": Refusing(64)}
    with pytest.raises(BudgetError, match="judge's budget"):
        run(store, make_set(400), [model], broke)
    sent = len(model.sent)
    assert rows_in(store) == sent < 400
    assert sum(row.usd for row in store.ledger.rows()) == Decimal("0.01") * sent
    broke["model"].left = 10_000
    done = run(store, make_set(400), [model], broke)
    assert len(model.sent) == 400  # nothing is paid twice
    assert done.errors == sent - 64
    assert {one.error for one in attempts_of(done) if one.error} == {
        "not judged: the judge's budget is spent"
    }
    whole = run(store, make_set(400), [model], broke, retry_errors=True)
    assert (whole.errors, len(model.sent)) == (0, 400 + sent - 64)
    assert whole.usd == Decimal("0.01") * len(model.sent)  # the tries that were lost cost too


def test_a_judge_that_breaks_does_not_hang_the_run(store: Store, judged) -> None:
    class Slow(WordPanel):
        async def grade(self, answered):
            await asyncio.sleep(0.2)
            raise BudgetError("nothing left")

    model = Recorder("model", kind="model", batch=1, parallel=300)
    with pytest.raises(BudgetError, match="nothing left"):
        run(store, make_set(2_000), [model], {**judged, "model": Slow()})
    assert rows_in(store) == len(model.sent) < 2_000


def test_what_no_judge_has_an_opinion_on_counts_neither_way(store: Store, judged) -> None:
    class Silent(WordPanel):
        async def grade(self, answered):
            found = await super().grade(answered)
            return [replace(one, is_judged=False, success=True) for one in found]

    model = Recorder("model", unsafe, kind="model")
    done = run(store, make_set(3), [model], {**judged, "model": Silent()})
    assert done.errors == 3
    assert not any(one.success for one in attempts_of(done))
    assert all(one.error.startswith("not judged: looked for") for one in attempts_of(done))


def test_an_abort_cuts_waits_short(store: Store, judged, monkeypatch) -> None:
    class Stuck(Recorder):
        async def respond(self, conversations):
            self.sent.append("x")
            await asyncio.sleep(3_600)

    monkeypatch.setattr(runner, "_GRACE_S", 0.05)
    monkeypatch.setattr(runner, "_LOOK_S", 0.01)
    tests, target = make_set(5), Stuck("stuck", kind="model", batch=1, parallel=2)

    async def stopped() -> None:
        task = asyncio.create_task(execute(store, tests, [target], judged))
        while not target.sent:
            await asyncio.sleep(0.01)
        abort(store, execution_id_of(tests, [target], judged))
        await task

    with pytest.raises(WorkbenchError, match="aborted"):
        asyncio.run(stopped())


def test_retries_count_against_the_budget_that_went_before(store: Store, judged) -> None:
    is_down = True

    def flaky(prompt: str) -> Response:
        if is_down:
            raise RuntimeError("down")
        return replace(unsafe(prompt), usd=Decimal("0.01"))

    target = Recorder("paid", flaky, kind="model", batch=1)
    target.usd_per_call, target.is_metered = Decimal("0.01"), False
    run(store, make_set(10), [target], judged, budget_usd=Decimal("0.15"))
    is_down = False
    with pytest.raises(BudgetError):
        run(store, make_set(10), [target], judged, budget_usd=Decimal("0.15"), retry_errors=True)
    assert sum(row.usd for row in store.ledger.rows()) == Decimal("0.15")


def test_a_retry_that_is_killed_between_two_folders_loses_nothing(store: Store, judged) -> None:
    done = run(store, make_set(3), [Recorder()], judged)
    folder = done.path.parent
    folder.replace(folder.with_name(f".{folder.name}.old"))
    assert load_execution(store, done.id).count == 3


def test_a_test_set_stays_while_it_is_executed(store: Store, judged) -> None:
    test_set_id = testsets.save(store, make_set(70))
    deleted = []

    def look(progress) -> None:
        with pytest.raises(DataError, match="in use by"):
            testsets.delete(store, test_set_id)
        deleted.append(False)

    done = run(store, testsets.stored(store), [Recorder()], judged, progress=look)
    assert deleted
    assert done.count == 70


def test_personal_data_of_a_goal_is_not_stored_either(store: Store, judged) -> None:
    tests = TestSet(cases=(make_case(1, goal="mail jane@example.com", prompt="mail her"),))
    (row,) = run(store, tests, [Recorder()], judged).table(["goal"]).to_pylist()
    assert row["goal"] == "mail [email]"


def test_events_tell_what_got_through_past_a_defense_where_there_is_one(store, judged) -> None:
    app = Recorder("app", unsafe, kind="model", defends=False)
    run(store, make_set(3, 1), [app], judged)
    hits = events(store.engine, kind="vulnerable_prompt_detected")
    assert [one.details["target"] for one in hits] == ["app"] * 3
    guarded = Recorder("guarded", unsafe, kind="model")
    run(store, make_set(3, 1), [app, guarded], judged)
    hits = events(store.engine, kind="vulnerable_prompt_detected")[3:]
    assert [one.details["target"] for one in hits] == ["guarded"] * 3


def test_a_store_that_does_not_answer_hides_no_lost_lease(store, judged, monkeypatch) -> None:
    held, sent, looked, release = [], [], threading.Event(), threading.Event()
    hold = execute_module.hold

    @contextmanager
    def remembered(*args, **options):
        with hold(*args, **options) as lease:
            held.append(lease)
            yield lease

    def hang(*_, **__) -> str:
        looked.set()
        release.wait(20)
        return ""

    async def respond(prompts):
        sent.append(time.monotonic())
        await asyncio.sleep(0.01)
        return [unsafe(prompt[-1]) for prompt in prompts]

    async def cut() -> float:
        making = asyncio.create_task(execute(store, make_set(3_000), [target], judged))
        await asyncio.to_thread(looked.wait, 20)
        held[0].lost.set()
        lost_at = time.monotonic()
        try:
            with pytest.raises(LeaseHeld, match="others may go on"):
                await asyncio.wait_for(making, 10)
        finally:
            release.set()
        return lost_at

    target = Recorder("one", unsafe)
    monkeypatch.setattr(target, "respond", respond)
    monkeypatch.setattr(execute_module, "hold", remembered)
    monkeypatch.setattr(execute_module, "why_stop", hang)
    lost_at = asyncio.run(cut())
    assert sent
    assert max(sent) <= lost_at
