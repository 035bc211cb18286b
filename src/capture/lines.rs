//! Splits a stream into lines, without an allocation per line and with at most one line in memory.

use std::io::{self, Read};
use std::ops::Range;

/// The longest line that is read, in bytes, without its line end: 16 MiB. A level 2 snapshot of a busy book
/// has 1 to 2 MiB. The buffer of a reader grows to its longest line, or its sample of the first lines.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// The initial size of the buffer in bytes: large enough to make the cost of system calls per line
/// negligible, small enough for the second-level cache.
const BUFFER_BYTES: usize = 256 << 10;

/// Returns the length of the byte order mark at the start of a line, which is not part of its text. Editors
/// add one at the start of a file, and concatenated files contain one for each part.
fn mark_bytes(line: &[u8]) -> usize {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    if line.starts_with(MARK) { MARK.len() } else { 0 }
}

/// Returns the text of a line: without the `\r` of its end, and without a byte order mark.
fn text_of(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    &line[mark_bytes(line)..]
}

/// Returns the lines of a text, split as by [`Lines`].
pub(super) fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|byte| *byte == b'\n').map(text_of)
}

/// A stream split into lines.
pub(super) struct Lines {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Bytes read and not yet returned: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Bytes of the stream before `buffer[start]`.
    offset: u64,
    /// Lines returned or skipped.
    count: u64,
    /// The state of the source.
    source_is: Source,
    /// The beginning of the current line was too long and was dropped; its end has not been read yet.
    skipping: bool,
}

enum Source {
    Open,
    Ended,
    Failed(io::Error),
    FailureTold,
}

/// The result of [`Lines::next`].
#[derive(Debug)]
pub(super) enum Step {
    /// A line, as a range for [`Lines::bytes`] that is valid until the next call.
    Line(Range<usize>),
    /// A line longer than [`LINE_BYTES_MAX`], which was dropped.
    TooLong,
    /// The source failed within this line. Nothing follows.
    Failed(io::Error),
    /// There are no more lines.
    End,
}

