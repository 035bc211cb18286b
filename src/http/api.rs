//! Routes and their handlers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, any, get};
use axum::{Extension, Json, Router};
use serde_json::{Map, Value, json};

use super::answer::{bad, closed, error, foreign, full, readable, refusal, short_of_memory, unstored};
use super::pages::{ListQuery, ROWS_MAX};
use super::query::{each_once, pairs, value};
use super::rooms::HandOverOnce;
use super::serve::{self, Handover, Peer, PeerAddress, Working};
use super::upgrade::{Handshake, not_get};
use super::{
    AdminHooks, App, AskedClients, Health, Hooks, ListedClients, PublishRoute, Upgraded, exposition, ui,
};
use crate::feed::publish::{TokenVerdict, too_many};
use crate::model::instrument::{InstrumentId, Symbol};
use crate::ops::collector::Measured;
use crate::protocol::json::Ack;
use crate::protocol::replay::parse_control;
use crate::protocol::{self, Selector};
use crate::replay_control::{NOT_A_REPLAY, Refusal};
use crate::system::memory;

/// The routes of the public listener.
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
        .route("/api/replay", get(playback).post(control).options(preflight))
        .route("/api/replays", get(replays))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz));
    with_fallbacks(router).with_state(app)
}

/// A path with its description in the list at `/`, and its handler.
type Endpoint<S> = (&'static str, &'static str, MethodRouter<S>);

/// The admin paths, the source of both the router and the list at `/`.
fn admin_endpoints() -> Vec<Endpoint<AdminHooks>> {
    vec![
        ("/metrics", "all metrics, for Prometheus: text 0.0.4, or OpenMetrics 1.0 by Accept", get(metrics)),
        ("/healthz", "200 while the process runs", get(healthz)),
        (
            "/readyz",
            "200 while every feed flows, else 503 with the reason; lists other problems as well",
            get(admin_readyz),
        ),
        (
            "/api/clients",
            "every client, the slowest first; ?sort=behind, queued, merged, dropped, sent, latency or since, ?limit=100&after=…",
            get(clients),
        ),
        ("/api/rooms", "the rooms in which clients replay captures; ?limit=100&after=…", get(rooms)),
        (
            "/api/latency",
            "percentiles of the stages of the tick path; ?interval=last, 1m or start",
            get(latency),
        ),
        (
            "/api/latency/symbols",
            "percentiles of the total latency of the busiest symbols; ?interval=…&limit=1000&after=…",
            get(latency_symbols),
        ),
        (
            "/api/latency.hgrm",
            "one stage in the format of HdrHistogram's tools; ?stage=write&interval=…",
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

/// Default number of rows of the admin lists.
const ROWS: usize = 100;

async fn clients(State(hooks): State<AdminHooks>, uri: Uri) -> Response<Body> {
    let asked = match ListQuery::of(&uri, ROWS) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let sort = asked.value("sort").unwrap_or("behind").to_owned();
    // One row beyond the page shows whether there are more.
    let found = (hooks.clients)(AskedClients { sort, limit: asked.limit + 1, after: asked.after.clone() });
    match found.await {
        Ok(ListedClients { total, rows }) => {
            let others = [("total".to_owned(), total.into())].into_iter().collect();
            unstored(asked.answer("clients", rows.into_iter(), false, others))
        }
        Err(msg) => bad(&msg),
    }
}

async fn rooms(State(hooks): State<AdminHooks>, uri: Uri) -> Response<Body> {
    let asked = match ListQuery::of(&uri, ROWS) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let after = match asked.after.as_deref().map(str::parse::<u64>).transpose() {
        Ok(after) => after,
        Err(_) => return bad("`after` must be the number of a room"),
    };
    let rows = (hooks.rooms)().into_iter().filter(|(number, _)| after.is_none_or(|last| *number > last));
    let rows = rows.map(|(number, row)| (number.to_string(), row));
    unstored(asked.answer("rooms", rows, false, Map::new()))
}

/// The latencies over the requested interval, by stage.
async fn latency(State(hooks): State<AdminHooks>, uri: Uri) -> Response<Body> {
    measured(hooks, &uri, Measured::json)
}

/// The latencies over the requested interval, by symbol.
async fn latency_symbols(State(hooks): State<AdminHooks>, uri: Uri) -> Response<Body> {
    let Some(measured) = hooks.latency else { return not_measured() };
    let asked = match ListQuery::of(&uri, ROWS_MAX) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let interval = asked.value("interval").unwrap_or(MINUTE);
    match measured.symbols_json(interval, asked.after.as_deref()) {
        Ok((rows, others)) => unstored(asked.answer("symbols", rows.into_iter(), false, others)),
        Err(msg) => bad(&msg),
    }
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
        Err(msg) => bad(&msg),
    }
}

/// The percentiles of a stage, in the format that the tools of HdrHistogram plot.
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
        Err(msg) => bad(&msg),
    }
}

