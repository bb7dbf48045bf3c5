"""Evidence, assets and campaigns brought together: one scored row per risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workbench.risk import decide, score
from workbench.risk.decide import MODEL_POLICY, Decisions
from workbench.risk.evidence import KINDS
from workbench.risk.loss import Losses, annual_losses
from workbench.risk.records import EXPOSURES, LEVELS, Asset, Intake, ModelRisk, Occurrence
from workbench.risk.score import Codes, Impact, Threat
from workbench.risk.tables import REJECTED
from workbench.risk.taxonomy import name_of

__all__ = ["Scored", "assemble", "without_rejected"]

_CLOSING: Final = ("fixed", "not_affected")
_OF_ASSET: Final = ("criticality", "exposure")
_KINDS: Final = (*KINDS, *_OF_ASSET, "attempts")
"""What can be missing of a risk, each a bit of a mask."""
_TAKEN: Final = (
    "title", "weakness", "techniques", "cvss", "cvss_vector", "epss", "kev", "kev_added",
    "ransomware", "exploitation", "automatable", "technical_impact",
)  # fmt: skip
"""Of the evidence, what each risk repeats."""
_UNKNOWN: Final = Asset(id="")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Risks without what only the register knows: dates, and what people decided."""

    columns: dict[str, Any]
    """Columns of ``register.RISKS``, equally long."""
    days: npt.NDArray[np.int16]
    """Until due, from the day a risk was first seen; -1: with the next upgrade."""
    losses: Losses


def assemble(
    intake: Intake, evidence: pa.Table, *, policy: str, years: int = 10_000, seed: int = 0
) -> Scored:
    """Return every risk, scored, decided and priced; the same input gives the same rows.

    Args:
        intake: What is where.
        evidence: A row per vulnerability of it, see ``evidence.gather``.
        policy: Decision table for vulnerabilities, see ``decide.POLICIES``.
        years: Drawn for the percentiles of losses.
        seed: Of that drawing.

    Raises:
        ConfigError: If the policy is unknown.
    """
    found = _vulnerabilities(intake.occurrences, intake.assets, evidence, policy=policy)
    models = _models(intake.model_risks, intake.assets)
    columns: dict[str, Any] = {}
    for name in {**found.columns, **models.columns}:
        parts = [_column(part.columns.get(name), rows=len(part.days)) for part in (found, models)]
        columns[name] = _joined(parts)
    owners = [intake.assets.get(one, _UNKNOWN) for one in columns["asset"].to_pylist()]
    columns["owner"] = pa.array([one.owner for one in owners], pa.string())
    days = np.concatenate([found.days, models.days])
    losses = _losses(columns, owners, models=len(models.days), years=years, seed=seed)
    columns["annual_loss_usd"] = losses.expected_usd
    return Scored(columns=columns, days=days, losses=losses)


def without_rejected(intake: Intake, evidence: pa.Table) -> Intake:
    """Return an intake in which CVE records that were withdrawn are closed, and say so."""
    titles = dict(zip(evidence["cve"].to_pylist(), evidence["title"].to_pylist(), strict=True))
    settled = (
        replace(one, state="not_affected", reason=f"{REJECTED} (its publisher withdrew it)")
        if titles.get(one.subject) == REJECTED
        else one
        for one in intake.occurrences
    )
    return replace(intake, occurrences=tuple(settled))


@dataclass(frozen=True, kw_only=True)
class _Part:
    columns: dict[str, Any]
    days: npt.NDArray[np.int16]


