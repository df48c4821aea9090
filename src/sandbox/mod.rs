//! The platforms, imitated on loopback: for the demo, drills, training and tests.
//!
//! An imitation is as strict as the platform's own pages and shares no code with the clients, for a mistake made on both
//! sides would pass every test. Whether something was posted is judged by `posts` and `requests` here, never by what a
//! client believes. A request is served by a task of its own: a client that goes away does not undo it.

mod call;
mod control;
mod count;
mod dice;
mod faults;
mod flow;
mod latency;
mod mastodon;
mod mastodon_kin;
mod mastodon_media;
mod rewrite;
mod script;
mod settings;
mod spoil;
mod state;
mod statuses;
mod statuses_auth;
mod tencent_weibo;
mod wechat;
mod wechat_posts;
mod weibo;
mod weibo_words;
mod wire;

#[cfg(test)]
mod rows;
#[cfg(test)]
mod rows_late;
#[cfg(test)]
mod rows_strict;
#[cfg(test)]
mod rows_wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use http::{Request, Response};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

pub use faults::{Behaviour, FaultRule, Params};
pub use latency::Latency;
pub use wire::Served;

use crate::clock::{Clock, Time};
use call::Call;
use dice::Dice;
use faults::{Meets, Phase, Rule};
use flow::{Arrival, Broken, Sent};
use script::{Instead, stand};
use state::{Posts, Site};

/// Requests remembered; the oldest are forgotten.
const REQUESTS: usize = 200_000;
/// A connection on which nothing will ever come is given up after this.
const SILENCE: Duration = Duration::from_secs(3600);

/// What the sandbox is to imitate.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub platforms: Vec<PlatformSetup>,
    pub accounts: Vec<AccountSetup>,
    pub seed: u64,
    pub latency: Latency,
    /// Without, no account, host or quota is ever over its limit.
    pub limits: bool,
    pub allow_private_ip: bool,
    /// Takes tokens that nobody registered.
    pub any_token: bool,
}

#[derive(Clone, Debug, Default)]
pub struct PlatformSetup {
    pub name: String,
    /// `weibo`, `tencent-weibo`, `wechat`, `statuses` or `mastodon`.
    pub api: String,
    /// The platform's further fields, by the names of the configuration.
    pub settings: Value,
}

#[derive(Clone, Default)]
pub struct AccountSetup {
    pub platform: String,
    pub unit: String,
    pub name: String,
    pub handle: String,
    pub uid: Option<String>,
    /// One line, or a JSON object where the platform needs several.
    pub secret: String,
}

impl std::fmt::Debug for AccountSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountSetup({}:{})", self.platform, self.unit)
    }
}

/// A post that exists or existed.
#[derive(Clone, Debug, Serialize)]
pub struct Post {
    pub n: u64,
    pub platform: String,
    /// `platform:unit`.
    pub account: String,
    pub id: String,
    /// As it was sent; of an article, title and content.
    pub text: String,
    pub shown: String,
    pub created: Time,
    pub deleted: bool,
    /// Not shown to the public: not yet, or never.
    pub hidden: bool,
    pub pictures: usize,
}

/// A request that came in.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    pub n: u64,
    /// When its first and its last byte arrived, in nanoseconds since 1970.
    pub first_ns: i64,
    pub last_ns: i64,
    pub platform: String,
    pub account: Option<String>,
    /// `post`, `upload`, `delete`, `show`, `timeline`, `check`, `limits`, `token`, `draft`, `poll`, `list`, `warm`, …
    pub op: &'static str,
    pub path: String,
    /// The platform's own code that was answered, or what was done instead.
    pub outcome: String,
    pub fault: Option<u8>,
}

/// A connection that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// No connection came about: nothing was sent.
    BeforeSend,
    /// It was lost later: the request may have been carried out.
    AfterSend,
}

/// The imitated platforms; clones share them.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    world: Mutex<World>,
    clock: Clock,
    /// Wall time in nanoseconds at the clock's monotonic origin.
    epoch_ns: i64,
    tasks: Mutex<JoinSet<()>>,
    /// Rung when the rules change: a listener may have to go or to come back.
    changed: Notify,
}

