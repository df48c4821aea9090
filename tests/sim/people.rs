//! Editors, duty officers and an administrator: what each does at an hour drawn from the seed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use fabu::clock::{Clock, Time};
use fabu::core::delivery::{Delivery, State};
use fabu::ledger::marker;
use serde_json::{Value, json};

use super::network::{Act, Kind, Mark, What};
use super::world::{World, all_accounts, local, uid_of};
use crate::support::addresses::addresses;
use crate::support::fault;

/// The longest time after its instant in which an announcement may still go out.
pub const CATCH_UP: TimeDelta = TimeDelta::minutes(40);
/// Selectors, and the accounts each means are found by `means`.
pub const TARGETS: [&str; 6] = ["**", "shanghai", "sina:**", "shanghai/pudong/**", "shanghai/metro", "tencent:**"];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    At(Time),
    /// At this minute of each hour.
    Hourly(u32),
    /// As soon as it is read.
    Now,
}

/// One announcement as an editor wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub number: u32,
    pub when: When,
    pub to: &'static str,
    pub is_exempt: bool,
    pub supersedes: Option<String>,
    /// Its level, where it is an emergency.
    pub level: Option<&'static str>,
}

impl Version {
    /// Its next instant after this moment.
    fn next(&self, now: Time) -> Option<Time> {
        match self.when {
            When::At(at) => Some(at).filter(|at| *at > now),
            When::Hourly(minute) => {
                let hour = now.timestamp().div_euclid(3600) * 3600 + i64::from(minute) * 60;
                let at = if hour > now.timestamp() { hour } else { hour + 3600 };
                Some(fabu::clock::from_micros(at * 1_000_000))
            }
            When::Now => None,
        }
    }
}

/// Whether a selector of `TARGETS` means this account.
pub fn means(selector: &str, account: &str) -> bool {
    let (platform, unit) = account.split_once(':').unwrap();
    let (only, rest) = selector.split_once(':').map_or((None, selector), |(p, rest)| (Some(p), rest));
    only.is_none_or(|p| p == platform)
        && (rest == "**" || rest == unit || rest.strip_suffix("/**").is_some_and(|top| unit.starts_with(top)))
}

/// Whether what was made at `made` is of the occurrence at `at`, of one that happens every hour.
pub fn is_of_the_hour(at: Time, made: Time) -> bool {
    (-TimeDelta::minutes(15)..TimeDelta::minutes(45)).contains(&(made - at))
}

/// The kinds of trouble that a run has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Season {
    pub is_calm: bool,
    pub crashes: bool,
    pub restores: bool,
    pub steps: bool,
    pub stops: bool,
    pub ledger: bool,
    pub network: bool,
    pub timelines: bool,
    pub slow: bool,
    pub disk: bool,
    pub people: bool,
}

impl Season {
    pub fn of(seed: u64) -> Season {
        let dice = Clock::simulated(fabu::clock::from_micros(0), seed ^ 0x5ea5);
        let draw = |likely: f64| dice.chance() < likely;
        if seed.is_multiple_of(5) {
            return Season { is_calm: true, ..Season::default() };
        }
        let mut season = Season {
            is_calm: false,
            crashes: draw(0.5),
            restores: draw(0.2),
            steps: draw(0.25),
            stops: draw(0.3),
            ledger: draw(0.3),
            network: draw(0.6),
            timelines: draw(0.4),
            slow: draw(0.4),
            people: draw(0.9),
            disk: draw(0.4),
        };
        // A copy of the ledger has only honest timelines to ask.
        season.timelines &= !season.restores;
        // And one that comes back when its hours are still to come, by a clock that was put back, cannot know either.
        season.steps &= !season.restores;
        season
    }
}

pub struct People {
    pub dice: Clock,
    pub season: Season,
    /// The end of what repeats: the ledger need not be full of tomorrow.
    until: Time,
    /// The queue as the editors mean it: file → announcements in it.
    files: BTreeMap<String, Vec<(String, Version)>>,
    count: u32,
    urgents: u32,
    /// Copies of the ledger, and how long the record was then.
    pub copies: Vec<(Vec<u8>, Vec<u8>, usize)>,
    confirmable: Vec<(String, u32)>,
}

