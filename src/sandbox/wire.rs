//! The platforms on sockets: one loopback listener each, and one for the control.
//!
//! hyper reads and writes what is well formed. Whatever is not, it hands back: the service errs, the connection gives up
//! its socket, and the broken end is written by hand. A listener that refuses is really gone, since a connection that is
//! taken and dropped is another fault.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::call::Call;
use super::flow::{Arrival, Broken, Sent};
use super::script::Instead;
use super::{SILENCE, Sandbox, control};

/// No platform takes a larger request.
const BODY: usize = 32 * 1024 * 1024;
/// How often a rule with a beginning and an end is looked at.
const WATCH: Duration = Duration::from_millis(20);
/// What an endless answer comes to, should anybody read that far.
const ENDLESS: usize = 256 * 1024 * 1024;

/// The running servers; they stop when this is dropped.
pub struct Served {
    pub control: SocketAddr,
    pub platforms: BTreeMap<String, SocketAddr>,
    apis: BTreeMap<String, &'static str>,
    _tasks: JoinSet<()>,
}

impl Served {
    /// The `platforms:` block of a configuration that leads here.
    pub fn platforms_block(&self) -> String {
        let line = |(name, at): (&String, &SocketAddr)| {
            let api = self.apis.get(name).copied().unwrap_or_default();
            format!("  {name}: {{api: {api}, base_url: \"http://{at}\"}}\n")
        };
        let lines: String = self.platforms.iter().map(line).collect();
        format!("platforms:\n{lines}")
    }
}

impl Sandbox {
    /// Serves every platform and the control on loopback: from port `ports` on, the control first, or on free ports.
    pub async fn serve(&self, ports: Option<u16>) -> io::Result<Served> {
        let mut next = ports;
        let mut bind = async || {
            let port = next.unwrap_or(0);
            next = next.and_then(|port| port.checked_add(1));
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
        };
        let mut tasks = JoinSet::new();
        let listener = bind().await?;
        let control = listener.local_addr()?;
        tasks.spawn(self.clone().listen_control(listener));
        // Connections of servers that were stopped are gone, whatever was counted.
        self.world().sites.values_mut().for_each(|site| site.open = 0);
        let names: Vec<_> = self.world().sites.iter().map(|(name, site)| (name.clone(), site.api.name())).collect();
        let mut platforms = BTreeMap::new();
        for (name, _) in &names {
            let listener = bind().await?;
            platforms.insert(name.clone(), listener.local_addr()?);
            tasks.spawn(self.clone().listen(name.clone(), listener));
        }
        Ok(Served { control, platforms, apis: names.into_iter().collect(), _tasks: tasks })
    }

