//! One interface to the two transports of publishers, TCP and WebSocket: bytes of lines come in, messages go
//! out.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_tungstenite::tungstenite::protocol::WebSocketContext;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::lines::{Lines, READ_BYTES_MAX};
use crate::net::inbound::{self, Controls, Most, Shim, close_for};
use crate::net::{self, ConnectionPermit};
use crate::protocol::close::Close;
use crate::protocol::frame::{self, Scanner};
use crate::time::clock::Clock;

/// Maximum number of bytes queued for a publisher that does not read.
const OUT_BYTES_MAX: usize = 16 * 1024;
/// The longest WebSocket message of a publisher, in bytes. It may hold many lines.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that tungstenite reads at once; it zeroes this buffer before every read.
const WS_READ_BYTES: usize = 16 * 1024;
/// The same for a connection that started without the token.
const STRANGER_READ_BYTES: usize = 4 * 1024;

/// The result of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// More bytes.
    Bytes,
    /// No bytes, but there is room again to send.
    Room,
    /// The peer has ended its stream.
    End,
    /// The connection was reset: bytes in the kernel's buffers are lost, and the last line may be cut off.
    Reset,
}

/// The limits of one receive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// Maximum number of bytes added to the lines; no more than [`READ_BYTES_MAX`].
    pub(super) bytes: usize,
    /// Maximum number of WebSocket messages begun, so that other connections get their turn.
    pub(super) messages: usize,
}

impl Portion {
    /// The limits for a publisher.
    pub(super) const PUBLISHER: Self = Self { bytes: READ_BYTES_MAX, messages: 256 };
}

/// A connection. Every async method is safe to cancel.
pub(super) struct Wire {
    stream: TcpStream,
    out: Vec<u8>,
    /// `None` for JSON lines on a plain socket.
    frames: Option<Box<Frames>>,
    /// Its permit among the connections from its address, if the listener counts them.
    seat: Option<ConnectionPermit>,
}

/// JSON lines in WebSocket messages; the end of a message ends a line.
struct Frames {
    context: WebSocketContext,
    scanner: Scanner,
    controls: Controls,
    most: Most,
    clock: Clock,
    /// More fragments or control frames arrived with the handshake than allowed.
    is_flooded: bool,
    /// The rest of the message that is being read.
    message: Bytes,
}

/// A WebSocket whose handshake is complete.
pub(super) struct Shaken {
    pub(super) stream: TcpStream,
    /// Bytes already read after the handshake.
    pub(super) read_buf: Vec<u8>,
    pub(super) seat: ConnectionPermit,
}

impl Wire {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self { stream, out: Vec::new(), frames: None, seat: None }
    }

    /// Returns a WebSocket that has shown the token.
    pub(super) fn publisher_ws(shaken: Shaken, most: Most, clock: Clock) -> Self {
        Self::ws(shaken, Most { message_bytes: MESSAGE_BYTES_MAX, ..most }, WS_READ_BYTES, clock)
    }

    /// Returns a WebSocket that has not shown the token: its messages are limited by `most`.
    pub(super) fn stranger_ws(shaken: Shaken, most: Most, clock: Clock) -> Self {
        Self::ws(shaken, most, STRANGER_READ_BYTES, clock)
    }

    fn ws(shaken: Shaken, most: Most, read_bytes: usize, clock: Clock) -> Self {
        let Shaken { stream, read_buf, seat } = shaken;
        let now_ns = clock.now().mono_ns;
        let (mut scanner, mut controls) = (Scanner::default(), Controls::new(now_ns));
        let is_flooded = controls.take_in(&read_buf, &mut scanner, most, now_ns).is_err();
        let context = inbound::parser(read_buf, most, read_bytes);
        let message = Bytes::new();
        let frames = Frames { context, scanner, controls, most, clock, is_flooded, message };
        Self { stream, out: Vec::new(), frames: Some(Box::new(frames)), seat: Some(seat) }
    }

    /// Raises the message limit to that of a publisher, after the token was shown.
    pub(super) fn admit(&mut self) {
        if let Some(frames) = &mut self.frames {
            frames.most.message_bytes = MESSAGE_BYTES_MAX;
            frames.context.set_config(|config| {
                config.max_message_size = Some(MESSAGE_BYTES_MAX);
                config.max_frame_size = Some(MESSAGE_BYTES_MAX);
            });
        }
    }

    /// Moves the connection to another runtime.
    ///
    /// # Errors
    /// The I/O error if the socket cannot be registered.
    pub(super) fn move_to(self, runtime: &Handle) -> io::Result<Self> {
        let stream = self.stream.into_std()?;
        let _entered = runtime.enter();
        Ok(Self { stream: TcpStream::from_std(stream)?, ..self })
    }

    /// Returns true if messages arrive whole, so that no line continues after the received bytes.
    pub(super) fn is_framed(&self) -> bool {
        self.frames.is_some()
    }

    /// Returns true if another message may be queued with [`say`](Self::say).
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < OUT_BYTES_MAX
    }

    /// Queues a message, which is written while the wire is polled. After a close frame nothing is queued.
    pub(super) fn say(&mut self, message: &serde_json::Value) {
        let text = message.to_string();
        match &self.frames {
            None => {
                self.out.extend_from_slice(text.as_bytes());
                self.out.push(b'\n');
            }
            Some(frames) if frames.context.can_write() => frame::text(text.as_bytes(), &mut self.out),
            Some(_) => {}
        }
    }

    /// Adds received bytes to `lines`, within the limits of `portion`, and writes queued messages meanwhile.
    ///
    /// # Errors
    /// The reason to close the connection.
    pub(super) async fn receive(&mut self, lines: &mut Lines, portion: Portion) -> Result<Received, Close> {
        let was_full = !self.has_room();
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(Ok(Received::Reset));
            }
            // A peer that only reads sends nothing that would end this call.
            if was_full && self.has_room() {
                return Poll::Ready(Ok(Received::Room));
            }
            let received = match &mut self.frames {
                None => poll_bytes(&mut self.stream, cx, lines, portion),
                Some(frames) => frames.poll_receive(&self.stream, cx, lines, portion, &mut self.out),
            };
            if received.is_ready() {
                return received;
            }
            // The received bytes may have contained a ping, whose pong is queued now.
            match self.poll_flush(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(Ok(Received::Reset)),
                _ if was_full && self.has_room() => Poll::Ready(Ok(Received::Room)),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Writes everything queued.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            self.out.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything queued and closes; over WebSocket with a close frame that states the reason.
    pub(super) async fn close(mut self, why: Close) {
        self.say_why(why);
        if self.flush().await.is_ok() {
            net::linger(self.stream).await;
        }
        // Until here the connection counts among those from its address.
        drop(self.seat);
    }

    /// Closes without waiting: bytes that the kernel does not accept at once are lost.
    pub(super) fn drop_now(mut self, why: Close) {
        self.say_why(why);
        // Without room in the kernel, the peer does not receive the reason.
        self.stream.try_write(&self.out).ok();
    }

    fn say_why(&mut self, why: Close) {
        let Some(frames) = self.frames.as_ref().filter(|frames| frames.context.can_write()) else { return };
        let more = format!("one has up to {} bytes", frames.most.message_bytes);
        frame::close(why, (why == Close::TooBig).then_some(more.as_str()), &mut self.out);
    }
}

