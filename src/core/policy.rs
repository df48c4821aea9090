//! The rules a configuration sets: how to reach a platform, how patiently to publish, when an
//! emergency needs a second person. Values only; `input::settings` reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::accounts::PlatformName;
use super::announcement::Level;
use super::words::shown;

/// Calls and connections a platform grants; `None` is no limit (`off`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Posts of one account in a clock hour.
    pub account_per_hour: Option<u32>,
    /// Calls of one account in a calendar day (+08:00), reads and uploads included.
    pub account_per_day: Option<u32>,
    /// Calls from this machine's address in a clock hour.
    pub host_per_hour: Option<u32>,
    /// Requests under way at once.
    pub connections: u32,
}

/// When to look for a post of which it is not known whether it is out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReadBack {
    /// Times after the deadline of the send.
    pub after: Vec<Duration>,
    /// The last planned look; absence is believed here, and never before. `None`: absence is never believed.
    pub settle: Option<Duration>,
}

/// After the plan, reads that prove nothing are repeated so often: about a day, with the waits of `later`.
pub const MOST_MISSES: u16 = 31;

impl ReadBack {
    /// The first planned look after the doubt has lasted for `waited`, counted from the doubt's beginning.
    pub fn next(&self, waited: Duration) -> Option<Duration> {
        self.after.iter().chain(&self.settle).copied().filter(|at| *at > waited).min()
    }

    /// The wait before the next look once the plan is over: longer after each one that proved nothing.
    pub fn later(&self, misses: u16) -> Duration {
        const FIRST: Duration = Duration::from_secs(15);
        const LONGEST: Duration = Duration::from_secs(3600);
        FIRST.saturating_mul(1 << u32::from(misses.saturating_sub(1)).min(16)).min(LONGEST)
    }
}

/// Connections of the emergency lane that are kept open while there is no emergency (`platforms.md` 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Warm {
    pub connections: u32,
    /// Each is used so often that neither side closes it.
    pub every: Duration,
}

impl Default for Warm {
    fn default() -> Warm {
        Warm { connections: 8, every: Duration::from_secs(45) }
    }
}

/// One platform of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlatformSettings {
    pub name: PlatformName,
    pub api: String,
    /// Ends before the path of the API, without a slash.
    pub base_url: String,
    pub timeout: Duration,
    pub limits: Limits,
    pub read_back: ReadBack,
    pub warm: Warm,
    /// What the `api` itself defines (`mode`, `app_key`, `text_limit`, …; `platforms.md`).
    pub further: BTreeMap<String, serde_json::Value>,
}

impl PlatformSettings {
    /// A further setting that is text, if it is set.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.further.get(key).and_then(serde_json::Value::as_str)
    }

    /// The server its requests go to: `base_url` without its scheme.
    pub fn site(&self) -> &str {
        self.base_url.split_once("://").map_or(&self.base_url, |(_, site)| site)
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        let value = self.further.get(key)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }

    pub fn is_true(&self, key: &str) -> bool {
        self.further.get(key).is_some_and(|v| v.as_bool() == Some(true) || v.as_str() == Some("true"))
    }

    /// Whether the platform is on this machine: the sandbox, or a test.
    pub fn is_loopback(&self) -> bool {
        [
            "http://127.0.0.1",
            "https://127.0.0.1",
            "http://[::1]",
            "https://[::1]",
            "http://localhost",
            "https://localhost",
        ]
        .iter()
        .any(|start| {
            self.base_url.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        })
    }
}

/// What is published of what was missed while the daemon was away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatchUp {
    /// Only what is not later than `grace`.
    None,
    /// The newest missed one, within the configured duration.
    Last,
    /// The newest missed one, within this long.
    Within(Duration),
}

