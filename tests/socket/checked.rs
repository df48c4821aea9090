//! `check` beside a daemon: what the ledger knows is no fault.

use std::process::Stdio;

use serde_json::Value;

use crate::outdoors::{OPEN, Outdoors, runtime};

/// The codes of what `check` names, and whether it calls the queue good.
fn checked(city: &Outdoors) -> (bool, Vec<String>) {
    let output = city.command(&["check"]).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let faults: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of_queue = faults.iter().filter(|fault| fault["file"].as_str().unwrap().contains("queue/"));
    (output.status.success(), of_queue.map(|fault| fault["code"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn what_the_ledger_knows_is_no_fault_of_the_queue() {
    runtime().block_on(async {
        let city = Outdoors::new(1, "").await;
        let past = "- {id: past, text: 一次, at: \"2026-01-01 08:00\", to: [city/u0]}\n";
        city.save("a.yaml", &format!("announcements:\n- {{id: old, text: 旧的, to: [city/u0]}}\n{past}"));
        assert_eq!(checked(&city), (true, vec!["past".to_owned()]), "no daemon has run yet");
        let mut daemon = city.start().await;
        assert_eq!(city.none_is(&OPEN).await, None);
        // The old one has left the queue, and a new one takes its place.
        let new = "- {id: new, text: 新的, at: \"2036-01-01 08:00\", supersedes: old, to: [city/u0]}\n";
        city.save("a.yaml", &format!("announcements:\n{new}{past}"));
        assert_eq!(checked(&city), (true, vec![]));
        let wrong = new.replace("supersedes: old", "supersedes: odl");
        city.save("a.yaml", &format!("announcements:\n{wrong}{past}"));
        assert_eq!(checked(&city), (false, vec!["supersedes".to_owned()]));
        // With a ledger there and no daemon nobody can tell, and nothing is called wrong.
        daemon.kill();
        assert_eq!(checked(&city), (true, vec![]));
    });
}
