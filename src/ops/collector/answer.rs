//! Measurements as JSON and as text, for queries.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Window;
use super::measured::{Measured, QuerySpan};
use crate::latency::{CoarseFigures, Figures, Stage};
use crate::model::instrument::Symbol;
use crate::time::clock::MS;

impl Measured {
    /// Measurements over an interval, `last`, `1m` or `start`: by stage, and by stage, venue and channel.
    /// Times are in nanoseconds; the start and end of the interval are in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// The message lists the valid intervals.
    pub fn json(&self, interval: &str) -> Result<Value, String> {
        let span = span(interval)?;
        Ok(self.look(span, |window| {
            let stages = Stage::ALL.map(|stage| {
                let mut row = Map::new();
                row.insert("stage".to_owned(), stage.name().into());
                numbers(&mut row, &window.stage(stage));
                Value::Object(row)
            });
            json!({
                "interval": interval,
                "interval_ms": self.interval_ns / MS,
                "from_us": self.wall_us(window.from_ns),
                "to_us": self.wall_us(window.to_ns),
                "negative": window.negative,
                "clamped": window.clamped,
                "stages": stages,
                "tags": tags(window),
            })
        }))
    }

    /// Total latencies over an interval by symbol, the busiest first, and the fields beside the rows,
    /// including all other symbols together. Each row has a cursor; the rows begin after `after`, if given.
    /// Times are as in [`json`](Self::json), rounded to powers of two.
    ///
    /// # Errors
    /// The message lists the valid values.
    pub fn symbols_json(&self, interval: &str, after: Option<&str>) -> Result<SymbolRows, String> {
        let span = span(interval)?;
        let after = after.map(|text| {
            let parts = text.split_once('.').and_then(|(count, symbol)| Some((count.parse().ok()?, symbol)));
            parts.ok_or("`after` must be what such an answer gave as `next`")
        });
        let after = after.transpose()?;
        let ((from_ns, to_ns), tally) = self.symbols(span);
        let (apart, rest) = tally.rows();
        let rows = apart.into_iter().map(|(id, histogram)| {
            let symbol = self.table.get(id).map_or("", Symbol::as_str);
            SymbolLatency { symbol, figures: histogram.figures() }
        });
        let rows: Vec<SymbolLatency<'_>> = rows.collect();
        let first = after.map_or(0, |(count, symbol)| {
            let same = rows.iter().position(|row| row.figures.count == count && row.symbol == symbol);
            // The symbol has received other ticks since: continue with those that have fewer than it had.
            same.map_or_else(|| rows.partition_point(|row| row.figures.count >= count), |at| at + 1)
        });
        // Encoding a row of text and numbers cannot fail.
        let row = |row: &SymbolLatency<'_>| {
            let cursor = format!("{}.{}", row.figures.count, row.symbol);
            (cursor, serde_json::to_value(row).unwrap_or_default())
        };
        let mut others = Map::new();
        others.insert("interval".to_owned(), interval.into());
        others.insert("stage".to_owned(), Stage::Total.name().into());
        others.insert("from_us".to_owned(), self.wall_us(from_ns).into());
        others.insert("to_us".to_owned(), self.wall_us(to_ns).into());
        others.insert("rest".to_owned(), json!(rest.figures()));
        Ok((rows[first..].iter().map(row).collect(), others))
    }

    /// The percentiles of a stage over an interval, as text for the tools of HdrHistogram: values in
    /// milliseconds, with all digits. Format: `outputPercentileDistribution` of `AbstractHistogram` in
    /// <https://github.com/HdrHistogram/HdrHistogram>, with five steps for each halving of the distance to
    /// 100 %.
    ///
    /// # Errors
    /// The message lists the valid values.
    pub fn percentiles(&self, stage: &str, interval: &str) -> Result<String, String> {
        let found = Stage::ALL.into_iter().find(|known| known.name() == stage);
        let stage = found.ok_or_else(|| one_of("stage", Stage::ALL.into_iter().map(Stage::name)))?;
        let span = span(interval)?;
        Ok(distribution(&self.look(span, |window| window.stage(stage))))
    }

    /// A steady time as microseconds since the Unix epoch, by the wall clock at the start.
    fn wall_us(&self, mono_ns: u64) -> u64 {
        (self.start.wall_ns + mono_ns.saturating_sub(self.start.mono_ns)) / 1_000
    }
}

/// Rows of symbols, each with its cursor, and the fields beside them.
pub type SymbolRows = (Vec<(String, Value)>, Map<String, Value>);

/// Latencies of one symbol.
#[derive(Serialize)]
struct SymbolLatency<'a> {
    symbol: &'a str,
    #[serde(flatten)]
    figures: CoarseFigures,
}

fn span(interval: &str) -> Result<QuerySpan, String> {
    let found = QuerySpan::ALL.into_iter().find(|(name, _)| *name == interval);
    let names = || one_of("interval", QuerySpan::ALL.into_iter().map(|(name, _)| name));
    found.map(|(_, span)| span).ok_or_else(names)
}

fn one_of<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> String {
    format!("`{key}` must be one of {}", names.collect::<Vec<_>>().join(", "))
}

fn tags(window: &Window) -> Vec<Value> {
    let row = |(label, values): (&super::Label, _)| {
        let mut row = Map::new();
        row.insert("tag".to_owned(), label.tag().to_string().into());
        row.insert("stage".to_owned(), label.stage.name().into());
        row.insert("venue".to_owned(), label.venue.as_deref().into());
        row.insert("channel".to_owned(), label.channel.name().into());
        numbers(&mut row, values);
        Value::Object(row)
    };
    window.values().map(row).collect()
}

fn numbers(row: &mut Map<String, Value>, values: &Histogram<u64>) {
    row.extend(Figures::of(values).fields().map(|(name, value)| (name, value.into())));
}

/// Steps of the text for each halving of the distance to 100 %.
const STEPS: u32 = 5;

fn distribution(values: &Histogram<u64>) -> String {
    let ms = |ns: f64| ns / MS as f64;
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    // Writing to a String cannot fail.
    for step in values.iter_quantiles(STEPS) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (ms(step.value_iterated_to() as f64), step.quantile_iterated_to());
        let _ = write!(text, "{value:12.6} {quantile:2.12} {total:10}");
        let _ =
            if quantile < 1.0 { writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)) } else { writeln!(text) };
    }
    let (mean, deviation) = (ms(values.mean()), ms(values.stdev()));
    let max = if values.is_empty() { 0.0 } else { ms(values.max() as f64) };
    let _ = writeln!(text, "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]");
    let _ = writeln!(text, "#[Max     = {max:12.6}, Total count    = {:12}]", values.len());
    let sub_buckets = 2 * 10_u64.pow(values.sigfig().into()).next_power_of_two();
    let _ = writeln!(text, "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]", values.buckets());
    text
}
