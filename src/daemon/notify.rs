//! Tells people of what the ledger records: a program is run, or an address is sent the news.
//!
//! One task follows the ledger's events from behind, so nothing of it lies in the way of sending, and
//! what cannot be told fails here alone. How far it is, is in the ledger: what a crash kept from being told
//! is told after the start, if it is still news; a notice given in that moment may be given twice.

mod outlet;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Inner, lock};
use crate::clock::{Mono, Time};
use crate::core::accounts::AccountId;
use crate::core::announcement::{Content, Level, Priority};
use crate::core::change::{Actor, AnnouncementRow, Change, Recorded, Seq};
use crate::core::delivery::{Cause, Class, State};
use crate::core::policy::{Kind, Notify, To};
use crate::core::words::{Words, words};
use crate::ledger::LedgerError;
use outlet::Outlet;

/// Events are read this long after one came, so that a burst of commits is one look.
const BURST: Duration = Duration::from_millis(100);
/// Deliveries that end like one another within this long are one notice…
const QUIET: Duration = Duration::from_secs(2);
/// …which is given at the latest now, however many more there are.
const LONGEST: Duration = Duration::from_secs(10);
/// A ledger that cannot be read is asked again after this long.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Under this name the ledger keeps up to which event everything was told.
const TOLD: &str = "notify_told";
/// Events of before a start that are told after it.
const NEWS: TimeDelta = TimeDelta::hours(1);
/// More events than this are not read again at a start.
const MOST_UNTOLD: Seq = 100_000;
/// Of quiet, before it is written down how far the notices are.
const NOTED_AFTER: Duration = Duration::from_secs(2);
/// What is known at a stop may still be told for this long: a restart does not wait for a webhook.
const LAST_WORDS: Duration = Duration::from_secs(2);
const EVENTS_AT_ONCE: usize = 1000;
const MOST_ACCOUNTS: usize = 20;
const MOST_TEXT: usize = 200;

/// One message, as it is given.
#[derive(Clone, Debug, Serialize)]
pub struct Notice {
    pub kind: Kind,
    pub at: Time,
    pub announcement: String,
    /// Of an emergency.
    pub text: Option<String>,
    pub level: Option<Level>,
    pub count: usize,
    /// The first of them.
    pub accounts: Vec<AccountId>,
    pub reason: Words,
    pub drill: bool,
    /// About what a person on duty asked for, and no file.
    #[serde(skip)]
    pub is_of_duty: bool,
}

/// Where notices go, and how that went.
#[derive(Default)]
pub struct Notices(Mutex<BTreeMap<To, Arc<Outlet>>>);

impl Notices {
    /// Each entry of the configuration, for `status`.
    pub fn told(&self, entries: &[Notify]) -> Vec<super::answers::Outlet> {
        let outlets = lock(&self.0);
        let shown = entries.iter().map(|entry| {
            let record = outlets.get(&entry.to).map(|outlet| outlet.record()).unwrap_or_default();
            super::answers::Outlet {
                to: entry.to.name(),
                on: entry.on.clone(),
                failed: record.failed,
                dropped: record.dropped,
                last_error: record.last_error,
                last_at: record.last_at,
            }
        });
        shown.collect()
    }
}

/// From where on events are told after a start: what a crash kept from being told is, unless it is old.
pub async fn told_to(inner: &Inner) -> Result<Seq, LedgerError> {
    let (head, _) = inner.ledger.head();
    let told = inner.ledger.meta(TOLD).await?.and_then(|text| text.parse::<Seq>().ok());
    Ok(told.unwrap_or(head).clamp((head - MOST_UNTOLD).max(0), head))
}

/// Follows the ledger from `after` until the daemon stops.
pub async fn run(inner: Arc<Inner>, after: Seq) {
    let mut teller = Teller {
        after,
        started: inner.clock.now(),
        noted: after,
        groups: BTreeMap::new(),
        serving: JoinSet::new(),
        ending: CancellationToken::new(),
        inner: inner.clone(),
    };
    loop {
        let closing = teller.groups.values().map(Group::closes).min();
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => break,
            () = until(&inner, closing), if closing.is_some() => {}
            () = inner.clock.sleep(NOTED_AFTER), if teller.noted != teller.after && closing.is_none() => {
                teller.note().await;
            }
            newest = inner.ledger.newer(teller.after) => {
                inner.clock.sleep(BURST).await;
                teller.look(newest).await;
            }
        }
        teller.close(Some(inner.clock.mono())).await;
    }
    teller.close(None).await;
    teller.ending.cancel();
    let told = async { while teller.serving.join_next().await.is_some() {} };
    if inner.clock.timeout(LAST_WORDS, told).await.is_none() {
        tracing::warn!("stopped before every notice was given");
        return;
    }
    teller.note().await;
}

