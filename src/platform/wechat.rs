//! `api: wechat`: official accounts (`platforms.md` 2.2).
//!
//! An article, not a post: pictures, cover and draft are made ahead, and `publish` is one small request.
//! Submitted is not published, so a receipt comes with a ticket to ask again with. There is no key, but a
//! draft leaves the draft box when it is submitted: after a submit of unknown outcome the draft decides.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::address::{Address, unreadable};
use super::reading::{MOST_PAGES, Purse};
use super::reply::{Ask, Reply, code_of, exchange, sane_id, sane_url, text_of};
use super::wechat_article::{Article, TITLE, article, content, digest, title};
use super::wechat_token::{Token, Tokens};
use super::{Call, Look, Page, Picture, Platform, Post, Shown, Standing, Wanted, wechat_mass};
use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::delivery::{Class, Failure, Prepared, Receipt, Scope};
use crate::core::fit::{Counting, Rules, urls};
use crate::core::likeness::same_text;
use crate::core::policy::PlatformSettings;
use crate::core::timeline::{self, Rest};
use crate::core::words::Words;

/// An author's name, in characters.
const AUTHOR: usize = 16;
/// The content may have 20 000 characters with its tags; the page also speaks of 2 kB, so it is kept short.
const TEXT: u64 = 10_000;
/// Articles listed at once, which is the most there is.
const PAGE: usize = 20;
/// Covers remembered; each is a picture in the library that need not be uploaded again.
const COVERS: usize = 1000;
/// A list by time is trusted this far below the send.
const BEFORE: TimeDelta = TimeDelta::seconds(120);

pub struct WeChat {
    pub(super) settings: PlatformSettings,
    rules: Rules,
    /// Pushed to all followers instead of put on the account's page.
    mass: bool,
    tokens: Tokens,
    /// Media ids by account and the picture's hash.
    covers: Mutex<BTreeMap<(AccountId, String), String>>,
}

impl WeChat {
    pub fn new(settings: PlatformSettings) -> WeChat {
        let rules = Rules {
            counting: Counting::Points { url: None },
            limit: settings.number("text_limit").unwrap_or(TEXT) as usize,
            images: 9,
            image_bytes: 1_000_000,
            image_kinds: &["png", "jpeg"],
            image_url: 0,
            link_domain: None,
            commands: false,
            title: Some(TITLE),
        };
        let mass = settings.text("publish") == Some("mass");
        WeChat { settings, rules, mass, tokens: Tokens::default(), covers: Mutex::default() }
    }

    /// Sends with the app's token, and gives the JSON of a success or the class of what was said instead.
    pub(super) async fn ask(&self, call: &Call<'_>, what: Asked<'_>) -> Result<(Reply, Value), Refused> {
        let token = match self.tokens.get(call, &self.settings.base_url).await {
            // Whatever became of that request, the one that publishes has not gone out.
            Err(Failure::Unclear(why)) => return Err(Failure::NotSent(why).into()),
            other => other?,
        };
        let url = format!("{}/cgi-bin/{}", self.settings.base_url, what.path);
        let ask = Ask::post(url).secret_query("access_token", &token.value);
        let ask = if what.dangerous { ask.visible() } else { ask };
        let reply = exchange(call, what.body.put(ask)).await?;
        let json = match &reply.json {
            Some(json) if reply.status.is_success() && json.is_object() => json.clone(),
            _ => return Err(reply.unclear(call).into()),
        };
        match code_of(&json, "errcode") {
            None if json.get("errcode").is_some() => Err(reply.unclear(call).into()),
            None | Some(0) => {
                self.tokens.worked(&token);
                Ok((reply, json))
            }
            Some(code) => Err(self.refused(call, &token, &reply, code, what.dangerous)),
        }
    }

