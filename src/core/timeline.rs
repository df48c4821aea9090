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

/// What is looked for on an account's own timeline.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub text: String,
    pub title: Option<String>,
    pub key: String,
    /// What the platform gave to ask again with (`publish_id`, a draft's id), if anything.
    pub ticket: Option<String>,
    pub media: Vec<String>,
    /// The earliest it can have been made.
    pub since: Time,
    /// The latest it can have been made, whatever a platform's clock says; `None`: nobody knows.
    pub until: Option<Time>,
    /// A request for it is known to have begun; otherwise it is only that this ledger cannot know.
    pub was_sent: bool,
    /// Newest post id known from before it was sent.
    pub above: Option<String>,
    /// Posts that are known to be other deliveries' receipts.
    pub taken: Vec<String>,
    /// Those of them from before it was sent that stand there, as far as is known: a list that shows none of them has
    /// been cut.
    pub standing: Vec<String>,
    /// Texts of the account's other deliveries of which nobody knows yet whether they are out.
    pub rivals: Vec<String>,
}

/// What a look at the timeline came to.
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
    let stands = |p: &&&Shown| p.gone.is_none();
    let as_written = || timely.iter().filter(stands).rfind(|p| is_written(p, wanted));
    let alone = || timely.first().filter(|_| timely.len() == 1);
    let found = as_written().or_else(|| timely.iter().rfind(|p| is_written(p, wanted))).or_else(alone);
    if let Some(found) = found {
        // What was there and was taken away was published, and is not to be posted again.
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
/// Where no request is known to have begun only those count that resemble it: an account may have been spoken on by hand
/// for years.
pub fn unaccounted<'a>(page: &'a Page, wanted: &'a Wanted) -> impl Iterator<Item = &'a Shown> {
    page.posts.iter().filter(|post| {
        // With a key of ours that is another's it is another delivery's.
        let is_nobodys = post.key.is_none()
            && !wanted.taken.contains(&post.id)
            && !wanted.rivals.iter().any(|rival| says(post, rival));
        let is_since = page.is_after(post, wanted) && is_in_time(post, wanted, page.skew);
        let is_later =
            post.created.zip(wanted.until).is_some_and(|(created, until)| created - page.skew > until + AFTER);
        is_nobodys && is_since && !is_later && (wanted.was_sent || resembles(&wanted.text, &post.text))
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
            // What stands below the newest that was known is older, whatever ids look like.
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
    let late = post.created.is_some_and(|c| c - skew > wanted.since + AFTER + TimeDelta::days(1));
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn post(id: &str, text: &str, created: &str) -> Shown {
        Shown {
            id: id.to_owned(),
            text: text.to_owned(),
            source: None,
            url: None,
            created: Some(time(created)),
            truncated: false,
            key: None,
            author: None,
            shown: true,
            gone: None,
        }
    }

    fn wanted(text: &str, above: Option<&str>) -> Wanted {
        Wanted {
            text: text.to_owned(),
            title: None,
            key: "k1".to_owned(),
            ticket: None,
            media: Vec::new(),
            since: time("2026-11-24T00:00:00Z"),
            until: None,
            was_sent: true,
            above: above.map(str::to_owned),
            taken: Vec::new(),
            rivals: Vec::new(),
            standing: Vec::new(),
        }
    }

    fn page(posts: &[Shown]) -> Page {
        Page {
            posts: posts.to_vec(),
            rest: Rest::of(posts.len(), 5, false),
            grows: true,
            skew: TimeDelta::zero(),
            foreign: None,
        }
    }

    #[test]
    fn r09_yesterdays_same_words_are_another_post() {
        let listed = [post("90", "早安，上海！", "2026-11-23T00:00:00Z")];
        assert_eq!(look(&page(&listed), &wanted("早安，上海！", None)), Look::Absent);
        assert_eq!(look(&page(&listed), &wanted("早安，上海！", Some("90"))), Look::Absent);
        let today = [post("91", "早安，上海！", "2026-11-24T00:00:01Z"), listed[0].clone()];
        assert!(
            matches!(look(&page(&today), &wanted("早安，上海！", Some("90"))), Look::Found(r) if r.post_id == "91")
        );
        let mut taken = wanted("早安，上海！", Some("90"));
        taken.taken.push("91".to_owned());
        assert_eq!(look(&page(&today), &taken), Look::Absent);
        // The same words days later are another occurrence's.
        let late = [post("99", "早安，上海！", "2026-11-26T00:00:01Z"), listed[0].clone()];
        let ended = Wanted { until: Some(time("2026-11-24T00:00:15Z")), ..wanted("早安，上海！", Some("90")) };
        assert_eq!(look(&page(&late), &ended), Look::Absent);
    }

    #[test]
    fn r08_a_page_that_does_not_reach_back_proves_nothing() {
        let listed: Vec<Shown> =
            (0..5).rev().map(|n| post(&(95 + n).to_string(), "别的", "2026-11-24T00:00:02Z")).collect();
        // Other deliveries' receipts, all of them.
        let taken = (91..100).map(|id| id.to_string()).collect();
        let wanted = Wanted { taken, ..wanted("早安", Some("90")) };
        let unproven = |page: &Page| matches!(look(page, &wanted), Look::Unproven(_));
        assert!(unproven(&page(&listed)));
        assert!(unproven(&page(&listed[..4])), "the newest one known from before is not shown");
        let gone = Wanted { taken: [wanted.taken.clone(), vec!["90".to_owned()]].concat(), ..wanted.clone() };
        assert_eq!(look(&page(&listed[..4]), &gone), Look::Absent, "it was ours, and was taken down");
        assert!(unproven(&Page { rest: Rest::Older, ..page(&listed[..4]) }), "it says that there is more");
        // One that was put on top is older than the send, and no proof.
        let top = [vec![post("7", "置顶", "2026-01-01T00:00:00Z")], listed.clone()].concat();
        assert!(unproven(&page(&top)));
        let below = [listed, vec![post("90", "旧", "2026-11-23T00:00:00Z")]].concat();
        assert_eq!(look(&page(&below), &wanted), Look::Absent);
        let cut = Page { rest: Rest::Any, ..page(&below) };
        assert!(unproven(&cut), "it reaches back, and says that something is missing: it may be the newest");
    }

    #[test]
    fn r08_a_list_that_lacks_what_is_known_to_stand_there_proves_nothing() {
        let mut known = wanted("早安", None);
        known.standing.push("90".to_owned());
        known.taken = vec!["90".to_owned(), "95".to_owned()];
        assert!(matches!(look(&page(&[]), &known), Look::Unproven(_)), "an empty list");
        let others = [post("95", "别的", "2026-11-24T00:00:02Z")];
        assert!(matches!(look(&page(&others), &known), Look::Unproven(_)), "a list of others alone");
        let whole = [others[0].clone(), post("90", "旧", "2026-11-24T00:00:00Z")];
        assert_eq!(look(&page(&whole), &known), Look::Absent);
    }

    /// A server that was set up anew, or restored from its backup, begins its ids again below those that are known.
    #[test]
    fn r01_a_post_that_is_older_by_its_id_and_newer_by_its_time_is_no_absence() {
        let listed = [post("12", "早安", "2026-11-24T00:00:01Z"), post("11", "旧", "2026-11-23T00:00:00Z")];
        assert!(matches!(look(&page(&listed), &wanted("早安", Some("90"))), Look::Unproven(_)));
        assert_eq!(look(&page(&listed), &wanted("停水", Some("90"))), Look::Absent, "another one's words");
        let within = Wanted { since: time("2026-11-24T00:00:01.730Z"), ..wanted("早安", Some("90")) };
        assert!(matches!(look(&page(&listed), &within), Look::Unproven(_)), "its time has no parts of a second");
        let mut taken = wanted("早安", Some("90"));
        taken.taken.push("12".to_owned());
        assert_eq!(look(&page(&listed), &taken), Look::Absent, "another delivery's receipt");
        // Unless that was of a post from long before: then the id is used again.
        taken.standing.push("12".to_owned());
        assert!(matches!(look(&page(&listed), &taken), Look::Unproven(_)));
    }

    /// A post that somebody made by hand before the send, after the newest that is known, is not the one that was sent.
    #[test]
    fn r09_the_same_words_from_before_the_send_are_no_receipt() {
        let (before, after) = (post("91", "早安", "2026-11-23T23:40:00Z"), post("92", "早安", "2026-11-24T00:00:01Z"));
        assert!(matches!(look(&page(std::slice::from_ref(&before)), &wanted("早安", Some("90"))), Look::Unproven(_)));
        let both = look(&page(&[after, before]), &wanted("早安", Some("90")));
        assert!(matches!(both, Look::Found(receipt) if receipt.post_id == "92"));
    }

    #[test]
    fn r09_of_two_that_differ_in_their_links_alone_neither_takes_the_others_post() {
        let (one, two) = ("【停水】详见 https://a.cn/aa", "【停水】详见 https://a.cn/bb");
        let of = |text: &str, rival: &str| Wanted { rivals: vec![rival.to_owned()], ..wanted(text, Some("90")) };
        let shortened = [post("91", "【停水】详见 http://t.cn/x", "2026-11-24T00:00:01Z")];
        for (text, rival) in [(one, two), (two, one)] {
            assert!(matches!(look(&page(&shortened), &of(text, rival)), Look::Unproven(_)));
        }
        let as_sent = [post("91", two, "2026-11-24T00:00:01Z")];
        assert!(matches!(look(&page(&as_sent), &of(two, one)), Look::Found(_)));
        assert!(matches!(look(&page(&as_sent), &of(one, two)), Look::Unproven(_)));
    }

    /// Of two that begin alike the whole of the short one is not the beginning of the long one.
    #[test]
    fn r09_the_whole_of_another_delivery_is_not_a_part_of_this_one() {
        let (short, long) = ("【停水通知】浦东新区今晚停水", "【停水通知】浦东新区今晚停水至明早，请储水");
        let listed = [post("91", short, "2026-11-24T00:00:01Z"), post("90", "旧", "2026-11-23T00:00:00Z")];
        let alone = look(&page(&listed), &wanted(long, Some("90")));
        assert!(matches!(alone, Look::Unaccounted(_)), "it may have been cut, or be somebody's own");
        let beside = Wanted { rivals: vec![short.to_owned()], ..wanted(long, None) };
        assert_eq!(look(&page(&listed), &beside), Look::Absent);
        let own = Wanted { rivals: vec![long.to_owned()], ..wanted(short, Some("90")) };
        assert!(matches!(look(&page(&listed), &own), Look::Found(_)));
    }

    #[test]
    fn r09_a_clock_that_is_off_is_corrected_by_the_platforms_own() {
        let listed = [post("91", "早安", "2026-11-23T23:50:03Z")];
        let ahead = Page { skew: TimeDelta::minutes(-10), ..page(&listed) };
        assert!(matches!(look(&ahead, &wanted("早安", None)), Look::Found(_)));
        assert_eq!(look(&page(&listed), &wanted("早安", None)), Look::Absent);
    }

    /// Somebody may have said by hand what ours begins with.
    #[test]
    fn r09_the_beginning_of_a_post_is_no_receipt_and_no_absence() {
        let sent = "【世界艾滋病日】今天是世界艾滋病日，各区疾控中心提供免费咨询检测。";
        let cut: String = sent.chars().take(17).collect();
        let listed = [post("91", &cut, "2026-11-24T00:00:01Z"), post("90", "旧", "2026-11-23T00:00:00Z")];
        assert!(
            matches!(look(&page(&listed), &wanted(sent, Some("90"))), Look::Unaccounted(posts) if posts.len() == 1)
        );
        let doubted = Wanted { was_sent: false, ..wanted(sent, Some("90")) };
        assert!(matches!(look(&page(&listed), &doubted), Look::Unaccounted(_)));
    }

    /// What is said of it by a server nobody here wrote: the words may be unrecognisable, and it is not sent again.
    #[test]
    fn r01_absence_is_not_believed_beside_a_post_that_nobody_accounts_for() {
        let below = post("90", "旧", "2026-11-23T00:00:00Z");
        let odd = post("91", "Water will be cut off tonight.", "2026-11-24T00:00:01Z");
        let listed = page(&[odd.clone(), below.clone()]);
        let sent = wanted("今晚停水", Some("90"));
        assert_eq!(look(&listed, &sent), Look::Unaccounted(vec![odd.clone()]));
        // It is somebody's: another delivery's receipt, its words, its key; or it was made before or after the send.
        let theirs = [
            Wanted { taken: vec!["91".to_owned()], ..sent.clone() },
            Wanted { rivals: vec![odd.text.clone()], ..sent.clone() },
            Wanted { above: Some("91".to_owned()), ..sent.clone() },
            Wanted { since: time("2026-11-24T00:05:00Z"), ..sent.clone() },
            Wanted { until: Some(time("2026-11-23T23:40:00Z")), ..sent.clone() },
        ];
        for wanted in theirs {
            assert_eq!(look(&listed, &wanted), Look::Absent, "{wanted:?}");
        }
        let with_a_key = Shown { key: Some("k2".to_owned()), ..odd.clone() };
        assert_eq!(look(&page(&[with_a_key, below.clone()]), &sent), Look::Absent);
        // Where nothing is known to have been sent, posts of others prove nothing but what resembles it does.
        let doubted = Wanted { was_sent: false, ..sent.clone() };
        assert_eq!(look(&listed, &doubted), Look::Absent);
        let alike = post("91", "停水通知：今晚", "2026-11-24T00:00:01Z");
        assert_eq!(look(&page(&[alike.clone(), below.clone()]), &doubted), Look::Unaccounted(vec![alike]));
        // Read closely it is ours.
        let source = Some("今晚停水".to_owned());
        let read = page(&[Shown { source, ..odd }, below]);
        assert!(matches!(look(&read, &sent), Look::Found(receipt) if receipt.post_id == "91"));
    }

    /// Ids need not grow: what stands above the newest that was known is newer, whatever it is called.
    #[test]
    fn r09_a_timeline_has_its_own_order() {
        let (ours, known) = (post("0a-f", "早安", "2026-11-24T00:00:01Z"), post("zz-9", "旧", "2026-11-23T23:59:30Z"));
        let listed = Page { grows: false, ..page(&[ours.clone(), known.clone()]) };
        assert!(matches!(look(&listed, &wanted("早安", Some("zz-9"))), Look::Found(r) if r.post_id == "0a-f"));
        assert_eq!(
            look(&listed, &wanted("旧", Some("zz-9"))),
            Look::Unaccounted(vec![ours]),
            "that one was there before"
        );
        let alone = Page { grows: false, ..page(&[known]) };
        assert_eq!(look(&alone, &wanted("早安", Some("zz-9"))), Look::Absent);
    }

    proptest! {
        /// Whatever a server makes of a text: entities, markup, other words, a part of it, nothing at all.
        #[test]
        fn r01_no_rewriting_of_a_text_makes_a_post_absent(
            sent in "[上海停水通知早安a-z *_#@&<>'.…]{1,80}", seen in "\\PC{0,80}", keeps in 0..4u8,
            is_dated in any::<bool>(), is_known in any::<bool>(), grows in any::<bool>(), others in 0..4usize,
        ) {
            let shown = match keeps {
                0 => seen,
                1 => sent.chars().rev().collect(),
                2 => sent.replace('&', "&amp;").replace('\'', "&#39;").replace('<', "&lt;"),
                _ => sent.chars().filter(|c| c.is_alphanumeric()).collect(),
            };
            let mut ours = post("91", &shown, "2026-11-24T00:00:01Z");
            ours.created = ours.created.filter(|_| is_dated);
            // Other deliveries' posts around it, and an old one below.
            let mut listed: Vec<Shown> =
                (0..others).map(|n| post(&format!("{}", 99 - n), &sent, "2026-11-24T00:00:02Z")).collect();
            listed.extend([ours, post("90", "旧", "2026-11-23T00:00:00Z")]);
            let taken = (0..others).map(|n| format!("{}", 99 - n)).collect();
            let wanted = Wanted { taken, ..wanted(&sent, is_known.then_some("90")) };
            let looked = look(&Page { grows, ..page(&listed) }, &wanted);
            prop_assert!(!matches!(looked, Look::Absent), "{looked:?}");
        }
    }
}
