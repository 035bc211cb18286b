//! What may happen to the market, the shard and its clients in a step.

use super::*;

impl Rig {
    pub(super) fn new(seed: u64) -> Self {
        Self::of(seed, 16, if seed.is_multiple_of(4) { 256 } else { 16 })
    }

    /// With a table and a ring of these sizes.
    pub(super) fn of(seed: u64, instruments_max: usize, capacity: usize) -> Self {
        let steps_max = [STEPS_MIN, 2 * STEPS_MIN, 1_024][(seed / 2 % 3) as usize];
        Self::bounded(seed, (steps_max, 1_000_000), instruments_max, capacity)
    }

    /// With so many steps a turn, and requests a second.
    pub(super) fn bounded(
        seed: u64,
        (steps_max, ops_per_s): (u32, u32),
        instruments_max: usize,
        capacity: usize,
    ) -> Self {
        Self::tuned(seed, (steps_max, ops_per_s), instruments_max, capacity, 1)
    }

    /// With so many bytes that a kernel may hold unsent.
    pub(super) fn tuned(
        seed: u64,
        (steps_max, ops_per_s): (u32, u32),
        instruments_max: usize,
        capacity: usize,
        unsent_bytes_max: u32,
    ) -> Self {
        let clock = Clock::manual();
        let table = Arc::new(InstrumentTable::new(instruments_max));
        let burst = if seed.is_multiple_of(4) { 200 } else { 40 };
        let (writer, ring) = tick_ring(capacity, instruments_max).expect("a good capacity");
        let counters = Arc::new(ShardCounters::default());
        let options = SessionOptions {
            limits: ClientLimits {
                symbols_max: 100,
                frame_bytes_max: 65_536,
                fragments_max: 1,
                controls_per_s: 1,
                ops_per_s,
                steps_per_turn_max: steps_max,
            },
            times: SessionTimes {
                heartbeat_ms: 50,
                close_grace_ms: 1_000,
                drain_spread_ms: 100,
                dead_peer_ms: 1,
            },
            epoch: "e".into(),
            feed: Provenance::Live,
            policy: Policy {
                // With more than a window has at least, clients that are behind have windows.
                outbox_bytes_max: OUTBOX_BYTES_MAX << if seed % 5 < 2 { 2 } else { 0 },
                control_bytes_max: 1 << 20,
                warn_behind_ns: 40 * MS,
                shed_behind_ns: 100 * MS,
                cut_after_ns: 200 * MS,
                pong_timeout_ns: 300 * MS,
                ahead_ns: 100 * MS,
                rates_max: 2,
            },
            tuning: Tuning { unsent_bytes_max },
            // It comes round within a long burst, or gets longer up to twice.
            frame_ring_bytes: FRAME_RING_BYTES_MIN << (seed / 4 % 3),
            venues: ["demo".to_owned()].into(),
            replay_control: None,
            // Some give up what they read too slowly.
            catch_ups: CatchUps::new(2, 2, if seed.is_multiple_of(5) { 20 } else { 3_600_000 }),
            // In some, little more than one resume needs.
            reread_per_turn: if seed.is_multiple_of(5) { REREAD_FEW } else { 4_096 },
        };
        let sessions =
            Sessions::new(options, Arc::clone(&table), ring.clone(), clock.clone(), Arc::clone(&counters));
        let sessions = Rc::new(RefCell::new(sessions));
        let memory = Arc::new(Memory::new(MEMORY_BYTES_MAX));
        sessions.borrow_mut().bound_by(Arc::clone(&memory));
        let shard = Shard::new(ring.reader(), Rc::clone(&sessions), Arc::clone(&counters));
        let past = (seed % 3 == 1).then(|| {
            let folder = tempfile::tempdir().expect("a folder");
            // Little enough to lose some of it.
            let options = history::HistoryOptions {
                dir: folder.path().to_owned(),
                bytes_max: 8_192,
                run_ns: clock.wall_ns(),
            };
            let history = History::begin(&options, &ring, mpsc::channel(1).0).expect("a folder");
            sessions.borrow_mut().read_past_at(history.access().client(|| {}));
            let (writer, reader) = history.into_halves();
            Past { writer, reader, _folder: folder }
        });
        Self {
            random: Random(seed),
            seeks: seed % 4 == 3,
            burst,
            steps_max: u64::from(steps_max),
            steps: 0,
            clock,
            table,
            writer,
            seqs: HashMap::new(),
            states: HashMap::new(),
            sessions,
            shard,
            counters,
            clients: Vec::new(),
            gone: Vec::new(),
            named: 0,
            lost: BTreeSet::new(),
            past,
            memory,
        }
    }

