use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::words;

fn now() -> Time {
    "2026-11-24T00:00:00Z".parse().unwrap()
}

fn policy() -> Policy {
    Policy {
        retry: Retry { first: Duration::from_secs(2), max: Duration::from_secs(300), tries: 3 },
        read_back: ReadBack { after: [3, 15].map(Duration::from_secs).into(), settle: Some(Duration::from_secs(60)) },
        jitter: 0.5,
    }
}

fn prepared() -> Prepared {
    Prepared {
        text: "早安".to_owned(),
        title: None,
        media: vec![],
        attached: vec![],
        key: "k".to_owned(),
        site: None,
        baseline: None,
    }
}

fn receipt(shown: bool) -> Receipt {
    Receipt { post_id: "1".to_owned(), url: None, accepted_at: now(), shown, read_back: false, ticket: None }
}

fn delivery(state: State) -> Delivery {
    Delivery {
        id: DeliveryId(1),
        occurrence: "a".into(),
        announcement: "a".into(),
        account: "sina:shanghai".into(),
        content: "h".into(),
        priority: Priority::Routine,
        state,
        next_at: (!state.is_settled()).then(now),
        at: now(),
        expires_at: Some(now() + TimeDelta::hours(1)),
        cause: match state {
            State::Held => Some(Cause::Hold),
            State::Cancelled => Some(Cause::Absent),
            _ => None,
        },
        desired: if state == State::Cancelled { Desired::Stopped } else { Desired::Published },
        attempt: u16::from(!matches!(state, State::Scheduled | State::Ready | State::Held)),
        looks: 0,
        misses: 0,
        begun_at: None,
        called_duplicate: false,
        doubted: None,
        one_look: false,
        needs_person: false,
        prepared: Some(Arc::new(prepared())),
        receipt: (state == State::Published).then(|| receipt(true)),
        class: None,
        reason: None,
        lateness_ms: None,
        fence: 3,
    }
}

fn why() -> Words {
    words!("因", "why")
}

fn answered(answer: Result<Receipt, Failure>) -> Event {
    Event::Answered { attempt: 1, begun: now(), left: Duration::ZERO, answer }
}

fn withdrawn(desired: Desired, cause: Cause) -> Event {
    Event::Withdrawn { desired, cause, why: why() }
}

fn absent(waited_s: u64) -> Event {
    Event::Absent { waited: Duration::from_secs(waited_s) }
}

fn found(receipt: Receipt) -> Event {
    Event::Found { receipt, waited: Duration::ZERO }
}

fn edited(content: &str) -> Event {
    let (content, priority) = (content.into(), Priority::Routine);
    Event::Edited(Edit { content, priority, at: now(), expires_at: None, held_until: None, doubt: Doubt::None })
}

fn after(row: &Delivery, event: Event) -> Delivery {
    step(row, event, now(), &policy()).unwrap().row
}

/// Every event there is, one example each.
fn events() -> Vec<Event> {
    vec![
        Event::Prepared(prepared()),
        Event::PrepareFailed(Failure::NotSent(why())),
        Event::Unprepared(why()),
        Event::SetAside(why()),
        edited("h2"),
        withdrawn(Desired::Removed, Cause::Person),
        Event::Expired,
        Event::Overtaken,
        Event::Armed { slot: now(), baseline: None },
        Event::Postponed { until: now(), why: why() },
        Event::GateClosed { cause: Cause::Hold, until: None, expires_at: None, why: why() },
        Event::GateOpen { at: now(), expires_at: None },
        Event::StoppedBefore { attempt: 1, stop: Stopped::Withdrawn },
        answered(Ok(receipt(true))),
        answered(Err(Failure::Unclear(why()))),
        answered(Err(Failure::NotSent(why()))),
        Event::OwnerGone { why: why(), left: Duration::ZERO },
        found(receipt(true)),
        absent(0),
        Event::Unseen { why: why(), waited: Duration::ZERO },
        Event::TurnedDown(Class::Policy, why()),
        Event::Doubted { why: why(), one_look: true },
        Event::SettledPublished(receipt(true)),
        Event::SettledNotPublished,
        Event::TriedAgain { at: now(), expires_at: None, doubt: Doubt::None },
        Event::TakenDown,
        Event::NotTakenDown(Failure::NotSent(why())),
        Event::ClockStepped { by: TimeDelta::minutes(4), is_at_once: true },
    ]
}

