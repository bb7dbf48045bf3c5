"""The REST API of a running Jupyter server: both phases, and what each user may see and do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import httpx
import pytest

from campaign_fakes import make_set
from running_server import OWNER_TOKEN, TOKENS, RunningServer, serve
from workbench.campaign import testsets
from workbench.campaign.rehearsal import Rehearsal
from workbench.server.bodies import MOST_BYTES
from workbench.server.table import ROUTES
from workbench.store.jobs import Job, add_job, claim_job, finish_job
from workbench.store.records import LedgerRow, Run, TestSet

API = "/workbench/api"
CONFIG = {
    "plugins": ["prompt-injection-direct", "over-refusal-security"],
    "strategies": ["plain", "base64"],
    "max_tests": 8,
}
PROBLEM = "application/problem+json"
HASH = "f" * 64
SHOWN = '<script>alert(1)</script>\x1b[2J\u202e"'


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def shop():
    with Rehearsal().serve_in_thread() as running:
        yield running


@pytest.fixture
def anna(server):
    with server.client("anna") as client:
        yield client


@pytest.fixture
def ben(server):
    with server.client("ben") as client:
        yield client


@pytest.fixture(scope="module")
def annas(server: RunningServer) -> dict[str, str]:
    """Return ids of what Anna has, by the name in the path."""
    store = server.store_of("anna")
    made = testsets.save(store, TestSet(cases=(*make_set(3, 1),), recipe={"plugins": [SHOWN]}))
    ended = add_job(store.engine, Job(kind="run", owner="anna", request={"said": SHOWN}))
    claim_job(store.engine, ended.id, owner="anna")
    finish_job(store.engine, ended.id, state="failed", error=SHOWN)
    run = Run(
        id="run-of-anna", experiment="hers", step="pairs", notebook="n", phase="training",
        fingerprint="f", parameters={}, state="succeeded", owner="anna", folder="/secret/folder",
        started_at="2026-01-01T00:00:00.000000Z", result={"kind": "pairs", "said": SHOWN},
    )  # fmt: skip
    store.runs.add(run)
    members = {"pairs": [run.id]}
    store.runs.set_experiment("hers", file="f", members=members, state="succeeded", owner="anna")
    return {"dataset": made, "job": ended.id, "run": run.id, "category": "runs"}


def address(route, ids=None):
    usual = {"dataset": HASH, "job": "job-none", "run": "run-none", "category": "runs"}
    return "/" + route.path.format(**{**usual, **(ids or {})})


def wait(client: httpx.Client, job: str) -> dict:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = client.get(f"{API}/jobs/{job}").json()
        if found["state"] not in {"queued", "running"}:
            return found
        time.sleep(0.05)
    raise AssertionError(f"job {job} does not end")


def refused(answer: httpx.Response, status: int) -> str:
    """Check that an answer is problem details; return the detail."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    told = answer.json()
    assert set(told) == {"type", "title", "status", "detail"}
    assert told["status"] == status
    return told["detail"]


def test_a_test_set_is_generated_then_executed_and_its_attempts_are_paged(anna, shop):
    answer = anna.post(f"{API}/redteam/generate", json={"config": CONFIG})
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert set(made) == {"jobId", "datasetId", "testCount"}
    assert made["testCount"] == 8

    listed = anna.get(f"{API}/redteam/datasets").json()
    mine = next(one for one in listed if one["dataset_id"] == made["datasetId"])
    assert (mine["test_count"], mine["plugins"]) == (8, CONFIG["plugins"])

    first = anna.get(f"{API}/redteam/datasets/{made['datasetId']}", params={"limit": 5})
    rest = anna.get(first.links["next"]["url"])
    assert "next" not in rest.links
    ids = [one["id"] for page in (first, rest) for one in page.json()["tests"]]
    assert len(set(ids)) == 8

    body = {"datasetId": made["datasetId"], "providers": [f"{shop.base_url}/ask"]}
    started = anna.post(f"{API}/redteam/execute", json={**body, "options": {"judges": "rules"}})
    assert started.status_code == 202
    assert set(started.json()) == {"jobId"}
    assert started.headers["location"] == f"{API}/jobs/{started.json()['jobId']}"
    done = wait(anna, started.json()["jobId"])
    assert (done["state"], done["done"]) == ("succeeded", 8), done

    execution = f"{API}/results/executions/{done['result']['executionId']}"
    first = anna.get(execution, params={"limit": 6})
    rest = anna.get(first.links["next"]["url"])
    sent = [one["case_id"] for page in (first, rest) for one in page.json()["attempts"]]
    assert sorted(sent) == sorted(ids)
    assert "in use" in refused(anna.delete(f"{API}/redteam/datasets/{made['datasetId']}"), 409)


