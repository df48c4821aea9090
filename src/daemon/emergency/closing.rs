//! The last words of an emergency: a correction to exactly the accounts that carry it, and its all-clear.
//!
//! Where nobody knows yet whether what they are about is out, they wait until that is known; and one account is
//! told once. While what they are about is still going out its rows change every millisecond: so their commit stops
//! it by an order, and decides by where each post is at that moment whether an account is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use super::kin::{Family, PostsOn, Whereabouts};
use super::tried::{Tried, Wording, invalid, quoted};
use super::{Key, READ_AGAIN, Urgent, answered_with};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Content, End, Follows, Part};
use crate::core::change::{Actor, AnnouncementRow, Change, Ended, Note};
use crate::core::delivery::{Cause, Delivery, DeliveryId, Desired, Reach, State, Stop};
use crate::core::words::{Words, words};
use crate::daemon::Inner;
use crate::daemon::acts::ActError;
use crate::daemon::answers::{Cleared, ClosingPreview, HoldOver, LastWord, NoPost, Taken, Withdrawn};
use crate::daemon::prepare::Means;
use crate::ledger::LedgerError;

/// What a person asks for: their own words or the standard ones, for real or to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Closed<'a> {
    pub text: Option<&'a str>,
    pub dry_run: bool,
    /// The words that were shown to the person, empty where nobody was to be told: nothing else is said.
    pub shown: Option<&'a str>,
}

impl Closed<'_> {
    /// Refuses to say what the person was not shown.
    fn is_as_shown(&self, tried: Option<&Tried>) -> Result<(), ActError> {
        let says = tried.map_or("", |tried| tried.content.body.text.as_str());
        if self.dry_run || self.shown.is_none_or(|shown| shown == says) {
            return Ok(());
        }
        Err(changed("shown"))
    }
}

