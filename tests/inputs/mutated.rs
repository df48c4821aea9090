//! Any bytes at all, and good files spoilt: every reader comes back, and each fault has its place in the file.
//!
//! `PROPTEST_CASES` sets how many.

use std::path::Path;

use fabu::daemon::{config, queue};
use fabu::input::Fault;
use fabu::input::folder::Named;
use proptest::prelude::*;

use crate::support::{City, accounts_yaml, utc};

const QUEUE: &str = r##"# 早安
announcements:
  - id: morning
    text: |
      早安，上海！
      今天多云。
    repeat: "30 7 * * 1-5"
    from: 2026-11-25
    until: 2027-03-31
    skip: [2027-01-01]
    catch_up: none
    to: ["**", "#district", "sina:shanghai/**"]
    variants: {sina: {text: 早安 🌞}, tencent: {title: 早, text: "早\u3000安"}}
  - &b {id: metro-1, text: 'It''s late', at: 2026-11-24 08:30, to: [shanghai/metro], except: ["#lead"], link: "https://x.cn/a?b=1"}
  - id: c
    text: >-
      折叠
      的行
    at: 2026-11-24T09:00:00+08:00
    to: [shanghai]
    expires_after: 1h30m
    priority: important
    supersedes: metro-1
    images: [{file: img/a.png, alt: 图}]
"##;

const PIECES: [&str; 32] = [
    "\u{0}",
    "\t",
    "\n",
    "\r",
    "  ",
    "- ",
    ": ",
    "? ",
    "&a ",
    "*a",
    "!!str ",
    "%YAML 9.9\n",
    "---\n",
    "...\n",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "|",
    ">",
    "#",
    "<<: *b\n",
    "\u{feff}",
    "\u{202e}",
    "é",
    "👨‍👩‍👧",
    "9999999999999999999",
    "-1e309",
    "~",
    "\\x",
];

#[derive(Clone, Debug)]
enum Spoil {
    Put(usize, usize),
    Remove(usize, usize),
    Repeat(usize, usize, usize),
    Flip(usize, u8),
}

fn spoil() -> impl Strategy<Value = Vec<Spoil>> {
    let one = prop_oneof![
        3 => (any::<usize>(), 0..PIECES.len()).prop_map(|(at, piece)| Spoil::Put(at, piece)),
        2 => (any::<usize>(), 1usize..40).prop_map(|(at, many)| Spoil::Remove(at, many)),
        1 => (any::<usize>(), 1usize..60, 1usize..40).prop_map(|(at, many, times)| Spoil::Repeat(at, many, times)),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, with)| Spoil::Flip(at, with)),
    ];
    proptest::collection::vec(one, 1..6)
}

fn spoilt(text: &str, how: &[Spoil]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for one in how {
        let place = |at: usize| at % (bytes.len() + 1);
        match *one {
            Spoil::Put(at, piece) => {
                let at = place(at);
                bytes.splice(at..at, PIECES[piece].bytes());
            }
            Spoil::Remove(at, many) => {
                let at = place(at);
                bytes.drain(at..bytes.len().min(at + many));
            }
            Spoil::Repeat(at, many, times) => {
                let at = place(at);
                let part = bytes[at..bytes.len().min(at + many)].repeat(times);
                bytes.splice(at..at, part);
            }
            Spoil::Flip(at, with) => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= with;
                }
            }
        }
    }
    bytes
}

/// Every fault can be drawn: its span lies in its file, on whole characters, with a place and words.
fn drawable(faults: &[Fault]) {
    for fault in faults {
        let (text, span) = (&fault.source.text, &fault.span);
        assert!(span.start <= span.end && span.end <= text.len(), "{}: {span:?} of {}", fault.code, text.len());
        assert!(text.get(span.clone()).is_some(), "{}: {span:?} cuts a character", fault.code);
        let (start, end) = (fault.start(), fault.end());
        assert!((start.line, start.column) <= (end.line, end.column));
        assert!(!fault.message.zh.is_empty() && !fault.message.en.is_empty());
        for shown in [&fault.message.zh, &fault.message.en] {
            assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{}: {shown:?}", fault.code);
        }
    }
}

/// A city whose file of this name is replaced, read and put back, for each case.
fn reads(city: &City, file: &str, bytes: &[u8]) {
    let env: config::Env = std::sync::Arc::new(|_: &str| Some("token-x".to_owned()));
    let path = city.path().join(file);
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    if file.starts_with("queue") {
        drawable(&queue::read(&city.config(), &Named::default(), utc(crate::NOW)).faults);
    } else {
        drawable(&config::read(&city.path().join("fabu.yaml"), &env, true).1);
    }
    std::fs::write(&path, good).unwrap();
}

fn good(city: &City, file: &str) -> String {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/fabu.yaml");
    match file {
        "queue/a.yaml" => QUEUE.to_owned(),
        "accounts.yaml" => accounts_yaml(),
        // The sample says more than the city's own.
        _ => std::fs::read_to_string(sample).unwrap() + &std::fs::read_to_string(city.path().join(file)).unwrap(),
    }
}

const FILES: [&str; 3] = ["queue/a.yaml", "accounts.yaml", "fabu.yaml"];

thread_local! {
    static CITY: City = {
        let city = crate::city();
        city.save("a.yaml", QUEUE);
        city
    };
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(160)) })]

    #[test]
    fn r40_any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), file in 0usize..3) {
        CITY.with(|city| reads(city, FILES[file], &bytes));
    }

    #[test]
    fn r40_any_text_is_read_or_refused(text in "(?s).{0,200}", file in 0usize..3) {
        CITY.with(|city| reads(city, FILES[file], text.as_bytes()));
    }

    #[test]
    fn r40_a_good_file_spoilt_is_read_or_refused(how in spoil(), file in 0usize..3) {
        CITY.with(|city| reads(city, FILES[file], &spoilt(&good(city, FILES[file]), &how)));
    }
}

fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}
