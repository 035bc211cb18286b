//! The command line: `serve` and the other tools.

pub mod offline;
pub mod report;
pub mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, FeedConfig, FeedKind};
use crate::gateway::{self, Job, RunOutcome};
use crate::protocol::Moment;
use crate::protocol::replay::Speed;
use crate::synth::Spec;
use crate::text::error_text;
use crate::text::printable;
use crate::time::clock::Clock;
use crate::time::duration;
use crate::venue::{ChecksOff, WireFormat};
use offline::{BadRecord, Captures, InputEnd, OutputFormat, Progress};
use report::ReportArgs;
use watch::WatchArgs;

/// Examples in `tickfan --help`, at least one per command, each followed by a line that explains it.
const EXAMPLES: &str = "\
Examples:
  tickfan serve --config config.toml --set server.listen=127.0.0.1:8000
      serves the feeds of a configuration; `tickfan` alone does the same with config.toml
  tickfan replay --speed 10 --loop feeds/coinbase.zst feeds/kraken.zst
      serves recorded captures, merged by receive time, ten times as fast as they were recorded
  tickfan replay --from +30s --to +1m --max-idle 5s --exit feeds/kraken.zst
      serves half a minute of a capture, without long pauses, and prints what was published, with a digest
  tickfan normalize feeds/kraken.zst | head
      prints the ticks of a capture as JSON lines
  tickfan serve --record recordings
      the same as `serve`, and records every received frame, in a folder per feed line
  tickfan inspect recordings/kraken.1
      describes a recording or a capture: times, counts, and what is missing and why
  tickfan convert --to parquet --out tables feeds/kraken.zst
      writes trades, quotes and gaps as tables
  tickfan watch --for 10s 'coinbase:*'
      subscribes from the terminal and checks that nothing is missing
  tickfan watch --slow 5000 '*'
      the same as a slow client that reads 5,000 bytes per second
  tickfan report --budget 'write.p99<2ms' --html latency.html latency.hlog
      shows the latencies of a run by stage, writes a page with charts, and exits 1 if they are over budget
  tickfan report flights/flight-2026-01-01T12-00-00.000000Z.ndjson
      shows the events before a client was cut, the feed had a gap, or an interval was over budget
  tickfan generate --venue kraken --symbols XBT/USD,ETH/USD --seconds 60 --rate 100 --seed 1 --out k.zst
      writes a synthetic capture in the venue's own messages
  tickfan check --config config.toml feeds/coinbase.zst
      checks the configuration and captures without serving

Exit codes: 0 on success, 1 if the command found or did something wrong, 2 if it could not start";

/// Exit codes of the commands that read captures to their end.
const READ_TO_THE_END: &str = "\
Exit codes: 0 on success, 2 if the command could not start, 1 if a capture is truncated: it ends early, or is
a recording that was torn by a kill. All data that can be read is processed all the same, and errors are
reported.";

/// Exit codes of `watch`.
const WATCHED: &str = "\
Exit codes: 0 if every number was accounted for, 2 if there was nothing to watch, 1 if a number is missing,
a symbol never came, or the connection ended early: before --for was over, or without --for for another
reason than the end of a replay or of the gateway (4001). A named symbol never came if the gateway rejected
it on a channel, or has no data of it; a wildcard never came if neither a tick nor a state of a matching
symbol was received. After Ctrl-C, or when the output is closed, the code is 1 only if a number is missing.";

/// Market data fan-out gateway: venue feeds in, normalised ticks out to WebSocket clients.
#[derive(Debug, Parser)]
#[command(name = "tickfan", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the feeds of a configuration (the default).
    Serve(ServeArgs),
    /// Serve recorded captures.
    #[command(after_help = READ_TO_THE_END)]
    Replay(ReplayArgs),
    /// Print the ticks of captures as JSON lines.
    #[command(after_help = READ_TO_THE_END)]
    Normalize(CaptureArgs),
    /// Describe the content of captures, and what is missing in them.
    #[command(after_help = READ_TO_THE_END)]
    Inspect(InspectArgs),
    /// Write the ticks of captures as JSON lines, CSV or Parquet.
    #[command(after_help = READ_TO_THE_END)]
    Convert(ConvertArgs),
    /// Subscribe from the terminal, and check that nothing is missing.
    #[command(after_help = WATCHED)]
    Watch(WatchArgs),
    /// Show the latencies in interval logs: by stage, beside another run, against a budget. Or show a flight.
    Report(ReportArgs),
    /// Write a synthetic capture in a venue's own messages.
    Generate(GenerateArgs),
    /// Check the configuration and captures without serving. A line that cannot be parsed makes the exit code
    /// 1, too.
    #[command(after_help = READ_TO_THE_END)]
    Check(CheckArgs),
}

