"""Cases of op_cases as functions of coremltools' own program form."""

import logging

# coremltools warns about every newer torch on import.
logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types

from op_cases import In

TARGETS = {"ios16": ct.target.iOS16, "ios17": ct.target.iOS17, "ios18": ct.target.iOS18}
TYPES = {
    np.dtype(np.float16): types.fp16,
    np.dtype(np.float32): types.fp32,
    np.dtype(np.int32): types.int32,
    np.dtype(bool): types.bool,
}


# Defaults that coremltools writes as fp32 into programs of any type, and then refuses to read.
DEFAULTS = {
    "layer_norm": ("epsilon", 1e-5),
    "instance_norm": ("epsilon", 1e-5),
    "batch_norm": ("epsilon", 1e-5),
    "pad": ("constant_val", 0.0),
}


def typed(array, floats):
    """An array as the program types it."""
    return array.astype(floats) if array.dtype == np.float64 else array


def call(case, floats, given, name=None):
    """Emits the case into the function under construction; `given` maps its inputs to values. Returns its outputs."""
    arguments = {}
    for key, array in case.arrays().items():
        value = case.params[key]
        if isinstance(value, list):
            parts = zip(value, array)
            arguments[key] = [
                given[f"{key}_{i}"] if isinstance(part, In) else mb.const(val=typed(a, floats))
                for i, (part, a) in enumerate(parts)
            ]
        elif isinstance(value, In):
            arguments[key] = given[key]
        elif isinstance(value, str):
            arguments[key] = dtype_named(value, floats)
        else:
            # Factors of a size are fp32 in every program.
            array = typed(array, np.float32 if key.startswith("scale_factor") else floats)
            arguments[key] = array if array.ndim else array[()]
    if name:
        arguments["name"] = name
    if case.op in DEFAULTS and np.dtype(floats) == np.float16:
        key, value = DEFAULTS[case.op]
        arguments.setdefault(key, np.float16(value))
    outputs = getattr(mb, case.op)(**arguments)
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def dtype_named(text, floats):
    """In a fp16 program a cast to the other float type is one to fp32."""
    if np.dtype(floats) != np.float16 or text not in ("fp16", "fp32"):
        return text
    return {"fp16": "fp32", "fp32": "fp16"}[text]


def program(target, inputs, body):
    """The program of one function: `inputs` maps names to (shape, dtype), `body` maps variables to outputs."""
    made = Program()
    placeholders = {
        name: mb.placeholder(shape=shape, dtype=TYPES[np.dtype(dtype)]) for name, (shape, dtype) in inputs.items()
    }
    with Function(placeholders, opset_version=TARGETS[target]) as function:
        function.set_outputs(body(function.inputs))
    made.add_function("main", function)
    return made


def own_values(case, floats=np.float32):
    """What coremltools itself says of a case: (shape, value or None) of each output."""
    arrays = {name: np.asarray(typed(array, floats)) for name, array in case.inputs().items()}
    found = []

    def constant(_):
        outputs = call(case, floats, {name: mb.const(val=array) for name, array in arrays.items()})
        found.extend((tuple(o.shape), o.val) for o in outputs)
        return outputs

    def computed(inputs):
        outputs = call(case, floats, inputs)
        found.extend((tuple(o.shape), None) for o in outputs)
        return outputs

    try:
        program(case.since, {"unused": ((1,), np.float32)}, constant)
    except (TypeError, AttributeError, ValueError):
        # It fails to compute some operations that it accepts, with numpy 2 all reductions.
        program(case.since, {name: (array.shape, array.dtype) for name, array in arrays.items()}, computed)
    return found


def package(target, inputs, body):
    """The package of a program, with every operation kept as it is."""
    return ct.convert(
        program(target, inputs, body),
        source="milinternal",
        convert_to="mlprogram",
        minimum_deployment_target=TARGETS[target],
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
