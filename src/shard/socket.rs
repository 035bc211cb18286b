//! The socket of a client, as a shard uses it, and what identifies a client.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use crate::net::Peer;

/// A client's socket, as a shard uses it. Tests have their own.
pub trait Socket {
    /// Writes as much as the kernel takes now, from one or more of the slices.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it takes nothing; anything else ends the connection.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Writes even if the socket has reached its limit of unsent bytes. For last frames, and for what a slow client has
    /// to know.
    ///
    /// # Errors
    /// As [`write`](Self::write), if the kernel buffer itself is full.
    fn force(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// What the kernel knows of the peer; `None` where the system does not report it.
    fn peer(&self) -> Option<Peer>;

    /// Bytes that the kernel took and the peer has not acknowledged; 0 where the system does not report it.
    fn unacked(&self) -> u64;

    /// Wakes the driver, because what the session [wants](super::Sessions::wants) may have changed.
    fn kick(&self);

    /// Prefetches what a write reads. The returned value has no meaning.
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
    /// End the connection: everything is sent and nothing more will come, or the socket has failed.
    pub end: bool,
}
