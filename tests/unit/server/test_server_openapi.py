"""The document and the table of routes say the same, and so does the page about them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from tornado.web import HTTPError

from workbench.core.errors import BudgetError, ConfigError, GateError, ModelError, StoreError
from workbench.server.extension import mounted
from workbench.server.openapi import document
from workbench.server.problems import Refusal, problem_of
from workbench.server.schemas import PROBLEM
from workbench.server.table import ROUTES

DOCUMENT = document(ROUTES, base="/user/anna/")
DOCS = Path(__file__).resolve().parents[3] / "docs" / "server.md"
HOME = Path("/secret/home")


def test_every_route_is_in_the_document_once():
    told = Counter(
        (method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item
    )
    assert told == Counter((one.method, f"/{one.path}") for one in ROUTES)
    assert len({one.name for one in ROUTES}) == len(ROUTES)
    assert DOCUMENT["servers"] == [{"url": "/user/anna"}]


@pytest.mark.parametrize("route", ROUTES, ids=lambda one: one.name)
def test_a_route_names_what_its_path_does_and_has_sound_schemas(route):
    assert set(re.findall(r"{(\w+)}", route.path)) == set(route.ids)
    schemas = [*route.ids.values(), *route.query.values(), *route.answers.values(), route.body]
    for schema in schemas:
        if schema is not None:
            Draft202012Validator.check_schema(schema)
    if route.is_paged:
        assert (route.query["limit"]["maximum"], route.query["limit"]["default"]) == (200, 50)
    told = DOCUMENT["paths"][f"/{route.path}"][route.method.lower()]
    assert {str(code) for code in route.answers} <= set(told["responses"])
    assert {"400", "403", "500"} <= set(told["responses"])


def test_the_page_about_the_server_names_every_route():
    text = DOCS.read_text()
    missing = [one.path for one in ROUTES if f"`{one.method} /{one.path}`" not in text]
    assert missing == []


@pytest.mark.parametrize("route", ROUTES, ids=lambda one: one.name)
def test_a_path_leads_to_its_own_route_only(route):
    path = re.sub(r"{\w+}", "a-1", route.path)
    found = [routes for pattern, _, given in mounted(ROUTES) if re.fullmatch(pattern, path)
             for routes in [given["routes"]]]  # fmt: skip
    assert [one[route.method].name for one in found] == [route.name]
    assert not any(re.fullmatch(pattern, f"{path}/x/y") for pattern, _, _ in mounted(ROUTES))


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError("max is 0; give 1"), 422), (BudgetError("spent"), 402), (GateError("no"), 422),
     (ModelError("no answer"), 502), (StoreError(f"{HOME}: full"), 503), (HTTPError(403), 403),
     (Refusal(404, "none of 100 %"), 404), (ValueError(f"{HOME}"), 500), (None, 500)],
)  # fmt: skip
def test_every_error_is_a_problem_that_tells_no_path(error, status):
    found = problem_of(error, status=500, home=HOME)
    Draft202012Validator(PROBLEM).validate(found)
    assert found["status"] == status
    assert str(HOME) not in found["detail"]
    assert "\n" not in found["detail"]


def test_a_detail_is_one_line_without_codes():
    found = problem_of(Refusal(400, "a\x1b[2J\nb 100 %\u202e"), status=500, home=HOME)
    assert found["detail"] == "a [2J b 100 %"
    assert "the store: x" in problem_of(ConfigError(f"{HOME}: x"), status=500, home=HOME)["detail"]
