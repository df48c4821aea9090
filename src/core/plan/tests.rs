use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::announcement::{Body, Content, Priority};

const NOW: &str = "2026-11-24T00:00:00Z";

fn now() -> Time {
    NOW.parse().unwrap()
}

fn announcement(id: &str, text: &str, timing: Timing) -> Announcement {
    let body = Body {
        text: text.to_owned(),
        link: None,
        images: Vec::new(),
        variants: BTreeMap::new(),
        to: vec!["**".to_owned()],
        except: Vec::new(),
        priority: Priority::Routine,
        level: None,
        timing,
        expires_after: None,
        catch_up: None,
        together: None,
        supersedes: None,
        hold_exempt: None,
        standard: false,
        persons: None,
        silence: None,
        alert_sent: None,
        follows: None,
        closing: None,
    };
    let content = Content { body, accounts: BTreeSet::from(["sina:shanghai".into()]) };
    Announcement { id: id.into(), file: "a.yaml".to_owned(), line: 1, content, saved: None, says_now: false }
}

fn at(id: &str, text: &str, hours: i64) -> Announcement {
    announcement(id, text, Timing::At(now() + TimeDelta::hours(hours)))
}

fn desired(list: &[Announcement]) -> Desired {
    let announcements = list.iter().map(|a| (a.id.clone(), a.clone())).collect();
    Desired { announcements, ..Desired::default() }
}

/// How the ledger knows an announcement, its deliveries in these numbers.
fn known_as(a: &Announcement, release: Time, pending: u32, ended: u32, out: u32) -> KnownAnnouncement {
    let row = AnnouncementRow {
        id: a.id.clone(),
        file: a.file.clone(),
        line: 1,
        content: a.content.hash(),
        body: a.content.body.hash(),
        edited: None,
        priority: Priority::Routine,
        supersedes: None,
        planned_to: None,
        withdrawn: None,
        first_seen: now() - TimeDelta::hours(1),
        follows: None,
        ended: None,
        version: 1,
    };
    let occurrence = KnownOccurrence { release, is_stopped: false, pending, ended, taken_out: 0, out };
    let occurrences = BTreeMap::from([(OccurrenceId::once(&a.id), occurrence)]);
    KnownAnnouncement { row, occurrences, superseded: BTreeSet::new(), was_out: false }
}

fn known(list: Vec<KnownAnnouncement>) -> Known {
    Known { announcements: list.into_iter().map(|k| (k.row.id.clone(), k)).collect() }
}

fn planned(desired: &Desired, known: &Known, refused: Option<&Prune>) -> Plan {
    answered(desired, known, None, refused)
}

/// With a prune that a person was asked about, and one that was refused.
fn answered(desired: &Desired, known: &Known, asked: Option<&Prune>, refused: Option<&Prune>) -> Plan {
    let publish = Publish::default();
    let of = |prune: Option<&Prune>| prune.iter().flat_map(|p| p.announcements.clone()).collect();
    let (asked, refused): (BTreeSet<_>, BTreeSet<_>) = (of(asked), of(refused));
    let zone = chrono_tz::Asia::Shanghai;
    let rules = Rules { publish: &publish, zone, is_new_zone: false, asked: &asked, refused: &refused };
    plan(desired, known, now(), &rules)
}

#[test]
fn a_new_one_is_added_and_the_same_one_left_alone() {
    let a = at("a", "x", 5);
    let plan = planned(&desired(std::slice::from_ref(&a)), &Known::default(), None);
    assert!(
        matches!(plan.actions.as_slice(), [Action::Put { is_new: true, occurrences, .. }] if occurrences.len() == 1)
    );
    let again = planned(
        &desired(std::slice::from_ref(&a)),
        &known(vec![known_as(&a, now() + TimeDelta::hours(5), 1, 0, 0)]),
        None,
    );
    assert_eq!(again.actions, []);
}

#[test]
fn r03_what_is_out_is_never_published_again_and_reported_once() {
    let (old, new) = (at("a", "x", -1), at("a", "y", 3));
    let mut was = known_as(&old, now() - TimeDelta::hours(1), 0, 0, 1);
    let plan = planned(&desired(std::slice::from_ref(&new)), &known(vec![was.clone()]), None);
    assert!(matches!(plan.actions.as_slice(), [Action::EditedAfterPublication(..)]));
    was.row.edited = Some(new.content.hash());
    assert_eq!(planned(&desired(&[new]), &known(vec![was]), None).actions, []);
}

