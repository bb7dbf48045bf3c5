"""``python -m workbench.llm.loopback``: prints its URL, serves until stopped."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from workbench.core.errors import InputError
from workbench.llm.loopback import Faults, LoopbackServer, parse_faults

__all__ = ["main"]

_PORTS = 65_536
_AMOUNTS = {
    "latency-s": "seconds until an answer begins",
    "batch-delay-s": "seconds until a message batch has ended",
    "requests-per-minute": "rate limit per API key and model; 0: none",
    "tokens-per-minute": "rate limit of prompt tokens per API key and model; 0: none",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuse in one line; ``--help`` has the rest."""
        self.exit(2, f"error: {message}\n")


async def _serve(**options: Any) -> None:
    async with LoopbackServer(**options) as server:
        print(server.base_url, flush=True)  # noqa: T201 - for whoever started it
        await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = _Parser(
        prog="python -m workbench.llm.loopback",
        description="Serve models on 127.0.0.1 that bill, limit and fail as the services do;"
        " nothing leaves this machine, any API key is good. Prints the base URL.",
    )
    parser.add_argument("--port", type=_port, default=0, help="TCP port; 0: a free one")
    parser.add_argument("--seed", type=int, default=0, help="of answers and faults")
    parser.add_argument(
        "--faults",
        type=_faults,
        default="",
        metavar="NAME=SHARE,…",
        help="share of requests per fault, an HTTP status or a name, e.g."
        " 429=0.05,drop=0.02,retry_after_s=0.1; an unknown name lists them",
    )
    parser.add_argument(
        "--ledger",
        type=Path,
        dest="ledger_file",
        metavar="FILE",
        help="file that gets a line of JSON per billed request",
    )
    for name, told in _AMOUNTS.items():
        parser.add_argument(f"--{name}", type=_amount, default=0.0, metavar="N", help=told)
    options = vars(parser.parse_args())
    with suppress(KeyboardInterrupt):
        try:
            asyncio.run(_serve(**options))
        except OSError as error:
            place = error.filename or f"port {options['port']}"
            parser.error(f"{place}: {os.strerror(error.errno or 0)}; name another one")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) >= _PORTS:
        raise argparse.ArgumentTypeError(f"{text} is no port; write 0 to {_PORTS - 1}")
    return int(text)


def _amount(text: str) -> float:
    amount = float(text) if text.replace(".", "", 1).isdecimal() else -1.0
    if not 0 <= amount < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 up")
    return amount


def _faults(text: str) -> Faults:
    try:
        return parse_faults(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    main()
