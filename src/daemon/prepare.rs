//! Everything that can be done before the hour: the credential asked about, the text fitted, pictures
//! read again and uploaded.
//!
//! Nothing here can be seen by a reader, and all of it may be repeated freely.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::outcome::{Driven, note_failure, outcome_name, stepped};
use super::pauses::What;
use super::send::{is_expired, is_overtaken, paused, publish, waited};
use super::{Inner, StepError, settle};
use crate::core::accounts::{Account, Secret};
use crate::core::announcement::{Content, Priority};
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Class, Delivery, Event, Failure, Prepared, Scope, State};
use crate::core::fit;
use crate::core::pacing::Use;
use crate::core::template::DRILL_MARK;
use crate::core::words::{Words, words};
use crate::ledger::LedgerError;
use crate::platform::{Call, Lane, Picture, Platform, Post, Standing};

/// A credential seen good within this time is not asked about again.
const SEEN_GOOD: Duration = Duration::from_secs(3600);
/// One seen bad is not asked about again for this long (R29): a person has to renew it.
const SEEN_BAD: Duration = Duration::from_secs(600);

pub async fn prepare(inner: &Arc<Inner>, row: &Delivery, nudged: &CancellationToken) -> Driven {
    let now = inner.clock.now();
    if is_expired(row, now) {
        return stepped(inner, row, Event::Expired).await;
    }
    // Until it is first tried `next_at` is the release itself; after a failure it is the next try.
    let lead = TimeDelta::from_std(inner.config().settings.publish.lead).unwrap_or(TimeDelta::minutes(1));
    let begin = row.next_at.map_or(now, |at| if at == row.at { row.at - lead } else { at });
    if !waited(inner, begin, nudged).await {
        return Ok(None);
    }
    let content = inner.content(&row.content).await.map_err(StepError::Ledger)?;
    if is_overtaken(inner, row, &content).await? {
        return stepped(inner, row, Event::Overtaken).await;
    }
    if let Some(left) = inner.pauses.left(&row.account, What::Post.of(row), inner.clock.mono()) {
        return paused(inner, row, left).await;
    }
    match prepared(inner, row).await {
        // Its instant has come: it is armed as it is, and what was prepared is written with the intent.
        Ok(prepared) if row.at <= inner.clock.now() => {
            let row = Delivery { prepared: Some(Arc::new(prepared)), ..row.clone() };
            publish(inner, &row, nudged).await
        }
        Ok(prepared) => stepped(inner, row, Event::Prepared(prepared)).await,
        Err(failure) => {
            let with = note_failure(inner, row, &failure, What::Post.of(row));
            inner.step(&Actor::Daemon, row, Event::PrepareFailed(failure), with).await.map(Some)
        }
    }
}

/// What waits for a person's word is prepared, so that the word costs no more than the sending. What cannot be prepared
/// now is when it goes.
pub async fn meanwhile(inner: Arc<Inner>, mut row: Box<Delivery>) {
    if row.doubted.is_some() {
        match settle::vouched(&inner, &row).await {
            Ok(Some(known)) if known.doubted.is_none() && known.state == State::Held => *row = known,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, account = %row.account, "it was not looked for while it waits");
                return;
            }
        }
    }
    let prepared = match prepared(&inner, &row).await {
        Ok(prepared) => prepared,
        Err(failure) => {
            tracing::warn!(account = %row.account, reason = failure.words().en, "what waits for a word is not prepared");
            return;
        }
    };
    // A word that is given in this moment finds the row as it read it.
    let _turn = inner.deciding.lock().await;
    match inner.step(&Actor::Daemon, &row, Event::Prepared(prepared), Vec::new()).await {
        // Its word came first, or it is given up.
        Ok(_) | Err(StepError::Illegal(_) | StepError::Ledger(LedgerError::Conflict)) => {}
        Err(error) => tracing::warn!(%error, account = %row.account, "what waits for a word is not prepared"),
    }
}

/// Everything a request needs: the adapter, the account, its secret.
pub struct Means {
    pub platform: Arc<dyn Platform>,
    pub account: Account,
    pub token: Secret,
    pub timeout: std::time::Duration,
}