/// The table of `docs/architecture.md`, read and held against the code: every state with every event.
#[test]
fn the_state_table_of_the_architecture_is_the_code() {
    let page = include_str!("../../../docs/architecture.md");
    let mut allowed: std::collections::BTreeSet<(String, String)> = std::collections::BTreeSet::new();
    let table = page.split("<!-- state table -->").nth(1).expect("the table is marked");
    for line in table.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for state in cells[1].split(',') {
            for event in cells[2].split(',') {
                allowed.insert((state.trim().replace('`', ""), event.trim().replace('`', "")));
            }
        }
    }
    assert!(allowed.len() > 30, "the table was read");
    let mut seen = std::collections::BTreeSet::new();
    // What may happen in a state can depend on the rest of the row.
    let rows = |state| {
        let row = delivery(state);
        let untried = Delivery { attempt: 0, ..row.clone() };
        let removed = Delivery { desired: Desired::Removed, needs_person: true, next_at: Some(now()), ..row.clone() };
        let doubted = Delivery { doubted: Some("h".into()), one_look: true, ..untried.clone() };
        let closed = Delivery { cause: Some(Cause::Closed), ..row.clone() };
        [row, untried, removed, doubted, closed]
    };
    for state in State::ALL {
        for event in events() {
            let pair = (state.as_str().to_owned(), event.name().to_owned());
            let legal = rows(state).iter().any(|row| step(row, event.clone(), now(), &policy()).is_ok());
            assert_eq!(legal, allowed.contains(&pair), "{pair:?}");
            if legal {
                seen.insert(pair);
            }
        }
    }
    assert_eq!(seen, allowed, "the table names nothing that cannot be");
}

#[test]
fn r08_only_proof_of_refusal_is_retried() {
    let sent = |answer| after(&delivery(State::Sending), answered(answer));
    assert_eq!(sent(Err(Failure::NotSent(why()))).state, State::Retrying);
    let later = sent(Err(Failure::Later(Duration::from_secs(30), Scope::Account, why())));
    assert_eq!((later.state, later.next_at), (State::Retrying, Some(now() + TimeDelta::seconds(30))));
    assert_eq!(sent(Err(Failure::Unclear(why()))).state, State::Unknown);
    assert_eq!(sent(Err(Failure::Duplicate(why()))).state, State::Unknown);
    let refused = sent(Err(Failure::Refused(Class::Policy, why())));
    assert_eq!((refused.state, refused.class, refused.next_at), (State::Failed, Some(Class::Policy), None));
    assert_eq!(sent(Ok(receipt(false))).state, State::Accepted);
}

#[test]
fn r08_absence_is_believed_at_the_settling_time_and_not_before() {
    let unknown = delivery(State::Unknown);
    let early = after(&unknown, absent(3));
    assert_eq!((early.state, early.next_at), (State::Unknown, Some(now() + TimeDelta::seconds(12))));
    assert_eq!(after(&unknown, absent(59)).state, State::Unknown);
    assert_eq!(after(&unknown, absent(60)).state, State::Retrying);
    let late = Delivery { expires_at: Some(now() - TimeDelta::seconds(30)), ..unknown.clone() };
    assert_eq!(after(&late, absent(60)).state, State::Expired);
}

