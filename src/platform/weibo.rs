//! `api: weibo`: Sina's Open API v2 (`platforms.md` 1).
//!
//! Decides by `error_code`, never by the HTTP status: clients in the field see codes in any status,
//! 200 included. Ids are strings taken from `idstr` or `mid`; `id` may be rounded.

use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::address::{Address, of_another, unreadable};
use super::reply::{Ask, Reply, code_of, exchange, ruby_date, sane_id, text_of};
use super::{Call, Page, Picture, Platform, Post, Shown, Standing, of_other, of_others, standing};
use crate::clock::Time;
use crate::core::delivery::{Class, Failure, Prepared, Receipt, Scope};
use crate::core::fit::{Counting, Rules};
use crate::core::policy::PlatformSettings;
use crate::core::timeline::Rest;
use crate::core::words::{Words, words};

/// A user's own timeline lists the newest five, whatever `count` says.
const PAGE: usize = 5;

pub struct Weibo {
    settings: PlatformSettings,
    rules: Rules,
    mode: Mode,
    upload: String,
    biz: String,
}

/// Which of the posting interfaces the app was granted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Update,
    Share,
    Biz,
}

impl Weibo {
    pub fn new(settings: PlatformSettings) -> Weibo {
        let mode = match settings.text("mode") {
            Some("share") => Mode::Share,
            Some("biz") => Mode::Biz,
            _ => Mode::Update,
        };
        let rules = Rules {
            counting: Counting::Weibo { url_half: settings.number("url_weight").unwrap_or(20) as usize },
            limit: settings.number("text_limit").unwrap_or(140) as usize * 2,
            images: if mode == Mode::Share { 1 } else { 9 },
            image_bytes: 5_000_000,
            image_kinds: &["png", "jpeg", "gif"],
            image_url: 0,
            link_domain: settings.text("link_domain").filter(|_| mode == Mode::Share).map(str::to_owned),
            commands: false,
            title: None,
        };
        // The other hosts go with the live platform; elsewhere all is behind one address.
        let other = |key: &str, live: &str| match settings.text(key) {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None if settings.base_url == "https://api.weibo.com" => live.to_owned(),
            None => settings.base_url.clone(),
        };
        let (upload, biz) =
            (other("upload_url", "https://upload.api.weibo.com"), other("biz_url", "https://c.api.weibo.com"));
        Weibo { settings, rules, mode, upload, biz }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/2/{path}", self.settings.base_url)
    }

    fn signed(&self, call: &Call<'_>, ask: Ask) -> Ask {
        ask.secret_header("authorization", format!("OAuth2 {}", call.token.field_or_line("access_token")))
    }

    /// Sends, and gives the JSON of a success or the class of what was said instead.
    async fn ask(&self, call: &Call<'_>, ask: Ask) -> Result<(Reply, Value), Refused> {
        let reply = exchange(call, self.signed(call, ask)).await?;
        let Some(json) = reply.json.clone() else { return Err(reply.unclear(call).into()) };
        if let Some(code) = code_of(&json, "error_code") {
            return Err(Refused { code: Some(code), failure: classify(call, &reply, code, &json) });
        }
        if !reply.status.is_success() {
            return Err(reply.unclear(call).into());
        }
        Ok((reply, json))
    }

    fn fields(&self, post: &Prepared) -> Vec<(String, String)> {
        let mut fields = vec![("status".to_owned(), post.text.clone())];
        if self.mode != Mode::Share {
            fields.push(("annotations".to_owned(), json!([{ "fabu": post.key }]).to_string()));
        }
        if let Some(ip) = self.settings.text("operator_ip") {
            fields.push(("rip".to_owned(), ip.to_owned()));
        }
        fields
    }

    async fn stands(&self, call: &Call<'_>, id: &str) -> Result<bool, Failure> {
        match self.ask(call, Ask::get(self.url("statuses/show.json")).query("id", id)).await {
            Ok((reply, json)) => post_id(&json).map(|_| true).ok_or_else(|| reply.unclear(call)),
            Err(Refused { code: Some(20101), .. }) => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }

    fn status_url(&self, user: Option<&str>, mid: &str) -> Option<String> {
        Some(format!("https://weibo.com/{}/{}", user?, base62(mid)?))
    }

    fn shown(&self, call: &Call<'_>, status: &Value) -> Option<Shown> {
        let id = post_id(status)?;
        let key =
            status.get("annotations").and_then(Value::as_array).and_then(|a| a.iter().find_map(|a| text_of(a, "fabu")));
        let author = author_of(status);
        let url = self.status_url(author.as_deref().or(call.account.uid.as_deref()), &id);
        let truncated = ["truncated", "isLongText"].iter().any(|k| status.get(*k).is_some_and(is_true));
        Some(Shown {
            url,
            id,
            text: text_of(status, "text").unwrap_or_default(),
            source: None,
            created: text_of(status, "created_at").and_then(|t| ruby_date(&t)),
            truncated,
            key,
            author,
            shown: true,
            gone: None,
        })
    }
}

fn author_of(status: &Value) -> Option<String> {
    status.get("user").and_then(|user| text_of(user, "idstr").or_else(|| text_of(user, "id")))
}

/// A refusal with its code, for operations where a code means something else than "no".
struct Refused {
    code: Option<i64>,
    failure: Failure,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused { code: None, failure }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        refused.failure
    }
}

fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true) || value.as_str() == Some("true")
}

fn post_id(status: &Value) -> Option<String> {
    text_of(status, "idstr").or_else(|| text_of(status, "mid")).or_else(|| text_of(status, "id")).and_then(sane_id)
}

#[async_trait]
impl Platform for Weibo {
    fn settings(&self) -> &PlatformSettings {
        &self.settings
    }

    fn rules(&self) -> &Rules {
        &self.rules
    }

    fn calls_to_prepare(&self, pictures: usize) -> u32 {
        if pictures > 1 { pictures as u32 } else { 0 }
    }

    async fn check(&self, call: &Call<'_>) -> Result<Standing, Failure> {
        let token = call.token.field_or_line("access_token");
        let ask = Ask::post(format!("{}/oauth2/get_token_info", self.settings.base_url))
            .form(vec![("access_token".to_owned(), token)]);
        let (_, json) = self.ask(call, ask.credential()).await?;
        // An older page names the field `expires_in`.
        let left = code_of(&json, "expire_in").or_else(|| code_of(&json, "expires_in"));
        let expires = left.map(|s| call.clock.now() + TimeDelta::seconds(s.clamp(0, 10 * 366 * 86_400)));
        standing(call, text_of(&json, "uid"), expires)
    }

    async fn prepare(&self, call: &Call<'_>, post: &Post) -> Result<Prepared, Failure> {
        let mut prepared = Prepared::new(post.text.clone(), post.key.clone());
        match post.pictures.as_slice() {
            [] => {}
            // One picture travels with the post: `upload_pic` is for apps with more rights.
            [one] => prepared.attached.push((one.file.clone(), one.sha256.clone())),
            several => {
                for picture in several {
                    let ask = Ask::post(format!("{}/2/statuses/upload_pic.json", self.upload))
                        .parts(Vec::new(), vec![("pic".to_owned(), picture.clone())]);
                    let (reply, json) = self.ask(call, ask).await?;
                    prepared.media.push(text_of(&json, "pic_id").ok_or_else(|| reply.unclear(call))?);
                }
            }
        }
        Ok(prepared)
    }

    async fn publish(&self, call: &Call<'_>, post: &Prepared, pictures: &[Picture]) -> Result<Receipt, Failure> {
        let mut fields = self.fields(post);
        let name = match (self.mode, pictures.is_empty(), post.media.is_empty()) {
            (Mode::Share, ..) => "share",
            (_, false, _) => "upload",
            (_, true, false) => "upload_url_text",
            (_, true, true) => "update",
        };
        if !post.media.is_empty() {
            fields.push(("pic_id".to_owned(), post.media.join(",")));
        }
        let url = match (self.mode, name) {
            (Mode::Biz, name) => format!("{}/2/statuses/{name}/biz.json", self.biz),
            (_, "upload") => format!("{}/2/statuses/upload.json", self.upload),
            (_, name) => self.url(&format!("statuses/{name}.json")),
        };
        let ask = match pictures.first() {
            Some(picture) => Ask::post(url).parts(fields, vec![("pic".to_owned(), picture.clone())]),
            None => Ask::post(url).form(fields),
        };
        let (reply, json) = match self.ask(call, ask.visible()).await {
            Ok(answer) => answer,
            // Posted, and the servers are slow to show it: it is looked for, never sent again.
            Err(Refused { code: Some(20032), .. }) => {
                return Ok(Receipt {
                    post_id: String::new(),
                    url: None,
                    accepted_at: call.clock.now(),
                    shown: false,
                    read_back: false,
                    ticket: None,
                });
            }
            Err(refused) => return Err(refused.into()),
        };
        let Some(shown) = self.shown(call, &json) else { return Err(reply.unclear(call)) };
        if let Some(why) = of_other(call, shown.author.as_deref()) {
            return Err(Failure::Astray(why));
        }
        Ok(Receipt {
            post_id: shown.id,
            url: shown.url,
            accepted_at: call.clock.now(),
            shown: true,
            read_back: false,
            ticket: None,
        })
    }

