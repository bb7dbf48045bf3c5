"""Opening what the commands work on."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, get_args

from workbench.core.errors import InputError
from workbench.core.fields import refuse_unknown, suggest

if TYPE_CHECKING:
    from workbench.llm.messages import Request
    from workbench.store.database import Store

__all__ = [
    "EXIT_CODES", "check_options", "interrupt", "open_here", "read_lines", "to_request"
]  # fmt: skip

EXIT_CODES = "Exit status: 0 ok, 1 failed, 2 bad input, 3 budget reached, 4 gate failed."


_FIELDS = {
    "prompt": str, "system": str, "task": str, "difficulty": str, "variant": int,
    "max_tokens": int, "schema": dict,
}  # fmt: skip


def interrupt(_: int, frame: FrameType | None) -> None:
    """Treat SIGTERM as Ctrl-C, by whatever handles that at the moment.

    An event loop cancels its main task then; an exception raised from here would tear through
    whichever task happens to run.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # a shell's background job ignores Ctrl-C
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def open_here(root: Path | None = None) -> Store:
    """Return the store of a project, by default the one around the working folder."""
    from workbench.core.settings import read_settings
    from workbench.store.database import open_store

    return open_store(read_settings(root=root))


def read_lines(given: Sequence[str]) -> list[str]:
    """Return the texts given as arguments, else the lines of standard input that are not empty.

    Raises:
        InputError: If there are none.
    """
    try:
        lines = list(given) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    except UnicodeDecodeError:
        raise InputError("standard input is not UTF-8 text; convert it first") from None
    if not lines:
        raise InputError("no prompts; give arguments, or one per line on standard input")
    return lines


def check_options(usual: Mapping[str, Any]) -> None:
    """Refuse what options say of every request, by the name of the option.

    Raises:
        InputError: If it makes no sense.
    """
    from workbench.llm.messages import Difficulty

    if usual["max_tokens"] < 1:
        raise InputError(f"--max-tokens {usual['max_tokens']}: must be 1 or more")
    if usual["difficulty"] not in get_args(Difficulty):
        hint = suggest(usual["difficulty"], get_args(Difficulty))
        raise InputError(f"--difficulty {usual['difficulty']!r:.60}; {hint}")


def to_request(line: str, number: int, usual: Mapping[str, Any], *, is_json: bool) -> Request:
    """Return the request of one prompt.

    Args:
        line: The prompt, or a JSON object of request fields.
        number: Which one, from 1, for messages.
        usual: Fields that it does not say.
        is_json: Whether it is an object.

    Raises:
        InputError: If the object or a field of it makes no sense.
    """
    from workbench.llm.messages import Difficulty, Request

    where = f"prompt {number}"
    fields = {"prompt": line}
    if is_json:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not JSON: {str(error)[:100]}") from None
        if not isinstance(fields, dict):
            raise InputError(f'{where} is no object; write e.g. {{"prompt": "Hi"}}')
        refuse_unknown(fields, known=tuple(_FIELDS), where=where)
        if "prompt" not in fields:
            raise InputError(f"{where}: an object without a prompt")
        for name, value in fields.items():
            if type(value) is not _FIELDS[name]:
                raise InputError(f"{where}: {name} {value!r:.60} is no {_FIELDS[name].__name__}")
    values = {**usual, **fields}
    if values["difficulty"] not in get_args(Difficulty):
        hint = suggest(values["difficulty"], get_args(Difficulty))
        raise InputError(f"{where}: difficulty {values['difficulty']!r:.60}; {hint}")
    try:
        return Request(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
