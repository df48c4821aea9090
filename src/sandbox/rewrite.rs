//! Changes that platforms make to a text before they show it: short links, entities, lost blanks, rendered markup, a cut with a
//! link to the rest, words starred out, or words that nobody would know again.

use super::count;
use super::dice::Dice;

/// Which changes are made; made in the order of the fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Rewrite {
    blanks: bool,
    /// Signs of Markdown are rendered away, and quotes are made typographic.
    markup: bool,
    /// Not one word is left: the text is shown backwards.
    translated: bool,
    /// A filter of words puts stars for some: here each digit is one.
    filtered: bool,
    links: Option<&'static str>,
    entities: bool,
    /// The pictures stand in another order.
    pictures: bool,
    /// Shown up to so many characters, then `…全文`.
    more: Option<usize>,
}

impl Rewrite {
    /// Reads names joined by `,` or `+`; without one, short links, entities and blanks.
    pub fn named(kinds: &str, count: Option<u64>) -> Rewrite {
        let kinds = if kinds.is_empty() { "links,entities,trim" } else { kinds };
        let mut rewrite = Rewrite::default();
        for kind in kinds.split([',', '+']).map(str::trim) {
            match kind {
                "links" | "t.cn" => rewrite.links = Some("http://t.cn/A6"),
                "url.cn" => rewrite.links = Some("http://url.cn/5"),
                "entities" => rewrite.entities = true,
                "trim" => rewrite.blanks = true,
                "markup" => rewrite.markup = true,
                "translated" => rewrite.translated = true,
                "filtered" => rewrite.filtered = true,
                "pictures" => rewrite.pictures = true,
                "more" => rewrite.more = Some(count.map_or(60, |n| n as usize)),
                _ => {}
            }
        }
        rewrite
    }

    /// The pictures in the order in which they are shown.
    pub fn ordered(&self, mut images: Vec<String>) -> Vec<String> {
        if self.pictures {
            images.reverse();
        }
        images
    }

    pub fn apply(&self, text: &str, dice: &mut Dice) -> String {
        let mut text = text.to_owned();
        if self.blanks {
            text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        if self.markup {
            text = rendered(&text);
        }
        if self.translated {
            text = text.chars().rev().collect();
        }
        if self.filtered {
            text = text.replace(|c: char| c.is_ascii_digit(), "*");
        }
        if let Some(prefix) = self.links {
            text = shorten(&text, |_| format!("{prefix}{}", dice.word(6)));
        }
        if let Some(at) = self.more.filter(|at| text.chars().count() > *at) {
            text = format!("{}…全文", text.chars().take(at).collect::<String>());
        }
        if self.entities { escape(&text) } else { text }
    }
}

fn rendered(text: &str) -> String {
    let line = |line: &str| {
        let bare = line.trim_start_matches(['#', '>', '-', ' ']);
        bare.replace("**", "").replace('`', "").replace('\'', "’").replace("...", "…")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Replaces every URL of a text.
pub(super) fn shorten(text: &str, mut by: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut last = 0;
    for url in count::urls(text) {
        out.push_str(&text[last..url.start]);
        out.push_str(&by(&text[url.clone()]));
        last = url.end;
    }
    out.push_str(&text[last..]);
    out
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Decodes the named entities once, as PHP's `html_entity_decode` would.
pub(super) fn unescape(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    text.replace("&nbsp;", "\u{a0}").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_changed_as_the_platforms_do() {
        let shown = Rewrite::named("", None).apply(" 看  a<b https://www.shanghai.gov.cn/x 。 ", &mut Dice(1));
        assert!(shown.starts_with("看 a&lt;b http://t.cn/A6") && shown.ends_with(" 。"), "{shown}");
        assert_eq!(Rewrite::named("more", Some(2)).apply("早安上海", &mut Dice(1)), "早安…全文");
        assert_eq!(unescape("&amp;lt;"), "&lt;");
        assert_eq!(Rewrite::named("markup", None).apply("# **早安**\n- it's", &mut Dice(1)), "早安\nit’s");
        assert_eq!(Rewrite::named("translated", None).apply("早安", &mut Dice(1)), "安早");
        assert_eq!(Rewrite::named("filtered", None).apply("12日早安", &mut Dice(1)), "**日早安");
    }
}
