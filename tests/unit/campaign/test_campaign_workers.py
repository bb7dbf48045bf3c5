"""Shards and leases without worker processes: threads work, each case of trouble made by hand."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from campaign_fakes import Recorder, graders, make_case, make_set
from workbench.campaign import execute as execute_module
from workbench.campaign import opening, runner, shards, worker
from workbench.campaign.conduct import ExecuteOptions, conduct
from workbench.campaign.execute import Task, abort, execute, execution_id_of, take
from workbench.campaign.rehearsal import Rehearsal
from workbench.campaign.runner import Try, missing
from workbench.campaign.shards import shares
from workbench.campaign.targets.base import PassThrough, Response
from workbench.campaign.targets.spec import parse_target
from workbench.core.errors import BudgetError, ConfigError, LeaseHeld, WorkbenchError, WorkerLost
from workbench.llm.config import GatewayConfig
from workbench.store import database, schema
from workbench.store.campaigns import counts, shard_name
from workbench.store.events import events
from workbench.store.leases import hold
from workbench.store.records import TestSet

TESTS = TestSet(cases=(*make_set(300, 40), make_case(999, turns=("hello", "and now"))))


@pytest.fixture
def shop():
    with Rehearsal().serve_in_thread() as running:
        yield running


@pytest.fixture(autouse=True)
def crews():
    """Close what workers in this process keep open; a worker process ends with it."""
    yield

    async def close():
        for crew in worker._CREWS.values():
            if not crew.exception():
                await crew.result()[2].aclose()
        worker._CREWS.clear()

    asyncio.run_coroutine_threadsafe(close(), worker._loop()).result()


@pytest.fixture
def threads(monkeypatch):
    """Have threads of this process work; return the shards that they were given."""
    dealt = []

    class Pool(ThreadPoolExecutor):
        def submit(self, made, shard):
            dealt.append(shard)
            return super().submit(made, pickle.loads(pickle.dumps(shard)))

    @contextmanager
    def opened(spec, *, jobs):
        with Pool(jobs) as pool:
            yield pool

    monkeypatch.setattr(shards, "open_executor", opened)
    return dealt


def options_of(*targets, **more):
    usual = {"judges": "rules", "executor": "processes", "workers": 3}
    return ExecuteOptions(targets=targets, **{**usual, **more})


def run(store, options, tests=TESTS, **more):
    return asyncio.run(conduct(store, tests, options, **more))


def attempts_of(done):
    return {(one.target, one.case_id, one.trial, one.received, one.success, one.scores.get("panel"))
            for one in done.attempts()}  # fmt: skip


def rows_in(store):
    with store.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.attempts)).scalar_one()


@given(st.integers(1, 500), st.integers(1, 64))
def test_a_bound_is_divided_without_a_rest(bound, slots):
    parts = shares(bound, slots)
    assert (sum(parts), len(parts)) == (bound, slots)
    assert max(parts) - min(parts) <= 1


@given(
    parallel=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    slots=st.integers(1, 6), size=st.tuples(st.integers(1, 40), st.integers(1, 3)),
    order=st.randoms(use_true_random=False), cents=st.integers(0, 60),
)  # fmt: skip
def test_every_try_is_dealt_once_within_all_bounds_and_priced(parallel, slots, size, order, cents):
    targets = [
        Recorder(f"t{at}", kind="model", batch=1, parallel=width)
        for at, width in enumerate(parallel)
    ]
    tests, trials = make_set(size[0]), size[1]
    for target in targets:
        target.usd_per_call = Decimal("0.01")
    done = {one.name: {(tests.cases[0].id, 0)} for one in targets}
    task = Task(
        store=None, execution="x", targets=targets, graders={}, cases=tests, trials=trials,
        total=0, work="", budget_usd=None, done=done, lease=None, progress=None,
    )  # fmt: skip
    queue = shards._Queue(task, targets, slots=slots)
    for target in targets:
        assert sum(each.get(target.name, 0) for each in queue.parallel) == target.parallel
    dealt, idle = Counter(), set()
    while len(idle) < slots:
        slot = order.randrange(slots)
        tries = queue.take(slot)
        assert tries.keys() <= queue.parallel[slot].keys()
        idle |= set() if tries else {slot}
        some, rest = queue.affordable(tries, Decimal(cents) / 100)
        assert queue.price(some) <= Decimal(cents) / 100
        assert queue.price(some) + queue.price(rest) == queue.price(tries)
        assert not rest or queue.price(some) + Decimal("0.01") > Decimal(cents) / 100
        dealt.update(
            (name, one.case.id, one.trial)
            for part in (some, rest)
            for name in part
            for one in part[name]
        )
    assert dealt == Counter(
        (one.name, each.case.id, each.trial)
        for one in targets
        for each in missing(tests, trials=trials, done=done[one.name])
    )


def test_it_is_the_same_execution_with_the_same_verdicts(store, shop, threads):
    url = f"{shop.base_url}/ask"
    seen = []
    done = run(store, options_of(url, trials=2), progress=seen.append)
    assert done.count == 2 * len(TESTS)
    assert {one.slot for one in threads} == {0, 1, 2}
    assert (seen[-1].done, seen[-1].total, seen[-1].errors) == (done.count, done.count, done.errors)
    assert (rows_in(store), len(store.artifacts.rows("execution"))) == (0, 1)
    assert run(store, options_of(url, trials=2, executor="")).resumed == done.count  # the same id
    alone = run(store, options_of(url, trials=2, executor="", label="alone"))
    assert attempts_of(alone) == attempts_of(done)


def test_judges_are_opened_once_in_each_worker(store, shop, threads, monkeypatch):
    opened = []
    real = worker.open_all

    async def counting(*args, **more):
        opened.append(args)
        return await real(*args, **more)

    monkeypatch.setattr(worker, "open_all", counting)
    run(store, options_of(f"{shop.base_url}/ask"))
    assert len(threads) > 3
    assert len(opened) == 1  # all threads of a process share it


def test_rates_and_bounds_of_targets_and_models_are_divided(store, tmp_path):
    file = tmp_path / "shop.yaml"
    file.write_text("url: http://127.0.0.1:9/\nrequests_per_minute: 60\nparallel: 2\n")

    async def crew(options):
        specs = [parse_target(line) for line in options.targets]
        async with worker.AsyncExitStack() as stack:
            opened = await worker.open_all(store, specs, options, work="w", stack=stack, tell=print)
            return shards.crew_of(opened, specs, options, work="w", test_set="t")

    found = asyncio.run(crew(options_of(str(file), workers=3)))
    assert found.specs[0].requests_per_minute == 30  # two of the three ask it at all
    assert found.options.llm.savings.parallel == 32 // 3
    config = GatewayConfig(provider="scripted")
    asking = options_of(str(file), workers=100, grader="cheap", llm=config)
    many = asyncio.run(crew(asking))
    assert many.workers * many.options.llm.savings.parallel <= 32
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_worker_that_would_make_another_execution_is_refused(store, shop, threads, monkeypatch):
    real = worker.open_all

    async def other(*args, **more):
        opened = await real(*args, **more)
        opened.targets[0].identity = "changed"
        return opened

    monkeypatch.setattr(worker, "open_all", other)
    with pytest.raises(ConfigError, match="give all workers the same store, files and data"):
        run(store, options_of(f"{shop.base_url}/ask"))
    assert rows_in(store) == 0


def test_a_worker_on_another_machine_gets_no_sqlite_file(store, shop, threads, monkeypatch):
    monkeypatch.setattr(database, "platform", SimpleNamespace(node=lambda: "works"))
    with pytest.raises(ConfigError, match="worker works cannot share the SQLite file of "):
        run(store, options_of(f"{shop.base_url}/ask"))
    assert rows_in(store) == 0


def shard_of(store, shop, **changes):
    """Return a shard of an execution whose lease nobody holds."""
    caught = []

    async def catch(task, *, crew):
        dealer = shards._Dealer(task, crew)
        queue = shards._Queue(task, task.targets, slots=1)
        caught.append(replace(dealer._shard(0, queue), **changes))
        raise WorkbenchError("caught")

    real, shards.deal = shards.deal, catch
    try:
        with pytest.raises(WorkbenchError, match="caught"):
            run(store, options_of(f"{shop.base_url}/ask"))
    finally:
        shards.deal = real
    return caught[0]


def test_what_nobody_deals_any_more_is_not_sent(store, shop):
    shard = shard_of(store, shop)
    with pytest.raises(WorkbenchError, match="nobody makes this execution there"):
        worker.work_on(shard)
    with (
        hold(store.engine, shard.execution, holder="another"),
        pytest.raises(WorkbenchError, match="another process makes this execution now"),
    ):
        worker.work_on(shard)
    assert rows_in(store) == 0


def test_a_shard_that_is_dealt_again_sends_only_the_rest(store, shop):
    shard = shard_of(store, shop)
    (name,) = shard.tries
    some = replace(shard, tries={name: shard.tries[name][:50]})
    asked = []
    answer = shop.shop.answer
    shop.shop.answer = lambda said: asked.append(said[-1]) or answer(said)
    with hold(store.engine, shard.execution, holder="coordinator") as lease:
        worker.work_on(replace(some, token=lease.token))
        assert (len(asked), rows_in(store)) == (50, 50)
        worker.work_on(replace(shard, token=lease.token))
    assert rows_in(store) == len(asked) == len({*asked}) == len(shard.tries[name])


def test_who_lost_the_lease_of_a_shard_stops_at_once_and_writes_nothing(store, shop, monkeypatch):
    shard = shard_of(store, shop)
    monkeypatch.setattr(runner, "_LOOK_S", 0.02)
    shop._latency_s = 0.3
    failed = []

    def work(token):
        try:
            worker.work_on(replace(shard, token=token))
        except LeaseHeld as error:
            failed.append(error)

    with hold(store.engine, shard.execution, holder="coordinator") as lease:
        at_work = threading.Thread(target=work, args=(lease.token,))
        at_work.start()
        table = schema.leases
        own = table.c.name == shard_name(shard.execution, 0)
        taken = 0
        while not taken:  # another takes over while the first calls are in flight
            time.sleep(0.01)
            with store.engine.begin() as connection:
                taken = connection.execute(update(table).where(own).values(holder="other")).rowcount
        at_work.join(timeout=20)
    assert failed
    assert rows_in(store) == 0


def test_workers_that_keep_dying_of_a_shard_end_the_run(store, shop, monkeypatch):
    class Dying(ThreadPoolExecutor):
        def submit(self, made, shard):
            def die():
                raise WorkerLost("killed")

            return super().submit(die)

    @contextmanager
    def opened(spec, *, jobs):
        with Dying(jobs) as pool:
            yield pool

    monkeypatch.setattr(shards, "open_executor", opened)
    with pytest.raises(WorkerLost, match="workers keep dying of the same"):
        run(store, options_of(f"{shop.base_url}/ask"))
    (told,) = events(store.engine, kind="attack_run_aborted")
    assert told.details["done"] == 0


def test_a_budget_is_spent_to_the_cent_and_not_beyond(store, shop, threads, tmp_path):
    file = tmp_path / "shop.yaml"
    file.write_text(f"url: {shop.base_url}/ask\nname: shop\nusd_per_call: 0.01\nparallel: 6\n")
    tests = make_set(100)
    with pytest.raises(BudgetError, match=r"the budget of .*0\.25.* leaves too little for shop"):
        run(store, options_of(str(file), budget_usd=Decimal("0.25")), tests)
    assert rows_in(store) == 25
    done = run(store, options_of(str(file), budget_usd=Decimal("1.00")), tests)
    assert (done.count, done.usd) == (100, Decimal("1.00"))
    assert sum(row.usd for row in store.ledger.rows()) == Decimal("1.00")


def test_an_abort_stops_all_of_them(store, shop, threads, monkeypatch):
    monkeypatch.setattr(runner, "_LOOK_S", 0.02)
    monkeypatch.setattr(shards, "_TICK_S", 0.05)
    shop._latency_s = 0.02

    def stop(progress):
        if progress.done:
            abort(store, threads[0].execution)

    with pytest.raises(WorkbenchError, match="aborted; what is done is kept"):
        run(store, options_of(f"{shop.base_url}/ask", trials=3), progress=stop)
    assert 0 < rows_in(store) < 3 * len(TESTS)
    with store.engine.connect() as connection:
        assert connection.execute(select(schema.leases.c.name)).all() == []
    shop._latency_s = 0
    assert run(store, options_of(f"{shop.base_url}/ask", trials=3)).count == 3 * len(TESTS)


def test_guards_run_in_every_worker(store, threads, monkeypatch, bench, encoder):
    monkeypatch.setattr(opening, "_bench", lambda store: (bench, encoder))
    done = run(store, options_of("bare"))
    assert done.count == len(TESTS)
    assert {one.slot for one in threads} == {0, 1, 2}
    assert PassThrough.parallel == 1


def test_who_goes_on_waits_for_the_workers_of_who_was_killed(store, bench, encoder, monkeypatch):
    monkeypatch.setattr(execute_module, "_POLL_S", 0.01)
    tests, target, judged = make_set(5), Recorder("one"), graders(bench, encoder)
    execution = execution_id_of(tests, [target], judged)

    async def both():
        with hold(store.engine, shard_name(execution, 7), holder="worker"):
            going_on = asyncio.create_task(execute(store, tests, [target], judged))
            await asyncio.sleep(0.2)
            assert target.sent == []
        return await going_on

    assert asyncio.run(both()).count == 5


def test_whoever_lost_the_execution_leaves_its_rows_to_who_has_it(store, bench, encoder):
    """Lost between the last attempt and the artifact: the other one still reads the rows."""

    async def make(task):
        await execute_module._make(task)
        with store.engine.begin() as connection:
            connection.execute(update(schema.leases).values(holder="another machine"))

    target = Recorder(name="t")
    with pytest.raises(LeaseHeld, match="went to another"):
        asyncio.run(execute(store, make_set(3), [target], graders(bench, encoder), make=make))
    assert rows_in(store) == 3


def test_whoever_lost_the_execution_stores_nothing_more(store, bench, encoder):
    tests, judged = make_set(300), graders(bench, encoder)
    target = Recorder("one", kind="model", batch=1)
    execution = execution_id_of(tests, [target], judged)
    stolen = []

    def steal(progress):
        with store.engine.begin() as connection:
            connection.execute(
                update(schema.leases)
                .where(schema.leases.c.name == execution)
                .values(holder="another machine")
            )
        stolen.append(rows_in(store))

    with pytest.raises(WorkbenchError, match="another"):
        asyncio.run(execute(store, tests, [target], judged, progress=steal))
    assert rows_in(store) == stolen[0] < 300


def test_two_take_turns(store):
    order = []

    async def one(name):
        async with take(store, "same"):
            order.append(name)
            await asyncio.sleep(0.05)
            order.append(name)

    async def both():
        await asyncio.gather(one("a"), one("b"))

    asyncio.run(both())
    assert order in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


def test_counts_tell_rows_and_what_was_told(store, bench, encoder):
    def answer(prompt):
        if prompt.endswith("1"):
            raise RuntimeError("down")
        return Response(text=f"sure, {prompt}", decision="pass", latency_ms=1.0)

    tests, target = make_set(12), Recorder("one", answer, kind="model", batch=1)
    judged = graders(bench, encoder)
    seen = []

    def look(progress):
        seen.append((progress, counts(store.engine, execution_id_of(tests, [target], judged))))

    asyncio.run(execute(store, tests, [target], judged, progress=look))
    for told, found in seen:
        assert (told.done, told.errors, told.successes) == (
            found["done"], found["errors"], found["successes"]
        )  # fmt: skip
    assert seen[-1][1] == Counter(done=12, errors=2, successes=10)


def test_threads_are_no_workers():
    with pytest.raises(ConfigError, match="leave it out"):
        options_of("bare", executor="threads")
    with pytest.raises(ConfigError, match="workers is -1"):
        options_of("bare", workers=-1)
    with pytest.raises(ConfigError, match="no executor 'cloud'"):
        options_of("bare", executor="cloud")
    assert Try(make_case(1), 0).trial == 0


def test_workers_of_who_was_killed_send_nothing_more(store, shop):
    shard = shard_of(store, shop)
    with hold(store.engine, shard.execution, holder="coordinator") as lease:
        with store.engine.begin() as connection:
            connection.execute(update(schema.leases).values(process="elsewhere:1:1.0", until=1.0))
        with pytest.raises(WorkbenchError, match="whoever made this execution has ended"):
            worker.work_on(replace(shard, token=lease.token))
    assert rows_in(store) == 0


def test_who_lost_the_execution_stops_nobody_elses_workers(store, shop, threads, monkeypatch):
    monkeypatch.setattr(shards, "_TICK_S", 0.05)
    asked = []
    monkeypatch.setattr(shards, "ask_to_stop", lambda *of: asked.append(of))

    def lose(task):
        task.lease.lost.set()
        return "another process makes this execution now"

    monkeypatch.setattr(shards, "look", lose)
    with pytest.raises(WorkbenchError, match="another process makes"):
        run(store, options_of(f"{shop.base_url}/ask", trials=3))
    assert asked == []


def test_what_a_shard_works_with_is_not_closed_for_another(monkeypatch):
    closed = []

    async def opened(packed):
        stack = AsyncExitStack()
        stack.callback(closed.append, packed)
        return None, None, stack

    monkeypatch.setattr(worker, "_open", opened)
    monkeypatch.setattr(worker, "_CREWS", {})
    names = [bytes([number]) for number in range(worker._KEPT + 2)]

    async def use():
        async with worker._opened(names[0]):
            for name in names[1:]:
                async with worker._opened(name):
                    pass
            assert names[0] not in closed
        for crew in worker._CREWS.values():
            await (await crew)[2].aclose()

    asyncio.run(use())
    assert closed[:2] == names[1:3]
    assert sorted(closed) == names
