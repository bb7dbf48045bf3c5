"""Likelihood and impact of risks from evidence, as arrays; no model, no network.

What is missing is taken twice: at its usual value for what is *known*, and at its worst for the
score, so that losing a source never makes a risk look smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workbench.judge.measure import wilson
from workbench.risk.records import EXPOSURES, LEVELS

__all__ = [
    "AUTOMATABLE", "EXPLOITATION", "TECHNICAL_IMPACT", "USUAL", "Codes", "Floats", "Impact",
    "Signals", "Threat", "codes_of", "impact", "level", "likelihood_of", "model_threat",
    "rate_at_most", "reasons", "score", "severity_impact", "signals_of", "threat",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]

EXPLOITATION: Final = ("none", "poc", "active")
AUTOMATABLE: Final = ("no", "yes")
TECHNICAL_IMPACT: Final = ("partial", "total")

USUAL: Final[Mapping[str, Any]] = {
    "epss": 0.0014,  # median of all 263,619 scores of 2024-10-27
    "cvss": 7.5,  # where its factor is 1
    "kev": False,
    "exploitation": "none",
    "automatable": "no",
    "technical_impact": "partial",
    "criticality": 3,
    "exposure": "controlled",
    "success_rate": 0.5,
}
"""What is taken for the known score where evidence is missing."""

_NAMES: Final = {
    "exploitation": EXPLOITATION,
    "automatable": AUTOMATABLE,
    "technical_impact": TECHNICAL_IMPACT,
}
_LIKELIHOOD_FROM = np.array([0.001, 0.01, 0.1, 0.5])
"""Chance within 30 days from which likelihood is 2, 3, 4, 5."""
_LEVEL_FROM = np.array([5, 12, 20])
"""Score from which the level is medium, high, critical."""
_EPSS_RANGE = (1e-6, 1 - 1e-6)
_CVSS_RANGE = (0.1, 10.0)
"""A CVSS of 0 must not rule out what EPSS expects."""
_EXPLOITATION_ODDS = (1.0, 3.0, 10.0)
_AUTOMATABLE_ODDS, _TOTAL_ODDS = (1.0, 2.0), (1.0, 2.0)
"""Factor by position of the value; the last, the worst, where it is missing."""
_TRIED = np.array([0.1, 0.5, 1.0])
"""Chance by exposure that somebody tries a kind of attack on a model within 30 days: assumed."""


class Signals(NamedTuple):
    """What is known of vulnerabilities: equally long arrays."""

    epss: Floats
    """NaN: missing."""
    cvss: Floats
    kev: Codes
    """0, 1; -1 missing, as in those below."""
    exploitation: Codes
    """Position in :data:`EXPLOITATION`."""
    automatable: Codes
    technical_impact: Codes


class Threat(NamedTuple):
    """How likely exploitation is within 30 days."""

    p: Floats
    """In [0, 1], with usual values for what is missing."""
    p_at_most: Floats
    """The same with the worst values; at least ``p``."""
    likelihood: Codes
    """1 to 5, at worst."""
    likelihood_known: Codes


class Impact(NamedTuple):
    """How bad it would be, 1 to 5."""

    impact: Codes
    """At worst."""
    impact_known: Codes


def codes_of(column: pa.Array | pa.ChunkedArray, names: tuple[str, ...]) -> Codes:
    """Return the position of each text in ``names``, -1 where null or another."""
    if pa.types.is_null(column.type):
        return np.full(len(column), -1, dtype=np.int8)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    found = pc.index_in(column, value_set=pa.array(names).cast(column.type))
    return _codes(pc.fill_null(found, -1))


def signals_of(evidence: pa.Table) -> Signals:
    """Return the signals of an evidence table, row by row; its nulls are missing.

    Args:
        evidence: Columns as in ``risk.evidence``.
    """
    kev = evidence["kev"]
    return Signals(
        epss=_floats(evidence["epss"]),
        cvss=_floats(evidence["cvss"]),
        kev=_codes(pc.fill_null(kev.cast(pa.int8()), -1)),
        **{kind: codes_of(evidence[kind], names) for kind, names in _NAMES.items()},
    )


def threat(signals: Signals) -> Threat:
    """Return how likely each vulnerability is exploited within 30 days.

    ``odds(P) = odds(EPSS) · (3 [proof of concept] | 10 [active]) · 2 [automatable] · 2 [total] ·
    CVSS / 7.5``; a vulnerability in KEV has P = 1. The factor of active exploitation outside KEV
    is a guess: nearly all such rows are in KEV, so it cannot be measured.

    Source:
        EPSS, first.org/epss, for the base rate; SSVC decision points of CISA's Vulnrichment for
        the evidence. The factors are this project's, chosen on one dated cut of CVEs
        (``benchmarks/bench_risk_ranking.py``).
    """
    kev = signals.kev
    usual = _chance(signals, epss=USUAL["epss"], cvss=USUAL["cvss"], missing=0)
    worst = _chance(signals, epss=1.0, cvss=_CVSS_RANGE[1], missing=-1)
    p = np.where(kev == 1, 1.0, usual)
    p_at_most = np.where((kev != 0) | np.isnan(signals.epss), 1.0, worst)
    likelihood, known = likelihood_of(p_at_most), likelihood_of(p)
    return Threat(p=p, p_at_most=p_at_most, likelihood=likelihood, likelihood_known=known)


def model_threat(
    successes: npt.ArrayLike, attempts: npt.ArrayLike, exposure: npt.ArrayLike
) -> Threat:
    """Return how likely each model risk happens within 30 days.

    The rate at which attacks got through × the chance that somebody tries; at most: with the
    upper end of the rate's 95 % Wilson interval. Nothing tried is missing, not safe.

    Args:
        successes: Attempts that got through.
        attempts: All attempts.
        exposure: Position in ``EXPOSURES``, -1 missing.

    Raises:
        ConfigError: If more got through than were tried.
    """
    won, tried = np.asarray(successes, dtype=np.float64), np.asarray(attempts, dtype=np.float64)
    exposed = np.asarray(exposure, dtype=np.int8)
    rate = np.divide(won, tried, out=np.full(len(won), USUAL["success_rate"]), where=tried > 0)
    rate_high = np.array([rate_at_most(*pair) for pair in zip(won, tried, strict=True)])
    p = rate * _TRIED[np.where(exposed < 0, EXPOSURES.index(USUAL["exposure"]), exposed)]
    p_at_most = rate_high.reshape(p.shape) * _TRIED[exposed]  # the last, open, where missing
    return Threat(
        p=p,
        p_at_most=p_at_most,
        likelihood=likelihood_of(p_at_most),
        likelihood_known=likelihood_of(p),
    )


def rate_at_most(successes: float, attempts: float) -> float:
    """Return the upper end of the 95 % Wilson interval of a rate; 1 where nothing was tried."""
    return wilson(successes, attempts)["high"] if attempts else 1.0


def likelihood_of(p: Floats) -> Codes:
    """Return 1 to 5 from a chance within 30 days: from 0.1 %, 1 %, 10 %, 50 % on the next."""
    return (np.searchsorted(_LIKELIHOOD_FROM, p, side="right") + 1).astype(np.int8)


def impact(criticality: Codes, exposure: Codes, technical_impact: Codes) -> Impact:
    """Return how bad each risk would be.

    Criticality, less 1 where a partial impact meets a small exposure, more 1 where a total one
    meets an open exposure, within 1 to 5.

    Args:
        criticality: 1 to 5, 0 missing.
        exposure: Position in ``EXPOSURES``, -1 missing.
        technical_impact: Position in :data:`TECHNICAL_IMPACT`, -1 missing.
    """
    exposed = EXPOSURES.index(USUAL["exposure"])
    return Impact(
        impact=_impact(
            np.where(criticality < 1, 5, criticality),
            np.where(exposure < 0, len(EXPOSURES) - 1, exposure),
            technical_impact != 0,
        ),
        impact_known=_impact(
            np.where(criticality < 1, USUAL["criticality"], criticality),
            np.where(exposure < 0, exposed, exposure),
            technical_impact == 1,
        ),
    )


def severity_impact(severities: pa.Array | pa.ChunkedArray) -> Codes:
    """Return the technical impact that severities of findings stand for; -1 where unknown.

    Low and medium are partial, high and critical total.
    """
    codes = codes_of(severities, LEVELS)
    return np.where(codes < 0, -1, codes >= LEVELS.index("high")).astype(np.int8)


def score(likelihood: Codes, impact: Codes) -> Codes:
    """Return likelihood × impact, 1 to 25."""
    return (likelihood * impact).astype(np.int8)


def level(scores: Codes) -> Codes:
    """Return positions in ``LEVELS``: critical from 20, high from 12, medium from 5."""
    return np.searchsorted(_LEVEL_FROM, scores, side="right").astype(np.int8)


def reasons(row: Mapping[str, Any]) -> list[str]:
    """Return why a risk is scored as it is, in sentences; names what is missing or stale.

    Args:
        row: Of a vulnerability its row of evidence, of a model risk ``kind`` = ``model``,
            ``successes``, ``attempts`` and ``severity``; of both ``criticality`` and
            ``exposure`` of the asset.
    """
    if row.get("kind") == "model":
        said = [_tried(row), _severity(row)]
    else:
        said = [_evidence(row, kind) for kind in _SAID]
        said += [_uncounted(row, kind) for kind in ("weakness", "techniques")]
    return [line for line in [*said, _criticality(row), _exposure(row)] if line]


def _chance(signals: Signals, *, epss: float, cvss: float, missing: int) -> Floats:
    """Return P with missing numbers and codes as given."""
    base = np.clip(np.where(np.isnan(signals.epss), epss, signals.epss), *_EPSS_RANGE)
    severity = np.clip(np.where(np.isnan(signals.cvss), cvss, signals.cvss), *_CVSS_RANGE)
    odds = base / (1 - base) * (severity / USUAL["cvss"])
    for codes, factors in (
        (signals.exploitation, _EXPLOITATION_ODDS),
        (signals.automatable, _AUTOMATABLE_ODDS),
        (signals.technical_impact, _TOTAL_ODDS),
    ):
        odds *= np.array(factors)[np.where(codes < 0, missing, codes)]
    chance: Floats = odds / (1 + odds)
    return chance


def _impact(criticality: Codes, exposure: Codes, total: npt.NDArray[np.bool_]) -> Codes:
    small, wide = exposure == 0, exposure == len(EXPOSURES) - 1
    shift = (total & wide).astype(np.int8) - (~total & small).astype(np.int8)
    clamped: Codes = np.clip(criticality + shift, 1, 5).astype(np.int8)
    return clamped


def _floats(column: pa.ChunkedArray) -> Floats:
    values = pc.fill_null(column.cast(pa.float64()), math.nan)
    return np.asarray(values, dtype=np.float64)


def _codes(column: pa.ChunkedArray) -> Codes:
    codes: Codes = np.asarray(column, dtype=np.int8)
    return codes


def _percent(p: float) -> str:
    return f"{float(f'{100 * p:.2g}'):g} %"


def _kev(row: Mapping[str, Any]) -> str:
    if not row["kev"]:
        return "KEV: not listed"
    since = f"KEV: exploited since {row.get('kev_added') or 'a day that is not said'}"
    return since + ("; used by ransomware" if row.get("ransomware") else "")


_SAID: Final[Mapping[str, tuple[Callable[[Mapping[str, Any]], str], str]]] = {
    "kev": (_kev, "KEV not known: taken as listed"),
    "epss": (
        lambda row: (
            f"EPSS {row['epss']:.2g}: {_percent(row['epss'])} chance of exploitation activity"
            " within 30 days"
        ),
        "EPSS not known: exploitation taken as certain",
    ),
    "exploitation": (
        lambda row: {
            "none": "no exploit known",
            "poc": "proof of concept is public: odds × 3",
            "active": "exploitation is active: odds × 10",
        }[row["exploitation"]],
        "exploitation not known: taken as active",
    ),
    "automatable": (
        lambda row: (
            "attack can be automated: odds × 2"
            if row["automatable"] == "yes"
            else "attack cannot be automated"
        ),
        "automation not known: taken as possible",
    ),
    "technical_impact": (
        lambda row: (
            "attacker gains total control: odds × 2"
            if row["technical_impact"] == "total"
            else "attacker gains partial control"
        ),
        "technical impact not known: taken as total",
    ),
    "cvss": (
        lambda row: f"CVSS {row['cvss']:.1f}: odds × {row['cvss'] / USUAL['cvss']:.2f}",
        "CVSS not known: taken as 10",
    ),
}
"""Kind of evidence → what its value means, and what is assumed where it is missing."""


def _evidence(row: Mapping[str, Any], kind: str) -> str:
    said, assumed = _SAID[kind]
    value = row.get(kind)
    if _absent(value) or value not in _NAMES.get(kind, (value,)):
        usual = USUAL[kind]
        shown = {True: "listed", False: "not listed"}.get(usual) if kind == "kev" else usual
        return f"{assumed} ({shown} in the known score)"
    return said(row) + _told_by(row, kind)


def _uncounted(row: Mapping[str, Any], kind: str) -> str:
    status = row.get(f"{kind}_status")
    if status == "missing":
        return f"{kind} not known: not part of the score"
    return f"{kind}: not part of the score{_told_by(row, kind)}" if status == "stale" else ""


def _told_by(row: Mapping[str, Any], kind: str) -> str:
    told = [str(row[key]) for key in (f"{kind}_source", f"{kind}_as_of") if row.get(key)]
    told += ["stale"] * (row.get(f"{kind}_status") == "stale")
    return f" ({', '.join(told)})" * bool(told)


def _criticality(row: Mapping[str, Any]) -> str:
    value = row.get("criticality")
    if _absent(value) or not value:
        return f"criticality not known: taken as 5 ({USUAL['criticality']} in the known score)"
    return f"criticality {value} of 5"


def _exposure(row: Mapping[str, Any]) -> str:
    value = row.get("exposure")
    if value not in EXPOSURES:
        return f"exposure not known: taken as open ({USUAL['exposure']} in the known score)"
    return f"exposure {value}"


def _tried(row: Mapping[str, Any]) -> str:
    won, tried = int(row.get("successes") or 0), int(row.get("attempts") or 0)
    if not tried:
        usual = _percent(USUAL["success_rate"])
        return f"no attempt counted: every one taken to get through ({usual} in the known score)"
    high = _percent(rate_at_most(won, tried))
    return f"{won} of {tried} attempts got through; at most {high} (95 % Wilson)"


def _severity(row: Mapping[str, Any]) -> str:
    value = row.get("severity")
    if value not in LEVELS:
        usual = USUAL["technical_impact"]
        return f"severity not known: impact taken as total ({usual} in the known score)"
    extent = "total" if LEVELS.index(value) >= LEVELS.index("high") else "partial"
    return f"severity {value}: impact {extent}"


def _absent(value: Any) -> bool:
    return value is None or value == "" or value != value  # noqa: PLR0124 - NaN
