//! Who may do what, on every path and by every method.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use fabu::core::delivery::State;
use serde_json::Value;

use crate::indoors::{ACCESS, ADMIN, Answer, DUTY, EDIT, Indoors, NONE, VIEW};
use crate::outdoors::{Outdoors, answer, connect_as, is_root, request, runtime};
use crate::support::{all, in_state, simulate};

/// What each path takes and from which role on, as it is promised; the document has to say the same.
const PROMISED: [(&str, &[(&str, u32)]); 25] = [
    ("/v1/health", &[("GET", NONE)]),
    ("/v1/openapi.json", &[("GET", VIEW)]),
    ("/v1/status", &[("GET", VIEW)]),
    ("/v1/announcements", &[("GET", VIEW)]),
    ("/v1/announcements/{id}", &[("GET", VIEW)]),
    ("/v1/deliveries", &[("GET", VIEW)]),
    ("/v1/events", &[("GET", VIEW)]),
    ("/v1/audit", &[("GET", VIEW)]),
    ("/v1/plan", &[("GET", VIEW)]),
    ("/metrics", &[("GET", VIEW)]),
    ("/v1/urgent", &[("POST", DUTY)]),
    ("/v1/announcements/{id}/confirm", &[("POST", DUTY)]),
    ("/v1/announcements/{id}/correct", &[("POST", DUTY)]),
    ("/v1/announcements/{id}/all-clear", &[("POST", DUTY)]),
    ("/v1/announcements/{id}/unhold", &[("POST", DUTY)]),
    ("/v1/holds", &[("GET", VIEW), ("POST", DUTY)]),
    ("/v1/holds/{id}", &[("DELETE", DUTY)]),
    ("/v1/held", &[("GET", VIEW)]),
    ("/v1/unhold", &[("POST", DUTY)]),
    ("/v1/announcements/{id}/cancel", &[("POST", EDIT)]),
    ("/v1/announcements/{id}/delete", &[("POST", EDIT)]),
    ("/v1/announcements/{id}/retry", &[("POST", EDIT)]),
    ("/v1/deliveries/{id}/candidates", &[("GET", EDIT)]),
    ("/v1/deliveries/{id}/resolve", &[("POST", EDIT)]),
    ("/v1/prune", &[("POST", EDIT)]),
];
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
const ROLES: [u32; 5] = [NONE, VIEW, EDIT, DUTY, ADMIN];

/// Path, and method with the role it needs, of everything described.
type Described = BTreeMap<String, BTreeMap<String, u32>>;

/// Reads `GET /v1/openapi.json`.
fn described(document: &Value) -> Described {
    let role = |operation: &Value| match operation["x-role"].as_str().unwrap() {
        "none" => NONE,
        "view" => VIEW,
        "edit" => EDIT,
        "duty" => DUTY,
        other => panic!("{other}: no operation needs this"),
    };
    let methods = |item: &Value| {
        let all = item.as_object().unwrap().iter();
        all.map(|(method, operation)| (method.to_uppercase(), role(operation))).collect()
    };
    let paths = document["paths"].as_object().unwrap().iter();
    paths.map(|(path, item)| (path.clone(), methods(item))).collect()
}

async fn ask(indoors: &Indoors, uid: u32, method: &str, path: &str) -> Answer {
    indoors.ask(uid, method, path, &[("content-type", "application/json")], b"").await
}

#[test]
fn r33_the_document_says_of_every_route_which_role_it_needs() {
    simulate(async {
        let indoors = Indoors::new(1, "").await;
        let document = ask(&indoors, VIEW, "GET", "/v1/openapi.json").await;
        assert_eq!((document.status.as_u16(), &*document.kind), (200, "application/json"));
        let methods = |all: &[(&str, u32)]| all.iter().map(|(method, role)| ((*method).to_owned(), *role)).collect();
        let promised: Described = PROMISED.iter().map(|(path, all)| ((*path).to_owned(), methods(all))).collect();
        assert_eq!(described(&document.value), promised);
        assert_eq!(document.value["openapi"], "3.1.0");
        // Whoever may not read it learns no path from it.
        assert_eq!(ask(&indoors, NONE, "GET", "/v1/openapi.json").await.status, 403);
    });
    // Nothing is routed beside the table that is described too.
    let routed = |text: &str| text.matches(".route(").count();
    assert_eq!(routed(include_str!("../../src/api/mod.rs")), 0);
    assert_eq!(routed(include_str!("../../src/api/routes.rs")), 1);
}

#[test]
fn r33_every_route_and_method_asks_for_its_role_before_anything_else() {
    simulate(async {
        let indoors = Indoors::new(1, "").await;
        let document = ask(&indoors, VIEW, "GET", "/v1/openapi.json").await.value;
        let before = indoors.marks();
        for (template, methods) in described(&document) {
            let path = template.replace("{id}", "999");
            let mut takes: BTreeSet<&str> = methods.keys().map(String::as_str).collect();
            // Where there is a GET there is a HEAD.
            takes.extend(methods.contains_key("GET").then_some("HEAD"));
            for method in METHODS {
                let needed = methods.get(if method == "HEAD" { "GET" } else { method }).copied();
                for role in ROLES {
                    let answer = ask(&indoors, role, method, &path).await;
                    let (status, case) = (answer.status.as_u16(), format!("{role} {method} {path}: {answer:?}"));
                    match needed {
                        Some(needed) if role >= needed => assert!(status != 403 && status != 405, "{case}"),
                        Some(_) => assert_eq!(status, 403, "{case}"),
                        None => assert_eq!(status, if role >= VIEW { 405 } else { 403 }, "{case}"),
                    }
                    assert!(status < 400 || method == "HEAD" || answer.is_problem(), "{case}");
                    let allowed: BTreeSet<&str> = answer.allow.split(',').filter(|m| !m.is_empty()).collect();
                    assert_eq!(allowed, if status == 405 { takes.clone() } else { BTreeSet::new() }, "{case}");
                    if methods.contains_key(method) {
                        let told = &document["paths"][&template][method.to_lowercase()]["responses"];
                        let told = &told[status.to_string()]["content"];
                        assert!(told.get(&answer.kind).is_some(), "not described: {case}");
                    }
                }
            }
        }
        assert_eq!(indoors.marks(), before, "an empty request does nothing, whoever sends it");
    });
}

