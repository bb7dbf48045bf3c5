"""Jobs of a server: each in a process of its own, some at a time, the others wait in the store."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.core.errors import InputError, WorkbenchError
from workbench.server.orders import check_request
from workbench.store.jobs import (
    Job,
    add_job,
    cancel_job,
    claim_job,
    finish_job,
    job,
    jobs,
    settle_lost_jobs,
)

if TYPE_CHECKING:
    from workbench.store.database import Store
    from workbench.store.jobs import JobKind

__all__ = ["JobService"]

_log = logging.getLogger(__name__)
_MOST_WAITING = 100
"""Of one user."""
_GRACE_S = 30.0


class JobService:
    """Starts, stops and resumes jobs. Its methods may be called from any thread, and may block.

    Args:
        store_of: User → their store.
        per_user: Jobs of one user that run at a time.
        in_all: Jobs that run at a time.
        command: What a job's process is started with; the job's id and our process's are added.
    """

    def __init__(
        self,
        store_of: Callable[[str], Store],
        *,
        per_user: int = 2,
        in_all: int = 4,
        command: tuple[str, ...] = (sys.executable, "-m", "workbench.server.work"),
    ) -> None:
        self._store_of = store_of
        self._per_user = per_user
        self._in_all = in_all
        self._command = command
        self._door = threading.RLock()
        self._owners: dict[str, None] = {}
        """Whose waiting jobs are started here; other servers may share the store."""
        self._again: dict[str, str] = {}
        """Lost job that was resumed → owner."""
        self._running: dict[str, tuple[str, subprocess.Popen[bytes], threading.Thread]] = {}
        self._is_closed = False

    def submit(
        self, kind: JobKind, request: Mapping[str, Any], *, owner: str, key: str = ""
    ) -> Job:
        """Return a job, new or the one of the same key; it starts as soon as there is room.

        Raises:
            InputError: If the request makes no sense, or too many jobs of the owner wait.
        """
        check_request(kind, request)
        engine = self._store_of(owner).engine
        most = _MOST_WAITING + self._in_all
        queued = jobs(engine, owner=owner, state="queued", limit=most)
        waiting = [one for one in queued if one.id not in self._running]
        is_full = len(waiting) >= _MOST_WAITING
        if is_full and not (key and jobs(engine, owner=owner, key=key, limit=1)):
            raise InputError(f"{len(waiting)} jobs of {owner!r} wait already; cancel some")
        added = add_job(engine, Job(kind=kind, owner=owner, request=dict(request), key=key))
        self.recover(owner)
        return added

    def cancel(self, job_id: str, owner: str) -> Job:
        """Return a job that was asked to stop; one that waits is aborted at once.

        Raises:
            DataError: If this user has none of that id.
        """
        with self._door:
            self._again.pop(job_id, None)
        return cancel_job(self._store_of(owner).engine, job_id, owner=owner)

    def resume(self, job_id: str, *, owner: str) -> Job:
        """Return the job that goes on with another's work: itself if it is lost, else a new one.

        What was answered and stored is not sent again. One that waits, runs or has succeeded is
        returned as it is.

        Raises:
            DataError: If this user has none of that id.
        """
        engine = self._store_of(owner).engine
        settle_lost_jobs(engine)
        found = job(engine, job_id, owner=owner)
        if found.state in {"failed", "aborted"}:
            return self.submit(found.kind, found.request, owner=owner)
        if found.state == "lost":
            with self._door:
                self._again[job_id] = owner
        self.recover(owner)
        return job(engine, job_id, owner=owner)

    def recover(self, owner: str) -> None:
        """Start what of a user waits, also what an earlier server left; settle what is lost."""
        with self._door:
            if owner not in self._owners:
                self._owners[owner] = None
                settle_lost_jobs(self._store_of(owner).engine)
            self._dispatch()

    def close(self, *, grace_s: float = _GRACE_S) -> None:
        """Have all jobs stop, and wait for them; they are lost then, and can be resumed.

        Args:
            grace_s: How long they may take to keep what is in flight, before they are killed.
        """
        with self._door:
            self._is_closed = True
            running = list(self._running.values())
        for _, process, _ in running:
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + grace_s
        for _, process, thread in running:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                process.kill()
                thread.join()

    def _dispatch(self) -> None:
        """Start the oldest jobs that wait, within the limits."""
        busy = Counter(owner for owner, _, _ in self._running.values())
        for job_id, owner in self._waiting():
            if self._is_closed or len(self._running) >= self._in_all:
                return
            if job_id not in self._running and busy[owner] < self._per_user:
                busy[owner] += 1
                self._again.pop(job_id, None)
                self._start(job_id, owner)

    def _waiting(self) -> Iterator[tuple[str, str]]:
        yield from list(self._again.items())
        queued = [
            one
            for owner in self._owners
            for one in jobs(
                self._store_of(owner).engine, owner=owner, state="queued", limit=_MOST_WAITING
            )
        ]
        for one in sorted(queued, key=lambda one: (one.created_at, one.id)):
            yield one.id, one.owner

    def _start(self, job_id: str, owner: str) -> None:
        settings = replace(
            self._store_of(owner).settings, user=owner, run_id=job_id, run_folder=None,
            experiment="", fingerprint="",
        )  # fmt: skip
        log = settings.home / "jobs" / f"{job_id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [*self._command, job_id, str(os.getpid())],
                env={**os.environ, **settings.to_environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is the server's: it asks its jobs to stop
            )
        thread = threading.Thread(
            target=self._follow, args=(job_id, owner, process, log), name=job_id, daemon=True
        )
        self._running[job_id] = (owner, process, thread)
        thread.start()

    def _follow(self, job_id: str, owner: str, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait for the end of a job's process, see that the store knows of it, start the next."""
        status = process.wait()
        try:
            engine = self._store_of(owner).engine
            settle_lost_jobs(engine)
            is_waiting = job(engine, job_id, owner=owner).state == "queued"
            if status and is_waiting and not self._is_closed:  # else it was stopped, and goes on
                self._fail(job_id, owner, f"its process ended with {status} before it began")
            if not log.stat().st_size:
                log.unlink()
        except (WorkbenchError, OSError) as error:
            _log.warning("job %s ended with %s: %s", job_id, status, error)
        with self._door:
            del self._running[job_id]
            try:
                self._dispatch()
            except (WorkbenchError, OSError) as error:  # the next end or request tries again
                _log.warning("no job was started: %s", error)

    def _fail(self, job_id: str, owner: str, why: str) -> None:
        engine = self._store_of(owner).engine
        if claim_job(engine, job_id, owner=owner):
            error = f"{why}; the server's jobs/{job_id}.log says more"
            finish_job(engine, job_id, state="failed", error=error)
