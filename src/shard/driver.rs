//! A client's socket: frames in by tungstenite, bytes out by the shard. One task a connection.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::WebSocketContext;

use super::ending::Parting;
use super::options::SessionOptions;
use super::sessions::Sessions;
use super::socket::{ClientInfo, Socket, Wants};
use crate::net::inbound::{self, Controls, Most, Shim, close_for};
use crate::net::{self, Peer, Tuning};
use crate::protocol::Subscribe;
use crate::protocol::close::Close;
use crate::protocol::frame::Scanner;
use crate::system::counters::Ending;
use crate::time::clock::Clock;

/// A client whose handshake is done, on its way to a shard.
#[derive(Debug)]
pub struct NewClient {
    /// The socket.
    pub stream: std::net::TcpStream,
    /// What was read behind the handshake already.
    pub read_buf: Vec<u8>,
    /// Subscriptions from the URL.
    pub subscribe: Option<Subscribe>,
    /// What it is known by.
    pub who: ClientInfo,
    /// Its place among the connections from its address: given back when it is dropped.
    pub seat: Option<net::ConnectionPermit>,
}

/// Messages that are taken from one socket before others have their turn.
const MESSAGES_PER_TURN: usize = 16;
/// Bytes that are read from one socket before others have their turn.
const BYTES_PER_TURN: usize = 16_384;
/// The read buffer of a connection: it is cleared on every read, so a small one is faster.
const READ_BUFFER_BYTES: usize = 1_024;
/// The shard's end of a socket.
pub struct TcpSocket(Rc<Shared>);

/// What the shard and the driver of a connection have in common.
struct Shared {
    stream: TcpStream,
    kicked: Cell<bool>,
    /// The driver, while it waits.
    driver: Cell<Option<Waker>>,
    tuning: Tuning,
}

/// What a driver was waiting for.
enum Came {
    Readable,
    Writable,
    Kicked,
}

impl Shared {
    /// Whether something has come that the session wants, or a [kick](Socket::kick). Asked like this, the socket and the
    /// task keep all there is to keep: three futures in a `select!` would take more memory than the rest of a driver.
    fn poll(&self, wants: Wants, context: &mut Context<'_>) -> Poll<Came> {
        if self.kicked.take() {
            return Poll::Ready(Came::Kicked);
        }
        // The next read or write reports an error of the socket.
        if wants.read && self.stream.poll_read_ready(context).is_ready() {
            return Poll::Ready(Came::Readable);
        }
        if wants.write && self.stream.poll_write_ready(context).is_ready() {
            return Poll::Ready(Came::Writable);
        }
        let known = self.driver.take().filter(|waker| waker.will_wake(context.waker()));
        self.driver.set(known.or_else(|| Some(context.waker().clone())));
        Poll::Pending
    }
}

impl Socket for TcpSocket {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [] => Ok(0),
            [one] if one.is_empty() => Ok(0),
            [one] => match net::send(&self.0.stream, one) {
                // Now tokio has to hear that it is full, too: it looks where the write has not been.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.stream.try_write(one),
                written => written,
            },
            several => self.0.stream.try_write_vectored(several),
        }
    }

    fn force(&mut self, bytes: &[u8]) -> io::Result<usize> {
        net::write_beyond_lowat(&self.0.stream, bytes, self.0.tuning)
    }

    fn peer(&self) -> Option<Peer> {
        net::peer(&self.0.stream)
    }

    fn unacked(&self) -> u64 {
        net::unacked(&self.0.stream)
    }

    fn kick(&self) {
        self.0.kicked.set(true);
        if let Some(driver) = self.0.driver.take() {
            driver.wake();
        }
    }

    #[inline]
    fn prefetch(&self) -> usize {
        net::prefetch(&self.0.stream)
    }
}

impl From<&SessionOptions> for Most {
    fn from(options: &SessionOptions) -> Self {
        Self {
            message_bytes: options.limits.frame_bytes_max,
            fragments: options.limits.fragments_max,
            controls_per_s: options.limits.controls_per_s,
        }
    }
}

