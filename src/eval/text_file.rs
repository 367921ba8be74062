//! A text to read: a UTF-8 file that is never in memory as a whole.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::checkpoint::positioned::read_exact_at;
use crate::error::{Error, IoContext, Result};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// A text to evaluate or to learn on.
#[derive(Debug)]
pub struct Text {
    path: PathBuf,
    bytes: u64,
    blake3: String,
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(File),
    /// What came of a pipe, or was never a file.
    Memory(String),
}

impl Text {
    /// Opens a UTF-8 file, and reads it once to see that it is one. What is no regular file, such as a
    /// pipe, is kept in memory.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Input`] if it is not UTF-8.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = File::open(path).at("read", path)?;
        if !file.metadata().at("read", path)?.is_file() {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).at("read", path)?;
            let text = String::from_utf8(bytes)
                .map_err(|e| not_utf8(path, e.utf8_error().valid_up_to() as u64))?;
            return Ok(Self::in_memory(path, text));
        }
        let mut hasher = blake3::Hasher::new();
        let (mut chunk, mut kept, mut position) = (vec![0; CHUNK], 0, 0u64);
        loop {
            let read = file.read(&mut chunk[kept..]).at("read", path)?;
            let end = kept + read;
            let valid = valid_up_to(&chunk[..end]);
            // A character may end in the next chunk, but not after the end of the file.
            if valid.is_none_or(|valid| read == 0 && valid < end) {
                let valid =
                    std::str::from_utf8(&chunk[..end]).map_or_else(|e| e.valid_up_to(), str::len);
                return Err(not_utf8(path, position + valid as u64));
            }
            let valid = valid.unwrap_or(end);
            hasher.update(&chunk[..valid]);
            position += valid as u64;
            if read == 0 {
                break;
            }
            chunk.copy_within(valid..end, 0);
            kept = end - valid;
        }
        let blake3 = hasher.finalize().to_hex().to_string();
        Ok(Self { path: path.to_path_buf(), bytes: position, blake3, source: Source::File(file) })
    }

    /// A text that is not a file; messages call it `path`.
    #[must_use]
    pub fn in_memory(path: &Path, text: String) -> Self {
        Self {
            path: path.to_path_buf(),
            bytes: text.len() as u64,
            blake3: blake3::hash(text.as_bytes()).to_hex().to_string(),
            source: Source::Memory(text),
        }
    }

    /// Where it came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// BLAKE3 of its bytes.
    #[must_use]
    pub fn blake3(&self) -> &str {
        &self.blake3
    }

    /// Whole characters among at most `len` bytes from `from` on, and where they start: `from`, or the
    /// first character after it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Input`] for a file that changed since it was opened.
    pub(super) fn piece(&self, from: u64, len: u64) -> Result<(u64, String)> {
        let end = self.bytes.min(from + len);
        let from = from.min(end);
        let mut bytes = match &self.source {
            Source::File(file) => {
                let mut bytes = vec![0; (end - from) as usize];
                read_exact_at(file, &mut bytes, from).at("read", &self.path)?;
                bytes
            }
            Source::Memory(text) => text.as_bytes()[from as usize..end as usize].to_vec(),
        };
        let inside = bytes.iter().take_while(|&&byte| is_continuation(byte)).count();
        bytes.drain(..inside);
        bytes.truncate(valid_up_to(&bytes).unwrap_or(bytes.len()));
        let text = String::from_utf8(bytes).map_err(|_| {
            Error::input(&self.path, "changed while it was read: it is no longer UTF-8")
        })?;
        Ok((from + inside as u64, text))
    }
}

fn not_utf8(path: &Path, at: u64) -> Error {
    Error::input(path, format!("not UTF-8 at byte {at}"))
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Bytes of whole characters; none if something before the last character is not UTF-8.
fn valid_up_to(bytes: &[u8]) -> Option<usize> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.len()),
        Err(e) if e.error_len().is_none() => Some(e.valid_up_to()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn characters_across_chunks_are_whole() {
        let mut text = "a".repeat(CHUNK - 1);
        text.push_str("é€😀 and the rest");
        let file = file(text.as_bytes());
        let read = Text::read(file.path()).unwrap();
        assert_eq!(read.bytes(), text.len() as u64);
        assert_eq!(read.blake3(), Text::in_memory(Path::new("t"), text.clone()).blake3());
        let at = CHUNK as u64 - 1;
        assert_eq!(read.piece(at, 3).unwrap(), (at, "é".to_owned()));
        assert_eq!(read.piece(at + 1, 4).unwrap(), (at + 2, "€".to_owned()));
        assert_eq!(read.piece(read.bytes() - 4, 100).unwrap().1, "rest");
        assert_eq!(read.piece(read.bytes() + 4, 100).unwrap().1, "");
    }

    #[test]
    fn what_is_not_utf8_is_placed() {
        let mut bytes = vec![b'a'; CHUNK + 10];
        bytes[CHUNK + 3] = 0xff;
        let refused = |bytes: &[u8]| Text::read(file(bytes).path()).unwrap_err().to_string();
        assert!(refused(&bytes).ends_with(&format!("not UTF-8 at byte {}", CHUNK + 3)));
        assert!(refused(b"ab\xe2\x82").ends_with("not UTF-8 at byte 2"));
        assert!(refused(b"\xc3").ends_with("not UTF-8 at byte 0"));
    }
}
