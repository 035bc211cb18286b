//! Text of others as a terminal may have it.

use std::borrow::Cow;

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
}
