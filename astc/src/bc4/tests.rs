//! Equality over instruction sets.

use rand::SeedableRng;
use rand_distr::{Distribution, StudentT};
use rand_pcg::Pcg64Mcg;

use super::*;

#[test]
fn bytes_do_not_depend_on_the_instruction_set() {
    let (rows, cols) = (10, 70);
    let heavy = StudentT::new(2.0_f32).unwrap();
    let w: Vec<f32> = heavy.sample_iter(Pcg64Mcg::seed_from_u64(2)).take(rows * cols).collect();
    for decode in [DecodeMode::Exact, DecodeMode::Unorm8, DecodeMode::Llvmpipe] {
        for effort in [Effort::Fast, Effort::Best] {
            let [plain, widest] = [Level::Scalar, Level::detect()].map(|level| {
                let mut blocks = vec![0; byte_len(rows, cols)];
                let mut scales = vec![f16::ZERO; rows];
                Coder::with_level(Params { decode, effort }, level)
                    .encode_rows(&w, rows, cols, Importance::Equal, &mut blocks, &mut scales)
                    .unwrap();
                blocks
            });
            assert_eq!(plain, widest, "{decode:?} {effort:?}");
        }
    }
}
