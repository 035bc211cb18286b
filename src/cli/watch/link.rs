//! The connection of a watcher, with an optional limit of its read rate.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, anyhow};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::client::{IntoClientRequest as _, uri_mode};
use tokio_tungstenite::tungstenite::error::UrlError;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::stream::Mode;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{ANSWER_LIMIT, excerpt};
use crate::time::clock::{Clock, SECOND};

/// Size of the read buffer: a few hundred messages.
const READ_BYTES: usize = 64 * 1024;
/// Longest message: the answer to `*` lists all symbols.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Most bytes queued for writing: a few requests.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// Receive buffer of a slow watcher, as far as the kernel allows. It is small, because buffered data hides
/// that the client is slow.
const SLOW_RECV_BYTES: u32 = 4 * 1024;
/// Fewest reads per second of a slow watcher, so that it looks slow and not stalled.
const READS_PER_S: u64 = 10;
/// Most bytes of one read of a slow watcher.
const PORTION_BYTES_MAX: u64 = 16 * 1024;

/// A WebSocket over a [`Link`].
pub(super) type Socket = WebSocketStream<Link>;

/// A read rate. Unused time does not accumulate: a pause does not allow a burst.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    bytes_per_s: u64,
    /// Time of the next read, steady nanoseconds.
    ready_ns: u64,
}

impl Allowance {
    fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), ready_ns: 0 }
    }

    /// Most bytes of one read.
    fn portion(&self) -> usize {
        (self.bytes_per_s / READS_PER_S).clamp(1, PORTION_BYTES_MAX) as usize
    }

    /// Accounts for a read.
    fn took(&mut self, bytes: usize, now_ns: u64) {
        let ns = u128::from(bytes as u64) * u128::from(SECOND) / u128::from(self.bytes_per_s);
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        self.ready_ns = self.ready_ns.max(now_ns).saturating_add(ns);
    }
}

/// Limits the read rate of a link.
struct Brake {
    allowance: Allowance,
    clock: Clock,
    /// Timer until the next read.
    wait: Option<Pin<Box<Sleep>>>,
    /// Buffer of a read: a `ReadBuf` can only be shortened with `unsafe`.
    portion: Box<[u8]>,
}

impl Brake {
    /// Ready when the next read is due.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            if self.clock.now().mono_ns >= self.allowance.ready_ns {
                return Poll::Ready(());
            }
            match self.clock.instant(self.allowance.ready_ns) {
                Some(due) => self.wait = Some(Box::pin(sleep_until(due.into()))),
                // A manual clock has no timer: the test polls again after it has moved the clock.
                None => return Poll::Pending,
            }
        }
    }
}

/// A TCP connection whose read rate can be limited.
pub(super) struct Link {
    stream: TcpStream,
    brake: Option<Brake>,
}

impl Link {
    /// Limits reads to `bytes_per_s` from now on.
    pub(super) fn slow_down(&mut self, bytes_per_s: u64, clock: &Clock) {
        let allowance = Allowance::new(bytes_per_s);
        let portion = vec![0; allowance.portion()].into_boxed_slice();
        self.brake = Some(Brake { allowance, clock: clock.clone(), wait: None, portion });
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, brake } = self.get_mut();
        let stream = Pin::new(stream);
        let Some(brake) = brake else {
            return stream.poll_read(cx, buf);
        };
        ready!(brake.poll_due(cx));
        let len = brake.portion.len().min(buf.remaining());
        let mut portion = ReadBuf::new(&mut brake.portion[..len]);
        ready!(stream.poll_read(cx, &mut portion))?;
        buf.put_slice(portion.filled());
        brake.allowance.took(portion.filled().len(), brake.clock.now().mono_ns);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connects and completes the handshake. A slow watcher uses a small receive buffer.
pub(super) async fn connect(url: &str, small_buffer: bool) -> anyhow::Result<Socket> {
    timeout(ANSWER_LIMIT, shake_hands(url, small_buffer))
        .await
        .map_err(|_| anyhow!("no answer within {} s", ANSWER_LIMIT.as_secs()))
        .and_then(|connected| connected.map_err(connect_error))
        .with_context(|| format!("cannot connect to {url}"))
}

async fn shake_hands(url: &str, small_buffer: bool) -> Result<Socket, SocketError> {
    let request = url.into_client_request()?;
    let stream = dial(request.uri(), small_buffer).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BYTES_MAX);
    let link = Link { stream, brake: None };
    client_async_with_config(request, link, Some(config)).await.map(|(socket, _)| socket)
}