async fn until(inner: &Inner, closing: Option<Mono>) {
    let left = closing.map_or(Duration::ZERO, |at| at.0.saturating_sub(inner.clock.mono().0));
    inner.clock.sleep(left).await;
}

struct Teller {
    inner: Arc<Inner>,
    after: Seq,
    started: Time,
    /// Up to where the ledger knows that everything was told.
    noted: Seq,
    /// What will be one notice, by kind and announcement.
    groups: BTreeMap<(Kind, String), Group>,
    serving: JoinSet<()>,
    /// Nothing more will be given.
    ending: CancellationToken,
}

/// What happened, one or many times.
struct Group {
    at: Time,
    opened: Mono,
    last: Mono,
    /// Of many deliveries, and so waits for the others.
    many: bool,
    count: usize,
    accounts: Vec<AccountId>,
    reason: Words,
}

impl Group {
    fn closes(&self) -> Mono {
        match self.many {
            true => Mono((self.last.0 + QUIET).min(self.opened.0 + LONGEST)),
            false => self.opened,
        }
    }
}

/// What an event means to whoever is told.
struct Meant {
    kinds: Vec<Kind>,
    announcement: String,
    account: Option<AccountId>,
    reason: Words,
}

/// The fields of the events' bodies that matter here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    account: Option<AccountId>,
    from: Option<State>,
    to: Option<State>,
    class: Option<Class>,
    cause: Option<Cause>,
    reason: Option<Words>,
    awaits_word: bool,
    /// Why a post that is to be gone stands there still.
    standing: Option<Words>,
}

impl Teller {
    /// Writes down that everything up to here was given, or could not be: after a crash it is told from there on.
    async fn note(&mut self) {
        let is_told_to_somebody = !self.inner.config().settings.notify.is_empty();
        let is_idle = lock(&self.inner.notices.0).values().all(|outlet| outlet.is_idle());
        if !is_told_to_somebody || !is_idle || !self.groups.is_empty() {
            return;
        }
        let told = Change::Meta { key: TOLD.to_owned(), value: Some(self.after.to_string()) };
        match self.inner.ledger.commit(&Actor::Daemon, vec![told]).await {
            Ok(_) => self.noted = self.after,
            Err(error) => tracing::warn!(%error, "how far the notices are was not recorded"),
        }
    }

    /// Reads what is new and sorts it into groups.
    async fn look(&mut self, newest: Seq) {
        let config = self.inner.config();
        if config.settings.notify.is_empty() || config.drill {
            self.after = self.after.max(newest);
            return;
        }
        loop {
            let events = match self.inner.ledger.events(self.after, EVENTS_AT_ONCE).await {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(%error, "the events to be told cannot be read");
                    return self.inner.clock.sleep(READ_AGAIN).await;
                }
            };
            for event in &events {
                self.after = event.seq;
                // What happened long before a start is no news.
                if event.at < self.started - NEWS {
                    continue;
                }
                if let Some(meant) = meant(event) {
                    self.sort(event.at, &meant);
                }
            }
            if events.len() < EVENTS_AT_ONCE {
                return;
            }
        }
    }

    fn sort(&mut self, at: Time, meant: &Meant) {
        let now = self.inner.clock.mono();
        let config = self.inner.config();
        let is_told = |kind: &Kind| config.settings.notify.iter().any(|entry| entry.on.contains(kind));
        for kind in meant.kinds.iter().copied().filter(is_told) {
            let group = self.groups.entry((kind, meant.announcement.clone())).or_insert_with(|| Group {
                at,
                opened: now,
                last: now,
                many: meant.account.is_some(),
                count: 0,
                accounts: Vec::new(),
                reason: meant.reason.clone(),
            });
            group.last = now;
            let Some(account) = &meant.account else { continue };
            group.count += 1;
            if group.accounts.len() < MOST_ACCOUNTS {
                group.accounts.push(account.clone());
            }
        }
    }

    /// Gives the groups that are whole by now; all of them, without a time.
    async fn close(&mut self, now: Option<Mono>) {
        let whole: Vec<_> = self
            .groups
            .iter()
            .filter(|(_, g)| now.is_none_or(|now| g.closes() <= now))
            .map(|(k, _)| k.clone())
            .collect();
        for key in whole {
            let Some(group) = self.groups.remove(&key) else { continue };
            let (kind, announcement) = key;
            if let Some(notice) = self.notice(kind, announcement, group).await {
                self.give(&notice);
            }
        }
    }

    async fn notice(&self, kind: Kind, announcement: String, group: Group) -> Option<Notice> {
        let emergency = self.emergency(&announcement).await;
        // Routine that expires under a hold waited for nobody's word.
        if kind == Kind::Confirm && emergency.is_none() {
            return None;
        }
        let Group { at, mut accounts, reason, many, .. } = group;
        let mut count = group.count.max(1);
        if let (false, Some((_, content))) = (many, &emergency) {
            count = content.accounts.len();
            accounts = content.accounts.iter().take(MOST_ACCOUNTS).cloned().collect();
        }
        let is_of_duty = emergency.as_ref().is_some_and(|(row, _)| row.file.is_empty());
        let body = emergency.as_ref().map(|(_, content)| &content.body);
        let text = body.map(|body| body.text.chars().take(MOST_TEXT).collect());
        let level = body.and_then(|body| body.level());
        let drill = self.inner.config().drill;
        Some(Notice { kind, at, announcement, text, level, count, accounts, reason, drill, is_of_duty })
    }

    /// An emergency and its content; a notice without it is better than none.
    async fn emergency(&self, id: &str) -> Option<(AnnouncementRow, Arc<Content>)> {
        let row = match self.inner.announced(id).await {
            Ok(row) => row.filter(|row| row.priority == Priority::Emergency)?,
            Err(error) => {
                tracing::warn!(%error, announcement = id, "what a notice is about cannot be read");
                return None;
            }
        };
        let content = self.inner.content(&row.content).await.ok()?;
        Some((row, content))
    }

    fn give(&mut self, notice: &Notice) {
        let config = self.inner.config();
        if config.drill {
            return;
        }
        for entry in config.settings.notify.iter().filter(|entry| entry.on.contains(&notice.kind)) {
            let mut outlets = lock(&self.inner.notices.0);
            let outlet = outlets.entry(entry.to.clone()).or_insert_with(|| {
                let outlet = Arc::new(Outlet::new(entry.to.clone()));
                self.serving.spawn(outlet::serve(self.inner.clone(), outlet.clone(), self.ending.clone()));
                outlet
            });
            outlet.feed(notice.clone(), self.inner.clock.now());
        }
    }
}

