//! `tickfan report`: interval logs of a run, beside another run and against a budget, in the terminal, as
//! JSON, and as a page; and flights. Files are read and written here; all other modules are pure.

mod account;
mod chart;
mod escape;
mod figures;
mod flight;
mod html;
mod json;
mod run;
mod table;
mod verdict;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;

use self::run::{Flaw, Run, Series, Window};
use crate::latency::budget::{self, BudgetVerdict, Rule};
use crate::latency::hlog::{HlogReader, ReadError};
use crate::ops::flight::Flight;
use crate::system::atomic_file::AtomicFile;
use crate::text::printable;

/// Arguments of `report`. `--help` shows the comments of the fields.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Interval logs (.hlog) of one run; their tags are merged. Or one file of the flight recorder (.ndjson),
    /// which allows only --json.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// An interval log of another run to compare with, with ratios. Repeatable, for the logs of one run.
    #[arg(long, value_name = "FILE")]
    compare: Vec<PathBuf>,
    /// Latency budget: `write.p99<2ms,total/*/trade.max<=50ms`. A stage or tag, then .p50, .p99.9 or any
    /// other percentile, .max or .mean; ns, us, ms or s. Exits 1 and names the rules that are violated.
    /// Repeatable.
    #[arg(long, value_name = "RULES", value_parser = parse_budget)]
    budget: Vec<Budget>,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Write a page with charts, in a single file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Add a row per tag, i.e. by venue and channel.
    #[arg(long)]
    tags: bool,
    /// Omit intervals that began earlier than this after the start of the run: 10s.
    #[arg(long, value_name = "TIME", value_parser = budget::time)]
    from: Option<u64>,
    /// Omit intervals that began at this time after the start of the run, or later.
    #[arg(long, value_name = "TIME", value_parser = budget::time)]
    to: Option<u64>,
}

/// The rules of one `--budget`.
#[derive(Clone, Debug)]
struct Budget(Vec<Rule>);

fn parse_budget(text: &str) -> Result<Budget, budget::BudgetError> {
    budget::parse(text).map(Budget)
}

/// The content of a report.
struct Report {
    this: Side,
    base: Option<Side>,
    verdicts: Vec<BudgetVerdict>,
}

/// A run, and the files it was read from.
struct Side {
    run: Run,
    stages: Vec<Series>,
    files: Vec<String>,
    notes: Vec<String>,
    bad_lines: u64,
}

impl Report {
    /// The stage or tag of the base run with this name.
    fn base_of(&self, name: &str) -> Option<&Series> {
        let base = self.base.as_ref()?;
        let tag = || base.run.tags().find(|tag| tag.name == name);
        base.stages.iter().find(|stage| stage.name == name).or_else(tag)
    }

    /// Remarks for the reader besides the numbers.
    fn notes(&self) -> Vec<String> {
        let of =
            |side: &Side| side.notes.iter().cloned().chain(side.run.notes().remark()).collect::<Vec<_>>();
        let mut notes: Vec<String> = self.sides().flat_map(of).collect();
        for stage in self.base.iter().flat_map(|base| &base.stages) {
            if !self.this.stages.iter().any(|this| this.name == stage.name) {
                notes.push(format!("{} was measured only in the run that is compared with", stage.label()));
            }
        }
        if let Some(base) = &self.base {
            let told = |side: &Side| match side.run.notes().heads() {
                [] => None,
                heads => Some(heads.iter().map(|h| (h.machine.clone(), h.build.clone())).collect::<Vec<_>>()),
            };
            let different =
                told(&self.this).zip(told(base)).filter(|(this, base)| this.last() != base.last());
            if different.is_some() {
                notes.push("the two runs are of different machines or programs".to_owned());
            }
        }
        notes
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        [&self.this].into_iter().chain(&self.base)
    }

    /// Whether no rule was violated, and every line could be parsed.
    fn all_well(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.held) && self.sides().all(|side| side.bad_lines == 0)
    }
}

/// Most bad lines of a run that are reported individually.
const BAD_LINES_TOLD: u64 = 10;

/// Reads the logs and prints the report on `out`, which is `width` columns wide, and errors on `log`. Returns
/// true if the budget held and every line could be parsed.
///
/// # Errors
/// A file that cannot be read or written, or without a measurement.
pub fn run(args: &ReportArgs, width: usize, out: impl Write, mut log: impl Write) -> anyhow::Result<bool> {
    if let Some(path) = flight_among(&args.files)? {
        return report_flight(args, path, out).map(|()| true);
    }
    let window = (args.from, args.to);
    let this = Side::read(&args.files, window, &mut log)?;
    let base = match args.compare.as_slice() {
        [] => None,
        files => Some(Side::read(files, window, &mut log)?),
    };
    let rules = args.budget.iter().flat_map(|budget| &budget.0);
    let verdicts = rules.map(|rule| judge(rule, &this.run)).collect::<Result<_, String>>();
    let verdicts = verdicts.map_err(|why| anyhow!(why))?;
    let report = Report { this, base, verdicts };
    if let Some(path) = &args.html {
        let page = html::page(&report)?;
        let write = || {
            let mut file = AtomicFile::create(path)?;
            file.write_all(page.as_bytes())?;
            file.commit()
        };
        write().with_context(|| format!("cannot write {}", printable::path(path)))?;
    }
    let text = if args.json { json::text(&report)? } else { table::text(&report, width, args.tags) };
    print(&text, out).context("cannot write")?;
    for broken in report.verdicts.iter().filter(|verdict| !verdict.held) {
        writeln!(log, "over budget: {}", printable::line(&broken.to_string()))?;
    }
    Ok(report.all_well())
}

