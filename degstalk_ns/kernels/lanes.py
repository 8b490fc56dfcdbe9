"""Sixteen numbers at once for Numba kernels: a type for a vector register, with operators, that becomes LLVM's own.

Numba vectorises a loop only if LLVM can prove a lot about it; a kernel written with lanes needs no proof, and keeps in
registers what it says. LLVM splits the sixteen lanes over whatever registers a machine has. Everything here is emitted
in place, so that a kernel stays one compiled function. It must not know what is computed.

In a kernel: `load(array, at)` and `store(array, at, lanes)` move 16 values of a 1D contiguous array; `spread(x)` puts
one number in every lane; `+ - * /` and comparisons take lanes and numbers; a comparison gives flags for `select(flags,
a, b)`, `& | ~` and `some(flags)`. Products that are added are fused where the machine can.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as _numba_intrinsic
from numba.extending import lower_builtin, models, register_model

LANES = 16
"""Floats in a 512-bit register, and a block of 4 x 4 pixels."""

_FLAGS = ("contract", "nsz")
_int32 = ir.IntType(32)
_flags_type = ir.VectorType(ir.IntType(1), LANES)


def intrinsic(typing: Callable[..., Any]) -> Any:
    """Numba's, for a type checker: called in kernels without the context that it is defined with."""
    return _numba_intrinsic(typing)


class Lanes(types.Type):
    """LANES floating-point numbers of one dtype."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


class Flags(types.Type):
    """LANES truth values."""

    def __init__(self) -> None:
        super().__init__(name="Flags")


flags_of_lanes = Flags()


def _real(dtype: types.Float) -> ir.Type:
    return ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, ir.VectorType(_real(kind.dtype), LANES))


@register_model(Flags)
class _FlagsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Flags) -> None:
        super().__init__(manager, kind, _flags_type)


def _broadcast(builder: Any, value: ir.Value) -> ir.Value:
    kind = ir.VectorType(value.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_int32, 0))
    same_everywhere = ir.Constant(ir.VectorType(_int32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), same_everywhere)


def _constant(kind: ir.VectorType, value: float | int) -> ir.Constant:
    return ir.Constant(kind, [value] * LANES)


def _as_lanes(context: Any, builder: Any, value: ir.Value, have: types.Type, want: Lanes) -> ir.Value:
    if isinstance(have, Lanes):
        return value
    return _broadcast(builder, context.cast(builder, value, have, want.dtype))


# ------------------------------------------------------------------------------------------------------------ operators


def _lanes_among(args: Any) -> Lanes | None:
    """The one type of lanes among an operator's arguments, if the others are numbers."""
    found = {arg for arg in args if isinstance(arg, Lanes)}
    others = [arg for arg in args if not isinstance(arg, Lanes)]
    if len(found) != 1 or not all(isinstance(arg, (types.Float, types.Integer)) for arg in others):
        return None
    return next(iter(found))


def _operator(function: Any, emit: Callable[[Any, ir.Value, ir.Value], ir.Value], compares: bool = False) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            kind = _lanes_among(args) if len(args) == 2 else None
            return signature(flags_of_lanes if compares else kind, *args) if kind else None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        kind = _lanes_among(sig.args)
        assert kind is not None
        left, right = (_as_lanes(context, builder, a, t, kind) for a, t in zip(args, sig.args, strict=True))
        return emit(builder, left, right)

    for pair in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(function, *pair)(lower)


for _functions, _emit in (
    ((operator.add, operator.iadd), lambda b, x, y: b.fadd(x, y, flags=_FLAGS)),
    ((operator.sub, operator.isub), lambda b, x, y: b.fsub(x, y, flags=_FLAGS)),
    ((operator.mul, operator.imul), lambda b, x, y: b.fmul(x, y, flags=_FLAGS)),
    ((operator.truediv, operator.itruediv), lambda b, x, y: b.fdiv(x, y, flags=_FLAGS)),
):
    for _function in _functions:
        _operator(_function, _emit)


def _comparison(function: Any, sign: str) -> None:
    _operator(function, lambda b, x, y: b.fcmp_ordered(sign, x, y), compares=True)


_comparison(operator.lt, "<")
_comparison(operator.le, "<=")
_comparison(operator.gt, ">")
_comparison(operator.ge, ">=")


