//! The network of one simulated process, as narrow as the real one, and the record of what happened in which order.
//!
//! There is room for so many requests of a platform, connections take their time to open and are kept for a while, the
//! permit is asked with one in hand, and the whole is bounded. A stopped process reads no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fabu::clock::{Clock, Time};
use fabu::platform::{Http, Lane, Lost, Permit, Room};
use fabu::sandbox::{Cut, Sandbox};
use http::{Method, Request, Response};
use serde_json::Value;
use tokio::sync::Semaphore;

/// A connection that nothing was sent on for so long is closed.
const IDLE: Duration = Duration::from_secs(75);
/// No connection takes longer to open.
const CONNECT: Duration = Duration::from_secs(5);

/// The mark in a text: `【a7.2】` is version 2 of `a7`; a correction or an all-clear quotes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub kind: Kind,
    pub id: String,
    pub version: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Own,
    Correction,
    AllClear,
}

impl Mark {
    pub fn of(text: &str) -> Option<Mark> {
        let start = text.find('【').map(|at| &text[at..])?;
        let kind = match start {
            s if s.starts_with("【更正】") => Kind::Correction,
            s if s.starts_with("【解除】") => Kind::AllClear,
            _ => Kind::Own,
        };
        let inner = text.split('【').skip(1).find_map(|part| {
            let (id, version) = part.split('】').next()?.split_once('.')?;
            Some((id.to_owned(), version.parse().ok()?))
        });
        inner.map(|(id, version)| Mark { kind, id, version })
    }
}

/// An act of a person: a request over the socket, or a signal to the process.
#[derive(Clone, Debug)]
pub struct Act {
    pub by: u32,
    pub method: &'static str,
    pub path: String,
    pub body: Value,
}

#[derive(Clone, Debug)]
pub enum What {
    /// The first byte of a request that makes a post.
    Begun {
        account: String,
        mark: Mark,
    },
    Asked {
        act: Act,
    },
    Answered {
        call: usize,
        act: Act,
        status: u16,
        body: Value,
    },
    /// A save of the queue, as it concerns one announcement; `None`: it is not in the folder any more.
    Saved {
        id: String,
        version: Option<super::people::Version>,
    },
    Started,
    Crashed,
    /// The ledger is as it was when the record had so many entries.
    Restored {
        to: usize,
    },
    /// Stopped, or going on again.
    Frozen,
    Stepped(i64),
    /// Whether from now on anything is wrong with the platforms, the network or the ledger.
    Trouble(bool),
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// By a clock nobody touches.
    pub truth: Time,
    /// By the machine's clock.
    pub wall: Time,
    pub what: What,
}

/// All that happened, in order.
pub struct History {
    pub truth: Clock,
    pub wall: Clock,
    entries: Mutex<Vec<Entry>>,
    pub told: Mutex<BTreeSet<(Time, i64, String)>>,
}

impl History {
    pub fn new(truth: Clock, wall: Clock) -> Arc<History> {
        Arc::new(History { truth, wall, entries: Mutex::default(), told: Mutex::default() })
    }

    pub fn note(&self, what: What) {
        let entry = Entry { truth: self.truth.now(), wall: self.wall.now(), what };
        self.entries.lock().unwrap().push(entry);
    }

    pub fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    /// Keeps what the ledger says has happened, for whoever looks into a seed.
    pub async fn tell(&self, daemon: Option<&fabu::daemon::Daemon>) {
        let Some(daemon) = daemon.filter(|_| std::env::var("FABU_TELL").is_ok()) else { return };
        for e in daemon.inner.ledger.events(0, 10_000_000).await.unwrap() {
            let line = format!("event {} {} {} {}", e.at.format("%T%.3f"), e.kind, e.subject, e.body);
            self.told.lock().unwrap().insert((e.at, e.seq, line));
        }
    }

    /// The machine's clock as it was at that moment.
    pub fn wall_at(&self, truth: Time) -> Time {
        let steps = self.entries.lock().unwrap();
        let steps = steps.iter().take_while(|e| e.truth <= truth).filter_map(|e| match e.what {
            What::Stepped(seconds) => Some(seconds),
            _ => None,
        });
        truth + chrono::TimeDelta::seconds(steps.sum())
    }

    pub fn all(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }
}

/// The time a connection takes to open now, at least and at most, in milliseconds.
#[derive(Default)]
pub struct Weather(Mutex<(u64, u64)>);

impl Weather {
    pub fn set(&self, least: u64, most: u64) {
        *self.0.lock().unwrap() = (least, most);
    }

