//! Progress bar of long commands.

use std::io::{self, IsTerminal, Write};

use crate::time::clock::{Clock, MS};

/// Steps between two readings of the clock.
const STEPS: u32 = 4_096;
/// Shortest interval between two redraws.
const EVERY_NS: u64 = 200 * MS;
/// Width of the bar, characters.
const WIDTH: usize = 30;

/// A progress bar on standard error, if that is a terminal; otherwise nothing.
pub struct Progress {
    clock: Option<Clock>,
    steps: u32,
    drawn_ns: u64,
    drawn: bool,
}

impl Progress {
    /// A bar that is shown if standard error is a terminal.
    pub fn on_terminal(clock: &Clock) -> Self {
        let clock = io::stderr().is_terminal().then(|| clock.clone());
        Self { clock, ..Self::hidden() }
    }

    /// A bar that is never shown.
    pub fn hidden() -> Self {
        Self { clock: None, steps: 0, drawn_ns: 0, drawn: false }
    }

    /// Advances; `done` returns the bytes done and the bytes in total.
    #[inline]
    pub fn step(&mut self, done: impl FnOnce() -> (u64, u64)) {
        let Some(clock) = &self.clock else { return };
        self.steps += 1;
        if self.steps < STEPS {
            return;
        }
        self.steps = 0;
        let now_ns = clock.now().mono_ns;
        if now_ns.saturating_sub(self.drawn_ns) >= EVERY_NS {
            self.drawn_ns = now_ns;
            self.drawn = true;
            say(&format!("\r{}", bar(done())));
        }
    }

    /// Removes the bar, so that the line is free for other output.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.drawn) {
            say("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn say(text: &str) {
    let mut out = io::stderr().lock();
    // An error means that the terminal is gone.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// `[=====>    ] 42% of 120 MB`
fn bar((done, all): (u64, u64)) -> String {
    let all = all.max(1);
    let done = done.min(all);
    let share = |of: u64| (u128::from(done) * u128::from(of) / u128::from(all)) as usize;
    let filled = share(WIDTH as u64);
    format!(
        "[{}{}] {:>3}% of {} MB",
        "=".repeat(filled),
        " ".repeat(WIDTH - filled),
        share(100),
        all.div_ceil(1_000_000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_what_is_done() {
        assert_eq!(bar((0, 0)), format!("[{}]   0% of 1 MB", " ".repeat(30)));
        assert_eq!(bar((50, 100)), format!("[{}{}]  50% of 1 MB", "=".repeat(15), " ".repeat(15)));
        assert_eq!(bar((u64::MAX, u64::MAX)), format!("[{}] 100% of 18446744073710 MB", "=".repeat(30)));
    }
}
