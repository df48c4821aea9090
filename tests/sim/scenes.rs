//! Stories of several acts, one close upon the other: what seldom meets by chance.

use std::time::Duration;

use chrono::{TimeDelta, Timelike as _};
use fabu::clock::Time;
use serde_json::{Value, json};

use super::network::What;
use super::people::{People, TARGETS, Version, When, officer};
use super::world::World;
use crate::support::fault;

const PLATFORMS: [&str; 4] = ["sina", "tencent", "eastday", "xinmin"];

impl People {
    pub async fn scene(&mut self, world: &mut World) {
        // What only some runs have comes often there.
        let rare = self.chance(0.25);
        match self.below(19) {
            _ if rare && self.season.steps => self.put_back_while_it_is_urgent(world).await,
            _ if rare && self.season.restores => self.a_copy_and_one_more_account(world).await,
            _ if rare && self.season.timelines => self.lost_where_nobody_shows_it(world).await,
            0 => self.a_slip_while_it_goes_out(world).await,
            1 => self.edited_while_some_are_late(world).await,
            2 => self.edited_while_it_is_held(world).await,
            3 => self.overtaken_before_it_was_out(world).await,
            4 => self.urgent_after_a_limit(world).await,
            5 => self.edited_where_a_newer_one_stands(world).await,
            6 => self.the_next_hour_of_what_was_superseded(world).await,
            7 => self.stopped_while_it_is_reviewed(world).await,
            8 => self.given_up_and_there_again(world).await,
            9 => self.stopped_while_it_is_far(world).await,
            10 => self.several_at_the_same_moment(world).await,
            11 => self.moved_in_its_moment(world).await,
            12 => self.silent_while_some_are_late(world).await,
            13 => self.refused_and_then_over(world).await,
            16 | 17 => self.stopped_while_it_is_reviewed(world).await,
            14 if !self.season.restores => self.settled_by_what_a_browser_shows(world).await,
            15 if !self.season.restores => self.there_only_later(world).await,
            _ => self.a_slip_while_it_goes_out(world).await,
        }
    }

    /// An emergency is corrected while connections open one after the other.
    async fn a_slip_while_it_goes_out(&mut self, world: &mut World) {
        world.weather.set(50, 3000);
        if self.season.disk || self.chance(0.5) {
            world.trouble.slow(600);
        }
        world.note_trouble();
        let id = self.urgent_by_two(world, "**").await;
        self.pause(world, 2500).await;
        world.ask(officer(1, "POST", &act(&id, "correct"), Value::Null));
        self.pause(world, 6000).await;
        world.weather.set(0, 3);
        world.trouble.slow(0);
        world.note_trouble();
    }

    /// A platform cannot be reached at the hour of a repeat, and an editor changes the words meanwhile.
    async fn edited_while_some_are_late(&mut self, world: &mut World) {
        let (id, at) = self.hourly(world, "**");
        self.wait_until(world, at - TimeDelta::seconds(5)).await;
        self.unreachable(world, 1 + self.below(2), 30 + self.below(300));
        self.wait_until(world, at + TimeDelta::seconds(2 + self.below(40) as i64)).await;
        self.change(world, &id, |_| {});
    }

    /// The hour of an announcement comes while it is held; its words are changed, and it is let go.
    async fn edited_while_it_is_held(&mut self, world: &mut World) {
        let (id, at) = if self.chance(0.6) { self.hourly(world, "**") } else { self.one_at(world, 100, "**", None) };
        self.wait_until(world, at - TimeDelta::seconds(20)).await;
        let who = self.below(3) as u32;
        let to = if self.chance(0.7) { "**" } else { "sina:**" };
        let body = json!({ "reason": "静默", "until": "2m", "to": [to] });
        world.ask_now(officer(who, "POST", "/v1/holds", body)).await;
        self.wait_until(world, at + TimeDelta::seconds(2 + self.below(130) as i64)).await;
        self.change(world, &id, |_| {});
        self.pause(world, 30_000).await;
        self.wait_until(world, at + TimeDelta::seconds(110)).await;
        world.ask(officer(who, "POST", &act(&id, "unhold"), Value::Null));
    }

