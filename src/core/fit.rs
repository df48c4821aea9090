//! Counts and fits text by a platform's rules; never cuts.
//!
//! Each platform counts in its own unit, with its own idea of what a URL costs (`platforms.md` 1.6,
//! 2.1, 3.1, 3.2). A text is tried against every platform it goes to when it is read, so that a misfit
//! is a fault at an editor's desk and not a refusal at eight in the morning.

use unicode_normalization::UnicodeNormalization as _;
use unicode_segmentation::UnicodeSegmentation as _;

use super::announcement::{Body, Image};
use super::words::{Words, words};

/// How a platform measures a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Half-width units of UTF-16; URLs by Sina's editor.
    Weibo { url_half: usize },
    /// Bytes of UTF-8, each URL a fixed number.
    Bytes { url: usize },
    /// Code points.
    Points { url: Option<usize> },
    /// Grapheme clusters with short URLs, or characters as they stand: the larger.
    Graphemes { url: usize },
}

/// What a platform takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub counting: Counting,
    /// In the unit of `counting`; 0 is no limit.
    pub limit: usize,
    pub images: usize,
    pub image_bytes: u64,
    pub image_kinds: &'static [&'static str],
    /// A picture adds a URL of this many characters to the text, which counts.
    pub image_url: usize,
    /// A post needs a link under this domain, and no `#topic#` (Sina's `share`).
    pub link_domain: Option<String>,
    /// First words that the platform obeys instead of posting (GNU social).
    pub commands: bool,
    /// An article: it has a title, at most this many characters long.
    pub title: Option<usize>,
}

/// Why a text or picture does not fit, and which field of the announcement is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub field: String,
    pub code: &'static str,
    pub message: Words,
    pub hint: Words,
    pub is_warning: bool,
}

/// The text as it is sent: trimmed, with the link after a space unless it is in the text already.
pub fn full_text(text: &str, link: Option<&str>) -> String {
    let text = text.replace("\r\n", "\n");
    let text = text.trim();
    match link {
        Some(link) if !has_link(text, link) => format!("{text} {link}"),
        _ => text.to_owned(),
    }
}

/// Whether a text has this very link, and not one that goes on after it.
fn has_link(text: &str, link: &str) -> bool {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "-_~/#@$&'(*+=%[]".contains(c);
    text.match_indices(link).any(|(at, _)| {
        let rest = text[at + link.len()..].trim_start_matches(['.', ',', ';', ':', '!', '?', ')']);
        !rest.starts_with(goes_on)
    })
}

/// The measure of a text in the unit of the rules.
pub fn length(text: &str, counting: &Counting) -> usize {
    let text: String = text.replace("\r\n", "\n").trim().nfc().collect();
    match counting {
        Counting::Weibo { url_half } => weibo_half(&text, *url_half),
        Counting::Bytes { url } => measure(&text, |t| t.len(), |_| *url),
        Counting::Points { url: Some(url) } => measure(&text, |t| t.chars().count(), |_| *url),
        Counting::Points { url: None } => text.chars().count(),
        Counting::Graphemes { url } => {
            let short = measure(&without_domains(&text), |t| t.graphemes(true).count(), |_| *url);
            short.max(text.chars().count())
        }
    }
}

