//! The report as text for a terminal. Pure.

use std::fmt::{self, Write as _};

use super::account::{self, Notes};
use super::figures::{Grouped, Ratio};
use super::run::{Point, Series};
use super::verdict::conclude;
use super::{Report, Side, utc};
use crate::latency::{Figures, Nanos};
use crate::text::printable;

/// The columns of numbers, each with its rank: the lowest is omitted first if there is no room.
const COLUMNS: [(&str, u8); 7] =
    [("p50", 5), ("p90", 1), ("p99", 7), ("p99.9", 4), ("p99.99", 2), ("max", 6), ("count", 3)];
/// Width of a column, such as ` 48.2 µs`.
const COLUMN_WIDTH: usize = 9;
/// Width of the column of counts, which are longer.
const COUNT_WIDTH: usize = 13;
/// Name of the row of the base run, below that of this run.
const COMPARED: &str = "  compared";
/// Longest name that is shown in full.
const NAME_WIDTH_MAX: usize = 30;

/// The report, in lines of at most `width` characters if possible.
pub(super) fn text(report: &Report, width: usize, tags: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut out, report, width, tags);
    out
}

fn write_report(out: &mut String, report: &Report, width: usize, tags: bool) -> fmt::Result {
    wrapped(out, "", &conclude(report).text, width)?;
    writeln!(out)?;
    heading(out, &report.this, "", width)?;
    if let Some(base) = &report.base {
        heading(out, base, "compared with ", width)?;
    }
    let rows = rows(report, tags);
    let names = rows.iter().map(|row| row.label().chars().count());
    let name_width =
        names.max().unwrap_or(0).clamp(COMPARED.len(), NAME_WIDTH_MAX.min(width / 3).max(COMPARED.len()));
    writeln!(out)?;
    let columns = columns(width.saturating_sub(name_width));
    write_table(out, report, &rows, name_width, &columns)?;
    writeln!(out)?;
    write_times(out, report, &rows, name_width, width)?;
    let remarks = report.notes();
    if !remarks.is_empty() || !report.verdicts.is_empty() {
        writeln!(out)?;
    }
    for note in remarks {
        writeln!(out, "note: {}", printable::line(&note))?;
    }
    for verdict in &report.verdicts {
        let (mark, verdict) = (if verdict.held { "kept " } else { "BROKE" }, verdict.to_string());
        writeln!(out, "{mark}  {}", printable::line(&verdict))?;
    }
    Ok(())
}

/// Writes text in lines of at most `width` characters, unless a word is longer. The first line begins with
/// `name`, the others are indented.
fn wrapped(out: &mut String, name: &str, words: &str, width: usize) -> fmt::Result {
    let indent = if name.is_empty() { 0 } else { ROW_NAME_WIDTH };
    write!(out, "{name:<indent$}")?;
    let mut at = indent;
    for word in printable::line(words).split(' ') {
        let len = word.chars().count();
        if at > indent && at + 1 + len > width {
            write!(out, "\n{:indent$}", "")?;
            at = indent;
        } else if at > indent {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        at += len;
    }
    writeln!(out)
}

/// Width of the names of text rows.
const ROW_NAME_WIDTH: usize = 10;
/// Most flights that are named, the newest.
const FLIGHTS_SHOWN: usize = 20;

/// Writes the notes of the logs.
fn notes(out: &mut String, notes: &Notes, width: usize) -> fmt::Result {
    for (name, words) in notes.rows() {
        wrapped(out, &format!("  {name}"), &words, width)?;
    }
    let Some(whole) = notes.whole() else { return Ok(()) };
    let older = notes.flights().len().saturating_sub(FLIGHTS_SHOWN);
    let left_out = whole.flights_left_out.saturating_add(older as u64);
    if left_out > 0 {
        wrapped(out, "  flight", &format!("{} more, which are not shown", Grouped(left_out)), width)?;
    }
    for (flight, path) in &notes.flights()[older..] {
        wrapped(out, "  flight", &format!("{}: {path}", account::flight(flight)), width)?;
    }
    Ok(())
}

fn heading(out: &mut String, side: &Side, before: &str, width: usize) -> fmt::Result {
    let Some((begin_ns, end_ns)) = side.run.span_ns() else { return Ok(()) };
    let files = match side.files.as_slice() {
        [file] => file.clone(),
        files => format!("{} and {} files more", files[0], files.len() - 1),
    };
    let lasted = Nanos(end_ns.saturating_sub(begin_ns));
    writeln!(out, "{before}{}: {lasted} from {}", printable::line(&files), utc(begin_ns))?;
    notes(out, side.run.notes(), width)
}

/// The stages, each followed by its tags if requested.
fn rows(report: &Report, tags: bool) -> Vec<&Series> {
    let mut rows = Vec::new();
    for stage in &report.this.stages {
        rows.push(stage);
        if tags {
            rows.extend(report.this.run.tags_of(&stage.name));
        }
    }
    rows
}

/// The columns that fit.
fn columns(width: usize) -> Vec<&'static str> {
    let width_of = |name: &str| if name == "count" { COUNT_WIDTH } else { COLUMN_WIDTH };
    let mut columns = COLUMNS.to_vec();
    while columns.len() > 1 && columns.iter().map(|(name, _)| width_of(name)).sum::<usize>() > width {
        if let Some(least) = columns.iter().map(|(_, rank)| *rank).min() {
            columns.retain(|(_, rank)| *rank != least);
        }
    }
    columns.into_iter().map(|(name, _)| name).collect()
}