struct World {
    sites: BTreeMap<String, Site>,
    posts: Posts,
    seen: VecDeque<Seen>,
    seen_last: u64,
    rules: Vec<Rule>,
    latency: Latency,
    dice: Dice,
    seed: u64,
    allow_private_ip: bool,
    any_token: bool,
}

impl Sandbox {
    pub fn new(setup: Setup, clock: Clock) -> Sandbox {
        let mut sites = BTreeMap::new();
        for (at, platform) in setup.platforms.iter().enumerate() {
            let seed = setup.seed.wrapping_mul(31).wrapping_add(at as u64);
            sites.insert(platform.name.clone(), Site::new(platform, setup.limits, seed));
        }
        for account in &setup.accounts {
            if let Some(site) = sites.get_mut(&account.platform) {
                site.enrol(account);
            }
        }
        let world = World {
            sites,
            posts: Posts::default(),
            seen: VecDeque::new(),
            seen_last: 0,
            rules: Vec::new(),
            latency: setup.latency,
            dice: Dice(setup.seed),
            seed: setup.seed,
            allow_private_ip: setup.allow_private_ip,
            any_token: setup.any_token,
        };
        let epoch_ns = clock.now().timestamp_micros() * 1000 - clock.mono().0.as_nanos() as i64;
        Sandbox(Arc::new(Inner {
            world: Mutex::new(world),
            clock,
            epoch_ns,
            tasks: Mutex::new(JoinSet::new()),
            changed: Notify::new(),
        }))
    }