/// Tries the content against one platform's rules.
pub fn misfits(body: &Body, platform: &str, rules: &Rules) -> Vec<Misfit> {
    let mut found = Vec::new();
    let own = body.variants.get(platform).and_then(|v| v.text.as_ref()).is_some();
    let field = if own { format!("variants.{platform}.text") } else { "text".to_owned() };
    let text = full_text(body.text_for(platform), body.link.as_deref());
    let mut misfit = |field: &str, code, is_warning, message: Words, hint: Words| {
        found.push(Misfit { field: field.to_owned(), code, message, hint, is_warning });
    };

    let size = length(&text, &rules.counting) + body.images.len().min(rules.images) * rules.image_url;
    let (unit_zh, unit_en, size, limit) = rules.in_its_unit(size);
    if rules.limit > 0 && size > limit {
        let over = size - limit;
        misfit(
            &field,
            "too_long",
            false,
            words!(
                "{platform} 上超长 {over}：{size} {unit_zh}，上限 {limit}",
                "too long for {platform} by {over}: {size} {unit_en}, the limit is {limit}"
            ),
            words!("缩短文字，或给 `variants.{platform}.text`", "shorten it, or give `variants.{platform}.text`"),
        );
    } else if matches!(rules.counting, Counting::Weibo { .. }) && rules.limit > 0 && size + 1 >= limit {
        misfit(
            &field,
            "at_the_limit",
            true,
            words!("{platform} 上 {size} 字，已到上限边缘", "{size} characters on {platform}, at the very limit"),
            words!(
                "服务器的算法未公开，可能略有出入；最好留出一两字",
                "the server's own count is not published and may differ by a little: leave a character or two"
            ),
        );
    }
    if let Some(domain) = &rules.link_domain
        && !urls(&text).any(|(_, url)| is_under(url, domain))
    {
        misfit(
            "text",
            "no_domain_link",
            false,
            words!(
                "{platform} 的分享接口要求有 {domain} 下的链接",
                "{platform} in `share` mode takes only a post with a link under {domain}"
            ),
            words!("加 `link: https://{domain}/…`", "add `link: https://{domain}/…`"),
        );
    }
    if rules.link_domain.is_some() && text.matches('#').count() >= 2 {
        misfit(
            &field,
            "topic",
            false,
            words!("{platform} 的分享接口不接受 #话题#", "{platform} in `share` mode takes no `#topic#`"),
            words!("去掉井号", "take the number signs out"),
        );
    }
    if rules.commands && is_command(&text) {
        misfit(
            &field,
            "command_word",
            false,
            words!(
                "{platform} 会把这段文字当作指令，不会发布",
                "{platform} would obey this text as a command instead of posting it"
            ),
            words!("换一个开头", "begin with another word"),
        );
    }
    if let (Some(limit), Some(title)) = (rules.title, body.title_for(platform))
        && title.chars().count() > limit
    {
        misfit(
            &format!("variants.{platform}.title"),
            "too_long",
            false,
            words!("{platform} 的标题超过 {limit} 字", "the title is over {limit} characters for {platform}"),
            words!("缩短标题", "shorten the title"),
        );
    }
    found.extend(picture_misfits(&body.images, platform, rules));
    found
}

fn picture_misfits(images: &[Image], platform: &str, rules: &Rules) -> Vec<Misfit> {
    let mut found = Vec::new();
    let mut misfit = |field: String, message: Words, hint: Words| {
        found.push(Misfit { field, code: "picture", message, hint, is_warning: false });
    };
    let (count, most) = (images.len(), rules.images);
    for (n, image) in images.iter().take(most).enumerate() {
        let (kind, size, limit) = (&image.kind, image.bytes, rules.image_bytes);
        if !rules.image_kinds.contains(&kind.as_str()) {
            let kinds = rules.image_kinds.join(", ");
            misfit(
                format!("images[{n}]"),
                words!("{platform} 不接受 {kind} 图片", "{platform} takes no {kind} pictures"),
                words!("换成 {kinds}", "use {kinds}"),
            );
        }
        if size >= limit {
            misfit(
                format!("images[{n}]"),
                words!(
                    "图片 {size} 字节，{platform} 要求小于 {limit}",
                    "the picture has {size} bytes, {platform} takes less than {limit}"
                ),
                words!("压缩图片", "make the picture smaller"),
            );
        }
    }
    if count > most {
        // Platforms take different numbers of pictures; what goes where is said, and the first ones go.
        found.push(Misfit {
            field: format!("images[{most}]"),
            code: "pictures_left_out",
            message: words!(
                "{platform} 最多 {most} 张图片，这里有 {count} 张：只发前 {most} 张",
                "{platform} takes {most} pictures at most, here are {count}: the first {most} go there"
            ),
            hint: words!("把最要紧的图放在前面", "put the picture that matters most first"),
            is_warning: true,
        });
    }
    found
}

