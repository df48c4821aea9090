//! A person says what became of a delivery whose outcome is not known.
//!
//! An address is what a browser shows, and no identity: the platform is asked which post it means, and that post is
//! shown before anything is written. Only ids that a platform gave become receipts, so that what is taken down later
//! is the post, and "gone already" is believed of nothing else.

use std::sync::Arc;

use super::acts::ActError;
use super::answers::{self, Candidates, LocatedPost, Resolved};
use super::prepare::Means;
use super::settle::{self, Share};
use super::{Inner, StepError};
use crate::core::change::Actor;
use crate::core::delivery::{Delivery, DeliveryId, Event, Failure, Receipt, State};
use crate::core::likeness::{same_text, silently_cut};
use crate::core::timeline::{self, Page, Rest, Wanted};
use crate::core::words::{Words, shown, words};
use crate::ledger::LedgerError;
use crate::platform::Shown;
use crate::platform::reading::listed;

/// A person's statement about one delivery.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The post's address.
    pub published: Option<String>,
    /// The id of the post that was shown to the person, where its text is not what was sent; without an address it says
    /// which post of the timeline it is. Neither: it was not published.
    pub post: Option<String>,
    pub dry_run: bool,
}

impl Said {
    fn is_published(&self) -> bool {
        self.published.is_some() || self.post.is_some()
    }
}

impl Inner {
    /// The posts a person may choose from: made since the send, and accounted for by nobody.
    pub async fn candidates(self: &Arc<Self>, id: DeliveryId) -> Result<Candidates, ActError> {
        let row = self.ledger.load(vec![id]).await?.into_iter().next().ok_or_else(no_delivery)?;
        let means = Means::of(self, &row).map_err(|failure| cannot_ask(&failure))?;
        let wanted = self.wanted_of(&row, &means).await?;
        let page = self.timeline_of(&row, &means, &wanted).await?;
        let mut posts = Vec::new();
        for post in timeline::unaccounted(&page, &wanted) {
            posts.push(self.as_located(&row, post).await?);
        }
        let is_whole = page.rest == Rest::Nothing || page.reaches_back(&wanted);
        Ok(Candidates { delivery: answers::Delivery::of(&row), sent: wanted.text, posts, is_whole })
    }

    async fn wanted_of(&self, row: &Delivery, means: &Means) -> Result<Wanted, ActError> {
        let wanted = settle::wanted_now(self, row, means.timeout).await?;
        // A person judges for themselves what resembles what.
        Ok(Wanted { was_sent: true, ..wanted })
    }

    /// A call of the account's, and more where the send lies further back.
    async fn timeline_of(self: &Arc<Self>, row: &Delivery, means: &Means, wanted: &Wanted) -> Result<Page, ActError> {
        self.pay(row, means).await?;
        let share = Share::of(self, row, means);
        let page = listed(&*means.platform, &means.call(self, row), wanted, &share).await;
        let page = page.map_err(|failure| cannot_ask(&failure))?;
        match page.foreign {
            Some(why) => Err(ActError::Conflict(why)),
            None => Ok(page),
        }
    }

