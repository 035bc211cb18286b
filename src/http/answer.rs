//! Answers shared by several routes: errors in one shape, and the headers of answers that must not be cached.

use axum::Json;
use axum::body::Body;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, ORIGIN, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::system::memory::{REFUSAL, RETRY_AFTER_MS};

/// Returns an error response: a sentence for people, and the code that goes with the status.
pub(super) fn error(status: StatusCode, msg: &str) -> Response<Body> {
    refusal(status, code_of(status), msg)
}

/// As [`error`], with a code of its own.
pub(super) fn refusal(status: StatusCode, code: &str, msg: &str) -> Response<Body> {
    (status, Json(error_body(code, msg))).into_response()
}

/// Returns the body of every error response.
pub(super) fn error_body(code: &str, msg: &str) -> Value {
    json!({"error": msg, "code": code})
}

/// Returns the default error code of a status, as listed in `docs/PROTOCOL.md`.
pub(super) fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorised",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "bad_method",
        StatusCode::REQUEST_TIMEOUT => "timeout",
        StatusCode::CONFLICT => "conflict",
        StatusCode::UPGRADE_REQUIRED => "upgrade_required",
        StatusCode::HTTP_VERSION_NOT_SUPPORTED => "bad_version",
        StatusCode::INTERNAL_SERVER_ERROR => "internal",
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "too_big",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "bad_media_type",
        StatusCode::MISDIRECTED_REQUEST => "bad_host",
        StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        StatusCode::SERVICE_UNAVAILABLE => "busy",
        _ => "bad_request",
    }
}

pub(super) fn foreign() -> Response<Body> {
    error(StatusCode::FORBIDDEN, "this `Origin` is not among the allowed ones")
}

/// The response to requests that are refused because memory is short.
pub(super) fn short_of_memory() -> Response<Body> {
    let seconds = HeaderValue::from(RETRY_AFTER_MS.div_ceil(1_000));
    let mut body = error_body("short_of_memory", REFUSAL);
    body["retry_after_ms"] = RETRY_AFTER_MS.into();
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, seconds)], Json(body)).into_response()
}

pub(super) fn full(msg: &str) -> Response<Body> {
    ([(RETRY_AFTER, "1")], error(StatusCode::SERVICE_UNAVAILABLE, msg)).into_response()
}

/// Marks a response as not cacheable, because it is only valid at one moment.
pub(super) fn unstored(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Allows the requesting page to read the response.
pub(super) fn readable(mut response: Response<Body>, headers: &HeaderMap) -> Response<Body> {
    let answer = response.headers_mut();
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.insert(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = headers.get(ORIGIN) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    response
}

/// The response to an invalid parameter.
pub(super) fn bad(msg: &str) -> Response<Body> {
    error(StatusCode::BAD_REQUEST, msg)
}

/// The response where rooms are disabled.
pub(super) fn closed() -> Response<Body> {
    let msg = "this gateway has no captures to replay beside its feed: `[replay] dir` is not set";
    error(StatusCode::NOT_FOUND, msg)
}