impl Rules {
    /// A measure and the limit in the unit people know: Sina's half-width units are two to a 字.
    fn in_its_unit(&self, size: usize) -> (&'static str, &'static str, usize, usize) {
        match self.counting {
            Counting::Weibo { .. } => {
                ("字", "characters (half-width ones count half)", size.div_ceil(2), self.limit / 2)
            }
            Counting::Bytes { .. } => ("字节", "bytes", size, self.limit),
            Counting::Points { .. } | Counting::Graphemes { .. } => ("字", "characters", size, self.limit),
        }
    }
}

fn half(c: char) -> usize {
    c.len_utf16() * if u32::from(c) > 0xff { 2 } else { 1 }
}

/// Sina's own editor: `platforms.md` 1.6.
fn weibo_half(text: &str, url_half: usize) -> usize {
    let mut total = 0;
    let mut rest = text;
    while let Some(start) = find_scheme(rest) {
        total += rest[..start].chars().map(half).sum::<usize>();
        let from = &rest[start..];
        let Some(end) = weibo_url(from) else {
            let scheme = from.find("//").expect("a scheme was found") + 2;
            total += from[..scheme].chars().map(half).sum::<usize>();
            rest = &from[scheme..];
            continue;
        };
        let url = &from[..end];
        let k = url.chars().map(half).sum::<usize>();
        let host = url.split("//").nth(1).unwrap_or("").split(['/', ':', '?', '#']).next().unwrap_or("");
        let own = ["weibo.com", "weibo.cn", "t.sina.com.cn", "t.sina.cn"].iter().any(|d| is_host_under(host, d));
        total += if url.starts_with("http://t.cn") || (own && url.starts_with("http://") && k <= 41) {
            k
        } else if k <= 140 {
            url_half
        } else {
            k - 140 + url_half
        };
        rest = &from[end..];
    }
    total + rest.chars().map(half).sum::<usize>()
}

/// The length of the URL a text begins with, by the pattern of Sina's editor: no `-` in a host label.
fn weibo_url(text: &str) -> Option<usize> {
    let host_at = text.find("//")? + 2;
    let bytes = text.as_bytes();
    let (mut at, mut labels) = (host_at, 0);
    loop {
        let start = at;
        while bytes.get(at).is_some_and(u8::is_ascii_alphanumeric) {
            at += 1;
        }
        if at == start {
            // A dot with nothing after it belongs to the path's characters.
            at = if labels > 0 { start - 1 } else { start };
            break;
        }
        labels += 1;
        if bytes.get(at) != Some(&b'.') {
            break;
        }
        at += 1;
    }
    if labels < 2 {
        return None;
    }
    while bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || b"-_$.+!*()/,:;@&=?~#%".contains(b)) {
        at += 1;
    }
    Some(at)
}

fn find_scheme(text: &str) -> Option<usize> {
    [text.find("http://"), text.find("https://")].into_iter().flatten().min()
}

/// The URLs of a text with their places; a full-width character or closing punctuation ends one.
pub fn urls(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + find_scheme(&text[at..])?;
            let scheme = if text[start..].starts_with("https") { 8 } else { 7 };
            let body = &text[start + scheme..];
            let taken = body
                .find(|c: char| !(c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c)))
                .unwrap_or(body.len());
            let url = text[start..start + scheme + taken].trim_end_matches(['.', ',', ';', ':', '!', '?', ')']);
            at = start + url.len().max(scheme);
            if url.len() > scheme {
                return Some((start, url));
            }
        }
    })
}

fn measure(text: &str, plain: impl Fn(&str) -> usize, url: impl Fn(&str) -> usize) -> usize {
    let (mut total, mut at) = (0, 0);
    for (start, found) in urls(text) {
        total += plain(&text[at..start]) + url(found);
        at = start + found.len();
    }
    total + plain(&text[at..])
}

/// Of `@user@host` only `@user` counts on Mastodon.
fn without_domains(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        match word.strip_prefix('@').and_then(|w| w.split_once('@')) {
            Some((user, host)) if !user.is_empty() => {
                out.push('@');
                out.push_str(user);
                out.extend(host.chars().skip_while(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)));
            }
            _ => out.push_str(word),
        }
    }
    out
}

fn is_under(url: &str, domain: &str) -> bool {
    let host = url.split("//").nth(1).unwrap_or("").split(['/', ':', '?', '#']).next().unwrap_or("");
    is_host_under(host, domain)
}

