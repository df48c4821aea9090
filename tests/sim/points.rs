//! Each point at which a delivery's way can be cut, in each state it can be cut in, one by one.

use std::sync::Arc;
use std::time::Duration;

use fabu::core::delivery::State;
use serde_json::json;

use crate::support::between::Between;
use crate::support::points::{Left, POINTS, Point, Trap, Way};
use crate::support::{City, all, fault, let_go, settled, simulate};

/// What is cut: a first attempt, one after proof of refusal, one after an absence was believed, a take-down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    First,
    AfterRefusal,
    AfterAbsence,
    TakeDown,
}

/// What is lost with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// The process alone.
    Crash,
    /// The power: the mark is an old one, and a commit under way is torn.
    OldMark,
    /// Likewise, and the mark says nothing.
    NoMark,
}

impl Cut {
    fn way(self, platform: &'static str) -> Way {
        let way = Way { platform, announcement: "a", intent: "armed", receipts: &["answered"], attempt: 1 };
        match self {
            Cut::First => way,
            Cut::AfterRefusal | Cut::AfterAbsence => Way { attempt: 2, ..way },
            Cut::TakeDown => Way { intent: "withdrawn", receipts: &["taken_down"], ..way },
        }
    }

    fn fault(self) -> Option<serde_json::Value> {
        match self {
            Cut::AfterRefusal => Some(
                json!({ "behaviour": "unreachable", "operation": "post", "times": 1, "params": { "kind": "refused" } }),
            ),
            Cut::AfterAbsence => Some(json!({ "behaviour": "reset_before", "operation": "post", "times": 1 })),
            Cut::First | Cut::TakeDown => None,
        }
    }
}

fn queue(cut: Cut, platform: &str) -> String {
    let to = format!("to: [\"{platform}:shanghai\"], catch_up: 2h");
    let mut text = format!("announcements:\n  - {{id: a, text: 早安上海, at: 2026-11-24 08:02, {to}}}\n");
    if cut == Cut::TakeDown {
        text += &format!("  - {{id: b, text: 更正, at: 2026-11-24 08:04, supersedes: a, {to}}}\n");
    }
    text
}

async fn run(point: Point, cut: Cut, platform: &'static str, loss: Loss) {
    let case = format!("{point:?} {cut:?} {platform} {loss:?}");
    let city = City::new(super::START, 31, "");
    city.save("a.yaml", &queue(cut, platform));
    city.sandbox.set_faults(cut.fault().map(fault).into_iter().collect());
    let state = city.path().join("state");
    let ledger = Arc::new(city.ledger().await);
    let trust = ledger.trust().clone();
    let trap = Trap::new(point, cut.way(platform), state.clone(), city.network());
    let daemon = city.start_on(Between::over(ledger, trap.clone()), trust, trap.clone()).await;
    let started = Left::at(&state);
    let left = city.clock.timeout(Duration::from_secs(3600), trap.sprung()).await;
    let left = left.unwrap_or_else(|| panic!("{case}: the point was never reached"));
    let left = match loss {
        Loss::Crash => left,
        Loss::OldMark => left.without_power(Some(&started), &Left::at(&state)),
        Loss::NoMark => left.without_power(None, &Left::at(&state)),
    };
    drop((daemon, trap));
    let_go(&state.join("fabu.db"), &city.clock).await;
    left.put_back(&state);
    city.sleep(20).await;

    let daemon = city.start().await;
    assert!(settled(&city, &daemon, Duration::from_secs(3600)).await, "{case}: it does not end");
    let posts = city.sandbox.posts();
    let count = |text: &str, deleted: bool| posts.iter().filter(|p| p.text == text && p.deleted == deleted).count();
    let stands: Vec<State> = all(&daemon).await.iter().map(|d| d.state).collect();
    if cut == Cut::TakeDown {
        assert_eq!((count("更正", false), count("更正", true)), (1, 0), "{case}: {stands:?}");
        assert_eq!((count("早安上海", false), count("早安上海", true)), (0, 1), "{case}: {stands:?}");
        assert_eq!(stands, [State::Deleted, State::Published], "{case}");
    } else {
        assert_eq!((count("早安上海", false), posts.len()), (1, 1), "{case}: {stands:?}");
        assert_eq!(stands, [State::Published], "{case}");
    }
}

#[test]
fn r07_a_crash_or_a_power_loss_at_each_point_posts_nothing_twice_and_loses_nothing() {
    for platform in ["sina", "tencent", "eastday", "xinmin"] {
        for cut in [Cut::First, Cut::AfterRefusal, Cut::AfterAbsence, Cut::TakeDown] {
            for point in POINTS {
                // What the power takes is the ledger's, which is the same whatever the platform.
                let losses = [Loss::Crash, Loss::OldMark, Loss::NoMark];
                for loss in if platform == "sina" { &losses[..] } else { &losses[..1] } {
                    simulate(run(point, cut, platform, *loss));
                }
            }
        }
    }
}
