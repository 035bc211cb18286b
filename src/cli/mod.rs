//! The command line: `serve` and the tools beside it.

pub mod offline;
pub mod report;
pub mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, Feed, FeedKind};
use crate::gateway::{self, Job, Outcome};
use crate::protocol::Moment;
use crate::protocol::replay::Speed;
use crate::synth::Spec;
use crate::text::error_text;
use crate::text::printable;
use crate::time::clock::Clock;
use crate::time::duration;
use crate::venue::{ChecksOff, Wire};
use offline::{BadRecord, Captures, Input, Progress, Target};
use report::ReportArgs;
use watch::WatchArgs;

/// One example a command, shown by `tickfan --help`.
const EXAMPLES: &str = "\
Examples:
  tickfan serve --config config.toml --set server.listen=127.0.0.1:8000
      serves the feeds of a configuration; `tickfan` alone does the same with config.toml
  tickfan replay --speed 10 --loop feeds/coinbase.zst feeds/kraken.zst
      serves recorded captures, merged by receive time, ten times as fast as they were recorded
  tickfan replay --from +30s --to +1m --max-idle 5s --exit feeds/kraken.zst
      serves half a minute of a capture, without long silences, and says what was published, with a digest
  tickfan normalize feeds/kraken.zst | head
      prints the ticks of a capture as JSON lines
  tickfan serve --record recordings
      the same as `serve`, and writes down every frame that comes in, in a folder per feed line
  tickfan inspect recordings/kraken.1
      says what is in a recording or a capture: when, how much of what, and what is missing and why
  tickfan convert --to parquet --out tables feeds/kraken.zst
      writes trades, quotes and gaps as tables
  tickfan watch --for 10s 'coinbase:*'
      subscribes from the terminal and checks that nothing is missing
  tickfan watch --slow 5000 '*'
      the same as a client that reads 5,000 bytes a second: what becomes of a slow one
  tickfan report --budget 'write.p99<2ms' --html latency.html latency.hlog
      shows the latencies of a run by stages, writes a page with charts, and exits 1 if they are over budget
  tickfan report flights/flight-2026-01-01T12-00-00.000000Z.ndjson
      shows what came before a client was cut, the feed had a gap, or an interval was over budget
  tickfan generate --venue kraken --symbols XBT/USD,ETH/USD --seconds 60 --rate 100 --seed 1 --out k.zst
      writes a synthetic capture in the venue's own messages
  tickfan check --config config.toml feeds/coinbase.zst
      checks the configuration and captures without serving

Exit codes: 0 if all was well, 1 if what was asked for found or did something wrong, 2 if it could not begin";

/// What every command that reads captures to their end says of its exit code.
const READ_TO_THE_END: &str = "\
Exit codes: 0 if all was well, 2 if it could not begin, 1 if a capture is truncated: it breaks off, or is a recording
that a kill has torn. Everything that can be read is read all the same, and what was met is said.";

/// What `watch` says of its exit code.
const WATCHED: &str = "\
Exit codes: 0 if every number was accounted for, 2 if there was nothing to watch, 1 if a number is missing, a symbol
never came, or the connection ended before its time: before --for was over, or without --for otherwise than because a
replay or the gateway ended (4001). A symbol that is named never came if the gateway rejected it on a channel, or has
seen nothing of it; a wildcard never came if neither a tick nor a state of a symbol under it did. Whoever ends the watch
by Ctrl-C, or by closing its output, has seen enough: then it is 1 only if a number is missing.";

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
    /// Say what is in captures, and what is missing in them.
    #[command(after_help = READ_TO_THE_END)]
    Inspect(InspectArgs),
    /// Write the ticks of captures as JSON lines, CSV or Parquet.
    #[command(after_help = READ_TO_THE_END)]
    Convert(ConvertArgs),
    /// Subscribe from the terminal, and check that nothing is missing.
    #[command(after_help = WATCHED)]
    Watch(WatchArgs),
    /// Show the latencies that interval logs hold: by stages, beside another run, against a budget. Or what a flight holds.
    Report(ReportArgs),
    /// Write a synthetic capture in a venue's own messages.
    Generate(GenerateArgs),
    /// Check the configuration and captures without serving. A line that cannot be read makes the exit code 1, too.
    #[command(after_help = READ_TO_THE_END)]
    Check(CheckArgs),
}

