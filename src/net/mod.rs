//! Sockets of the listeners: accepting, refusing, sending and closing, and queries to the kernel about them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

pub(crate) mod inbound;
mod kernel;

pub use kernel::Peer;
pub(crate) use kernel::{peer, unacked};

/// How long accepting pauses after a failure, for example with no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long refusing a connection may take when no file descriptor is left: the next one waits meanwhile.
const REFUSAL_MAX: Duration = Duration::from_millis(50);
/// How long a closed connection is still read, so that its peer can read the last words.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// How many bytes a closed connection is still read.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// How long the last words are kept for a client that was cut, in seconds: it may need time to read the data
/// before them.
const LAST_WORDS_S: u64 = 60;

/// Accepts connections of one listener, and holds one file descriptor in reserve: if no other is left, a
/// connection can still be refused with a reason.
pub(crate) struct Acceptor<'a> {
    listener: &'a TcpListener,
    /// The refusal sent in that case.
    no_file_left: &'a [u8],
    spare: Option<File>,
}

impl<'a> Acceptor<'a> {
    /// Returns an acceptor that sends `no_file_left` to connections for which no file descriptor is left.
    pub(crate) fn new(listener: &'a TcpListener, no_file_left: &'a [u8]) -> Self {
        Self { listener, no_file_left, spare: spare() }
    }

    /// Returns the next connection, with `TCP_NODELAY` set. Failures are counted in `errors` and retried,
    /// never in a busy loop.
    pub(crate) async fn accept(&mut self, errors: &AtomicU64) -> (TcpStream, SocketAddr) {
        loop {
            let error = match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Fails only on a socket that is already closed, which the first read reports.
                    stream.set_nodelay(true).ok();
                    return (stream, peer);
                }
                Err(error) => error,
            };
            errors.fetch_add(1, Ordering::Relaxed);
            let no_file_is_left = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
            // An aborted connection does not affect the next one; any other error will persist for a while.
            if (no_file_is_left && self.refuse().await) || error.kind() == io::ErrorKind::ConnectionAborted {
                continue;
            }
            sleep(ACCEPT_PAUSE).await;
        }
    }

    /// Refuses the next connection, for which no file descriptor is left. Returns false if there was no
    /// reserve either, or the refusal failed.
    async fn refuse(&mut self) -> bool {
        if self.spare.take().is_none() {
            self.spare = spare();
            return false;
        }
        let refused = async {
            let (mut stream, _) = self.listener.accept().await?;
            stream.write_all(self.no_file_left).await?;
            stream.shutdown().await?;
            // Closing with a request unread would reset the connection.
            stream.read(&mut [0; 1_024]).await
        };
        let refused = timeout(REFUSAL_MAX, refused).await;
        self.spare = spare();
        matches!(refused, Ok(Ok(_)))
    }
}

/// Opens a file whose only purpose is to be closed.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Closes for writing, then reads what the peer still sends, for up to [`LINGER`]: closing with input unread
/// would reset the connection, and the reset would overtake the last answer.
pub(crate) async fn linger(mut stream: TcpStream) {
    let drain = async {
        if stream.shutdown().await.is_ok() {
            read_out(&mut stream, &mut { LINGER_BYTES_MAX }).await;
        }
    };
    // In either case the socket is dropped next.
    timeout(LINGER, drain).await.ok();
}

/// As [`linger`], until a client that was cut has closed its side: while it reads the remaining data it still
/// answers pings, and a reset in reply would destroy the last words. Ends soon after the gateway begins to
/// stop.
pub(crate) async fn keep_last_words(mut stream: TcpStream, is_stopping: impl Fn() -> bool) {
    let mut left = LINGER_BYTES_MAX;
    if stream.shutdown().await.is_err() {
        return;
    }
    for _ in 0..LAST_WORDS_S / LINGER.as_secs() {
        if timeout(LINGER, read_out(&mut stream, &mut left)).await.is_ok() {
            return;
        }
        if is_stopping() {
            // The kernel keeps trying after the process has ended.
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(&stream)
                .set_tcp_user_timeout(Some(Duration::from_secs(LAST_WORDS_S)))
                .ok();
            return;
        }
    }
    abort(&stream);
}

/// Reads and discards input, to the end or up to `left` bytes.
async fn read_out(stream: &mut TcpStream, left: &mut usize) {
    // On the heap: otherwise the task of each connection would contain it for its whole life.
    let mut scratch = vec![0; 4_096];
    while let Ok(n @ 1..) = stream.read(&mut scratch).await {
        *left = left.saturating_sub(n);
        if *left == 0 {
            return;
        }
    }
}

