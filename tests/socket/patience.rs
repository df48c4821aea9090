//! How long the socket waits for whom (R42): real connections to a daemon in simulated time.

use std::time::Duration;

use fabu::core::change::{Actor, Note};
use fabu::daemon::Daemon;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::support::{City, simulate};

struct Hall {
    city: City,
    daemon: Daemon,
    serving: JoinHandle<()>,
}

impl Drop for Hall {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Hall {
    async fn new(seed: u64) -> Hall {
        let city = City::new("2026-11-24T00:00:00Z", seed, "");
        let daemon = city.start().await;
        let listener = fabu::api::bind(&city.path().join("hall.sock")).unwrap();
        let serving = tokio::spawn(fabu::api::serve(daemon.inner.clone(), listener));
        Hall { city, daemon, serving }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.city.path().join("hall.sock")).await.unwrap()
    }

    /// Everything until the other side closes, and how long that took.
    async fn rest(&self, stream: &mut UnixStream) -> (String, Duration) {
        let begun = self.city.clock.mono().0;
        let mut said = Vec::new();
        let read = self.city.clock.timeout(Duration::from_secs(3600), stream.read_to_end(&mut said)).await;
        // A connection that is dropped with something unread is reset.
        read.expect("it stays open").map(|_| ()).unwrap_or_else(|e| {
            assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
        });
        (String::from_utf8_lossy(&said).into_owned(), self.city.clock.mono().0 - begun)
    }

    async fn record(&self, subject: &str, words: &str) {
        let note = Note::change("noted", subject, json!({ "words": words }));
        self.daemon.inner.ledger.commit(&Actor::Daemon, vec![note]).await.unwrap();
    }