    fn refused(&self, call: &Call<'_>, token: &Token, reply: &Reply, code: i64, dangerous: bool) -> Refused {
        let json = reply.json.clone().unwrap_or_default();
        let failure = classify(call, reply, code, dangerous);
        if matches!(code, 40001 | 40014 | 42001) {
            let failure = self.tokens.refused(token, failure.words().clone());
            return Refused { code: Some(code), json, failure };
        }
        self.tokens.worked(token);
        Refused { code: Some(code), json, failure }
    }

    fn covers(&self) -> MutexGuard<'_, BTreeMap<(AccountId, String), String>> {
        self.covers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first picture as a cover in the library, uploaded once.
    async fn cover(&self, call: &Call<'_>, picture: &Picture) -> Result<String, Failure> {
        let known = (call.account.id.clone(), picture.sha256.clone());
        if let Some(id) = self.covers().get(&known) {
            return Ok(id.clone());
        }
        let (reply, json) = self.ask(call, Asked::upload("material/add_material", picture, true)).await?;
        let id = text_of(&json, "media_id").and_then(sane_id).ok_or_else(|| reply.unclear(call))?;
        let mut covers = self.covers();
        if covers.len() >= COVERS {
            covers.clear();
        }
        covers.insert(known, id.clone());
        Ok(id)
    }