/// Makes the kernel reset the connection when it is dropped, and discard its buffers.
pub(crate) fn abort(stream: &TcpStream) {
    // Fails only on a socket that is already closed.
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}

/// The socket options of each client.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Bytes that may be unsent in the kernel before the socket counts as full (`TCP_NOTSENT_LOWAT`).
    pub unsent_bytes_max: u32,
}

impl Tuning {
    /// Sets the options. On systems without them the defaults apply.
    ///
    /// `TCP_USER_TIMEOUT` is not set: Linux also counts it from when a receive window closed, whether probes
    /// are answered or not, and would end a client that reads slowly. See [`peer`].
    #[cfg(target_os = "linux")]
    pub(crate) fn apply(self, stream: &std::net::TcpStream) {
        // Fails only on a socket that is already closed, which the first read reports.
        socket2::SockRef::from(stream).set_tcp_notsent_lowat(self.unsent_bytes_max).ok();
    }

    /// Does nothing: this system has no such options.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn apply(self, _: &std::net::TcpStream) {}
}

/// Writes as much as the kernel accepts now, without polling the socket first.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if it accepts nothing; any other error ends the connection.
#[inline]
pub(crate) fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    // A direct system call: the C library's `send` is a thread cancellation point, with extra work before and
    // after each call.
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::send(stream, bytes, rustix::net::SendFlags::NOSIGNAL)?);
    #[cfg(not(target_os = "linux"))]
    return socket2::SockRef::from(stream).send(bytes);
}

/// Prefetches the cache line that [`send`] reads (on Linux); returns a meaningless value so the load is not
/// optimised away.
#[inline]
pub(crate) fn prefetch(stream: &TcpStream) -> usize {
    #[cfg(target_os = "linux")]
    return std::os::fd::AsRawFd::as_raw_fd(stream) as usize;
    #[cfg(not(target_os = "linux"))]
    return std::ptr::from_ref(stream).addr();
}

/// Writes although the kernel holds as much unsent as it may: its buffer has room beyond that.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if the buffer itself is full; any other error ends the connection.
pub(crate) fn write_beyond_lowat(stream: &TcpStream, bytes: &[u8], tuning: Tuning) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(u32::MAX)?;
    // Not `try_write`: tokio remembers that the socket was full, and would not try again.
    let written = io::Write::write(&mut &*socket2::SockRef::from(stream), bytes);
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(tuning.unsent_bytes_max)?;
    #[cfg(not(target_os = "linux"))]
    let _ = tuning;
    written
}

/// Returns the address that a connection counts under: its own, or the /64 network for IPv6, since one host
/// has all of it.
pub(crate) fn share_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

/// The number of connections from each [share](share_of) of the addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    open: Mutex<HashMap<IpAddr, usize>>,
    all: AtomicUsize,
}

/// A connection's permit among those from its address, released on drop.
#[derive(Debug)]
pub struct ConnectionPermit {
    address: IpAddr,
    addresses: Arc<Addresses>,
}

impl Addresses {
    /// Returns a permit for a connection from this address, if it has fewer than `most`.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<ConnectionPermit> {
        let address = share_of(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        self.all.fetch_add(1, Ordering::Relaxed);
        Some(ConnectionPermit { address, addresses: Arc::clone(self) })
    }

    /// Returns the number of permits in use, over all addresses.
    pub(crate) fn open(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.addresses.all.fetch_sub(1, Ordering::Relaxed);
        let mut open = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_is_one_host() {
        let of = |text: &str| share_of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), IpAddr::from([10, 0, 0, 1]));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn each_address_has_its_seats() {
        let addresses = Arc::new(Addresses::default());
        let one: IpAddr = [127, 0, 0, 1].into();
        let mapped = "::ffff:127.0.0.1".parse().expect("an address");
        let seats = [addresses.take(one, 2), addresses.take(mapped, 2)];
        assert!(seats.iter().all(Option::is_some));
        assert!(addresses.take(one, 2).is_none());
        assert!(addresses.take([127, 0, 0, 2].into(), 2).is_some());
        assert_eq!(addresses.open(), 2);
        drop(seats);
        assert_eq!(addresses.open(), 0);
        assert!(addresses.take(one, 2).is_some());
        assert!(addresses.open.lock().expect("not poisoned").is_empty(), "nobody is remembered for ever");
    }
}
