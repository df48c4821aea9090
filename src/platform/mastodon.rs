//! `api: mastodon` (`platforms.md` 3.2).
//!
//! The delivery's key goes with every post as `Idempotency-Key`, so the same request sent again within an
//! hour gives the same status. It must not overlap itself: most versions keep the key only after the post
//! is made, and would post twice.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use serde_json::Value;

use super::address::{Address, of_another, unreadable};
use super::html::text_of_html;
use super::reply::{Ask, Reply, exchange, in_path, is_number, sane_id, sane_url, text_of};
use super::{Call, Page, Picture, Platform, Post, Shown, Standing, of_other, of_others, standing};
use crate::clock::from_micros;
use crate::core::accounts::AccountId;
use crate::core::delivery::{Class, Failure, Prepared, Receipt, Scope};
use crate::core::fit::{Counting, Rules};
use crate::core::policy::PlatformSettings;
use crate::core::timeline::Rest;
use crate::core::words::Words;

const PAGE: usize = 40;
/// A wait the server does not name: its window is five minutes.
const LATER_S: i64 = 300;
/// Of a refusal without JSON so many characters are kept.
const MOST_SAID: usize = 200;
/// A picture still being worked on is asked for this often, about so many seconds apart.
const LOOKS: u32 = 10;
const BETWEEN: Duration = Duration::from_secs(3);

pub struct Mastodon {
    settings: PlatformSettings,
    rules: Rules,
    /// Account ids as the server told them.
    ids: Mutex<BTreeMap<AccountId, String>>,
}

impl Mastodon {
    pub fn new(settings: PlatformSettings) -> Mastodon {
        let rules = Rules {
            counting: Counting::Graphemes { url: settings.number("url_weight").unwrap_or(23) as usize },
            limit: settings.number("text_limit").unwrap_or(500) as usize,
            images: 4,
            image_bytes: 16_777_216,
            image_kinds: &["png", "jpeg", "gif", "webp"],
            image_url: 0,
            link_domain: None,
            commands: false,
            title: None,
        };
        Mastodon { settings, rules, ids: Mutex::default() }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/{path}", self.settings.base_url)
    }

    /// Sends, and gives the JSON of a success or the class of what was said instead.
    async fn ask(&self, call: &Call<'_>, ask: Ask, picture: bool) -> Result<(Reply, Value), Refused> {
        let token = ["access_token", "bearer"].iter().find_map(|name| call.token.field(name));
        let token = token.unwrap_or_else(|| call.token.expose().to_owned());
        let reply = exchange(call, ask.secret_header("authorization", format!("Bearer {token}"))).await?;
        let is_error = reply.json.as_ref().is_none_or(|json| json.get("error").is_some());
        match &reply.json {
            Some(json) if reply.status.is_success() && !is_error => {
                let json = json.clone();
                Ok((reply, json))
            }
            Some(json) if is_error && !reply.status.is_success() => {
                let failure = classify(call, &reply, json, picture);
                Err(Refused { status: Some(reply.status.as_u16()), is_bare: false, failure })
            }
            None => Err(bare(call, &reply)),
            // An error that calls itself a success, or a success that calls itself an error.
            Some(_) => Err(reply.unclear(call).into()),
        }
    }