/// Opens the TCP connection directly, because the receive buffer must be set before connecting.
async fn dial(uri: &Uri, small_buffer: bool) -> Result<TcpStream, SocketError> {
    if matches!(uri_mode(uri)?, Mode::Tls) {
        return Err(UrlError::TlsFeatureNotEnabled.into());
    }
    let host = uri.host().ok_or(UrlError::NoHostName)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut failed = None;
    for address in lookup_host((host, uri.port_u16().unwrap_or(80))).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if small_buffer {
            socket.set_recv_buffer_size(SLOW_RECV_BYTES)?;
        }
        socket.set_nodelay(true)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")).into())
}

/// The cause as text, including the body of an HTTP answer.
fn connect_error(error: SocketError) -> anyhow::Error {
    match error {
        SocketError::Http(answer) => {
            let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            anyhow!("the server answered {} {}", answer.status(), excerpt(body.trim()))
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_allowance_is_never_exceeded_and_never_saved_up() {
        for bytes_per_s in [1, 7, 10, 5_000, 1_000_000, u64::MAX] {
            let mut allowance = Allowance::new(bytes_per_s);
            let (start, portion) = (1_000 * SECOND, allowance.portion());
            assert!(portion >= 1 && portion as u64 <= PORTION_BYTES_MAX);
            let (mut now, mut taken) = (start, 0);
            for _ in 0..100 {
                now = now.max(allowance.ready_ns);
                allowance.took(portion, now);
                taken += portion as u128;
                // The first read is free; each further one must be due.
                let due = (taken - portion as u128) * u128::from(SECOND);
                let allowed = u128::from(now - start + 100) * u128::from(bytes_per_s);
                assert!(due <= allowed, "{bytes_per_s}: {taken} bytes");
            }
        }
        assert_eq!(Allowance::new(0).portion(), 1, "nothing at all would never end");
    }

    /// Two ends of a connection; the first is slow.
    async fn pair(bytes_per_s: u64, clock: &Clock) -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let mut link = Link { stream, brake: None };
        link.slow_down(bytes_per_s, clock);
        (link, listener.accept().await.expect("a client").0)
    }

    #[tokio::test]
    async fn a_slow_link_takes_a_portion_at_a_time() {
        let clock = Clock::manual();
        let (mut link, mut other) = pair(1_000, &clock).await;
        other.write_all(&[7; 1_000]).await.expect("sent");
        let mut buf = [0; 1_000];
        assert_eq!(link.read(&mut buf).await.expect("read"), 100);
        for (wait_ms, due) in [(0, false), (99, false), (1, true), (50, false), (50, true), (5_000, true)] {
            clock.advance(Duration::from_millis(wait_ms));
            let read = futures_util::FutureExt::now_or_never(link.read(&mut buf));
            assert_eq!(read.map(|read| read.expect("read")), due.then_some(100), "{wait_ms}");
        }
        assert!(futures_util::FutureExt::now_or_never(link.read(&mut buf)).is_none(), "nothing was saved up");
    }

    #[tokio::test]
    async fn a_slow_link_wakes_by_itself_and_loses_nothing() {
        let (mut link, mut other) = pair(20_000, &Clock::real()).await;
        let sent: Vec<u8> = (0..6_000u32).map(|at| at as u8).collect();
        other.write_all(&sent).await.expect("sent");
        drop(other);
        let mut heard = Vec::new();
        link.read_to_end(&mut heard).await.expect("read");
        assert_eq!(heard, sent);
    }
}
