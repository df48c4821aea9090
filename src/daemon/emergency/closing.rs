//! The last words of an emergency: a correction to exactly the accounts that carry it, and its all-clear.
//!
//! Where nobody knows yet whether what they are about is out, they wait until that is known; and one account is
//! told once.

use std::sync::Arc;

use serde_json::{Value, json};

use super::kin::{Family, Whereabouts};
use super::tried::{Tried, Wording, quoted};
use super::{Key, READ_AGAIN, Urgent, answered_with};
use crate::core::announcement::{Content, Follows, Part};
use crate::core::change::{Actor, AnnouncementRow, Change, End, Ended, Note};
use crate::core::delivery::{Delivery, DeliveryId, Event, State, Wish};
use crate::core::words::{Words, words};
use crate::daemon::acts::ActError;
use crate::daemon::answers::{Cleared, ClosingPreview, HoldOver, LastWord, NoPost, Withdrawn};
use crate::daemon::{Inner, lock};
use crate::ledger::LedgerError;

/// What a person asks for: their own words or the standard ones, for real or to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Closed<'a> {
    pub text: Option<&'a str>,
    pub dry_run: bool,
}

/// A correction or an all-clear, tried.
struct LastWords {
    posts: Vec<AnnouncementRow>,
    whereabouts: Whereabouts,
    /// None where it stands nowhere: there is nobody to tell.
    tried: Option<Tried>,
}

impl Inner {
    /// A correction to exactly the accounts that carry the wrong post, or a later one of its emergency.
    pub async fn correct(self: &Arc<Self>, by: &Actor, id: &str, closed: Closed<'_>) -> Result<Value, ActError> {
        let _turn = self.deciding.lock().await;
        // In the middle of its release the rows change while they are read.
        for _ in 0..READ_AGAIN {
            match self.corrected(by, id, closed).await {
                Err(ActError::Ledger(LedgerError::Conflict)) => {}
                done => return done,
            }
        }
        self.corrected(by, id, closed).await
    }

    async fn corrected(self: &Arc<Self>, by: &Actor, id: &str, closed: Closed<'_>) -> Result<Value, ActError> {
        let (row, _) = self.emergency_row(id).await?;
        let family = self.family(&row).await?;
        // What was said after the wrong post was said on its word; a later word alone is corrected alone.
        let wrong: Vec<AnnouncementRow> = match row.follows {
            Some((_, Part::Correction | Part::AllClear)) => vec![row.clone()],
            _ => family.warnings().skip_while(|w| w.id != row.id).cloned().collect(),
        };
        if matches!(row.follows, Some((_, Part::Correction | Part::AllClear))) && closed.text.is_none() {
            let said = words!(
                "`{id}` 本身就是更正或解除，请写明要说的话",
                "`{id}` is a correction or an all-clear itself: say in your own words what is right"
            );
            return Err(ActError::Invalid("text".into(), said));
        }
        let last = self.last_words(by, &family, &row, wrong, Part::Correction, closed.text).await?;
        if closed.dry_run {
            return Ok(json!(self.closing_preview(last, None).await?));
        }
        let why = words!("由 {by} 更正", "corrected by {by}");
        let (mut with, ids) = self.stopped(&last.whereabouts.rows, Wish::Gone, &why);
        let Some(tried) = last.tried else {
            if with.is_empty() {
                return Err(ActError::Conflict(self.nothing_to_correct(id, &family).await?));
            }
            // Nothing of it stands: stopping what is on its way is all there is to correct.
            let hold = self.standing_hold(&family.hold()).filter(|_| row.follows.is_none()).map(|hold| hold.id);
            with.push(Note::change("corrected", &row.id, json!({ "by": by.to_string() })));
            with.extend(hold.iter().cloned().map(Change::HoldEnded));
            with.extend(self.ended(&last.posts, End::Corrected, by));
            let done = self.ledger.commit(by, with).await;
            self.settled_with(&ids, done.is_ok());
            done?;
            self.forget_holds(hold.as_slice());
            let unchanged = last.whereabouts.rows.len() - ids.len();
            let withdrawn =
                Withdrawn { id: id.to_owned(), cancelled: ids.len(), in_flight: 0, taking_down: 0, unchanged };
            return Ok(json!(withdrawn));
        };
        with.push(Note::change("corrected", &row.id, json!({ "by": by.to_string(), "with": tried.id })));
        let taken = self.take(by, tried, None, with, &[]).await;
        self.settled_with(&ids, taken.is_ok());
        Ok(json!(taken?))
    }

    /// Why there is nobody to tell: it was said already, or what was wrong is gone without a word.
    async fn nothing_to_correct(&self, id: &str, family: &Family) -> Result<Words, ActError> {
        let corrections: Vec<String> = family.later(Part::Correction).map(|row| row.id.to_string()).collect();
        Ok(match corrections.last() {
            Some(by) => words!(
                "`{id}` 已由 `{by}` 更正；要改口：fabu correct {by} “…”",
                "`{id}` was corrected by `{by}`; to say something else: fabu correct {by} TEXT"
            ),
            None => words!(
                "`{id}` 没有挂着的地方，也没有发过更正",
                "`{id}` stands nowhere any more, and no correction of it was said"
            ),
        })
    }