/// Arguments of the commands that serve.
#[derive(Debug, Args)]
struct ServerArgs {
    /// Address for clients, overrides `server.listen`; port 0 picks a free port.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address of the admin listener with /metrics, overrides `admin.listen`; port 0 picks a free port.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Record all input, in a folder per feed line below this one; overrides `record.dir` and
    /// `record.enabled`.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Any key of the configuration: section.key=value. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl ServerArgs {
    fn load(&self, path: Option<&Path>) -> anyhow::Result<Config> {
        let mut config = Config::load(path, environment()?, &self.settings)?;
        config.server.listen = self.listen.unwrap_or(config.server.listen);
        config.admin.listen = self.admin.unwrap_or(config.admin.listen);
        if let Some(dir) = &self.record {
            config.record.enabled = true;
            config.record.dir.clone_from(dir);
        }
        Ok(config)
    }
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// The captures; several are merged by receive time.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Speed: 1 is as recorded, 10 is ten times as fast, 0 is as fast as possible, without waiting for
    /// clients.
    #[arg(long, default_value = "1", value_name = "FACTOR", allow_negative_numbers = true)]
    speed: Speed,
    /// Restart from the beginning at the end.
    #[arg(long = "loop", conflicts_with = "exit")]
    looped: bool,
    /// Start: 2021-04-17T16:43:37Z or …T18:43:37+02:00, a time since 1970 in s, ms or µs, or +5m after the
    /// first record.
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// End (exclusive), in the same formats.
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// Shorten pauses between records to at most this, such as 5s or 250ms.
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    max_idle: Option<u64>,
    /// Exit when the last tick is sent.
    #[arg(long)]
    exit: bool,
    /// Start once this number of clients has subscribed.
    #[arg(long, default_value_t = 0, value_name = "N")]
    wait_subscribers: usize,
    /// Venue whose messages the captures contain; detected if omitted.
    #[arg(long)]
    venue: Option<WireFormat>,
    /// Checks of the venue's messages to disable: checksum, sequence, crossed, separated by commas.
    #[arg(long, value_name = "CHECKS", value_parser = ChecksOff::parse)]
    checks_off: Option<ChecksOff>,
    /// End at the first line that cannot be parsed.
    #[arg(long)]
    strict: bool,
    /// Configuration for everything but the feeds; the default of every key if omitted.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct CaptureArgs {
    /// The captures; several are merged by receive time.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Venue whose messages the captures contain; detected if omitted.
    #[arg(long)]
    venue: Option<WireFormat>,
    /// Checks of the venue's messages to disable: checksum, sequence, crossed, separated by commas.
    #[arg(long, value_name = "CHECKS", value_parser = ChecksOff::parse)]
    checks_off: Option<ChecksOff>,
    /// Stop at the first line that cannot be parsed.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The captures, or folders of recordings, each inspected separately.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Venue whose messages the captures contain; detected if omitted.
    #[arg(long)]
    venue: Option<WireFormat>,
    /// Checks of the venue's messages to disable: checksum, sequence, crossed, separated by commas.
    #[arg(long, value_name = "CHECKS", value_parser = ChecksOff::parse)]
    checks_off: Option<ChecksOff>,
    /// Print one JSON object per file, with times in nanoseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ConvertArgs {
    #[command(flatten)]
    captures: CaptureArgs,
    /// Output format: ndjson (the output of `normalize`), csv (the columns of tardis.dev's data sets) or
    /// parquet.
    #[arg(long, value_name = "FORM")]
    to: OutputFormat,
    /// The file for JSON lines (stdout if omitted), or the folder for the tables.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    /// The venue whose messages are written: coinbase, binance, binance-futures, kraken or native.
    #[arg(long)]
    venue: WireFormat,
    /// The symbols, in the venue's spelling, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    symbols: Vec<String>,
    /// Duration of the capture, seconds.
    #[arg(long)]
    seconds: u32,
    /// Messages per second, over all symbols.
    #[arg(long)]
    rate: u32,
    /// Seed of the random numbers; the same seed produces the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Time of the first message, nanoseconds since the Unix epoch.
    #[arg(long, default_value_t = offline::GENERATE_START_NS)]
    start_ns: u64,
    /// Output file, compressed if it ends in .zst or .gz; stdout if omitted.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The configuration; its captures are checked too.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// More captures to check.
    #[arg(value_name = "CAPTURE")]
    files: Vec<PathBuf>,
    /// Venue whose messages these captures contain; detected if omitted.
    #[arg(long)]
    venue: Option<WireFormat>,
    /// Any key of the configuration: section.key=value. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// The command line, with the examples of each command in its help.
fn command() -> clap::Command {
    let whole = Cli::command();
    let names: Vec<String> = whole.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(whole, |whole, name| {
        whole.mut_subcommand(&name, |command| {
            let codes = command.get_after_help().map(|help| format!("\n{help}")).unwrap_or_default();
            let examples = examples(&name);
            command.after_help(format!("Examples:\n{examples}{codes}"))
        })
    })
}

/// The examples of one command.
fn examples(command: &str) -> String {
    let lines: Vec<&str> = EXAMPLES.lines().collect();
    let start = format!("  tickfan {command} ");
    let examples = lines.windows(2).filter(|lines| lines[0].starts_with(&start));
    examples.map(|lines| format!("{}\n{}\n", lines[0], lines[1])).collect()
}

/// Runs the command line. The exit code is 0 on success, 1 if the command found or did something wrong, 2 if
/// it could not start.
pub fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve(&args),
        Command::Replay(args) => replay(args),
        Command::Normalize(args) => normalize(args),
        Command::Inspect(args) => inspect(&args),
        Command::Convert(args) => convert(args),
        Command::Watch(args) => return run_watch(&args),
        Command::Report(args) => run_report(&args),
        Command::Generate(args) => run_generate(args),
        Command::Check(args) => check(&args),
    };
    result.unwrap_or_else(|error| {
        warn(&error_text::whole(&error));
        ExitCode::from(if error.is::<BadRecord>() { 1 } else { 2 })
    })
}