fn poll_bytes(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    lines: &mut Lines,
    portion: Portion,
) -> Poll<Result<Received, Close>> {
    lines.buffer.reserve(portion.bytes);
    let mut room = (&mut lines.buffer).limit(portion.bytes);
    Poll::Ready(Ok(match ready!(pin!(stream.read_buf(&mut room)).poll(cx)) {
        Ok(0) => Received::End,
        Ok(_) => Received::Bytes,
        Err(_) => Received::Reset,
    }))
}

impl Frames {
    fn poll_receive(
        &mut self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
        lines: &mut Lines,
        portion: Portion,
        out: &mut Vec<u8>,
    ) -> Poll<Result<Received, Close>> {
        if self.is_flooded {
            return Poll::Ready(Err(Close::Limit));
        }
        let (mut room, mut begun) = (portion.bytes, 0);
        loop {
            self.add_message(lines, &mut room);
            if room == 0 || begun == portion.messages {
                return Poll::Ready(Ok(Received::Bytes));
            }
            match self.read(stream, out) {
                Ok(Message::Text(text)) => {
                    self.message = text.into();
                    begun += 1;
                }
                Ok(Message::Binary(_)) => return Poll::Ready(Err(Close::Unsupported)),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Everything available goes into one chunk, since a chunk costs more than a line.
                    if room < portion.bytes {
                        return Poll::Ready(Ok(Received::Bytes));
                    }
                    // The next read reports an error of the socket.
                    let _ = ready!(stream.poll_read_ready(cx));
                }
                Err(error) => return Poll::Ready(ended(&error)),
            }
        }
    }

    /// Returns the next message. Replies, such as pongs, are added to `out` if there is room: a peer that
    /// reads nothing gets none.
    fn read(&mut self, stream: &TcpStream, out: &mut Vec<u8>) -> Result<Message, Error> {
        let Self { context, scanner, controls, most, clock, .. } = self;
        let now_ns = clock.now().mono_ns;
        let (replies, left) = (Vec::new(), usize::MAX);
        let mut shim = Shim { stream, replies, scanner, controls, most: *most, now_ns, left };
        let read = context.read(&mut shim);
        if out.len() < OUT_BYTES_MAX {
            out.append(&mut shim.replies);
        }
        read
    }

    /// Moves the message into `lines` as far as there is room, and ends its last line.
    fn add_message(&mut self, lines: &mut Lines, room: &mut usize) {
        let n = self.message.len().min(*room);
        if n == 0 {
            return;
        }
        lines.buffer.extend_from_slice(&self.message[..n]);
        self.message.advance(n);
        *room -= n;
        if self.message.is_empty() && lines.buffer.last() != Some(&b'\n') {
            lines.buffer.push(b'\n');
            *room = room.saturating_sub(1);
        }
    }
}

/// Translates a WebSocket error.
fn ended(error: &Error) -> Result<Received, Close> {
    match (close_for(error), error) {
        (Some(why), _) => Err(why),
        (None, Error::ConnectionClosed | Error::AlreadyClosed) => Ok(Received::End),
        (None, _) => Ok(Received::Reset),
    }
}
