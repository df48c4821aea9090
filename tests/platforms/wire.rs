//! The real network against listeners that answer as no platform should: each costs its own request and no more.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fabu::clock::Clock;
use fabu::platform::http::Net;
use fabu::platform::{Http, Lane, Lost, Permit};
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Long enough for loopback on a busy machine, and short enough to wait for.
const TIMEOUT: Duration = Duration::from_secs(1);

fn real<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn net() -> Net {
    Net::new(Clock::real(), &Default::default()).unwrap()
}

/// What a listener writes once it has the request; `Err` when the client has had enough.
#[derive(Clone)]
enum Answer {
    Once(Vec<u8>),
    /// Its beginning, then the same again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// The same, a byte at a time.
    Trickle(Vec<u8>, Vec<u8>),
}

async fn answer(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"status=x") {
        let mut part = [0u8; 1024];
        let n = stream.read(&mut part).await?;
        if n == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..n]);
    }
    match answer {
        Answer::Once(bytes) => stream.write_all(&bytes).await,
        Answer::Endless(begin, again) => {
            stream.write_all(&begin).await?;
            loop {
                stream.write_all(&again).await?;
            }
        }
        Answer::Trickle(begin, again) => {
            stream.write_all(&begin).await?;
            let clock = Clock::real();
            for byte in again.iter().cycle() {
                clock.sleep(Duration::from_millis(5)).await;
                stream.write_all(&[*byte]).await?;
            }
            Ok(())
        }
    }
}

/// A listener that gives each connection this answer; it lives as long as the set.
async fn listen(servers: &mut JoinSet<()>, with: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    servers.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            open.spawn(answer(stream, with.clone()));
        }
    });
    address
}

async fn post(net: &Net, to: SocketAddr) -> Result<Response<Bytes>, Lost> {
    let request = Request::post(format!("http://{to}/2/statuses/update.json"))
        .header("authorization", "OAuth2 canary-token")
        .body(Bytes::from_static(b"status=x"))
        .unwrap();
    net.send("site", Lane::Routine, request, TIMEOUT).await
}

fn head(more: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{more}\r\n").into_bytes()
}

fn with(begin: Vec<u8>, rest: &[u8]) -> Vec<u8> {
    [begin, rest.to_vec()].concat()
}

fn bomb() -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![b' '; 32 << 20]).unwrap();
    let packed = packed.finish().unwrap();
    with(head(&format!("content-encoding: gzip\r\ncontent-length: {}\r\n", packed.len())), &packed)
}

