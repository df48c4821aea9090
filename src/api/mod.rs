//! HTTP on the Unix socket: who is asking is what the kernel says.
//!
//! Every request is checked for its role, on every path and also on a connection that is kept alive;
//! unknown paths answer 404 only after that. There is no TCP listener. What a client may send is
//! bounded in size and time, and so is how many may be connected.

pub mod actions;
pub mod client;
mod description;
pub mod holds;
mod inherited;
pub mod peer;
pub mod problem;
pub mod queries;
mod rest;
pub mod routes;
mod seats;
pub mod sent;
mod stream;
pub mod urgent;

use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tower::Service as _;

use crate::daemon::Inner;
pub use inherited::inherited;
use peer::{Directory, Peer, Role, own_uid};
use rest::Rest;
use seats::{Seat, Seats};
use stream::Stream;

/// R42.
const HEADER_WITHIN: Duration = Duration::from_secs(5);
const HEADER_BYTES: usize = 16 << 10;
const MOST_BODY: usize = 1 << 20;
/// Connections that wait to be taken in; the kernel's own bound (`net.core.somaxconn`) is as high.
const BACKLOG: i32 = 4096;

/// All routes, and what surrounds them.
pub fn router(inner: Arc<Inner>) -> Router {
    let routes = routes::router()
        .fallback(queries::nothing)
        .method_not_allowed_fallback(queries::wrong_method)
        .layer(axum::extract::DefaultBodyLimit::max(MOST_BODY))
        .with_state(inner);
    // Around the whole of it: the header is added outside of what a router's own layers see.
    Router::new().fallback_service(routes).layer(axum::middleware::map_response(say_no_more))
}

/// axum says beside every answer to a wrong method which ones there are: whoever is refused for their role would
/// learn from it that there is something at this path.
async fn say_no_more(mut answer: Response) -> Response {
    if answer.status() != StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().remove(header::ALLOW);
    }
    answer
}

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("the socket path {0} is longer than 107 bytes")]
    TooLong(String),
    #[error("{0} is there and is no socket; move it away")]
    NotASocket(String),
    #[error("somebody listens on {0}, perhaps the service manager: it is not replaced")]
    InUse(String),
    #[error("others can write the folder {0}, and could put a socket of theirs in its place: chmod o-w {0}")]
    OpenFolder(String),
    #[error("the name {0} is kept for a socket in the making: choose another")]
    Taken(String),
    #[error("{what} {path}: {error}")]
    Io { what: &'static str, path: String, error: std::io::Error },
    #[error("the socket that the service manager passed is not taken: {0}")]
    Passed(String),
}

/// Binds the socket: mode 0660 from its first instant, in a folder others cannot write, a stale one replaced.
/// The ledger's lock is held already, so a socket that is there belongs to nobody.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let name = path.display().to_string();
    let failed = |what| {
        let path = name.clone();
        move |error| SocketError::Io { what, path, error }
    };
    if path.as_os_str().len() > 107 {
        return Err(SocketError::TooLong(name));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(folder)
            .map_err(failed("making the folder of"))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() && is_listened_on(path) => return Err(SocketError::InUse(name)),
        Ok(meta) if meta.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(failed("replacing the stale socket"))?
        }
        Ok(_) => return Err(SocketError::NotASocket(name)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("looking at the socket")(error)),
    }
    others_cannot_write(folder)?;
    // Bound under a name nobody asks for, given its mode, and only then put in its place: no window of wider permission.
    // The name is no longer than the socket's own, which is known to fit.
    let length = path.file_name().map_or(0, std::ffi::OsStr::len);
    let own = format!(".{:x}", std::process::id());
    let hidden = folder.join(&own[..own.len().min(length)]);
    if hidden == path {
        return Err(SocketError::Taken(name));
    }
    if std::fs::symlink_metadata(&hidden).is_ok() {
        std::fs::remove_file(&hidden).map_err(failed("removing the leftover beside"))?;
    }
    let listener = UnixListener::bind(&hidden).map_err(failed("binding"))?;
    // Who comes while it is full is told to come again, and that must not be an urgent post.
    rustix::net::listen(&listener, BACKLOG).map_err(|error| failed("listening on")(error.into()))?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o660)).map_err(failed("setting the mode of"))?;
    std::fs::rename(&hidden, path).map_err(failed("putting in place"))?;
    Ok(listener)
}

/// A service manager listens for a daemon that does not run.
pub fn is_listened_on(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

/// Who can write the folder can put a socket of their own in this one's place, and answer to urgent posts (R32).
fn others_cannot_write(folder: &Path) -> Result<(), SocketError> {
    /// In such a folder, `/tmp` for one, nobody can replace what is another's.
    const STICKY: u32 = 0o1000;
    let meta = std::fs::metadata(folder).map_err(|error| SocketError::Io {
        what: "looking at the folder of",
        path: folder.display().to_string(),
        error,
    })?;
    let mode = meta.permissions().mode();
    match mode & 0o002 != 0 && mode & STICKY == 0 {
        true => Err(SocketError::OpenFolder(folder.display().to_string())),
        false => Ok(()),
    }
}

/// Serves the socket until the daemon stops.
pub async fn serve(inner: Arc<Inner>, listener: UnixListener) {
    let router = router(inner.clone());
    let (seats, directory) = (Arc::new(Seats::default()), Directory::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = inner.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                // Pinned when it connects: a later change of the process behind it changes nothing.
                let Ok(credentials) = stream.peer_cred() else { continue };
                let (uid, now) = (credentials.uid(), inner.clock.mono());
                // Nothing is looked up here: the next one waits.
                let role = directory.last(uid, now).map(|peer| role_of(&inner, &peer));
                let seat = seats.take(uid, role, now);
                let hall = Hall { inner: inner.clone(), router: router.clone(), directory: directory.clone() };
                connections.spawn(connection(hall, stream, uid, seat));
            }
            Err(error) => {
                tracing::error!(%error, "the socket does not accept");
                inner.clock.sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What every connection needs.
struct Hall {
    inner: Arc<Inner>,
    router: Router,
    directory: Directory,
}

fn role_of(inner: &Inner, peer: &Peer) -> Role {
    peer.role(inner.config().settings.access.as_ref(), own_uid())
}

async fn connection(hall: Hall, stream: UnixStream, uid: u32, seat: Seat) {
    let Hall { inner, router, directory } = hall;
    let seats = seat.seats.clone();
    let serving = inner.clone();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (mut router, directory, inner, seats) = (router.clone(), directory.clone(), serving.clone(), seats.clone());
        async move {
            // Each request anew: a kept connection keeps no role.
            let peer = directory.peer(uid, &inner.clock).await;
            seats.has_role(uid, role_of(&inner, &peer));
            let (mut request, rest) = Rest::of(request);
            request.extensions_mut().insert(peer);
            let answer = router.call(request).await?;
            // Whose body came too slowly is not waited for again.
            if !answer.status().is_success() && answer.status() != StatusCode::REQUEST_TIMEOUT {
                rest.read(&inner.clock).await;
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(HEADER_BYTES)
        .half_close(true)
        .serve_connection(TokioIo::new(Stream::new(stream, inner.clock.clone(), seat.pulse.clone())), service);
    tokio::select! {
        biased;
        result = served => if let Err(error) = result {
            tracing::debug!(%error, "a connection on the socket ended badly");
        },
        // Streams of events end with the daemon.
        () = inner.stop.cancelled() => {}
        () = seat.leaves.cancelled() => tracing::debug!(uid, "a connection ends for another of its user's"),
    }
}
