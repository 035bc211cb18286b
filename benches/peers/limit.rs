//! The limit of the machine: servers that only send. One thread, one epoll, frames built once, no limits, no
//! heartbeats, no accounting except for dropped messages.
//!
//! | kind | when it sends |
//! | --- | --- |
//! | `limit` | one `send` per subscriber and tick; what does not fit in the socket is dropped |
//! | `limit-batch` | one `send` per subscriber and pass; a pass covers all ticks that had arrived |
//! | `limit-fifo` | one `send` of all ticks of the subscriber that waits longest; reads after 64 sends |

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use memchr::{memchr, memchr_iter, memmem};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustc_hash::FxHashMap;

use crate::wire::{self, Frame};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Each,
    Batch,
    Fifo,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Each => "limit",
            Self::Batch => "limit-batch",
            Self::Fifo => "limit-fifo",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Each, Self::Batch, Self::Fifo].into_iter().find(|kind| kind.name() == name)
    }
}

const DOOR: Token = Token(usize::MAX - 1);
const PUBLISH_DOOR: Token = Token(usize::MAX - 2);
const PUBLISHER: Token = Token(usize::MAX - 3);
/// Bytes of ticks per read.
const CHUNK_BYTES: usize = 256 * 1024;
/// Most bytes queued for one subscriber; further ticks are dropped.
const GATHERED_BYTES_MAX: usize = 256 * 1024;
/// Sends between two reads from the publisher, and reads between two polls of the other events.
const SENDS: usize = 64;
const LOOK_EVERY: usize = 16;

struct Subscriber {
    stream: TcpStream,
    /// Received bytes of an incomplete message.
    said: Vec<u8>,
    open: bool,
    /// Complete frames, except for the first, which may be partly sent.
    gathered: Vec<u8>,
    /// Whether the subscriber is in the queue.
    queued: bool,
    /// Whether its socket is full; it waits until the socket is writable.
    full: bool,
}

struct Server {
    kind: Kind,
    poll: Poll,
    subscribers: Vec<Option<Subscriber>>,
    by_symbol: Vec<Vec<usize>>,
    symbols: FxHashMap<Box<[u8]>, usize>,
    publisher: Option<TcpStream>,
    /// Whether the publisher may have more data.
    readable: bool,
    chunk: Vec<u8>,
    /// Start of an incomplete line.
    line: Vec<u8>,
    frame: Vec<u8>,
    queue: VecDeque<usize>,
    dropped: u64,
}

/// Serves until it is killed.
pub(crate) fn serve(kind: Kind) -> anyhow::Result<()> {
    let any = "127.0.0.1:0".parse()?;
    let (mut door, mut publish) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
    let poll = Poll::new()?;
    poll.registry().register(&mut door, DOOR, Interest::READABLE)?;
    poll.registry().register(&mut publish, PUBLISH_DOOR, Interest::READABLE)?;
    let (ws, ticks) = (door.local_addr()?, publish.local_addr()?);
    let mut out = io::stdout();
    writeln!(out, "{} ready ws=ws://{ws}/ws publish={ticks}", kind.name())?;
    out.flush()?;
    let mut server = Server {
        kind,
        poll,
        subscribers: Vec::new(),
        by_symbol: Vec::new(),
        symbols: FxHashMap::default(),
        publisher: None,
        readable: false,
        chunk: vec![0; CHUNK_BYTES],
        line: Vec::new(),
        frame: Vec::new(),
        queue: VecDeque::new(),
        dropped: 0,
    };
    let mut events = Events::with_capacity(1_024);
    for round in 0.. {
        let idle = server.queue.is_empty() && !server.readable;
        if idle || kind == Kind::Each || round % LOOK_EVERY == 0 {
            match server.poll.poll(&mut events, (!idle).then_some(Duration::ZERO)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                server.hear(event, &door, &publish)?;
            }
        }
        if server.readable || (kind == Kind::Fifo && !server.queue.is_empty()) {
            server.take_in()?;
        }
        let most = if kind == Kind::Fifo { SENDS } else { usize::MAX };
        server.send_gathered(most);
    }
    Ok(())
}

