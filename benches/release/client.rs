//! The comparison clients: the floor, and what the same library does without a ledger's care.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use fabu::clock::{Clock, Time};
use rusqlite::Connection;

use super::Figures;
use super::receiver::{Arrival, Receiver};

struct Book {
    db: Connection,
    _folder: std::path::PathBuf,
}

impl Book {
    fn new() -> Book {
        let folder = std::env::temp_dir().join(format!("fabu-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the book");
        let db = Connection::open(folder.join("book.db")).expect("a database");
        db.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; DROP TABLE IF EXISTS t; CREATE TABLE t (id INTEGER, n INTEGER, state TEXT, at INTEGER, words TEXT)")
            .expect("a table");
        Book { db, _folder: folder }
    }

    fn commit(&mut self, rows: usize, state: &str) {
        let transaction = self.db.transaction().expect("a transaction");
        {
            let mut insert = transaction.prepare_cached("INSERT INTO t VALUES (?, ?, ?, ?, ?)").expect("a statement");
            for n in 0..rows {
                insert.execute((n as i64, 1, state, 0, "receipt")).expect("a row");
            }
        }
        transaction.commit().expect("on disk");
    }
}

/// Milliseconds of one durable commit of so many intents.
pub async fn commit(rows: usize) -> f64 {
    let clock = Clock::real();
    let done = tokio::task::spawn_blocking(move || {
        let mut book = Book::new();
        let begun = clock.now();
        book.commit(rows, "sending");
        (clock.now() - begun).num_microseconds().unwrap_or(0) as f64 / 1000.0
    });
    done.await.expect("it commits")
}

fn request(port: u16, text: &str) -> Vec<u8> {
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("status", text)
        .append_pair("source", "fabu")
        .finish();
    format!(
        "POST /api/statuses/update.json HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer secret\r\naccept-language: en\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub fn figures(at: Time, arrivals: &[Arrival], durable: Time) -> Figures {
    let ms = |us: i64| (us - at.timestamp_micros()) as f64 / 1000.0;
    let first = arrivals.iter().map(|a| a.at_us).min().expect("something arrived");
    let last = arrivals.iter().map(|a| a.at_us).max().expect("something arrived");
    Figures { first: ms(first), skew: ms(last) - ms(first), durable: ms(durable.timestamp_micros()) }
}

/// Connected sockets, prebuilt requests, one loop of writes; `rounds` posts on each connection.
pub async fn raw(receiver: &Receiver, connections: usize, rounds: usize) -> Figures {
    receiver.take().await;
    let clock = Clock::real();
    let ports = receiver.ports.clone();
    let own = clock.clone();
    let done = tokio::task::spawn_blocking(move || {
        let mut sockets: Vec<TcpStream> = (0..connections)
            .map(|n| {
                let socket = TcpStream::connect(("127.0.0.1", ports[n % 4])).expect("the receiver is up");
                socket.set_nodelay(true).expect("a socket");
                socket
            })
            .collect();
        let requests: Vec<Vec<u8>> = (0..connections).map(|n| request(ports[n % 4], &format!("raw-{n}"))).collect();
        let mut book = Book::new();
        book.commit(connections * rounds, "sending");
        let at = own.now() + chrono::TimeDelta::milliseconds(20);
        while own.now() < at {
            std::hint::spin_loop();
        }
        let mut buffer = [0u8; 4096];
        for _ in 0..rounds {
            for (socket, request) in sockets.iter_mut().zip(&requests) {
                socket.write_all(request).expect("sent");
            }
            for socket in &mut sockets {
                let read = socket.read(&mut buffer).expect("answered");
                assert!(read > 0, "the receiver closed");
            }
        }
        book.commit(connections * rounds, "published");
        (at, own.now())
    });
    let (at, durable) = done.await.expect("the client ends");
    let arrivals = receiver.take().await;
    assert_eq!(arrivals.len(), connections * rounds, "none missing, none double");
    figures(at, &arrivals, durable)
}

/// The same requests as tasks over reqwest behind a barrier, connections warm.
pub async fn bare(receiver: &Receiver, accounts: usize) -> Figures {
    let clock = Clock::real();
    fabu::platform::http::install_crypto();
    let client = reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(usize::MAX)
        .build()
        .expect("a client");
    let warm = futures_util::future::join_all((0..accounts).map(|n| {
        let client = client.clone();
        let url = format!("http://127.0.0.1:{}", receiver.ports[n % 4]);
        async move { client.head(url).send().await.is_ok() }
    }));
    assert!(warm.await.into_iter().all(|ok| ok));
    receiver.take().await;
    let mut book = Book::new();
    book.commit(accounts, "sending");
    let barrier = Arc::new(tokio::sync::Barrier::new(accounts + 1));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..accounts {
        let (client, barrier) = (client.clone(), barrier.clone());
        let url = format!("http://127.0.0.1:{}/api/statuses/update.json", receiver.ports[n % 4]);
        tasks.spawn(async move {
            let body =
                form_urlencoded::Serializer::new(String::new()).append_pair("status", &format!("bare-{n}")).finish();
            let request = client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
            barrier.wait().await;
            let answer = request.send().await.expect("answered");
            answer.bytes().await.expect("read")
        });
    }
    clock.sleep(Duration::from_millis(50)).await;
    let at = clock.now() + chrono::TimeDelta::milliseconds(20);
    clock.sleep_until(at).await;
    barrier.wait().await;
    while let Some(done) = tasks.join_next().await {
        done.expect("sent");
    }
    book.commit(accounts, "published");
    let durable = clock.now();
    let arrivals = receiver.take().await;
    assert_eq!(arrivals.len(), accounts, "none missing, none double");
    figures(at, &arrivals, durable)
}

/// One socket, one request at each full second.
pub async fn each_second(receiver: &Receiver, seconds: usize) -> Vec<f64> {
    receiver.take().await;
    let (clock, port) = (Clock::real(), receiver.ports[0]);
    tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the receiver is up");
        socket.set_nodelay(true).expect("a socket");
        let mut buffer = [0u8; 4096];
        let start = (clock.now().timestamp() + 1) * 1_000_000;
        for n in 0..seconds as i64 {
            let at = start + n * 1_000_000;
            let left = at - clock.now().timestamp_micros();
            std::thread::park_timeout(Duration::from_micros((left - 3000).max(0) as u64));
            while clock.now().timestamp_micros() < at {
                std::hint::spin_loop();
            }
            socket.write_all(&request(port, "tick")).expect("sent");
            assert!(socket.read(&mut buffer).expect("answered") > 0);
        }
    })
    .await
    .expect("the client ends");
    receiver.take().await.iter().map(|a| (a.at_us % 1_000_000) as f64 / 1000.0).collect()
}