    async fn listen_control(self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                self.0.clock.sleep(WATCH).await;
                continue;
            };
            while open.try_join_next().is_some() {}
            let sandbox = self.clone();
            open.spawn(async move {
                let service = service_fn(move |request| control_request(sandbox.clone(), request));
                let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A reader of the page that goes away is nobody's trouble.
                drop(served.await);
            });
        }
    }

    async fn listen(self, platform: String, listener: TcpListener) {
        let Ok(address) = listener.local_addr() else { return };
        let mut listener = Some(listener);
        let mut open = JoinSet::new();
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (closed, timed) = self.closed(&platform);
            if closed {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(address).await.ok();
            }
            let accept = async {
                match &listener {
                    Some(listener) => listener.accept().await.ok(),
                    None => std::future::pending().await,
                }
            };
            let watch = timed || listener.is_none();
            tokio::select! {
                biased;
                () = &mut changed => {}
                taken = accept => match taken {
                    Some((stream, _)) => {
                        while open.try_join_next().is_some() {}
                        open.spawn(self.clone().converse(platform.clone(), stream));
                    }
                    // Out of descriptors, mostly: wait for some to come back.
                    None => self.0.clock.sleep(WATCH).await,
                },
                () = self.0.clock.sleep(WATCH), if watch => {}
            }
        }
    }

    /// Whether the platform's listener is to be gone, and whether that may change with time alone.
    fn closed(&self, platform: &str) -> (bool, bool) {
        let now = self.0.clock.mono();
        let world = self.world();
        let mine = world
            .rules
            .iter()
            .filter(|r| r.rule.closes_listener() && r.rule.platform.as_deref().is_none_or(|wanted| wanted == platform));
        let (mut closed, mut timed) = (false, false);
        for rule in mine {
            closed |= rule.in_force(now);
            timed |= rule.rule.from_s.is_some() || rule.rule.for_s.is_some();
        }
        (closed, timed)
    }

    /// One connection, from accept to its end.
    async fn converse(self, platform: String, mut stream: TcpStream) {
        // Small answers must not wait for the next one.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        match self.connect(&platform, false) {
            None => {}
            Some(Instead::Hang) => return hold(&self, stream).await,
            Some(Instead::Alert) => return alert(&mut stream).await,
            Some(_) => return reset(&stream),
        }
        let guest = Arc::new(Guest::new(self.clone(), platform.clone()));
        let line = Line { stream, guest: guest.clone() };
        let served = guest.clone();
        let service = service_fn(move |request| Box::pin(served.clone().serve(request)));
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.auto_date_header(false);
        let mut conn = builder.serve_connection(TokioIo::new(line), service);
        let mut end = None;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.closed(&platform).0 {
                end = Some(Broken::Reset);
                break;
            }
            let idle = self.stale(&platform, "next", false);
            let wait = idle.map(|limit| limit.saturating_sub(guest.idle()).max(Duration::from_millis(1)));
            tokio::select! {
                biased;
                _ = std::future::poll_fn(|cx| conn.poll_without_shutdown(cx)) => break,
                () = &mut changed => {}
                () = self.0.clock.sleep(wait.unwrap_or(SILENCE)), if wait.is_some() => {
                    if idle.is_some_and(|limit| guest.idle() >= limit) {
                        end = self.stale(&platform, "next", true).map(|_| Broken::Reset);
                        break;
                    }
                }
            }
        }
        let end = guest.end.lock().unwrap_or_else(PoisonError::into_inner).take().or(end);
        let stream = conn.into_parts().io.into_inner().stream;
        self.disconnect(&platform);
        match end {
            Some(broken) => break_off(&self, stream, broken).await,
            None => drop(stream),
        }
    }

    /// After how long an idle connection is closed; with `next`, that happens only as the next request comes.
    fn stale(&self, platform: &str, next: &str, count: bool) -> Option<Duration> {
        let now = self.0.clock.mono();
        let mut world = self.world();
        let rule = world.rules.iter_mut().find(|r| {
            r.rule.behaviour.name() == "stale"
                && r.rule.params.kind.as_deref() != Some(next)
                && r.rule.platform.as_deref().is_none_or(|wanted| wanted == platform)
                && r.in_force(now)
                && r.rule.times.is_none_or(|times| r.fired < times)
        })?;
        rule.matched += u64::from(count);
        rule.fired += u64::from(count);
        Duration::try_from_secs_f64(rule.rule.params.seconds.unwrap_or(5.0)).ok()
    }
}

/// What the service of one connection and its socket share.
struct Guest {
    sandbox: Sandbox,
    platform: String,
    /// When the first byte of the coming request arrived, in nanoseconds; 0 while there is none.
    first_ns: AtomicI64,
    /// When the last answer went out.
    quiet_ns: AtomicI64,
    busy: AtomicU32,
    served: AtomicU32,
    /// How this connection is to be broken off.
    end: Mutex<Option<Broken>>,
}

impl Guest {
    fn new(sandbox: Sandbox, platform: String) -> Guest {
        let now = sandbox.now_ns();
        Guest {
            sandbox,
            platform,
            first_ns: AtomicI64::new(0),
            quiet_ns: AtomicI64::new(now),
            busy: AtomicU32::new(0),
            served: AtomicU32::new(0),
            end: Mutex::new(None),
        }
    }

    fn idle(&self) -> Duration {
        if self.busy.load(Ordering::SeqCst) > 0 {
            return Duration::ZERO;
        }
        let since = self.sandbox.now_ns() - self.quiet_ns.load(Ordering::SeqCst);
        Duration::from_nanos(u64::try_from(since).unwrap_or(0))
    }

    async fn serve(self: Arc<Guest>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
        let idle = self.idle();
        self.busy.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer(request, idle).await;
        self.quiet_ns.store(self.sandbox.now_ns(), Ordering::SeqCst);
        self.busy.fetch_sub(1, Ordering::SeqCst);
        self.served.fetch_add(1, Ordering::SeqCst);
        answer.map_err(|broken| {
            *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(broken);
            io::Error::other("broken off")
        })
    }

    async fn answer(&self, request: Request<Incoming>, idle: Duration) -> Result<Response<Full<Bytes>>, Broken> {
        let first = self.first_ns.swap(0, Ordering::SeqCst);
        let (parts, body) = request.into_parts();
        if parts.uri.path().starts_with("/_sandbox/") {
            let Ok(body) = Limited::new(body, BODY).collect().await else { return Err(Broken::Reset) };
            let request = Request::from_parts(parts, body.to_bytes());
            return Ok(control::answer(&self.sandbox, request).map(Full::new));
        }
        // The connection was closed while it lay idle, just as this request came down it.
        let late = self.served.load(Ordering::SeqCst) > 0
            && self.sandbox.stale(&self.platform, "", false).is_some_and(|limit| idle >= limit);
        if late && self.sandbox.stale(&self.platform, "", true).is_some() {
            return Err(Broken::Reset);
        }
        let head = self.sandbox.head(&self.platform, parts.uri.path());
        let body = if head.instead.is_some() {
            Bytes::new()
        } else {
            let Ok(body) = Limited::new(body, BODY).collect().await else { return Err(Broken::Reset) };
            body.to_bytes()
        };
        let last_ns = self.sandbox.now_ns();
        self.first_ns.store(0, Ordering::SeqCst);
        let first_ns = if first == 0 { last_ns } else { first };
        let call = Call::read(Request::from_parts(parts, body));
        match self.attended(call, Arrival { first_ns, last_ns, head }).await {
            Sent::Whole(response) => Ok(response.map(Full::new)),
            Sent::Broken(broken) => Err(broken),
        }
    }

