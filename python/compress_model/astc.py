"""Codec `astc`: the red channel of ASTC blocks (Khronos Data Format Specification 1.3,
chapter 23; sections are named below). Blocks of one kind are decoded together."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .blocks import assemble, scaled
from .ise import (
    ENDPOINT_VALUES,
    FIRST_ENDPOINT_RANGE,
    LEVELS,
    WEIGHT_VALUES,
    field,
    read,
    sequence_bits,
)

VOID_EXTENT = 0x1FC
SEED_BITS = 10
# HDR luminance with large and with small range: the HDR endpoint modes that encoders write.
HDR_FORMATS = (2, 3)
ALL_HDR_FORMATS = (2, 3, 7, 11, 14, 15)
# Blocks decoded at a time: their bits and texels take some 100 MB.
RUN = 1 << 15


class Unsupported(Exception):
    """A legal block of a kind that no weight encoder writes."""


class Mode(NamedTuple):
    width: int
    height: int
    levels: int
    dual: bool
    count: int
    bits: int


@lru_cache(maxsize=None)
def block_mode(value):
    """Section 23.11: weight grid, range and planes of an 11-bit mode; None if reserved."""
    at = lambda position, width: (value >> position) & ((1 << width) - 1)
    a, b = at(5, 2), at(7, 2)
    precise, dual = at(9, 1), at(10, 1) == 1
    if at(0, 2):
        high = at(0, 2)
        last = ((b & 1) + 2, a + 2) if b & 2 else (a + 2, b + 6)
        width, height = [(b + 4, a + 2), (b + 8, a + 2), (a + 2, b + 8), last][at(2, 2)]
    else:
        high = at(2, 2)
        if b == 3 and a > 1:
            return None
        sizes = [(12, a + 2), (a + 2, 12), (a + 6, at(9, 2) + 6), (6, 10) if a == 0 else (10, 6)]
        width, height = sizes[b]
        if b == 2:
            precise, dual = 0, False
    selector = (high << 1) | at(4, 1)
    if selector < 2:
        return None
    levels = LEVELS[selector - 2 + (6 if precise else 0)]
    count = width * height * (2 if dual else 1)
    bits = sequence_bits(levels, count)
    if count > 64 or not 24 <= bits <= 96:
        return None
    return Mode(width, height, levels, dual, count, bits)


@lru_cache(maxsize=None)
def partition_maps(partitions, width, height):
    """Section 23.21: the partition of every texel for every seed, [1024, texels]."""
    seed = np.arange(1024, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    p = seed + np.uint64((partitions - 1) * 1024)
    u = np.uint64
    p ^= p >> u(15)
    p = (p - ((p << u(17)) & mask)) & mask
    p = (p + (p << u(7))) & mask
    p = (p + (p << u(4))) & mask
    p ^= p >> u(5)
    p = (p + (p << u(16))) & mask
    p ^= p >> u(7)
    p ^= p >> u(3)
    p ^= (p << u(6)) & mask
    p ^= p >> u(17)
    p, seed = p.astype(np.int64), seed.astype(np.int64)
    by_count = np.full(1024, 6 if partitions == 3 else 5)
    by_seed = np.where(seed & 2, 4, 5)
    odd = (seed & 1) == 1
    shift_x, shift_y = np.where(odd, by_seed, by_count), np.where(odd, by_count, by_seed)
    double = 2 if width * height < 31 else 1
    y, x = np.divmod(np.arange(width * height), width)
    heights = []
    for i in range(partitions):
        nx, ny = (p >> (8 * i)) & 15, (p >> (8 * i + 4)) & 15
        slope_x, slope_y = ((nx * nx) >> shift_x) * double, ((ny * ny) >> shift_y) * double
        phase = (p >> (14 - 4 * i)) & 63
        heights.append((np.outer(slope_x, x) + np.outer(slope_y, y) + phase[:, None]) & 63)
    # The first of equal heights owns the texel.
    return np.argmax(np.stack(heights), axis=0)


@lru_cache(maxsize=None)
def infill(grid_width, grid_height, width, height):
    """Section 23.18: four grid points of every texel and their shares of 16, [texels, 4] each."""

    def place(position, size, points):
        step = (1024 + size // 2) // (size - 1)
        return (step * position * (points - 1) + 32) >> 6

    y, x = np.divmod(np.arange(width * height), width)
    across, down = place(x, width, grid_width), place(y, height, grid_height)
    fx, fy = across & 15, down & 15
    both = (fx * fy + 8) >> 4
    first = (across >> 4) + (down >> 4) * grid_width
    points = np.stack([first, first + 1, first + grid_width, first + grid_width + 1], axis=1)
    return points, np.stack([16 + both - fx - fy, fx - both, fy - both, both], axis=1)


def texel_weights(bits, mode, plane, width, height):
    """The weight 0..64 of every texel, [blocks, texels]."""
    stored = WEIGHT_VALUES[mode.levels][read(bits[:, ::-1], 0, mode.levels, mode.count)]
    grid = np.zeros((len(bits), 64 + 16), np.int64)
    chosen = stored[:, plane :: 2 if mode.dual else 1]
    grid[:, : chosen.shape[1]] = chosen
    points, shares = infill(mode.width, mode.height, width, height)
    return ((grid[:, points] * shares).sum(axis=2) + 8) >> 4


def base_offset(base, offset):
    """A base of 8 bits, whose top bit is the offset's, and a signed offset of 6."""
    signed = (offset >> 1) & 0x3F
    return (base >> 1) | (offset & 0x80), np.where(signed >= 0x20, signed - 0x40, signed)