impl Server {
    fn hear(&mut self, event: &Event, door: &TcpListener, publish: &TcpListener) -> anyhow::Result<()> {
        match event.token() {
            DOOR => loop {
                match door.accept() {
                    Ok((stream, _)) => self.let_in(stream)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("accepting"),
                }
            },
            PUBLISH_DOOR => {
                if let Ok((mut stream, _)) = publish.accept() {
                    self.poll.registry().register(&mut stream, PUBLISHER, Interest::READABLE)?;
                    self.publisher = Some(stream);
                    self.readable = true;
                }
            }
            PUBLISHER => self.readable = true,
            Token(at) => {
                if event.is_writable()
                    && let Some(subscriber) = self.subscribers[at].as_mut()
                    && std::mem::take(&mut subscriber.full)
                {
                    self.enqueue(at);
                }
                if event.is_readable() && !self.listen(at) {
                    self.subscribers[at] = None;
                    self.by_symbol.iter_mut().for_each(|row| row.retain(|id| *id != at));
                }
            }
        }
        Ok(())
    }

    fn let_in(&mut self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let at = self.subscribers.len();
        self.poll.registry().register(&mut stream, Token(at), Interest::READABLE | Interest::WRITABLE)?;
        self.subscribers.push(Some(Subscriber {
            stream,
            said: Vec::new(),
            open: false,
            gathered: Vec::new(),
            queued: false,
            full: false,
        }));
        Ok(())
    }

    /// Reads from a subscriber. False if it has disconnected.
    fn listen(&mut self, at: usize) -> bool {
        let Some(subscriber) = self.subscribers[at].as_mut() else { return true };
        let mut scratch = [0; 4_096];
        loop {
            match subscriber.stream.read(&mut scratch) {
                Ok(0) => return false,
                Ok(n) => subscriber.said.extend_from_slice(&scratch[..n]),
                Err(error) if wire::not_now(&error) => break,
                Err(_) => return false,
            }
        }
        if !subscriber.open {
            let Some(len) = wire::head_len(&subscriber.said) else { return true };
            let Some(answer) = wire::accept(&subscriber.said[..len]) else { return false };
            subscriber.said.drain(..len);
            subscriber.open = true;
            // A short answer always fits in a new socket.
            if !subscriber.stream.write(answer.as_bytes()).is_ok_and(|n| n == answer.len()) {
                return false;
            }
        }
        let said = std::mem::take(&mut subscriber.said);
        let (mut rest, mut asked) = (said.as_slice(), Vec::new());
        while let Some(frame) = Frame::first(rest) {
            rest = frame.behind;
            match frame.opcode {
                wire::TEXT => asked.push(frame.unmasked()),
                wire::CLOSE => return false,
                _ => {}
            }
        }
        subscriber.said = rest.to_vec();
        asked.iter().all(|text| self.subscribe(at, text))
    }

