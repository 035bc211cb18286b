//! Query parameters of a URL.

use axum::body::Body;
use axum::extract::Query;
use axum::http::{Response, Uri};

use super::answer::bad;
use crate::protocol;

/// The query parameters, or an error response if one occurs twice.
pub(super) fn each_once(uri: &Uri) -> Result<Vec<(String, String)>, Box<Response<Body>>> {
    let pairs = pairs(uri);
    protocol::each_given_once(&pairs, &[]).map_err(|msg| Box::new(bad(&msg)))?;
    Ok(pairs)
}

/// The value of a parameter.
pub(super) fn value<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// Decodes the query as a form: percent-encoding, and `+` for a space. Invalid UTF-8 becomes replacement
/// characters, which no symbol contains.
pub(super) fn pairs(uri: &Uri) -> Vec<(String, String)> {
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}
