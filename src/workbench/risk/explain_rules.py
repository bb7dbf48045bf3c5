"""Why a risk ranks where it does and what to do: sentences made of facts, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from workbench.core.plain import one_line

__all__ = [
    "RULES", "component_of", "dollars", "explain_by_rules", "known", "narrate_by_rules", "plain",
    "what_is_due", "what_is_unknown", "when_due",
]  # fmt: skip

RULES: Final = "rules"
"""Who explained what no model did."""

_TITLE_CHARS = 140
_NAME_CHARS = 80
_FEW_ATTEMPTS = 30
_TENTH_OF_A_PERCENT = 0.001
_MILLION = 1e6
_REACHED: Mapping[str, str] = {
    "small": "reached by few", "controlled": "reached by some", "open": "open to everybody",
}  # fmt: skip
_WORDS: Mapping[str, str] = {
    "kev": "known exploitation (KEV)", "epss": "EPSS", "cvss": "CVSS",
    "exploitation": "state of exploitation", "automatable": "whether attacks can be automated",
    "technical_impact": "technical impact", "techniques": "attack techniques",
    "weakness": "kind of weakness", "criticality": "criticality of the asset",
    "exposure": "exposure of the asset",
}  # fmt: skip


def explain_by_rules(row: Mapping[str, Any]) -> str:
    """Return two to four sentences: what it is, why it ranks here, what to do, what is not known.

    Args:
        row: Fields of ``RiskRow`` and what evidence says, as far as known: cvss, epss, kev,
            kev_added, ransomware, exploitation, automatable, technical_impact, exposure,
            criticality, cwes, techniques, fixed_in; of model risks successes, attempts, severity.
    """
    if known(row, "state") in {"fixed", "not_affected"}:
        return " ".join(_closed(row))
    what = _what_model_risk if row.get("kind") == "model" else _what_vulnerability
    said = (what(row), _why(row), what_is_due(row), what_is_unknown(row))
    return " ".join(filter(None, said))


def what_is_due(row: Mapping[str, Any]) -> str:
    """Return what to do and by when, in one sentence."""
    when = _by_when(row)
    if row.get("status") == "accepted":
        return f"The risk is accepted; else it would be due {when}."
    if row.get("kind") == "model":
        return f"Put a defense before the target and repeat the campaign {when}."
    if fixed := plain(row.get("fixed_in", ""), _NAME_CHARS):
        return f"Update to {fixed} {when}."
    return f"Install a fix, or mitigate where there is none, {when}."


def when_due(row: Mapping[str, Any]) -> str:
    """Return by when something is to be done, in one sentence."""
    is_accepted = row.get("status") == "accepted"
    return f"{'Accepted; else due' if is_accepted else 'Due'} {_by_when(row)}."


def what_is_unknown(row: Mapping[str, Any]) -> str:
    """Return what is not known and what that changes, in one sentence; empty if all is known."""
    missing, stale = (
        ", ".join(_WORDS.get(one, plain(one, _NAME_CHARS)) for one in row.get(name) or ())
        for name in ("missing", "stale")
    )
    parts = []
    if missing:
        usual, score = known(row, "score_known"), known(row, "score")
        changes = f" (with usual values it would score {usual})" if usual != score else ""
        parts.append(f"not known and taken at its worst: {missing}{changes}")
    if stale:
        parts.append(f"known from too long ago: {stale}")
    attempts = known(row, "attempts")
    if row.get("kind") == "model" and attempts is not None and attempts < _FEW_ATTEMPTS:
        parts.append(f"only {attempts} attempts were made, too few to be sure")
    return _sentence("; ".join(parts))


def narrate_by_rules(facts: Mapping[str, Any]) -> str:
    """Return three to six sentences for managers: counts, the worst, what is due, what is missing.

    Args:
        facts: Fields of ``AssessmentResult``, as far as they are known.
    """
    counts: Mapping[str, Any] = facts.get("counts") or {}
    said = (
        _how_many(counts, today=facts.get("today", "")), _the_worst(facts.get("top") or ()),
        _what_presses(counts), _what_is_missing(facts), _what_it_costs(facts.get("loss") or ()),
        _what_changed(facts),
    )  # fmt: skip
    return " ".join(filter(None, said))


def known(row: Mapping[str, Any], name: str) -> Any:
    """Return a value, or None for all ways in which tables say that there is none."""
    value = row.get(name)
    is_nan = isinstance(value, float) and value != value  # noqa: PLR0124 - the test for NaN
    return None if is_nan or (isinstance(value, str | list | tuple) and not value) else value


def plain(text: Any, most: int = _TITLE_CHARS) -> str:
    """Return others' text as one line of at most so many characters."""
    line = one_line(str(text)[: 4 * most]) if text else ""
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def component_of(row: Mapping[str, Any]) -> str:
    """Return name and version of a component, read from its package URL if it has one."""
    text = plain(row.get("component", ""), 2 * _NAME_CHARS)
    if not text.startswith("pkg:"):
        return plain(text, _NAME_CHARS)
    name = text.partition("#")[0].partition("?")[0].partition("/")[2]
    base, at, version = name.rpartition("@")
    is_version = bool(at) and "/" not in version
    return plain(unquote(f"{base} {version}" if is_version else name), _NAME_CHARS)


