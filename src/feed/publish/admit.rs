//! Authentication of publishers: the first line of a connection must contain the token. This runs on the
//! control thread; the ingest thread gets the socket afterwards.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::guesses::TokenVerdict;
use super::lines::Lines;
use super::strangers::{Place, Strangers};
use super::wire::{Portion, Received, Wire};
use super::{Publish, count};
use crate::net::share_of;
use crate::protocol::close::Close;
use crate::time::clock::patience;

/// The longest first line and the longest message without the token, in bytes.
pub(super) const AUTH_BYTES_MAX: usize = 1_024;
/// Read limit of a connection without the token: one message of the same length.
const FIRST: Portion = Portion { bytes: AUTH_BYTES_MAX, messages: 1 };
/// How long a refused connection may take to read the reason.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a connection is refused: a code for programs and a text for people.
type Refusal = (Close, String);

/// The first line of a connection without the token.
#[derive(Deserialize)]
struct Auth {
    op: String,
    token: String,
}

impl Publish {
    /// Compares a token received from this address. The time it takes depends on the length of `given` alone.
    pub fn judge(&self, given: &[u8], address: IpAddr) -> TokenVerdict {
        let now_ns = self.clock.now().mono_ns;
        let verdict = self.guesses.judge(share_of(address), now_ns, || self.is_token(given));
        match verdict {
            TokenVerdict::Right => {}
            TokenVerdict::Wrong => count(&self.stats.wrong_tokens, 1),
            TokenVerdict::NotNow { .. } => count(&self.stats.tokens_unread, 1),
        }
        verdict
    }

    /// Serves one connection until it has shown the token or ended.
    pub(super) async fn stranger(self: Arc<Self>, mut wire: Wire, among: Arc<Strangers>, address: IpAddr) {
        let (place, evicted) = among.take(share_of(address));
        count(&self.stats.evicted, u64::from(evicted));
        count(&self.stats.waiting, 1);
        let mut lines = Lines::new();
        let admitted = self.admit(&mut wire, &mut lines, &place, address).await;
        drop(place);
        self.stats.waiting.fetch_sub(1, Ordering::Relaxed);
        match admitted {
            Ok(permit) => {
                wire.admit();
                // Fails only for a socket that is already closed.
                if let Ok(wire) = wire.move_to(&self.home) {
                    self.home.spawn(Arc::clone(&self).publisher(wire, lines, permit));
                }
            }
            Err((why, msg)) => refuse(wire, why, &msg, &among).await,
        }
    }

    /// Waits for the token in the first line, and acknowledges it.
    async fn admit(
        &self,
        wire: &mut Wire,
        lines: &mut Lines,
        place: &Place,
        address: IpAddr,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let limit_ms = self.options.auth_timeout_ms;
        let line = tokio::select! {
            biased;
            // Polled first, so that a received line is read even if the place is lost.
            line = first_line(wire, lines) => line,
            () = place.evicted() => Err((Close::Limit, "too many connections without a token: send it at once".to_owned())),
            () = patience(Duration::from_millis(limit_ms)) => {
                Err((Close::Auth, format!("no token within {limit_ms} ms")))
            }
            () = self.stopped() => Err((Close::Shutdown, "publishing ends here".to_owned())),
        };
        if let Err(refusal) = line.and_then(|line| self.check(&line, address)) {
            count(&self.stats.auth_refused, 1);
            return Err(refusal);
        }
        let Some(permit) = self.room() else {
            return Err((Close::Limit, format!("{} publishers are connected", self.options.publishers_max)));
        };
        wire.say(&json!({"type": "ack", "op": "auth"}));
        Ok(permit)
    }

    fn check(&self, line: &[u8], address: IpAddr) -> Result<(), Refusal> {
        let wrong = |msg: &str| Err((Close::Auth, msg.to_owned()));
        let Ok(Auth { op, token }) = serde_json::from_slice(line) else {
            return wrong("the first line must be {\"op\":\"auth\",\"token\":\"…\"}");
        };
        if op != "auth" {
            return wrong("the first `op` must be auth");
        }
        match self.judge(token.as_bytes(), address) {
            TokenVerdict::Right => Ok(()),
            TokenVerdict::Wrong => wrong("`token` is wrong"),
            TokenVerdict::NotNow { retry_s } => Err((Close::Busy, too_many(retry_s))),
        }
    }
}

/// Returns the message for a token that was not compared.
pub fn too_many(retry_s: u64) -> String {
    format!("too many wrong tokens came from this address: the next one is compared in {retry_s} s")
}

async fn first_line(wire: &mut Wire, lines: &mut Lines) -> Result<Vec<u8>, Refusal> {
    let wrong = |msg: &str| (Close::Auth, msg.to_owned());
    loop {
        if let Some(line) = lines.line() {
            return Ok(line);
        }
        if lines.buffer.len() > AUTH_BYTES_MAX {
            return Err(wrong(&format!("the first line is longer than {AUTH_BYTES_MAX} bytes")));
        }
        match wire.receive(lines, FIRST).await {
            Ok(Received::Bytes) if wire.is_framed() && lines.buffer.is_empty() => {
                return Err(wrong("the first message is empty"));
            }
            Ok(Received::Bytes | Received::Room) => {}
            Ok(Received::End | Received::Reset) => return Err(wrong("closed before a token was received")),
            Err(why) => return Err((why, "more was sent than is allowed before the token".to_owned())),
        }
    }
}

/// Closes a connection with the reason, and waits until the peer has read it, unless too many such waits are
/// in progress.
async fn refuse(mut wire: Wire, why: Close, msg: &str, among: &Strangers) {
    wire.say(&json!({"type": "error", "code": why.why(), "msg": msg}));
    match among.parting() {
        Some(_parting) => {
            timeout(FAREWELL, wire.close(why)).await.ok();
        }
        None => wire.drop_now(why),
    }
}
