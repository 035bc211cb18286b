//! The configuration: `config.toml`, overridden by the environment and then by the command line. It is
//! validated before anything is opened.

mod feed;
mod flight;
mod latency;
mod limits;
mod memory;
mod publish;
mod record;
mod replay;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::protocol::json::Provenance;
use crate::ring::CAPACITY_MAX;
use crate::session::{FRAME_RING_BYTES, FRAME_RING_BYTES_MIN};
use crate::shard::{STEPS_MIN, Wait};
use crate::text::printable;

pub use feed::{FeedConfig, FeedKind};
pub use flight::FlightConfig;
pub use latency::LatencyConfig;
pub use limits::LimitsConfig;
pub use publish::PublishConfig;
pub use record::RecordConfig;
pub use replay::ReplayConfig;

/// The shipped configuration, with every key at its default.
pub const SHIPPED: &str = include_str!("../../config.toml");

/// All settings. `config.toml` documents each key.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The public listener.
    #[serde(default)]
    pub server: ServerConfig,
    /// The admin listener.
    #[serde(default)]
    pub admin: AdminConfig,
    /// The sources of ticks.
    #[serde(default)]
    pub feed: Vec<FeedConfig>,
    /// Publishing.
    #[serde(default)]
    pub publish: PublishConfig,
    /// Replay control and rooms.
    #[serde(default)]
    pub replay: ReplayConfig,
    /// Recording and history.
    #[serde(default)]
    pub record: RecordConfig,
    /// The ring between ingest thread and shards.
    #[serde(default)]
    pub ring: RingConfig,
    /// The ingest thread.
    #[serde(default)]
    pub ingest: IngestConfig,
    /// The shards.
    #[serde(default)]
    pub shard: ShardConfig,
    /// Sessions.
    #[serde(default)]
    pub session: SessionConfig,
    /// Latency measurements.
    #[serde(default)]
    pub latency: LatencyConfig,
    /// The flight recorder.
    #[serde(default)]
    pub flight: FlightConfig,
    /// Limits.
    #[serde(default)]
    pub limits: LimitsConfig,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address of the public listener.
    pub listen: SocketAddr,
    /// Web pages that may connect.
    pub allowed_origins: Vec<String>,
    /// Host names of both listeners, besides loopback names and their own addresses.
    pub hosts: Vec<String>,
    /// Time after which a hanging thread ends the process, milliseconds; 0: never.
    pub hang_after_ms: u64,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address of the admin listener.
    pub listen: SocketAddr,
}

/// `[ring]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RingConfig {
    /// Ticks in the ring, i.e. how far a shard may fall behind.
    #[serde(deserialize_with = "ring_capacity")]
    pub capacity: usize,
}

/// `[ingest]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Shortest time between two turns while every shard is busy, microseconds.
    #[serde(deserialize_with = "rest_us")]
    pub rest_us: u64,
}

/// `[shard]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardConfig {
    /// Number of shards; 0: derived from the number of cores.
    pub threads: usize,
    /// How an idle shard waits.
    pub wait: Wait,
    /// Largest frame ring of a shard, bytes.
    #[serde(deserialize_with = "frame_ring_bytes")]
    pub frame_ring_bytes: usize,
    /// Most steps of a turn that requests of clients may take.
    #[serde(deserialize_with = "steps_per_turn")]
    pub steps_per_turn_max: u32,
    /// Most ring positions that a shard re-reads per turn for clients that resume or catch up.
    pub reread_per_turn: NonZeroUsize,
}

impl ShardConfig {
    /// Number of shards on a machine with `cores` cores.
    pub fn threads_on(&self, cores: usize) -> usize {
        if self.threads > 0 { self.threads } else { cores.saturating_sub(1).max(1) }
    }
}

