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
        next_at: Some(now()),
        at: now(),
        expires_at: Some(now() + TimeDelta::hours(1)),
        wish: Wish::Out,
        attempt: u16::from(!matches!(state, State::Scheduled | State::Ready | State::Held)),
        looks: 0,
        asked_until: Some(now()),
        begun_at: None,
        called_duplicate: false,
        never_armed: false,
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

/// Every event there is, one example each.
fn events() -> Vec<Event> {
    let answered = |answer| Event::Answered { begun: now(), answer };
    vec![
        Event::Prepared(prepared()),
        Event::PrepareFailed(Failure::NotSent(why())),
        Event::SetAside(why()),
        Event::Edited { content: "h2".into(), at: now(), expires_at: None },
        Event::Withdrawn(Wish::Gone, why()),
        Event::Expired,
        Event::Armed { slot: now(), timeout: Duration::from_secs(10), baseline: None },
        Event::Postponed { until: now(), why: why() },
        Event::GateClosed { until: None, expires_at: None, why: why() },
        Event::GateOpen { at: now(), expires_at: None },
        Event::StoppedBefore { held_until: None, expires_at: None, why: why() },
        answered(Ok(receipt(true))),
        answered(Err(Failure::Unclear(why()))),
        answered(Err(Failure::NotSent(why()))),
        Event::OwnerGone(why()),
        Event::Found(receipt(true)),
        Event::Absent,
        Event::Unseen(why()),
        Event::TurnedDown(Class::Policy, why()),
        Event::Doubted(why()),
        Event::SettledPublished { url: None, post_id: "1".to_owned() },
        Event::SettledNotPublished,
        Event::TriedAgain { at: now(), expires_at: None },
        Event::TakenDown,
        Event::NotTakenDown(Failure::NotSent(why())),
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
    for state in State::ALL {
        for event in events() {
            let pair = (state.as_str().to_owned(), event.name().to_owned());
            let legal = step(&delivery(state), event, now(), &policy()).is_ok();
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
    let sent = |answer| {
        step(&delivery(State::Sending), Event::Answered { begun: now(), answer }, now(), &policy()).unwrap().row
    };
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
    let at = |seconds| step(&unknown, Event::Absent, now() + TimeDelta::seconds(seconds), &policy()).unwrap().row;
    let early = at(3);
    assert_eq!((early.state, early.next_at), (State::Unknown, Some(now() + TimeDelta::seconds(15))));
    assert_eq!(at(60).state, State::Retrying);
    let late = Delivery { expires_at: Some(now() + TimeDelta::seconds(30)), ..unknown.clone() };
    assert_eq!(
        step(&late, Event::Absent, now() + TimeDelta::seconds(60), &policy()).unwrap().row.state,
        State::Expired
    );
    let never = Policy { read_back: ReadBack { after: vec![Duration::from_secs(3)], settle: None }, ..policy() };
    let parked = step(&unknown, Event::Absent, now() + TimeDelta::days(1), &never).unwrap().row;
    assert_eq!((parked.state, parked.next_at), (State::Unknown, None), "a person is needed");
}

#[test]
fn r06_a_withdrawal_while_sending_is_obeyed_when_it_settles() {
    let sending = delivery(State::Sending);
    let withdrawn = step(&sending, Event::Withdrawn(Wish::Stop, why()), now(), &policy()).unwrap().row;
    assert_eq!(withdrawn.state, State::Sending);
    let answer = Event::Answered { begun: now(), answer: Err(Failure::NotSent(why())) };
    assert_eq!(step(&withdrawn, answer, now(), &policy()).unwrap().row.state, State::Cancelled);
    let gone = step(&sending, Event::Withdrawn(Wish::Gone, why()), now(), &policy()).unwrap().row;
    let taken = Event::Answered { begun: now(), answer: Ok(receipt(true)) };
    let out = step(&gone, taken, now(), &policy()).unwrap().row;
    assert_eq!((out.state, out.next_at), (State::Published, Some(now())), "it is taken down at once");
}

#[test]
fn the_tries_are_counted_and_then_a_limit_is_a_limit() {
    let last = Delivery { attempt: 3, ..delivery(State::Sending) };
    let later = Failure::Later(Duration::from_secs(1), Scope::Account, why());
    let row = step(&last, Event::Answered { begun: now(), answer: Err(later) }, now(), &policy()).unwrap().row;
    assert_eq!((row.state, row.class), (State::Failed, Some(Class::Limit)));
}

#[test]
fn r09_a_duplicate_that_is_an_older_post_is_no_receipt() {
    let mut row = delivery(State::Unknown);
    row.called_duplicate = true;
    row.begun_at = Some(now());
    let older = Receipt { accepted_at: now() - TimeDelta::hours(20), ..receipt(true) };
    assert_eq!(step(&row, Event::Found(older), now(), &policy()).unwrap().row.state, State::Failed);
    assert_eq!(step(&row, Event::Found(receipt(true)), now(), &policy()).unwrap().row.state, State::Published);
}

proptest! {
    /// From any state, any events: the fence grows by one a step, nothing is sent after it was published,
    /// and what rests is never due.
    #[test]
    fn no_sequence_of_events_sends_what_is_out(
        start in 0usize..12,
        picks in proptest::collection::vec((0usize..24, 0i64..400), 1..40),
    ) {
        let mut row = delivery(State::ALL[start]);
        let mut clock = now();
        for (pick, seconds) in picks {
            clock += TimeDelta::seconds(seconds);
            let event = events()[pick].clone();
            let armed = matches!(event, Event::Armed { .. });
            if let Ok(next) = step(&row, event, clock, &policy()) {
                prop_assert_eq!(next.row.fence, row.fence + 1);
                if armed {
                    prop_assert!(matches!(row.state, State::Scheduled | State::Ready | State::Retrying | State::Held));
                }
                if matches!(next.row.state, State::Failed | State::Expired | State::Cancelled | State::Deleted) {
                    prop_assert_eq!(next.row.next_at, None);
                }
                if row.state == State::Published {
                    prop_assert!(matches!(next.row.state, State::Published | State::Deleted));
                }
                row = next.row;
            }
        }
    }
}
