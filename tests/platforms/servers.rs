//! Thirty texts on every server, with the answer lost in each way: what was posted is recognised, or shown to a person as
//! the one it is; and never taken for missing.

use fabu::core::fit;
use fabu::platform::{Look, Wanted};
use serde_json::json;

use crate::world::{cases, world};

pub fn texts() -> Vec<String> {
    serde_json::from_str(include_str!("../servers/texts.json")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn r01_whatever_a_server_makes_of_a_text_it_is_not_sent_again() {
    let faults = [
        json!({"behaviour": "reset_after", "operation": "post"}),
        json!({"behaviour": "cut_body", "operation": "post"}),
        json!({"behaviour": "proxy_page", "operation": "post", "params": {"status": 502, "executes": true}}),
        json!({"behaviour": "delayed", "operation": "post", "params": {"seconds": 90}}),
    ];
    assert_eq!(texts().len(), 30);
    for case in cases().into_iter().filter(|case| matches!(case.api, "statuses" | "mastodon")) {
        let (mut recognised, mut shown) = (0, 0);
        for fault in &faults {
            for text in texts() {
                let w = world(&case);
                // Something stands there already, so that the page reaches back.
                let before = w.out(&w.post("旧帖一则，早已发出")).await;
                w.pass(400).await;
                let Ok(mut prepared) = w.prepare(&w.post(&fit::full_text(&text, None))).await else { continue };
                prepared.baseline = Some(before.post_id.clone());
                let wanted = Wanted { taken: vec![before.post_id.clone()], ..w.wanted(&prepared) };
                w.fault(fault.clone());
                let _lost = w.publish(&prepared).await;
                w.sandbox.clear();
                w.pass(130).await;
                let posted: Vec<_> = w.sandbox.posts().into_iter().filter(|post| post.id != before.post_id).collect();
                let Ok(look) = w.find(&wanted).await else { panic!("{} {text}", case.name) };
                match (posted.as_slice(), look) {
                    ([], Look::Absent) => {}
                    ([post], Look::Found(receipt)) => {
                        assert_eq!(receipt.post_id, post.id, "{} {text}", case.name);
                        recognised += 1;
                    }
                    ([post], Look::Unaccounted(posts)) => {
                        assert!(posts.iter().any(|shown| shown.id == post.id), "{} {text}", case.name);
                        shown += 1;
                    }
                    (posted, look) => panic!("{} {text}: {} posted, {look:?}", case.name, posted.len()),
                }
            }
        }
        // By far the most is recognised.
        assert!(recognised >= 90 && shown <= recognised / 10, "{}: {recognised} recognised, {shown} shown", case.name);
    }
}
