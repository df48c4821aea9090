//! The bad inputs of `docs/promises.md`, 1 to 64, by number: each ends as a named fault at its place,
//! or as what it stands for, and never as a panic, a hang or a publication.

#[path = "inputs/editors.rs"]
mod editors;
#[path = "inputs/mutated.rs"]
mod mutated;
mod support;
#[path = "inputs/there_and_back.rs"]
mod there_and_back;

use std::os::unix::fs::{PermissionsExt as _, symlink};

use fabu::daemon::queue;
use fabu::input::Fault;
use fabu::input::folder::{Named, Reading};
use support::{City, utc};

const NOW: &str = "2026-11-24T00:00:00Z";

fn city() -> City {
    City::new(NOW, 1, "")
}

fn read(city: &City) -> Reading {
    queue::read(&city.config(), &Named { earlier: Some([].into()), ..Named::default() }, utc(NOW))
}

/// Reads one queue file's bytes and gives what came of it.
fn queue(bytes: &[u8]) -> Reading {
    let city = city();
    std::fs::write(city.queue("a.yaml"), bytes).unwrap();
    read(&city)
}

fn codes(reading: &Reading) -> Vec<(&'static str, usize)> {
    reading.faults.iter().filter(|f| f.is_error()).map(|f| (f.code, f.start().line)).collect()
}

fn warned(reading: &Reading) -> Vec<&'static str> {
    reading.faults.iter().filter(|f| !f.is_error()).map(|f| f.code).collect()
}

/// One announcement with these lines besides its id, and its good neighbour.
fn with(lines: &str) -> Reading {
    let mut text = "announcements:\n  - id: a\n".to_owned();
    for line in lines.lines() {
        text += &format!("    {line}\n");
    }
    text += "  - id: neighbour\n    text: 邻居照常\n    at: 2027-01-01 08:00\n    to: [shanghai]\n";
    let reading = queue(text.as_bytes());
    assert!(reading.desired.announcements.contains_key("neighbour"), "the neighbour stands: {lines}");
    reading
}

/// The fault these lines must give, and that nothing of the entry is taken.
fn fault(lines: &str, code: &str) {
    let reading = with(lines);
    let found = codes(&reading);
    assert!(found.iter().any(|(c, _)| *c == code), "{lines}\n{found:?} has no {code}");
    assert!(!reading.desired.announcements.contains_key("a"), "{lines}");
    assert!(reading.desired.standing.contains("a"), "what the ledger has of it stands: {lines}");
}

fn fine(lines: &str) -> Reading {
    let reading = with(lines);
    assert_eq!(codes(&reading), [], "{lines}");
    assert!(reading.desired.announcements.contains_key("a"), "{lines}");
    reading
}

const REST: &str = "at: 2027-01-01 08:00\nto: [shanghai]\n";

fn rest(line: &str) -> String {
    format!("{line}\n{REST}")
}

#[test]
fn inputs_1_to_6_empty_files_encodings_and_syntax() {
    for text in ["", "# only\n", "---\n", "announcements:\n", "announcements: []\n"] {
        let reading = queue(text.as_bytes());
        assert_eq!((codes(&reading), reading.desired.announcements.len()), (vec![], 0), "1, 2: {text:?}");
        assert!(!reading.desired.folder_gone);
    }
    for text in ["announcements: {a: 1}\n", "announcements: text\n", "- a\n"] {
        let reading = queue(text.as_bytes());
        assert_eq!(codes(&reading)[0].0, "type", "2: {text:?}");
        assert!(reading.desired.unread_files.contains("a.yaml"));
    }
    let cut = queue("announcements:\n  - id: a\n    to: [shanghai]\n    text: |\n      第一行\n      第二".as_bytes());
    assert_eq!(cut.desired.announcements["a"].content.body.text, "第一行\n第二", "3");
    for (text, line) in [
        ("announcements:\n\t- id: a\n", 2),
        ("announcements:\n  - id: \"a\n", 2),
        ("announcements:\n  - id: a\n    text: x: y\n", 3),
    ] {
        let reading = queue(text.as_bytes());
        assert_eq!(codes(&reading)[0], ("syntax", line), "4: {text:?}");
        assert!(reading.faults[0].hint.is_some());
    }
    let utf16: Vec<u8> = "announcements:".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in
        [[&[0xff, 0xfe][..], &utf16].concat(), b"announcements:\n  - id: \xd4\xe7".to_vec(), b"a: \xe9\n".to_vec()]
    {
        assert_eq!(codes(&queue(&bytes))[0].0, "not_utf8", "5");
    }
    let plain = "announcements:\n  - id: a\n    text: 早\n    to: [shanghai]\n";
    let contents = |text: &str| -> Vec<_> {
        queue(text.as_bytes()).desired.announcements.into_values().map(|a| (a.id, a.content)).collect()
    };
    let same = contents(plain);
    for text in [format!("\u{feff}{plain}"), plain.replace('\n', "\r\n"), plain.replace('\n', "\r")] {
        assert_eq!(contents(&text), same, "6");
    }
}

