//! The binary itself: real processes, real sockets, real `kill -9`, judged by what stands on the sandbox.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fabu::clock::Clock;
use fabu::platform::http::install_crypto;
use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_fabu");

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(|_| ()).unwrap_or_default();
    }
}

struct City {
    folder: TempDir,
    control: String,
    clock: Clock,
    http: reqwest::Client,
    _sandbox: Running,
}

/// Two hundred units on four platforms.
const UNITS: usize = 200;

fn accounts() -> String {
    let mut text = "units:\n- id: city\n  name: city\n  units:\n".to_owned();
    for n in 0..UNITS {
        text += &format!("  - id: u{n}\n    name: u{n}\n    accounts:\n");
        for platform in ["sina", "tencent", "eastday", "xinmin"] {
            text += &format!("      {platform}: {{handle: h{n}, uid: \"1{n:06}\", token: \"env:K_{platform}_{n}\"}}\n");
        }
    }
    text
}

/// A process that knows the secrets, and speaks English whatever the machine speaks.
fn secrets(command: &mut Command) -> &mut Command {
    for n in 0..UNITS {
        for platform in ["sina", "tencent", "eastday", "xinmin"] {
            command.env(format!("K_{platform}_{n}"), format!("secret-{platform}-{n}"));
        }
    }
    command.env_remove("RUST_BACKTRACE").env("LC_ALL", "en_US.UTF-8")
}

fn config(ports: &BTreeMap<String, String>) -> String {
    let mut text = "queue: queue\naccounts: accounts.yaml\npublish: {settle_file: off, lead: 2s, retry: {first: 200ms, max: 1s, tries: 40}}\nplatforms:\n".to_owned();
    for (name, api) in
        [("sina", "weibo"), ("tencent", "tencent-weibo"), ("eastday", "statuses"), ("xinmin", "statuses")]
    {
        let url = ports.get(name).map_or("http://127.0.0.1:1".to_owned(), |p| format!("http://{p}"));
        text += &format!(
            "  {name}: {{api: {api}, base_url: \"{url}\", timeout: 2s, read_back: {{after: [500ms, 1s], settle: 3s}}, \
             limits: {{account_per_hour: off, account_per_day: off, host_per_hour: off, connections: 100}}}}\n"
        );
    }
    text
}

impl City {
    async fn new(more: &[&str]) -> City {
        install_crypto();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("queue")).unwrap();
        std::fs::write(folder.path().join("accounts.yaml"), accounts()).unwrap();
        std::fs::write(folder.path().join("fabu.yaml"), config(&BTreeMap::new())).unwrap();
        let mut command = Command::new(BINARY);
        secrets(&mut command).args(["--json", "--config"]).arg(folder.path().join("fabu.yaml"));
        command.args(["sandbox", "--limits", "off", "--duplicates", "off", "--latency", "5ms..40ms"]).args(more);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let ports: BTreeMap<String, String> = serde_json::from_value(said["platforms"].clone()).unwrap();
        std::fs::write(folder.path().join("fabu.yaml"), config(&ports)).unwrap();
        City {
            folder,
            control: said["control"].as_str().unwrap().to_owned(),
            clock: Clock::real(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _sandbox: Running(child),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        secrets(&mut command).arg("--config").arg(self.path("fabu.yaml")).args(arguments);
        command
    }

    /// Starts the daemon and waits until it answers.
    async fn start(&self) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        self.start_telling(log.into()).await
    }

    /// The same, with its log going there.
    async fn start_telling(&self, log: Stdio) -> Running {
        let running = Running(self.command(&["run"]).env("FABU_LOG", "warn").stderr(log).spawn().unwrap());
        let socket = self.path("state/fabu.sock");
        for _ in 0..1000 {
            if health(&socket).await {
                return running;
            }
            self.clock.sleep(Duration::from_millis(20)).await;
        }
        panic!("the daemon does not answer: {:?}", std::fs::read_to_string(self.path("log")));
    }

