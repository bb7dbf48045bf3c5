"""What went wrong, as RFC 9457 problem details: one shape for every error of every route."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tornado.web import HTTPError

from workbench.core.errors import BudgetError, GateError, InputError, ModelError, WorkbenchError
from workbench.core.plain import one_line

__all__ = ["MEDIA_TYPE", "Refusal", "problem_of"]

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[WorkbenchError], int], ...] = (
    (BudgetError, 402),
    (InputError, 422),
    (GateError, 422),
    (ModelError, 502),
)
"""What an error of the tree is over HTTP; others of the tree are the store's."""
_SHOWN = 500
"""Most characters of a detail: it may quote what was sent."""


class Refusal(HTTPError):  # noqa: N818 - like tornado's Finish, an answer
    """A request that is not served, and why.

    Args:
        status: HTTP status.
        detail: Names the thing, the value and the fix, in one line.
        headers: To be sent with it.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail)
        self.detail = detail
        self.headers = headers or {}


def problem_of(error: BaseException | None, *, status: int, home: Path) -> dict[str, Any]:
    """Return the problem details of an error; what nobody meant to say is not told.

    Args:
        error: What was raised; None where only a status is known.
        status: That status, where the error itself has none.
        home: Folder of the store, whose path is nobody's business.
    """
    detail = ""
    if isinstance(error, Refusal):
        status, detail = error.status_code, error.detail
    elif isinstance(error, HTTPError):  # Jupyter's own
        status, detail = error.status_code, str(error.log_message or "")
    elif isinstance(error, WorkbenchError):
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 503)
        detail = "the store cannot be used at the moment; the server's log says why"
        if status != HTTPStatus.SERVICE_UNAVAILABLE:
            detail = str(error).replace(str(home), "the store")
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    return {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": one_line(detail)[:_SHOWN] or title,
    }