    /// The history takes what there is, and answers.
    pub(super) fn keep(&mut self) {
        let Some(past) = &mut self.past else { return };
        while past.writer.turn() {}
        past.reader.turn(Duration::ZERO);
    }

    pub(super) fn publish(&mut self, instrument: InstrumentId, body: Body, numbers: u64) {
        let snap =
            self.seeks && matches!(body, Body::Trade(_) | Body::Quote(_)) && self.random.below(20) == 0;
        let tick = Tick { instrument, seq: 0, rx_ns: self.clock.wall_ns(), ts_us: None, snap, body };
        if let Body::Status(state) = body {
            self.states.insert(instrument.0, state);
        }
        let seq = self.seqs.entry(tick.key()).or_default();
        *seq += numbers;
        self.writer.publish(&Tick { seq: *seq, ..tick }, Seen::UNMEASURED).expect("a place in the ring");
    }

    pub(super) fn tick(&mut self) {
        let n = self.random.below(INSTRUMENTS);
        let instrument = self.table.intern(&symbol(n)).expect("room");
        let channel = *self.random.pick(&Channel::ALL);
        let key = Key::new(instrument, channel.into());
        match self.random.below(40) {
            0 => {
                let from = self.seqs.get(&key).copied().unwrap_or(0) + 1;
                let numbers = 1 + self.random.below(3);
                self.lost.extend((from..from + numbers).map(|n| (key, n)));
                self.publish(instrument, Body::Gap { channel, from, void: FeedGap::Lost }, numbers);
            }
            2 if self.seeks => {
                let from = self.seqs.get(&key).copied().unwrap_or(0) + 1;
                self.publish(instrument, Body::Gap { channel, from, void: FeedGap::NoValue }, 1);
            }
            1 => {
                let state = *self.random.pick(&State::ALL);
                self.publish(instrument, Body::Status(state), 1);
            }
            _ if channel == Channel::Trade => {
                let price = Decimal::new(self.random.below(1_000) as i64, 2);
                let trade = Trade { price, size: price, side: None, id: TradeId::NONE };
                self.publish(instrument, Body::Trade(trade), 1);
            }
            _ => {
                let bid = Some(Decimal::new(self.random.below(1_000) as i64, 2));
                self.publish(instrument, Body::Quote(Quote { bid, ..Quote::default() }), 1);
            }
        }
    }

    pub(super) fn turn(&mut self) -> bool {
        (0..self.clients.len()).for_each(|client| self.hear(client));
        let steps = self.sessions.borrow().steps();
        assert!(steps - self.steps <= self.steps_max, "{} steps in a turn", steps - self.steps);
        self.steps = steps;
        let now = self.clock.now();
        self.shard.turn(now)
    }

    /// Reads what a client has sent, as far as its session wants to.
    pub(super) fn hear(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let mut sessions = self.sessions.borrow_mut();
        while sessions.wants(client.id).read
            && let Some(text) = client.sent.pop_front()
        {
            let now = self.clock.now();
            sessions.heard(client.id, now);
            sessions.request(client.id, &text, now);
        }
    }

    pub(super) fn connect(&mut self) {
        let wire = Rc::new(RefCell::new(Wire::default()));
        self.named += 1;
        let name = format!("c{}", self.named);
        let now = self.clock.now();
        let who = ClientInfo { name: name.as_str().into(), peer: None };
        let id = self.sessions.borrow_mut().open(Fake(Rc::clone(&wire)), who, now);
        let answers = self.random.below(4) > 0;
        self.clients.push(Client {
            id,
            name,
            wire,
            answers,
            came_to: 0,
            resumes: Told::new(),
            sent: VecDeque::new(),
        });
    }

    /// Somebody who has gone comes back and says what it has.
    pub(super) fn come_back(&mut self) {
        let Some(gone) = self.gone.last() else { return };
        let told = check(whole_frames(&gone.bytes), &gone.resumes, self.seeks).last;
        self.connect();
        let client = self.clients.len() - 1;
        let by_wildcard = self.random.below(3) == 0;
        for channel in Channel::ALL {
            let of_channel = told.iter().filter(|((_, of), _)| *of == channel);
            let seq: Vec<(&str, u64)> =
                of_channel.map(|((symbol, _), seq)| (symbol.as_str(), *seq)).collect();
            if by_wildcard && !seq.is_empty() {
                self.resume(client, channel, "*", &seq);
            } else {
                seq.iter().for_each(|one| self.resume(client, channel, one.0, std::slice::from_ref(one)));
            }
        }
        self.clients[client].resumes = told;
    }

