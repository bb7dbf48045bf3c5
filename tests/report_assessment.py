"""An assessment as notebook 07 leaves it, for reports: made up, as large as results may be."""

from __future__ import annotations

import math
import random
from collections import Counter
from datetime import date, timedelta
from typing import Any

TODAY = date(2026, 11, 26)
LEVELS = (("critical", 20), ("high", 12), ("medium", 5), ("low", 1))
SCRIPT = "<script>window.__pwned=1</script>"
KNOWN = (
    ("CVE-2021-44228", "Log4j 2: code behind a name", "log4j-core@2.14.1", "2.17.1"),
    ("CVE-2023-34362", "MOVEit Transfer: SQL injection before login", "moveit@15.0.0", "15.0.1"),
    ("CVE-2024-3400", "PAN-OS: command injection in GlobalProtect", "pan-os@11.1.2", "11.1.2-h3"),
    ("CVE-2023-4966", "NetScaler: memory read past its end", "netscaler@13.1", "13.1-49.15"),
    ("CVE-2022-22965", "Spring: data binding goes too far", "spring-beans@5.3.17", "5.3.18"),
    ("CVE-2019-11510", f"Pulse Connect: any file is read {SCRIPT}", "pulse@9.0r3", "9.0R3.4"),
)  # fmt: skip
MODELS = (
    ("LLM01:2025", "Prompt Injection", ["AML.T0051", "AML.T0054"]),
    ("LLM02:2025", "Sensitive Information Disclosure", ["AML.T0057"]),
    ("LLM07:2025", "System Prompt Leakage", ["AML.T0056"]),
    ("LLM06:2025", "Excessive Agency", ["AML.T0053"]),
)
ASSETS = (
    "web-1", "web-2", "mail-gateway", "vpn-edge-03", "payments-api", "hr-portal", "build-agent-17",
    "warehouse-db", "support-bot",
)  # fmt: skip
OWNERS = ("platform team", "payments", "Ana Duarte", "IT operations", "")
PACKAGES = ("openssl", "libxml2", "jackson-databind", "netty", "curl", "django", "busybox")
DAYS = {"critical": 3, "high": 14, "medium": 60}
KINDS = {
    "cvss": 0.25, "kev": 0.0, "epss": 0.06, "exploitation": 0.31, "automatable": 0.31,
    "technical_impact": 0.31, "weakness": 0.12, "techniques": 0.0,
}  # fmt: skip


def level_of(score: int) -> str:
    return next(level for level, least in LEVELS if score >= least)


