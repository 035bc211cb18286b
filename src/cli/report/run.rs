//! A run as read from its logs: the measurements of each tag and stage, in total and over time. Pure.

use std::collections::BTreeMap;
use std::io::BufRead;

use hdrhistogram::Histogram;

use super::account::Notes;
use crate::latency::hlog::note::Note;
use crate::latency::hlog::{COUNT_MAX, HlogEntry, HlogReader, Interval, ReadError};
use crate::latency::{self, Figures, Stage};

/// Summary of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Start, nanoseconds since the Unix epoch.
    pub(super) start_ns: u64,
    /// End, nanoseconds since the Unix epoch.
    pub(super) end_ns: u64,
    /// Number of values; at least one.
    pub(super) count: u64,
    /// The median.
    pub(super) p50_ns: u64,
    /// The 99th percentile.
    pub(super) p99_ns: u64,
    /// The maximum.
    pub(super) max_ns: u64,
}

impl Point {
    fn of(start_ns: u64, end_ns: u64, histogram: &Histogram<u64>) -> Self {
        let [p50_ns, p99_ns] = [0.5, 0.99].map(|quantile| histogram.value_at_quantile(quantile));
        Self { start_ns, end_ns, count: histogram.len(), p50_ns, p99_ns, max_ns: histogram.max() }
    }
}

/// Measurements of one tag or stage.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// The tag, or the name of the stage; "" for measurements without a tag.
    pub(super) name: String,
    /// All values.
    pub(super) whole: Histogram<u64>,
    /// The intervals with values, in order of time.
    pub(super) points: Vec<Point>,
}

impl Series {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), whole: growing(), points: Vec::new() }
    }

    /// Figures of all values.
    pub(super) fn figures(&self) -> Figures {
        Figures::of(&self.whole)
    }

    /// The name for display.
    pub(super) fn label(&self) -> &str {
        if self.name.is_empty() { "(no tag)" } else { &self.name }
    }
}

/// A histogram like those of the log, which grows so that it also holds the values of other programs.
fn growing() -> Histogram<u64> {
    let mut histogram = latency::histogram();
    histogram.auto(true);
    histogram
}

/// The stage that a tag belongs to; an unknown tag is its own stage.
pub(super) fn stage_of(tag: &str) -> &str {
    Stage::of_tag(tag).map_or(tag, |stage| stage.name())
}

/// Most tags that are distinguished; each takes a histogram.
const TAGS_MAX: usize = 256;
/// Most intervals over all tags; each takes 96 bytes.
const INTERVALS_MAX: u64 = 4_000_000;

/// A defect of a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A line that cannot be parsed, as `line 3: error`. It is skipped.
    Bad(String),
    /// The number of the last line, which is incomplete. Harmless: the gateway is still writing the log,
    /// or was killed.
    Torn(u64),
}

/// The intervals that count: those that begin at `from_ns` or later, and before `to_ns`; nanoseconds since
/// the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Start, inclusive.
    pub(super) from_ns: u64,
    /// End, exclusive.
    pub(super) to_ns: u64,
}

impl Window {
    /// All intervals.
    pub(super) const ALL: Self = Self { from_ns: 0, to_ns: u64::MAX };

    /// Whether an entry counts. The head of a log always does. An account is rounded down, because it begins
    /// within a millisecond of its interval.
    fn holds(self, entry: &HlogEntry) -> bool {
        let start_ns = match entry {
            HlogEntry::Interval(interval) => interval.start_ns,
            HlogEntry::Note(note) => match &**note {
                Note::Log(_) => return true,
                Note::Interval(account) => account.from.0 / 1_000_000 * 1_000_000,
            },
        };
        (self.from_ns..self.to_ns).contains(&start_ns)
    }
}

/// A run, of one or several logs.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The tags, by name.
    tags: BTreeMap<String, Series>,
    /// The points of the stages, by name.
    points: BTreeMap<String, Vec<Point>>,
    intervals: u64,
    notes: Notes,
}

/// Measurements of a stage in the current interval, over all its tags.
struct Open {
    start_ns: u64,
    end_ns: u64,
    histogram: Histogram<u64>,
}

