//! The public address of a post, as a browser shows it: taken apart, never taken for an id.
//!
//! What a person copies has a fragment, a query of somebody's statistics, another host for phones. Each dialect
//! knows how its own addresses name a post, and asks the platform for it before anything is written.

use crate::core::delivery::{Class, Failure};
use crate::core::words::{Words, shown, words};

/// An address in its parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Address {
    /// In small letters, without a port.
    pub host: String,
    /// Decoded, without empty ones.
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
}

impl Address {
    /// Reads an http(s) address, or says what is wrong with it.
    pub fn read(url: &str) -> Result<Address, Failure> {
        const MOST: usize = 2000;
        let url = url.trim();
        let odd = || {
            let said = shown(&url.chars().take(200).collect::<String>());
            refused(words!("`{said}` 不是 http(s) 地址", "`{said}` is not an http(s) address"))
        };
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).ok_or_else(odd)?;
        if url.len() > MOST || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(odd());
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = place.split_once('/').unwrap_or((place, ""));
        let host = host.rsplit('@').next().unwrap_or_default().split(':').next().unwrap_or_default();
        if host.is_empty() {
            return Err(odd());
        }
        let decoded = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
        Ok(Address {
            host: host.to_ascii_lowercase(),
            path: path.split('/').filter(|part| !part.is_empty()).map(decoded).collect(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        })
    }

    /// The parts of its path, to be matched.
    pub fn parts(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// Whether both lead to the same page, whatever else is in their queries than these keys.
    pub fn is_same(&self, other: &Address, keys: &[&str]) -> bool {
        let of = |a: &Address| -> Vec<Option<String>> {
            keys.iter().map(|key| a.query.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone())).collect()
        };
        self.host == other.host && self.path == other.path && of(self) == of(other)
    }
}

/// This address means no post of the platform's that could be found.
pub fn unreadable(platform: &str, example: &str) -> Failure {
    refused(words!(
        "看不出这个地址指 {platform} 的哪一条；应形如 {example}",
        "this address does not name a post on {platform}; one looks like {example}"
    ))
}

/// It means a post of another account.
pub fn of_another(account: &str) -> Failure {
    refused(words!("这个地址是别的账号的，不是 {account} 的", "this is a post of another account, not of {account}"))
}

fn refused(said: Words) -> Failure {
    Failure::Refused(Class::Content, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_a_browser_shows_it() {
        let read = Address::read("https://Weibo.com:443/2539961154/z08AUBmUe?from=page_100#comment").unwrap();
        assert_eq!((read.host.as_str(), read.parts()), ("weibo.com", vec!["2539961154", "z08AUBmUe"]));
        assert_eq!(read.query, [("from".to_owned(), "page_100".to_owned())]);
        assert_eq!(Address::read(" http://t.qq.com/p/t/123/ ").unwrap().parts(), ["p", "t", "123"]);
        for odd in ["", "weibo.com/1/2", "ftp://a/b", "https://", "https://a b/c", "javascript:alert(1)"] {
            assert!(Address::read(odd).is_err(), "{odd}");
        }
    }
}
