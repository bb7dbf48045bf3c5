"""What a job does, in a process of its own: ``python -m workbench.server.work JOB_ID SERVER_PID``.

The environment names the store and the owner. A crash, a kill or a leak of one job hurts no other.
Whoever stops it, what is stored is kept: an owner who cancels gets an aborted job; a server that
ends leaves a lost one, which can be resumed and sends nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from workbench.core.errors import StoreError, WorkbenchError
from workbench.core.money import ZERO
from workbench.core.plain import one_line
from workbench.core.redact import redact
from workbench.core.settings import cores
from workbench.server.orders import budget_usd, execute_options, experiment_file, generate_config
from workbench.store.database import Store, as_user, open_store
from workbench.store.jobs import Job, claim_job, finish_job, tell_job

if TYPE_CHECKING:
    from workbench.campaign.conduct import ExecuteOptions
    from workbench.campaign.generate import Preview
    from workbench.llm.config import GatewayConfig
    from workbench.notebook.experiment import Experiment
    from workbench.notebook.runner import Event

__all__ = ["STOPPED", "main"]

STOPPED = 143
"""Exit status of a job that was stopped and can be resumed: what a shell says of SIGTERM."""
_EVERY_S = 0.5
_GRACE_S = 20.0
"""Between asking an execution to end its calls in flight and not waiting for them."""
_SHOWN = 500
_PAID = re.compile(r"(^|:)(anthropic|openai):")

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Do a job and return the exit status; one that somebody else does already is left alone."""
    from workbench.core.settings import read_settings

    job_id, server = sys.argv[1:] if arguments is None else arguments
    settings = replace(read_settings(), run_id=job_id)
    store = as_user(open_store(settings), settings.user)
    if os.getppid() != int(server):  # it died before we began: left for the next one
        return 0
    claimed = claim_job(store.engine, job_id, owner=settings.user)
    if claimed is None:
        return 0
    teller = _Teller(store, claimed, server=int(server))
    signal.signal(signal.SIGTERM, lambda *_: teller.end())
    teller.start()
    state, result, error = "succeeded", {}, ""
    try:
        result = _WORK[claimed.kind](_Bench(store, claimed, teller))
    except (KeyboardInterrupt, WorkbenchError) as caught:
        state, error = "failed", str(caught) or "interrupted"
    except Exception as caught:  # noqa: BLE001 - a job must be closed whatever libraries raise
        _log.exception("job %s", job_id)
        state, error = "failed", f"{type(caught).__name__}: {caught}"
    teller.close()
    if state == "failed" and teller.is_ended and not teller.is_canceled:
        return STOPPED  # neither a failure nor an end: its process is gone, its work is kept
    if state == "failed" and teller.is_canceled:
        state, error = "aborted", "canceled; what is done is kept"
    told = one_line(redact(error))[:_SHOWN]
    finish_job(store.engine, job_id, state=state, result=result, error=told)  # type: ignore[arg-type]
    return int(state == "failed")


