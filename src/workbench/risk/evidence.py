"""What is known of vulnerabilities, with source, date and status: joined, never invented.

Two workers that know nothing of each other look a list of ids up in a snapshot: one for what the
weakness is, one for who uses it. They keep no state and take what they need as arguments, so they
run on threads, processes or a Dask cluster alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import date, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from workbench.core.errors import DataError
from workbench.risk.cvss import cvss_scores
from workbench.risk.snapshot import Snapshot
from workbench.risk.tables import DAYS_FRESH, SCHEMAS
from workbench.store.risk_results import FreshnessRow

__all__ = ["KINDS", "Worker", "freshness", "gather", "threat_evidence", "vulnerability_evidence"]

Worker = Callable[[Sequence[str], Snapshot, date], pa.Table]

KINDS: Final[Mapping[str, str]] = {
    "cvss": "cve", "automatable": "cve", "technical_impact": "cve", "weakness": "cve",
    "kev": "kev", "epss": "epss", "exploitation": "cve", "techniques": "techniques",
}  # fmt: skip
"""Kind of evidence → table that it comes from, whose time to live it has."""

_SOURCES: Final[Mapping[str, str]] = {
    "cvss": "CVE record", "automatable": "SSVC", "technical_impact": "SSVC",
    "weakness": "CVE record", "kev": "KEV", "epss": "EPSS", "exploitation": "SSVC",
    "techniques": "CWE, CAPEC, ATT&CK",
}  # fmt: skip
"""Kind → how its source is called; of CVSS also who gave the vector."""
_TEXTS_SHOWN: Final = ("title", "description", "published", "cvss_vector")
_TEXT: Final = pa.string()
_TEXTS: Final = pa.list_(_TEXT)
_STATUS: Final = pa.array(["missing", "stale", "checked"])
_CHUNK: Final = 50_000
"""Ids of one task: a second of work, so that a cluster has something to deal out."""
_CVE: Final = r"^CVE-\d{4}-\d{4,19}$"


def gather(
    cves: Sequence[str],
    snapshot: Snapshot,
    *,
    today: date,
    executor: Executor | None = None,
    workers: tuple[Worker, Worker] | None = None,
) -> pa.Table:
    """Return one row of evidence per id, in the order given.

    Columns: ``cve``, ``title``, ``description``, ``published``, ``cvss_vector``, ``kev_added``,
    ``kev_due``, ``ransomware``, and of each kind K of :data:`KINDS` ``K``, ``K_status``
    (``checked``, ``missing``, ``stale``), ``K_source``, ``K_as_of``. A value is null where it is
    missing; texts are empty.

    Args:
        cves: Ids; one that the snapshot does not know is missing in everything.
        snapshot: Open snapshot.
        today: The day of the assessment: what is older than its time to live is stale.
        executor: Runs the workers, e.g. that of a Dask client; None: two threads.
        workers: Others in the place of the two, e.g. that ask a service.

    Raises:
        DataError: If a file of the snapshot is damaged.
    """
    if executor is None:
        with ThreadPoolExecutor(2, thread_name_prefix="evidence") as threads:
            return gather(cves, snapshot, today=today, executor=threads, workers=workers)
    chunks = [cves[start : start + _CHUNK] for start in range(0, len(cves), _CHUNK)] or [[]]
    chosen = workers or (vulnerability_evidence, threat_evidence)
    futures: list[list[Future[pa.Table]]] = [
        [executor.submit(worker, list(chunk), snapshot, today) for worker in chosen]
        for chunk in chunks
    ]
    parts = [pa.concat_tables(one.result() for one in side) for side in zip(*futures, strict=True)]
    columns = {"cve": pa.chunked_array([pa.array(cves, _TEXT)])}
    columns |= {name: part[name] for part in parts for name in part.column_names}
    return pa.table(columns).combine_chunks()


def vulnerability_evidence(cves: Sequence[str], snapshot: Snapshot, today: date) -> pa.Table:
    """Return what kind of weakness each id is: CVSS, SSVC's automatable and impact, CWE."""
    needed = (*_TEXTS_SHOWN, "cvss_source", "automatable", "technical_impact", "cwes")
    records = _looked_up(cves, snapshot, "cve", needed)
    columns = {name: pc.fill_null(records[name], "") for name in _TEXTS_SHOWN}
    scores, _typos = cvss_scores(records["cvss_vector"])  # of a typo the column says so
    values = {
        "cvss": pa.array(scores, from_pandas=True),
        "automatable": records["automatable"],
        "technical_impact": records["technical_impact"],
        "weakness": _filled(records["cwes"]),
    }
    for kind, value in values.items():
        source = _vector_source(records, value) if kind == "cvss" else _SOURCES[kind]
        columns |= _judged(kind, value, as_of=records["as_of"], source=source, today=today)
    return pa.table(columns)