    /// On a task of its own: a client that hangs up does not undo what it asked for.
    async fn attended(&self, call: Call, arrival: Arrival) -> Sent {
        let (tell, told) = oneshot::channel();
        let (sandbox, platform) = (self.sandbox.clone(), self.platform.clone());
        self.sandbox.own(async move {
            drop(tell.send(sandbox.attend(&platform, call, arrival).await));
        });
        told.await.unwrap_or(Sent::Broken(Broken::Reset))
    }
}

async fn control_request(sandbox: Sandbox, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, 1024 * 1024).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    Ok(control::answer(&sandbox, Request::from_parts(parts, body)).map(Full::new))
}

/// A socket that notes when the first byte of a request comes.
struct Line {
    stream: TcpStream,
    guest: Arc<Guest>,
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && self.guest.first_ns.load(Ordering::SeqCst) == 0 {
            self.guest.first_ns.store(self.guest.sandbox.now_ns(), Ordering::SeqCst);
        }
        polled
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Closing with no time to linger makes the kernel send a reset.
fn reset(stream: &TcpStream) {
    if let Err(error) = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)) {
        tracing::debug!(%error, "no reset could be arranged");
    }
}

async fn hold(sandbox: &Sandbox, mut stream: TcpStream) {
    let mut waste = [0; 4096];
    let drain = async { while matches!(stream.read(&mut waste).await, Ok(n) if n > 0) {} };
    if sandbox.0.clock.timeout(SILENCE, drain).await.is_none() {
        tracing::debug!("a silent connection was given up");
    }
}

/// What a TLS peer says that does not like the handshake: `bad_certificate`, fatal.
async fn alert(stream: &mut TcpStream) {
    if stream.write_all(&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x2A]).await.is_ok() {
        drop(stream.shutdown().await);
    }
}

async fn break_off(sandbox: &Sandbox, mut stream: TcpStream, broken: Broken) {
    match broken {
        Broken::Refuse | Broken::Reset => reset(&stream),
        Broken::Hang | Broken::Silence => hold(sandbox, stream).await,
        Broken::Alert => alert(&mut stream).await,
        other => {
            // The client may well have had enough before the end; that is the point.
            if write_broken(sandbox, &mut stream, other).await.is_ok() {
                drop(stream.shutdown().await);
            }
        }
    }
}

async fn write_broken(sandbox: &Sandbox, stream: &mut TcpStream, broken: Broken) -> io::Result<()> {
    match broken {
        Broken::CutLength(response) => {
            let body = response.body();
            stream.write_all(&head(&response, &format!("content-length: {}", body.len() + 100))).await?;
            stream.write_all(&body[..body.len() * 2 / 3]).await
        }
        Broken::CutChunked(response) => {
            let part = &response.body()[..response.body().len() * 2 / 3];
            stream.write_all(&head(&response, "transfer-encoding: chunked")).await?;
            stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await?;
            stream.write_all(part).await?;
            stream.write_all(b"\r\n").await
        }
        Broken::CutHead => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Ty").await,
        Broken::Trickle(response, pause) => {
            let length = format!("content-length: {}", response.body().len());
            stream.write_all(&head(&response, &length)).await?;
            for byte in response.body().iter() {
                stream.write_all(&[*byte]).await?;
                sandbox.pause(pause).await;
            }
            Ok(())
        }
        Broken::EndlessHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            repeat(stream, format!("x-filler: {}\r\n", "f".repeat(1000)).as_bytes()).await
        }
        Broken::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            repeat(stream, format!("400\r\n{}\r\n", " ".repeat(1024)).as_bytes()).await
        }
        Broken::Continue => repeat(stream, &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)).await,
        Broken::Bare(body) => stream.write_all(&body).await,
        Broken::Refuse | Broken::Hang | Broken::Alert | Broken::Reset | Broken::Silence => Ok(()),
    }
}

async fn repeat(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for _ in 0..ENDLESS / bytes.len().max(1) {
        stream.write_all(bytes).await?;
    }
    Ok(())
}

fn head(response: &Response<Bytes>, framing: &str) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(framing.as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    head
}