class _Teller:
    """Says twice a second how far a job is, and has it stop when it should.

    Args:
        store: Of the owner.
        job: Which runs here.
        server: Process that started this one.
    """

    def __init__(self, store: Store, job: Job, *, server: int) -> None:
        self._store = store
        self._job = job
        self._told: dict[str, Any] = {}
        self._server = server
        self._ended = threading.Event()
        """Somebody wants the process to end."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="teller", daemon=True)
        self.is_canceled = False

    @property
    def is_ended(self) -> bool:
        """Whether the job was asked to stop, by its owner or with its server."""
        return self._ended.is_set()

    def start(self) -> None:
        """Begin to tell, and to look whether to stop."""
        self._thread.start()

    def end(self) -> None:
        """Have the job stop; it can be resumed."""
        self._ended.set()

    def say(self, **told: Any) -> None:
        """Take how far it is: done, total, note, usd."""
        self._told = {**self._told, **told}

    def close(self) -> None:
        """Tell the last of it."""
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        told: dict[str, Any] = {}
        asked_at = 0.0
        while True:
            is_over = self._over.wait(_EVERY_S)
            news, self_told = {}, self._told
            if self_told is not told:
                news, told = self_told, self_told
            if not self._tell(news):
                self.is_canceled = True
                self._ended.set()
            if os.getppid() != self._server:  # the server died: nobody is there to watch it spend
                self._ended.set()
            if is_over:
                return
            if self._ended.is_set():
                asked_at = asked_at or time.monotonic()
                self._stop(is_urgent=time.monotonic() - asked_at > _GRACE_S)

    def _tell(self, news: Mapping[str, Any]) -> bool:
        try:
            return tell_job(self._store.engine, self._job.id, **news)
        except StoreError as error:  # the next one may get through
            _log.warning("job %s: %s", self._job.id, error)
            return True

    def _stop(self, *, is_urgent: bool) -> None:
        """Ask an execution to end, which keeps the calls in flight; interrupt all other work."""
        from workbench.campaign.execute import abort
        from workbench.store.events import events

        begun = [] if is_urgent else events(self._store.engine, kind="attack_run_started", limit=50)
        running = {one.subject for one in begun if one.run == self._job.id}
        for execution in running:
            abort(self._store, execution)
        if not running:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class _Bench:
    """What the work on a job needs: the store of its owner, its request, and whom to tell."""

    def __init__(self, store: Store, job: Job, teller: _Teller) -> None:
        self.store = store
        self.request = job.request
        self.say = teller.say
        self._config: GatewayConfig | None = None

    def note(self, line: str) -> None:
        """Tell a line, whoever wrote it."""
        self.say(note=one_line(redact(line))[:_SHOWN])

    def config(self) -> GatewayConfig:
        """Return how models are called: as the settings say, within what the owner has left."""
        from workbench.llm.config import read_config

        if self._config is None:
            self._config = _within_quota(self.store, read_config(self.store.settings))
        return self._config

    def refuse_if_spent(self) -> None:
        """Refuse work that costs where nothing is left to spend.

        Raises:
            BudgetError: If the owner's quota is used up, or a threshold that stops all spending is
                exceeded.
        """
        from workbench.core.settings import project_root
        from workbench.cost.alerts import refuse_if_exceeded
        from workbench.store.usage import read_quotas, refuse_over_quota

        root = project_root()
        refuse_if_exceeded(self.store, root, now=time.time())
        owner = self.store.settings.user
        refuse_over_quota(self.store.engine, owner, quotas=read_quotas(root))


def _generate(bench: _Bench) -> dict[str, Any]:
    from workbench.campaign import testsets
    from workbench.campaign.generate import preview

    plan = preview(bench.store, generate_config(bench.request))
    cost = ZERO
    if plan.pending:
        bench.say(total=len(plan.pending), note=f"a model writes {len(plan.pending)} of the cases")
        plan, cost = _run(_write(bench, plan))
    saved = testsets.save(bench.store, plan.test_set, cost_usd=str(cost))
    made = len(plan.test_set)
    note = f"{len(plan.pending)} cases are not written" if plan.pending else ""
    bench.say(done=made, total=made, note=note, usd=cost)
    return {"datasetId": saved, "testCount": made, "usd": str(cost)}


async def _write(bench: _Bench, plan: Preview) -> tuple[Preview, Decimal]:
    from workbench.campaign.conduct import generation_work, open_attacker
    from workbench.campaign.generate import fill
    from workbench.store.campaigns import spent

    bench.refuse_if_spent()
    config = _within(bench.config(), budget_usd(bench.request))
    async with open_attacker(bench.store, plan, config=config, tell=bench.note) as (attacker, _):
        plan = await fill(plan, attacker)
    return plan, spent(bench.store.engine, generation_work(plan))


def _execute(bench: _Bench) -> dict[str, Any]:
    from workbench.campaign import testsets
    from workbench.campaign.conduct import conduct
    from workbench.campaign.execute import Progress

    options = execute_options(bench.request)
    if options.grader or any(_PAID.search(line) for line in options.targets):
        bench.refuse_if_spent()
    options = _limited(options, bench.config())
    cases = testsets.stored(bench.store, bench.request["datasetId"])

    def show(at: Progress) -> None:
        note = f"{at.successes:,} got through, {at.errors:,} errors"
        bench.say(done=at.done, total=at.total, usd=at.usd, note=note)

    done = _run(conduct(bench.store, cases, options, progress=show, tell=bench.note))
    bench.say(done=done.count, total=done.count, usd=done.usd)
    return {
        "datasetId": done.test_set, "executionId": done.id, "attempts": done.count,
        "resumed": done.resumed, "errors": done.errors, "usd": str(done.usd),
        "providers": list(done.targets),
    }  # fmt: skip


def _both(bench: _Bench) -> dict[str, Any]:
    made = _generate(bench)
    bench.request = {**bench.request, "datasetId": made["datasetId"]}
    bench.say(done=0, total=0, note="")
    return {**made, **_execute(bench)}  # the gateway counts both phases of a job together


def _experiment(bench: _Bench) -> dict[str, Any]:
    from workbench.notebook.experiment import load_experiment
    from workbench.notebook.runner import Runner

    request = bench.request
    experiment = load_experiment(
        experiment_file(request),
        overrides=tuple(request.get("overrides", ())),
        rehearsal=bool(request.get("rehearsal", False)),
    )
    experiment = _affordable(experiment, bench.config())

    def show(event: Event) -> None:
        step = f"{event.member.step} {event.member.label}".strip()
        bench.note(f"{step}: {event.kind}{': ' if event.text else ''}{event.text}")
        bench.say(done=event.done, total=event.total)

    runner = Runner(experiment, store=bench.store, jobs=min(cores(), 4), cores=cores(), tell=show)
    if not runner.run():
        raise WorkbenchError(
            f"a step of experiment {experiment.name!r} failed; see its runs, mend it and resume"
        )
    return {"experiment": experiment.name}


_WORK: Mapping[str, Callable[[_Bench], dict[str, Any]]] = {
    "generate": _generate, "execute": _execute, "run": _both, "experiment": _experiment,
}  # fmt: skip


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _within(config: GatewayConfig, most: Decimal | None) -> GatewayConfig:
    """Return the config with a limit for this job, where that is lower than the one it has."""
    run = config.budgets.run
    limits = [one for one in (run, most) if one is not None]
    return replace(config, budgets=replace(config.budgets, run=min(limits, default=None)))


def _within_quota(store: Store, config: GatewayConfig) -> GatewayConfig:
    """Return the config with limits from the owner's quota.

    By the month the gateway counts exactly, over all jobs; of days and weeks each job may take what
    was left when it began.
    """
    from workbench.core.settings import project_root
    from workbench.store.usage import read_quotas, usage, window_start

    owner, quotas = store.settings.user, read_quotas(project_root())
    quota = quotas.of(owner)
    if quota is None:
        return config
    limit = quota * quotas.credit_usd
    budgets = config.budgets
    if quotas.window == "month":
        user = limit if budgets.user is None else min(budgets.user, limit)
        budgets = replace(budgets, user=user)
    used = usage(store.engine, owner, since=window_start(quotas.window))
    before = store.ledger.rows(jobs=[store.settings.run_id])  # of this job, if it is resumed
    left = max(limit - sum((one.usd for one in used), ZERO), ZERO)
    billed = sum((row.usd for row in before if not row.estimated), ZERO)
    return _within(replace(config, budgets=budgets), billed + left)


def _limited(options: ExecuteOptions, config: GatewayConfig) -> ExecuteOptions:
    """Return options with how models are called, and no more to spend than that allows."""
    limits = (options.budget_usd, config.budgets.run)
    least = min((one for one in limits if one is not None), default=None)
    is_given = options.budget_usd is not None  # else the config alone says it
    return replace(options, llm=config, budget_usd=least if is_given else None)


def _affordable(experiment: Experiment, config: GatewayConfig) -> Experiment:
    """Return the experiment with the owner's limit beside its own."""
    budgets = replace(experiment.llm.budgets, user=config.budgets.user)
    return replace(experiment, llm=replace(experiment.llm, budgets=budgets))


if __name__ == "__main__":
    sys.exit(main())