    async fn follow(&self, after: i64) -> UnixStream {
        let mut stream = self.connect().await;
        let request = format!("GET /v1/events HTTP/1.1\r\nhost: fabu\r\nlast-event-id: {after}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn r42_a_header_has_five_seconds_however_it_trickles() {
    simulate(async {
        let hall = Hall::new(41).await;
        let (mut silent, mut slow) = (hall.connect().await, hall.connect().await);
        slow.write_all(b"GET /v1/health HTTP/1.1\r\nhost: fabu\r\nx-a: ").await.unwrap();
        let begun = hall.city.clock.mono().0;
        // A byte each second would go on for hours.
        while slow.write_all(b"b").await.is_ok() {
            assert!(hall.city.clock.mono().0 - begun < seconds(10), "it is let trickle");
            hall.city.clock.sleep(seconds(1)).await;
        }
        assert!(hall.city.clock.mono().0 - begun >= seconds(5), "who is only slow has five seconds");
        let (said, _) = hall.rest(&mut silent).await;
        assert_eq!(said, "", "whoever asked nothing is told nothing");
        assert!(hall.city.clock.mono().0 - begun < seconds(10));
    });
}

#[test]
fn r42_a_header_has_sixteen_kibibytes() {
    simulate(async {
        let hall = Hall::new(42).await;
        for (bytes, status) in [(15 << 10, "200"), (17 << 10, "431")] {
            let mut stream = hall.connect().await;
            let request = format!("GET /v1/health HTTP/1.1\r\nconnection: close\r\nx-a: {}\r\n\r\n", "b".repeat(bytes));
            stream.write_all(request.as_bytes()).await.unwrap_or_default();
            let (said, _) = hall.rest(&mut stream).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{bytes}: {said}");
        }
    });
}

#[test]
fn r42_a_body_has_ten_seconds_and_one_mebibyte() {
    simulate(async {
        let hall = Hall::new(43).await;
        let before = hall.daemon.inner.ledger.head();
        let head = "POST /v1/urgent HTTP/1.1\r\nhost: fabu\r\ncontent-type: application/json\r\n";
        let mut slow = hall.connect().await;
        slow.write_all(format!("{head}content-length: 100000\r\n\r\n{{").as_bytes()).await.unwrap();
        let begun = hall.city.clock.mono().0;
        let mut said = vec![0; 4096];
        let n = loop {
            slow.write_all(b" ").await.unwrap();
            let answer = hall.city.clock.timeout(seconds(1), slow.read(&mut said)).await;
            match answer {
                Some(read) => break read.unwrap(),
                None => assert!(hall.city.clock.mono().0 - begun < seconds(20), "it is let trickle"),
            }
        };
        let took = hall.city.clock.mono().0 - begun;
        assert!(said[..n].starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said[..n]));
        assert!(took >= seconds(10) && took < seconds(12), "{took:?}");
        // What would have come later is no second request.
        let (more, _) = hall.rest(&mut slow).await;
        assert!(!more.contains("HTTP/1.1"), "{more}");

        let mut long = hall.connect().await;
        long.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        // It may be refused while the rest is still written.
        for _ in 0..17 {
            if long.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        let (said, _) = hall.rest(&mut long).await;
        assert!(said.starts_with("HTTP/1.1 413"), "{said}");
        assert_eq!(hall.daemon.inner.ledger.head(), before, "nothing of it was recorded");
    });
}

#[test]
fn r42_a_connection_nothing_is_asked_on_is_closed_within_a_minute() {
    simulate(async {
        let hall = Hall::new(44).await;
        let mut stream = hall.connect().await;
        stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: fabu\r\n\r\n").await.unwrap();
        let (said, took) = hall.rest(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 200") && said.matches("HTTP/1.1").count() == 1, "{said}");
        assert!(took <= seconds(60), "{took:?}");
    });
}

#[test]
fn r42_who_follows_the_events_and_does_not_read_is_dropped() {
    simulate(async {
        let hall = Hall::new(45).await;
        let mut deaf = hall.follow(0).await;
        // More than any buffer between the two of them: then nothing can be written any more.
        let words = "很长的记录".repeat(2000);
        for n in 0..200 {
            hall.record(&format!("n{n}"), &words).await;
        }
        hall.city.sleep(30).await;
        let (said, took) = hall.rest(&mut deaf).await;
        let count = said.matches("event: noted").count();
        assert!(count < 200 && took < seconds(1), "{count} of 200 came in {took:?}: it was kept");
        // Who reads is served as ever.
        let mut reader = hall.follow(0).await;
        let events = ids(&mut reader, &hall, hall.daemon.inner.ledger.head().0).await;
        assert_eq!(events.last(), Some(&hall.daemon.inner.ledger.head().0));
    });
}

/// Reads events until that one has come.
async fn ids(stream: &mut UnixStream, hall: &Hall, until: i64) -> Vec<i64> {
    let (mut bytes, mut part) = (Vec::new(), vec![0; 1 << 16]);
    let found = |bytes: &[u8]| -> Vec<i64> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.split("\nid: ").skip(1).filter_map(|e| e.split_once('\n')?.0.trim().parse().ok()).collect()
    };
    loop {
        let seen = found(&bytes);
        if seen.last().is_some_and(|last| *last >= until) {
            return seen;
        }
        let read = hall.city.clock.timeout(seconds(60), stream.read(&mut part)).await;
        let n = read.unwrap_or_else(|| panic!("only {seen:?} of {until} came")).unwrap();
        assert_ne!(n, 0, "the stream ended after {seen:?}");
        bytes.extend_from_slice(&part[..n]);
    }
}

#[test]
fn r42_events_go_on_after_the_last_one_seen_none_lost_and_none_twice() {
    simulate(async {
        let hall = Hall::new(46).await;
        let first = hall.daemon.inner.ledger.head().0;
        let (mut all, mut last) = (Vec::new(), first);
        for round in 0..20 {
            // Some happen while nobody listens, some while somebody does, and each listener leaves in the middle.
            for n in 0..round % 4 {
                hall.record(&format!("away-{round}-{n}"), "").await;
            }
            let mut stream = hall.follow(last).await;
            for n in 0..3 {
                hall.record(&format!("there-{round}-{n}"), "").await;
            }
            let seen = ids(&mut stream, &hall, last + 1 + i64::from(round % 3)).await;
            last = *seen.last().unwrap();
            all.extend(seen);
        }
        let head = hall.daemon.inner.ledger.head().0;
        if last < head {
            all.extend(ids(&mut hall.follow(last).await, &hall, head).await);
        }
        assert_eq!(all, (first + 1..=head).collect::<Vec<_>>());
        // Whoever names none hears only what comes.
        let mut stream = hall.connect().await;
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: fabu\r\n\r\n").await.unwrap();
        hall.city.sleep(1).await;
        hall.record("new", "").await;
        let seen = ids(&mut stream, &hall, head + 1).await;
        assert_eq!(seen, [head + 1]);
        let told = hall.daemon.inner.ledger.events(head, 10).await.unwrap();
        let body: Value = serde_json::from_str(&told[0].body).unwrap();
        assert_eq!((told[0].kind.as_str(), &body["words"]), ("noted", &json!("")));
    });
}
