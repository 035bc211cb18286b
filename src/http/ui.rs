//! The pages. `/` serves the trading page, if it was built into the binary (from `ui/`, with Node, before the
//! gateway). `/about` describes the gateway and its use without a script; `/` serves it as well if there is
//! no trading page.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Response};
use axum::response::IntoResponse;
use rust_embed::Embed;

use super::FeedHealth;
use super::accept::{Form, choose};
use crate::protocol::json::Provenance;

const POLICY: &str = "default-src 'none'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The trading page loads its own files, contains nothing inline, and connects only to this gateway.
const TRADING_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The output of `make ui`; empty if it was not run.
#[derive(Embed)]
#[folder = "ui/dist/"]
#[allow_missing = true]
struct Built;

/// The trading page, if it is built in.
pub(super) fn trading() -> Option<Response<Body>> {
    let page = Built::get("index.html")?;
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, TRADING_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    Some((headers, page.data).into_response())
}

/// A file of the trading page, if it is built in.
pub(super) fn file(path: &str) -> Option<Response<Body>> {
    let kind = match path.rsplit_once('.')?.1 {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    };
    let file = Built::get(path)?;
    // Names in `assets` change with the content of the file.
    let cache = if path.starts_with("assets/") { "max-age=31536000, immutable" } else { "max-age=3600" };
    let headers = [
        (CONTENT_TYPE, kind),
        // The policy of the page does not apply to the worker that it starts.
        (CONTENT_SECURITY_POLICY, TRADING_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, cache),
    ];
    Some((headers, file.data).into_response())
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;\
color:#1c2733;background:#fff}code,pre{font:14px/1.5 ui-monospace,monospace}pre{background:#f2f5f8;\
padding:.8rem 1rem;overflow-x:auto}table{border-collapse:collapse}td,th{text-align:left;\
padding:.25rem 1.5rem .25rem 0;vertical-align:top}\
@media(prefers-color-scheme:dark){body{color:#d7dee6;background:#14191f}pre{background:#1e262e}a{color:#8fb8ff}}";

/// The style sheet of the page; a separate file, so that the policy needs no exception for inline styles.
pub(super) async fn style() -> Response<Body> {
    ([(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "max-age=3600")], STYLE).into_response()
}

/// The content of the page `/about`.
pub(super) struct Page {
    pub(super) feed: Provenance,
    pub(super) publish: bool,
    pub(super) instruments: usize,
    pub(super) feeds: Vec<FeedHealth>,
}

impl Page {
    /// The page as a response.
    pub(super) fn response(&self) -> Response<Body> {
        let headers = [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (CACHE_CONTROL, "no-store"),
        ];
        (headers, self.html()).into_response()
    }

    fn html(&self) -> String {
        let mode = self.feed.name();
        let trading = if Built::get("index.html").is_some() {
            "<p><a href=\"/\">The trading page</a></p>\n"
        } else {
            "<p>The trading page is not built into this binary: <code>make run</code> does it, with Node.</p>\n"
        };
        let publish = if self.publish {
            "WebSocket for publishers; needs the token"
        } else {
            "publishing is off: no token is configured"
        };
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tickfan</title>\
<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
<link rel=\"stylesheet\" href=\"/style.css\"></head>\n<body><h1>tickfan</h1>\n\
<p>A market data gateway. Feeds: <b>{mode}</b>. Instruments: <b>{instruments}</b>.</p>\n{trading}{feeds}\
<h2>Endpoints</h2>\n<table>\n\
<tr><td><code>GET /ws</code></td><td>WebSocket, protocol <code>tickfan.v1</code></td></tr>\n\
<tr><td><code>GET /publish</code></td><td>{publish}</td></tr>\n\
<tr><td><a href=\"/api/symbols\"><code>GET /api/symbols</code></a></td>\
<td>every instrument, in pages; <code>?match=coinbase:*</code> for one venue</td></tr>\n\
<tr><td><a href=\"/api/replay\"><code>GET /api/replay</code></a></td>\
<td>the position of the replay; <code>POST</code> controls it</td></tr>\n\
<tr><td><a href=\"/api/replays\"><code>GET /api/replays</code></a></td>\
<td>the captures that rooms can replay, by <code>/ws?replay=NAME</code></td></tr>\n\
<tr><td><a href=\"/readyz\"><code>GET /readyz</code></a></td><td>200 while the feeds flow</td></tr>\n\
<tr><td><a href=\"/healthz\"><code>GET /healthz</code></a></td><td>200 while the process runs</td></tr>\n\
</table>\n<h2>Try it</h2>\n<p>In the console of this page's browser:</p>\n\
<pre>new WebSocket(`ws://${{location.host}}/ws?symbols=*`).onmessage = (m) =&gt; console.log(m.data)</pre>\n\
</body></html>\n",
            instruments = self.instruments,
            feeds = self.feed_table(),
        )
    }

    fn feed_table(&self) -> String {
        if self.feeds.is_empty() {
            return String::new();
        }
        let mut table = "<h2>Feeds</h2>\n<table>\n".to_owned();
        for feed in &self.feeds {
            table.push_str("<tr><td>");
            escape(&feed.name, &mut table);
            table.push_str(if feed.flowing {
                "</td><td>flowing</td><td>"
            } else {
                "</td><td>not flowing</td><td>"
            });
            escape(&feed.detail, &mut table);
            table.push_str("</td></tr>\n");
        }
        table.push_str("</table>\n");
        table
    }
}

/// The list of the admin paths, as HTML for browsers and as text otherwise.
pub(super) fn list(headers: &HeaderMap, paths: &[(&str, &str)]) -> Response<Body> {
    let form = |kind| Form { kind, version: None };
    let (kind, text) = match choose(headers, &[form("text/plain"), form("text/html")]) {
        0 => ("text/plain; charset=utf-8", list_text(paths)),
        _ => ("text/html; charset=utf-8", list_html(paths)),
    };
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (VARY, "accept"),
    ];
    (headers, text).into_response()
}

fn list_text(paths: &[(&str, &str)]) -> String {
    let width = paths.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    let rows: String = paths.iter().map(|(path, says)| format!("{path:<width$}  {says}\n")).collect();
    format!("tickfan, the admin listener\n\n{rows}")
}

fn list_html(paths: &[(&str, &str)]) -> String {
    let mut page = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tickfan: admin</title></head>\n\
<body><h1>tickfan</h1>\n<p>The admin listener.</p>\n<table>\n"
        .to_owned();
    for (path, says) in paths {
        page += &format!("<tr><td><a href=\"{path}\"><code>{path}</code></a></td><td>");
        escape(says, &mut page);
        page += "</td></tr>\n";
    }
    page + "</table>\n</body></html>\n"
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
}
