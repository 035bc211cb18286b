//! The two ways a publisher connects, as one: bytes of lines come in, messages go out.

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

/// How much may wait for a publisher that does not read, in bytes.
const OUT_BYTES_MAX: usize = 16 * 1024;
/// The longest WebSocket message of a publisher, in bytes. It may hold many lines.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// What tungstenite reads at once, in bytes; it fills this with zeros before every read.
const WS_READ_BYTES: usize = 16 * 1024;
/// The same for a connection that began without the token.
const STRANGER_READ_BYTES: usize = 4 * 1024;

/// What a wire gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// More bytes.
    Bytes,
    /// None, but there is room again for what is to be sent.
    Room,
    /// All there is.
    End,
    /// The connection broke: bytes that the kernel still held are lost, and a last line may be cut.
    Reset,
}

/// How much is taken in at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// Bytes that are added to the lines, [`READ_BYTES_MAX`] at most.
    pub(super) bytes: usize,
    /// WebSocket messages that are begun: others have their turn behind them.
    pub(super) messages: usize,
}

impl Portion {
    /// Of a publisher.
    pub(super) const PUBLISHER: Self = Self { bytes: READ_BYTES_MAX, messages: 256 };
}

/// A connection. Every method may be dropped half way and called again.
pub(super) struct Wire {
    stream: TcpStream,
    out: Vec<u8>,
    /// `None` for JSON lines on a plain socket.
    frames: Option<Box<Frames>>,
    /// Its place among the connections from its address, where the listener has such.
    seat: Option<ConnectionPermit>,
}

/// JSON lines in WebSocket messages; the end of a message ends a line.
struct Frames {
    context: WebSocketContext,
    scanner: Scanner,
    controls: Controls,
    most: Most,
    clock: Clock,
    /// More came with the handshake than may.
    is_flooded: bool,
    /// The rest of a message that is being taken in.
    message: Bytes,
}

/// A WebSocket whose handshake is answered.
pub(super) struct Shaken {
    pub(super) stream: TcpStream,
    /// What was read already, behind the handshake.
    pub(super) read_buf: Vec<u8>,
    pub(super) seat: ConnectionPermit,
}

impl Wire {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self { stream, out: Vec::new(), frames: None, seat: None }
    }

    /// A WebSocket whose token is shown.
    pub(super) fn publisher_ws(shaken: Shaken, most: Most, clock: Clock) -> Self {
        Self::ws(shaken, Most { message_bytes: MESSAGE_BYTES_MAX, ..most }, WS_READ_BYTES, clock)
    }

    /// A WebSocket whose token is not: its messages are bounded by `most`.
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

    /// The token was shown: from now on messages may be as long as a publisher's.
    pub(super) fn admit(&mut self) {
        if let Some(frames) = &mut self.frames {
            frames.most.message_bytes = MESSAGE_BYTES_MAX;
            frames.context.set_config(|config| {
                config.max_message_size = Some(MESSAGE_BYTES_MAX);
                config.max_frame_size = Some(MESSAGE_BYTES_MAX);
            });
        }
    }

    /// The same connection, served by another runtime from now on.
    ///
    /// # Errors
    /// What the system says of a socket that it has no place for.
    pub(super) fn move_to(self, runtime: &Handle) -> io::Result<Self> {
        let stream = self.stream.into_std()?;
        let _entered = runtime.enter();
        Ok(Self { stream: TcpStream::from_std(stream)?, ..self })
    }

    /// Whether messages come whole, so that a line does not go on behind what was received.
    pub(super) fn is_framed(&self) -> bool {
        self.frames.is_some()
    }

    /// Whether another message may be [said](Self::say).
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < OUT_BYTES_MAX
    }

    /// Queues a message, which goes out while the wire is driven. Behind a close frame there is none.
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

    /// Adds what comes to `lines`, at most a portion, and writes what waits meanwhile.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub(super) async fn receive(&mut self, lines: &mut Lines, portion: Portion) -> Result<Received, Close> {
        let was_full = !self.has_room();
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(Ok(Received::Reset));
            }
            // A peer that only listens sends nothing that would end this.
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
            // What was read may have been a ping.
            match self.poll_flush(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(Ok(Received::Reset)),
                _ if was_full && self.has_room() => Poll::Ready(Ok(Received::Room)),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Writes all that waits.
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

    /// Writes what waits and closes, saying why where the wire can carry it.
    pub(super) async fn close(mut self, why: Close) {
        self.say_why(why);
        if self.flush().await.is_ok() {
            net::linger(self.stream).await;
        }
        // Until here the connection counts among those from its address.
        drop(self.seat);
    }

    /// Closes without waiting for anything: what the kernel does not take at once is lost.
    pub(super) fn drop_now(mut self, why: Close) {
        self.say_why(why);
        // It is lost either way if this fails.
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
                    // Take what is here in one go: a chunk costs more than a line.
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

    /// The next message. What is to be answered to it is added to `out` where there is room: a peer that reads
    /// nothing gets no pongs.
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

    /// Moves the message on into `lines`, as far as there is room, and ends its last line.
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

/// What an error of the frames amounts to.
fn ended(error: &Error) -> Result<Received, Close> {
    match (close_for(error), error) {
        (Some(why), _) => Err(why),
        (None, Error::ConnectionClosed | Error::AlreadyClosed) => Ok(Received::End),
        (None, _) => Ok(Received::Reset),
    }
}