#[test]
fn r28_a_bad_answer_is_bounded_and_costs_its_own_request_only() {
    let chunk = with(b"10000\r\n".to_vec(), &[&[b' '; 0x10000][..], b"\r\n"].concat());
    let many: String = (0..2000).map(|n| format!("x-{n}: {}\r\n", "y".repeat(20))).collect();
    let cases = [
        ("trickle", Answer::Trickle(head("content-length: 100000\r\n"), b"{ ".to_vec()), "no whole answer"),
        ("trickled header", Answer::Trickle(b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".to_vec()), "no whole answer"),
        ("endless chunks", Answer::Endless(head("transfer-encoding: chunked\r\n"), chunk), ""),
        ("endless body", Answer::Endless(head("connection: close\r\n"), vec![b' '; 65536]), ""),
        ("huge body", Answer::Once(with(head("content-length: 2000000\r\n"), &[b' '; 2_000_000])), "larger than 1 MiB"),
        ("gzip bomb", Answer::Once(bomb()), "larger than 1 MiB"),
        (
            "continue flood",
            Answer::Endless(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)),
            "no whole answer",
        ),
        ("endless header", Answer::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-y: z\r\n".repeat(100)), ""),
        ("long header", Answer::Once(head(&format!("x: {}\r\ncontent-length: 0\r\n", "y".repeat(70_000)))), "64 KiB"),
        ("many headers", Answer::Once(head(&format!("{many}content-length: 0\r\n"))), ""),
        ("too few bytes", Answer::Once(with(head("content-length: 100\r\nconnection: close\r\n"), b"{}")), ""),
        ("two lengths", Answer::Once(with(head("content-length: 2\r\ncontent-length: 5\r\n"), b"{}abc")), ""),
        ("HTTP/0.9", Answer::Once(b"<html>ok</html>\r\n".to_vec()), ""),
        ("no answer", Answer::Once(Vec::new()), ""),
    ];
    real(async {
        let (net, clock, mut servers) = (net(), Clock::real(), JoinSet::new());
        let good = listen(&mut servers, Answer::Once(with(head("content-length: 2\r\n"), b"{}"))).await;
        let mut addresses = Vec::new();
        for (_, with, _) in &cases {
            addresses.push(listen(&mut servers, with.clone()).await);
        }
        let bad = futures_util::future::join_all(addresses.iter().map(|to| post(&net, *to)));
        let bad = std::pin::pin!(clock.timeout(TIMEOUT * 10, bad));
        // All of them at once, and a neighbour is served while they last.
        let neighbour = std::pin::pin!(post(&net, good));
        let answers = match futures_util::future::select(bad, neighbour).await {
            Either::Left(_) => panic!("the neighbour had to wait for all of them"),
            Either::Right((served, bad)) => {
                assert_eq!(served.unwrap().body(), "{}");
                bad.await.expect("each exchange has its time-out")
            }
        };
        for ((name, _, words), answer) in cases.iter().zip(answers) {
            match answer {
                Err(Lost::AfterSend(why)) if why.contains(words) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    });
}

#[test]
fn r28_bytes_after_an_answer_are_not_the_next_ones() {
    real(async {
        let (net, mut servers) = (net(), JoinSet::new());
        let forged = with(head("content-length: 8\r\n"), b"[forged]");
        let both = with(with(head("content-length: 2\r\n"), b"{}"), &forged);
        let to = listen(&mut servers, Answer::Once(both)).await;
        for _ in 0..3 {
            match post(&net, to).await {
                Ok(answer) => assert_eq!(answer.body(), "{}"),
                Err(lost) => assert!(matches!(lost, Lost::AfterSend(_)), "{lost:?}"),
            }
        }
    });
}

#[test]
fn r37_a_redirect_is_handed_back_and_its_target_hears_nothing() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        real(async {
            let (net, mut servers) = (net(), JoinSet::new());
            let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let location = target.local_addr().unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nlocation: http://{location}/\r\ncontent-length: 0\r\n\r\n");
            let to = listen(&mut servers, Answer::Once(answer.into_bytes())).await;
            tokio::select! {
                biased;
                _ = target.accept() => panic!("{status} was followed"),
                answer = post(&net, to) => assert!(answer.unwrap().status().is_redirection()),
            }
        });
    }
}

/// Made for this test and good for nothing else: nobody has signed it but itself.
const CERTIFICATE: &[u8] = include_bytes!("certificate/self_signed.der");
const KEY: &[u8] = include_bytes!("certificate/key.der");

#[test]
fn r36_a_certificate_nobody_vouches_for_gets_no_byte_of_the_request() {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let net = net();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEY));
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![CertificateDer::from(CERTIFICATE)], key).unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut server = rustls::ServerConnection::new(config).unwrap();
        let mut plain = Vec::new();
        let broken = rustls::Stream::new(&mut server, &mut stream).read_to_end(&mut plain).err();
        (plain, broken.map(|e| e.to_string()).unwrap_or_default())
    });
    let answer = real(async {
        let request = Request::post(format!("https://{to}/2/statuses/update.json"))
            .header("authorization", "OAuth2 canary-token")
            .body(Bytes::from_static(b"status=x"))
            .unwrap();
        net.send("site", Lane::Routine, request, Duration::from_secs(5)).await
    });
    assert!(matches!(answer, Err(Lost::BeforeSend(_))), "it is retried: {answer:?}");
    let (plain, broken) = heard.join().unwrap();
    assert!(plain.is_empty(), "{}", String::from_utf8_lossy(&plain));
    assert!(
        broken.contains("UnknownCA") || broken.contains("CertificateUnknown") || broken.contains("alert"),
        "{broken}"
    );
}