    pub(super) fn resume(&mut self, client: usize, channel: Channel, symbol: &str, seq: &[(&str, u64)]) {
        let mode = *self.random.pick(&["", ",\"mode\":\"every\"", ",\"mode\":\"latest\""]);
        let epoch = if self.random.below(10) == 0 { "another" } else { "e" };
        self.resume_with(client, channel, symbol, seq, mode, epoch);
    }

    pub(super) fn resume_with(
        &mut self,
        client: usize,
        channel: Channel,
        symbol: &str,
        seq: &[(&str, u64)],
        mode: &str,
        epoch: &str,
    ) {
        let seq: BTreeMap<&str, u64> = seq.iter().copied().collect();
        let resume = serde_json::json!({"epoch": epoch, "seq": seq});
        let channel = channel.name();
        let text = format!(
            r#"{{"op":"subscribe","channel":"{channel}","symbols":["{symbol}"]{mode},"resume":{resume}}}"#
        );
        self.ask(client, &text);
    }

    pub(super) fn rows(&self) -> Vec<ClientRow> {
        self.sessions.borrow_mut().report(SortBy::Behind, usize::MAX, 0, self.clock.now())
    }

    pub(super) fn leave(&mut self, at: usize) {
        let client = self.clients.swap_remove(at);
        let rows = self.rows();
        let row = rows.into_iter().find(|row| *row.session == *client.name).expect("a row for each client");
        self.sessions.borrow_mut().remove(client.id);
        self.gone.push(Gone { bytes: client.wire.take().taken, resumes: client.resumes, row });
    }

    /// Who was closed goes.
    pub(super) fn reap(&mut self) {
        for at in (0..self.clients.len()).rev() {
            if self.sessions.borrow_mut().wants(self.clients[at].id).end {
                let taken = self.clients[at].wire.borrow().taken.clone();
                let (texts, code) = texts(&taken);
                assert!(code.is_some_and(|code| code == 4000 || code == 4002), "{code:?}");
                assert!(texts.last().is_some_and(|text| text.contains("\"bye\"")), "bye comes last");
                self.leave(at);
            }
        }
    }

    pub(super) fn read(&mut self, client: usize, bytes: usize) {
        let client = &self.clients[client];
        let mut wire = client.wire.borrow_mut();
        wire.room += bytes;
        wire.acked = wire.taken.len();
        drop(wire);
        self.sessions.borrow_mut().writable(client.id);
    }

    /// A client reads all that its kernel has, and answers what pings there are.
    pub(super) fn come_to(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let fresh = client.wire.borrow().taken[client.came_to..].to_vec();
        let whole = whole_frames(&fresh);
        client.came_to += whole.len();
        let now = self.clock.now();
        let mut sessions = self.sessions.borrow_mut();
        for payload in pings(whole) {
            sessions.heard(client.id, now);
            assert!(!client.answers || sessions.answered(client.id, payload, now), "each is answered once");
        }
    }

    pub(super) fn ask(&mut self, client: usize, text: &str) {
        self.clients[client].sent.push_back(text.to_owned());
        self.hear(client);
    }

