//! `api: tencent-weibo`: Tencent Weibo (`platforms.md` 2.1).
//!
//! Decides by `ret` and `errcode`, for HTTP says 200 to everything. Left to itself the platform cuts a
//! text and drops a picture without a word: `compatibleflag` makes each of these an error, and goes
//! with every post. Ids are in no order here, so a post is known by its time and the ids of others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::address::{Address, of_another, unreadable};
use super::reply::{Ask, Reply, code_of, exchange, sane_id, sane_url, text_of};
use super::{Call, Page, Picture, Platform, Post, Shown, Standing};
use crate::clock::from_micros;
use crate::core::accounts::AccountId;
use crate::core::delivery::{Class, Failure, Prepared, Receipt, Scope};
use crate::core::fit::{Counting, Rules};
use crate::core::policy::PlatformSettings;
use crate::core::timeline::Rest;
use crate::core::words::{Words, words};

/// How many records a look at the timeline asks for, of 70 it may.
const PAGE: usize = 20;
/// The bit that makes a text over the limit an error.
const STRICT_TEXT: u32 = 0x20;
/// The bits that make a picture's size, format and upload errors, besides the text's.
const STRICT_PICTURE: u32 = 0x2 | 0x4 | 0x8 | STRICT_TEXT;
/// First wait after "rate limited"; it doubles up to the window of an hour.
const LIMITED_S: u64 = 60;

pub struct TencentWeibo {
    settings: PlatformSettings,
    rules: Rules,
    /// How often in a row an account was told that it asks too much.
    limited: Mutex<BTreeMap<AccountId, u32>>,
}

impl TencentWeibo {
    pub fn new(settings: PlatformSettings) -> TencentWeibo {
        let rules = Rules {
            counting: Counting::Bytes { url: settings.number("url_weight").unwrap_or(11) as usize },
            limit: settings.number("text_limit").unwrap_or(420) as usize,
            images: 1,
            image_bytes: 4_000_000,
            image_kinds: &["png", "jpeg", "gif", "bmp", "ico"],
            image_url: 0,
            link_domain: None,
            commands: false,
            title: None,
        };
        TencentWeibo { settings, rules, limited: Mutex::default() }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/{path}", self.settings.base_url)
    }

