//! `api: statuses`: Twitter-1.x compatible, as GNU social speaks it (`platforms.md` 3.1).
//!
//! A text the site takes for a command is eaten and answered with 200 and the account's previous status.
//! So the id of an answer is believed only where its text is ours and its id is new. Messages may come
//! translated: codes and the HTTP status decide first, and words only where nothing else tells.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use serde_json::Value;

use super::address::{Address, of_another, unreadable};
use super::html::text_of_html;
use super::reply::{
    Ask, Reply, code_of, exchange, in_path, is_number, retry_after, ruby_date, sane_id, sane_url, text_of,
};
use super::statuses_auth::authorize;
use super::{Call, Page, Picture, Platform, Post, Shown, Standing, of_other, of_others, standing};
use crate::clock::{Mono, Time};
use crate::core::accounts::AccountId;
use crate::core::delivery::{Class, Failure, Prepared, Receipt, Scope};
use crate::core::fit::{Counting, Rules};
use crate::core::likeness::{resembles, same_letters, same_text, silently_cut};
use crate::core::policy::PlatformSettings;
use crate::core::timeline::{Rest, newer};
use crate::core::words::Words;

const PAGE: usize = 20;
/// A wait the site does not name.
const LATER_S: u64 = 600;
/// An answer's status made earlier than this before the send is not the one that was sent.
const BEFORE: TimeDelta = TimeDelta::seconds(120);
/// So long after a request an answer may still show what that one made: what it says is made in whole seconds.
const SHOWN_FOR: Duration = Duration::from_secs(5);
/// A signature is accepted within five minutes; a smaller difference of the clocks is left alone.
const SIGNABLE: TimeDelta = TimeDelta::seconds(60);

pub struct Statuses {
    settings: PlatformSettings,
    rules: Rules,
    known: Mutex<Known>,
}

/// What was learnt on the way.
struct Known {
    /// The newest id seen of each account.
    newest: BTreeMap<AccountId, String>,
    /// How far the site's clock is ahead of ours.
    skew: TimeDelta,
    posting: BTreeMap<AccountId, Posting>,
}

/// An account's requests that publish.
#[derive(Default)]
struct Posting {
    begun: u64,
    under_way: u32,
    ended: Option<Mono>,
}

/// One of them, from before it leaves until its answer was judged.
struct Turn<'a> {
    site: &'a Statuses,
    call: &'a Call<'a>,
    number: u64,
    is_first: bool,
}

impl<'a> Turn<'a> {
    fn of(site: &'a Statuses, call: &'a Call<'a>) -> Turn<'a> {
        let mut known = site.known();
        let posting = known.posting.entry(call.account.id.clone()).or_default();
        let has_settled = posting.ended.is_none_or(|at| call.clock.mono().0.saturating_sub(at.0) > SHOWN_FOR);
        let is_first = posting.under_way == 0 && has_settled;
        posting.begun += 1;
        posting.under_way += 1;
        Turn { site, call, number: posting.begun, is_first }
    }

    /// Whether no other request of the account can have made what its answer shows.
    fn is_alone(&self) -> bool {
        let begun = self.site.known().posting.get(&self.call.account.id).map(|posting| posting.begun);
        self.is_first && begun == Some(self.number)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(posting) = self.site.known().posting.get_mut(&self.call.account.id) {
            posting.under_way -= 1;
            posting.ended = Some(self.call.clock.mono());
        }
    }
}

impl Statuses {
    pub fn new(settings: PlatformSettings) -> Statuses {
        let weight = settings.number("url_weight").map(|w| w as usize);
        let limit = settings.number("text_limit").unwrap_or(140) as usize;
        let width = settings.text("count") == Some("width");
        let (counting, limit) = if width {
            (Counting::Weibo { url_half: weight.unwrap_or(20) }, limit * 2)
        } else {
            (Counting::Points { url: weight }, limit)
        };
        // GNU social puts the picture's address behind the text after a blank, and counts it; sites that
        // count as Sina does keep pictures apart from the text, as Sina does.
        let image_url =
            if width { 0 } else { 1 + weight.unwrap_or(settings.base_url.len() + "/attachment/12345678".len()) };
        let rules = Rules {
            counting,
            limit,
            images: 1,
            image_bytes: 5_000_000,
            image_kinds: &["png", "jpeg", "gif"],
            image_url,
            link_domain: None,
            commands: true,
            title: None,
        };
        let known = Known { newest: BTreeMap::new(), skew: TimeDelta::zero(), posting: BTreeMap::new() };
        Statuses { settings, rules, known: Mutex::new(known) }
    }

