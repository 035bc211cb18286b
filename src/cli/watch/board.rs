//! The live table: the newest values of all symbols, laid out for a terminal of a given size. Pure.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use super::ledger::is_wildcard;
use super::message::{Message, Text, Update};
use crate::model::tick::Channel;
use crate::text::printable;

const COLUMNS: usize = 10;
/// Columns in order of importance: a terminal shows as many as fit.
const HEADS: [&str; COLUMNS] =
    ["symbol", "state", "bid", "ask", "last", "age", "bid size", "ask size", "size", "side"];
const SYMBOL: usize = 0;
const STATE: usize = 1;
const BID: usize = 2;
const ASK: usize = 3;
const LAST: usize = 4;
const AGE: usize = 5;
const BID_SIZE: usize = 6;
const ASK_SIZE: usize = 7;
const SIZE: usize = 8;
const SIDE: usize = 9;
/// Columns for which symbols are shortened before one of them is omitted: those up to the last price.
const WANTED: usize = LAST + 1;
/// Shortest form of a shortened symbol, characters.
const SYMBOL_CHARS_MIN: usize = 16;
/// Spaces between two columns.
const SPACING: usize = 2;
/// State shown for a symbol whose prices are of the past.
const PAST: &str = "past";

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardLine {
    /// The text, at most as wide as requested and without control characters.
    pub text: String,
    /// True if the prices are not current: the feed is stale, down or has ended, or the prices are of the
    /// past. Prices of a replay are not grey; the state shows that they are not live.
    pub grey: bool,
}

/// The values of one symbol, formatted.
#[derive(Debug, Default)]
struct Row {
    cells: [String; COLUMNS],
    /// The state as received; empty before the first.
    state: String,
    /// Whether the prices are of the past, regardless of the state.
    past: bool,
    newest_rx_us: Option<u64>,
}

impl Row {
    fn set<'t, 'a: 't>(&mut self, values: impl IntoIterator<Item = (usize, &'t Option<Text<'a>>)>) {
        for (at, value) in values {
            let cell = &mut self.cells[at];
            cell.clear();
            cell.push_str(value.as_deref().unwrap_or_default());
        }
    }

    fn show_state(&mut self) {
        let shown = if self.past { PAST } else { &self.state };
        self.cells[STATE].clear();
        self.cells[STATE].push_str(shown);
    }

    fn is_grey(&self) -> bool {
        self.past || matches!(self.state.as_str(), "stale" | "down" | "ended")
    }
}

/// The rows of the table, by symbol.
#[derive(Debug, Default)]
pub struct Board {
    index: FxHashMap<Box<str>, usize>,
    rows: Vec<Row>,
    /// Row numbers, sorted by symbol if `sorted`.
    order: Vec<usize>,
    sorted: bool,
}

impl Board {
    /// Processes the next message.
    pub fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::Update(channel, update) => self.update(*channel, update),
            Message::Status(status) => self.state(&status.symbol, &status.state),
            // The states that are not live were sent before.
            Message::Joined(_) => {
                for row in self.rows.iter_mut().filter(|row| row.past) {
                    row.past = false;
                    if row.state.is_empty() {
                        row.state.push_str("live");
                    }
                    row.show_state();
                }
            }
            Message::Ack(ack) => {
                for accepted in ack.ok.iter().flatten().filter(|ok| !is_wildcard(&ok.symbol)) {
                    match accepted.state.as_deref() {
                        Some(state) => self.state(&accepted.symbol, state),
                        None => drop(self.row(&accepted.symbol)),
                    }
                }
            }
            _ => {}
        }
    }

    /// Lays out at most `height` lines of at most `width` characters, at the wall time `now_us`, microseconds
    /// since the Unix epoch.
    pub fn lines(&mut self, head: &str, width: usize, height: usize, now_us: u64) -> Vec<BoardLine> {
        self.sort();
        let room = height.saturating_sub(2);
        let hidden = if self.rows.len() > room { self.rows.len() - room.saturating_sub(1) } else { 0 };
        let visible = &self.order[..self.rows.len() - hidden];
        for &at in visible {
            let row = &mut self.rows[at];
            row.cells[AGE] = row.newest_rx_us.map(|rx_us| age(now_us, rx_us)).unwrap_or_default();
        }
        let rows = || visible.iter().map(|&at| &self.rows[at]);
        let mut widths = HEADS.map(str::len);
        for row in rows() {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let widths = fitted(&mut widths, width);
        let mut lines = vec![(head.to_owned(), false), (laid_out(&HEADS, widths), false)];
        lines.extend(
            rows().map(|row| (laid_out(&row.cells.each_ref().map(String::as_str), widths), row.is_grey())),
        );
        if hidden > 0 {
            lines.push((format!("… and {hidden} more symbols"), false));
        }
        lines.truncate(height);
        lines.into_iter().map(|(text, grey)| BoardLine { text: shown(&text, width), grey }).collect()
    }

    fn update(&mut self, channel: Channel, update: &Update<'_>) {
        let row = self.row(&update.symbol);
        match channel {
            Channel::Quote => row.set([
                (BID, &update.bid),
                (BID_SIZE, &update.bid_size),
                (ASK, &update.ask),
                (ASK_SIZE, &update.ask_size),
            ]),
            Channel::Trade => row.set([(LAST, &update.price), (SIZE, &update.size), (SIDE, &update.side)]),
        }
        row.newest_rx_us = row.newest_rx_us.max(update.rx_us);
        if update.past && !row.past {
            row.past = true;
            row.show_state();
        }
    }

    fn state(&mut self, symbol: &str, state: &str) {
        let row = self.row(symbol);
        row.state.clear();
        row.state.push_str(state);
        row.show_state();
    }

    fn row(&mut self, symbol: &str) -> &mut Row {
        let at = self.index.get(symbol).copied().unwrap_or_else(|| {
            let at = self.rows.len();
            let mut row = Row::default();
            row.cells[SYMBOL].push_str(symbol);
            self.rows.push(row);
            self.order.push(at);
            self.sorted = false;
            self.index.insert(symbol.into(), at);
            at
        });
        &mut self.rows[at]
    }

    fn sort(&mut self) {
        if !self.sorted {
            let rows = &self.rows;
            self.order.sort_unstable_by(|a, b| rows[*a].cells[SYMBOL].cmp(&rows[*b].cells[SYMBOL]));
            self.sorted = true;
        }
    }
}

