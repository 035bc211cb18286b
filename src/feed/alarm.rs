//! A timer for the ingest thread. The timer of its async runtime has a resolution of 1 ms, which is too
//! coarse to pace a replay.

use std::io;
use std::time::Duration;

/// Wakes one task, with the accuracy of the kernel's timers.
pub(super) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// Returns a timer registered with the current runtime.
    ///
    /// # Errors
    /// The I/O error if the system cannot create or register a timer.
    // The reason for the deprecation does not apply to an owned descriptor, and there is no safe successor.
    #[expect(deprecated, reason = "the safe way to register an owned descriptor")]
    pub(super) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: tokio::io::unix::AsyncFd::new(timer)? })
    }

    /// Waits for `longest`. Safe to cancel.
    ///
    /// # Errors
    /// The I/O error of the timer.
    pub(super) async fn wait(&self, longest: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would disarm the timer.
        let value = Timespec::try_from(longest.max(Duration::from_nanos(1))).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.timer.readable().await?;
            match rustix::io::read(&self.timer, &mut [0; 8]) {
                // The expiry belonged to a cancelled wait.
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// Returns a timer that uses the current runtime.
    ///
    /// # Errors
    /// None on this platform.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for `longest`, rounded to 1 ms. Safe to cancel.
    ///
    /// # Errors
    /// None on this platform.
    pub(super) async fn wait(&self, longest: Duration) -> io::Result<()> {
        tokio::time::sleep(longest).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_is_never_early_and_can_be_set_again() {
        let alarm = Alarm::new().expect("a timer");
        for us in [1, 300, 2_000] {
            let long = alarm.wait(Duration::from_secs(60));
            assert!(tokio::time::timeout(Duration::from_millis(1), long).await.is_err());
            let longest = Duration::from_micros(us);
            let begun = Instant::now();
            alarm.wait(longest).await.expect("it rings");
            assert!(begun.elapsed() >= longest);
        }
    }
}
