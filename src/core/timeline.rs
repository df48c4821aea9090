//! Is it ours: what an account's own timeline proves of a post that was sent (`platforms.md` 4.2).
//!
//! A post is recognised by its key or its words (`likeness`); then the newest id known from before the send, the time,
//! and other deliveries' receipts decide. In doubt nothing is found: a receipt taken from another post would hide a
//! missing one. And in doubt nothing is missing: while the account shows a post from after the send that nobody accounts
//! for, it may be ours in a form that is not recognised, and a person looks.

use chrono::TimeDelta;

use super::Time;
use super::delivery::{Class, Receipt};
use super::likeness::{resembles, same_letters, same_text};
use super::words::{Words, words};

/// A post as a timeline lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub id: String,
    pub text: String,
    /// As it was sent, where the platform keeps that beside what it shows.
    pub source: Option<String>,
    pub url: Option<String>,
    pub created: Option<Time>,
    /// The platform says it cut the text.
    pub truncated: bool,
    /// Our own key, where the platform echoes it.
    pub key: Option<String>,
    /// Whose post it is, by the platform's id of its user.
    pub author: Option<String>,
    /// Everybody can see it.
    pub shown: bool,
    /// It was there, and was taken away by somebody else than us.
    pub gone: Option<(Class, Words)>,
}

/// A post that is looked for on an account's own timeline.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub text: String,
    pub title: Option<String>,
    pub key: String,
    /// Given by the platform to ask again with (`publish_id`, a draft's id), if anything.
    pub ticket: Option<String>,
    pub media: Vec<String>,
    /// The earliest it can have been made.
    pub since: Time,
    /// The latest it can have been made, whatever a platform's clock says; `None`: nobody knows.
    pub until: Option<Time>,
    /// A request for it is known to have begun; otherwise it is only that this ledger cannot know.
    pub was_sent: bool,
    /// Another process may have sent it at its hour, in words that have been changed since: then whatever was posted from
    /// that hour on may be it.
    pub may_be_reworded: bool,
    /// Newest post id known from before it was sent.
    pub above: Option<String>,
    /// Posts that are known to be other deliveries' receipts.
    pub taken: Vec<String>,
    /// The taken ones from before it was sent that stand there, as far as is known: a list that shows none of them has
    /// been cut.
    pub standing: Vec<String>,
    /// Texts of the account's other deliveries of which nobody knows yet whether they are out.
    pub rivals: Vec<String>,
}

/// The outcome of a look at the timeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    Found(Receipt),
    /// Read, reaching back to the send, and not there.
    Absent,
    /// The same, but for these: they were posted since, and nobody accounts for them. The newest first.
    Unaccounted(Vec<Shown>),
    /// The platform keeps our key: sending the same again is how one looks, and posts nothing twice.
    SendAgain,
    /// Read, but it proves nothing: it does not reach back far enough, or was taken and is not shown yet.
    Unproven(Words),
    /// The platform turned it down after taking it.
    TurnedDown(Class, Words),
}

/// How far two clocks may differ before a window by time is worth nothing.
const BEFORE: TimeDelta = TimeDelta::seconds(120);
const AFTER: TimeDelta = TimeDelta::minutes(15);

/// A timeline as far as it was read.
#[derive(Clone, Debug)]
pub struct Page {
    /// Newest first.
    pub posts: Vec<Shown>,
    pub rest: Rest,
    /// Ids grow with time, so that the newest known one is a better line than any clock.
    pub grows: bool,
    /// The platform's clock is ahead of ours by this.
    pub skew: TimeDelta,
    /// Why nothing can be concluded from it: it is not the account's.
    pub foreign: Option<Words>,
}

/// The posts that a page does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The platform says, or lets one conclude, that there are none.
    Nothing,
    /// Older ones, perhaps.
    Older,
    /// Any of them, the newest as well as the oldest: fewer are shown than were asked for, and the platform says that
    /// there are more.
    Any,
}

impl Rest {
    /// By how many posts are shown of how many asked for, and whether the platform says that there are more.
    pub fn of(shown: usize, asked_for: usize, says_more: bool) -> Rest {
        match (shown < asked_for, says_more) {
            (true, false) => Rest::Nothing,
            (true, true) => Rest::Any,
            (false, _) => Rest::Older,
        }
    }
}