def test_run_does_both_phases_in_one_job(anna, shop):
    body = {"config": CONFIG, "providers": [f"{shop.base_url}/ask"]}
    body["options"] = {"judges": "rules"}
    answer = anna.post(f"{API}/redteam/run", json=body)
    done = wait(anna, answer.json()["jobId"])
    assert (answer.status_code, done["state"]) == (202, "succeeded"), done
    assert {"datasetId", "testCount", "executionId"} <= set(done["result"])


def test_an_idempotency_key_names_one_job(anna, ben):
    header = {"Idempotency-Key": "once"}
    body = {"config": {**CONFIG, "max_tests": 4}}
    first, again = (
        anna.post(f"{API}/redteam/generate", json=body, headers=header) for _ in range(2)
    )
    assert first.json() == again.json()
    other = anna.post(f"{API}/redteam/generate", json={"config": CONFIG}, headers=header)
    assert "once" in refused(other, 422)
    assert ben.post(f"{API}/redteam/generate", json=body, headers=header).json() != first.json()
    assert refused(anna.post(f"{API}/redteam/run", headers={"Idempotency-Key": "a b"}), 415)


@pytest.mark.parametrize("route", ROUTES, ids=lambda one: one.name)
def test_no_route_answers_without_a_token(server, route):
    for token in ("", "wrong"):
        with server.client(token) as nobody:
            answer = nobody.request(route.method, address(route), json={})
            assert refused(answer, 403)


def test_pages_send_who_is_nobody_to_the_login(server):
    with server.client("") as nobody:
        for path in ("", f"sets/{HASH}", "jobs/job-none"):
            answer = nobody.get(f"/workbench/{path}")
            assert (answer.status_code, "/login?" in answer.headers["location"]) == (302, True)
            assert nobody.post(f"/workbench/{path}").status_code == 403


@pytest.mark.parametrize("route", [one for one in ROUTES if one.ids], ids=lambda one: one.name)
def test_nobody_reads_aborts_resumes_or_deletes_anothers(anna, ben, annas, route):
    if route.method == "GET":  # it is there, for its owner
        assert anna.get(address(route, annas)).status_code == 200
    answer = ben.request(route.method, address(route, annas))
    absent = ben.request(route.method, address(route))
    assert refused(answer, 404).split(";")[0][:12] == refused(absent, 404).split(";")[0][:12]
    assert anna.get(f"{API}/redteam/datasets/{annas['dataset']}").status_code == 200
    assert anna.get(f"{API}/jobs/{annas['job']}").json()["state"] == "failed"


def test_nobody_lists_executes_or_counts_anothers(server, anna, ben, annas):
    row = LedgerRow(
        who="anna", job=annas["run"], experiment="hers", phase="generation", resource="m",
        quantity=1, unit="token", usd="0.5", price_version="p",
    )  # fmt: skip
    server.store_of("anna").ledger.add([row])
    for path, name in (("jobs", "jobId"), ("experiments", "name"), ("redteam/datasets", None)):
        hers, his = (one.get(f"{API}/{path}").json() for one in (anna, ben))
        known = {one[name or "dataset_id"] for one in hers}
        assert known
        if name:  # equal test sets may be both's
            assert known.isdisjoint({one[name] for one in his})
    assert annas["dataset"] not in {
        one["dataset_id"] for one in ben.get(f"{API}/redteam/datasets").json()
    }
    used = anna.get(f"{API}/usage").json()
    assert used["phases"]["generation"] == {"usd": "0.5", "credits": 50.0}
    assert (used["credits"], used["quota"]) == (50.0, None)
    assert anna.get(f"{API}/cost", params={"experiment": "hers"}).json()["total"]["usd"] == 0.5
    by_step = anna.get(f"{API}/cost", params={"experiment": "hers", "by": "step"}).json()
    assert [(one["group"], one["usd"]) for one in by_step["rows"]] == [("pairs", 0.5)]
    assert ben.get(f"{API}/usage").json()["phases"] == {}
    assert ben.get(f"{API}/cost", params={"experiment": "hers"}).json()["rows"] == []
    assert "0.5" in anna.get("/workbench/metrics").text
    assert "0.5" not in ben.get("/workbench/metrics").text
    body = {"datasetId": annas["dataset"], "providers": ["bare"]}
    assert "no test set" in refused(ben.post(f"{API}/redteam/execute", json=body), 404)


