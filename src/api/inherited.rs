//! The socket that systemd holds for us (`sd_listen_fds(3)`): whoever asks while the daemon starts again waits, and is
//! not turned away.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener as Listener;
use std::path::Path;

use tokio::net::UnixListener;

use super::SocketError;

/// The socket this process was started with, if it was; it has to be the one the configuration names, and as closed to
/// others as one of ours.
pub fn inherited(path: &Path) -> Result<Option<UnixListener>, SocketError> {
    let mut passed = listenfd::ListenFd::from_env();
    if passed.len() == 0 {
        return Ok(None);
    }
    if passed.len() > 1 {
        return Err(SocketError::Passed(format!("{} sockets were passed, and one is used", passed.len())));
    }
    let listener = passed.take_unix_listener(0).map_err(|error| SocketError::Passed(error.to_string()))?;
    let Some(listener) = listener else { return Ok(None) };
    looked_at(&listener, path)?;
    let failed = |error| SocketError::Io { what: "taking over", path: path.display().to_string(), error };
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map(Some).map_err(failed)
}

fn looked_at(listener: &Listener, path: &Path) -> Result<(), SocketError> {
    let name = path.display();
    let failed = |error| SocketError::Io { what: "looking at", path: name.to_string(), error };
    let address = listener.local_addr().map_err(failed)?;
    let is_listening = rustix::net::sockopt::socket_acceptconn(listener).map_err(|error| failed(error.into()))?;
    let at = address.as_pathname().filter(|_| is_listening);
    let Some(at) = at else {
        return Err(SocketError::Passed("what was passed does not listen at a path".to_owned()));
    };
    let (here, there) = (std::fs::metadata(path).map_err(failed)?, std::fs::metadata(at).map_err(failed)?);
    if (here.dev(), here.ino()) != (there.dev(), there.ino()) {
        let at = at.display();
        return Err(SocketError::Passed(format!("{at} was passed, and the configuration says {name}")));
    }
    if here.mode() & 0o007 != 0 {
        let mode = here.mode() & 0o777;
        return Err(SocketError::Passed(format!("{name} has mode {mode:04o}; SocketMode=0660 keeps others out")));
    }
    Ok(())
}
