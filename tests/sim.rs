//! The engine in simulated time over the sandbox's faults, with crashes at drawn instants, by seed.
//!
//! A failure prints its seed; `FABU_SEED=n cargo test --test sim` runs that one alone, `FABU_SEEDS=n`
//! as many as wanted. What counts is what stands on the platforms, never what the daemon believes.

#[path = "sim/judge.rs"]
mod judge;
#[path = "sim/network.rs"]
mod network;
#[path = "sim/people.rs"]
mod people;
#[path = "sim/points.rs"]
mod points;
#[path = "sim/scenes.rs"]
mod scenes;
mod support;
#[path = "sim/trouble.rs"]
mod trouble;
#[path = "sim/world.rs"]
mod world;

use std::time::Duration;

use fabu::clock::Clock;
use fabu::core::change::GENESIS;
use fabu::core::delivery::{Delivery, State};
use fabu::daemon::Daemon;
use serde_json::json;
use support::{City, all, fault, simulate};

const START: &str = "2026-11-24T00:00:00Z";
/// The last announcement's hour, in minutes after the start.
const SPAN_MIN: i64 = 20;

/// A queue of one-time announcements over the span, each text unique, some superseding, some edited later.
fn queue(dice: &Clock) -> String {
    let mut text = "announcements:\n".to_owned();
    let targets =
        ["[\"**\"]", "[shanghai, \"#district\"]", "[\"sina:**\"]", "[\"shanghai/pudong/**\"]", "[shanghai/metro]"];
    for n in 0..8 {
        let second = 60 + dice.random() % (SPAN_MIN as u64 * 60);
        let at = fabu::clock::from_micros(support::utc(START).timestamp_micros() + second as i64 * 1_000_000);
        let to = targets[(dice.random() % targets.len() as u64) as usize];
        text += &format!(
            "  - id: a{n}\n    text: 第{n}号通知【{n}】请注意\n    at: {}\n    to: {to}\n    expires_after: 2h\n    catch_up: 2h\n",
            at.to_rfc3339()
        );
        if n == 6 {
            text += "    supersedes: a2\n";
        }
    }
    text
}

fn faults(seed: u64) -> Vec<fabu::sandbox::FaultRule> {
    let rule = |behaviour: &str, probability: f64, params: serde_json::Value| {
        fault(
            json!({ "behaviour": behaviour, "operation": "post", "probability": probability, "seed": seed, "params": params }),
        )
    };
    vec![
        rule("reset_after", 0.06, json!({})),
        rule("reset_before", 0.04, json!({})),
        rule("proxy_page", 0.03, json!({ "executes": true })),
        rule("proxy_page", 0.03, json!({ "status": 503 })),
        rule("cut_body", 0.03, json!({})),
        rule("black_hole", 0.03, json!({ "seconds": 8 })),
        rule("delayed", 0.03, json!({ "seconds": 60, "kind": "silent" })),
        rule("unreachable", 0.03, json!({ "kind": "refused" })),
        fault(json!({ "behaviour": "proxy_page", "operation": "timeline", "probability": 0.1, "seed": seed + 1 })),
        fault(json!({ "behaviour": "reset_before", "operation": "delete", "probability": 0.3, "seed": seed + 2 })),
    ]
}

async fn run(seed: u64) {
    let city = City::new(START, seed, "");
    let dice = Clock::simulated(support::utc(START), seed ^ 0xfab0);
    city.save("day.yaml", &queue(&dice));
    city.sandbox.set_faults(faults(seed));
    let mut daemon = city.start().await;
    let end = city.clock.mono().0 + Duration::from_secs(SPAN_MIN as u64 * 60 + 120);
    while city.clock.mono().0 < end {
        city.clock.sleep(Duration::from_millis(1 + dice.random() % 240_000)).await;
        if dice.chance() < 0.8 {
            drop(daemon);
            city.clock.sleep(Duration::from_millis(dice.random() % 90_000)).await;
            daemon = city.start().await;
        }
    }
    // R24: once the faults stop, everything ends.
    city.sandbox.clear();
    let ended = support::settled(&city, &daemon, Duration::from_secs(3600)).await;
    let rows = all(&daemon).await;
    let open: Vec<_> =
        rows.iter().filter(|d| d.next_at.is_some()).map(|d| (&d.account, d.state, d.reason.clone())).collect();
    assert!(ended, "seed {seed}: not everything ended: {open:?}");
    check(&city, &daemon, &rows, seed).await;
}