#[test]
fn inputs_7_to_15_controls_bombs_tags_and_keys() {
    fault(&rest("text: \"a\\0b\""), "hidden_character");
    fault(&rest("text: \"a\\u0085b\""), "hidden_character");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..9 {
        bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "));
    }
    assert_eq!(codes(&queue(bomb.as_bytes()))[0].0, "alias_bomb", "8");
    assert_eq!(codes(&queue(b"announcements: &a [*a]\n"))[0].0, "alias", "9");
    for deep in ["[", "{a: ", "- "] {
        assert!(!codes(&queue(deep.repeat(100_000).as_bytes())).is_empty(), "10: {deep}");
    }
    fault(&rest("text: !!python/object x"), "tag");
    fault(&rest("text: !include /etc/passwd"), "tag");
    assert_eq!(codes(&queue(b"announcements: []\n---\nannouncements: []\n"))[0].0, "two_documents", "12");
    let twice = with(&rest("text: a\ntext: b"));
    assert!(codes(&twice).iter().any(|(c, _)| *c == "key_twice"), "13");
    assert!(!twice.desired.announcements.contains_key("a"), "13: neither version is taken");
    let same = "announcements:\n  - {id: a, text: x, to: [shanghai]}\n  - {id: a, text: y, to: [shanghai]}\n";
    let reading = queue(same.as_bytes());
    assert_eq!(codes(&reading), [("id_twice", 2), ("id_twice", 3)], "14");
    assert!(reading.desired.announcements.is_empty() && reading.desired.standing.contains("a"));
    let reading = with(&rest("txet: x\ntext: y"));
    let unknown = reading.faults.iter().find(|f| f.code == "unknown_key").unwrap();
    assert_eq!(unknown.hint.as_ref().unwrap().en, "did you mean `text`?", "15");
}

#[test]
fn inputs_14_and_18_ids_across_files_and_ids_that_look_alike() {
    let city = city();
    let entry = |id: &str| format!("announcements:\n  - {{id: \"{id}\", text: x{}, to: [shanghai]}}\n", id.len());
    city.save("a.yaml", &entry("metro"));
    city.save("b.yaml", &entry("metro"));
    assert_eq!(read(&city).faults.iter().filter(|f| f.code == "id_twice").count(), 2);
    for alike in ["Metro", "ｍetro"] {
        city.save("b.yaml", &entry(alike));
        assert_eq!(read(&city).faults.iter().filter(|f| f.code == "id_twice").count(), 2, "{alike}");
    }
}

#[test]
fn inputs_16_to_19_ids_and_empty_texts() {
    for id in ["../../x", "a/b", "\"a\\nb\"", "\"\"", &"x".repeat(10_000)] {
        let text = format!("announcements:\n  - id: {id}\n    text: x\n    to: [shanghai]\n");
        assert_eq!(codes(&queue(text.as_bytes()))[0], ("id", 2), "16: {id:.20}");
    }
    for id in ["007", "no", "1e3"] {
        let text = format!("announcements:\n  - id: {id}\n    text: x\n    to: [shanghai]\n");
        assert!(queue(text.as_bytes()).desired.announcements.contains_key(id), "17: {id}");
    }
    for text in ["text: \"\"", "text: \"   \"", "text: \"\\u200b\\u200b\"", "link: https://a.cn"] {
        let reading = with(&rest(text));
        assert!(!reading.desired.announcements.contains_key("a"), "19: {text}");
    }
}

