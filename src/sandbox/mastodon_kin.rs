//! Other servers that speak Mastodon's API, each in its own way: how they name posts and pictures, what they make of a
//! text, what they keep, and how they refuse.
//!
//! Seen on snac 2.96, GoToSocial 0.16 and Takahe; what is not said here is as Mastodon does it.

use super::call::Reply;
use super::dice::Dice;
use super::mastodon::error;
use super::rewrite;
use crate::clock::Time;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dialect {
    #[default]
    Mastodon,
    Snac,
    GoToSocial,
    Takahe,
}

impl Dialect {
    pub fn named(name: &str) -> Dialect {
        match name {
            "snac" => Dialect::Snac,
            "gotosocial" => Dialect::GoToSocial,
            "takahe" => Dialect::Takahe,
            _ => Dialect::Mastodon,
        }
    }

    /// Only Mastodon itself remembers a key.
    pub fn keeps_keys(self) -> bool {
        self == Dialect::Mastodon
    }

    /// Whether a post's plain text can be asked for.
    pub fn has_source(self) -> bool {
        !matches!(self, Dialect::Snac)
    }

    /// A post's id: a number, a second and a hash, or a time in letters. Those of one second do not grow.
    pub fn post_id(self, number: u64, clock: Time, dice: &mut Dice) -> String {
        match self {
            Dialect::Mastodon | Dialect::Takahe => number.to_string(),
            Dialect::Snac => format!("{}{:016x}{:016x}", clock.timestamp(), dice.next(), dice.next()),
            Dialect::GoToSocial => ulid(clock, dice),
        }
    }

    pub fn media_id(self, number: u64, clock: Time, dice: &mut Dice) -> String {
        match self {
            Dialect::Mastodon | Dialect::Takahe => number.to_string(),
            Dialect::Snac => format!("post-{:016x}.png", dice.next()),
            Dialect::GoToSocial => ulid(clock, dice),
        }
    }

    /// A text as it is shown; `None`: in Mastodon's own way.
    pub fn html(self, text: &str, host: &str) -> Option<String> {
        match self {
            Dialect::Mastodon => None,
            Dialect::Snac => {
                let lines: Vec<String> = text.lines().map(|line| snac_line(line, host)).collect();
                Some(format!("<p>{}</p>", lines.join("<br>")))
            }
            Dialect::GoToSocial => {
                let linked = rewrite::shorten(&go(text), |url| {
                    format!("<a href=\"{url}\" rel=\"nofollow noreferrer\">{url}</a>")
                });
                let named = names(&linked, |name| format!("<span class=\"h-card\">@<span>{name}</span></span>"));
                Some(format!("<p>{}</p>", named.replace('\n', "<br>")))
            }
            Dialect::Takahe => {
                let escaped = rewrite::escape(text).replace('\'', "&#x27;");
                let linked = rewrite::shorten(&escaped, |url| {
                    let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
                    format!("<a href=\"{url}\" rel=\"nofollow\"><span class=\"invisible\">https://</span>{bare}</a>")
                });
                let parts: Vec<String> =
                    linked.split("\n\n").map(|part| format!("<p>{}</p>", part.replace('\n', "<br>"))).collect();
                Some(parts.concat())
            }
        }
    }

    /// How a credential that does not work is refused.
    pub fn unauthorized(self, words: &str) -> Reply {
        match self {
            Dialect::Mastodon => error(401, words),
            Dialect::GoToSocial => error(401, "Unauthorized: token not supplied, or it is invalid"),
            Dialect::Takahe => page(400, "<h1>Invalid access token</h1>"),
            Dialect::Snac => page(401, ""),
        }
    }

    pub fn too_long(self, limit: usize) -> Reply {
        match self {
            Dialect::Mastodon => error(422, &format!("Validation failed: Text character limit of {limit} exceeded")),
            Dialect::GoToSocial => {
                error(400, &format!("Bad Request: status too long, character limit is {limit} characters"))
            }
            Dialect::Takahe => error(400, "Post is too long"),
            Dialect::Snac => page(400, "<h1>400 Bad Request</h1><p>The text is too long</p>"),
        }
    }

