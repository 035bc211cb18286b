//! The socket of a client, as a shard uses it, and what a client's connection is known by.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use crate::net::Peer;

/// A client's socket, as a shard uses it. Tests have their own.
pub trait Socket {
    /// Writes as much as the kernel takes now, of at least one slice.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it takes nothing; anything else ends the connection.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Writes though the socket holds as much unsent as it may: what comes last, and what a slow client has to know.
    ///
    /// # Errors
    /// As [`write`](Self::write), when even the kernel has no room.
    fn force(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// What the kernel knows of the other side; `None` where the system does not report it.
    fn peer(&self) -> Option<Peer>;

    /// Bytes it took that the other side has not acknowledged; 0 where the system does not report it.
    fn unacked(&self) -> u64;

    /// Something happened to the session that its driver has to look at: see [`Sessions::wants`](super::Sessions::wants).
    fn kick(&self);

    /// Prefetches what a write reads. The sum it returns means nothing.
    fn prefetch(&self) -> usize {
        0
    }
}

/// What identifies a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Random name of the session.
    pub name: Box<str>,
    /// Where it connected from.
    pub peer: Option<SocketAddr>,
}

/// What the driver of a connection has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Requests may be read.
    pub read: bool,
    /// The socket took nothing: wait until it can be written to.
    pub write: bool,
    /// Everything is out and nothing more will come, or the socket failed: end it.
    pub end: bool,
}
