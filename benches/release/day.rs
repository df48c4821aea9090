//! The city's whole day in simulated time: the real daemon and ledger, the sandbox in process, no socket.
//!
//! `FABU_CITY` names a folder with the `make.py` that writes a city. Run in a process of its own, so that
//! the memory it took is the day's and nothing else's.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fabu::cli::stage::Indoors;
use fabu::cli::world::setup_of;
use fabu::clock::Clock;
use fabu::core::delivery::State;
use fabu::daemon::config::{self, Env};
use fabu::daemon::{Daemon, World};
use fabu::ledger::Ledger as _;
use fabu::ledger::sqlite::Sqlite;
use fabu::sandbox::{Latency, Sandbox};

const DAY: &str = "2026-11-24";

/// Makes the city, runs its day in a process of its own, and passes on what that one prints.
pub fn run() {
    println!("\nThe city's day in simulated time");
    let Ok(city) = std::env::var("FABU_CITY") else {
        println!("  not run: FABU_CITY names no folder with a make.py");
        return;
    };
    let folder = std::env::temp_dir().join(format!("fabu-day-{}", std::process::id()));
    let made = Command::new("python3")
        .arg(Path::new(&city).join("make.py"))
        .args(["--day", DAY, "--out"])
        .arg(&folder)
        .arg("--secrets")
        .arg(folder.join("secrets"))
        .output()
        .expect("python3 runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Texts over length are faults, and nothing of them would go out.
    std::fs::remove_file(folder.join("queue/length-over.yaml")).unwrap_or_default();
    let mut config = "timezone: Asia/Shanghai\nqueue: queue\naccounts: accounts\nplatforms:\n".to_owned();
    for (name, api) in
        [("sina", "weibo"), ("tencent", "tencent-weibo"), ("eastday", "statuses"), ("xinmin", "statuses")]
    {
        config += &format!(
            "  {name}: {{api: {api}, base_url: \"http://127.0.0.1\", limits: {{account_per_hour: off, account_per_day: off, host_per_hour: off, connections: 400}}}}\n"
        );
    }
    std::fs::write(folder.join("fabu.yaml"), config).expect("written");
    let program = std::env::current_exe().expect("this program has a path");
    let status = Command::new(program).arg("day-itself").arg(&folder).status().expect("it runs");
    assert!(status.success(), "the day ended well");
    std::fs::remove_dir_all(&folder).unwrap_or_default();
}

pub fn itself(folder: &Path) {
    let began = Clock::real();
    let start = began.mono().0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let (states, posts) = runtime.expect("a runtime").block_on(day(folder));
    let took = began.mono().0 - start;
    let status = std::fs::read_to_string("/proc/self/status").expect("this process");
    let kib: f64 = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .and_then(|v| v.split_whitespace().next()?.parse().ok())
        .expect("its memory");
    println!("  {posts} posts, {states}");
    println!(
        "  {:.2} s for 24 hours and a half, {:.1} MiB at most, sandbox included",
        took.as_secs_f64(),
        kib / 1024.0
    );
}

async fn day(folder: &Path) -> (String, usize) {
    // Midnight of the day in Shanghai.
    let midnight = format!("{DAY}T00:00:00+08:00").parse::<chrono::DateTime<chrono::FixedOffset>>().expect("a time");
    let clock = Clock::simulated(midnight.to_utc(), 1);
    let env: Env = Arc::new(|_| None);
    let (config, faults) = config::read(&folder.join("fabu.yaml"), &env, true);
    let config = config.unwrap_or_else(|| panic!("{faults:?}"));
    let mut setup = setup_of(&config);
    setup.limits = false;
    setup.latency = Latency::Jitter(Duration::from_millis(5), Duration::from_millis(60));
    for platform in &mut setup.platforms {
        platform.settings["duplicates"] = "exact".into();
    }
    let sandbox = Sandbox::new(setup, clock.clone());
    let ledger = Arc::new(Sqlite::open(&folder.join("state/fabu.db"), &clock).expect("a ledger"));
    let trust = ledger.trust().clone();
    let http = Arc::new(Indoors { sandbox: sandbox.clone(), clock: clock.clone() });
    let world = World { clock: clock.clone(), http, ledger: ledger.clone(), trust, config, faults, env };
    let daemon = Daemon::start(world).await.expect("it starts");
    for _ in 0..49 {
        clock.sleep(Duration::from_secs(1800)).await;
        daemon.rescan().await;
    }
    let counts = ledger.counts().await.expect("counted");
    daemon.stop().await;
    let posts = sandbox.posts();
    let mut seen = std::collections::BTreeSet::new();
    // A repeat says the same each time; within one minute nothing may stand twice.
    let twice = posts.iter().filter(|p| !seen.insert((p.account.clone(), p.text.clone(), p.created.timestamp() / 60)));
    assert_eq!(twice.count(), 0, "nothing twice");
    assert_eq!(counts.get(&State::Failed).copied().unwrap_or(0), 0, "none failed: {counts:?}");
    let states: Vec<String> =
        counts.iter().filter(|(_, n)| **n > 0).map(|(s, n)| format!("{} {n}", s.as_str())).collect();
    (states.join(", "), posts.len())
}
