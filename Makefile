# What people do with this project every day. Each target installs what it needs.

.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
VENV := .venv
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# `make bench-slow SECONDS=5 CLIENTS=200`: the short form.
SECONDS := 30
CLIENTS := 900
ROUNDS := 2
# `make bench-fanout SECONDS=3 REPEAT=1 CASES=a`: the short form. Nothing: everything.
REPEAT := 2
CASES :=
PEERS :=
TARGET :=
INPUT :=

.PHONY: help fuzz run ui browser test promtool netcat faketime test-slow audit soak attack simulate kill check fmt loom bench bench-slow bench-fanout bench-page peers feeds clean deps python

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

# Of the profile `quick`, which takes half the time of `release` to build.
run: deps ui ## build and serve the shipped captures on http://127.0.0.1:8080
	@[ -e target/quick/tickfan ] || echo "building the gateway into target/quick: two to four minutes on two cores, once"
	$(CARGO) build --profile quick
	exec target/quick/tickfan serve

# What the lock file of the page names, if it was not installed yet.
UI_PACKAGES := cd ui && { cmp -s package-lock.json node_modules/installed || \
	{ npm ci --ignore-scripts --no-audit --no-fund && cp package-lock.json node_modules/installed; }; }

# The gateway takes the page in when it is built. Without Node there is none, and `/` says so.
ui: ## build the trading page into ui/dist
	@if ! command -v npm >/dev/null; then echo "no npm: the trading page is left out"; \
	elif [ -e ui/dist/index.html ] && [ -z "$$(find ui/src ui/index.html ui/public ui/package-lock.json ui/vite.config.ts clients/ts/src -newer ui/dist/index.html)" ]; then :; \
	else echo "building the trading page into ui/dist"; ($(UI_PACKAGES) && npm run build) && touch src/http/ui.rs || \
			echo "the trading page could not be built, and is left out"; \
	fi

# What tests leave out because this machine lacks it, a line each.
SKIPPED := $(CURDIR)/target/skipped
# Recorded captures, which do not ship (docs/CAPTURES.md): the folder that TICKFAN_FEEDS names, or one beside the repository. The
# tests that need them are ignored where there is none, and run and fail where one of them is missing.
FEEDS := $(or $(TICKFAN_FEEDS),$(wildcard $(CURDIR)/../shared/feeds))
IGNORED := $(CARGO) test --tests --quiet -- --list --ignored | sed -n 's/^\(.*\): test$$/captures\t-\t\1\tno recorded captures/p'

# A browser takes both cores for a minute: no other test runs meanwhile.
BY_ITSELF := clients::the_trading_page_in_a_browser

# Pictures of the page are left in target/screenshots. A test binary that fails does not keep the others from running. The last
# line says what was skipped, and whether cargo failed; the exit code is that of cargo.
test: deps python ui browser promtool netcat faketime ## every test; the last line says what was skipped
	@[ -d target/debug/deps ] || echo "building the gateway and its tests: some three minutes on two cores, once"
	@mkdir -p target && : >$(SKIPPED)
	export SKIPPED_TESTS=$(SKIPPED) TICKFAN_FEEDS="$(FEEDS)"; \
		$(CARGO) test --no-fail-fast -- $(if $(FEEDS),--include-ignored) --skip $(BY_ITSELF); code=$$?; \
		$(CARGO) test --test it -- --exact $(BY_ITSELF) || code=$$?; \
		$(if $(FEEDS),,$(IGNORED) >>$(SKIPPED);) awk -v code=$$code -f tests/support/skipped.awk $(SKIPPED); exit $$code

test-slow: deps ## the tests of slow clients: a minute each, and five minutes with every key at its default; a pause of 25 s
	TICKFAN_SLOW_SECONDS=60 $(CARGO) test --test it slow_consumer::
	TICKFAN_SLOW_SECONDS=300 $(CARGO) test --test it slow_readers::
	TICKFAN_PAUSE_SECONDS=25 $(CARGO) test --test it faults::a_process_that_was_stopped

# Needs Python's standard library only.
audit: ## sources, licences and known advisories of crates and packages
	@command -v python3 >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y python3; }
	CARGO="$(CARGO)" python3 tests/support/supply.py

# `make test` has the short forms of these two. The report is also left in target/soak.txt.
soak: SECONDS := 1200
soak: deps python ## 50 clients of all kinds for 20 minutes: every number accounted for, memory and files flat (SECONDS=1200)
	CARGO_TARGET_DIR=target/soak $(CARGO) build --release --features heap-count
	@mkdir -p target
	set -o pipefail; ulimit -n "$$(ulimit -Hn)" && $(VENV)/bin/python -B tests/support/soak.py target/soak/release/tickfan --seconds $(SECONDS) | tee target/soak.txt

# `make attack CASES=set,resume SECONDS=5`: a part.
attack: SECONDS := 5
attack: deps python ## latency of a healthy client beside hostile ones, by kind (SECONDS=5 CASES=set,resume)
	$(CARGO) build --release
	ulimit -n "$$(ulimit -Hn)" && $(VENV)/bin/python -B tests/support/attack.py target/release/tickfan --seconds $(SECONDS) --cases "$(CASES)"

simulate: deps ## a shard and its sessions with sockets of our own: 100,000 random schedules, a seed printed on failure
	TICKFAN_SCHEDULES=100000 $(CARGO) test --release --test it simulation::

