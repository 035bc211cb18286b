//! WebSocket frames as a server sends them: whole, unmasked, without extensions (RFC 6455 §5.2).

use super::close::Close;

/// The longest header that a server's frame needs.
const HEADER_MAX: usize = 10;
const FIN_TEXT: u8 = 0x81;
const FIN_CLOSE: u8 = 0x88;

/// Writes the header of a frame of `len` bytes right before `end`, and gives its length.
fn header(first: u8, len: usize, into: &mut [u8; HEADER_MAX]) -> usize {
    into[0] = first;
    if len < 126 {
        into[1] = len as u8;
        2
    } else if let Ok(len) = u16::try_from(len) {
        into[1] = 126;
        into[2..4].copy_from_slice(&len.to_be_bytes());
        4
    } else {
        into[1] = 127;
        into[2..].copy_from_slice(&(len as u64).to_be_bytes());
        HEADER_MAX
    }
}

/// Appends a text frame around `payload`.
pub fn text(payload: &[u8], out: &mut Vec<u8>) {
    let mut head = [0; HEADER_MAX];
    let len = header(FIN_TEXT, payload.len(), &mut head);
    out.extend_from_slice(&head[..len]);
    out.extend_from_slice(payload);
}

/// Appends a close frame.
pub fn close(why: Close, out: &mut Vec<u8>) {
    let reason = why.why().as_bytes();
    let mut head = [0; HEADER_MAX];
    let len = header(FIN_CLOSE, 2 + reason.len(), &mut head);
    out.extend_from_slice(&head[..len]);
    out.extend_from_slice(&why.code().to_be_bytes());
    out.extend_from_slice(reason);
}

/// Makes one text frame in a buffer that is used again and again: the payload is written behind a gap, and
/// the header then put right before it, so nothing is copied.
#[derive(Debug, Default)]
pub struct TextFrame {
    buffer: Vec<u8>,
    start: usize,
}

impl TextFrame {
    /// Makes the frame whose payload `write` appends, and gives its bytes.
    pub fn make(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.buffer.clear();
        self.buffer.resize(HEADER_MAX, 0);
        write(&mut self.buffer);
        let mut head = [0; HEADER_MAX];
        let len = header(FIN_TEXT, self.buffer.len() - HEADER_MAX, &mut head);
        self.start = HEADER_MAX - len;
        self.buffer[self.start..HEADER_MAX].copy_from_slice(&head[..len]);
        self.bytes()
    }

    /// The frame made last; nothing before the first.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_short_as_the_rfc_asks() {
        for (len, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![b'x'; len];
            let mut appended = Vec::new();
            text(&payload, &mut appended);
            assert_eq!(appended[..head.len()], head, "{len}");
            assert_eq!(appended.len(), head.len() + len);
            let mut frame = TextFrame::default();
            frame.make(|out| out.extend_from_slice(b"something longer before"));
            assert_eq!(frame.make(|out| out.extend_from_slice(&payload)), appended, "{len}");
        }
    }

    #[test]
    fn a_close_frame_carries_code_and_word() {
        let mut out = Vec::new();
        close(Close::Shutdown, &mut out);
        assert_eq!(out, b"\x88\x0a\x0f\xa1shutdown");
    }
}
