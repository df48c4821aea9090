//! The binary itself: `fabu run` on a real socket in front of `fabu sandbox`, asked as any uid.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fabu::clock::{Clock, Time};
use rustix::process::Uid;
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_fabu");
const PLATFORMS: [(&str, &str); 4] =
    [("sina", "weibo"), ("tencent", "tencent-weibo"), ("eastday", "statuses"), ("xinmin", "statuses")];
/// Nothing here is slower, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
pub struct Running(Child);

impl Running {
    pub fn kill(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(|_| ()).unwrap_or_default();
    }

    /// Asks it to end, and waits.
    pub async fn end(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait().await
    }

    /// Its exit code, once it has ended by itself.
    pub async fn wait(&mut self) -> Option<i32> {
        let clock = Clock::real();
        let end = clock.mono().0 + PATIENCE;
        while clock.mono().0 < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            clock.sleep(Duration::from_millis(5)).await;
        }
        panic!("it does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Outdoors {
    folder: TempDir,
    units: usize,
    control: String,
    pub clock: Clock,
    http: reqwest::Client,
    _sandbox: Running,
}

/// What came back on the socket.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub value: Value,
    /// When the whole of it was here.
    pub at: Time,
}

impl Outdoors {
    pub async fn new(units: usize, more: &str) -> Outdoors {
        fabu::platform::http::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        // The socket's group may come to it: tests ask as other users of that group.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
        std::fs::create_dir(folder.path().join("queue")).unwrap();
        std::fs::write(folder.path().join("accounts.yaml"), accounts(units)).unwrap();
        std::fs::write(folder.path().join("fabu.yaml"), config(&BTreeMap::new(), more)).unwrap();
        let mut command = command(folder.path(), units, &["sandbox", "--limits", "off", "--duplicates", "off"]);
        command.args(["--latency", "5ms..40ms"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let ports: BTreeMap<String, String> = serde_json::from_value(said["platforms"].clone()).unwrap();
        std::fs::write(folder.path().join("fabu.yaml"), config(&ports, more)).unwrap();
        Outdoors {
            folder,
            units,
            control: said["control"].as_str().unwrap().to_owned(),
            clock: Clock::real(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _sandbox: Running(child),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("state/fabu.sock")
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start(&self) -> Running {
        self.start_inside(&[]).await
    }

    /// The same, run by another command.
    pub async fn start_inside(&self, outer: &[&str]) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let daemon = command(self.folder.path(), self.units, &["run"]);
        let mut command = match outer.split_first() {
            None => daemon,
            Some((first, rest)) => {
                std::fs::create_dir_all(self.folder.path().join("full")).unwrap();
                let mut outer = Command::new(first);
                outer.current_dir(self.folder.path()).args(rest).arg(daemon.get_program()).args(daemon.get_args());
                outer.envs(daemon.get_envs().filter_map(|(k, v)| Some((k, v?))));
                outer
            }
        };
        let running = Running(command.env("FABU_LOG", "warn").stderr(log).spawn().unwrap());
        let end = self.clock.mono().0 + PATIENCE;
        while self.clock.mono().0 < end {
            if UnixStream::connect(self.socket()).is_ok() {
                return running;
            }
            self.clock.sleep(Duration::from_millis(5)).await;
        }
        panic!("the daemon does not answer: {}", self.log());
    }

    /// Starts the daemon as a service manager does that holds the socket: it is file descriptor 3.
    pub fn start_with(&self, listener: &UnixListener) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let daemon = command(self.folder.path(), self.units, &["run"]);
        let mut shell = Command::new("sh");
        // The number of the process that is asked for is its own.
        shell.args(["-c", "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"]);
        shell
            .arg(daemon.get_program())
            .args(daemon.get_args())
            .envs(daemon.get_envs().filter_map(|(k, v)| Some((k, v?))));
        let passed = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
        Running(shell.stdin(passed).stdout(Stdio::null()).env("FABU_LOG", "warn").stderr(log).spawn().unwrap())
    }

    /// A command of a person's, in this city.
    pub fn command(&self, arguments: &[&str]) -> Command {
        command(self.folder.path(), self.units, arguments)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn touch(&self, name: &str) {
        std::fs::write(self.folder.path().join(name), "").unwrap();
    }

    pub async fn wait_for(&self, name: &str) {
        let end = self.clock.mono().0 + PATIENCE;
        while !self.folder.path().join(name).exists() {
            assert!(self.clock.mono().0 < end, "{name} does not come: {}", self.log());
            self.clock.sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn save(&self, name: &str, text: &str) {
        let beside = self.folder.path().join("queue/.new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.folder.path().join("queue").join(name)).unwrap();
    }

    /// One request as this process's own user.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Said {
        self.ask_on(UnixStream::connect(self.socket()).unwrap(), method, path, body)
    }

    /// One request as another user of the socket's group.
    pub fn ask_as(&self, uid: u32, method: &str, path: &str, body: &str) -> Said {
        self.ask_on(connect_as(&self.socket(), uid), method, path, body)
    }

    pub fn ask_on(&self, mut stream: UnixStream, method: &str, path: &str, body: &str) -> Said {
        stream.write_all(request(method, path, body).as_bytes()).unwrap();
        answer(&mut stream, &self.clock).expect("an answer")
    }

    async fn sandbox_says(&self, what: &str) -> Vec<Value> {
        let url = format!("http://{}/_sandbox/{what}", self.control);
        let bytes = self.http.get(url).send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    pub async fn posts(&self) -> Vec<Value> {
        self.sandbox_says("posts").await
    }

    /// When the first byte of each request to post came in, with its account.
    pub async fn arrivals(&self) -> Vec<(Time, String)> {
        let seen = self.sandbox_says("requests").await;
        let posts = seen.iter().filter(|r| r["op"] == "post");
        let at = |r: &Value| fabu::clock::from_micros(r["first_ns"].as_i64().unwrap() / 1000);
        posts.map(|r| (at(r), r["account"].as_str().unwrap_or("").to_owned())).collect()
    }

    /// Waits until no delivery is in any of these states; what is left after that is returned.
    pub async fn none_is(&self, states: &[&str]) -> Option<Value> {
        let end = self.clock.mono().0 + PATIENCE;
        loop {
            let status = self.ask("GET", "/v1/status", "");
            let deliveries = &status.value["deliveries"];
            if states.iter().all(|s| deliveries[*s].as_u64().unwrap_or(0) == 0) {
                return None;
            }
            if self.clock.mono().0 > end {
                return Some(deliveries.clone());
            }
            self.clock.sleep(Duration::from_millis(50)).await;
        }
    }
}

pub const OPEN: [&str; 6] = ["scheduled", "ready", "sending", "retrying", "unknown", "accepted"];

fn accounts(units: usize) -> String {
    let mut text = "units:\n- id: city\n  name: city\n  units:\n".to_owned();
    for n in 0..units {
        text += &format!("  - id: u{n}\n    name: u{n}\n    accounts:\n");
        for (platform, _) in PLATFORMS {
            text += &format!("      {platform}: {{handle: h{n}, uid: \"1{n:06}\", token: \"env:K_{platform}_{n}\"}}\n");
        }
    }
    text
}

fn config(ports: &BTreeMap<String, String>, more: &str) -> String {
    let mut text = format!(
        "queue: queue\naccounts: accounts.yaml\npublish: {{settle_file: off, lead: 1s, retry: {{first: 200ms, max: 1s, tries: 40}}}}\n{more}platforms:\n"
    );
    for (name, api) in PLATFORMS {
        let url = ports.get(name).map_or("http://127.0.0.1:1".to_owned(), |p| format!("http://{p}"));
        text += &format!(
            "  {name}: {{api: {api}, base_url: \"{url}\", timeout: 1s, read_back: {{after: [300ms], settle: 1s}}, \
             limits: {{account_per_hour: off, account_per_day: off, host_per_hour: off, connections: 100}}}}\n"
        );
    }
    text
}

fn command(folder: &Path, units: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    for n in 0..units {
        for (platform, _) in PLATFORMS {
            command.env(format!("K_{platform}_{n}"), format!("secret-{platform}-{n}"));
        }
    }
    command.env_remove("RUST_BACKTRACE").args(["--json", "--config"]).arg(folder.join("fabu.yaml")).args(arguments);
    command
}

/// Whether this process may ask as somebody else.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A connection that the kernel knows as another user's: a thread of its own connects, and ends.
pub fn connect_as(socket: &Path, uid: u32) -> UnixStream {
    let socket = socket.to_owned();
    let connecting = std::thread::spawn(move || {
        become_user(uid);
        UnixStream::connect(socket).unwrap()
    });
    connecting.join().unwrap()
}

/// What this thread connects to from here on sees that user.
pub fn become_user(uid: u32) {
    rustix::thread::set_thread_res_uid(None::<Uid>, Uid::from_raw(uid), None::<Uid>).unwrap();
}

pub fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: fabu\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads one answer; none when the connection ended without one.
pub fn answer(stream: &mut UnixStream, clock: &Clock) -> Option<Said> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, &mut bytes)?;
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let length = text.split("content-length: ").nth(1).and_then(|l| l.split("\r\n").next()?.parse().ok()).unwrap_or(0);
    while bytes.len() < head + length {
        more(stream, &mut bytes)?;
    }
    let at = clock.now();
    Some(Said { status, value: serde_json::from_slice(&bytes[head..]).unwrap_or(Value::Null), at })
}

fn more(stream: &mut UnixStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 4096];
    let n = stream.read(&mut part).ok().filter(|n| *n > 0)?;
    bytes.extend_from_slice(&part[..n]);
    Some(())
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// How often a drawn thing is done: few times here, more when `variable` says so.
pub fn rounds(variable: &str, here: usize) -> usize {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(here)
}
