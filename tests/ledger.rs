//! The ledger damaged in every way a disk, a tool or a careless hand can: it is refused, or what it says is
//! looked at before it is acted on. It is never taken for a new one, and no wrong word goes out.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fabu::clock::{Clock, from_micros};
use fabu::core::accounts::AccountId;
use fabu::core::announcement::Priority;
use fabu::core::change::{Actor, Change, Note};
use fabu::core::delivery::{Cause, Class, Delivery, DeliveryId, Desired, Prepared, Receipt, State, Step};
use fabu::core::words::Words;
use fabu::daemon::Daemon;
use fabu::ledger::sqlite::Sqlite;
use fabu::ledger::{Committed, Ledger, LedgerError, Trust, marker};
use fabu::platform::{Http, Lane, Lost};
use http::{Request, Response};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rusqlite::Connection;
use support::between::{Between, Watch};
use support::points::Left;
use support::{City, Indoors, all, in_state, settled, simulate, utc};

const START: &str = "2026-11-24T00:00:00Z";
const QUEUE: &str = "announcements:\n  - {id: a, text: 甲, at: 2026-11-24 08:02, to: [shanghai], catch_up: 6h}\n  \
                     - {id: b, text: 乙, at: 2026-11-24 08:30, to: [shanghai], catch_up: 6h}\n";

/// A city whose daemon was killed at ten past, with 甲 out and 乙 to come, and what it left on the disk: all
/// of it in the log, or all of it in the ledger.
async fn killed(logged: bool) -> (City, Left) {
    let city = City::new(START, 41, "");
    city.save("a.yaml", QUEUE);
    let daemon = city.start().await;
    city.sleep(600).await;
    assert_eq!(city.sandbox.posts().len(), 4);
    let state = city.path().join("state");
    let left = Left::at(&state);
    drop(daemon);
    released(&city.clock, &state).await;
    left.put_back(&state);
    if logged {
        return (city, left);
    }
    let db = Connection::open(state.join("fabu.db")).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let left = Left::at(&state);
    drop(db);
    (city, left)
}

async fn released(clock: &Clock, state: &Path) {
    for _ in 0..1000 {
        if !matches!(marker::lock(&state.join("fabu.db")), Err(LedgerError::InUse(_))) {
            return;
        }
        clock.sleep(Duration::from_millis(5)).await;
    }
    panic!("something outlives the daemon");
}

#[derive(Clone, Copy, Debug)]
enum File {
    Ledger,
    Log,
    Mark,
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(File, u64),
    Cut(File, u64),
}

impl Damage {
    fn draw(dice: &Clock, logged: bool) -> Damage {
        let file = match dice.random() % 16 {
            0 => File::Mark,
            n if logged && n > 1 => File::Log,
            _ => File::Ledger,
        };
        if dice.random().is_multiple_of(10) {
            Damage::Cut(file, dice.random())
        } else {
            Damage::Flip(file, dice.random())
        }
    }

    fn done_to(self, left: &Left) -> Left {
        let mut left = left.clone();
        let (Damage::Flip(file, at) | Damage::Cut(file, at)) = self;
        let bytes = match file {
            File::Ledger => &mut left.ledger,
            File::Log => &mut left.log,
            File::Mark => &mut left.mark,
        };
        let at = at as usize % (bytes.len().max(1) * 8);
        match self {
            Damage::Flip(..) if !bytes.is_empty() => bytes[at / 8] ^= 1 << (at % 8),
            Damage::Flip(..) => {}
            Damage::Cut(..) => bytes.truncate(at / 8),
        }
        left
    }
}

/// Everything the ledger says, for comparing.
fn dump(path: &Path) -> rusqlite::Result<Vec<String>> {
    let db = Connection::open(path)?;
    let mut said = Vec::new();
    let tables = ["meta", "contents", "announcements", "occurrences", "deliveries", "attempts", "events", "accounts"];
    for table in tables {
        let mut statement = db.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let row: Vec<_> =
                (0..columns).map(|n| row.get::<_, rusqlite::types::Value>(n)).collect::<Result<_, _>>()?;
            said.push(format!("{table} {row:?}"));
        }
    }
    Ok(said)
}

