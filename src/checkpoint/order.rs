//! The order of tensors everywhere: by name, numbers by value, so that layer 2 precedes layer 10.
//!
//! It depends on names alone: a sharded and a single-file copy of one model compress to the same
//! bytes.

use std::cmp::Ordering;

/// Compares two names, runs of digits by value, everything else by byte. Total: names that differ
/// only in leading zeros are ordered by their bytes.
#[must_use]
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a.as_bytes(), b.as_bytes());
    while let (Some(&first_a), Some(&first_b)) = (rest_a.first(), rest_b.first()) {
        let order = if first_a.is_ascii_digit() && first_b.is_ascii_digit() {
            let (run_a, run_b) = (take_digits(&mut rest_a), take_digits(&mut rest_b));
            run_a.len().cmp(&run_b.len()).then_with(|| run_a.cmp(run_b))
        } else {
            rest_a = &rest_a[1..];
            rest_b = &rest_b[1..];
            first_a.cmp(&first_b)
        };
        if order.is_ne() {
            return order;
        }
    }
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// Cuts the leading digits off `rest` and gives them without leading zeros.
fn take_digits<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|c| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    *rest = tail;
    let zeros = digits.iter().position(|&c| c != b'0').unwrap_or(digits.len());
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::natural;

    #[test]
    fn layers_in_numeric_order() {
        let mut names = vec!["l.10.w", "l.9.w", "l.1.w", "l.01.w", "l.1.b", "k", "l.1"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["k", "l.1", "l.1.b", "l.01.w", "l.1.w", "l.9.w", "l.10.w"]);
    }

    proptest::proptest! {
        #[test]
        fn is_a_total_order(a in "[a.0-9]{0,8}", b in "[a.0-9]{0,8}", c in "[a.0-9]{0,8}") {
            proptest::prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
            proptest::prop_assert_eq!(natural(&a, &b).is_eq(), a == b);
            if natural(&a, &b).is_le() && natural(&b, &c).is_le() {
                proptest::prop_assert!(natural(&a, &c).is_le());
            }
        }
    }
}