    /// Makes the draft; what is made twice is an orphan that nobody sees.
    async fn draft(&self, call: &Call<'_>, post: &Post, title: &str) -> Result<String, Failure> {
        let own = call.account.further.get("cover").filter(|id| !id.is_empty());
        let cover = match (own, post.pictures.first()) {
            (Some(id), _) => id.clone(),
            (None, Some(picture)) => self.cover(call, picture).await?,
            (None, None) => return Err(no_cover()),
        };
        let mut images = Vec::new();
        for picture in &post.pictures {
            let (reply, json) = self.ask(call, Asked::upload("media/uploadimg", picture, false)).await?;
            images.push(sane_url(text_of(&json, "url")).ok_or_else(|| reply.unclear(call))?);
        }
        let mut article = json!({
            "article_type": "news", "title": title, "digest": digest(&post.text),
            "content": content(&post.text, &images), "thumb_media_id": cover,
            "need_open_comment": 0, "only_fans_can_comment": 0,
        });
        let author = call.account.further.get("author").map(String::as_str).or(self.settings.text("author"));
        if let Some(author) = author {
            article["author"] = author.chars().take(AUTHOR).collect::<String>().into();
        }
        if let Some((_, link)) = urls(&post.text).find(|(_, url)| url.len() <= 1024) {
            article["content_source_url"] = link.into();
        }
        match self.ask(call, Asked::json("draft/add", json!({ "articles": [article] }))).await {
            Ok((reply, json)) => text_of(&json, "media_id").and_then(sane_id).ok_or_else(|| reply.unclear(call)),
            // Somebody has taken the cover out of the library: it is uploaded again next time.
            Err(refused) if refused.code == Some(40007) && own.is_none() => {
                self.covers().retain(|_, id| *id != cover);
                Err(Failure::NotSent(refused.failure.words().clone()))
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// How far a submitted publication has come.
    async fn poll(&self, call: &Call<'_>, publish_id: &str) -> Result<Look, Failure> {
        let (reply, json) = self.ask(call, Asked::json("freepublish/get", json!({ "publish_id": publish_id }))).await?;
        let turned = |class, zh: &str, en: &str| Ok(Look::TurnedDown(class, Words::new(zh, en)));
        match code_of(&json, "publish_status") {
            Some(0) => {}
            Some(1) => {
                return Ok(Look::Unproven(Words::new("已提交，尚未发布完成", "submitted, and not published yet")));
            }
            Some(2) => return turned(Class::Policy, "原创审核未通过", "the check for originality failed"),
            Some(3) => return turned(Class::Policy, "平台发布失败", "the platform failed to publish it"),
            Some(4) => return turned(Class::Policy, "平台审核未通过", "refused by the platform's review"),
            Some(5) => return turned(Class::Platform, "发布后被人删除", "published, and then deleted by a person"),
            Some(6) => return turned(Class::Policy, "发布后被平台封禁", "published, and then banned by the platform"),
            _ => return Err(reply.unclear(call)),
        }
        let id = text_of(&json, "article_id").and_then(sane_id).ok_or_else(|| reply.unclear(call))?;
        let url = json.pointer("/article_detail/item/0").and_then(|item| text_of(item, "article_url"));
        let ticket = Some(publish_id.to_owned());
        Ok(Look::Found(found(id, sane_url(url), call.clock.now(), ticket)))
    }

    /// Without a ticket: a draft still in the box was not submitted, and one that is gone was.
    async fn look(&self, call: &Call<'_>, wanted: &Wanted, purse: &dyn Purse) -> Result<Look, Failure> {
        let Some(draft) = wanted.media.first() else {
            return Ok(self.list(call, wanted, purse).await?.unwrap_or(Look::Absent));
        };
        match self.ask(call, Asked::json("draft/get", json!({ "media_id": draft }))).await {
            Ok((_, json)) if json.get("news_item").is_some() => return Ok(Look::Absent),
            Ok((reply, _)) => return Err(reply.unclear(call)),
            Err(refused) if refused.code == Some(40007) => {}
            Err(refused) => return Err(refused.into()),
        }
        let why = Words::new("草稿已提交，文章尚未列出", "the draft was submitted, and the article is not listed yet");
        Ok(self.list(call, wanted, purse).await?.unwrap_or(Look::Unproven(why)))
    }

    /// Looks for the article by title and digest; `None` when the list reaches back and does not have it.
    async fn list(&self, call: &Call<'_>, wanted: &Wanted, purse: &dyn Purse) -> Result<Option<Look>, Failure> {
        let (mut listed, mut page) = self.articles(call, 0).await?;
        let of_text = |text: &String| title(text);
        let title = wanted.title.clone().unwrap_or_else(|| of_text(&wanted.text));
        let digest = digest(&wanted.text);
        let skew = page.skew;
        let is_after = |a: &Article| a.made.is_none_or(|made| made - skew >= wanted.since - BEFORE);
        let is_ours = |a: &&Article| {
            is_after(a)
                && !a.deleted
                && !wanted.taken.contains(&a.id)
                && same_text(&title, &a.title, false)
                && a.digest.as_ref().is_none_or(|seen| same_text(&digest, seen, false))
        };
        let is_past = |listed: &[Article]| listed.last().is_some_and(|last| !is_after(last));
        for _ in 1..MOST_PAGES {
            let is_open = page.rest == Rest::Older && !is_past(&listed) && !listed.iter().any(|a| is_ours(&a));
            if !is_open || !purse.another().await {
                break;
            }
            // They are counted from the newest: where one has come or gone meanwhile, the two do not fit.
            let (below, older) = self.articles(call, listed.len() - 1).await?;
            if below.first().map(|a| &a.id) != listed.last().map(|a| &a.id) || below.len() < 2 {
                break;
            }
            page.extend(older);
            listed.extend(below.into_iter().skip(1));
        }
        // Of two the earliest after the send: a later one is another occurrence's.
        if let Some(a) = listed.iter().rfind(is_ours) {
            let made = a.made.map_or(wanted.since, |made| made - skew);
            return Ok(Some(Look::Found(found(a.id.clone(), a.url.clone(), made, None))));
        }
        let is_listed = |id: &String| listed.iter().any(|a| a.id == *id);
        let shows_known = wanted.standing.is_empty() || wanted.standing.iter().any(is_listed);
        let reaches_back = is_past(&listed) && page.rest != Rest::Any || page.rest == Rest::Nothing && shows_known;
        if !reaches_back {
            let why = Words::new("列表没有回溯到发送之前", "the list does not reach back past the send");
            return Ok(Some(Look::Unproven(why)));
        }
        // The list shows an article's title alone.
        let rivals = wanted.rivals.iter().map(of_text).collect();
        let titled = Wanted { text: title, rivals, above: None, ..wanted.clone() };
        let unaccounted: Vec<Shown> = timeline::unaccounted(&page, &titled).cloned().collect();
        Ok((!unaccounted.is_empty()).then_some(Look::Unaccounted(unaccounted)))
    }

    /// The articles that were published, the newest first, from the so many-th on.
    async fn articles(&self, call: &Call<'_>, offset: usize) -> Result<(Vec<Article>, Page), Failure> {
        let body = json!({ "offset": offset, "count": PAGE, "no_content": 1 });
        let (reply, json) = self.ask(call, Asked::json("freepublish/batchget", body)).await?;
        let items = json.get("item").and_then(Value::as_array).ok_or_else(|| reply.unclear(call))?;
        let listed: Option<Vec<Article>> = items.iter().map(article).collect();
        let listed = listed.ok_or_else(|| reply.unclear(call))?;
        let skew = reply.skew(call);
        let all = code_of(&json, "total_count").and_then(|n| usize::try_from(n).ok());
        let rest = Rest::of(listed.len(), PAGE, all.is_some_and(|all| all > offset + listed.len()));
        let posts = listed.iter().map(Article::shown).collect();
        Ok((listed, Page { posts, rest, grows: false, skew, foreign: None }))
    }
}

/// One request: where to, with what, and whether it makes something public.
pub(super) struct Asked<'a> {
    path: &'a str,
    body: Sent<'a>,
    dangerous: bool,
}

enum Sent<'a> {
    Json(Value),
    Picture(&'a Picture, bool),
}

impl<'a> Asked<'a> {
    pub fn json(path: &'a str, value: Value) -> Asked<'a> {
        Asked { path, body: Sent::Json(value), dangerous: false }
    }

    /// The request that can be seen: what is not understood of its answer may have run.
    pub fn publishing(path: &'a str, value: Value) -> Asked<'a> {
        Asked { dangerous: true, ..Asked::json(path, value) }
    }

    fn upload(path: &'a str, picture: &'a Picture, typed: bool) -> Asked<'a> {
        Asked { path, body: Sent::Picture(picture, typed), dangerous: false }
    }
}

impl Sent<'_> {
    fn put(self, ask: Ask) -> Ask {
        match self {
            Sent::Json(value) => ask.json(value),
            Sent::Picture(picture, typed) => {
                let ask = if typed { ask.query("type", "image") } else { ask };
                ask.parts(Vec::new(), vec![("media".to_owned(), picture.clone())])
            }
        }
    }
}

/// A refusal with its code, for operations where a code means "done", and what came with it.
pub(super) struct Refused {
    pub code: Option<i64>,
    pub json: Value,
    pub failure: Failure,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused { code: None, json: Value::Null, failure }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        refused.failure
    }
}

pub(super) fn found(post_id: String, url: Option<String>, accepted_at: Time, ticket: Option<String>) -> Receipt {
    Receipt { post_id, url, accepted_at, shown: true, read_back: true, ticket }
}

fn no_cover() -> Failure {
    let why = Words::new(
        "公众号文章必须有封面：给账号设 `cover:`（素材 media_id），或给公告加一张图片",
        "an article needs a cover: set `cover:` (a media_id of the library) for the account, or add a picture",
    );
    Failure::Refused(Class::Media, why)
}

#[async_trait]
impl Platform for WeChat {
    fn settings(&self) -> &PlatformSettings {
        &self.settings
    }