/// The environment. Variables that are not UTF-8 are ignored, unless their name begins with `TICKFAN_`.
fn environment() -> anyhow::Result<impl Iterator<Item = (String, String)>> {
    let mut pairs = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => pairs.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("TICKFAN_") => {
                anyhow::bail!("environment {name}: not UTF-8")
            }
            _ => {}
        }
    }
    Ok(pairs.into_iter())
}

fn warn(what: &str) {
    use io::Write as _;
    // There is no other place to report that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "tickfan: {}", printable::lines(what.trim_end()));
}

fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = args.server.load(Some(&args.config))?;
    run(Job { config, exit_at_end: false, wait_subscribers: 0, summary: false })
}

fn replay(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut config = args.server.load(args.config.as_deref())?;
    config.feed = vec![FeedConfig {
        kind: FeedKind::Replay,
        files: args.files,
        venue: args.venue,
        speed: args.speed,
        looped: args.looped,
        strict: args.strict,
        from: args.from,
        to: args.to,
        max_idle_ms: args.max_idle.unwrap_or(0),
        checks_off: args.checks_off.unwrap_or_default(),
    }];
    run(Job { config, exit_at_end: args.exit, wait_subscribers: args.wait_subscribers, summary: true })
}

/// Parses a duration of at least one millisecond.
fn duration_ms(text: &str) -> Result<u64, String> {
    match duration::parse_ns(text) {
        Ok(ns) if ns >= 1_000_000 => Ok(ns / 1_000_000),
        _ => Err("write it as 5s, 250ms or 1m30s, at least 1ms".to_owned()),
    }
}

