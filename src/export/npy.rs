//! NumPy `.npy` files of f16 numbers (NEP 1, version 1.0).

/// A file of little-endian f16 `data` with dimensions `shape`.
pub(super) fn f16_file(shape: &[usize], data: &[u8]) -> Vec<u8> {
    const PREFIX: usize = 10;
    const ALIGN: usize = 64;
    let dims: String = shape.iter().map(|dim| format!("{dim}, ")).collect();
    let mut header =
        format!("{{'descr': '<f2', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    let padded = (PREFIX + header.len() + 1).next_multiple_of(ALIGN) - PREFIX;
    header.extend(std::iter::repeat_n(' ', padded - header.len() - 1));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_a_python_literal_in_whole_lines_of_64() {
        for (shape, text) in [(&[7][..], "(7,)"), (&[2, 576][..], "(2, 576,)")] {
            let file = f16_file(shape, &[1, 2]);
            let len = usize::from(u16::from_le_bytes([file[8], file[9]]));
            assert_eq!((10 + len) % 64, 0);
            assert_eq!(file.len(), 10 + len + 2);
            let header = std::str::from_utf8(&file[10..10 + len]).unwrap();
            assert!(header.contains(&format!("'shape': {text}, }}")), "{header}");
            assert!(header.ends_with('\n'));
        }
    }
}