def _flag_operator(function: Any, arity: int, emit: Callable[..., ir.Value]) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            mine = len(args) == arity and all(isinstance(arg, Flags) for arg in args)
            return signature(flags_of_lanes, *args) if mine else None

    lower_builtin(function, *(Flags,) * arity)(lambda context, builder, sig, args: emit(builder, *args))


_flag_operator(operator.and_, 2, lambda b, x, y: b.and_(x, y))
_flag_operator(operator.or_, 2, lambda b, x, y: b.or_(x, y))
_flag_operator(operator.invert, 1, lambda b, x: b.not_(x))


@infer_global(operator.neg)
class _NegationTyping(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(args[0], *args) if isinstance(args[0], Lanes) else None


@lower_builtin(operator.neg, Lanes)
def _negate(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
    return builder.fneg(args[0])


# ------------------------------------------------------------------------------------------------------------ functions


def _call(builder: Any, name: str, *args: ir.Value, result: ir.Type | None = None, flags: Any = ()) -> ir.Value:
    kind = ir.FunctionType(result or args[0].type, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args, fastmath=flags)


def _suffix(kind: Lanes) -> str:
    return f"v{LANES}f{kind.dtype.bitwidth}"


def _address(context: Any, builder: Any, array_type: Any, array: ir.Value, at_type: Any, at: ir.Value) -> ir.Value:
    data = context.make_array(array_type)(context, builder, array).data
    at = context.cast(builder, at, at_type, types.intp)
    element = builder.gep(data, [at], inbounds=True)
    return builder.bitcast(element, ir.VectorType(_real(array_type.dtype), LANES).as_pointer())


@intrinsic
def load(context, array, at):  # type: ignore[no-untyped-def]
    """LANES neighbours of a 1D contiguous array, from index `at`."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        return builder.load(address, align=sig.args[0].dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, at), emit


@intrinsic
def store(context, array, at, lanes):  # type: ignore[no-untyped-def]
    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        builder.store(args[2], address, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, at, lanes), emit


@intrinsic
def store_block(context, array, at, stride, channels):  # type: ignore[no-untyped-def]
    """Store a block of 4 x 4 pixels into a 1D contiguous array, row by row, `stride` numbers from one to the next.

    `channels` is a tuple of the channels' lanes: the four pixels of a row follow each other, each with its channels.
    """

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        array_type, depth = sig.args[0], len(sig.args[3])
        lanes = cgutils.unpack_tuple(builder, args[3])
        real = _real(array_type.dtype)
        data = context.make_array(array_type)(context, builder, args[0]).data
        at, stride = (context.cast(builder, args[k], sig.args[k], types.intp) for k in (1, 2))
        for row in range(4):
            pixels = ir.Constant(ir.VectorType(real, 4 * depth), ir.Undefined)
            for k, channel in enumerate(lanes):
                # This row's four numbers, then each to its place among what the channels before have left.
                four = builder.shuffle_vector(
                    channel,
                    ir.Constant(channel.type, ir.Undefined),
                    ir.Constant(ir.VectorType(_int32, 4 * depth), [4 * row + j // depth for j in range(4 * depth)]),
                )
                places = [4 * depth + j if j % depth == k else j for j in range(4 * depth)]
                pixels = builder.shuffle_vector(pixels, four, ir.Constant(ir.VectorType(_int32, 4 * depth), places))
            element = builder.gep(data, [at], inbounds=True)
            builder.store(
                pixels, builder.bitcast(element, pixels.type.as_pointer()), align=array_type.dtype.bitwidth // 8
            )
            at = builder.add(at, stride)
        return context.get_dummy_value()

    good = isinstance(channels, types.UniTuple) and isinstance(channels.dtype, Lanes)
    return (types.void(array, at, stride, channels), emit) if good else None


def _element(
    context: Any, builder: Any, kind: Any, array: ir.Value, lane: int, indices: Any, types_of: Any
) -> ir.Value:
    """Address of array[min(start + lane, last), column], of a contiguous array of one or two dimensions."""
    struct = context.make_array(kind)(context, builder, array)
    start, last, column = (context.cast(builder, i, t, types.intp) for i, t in zip(indices, types_of, strict=True))
    row = builder.add(start, ir.Constant(start.type, lane))
    row = builder.select(builder.icmp_signed("<", row, last), row, last)
    if kind.ndim == 2:
        row = builder.add(builder.mul(row, cgutils.unpack_tuple(builder, struct.shape)[1]), column)
    return builder.gep(struct.data, [row], inbounds=True)


@intrinsic
def load_column(context, array, start, last, column):  # type: ignore[no-untyped-def]
    """array[start : start + LANES, column] in double precision; beyond the row `last` that row again.

    `array` is contiguous; of one dimension, it has one column.
    """

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kind = sig.args[0]
        number = context.get_value_type(kind.dtype)
        lanes = ir.Constant(ir.VectorType(number, LANES), ir.Undefined)
        for lane in range(LANES):
            address = _element(context, builder, kind, args[0], lane, args[1:], sig.args[1:])
            lanes = builder.insert_element(lanes, builder.load(address), ir.Constant(_int32, lane))
        doubles = ir.VectorType(ir.DoubleType(), LANES)
        if isinstance(kind.dtype, types.Integer):
            return builder.sitofp(lanes, doubles)
        return lanes if kind.dtype.bitwidth == 64 else builder.fpext(lanes, doubles)

    return Lanes(types.float64)(array, start, last, column), emit


def _converted(builder: Any, lanes: ir.Value, have: types.Float, want: types.Type) -> ir.Value:
    number = _int32 if isinstance(want, types.Integer) else _real(want)  # type: ignore[arg-type]
    kind = ir.VectorType(number, LANES)
    if isinstance(want, types.Integer):
        return builder.fptosi(lanes, kind)
    return lanes if want == have else builder.fptrunc(lanes, kind)


@intrinsic
def store_column(context, array, start, last, column, lanes):  # type: ignore[no-untyped-def]
    """The opposite of `load_column`, for arrays of floats or int32: there whole numbers only."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kind = sig.args[0]
        values = _converted(builder, args[4], sig.args[4].dtype, kind.dtype)
        for lane in range(LANES):
            address = _element(context, builder, kind, args[0], lane, args[1:4], sig.args[1:4])
            builder.store(builder.extract_element(values, ir.Constant(_int32, lane)), address)
        return context.get_dummy_value()

    return types.void(array, start, last, column, lanes), emit


@intrinsic
def store_rows(context, array, start, last, columns):  # type: ignore[no-untyped-def]
    """array[start : start + LANES, :LANES] from its LANES columns, a tuple of lanes; nothing beyond the row `last`."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kind = sig.args[0]
        have = sig.args[3].dtype.dtype
        rows = [_converted(builder, lanes, have, kind.dtype) for lanes in cgutils.unpack_tuple(builder, args[3])]
        half = 1
        while half < LANES:  # swap the off-diagonal quarters of squares of 2, 4, 8, 16
            upper = [lane + (LANES - half if lane & half else 0) for lane in range(LANES)]
            lower = [lane + (LANES if lane & half else half) for lane in range(LANES)]
            places = (ir.Constant(ir.VectorType(_int32, LANES), order) for order in (upper, lower))
            first, second = places
            for k in range(LANES):
                if not k & half:
                    a, b = rows[k], rows[k + half]
                    rows[k] = builder.shuffle_vector(a, b, first)
                    rows[k + half] = builder.shuffle_vector(a, b, second)
            half *= 2
        zero = ir.Constant(ir.IntType(64), 0)
        for lane, row in enumerate(rows):
            indices, kinds = (args[1], args[2], zero), (sig.args[1], sig.args[2], types.int64)
            address = _element(context, builder, kind, args[0], lane, indices, kinds)
            builder.store(row, builder.bitcast(address, row.type.as_pointer()), align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    good = isinstance(columns, types.UniTuple) and isinstance(columns.dtype, Lanes) and len(columns) == LANES
    return (types.void(array, start, last, columns), emit) if good else None


@intrinsic
def spread(context, number):  # type: ignore[no-untyped-def]
    """The number in every lane; its type is the lanes'."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return _broadcast(builder, args[0])

    return Lanes(number)(number), emit


@intrinsic
def select(context, flags, yes, no):  # type: ignore[no-untyped-def]
    """Per lane `yes` where flagged, else `no`; either may be a number, not both."""
    kind: Any = _lanes_among((yes, no))

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        values = (_as_lanes(context, builder, a, t, kind) for a, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], *values)

    return (kind(flags, yes, no), emit) if kind else None


def _two(name: str) -> Any:
    @intrinsic
    def function(context, x, y):  # type: ignore[no-untyped-def]
        kind: Any = _lanes_among((x, y))

        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            values = [_as_lanes(context, builder, a, t, kind) for a, t in zip(args, sig.args, strict=True)]
            # A comparison and a choice: one instruction, where the NaN-proof minnum is several.
            return builder.select(builder.fcmp_ordered("<" if name == "min" else ">", *values), *values)

        return (kind(x, y), emit) if kind else None

    return function


smaller, larger = _two("min"), _two("max")
"""Per lane the smaller or larger of two; the second where they do not compare."""


def _one(name: str) -> Any:
    @intrinsic
    def function(context, x):  # type: ignore[no-untyped-def]
        def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
            return _call(builder, f"llvm.{name}.{_suffix(sig.args[0])}", args[0])

        return x(x), emit

    return function


root, magnitude, whole_below = _one("sqrt"), _one("fabs"), _one("floor")


@intrinsic
def total(context, lanes):  # type: ignore[no-untyped-def]
    """Sum of the lanes, halves first."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            halves = (
                builder.shuffle_vector(
                    value,
                    ir.Constant(value.type, ir.Undefined),
                    ir.Constant(ir.VectorType(_int32, width), list(range(low, low + width))),
                )
                for low in (0, width)
            )
            value = builder.fadd(*halves)
        return builder.extract_element(value, ir.Constant(_int32, 0))

    return lanes.dtype(lanes), emit


@intrinsic
def totals(context, several):  # type: ignore[no-untyped-def]
    """Sums of up to LANES lanes, given as a tuple, one in each lane of the result; 0 in those left over.

    Two at a time are folded in half and laid side by side, which takes a third of the steps of folding each.
    """

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kind = ir.VectorType(_real(sig.args[0].dtype.dtype), LANES)
        values = list(cgutils.unpack_tuple(builder, args[0]))
        values += [ir.Constant(kind, [0.0] * LANES)] * (LANES - len(values))
        width = LANES  # of the part of a vector that is to become one sum
        while width > 1:
            width //= 2
            # Sum k of the result so far stands at place k of this order, from the first vector and the second in turn.
            first_half = [
                (part % 2) * LANES + (part // 2) * 2 * width + lane
                for part in range(LANES // width)
                for lane in range(width)
            ]
            low = ir.Constant(ir.VectorType(_int32, LANES), first_half)
            high = ir.Constant(ir.VectorType(_int32, LANES), [lane + width for lane in first_half])
            middle = len(values) // 2
            values = [
                builder.fadd(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))
                for a, b in zip(values[:middle], values[middle:], strict=True)
            ]
        return values[0]

    good = isinstance(several, types.UniTuple) and isinstance(several.dtype, Lanes) and len(several) <= LANES
    return (several.dtype(several), emit) if good else None


@intrinsic
def some(context, flags):  # type: ignore[no-untyped-def]
    """Whether any lane is flagged."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(flags), emit


# 2^x on [-1/2, 1/2]: minimax polynomial of degree 5 for the relative error, which is 2e-7 in float32
_EXP2 = (1.0000001, 0.69314694, 0.2402212, 0.055507135, 0.009675542, 0.001327644)


@intrinsic
def exp2(context, x):  # type: ignore[no-untyped-def]
    """2^x; in float32 by a polynomial, for -126 <= x <= 127 (elsewhere the result means nothing, but is no trap)."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        (value,) = args
        if sig.args[0].dtype.bitwidth == 64:
            return _call(builder, f"llvm.exp2.{_suffix(sig.args[0])}", value)
        reals, integers = value.type, ir.VectorType(_int32, LANES)
        # Added to this, a number is rounded to a whole one, which then stands in the lowest bits.
        shifter = _constant(reals, 1.5 * 2**23)
        shifted = builder.fadd(value, shifter)
        part = builder.fsub(value, builder.fsub(shifted, shifter))
        power = _constant(reals, _EXP2[-1])
        for coefficient in reversed(_EXP2[:-1]):
            power = builder.fadd(builder.fmul(power, part, flags=_FLAGS), _constant(reals, coefficient), flags=_FLAGS)
        exponent = builder.shl(builder.bitcast(shifted, integers), _constant(integers, 23))
        return builder.bitcast(builder.add(builder.bitcast(power, integers), exponent), reals)

    return x(x), emit


@intrinsic
def log2(context, x):  # type: ignore[no-untyped-def]
    """log2 of normal positive numbers in double precision (elsewhere the result means nothing), to 1e-15."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        (value,) = args
        integers = ir.VectorType(ir.IntType(64), LANES)
        bits = builder.bitcast(value, integers)
        # x = m 2^e with m in [sqrt(1/2), sqrt(2)): the exponent counts from there.
        root_half = 0x3FE6A09E667F3BCD
        shifted = builder.sub(bits, _constant(integers, root_half))
        exponent = builder.ashr(shifted, _constant(integers, 52))
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, _constant(integers, 52))), value.type)
        # log m = 2 artanh((m - 1) / (m + 1)), whose argument is below 0.172
        one = _constant(value.type, 1.0)
        part = builder.fdiv(builder.fsub(mantissa, one), builder.fadd(mantissa, one))
        square = builder.fmul(part, part)
        series = _constant(value.type, 1.0 / _LOG2_TERMS[-1])
        for odd in reversed(_LOG2_TERMS[:-1]):
            series = builder.fadd(
                builder.fmul(series, square, flags=_FLAGS), _constant(value.type, 1.0 / odd), flags=_FLAGS
            )
        logarithm = builder.fmul(builder.fmul(series, part), _constant(value.type, 2.0 / math.log(2.0)))
        return builder.fadd(builder.sitofp(exponent, value.type), logarithm)

    return (x(x), emit) if isinstance(x, Lanes) and x.dtype.bitwidth == 64 else None