/// `[session]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Most bytes of ticks queued for a client.
    #[serde(deserialize_with = "outbox_bytes")]
    pub outbox_bytes_max: usize,
    /// Additional bytes for the reserved lane.
    pub control_bytes_max: usize,
    /// Age of the queue at which a client is warned, milliseconds.
    pub warn_behind_ms: u64,
    /// Age of the queue at which ticks are merged or dropped, milliseconds.
    pub shed_behind_ms: u64,
    /// Time without progress of the read position after which a client is cut, milliseconds.
    pub cut_after_ms: NonZeroU64,
    /// Time in which a client that is behind reads its window, milliseconds.
    pub ahead_ms: NonZeroU64,
    /// Interval between heartbeats, milliseconds.
    pub heartbeat_ms: NonZeroU64,
    /// Time without a pong or message after which a client is dead, milliseconds.
    pub pong_timeout_ms: NonZeroU64,
    /// Time without an acknowledgement of its host after which a client is dead, milliseconds.
    pub dead_peer_ms: NonZeroU64,
    /// Most unsent bytes in the kernel.
    pub unsent_bytes_max: NonZeroU32,
    /// Time that a closing connection has, milliseconds.
    pub close_grace_ms: u64,
    /// Longest time that a stopping gateway waits, milliseconds.
    pub drain_ms: u64,
    /// Time over which the reconnects of its clients are spread, milliseconds.
    pub drain_spread_ms: u64,
}

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl Default for ServerConfig {
    fn default() -> Self {
        let allowed_origins = ["self", "loopback"].map(str::to_owned).to_vec();
        Self {
            listen: SocketAddr::new(LOOPBACK, 8080),
            allowed_origins,
            hosts: Vec::new(),
            hang_after_ms: 10_000,
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::new(LOOPBACK, 9090) }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self { rest_us: 1_000 }
    }
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { capacity: 65_536 }
    }
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            wait: Wait::Park,
            frame_ring_bytes: FRAME_RING_BYTES,
            steps_per_turn_max: 512,
            reread_per_turn: non_zero::<1_024>(),
        }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            outbox_bytes_max: 262_144,
            control_bytes_max: 65_536,
            warn_behind_ms: 1_000,
            shed_behind_ms: 3_000,
            cut_after_ms: non_zero_u64::<20_000>(),
            ahead_ms: non_zero_u64::<500>(),
            heartbeat_ms: non_zero_u64::<5_000>(),
            pong_timeout_ms: non_zero_u64::<20_000>(),
            dead_peer_ms: non_zero_u64::<30_000>(),
            unsent_bytes_max: non_zero_u32::<16_384>(),
            close_grace_ms: 2_000,
            drain_ms: 5_000,
            drain_spread_ms: 5_000,
        }
    }
}

const fn non_zero<const N: usize>() -> NonZeroUsize {
    const { NonZeroUsize::new(N).expect("not 0") }
}

const fn non_zero_u32<const N: u32>() -> NonZeroU32 {
    const { NonZeroU32::new(N).expect("not 0") }
}

const fn non_zero_u64<const N: u64>() -> NonZeroU64 {
    const { NonZeroU64::new(N).expect("not 0") }
}

/// A longer rest would only add latency.
const REST_US_MAX: u64 = 10_000;

fn rest_us<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let rest_us = u64::deserialize(from)?;
    if rest_us > REST_US_MAX {
        return Err(D::Error::custom(format!("rest_us must be at most {REST_US_MAX}")));
    }
    Ok(rest_us)
}

fn optional_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

fn ring_capacity<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let capacity = usize::deserialize(from)?;
    if capacity.is_power_of_two() && capacity <= CAPACITY_MAX {
        return Ok(capacity);
    }
    Err(D::Error::custom(format!("capacity must be a power of two of up to {CAPACITY_MAX}")))
}

/// More steps would lead to turns of a second.
const STEPS_PER_TURN_MAX: u32 = 1 << 20;

fn steps_per_turn<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let steps = u32::deserialize(from)?;
    if (STEPS_MIN..=STEPS_PER_TURN_MAX).contains(&steps) {
        return Ok(steps);
    }
    Err(D::Error::custom(format!("steps_per_turn_max must be from {STEPS_MIN} to {STEPS_PER_TURN_MAX}")))
}