    fn url(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => format!("{}{path}", self.settings.base_url),
            false => format!("{}/api/{path}", self.settings.base_url),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends, and gives the JSON of a success or the class of what was said instead.
    async fn ask(&self, call: &Call<'_>, ask: Ask, picture: bool) -> Result<(Reply, Value), Refused> {
        let signed_with = self.known().skew;
        let ask = ask.header("accept-language", "en");
        let ask = authorize(call, self.settings.text("auth"), call.clock.now() + signed_with, ask);
        let reply = exchange(call, ask).await?;
        if let Some(date) = reply.date() {
            let skew = date - call.clock.now();
            self.known().skew = if skew.abs() > SIGNABLE { skew } else { TimeDelta::zero() };
        }
        if reply.status.is_success()
            && let Some(json) = reply.json.clone().filter(|json| !is_error(json))
        {
            return Ok((reply, json));
        }
        let failure = match classify(call, &reply, picture) {
            // The signature's time was wrong, and this answer's date has told the right one.
            Failure::Credential(_, why) if is_timestamp(&reply) && self.known().skew != signed_with => {
                Failure::NotSent(why)
            }
            failure => failure,
        };
        let status = Some(reply.status.as_u16()).filter(|_| is_recognised(&reply));
        Err(Refused { status, is_broken: reply.status.as_u16() == 500, failure })
    }

    fn shown(&self, status: &Value) -> Option<Shown> {
        let id = text_of(status, "id").or_else(|| text_of(status, "id_str")).and_then(sane_id)?;
        let text = text_of(status, "text");
        let html = || text_of(status, "statusnet_html").map(|html| text_of_html(&html));
        let truncated =
            status.get("truncated").is_some_and(|t| t.as_bool() == Some(true) || t.as_str() == Some("true"));
        Some(Shown {
            url: self.post_url(status, &id),
            id,
            text: text.or_else(html).unwrap_or_default(),
            source: None,
            created: text_of(status, "created_at").and_then(|t| ruby_date(&t)),
            truncated,
            key: None,
            author: status.get("user").and_then(|user| text_of(user, "id").or_else(|| text_of(user, "id_str"))),
            shown: true,
            gone: None,
        })
    }

    /// The id in an address that was made by the site's template.
    fn templated(&self, url: &str) -> Option<String> {
        let (before, after) = self.settings.text("post_url")?.split_once("{id}")?;
        // The account's name may stand before the id.
        let before = before.rsplit("{handle}").next().unwrap_or(before);
        let url = url.trim().split(['#', '?']).next().unwrap_or_default();
        let at = url.rfind(before).filter(|_| !before.is_empty())? + before.len();
        let id = url[at..].strip_suffix(after.split('?').next().unwrap_or_default())?;
        sane_id(id.trim_end_matches('/').to_owned())
    }

    /// The recent post of the account's that has this address.
    async fn listed_at(&self, call: &Call<'_>, address: &Address) -> Result<Shown, Failure> {
        let ask = Ask::get(self.url("statuses/user_timeline.json")).query("count", PAGE);
        let (_, json) = self.ask(call, ask, false).await?;
        let mut recent = json.as_array().into_iter().flatten().filter_map(|s| self.shown(s));
        let is_there = |post: &Shown| {
            let own = post.url.as_deref().and_then(|url| Address::read(url).ok());
            own.is_some_and(|own| own.is_same(address, &["id"]))
        };
        let example = format!("{}/notice/12345", self.settings.base_url);
        recent.find(is_there).ok_or_else(|| unreadable(self.settings.name.as_str(), &example))
    }

    fn post_url(&self, status: &Value, id: &str) -> Option<String> {
        if let Some(template) = self.settings.text("post_url") {
            let user = status.get("user").and_then(|u| text_of(u, "screen_name")).unwrap_or_default();
            return sane_url(Some(template.replace("{id}", id).replace("{handle}", &in_path(&user))));
        }
        let given = sane_url(text_of(status, "external_url")).or_else(|| sane_url(text_of(status, "uri")));
        given.or_else(|| Some(format!("{}/notice/{id}", self.settings.base_url)))
    }

    /// Whether an answer shows the post that was just sent, and not the one before it.
    /// `before` is the newest id known when the request began: two posts of one account may be under way at once. A site
    /// that was set up anew begins its ids again: there its time tells. Other words are the same post only where no other
    /// request can have made it.
    fn is_new(
        post: &Prepared,
        shown: &Shown,
        before: Option<&String>,
        (begun, skew, is_alone): (Time, TimeDelta, bool),
    ) -> bool {
        const SECOND: TimeDelta = TimeDelta::seconds(1);
        let mut known = [post.baseline.as_ref(), before].into_iter().flatten();
        let is_made_since = |slack| shown.created.map(|created| created - skew >= begun - slack);
        let is_new = known.clone().all(|known| may_follow(&shown.id, known)) && is_made_since(BEFORE) != Some(false);
        let is_anew = known.all(|known| *known != shown.id) && is_made_since(SECOND) == Some(true);
        let has_its_words = same_text(&post.text, &shown.text, shown.truncated)
            || silently_cut(&post.text, &shown.text)
            || same_letters(&post.text, &shown.text, shown.truncated);
        (is_new || is_anew) && has_its_words || is_anew && is_alone && resembles(&post.text, &shown.text)
    }

    /// Whether the site shows the post.
    async fn stands(&self, call: &Call<'_>, id: &str) -> Result<bool, Failure> {
        let ask = Ask::get(self.url(&format!("statuses/show/{}.json", in_path(id))));
        match self.ask(call, ask, false).await {
            Ok((reply, json)) => self.shown(&json).map(|_| true).ok_or_else(|| reply.unclear(call)),
            Err(refused) if matches!(refused.status, Some(404 | 410)) => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }

    /// The newest posts, or those below one: `max_id` is the newest id that may be listed.
    async fn page(&self, call: &Call<'_>, below: Option<&str>) -> Result<Page, Failure> {
        let mut ask = Ask::get(self.url("statuses/user_timeline.json")).query("count", PAGE);
        if let Some(below) = below {
            ask = ask.query("max_id", below);
        }
        let (reply, json) = self.ask(call, ask, false).await?;
        let statuses = json.as_array().ok_or_else(|| reply.unclear(call))?;
        // One that cannot be read might be ours: then nothing is proved by the others.
        let posts: Option<Vec<Shown>> = statuses.iter().map(|status| self.shown(status)).collect();
        let posts = posts.ok_or_else(|| reply.unclear(call))?;
        let foreign = of_others(call, &posts);
        let skew = reply.skew(call);
        let rest = Rest::of(posts.len(), PAGE, false);
        let grows = posts.iter().all(|post| is_number(&post.id));
        Ok(Page { posts, rest, grows, skew, foreign })
    }

    fn seen(&self, call: &Call<'_>, id: &str) {
        let mut known = self.known();
        let newest = known.newest.entry(call.account.id.clone()).or_default();
        if may_follow(id, newest) {
            *newest = id.to_owned();
        }
    }

    /// Whether pictures travel with the post: where a path or a part's name of the site's own is set.
    fn travels(&self) -> bool {
        self.settings.text("picture_path").is_some() || self.settings.text("picture_field").is_some()
    }
}

/// A refusal with its status, where the site said it in a shape that is known.
struct Refused {
    status: Option<u16>,
    /// The site's program has failed (500), in whatever shape.
    is_broken: bool,
    failure: Failure,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused { status: None, is_broken: false, failure }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        refused.failure
    }
}

#[async_trait]
impl Platform for Statuses {
    fn settings(&self) -> &PlatformSettings {
        &self.settings
    }