    /// One takes the place of another that was late on a platform, and that of a third.
    async fn overtaken_before_it_was_out(&mut self, world: &mut World) {
        let (oldest, at) = self.one_at(world, 60, "**", None);
        let (middle, next) = self.one_at(world, 120, "**", Some(oldest));
        self.one_at(world, 180, TARGETS[self.below(TARGETS.len())], Some(middle));
        self.wait_until(world, at + TimeDelta::seconds(30)).await;
        self.unreachable(world, 1, 50 + self.below(60));
        self.wait_until(world, next + TimeDelta::seconds(61)).await;
        world.sandbox.clear();
        world.note_trouble();
    }

    /// Routine is told to wait, and then there is an emergency.
    async fn urgent_after_a_limit(&mut self, world: &mut World) {
        let (_, at) = self.one_at(world, 60, "**", None);
        self.wait_until(world, at - TimeDelta::seconds(3)).await;
        let platform = PLATFORMS[self.below(4)];
        world.sandbox.set_faults(vec![fault(json!({
            "behaviour": "limit", "operation": "post", "platform": platform, "probability": 1.0, "for_s": 60.0,
        }))]);
        world.note_trouble();
        self.wait_until(world, at + TimeDelta::seconds(4)).await;
        world.sandbox.clear();
        world.note_trouble();
        self.urgent_by_two(world, "**").await;
        world.sleep(Duration::from_secs(70)).await;
    }

    /// A newer one is out on some accounts before the hour of the older one, which an editor changes then.
    async fn edited_where_a_newer_one_stands(&mut self, world: &mut World) {
        let narrow = if self.chance(0.5) { "**" } else { "shanghai/metro" };
        let (old, _) = self.one_at(world, 400, narrow, None);
        let (_, at) = self.one_at(world, 60, TARGETS[self.below(TARGETS.len())], Some(old.clone()));
        self.wait_until(world, at + TimeDelta::seconds(3 + self.below(20) as i64)).await;
        let sooner = world.clock.now() + TimeDelta::seconds(100);
        let is_moved = self.chance(0.5);
        self.change(world, &old, |version| {
            version.to = "**";
            if is_moved {
                version.when = When::At(whole(sooner));
            }
        });
    }

    /// A repeat is superseded on some accounts: they have no next hour of it.
    async fn the_next_hour_of_what_was_superseded(&mut self, world: &mut World) {
        let (old, at) = self.hourly(world, "**");
        self.wait_until(world, at + TimeDelta::seconds(5)).await;
        let (_, at) = self.one_at(world, 60, TARGETS[self.below(TARGETS.len())], Some(old.clone()));
        self.wait_until(world, at + TimeDelta::seconds(10)).await;
        if self.chance(0.7) {
            self.change(world, &old, |_| {});
        }
        if self.chance(0.4) {
            world.sleep(Duration::from_secs(3660)).await;
        }
    }

    /// The platforms look at a post before they show it, and somebody wants it gone meanwhile.
    async fn stopped_while_it_is_reviewed(&mut self, world: &mut World) {
        let (id, at) = self.one_at(world, 60, "**", None);
        self.wait_until(world, at - TimeDelta::seconds(2)).await;
        world.sandbox.set_faults(vec![fault(json!({
            "behaviour": "review", "operation": "post", "probability": 0.7, "seed": self.dice.random(), "for_s": 30.0,
            "params": { "seconds": 20 + self.below(200) },
        }))]);
        world.note_trouble();
        self.wait_until(world, at + TimeDelta::seconds(1)).await;
        self.pause(world, 60_000).await;
        world.sandbox.clear();
        world.note_trouble();
        match self.below(4) {
            0 => world.ask(officer(0, "POST", &act(&id, "cancel"), Value::Null)),
            1 => world.ask(officer(1, "POST", &act(&id, "delete"), Value::Null)),
            2 => self.change(world, &id, |_| {}),
            _ => {}
        }
    }