fn frame_ring_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let bytes = usize::deserialize(from)?;
    if (FRAME_RING_BYTES_MIN..=FRAME_RING_BYTES_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    Err(D::Error::custom(format!(
        "frame_ring_bytes must be from {FRAME_RING_BYTES_MIN} to {FRAME_RING_BYTES_MAX}"
    )))
}

/// A larger ring fits in no cache. This is also how far the 25-bit frame numbers of the pending frames reach,
/// at 32 bytes per frame.
const FRAME_RING_BYTES_MAX: usize = 1 << 30;

/// A smaller outbox has no room for a recovery message, and nothing would ever fit.
const OUTBOX_BYTES_MIN: usize = 4_096;

fn outbox_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let bytes = usize::deserialize(from)?;
    if bytes >= OUTBOX_BYTES_MIN {
        return Ok(bytes);
    }
    Err(D::Error::custom(format!("outbox_bytes_max must be at least {OUTBOX_BYTES_MIN}")))
}

/// Shortest token, in characters. 16 random letters and digits cannot be guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// Parses a token; empty: no token. Errors do not contain it.
fn token<'de, D: Deserializer<'de>>(key: &str, from: D) -> Result<String, D::Error> {
    let Ok(token) = String::deserialize(from) else {
        return Err(D::Error::custom(format!("{key}: a token is text")));
    };
    match token.chars().count() {
        0 | TOKEN_CHARS_MIN.. => Ok(token),
        chars => {
            let what = format!("{key}: a token has at least {TOKEN_CHARS_MIN} characters: this has {chars}");
            Err(D::Error::custom(what))
        }
    }
}

/// An error in a file, with its position. The line itself is omitted, because it may contain a token.
fn in_file(text: &str, source: &toml::de::Error) -> String {
    let what = with_new_name(source.message());
    let Some(before) = source.span().and_then(|span| text.get(..span.start)) else { return what };
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().map_or(0, |line| line.chars().count());
    format!("line {line}, column {column}: {what}")
}

/// Renamed keys, each with its current name.
const RENAMED: [(&str, &str); 2] =
    [("tape_bytes", "shard.frame_ring_bytes"), ("orders_max", "replay.commands_max")];

/// The message of the parser, or the current name if it is about a renamed key.
fn with_new_name(message: &str) -> String {
    let renamed = RENAMED.iter().find(|(old, _)| message.starts_with(&format!("unknown field `{old}`")));
    renamed.map_or_else(|| message.to_owned(), |(old, new)| format!("`{old}` is called `{new}` now"))
}

/// A setting as written, but without the value of a token or of an unknown key, which may be a misspelt
/// token.
fn shown(name: &str, section: &str, key: &str, value: &str) -> String {
    let shipped = shipped_table();
    let key = key.rsplit('.').next().unwrap_or(key);
    let section = match shipped.get(section) {
        Some(Value::Array(like)) => like.first(),
        section => section,
    };
    match section.and_then(|section| section.get(key)) {
        Some(_) if !key.contains("token") => format!("{name}={value}"),
        _ => format!("{name}=..."),
    }
}

/// An error in the configuration, with its source.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", printable::path(path))]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is invalid; the message contains line and column.
    #[error("{}: {what}", printable::path(path))]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error message with its position.
        what: String,
    },
    /// A setting of the environment or the command line is invalid.
    #[error("{origin} {setting}: {what}")]
    Setting {
        /// Source of the setting.
        origin: &'static str,
        /// The setting as written.
        setting: String,
        /// Error message.
        what: String,
    },
    /// Each key is valid, but their combination is not.
    #[error("{0}")]
    Together(String),
}

/// A setting from outside the file.
#[derive(Clone, Debug, PartialEq)]
struct Setting {
    origin: &'static str,
    /// The setting as written, for errors; without the value of a token.
    written: String,
    section: String,
    key: String,
    value: String,
}

