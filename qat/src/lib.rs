//! The balanced 2-bit grid: Newton scales, EMA, packing, and 4-bit groups.