/// What opening a damaged ledger comes to; never a panic, and never a new ledger.
async fn opened(left: &Left, case: &str) -> Result<(Trust, Option<Vec<String>>), LedgerError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fabu.db");
    left.put_back(folder.path());
    let clock = Clock::simulated(utc(START), 1);
    let ledger = catch_unwind(AssertUnwindSafe(|| Sqlite::open(&path, &clock)));
    let trust = ledger.unwrap_or_else(|_| panic!("{case}: a panic"))?.trust().clone();
    assert_ne!(trust, Trust::New, "{case}: taken for a new one");
    let said = dump(&path).ok();
    released(&clock, folder.path()).await;
    Ok((trust, said))
}

/// Runs a daemon on it until 乙 has had its hour: whatever it makes of it, no wrong word goes out and none twice.
async fn lived_with(city: &City, case: &str) {
    let Ok(ledger) = Sqlite::open(&city.path().join("state/fabu.db"), &city.clock) else { return };
    let trust = ledger.trust().clone();
    let started = Daemon::start(city.world(Arc::new(ledger), trust.clone(), Arc::new(city.network()))).await;
    if started.is_ok() {
        city.sleep(2700).await;
    }
    let posts = city.sandbox.posts();
    for account in ["sina", "tencent", "eastday", "xinmin"].map(|p| format!("{p}:shanghai")) {
        for text in ["甲", "乙"] {
            let times = posts.iter().filter(|p| p.account == account && p.text == text).count();
            assert!(times <= 1, "{case}, {trust:?}: {text} stands {times} times on {account}");
        }
    }
    for post in &posts {
        let from = if post.text == "甲" { "2026-11-24T00:02:00Z" } else { "2026-11-24T00:30:00Z" };
        assert!(["甲", "乙"].contains(&post.text.as_str()), "{case}, {trust:?}: {:?} went out", post.text);
        assert!(post.account.ends_with(":shanghai"), "{case}, {trust:?}: to {}", post.account);
        assert!(post.created >= utc(from), "{case}, {trust:?}: {} went out at {}", post.text, post.created);
    }
}

/// Seeded; `FABU_FLIPS` sets how many.
#[test]
fn r17_flipped_bits_and_cut_files_are_found_or_change_nothing_that_goes_out() {
    let flips: u64 = std::env::var("FABU_FLIPS").ok().and_then(|v| v.parse().ok()).unwrap_or(300);
    let (mut refused, mut behind, mut harmless, mut lived) = (0, 0, 0, 0);
    for logged in [true, false] {
        simulate(async {
            let (_, left) = killed(logged).await;
            let whole = opened(&left, "whole").await.unwrap();
            assert_eq!(whole.0, Trust::Whole);
            let dice = Clock::simulated(utc(START), 17 + u64::from(logged));
            for n in 0..flips / 2 {
                let damage = Damage::draw(&dice, logged);
                let case = format!("{n} {damage:?} logged: {logged}");
                match opened(&damage.done_to(&left), &case).await {
                    Err(_) => refused += 1,
                    Ok((Trust::Whole, said)) if said == whole.1 => harmless += 1,
                    // A log whose tail is gone comes to much the same wherever it was cut.
                    Ok((Trust::Behind { .. }, _)) if !n.is_multiple_of(8) => behind += 1,
                    Ok(_) => {
                        lived += 1;
                        let (city, left) = killed(logged).await;
                        damage.done_to(&left).put_back(&city.path().join("state"));
                        lived_with(&city, &case).await;
                    }
                }
            }
        });
    }
    eprintln!("{refused} refused, {behind} behind, {harmless} harmless, {lived} lived with");
    assert!(refused > 0 && behind > 0 && harmless > 0 && lived > 0);
}

