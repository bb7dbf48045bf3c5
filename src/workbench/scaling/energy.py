"""Energy and carbon of CPU and GPU time: estimated from stated factors, never metered here."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core.errors import ConfigError

__all__ = [
    "FACTOR_SOURCE", "GCO2_PER_KWH", "KWH_PER_CORE_HOUR", "METHOD", "PUE", "Energy", "estimate",
    "gpu_energy",
]  # fmt: skip

_WATTS_PER_CORE = 3.5
PUE = 1.135
"""Energy at the building's meter over energy at the machine; see :data:`FACTOR_SOURCE`."""
KWH_PER_CORE_HOUR = _WATTS_PER_CORE * PUE / 1000
"""Kilowatt-hours that an hour of one busy virtual core takes at the building's meter."""
FACTOR_SOURCE = (
    f"{_WATTS_PER_CORE} W per busy virtual core times PUE {PUE}, Cloud Carbon Footprint's averages"
    " for AWS: https://www.cloudcarbonfootprint.org/docs/methodology/; checked 2026-11-21"
)
GCO2_PER_KWH = 436.0
"""Grams of CO2 per kWh, world average of 2022. Source: Ember, Global Electricity Review 2023,
https://www.modernpowersystems.com/news/newscarbon-intensity-falls-to-alltime-low-10769695,
checked 2026-11-21. Countries differ twentyfold (France 56 in 2023)."""
METHOD = (
    f"estimated, not metered: core seconds × {_WATTS_PER_CORE} W per busy core × PUE {PUE}; "
    f"{GCO2_PER_KWH:g} gCO2 per kWh (world average 2022); memory, disk and idle time left out"
)
"""How energy is estimated, in words, with every factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """An estimate of energy and what it emits."""

    kwh: float
    gco2: float
    """Grams of CO2 equivalent."""


def estimate(cpu_s: float) -> Energy:
    """Return what ``cpu_s`` seconds of one core took, as :data:`METHOD` says.

    Raises:
        ConfigError: If ``cpu_s`` is negative or not a number.
    """
    if not cpu_s >= 0:
        raise ConfigError(f"cpu_s={cpu_s}: CPU seconds must be 0 or more")
    kwh = cpu_s / 3600 * KWH_PER_CORE_HOUR
    return Energy(kwh=kwh, gco2=kwh * GCO2_PER_KWH)


def gpu_energy(*, hours: float, watts: float) -> Energy:
    """Return what a GPU board at ``watts`` takes in ``hours``; its host is left out.

    Raises:
        ConfigError: If hours or watts are negative or not a number.
    """
    if not (hours >= 0 and watts >= 0):
        raise ConfigError(f"hours={hours}, watts={watts}: both must be 0 or more")
    kwh = hours * watts * PUE / 1000
    return Energy(kwh=kwh, gco2=kwh * GCO2_PER_KWH)