def ldr_red(kind, v):
    """Section 23.15: the red ends 0..255 of an LDR endpoint mode; v holds its values by column."""
    if kind in (0, 4):
        return v[0], v[1]
    if kind == 1:
        low = (v[0] >> 2) | (v[1] & 0xC0)
        return low, np.minimum(low + (v[1] & 0x3F), 255)
    if kind == 5:
        low, offset = base_offset(v[0], v[1])
        return low, np.clip(low + offset, 0, 255)
    if kind in (6, 10):
        return (v[0] * v[3]) >> 8, v[0]
    if kind in (8, 12):
        plain = v[1] + v[3] + v[5] >= v[0] + v[2] + v[4]
        contracted = (v[1] + v[5]) >> 1, (v[0] + v[4]) >> 1
        return np.where(plain, v[0], contracted[0]), np.where(plain, v[1], contracted[1])
    (r, dr), (_, dg), (b, db) = (base_offset(v[i], v[i + 1]) for i in (0, 2, 4))
    plain = dr + dg + db >= 0
    contracted = (r + dr + b + db) >> 1, (r + b) >> 1
    low, high = np.where(plain, r, contracted[0]), np.where(plain, r + dr, contracted[1])
    return np.clip(low, 0, 255), np.clip(high, 0, 255)


def hdr_luminance(kind, v0, v1):
    """Section 23.15: the ends 0..4095 of HDR luminance, large range (2) or small (3)."""
    if kind == 2:
        up = v1 >= v0
        return np.where(up, v0 << 4, (v1 << 4) + 8), np.where(up, v1 << 4, (v0 << 4) - 8)
    large = (v0 & 0x80) != 0
    low = np.where(
        large, ((v1 & 0xE0) << 4) | ((v0 & 0x7F) << 2), ((v1 & 0xF0) << 4) | ((v0 & 0x7F) << 1)
    )
    offset = np.where(large, (v1 & 0x1F) << 2, (v1 & 0x0F) << 1)
    return low, np.minimum(low + offset, 0xFFF)


def endpoints(kind, v, hdr):
    """Both red ends of a partition on the 16-bit scale of the interpolation."""
    if kind not in ALL_HDR_FORMATS:
        low, high = ldr_red(kind, v)
        return low * 257, high * 257
    if not hdr:
        # HDR endpoints in an LDR image are magenta.
        full = np.full_like(v[0], 0xFFFF)
        return full, full
    if kind not in HDR_FORMATS:
        raise Unsupported(f"HDR endpoint mode {kind}")
    low, high = hdr_luminance(kind, v[0], v[1])
    return low << 4, high << 4