/// Looks for the wanted post. It is absent only where the page reaches back to before it was sent: its last post is
/// older than that, or there are none below it and the page shows what is known to stand there.
pub fn look(page: &Page, wanted: &Wanted) -> Look {
    if let Some(why) = &page.foreign {
        return Look::Unproven(why.clone());
    }
    let Page { posts, skew, .. } = page;
    let candidates = posts.iter().filter(|p| page.is_after(p, wanted) && is_ours(p, wanted, *skew));
    let (timely, older): (Vec<&Shown>, Vec<&Shown>) = candidates.partition(|p| is_in_time(p, wanted, *skew));
    // Of two the earliest after the send: a later one is another occurrence's. By their letters alone it has to be one.
    let written: Vec<&&Shown> = timely.iter().filter(|p| is_written(p, wanted)).collect();
    let standing = written.iter().rfind(|p| p.gone.is_none());
    let alone = || timely.first().filter(|_| timely.len() == 1);
    if let Some(found) = standing.or(written.last()).copied().or_else(alone) {
        // A post that was there and was taken away was published, and is not to be posted again.
        if let Some((class, why)) = &found.gone {
            return Look::TurnedDown(*class, why.clone());
        }
        // Two deliveries that differ in a link or in blanks alone look the same here, unless one is shown as it was sent.
        let is_alike = |rival: &String| says(found, rival) && *rival != wanted.text;
        if !is_verbatim(found, wanted) && wanted.rivals.iter().any(is_alike) {
            let id = &found.id;
            return Look::Unproven(words!(
                "{id} 可能是另一条相似的投递",
                "{id} may be that of another delivery whose words look the same"
            ));
        }
        return Look::Found(Receipt {
            post_id: found.id.clone(),
            url: found.url.clone(),
            accepted_at: found.created.map_or(wanted.since, |c| c - *skew),
            shown: found.shown,
            read_back: true,
            ticket: None,
        });
    }
    // Somebody may have said the same by hand since the newest post that is known.
    if let Some(older) = older.last() {
        let id = &older.id;
        return Look::Unproven(words!(
            "时间线上有一条同样的（{id}），按时间早于发送",
            "the timeline has one with these words, {id}, that is older than the send by its time"
        ));
    }
    // By its id it was made before the send, and by its time after it: one of the two is wrong.
    let is_odd = |post: &&Shown| {
        // Platforms tell whole seconds.
        let is_later = post.created.is_some_and(|created| created - *skew + TimeDelta::seconds(2) > wanted.since);
        // The id of an older post: the platform gives its ids anew.
        let is_reused = wanted.standing.contains(&post.id);
        let is_older = !page.is_after(post, wanted) && !wanted.taken.contains(&post.id);
        is_later && (is_reused || is_older) && has_its_words(post, wanted, *skew)
    };
    if let Some(odd) = posts.iter().find(is_odd) {
        let id = &odd.id;
        return Look::Unproven(words!(
            "时间线上有一条同样的（{id}），按编号早于发送，按时间晚于发送",
            "the timeline has one with these words, {id}: older than the send by its id, and newer by its time"
        ));
    }
    let rest = if crate::planted("cut_is_believed") { Rest::Nothing } else { page.rest };
    if rest == Rest::Any {
        let why = "时间线说还有而没有列出，不可作准";
        return Look::Unproven(Words::new(why, "the timeline says that it holds more than it shows"));
    }
    if !page.reaches_back(wanted) {
        if rest != Rest::Nothing {
            let why = "时间线没有回溯到发送之前";
            return Look::Unproven(Words::new(why, "the timeline does not reach back past the send"));
        }
        // The newest one known from before the send may be somebody else's; one of ours may be gone by now.
        let newest = wanted.above.iter().filter(|id| page.grows && !wanted.taken.contains(id));
        let mut known = wanted.standing.iter().chain(newest).peekable();
        let shows_known = crate::planted("cut_is_believed")
            || known.peek().is_none()
            || known.any(|id| posts.iter().any(|post| post.id == *id));
        if !shows_known {
            let why = "时间线没有列出已知的旧帖，不可作准";
            return Look::Unproven(Words::new(
                why,
                "the timeline does not show older posts that are known to stand there",
            ));
        }
    }
    let unaccounted: Vec<Shown> = unaccounted(page, wanted).cloned().collect();
    if unaccounted.is_empty() { Look::Absent } else { Look::Unaccounted(unaccounted) }
}