fn run(job: Job) -> anyhow::Result<ExitCode> {
    use io::Write as _;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(gateway::run(job, Clock::real(), |line| {
        let mut out = io::stdout().lock();
        // A closed stdout does not stop the service.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }))?;
    // Without waiting: nothing depends on the background tasks any more.
    runtime.shutdown_background();
    Ok(match outcome {
        RunOutcome::Done => ExitCode::SUCCESS,
        RunOutcome::FeedFailed | RunOutcome::Truncated => ExitCode::FAILURE,
    })
}

fn normalize(args: CaptureArgs) -> anyhow::Result<ExitCode> {
    let (limits, mut hidden) = (Config::bare().limits, Progress::hidden());
    let (out, log) = (io::stdout().lock(), io::stderr());
    Ok(code_of(offline::normalize(&args.captures(), &limits, out, log, &mut hidden)?))
}

/// A truncated capture makes the result incomplete.
fn code_of(input: InputEnd) -> ExitCode {
    match input {
        InputEnd::Whole => ExitCode::SUCCESS,
        InputEnd::Truncated => ExitCode::FAILURE,
    }
}

impl CaptureArgs {
    fn captures(self) -> Captures {
        let checks_off = self.checks_off.unwrap_or_default();
        Captures { files: self.files, venue: self.venue, strict: self.strict, checks_off }
    }
}

fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let limits = Config::bare().limits;
    let checks_off = args.checks_off.unwrap_or_default();
    let mut input = InputEnd::Whole;
    for file in &args.files {
        let mut progress = Progress::on_terminal(&Clock::real());
        let report = offline::inspect(file, args.venue, checks_off, &limits, &mut progress)?;
        if report.is_truncated() {
            input = InputEnd::Truncated;
        }
        if !say_report(args.json.then(|| report.to_json()), &report)? {
            return Ok(code_of(input));
        }
    }
    if args.files.len() > 1 {
        let captures = Captures { files: args.files.clone(), venue: args.venue, strict: false, checks_off };
        let joins = offline::joins(&captures, &limits, &mut Progress::on_terminal(&Clock::real()))?;
        say_report(args.json.then(|| joins.to_json()), &joins)?;
    }
    Ok(code_of(input))
}

/// Prints a report as a line of JSON, if given, or as text. Returns false if stdout is closed.
fn say_report(json: Option<serde_json::Value>, text: &dyn std::fmt::Display) -> anyhow::Result<bool> {
    use io::Write as _;
    let mut out = io::stdout().lock();
    let said = match json {
        Some(json) => writeln!(out, "{json}"),
        None => write!(out, "{text}"),
    };
    match said.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.context("cannot write").map(|()| true),
    }
}

fn convert(args: ConvertArgs) -> anyhow::Result<ExitCode> {
    let (limits, mut progress) = (Config::bare().limits, Progress::on_terminal(&Clock::real()));
    let target = (args.to, args.out.as_deref());
    // Standard error is not locked, because the progress bar uses it.
    let (out, log) = (io::stdout().lock(), io::stderr());
    Ok(code_of(offline::convert(&args.captures.captures(), &limits, target, out, log, &mut progress)?))
}

fn run_watch(args: &WatchArgs) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => ExitCode::from(runtime.block_on(watch::run(args, &Clock::real()))),
        Err(error) => {
            warn(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// Width of an output that is not a terminal, or of a terminal of unknown width, in columns.
const WIDTH_UNKNOWN: usize = 100;

fn run_report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let width = terminal_size::terminal_size().map_or(WIDTH_UNKNOWN, |(width, _)| usize::from(width.0));
    let all_well = report::run(args, width, io::stdout().lock(), io::stderr().lock())?;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_generate(args: GenerateArgs) -> anyhow::Result<ExitCode> {
    let GenerateArgs { venue, symbols, seconds, rate, seed, start_ns, out } = args;
    let spec = Spec { venue, symbols, seconds, rate, seed, start_ns };
    offline::generate(&spec, out.as_deref(), io::stdout().lock(), io::stderr().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let default = Path::new("config.toml");
    // With captures to check, the configuration is optional.
    let path = match &args.config {
        Some(path) => Some(path.as_path()),
        None => (args.files.is_empty() || default.exists()).then_some(default),
    };
    let config = Config::load(path, environment()?, &args.settings)?;
    if path.is_some() {
        gateway::check(&config)?;
    }
    let mut sets: Vec<Captures> = config
        .feed
        .iter()
        .map(|feed| Captures {
            files: feed.files.clone(),
            venue: feed.venue,
            strict: false,
            checks_off: feed.checks_off,
        })
        .collect();
    sets.extend(args.files.iter().map(|file| Captures {
        files: vec![file.clone()],
        venue: args.venue,
        strict: false,
        checks_off: ChecksOff::default(),
    }));
    let mut good = true;
    for captures in &sets {
        good &= offline::check_captures(captures, &config.limits, io::stdout().lock())
            .with_context(|| path.map_or(String::new(), |path| printable::path(path).to_string()))?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a line into words like a shell, as far as the examples need it: quotes, and nothing behind a
    /// pipe.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" | ").next().unwrap_or(line);
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }

    #[test]
    fn every_example_is_a_command_line() {
        let examples: Vec<&str> = EXAMPLES
            .lines()
            .filter_map(|line| line.strip_prefix("  "))
            .filter(|line| !line.starts_with(' '))
            .collect();
        assert!(examples.len() >= 13, "{examples:?}");
        for example in examples {
            let read = command().try_get_matches_from(words(example));
            let matches = read.unwrap_or_else(|error| panic!("{example}: {error}"));
            assert!(matches.subcommand_name().is_some_and(|name| words(example)[1] == name), "{example}");
            assert!(Cli::from_arg_matches(&matches).is_ok(), "{example}");
        }
    }

    #[test]
    fn the_help_of_each_command_has_an_example_of_it() {
        let whole = command();
        assert!(whole.get_subcommands().count() >= 9);
        for command in whole.get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            let example = format!("  tickfan {} ", command.get_name());
            assert!(help.contains(&example), "{}: {help}", command.get_name());
        }
    }
}
