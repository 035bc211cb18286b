//! Which web pages and which host names are answered.

use super::*;

#[test]
fn foreign_web_pages_are_kept_out() {
    let door = door(|_| {}, true);
    for path in ["/ws", "/publish", "/api/symbols"] {
        let ask = |origin: &str| {
            door.request(&format!("GET {path}"), &handshake_but("", &format!("Origin: {origin}\r\n"))).status
        };
        assert_eq!(ask("https://evil.example"), 403, "{path}");
        assert_eq!(ask("null"), 403, "{path}");
        let good = if path == "/api/symbols" { 200 } else { 101 };
        assert_eq!(ask("http://localhost:1"), good, "{path}: its own page");
        assert_eq!(ask("http://localhost:5173"), good, "{path}: a page of this machine");
    }
    let answer = door.request("GET /api/symbols", "Origin: http://localhost:5173\r\n");
    assert!(answer.has("access-control-allow-origin: http://localhost:5173"));
}

/// The status of a handshake whose request names this host and comes from a page of this origin.
fn opened(door: &Door, host: &str, origin: &str) -> u16 {
    let headers = handshake_but("", &format!("Origin: {origin}\r\n"));
    door.raw(format!("GET /ws HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").as_bytes()).status
}

#[test]
fn a_page_is_the_gateways_own_only_under_a_name_that_is_the_gateways() {
    let only_self = |hosts: &[&str]| {
        let hosts = Hosts::new(&hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>());
        let hosts = hosts.expect("good hosts");
        door(|options| (options.allowed_origins, options.hosts) = (vec!["self".to_owned()], hosts), false)
    };
    let (plain, named) = (only_self(&[]), only_self(&["desk.example", "ops.example:8443"]));
    for (host, origin, without, with) in [
        ("localhost:8080", "http://localhost:8080", 101, 101),
        ("127.9.0.1:8080", "https://127.9.0.1:8080", 101, 101),
        ("[::1]:8080", "http://[::1]:8080", 101, 101),
        ("localhost:8080", "http://localhost:8081", 403, 403),
        ("localhost:8080", "http://127.0.0.1:8080", 403, 403),
        ("localhost:8080", "x://localhost:8080", 403, 403),
        ("localhost:8080", "ftp://localhost:8080", 403, 403),
        ("localhost:8080", "null", 403, 403),
        ("desk.example", "https://desk.example", 421, 101),
        ("Desk.Example:8080", "http://desk.example:8080", 421, 101),
        ("desk.example", "x://desk.example", 421, 403),
        ("desk.example", "https://ops.example:8443", 421, 403),
        ("ops.example:8443", "https://ops.example:8443", 421, 101),
        ("ops.example", "https://ops.example", 421, 421),
        ("evil.example:8080", "http://evil.example:8080", 421, 421),
    ] {
        assert_eq!(opened(&plain, host, origin), without, "{host} {origin}");
        assert_eq!(opened(&named, host, origin), with, "{host} {origin}, with names");
    }
}

