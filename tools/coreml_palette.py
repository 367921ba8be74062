#!/usr/bin/env python3
"""Writes 2-bit layers of a compressed folder as Core ML palettes.

    python tools/coreml_palette.py FOLDER OUT.mlpackage NAME...

Each NAME is a weight coded with `grid2` and one scale a row. The program has one input and output a
layer, y = W x, with W as `constexpr_lut_to_dense`: the codes as they are, in 2 bits, and a table of
the four values of each row, fp16. Needs numpy, safetensors and coremltools (9.0 was tried, on Linux,
without torch); running the program needs a Mac with macOS 15, or iOS 18.
"""

import sys
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types
from coremltools.converters.mil.mil.types.type_mapping import nptype_from_builtin

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import compress_model  # noqa: E402
from compress_model.packed import unpack  # noqa: E402

TARGET = ct.target.iOS18


def palette(folder, name):
    """Codes uint8 [rows, cols] and the four fp16 values of each row."""
    entry = folder.entries[name]
    if entry.get("codec") != "grid2" or entry["params"].get("group") or len(entry["shape"]) != 2:
        sys.exit(f"error: {name}: is not coded with grid2 and one scale a row")
    parts = folder.stored(name)
    scales = parts["scales"].astype(np.float32)
    table = (scales * (np.arange(4, dtype=np.float32) - np.float32(1.5))).astype(np.float16)
    return unpack(parts["codes"], 2, entry["shape"][1]), table


def build(folder, names):
    inputs, layers = {}, []
    for i, name in enumerate(names):
        codes, table = palette(folder, name)
        inputs[f"x{i}"] = mb.placeholder(shape=(1, codes.shape[1]), dtype=types.fp16)
        layers.append((codes, table))
    with Function(inputs, opset_version=TARGET) as function:
        outputs = []
        for i, (codes, table) in enumerate(layers):
            indices = codes.astype(nptype_from_builtin(types.uint2))
            lut = table.reshape(len(table), 1, 4, 1)
            weight = mb.constexpr_lut_to_dense(indices=indices, lut=lut, name=f"w{i}")
            outputs.append(mb.linear(x=function.inputs[f"x{i}"], weight=weight, name=f"y{i}"))
        function.set_outputs(outputs)
    program = Program()
    program.add_function("main", function)
    return program


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    with compress_model.open(sys.argv[1]) as folder:
        program = build(folder, sys.argv[3:])
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=TARGET,
            compute_precision=ct.precision.FLOAT16,
            skip_model_load=True,
        )
    model.save(sys.argv[2])
    print(f"{sys.argv[2]}: {len(sys.argv) - 3} layers")


if __name__ == "__main__":
    main()