    /// An emergency of the queue has its words, is taken out before its hour, and is in its file again later.
    async fn given_up_and_there_again(&mut self, world: &mut World) {
        let at = whole(world.clock.now() + TimeDelta::seconds(90));
        let to = TARGETS[self.below(TARGETS.len())];
        let version =
            Version { number: 1, when: When::At(at), to, is_exempt: false, supersedes: None, level: Some("red") };
        let id = self.write(world, version.clone());
        world.sleep(Duration::from_secs(12)).await;
        for who in [0, 1] {
            self.word(world, &id, who).await;
        }
        self.pause(world, 30_000).await;
        let is_edited = self.chance(0.5);
        if is_edited {
            self.change(world, &id, |_| {});
        } else {
            self.remove(world, &id);
        }
        self.wait_until(world, at + TimeDelta::seconds(20 + self.below(900) as i64)).await;
        if is_edited {
            self.change(world, &id, |changed| *changed = version);
        } else {
            self.write_as(world, id, version);
        }
    }

    /// An announcement for the coming week is cancelled while somebody saves it; later it is given an hour that comes soon.
    async fn stopped_while_it_is_far(&mut self, world: &mut World) {
        let id = self.one_at(world, 7 * 86_400, "**", None).0;
        world.sleep(Duration::from_secs(12)).await;
        if self.season.disk {
            world.trouble.slow(400);
            world.note_trouble();
        }
        self.change(world, &id, |_| {});
        // It is read within a second.
        self.pause(world, 2000).await;
        world.ask(officer(0, "POST", &act(&id, "cancel"), Value::Null));
        world.sleep(Duration::from_secs(15)).await;
        world.trouble.slow(0);
        world.note_trouble();
        let soon = whole(world.clock.now() + TimeDelta::seconds(60));
        self.change(world, &id, |version| version.when = When::At(soon));
    }

    /// Officers and editors who know nothing of each other.
    async fn several_at_the_same_moment(&mut self, world: &mut World) {
        let id = match self.below(3) {
            0 => self.urgent_by_two(world, TARGETS[self.below(TARGETS.len())]).await,
            _ => {
                let to = if self.chance(0.5) { "**" } else { "shanghai/pudong/**" };
                let (id, at) = self.one_at(world, 60, to, None);
                let left = if self.chance(0.5) { self.below(4000) as i64 - 2000 } else { -30_000 };
                self.wait_until(world, at + TimeDelta::milliseconds(left)).await;
                if self.season.disk {
                    world.trouble.slow(60);
                    world.note_trouble();
                }
                id
            }
        };
        let acts = ["cancel", "delete", "retry", "unhold", "correct", "all-clear", "hold", "edit"];
        for n in 0..2 + self.below(3) {
            match acts[self.below(acts.len())] {
                "hold" => world.ask(officer(n as u32, "POST", "/v1/holds", json!({ "reason": "静默", "until": "2m" }))),
                "edit" => self.change(world, &id, |_| {}),
                what => world.ask(officer(n as u32, "POST", &act(&id, what), Value::Null)),
            }
            self.pause(world, 40).await;
        }
        world.sleep(Duration::from_secs(3)).await;
        world.trouble.slow(0);
        world.note_trouble();
        // One that was stopped is stopped for accounts that are named only now, too.
        if self.chance(0.5) {
            self.pause(world, 20_000).await;
            self.change(world, &id, |version| version.to = "**");
        }
    }

    /// Another hour, or none any more, in the very moment of its release.
    async fn moved_in_its_moment(&mut self, world: &mut World) {
        let (id, at) = self.one_at(world, 60, "**", None);
        self.wait_until(world, at + TimeDelta::milliseconds(self.below(4000) as i64 - 3000)).await;
        let later = at + TimeDelta::seconds(60 + self.below(200) as i64);
        if self.chance(0.3) {
            return self.remove(world, &id);
        }
        self.change(world, &id, |version| version.when = When::At(whole(later)));
    }

    /// A platform cannot be reached at the hour, or the daemon is away, and a hold comes and goes meanwhile.
    async fn silent_while_some_are_late(&mut self, world: &mut World) {
        let (_, at) = self.one_at(world, 90, "**", None);
        let is_away = self.season.crashes && self.chance(0.5);
        let lead = if is_away { -20 } else { 3 };
        self.wait_until(world, at - TimeDelta::seconds(3)).await;
        self.unreachable(world, 4, 40);
        self.wait_until(world, at + TimeDelta::seconds(lead)).await;
        let body = json!({ "reason": "静默", "until": "1m" });
        let (_, hold) = world.ask_now(officer(0, "POST", "/v1/holds", body)).await;
        if is_away {
            world.crash().await;
            world.sleep(Duration::from_secs(70)).await;
            world.start().await;
        } else {
            self.pause(world, 20_000).await;
            let path = format!("/v1/holds/{}", hold["id"].as_str().unwrap_or_default());
            world.ask_now(officer(1, "DELETE", &path, Value::Null)).await;
        }
        world.sandbox.clear();
        world.note_trouble();
        world.sleep(Duration::from_secs(60)).await;
    }

