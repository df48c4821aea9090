//! A person says what became of a delivery whose outcome is not known.
//!
//! An address is what a browser shows, and no identity: the platform is asked which post it means, and that post is
//! shown before anything is written. Only ids that a platform gave become receipts, so that what is taken down later
//! is the post, and "gone already" is believed of nothing else.

use std::sync::Arc;

use super::acts::ActError;
use super::answers::{self, LocatedPost, Resolved};
use super::outcome::written_once;
use super::prepare::Means;
use super::{Inner, StepError, settle};
use crate::core::announcement::Priority;
use crate::core::change::Actor;
use crate::core::delivery::{Delivery, DeliveryId, Event, Failure, Receipt, State};
use crate::core::pacing::Use;
use crate::core::words::{Words, words};
use crate::ledger::LedgerError;
use crate::platform::{Shown, timeline};

/// A person's statement about one delivery.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The post's address; `None`: it was not published.
    pub published: Option<String>,
    /// The id of the post that was shown to the person, where its text is not what was sent.
    pub post: Option<String>,
    pub dry_run: bool,
}

impl Inner {
    pub async fn resolve(self: &Arc<Self>, by: &Actor, id: DeliveryId, said: Said) -> Result<Resolved, ActError> {
        let row = self.ledger.load(vec![id]).await?.into_iter().next();
        let row = row.ok_or_else(|| ActError::NotFound(Words::new("没有这次投递", "there is no such delivery")))?;
        // A person may find a post that was not there as far as anybody knew.
        let is_given_up = matches!(row.state, State::Failed | State::Expired | State::Cancelled | State::Deleted);
        let may_be_there = is_given_up && said.published.is_some();
        // Somebody may have taken it down by hand.
        let may_be_gone = row.stands_wrongly() && said.published.is_none();
        if !matches!(row.state, State::Unknown | State::Accepted) && !may_be_there && !may_be_gone {
            let state = row.state.as_str();
            let said = words!(
                "它的状态是 {state}，并非结果不明",
                "it is {state}: its outcome is known, and there is nothing to settle"
            );
            return Err(ActError::Conflict(said));
        }
        let (event, post) = match &said.published {
            None => {
                let left = self.memory.under_way(id);
                if !left.is_zero() {
                    let seconds = left.as_secs() + 1;
                    return Err(ActError::Conflict(words!(
                        "它的请求可能还在路上，{seconds} 秒后再看",
                        "its request may still be under way: look again in {seconds} s"
                    )));
                }
                if may_be_gone {
                    self.is_not_seen(&row).await?;
                }
                (Event::SettledNotPublished, None)
            }
            Some(url) => {
                let (receipt, post) = self.located(&row, url).await?;
                if !said.dry_run && post.is_same_text == Some(false) && said.post.as_ref() != Some(&post.id) {
                    let (id, text) = (&post.id, &post.text);
                    return Err(ActError::Conflict(words!(
                        "这一条（{id}）写的是“{text}”，与所发不同；确认是它就带上 `post`: {id}",
                        "that post ({id}) says \"{text}\", which is not what was sent; if it is the one, say `post`: {id}"
                    )));
                }
                (Event::SettledPublished(receipt), Some(post))
            }
        };
        if said.dry_run {
            let after = self.computed(&row, event).map_err(StepError::from)?.row;
            return Ok(Resolved { delivery: answers::Delivery::of(&after), post, dry_run: true });
        }
        // Both are the person's until that is on disk.
        let claimed = match &event {
            Event::SettledPublished(receipt) if !receipt.post_id.is_empty() => {
                let claimed = self.memory.claim_receipt(&row.account, &receipt.post_id);
                Some(claimed.ok_or_else(|| anothers(&receipt.post_id))?)
            }
            _ => None,
        };
        let after = self.settled(by, row, event).await?;
        drop(claimed);
        self.wake(&[id]);
        Ok(Resolved { delivery: answers::Delivery::of(&after), post, dry_run: false })
    }

