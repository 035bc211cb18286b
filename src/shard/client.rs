//! A session with its socket: what is written, and what that took.

use std::io;

use super::interest::{Awaited, Wildcard};
use super::sessions::{Socket, Who};
use crate::clock::Clock;
use crate::counters::ShardCounters;
use crate::latency::Stage;
use crate::latency::meter::Meter;
use crate::session::{Session, Strip};
use crate::tick::Key;

/// A session with its socket.
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) session: Session,
    pub(super) who: Who,
    /// No other session of this shard ever has it: the place of a connection is used again.
    pub(super) serial: u64,
    /// When it came, microseconds since the Unix epoch.
    pub(super) since_us: u64,
    /// Its subscriptions and their places in the table, sorted by key.
    pub(super) places: Vec<(Key, u32)>,
    /// Wildcards, which take instruments listed later.
    pub(super) wildcards: Vec<Wildcard>,
    /// Symbols that nobody lists yet.
    pub(super) awaited: Vec<Awaited>,
    /// From where it reads the ring again, while it resumes.
    pub(super) reading: Option<u64>,
    /// Which news of the replay it was told.
    pub(super) news: u64,
    /// In the queue of those with something to write.
    pub(super) queued: bool,
    /// Looked at again and again, because its socket was full.
    pub(super) watched: bool,
    /// The socket failed, or did not take its last words in time.
    pub(super) dead: bool,
    /// Requests it may still make, in thousandths, less than none after costly ones; and when that was reckoned.
    pub(super) tokens_milli: i64,
    pub(super) tokens_at_ns: u64,
}

/// What a write counts and measures with.
pub(super) struct Around<'a> {
    pub(super) counters: &'a ShardCounters,
    pub(super) clock: &'a Clock,
    pub(super) meter: &'a mut Meter,
}

impl Around<'_> {
    /// The kernel has just taken the first `n` bytes of what waits for a session.
    #[inline]
    fn measure(&mut self, session: &Session, n: usize) {
        if self.meter.is_on() && n > 0 {
            let now_ns = self.clock.wall_ns();
            session.going(n, |times, weight| {
                self.meter.record(Stage::Write, times.class, times.tx_ns, now_ns, weight);
                self.meter.record(Stage::Total, times.class, times.rx_ns, now_ns, weight);
            });
        }
    }
}

impl<S: Socket> Connection<S> {
    /// One write of what waits. A socket that takes nothing is left alone until it is writable.
    pub(super) fn write(&mut self, around: &mut Around<'_>, now_ns: u64) {
        if self.session.is_blocked() || self.dead {
            return;
        }
        let Self { session, socket, .. } = self;
        match session.show(|slices| socket.write(slices)) {
            Ok(0) if !self.session.outbox().is_empty() => self.dead = true,
            Ok(n) => {
                around.counters.writes.add(u64::from(n > 0));
                around.counters.bytes.add(n as u64);
                around.measure(&self.session, n);
                self.session.wrote(n, now_ns);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.session.block(now_ns),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.dead = true,
        }
        if self.dead || self.session.is_blocked() {
            // Nobody counts on its turn to come before the tape comes round.
            self.session.own();
            self.socket.kick();
        }
    }

    /// Writes what is urgent, or all there is, though the socket holds as much unsent as it may. What even the kernel
    /// does not take waits its turn.
    pub(super) fn force(&mut self, all: bool, counters: &ShardCounters) {
        let bytes = self.session.copied(all);
        if bytes.is_empty() || self.dead {
            return;
        }
        if all {
            self.socket.keep_last_words();
        }
        if let Ok(n) = self.socket.force(&bytes) {
            counters.writes.add(1);
            counters.bytes.add(n as u64);
            self.session.forced(n);
        }
    }

    /// Queues a tick's frame. A full outbox is written before it is given up: only a client whose socket takes
    /// nothing is slow.
    #[inline]
    pub(super) fn offer(&mut self, frame: Strip, around: &mut Around<'_>, now_ns: u64) -> bool {
        // Of a dead one nothing will be read any more.
        if self.dead || self.session.offer(frame, now_ns) {
            return true;
        }
        self.write(around, now_ns);
        self.session.offer(frame, now_ns)
    }
}

impl<S> Connection<S> {
    pub(super) fn place(&self, key: Key) -> Option<u32> {
        let at = self.places.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(self.places[at].1)
    }

    pub(super) fn is_subscribed(&self) -> bool {
        !(self.places.is_empty() && self.wildcards.is_empty() && self.awaited.is_empty())
    }
}
