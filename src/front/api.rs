//! The routes and their answers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, any, get};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

use super::rooms::{HandOverOnce, closed};
use super::serve::{self, Handover, Peer, PeerAddress, Working};
use super::upgrade::{Handshake, not_get};
use super::{AdminHooks, App, Health, SymbolRow, Upgraded, exposition, ui};
use crate::collector::Measured;
use crate::instrument::Symbol;
use crate::memory::{Asked, REFUSAL, RETRY_AFTER_MS};
use crate::protocol;
use crate::protocol::json::{Ack, Space};
use crate::protocol::replay::parse_control;
use crate::remote::{NOT_A_REPLAY, Refusal};

/// The routes of the public door.
pub(super) fn public(app: Arc<App>) -> Router {
    let router = Router::new()
        .route("/", get(page))
        .route("/about", get(about))
        .route("/assets/{name}", get(asset))
        .route("/favicon.svg", get(async || file("favicon.svg")))
        .route("/style.css", get(ui::style))
        .route("/ws", any(ws))
        .route("/publish", any(publish))
        .route("/api/symbols", get(symbols))
        .route("/api/replay", get(playback).post(control))
        .route("/api/replays", get(replays))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz));
    with_fallbacks(router).with_state(app)
}

/// A path with what `/` says of it, and who answers there.
type Endpoint<S> = (&'static str, &'static str, MethodRouter<S>);

/// The operator's paths: the router and the list at `/` are made of them.
fn admin_endpoints() -> Vec<Endpoint<AdminHooks>> {
    vec![
        (
            "/metrics",
            "everything that is counted, for Prometheus: text 0.0.4, or OpenMetrics 1.0 by Accept",
            get(metrics),
        ),
        ("/healthz", "200 while the process runs", get(healthz)),
        (
            "/readyz",
            "200 while every feed flows, else 503; says why, and what is wrong besides",
            get(admin_readyz),
        ),
        (
            "/api/clients",
            "every client, the slowest first; ?sort=behind, queued, dropped or merged, ?limit=100",
            get(clients),
        ),
        ("/api/rooms", "the rooms in which clients replay captures", get(rooms)),
        (
            "/api/latency",
            "percentiles of the stages of a tick's way; ?interval=last, 1m or start",
            get(latency),
        ),
        (
            "/api/latency/symbols",
            "the whole way's percentiles of the busiest symbols; ?interval=…",
            get(latency_symbols),
        ),
        (
            "/api/latency.hgrm",
            "one stage as HdrHistogram's tools draw it; ?stage=write&interval=…",
            get(latency_hgrm),
        ),
    ]
}

/// The routes of the admin listener.
pub(super) fn admin(hooks: AdminHooks) -> Router {
    let endpoints = admin_endpoints();
    let listed: Vec<(&str, &str)> = endpoints.iter().map(|(path, says, _)| (*path, *says)).collect();
    let listed: Arc<[(&str, &str)]> = listed.into();
    let router = Router::new().route("/", get(async move |headers: HeaderMap| ui::list(&headers, &listed)));
    let router = endpoints.into_iter().fold(router, |router, (path, _, answers)| router.route(path, answers));
    with_fallbacks(router).with_state(hooks)
}

async fn metrics(State(hooks): State<AdminHooks>, headers: HeaderMap) -> Response<Body> {
    exposition::response(&headers, (hooks.metrics)())
}

/// Clients in one answer, unless the request says otherwise, and at most.
const CLIENTS: usize = 100;
const CLIENTS_MAX: usize = 10_000;

async fn clients(State(hooks): State<AdminHooks>, uri: Uri) -> Response<Body> {
    let (mut sort, mut limit) = ("behind".to_owned(), CLIENTS);
    let pairs = match each_once(&uri) {
        Ok(pairs) => pairs,
        Err(response) => return *response,
    };
    for (key, value) in pairs {
        match key.as_str() {
            "sort" => sort = value,
            "limit" => match value.parse() {
                Ok(n) if n <= CLIENTS_MAX => limit = n,
                _ => {
                    let msg = format!("`limit` must be a whole number of up to {CLIENTS_MAX}");
                    return error(StatusCode::BAD_REQUEST, &msg);
                }
            },
            _ => {}
        }
    }
    match (hooks.clients)(sort, limit).await {
        Ok(rows) => ([(CACHE_CONTROL, "no-store")], Json(rows)).into_response(),
        Err(msg) => error(StatusCode::BAD_REQUEST, &msg),
    }
}

async fn rooms(State(hooks): State<AdminHooks>) -> Response<Body> {
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "rooms": (hooks.rooms)() }))).into_response()
}

