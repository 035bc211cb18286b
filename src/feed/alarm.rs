//! An alarm for the ingest thread. The timer of its runtime counts in milliseconds, which is too coarse for the pace of a
//! replay.

use std::io;
use std::time::Duration;

/// Wakes one task, to the accuracy of the kernel's timers.
pub(super) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// An alarm on the runtime that this is called from.
    ///
    /// # Errors
    /// What the system says when it gives no timer.
    // What is wrong with it for other types cannot be with an owned descriptor, and there is no safe heir.
    #[expect(deprecated, reason = "the safe way to register an owned descriptor")]
    pub(super) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: tokio::io::unix::AsyncFd::new(timer)? })
    }

    /// Waits for so long. It may be dropped half way.
    ///
    /// # Errors
    /// What the system says of the timer.
    pub(super) async fn wait(&self, longest: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would turn it off.
        let value = Timespec::try_from(longest.max(Duration::from_nanos(1))).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.timer.readable().await?;
            match rustix::io::read(&self.timer, &mut [0; 8]) {
                // It was an alarm that nobody waited for any more.
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// An alarm on the runtime that this is called from.
    ///
    /// # Errors
    /// Never here.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for so long, to the millisecond. It may be dropped half way.
    ///
    /// # Errors
    /// Never here.
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