#[test]
fn r03_a_moved_announcement_is_the_same_and_a_removed_one_is_cancelled() {
    let a = at("a", "x", 5);
    let mut moved = a.clone();
    moved.file = "b.yaml".to_owned();
    let was = known_as(&a, now() + TimeDelta::hours(5), 1, 0, 0);
    assert_eq!(planned(&desired(&[moved]), &known(vec![was.clone()]), None).actions, [Action::Moved("a".into())]);
    let other = at("b", "z", 6);
    let both = known(vec![was, known_as(&other, now() + TimeDelta::hours(6), 1, 0, 0)]);
    let plan = planned(&desired(&[other]), &both, None);
    assert!(matches!(plan.actions.as_slice(), [Action::Withdraw(_)]));
}

#[test]
fn r03_an_emptied_queue_cancels_nothing_until_a_person_says_so() {
    let a = at("a", "x", 5);
    let was = known(vec![known_as(&a, now() + TimeDelta::hours(5), 1, 0, 0)]);
    let plan = planned(&Desired::default(), &was, None);
    assert_eq!(plan.actions, []);
    let blocked = plan.blocked.expect("it waits");
    let refused = planned(&Desired::default(), &was, Some(&blocked));
    assert!(
        refused.actions.is_empty() && refused.blocked.is_none() && refused.refused.len() == 1,
        "not asked for twice"
    );
    // Back, and gone again: that is another loss, and the refusal does not speak of it.
    let back = planned(&desired(std::slice::from_ref(&a)), &was, Some(&blocked));
    assert!(back.refused.is_empty());
    let gone = Desired { folder_gone: true, ..Desired::default() };
    assert!(planned(&gone, &was, None).blocked.is_some());
}

#[test]
fn r03_more_than_a_fifth_at_once_waits_and_fewer_go() {
    let all: Vec<Announcement> = (0..30).map(|n| at(&format!("a{n:02}"), "x", 5)).collect();
    let was = known(all.iter().map(|a| known_as(a, now() + TimeDelta::hours(5), 1, 0, 0)).collect());
    assert!(planned(&desired(&all[7..]), &was, None).blocked.is_some(), "seven of thirty");
    let plan = planned(&desired(&all[5..]), &was, None);
    assert!(plan.blocked.is_none());
    assert_eq!(plan.actions.len(), 5);
}

/// Much was gone at once, and time goes by: some of it is released, some is put back, others are added.
#[test]
fn r03_what_a_person_was_asked_about_waits_for_the_answer_however_little_is_left() {
    let all: Vec<Announcement> = (0..16).map(|n| at(&format!("a{n:02}"), "x", 5)).collect();
    let of =
        |list: &[Announcement]| known(list.iter().map(|a| known_as(a, now() + TimeDelta::hours(5), 1, 0, 0)).collect());
    let asked = planned(&desired(&all[8..]), &of(&all), None).blocked.unwrap();
    assert_eq!(asked.announcements.len(), 8);
    let many: Vec<Announcement> = (0..100).map(|n| at(&format!("b{n}"), "x", 5)).collect();
    let wider = [&all[..], &many].concat();
    for (wish, was, left) in [
        (desired(&all[8..]), of(&all[3..]), 5),
        (desired(&all[7..]), of(&all), 7),
        (desired(&wider[8..]), of(&wider), 8),
    ] {
        let open = answered(&wish, &was, Some(&asked), None);
        assert_eq!(open.blocked.unwrap().announcements.len(), left);
        assert!(open.actions.is_empty());
        let refused = answered(&wish, &was, None, Some(&asked));
        assert!(refused.actions.is_empty() && refused.blocked.is_none(), "it was refused: each of them is kept");
        assert_eq!(refused.refused.len(), left);
    }
    // One that was never asked about goes by itself, whatever else is open.
    let open = answered(&desired(&all[9..]), &of(&all), Some(&asked), None);
    assert_eq!(open.actions, [Action::Withdraw(all[8].id.clone())]);
    assert_eq!(open.blocked, Some(asked.clone()));
    let other = answered(&desired(&all[9..]), &of(&all), None, Some(&asked));
    assert_eq!(other.actions, [Action::Withdraw(all[8].id.clone())]);
}

fn repeated(id: &str, text: &str, cron: &str) -> Announcement {
    let repeat =
        crate::core::announcement::Repeat { cron: cron.to_owned(), from: None, until: None, skip: BTreeSet::new() };
    announcement(id, text, Timing::Repeat(repeat))
}

fn each_hour(id: &str, text: &str) -> Announcement {
    repeated(id, text, "0 * * * *")
}