def endpoint_modes(bits, partitions, top):
    """Section 23.14: the endpoint mode of each partition [blocks, partitions], and where the bits
    stored below the weights end [blocks]."""
    if partitions == 1:
        return field(bits, 13, 4)[:, None], np.full(len(bits), top)
    low = field(bits, 13 + SEED_BITS, 6)
    width = 3 * partitions - 4
    encoded = (low | (field(bits, top - width, width) << 6)) >> 2
    own = [
        (((low & 3) - 1 + ((encoded >> i) & 1)) << 2) | ((encoded >> (partitions + 2 * i)) & 3)
        for i in range(partitions)
    ]
    shared = (low & 3) == 0
    modes = np.where(shared[:, None], (low >> 2)[:, None], np.stack(own, axis=1))
    return modes, np.where(shared, top, top - width)


def constants(bits, hdr):
    """Section 23.23: (legal, 16-bit red) of void-extent blocks. Red is fp16 bits in HDR blocks,
    which only an HDR reader accepts."""
    corners = np.stack([field(bits, position, 13) for position in (12, 25, 38, 51)])
    absent = (corners == 0x1FFF).all(axis=0)
    ordered = (corners[0] < corners[1]) & (corners[2] < corners[3])
    legal = (field(bits, 10, 2) == 3) & (absent | ordered)
    is_hdr = bits[:, 9] == 1
    if not hdr:
        legal &= ~is_hdr
    return legal, field(bits, 64, 16), is_hdr


class Texels:
    """What the texture unit returns for red, as float32, by the reader's precision."""

    def __init__(self, precision):
        self.hdr = precision == "hdr"
        value = np.arange(0x10000)
        if precision == "unorm8":
            self.unorm = (value >> 8).astype(np.float32) / np.float32(255.0)
            self.error = np.float32(1.0)
        else:
            self.unorm = unorm16_to_fp16(value)
            self.error = np.float32("nan") if self.hdr else np.float32(1.0)
        self.log = log16_to_fp16(value)


def unorm16_to_fp16(value):
    """value / 65536 rounded towards zero to fp16, but 1.0 for 65535."""
    length = np.frexp(value.astype(np.float64))[1]  # bits of the value
    drop = np.maximum(length - 11, 0)
    kept = (value >> drop) << drop
    return np.where(value == 0xFFFF, 1.0, kept / 65536.0).astype(np.float32)


def log16_to_fp16(value):
    """5 bits of exponent, 11 of piecewise linear mantissa; saturates below infinity."""
    exponent, mantissa = value >> 11, value & 0x7FF
    linear = np.where(mantissa < 512, 3 * mantissa, np.where(mantissa < 1536, 4 * mantissa - 512, 5 * mantissa - 2048))
    half = np.minimum((exponent << 10) + (linear >> 3), 0x7BFF).astype(np.uint16)
    return half.view(np.float16).astype(np.float32)


def decode_group(bits, mode_bits, partitions, size, texels, out):
    """Decodes blocks that share block mode and number of partitions."""
    width, height = size
    mode = block_mode(mode_bits)
    if mode is None or mode.width > width or mode.height > height or (mode.dual and partitions == 4):
        out[:] = texels.error
        return
    modes, tops = endpoint_modes(bits, partitions, 128 - mode.bits)
    kinds = np.concatenate([modes, tops[:, None]], axis=1)
    distinct, which = np.unique(kinds, axis=0, return_inverse=True)
    for number, (*formats, top) in enumerate(distinct.tolist()):
        chosen = which.reshape(-1) == number
        top -= 2 if mode.dual else 0
        out[chosen] = decode_kind(bits[chosen], mode, formats, top, size, texels)


