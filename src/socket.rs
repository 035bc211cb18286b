//! What every listening door does with its sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// How long accepting pauses after it failed, for example with no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a closed connection is read on, so that its peer gets to read the last words.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// How much a closed connection is read on, in bytes.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// The next connection, with `TCP_NODELAY`. Failures are counted in `errors` and tried again, never in a
/// busy loop.
pub(crate) async fn accept(listener: &TcpListener, errors: &AtomicU64) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // It fails only on a socket that is gone already, which the first read will tell.
                stream.set_nodelay(true).ok();
                return (stream, peer);
            }
            Err(error) => {
                errors.fetch_add(1, Ordering::Relaxed);
                // A peer that gave up says nothing about the next one; any other error stays for a while.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Closes for writing, then reads for a moment what the peer still sends: closing with input unread would
/// reset the connection, and the reset would overtake the last answer.
pub(crate) async fn linger(mut stream: TcpStream) {
    let drain = async {
        let mut scratch = [0; 4096];
        let mut left = LINGER_BYTES_MAX;
        if stream.shutdown().await.is_err() {
            return;
        }
        while let Ok(n @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    };
    // Late or not, the socket is dropped next.
    timeout(LINGER, drain).await.ok();
}