impl People {
    pub fn new(seed: u64, until: Time) -> People {
        People {
            until,
            dice: Clock::simulated(fabu::clock::from_micros(0), seed ^ 0x9e0),
            season: Season::of(seed),
            files: BTreeMap::new(),
            count: 0,
            urgents: 0,
            copies: Vec::new(),
            confirmable: Vec::new(),
        }
    }

    pub fn below(&self, end: usize) -> usize {
        (self.dice.random() % end.max(1) as u64) as usize
    }

    pub fn chance(&self, likely: f64) -> bool {
        self.dice.chance() < likely
    }

    fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).cloned()
    }

    fn version(&self, world: &World, soon: bool) -> Version {
        let minutes = if soon { 1 + self.below(6) } else { 2 + self.below(70) };
        let when = match self.below(12) {
            0 | 1 => When::Hourly(self.below(60) as u32),
            2 => When::Now,
            _ => {
                let at = world.clock.now() + TimeDelta::minutes(minutes as i64);
                // Editors write whole minutes, or seconds now and then.
                let second = if self.chance(0.3) { self.below(60) as i64 } else { 0 };
                When::At(fabu::clock::from_micros((at.timestamp() / 60 * 60 + second) * 1_000_000))
            }
        };
        Version {
            number: 1,
            when,
            to: TARGETS[self.below(TARGETS.len())],
            is_exempt: self.chance(0.1),
            supersedes: None,
            level: None,
        }
    }

    /// The queue of the morning. Everybody has said something before trouble begins: of an account that never said
    /// anything nobody could know that its timeline is cut.
    pub fn begin(&mut self, world: &mut World) {
        let at = fabu::clock::from_micros((world.clock.now().timestamp() + 60) * 1_000_000);
        let hello =
            Version { number: 1, when: When::At(at), to: "**", is_exempt: false, supersedes: None, level: None };
        self.files.insert("hello.yaml".to_owned(), vec![("a0".to_owned(), hello.clone())]);
        self.save(world, "hello.yaml", &[("a0".to_owned(), Some(hello))]);
        for _ in 0..6 {
            self.add(world);
        }
    }

    fn ids(&self) -> Vec<(String, String)> {
        self.files.iter().flat_map(|(f, all)| all.iter().map(move |(id, _)| (f.clone(), id.clone()))).collect()
    }

    /// An announcement that is released within two minutes, and when.
    fn soon(&self, world: &World) -> Option<(String, Time)> {
        let now = world.clock.now();
        let all = self.files.values().flatten();
        let coming = all.filter_map(|(id, v)| Some((id.clone(), v.next(now)?)));
        let soon: Vec<(String, Time)> = coming.filter(|(_, at)| *at - now < TimeDelta::minutes(2)).collect();
        self.pick(&soon)
    }

    fn add(&mut self, world: &mut World) {
        let mut version = self.version(world, false);
        let others = self.ids();
        if self.chance(0.15)
            && let Some((_, old)) = self.pick(&others)
        {
            version.supersedes = Some(old);
        }
        if self.chance(0.06) && !self.season.is_calm && matches!(version.when, When::At(_)) {
            version.level = Some("yellow");
            version.is_exempt = false;
        }
        self.write(world, version);
    }

    /// A new announcement, in one of the files.
    pub fn write(&mut self, world: &mut World, version: Version) -> String {
        self.count += 1;
        let id = format!("a{}", self.count);
        self.write_as(world, id.clone(), version);
        id
    }

    pub fn write_as(&mut self, world: &mut World, id: String, version: Version) {
        let file = format!("f{}.yaml", self.below(5));
        self.files.entry(file.clone()).or_default().push((id.clone(), version.clone()));
        self.save(world, &file, &[(id, Some(version))]);
    }

    fn file_of(&self, id: &str) -> Option<String> {
        self.files.iter().find(|(_, all)| all.iter().any(|(other, _)| other == id)).map(|(file, _)| file.clone())
    }

    /// Another version of it, with other words at least.
    pub fn change(&mut self, world: &mut World, id: &str, how: impl FnOnce(&mut Version)) {
        let Some(file) = self.file_of(id) else { return };
        let version = self.files.get_mut(&file).unwrap().iter_mut().find(|(other, _)| other == id);
        let version = &mut version.unwrap().1;
        version.number += 1;
        how(version);
        let changed = version.clone();
        self.save(world, &file, &[(id.to_owned(), Some(changed))]);
    }

    pub fn remove(&mut self, world: &mut World, id: &str) {
        let Some(file) = self.file_of(id) else { return };
        self.files.get_mut(&file).unwrap().retain(|(other, _)| other != id);
        self.save(world, &file, &[(id.to_owned(), None)]);
    }

    /// The name of a new emergency, by this officer.
    pub fn next_urgent(&mut self, by: u32) -> String {
        self.urgents += 1;
        let id = format!("u{}", self.urgents);
        self.confirmable.push((id.clone(), by));
        id
    }

    fn render(&self, file: &str) -> String {
        let mut text = "announcements:\n".to_owned();
        for (id, v) in self.files.get(file).into_iter().flatten() {
            let Version { number, to, .. } = v;
            // Cut off anywhere a file says less, or is a fault; it never says another hour.
            text += &format!("  - id: {id}\n");
            text += &match v.when {
                When::At(at) => format!("    at: {}\n", local(at)),
                When::Hourly(minute) => {
                    format!("    repeat: \"{minute} * * * *\"\n    until: {}\n", local(self.until))
                }
                When::Now => String::new(),
            };
            if v.when != When::Now {
                text += "    catch_up: 40m\n";
            }
            if v.is_exempt {
                text += "    hold_exempt: 保障\n";
            }
            if let Some(old) = &v.supersedes {
                text += &format!("    supersedes: {old}\n");
            }
            if let Some(level) = v.level {
                text += &format!("    priority: emergency\n    level: {level}\n    expires_after: 1h\n");
            }
            text += &format!("    text: 【{id}.{number}】号通知，请注意\n    to: [\"{to}\"]\n");
        }
        text
    }

    /// Writes a file as editors' programs do, and notes what was meant by it.
    fn save(&self, world: &mut World, file: &str, changed: &[(String, Option<Version>)]) {
        let path = world.queue().join(file);
        let beside = path.with_extension("tmp");
        std::fs::write(&beside, self.render(file)).unwrap();
        world.stamp(&beside);
        if path.is_symlink() || path.is_dir() {
            drop(std::fs::remove_file(&path));
        }
        std::fs::rename(beside, &path).unwrap();
        for (id, version) in changed {
            world.history.note(What::Saved { id: id.clone(), version: version.clone() });
        }
        world.look(Duration::from_millis(200 + self.dice.random() % 800));
    }

    fn write_raw(&self, world: &mut World, file: &str, text: &str) {
        let path = world.queue().join(file);
        std::fs::write(&path, text).unwrap();
        world.stamp(&path);
        world.look(Duration::from_millis(200 + self.dice.random() % 800));
    }

    /// One thing that an editor does.
    pub async fn edit(&mut self, world: &mut World) {
        let all = self.ids();
        let Some((file, id)) = self.pick(&all) else { return self.add(world) };
        let place = self.files[&file].iter().position(|(i, _)| *i == id).unwrap();
        match self.below(if self.season.is_calm { 3 } else { 14 }) {
            0..=2 => self.add(world),
            3..=5 => {
                // In the very moment of its release, now and then.
                if self.chance(0.3)
                    && let Some((id, at)) = self.soon(world)
                {
                    let left = at - world.clock.now() + TimeDelta::milliseconds(self.below(2500) as i64 - 1000);
                    world.sleep(left.to_std().unwrap_or_default()).await;
                    return self.change(world, &id, |_| {});
                }
                // Other words, perhaps another hour or other accounts.
                let another = self.version(world, true);
                let what = self.dice.random() % 4;
                self.change(world, &id, |version| match what {
                    0 if matches!(version.when, When::At(_)) && matches!(another.when, When::At(_)) => {
                        version.when = another.when;
                    }
                    1 => version.to = another.to,
                    _ => {}
                });
            }
            6 => self.remove(world, &id),
            7 => {
                // To another file: both saved at once, or one after the other, in either order.
                let other = format!("f{}.yaml", self.below(6));
                if other == file {
                    return;
                }
                let moved = self.files.get_mut(&file).unwrap().remove(place);
                self.files.entry(other.clone()).or_default().push(moved.clone());
                let (first, second) = if self.chance(0.5) { (&file, &other) } else { (&other, &file) };
                self.save(world, first, &[]);
                if self.chance(0.5) {
                    world.sleep(Duration::from_millis(self.dice.random() % 9000)).await;
                }
                // In between it was in no file, or in both.
                let gone = (*first == file).then_some((id.clone(), None));
                gone.into_iter().for_each(|(id, version)| world.history.note(What::Saved { id, version }));
                self.save(world, second, &[(id, Some(moved.1))]);
            }
            8 => {
                // Broken, or half of it, for a while.
                let text = self.render(&file);
                let cut = text.char_indices().nth(self.below(text.chars().count())).map_or(0, |(at, _)| at);
                let broken = if self.chance(0.5) { format!("{text}  - id: [\n") } else { text[..cut].to_owned() };
                for (id, _) in &self.files[&file] {
                    // What is in force of it meanwhile cannot be told from outside.
                    world.history.note(What::Saved { id: id.clone(), version: None });
                }
                self.write_raw(world, &file, &broken);
                world.sleep(Duration::from_millis(self.dice.random() % 8000)).await;
                let whole: Vec<_> = self.files[&file].iter().map(|(id, v)| (id.clone(), Some(v.clone()))).collect();
                self.save(world, &file, &whole);
            }
            9 => {
                // Renamed.
                let other = format!("f{}.yml", self.below(90) + 10);
                if self.files.contains_key(&other) {
                    return;
                }
                let content = self.files.remove(&file).unwrap();
                let changed: Vec<_> = content.iter().map(|(id, v)| (id.clone(), Some(v.clone()))).collect();
                self.files.insert(other.clone(), content);
                drop(std::fs::rename(world.queue().join(&file), world.queue().join(&other)));
                for (id, version) in changed {
                    world.history.note(What::Saved { id, version });
                }
                world.look(Duration::from_millis(300));
            }
            10 => {
                // The whole folder is away for a while.
                let away = world.path().join("away");
                std::fs::rename(world.queue(), &away).unwrap();
                if self.chance(0.5) {
                    std::fs::create_dir(world.queue()).unwrap();
                }
                world.look(Duration::from_millis(300));
                world.sleep(Duration::from_millis(self.dice.random() % 30_000)).await;
                drop(std::fs::remove_dir_all(world.queue()));
                std::fs::rename(&away, world.queue()).unwrap();
                for (id, version) in self.files.values().flatten() {
                    world.history.note(What::Saved { id: id.clone(), version: Some(version.clone()) });
                }
                world.look(Duration::from_millis(300));
            }
            11 => {
                world.has_later |= self.chance(0.3) && !self.season.timelines;
                world.closed.clear();
                let accounts = all_accounts();
                for _ in 0..self.below(3) {
                    world.closed.extend(self.pick(&accounts));
                }
                world.reload();
            }
            12 => {
                let (status, told) = world.ask_now(editor(0, "GET", "/v1/status", Value::Null)).await;
                let plan = told["prune"]["plan"].clone();
                if status == 200 && !plan.is_null() {
                    // An editor sees to it that the files are right before saying that they are.
                    world.ask(editor(0, "POST", "/v1/prune", json!({ "accept": false, "plan": plan })));
                }
            }
            _ => {
                // A link in the place of a file.
                let target: PathBuf = world.path().join(format!("linked-{file}"));
                let path = world.queue().join(&file);
                if path.is_file() && std::fs::rename(&path, &target).is_ok() {
                    std::os::unix::fs::symlink(&target, &path).unwrap();
                    for (id, _) in &self.files[&file] {
                        world.history.note(What::Saved { id: id.clone(), version: None });
                    }
                    world.look(Duration::from_millis(300));
                    world.sleep(Duration::from_millis(self.dice.random() % 8000)).await;
                    let whole: Vec<_> = self.files[&file].iter().map(|(id, v)| (id.clone(), Some(v.clone()))).collect();
                    self.save(world, &file, &whole);
                }
            }
        }
    }

    /// One thing that somebody does over the socket.
    pub async fn act(&mut self, world: &mut World) {
        let routine = self.ids();
        let routine = self.pick(&routine).map(|(_, id)| id);
        let urgent = (self.urgents > 0).then(|| format!("u{}", 1 + self.below(self.urgents as usize)));
        let any = if self.chance(0.6) { routine.clone() } else { urgent.clone() }.or(routine.clone());
        let to = |id: &str, what: &str| format!("/v1/announcements/{id}/{what}");
        let who = self.below(3) as u32;
        match self.below(26) {
            0..=3 => {
                let id = self.next_urgent(who);
                let level = ["red", "orange", "yellow", "blue"][self.below(4)];
                let target = TARGETS[self.below(TARGETS.len())];
                let mut body = json!({ "id": id, "text": format!("【{id}.1】紧急"), "level": level, "to": [target] });
                if self.chance(0.2) {
                    body["hold"] = "15m".into();
                }
                if self.chance(0.15)
                    && let Some(old) = &any
                {
                    body["supersedes"] = old.clone().into();
                }
                if self.chance(0.2)
                    && let Some(old) = urgent
                {
                    body["update"] = old.into();
                }
                world.ask(officer(who, "POST", "/v1/urgent", body));
                // A slip that is noticed at once, while it is still going out.
                if self.chance(0.25) {
                    world.sleep(Duration::from_millis(self.dice.random() % 2500)).await;
                    world.ask(officer(who, "POST", &to(&id, "correct"), Value::Null));
                }
            }
            4..=8 => {
                if let Some((id, by)) = self.pick(&self.confirmable) {
                    let told =
                        world.ask_now(officer(who, "GET", &format!("/v1/announcements/{id}"), Value::Null)).await.1;
                    let second = if self.chance(0.8) { (by + 1) % 3 } else { by };
                    let hash = told["content_hash"].clone();
                    world.ask(officer(second, "POST", &to(&id, "confirm"), json!({ "content_hash": hash })));
                }
            }
            9 | 10 => {
                if let Some(id) = urgent {
                    world.ask(officer(who, "POST", &to(&id, "correct"), Value::Null));
                }
            }
            11 => {
                if let Some(id) = urgent {
                    world.ask(officer(who, "POST", &to(&id, "all-clear"), Value::Null));
                }
            }
            12 | 13 => {
                let mut body = json!({ "reason": "静默" });
                if self.chance(0.8) {
                    body["until"] = format!("{}m", 1 + self.below(20)).into();
                }
                if self.chance(0.5) {
                    body["to"] = json!([TARGETS[self.below(TARGETS.len())]]);
                }
                world.ask(officer(who, "POST", "/v1/holds", body));
            }
            14 => {
                let told = world.ask_now(officer(who, "GET", "/v1/holds", Value::Null)).await.1;
                let holds = told["items"].as_array().cloned().unwrap_or_default();
                if let Some(hold) = self.pick(&holds) {
                    let id = hold["id"].as_str().unwrap_or_default().to_owned();
                    world.ask(officer(who, "DELETE", &format!("/v1/holds/{id}"), Value::Null));
                }
            }
            15 => match routine {
                Some(id) if self.chance(0.7) => {
                    world.ask(officer(who, "POST", &to(&id, "unhold"), Value::Null));
                }
                _ => world.ask(officer(who, "POST", "/v1/unhold", Value::Null)),
            },
            16 | 17 => {
                if let Some(id) = any {
                    world.ask(officer(who, "POST", &to(&id, "cancel"), Value::Null));
                }
            }
            18 => {
                // One occurrence of a repeat.
                let told = world.ask_now(editor(who, "GET", "/v1/deliveries?limit=500", Value::Null)).await.1;
                let rows = told["items"].as_array().cloned().unwrap_or_default();
                let one = self.pick(&rows).and_then(|row| Some(row["occurrence"].as_str()?.to_owned()));
                if let Some(id) = one.filter(|id| id.starts_with('a')) {
                    let id = percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC);
                    world.ask(officer(who, "POST", &to(&id.to_string(), "cancel"), Value::Null));
                }
            }
            19 => {
                if let Some(id) = any {
                    world.ask(officer(who, "POST", &to(&id, "delete"), Value::Null));
                }
            }
            20..=22 => {
                if let Some(id) = any {
                    world.ask(officer(who, "POST", &to(&id, "retry"), Value::Null));
                }
            }
            _ => self.settle(world, 1).await,
        }
    }

    /// Somebody looks at what needs a person, and says what a browser shows.
    pub async fn settle(&self, world: &mut World, most: usize) {
        let told = world.ask_now(officer(0, "GET", "/v1/status", Value::Null)).await.1;
        let rows = told["needs_person"].as_array().cloned().unwrap_or_default();
        for row in rows.into_iter().take(most) {
            let text = |name: &str| row[name].as_str().unwrap_or("");
            let path = format!("/v1/announcements/{}", text("announcement"));
            let words = world.ask_now(officer(0, "GET", &path, Value::Null)).await.1["text"].clone();
            let posts = world.sandbox.posts();
            let is_it = |post: &&fabu::sandbox::Post| {
                let is_named = match Mark::of(&post.text) {
                    Some(Mark { kind: Kind::Own, id, .. }) => id == text("announcement"),
                    // A closing word quotes what it is about, and is not it.
                    _ => {
                        let is_closing = text("announcement").contains('-');
                        is_closing && words.as_str().is_some_and(|words| post.text.contains(words))
                    }
                };
                let at: Option<Time> = text("at").parse().ok();
                let made = world.history.wall_at(post.created);
                let is_then = !text("occurrence").contains('@') || at.is_none_or(|at| is_of_the_hour(at, made));
                post.account == text("account") && !post.deleted && is_named && is_then
            };
            let said = match posts.iter().rfind(is_it) {
                Some(post) => {
                    let shown = addresses(post, &uid_of(&post.account));
                    json!({ "published": shown[self.below(shown.len())] })
                }
                None => json!({}),
            };
            let path = format!("/v1/deliveries/{}/resolve", text("id"));
            let (status, _) = world.ask_now(officer(0, "POST", &path, said.clone())).await;
            // What stands there says something else than is wanted now, and it is the one.
            if let (409, Some(post)) = (status, posts.iter().rfind(is_it)) {
                let mut said = said;
                said["post"] = post.id.clone().into();
                world.ask_now(officer(0, "POST", &path, said)).await;
            }
        }
    }

    /// One thing that happens to the machine or around it.
    pub async fn accident(&mut self, world: &mut World) {
        let season = self.season;
        let seed = self.dice.random();
        match self.below(10) {
            0 | 1 if season.crashes => {
                world.crash().await;
                world.sleep(Duration::from_millis(self.dice.random() % 60_000)).await;
                world.start().await;
                if self.chance(0.2) {
                    // Two starts in a row.
                    world.sleep(Duration::from_millis(self.dice.random() % 1500)).await;
                    world.crash().await;
                    world.start().await;
                }
            }
            2 if season.restores => self.restore(world).await,
            3 if season.steps => {
                let seconds = [-3600, -240, -30, 20, 240, 1500][self.below(6)];
                world.clock.step(TimeDelta::seconds(seconds));
                world.history.note(What::Stepped(seconds));
            }
            4 if season.stops => {
                world.clock.freeze(true);
                world.history.note(What::Frozen);
                world.sleep(Duration::from_secs(1 + self.dice.random() % 400)).await;
                world.clock.freeze(false);
                world.history.note(What::Frozen);
            }
            5 if season.ledger => {
                world.trouble.set(self.dice.random() % 200, self.dice.random() % 100);
                world.note_trouble();
                world.sleep(Duration::from_secs(self.dice.random() % 90)).await;
                world.trouble.set(0, 0);
            }
            6 | 7 if season.network => world.sandbox.set_faults(network_faults(seed, &season)),
            8 if season.disk && self.chance(0.5) => world.trouble.slow([0, 5, 60, 400][self.below(4)]),
            8 => world.sandbox.clear(),
            9 if season.slow => match self.below(3) {
                0 => world.weather.set(0, 3),
                1 => world.weather.set(500, 6000),
                _ => world.weather.set(20, 900),
            },
            _ => {}
        }
        world.note_trouble();
    }

    /// All trouble ends and people let go what waits for them. Returns what has not ended all the same.
    pub async fn end(&mut self, world: &mut World) -> Vec<String> {
        world.clock.freeze(false);
        world.sandbox.clear();
        world.trouble.set(0, 0);
        world.trouble.slow(0);
        world.weather.set(0, 3);
        if world.process.is_none() {
            world.start().await;
        }
        // The longest settling time and the longest look of it, and what was repeated every hour is taken away.
        let repeats: Vec<(String, String)> = self
            .files
            .iter()
            .flat_map(|(file, all)| all.iter().map(move |(id, v)| (file.clone(), id.clone(), v.when)))
            .filter(|(.., when)| matches!(when, When::Hourly(_)))
            .map(|(file, id, _)| (file, id))
            .collect();
        for (file, id) in repeats {
            self.files.get_mut(&file).unwrap().retain(|(other, _)| *other != id);
            self.save(world, &file, &[(id, None)]);
        }
        // What can be seen on a timeline is found without anybody, within the longest time between two looks.
        let mut lost = self.found_by_nobody(world).await;
        for _ in 0..75 {
            if lost.is_empty() {
                break;
            }
            world.sleep(Duration::from_secs(60)).await;
            lost = self.found_by_nobody(world).await;
        }
        let mut open = Vec::new();
        for _ in 0..12 {
            world.sleep(Duration::from_secs(600)).await;
            let told = world.ask_now(officer(0, "GET", "/v1/holds", Value::Null)).await.1;
            for hold in told["items"].as_array().cloned().unwrap_or_default() {
                let id = hold["id"].as_str().unwrap_or_default().to_owned();
                world.ask_now(officer(0, "DELETE", &format!("/v1/holds/{id}"), Value::Null)).await;
            }
            world.ask_now(officer(0, "POST", "/v1/unhold", Value::Null)).await;
            let told = world.ask_now(editor(0, "GET", "/v1/status", Value::Null)).await.1;
            if let Some(plan) = told["prune"]["plan"].as_str() {
                world.ask_now(editor(0, "POST", "/v1/prune", json!({ "accept": true, "plan": plan }))).await;
            }
            world.sleep(Duration::from_secs(120)).await;
            self.settle(world, 1000).await;
            open = self.open(world).await;
            if open.is_empty() {
                break;
            }
        }
        lost.extend(open);
        lost
    }

    /// Deliveries in doubt though their platform shows enough of its timeline; weibo's shows five posts.
    async fn found_by_nobody(&self, world: &World) -> Vec<String> {
        if self.season.restores {
            // A copy knows of posts that were taken down since: a timeline without them proves nothing to it.
            return Vec::new();
        }
        let daemon = &world.process.as_ref().unwrap().daemon;
        let rows = crate::support::all(daemon).await;
        let lost = rows.iter().filter(|d| matches!(d.state, State::Unknown | State::Accepted));
        let lost = lost.filter(|d| d.account.platform() != "sina" && !world.closed.contains(d.account.as_str()));
        // A timeline that was seen to hide, and on which nothing stands by now that is known, is a person's to read.
        let hid =
            |d: &Delivery| d.reason.as_ref().is_some_and(|why| why.en.starts_with("this timeline was seen to hide"));
        let lost = lost.filter(|d| !(d.needs_person && hid(d)));
        lost.map(|d| format!("{} {} was found by nobody: {:?} {:?}", d.occurrence, d.account, d.state, d.reason))
            .collect()
    }

    /// Deliveries that have not ended.
    async fn open(&self, world: &World) -> Vec<String> {
        let daemon = &world.process.as_ref().unwrap().daemon;
        let rows = crate::support::all(daemon).await;
        let rests = |state: State| {
            matches!(state, State::Published | State::Failed | State::Expired | State::Cancelled | State::Deleted)
        };
        let now = world.clock.now();
        // What is not due yet, by a clock that was put back, need not be over.
        let waits = |d: &Delivery| {
            matches!(d.state, State::Scheduled | State::Ready | State::Held | State::Retrying) && d.at > now
        };
        let open = rows.iter().filter(|d| (!rests(d.state) || d.next_at.is_some()) && !waits(d));
        open.map(|d| {
            let Delivery { occurrence, account, state, cause, desired, reason, .. } = d;
            format!("{occurrence} {account} {state:?} {cause:?} {desired:?} {reason:?} {:?}", d.next_at)
        })
        .collect()
    }

    /// An older copy of the ledger comes back, with the mark that was beside it or with today's.
    async fn restore(&mut self, world: &mut World) {
        if self.copies.is_empty() || self.chance(0.4) {
            self.copy(world).await;
            return world.start().await;
        }
        world.crash().await;
        self.put_back(world, self.below(self.copies.len())).await;
    }

    /// The daemon ends, and what it leaves is copied.
    pub async fn copy(&mut self, world: &mut World) {
        world.crash().await;
        let file = world.ledger_file();
        // Opened once, so that the log is folded into it.
        drop(rusqlite::Connection::open(&file).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        let mark = std::fs::read(marker::beside(&file, ".mark")).unwrap();
        self.copies.push((std::fs::read(&file).unwrap(), mark, world.history.len()));
    }

    /// Where no daemon runs, a copy takes the ledger's place, and one starts.
    pub async fn put_back(&mut self, world: &mut World, copy: usize) {
        let file = world.ledger_file();
        let mark = marker::beside(&file, ".mark");
        let (ledger, its_mark, to) = self.copies[copy].clone();
        for ending in ["-wal", "-shm"] {
            drop(std::fs::remove_file(marker::beside(&file, ending)));
        }
        std::fs::write(&file, ledger).unwrap();
        if self.chance(0.5) {
            std::fs::write(&mark, its_mark).unwrap();
        }
        // A copy made after this one is of another history.
        self.copies.retain(|(.., length)| *length <= to);
        world.history.note(What::Restored { to });
        world.start().await;
    }
}

