#!/usr/bin/env python3
"""Reads what tools/coreml_palette.py wrote with coremltools, and compares.

    python coreml_palette.py COMPRESSED MODEL.mlpackage NAME...

The weights that coremltools' own reader makes of tables and 2-bit codes are the compressed folder's,
rounded to fp16. Running the model needs a Mac; this does not. Prints one JSON object; exit code 1 says
that something differs.
"""

import json
import sys
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))

import compress_model  # noqa: E402


def main():
    compressed, package, *names = sys.argv[1:]
    spec = ct.utils.load_spec(package)
    weights = Path(package) / "Data" / "com.apple.CoreML" / "weights"
    program = load(spec, spec.specificationVersion, str(weights))
    palettes = program.functions["main"].find_ops(op_type="constexpr_lut_to_dense")
    differ = []
    with compress_model.open(compressed) as folder:
        for name, op in zip(names, palettes, strict=True):
            want = folder.weight(name).astype(np.float16)
            if not np.array_equal(op.materialized_val_inference(), want):
                differ.append(name)
    size = (weights / "weight.bin").stat().st_size
    result = {"client": f"coremltools {ct.__version__}", "layers": len(names), "weight_bytes": size}
    print(json.dumps(result | {"differ": differ, "ok": not differ}, indent=2))
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
