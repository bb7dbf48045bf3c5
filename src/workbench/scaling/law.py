"""The forms of scaling laws: sums of terms, each a positive scale times a shape of log size.

Sizes come as logs around the center of the fitted runs, which keeps scales and exponents from
trading places; :attr:`Form.plain` translates back.

Source:
    Hoffmann et al. 2022, arXiv:2203.15556, eq. 2 (power law, joint law); Gadre et al. 2024,
    arXiv:2403.08540, eq. 4 (one exponent for both axes); Caballero et al. 2022, arXiv:2210.14891,
    eq. 1 with n = 1 (one break).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BROKEN", "CONSTANT", "FORMS", "JOINT", "LOG_LINEAR", "POWER", "TIED", "Form", "loss_at"]

Floats = NDArray[np.float64]

_ALPHA = (0.01, 4.0)
_ALPHA_STARTS = (0.05, 0.2, 0.5, 1.0, 2.0)
_LEAST = 1e-6
"""Where a straight line in log x would fall below 0, it stays at this share of its middle."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """A curve with positive scales, which enter as logs, and shapes, which enter as they are.

    A row of parameters is ``(scales + shapes,)``; sizes are ``(axes, n)`` logs around a center.
    """

    name: str
    words: str
    scales: tuple[str, ...]
    """One per term; the first is the floor where ``has_floor``."""
    shapes: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]
    """Least and most of each shape."""
    grid: Callable[[Floats], Sequence[Sequence[float]]]
    """Values of each shape to start from, given the ``(axes, n)`` sizes."""
    terms: Callable[[Floats, Floats], Floats]
    """Logs ``(fits, scales, n)`` of the terms at scale 1 for ``(fits, shapes)`` at the sizes."""
    slopes: Callable[[Floats, Floats, Floats], Floats]
    """Derivatives ``(fits, shapes, n)`` of the log loss by shape; last come the terms' shares."""
    plain: Callable[[Floats, Floats], Floats]
    """Named parameters for plain sizes of ``(fits, scales + shapes)``, given the log center."""
    axes: int = 1
    has_floor: bool = False
    least_sizes: int = 3
    """Different sizes per axis below which it is not fitted."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, scales first."""
        return self.scales + self.shapes


def loss_at(form: Form, theta: Floats, sizes: Floats) -> Floats:
    """Return ``(fits, n)`` losses of ``(fits, parameters)`` at ``(axes, n)`` centered log sizes."""
    count = len(form.scales)
    logs = form.terms(theta[:, count:], sizes) + theta[:, :count, None]
    total: Floats = np.exp(logs).sum(axis=1)
    return total


def _powers(shapes: Floats, sizes: Floats) -> Floats:
    powers = -shapes[:, :, None] * sizes
    return np.concatenate([np.zeros_like(powers[:, :1]), powers], axis=1)


def _powers_slopes(_: Floats, sizes: Floats, shares: Floats) -> Floats:
    slopes: Floats = -shares[:, 1:] * sizes
    return slopes


def _powers_plain(theta: Floats, center: Floats) -> Floats:
    axes = len(center)
    scales = np.exp(theta[:, 1 : 1 + axes] + theta[:, 1 + axes :] * center)
    return np.concatenate([np.exp(theta[:, :1]), scales, theta[:, 1 + axes :]], axis=1)


def _line(shapes: Floats, sizes: Floats) -> Floats:
    line: Floats = np.log(np.maximum(1 - shapes * sizes / np.log(10), _LEAST))[:, None]
    return line


def _line_slopes(shapes: Floats, sizes: Floats, _: Floats) -> Floats:
    tens = sizes / np.log(10)
    slopes: Floats = (-tens / np.maximum(1 - shapes * tens, _LEAST))[:, None]
    return slopes


def _line_plain(theta: Floats, center: Floats) -> Floats:
    middle, share = np.exp(theta[:, 0]), theta[:, 1]
    return np.column_stack([middle * (1 + share * center[0] / np.log(10)), middle * share])


