"""A loopback server that speaks like all publishers of evidence, with faults; for tests alone."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from workbench.llm.timing import Timing

__all__ = [
    "ATLAS",
    "CAPEC",
    "CVES",
    "ENTERPRISE",
    "KEV",
    "Clock",
    "RiskServer",
    "asset",
    "cve_record",
    "epss_answer",
    "nvd_page",
    "osv_advisory",
]  # fmt: skip

V31 = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
V40 = "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"
CVES = ("CVE-2024-1001", "CVE-2024-1002", "CVE-2024-1003")
BOMB = gzip.compress(b"[" + b"0," * 10_000_000 + b"0]", 9)


def ssvc(exploitation="poc", automatable="yes", impact="total"):
    options = [
        {"Exploitation": exploitation},
        {"Automatable": automatable},
        {"Technical Impact": impact},
    ]
    content = {
        "timestamp": "2024-08-01T16:20:00.123456Z",
        "id": "",
        "options": options,
        "role": "CISA Coordinator",
        "version": "2.0.3",
    }
    return {"other": {"type": "ssvc", "content": content}}


def adp(*metrics, name="CISA-ADP", cwe="CWE-79"):
    problem = {"descriptions": [{"lang": "en", "type": "CWE", "cweId": cwe, "description": cwe}]}
    return {
        "title": "CISA ADP Vulnrichment",
        "metrics": list(metrics),
        "problemTypes": [problem],
        "providerMetadata": {"orgId": "134c704f-9b21-4f2e-93b3-4a314aae1a4c", "shortName": name},
    }


def cve_record(cve=CVES[0], *, metrics=None, adps=None, cwe="CWE-787"):
    """Return a record in the shape of CVE JSON 5.1."""
    if metrics is None:
        metrics = [{"format": "CVSS", "cvssV3_1": {"version": "3.1", "vectorString": V31}}]
    problems = [{"descriptions": [{"lang": "en", "type": "CWE", "cweId": cwe, "description": "w"}]}]
    return {
        "dataType": "CVE_RECORD",
        "dataVersion": "5.1",
        "cveMetadata": {
            "cveId": cve,
            "state": "PUBLISHED",
            "datePublished": "2024-07-01T10:00:00.000Z",
            "dateUpdated": "2024-08-02T10:00:00.000Z",
        },
        "containers": {
            "cna": {
                "title": "Overflow in Example",
                "descriptions": [
                    {"lang": "de", "value": "Ein Fehler."},
                    {"lang": "en-US", "value": "A flaw in Example."},
                ],
                "affected": [
                    {"vendor": "n/a", "product": "n/a"},
                    {"vendor": "Example", "product": "Server"},
                ],
                "problemTypes": problems if cwe else [],
                "metrics": metrics,
            },
            "adp": [adp(ssvc())] if adps is None else adps,
        },
    }


def nvd_page(*cves, start=0, total=None, vector=V31, metric="cvssMetricV31"):
    """Return a page in the shape of NVD's API 2.0."""

    def one(cve):
        data = {"version": "3.1", "vectorString": vector, "baseScore": 9.8}
        return {
            "cve": {
                "id": cve,
                "sourceIdentifier": "cve@example.org",
                "published": "2024-07-01T10:15:00.000",
                "lastModified": "2024-08-03T10:15:00.000",
                "vulnStatus": "Analyzed",
                "descriptions": [{"lang": "en", "value": "NVD says: a flaw."}],
                "metrics": {
                    metric: [{"source": "nvd@nist.gov", "type": "Primary", "cvssData": data}]
                },
                "weaknesses": [
                    {
                        "source": "nvd@nist.gov",
                        "type": "Primary",
                        "description": [
                            {"lang": "en", "value": "NVD-CWE-noinfo"},
                            {"lang": "en", "value": "CWE-20"},
                        ],
                    }
                ],
                "configurations": [
                    {"nodes": [{"cpeMatch": [{"criteria": "cpe:2.3:a:example:server:1.0:*:*"}]}]}
                ],
            }
        }

    return {
        "resultsPerPage": len(cves),
        "startIndex": start,
        "totalResults": len(cves) if total is None else total,
        "format": "NVD_CVE",
        "version": "2.0",
        "timestamp": "2024-08-04T00:00:00.000",
        "vulnerabilities": [one(cve) for cve in cves],
    }


def kev_entry(cve, ransomware="Unknown"):
    return {
        "cveID": cve,
        "vendorProject": "Example",
        "product": "Server",
        "vulnerabilityName": "Example Server flaw",
        "dateAdded": "2024-07-10",
        "shortDescription": "A flaw, with a comma",
        "requiredAction": "Update.",
        "dueDate": "2024-07-31",
        "knownRansomwareCampaignUse": ransomware,
        "notes": "",
        "cwes": ["CWE-787"],
    }


KEV = {
    "title": "CISA Catalog of Known Exploited Vulnerabilities",
    "catalogVersion": "2024.08.04",
    "dateReleased": "2024-08-04T15:00:00.0000Z",
    "count": 2,
    "vulnerabilities": [kev_entry(CVES[0], "Known"), kev_entry("CVE-2023-4001")],
}