    /// Nobody can be reached when an emergency goes out, and then the clock is put back.
    async fn put_back_while_it_is_urgent(&mut self, world: &mut World) {
        self.unreachable(world, 1 + self.below(4), 60);
        self.urgent_by_two(world, "**").await;
        self.pause(world, 8000).await;
        let seconds = [-3600, -1800][self.below(2)];
        world.clock.step(TimeDelta::seconds(seconds));
        world.history.note(What::Stepped(seconds));
        self.pause(world, 8000).await;
        world.sandbox.clear();
        world.note_trouble();
        world.sleep(Duration::from_secs(430)).await;
    }

    /// A platform refuses an emergency; then it is over, and somebody has it tried again all the same.
    async fn refused_and_then_over(&mut self, world: &mut World) {
        world.sandbox.set_faults(vec![fault(json!({
            "behaviour": "error", "operation": "post", "platform": PLATFORMS[self.below(4)], "for_s": 30.0,
        }))]);
        world.note_trouble();
        let id = self.urgent_by_two(world, "**").await;
        world.sleep(Duration::from_secs(6)).await;
        world.sandbox.clear();
        world.note_trouble();
        let over = ["correct", "all-clear"][self.below(2)];
        world.ask_now(officer(1, "POST", &act(&id, over), Value::Null)).await;
        self.pause(world, 9000).await;
        world.ask_now(officer(2, "POST", &act(&id, "retry"), Value::Null)).await;
        world.sleep(Duration::from_secs(10)).await;
    }

    /// Answers are lost where timelines cannot be read, until a person says what a browser shows; the next post meets the
    /// same.
    async fn settled_by_what_a_browser_shows(&mut self, world: &mut World) {
        for _ in 0..2 {
            let (_, at) = self.one_at(world, 60, TARGETS[self.below(2)], None);
            self.wait_until(world, at - TimeDelta::seconds(3)).await;
            world.sandbox.set_faults(vec![
                fault(json!({ "behaviour": "reset_after", "operation": "post" })),
                fault(json!({ "behaviour": "proxy_page", "operation": "timeline" })),
            ]);
            world.note_trouble();
            self.wait_until(world, at + TimeDelta::seconds(10)).await;
            world.sandbox.set_faults(vec![fault(json!({ "behaviour": "proxy_page", "operation": "timeline" }))]);
            world.sleep(Duration::from_secs(330)).await;
            self.settle(world, 100).await;
            world.sandbox.clear();
            world.note_trouble();
        }
    }

    /// Answers are lost where a timeline shows nothing, or not all, and says so or does not.
    async fn lost_where_nobody_shows_it(&mut self, world: &mut World) {
        let (_, at) = self.one_at(world, 60, "**", None);
        self.wait_until(world, at - TimeDelta::seconds(3)).await;
        // Two dialects have no word for a cut.
        let gap = match self.below(3) {
            0 => {
                json!({ "behaviour": "gap", "operation": "timeline", "platform": "tencent", "params": { "kind": "cut" } })
            }
            1 => json!({ "behaviour": "gap", "operation": "timeline", "params": { "kind": "empty" } }),
            _ => json!({ "behaviour": "gap", "operation": "timeline", "params": { "kind": "lie" } }),
        };
        world.sandbox.set_faults(vec![
            fault(json!({ "behaviour": "reset_after", "operation": "post", "for_s": 10.0 })),
            fault(gap),
        ]);
        world.note_trouble();
        self.wait_until(world, at + TimeDelta::seconds(360)).await;
        world.sandbox.clear();
        world.note_trouble();
    }