    fn save(&self, name: &str, text: &str) {
        let beside = self.path("queue/.new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path("queue").join(name)).unwrap();
    }

    async fn posts(&self) -> Vec<Value> {
        let url = format!("http://{}/_sandbox/posts", self.control);
        let bytes = self.http.get(url).send().await.unwrap().bytes().await.unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        value.as_array().or(value["posts"].as_array()).unwrap().clone()
    }

    /// Waits until every delivery has settled; what is still open after that is returned.
    async fn settled(&self) -> Vec<Value> {
        let client = fabu::api::client::Client::new(&self.path("state/fabu.sock"));
        let mut open = Vec::new();
        for _ in 0..240 {
            let status = client.get("/v1/status").await.unwrap();
            let deliveries = status["deliveries"].as_object().unwrap();
            let count = |states: &[&str]| states.iter().filter_map(|s| deliveries.get(*s)?.as_u64()).sum::<u64>();
            if count(&["scheduled", "ready", "sending", "retrying", "unknown", "accepted", "held"]) == 0 {
                return Vec::new();
            }
            open = vec![status["deliveries"].clone()];
            self.clock.sleep(Duration::from_millis(250)).await;
        }
        open
    }
}

async fn health(socket: &Path) -> bool {
    fabu::api::client::Client::new(socket).get("/v1/health").await.is_ok()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Somebody asked for something while the daemon was being killed: when it was answered, and what.
struct Answered {
    id: String,
    what: &'static str,
    at: fabu::clock::Time,
    cancelled: usize,
}

/// Asks once; who gets no answer knows nothing.
async fn ask(city: &City, id: &str, what: &'static str, body: Value) -> Option<Answered> {
    let client = fabu::api::client::Client::new(&city.path("state/fabu.sock"));
    let path = if what == "urgent" { "/v1/urgent".to_owned() } else { format!("/v1/announcements/{id}/{what}") };
    let said = city.clock.timeout(Duration::from_secs(3), client.post(&path, &body)).await?.ok()?;
    let cancelled = said["cancelled"].as_u64().unwrap_or(0) as usize;
    Some(Answered { id: id.to_owned(), what, at: city.clock.now(), cancelled })
}

/// A release of 800 killed in its middle, again and again, while answers are lost, an editor edits and moves what
/// is out and what is to come, and an officer cancels, sends and corrects. `FABU_KILLS` sets how often.
#[test]
fn r01_r52_kill_9_in_the_middle_of_releases_of_800_loses_and_doubles_nothing_and_every_answer_is_true() {
    runtime().block_on(async {
        let kills: usize = std::env::var("FABU_KILLS").ok().and_then(|v| v.parse().ok()).unwrap_or(4);
        let lost =
            json!({ "behaviour": "reset_after", "operation": "post", "probability": 0.05, "seed": 7 }).to_string();
        let city = City::new(&["--fault", &lost]).await;
        let mut daemon = city.start().await;
        let mut answers: Vec<Answered> = Vec::new();
        // Ten releases at most, which are 8,000 deliveries and what people add to them.
        let of_each = kills.div_ceil(10).max(2);
        let releases = kills.div_ceil(of_each);
        let after = |seconds: i64| {
            let at = city.clock.now() + chrono::TimeDelta::milliseconds(seconds);
            at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
        };
        for n in 0..releases {
            let at = after(3500);
            let entry =
                |id: &str, to: &str| format!("  - {{id: {id}, text: 第{n}号【{id}】, at: \"{at}\", to: [{to}]}}\n");
            let (all, some) = (entry(&format!("a{n}"), "\"**\""), entry(&format!("c{n}"), "\"sina:**\""));
            city.save(&format!("{n}.yaml"), &format!("announcements:\n{all}{some}"));
            let mut into = 3200 + city.clock.random() % 500;
            for kill in 0..of_each {
                // An officer who asks a moment before, an editor who changes what is out and moves what is to come.
                let moment = city.clock.random() % 400;
                city.clock.sleep(Duration::from_millis(into - moment.min(into))).await;
                let id = format!("c{n}");
                let done = match kill {
                    0 => ask(&city, &id, "cancel", json!({})).await,
                    2.. => None,
                    _ if n % 3 == 0 => {
                        let id = format!("u{n}");
                        let body =
                            json!({ "id": id, "text": format!("紧急【{id}】"), "level": "blue", "to": ["tencent:**"] });
                        let taken = ask(&city, &id, "urgent", body).await;
                        let corrected = ask(&city, &id, "correct", json!({})).await;
                        answers.extend(taken);
                        corrected
                    }
                    _ => {
                        city.save(&format!("{n}.yaml"), &format!("announcements:\n{}", all.replace("第", "改第")));
                        city.save(&format!("moved-{n}.yaml"), &format!("announcements:\n{some}"));
                        None
                    }
                };
                answers.extend(done);
                city.clock.sleep(Duration::from_millis(moment)).await;
                daemon.0.kill().unwrap();
                daemon.0.wait().unwrap();
                daemon = city.start().await;
                into = 50 + city.clock.random() % 600;
            }
            // What is in doubt is looked for on a timeline that shows few posts: before the next ones are there.
            let open = city.settled().await;
            assert!(open.is_empty(), "not everything ended: {open:?}");
        }
        let posts = city.posts().await;
        let text = |post: &Value, key: &str| post[key].as_str().unwrap().to_owned();
        let is_of = |post: &Value, id: &str| {
            let said = text(post, "text");
            said.contains(&format!("【{id}】")) && !said.starts_with("【更正】")
        };
        let mut count: BTreeMap<(String, String), u32> = BTreeMap::new();
        for post in &posts {
            *count.entry((text(post, "account"), text(post, "text").replace("改第", "第"))).or_default() += 1;
        }
        let twice: Vec<_> = count.iter().filter(|(_, n)| **n > 1).collect();
        assert!(twice.is_empty(), "posted twice: {twice:?}");
        for n in 0..releases {
            let out = posts.iter().filter(|post| is_of(post, &format!("a{n}"))).count();
            assert_eq!(out, UNITS * 4, "a{n} is missing somewhere");
        }
        for answer in &answers {
            let Answered { id, what, at, cancelled } = answer;
            let its: Vec<&Value> = posts.iter().filter(|post| is_of(post, id)).collect();
            if *what == "urgent" {
                let was_corrected = answers.iter().any(|a| a.id == *id && a.what == "correct");
                assert!(was_corrected || its.len() == UNITS, "{id} was taken, and {} have it", its.len());
                continue;
            }
            // A request that had left may arrive within the time a connection takes.
            let until = *at + chrono::TimeDelta::milliseconds(150);
            let late = its.iter().filter(|p| text(p, "created").parse::<fabu::clock::Time>().unwrap() > until).count();
            assert_eq!(late, 0, "{what} {id} was answered at {at}, and {late} came after it");
            assert!(its.len() + cancelled <= UNITS, "{what} {id} said {cancelled}, and {} are out", its.len());
            if *what == "correct" {
                let stands = its.iter().filter(|post| post["deleted"] == false).count();
                assert_eq!(stands, 0, "{id} was corrected, and stands");
            }
        }
        eprintln!("{} posts, {} answers, {} kills", posts.len(), answers.len(), releases * of_each);
        let verified = city.command(&["audit", "verify"]).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    });
}

/// Routine goes, an emergency goes and is corrected, whether its log is read by nobody or its log's disk is full.
#[test]
fn r23_a_log_that_goes_nowhere_stops_nothing() {
    runtime().block_on(async {
        for is_full in [false, true] {
            let city = City::new(&[]).await;
            let (reader, writer) = std::io::pipe().unwrap();
            let log = if is_full { std::fs::File::options().write(true).open("/dev/full").unwrap().into() } else { writer.into() };
            let mut daemon = city.start_telling(log).await;
            drop(reader);
            let client = fabu::api::client::Client::new(&city.path("state/fabu.sock"));
            // Each of these has lines to log; where one of them ended a task, what comes after it would stay.
            for n in 0..3 {
                city.save(&format!("{n}.yaml"), &format!("announcements:\n  - {{id: a{n}, text: 第{n}号, to: [\"sina:**\"]}}\n"));
                let urgent = json!({ "id": format!("u{n}"), "text": format!("第{n}个警报"), "level": "blue", "to": ["xinmin:**"] });
                client.post("/v1/urgent", &urgent).await.unwrap();
                city.clock.sleep(Duration::from_secs(2)).await;
                let open = city.settled().await;
                assert!(open.is_empty(), "{is_full} {n}: {open:?}");
            }
            client.post("/v1/announcements/u2/correct", &json!({})).await.unwrap();
            assert!(city.settled().await.is_empty());
            assert_eq!(city.posts().await.len(), 7 * UNITS, "three of routine, three warnings, a correction");
            signal(&daemon, "TERM");
            assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
        }
    });
}

/// A person at a shell says what became of deliveries: one by its address, some by a file, the rest at once.
#[test]
fn r52_what_a_person_settles_at_the_command_line_is_so() {
    runtime().block_on(async {
        let lost = |behaviour: &str, operation: &str, platform: &str| {
            json!({ "behaviour": behaviour, "operation": operation, "platform": platform }).to_string()
        };
        let mut faults = vec![lost("reset_after", "post", "sina"), lost("reset_after", "post", "tencent")];
        faults.extend(["eastday", "xinmin"].map(|platform| lost("reset_before", "post", platform)));
        faults.extend(["sina", "tencent", "eastday", "xinmin"].map(|p| lost("proxy_page", "timeline", p)));
        let with: Vec<&str> = faults.iter().flat_map(|fault| ["--fault", fault]).collect();
        let city = City::new(&with).await;
        let _daemon = city.start().await;
        city.save("a.yaml", "announcements:\n  - {id: a, text: 早安, to: [\"city/u0\", \"city/u1\"]}\n");
        let client = fabu::api::client::Client::new(&city.path("state/fabu.sock"));
        for _ in 0..400 {
            let status = client.get("/v1/status").await.unwrap();
            if status["needs_person"].as_array().is_some_and(|all| all.len() == 8) {
                break;
            }
            city.clock.sleep(Duration::from_millis(100)).await;
        }
        let posts = city.posts().await;
        assert_eq!(posts.len(), 4, "on two platforms it is out: {posts:?}");
        let address = |account: &str| {
            let post = posts.iter().find(|p| p["account"] == account).unwrap();
            let id = post["id"].as_str().unwrap();
            match account.split_once(':').unwrap().0 {
                "sina" => format!("https://m.weibo.cn/detail/{id}"),
                _ => format!("https://t.qq.com/p/t/{id}?pgv_ref=w#r"),
            }
        };
        let resolve = |arguments: &[&str]| {
            let output = city.command(arguments).stdin(Stdio::null()).output().unwrap();
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            (output.status.code(), said)
        };
        let one = resolve(&["resolve", "sina:city/u0", "a", "--published", &address("sina:city/u0")]);
        assert_eq!(one.0, Some(0), "{}", one.1);
        let again = resolve(&["resolve", "sina:city/u0", "a", "--not-published"]);
        assert_eq!(again.0, Some(1), "it is known: {}", again.1);
        let anothers = resolve(&["resolve", "tencent:city/u0", "a", "--published", "https://t.qq.com/p/t/1"]);
        assert_eq!(anothers.0, Some(1), "no such post: {}", anothers.1);
        let lines = ["sina:city/u1", "tencent:city/u0", "tencent:city/u1"];
        let lines: String = lines.iter().map(|account| format!("{account} a {}\n", address(account))).collect();
        std::fs::write(city.path("settled"), lines).unwrap();
        let file = city.path("settled").display().to_string();
        let many = resolve(&["resolve", "--from", &file, "--yes"]);
        assert_eq!(many.0, Some(0), "{}", many.1);
        let unasked = resolve(&["resolve", "--all", "a", "--not-published"]);
        assert_eq!(unasked.0, Some(1), "nobody was asked: {}", unasked.1);
        let faults = format!("http://{}/_sandbox/faults", city.control);
        let cleared = city.http.delete(faults).header("content-type", "application/json").send().await.unwrap();
        assert!(cleared.status().is_success());
        let rest = resolve(&["resolve", "--all", "a", "--not-published", "--yes"]);
        assert_eq!(rest.0, Some(0), "{}", rest.1);
        let open = city.settled().await;
        assert!(open.is_empty(), "{open:?}");
        let posts = city.posts().await;
        let accounts: std::collections::BTreeSet<&str> = posts.iter().filter_map(|p| p["account"].as_str()).collect();
        assert_eq!((posts.len(), accounts.len()), (8, 8), "each once: {posts:?}");
    });
}

#[test]
fn r27_a_daemon_that_may_open_too_little_says_so_and_does_not_start() {
    runtime().block_on(async {
        let city = City::new(&[]).await;
        let run = city.command(&["run"]);
        let limited = |files: u32| {
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("ulimit -n {files}; exec \"$@\"")).arg("sh");
            command.arg(run.get_program()).args(run.get_args());
            secrets(&mut command).stderr(Stdio::piped());
            command
        };
        let output = limited(64).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("64 files and connections"), "{said}");
    });
}

