//! Answers of many rows: they are written row by row, and cut where they are full.

use serde::Serialize;
use serde_json::Value;

use super::Id;
use crate::model::tick::Channel;
use crate::text::json;

/// The rows of an answer take at most so many bytes. With what is around them it stays below 1 MiB, the longest message that
/// common clients take unless they are told otherwise.
pub const ROWS_BYTES_MAX: usize = 1_000_000;

/// A symbol in the `ack` of an `unsubscribe`.
#[derive(Clone, Debug, Serialize)]
pub struct EndedRow {
    /// Its name, or the wildcard.
    pub symbol: String,
}

/// One refused symbol in an `ack`.
#[derive(Clone, Debug, Serialize)]
pub struct RejectedRow<'a> {
    /// As the client wrote it.
    pub symbol: &'a str,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub msg: &'a str,
}

/// Appends an `ack` of `op` whose rows, under `field`, were written before: as they stand between brackets, and whether there
/// are more.
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
        // Text or a number always becomes text.
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

/// What an `ack` of `subscribe`, `unsubscribe` or `set` says, written row by row: it can be long. Of more rows than there is
/// room for, those that were rejected have to be told, since nothing else tells of them: they are taken in first.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Each row behind a comma, but for the first.
    ok: Vec<u8>,
    rejected: Vec<u8>,
    /// A row found no room: those behind it are left out as well.
    more: bool,
}

impl Outcome {
    /// A symbol was refused.
    pub fn reject(&mut self, row: &RejectedRow<'_>) {
        let room = ROWS_BYTES_MAX.saturating_sub(self.bytes());
        self.more |= !push_row(&mut self.rejected, row, if self.more { 0 } else { room });
    }

    /// A request was carried out for a symbol.
    pub fn accept<R: Serialize>(&mut self, row: &R) {
        let room = ROWS_BYTES_MAX.saturating_sub(self.bytes());
        self.more |= !push_row(&mut self.ok, row, if self.more { 0 } else { room });
    }

    /// How long the rows are.
    pub fn bytes(&self) -> usize {
        self.ok.len() + self.rejected.len()
    }

    /// Appends the `ack` of `op`: one channel as a word, several as a list, as a client may write them. Where the client
    /// named no symbols, `all` marks it: of a wildcard the answer looks alike, and means less.
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

/// Appends a row where it takes no more than `room` bytes with its comma; whether it does.
pub fn push_row<R: Serialize>(rows: &mut Vec<u8>, row: &R, room: usize) -> bool {
    let before = rows.len();
    if before > 0 {
        rows.push(b',');
    }
    // A row made of maps with text keys always becomes text.
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
        // A row of 100 bytes, quotes and comma counted.
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