@pytest.mark.parametrize("since", ["2026-99-99", "2026-02-30", "0000-01-01", "2026-1-1", "", "x"])
def test_a_day_that_does_not_exist_is_refused(anna, since):
    told = refused(anna.get(f"{API}/usage", params={"since": since}), 400)
    assert told.startswith("query: since: ")
    assert anna.get(f"{API}/usage", params={"since": "2026-11-27"}).json()["since"] == "2026-11-27"


def test_people_with_a_token_of_their_own_are_nobody_outside_of_the_extension(server, anna):
    with server.client("owner") as owner:
        for path in ("/api/contents", "/api/kernels", "/api/terminals", "/api/sessions"):
            assert owner.get(path).status_code == 200
            assert anna.get(path).status_code == 403
        assert anna.post("/api/kernels", json={}).status_code == 403
        assert anna.get("/lab").status_code == 302
        assert anna.get("/workbench/../api/contents").status_code in {403, 404}
    raw = httpx.Request("GET", server.url)
    raw.url = raw.url.copy_with(raw_path=b"/workbench/../api/contents")
    assert anna.send(raw).status_code in {403, 404}


@pytest.mark.parametrize(
    "evil", ["../../etc/passwd", "..", "%2e%2e%2fsecret", "a\x00b", "a\nb", "C:\\x", "~root", "é"]
)
def test_no_id_is_a_path(anna, evil):
    sent = quote(evil, safe="")
    for path in (f"results/runs/{sent}", f"results/{sent}/x", f"jobs/{sent}",
                 f"redteam/datasets/{sent}", f"results/executions/{sent}"):  # fmt: skip
        answer = anna.get(f"{API}/{path}")
        assert refused(answer, 404)
        assert "root:" not in answer.text
    assert "root:" not in anna.get(f"/workbench/jobs/{sent}").text


def test_results_tell_no_path_of_the_server(server, anna, annas):
    answer = anna.get(f"{API}/results/runs/{annas['run']}")
    assert answer.json()["result"]["result"] == {"kind": "pairs", "said": SHOWN}
    assert "/secret/folder" not in answer.text
    assert str(server.home) not in answer.text


@pytest.mark.parametrize(
    "provider",
    ["python:os:system", "guarded:python:os:system", "targets/x.yaml", "anthropic:x.yaml",
     "guarded:a.yml", "file:///etc/passwd", "/etc/passwd", "bare\n", " bare"],
)  # fmt: skip
def test_no_provider_is_a_file_or_a_function_of_the_server(anna, annas, provider):
    body = {"datasetId": annas["dataset"], "providers": [provider]}
    answer = anna.post(f"{API}/redteam/execute", json=body)
    assert answer.status_code in {400, 422}
    refused(answer, answer.status_code)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"", 400, "no JSON"),
        (b"[]", 400, "object"),
        (b'{"config": {"max_tests": NaN}}', 400, "NaN"),
        (b'{"config": {"max_tests": 1e999}}', 400, "maximum"),
        (b'{"config": {}, "confg": 1}', 400, "did you mean 'config'"),
        (b'{"config": {"plugin": []}}', 400, "plugin"),
        (b'{"config": {"plugins": ["no-such"]}}', 400, "no-such"),
        (b'{"config": {"strategies": ["no-such"]}}', 422, "no-such"),
        (b'{"config": {"seed": "\\ud800"}}', 400, "surrogate"),
        (b"[" * 100_000, 400, "deep"),
        (b'{"config":' * 20 + b"1" + b"}" * 20, 400, "deep"),
        (b'{"config": "' + b"x" * MOST_BYTES + b'"}', 413, "bytes"),
    ],
    ids=lambda one: str(one)[:30],
)
def test_a_body_that_makes_no_sense_is_refused(anna, body, status, told):
    before = len(anna.get(f"{API}/jobs", params={"limit": 200}).json())
    headers = {"Content-Type": "application/json"}
    answer = anna.post(f"{API}/redteam/generate", content=body, headers=headers)
    assert told in refused(answer, status)
    assert len(anna.get(f"{API}/jobs", params={"limit": 200}).json()) == before


def test_a_body_of_another_type_and_an_unknown_method_are_refused(anna):
    assert "application/json" in refused(
        anna.post(f"{API}/redteam/generate", data={"config": "x"}), 415
    )
    answer = anna.put(f"{API}/jobs")
    refused(answer, 405)
    assert answer.headers["allow"] == "GET"
    refused(anna.get(f"{API}/nothing"), 404)