fn write_table(
    out: &mut String,
    report: &Report,
    rows: &[&Series],
    name_width: usize,
    columns: &[&str],
) -> fmt::Result {
    write_line(out, "stage", name_width, columns, str::to_owned)?;
    for row in rows {
        let this = row.figures();
        let base = report.base_of(&row.name).map(Series::figures);
        let shown = |figures: &Figures, name: &str| match value(figures, name) {
            (count, true) => Grouped(count).to_string(),
            _ if figures.count == 0 => "–".to_owned(),
            (ns, false) => Nanos(ns).to_string(),
        };
        write_line(out, row.label(), name_width, columns, |name| shown(&this, name))?;
        if let Some(base) = base {
            write_line(out, COMPARED, name_width, columns, |name| shown(&base, name))?;
            write_line(out, "  ratio", name_width, columns, |name| {
                Ratio(value(&this, name).0, value(&base, name).0).to_string()
            })?;
        }
    }
    Ok(())
}

/// The value of a column, and whether it is a count.
fn value(figures: &Figures, column: &str) -> (u64, bool) {
    match figures.times().find(|(name, _)| *name == column) {
        Some((_, ns)) => (ns, false),
        None => (figures.count, true),
    }
}

fn write_line(
    out: &mut String,
    name: &str,
    name_width: usize,
    columns: &[&str],
    cell: impl Fn(&str) -> String,
) -> fmt::Result {
    write!(out, "{:<name_width$}", shortened(name, name_width))?;
    for column in columns {
        let width = if *column == "count" { COUNT_WIDTH } else { COLUMN_WIDTH };
        write!(out, "{:>width$}", cell(column))?;
    }
    writeln!(out)
}

fn shortened(name: &str, width: usize) -> String {
    let name = printable::line(name);
    if name.chars().count() <= width {
        return name.into_owned();
    }
    name.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Width of the text behind a sparkline: `  1.20 µs to 48.2 µs`.
const RANGE_WIDTH: usize = 22;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

fn write_times(
    out: &mut String,
    report: &Report,
    rows: &[&Series],
    name_width: usize,
    width: usize,
) -> fmt::Result {
    let Some(span_ns) = report.this.run.span_ns() else { return Ok(()) };
    let room = width.saturating_sub(name_width + 1 + RANGE_WIDTH).clamp(8, 240);
    // A column is at least as long as an interval, because shorter ones would leave holes.
    let shortest = rows.iter().flat_map(|row| &row.points).map(|point| point.end_ns - point.start_ns).min();
    let lasted_ns = (span_ns.1 - span_ns.0).max(1);
    let column_ns = lasted_ns.div_ceil(room as u64).max(shortest.unwrap_or(1)).max(1);
    writeln!(out, "p99 over time, {} a column (its worst interval)", Nanos(column_ns))?;
    for row in rows {
        let columns = binned(&row.points, span_ns, column_ns);
        let values = || columns.iter().flatten().copied();
        let (Some(least), Some(most)) = (values().min(), values().max()) else { continue };
        let bars: String = columns.iter().map(|p99| p99.map_or(' ', |p99| bar(p99, most))).collect();
        let name = shortened(row.label(), name_width);
        writeln!(out, "{name:<name_width$} {bars}  {} to {}", Nanos(least), Nanos(most))?;
    }
    Ok(())
}

/// The worst p99 of each column of time, nanoseconds; `None` without measurements.
fn binned(points: &[Point], (begin_ns, end_ns): (u64, u64), column_ns: u64) -> Vec<Option<u64>> {
    let count = end_ns.saturating_sub(begin_ns).div_ceil(column_ns).max(1) as usize;
    let mut columns = vec![None; count];
    for point in points {
        let at = (point.start_ns.saturating_sub(begin_ns) / column_ns) as usize;
        if let Some(column) = columns.get_mut(at) {
            *column = (*column).max(Some(point.p99_ns));
        }
    }
    columns
}

fn bar(value: u64, most: u64) -> char {
    let eighth = (u128::from(value) * 8).div_ceil(u128::from(most.max(1)));
    BARS[(eighth.clamp(1, 8) - 1) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_matters_least_goes_first() {
        assert_eq!(columns(80), ["p50", "p90", "p99", "p99.9", "p99.99", "max", "count"]);
        assert_eq!(columns(60), ["p50", "p99", "p99.9", "p99.99", "max", "count"]);
        assert_eq!(columns(40), ["p50", "p99", "p99.9", "max"]);
        assert_eq!(columns(3), ["p99"]);
    }

    #[test]
    fn a_column_shows_its_worst_interval() {
        let point = |start_ns, p99_ns| Point {
            start_ns,
            end_ns: start_ns + SECOND,
            count: 1,
            p50_ns: 1,
            p99_ns,
            max_ns: p99_ns,
        };
        let points = [point(10 * SECOND, 5), point(11 * SECOND, 80), point(14 * SECOND, 40)];
        let columns = binned(&points, (10 * SECOND, 15 * SECOND), 2 * SECOND);
        assert_eq!(columns, [Some(80), None, Some(40)]);
        let bars: Vec<char> = [80, 40, 11, 10, 0].map(|value| bar(value, 80)).into();
        assert_eq!(bars, ['█', '▄', '▂', '▁', '▁']);
    }

    #[test]
    fn long_names_are_shortened() {
        assert_eq!((shortened("write", 5), shortened("writes", 5)), ("write".to_owned(), "writ…".to_owned()));
    }
}
