//! Element types of GGUF tensors that can be read; blocks of a row, each of a fixed size.

/// How a row of weights is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// Type, its number in files, its name, weights of a block, bytes of a block.
const TABLE: [(TensorType, u32, &str, usize, usize); 13] = [
    (TensorType::F32, 0, "F32", 1, 4),
    (TensorType::F16, 1, "F16", 1, 2),
    (TensorType::Q4_0, 2, "Q4_0", 32, 18),
    (TensorType::Q4_1, 3, "Q4_1", 32, 20),
    (TensorType::Q5_0, 6, "Q5_0", 32, 22),
    (TensorType::Q5_1, 7, "Q5_1", 32, 24),
    (TensorType::Q8_0, 8, "Q8_0", 32, 34),
    (TensorType::Q2K, 10, "Q2_K", 256, 84),
    (TensorType::Q3K, 11, "Q3_K", 256, 110),
    (TensorType::Q4K, 12, "Q4_K", 256, 144),
    (TensorType::Q5K, 13, "Q5_K", 256, 176),
    (TensorType::Q6K, 14, "Q6_K", 256, 210),
    (TensorType::Bf16, 30, "BF16", 1, 2),
];

impl TensorType {
    /// The type with this number in files; `None` for one that is not read.
    pub(crate) fn from_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    fn row(self) -> &'static (Self, u32, &'static str, usize, usize) {
        TABLE.iter().find(|row| row.0 == self).expect("invariant: the table lists every type")
    }

    /// Number in files.
    pub(crate) fn id(self) -> u32 {
        self.row().1
    }

    /// Name as llama.cpp prints it.
    pub(crate) fn name(self) -> &'static str {
        self.row().2
    }

    /// Weights of a block.
    pub(crate) fn block_weights(self) -> usize {
        self.row().3
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(self) -> usize {
        self.row().4
    }

    /// Bytes of a row of `cols` weights; `None` if blocks do not fill it.
    pub(crate) fn row_bytes(self, cols: usize) -> Option<usize> {
        let blocks = cols / self.block_weights();
        cols.is_multiple_of(self.block_weights()).then_some(blocks * self.block_bytes())
    }

    /// Whether weights of this type were quantised.
    pub(crate) fn is_quantised(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Names of all types, for messages.
    pub(crate) fn names() -> String {
        TABLE.map(|row| row.2).join(", ")
    }
}