/// Parses what a client sends. Most clients say nothing for hours: between two messages there is none.
struct Parser {
    context: WebSocketContext,
    scanner: Scanner,
}

impl Parser {
    /// One that has `early` bytes to parse before those of the socket, which `scanner` has seen.
    fn new(early: Vec<u8>, scanner: Scanner, most: Most) -> Box<Self> {
        let context = inbound::parser(early, most, READ_BUFFER_BYTES);
        Box::new(Self { context, scanner })
    }
}

/// What a read led to.
enum Heard {
    /// Nothing more for now.
    Blocked,
    /// More may be there: others first.
    Enough,
    /// The connection is to be closed, or is already.
    Over,
}

/// What the connections of a shard have in common. Each driver holds it until its socket is closed.
pub(super) struct DriverContext {
    sessions: Rc<RefCell<Sessions<TcpSocket>>>,
    clock: Clock,
    /// Wakes the shard when there is something to write.
    work: Notify,
    /// A task has panicked, perhaps in the middle of what all sessions share: the shard is to end.
    broken: Cell<bool>,
}

impl DriverContext {
    /// For drivers of connections among these sessions.
    pub(super) fn new(sessions: Rc<RefCell<Sessions<TcpSocket>>>, clock: Clock) -> Rc<Self> {
        Rc::new(Self { sessions, clock, work: Notify::new(), broken: Cell::default() })
    }

    /// Whether a driver has panicked: then the shard is to end.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Waits until a driver has something to write.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }
}

/// Ends the shard if the task that holds it panics: the runtime would go on as if nothing had been.
struct Fuse(Rc<DriverContext>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.set(true);
            self.0.work.notify_one();
        }
    }
}

/// Takes in a client: what is left is to [drive](Driver::run) it until it ends. `None` if the socket is gone already.
pub(super) fn driver(client: NewClient, driver_context: &Rc<DriverContext>) -> Option<Driver> {
    let NewClient { stream, read_buf, subscribe, who, seat } = client;
    let mut shard = driver_context.sessions.borrow_mut();
    let tuning = shard.options().tuning;
    tuning.apply(&stream);
    let Ok(stream) = TcpStream::from_std(stream) else {
        shard.counters().coming.sub(1);
        return None;
    };
    let (kicked, waits) = (Cell::default(), Cell::default());
    let shared = Rc::new(Shared { stream, kicked, driver: waits, tuning });
    let now = driver_context.clock.now();
    let id = shard.open(TcpSocket(Rc::clone(&shared)), who, now);
    // Only now: no look is to find it neither coming nor there.
    shard.counters().coming.sub(1);
    if let Some(wanted) = subscribe {
        shard.subscribe(id, wanted, now);
    }
    let most = Most::from(shard.options());
    let mut controls = Controls::new(now.mono_ns);
    let mut parser = None;
    if !read_buf.is_empty() {
        let mut scanner = Scanner::default();
        if controls.take_in(&read_buf, &mut scanner, most, now.mono_ns).is_err() {
            shard.close(id, Close::Limit, now);
        }
        parser = Some(Parser::new(read_buf, scanner, most));
    }
    drop(shard);
    driver_context.work.notify_one();
    Some(Driver { shared, id, parser, controls, driver_context: Rc::clone(driver_context), seat })
}

/// One connection, to be driven. There are very many of them, and most wait: what it holds, each of them takes.
pub(super) struct Driver {
    shared: Rc<Shared>,
    id: u32,
    parser: Option<Box<Parser>>,
    controls: Controls,
    driver_context: Rc<DriverContext>,
    /// Until the socket is closed, as is the driver context.
    seat: Option<net::ConnectionPermit>,
}

