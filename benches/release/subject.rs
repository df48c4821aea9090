//! The daemon under measurement: the real binary, 800 accounts on four platforms at the receiver.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use fabu::api::client::Client;
use fabu::clock::{Clock, Time};
use serde_json::Value;

use super::Figures;
use super::client::figures;
use super::receiver::Receiver;

pub struct Subject {
    child: Child,
    folder: PathBuf,
    clock: Clock,
    client: Client,
}

const PLATFORMS: [&str; 4] = ["sina", "tencent", "eastday", "xinmin"];

impl Subject {
    pub async fn start(receiver: &Receiver, with: &[&str]) -> Subject {
        let clock = Clock::real();
        let folder = std::env::temp_dir().join(format!("fabu-bench-{}-{}", std::process::id(), clock.random()));
        std::fs::create_dir_all(folder.join("queue")).expect("a folder");
        let mut config =
            "queue: queue\naccounts: accounts.yaml\npublish: {settle_file: off, lead: 3s}\nplatforms:\n".to_owned();
        let warm = if with.contains(&"warm") { ", warm: {connections: 200}" } else { "" };
        for (name, port) in PLATFORMS.iter().zip(&receiver.ports) {
            config += &format!(
                "  {name}: {{api: statuses, base_url: \"http://127.0.0.1:{port}\", limits: {{account_per_hour: off, account_per_day: off, host_per_hour: off, connections: 200}}{warm}}}\n"
            );
        }
        let mut accounts = "units:\n- id: city\n  units:\n".to_owned();
        for n in 0..200 {
            accounts += &format!("  - id: u{n}\n    accounts:\n");
            for platform in PLATFORMS {
                accounts += &format!("      {platform}: {{token: \"env:K_{platform}_{n}\"}}\n");
            }
        }
        let save = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
        save("fabu.yaml", &config);
        save("accounts.yaml", &accounts);
        if with.contains(&"pending") {
            save("queue/pending.yaml", &pending(&clock));
        }
        let child = run(&folder);
        let client = Client::new(&folder.join("state/fabu.sock"));
        let subject = Subject { child, folder, clock, client };
        subject.ready().await;
        subject
    }

    async fn ready(&self) {
        for _ in 0..3000 {
            if self.client.get("/v1/health").await.is_ok() {
                return;
            }
            self.clock.sleep(Duration::from_millis(10)).await;
        }
        panic!("the daemon does not answer");
    }

    fn save(&self, name: &str, text: &str) {
        let beside = self.folder.join("queue/.new");
        std::fs::write(&beside, text).expect("written");
        std::fs::rename(beside, self.folder.join("queue").join(name)).expect("in place");
    }

    async fn count(&self, state: &str) -> u64 {
        let status = self.client.get("/v1/status").await.unwrap_or(Value::Null);
        status["deliveries"][state].as_u64().unwrap_or(0)
    }

    pub async fn planned(&self, deliveries: u64) {
        while self.count("scheduled").await < deliveries {
            self.clock.sleep(Duration::from_millis(200)).await;
        }
    }

    /// When the ledger wrote the last receipt of these announcements.
    async fn last_receipt(&self, published: u64) -> Time {
        while self.count("published").await < published {
            // Seldom: what is asked is work of the daemon that is measured.
            self.clock.sleep(Duration::from_millis(500)).await;
        }
        let mut last = self.clock.now() - TimeDelta::days(1);
        let mut after = 0;
        loop {
            let page = self.client.get(&format!("/v1/audit?limit=1000&cursor={after}")).await.expect("the trail");
            let items = page["items"].as_array().cloned().unwrap_or_default();
            let Some(end) = items.last() else { return last };
            after = end["seq"].as_i64().unwrap_or(i64::MAX);
            for item in items.iter().filter(|i| i["body"].as_str().is_some_and(|b| b.contains("\"to\":\"published\"")))
            {
                let at: Time = item["at"].as_str().and_then(|t| t.parse().ok()).expect("a time");
                last = last.max(at);
            }
        }
    }

    /// One announcement to all 800, five seconds from now.
    pub async fn release(&self, receiver: &Receiver, id: &str) -> Figures {
        let before = self.count("published").await;
        receiver.take().await;
        let at = whole_second(self.clock.now() + TimeDelta::seconds(8));
        let when = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        self.save(
            &format!("{id}.yaml"),
            &format!("announcements:\n  - {{id: {id}, text: 第{id}号, at: \"{when}\", to: [\"**\"]}}\n"),
        );
        let durable = self.last_receipt(before + 800).await;
        let arrivals = receiver.take().await;
        assert_eq!(arrivals.len(), 800, "none missing, none double");
        let figures = figures(at, &arrivals, durable);
        assert!(figures.first >= 0.0, "never early");
        figures
    }

