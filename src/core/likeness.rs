//! Whether a text that is shown can be one that was sent.
//!
//! Servers decode entities or write them, render markup, shorten links, give a name its host, trim and cut. Nobody can
//! imitate all of them: so both sides are brought into one form and compared, first as they are written, then by their
//! letters alone. What is recognised by neither may still be ours, and is never taken for proof that ours is missing.

use unicode_normalization::UnicodeNormalization as _;

use super::fit::urls;

/// A text cut with a mark is recognised by at least so many characters.
const LEAST_OF_A_CUT: usize = 40;
/// Letters alone tell a text from another from this many on.
const LEAST_LETTERS: usize = 4;

/// Whether what is shown is what was sent, as far as its characters, its links apart, can tell.
pub fn same_text(sent: &str, shown: &str, truncated: bool) -> bool {
    let seen = forms(shown);
    forms(sent).iter().any(|sent| seen.iter().any(|seen| is_seen(sent, seen, truncated)))
}

/// Whether both have the same letters and digits: links, markup and punctuation are left out.
pub fn same_letters(sent: &str, shown: &str, truncated: bool) -> bool {
    let seen: Vec<String> = forms(shown).iter().map(|form| letters(without_tail(form))).collect();
    forms(sent).iter().map(|form| letters(form)).any(|sent| {
        let is_long = sent.chars().count() >= LEAST_LETTERS;
        let is_start = |seen: &String| {
            is_marked(shown, truncated) && seen.chars().count() >= LEAST_OF_A_CUT && sent.starts_with(seen.as_str())
        };
        is_long && seen.iter().any(|seen| *seen == sent || is_start(seen))
    })
}

/// Whether what is shown is the beginning of what was sent, with no mark that it was cut. A post that was
/// altered is out all the same: sending it again would put it there twice.
pub fn silently_cut(sent: &str, shown: &str) -> bool {
    let (sent, seen) = (normal(&decoded(sent)), normal(&decoded(shown)));
    let start = before_cut_link(seen.trim_end());
    let (whole, kept) = (sent.chars().count(), start.chars().count());
    kept >= 8 && kept * 3 >= whole && kept < whole && sent.starts_with(start)
}

/// Whether the texts have so much in common that one may have been made of the other: a third of the shorter one's
/// pairs of letters.
pub fn resembles(sent: &str, shown: &str) -> bool {
    let pairs = |text: &str| {
        let letters: Vec<char> = letters(&normal(&decoded(text))).chars().collect();
        let mut pairs: Vec<[char; 2]> = letters.windows(2).map(|pair| [pair[0], pair[1]]).collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    };
    let (sent, seen) = (pairs(sent), pairs(shown));
    let common = sent.iter().filter(|pair| seen.binary_search(pair).is_ok()).count();
    common * 3 >= sent.len().min(seen.len())
}

/// All HTML entities decoded, named and numeric, once.
pub fn decoded(text: &str) -> String {
    htmlize::unescape(text).into_owned()
}

/// As it stands, and with its entities decoded once and twice: some servers decode before they store a text, some
/// show it encoded, some do both.
fn forms(text: &str) -> Vec<String> {
    let mut forms = vec![text.to_owned()];
    for _ in 0..2 {
        let again = decoded(forms.last().expect("there is one"));
        if forms.last() != Some(&again) {
            forms.push(again);
        }
    }
    forms.iter().map(|form| normal(form)).collect()
}

fn is_seen(sent: &str, seen: &str, truncated: bool) -> bool {
    let seen = without_tail(seen);
    if sent == seen {
        return true;
    }
    // A picture's own short URL is put behind the text.
    if seen.strip_prefix(sent).is_some_and(|rest| rest.split(' ').all(|w| w.is_empty() || w == "⟨u⟩")) {
        return true;
    }
    let cut = seen.strip_suffix('…').or_else(|| seen.strip_suffix("..."));
    let start = match (cut, truncated) {
        (Some(start), _) => start,
        (None, true) => seen,
        (None, false) => return false,
    };
    let start = before_cut_link(start.trim_end());
    start.chars().count() >= LEAST_OF_A_CUT && sent.starts_with(start)
}

/// Sina's link to the whole of a text stands behind its beginning.
fn without_tail(seen: &str) -> &str {
    ["...全文", "全文"].iter().find_map(|tail| seen.strip_suffix(tail)).unwrap_or(seen).trim_end()
}

fn is_marked(shown: &str, truncated: bool) -> bool {
    let (whole, start) = (shown.trim_end(), without_tail(shown.trim_end()));
    truncated || start.len() < whole.len() || start.ends_with('…') || start.ends_with("...")
}

/// A cut may go through a link: its scheme alone is no link any more, and a dot at its end no part of one.
fn before_cut_link(start: &str) -> &str {
    let within_host = start.trim_end_matches(['.', ',', ';', ':', '!', '?', ')']);
    if within_host.ends_with("⟨u⟩") {
        return within_host;
    }
    let schemes = ["https://", "https:/", "https:", "https", "http://", "http:/", "http:", "http", "htt", "ht", "h"];
    schemes.iter().find_map(|cut| start.strip_suffix(cut)).unwrap_or(start).trim_end()
}