impl Means {
    pub fn of(inner: &Inner, row: &Delivery) -> Result<Means, Failure> {
        let config = inner.config();
        let id = &row.account;
        let (Some(platform), Some(account)) = (config.platform_of(id), config.account(id)) else {
            let said = words!("配置里没有账号 {id}", "the account {id} is not in the configuration");
            return Err(Failure::Credential(Scope::Account, said));
        };
        let Some(token) = account.secret.clone() else {
            let said = account.secret_fault.clone();
            let said = said.unwrap_or_else(|| words!("账号 {id} 没有密钥", "the account {id} has no secret"));
            return Err(Failure::Credential(Scope::Account, said));
        };
        let timeout = platform.settings().timeout;
        Ok(Means { platform: platform.clone(), account: account.clone(), token, timeout })
    }

    /// The same, where that leads to the server for which it was prepared, or has its post: another one would say in good
    /// faith that there is no such post.
    pub fn there(inner: &Inner, row: &Delivery) -> Result<Means, Failure> {
        let means = Means::of(inner, row)?;
        let (was, is) = (row.prepared.as_ref().and_then(|p| p.site.as_deref()), means.platform.settings().site());
        match was.filter(|was| *was != is) {
            None => Ok(means),
            Some(was) => {
                let name = row.account.platform();
                Err(Failure::Refused(
                    Class::Platform,
                    words!(
                        "它发往 {was}，而平台 {name} 现在是 {is}：请到那里查看",
                        "it went to {was}, and the platform {name} is {is} now: look there"
                    ),
                ))
            }
        }
    }

    /// Prepares for the server that the configuration names now.
    pub async fn prepare(&self, inner: &Inner, row: &Delivery, post: &Post) -> Result<Prepared, Failure> {
        let prepared = self.platform.prepare(&self.call(inner, row), post).await?;
        Ok(Prepared { site: Some(self.platform.settings().site().to_owned()), ..prepared })
    }

    pub fn call<'a>(&'a self, inner: &'a Inner, row: &Delivery) -> Call<'a> {
        let lane = if row.priority == Priority::Emergency { Lane::Emergency } else { Lane::Routine };
        Call {
            http: &*inner.http,
            barrier: None,
            clock: &inner.clock,
            lane,
            account: &self.account,
            token: &self.token,
            timeout: self.timeout,
        }
    }
}

async fn prepared(inner: &Arc<Inner>, row: &Delivery) -> Result<Prepared, Failure> {
    let means = Means::of(inner, row)?;
    let content = content(inner, row).await?;
    let platform = row.account.platform();
    // An emergency asks nobody for anything it can go without, and stands in no line.
    let mut _slot = None;
    if row.priority != Priority::Emergency {
        let slots = inner.preparing(platform, means.platform.settings().limits.connections);
        _slot = Some(slots.acquire_owned().await.expect("the semaphore is never closed"));
        good_credential(inner, row, &means).await?;
    }
    let post = post(inner, row, &content)?;
    let calls = means.platform.calls_to_prepare(post.pictures.len());
    for _ in 0..calls {
        spend(inner, row, &means, false).await?;
    }
    let answer = means.prepare(inner, row, &post).await;
    inner.metrics.request(platform, "prepare", outcome_name(answer.as_ref().err()));
    answer
}

async fn content(inner: &Inner, row: &Delivery) -> Result<Arc<Content>, Failure> {
    inner.content(&row.content).await.map_err(|e| Failure::NotSent(Words::same(e.to_string())))
}

/// Counts one call, or says when the budget allows it.
async fn spend(inner: &Inner, row: &Delivery, means: &Means, publishes: bool) -> Result<(), Failure> {
    let now = inner.clock.now();
    let reserve = inner.config().settings.emergency.reserve;
    match inner.memory.reserve(means.platform.settings(), &row.account, use_of(row), publishes, reserve, now) {
        Ok(calls) => inner.count(calls).await.map_err(|e| Failure::NotSent(Words::same(e.to_string()))),
        Err(next) => {
            let wait = (next - now).to_std().unwrap_or_default();
            let why = Words::new("当日或本小时限额已用完", "the budget of this hour or day is used up");
            Err(Failure::Later(wait, Scope::Account, why))
        }
    }
}

pub fn use_of(row: &Delivery) -> Use {
    if row.priority == Priority::Emergency { Use::Emergency } else { Use::Post }
}

/// What was seen of the credential lately, if that is still to be relied on.
fn seen_credential(inner: &Inner, row: &Delivery) -> Option<Result<(), Failure>> {
    match inner.memory.credential(&row.account)? {
        (ago, None) if ago < SEEN_GOOD => Some(Ok(())),
        (ago, Some(said)) if ago < SEEN_BAD => Some(Err(Failure::Credential(Scope::Account, said))),
        _ => None,
    }
}

