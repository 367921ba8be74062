"""Codecs `grid2` and `int4`: codes packed in bytes, a scale (and minimum) for each group."""

import numpy as np


def unpack(codes, bits, cols):
    """Codes of `bits` bits, the first in the lowest bits of a byte; uint8 [rows, cols]."""
    per_byte = 8 // bits
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    spread = (codes[..., None] >> shifts) & ((1 << bits) - 1)
    return spread.reshape(codes.shape[0], -1)[:, :cols]


def per_column(groups, group, cols):
    """The group's number of every column: float32 [rows, cols] from fp16 [rows, groups]."""
    return np.repeat(groups.astype(np.float32), group, axis=1)[:, :cols]


def grid2(parts, params, rows, cols):
    """w = s (c - 1.5), in float32."""
    group = params.get("group") or cols
    codes = unpack(parts["codes"].reshape(rows, -1), 2, cols)
    scales = per_column(parts["scales"].reshape(rows, -1), group, cols)
    return scales * (codes.astype(np.float32) - np.float32(1.5))


def int4(parts, params, rows, cols):
    """w = scale c + min, each operation rounded to float32."""
    group = params.get("group", 64)
    codes = unpack(parts["codes"].reshape(rows, -1), 4, cols)
    scales = per_column(parts["scales"].reshape(rows, -1), group, cols)
    mins = per_column(parts["mins"].reshape(rows, -1), group, cols)
    return scales * codes.astype(np.float32) + mins
