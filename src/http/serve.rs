//! Accepts connections and runs HTTP on each, for both listeners.
//!
//! hyper answers a malformed head without a body, and drops other connections without an answer. This module
//! answers both with an error message: a head that is malformed or truncated (400), too large (431),
//! incomplete at its deadline (408) or not HTTP/1 (505). A connection with unread input is closed with a
//! delay, because the kernel would otherwise discard the answer with a reset.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, request};
use futures_util::future::BoxFuture;
use http_body_util::LengthLimitError;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tower::ServiceExt;

use super::RefusedClient;
use super::answer::{code_of, error, error_body};
use super::hosts::Gate;
use super::pace::{Pace, TrafficSource};
use crate::net::{Acceptor, Addresses, ConnectionPermit, LINGER, linger};
use crate::protocol::frame;
use crate::system::faults;
use crate::time::clock::patience;

/// Longest request head, bytes; a longer one is answered with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header lines of a head; more are answered with 431. It is the default of hyper and is never set, because only
/// then does hyper keep the lines on the stack.
const HEAD_LINES_MAX: usize = 100;
/// Longest request body, bytes; a longer one is answered with 413.
const BODY_BYTES_MAX: usize = 1024;
/// Most connections over the limit that receive an answer at the same time; further ones are closed without
/// one.
const REFUSALS_MAX: usize = 64;
/// How long open requests may take to complete at shutdown.
const GRACE: Duration = Duration::from_secs(1);

/// Limits of a listener and of each of its connections.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Most connections in HTTP, handshakes included, sessions excluded. Further ones receive a 503. A
    /// connection costs at most about 40 kB. Default 1024.
    pub connections_max: usize,
    /// Most open connections, sessions included, because each needs a file descriptor. Further ones receive a
    /// 503. Default: not limited.
    pub open_max: usize,
    /// Most open connections from one address, sessions included. Further ones receive a 429. Default 20000.
    pub per_address_max: usize,
    /// Most connections accepted per second, within a second after a tick; further ones wait in the backlog of the
    /// kernel. A higher rate admits a burst of returning clients sooner, and takes more CPU time from the threads that
    /// serve existing clients. Default 2000.
    pub admissions_per_s: NonZeroU32,
    /// Time for the head of a request, from its first byte, milliseconds; then 408. A longer time helps slow
    /// links, and lets an attacker hold connections for longer. Default 5000.
    pub head_timeout_ms: u64,
    /// Time that a connection may be open without a request, and that its peer may leave an answer unread,
    /// milliseconds; then it is closed without an answer. Default 30000.
    pub idle_timeout_ms: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            open_max: usize::MAX,
            per_address_max: 20_000,
            admissions_per_s: const { NonZeroU32::new(2_000).expect("it is not 0") },
            head_timeout_ms: 5_000,
            idle_timeout_ms: 30_000,
        }
    }
}

/// Counters of a listener, since its start.
#[derive(Debug, Default)]
pub struct HttpStats {
    /// Connections accepted, including those refused for lack of room.
    pub accepted: AtomicU64,
    /// Failed accepts.
    pub accept_errors: AtomicU64,
    /// Connections refused because `connections_max` were open.
    pub refused_full: AtomicU64,
    /// Connections refused because `per_address_max` from their address were open.
    pub refused_address: AtomicU64,
    /// Connections currently in HTTP.
    pub open: AtomicU64,
    /// Requests that reached a route.
    pub requests: AtomicU64,
    /// Heads that were malformed, too large or truncated.
    pub bad_heads: AtomicU64,
    /// Heads that missed their deadline.
    pub timeouts: AtomicU64,
    /// Sockets handed over after a handshake.
    pub upgraded: AtomicU64,
    /// Sockets that were refused after the 101.
    pub handover_refused: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The peer of a connection.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) seat: ConnectionPermit,
}

/// Request extension: the address of the peer.
#[derive(Clone, Copy)]
pub(super) struct PeerAddress(pub(super) SocketAddr);

/// Request extension for handlers that need time to answer.
#[derive(Clone)]
pub(super) struct Working(Arc<Activity>);

impl Working {
    /// Ends the deadline of the head, and starts that of the answer.
    pub(super) fn begin(&self) {
        self.0.enter(Phase::Answer);
    }
}

type Take = Box<dyn FnOnce(std::net::TcpStream, Vec<u8>, Peer) -> Result<(), RefusedClient> + Send>;

/// Response extension of a 101: the function that takes the socket, once.
pub(super) struct Handover(Mutex<Option<Take>>);

