//! What is said to a person, in Chinese and in English at once, and text made safe to look at.
//!
//! A sentence is written in both languages where it arises, so a missing translation does not
//! compile. Which of the two is shown is decided at the edge.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// One sentence in both languages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Words {
    pub zh: String,
    pub en: String,
}

/// The language of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Lang {
    Zh,
    #[default]
    En,
}

impl Words {
    pub fn new(zh: impl Into<String>, en: impl Into<String>) -> Words {
        Words { zh: zh.into(), en: en.into() }
    }

    /// The same text in both languages: a platform's own words, a name.
    pub fn same(text: impl Into<String>) -> Words {
        let text = text.into();
        Words { zh: text.clone(), en: text }
    }

    pub fn in_(&self, lang: Lang) -> &str {
        match lang {
            Lang::Zh => &self.zh,
            Lang::En => &self.en,
        }
    }
}

/// Builds `Words` from a Chinese and an English format string with the same arguments.
#[macro_export]
macro_rules! words {
    ($zh:literal, $en:literal $(,)?) => {
        $crate::core::words::Words::new(format!($zh), format!($en))
    };
}
pub use crate::words;

/// Text with everything escaped that could drive a terminal or turn the order of a line: C0, C1,
/// bidi controls, zero-width and tag characters. A line feed becomes `\n`, so one record stays one line.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\u{200d}' if joins_emoji(before, rest.peek().copied()) => out.push(c),
            c if is_hidden(c) => write!(out, "\\u{{{:x}}}", u32::from(c)).expect("a String takes all that is written"),
            c => out.push(c),
        }
        before = Some(c);
    }
    out
}

/// Whether a character is a control, or has no shape of its own and can hide what a text says (R43, R44).
pub fn is_hidden(c: char) -> bool {
    matches!(u32::from(c),
        0x00..=0x08 | 0x0b..=0x1f | 0x7f..=0x9f            // C0 but tab and line feed, DEL, C1
        | 0x00ad | 0x061c | 0x180e
        | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f // zero width, line separators, bidi
        | 0xfeff | 0xfff9..=0xfffd
        | 0xe000..=0xf8ff | 0xf0000..=0x10ffff             // private use
        | 0xe0000..=0xe0fff) // tags
}

/// Whether a character has a name and a width, and nothing to see: a text of these alone is empty.
pub fn is_blank(c: char) -> bool {
    matches!(u32::from(c), 0x034f | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x2800 | 0x3164 | 0xffa0 | 0xfe00..=0xfe0f)
}

/// The first character of a text that hides, if one does; a joiner within an emoji, the tags of a flag, what Mongolian and
/// Persian write between their letters, and CR before LF hide nothing.
pub fn hidden_in(text: &str) -> Option<char> {
    let flags = flags_in(text);
    let mut before = None;
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        let after = rest.peek().map(|(_, c)| *c);
        let joins = c == '\u{200d}' && joins_emoji(before, after) || joins_letters(before, c, after);
        let ends_a_line = c == '\r' && after == Some('\n');
        if is_hidden(c) && !ends_a_line && !joins && !flags.iter().any(|flag| flag.contains(&at)) {
            return Some(c);
        }
        before = Some(c);
    }
    None
}

/// Flags of parts of a country: a black flag, letters in tags, and the tag that ends them.
fn flags_in(text: &str) -> Vec<std::ops::Range<usize>> {
    const END: char = '\u{e007f}';
    let tags = |at: usize| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !('\u{e0020}'..='\u{e007e}').contains(&c))?;
        let is_flag = (8..=24).contains(&end) && rest[end..].starts_with(END);
        is_flag.then(|| at..at + end + END.len_utf8())
    };
    text.match_indices('\u{1f3f4}').filter_map(|(at, flag)| tags(at + flag.len())).collect()
}

/// Mongolian's vowel separator and Persian's non-joiner stand between two letters of their scripts.
fn joins_letters(before: Option<char>, c: char, after: Option<char>) -> bool {
    let between = |is_letter: fn(char) -> bool| before.is_some_and(is_letter) && after.is_some_and(is_letter);
    match c {
        '\u{180e}' => between(|c| ('\u{1820}'..='\u{18aa}').contains(&c)),
        '\u{200c}' => between(|c| ('\u{620}'..='\u{6ff}').contains(&c) && c.is_alphabetic()),
        _ => false,
    }
}

/// U+200D between two pictographs is part of one emoji, and nothing hidden.
pub fn joins_emoji(before: Option<char>, after: Option<char>) -> bool {
    let pictograph = |c: char| {
        let n = u32::from(c);
        (0x1f000..=0x1faff).contains(&n) || (0x2190..=0x2bff).contains(&n) || n == 0xfe0f
    };
    before.is_some_and(pictograph) && after.is_some_and(pictograph)
}

/// The candidate nearest to `word`, when it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1) + 1;
    candidates
        .into_iter()
        .map(|c| (distance(word, c), c))
        .filter(|(d, c)| *d <= limit && *d < c.chars().count().max(2))
        .min()
        .map(|(_, c)| c)
}

/// Edit distance where two neighbours swapped count as one (`txet` is one from `text`).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r43_text_is_safe_to_look_at() {
        for (given, safe) in [
            ("早安，上海！", "早安，上海！"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\nb\tc\r", "a\\nb\\tc\\u{d}"),
            ("\u{202e}txt", "\\u{202e}txt"),
            ("暂\u{200b}停", "暂\\u{200b}停"),
            ("👨\u{200d}👩\u{200d}👧", "👨\u{200d}👩\u{200d}👧"),
            ("a\u{200d}b", "a\\u{200d}b"),
            ("\u{e0041}", "\\u{e0041}"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ] {
            assert_eq!(shown(given), safe);
        }
    }

    #[test]
    fn r44_what_a_script_needs_hides_nothing() {
        for fine in ["🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}赢了", "می\u{200c}خواهم", "ᠤᠯᠤᠰ\u{180e}ᠠ"]
        {
            assert_eq!(hidden_in(fine), None, "{fine}");
        }
        for (bad, c) in [
            ("🏴\u{e0067}\u{e0062}赢", '\u{e0067}'),
            ("早\u{e0067}\u{e007f}", '\u{e0067}'),
            ("停\u{200c}水", '\u{200c}'),
            ("a\u{180e}b", '\u{180e}'),
            ("🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}\u{e0067}", '\u{e0067}'),
        ] {
            assert_eq!(hidden_in(bad), Some(c), "{bad:?}");
        }
    }

    #[test]
    fn a_near_miss_is_named_and_a_far_one_is_not() {
        assert_eq!(nearest("txet", ["id", "text", "to"]), Some("text"));
        assert_eq!(nearest("sinna", ["sina", "tencent"]), Some("sina"));
        assert_eq!(nearest("zzzzzz", ["sina", "tencent"]), None);
    }
}