    fn rules(&self) -> &Rules {
        &self.rules
    }

    fn calls_to_prepare(&self, pictures: usize) -> u32 {
        // Draft, cover, and each picture within the article; the token is not the account's budget.
        1 + pictures as u32 + u32::from(pictures > 0)
    }

    async fn check(&self, call: &Call<'_>) -> Result<Standing, Failure> {
        self.tokens.renew(call, &self.settings.base_url).await?;
        let path = if self.mass { "message/mass/sendall" } else { "freepublish/submit" };
        let body = json!({ "cgi_path": format!("/cgi-bin/{path}") });
        match self.ask(call, Asked::json("openapi/quota/get", body)).await.map_err(Failure::from) {
            Err(failure @ (Failure::Credential(..) | Failure::NotSent(_))) => Err(failure),
            // A quota that cannot be read says nothing about the credential, which made a token.
            _ => Ok(Standing { uid: None, expires: None }),
        }
    }

    async fn prepare(&self, call: &Call<'_>, post: &Post) -> Result<Prepared, Failure> {
        let mut prepared = Prepared::new(post.text.clone(), post.key.clone());
        let plain = post.title.is_none() && post.pictures.is_empty() && !call.account.further.contains_key("cover");
        if self.mass && plain {
            return Ok(prepared);
        }
        let title = post.title.clone().unwrap_or_else(|| title(&post.text));
        prepared.media.push(self.draft(call, post, &title).await?);
        prepared.title = Some(title);
        Ok(prepared)
    }