#[test]
fn inputs_20_to_30_texts() {
    fault(&rest(&format!("text: {}", "长".repeat(141))), "too_long");
    let variants = format!(
        "text: {}\nvariants: {{sina: {{text: 短}}, tencent: {{text: 短}}, eastday: {{text: 短}}}}",
        "长".repeat(141)
    );
    fine(&rest(&variants));
    let city = city();
    std::fs::write(city.queue("big.yaml"), vec![b'a'; (1 << 20) + 1]).unwrap();
    let sparse = std::fs::File::create(city.queue("sparse.yaml")).unwrap();
    sparse.set_len(200 << 20).unwrap();
    assert_eq!(codes(&read(&city)), [("too_large", 1), ("too_large", 1)], "21");
    fault(&rest("text: [a, b]"), "type");
    fault(&rest("text: 5"), "type");
    for control in ["\\e[2J", "\\e]52;c;x\\a", "\\a", "\\u202e", "\\u2066", "停\\u200b水", "\\U000E0041"] {
        fault(&rest(&format!("text: \"a{control}b\"")), "hidden_character");
    }
    for (line, warning) in [("text: \"p\\u0430ypal\"", "look_alike"), ("text: 见 https://ɡov.cn", "look_alike")] {
        assert!(warned(&fine(&rest(line))).contains(&warning), "26: {line}");
    }
    for text in
        ["<script>alert(1)</script>", "\"><img onerror=x>", "=HYPERLINK(1)", "%s %n {} ${jndi:x} $(id) ; rm -rf"]
    {
        let reading = fine(&rest(&format!("text: '{}'", text)));
        assert_eq!(reading.desired.announcements["a"].content.body.text, text, "27 to 29");
    }
}

#[test]
fn inputs_31_to_39_times() {
    for at in [
        "2026-02-30 08:00",
        "2026-11-24 25:00",
        "2026-11-24 08:60",
        "2026-11-24T08:00+99:00",
        "2026-11-24T08:00Z+08:00",
        "tomorrow",
        "8",
    ] {
        fault(&format!("text: x\nat: {at}\nto: [shanghai]"), "time");
    }
    fault("text: x\nat: {}\nto: [shanghai]", "type");
    fine("text: x\nat: 1970-01-01 08:00\nto: [shanghai]");
    assert!(warned(&fine("text: x\nat: 9999-12-31 23:59\nto: [shanghai]")).contains(&"far_ahead"), "34");
    fault(&rest("text: x\nrepeat: \"0 8 * * *\""), "at_and_repeat");
    for repeat in ["60 * * * *", "* * *", "@reboot", "0 0 30 2 *"] {
        fault(&format!("text: x\nrepeat: \"{repeat}\"\nto: [shanghai]"), "repeat");
    }
    let often = City::new(NOW, 1, "");
    let text = std::fs::read_to_string(often.path().join("fabu.yaml"))
        .unwrap()
        .replace("account_per_hour: off", "account_per_hour: 30");
    std::fs::write(often.path().join("fabu.yaml"), text).unwrap();
    often.save("a.yaml", "announcements:\n  - {id: a, text: x, repeat: \"* * * * * *\", to: [\"**\"]}\n");
    assert_eq!(codes(&read(&often)), [("too_often", 2)], "38");
    let over = fine("text: x\nrepeat: \"0 8 * * *\"\nuntil: 2020-01-01\nto: [shanghai]");
    assert!(warned(&over).contains(&"never"), "39");
}

#[test]
fn inputs_40_to_44_targets_priorities_and_spans() {
    for (to, code) in [
        ("to: []", "missing"),
        ("", "missing"),
        ("to: [nowhere]", "no_account"),
        ("to: [\"sina:\"]", "no_account"),
        ("to: [\"#nobody\"]", "no_account"),
        ("to: [\"../**\"]", "no_account"),
        ("to: [\"shanghai/../**\"]", "no_account"),
        ("to: [\"(a+)+$\"]", "no_account"),
    ] {
        fault(&format!("text: x\nat: 2027-01-01 08:00\n{to}"), code);
    }
    let one =
        fine("text: x\nat: 2027-01-01 08:00\nto: [shanghai, \"shanghai/**\", \"**\", \"#lead\", \"sina:shanghai\"]");
    assert_eq!(one.desired.announcements["a"].content.accounts.len(), 15, "42: each account once");
    for line in [
        "priority: EMERGENCY",
        "priority: 9",
        "expires_after: -1h",
        "expires_after: 0",
        "expires_after: 2 fortnights",
        "expires_after: 9e99h",
    ] {
        fault(&rest(&format!("text: x\n{line}")), "value");
    }
}

/// A 1×1 PNG, whole by its frame.
fn png(width: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let head: Vec<u8> =
        [width.to_be_bytes(), width.to_be_bytes()].concat().into_iter().chain([8, 0, 0, 0, 0]).collect();
    for (kind, data) in [(b"IHDR", head.as_slice()), (b"IDAT", &[0x78, 0x9c, 0x63, 0, 0, 0, 2, 0, 1]), (b"IEND", &[])] {
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(kind);
        bytes.extend(data);
        bytes.extend([0; 4]);
    }
    bytes
}