/// The default interval.
const MINUTE: &str = "1m";

fn not_measured() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "measuring is off: `latency.interval_ms` is 0")
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

async fn healthz() -> Response<Body> {
    ([(CACHE_CONTROL, "no-store")], Json(json!({"ok": true}))).into_response()
}

async fn readyz(State(app): State<Arc<App>>) -> Response<Body> {
    readiness(&app.hooks.health)
}

async fn admin_readyz(State(hooks): State<AdminHooks>) -> Response<Body> {
    readiness(&hooks.health)
}

/// The error code when the gateway is not ready.
const NOT_READY: &str = "not_ready";

fn readiness(health: &Health) -> Response<Body> {
    let feeds = (health.feeds)();
    let late: Vec<(&str, u64)> =
        health.pulses.iter().filter_map(|pulse| Some((pulse.name(), pulse.late_ms()?))).collect();
    let ready = !feeds.is_empty() && feeds.iter().all(|feed| feed.flowing) && late.is_empty();
    let rows: Vec<Value> = feeds
        .iter()
        .map(|feed| json!({"name": feed.name, "flowing": feed.flowing, "detail": feed.detail}))
        .collect();
    let mut body = json!({"ready": ready, "feeds": rows, "alarms": (health.alarms)()});
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if let Some((name, late_ms)) = late.first() {
        let threads = late.iter().map(|(name, late_ms)| json!({"name": name, "late_ms": late_ms}));
        body["threads"] = threads.collect();
        body["error"] = format!("the thread {name} has not moved for {late_ms} ms").into();
        body["code"] = NOT_READY.into();
    } else if !ready {
        body["error"] = if rows.is_empty() { "no feed is configured" } else { "a feed does not flow" }.into();
        body["code"] = NOT_READY.into();
    }
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn page(State(app): State<Arc<App>>) -> Response<Body> {
    match ui::trading() {
        Some(page) => page,
        None => about(State(app)).await,
    }
}

async fn asset(name: Result<Path<String>, PathRejection>) -> Response<Body> {
    match name {
        Ok(Path(name)) => file(&format!("assets/{name}")),
        Err(_) => bad("the path is no UTF-8"),
    }
}

fn file(path: &str) -> Response<Body> {
    ui::file(path).unwrap_or_else(|| error(StatusCode::NOT_FOUND, "the trading page has no such file"))
}

async fn about(State(app): State<Arc<App>>) -> Response<Body> {
    let instruments = app.hooks.instruments.len();
    let page = ui::Page {
        feed: app.feed,
        publish: app.hooks.publish.is_some(),
        instruments,
        feeds: (app.hooks.health.feeds)(),
    };
    page.response()
}

async fn symbols(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Response<Body> {
    if !app.origins.allow(&headers) {
        return foreign();
    }
    let asked = match ListQuery::of(&uri, ROWS_MAX) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let wanted = asked.value("match").map_or(Selector::All, Selector::parse);
    let is_good = match &wanted {
        Selector::All | Selector::Symbol(_) => true,
        Selector::Venue(venue) => Symbol::is_venue(venue),
        Selector::Bare(_) | Selector::Malformed(..) => false,
    };
    if !is_good {
        return bad("`match` must be \"*\", \"venue:*\" or \"venue:NAME\"");
    }
    let Hooks { instruments, state, .. } = &app.hooks;
    // Instruments are in listing order, so that later listings come after the cursor.
    let from = match &asked.after {
        None => 0,
        Some(last) => match Symbol::parse(last).ok().and_then(|last| instruments.find(&last)) {
            Some(last) => last.0 + 1,
            None => return bad("`after` must be a symbol that is listed"),
        },
    };
    let row = |id: InstrumentId| {
        let symbol = instruments.get(id).filter(|symbol| wanted.takes(symbol))?;
        let row = json!({"symbol": symbol.as_str(), "venue": symbol.venue(), "state": state(id).name()});
        Some((symbol.as_str().to_owned(), row))
    };
    // A single symbol is looked up instead of searched for.
    let ids = match &wanted {
        Selector::Symbol(symbol) => instruments.find(symbol).map_or(0..0, |id| id.0..id.0 + 1),
        _ => 0..instruments.len() as u32,
    };
    let rows = (ids.start.max(from)..ids.end).filter_map(|id| row(InstrumentId(id)));
    readable(asked.answer("symbols", rows, false, Map::new()), &headers)
}

/// The captures that rooms can replay.
async fn replays(
    State(app): State<Arc<App>>,
    working: Option<Extension<Working>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response<Body> {
    if !app.origins.allow(&headers) {
        return foreign();
    }
    // Reading the folder may take some time.
    if let Some(Extension(working)) = working {
        working.begin();
    }
    let Some(rooms) = &app.hooks.rooms else { return closed() };
    let asked = match ListQuery::of(&uri, ROWS_MAX) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let named = |row: Value| Some((row["name"].as_str()?.to_owned(), row));
    let is_behind = |(name, _): &(String, Value)| asked.after.as_ref().is_none_or(|last| name > last);
    let response = match (rooms.captures)().await {
        Ok(mut listed) => {
            // The list is sorted by name.
            let rows = listed["replays"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let rows = rows.into_iter().filter_map(named).filter(is_behind);
            asked.answer("replays", rows, listed["more"] == true, Map::new())
        }
        Err(why) => why.response(),
    };
    readable(response, &headers)
}

/// Whether the body is declared as JSON, exactly once, with any parameters. A form of a foreign page cannot
/// declare this type, and a script needs a [`preflight`] first.
fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Whether a page of another origin may control the replay: browsers send a preflight request before they
/// send JSON (WHATWG Fetch, CORS preflight).
async fn preflight(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    if !app.origins.allow(&headers) {
        return foreign();
    }
    let allowed = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
    ];
    readable((StatusCode::NO_CONTENT, allowed).into_response(), &headers)
}

/// The position of the replay.
async fn playback(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    if !app.origins.allow(&headers) {
        return foreign();
    }
    let Some(replay_control) = &app.hooks.replay_control else { return not_a_replay() };
    match replay_control.shown() {
        Some(shown) => readable(Json(shown.playback.message()).into_response(), &headers),
        None => full("the replay has not begun: try again"),
    }
}

/// Executes a replay command.
async fn control(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    if !app.origins.allow(&head.headers) {
        return foreign();
    }
    if !is_json(&head.headers) {
        let msg = "`Content-Type` must be application/json";
        return readable(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, msg), &head.headers);
    }
    let Some(replay_control) = &app.hooks.replay_control else { return not_a_replay() };
    let body = match serve::body(body).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let (id, mut control) = match parse_control(&body) {
        Ok(parsed) => parsed,
        Err(fault) => return refusal(StatusCode::BAD_REQUEST, fault.code, &fault.msg),
    };
    let shown = head.headers.get(AUTHORIZATION).and_then(bearer);
    let shown = shown.map(|token| String::from_utf8_lossy(token).into_owned());
    control.token = shown.or(control.token);
    let peer = head.extensions.get::<PeerAddress>().map(|peer| peer.0.ip());
    let answer = match replay_control.give(&control, peer) {
        Ok(()) => Json(Ack::new(id.as_ref(), "replay", Map::new())).into_response(),
        Err(refused) => {
            let status = match refused {
                Refusal::WrongToken => StatusCode::UNAUTHORIZED,
                Refusal::NotLocal => StatusCode::FORBIDDEN,
                Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
                Refusal::OutOfSpan(_) => StatusCode::BAD_REQUEST,
            };
            let mut response = refusal(status, refused.code(), &refused.to_string());
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
    refusal(StatusCode::NOT_FOUND, code, msg)
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
        Err(msg) => return bad(&msg),
    };
    if app.hooks.memory.refuses(memory::MemoryDemand::Connection) {
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
    // Without the header, the first message must be the token, because a browser cannot set headers.
    let authorized = match head.headers.get(AUTHORIZATION) {
        None => false,
        Some(value) => match shown(value, &head, &route) {
            TokenVerdict::Right => true,
            TokenVerdict::Wrong => {
                let response = error(StatusCode::UNAUTHORIZED, "`Authorization` does not carry the token");
                return ([(WWW_AUTHENTICATE, "Bearer")], response).into_response();
            }
            TokenVerdict::NotNow { retry_s } => {
                let response = error(StatusCode::TOO_MANY_REQUESTS, &too_many(retry_s));
                return ([(RETRY_AFTER, retry_s.to_string())], response).into_response();
            }
        },
    };
    handshake.accept(Handover::new(move |stream, read_buf, Peer { address, seat }| {
        (route.hand_over)(Upgraded { stream, read_buf, peer: address, subscribe: None, seat }, authorized)
    }))
}

/// Checks the token of a request.
fn shown(value: &HeaderValue, head: &Parts, route: &PublishRoute) -> TokenVerdict {
    match (bearer(value), head.extensions.get::<PeerAddress>()) {
        (Some(token), Some(peer)) => (route.accepts)(token, peer.0.ip()),
        _ => TokenVerdict::Wrong,
    }
}

/// The token of `Authorization: Bearer …`.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
