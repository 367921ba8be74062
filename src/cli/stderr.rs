//! Standard error that never fails.

use std::io::{self, Write};

/// Writes to standard error, and takes it for written where that is closed, full or a terminal that
/// has gone: a run of hours is worth more than its messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
