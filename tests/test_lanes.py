"""Vector registers of the kernels against NumPy."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from degstalk_ns.kernels import lanes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes(dtype: Any) -> None:
    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def compute(x: Any, y: Any, out: Any) -> Any:
        a, b = lanes.load(x, 0), lanes.load(y, 0)
        lanes.store(out, 0, (a + b) * 2.0 - a / b)
        lanes.store(out, 16, lanes.select((a < b) & ~(a <= 0.0), a, b))
        lanes.store(out, 32, lanes.exp2(a))
        lanes.store(out, 48, lanes.larger(lanes.smaller(a, b), 0.25))
        lanes.store(out, 64, lanes.totals((a, b, a * b)))
        return lanes.total(a), lanes.some(a > 100.0), lanes.some(a >= lanes.load(x, 0))

    random = np.random.default_rng(0)
    x, y = random.uniform(-20, 20, 16).astype(dtype), random.uniform(1, 2, 16).astype(dtype)
    out = np.zeros(80, dtype)
    total, none, one = compute(x, y, out)
    close = 3e-7 if dtype == np.float32 else 1e-15
    np.testing.assert_allclose(out[:16], (x + y) * 2 - x / y, rtol=20 * close, atol=20 * close)
    np.testing.assert_array_equal(out[16:32], np.where((x < y) & ~(x <= 0), x, y))
    np.testing.assert_allclose(out[32:48], np.exp2(x.astype(np.float64)), rtol=close)
    np.testing.assert_array_equal(out[48:64], np.maximum(np.minimum(x, y), dtype(0.25)))
    np.testing.assert_allclose(out[64:67], [x.sum(), y.sum(), (x * y).sum()], rtol=1e-4)
    assert not out[67:].any()
    assert total == pytest.approx(x.sum(), rel=1e-4) and not none and one


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("last", [2, 15, 18])
def test_lanes_of_columns(dtype: Any, last: int) -> None:
    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def compute(table: Any, whole: Any, copied: Any, rows: Any, numbers: Any) -> None:
        a, b = lanes.load_column(table, 3, last, 1), lanes.load_column(whole, 3, last, 0)
        lanes.store_column(copied, 3, last, 0, a + b)
        lanes.store_column(numbers, 3, last, 0, lanes.whole_below(a))
        c = (a, b, a + 1.0, a + 2.0, a + 3.0, a + 4.0, a + 5.0, a + 6.0)
        d = (b + 1.0, b + 2.0, b + 3.0, b + 4.0, b + 5.0, b + 6.0, b + 7.0, b + 8.0)
        lanes.store_rows(rows, 3, last, c + d)

    random = np.random.default_rng(0)
    table = random.uniform(-9, 9, (20, 3)).astype(dtype)
    whole = random.integers(-9, 9, 20).astype(np.int32)
    copied, rows, numbers = np.zeros((20, 2), dtype), np.zeros((20, 18), dtype), np.zeros(20, np.int32)
    compute(table, whole, copied, rows, numbers)
    end = min(last, 3 + lanes.LANES - 1) + 1
    there = slice(3, end) if last >= 3 else slice(last, last + 1)  # beyond the last row, that row again
    a, b = table[there, 1].astype(np.float64), whole[there].astype(np.float64)
    np.testing.assert_array_equal(copied[there, 0], (a + b).astype(dtype))
    np.testing.assert_array_equal(numbers[there], np.floor(a))
    expected = np.stack([a, b, *(a + k for k in range(1, 7)), *(b + k for k in range(1, 9))], axis=1)
    np.testing.assert_array_equal(rows[there, :16], expected.astype(dtype))
    others = np.setdiff1d(np.arange(20), np.arange(20)[there])
    assert not copied[others].any() and not rows[others].any() and not numbers[others].any() and not rows[:, 16:].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_lanes_of_a_block_of_pixels(dtype: Any, depth: int) -> None:
    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def one(values: Any, image: Any) -> None:
        lanes.store_block(image, 5, 7, (lanes.load(values, 0),))

    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def three(values: Any, image: Any) -> None:
        a, b, c = lanes.load(values, 0), lanes.load(values, 16), lanes.load(values, 32)
        lanes.store_block(image, 15, 21, (a, b, c))

    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def four(values: Any, image: Any) -> None:
        a, b, c, d = lanes.load(values, 0), lanes.load(values, 16), lanes.load(values, 32), lanes.load(values, 48)
        lanes.store_block(image, 20, 28, (a, b, c, d))

    values = np.random.default_rng(0).uniform(1, 2, depth * 16).astype(dtype)
    image = np.zeros(6 * 7 * depth, dtype)
    {1: one, 3: three, 4: four}[depth](values, image)
    expected = np.zeros((6, 7, depth), dtype)
    flat = expected.reshape(42, depth)
    for row in range(4):
        flat[5 + 7 * row : 9 + 7 * row] = values.reshape(depth, 16)[:, 4 * row : 4 * row + 4].T
    np.testing.assert_array_equal(image, expected.reshape(-1))


def test_logarithms_in_lanes() -> None:
    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def compute(x: Any, out: Any) -> None:
        for at in range(0, len(x), 16):
            lanes.store(out, at, lanes.log2(lanes.load(x, at)))

    random = np.random.default_rng(0)
    off_one = [-1e-16, 0, 2.3e-16, -1e-9, 1e-9, -1e-3, 1e-3, -0.3, 0.4, 0.41, -0.29, -0.2929, 0.5, 1, 3, 7]
    near_one = 1 + np.array(off_one)
    x = np.concatenate([near_one, np.exp(random.uniform(-300, 300, 1600)), random.uniform(0, 1, 16000)])
    out = np.zeros_like(x)
    compute(x, out)
    np.testing.assert_allclose(out, np.log2(x), rtol=2e-15, atol=2e-15)