    /// Refuses a word that a post is gone which its platform still shows.
    async fn is_not_seen(self: &Arc<Self>, row: &Delivery) -> Result<(), ActError> {
        let receipt = row.receipt.as_ref();
        let Some((url, means)) = receipt.and_then(|r| r.url.as_deref()).zip(Means::there(self, row).ok()) else {
            return Ok(());
        };
        // The person's word counts where the platform cannot be asked.
        match self.shown_at(row, &means, url).await {
            Ok(Ok(Some(shown))) if receipt.is_some_and(|r| r.post_id == shown.id) => {
                Err(ActError::Conflict(words!("平台上它还在：{url}", "the platform shows it still: {url}")))
            }
            Ok(_) | Err(ActError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// In one commit with the correction or the all-clear that waits to know.
    async fn settled(self: &Arc<Self>, by: &Actor, mut row: Delivery, event: Event) -> Result<Delivery, ActError> {
        loop {
            match written_once(self, by, &row, event.clone(), Vec::new()).await {
                Err(StepError::Ledger(LedgerError::Conflict)) => {
                    let found = self.reload(row.id).await?;
                    // The person spoke of this attempt: of another one they said nothing.
                    if found.attempt != row.attempt || found.state != row.state {
                        let state = found.state.as_str();
                        return Err(ActError::Conflict(words!("它已成为 {state}", "it has become {state} meanwhile")));
                    }
                    row = found;
                }
                done => return Ok(done?),
            }
        }
    }

    /// The post at an address, as the platform shows it; a call of the account's.
    async fn shown_at(
        self: &Arc<Self>,
        row: &Delivery,
        means: &Means,
        url: &str,
    ) -> Result<Result<Option<Shown>, Failure>, ActError> {
        let use_ = if row.priority == Priority::Emergency { Use::Emergency } else { Use::Settle };
        let (reserve, now) = (self.config().settings.emergency.reserve, self.clock.now());
        let calls = self.memory.reserve(means.platform.settings(), &row.account, use_, false, reserve, now);
        let calls = calls.map_err(|_| {
            ActError::Conflict(Words::new(
                "查询限额已用完，请稍后再试",
                "no call is left to ask the platform: try again later",
            ))
        })?;
        self.count(calls).await?;
        Ok(means.platform.locate(&means.call(self, row), url).await)
    }

    /// The post that an address means, as a receipt, and as a person is shown it.
    async fn located(self: &Arc<Self>, row: &Delivery, url: &str) -> Result<(Receipt, LocatedPost), ActError> {
        let means = Means::of(self, row).map_err(|failure| cannot_ask(&failure))?;
        let shown = match self.shown_at(row, &means, url).await? {
            Ok(Some(shown)) => shown,
            Ok(None) => {
                let said = Words::new("平台上没有这一条", "the platform has no such post");
                return Err(ActError::Invalid("published".into(), said));
            }
            Err(Failure::Refused(_, said)) => return Err(ActError::Invalid("published".into(), said)),
            Err(failure) => return Err(cannot_ask(&failure)),
        };
        let receipts = self.ledger.receipts(row.account.clone(), row.id, row.at).await?;
        if receipts.taken.contains(&shown.id) {
            return Err(anothers(&shown.id));
        }
        let is_same_text = match shown.text.is_empty() {
            true => None,
            false => Some(self.is_text_of(row, &shown).await?),
        };
        let post = LocatedPost {
            id: shown.id.clone(),
            url: shown.url.clone(),
            text: shown.text.chars().take(200).collect(),
            created: shown.created,
            is_same_text,
        };
        let receipt = Receipt {
            post_id: match crate::planted("address_is_an_id") {
                true => url.rsplit('/').next().unwrap_or_default().to_owned(),
                false => shown.id,
            },
            url: shown.url.or_else(|| Some(url.trim().to_owned())),
            accepted_at: shown.created.unwrap_or_else(|| self.clock.now()),
            shown: true,
            read_back: true,
            ticket: None,
        };
        Ok((receipt, post))
    }

    async fn is_text_of(&self, row: &Delivery, shown: &Shown) -> Result<bool, ActError> {
        let sent = settle::text_of(self, row).await?;
        Ok(timeline::same_text(&sent, &shown.text, shown.truncated) || timeline::silently_cut(&sent, &shown.text))
    }
}

fn anothers(post_id: &str) -> ActError {
    let said = words!("{post_id} 已是另一次投递的回执", "{post_id} is the receipt of another delivery");
    ActError::Invalid("published".into(), said)
}

fn cannot_ask(failure: &Failure) -> ActError {
    let said = failure.words();
    let (zh, en) = (&said.zh, &said.en);
    ActError::Conflict(words!(
        "现在问不到平台（{zh}），未作改动；请稍后再试",
        "the platform cannot be asked now ({en}); nothing was changed, try again later"
    ))
}
