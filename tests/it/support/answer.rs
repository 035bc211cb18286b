//! An answer over HTTP, read byte for byte from a raw socket.

use std::io::Read;
use std::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads a head and, where it names a length, a body; HEAD answers come without one.
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        Self::read_of(stream, false)
    }

    pub(crate) fn read_of(stream: &mut TcpStream, head_only: bool) -> Self {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            let n = stream.read(&mut byte).expect("an answer in time");
            assert_eq!(n, 1, "closed after {:?}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("ascii").to_ascii_lowercase();
        let status = head[9..12].parse().expect("a status");
        let length = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().expect("a value").parse().expect("a length"));
        let mut body = vec![0; if head_only || status == 101 { 0 } else { length }];
        stream.read_exact(&mut body).expect("the body");
        Self { status, head, body: String::from_utf8(body).expect("utf-8") }
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|l| l == line)
    }

    pub(crate) fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        body["error"].as_str().expect("an error").to_owned()
    }
}