impl Config {
    /// Every key at its default, and no feeds.
    pub fn bare() -> Self {
        Self {
            server: ServerConfig::default(),
            admin: AdminConfig::default(),
            feed: Vec::new(),
            publish: PublishConfig::default(),
            replay: ReplayConfig::default(),
            record: RecordConfig::default(),
            ring: RingConfig::default(),
            ingest: IngestConfig::default(),
            shard: ShardConfig::default(),
            session: SessionConfig::default(),
            latency: LatencyConfig::default(),
            flight: FlightConfig::default(),
            limits: LimitsConfig::default(),
        }
    }

    /// Reads the file, if given, and applies the settings of the environment, then those of the command line
    /// (`section.key=value`).
    ///
    /// # Errors
    /// [`ConfigError`] names the file with line and column, or the setting.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        settings: &[String],
    ) -> Result<Self, ConfigError> {
        let text = match path {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?,
        };
        let file = |source| ConfigError::File {
            path: path.unwrap_or(Path::new("")).to_owned(),
            what: in_file(&text, &source),
        };
        // The file is parsed on its own first, so that errors refer to its lines.
        let mut config: Self = toml::from_str(&text).map_err(file)?;
        let mut table: Table = toml::from_str(&text).map_err(file)?;
        let from_environment = environment.filter_map(|(name, value)| from_environment(&name, &value));
        let from_command_line = settings.iter().map(|setting| from_command_line(setting));
        for setting in from_environment.map(Ok).chain(from_command_line) {
            let setting = setting?;
            apply(&mut table, &setting)?;
            config = Self::deserialize(table.clone()).map_err(|error| ConfigError::Setting {
                origin: setting.origin,
                setting: setting.written.clone(),
                what: with_new_name(error.message()),
            })?;
        }
        if let Some(folder) = path.and_then(Path::parent) {
            for file in config.feed.iter_mut().flat_map(|feed| &mut feed.files) {
                *file = folder.join(&*file);
            }
            config.record.dir = folder.join(&config.record.dir);
            config.latency.log = config.latency.log.map(|log| folder.join(log));
            config.flight.dir = config.flight.dir.map(|dir| folder.join(dir));
            config.replay.dir = config.replay.dir.map(|dir| folder.join(dir));
        }
        Ok(config)
    }

    /// Validates constraints between keys.
    ///
    /// # Errors
    /// [`ConfigError::Together`] names the keys.
    pub fn check_together(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        if self.feed.is_empty() && !self.publishes() {
            let what = "nothing to serve: add a [[feed]], or set [publish] token (and listen)";
            return Err(ConfigError::Together(what.to_owned()));
        }
        let session = &self.session;
        if session.warn_behind_ms > session.shed_behind_ms {
            let what =
                "session.warn_behind_ms is more than session.shed_behind_ms: the warning would be too late";
            return Err(ConfigError::Together(what.to_owned()));
        }
        if self.latency.log.is_some() && self.latency.interval_ms == 0 {
            let what = "latency.log is set but latency.interval_ms is 0: nothing would be measured";
            return Err(ConfigError::Together(what.to_owned()));
        }
        if self.flight.dir.is_some() && self.latency.interval_ms == 0 {
            let what = "flight.dir is set but latency.interval_ms is 0: no flight would be written";
            return Err(ConfigError::Together(what.to_owned()));
        }
        if self.flight.dir.is_none() && !self.flight.budget.is_empty() {
            let what = "flight.budget is set but flight.dir is not: nothing would be written";
            return Err(ConfigError::Together(what.to_owned()));
        }
        if self.publish.listen.is_some() && self.publish.token.is_empty() {
            let what = "publish.listen is set but publish.token is not: publishing would not be possible";
            return Err(ConfigError::Together(what.to_owned()));
        }
        Ok(())
    }

    /// Rejects numbers that would overflow a clock or exhaust the memory.
    fn check_ranges(&self) -> Result<(), ConfigError> {
        const DAY_MS: u64 = 86_400_000;
        const MANY: u64 = 1 << 22;
        let (session, limits) = (&self.session, &self.limits);
        let ranges = [
            ("server.hang_after_ms", self.server.hang_after_ms, DAY_MS),
            ("session.heartbeat_ms", session.heartbeat_ms.get(), DAY_MS),
            ("session.close_grace_ms", session.close_grace_ms, DAY_MS),
            ("session.warn_behind_ms", session.warn_behind_ms, DAY_MS),
            ("session.shed_behind_ms", session.shed_behind_ms, DAY_MS),
            ("session.cut_after_ms", session.cut_after_ms.get(), DAY_MS),
            ("session.pong_timeout_ms", session.pong_timeout_ms.get(), DAY_MS),
            ("session.ahead_ms", session.ahead_ms.get(), DAY_MS),
            ("session.dead_peer_ms", session.dead_peer_ms.get(), DAY_MS),
            ("session.drain_spread_ms", session.drain_spread_ms, DAY_MS),
            ("limits.rates_per_connection", limits.rates_per_connection.get() as u64, 256),
            ("session.drain_ms", session.drain_ms, DAY_MS),
            ("latency.symbols", self.latency.symbols.get() as u64, 4_096),
            ("flight.seconds", self.flight.seconds.get(), 3_600),
            ("flight.quiet_s", self.flight.quiet_s.get(), 86_400),
            ("flight.files_max", self.flight.files_max.get() as u64, 10_000),
            ("flight.file_bytes_max", self.flight.file_bytes_max.get() as u64, 1 << 30),
            ("record.segment_s", self.record.segment_s.get(), 31 * 86_400),
            ("record.flush_ms", self.record.flush_ms.get(), 60_000),
            ("record.catch_ups_max", self.record.catch_ups_max as u64, 1 << 16),
            ("record.catch_ups_per_address", self.record.catch_ups_per_address as u64, 1 << 16),
            ("record.catch_up_patience_ms", self.record.catch_up_patience_ms.get(), DAY_MS),
            ("record.queue_frames_max", self.record.queue_frames_max.get() as u64, 1 << 24),
            ("limits.head_timeout_ms", limits.head_timeout_ms.get(), DAY_MS),
            ("limits.idle_timeout_ms", limits.idle_timeout_ms.get(), DAY_MS),
            ("limits.stale_after_ms", limits.stale_after_ms.get(), DAY_MS),
            ("limits.instruments_max", limits.instruments_max.get() as u64, MANY),
            ("limits.connections_max", limits.connections_max.get() as u64, MANY),
            ("limits.publishers_max", limits.publishers_max.get() as u64, MANY),
            ("publish.strangers_max", self.publish.strangers_max.get() as u64, 4_096),
            ("publish.wrong_tokens_per_minute", self.publish.wrong_tokens_per_minute.get().into(), 6_000),
            ("limits.admissions_per_s", u64::from(limits.admissions_per_s.get()), 1_000_000),
            ("shard.threads", self.shard.threads as u64, 1_024),
            ("shard.reread_per_turn", self.shard.reread_per_turn.get() as u64, CAPACITY_MAX as u64),
            ("replay.commands_max", self.replay.commands_max.get() as u64, 1 << 16),
            ("replay.checkpoints_max", self.replay.checkpoints_max as u64, 1 << 16),
            ("replay.dir_entries_max", self.replay.dir_entries_max.get() as u64, 1 << 16),
            ("replay.rooms_max", self.replay.rooms_max.get() as u64, 1_024),
            ("replay.room_captures_max", self.replay.room_captures_max.get() as u64, 256),
            ("replay.room_idle_s", self.replay.room_idle_s.get(), 31 * 86_400),
            ("replay.room_lifetime_s", self.replay.room_lifetime_s.get(), 366 * 86_400),
        ];
        self.record.check()?;
        match ranges.into_iter().find(|(_, value, most)| value > most) {
            Some((key, value, most)) => {
                Err(ConfigError::Together(format!("{key}: {value} is more than {most}")))
            }
            None => Ok(()),
        }
    }

    /// Whether the served data is live.
    pub fn provenance(&self) -> Provenance {
        match (self.feed.is_empty(), self.publishes()) {
            (true, _) => Provenance::Live,
            (false, false) => Provenance::Replay,
            (false, true) => Provenance::Mixed,
        }
    }

    /// Whether publishing is enabled.
    pub fn publishes(&self) -> bool {
        !self.publish.token.is_empty()
    }
}

