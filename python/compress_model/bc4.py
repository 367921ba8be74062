"""Codec `bc4`: BC4 (RGTC1, unsigned) blocks, Khronos Data Format Specification 1.3, section 19.1."""

import numpy as np

from .blocks import scaled

SIDE = 4


def palettes(ends, exact):
    """Texels of the eight codes for endpoints [blocks, 2]; float32 [blocks, 8]."""
    e0, e1 = ends[:, 0].astype(np.int32), ends[:, 1].astype(np.int32)
    full = np.float32(255.0)
    palette = np.zeros((len(ends), 8), np.float32)
    palette[:, 0] = e0.astype(np.float32) / full
    palette[:, 1] = e1.astype(np.float32) / full
    seven = e0 > e1
    for steps, chosen in ((7, seven), (5, ~seven)):
        for code in range(2, steps + 1):
            k = code - 1
            level = e0 * (steps - k) + e1 * k
            if exact:
                texel = level.astype(np.float32) / np.float32(255 * steps)
            else:
                texel = (level // steps).astype(np.float32) / full
            palette[chosen, code] = texel[chosen]
    palette[~seven, 6] = 0.0
    palette[~seven, 7] = 1.0
    return palette


def decode(parts, params, rows, cols):
    """w = scale (2 t - 1)."""
    blocks = parts["blocks"].reshape(-1, 8)
    bits = np.zeros(len(blocks), np.uint64)
    for byte in range(6):
        bits |= blocks[:, 2 + byte].astype(np.uint64) << np.uint64(8 * byte)
    shifts = np.arange(16, dtype=np.uint64) * np.uint64(3)
    codes = ((bits[:, None] >> shifts) & np.uint64(7)).astype(np.intp)
    palette = palettes(blocks[:, :2], params.get("decode", "exact") == "exact")
    texels = np.take_along_axis(palette, codes, axis=1)
    return scaled(texels, parts["scales"], rows, cols, SIDE, SIDE)