    /// Sends one request in process; nothing of it is undone when the caller goes away.
    pub async fn exchange(&self, platform: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Cut> {
        let (mut tell, told) = oneshot::channel();
        let (sandbox, platform) = (self.clone(), platform.to_owned());
        let task = async move {
            let end = match sandbox.exchanged(&platform, request).await {
                Ok(whole) => Ok(whole),
                Err(Ending::Cut(cut)) => Err(cut),
                // Nobody else waits for an answer that never comes, so neither does this task.
                Err(Ending::Never(cut)) => {
                    sandbox.0.clock.timeout(SILENCE, tell.closed()).await;
                    Err(cut)
                }
            };
            // A caller that has gone wants no answer.
            drop(tell.send(end));
        };
        self.own(task);
        told.await.unwrap_or(Err(Cut::AfterSend))
    }

    /// Runs a task that ends with the sandbox at the latest.
    fn own(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    async fn exchanged(&self, platform: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Ending> {
        match self.connect(platform, true) {
            Some(Instead::Hang) => return Err(Ending::Never(Cut::BeforeSend)),
            Some(Instead::Reset) => return Err(Ending::Cut(Cut::AfterSend)),
            Some(_) => return Err(Ending::Cut(Cut::BeforeSend)),
            None => {}
        }
        let now = self.now_ns();
        let call = Call::read(request);
        let head = self.head(platform, &call.path);
        let sent = self.attend(platform, call, Arrival { first_ns: now, last_ns: now, head }).await;
        self.disconnect(platform);
        match sent {
            Sent::Whole(response) => Ok(response),
            Sent::Broken(Broken::Silence) => Err(Ending::Never(Cut::AfterSend)),
            Sent::Broken(Broken::Hang) => Err(Ending::Never(Cut::BeforeSend)),
            Sent::Broken(Broken::Refuse | Broken::Alert) => Err(Ending::Cut(Cut::BeforeSend)),
            Sent::Broken(Broken::Trickle(response, pause)) => {
                self.0.clock.sleep(pause.saturating_mul(response.body().len() as u32)).await;
                Ok(response)
            }
            Sent::Broken(_) => Err(Ending::Cut(Cut::AfterSend)),
        }
    }

    /// Every post that exists or existed, oldest first.
    pub fn posts(&self) -> Vec<Post> {
        let now = self.0.clock.now();
        self.world().posts.all.values().map(|post| post.public(now)).collect()
    }

    /// The requests that came in, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        self.world().seen.iter().cloned().collect()
    }

    /// Replaces all rules; their counts begin anew.
    pub fn set_faults(&self, rules: Vec<FaultRule>) {
        self.world().rules.clear();
        self.add_faults(rules);
    }

    pub fn add_faults(&self, rules: Vec<FaultRule>) {
        let now = self.0.clock.mono();
        let mut world = self.world();
        let seed = world.seed;
        world.rules.extend(rules.into_iter().map(|rule| Rule::new(rule, now, seed)));
        drop(world);
        self.0.changed.notify_waiters();
    }

    /// The rules with how often each matched and fired.
    pub fn faults(&self) -> Vec<(FaultRule, u64, u64)> {
        self.world().rules.iter().map(|r| (r.rule.clone(), r.matched, r.fired)).collect()
    }

    /// Takes all rules away; what they did to accounts and posts stays.
    pub fn clear(&self) {
        self.set_faults(Vec::new());
    }

    /// Forgets posts, requests, rules and standings; the accounts stay.
    pub fn reset(&self) {
        let mut world = self.world();
        world.sites.values_mut().for_each(Site::reset);
        world.posts = Posts::default();
        world.seen.clear();
        world.rules.clear();
        drop(world);
        self.0.changed.notify_waiters();
    }

    pub fn set_latency(&self, latency: Latency) {
        self.world().latency = latency;
    }

    /// Sets the clock of one platform, or of all, ahead of the true time by `offset`.
    pub fn set_clock(&self, platform: Option<&str>, offset: TimeDelta) {
        let mut world = self.world();
        for site in world.sites.values_mut().filter(|site| platform.is_none_or(|p| p == site.name)) {
            site.offset = offset;
        }
    }

    /// Gives an account a standing: `expired` (at once or in some seconds), `revoked`, `good`, `captcha`, `passed`,
    /// `approved` (the administrator's tap on a mass send); `false` when there is no such account or word.
    pub fn set_standing(&self, account: &str, standing: &str, seconds: Option<f64>) -> bool {
        let now = self.0.clock.now();
        let mut world = self.world();
        let Some((platform, unit)) = account.split_once(':') else { return false };
        let Some(site) = world.sites.get_mut(platform) else { return false };
        stand(site, unit, standing, seconds, now)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since 1970; on the real clock monotonic, so that a stepped wall clock cannot fake a skew.
    fn now_ns(&self) -> i64 {
        if self.0.clock.is_simulated() {
            return self.0.clock.now().timestamp_micros() * 1000;
        }
        self.0.epoch_ns + self.0.clock.mono().0.as_nanos() as i64
    }

    /// What meets a new connection; `None` lets it in, and it has to be counted out again.
    fn connect(&self, platform: &str, in_process: bool) -> Option<Instead> {
        let (mono, now) = (self.0.clock.mono(), self.0.clock.now());
        let mut world = self.world();
        let World { sites, rules, .. } = &mut *world;
        let Some(site) = sites.get_mut(platform) else { return Some(Instead::Refuse) };
        let idle = site.last_seen.replace(now).map(|last| now - last);
        let meets = Meets { platform, unit: None, op: "", path: "", text: None };
        let mut instead = None;
        for rule in rules.iter_mut() {
            let params = &rule.rule.params;
            let name = rule.rule.behaviour.name();
            // Where there are no connections, a gap between two requests stands for an idle one that was closed.
            let limit = TimeDelta::milliseconds((params.seconds.unwrap_or(5.0) * 1000.0) as i64);
            let passes = match name {
                "stale" => !in_process || idle.is_none_or(|idle| idle < limit),
                "overload" => u64::from(site.open) < params.count.unwrap_or(u64::MAX),
                _ => false,
            };
            if !passes && rule.draw(Phase::Connect, meets, mono) {
                instead = Some(match (name, rule.rule.params.kind.as_deref()) {
                    ("stale", _) => Instead::Reset,
                    (_, Some("hang")) => Instead::Hang,
                    (_, Some("tls")) => Instead::Alert,
                    _ => Instead::Refuse,
                });
            }
        }
        site.open += u32::from(instead.is_none());
        instead
    }

    fn disconnect(&self, platform: &str) {
        if let Some(site) = self.world().sites.get_mut(platform) {
            site.open = site.open.saturating_sub(1);
        }
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sandbox(…)")
    }
}

enum Ending {
    Cut(Cut),
    /// Neither an answer nor an end.
    Never(Cut),
}