async fn check(city: &City, daemon: &Daemon, rows: &[Delivery], seed: u64) {
    let posts = city.sandbox.posts();
    for row in rows {
        let mark = format!("【{}】", row.announcement.as_str().trim_start_matches('a'));
        let mine: Vec<_> =
            posts.iter().filter(|p| p.account == row.account.as_str() && p.text.contains(&mark)).collect();
        let (account, id) = (&row.account, &row.announcement);
        assert!(mine.len() <= 1, "seed {seed}: {id} stands {} times on {account}", mine.len());
        match row.state {
            State::Published => {
                assert_eq!(mine.len(), 1, "seed {seed}: {id} on {account} has a receipt and no post");
                assert!(!mine[0].deleted, "seed {seed}: {id} on {account} is gone");
            }
            State::Deleted => assert!(mine[0].deleted, "seed {seed}: {id} on {account} was not taken down"),
            State::Unknown => assert!(row.needs_person, "seed {seed}"),
            State::Cancelled => {
                assert!(mine.is_empty(), "seed {seed}: {id} on {account} was cancelled and stands there")
            }
            State::Failed | State::Expired => {
                assert!(
                    mine.is_empty(),
                    "seed {seed}: {id} on {account} is {:?} ({:?}) and stands there",
                    row.state,
                    row.reason
                );
            }
            other => panic!("seed {seed}: {id} on {account} rests as {other:?}"),
        }
        for post in mine {
            assert!(post.created >= row.at, "seed {seed}: {id} on {account} was early");
        }
        if let Some(receipt) = row.receipt.as_ref().filter(|r| !r.post_id.is_empty()) {
            let theirs = posts.iter().any(|p| p.account == row.account.as_str() && p.id == receipt.post_id);
            assert!(theirs, "seed {seed}: the receipt of {id} on {account} is no post");
        }
    }
    let records = daemon.inner.ledger.events(0, 1_000_000).await.unwrap();
    let (mut seq, mut hash) = (0, GENESIS.to_owned());
    for record in records {
        assert!(record.follows(seq, &hash), "seed {seed}: the chain breaks at {}", record.seq);
        (seq, hash) = (record.seq, record.hash);
    }
}

/// A stretch of a city's day with people and accidents; then all trouble ends, and so has everything else to.
async fn day(seed: u64, minutes: u64) {
    let mut world = world::World::new(START, seed);
    let until = world.clock.now() + chrono::TimeDelta::minutes(minutes as i64 + 60);
    let mut people = people::People::new(seed, until);
    people.begin(&mut world);
    world.start().await;
    world.sleep(Duration::from_secs(120)).await;
    let end = world.truth.mono().0 + Duration::from_secs(minutes * 60);
    while world.truth.mono().0 < end {
        world.sleep(Duration::from_millis(1 + people.dice.random() % 60_000)).await;
        match people.dice.random() % 12 {
            0..=3 => people.edit(&mut world).await,
            4..=7 if people.season.people => people.act(&mut world).await,
            8 | 9 if people.season.people => people.scene(&mut world).await,
            _ => people.accident(&mut world).await,
        }
    }
    let ended = people.end(&mut world).await;
    let judge = judge::Judge::new(&world, people.season, seed).await;
    if let Ok(about) = std::env::var("FABU_TELL") {
        world.history.tell(world.process.as_ref().map(|p| &p.daemon)).await;
        judge::told(&judge.record, &world.history.told.lock().unwrap(), &about);
    }
    judge.judge();
    assert!(ended.is_empty(), "seed {seed}: not everything ended: {ended:?}");
}

/// R1, R5, R6, R8, R24, R51, R52 over many seeds, with people and accidents.
#[test]
fn r52_what_was_promised_is_so_whatever_people_do() {
    people(0);
}