    fn subscribe(&mut self, at: usize, text: &[u8]) -> bool {
        let Ok(serde_json::Value::Object(request)) = serde_json::from_slice(text) else { return false };
        for symbol in request.get("symbols").and_then(|list| list.as_array()).into_iter().flatten() {
            let name = symbol.as_str().unwrap_or_default().as_bytes();
            let next = self.symbols.len();
            let row = *self.symbols.entry(name.into()).or_insert(next);
            if row == self.by_symbol.len() {
                self.by_symbol.push(Vec::new());
            }
            self.by_symbol[row].push(at);
        }
        let mut ack = Vec::new();
        wire::put(wire::TEXT, false, br#"{"type":"ack"}"#, &mut ack);
        self.subscribers[at].as_mut().is_some_and(|to| to.stream.write(&ack).is_ok_and(|n| n == ack.len()))
    }

    /// Reads ticks, and sends or queues them.
    fn take_in(&mut self) -> anyhow::Result<()> {
        let Some(publisher) = self.publisher.as_mut() else { return Ok(()) };
        let mut chunk = std::mem::take(&mut self.chunk);
        let read = publisher.read(&mut chunk);
        self.readable = matches!(&read, Ok(n) if *n == chunk.len());
        let n = match read {
            Ok(0) => {
                // The publisher shuts down its side after its last tick, and may read the number of dropped
                // messages.
                let _ = publisher.write(format!("{{\"dropped\":{}}}\n", self.dropped).as_bytes());
                self.publisher = None;
                0
            }
            Ok(n) => n,
            Err(error) if wire::not_now(&error) => 0,
            Err(error) => return Err(error).context("the publisher"),
        };
        let mut from = 0;
        for end in memchr_iter(b'\n', &chunk[..n]) {
            let part = &chunk[from..end];
            from = end + 1;
            if self.line.is_empty() {
                self.tick(part);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(part);
                self.tick(&line);
            }
        }
        self.line.extend_from_slice(&chunk[from..n]);
        self.chunk = chunk;
        Ok(())
    }

    fn tick(&mut self, line: &[u8]) {
        const KEY: &[u8] = br#""symbol":""#;
        let Some(at) = memmem::find(line, KEY) else { return };
        let name = &line[at + KEY.len()..];
        let Some(name) = memchr(b'"', name).map(|end| &name[..end]) else { return };
        let Some(row) = self.symbols.get(name).copied() else { return };
        self.frame.clear();
        wire::put(wire::TEXT, false, line, &mut self.frame);
        for &id in &self.by_symbol[row] {
            let Some(subscriber) = self.subscribers[id].as_mut() else { continue };
            if self.kind == Kind::Each {
                self.dropped += u64::from(!subscriber.send(&self.frame));
                continue;
            }
            if subscriber.gathered.len() + self.frame.len() > GATHERED_BYTES_MAX {
                self.dropped += 1;
                continue;
            }
            subscriber.gathered.extend_from_slice(&self.frame);
            if !subscriber.queued && !subscriber.full {
                subscriber.queued = true;
                self.queue.push_back(id);
            }
        }
    }

    fn enqueue(&mut self, at: usize) {
        if let Some(subscriber) = self.subscribers[at].as_mut()
            && !subscriber.queued
            && !subscriber.gathered.is_empty()
        {
            subscriber.queued = true;
            self.queue.push_back(at);
        }
    }

    /// One send for each of the subscribers that have waited longest.
    fn send_gathered(&mut self, most: usize) {
        for _ in 0..most {
            let Some(id) = self.queue.pop_front() else { return };
            let Some(subscriber) = self.subscribers[id].as_mut() else { continue };
            subscriber.queued = false;
            match subscriber.stream.write(&subscriber.gathered) {
                Ok(n) if n == subscriber.gathered.len() => subscriber.gathered.clear(),
                Ok(n) => {
                    subscriber.gathered.drain(..n);
                    subscriber.full = true;
                }
                Err(error) if wire::not_now(&error) => subscriber.full = true,
                // The disconnect is reported as an event.
                Err(_) => subscriber.gathered.clear(),
            }
        }
    }
}

impl Subscriber {
    /// One send. False if the frame is dropped. The rest of a partly sent frame is sent first when the socket
    /// is writable.
    fn send(&mut self, frame: &[u8]) -> bool {
        if !self.gathered.is_empty() || self.full {
            return false;
        }
        match self.stream.write(frame) {
            Ok(n) if n == frame.len() => true,
            Ok(n) => {
                self.gathered.extend_from_slice(&frame[n..]);
                self.full = true;
                true
            }
            Err(error) => {
                self.full = wire::not_now(&error);
                false
            }
        }
    }
}