def assessment(*, risks: int = 1240, register: int = 300) -> dict[str, Any]:
    """Return the result of an assessment of this many risks, the worst of them in the register."""
    draw = random.Random(7)
    rows = [_risk(draw, at) for at in range(risks)]
    rows.sort(key=lambda row: (-row["score"], -row["p_exploit"]))
    top = [_explained(row, at) for at, row in enumerate(rows[:20])]
    matrix = [[0] * 5 for _ in range(5)]
    for row in rows:
        matrix[row["likelihood"] - 1][row["impact"] - 1] += 1
    levels = Counter(row["level"] for row in rows)
    ahead = Counter((date.fromisoformat(row["due"]) - TODAY).days for row in rows if row["due"])
    models = sum(row["kind"] == "model" for row in rows)
    return {
        "kind": "assessment",
        "assessment": "c0ffee12d3b4" + "5" * 52,
        "today": str(TODAY),
        "policy": "bod-26-04",
        "snapshot": "77aa01be9c3d" + "6" * 52,
        "snapshot_made_at": "2026-11-24T05:10:00.000000Z",
        "snapshot_age_days": 2,
        "sources": sources(),
        "counts": {
            "risks": risks + 38,
            "open": risks,
            "closed": 38,
            "cves": risks - models,
            "model_risks": models,
            "assets": len(ASSETS),
            "components": 8_412,
            "kev": 17,
            "overdue": sum(many for days, many in ahead.items() if days < 0),
            "due_7_days": sum(many for days, many in ahead.items() if 0 <= days <= 7),
            "by_level": {level: levels[level] for level, _ in LEVELS},
        },
        "matrix": matrix,
        "top": top,
        "register": rows[:register],
        "closed": [
            {
                "subject": f"CVE-2025-{20_000 + at}",
                "asset": ASSETS[at % len(ASSETS)],
                "component": f"pkg:deb/debian/{PACKAGES[at % 7]}@1.{at}",
                "state": "not_affected" if at % 3 else "fixed",
                "reason": "vulnerable_code_not_in_execute_path" if at % 3 else "",
                "source": "products.vex.json (CycloneDX VEX)",
            }
            for at in range(38)
        ],
        "calendar": _calendar(rows),
        "decisions": dict(Counter(row["decision"] for row in rows)),
        "freshness": [
            {
                "kind": kind,
                "checked": round(1228 * (1 - share - (kind == "epss") * 0.2)),
                "missing": round(1228 * share),
                "stale": round(1228 * 0.2 * (kind == "epss")),
                "oldest": "2026-11-02",
                "newest": "2026-11-24",
            }
            for kind, share in KINDS.items()
        ],
        "loss": [_loss("all", 1_412_000.0), *(
            _loss(name, 700_000.0 / 2.7**at) for at, name in enumerate(ASSETS))],
        "loss_assumptions": {
            "incidents": "a risk that is exploited costs one incident, at most one a year",
            "cost of an incident": "from the inventory, else by impact: $3,000 to $4.4M",
            "seed": "0",
            "years": "10,000",
        },
        "files": [
            {"file": "inventory.csv", "format": "assets", "occurrences": 0, "components": 0,
             "assets": 9},
            {"file": "web.cdx.json", "format": "CycloneDX 1.6", "occurrences": 0,
             "components": 8_412, "assets": 1},
            {"file": "images.trivy.json", "format": "Trivy", "occurrences": 1_190, "components": 0,
             "assets": 3},
            {"file": "products.vex.json", "format": "CycloneDX VEX", "occurrences": 38,
             "components": 0, "assets": 0},
        ],
        "problems": [
            "ids.csv, line 14: 'CVE-20231-12' is no CVE id; write CVE-year-number",
            "web.cdx.json, components[811]: no version, so nothing can be matched; add one",
        ],
        "changes": [
            {
                "id": f"{at:064x}",
                "subject": f"CVE-2026-{31_000 + at}",
                "asset": ASSETS[at % len(ASSETS)],
                "change": ("new", "worse", "better", "closed")[at % 4],
                "before": ("", "medium 9", "high 15", "high 12")[at % 4],
                "after": ("high 16", "critical 20", "medium 8", "")[at % 4],
            }
            for at in range(50)
        ],
        "change_counts": {"new": 31, "gone": 2, "worse": 14, "better": 9, "closed": 12,
                          "reopened": 1},
        "since": "beef0012aa45" + "7" * 52,
        "narrated_by": "rules",
        "narrative": "Three things matter this week. The log library on web-1 is known to be "
        "exploited and three days overdue; its fix is an upgrade.\n\nThe support assistant gives "
        "its instructions away in one attempt out of four, which ranks it beside the file server.",
        "explained_by": {"rules": 2, "claude-haiku-5-5": 18},
        "cost": {"usd": 0.0312, "calls": 3, "hits": 1, "intake_s": 1.31, "evidence_s": 0.42,
                 "score_s": 0.06, "explain_s": 2.94},
    }  # fmt: skip


def empty() -> dict[str, Any]:
    """Return the result of an assessment of nothing."""
    whole = assessment(risks=20, register=0)
    lists = {key: [] for key, value in whole.items() if isinstance(value, list)}
    counts = dict.fromkeys(whole["counts"], 0) | {"by_level": {}}
    return whole | lists | {
        "counts": counts,
        "matrix": [[0] * 5 for _ in range(5)],
        "decisions": {},
        "change_counts": {},
        "since": "",
        "narrative": "",
        "narrated_by": "",
        "explained_by": {},
        "loss_assumptions": {},
        "cost": {"usd": 0.0, "calls": 0.0, "hits": 0.0, "intake_s": 0.0},
    }  # fmt: skip


