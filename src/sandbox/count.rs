//! How long a text is in each platform's own eyes, and what a picture is by its first bytes.
//!
//! Written from the platforms' pages and from nothing else: the clients count by code of their own, and only two
//! separate counts that agree prove anything. A count never changes a text.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// A sina post may have 140 字, which are 280 half-width units.
pub(super) const SINA_HALF: usize = 280;
/// A tencent post may have 420 bytes of UTF-8.
pub(super) const TENCENT_BYTES: usize = 420;

/// Half-width units: a UTF-16 unit above U+00FF is two of them.
pub(super) fn half(text: &str) -> usize {
    text.encode_utf16().map(|unit| if unit > 0xFF { 2 } else { 1 }).sum()
}

/// The sina editor's count in half-width units; ⌈n/2⌉ are the 字 it shows.
pub(super) fn sina(text: &str, url_weight: usize) -> usize {
    let text = tidy(text);
    let mut total = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if let Some(len) = sina_url(rest) {
            total += sina_url_weight(&rest[..len], url_weight);
            at += len;
        } else {
            let c = rest.chars().next().map_or(1, char::len_utf8);
            total += half(&rest[..c]);
            at += c;
        }
    }
    total
}

fn sina_url_weight(url: &str, weight: usize) -> usize {
    let k = half(url);
    if url.starts_with("http://t.cn") {
        return k;
    }
    let own = ["http://weibo.com", "http://weibo.cn", "http://t.sina.com.cn", "http://t.sina.cn"];
    if k <= 41 && own.iter().any(|prefix| url.starts_with(prefix)) {
        return k;
    }
    if k <= 140 { weight } else { k - 140 + weight }
}

/// The length of a URL at the start of `text` as the sina editor sees it: its host must be plain labels with a dot.
fn sina_url(text: &str) -> Option<usize> {
    let start = text.strip_prefix("http://").map(|_| 7).or_else(|| text.strip_prefix("https://").map(|_| 8))?;
    let bytes = text.as_bytes();
    let mut at = start;
    let mut labels = 0;
    loop {
        let label = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
        if label == 0 {
            break;
        }
        labels += 1;
        at += label;
        let dot = bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_alphanumeric);
        if !dot {
            break;
        }
        at += 1;
    }
    if labels < 2 {
        return None;
    }
    let tail = |b: &&u8| b.is_ascii_alphanumeric() || b"-_$.+!*()/,:;@&=?~#%".contains(b);
    Some(at + bytes[at..].iter().take_while(tail).count())
}

/// Bytes of UTF-8 with every URL counted as `url_weight` bytes.
pub(super) fn tencent(text: &str, url_weight: usize) -> usize {
    weighed(&tidy(text), url_weight, str::len)
}

/// Code points; with a weight, every URL counts as so many.
pub(super) fn points(text: &str, url_weight: Option<usize>) -> usize {
    let text = tidy(text);
    match url_weight {
        Some(weight) => weighed(&text, weight, |part| part.chars().count()),
        None => text.chars().count(),
    }
}

/// Mastodon's count: grapheme clusters, a URL is 23, of a mention only the local part counts.
pub(super) fn mastodon(text: &str) -> usize {
    weighed(&tidy(text), 23, |part| without_hosts(part).graphemes(true).count())
}

fn weighed(text: &str, weight: usize, count: impl Fn(&str) -> usize) -> usize {
    let mut total = 0;
    let mut last = 0;
    for url in urls(text) {
        total += count(&text[last..url.start]) + weight;
        last = url.end;
    }
    total + count(&text[last..])
}

