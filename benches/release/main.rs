//! What a release costs, beside the least it could cost (`docs/performance.md`).
//!
//! One run measures `fabu` and two comparison clients against the same receiver: *raw* (connected
//! sockets, prebuilt requests, one loop of writes) and *bare* (the same requests as tasks over
//! reqwest behind a barrier), each with its intents committed to SQLite before the instant and its
//! receipts after. A run counts only if nothing is early, missing or double.
//!
//! `cargo bench` runs all workloads; `cargo bench -- w1 w5` some; `FABU_RUNS` sets how often.

mod client;
mod day;
mod receiver;
mod subject;

use std::time::Duration;

use receiver::{First, Receiver};
use subject::Subject;

/// What a run measured, in milliseconds or as said.
pub struct Figures {
    pub first: f64,
    pub skew: f64,
    pub durable: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if arguments.first().is_some_and(|a| a == "receiver") {
        let delay_ms = arguments.get(1).and_then(|a| a.parse().ok()).unwrap_or(0);
        return receiver::serve(delay_ms, arguments.get(2).map_or("", String::as_str));
    }
    if arguments.first().is_some_and(|a| a == "day-itself") {
        return day::itself(std::path::Path::new(&arguments[1]));
    }
    let runs = std::env::var("FABU_RUNS").ok().and_then(|v| v.parse().ok()).unwrap_or(5);
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|a| a == name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, {} {}, {runs} runs; minimum median maximum", std::env::consts::OS, std::env::consts::ARCH);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if wanted("w1") {
            w1(runs).await;
        }
        if wanted("w2") {
            w2(runs.min(3), 0).await;
            w2(runs.min(3), 50).await;
        }
        if wanted("w3") {
            w3(runs, 0, First::AsTheOthers).await;
            for first in [First::AsTheOthers, First::Hangs, First::Limits] {
                w3(runs.min(3), 25, first).await;
            }
        }
        if wanted("w4") {
            w4(runs).await;
        }
        if wanted("r4") {
            r4().await;
        }
        if wanted("w5") {
            w5().await;
        }
        if wanted("w6") || wanted("w7") {
            w6_and_w7().await;
        }
    });
    if wanted("day") {
        day::run();
    }
}

/// One line: minimum, median, maximum.
fn line(name: &str, unit: &str, values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    println!("  {name:<34} {:>10.2} {median:>10.2} {:>10.2} {unit}", sorted[0], sorted[sorted.len() - 1]);
    median
}

/// One announcement, 800 accounts, four platforms, at T.
async fn w1(runs: usize) {
    println!("\nW1 one announcement to 800 accounts at T: first after T, skew, last receipt durable (ms)");
    let (mut raw, mut bare, mut fabu) = (Vec::new(), Vec::new(), Vec::new());
    let receiver = Receiver::start(0).await;
    let subject = Subject::start(&receiver, &[]).await;
    for n in 0..runs {
        raw.push(client::raw(&receiver, 800, 1).await);
        bare.push(client::bare(&receiver, 800).await);
        fabu.push(subject.release(&receiver, &format!("w1-{n}")).await);
    }
    let of = |figures: &[Figures], pick: fn(&Figures) -> f64| figures.iter().map(pick).collect::<Vec<_>>();
    let mut medians = Vec::new();
    for (name, pick) in
        [("first", (|f| f.first) as fn(&Figures) -> f64), ("skew", |f| f.skew), ("durable", |f| f.durable)]
    {
        let r = line(&format!("raw {name}"), "ms", &of(&raw, pick));
        let b = line(&format!("bare reqwest {name}"), "ms", &of(&bare, pick));
        let f = line(&format!("fabu {name}"), "ms", &of(&fabu, pick));
        medians.push((name, f, f / r, f / b));
    }
    for (name, f, to_raw, to_bare) in medians {
        println!("  → {name}: fabu {f:.2} ms = {to_raw:.2} × raw = {to_bare:.2} × bare reqwest");
    }
    println!("  goals: first ≤ 2 ms and never early; skew ≤ 1.2 × bare; durable ≤ 2 × raw");
}

/// 20,000 deliveries due at once, the platform answering after `delay` milliseconds.
async fn w2(runs: usize, delay: u64) {
    println!("\nW2 20,000 due now, platform at {delay} ms: deliveries a second to the last durable receipt");
    let (mut raw, mut fabu) = (Vec::new(), Vec::new());
    for n in 0..runs {
        let receiver = Receiver::start(delay).await;
        raw.push(20_000.0 / client::raw(&receiver, 800, 25).await.durable * 1000.0);
        let subject = Subject::start(&receiver, &[]).await;
        fabu.push(subject.backlog(&receiver, &format!("w2-{n}"), 25).await);
    }
    let (r, f) = (line("raw", "/s", &raw), line("fabu", "/s", &fabu));
    println!("  → fabu {:.2} × raw; goal ≥ {}", f / r, if delay == 0 { 0.5 } else { 0.9 });
}