#[test]
fn r17_a_word_an_account_or_an_hour_changed_in_the_ledger_does_not_go_out() {
    for change in [
        "UPDATE contents SET body = replace(body, '乙', '丙')",
        "UPDATE deliveries SET prepared = replace(prepared, '乙', '丙') WHERE prepared IS NOT NULL",
        "UPDATE deliveries SET account = replace(account, 'shanghai', 'shanghai/metro') WHERE announcement = 'b'",
        "UPDATE deliveries SET at = at - 600000000, next_at = next_at - 600000000 WHERE announcement = 'b'",
        "UPDATE deliveries SET state = 'retrying', next_at = at WHERE announcement = 'a'",
    ] {
        simulate(async {
            let city = City::new(START, 42, "");
            city.save("a.yaml", QUEUE);
            let daemon = city.start().await;
            // 乙 is prepared: its hour is less than `lead` away.
            city.sleep(1790).await;
            assert_eq!(in_state(&all(&daemon).await, State::Ready), 4);
            daemon.stop().await;
            released(&city.clock, &city.path().join("state")).await;
            let changed = Connection::open(city.path().join("state/fabu.db")).unwrap().execute(change, []).unwrap();
            assert!(changed > 0, "{change}");
            lived_with(&city, change).await;
        });
    }
}