#[test]
fn r20_a_second_daemon_ends_within_a_second_and_touches_nothing() {
    runtime().block_on(async {
        let city = City::new(&[]).await;
        let _daemon = city.start().await;
        let begun = city.clock.mono().0;
        let second = city.command(&["run"]).output().unwrap();
        assert_eq!(second.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&second.stderr).contains("another daemon uses the ledger"));
        assert!(city.clock.mono().0 - begun < Duration::from_secs(5), "a second, and room for a busy machine");
        assert!(health(&city.path("state/fabu.sock")).await, "the first one answers as before");
        // With a ledger of its own it would publish the same queue a second time.
        let config = std::fs::read_to_string(city.path("fabu.yaml")).unwrap();
        let other = format!("ledger: sqlite:other/fabu.db\nsocket: other/fabu.sock\n{config}");
        std::fs::write(city.path("other.yaml"), other).unwrap();
        let mut command = Command::new(BINARY);
        let other = secrets(&mut command).arg("--config").arg(city.path("other.yaml")).arg("run").output().unwrap();
        assert_eq!(other.status.code(), Some(1));
        let said = String::from_utf8_lossy(&other.stderr).into_owned();
        assert!(said.contains("with another ledger"), "{said}");
    });
}

#[test]
fn r30_sigterm_ends_cleanly_and_a_bad_reload_leaves_the_old_configuration() {
    runtime().block_on(async {
        let city = City::new(&[]).await;
        let mut daemon = city.start().await;
        let good = std::fs::read_to_string(city.path("fabu.yaml")).unwrap();
        std::fs::write(city.path("fabu.yaml"), good.clone() + "timezone: Mars/Phobos\n").unwrap();
        signal(&daemon, "HUP");
        let client = fabu::api::client::Client::new(&city.path("state/fabu.sock"));
        let mut degraded = Value::Null;
        for _ in 0..200 {
            degraded = client.get("/v1/health").await.unwrap()["degraded"].clone();
            if degraded != json!([]) {
                break;
            }
            city.clock.sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(degraded, json!(["configuration"]));
        signal(&daemon, "TERM");
        assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
        assert!(!city.path("state/fabu.sock").exists());
        std::fs::write(city.path("fabu.yaml"), good).unwrap();
    });
}

fn signal(daemon: &Running, name: &str) {
    let pid = daemon.0.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

/// A machine that was suspended, or a process that was: what was prepared, armed or queued meanwhile is too late.
#[test]
fn r11_stopped_in_the_middle_of_a_release_and_continued_after_its_expiry_sends_nothing_more() {
    runtime().block_on(async {
        let city = City::new(&[]).await;
        // So few at once that the release lasts a second, and its middle can be met.
        let config = std::fs::read_to_string(city.path("fabu.yaml")).unwrap();
        let config = config.replace("connections: 100", "connections: 4").replace("lead: 2s", "grace: 3s, lead: 2s");
        std::fs::write(city.path("fabu.yaml"), config).unwrap();
        let daemon = city.start().await;
        let at = city.clock.now() + chrono::TimeDelta::milliseconds(3500);
        let expires = at + chrono::TimeDelta::seconds(3);
        let when = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        city.save(
            "a.yaml",
            &format!("announcements:\n  - {{id: a, text: 早安, at: \"{when}\", to: [\"**\"], expires_after: 1s}}\n"),
        );
        city.clock.sleep_until(at).await;
        while city.posts().await.is_empty() {
            city.clock.sleep(Duration::from_millis(2)).await;
        }
        signal(&daemon, "STOP");
        city.clock.sleep_until(expires + chrono::TimeDelta::milliseconds(100)).await;
        let before = city.posts().await.len();
        assert!(before < UNITS * 4, "stopped in the middle");
        signal(&daemon, "CONT");
        let open = city.settled().await;
        assert!(open.is_empty(), "not everything ended: {open:?}");
        // What was in the hands of a connection when the process was stopped may be written when it goes on: no
        // program can look at the clock and write in one instant. All others, which waited for one, are not sent.
        let created = |p: &Value| p["created"].as_str().unwrap().parse::<fabu::clock::Time>().unwrap();
        let posts = city.posts().await;
        let late = posts.iter().filter(|p| created(p) > expires).count();
        assert!(late <= 4 * 4, "{late} of {} published after their expiry, {before} before", posts.len());
    });
}

#[test]
fn r17_a_ledger_that_is_no_ledger_is_left_alone_and_nothing_is_published() {
    runtime().block_on(async {
        let city = City::new(&[]).await;
        std::fs::create_dir(city.path("state")).unwrap();
        for bytes in [&b""[..], &[7u8; 4096][..]] {
            std::fs::write(city.path("state/fabu.db"), bytes).unwrap();
            let ended = city.command(&["run"]).output().unwrap();
            assert_eq!(ended.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&ended.stderr).contains("not to be trusted"));
            assert_eq!(std::fs::read(city.path("state/fabu.db")).unwrap(), bytes, "not a byte changed");
        }
        assert!(city.posts().await.is_empty());
    });
}

/// Every form a canary could leak in: as it stands, percent-encoded, hex, and base64 at its three offsets.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes);
    let mut forms = vec![
        secret.as_bytes().to_vec(),
        form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>().into_bytes(),
        hex::encode(secret).into_bytes(),
    ];
    for offset in 0..3 {
        let padded = [&b"xxx"[..offset], secret.as_bytes()].concat();
        let text = encode(&padded);
        // The ends depend on what stands beside it; the middle does not.
        forms.push(text.as_bytes()[4..text.len() - 4].to_vec());
    }
    forms
}