fn meant(event: &Recorded) -> Option<Meant> {
    if !matches!(event.kind.as_str(), "emergency" | "delivery" | "needs_person" | "missed") {
        return None;
    }
    let body: Body = match serde_json::from_str(&event.body) {
        Ok(body) => body,
        Err(error) => {
            tracing::warn!(%error, seq = event.seq, "an event to be told cannot be read");
            return None;
        }
    };
    // Ids have no `@`: what follows it is the hour of one occurrence.
    let announcement = event.subject.split('@').next().unwrap_or_default().to_owned();
    let (kinds, reason) = match event.kind.as_str() {
        "emergency" => taken(body.awaits_word),
        "missed" => {
            let said =
                Words::new("首次读到时已经过时，没有发出", "already past when it was first seen: it was not published");
            (vec![Kind::Failed], said)
        }
        "needs_person" => match body.standing {
            Some(Words { zh, en }) => {
                (vec![Kind::Failed], words!("撤不下来，还挂着：{zh}", "it is to be gone and stands there still: {en}"))
            }
            None => (
                vec![Kind::Unknown],
                Words::new("查不出是否已发：fabu resolve", "nobody can tell whether it is out: fabu resolve"),
            ),
        },
        _ => moved(&body)?,
    };
    Some(Meant { kinds, announcement, account: body.account, reason })
}

fn taken(awaits_word: bool) -> (Vec<Kind>, Words) {
    if awaits_word {
        let said = Words::new("等另一人确认：fabu confirm", "it waits for a further person's word: fabu confirm");
        return (vec![Kind::Emergency, Kind::Confirm], said);
    }
    (vec![Kind::Emergency], Words::new("紧急发布已受理", "an emergency was taken"))
}

fn moved(body: &Body) -> Option<(Vec<Kind>, Words)> {
    match (body.from?, body.to?) {
        // One that has failed and is stopped, say, has not failed again.
        (from, to) if from == to => None,
        (_, State::Failed) => {
            let reason = body.reason.clone().unwrap_or_else(|| Words::new("发送失败", "it failed"));
            let kinds = match body.class {
                Some(Class::Credential) => vec![Kind::Failed, Kind::Credential],
                _ => vec![Kind::Failed],
            };
            Some((kinds, reason))
        }
        (State::Held, State::Expired) if body.cause == Some(Cause::Confirmation) => Some((
            vec![Kind::Confirm],
            Words::new("没有人及时确认，不发", "nobody gave the further word in time: it is not sent"),
        )),
        // It was to go out, and never will of itself.
        (_, State::Expired) => {
            let reason = body.reason.clone();
            Some((vec![Kind::Failed], reason.unwrap_or_else(|| Words::new("过了有效期", "it expired"))))
        }
        _ => None,
    }
}
