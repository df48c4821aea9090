//! Is it ours: comparing what a platform shows with what was sent (`platforms.md` 4.2).
//!
//! A platform rewrites links, decodes entities, trims and cuts. Both sides are normalised the same
//! way; then the newest id known from before the send, the time, and other deliveries' receipts
//! decide. In doubt nothing is found: a receipt taken from another post would hide a missing one.

use chrono::TimeDelta;
use unicode_normalization::UnicodeNormalization as _;

use super::{Look, Wanted};
use crate::clock::Time;
use crate::core::delivery::Receipt;
use crate::core::fit::urls;
use crate::core::words::{Words, words};

/// A post as a timeline lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub id: String,
    pub text: String,
    pub url: Option<String>,
    pub created: Option<Time>,
    /// The platform says it cut the text.
    pub truncated: bool,
    /// Our own key, where the platform echoes it.
    pub key: Option<String>,
    /// Whose post it is, by the platform's id of its user.
    pub author: Option<String>,
    pub shown: bool,
}

/// How far two clocks may differ before a window by time is worth nothing.
const BEFORE: TimeDelta = TimeDelta::seconds(120);
const AFTER: TimeDelta = TimeDelta::minutes(15);

/// A page of a timeline.
#[derive(Clone, Debug)]
pub struct Page {
    /// Newest first.
    pub posts: Vec<Shown>,
    pub rest: Rest,
    /// Ids grow with time, so that the newest known one is a better line than any clock.
    pub grows: bool,
    /// The platform's clock is ahead of ours by this.
    pub skew: TimeDelta,
}

/// The posts that a page does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The platform says, or lets one conclude, that there are none.
    Nothing,
    /// Older ones, perhaps.
    Older,
    /// Any of them, the newest as well as the oldest: fewer are shown than were asked for, and the platform says that
    /// there are more.
    Any,
}

impl Rest {
    /// By how many posts are shown of how many asked for, and whether the platform says that there are more.
    pub fn of(shown: usize, asked_for: usize, says_more: bool) -> Rest {
        match (shown < asked_for, says_more) {
            (true, false) => Rest::Nothing,
            (true, true) => Rest::Any,
            (false, _) => Rest::Older,
        }
    }
}

