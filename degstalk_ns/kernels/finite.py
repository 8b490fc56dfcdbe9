"""A Numba kernel that asks whether numbers are all finite, far faster than looking at each.

It sees numpy arrays only and knows neither torch, autograd nor threads.
"""

from __future__ import annotations

from degstalk_ns.kernels.compiled import kernel
from degstalk_ns.kernels.lanes import LANES, load, spread, total

ROWS_AT_ONCE = 4
"""Sums that grow side by side, since each addition waits for the one before."""


@kernel
def sum_of(values):  # type: ignore[no-untyped-def]
    """The sum of a 1D contiguous array: finite unless a number is not, or the sum overflows."""
    real = values.dtype.type
    a = b = c = d = spread(real(0.0))
    whole = len(values) // (ROWS_AT_ONCE * LANES) * (ROWS_AT_ONCE * LANES)
    for at in range(0, whole, ROWS_AT_ONCE * LANES):
        a += load(values, at)
        b += load(values, at + LANES)
        c += load(values, at + 2 * LANES)
        d += load(values, at + 3 * LANES)
    result = total((a + b) + (c + d))
    for at in range(whole, len(values)):
        result += values[at]
    return result
