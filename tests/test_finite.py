"""The kernel that tells whether all numbers are finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from degstalk_ns.kernels import finite


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 1000])
def test_sums_are_finite_unless_a_number_is_not(dtype: Any, count: int) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, count).astype(dtype)
    assert finite.sum_of(values) == pytest.approx(float(values.sum()), abs=1e-4)
    for place in range(0, count, 37):
        for bad in (np.nan, np.inf, -np.inf):
            spoilt = values.copy()
            spoilt[place] = bad
            assert not np.isfinite(finite.sum_of(spoilt))
