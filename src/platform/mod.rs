//! How to speak each `api`: the trait, what a call carries, and the list of dialects.
//!
//! An adapter says what happened, the core says what follows. `publish` is the one request that makes
//! a post visible; whatever can be done earlier belongs in `prepare`. Each adapter keeps its table of
//! error codes beside its requests: a code's class is found in the file named after the `api`.

mod address;
mod html;
pub mod http;
pub mod mastodon;
pub mod reading;
pub mod reply;
pub mod statuses;
pub mod statuses_auth;
pub mod tencent_weibo;
pub mod wechat;
mod wechat_article;
mod wechat_mass;
mod wechat_token;
pub mod weibo;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::{Clock, Time};
use crate::core::accounts::{Account, Secret};
use crate::core::delivery::{Failure, Prepared, Receipt, Scope};
use crate::core::fit::Rules;
use crate::core::policy::PlatformSettings;
use crate::core::timeline::Page;
pub use crate::core::timeline::{Look, Shown, Wanted};
use crate::core::words::{Words, shown, words};
pub use http::{Http, Lane, Lost, Permit, Room};
use reading::Purse;

/// What one operation needs besides its subject.
pub struct Call<'a> {
    pub http: &'a dyn Http,
    /// The way for the one request of `publish` that can be seen: it waits there for its instant, and for its permit.
    /// Whatever comes before it (a token, an upload) goes by `http`.
    pub barrier: Option<&'a dyn Http>,
    pub clock: &'a Clock,
    pub lane: Lane,
    pub account: &'a Account,
    pub token: &'a Secret,
    /// Bound on the whole exchange.
    pub timeout: Duration,
}

/// What is to be posted, before the platform has seen any of it.
pub struct Post {
    /// Fitted: link added, trimmed, within the platform's rules.
    pub text: String,
    pub title: Option<String>,
    pub pictures: Vec<Picture>,
    /// Stable over all attempts of one delivery; platforms that keep a key keep this one.
    pub key: String,
}

/// A picture as it was signed off.
#[derive(Clone)]
pub struct Picture {
    pub file: String,
    pub alt: Option<String>,
    pub sha256: String,
    pub kind: String,
    pub bytes: Bytes,
}

/// Whether a credential works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The account's id on the platform, where the check tells it.
    pub uid: Option<String>,
    pub expires: Option<Time>,
}

/// Why a credential, or a post it has made or reads as its own, is not this account's: the platform names another user
/// than the account's `uid`.
pub fn of_other(call: &Call<'_>, user: Option<&str>) -> Option<Words> {
    let (own, user) = (call.account.uid.as_deref()?, user?);
    let (id, user) = (&call.account.id, shown(&user.chars().take(40).collect::<String>()));
    (own != user).then(|| {
        words!(
            "{id} 的密钥是用户 {user} 的，而它的 uid 是 {own}：核对密钥与 accounts.yaml",
            "the credential of {id} is that of user {user}, and its `uid` is {own}: look at the secret and at accounts.yaml"
        )
    })
}

/// The same of a timeline that is to be the account's own.
pub fn of_others(call: &Call<'_>, posts: &[Shown]) -> Option<Words> {
    posts.iter().find_map(|post| of_other(call, post.author.as_deref()))
}

/// The standing of a credential that was checked; one of another user is bad.
pub fn standing(call: &Call<'_>, uid: Option<String>, expires: Option<Time>) -> Result<Standing, Failure> {
    match of_other(call, uid.as_deref()) {
        Some(why) => Err(Failure::Credential(Scope::Account, why)),
        None => Ok(Standing { uid, expires }),
    }
}

/// One dialect, set up for one platform of the configuration.
#[async_trait]
pub trait Platform: Send + Sync {
    fn settings(&self) -> &PlatformSettings;
    fn rules(&self) -> &Rules;
    /// How many calls of the account's budget `prepare` makes for a post with this many pictures.
    fn calls_to_prepare(&self, pictures: usize) -> u32;
    /// Is the credential good.
    async fn check(&self, call: &Call<'_>) -> Result<Standing, Failure>;
    /// All that can be done ahead; may take many requests, all of which may be repeated freely.
    async fn prepare(&self, call: &Call<'_>, post: &Post) -> Result<Prepared, Failure>;
    /// The one request that can be seen. `pictures` are those `prepare` said travel with the post.
    async fn publish(&self, call: &Call<'_>, post: &Prepared, pictures: &[Picture]) -> Result<Receipt, Failure>;
    /// Read-back by what this platform has besides a timeline: a ticket, a draft, a key of ours. `None`: it has nothing
    /// of the kind, and the timeline is read. Calls after the first are paid out of the purse.
    async fn find(&self, _call: &Call<'_>, _wanted: &Wanted, _purse: &dyn Purse) -> Result<Option<Look>, Failure> {
        Ok(None)
    }
    /// The account's newest posts.
    async fn newest(&self, call: &Call<'_>) -> Result<Page, Failure>;
    /// The posts below those that were read, of which this is the last; `None` where this platform shows no more than the
    /// newest.
    async fn below(&self, _call: &Call<'_>, _read: &Page, _last: &Shown) -> Result<Option<Page>, Failure> {
        Ok(None)
    }
    /// A post's text as it was sent, where the platform keeps that and can be asked for it.
    async fn source(&self, _call: &Call<'_>, _post: &Shown) -> Result<Option<String>, Failure> {
        Ok(None)
    }
    /// The post of this account that a public address means, as the platform shows it. `Refused` where the address
    /// cannot be read, or is another's; `None` where there is no such post.
    async fn locate(&self, call: &Call<'_>, url: &str) -> Result<Option<Shown>, Failure>;
    /// Takes a post down; twice is fine.
    async fn delete(&self, call: &Call<'_>, receipt: &Receipt) -> Result<(), Failure>;
}

/// Sets up a platform of the configuration; a new `api` is one file and one line here.
pub fn open(settings: &PlatformSettings) -> Arc<dyn Platform> {
    let settings = settings.clone();
    match settings.api.as_str() {
        "weibo" => Arc::new(weibo::Weibo::new(settings)),
        "tencent-weibo" => Arc::new(tencent_weibo::TencentWeibo::new(settings)),
        "wechat" => Arc::new(wechat::WeChat::new(settings)),
        "mastodon" => Arc::new(mastodon::Mastodon::new(settings)),
        "statuses" => Arc::new(statuses::Statuses::new(settings)),
        other => unreachable!("the configuration was read with an unknown api: {other}"),
    }
}