/// As the ledger knows a repeat, with these hours from now and how each of them stands.
fn known_repeat(a: &Announcement, hours: &[(i64, u32, u32, bool)]) -> KnownAnnouncement {
    let mut k = known_as(a, now(), 0, 0, 0);
    k.row.planned_to = Some(now() + AHEAD);
    k.was_out = hours.iter().any(|(_, _, out, _)| *out > 0);
    let of = |(hour, pending, out, is_stopped): &(i64, u32, u32, bool)| {
        let release = now() + TimeDelta::hours(*hour);
        let (pending, out, is_stopped) = (*pending, *out, *is_stopped);
        let name = OccurrenceId::at(&a.id, release, chrono_tz::Asia::Shanghai);
        (name, KnownOccurrence { release, is_stopped, pending, ended: 0, taken_out: 0, out })
    };
    k.occurrences = hours.iter().map(of).collect();
    k
}

/// An hour is the same whatever it is called: that of a repeat, of a single announcement, or by another zone.
#[test]
fn r03_an_hour_keeps_its_name_when_a_repeat_becomes_a_single_one() {
    let repeat = each_hour("a", "x");
    let name = |hour: i64| OccurrenceId::at(&"a".into(), now() + TimeDelta::hours(hour), chrono_tz::Asia::Shanghai);
    // Held over, not sent: it is edited under the name it has.
    let held = known_repeat(&repeat, &[(-1, 4, 0, false), (1, 4, 0, false)]);
    let plan = planned(&desired(&[at("a", "y", -1)]), &known(vec![held]), None);
    assert!(
        matches!(&plan.actions[..], [Action::Reschedule(_, gone), Action::Put { occurrences, .. }]
        if *gone == [name(1)] && occurrences[0].0 == name(-1)),
        "{plan:?}"
    );
    // A person cancelled it: nothing goes.
    let stopped = known_repeat(&repeat, &[(1, 0, 0, true)]);
    let plan = planned(&desired(&[at("a", "y", 1)]), &known(vec![stopped]), None);
    assert!(matches!(&plan.actions[..], [Action::Put { occurrences, .. }] if occurrences.is_empty()), "{plan:?}");
    // It is out: what is to be sent "now", or at an hour that is over, is not sent again; an hour to come is another one.
    let out = known_repeat(&repeat, &[(-2, 0, 4, false), (1, 4, 0, false)]);
    for over in [at("a", "y", -2), at("a", "y", -1), announcement("a", "y", Timing::Now)] {
        let plan = planned(&desired(&[over]), &known(vec![out.clone()]), None);
        assert!(
            matches!(&plan.actions[..], [Action::EditedAfterPublication(..), Action::Reschedule(_, gone)]
            if *gone == [name(1)]),
            "{plan:?}"
        );
    }
    let plan = planned(&desired(&[at("a", "y", 5)]), &known(vec![out]), None);
    assert!(
        matches!(&plan.actions[..], [Action::Reschedule(..), Action::Put { occurrences, .. }]
        if occurrences.len() == 1),
        "{plan:?}"
    );
}

/// A repeat that was ended, or is counted in another zone, is compared hour by hour.
#[test]
fn a_repeat_that_comes_back_has_its_hours_again_and_another_zone_has_others() {
    let repeat = each_hour("a", "x");
    let mut ended = known_repeat(&repeat, &[(-2, 0, 4, false), (1, 0, 0, false)]);
    ended.row.planned_to = None;
    let plan = planned(&desired(std::slice::from_ref(&repeat)), &known(vec![ended]), None);
    let again = OccurrenceId::at(&"a".into(), now() + TimeDelta::hours(1), chrono_tz::Asia::Shanghai);
    assert!(
        matches!(&plan.actions[..], [Action::Put { occurrences, .. }]
        if occurrences.iter().any(|(o, _)| *o == again)),
        "{plan:?}"
    );

    let daily = repeated("a", "x", "0 10 * * *");
    let was = known(vec![known_repeat(&daily, &[(2, 4, 0, false)])]);
    let publish = Publish::default();
    let (zone, none) = (chrono_tz::Asia::Tokyo, BTreeSet::new());
    let rules = Rules { publish: &publish, zone, is_new_zone: true, asked: &none, refused: &none };
    let plan = super::plan(&desired(&[daily]), &was, now(), &rules);
    let in_tokyo = now() + TimeDelta::hours(1);
    assert!(
        matches!(&plan.actions[..], [Action::Reschedule(_, gone), Action::Put { occurrences, .. }]
        if gone.len() == 1 && occurrences[0].1 == in_tokyo),
        "{plan:?}"
    );
}

#[test]
fn a_file_that_cannot_be_read_leaves_its_announcements_in_force() {
    let (a, b) = (at("a", "x", 5), at("b", "y", 5));
    let was = known(vec![known_as(&a, now() + TimeDelta::hours(5), 1, 0, 0)]);
    let mut wish = desired(&[b]);
    wish.unread_files.insert("a.yaml".to_owned());
    assert!(planned(&wish, &was, None).actions.iter().all(|a| matches!(a, Action::Put { is_new: true, .. })));
    wish.unread_files.clear();
    wish.standing.insert("a".into());
    assert!(planned(&wish, &was, None).actions.iter().all(|a| matches!(a, Action::Put { is_new: true, .. })));
}