    /// At most the newest few, whatever is asked for: there is nothing below them.
    async fn newest(&self, call: &Call<'_>) -> Result<Page, Failure> {
        let ask = Ask::get(self.url("statuses/user_timeline.json")).query("count", PAGE).query("page", 1);
        let (reply, json) = self.ask(call, ask).await?;
        let statuses = json.get("statuses").and_then(Value::as_array).ok_or_else(|| reply.unclear(call))?;
        // One that cannot be read might be ours: then nothing is proved by the others.
        let posts: Option<Vec<Shown>> = statuses.iter().map(|s| self.shown(call, s)).collect();
        let posts = posts.ok_or_else(|| reply.unclear(call))?;
        let foreign = of_others(call, &posts);
        let skew = reply.skew(call);
        // A full page proves nothing, whatever is said of it; and one that is not may still be five of many more.
        let all = code_of(&json, "total_number").and_then(|n| usize::try_from(n).ok());
        let rest = Rest::of(posts.len(), PAGE, all.is_some_and(|all| all > posts.len()));
        Ok(Page { posts, rest, grows: true, skew, foreign })
    }

    /// `https://weibo.com/UID/LETTERS`, `https://m.weibo.cn/detail/ID` and what comes between them.
    async fn locate(&self, call: &Call<'_>, url: &str) -> Result<Option<Shown>, Failure> {
        let address = Address::read(url)?;
        let example = "https://weibo.com/2539961154/z08AUBmUe";
        let is_ours = ["weibo.com", "weibo.cn"]
            .iter()
            .any(|host| address.host == *host || address.host.ends_with(&format!(".{host}")));
        let letters = match address.parts().as_slice() {
            ["detail" | "status" | "statuses", id] | [_, "status" | "statuses", id] => Some((*id).to_owned()),
            [uid, id] if uid.bytes().all(|b| b.is_ascii_digit()) || *uid == "u" => Some((*id).to_owned()),
            _ => None,
        };
        let id = letters.filter(|_| is_ours).and_then(|id| mid_of(&id));
        let Some(id) = id else { return Err(unreadable(self.settings.name.as_str(), example)) };
        let ask = Ask::get(self.url("statuses/show.json")).query("id", &id);
        let (reply, json) = match self.ask(call, ask).await {
            Ok(answer) => answer,
            Err(Refused { code: Some(20101), .. }) => return Ok(None),
            Err(refused) => return Err(refused.into()),
        };
        let shown = self.shown(call, &json).ok_or_else(|| reply.unclear(call))?;
        let own = match &call.account.uid {
            Some(uid) => Some(uid.clone()),
            None => self.check(call).await?.uid,
        };
        match (&shown.author, own) {
            (Some(author), Some(own)) if *author == own => Ok(Some(shown)),
            (Some(_), Some(_)) => Err(of_another(call.account.id.as_str())),
            _ => Err(reply.unclear(call)),
        }
    }