#[test]
fn r33_every_operation_asks_every_uid_anew_on_a_connection_that_is_kept() {
    if !is_root() {
        // Only root may ask as somebody else; the same is tried indoors with the uid given.
        return;
    }
    runtime().block_on(async {
        let city = Outdoors::new(1, ACCESS).await;
        let _daemon = city.start().await;
        let described = described(&city.ask("GET", "/v1/openapi.json", "").value);
        assert_eq!(described.len(), PROMISED.len());
        for role in ROLES {
            let mut kept = connect_as(&city.socket(), role);
            let mut ask = |method: &str, path: &str| {
                kept.write_all(request(method, path, "{}").as_bytes()).unwrap();
                answer(&mut kept, &city.clock).expect("the connection is kept").status
            };
            for (path, methods) in &described {
                let path = path.replace("{id}", "999");
                for (method, needed) in methods {
                    // The stream has no end, and nothing could be asked behind it.
                    if path == "/v1/events" && role >= *needed {
                        continue;
                    }
                    let status = ask(method, &path);
                    assert_eq!(status == 403, role < *needed, "{role} {method} {path}: {status}");
                }
                let others = if role >= VIEW { (405, 404) } else { (403, 403) };
                assert_eq!((ask("PUT", &path), ask("GET", &format!("{path}/x/y"))), others, "{role} {path}");
            }
        }
    });
}

#[test]
fn r33_an_unknown_path_is_unknown_only_to_who_may_look() {
    simulate(async {
        let indoors = Indoors::new(2, "").await;
        let paths = [
            "/",
            "/v1",
            "/v2/status",
            "/v1/status/",
            "/V1/status",
            "/v1//status",
            "//v1//urgent",
            "/v1/./status",
            "/v1/x/../status",
            "/v1/%73tatus%00",
            "/v1/announcements/a/confirm/",
            "/v1/announcements/a/b",
            "/v1/holds/a/b",
            "/metrics/",
            "/%2e%2e/etc/passwd",
        ];
        for path in paths {
            for method in METHODS {
                for role in ROLES {
                    let answer = ask(&indoors, role, method, path).await;
                    let wanted = if role >= VIEW { 404 } else { 403 };
                    assert_eq!(answer.status.as_u16(), wanted, "{role} {method} {path}");
                    assert!(method == "HEAD" || answer.is_problem(), "{method} {path}: {answer:?}");
                }
            }
        }
    });
}

#[test]
fn r33_only_duty_touches_an_emergency() {
    simulate(async {
        let indoors = Indoors::new(3, "").await;
        let sent = indoors.post(DUTY, "/v1/urgent", r#"{"text":"台风红色预警","to":["**"],"id":"typhoon"}"#).await;
        assert_eq!(sent.status, 202, "{sent:?}");
        let delivery = all(&indoors.daemon).await[0].id.0;
        let before = indoors.marks();
        let posts = [
            ("/v1/announcements/typhoon/cancel".to_owned(), "{}"),
            ("/v1/announcements/typhoon/delete".to_owned(), "{}"),
            ("/v1/announcements/typhoon/retry".to_owned(), "{}"),
            ("/v1/announcements/%74yphoon/cancel".to_owned(), "{}"),
            (format!("/v1/deliveries/{delivery}/resolve"), r#"{"published":"https://weibo.com/1/2"}"#),
            (format!("/v1/deliveries/{delivery}/resolve"), "{}"),
        ];
        for (path, body) in &posts {
            let refused = indoors.post(EDIT, path, body).await;
            assert!(refused.status == 403 && refused.is_problem(), "{path}: {refused:?}");
        }
        assert_eq!(indoors.marks(), before, "nothing was recorded");
        let rows = all(&indoors.daemon).await;
        assert_eq!(in_state(&rows, State::Held), rows.len(), "it waits as before");
        let cancelled = indoors.post(DUTY, "/v1/announcements/typhoon/cancel", "{}").await;
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
        assert_eq!(in_state(&all(&indoors.daemon).await, State::Cancelled), rows.len());
    });
}

#[test]
fn r33_edit_withdraws_what_is_routine() {
    simulate(async {
        let indoors = Indoors::new(4, "").await;
        indoors.city.save("a.yaml", "announcements:\n  - {id: a, text: 早安, at: 2026-11-24 18:00, to: [\"**\"]}\n");
        indoors.daemon.rescan().await;
        assert_eq!(indoors.post(VIEW, "/v1/announcements/a/cancel", "{}").await.status, 403);
        let cancelled = indoors.post(EDIT, "/v1/announcements/a/cancel", "{}").await;
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
        assert_ne!(cancelled.value["cancelled"], Value::from(0));
    });
}
