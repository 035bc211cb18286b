//! Clients that read, however slowly, with every key at its default: none is cut, nor does its connection break, whatever its
//! kernel or the road to it holds; who has stopped, and who has vanished, is gone in time, and counted for what it is.
//! `TICKFAN_SLOW_SECONDS=300` is the long form.

use std::time::{Duration, Instant};

use crate::support::client::Client;
#[cfg(target_os = "linux")]
use crate::support::network::Network;
use crate::support::{Gateway, RawSocket, eventually, run, undisturbed};

const FEED: &str = "feeds/coinbase.zst";
const EVERYTHING: &str = "?symbols=*&channel=trade,quote&mode=every";
/// More than the kernel of a client takes in as a rule, and less: how many bytes it is asked to hold.
const BUFFERS: [Option<usize>; 3] = [Some(4_096), None, Some(4 << 20)];

/// How long clients read slowly.
fn duration() -> Duration {
    let asked = std::env::var("TICKFAN_SLOW_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(75))
}

/// A capture that goes round and round, so many times as fast as it was: 1 is some 30 kB a second.
fn looped(listen: &str, speed: &str, settings: &[&str]) -> Gateway {
    let args = [&["replay", "--loop", "--speed", speed][..], &Gateway::settings(settings), &[FEED]].concat();
    Gateway::listening(listen, &args)
}

fn open(gateway: &Gateway, buffer: Option<usize>) -> Client {
    Client::over(match buffer {
        Some(bytes) => RawSocket::open_sized(gateway, EVERYTHING, bytes),
        None => RawSocket::open(gateway, EVERYTHING),
    })
}

/// How many connections ended for this cause.
fn ended(gateway: &Gateway, cause: &str) -> u64 {
    let label = format!("cause=\"{cause}\"");
    let rows = gateway.metric("tickfan_sessions_ended_total");
    rows.iter().filter(|(labels, _)| labels.contains(&label)).map(|(_, count)| count).sum()
}

/// How many connections ended, for whatever cause.
fn ended_all(gateway: &Gateway) -> u64 {
    gateway.metric_sum("tickfan_sessions_ended_total")
}

/// Reads on for so long, and nothing is wrong with it.
fn reads_on(mut client: Client, what: &str, duration: Duration) -> Client {
    let start = Instant::now();
    while start.elapsed() < duration {
        assert!(client.step(), "{what}: closed after {:?}: {:?}", start.elapsed(), client.bye);
        assert!(client.ledger.held(), "{what}: {:?}", client.ledger.breaks());
    }
    client
}

/// It was told that it is slow, and what it did not get; and got everything in the end.
fn is_whole(client: &Client, what: &str) {
    assert_eq!(client.codes(), (Some(4_001), Some(4_001)), "{what}");
    assert!(client.steps.iter().any(|step| step.level == "shed"), "{what}: {:?}", client.steps);
    assert!(client.missing("slow_consumer") > 0, "{what}: no gap");
    assert_eq!(client.ledger.heard_all().merged, 0, "{what}");
}

/// Each of them waits most of the time: they do so together, however few threads there are for tests.
#[test]
fn slow_stopped_and_vanished_clients_are_told_apart() {
    let _undisturbed = undisturbed();
    type Case = (&'static str, fn());
    let cases: &[Case] = &[
        ("slow readers", who_reads_slowly_is_not_cut_whatever_its_kernel_holds),
        ("stopped readers", who_stops_reading_is_cut_whatever_its_kernel_holds),
        #[cfg(target_os = "linux")]
        ("bad roads", who_reads_by_a_bad_road_is_not_cut),
        #[cfg(target_os = "linux")]
        ("vanished hosts", a_host_that_vanished_is_gone_in_time_and_is_not_called_slow),
    ];
    let start = |(name, case): &Case| {
        (*name, std::thread::Builder::new().name((*name).to_owned()).spawn(*case).expect("a thread"))
    };
    let cases: Vec<_> = cases.iter().map(start).collect();
    let failed: Vec<_> =
        cases.into_iter().filter_map(|(name, case)| case.join().err().map(|_| name)).collect();
    assert!(failed.is_empty(), "{failed:?}: see above");
}

fn who_reads_slowly_is_not_cut_whatever_its_kernel_holds() {
    let gateway = looped("127.0.0.1:0", "4", &[]);
    let rates = [3_000, 5_000, 20_000];
    let each = rates.iter().flat_map(|rate| BUFFERS.map(|buffer| (*rate, buffer)));
    let clients: Vec<_> = each
        .map(|(rate, buffer)| {
            let what = format!("{rate} bytes a second, buffer {buffer:?}");
            let mut client = open(&gateway, buffer);
            client.socket.read_at_most(Some(rate));
            let reader = std::thread::spawn({
                let what = what.clone();
                move || {
                    let mut client = reads_on(client, &what, duration());
                    assert!(
                        client.steps.iter().any(|step| step.level == "shed"),
                        "{what}: {:?}",
                        client.steps
                    );
                    client.socket.read_at_most(None);
                    client
                }
            });
            (what, reader)
        })
        .collect();
    let count = clients.len() as u64;
    let clients: Vec<_> =
        clients.into_iter().map(|(what, reader)| (what, reader.join().expect("it reads"))).collect();
    assert_eq!((gateway.sessions(), ended_all(&gateway)), (count, 0));
    let readers: Vec<_> = clients
        .into_iter()
        .map(|(what, client)| (what, std::thread::spawn(move || client.read_to_end())))
        .collect();
    gateway.process.signal("TERM");
    for (what, reader) in readers {
        is_whole(&reader.join().expect("its account is right"), &what);
    }
    assert_eq!(gateway.process.end().code(), Some(0));
}

#[cfg(target_os = "linux")]
fn who_reads_by_a_bad_road_is_not_cut() {
    let roads: [&[&str]; 4] = [
        &["--delay", "50", "--loss", "2"],
        &["--kbit", "32", "--queue", "20000"],
        &["--kbit", "64", "--queue", "20000", "--delay", "50", "--loss", "2"],
        &["--kbit", "200", "--queue", "60000"],
    ];
    let gateway = looped("0.0.0.0:0", "4", &[]);
    let mut readers = Vec::new();
    for road in roads {
        let Some(mut network) = Network::behind(road) else { return };
        let what = road.join(" ");
        let mut client = Client::over(RawSocket::over(network.connect(&gateway), EVERYTHING));
        // By the first one alone it would not be slow.
        client.socket.read_at_most(Some(20_000));
        readers.push(std::thread::spawn(move || {
            let mut client = reads_on(client, &what, duration());
            client.socket.read_at_most(None);
            network.open();
            (what, network, client)
        }));
    }
    let count = readers.len() as u64;
    let readers: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("it reads")).collect();
    assert_eq!((gateway.sessions(), ended_all(&gateway)), (count, 0));
    let readers: Vec<_> = readers
        .into_iter()
        .map(|(what, network, client)| std::thread::spawn(move || (what, network, client.read_to_end())))
        .collect();
    gateway.process.signal("TERM");
    for reader in readers {
        let (what, network, client) = reader.join().expect("its account is right");
        is_whole(&client, &what);
        drop(network);
    }
    assert_eq!(gateway.process.end().code(), Some(0));
}

fn who_stops_reading_is_cut_whatever_its_kernel_holds() {
    // `cut_after_ms`, and what a reader of 2,000 bytes a second takes to come to its next ping, at most a minute: with the one
    // feed that is 32 kB away at most, with the other as much as comes in a second.
    let feeds = [("1", 20 + 17), ("4", 20 + 60)].map(|(speed, bound_s)| {
        std::thread::spawn(move || {
            let gateway = looped("127.0.0.1:0", speed, &[]);
            let readers = BUFFERS.map(|buffer| {
                let client = open(&gateway, buffer);
                std::thread::spawn(move || reads_on(client, "a reader", Duration::from_secs(3)))
            });
            let clients = readers.map(|reader| reader.join().expect("it reads"));
            let stopped = Instant::now();
            // Before that it has to be noticed, and a turn of the shard may come late.
            let bound = Duration::from_secs(bound_s + 10);
            let count = clients.len() as u64;
            while ended(&gateway, "slow_consumer") < count {
                assert!(
                    stopped.elapsed() < bound,
                    "{speed}: {:?}",
                    gateway.metric("tickfan_sessions_ended_total")
                );
                std::thread::sleep(Duration::from_millis(200));
            }
            assert!(stopped.elapsed() > Duration::from_secs(20), "{:?}", stopped.elapsed());
            assert_eq!((gateway.sessions(), ended_all(&gateway)), (0, count));
            for (buffer, client) in BUFFERS.into_iter().zip(clients) {
                let client = client.read_to_end();
                assert_eq!(client.codes(), (Some(4_000), Some(4_000)), "{speed}, buffer {buffer:?}");
                assert_eq!(client.levels(), ["warn", "shed", "cut"], "{buffer:?}: {:?}", client.steps);
            }
            gateway.stop();
        })
    });
    feeds.into_iter().for_each(|feed| feed.join().expect("all are cut"));
}

#[cfg(target_os = "linux")]
fn a_host_that_vanished_is_gone_in_time_and_is_not_called_slow() {
    // With much to send, and with next to nothing.
    let mut watched = Vec::new();
    for speed in ["4", "0.01"] {
        let Some(network) = Network::new() else { return };
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("flights");
        let gateway = looped("0.0.0.0:0", speed, &[&format!("flight.dir={}", dir.display())]);
        let watch = network.watch(&gateway);
        eventually("it is subscribed", || gateway.metric_sum("tickfan_sessions_subscribed") == 1);
        std::thread::sleep(Duration::from_secs(3));
        network.unplug();
        watched.push((network, folder, dir, gateway, watch, Instant::now()));
    }
    for (network, folder, dir, gateway, watch, since) in watched {
        // `dead_peer_ms`, and a heartbeat.
        while gateway.sessions() > 0 {
            assert!(since.elapsed() < Duration::from_secs(30 + 6), "it is still there");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(since.elapsed() > Duration::from_secs(28), "gone after {:?}", since.elapsed());
        assert_eq!((ended(&gateway, "dead_peer"), ended_all(&gateway)), (1, 1));
        // A gap may have been recorded before, and then there is no other file so soon.
        eventually("it is recorded", || {
            let flights = gateway.metric_sum("tickfan_flights_written_total");
            flights + gateway.metric_sum("tickfan_flights_dropped_total") > 0
        });
        let files: Vec<_> =
            std::fs::read_dir(&dir).expect("flights").map(|f| f.expect("one").path()).collect();
        assert_eq!(files.len(), 1);
        let told = run(&["report", files[0].to_str().expect("UTF-8")]).lines;
        assert!(told[0].contains(": a client was cut: dead_peer (1006), at "), "{told:?}");
        drop((watch, network, folder));
        gateway.stop();
    }
}