/// The widths of the columns that fit in `width`. Prices are never truncated: a column that does not fit is
/// omitted, with all columns after it. Symbols are shortened if one of the first columns would be lost
/// otherwise.
fn fitted(widths: &mut [usize; COLUMNS], width: usize) -> &[usize] {
    let taken = |widths: &[usize]| widths.iter().sum::<usize>() + SPACING * widths.len().saturating_sub(1);
    let over = taken(&widths[..WANTED]).saturating_sub(width);
    widths[SYMBOL] = widths[SYMBOL].saturating_sub(over).max(widths[SYMBOL].min(SYMBOL_CHARS_MIN));
    let fit = (1..=COLUMNS).rev().find(|count| taken(&widths[..*count]) <= width);
    &widths[..fit.unwrap_or(1)]
}

/// Formats one line of cells, as many as there are widths: text left-aligned, numbers right-aligned.
fn laid_out(cells: &[&str; COLUMNS], widths: &[usize]) -> String {
    let mut line = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let cell = match at {
            SYMBOL => format!("{:<width$}", shortened(cell, *width)),
            STATE | SIDE => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        };
        line.push_str(&cell);
        line.push_str(&" ".repeat(SPACING));
    }
    line.truncate(line.trim_end().len());
    line
}

/// A symbol shortened to `width` characters. The start is kept because it names the venue, and the end
/// because it distinguishes symbols of one venue.
fn shortened(symbol: &str, width: usize) -> Cow<'_, str> {
    let count = symbol.chars().count();
    if count <= width {
        return Cow::Borrowed(symbol);
    }
    let kept = width.saturating_sub(1);
    let head: String = symbol.chars().take(kept / 3).collect();
    let tail: String = symbol.chars().skip(count - (kept - kept / 3)).collect();
    Cow::Owned(format!("{head}…{tail}"))
}

/// Text for a terminal: without control characters, and at most `width` characters long.
fn shown(text: &str, width: usize) -> String {
    printable::line(text).chars().take(width).collect()
}

