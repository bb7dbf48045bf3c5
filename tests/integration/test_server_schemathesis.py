"""The OpenAPI document is kept: generated requests, good ones and bad ones, to a running server."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig

from campaign_fakes import make_set
from running_server import TOKENS, serve
from workbench.campaign import testsets
from workbench.server.openapi import document
from workbench.server.table import ROUTES
from workbench.store.jobs import Job, add_job
from workbench.store.records import TestSet

# A request that is valid by the document may still name what does not exist: 404, 409, 422.
CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", "403", "404", "409", "422"],
            },
        },
    }
)
SCHEMA = schemathesis.openapi.from_dict(document(ROUTES, base="/"), config=CONFIG)
HEADERS = {"Authorization": f"token {TOKENS['anna']}"}
EXAMPLES = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("server"), extension="instant_jobs") as running:
        yield running


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_the_document_says(case, server):
    case.call_and_validate(base_url=server.url, headers=HEADERS)


def test_what_is_there_is_as_the_document_says_too(server):
    store = server.store_of("anna")
    known = {"dataset": testsets.save(store, TestSet(cases=(*make_set(3, 1),)))}
    known["job"] = add_job(store.engine, Job(kind="run", owner="anna")).id
    asked = []
    for result in SCHEMA.get_all_operations():
        operation = result.ok()
        names = {one.name for one in operation.path_parameters}
        if operation.method == "get" and names <= set(known):
            case = operation.Case(path_parameters={name: known[name] for name in names})
            answer = case.call_and_validate(base_url=server.url, headers=HEADERS)
            assert answer.status_code == 200
            asked.append(operation.path)
    assert len(asked) >= 9


def test_the_document_that_is_served_is_the_one_that_is_checked(server):
    with server.client("anna") as anna:
        assert anna.get("/workbench/api/openapi.json").json() == SCHEMA.raw_schema
