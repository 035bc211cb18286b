//! Why connections end, and how their sockets close.

use std::io;

use crate::protocol::close::Close;
use crate::system::counters::Ending;

/// How the socket of an ended session closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It is read for a moment more, so that the last frames arrive.
    Linger,
    /// The client was cut, and is given time to read the last frames.
    LastWords,
    /// It is dropped, because the peer is gone.
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
            // Only publishers show tokens.
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
            // The kernel gave up before the shard did, or a router reported the host as unreachable.
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                Self::DeadPeer
            }
            _ => Self::Failed,
        }
    }
}