    /// Whether anybody can see the post.
    async fn stands(&self, call: &Call<'_>, id: &str) -> Result<bool, Failure> {
        let ask = Ask::get(self.url(&format!("v1/statuses/{}", in_path(id))));
        match self.ask(call, ask, false).await {
            Ok(_) => Ok(true),
            // A page that says so may be a proxy's, which knows nothing of posts: then the server has to be there.
            Err(refused) if refused.status == Some(404) && refused.is_bare => self.verify(call).await.map(|_| false),
            Err(refused) if refused.status == Some(404) => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }

    /// The account's id on the server, asked for once.
    async fn id(&self, call: &Call<'_>) -> Result<String, Failure> {
        let learnt = || self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(&call.account.id).cloned();
        let given = call.account.further.get("id").or(call.account.uid.as_ref()).cloned();
        let known = given.or_else(learnt);
        match known {
            Some(id) => Ok(id),
            None => self.verify(call).await,
        }
    }

    async fn verify(&self, call: &Call<'_>) -> Result<String, Failure> {
        let (reply, account) = self.ask(call, Ask::get(self.url("v1/accounts/verify_credentials")), false).await?;
        let id = text_of(&account, "id").and_then(sane_id).ok_or_else(|| reply.unclear(call))?;
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(call.account.id.clone(), id.clone());
        Ok(id)
    }

    /// The newest posts, or those below one.
    async fn page(&self, call: &Call<'_>, below: Option<&str>) -> Result<Page, Failure> {
        let id = self.id(call).await?;
        let mut ask = Ask::get(self.url(&format!("v1/accounts/{}/statuses", in_path(&id))))
            .query("limit", PAGE)
            .query("exclude_reblogs", true);
        if let Some(below) = below {
            ask = ask.query("max_id", below);
        }
        let (reply, json) = self.ask(call, ask, false).await?;
        let statuses = json.as_array().ok_or_else(|| reply.unclear(call))?;
        // One that cannot be read might be ours: then nothing is proved by the others.
        let posts: Option<Vec<Shown>> = statuses.iter().map(shown).collect();
        let posts = posts.ok_or_else(|| reply.unclear(call))?;
        let skew = reply.skew(call);
        let has_next = reply.header("link").is_some_and(|link| link.contains("rel=\"next\""));
        // Boosts are left out of a page after it was filled: a short one with a next one is an ordinary page.
        let rest = if has_next { Rest::Older } else { Rest::of(posts.len(), PAGE, false) };
        let foreign = of_others(call, &posts);
        // Mastodon's own ids grow; those of others are a second and a hash, or a time in letters.
        let grows = posts.iter().all(|post| is_number(&post.id));
        Ok(Page { posts, rest, grows, skew, foreign })
    }

    /// Uploads a picture and waits until the server has worked it through.
    async fn upload(&self, call: &Call<'_>, picture: &Picture) -> Result<String, Failure> {
        let fields = picture.alt.iter().map(|alt| ("description".to_owned(), alt.clone())).collect();
        let ask = Ask::post(self.url("v2/media")).parts(fields, vec![("file".to_owned(), picture.clone())]);
        let (mut reply, media) = self.ask(call, ask, true).await?;
        let id = text_of(&media, "id").and_then(sane_id).ok_or_else(|| reply.unclear(call))?;
        let url = self.url(&format!("v1/media/{}", in_path(&id)));
        for _ in 0..LOOKS {
            match reply.status.as_u16() {
                200 => return Ok(id),
                202 | 206 => call.clock.sleep(BETWEEN).await,
                _ => return Err(reply.unclear(call)),
            }
            (reply, _) = self.ask(call, Ask::get(url.as_str()), true).await?;
        }
        if reply.status == 200 {
            return Ok(id);
        }
        let why = Words::new("图片还在平台处理中", "the server is still working on the picture");
        Err(Failure::Later(Duration::from_secs(5), Scope::Account, why))
    }
}

/// A refusal with its status: said in the server's own shape, or by nothing but the status.
struct Refused {
    status: Option<u16>,
    is_bare: bool,
    failure: Failure,
}

/// The refusals of other servers of this API that come without JSON (snac, GoToSocial, Takahe): in a page, a line, or not at
/// all. Each of these is said before anything is made.
fn bare(call: &Call<'_>, reply: &Reply) -> Refused {
    let text = String::from_utf8_lossy(&reply.body);
    let low = text.to_lowercase();
    let status = reply.status.as_u16();
    let why = || reply.quoted(call, status, text_of_html(&text).chars().take(MOST_SAID).collect::<String>().trim());
    let failure = match status {
        401 | 422 if text.trim().is_empty() => Failure::Credential(Scope::Account, why()),
        400 | 401 if says_bad_token(&low) => Failure::Credential(Scope::Account, why()),
        400 if says_too_long(&low) => Failure::Refused(Class::Content, why()),
        _ => reply.unclear(call),
    };
    Refused { status: Some(status), is_bare: true, failure }
}

fn says_bad_token(low: &str) -> bool {
    low.contains("invalid") && low.contains("token")
}

fn says_too_long(low: &str) -> bool {
    low.contains("too long") || low.contains("exceeds") || low.contains("character limit")
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused { status: None, is_bare: false, failure }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        refused.failure
    }
}