fn is_host_under(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Texts GNU social takes as a command to its bot, by first word and number of words (`platforms.md` 3.1).
pub fn is_command(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let alone = [
        "help",
        "login",
        "lose",
        "subscribers",
        "subscriptions",
        "groups",
        "last",
        "on",
        "off",
        "stop",
        "quit",
        "stats",
        "untracks",
        "tracks",
        "tracking",
    ];
    let with_one = [
        "join", "drop", "follow", "sub", "leave", "unsub", "get", "last", "whois", "nudge", "invite", "track",
        "untrack", "on", "off", "lose", "stop", "fav", "repeat", "rp", "rt", "rd",
    ];
    let with_more = ["r", "reply", "d", "dm", "tag", "untag", "list"];
    match words.as_slice() {
        [first] => alone.contains(&first.as_str()),
        [first, _] => with_one.contains(&first.as_str()),
        [first, _, _, ..] => with_more.contains(&first.as_str()),
        [] => false,
    }
}

/// A title for an article that was given none: the words in 【】 at its head, or its first sentence.
pub fn title_of(text: &str, limit: usize) -> String {
    let head = text.strip_prefix('【').and_then(|rest| rest.split_once('】')).map(|(title, _)| title);
    let first = head.unwrap_or_else(|| text.split(['\n', '。', '！', '？']).next().unwrap_or(text));
    first.trim().chars().take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked examples of `platforms.md` 4.1.
    #[test]
    fn r44_length_is_counted_as_each_platform_counts() {
        let wide = |n: usize| format!("{} https://www.shanghai.gov.cn/a", "中".repeat(n));
        for (text, sina, tencent, points) in [
            ("Hello", 5, 5, 5),
            ("早安，上海！", 12, 18, 6),
            ("①→é", 5, 8, 3),
            ("👍", 4, 4, 1),
            ("早安👍🏽", 12, 14, 4),
            ("【交通】今晚22时起，地铁9号线停运。", 35, 51, 19),
            ("台风红色预警：请勿外出。http://t.cn/A6abcdef", 44, 47, 32),
            ("详情 https://www.shanghai.gov.cn/nw12344/20260101/abcdef.html 请看", 30, 25, 62),
            ("见 https://my-site.sh.cn/a 吧", 29, 19, 27),
            (wide(129).as_str(), 279, 399, 159),
            (wide(130).as_str(), 281, 402, 160),
        ] {
            assert_eq!(length(text, &Counting::Weibo { url_half: 20 }), sina, "sina: {text}");
            assert_eq!(length(text, &Counting::Bytes { url: 11 }), tencent, "tencent: {text}");
            assert_eq!(length(text, &Counting::Points { url: None }), points, "points: {text}");
        }
        assert_eq!(length("早安👍🏽", &Counting::Graphemes { url: 23 }), 4, "characters, where they are more");
    }

    #[test]
    fn a_link_is_added_once_and_blanks_at_the_ends_go() {
        assert_eq!(full_text(" 早安\r\n上海 \n", None), "早安\n上海");
        assert_eq!(full_text("详情", Some("https://a.cn/x")), "详情 https://a.cn/x");
        assert_eq!(full_text("详情 https://a.cn/x 见", Some("https://a.cn/x")), "详情 https://a.cn/x 见");
    }

    #[test]
    fn urls_end_where_chinese_begins() {
        let found: Vec<_> = urls("看https://a.cn/b，或 http://c.cn/d. 完 http://").map(|(_, u)| u).collect();
        assert_eq!(found, ["https://a.cn/b", "http://c.cn/d"]);
    }

    #[test]
    fn command_words_are_known_by_their_company() {
        assert!(is_command("stop") && is_command("Follow lujiazui") && is_command("d pudong 你好"));
        // Tried on GNU social 2.0.
        for eaten in ["last", "fav x", "FAV #1", "repeat x", "rt x", "rp x", "rt #1", "dm x y"] {
            assert!(is_command(eaten), "{eaten}");
        }
        assert!(!is_command("list x") && !is_command("fav") && !is_command("rt 请转发 扩散"));
        assert!(!is_command("stop the traffic") && !is_command("早安") && !is_command("follow us on weibo"));
    }
}
