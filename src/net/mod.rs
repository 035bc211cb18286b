//! What every listening door does with its sockets, and what is asked of the kernel about them.

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

/// How long accepting pauses after it failed, for example with no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long it may take to refuse a connection that there is no file for: the next one waits meanwhile.
const REFUSAL_MAX: Duration = Duration::from_millis(50);
/// How long a closed connection is read on, so that its peer gets to read the last words.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// How much a closed connection is read on, in bytes.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// How long the last words are kept for a client that was cut, in seconds: it may read for a while what came before them.
const LAST_WORDS_S: u64 = 60;

/// Takes connections of one listener, and keeps a file back: where no other is left, a connection still gets a reason.
pub(crate) struct Acceptor<'a> {
    listener: &'a TcpListener,
    /// What is sent then.
    no_file_left: &'a [u8],
    spare: Option<File>,
}

impl<'a> Acceptor<'a> {
    /// Connections that find no file left are sent this.
    pub(crate) fn new(listener: &'a TcpListener, no_file_left: &'a [u8]) -> Self {
        Self { listener, no_file_left, spare: spare() }
    }

    /// The next connection, with `TCP_NODELAY`. Failures are counted in `errors` and tried again, never in a
    /// busy loop.
    pub(crate) async fn accept(&mut self, errors: &AtomicU64) -> (TcpStream, SocketAddr) {
        loop {
            let error = match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // It fails only on a socket that is gone already, which the first read reports.
                    stream.set_nodelay(true).ok();
                    return (stream, peer);
                }
                Err(error) => error,
            };
            errors.fetch_add(1, Ordering::Relaxed);
            let no_file_is_left = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
            // A peer that gave up does not affect the next one; any other error stays for a while.
            if (no_file_is_left && self.refuse().await) || error.kind() == io::ErrorKind::ConnectionAborted {
                continue;
            }
            sleep(ACCEPT_PAUSE).await;
        }
    }

    /// Refuses the next connection, for which no file is left. False if none was kept back either.
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

/// A file that is of no use but to be closed.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Closes for writing, then reads for a moment what the peer still sends: closing with input unread would
/// reset the connection, and the reset would overtake the last answer.
pub(crate) async fn linger(mut stream: TcpStream) {
    let drain = async {
        if stream.shutdown().await.is_ok() {
            read_out(&mut stream, &mut { LINGER_BYTES_MAX }).await;
        }
    };
    // Late or not, the socket is dropped next.
    timeout(LINGER, drain).await.ok();
}

/// As [`linger`], until a client that was cut has closed its side: while it reads what it had not read, it still answers
/// pings, and a reset in return would take the last words from it. Ends soon when the gateway does.
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
            // The kernel tries on without us.
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(&stream)
                .set_tcp_user_timeout(Some(Duration::from_secs(LAST_WORDS_S)))
                .ok();
            return;
        }
    }
    abort(&stream);
}

/// Reads what still comes, to the end or as much as is `left`.
async fn read_out(stream: &mut TcpStream, left: &mut usize) {
    // On the heap: the task of each connection would carry it along for as long as it lives.
    let mut scratch = vec![0; 4_096];
    while let Ok(n @ 1..) = stream.read(&mut scratch).await {
        *left = left.saturating_sub(n);
        if *left == 0 {
            return;
        }
    }
}

/// Has the kernel forget the connection as soon as it is dropped, and what it holds for it.
pub(crate) fn abort(stream: &TcpStream) {
    // It fails only on a socket that is gone already.
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}

/// What is set on the socket of each client.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Bytes that the kernel may hold unsent before the socket counts as full (`TCP_NOTSENT_LOWAT`).
    pub unsent_bytes_max: u32,
}

impl Tuning {
    /// Sets them. Where the system has no such option, its own limits stay.
    ///
    /// There is no `TCP_USER_TIMEOUT`: Linux counts it from when a receive window closed, too, answered probes or not, and
    /// would end a client that reads slowly. See [`peer`].
    #[cfg(target_os = "linux")]
    pub(crate) fn apply(self, stream: &std::net::TcpStream) {
        // It fails only on a socket that is gone already, which the first read will tell.
        socket2::SockRef::from(stream).set_tcp_notsent_lowat(self.unsent_bytes_max).ok();
    }

    /// Sets them. Where the system has no such option, its own limits stay.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn apply(self, _: &std::net::TcpStream) {}
}

/// Writes as much as the kernel takes now, and asks nobody before.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if it takes nothing; anything else ends the connection.
#[inline]
pub(crate) fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    // The call of the C library can be cancelled by another thread, and sees to that before and after each.
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::send(stream, bytes, rustix::net::SendFlags::NOSIGNAL)?);
    #[cfg(not(target_os = "linux"))]
    return socket2::SockRef::from(stream).send(bytes);
}

/// Reads the line of memory that [`send`] will need, and says nothing of it.
#[inline]
pub(crate) fn prefetch(stream: &TcpStream) -> usize {
    #[cfg(target_os = "linux")]
    return std::os::fd::AsRawFd::as_raw_fd(stream) as usize;
    #[cfg(not(target_os = "linux"))]
    return std::ptr::from_ref(stream).addr();
}

/// Writes though the kernel holds as much unsent as it may: its buffer has room beyond that.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if the buffer itself is full; anything else ends the connection.
pub(crate) fn write_beyond_lowat(stream: &TcpStream, bytes: &[u8], tuning: Tuning) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(u32::MAX)?;
    // Not `try_write`: tokio remembers that the socket was full, and would not ask again.
    let written = io::Write::write(&mut &*socket2::SockRef::from(stream), bytes);
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(tuning.unsent_bytes_max)?;
    #[cfg(not(target_os = "linux"))]
    let _ = tuning;
    written
}

/// The address that a connection counts for: its own, and of IPv6 the /64 network, since a host has all of it.
pub(crate) fn share_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

/// How many connections there are from each [share](share_of) of the addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    open: Mutex<HashMap<IpAddr, usize>>,
    all: AtomicUsize,
}

/// One connection's place among those from its address; dropping it gives it back.
#[derive(Debug)]
pub struct ConnectionPermit {
    address: IpAddr,
    addresses: Arc<Addresses>,
}

impl Addresses {
    /// A place for a connection from this address, if it has fewer than `most`.
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

    /// Connections that have a place, from all addresses.
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