impl Handover {
    pub(super) fn new(
        take: impl FnOnce(std::net::TcpStream, Vec<u8>, Peer) -> Result<(), RefusedClient> + Send + 'static,
    ) -> Self {
        Self(Mutex::new(Some(Box::new(take))))
    }

    fn take(&self) -> Option<Take> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A listener's router with its checks, limits and counters.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) router: Router,
    pub(super) gate: Gate,
    pub(super) limits: HttpLimits,
    pub(super) traffic: TrafficSource,
    pub(super) stats: Arc<HttpStats>,
}

/// Shared state of all connections of a listener.
struct Listener {
    router: Router,
    gate: Gate,
    limits: HttpLimits,
    stats: Arc<HttpStats>,
    http: http1::Builder,
    /// Local address of the listener.
    address: IpAddr,
}

/// Serves `router` on `listener` until `shutdown` is ready; then no connection is accepted any more, and open
/// ones have [`GRACE`] to end.
pub(super) async fn serve(listener: TcpListener, site: Site, shutdown: impl Future<Output = ()> + Send) {
    let Site { router, gate, limits, traffic, stats } = site;
    let mut http = http1::Builder::new();
    // This module has its own deadline for heads, with an answer; hyper's closes without one.
    http.header_read_timeout(None).max_header_size(HEAD_BYTES_MAX).max_buf_size(2 * HEAD_BYTES_MAX);
    // The unspecified address adds no valid host name.
    let address = listener.local_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let server = Arc::new(Listener { router, gate, limits, stats, http, address });
    let (stop, stopped) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => {}
        never = accept(&listener, &server, &stopped, traffic) => match never {},
    }
    drop((listener, stopped, server));
    // An error means that there is no receiver, hence no open connection.
    stop.send(()).ok();
    // Every connection holds a receiver; the channel closes when the last one has ended.
    timeout(GRACE + LINGER, stop.closed()).await.ok();
}