    async fn publish(&self, call: &Call<'_>, post: &Prepared, _: &[Picture]) -> Result<Receipt, Failure> {
        if self.mass {
            return wechat_mass::push(self, call, post).await;
        }
        let Some(draft) = post.media.first() else {
            let why =
                Words::new("没有草稿：发布方式改动过，请重试", "there is no draft: `publish:` was changed; try again");
            return Err(Failure::Refused(Class::Platform, why));
        };
        let asked = Asked::publishing("freepublish/submit", json!({ "media_id": draft }));
        let (reply, json) = self.ask(call, asked).await?;
        let ticket = text_of(&json, "publish_id").and_then(sane_id).ok_or_else(|| reply.unclear(call))?;
        Ok(Receipt {
            post_id: String::new(),
            url: None,
            accepted_at: call.clock.now(),
            shown: false,
            read_back: false,
            ticket: Some(ticket),
        })
    }

    async fn find(&self, call: &Call<'_>, wanted: &Wanted, purse: &dyn Purse) -> Result<Option<Look>, Failure> {
        let look = match wanted.ticket.as_deref() {
            Some(ticket) if wechat_mass::is_ticket(ticket) => wechat_mass::status(self, call, ticket).await,
            Some(publish_id) => self.poll(call, publish_id).await,
            None if self.mass => Ok(wechat_mass::look(call, wanted)),
            None => self.look(call, wanted, purse).await,
        };
        look.map(Some)
    }

    async fn newest(&self, call: &Call<'_>) -> Result<Page, Failure> {
        if self.mass {
            let why = Words::new("平台不列出群发", "the platform lists nothing of what is pushed");
            return Err(Failure::Refused(Class::Platform, why));
        }
        self.articles(call, 0).await.map(|(_, page)| page)
    }

    async fn below(&self, call: &Call<'_>, read: &Page, last: &Shown) -> Result<Option<Page>, Failure> {
        // They are counted from the newest: where one was deleted meanwhile, another would be passed over.
        let (_, page) = self.articles(call, read.posts.len() - 1).await?;
        Ok(page.posts.first().is_some_and(|first| first.id == last.id).then_some(page))
    }

