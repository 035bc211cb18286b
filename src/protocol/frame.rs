//! WebSocket frames as a server sends them: unfragmented, unmasked, without extensions (RFC 6455 §5.2).

use super::close::Close;

/// Longest header of a frame that a server sends, in bytes.
const HEADER_MAX: usize = 10;
const FIN_TEXT: u8 = 0x81;
const FIN_CLOSE: u8 = 0x88;
const FIN_PING: u8 = 0x89;

/// Writes the header of a frame with `len` bytes of payload into `into`, and returns the length of the header
/// in bytes.
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

/// The length in bytes of the frame at the start of `bytes`, header included. `bytes` must begin with the
/// complete header of a frame that this module has written.
pub fn len(bytes: &[u8]) -> usize {
    match *bytes {
        [_, 126, a, b, ..] => 4 + usize::from(u16::from_be_bytes([a, b])),
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            let len = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            usize::try_from(len).unwrap_or(usize::MAX).saturating_add(HEADER_MAX)
        }
        [_, len, ..] => 2 + usize::from(len & 0x7f),
        _ => bytes.len(),
    }
}

/// The payload of a text frame that this module has written; `None` for any other frame.
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    let head = match *frame {
        [FIN_TEXT, 126, ..] => 4,
        [FIN_TEXT, 127, ..] => HEADER_MAX,
        [FIN_TEXT, ..] => 2,
        _ => return None,
    };
    frame.get(head..)
}

/// Appends a text frame with `payload`.
pub fn text(payload: &[u8], out: &mut Vec<u8>) {
    let mut head = [0; HEADER_MAX];
    let len = header(FIN_TEXT, payload.len(), &mut head);
    out.extend_from_slice(&head[..len]);
    out.extend_from_slice(payload);
}

/// Appends a ping frame with `payload`, of at most 125 bytes.
pub fn ping(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[FIN_PING, payload.len() as u8]);
    out.extend_from_slice(payload);
}

/// Longest payload of a close frame, in bytes.
const CONTROL_BYTES_MAX: usize = 125;

/// Appends a close frame with the reason word of `why`, followed by `more` if given. The reason is truncated
/// to the length of a control frame.
pub fn close(why: Close, more: Option<&str>, out: &mut Vec<u8>) {
    let mut reason = why.why().to_owned();
    if let Some(more) = more {
        reason.extend([": ", more]);
    }
    reason.truncate(reason.floor_char_boundary(CONTROL_BYTES_MAX - 2));
    let mut head = [0; HEADER_MAX];
    let len = header(FIN_CLOSE, 2 + reason.len(), &mut head);
    out.extend_from_slice(&head[..len]);
    out.extend_from_slice(&why.code().to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Builds one text frame in a reused buffer. The payload is written after space for the longest header, and the header
/// is then written directly before it, so that nothing is copied.
#[derive(Debug, Default)]
pub struct TextFrame {
    buffer: Vec<u8>,
    start: usize,
}

impl TextFrame {
    /// Builds the frame whose payload `write` appends, and returns its bytes.
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

    /// The frame that was built last; empty before the first.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

/// Counts the frames that a client sends without reading their payloads: the fragments of each message, and
/// the control frames. It must be fed every received byte in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    /// The received part of the current header.
    head: [u8; 10],
    head_len: u8,
    /// Bytes of mask and payload still to come in the current frame.
    rest: u64,
    /// Fragments of the current message so far.
    parts: u32,
    /// Control frames since [`take_controls`](Self::take_controls) was called last.
    controls: u32,
}

impl Scanner {
    /// Processes the next bytes. Returns the highest number of fragments that a message had reached in them.
    pub fn feed(&mut self, mut bytes: &[u8]) -> u32 {
        let mut most = 0;
        while let Some((first, others)) = bytes.split_first() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len() as u64);
                self.rest -= skipped;
                bytes = &bytes[skipped as usize..];
                continue;
            }
            self.head[usize::from(self.head_len)] = *first;
            self.head_len += 1;
            bytes = others;
            if self.head_ends() {
                most = most.max(self.begin_frame());
            }
        }
        most
    }

    /// True if all bytes so far form complete messages.
    pub fn is_between_messages(&self) -> bool {
        self.head_len == 0 && self.rest == 0 && self.parts == 0
    }

    /// The number of control frames since the last call.
    pub fn take_controls(&mut self) -> u32 {
        std::mem::take(&mut self.controls)
    }

    fn head_ends(&self) -> bool {
        let wanted = match self.head[1] & 0x7f {
            _ if self.head_len < 2 => 2,
            126 => 4,
            127 => 10,
            _ => 2,
        };
        self.head_len >= wanted
    }

    fn begin_frame(&mut self) -> u32 {
        let mut unmasked = self.head;
        unmasked[1] &= 0x7f;
        let header = u64::from(self.head_len);
        let whole = len(&unmasked[..usize::from(self.head_len)]) as u64;
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        self.rest = whole.saturating_sub(header).saturating_add(mask);
        self.head_len = 0;
        if self.head[0] & 0x08 != 0 {
            self.controls = self.controls.saturating_add(1);
            return 0;
        }
        self.parts = self.parts.saturating_add(1);
        let parts = self.parts;
        if self.head[0] & 0x80 != 0 {
            self.parts = 0;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_counts_parts_and_control_frames_however_the_bytes_are_cut() {
        let masked = |first: u8, len: usize| {
            let mut head = [0; HEADER_MAX];
            let n = header(first, len, &mut head);
            head[1] |= 0x80;
            [&head[..n], &[1, 2, 3, 4], &vec![0x89; len]].concat()
        };
        // A message of one fragment, one of three with a ping in between, one of 70,000 bytes, a close.
        let all = [
            masked(0x81, 5),
            masked(0x01, 0),
            masked(0x89, 3),
            masked(0x00, 200),
            masked(0x80, 1),
            masked(0x81, 70_000),
            masked(0x88, 2),
        ]
        .concat();
        for size in [1, 2, 3, 7, 100, all.len()] {
            let mut scanner = Scanner::default();
            let most = all.chunks(size).map(|chunk| scanner.feed(chunk)).max();
            assert_eq!((most, scanner.take_controls()), (Some(3), 2), "chunks of {size}");
            assert!(scanner.is_between_messages());
            scanner.feed(&[0x01]);
            assert!(!scanner.is_between_messages());
            assert_eq!(scanner.take_controls(), 0);
        }
    }

    #[test]
    fn frames_are_as_long_as_they_say() {
        for size in [0, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            text(&vec![b'x'; size], &mut out);
            assert_eq!(len(&out), out.len());
        }
    }

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
        close(Close::Shutdown, None, &mut out);
        assert_eq!(out, b"\x88\x0a\x0f\xa1shutdown");
        out.clear();
        close(Close::TooBig, Some("7"), &mut out);
        assert_eq!(out, b"\x88\x14\x03\xf1message_too_big: 7");
        // A control frame is short, and its reason ends at a character boundary.
        out.clear();
        close(Close::Auth, Some(&"ü".repeat(80)), &mut out);
        assert_eq!((out[1], out.len()), (124, 126));
        assert!(std::str::from_utf8(&out[4..]).is_ok_and(|text| text.starts_with("auth: üü")));
    }
}
