//! `Http`: one request, one answer, and all that matters about a broken connection.
//!
//! In production it is reqwest over rustls: no redirects, no proxy from the environment, no retry of
//! its own, certificates always verified, answers bounded. In a simulation it is the sandbox's router.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{Request, Response};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::Clock;

/// R28: an answer is never larger, counted after decompression.
const MOST_ANSWER: usize = 1 << 20;
/// R28: nor is its header; hyper alone would take six times as much.
const MOST_HEADER: usize = 64 << 10;

/// A connection pool each, so that routine never stands in the way of an emergency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Routine,
    Emergency,
}

/// All that matters about a broken connection; in doubt, `AfterSend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No byte of the request reached the platform.
    BeforeSend(String),
    AfterSend(String),
}

#[async_trait]
pub trait Http: Send + Sync {
    /// Sends one request to a platform. `timeout` bounds the whole exchange, the answer's body included.
    async fn send(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost>;

    /// Waits until one more request of this platform may be under way, and keeps its place. Whoever has to look
    /// at the clock before the first byte looks when it has this, or what it saw would be old by then.
    async fn room<'net>(&'net self, _platform: &str, _lane: Lane) -> Room<'net> {
        Room::default()
    }

    /// As `send`, of a request that has its room.
    async fn send_in_room(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        self.send(platform, lane, request, timeout).await
    }
}

/// A place among a platform's requests under way.
#[derive(Debug, Default)]
pub struct Room<'net> {
    _place: Option<SemaphorePermit<'net>>,
}

/// What a method of `Http` returns, as `async_trait` writes it.
type Sending<'sending> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Lost>> + Send + 'sending>>;

/// The real one.
pub struct Net {
    clock: Clock,
    clients: BTreeMap<Lane, reqwest::Client>,
    /// How many requests of a platform may be under way at once, lane by lane.
    lanes: BTreeMap<String, BTreeMap<Lane, Semaphore>>,
}

impl Net {
    /// One pool a lane over one TLS configuration; `connections` is each platform's most at once.
    pub fn new(clock: Clock, connections: &BTreeMap<String, u32>) -> Result<Net, reqwest::Error> {
        let tls = tls();
        let mut clients = BTreeMap::new();
        let mut lanes: BTreeMap<String, BTreeMap<Lane, Semaphore>> = BTreeMap::new();
        for lane in [Lane::Routine, Lane::Emergency] {
            clients.insert(lane, client(&tls)?);
            for (platform, most) in connections {
                lanes.entry(platform.clone()).or_default().insert(lane, Semaphore::new(*most as usize));
            }
        }
        Ok(Net { clock, clients, lanes })
    }

    async fn exchange(client: &reqwest::Client, request: reqwest::Request) -> Result<Response<Bytes>, Lost> {
        let answer = match client.execute(request).await {
            Ok(answer) => answer,
            // Connection refused, name not found, TLS not completed: no byte of the request left.
            Err(error) if error.is_connect() => return Err(Lost::BeforeSend(cause(error))),
            Err(error) => return Err(Lost::AfterSend(cause(error))),
        };
        let header: usize = answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if header > MOST_HEADER {
            return Err(Lost::AfterSend("the header of the answer is larger than 64 KiB".to_owned()));
        }
        let mut built = Response::builder().status(answer.status());
        if let Some(headers) = built.headers_mut() {
            *headers = answer.headers().clone();
        }
        let mut body = BytesMut::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| Lost::AfterSend(cause(error)))?;
            if body.len() + chunk.len() > MOST_ANSWER {
                return Err(Lost::AfterSend("the answer is larger than 1 MiB".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(built.body(body.freeze()).expect("status and headers came from an answer"))
    }
}

impl Net {
    /// What `async_trait` would write, but for one thing: the request is put together at the call, and the
    /// future that is polled at the instant of a release has only to send it.
    fn sending(
        &self,
        lane: Lane,
        room: Option<&str>,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> impl Future<Output = Result<Response<Bytes>, Lost>> + Send {
        let request = reqwest::Request::try_from(request).map_err(|e| Lost::BeforeSend(e.without_url().to_string()));
        let (client, at_once) = (&self.clients[&lane], room.and_then(|platform| self.semaphore(platform, lane)));
        async move {
            let request = request?;
            let _room = taken(at_once).await;
            match self.clock.timeout(timeout, Net::exchange(client, request)).await {
                Some(answer) => answer,
                None => Err(Lost::AfterSend(format!("no whole answer within {} s", timeout.as_secs_f32()))),
            }
        }
    }

    fn semaphore(&self, platform: &str, lane: Lane) -> Option<&Semaphore> {
        self.lanes.get(platform).and_then(|lanes| lanes.get(&lane))
    }
}

async fn taken(at_once: Option<&Semaphore>) -> Room<'_> {
    match at_once {
        Some(lane) => Room { _place: lane.acquire().await.ok() },
        None => Room::default(),
    }
}

impl Http for Net {
    fn send<'net, 'name, 'sending>(
        &'net self,
        platform: &'name str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Sending<'sending>
    where
        'net: 'sending,
        'name: 'sending,
        Self: 'sending,
    {
        Box::pin(self.sending(lane, Some(platform), request, timeout))
    }

    fn room<'net, 'name, 'sending>(
        &'net self,
        platform: &'name str,
        lane: Lane,
    ) -> Pin<Box<dyn Future<Output = Room<'net>> + Send + 'sending>>
    where
        'net: 'sending,
        'name: 'sending,
        Self: 'sending,
    {
        Box::pin(taken(self.semaphore(platform, lane)))
    }

    fn send_in_room<'net, 'name, 'sending>(
        &'net self,
        _platform: &'name str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Sending<'sending>
    where
        'net: 'sending,
        'name: 'sending,
        Self: 'sending,
    {
        Box::pin(self.sending(lane, None, request, timeout))
    }
}

fn client(tls: &rustls::ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .referer(false)
        // Longer than the lead, so that what is warmed ahead is still there at the instant.
        .pool_idle_timeout(Duration::from_secs(75))
        .pool_max_idle_per_host(usize::MAX)
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .user_agent(concat!("fabu/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Chooses rustls' cryptography for the process, before the first client is built.
pub fn install_crypto() {
    // A second installation is refused and harmless: the first one is the same.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// The system's roots, by the platform's verifier where there is one; nothing turns verification off.
fn tls() -> rustls::ClientConfig {
    use rustls_platform_verifier::ConfigVerifierExt as _;
    install_crypto();
    let mut config = rustls::ClientConfig::with_platform_verifier().unwrap_or_else(|_| {
        // A machine without any root certificates can speak to loopback and to nobody else.
        rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    });
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// The innermost cause, without the URL: a token may ride in it.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}