def _vulnerabilities(
    found: Sequence[Occurrence], assets: Mapping[str, Asset], evidence: pa.Table, *, policy: str
) -> _Part:
    row_of = {one: row for row, one in enumerate(evidence["cve"].to_pylist())}
    rows = np.array([row_of[one.subject] for one in found], dtype=np.int64)
    on = [assets.get(one.asset, _UNKNOWN) for one in found]
    criticality, exposure = _of_assets(on)
    signals = score.signals_of(evidence)
    whole = score.threat(signals)
    threat = Threat(
        p=whole.p[rows],
        p_at_most=whole.p_at_most[rows],
        likelihood=whole.likelihood[rows],
        likelihood_known=whole.likelihood_known[rows],
    )
    impact = score.impact(criticality, exposure, signals.technical_impact[rows])
    decided = decide.decide(
        policy,
        kev=signals.kev[rows],
        exploitation=signals.exploitation[rows],
        automatable=signals.automatable[rows],
        technical_impact=signals.technical_impact[rows],
        exposure=exposure,
        criticality=criticality,
    )
    taken = _filled(evidence).take(pa.array(rows))
    columns = {
        "id": [one.id for one in found],
        "kind": ["cve"] * len(found),
        "subject": [one.subject for one in found],
        "asset": [one.asset for one in found],
        "component": [one.component for one in found],
        "state": [one.state for one in found],
        "reason": [one.reason for one in found],
        "source": [one.source for one in found],
        "told_by": [one.told_by for one in found],
        "fixed_in": [one.fixed_in for one in found],
        **{name: taken[name] for name in _TAKEN},
        **_scores(threat, impact, decided, names=decide.decision_names(policy)),
        **_of_asset_columns(criticality, exposure),
        **_statuses(taken, criticality, exposure),
    }
    return _Part(columns=columns, days=decided.days)


def _models(found: Sequence[ModelRisk], assets: Mapping[str, Asset]) -> _Part:
    on = [assets.get(one.asset, _UNKNOWN) for one in found]
    criticality, exposure = _of_assets(on)
    extent = score.severity_impact(pa.array([one.severity for one in found], pa.string()))
    tried = [one.attempts for one in found]
    threat = score.model_threat([one.successes for one in found], tried, exposure)
    impact = score.impact(criticality, exposure, extent)
    levels = score.level(score.score(threat.likelihood, impact.impact))
    known = score.level(score.score(threat.likelihood_known, impact.impact_known))
    decided = decide.model_decisions(levels, known)
    empty: list[list[str]] = [[]] * len(found)
    unknown = {"criticality": criticality == 0, "exposure": exposure < 0}
    unknown["attempts"] = np.array(tried, dtype=np.int64) == 0
    masks = _mask(unknown, rows=len(found))
    columns = {
        "id": [one.id for one in found],
        "kind": ["model"] * len(found),
        "subject": [one.subject for one in found],
        "title": [name_of(one.subject) for one in found],
        "asset": [one.asset for one in found],
        "component": [one.target for one in found],
        "state": ["affected"] * len(found),
        "reason": [_outcome(one) for one in found],
        "source": [one.source for one in found],
        "told_by": ["campaign"] * len(found),
        "fixed_in": [""] * len(found),
        "weakness": pa.array(empty, pa.list_(pa.string())),
        "techniques": pa.array([list(one.techniques) for one in found], pa.list_(pa.string())),
        "execution": [one.execution for one in found],
        "attempts": tried,
        "successes": [one.successes for one in found],
        "severity": [one.severity for one in found],
        **_scores(threat, impact, decided, names=decide.decision_names(MODEL_POLICY)),
        **_of_asset_columns(criticality, exposure),
        "missing": _named(masks),
        "stale": pa.array(empty, pa.list_(pa.string())),
    }
    return _Part(columns=columns, days=decided.days)


def _filled(evidence: pa.Table) -> pa.Table:
    """Return evidence with empty lists where nobody could say: the mask tells that apart."""
    for name in ("weakness", "techniques"):
        lists = [one or [] for one in evidence[name].to_pylist()]
        column = pa.array(lists, pa.list_(pa.string()))
        evidence = evidence.set_column(evidence.column_names.index(name), name, column)
    return evidence


def _outcome(risk: ModelRisk) -> str:
    told = f"{risk.successes} of {risk.attempts} attempts got through"
    return f"{told}; {risk.findings} findings, {risk.confirmed} of them confirmed"