#[test]
fn r08_where_absence_is_never_believed_it_is_looked_for_more_and_more_slowly_for_a_day() {
    let never = Policy { read_back: ReadBack { after: vec![Duration::from_secs(3)], settle: None }, ..policy() };
    let mut row = delivery(State::Unknown);
    let (mut clock, mut looks, mut longest) = (now(), 0, TimeDelta::zero());
    while let Some(next) = row.next_at {
        longest = longest.max(next - clock);
        clock = next;
        looks += 1;
        let waited = (clock - now()).to_std().unwrap();
        row = step(&row, Event::Absent { waited }, clock, &never).unwrap().row;
        assert_eq!(row.state, State::Unknown);
    }
    assert!(row.needs_person);
    assert!((20..40).contains(&looks), "{looks} looks");
    assert_eq!(longest, TimeDelta::hours(1));
    assert!((TimeDelta::hours(20)..TimeDelta::hours(30)).contains(&(clock - now())), "{}", clock - now());
}

#[test]
fn a_read_that_fails_uses_up_nothing() {
    // A platform that is down over the settling time, and comes back: its answer then counts.
    let mut row = delivery(State::Unknown);
    let mut clock = now();
    while clock < now() + TimeDelta::minutes(10) {
        let waited = (clock - now()).to_std().unwrap();
        row = step(&row, Event::Unseen { why: why(), waited }, clock, &policy()).unwrap().row;
        assert_eq!(row.state, State::Unknown);
        clock = row.next_at.expect("it goes on looking");
    }
    assert!(row.needs_person, "a person is told meanwhile");
    let waited = (clock - now()).to_std().unwrap();
    assert_eq!(step(&row, Event::Absent { waited }, clock, &policy()).unwrap().row.state, State::Retrying);
}

#[test]
fn r06_a_withdrawal_while_sending_is_obeyed_when_it_settles() {
    let sending = delivery(State::Sending);
    let stopped = after(&sending, withdrawn(Desired::Stopped, Cause::Person));
    assert_eq!(stopped.state, State::Sending);
    let row = after(&stopped, answered(Err(Failure::NotSent(why()))));
    assert_eq!((row.state, row.cause), (State::Cancelled, Some(Cause::Person)));
    let removed = after(&sending, withdrawn(Desired::Removed, Cause::Person));
    let out = after(&removed, answered(Ok(receipt(true))));
    assert_eq!((out.state, out.next_at), (State::Published, Some(now())), "it is taken down at once");
}

#[test]
fn r06_a_take_down_goes_on_until_it_is_confirmed_and_a_person_is_told_when_it_is_refused() {
    let standing = Delivery { desired: Desired::Removed, receipt: Some(receipt(true)), ..delivery(State::Published) };
    let lost = after(&standing, Event::NotTakenDown(Failure::NotSent(why())));
    assert!(!lost.needs_person, "one try that failed is no reason to call anybody");
    let mut row = standing.clone();
    let (mut clock, mut longest) = (now(), TimeDelta::zero());
    for _ in 0..100 {
        let refused = Event::NotTakenDown(Failure::Refused(Class::Policy, why()));
        row = step(&row, refused, clock, &policy()).unwrap().row;
        assert!(row.needs_person);
        let next = row.next_at.expect("it is asked again");
        longest = longest.max(next - clock);
        clock = next;
    }
    assert_eq!(longest, TimeDelta::hours(1));
    assert_eq!(after(&row, Event::TakenDown).state, State::Deleted);
    // By hand, on the platform's own page.
    assert_eq!(after(&row, Event::SettledNotPublished).state, State::Deleted);
    assert!(step(&delivery(State::Published), Event::SettledNotPublished, now(), &policy()).is_err());
    let mut row = standing;
    for _ in 0..=policy().retry.tries {
        row = after(&row, Event::NotTakenDown(Failure::NotSent(why())));
    }
    assert!(row.needs_person, "it has failed again and again");
}

