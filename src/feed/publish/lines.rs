//! Splits a publisher's bytes into chunks of whole, numbered lines. It does not depend on sockets.

use memchr::{memchr, memchr_iter, memrchr};

/// The longest line in bytes, without its end. A longer one is skipped and reported.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of bytes that may be added between two calls of [`Lines::chunk`]. It is not above
/// [`LINE_BYTES_MAX`], so only the first line of a buffer can be too long.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;

/// The lines being received. Add up to [`READ_BYTES_MAX`] to [`buffer`](Self::buffer), then call
/// [`chunk`](Self::chunk), repeatedly. The buffer is reused: it holds one unfinished line and one read.
#[derive(Debug)]
pub(super) struct Lines {
    /// Received bytes, from the beginning of a line.
    pub(super) buffer: Vec<u8>,
    /// The number of the buffer's first line, from 1.
    first: u64,
    /// Whether the buffer begins within a line that was too long.
    skipping: bool,
}

/// Whole lines, each ended by `\n`.
#[derive(Debug, PartialEq)]
pub(super) struct Whole {
    pub(super) first_line: u64,
    pub(super) lines: u64,
    pub(super) bytes: Vec<u8>,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { buffer: Vec::new(), first: 1, skipping: false }
    }

    /// Returns true if there is a whole line.
    pub(super) fn has_line(&self) -> bool {
        memchr(b'\n', &self.buffer).is_some()
    }

    /// Returns true if at least half of [`READ_BYTES_MAX`] is buffered.
    pub(super) fn is_much(&self) -> bool {
        self.buffer.len() >= READ_BYTES_MAX / 2
    }

    /// Removes and returns the first line without its end, once it is complete.
    pub(super) fn line(&mut self) -> Option<Vec<u8>> {
        let end = memchr(b'\n', &self.buffer)?;
        let line = self.buffer[..end].to_vec();
        self.drop_line(end);
        Some(line)
    }

    /// Removes and returns all whole lines; the rest stays. Calls `long` with the number of each line that is
    /// too long.
    pub(super) fn chunk(&mut self, mut long: impl FnMut(u64)) -> Option<Whole> {
        loop {
            let end = memchr(b'\n', &self.buffer);
            let too_long = end.unwrap_or(self.buffer.len()) > LINE_BYTES_MAX;
            if too_long && !self.skipping {
                long(self.first);
                self.skipping = true;
            }
            match end {
                None if self.skipping => {
                    self.buffer.clear();
                    return None;
                }
                None => return None,
                Some(end) if self.skipping => {
                    self.drop_line(end);
                    self.skipping = false;
                }
                Some(_) => break,
            }
        }
        let len = memrchr(b'\n', &self.buffer)? + 1;
        let bytes = self.buffer[..len].to_vec();
        self.buffer.drain(..len);
        let lines = memchr_iter(b'\n', &bytes).count() as u64;
        let first_line = self.first;
        self.first += lines;
        Some(Whole { first_line, lines, bytes })
    }

    /// Adds the missing end of the last line, after the stream has ended.
    pub(super) fn finish(&mut self) {
        if self.buffer.last().is_some_and(|last| *last != b'\n') {
            self.buffer.push(b'\n');
        }
    }

    fn drop_line(&mut self, end: usize) {
        self.buffer.drain(..=end);
        self.first += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(first_line: u64, text: &str) -> Option<Whole> {
        let lines = text.matches('\n').count() as u64;
        Some(Whole { first_line, lines, bytes: text.into() })
    }

    fn none_long(line: u64) {
        panic!("line {line} is not too long");
    }

    #[test]
    fn lines_are_numbered_across_reads() {
        let mut lines = Lines::new();
        lines.buffer.extend_from_slice(b"auth\na\nb\nc");
        assert_eq!(lines.line().as_deref(), Some(&b"auth"[..]));
        assert_eq!(lines.chunk(none_long), whole(2, "a\nb\n"));
        assert_eq!(lines.chunk(none_long), None);
        lines.buffer.extend_from_slice(b"c\n\nd");
        assert_eq!(lines.chunk(none_long), whole(4, "cc\n\n"));
        lines.finish();
        assert_eq!(lines.chunk(none_long), whole(6, "d\n"));
        lines.finish();
        assert_eq!(lines.chunk(none_long), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However the bytes are split into reads, each line is returned once under its number, or reported
        /// as too long.
        #[test]
        fn no_line_is_lost(
            lengths in proptest::collection::vec(prop_oneof![0..50usize, 65_000..66_000usize, 200_000..200_010usize], 1..12),
            read in 1_000..READ_BYTES_MAX,
        ) {
            let text: Vec<u8> = lengths.iter().flat_map(|n| [vec![b'x'; *n], vec![b'\n']].concat()).collect();
            let (mut lines, mut long, mut found) = (Lines::new(), Vec::new(), Vec::new());
            for piece in text.chunks(read) {
                lines.buffer.extend_from_slice(piece);
                if let Some(whole) = lines.chunk(|line| long.push(line)) {
                    let pieces = whole.bytes.split(|b| *b == b'\n').map(<[u8]>::len);
                    found.extend((whole.first_line..).zip(pieces.take(whole.lines as usize)));
                }
                prop_assert!(lines.buffer.len() <= LINE_BYTES_MAX);
            }
            let numbered = || (1u64..).zip(lengths.iter().copied());
            prop_assert_eq!(found, numbered().filter(|l| l.1 <= LINE_BYTES_MAX).collect::<Vec<_>>());
            prop_assert_eq!(long, numbered().filter(|l| l.1 > LINE_BYTES_MAX).map(|l| l.0).collect::<Vec<_>>());
        }
    }
}