    /// `https://mp.weixin.qq.com/s/…`: an address that has no id in it, so it is looked for in the list.
    async fn locate(&self, call: &Call<'_>, url: &str) -> Result<Option<Shown>, Failure> {
        /// What names an article in the long form of its address.
        const KEYS: [&str; 4] = ["__biz", "mid", "idx", "sn"];
        let address = Address::read(url)?;
        if address.host != "mp.weixin.qq.com" || address.path.first().map(String::as_str) != Some("s") {
            let example = "https://mp.weixin.qq.com/s/Abc123";
            return Err(unreadable(self.settings.name.as_str(), example));
        }
        if self.mass {
            // Of a push the platform lists nothing: the address is all there is.
            let (id, text, url) = (String::new(), String::new(), sane_url(Some(url.trim().to_owned())));
            return Ok(Some(Shown {
                id,
                text,
                source: None,
                url,
                created: None,
                truncated: false,
                key: None,
                author: None,
                shown: true,
                gone: None,
            }));
        }
        let (listed, _) = self.articles(call, 0).await?;
        let is_there = |a: &&Article| {
            a.url.as_deref().and_then(|url| Address::read(url).ok()).is_some_and(|own| own.is_same(&address, &KEYS))
        };
        Ok(listed
            .iter()
            .find(is_there)
            .filter(|a| !a.deleted)
            .map(|a| Shown { text: a.digest.clone().unwrap_or_else(|| a.title.clone()), ..a.shown() }))
    }

    async fn delete(&self, call: &Call<'_>, receipt: &Receipt) -> Result<(), Failure> {
        if let Some(ticket) = receipt.ticket.as_deref().filter(|t| wechat_mass::is_ticket(t)) {
            return wechat_mass::take_back(self, call, ticket).await;
        }
        if receipt.post_id.is_empty() {
            let why = Words::new(
                "平台没有给出编号，请在公众平台后台删除",
                "the platform gave no id for it: delete it in the account's own back office",
            );
            return Err(Failure::Refused(Class::Platform, why));
        }
        let body = json!({ "article_id": receipt.post_id, "index": 0 });
        match self.ask(call, Asked::json("freepublish/delete", body)).await {
            Ok(_) => Ok(()),
            // No such article: it is gone, which is what was wanted.
            Err(refused) if refused.code == Some(53600) => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }
}

/// The class of each documented code (`platforms.md` 2.2). What is not listed may have run, if it publishes.
pub(super) fn classify(call: &Call<'_>, reply: &Reply, code: i64, dangerous: bool) -> Failure {
    let text = reply.json.as_ref().and_then(|json| text_of(json, "errmsg")).unwrap_or_default();
    let why = reply.quoted(call, code, &text);
    let later = |seconds, why| Failure::Later(Duration::from_secs(seconds), Scope::Account, why);
    match code {
        -1 if dangerous => Failure::Unclear(why),
        // A token that is refused was refused before execution; `Tokens` knows whether it is the second.
        -1 | 40001 | 40014 | 42001 => Failure::NotSent(why),
        40002 | 40013 | 40125 | 41001 | 41002 | 41004 => Failure::Credential(Scope::Account, why),
        40164 => Failure::Credential(Scope::Platform, why),
        40004..=40009 | 40137 | 45001 => Failure::Refused(Class::Media, why),
        40035 | 40038 | 43002 | 44002 | 44003 | 47001 => Failure::Refused(Class::Content, why),
        45002..=45005 | 45008 => Failure::Refused(Class::Content, why),
        45166 | 87014 => Failure::Refused(Class::Policy, why),
        45009 => later(until_midnight(call.clock.now()), why),
        45011 | 45066 | 9_500_002 => later(60, why),
        53501 => later(600, why),
        // No push is left for today: a person decides what to do about it.
        45028 | 45067 => Failure::Refused(Class::Content, why),
        48001 | 48004..=48006 | 50002 | 50005 | 61004 | 61007 => Failure::Credential(Scope::Account, why),
        53402 | 53503..=53505 | 61500 => Failure::Refused(Class::Content, why),
        _ if dangerous => Failure::Unclear(why),
        _ => Failure::Refused(Class::Content, why),
    }
}

/// Daily quotas begin anew at midnight in China.
fn until_midnight(now: Time) -> u64 {
    (86_400 - (now.timestamp() + 8 * 3600).rem_euclid(86_400)) as u64 + 1
}