/// An urgent post to 800 accounts, with nothing else to do or in the middle of a backlog, the platforms at 50 ms and
/// the first of them as said: figures of the other three.
async fn w3(runs: usize, announcements: usize, first_platform: First) {
    let (routine, name) = (announcements * 800, first_platform.name());
    println!(
        "\nW3 urgent to 800, {routine} routine going out, platforms at 50 ms, the first {name}: from the call, in ms"
    );
    let (mut raw, mut commit, mut acknowledged, mut first, mut last) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for n in 0..runs {
        let receiver = Receiver::start_with(50, first_platform).await;
        if first_platform == First::AsTheOthers {
            raw.push(client::raw(&receiver, 800, 1).await.skew);
        }
        commit.push(client::commit(800).await);
        let subject = Subject::start(&receiver, &["warm"]).await;
        let id = format!("w3-{n}");
        subject.in_the_thick(&id, announcements).await;
        let [a, f, l] = subject.urgent(&receiver, &id).await;
        acknowledged.push(a);
        first.push(f);
        last.push(l);
    }
    let c = line("raw 800 intents in one commit", "ms", &commit);
    let r = if raw.is_empty() { None } else { Some(line("raw first to last", "ms", &raw)) };
    let a = line("fabu acknowledged", "ms", &acknowledged);
    let f = line("fabu first request", "ms", &first);
    let l = line("fabu last request", "ms", &last);
    println!("  → acknowledged {:.1} × raw commit; first {:.1} ms after it (goals ≤ 3 ×, ≤ 2 ms)", a / c, f - a);
    if let Some(r) = r {
        println!("  → last {:.1} × raw commit and sends (goal ≤ 2 ×)", l / (c + r));
    }
}

/// From the start of a command that posts to one account to its request: `fabu urgent` beside `curl`.
async fn w4(runs: usize) {
    println!("\nW4 `fabu urgent` started → request at the platform, one account (ms)");
    let receiver = Receiver::start(0).await;
    let subject = Subject::start(&receiver, &[]).await;
    let (mut curl, mut fabu) = (Vec::new(), Vec::new());
    for n in 0..runs {
        curl.push(subject.command(&receiver, &format!("w4-curl-{n}"), true).await);
        fabu.push(subject.command(&receiver, &format!("w4-fabu-{n}"), false).await);
    }
    let (c, f) = (line("curl to the socket", "ms", &curl), line("fabu urgent", "ms", &fabu));
    println!("  → {:.1} × curl (goal ≤ 2 ×)", f / c);
}

/// Promise R4: urgent posts one after the other while 800 accounts are busy with routine and one platform hangs.
async fn r4() {
    const EACH_TIME: usize = 5;
    let posts: usize = std::env::var("FABU_URGENT").ok().and_then(|v| v.parse().ok()).unwrap_or(100);
    println!(
        "\nR4 {posts} urgent posts to 800 in the middle of routine, platforms at 50 ms, the first hangs: from the call, in ms"
    );
    let (mut acknowledged, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..posts.div_ceil(EACH_TIME) {
        let receiver = Receiver::start_with(50, First::Hangs).await;
        let subject = Subject::start(&receiver, &["warm"]).await;
        subject.in_the_thick(&format!("r4-{round}"), 25).await;
        for n in 0..EACH_TIME.min(posts - acknowledged.len()) {
            let [a, f, l] = subject.urgent(&receiver, &format!("r4-{round}-{n}")).await;
            acknowledged.push(a);
            first.push(f);
            last.push(l);
        }
    }
    line("acknowledged", "ms", &acknowledged);
    let worst = line("first request", "ms", &first).max(first.iter().copied().fold(0.0, f64::max));
    line("last request", "ms", &last);
    let over = first.iter().filter(|f| **f > 200.0).count() + last.iter().filter(|l| **l > 1050.0).count();
    println!("  → first at the latest {worst:.0} ms; {over} beyond 200 ms and 1 s + 50 ms (promised: none)");
}

/// Sixty occurrences, one a second, to one account.
async fn w5() {
    println!("\nW5 60 occurrences, one a second: lateness of the request at the receiver (ms)");
    let receiver = Receiver::start(0).await;
    let raw = client::each_second(&receiver, 60).await;
    let subject = Subject::start(&receiver, &[]).await;
    let fabu = subject.each_second(&receiver, 60).await;
    let percentile = |values: &[f64], share: f64| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    };
    for (name, values) in [("raw", &raw), ("fabu", &fabu)] {
        let early = values.iter().filter(|v| **v < 0.0).count();
        println!(
            "  {name:<6} p50 {:.3}  p99 {:.3}  max {:.3}  early {early}  of {}",
            percentile(values, 0.5),
            percentile(values, 0.99),
            percentile(values, 1.0),
            values.len()
        );
    }
    println!("  goal: p99 and max ≤ 2 × raw + 1 ms, early 0");
}

/// 100,000 deliveries (or `FABU_PENDING`) pending and nothing due; then a start with them in the ledger.
async fn w6_and_w7() {
    let pending = subject::waiting();
    println!("\nW6 {pending} deliveries pending, nothing due");
    let receiver = Receiver::start(0).await;
    let mut subject = Subject::start(&receiver, &["pending"]).await;
    let planned = fabu::clock::Clock::real().timeout(Duration::from_secs(120), subject.planned(pending)).await;
    planned.expect("all are planned");
    let (memory_mib, cpu_ms) = subject.at_rest(Duration::from_secs(20)).await;
    println!("  resident {memory_mib:.1} MiB (goal ≤ 40), {cpu_ms:.2} ms of CPU a second (goal ≤ 0.5)");
    println!("\nW7 start with them in the ledger → first due one out, the queue folder read");
    let mut times = Vec::new();
    for n in 0..5 {
        times.push(subject.restart_with_one_due(&receiver, n).await);
    }
    line("fabu", "ms", &times);
    println!("  goal ≤ 100 ms");
}