    pub fn not_found(self) -> Reply {
        match self {
            Dialect::Mastodon => error(404, "Record not found"),
            Dialect::GoToSocial => error(404, "Not Found"),
            Dialect::Takahe | Dialect::Snac => page(404, "<h1>404 Not Found</h1>"),
        }
    }
}

fn page(status: u16, html: &str) -> Reply {
    Reply::text(status, status.to_string(), "text/html", html)
}

/// Milliseconds and chance in Crockford's letters.
fn ulid(clock: Time, dice: &mut Dice) -> String {
    const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let millis = clock.timestamp_millis().max(0) as u128;
    let value = millis << 80 | u128::from(dice.next()) << 16 | u128::from(dice.next() & 0xffff);
    (0..26).rev().map(|at| char::from(LETTERS[(value >> (at * 5) & 31) as usize])).collect()
}

/// Go's `html.EscapeString`.
fn go(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}

/// "Not really markdown": bold, italic, code, quotes and lists are rendered, names gain their host.
fn snac_line(line: &str, host: &str) -> String {
    let escaped = go(line);
    let quoted = escaped.strip_prefix("&gt; ");
    let mut rest = quoted.unwrap_or(&escaped).to_owned();
    for (mark, tag) in [("**", "b"), ("`", "code"), ("*", "i")] {
        let parts: Vec<&str> = rest.split(mark).collect();
        if parts.len() > 1 && parts.len() % 2 == 1 {
            let inside = |(n, part): (usize, &&str)| match n % 2 {
                1 => format!("<{tag}>{part}</{tag}>"),
                _ => (*part).to_owned(),
            };
            rest = parts.iter().enumerate().map(inside).collect();
        }
    }
    if let Some(title) = rest.strip_prefix("# ") {
        rest = format!("<b>{title}</b>");
    }
    let linked = rewrite::shorten(&rest, |url| format!("<a href=\"{url}\">{url}</a>"));
    let named = names(&linked, |name| format!("<a href=\"https://{host}/{name}\">@{name}@{host}</a>"));
    if quoted.is_some() { format!("<blockquote>{named}</blockquote>") } else { named }
}

/// Names after an `@`, outside of addresses: also the host of a mail address.
fn names(text: &str, by: impl Fn(&str) -> String) -> String {
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let name: String = rest[at + 1..].chars().take_while(|c| of_name(*c)).collect();
        let name = name.trim_end_matches(['.', '-']);
        let is_named = !name.is_empty() && !rest[..at].ends_with('/');
        out.push_str(&rest[..at]);
        out.push_str(&if is_named { by(name) } else { "@".to_owned() });
        rest = &rest[at + 1 + if is_named { name.len() } else { 0 }..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_micros;

    #[test]
    fn each_server_has_its_own_ways() {
        let text = "# **红色** it's `a<b`\n> @metro fabu@shanghai.gov.cn https://a.cn/x";
        let snac = Dialect::Snac.html(text, "s.example").unwrap();
        assert_eq!(
            snac,
            "<p><b><b>红色</b> it&#39;s <code>a&lt;b</code></b><br><blockquote>\
             <a href=\"https://s.example/metro\">@metro@s.example</a> \
             fabu<a href=\"https://s.example/shanghai.gov.cn\">@shanghai.gov.cn@s.example</a> \
             <a href=\"https://a.cn/x\">https://a.cn/x</a></blockquote></p>"
        );
        let go = Dialect::GoToSocial.html("it's\n@metro", "g.example").unwrap();
        assert_eq!(go, "<p>it&#39;s<br><span class=\"h-card\">@<span>metro</span></span></p>");
        assert!(Dialect::Takahe.html("it's", "t.example").unwrap().contains("it&#x27;s"));
        let (clock, mut dice) = (from_micros(1_790_000_000_000_000), Dice(1));
        let id = Dialect::GoToSocial.post_id(5, clock, &mut dice);
        assert!(id.len() == 26 && id.starts_with("01"), "{id}");
        let ids: Vec<String> = (0..4).map(|n| Dialect::Snac.post_id(n, clock, &mut dice)).collect();
        assert!(ids.iter().all(|id| id.starts_with("1790000000") && id.len() == 42));
        assert!(!ids.is_sorted(), "within a second they do not grow: {ids:?}");
        assert!(Dialect::Snac.media_id(1, clock, &mut dice).ends_with(".png"));
    }
}