    /// `announcements` × 800 due at one instant: deliveries a second to the last receipt.
    pub async fn backlog(&self, receiver: &Receiver, id: &str, announcements: usize) -> f64 {
        receiver.take().await;
        let at = whole_second(self.clock.now() + TimeDelta::seconds(10));
        let when = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut text = "announcements:\n".to_owned();
        for n in 0..announcements {
            text += &format!("  - {{id: {id}-{n}, text: 第{id}-{n}号, at: \"{when}\", to: [\"**\"]}}\n");
        }
        self.save(&format!("{id}.yaml"), &text);
        let all = announcements as u64 * 800;
        let durable = self.last_receipt(all).await;
        assert_eq!(receiver.take().await.len() as u64, all, "none missing, none double");
        all as f64 / ((durable - at).num_microseconds().unwrap_or(1) as f64 / 1e6)
    }

    /// Returns while `announcements` × 800 of routine are going out; with none, when the daemon is at rest.
    pub async fn in_the_thick(&self, id: &str, announcements: usize) {
        if announcements == 0 {
            return self.clock.sleep(Duration::from_secs(2)).await;
        }
        let at = whole_second(self.clock.now() + TimeDelta::seconds(8));
        let when = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut text = "announcements:\n".to_owned();
        for n in 0..announcements {
            text += &format!("  - {{id: {id}-{n}, text: 第{id}-{n}号, at: \"{when}\", to: [\"**\"]}}\n");
        }
        self.save(&format!("{id}.yaml"), &text);
        self.clock.sleep_until(at + TimeDelta::milliseconds(500)).await;
    }

    /// An urgent post to all 800: from the call to its acknowledgement, its first request and its last, in
    /// milliseconds; the last is that of the three platforms that answer.
    pub async fn urgent(&self, receiver: &Receiver, id: &str) -> [f64; 3] {
        receiver.take().await;
        let words = format!("紧急{id}");
        let body = serde_json::json!({ "text": words, "level": "blue", "to": ["**"] });
        let called = self.clock.now();
        self.client.post("/v1/urgent", &body).await.expect("acknowledged");
        let acknowledged = self.clock.now();
        let mut arrivals: Vec<(i64, usize)> = Vec::new();
        let mut others = 0;
        while others < 600 {
            self.clock.sleep(Duration::from_millis(100)).await;
            let came = receiver.take().await.into_iter().filter(|a| a.text == words);
            arrivals.extend(came.map(|a| (a.at_us, a.port)));
            others = arrivals.iter().filter(|(_, port)| *port > 0).count();
        }
        assert_eq!(others, 600, "none double");
        let ms = |us: i64| (us - called.timestamp_micros()) as f64 / 1000.0;
        let first = arrivals.iter().map(|(at, _)| *at).min().expect("800");
        let last = arrivals.iter().filter(|(_, port)| *port > 0).map(|(at, _)| *at).max().expect("600");
        [ms(acknowledged.timestamp_micros()), ms(first), ms(last)]
    }

    /// One command that posts to one account, as a process: milliseconds from its start to the request.
    pub async fn command(&self, receiver: &Receiver, text: &str, curl: bool) -> f64 {
        receiver.take().await;
        let to = "sina:city/u0";
        let mut command = if curl {
            let body = serde_json::json!({ "text": text, "level": "blue", "to": [to] }).to_string();
            let mut command = Command::new("curl");
            command.arg("--silent").arg("--unix-socket").arg(self.folder.join("state/fabu.sock"));
            command.args(["--header", "content-type: application/json", "--data", &body, "http://fabu/v1/urgent"]);
            command
        } else {
            let mut command = Command::new(env!("CARGO_BIN_EXE_fabu"));
            command.arg("--config").arg(self.folder.join("fabu.yaml"));
            command.args(["urgent", "--level", "blue", "--to", to, "--yes", text]);
            command
        };
        let begun = self.clock.now();
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it is installed");
        assert!(done.success(), "it posts");
        loop {
            if let Some(first) = receiver.take().await.into_iter().find(|a| a.text == text) {
                return (first.at_us - begun.timestamp_micros()) as f64 / 1000.0;
            }
            self.clock.sleep(Duration::from_millis(5)).await;
        }
    }

