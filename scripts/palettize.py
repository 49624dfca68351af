#!/usr/bin/env python3
"""Puts palettes of 64 values in the place of a package's large fp16 weights, in place: to time what is done with such packages.

    palettize.py PACKAGE

The form is that of coremltools for iOS 16: `constexpr_lut_to_dense` with indices of 6 bits, packed, and the palette as
blobs. The numbers are random, from a fixed seed: the model computes something else afterwards.
"""

import math
import struct
import sys
from pathlib import Path

import numpy as np
from coremltools.proto import MIL_pb2, Model_pb2

BITS = 6
# Smaller weights stay, as coremltools leaves them.
LEAST_ELEMENTS = 2048
REFERENCE = "@model_path/weights/weight.bin"
FP16, UINT8 = 1, 3
CHUNK = 1 << 24


class Blobs:
    """A weight file under way (MILBlob's StorageFormat.hpp)."""

    def __init__(self, file):
        self.file, self.count, self.end = file, 0, 64
        self.random = np.random.default_rng(0)

    def add(self, code, length, write):
        offset = -(-self.end // 64) * 64
        self.file.seek(offset)
        self.file.write(struct.pack("<IIQQQ", 0xDEADBEEF, code, length, offset + 64, 0).ljust(64, b"\0"))
        write()
        self.count, self.end = self.count + 1, offset + 64 + length
        return offset

    def noise(self, length):
        for start in range(0, length, CHUNK):
            self.file.write(self.random.bytes(min(CHUNK, length - start)))

    def close(self):
        self.file.truncate(self.end)
        self.file.seek(0)
        self.file.write(struct.pack("<II", self.count, 2).ljust(64, b"\0"))


def blob(value, dtype, shape, offset):
    value.type.tensorType.dataType = dtype
    value.type.tensorType.rank = len(shape)
    for size in shape:
        value.type.tensorType.dimensions.add().constant.size = size
    value.blobFileValue.fileName, value.blobFileValue.offset = REFERENCE, offset


def palettize(op, shape, blobs):
    name = op.attributes["name"].SerializeToString()
    del op.attributes["val"]
    op.type = "constexpr_lut_to_dense"
    length = -(-math.prod(shape) * BITS // 8)
    values = np.sort(blobs.random.standard_normal(1 << BITS)).astype("<f2").tobytes()
    offset = blobs.add(UINT8, length, lambda: blobs.noise(length))
    blob(op.attributes["indices"], MIL_pb2.UINT8, [length], offset)
    offset = blobs.add(FP16, len(values), lambda: blobs.file.write(values))
    blob(op.attributes["lut"], MIL_pb2.FLOAT16, [1 << BITS], offset)
    dense = op.attributes["shape"]
    dense.type.tensorType.dataType, dense.type.tensorType.rank = MIL_pb2.UINT32, 1
    dense.type.tensorType.dimensions.add().constant.size = len(shape)
    dense.immediateValue.tensor.bytes.values = struct.pack(f"<{len(shape)}I", *shape)
    op.attributes["name"].ParseFromString(name)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    data = Path(sys.argv[1]) / "Data/com.apple.CoreML"
    spec = Model_pb2.Model()
    spec.ParseFromString((data / "model.mlmodel").read_bytes())
    function = spec.mlProgram.functions["main"]
    old, new = data / "weights/weight.bin", data / "weights/new.bin"
    with old.open("rb") as source, new.open("wb") as target:
        blobs = Blobs(target)
        for op in function.block_specializations[function.opset].operations:
            value = op.attributes["val"] if op.type == "const" else None
            if value is None or value.WhichOneof("value") != "blobFileValue":
                continue
            shape = [d.constant.size for d in value.type.tensorType.dimensions]
            if value.type.tensorType.dataType == MIL_pb2.FLOAT16 and math.prod(shape) >= LEAST_ELEMENTS:
                palettize(op, shape, blobs)
                continue
            source.seek(value.blobFileValue.offset)
            _, code, length, start, _ = struct.unpack("<IIQQQ", source.read(32))
            source.seek(start)
            bytes_ = source.read(length)
            value.blobFileValue.offset = blobs.add(code, length, lambda: target.write(bytes_))
        blobs.close()
    new.replace(old)
    (data / "model.mlmodel").write_bytes(spec.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