/// What was measured over the interval that is asked for, by stage.
async fn latency(State(hooks): State<AdminHooks>, uri: Uri) -> Response<Body> {
    measured(hooks, &uri, Measured::json)
}

/// The same, by symbol.
async fn latency_symbols(State(hooks): State<AdminHooks>, uri: Uri) -> Response<Body> {
    measured(hooks, &uri, Measured::symbols_json)
}

fn measured(
    hooks: AdminHooks,
    uri: &Uri,
    asked: impl FnOnce(&Measured, &str) -> Result<Value, String>,
) -> Response<Body> {
    let Some(measured) = hooks.latency else { return not_measured() };
    let pairs = match each_once(uri) {
        Ok(pairs) => pairs,
        Err(response) => return *response,
    };
    match asked(&measured, value(&pairs, "interval").unwrap_or(MINUTE)) {
        Ok(found) => ([(CACHE_CONTROL, "no-store")], Json(found)).into_response(),
        Err(msg) => error(StatusCode::BAD_REQUEST, &msg),
    }
}

/// The percentiles of a stage, as HdrHistogram's tools draw them.
async fn latency_hgrm(State(hooks): State<AdminHooks>, uri: Uri) -> Response<Body> {
    let Some(measured) = hooks.latency else { return not_measured() };
    let pairs = match each_once(&uri) {
        Ok(pairs) => pairs,
        Err(response) => return *response,
    };
    let interval = value(&pairs, "interval").unwrap_or(MINUTE);
    match measured.percentiles(value(&pairs, "stage").unwrap_or_default(), interval) {
        Ok(text) => {
            let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
            (headers, text).into_response()
        }
        Err(msg) => error(StatusCode::BAD_REQUEST, &msg),
    }
}

/// The interval that is told where none is asked for.
const MINUTE: &str = "1m";

fn not_measured() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "measuring is off: `latency.interval_ms` is 0")
}

/// The value of a key.
fn value<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn with_fallbacks<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .fallback(|uri: Uri| async move {
            let path: String = uri.path().chars().take(100).collect();
            error(StatusCode::NOT_FOUND, &format!("nothing is at {path:?}"))
        })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "this method does not work here: GET and HEAD do")
        })
}

/// A response of this status that says what is wrong.
pub(super) fn error(status: StatusCode, msg: &str) -> Response<Body> {
    (status, Json(json!({ "error": msg }))).into_response()
}

async fn healthz() -> Response<Body> {
    ([(CACHE_CONTROL, "no-store")], Json(json!({"ok": true}))).into_response()
}

async fn readyz(State(app): State<Arc<App>>) -> Response<Body> {
    readiness(&app.hooks.health)
}

async fn admin_readyz(State(hooks): State<AdminHooks>) -> Response<Body> {
    readiness(&hooks.health)
}

fn readiness(health: &Health) -> Response<Body> {
    let feeds = (health.feeds)();
    let ready = !feeds.is_empty() && feeds.iter().all(|feed| feed.flowing);
    let rows: Vec<Value> = feeds
        .iter()
        .map(|feed| json!({"name": feed.name, "flowing": feed.flowing, "detail": feed.detail}))
        .collect();
    let mut body = json!({"ready": ready, "feeds": rows, "alarms": (health.alarms)()});
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !ready {
        body["error"] = if rows.is_empty() { "no feed is configured" } else { "a feed does not flow" }.into();
    }
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn page(State(app): State<Arc<App>>) -> Response<Body> {
    match ui::trading() {
        Some(page) => page,
        None => about(State(app)).await,
    }
}

async fn asset(Path(name): Path<String>) -> Response<Body> {
    file(&format!("assets/{name}"))
}

fn file(path: &str) -> Response<Body> {
    ui::file(path).unwrap_or_else(|| error(StatusCode::NOT_FOUND, "the trading page has no such file"))
}

async fn about(State(app): State<Arc<App>>) -> Response<Body> {
    let instruments = (app.hooks.symbols)().len();
    let page = ui::Page {
        feed: app.feed,
        publish: app.hooks.publish.is_some(),
        instruments,
        feeds: (app.hooks.health.feeds)(),
    };
    page.response()
}

/// Which instruments a `match` means.
enum Match {
    All,
    Venue(String),
    One(Symbol),
}

impl Match {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        match text.strip_suffix(":*") {
            Some(venue) => Symbol::is_venue(venue).then(|| Self::Venue(venue.to_owned())),
            None => Symbol::parse(text).ok().map(Self::One),
        }
    }

    fn takes(&self, symbol: &Symbol) -> bool {
        match self {
            Self::All => true,
            Self::Venue(venue) => symbol.venue() == venue,
            Self::One(wanted) => symbol == wanted,
        }
    }
}