/// The shipped table: tells which sections exist and which keys are text. The value of such a key is text in
/// any form.
fn shipped_table() -> Table {
    toml::from_str(SHIPPED).unwrap_or_default()
}

/// Parses `TICKFAN_SECTION_KEY`; other variables, and those of unknown sections, are ignored.
fn from_environment(name: &str, value: &str) -> Option<Setting> {
    let name_rest = name.strip_prefix("TICKFAN_")?.to_ascii_lowercase();
    let (section, key) = name_rest.split_once('_')?;
    let key = match shipped_table().get(section)? {
        // TICKFAN_FEED_0_SPEED is feed.0.speed.
        Value::Array(_) => key.replacen('_', ".", 1),
        _ => key.to_owned(),
    };
    Some(Setting {
        origin: "environment",
        written: shown(name, section, &key, value),
        section: section.to_owned(),
        key,
        value: value.to_owned(),
    })
}

fn from_command_line(setting: &str) -> Result<Setting, ConfigError> {
    let wrong = |what: &str| ConfigError::Setting {
        origin: "--set",
        setting: setting.split_once('=').map_or(setting, |(name, _)| name).to_owned(),
        what: what.to_owned(),
    };
    let (name, value) = setting.split_once('=').ok_or_else(|| wrong("write it as section.key=value"))?;
    let (section, key) = name.split_once('.').ok_or_else(|| wrong("write it as section.key=value"))?;
    Ok(Setting {
        origin: "--set",
        written: shown(name, section, key, value),
        section: section.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

fn apply(table: &mut Table, setting: &Setting) -> Result<(), ConfigError> {
    let Setting { origin, written, section, key, value } = setting;
    let wrong = |what: String| ConfigError::Setting { origin, setting: written.clone(), what };
    let shipped = shipped_table();
    // A feed is addressed by its index: feed.0.speed=10.
    let (target, key, like) = match (shipped.get(section), key.split_once('.')) {
        (Some(Value::Array(like)), Some((place, key))) => {
            let feeds = table.get_mut(section).and_then(Value::as_array_mut);
            let place: usize =
                place.parse().map_err(|_| wrong(format!("{place:?} is no place: feed.0.{key}")))?;
            let feed = feeds.and_then(|feeds| feeds.get_mut(place)).and_then(Value::as_table_mut);
            let feed = feed.ok_or_else(|| wrong(format!("there is no [[{section}]] number {place}")))?;
            (feed, key, like.first().and_then(|like| like.get(key)))
        }
        (Some(Value::Array(_)), None) => return Err(wrong(format!("write it as {section}.0.{key}=value"))),
        (Some(like), _) => {
            let section = table.entry(section).or_insert_with(|| Table::new().into());
            let section = section.as_table_mut().ok_or_else(|| wrong("is no section".to_owned()))?;
            (section, key.as_str(), like.get(key))
        }
        (None, _) => return Err(wrong(format!("there is no section [{section}]"))),
    };
    let value = match like {
        Some(Value::String(_)) => Value::String(value.clone()),
        _ => toml::from_str::<Table>(&format!("value = {value}"))
            .ok()
            .and_then(|mut parsed| parsed.remove("value"))
            .unwrap_or_else(|| Value::String(value.clone())),
    };
    let value = match (like, value) {
        // A whole number is accepted for a float: 10 for 10.0.
        (Some(Value::Float(_)), Value::Integer(whole)) => Value::Float(whole as f64),
        (_, value) => value,
    };
    target.insert(key.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests;
