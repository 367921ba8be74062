"""Golden vectors for the 2-bit grid and the 4-bit groups, from programs other than this crate.

    pip install numpy==2.* mlx==0.32.4 mlx-cpu==0.32.4
    python make.py

Writes next to itself, all little-endian and row-major:

weights.f16        [ROWS, COLS], the input
grid2_codes.u8     [ROWS, COLS / 4] and
grid2_scales.f16   [ROWS, COLS / 32], the 2-bit grid in groups of 32. The fit is the global optimum
                   by trying every split of the sorted magnitudes in float64.
grid2_row.f64      [ROWS], least squared error of one unrounded scale a row, by the same search
grid2_mlx.f32      [ROWS, COLS], what MLX decodes from those codes with scales s and biases -1.5 s
int4_codes.u8      [ROWS, COLS / 2],
int4_scales.f16    [ROWS, COLS / 64] and
int4_mins.f16      likewise, 4-bit groups of 64 from their extremes
int4_mlx.f32       [ROWS, COLS], what MLX decodes from these
"""

from pathlib import Path

import mlx.core as mx
import numpy as np

ROWS, COLS = 12, 192
HERE = Path(__file__).parent


def splits(w):
    """Gain and scale of every split of |w| into k large and n - k small magnitudes."""
    a = np.sort(np.abs(w.astype(np.float64)))[::-1]
    k = np.arange(len(a) + 1)
    products = 0.5 * a.sum() + np.concatenate([[0.0], np.cumsum(a)])
    squares = 0.25 * len(a) + 2.0 * k
    return products**2 / squares, products / squares


def best_scale(w):
    gain, scale = splits(w)
    return scale[np.argmax(gain)]


def is_close_call(w):
    """Whether float32 could settle on another split or round the scale to another fp16 number."""
    gain, scale = splits(w)
    order = np.argsort(gain)[::-1]
    if gain[order[1]] > gain[order[0]] * (1 - 1e-4):
        return True
    s = scale[order[0]]
    return np.float16(s * (1 - 1e-5)) != np.float16(s * (1 + 1e-5))


def draw_group(rng, row):
    draw = [rng.standard_normal, lambda n: rng.laplace(size=n), lambda n: rng.standard_t(3, size=n)]
    return (0.02 * draw[row % 3](32)).astype(np.float16)


def weights(rng):
    w = np.empty((ROWS, COLS), np.float16)
    for row in range(ROWS):
        for start in range(0, COLS, 32):
            group = draw_group(rng, row)
            while is_close_call(group):
                group = draw_group(rng, row)
            w[row, start : start + 32] = group
    w[1, 32:64] = 0.0
    w[2, 64:96] = np.where(rng.random(32) < 0.5, -0.03125, 0.03125)
    return w


def pack(codes, bits):
    per_byte = 8 // bits
    codes = codes.reshape(codes.shape[0], -1, per_byte)
    return sum(codes[:, :, j] << (bits * j) for j in range(per_byte)).astype(np.uint8)


def grid2(w):
    groups = w.astype(np.float64).reshape(ROWS, -1, 32)
    scales = np.array([[best_scale(g) for g in row] for row in groups]).astype(np.float16)
    s = scales.astype(np.float64)[:, :, None]
    levels = np.array([-1.5, -0.5, 0.5, 1.5])
    # Among equally near levels: the inner one, and +0.5 for zero.
    order = [2, 1, 3, 0]
    distance = np.abs(groups[..., None] - s[..., None] * levels[order])
    codes = np.array(order)[np.argmin(distance, axis=-1)].reshape(ROWS, COLS)
    return pack(codes, 2), scales


def int4(w):
    groups = w.astype(np.float64).reshape(ROWS, -1, 64)
    mins = groups.min(-1).astype(np.float16)
    scales = ((groups.max(-1) - mins.astype(np.float64)) / 15).astype(np.float16)
    s, m = scales.astype(np.float64)[..., None], mins.astype(np.float64)[..., None]
    codes = np.clip(np.rint((groups - m) / s), 0, 15).astype(int).reshape(ROWS, COLS)
    return pack(codes, 4), scales, mins


def mlx_decode(codes, scales, biases, group, bits):
    words = mx.array(np.ascontiguousarray(codes).view(np.uint32))
    out = mx.dequantize(
        words,
        mx.array(scales.astype(np.float32)),
        mx.array(biases.astype(np.float32)),
        group_size=group,
        bits=bits,
        mode="affine",
        stream=mx.cpu,
    )
    return np.array(out)


def main():
    w = weights(np.random.default_rng(20251123))
    codes2, scales2 = grid2(w)
    energy = (w.astype(np.float64) ** 2).sum(1)
    row_error = energy - np.array([splits(row)[0].max() for row in w])
    codes4, scales4, mins4 = int4(w)
    files = {
        "weights.f16": w,
        "grid2_codes.u8": codes2,
        "grid2_scales.f16": scales2,
        "grid2_row.f64": row_error,
        "grid2_mlx.f32": mlx_decode(codes2, scales2, -1.5 * scales2.astype(np.float32), 32, 2),
        "int4_codes.u8": codes4,
        "int4_scales.f16": scales4,
        "int4_mins.f16": mins4,
        "int4_mlx.f32": mlx_decode(codes4, scales4, mins4, 64, 4),
    }
    for name, array in files.items():
        (HERE / name).write_bytes(np.ascontiguousarray(array).tobytes())


if __name__ == "__main__":
    main()