async fn accept(
    listener: &TcpListener,
    server: &Arc<Listener>,
    stopped: &watch::Receiver<()>,
    traffic: TrafficSource,
) -> std::convert::Infallible {
    let open = Arc::new(Semaphore::new(server.limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let addresses = Arc::new(Addresses::default());
    let mut pace = Pace::new(server.limits.admissions_per_s, traffic);
    let no_file_left =
        answer("503 Service Unavailable", "this machine lets the gateway open no more connections");
    let mut acceptor = Acceptor::new(listener, no_file_left.as_bytes());
    loop {
        pace.go_on().await;
        let (stream, address) = acceptor.accept(&server.stats.accept_errors).await;
        count(&server.stats.accepted);
        let is_full = addresses.open() >= server.limits.open_max;
        let seat = addresses.take(address.ip(), server.limits.per_address_max);
        let permit = if is_full { None } else { Arc::clone(&open).try_acquire_owned().ok() };
        let (status, msg) = match (seat, permit) {
            (Some(seat), Some(permit)) => {
                count(&server.stats.open);
                let peer = Peer { address, seat };
                tokio::spawn(connection(stream, peer, Arc::clone(server), stopped.clone(), permit));
                continue;
            }
            (None, _) => {
                count(&server.stats.refused_address);
                ("429 Too Many Requests", "too many connections from your address are open")
            }
            (_, None) => {
                count(&server.stats.refused_full);
                ("503 Service Unavailable", "too many connections are open")
            }
        };
        if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
            tokio::spawn(async move {
                answer_and_close(stream, status, msg).await;
                drop(permit);
            });
        }
    }
}

/// Drives one connection from its first byte to its end or hand-over.
async fn connection(
    stream: TcpStream,
    peer: Peer,
    server: Arc<Listener>,
    stopped: watch::Receiver<()>,
    permit: OwnedSemaphorePermit,
) {
    let activity = Arc::new(Activity::default());
    let (end, stream, read_buf) = drive(stream, peer.address, &server, &activity, stopped.clone()).await;
    match end {
        End::Late if activity.phase() == Phase::Head || !read_buf.is_empty() => {
            count(&server.stats.timeouts);
            let msg = match activity.is_whole.load(Ordering::Relaxed) {
                false => "the request's head took too long",
                true => "the request's body took too long",
            };
            answer_and_close(stream, "408 Request Timeout", msg).await;
        }
        End::Late => {}
        End::Done(result) => match activity.handover() {
            Some(take) if result.is_ok() => {
                hand_over(take, stream, read_buf, peer, &server.stats);
            }
            _ => close_after(result, stream, &activity, &server.stats).await,
        },
    }
    drop(permit);
    server.stats.open.fetch_sub(1, Ordering::Relaxed);
    // Dropped last, because `serve` waits for all receivers at shutdown.
    drop(stopped);
}

/// Why a connection ended.
enum End {
    /// hyper has finished.
    Done(hyper::Result<()>),
    /// A deadline has passed.
    Late,
}

/// Runs HTTP until it ends or a deadline passes, and returns the socket with the bytes read after the last request.
async fn drive(
    stream: TcpStream,
    address: SocketAddr,
    server: &Arc<Listener>,
    activity: &Arc<Activity>,
    mut stopped: watch::Receiver<()>,
) -> (End, TcpStream, Vec<u8>) {
    let own = [server.address, stream.local_addr().map_or(server.address, |address| address.ip())];
    let io = TokioIo::new(Watched { stream, activity: Arc::clone(activity) });
    let service = service(address, own, Arc::clone(server), Arc::clone(activity));
    let mut conn = server.http.serve_connection(io, service);
    let mut deadline = Box::pin(patience(activity.limit(server.limits)));
    let mut grace = pin!(async {
        // An error means that the listener is gone, which is a shutdown as well.
        stopped.changed().await.ok();
    });
    let mut stopping = false;
    let mut seen = activity.step();
    let end = std::future::poll_fn(|cx| {
        if !stopping && grace.as_mut().poll(cx).is_ready() {
            stopping = true;
            deadline.set(patience(GRACE));
            Pin::new(&mut conn).graceful_shutdown();
        }
        if let Poll::Ready(result) = conn.poll_without_shutdown(cx) {
            return Poll::Ready(End::Done(result));
        }
        let step = activity.step();
        if step != seen && !stopping {
            seen = step;
            deadline.set(patience(activity.limit(server.limits)));
        }
        deadline.as_mut().poll(cx).map(|()| End::Late)
    })
    .await;
    let parts = conn.into_parts();
    (end, parts.io.into_inner().stream, parts.read_buf.into())
}

/// Closes a connection that was not handed over.
async fn close_after(result: hyper::Result<()>, stream: TcpStream, activity: &Activity, stats: &HttpStats) {
    let Err(error) = result else { return linger(stream).await };
    if activity.phase() == Phase::Answer {
        // The peer is gone, or has not read its answer.
        return;
    }
    count(&stats.bad_heads);
    if error.is_incomplete_message() {
        answer_and_close(stream, "400 Bad Request", "the request's head breaks off").await;
    } else if error.is_parse_too_large() {
        let msg = format!(
            "the request's head has more than {HEAD_BYTES_MAX} bytes or {HEAD_LINES_MAX} lines: symbols that do \
             not fit in the URL can be subscribed to by messages"
        );
        answer_and_close(stream, "431 Request Header Fields Too Large", &msg).await;
    } else if activity.held_back.load(Ordering::Relaxed) {
        answer_and_close(stream, "400 Bad Request", &format!("the request's head is malformed: {error}"))
            .await;
    } else {
        answer_and_close(stream, "505 HTTP Version Not Supported", "speak HTTP/1.1 here").await;
    }
}

fn hand_over(take: Take, stream: TcpStream, read_buf: Vec<u8>, peer: Peer, stats: &HttpStats) {
    let Ok(stream) = stream.into_std() else {
        count(&stats.handover_refused);
        return;
    };
    match take(stream, read_buf, peer) {
        Ok(()) => count(&stats.upgraded),
        Err(refused) => {
            count(&stats.handover_refused);
            let mut bytes = Vec::new();
            frame::close(refused.why, None, &mut bytes);
            // After a 101 the socket buffer has room for a dozen bytes. A failure means that the peer is
            // gone.
            io::Write::write_all(&mut &refused.stream, &bytes).ok();
        }
    }
}

/// Writes an answer of this module to a connection that hyper has abandoned, and closes it.
async fn answer_and_close(mut stream: TcpStream, status: &str, msg: &str) {
    if let Ok(Ok(())) = timeout(LINGER, stream.write_all(answer(status, msg).as_bytes())).await {
        linger(stream).await;
    }
}

/// A complete response with the error message.
fn answer(status: &str, msg: &str) -> String {
    // `status` is a number, a space and words, so the parse never fails.
    let code =
        status.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(StatusCode::BAD_REQUEST);
    let body = error_body(code_of(code), msg);
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.to_string().len()
    )
}

/// Phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No byte of a request has been received.
    Idle,
    /// A head is being received.
    Head,
    /// An answer is being prepared or sent.
    Answer,
}