    /// The platforms show a post only some time after its request was cut off.
    async fn there_only_later(&mut self, world: &mut World) {
        let (_, at) = self.one_at(world, 60, "**", None);
        self.wait_until(world, at - TimeDelta::seconds(3)).await;
        let params = json!({ "seconds": 20 + self.below(30), "kind": "silent" });
        world.sandbox.set_faults(vec![fault(
            json!({ "behaviour": "delayed", "operation": "post", "for_s": 10.0, "params": params }),
        )]);
        world.note_trouble();
        self.wait_until(world, at + TimeDelta::seconds(60)).await;
        world.sandbox.clear();
        world.note_trouble();
    }

    /// A copy of the ledger from before an hour comes back after it, when the announcement is for more accounts.
    async fn a_copy_and_one_more_account(&mut self, world: &mut World) {
        let (id, at) = self.one_at(world, 90, "shanghai/pudong/**", None);
        world.sleep(Duration::from_secs(15)).await;
        self.copy(world).await;
        world.start().await;
        self.wait_until(world, at + TimeDelta::seconds(20)).await;
        world.crash().await;
        self.change(world, &id, |version| {
            version.number -= 1;
            version.to = "**";
        });
        self.put_back(world, self.copies.len() - 1).await;
        world.sleep(Duration::from_secs(20)).await;
    }

    /// Sleeps a drawn time of at most so many milliseconds.
    async fn pause(&self, world: &World, most_ms: u64) {
        world.sleep(Duration::from_millis(self.dice.random() % most_ms)).await;
    }

    /// By the machine's clock as it goes now; a step meanwhile is nobody's matter here.
    async fn wait_until(&self, world: &World, at: Time) {
        world.sleep((at - world.clock.now()).to_std().unwrap_or_default()).await;
    }

    fn unreachable(&self, world: &World, platforms: usize, seconds: usize) {
        let first = self.below(4);
        let rules = (0..platforms).map(|n| {
            fault(json!({
                "behaviour": "unreachable", "operation": "post", "platform": PLATFORMS[(first + n) % 4],
                "probability": 1.0, "for_s": seconds as f64, "params": { "kind": "refused" },
            }))
        });
        world.sandbox.set_faults(rules.collect());
        world.note_trouble();
    }

    /// A new announcement in so many seconds.
    fn one_at(
        &mut self,
        world: &mut World,
        seconds: i64,
        to: &'static str,
        supersedes: Option<String>,
    ) -> (String, Time) {
        let at = whole(world.clock.now() + TimeDelta::seconds(seconds));
        (self.put(world, When::At(at), to, supersedes), at)
    }

    /// A new one that repeats every hour, at a minute that comes soon.
    fn hourly(&mut self, world: &mut World, to: &'static str) -> (String, Time) {
        let at = world.clock.now() + TimeDelta::seconds(100);
        let at = fabu::clock::from_micros(at.timestamp() / 60 * 60 * 1_000_000);
        (self.put(world, When::Hourly(at.minute()), to, None), at)
    }

    fn put(&mut self, world: &mut World, when: When, to: &'static str, supersedes: Option<String>) -> String {
        let version = Version { number: 1, when, to, is_exempt: false, supersedes, level: None };
        self.write(world, version)
    }

    /// An emergency with the word of two persons.
    async fn urgent_by_two(&mut self, world: &mut World, to: &str) -> String {
        let id = self.next_urgent(0);
        let level = ["red", "blue"][self.below(2)];
        let body = json!({ "id": id, "text": format!("【{id}.1】紧急"), "level": level, "to": [to] });
        world.ask_now(officer(0, "POST", "/v1/urgent", body)).await;
        for who in [1, 2] {
            if self.word(world, &id, who).await < 300 {
                break;
            }
        }
        id
    }

    /// Somebody gives their word to what they are shown.
    async fn word(&self, world: &World, id: &str, who: u32) -> u16 {
        let shown = world.ask_now(officer(who, "GET", &format!("/v1/announcements/{id}"), Value::Null)).await.1;
        let word = json!({ "content_hash": shown["content_hash"] });
        world.ask_now(officer(who, "POST", &act(id, "confirm"), word)).await.0
    }
}

fn act(id: &str, what: &str) -> String {
    format!("/v1/announcements/{id}/{what}")
}

fn whole(at: Time) -> Time {
    fabu::clock::from_micros(at.timestamp() * 1_000_000)
}
