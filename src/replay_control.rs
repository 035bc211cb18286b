//! The remote control of a replay: orders on their way to it, and what it shows of itself. Nobody waits for anybody:
//! there is room for so many orders, and of what is shown only the newest counts.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::atomic::AtomicCell;
use crossbeam::queue::ArrayQueue;
use tokio::sync::Notify;

use crate::auth::Token;
use crate::protocol::replay::{Control, OutOfSpan, Playback, ReplayCommand, Span};

/// Why an order is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is a token, and it was not shown.
    #[error("a replay is controlled with the token of [replay] control_token")]
    WrongToken,
    /// There is no token, and the client is on another machine.
    #[error("without a [replay] control_token only clients of this machine may control the replay")]
    NotLocal,
    /// Too many orders wait already.
    #[error("too many commands wait for the replay")]
    Busy,
    /// It is to go to where it has nothing.
    #[error("`to`: {0}")]
    OutOfSpan(OutOfSpan),
}

impl Refusal {
    /// The word in an `error`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::WrongToken => "unauthorised",
            Self::NotLocal => "forbidden",
            Self::Busy => "rate_limited",
            Self::OutOfSpan(_) => "out_of_span",
        }
    }

    /// Whether the same order may be taken later.
    pub const fn retry(self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// The word and the sentence of an `error` where there is no replay to control.
pub const NOT_A_REPLAY: (&str, &str) =
    ("not_a_replay", "this gateway does not serve one replay: there is nothing to control");

/// What a replay shows, and how many ticks were published before that.
#[derive(Clone, Copy, Debug)]
pub struct ReplaySnapshot {
    /// Where it is.
    pub playback: Playback,
    /// Where it can be told to go.
    pub span: Span,
    /// The position of the ring: who has read up to it has seen all that came before.
    pub published: u64,
}

/// Who may control a replay.
pub enum ControlPolicy {
    /// Whoever shows this.
    Token(Token),
    /// Clients of this machine.
    Local,
    /// Whoever has come to where it is served.
    Anybody,
}

impl ControlPolicy {
    /// Whoever shows this token, or clients of this machine if it is empty.
    pub fn of_token(token: &str) -> Self {
        Token::new(token).map_or(Self::Local, Self::Token)
    }
}

/// The remote control of one replay.
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
    /// A remote control that those may use whom `admission` lets. So many orders may wait; `wake` wakes the thread that takes
    /// them.
    pub fn new(admission: ControlPolicy, commands_max: usize, wake: Arc<Notify>) -> Self {
        Self {
            admission,
            commands: ArrayQueue::new(commands_max.max(1)),
            wake,
            shown: AtomicCell::new(None),
            version: AtomicU64::new(0),
        }
    }

    /// Whether somebody who shows this may control the replay.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
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

    /// Gives an order, if whoever gives it may. It is carried out soon after.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn give(&self, control: &Control, peer: Option<IpAddr>) -> Result<(), Refusal> {
        self.admits(control.token.as_deref().map(str::as_bytes), peer)?;
        if let (ReplayCommand::Seek(moment), Some(shown)) = (control.command, self.shown()) {
            shown.span.check(moment).map_err(Refusal::OutOfSpan)?;
        }
        self.commands.push(control.command).map_err(|_| Refusal::Busy)?;
        self.wake.notify_one();
        Ok(())
    }

    /// The next order.
    pub fn take(&self) -> Option<ReplayCommand> {
        self.commands.pop()
    }

    /// Shows where the replay is.
    pub fn show(&self, shown: ReplaySnapshot) {
        self.shown.store(Some(shown));
        // Release pairs with the Acquire in `version`: who sees this number sees what is shown, or something newer.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// What is shown; `None` before the first time.
    pub fn shown(&self) -> Option<ReplaySnapshot> {
        self.shown.load()
    }

    /// Counts how often something was shown.
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
        // Whether a token helps can be told from the word alone.
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
    fn orders_have_a_bound_and_keep_their_order() {
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