def _scores(
    threat: Threat, impact: Impact, decided: Decisions, *, names: Sequence[str]
) -> dict[str, Any]:
    scores = score.score(threat.likelihood, impact.impact)
    decisions = pa.array(names, pa.string())
    return {
        "likelihood": threat.likelihood,
        "likelihood_known": threat.likelihood_known,
        "impact": impact.impact,
        "impact_known": impact.impact_known,
        "score": scores,
        "score_known": score.score(threat.likelihood_known, impact.impact_known),
        "level": pa.array(LEVELS, pa.string()).take(pa.array(score.level(scores))),
        "p_exploit": threat.p,
        "decision": decisions.take(pa.array(decided.codes)),
        "decision_known": decisions.take(pa.array(decided.codes_known)),
    }


def _of_assets(on: Sequence[Asset]) -> tuple[Codes, Codes]:
    """Return criticality, 0 where nobody said, and position in ``EXPOSURES``, -1 likewise."""
    exposures = [-1 if one.exposure is None else EXPOSURES.index(one.exposure) for one in on]
    return (
        np.array([one.criticality or 0 for one in on], dtype=np.int8),
        np.array(exposures, dtype=np.int8),
    )


def _of_asset_columns(criticality: Codes, exposure: Codes) -> dict[str, pa.Array]:
    return {
        "criticality": pa.array(criticality, mask=criticality == 0),
        "exposure": pa.array(EXPOSURES, pa.string()).take(
            pa.array(exposure, pa.int8(), mask=exposure < 0)
        ),
    }


def _statuses(taken: pa.Table, criticality: Codes, exposure: Codes) -> dict[str, pa.Array]:
    """Return, per risk, the kinds of evidence that are missing, and those that are stale."""
    missing, stale = (
        {kind: np.asarray(pc.equal(taken[f"{kind}_status"], status), dtype=bool) for kind in KINDS}
        for status in ("missing", "stale")
    )
    missing |= {"criticality": criticality == 0, "exposure": exposure < 0}
    rows = len(criticality)
    return {
        "missing": _named(_mask(missing, rows=rows)),
        "stale": _named(_mask(stale, rows=rows)),
    }


def _mask(flags: Mapping[str, npt.NDArray[np.bool_]], *, rows: int) -> npt.NDArray[np.int64]:
    mask = np.zeros(rows, dtype=np.int64)
    for bit, kind in enumerate(_KINDS):
        if kind in flags:
            mask |= flags[kind].astype(np.int64) << bit
    return mask


def _named(masks: npt.NDArray[np.int64]) -> pa.Array:
    """Return masks as lists of kinds; each different one is spelled once."""
    different, of_row = np.unique(masks, return_inverse=True)
    spelled = [
        [kind for bit, kind in enumerate(_KINDS) if mask >> bit & 1] for mask in different.tolist()
    ]
    return pa.array(spelled, pa.list_(pa.string())).take(pa.array(of_row))


def _losses(
    columns: Mapping[str, Any], on: Sequence[Asset], *, models: int, years: int, seed: int
) -> Losses:
    """Return what a year may cost; what VEX closed costs nothing."""
    is_closed = np.asarray(
        pc.is_in(columns["state"], value_set=pa.array(_CLOSING, pa.string())), dtype=bool
    )
    p = np.where(is_closed, 0.0, np.asarray(columns["p_exploit"], dtype=np.float64))
    is_model = np.zeros(len(on), dtype=bool)
    is_model[len(on) - models :] = True
    told = [np.nan if one.incident_usd is None else one.incident_usd for one in on]
    return annual_losses(
        p,
        impact=np.asarray(columns["impact_known"]).astype(np.int8),
        exposure=_of_assets(on)[1],
        assets=columns["asset"].to_pylist(),
        incident_usd=np.array(told, dtype=np.float64),
        model=is_model,
        years=years,
        seed=seed,
    )


def _column(values: Any, *, rows: int) -> pa.Array:
    if values is None:
        return pa.nulls(rows)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values)


def _joined(parts: Sequence[pa.Array]) -> pa.Array:
    """Return arrays in a row; nulls and empty ones take the type of the other."""
    kinds = [one.type for one in parts if len(one) and not pa.types.is_null(one.type)]
    kinds += [one.type for one in parts if not pa.types.is_null(one.type)]
    kind = kinds[0] if kinds else pa.string()
    return pa.concat_arrays([one.cast(kind) if len(one) else pa.nulls(0, kind) for one in parts])