    /// The end of an emergency: its closing text where it stands, nothing more of it, and the end of its hold.
    pub async fn all_clear(
        self: &Arc<Self>,
        by: &Actor,
        id: &str,
        closed: Closed<'_>,
        keys: &[Key],
    ) -> Result<Value, ActError> {
        let turn = self.deciding.lock().await;
        if let Some(answer) = self.answered_before(by, keys.first()).await? {
            return Ok(answer);
        }
        let mut tries = 0;
        let (said, hold) = loop {
            match self.cleared(by, id, closed, keys).await {
                Err(ActError::Ledger(LedgerError::Conflict)) if tries < READ_AGAIN => tries += 1,
                Err(error) => return Err(error),
                Ok(Ok(preview)) => return Ok(preview),
                Ok(Err(done)) => break done,
            }
        };
        // What the hold kept back is looked at without keeping another emergency waiting.
        drop(turn);
        let hold_ended = match hold {
            None => None,
            Some(id) => {
                let released = self.after_hold().await?;
                Some(HoldOver { id, released, waiting: self.held().await?.len() })
            }
        };
        let answer = json!(Cleared { said, hold_ended });
        if !keys.is_empty() {
            // With all that was done: whoever asks again is told the same.
            self.ledger.commit(by, answered_with(by, keys, &answer)).await?;
        }
        Ok(answer)
    }

    /// A look at it, or what was said and the hold that ended with it.
    async fn cleared(
        self: &Arc<Self>,
        by: &Actor,
        id: &str,
        closed: Closed<'_>,
        keys: &[Key],
    ) -> Result<Result<Value, (LastWord, Option<String>)>, ActError> {
        let (row, _) = self.emergency_row(id).await?;
        let family = self.family(&row).await?;
        // Whoever names one of several posts means the emergency: a warning that stands anywhere is cleared there.
        let posts: Vec<AnnouncementRow> = family.warnings().cloned().collect();
        let last = self.last_words(by, &family, &row, posts, Part::AllClear, closed.text).await?;
        let hold = self.standing_hold(&family.hold()).map(|hold| hold.id);
        if closed.dry_run {
            return Ok(Ok(json!(self.closing_preview(last, hold).await?)));
        }
        // A warning that comes after its all-clear would be a false one.
        let why = words!("由 {by} 解除", "ended by {by}");
        let (mut with, ids) = self.stopped(&last.whereabouts.rows, Wish::Stop, &why);
        let is_over = last.posts.iter().all(|post| post.ended.is_some());
        let Some(tried) = last.tried else {
            if with.is_empty() && hold.is_none() && is_over {
                return Err(ActError::Conflict(words!("`{id}` 已经解除", "`{id}` is over already")));
            }
            with.push(Note::change("all_clear", &family.root, json!({ "by": by.to_string() })));
            with.extend(hold.iter().cloned().map(Change::HoldEnded));
            with.extend(self.ended(&last.posts, End::AllClear, by));
            let done = self.ledger.commit(by, with).await;
            self.settled_with(&ids, done.is_ok());
            done?;
            self.forget_holds(hold.as_slice());
            return Ok(Err((LastWord::Nothing(NoPost { id: (), deliveries: 0 }), hold)));
        };
        with.push(Note::change("all_clear", &family.root, json!({ "by": by.to_string(), "with": tried.id })));
        let taken = self.take(by, tried, None, with, keys).await;
        self.settled_with(&ids, taken.is_ok());
        let hold = hold.filter(|name| self.standing_hold(name).is_none());
        Ok(Err((LastWord::Taken(taken?), hold)))
    }

    /// The words, and the accounts they go to: those that carry one of these posts and were not told yet.
    async fn last_words(
        &self,
        by: &Actor,
        family: &Family,
        named: &AnnouncementRow,
        posts: Vec<AnnouncementRow>,
        part: Part,
        own: Option<&str>,
    ) -> Result<LastWords, ActError> {
        let mut whereabouts = self.whereabouts(posts.iter()).await?;
        whereabouts.without(&self.spoken(family, part).await?);
        if whereabouts.is_empty() {
            return Ok(LastWords { posts, whereabouts, tried: None });
        }
        // Its words are quoted that people have read: the newest that stand.
        let stands = |post: &&AnnouncementRow| whereabouts.posts.contains(&post.id);
        let about = posts.iter().rev().find(stands).unwrap_or(named);
        let content = self.content(&about.content).await?;
        let (accounts, what) =
            (whereabouts.accounts(), if part == Part::Correction { "correction" } else { "all-clear" });
        let follows =
            Follows { emergency: family.root.clone(), part, posts: posts.iter().map(|post| post.id.clone()).collect() };
        let urgent = Urgent {
            text: own.map_or_else(|| standard(&content, part), str::to_owned),
            level: content.body.level(),
            to: accounts.iter().map(ToString::to_string).collect(),
            id: Some(self.derived(&named.id, what).await?),
            supersedes: (part == Part::Correction).then(|| named.id.to_string()),
            follows: Some(follows),
            ..Urgent::default()
        };
        let mut tried = self.tried(by, &urgent, accounts.clone(), Wording::closing(own)).await;
        // Some platforms want a link to the city's own pages in every post: then it is that of what they are about.
        if tried.is_err() && content.body.link.is_some() {
            let linked = Urgent { link: content.body.link.clone(), ..urgent };
            tried = self.tried(by, &linked, accounts, Wording::closing(own)).await;
        }
        let uncertain = whereabouts.uncertain.keys().cloned().collect();
        Ok(LastWords { posts, whereabouts, tried: Some(Tried { uncertain, ..tried? }) })
    }

