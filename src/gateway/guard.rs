//! Ends a gateway that no longer works: a process that a supervisor restarts serves clients better than one
//! that accepts connections and sends nothing.

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

/// Exit code after a panic: `EX_SOFTWARE` of sysexits.h.
const PANICKED: i32 = 70;
/// Exit code after a hang: `EX_TEMPFAIL` of sysexits.h, because a restart may help.
const HANGS: i32 = 75;
/// Interval at which the control thread reports progress.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Time limit for the last log message, because the reader of the log may hang.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Makes any panic end the process with exit code 70. Only the threads of a room end alone, together with
/// their room.
///
/// A panic may leave state that all clients of a thread share half changed, in a way that no check detects:
/// the accounting rule might no longer hold for them.
pub(super) fn end_on_panic() {
    panic::set_hook(Box::new(move |what| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        let trace = Backtrace::capture();
        let trace =
            if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
        // On another thread, because the reader of the log may hang.
        last_words(&format!("the thread {name} has panicked: this is a bug: {what}{trace}"));
        if !name.starts_with("room") {
            process::exit(PANICKED);
        }
    }));
}

/// Writes to the log, but waits at most [`LAST_WORDS`].
fn last_words(what: &str) {
    let (tell, told) = std_mpsc::channel();
    // There is no other place to report that the log is gone.
    let write = |what: &str| drop(writeln!(std::io::stderr().lock(), "tickfan: {what}"));
    let last_words = what.to_owned();
    let thread = move || {
        write(&last_words);
        let _ = tell.send(());
    };
    match thread::Builder::new().name("last-words".to_owned()).spawn(thread) {
        Ok(_) => drop(told.recv_timeout(LAST_WORDS)),
        // Writing, possibly blocked, is better than ending without a message.
        Err(_) => write(what),
    }
}

/// The watched threads.
pub(super) struct Guarded {
    pub(super) all: Arc<[Arc<Pulse>]>,
    control: Beating,
}

/// The threads that serve clients; the gateway is considered hung if one of them is.
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
    /// Starts the watch on its own thread, which does not depend on any other. Must be called on the control
    /// thread.
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
                // A notice that the log has no room for is also visible in the metrics.
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
        Finding::GoesOn(name, ms) => format!("the thread {name} continues after {:.1} s", seconds(*ms)),
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