def epss_answer(*cves, day="2024-08-04"):
    data = [
        {"cve": cve, "epss": "0.123450000", "percentile": "0.950000000", "date": day}
        for cve in cves
    ]
    return {
        "status": "OK",
        "status-code": 200,
        "version": "1.0",
        "total": len(data),
        "offset": 0,
        "limit": 100,
        "data": data,
    }


EPSS_CSV = (
    "#model_version:v2023.03.01,score_date:2024-08-04T00:00:00+0000\ncve,epss,percentile\n"
    "CVE-2024-1001,0.9,0.99\nCVE-2024-1002,0.00043,0.08\n"
)


def osv_advisory(name="GHSA-aaaa-bbbb-cccc", *, alias=CVES[0]):
    return {
        "schema_version": "1.7.0",
        "id": name,
        "aliases": [alias],
        "summary": "Flaw in demo",
        "details": "Long.",
        "modified": "2024-08-01T00:00:00Z",
        "published": "2024-07-01T00:00:00Z",
        "severity": [{"type": "CVSS_V4", "score": V40}, {"type": "CVSS_V3", "score": V31}],
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": "demo", "purl": "pkg:pypi/demo"},
                "ranges": [
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2"}]}
                ],
                "versions": ["1.0", "1.1"],
            },
            {"ranges": [{"type": "GIT", "repo": "https://x", "events": [{"introduced": "0"}]}]},
        ],
    }


def _pattern(name, *references, **other):
    said = [{"source_name": source, "external_id": value} for source, value in references]
    return {"type": "attack-pattern", "name": name, "external_references": said, **other}


ENTERPRISE = {
    "type": "bundle",
    "objects": [
        {"type": "identity", "name": "MITRE"},
        _pattern("Hijack Flow", ("mitre-attack", "T1574.010"), ("capec", "CAPEC-1")),
        _pattern("Old", ("mitre-attack", "T1000"), revoked=True),
    ],
}
CAPEC = {
    "type": "bundle",
    "objects": [
        _pattern(
            "Lists", ("capec", "CAPEC-1"), ("cwe", "CWE-276"), ("cwe", "CWE-79"),
            ("ATTACK", "T1574.010"), ("ATTACK", "T1000"),
        ),
        _pattern("Gone", ("capec", "CAPEC-2"), ("cwe", "CWE-1"), ("ATTACK", "T1574.010"),
                 x_capec_status="Deprecated"),
    ],
}  # fmt: skip
ATLAS = """---
id: ATLAS
version: 5.6.0
matrices:
- id: ATLAS
  techniques:
  - id: AML.T0000
    name: Search
    ATT&CK-reference: {id: T1596, url: https://attack.mitre.org/techniques/T1596/}
    tactics: [AML.TA0002]
    created_date: 2021-99-99
  - id: AML.T0000.000
    name: Journals
    subtechnique-of: AML.T0000
"""


def asset(number, **fields):
    return {
        "sys_id": f"{number:032x}",
        "name": f"service {number}",
        "busines_criticality": "1 - most critical",
        "owned_by": "Ada",
        "environment": "Production",
        "u_exposure": "open",
        "u_incident_usd": "$12,000.00",
    } | fields


class Clock:
    """Time that passes only in sleeps."""

    def __init__(self) -> None:
        self.now = 1_722_800_000.0
        self.slept = 0.0

    async def sleep(self, seconds):
        self.slept += seconds
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def timing(self):
        return Timing(clock=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep)