impl Run {
    /// Reads a log to its end and adds its content. The logs of a run may come in any order.
    ///
    /// # Errors
    /// Input that cannot be read, or that exceeds a limit.
    pub(super) fn add(
        &mut self,
        log: impl BufRead,
        window: Window,
        mut flaw: impl FnMut(Flaw),
    ) -> Result<(), ReadError> {
        let mut reader = HlogReader::new(log);
        self.notes.begin_log();
        let mut open: BTreeMap<String, Open> = BTreeMap::new();
        loop {
            match reader.next_entry() {
                Ok(None) => break,
                Ok(Some(entry)) if !window.holds(&entry) => {}
                Ok(Some(HlogEntry::Note(note))) => self.notes.take(*note).map_err(std::io::Error::other)?,
                Ok(Some(HlogEntry::Interval(interval))) => {
                    self.take(&interval, &mut open).map_err(std::io::Error::other)?;
                }
                Err(error @ ReadError::Line { .. }) => flaw(Flaw::Bad(error.to_string())),
                Err(error @ ReadError::Io(_)) => return Err(error),
            }
        }
        for (stage, open) in open {
            self.close(&stage, &open);
        }
        if let Some(line) = reader.torn_line() {
            flaw(Flaw::Torn(line));
        }
        for points in self.tags.values_mut().map(|tag| &mut tag.points).chain(self.points.values_mut()) {
            points.sort_by_key(|point| point.start_ns);
        }
        Ok(())
    }

    fn take(&mut self, interval: &Interval, open: &mut BTreeMap<String, Open>) -> Result<(), String> {
        let Interval { tag, start_ns, duration_ns, histogram } = interval;
        let end_ns = start_ns.saturating_add(*duration_ns);
        self.intervals += 1;
        if self.intervals > INTERVALS_MAX {
            return Err(format!("more than {INTERVALS_MAX} intervals: take fewer files, or --from and --to"));
        }
        if !self.tags.contains_key(tag) {
            if self.tags.len() == TAGS_MAX {
                return Err(format!("more than {TAGS_MAX} tags"));
            }
            self.tags.insert(tag.clone(), Series::new(tag));
        }
        let Some(series) = self.tags.get_mut(tag) else { return Ok(()) };
        add(&mut series.whole, histogram)?;
        if histogram.is_empty() {
            return Ok(());
        }
        series.points.push(Point::of(*start_ns, end_ns, histogram));
        let stage = stage_of(tag);
        let fresh = || Open { start_ns: *start_ns, end_ns, histogram: growing() };
        let now = open.entry(stage.to_owned()).or_insert_with(fresh);
        if now.start_ns != *start_ns {
            self.close(stage, now);
            now.histogram.reset();
            (now.start_ns, now.end_ns) = (*start_ns, end_ns);
        }
        now.end_ns = now.end_ns.max(end_ns);
        add(&mut now.histogram, histogram)
    }

    fn close(&mut self, stage: &str, open: &Open) {
        let point = Point::of(open.start_ns, open.end_ns, &open.histogram);
        self.points.entry(stage.to_owned()).or_default().push(point);
    }

    /// Number of intervals read, over all tags.
    pub(super) fn intervals(&self) -> u64 {
        self.intervals
    }

    /// The notes of the logs.
    pub(super) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Start of the first and end of the last interval with values; nanoseconds since the Unix epoch.
    pub(super) fn span_ns(&self) -> Option<(u64, u64)> {
        let all = || self.points.values().flatten();
        Some((all().map(|point| point.start_ns).min()?, all().map(|point| point.end_ns).max()?))
    }

    /// The tags, by name.
    pub(super) fn tags(&self) -> impl Iterator<Item = &Series> {
        self.tags.values()
    }

    /// The tags of one stage; empty if the stage itself is the only tag.
    pub(super) fn tags_of<'a>(&'a self, stage: &'a str) -> Vec<&'a Series> {
        let tags: Vec<&Series> = self.tags().filter(|tag| stage_of(&tag.name) == stage).collect();
        if tags.iter().all(|tag| tag.name == stage) { Vec::new() } else { tags }
    }

    /// The stages in the order of the tick path, then the unknown tags.
    ///
    /// # Errors
    /// More values than can be counted.
    pub(super) fn stages(&self) -> Result<Vec<Series>, String> {
        let mut names: Vec<&str> = self.tags.keys().map(|tag| stage_of(tag)).collect();
        names.sort_by_key(|name| {
            (Stage::of_tag(name).map_or(Stage::ALL.len(), |stage| stage as usize), *name)
        });
        names.dedup();
        names.into_iter().map(|name| self.stage(name)).collect()
    }

    fn stage(&self, name: &str) -> Result<Series, String> {
        let mut stage = Series::new(name);
        for tag in self.tags().filter(|tag| stage_of(&tag.name) == name) {
            add(&mut stage.whole, &tag.whole)?;
        }
        stage.points = self.points.get(name).cloned().unwrap_or_default();
        Ok(stage)
    }

    /// Measurements of all tags that `selects` accepts; `None` if there are none.
    ///
    /// # Errors
    /// More values than can be counted.
    pub(super) fn select(&self, selects: impl Fn(&str) -> bool) -> Result<Option<Histogram<u64>>, String> {
        let mut sum = None;
        for tag in self.tags().filter(|tag| selects(&tag.name)) {
            add(sum.get_or_insert_with(growing), &tag.whole)?;
        }
        Ok(sum)
    }
}