/// Posts from after the send that are nobody's as far as is known: a server may have made one of them of what was sent.
/// Only posts that resemble it count where no request is known to have begun, unless it may have been reworded since: an
/// account may have been spoken on by hand for years.
pub fn unaccounted<'a>(page: &'a Page, wanted: &'a Wanted) -> impl Iterator<Item = &'a Shown> {
    page.posts.iter().filter(|post| {
        let is_since = page.is_after(post, wanted) && is_in_time(post, wanted, page.skew);
        let is_later =
            post.created.zip(wanted.until).is_some_and(|(created, until)| created - page.skew > until + AFTER);
        // With a key of ours that is another's it is another delivery's. Texts are compared last: that takes longest.
        is_since
            && !is_later
            && post.key.is_none()
            && !wanted.taken.contains(&post.id)
            && (wanted.was_sent || wanted.may_be_reworded || resembles(&wanted.text, &post.text))
            && !wanted.rivals.iter().any(|rival| says(post, rival))
    })
}

impl Page {
    /// With the page that lies below it. Pages may overlap: posts come and go between two readings.
    pub fn extend(&mut self, below: Page) {
        let known: Vec<String> = self.posts.iter().map(|post| post.id.clone()).collect();
        // A page with nothing on it may be the end, or a server that has lost its place.
        if !below.posts.is_empty() {
            self.rest = below.rest;
        }
        self.posts.extend(below.posts.into_iter().filter(|post| !known.contains(&post.id)));
        self.grows &= below.grows;
        self.foreign = self.foreign.take().or(below.foreign);
    }

    /// Not just any older post at its end: one that was put on top says nothing about what lies below the others.
    pub fn reaches_back(&self, wanted: &Wanted) -> bool {
        self.posts.last().is_some_and(|last| !self.is_after(last, wanted))
    }

    fn is_after(&self, post: &Shown, wanted: &Wanted) -> bool {
        match &wanted.above {
            Some(above) if self.grows => newer(&post.id, above),
            // A post below the newest that was known is older, whatever ids look like.
            Some(above) => {
                let place = |id: &String| self.posts.iter().position(|post| post.id == *id);
                let is_below = place(above).zip(place(&post.id)).is_some_and(|(above, post)| post >= above);
                !is_below && is_in_time(post, wanted, self.skew)
            }
            None => is_in_time(post, wanted, self.skew),
        }
    }
}

/// Not older than the send by its time, where it has one.
fn is_in_time(post: &Shown, wanted: &Wanted, skew: TimeDelta) -> bool {
    post.created.is_none_or(|created| created - skew >= wanted.since - BEFORE)
}

fn is_ours(post: &Shown, wanted: &Wanted, skew: TimeDelta) -> bool {
    !wanted.taken.contains(&post.id) && has_its_words(post, wanted, skew)
}

fn has_its_words(post: &Shown, wanted: &Wanted, skew: TimeDelta) -> bool {
    if let Some(key) = &post.key {
        return *key == wanted.key;
    }
    // A post for which this ledger knows of no request may have gone at any time until this process began to look.
    let day = wanted.since + TimeDelta::days(1);
    let latest = wanted.until.filter(|_| !wanted.was_sent).map_or(day, |until| until.max(day));
    let late = post.created.is_some_and(|c| c - skew > latest + AFTER);
    let dated = post.created.is_some() || wanted.above.is_some();
    let is_rivals = || wanted.rivals.iter().any(|rival| says(post, rival));
    let has_its_letters = || dated && same_letters(&wanted.text, &post.text, post.truncated) && !is_rivals();
    !late && (says(post, &wanted.text) || has_its_letters())
}

/// Whether it has these words, by its source or as it is shown.
fn says(post: &Shown, text: &str) -> bool {
    same_text(text, &post.text, post.truncated) || post.source.as_ref().is_some_and(|own| same_text(text, own, false))
}

fn is_written(post: &Shown, wanted: &Wanted) -> bool {
    post.key.is_some() || says(post, &wanted.text)
}

fn is_verbatim(post: &Shown, wanted: &Wanted) -> bool {
    post.text == wanted.text || post.source.as_ref() == Some(&wanted.text)
}

/// Decimal ids by number, however long; others by length and then letters, as their makers do.
pub fn newer(id: &str, than: &str) -> bool {
    let (id, than) = (id.trim_start_matches('0'), than.trim_start_matches('0'));
    (id.len(), id) > (than.len(), than)
}

#[cfg(test)]
mod tests;
