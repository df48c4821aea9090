//! The drill: the whole program turned inwards. What counts is what it does not reach.

mod support;

use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::Arc;

use fabu::core::delivery::{Class, State};
use fabu::daemon::Daemon;
use serde_json::Value;
use support::{City, all, in_state, simulate};

const SCENARIO: &str = "scenario:
  name: short
  persons: [zhang, li]
  steps:
    - {post: {id: cheer, text: 看灯会！, at: 3s, to: [\"sina:**\"]}}
    - {at: 1s, by: zhang, urgent: {id: alarm, level: red, text: 洪水来袭！, to: [\"**\"]}}
    - {at: 1.5s, by: li, confirm: alarm}
    - {at: 4s, by: zhang, correct: alarm}
";

/// A city whose live platforms are listeners that must hear nothing, and whose secrets do not exist.
fn city() -> (tempfile::TempDir, TcpListener) {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let line = |name: &str, api: &str| format!("  {name}: {{api: {api}, base_url: \"http://{at}\"}}\n");
    let platforms = [("sina", "weibo"), ("tencent", "wechat"), ("eastday", "statuses"), ("xinmin", "mastodon")];
    let platforms: String = platforms.iter().map(|(name, api)| line(name, api)).collect();
    std::fs::write(folder.path().join("fabu.yaml"), format!("platforms:\n{platforms}")).unwrap();
    std::fs::write(folder.path().join("accounts.yaml"), support::accounts_yaml()).unwrap();
    std::fs::create_dir(folder.path().join("queue")).unwrap();
    std::fs::write(folder.path().join("scenario.yaml"), SCENARIO).unwrap();
    (folder, listener)
}

fn drill(folder: &std::path::Path, scenario: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fabu"))
        .current_dir(folder)
        .env_clear()
        .env("LANG", "C")
        .args(["--config", "fabu.yaml", "--json", "drill", scenario])
        .output()
        .unwrap()
}

#[test]
fn r14_a_drill_reaches_its_sandbox_alone_and_its_figures_are_compared_with_the_last() {
    let (folder, listener) = city();
    let output = drill(folder.path(), "scenario.yaml");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let rows = said["drill"].as_array().unwrap();
    let what: Vec<&str> = rows.iter().map(|r| r["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["alarm", "confirm alarm", "alarm-correction"], "{output:?}");
    // WeChat's articles take pictures of their own, which a bare text has not: those accounts are told, not reached.
    for row in rows {
        assert!(row["published"].as_u64().unwrap() >= 11, "{row}");
        assert!(row["first_ms"].as_i64() <= row["last_ms"].as_i64(), "{row}");
    }
    // The wrong word was said before its correction was asked for.
    assert!(rows[2]["from_wrong_word_ms"].as_i64() > rows[2]["last_ms"].as_i64(), "{}", rows[2]);
    assert!(listener.accept().is_err(), "nothing of a drill reaches the configured platforms");
    assert!(!folder.path().join("state/fabu.db").exists(), "nor the live ledger");
    let ledger = rusqlite::Connection::open(folder.path().join("state/drill/fabu.db")).unwrap();
    let mut bodies = ledger.prepare("SELECT body FROM contents").unwrap();
    let bodies: Vec<String> = bodies.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(bodies.len(), 3, "{bodies:?}");
    assert!(
        bodies.iter().all(|b| b.starts_with("{\"body\":{\"text\":\"【演练】")),
        "every text is stamped: {bodies:?}"
    );
    let kept = std::fs::read_to_string(folder.path().join("state/drill/timings.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 1);
    let again: Value = serde_json::from_slice(&drill(folder.path(), "scenario.yaml").stdout).unwrap();
    assert_eq!(
        again["before"]["alarm"],
        serde_json::json!([rows[0]["last_ms"]]),
        "the last time is there to compare with"
    );
    // Whatever is asked by the drill's own file reaches nobody else, and no daemon publishes by it.
    let file = folder.path().join("state/drill/fabu.yaml");
    let by_it = |command: &str| {
        let mut fabu = Command::new(env!("CARGO_BIN_EXE_fabu"));
        let fabu = fabu.env_clear().env("LANG", "C").env("FABU_CONFIG", &file).env("T_SINA_SHANGHAI", "live-token");
        fabu.args(command.split(' ')).output().unwrap()
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(by_it("check").status.code(), Some(0), "it is a configuration in order");
    let run = by_it("run");
    assert_eq!(run.status.code(), Some(1));
    assert!(said(&run).contains("the configuration of a drill"), "{}", said(&run));
    let asked = by_it("accounts check --json");
    assert!(listener.accept().is_err(), "credentials are asked about nowhere: {}", said(&asked));
    let whole = std::fs::read_dir(folder.path().join("state/drill/secrets")).unwrap();
    let secrets: Vec<String> = whole.map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap()).collect();
    assert_eq!(secrets.len(), 15);
    assert!(secrets.iter().all(|s| s.contains("drill-")), "{secrets:?}");
    assert!(listener.accept().is_err());
}

#[test]
fn a_scenario_with_a_fault_starts_nothing() {
    let (folder, _listener) = city();
    std::fs::write(folder.path().join("bad.yaml"), SCENARIO.replace("by: li", "by: lee")).unwrap();
    let output = drill(folder.path(), "bad.yaml");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad.yaml:7"), "{output:?}");
    assert!(!folder.path().join("state").exists());
}

#[test]
fn r14_a_live_daemon_sends_nothing_stamped_also_not_from_a_drills_ledger() {
    simulate(async {
        let city = City::new("2026-11-24T00:00:00Z", 1, "");
        city.save(
            "a.yaml",
            "announcements:\n  - {id: a, text: 【演练】试, at: \"2026-11-24T00:01:00Z\", to: [\"**\"], variants: {sina: {text: 试试}}}\n",
        );
        let ledger = Arc::new(city.ledger().await);
        let trust = ledger.trust().clone();
        let mut world = city.world(ledger, trust, Arc::new(city.network()));
        world.config.drill = true;
        let daemon = Daemon::start(world).await.unwrap();
        // The drill's ledger falls into a live daemon's hands before anything of it went out.
        drop(daemon);
        let daemon = city.start().await;
        assert!(daemon.inner.state.lock().unwrap().faults.iter().any(|f| f.code == "drill_mark"));
        city.sleep(900).await;
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Published), 0, "{rows:?}");
        assert!(rows.iter().any(|d| d.state == State::Failed && d.class == Some(Class::Policy)));
        assert!(city.posts().is_empty());
    });
}

/// What no drill has made stays, and nothing is emptied through a link.
#[test]
fn a_drill_clears_away_what_drills_have_made_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let drill = folder.path().join("drill");
    fabu::cli::stage::fresh(&drill).unwrap();
    std::fs::write(drill.join("fabu.db"), "old").unwrap();
    std::fs::write(drill.join("queue/a.yaml"), "old").unwrap();
    std::fs::create_dir_all(drill.join("mine/deep")).unwrap();
    std::fs::write(drill.join("mine/deep/x"), "mine").unwrap();
    std::fs::write(drill.join("notes.txt"), "mine").unwrap();
    fabu::cli::stage::fresh(&drill).unwrap();
    assert!(!drill.join("fabu.db").exists() && !drill.join("queue/a.yaml").exists());
    assert!(drill.join("mine/deep/x").exists() && drill.join("notes.txt").exists());
    let other = folder.path().join("other");
    std::os::unix::fs::symlink(&drill, &other).unwrap();
    assert!(fabu::cli::stage::fresh(&other).is_err(), "a link");
    assert!(drill.join("notes.txt").exists());
}