class RiskServer:
    """All publishers on one port; a fault per request where one was ordered."""

    def __init__(self) -> None:
        self.records = {cve: cve_record(cve) for cve in CVES}
        self.nvd = set(CVES)
        self.modified = [f"CVE-2024-{number}" for number in range(20_000, 20_005)]
        self.page = 2
        self.assets = [asset(number) for number in range(3)]
        self.advisories = {"GHSA-aaaa-bbbb-cccc": osv_advisory()}
        self.seen: list[tuple[str, str, dict[str, str], object]] = []
        """Publisher, path with query, headers in lower case, JSON sent."""
        self._faults: dict[str, list[str]] = {}
        self.url = ""

    @property
    def base_urls(self) -> dict[str, str]:
        return {
            "cve_records": f"{self.url}/cve_records",
            "nvd": f"{self.url}/nvd/rest/json/cves/2.0",
            "kev": f"{self.url}/kev/feed.json",
            "epss": f"{self.url}/epss/data/v1/epss",
            "osv": f"{self.url}/osv",
            "attack": f"{self.url}/attack",
            "atlas": f"{self.url}/atlas/ATLAS.yaml",
            "servicenow": f"{self.url}/servicenow",
        }

    def fail(self, publisher, *faults) -> None:
        """Answer its next requests so; the last fault, if it ends in ``*``, ever after."""
        self._faults[publisher] = list(faults)

    def requests(self, publisher) -> list[str]:
        return [path for name, path, _, _ in self.seen if name == publisher]

    @asynccontextmanager
    async def serve(self):
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{publisher}/{rest:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*runner.addresses[0])
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request):
        publisher = request.match_info["publisher"]
        sent = json.loads(await request.text() or "null")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((publisher, request.path_qs, headers, sent))
        fault = self._next_fault(publisher)
        answer = getattr(self, f"say_{publisher}")(request, sent)
        if fault:
            return await getattr(self, f"fault_{fault}")(request, answer)
        if isinstance(answer, web.StreamResponse):
            return answer
        return web.Response(body=json.dumps(answer).encode(), content_type="application/json")

    def _next_fault(self, publisher):
        waiting = self._faults.get(publisher, [])
        if not waiting:
            return ""
        if waiting[0].endswith("*"):
            return waiting[0][:-1]
        return waiting.pop(0)

    # publishers

    def say_cve_records(self, request, sent):
        found = self.records.get(request.path.rpartition("/")[2])
        if found is None:
            return web.json_response({"error": "CVE_RECORD_DNE"}, status=404)
        return found

    def say_nvd(self, request, sent):
        query = request.query
        if "cveId" in query:
            return nvd_page(*({query["cveId"]} & self.nvd))
        start = int(query["startIndex"])
        page = self.modified[start : start + self.page]
        return nvd_page(*page, start=start, total=len(self.modified))

    def say_kev(self, request, sent):
        return KEV

    def say_epss(self, request, sent):
        if request.path.endswith(".gz"):
            packed = gzip.compress(EPSS_CSV.encode())
            return web.Response(body=packed, content_type="application/gzip")
        asked = request.query["cve"].split(",")
        return epss_answer(*(cve for cve in asked if cve in self.records))

    def say_osv(self, request, sent):
        if request.path.endswith("querybatch"):
            return {"results": [self._matches(query) for query in sent["queries"]]}
        found = self.advisories.get(request.path.rpartition("/")[2])
        return found or web.json_response({"code": 5}, status=404)

    def _matches(self, query):
        """Give one advisory per page."""
        if query["package"]["purl"] != "pkg:pypi/demo":
            return {}
        names = list(self.advisories)
        index = int(query.get("page_token", 0))
        more = {"next_page_token": str(index + 1)} if index + 1 < len(names) else {}
        return {"vulns": [{"id": names[index], "modified": "2024-08-01T00:00:00Z"}], **more}

    def say_attack(self, request, sent):
        bundle = ENTERPRISE if "enterprise" in request.path else CAPEC
        return web.Response(text=json.dumps(bundle), content_type="text/plain")

    def say_atlas(self, request, sent):
        return web.Response(text=ATLAS, content_type="text/plain")

    def say_servicenow(self, request, sent):
        if request.headers.get("Authorization") != "Bearer snow-secret":
            return web.json_response({"error": {"message": "User Not Authenticated"}}, status=401)
        start = int(request.query["sysparm_offset"])
        limit = int(request.query["sysparm_limit"])
        return {"result": self.assets[start : start + limit]}

    # faults

    async def fault_403(self, request, answer):
        return web.Response(status=403, text="Request forbidden by administrative rules.")

    async def fault_429(self, request, answer):
        return web.Response(status=429, headers={"Retry-After": "7"})

    async def fault_429_long(self, request, answer):
        return web.Response(status=429, headers={"Retry-After": "86400"})

    async def fault_500(self, request, answer):
        secret = request.headers.get("Authorization") or request.headers.get("apiKey", "")
        return web.Response(status=500, text=f"<h1>oops</h1> you sent {secret}")

    async def fault_drop(self, request, answer):
        request.transport.abort()
        return web.Response()

    async def fault_half(self, request, answer):
        text = json.dumps(answer) if not isinstance(answer, web.Response) else answer.text
        half = text[: len(text) // 2]
        return web.Response(text=half, content_type="application/json")

    async def fault_html(self, request, answer):
        return web.Response(text="<!DOCTYPE html>Sign in", content_type="text/html")

    async def fault_off_host(self, request, answer):
        return web.Response(status=302, headers={"Location": "https://evil.example/x?y=1"})

    async def fault_no_host(self, request, answer):
        return web.Response(status=302, headers={"Location": "https://[evil"})

    async def fault_echo(self, request, answer):
        secret = request.headers.get("Authorization") or request.headers.get("apiKey", "")
        return web.json_response({"totalResults": secret, "result": [{"sys_id": f"{secret} x"}]})

    async def fault_same_host(self, request, answer):
        return web.Response(status=302, headers={"Location": request.path_qs})

    async def fault_renamed(self, request, answer):
        return web.json_response({f"new_{key}": value for key, value in answer.items()})

    async def fault_listed(self, request, answer):
        return web.json_response([answer])

    async def fault_garbage(self, request, answer):
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        with suppress(ConnectionError):
            for _ in range(100):
                await response.write(b"\x00\xff\xfe7" * 25_000)
        return response

    async def fault_slow(self, request, answer):
        await asyncio.sleep(30)

    async def fault_bomb(self, request, answer):
        media = getattr(answer, "content_type", "application/json")
        headers = {"Content-Encoding": "gzip", "Content-Type": media}
        return web.Response(body=BOMB, headers=headers)