pub fn officer(n: u32, method: &'static str, path: &str, body: Value) -> Act {
    Act { by: 4001 + n % 3, method, path: path.to_owned(), body }
}

fn editor(n: u32, method: &'static str, path: &str, body: Value) -> Act {
    Act { by: 4101 + n % 2, method, path: path.to_owned(), body }
}

fn network_faults(seed: u64, season: &Season) -> Vec<fabu::sandbox::FaultRule> {
    let mut rules = Vec::new();
    let mut n = 0;
    let mut rule = |behaviour: &str, operation: &str, probability: f64, for_s: u64, mut params: Value| {
        n += 1;
        // Each by its own chance in this window.
        if (seed >> (n % 60)) & 1 == 0 {
            return;
        }
        let mut given = json!({
            "behaviour": behaviour, "operation": operation, "probability": probability, "seed": seed ^ n,
            "for_s": for_s as f64,
        });
        if let Some(platform) = params.as_object_mut().and_then(|map| map.remove("platform")) {
            given["platform"] = platform;
        }
        given["params"] = params;
        rules.push(fault(given));
    };
    rule("reset_after", "post", 0.1, 900, json!({}));
    rule("reset_before", "post", 0.1, 900, json!({}));
    rule("proxy_page", "post", 0.06, 900, json!({ "executes": true }));
    rule("proxy_page", "post", 0.06, 900, json!({ "status": 503 }));
    rule("cut_body", "post", 0.06, 900, json!({}));
    rule("black_hole", "post", 0.08, 600, json!({ "seconds": 9 }));
    // Nobody could know of a post that its ledger has forgotten and its platform does not show yet.
    let later = if season.restores { 1 } else { 50 };
    rule("delayed", "post", 0.08, 900, json!({ "seconds": later, "kind": "silent" }));
    rule("delayed", "post", 0.06, 900, json!({ "seconds": later }));
    rule("review", "post", 0.05, 900, json!({ "seconds": 400 }));
    rule("error", "post", 0.08, 600, json!({}));
    rule("unreachable", "post", 0.1, 300, json!({ "kind": "refused" }));
    rule("limit", "post", 0.1, 300, json!({}));
    rule("overload", "post", 0.1, 300, json!({}));
    rule("proxy_page", "timeline", 0.3, 900, json!({}));
    rule("reset_before", "delete", 0.3, 900, json!({}));
    rule("proxy_page", "timeline", 1.0, 700, json!({}));
    rule("latency", "post", 0.2, 900, json!({ "latency": "2s..9s" }));
    rule("black_hole", "check", 0.2, 600, json!({ "executes": false }));
    if season.timelines {
        // Two dialects have no word for it, and weibo shows five of any number: nobody could know.
        rule("gap", "timeline", 0.5, 900, json!({ "kind": "cut", "platform": "tencent" }));
        rule("gap", "timeline", 0.5, 900, json!({ "kind": "empty" }));
        rule("gap", "timeline", 0.5, 900, json!({ "kind": "lie" }));
    }
    rules
}
