//! Answers with many rows. Rows are encoded one by one, and omitted once the answer is full.

use serde::Serialize;
use serde_json::Value;

use super::Id;
use crate::model::tick::Channel;
use crate::text::json;

/// Most bytes of the rows of an answer. The message then stays below 1 MiB, the longest that common clients
/// accept by default.
pub const ROWS_BYTES_MAX: usize = 1_000_000;

/// A symbol in the `ack` of an `unsubscribe`.
#[derive(Clone, Debug, Serialize)]
pub struct EndedRow {
    /// The symbol or the wildcard.
    pub symbol: String,
}

/// A rejected symbol in an `ack`.
#[derive(Clone, Debug, Serialize)]
pub struct RejectedRow<'a> {
    /// The symbol as the client sent it.
    pub symbol: &'a str,
    /// Error code for programs.
    pub code: &'static str,
    /// Error message for people.
    pub msg: &'a str,
}

/// Appends an `ack` of `op` with rows that are already encoded, without their brackets, under `field`; the
/// flag tells whether more rows exist.
pub fn listing(id: Option<&Id>, op: &str, field: &str, (rows, more): (&[u8], bool), out: &mut Vec<u8>) {
    begin_ack(id, op, out);
    for part in [&b",\""[..], field.as_bytes(), b"\":[", rows, b"]"] {
        out.extend_from_slice(part);
    }
    end_ack(more, out);
}

fn begin_ack(id: Option<&Id>, op: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"ack\"");
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        // Encoding a string or a number cannot fail.
        json::write(id.value(), out);
    }
    for part in [&b",\"op\":\""[..], op.as_bytes(), b"\""] {
        out.extend_from_slice(part);
    }
}

fn end_ack(more: bool, out: &mut Vec<u8>) {
    if more {
        out.extend_from_slice(b",\"more\":true");
    }
    out.push(b'}');
}

/// The rows of an `ack` of `subscribe`, `unsubscribe` or `set`. Rejected rows are added first: if not all
/// rows fit, no other message reports the rejections.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Encoded rows, separated by commas.
    ok: Vec<u8>,
    rejected: Vec<u8>,
    /// A row did not fit; all later rows are omitted as well.
    more: bool,
}

impl Outcome {
    /// Adds a row for a rejected symbol.
    pub fn reject(&mut self, row: &RejectedRow<'_>) {
        let room = ROWS_BYTES_MAX.saturating_sub(self.bytes());
        self.more |= !push_row(&mut self.rejected, row, if self.more { 0 } else { room });
    }

    /// Adds a row for an accepted symbol.
    pub fn accept<R: Serialize>(&mut self, row: &R) {
        let room = ROWS_BYTES_MAX.saturating_sub(self.bytes());
        self.more |= !push_row(&mut self.ok, row, if self.more { 0 } else { room });
    }

    /// Size of the encoded rows, bytes.
    pub fn bytes(&self) -> usize {
        self.ok.len() + self.rejected.len()
    }

    /// Appends the `ack` of `op`. One channel is written as a word, several as a list, as in requests. `all`
    /// marks a request without symbols, because the answer to a wildcard has the same form but covers less.
    pub fn write(&self, (id, op): (Option<&Id>, &str), channels: &[Channel], all: bool, out: &mut Vec<u8>) {
        begin_ack(id, op, out);
        out.extend_from_slice(b",\"channel\":");
        let names = channels.iter().map(|channel| channel.name());
        let channel: Value = if let [one] = channels { one.name().into() } else { names.collect() };
        json::write(&channel, out);
        if all {
            out.extend_from_slice(b",\"all\":true");
        }
        for part in [b",\"ok\":[", &self.ok[..], b"],\"rejected\":[", &self.rejected, b"]"] {
            out.extend_from_slice(part);
        }
        end_ack(self.more, out);
    }
}

/// Appends a row if it takes at most `room` bytes, separator included, and returns whether it did.
pub fn push_row<R: Serialize>(rows: &mut Vec<u8>, row: &R, room: usize) -> bool {
    let before = rows.len();
    if before > 0 {
        rows.push(b',');
    }
    // Encoding a row with text keys cannot fail.
    json::write(row, rows);
    let fits = rows.len() - before <= room;
    if !fits {
        rows.truncate(before);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_where_an_answer_is_full() {
        // A row of 100 bytes, quotes and comma included.
        let row = "x".repeat(97);
        let answer = |rejected: usize, symbol: &str, accepted: usize| {
            let mut outcome = Outcome::default();
            for _ in 0..rejected {
                outcome.reject(&RejectedRow { symbol, code: "limit", msg: "" });
            }
            (0..accepted).for_each(|_| outcome.accept(&row));
            let mut text = Vec::new();
            outcome.write((None, "subscribe"), &[Channel::Trade], false, &mut text);
            let text = String::from_utf8(text).expect("UTF-8");
            serde_json::from_str::<Value>(&text).expect("JSON");
            text
        };
        let rejected = |n: usize| {
            let text = answer(1_000, &"\u{1}".repeat(n), 12_000);
            let rows = text.matches(&row).count();
            (text.len(), rows, text.matches("\"limit\"").count(), text.ends_with(",\"more\":true}"))
        };
        let (bytes, accepted, refused, more) = rejected(0);
        assert!(bytes < 1 << 20 && accepted > 9_000 && accepted < 10_000 && more, "{bytes} {accepted}");
        assert_eq!(refused, 1_000, "what was rejected is told first");
        let (bytes, accepted, refused, more) = rejected(300);
        assert!(
            bytes < 1 << 20 && accepted < 10 && refused < 1_000 && refused > 500 && more,
            "{bytes} {refused}"
        );
        assert!(!answer(0, "", 9_900).contains("more"));
    }
}