impl Lines {
    /// Returns the lines of a source that starts after the first `offset` bytes and `count` lines of its
    /// stream.
    pub(super) fn new(source: Box<dyn Read + Send>, offset: u64, count: u64) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            offset,
            count,
            source_is: Source::Open,
            skipping: false,
        }
    }

    /// Returns the number of the last line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.count
    }

    /// Returns the number of bytes of the stream before the next line.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the bytes of a [`Step::Line`].
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// Reads the next line. Its line end (`\n` or `\r\n`) and a byte order mark are removed. The last line
    /// needs no line end.
    pub(super) fn next(&mut self) -> Step {
        let mut seen = 0;
        loop {
            let pending = &self.buffer[self.start..self.end];
            if let Some(at) = memchr::memchr(b'\n', &pending[seen..]) {
                return self.take(seen + at, 1);
            }
            seen = pending.len();
            if seen > LINE_BYTES_MAX {
                self.skipping = true;
                self.offset += seen as u64;
                self.start = self.end;
                seen = 0;
            }
            if !matches!(self.source_is, Source::Open) {
                return self.last();
            }
            self.fill();
        }
    }

    /// Returns the next `len` bytes as a line, and consumes the line end after them.
    fn take(&mut self, len: usize, line_end: usize) -> Step {
        let from = self.start;
        self.start += len + line_end;
        self.offset += (len + line_end) as u64;
        self.count += 1;
        if std::mem::take(&mut self.skipping) || len > LINE_BYTES_MAX {
            return Step::TooLong;
        }
        let line = &self.buffer[from..from + len];
        let (mark, end) = (mark_bytes(line), line.strip_suffix(b"\r").unwrap_or(line).len());
        Step::Line(from + mark..from + end)
    }

    /// Returns the rest after the source has ended.
    fn last(&mut self) -> Step {
        match std::mem::replace(&mut self.source_is, Source::Ended) {
            Source::Failed(error) => {
                self.source_is = Source::FailureTold;
                // The cut-off line counts as the one that failed.
                self.count += 1;
                return Step::Failed(error);
            }
            Source::FailureTold => {
                self.source_is = Source::FailureTold;
                return Step::End;
            }
            Source::Open | Source::Ended => {}
        }
        let left = self.end - self.start;
        if left == 0 && !self.skipping { Step::End } else { self.take(left, 0) }
    }

    /// Reads from the source once, after making room.
    fn fill(&mut self) {
        // The rest is at most the beginning of a line. Moving it to the front is cheap and keeps the working
        // set in the cache even if the buffer grew for a long line.
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            let larger = (self.buffer.len() * 2).min(LINE_BYTES_MAX + BUFFER_BYTES);
            self.buffer.resize(larger, 0);
        }
        let room = self.buffer.len().min(self.end + BUFFER_BYTES);
        match self.source.read(&mut self.buffer[self.end..room]) {
            Ok(0) => self.source_is = Source::Ended,
            Ok(n) => self.end += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.source_is = Source::Failed(error),
        }
    }

    /// Returns the first lines without consuming them: up to `lines_max`, and fewer once they exceed
    /// `bytes_max`, but at least one. The second value is the available beginning of the line after them.
    /// Call it before [`next`](Self::next).
    pub(super) fn preview(&mut self, lines_max: usize, bytes_max: usize) -> (&[u8], &[u8]) {
        let (mut count, mut whole, mut seen) = (0, 0, 0);
        loop {
            for at in memchr::memchr_iter(b'\n', &self.buffer[seen..self.end]) {
                count += 1;
                whole = seen + at + 1;
                if count == lines_max {
                    break;
                }
            }
            seen = self.end;
            let enough =
                if whole > 0 { count == lines_max || seen >= bytes_max } else { seen > LINE_BYTES_MAX };
            if enough || !matches!(self.source_is, Source::Open) {
                break;
            }
            self.fill();
        }
        if matches!(self.source_is, Source::Ended) && count < lines_max && seen <= LINE_BYTES_MAX {
            whole = seen;
        }
        self.buffer[..self.end].split_at(whole)
    }

    /// Returns true if a [`preview`](Self::preview) reached the end of the source without an error.
    pub(super) fn is_previewed_whole(&self) -> bool {
        matches!(self.source_is, Source::Ended)
    }

    /// Returns the error that the source ended with, if it was not returned before.
    pub(super) fn into_failure(self) -> Option<io::Error> {
        match self.source_is {
            Source::Failed(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns its bytes a few at a time, then ends or fails.
    struct Drip {
        bytes: Vec<u8>,
        at: usize,
        step: usize,
        fails: bool,
    }

    impl Read for Drip {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.step.min(self.bytes.len() - self.at).min(out.len());
            if n == 0 && self.fails {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
            self.at += n;
            Ok(n)
        }
    }

    fn lines(bytes: &[u8], step: usize, fails: bool) -> Lines {
        Lines::new(Box::new(Drip { bytes: bytes.to_vec(), at: 0, step, fails }), 0, 0)
    }

    fn all(mut lines: Lines) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            let text = match lines.next() {
                Step::Line(range) => String::from_utf8_lossy(lines.bytes(range)).into_owned(),
                Step::TooLong => "too long".into(),
                Step::Failed(error) => format!("{error}"),
                Step::End => return found,
            };
            found.push(format!("{} {text}", lines.number()));
        }
    }

    #[test]
    fn lines_come_whole_however_they_are_read() {
        for step in [1, 3, 1000] {
            assert_eq!(all(lines(b"a\r\n\nbc\nd", step, false)), ["1 a", "2 ", "3 bc", "4 d"]);
            assert_eq!(all(lines(b"a\n", step, false)), ["1 a"]);
            assert_eq!(all(lines(b"", step, false)), [""; 0]);
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        for step in [1, 2, 1000] {
            let mut marked =
                lines(b"\xef\xbb\xbfa\r\nb\n\xef\xbb\xbfc\n\xef\xbb\xbf\r\n\xef\xbbd", step, false);
            let mut found = Vec::new();
            while let Step::Line(range) = marked.next() {
                found.push((marked.bytes(range).to_vec(), marked.offset()));
            }
            let expected = [(&b"a"[..], 6), (b"b", 8), (b"c", 13), (b"", 18), (b"\xef\xbbd", 21)];
            assert_eq!(found, expected.map(|(text, offset)| (text.to_vec(), offset)));
        }
        let texts: Vec<_> = split(b"\xef\xbb\xbfa\r\n\xef\xbb\xbf\n").collect();
        assert_eq!(texts, [&b"a"[..], b""]);
    }

    #[test]
    fn a_failure_takes_the_cut_line_and_ends() {
        let found = all(lines(b"a\nb", 2, true));
        assert_eq!(found[0], "1 a");
        assert!(found[1].starts_with("2 unexpected end"), "{found:?}");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_long_line_is_skipped_without_being_held() {
        let mut bytes = b"a\n".to_vec();
        bytes.resize(bytes.len() + 3 * LINE_BYTES_MAX, b'x');
        bytes.extend_from_slice(b"\nb\n");
        bytes.resize(bytes.len() + LINE_BYTES_MAX, b'y');
        bytes.push(b'\n');
        bytes.resize(bytes.len() + LINE_BYTES_MAX + 1, b'z');
        let mut lines = lines(&bytes, 1 << 20, false);
        assert!(matches!(lines.next(), Step::Line(_)));
        assert!(matches!(lines.next(), Step::TooLong));
        let Step::Line(range) = lines.next() else { panic!("b is read") };
        assert_eq!((lines.bytes(range), lines.number()), (&b"b"[..], 3));
        assert!(matches!(lines.next(), Step::Line(range) if range.len() == LINE_BYTES_MAX));
        assert!(matches!(lines.next(), Step::TooLong));
        assert!(matches!(lines.next(), Step::End));
        assert!(lines.buffer.len() <= LINE_BYTES_MAX + BUFFER_BYTES);
    }

    #[test]
    fn a_preview_takes_nothing() {
        let mut lines = lines(b"a\nbb\nccc\nd", 2, false);
        assert_eq!(lines.preview(2, 1000).0, b"a\nbb\n");
        assert_eq!(lines.preview(100, 1000), (&b"a\nbb\nccc\nd"[..], &b""[..]));
        assert_eq!(all(lines), ["1 a", "2 bb", "3 ccc", "4 d"]);
        let mut cut = self::lines(b"a\nbb\nccc\nd", 4, true);
        assert_eq!(cut.preview(100, 1000), (&b"a\nbb\nccc\n"[..], &b"d"[..]));
        let mut short = self::lines(b"aaaa\nbb\nccc\nd", 2, false);
        assert_eq!(short.preview(100, 1).0, b"aaaa\n");
    }
}