#[test]
fn what_a_person_cancelled_does_not_come_back_and_what_the_queue_did_does() {
    let a = at("a", "x", 5);
    let mut was = known_as(&a, now() + TimeDelta::hours(5), 0, 1, 0);
    was.row.withdrawn = Some(Withdrawal::Person("duty(1000)".to_owned()));
    assert_eq!(planned(&desired(&[at("a", "edited", 5)]), &known(vec![was.clone()]), None).actions, []);
    was.row.withdrawn = Some(Withdrawal::Queue);
    assert!(matches!(
        planned(&desired(&[a]), &known(vec![was]), None).actions.as_slice(),
        [Action::Put { is_new: false, .. }]
    ));
}

#[test]
fn an_at_long_past_is_put_and_expires() {
    let a = at("a", "x", -2000);
    let expiry = |a: &Announcement| a.content.body.lasts(&Publish::default());
    assert_eq!(expiry(&a), Some(Duration::from_secs(3600)));
    let plan = planned(&desired(&[a]), &Known::default(), None);
    assert!(matches!(plan.actions.as_slice(), [Action::Put { .. }]));
}

proptest! {
    /// R3: whatever is edited, nothing that is out is ever planned again.
    #[test]
    fn r03_no_edit_plans_what_is_out(
        edits in proptest::collection::vec((0u8..4, 0usize..6, -3i64..6, any::<bool>()), 1..12),
        out in proptest::collection::vec(any::<bool>(), 6),
    ) {
        let base: Vec<Announcement> = (0..6).map(|n| at(&format!("a{n}"), "x", 1 + n)).collect();
        let was = known(base.iter().zip(&out).map(|(a, out)| {
            let Timing::At(release) = a.content.body.timing else { unreachable!() };
            known_as(a, release, u32::from(!out), 0, u32::from(*out))
        }).collect());
        let mut list = base.clone();
        for (kind, which, hours, flag) in edits {
            if list.is_empty() { break; }
            let which = which % list.len();
            match kind {
                0 => { list.remove(which); }
                1 => list[which].content.body.text = format!("edited {hours}"),
                2 => list[which].content.body.timing = Timing::At(now() + TimeDelta::hours(hours)),
                _ => list[which].file = if flag { "b.yaml" } else { "c.yaml" }.to_owned(),
            }
        }
        let plan = planned(&desired(&list), &was, None);
        for action in &plan.actions {
            let touched: Vec<&AnnouncementId> = match action {
                Action::Put { id, occurrences, .. } if !occurrences.is_empty() => vec![id],
                Action::Withdraw(id) => vec![id],
                _ => vec![],
            };
            for id in touched {
                let n: usize = id.as_str()[1..].parse().unwrap();
                prop_assert!(!out[n], "{action:?}");
            }
        }
    }
}

/// A day of a repeat of every other second is written in pieces that join, with room for the rest of the folder between.
#[test]
fn a_dense_repeat_is_written_piece_by_piece() {
    let repeat = |cron: &str| {
        let repeat = super::super::announcement::Repeat {
            cron: cron.to_owned(),
            from: None,
            until: None,
            skip: BTreeSet::new(),
        };
        announcement("a", "x", Timing::Repeat(repeat))
    };
    for (cron, a_day, pieces) in [("*/2 * * * * *", 43_200, 22), ("0 8 * * *", 1, 1)] {
        let a = repeat(cron);
        let mut known = known(vec![]);
        let (mut hours, mut passes) = (Vec::new(), 0);
        loop {
            let plan = planned(&desired(std::slice::from_ref(&a)), &known, None);
            let [Action::Put { occurrences, planned_to, .. }] = plan.actions.as_slice() else {
                panic!("{:?}", plan.actions)
            };
            passes += 1;
            hours.extend(occurrences.iter().map(|(_, at)| *at));
            let mut row = known_as(&a, now(), 0, 0, 0);
            row.row.planned_to = *planned_to;
            row.occurrences.clear();
            known.announcements.insert(a.id.clone(), row);
            if !plan.actions[0].goes_on(now()) {
                break;
            }
        }
        assert_eq!((hours.len(), passes), (a_day, pieces), "{cron}");
        assert!(hours.windows(2).all(|w| w[1] - w[0] == TimeDelta::seconds(2)));
        assert_eq!(planned(&desired(&[a]), &known, None).actions, []);
    }
}