fn shown(status: &Value) -> Option<Shown> {
    let created = text_of(status, "created_at").and_then(|t| DateTime::parse_from_rfc3339(&t).ok());
    Some(Shown {
        id: text_of(status, "id").and_then(sane_id)?,
        text: text_of_html(status.get("content")?.as_str()?),
        // Some servers send the plain text along.
        source: text_of(status, "text")
            .or_else(|| status.pointer("/pleroma/content").and_then(|c| text_of(c, "text/plain"))),
        url: sane_url(text_of(status, "url")).or_else(|| sane_url(text_of(status, "uri"))),
        created: created.map(|at| from_micros(at.timestamp_micros())),
        truncated: false,
        key: None,
        author: status.get("account").and_then(|account| text_of(account, "id")),
        shown: true,
        gone: None,
    })
}

#[async_trait]
impl Platform for Mastodon {
    fn settings(&self) -> &PlatformSettings {
        &self.settings
    }

    fn rules(&self) -> &Rules {
        &self.rules
    }

    fn calls_to_prepare(&self, pictures: usize) -> u32 {
        // Each is uploaded, and as a rule asked for once.
        pictures as u32 * 2
    }

    async fn check(&self, call: &Call<'_>) -> Result<Standing, Failure> {
        standing(call, Some(self.verify(call).await?), None)
    }

    async fn prepare(&self, call: &Call<'_>, post: &Post) -> Result<Prepared, Failure> {
        let mut media = Vec::new();
        for picture in &post.pictures {
            media.push(self.upload(call, picture).await?);
        }
        Ok(Prepared { media, ..Prepared::new(post.text.clone(), post.key.clone()) })
    }