/// What the ledger keeps of a credential that does not work.
pub fn bad_credential(account: &crate::core::accounts::AccountId, said: &Words) -> Vec<Change> {
    let body = serde_json::json!({ "account": account, "reason": said });
    vec![
        Change::Credential { account: account.clone(), bad: Some(said.clone()), uid: None, expires: None },
        Note::change("credential", account, body),
    ]
}

/// Asks whether the credential works, and is this account's, unless that was seen within the hour.
pub async fn good_credential(inner: &Inner, row: &Delivery, means: &Means) -> Result<(), Failure> {
    if let Some(seen) = seen_credential(inner, row) {
        return seen;
    }
    // One asks for all that are prepared for this account at once; the others take its answer.
    let turn = inner.looking(&row.account);
    let _turn = turn.lock().await;
    if let Some(seen) = seen_credential(inner, row) {
        return seen;
    }
    // With no budget left for asking, the post itself will tell.
    if spend(inner, row, means, false).await.is_err() {
        return Ok(());
    }
    let answer = means.platform.check(&means.call(inner, row)).await;
    inner.metrics.request(row.account.platform(), "check", outcome_name(answer.as_ref().err()));
    let (changes, answer) = match answer {
        Ok(standing) => {
            if let Some(expires) = standing.expires {
                let left = (expires - inner.clock.now()).num_seconds();
                inner.metrics.token_left(row.account.platform(), left);
            }
            let Standing { uid, expires } = standing;
            (vec![Change::Credential { account: row.account.clone(), bad: None, uid, expires }], Ok(()))
        }
        Err(Failure::Credential(scope, said)) => {
            tracing::error!(account = %row.account, reason = said.en, "the credential does not work");
            (bad_credential(&row.account, &said), Err(Failure::Credential(scope, said)))
        }
        // Only a plain "no" stops the post; a check that got no answer says nothing about the credential.
        Err(failure @ (Failure::NotSent(_) | Failure::Later(..))) => return Err(failure),
        Err(_) => return Ok(()),
    };
    let written = inner.commit(&Actor::Daemon, changes).await;
    written.map_err(|e| Failure::NotSent(Words::same(e.to_string())))?;
    answer
}

/// The text fitted and the pictures read again: their bytes must be the ones that were signed off.
pub fn post(inner: &Inner, row: &Delivery, content: &Content) -> Result<Post, Failure> {
    let platform = row.account.platform();
    let body = &content.body;
    if body.text_for(platform).contains(DRILL_MARK) != inner.config().drill {
        // A drill's ledger in a live daemon's hands, or the other way round: nothing of it is sent.
        let said = Words::new(
            "演练的文字不在正式环境发布，反之亦然",
            "words of a drill are not sent live, nor live ones in a drill",
        );
        return Err(Failure::Refused(Class::Policy, said));
    }
    let most = inner.config().rules.get(platform).map_or(0, |r| r.images);
    let pictures = body
        .images
        .iter()
        .take(most)
        .map(|i| picture(inner, &i.file, &i.sha256, i.alt.clone()))
        .collect::<Result<_, _>>()?;
    Ok(Post {
        text: fit::full_text(body.text_for(platform), body.link.as_deref()),
        title: body.title_for(platform).map(str::to_owned),
        pictures,
        key: key(row),
    })
}

/// The delivery's own key, kept by platforms that keep one: the same over all its attempts, and over all its versions,
/// since of an occurrence an account gets one post whatever it says.
pub fn key(row: &Delivery) -> String {
    use sha2::{Digest, Sha256};
    if let Some(prepared) = &row.prepared {
        return prepared.key.clone();
    }
    let version = if crate::planted("key_of_a_version") { row.content.as_str() } else { "" };
    let digest = Sha256::digest(format!("{}\0{}\0{version}", row.occurrence, row.account));
    hex::encode(&digest[..16])
}

pub fn picture(inner: &Inner, file: &str, sha256: &str, alt: Option<String>) -> Result<Picture, Failure> {
    use crate::core::delivery::Class::Media;
    let (image, bytes) = inner.signed_picture(file, sha256).map_err(|said| Failure::Refused(Media, said))?;
    if image.sha256 != sha256 {
        let said = words!("图片 {file} 在读入之后被改动", "the picture {file} was changed after it was read");
        return Err(Failure::Refused(Media, said));
    }
    Ok(Picture { file: file.to_owned(), alt, sha256: image.sha256, kind: image.kind, bytes: Bytes::from(bytes) })
}
