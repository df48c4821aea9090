//! What an answer promises: acknowledged is on disk, and held is silent, whatever is killed right after.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use fabu::clock::Time;

use crate::outdoors::{OPEN, Outdoors, rounds, runtime};

/// The allowance of R5: what was in the hands of a connection may still be written.
const ALLOWANCE: TimeDelta = TimeDelta::milliseconds(20);

#[test]
fn r02_acknowledged_and_killed_at_once_it_is_out_once_on_every_account() {
    runtime().block_on(async {
        // So many that no account has a page full of posts within two minutes: there tencent's list, whose ids do not
        // grow, proves no absence, and what was killed while it was sent rightly waits for a person.
        const UNITS: usize = 60;
        let city = Outdoors::new(UNITS, "").await;
        let rounds = rounds("FABU_KILLS", 10);
        let mut daemon = city.start().await;
        for n in 0..rounds {
            let unit = n % UNITS;
            let body = format!(r#"{{"text":"第{n}号通告【{n}】","to":["city/u{unit}"],"level":"blue","id":"n{n}"}}"#);
            let sent = city.ask("POST", "/v1/urgent", &body);
            assert_eq!(sent.status, 202, "{sent:?}");
            let micros = city.clock.random() % 5000;
            city.clock.sleep_until(sent.at + TimeDelta::microseconds(micros as i64)).await;
            daemon.kill();
            daemon = city.start().await;
            if n % 10 == 9 {
                // So that timelines need not be read back over hundreds of posts.
                assert_eq!(city.none_is(&OPEN).await, None, "not everything ended");
            }
        }
        assert_eq!(city.none_is(&[&OPEN[..], &["held"]].concat()).await, None, "not everything ended");
        let count = count_of(&city).await;
        let twice: Vec<_> = count.iter().filter(|(_, n)| **n > 1).collect();
        assert!(twice.is_empty(), "posted twice: {twice:?}");
        assert_eq!(count.len(), rounds * 4, "lost");
        println!("r02: {rounds} kills, {} posts, each once", count.len());
    });
}

#[test]
fn r02_a_large_one_killed_before_it_is_rows_is_out_once_on_every_account() {
    runtime().block_on(async {
        const UNITS: usize = 40;
        let city = Outdoors::new(UNITS, "").await;
        let mut daemon = city.start().await;
        // Few, for the same reason as above: each is a post on every account.
        let rounds = 6;
        for n in 0..rounds {
            let body = format!(r#"{{"text":"第{n}号通告【{n}】","to":["**"],"level":"blue","id":"n{n}","hold":"1h"}}"#);
            let sent = city.ask("POST", "/v1/urgent", &body);
            assert_eq!(sent.status, 202, "{sent:?}");
            let micros = city.clock.random() % 5000;
            city.clock.sleep_until(sent.at + TimeDelta::microseconds(micros as i64)).await;
            daemon.kill();
            daemon = city.start().await;
            let found = city.ask("GET", &format!("/v1/deliveries?announcement=n{n}&limit=1000"), "");
            assert_eq!(found.value["items"].as_array().map(Vec::len), Some(UNITS * 4), "all of them are there");
            assert_eq!(city.ask("GET", "/v1/holds", "").value["items"].as_array().map(Vec::len), Some(n + 1));
            assert_eq!(city.none_is(&OPEN).await, None, "not everything ended");
        }
        let count = count_of(&city).await;
        assert!(count.values().all(|n| *n == 1), "posted twice");
        assert_eq!(count.len(), rounds * UNITS * 4, "lost");
    });
}

/// How often each account carries each text.
async fn count_of(city: &Outdoors) -> BTreeMap<(String, String), u32> {
    let mut count = BTreeMap::new();
    for post in city.posts().await {
        let text = |key: &str| post[key].as_str().unwrap().to_owned();
        *count.entry((text("account"), text("text"))).or_default() += 1;
    }
    count
}

/// When a hold was acknowledged and when its end was asked for.
struct Silence {
    from: Time,
    to: Time,
    killed: bool,
}

#[test]
fn r05_after_a_hold_is_acknowledged_no_routine_request_begins() {
    runtime().block_on(async {
        /// Each release goes to one of the groups, for the same reason as above.
        const GROUPS: usize = 4;
        const UNITS: usize = 50;
        let city = Outdoors::new(GROUPS * UNITS, "").await;
        let rounds = rounds("FABU_HOLDS", 10);
        let mut daemon = city.start().await;
        let mut silences = Vec::new();
        for n in 0..rounds {
            let at = city.clock.now() + TimeDelta::milliseconds(1300);
            let when = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let units = (0..UNITS).map(|u| format!("city/u{}", u * GROUPS + n % GROUPS)).collect::<Vec<_>>().join(", ");
            let text =
                format!("announcements:\n  - {{id: a{n}, text: 第{n}号【{n}】, at: \"{when}\", to: [{units}]}}\n");
            city.save("q.yaml", &text);
            // Before the arming, between arming and release, in the burst, and behind it; every other time the burst.
            let (from, span) = if n % 2 == 0 { (-350, 500) } else { (-10, 60) };
            let drawn = from + (city.clock.random() % span) as i64;
            city.clock.sleep_until(at + TimeDelta::milliseconds(drawn)).await;
            let held = city.ask("POST", "/v1/holds", r#"{"reason":"静默","until":"1h"}"#);
            assert_eq!(held.status, 200, "{held:?}");
            let killed = n % 6 == 5 || rounds <= 12 && n % 3 == 2;
            if killed {
                daemon.kill();
                daemon = city.start().await;
            }
            city.clock.sleep_until(at + TimeDelta::milliseconds(200)).await;
            assert_eq!(city.none_is(&OPEN).await, None, "a hold leaves nothing under way");
            let id = held.value["id"].as_str().unwrap();
            silences.push(Silence { from: held.at, to: city.clock.now(), killed });
            assert_eq!(city.ask("DELETE", &format!("/v1/holds/{id}"), "").status, 200);
            // What was kept back waits for a look, and nothing of it goes by itself.
            city.ask("POST", &format!("/v1/announcements/a{n}/cancel"), "");
        }
        let arrivals = city.arrivals().await;
        let mut broken = Vec::new();
        let mut latest = TimeDelta::milliseconds(-1);
        for (n, silence) in silences.iter().enumerate() {
            let after = arrivals
                .iter()
                .filter(|(at, _)| *at > silence.from && *at < silence.to)
                .map(|(at, _)| *at - silence.from);
            let worst = after.max();
            latest = worst.map_or(latest, |w| latest.max(w));
            if let Some(worst) = worst.filter(|w| *w > ALLOWANCE) {
                broken.push((n, silence.killed, worst.num_microseconds()));
            }
        }
        let killed = silences.iter().filter(|s| s.killed).count();
        println!(
            "r05: {rounds} holds, {killed} killed, {} requests, the latest {} µs after its hold",
            arrivals.len(),
            latest.num_microseconds().unwrap()
        );
        assert!(broken.is_empty(), "began after the hold was acknowledged (round, killed, µs): {broken:?}");
        let most = rounds * UNITS * 4;
        assert!(!arrivals.is_empty() && arrivals.len() < most, "the holds met releases: {} of {most}", arrivals.len());
    });
}
