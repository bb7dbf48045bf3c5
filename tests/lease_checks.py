"""What leases promise, checked alike on every database."""

from __future__ import annotations

import threading
import time

from sqlalchemy import Engine, text

from workbench.core.errors import LeaseHeld
from workbench.store.leases import database_seconds, hold
from workbench.store.transaction import transaction


def check_one_holder_at_a_time(engine: Engine) -> None:
    """Eight threads take turns, and none works while another does."""
    inside: list[int] = []
    most: list[int] = []
    refused: list[str] = []

    def work(number: int) -> None:
        for _ in range(3):
            try:
                with hold(engine, "work", holder=f"thread {number}"):
                    inside.append(number)
                    most.append(len(inside))
                    time.sleep(0.005)
                    inside.remove(number)
            except LeaseHeld as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most
    assert set(most) == {1}
    assert len(most) + len(refused) == 24
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM leases")).scalar() == 0
        seconds = connection.exec_driver_sql(
            f"SELECT {database_seconds(engine).compile(engine)}"
        ).scalar()
    assert abs(float(seconds) - time.time()) < 1
