//! The report as JSON. Pure. Times are in nanoseconds; `at_ns` counts from the Unix epoch.

use serde_json::{Map, Value, json};

use super::figures::Ratio;
use super::run::{Point, Series};
use super::verdict::conclude;
use super::{Report, Side, utc};
use crate::latency::Figures;
use crate::latency::budget::BudgetVerdict;
use crate::latency::hlog::note::FlightNote;

/// The report as one JSON object with a line break.
///
/// # Errors
/// None known: the object can always be encoded.
pub(super) fn text(report: &Report) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(&value(report))?;
    text.push('\n');
    Ok(text)
}

fn value(report: &Report) -> Value {
    let stages = report.this.stages.iter().map(|stage| row(report, stage, "stage"));
    let tags = report.this.run.tags().map(|tag| row(report, tag, "tag"));
    let mut whole = Map::new();
    whole.insert("verdict".to_owned(), json!(conclude(report)));
    whole.insert("run".to_owned(), side(&report.this));
    if let Some(base) = &report.base {
        whole.insert("compared_with".to_owned(), side(base));
    }
    whole.insert("stages".to_owned(), stages.collect());
    whole.insert("tags".to_owned(), tags.collect());
    whole.insert("budget".to_owned(), report.verdicts.iter().map(verdict).collect());
    whole.insert("notes".to_owned(), report.notes().into());
    Value::Object(whole)
}

fn side(side: &Side) -> Value {
    let (begin_ns, end_ns) = side.run.span_ns().unwrap_or_default();
    let notes = side.run.notes();
    let flight = |(flight, path): &(FlightNote, String)| json!({ "path": path, "flight": flight });
    let mut account = notes.whole().cloned();
    if let Some(account) = &mut account {
        account.flights = notes.flights().iter().map(|(flight, _)| flight.clone()).collect();
    }
    json!({
        "files": side.files,
        "start": utc(begin_ns),
        "start_ns": begin_ns,
        "end_ns": end_ns,
        "intervals": side.run.intervals(),
        "bad_lines": side.bad_lines,
        "end": utc(end_ns),
        "logs": notes.heads(),
        "account": account,
        "clients_at_once": notes.whole().map(|_| notes.most()),
        "flights": notes.whole().map(|_| notes.flights().iter().map(flight).collect::<Vec<_>>()),
    })
}

fn row(report: &Report, series: &Series, kind: &str) -> Value {
    let figures = series.figures();
    let mut row = Map::new();
    row.insert(kind.to_owned(), series.name.as_str().into());
    row.extend(numbers(&figures));
    if let Some(base) = report.base_of(&series.name) {
        let base = base.figures();
        let ratios = figures
            .times()
            .zip(base.times())
            .map(|((name, this), (_, base))| (name.to_owned(), Ratio(this, base).value().into()));
        row.insert("ratio".to_owned(), Value::Object(ratios.collect()));
        row.insert("compared".to_owned(), Value::Object(numbers(&base)));
    }
    row.insert("over_time".to_owned(), series.points.iter().map(point).collect());
    Value::Object(row)
}

fn numbers(figures: &Figures) -> Map<String, Value> {
    figures.fields().map(|(name, value)| (name, value.into())).collect()
}

fn point(point: &Point) -> Value {
    json!({
        "at_ns": point.start_ns,
        "duration_ns": point.end_ns - point.start_ns,
        "count": point.count,
        "p50_ns": point.p50_ns,
        "p99_ns": point.p99_ns,
        "max_ns": point.max_ns,
    })
}

fn verdict(verdict: &BudgetVerdict) -> Value {
    json!({ "rule": verdict.rule, "measured_ns": verdict.measured_ns, "held": verdict.held })
}
