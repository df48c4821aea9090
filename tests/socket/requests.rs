//! What a request may be: bad ones are refused by their own numbers and leave nothing behind.

use std::time::Duration;

use crate::indoors::{DUTY, EDIT, Indoors, NONE, OTHER, VIEW};
use crate::support::simulate;

const JSON: (&str, &str) = ("content-type", "application/json");
/// The longest body.
const MOST_BODY: usize = 1 << 20;

#[test]
fn inputs_66_and_67_are_refused_and_leave_nothing_behind() {
    simulate(async {
        let indoors = Indoors::new(11, "").await;
        let deep = format!(r#"{{"to":["**"],"text":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let good = r#"{"text":"台风","to":["**"]}"#;
        let with = |field: &str| format!(r#"{{"text":"台风","to":["**"],{field}}}"#);
        let rows: Vec<(u16, &str, Vec<u8>)> = vec![
            // No JSON, or not the JSON this is.
            (400, "", deep.into_bytes()),
            (400, "", br#"{"text":"a","text":"b","to":["**"]}"#.to_vec()),
            (400, "", br#"{"text":"a","to":["**"],"to":["sina:**"]}"#.to_vec()),
            (400, "", with(r#""values":{"area":"a","area":"b"}"#).into_bytes()),
            (400, "", with(r#""images":[{"file":"a.png","file":"b.png"}]"#).into_bytes()),
            (400, "", br#"{"text":"\ud800","to":["**"]}"#.to_vec()),
            (400, "", br#"{"text":"\udc00x","to":["**"]}"#.to_vec()),
            (400, "", br#"{"text":NaN,"to":["**"]}"#.to_vec()),
            (400, "", format!("{good} x").into_bytes()),
            (400, "", format!("{good}{good}").into_bytes()),
            (400, "", [b"\xef\xbb\xbf", good.as_bytes()].concat()),
            (400, "", b"{\"text\":\"\xc3\x28\",\"to\":[\"**\"]}".to_vec()),
            (400, "", b"{\"text\":\"\xed\xa0\x80\",\"to\":[\"**\"]}".to_vec()),
            (400, "", b"{\"text\":\"a\nb\",\"to\":[\"**\"]}".to_vec()),
            (400, "", b"{".to_vec()),
            (400, "", b"null".to_vec()),
            (400, "", b"[]".to_vec()),
            (400, "", br#"["text"]"#.to_vec()),
            (400, "", b"\"text\"".to_vec()),
            // Numbers for text, and text for what is none.
            (400, "text", br#"{"text":5,"to":["**"]}"#.to_vec()),
            (400, "text", br#"{"text":["a"],"to":["**"]}"#.to_vec()),
            (400, "to", br#"{"text":"a","to":5}"#.to_vec()),
            (400, "to", br#"{"text":"a","to":[5]}"#.to_vec()),
            (400, "to", br#"{"text":"a","to":{"a":1}}"#.to_vec()),
            (400, "level", with(r#""level":1"#).into_bytes()),
            (400, "hold", with(r#""hold":7200"#).into_bytes()),
            (400, "dry_run", with(r#""dry_run":"yes""#).into_bytes()),
            (400, "id", with(r#""id":7"#).into_bytes()),
            // Understood, and not possible.
            (422, "to", b"".to_vec()),
            (422, "to", b"{}".to_vec()),
            (422, "to", br#"{"text":"a"}"#.to_vec()),
            (422, "to", br#"{"text":"a","to":null}"#.to_vec()),
            (422, "to", br#"{"text":"a","to":[]}"#.to_vec()),
            (422, "to", br#"{"text":"a","to":["nowhere"]}"#.to_vec()),
            (422, "to", br##"{"text":"a","to":["#nobody"]}"##.to_vec()),
            (422, "to", br#"{"text":"a","to":["../**"]}"#.to_vec()),
            (422, "to", br#"{"text":"a","to":["**"],"except":["**"]}"#.to_vec()),
            (422, "except", with(r#""except":["nowhere"]"#).into_bytes()),
            (422, "text", br#"{"to":["**"]}"#.to_vec()),
            (422, "text", br#"{"text":"","to":["**"]}"#.to_vec()),
            (422, "text", "{\"text\":\" \u{200b} \",\"to\":[\"**\"]}".as_bytes().to_vec()),
            (422, "text", br#"{"text":"a\u0000b","to":["**"]}"#.to_vec()),
            (422, "text", "{\"text\":\"a\u{202e}b\",\"to\":[\"**\"]}".as_bytes().to_vec()),
            (422, "text", r#"{"text":"【演练】台风","to":["**"]}"#.as_bytes().to_vec()),
            (422, "text", format!(r#"{{"text":"{}","to":["**"]}}"#, "长".repeat(1000)).into_bytes()),
            (422, "level", with(r#""level":"purple""#).into_bytes()),
            (422, "level", with(r#""level":"RED""#).into_bytes()),
            (422, "level", with(r#""level":"""#).into_bytes()),
            (422, "txet", with(r#""txet":"a""#).into_bytes()),
            (422, "uid", with(r#""uid":0"#).into_bytes()),
            (422, "hold", with(r#""hold":"-1h""#).into_bytes()),
            (422, "expires_after", with(r#""expires_after":"2 fortnights""#).into_bytes()),
            (422, "id", with(r#""id":"../x""#).into_bytes()),
            (422, "id", with(r#""id":"""#).into_bytes()),
            (422, "link", with(r#""link":"javascript:alert(1)""#).into_bytes()),
            (422, "supersedes", with(r#""supersedes":"nothing""#).into_bytes()),
        ];
        let before = indoors.marks();
        for (status, field, body) in rows {
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            let answer = indoors.ask(DUTY, "POST", "/v1/urgent", &[JSON], &body).await;
            assert!(answer.status.as_u16() == status && answer.is_problem(), "{shown}: {answer:?}");
            if !field.is_empty() {
                assert_eq!(answer.value["field"], field, "{shown}: {answer:?}");
            }
            assert_eq!(indoors.marks(), before, "{shown} left something behind");
        }
        indoors.city.sleep(60).await;
        assert!(indoors.standing().is_empty(), "nothing was published");
    });
}

#[test]
fn bodies_of_the_other_requests_are_as_strictly_read() {
    simulate(async {
        let indoors = Indoors::new(12, "").await;
        let sent = indoors.post(DUTY, "/v1/urgent", r#"{"text":"台风","to":["**"],"id":"t"}"#).await;
        assert_eq!(sent.status, 202, "{sent:?}");
        let before = indoors.marks();
        let paths = [
            "/v1/announcements/t/confirm",
            "/v1/announcements/t/correct",
            "/v1/announcements/t/all-clear",
            "/v1/announcements/t/cancel",
            "/v1/announcements/t/delete",
            "/v1/announcements/t/retry",
            "/v1/announcements/t/unhold",
            "/v1/unhold",
            "/v1/holds",
            "/v1/prune",
        ];
        let hash = sent.value["content_hash"].as_str().unwrap();
        let in_order = format!("[\"{hash}\"]");
        let bodies: [&str; 8] = [
            "[]",
            &in_order,
            "null",
            "{\"unheard_of\":1}",
            "{} {}",
            "{\"reason\":\"a\",\"reason\":\"b\"}",
            "\"a\"",
            "5",
        ];
        for path in paths {
            for body in bodies {
                let answer = indoors.post(DUTY, path, body).await;
                let is_refused = answer.status == 400 || answer.status == 422;
                assert!(is_refused && answer.is_problem(), "{path} {body}: {answer:?}");
            }
            let long = vec![b' '; MOST_BODY + 1];
            let answer = indoors.ask(DUTY, "POST", path, &[JSON], &long).await;
            assert!(answer.status == 413 && answer.is_problem(), "{path}: {answer:?}");
            for kind in ["text/plain", "application/jsonp", "multipart/form-data", ""] {
                let answer = indoors.ask(DUTY, "POST", path, &[("content-type", kind)], b"{}").await;
                assert!(answer.status == 415 && answer.is_problem(), "{path} {kind}: {answer:?}");
            }
        }
        assert_eq!(indoors.marks(), before, "nothing was recorded and nothing is held that was not");
        let known = indoors
            .ask(
                OTHER,
                "POST",
                "/v1/announcements/t/retry",
                &[("content-type", "Application/JSON; charset=utf-8")],
                b"{}",
            )
            .await;
        assert_eq!(known.status, 409, "JSON by another spelling: {known:?}");
    });
}

#[test]
fn r32_what_a_request_says_of_itself_changes_nothing() {
    simulate(async {
        let indoors = Indoors::new(13, "").await;
        let claims = [
            ("x-remote-user", "root"),
            ("x-remote-uid", "0"),
            ("authorization", "Basic cm9vdDo="),
            ("authorization", "Basic root"),
            ("forwarded", "for=127.0.0.1;by=root"),
            ("x-forwarded-user", "71004"),
            ("cookie", "uid=0; role=admin"),
            ("x-http-method-override", "GET"),
            ("host", "admin@localhost"),
        ];
        let good = br#"{"text":"a","to":["**"],"level":"blue"}"#;
        let before = indoors.marks();
        for claim in claims {
            for uid in [NONE, VIEW, EDIT] {
                let answer = indoors.ask(uid, "POST", "/v1/urgent", &[JSON, claim], good).await;
                assert_eq!(answer.status, 403, "{uid} {claim:?}");
            }
            assert_eq!(indoors.ask(NONE, "GET", "/v1/status", &[claim], b"").await.status, 403, "{claim:?}");
        }
        assert_eq!(indoors.marks(), before);
    });
}

#[test]
fn input_69_odd_paths_lead_nowhere() {
    simulate(async {
        let indoors = Indoors::new(14, "").await;
        let before = indoors.marks();
        let rows = [
            ("GET", "/v1/announcements/..%2f..%2fstatus", "", 404),
            ("GET", "/v1/announcements/%00", "", 404),
            ("GET", "/v1/announcements/%0d%0aset-cookie:%20a", "", 404),
            ("POST", "/v1/announcements/%1b%5b2J/cancel", "", 404),
            ("POST", "/v1/announcements/%00/confirm", "", 422),
            ("GET", "/v1/announcements/%ff", "", 404),
            ("POST", "/v1/announcements/%c3%28/cancel", "", 404),
            ("DELETE", "/v1/holds/%ff", "", 404),
            ("POST", "/v1/deliveries/%ff/resolve", "", 404),
            ("POST", "/v1/deliveries/99999999999999999999/resolve", "", 404),
            ("POST", "/v1/deliveries/-1/resolve", "", 404),
            ("POST", "//v1//urgent", "", 404),
            ("GET", "/v1/urgent", "POST", 405),
            ("POST", "/v1/status", "GET", 405),
            ("POST", "/v1/holds/x", "DELETE", 405),
        ];
        for (method, path, instead, status) in rows {
            let headers = [JSON, ("x-http-method-override", instead), ("x-method-override", instead)];
            let answer = indoors.ask(DUTY, method, path, &headers, b"").await;
            assert!(answer.status.as_u16() == status && answer.is_problem(), "{method} {path}: {answer:?}");
            let said = answer.value.to_string();
            assert!(!said.contains("\\u0000") && !said.contains("\\u001b"), "{method} {path} shows it raw: {said}");
        }
        assert_eq!(indoors.marks(), before);
    });
}

#[test]
fn r47_a_key_does_its_request_once_and_answers_alike() {
    simulate(async {
        let indoors = Indoors::new(15, "").await;
        let body = r#"{"text":"二号线停运","to":["**"],"level":"blue"}"#.as_bytes();
        let other = r#"{"text":"三号线停运","to":["**"],"level":"blue"}"#.as_bytes();
        let before = indoors.marks();
        let (long, blank) = ("k".repeat(10 << 10), " \t ");
        for key in ["", blank, &long, "caf\u{e9}"] {
            let answer = indoors.ask(DUTY, "POST", "/v1/urgent", &[JSON, ("idempotency-key", key)], body).await;
            assert!(answer.status == 400 && answer.is_problem(), "{key:.9}: {answer:?}");
        }
        let two = [JSON, ("idempotency-key", "a"), ("idempotency-key", "b")];
        let answer = indoors.ask(DUTY, "POST", "/v1/urgent", &two, body).await;
        assert_eq!(answer.status, 400, "two keys are none: {answer:?}");
        assert_eq!(indoors.marks(), before);

        let keyed = [JSON, ("idempotency-key", "a")];
        let first = indoors.ask(DUTY, "POST", "/v1/urgent", &keyed, body).await;
        assert_eq!(first.status, 202, "{first:?}");
        indoors.city.sleep(60).await;
        let after = indoors.marks();
        let again = indoors.ask(DUTY, "POST", "/v1/urgent", &keyed, body).await;
        assert_eq!((again.status, &again.value), (first.status, &first.value));
        let reused = indoors.ask(DUTY, "POST", "/v1/urgent", &keyed, other).await;
        assert!(reused.status == 422 && reused.is_problem(), "{reused:?}");
        assert_eq!(reused.value["field"], "Idempotency-Key");
        assert_eq!(indoors.marks(), after, "nothing twice");
        // Keys are everybody's own.
        let others = indoors.ask(OTHER, "POST", "/v1/urgent", &keyed, other).await;
        assert_eq!(others.status, 202, "{others:?}");
        assert_ne!(others.value["id"], first.value["id"]);
        indoors.city.sleep(60).await;
        let standing = indoors.standing();
        assert_eq!(standing.into_values().collect::<Vec<_>>(), [15, 15]);
    });
}

#[test]
fn r47_the_same_request_twice_at_once_is_one() {
    simulate(async {
        let indoors = Indoors::new(16, "").await;
        let body = r#"{"text":"二号线停运","to":["**"],"level":"blue"}"#.as_bytes();
        let keyed = [JSON, ("idempotency-key", "a")];
        let ask = || indoors.ask(DUTY, "POST", "/v1/urgent", &keyed, body);
        let answers = futures_util::future::join_all((0..8).map(|_| ask())).await;
        for answer in &answers {
            assert_eq!(answer.status, 202, "{answer:?}");
            assert_eq!(answer.value, answers[0].value);
        }
        indoors.city.clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(indoors.standing().into_values().collect::<Vec<_>>(), [15]);
    });
}

#[test]
fn r13_two_persons_are_two_uids_also_when_they_hurry() {
    simulate(async {
        let indoors = Indoors::new(17, "emergency: {confirm: {red: 3}}\n").await;
        let sent = indoors.post(DUTY, "/v1/urgent", r#"{"text":"台风","to":["**"],"id":"t"}"#).await;
        let hash = sent.value["content_hash"].as_str().unwrap();
        let path = "/v1/announcements/t/confirm";
        let body = format!("{{\"content_hash\":\"{hash}\"}}");
        let wrong = format!("{{\"content_hash\":\"{}\"}}", hash.replace(|c: char| c.is_ascii_hexdigit(), "0"));
        assert_eq!(indoors.post(DUTY, path, &body).await.status, 403, "the sender's own word");
        assert_eq!(indoors.post(OTHER, path, &wrong).await.status, 409, "another content");
        assert_eq!(indoors.post(OTHER, path, "{}").await.status, 422);
        // One person who asks eight times at once has one word.
        let asks = (0..8).map(|_| indoors.post(OTHER, path, &body));
        let mut statuses: Vec<u16> =
            futures_util::future::join_all(asks).await.iter().map(|a| a.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 403, 403, 403, 403, 403, 403, 403]);
        indoors.city.sleep(60).await;
        assert!(indoors.standing().is_empty(), "two of three have given their word");
        let third = indoors.post(crate::indoors::ADMIN, path, &body).await;
        assert_eq!((third.status.as_u16(), third.value["state"].as_str()), (202, Some("releasing")));
        indoors.city.sleep(5).await;
        assert_eq!(indoors.standing().into_values().collect::<Vec<_>>(), [15]);
    });
}

#[test]
fn r13_the_last_two_words_at_once_let_it_go_at_once() {
    simulate(async {
        let indoors = Indoors::new(18, "emergency: {confirm: {red: 3}}\n").await;
        let sent = indoors.post(DUTY, "/v1/urgent", r#"{"text":"台风","to":["**"],"id":"t"}"#).await;
        let body = format!("{{\"content_hash\":{}}}", sent.value["content_hash"]);
        let path = "/v1/announcements/t/confirm";
        let (one, two) =
            futures_util::join!(indoors.post(OTHER, path, &body), indoors.post(crate::indoors::ADMIN, path, &body));
        assert_eq!((one.status.as_u16(), two.status.as_u16()), (202, 202), "{one:?} {two:?}");
        indoors.city.sleep(5).await;
        assert_eq!(indoors.standing().into_values().collect::<Vec<_>>(), [15]);
    });
}

#[test]
fn a_look_is_a_look_however_it_is_asked_for() {
    simulate(async {
        let indoors = Indoors::new(19, "").await;
        let body = r#"{"text":"二号线停运","to":["**"],"level":"blue"}"#;
        let keyed = [JSON, ("idempotency-key", "a")];
        let ask = |path, headers| indoors.ask(DUTY, "POST", path, headers, body.as_bytes());
        let before = indoors.marks();
        let look = ask("/v1/urgent?dry_run=true", &keyed).await;
        assert_eq!((look.status.as_u16(), &look.value["dry_run"]), (200, &true.into()), "{look:?}");
        for odd in [
            "/v1/urgent?dry_run=1",
            "/v1/urgent?dry_run",
            "/v1/urgent?dry-run=true",
            "/v1/urgent?dry_run=true&dry_run=false",
        ] {
            let answer = ask(odd, &keyed).await;
            assert!(answer.status == 400 && answer.is_problem(), "{odd}: {answer:?}");
        }
        assert_eq!(indoors.marks(), before, "nothing was sent, and the key is free");
        let sent = ask("/v1/urgent?dry_run=false", &keyed).await;
        assert_eq!(sent.status, 202, "{sent:?}");
        let look = ask("/v1/urgent?dry_run=true", &keyed).await;
        assert_eq!(
            (look.status.as_u16(), &look.value["dry_run"]),
            (200, &true.into()),
            "no answer of before: {look:?}"
        );
    });
}

#[test]
fn a_filter_that_is_not_taken_is_named() {
    simulate(async {
        let indoors = Indoors::new(20, "").await;
        let rows = [
            ("announcements", "state", "state=ready"),
            ("announcements", "state", "state=held&state=nonsense"),
            ("announcements", "account", "account=sina:a"),
            ("announcements", "priority", "priority=Routine"),
            ("announcements", "since", "since=yesterday"),
            ("announcements", "limit", "limit=0"),
            ("announcements", "limit", "limit=1001"),
            ("announcements", "limit", "limit=10&limit=20"),
            ("deliveries", "state", "state=partial"),
            ("deliveries", "cursor", "cursor=x"),
            ("deliveries", "cursor", "cursor=-1"),
            ("deliveries", "unit", "unit=a&unit=b"),
            ("audit", "cursor", "cursor="),
            ("audit", "state", "state=held"),
        ];
        for (list, field, query) in rows {
            let answer = indoors.ask(VIEW, "GET", &format!("/v1/{list}?{query}"), &[], b"").await;
            assert!(answer.status == 422 && answer.value["field"] == field, "{list}?{query}: {answer:?}");
        }
        for fine in
            ["announcements?state=held&state=partial", "deliveries?state=held&state=ready&limit=1000", "audit?cursor=0"]
        {
            assert_eq!(indoors.ask(VIEW, "GET", &format!("/v1/{fine}"), &[], b"").await.status, 200, "{fine}");
        }
        for event in ["-1", "+1", "1e3", "99999999999999999999"] {
            let answer = indoors.ask(VIEW, "GET", "/v1/events", &[("last-event-id", event)], b"").await;
            assert!(answer.status == 400 && answer.is_problem(), "{event}: {answer:?}");
        }
        let body = r#"{"text":"二号线停运","to":["**"],"update":"nothing"}"#;
        let answer = indoors.post(DUTY, "/v1/urgent", body).await;
        assert!(answer.status == 422 && answer.value["field"] == "update", "{answer:?}");
    });
}
