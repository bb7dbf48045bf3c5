"""The OpenAPI 3.1 document, made from the table of routes so that it cannot drift from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from workbench import __version__
from workbench.server.problems import MEDIA_TYPE
from workbench.server.routes import Route
from workbench.server.schemas import PROBLEM

__all__ = ["document"]

_ABOUT = (
    "Every route takes a token (`Authorization: token …`) or Jupyter's cookie; with a cookie,"
    " changes also take the header X-XSRFToken. Lists are paged: follow the Link header to the"
    " next page. Errors are problem details (RFC 9457)."
)
_ALWAYS = (400, 403, 405, 500, 503)
_WITH_BODY = (413, 415, 422)
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Sent again with the same body it names the same job; with another it is 422.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
}


def document(routes: Sequence[Route], *, base: str) -> dict[str, Any]:
    """Return the document as JSON values.

    Args:
        routes: The table.
        base: What every address of this server begins with.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(f"/{route.path}", {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Prompt safety workbench", "version": __version__, "description": _ABOUT},
        "servers": [{"url": base.rstrip("/") or "/"}],
        "security": [{"token": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": PROBLEM},
            "securitySchemes": {
                "token": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "`token SECRET` or `Bearer SECRET`",
                },
                "cookie": {
                    "type": "apiKey", "in": "cookie", "name": "_xsrf",
                    "description": "The login cookie of Jupyter, with X-XSRFToken for changes.",
                },
            },
        },
    }  # fmt: skip


def _operation(route: Route) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.about,
        "parameters": [
            *(_parameter(name, schema, "path") for name, schema in route.ids.items()),
            *(_parameter(name, schema, "query") for name, schema in route.query.items()),
            *([_IDEMPOTENCY] if route.method == "POST" else []),
        ],
        "responses": {
            **{str(code): _answer(route, code) for code in route.answers},
            **{str(code): _problem(code) for code in _refusals(route)},
        },
    }
    if route.body is not None:
        content = {"application/json": {"schema": route.body}}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _parameter(name: str, schema: Mapping[str, Any], place: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _answer(route: Route, status: int) -> dict[str, Any]:
    schema = route.answers[status]
    told: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if schema is not None:
        told["content"] = {route.media_type.partition(";")[0]: {"schema": schema}}
    headers = {}
    if route.is_paged:
        headers["Link"] = "Leads to the next page; absent on the last."
    if route.method == "POST":
        headers["Location"] = "Where the job is."
    if headers:
        told["headers"] = {
            name: {"description": about, "schema": {"type": "string"}}
            for name, about in headers.items()
        }
    return told


def _refusals(route: Route) -> list[int]:
    with_body = _WITH_BODY if route.body is not None else (413,)
    with_cursor = (422,) if route.is_paged else ()
    return sorted({*_ALWAYS, *with_body, *with_cursor, *route.refusals})


def _problem(status: int) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}
