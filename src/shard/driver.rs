//! The driver of a connection, one task each: it reads frames through tungstenite. The shard itself writes.

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
    /// Bytes already read after the handshake.
    pub read_buf: Vec<u8>,
    /// Subscriptions from the URL.
    pub subscribe: Option<Subscribe>,
    /// What identifies it.
    pub who: ClientInfo,
    /// Its place among the connections from its address, released on drop.
    pub seat: Option<net::ConnectionPermit>,
}

/// Messages read from one socket before others have their turn.
const MESSAGES_PER_TURN: usize = 16;
/// Bytes read from one socket before others have their turn.
const BYTES_PER_TURN: usize = 16_384;
/// Size of a connection's read buffer. The buffer is cleared on every read, so a small one is faster.
const READ_BUFFER_BYTES: usize = 1_024;
/// A client's socket, as the shard holds it.
pub struct TcpSocket(Rc<Shared>);

/// What the shard and the driver of a connection share.
struct Shared {
    stream: TcpStream,
    kicked: Cell<bool>,
    /// Wakes the driver, while it waits.
    driver: Cell<Option<Waker>>,
    tuning: Tuning,
}

/// Why a driver wakes up.
enum Came {
    Readable,
    Writable,
    Kicked,
}

impl Shared {
    /// Polls for what the session wants of the socket, and for a [kick](Socket::kick). This needs no state of its own;
    /// three futures in a `select!` would take more memory than the rest of a driver.
    fn poll(&self, wants: Wants, context: &mut Context<'_>) -> Poll<Came> {
        if self.kicked.take() {
            return Poll::Ready(Came::Kicked);
        }
        // An error of the socket counts as ready: the next read or write reports it.
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
                // `net::send` bypasses tokio, which has to learn that the socket is full: a write through tokio tells
                // it.
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

/// The parser of a client's messages. It exists only during a message, because most clients send nothing for hours.
struct Parser {
    context: WebSocketContext,
    scanner: Scanner,
}

impl Parser {
    /// A parser that starts with the bytes `early`, which `scanner` has seen, before those of the socket.
    fn new(early: Vec<u8>, scanner: Scanner, most: Most) -> Box<Self> {
        let context = inbound::parser(early, most, READ_BUFFER_BYTES);
        Box::new(Self { context, scanner })
    }
}

/// The result of a read.
enum Heard {
    /// The socket has nothing more for now.
    Blocked,
    /// There may be more, but others have their turn first.
    Enough,
    /// The connection is closing or closed.
    Over,
}

/// What the drivers of a shard share. Each driver holds it until its socket is closed.
pub(super) struct DriverContext {
    sessions: Rc<RefCell<Sessions<TcpSocket>>>,
    clock: Clock,
    /// Wakes the shard when there is something to write.
    work: Notify,
    /// A task has panicked, perhaps while it changed what all sessions share: the shard has to end.
    broken: Cell<bool>,
}

impl DriverContext {
    /// The context for the drivers of these sessions.
    pub(super) fn new(sessions: Rc<RefCell<Sessions<TcpSocket>>>, clock: Clock) -> Rc<Self> {
        Rc::new(Self { sessions, clock, work: Notify::new(), broken: Cell::default() })
    }

    /// Whether a driver has panicked: then the shard ends.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Waits until a driver has something to write.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }
}

/// Ends the shard if the task that holds it panics. The runtime would continue as if nothing had happened.
struct Fuse(Rc<DriverContext>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.set(true);
            self.0.work.notify_one();
        }
    }
}

/// Opens the session of a client. Its driver has to [run](Driver::run) until the connection ends. `None` if the socket
/// has failed already.
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
    // Only now, so that every reader of the counters finds the client in one of them.
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

/// The driver of one connection. There are thousands of them, most of them waiting, so each field costs memory.
pub(super) struct Driver {
    shared: Rc<Shared>,
    id: u32,
    parser: Option<Box<Parser>>,
    controls: Controls,
    driver_context: Rc<DriverContext>,
    /// Held until the socket is closed, like the driver context.
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
            // The session is removed, so the driver alone owns the socket now, and waits for the last frames to arrive.
            if let Ok(Shared { stream, .. }) = Rc::try_unwrap(self.shared) {
                let is_stopping = || self.driver_context.sessions.borrow().is_draining();
                match parting {
                    // Boxed, because most of the time this future does not exist.
                    Parting::Linger => Box::pin(net::linger(stream)).await,
                    Parting::LastWords => Box::pin(net::keep_last_words(stream, is_stopping)).await,
                    Parting::Abort => net::abort(&stream),
                }
            }
            drop((self.seat, self.driver_context));
        }
    }

    /// Reads what the socket has, up to a fair share.
    fn hear(&mut self) -> Heard {
        let Self { shared, id, parser, controls, driver_context, .. } = self;
        let DriverContext { sessions, clock, .. } = &**driver_context;
        let (id, now) = (*id, clock.now());
        let most = {
            let mut sessions = sessions.borrow_mut();
            sessions.heard(id, now);
            let mut most = Most::from(sessions.options());
            // Answers to pings are allowed in addition: they count as control frames until they are recognised.
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
            // The reply to a close frame is not pushed here: it has to go out last, see below.
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
                // The answer to a ping does not count towards the control frames that a client may send.
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

/// The cause that is counted for a connection that the client's side ended.
fn cause_of(error: &Error) -> Ending {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Ending::Closed,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ending::Left,
        Error::Io(error) => Ending::from(error),
        _ => Ending::Failed,
    }
}
