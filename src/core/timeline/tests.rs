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
        may_be_reworded: false,
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
    assert!(matches!(look(&page(&today), &wanted("早安，上海！", Some("90"))), Look::Found(r) if r.post_id == "91"));
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
    assert!(matches!(look(&page(&listed), &wanted(sent, Some("90"))), Look::Unaccounted(posts) if posts.len() == 1));
    let doubted = Wanted { was_sent: false, ..wanted(sent, Some("90")) };
    assert!(matches!(look(&page(&listed), &doubted), Look::Unaccounted(_)));
}

/// A server nobody here wrote may show it in words that cannot be recognised: it is not sent again.
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
    // A resembling post counts also where nothing is known to have been sent, and others do not.
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
    assert_eq!(look(&listed, &wanted("旧", Some("zz-9"))), Look::Unaccounted(vec![ours]), "that one was there before");
    let alone = Page { grows: false, ..page(&[known]) };
    assert_eq!(look(&alone, &wanted("早安", Some("zz-9"))), Look::Absent);
}

proptest! {
    /// Entities, markup, other words, a part of it, nothing at all: a server may make anything of a text.
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
