//! What clients ask for, and the answers.

use serde_json::{Value, json};

use super::interest::{Awaited, Start, Wildcard, Wish};
use super::sessions::{Sessions, Socket};
use crate::clock::Now;
use crate::instrument::{InstrumentId, Symbol};
use crate::protocol::json as message;
use crate::protocol::{self, Id, Mode, Op, Request, Subscribe, Target};
use crate::tick::{Channel, Key, State, Stream};

/// What a client's text for a symbol means.
enum Named {
    /// Everything, or everything of a venue.
    Wildcard(Option<Box<str>>),
    /// With the state that the client is shown in the answer.
    Listed(InstrumentId, State),
    /// Well-formed, of a venue that is configured, and not seen yet.
    Awaited(Symbol),
}

/// Why a symbol is refused.
struct Refusal {
    code: &'static str,
    msg: String,
}

fn unknown(msg: impl Into<String>) -> Refusal {
    Refusal { code: "unknown_symbol", msg: msg.into() }
}

impl<S: Socket> Sessions<S> {
    /// Takes in one message of a client and answers it.
    pub fn request(&mut self, id: u32, text: &str, now: Now) {
        self.counters.requests.add(1);
        let allowed = self.may_ask(id, now);
        let answer = match protocol::parse(text) {
            Ok(Request { id: name, .. }) if !allowed => {
                let msg = format!("more than {} requests a second", self.options.ops_per_s);
                Err(message::error(name.as_ref(), "rate_limited", &msg, true))
            }
            Ok(request) => Ok(request),
            Err(fault) => Err(message::error(fault.id.as_ref(), fault.code, &fault.msg, false)),
        };
        match answer {
            Ok(request) => self.carry_out(id, request, now),
            Err(error) => {
                self.counters.faults.add(1);
                self.say(id, &error, now);
            }
        }
    }

    fn carry_out(&mut self, id: u32, request: Request, now: Now) {
        let name = request.id;
        match request.op {
            Op::Subscribe(wanted) => self.subscribe(id, name.as_ref(), &wanted, now),
            Op::Unsubscribe(target) => self.unsubscribe(id, name.as_ref(), &target, now),
            Op::Set(target, mode) => self.set(id, name.as_ref(), &target, mode, now),
            Op::List => {
                let subscriptions = self.list(id);
                let body = json!({ "subscriptions": subscriptions });
                self.say(id, &message::ack(name.as_ref(), "list", body), now);
            }
            Op::Symbols(pattern) => self.symbols(id, name.as_ref(), &pattern, now),
            Op::Ping(t) => {
                let out_us = self.clock.wall_ns() / 1_000;
                let pong = message::pong(name.as_ref(), t.as_ref(), now.wall_ns / 1_000, out_us);
                self.say(id, &pong, now);
            }
        }
    }

