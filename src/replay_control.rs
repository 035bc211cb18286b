//! Replay control: passes commands to a replay, and publishes its position. No side blocks: the command queue
//! is bounded, and only the newest position is kept.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::atomic::AtomicCell;
use crossbeam::queue::ArrayQueue;
use tokio::sync::Notify;

use crate::auth::Token;
use crate::protocol::replay::{Control, OutOfSpan, Playback, ReplayCommand, Span};

/// Reason to refuse a replay command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A token is configured, and the request does not contain it.
    #[error("a replay is controlled with the token of [replay] control_token")]
    WrongToken,
    /// No token is configured, and the client is not on this machine.
    #[error("without a [replay] control_token only clients of this machine may control the replay")]
    NotLocal,
    /// The command queue is full.
    #[error("too many commands wait for the replay")]
    Busy,
    /// The target of a seek is outside the replay.
    #[error("`to`: {0}")]
    OutOfSpan(OutOfSpan),
}

impl Refusal {
    /// The code of the `error` message.
    pub const fn code(self) -> &'static str {
        match self {
            Self::WrongToken => "unauthorised",
            Self::NotLocal => "forbidden",
            Self::Busy => "rate_limited",
            Self::OutOfSpan(_) => "out_of_span",
        }
    }

    /// Whether the same command may succeed later.
    pub const fn retry(self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// Code and message of the `error` where no replay can be controlled.
pub const NOT_A_REPLAY: (&str, &str) =
    ("not_a_replay", "this gateway does not serve one replay: there is nothing to control");

/// Position of a replay, and the number of ticks published before it.
#[derive(Clone, Copy, Debug)]
pub struct ReplaySnapshot {
    /// Position of the replay.
    pub playback: Playback,
    /// The range of seek targets.
    pub span: Span,
    /// Position in the ring: a reader that has read up to it has seen everything published before the
    /// snapshot.
    pub published: u64,
}

/// Which clients may control a replay.
pub enum ControlPolicy {
    /// Clients that send this token.
    Token(Token),
    /// Clients of this machine.
    Local,
    /// Every client that can reach the listener.
    Anybody,
}

impl ControlPolicy {
    /// The policy for a configured token: clients that send it, or clients of this machine if it is empty.
    pub fn of_token(token: &str) -> Self {
        Token::new(token).map_or(Self::Local, Self::Token)
    }
}

/// Commands and position of one replay.
pub struct ReplayControl {
    admission: ControlPolicy,
    commands: ArrayQueue<ReplayCommand>,
    wake: Arc<Notify>,
    shown: AtomicCell<Option<ReplaySnapshot>>,
    version: AtomicU64,
}

impl fmt::Debug for ReplayControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayControl").field("shown", &self.shown.load()).finish_non_exhaustive()
    }
}

impl ReplayControl {
    /// Creates a control for the clients that `admission` permits. At most `commands_max` commands are
    /// queued; `wake` wakes the thread that takes them.
    pub fn new(admission: ControlPolicy, commands_max: usize, wake: Arc<Notify>) -> Self {
        Self {
            admission,
            commands: ArrayQueue::new(commands_max.max(1)),
            wake,
            shown: AtomicCell::new(None),
            version: AtomicU64::new(0),
        }
    }

    /// Checks whether a client with this token and address may control the replay.
    ///
    /// # Errors
    /// [`Refusal`] gives the reason.
    pub fn admits(&self, token: Option<&[u8]>, peer: Option<IpAddr>) -> Result<(), Refusal> {
        let (admitted, refusal) = match &self.admission {
            ControlPolicy::Anybody => return Ok(()),
            ControlPolicy::Local => {
                (peer.is_some_and(|ip| ip.to_canonical().is_loopback()), Refusal::NotLocal)
            }
            ControlPolicy::Token(secret) => {
                (token.is_some_and(|token| secret.is(token)), Refusal::WrongToken)
            }
        };
        if admitted { Ok(()) } else { Err(refusal) }
    }

    /// Queues a command if the client may control the replay. The command is executed asynchronously.
    ///
    /// # Errors
    /// [`Refusal`] gives the reason.
    pub fn give(&self, control: &Control, peer: Option<IpAddr>) -> Result<(), Refusal> {
        self.admits(control.token.as_deref().map(str::as_bytes), peer)?;
        if let (ReplayCommand::Seek(moment), Some(shown)) = (control.command, self.shown()) {
            shown.span.check(moment).map_err(Refusal::OutOfSpan)?;
        }
        self.commands.push(control.command).map_err(|_| Refusal::Busy)?;
        self.wake.notify_one();
        Ok(())
    }

    /// Takes the next queued command.
    pub fn take(&self) -> Option<ReplayCommand> {
        self.commands.pop()
    }

    /// Publishes the position of the replay.
    pub fn show(&self, shown: ReplaySnapshot) {
        self.shown.store(Some(shown));
        // Pairs with the Acquire in `version`: a reader of this number sees this position or a newer one.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The newest position; `None` before the first.
    pub fn shown(&self) -> Option<ReplaySnapshot> {
        self.shown.load()
    }

    /// Number of published positions.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(token: &str) -> ReplayControl {
        ReplayControl::new(ControlPolicy::of_token(token), 2, Arc::default())
    }

    #[test]
    fn who_may_control_is_told_by_the_token_or_by_the_address() {
        let (near, far) =
            (["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"], ["10.0.0.1", "::2", "0.0.0.0"]);
        let ip = |text: &str| Some(text.parse().expect("an address"));
        for near in near {
            assert_eq!(remote("").admits(None, ip(near)), Ok(()), "{near}");
            assert_eq!(remote("").admits(Some(b"x"), ip(near)), Ok(()), "{near}");
            assert_eq!(remote("secret").admits(None, ip(near)), Err(Refusal::WrongToken), "{near}");
        }
        for far in far {
            assert_eq!(remote("").admits(None, ip(far)), Err(Refusal::NotLocal), "{far}");
            assert_eq!(remote("secret").admits(Some(b"secret"), ip(far)), Ok(()), "{far}");
        }
        assert_eq!(remote("").admits(None, None), Err(Refusal::NotLocal));
        // The code alone tells whether a token helps.
        assert_eq!(
            [Refusal::WrongToken, Refusal::NotLocal].map(Refusal::code),
            ["unauthorised", "forbidden"]
        );
        let anybody = ReplayControl::new(ControlPolicy::Anybody, 2, Arc::default());
        assert_eq!(anybody.admits(None, ip("10.0.0.1")), Ok(()));
        for wrong in ["", "s", "secreT", "secretsecret", "secret\0"] {
            assert_eq!(remote("secret").admits(Some(wrong.as_bytes()), None), Err(Refusal::WrongToken));
        }
    }

    #[test]
    fn commands_have_a_bound_and_keep_their_order() {
        let remote = remote("");
        let give =
            |command| remote.give(&Control { command, token: None }, Some(IpAddr::from([127, 0, 0, 1])));
        let given = [ReplayCommand::Pause, ReplayCommand::Resume, ReplayCommand::Stop].map(give);
        assert_eq!(given, [Ok(()), Ok(()), Err(Refusal::Busy)]);
        assert_eq!(
            [(); 3].map(|()| remote.take()),
            [Some(ReplayCommand::Pause), Some(ReplayCommand::Resume), None]
        );
        assert_eq!(remote.version(), 0);
        assert!(remote.shown().is_none());
    }
}