/// Activity of a connection as seen by its socket and its service, read by the task that drives it. All three
/// run in that task: the atomics only satisfy `Sync`, and are relaxed.
#[derive(Default)]
struct Activity {
    /// The [`Phase`] as a number.
    phase: AtomicU8,
    /// Incremented whenever the deadline restarts.
    step: AtomicU32,
    /// Whether the last head is complete, i.e. has reached the service.
    is_whole: AtomicBool,
    /// Whether an answer of hyper without a body was held back: see [`Watched`].
    held_back: AtomicBool,
    handover: Mutex<Option<Arc<Handover>>>,
}

impl Activity {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Answer,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.step.fetch_add(1, Ordering::Relaxed);
    }

    fn step(&self) -> u32 {
        self.step.load(Ordering::Relaxed)
    }

    fn limit(&self, limits: HttpLimits) -> Duration {
        Duration::from_millis(match self.phase() {
            Phase::Head => limits.head_timeout_ms,
            Phase::Idle | Phase::Answer => limits.idle_timeout_ms,
        })
    }

    fn read(&self) {
        if self.phase() == Phase::Idle {
            self.is_whole.store(false, Ordering::Relaxed);
            self.enter(Phase::Head);
        }
    }

    /// Whether the next write is hyper's own answer to a head, which must be held back.
    fn holds_back(&self) -> bool {
        let holds = self.phase() == Phase::Head && !self.is_whole.load(Ordering::Relaxed);
        self.held_back.fetch_or(holds, Ordering::Relaxed);
        holds
    }

    fn wrote(&self) {
        if self.phase() == Phase::Answer {
            // Progress restarts the deadline.
            self.enter(Phase::Answer);
        }
    }

    fn flushed(&self) {
        if self.phase() == Phase::Answer {
            self.enter(Phase::Idle);
        }
    }

    fn answer(&self, handover: Option<Arc<Handover>>) {
        if handover.is_some() {
            *self.handover.lock().unwrap_or_else(PoisonError::into_inner) = handover;
        }
        self.enter(Phase::Answer);
    }

    fn handover(&self) -> Option<Take> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner).take()?.take()
    }
}

/// The service of one connection: the checks of the listener, then its router.
fn service(
    address: SocketAddr,
    own: [IpAddr; 2],
    server: Arc<Listener>,
    activity: Arc<Activity>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = std::convert::Infallible,
    Future = BoxFuture<'static, Result<Response<Body>, std::convert::Infallible>>,
> + Unpin {
    service_fn(move |mut request: Request<Incoming>| -> BoxFuture<'static, _> {
        activity.is_whole.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(PeerAddress(address));
        request.extensions_mut().insert(Working(Arc::clone(&activity)));
        let (server, activity) = (Arc::clone(&server), Arc::clone(&activity));
        Box::pin(async move {
            count(&server.stats.requests);
            faults::inject(request.uri().query().unwrap_or_default().as_bytes());
            let (head, body) = request.into_parts();
            let mut response = match server.gate.refusal(&head, own).or_else(|| refusal(&head, &body)) {
                Some(response) => response,
                None => server.router.clone().oneshot(Request::from_parts(head, Body::new(body))).await?,
            };
            activity.answer(response.extensions_mut().remove::<Arc<Handover>>());
            Ok(response)
        })
    })
}

/// The response to a body that no route may receive.
fn refusal(head: &request::Parts, body: &Incoming) -> Option<Response<Body>> {
    // A chunked body has no known length until it is read: see [`body`].
    let is_short = match body.size_hint().upper() {
        Some(bytes) => bytes <= BODY_BYTES_MAX as u64,
        None => head.method == Method::POST,
    };
    (!is_short).then(too_long)
}

fn too_long() -> Response<Body> {
    let msg = format!("a body has up to {BODY_BYTES_MAX} bytes here, and comes in chunks with a POST alone");
    let mut response = error(StatusCode::PAYLOAD_TOO_LARGE, &msg);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Reads the body of a request.
///
/// # Errors
/// The response to a body that is too long, malformed or truncated.
pub(super) async fn body(body: Body) -> Result<Bytes, Box<Response<Body>>> {
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|fault| {
        let is_long = fault.source().is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
        let broken = || error(StatusCode::BAD_REQUEST, "the body is malformed, or broke off");
        Box::new(if is_long { too_long() } else { broken() })
    })
}

/// A socket that reports its I/O to an [`Activity`]. It discards hyper's own answer to a malformed head,
/// which has no body; the connection is answered again once hyper has abandoned it.
struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.activity.holds_back() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.activity.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.activity.holds_back() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.activity.wrote();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
