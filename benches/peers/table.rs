//! Medians, and a table in Markdown.

use std::fmt::Write as _;

#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) decimals: usize,
    /// Whether it is also shown relative to the limits.
    pub(crate) compared: bool,
}

/// The peers that a column is compared with.
const BASES: [&str; 2] = ["limit", "limit-fifo"];

pub(crate) struct Table {
    title: String,
    columns: &'static [Column],
    /// The rows of each server, in the order of their first rows.
    rows: Vec<(&'static str, Vec<Vec<f64>>)>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn new(title: String, columns: &'static [Column]) -> Self {
        Self { title, columns, rows: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn add(&mut self, peer: &'static str, row: &[f64]) {
        let at = self.rows.iter().position(|(name, _)| *name == peer).unwrap_or_else(|| {
            self.rows.push((peer, Vec::new()));
            self.rows.len() - 1
        });
        self.rows[at].1.push(row.to_vec());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.notes.is_empty()
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    fn median(&self, peer: &str, column: usize) -> Option<f64> {
        let (_, rows) = self.rows.iter().find(|(name, _)| *name == peer)?;
        let mut values: Vec<f64> =
            rows.iter().map(|row| row[column]).filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            len if len % 2 == 1 => Some(values[middle]),
            _ => Some(f64::midpoint(values[middle - 1], values[middle])),
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let bases = BASES.iter().filter(|base| self.rows.iter().any(|(name, _)| name == *base));
        let bases: Vec<&str> = bases.copied().collect();
        let mut text = format!("**{}**\n\n| server |", self.title);
        for column in self.columns {
            let _ = write!(text, " {} |", column.name);
            for base in bases.iter().filter(|_| column.compared) {
                let _ = write!(text, " ÷ {base} |");
            }
        }
        text.push_str("\n| --- |");
        for column in self.columns {
            let cells = 1 + if column.compared { bases.len() } else { 0 };
            text.push_str(&" ---: |".repeat(cells));
        }
        for (peer, _) in &self.rows {
            let _ = write!(text, "\n| {peer} |");
            for (at, column) in self.columns.iter().enumerate() {
                let value = self.median(peer, at);
                text.push_str(&cell(value, column.decimals));
                for base in bases.iter().filter(|_| column.compared) {
                    let base = self.median(base, at).filter(|base| *base > 0.0);
                    text.push_str(&cell(value.zip(base).map(|(value, base)| value / base), 2));
                }
            }
        }
        text.push('\n');
        for note in &self.notes {
            let _ = write!(text, "\n- {note}");
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        text
    }
}

fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| " – |".to_owned(), |value| format!(" {value:.decimals$} |"))
}
