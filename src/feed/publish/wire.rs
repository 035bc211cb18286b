//! The two ways a publisher connects, as one: bytes of lines come in, messages go out.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::lines::{Lines, READ_BYTES_MAX};
use crate::protocol::close::Close;
use crate::socket;

/// How much may wait for a publisher that does not read, in bytes.
const OUT_BYTES_MAX: usize = 16 * 1024;
/// The longest WebSocket message, in bytes. It may hold many lines.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// What tungstenite reads at once, in bytes; it fills this with zeros before every read.
const WS_READ_BYTES: usize = 16 * 1024;

/// What a wire gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// More bytes.
    Bytes,
    /// All there is.
    End,
    /// The connection broke: bytes that the kernel still held are lost, and a last line may be cut.
    Reset,
}

/// A publisher's connection. Every method may be dropped half way and called again.
#[derive(Debug)]
pub(super) enum Wire {
    Tcp(Tcp),
    Ws(Box<Ws>),
}

/// JSON lines on a plain socket.
#[derive(Debug)]
pub(super) struct Tcp {
    stream: TcpStream,
    out: Vec<u8>,
}

/// JSON lines in WebSocket messages; the end of a message ends a line.
#[derive(Debug)]
pub(super) struct Ws {
    stream: WebSocketStream<TcpStream>,
    /// The rest of a message that is being taken in.
    message: Bytes,
    out: VecDeque<String>,
    out_bytes: usize,
    unflushed: bool,
}

impl Wire {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self::Tcp(Tcp { stream, out: Vec::new() })
    }

    /// `read_buf` is what was read already, behind the handshake.
    pub(super) async fn ws(stream: TcpStream, read_buf: Vec<u8>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(WS_READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * OUT_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let stream = WebSocketStream::from_partially_read(stream, read_buf, Role::Server, Some(config)).await;
        Self::Ws(Box::new(Ws {
            stream,
            message: Bytes::new(),
            out: VecDeque::new(),
            out_bytes: 0,
            unflushed: false,
        }))
    }

    /// The same connection, if it is plain TCP, served by another runtime from now on.
    ///
    /// # Errors
    /// What the system says of a socket that it has no place for.
    pub(super) fn move_to(self, runtime: &Handle) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(Tcp { stream, out }) => {
                let stream = stream.into_std()?;
                let _entered = runtime.enter();
                Self::Tcp(Tcp { stream: TcpStream::from_std(stream)?, out })
            }
            Self::Ws(ws) => Self::Ws(ws),
        })
    }

    /// Whether another message may be [said](Self::say).
    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.out.len() < OUT_BYTES_MAX,
            Self::Ws(ws) => ws.out_bytes < OUT_BYTES_MAX,
        }
    }

    /// Queues a message, which goes out while the wire is driven.
    pub(super) fn say(&mut self, message: &serde_json::Value) {
        let text = message.to_string();
        match self {
            Self::Tcp(tcp) => {
                tcp.out.extend_from_slice(text.as_bytes());
                tcp.out.push(b'\n');
            }
            Self::Ws(ws) => {
                ws.out_bytes += text.len();
                ws.out.push_back(text);
            }
        }
    }

    /// Adds what comes to `lines`, up to [`READ_BYTES_MAX`], and writes what waits meanwhile.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub(super) async fn receive(&mut self, lines: &mut Lines) -> Result<Received, Close> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(Ok(Received::Reset));
            }
            match self {
                Self::Tcp(tcp) => tcp.poll_receive(cx, lines),
                Self::Ws(ws) => ws.poll_receive(cx, lines),
            }
        })
        .await
    }

    /// Writes all that waits.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_flush(cx),
            Self::Ws(ws) => ws.poll_flush(cx),
        }
    }

    /// Writes what waits and closes, saying why where the wire can carry it.
    pub(super) async fn close(mut self, why: Close) {
        if self.flush().await.is_err() {
            return;
        }
        match self {
            Self::Tcp(tcp) => socket::linger(tcp.stream).await,
            Self::Ws(mut ws) => {
                let reason = match why {
                    Close::TooBig => format!("{}: one has up to {MESSAGE_BYTES_MAX} bytes", why.why()),
                    _ => why.why().to_owned(),
                };
                let frame = CloseFrame { code: CloseCode::from(why.code()), reason: reason.into() };
                if ws.stream.close(Some(frame)).await.is_ok() {
                    socket::linger(ws.stream.into_inner()).await;
                }
            }
        }
    }
}

impl Tcp {
    fn poll_receive(&mut self, cx: &mut Context<'_>, lines: &mut Lines) -> Poll<Result<Received, Close>> {
        lines.buffer.reserve(READ_BYTES_MAX);
        let mut room = (&mut lines.buffer).limit(READ_BYTES_MAX);
        Poll::Ready(Ok(match ready!(pin!(self.stream.read_buf(&mut room)).poll(cx)) {
            Ok(0) => Received::End,
            Ok(_) => Received::Bytes,
            Err(_) => Received::Reset,
        }))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            self.out.drain(..n);
        }
        Poll::Ready(Ok(()))
    }
}

impl Ws {
    fn poll_receive(&mut self, cx: &mut Context<'_>, lines: &mut Lines) -> Poll<Result<Received, Close>> {
        let mut room = READ_BYTES_MAX;
        loop {
            self.add_message(lines, &mut room);
            if room == 0 {
                return Poll::Ready(Ok(Received::Bytes));
            }
            match Pin::new(&mut self.stream).poll_next(cx) {
                // Take what is here in one go: a chunk costs more than a line.
                Poll::Pending if room < READ_BYTES_MAX => return Poll::Ready(Ok(Received::Bytes)),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(Message::Text(text)))) => self.message = text.into(),
                Poll::Ready(Some(Ok(Message::Binary(_)))) => {
                    return Poll::Ready(Err(Close::Unsupported));
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None | Some(Err(Error::ConnectionClosed))) => {
                    return Poll::Ready(Ok(Received::End));
                }
                Poll::Ready(Some(Err(Error::Io(_)))) => return Poll::Ready(Ok(Received::Reset)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(reason(&error))),
            }
        }
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

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(&mut self.stream);
        while !self.out.is_empty() {
            ready!(stream.as_mut().poll_ready(cx)).map_err(io_error)?;
            if let Some(text) = self.out.pop_front() {
                self.out_bytes -= text.len();
                stream.as_mut().start_send(Message::text(text)).map_err(io_error)?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            ready!(stream.poll_flush(cx)).map_err(io_error)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// What a publisher did wrong.
fn reason(error: &Error) -> Close {
    match error {
        Error::Capacity(_) => Close::TooBig,
        Error::Utf8(_) => Close::NotUtf8,
        _ => Close::Protocol,
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
