//! The outputs of a watcher: data and the table on one, notices and the summary on the other.

use std::io::{self, BufWriter, IsTerminal, Write};

use super::board::BoardLine;
use crate::text::printable;

/// Content of standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The messages themselves, one per line.
    Json,
    /// A table that is repainted.
    Table,
    /// Periodic lines of counts.
    Counts,
}

/// Size of the output buffer, bytes.
const OUT_BYTES: usize = 64 * 1024;
/// Size of a terminal that does not report it: columns and lines.
const SIZE_UNKNOWN: (usize, usize) = (80, 24);

const CURSOR_HIDE: &str = "\x1b[?25l";
const CURSOR_SHOW: &str = "\x1b[?25h";
const GREY: &str = "\x1b[90m";
const PLAIN: &str = "\x1b[0m";
const CLEAR_TO_LINE_END: &str = "\x1b[K";
const CLEAR_TO_SCREEN_END: &str = "\x1b[J";

/// The two outputs, and the state of the painted table. Dropping it restores the cursor.
pub(super) struct Screen {
    out: BufWriter<Box<dyn Write + Send>>,
    err: Box<dyn Write + Send>,
    look: Look,
    painted_lines: usize,
    cursor_hidden: bool,
}

impl Screen {
    /// The outputs of the process: a table on a terminal, otherwise counts, or JSON if requested.
    pub(super) fn of_process(json: bool) -> Self {
        let out = io::stdout();
        let look = match (json, out.is_terminal()) {
            (true, _) => Look::Json,
            (false, true) => Look::Table,
            (false, false) => Look::Counts,
        };
        Self::new(Box::new(out), Box::new(io::stderr()), look)
    }

    pub(super) fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, look: Look) -> Self {
        let out = BufWriter::with_capacity(OUT_BYTES, out);
        Self { out, err, look, painted_lines: 0, cursor_hidden: false }
    }

    pub(super) fn look(&self) -> Look {
        self.look
    }

    /// Columns and lines for painting; the last line is reserved for the cursor.
    pub(super) fn size(&self) -> (usize, usize) {
        let (width, height) = terminal_size::terminal_size()
            .map_or(SIZE_UNKNOWN, |(width, height)| (usize::from(width.0), usize::from(height.0)));
        (width, height.saturating_sub(1))
    }

    /// Writes one message on one line. Line breaks in it are replaced by spaces: in JSON they only occur
    /// between tokens, where both are equivalent.
    pub(super) fn message(&mut self, text: &str) -> io::Result<()> {
        if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_some() {
            return self.line(&text.replace(['\n', '\r'], " "));
        }
        self.line(text)
    }

    /// Writes one line.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Paints the table over the one before.
    pub(super) fn paint(&mut self, lines: &[BoardLine]) -> io::Result<()> {
        if !self.cursor_hidden {
            self.cursor_hidden = true;
            self.out.write_all(CURSOR_HIDE.as_bytes())?;
        }
        self.rewind()?;
        for line in lines {
            let (colour, plain) = if line.grey { (GREY, PLAIN) } else { ("", "") };
            writeln!(self.out, "{colour}{}{plain}{CLEAR_TO_LINE_END}", line.text)?;
        }
        self.out.write_all(CLEAR_TO_SCREEN_END.as_bytes())?;
        self.painted_lines = lines.len();
        self.out.flush()
    }

    /// Reports something besides the data. A painted table is cleared, and painted again below.
    pub(super) fn notice(&mut self, text: &str) {
        if self.painted_lines > 0 {
            // An error also occurs in the next paint, which ends the watch.
            let _ = self.clear();
        }
        let text = printable::lines(text);
        // There is no other place to report that stderr is closed.
        let _ = writeln!(self.err, "{}", text.trim_end());
    }

    /// Restores the terminal; the painted table stays.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.painted_lines = 0;
        if self.cursor_hidden {
            self.cursor_hidden = false;
            self.out.write_all(CURSOR_SHOW.as_bytes())?;
        }
        self.out.flush()
    }

    fn clear(&mut self) -> io::Result<()> {
        self.rewind()?;
        self.painted_lines = 0;
        self.out.write_all(CLEAR_TO_SCREEN_END.as_bytes())?;
        self.out.flush()
    }

    fn rewind(&mut self) -> io::Result<()> {
        match self.painted_lines {
            0 => Ok(()),
            lines => write!(self.out, "\x1b[{lines}A\r"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // During unwinding, a better error is already being reported.
        let _ = self.finish();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// An output that a test can read.
    #[derive(Clone, Default)]
    pub(crate) struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub(crate) fn screen(look: Look) -> (Screen, Page, Page) {
        let (out, err) = (Page::default(), Page::default());
        (Screen::new(Box::new(out.clone()), Box::new(err.clone()), look), out, err)
    }

    fn line(text: &str, grey: bool) -> BoardLine {
        BoardLine { text: text.to_owned(), grey }
    }

    #[test]
    fn a_table_is_painted_over_itself_and_the_cursor_comes_back() {
        let (mut screen, out, _) = screen(Look::Table);
        screen.paint(&[line("a", false), line("b", true)]).expect("writes");
        screen.paint(&[line("c", false)]).expect("writes");
        drop(screen);
        assert_eq!(
            out.text(),
            "\x1b[?25la\x1b[K\n\x1b[90mb\x1b[0m\x1b[K\n\x1b[J\x1b[2A\rc\x1b[K\n\x1b[J\x1b[?25h"
        );
    }

    #[test]
    fn a_notice_clears_the_table_and_tames_what_it_says() {
        let (mut screen, out, err) = screen(Look::Table);
        screen.paint(&[line("a", false)]).expect("writes");
        screen.notice("bye \x1b[2J");
        screen.paint(&[line("b", false)]).expect("writes");
        assert_eq!(err.text(), "bye ?[2J\n");
        assert_eq!(out.text(), "\x1b[?25la\x1b[K\n\x1b[J\x1b[1A\r\x1b[Jb\x1b[K\n\x1b[J");
    }

    #[test]
    fn a_message_is_one_line() {
        let (mut screen, out, _) = screen(Look::Json);
        screen.message("{\r\n\"a\":\n1}").expect("writes");
        drop(screen);
        assert_eq!(out.text(), "{  \"a\": 1}\n");
    }
}
