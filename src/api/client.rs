//! The commands' side of the socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::clock::Clock;

/// A request with a key is asked so often before nobody is said to answer.
const TRIES: u32 = 6;
const BETWEEN: Duration = Duration::from_secs(1);
/// No answer takes longer, unless the daemon is stopped or its disk is; who waits in front of a terminal has to know.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries to get in.
const UNTIL_THERE_IS_ROOM: Duration = Duration::from_millis(5);

/// Whether this kind of error of the socket itself is behind it.
fn is_of(error: &reqwest::Error, kind: std::io::ErrorKind) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == kind) {
            return true;
        }
        source = error.source();
    }
    false
}

/// The group of a socket, or of the first folder above it that can be looked at.
fn group_of(socket: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let gid = socket.ancestors().find_map(|path| Some(std::fs::metadata(path).ok()?.gid()));
    let name = gid.and_then(uzers::get_group_by_gid).map(|group| group.name().to_string_lossy().into_owned());
    name.or(gid.map(|gid| gid.to_string())).unwrap_or_default()
}

/// Speaks to the daemon behind a socket.
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

/// Why there is no answer to go on with.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon answers on {0}")]
    Unreachable(String),
    /// The socket is there, and this user may not use it; with the group that may.
    #[error("no permission for {0}, which is the group {1}'s")]
    Forbidden(String, String),
    /// It has the request, and does not answer.
    #[error("the daemon on {0} does not answer")]
    Silent(String),
    /// The daemon's own words, in both languages.
    #[error("{en}")]
    Refused { status: u16, en: String, zh: String, field: Option<String> },
    #[error("the daemon's answer cannot be read: {0}")]
    Odd(String),
}

impl Client {
    pub fn new(socket: &Path) -> Client {
        crate::platform::http::install_crypto();
        let http = reqwest::Client::builder()
            .unix_socket(socket.to_owned())
            .no_proxy()
            .retry(reqwest::retry::never())
            .timeout(PATIENCE)
            .build()
            .expect("a client without TLS settings of its own is always built");
        Client { http, socket: socket.to_owned() }
    }

    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.read(self.http.get(format!("http://fabu{path}"))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let request = self.http.post(format!("http://fabu{path}"));
        self.read(request.header("content-type", "application/json").body(body.to_string())).await
    }

    /// The same with a key: asked again, it does nothing twice. So it is asked again when its answer is lost: by a
    /// daemon that ended and is started again.
    pub async fn post_once(&self, path: &str, body: &Value, key: &str) -> Result<Value, ClientError> {
        self.surely(|| {
            let request = self.http.post(format!("http://fabu{path}")).header("idempotency-key", key);
            request.header("content-type", "application/json").body(body.to_string())
        })
        .await
    }

    async fn surely(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Result<Value, ClientError> {
        let clock = Clock::real();
        let mut tries = 1;
        loop {
            match self.read(request()).await {
                Err(ClientError::Unreachable(_)) if tries < TRIES => tries += 1,
                answer => return answer,
            }
            clock.sleep(BETWEEN).await;
        }
    }

    /// An alert, with a key or for a look.
    pub async fn post_alert(&self, path: &str, alert: Vec<u8>, key: Option<&str>) -> Result<Value, ClientError> {
        let request = || {
            let request = self.http.post(format!("http://fabu{path}")).header("content-type", "application/cap+xml");
            key.into_iter().fold(request, |request, key| request.header("idempotency-key", key)).body(alert.clone())
        };
        match key {
            Some(_) => self.surely(request).await,
            None => self.read(request()).await,
        }
    }

    /// The text at a path, in the form asked for.
    pub async fn get_as(&self, path: &str, form: &str) -> Result<String, ClientError> {
        let request = self.http.get(format!("http://fabu{path}")).header("accept", form);
        let answer = self.sent(request).await?;
        if answer.status().is_success() {
            return answer.text().await.map_err(|e| ClientError::Odd(e.to_string()));
        }
        Err(self.refusal(answer).await)
    }

    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.read(self.http.delete(format!("http://fabu{path}"))).await
    }

    async fn read(&self, request: reqwest::RequestBuilder) -> Result<Value, ClientError> {
        let answer = self.sent(request).await?;
        if !answer.status().is_success() {
            return Err(self.refusal(answer).await);
        }
        let bytes = answer.bytes().await.map_err(|error| self.unanswered(&error))?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Odd(e.to_string()))
    }

    /// Sends it. Where so many wait to be taken in that the kernel takes no more it was not begun, and is tried again.
    async fn sent(&self, mut request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let clock = Clock::real();
        let begun = clock.mono();
        loop {
            let again = request.try_clone();
            match (request.send().await, again) {
                (Err(error), Some(again))
                    if is_of(&error, std::io::ErrorKind::WouldBlock) && clock.mono().0 - begun.0 < PATIENCE =>
                {
                    clock.sleep(UNTIL_THERE_IS_ROOM).await;
                    request = again;
                }
                (answer, _) => return answer.map_err(|error| self.unanswered(&error)),
            }
        }
    }

    fn unanswered(&self, error: &reqwest::Error) -> ClientError {
        let socket = self.socket.display().to_string();
        if error.is_connect() && is_of(error, std::io::ErrorKind::PermissionDenied) {
            return ClientError::Forbidden(socket, group_of(&self.socket));
        }
        if error.is_timeout() { ClientError::Silent(socket) } else { ClientError::Unreachable(socket) }
    }

    async fn refusal(&self, answer: reqwest::Response) -> ClientError {
        let status = answer.status().as_u16();
        let said = match answer.bytes().await {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let value = match said {
            Ok(value) => value,
            Err(error) => return ClientError::Odd(error),
        };
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let (en, zh) = (text("detail").unwrap_or_default(), text("detail_zh").unwrap_or_default());
        ClientError::Refused { status, en, zh, field: text("field") }
    }
}

/// An id as part of a path.
pub fn in_path(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}
