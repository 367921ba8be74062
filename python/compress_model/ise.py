"""Integer sequences and their ranges: Khronos Data Format Specification 1.3, sections 23.12,
23.13 and 23.17."""

import numpy as np

LEVELS = [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256]
FIRST_ENDPOINT_RANGE = 4
LAST_WEIGHT_RANGE = 11


def split(levels):
    """levels = digit * 2**bits with a digit of 1, 3 or 5."""
    bits = (levels & -levels).bit_length() - 1
    return bits, levels >> bits


def sequence_bits(levels, count):
    bits, digit = split(levels)
    extra = {1: 0, 3: -(-8 * count // 5), 5: -(-7 * count // 3)}[digit]
    return count * bits + extra


def unpack_trits(block):
    bit = lambda value, position: (value >> position) & 1
    if (block >> 2) & 7 == 7:
        c, t3, t4 = ((block >> 5) << 2) | (block & 3), 2, 2
    else:
        c = block & 31
        spill = (block >> 5) & 3 == 3
        t4 = 2 if spill else bit(block, 7)
        t3 = bit(block, 7) if spill else (block >> 5) & 3
    if c & 3 == 3:
        return (bit(c, 3) << 1) | (bit(c, 2) & ~bit(c, 3) & 1), bit(c, 4), 2, t3, t4
    if (c >> 2) & 3 == 3:
        return c & 3, 2, 2, t3, t4
    return (bit(c, 1) << 1) | (bit(c, 0) & ~bit(c, 1) & 1), (c >> 2) & 3, bit(c, 4), t3, t4


def unpack_quints(block):
    low, middle, high = block & 1, (block >> 1) & 3 == 3, (block >> 5) & 3
    if middle and high == 0:
        rest = 0 if low else (((block >> 4) & 1) << 1) | ((block >> 3) & 1)
        return 4, 4, (low << 2) | rest
    q2 = 4 if middle else high
    c = (((block >> 3) & 3) << 3) | ((high ^ 3) << 1) | low if middle else block & 31
    return (c >> 3, 4, q2) if c & 7 == 5 else (c & 7, c >> 3, q2)


# Digit -> the digits of every shared block, and how many of its bits follow each value.
DIGITS = {
    3: (np.array([unpack_trits(b) for b in range(256)], np.uint8), (2, 2, 1, 2, 1)),
    5: (np.array([unpack_quints(b) for b in range(128)], np.uint8), (3, 2, 2)),
}


def field(bits, position, width):
    """The integer in `width` bits of each row of bits [blocks, 128]; bits past the end are 0."""
    value = np.zeros(len(bits), np.int64)
    for i in range(width):
        if position + i < bits.shape[1]:
            value |= bits[:, position + i].astype(np.int64) << i
    return value


def read(bits, start, levels, count):
    """`count` integers of each row from bit `start` on; [blocks, count]. A last, partial group
    stores only the bits up to its last value; the missing ones read as zero."""
    plain, digit = split(levels)
    end = start + sequence_bits(levels, count)
    bits = bits[:, :end]
    values = np.zeros((len(bits), count), np.int64)
    position = start
    if digit == 1:
        for i in range(count):
            values[:, i] = field(bits, position, plain)
            position += plain
        return values
    table, widths = DIGITS[digit]
    for first in range(0, count, len(widths)):
        group = range(first, min(first + len(widths), count))
        block, filled = np.zeros(len(bits), np.int64), 0
        for i, width in zip(group, widths):
            values[:, i] = field(bits, position, plain)
            block |= field(bits, position + plain, width) << filled
            position += plain + width
            filled += width
        digits = table[block]
        for place, i in enumerate(group):
            values[:, i] |= digits[:, place].astype(np.int64) << plain
    return values


def replicate(value, bits, width):
    """Repeats the bits of a value from the top of a `width`-bit integer downwards."""
    repeated = filled = 0
    while filled < width:
        repeated, filled = (repeated << bits) | value, filled + bits
    return repeated >> (filled - width)


def unquantise(levels, value, width, patterns, factors):
    """The scheme that endpoints and weights share: T = D C + B, inverted where bit a is set."""
    bits, digit = split(levels)
    x = (value & ((1 << bits) - 1)) >> 1
    inverted = (1 << (width + 1)) - 1 if value & 1 else 0
    t = ((value >> bits) * factors[digit][bits] + patterns(digit, bits, x)) ^ inverted
    return (inverted & (1 << (width - 1))) | (t >> 2)


def endpoint_value(levels, value):
    """Stored endpoint to 0..255."""
    bits, digit = split(levels)
    if digit == 1:
        return replicate(value, bits, 8)

    def patterns(digit, bits, x):
        shifts = {
            (3, 2): (8, 4, 2, 1), (3, 3): (7, 2, 0), (3, 4): (6, 0), (3, 5): (5, -2), (3, 6): (4, -4),
            (5, 2): (8, 3, 2), (5, 3): (7, 1, -1), (5, 4): (6, -1), (5, 5): (5, -3),
        }.get((digit, bits), ())  # fmt: skip
        return sum_of(x, shifts)

    return unquantise(levels, value, 8, patterns, {3: (0, 204, 93, 44, 22, 11, 5), 5: (0, 113, 54, 26, 13, 6)})


def weight_value(levels, value):
    """Stored weight to 0..64."""
    bits, digit = split(levels)
    if digit == 1:
        t = replicate(value, bits, 6)
    elif bits == 0:
        t = {3: (0, 32, 63), 5: (0, 16, 32, 47, 63)}[digit][value]
    else:

        def patterns(digit, bits, x):
            shifts = {(3, 2): (6, 2, 0), (3, 3): (5, 0), (5, 2): (6, 1)}.get((digit, bits), ())
            return sum_of(x, shifts)

        t = unquantise(levels, value, 6, patterns, {3: (0, 50, 23, 11), 5: (0, 28, 13)})
    return t + 1 if t > 32 else t


def sum_of(x, shifts):
    """x shifted by each of `shifts` (right where negative), or-ed."""
    result = 0
    for shift in shifts:
        result |= x << shift if shift >= 0 else x >> -shift
    return result


def table(levels, value_of):
    return np.array([value_of(levels, value) for value in range(levels)], np.int64)


ENDPOINT_VALUES = {n: table(n, endpoint_value) for n in LEVELS[FIRST_ENDPOINT_RANGE:]}
WEIGHT_VALUES = {n: table(n, weight_value) for n in LEVELS[: LAST_WEIGHT_RANGE + 1]}