def threat_evidence(cves: Sequence[str], snapshot: Snapshot, today: date) -> pa.Table:
    """Return who uses each id: KEV, EPSS, SSVC's exploitation, ATT&CK through CWE and CAPEC."""
    records = _looked_up(cves, snapshot, "cve", ("published", "exploitation", "cwes"))
    listed = _looked_up(cves, snapshot, "kev", ("added", "due", "ransomware"))
    forecast = _looked_up(cves, snapshot, "epss", ("epss",))
    columns = {
        "kev_added": pc.fill_null(listed["added"], ""),
        "kev_due": pc.fill_null(listed["due"], ""),
        "ransomware": listed["ransomware"],
    }
    kev = snapshot.source("kev")
    techniques = snapshot.source("techniques")
    known_on = (records["published"], records["as_of"], forecast["as_of"])
    values = {
        "kev": (
            _listed(cves, snapshot, listed["cve"], today=today, known_on=known_on),
            kev.as_of if kev else None,
        ),
        "epss": (forecast["epss"], forecast["as_of"]),
        "exploitation": (records["exploitation"], records["as_of"]),
        "techniques": (
            _techniques(_filled(records["cwes"]), snapshot),
            techniques.as_of if techniques else None,
        ),
    }
    for kind, (value, as_of) in values.items():
        columns |= _judged(kind, value, as_of=as_of, source=_SOURCES[kind], today=today)
    return pa.table(columns)


def freshness(table: pa.Table) -> list[FreshnessRow]:
    """Return how much of each kind of evidence is checked, missing and stale."""
    rows: list[FreshnessRow] = []
    for kind in KINDS:
        counted = pc.value_counts(table[f"{kind}_status"]).to_pylist()
        counts: dict[str, int] = {one["values"]: one["counts"] for one in counted}
        dates = table[f"{kind}_as_of"]
        span = pc.min_max(pc.if_else(pc.equal(dates, ""), None, dates)).as_py()
        rows.append(
            {
                "kind": kind,
                "checked": counts.get("checked", 0),
                "missing": counts.get("missing", 0),
                "stale": counts.get("stale", 0),
                "oldest": span["min"] or "",
                "newest": span["max"] or "",
            }
        )
    return rows


def _ids(cves: Sequence[str]) -> pa.Array:
    """Return ids as they are looked up: upper case, no spaces around."""
    try:
        return pc.utf8_upper(pc.utf8_trim_whitespace(pa.array(cves, _TEXT)))
    except (pa.ArrowException, UnicodeError, TypeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"an id among {len(cves)} is no text ({reason}); leave it out") from None


def _looked_up(
    cves: Sequence[str], snapshot: Snapshot, name: str, columns: Sequence[str]
) -> dict[str, pa.Array]:
    """Return columns of a table for the ids, in their order; null where an id has no row."""
    wanted = ("cve", *columns, "as_of")
    table = snapshot.table(name)
    if table is None or not table.num_rows:
        types = {**{field.name: field.type for field in SCHEMAS[name]}, "as_of": _TEXT}
        return {column: pa.nulls(len(cves), types[column]) for column in wanted}
    rows = pc.index_in(_ids(cves), value_set=table["cve"].combine_chunks())
    found = table.select(wanted).take(rows).combine_chunks()
    return {field: _flat(found[field]) for field in found.column_names}


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _each_once(column: pa.Array, function: Callable[[str], object], kind: pa.DataType) -> pa.Array:
    """Return a function of each text, worked out once per different text; null of null."""
    encoded = column.dictionary_encode()
    values = pa.array([function(one) for one in encoded.dictionary.to_pylist()], kind)
    return values.take(encoded.indices)