    pub fn is_slow(&self) -> bool {
        self.0.lock().unwrap().1 > 10
    }

    fn draw(&self, dice: &Clock) -> Duration {
        let (least, most) = *self.0.lock().unwrap();
        Duration::from_millis(least + dice.random() % (most - least + 1))
    }
}

type Place = (String, Lane);

pub struct Wire {
    pub sandbox: Sandbox,
    pub clock: Clock,
    pub history: Arc<History>,
    pub weather: Arc<Weather>,
    pub most: usize,
    rooms: Mutex<BTreeMap<Place, Arc<Semaphore>>>,
    idle: Mutex<BTreeMap<Place, Vec<Duration>>>,
}

impl Wire {
    pub fn new(sandbox: Sandbox, history: Arc<History>, weather: Arc<Weather>, most: usize) -> Wire {
        let clock = history.wall.clone();
        Wire { sandbox, clock, history, weather, most, rooms: Mutex::default(), idle: Mutex::default() }
    }

    fn places(&self, place: &Place) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap();
        rooms.entry(place.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.most))).clone()
    }

    /// One that is open still.
    fn kept(&self, place: &Place) -> bool {
        let now = self.clock.mono().0;
        let mut idle = self.idle.lock().unwrap();
        let Some(kept) = idle.get_mut(place) else { return false };
        kept.retain(|since| now.saturating_sub(*since) < IDLE);
        kept.pop().is_some()
    }

    fn keep(&self, place: &Place) {
        self.idle.lock().unwrap().entry(place.clone()).or_default().push(self.clock.mono().0);
    }

    async fn exchange(
        &self,
        place: &Place,
        request: Request<Bytes>,
        permit: Option<Arc<dyn Permit>>,
        begun: &Mutex<bool>,
    ) -> Result<Response<Bytes>, Lost> {
        if !self.kept(place) {
            let takes = self.weather.draw(&self.clock);
            self.clock.sleep(takes.min(CONNECT)).await;
            if takes > CONNECT {
                return Err(Lost::BeforeSend("no connection".to_owned()));
            }
        }
        self.clock.thawed().await;
        if permit.is_some_and(|permit| !permit.is_granted()) {
            self.keep(place);
            return Err(Lost::BeforeSend("not permitted".to_owned()));
        }
        *begun.lock().unwrap() = true;
        if let Some((account, mark)) = posting(&request) {
            self.history.note(What::Begun { account, mark });
        }
        let answer = self.sandbox.exchange(&place.0, request).await;
        self.clock.thawed().await;
        match answer {
            Ok(answer) => {
                self.keep(place);
                Ok(answer)
            }
            Err(Cut::BeforeSend) => Err(Lost::BeforeSend("refused".to_owned())),
            Err(Cut::AfterSend) => Err(Lost::AfterSend("reset".to_owned())),
        }
    }
}

/// Whose post a request makes, and which.
fn posting(request: &Request<Bytes>) -> Option<(String, Mark)> {
    if request.method() != Method::POST {
        return None;
    }
    let body = String::from_utf8_lossy(request.body()).replace('+', " ");
    let body = percent_encoding::percent_decode_str(&body).decode_utf8_lossy().into_owned();
    let mark = Mark::of(&body)?;
    let heads = request.headers().values().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(" ");
    let whole = format!("{} {heads} {body}", request.uri());
    let token = whole.split("token-").nth(1)?;
    let name: String = token.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
    let (platform, unit) = name.split_once('_')?;
    Some((format!("{platform}:{}", unit.replace('_', "/")), mark))
}

#[async_trait]
impl Http for Wire {
    async fn send(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        let _room = self.places(&(platform.to_owned(), lane)).acquire_owned().await;
        self.send_in_room(platform, lane, request, timeout, None).await
    }

    async fn room(&self, platform: &str, lane: Lane) -> Room {
        Room::of(self.places(&(platform.to_owned(), lane)).acquire_owned().await.unwrap())
    }

    async fn send_in_room(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
        permit: Option<Arc<dyn Permit>>,
    ) -> Result<Response<Bytes>, Lost> {
        let (place, begun) = ((platform.to_owned(), lane), Mutex::new(false));
        let answer = self.clock.timeout(timeout, self.exchange(&place, request, permit, &begun)).await;
        match (answer, *begun.lock().unwrap()) {
            (Some(answer), _) => answer,
            (None, true) => Err(Lost::AfterSend("timed out".to_owned())),
            (None, false) => Err(Lost::BeforeSend("no connection in time".to_owned())),
        }
    }
}
