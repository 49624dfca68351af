"""What `constexpr_*` operations stand for, computed by numpy from their parameters, and cases of each."""

from dataclasses import dataclass

import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types

SEED = 50

# Decoders: parameters by name to the dense weight, in double precision


def double(array):
    return np.asarray(array).astype(np.float64)


def blocks(array, shape):
    """A tensor of one entry a block, repeated to a shape."""
    array = double(array)
    for axis, size in enumerate(shape):
        array = np.repeat(array, size // array.shape[axis], axis)
    return array


def bits(packed, width, count):
    """Unpacks a stream of integers, lowest bit first."""
    stream = np.unpackbits(np.asarray(packed, np.uint8), bitorder="little")[: width * count]
    return (stream.reshape(count, width) * (1 << np.arange(width))).sum(1)


def affine(quantized_data, zero_point, scale, axis):
    shape = [-1 if i == int(axis) else 1 for i in range(quantized_data.ndim)]
    scale, zero = (double(v).reshape(shape if np.ndim(v) else []) for v in (scale, zero_point))
    return scale * (quantized_data - zero)


def packed_palette(indices, lut, shape):
    width = int(np.log2(len(lut)))
    return double(lut)[bits(indices, width, int(np.prod(shape)))].reshape(shape)


def packed_sparse(nonzero_data, mask, shape):
    return sparse(nonzero_data, bits(mask, 1, int(np.prod(shape))).reshape(shape))


def sparse(nonzero_data, mask):
    dense = np.zeros(mask.shape)
    dense[mask != 0] = nonzero_data
    return dense


def shift_scale(data, scale, offset=None):
    dense = double(data)
    if offset is not None:
        dense = dense - blocks(offset, dense.shape)
    return dense * blocks(scale, dense.shape)


def palette(indices, lut, vector_axis=None):
    grids = np.indices(indices.shape)
    groups = [g // (n // m) for g, n, m in zip(grids, indices.shape, lut.shape)]
    vectors = double(lut)[(*groups, indices.astype(int))]
    if lut.shape[-1] == 1:
        return vectors[..., 0]
    axis = int(vector_axis) % indices.ndim
    shape = list(indices.shape)
    shape[axis] *= lut.shape[-1]
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


def sparse_palette(indices_mask, indices_nonzero_data, lut, vector_axis=None):
    dense = palette(sparse(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask if lut.shape[-1] == 1 else np.repeat(indices_mask, lut.shape[-1], int(vector_axis))
    return mask, dense[mask != 0]


def sparse_shift_scale(data_mask, nonzero_data, scale, offset=None):
    dense = shift_scale(sparse(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


DECODERS = {
    "constexpr_affine_dequantize": affine,
    "constexpr_cast": lambda source_val, output_dtype: double(source_val),
    "constexpr_blockwise_shift_scale": shift_scale,
    "constexpr_lut_to_sparse": sparse_palette,
    "constexpr_sparse_blockwise_shift_scale": sparse_shift_scale,
}


def decoded(value):
    """The numbers of a constant value, whatever chain of operations it comes from."""
    op = value.op
    if op is None or not op.op_type.startswith("constexpr_"):
        return value.val
    found = {key: decoded(v) for key, v in op.inputs.items() if v is not None}
    packed = "shape" in found  # the form of iOS 16
    if op.op_type == "constexpr_lut_to_dense":
        dense = (packed_palette if packed else palette)(**found)
    elif op.op_type == "constexpr_sparse_to_dense":
        dense = (packed_sparse if packed else sparse)(**found)
    else:
        dense = DECODERS[op.op_type](**found)
    return dense[op.outputs.index(value)] if isinstance(dense, tuple) else dense


# Cases


@dataclass(frozen=True)
class Weight:
    """A compressed weight; `emit(rng, floats)` makes it in the function under construction. One with two axes is for
    `linear`, one with four for `conv`."""

    name: str
    emit: object


def scales(rng, floats, *shape):
    """Scales that leave every product with 8 bits exact in fp16."""
    return np.asarray(rng.integers(1, 8, shape) / 64).astype(floats)


def integers(rng, width, signed, *shape):
    low, high = (-(1 << width - 1), 1 << width - 1) if signed else (0, 1 << width)
    values = rng.integers(low, high, shape)
    if width == 8:
        return values.astype(np.int8 if signed else np.uint8)
    return values.astype(types.nptype_from_builtin(types.string_to_builtin(f"{'' if signed else 'u'}int{width}")))


def numbers(rng, floats, *shape):
    return (np.round(rng.standard_normal(shape) * 64) / 64).astype(floats)


def pack(values, width):
    """A stream of integers, lowest bit first."""
    stream = (np.asarray(values).reshape(-1, 1) >> np.arange(width)) & 1
    return np.packbits(stream.astype(np.uint8).reshape(-1), bitorder="little")


def weight_affine(shape, signed, axis=None):
    def emit(rng, floats):
        per = (shape[axis],) if axis is not None else ()
        return mb.constexpr_affine_dequantize(
            quantized_data=integers(rng, 8, signed, *shape),
            zero_point=np.asarray(integers(rng, 8, signed, *per))[()],
            scale=scales(rng, floats, *per)[()],
            axis=axis or 0,
        )

    return emit


def weight_packed_palette(shape, width):
    def emit(rng, floats):
        indices = rng.integers(0, 1 << width, shape)
        return mb.constexpr_lut_to_dense(
            indices=pack(indices, width), lut=numbers(rng, floats, 1 << width), shape=np.uint32(shape)
        )

    return emit


def weight_packed_sparse(shape):
    def emit(rng, floats):
        mask = rng.integers(0, 2, shape)
        return mb.constexpr_sparse_to_dense(
            nonzero_data=numbers(rng, floats, int(mask.sum())), mask=pack(mask, 1), shape=np.uint32(shape)
        )

    return emit


def weight_cast(shape):
    def emit(rng, floats):
        return mb.constexpr_cast(source_val=numbers(rng, np.float16, *shape), output_dtype="fp32")

    return emit


def weight_shift_scale(shape, per, width, signed, offset):
    """`per` is the shape of the scales; `offset` is None, `same` or `float`."""

    def emit(rng, floats):
        arguments = {"data": integers(rng, width, signed, *shape), "scale": scales(rng, floats, *per)}
        if offset == "same":
            arguments["offset"] = integers(rng, width, signed, *per)
        if offset == "float":
            arguments["offset"] = scales(rng, floats, *per)
        return mb.constexpr_blockwise_shift_scale(**arguments)

    return emit


def weight_palette(shape, groups, width, vector=1, axis=None, quantized=False):
    """`shape` is that of the indices; `quantized`: the table is int8 with scales."""

    def emit(rng, floats):
        table = (*groups, 1 << width, vector)
        lut = numbers(rng, floats, *table)
        if quantized:
            lut = mb.constexpr_blockwise_shift_scale(
                data=integers(rng, 8, True, *table), scale=scales(rng, floats, *groups, 1, 1)
            )
        arguments = {"indices": integers(rng, width, False, *shape), "lut": lut}
        if axis is not None:
            arguments["vector_axis"] = np.int32(axis)
        return mb.constexpr_lut_to_dense(**arguments)

    return emit


def weight_palette_of_integers(shape, width):
    """Indices into int8 values, which are then scaled by row."""

    def emit(rng, floats):
        lut = integers(rng, 8, True, *(1,) * len(shape), 1 << width, 1)
        data = mb.constexpr_lut_to_dense(indices=integers(rng, width, False, *shape), lut=lut)
        per = (shape[0], *(1,) * (len(shape) - 1))
        return mb.constexpr_blockwise_shift_scale(data=data, scale=scales(rng, floats, *per))

    return emit


def weight_sparse(shape):
    def emit(rng, floats):
        mask = integers(rng, 1, False, *shape)
        return mb.constexpr_sparse_to_dense(nonzero_data=numbers(rng, floats, int((mask != 0).sum())), mask=mask)

    return emit


def weight_sparse_palette(shape, groups, width, vector=1, axis=None):
    def emit(rng, floats):
        mask = integers(rng, 1, False, *shape)
        arguments = {"vector_axis": np.int32(axis)} if axis is not None else {}
        kept, values = mb.constexpr_lut_to_sparse(
            indices_mask=mask,
            indices_nonzero_data=integers(rng, width, False, int((mask != 0).sum())),
            lut=numbers(rng, floats, *groups, 1 << width, vector),
            **arguments,
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=kept)

    return emit


def weight_sparse_shift_scale(shape, per, width, signed, offset):
    def emit(rng, floats):
        mask = integers(rng, 1, False, *shape)
        arguments = {"offset": integers(rng, width, signed, *per)} if offset else {}
        kept, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=mask,
            nonzero_data=integers(rng, width, signed, int((mask != 0).sum())),
            scale=scales(rng, floats, *per),
            **arguments,
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=kept)

    return emit


LINEAR, CONV = (8, 12), (6, 5, 3, 3)
ODD = (7, 11)

IOS16 = [
    Weight("affine_uint8", weight_affine(LINEAR, False)),
    Weight("affine_int8", weight_affine(CONV, True)),
    Weight("affine_uint8_rows", weight_affine(CONV, False, 0)),
    Weight("affine_int8_columns", weight_affine(LINEAR, True, 1)),
    *(Weight(f"palette_{w}_bit", weight_packed_palette(CONV if w > 2 else ODD, w)) for w in (1, 2, 4, 6, 8)),
    *(Weight(f"palette_{w}_bit_odd", weight_packed_palette(ODD, w)) for w in (4, 6)),
    Weight("sparse", weight_packed_sparse(CONV)),
    Weight("sparse_odd", weight_packed_sparse(ODD)),
]
CAST = [Weight("cast", weight_cast(CONV))]
IOS18 = [
    *(
        Weight(f"{'' if signed else 'u'}int{width}_{tag}{'_' + offset if offset else ''}",
               weight_shift_scale(shape, per, width, signed, offset))
        for width, signed, shape, per, tag, offset in (
            (4, True, LINEAR, (1, 1), "tensor", None),
            (4, True, LINEAR, (8, 1), "rows", None),
            (4, True, LINEAR, (8, 3), "blocks", None),
            (4, True, ODD, (7, 1), "odd", None),
            (4, False, LINEAR, (8, 4), "blocks", "same"),
            (4, False, LINEAR, (4, 2), "tiles", "float"),
            (8, True, CONV, (6, 1, 1, 1), "rows", None),
            (8, True, CONV, (1, 5, 1, 1), "columns", "same"),
            (8, False, CONV, (6, 5, 1, 1), "kernels", "same"),
            (8, False, LINEAR, (1, 1), "tensor", "same"),
            (8, True, LINEAR, (2, 6), "tiles", "float"),
        )
    ),
    *(Weight(f"palette_{w}_bit", weight_palette(CONV, (1, 1, 1, 1), w)) for w in (1, 2, 3, 4, 6, 8)),
    *(Weight(f"palette_{w}_bit_odd", weight_palette(ODD, (1, 1), w)) for w in (1, 2, 3, 4, 6)),
    Weight("palette_row_groups", weight_palette(LINEAR, (4, 1), 4)),
    Weight("palette_column_groups", weight_palette(LINEAR, (1, 3), 3)),
    Weight("palette_both_groups", weight_palette(LINEAR, (2, 4), 2)),
    Weight("palette_conv_groups", weight_palette(CONV, (3, 1, 1, 1), 6)),
    Weight("palette_vector_rows", weight_palette((4, 12), (1, 1), 4, 2, 0)),
    Weight("palette_vector_columns", weight_palette((8, 4), (1, 1), 2, 3, 1)),
    Weight("palette_vector_last", weight_palette((8, 4), (1, 1), 2, 3, -1)),
    Weight("palette_vector_groups", weight_palette((4, 12), (2, 1), 3, 2, 0)),
    Weight("palette_vector_conv", weight_palette((3, 5, 3, 3), (1, 1, 1, 1), 4, 2, 0)),
    Weight("palette_quantized", weight_palette(LINEAR, (4, 1), 4, quantized=True)),
    Weight("palette_of_integers", weight_palette_of_integers(LINEAR, 4)),
    Weight("sparse", weight_sparse(CONV)),
    Weight("sparse_odd", weight_sparse(ODD)),
    Weight("sparse_palette", weight_sparse_palette(CONV, (1, 1, 1, 1), 4)),
    Weight("sparse_palette_groups", weight_sparse_palette(LINEAR, (4, 1), 3)),
    Weight("sparse_palette_vector", weight_sparse_palette((4, 12), (1, 1), 2, 2, 0)),
    Weight("sparse_int8", weight_sparse_shift_scale(CONV, (6, 1, 1, 1), 8, True, False)),
    Weight("sparse_uint8_offset", weight_sparse_shift_scale(LINEAR, (8, 1), 8, False, True)),
    Weight("sparse_int4_blocks", weight_sparse_shift_scale(LINEAR, (8, 3), 4, True, False)),
]  # fmt: skip