#[test]
fn the_tries_are_counted_and_then_a_limit_is_a_limit() {
    let last = Delivery { attempt: 3, ..delivery(State::Sending) };
    let answer = Err(Failure::Later(Duration::from_secs(1), Scope::Account, why()));
    let row = after(&last, Event::Answered { attempt: 3, begun: now(), left: Duration::ZERO, answer });
    assert_eq!((row.state, row.class), (State::Failed, Some(Class::Limit)));
}

#[test]
fn r09_a_duplicate_that_is_an_older_post_is_no_receipt() {
    let mut row = delivery(State::Unknown);
    row.called_duplicate = true;
    row.begun_at = Some(now());
    let older = Receipt { accepted_at: now() - TimeDelta::hours(20), ..receipt(true) };
    assert_eq!(after(&row, found(older)).state, State::Failed);
    assert_eq!(after(&row, found(receipt(true))).state, State::Published);
}

#[test]
fn what_is_under_review_is_looked_for_more_and_more_seldom_and_a_person_is_told() {
    let mut row = after(&delivery(State::Sending), answered(Ok(receipt(false))));
    let mut looks = 0;
    while let Some(clock) = row.next_at {
        looks += 1;
        let waited = (clock - now()).to_std().unwrap();
        let event = Event::Found { receipt: receipt(false), waited };
        row = step(&row, event, clock, &policy()).unwrap().row;
        assert_eq!(row.state, State::Accepted);
    }
    assert!(row.needs_person && (20..40).contains(&looks), "{looks} looks");
}

#[test]
fn an_event_made_for_another_attempt_is_refused() {
    let second = Delivery { attempt: 2, ..delivery(State::Sending) };
    for event in [answered(Ok(receipt(true))), Event::StoppedBefore { attempt: 1, stop: Stopped::Withdrawn }] {
        assert!(step(&second, event, now(), &policy()).is_err());
    }
}

#[test]
fn what_a_person_or_a_newer_post_stopped_no_edit_brings_back() {
    for cause in [Cause::Person, Cause::Superseded, Cause::Corrected, Cause::Cleared, Cause::Unneeded] {
        let stopped = after(&delivery(State::Ready), withdrawn(Desired::Stopped, cause));
        assert_eq!((stopped.state, stopped.cause), (State::Cancelled, Some(cause)));
        assert!(step(&stopped, edited("h2"), now(), &policy()).is_err(), "{cause:?}");
        let again = Event::TriedAgain { at: now(), expires_at: None, doubt: Doubt::None };
        let expired = Delivery { state: State::Expired, ..stopped };
        assert!(step(&expired, again, now(), &policy()).is_err(), "{cause:?}");
    }
    for cause in [Cause::Absent, Cause::Unaddressed, Cause::Rescheduled, Cause::Closed] {
        let stopped = after(&delivery(State::Ready), withdrawn(Desired::Stopped, cause));
        let back = after(&stopped, edited("h2"));
        assert_eq!((back.state, back.desired, back.cause), (State::Scheduled, Desired::Published, None), "{cause:?}");
        // Unless a person has stopped it as well.
        let both = after(&stopped, withdrawn(Desired::Stopped, Cause::Person));
        assert_eq!(both.cause, Some(Cause::Person));
    }
}

#[test]
fn a_stronger_order_stands_and_a_weaker_one_changes_nothing_of_it() {
    let removed = after(&delivery(State::Sending), withdrawn(Desired::Removed, Cause::Corrected));
    let row = after(&removed, withdrawn(Desired::Stopped, Cause::Person));
    assert_eq!((row.desired, row.cause), (Desired::Removed, Some(Cause::Corrected)));
}

#[test]
fn a_held_post_whose_text_is_edited_for_the_same_hour_still_waits_for_review() {
    let closed = |cause| Event::GateClosed { cause, until: None, expires_at: None, why: why() };
    for cause in [Cause::Hold, Cause::Review] {
        let held = after(&delivery(State::Ready), closed(cause));
        let row = after(&held, edited("h2"));
        assert_eq!((row.state, row.cause, row.content.as_str()), (State::Held, Some(cause), "h2"));
    }
}