    async fn publish(&self, call: &Call<'_>, post: &Prepared, _: &[Picture]) -> Result<Receipt, Failure> {
        let mut fields = vec![("status".to_owned(), post.text.clone())];
        fields.extend(post.media.iter().map(|id| ("media_ids[]".to_owned(), id.clone())));
        for key in ["visibility", "language"] {
            fields.extend(self.settings.text(key).map(|value| (key.to_owned(), value.to_owned())));
        }
        let ask =
            Ask::post(self.url("v1/statuses")).form(fields).header("idempotency-key", post.key.as_str()).visible();
        let (reply, json) = self.ask(call, ask, false).await?;
        let Some(shown) = shown(&json) else { return Err(reply.unclear(call)) };
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

    async fn newest(&self, call: &Call<'_>) -> Result<Page, Failure> {
        self.page(call, None).await
    }

    async fn below(&self, call: &Call<'_>, _: &Page, last: &Shown) -> Result<Option<Page>, Failure> {
        self.page(call, Some(&last.id)).await.map(Some)
    }

    async fn source(&self, call: &Call<'_>, post: &Shown) -> Result<Option<String>, Failure> {
        let ask = Ask::get(self.url(&format!("v1/statuses/{}/source", in_path(&post.id))));
        match self.ask(call, ask, false).await {
            Ok((_, json)) => Ok(text_of(&json, "text")),
            // Not every server keeps it.
            Err(refused) if refused.status.is_some() => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    /// `https://host/@name/ID`, `…/users/name/statuses/ID`, and the same behind `web` or `deck`.
    async fn locate(&self, call: &Call<'_>, url: &str) -> Result<Option<Shown>, Failure> {
        let address = Address::read(url)?;
        let id = match address.parts().as_slice() {
            [.., "statuses", id] => Some(*id),
            [.., name, id] if name.starts_with('@') => Some(*id),
            _ => None,
        };
        let id = id.and_then(|id| sane_id(id.to_owned()));
        let example = format!("{}/@shanghaifabu/115123456789012345", self.settings.base_url);
        let Some(id) = id else { return Err(unreadable(self.settings.name.as_str(), &example)) };
        let ask = Ask::get(self.url(&format!("v1/statuses/{}", in_path(&id))));
        let (reply, json) = match self.ask(call, ask, false).await {
            Ok(answer) => answer,
            Err(refused) if refused.status == Some(404) => return Ok(None),
            Err(refused) => return Err(refused.into()),
        };
        let own = self.verify(call).await?;
        let author = json.get("account").and_then(|account| text_of(account, "id"));
        match author {
            Some(author) if author == own => Ok(Some(shown(&json).ok_or_else(|| reply.unclear(call))?)),
            Some(_) => Err(of_another(call.account.id.as_str())),
            None => Err(reply.unclear(call)),
        }
    }

    async fn delete(&self, call: &Call<'_>, receipt: &Receipt) -> Result<(), Failure> {
        let ask = Ask::delete(self.url(&format!("v1/statuses/{}", in_path(&receipt.post_id))));
        match self.ask(call, ask, false).await {
            Ok((_, json)) if text_of(&json, "id").as_ref() == Some(&receipt.post_id) => Ok(()),
            // It says something else than that this one was deleted.
            Ok((reply, _)) => match self.stands(call, &receipt.post_id).await? {
                false => Ok(()),
                true => Err(reply.unclear(call)),
            },
            // So is one that is another account's. No such status at all: it is gone, which is what was wanted.
            Err(refused) if refused.status == Some(404) => match self.stands(call, &receipt.post_id).await? {
                false => Ok(()),
                true => Err(Failure::Credential(Scope::Account, refused.failure.words().clone())),
            },
            Err(refused) => Err(refused.into()),
        }
    }
}

/// The class of a refusal (`platforms.md` 3.2); what is not listed is not understood.
fn classify(call: &Call<'_>, reply: &Reply, json: &Value, picture: bool) -> Failure {
    let text = text_of(json, "error").unwrap_or_default();
    let more = text_of(json, "error_description").unwrap_or_default();
    let status = reply.status.as_u16();
    let why = reply.quoted(call, status, format!("{text} {more}").trim());
    let low = text.to_lowercase();
    match status {
        401 | 403 => Failure::Credential(Scope::Account, why),
        400 if says_bad_token(&low) => Failure::Credential(Scope::Account, why),
        400 if says_too_long(&low) => Failure::Refused(Class::Content, why),
        422 if text.contains("not finished processing") => Failure::Later(Duration::from_secs(5), Scope::Account, why),
        413 | 415 | 422 if picture => Failure::Refused(Class::Media, why),
        422 => Failure::Refused(Class::Content, why),
        429 => Failure::Later(until_reset(call, reply), Scope::Account, why),
        _ => Failure::Unclear(why),
    }
}

/// `X-RateLimit-Reset` is an instant by the server's clock; a wait is bounded whatever it says.
fn until_reset(call: &Call<'_>, reply: &Reply) -> Duration {
    let now = reply.date().unwrap_or_else(|| call.clock.now());
    let reset = reply.header("x-ratelimit-reset").and_then(|t| DateTime::parse_from_rfc3339(t.trim()).ok());
    let seconds = reset.map(|at| (at.to_utc() - now).num_seconds() + 1).filter(|s| *s > 0).unwrap_or(LATER_S);
    Duration::from_secs(seconds.clamp(1, 3600).unsigned_abs())
}