/// Adds a histogram to one that grows.
fn add(sum: &mut Histogram<u64>, histogram: &Histogram<u64>) -> Result<(), String> {
    if sum.len().saturating_add(histogram.len()) > COUNT_MAX {
        return Err(format!("more than {COUNT_MAX} values"));
    }
    sum.add(histogram).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::latency::hlog::HlogWriter;

    /// A tag, the second in which the interval begins, and its values in nanoseconds.
    type Line<'a> = (&'a str, u64, &'a [u64]);

    fn log(lines: &[Line<'_>]) -> Vec<u8> {
        let mut writer = HlogWriter::new(Vec::new(), 1_000_000_000_000).expect("written");
        for (tag, second, values) in lines {
            let mut histogram = latency::histogram();
            values.iter().for_each(|ns| histogram.record(*ns).expect("in its bounds"));
            let start = Duration::from_secs(*second);
            writer.write(tag, start, Duration::from_secs(1), &histogram).expect("written");
        }
        writer.into_inner()
    }

    fn run(logs: &[&[Line<'_>]], window: Window) -> Run {
        let mut run = Run::default();
        for lines in logs {
            run.add(log(lines).as_slice(), window, |flaw| panic!("{flaw:?}")).expect("good logs");
        }
        run
    }

    #[test]
    fn the_tags_of_a_stage_add_up() {
        let first: &[Line<'_>] = &[
            ("write/kraken/trade", 1, &[100]),
            ("write/kraken/quote", 1, &[200, 300]),
            ("total", 1, &[1_000]),
            ("gc", 1, &[7]),
            ("write/kraken/trade", 2, &[400]),
            ("write/kraken/quote", 2, &[]),
        ];
        let run = run(&[&[("write/coinbase/trade", 5, &[500])], first], Window::ALL);
        let stages = run.stages().expect("few values");
        let told: Vec<(&str, u64, u64)> =
            stages.iter().map(|stage| (stage.label(), stage.whole.len(), stage.whole.max())).collect();
        assert_eq!(told, [("write", 5, 500), ("total", 1, 1_000), ("gc", 1, 7)]);
        let points: Vec<(u64, u64, u64, u64)> = stages[0]
            .points
            .iter()
            .map(|point| (point.start_ns / 1_000_000_000 - 1_000, point.count, point.p50_ns, point.max_ns))
            .collect();
        assert_eq!(points, [(1, 3, 200, 300), (2, 1, 400, 400), (5, 1, 500, 500)]);
        assert_eq!(run.span_ns(), Some((1_001_000_000_000, 1_006_000_000_000)));
        assert_eq!(run.intervals(), 7);
        assert_eq!((run.tags_of("write").len(), run.tags_of("total").len()), (3, 0));
    }

    #[test]
    fn tags_that_are_picked_add_up() {
        let lines: &[Line<'_>] = &[("write/kraken/trade", 1, &[1, 2]), ("write/kraken/quote", 1, &[3])];
        let run = run(&[lines], Window::ALL);
        let count =
            |picked: &str| run.select(|tag| tag.starts_with(picked)).expect("few").map(|sum| sum.len());
        assert_eq!([count("write"), count("write/kraken/trade"), count("total")], [Some(3), Some(2), None]);
    }

    #[test]
    fn a_window_leaves_out_what_is_outside() {
        let lines: &[Line<'_>] = &[("a", 1, &[1]), ("a", 2, &[2]), ("a", 3, &[3])];
        let window = Window { from_ns: 1_002_000_000_000, to_ns: 1_003_000_000_000 };
        let run = run(&[lines], window);
        assert_eq!(run.stages().expect("few")[0].whole.max(), 2);
    }

    #[test]
    fn flaws_are_told_and_the_rest_is_taken() {
        let mut log = log(&[("a", 1, &[1]), ("a", 2, &[2])]);
        log.splice(0..0, *b"nonsense\n");
        log.extend_from_slice(b"Tag=a,3.0");
        let (mut run, mut flaws) = (Run::default(), Vec::new());
        run.add(log.as_slice(), Window::ALL, |flaw| flaws.push(flaw)).expect("readable");
        let why = "line 1: neither a comment nor `[Tag=…,]start,length,max,histogram`";
        assert_eq!(flaws, [Flaw::Bad(why.to_owned()), Flaw::Torn(9)]);
        assert_eq!(run.intervals(), 2);
    }

    #[test]
    fn there_is_an_end_to_tags() {
        let names: Vec<String> = (0..=TAGS_MAX).map(|at| format!("t{at}")).collect();
        let lines: Vec<Line<'_>> = names.iter().map(|name| (name.as_str(), 1, &[][..])).collect();
        let mut run = Run::default();
        let error = run.add(log(&lines).as_slice(), Window::ALL, |_| {}).expect_err("too many");
        assert_eq!(error.to_string(), "more than 256 tags");
    }
}
