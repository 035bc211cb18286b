//! Why connections end, and what becomes of their sockets.

use std::io;

use crate::protocol::close::Close;
use crate::system::counters::Ending;

/// What becomes of the socket of a session that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It is read on for a moment, so that what was said last arrives.
    Linger,
    /// The client was cut, and is given time to read what was said last.
    LastWords,
    /// The other side is gone.
    Abort,
}

impl From<Close> for Ending {
    fn from(why: Close) -> Self {
        match why {
            Close::Normal => Self::Closed,
            Close::Protocol => Self::Protocol,
            Close::Unsupported => Self::Unsupported,
            Close::NotUtf8 => Self::NotUtf8,
            Close::TooBig => Self::TooBig,
            Close::Busy => Self::Busy,
            Close::SlowConsumer => Self::SlowConsumer,
            Close::Shutdown => Self::Shutdown,
            Close::NoPong => Self::NoPong,
            // Publishers alone show tokens.
            Close::Auth | Close::Limit => Self::Limit,
            Close::RoomEnded => Self::RoomEnded,
        }
    }
}

impl From<&io::Error> for Ending {
    fn from(error: &io::Error) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::UnexpectedEof => Self::Left,
            // The kernel gave up before we did, or a router said so.
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                Self::DeadPeer
            }
            _ => Self::Failed,
        }
    }
}