def _broken(shapes: Floats, sizes: Floats) -> Floats:
    before, more, log_at, log_width = (shapes[:, at, None] for at in range(4))
    width = np.exp(log_width)
    bend = np.logaddexp(0, (sizes - log_at) / width)
    logs = -before * sizes - more * width * bend
    return np.stack([np.zeros_like(logs), logs], axis=1)


def _broken_slopes(shapes: Floats, sizes: Floats, shares: Floats) -> Floats:
    _, more, log_at, log_width = (shapes[:, at, None] for at in range(4))
    width = np.exp(log_width)
    where = (sizes - log_at) / width
    bend, past = np.logaddexp(0, where), 0.5 * (1 + np.tanh(where / 2))
    first = np.broadcast_to(-sizes, where.shape)
    rows = [first, -width * bend, more * past, -more * width * (bend - where * past)]
    return np.stack(rows, axis=1) * shares[:, 1:]


def _broken_plain(theta: Floats, center: Floats) -> Floats:
    floor, scale, before, more, log_at, log_width = theta.T
    plain = [np.exp(floor), np.exp(scale + before * center[0]), before, more]
    return np.column_stack([*plain, np.exp(log_at + center[0]), np.exp(log_width)])


CONSTANT = Form(
    name="constant", words="L(x) = A", scales=("A",), shapes=(), bounds=(),
    grid=lambda _: (),
    terms=lambda shapes, sizes: np.zeros((len(shapes), 1, sizes.shape[1])),
    slopes=lambda shapes, sizes, _: np.zeros((len(shapes), 0, sizes.shape[1])),
    plain=lambda theta, _: np.exp(theta),
)  # fmt: skip
LOG_LINEAR = Form(
    name="log-linear", words="L(x) = A − B · log₁₀ x", scales=("A",), shapes=("B",),
    bounds=((-2.0, 2.0),), grid=lambda _: ((-0.1, 0.02, 0.1, 0.3),),
    terms=_line, slopes=_line_slopes, plain=_line_plain,
)  # fmt: skip
POWER = Form(
    name="power law", words="L(x) = E + A · x^(−α)", scales=("E", "A"), shapes=("alpha",),
    bounds=(_ALPHA,), grid=lambda _: (_ALPHA_STARTS,),
    terms=_powers, slopes=_powers_slopes, plain=_powers_plain, has_floor=True,
)  # fmt: skip
BROKEN = Form(
    name="one break", words="L(x) = E + A · x^(−c₀) · (1 + (x/d)^(1/f))^(−c₁ · f)",
    scales=("E", "A"), shapes=("c0", "c1", "d", "f"),
    bounds=((0.0, 4.0), (-4.0, 20.0), (-20.0, 20.0), (-4.0, 1.0)),
    grid=lambda sizes: (
        (0.05, 0.4), (0.5, 3.0, 9.0), np.quantile(sizes[0], (0.2, 0.5, 0.8, 1.0)), (-2.5, -1.0),
    ),
    terms=_broken, slopes=_broken_slopes, plain=_broken_plain, has_floor=True, least_sizes=7,
)  # fmt: skip
JOINT = Form(
    name="joint law", words="L(N, D) = E + A · N^(−α) + B · D^(−β)", axes=2,
    scales=("E", "A", "B"), shapes=("alpha", "beta"),
    bounds=(_ALPHA, _ALPHA), grid=lambda _: (_ALPHA_STARTS, _ALPHA_STARTS),
    terms=_powers, slopes=_powers_slopes, plain=_powers_plain, has_floor=True,
)  # fmt: skip
TIED = Form(
    name="joint law, one exponent", words="L(N, D) = E + A · N^(−α) + B · D^(−α)", axes=2,
    scales=("E", "A", "B"), shapes=("alpha",), bounds=(_ALPHA,), grid=lambda _: (_ALPHA_STARTS,),
    terms=_powers, slopes=lambda *args: _powers_slopes(*args).sum(axis=1, keepdims=True),
    plain=_powers_plain, has_floor=True,
)  # fmt: skip
FORMS = (CONSTANT, LOG_LINEAR, POWER, BROKEN)
"""The laws of one axis that are compared, simplest first."""
