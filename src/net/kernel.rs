//! Queries to the kernel about a connection. No crate offers these two safely, so this module contains the
//! only unsafe calls of the crate.

use tokio::net::TcpStream;

/// The state of the peer, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Milliseconds since its last acknowledgement, replies to zero-window probes included.
    pub silent_ms: u64,
    /// True if a reply is outstanding: to data, or to a zero-window probe.
    pub asked: bool,
}

/// Returns the bytes written and not acknowledged yet: SIOCOUTQ, see tcp(7). 0 if the query fails.
#[cfg(target_os = "linux")]
pub(crate) fn unacked(stream: &TcpStream) -> u64 {
    use std::os::fd::AsRawFd;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and this request writes one int to
    // the location the pointer points to.
    #[allow(unsafe_code, reason = "no crate asks this safely")]
    let answer = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answer == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Returns 0: there is no such query on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn unacked(_: &TcpStream) -> u64 {
    0
}

/// Returns the state of the peer: TCP_INFO, see tcp(7). `None` if the query fails.
#[cfg(target_os = "linux")]
pub(crate) fn peer(stream: &TcpStream) -> Option<Peer> {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed. This option writes at most `len`
    // bytes to the location the pointer points to, which is the size of the buffer. The struct consists of
    // integers, for which the zeros that an older kernel leaves are valid.
    #[allow(unsafe_code, reason = "no crate asks this safely")]
    let info = unsafe {
        let (fd, to) = (stream.as_raw_fd(), info.as_mut_ptr().cast());
        let answer = libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut len);
        (answer == 0).then(|| info.assume_init())
    }?;
    Some(Peer {
        silent_ms: info.tcpi_last_ack_recv.into(),
        asked: info.tcpi_unacked > 0 || info.tcpi_probes > 0,
    })
}

/// Returns `None`: there is no such query on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn peer(_: &TcpStream) -> Option<Peer> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_heard_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (near, far) =
            tokio::join!(TcpStream::connect(listener.local_addr().expect("one")), listener.accept());
        let (mut near, _far) = (near.expect("connected"), far.expect("accepted"));
        near.write_all(b"hello").await.expect("sent");
        while unacked(&near) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(peer(&near).is_some_and(|peer| !peer.asked && peer.silent_ms < 10_000));
        // Until its window is closed.
        while near.try_write(&[0; 65_536]).is_ok() {}
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(unacked(&near) > 0);
        let peer = peer(&near).expect("Linux tells");
        assert!(peer.silent_ms < 1_400, "it answers probes: {peer:?}");
    }
}