/// `@user@host` becomes `@user`.
fn without_hosts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let word = |s: &str, more: &str| {
            s.bytes().take_while(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(b)).count()
        };
        let user = word(&from[1..], "_");
        out.push_str(&from[..1 + user]);
        rest = &from[1 + user..];
        if user > 0 && rest.starts_with('@') {
            let host = word(&rest[1..], ".-");
            rest = &rest[if host > 0 { 1 + host } else { 0 }..];
            if host == 0 {
                out.push('@');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Where the URLs of a text are: `http://` or `https://` and what may follow; closing marks are not part of them.
pub(super) fn urls(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find("http").map(|i| i + from) {
        let rest = &text[at..];
        let scheme = if rest.starts_with("http://") { 7 } else { 8 };
        if !rest.starts_with("http://") && !rest.starts_with("https://") {
            from = at + 4;
            continue;
        }
        let ok = |b: &&u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(b);
        let mut end = at + scheme + bytes[at + scheme..].iter().take_while(ok).count();
        while end > at + scheme && b".,;:!?)".contains(&bytes[end - 1]) {
            end -= 1;
        }
        if end > at + scheme {
            found.push(at..end);
        }
        from = end.max(at + 4);
    }
    found
}

/// NFC, trimmed, one character a line end: what every platform does before it counts.
pub(super) fn tidy(text: &str) -> String {
    text.replace("\r\n", "\n").trim().nfc().collect()
}

/// How much two texts have in common, from 0 to 1: two thirds of the sites' filters look at pairs of characters.
pub(super) fn likeness(a: &str, b: &str) -> f64 {
    if a == b {
        return 1.0;
    }
    let pairs = |text: &str| {
        let chars: Vec<char> = text.chars().collect();
        let mut pairs: Vec<(char, char)> = chars.windows(2).map(|w| (w[0], w[1])).collect();
        pairs.sort_unstable();
        pairs
    };
    let (left, right) = (pairs(a), pairs(b));
    if left.is_empty() || right.is_empty() {
        return 0.0;
    }
    let (mut i, mut j, mut both) = (0, 0, 0);
    while i < left.len() && j < right.len() {
        match left[i].cmp(&right[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                both += 1;
                i += 1;
                j += 1;
            }
        }
    }
    2.0 * f64::from(both) / (left.len() + right.len()) as f64
}

/// What a picture is by its magic bytes; the name and the declared type prove nothing.
pub(super) fn picture(bytes: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 6] = [
        (b"\xFF\xD8\xFF", "jpeg"),
        (b"\x89PNG\r\n\x1A\n", "png"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"\x00\x00\x01\x00", "ico"),
        (b"BM", "bmp"),
    ];
    if bytes.len() > 12 && bytes.starts_with(b"RIFF") && &bytes[8..12] == b"WEBP" {
        return Some("webp");
    }
    MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_examples_of_the_platforms_page() {
        let long = |n: usize| format!("{} https://www.shanghai.gov.cn/a", "中".repeat(n));
        let (fits, over) = (long(129), long(130));
        let rows: [(&str, usize, usize, usize); 11] = [
            ("Hello", 5, 5, 5),
            ("早安，上海！", 12, 18, 6),
            ("①→é", 5, 8, 3),
            ("👍", 4, 4, 1),
            ("早安👍🏽", 12, 14, 4),
            ("【交通】今晚22时起，地铁9号线停运。", 35, 51, 19),
            ("台风红色预警：请勿外出。http://t.cn/A6abcdef", 44, 47, 32),
            ("详情 https://www.shanghai.gov.cn/nw12344/20260101/abcdef.html 请看", 30, 25, 62),
            ("见 https://my-site.sh.cn/a 吧", 29, 19, 27),
            (&fits, 279, 399, 159),
            (&over, 281, 402, 160),
        ];
        for (text, s, t, p) in rows {
            assert_eq!((sina(text, 20), tencent(text, 11), points(text, None)), (s, t, p), "{text}");
        }
        assert_eq!(mastodon("早安👍🏽"), 3);
        assert_eq!(mastodon("问 @fabu@sh.example https://www.shanghai.gov.cn/abcdefghijkl"), 2 + 5 + 1 + 23);
    }

    #[test]
    fn pictures_are_known_by_their_bytes() {
        assert_eq!(picture(b"\x89PNG\r\n\x1A\n...."), Some("png"));
        assert_eq!(picture(b"<html>"), None);
        assert!(likeness("今晚地铁九号线停运请绕行", "今晚地铁九号线停运请绕行！") > 0.9);
        assert!(likeness("早安，上海", "台风红色预警") < 0.2);
    }
}
