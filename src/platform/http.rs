//! `Http`: one request, one answer, and all that matters about a broken connection.
//!
//! In production it is reqwest over rustls: no redirects, no proxy from the environment, no retry of
//! its own, certificates always verified, answers bounded. In a simulation it is the sandbox's router.
//!
//! A request that can be seen comes with a `Permit`, which is asked when a connection is there and the next thing is the
//! first byte: neither a queue for connections nor the opening of one can come between the last check and the wire.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Permission to begin one request.
pub trait Permit: Send + Sync {
    /// Asked once, right before the first byte; after a `false` nothing of the request is sent.
    fn is_granted(&self) -> bool;
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

    /// Waits until one more request of this platform may be under way, and keeps its place.
    async fn room(&self, _platform: &str, _lane: Lane) -> Room {
        Room::default()
    }

    /// As `send`, of a request that has its room, and that may need a permit.
    async fn send_in_room(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
        permit: Option<Arc<dyn Permit>>,
    ) -> Result<Response<Bytes>, Lost> {
        if permit.is_some_and(|permit| !permit.is_granted()) {
            return Err(withheld());
        }
        self.send(platform, lane, request, timeout).await
    }

    /// Sets the most requests of each platform at once, from now on. Those under way go on.
    fn limit(&self, _connections: &BTreeMap<String, u32>) {}
}

/// Nothing was sent: its permit was refused.
fn withheld() -> Lost {
    Lost::BeforeSend("not permitted any more".to_owned())
}

/// A place among a platform's requests under way.
#[derive(Debug, Default)]
pub struct Room {
    _place: Option<OwnedSemaphorePermit>,
}

/// What a method of `Http` returns, as `async_trait` writes it.
type Sending<'sending> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Lost>> + Send + 'sending>>;

/// The real one.
pub struct Net {
    clock: Clock,
    clients: BTreeMap<Lane, reqwest::Client>,
    lanes: Mutex<BTreeMap<(String, Lane), AtOnce>>,
}

/// The most requests of a platform at once on a lane.
struct AtOnce {
    most: u32,
    places: Arc<Semaphore>,
}

impl Net {
    /// One pool a lane over one TLS configuration; `connections` is each platform's most at once.
    pub fn new(clock: Clock, connections: &BTreeMap<String, u32>) -> Result<Net, reqwest::Error> {
        let tls = tls();
        let mut clients = BTreeMap::new();
        for lane in LANES {
            clients.insert(lane, client(&tls)?);
        }
        let net = Net { clock, clients, lanes: Mutex::default() };
        net.limit(connections);
        Ok(net)
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
        permit: Option<Arc<dyn Permit>>,
    ) -> impl Future<Output = Result<Response<Bytes>, Lost>> + Send {
        let bytes = request.body().clone();
        let mut built = reqwest::Request::try_from(request).map_err(|e| Lost::BeforeSend(e.without_url().to_string()));
        let asked = permit.map(|permit| Arc::new(Asked { permit, answer: Mutex::new(None) }));
        if let (Ok(request), Some(asked)) = (&mut built, &asked) {
            *request.body_mut() = Some(reqwest::Body::wrap(Permitted { bytes: Some(bytes), asked: asked.clone() }));
        }
        let (client, at_once) = (&self.clients[&lane], room.and_then(|platform| self.places(platform, lane)));
        async move {
            let request = built?;
            let _room = taken(at_once).await;
            let answer = self.clock.timeout(timeout, Net::exchange(client, request)).await;
            match (answer, asked.as_deref().map(Asked::answer)) {
                (_, Some(Some(false))) => Err(withheld()),
                // No connection came about in all that time, and the request is gone with this future.
                (None, Some(None)) => {
                    Err(Lost::BeforeSend(format!("no connection within {} s", timeout.as_secs_f32())))
                }
                (Some(answer), _) => answer,
                (None, _) => Err(Lost::AfterSend(format!("no whole answer within {} s", timeout.as_secs_f32()))),
            }
        }
    }

    fn places(&self, platform: &str, lane: Lane) -> Option<Arc<Semaphore>> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.get(&(platform.to_owned(), lane)).map(|at_once| at_once.places.clone())
    }
}

const LANES: [Lane; 2] = [Lane::Routine, Lane::Emergency];

impl Room {
    /// One that is given back when it is dropped.
    pub fn of(place: OwnedSemaphorePermit) -> Room {
        Room { _place: Some(place) }
    }
}

async fn taken(places: Option<Arc<Semaphore>>) -> Room {
    match places {
        Some(places) => places.acquire_owned().await.map(Room::of).unwrap_or_default(),
        None => Room::default(),
    }
}

/// A permit, and what it answered when it was asked.
struct Asked {
    permit: Arc<dyn Permit>,
    answer: Mutex<Option<bool>>,
}

impl Asked {
    fn answer(&self) -> Option<bool> {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) -> bool {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        *answer.get_or_insert_with(|| self.permit.is_granted())
    }
}

/// The body of a request that needs a permit. hyper asks a body for its bytes when the request has its connection and
/// its head lies in the buffer, and writes the buffer after that: a body that fails here leaves nothing on the wire.
struct Permitted {
    bytes: Option<Bytes>,
    asked: Arc<Asked>,
}

impl http_body::Body for Permitted {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        Poll::Ready(Some(match self.asked.ask() {
            true => Ok(http_body::Frame::data(bytes)),
            false => Err(std::io::Error::other("not permitted")),
        }))
    }

    /// Not even one without bytes has ended before it was asked.
    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
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
        Box::pin(self.sending(lane, Some(platform), request, timeout, None))
    }

    fn room<'net, 'name, 'sending>(
        &'net self,
        platform: &'name str,
        lane: Lane,
    ) -> Pin<Box<dyn Future<Output = Room> + Send + 'sending>>
    where
        'net: 'sending,
        'name: 'sending,
        Self: 'sending,
    {
        Box::pin(taken(self.places(platform, lane)))
    }

    fn send_in_room<'net, 'name, 'sending>(
        &'net self,
        _platform: &'name str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
        permit: Option<Arc<dyn Permit>>,
    ) -> Sending<'sending>
    where
        'net: 'sending,
        'name: 'sending,
        Self: 'sending,
    {
        Box::pin(self.sending(lane, None, request, timeout, permit))
    }

    fn limit(&self, connections: &BTreeMap<String, u32>) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for (platform, most) in connections {
            for lane in LANES {
                let at_once = lanes
                    .entry((platform.clone(), lane))
                    .or_insert_with(|| AtOnce { most: 0, places: Arc::new(Semaphore::new(0)) });
                let fewer = at_once.most.saturating_sub(*most);
                let kept = fewer - at_once.places.forget_permits(fewer as usize) as u32;
                at_once.places.add_permits(most.saturating_sub(at_once.most) as usize);
                at_once.most = *most;
                // Requests under way keep their places, and those who ask for one meanwhile come after this.
                if kept > 0 {
                    let places = at_once.places.clone();
                    tokio::spawn(async move {
                        if let Ok(kept) = places.acquire_many_owned(kept).await {
                            kept.forget();
                        }
                    });
                }
            }
        }
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
