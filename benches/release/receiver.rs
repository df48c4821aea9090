//! The receiving end: four ports that answer like `statuses`, and remember when each request came.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A process of its own, so that it shares no thread with who is measured.
pub struct Receiver {
    child: Child,
    pub ports: Vec<u16>,
}

/// One post: when its first bytes were read, in microseconds since 1970, and at which of the ports.
pub struct Arrival {
    pub at_us: i64,
    pub port: usize,
    pub text: String,
}

/// How the first of the four ports answers posts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum First {
    AsTheOthers,
    /// It takes them, and never says a word.
    Hangs,
    /// 429, in a minute again.
    Limits,
}

impl First {
    pub const fn name(self) -> &'static str {
        match self {
            First::AsTheOthers => "as the others",
            First::Hangs => "hangs",
            First::Limits => "limits",
        }
    }

    fn named(name: &str) -> First {
        [First::Hangs, First::Limits].into_iter().find(|f| f.name() == name).unwrap_or(First::AsTheOthers)
    }
}

impl Receiver {
    pub async fn start(delay_ms: u64) -> Receiver {
        Receiver::start_with(delay_ms, First::AsTheOthers).await
    }

    pub async fn start_with(delay_ms: u64, first: First) -> Receiver {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        let mut child = command
            .args(["receiver", &delay_ms.to_string(), first.name()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the receiver starts");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("its ports");
        Receiver { child, ports: line.split_whitespace().filter_map(|p| p.parse().ok()).collect() }
    }

    /// The posts since the last call.
    pub async fn take(&self) -> Vec<Arrival> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[0])).await.expect("the receiver is up");
        stream.write_all(b"GET /report HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("it listens");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("it answers");
        let body = text.split("\r\n\r\n").nth(1).unwrap_or("");
        body.lines()
            .filter_map(|line| {
                let mut parts = line.splitn(3, ' ');
                let (at, port, text) = (parts.next()?, parts.next()?, parts.next()?);
                Some(Arrival { at_us: at.parse().ok()?, port: port.parse().ok()?, text: text.to_owned() })
            })
            .collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(|_| ()).unwrap_or_default();
    }
}

type Seen = Arc<Mutex<Vec<(i64, usize, String)>>>;

/// One port of the receiver.
#[derive(Clone)]
struct Port {
    number: usize,
    seen: Seen,
    ids: Arc<AtomicU64>,
    delay_ms: u64,
    first: First,
}

/// The receiver process.
pub fn serve(delay_ms: u64, first: &str) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let seen: Seen = Arc::default();
        let ids = Arc::new(AtomicU64::new(1000));
        let mut listeners = Vec::new();
        for _ in 0..4 {
            listeners.push(TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port"));
        }
        let ports: Vec<String> = listeners.iter().map(|l| l.local_addr().expect("bound").port().to_string()).collect();
        println!("{}", ports.join(" "));
        for (number, listener) in listeners.into_iter().enumerate() {
            let first = if number == 0 { First::named(first) } else { First::AsTheOthers };
            let port = Port { number, seen: seen.clone(), ids: ids.clone(), delay_ms, first };
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap_or_default();
                    tokio::spawn(connection(stream, port.clone()));
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

fn now_us() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the receiver measures by the machine's clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

async fn connection(mut stream: TcpStream, port: Port) {
    let mut buffer = Vec::with_capacity(4096);
    let mut came = 0;
    loop {
        let Some((head, length)) = whole(&buffer) else {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    if came == 0 {
                        came = now_us();
                    }
                    continue;
                }
            }
        };
        let request = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let body = String::from_utf8_lossy(&buffer[head..head + length]).into_owned();
        buffer.drain(..head + length);
        let answer = answer(&request, &body, came, &port);
        came = 0;
        if port.first == First::Hangs && request.starts_with("POST") {
            // Until the other side gives up.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap_or_default();
            return;
        }
        if port.delay_ms > 0 && request.starts_with("POST") {
            #[expect(clippy::disallowed_methods, reason = "a platform that takes its time")]
            tokio::time::sleep(Duration::from_millis(port.delay_ms)).await;
        }
        if stream.write_all(answer.as_bytes()).await.is_err() || request.contains("connection: close") {
            return;
        }
    }
}

/// Length of the head and of the body, once both are there.
fn whole(buffer: &[u8]) -> Option<(usize, usize)> {
    let head = buffer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).ok()?;
    let length = text
        .lines()
        .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(|v| v.trim().parse().unwrap_or(0)))
        .unwrap_or(0);
    (buffer.len() >= head + length).then_some((head, length))
}

fn answer(request: &str, body: &str, came: i64, port: &Port) -> String {
    let (seen, ids) = (&port.seen, &port.ids);
    let line = request.lines().next().unwrap_or("");
    let mut status = "200 OK";
    let json = if line.starts_with("POST") {
        let fields: BTreeMap<_, _> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let text = fields.get("status").cloned().unwrap_or_default();
        seen.lock().expect("nothing panics here").push((came, port.number, text.clone()));
        let id = ids.fetch_add(1, Ordering::SeqCst);
        if port.first == First::Limits {
            status = "429 Too Many Requests\r\nretry-after: 60";
        }
        format!("{{\"id\":{id},\"text\":{},\"user\":{{\"id\":1}}}}", serde_json::Value::String(text))
    } else if line.contains("/report") {
        let all = std::mem::take(&mut *seen.lock().expect("nothing panics here"));
        all.iter().map(|(at, port, text)| format!("{at} {port} {text}\n")).collect()
    } else if line.contains("user_timeline") {
        "[]".to_owned()
    } else {
        "{\"id\":1}".to_owned()
    };
    let body = if line.starts_with("HEAD") { "" } else { json.as_str() };
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", json.len())
}