#[test]
fn an_edit_sets_the_priority_with_the_content() {
    let edit = Edit {
        content: "h2".into(),
        priority: Priority::Emergency,
        at: now(),
        expires_at: None,
        held_until: None,
        doubt: Doubt::None,
    };
    let row = after(&delivery(State::Ready), Event::Edited(edit));
    assert_eq!((row.state, row.priority), (State::Scheduled, Priority::Emergency));
}

#[test]
fn r09_what_is_tried_again_is_not_asked_for_by_an_earlier_tries_ticket() {
    let mut failed = delivery(State::Failed);
    (failed.attempt, failed.receipt) = (1, Some(receipt(false)));
    let again = after(&failed, Event::TriedAgain { at: now(), expires_at: None, doubt: Doubt::None });
    assert_eq!((again.state, again.receipt), (State::Scheduled, None));
}

#[test]
fn a_doubted_row_is_never_armed_and_one_look_without_it_releases_it() {
    let doubted = after(&delivery(State::Ready), Event::Doubted { why: why(), one_look: true });
    assert_eq!((doubted.state, doubted.next_at), (State::Unknown, Some(now())));
    let held = Delivery { state: State::Held, ..doubted.clone() };
    assert!(step(&held, Event::Armed { slot: now(), baseline: None }, now(), &policy()).is_err());
    let row = after(&doubted, absent(0));
    assert_eq!((row.state, row.doubted), (State::Scheduled, None));
    // Of a ledger that is older than its mark another process may have sent a moment ago.
    let behind = after(&delivery(State::Ready), Event::Doubted { why: why(), one_look: false });
    assert_eq!(after(&behind, absent(0)).state, State::Unknown);
    assert_eq!(after(&behind, absent(60)).state, State::Scheduled);
    // And what it has forgotten may be that an emergency was false: a person has to say that it goes.
    let emergency = Delivery { priority: Priority::Emergency, ..behind };
    let waits = after(&emergency, absent(24 * 3600));
    assert_eq!((waits.state, waits.needs_person), (State::Unknown, true));
    assert_eq!(after(&waits, Event::SettledNotPublished).state, State::Scheduled);
    let stopped = Delivery { desired: Desired::Stopped, ..waits };
    assert_eq!(after(&stopped, absent(60)).state, State::Cancelled, "a person has said that it does not");
    // Also one that was in doubt already, whose post may have been found and taken down since.
    let in_doubt = Delivery { attempt: 1, priority: Priority::Emergency, ..delivery(State::Unknown) };
    let behind = after(&in_doubt, Event::Doubted { why: why(), one_look: false });
    assert_eq!(after(&behind, absent(24 * 3600)).state, State::Unknown);
}

#[test]
fn a_post_that_was_made_another_accounts_is_not_called_absent_where_it_does_not_stand() {
    let sending = Delivery { attempt: 1, ..delivery(State::Sending) };
    let answer = Err(Failure::Astray(why()));
    let astray = after(&sending, Event::Answered { attempt: 1, begun: now(), left: Duration::ZERO, answer });
    for desired in [Desired::Published, Desired::Stopped, Desired::Removed] {
        let row = after(&Delivery { desired, ..astray.clone() }, absent(24 * 3600));
        assert_eq!((row.state, row.needs_person), (State::Unknown, true), "{desired:?}");
    }
    assert_eq!(after(&astray, Event::SettledNotPublished).state, State::Retrying, "unless a person says so");
}

#[test]
fn an_attempt_that_never_began_is_none() {
    let armed = after(&delivery(State::Ready), Event::Armed { slot: now(), baseline: None });
    assert_eq!(armed.attempt, 1);
    let held = Stopped::Held { cause: Cause::Hold, until: None, expires_at: None, why: why() };
    let row = after(&armed, Event::StoppedBefore { attempt: 1, stop: held });
    assert_eq!((row.state, row.cause, row.attempt), (State::Held, Some(Cause::Hold), 0));
}