/// Applies a rule to a run.
fn judge(rule: &Rule, run: &Run) -> Result<BudgetVerdict, String> {
    let mut verdict = rule.judge(run.select(|tag| rule.selects(tag))?.as_ref());
    let mut measured = run.tags().filter(|tag| !tag.whole.is_empty());
    verdict.held |= verdict.measured_ns.is_none() && measured.any(|tag| rule.holds_without(&tag.name));
    Ok(verdict)
}

/// The first flight among these files.
fn flight_among(paths: &[PathBuf]) -> anyhow::Result<Option<&Path>> {
    for path in paths {
        if Flight::begins(open(path)?.fill_buf().with_context(|| format!("{}", printable::path(path)))?) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn report_flight(args: &ReportArgs, path: &Path, out: impl Write) -> anyhow::Result<()> {
    let ReportArgs { files, compare, budget, json, html, tags, from, to } = args;
    let name = printable::path(path);
    anyhow::ensure!(files.len() == 1, "{name} is a flight: it is reported alone");
    let other = !compare.is_empty() || !budget.is_empty() || html.is_some() || *tags;
    anyhow::ensure!(!other && from.is_none() && to.is_none(), "{name} is a flight: only --json applies");
    let text = flight::text(&name.to_string(), open(path)?, *json).with_context(|| format!("{name}"))?;
    print(&text, out).context("cannot write")
}

/// A reader that has closed the output is not an error.
fn print(text: &str, mut out: impl Write) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

impl Side {
    fn read(
        paths: &[PathBuf],
        (from, to): (Option<u64>, Option<u64>),
        log: &mut impl Write,
    ) -> anyhow::Result<Self> {
        let mut window = Window::ALL;
        if from.is_some() || to.is_some() {
            let begins: anyhow::Result<Vec<Option<u64>>> = paths.iter().map(|path| begin_ns(path)).collect();
            let begin_ns = begins?.into_iter().flatten().min().unwrap_or(0);
            window.from_ns = begin_ns.saturating_add(from.unwrap_or(0));
            window.to_ns = begin_ns.saturating_add(to.unwrap_or(u64::MAX));
        }
        let (mut run, mut notes, mut bad) = (Run::default(), Vec::new(), Vec::new());
        let mut bad_lines = 0;
        for path in paths {
            let name = printable::path(path);
            let flaw = |flaw| match flaw {
                Flaw::Torn(line) => {
                    notes.push(format!("{name}: line {line}, the last, was cut off and is left out"));
                }
                Flaw::Bad(why) => {
                    bad_lines += 1;
                    if bad_lines <= BAD_LINES_TOLD {
                        bad.push(format!("{name}: {why}"));
                    }
                }
            };
            run.add(open(path)?, window, flaw).with_context(|| format!("{name}"))?;
        }
        if bad_lines > BAD_LINES_TOLD {
            bad.push(format!("and {} bad lines more", bad_lines - BAD_LINES_TOLD));
        }
        bad.iter().try_for_each(|line| writeln!(log, "{}", printable::line(line)))?;
        if bad_lines > 0 {
            notes.push(format!("{bad_lines} lines could not be read and are left out"));
        }
        let files: Vec<String> = paths.iter().map(|path| printable::path(path).to_string()).collect();
        anyhow::ensure!(run.span_ns().is_some(), "{}: no measurements", files.join(", "));
        let stages = run.stages().map_err(|why| anyhow!(why))?;
        Ok(Self { run, stages, files, notes, bad_lines })
    }
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("{}", printable::path(path)))?;
    Ok(BufReader::with_capacity(1 << 16, file))
}

/// Start of the first readable interval of a log, nanoseconds since the Unix epoch.
fn begin_ns(path: &Path) -> anyhow::Result<Option<u64>> {
    let mut reader = HlogReader::new(open(path)?);
    loop {
        match reader.next_interval() {
            Ok(interval) => return Ok(interval.map(|interval| interval.start_ns)),
            Err(ReadError::Line { .. }) => {}
            Err(ReadError::Io(error)) => {
                return Err(error).with_context(|| format!("{}", printable::path(path)));
            }
        }
    }
}

/// A time as text: UTC, to the microsecond.
fn utc(ns: u64) -> String {
    let mut text = Vec::new();
    crate::time::rfc3339::write(ns, crate::time::rfc3339::FractionDigits::Six, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