/// Looks for the wanted post. It is absent only where the page reaches back to before it was sent: its last post is
/// older than that, or there are none below it and the page shows what is known to stand there.
pub fn look(page: &Page, wanted: &Wanted) -> Look {
    let Page { posts, grows, skew, .. } = page;
    let candidates = posts.iter().filter(|p| is_after(p, wanted, *grows, *skew) && is_ours(p, wanted, *skew));
    let (timely, older): (Vec<&Shown>, Vec<&Shown>) = candidates.partition(|p| is_in_time(p, wanted, *skew));
    // Of two the earliest after the send: a later one is another occurrence's.
    if let Some(found) = timely.last() {
        // Two deliveries that differ in a link or in blanks alone look the same here, unless one is shown as it was sent.
        let is_alike = |rival: &String| same_text(rival, &found.text, found.truncated) && *rival != wanted.text;
        if wanted.text != found.text && wanted.rivals.iter().any(is_alike) {
            let id = &found.id;
            return Look::Unproven(words!(
                "{id} 可能是另一条相似的投递",
                "{id} may be that of another delivery whose words look the same"
            ));
        }
        return Look::Found(Receipt {
            post_id: found.id.clone(),
            url: found.url.clone(),
            accepted_at: found.created.map_or(wanted.since, |c| c - *skew),
            shown: found.shown,
            read_back: true,
            ticket: None,
        });
    }
    // Somebody may have said the same by hand since the newest post that is known.
    if let Some(older) = older.last() {
        let id = &older.id;
        return Look::Unproven(words!(
            "时间线上有一条同样的（{id}），按时间早于发送",
            "the timeline has one with these words, {id}, that is older than the send by its time"
        ));
    }
    // By its id it was made before the send, and by its time after it: one of the two is wrong.
    let is_odd = |post: &&Shown| {
        // Platforms tell whole seconds.
        let is_later = post.created.is_some_and(|created| created - *skew + TimeDelta::seconds(2) > wanted.since);
        // The id of an older post: the platform gives its ids anew.
        let is_reused = wanted.standing.contains(&post.id);
        let is_older = !is_after(post, wanted, *grows, *skew) && !wanted.taken.contains(&post.id);
        is_later && (is_reused || is_older) && has_its_words(post, wanted, *skew)
    };
    if let Some(odd) = posts.iter().find(is_odd) {
        let id = &odd.id;
        return Look::Unproven(words!(
            "时间线上有一条同样的（{id}），按编号早于发送，按时间晚于发送",
            "the timeline has one with these words, {id}: older than the send by its id, and newer by its time"
        ));
    }
    let rest = if crate::planted("cut_is_believed") { Rest::Nothing } else { page.rest };
    if rest == Rest::Any {
        let why = "时间线说还有而没有列出，不可作准";
        return Look::Unproven(Words::new(why, "the timeline says that it holds more than it shows"));
    }
    // Not just any older post: one that was put on top says nothing about what lies below the others.
    if posts.last().is_some_and(|last| !is_after(last, wanted, *grows, *skew)) {
        return Look::Absent;
    }
    // The newest one known from before the send may be somebody else's; one of ours may be gone by now.
    let newest = wanted.above.iter().filter(|id| *grows && !wanted.taken.contains(id));
    let mut known = wanted.standing.iter().chain(newest).peekable();
    let shows_known = crate::planted("cut_is_believed")
        || known.peek().is_none()
        || known.any(|id| posts.iter().any(|post| post.id == *id));
    match (rest == Rest::Nothing, shows_known) {
        (true, true) => Look::Absent,
        (true, false) => {
            let why = "时间线没有列出已知的旧帖，不可作准";
            Look::Unproven(Words::new(why, "the timeline does not show older posts that are known to stand there"))
        }
        (false, _) => {
            Look::Unproven(Words::new("时间线没有回溯到发送之前", "the timeline does not reach back past the send"))
        }
    }
}

fn is_after(post: &Shown, wanted: &Wanted, grows: bool, skew: TimeDelta) -> bool {
    if let (true, Some(above)) = (grows, &wanted.above) {
        return newer(&post.id, above);
    }
    is_in_time(post, wanted, skew)
}

/// Not older than the send by its time, where it has one.
fn is_in_time(post: &Shown, wanted: &Wanted, skew: TimeDelta) -> bool {
    post.created.is_none_or(|created| created - skew >= wanted.since - BEFORE)
}

fn is_ours(post: &Shown, wanted: &Wanted, skew: TimeDelta) -> bool {
    !wanted.taken.contains(&post.id) && has_its_words(post, wanted, skew)
}

fn has_its_words(post: &Shown, wanted: &Wanted, skew: TimeDelta) -> bool {
    if let Some(key) = &post.key {
        return *key == wanted.key;
    }
    let late = post.created.is_some_and(|c| c - skew > wanted.since + AFTER + TimeDelta::days(1));
    let dated = post.created.is_some() || wanted.above.is_some();
    // A post that begins like ours may be the whole of another one.
    let is_rivals = || wanted.rivals.iter().any(|rival| same_text(rival, &post.text, post.truncated));
    let is_cut = || dated && silently_cut(&wanted.text, &post.text) && !is_rivals();
    !late && (same_text(&wanted.text, &post.text, post.truncated) || is_cut())
}

/// Whether what is shown is the beginning of what was sent, with no mark that it was cut. A post that was
/// altered is out all the same: sending it again would put it there twice.
pub fn silently_cut(sent: &str, shown: &str) -> bool {
    let (sent, seen) = (normal(sent), normal(shown));
    let start = before_cut_link(seen.trim_end());
    let (whole, kept) = (sent.chars().count(), start.chars().count());
    kept >= 8 && kept * 3 >= whole && kept < whole && sent.starts_with(start)
}