/// The other half of the seeds, at the same time.
#[test]
fn r52_what_was_promised_is_so_whatever_other_people_do() {
    people(1);
}

fn people(half: u64) {
    let minutes = std::env::var("FABU_MINUTES").ok().and_then(|v| v.parse().ok()).unwrap_or(20);
    let is_alone = std::env::var("FABU_SEED").is_ok();
    seeds("people", 200, |seed| {
        if is_alone && half == 0 || !is_alone && seed % 2 == half {
            simulate(day(seed, minutes));
        }
    });
}

/// R1, R7, R8, R24 over many seeds.
#[test]
fn r01_nothing_is_posted_twice_and_everything_ends_whatever_crashes() {
    seeds("alone", 60, |seed| simulate(run(seed)));
}

/// Runs the kept seeds of this test and the first `most`, or what the environment asks for.
fn seeds(test: &str, most: u64, work: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let kept = include_str!("seeds.txt").lines().filter_map(|line| {
        let (of, seed) = line.split_once(' ')?;
        seed.split_whitespace().next()?.parse().ok().filter(|_| of == test)
    });
    let from = number("FABU_FROM").unwrap_or(1);
    let all: Vec<u64> = match number("FABU_SEED") {
        Some(seed) => vec![seed],
        None => kept.chain(from..from + number("FABU_SEEDS").unwrap_or(most)).collect(),
    };
    let mut failed = Vec::new();
    for seed in all {
        if std::panic::catch_unwind(|| work(seed)).is_err() {
            failed.push(seed);
            assert!(number("FABU_GO_ON").is_some(), "run again with FABU_SEED={seed} cargo test --test sim");
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// Each fault alone, on every call for ten minutes around the hour; then none.
#[test]
fn r24_when_a_fault_stops_every_delivery_ends_and_soon() {
    let behaviours = [
        ("reset_after", json!({})),
        ("reset_before", json!({})),
        ("unreachable", json!({ "kind": "refused" })),
        ("unreachable", json!({ "kind": "hang" })),
        ("black_hole", json!({ "seconds": 8 })),
        ("proxy_page", json!({ "status": 503 })),
        ("proxy_page", json!({ "executes": true })),
        ("cut_body", json!({})),
        ("overload", json!({})),
        ("limit", json!({})),
        ("stale", json!({})),
        ("eaten", json!({})),
    ];
    for (n, (behaviour, params)) in behaviours.into_iter().enumerate() {
        simulate(async {
            let case = format!("{behaviour} {params}");
            let city = City::new(START, 100 + n as u64, "");
            let line = "text: 早安, at: 2026-11-24 08:05, to: [\"**\"], expires_after: 2h, catch_up: 2h";
            city.save("a.yaml", &format!("announcements:\n  - {{id: a, {line}}}\n"));
            let daemon = city.start().await;
            // Prepared in peace, so that it is the sending that meets it.
            city.sleep(290).await;
            city.sandbox.set_faults(vec![fault(json!({ "behaviour": behaviour, "params": params }))]);
            city.sleep(600).await;
            assert!(city.sandbox.faults()[0].2 > 0, "{case}: it met nobody");
            city.sandbox.clear();
            // Twice the longest time-out, and the longest back-off or settling: ten minutes, and an hourly window.
            let ended = support::settled(&city, &daemon, Duration::from_secs(2 * 30 + 600 + 3600)).await;
            let rows = all(&daemon).await;
            let open: Vec<_> = rows.iter().filter(|d| d.next_at.is_some()).map(|d| (&d.account, d.state)).collect();
            assert!(ended, "{case}: not everything ended: {open:?}");
            let posts = city.sandbox.posts();
            for row in rows {
                let stands = posts.iter().filter(|p| p.account == row.account.as_str()).count();
                let right = match row.state {
                    State::Published => stands == 1,
                    State::Failed => stands == 0,
                    // For a person, who has been told.
                    State::Unknown => stands <= 1,
                    _ => false,
                };
                assert!(right, "{case}: {} is {:?} and stands {stands} times", row.account, row.state);
            }
        });
    }
}