#[test]
fn a_clock_that_is_stepped_moves_what_waits_and_nothing_that_has_an_hour() {
    let by = TimeDelta::minutes(4);
    for state in [State::Retrying, State::Unknown, State::Accepted] {
        assert_eq!(after(&delivery(state), Event::ClockStepped { by, is_at_once: false }).next_at, Some(now() + by));
    }
    assert!(
        step(&delivery(State::Scheduled), Event::ClockStepped { by, is_at_once: false }, now(), &policy()).is_err()
    );
}

/// Every state a row can come to rest in, and what a person can do about it, or why nothing needs to be done.
#[test]
fn every_resting_state_that_is_no_end_has_a_way_out() {
    for state in [State::Held, State::Unknown, State::Accepted, State::Failed, State::Expired] {
        let row = Delivery { next_at: None, ..delivery(state) };
        let ways = [
            Event::GateOpen { at: now(), expires_at: None },
            Event::SettledPublished(receipt(true)),
            Event::SettledNotPublished,
            Event::TriedAgain { at: now(), expires_at: None, doubt: Doubt::None },
            withdrawn(Desired::Removed, Cause::Person),
        ];
        let out = ways.into_iter().filter(|event| step(&row, event.clone(), now(), &policy()).is_ok()).count();
        assert!(out > 1, "{state:?}");
    }
}

proptest! {
    /// From any state, any events: the fence grows by one a step, nothing is sent after it was published,
    /// what rests is never due, and what a person stopped is never armed.
    #[test]
    fn no_sequence_of_events_sends_what_is_out(
        start in 0usize..12,
        picks in proptest::collection::vec((0usize..27, 0i64..400), 1..60),
    ) {
        let mut row = delivery(State::ALL[start]);
        let mut clock = now();
        let mut is_stopped = false;
        for (pick, seconds) in picks {
            clock += TimeDelta::seconds(seconds);
            let event = events()[pick].clone();
            let armed = matches!(event, Event::Armed { .. });
            let stops = matches!(event, Event::Withdrawn { .. });
            if let Ok(next) = step(&row, event, clock, &policy()) {
                prop_assert_eq!(next.row.fence, row.fence + 1);
                is_stopped |= stops;
                if armed {
                    prop_assert!(matches!(row.state, State::Scheduled | State::Ready | State::Retrying | State::Held));
                    prop_assert!(!is_stopped);
                    prop_assert_eq!(&row.doubted, &None);
                }
                if matches!(next.row.state, State::Failed | State::Expired | State::Cancelled | State::Deleted) {
                    prop_assert_eq!(next.row.next_at, None);
                }
                if row.state == State::Published {
                    prop_assert!(matches!(next.row.state, State::Published | State::Deleted));
                }
                if matches!(next.row.state, State::Held | State::Cancelled) {
                    prop_assert!(next.row.cause.is_some(), "it says why");
                }
                row = next.row;
            }
        }
    }
}

/// Each newer post that takes the place of a repeat's takes down its newest one, and not one more day each time.
#[test]
fn a_post_in_a_chain_takes_down_no_older_days_of_a_repeat() {
    let day = |n: i64, state| Delivery { id: DeliveryId(n), at: now() + TimeDelta::days(n), ..delivery(state) };
    let order = Stop {
        posts: vec!["a".into()],
        occurrence: None,
        account: None,
        reach: Reach::Newest,
        desired: Desired::Removed,
        cause: Cause::Superseded,
        why: words!("新", "new"),
    };
    let all_out = [day(1, State::Published), day(2, State::Published)];
    let gone = |rows: &[Delivery]| stopped(rows, &order, now()).iter().map(|step| step.row.id.0).collect::<Vec<_>>();
    assert_eq!(gone(&all_out), [2]);
    assert_eq!(gone(&[day(1, State::Published), day(2, State::Deleted)]), [] as [i64; 0]);
}