/// How a length of time is kept in a content.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the shape in which serde writes a `Duration`")]
pub(super) struct Span {
    secs: u64,
    nanos: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Retry {
    pub first: Duration,
    pub max: Duration,
    pub tries: u16,
}

/// `publish:` of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Publish {
    /// How long before the release everything is prepared.
    pub lead: Duration,
    pub together: bool,
    /// Up to this late a delivery counts as on time.
    pub grace: Duration,
    pub catch_up: Duration,
    /// An announcement without an hour goes when its file has been as it is for so long; zero: as soon as it is read.
    pub settle_file: Duration,
    /// Share of the pending announcements (0 to 1) that one reading may cancel unasked.
    pub max_cancel: f64,
    pub retry: Retry,
}

impl Default for Publish {
    fn default() -> Publish {
        Publish {
            lead: Duration::from_secs(60),
            together: true,
            grace: Duration::from_secs(30),
            catch_up: Duration::from_secs(3600),
            settle_file: Duration::from_secs(10),
            max_cancel: 0.2,
            retry: Retry { first: Duration::from_secs(2), max: Duration::from_secs(300), tries: 16 },
        }
    }
}

/// `cap:` of the configuration: whose alerts are taken, and whom a region's concern.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cap {
    /// The highest level a sender may ask; one that is not here may ask nothing.
    pub senders: BTreeMap<String, Level>,
    /// Selector of accounts, by GB/T 2260 code; it parses.
    pub areas: BTreeMap<String, String>,
}

/// What a person is told of by `notify:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An emergency was taken.
    Emergency,
    /// Deliveries failed.
    Failed,
    /// Nobody can tell whether deliveries are out: a person has to settle them.
    Unknown,
    /// An emergency waits for a further person's word, or nobody gave it in time.
    Confirm,
    /// Deliveries failed because a credential does not work.
    Credential,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Emergency, Kind::Failed, Kind::Unknown, Kind::Confirm, Kind::Credential];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Emergency => "emergency",
            Kind::Failed => "failed",
            Kind::Unknown => "unknown",
            Kind::Confirm => "confirm",
            Kind::Credential => "credential",
        }
    }

    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// One entry of `notify:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    pub on: Vec<Kind>,
    pub to: To,
}

/// Where a notice goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// A program and its arguments; never empty.
    Run(Vec<String>),
    /// TLS, or this machine.
    Url(String),
}

impl To {
    /// What may be shown of it: arguments, and the path of an address, may be somebody's secret (R34).
    pub fn name(&self) -> String {
        match self {
            To::Run(run) => run.first().map_or_else(String::new, |program| shown(program)),
            To::Url(url) => {
                let host = url.split('/').take(3).collect::<Vec<_>>().join("/");
                if host.len() == url.len() { shown(url) } else { format!("{}/…", shown(&host)) }
            }
        }
    }
}

/// `emergency:` of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Emergency {
    /// How long routine is held, by level.
    pub hold: BTreeMap<Level, Duration>,
    /// Persons needed, the sender included, by level.
    pub confirm: BTreeMap<Level, u32>,
    pub confirm_within: Duration,
    /// Share of every budget (0 to 1) that routine leaves alone.
    pub reserve: f64,
    /// What was held goes on by itself when the hold ends, instead of waiting for a look.
    pub resume: bool,
}

impl Emergency {
    /// Persons who have to give their word, the sender included.
    pub fn persons(&self, body: &super::announcement::Body) -> usize {
        if let Some(persons) = body.persons {
            return persons.max(1);
        }
        if body.standard {
            return 1;
        }
        let level = body.level().expect("an emergency has a level");
        self.confirm.get(&level).copied().unwrap_or(1).max(1) as usize
    }
}

impl Default for Emergency {
    fn default() -> Emergency {
        let hour = Duration::from_secs(3600);
        Emergency {
            hold: BTreeMap::from([(Level::Red, 2 * hour), (Level::Orange, hour)]),
            confirm: BTreeMap::from([(Level::Red, 2), (Level::Orange, 2)]),
            confirm_within: Duration::from_secs(600),
            reserve: 0.2,
            resume: false,
        }
    }
}
