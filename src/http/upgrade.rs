//! The WebSocket handshake (RFC 6455 §4.2), based on the request's head alone.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ALLOW, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, request};
use axum::response::IntoResponse;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::answer::error;
use super::serve::Handover;

/// The subprotocol that the gateway selects if the client offers it.
const SUBPROTOCOL: &str = "tickfan.v1";

/// A valid handshake request.
#[derive(Debug)]
pub(super) struct Handshake {
    accept: String,
    subprotocol: bool,
}

impl Handshake {
    /// Validates the head of a request.
    ///
    /// # Errors
    /// The response that describes the error.
    pub(super) fn check(head: &request::Parts) -> Result<Self, Box<Response<Body>>> {
        let headers = &head.headers;
        let asked = has_token(headers, &UPGRADE, "websocket") && has_token(headers, &CONNECTION, "upgrade");
        if !asked || head.version < Version::HTTP_11 {
            let msg = "this is a WebSocket endpoint: send `Connection: Upgrade` and `Upgrade: websocket` \
                       with HTTP/1.1";
            return Err(Box::new(upgrade_required(msg)));
        }
        if single(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
            return Err(Box::new(upgrade_required("`Sec-WebSocket-Version` must be 13")));
        }
        let Some(key) = single(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key)) else {
            let msg = "`Sec-WebSocket-Key` must be 16 bytes in base64, once";
            return Err(Box::new(error(StatusCode::BAD_REQUEST, msg)));
        };
        Ok(Self {
            accept: derive_accept_key(key.as_bytes()),
            // Case-sensitive: a client that offers another spelling would reject the answer and disconnect.
            subprotocol: words(headers, &SEC_WEBSOCKET_PROTOCOL).any(|word| word == SUBPROTOCOL),
        })
    }

    /// The 101, with the function that takes the socket once it is written. Extensions are not supported and
    /// never accepted.
    pub(super) fn accept(self, take: Handover) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        match HeaderValue::try_from(self.accept) {
            Ok(accept) => headers.insert(SEC_WEBSOCKET_ACCEPT, accept),
            Err(_) => return error(StatusCode::INTERNAL_SERVER_ERROR, "no accept key"),
        };
        if self.subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        response.extensions_mut().insert(Arc::new(take));
        response
    }
}

/// The response to any method but GET, HEAD included.
pub(super) fn not_get(method: &Method) -> Option<Response<Body>> {
    let answer = || {
        let mut response =
            error(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket opens with GET, and with no other method");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        response
    };
    (method != Method::GET).then(answer)
}

fn upgrade_required(msg: &str) -> Response<Body> {
    let headers = [(UPGRADE, "websocket"), (CONNECTION, "Upgrade"), (SEC_WEBSOCKET_VERSION, "13")];
    (headers, error(StatusCode::UPGRADE_REQUIRED, msg)).into_response()
}

/// The elements of a list header, over all its lines.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Whether a list header contains this token; case-insensitive, as in RFC 9110.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    words(headers, name).any(|word| word.eq_ignore_ascii_case(token))
}

/// The value of a header that must not be repeated.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { first.to_str().ok().map(str::trim) }
}

/// Whether the key has the form of 16 bytes in base64: 22 characters of its alphabet and two of padding.
fn is_key(key: &str) -> bool {
    let letter = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    matches!(key.as_bytes(), [letters @ .., b'=', b'='] if letters.len() == 22 && letters.iter().all(letter))
}