# Targets are named for what they read: `make fuzz TARGET=request`. An input that is not stood is written to target/found, and its name is
# printed: `make fuzz INPUT=target/found/request-0123abcd` runs it alone. Once it is stood it goes to fuzz/corpus/request. A process
# that ended or hangs has left its input in target/found/request-running-….
fuzz: SECONDS := 60
fuzz: deps ## random inputs for all that reads bytes from outside (SECONDS=60 for each of 8, TARGET=request, INPUT=file)
	TICKFAN_FUZZ_SECONDS=$(SECONDS) TICKFAN_FUZZ_TARGET=$(TARGET) TICKFAN_FUZZ_INPUT=$(INPUT) RUST_BACKTRACE=0 \
		$(CARGO) test --profile fuzz --test it fuzz::

kill: deps ## records under load and kills the gateway 50 times: what was written is there, and within 250 ms
	TICKFAN_KILLS=50 TICKFAN_KILLS_ON_TIME=1 $(CARGO) test --test it record::a_kill

check: deps ## formatting, lints, docs, and that the benches compile
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --features heap-count -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items
	$(CARGO) bench --no-run

fmt: ## format the code
	$(CARGO) fmt

loom: deps ## model-check the ring, and that each memory ordering is needed (some 3 minutes)
	RUSTFLAGS="--cfg tickfan_loom" CARGO_TARGET_DIR=target/loom $(CARGO) test --release --lib ring::model

bench: deps ## all benches but the next three; each has a base row that measures the harness
	$(CARGO) bench --bench fanout --bench session --bench ring --bench decode --bench watch

# Each client is a file on both sides.
bench-slow: deps ## do clients that stop reading delay those that read? (SECONDS=30 CLIENTS=900 ROUNDS=2)
	ulimit -n "$$(ulimit -Hn)" && TICKFAN_BENCH_SECONDS=$(SECONDS) TICKFAN_BENCH_CLIENTS=$(CLIENTS) \
		TICKFAN_BENCH_ROUNDS=$(ROUNDS) $(CARGO) bench --bench slow

# 15,000 connections are as many files on both sides. A case that needs more than there may be is left out, and said so.
bench-fanout: SECONDS := 4
bench-fanout: deps peers ## beside other servers and what the machine gives at most, some 15 minutes (SECONDS=4 REPEAT=2 CASES=a,c PEERS=tickfan,limit)
	ulimit -n "$$(ulimit -Hn)" && TICKFAN_BENCH_SECONDS=$(SECONDS) TICKFAN_BENCH_REPEAT=$(REPEAT) \
		TICKFAN_BENCH_CASES=$(CASES) TICKFAN_BENCH_PEERS=$(PEERS) $(CARGO) bench --bench peers

# The gateway is not what is measured, but takes its time from the same cores.
bench-page: SECONDS := 60
bench-page: deps ui browser ## what a frame of the trading page costs, with 300 symbols and 5,000 ticks a second (SECONDS=60)
	$(CARGO) build --release
	$(UI_PACKAGES) && TICKFAN_BENCH_SECONDS=$(SECONDS) TICKFAN_BIN="$(CURDIR)/target/release/tickfan" npm run --silent bench

# Without Node these servers are left out. No scripts of theirs run at the installation, which takes some 260 MB.
peers:
	@if ! command -v npm >/dev/null; then echo "no npm: the servers on Node are left out"; \
	elif ! cmp -s benches/peers/package-lock.json benches/peers/node_modules/installed; then \
		(cd benches/peers && npm ci --ignore-scripts --no-audit --no-fund) && \
			cp benches/peers/package-lock.json benches/peers/node_modules/installed || \
			echo "npm could not install: the servers on Node are left out"; \
	fi

feeds: deps ## make the shipped captures again, byte for byte
	$(CARGO) build --release
	target/release/tickfan generate --venue coinbase --symbols BTC-USD,ETH-USD,SOL-USD --seconds 75 --rate 160 --seed 7 --out feeds/coinbase.zst
	target/release/tickfan generate --venue binance-futures --symbols BTCUSDT,ETHUSDT,SOLUSDT --seconds 75 --rate 200 --seed 7 --out feeds/binance-futures.zst
	target/release/tickfan generate --venue kraken --symbols XBT/USD,ETH/USD,SOL/USD --seconds 75 --rate 160 --seed 7 --out feeds/kraken.zst

clean: ## throw away what was built
	$(CARGO) clean
	rm -rf $(VENV) benches/peers/node_modules clients/ts/node_modules clients/ts/dist clients/ts/build ui/node_modules ui/dist ui/build

# A browser that opens the trading page, and a font for it. Without one the test says so, and fails where CI is set.
browser:
	@command -v "$${TICKFAN_CHROMIUM:-/usr/bin/chromium}" >/dev/null || \
		{ $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends chromium fonts-dejavu-core; } || \
		echo "Chromium could not be installed: the trading page is not opened"

# What checks the form of /metrics: that one program of Debian's package, without what it would bring along (19 MB).
promtool:
	@command -v promtool >/dev/null || [ -x target/promtool ] || \
		{ mkdir -p target/deb && cd target/deb && { apt-get download prometheus 2>/dev/null || { $(SUDO) apt-get update && apt-get download prometheus; }; } && \
			dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool >promtool && chmod +x promtool && mv promtool ..; } || \
		echo "promtool could not be had: the form of /metrics is checked by our own test alone"

# What the README publishes by.
netcat:
	@command -v nc >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends netcat-openbsd; } || \
		echo "no nc: what the README publishes is not tried"

# Sets the wall clock for one process.
faketime:
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends faketime; } || \
		echo "no faketime: a wall clock that is set is not tried"

# A C compiler, for the allocator and zstd.
deps:
	@command -v cc >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y build-essential; }

# Clients that are not ours, for the end-to-end tests.
python: $(VENV)/installed

$(VENV)/installed: tests/support/requirements.txt
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y python3 python3-venv; }
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@
