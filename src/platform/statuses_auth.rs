//! How `statuses` proves who calls: Basic, a bearer token, or OAuth 1.0a with HMAC-SHA1 (`platforms.md` 4.8).
//!
//! A secret of one line with a colon is a user and a password whatever the platform's entry says. A
//! signature covers the query and a form's fields, never the parts of a multipart body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;

use super::Call;
use super::reply::Ask;
use crate::clock::Time;
use crate::core::accounts::Secret;

/// RFC 5849 3.6 leaves only these as they are.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A credential, as the secret holds it.
enum Credential {
    Basic(String),
    Bearer(String),
    OAuth1(Keys),
}

struct Keys {
    consumer: String,
    consumer_secret: String,
    token: String,
    token_secret: String,
}

/// Adds the `Authorization` header. `wanted` is the platform's `auth:`; `now` is the platform's clock, which a
/// signature's time must be near.
pub fn authorize(call: &Call<'_>, wanted: Option<&str>, now: Time, ask: Ask) -> Ask {
    let value = match credential(call.token, wanted) {
        Credential::Basic(pair) => format!("Basic {}", STANDARD.encode(pair)),
        Credential::Bearer(token) => format!("Bearer {token}"),
        Credential::OAuth1(keys) => {
            let nonce = format!("{:016x}{:016x}", call.clock.random(), call.clock.random());
            signed(&keys, &ask, &nonce, now.timestamp())
        }
    };
    ask.secret_header("authorization", value)
}

fn credential(secret: &Secret, wanted: Option<&str>) -> Credential {
    let line = secret.expose();
    if !line.trim_start().starts_with('{') {
        return if line.contains(':') {
            Credential::Basic(line.to_owned())
        } else {
            Credential::Bearer(line.to_owned())
        };
    }
    let field = |names: &[&str]| names.iter().find_map(|name| secret.field(name));
    let pair =
        field(&["user", "username"]).zip(field(&["password"])).map(|(user, password)| format!("{user}:{password}"));
    let basic = pair.map(Credential::Basic);
    let keys = || {
        Some(Credential::OAuth1(Keys {
            consumer: field(&["ck"])?,
            consumer_secret: field(&["cs"])?,
            token: field(&["tk"])?,
            token_secret: field(&["ts"])?,
        }))
    };
    let bearer = field(&["bearer", "access_token", "token"]).map(Credential::Bearer);
    // What the entry asks for first, then whatever the secret has.
    let found = match wanted {
        Some("basic") => basic.or(bearer).or_else(keys),
        Some("oauth1") => keys().or(basic).or(bearer),
        _ => bearer.or_else(keys).or(basic),
    };
    found.unwrap_or_else(|| Credential::Bearer(String::new()))
}

fn signed(keys: &Keys, ask: &Ask, nonce: &str, timestamp: i64) -> String {
    let (method, url, parameters) = ask.signed_parts();
    let timestamp = timestamp.to_string();
    let own = [
        ("oauth_consumer_key", keys.consumer.as_str()),
        ("oauth_nonce", nonce),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", &timestamp),
        ("oauth_token", &keys.token),
        ("oauth_version", "1.0"),
    ];
    let all = parameters.into_iter().chain(own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let signature = sign(method.as_str(), url, all, &keys.consumer_secret, &keys.token_secret);
    let mut header = String::from("OAuth ");
    for (key, value) in own {
        header.push_str(&format!("{key}=\"{}\", ", encoded(value)));
    }
    header.push_str(&format!("oauth_signature=\"{}\"", encoded(&signature)));
    header
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, STRICT).to_string()
}

fn sign(
    method: &str,
    url: &str,
    parameters: impl Iterator<Item = (String, String)>,
    consumer_secret: &str,
    token_secret: &str,
) -> String {
    let mut pairs: Vec<(String, String)> = parameters.map(|(key, value)| (encoded(&key), encoded(&value))).collect();
    pairs.sort();
    let joined: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let base = format!("{method}&{}&{}", encoded(&base_url(url)), encoded(&joined.join("&")));
    let key = format!("{}&{}", encoded(consumer_secret), encoded(token_secret));
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    STANDARD.encode(hmac::sign(&key, base.as_bytes()))
}

/// The URL as it is signed: host in small letters, without the scheme's own port.
fn base_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (scheme, host) = (scheme.to_lowercase(), host.to_lowercase());
    let port = if scheme == "https" { ":443" } else { ":80" };
    format!("{scheme}://{}{path}", host.strip_suffix(port).unwrap_or(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn signature(header: &str) -> &str {
        header.split("oauth_signature=\"").nth(1).unwrap().trim_end_matches('"')
    }

    /// `platforms.md` 4.8, test 1: OAuth Core's own example.
    #[test]
    fn oauth_cores_example_is_signed_as_it_says() {
        let keys = Keys {
            consumer: "dpf43f3p2l4k3l03".to_owned(),
            consumer_secret: "kd94hf93k423kf44".to_owned(),
            token: "nnch734d00sl2jdk".to_owned(),
            token_secret: "pfkkdhi9sl3r4s00".to_owned(),
        };
        for url in ["http://photos.example.net/photos", "HTTP://Photos.example.net:80/photos"] {
            let ask = Ask::get(url).query("file", "vacation.jpg").query("size", "original");
            let header = signed(&keys, &ask, "kllo9940pd9333jh", 1_191_242_096);
            assert_eq!(signature(&header), "tR3%2BTy81lMeYAr%2FFid0kMTYa%2FWM%3D");
        }
    }

    /// `platforms.md` 4.8, test 2.
    #[test]
    fn a_form_in_chinese_is_signed_as_the_page_says() {
        let keys = Keys {
            consumer: "ck1".to_owned(),
            consumer_secret: "cs1".to_owned(),
            token: "tk1".to_owned(),
            token_secret: "ts1".to_owned(),
        };
        let ask = Ask::post("https://t.example.cn/api/statuses/update.json")
            .form(pairs(&[("status", "早安，上海！ 1+1"), ("source", "fabu")]));
        let header = signed(&keys, &ask, "n1", 1_700_000_000);
        assert_eq!(signature(&header), "aBLY0gHJvFQH6pK%2B4bDPYiN3QMs%3D");
        // The parts of a multipart body are no parameters.
        let parts = Ask::post("https://t.example.cn/a").parts(pairs(&[("status", "早安")]), Vec::new());
        let empty = Ask::post("https://t.example.cn/a");
        assert_eq!(signed(&keys, &parts, "n1", 1), signed(&keys, &empty, "n1", 1));
    }

    #[test]
    fn the_secret_says_how_it_is_used() {
        let kind = |secret: &str, wanted| match credential(&Secret::new(secret.to_owned()), wanted) {
            Credential::Basic(pair) => format!("basic {pair}"),
            Credential::Bearer(token) => format!("bearer {token}"),
            Credential::OAuth1(keys) => format!("oauth1 {}", keys.token),
        };
        let four = r#"{"ck":"a","cs":"b","tk":"c","ts":"d"}"#;
        for (secret, wanted, expected) in [
            ("user:pass:word", None, "basic user:pass:word"),
            ("user:password", Some("bearer"), "basic user:password"),
            ("token", None, "bearer token"),
            (r#"{"user":"u","password":"p"}"#, Some("basic"), "basic u:p"),
            (r#"{"bearer":"t"}"#, Some("bearer"), "bearer t"),
            (four, Some("oauth1"), "oauth1 c"),
            (four, None, "oauth1 c"),
        ] {
            assert_eq!(kind(secret, wanted), expected);
        }
    }
}
