//! Text of others as a terminal may have it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::Path;

/// What stands for each character that [`is_hidden`].
const STAND_IN: &str = "?";

/// Whether a character is not seen, or changes how others look: a control character (a line break too), one that turns the
/// direction of what follows, one without a width, or a line or paragraph separator.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text on one line, `?` for each character that [`is_hidden`].
pub fn line(text: &str) -> Cow<'_, str> {
    if text.contains(is_hidden) { text.replace(is_hidden, STAND_IN).into() } else { text.into() }
}

/// The same of text that has lines of its own: line breaks stay.
pub fn lines(text: &str) -> String {
    text.replace(|c| c != '\n' && is_hidden(c), STAND_IN)
}

/// A path on one line: each character that [`is_hidden`] as an escape, such as `\n` or `\u{202e}`. So the name of a
/// file can neither begin a line of its own, in a log or on a terminal, nor change how what stands around it looks.
/// Bytes that are no UTF-8 are U+FFFD.
pub fn path<P: AsRef<Path> + ?Sized>(path: &P) -> Shown<'_> {
    Shown(path.as_ref())
}

/// See [`path`].
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(&'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string_lossy().chars() {
            if is_hidden(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_replaced() {
        let hidden = "a\x1b[2J\u{7}\n\r\u{9b}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}é µ ▁ 価";
        assert_eq!(line(hidden), "a?[2J?????????é µ ▁ 価");
        assert_eq!(lines("a\x1b\nb\u{202e}"), "a?\nb?");
        assert!(matches!(line("plain – ×"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_path_is_one_line_that_still_tells_its_name() {
        let name = "/a b/é\ntickfan: ready\x1b[2J\u{202e}tset.zst";
        assert_eq!(path(name).to_string(), r"/a b/é\ntickfan: ready\u{1b}[2J\u{202e}tset.zst");
        assert_eq!(path(Path::new("/plain/–.zst")).to_string(), "/plain/–.zst");
    }
}