    async fn closing_preview(&self, last: LastWords, ends_hold: Option<String>) -> Result<ClosingPreview, ActError> {
        let stops = last.whereabouts.rows.iter().filter(|d| is_open(d) && d.wish == Wish::Out).count();
        let waiting = last.whereabouts.uncertain.len();
        let post = match &last.tried {
            Some(tried) => Some(self.preview(tried).await?),
            None => None,
        };
        Ok(ClosingPreview { dry_run: true, drill: self.config().drill, post, stops, waiting, ends_hold })
    }

    /// What of an emergency has not gone out is stopped; with `Gone`, what may be out is taken down when it is found.
    fn stopped(&self, rows: &[Delivery], wish: Wish, why: &Words) -> (Vec<Change>, Vec<DeliveryId>) {
        let (mut changes, mut ids) = (Vec::new(), Vec::new());
        for row in rows.iter().filter(|d| is_open(d) && d.wish < wish) {
            if let Ok(step) = self.computed(row, Event::Withdrawn(wish, why.clone())) {
                ids.push(row.id);
                changes.push(Change::Step(Box::new(step)));
            }
        }
        // In memory before it is written: no request of theirs begins after the answer.
        lock(&self.gate).withdrawn.extend(ids.iter().copied());
        (changes, ids)
    }

    /// What was stopped is in the ledger now; or is not stopped, since nothing was written.
    fn settled_with(&self, ids: &[DeliveryId], is_written: bool) {
        if is_written {
            self.nudge(ids);
            return;
        }
        let mut gate = lock(&self.gate);
        for id in ids {
            gate.withdrawn.remove(id);
        }
    }

    /// These posts are over; what was corrected before stays that.
    pub(super) fn ended(&self, posts: &[AnnouncementRow], how: End, by: &Actor) -> Vec<Change> {
        let (at, by) = (self.clock.now(), by.to_string());
        let ended = Ended { how, by, at };
        let open = posts.iter().filter(|post| post.ended.is_none());
        open.map(|post| Change::Ended(post.id.clone(), Some(ended.clone()))).collect()
    }

    /// What a later word does to its emergency when all its persons have given their word, and the holds it ends.
    pub(super) async fn consequences(
        &self,
        by: &Actor,
        follows: &Follows,
    ) -> Result<(Vec<Change>, Vec<String>), ActError> {
        let rows = self.ledger.family(follows.emergency.clone()).await?;
        let about: Vec<AnnouncementRow> = rows.into_iter().filter(|row| follows.posts.contains(&row.id)).collect();
        let hold = super::kin::hold_name(&follows.emergency);
        Ok(match follows.part {
            Part::Correction => (self.ended(&about, End::Corrected, by), Vec::new()),
            Part::AllClear => {
                let holds: Vec<String> = self.standing_hold(&hold).map(|hold| hold.id).into_iter().collect();
                let mut changes = self.ended(&about, End::AllClear, by);
                changes.extend(holds.iter().cloned().map(Change::HoldEnded));
                (changes, holds)
            }
            // An emergency that goes on is not over.
            Part::Update => {
                let over = about.iter().filter(|row| row.ended.is_some());
                (over.map(|row| Change::Ended(row.id.clone(), None)).collect(), Vec::new())
            }
        })
    }

    pub(super) fn forget_holds(&self, ended: &[String]) {
        lock(&self.gate).holds.retain(|hold| !ended.contains(&hold.id));
    }
}

/// Not out, and not given up.
fn is_open(row: &Delivery) -> bool {
    !row.state.is_settled() && row.state != State::Published
}

/// The words of its template, or the program's.
fn standard(content: &Content, part: Part) -> String {
    let said = quoted(&content.body.text);
    let closing = content.body.closing.as_ref();
    match part {
        Part::Correction => closing
            .and_then(|c| c.correction.clone())
            .unwrap_or_else(|| format!("【更正】此前发布的“{said}”有误，现予撤回，请勿转发，以本条为准。")),
        _ => closing.and_then(|c| c.all_clear.clone()).unwrap_or_else(|| format!("【解除】“{said}”现已解除。")),
    }
}