#[test]
fn inputs_45_to_50_pictures() {
    let city = city();
    let queue = city.path().join("queue");
    std::fs::write(queue.join("good.png"), png(1)).unwrap();
    std::fs::write(city.path().join("outside.png"), png(1)).unwrap();
    std::fs::write(queue.join("bomb.png"), png(60_000)).unwrap();
    std::fs::write(queue.join("text.jpg"), "no picture").unwrap();
    std::fs::write(queue.join("svg.svg"), "<svg><script/></svg>").unwrap();
    std::fs::write(queue.join("empty.png"), "").unwrap();
    std::fs::write(queue.join("cut.jpg"), b"\xff\xd8\xff\xe0\0\x10JFIF").unwrap();
    std::fs::File::create(queue.join("giant.png")).unwrap().set_len(1 << 30).unwrap();
    std::fs::create_dir(queue.join("folder.png")).unwrap();
    symlink(city.path().join("outside.png"), queue.join("link.png")).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(queue.join("socket.png")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(queue.join("pipe.png")).status().unwrap().success());
    let of = |images: &str| {
        city.save(
            "a.yaml",
            &format!("announcements:\n  - {{id: a, text: x, to: [\"sina:shanghai\"], images: {images}}}\n"),
        );
        codes(&read(&city))
    };
    assert_eq!(of("[good.png]"), []);
    for bad in [
        "/etc/passwd",
        "../outside.png",
        "img/../../x",
        "link.png",
        "folder.png",
        "socket.png",
        "pipe.png",
        "bomb.png",
        "text.jpg",
        "svg.svg",
        "empty.png",
        "cut.jpg",
        "giant.png",
        "missing.png",
    ] {
        assert_eq!(of(&format!("[{bad}]")), [("picture", 2)], "{bad}");
    }
    assert_eq!(of("[\"img/\\0x\"]"), [("picture", 2)], "45");
    assert_eq!(of(&format!("[{}]", vec!["good.png"; 100].join(", "))), [("picture", 2)], "50");
    // Swapped for another after the check: the kernel refuses the link at the opening itself.
    std::fs::remove_file(queue.join("good.png")).unwrap();
    symlink(city.path().join("outside.png"), queue.join("good.png")).unwrap();
    assert!(fabu::input::images::load(&queue, "good.png").is_err(), "46");
}

#[test]
fn inputs_51_to_54_links_variants_and_supersedes() {
    for link in ["javascript:alert(1)", "file:///etc/passwd", "data:x", "http://u:p@h/", "\"https://a.cn/\\r\\nb\""] {
        fault(&rest(&format!("text: x\nlink: {link}")), "link");
    }
    for link in ["http://169.254.169.254/", "http://localhost/"] {
        assert!(warned(&fine(&rest(&format!("text: x\nlink: {link}")))).contains(&"private_link"), "52");
    }
    fault(&rest("text: x\nvariants: {sinna: {text: y}}"), "platform");
    fault(&rest("text: x\nvariants: []"), "type");
    fault(&rest("text: x\nsupersedes: nothing-known"), "supersedes");
    fault(&rest("text: x\nsupersedes: a"), "supersedes");
    let ring = "announcements:\n  - {id: a, text: x, to: [shanghai], supersedes: b}\n  - {id: b, text: y, to: [shanghai], supersedes: a}\n";
    assert_eq!(codes(&queue(ring.as_bytes())), [("supersedes", 2), ("supersedes", 3)]);
}

