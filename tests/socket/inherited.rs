//! The socket itself: one of ours, and one that the service manager holds.

use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::outdoors::{Outdoors, answer, request, runtime};

fn held_by_the_manager(city: &Outdoors, name: &str, mode: u32) -> UnixListener {
    let path = city.socket().with_file_name(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    listener
}

#[test]
fn whoever_asks_while_the_daemon_is_away_waits_for_it() {
    runtime().block_on(async {
        let city = Outdoors::new(2, "").await;
        let listener = held_by_the_manager(&city, "fabu.sock", 0o660);
        let post = |n: u32| {
            let body = format!(r#"{{"text":"第{n}号通告","to":["**"],"level":"blue","id":"n{n}"}}"#);
            let mut stream = UnixStream::connect(city.socket()).unwrap();
            stream.write_all(request("POST", "/v1/urgent", &body).as_bytes()).unwrap();
            stream
        };
        let mut waiting = post(1);
        let mut daemon = city.start_with(&listener);
        assert_eq!(answer(&mut waiting, &city.clock).expect("it was waited for").status, 202);
        daemon.kill();
        let mut waiting = post(2);
        city.clock.sleep(Duration::from_millis(200)).await;
        let mut daemon = city.start_with(&listener);
        assert_eq!(answer(&mut waiting, &city.clock).expect("it was waited for").status, 202);
        assert_eq!(city.none_is(&crate::outdoors::OPEN).await, None, "everything ended");
        assert_eq!(daemon.end().await, Some(0));
        let kept = std::fs::symlink_metadata(city.socket()).expect("it is not the daemon's to remove");
        assert!(kept.file_type().is_socket());
        assert_eq!(city.posts().await.len(), 2 * 2 * 4, "each once");
    });
}

#[test]
fn r32_one_that_others_may_open_or_that_is_another_is_not_taken() {
    runtime().block_on(async {
        let city = Outdoors::new(1, "").await;
        let open = held_by_the_manager(&city, "fabu.sock", 0o666);
        assert_eq!(city.start_with(&open).wait().await, Some(1));
        assert!(city.log().contains("SocketMode=0660"), "{}", city.log());
        std::fs::remove_file(city.socket()).unwrap();
        let right = held_by_the_manager(&city, "fabu.sock", 0o660);
        let other = held_by_the_manager(&city, "other.sock", 0o660);
        assert_eq!(city.start_with(&other).wait().await, Some(1));
        assert!(city.log().contains("was passed, and the configuration says"), "{}", city.log());
        let mut daemon = city.start_with(&right);
        city.clock.sleep(Duration::from_millis(500)).await;
        assert_eq!(city.ask("GET", "/v1/status", "").status, 200);
        assert_eq!(daemon.end().await, Some(0));
    });
}

#[test]
fn r32_in_a_folder_that_others_can_write_there_is_no_socket() {
    runtime().block_on(async {
        let city = Outdoors::new(1, "").await;
        let folder = city.socket().parent().unwrap().to_owned();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        let fabu = |command: &str| {
            let mut fabu = std::process::Command::new(env!("CARGO_BIN_EXE_fabu"));
            fabu.args(["--config", "fabu.yaml", command]).current_dir(folder.parent().unwrap()).output().unwrap()
        };
        let run = fabu("run");
        assert_eq!(run.status.code(), Some(1));
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(said.contains("chmod o-w"), "{said}");
        assert!(!city.socket().exists());
    });
}

#[test]
fn r32_a_socket_of_our_own_is_closed_to_others_from_its_first_instant() {
    runtime().block_on(async {
        let city = Outdoors::new(1, "").await;
        let folder = city.socket().parent().unwrap().to_owned();
        // Whatever the umask, and as often as it is made: who looks never sees it open to others.
        let watch = folder.clone();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let watching = std::thread::spawn(move || {
            let mut seen = 0;
            while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
                let Ok(entries) = std::fs::read_dir(&watch) else { continue };
                for entry in entries.flatten().filter(|e| e.file_name() == "fabu.sock") {
                    let Ok(meta) = std::fs::symlink_metadata(entry.path()) else { continue };
                    assert_eq!(meta.permissions().mode() & 0o7777, 0o660);
                    seen += 1;
                }
            }
            seen
        });
        for _ in 0..5 {
            city.start().await.kill();
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(watching.join().unwrap() > 0, "it was seen");
        assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o002, 0, "nor is its folder");
    });
}
