//! WeChat's articles: how one is made of a text, and how the list of those published shows it.

use serde_json::Value;

use super::reply::{code_of, sane_id, sane_url, text_of};
use crate::clock::{Time, from_micros};
use crate::core::fit::title_of;
use crate::core::timeline::Shown;

/// An article's title in characters, and its digest as the platform would make it.
pub(super) const TITLE: usize = 32;
pub(super) const DIGEST: usize = 54;

/// An article as the list shows it.
pub(super) struct Article {
    pub id: String,
    pub title: String,
    pub digest: Option<String>,
    pub url: Option<String>,
    pub made: Option<Time>,
    pub deleted: bool,
}

impl Article {
    /// As a timeline would list it, by its title.
    pub(super) fn shown(&self) -> Shown {
        Shown {
            id: self.id.clone(),
            text: self.title.clone(),
            source: None,
            url: self.url.clone(),
            created: self.made,
            truncated: true,
            key: None,
            author: None,
            shown: true,
            gone: None,
        }
    }
}

pub(super) fn article(item: &Value) -> Option<Article> {
    let news = item.pointer("/content/news_item/0")?;
    Some(Article {
        id: text_of(item, "article_id").and_then(sane_id)?,
        title: text_of(news, "title").unwrap_or_default(),
        digest: text_of(news, "digest"),
        url: sane_url(text_of(news, "url")),
        made: code_of(item, "update_time").and_then(|s| s.checked_mul(1_000_000)).map(from_micros),
        deleted: news.get("is_deleted").is_some_and(|d| d.as_bool() == Some(true) || d.as_str() == Some("true")),
    })
}

/// The title where none was given.
pub(super) fn title(text: &str) -> String {
    let made = title_of(text, TITLE);
    if made.is_empty() { text.trim().chars().take(TITLE).collect() } else { made }
}

pub(super) fn digest(text: &str) -> String {
    text.trim().chars().take(DIGEST).collect()
}

/// The article's HTML: a paragraph a line, then the pictures.
pub(super) fn content(text: &str, images: &[String]) -> String {
    let mut html = String::with_capacity(text.len() * 2);
    for line in text.trim().lines() {
        let line = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        html.push_str("<p>");
        html.push_str(if line.trim().is_empty() { "<br>" } else { &line });
        html.push_str("</p>");
    }
    for url in images {
        html.push_str("<p><img src=\"");
        html.push_str(url);
        html.push_str("\"></p>");
    }
    html
}
