//! Pagination of long lists: each answer is bounded in rows and bytes, and contains the cursor of the next
//! page.

use std::fmt::Write as _;

use axum::Json;
use axum::body::Body;
use axum::http::header::LINK;
use axum::http::{HeaderValue, Response, Uri};
use axum::response::IntoResponse;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::answer::bad;
use super::query::each_once;

/// Most rows of one answer.
pub(super) const ROWS_MAX: usize = 1_000;
/// Most bytes of the rows of one answer; a longer row forms a page alone.
const ROWS_BYTES_MAX: usize = 256 * 1024;

/// The pagination parameters of a request.
#[derive(Debug)]
pub(super) struct ListQuery {
    pairs: Vec<(String, String)>,
    /// Most rows of the page, from 1 to [`ROWS_MAX`].
    pub(super) limit: usize,
    /// The `next` of the previous page.
    pub(super) after: Option<String>,
}

impl ListQuery {
    /// Parses the query of a URL; `limit` is the default number of rows.
    ///
    /// # Errors
    /// The response that names the invalid parameter.
    pub(super) fn of(uri: &Uri, limit: usize) -> Result<Self, Box<Response<Body>>> {
        let pairs = each_once(uri)?;
        let mut asked = Self { pairs, limit, after: None };
        if let Some(limit) = asked.value("limit") {
            let wanted = limit.parse().ok().filter(|limit| (1..=ROWS_MAX).contains(limit));
            let wrong = || Box::new(bad(&format!("`limit` must be a whole number from 1 to {ROWS_MAX}")));
            asked.limit = wanted.ok_or_else(wrong)?;
        }
        asked.after = asked.value("after").map(str::to_owned);
        Ok(asked)
    }

    /// The value of a parameter.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The `Link` header of the next page, with a URL relative to this one (RFC 8288).
    fn link(&self, next: &str) -> String {
        let mut link = String::from("<");
        let others = self.pairs.iter().filter(|(key, _)| key != "after");
        let others = others.map(|(key, value)| (key.as_str(), value.as_str()));
        for (n, (key, value)) in others.chain([("after", next)]).enumerate() {
            link.push(if n == 0 { '?' } else { '&' });
            escape(key, &mut link);
            link.push('=');
            escape(value, &mut link);
        }
        link + ">; rel=\"next\""
    }

    /// The requested page of a list. `rows` are those after `after`, each with the cursor that continues after it.
    /// `more` marks a list that is longer than can be requested; `others` are fields beside the list.
    pub(super) fn answer(
        &self,
        name: &str,
        rows: impl Iterator<Item = (String, Value)>,
        more: bool,
        others: Map<String, Value>,
    ) -> Response<Body> {
        let (mut page, mut left, mut last, mut next) = (Vec::new(), ROWS_BYTES_MAX, None, None);
        for (cursor, row) in rows {
            // Encoding a value with text keys cannot fail.
            let text = serde_json::value::to_raw_value(&row).unwrap_or_default();
            let fits = left.checked_sub(text.get().len() + 1);
            if page.len() == self.limit || (fits.is_none() && !page.is_empty()) {
                next = last;
                break;
            }
            left = fits.unwrap_or(0);
            page.push(text);
            last = Some(cursor);
        }
        Page { others, name, rows: page, more: more || next.is_some(), next }.response(self)
    }
}

/// One page.
struct Page<'a> {
    others: Map<String, Value>,
    name: &'a str,
    rows: Vec<Box<RawValue>>,
    more: bool,
    next: Option<String>,
}

impl serde::Serialize for Page<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = to.serialize_map(None)?;
        for (key, value) in &self.others {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry(self.name, &self.rows)?;
        if self.more {
            map.serialize_entry("more", &true)?;
        }
        if let Some(next) = &self.next {
            map.serialize_entry("next", next)?;
        }
        map.end()
    }
}

impl Page<'_> {
    fn response(&self, asked: &ListQuery) -> Response<Body> {
        let mut response = Json(self).into_response();
        // The escaped text is ASCII without line breaks.
        let link = self.next.as_ref().and_then(|next| HeaderValue::try_from(asked.link(next)).ok());
        if let Some(link) = link {
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}

/// Percent-encodes all bytes with a meaning in a query (RFC 3986 §3.4).
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'*' => {
                out.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(query: &str) -> ListQuery {
        let uri = format!("/api/x{query}").parse().expect("an address");
        ListQuery::of(&uri, 7).unwrap_or_else(|response| panic!("{query}: {}", response.status()))
    }

    #[test]
    fn a_limit_is_from_1_to_the_most() {
        assert_eq!((asked("").limit, asked("?limit=1").limit, asked("?limit=1000&x=1").limit), (7, 1, 1_000));
        for bad in ["0", "1001", "-1", "x", "", "1.5", "99999999999999999999999"] {
            let uri = format!("/api/x?limit={bad}").parse().expect("an address");
            assert_eq!(ListQuery::of(&uri, 7).expect_err(bad).status(), 400, "{bad}");
        }
    }

    /// The number of rows on a page out of rows of these sizes, its `next`, and its link.
    fn page(query: &str, rows: &[usize]) -> (usize, Option<String>, Option<String>) {
        let row = |(n, bytes): (usize, &usize)| (format!("{n}&"), json!("x".repeat(*bytes)));
        let asked = asked(query);
        let mut taken = 0;
        let rows = rows.iter().enumerate().map(row).inspect(|_| taken += 1);
        let response = asked.answer("rows", rows, false, Map::new());
        assert!(taken <= asked.limit + 1, "what is not shown is not looked at");
        let link = response.headers().get(LINK).map(|link| link.to_str().expect("ASCII").to_owned());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX);
        let body = futures_util::FutureExt::now_or_never(body).expect("it is there").expect("whole");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["more"] == true, body["next"].is_string());
        (body["rows"].as_array().expect("a list").len(), body["next"].as_str().map(str::to_owned), link)
    }

    #[test]
    fn a_page_ends_with_its_rows_or_its_bytes() {
        assert_eq!(page("", &[]), (0, None, None));
        assert_eq!(page("", &[1; 7]), (7, None, None), "the last page says nothing of another");
        let link = |query: &str| Some(format!("<?{query}>; rel=\"next\""));
        assert_eq!(page("", &[1; 8]), (7, Some("6&".to_owned()), link("after=6%26")));
        assert_eq!(
            page("?limit=2&match=a:%2A%20&after=x&u=%C3%A4", &[1; 3]),
            (2, Some("1&".to_owned()), link("limit=2&match=a:*%20&u=%C3%A4&after=1%26"))
        );
        let half = ROWS_BYTES_MAX / 2;
        assert_eq!(page("", &[half, half - 9, 9]).0, 2);
        assert_eq!(page("", &[half, half, 9]).0, 1);
        // An oversized row forms a page alone, and the cursors lead to the end.
        assert_eq!(page("", &[2 * ROWS_BYTES_MAX, 1]), (1, Some("0&".to_owned()), link("after=0%26")));
        assert_eq!(page("", &[1, 2 * ROWS_BYTES_MAX]).0, 1);
    }
}