#[test]
fn inputs_55_to_57_and_60_what_lies_in_the_folder() {
    let city = city();
    let good = "announcements:\n  - {id: good, text: x, to: [shanghai]}\n";
    city.save("good.yaml", good);
    for ignored in [".x.yaml.swp", "x.yaml~", "4913", ".#x.yaml", "x.yaml.tmp", ".hidden.yaml"] {
        std::fs::write(city.queue(ignored), "not yaml: [").unwrap();
    }
    assert_eq!(read(&city).faults, [], "56");
    std::fs::create_dir(city.queue("folder.yaml")).unwrap();
    symlink("/nowhere", city.queue("dangling.yaml")).unwrap();
    symlink(city.queue("loop.yaml"), city.queue("loop.yaml")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(city.queue("pipe.yaml")).status().unwrap().success());
    let odd = std::ffi::OsStr::from_bytes(b"new\nline\x1b\xff.yaml");
    std::fs::write(city.path().join("queue").join(odd), "announcements:\n  - {id: x}\n").unwrap();
    let reading = read(&city);
    assert!(reading.desired.announcements.contains_key("good"), "neighbours stand");
    assert_eq!(reading.faults.iter().filter(|f| f.code == "not_a_file").count(), 4, "55");
    // A file that was moved behind a link is not gone: what it said stands.
    assert!(reading.desired.unread_files.contains("dangling.yaml"), "{:?}", reading.desired.unread_files);
    let voice = fabu::cli::text::Voice { lang: Default::default(), json: false, colour: false, terminal: false };
    assert!(reading.faults.iter().all(|f| !voice.fault(f).contains('\u{1b}')), "57: shown escaped");
    std::fs::set_permissions(city.path().join("queue"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::remove_dir_all(city.path().join("queue")).unwrap();
    assert!(read(&city).desired.folder_gone, "60");
}

use std::os::unix::ffi::OsStrExt as _;

#[test]
fn input_58_many_announcements_are_read() {
    let city = city();
    for file in 0..40 {
        let mut text = "announcements:\n".to_owned();
        for n in 0..100 {
            text +=
                &format!("  - {{id: a{file}-{n}, text: 第{file}号{n}, at: \"2027-01-01 08:00\", to: [shanghai]}}\n");
        }
        city.save(&format!("f{file}.yaml"), &text);
    }
    let reading = read(&city);
    assert_eq!((codes(&reading).len(), reading.desired.announcements.len()), (0, 4000));
}

#[test]
fn inputs_61_to_64_accounts_and_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let read = |accounts: &str| {
        write("fabu.yaml", "");
        write("accounts.yaml", accounts);
        let env: fabu::daemon::config::Env = std::sync::Arc::new(|name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        });
        fabu::daemon::config::read(&folder.path().join("fabu.yaml"), &env, true)
    };
    let of = |token: &str| read(&format!("units:\n- {{id: u, accounts: {{sina: {{token: \"{token}\"}}}}}}\n"));
    let found = |faults: &[Fault]| faults.iter().filter(|f| f.is_error()).map(|f| f.code).collect::<Vec<_>>();
    let (config, faults) = of("2.00canary");
    assert!(config.is_none());
    assert_eq!(found(&faults), ["literal_secret"], "61");
    assert!(!format!("{faults:?}").contains("canary"));
    write("open", "x");
    std::fs::set_permissions(folder.path().join("open"), std::fs::Permissions::from_mode(0o644)).unwrap();
    for token in ["file:open", "env:UNSET", "env:EMPTY", "file:missing"] {
        let (config, faults) = of(token);
        assert_eq!(found(&faults), ["secret"], "62: {token}");
        assert!(config.unwrap().city.accounts["sina:u"].secret.is_none(), "only this account is out");
    }
    let (_, faults) = read(
        "units:\n- {id: u, accounts: {sina: {token: \"env:SET\"}}}\n- {id: u, accounts: {sina: {token: \"env:SET\"}}}\n",
    );
    assert_eq!(found(&faults), ["unit_twice"], "63");
    let (_, faults) = read(
        "units:\n- {id: u, accounts: {sina: {token: \"env:SET\"}}}\n- {id: v, accounts: {sina: {token: \"env:SET\"}}}\n",
    );
    assert!(faults.iter().any(|f| f.code == "token_twice" && !f.is_error()), "63");
    for url in ["http://example.org", "ftp://x", "https://u:p@x.cn", "https://x.cn/#a"] {
        write("fabu.yaml", &format!("platforms: {{sina: {{base_url: \"{url}\"}}}}\n"));
        let (settings, faults) = fabu::input::settings::read(&folder.path().join("fabu.yaml"));
        assert!(settings.is_none() && faults[0].code == "base_url", "64: {url}");
    }
}

/// An entry whose id was damaged is a fault, and what the file said before stands: nobody can tell which entry it was.
#[test]
fn r03_a_damaged_id_withdraws_nothing_of_its_file() {
    for id in ["id:", "id: ~", "idd: a", "id: a x", "id: [a]", "id: \"\"", "# id: a"] {
        let city = city();
        city.save("a.yaml", &format!("announcements:\n  - {id}\n    text: x\n    to: [shanghai]\n"));
        let reading = read(&city);
        assert!(reading.faults.iter().any(|f| f.is_error()), "{id}: {:?}", codes(&reading));
        assert!(reading.desired.announcements.is_empty(), "{id}");
        assert!(reading.desired.unread_files.contains("a.yaml"), "{id}");
    }
}