def _filled(lists: pa.Array) -> pa.Array:
    """Return the lists with null for an empty one: nobody said what the weakness is."""
    return pc.if_else(pc.equal(pc.list_value_length(lists), 0), pa.scalar(None, _TEXTS), lists)


def _vector_source(records: Mapping[str, pa.Array], scores: pa.Array) -> pa.Array:
    """Return who gave the vector; of one with a typo that it is none."""
    who = pc.fill_null(records["cvss_source"], "")
    named = pc.if_else(
        pc.equal(who, ""),
        _SOURCES["cvss"],
        pc.binary_join_element_wise(_SOURCES["cvss"], pc.utf8_upper(who), ", "),
    )
    is_typo = pc.and_(pc.is_valid(records["cvss_vector"]), pc.is_null(scores))
    return pc.if_else(is_typo, pc.binary_join_element_wise(named, "not a CVSS vector", ": "), named)


def _listed(
    cves: Sequence[str], snapshot: Snapshot, listed: pa.Array, *, today: date,
    known_on: Sequence[pa.Array],
) -> pa.Array:  # fmt: skip
    """Return whether each id is in KEV; null where that says nothing.

    The list is whole, so an id that is not in it is not listed; unless it is no CVE id, no other
    table knows it, or the list is stale and nothing shows that the CVE was there before it.

    Args:
        cves: The ids.
        snapshot: The snapshot.
        listed: The same ids as KEV has them, null for those that it lacks.
        today: The day of the assessment.
        known_on: ISO dates on which each id was known elsewhere, null where it is not.
    """
    kev = snapshot.source("kev")
    if kev is None or snapshot.table("kev") is None:
        return pa.nulls(len(cves), pa.bool_())
    is_fresh = kev.as_of >= _oldest("kev", today)
    dates = [pc.if_else(pc.equal(one, ""), pa.scalar(None, _TEXT), one) for one in known_on]
    until = "9999" if is_fresh else f"{kev.as_of[:10]}Z"
    is_before = pc.less_equal(pc.min_element_wise(*dates), until)
    is_known = pc.or_(pc.is_valid(listed), pc.fill_null(is_before, fill_value=False))
    says = pc.and_(pc.match_substring_regex(_ids(cves), _CVE), is_known)
    return pc.if_else(says, pc.is_valid(listed), pa.scalar(None, pa.bool_()))


def _techniques(weaknesses: pa.Array, snapshot: Snapshot) -> pa.Array:
    """Return the ids of ATT&CK for lists of CWE ids; empty: unmapped; null: weakness unknown."""
    table = snapshot.table("techniques")
    if table is None:
        return pa.nulls(len(weaknesses), _TEXTS)
    of: dict[str, dict[str, None]] = {}
    for cwe, technique in zip(
        *(table[one].to_pylist() for one in ("cwe", "technique")), strict=True
    ):
        of.setdefault(cwe, {})[technique] = None

    def of_joined(joined: str) -> list[str]:
        return list(dict.fromkeys(one for cwe in joined.split(";") for one in of.get(cwe, ())))

    # A few thousand different combinations stand for all rows.
    return _each_once(pc.binary_join(weaknesses, ";"), of_joined, _TEXTS)


def _oldest(table: str, today: date) -> str:
    """Return the ISO date from which on what a table says is not stale."""
    return (today - timedelta(days=DAYS_FRESH[table])).isoformat()


def _judged(
    kind: str,
    value: pa.Array,
    *,
    as_of: pa.Array | str | None,
    source: pa.Array | str,
    today: date,
) -> dict[str, pa.Array]:
    """Return the four columns of a kind."""
    size = len(value)
    if as_of is None or isinstance(as_of, str):
        as_of = pa.repeat(pa.scalar(as_of or "", _TEXT), size)
    if isinstance(source, str):
        source = pa.repeat(pa.scalar(source, _TEXT), size)
    dates = pc.if_else(pc.is_valid(value), pc.fill_null(as_of, ""), "")
    is_fresh = pc.greater_equal(dates, _oldest(KINDS[kind], today))  # ISO dates sort as text
    code = pc.add(pc.is_valid(value).cast(pa.int8()), is_fresh.cast(pa.int8()))
    return {
        kind: value,
        f"{kind}_status": _STATUS.take(code),
        f"{kind}_source": source,
        f"{kind}_as_of": dates,
    }
