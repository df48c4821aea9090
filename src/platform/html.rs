//! Text out of the HTML that some platforms show a post as.

use crate::core::likeness::decoded;

/// Tags are dropped, the ends of blocks become line ends, entities decoded. A `<` that begins no tag is text.
pub fn text_of_html(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match tag_of(rest) {
            Some((name, tag)) => {
                let ends_line =
                    ["br", "/p", "/li", "/div", "/blockquote", "/pre", "/h1", "/h2", "/h3", "/h4", "/h5", "/h6"];
                if ends_line.contains(&name) {
                    out.push('\n');
                }
                rest = &rest[tag..];
            }
            None => {
                out.push('<');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    decoded(out.trim())
}

/// The name of the tag a text begins with, and the length of the tag. Outside of its values a tag is ASCII.
fn tag_of(text: &str) -> Option<(&str, usize)> {
    let inner = text.strip_prefix('<')?;
    if !inner.trim_start_matches('/').starts_with(|c: char| c.is_ascii_alphabetic() || c == '!') {
        return None;
    }
    let mut quote = None;
    for (at, c) in inner.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '>') => {
                let name = inner[..at].split([' ', '\t', '\n']).next().unwrap_or_default();
                return Some((name.strip_suffix('/').unwrap_or(name), at + 2));
            }
            (None, _) if !c.is_ascii() => return None,
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_becomes_text() {
        for (html, text) in [
            ("<p>早安 &amp; 上海<br>二</p><p>三</p>", "早安 & 上海\n二\n三"),
            ("<p>早安<br/>二</p>", "早安\n二"),
            ("<p>a<b 且 c>d</p>", "a<b 且 c>d"),
            ("<p>1 < 2 &hellip; <a href=\"https://a.cn/?x=>\" class='u'>见</a></p>", "1 < 2 … 见"),
            ("<ul><li>一</li><li>二</li></ul>", "一\n二"),
            ("没有标签 <", "没有标签 <"),
        ] {
            assert_eq!(text_of_html(html), text);
        }
    }
}