    /// What every call carries; what is not configured is left out.
    fn common(&self, call: &Call<'_>) -> Vec<(String, String)> {
        let app_key = call.token.field("app_key").or_else(|| self.settings.text("app_key").map(str::to_owned));
        let openid = call.account.further.get("openid").cloned().or_else(|| call.token.field("openid"));
        let fields = [
            ("oauth_consumer_key", app_key),
            ("access_token", Some(call.token.field_or_line("access_token"))),
            ("openid", openid),
            ("clientip", self.settings.text("operator_ip").map(str::to_owned)),
            ("oauth_version", Some("2.a".to_owned())),
            ("scope", Some("all".to_owned())),
            ("format", Some("json".to_owned())),
        ];
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    fn read(&self, call: &Call<'_>, path: &str, more: &[(&str, String)]) -> Ask {
        let ask = Ask::get(self.url(path));
        let ask = self.common(call).into_iter().fold(ask, |ask, (key, value)| match key.as_str() {
            "access_token" => ask.secret_query(&key, value),
            _ => ask.query(&key, value),
        });
        more.iter().fold(ask, |ask, (key, value)| ask.query(key, value))
    }

    /// The newest posts, or those below one (`pageflag` 1: from its time and id downwards). Times are whole seconds, so
    /// a page begins within the second in which the last one ended.
    async fn page(&self, call: &Call<'_>, below: Option<&Shown>) -> Result<Page, Failure> {
        let (flag, id) = below.map_or(("0", "0"), |last| ("1", last.id.as_str()));
        let time = below.and_then(|last| last.created).map_or(0, |at| at.timestamp() + 1);
        let query = [
            ("pageflag", flag.to_owned()),
            ("pagetime", time.to_string()),
            ("reqnum", PAGE.to_string()),
            ("lastid", id.to_owned()),
            ("type", "0".to_owned()),
            ("contenttype", "0".to_owned()),
        ];
        let (reply, json) = self.ask(call, self.read(call, "statuses/broadcast_timeline", &query)).await?;
        let posts = records(&json).ok_or_else(|| reply.unclear(call))?;
        // Each says whether it is the account's own.
        let own = |record: &Value| code_of(record, "self") != Some(0) && is_accounts(call, record);
        let infos = json.get("data").and_then(|data| data.get("info")).and_then(Value::as_array);
        let foreign = (!infos.into_iter().flatten().all(own)).then(|| of_another_user(call));
        let skew = reply.skew(call);
        // `hasnext` is 0 where there is more, and 1 at the end.
        let hasnext = json.get("data").and_then(|data| code_of(data, "hasnext"));
        let rest = Rest::of(posts.len(), PAGE, hasnext == Some(0));
        Ok(Page { posts, rest, grows: false, skew, foreign })
    }

    /// Whether the platform shows the post.
    async fn stands(&self, call: &Call<'_>, id: &str) -> Result<bool, Failure> {
        match self.ask(call, self.read(call, "t/show", &[("id", id.to_owned())])).await {
            Ok((reply, json)) => {
                let (_, fate) = json.get("data").and_then(record).ok_or_else(|| reply.unclear(call))?;
                Ok(matches!(fate, Fate::Normal | Fate::Review))
            }
            Err(Refused { code: Some((4, 6 | 20)), .. }) => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }

    fn write(&self, call: &Call<'_>, more: Vec<(&str, String)>) -> Vec<(String, String)> {
        let mut fields = self.common(call);
        fields.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        fields
    }

    /// Sends, and gives the JSON of a success or the class of what was said instead.
    async fn ask(&self, call: &Call<'_>, ask: Ask) -> Result<(Reply, Value), Refused> {
        let reply = exchange(call, ask).await?;
        let Some(json) = reply.json.clone() else { return Err(reply.unclear(call).into()) };
        let Some(ret) = code_of(&json, "ret") else { return Err(reply.unclear(call).into()) };
        let errcode = code_of(&json, "errcode").unwrap_or(0);
        if ret != 0 {
            let repeats = self.count_limited(call, ret == 2);
            let failure = classify(call, &reply, ret, errcode, &text_of(&json, "msg").unwrap_or_default(), repeats);
            return Err(Refused { code: Some((ret, errcode)), failure });
        }
        if !reply.status.is_success() {
            return Err(reply.unclear(call).into());
        }
        self.count_limited(call, false);
        Ok((reply, json))
    }

    /// How often the account had been limited before, without an answer of another kind in between.
    fn count_limited(&self, call: &Call<'_>, limited: bool) -> u32 {
        let mut counts = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        if !limited {
            counts.remove(&call.account.id);
            return 0;
        }
        let count = counts.entry(call.account.id.clone()).or_insert(0);
        let before = *count;
        *count = before.saturating_add(1);
        before
    }
}

/// A refusal with the codes it was made of, for operations where a code means "done".
struct Refused {
    code: Option<(i64, i64)>,
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

/// What became of a listed post.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Normal,
    Review,
    DeletedBySystem,
    DeletedByUser,
}

fn record(record: &Value) -> Option<(Shown, Fate)> {
    let id = text_of(record, "id").and_then(sane_id)?;
    let fate = match code_of(record, "status").unwrap_or(0) {
        1 => Fate::DeletedBySystem,
        2 => Fate::Review,
        3 | 4 => Fate::DeletedByUser,
        _ => Fate::Normal,
    };
    let shown = Shown {
        url: Some(post_url(&id)),
        id,
        // `text` is rendered; `origtext` is as it was sent.
        text: text_of(record, "origtext").or_else(|| text_of(record, "text")).unwrap_or_default(),
        source: None,
        created: code_of(record, "timestamp").and_then(|s| s.checked_mul(1_000_000)).map(from_micros),
        truncated: false,
        key: None,
        author: None,
        shown: fate == Fate::Normal,
        gone: taken_away(&fate),
    };
    Some((shown, fate))
}

fn post_url(id: &str) -> String {
    format!("http://t.qq.com/p/t/{id}")
}

/// The records of a timeline; `None` when it cannot be read whole, for what is left out might be ours.
fn records(json: &Value) -> Option<Vec<Shown>> {
    let data = json.get("data")?;
    // An account without posts has no list at all.
    if data.is_null() || data.get("info").is_some_and(Value::is_null) {
        return Some(Vec::new());
    }
    data.get("info")?.as_array()?.iter().map(|info| record(info).map(|(shown, _)| shown)).collect()
}

#[async_trait]
impl Platform for TencentWeibo {
    fn settings(&self) -> &PlatformSettings {
        &self.settings
    }

    fn rules(&self) -> &Rules {
        &self.rules
    }

    fn calls_to_prepare(&self, pictures: usize) -> u32 {
        pictures.min(1) as u32
    }

    async fn check(&self, call: &Call<'_>) -> Result<Standing, Failure> {
        let (reply, json) = self.ask(call, self.read(call, "user/info", &[])).await?;
        let data = json.get("data").filter(|d| d.is_object()).ok_or_else(|| reply.unclear(call))?;
        match is_accounts(call, data) {
            true => Ok(Standing { uid: text_of(data, "openid"), expires: None }),
            false => Err(Failure::Credential(Scope::Account, of_another_user(call))),
        }
    }

    async fn prepare(&self, call: &Call<'_>, post: &Post) -> Result<Prepared, Failure> {
        let mut prepared = Prepared::new(post.text.clone(), post.key.clone());
        if let Some(picture) = post.pictures.first() {
            let fields = self.write(call, vec![("pic_type", "2".to_owned())]);
            let ask = Ask::post(self.url("t/upload_pic")).parts(fields, vec![("pic".to_owned(), picture.clone())]);
            let (reply, json) = self.ask(call, ask).await?;
            let url = json.get("data").and_then(|d| text_of(d, "imgurl"));
            prepared.media.push(sane_url(url).ok_or_else(|| reply.unclear(call))?);
        }
        Ok(prepared)
    }

    async fn publish(&self, call: &Call<'_>, post: &Prepared, _: &[Picture]) -> Result<Receipt, Failure> {
        let (path, flags) = match post.media.first() {
            Some(_) => ("t/add_pic_url", STRICT_PICTURE),
            None => ("t/add", STRICT_TEXT),
        };
        let mut more = vec![("content", post.text.clone()), ("compatibleflag", flags.to_string())];
        more.extend(post.media.first().map(|url| ("pic_url", url.clone())));
        let ask = Ask::post(self.url(path)).form(self.write(call, more)).visible();
        let mut receipt = Receipt {
            post_id: String::new(),
            url: None,
            accepted_at: call.clock.now(),
            shown: false,
            read_back: false,
            ticket: None,
        };
        let (reply, json) = match self.ask(call, ask).await {
            Ok(answer) => answer,
            // Taken, and its id was not told: it is looked for, never sent again.
            Err(Refused { code: Some((4, 0)), .. }) => {
                return Ok(Receipt { accepted_at: call.clock.now(), ..receipt });
            }
            Err(refused) => return Err(refused.into()),
        };
        let id = json.get("data").and_then(|d| text_of(d, "id")).and_then(sane_id);
        let id = id.ok_or_else(|| reply.unclear(call))?;
        receipt.url = Some(post_url(&id));
        receipt.post_id = id;
        receipt.shown = true;
        receipt.accepted_at = call.clock.now();
        Ok(receipt)
    }

    async fn newest(&self, call: &Call<'_>) -> Result<Page, Failure> {
        self.page(call, None).await
    }

    async fn below(&self, call: &Call<'_>, _: &Page, last: &Shown) -> Result<Option<Page>, Failure> {
        self.page(call, Some(last)).await.map(Some)
    }

    /// `http://t.qq.com/p/t/ID`.
    async fn locate(&self, call: &Call<'_>, url: &str) -> Result<Option<Shown>, Failure> {
        let address = Address::read(url)?;
        let id = match address.parts().as_slice() {
            ["p", "t", id] if address.host == "t.qq.com" || address.host.ends_with(".t.qq.com") => {
                sane_id((*id).to_owned())
            }
            _ => None,
        };
        let Some(id) = id else {
            return Err(unreadable(self.settings.name.as_str(), "http://t.qq.com/p/t/12345678901234"));
        };
        let (reply, json) = match self.ask(call, self.read(call, "t/show", &[("id", id)])).await {
            Ok(answer) => answer,
            Err(Refused { code: Some((4, 6 | 20)), .. }) => return Ok(None),
            Err(refused) => return Err(refused.into()),
        };
        let data = json.get("data").ok_or_else(|| reply.unclear(call))?;
        let (shown, fate) = record(data).ok_or_else(|| reply.unclear(call))?;
        if code_of(data, "self") != Some(1) {
            return Err(of_another(call.account.id.as_str()));
        }
        Ok(matches!(fate, Fate::Normal | Fate::Review).then_some(shown))
    }

    async fn delete(&self, call: &Call<'_>, receipt: &Receipt) -> Result<(), Failure> {
        let fields = self.write(call, vec![("id", receipt.post_id.clone())]);
        match self.ask(call, Ask::post(self.url("t/del")).form(fields)).await {
            Ok((_, json))
                if json.get("data").and_then(|data| text_of(data, "id")).as_ref() == Some(&receipt.post_id) =>
            {
                Ok(())
            }
            // It says something else than that this one was deleted.
            Ok((reply, _)) => match self.stands(call, &receipt.post_id).await? {
                true => Err(reply.unclear(call)),
                false => Ok(()),
            },
            // No such post of this account, or deleted before. Where nobody sees it, it is gone, which is what was wanted.
            Err(Refused { code: Some((4, 6 | 20)), failure }) => match self.stands(call, &receipt.post_id).await? {
                true => Err(Failure::Credential(Scope::Account, failure.words().clone())),
                false => Ok(()),
            },
            Err(refused) => Err(refused.into()),
        }
    }
}

/// Whether what the platform says of a user, or of a post's author, is this account, as far as that is configured.
fn is_accounts(call: &Call<'_>, said: &Value) -> bool {
    ["openid", "name"].iter().all(|key| {
        let own = call.account.further.get(*key);
        text_of(said, key).is_none_or(|said| own.is_none_or(|own| *own == said))
    })
}

fn of_another_user(call: &Call<'_>) -> Words {
    let id = &call.account.id;
    words!(
        "{id} 的密钥是别的用户的，与它的 openid 或 name 不符：核对密钥与 accounts.yaml",
        "the credential of {id} is another user's than its `openid` or `name` say: look at the secret and at accounts.yaml"
    )
}

fn taken_away(fate: &Fate) -> Option<(Class, Words)> {
    match fate {
        Fate::Normal | Fate::Review => None,
        Fate::DeletedBySystem => {
            Some((Class::Policy, Words::new("发布后被平台删除", "published, and then deleted by the platform")))
        }
        Fate::DeletedByUser => {
            Some((Class::Platform, Words::new("发布后被人删除", "published, and then deleted by a person")))
        }
    }
}

/// The class of each documented answer (`platforms.md` 2.1); what is not listed is not understood.
fn classify(call: &Call<'_>, reply: &Reply, ret: i64, errcode: i64, msg: &str, repeats: u32) -> Failure {
    let why = reply.quoted(call, format_args!("{ret}/{errcode}"), msg);
    let later = |seconds: u64, why| Failure::Later(Duration::from_secs(seconds), Scope::Account, why);
    match (ret, errcode) {
        (2, _) => later((LIMITED_S << repeats.min(6)).min(3600), why),
        (4, 10) => later(3, why),
        (3, 1 | 3 | 4 | 5 | 6 | 7 | 9 | 11) | (4, 5 | 14) | (6 | 7, _) => Failure::Credential(Scope::Account, why),
        // Authorisation runs before the post: nothing was made.
        (3, 8 | 10 | 12..=15) => Failure::NotSent(why),
        (4, 13) => Failure::Duplicate(why),
        (4, 4 | 9) => Failure::Refused(Class::Policy, why),
        (1 | 5, _) | (4, 6 | 8 | 11 | 12 | 20) => Failure::Refused(Class::Content, why),
        // Among them 3/2, a replay: the first copy may have run.
        _ => Failure::Unclear(why),
    }
}