    async fn delete(&self, call: &Call<'_>, receipt: &Receipt) -> Result<(), Failure> {
        let ask = Ask::post(self.url("statuses/destroy.json")).form(vec![("id".to_owned(), receipt.post_id.clone())]);
        match self.ask(call, ask).await {
            Ok((_, json)) if post_id(&json).as_ref() == Some(&receipt.post_id) => Ok(()),
            // It says something else than that this one was deleted.
            Ok((reply, _)) => match self.stands(call, &receipt.post_id).await? {
                true => Err(reply.unclear(call)),
                false => Ok(()),
            },
            // No such post: it is gone, which is what was wanted.
            Err(Refused { code: Some(20101), .. }) => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }
}

/// The class of each documented code (`platforms.md` 1.4); what is not listed is not understood.
fn classify(call: &Call<'_>, reply: &Reply, code: i64, json: &Value) -> Failure {
    let text = text_of(json, "error").unwrap_or_default();
    let why = reply.quoted(call, code, &text);
    let later = |seconds, scope| Failure::Later(Duration::from_secs(seconds), scope, why.clone());
    match code {
        10001 | 10002 | 10003 | 10010 | 10011 | 21405 | 23201 => Failure::Unclear(why),
        10017 if text.contains("appkey not bind domain") => Failure::Credential(Scope::Platform, why),
        10007 | 10008 | 10012 | 10016 | 10017 | 10018 | 10020 | 10021 | 10025 => Failure::Refused(Class::Content, why),
        10004 | 10005 | 10006 | 10014 => Failure::Credential(Scope::Platform, why),
        10013 => Failure::Credential(Scope::Account, why),
        10009 => later(30, Scope::Platform),
        // The window turns at the full hour: asking sooner only costs.
        10022 => later(until_the_hour(call.clock.now()), Scope::Platform),
        10023 | 10024 => later(until_the_hour(call.clock.now()), Scope::Account),
        20003 | 20015 | 20031 | 20033 => Failure::Credential(Scope::Account, why),
        20005..=20007 => Failure::Refused(Class::Media, why),
        20008 | 20012 | 20013 | 20101 | 20102 | 20109 | 20112 | 20120 | 20121 | 21335 => {
            Failure::Refused(Class::Content, why)
        }
        20014 => Failure::NotSent(why),
        20016 => later(600, Scope::Account),
        20017 | 20019 | 20111 => Failure::Duplicate(why),
        20018 | 20020 | 20021 | 20104 | 21602 => Failure::Refused(Class::Policy, why),
        20022 | 20023 => later(600, Scope::Platform),
        20032 => later(60, Scope::Account),
        21320 | 21321 => Failure::Credential(Scope::Platform, why),
        21331 => later(60, Scope::Account),
        21301..=21330 | 21332 => Failure::Credential(Scope::Account, why),
        _ => Failure::Unclear(why),
    }
}

fn until_the_hour(now: Time) -> u64 {
    (3600 - now.timestamp().rem_euclid(3600)) as u64 + 1
}

const LETTERS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Sina's base 62 of a decimal id: groups of seven digits from the right, four letters each.
fn base62(mid: &str) -> Option<String> {
    if mid.is_empty() || !mid.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut groups = Vec::new();
    let mut rest = mid;
    while !rest.is_empty() {
        let (left, group) = rest.split_at(rest.len().saturating_sub(7));
        let mut number: u32 = group.parse().ok()?;
        let mut letters = Vec::new();
        while number > 0 || letters.is_empty() {
            letters.push(LETTERS[(number % 62) as usize]);
            number /= 62;
        }
        // Every group but the leftmost has four letters.
        while letters.len() < 4 && !left.is_empty() {
            letters.push(b'0');
        }
        letters.reverse();
        groups.push(String::from_utf8(letters).ok()?);
        rest = left;
    }
    groups.reverse();
    Some(groups.concat())
}

/// The id that an address means: its digits, or Sina's letters for them.
fn mid_of(text: &str) -> Option<String> {
    /// Ids have had so many digits since there were addresses of letters; letters are fewer.
    const DIGITS: usize = 13;
    if text.len() >= DIGITS && text.bytes().all(|b| b.is_ascii_digit()) {
        return sane_id(text.to_owned());
    }
    let mut groups = Vec::new();
    let mut rest = text;
    if rest.is_empty() || rest.len() > 16 || !rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    while !rest.is_empty() {
        let (left, group) = rest.split_at(rest.len().saturating_sub(4));
        let number =
            group.bytes().try_fold(0u64, |n, b| Some(n * 62 + LETTERS.iter().position(|l| *l == b)? as u64))?;
        groups.push(if left.is_empty() { number.to_string() } else { format!("{number:07}") });
        rest = left;
    }
    groups.reverse();
    sane_id(groups.concat())
}

/// What `check` says of an app nobody has stated to be audited: its posts reach test accounts only.
pub fn unaudited(settings: &PlatformSettings) -> Option<Words> {
    (settings.api == "weibo" && !settings.is_true("audited") && !settings.is_loopback()).then(|| {
        let name = &settings.name;
        words!(
            "{name}：应用未声明已通过审核（`audited: true`）；未审核应用的微博公众看不到",
            "{name}: the app is not stated to be audited (`audited: true`); the public does not see an unaudited app's posts"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `platforms.md` 1.3.
    #[test]
    fn ids_become_the_letters_of_public_addresses() {
        for (mid, letters) in [
            ("4331051486294436", "Hd1N2qpta"),
            ("3512191498379699", "z579Hz9Wr"),
            ("4404101091169383", "I1IGF4Ud1"),
            ("3504803600502730", "z20XK26My"),
            ("3500330408906190", "z08AUBmUe"),
            ("4000000000000001", "E00000001"),
        ] {
            assert_eq!(base62(mid).as_deref(), Some(letters), "{mid}");
            assert_eq!(mid_of(letters).as_deref(), Some(mid), "{letters}");
            assert_eq!(mid_of(mid).as_deref(), Some(mid), "an id stands for itself");
        }
        assert_eq!(base62("../x"), None);
    }

    proptest::proptest! {
        #[test]
        fn an_id_comes_back_from_its_letters(id in 1u64..) {
            proptest::prop_assert_eq!(mid_of(&base62(&id.to_string()).unwrap()), Some(id.to_string()));
        }
    }
}
