//! The socket itself: what the kernel says of who connects, and what is no HTTP.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::indoors::{ACCESS, DUTY, EDIT, NONE, OTHER, VIEW};
use crate::outdoors::{OPEN, Outdoors, answer, become_user, connect_as, is_root, request, runtime};

#[test]
fn r32_the_kernel_says_who_asks_and_r13_a_second_person_is_a_second_uid() {
    if !is_root() {
        // Only root may ask as somebody else; the same rules are tried indoors with the uid given.
        return;
    }
    runtime().block_on(async {
        let city = Outdoors::new(3, ACCESS).await;
        let _daemon = city.start().await;
        let urgent = r#"{"text":"台风红色预警","to":["**"],"id":"typhoon"}"#;
        for (uid, status) in [(NONE, 403), (VIEW, 403), (EDIT, 403)] {
            assert_eq!(city.ask_as(uid, "POST", "/v1/urgent", urgent).status, status, "{uid}");
        }
        // On one connection, request after request.
        let mut kept = connect_as(&city.socket(), VIEW);
        for (method, path, status) in [
            ("GET", "/v1/status", 200),
            ("POST", "/v1/urgent", 403),
            ("GET", "/v1/x", 404),
            ("POST", "/v1/unhold", 403),
        ] {
            kept.write_all(request(method, path, urgent).as_bytes()).unwrap();
            assert_eq!(answer(&mut kept, &city.clock).unwrap().status, status, "{method} {path}");
        }
        let sent = city.ask_as(DUTY, "POST", "/v1/urgent", urgent);
        assert_eq!((sent.status, sent.value["state"].as_str()), (202, Some("awaiting_confirm")), "{sent:?}");
        let word = format!("{{\"content_hash\":{}}}", sent.value["content_hash"]);
        let path = "/v1/announcements/typhoon/confirm";
        assert_eq!(city.ask_as(EDIT, "POST", path, &word).status, 403, "not of the duty role");
        assert_eq!(city.ask_as(DUTY, "POST", path, &word).status, 403, "the sender again");
        let other = format!("{{\"content_hash\":\"{}\"}}", "0".repeat(64));
        assert_eq!(city.ask_as(OTHER, "POST", path, &other).status, 409, "another content");
        assert!(city.posts().await.is_empty(), "nothing is out");
        let confirmed = city.ask_as(OTHER, "POST", path, &word);
        assert_eq!((confirmed.status, confirmed.value["state"].as_str()), (202, Some("releasing")), "{confirmed:?}");
        assert_eq!(city.none_is(&[&OPEN[..], &["held"]].concat()).await, None);
        let mut count: BTreeMap<String, u32> = BTreeMap::new();
        for post in city.posts().await {
            *count.entry(post["account"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        assert_eq!(count.len(), 12);
        assert!(count.values().all(|n| *n == 1), "{count:?}");
    });
}

#[test]
fn r42_who_fills_the_socket_keeps_nobody_from_an_urgent_post() {
    if !is_root() {
        return;
    }
    runtime().block_on(async {
        let city = Outdoors::new(1, ACCESS).await;
        let _daemon = city.start().await;
        let (mut filled, mut refused) = (Vec::new(), 0);
        // Of ten users, a hundred each: more than there are seats.
        for uid in [NONE, VIEW, EDIT].into_iter().chain(NONE + 10..NONE + 17) {
            for _ in 0..100 {
                let mut stream = connect_as(&city.socket(), uid);
                // The beginning of a request, so that it waits for the rest.
                refused += u32::from(stream.write_all(b"GET /v1/status HT").is_err());
                filled.push(stream);
            }
        }
        assert_eq!(filled.len(), 1000);
        let begun = city.clock.mono().0;
        let sent = city.ask_as(DUTY, "POST", "/v1/urgent", r#"{"text":"a","to":["**"],"level":"blue"}"#);
        assert_eq!(sent.status, 202, "{sent:?}");
        let took = city.clock.mono().0 - begun;
        assert!(took < Duration::from_secs(1), "{took:?} behind {} connections, {refused} refused", filled.len());
    });
}

/// Whether the other side closes the connection, and what it said before, as it came.
fn said_until_closed(stream: &mut UnixStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut bytes = Vec::new();
    // What was sent and not read makes the end a reset.
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it stays open"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn input_65_a_request_that_could_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    runtime().block_on(async {
        let city = Outdoors::new(1, "").await;
        let _daemon = city.start().await;
        let body = r#"{"text":"a","to":["**"],"level":"blue"}"#;
        let head = "POST /v1/urgent HTTP/1.1\r\nhost: fabu\r\ncontent-type: application/json\r\n";
        let n = body.len();
        let rows = [
            ("two lengths", "400", format!("{head}content-length: {n}\r\ncontent-length: 2\r\n\r\n{body}")),
            ("a list of lengths", "400", format!("{head}content-length: {n}, 2\r\n\r\n{body}")),
            ("a length with a sign", "400", format!("{head}content-length: +{n}\r\n\r\n{body}")),
            ("a length below nothing", "400", format!("{head}content-length: -1\r\n\r\n{body}")),
            ("obs-fold", "400", format!("{head}x-a: b\r\n c\r\ncontent-length: {n}\r\n\r\n{body}")),
            ("a space before the colon", "400", format!("{head}content-length : {n}\r\n\r\n{body}")),
            ("a name that is none", "400", format!("{head}x a: b\r\ncontent-length: {n}\r\n\r\n{body}")),
            ("a NUL in a value", "400", format!("{head}x-a: b\0c\r\ncontent-length: {n}\r\n\r\n{body}")),
            ("a coding not known", "400", format!("{head}transfer-encoding: gzip\r\n\r\n{body}")),
            ("chunked and not last", "400", format!("{head}transfer-encoding: chunked, gzip\r\n\r\n{body}")),
            (
                "64 KiB of header",
                "431",
                format!("{head}x-a: {}\r\ncontent-length: {n}\r\n\r\n{body}", "b".repeat(64 << 10)),
            ),
            ("no HTTP", "400", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03 hello\r\n\r\n".to_owned()),
        ];
        let seq = |city: &Outdoors| city.ask("GET", "/v1/audit", "").value["seq"].clone();
        let before = seq(&city);
        let mut wrong = Vec::new();
        for (what, status, text) in rows {
            let mut stream = UnixStream::connect(city.socket()).unwrap();
            // Refused while it is still being written: then the rest finds nobody.
            stream.write_all(text.as_bytes()).unwrap_or_default();
            let said = said_until_closed(&mut stream);
            if !said.starts_with(&format!("HTTP/1.1 {status}")) || said.matches("HTTP/1.1").count() != 1 {
                wrong.push((what, said));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(seq(&city), before, "nothing was recorded");
    });
}

#[test]
fn r42_length_and_chunked_or_a_bare_line_feed_is_read_as_one_request_or_refused() {
    runtime().block_on(async {
        let city = Outdoors::new(1, "").await;
        let _daemon = city.start().await;
        let body = r#"{"text":"a","to":["**"],"level":"blue"}"#;
        let head = "POST /v1/urgent HTTP/1.1\r\nhost: fabu\r\ncontent-type: application/json\r\nconnection: close\r\n";
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        // What follows would be a second request to who believed the length.
        let hidden = "POST /v1/unhold HTTP/1.1\r\nhost: fabu\r\n\r\n";
        let rows = [
            format!("{head}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{chunked}{hidden}", chunked.len()),
            format!("{head}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{chunked}{hidden}"),
            format!("{head}content-length: {}\r\n\r\n{body}{hidden}", body.len()).replace("\r\n", "\n"),
        ];
        for text in rows {
            let count = |v: serde_json::Value| v["items"].as_array().unwrap().len();
            let before = count(city.ask("GET", "/v1/announcements", "").value);
            let mut stream = UnixStream::connect(city.socket()).unwrap();
            stream.write_all(text.as_bytes()).unwrap_or_default();
            let said = said_until_closed(&mut stream);
            assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "one answer: {said}");
            let taken = said.starts_with("HTTP/1.1 202");
            assert!(taken || said.starts_with("HTTP/1.1 400"), "{said}");
            let after = count(city.ask("GET", "/v1/announcements", "").value);
            assert_eq!(after - before, usize::from(taken), "{said}");
        }
    });
}

/// Connects, sends, and closes, as fast as it can.
fn knocks(path: &std::path::Path, uid: u32, until: &std::sync::atomic::AtomicBool) -> u32 {
    become_user(uid);
    let mut knocks = 0;
    while !until.load(std::sync::atomic::Ordering::Relaxed) {
        let Ok(mut stream) = UnixStream::connect(path) else { continue };
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: fabu\r\n\r\n").unwrap_or_default();
        knocks += 1;
    }
    knocks
}

#[test]
fn r42_who_knocks_without_end_keeps_no_urgent_post_out() {
    if !is_root() {
        return;
    }
    runtime().block_on(async {
        let city = Outdoors::new(4, ACCESS).await;
        let _daemon = city.start().await;
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let path = city.socket();
        let (answered, knocks) = std::thread::scope(|threads| {
            let knocking: Vec<_> = (0..4)
                .map(|n| {
                    threads.spawn({
                        let (path, is_over) = (&path, &is_over);
                        move || knocks(path, NONE + n % 2, is_over)
                    })
                })
                .collect();
            let post = r#"{"text":"a","to":["**"],"level":"blue","dry_run":true}"#;
            let answered = (0..20).filter(|_| city.ask_as(DUTY, "POST", "/v1/urgent", post).status == 200).count();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            (answered, knocking.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>())
        });
        assert_eq!(answered, 20, "beside {knocks} others");
    });
}

#[test]
fn r42_ones_own_idle_connections_make_room() {
    if !is_root() {
        return;
    }
    runtime().block_on(async {
        let city = Outdoors::new(5, ACCESS).await;
        let _daemon = city.start().await;
        let post = r#"{"text":"a","to":["**"],"level":"blue","dry_run":true}"#;
        for known in [false, true] {
            let mut idle: Vec<UnixStream> = (0..200).map(|_| connect_as(&city.socket(), DUTY)).collect();
            for stream in &mut idle {
                stream.write_all(b"GET /v1/sta").unwrap_or_default();
            }
            assert_eq!(city.ask_as(DUTY, "POST", "/v1/urgent", post).status, 200, "{known}");
        }
    });
}

#[test]
fn r42_what_is_refused_says_so_to_who_goes_on_writing() {
    if !is_root() {
        return;
    }
    runtime().block_on(async {
        let city = Outdoors::new(6, ACCESS).await;
        let _daemon = city.start().await;
        let body = "x".repeat(4 << 20);
        for (uid, status) in [(NONE, "403"), (DUTY, "413")] {
            let mut stream = connect_as(&city.socket(), uid);
            let head =
                "POST /v1/urgent HTTP/1.1\r\nhost: fabu\r\nconnection: close\r\ncontent-type: application/json\r\n";
            stream.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).expect("it is let write to the end");
            let said = said_until_closed(&mut stream);
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{uid}: {said}");
        }
    });
}

/// The service manager listens for a daemon that does not run: its socket stays.
#[test]
fn a_socket_on_which_somebody_listens_is_not_replaced() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(fabu::api::bind(&path), Err(fabu::api::SocketError::InUse(_))));
        drop(listener);
        fabu::api::bind(&path).expect("a stale one is replaced");
    });
}

/// Of another ledger: going on from there would leave out what has come since.
#[test]
fn events_from_beyond_the_ledgers_end_are_refused() {
    runtime().block_on(async {
        let city = Outdoors::new(7, "").await;
        let _daemon = city.start().await;
        let mut stream = UnixStream::connect(city.socket()).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: fabu\r\nlast-event-id: 99999999\r\n\r\n").unwrap();
        assert_eq!(answer(&mut stream, &city.clock).unwrap().status, 409);
    });
}

#[test]
fn who_may_not_use_the_socket_is_told_which_group_may() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = folder.path().join("s.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let said = std::thread::spawn(move || {
        become_user(NONE);
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        own.block_on(fabu::api::client::Client::new(&path).get("/v1/status")).unwrap_err().to_string()
    });
    assert!(said.join().unwrap().contains("which is the group root's"));
}
