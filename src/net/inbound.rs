//! Incoming WebSocket frames: tungstenite parses them without owning the socket, and their cost is limited
//! before it sees them. Used for clients and publishers alike.

use std::io::{self, Read, Write};

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use crate::protocol::close::Close;
use crate::protocol::frame::Scanner;

/// The limits of what one peer may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Bytes of a message.
    pub(crate) message_bytes: usize,
    /// Fragments of a message.
    pub(crate) fragments: u32,
    /// Control frames per second.
    pub(crate) controls_per_s: u32,
}

/// The number of control frames of a peer in the second that began at `second_ns`.
#[derive(Debug)]
pub(crate) struct Controls {
    count: u32,
    second_ns: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Controls {
    /// Returns a counter at 0. Times are steady nanoseconds.
    pub(crate) fn new(now_ns: u64) -> Self {
        Self { count: 0, second_ns: now_ns }
    }

    /// Counts the frames in received bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::QuotaExceeded`] if a limit is exceeded.
    pub(crate) fn take_in(
        &mut self,
        bytes: &[u8],
        scanner: &mut Scanner,
        most: Most,
        now_ns: u64,
    ) -> io::Result<()> {
        let parts = scanner.feed(bytes);
        if now_ns.saturating_sub(self.second_ns) >= SECOND_NS {
            (self.second_ns, self.count) = (now_ns, 0);
        }
        self.count = self.count.saturating_add(scanner.take_controls());
        if parts > most.fragments || self.count > most.controls_per_s {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }

    /// Removes one control frame from the count, because it was requested (a pong).
    pub(crate) fn was_asked_for(&mut self) {
        self.count = self.count.saturating_sub(1);
    }
}

/// The stream that tungstenite reads from and replies to: pongs and close frames are queued like all other
/// bytes.
pub(crate) struct Shim<'a> {
    /// The socket.
    pub(crate) stream: &'a TcpStream,
    /// Replies from tungstenite, to be sent.
    pub(crate) replies: Vec<u8>,
    /// Scans every received byte.
    pub(crate) scanner: &'a mut Scanner,
    /// The control frames in this second.
    pub(crate) controls: &'a mut Controls,
    /// The limits.
    pub(crate) most: Most,
    /// The time, in steady nanoseconds.
    pub(crate) now_ns: u64,
    /// Bytes that may still be read in this turn.
    pub(crate) left: usize,
}

impl Read for Shim<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = into.len().min(self.left);
        let n = self.stream.try_read(&mut into[..most])?;
        self.left -= n;
        self.controls.take_in(&into[..n], self.scanner, self.most, self.now_ns)?;
        Ok(n)
    }
}

impl Write for Shim<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a parser that processes the bytes `early` before those of the socket. It reads `read_bytes` at
/// once, and zeroes as many before each read.
pub(crate) fn parser(early: Vec<u8>, most: Most, read_bytes: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(read_bytes)
        .write_buffer_size(0)
        .max_message_size(Some(most.message_bytes))
        .max_frame_size(Some(most.message_bytes));
    WebSocketContext::from_partially_read(early, Role::Server, Some(config))
}

/// Returns the close code for an error in a peer's frames; `None` if the connection has ended anyway.
pub(crate) fn close_for(error: &Error) -> Option<Close> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(Close::TooBig),
        Error::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => Some(Close::Limit),
        Error::Utf8(_) => Some(Close::NotUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_) => None,
        _ => Some(Close::Protocol),
    }
}