    /// Subscribes, with the answer before the first data.
    pub fn subscribe(&mut self, id: u32, name: Option<&Id>, wanted: &Subscribe, now: Now) {
        let (mut ok, mut rejected, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
        let mut room = self.options.symbols_max.saturating_sub(self.named(id));
        for text in &wanted.symbols {
            let named =
                self.resolve(text).and_then(|named| self.within(id, &named, &mut room).map(|()| named));
            match named {
                Ok(named) => {
                    for channel in &wanted.channels {
                        let mode = wanted.mode.unwrap_or(Mode::default_of(*channel));
                        ok.push(self.row(&named, *channel, mode));
                    }
                    accepted.push(named);
                }
                Err(refusal) => rejected.push(message::rejected(text, refusal.code, &refusal.msg)),
            }
        }
        let body = json!({"channel": channel_field(&wanted.channels), "ok": ok, "rejected": rejected});
        self.say(id, &message::ack(name, "subscribe", body), now);
        self.change_subscriptions(id, |sessions| {
            for named in accepted {
                sessions.take(id, &named, wanted, now);
            }
        });
    }

    /// Counts a symbol that the client names itself against its limit.
    fn within(&self, id: u32, named: &Named, room: &mut usize) -> Result<(), Refusal> {
        let already = match named {
            Named::Wildcard(_) => true,
            Named::Listed(instrument, _) => {
                let status = Key::new(*instrument, Stream::Status);
                self.connections.get(id as usize).is_some_and(|c| c.place(status).is_some())
            }
            Named::Awaited(symbol) => self
                .connections
                .get(id as usize)
                .is_some_and(|c| c.awaited.iter().any(|a| a.symbol == *symbol)),
        };
        if already {
            return Ok(());
        }
        *room = room.checked_sub(1).ok_or_else(|| Refusal {
            code: "limit",
            msg: format!("a connection may name {} symbols", self.options.symbols_max),
        })?;
        Ok(())
    }

    fn take(&mut self, id: u32, named: &Named, wanted: &Subscribe, now: Now) {
        let start = if wanted.snapshot { Start::Snapshot } else { Start::FromHere };
        for channel in wanted.channels.iter().copied() {
            let mode = wanted.mode.unwrap_or(Mode::default_of(channel));
            let wish = Wish { channel, mode, start };
            match named {
                Named::Listed(instrument, shown) => self.attach(id, *instrument, wish, *shown, now),
                Named::Awaited(symbol) => match self.table.find(symbol) {
                    // Listed since it was looked up, and `learn` is past it.
                    Some(listed) if listed.index() < self.known => {
                        self.attach(id, listed, wish, State::Waiting, now);
                    }
                    _ => self.await_symbol(id, Awaited { symbol: symbol.clone(), channel, mode }),
                },
                Named::Wildcard(venue) => self.take_wildcard(id, venue.clone(), wish, now),
            }
        }
    }

    fn take_wildcard(&mut self, id: u32, venue: Option<Box<str>>, wish: Wish, now: Now) {
        // What was listed up to now is taken here, what comes later by `learn`.
        self.learn(now);
        let wildcard = Wildcard { venue, channel: wish.channel, mode: wish.mode };
        let listed = self.table.iter().take(self.known);
        let taken: Vec<_> = listed.filter(|(_, s)| wildcard.takes(s)).map(|(id, _)| id).collect();
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        connection.wildcards.retain(|w| w.venue != wildcard.venue || w.channel != wildcard.channel);
        connection.wildcards.push(wildcard);
        for instrument in taken {
            // The answer shows no states: what is not live is told.
            self.attach(id, instrument, wish, State::Live, now);
        }
    }

    fn row(&self, named: &Named, channel: Channel, mode: Mode) -> Value {
        match named {
            Named::Wildcard(None) => message::accepted("*", channel, mode, None),
            Named::Wildcard(Some(venue)) => message::accepted(&format!("{venue}:*"), channel, mode, None),
            Named::Awaited(symbol) => message::accepted(symbol.as_str(), channel, mode, Some(State::Waiting)),
            Named::Listed(instrument, state) => {
                let symbol = self.table.get(*instrument).map_or("", Symbol::as_str);
                message::accepted(symbol, channel, mode, Some(*state))
            }
        }
    }

    fn listed(&self, instrument: InstrumentId) -> Named {
        Named::Listed(instrument, self.ring.state(instrument))
    }

    fn resolve(&self, text: &str) -> Result<Named, Refusal> {
        if text == "*" {
            return Ok(Named::Wildcard(None));
        }
        match text.split_once(':') {
            Some((venue, "*")) => {
                self.require_venue(venue)?;
                Ok(Named::Wildcard(Some(venue.into())))
            }
            Some((venue, _)) => {
                self.require_venue(venue)?;
                let symbol = Symbol::parse(text).map_err(|error| unknown(error.to_string()))?;
                Ok(self.table.find(&symbol).map_or(Named::Awaited(symbol), |id| self.listed(id)))
            }
            None => self.resolve_bare(text),
        }
    }

    fn require_venue(&self, venue: &str) -> Result<(), Refusal> {
        let configured = self.options.venues.iter().any(|v| &**v == venue);
        if configured || self.table.iter().any(|(_, symbol)| symbol.venue() == venue) {
            return Ok(());
        }
        Err(unknown(format!("no venue {venue:.40?} here")))
    }

    /// A name without a venue is good when exactly one venue lists it.
    fn resolve_bare(&self, name: &str) -> Result<Named, Refusal> {
        let mut found = self.table.iter().filter(|(_, symbol)| symbol.name() == name);
        match (found.next(), found.next()) {
            (Some((id, _)), None) => Ok(self.listed(id)),
            (Some((_, one)), Some((_, other))) => Err(Refusal {
                code: "ambiguous_symbol",
                msg: format!("several venues list it: {one}, {other}"),
            }),
            _ => Err(unknown("no venue lists it: write venue:NAME")),
        }
    }

    fn unsubscribe(&mut self, id: u32, name: Option<&Id>, target: &Target, now: Now) {
        let (mut ok, mut rejected) = (Vec::new(), Vec::new());
        let symbols = target.symbols.clone().unwrap_or_else(|| vec!["*".to_owned()]);
        self.change_subscriptions(id, |sessions| {
            for text in &symbols {
                match sessions.pattern(text) {
                    Ok(pattern) => {
                        sessions.drop_matching(id, &pattern, &target.channels);
                        ok.push(json!({"symbol": pattern.shown()}));
                    }
                    Err(refusal) => rejected.push(message::rejected(text, refusal.code, &refusal.msg)),
                }
            }
        });
        let body = json!({"channel": channel_field(&target.channels), "ok": ok, "rejected": rejected});
        self.say(id, &message::ack(name, "unsubscribe", body), now);
    }

    /// What a text picks among a client's subscriptions: it need not be known to anybody else.
    fn pattern(&self, text: &str) -> Result<Pattern, Refusal> {
        match text.split_once(':') {
            _ if text == "*" => Ok(Pattern::All),
            Some((venue, "*")) if Symbol::is_venue(venue) => Ok(Pattern::Venue(venue.into())),
            Some(_) => Symbol::parse(text).map(Pattern::One).map_err(|error| unknown(error.to_string())),
            None => match self.resolve_bare(text)? {
                Named::Listed(instrument, _) => {
                    let symbol = self.table.get(instrument).cloned();
                    symbol.map(Pattern::One).ok_or_else(|| unknown("not listed"))
                }
                _ => Err(unknown("no venue lists it: write venue:NAME")),
            },
        }
    }

    fn drop_matching(&mut self, id: u32, pattern: &Pattern, channels: &[Channel]) {
        for key in self.matching(id, pattern, channels) {
            self.detach(id, key);
        }
        self.stop_awaiting(id, |a| channels.contains(&a.channel) && pattern.picks(&a.symbol));
        if let Some(connection) = self.connections.get_mut(id as usize) {
            connection.wildcards.retain(|w| !(channels.contains(&w.channel) && pattern.covers(w)));
        }
    }

    /// The keys of a session's subscriptions that a pattern picks on these channels.
    fn matching(&self, id: u32, pattern: &Pattern, channels: &[Channel]) -> Vec<Key> {
        let Some(connection) = self.connections.get(id as usize) else { return Vec::new() };
        let keys = connection.places.iter().map(|(key, _)| *key);
        keys.filter(|key| key.channel().is_some_and(|channel| channels.contains(&channel)))
            .filter(|key| self.table.get(key.instrument()).is_some_and(|symbol| pattern.picks(symbol)))
            .collect()
    }

    fn set(&mut self, id: u32, name: Option<&Id>, target: &Target, mode: Mode, now: Now) {
        let (mut ok, mut rejected) = (Vec::new(), Vec::new());
        let symbols = target.symbols.clone().unwrap_or_else(|| vec!["*".to_owned()]);
        for text in &symbols {
            match self
                .pattern(text)
                .and_then(|pattern| self.set_matching(id, &pattern, &target.channels, mode))
            {
                Ok(rows) => ok.extend(rows),
                Err(refusal) => rejected.push(message::rejected(text, refusal.code, &refusal.msg)),
            }
        }
        let body = json!({"channel": channel_field(&target.channels), "ok": ok, "rejected": rejected});
        self.say(id, &message::ack(name, "set", body), now);
    }

    fn set_matching(
        &mut self,
        id: u32,
        pattern: &Pattern,
        channels: &[Channel],
        mode: Mode,
    ) -> Result<Vec<Value>, Refusal> {
        let mut rows = Vec::new();
        for key in self.matching(id, pattern, channels) {
            let place = self.connections.get(id as usize).and_then(|c| c.place(key));
            if let (Some(place), Some(channel)) = (place, key.channel()) {
                self.set_mode(key, place, mode);
                rows.push(self.row(&self.listed(key.instrument()), channel, mode));
            }
        }
        let Some(connection) = self.connections.get_mut(id as usize) else { return Ok(rows) };
        for wildcard in &mut connection.wildcards {
            if channels.contains(&wildcard.channel) && pattern.covers(wildcard) {
                wildcard.mode = mode;
                rows.push(message::accepted(&wildcard.shown(), wildcard.channel, mode, None));
            }
        }
        for awaited in &mut connection.awaited {
            if channels.contains(&awaited.channel) && pattern.picks(&awaited.symbol) {
                awaited.mode = mode;
                let symbol = awaited.symbol.as_str();
                rows.push(message::accepted(symbol, awaited.channel, mode, Some(State::Waiting)));
            }
        }
        if rows.is_empty() {
            return Err(Refusal { code: "not_subscribed", msg: "there is no such subscription".to_owned() });
        }
        Ok(rows)
    }

    /// Every subscription of a session: wildcards, awaited symbols, instruments.
    fn list(&mut self, id: u32) -> Vec<Value> {
        let Some(connection) = self.connections.get(id as usize) else { return Vec::new() };
        let mut rows: Vec<Value> = Vec::new();
        for wildcard in &connection.wildcards {
            rows.push(message::accepted(&wildcard.shown(), wildcard.channel, wildcard.mode, None));
        }
        for Awaited { symbol, channel, mode } in &connection.awaited {
            rows.push(message::accepted(symbol.as_str(), *channel, *mode, Some(State::Waiting)));
        }
        for (key, place) in connection.places.clone() {
            if let (Some(channel), Some(mode)) = (key.channel(), self.mode_of(key, place)) {
                rows.push(self.row(&self.listed(key.instrument()), channel, mode));
            }
        }
        rows
    }

    fn symbols(&mut self, id: u32, name: Option<&Id>, pattern: &str, now: Now) {
        let answer = match self.pattern(pattern) {
            Ok(pattern) => {
                let rows: Vec<Value> = self
                    .table
                    .iter()
                    .filter(|(_, symbol)| pattern.picks(symbol))
                    .map(|(id, symbol)| json!({"symbol": symbol.as_str(), "state": self.ring.state(id).name()}))
                    .collect();
                message::ack(name, "symbols", json!({ "symbols": rows }))
            }
            Err(refusal) if refusal.code == "unknown_symbol" => {
                message::ack(name, "symbols", json!({"symbols": []}))
            }
            Err(refusal) => message::error(name, refusal.code, &format!("`match`: {}", refusal.msg), false),
        };
        self.say(id, &answer, now);
    }
}

/// Which symbols a text picks.
enum Pattern {
    All,
    Venue(Box<str>),
    One(Symbol),
}

impl Pattern {
    fn picks(&self, symbol: &Symbol) -> bool {
        match self {
            Self::All => true,
            Self::Venue(venue) => &**venue == symbol.venue(),
            Self::One(one) => one == symbol,
        }
    }

    /// Whether all that a wildcard takes is picked.
    fn covers(&self, wildcard: &Wildcard) -> bool {
        match self {
            Self::All => true,
            Self::Venue(venue) => wildcard.venue.as_ref() == Some(venue),
            Self::One(_) => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::All => "*".to_owned(),
            Self::Venue(venue) => format!("{venue}:*"),
            Self::One(symbol) => symbol.as_str().to_owned(),
        }
    }
}

impl Wildcard {
    fn shown(&self) -> String {
        self.venue.as_ref().map_or("*".to_owned(), |venue| format!("{venue}:*"))
    }
}

/// One channel as a word, several as a list: as a client may write them.
fn channel_field(channels: &[Channel]) -> Value {
    match channels {
        [one] => one.name().into(),
        several => several.iter().map(|channel| channel.name()).collect(),
    }
}