    fn rules(&self) -> &Rules {
        &self.rules
    }

    fn calls_to_prepare(&self, pictures: usize) -> u32 {
        if self.travels() { 0 } else { pictures.min(1) as u32 }
    }

    async fn check(&self, call: &Call<'_>) -> Result<Standing, Failure> {
        let (reply, user) = self.ask(call, Ask::get(self.url("account/verify_credentials.json")), false).await?;
        let uid = text_of(&user, "id").or_else(|| text_of(&user, "id_str")).and_then(sane_id);
        // A page of another kind with 200 says nothing about the credential.
        if uid.is_none() && text_of(&user, "screen_name").is_none() {
            return Err(reply.unclear(call));
        }
        standing(call, uid, None)
    }

    async fn prepare(&self, call: &Call<'_>, post: &Post) -> Result<Prepared, Failure> {
        let mut prepared = Prepared::new(post.text.clone(), post.key.clone());
        let Some(picture) = post.pictures.first() else { return Ok(prepared) };
        let travels = (picture.file.clone(), picture.sha256.clone());
        if self.travels() {
            prepared.attached.push(travels);
            return Ok(prepared);
        }
        let ask = Ask::post(self.url("media/upload.json"));
        match self.ask(call, ask.parts(Vec::new(), vec![("media".to_owned(), picture.clone())]), true).await {
            Ok((reply, json)) => {
                let id = text_of(&json, "media_id_string").or_else(|| text_of(&json, "media_id")).and_then(sane_id);
                prepared.media.push(id.ok_or_else(|| reply.unclear(call))?);
            }
            // An older site knows no upload ahead, and one of GNU social 2.0 on PHP 7.4 fails in it, before anything can be
            // seen: both take the picture with the post.
            Err(refused) if refused.status == Some(404) || refused.is_broken => prepared.attached.push(travels),
            Err(refused) => return Err(refused.into()),
        }
        Ok(prepared)
    }