/// The form both sides are compared in: links are one sign, blanks one blank, names have no host.
fn normal(text: &str) -> String {
    let text: String = text
        .nfc()
        .filter(|c| !matches!(c, '\u{200b}' | '\u{feff}'))
        .map(|c| if matches!(c, '\u{a0}' | '\u{3000}') { ' ' } else { c })
        .collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (start, url) in urls(&text) {
        out.push_str(&text[at..start]);
        out.push_str("⟨u⟩");
        at = start + url.len();
    }
    out.push_str(&text[at..]);
    let joined: Vec<&str> = out.split_whitespace().collect();
    without_hosts(&joined.join(" "))
}

/// `@name@host` as `@name`: servers write the host to a name that had none.
fn without_hosts(text: &str) -> String {
    let of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let name = rest[at + 1..].find(|c| !of_name(c)).map_or(rest.len(), |end| at + 1 + end);
        out.push_str(&rest[..name]);
        rest = &rest[name..];
        let has_name = name > at + 1;
        if let Some(host) = rest.strip_prefix('@').filter(|_| has_name) {
            // A host has a port at most, and ends with a letter.
            let end = host.find(|c: char| !(of_name(c) || c == ':')).unwrap_or(host.len());
            rest = &host[host[..end].trim_end_matches(['.', ':']).len()..];
        }
    }
    out.push_str(rest);
    out
}

/// The letters and digits, in their order: no server changes them.
fn letters(normal: &str) -> String {
    normal.replace("⟨u⟩", "").chars().filter(|c| c.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r09_text_is_recognised_whatever_the_platform_does_to_it() {
        let long = "上海市气象台发布暴雨红色预警信号".repeat(6);
        let cut: String = long.chars().take(60).collect();
        for (sent, seen) in [
            ("早安，上海！", "早安，上海！"),
            ("早安 上海", "早安\u{3000}上海 "),
            ("看 https://www.shanghai.gov.cn/a", "看 http://t.cn/A6abcdef"),
            ("a < b & c", "a &lt; b &amp; c"),
            ("e\u{301}", "é"),
            ("一\n二", "一 二"),
            ("配图", "配图 http://t.cn/Rx1"),
            ("&amp;lt; 上海", "&lt; 上海"),
            ("待续&hellip; it&#39;s", "待续… it's"),
            ("它&apos;s", "它&amp;apos;s"),
            ("问 @shanghaifabu 吧", "问 @shanghaifabu@social.example 吧"),
            ("信箱 fabu@shanghai.gov.cn。", "信箱 fabu@shanghai.gov.cn@social.example:8443。"),
            (long.as_str(), format!("{cut}…全文").as_str()),
            (long.as_str(), format!("{cut}...").as_str()),
            (format!("{cut} https://a.cn/b 请看").as_str(), format!("{cut} htt…全文").as_str()),
            (format!("{cut} https://a.cn/b 请看").as_str(), format!("{cut} https://a.…全文").as_str()),
        ] {
            assert!(same_text(sent, seen, false), "{sent} / {seen}");
        }
        for (sent, seen) in
            [("早安，上海！", "早安，上海"), ("早安", "早安，上海！"), ("停水", "停电"), ("早安…", "早")]
        {
            assert!(!same_text(sent, seen, false), "{sent} / {seen}");
        }
    }

    #[test]
    fn r09_markup_that_is_rendered_and_other_punctuation_change_no_letter() {
        for (sent, seen) in [
            ("**红色预警**：请避险", "红色预警：请避险"),
            ("# 防汛\n> 引文\n- 一\n- 二", "防汛\n引文\n一\n二"),
            ("It's the \"flood\"...", "It’s the “flood”…"),
            ("`a<b` 且 c>d", "a<b 且 c>d"),
            ("见[公告](https://www.shanghai.gov.cn/a)原文", "见公告原文"),
        ] {
            assert!(same_letters(sent, seen, false) && !same_text(sent, seen, false), "{sent} / {seen}");
        }
        let long = "**上海市气象台**发布暴雨红色预警信号".repeat(6);
        let cut: String = long.replace('*', "").chars().take(60).collect();
        for tail in ["…", "...", "全文", "…全文"] {
            assert!(same_letters(&long, &format!("{cut}{tail}"), false), "{tail}");
        }
        assert!(!same_letters(&long, &cut, false) && same_letters(&long, &cut, true));
        for (sent, seen) in [("停水通知", "停电通知"), ("停水", "停水"), ("！！", "？？"), ("停水通知", "停水通知单")]
        {
            assert!(!same_letters(sent, seen, false), "{sent} / {seen}");
        }
    }

    #[test]
    fn r01_a_post_that_was_cut_without_a_word_is_recognised() {
        let sent = "【世界艾滋病日】今天是世界艾滋病日，各区疾控中心提供免费咨询检测。";
        let cut: String = sent.chars().take(17).collect();
        assert!(silently_cut(sent, &cut) && !silently_cut(sent, "【世界艾滋病日】") && !silently_cut(sent, sent));
    }

    #[test]
    fn r09_another_posts_text_does_not_resemble() {
        let sent = "【停水通知】浦东新区张江路今晚22时至次日6时停水，请储水。";
        assert!(resembles(sent, "停水通知：张江路今晚停水"));
        assert!(!resembles(sent, "早安，上海！今天多云转晴，最高气温12度。"));
    }
}