/// Decimal ids by number, however long; others by length and then letters, as their makers do.
pub fn newer(id: &str, than: &str) -> bool {
    let (id, than) = (id.trim_start_matches('0'), than.trim_start_matches('0'));
    (id.len(), id) > (than.len(), than)
}

/// Whether what is shown can be what was sent.
pub fn same_text(sent: &str, shown: &str, truncated: bool) -> bool {
    // GNU social decodes entities once before it stores a text, so what was written `&amp;lt;` is shown as `&lt;`.
    let decoded = unescape(sent);
    is_seen(sent, shown, truncated) || decoded != sent && is_seen(&decoded, shown, truncated)
}

fn is_seen(sent: &str, shown: &str, truncated: bool) -> bool {
    let (sent, mut seen) = (normal(sent), normal(shown));
    for tail in ["全文", "...全文"] {
        if let Some(cut) = seen.strip_suffix(tail) {
            seen = cut.trim_end().to_owned();
        }
    }
    if sent == seen {
        return true;
    }
    // A picture's own short URL is put behind the text.
    if seen.strip_prefix(sent.as_str()).is_some_and(|rest| rest.split(' ').all(|w| w.is_empty() || w == "⟨u⟩")) {
        return true;
    }
    let cut = seen.strip_suffix('…').or_else(|| seen.strip_suffix("..."));
    let start = match (cut, truncated) {
        (Some(start), _) => start,
        (None, true) => seen.as_str(),
        (None, false) => return false,
    };
    let start = before_cut_link(start.trim_end());
    start.chars().count() >= 40 && sent.starts_with(start)
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

/// The form both sides are compared in.
fn normal(text: &str) -> String {
    let text = unescape(text);
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
    joined.join(" ")
}

/// The entities platforms put into text, once.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = [("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " ")];
        match known.iter().find(|(entity, _)| rest.starts_with(entity)) {
            Some((entity, plain)) => {
                out.push_str(plain);
                rest = &rest[entity.len()..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Text out of HTML: tags dropped, paragraphs and breaks become line ends, entities decoded.
pub fn text_of_html(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('>') else { break };
        let tag = &rest[at + 1..at + end];
        if tag.starts_with("br") || tag.starts_with("/p") {
            out.push('\n');
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    unescape(out.trim())
}

/// Sina's and Twitter's date: `Tue May 31 17:46:55 +0800 2011`.
pub fn ruby_date(text: &str) -> Option<Time> {
    let parsed = chrono::DateTime::parse_from_str(text, "%a %b %d %H:%M:%S %z %Y").ok()?;
    Some(crate::clock::from_micros(parsed.timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn post(id: &str, text: &str, created: &str) -> Shown {
        Shown {
            id: id.to_owned(),
            text: text.to_owned(),
            url: None,
            created: Some(time(created)),
            truncated: false,
            key: None,
            author: None,
            shown: true,
        }
    }

    fn wanted(text: &str, above: Option<&str>) -> Wanted {
        Wanted {
            text: text.to_owned(),
            title: None,
            key: "k1".to_owned(),
            ticket: None,
            media: Vec::new(),
            since: time("2026-11-24T00:00:00Z"),
            above: above.map(str::to_owned),
            taken: Vec::new(),
            rivals: Vec::new(),
            standing: Vec::new(),
        }
    }

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

    fn page(posts: &[Shown]) -> Page {
        Page { posts: posts.to_vec(), rest: Rest::of(posts.len(), 5, false), grows: true, skew: TimeDelta::zero() }
    }

    #[test]
    fn r09_yesterdays_same_words_are_another_post() {
        let listed = [post("90", "早安，上海！", "2026-11-23T00:00:00Z")];
        assert_eq!(look(&page(&listed), &wanted("早安，上海！", None)), Look::Absent);
        assert_eq!(look(&page(&listed), &wanted("早安，上海！", Some("90"))), Look::Absent);
        let today = [post("91", "早安，上海！", "2026-11-24T00:00:01Z"), listed[0].clone()];
        assert!(
            matches!(look(&page(&today), &wanted("早安，上海！", Some("90"))), Look::Found(r) if r.post_id == "91")
        );
        let mut taken = wanted("早安，上海！", Some("90"));
        taken.taken.push("91".to_owned());
        assert_eq!(look(&page(&today), &taken), Look::Absent);
        // The same words days later are another occurrence's.
        let late = [post("99", "早安，上海！", "2026-11-26T00:00:01Z"), listed[0].clone()];
        assert_eq!(look(&page(&late), &wanted("早安，上海！", Some("90"))), Look::Absent);
    }

    #[test]
    fn r08_a_page_that_does_not_reach_back_proves_nothing() {
        let listed: Vec<Shown> =
            (0..5).rev().map(|n| post(&(95 + n).to_string(), "别的", "2026-11-24T00:00:02Z")).collect();
        let wanted = wanted("早安", Some("90"));
        let unproven = |page: &Page| matches!(look(page, &wanted), Look::Unproven(_));
        assert!(unproven(&page(&listed)));
        assert!(unproven(&page(&listed[..4])), "the newest one known from before is not shown");
        let gone = Wanted { taken: vec!["90".to_owned()], ..wanted.clone() };
        assert_eq!(look(&page(&listed[..4]), &gone), Look::Absent, "it was ours, and was taken down");
        assert!(unproven(&Page { rest: Rest::Older, ..page(&listed[..4]) }), "it says that there is more");
        // One that was put on top is older than the send, and no proof.
        let top = [vec![post("7", "置顶", "2026-01-01T00:00:00Z")], listed.clone()].concat();
        assert!(unproven(&page(&top)));
        let below = [listed, vec![post("90", "旧", "2026-11-23T00:00:00Z")]].concat();
        assert_eq!(look(&page(&below), &wanted), Look::Absent);
        let cut = Page { rest: Rest::Any, ..page(&below) };
        assert!(unproven(&cut), "it reaches back, and says that something is missing: it may be the newest");
    }

    #[test]
    fn r08_a_list_that_lacks_what_is_known_to_stand_there_proves_nothing() {
        let mut known = wanted("早安", None);
        known.standing.push("90".to_owned());
        assert!(matches!(look(&page(&[]), &known), Look::Unproven(_)), "an empty list");
        let others = [post("95", "别的", "2026-11-24T00:00:02Z")];
        assert!(matches!(look(&page(&others), &known), Look::Unproven(_)), "a list of others alone");
        let whole = [others[0].clone(), post("90", "旧", "2026-11-24T00:00:00Z")];
        assert_eq!(look(&page(&whole), &known), Look::Absent);
    }

    /// A server that was set up anew, or restored from its backup, begins its ids again below those that are known.
    #[test]
    fn r01_a_post_that_is_older_by_its_id_and_newer_by_its_time_is_no_absence() {
        let listed = [post("12", "早安", "2026-11-24T00:00:01Z"), post("11", "旧", "2026-11-23T00:00:00Z")];
        assert!(matches!(look(&page(&listed), &wanted("早安", Some("90"))), Look::Unproven(_)));
        assert_eq!(look(&page(&listed), &wanted("停水", Some("90"))), Look::Absent, "another one's words");
        let within = Wanted { since: time("2026-11-24T00:00:01.730Z"), ..wanted("早安", Some("90")) };
        assert!(matches!(look(&page(&listed), &within), Look::Unproven(_)), "its time has no parts of a second");
        let mut taken = wanted("早安", Some("90"));
        taken.taken.push("12".to_owned());
        assert_eq!(look(&page(&listed), &taken), Look::Absent, "another delivery's receipt");
        // Unless that was of a post from long before: then the id is used again.
        taken.standing.push("12".to_owned());
        assert!(matches!(look(&page(&listed), &taken), Look::Unproven(_)));
    }

    /// A post that somebody made by hand before the send, after the newest that is known, is not the one that was sent.
    #[test]
    fn r09_the_same_words_from_before_the_send_are_no_receipt() {
        let (before, after) = (post("91", "早安", "2026-11-23T23:40:00Z"), post("92", "早安", "2026-11-24T00:00:01Z"));
        assert!(matches!(look(&page(std::slice::from_ref(&before)), &wanted("早安", Some("90"))), Look::Unproven(_)));
        let both = look(&page(&[after, before]), &wanted("早安", Some("90")));
        assert!(matches!(both, Look::Found(receipt) if receipt.post_id == "92"));
    }

    #[test]
    fn r09_of_two_that_differ_in_their_links_alone_neither_takes_the_others_post() {
        let (one, two) = ("【停水】详见 https://a.cn/aa", "【停水】详见 https://a.cn/bb");
        let of = |text: &str, rival: &str| Wanted { rivals: vec![rival.to_owned()], ..wanted(text, Some("90")) };
        let shortened = [post("91", "【停水】详见 http://t.cn/x", "2026-11-24T00:00:01Z")];
        for (text, rival) in [(one, two), (two, one)] {
            assert!(matches!(look(&page(&shortened), &of(text, rival)), Look::Unproven(_)));
        }
        let as_sent = [post("91", two, "2026-11-24T00:00:01Z")];
        assert!(matches!(look(&page(&as_sent), &of(two, one)), Look::Found(_)));
        assert!(matches!(look(&page(&as_sent), &of(one, two)), Look::Unproven(_)));
    }

    /// Of two that begin alike the whole of the short one is not the beginning of the long one.
    #[test]
    fn r09_the_whole_of_another_delivery_is_not_a_part_of_this_one() {
        let (short, long) = ("【停水通知】浦东新区今晚停水", "【停水通知】浦东新区今晚停水至明早，请储水");
        let listed = [post("91", short, "2026-11-24T00:00:01Z")];
        assert!(matches!(look(&page(&listed), &wanted(long, Some("90"))), Look::Found(_)), "it was cut");
        let beside = Wanted { rivals: vec![short.to_owned()], ..wanted(long, None) };
        assert_eq!(look(&page(&listed), &beside), Look::Absent);
        let own = Wanted { rivals: vec![long.to_owned()], ..wanted(short, Some("90")) };
        assert!(matches!(look(&page(&listed), &own), Look::Found(_)));
    }

    #[test]
    fn r09_a_clock_that_is_off_is_corrected_by_the_platforms_own() {
        let listed = [post("91", "早安", "2026-11-23T23:50:03Z")];
        let ahead = Page { skew: TimeDelta::minutes(-10), ..page(&listed) };
        assert!(matches!(look(&ahead, &wanted("早安", None)), Look::Found(_)));
        assert_eq!(look(&page(&listed), &wanted("早安", None)), Look::Absent);
    }

    #[test]
    fn r01_a_post_that_was_cut_without_a_word_is_not_sent_again() {
        let sent = "【世界艾滋病日】今天是世界艾滋病日，各区疾控中心提供免费咨询检测。";
        let cut: String = sent.chars().take(17).collect();
        assert!(silently_cut(sent, &cut) && !silently_cut(sent, "【世界艾滋病日】") && !silently_cut(sent, sent));
        let listed = [post("91", &cut, "2026-11-24T00:00:01Z")];
        assert!(matches!(look(&page(&listed), &wanted(sent, Some("90"))), Look::Found(_)));
    }

    #[test]
    fn html_becomes_text() {
        assert_eq!(text_of_html("<p>早安 &amp; 上海<br>二</p><p>三</p>"), "早安 & 上海\n二\n三");
    }
}
