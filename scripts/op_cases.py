"""The table of operations that fixtures/ops and fixtures/packages are made from, and what torch computes.

A case is one call of one operation: `In(...)` is an input of the program, everything else a constant.
Numbers are drawn from the case's name and are multiples of 1/64 below 4, which fp16 holds exactly, so
one table serves programs of both precisions.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

SEED = 40
STEP, LIMIT = 64, 255
ORDER = ("ios16", "ios17", "ios18")


@dataclass(frozen=True)
class Tensor:
    """Random numbers of a shape, or given ones. `of` is float, positive, bool or half: floats that are fp16 in
    every program."""

    shape: tuple = ()
    of: str = "float"
    values: object = None
    dtype: str = None

    def array(self, key):
        """The numbers; floats as float64, or float16 where they are that in every program."""
        if self.values is not None:
            array = np.array(self.values)
            if array.dtype.kind == "i":
                return array.astype(self.dtype or np.int32)
            return array
        rng = np.random.default_rng([SEED, zlib.crc32(key.encode())])
        if self.of == "bool":
            return rng.integers(0, 2, self.shape).astype(bool)
        steps = np.clip(np.round(rng.standard_normal(self.shape) * STEP), -LIMIT, LIMIT)
        if self.of == "positive":
            steps = np.abs(steps) + 1
        return np.asarray(steps / STEP).astype(np.float16 if self.of == "half" else np.float64)


class In(Tensor):
    """An input of the program."""


class W(Tensor):
    """A constant."""


def given(values, kind=W, dtype=None):
    return kind(values=values, dtype=dtype)


def boxed(value):
    """A parameter as tensors: plain values are constants."""
    if isinstance(value, (Tensor, str)):
        return value
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        return value
    return W(values=value)


@dataclass(frozen=True)
class Case:
    name: str
    op: str
    since: str
    until: str
    params: dict

    def arrays(self):
        """Parameter -> array, text, or a list of arrays."""
        found = {}
        for key, value in self.params.items():
            if isinstance(value, list):
                found[key] = [v.array(f"{self.name}.{key}.{i}") for i, v in enumerate(value)]
            else:
                found[key] = value if isinstance(value, str) else value.array(f"{self.name}.{key}")
        return found

    def inputs(self):
        """Name -> array, of what is an input of the program."""
        arrays, found = self.arrays(), {}
        for key, value in self.params.items():
            if isinstance(value, In):
                found[key] = arrays[key]
            for i, part in enumerate(value if isinstance(value, list) else []):
                if isinstance(part, In):
                    found[f"{key}_{i}"] = arrays[key][i]
        return found

    def expected(self, rounded=np.float32):
        """The outputs, floats in double precision. Constants that the program types as `rounded` are
        rounded to it first: an epsilon of 1e-5 is another number in fp16."""
        arguments = {}
        for key, value in self.arrays().items():
            if isinstance(value, list):
                arguments[key] = [torch.from_numpy(v) for v in value]
            elif isinstance(value, str):
                arguments[key] = value
            elif value.dtype.kind == "f":
                arguments[key] = torch.from_numpy(np.asarray(value.astype(rounded).astype(np.float64)))
            else:
                arguments[key] = torch.from_numpy(np.asarray(value))
        outputs = REFERENCE[self.op](**arguments)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return [np.ascontiguousarray(o.numpy()) if o.dim() else o.numpy() for o in outputs]


FAMILIES = {}


def case(name, op, since="ios16", until="ios18", **params):
    cases = FAMILIES[next(reversed(FAMILIES))]
    if any(c.name == name for c in cases):
        raise ValueError(f"two cases `{name}`")
    cases.append(Case(name, op, since, until, {key: boxed(value) for key, value in params.items()}))


def family(name):
    FAMILIES[name] = []


# References: torch, in double precision, with Core ML's parameter names and defaults


def ints(tensor):
    return [int(n) for n in tensor.reshape(-1)]


def reference_conv(x, weight, bias=None, strides=None, pad_type="valid", pad=None, dilations=None, groups=1):
    rank = x.dim() - 2
    strides = ints(strides) if strides is not None else [1] * rank
    dilations = ints(dilations) if dilations is not None else [1] * rank
    pads = ints(pad) if pad_type == "custom" else [0] * 2 * rank
    if pad_type.startswith("same"):
        pads = []
        for i in range(rank):
            reach = (weight.shape[2 + i] - 1) * dilations[i] + 1
            out = -(-x.shape[2 + i] // strides[i])
            total = max((out - 1) * strides[i] + reach - x.shape[2 + i], 0)
            less, more = total // 2, total - total // 2
            pads += [less, more] if pad_type == "same" else [more, less]
    x = F.pad(x, torch_pads(pads))
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    return convolve(x, weight, bias, strides, 0, dilations, int(groups))


def torch_pads(pads):
    """torch lists (before, after) from the last axis on."""
    pairs = [pads[i : i + 2] for i in range(0, len(pads), 2)]
    return [n for pair in reversed(pairs) for n in pair]


def reference_matmul(x, y, transpose_x=False, transpose_y=False):
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def normalised(x, axes, epsilon):
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(axes, keepdim=True) + epsilon)


def affine(x, gamma, beta, shape):
    x = x if gamma is None else x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


def reference_layer_norm(x, axes=None, gamma=None, beta=None, epsilon=1e-5):
    axes = [a % x.dim() for a in ints(axes)] if axes is not None else list(range(x.dim()))
    shape = [n if axis in axes else 1 for axis, n in enumerate(x.shape)]
    return affine(normalised(x, axes, epsilon), gamma, beta, shape)


def channels(x):
    return [1, -1] + [1] * (x.dim() - 2)


def reference_instance_norm(x, gamma=None, beta=None, epsilon=1e-5):
    return affine(normalised(x, list(range(2, x.dim())), epsilon), gamma, beta, channels(x))


def reference_batch_norm(x, mean, variance, gamma=None, beta=None, epsilon=1e-5):
    y = (x - mean.reshape(channels(x))) / torch.sqrt(variance.reshape(channels(x)) + epsilon)
    return affine(y, gamma, beta, channels(x))


def reference_gelu(x, mode="EXACT"):
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def reference_attention(query, key, value, attn_mask=None):
    return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)


def reference_reshape(x, shape):
    sizes = ints(shape)
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(sizes)])


def reference_expand_dims(x, axes):
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in ints(axes)):
        x = x.unsqueeze(axis)
    return x


def reference_squeeze(x, axes=None):
    return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes)))


def reference_slice(x, begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None):
    index = []
    for axis in range(x.dim()):
        if squeeze_mask is not None and squeeze_mask[axis]:
            index.append(int(begin[axis]))
            continue
        first = None if begin_mask is not None and begin_mask[axis] else int(begin[axis])
        last = None if end_mask is not None and end_mask[axis] else int(end[axis])
        index.append(slice(first, last, int(stride[axis]) if stride is not None else 1))
    # torch takes no negative steps.
    return torch.from_numpy(np.ascontiguousarray(x.numpy()[tuple(index)]))


def reference_slice_by_size(x, begin, size):
    bounds = zip(ints(begin), ints(size))
    return x[tuple(slice(b, None if n == -1 else b + n) for b, n in bounds)]


def reference_concat(values, axis, interleave=False):
    if interleave:
        stacked = torch.stack(values, int(axis) % values[0].dim() + 1)
        shape = list(values[0].shape)
        shape[int(axis)] *= len(values)
        return stacked.reshape(shape)
    return torch.cat(values, int(axis))


def reference_split(x, axis, num_splits=None, split_sizes=None):
    sizes = ints(split_sizes) if split_sizes is not None else x.shape[int(axis)] // int(num_splits)
    return [part.contiguous() for part in torch.split(x, sizes, int(axis))]


def reference_pad(x, pad, mode="constant", constant_val=0.0):
    pads = ints(pad)
    pairs = [(0, 0)] * (x.dim() - len(pads) // 2) + [tuple(pads[i : i + 2]) for i in range(0, len(pads), 2)]
    if mode == "constant":
        return F.pad(x, torch_pads(pads), value=float(constant_val))
    return torch.from_numpy(np.pad(x.numpy(), pairs, {"reflect": "reflect", "replicate": "edge"}[mode]))


def reference_gather(x, indices, axis=0, batch_dims=0, validate_indices=False):
    axis, batch = int(axis) % x.dim(), int(batch_dims)
    if batch:
        parts = [reference_gather(p, i, axis - 1, batch - 1) for p, i in zip(x, indices)]
        return torch.stack(parts)
    chosen = torch.index_select(x, axis, indices.reshape(-1).long() % x.shape[axis])
    return chosen.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def reference_gather_nd(x, indices, batch_dims=0, validate_indices=False):
    if int(batch_dims):
        return torch.stack([reference_gather_nd(p, i, int(batch_dims) - 1) for p, i in zip(x, indices)])
    return x[tuple(indices[..., k].long() for k in range(indices.shape[-1]))]


def reference_gather_along_axis(x, indices, axis=0, validate_indices=False):
    return torch.gather(x, int(axis), indices.long() % x.shape[int(axis)])


def grid(size_in, size_out, mode):
    """Where Core ML's sampling modes look, by coremltools' definition of `resize_bilinear`."""
    i = np.arange(size_out, dtype=np.float64)
    last = size_in - 1
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = i * (last / (size_out - 1))
    elif mode == "DEFAULT":
        points = i * (size_in / size_out)
    elif mode == "OFFSET_CORNERS":
        delta = max(1, last) / size_out
        points = 0.5 * delta + i * delta
    else:
        points = (i + 0.5) * (size_in / size_out) - 0.5
    return np.clip(points, 0, last)


def bilinear(x, height, width, mode):
    """Linear along each of the last two axes."""
    for axis, size in ((-2, height), (-1, width)):
        points = grid(x.shape[axis], size, mode)
        low = torch.from_numpy(np.floor(points).astype(np.int64))
        high = torch.clamp(low + 1, max=x.shape[axis] - 1)
        share = torch.from_numpy(points) - low
        if axis == -2:
            share = share[:, None]
        x = x.index_select(x.dim() + axis, low) * (1 - share) + x.index_select(x.dim() + axis, high) * share
    return x


def reference_upsample_bilinear(
    x, scale_factor_height=1, scale_factor_width=1, align_corners=True, half_pixel_centers=None
):
    size = [int(x.shape[-2] * float(scale_factor_height)), int(x.shape[-1] * float(scale_factor_width))]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=bool(align_corners))


def reference_upsample_nearest(x, scale_factor_height=1, scale_factor_width=1):
    x = x.repeat_interleave(int(scale_factor_height), -2)
    return x.repeat_interleave(int(scale_factor_width), -1)


def nearest(x, height, width):
    shaped = x.reshape(1, -1, *x.shape[-2:])
    return F.interpolate(shaped, size=(height, width), mode="nearest").reshape(*x.shape[:-2], height, width)


def reference_resize(x, shape, resized_dims, interpolation_mode="LINEAR", sampling_mode="DEFAULT"):
    wanted = list(x.shape)
    for i in range(1, int(resized_dims) + 1):
        wanted[-i] = int(shape[-i]) or wanted[-i]
    if interpolation_mode == "NEAREST_NEIGHBOR":
        return nearest(x, *wanted[-2:])
    return bilinear(x, *wanted[-2:], sampling_mode)


def reference_resize_bilinear(x, target_size_height, target_size_width, sampling_mode="DEFAULT"):
    return bilinear(x, int(target_size_height), int(target_size_width), sampling_mode)


def reference_resize_nearest(x, target_size_height, target_size_width):
    return nearest(x, int(target_size_height), int(target_size_width))


def reference_cast(x, dtype):
    if dtype in ("fp16", "fp32"):
        return x.double()
    wanted = {"bool": torch.bool, "int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16}
    return x.to(wanted.get(dtype, torch.int32))


def reduction(function):
    def reduce(x, axes=None, keep_dims=False):
        return function(x, ints(axes) if axes is not None else list(range(x.dim())), bool(keep_dims))

    return reduce


def product(x, axes, keep):
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def extreme(function):
    def find(x, axis=-1, keep_dims=False, output_dtype="int32"):
        # numpy's choice among equals is the first; torch's is any.
        found = function(x.numpy(), int(axis), keepdims=bool(keep_dims))
        return torch.from_numpy(np.asarray(found)).to({"int32": torch.int32, "uint16": torch.uint16}[output_dtype])

    return find


def reference_band_part(x, lower=-1, upper=-1):
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])[None]
    keep = ((int(lower) < 0) | (rows - columns <= int(lower))) & ((int(upper) < 0) | (columns - rows <= int(upper)))
    return x * keep


REFERENCE = {
    "sigmoid": lambda x: torch.sigmoid(x),
    "tanh": lambda x: torch.tanh(x),
    "relu": lambda x: torch.relu(x),
    "erf": lambda x: torch.erf(x),
    "exp": lambda x: torch.exp(x),
    "exp2": lambda x: torch.exp2(x),
    "sqrt": lambda x: torch.sqrt(x),
    "sin": lambda x: torch.sin(x),
    "cos": lambda x: torch.cos(x),
    "silu": lambda x: F.silu(x),
    "square": lambda x: x * x,
    "abs": lambda x: torch.abs(x),
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + epsilon),
    "inverse": lambda x, epsilon=1e-4: 1 / (x + epsilon),
    "log": lambda x, epsilon=1e-45: torch.log(x + epsilon),
    "clip": lambda x, alpha, beta: torch.clamp(x, alpha, beta),
    "gelu": reference_gelu,
    "softmax": lambda x, axis=-1: torch.softmax(x, int(axis)),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "floor_div": lambda x, y: torch.floor_divide(x, y),
    "maximum": lambda x, y: torch.maximum(x, y),
    "minimum": lambda x, y: torch.minimum(x, y),
    "pow": lambda x, y: torch.pow(x, y),
    "mod": lambda x, y: torch.remainder(x, y),
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "logical_and": lambda x, y: x & y,
    "logical_or": lambda x, y: x | y,
    "logical_xor": lambda x, y: x ^ y,
    "logical_not": lambda x: torch.logical_not(x),
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "conv": reference_conv,
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "matmul": reference_matmul,
    "einsum": lambda values, equation: torch.einsum(equation, *values),
    "scaled_dot_product_attention": reference_attention,
    "layer_norm": reference_layer_norm,
    "instance_norm": reference_instance_norm,
    "batch_norm": reference_batch_norm,
    "l2_norm": lambda x, epsilon=1e-6: x / torch.sqrt((x * x).sum((-3, -2, -1), keepdim=True) + epsilon),
    "identity": lambda x: x,
    "reshape": reference_reshape,
    "transpose": lambda x, perm: x.permute(ints(perm)),
    "expand_dims": reference_expand_dims,
    "squeeze": reference_squeeze,
    "concat": reference_concat,
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "split": reference_split,
    "slice_by_index": reference_slice,
    "slice_by_size": reference_slice_by_size,
    "pad": reference_pad,
    "tile": lambda x, reps: x.repeat(ints(reps)),
    "fill": lambda shape, value=0.0: torch.full(ints(shape), float(value), dtype=torch.float64),
    "band_part": reference_band_part,
    "gather": reference_gather,
    "gather_nd": reference_gather_nd,
    "gather_along_axis": reference_gather_along_axis,
    "upsample_nearest_neighbor": reference_upsample_nearest,
    "upsample_bilinear": reference_upsample_bilinear,
    "resize_nearest_neighbor": reference_resize_nearest,
    "resize_bilinear": reference_resize_bilinear,
    "resize": reference_resize,
    "cast": reference_cast,
    "reduce_mean": reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "reduce_sum": reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype)),
    "reduce_max": reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "reduce_min": reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "reduce_prod": reduction(product),
    "reduce_l1_norm": reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "reduce_l2_norm": reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt()),
    "reduce_log_sum": reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "reduce_log_sum_exp": reduction(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "reduce_sum_square": reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)),
    "reduce_argmax": extreme(np.argmax),
    "reduce_argmin": extreme(np.argmin),
}

# The table

INT = given([[-7, 3], [5, -2]], In)

family("activation")
for name in ("sigmoid", "tanh", "relu", "erf", "exp", "exp2", "sin", "cos", "silu", "square", "abs"):
    case(name, name, x=In((2, 3, 5)))
    case(f"{name}_rank1", name, x=In((7,)))
case("square_int", "square", x=INT)
case("abs_int", "abs", x=INT)
case("sqrt", "sqrt", x=In((2, 9), "positive"))
case("large_sigmoid", "sigmoid", x=given([-90.0, -20.0, 0.0, 20.0, 90.0], In))
case("large_tanh", "tanh", x=given([-90.0, -20.0, 0.0, 20.0, 90.0], In))
case("large_silu", "silu", x=given([-90.0, -20.0, 0.0, 20.0, 90.0], In))
case("large_sin", "sin", x=given([-981.0, -100.5, 700.25, 981.0], In))
case("large_cos", "cos", x=given([-981.0, -100.5, 700.25, 981.0], In))
case("rsqrt", "rsqrt", x=In((2, 9), "positive"))
case("rsqrt_epsilon", "rsqrt", x=In((2, 9), "positive"), epsilon=0.25)
case("inverse", "inverse", x=In((2, 9), "positive"))
case("inverse_epsilon", "inverse", x=In((2, 9), "positive"), epsilon=0.5)
case("log", "log", x=In((2, 9), "positive"))
case("log_epsilon", "log", x=In((2, 9), "positive"), epsilon=0.5)
case("clip", "clip", x=In((3, 7)), alpha=-0.5, beta=0.75)
case("gelu", "gelu", x=In((3, 11)))
for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"):
    case(f"gelu_{mode.lower()}", "gelu", x=In((3, 11)), mode=mode)
case("gelu_large", "gelu", x=given([-40.0, -6.0, -4.0, 4.0, 6.0, 40.0], In))
case("softmax", "softmax", x=In((2, 3, 4)))
case("softmax_axis0", "softmax", x=In((2, 3, 4)), axis=0)
case("softmax_axis1", "softmax", x=In((2, 9, 1, 5)), axis=1)
case("softmax_axis_minus2", "softmax", x=In((2, 3, 4)), axis=-2)
case("softmax_axis3", "softmax", x=In((1, 2, 3, 17)), axis=3)
case("softmax_rank1", "softmax", x=In((5,)))
case("softmax_large", "softmax", x=given([[10000.0, 9999.0, -10000.0], [-10000.0, -10000.0, -9999.0]], In))

family("binary")
BROADCASTS = {
    "same": ((2, 3, 4), (2, 3, 4)),
    "row": ((2, 3, 4), (4,)),
    "column": ((2, 3, 4), (3, 1)),
    "both": ((2, 1, 4), (1, 3, 1)),
    "leading": ((3, 4), (2, 3, 4)),
    "channel": ((2, 3, 4, 5), (1, 3, 1, 1)),
    "scalar": ((2, 3), ()),
    "rank5": ((1, 2, 1, 3, 2), (2, 1, 2, 1, 2)),
}
for tag, (left, right) in BROADCASTS.items():
    case(f"add_{tag}", "add", x=In(left), y=In(right) if right else W(right))
    case(f"sub_{tag}", "sub", x=In(left), y=W(right))
    case(f"mul_{tag}", "mul", x=W(left), y=In(right) if right else In((2, 3)))
    case(f"real_div_{tag}", "real_div", x=In(left), y=W(right, "positive"))
case("sub_from_constant", "sub", x=1.0, y=In((2, 3)))
case("real_div_of_constant", "real_div", x=1.0, y=In((2, 3), "positive"))
case("add_itself_shape", "add", x=In((1,)), y=In((5, 1)))
for name in ("maximum", "minimum"):
    case(f"{name}_same", name, x=In((2, 3)), y=In((2, 3)))
    case(f"{name}_scalar", name, x=In((2, 3)), y=0.25)
    case(f"{name}_row", name, x=In((2, 3)), y=W((3,)))
case("pow_square", "pow", x=In((2, 3)), y=2.0)
case("pow_row", "pow", x=In((2, 3), "positive"), y=W((3,)))
case("pow_of_constant", "pow", x=2.0, y=In((2, 3)))
for name in ("floor_div", "mod"):
    case(f"{name}_float", name, x=In((2, 5)), y=W((5,), "positive"))
    case(f"{name}_negative", name, x=In((2, 5)), y=-0.75)
    case(f"{name}_int", name, x=INT, y=3)
    case(f"{name}_negative_int", name, x=INT, y=given([[2, -2], [-3, 3]]))
for name in ("add", "sub", "mul", "maximum", "minimum"):
    case(f"{name}_int", name, x=INT, y=given([[2, -2], [-3, 3]], In))
case("pow_int", "pow", x=INT, y=2)
for name in ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"):
    case(f"{name}_float", name, x=given([[0.5, 1.0, -2.0], [3.0, 0.0, 1.0]], In), y=given([0.5, 2.0, -2.0]))
    case(f"{name}_int", name, x=INT, y=3)
for name in ("logical_and", "logical_or", "logical_xor"):
    case(name, name, x=given([[True, True], [False, False]], In), y=given([[True, False], [True, False]], In))
case("logical_not", "logical_not", x=given([True, False], In))
case("select", "select", cond=given([[True, False, True]], In), a=In((1, 3)), b=In((1, 3)))
case("select_int", "select", cond=given([[True, False], [False, True]], In), a=INT, b=given([[1, 2], [3, 4]]))
case("select_constants", "select", cond=In((3, 4), "bool"), a=W((3, 4)), b=In((3, 4)))

family("conv")
PLAIN = {"x": In((1, 3, 7, 8)), "weight": W((4, 3, 3, 3))}
case("conv_plain", "conv", **PLAIN)
case("conv_bias", "conv", **PLAIN, bias=W((4,)))
case("conv_batch", "conv", x=In((2, 3, 5, 4)), weight=W((4, 3, 3, 3)), bias=W((4,)))
case("conv_1x1", "conv", x=In((2, 5, 3, 4)), weight=W((6, 5, 1, 1)), bias=W((6,)))
case("conv_1x1_one_row", "conv", x=In((2, 16, 1, 9)), weight=W((8, 16, 1, 1)))
case("conv_1x1_stride", "conv", x=In((1, 5, 5, 4)), weight=W((3, 5, 1, 1)), strides=[2, 2])
case("conv_custom", "conv", **PLAIN, pad_type="custom", pad=[1, 1, 1, 1])
case("conv_custom_stride", "conv", **PLAIN, pad_type="custom", pad=[1, 1, 1, 1], strides=[2, 2])
case("conv_custom_asymmetric", "conv", **PLAIN, pad_type="custom", pad=[0, 1, 2, 0])
case("conv_custom_downsample", "conv", **PLAIN, pad_type="custom", pad=[0, 1, 0, 1], strides=[2, 2])
case("conv_pad_ignored", "conv", **PLAIN, pad_type="valid", pad=[1, 1, 1, 1])
case("conv_strides", "conv", **PLAIN, strides=[2, 3])
case("conv_dilations", "conv", **PLAIN, dilations=[2, 1])
case("conv_dilated_custom", "conv", **PLAIN, dilations=[2, 3], pad_type="custom", pad=[2, 2, 3, 3])
EVEN = {"x": In((1, 2, 7, 8)), "weight": W((3, 2, 2, 4))}
for pad_type in ("same", "same_lower"):
    case(f"conv_{pad_type}", "conv", **PLAIN, pad_type=pad_type)
    case(f"conv_{pad_type}_stride", "conv", **PLAIN, pad_type=pad_type, strides=[2, 2])
    case(f"conv_{pad_type}_even", "conv", **EVEN, pad_type=pad_type)
    case(f"conv_{pad_type}_even_stride", "conv", **EVEN, pad_type=pad_type, strides=[3, 2])
    case(f"conv_{pad_type}_dilated", "conv", **PLAIN, pad_type=pad_type, dilations=[2, 2])
case("conv_groups", "conv", x=In((1, 6, 5, 5)), weight=W((4, 3, 3, 3)), groups=2)
case("conv_depthwise", "conv", x=In((2, 4, 5, 6)), weight=W((4, 1, 3, 3)), groups=4, bias=W((4,)))
case("conv_depthwise_multiplier", "conv", x=In((1, 3, 5, 6)), weight=W((6, 1, 3, 3)), groups=3)
case("conv_groups_stride_custom", "conv", x=In((1, 4, 6, 5)), weight=W((6, 2, 3, 2)), groups=2, strides=[2, 1],
     pad_type="custom", pad=[1, 1, 0, 1])  # fmt: skip
case("conv_wide_kernel", "conv", x=In((1, 2, 9, 9)), weight=W((2, 2, 7, 5)), pad_type="custom", pad=[3, 3, 2, 2])
case("conv_tall_kernel", "conv", x=In((1, 2, 6, 3)), weight=W((2, 2, 5, 1)))
case("conv_many_channels", "conv", x=In((1, 20, 5, 3)), weight=W((18, 20, 1, 1)))
case("conv_one_position", "conv", x=In((1, 3, 3, 3)), weight=W((2, 3, 3, 3)))
case("conv_rank3", "conv", x=In((2, 3, 9)), weight=W((4, 3, 3)), bias=W((4,)))
case("conv_rank3_custom", "conv", x=In((1, 4, 9)), weight=W((4, 2, 3)), groups=2, strides=[2], dilations=[2],
     pad_type="custom", pad=[1, 2])  # fmt: skip
case("conv_rank5", "conv", x=In((1, 2, 4, 5, 3)), weight=W((3, 2, 2, 3, 1)))
case("conv_rank5_same", "conv", x=In((1, 2, 4, 5, 3)), weight=W((3, 2, 3, 3, 3)), pad_type="same", strides=[1, 2, 1])
case("conv_dynamic_weight", "conv", x=In((1, 3, 5, 4)), weight=In((2, 3, 3, 3)))
case("conv_ios17", "conv", since="ios17", **PLAIN, bias=W((4,)), strides=[1, 2])

case("conv_half_weight", "conv", since="ios17", x=In((1, 3, 5, 4)), weight=W((4, 3, 3, 3), "half"), bias=W((4,), "half"))

family("product")
case("linear", "linear", x=In((3, 5)), weight=W((4, 5)))
case("linear_bias", "linear", x=In((3, 5)), weight=W((4, 5)), bias=W((4,)))
case("linear_rank1", "linear", x=In((5,)), weight=W((4, 5)), bias=W((4,)))
case("linear_rank3", "linear", x=In((2, 3, 5)), weight=W((4, 5)), bias=W((4,)))
case("linear_rank4", "linear", x=In((2, 1, 3, 5)), weight=W((4, 5)), bias=W((4,)))
case("linear_wide", "linear", x=In((1, 20)), weight=W((17, 20)))
case("linear_half_weight", "linear", "ios17", x=In((3, 5)), weight=W((4, 5), "half"), bias=W((4,), "half"))
case("matmul_half", "matmul", "ios17", x=In((3, 5)), y=W((5, 4), "half"))
for tag, x, y, transposed in (
    ("rank2", (3, 5), (5, 4), ""),
    ("rank2_x", (5, 3), (5, 4), "x"),
    ("rank2_y", (3, 5), (4, 5), "y"),
    ("rank2_xy", (5, 3), (4, 5), "xy"),
    ("rank3", (2, 3, 5), (2, 5, 4), ""),
    ("rank4_x", (2, 3, 4, 6), (2, 3, 4, 5), "x"),
    ("rank4_y", (2, 3, 4, 6), (2, 3, 5, 6), "y"),
    ("rank4_xy", (1, 2, 6, 4), (1, 2, 5, 6), "xy"),
    ("batch_of_one", (1, 3, 4, 6), (2, 1, 6, 5), ""),
    ("broadcast_rank", (2, 3, 4, 6), (6, 5), ""),
    ("broadcast_left", (4, 6), (3, 6, 5), ""),
):
    flags = {f"transpose_{side}": True for side in transposed}
    case(f"matmul_{tag}", "matmul", x=In(x), y=In(y), **flags)
case("matmul_constant", "matmul", x=In((2, 3, 5)), y=W((5, 4)))
case("matmul_flags_false", "matmul", x=In((3, 5)), y=W((5, 4)), transpose_x=False, transpose_y=False)
case("einsum_rank4", "einsum", values=[In((2, 3, 4, 5)), In((2, 5, 4, 6))], equation="nchw,nwhu->nchu")
case("einsum_split_keys", "einsum", values=[In((2, 7, 1, 8)), In((2, 8, 1, 9))], equation="bkhc,bchq->bkhq")
case("einsum_split_values", "einsum", values=[In((2, 8, 1, 7)), In((2, 7, 1, 9))], equation="bchk,bkhq->bchq")
case("einsum_broadcast", "einsum", values=[In((1, 3, 4, 5)), In((2, 5, 1, 6))], equation="abcd,adce->abce")
case("einsum_rank3", "einsum", values=[In((3, 4, 5)), In((5, 4, 6))], equation="chw,whr->chr")
case("einsum_constant", "einsum", values=[In((3, 4, 5)), W((5, 4, 6))], equation="abc,cbd->abd")
Q, K, V = (1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 6, 3)
sdpa = "scaled_dot_product_attention"
case("attention", sdpa, "ios18", query=In(Q), key=In(K), value=In(V))
case("attention_rank3", sdpa, "ios18", query=In((2, 5, 4)), key=In((2, 6, 4)), value=In((2, 6, 4)))
case("attention_rank5", sdpa, "ios18", query=In((1, 2, 2, 3, 4)), key=In((1, 2, 2, 5, 4)), value=In((1, 2, 2, 5, 4)))
case("attention_float_mask", sdpa, "ios18", query=In(Q), key=In(K), value=In(V), attn_mask=In((1, 2, 5, 6)))
case("attention_broadcast_mask", sdpa, "ios18", query=In(Q), key=In(K), value=In(V), attn_mask=W((1, 1, 5, 6)))
case("attention_row_mask", sdpa, "ios18", query=In(Q), key=In(K), value=In(V), attn_mask=W((5, 6)))
case("attention_bool_mask", sdpa, "ios18", query=In(Q), key=In(K), value=In(V),
     attn_mask=given(np.tril(np.ones((1, 1, 5, 6), bool), 1).tolist()))  # fmt: skip
case("attention_dynamic_bool_mask", sdpa, "ios18", query=In(Q), key=In(K), value=In(V),
     attn_mask=given(np.tril(np.ones((1, 1, 5, 6), bool)).tolist(), In))  # fmt: skip
case("attention_wide", sdpa, "ios18", query=In((1, 1, 9, 40)), key=In((1, 1, 33, 40)), value=In((1, 1, 33, 40)))

family("norm")
case("layer_norm_last", "layer_norm", x=In((2, 3, 8)), axes=[-1], gamma=W((8,)), beta=W((8,)), epsilon=1e-5)
case("layer_norm_channels", "layer_norm", x=In((2, 8, 1, 5)), axes=[1], gamma=W((8,)), beta=W((8,)), epsilon=1e-5)
case("layer_norm_two_axes", "layer_norm", x=In((2, 3, 4)), axes=[1, 2], gamma=W((3, 4)), beta=W((3, 4)))
case("layer_norm_gap", "layer_norm", x=In((2, 3, 4)), axes=[0, 2], gamma=W((2, 4)), beta=W((2, 4)))
case("layer_norm_negative_axes", "layer_norm", x=In((2, 3, 4)), axes=[-2, -1])
case("layer_norm_plain", "layer_norm", x=In((2, 3, 8)), axes=[2])
case("layer_norm_gamma_only", "layer_norm", x=In((2, 8)), axes=[1], gamma=W((8,)), epsilon=0.125)
case("layer_norm_ios17", "layer_norm", "ios17", x=In((2, 3, 8)), axes=[-1], gamma=W((8,)), beta=W((8,)), epsilon=1e-6)
case("layer_norm_half", "layer_norm", "ios17", x=In((2, 8)), axes=[-1], gamma=W((8,), "half"), beta=W((8,), "half"),
     epsilon=given(np.float16(0.125)))  # fmt: skip
case("instance_norm", "instance_norm", x=In((2, 3, 4, 5)), gamma=W((3,)), beta=W((3,)), epsilon=1e-5)
case("instance_norm_plain", "instance_norm", x=In((2, 3, 4, 5)))
case("instance_norm_rank3", "instance_norm", x=In((2, 3, 9)), gamma=W((3,)), beta=W((3,)), epsilon=0.125)
STATISTICS = {"mean": W((3,)), "variance": W((3,), "positive")}
AFFINE = {"gamma": W((3,)), "beta": W((3,))}
case("batch_norm", "batch_norm", x=In((2, 3, 4, 5)), **STATISTICS, **AFFINE, epsilon=1e-5)
case("batch_norm_plain", "batch_norm", x=In((2, 3, 4, 5)), **STATISTICS)
case("batch_norm_rank3", "batch_norm", x=In((2, 3, 7)), **STATISTICS, **AFFINE, epsilon=0.125)
case("batch_norm_rank5", "batch_norm", x=In((1, 3, 2, 3, 2)), **STATISTICS, **AFFINE)
case("batch_norm_of_affine", "batch_norm", x=In((2, 3, 4, 5)), mean=[0.0] * 3, variance=[1.0] * 3, **AFFINE)
case("l2_norm", "l2_norm", x=In((2, 3, 4, 5)))
case("l2_norm_rank3", "l2_norm", x=In((3, 4, 5)), epsilon=0.25)

family("reduce")
for name in ("mean", "sum", "max", "min", "l1_norm", "l2_norm", "log_sum_exp", "sum_square", "prod"):
    op = f"reduce_{name}"
    case(f"{op}_last", op, x=In((2, 3, 4)), axes=[-1], keep_dims=True)
    case(f"{op}_middle", op, x=In((2, 3, 4)), axes=[1], keep_dims=False)
    case(f"{op}_two", op, x=In((2, 3, 4, 2)), axes=[1, -1], keep_dims=False)
    case(f"{op}_all", op, x=In((2, 3)), keep_dims=True)
    case(f"{op}_to_scalar", op, x=In((2, 3)))
case("reduce_log_sum", "reduce_log_sum", x=In((2, 3, 4), "positive"), axes=[2], keep_dims=True)
case("reduce_mean_groups", "reduce_mean", x=In((2, 4, 3, 5, 4)), axes=[2, 3, 4], keep_dims=True)
for name in ("max", "sum"):
    case(f"reduce_{name}_int", f"reduce_{name}", x=INT, axes=[1], keep_dims=True)
for name in ("reduce_argmax", "reduce_argmin"):
    case(name, name, x=In((3, 9)))
    case(f"{name}_axis0", name, x=In((3, 4, 2)), axis=0, keep_dims=True)
    case(f"{name}_middle", name, x=In((3, 4, 2)), axis=1, keep_dims=False)
    case(f"{name}_equal", name, x=given([[1, 7, 3, 7, 1], [4, 4, 4, 4, 4]], In), axis=-1, keep_dims=False)
    case(f"{name}_ios17", name, "ios17", x=In((3, 9)), axis=-1, keep_dims=False, output_dtype="int32")

family("shape")
case("identity", "identity", x=In((2, 3)))
case("reshape", "reshape", x=In((2, 3, 4)), shape=[4, 6])
case("reshape_rest", "reshape", x=In((2, 3, 4)), shape=[2, -1])
case("reshape_copied", "reshape", x=In((2, 3, 4)), shape=[0, 4, 3])
case("reshape_copied_and_rest", "reshape", x=In((2, 3, 4)), shape=[0, -1, 1])
case("reshape_groups", "reshape", x=In((2, 4, 3, 2)), shape=[2, 2, 2, 3, 2])
case("reshape_flat", "reshape", x=In((2, 3)), shape=[-1])
case("reshape_int", "reshape", x=INT, shape=[4])
case("reshape_int16", "reshape", "ios17", x=In((2, 3)), shape=given([3, 2], dtype=np.int16))
for perm in ([1, 0], [0, 2, 1], [2, 0, 1], [0, 2, 1, 3], [0, 3, 1, 2], [0, 3, 2, 1], [0, 2, 3, 1], [0, 1, 3, 2],
             [0, 2, 1, 4, 3], [-1, 0, -2]):  # fmt: skip
    tag = "_".join(str(p).replace("-", "m") for p in perm)
    case(f"transpose_{tag}", "transpose", x=In((2, 3, 4, 2, 3)[: len(perm)]), perm=perm)
case("expand_dims", "expand_dims", x=In((2, 3)), axes=[1])
case("expand_dims_last", "expand_dims", x=In((2, 3)), axes=[-1])
case("expand_dims_two", "expand_dims", x=In((2, 3)), axes=[2, 3])
case("expand_dims_mixed", "expand_dims", x=In((2, 3)), axes=[0, -2])
case("squeeze", "squeeze", x=In((1, 3, 1, 2)))
case("squeeze_axes", "squeeze", x=In((1, 3, 1, 2)), axes=[2])
case("squeeze_negative", "squeeze", x=In((1, 3, 1, 2)), axes=[-2, 0])
case("concat", "concat", values=[In((2, 3)), In((2, 1)), W((2, 2))], axis=1)
case("concat_first", "concat", values=[In((2, 3)), In((1, 3))], axis=0)
case("concat_negative", "concat", values=[In((2, 3, 2)), In((2, 4, 2))], axis=-2, interleave=False)
case("concat_channels", "concat", values=[In((2, 3, 2, 2)), In((2, 5, 2, 2))], axis=1)
case("concat_one", "concat", values=[In((2, 3))], axis=0)
case("concat_interleaved", "concat", values=[In((2, 3)), In((2, 3))], axis=1, interleave=True)
case("concat_interleaved_first", "concat", values=[In((2, 3)), In((2, 3)), In((2, 3))], axis=0, interleave=True)
case("concat_int", "concat", values=[INT, INT], axis=0)
case("stack", "stack", values=[In((2, 3)), In((2, 3))], axis=0)
case("stack_last", "stack", values=[In((2, 3)), In((2, 3)), W((2, 3))], axis=-1)
case("stack_middle", "stack", values=[In((2, 3)), In((2, 3))], axis=1)
case("split_even", "split", x=In((2, 6)), axis=1, num_splits=3)
case("split_sizes", "split", x=In((2, 6, 2)), axis=-2, split_sizes=[1, 3, 2])
case("split_first", "split", x=In((4, 3)), axis=0, num_splits=2)
case("split_both", "split", x=In((2, 6)), axis=1, num_splits=2, split_sizes=[2, 4])
case("tile", "tile", x=In((2, 3)), reps=[2, 3])
case("tile_ones", "tile", x=In((1, 3, 2)), reps=[4, 1, 1])
case("fill", "fill", shape=[2, 3], value=1.5)
case("band_part_lower", "band_part", x=In((2, 4, 5)), lower=-1, upper=0)
case("band_part_upper", "band_part", x=In((4, 5)), lower=1, upper=-1)

family("slice")
case("slice_plain", "slice_by_index", x=In((4, 5)), begin=[1, 0], end=[3, 4])
case("slice_negative", "slice_by_index", x=In((4, 5)), begin=[-3, -4], end=[-1, -1])
case("slice_stride", "slice_by_index", x=In((7, 8)), begin=[0, 1], end=[7, 8], stride=[2, 3])
case("slice_backwards", "slice_by_index", x=In((4, 5)), begin=[3, 4], end=[1, 0], stride=[-1, -2])
case("slice_reversed", "slice_by_index", x=In((4, 5)), begin=[0, 0], end=[0, 0], stride=[-1, -1],
     begin_mask=[True, True], end_mask=[True, True])  # fmt: skip
case("slice_masks", "slice_by_index", x=In((4, 5)), begin=[2, 3], end=[3, 4], begin_mask=[True, False],
     end_mask=[False, True])  # fmt: skip
case("slice_all", "slice_by_index", x=In((4, 5)), begin=[0, 0], end=[0, 0], begin_mask=[True, True],
     end_mask=[True, True])  # fmt: skip
case("slice_squeezed", "slice_by_index", x=In((4, 5, 3)), begin=[0, 2, 0], end=[4, 3, 3],
     squeeze_mask=[False, True, False])  # fmt: skip
case("slice_squeezed_negative", "slice_by_index", x=In((4, 5)), begin=[-1, 0], end=[0, 5], squeeze_mask=[True, False])
case("slice_squeezed_twice", "slice_by_index", x=In((4, 5, 3)), begin=[1, 2, 0], end=[2, 3, 3],
     squeeze_mask=[True, True, False])  # fmt: skip
case("slice_head", "slice_by_index", x=In((1, 8, 1, 5)), begin=[0, 4, 0, 0], end=[1, 8, 1, 5],
     begin_mask=[True, False, True, True], end_mask=[True, True, True, True])  # fmt: skip
case("slice_int", "slice_by_index", x=INT, begin=[0, 1], end=[2, 2])
case("slice_int16", "slice_by_index", "ios17", x=In((4, 5)), begin=given([1, 0], dtype=np.int16),
     end=given([3, 4], dtype=np.int16))  # fmt: skip
case("slice_by_size", "slice_by_size", x=In((4, 5)), begin=[1, 2], size=[2, 3])
case("slice_by_size_rest", "slice_by_size", x=In((4, 5)), begin=[1, 2], size=[-1, -1])
case("pad_last", "pad", x=In((2, 3, 4)), pad=[1, 2])
case("pad_value", "pad", x=In((2, 3)), pad=[1, 0, 2, 1], mode="constant", constant_val=0.5)
case("pad_downsample", "pad", x=In((1, 2, 3, 4)), pad=[0, 0, 0, 0, 0, 1, 0, 1], mode="constant", constant_val=0.0)
case("pad_leading", "pad", x=In((2, 3)), pad=[1, 1, 0, 0])
case("pad_reflect", "pad", x=In((1, 2, 4, 5)), pad=[0, 0, 0, 0, 1, 2, 3, 1], mode="reflect")
case("pad_reflect_last_two", "pad", x=In((2, 4, 5)), pad=[1, 2, 2, 1], mode="reflect")
case("pad_replicate", "pad", x=In((2, 4, 5)), pad=[1, 2, 2, 1], mode="replicate")

family("gather")
TABLE = In((6, 4))
case("gather_rows", "gather", x=TABLE, indices=given([0, 5, 2, 2]), axis=0)
case("gather_default_axis", "gather", x=TABLE, indices=given([3, 1], In))
case("gather_embedding", "gather", x=W((9, 4)), indices=given([[0, 8, 3], [7, 7, 1]], In), axis=0)
case("gather_columns", "gather", x=TABLE, indices=given([3, 0, 1], In), axis=1)
case("gather_negative_axis", "gather", x=TABLE, indices=given([3, 0, 1], In), axis=-1)
case("gather_middle", "gather", x=In((2, 5, 3)), indices=given([[4, 0], [1, 2]], In), axis=1)
case("gather_scalar", "gather", x=TABLE, indices=given(2), axis=0)
case("gather_negative_indices", "gather", until="ios16", x=TABLE, indices=given([-1, 0, -6], In), axis=0)
case("gather_batch", "gather", x=In((2, 5, 3)), indices=given([[4, 0], [1, 2]], In), axis=1, batch_dims=1)
case("gather_ios17", "gather", "ios17", x=TABLE, indices=given([5, 1], In), axis=0, batch_dims=0,
     validate_indices=False)  # fmt: skip
case("gather_uint16", "gather", "ios17", x=TABLE, indices=given([5, 1], dtype=np.uint16), axis=0)
case("gather_nd", "gather_nd", x=In((3, 4)), indices=given([[0, 1], [2, 3]], In))
case("gather_nd_rows", "gather_nd", x=In((3, 4, 2)), indices=given([[2], [0]], In))
case("gather_nd_pooled", "gather_nd", x=In((1, 7, 4)), indices=given([[0, 5]], In))
case("gather_nd_batch", "gather_nd", x=In((2, 5, 3)), indices=given([[[4], [0]], [[1], [2]]], In), batch_dims=1)
case("gather_nd_ios17", "gather_nd", "ios17", x=In((3, 4)), indices=given([[0, 1], [2, 3]], In), batch_dims=0,
     validate_indices=False)  # fmt: skip
case("gather_along_axis", "gather_along_axis", x=In((3, 4)), indices=given([[0, 2, 1, 0]], In), axis=0)
case("gather_along_last", "gather_along_axis", x=In((2, 4)), indices=given([[3, 0, 1], [2, 2, 0]], In), axis=-1)

family("resample")
case("upsample_nearest", "upsample_nearest_neighbor", x=In((1, 2, 3, 4)), scale_factor_height=2.0,
     scale_factor_width=2.0)  # fmt: skip
case("upsample_nearest_int", "upsample_nearest_neighbor", x=In((2, 2, 3)), scale_factor_height=3, scale_factor_width=2)
case("upsample_nearest_height", "upsample_nearest_neighbor", x=In((1, 2, 3, 4)), scale_factor_height=2)
case("upsample_bilinear", "upsample_bilinear", x=In((1, 2, 3, 4)), scale_factor_height=2.0, scale_factor_width=2.0)
case("upsample_bilinear_centres", "upsample_bilinear", x=In((1, 2, 3, 4)), scale_factor_height=2.0,
     scale_factor_width=3.0, align_corners=False)  # fmt: skip
case("upsample_bilinear_half_pixel", "upsample_bilinear", x=In((1, 2, 3, 4)), scale_factor_height=2,
     scale_factor_width=2, align_corners=False, half_pixel_centers=True)  # fmt: skip
case("resize_nearest", "resize_nearest_neighbor", x=In((1, 2, 3, 4)), target_size_height=6, target_size_width=8)
case("resize_nearest_odd", "resize_nearest_neighbor", x=In((1, 2, 4, 6)), target_size_height=7, target_size_width=4)
MODES = ("DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "OFFSET_CORNERS", "UNALIGN_CORNERS")
for mode in MODES:
    case(f"resize_bilinear_{mode.lower()}", "resize_bilinear", x=In((1, 2, 3, 4)), target_size_height=5,
         target_size_width=7, sampling_mode=mode)  # fmt: skip
    case(f"resize_linear_{mode.lower()}", "resize", "ios17", x=In((1, 2, 3, 4)), shape=[5, 7],
         resized_dims=given(2, dtype=np.uint32), interpolation_mode="LINEAR", sampling_mode=mode)  # fmt: skip
case("resize_linear_down", "resize_bilinear", x=In((1, 2, 6, 8)), target_size_height=3, target_size_width=5,
     sampling_mode="UNALIGN_CORNERS")  # fmt: skip
case("resize_nearest_ios17", "resize", "ios17", x=In((1, 2, 3, 4)), shape=[1, 2, 6, 8],
     resized_dims=given(2, dtype=np.uint32), interpolation_mode="NEAREST_NEIGHBOR", sampling_mode="DEFAULT")  # fmt: skip
case("resize_kept_size", "resize", "ios17", x=In((1, 2, 3, 4)), shape=[0, 8], resized_dims=given(2, dtype=np.uint32),
     interpolation_mode="NEAREST_NEIGHBOR")  # fmt: skip

family("cast")
MIXED = given([[-2.75, -0.5, 0.0], [0.5, 1.0, 3.96875]], In)
case("cast_float_to_int32", "cast", x=MIXED, dtype="int32")
case("cast_float_to_bool", "cast", x=MIXED, dtype="bool")
case("cast_float_to_fp32", "cast", x=MIXED, dtype="fp32")
case("cast_float_to_fp16", "cast", x=MIXED, dtype="fp16")
case("cast_int_to_float", "cast", x=INT, dtype="fp32")
case("cast_int_to_bool", "cast", x=given([0, 1, -3], In), dtype="bool")
case("cast_bool_to_float", "cast", x=given([True, False], In), dtype="fp32")
case("cast_bool_to_int", "cast", x=given([True, False], In), dtype="int32")
case("cast_int_to_int8", "cast", "ios17", x=INT, dtype="int8")
case("cast_int_to_int16", "cast", "ios17", x=INT, dtype="int16")
case("cast_int_to_uint8", "cast", "ios17", x=given([0, 7, 255], In), dtype="uint8")