def sources() -> list[dict[str, Any]]:
    ages = {"cve": 2, "kev": 2, "epss": 16, "ssvc": 2, "osv": 2, "capec": 90, "atlas": 30}
    made = [
        {
            "name": name,
            "status": "stale" if name == "epss" else "checked",
            "as_of": str(TODAY - timedelta(days=days)),
            "age_days": days,
            "rows": 1_200 * days,
            "error": "status 403, tried 3 times" if name == "epss" else "",
        }
        for name, days in ages.items()
    ]
    missing = {"status": "missing", "as_of": "", "age_days": 0, "rows": 0}
    return [
        *made,
        {"name": "servicenow", **missing, "error": "no address: set risk.servicenow_url"},
    ]


def _risk(draw: random.Random, at: int) -> dict[str, Any]:
    likelihood = min(5, 1 + int(draw.expovariate(1.1)))
    impact = draw.randint(1, 5)
    is_model = at % 25 == 9 and at < 300
    subject, title, component, fixed = (
        f"CVE-2026-{10_000 + 37 * at}",
        "Heap read past its end",
        "",
        "",
    )
    if at < len(KNOWN):
        subject, title, component, fixed = KNOWN[at]
        likelihood, impact = 5, 5 - at % 2
    elif is_model:
        subject, title, techniques = MODELS[at // 25 % len(MODELS)]
        likelihood, component = 4, "guarded@1.0(bookshop)"
    else:
        component = f"pkg:deb/debian/{PACKAGES[at % 7]}@{at % 9}.{at % 4}.1"
    score = likelihood * impact
    gaps = [] if is_model or at % 3 else ["exploitation", "automatable", "technical_impact"]
    level = level_of(score)
    seen = TODAY - timedelta(days=draw.randint(0, 4 if level == "critical" else 18))
    due = seen + timedelta(days=DAYS[level]) if level in DAYS else None
    low, high = ((0.0, 0.001), (0.001, 0.01), (0.01, 0.1), (0.1, 0.5), (0.5, 0.98))[likelihood - 1]
    return {
        "id": f"{at:064x}",
        "kind": "model" if is_model else "cve",
        "subject": subject,
        "title": title,
        "asset": "support-bot" if is_model else ASSETS[at % (len(ASSETS) - 1)],
        "component": component,
        "state": "affected",
        "level": level,
        "score": score,
        "score_known": max(1, score - 4 * bool(gaps)),
        "likelihood": likelihood,
        "impact": impact,
        "p_exploit": draw.uniform(low, high),
        "annual_loss_usd": 900.0 * score * math.exp(draw.gauss(0, 1.2)),
        "decision": f"{DAYS[level]} days" if due else "fix on system upgrade",
        "due": str(due or ""),
        "owner": OWNERS[at % len(OWNERS)],
        "status": "open",
        "first_seen": str(seen),
        "missing": gaps,
        "stale": ["epss"] if at % 5 == 1 else [],
        **({"techniques": techniques} if is_model else {}),
        **({"fixed_in": fixed} if fixed else {}),
    }


def _explained(row: dict[str, Any], at: int) -> dict[str, Any]:
    return {"techniques": [] if at % 3 else ["T1190", "T1059"], "fixed_in": "", **row} | {
        "reasons": [
            f"exploited in 30 days: {row['p_exploit']:.1%}, so likelihood {row['likelihood']}",
            "listed as known to be exploited since 2021-12-10, also by ransomware",
            f"{row['asset']} is open to the internet and matters most: impact {row['impact']}",
        ],
        "explanation": f"Whoever reaches {row['asset']} can take it over through this component; "
        "upgrading it to the fixed version closes the hole. Until then, keep it from the outside.",
        "explained_by": "rules" if at % 4 == 0 else "claude-haiku-5-5",
    }


def _calendar(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    due = Counter((row["due"], row["level"]) for row in rows if row["due"])
    days = sorted({on for on, _ in due})
    return [{"due": on, **{level: due[on, level] for level, _ in LEVELS}} for on in days]


def _loss(group: str, expected: float) -> dict[str, Any]:
    return {
        "group": group,
        "expected": expected,
        "p05": 0.0 if expected < 100_000 else 0.1 * expected,
        "p50": 0.6 * expected if expected > 2_000 else 0.0,
        "p95": 3.1 * expected,
        "p99": 5.2 * expected,
    }
