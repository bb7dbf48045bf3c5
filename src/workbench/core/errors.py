"""The one exception tree.

::

    WorkbenchError                 exit 1   anything this package raises on purpose
    ├── InputError                 exit 2   something the user gave is wrong
    │   ├── ConfigError            exit 2   an experiment file, setting or parameter
    │   └── DataError              exit 2   a data file or its contents
    ├── BudgetError                exit 3   a limit on spending was reached
    ├── GateError                  exit 4   a quality gate was not met
    ├── ModelError                 exit 1   a model's service gave no usable answer
    ├── StoreError                 exit 1   the store cannot be read or written
    │   └── LeaseHeld              exit 1   another process does this at present
    └── WorkerLost                 exit 1   a worker or its scheduler went away

Every message names the thing, the value and what to do next, in one line.
"""

from __future__ import annotations

__all__ = [
    "BudgetError", "ConfigError", "DataError", "GateError", "InputError", "LeaseHeld",
    "ModelError", "StoreError", "WorkbenchError", "WorkerLost",
]  # fmt: skip


class WorkbenchError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is the process exit status."""

    exit_code: int = 1


class InputError(WorkbenchError):
    """Something the user gave is wrong; nothing was started."""

    exit_code = 2


class ConfigError(InputError):
    """An experiment file, a setting or a parameter is wrong."""


class DataError(InputError):
    """A data file, or what it contains, is wrong."""


class BudgetError(WorkbenchError):
    """A limit on spending was reached; what is done is kept."""

    exit_code = 3


class GateError(WorkbenchError):
    """A quality gate was not met."""

    exit_code = 4


class ModelError(WorkbenchError):
    """A model's service gave no usable answer, however often it was asked."""


class StoreError(WorkbenchError):
    """The store cannot be read or written (full disk, newer schema, damaged file)."""


class LeaseHeld(StoreError):  # noqa: N818 - says what is the case
    """Another process does this at present, or has taken it over."""


class WorkerLost(WorkbenchError):  # noqa: N818 - says what is the case
    """A worker, or the scheduler of the workers, went away while it had work."""