#[test]
fn what_is_asked_of_another_host_is_misdirected_whatever_it_is() {
    let door = door(|options| options.allowed_origins = vec!["*".to_owned()], true);
    for path in
        ["/", "/about", "/ws", "/publish", "/api/symbols", "/api/replay", "/api/replays", "/healthz", "/none"]
    {
        for method in ["GET", "POST", "OPTIONS", "DELETE"] {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: evil.example:8080\r\n{}\r\n", handshake());
            let answer = door.raw(head.as_bytes());
            assert_eq!(answer.status, 421, "{method} {path}");
            assert!(answer.has("content-type: application/json"), "{}", answer.head);
            assert!(
                answer.error().contains("\"evil.example:8080\"") && answer.error().contains("[server] hosts")
            );
            assert!(!answer.head.contains("access-control"), "{}", answer.head);
        }
    }
    for (what, head, status) in [
        ("a target of another host", "GET http://evil.example/ws HTTP/1.1\r\nHost: localhost", 421),
        ("a header of another host", "GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example", 421),
        ("both are its own", "GET http://localhost/healthz HTTP/1.1\r\nHost: localhost", 200),
        ("none, in HTTP/1.1", "GET /healthz HTTP/1.1\r\nX: y", 400),
        ("none, in HTTP/1.0", "GET /healthz HTTP/1.0\r\nX: y", 421),
        ("one, in HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: localhost", 200),
        ("two, in HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: localhost\r\nHost: localhost", 400),
        ("nothing", "GET /healthz HTTP/1.1\r\nHost:", 421),
        ("with a user", "GET /healthz HTTP/1.1\r\nHost: me@localhost", 421),
        ("not of ASCII", "GET /healthz HTTP/1.1\r\nHost: \u{217}ocalhost", 421),
        ("long", &format!("GET /healthz HTTP/1.1\r\nHost: {}", "x".repeat(9_000)), 421),
    ] {
        let answer = door.raw(format!("{head}\r\n\r\n").as_bytes());
        assert_eq!(answer.status, status, "{what}");
        assert!(
            status == 200 || (!answer.error().is_empty() && answer.body.len() < 300),
            "{what}: {}",
            answer.body
        );
    }
    // The connection is as good as it was.
    let mut stream = door.connect();
    for (host, status) in [("evil.example", 421), ("localhost", 200)] {
        stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).expect("sent");
        assert_eq!(Answer::read(&mut stream).status, status);
    }
}

#[test]
fn a_listener_of_all_addresses_is_called_by_the_one_that_is_reached() {
    let door = door_on((Ipv4Addr::UNSPECIFIED, 0).into(), |_| {}, |_| {});
    let port = door.addr.port();
    let ask = |at: [u8; 4], host: &str| {
        let mut stream = TcpStream::connect((Ipv4Addr::from(at), port)).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).expect("sent");
        Answer::read(&mut stream).status
    };
    for (host, status) in [
        ("127.0.0.1", 200),
        ("0.0.0.0:8080", 200),
        ("localhost:1", 200),
        ("192.0.2.1", 421),
        ("[::]", 421),
        ("evil.example", 421),
    ] {
        assert_eq!(ask([127, 0, 0, 1], host), status, "{host}");
    }
}

#[test]
fn a_page_that_may_ask_may_send_json_and_others_hear_nothing() {
    let door = plain();
    let preflight = |origin: &str| {
        let headers = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n"
        );
        door.request("OPTIONS /api/replay", &headers)
    };
    let answer = preflight("http://localhost:5173");
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    for line in [
        "access-control-allow-origin: http://localhost:5173",
        "access-control-allow-methods: get, post",
        "access-control-allow-headers: authorization, content-type",
    ] {
        assert!(answer.has(line), "{line}: {}", answer.head);
    }
    for foreign in ["https://evil.example", "null", "http://localhost.evil.example"] {
        let answer = preflight(foreign);
        assert!(
            answer.status == 403 && !answer.head.contains("access-control"),
            "{foreign}: {}",
            answer.head
        );
    }
    // Where there is no replay, too: what is wrong with the request comes first.
    for (headers, status) in [
        ("Content-Length: 0\r\n", 415),
        ("Content-Length: 2\r\nContent-Type: text/plain\r\n", 415),
        ("Content-Length: 2\r\nContent-Type: application/json\r\n", 404),
        ("Content-Length: 2\r\nContent-Type: text/plain\r\nOrigin: https://evil.example\r\n", 403),
    ] {
        let answer =
            door.raw(format!("POST /api/replay HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{{}}").as_bytes());
        assert_eq!(answer.status, status, "{headers}: {}", answer.body);
    }
}

#[test]
fn origins_are_checked_when_configured() {
    let (sender, _sessions) = mpsc::channel();
    let options = HttpOptions { allowed_origins: vec!["desk".into()], ..HttpOptions::default() };
    let error = Front::new(&options, hooks(&Arc::default(), sender, false)).expect_err("no origin");
    assert!(error.to_string().contains("\"desk\""));
}