impl Driver {
    /// Drives the connection until it ends.
    // The future of an `async fn` would hold all this twice.
    pub(super) fn run(mut self) -> impl Future<Output = ()> {
        let fuse = Fuse(Rc::clone(&self.driver_context));
        async move {
            let _fuse = fuse;
            // What came with the handshake is read without waiting for the socket.
            let mut more = self.parser.is_some();
            loop {
                let wants = self.driver_context.sessions.borrow_mut().wants(self.id);
                if wants.end {
                    break;
                }
                if wants.read && more {
                    match self.hear() {
                        Heard::Blocked | Heard::Over => more = false,
                        Heard::Enough => tokio::task::yield_now().await,
                    }
                    self.driver_context.work.notify_one();
                    continue;
                }
                match std::future::poll_fn(|context| self.shared.poll(wants, context)).await {
                    Came::Readable => more = true,
                    Came::Writable => {
                        self.driver_context.sessions.borrow_mut().writable(self.id);
                        self.driver_context.work.notify_one();
                    }
                    Came::Kicked => {}
                }
            }
            let parting = self.driver_context.sessions.borrow_mut().remove(self.id);
            self.driver_context.work.notify_one();
            // The session held the other end: now the socket is ours alone, and its last words are waited for.
            if let Ok(Shared { stream, .. }) = Rc::try_unwrap(self.shared) {
                let is_stopping = || self.driver_context.sessions.borrow().is_draining();
                match parting {
                    // Boxed: most of the time it is not there.
                    Parting::Linger => Box::pin(net::linger(stream)).await,
                    Parting::LastWords => Box::pin(net::keep_last_words(stream, is_stopping)).await,
                    Parting::Abort => net::abort(&stream),
                }
            }
            drop((self.seat, self.driver_context));
        }
    }

    /// Reads what is there, up to a fair share.
    fn hear(&mut self) -> Heard {
        let Self { shared, id, parser, controls, driver_context, .. } = self;
        let DriverContext { sessions, clock, .. } = &**driver_context;
        let (id, now) = (*id, clock.now());
        let most = {
            let mut sessions = sessions.borrow_mut();
            sessions.heard(id, now);
            let mut most = Most::from(sessions.options());
            // They are counted as they come, and taken out when it is seen that they are answers.
            most.controls_per_s = most.controls_per_s.saturating_add(sessions.unanswered(id) as u32);
            most
        };
        let Parser { context, scanner } =
            &mut **parser.get_or_insert_with(|| Parser::new(Vec::new(), Scanner::default(), most));
        let (stream, now_ns) = (&shared.stream, now.mono_ns);
        let (replies, left) = (Vec::new(), BYTES_PER_TURN);
        let mut shim = Shim { stream, replies, scanner, controls, most, now_ns, left };
        for _ in 0..MESSAGES_PER_TURN {
            let heard = context.read(&mut shim);
            let mut sessions = sessions.borrow_mut();
            let now = clock.now();
            // A close frame that tungstenite answered is the last thing to go out: see below.
            if !shim.replies.is_empty() && context.can_write() {
                sessions.push_raw(id, &shim.replies, now);
                shim.replies.clear();
            }
            match heard {
                Ok(Message::Text(text)) => sessions.request(id, &text, now),
                Ok(Message::Binary(_)) => {
                    sessions.close(id, Close::Unsupported, now);
                    return Heard::Over;
                }
                // What was asked for does not count among what a client may send.
                Ok(Message::Pong(payload)) if sessions.answered(id, &payload, now) => {
                    shim.controls.was_asked_for();
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if shim.left == 0 {
                        return Heard::Enough;
                    }
                    if shim.scanner.is_between_messages() {
                        *parser = None;
                    }
                    return Heard::Blocked;
                }
                Err(error) => {
                    match close_for(&error) {
                        Some(why) => sessions.close(id, why, now),
                        None => sessions.ended_by_client(id, cause_of(&error), &shim.replies, now),
                    }
                    return Heard::Over;
                }
            }
            let wants = sessions.wants(id);
            if !wants.read {
                return Heard::Enough;
            }
        }
        Heard::Enough
    }
}

/// Why a connection ended that its client's side ended.
fn cause_of(error: &Error) -> Ending {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Ending::Closed,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ending::Left,
        Error::Io(error) => Ending::from(error),
        _ => Ending::Failed,
    }
}
