//! Networks of their own for hosts that are elsewhere: behind a wire that can be pulled, or a road that is long, narrow or
//! loses something.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Gateway, Process, connect, in_repository, skipped};

/// A network with one host in it.
pub(crate) struct Network {
    host: String,
    /// Where its road is, if it has one.
    between: Option<String>,
    link: String,
    far_link: String,
    near: String,
    road: Option<Process>,
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|output| output.status.success())
}

impl Network {
    /// A host at the other end of a wire. `None` where we may not make one, which is told.
    pub(crate) fn new() -> Option<Self> {
        Self::make(None)
    }

    /// A host at the other end of a road: see `road.py`.
    pub(crate) fn behind(road: &[&str]) -> Option<Self> {
        Self::make(Some(road))
    }

    fn make(road: Option<&[&str]>) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (id, n) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Each its own, as far as there are some.
        let net = format!("10.{}.{}", 200 + id % 50, (id / 50 * 16 + n) % 250);
        let name = |kind: &str| format!("{kind}{id}n{n}");
        let mut here = Self {
            host: name("tickfan"),
            between: road.map(|_| name("tickroad")),
            link: name("tf"),
            far_link: name("tg"),
            near: format!("{net}.1"),
            road: None,
        };
        let far = format!("{net}.2/30");
        let made = ip(&["netns", "add", &here.host])
            && match &here.between {
                None => here.wire(&here.link, None, &here.far_link, &here.host),
                Some(between) => {
                    ip(&["netns", "add", between])
                        && here.wire(&here.link, None, "near", between)
                        && here.wire(&here.far_link, Some(&here.host), "far", between)
                }
            }
            && ip(&["addr", "add", &format!("{}/30", here.near), "dev", &here.link])
            && ip(&["-n", &here.host, "addr", "add", &far, "dev", &here.far_link]);
        if !made {
            skipped::left_out("a host elsewhere", "it needs network namespaces: root, and `ip`");
            return None;
        }
        if let (Some(road), Some(between)) = (road, &here.between) {
            let script = in_repository("tests/support/road.py");
            let mut command = Command::new("ip");
            command
                .args(["netns", "exec", between, "python3", "-B"])
                .arg(script)
                .args(["near", "far"])
                .args(road);
            let mut process = Process::start(&mut command);
            assert_eq!(process.line(), "ready");
            here.road = Some(process);
        }
        Some(here)
    }

    /// A wire between two interfaces, which are up; each is in a namespace, or here.
    fn wire(&self, one: &str, of: Option<&str>, other: &str, namespace: &str) -> bool {
        // What leaves has to fit into a frame as it is: no card cuts it up on the way.
        let whole = ["gso_max_segs", "1", "gso_max_size", "1500"];
        let up = |of: Option<&str>, link: &str| {
            let inside = of.map_or(Vec::new(), |of| vec!["-n", of]);
            ip(&[&inside[..], &["link", "set", link, "up"]].concat())
                && (self.between.is_none() || ip(&[&inside[..], &["link", "set", link], &whole].concat()))
        };
        let inside = of.map_or(Vec::new(), |of| vec!["-n", of]);
        let pair = ["link", "add", one, "type", "veth", "peer", "name", other, "netns", namespace];
        ip(&[&inside[..], &pair].concat()) && up(of, one) && up(Some(namespace), other)
    }

    /// Where a gateway is that listens everywhere here, as that host sees it.
    fn door(&self, gateway: &Gateway) -> SocketAddr {
        SocketAddr::new(self.near.parse().expect("an address"), gateway.http.port())
    }

    /// A connection from that host. `set` may prepare the socket.
    pub(crate) fn connect(&self, gateway: &Gateway) -> TcpStream {
        let (host, door) = (self.host.clone(), self.door(gateway));
        // A thread that has gone there does not come back.
        let there = std::thread::spawn(move || {
            let host = std::fs::File::open(format!("/run/netns/{host}")).expect("a namespace");
            move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Network)).expect("we may");
            connect(door)
        });
        there.join().expect("connected")
    }

    /// Runs our own subscriber there, until it has its answers.
    pub(crate) fn watch(&self, gateway: &Gateway) -> Process {
        let url = format!("ws://{}/ws", self.door(gateway));
        let watch = super::tickfan(&["watch", "--url", &url, "*"]);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host]).arg(watch.get_program()).args(watch.get_args());
        Process::start(&mut command)
    }

    /// From now on no packet comes from there or gets there, and nobody is told.
    pub(crate) fn unplug(&self) {
        assert!(ip(&["-n", &self.host, "link", "set", &self.far_link, "down"]));
    }

    /// From now on the road is short and wide.
    pub(crate) fn open(&mut self) {
        self.road.as_mut().expect("it has one").tell("open");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.road.take());
        // The one goes with the other, if it was made at all.
        ip(&["link", "del", &self.link]);
        ip(&["netns", "del", &self.host]);
        if let Some(between) = &self.between {
            ip(&["netns", "del", between]);
        }
    }
}
