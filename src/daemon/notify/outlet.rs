//! One address or program that is told: its queue, its turns, its failures.
//!
//! A program has no shell, no secret and no inheritance but `PATH`, `LANG` and `TZ` (R34); an address
//! is reached by the daemon's own network, so a drill and a simulation reach nothing of the world.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Notice;
use crate::clock::Time;
use crate::core::policy::To;
use crate::core::words::{Words, shown, words};
use crate::daemon::{Inner, lock};
use crate::platform::{Lane, Lost};

/// Notices that wait for their turn; the oldest gives way.
const MOST_WAITING: usize = 256;
const AT_ONCE: usize = 4;
/// A program is killed, and an address given up, after this long.
const LONGEST: Duration = Duration::from_secs(10);
/// An address is asked so often in all.
const TRIES: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// No platform has this name, so no platform's room is taken.
const NETWORK: &str = "notify:";
const INHERITED: [&str; 3] = ["PATH", "LANG", "TZ"];

/// How it went so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub failed: u64,
    /// Notices that gave way to newer ones.
    pub dropped: u64,
    /// Of the last failure; none when a notice was given since.
    pub last_error: Option<Words>,
    pub last_at: Option<Time>,
}

pub struct Outlet {
    to: To,
    waiting: Mutex<VecDeque<Notice>>,
    /// Notices that are being given.
    under_way: AtomicUsize,
    fed: Notify,
    record: Mutex<Record>,
}

impl Outlet {
    pub fn new(to: To) -> Outlet {
        Outlet {
            to,
            waiting: Mutex::default(),
            under_way: AtomicUsize::new(0),
            fed: Notify::new(),
            record: Mutex::default(),
        }
    }

    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    pub fn feed(&self, notice: Notice, now: Time) {
        let mut waiting = lock(&self.waiting);
        let is_full = waiting.len() >= MOST_WAITING;
        let first_of_others = waiting.iter().position(|other| !other.is_of_duty);
        if is_full {
            waiting.remove(first_of_others.unwrap_or(0));
        }
        // What a person on duty asked for is told before what files ask for, however much that is.
        let place = if notice.is_of_duty { first_of_others.unwrap_or(waiting.len()) } else { waiting.len() };
        let place = place.min(waiting.len());
        waiting.insert(place, notice);
        drop(waiting);
        if is_full {
            let mut record = lock(&self.record);
            record.dropped += 1;
            record.last_error = Some(Words::new("太多，最旧的已丢弃", "too many of them: the oldest was dropped"));
            record.last_at = Some(now);
            tracing::warn!(to = self.to.name(), "the oldest notice that waits was dropped");
        }
        self.fed.notify_one();
    }

    fn next(&self) -> Option<Notice> {
        let mut waiting = lock(&self.waiting);
        let next = waiting.pop_front()?;
        self.under_way.fetch_add(1, Ordering::SeqCst);
        Some(next)
    }

    /// Everything was given, or could not be.
    pub fn is_idle(&self) -> bool {
        let waiting = lock(&self.waiting);
        waiting.is_empty() && self.under_way.load(Ordering::SeqCst) == 0
    }

    fn went(&self, notice: &Notice, result: Result<(), Words>, now: Time) {
        let mut record = lock(&self.record);
        let Err(why) = result else {
            record.last_error = None;
            return;
        };
        let (kind, announcement) = (notice.kind.as_str(), &notice.announcement);
        tracing::warn!(to = self.to.name(), kind, announcement, error = why.en, "a notice could not be given");
        record.failed += 1;
        record.last_error = Some(why);
        record.last_at = Some(now);
    }
}

/// Gives what waits, a few at once, until nothing more will come.
pub async fn serve(inner: Arc<Inner>, outlet: Arc<Outlet>, ending: CancellationToken) {
    let mut giving = JoinSet::new();
    loop {
        while giving.len() < AT_ONCE
            && let Some(notice) = outlet.next()
        {
            giving.spawn(give(inner.clone(), outlet.clone(), notice));
        }
        if giving.is_empty() && ending.is_cancelled() {
            return;
        }
        tokio::select! {
            biased;
            Some(_) = giving.join_next(), if !giving.is_empty() => {}
            () = outlet.fed.notified() => {}
            () = ending.cancelled(), if !ending.is_cancelled() => {}
        }
    }
}

async fn give(inner: Arc<Inner>, outlet: Arc<Outlet>, notice: Notice) {
    let body = serde_json::to_vec(&notice).expect("a notice has only text keys");
    let result = match &outlet.to {
        To::Run(run) => run_with(&inner, run, notice.kind.as_str(), body).await,
        To::Url(url) => posted(&inner, url, body.into()).await,
    };
    outlet.went(&notice, result, inner.clock.now());
    outlet.under_way.fetch_sub(1, Ordering::SeqCst);
}