def decode_kind(bits, mode, formats, top, size, texels):
    """Texels of blocks that share block mode and endpoint modes; endpoint values end at `top`."""
    width, height = size
    partitions = len(formats)
    start = 17 if partitions == 1 else 29
    counts = [2 * ((kind >> 2) + 1) for kind in formats]
    fitting = [n for n in LEVELS if sequence_bits(n, sum(counts)) <= max(top - start, 0)]
    if sum(counts) > 18 or not fitting or fitting[-1] < LEVELS[FIRST_ENDPOINT_RANGE]:
        return texels.error
    values = ENDPOINT_VALUES[fitting[-1]][read(bits, start, fitting[-1], sum(counts))].T
    ends, first = [], 0
    for kind, count in zip(formats, counts):
        ends.append(endpoints(kind, values[first : first + count], texels.hdr))
        first += count
    if partitions == 1:
        owner = np.zeros((len(bits), width * height), np.intp)
    else:
        owner = partition_maps(partitions, width, height)[field(bits, 13, SEED_BITS)]
    # Red follows the second plane where that plane drives channel 0.
    second = field(bits, top, 2) == 0 if mode.dual else np.zeros(len(bits), bool)
    weights = np.zeros((len(bits), width * height), np.int64)
    for plane in (0, 1):
        of_plane = second == (plane == 1)
        if of_plane.any():
            weights[of_plane] = texel_weights(bits[of_plane], mode, plane, width, height)
    low, high = (np.take_along_axis(np.stack(side, axis=1), owner, 1) for side in zip(*ends))
    interpolated = (low * (64 - weights) + high * weights + 32) >> 6
    is_log = texels.hdr & np.isin(formats, ALL_HDR_FORMATS)[owner]
    return np.where(is_log, texels.log[interpolated], texels.unorm[interpolated])


def red(blocks, width, height, precision):
    """The red channel of blocks uint8 [blocks, 16], float32 [blocks, texels].

    `precision` is "unorm8" or "fp16" for LDR readers, or "hdr". Illegal blocks have the error
    colour: 1 in LDR, NaN in HDR.
    """
    texels = Texels(precision)
    runs = [
        decode_run(blocks[first : first + RUN], width, height, texels)
        for first in range(0, len(blocks), RUN)
    ]
    return np.concatenate(runs)


def decode_run(blocks, width, height, texels):
    """The blocks of one run, sorted by kind so that each kind is decoded at once."""
    bits = np.unpackbits(np.ascontiguousarray(blocks), axis=1, bitorder="little")
    out = np.empty((len(blocks), width * height), np.float32)
    constant = field(bits, 0, 9) == VOID_EXTENT
    if constant.any():
        legal, value, is_hdr = constants(bits[constant], texels.hdr)
        half = value.astype(np.uint16).view(np.float16).astype(np.float32)
        colour = np.where(is_hdr, half, texels.unorm[value])
        out[constant] = np.where(legal, colour, texels.error)[:, None]
    key = field(bits, 0, 13)
    key[constant] = -1
    order = np.argsort(key, kind="stable")
    kinds, starts = np.unique(key[order], return_index=True)
    for kind, chosen in zip(kinds, np.split(order, starts[1:])):
        if kind >= 0:
            group = np.empty((len(chosen), width * height), np.float32)
            decode_group(bits[chosen], int(kind) & 0x7FF, (int(kind) >> 11) + 1, (width, height), texels, group)
            out[chosen] = group
    return out


def decode(parts, params, rows, cols):
    """LDR: w = scale (2 t - 1). HDR: w = t + offset, both widened to float32 first."""
    width, height = (int(side) for side in params.get("footprint", "6x6").split("x"))
    hdr = params.get("profile", "ldr") == "hdr"
    precision = "hdr" if hdr else params.get("decode", "unorm8")
    texels = red(parts["blocks"].reshape(-1, 16), width, height, precision)
    if hdr:
        texels += parts["offsets"].reshape(-1, 1).astype(np.float32)
        return assemble(texels, rows, cols, width, height)
    return scaled(texels, parts["scales"], rows, cols, width, height)
