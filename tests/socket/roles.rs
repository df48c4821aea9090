//! Who may do what, on every path and by every method.

use fabu::core::delivery::State;
use serde_json::Value;

use crate::indoors::{ADMIN, Answer, DUTY, EDIT, Indoors, NONE, VIEW};
use crate::support::{all, in_state, simulate};

/// Every route with the role its methods need; `{id}` is filled in. `health` needs none.
const ROUTES: [(&str, &[(&str, u32)]); 23] = [
    ("/v1/health", &[("GET", NONE)]),
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
    ("/v1/deliveries/{id}/resolve", &[("POST", EDIT)]),
    ("/v1/prune", &[("POST", EDIT)]),
];
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
const ROLES: [u32; 5] = [NONE, VIEW, EDIT, DUTY, ADMIN];

/// The paths in the router's own text: a route that is new has to be in the table.
fn routes_of_the_router() -> Vec<String> {
    let text = include_str!("../../src/api/mod.rs");
    let named = |line: &str| line.trim().strip_prefix(".route(\"")?.split('"').next().map(str::to_owned);
    text.lines().filter_map(named).collect()
}

async fn ask(indoors: &Indoors, uid: u32, method: &str, path: &str) -> Answer {
    indoors.ask(uid, method, path, &[("content-type", "application/json")], b"").await
}

#[test]
fn r33_every_route_and_method_asks_for_its_role_before_anything_else() {
    simulate(async {
        let indoors = Indoors::new(1, "").await;
        assert_eq!(routes_of_the_router(), ROUTES.map(|(path, _)| path), "every route is tried");
        let before = indoors.marks();
        for (path, methods) in ROUTES {
            let path = path.replace("{id}", "999");
            for method in METHODS {
                // Where there is a GET there is a HEAD.
                let looked_up = if method == "HEAD" { "GET" } else { method };
                let needed = methods.iter().find(|(m, _)| *m == looked_up).map(|(_, role)| *role);
                for role in ROLES {
                    let answer = ask(&indoors, role, method, &path).await;
                    let (status, case) = (answer.status.as_u16(), format!("{role} {method} {path}: {answer:?}"));
                    match needed {
                        Some(needed) if role >= needed => assert!(status != 403 && status != 405, "{case}"),
                        Some(_) => assert_eq!(status, 403, "{case}"),
                        None => assert_eq!(status, if role >= VIEW { 405 } else { 403 }, "{case}"),
                    }
                    assert!(status < 400 || method == "HEAD" || answer.is_problem(), "{case}");
                }
            }
        }
        assert_eq!(indoors.marks(), before, "an empty request does nothing, whoever sends it");
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
