//! What ends a gateway that does not work any more: a process that a supervisor starts anew serves clients better
//! than one that accepts connections and sends nothing.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::panic;
use std::process;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::engine::Shards;
use crate::feed::IngestView;
use crate::system::pulse::{Beating, Finding, LOOK_EVERY_NS, Pulse, Watcher};
use crate::time::clock::Clock;

/// The exit code after a panic: `EX_SOFTWARE` of sysexits.h.
const PANICKED: i32 = 70;
/// The exit code where a thread hangs: `EX_TEMPFAIL` of sysexits.h, for to start it anew may help.
const HANGS: i32 = 75;
/// How often the control thread shows that it moves.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// How long the last words may take: the reader of the log may hang as well.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Has the process end, with exit code 70, once any of its threads has panicked. Only the threads of rooms end
/// alone, and their room with them.
///
/// A panic may leave the state that all clients of a thread share half changed, which no check finds: their
/// accounts might not add up any more.
pub(super) fn end_on_panic() {
    panic::set_hook(Box::new(move |what| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        let trace = Backtrace::capture();
        let trace =
            if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
        // Not by this thread: the reader of the log may hang.
        last_words(&format!("the thread {name} has panicked: this is a bug: {what}{trace}"));
        if !name.starts_with("room") {
            process::exit(PANICKED);
        }
    }));
}

/// Writes to the log, but does not wait for it for long.
fn last_words(what: &str) {
    let (tell, told) = std_mpsc::channel();
    // There is nowhere to report that the log is gone.
    let write = |what: &str| drop(writeln!(std::io::stderr().lock(), "tickfan: {what}"));
    let last_words = what.to_owned();
    let thread = move || {
        write(&last_words);
        let _ = tell.send(());
    };
    match thread::Builder::new().name("last-words".to_owned()).spawn(thread) {
        Ok(_) => drop(told.recv_timeout(LAST_WORDS)),
        // To say it and perhaps to wait is better than to end without a word.
        Err(_) => write(what),
    }
}

/// The threads that are watched.
pub(super) struct Guarded {
    pub(super) all: Arc<[Arc<Pulse>]>,
    control: Beating,
}

/// The threads that serve: the gateway hangs if one of them does.
pub(super) fn pulses(view: &IngestView, shards: &Shards) -> Guarded {
    let control = Pulse::new("control");
    let beating = control.begin();
    let all = [control, Arc::clone(&view.pulse)]
        .into_iter()
        .chain(shards.handles.iter().map(|shard| Arc::clone(&shard.pulse)))
        .collect();
    Guarded { all, control: beating }
}

impl Guarded {
    /// Watches from now on, on a thread of its own that waits for none. It is called on the control thread.
    pub(super) fn watch(
        self,
        hang_after_ms: u64,
        clock: &Clock,
        notices: mpsc::Sender<String>,
    ) -> std::io::Result<()> {
        let Self { all, control } = self;
        tokio::spawn(async move {
            loop {
                control.beat();
                tokio::time::sleep(BEAT_EVERY).await;
            }
        });
        let clock = clock.clone();
        let pulses = all.iter().cloned();
        let steps = Arc::clone(clock.steps());
        let mut watcher = Watcher::new(pulses, steps, hang_after_ms, clock.now(), clock.slept_ns());
        let watch = move || loop {
            thread::park_timeout(Duration::from_nanos(LOOK_EVERY_NS));
            for finding in watcher.look(clock.now(), clock.slept_ns()) {
                let what = told(&finding);
                if matches!(finding, Finding::Hangs(..)) {
                    last_words(&what);
                    process::exit(HANGS);
                }
                // What finds no room in the log is in the metrics.
                let _ = notices.try_send(what);
            }
        };
        thread::Builder::new().name("watcher".to_owned()).spawn(watch).map(drop)
    }
}

fn told(finding: &Finding) -> String {
    let seconds = |ms: u64| ms as f64 / 1e3;
    let set = |us: i64| us as f64 / 1e6;
    match finding {
        Finding::Late(name, ms) => format!("the thread {name} has not moved for {:.1} s", seconds(*ms)),
        Finding::GoesOn(name, ms) => format!("the thread {name} goes on after {:.1} s", seconds(*ms)),
        Finding::Hangs(name, ms) => {
            format!(
                "the thread {name} hangs: it has not moved for {:.1} s, and the process ends",
                seconds(*ms)
            )
        }
        Finding::Stood(ms) => {
            format!(
                "the process did not run for {:.1} s: deadlines of clients are moved by that",
                seconds(*ms)
            )
        }
        Finding::ClockSet(us) => {
            format!("clock_step: the wall clock was set by {:+.3} s, and `rx` follows", set(*us))
        }
        Finding::Slept(us) => {
            format!(
                "clock_step: the machine slept: the wall clock is {:+.3} s on, and `rx` follows",
                set(*us)
            )
        }
    }
}