async fn run_with(inner: &Inner, run: &[String], kind: &str, body: Vec<u8>) -> Result<(), Words> {
    let mut command = command(inner, run, kind);
    // Looking for a program on a slow disk would hold up a thread that sends.
    let started = tokio::task::spawn_blocking(move || command.spawn()).await;
    let child = started.map_err(std::io::Error::other).and_then(|child| child).map_err(|error| not_started(&error))?;
    // Dropped, be it by a crash of the daemon's own making, it takes the program with it.
    let mut group = Group(i32::try_from(child.id()).ok().and_then(Pid::from_raw));
    let ended = tokio::task::spawn_blocking(move || fed(child, &body));
    let Some(ended) = inner.clock.timeout(LONGEST, ended).await else {
        return Err(Words::new("10 秒未结束，已杀掉", "it had not ended after 10 s and was killed"));
    };
    group.0 = None;
    let status = ended.map_err(std::io::Error::other).and_then(|status| status).map_err(|error| not_started(&error))?;
    how_it_ended(status)
}

fn command(inner: &Inner, run: &[String], kind: &str) -> Command {
    let (program, arguments) = run.split_first().expect("the configuration has no empty `run`");
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("FABU_EVENT", kind);
    command.envs(INHERITED.iter().filter_map(|name| Some((name, (inner.env)(name)?))));
    // What it prints came from outside, and would stand in the log unescaped (R43).
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command
}

/// Writes the notice, smaller than a pipe holds, and waits for the end.
fn fed(mut child: Child, body: &[u8]) -> std::io::Result<ExitStatus> {
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(body) {
            // It need not read what it is told.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait()
}

fn not_started(error: &std::io::Error) -> Words {
    words!("无法运行：{error}", "it cannot be run: {error}")
}

fn how_it_ended(status: ExitStatus) -> Result<(), Words> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(words!("以 {code} 退出", "it exited with {code}")),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            Err(words!("被信号 {signal} 终止", "signal {signal} ended it"))
        }
    }
}

/// A running program with all it started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        // It may have ended in this very moment, which is as good.
        if let Some(pid) = self.0 {
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

async fn posted(inner: &Inner, url: &str, body: Bytes) -> Result<(), Words> {
    let mut tried = 1;
    loop {
        let Err(why) = post(inner, url, body.clone()).await else { return Ok(()) };
        if tried == TRIES {
            return Err(why);
        }
        let wait = FIRST_WAIT * 2u32.pow(tried - 1);
        inner.clock.sleep(wait.mul_f64(0.5 + inner.clock.chance())).await;
        tried += 1;
    }
}

async fn post(inner: &Inner, url: &str, body: Bytes) -> Result<(), Words> {
    let request = http::Request::post(url).header(http::header::CONTENT_TYPE, "application/json").body(body);
    let request = request.map_err(|error| words!("地址不能用：{error}", "the address cannot be used: {error}"))?;
    match inner.http.send(NETWORK, Lane::Routine, request, LONGEST).await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        // A redirect is no yes either, and is not followed (R37).
        Ok(answer) => {
            let status = answer.status().as_u16();
            Err(words!("对方答 {status}", "it answered {status}"))
        }
        Err(Lost::BeforeSend(why) | Lost::AfterSend(why)) => {
            let why = shown(&why);
            Err(words!("未送达：{why}", "it was not reached: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_micros;
    use crate::core::policy::Kind;

    fn notice(count: usize, is_of_duty: bool) -> Notice {
        Notice {
            kind: Kind::Failed,
            at: from_micros(0),
            announcement: "a".to_owned(),
            text: None,
            level: None,
            count,
            accounts: Vec::new(),
            reason: Words::same(""),
            drill: false,
            is_of_duty,
        }
    }

    #[test]
    fn what_waits_is_bounded_and_what_gave_way_is_counted() {
        let outlet = Outlet::new(To::Url("https://a.cn/secret".to_owned()));
        for count in 0..300 {
            outlet.feed(notice(count, false), from_micros(1));
        }
        let record = outlet.record();
        assert_eq!((record.dropped, record.failed, record.last_at), (44, 0, Some(from_micros(1))));
        assert_eq!(outlet.next().unwrap().count, 44, "the oldest gave way");
        assert_eq!(lock(&outlet.waiting).len(), MOST_WAITING - 1);
    }

    #[test]
    fn what_a_person_asked_for_is_told_before_what_files_ask_for() {
        let outlet = Outlet::new(To::Url("https://a.cn/secret".to_owned()));
        for count in 0..300 {
            outlet.feed(notice(count, count % 100 == 50), from_micros(1));
        }
        let first: Vec<usize> = (0..4).map(|_| outlet.next().unwrap().count).collect();
        assert_eq!(first[..3], [50, 150, 250], "none of them gave way");
    }
}