/// A permit that notes whether it was asked.
struct Gate {
    opens: bool,
    was_asked: AtomicBool,
}

impl Permit for Gate {
    fn is_granted(&self) -> bool {
        self.was_asked.store(true, Ordering::SeqCst);
        self.opens
    }
}

async fn post_by(net: &Net, to: SocketAddr, timeout: Duration, gate: &Arc<Gate>) -> Result<Response<Bytes>, Lost> {
    let request = Request::post(format!("http://{to}/2/statuses/update.json")).body(Bytes::from_static(b"status=x"));
    net.send_in_room("site", Lane::Routine, request.unwrap(), timeout, Some(gate.clone())).await
}

fn gate(opens: bool) -> Arc<Gate> {
    Arc::new(Gate { opens, was_asked: AtomicBool::new(false) })
}

#[test]
fn r07_a_permit_is_asked_with_the_connection_there_and_refused_it_leaves_no_byte() {
    real(async {
        let net = net();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let heard = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let shut = gate(false);
        let refused = post_by(&net, to, Duration::from_secs(5), &shut).await;
        assert!(matches!(refused, Err(Lost::BeforeSend(_))), "{refused:?}");
        assert!(shut.was_asked.load(Ordering::SeqCst));
        drop(net);
        assert_eq!(String::from_utf8_lossy(&heard.join().unwrap()), "", "what was refused is on the wire");
    });
    real(async {
        let net = net();
        let mut servers = JoinSet::new();
        let to = listen(&mut servers, Answer::Once(with(head("content-length: 2\r\n"), b"{}"))).await;
        let open = gate(true);
        assert!(post_by(&net, to, Duration::from_secs(5), &open).await.is_ok());
        assert!(open.was_asked.load(Ordering::SeqCst));
    });
}

#[test]
fn r07_without_a_connection_no_permit_is_asked_and_nothing_was_sent() {
    real(async {
        // Nobody accepts, and the queue of connections is full: the next one does not come about.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let to = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Some(Ok(stream)) = Clock::real().timeout(Duration::from_millis(200), TcpStream::connect(to)).await {
            queue.push(stream);
            assert!(queue.len() < 100, "this machine keeps taking connections");
        }
        let open = gate(true);
        let lost = post_by(&net(), to, Duration::from_millis(500), &open).await;
        assert!(matches!(lost, Err(Lost::BeforeSend(_))), "it may be sent again: {lost:?}");
        assert!(!open.was_asked.load(Ordering::SeqCst), "it was asked with no connection there");
        drop(listener);
    });
}

#[test]
fn r30_fewer_connections_after_a_reload_are_fewer_as_soon_as_those_under_way_have_ended() {
    real(async {
        let limited = |most: u32| [("site".to_owned(), most)].into();
        let net = Net::new(Clock::real(), &limited(4)).unwrap();
        let free = || {
            let rooms: Vec<_> =
                std::iter::from_fn(|| net.room("site", Lane::Routine).now_or_never()).take(100).collect();
            rooms.len()
        };
        let mut under_way = Vec::new();
        for _ in 0..4 {
            under_way.push(net.room("site", Lane::Routine).await);
        }
        net.limit(&limited(1));
        for still in (0..4).rev() {
            under_way.pop();
            tokio::task::yield_now().await;
            assert_eq!(free(), usize::from(still == 0), "with {still} under way");
        }
        net.limit(&limited(3));
        assert_eq!(free(), 3);
        // A platform that is new has its limit too.
        net.limit(&[("other".to_owned(), 2)].into());
        let others: Vec<_> = std::iter::from_fn(|| net.room("other", Lane::Emergency).now_or_never()).take(9).collect();
        assert_eq!(others.len(), 2);
    });
}