/// What would be said is not what somebody was shown.
pub(super) fn changed(field: &'static str) -> ActError {
    invalid(
        field,
        Words::new(
            "要发的内容与所示不同：其间有了变化，请重看",
            "this is not what was shown any more: something came in between, look again",
        ),
    )
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
        let mut tries = 0;
        let answer = loop {
            match self.corrected(by, id, closed).await {
                // Its name was taken meanwhile: it gets another.
                Err(ActError::Ledger(LedgerError::Conflict)) if tries < READ_AGAIN => tries += 1,
                done => break done?,
            }
        };
        // Of what it stopped no request begins after the answer.
        self.quiet().await;
        Ok(answer)
    }

    async fn corrected(self: &Arc<Self>, by: &Actor, id: &str, closed: Closed<'_>) -> Result<Value, ActError> {
        let (row, _) = self.emergency_row(id).await?;
        let family = self.family(&row).await?;
        // What was said after the wrong post was said on its word; a later word alone is corrected alone.
        // A correction that is corrected may have reached nobody yet: what it was about is wrong as before.
        let content = self.content(&row.content).await?;
        let about = |w: &&AnnouncementRow| content.body.follows.as_ref().is_some_and(|f| f.posts.contains(&w.id));
        let wrong: Vec<AnnouncementRow> = match row.follows {
            Some((_, Part::Correction)) => family.rows.iter().filter(about).chain([&row]).cloned().collect(),
            Some((_, Part::AllClear)) => vec![row.clone()],
            _ => family.warnings().skip_while(|w| w.id != row.id).cloned().collect(),
        };
        if matches!(row.follows, Some((_, Part::Correction | Part::AllClear))) && closed.text.is_none() {
            let said = words!(
                "`{id}` 本身就是更正或解除，请写明要说的话",
                "`{id}` is a correction or an all-clear itself: say in your own words what is right"
            );
            return Err(ActError::Invalid("text".into(), said));
        }
        let mut last = self.last_words(by, &family, &row, wrong, Part::Correction, closed).await?;
        if closed.dry_run {
            return Ok(json!(self.closing_preview(last, Part::Correction, None).await?));
        }
        let why = words!("由 {by} 更正", "corrected by {by}");
        // A correction stops what it corrects in what follows from its last word. Until then one person may stop what is
        // not out, and nothing is taken down; with nobody to tell there is no such word.
        let desired = match last.tried.as_ref().map(|tried| tried.content.body.persons.unwrap_or(1)) {
            None => Some(Desired::Removed),
            // A correction that was agreed to goes on until another one is.
            Some(_) if matches!(row.follows, Some((_, Part::Correction))) => None,
            Some(persons) => (persons > 1).then_some(Desired::Stopped),
        };
        let mut with: Vec<Change> =
            desired.map(|desired| stop(&last.posts, desired, Cause::Corrected, why)).into_iter().collect();
        if crate::planted("correction_expects_rows") {
            with.extend(last.whereabouts.rows.iter().map(|row| Change::Expect(row.id, row.fence)));
        }
        let note =
            |with: Option<&str>| Note::change("corrected", &row.id, json!({ "by": by.to_string(), "with": with }));
        let Some(tried) = last.tried.take() else {
            if !last.whereabouts.rows.iter().any(|d| is_open(d) && d.desired != Desired::Removed) {
                return Err(ActError::Conflict(self.nothing_to_correct(id, &family).await?));
            }
            // Nothing of it stands: stopping what is on its way is all there is to correct.
            let hold = match row.follows {
                None => self.standing_hold(&family.hold()),
                Some(_) => self.hold_ending_with(&row).await?,
            };
            with.push(note(None));
            with.extend(hold.as_ref().map(Change::end_of));
            with.extend(self.ended(&last.posts, End::Corrected, by));
            self.commit(by, with).await?;
            if hold.is_some() {
                self.after_hold().await?;
            }
            return Ok(json!(self.stopped_with(id, &last).await?));
        };
        with.push(note(Some(tried.id.as_str())));
        let taken = self.said(by, tried, &last.whereabouts, with, &[]).await?;
        // Stopped everywhere before it was out, or out where nobody can be told: what becomes of it is what there is to say.
        match taken.deliveries == 0 && taken.confirm_by.is_none() {
            true => Ok(json!(self.stopped_with(id, &last).await?)),
            false => Ok(json!(taken)),
        }
    }

    /// The outcome for posts that nobody was told anything about.
    async fn stopped_with(&self, id: &str, last: &LastWords) -> Result<Withdrawn, ActError> {
        let before: BTreeMap<DeliveryId, State> = last.whereabouts.rows.iter().map(|d| (d.id, d.state)).collect();
        let (mut cancelled, mut in_flight, mut taking_down, mut out_of_reach, mut unchanged) = (0, 0, 0, 0, 0);
        for post in &last.posts {
            for d in self.deliveries_named(post.id.as_str()).await? {
                match d.state {
                    State::Cancelled if before.get(&d.id).is_some_and(|state| *state != State::Cancelled) => {
                        cancelled += 1
                    }
                    // On an account that is told nothing it goes as soon as its correction is dropped there.
                    State::Published => {
                        taking_down += 1;
                        out_of_reach += usize::from(Means::there(self, &d).is_err());
                    }
                    State::Sending | State::Unknown | State::Accepted => in_flight += 1,
                    State::Deleted if before.get(&d.id) == Some(&State::Published) => taking_down += 1,
                    _ => unchanged += 1,
                }
            }
        }
        Ok(Withdrawn { id: id.to_owned(), cancelled, in_flight, taking_down, out_of_reach, unchanged })
    }

    /// Last words, taken. While they wait for a person nothing is decided, and those that would wait now are counted.
    async fn said(
        self: &Arc<Self>,
        by: &Actor,
        tried: Tried,
        whereabouts: &Whereabouts,
        with: Vec<Change>,
        keys: &[Key],
    ) -> Result<Taken, ActError> {
        let part = tried.content.body.part();
        let mut taken = self.take(by, tried, None, with, keys).await?;
        taken.out_of_reach = self.out_of_reach(whereabouts);
        if let Some(part) = part.filter(|_| taken.confirm_by.is_some()) {
            taken.waiting = whereabouts.waiting(part);
        }
        Ok(taken)
    }

    /// On how many accounts what stands, or may, is followed by no word: nothing is published there.
    fn out_of_reach(&self, whereabouts: &Whereabouts) -> usize {
        let config = self.config();
        let carries = |d: &&Delivery| whereabouts.carry.contains_key(&d.account);
        let is_beyond = |d: &&Delivery| config.city.is_resting(&d.account) || Means::there(self, d).is_err();
        let beyond = whereabouts.rows.iter().filter(carries).filter(is_beyond);
        beyond.map(|d| &d.account).collect::<BTreeSet<_>>().len()
    }

    /// Why there is nobody to tell: it was said already, or what was wrong is gone without a word.
    async fn nothing_to_correct(&self, id: &str, family: &Family) -> Result<Words, ActError> {
        let (mut said, mut is_taken_down) = (None, false);
        for row in family.later(Part::Correction) {
            for d in self.deliveries_named(row.id.as_str()).await? {
                match d.state {
                    State::Cancelled | State::Expired | State::Failed => {}
                    _ if d.state == State::Deleted || d.desired == Desired::Removed => is_taken_down = true,
                    _ => said = Some(&row.id),
                }
            }
        }
        Ok(match said {
            None if is_taken_down => words!(
                "`{id}` 没有挂着的地方，它的更正也撤下了；还要说什么，请另发一条：fabu urgent “…”",
                "`{id}` stands nowhere any more, and its correction was taken down too; to say more, send a post of its own: fabu urgent TEXT"
            ),
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
        self.all_cleared(by, id, closed, keys, turn).await
    }

    /// The same, in its turn.
    pub(in crate::daemon) async fn all_cleared(
        self: &Arc<Self>,
        by: &Actor,
        id: &str,
        closed: Closed<'_>,
        keys: &[Key],
        turn: MutexGuard<'_, ()>,
    ) -> Result<Value, ActError> {
        let mut tries = 0;
        let (said, hold) = loop {
            match self.cleared(by, id, closed, keys).await {
                Err(ActError::Ledger(LedgerError::Conflict)) if tries < READ_AGAIN => tries += 1,
                Err(error) => return Err(error),
                Ok(Ok(preview)) => return Ok(preview),
                Ok(Err(done)) => break done,
            }
        };
        self.quiet().await;
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
        let last = self.last_words(by, &family, &row, posts, Part::AllClear, closed).await?;
        let hold = self.standing_hold(&family.hold());
        if closed.dry_run {
            return Ok(Ok(json!(self.closing_preview(last, Part::AllClear, hold.map(|hold| hold.id)).await?)));
        }
        // A warning that comes after its all-clear would be a false one.
        let why = words!("由 {by} 解除", "ended by {by}");
        let is_over = last.posts.iter().all(|post| post.ended.is_some());
        let is_stopped = !last.whereabouts.rows.iter().any(|d| is_open(d) && d.desired == Desired::Published);
        let mut with = vec![stop(&last.posts, Desired::Stopped, Cause::Cleared, why)];
        let Some(tried) = last.tried else {
            if is_stopped && hold.is_none() && is_over {
                return Err(ActError::Conflict(words!("`{id}` 已经解除", "`{id}` is over already")));
            }
            with.push(Note::change("all_clear", &family.root, json!({ "by": by.to_string() })));
            with.extend(hold.as_ref().map(Change::end_of));
            with.extend(self.ended(&last.posts, End::AllClear, by));
            self.commit(by, with).await?;
            let nothing = LastWord::Nothing(NoPost { id: (), deliveries: 0, out_of_reach: 0 });
            return Ok(Err((nothing, hold.map(|hold| hold.id))));
        };
        with.push(Note::change("all_clear", &family.root, json!({ "by": by.to_string(), "with": tried.id })));
        let taken = self.said(by, tried, &last.whereabouts, with, keys).await?;
        let hold = hold.map(|hold| hold.id).filter(|name| self.standing_hold(name).is_none());
        let said = match taken.deliveries {
            0 => LastWord::Nothing(NoPost { id: (), deliveries: 0, out_of_reach: taken.out_of_reach }),
            _ => LastWord::Taken(taken),
        };
        Ok(Err((said, hold)))
    }

    /// The words, and the accounts they go to: those that carry one of these posts and were not told yet.
    async fn last_words(
        &self,
        by: &Actor,
        family: &Family,
        named: &AnnouncementRow,
        posts: Vec<AnnouncementRow>,
        part: Part,
        closed: Closed<'_>,
    ) -> Result<LastWords, ActError> {
        let own = closed.text;
        let mut whereabouts = self.whereabouts(posts.iter()).await?;
        let others = Family {
            root: family.root.clone(),
            // Words that are wrong are corrected where they were said; a word that is named is no reason to clear twice.
            rows: family.rows.iter().filter(|row| part == Part::AllClear || row.id != named.id).cloned().collect(),
        };
        whereabouts.without(&self.told_already(&others, part).await?);
        if closed.dry_run {
            // Shown is who would be told now, and not who might have it by the time it is asked for.
            whereabouts.coming.clear();
        }
        if whereabouts.is_empty() {
            closed.is_as_shown(None)?;
            return Ok(LastWords { posts, whereabouts, tried: None });
        }
        // The newest words are quoted that all have read who are told; where there are none, nothing is quoted.
        // A post that is not known to have stood is quoted only where nothing else can be.
        let told = whereabouts.told();
        let read_by_all = |read: &PostsOn| {
            let has_read = |post: &AnnouncementRow, account| read.get(account).is_some_and(|on| on.contains(&post.id));
            posts.iter().rev().find(|post| told.iter().all(|account| has_read(post, *account)))
        };
        let quoted = read_by_all(&whereabouts.read(false)).or_else(|| read_by_all(&whereabouts.read(true)));
        let newest = posts.iter().rev().find(|post| whereabouts.posts.contains(&post.id));
        let content = self.content(&quoted.or(newest).unwrap_or(named).content).await?;
        let (accounts, what) =
            (whereabouts.accounts(), if part == Part::Correction { "correction" } else { "all-clear" });
        let follows = Follows {
            emergency: family.root.clone(),
            part,
            posts: posts.iter().map(|post| post.id.clone()).collect(),
            reopens: None,
        };
        let urgent = Urgent {
            text: match (own, quoted) {
                (Some(own), _) => own.to_owned(),
                (None, Some(_)) => standard(&content, part),
                (None, None) => unquoted(part).to_owned(),
            },
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
        let about = posts.iter().map(|post| post.id.clone()).collect();
        let tried = Tried { about, ..tried? };
        // Where it is about to go and is stopped with this, nobody was shown any words, and hardly anybody is told.
        if !whereabouts.carry.is_empty() || !whereabouts.uncertain.is_empty() {
            closed.is_as_shown(Some(&tried))?;
        }
        Ok(LastWords { posts, whereabouts, tried: Some(tried) })
    }

    async fn closing_preview(
        &self,
        last: LastWords,
        part: Part,
        ends_hold: Option<String>,
    ) -> Result<ClosingPreview, ActError> {
        let stops = last.whereabouts.rows.iter().filter(|d| is_open(d) && d.desired == Desired::Published).count();
        let waiting = last.whereabouts.waiting(part);
        let post = match &last.tried {
            Some(tried) => Some(self.preview(tried).await?),
            None => None,
        };
        let (drill, out_of_reach) = (self.config().drill, self.out_of_reach(&last.whereabouts));
        Ok(ClosingPreview { dry_run: true, drill, post, stops, waiting, out_of_reach, ends_hold })
    }

    /// These posts are over; what was corrected before stays that.
    pub(super) fn ended(&self, posts: &[AnnouncementRow], how: End, by: &Actor) -> Vec<Change> {
        let (at, by) = (self.clock.now(), by.to_string());
        let ended = Ended { how, by, at };
        let open = posts.iter().filter(|post| post.ended.is_none());
        open.map(|post| Change::Ended(post.id.clone(), Some(ended.clone()))).collect()
    }

    /// An emergency without those of its last words that speak of more than this one does.
    async fn covered(&self, family: &Family, by: &Follows) -> Result<Family, LedgerError> {
        let mut covered = Family { root: family.root.clone(), rows: Vec::new() };
        for row in &family.rows {
            let content = self.content(&row.content).await?;
            let speaks_of_more = content
                .body
                .follows
                .as_ref()
                .is_some_and(|f| f.part == Part::Correction && !f.posts.iter().all(|post| by.posts.contains(post)));
            if !speaks_of_more {
                covered.rows.push(row.clone());
            }
        }
        Ok(covered)
    }

    /// The changes that an emergency's post makes to what was said before when all its persons have given their word.
    pub(super) async fn consequences(
        &self,
        by: &Actor,
        id: &AnnouncementId,
        content: &Content,
    ) -> Result<Vec<Change>, ActError> {
        let Some(follows) = &content.body.follows else { return Ok(Vec::new()) };
        let family =
            Family { root: follows.emergency.clone(), rows: self.ledger.family(follows.emergency.clone()).await? };
        let about: Vec<AnnouncementRow> =
            family.rows.iter().filter(|row| follows.posts.contains(&row.id)).cloned().collect();
        Ok(match follows.part {
            Part::Correction => {
                let why = words!("由 {by} 更正", "corrected by {by}");
                let mut changes = vec![stop(&about, Desired::Removed, Cause::Corrected, why)];
                changes.extend(self.ended(&about, End::Corrected, by));
                // A false warning is not cleared too, and is corrected once.
                changes.extend(overtaken(
                    &self.covered(&family, follows).await?,
                    id,
                    &[Part::AllClear, Part::Correction],
                    None,
                ));
                changes
            }
            Part::AllClear => {
                let mut changes = self.ended(&about, End::AllClear, by);
                let hold = self.standing_hold(&super::kin::hold_name(&follows.emergency));
                changes.extend(hold.as_ref().map(Change::end_of));
                changes
            }
            // An emergency that goes on is not over, and nobody says so any more.
            Part::Update => {
                let over = overtaken(&family, id, &[Part::AllClear], None);
                let ended = about.iter().filter(|row| row.ended.is_some());
                ended.map(|row| Change::Ended(row.id.clone(), None)).chain(over).collect()
            }
        })
    }
}

/// Last words that are not out yet say nothing of what has come since: they would be the newest on their accounts.
pub(crate) fn overtaken(
    family: &Family,
    by: &AnnouncementId,
    parts: &[Part],
    account: Option<&AccountId>,
) -> Option<Change> {
    // Words that were said after it are about it too.
    let before = family.rows.iter().take_while(|row| row.id != *by);
    let said = before.filter(|row| row.follows.as_ref().is_some_and(|(_, part)| parts.contains(part)));
    let posts: Vec<AnnouncementId> = said.map(|row| row.id.clone()).collect();
    let why = words!("已被 {by} 更新", "overtaken by {by}");
    let (reach, desired, cause) = (Reach::NotPublished, Desired::Stopped, Cause::Superseded);
    let stop = Stop { posts, occurrence: None, account: account.cloned(), reach, desired, cause, why };
    (!stop.posts.is_empty()).then(|| Change::Stop(Box::new(stop)))
}

/// An order that stops the deliveries of these posts that are not out; with `Removed`, those that may be out are taken
/// down when they are found.
fn stop(posts: &[AnnouncementRow], desired: Desired, cause: Cause, why: Words) -> Change {
    let posts = posts.iter().map(|post| post.id.clone()).collect();
    let reach = Reach::NotPublished;
    Change::Stop(Box::new(Stop { posts, occurrence: None, account: None, reach, desired, cause, why }))
}

/// Not out, and not given up.
fn is_open(row: &Delivery) -> bool {
    !row.state.is_settled() && row.state != State::Published
}

/// Closing words for accounts that have read different ones.
fn unquoted(part: Part) -> &'static str {
    match part {
        Part::Correction => "【更正】此前发布的预警信息有误，现予撤回，请勿转发，以本条为准。",
        _ => "【解除】此前发布的预警信息现已解除。",
    }
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