/// Age of a value. It is negative if the clock of the gateway is ahead of the local one.
fn age(now_us: u64, rx_us: u64) -> String {
    match now_us.checked_sub(rx_us) {
        None => format!("-{}", age(rx_us, now_us)),
        Some(us) => match us / 1_000_000 {
            0..60 => format!("{:.1}s", us as f64 / 1e6),
            s @ 60..3_600 => format!("{}m", s / 60),
            s @ 3_600..86_400 => format!("{}h", s / 3_600),
            s => format!("{}d", s / 86_400),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(texts: &[&str]) -> Board {
        let mut board = Board::default();
        texts.iter().for_each(|text| board.hear(&Message::parse(text).expect(text)));
        board
    }

    fn quote(symbol: &str, bid: &str) -> String {
        format!(
            r#"{{"type":"quote","symbol":"{symbol}","seq":1,"bid":"{bid}","ask_size":"0.50","rx":4000000}}"#
        )
    }

    #[test]
    fn numbers_stand_right_and_untrusted_rows_are_grey() {
        let mut board = board(&[
            r#"{"type":"ack","op":"subscribe","channel":"quote","ok":[{"symbol":"*"},{"symbol":"k:B","state":"live"}]}"#,
            &quote("k:B", "7.50"),
            &quote("c:A", "64010.10"),
            r#"{"type":"trade","symbol":"c:A","seq":1,"price":"64010.20","size":"1","side":"buy","rx":5900000}"#,
            r#"{"type":"status","symbol":"c:A","state":"stale"}"#,
        ]);
        let lines = board.lines("head", 200, 24, 6_000_000);
        let text: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            text,
            [
                "head",
                "symbol  state       bid  ask      last   age  bid size  ask size  size  side",
                "c:A     stale  64010.10       64010.20  0.1s                0.50     1  buy",
                "k:B     live       7.50                 2.0s                0.50",
            ]
        );
        assert_eq!(lines.iter().map(|line| line.grey).collect::<Vec<_>>(), [false, false, true, false]);
    }

    #[test]
    fn what_is_replayed_says_so() {
        let last = |board: &mut Board| {
            let line = board.lines("", 200, 24, 6_000_000).remove(2);
            (line.text.split_whitespace().nth(1).expect("a state").to_owned(), line.grey)
        };
        let status = |state: &str| format!(r#"{{"type":"status","symbol":"c:A","state":"{state}"}}"#);
        for (state, grey) in [("replay", false), ("paused", false), ("ended", true)] {
            let mut board = board(&[&status(state), &quote("c:A", "1.10")]);
            assert_eq!(last(&mut board), (state.to_owned(), grey));
        }
        // The past of a replay, whose present is a replay as well.
        let past = quote("c:A", "1.10").replace(r#""seq""#, r#""past":true,"seq""#);
        let mut board = board(&[&status("replay"), &past]);
        assert_eq!(last(&mut board), ("past".to_owned(), true));
        board.hear(&Message::parse(r#"{"type":"joined","time":1}"#).expect("reads"));
        assert_eq!(last(&mut board), ("replay".to_owned(), false));
    }

    #[test]
    fn a_quote_without_a_side_empties_its_cell() {
        let mut board = board(&[&quote("k:B", "7.50"), r#"{"type":"quote","symbol":"k:B","seq":2}"#]);
        assert_eq!(board.lines("", 200, 24, 0)[2].text.split_whitespace().nth(1), Some("-4.0s"));
        assert!(!board.lines("", 200, 24, 0)[2].text.contains("7.50"));
    }

    #[test]
    fn the_table_fits_its_terminal() {
        let texts: Vec<String> = (0..50).map(|at| quote(&format!("c:S{at:02}\\u001b"), "1")).collect();
        let mut board = board(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        for height in 0..60 {
            let lines = board.lines("head", 30, height, 0);
            assert_eq!(lines.len(), height.min(52));
            assert!(lines.iter().all(|line| line.text.chars().count() <= 30));
            assert!(lines.iter().all(|line| !line.text.contains('\x1b')));
        }
        assert_eq!(board.lines("", 30, 10, 0)[9].text, "… and 43 more symbols");
    }

    #[test]
    fn eighty_columns_show_symbol_state_bid_ask_and_last() {
        let symbol = "binance-futures:1000SHIBUSDT-240628";
        let texts = [
            format!(
                r#"{{"type":"quote","symbol":"{symbol}","seq":1,"bid":"64010.10000","bid_size":"1.0","ask":"64010.20000","ask_size":"2.0","rx":1}}"#
            ),
            format!(
                r#"{{"type":"trade","symbol":"{symbol}","seq":1,"price":"64010.15000","size":"3","side":"sell","rx":1}}"#
            ),
            format!(r#"{{"type":"status","symbol":"{symbol}","state":"waiting"}}"#),
        ];
        let mut board = board(&texts.each_ref().map(String::as_str));
        let mut at = |width: usize| {
            let line = board.lines("", width, 24, 1).remove(2).text;
            assert!(line.chars().count() <= width, "{width}: {line}");
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let prices = ["waiting", "64010.10000", "64010.20000", "64010.15000"];
        assert_eq!(at(80)[1..], prices);
        assert!(at(80)[0].ends_with("SHIBUSDT-240628") && at(80)[0].starts_with("binance"), "{:?}", at(80));
        assert_eq!((at(200)[0].as_str(), at(200).len()), (symbol, COLUMNS));
        // Columns that do not fit are omitted, beginning with the last.
        assert_eq!(at(64)[1..], prices);
        assert_eq!(at(63)[1..], prices[..3]);
        assert_eq!(at(40)[1..], prices[..2]);
        assert_eq!(at(37), ["binan…SDT-240628", "waiting"]);
        assert_eq!(at(10).len(), 1);
    }

    #[test]
    fn ages_have_their_unit() {
        let of = |s: u64| age(s * 1_000_000 + 40_000, 0);
        assert_eq!([of(0), of(59), of(61), of(7_199), of(90_000)], ["0.0s", "59.0s", "1m", "1h", "1d"]);
    }
}