/// What `open` says of whatever stands in the ledger's place, and that it left it alone.
fn refused(make: impl Fn(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fabu.db");
    make(&path);
    let bytes = |path: &Path| std::fs::read(path).unwrap_or_default();
    let before = bytes(&path);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(async { Sqlite::open(&path, &Clock::real()).err() });
    assert!(bytes(&path) == before, "not a byte is changed: {error:?}");
    match error {
        Some(LedgerError::Broken(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r17_what_is_not_our_ledger_is_refused_and_left_alone() {
    let dice = Clock::simulated(utc(START), 43);
    let random: Vec<u8> = (0..8192).map(|_| dice.random() as u8).collect();
    assert!(refused(|path| std::fs::write(path, b"").unwrap()).contains("not a ledger (0 bytes)"));
    assert!(refused(|path| std::fs::write(path, &random).unwrap()).contains("not a ledger"));
    assert!(refused(|path| std::fs::create_dir(path).unwrap()).contains("not a regular file"));
    let linked = |path: &Path| {
        std::fs::write(path.with_file_name("elsewhere"), b"").unwrap();
        std::os::unix::fs::symlink("elsewhere", path).unwrap();
    };
    assert!(refused(linked).contains("not a regular file"));
    let foreign = |path: &Path| Connection::open(path).unwrap().execute_batch("CREATE TABLE bookmarks (url)").unwrap();
    assert!(refused(foreign).contains("another program's database"));
    let newer = |path: &Path| {
        let sql = "CREATE TABLE deliveries (x); PRAGMA application_id = 0x66616275; PRAGMA user_version = 99;";
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
    };
    assert!(refused(newer).contains("its schema is number 99"));
    let gone = |path: &Path| std::fs::write(path.with_file_name("fabu.db.mark"), format!("{:020} {}", 7, "a")).unwrap();
    assert!(refused(gone).contains("its mark is still there"));
}

#[test]
fn r17_a_log_that_is_gone_or_cut_leaves_doubt_and_the_platform_is_asked() {
    for keep in [0.0, 0.3, 0.6, 0.9, 0.99] {
        simulate(async {
            let (city, mut left) = killed(true).await;
            left.log.truncate((left.log.len() as f64 * keep) as usize);
            let state = city.path().join("state");
            left.put_back(&state);
            if keep == 0.0 {
                std::fs::remove_file(state.join("fabu.db-wal")).unwrap();
            }
            let ledger = city.ledger().await;
            assert!(matches!(ledger.trust(), Trust::Behind { .. }), "{keep}: {:?}", ledger.trust());
            let daemon = city.start_with(Arc::new(ledger), Arc::new(city.network())).await;
            let rows = all(&daemon).await;
            let due = rows.iter().filter(|d| d.announcement.as_str() == "a");
            assert!(
                due.clone().count() == 4 && due.clone().all(|d| matches!(d.state, State::Unknown | State::Published))
            );
            assert!(settled(&city, &daemon, Duration::from_secs(3600)).await, "{keep}");
            let posts = city.sandbox.posts();
            let count = |text: &str| posts.iter().filter(|p| p.text == text).count();
            assert_eq!((count("甲"), count("乙"), posts.len()), (4, 4, 8), "{keep}");
            assert_eq!(in_state(&all(&daemon).await, State::Published), 8, "{keep}");
        });
    }
}

/// A disk that takes no commit from the `from`th on, `times` times; with `kept`, one that says so of what it has
/// taken: what a failed sync leaves is not known.
struct Full {
    from: u64,
    times: u64,
    kept: bool,
    commits: AtomicU64,
    network: Indoors,
    ledger: Arc<Sqlite>,
    under_way: AtomicU64,
    unrecorded: AtomicU64,
}

#[async_trait]
impl Watch for Full {
    async fn committed(&self, ledger: &Sqlite, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError> {
        let n = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        let fails = (self.from..self.from + self.times).contains(&n);
        if !fails || self.kept {
            let written = ledger.commit(by, changes).await;
            return if fails { Err(LedgerError::NoSpace) } else { written };
        }
        Err(LedgerError::NoSpace)
    }
}

#[async_trait]
impl Http for Full {
    async fn send(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        let posts = request.method() == http::Method::POST
            && ["update", "/t/add", "/v1/statuses"].iter().any(|p| request.uri().path().contains(p));
        if !posts {
            return self.network.send(platform, lane, request, timeout).await;
        }
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        let recorded = self.ledger.counts().await.unwrap().get(&State::Sending).copied().unwrap_or(0);
        self.unrecorded.fetch_add(u64::from(recorded < under_way), Ordering::SeqCst);
        let answer = self.network.send(platform, lane, request, timeout).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

/// A day of two announcements on a disk that fails as `full` says; returns how many commits it took.
async fn on_a_full_disk(from: u64, times: u64, kept: bool) -> u64 {
    let case = format!("commit {from}, {times} times, kept: {kept}");
    let city = City::new(START, 44, "");
    city.save("a.yaml", &QUEUE.replace("08:30", "08:04"));
    let ledger = Arc::new(city.ledger().await);
    let trust = ledger.trust().clone();
    let full = Arc::new(Full {
        from,
        times,
        kept,
        commits: AtomicU64::new(0),
        network: city.network(),
        ledger: ledger.clone(),
        under_way: AtomicU64::new(0),
        unrecorded: AtomicU64::new(0),
    });
    let mut daemon = None;
    for _ in 0..10 {
        // One that cannot write its first line ends, and is started again by its keeper.
        let world = city.world(Between::over(ledger.clone(), full.clone()), trust.clone(), full.clone());
        daemon = Daemon::start(world).await.ok();
        if daemon.is_some() {
            break;
        }
    }
    let daemon = daemon.unwrap_or_else(|| panic!("{case}: it never starts"));
    for _ in 0..2 {
        city.sleep(100).await;
        daemon.rescan().await;
    }
    city.sleep(60).await;
    assert!(settled(&city, &daemon, Duration::from_secs(3600)).await, "{case}: it does not end");
    let rows = all(&daemon).await;
    let states: Vec<_> = rows.iter().map(|d| (&d.announcement, &d.account, d.state)).collect();
    let posts = city.sandbox.posts();
    let count = |text: &str| posts.iter().filter(|p| p.text == text).count();
    assert_eq!((count("甲"), count("乙"), posts.len()), (4, 4, 8), "{case}: {states:?}");
    assert_eq!(in_state(&rows, State::Published), 8, "{case}: {states:?}");
    assert_eq!(full.unrecorded.load(Ordering::SeqCst), 0, "{case}: requests without a record");
    full.commits.load(Ordering::SeqCst)
}

#[test]
fn r21_without_room_nothing_is_sent_unrecorded_and_with_it_all_goes_out_once() {
    // Each commit in turn fails once; fails and is there all the same; fails with the six after it.
    for (times, kept) in [(1, false), (1, true), (7, false)] {
        let mut from = 1;
        loop {
            let mut commits = 0;
            simulate(async { commits = on_a_full_disk(from, times, kept).await });
            if from > commits {
                break;
            }
            from += times;
        }
    }
}

#[test]
fn r22_after_a_commit_that_failed_the_ledger_is_read_again_and_what_it_lost_is_noticed() {
    let note = || vec![Note::change("test", "ledger", serde_json::json!({}))];
    // Harmless; a record that was changed meanwhile; records that are gone.
    for (meanwhile, broken) in [
        ("SELECT 1", None),
        ("UPDATE events SET body = body || ' ' WHERE seq = 2", Some("breaks at record 2")),
        ("DELETE FROM events WHERE seq = 3", Some("lost records after 2")),
    ] {
        simulate(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("fabu.db");
            let ledger = Sqlite::open(&path, &Clock::simulated(utc(START), 1)).unwrap();
            for n in 1..=3 {
                assert_eq!(ledger.commit(&Actor::Daemon, note()).await.unwrap().seq, n);
            }
            let disk = Connection::open(&path).unwrap();
            let fails = "CREATE TRIGGER fails BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END";
            disk.execute_batch(fails).unwrap();
            for _ in 0..2 {
                let refused = ledger.commit(&Actor::Daemon, note()).await;
                assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
                assert_eq!(ledger.head().0, 3, "nothing is believed to be there that was not written");
            }
            disk.execute_batch(&format!("DROP TRIGGER fails; {meanwhile}")).unwrap();
            let after = ledger.commit(&Actor::Daemon, note()).await;
            match (broken, after) {
                (None, Ok(committed)) if committed.seq == 4 => {}
                (Some(part), Err(LedgerError::Broken(why))) if why.contains(part) => {}
                (_, after) => panic!("{meanwhile}: {after:?}"),
            }
        });
    }
}

fn text() -> impl Strategy<Value = String> {
    "(?s).{0,12}"
}

fn words() -> impl Strategy<Value = Words> {
    (text(), text()).prop_map(|(zh, en)| Words { zh, en })
}

/// A delivery of any kind, legal or not: the columns do not know the states.
fn delivery() -> impl Strategy<Value = Delivery> {
    let time = || (0i64..4_102_444_800_000_000).prop_map(from_micros);
    let some = || option::of(time());
    let receipt = (text(), option::of(text()), time(), any::<(bool, bool)>(), option::of(text())).prop_map(
        |(post_id, url, accepted_at, (shown, read_back), ticket)| Receipt {
            post_id,
            url,
            accepted_at,
            shown,
            read_back,
            ticket,
        },
    );
    let prepared = (text(), option::of(text()), vec(text(), 0..3), vec((text(), text()), 0..3)).prop_map(
        |(text, title, media, attached)| {
            let (key, site, baseline) = (text.clone(), title.clone(), title.clone());
            Arc::new(Prepared { text, title, media, attached, key, site, baseline })
        },
    );
    let doubt = (any::<u16>(), option::of("[a-z]{4}"), any::<bool>());
    let parts = (
        (0..State::ALL.len(), 0usize..3, 0usize..3, option::of(0..Class::ALL.len()), option::of(0..Cause::ALL.len())),
        (some(), time(), some(), some()),
        (any::<u16>(), any::<u16>(), any::<bool>(), any::<bool>(), 1i64..1_000_000, doubt),
        (option::of(prepared), option::of(receipt), option::of(words())),
        option::of(0i64..10_000_000_000),
    );
    parts.prop_map(|(kinds, times, numbers, said, late_us)| Delivery {
        id: DeliveryId(1),
        occurrence: "a@2026-11-24T08:00+08:00".into(),
        announcement: "a".into(),
        account: AccountId::new("sina", "shanghai"),
        content: "c".into(),
        priority: [Priority::Emergency, Priority::Important, Priority::Routine][kinds.1],
        state: State::ALL[kinds.0],
        next_at: times.0,
        at: times.1,
        expires_at: times.2,
        cause: kinds.4.map(|n| Cause::ALL[n]),
        desired: [Desired::Published, Desired::Stopped, Desired::Removed][kinds.2],
        attempt: numbers.0,
        looks: numbers.1,
        misses: numbers.5.0,
        begun_at: times.3,
        called_duplicate: numbers.2,
        doubted: numbers.5.1.as_deref().map(Into::into),
        one_look: numbers.3,
        needs_person: numbers.5.2,
        prepared: said.0,
        receipt: said.1,
        class: kinds.3.map(|n| Class::ALL[n]),
        reason: said.2,
        lateness_ms: late_us.map(|us| us as f64 / 1000.0),
        fence: numbers.4,
    })
}

const OF_IT: &str = "INSERT INTO contents VALUES ('c', '');
    INSERT INTO announcements (id, file, line, content, body, priority, first_seen) VALUES ('a', 'f', 1, 'c', 'b', 2, 0);
    INSERT INTO occurrences (id, announcement, content, release, closing) VALUES ('a@2026-11-24T08:00+08:00', 'a', 'c', 0, NULL);";

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_delivery_comes_back_from_its_columns(first in delivery(), then in delivery(), keeps_prepared in any::<bool>()) {
        simulate(async {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Sqlite::open(&folder.path().join("fabu.db"), &Clock::simulated(utc(START), 1)).unwrap();
            // SQLite refuses a row that points to nothing.
            Connection::open(folder.path().join("fabu.db")).unwrap().execute_batch(OF_IT).unwrap();
            ledger.commit(&Actor::Daemon, vec![Change::Add(Box::new(first.clone()))]).await.unwrap();
            assert!(ledger.load(vec![first.id]).await.unwrap().first() == Some(&first));
            let (priority, fence) = (first.priority, first.fence + 1);
            let mut row = Delivery { priority, fence, ..then };
            if keeps_prepared {
                row.prepared.clone_from(&first.prepared);
            }
            let step = Step { from: first.state, row: row.clone(), attempt: None, event: "test", keeps_prepared, doubt_in: None };
            ledger.commit(&Actor::Daemon, vec![Change::Step(Box::new(step.clone()))]).await.unwrap();
            assert_eq!(ledger.load(vec![first.id]).await.unwrap(), [row]);
            let again = ledger.commit(&Actor::Daemon, vec![Change::Step(Box::new(step))]).await;
            assert!(matches!(again, Err(LedgerError::Conflict)), "a step is taken once");
        });
    }
}

#[test]
fn r27_calls_of_hours_that_are_over_are_not_kept() {
    simulate(async {
        let city = City::new(START, 43, "");
        city.save("a.yaml", "announcements:\n  - {id: tick, text: 第几天, repeat: \"30 * * * *\", to: [\"**\"]}\n");
        let daemon = city.start().await;
        let mut kept = Vec::new();
        for _ in 0..8 {
            city.sleep(3600).await;
            fabu::daemon::jobs::every_hour(&daemon.inner).await;
            kept.push(daemon.inner.ledger.snapshot().await.unwrap().budgets.len());
        }
        assert!(kept[0] > 0, "the hour that runs is counted");
        assert!(kept[7] <= kept[2], "{kept:?}");
    });
}

#[test]
fn r19_a_ledger_of_the_same_length_as_its_mark_and_of_another_history_is_not_believed() {
    simulate(async {
        let (city, left) = killed(false).await;
        let state = city.path().join("state");
        let said = |words: &str| Note::change("said", words, serde_json::json!({}));
        let after = async |words: &str| {
            let ledger = city.ledger().await;
            ledger.commit(&Actor::Daemon, vec![said(words)]).await.unwrap();
            drop(ledger);
            released(&city.clock, &state).await;
            std::fs::read(state.join("fabu.db.mark")).unwrap()
        };
        let one = after("one").await;
        left.put_back(&state);
        assert_ne!(after("other").await, one);
        std::fs::write(state.join("fabu.db.mark"), one).unwrap();
        let trust = city.ledger().await.trust().clone();
        assert!(matches!(trust, Trust::Behind { ledger, marker } if ledger == marker), "{trust:?}");
    });
}