    async fn publish(&self, call: &Call<'_>, post: &Prepared, pictures: &[Picture]) -> Result<Receipt, Failure> {
        let mut fields = vec![("status".to_owned(), post.text.clone()), ("source".to_owned(), "fabu".to_owned())];
        if !post.media.is_empty() {
            fields.push(("media_ids".to_owned(), post.media.join(",")));
        }
        let ask = match pictures.first() {
            Some(picture) => {
                let path = self.settings.text("picture_path").unwrap_or("statuses/update.json");
                let field = self.settings.text("picture_field").unwrap_or("media");
                Ask::post(self.url(path)).parts(fields, vec![(field.to_owned(), picture.clone())])
            }
            None => Ask::post(self.url("statuses/update.json")).form(fields),
        };
        let turn = Turn::of(self, call);
        let begun = call.clock.now();
        let before = self.known().newest.get(&call.account.id).cloned();
        let with_picture = !pictures.is_empty() || !post.media.is_empty();
        let (reply, json) = self.ask(call, ask.visible(), with_picture).await?;
        let skew = reply.skew(call);
        let Some(shown) = self.shown(&json) else { return Err(reply.unclear(call)) };
        if let Some(why) = of_other(call, shown.author.as_deref()) {
            return Err(Failure::Astray(why));
        }
        if !Self::is_new(post, &shown, before.as_ref(), (begun, skew, turn.is_alone())) {
            return Err(Failure::Unclear(Words::new(
                "平台回的是另一条，可能把文字当作指令了",
                "answered with another status; the text may have been taken for a command",
            )));
        }
        self.seen(call, &shown.id);
        Ok(Receipt {
            post_id: shown.id,
            url: shown.url,
            accepted_at: call.clock.now(),
            shown: true,
            read_back: false,
            ticket: None,
        })
    }

    async fn newest(&self, call: &Call<'_>) -> Result<Page, Failure> {
        let page = self.page(call, None).await?;
        if let Some(newest) = page.posts.first().filter(|_| page.foreign.is_none()) {
            self.seen(call, &newest.id);
        }
        Ok(page)
    }

    async fn below(&self, call: &Call<'_>, _: &Page, last: &Shown) -> Result<Option<Page>, Failure> {
        self.page(call, Some(&last.id)).await.map(Some)
    }

    /// `{base}/notice/ID`, the site's own template (`post_url`), or whatever address a recent post of the account's has.
    async fn locate(&self, call: &Call<'_>, url: &str) -> Result<Option<Shown>, Failure> {
        let address = Address::read(url)?;
        let named = match address.parts().as_slice() {
            [.., "notice" | "status" | "statuses" | "note", id] => sane_id((*id).to_owned()),
            _ => self.templated(url),
        };
        let Some(id) = named else { return self.listed_at(call, &address).await.map(Some) };
        let ask = Ask::get(self.url(&format!("statuses/show/{}.json", in_path(&id))));
        let (reply, json) = match self.ask(call, ask, false).await {
            Ok(answer) => answer,
            Err(refused) if matches!(refused.status, Some(404 | 410)) => return Ok(None),
            Err(refused) => return Err(refused.into()),
        };
        let shown = self.shown(&json).ok_or_else(|| reply.unclear(call))?;
        let (_, own) = self.ask(call, Ask::get(self.url("account/verify_credentials.json")), false).await?;
        let who = |user: &Value| text_of(user, "id").or_else(|| text_of(user, "id_str"));
        match (&shown.author, who(&own)) {
            (Some(author), Some(own)) if *author == own => Ok(Some(shown)),
            (Some(_), Some(_)) => Err(of_another(call.account.id.as_str())),
            _ => Err(reply.unclear(call)),
        }
    }