def dollars(amount: float) -> str:
    """Return an amount for managers: rounded, since none of these is known better."""
    if amount >= _MILLION:
        return f"${amount / _MILLION:,.1f} million"
    step = 100 if amount >= 1_000 else 1  # noqa: PLR2004
    return f"${round(amount / step) * step:,}"


def _by_when(row: Mapping[str, Any]) -> str:
    due, decision = known(row, "due"), plain(row.get("decision", ""), _NAME_CHARS)
    when = f"by {due}" if due else "with the next upgrade"
    return f"{when} (decision: {decision})" if decision else when


def _closed(row: Mapping[str, Any]) -> Iterator[str]:
    state = "is fixed" if row["state"] == "fixed" else "does no harm"
    yield _sentence(f"{_name(row)} {state} {_place(row)}")
    reason = plain(row.get("reason", ""))
    yield (
        _sentence(reason) if reason else "That is what the VEX statement says; it gives no reason."
    )


def _name(row: Mapping[str, Any]) -> str:
    subject, title = plain(row.get("subject", ""), _NAME_CHARS), plain(row.get("title", ""))
    return f"{subject} ({title})" if title and title != subject else subject


def _place(row: Mapping[str, Any]) -> str:
    component, asset = component_of(row), plain(row.get("asset", ""), _NAME_CHARS)
    asset = asset or "an asset without a name"
    return f"in {component} on {asset}" if component else f"on {asset}"


def _what_vulnerability(row: Mapping[str, Any]) -> str:
    weakness = ", ".join(list(known(row, "cwes") or known(row, "weakness") or ())[:3])
    kind = f", a weakness of kind {plain(weakness, _NAME_CHARS)}," if weakness else ""
    doubt = row.get("state") == "under_investigation"
    return _sentence(f"{_name(row)}{kind} {'may be' if doubt else 'is'} {_place(row)}")


def _what_model_risk(row: Mapping[str, Any]) -> str:
    target = plain(row.get("target") or row.get("component") or row.get("asset"), _NAME_CHARS)
    tries, hits = known(row, "attempts"), row.get("successes")
    gave = f"gave way in {hits} of {tries} attempts" if tries else "was attacked"
    techniques = ", ".join(list(known(row, "techniques") or ())[:3])
    by = f", by {plain(techniques, _NAME_CHARS)}" if techniques else ""
    severity = plain(row.get("severity", ""), _NAME_CHARS)
    worst = f"; the worst that got through is {severity}" if severity and hits else ""
    return _sentence(f"{_name(row)}: {target} {gave}{by}{worst}")


def _why(row: Mapping[str, Any]) -> str:
    likely = ", ".join(_of_attacks(row))
    harm = ", ".join(_of_harm(row))
    parts = [
        f"likelihood {row.get('likelihood', '?')} of 5" + (f", as {likely}" if likely else ""),
        f"impact {row.get('impact', '?')} of 5" + (f", as {harm}" if harm else ""),
    ]
    rank = f"It ranks {row.get('level', 'unranked')} ({row.get('score', '?')} of 25)"
    return _sentence(f"{rank}: {'; '.join(parts)}")


