//! How the `statuses` dialect knows who calls: Basic, OAuth 1.0a with HMAC-SHA1, or a bearer token.
//!
//! A signature is checked from the bytes of the request alone; its time has to be near the platform's, and its nonce new.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::hmac;

use super::call::{Call, Kind};
use super::state::{Account, Ctx, REMEMBERED};

/// Everything but `A-Za-z0-9-._~` is encoded (RFC 5849, 3.6).
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// A signature's timestamp may be so many seconds off.
const SKEW_S: i64 = 300;

/// The key under which the caller's account is registered.
pub(super) fn named(call: &Call) -> Option<String> {
    if let Some(bearer) = call.authorization("Bearer") {
        return Some(bearer.to_owned());
    }
    if let Some(basic) = call.authorization("Basic") {
        return String::from_utf8(STANDARD.decode(basic).ok()?).ok();
    }
    oauth(call).into_iter().find(|(key, _)| key == "oauth_token").map(|(_, value)| value)
}

/// The parameters of an OAuth header, decoded; without one, those of the form or the query (RFC 5849, 3.5).
fn oauth(call: &Call) -> Vec<(String, String)> {
    let Some(header) = call.authorization("OAuth") else {
        let is_signed = |pairs: &&Vec<(String, String)>| pairs.iter().any(|(key, _)| key == "oauth_signature");
        let given = [&call.form, &call.query].into_iter().filter(|_| call.header("authorization").is_none());
        let mut given = given.filter(is_signed).flatten().cloned().collect::<Vec<_>>();
        given.retain(|(key, _)| key.starts_with("oauth_"));
        return given;
    };
    let decode = |text: &str| percent_decode_str(text.trim_matches('"')).decode_utf8_lossy().into_owned();
    let pairs = header.split(',').filter_map(|pair| pair.trim().split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

/// `None` when the credentials are good; else what the platform says about them.
pub(super) fn refused(ctx: &mut Ctx<'_>) -> Option<String> {
    const NO: &str = "Could not authenticate you.";
    let auth = ctx.site.settings.auth.clone();
    let scheme = ctx.call.header("authorization").and_then(|h| h.split_once(' ')).map(|(s, _)| s.to_ascii_lowercase());
    let in_parameters = || if oauth(ctx.call).is_empty() { String::new() } else { "oauth".to_owned() };
    let scheme = scheme.unwrap_or_else(in_parameters);
    let wanted = auth.as_deref().map(|auth| if auth == "oauth1" { "oauth" } else { auth });
    // A secret with a colon is a user and a password, whatever the platform's entry says.
    let basic = ctx.account().is_some_and(|account| account.keys.basic.is_some());
    if wanted.is_some_and(|wanted| wanted != scheme && !(basic && scheme == "basic")) {
        return Some(NO.to_owned());
    }
    let account = ctx.account()?;
    let fits = match scheme.as_str() {
        "basic" => account.keys.basic.is_some() || account.unit.starts_with("any/"),
        "bearer" => account.keys.token.is_some(),
        "oauth" => match signed(ctx.call, account, ctx.clock().timestamp(), &ctx.site.settings.base_url) {
            Ok(nonce) => {
                let fresh = ctx.site.nonces.insert(nonce);
                if ctx.site.nonces.len() > REMEMBERED {
                    ctx.site.nonces.pop_first();
                }
                fresh
            }
            Err(words) => return Some(words.to_owned()),
        },
        _ => false,
    };
    (!fits).then(|| NO.to_owned())
}

/// The nonce of a request whose signature is right.
fn signed(call: &Call, account: &Account, now: i64, base_url: &Option<String>) -> Result<String, &'static str> {
    let [ck, cs, tk, ts] = account.keys.oauth1.as_ref().ok_or("Invalid / expired Token")?;
    let given = oauth(call);
    let get = |name: &str| given.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    if get("oauth_consumer_key") != ck || get("oauth_token") != tk {
        return Err("Invalid / expired Token");
    }
    if get("oauth_signature_method") != "HMAC-SHA1" {
        return Err("Invalid signature method");
    }
    let timestamp: i64 = get("oauth_timestamp").parse().map_err(|_| "Timestamp refused")?;
    if (timestamp - now).abs() > SKEW_S {
        return Err("Timestamp refused");
    }
    let mut all: Vec<(String, String)> =
        given.iter().filter(|(key, _)| key != "oauth_signature" && key != "realm").cloned().collect();
    // The signature's own parameters are there already.
    let of_request = |(key, _): &&(String, String)| call.authorization("OAuth").is_some() || !key.starts_with("oauth_");
    all.extend(call.query.iter().filter(of_request).cloned());
    if call.kind == Kind::Form {
        all.extend(call.form.iter().filter(of_request).cloned());
    }
    // Behind a proxy the host of the request is not the one that was signed.
    let proxied = base_url.as_ref().map(|base| format!("{}{}", base.trim_end_matches('/'), call.path));
    let right = std::iter::once(call.url.clone())
        .chain(proxied)
        .any(|url| sign(call.method.as_str(), &url, all.clone(), cs, ts) == get("oauth_signature"));
    if right { Ok(get("oauth_nonce").to_owned()) } else { Err("Invalid signature") }
}

pub(super) fn sign(method: &str, url: &str, parameters: Vec<(String, String)>, consumer: &str, token: &str) -> String {
    let enc = |text: &str| utf8_percent_encode(text, STRICT).to_string();
    let mut pairs: Vec<(String, String)> = parameters.iter().map(|(k, v)| (enc(k), enc(v))).collect();
    pairs.sort();
    let joined = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&");
    let base = format!("{method}&{}&{}", enc(&plain(url)), enc(&joined));
    let key =
        hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, format!("{}&{}", enc(consumer), enc(token)).as_bytes());
    STANDARD.encode(hmac::sign(&key, base.as_bytes()))
}

/// Without the default port, which is not signed.
fn plain(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = if scheme == "https" { ":443" } else { ":80" };
    format!("{scheme}://{}{path}", host.to_lowercase().trim_end_matches(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_signatures_of_the_platforms_page() {
        let photos = pairs(&[
            ("file", "vacation.jpg"),
            ("size", "original"),
            ("oauth_consumer_key", "dpf43f3p2l4k3l03"),
            ("oauth_token", "nnch734d00sl2jdk"),
            ("oauth_nonce", "kllo9940pd9333jh"),
            ("oauth_timestamp", "1191242096"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_version", "1.0"),
        ]);
        let (cs, ts) = ("kd94hf93k423kf44", "pfkkdhi9sl3r4s00");
        let url = "http://photos.example.net:80/photos";
        assert_eq!(sign("GET", url, photos, cs, ts), "tR3+Ty81lMeYAr/Fid0kMTYa/WM=");
        let post = pairs(&[
            ("status", "早安，上海！ 1+1"),
            ("source", "fabu"),
            ("oauth_consumer_key", "ck1"),
            ("oauth_token", "tk1"),
            ("oauth_nonce", "n1"),
            ("oauth_timestamp", "1700000000"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_version", "1.0"),
        ]);
        let url = "https://t.example.cn/api/statuses/update.json";
        assert_eq!(sign("POST", url, post, "cs1", "ts1"), "aBLY0gHJvFQH6pK+4bDPYiN3QMs=");
    }
}