_LOG2_TERMS = tuple(range(1, 20, 2))
"""Odd numbers whose reciprocals are the series' coefficients; the first left out is below 1e-17."""


@intrinsic
def row_bits(context, edges):  # type: ignore[no-untyped-def]
    """Eight bytes as one uint64: byte k has the bits -edges[k] to edges[8 + k] set, none if the former is the greater.

    The edges must be whole numbers from -8 to 7, those of the first eight lanes from -8 to 0.
    """

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        whole = builder.fptosi(args[0], ir.VectorType(_int32, LANES))
        integers = ir.VectorType(_int32, 8)
        first, last = (
            builder.shuffle_vector(
                whole, ir.Constant(whole.type, ir.Undefined), ir.Constant(integers, list(range(low, low + 8)))
            )
            for low in (0, 8)
        )
        one, two = ir.Constant(integers, [1] * 8), ir.Constant(integers, [2] * 8)
        nothing = ir.Constant(integers, [0] * 8)
        first = builder.sub(nothing, first)
        good = builder.icmp_signed("<=", first, last)
        # lanes without a bit are shifted by 0, lest the shift is out of range
        first, last = builder.select(good, first, nothing), builder.select(good, last, nothing)
        bits = builder.sub(builder.shl(two, last), builder.shl(one, first))
        bits = builder.select(good, bits, nothing)
        return builder.bitcast(builder.trunc(bits, ir.VectorType(ir.IntType(8), 8)), ir.IntType(64))

    return types.uint64(edges), emit


@intrinsic
def lowest_bit(context, bits):  # type: ignore[no-untyped-def]
    """Place of the lowest set bit of a uint64 that is not 0."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64), ir.IntType(1)])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.cttz.i64")
        return builder.call(function, [args[0], ir.Constant(ir.IntType(1), 1)])

    return types.int64(bits), emit


@intrinsic
def prefetch(context, array, row):  # type: ignore[no-untyped-def]
    """Have the first 128 bytes from array[row, 0] brought into the cache; `row` need not exist."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        struct = context.make_array(sig.args[0])(context, builder, args[0])
        stride = cgutils.unpack_tuple(builder, struct.strides)[0]
        bytes_in = builder.mul(context.cast(builder, args[1], sig.args[1], types.intp), stride)
        pointer = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer, _int32, _int32, _int32]), "llvm.prefetch.p0"
        )
        start = builder.bitcast(struct.data, pointer)
        read, keep, data = ir.Constant(_int32, 0), ir.Constant(_int32, 3), ir.Constant(_int32, 1)
        for line in (0, 64):
            address = builder.gep(start, [builder.add(bytes_in, ir.Constant(bytes_in.type, line))])
            builder.call(function, [address, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, row), emit
