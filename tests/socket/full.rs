//! The disk full: what is kept aside is an emergency's, and nothing new of routine is begun.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::outdoors::{OPEN, Outdoors, runtime};

/// Mounts a small disk where the ledger is, for this process alone, fills it when told and empties it when told.
const SMALL_DISK: &str = r#"mount -t tmpfs -o size=160m tmpfs full || exit 7
(waits() { while [ ! -e "$1" ]; do kill -0 $$ || exit; sleep 0.05; done; }
 waits fill; dd if=/dev/zero of=full/fill bs=64k 2>/dev/null; touch filled; waits free; rm full/fill) &
exec "$@""#;

/// The same; when told, its first process is killed and the disk filled, and a second one started.
const FILLED_BETWEEN: &str = r#"mount -t tmpfs -o size=160m tmpfs full || exit 7
"$@" & first=$!
while [ ! -e kill ]; do kill -0 $first || exit; sleep 0.05; done
kill -9 $first; wait $first; dd if=/dev/zero of=full/fill bs=4k 2>/dev/null; touch filled; exec "$@""#;

#[test]
fn r21_a_daemon_starts_on_a_full_disk_and_sends_an_emergency() {
    runtime().block_on(async {
        let city = Outdoors::new(4, "ledger: sqlite:full/fabu.db\n").await;
        let mut daemon =
            city.start_inside(&["unshare", "--map-root-user", "--mount", "sh", "-c", FILLED_BETWEEN, "sh"]).await;
        city.touch("kill");
        city.wait_for("filled").await;
        let mut stream = UnixStream::connect(city.socket());
        for _ in 0..200 {
            if stream.is_ok() {
                break;
            }
            city.clock.sleep(Duration::from_millis(50)).await;
            stream = UnixStream::connect(city.socket());
        }
        let stream = stream.unwrap_or_else(|error| panic!("{error}: {}", city.log()));
        let body = r#"{"text":"请避险","to":["**"],"level":"blue","id":"n"}"#;
        assert_eq!(city.ask_on(stream, "POST", "/v1/urgent", body).status, 202, "{}", city.log());
        assert_eq!(city.none_is(&OPEN).await, None, "everything ended");
        assert_eq!(city.posts().await.len(), 16);
        assert_eq!(daemon.end().await, Some(0));
    });
}

#[test]
fn r21_on_a_full_disk_an_emergency_is_recorded_and_sent_and_routine_waits_until_there_is_space() {
    runtime().block_on(async {
        let city = Outdoors::new(4, "ledger: sqlite:full/fabu.db\n").await;
        let mut daemon =
            city.start_inside(&["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh"]).await;
        let urgent = |n: usize| {
            let text = "请注意防范。".repeat(8);
            let body = format!(r#"{{"text":"第{n}号通告：{text}","to":["**"],"level":"blue","id":"n{n}"}}"#);
            city.ask("POST", "/v1/urgent", &body)
        };
        let troubles = || city.ask("GET", "/v1/health", "").value["degraded"].to_string();
        assert_eq!(urgent(0).status, 202);
        city.touch("fill");
        city.wait_for("filled").await;
        let mut sent = 1;
        // What the log has room for itself goes first.
        while !troubles().contains("ledger_full") {
            assert!(sent < 300, "the room was never needed: {}", city.log());
            assert_eq!(urgent(sent).status, 202, "{}", city.log());
            sent += 1;
        }
        for _ in 0..10 {
            assert_eq!(urgent(sent).status, 202, "{}", city.log());
            sent += 1;
        }
        assert_eq!(city.none_is(&OPEN).await, None, "everything ended");
        city.save("a.yaml", "announcements:\n  - {id: cheer, text: 今天天气真好！, to: [\"**\"]}\n");
        city.clock.sleep(Duration::from_secs(7)).await;
        let posts = city.posts().await;
        assert_eq!(posts.len(), sent * 16, "each emergency once on each account, and nothing of routine");
        assert!(troubles().contains("ledger_full"));
        city.touch("free");
        let cheered = async || city.posts().await.len() == sent * 16 + 16;
        for _ in 0..200 {
            if cheered().await {
                break;
            }
            city.clock.sleep(Duration::from_millis(100)).await;
        }
        assert!(cheered().await, "it goes on by itself: {}", city.log());
        assert_eq!(troubles(), "[]");
        assert_eq!(daemon.end().await, Some(0));
    });
}