    /// A client asks for as much as it may.
    pub(super) fn ask_for_much(&mut self) {
        let from = self.random.below(40);
        let names: Vec<String> = (from..from + 60).map(|n| format!("demo:N{n}")).collect();
        let names = serde_json::json!(names);
        let text = match self.random.below(8) {
            0..=2 => format!(
                r#"{{"op":"subscribe","channel":["trade","quote"],"symbols":{names},"mode":"latest"}}"#
            ),
            3 => format!(r#"{{"op":"set","symbols":{names},"max_hz":20}}"#),
            4 => format!(r#"{{"op":"unsubscribe","channel":"trade","symbols":{names}}}"#),
            5 => r#"{"op":"set","mode":"latest"}"#.to_owned(),
            6 => r#"{"op":"list"}"#.to_owned(),
            _ => r#"{"op":"symbols"}"#.to_owned(),
        };
        let client = self.random.below(self.clients.len() as u64) as usize;
        self.ask(client, &text);
    }

    pub(super) fn request(&mut self) {
        let symbols = ["*", "demo:*", "demo:S0", "demo:S1", "demo:S3", "S2", "demo:NEVER"];
        let channels = ["\"trade\"", "\"quote\"", "[\"trade\",\"quote\"]"];
        let terms = [
            "",
            ",\"mode\":\"every\"",
            ",\"mode\":\"latest\"",
            ",\"mode\":\"latest\",\"max_hz\":0.5",
            ",\"mode\":\"latest\",\"max_hz\":20",
            ",\"mode\":\"latest\",\"max_hz\":50",
            ",\"mode\":\"every\",\"on_slow\":\"cut\"",
        ];
        let symbol = *self.random.pick(&symbols);
        let (channel, terms) = (*self.random.pick(&channels), *self.random.pick(&terms));
        let change = *self.random.pick(&[
            "\"mode\":\"latest\"",
            "\"mode\":\"every\"",
            "\"max_hz\":20",
            "\"max_hz\":3",
            "\"max_hz\":null",
        ]);
        let text = match self.random.below(10) {
            0..=5 => {
                let snapshot = if self.random.below(4) == 0 { ",\"snapshot\":false" } else { "" };
                let (terms, from) = match self.random.below(3) {
                    0 => (r#","mode":"every""#, *self.random.pick(&FROM)),
                    _ => (terms, ""),
                };
                format!(
                    r#"{{"op":"subscribe","channel":{channel},"symbols":["{symbol}"]{terms}{snapshot}{from}}}"#
                )
            }
            6 if self.random.below(8) == 0 => format!(r#"{{"op":"unsubscribe","channel":{channel}}}"#),
            6 => format!(r#"{{"op":"unsubscribe","channel":{channel},"symbols":["{symbol}"]}}"#),
            7 => format!(r#"{{"op":"set","channel":{channel},"symbols":["{symbol}"],{change}}}"#),
            8 => r#"{"op":"list"}"#.to_owned(),
            _ => r#"{"op":"fly"}"#.to_owned(),
        };
        let client = self.random.below(self.clients.len() as u64) as usize;
        self.ask(client, &text);
    }

    /// Memory is measured: it is full or ample. Slow clients give something back in any case.
    pub(super) fn measure(&mut self) {
        let used_bytes = *self.random.pick(&[0, MEMORY_BYTES_MAX]);
        self.memory.measured(used_bytes);
        let shed_bytes = *self.random.pick(&[0, 1, 1 << 20]);
        self.sessions.borrow_mut().relieve(Relief { shed_bytes, ..Relief::default() });
    }

    pub(super) fn step(&mut self) {
        if self.random.below(3) == 0 {
            self.keep();
        }
        if self.random.below(12) == 0 {
            self.measure();
        }
        match self.random.below(21) {
            0..=5 => (0..self.random.below(4)).for_each(|_| self.tick()),
            // More than the ring holds: the shard is lapped. Or more than the frame ring does: it gets longer, or sessions make copies.
            6 => (0..self.burst).for_each(|_| self.tick()),
            7..=11 => {
                self.turn();
            }
            12..=14 => {
                let client = self.random.below(self.clients.len() as u64) as usize;
                let bytes = *self.random.pick(&[1, 100, 3_000, 20_000]);
                self.read(client, bytes);
                if self.random.below(3) > 0 {
                    self.come_to(client);
                }
            }
            15..=16 => self.request(),
            17 if self.random.below(2) == 0 => self.ask_for_much(),
            17 => self.request(),
            18 => {
                let ms = if self.random.below(8) == 0 { 500 } else { 60 };
                self.clock.advance(Duration::from_millis(self.random.below(ms)));
            }
            19 if self.clients.len() < 4 => self.come_back(),
            _ if self.clients.len() < 4 => self.connect(),
            // All at once, now and then.
            _ if self.random.below(4) == 0 => (0..self.clients.len()).rev().for_each(|at| self.leave(at)),
            _ => {
                let at = self.random.below(self.clients.len() as u64) as usize;
                self.leave(at);
            }
        }
        for row in self.rows() {
            balanced(&row);
        }
        self.reap();
    }

    /// Everybody reads all there is, until nothing is held back any more.
    pub(super) fn settle(&mut self) {
        self.memory.measured(0);
        for _ in 0..40 {
            self.clock.advance(Duration::from_millis(60));
            for _ in 0..30 {
                for client in 0..self.clients.len() {
                    let now = self.clock.now();
                    self.sessions.borrow_mut().heard(self.clients[client].id, now);
                    self.read(client, 1 << 20);
                    self.come_to(client);
                }
                self.keep();
                self.turn();
            }
            self.reap();
        }
    }

    /// The state of one of many symbols, as it was published last.
    pub(super) fn state(&self, n: u64) -> State {
        let id = self.table.find(&symbol(n)).expect("a listed symbol");
        self.states[&id.0]
    }

    pub(super) fn head(&self, symbol: &str, channel: Channel) -> u64 {
        let symbol = Symbol::parse(symbol).expect("a good symbol");
        let id = self.table.find(&symbol).expect("a listed symbol");
        self.seqs.get(&Key::new(id, Stream::from(channel))).copied().unwrap_or(0)
    }
}
