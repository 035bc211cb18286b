//! Makes external text safe for terminals and logs.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::Path;

/// The replacement for each character that [`is_hidden`].
const STAND_IN: &str = "?";

/// Returns true if a character is invisible, or changes how others look: a control character (including line
/// breaks), one of Unicode's format characters (category Cf: direction marks and zero-width characters), one
/// that is drawn as nothing (`Default_Ignorable_Code_Point` of Unicode 17, and the blank Braille pattern), a
/// line or paragraph separator, or a noncharacter.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fdd0}'..='\u{fdef}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Returns the text on one line, with `?` for each character that [`is_hidden`].
pub fn line(text: &str) -> Cow<'_, str> {
    if text.contains(is_hidden) { text.replace(is_hidden, STAND_IN).into() } else { text.into() }
}

/// As [`line()`], for text with several lines: line breaks are kept.
pub fn lines(text: &str) -> String {
    text.replace(|c| c != '\n' && is_hidden(c), STAND_IN)
}

/// Returns a path for display on one line: each character that [`is_hidden`] is escaped, such as `\n` or
/// `\u{202e}`. So a file name can neither start a line of its own in a log or on a terminal, nor change how
/// the text around it looks. Bytes that are not UTF-8 become U+FFFD.
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
        assert_eq!(line("\u{34f}\u{3164}\u{fe0f}\u{2800}\u{e0100}\u{fffe}\u{10ffff}"), "?".repeat(7));
        assert!(matches!(line("plain – ×"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_path_is_one_line_that_still_tells_its_name() {
        let name = "/a b/é\ntickfan: ready\x1b[2J\u{202e}tset.zst";
        assert_eq!(path(name).to_string(), r"/a b/é\ntickfan: ready\u{1b}[2J\u{202e}tset.zst");
        assert_eq!(path(Path::new("/plain/–.zst")).to_string(), "/plain/–.zst");
    }
}