    pub async fn resolve(self: &Arc<Self>, by: &Actor, id: DeliveryId, said: Said) -> Result<Resolved, ActError> {
        let row = self.ledger.load(vec![id]).await?.into_iter().next();
        let row = row.ok_or_else(no_delivery)?;
        // A person may find a post that was not there as far as anybody knew.
        let is_given_up = matches!(row.state, State::Failed | State::Expired | State::Cancelled | State::Deleted);
        let may_be_there = is_given_up && said.is_published();
        // Somebody may have taken it down by hand.
        let may_be_gone = row.stands_wrongly() && !said.is_published();
        if !matches!(row.state, State::Unknown | State::Accepted) && !may_be_there && !may_be_gone {
            let state = row.state.as_str();
            let said = words!(
                "它的状态是 {state}，并非结果不明",
                "it is {state}: its outcome is known, and there is nothing to settle"
            );
            return Err(ActError::Conflict(said));
        }
        let (event, post) = match said.is_published() {
            false => {
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
            true => {
                let (receipt, post) = self.located(&row, &said).await?;
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
            match self.step(by, &row, event.clone(), Vec::new()).await {
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
        self.pay(row, means).await?;
        Ok(means.platform.locate(&means.call(self, row), url).await)
    }

    async fn pay(self: &Arc<Self>, row: &Delivery, means: &Means) -> Result<(), ActError> {
        Share::of(self, row, means).take().await?.map_err(|_| {
            ActError::Conflict(Words::new(
                "查询限额已用完，请稍后再试",
                "no call is left to ask the platform: try again later",
            ))
        })
    }

    /// The post that is meant, as a receipt, and as a person is shown it.
    async fn located(self: &Arc<Self>, row: &Delivery, said: &Said) -> Result<(Receipt, LocatedPost), ActError> {
        let means = Means::of(self, row).map_err(|failure| cannot_ask(&failure))?;
        let shown = match &said.published {
            Some(url) => self.addressed(row, &means, url).await?,
            None => self.chosen(row, &means, said.post.as_deref().unwrap_or_default()).await?,
        };
        let receipts = self.ledger.receipts(row.account.clone(), row.id, row.at).await?;
        if receipts.taken.contains(&shown.id) {
            return Err(anothers(&shown.id));
        }
        let post = self.as_located(row, &shown).await?;
        let given = said.published.as_ref().map(|url| url.trim().to_owned());
        let receipt = Receipt {
            post_id: match (crate::planted("address_is_an_id"), &said.published) {
                (true, Some(url)) => url.rsplit('/').next().unwrap_or_default().to_owned(),
                _ => shown.id,
            },
            url: shown.url.or(given),
            accepted_at: shown.created.unwrap_or_else(|| self.clock.now()),
            shown: true,
            read_back: true,
            ticket: None,
        };
        Ok((receipt, post))
    }

    /// The post at an address.
    async fn addressed(self: &Arc<Self>, row: &Delivery, means: &Means, url: &str) -> Result<Shown, ActError> {
        match self.shown_at(row, means, url).await? {
            Ok(Some(shown)) => Ok(shown),
            Ok(None) => {
                let said = Words::new("平台上没有这一条", "the platform has no such post");
                Err(ActError::Invalid("published".into(), said))
            }
            Err(Failure::Refused(_, said)) => Err(ActError::Invalid("published".into(), said)),
            Err(failure) => Err(cannot_ask(&failure)),
        }
    }

    /// A post of the account's timeline, by its id.
    async fn chosen(self: &Arc<Self>, row: &Delivery, means: &Means, id: &str) -> Result<Shown, ActError> {
        let wanted = self.wanted_of(row, means).await?;
        let page = self.timeline_of(row, means, &wanted).await?;
        page.posts.into_iter().find(|post| post.id == id).ok_or_else(|| {
            let id = shown(id);
            let said = words!("时间线上没有 `{id}`", "the account's timeline does not show `{id}`");
            ActError::Invalid("post".into(), said)
        })
    }

    async fn as_located(&self, row: &Delivery, post: &Shown) -> Result<LocatedPost, ActError> {
        let is_same_text = match post.text.is_empty() {
            true => None,
            false => Some(self.is_text_of(row, post).await?),
        };
        Ok(LocatedPost {
            id: post.id.clone(),
            url: post.url.clone(),
            text: post.text.chars().take(200).collect(),
            created: post.created,
            is_same_text,
        })
    }

    async fn is_text_of(&self, row: &Delivery, shown: &Shown) -> Result<bool, ActError> {
        let sent = settle::text_of(self, row).await?;
        Ok(same_text(&sent, &shown.text, shown.truncated) || silently_cut(&sent, &shown.text))
    }
}

fn no_delivery() -> ActError {
    ActError::NotFound(Words::new("没有这次投递", "there is no such delivery"))
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