#[test]
fn r34_secrets_appear_nowhere_even_when_a_platform_echoes_them() {
    runtime().block_on(async {
        let echo = json!({ "behaviour": "echo_token", "probability": 0.3, "seed": 3 }).to_string();
        let refuse = json!({ "behaviour": "error", "platform": "tencent", "operation": "post", "probability": 0.2, "seed": 4, "params": { "code": 3, "errcode": 5 } }).to_string();
        let city = City::new(&["--fault", &echo, "--fault", &refuse]).await;
        let log = std::fs::File::create(city.path("trace")).unwrap();
        let child = city.command(&["run"]).env("FABU_LOG", "trace").stderr(log).spawn().unwrap();
        let daemon = Running(child);
        for _ in 0..500 {
            if health(&city.path("state/fabu.sock")).await {
                break;
            }
            city.clock.sleep(Duration::from_millis(20)).await;
        }
        city.save("a.yaml", "announcements:\n  - {id: a, text: 早安上海, to: [\"**\"], catch_up: 10m}\n");
        city.clock.sleep(Duration::from_secs(5)).await;
        let mut said: Vec<(String, Vec<u8>)> = Vec::new();
        for arguments in [&["status"][..], &["--json", "status"], &["--json", "status", "a"], &["audit"], &["accounts"], &["plan"], &["--json", "accounts"]] {
            let output = city.command(arguments).output().unwrap();
            said.push((format!("{arguments:?}"), [output.stdout, output.stderr].concat()));
        }
        let http = reqwest::Client::builder().unix_socket(city.path("state/fabu.sock")).build().unwrap();
        let metrics = http.get("http://fabu/metrics").send().await.unwrap().bytes().await.unwrap();
        assert!(metrics.starts_with(b"# HELP"));
        said.push(("metrics".to_owned(), metrics.to_vec()));
        drop(daemon);
        for name in ["trace", "state/fabu.db", "state/fabu.db-wal"] {
            said.push((name.to_owned(), std::fs::read(city.path(name)).unwrap_or_default()));
        }
        assert!(said.iter().any(|(name, bytes)| name == "trace" && bytes.len() > 10_000), "there is a log to search");
        for n in [42, 123, 199] {
            for platform in ["sina", "tencent", "eastday", "xinmin"] {
                for form in forms(&format!("secret-{platform}-{n}")) {
                    for (name, bytes) in &said {
                        let found = bytes.windows(form.len()).any(|w| w == form);
                        assert!(!found, "{platform} {n} is in {name} as {}", String::from_utf8_lossy(&form));
                    }
                }
            }
        }
    });
}
