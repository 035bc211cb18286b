//! The part of WebSocket that both sides of this bench need.

use std::io;

use memchr::memmem;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Token that the publisher sends to any server; only the gateway requires it.
pub(crate) const TOKEN: &str = "token-of-the-bench";

/// A complete frame at the start of some bytes.
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) payload: &'a [u8],
    pub(crate) behind: &'a [u8],
}

impl<'a> Frame<'a> {
    #[inline]
    pub(crate) fn first(bytes: &'a [u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (len, rest) = match second & 0x7f {
            126 => {
                rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?
            }
            127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len) as usize, rest))?,
            len => (usize::from(len), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            rest.split_first_chunk::<4>().map(|(mask, rest)| (Some(*mask), rest))?
        };
        let (payload, behind) = rest.split_at_checked(len)?;
        Some(Self { opcode: first & 0x0f, mask, payload, behind })
    }

    pub(crate) fn unmasked(&self) -> Vec<u8> {
        let mask = self.mask.unwrap_or_default();
        self.payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect()
    }
}

/// Appends a complete frame. A client must mask, and uses a mask of zeros.
pub(crate) fn put(opcode: u8, masked: bool, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    let bit = if masked { 0x80 } else { 0 };
    match u16::try_from(payload.len()) {
        Ok(len @ 0..126) => out.push(bit | len as u8),
        Ok(len) => {
            out.push(bit | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            out.push(bit | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
}

pub(crate) const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Length of the head of a request or an answer, once it is complete.
pub(crate) fn head_len(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The answer to a handshake; `None` if the head is not one.
pub(crate) fn accept(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    })?;
    let accept = derive_accept_key(key.as_bytes());
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

/// The integer that follows `key`.
#[inline]
pub(crate) fn number_after(key: &memmem::Finder<'_>, bytes: &[u8]) -> Option<u64> {
    let digits = &bytes[key.find(bytes)? + key.needle().len()..];
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (len > 0).then(|| {
        let digit = |value: u64, digit: &u8| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        digits[..len].iter().fold(0, digit)
    })
}

/// Whether the socket has no data, or accepts none, at the moment.
pub(crate) fn not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
