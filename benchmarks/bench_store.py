"""The store under writers that are killed, checked, backed up and restored.

Two processes of four threads write runs, ledger rows, attempts and artifacts for a minute; every
few seconds one is killed with SIGKILL and started again. Then the store is verified::

    python benchmarks/bench_store.py
    python benchmarks/bench_store.py hammer HOME SECONDS
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from workbench.core.identity import new_id, text_id
from workbench.core.settings import Settings, read_settings
from workbench.store.backup import backup, restore
from workbench.store.campaigns import add_attempts, remove_attempts
from workbench.store.database import Store, open_store
from workbench.store.events import tell
from workbench.store.jobs import Job, add_job, claim_job, finish_job, tell_job
from workbench.store.records import Attempt, LedgerRow, Run, now
from workbench.store.verify import verify

PROCESSES, THREADS, SECONDS = 2, 4, 60.0
KILL_EVERY_S = 3.0


def main() -> None:
    """Measure and publish, or play one part."""
    if sys.argv[1:2] == ["write"]:
        write(_settings(sys.argv[2]), seconds=float(sys.argv[3]))
    elif sys.argv[1:2] == ["hammer"]:
        print(json.dumps(hammer(Path(sys.argv[2]), seconds=float(sys.argv[3]))))
    else:
        from measure import publish

        publish("store", [measure()])


def measure() -> dict[str, Any]:
    """Return what was written, how often it was killed, and how long the rest took."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        told = hammer(home, seconds=SECONDS)
        settings = _settings(str(home))
        store = open_store(settings)
        found: dict[str, Any] = {"kills": told["kills"], **told["written"]}
        report, found["verify_s"] = _timed(lambda: verify(store))
        found |= {name: report.to_json()[name] for name in ("damaged", "rests")}
        file = Path(folder) / "store.tar.zst"
        done, found["backup_s"] = _timed(lambda: backup(store, file))
        found |= {"mb": done.bytes / 1e6, "packed_mb": file.stat().st_size / 1e6}
        other = Path(folder) / "other"
        elsewhere = replace(
            settings, home=other, database_url=f"sqlite:///{other / 'workbench.db'}"
        )
        _, found["restore_s"] = _timed(lambda: restore(file, elsewhere))
        store.engine.dispose()
        return found


def _timed(work: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    done = work()
    return done, time.perf_counter() - start


def _settings(home: str) -> Settings:
    return read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "writer"})


def hammer(home: Path, *, seconds: float) -> dict[str, Any]:
    """Let processes write to a store and kill them now and then; return what came of it."""
    home.mkdir(parents=True, exist_ok=True)
    dice, kills, end = random.Random(0), 0, time.monotonic() + seconds  # noqa: S311 - no secrets
    writers = [_start(home, end) for _ in range(PROCESSES)]
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, dice.uniform(0.5, 1.0) * KILL_EVERY_S))
        if end - time.monotonic() < KILL_EVERY_S:
            continue
        number = dice.randrange(PROCESSES)
        os.kill(writers[number].pid, signal.SIGKILL)
        writers[number].wait()
        kills += 1
        writers[number] = _start(home, end)
    for writer in writers:
        if writer.wait(120) != 0:
            raise SystemExit("a writer failed; its reason stands above")
    store = open_store(_settings(str(home)))
    written = {
        "runs": len(store.runs.find()),
        "ledger_rows": len(store.ledger.rows()),
        "artifacts": len(store.artifacts.rows("model")),
        "executions": len(store.artifacts.rows("execution")),
    }
    store.engine.dispose()
    return {"kills": kills, "written": written}


def _start(home: Path, end: float) -> subprocess.Popen[bytes]:
    seconds = max(end - time.monotonic(), 0.5)
    return subprocess.Popen([sys.executable, __file__, "write", str(home), str(seconds)])


def write(settings: Settings, *, seconds: float) -> None:
    """Write to a store with some threads for a while; fails if one of them does."""
    store = open_store(settings)
    end = time.monotonic() + seconds
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with (settings.home / f"said-{new_id('t')}.jsonl").open("w") as said:
                while time.monotonic() < end and not failed:
                    done = _write_once(store)
                    said.write(json.dumps(done) + "\n")
                    said.flush()
        except BaseException as error:  # a thread's failure is the process's
            failed.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.engine.dispose()
    if failed:
        raise SystemExit(f"{type(failed[0]).__name__}: {failed[0]}")


def _write_once(store: Store) -> tuple[str, str]:
    """Return ids of a run and an artifact after all of both is written."""
    run, artifact = new_id("run"), text_id(new_id("a"))
    user = store.settings.user
    job = add_job(store.engine, Job(kind="run", owner=user, key=run, request={"run": run}))
    claim_job(store.engine, job.id, owner=user)
    store.runs.add(
        Run(
            id=run, experiment="hammer", step="s", notebook="n", phase="training", fingerprint=run,
            parameters={}, state="running", owner=user, folder="x", started_at=now(),
        )
    )  # fmt: skip
    with store.artifacts.create("model", artifact, {"run": run}) as folder:
        for name in "ab":
            (folder / name).write_text(artifact * 100)
    _execute(store, text_id(run))
    tell_job(store.engine, job.id, done=1, total=1, usd=Decimal("0.1"))
    costs = [_cost(user, run) for _ in range(3)]
    store.runs.settle(run, costs, state="succeeded", result={"kind": "hammer"}, finished_at=now())
    finish_job(store.engine, job.id, state="succeeded", result={"run": run})
    return run, artifact


def _execute(store: Store, execution: str) -> None:
    """Leave attempts, their artifact, and no attempts, as a campaign does."""
    tell(store, "attack_run_started", execution, {"test_set": "t"})
    attempts = [
        Attempt(
            execution=execution, case_id=str(number), target="t", sent="s", received="r",
            decision="pass", scores={}, success=False, latency_ms=1.0,
        )
        for number in range(5)
    ]  # fmt: skip
    add_attempts(store.engine, attempts)
    with store.artifacts.create("execution", execution, {"test_set": "t"}) as folder:
        (folder / "attempts").write_text(execution)
    remove_attempts(store.engine, execution)


def _cost(user: str, run: str) -> LedgerRow:
    return LedgerRow(
        who=user, job=run, experiment="hammer", phase="training", resource="cpu", quantity=1.0,
        unit="core_s", usd=Decimal("0.000001"), price_version="p", estimated=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
