//! Good alerts spoilt at random: never a panic, and what is still read can be written and read again.
//!
//! `PROPTEST_CASES` sets how many.

use fabu::input::cap;
use proptest::prelude::*;

const PIECES: [&str; 26] = [
    "<",
    ">",
    "</",
    "/>",
    "&",
    ";",
    "&#13;",
    "&#x0;",
    "&lt;",
    "\"",
    "'",
    "=",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<?x?>",
    "<!DOCTYPE a>",
    " xmlns=\"\"",
    "<info>",
    "</info>",
    "\r\n",
    "\u{0}",
    "\u{3000}",
    "\u{202e}",
    "-00:00",
];

#[derive(Clone, Debug)]
enum Spoil {
    Put(usize, usize),
    Remove(usize, usize),
    Move(usize, usize, usize),
    Flip(usize, u8),
}

fn spoil() -> impl Strategy<Value = Vec<Spoil>> {
    let one = prop_oneof![
        3 => (any::<usize>(), 0..PIECES.len()).prop_map(|(at, piece)| Spoil::Put(at, piece)),
        2 => (any::<usize>(), 1usize..40).prop_map(|(at, many)| Spoil::Remove(at, many)),
        1 => (any::<usize>(), 1usize..80, any::<usize>()).prop_map(|(at, many, to)| Spoil::Move(at, many, to)),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(at, with)| Spoil::Flip(at, with)),
    ];
    proptest::collection::vec(one, 1..4)
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
            Spoil::Move(at, many, to) => {
                let (at, to) = (place(at), place(to));
                let part = bytes[at..bytes.len().min(at + many)].to_vec();
                bytes.splice(to..to, part);
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

fn read_or_refused(bytes: &[u8]) {
    match cap::read(bytes) {
        Ok(alert) => assert_eq!(cap::read(&cap::write(&alert)).as_ref(), Ok(&alert)),
        Err(refused) => {
            for words in [&refused.words.zh, &refused.words.en] {
                assert!(!words.is_empty() && !words.chars().any(|c| c.is_control() || c == '\u{202e}'), "{words:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(3000)) })]

    #[test]
    fn r41_any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_or_refused(&bytes);
    }

    #[test]
    fn r41_a_good_alert_spoilt_is_read_or_refused(how in spoil(), file in 0usize..4) {
        let text = [crate::ALERT, crate::UPDATE, crate::CANCEL, crate::EXERCISE][file];
        read_or_refused(&spoilt(text, &how));
    }
}

fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}