/// A folder below the queue's that is a link, or cannot be read, takes nothing away; neighbours go on.
#[test]
fn r03_a_folder_that_is_not_read_cancels_nothing_and_keeps_nobody_else_waiting() {
    let city = city();
    let entry = |id: &str| format!("announcements:\n  - {{id: {id}, text: x {id}, to: [shanghai]}}\n");
    std::fs::create_dir(city.queue("sub")).unwrap();
    city.save("sub/a.yaml", &entry("a"));
    city.save("b.yaml", &entry("b"));
    assert_eq!(read(&city).desired.announcements.len(), 2);
    let away = city.path().join("away");
    std::fs::rename(city.queue("sub"), &away).unwrap();
    symlink(&away, city.queue("sub")).unwrap();
    let reading = read(&city);
    assert_eq!(codes(&reading)[0].0, "folder_not_read");
    assert!(reading.desired.announcements.contains_key("b") && !reading.desired.folder_gone);
    assert!(reading.desired.is_unread("sub/a.yaml") && !reading.desired.is_unread("b.yaml"));
}

/// Wherever a slip of the pen has put a secret, nothing shows it.
#[test]
fn r34_no_fault_of_accounts_or_settings_shows_a_secret() {
    let secret = "2.00SECRETxyz";
    let account = |inside: &str| format!("units:\n  - {{id: u, name: 上海, accounts: {{sina: {inside}}}}}\n");
    let accounts = [
        account(&format!("{{token: {secret}, nonsense: 1}}")),
        account(&format!("{{tokn: {secret}}}")),
        account(&format!("{{access_token: {secret}}}")),
        account(&format!("{{token: {secret}, status: sleepy}}")),
        account(&format!("{{token: {secret}, uid: [1]}}")),
        account(&format!("{{token: \"env:A\", token: {secret}}}")),
        account(secret),
        account(&format!("[{secret}]")),
        account(&format!("{{token: [{secret}]}}")),
        account(&format!("{{token: {{a: {secret}}}}}")),
        account(&format!("{{token: !!binary \"{secret}\"}}")),
        account(&format!("{{token: &{secret} x}}")),
        account(&format!("{{{secret}: 1}}")),
        account(&format!("{{token:{secret}}}")),
        account(&format!("{{handle: \"a\\q\", token: {secret}}}")),
        account(&format!("{{handle: h # token: {secret}\n")),
        account(&format!("{{token: {secret}}}")).replace("sina", "snia"),
        format!("units:\n  - id: u\n    accounts:\n\t  sina: {{token: {secret}}}\n"),
        format!("units:\n  - id: u\n    accounts:\n      sina:\n        tokn: {secret}\n"),
    ];
    let settings = [
        format!("platforms: {{sina: {{base_url: \"https://u:{secret}@x.cn\"}}}}\n"),
        format!("platforms: {{sina: {{base_url: \"https://x.cn/?key={secret}\"}}}}\n"),
        format!("platforms: {{sina: {{base_urll: \"https://u:{secret}@x.cn\"}}}}\n"),
        format!("platforms: {{sina: {{token: {secret}}}}}\n"),
        format!("notify: [{{url: \"https://x.cn/?key={secret}\", kinds: [nonsense]}}]\n"),
        format!("ledger: \"postgres://u:{secret}@db/fabu\"\n"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let env: fabu::daemon::config::Env = std::sync::Arc::new(|_: &str| None);
    let voice = fabu::cli::text::Voice { lang: Default::default(), json: false, colour: false, terminal: false };
    let files = accounts.iter().map(|text| ("", text.as_str())).chain(settings.iter().map(|text| (text.as_str(), "")));
    for (settings, accounts) in files {
        std::fs::write(folder.path().join("fabu.yaml"), settings).unwrap();
        std::fs::write(folder.path().join("accounts.yaml"), accounts).unwrap();
        let (_, faults) = fabu::daemon::config::read(&folder.path().join("fabu.yaml"), &env, true);
        assert!(faults.iter().any(Fault::is_error), "{settings}{accounts}");
        let shown: String =
            faults.iter().map(|f| format!("{}\n{:?}\n", voice.fault(f), (&f.message, &f.hint))).collect();
        assert!(!shown.contains(secret), "{settings}{accounts}\n{shown}");
    }
}