/// What every command that serves takes.
#[derive(Debug, Args)]
struct ServerArgs {
    /// Where clients connect, over `server.listen`; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where the operator reads /metrics, over `admin.listen`; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Write down what comes in, in a folder per feed line under this one: over `record.dir` and `record.enabled`.
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
    /// The configuration.
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
    /// 1 is as recorded, 10 ten times as fast, 0 flat out: the feed waits for nobody.
    #[arg(long, default_value = "1", value_name = "FACTOR", allow_negative_numbers = true)]
    speed: Speed,
    /// From the end to the beginning again.
    #[arg(long = "loop", conflicts_with = "exit")]
    looped: bool,
    /// Where to begin: 2021-04-17T16:43:37Z or …T18:43:37+02:00, a time since 1970 in s, ms or µs, or +5m after the first record.
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Before what to end, written in the same way.
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// How much of a longer silence to wait for, as 5s or 250ms.
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    max_idle: Option<u64>,
    /// End when the last tick is sent.
    #[arg(long)]
    exit: bool,
    /// Start once so many clients have subscribed.
    #[arg(long, default_value_t = 0, value_name = "N")]
    wait_subscribers: usize,
    /// Whose messages the captures hold; told by looking if left out.
    #[arg(long)]
    venue: Option<Wire>,
    /// Checks of the venue's messages to leave out: checksum, sequence, crossed, with commas between them.
    #[arg(long, value_name = "CHECKS", value_parser = ChecksOff::parse)]
    checks_off: Option<ChecksOff>,
    /// End at the first line that cannot be read.
    #[arg(long)]
    strict: bool,
    /// A configuration for everything but the feeds; without it every key has its default.
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
    /// Whose messages the captures hold; told by looking if left out.
    #[arg(long)]
    venue: Option<Wire>,
    /// Checks of the venue's messages to leave out: checksum, sequence, crossed, with commas between them.
    #[arg(long, value_name = "CHECKS", value_parser = ChecksOff::parse)]
    checks_off: Option<ChecksOff>,
    /// Stop at the first line that cannot be read.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The captures, or folders of recordings, each looked at alone.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Whose messages the captures hold; told by looking if left out.
    #[arg(long)]
    venue: Option<Wire>,
    /// Checks of the venue's messages to leave out: checksum, sequence, crossed, with commas between them.
    #[arg(long, value_name = "CHECKS", value_parser = ChecksOff::parse)]
    checks_off: Option<ChecksOff>,
    /// One JSON object a file, times in nanoseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ConvertArgs {
    #[command(flatten)]
    captures: CaptureArgs,
    /// What to write: ndjson (what `normalize` prints), csv (the columns of tardis.dev's data sets) or parquet.
    #[arg(long, value_name = "FORM")]
    to: Target,
    /// The file of JSON lines (stdout if left out), or the folder for the tables.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    /// The venue whose messages are written: coinbase, binance, binance-futures, kraken or native.
    #[arg(long)]
    venue: Wire,
    /// The symbols, in the venue's spelling, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    symbols: Vec<String>,
    /// Seconds that the capture lasts.
    #[arg(long)]
    seconds: u32,
    /// Messages a second, over all symbols.
    #[arg(long)]
    rate: u32,
    /// The same seed makes the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// When it begins, nanoseconds since the Unix epoch.
    #[arg(long, default_value_t = offline::GENERATE_START_NS)]
    start_ns: u64,
    /// Where it goes, compressed if it ends in .zst or .gz; stdout if left out.
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
    /// Whose messages these captures hold; told by looking if left out.
    #[arg(long)]
    venue: Option<Wire>,
    /// Any key of the configuration: section.key=value. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// The command line, with its examples in the help of each command.
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

/// Does what the command line says. The exit code is 0 if all was well, 1 if what was asked for found or did
/// something wrong, 2 if it could not begin.
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

/// The environment. What is not UTF-8 is none of ours, unless its name says so.
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
    // There is nowhere to report that stderr is gone.
    let _ = writeln!(io::stderr().lock(), "tickfan: {}", printable::lines(what.trim_end()));
}

fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = args.server.load(Some(&args.config))?;
    run(Job { config, exit_at_end: false, wait_subscribers: 0, summary: false })
}

fn replay(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut config = args.server.load(args.config.as_deref())?;
    config.feed = vec![Feed {
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

/// Reads a duration of whole milliseconds.
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
        // Nobody reads it: that is no reason not to serve.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }))?;
    // What still runs in the background is of no more use to anybody.
    runtime.shutdown_background();
    Ok(match outcome {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::FeedFailed | Outcome::Truncated => ExitCode::FAILURE,
    })
}

fn normalize(args: CaptureArgs) -> anyhow::Result<ExitCode> {
    let (limits, mut hidden) = (Config::bare().limits, Progress::hidden());
    let (out, log) = (io::stdout().lock(), io::stderr());
    Ok(code_of(offline::normalize(&args.captures(), &limits, out, log, &mut hidden)?))
}

/// Where not all that was there could be read, what was asked for is not whole.
fn code_of(input: Input) -> ExitCode {
    match input {
        Input::Whole => ExitCode::SUCCESS,
        Input::Truncated => ExitCode::FAILURE,
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
    let mut input = Input::Whole;
    for file in &args.files {
        let mut progress = Progress::on_terminal(&Clock::real());
        let report = offline::inspect(file, args.venue, checks_off, &limits, &mut progress)?;
        if report.is_truncated() {
            input = Input::Truncated;
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

/// Prints a report as a line of JSON, where there is one, or as text. False where whoever read the output has seen enough.
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
    // Standard error is not locked: the bar is drawn on it.
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

/// Columns of a terminal that does not tell, or of a file.
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
    // Captures may be checked where there is no configuration.
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

    /// The words of a line as a shell reads them, as far as the examples go: quotes, and nothing behind a pipe.
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