def _of_attacks(row: Mapping[str, Any]) -> Iterator[str]:
    exploitation, epss, cvss = (known(row, name) for name in ("exploitation", "epss", "cvss"))
    if known(row, "kev"):
        since = f" since {plain(row['kev_added'], 10)}" if known(row, "kev_added") else ""
        by = ", by ransomware too" if known(row, "ransomware") else ""
        yield f"it is on the list of known exploited ones{since}{by}"
    elif exploitation == "active":
        yield "attacks with it are reported"
    elif exploitation == "poc":
        yield "a proof of concept is public"
    if epss is not None:
        yield f"EPSS puts attacks within 30 days at {_percent(epss)}"
    if known(row, "automatable") == "yes":
        yield "attacks can be automated"
    if cvss is not None:
        yield f"CVSS is {cvss:g}"


def _of_harm(row: Mapping[str, Any]) -> Iterator[str]:
    criticality, exposure = known(row, "criticality"), known(row, "exposure")
    if criticality:
        yield f"the asset's criticality is {criticality} of 5"
    if exposure in _REACHED:
        yield f"it is {_REACHED[exposure]}"
    if known(row, "technical_impact") == "total":
        yield "attackers would control it"


def _percent(share: float) -> str:
    return "less than 0.1%" if share < _TENTH_OF_A_PERCENT else f"{100 * share:.3g}%"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def _count(number: Any, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _how_many(counts: Mapping[str, Any], *, today: str) -> str:
    levels = counts.get("by_level") or {}
    told = ", ".join(
        f"{levels.get(one, 0):,} {one}" for one in ("critical", "high", "medium", "low")
    )
    total = _count(counts.get("open", 0), "risk is", "risks are")
    on = _count(counts.get("assets", 0), "asset")
    of = f"{_count(counts.get('cves', 0), 'vulnerability', 'vulnerabilities')} and " + _count(
        counts.get("model_risks", 0), "model risk"
    )
    return _sentence(f"{f'On {today} ' if today else ''}{total} open on {on}, of {of}: {told}")


def _the_worst(top: Sequence[Mapping[str, Any]]) -> str:
    if not top:
        return "There is nothing to be done first."
    row = top[0]
    when = f"due by {row['due']}" if known(row, "due") else "due with the next upgrade"
    score = f"{row.get('level', 'unranked')}, {row.get('score', '?')} of 25"
    return _sentence(f"First comes {_name(row)} {_place(row)} ({score}), {when}")


def _what_presses(counts: Mapping[str, Any]) -> str:
    late, soon, kev = (counts.get(name, 0) for name in ("overdue", "due_7_days", "kev"))
    exploited = _count(kev, "concerns", "concern")
    return (
        f"{late:,} overdue, {soon:,} due within 7 days; {exploited} what is known to be exploited."
    )


def _what_is_missing(facts: Mapping[str, Any]) -> str:
    rows = facts.get("freshness") or ()
    names = {row["kind"]: _WORDS.get(row["kind"], row["kind"]) for row in rows}
    gaps = [f"{names[row['kind']]} of {row['missing']:,}" for row in rows if row.get("missing")]
    late = [names[row["kind"]] for row in rows if row.get("stale")]
    parts = []
    if gaps:
        parts.append(f"Not known, so taken at its worst: {', '.join(gaps)}")
    if late:
        which = "all evidence" if len(late) == len(rows) else ", ".join(late)
        parts.append(f"known from longer ago than it should be: {which}")
    if rows and not parts:
        parts.append("all evidence is there and fresh")
    age = facts.get("snapshot_age_days")
    if age is not None:
        parts.append(f"the snapshot is {_count(age, 'day')} old")
    return _sentence("; ".join(parts))


def _what_it_costs(loss: Sequence[Mapping[str, Any]]) -> str:
    row = next((one for one in loss if one.get("group") == "all"), None)
    if row is None:
        return ""
    expected, high = dollars(row["expected"]), dollars(row["p95"])
    return f"A year may cost {expected} on average, and more than {high} in one of 20."


def _what_changed(facts: Mapping[str, Any]) -> str:
    changes = {name: n for name, n in (facts.get("change_counts") or {}).items() if n}
    if not facts.get("since"):
        return ""
    told = ", ".join(f"{n:,} {plain(name, _NAME_CHARS)}" for name, n in changes.items())
    return f"Since the assessment before: {told or 'no change'}."