async fn symbols(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Response<Body> {
    if !app.origins.allow(&headers) {
        return foreign();
    }
    let pairs = match each_once(&uri) {
        Ok(pairs) => pairs,
        Err(response) => return *response,
    };
    let Some(wanted) = value(&pairs, "match").map_or(Some(Match::All), Match::parse) else {
        return error(StatusCode::BAD_REQUEST, "`match` must be \"*\", \"venue:*\" or \"venue:NAME\"");
    };
    let rows = (app.hooks.symbols)();
    // In the order of listing, so whatever is listed meanwhile comes behind.
    let from = match value(&pairs, "after") {
        None => 0,
        Some(last) => match rows.iter().position(|row| row.symbol.as_str() == last) {
            Some(at) => at + 1,
            None => return error(StatusCode::BAD_REQUEST, "`after` must be a symbol that is listed"),
        },
    };
    let rows = rows[from..].iter().filter(|row| wanted.takes(&row.symbol)).map(symbol_row);
    readable(page_of("symbols", rows, false), &headers)
}

/// As many rows as an answer has room for. Whether there are more, or were before, is said.
fn page_of(name: &str, rows: impl Iterator<Item = Value>, more: bool) -> Response<Body> {
    let (mut space, mut page, mut more) = (Space::default(), Vec::new(), more);
    for row in rows {
        if !space.takes(std::slice::from_ref(&row)) {
            more = true;
            break;
        }
        page.push(row);
    }
    let mut body = json!({ name: page });
    if more {
        body["more"] = true.into();
    }
    Json(body).into_response()
}

/// A page that may ask may also read the answer.
fn readable(mut response: Response<Body>, headers: &HeaderMap) -> Response<Body> {
    let answer = response.headers_mut();
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.insert(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = headers.get(ORIGIN) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    response
}

/// What can be replayed beside the feed.
async fn replays(
    State(app): State<Arc<App>>,
    working: Option<Extension<Working>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response<Body> {
    if !app.origins.allow(&headers) {
        return foreign();
    }
    // The folder may take some time.
    if let Some(Extension(working)) = working {
        working.begin();
    }
    let Some(rooms) = &app.hooks.rooms else { return closed() };
    let pairs = match each_once(&uri) {
        Ok(pairs) => pairs,
        Err(response) => return *response,
    };
    let after = value(&pairs, "after");
    let is_behind =
        |row: &Value| after.is_none_or(|last| row["name"].as_str().is_some_and(|name| name > last));
    let response = match (rooms.captures)().await {
        Ok(mut listed) => {
            // Sorted by name.
            let rows = listed["replays"].as_array_mut().map(std::mem::take).unwrap_or_default();
            page_of("replays", rows.into_iter().filter(is_behind), listed["more"] == true)
        }
        Err(why) => why.response(),
    };
    readable(response, &headers)
}

/// Where the replay is.
async fn playback(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    if !app.origins.allow(&headers) {
        return foreign();
    }
    let Some(remote) = &app.hooks.remote else { return not_a_replay() };
    match remote.shown() {
        Some(shown) => readable(Json(shown.playback.message()).into_response(), &headers),
        None => full("the replay has not begun: try again"),
    }
}

/// Tells the replay what to do.
async fn control(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    if !app.origins.allow(&head.headers) {
        return foreign();
    }
    let Some(remote) = &app.hooks.remote else { return not_a_replay() };
    let body = match serve::body(body).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let (id, mut control) = match parse_control(&body) {
        Ok(parsed) => parsed,
        Err(fault) => return refused(StatusCode::BAD_REQUEST, fault.code, &fault.msg),
    };
    let shown = head.headers.get(AUTHORIZATION).and_then(bearer);
    let shown = shown.map(|token| String::from_utf8_lossy(token).into_owned());
    control.token = shown.or(control.token);
    let peer = head.extensions.get::<PeerAddress>().map(|peer| peer.0.ip());
    let answer = match remote.give(&control, peer) {
        Ok(()) => Json(Ack::new(id.as_ref(), "replay", serde_json::Map::new())).into_response(),
        Err(refusal) => {
            let status = match refusal {
                Refusal::WrongToken => StatusCode::UNAUTHORIZED,
                Refusal::NotLocal => StatusCode::FORBIDDEN,
                Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
                Refusal::OutOfSpan(_) => StatusCode::BAD_REQUEST,
            };
            let mut response = refused(status, refusal.code(), &refusal.to_string());
            if status == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    };
    readable(answer, &head.headers)
}

fn not_a_replay() -> Response<Body> {
    let (code, msg) = NOT_A_REPLAY;
    refused(StatusCode::NOT_FOUND, code, msg)
}

/// A response that says what is wrong, in a word for programs too.
fn refused(status: StatusCode, code: &str, msg: &str) -> Response<Body> {
    (status, Json(json!({ "error": msg, "code": code }))).into_response()
}

fn symbol_row(row: &SymbolRow) -> Value {
    json!({"symbol": row.symbol.as_str(), "venue": row.symbol.venue(), "state": row.state.name()})
}

async fn ws(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    if let Some(response) = not_get(&head.method) {
        return response;
    }
    if !app.origins.allow(&head.headers) {
        return foreign();
    }
    let handshake = match Handshake::check(&head) {
        Ok(handshake) => handshake,
        Err(response) => return *response,
    };
    let (subscribe, wish) = match protocol::parse_query(pairs(&head.uri)) {
        Ok(parsed) => parsed,
        Err(msg) => return error(StatusCode::BAD_REQUEST, &msg),
    };
    if app.hooks.memory.refuses(Asked::Connection) {
        return short_of_memory();
    }
    if !(app.hooks.can_accept)() {
        return full("no room for another session: try again later");
    }
    let hand_over: HandOverOnce = match wish {
        None => Box::new(move |upgraded| (app.hooks.hand_over)(upgraded)),
        Some(wish) => {
            let (Some(rooms), Some(PeerAddress(peer))) = (&app.hooks.rooms, head.extensions.get()) else {
                return closed();
            };
            if let Some(working) = head.extensions.get::<Working>() {
                working.begin();
            }
            match (rooms.enter)(wish, *peer).await {
                Ok(hand_over) => hand_over,
                Err(why) => return why.response(),
            }
        }
    };
    handshake.accept(Handover::new(move |stream, read_buf, Peer { address, seat }| {
        hand_over(Upgraded { stream, read_buf, peer: address, subscribe, seat })
    }))
}

async fn publish(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    if let Some(response) = not_get(&head.method) {
        return response;
    }
    let Some(route) = app.hooks.publish.clone() else {
        return error(StatusCode::NOT_FOUND, "publishing is off: no token is configured for it");
    };
    if !app.origins.allow(&head.headers) {
        return foreign();
    }
    let handshake = match Handshake::check(&head) {
        Ok(handshake) => handshake,
        Err(response) => return *response,
    };
    // Without the header the token must be the first message: a browser cannot set headers.
    let authorized = match head.headers.get(AUTHORIZATION) {
        None => false,
        Some(value) if bearer(value).is_some_and(|token| (route.accepts)(token)) => true,
        Some(_) => {
            let response = error(StatusCode::UNAUTHORIZED, "`Authorization` does not carry the token");
            return ([(WWW_AUTHENTICATE, "Bearer")], response).into_response();
        }
    };
    handshake.accept(Handover::new(move |stream, read_buf, Peer { address, seat }| {
        (route.hand_over)(Upgraded { stream, read_buf, peer: address, subscribe: None, seat }, authorized)
    }))
}

/// The token of `Authorization: Bearer …`.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn foreign() -> Response<Body> {
    error(StatusCode::FORBIDDEN, "this `Origin` is not among the allowed ones")
}

/// The answer to what is refused because memory is short.
pub(super) fn short_of_memory() -> Response<Body> {
    let seconds = HeaderValue::from(RETRY_AFTER_MS.div_ceil(1_000));
    let body = json!({"error": REFUSAL, "code": "short_of_memory", "retry_after_ms": RETRY_AFTER_MS});
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, seconds)], Json(body)).into_response()
}

pub(super) fn full(msg: &str) -> Response<Body> {
    ([(RETRY_AFTER, "1")], error(StatusCode::SERVICE_UNAVAILABLE, msg)).into_response()
}

/// The query, where nothing in it is given twice.
fn each_once(uri: &Uri) -> Result<Vec<(String, String)>, Box<Response<Body>>> {
    let pairs = pairs(uri);
    protocol::each_given_once(&pairs, &[]).map_err(|msg| Box::new(error(StatusCode::BAD_REQUEST, &msg)))?;
    Ok(pairs)
}

/// The query as a form is written: percent-decoded, `+` for a space. Text that is no UTF-8 becomes
/// replacement characters, which no symbol has.
fn pairs(uri: &Uri) -> Vec<(String, String)> {
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}