    /// A repeat of every second to one account: lateness at the receiver.
    pub async fn each_second(&self, receiver: &Receiver, seconds: i64) -> Vec<f64> {
        receiver.take().await;
        let from = whole_second(self.clock.now() + TimeDelta::seconds(6));
        let form = |t: Time| t.to_rfc3339_opts(SecondsFormat::Secs, true);
        self.save(
            "seconds.yaml",
            &format!(
                "announcements:\n  - {{id: tick, text: 每秒, repeat: \"* * * * * *\", from: \"{}\", until: \"{}\", to: [\"sina:city/u0\"]}}\n",
                form(from),
                form(from + TimeDelta::seconds(seconds - 1))
            ),
        );
        let until = from + TimeDelta::seconds(seconds + 3);
        self.clock.sleep_until(until).await;
        let arrivals = receiver.take().await;
        assert_eq!(arrivals.len() as i64, seconds, "none missing, none double");
        // By arrival order: the n-th belongs to the n-th second.
        let mut sorted: Vec<i64> = arrivals.iter().map(|a| a.at_us).collect();
        sorted.sort_unstable();
        sorted
            .iter()
            .enumerate()
            .map(|(n, at)| (at - from.timestamp_micros() - n as i64 * 1_000_000) as f64 / 1000.0)
            .collect()
    }

    /// Resident memory in MiB, and milliseconds of CPU a second, while nothing is due.
    pub async fn at_rest(&self, span: Duration) -> (f64, f64) {
        self.clock.sleep(Duration::from_secs(5)).await;
        let pid = self.child.id();
        let before = cpu_ms(pid);
        self.clock.sleep(span).await;
        let used = (cpu_ms(pid) - before) / span.as_secs_f64();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
        let kib: f64 = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .and_then(|v| v.split_whitespace().next()?.parse().ok())
            .expect("its memory");
        (kib / 1024.0, used)
    }

    /// Kills the daemon, lets one delivery come due, starts it: milliseconds to that one's arrival.
    pub async fn restart_with_one_due(&mut self, receiver: &Receiver, n: usize) -> f64 {
        let at = whole_second(self.clock.now() + TimeDelta::seconds(4));
        let when = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        self.save(
            &format!("due-{n}.yaml"),
            &format!("announcements:\n  - {{id: due-{n}, text: 到期{n}, at: \"{when}\", to: [\"sina:city/u{n}\"]}}\n"),
        );
        self.clock.sleep(Duration::from_millis(2500)).await;
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        receiver.take().await;
        self.clock.sleep_until(at + TimeDelta::milliseconds(500)).await;
        let begun = self.clock.now();
        self.child = run(&self.folder);
        loop {
            let arrivals = receiver.take().await;
            if let Some(first) = arrivals.first() {
                self.ready().await;
                return (first.at_us - begun.timestamp_micros()) as f64 / 1000.0;
            }
            self.clock.sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(|_| ()).unwrap_or_default();
        std::fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

fn run(folder: &std::path::Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fabu"));
    for n in 0..200 {
        for platform in PLATFORMS {
            command.env(format!("K_{platform}_{n}"), format!("secret-{platform}-{n}"));
        }
    }
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    command.arg("--config").arg(folder.join("fabu.yaml")).arg("run").env("FABU_LOG", "warn");
    command.stdout(Stdio::null()).stderr(log).spawn().expect("the daemon starts")
}

fn whole_second(at: Time) -> Time {
    fabu::clock::from_micros(at.timestamp() * 1_000_000)
}

/// How many deliveries W6 and W7 have waiting: `FABU_PENDING`, in whole announcements to all 800.
pub fn waiting() -> u64 {
    let asked = std::env::var("FABU_PENDING").ok().and_then(|v| v.parse().ok()).unwrap_or(100_000u64);
    asked.div_ceil(800) * 800
}

/// As many announcements to 800 accounts as that takes, all tomorrow.
fn pending(clock: &Clock) -> String {
    let mut text = "announcements:\n".to_owned();
    for n in 0..waiting() as i64 / 800 {
        let at = whole_second(clock.now() + TimeDelta::hours(20) + TimeDelta::minutes(n));
        let when = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        text += &format!("  - {{id: p{n}, text: 明日第{n}号, at: \"{when}\", to: [\"**\"]}}\n");
    }
    text
}

/// User and system time of a process, in milliseconds (the kernel counts in hundredths of a second).
fn cpu_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process of ours");
    let after = stat.rsplit(')').next().unwrap_or("");
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10.0
}
