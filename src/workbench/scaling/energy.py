"""Energy and carbon of CPU seconds: estimated from stated factors, never metered here."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core.errors import ConfigError

__all__ = ["GCO2_PER_KWH", "PUE", "WATTS_PER_CORE", "Energy", "estimate"]

WATTS_PER_CORE = 3.5
"""Watts of one virtual core at full load. Source: Cloud Carbon Footprint, AWS average maximum
(``MAX_WATTS_AVG``), https://www.cloudcarbonfootprint.org/docs/methodology/, checked 2026-11-21."""

PUE = 1.135
"""Energy of the building per energy of its machines. Source: the same, ``PUE_AVG`` of AWS."""

GCO2_PER_KWH = 436.0
"""Grams of CO2 per kWh, world average of 2022. Source: Ember, Global Electricity Review 2023,
https://www.modernpowersystems.com/news/newscarbon-intensity-falls-to-alltime-low-10769695,
checked 2026-11-21. Countries differ twentyfold (France 56 in 2023)."""

_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """An estimate of energy and what it emits."""

    kwh: float
    """Kilowatt-hours at the building's meter."""
    gco2: float
    """Grams of CO2 equivalent."""
    method: str
    """How it was estimated, in words, with every factor."""


def estimate(
    cpu_s: float,
    *,
    watts_per_core: float = WATTS_PER_CORE,
    pue: float = PUE,
    gco2_per_kwh: float = GCO2_PER_KWH,
) -> Energy:
    """Return what ``cpu_s`` seconds of one core took, as an estimate.

    Args:
        cpu_s: Seconds of one busy core, >= 0.
        watts_per_core: Watts of one busy core.
        pue: Energy of the building per energy of its machines, >= 1.
        gco2_per_kwh: Carbon intensity of the grid.

    Raises:
        ConfigError: If a value makes no physical sense.

    Source:
        Cloud Carbon Footprint, methodology: usage × watts × PUE × grid intensity.
    """
    if not (cpu_s >= 0 and watts_per_core > 0 and pue >= 1 and gco2_per_kwh >= 0):
        raise ConfigError(
            f"energy of cpu_s={cpu_s}, watts_per_core={watts_per_core}, pue={pue}, "
            f"gco2_per_kwh={gco2_per_kwh}: seconds and factors must be positive, pue at least 1"
        )
    kwh = cpu_s * watts_per_core * pue / _JOULES_PER_KWH
    method = (
        f"estimated, not metered: core seconds × {watts_per_core:g} W per busy core × PUE {pue:g}; "
        f"{gco2_per_kwh:g} gCO2 per kWh (world average 2022); memory, disk and idle time left out"
    )
    return Energy(kwh=kwh, gco2=kwh * gco2_per_kwh, method=method)