@pytest.mark.parametrize(
    ("query", "status"),
    [("limit=0", 400), ("limit=201", 400), ("limit=x", 400), ("limit=1&limit=2", 400),
     ("curser=x", 400), ("cursor=%ff", 400), ("cursor=a%0a", 400), ("cursor=abc", 422),
     ("cursor=W10", 422), ("cursor=WzFd", 422)],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused(anna, query, status):
    refused(anna.get(f"{API}/redteam/datasets?{query}"), status)


def test_lists_are_paged_to_the_end_without_gap_or_repeat(server):
    store = server.store_of("ben")
    for number in range(7):
        testsets.save(store, TestSet(cases=(*make_set(number + 1, 0),)))
    with server.client("ben") as ben:
        whole = [one["dataset_id"] for one in ben.get(f"{API}/redteam/datasets").json()]
        answer = ben.get(f"{API}/redteam/datasets", params={"limit": 3})
        found = [one["dataset_id"] for one in answer.json()]
        while "next" in answer.links:
            answer = ben.get(answer.links["next"]["url"])
            found += [one["dataset_id"] for one in answer.json()]
    assert len(whole) >= 7
    assert found == whole


@contextmanager
def logged_in(server: RunningServer, token: str) -> Iterator[httpx.Client]:
    """Give a client as a browser is after the login: with cookies, without a token."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        client.get("/login")
        sent = {"password": token, "_xsrf": client.cookies["_xsrf"]}
        assert client.post("/login?next=/workbench/", data=sent).status_code == 302
        yield client


def test_with_a_cookie_changes_need_the_xsrf_token_and_no_foreign_page_reads(server):
    with logged_in(server, OWNER_TOKEN) as browser:
        assert browser.get(f"{API}/jobs").status_code == 200
        body = {"config": {**CONFIG, "max_tests": 2}}
        path = f"{API}/redteam/generate"
        assert "_xsrf" in refused(browser.post(path, json=body), 403)
        refused(browser.delete(f"{API}/redteam/datasets/{HASH}"), 403)
        refused(browser.get(f"{API}/jobs", headers={"Origin": "http://evil.example"}), 404)
        header = {"X-XSRFToken": browser.cookies["_xsrf"]}
        foreign = browser.post(path, json=body, headers={**header, "Origin": "http://evil.example"})
        refused(foreign, 404)
        assert browser.post(path, json=body, headers=header).status_code == 200
        assert browser.post("/workbench/", data={"max_tests": "3"}).status_code == 403


def test_a_person_makes_and_looks_at_a_test_set_on_pages(server, annas):
    with logged_in(server, TOKENS["anna"]) as browser:
        page = browser.get("/workbench/")
        assert page.status_code == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "<script>alert" not in page.text
        assert "⟨U+202E⟩" in page.text
        form = {"_xsrf": browser.cookies["_xsrf"], "plugins": "over-refusal-security",
                "strategies": "plain", "max_tests": "3", "key": "form-1"}  # fmt: skip
        started = browser.post("/workbench/", data=form)
        assert started.status_code == 303
        again = browser.post("/workbench/", data=form)
        assert again.headers["location"] == started.headers["location"]
        done = wait(browser, started.headers["location"].rpartition("/")[2])
        page = browser.get(started.headers["location"])
        assert done["result"]["datasetId"] in page.text
        page = browser.get(f"/workbench/sets/{done['result']['datasetId']}")
        assert "over-refusal-security" in page.text
        form = {"_xsrf": browser.cookies["_xsrf"], "do": "execute", "providers": "python:os:system"}
        wrong = browser.post(f"/workbench/sets/{annas['dataset']}", data=form)
        assert (wrong.status_code, "python:os:system" in wrong.text) == (400, True)
        page = browser.get(f"/workbench/jobs/{annas['job']}")
        assert "<script>alert" not in page.text
        assert "⟨U+001B⟩" in page.text
        forget = {"_xsrf": browser.cookies["_xsrf"], "do": "forget"}
        gone = browser.post(f"/workbench/sets/{done['result']['datasetId']}", data=forget)
        assert gone.status_code == 303
        assert browser.get(f"/workbench/sets/{done['result']['datasetId']}").status_code == 404


def test_with_jupyters_own_provider_everything_is_the_owners(tmp_path):
    with serve(tmp_path, people=False) as server:
        made = testsets.save(server.store, TestSet(cases=(*make_set(2, 0),)))
        with server.client("owner") as owner:
            for _ in range(2):  # each call is of another invented name
                owner.cookies.clear()
                (one,) = owner.get(f"{API}/redteam/datasets").json()
                assert one["dataset_id"] == made
        with server.client("anna") as anna:
            assert anna.get(f"{API}/jobs").status_code == 403