    async fn delete(&self, call: &Call<'_>, receipt: &Receipt) -> Result<(), Failure> {
        let ask = Ask::post(self.url(&format!("statuses/destroy/{}.json", in_path(&receipt.post_id))));
        let reply = match self.ask(call, ask, false).await {
            Ok((_, json)) if self.shown(&json).is_some_and(|shown| shown.id == receipt.post_id) => return Ok(()),
            // It says something else than that this one was deleted, or that there is no such thing as was asked for.
            Ok((reply, _)) => Some(reply),
            Err(refused) if matches!(refused.status, Some(404 | 410)) => None,
            Err(refused) => return Err(refused.into()),
        };
        match (self.stands(call, &receipt.post_id).await?, reply) {
            (false, _) => Ok(()),
            (true, Some(reply)) => Err(reply.unclear(call)),
            (true, None) => {
                let why = Words::new("平台说没有，而它还在", "the site knows of no such post to delete, and shows it");
                Err(Failure::Refused(Class::Platform, why))
            }
        }
    }
}

/// Whether the post of this id can be a later one: ids that are no numbers need not grow.
fn may_follow(id: &str, known: &str) -> bool {
    if is_number(id) && is_number(known) { newer(id, known) } else { id != known }
}

fn is_error(json: &Value) -> bool {
    json.get("error").is_some() || json.get("errors").is_some() || json.get("error_code").is_some()
}

/// An error in one of the three shapes; an HTML page with a fitting status is a proxy's, and proves nothing.
fn is_recognised(reply: &Reply) -> bool {
    reply.json.as_ref().is_some_and(is_error)
}

fn is_timestamp(reply: &Reply) -> bool {
    reply.json.as_ref().is_some_and(|json| read_error(json).1.contains("Timestamp refused"))
}

/// The code and the words of an error: the site's own shape, Sina's first one, or Twitter's.
fn read_error(json: &Value) -> (Option<i64>, String) {
    if let Some(first) = json.pointer("/errors/0") {
        return (code_of(first, "code"), text_of(first, "message").unwrap_or_default());
    }
    let text = text_of(json, "error").or_else(|| text_of(json, "errors")).unwrap_or_default();
    let code = text.split_once(':').and_then(|(code, _)| code.trim().parse().ok()).filter(|code| *code >= 40_000);
    (code, text)
}

/// The class of a refusal (`platforms.md` 3.1); what is not listed is not understood.
fn classify(call: &Call<'_>, reply: &Reply, picture: bool) -> Failure {
    let Some(json) = reply.json.as_ref().filter(|json| is_error(json)) else { return reply.unclear(call) };
    let (code, text) = read_error(json);
    let status = reply.status.as_u16();
    let why = reply.quoted(call, code.unwrap_or(status.into()), &text);
    let later = |why| Failure::Later(retry_after(reply, LATER_S), Scope::Account, why);
    match code {
        Some(40025 | 187) => return Failure::Duplicate(why),
        Some(40012 | 40013 | 186) => return Failure::Refused(Class::Content, why),
        Some(40008 | 40009 | 40045) => return Failure::Refused(Class::Media, why),
        Some(40076) => return Failure::Refused(Class::Policy, why),
        Some(40072 | 40100..=40199 | 32 | 89 | 226 | 326) => return Failure::Credential(Scope::Account, why),
        Some(88 | 185) => return later(why),
        _ => {}
    }
    let low = text.to_lowercase();
    match status {
        400 | 403 if low.contains("duplicate") => Failure::Duplicate(why),
        400 if low.contains("too fast") => later(why),
        420 | 429 => later(why),
        503 if reply.header("retry-after").is_some() => later(why),
        403 if low.contains("banned") => Failure::Refused(Class::Policy, why),
        401 | 403 => Failure::Credential(Scope::Account, why),
        413 | 415 if picture => Failure::Refused(Class::Media, why),
        400 | 404 | 406 | 413 | 415 | 422 => Failure::Refused(Class::Content, why),
        _ => Failure::Unclear(why),
    }
}
