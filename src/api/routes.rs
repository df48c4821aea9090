//! The one table of what is served: a row is routed and described at once, so nothing is the one without the other.
//!
//! The role a row needs is not said here: it is that of its handler's `Allowed<ROLE>`, and a handler that asks
//! for none does not compile as a row.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use serde_json::json;
use std::sync::Arc;
use utoipa::openapi::HttpMethod;

use super::actions::{Nothing, Prune, Resolve, Retry};
use super::description::{Described, Does, UrgentRequest, does, header, query};
use super::holds::Begin;
use super::peer::{Allowed, Role};
use super::queries::METRICS;
use super::urgent::{CAP, Confirm, Said};
use super::{actions, holds, queries, urgent};
use crate::core::announcement::Priority;
use crate::core::delivery::State;
use crate::daemon::Inner;
use crate::daemon::answers::{
    Announcement, AnnouncementTold, CancelPreview, Candidates, Cleared, ClosingPreview, Confirmed, Delivery,
    DeliveryTold, Fate, Health, Held, HoldOver, Holding, Plan, Preview, Pruned, Retrying, Status, Taken, TakenBefore,
    Told, Trail, Unheld, Withdrawn,
};

/// The routes, and the same described.
pub struct Routes {
    router: Router<Arc<Inner>>,
    described: Described,
}

/// The arguments of a handler whose first says which role it needs.
pub trait Guarded {
    const ROLE: Role;
}

macro_rules! guarded {
    ($($more:ident)*) => {
        impl<By, const ROLE: u8, $($more),*> Guarded for (By, Allowed<ROLE>, $($more),*) {
            const ROLE: Role = Role::ALL[ROLE as usize];
        }
    };
}
guarded!();
guarded!(A);
guarded!(A B);
guarded!(A B C);
guarded!(A B C D);

impl Routes {
    fn get<H: Handler<T, Arc<Inner>>, T: Guarded + 'static>(self, path: &str, handler: H, does: Does) -> Routes {
        self.add(HttpMethod::Get, MethodFilter::GET, path, handler, does)
    }

    fn post<H: Handler<T, Arc<Inner>>, T: Guarded + 'static>(self, path: &str, handler: H, does: Does) -> Routes {
        self.add(HttpMethod::Post, MethodFilter::POST, path, handler, does)
    }

    fn delete<H: Handler<T, Arc<Inner>>, T: Guarded + 'static>(self, path: &str, handler: H, does: Does) -> Routes {
        self.add(HttpMethod::Delete, MethodFilter::DELETE, path, handler, does)
    }

    fn add<H: Handler<T, Arc<Inner>>, T: Guarded + 'static>(
        mut self,
        method: HttpMethod,
        filter: MethodFilter,
        path: &str,
        handler: H,
        does: Does,
    ) -> Routes {
        self.described.add(method, path, T::ROLE, does);
        Routes { router: self.router.route(path, on(filter, handler)), described: self.described }
    }
}

/// The routes without what surrounds them.
pub fn router() -> Router<Arc<Inner>> {
    table().router
}

/// `GET /v1/openapi.json`.
pub fn description() -> String {
    table().described.into_json()
}

fn table() -> Routes {
    let routes = Routes { router: Router::new(), described: Described::default() };
    acting(urgent_ones(reading(routes)))
}

fn reading(routes: Routes) -> Routes {
    routes
        .get("/v1/health", queries::health, does("是否在正常发布", "Whether it publishes").answers::<Health>(200))
        .get(
            "/v1/openapi.json",
            queries::description,
            does("这份说明", "This description").answers_as(200, "application/json", "OpenAPI 3.1"),
        )
        .get("/v1/status", queries::status, does("现在的状况", "How things stand").answers::<Status>(200).reads())
        .get(
            "/v1/announcements",
            queries::announcements,
            does("公告", "Announcements")
                .asks(query::limit())
                .asks(query::cursor())
                .asks(query::several::<Fate>("state"))
                .asks(query::one::<Priority>("priority"))
                .asks(query::text("unit"))
                .asks(query::since())
                .lists::<Announcement>()
                .refuses(&[422])
                .reads(),
        )
        .get(
            "/v1/announcements/{id}",
            queries::announcement,
            does("一条公告；紧急发布也可作 CAP 1.2 警报", "One announcement; an emergency also as a CAP 1.2 alert")
                .answers::<AnnouncementTold>(200)
                .answers_as(200, CAP, "A CAP 1.2 alert, to whoever accepts one")
                .refuses(&[404, 409])
                .reads(),
        )
        .get(
            "/v1/deliveries",
            queries::deliveries,
            does("投递", "Deliveries")
                .asks(query::limit())
                .asks(query::number())
                .asks(query::text("announcement"))
                .asks(query::text("account"))
                .asks(query::several::<State>("state"))
                .asks(query::one::<Priority>("priority"))
                .asks(query::text("unit"))
                .asks(query::since())
                .lists::<DeliveryTold>()
                .refuses(&[422])
                .reads(),
        )
        .get(
            "/v1/events",
            queries::events,
            does("事件流：每次状态变化", "The stream of events: every change of state")
                .asks(header::last_event_id())
                .streams::<Told>()
                .refuses(&[400, 409]),
        )
        .get(
            "/v1/audit",
            queries::audit,
            does("审计记录", "The audit trail")
                .asks(query::limit())
                .asks(query::number())
                .answers::<Trail>(200)
                .refuses(&[422])
                .reads(),
        )
        .get(
            "/v1/plan",
            queries::plan,
            does("队列将引起的变化", "What the queue would change").answers::<Plan>(200).reads(),
        )
        .get("/metrics", queries::metrics, does("指标", "Figures").answers_as(200, METRICS, "OpenMetrics text").reads())
        .get("/v1/holds", holds::list, does("现在的静默", "The holds that stand").lists::<Holding>().reads())
        .get("/v1/held", holds::held, does("静默留住的", "What was kept back").lists::<Held>().reads())
}

fn urgent_ones(routes: Routes) -> Routes {
    let follows_up = |does: Does| does.refuses(&[404, 409, 422]).writes();
    routes
        .post(
            "/v1/urgent",
            urgent::urgent,
            does("紧急发布", "An urgent post: on disk before it is answered")
                .asks(query::dry_run())
                .asks(header::idempotency_key())
                .takes_one_of::<UrgentRequest>(CAP, "A CAP 1.2 alert")
                .such_as(json!({ "text": "【暴雨】请避险。", "level": "blue", "to": ["**"] }))
                .answers_any::<(Taken, TakenBefore, Cleared)>(202)
                .answers_any::<(Preview, CancelPreview, TakenBefore)>(200)
                .leads_to_what_follows(202)
                .refuses(&[409, 422])
                .writes(),
        )
        .post(
            "/v1/announcements/{id}/confirm",
            urgent::confirm,
            follows_up(
                does("第二人确认所示内容", "A further person's word to what was shown")
                    .takes::<Confirm>()
                    .answers::<Confirmed>(202),
            ),
        )
        .post(
            "/v1/announcements/{id}/correct",
            urgent::correct,
            follows_up(
                does("更正", "A correction where the wrong post stands")
                    .takes_perhaps::<Said>()
                    .answers::<ClosingPreview>(200)
                    .answers_any::<(Taken, Withdrawn)>(202),
            ),
        )
        .post(
            "/v1/announcements/{id}/all-clear",
            urgent::all_clear,
            follows_up(
                does("解除", "The end of an emergency")
                    .takes_perhaps::<Said>()
                    .answers::<ClosingPreview>(200)
                    .answers::<Cleared>(202),
            ),
        )
        .post(
            "/v1/holds",
            holds::begin,
            does("开始静默", "Begins a hold: routine is silent when this is answered")
                .takes::<Begin>()
                .such_as(json!({ "reason": "哀悼日", "until": "2h" }))
                .answers::<Holding>(200)
                .leads_to(200, "delete_holds_id")
                .refuses(&[422])
                .writes(),
        )
        .delete(
            "/v1/holds/{id}",
            holds::end,
            does("结束静默", "Ends a hold").answers::<HoldOver>(200).refuses(&[404]).writes(),
        )
        .post(
            "/v1/announcements/{id}/unhold",
            holds::unhold,
            does("放行一条公告被留住的", "Lets go what was kept back of an announcement")
                .takes_perhaps::<Nothing>()
                .answers::<Unheld>(200)
                .refuses(&[404, 409])
                .writes(),
        )
        .post(
            "/v1/unhold",
            holds::unhold_all,
            does("放行全部被留住的", "Lets go all that was kept back")
                .takes_perhaps::<Nothing>()
                .answers::<Unheld>(200)
                .refuses(&[409])
                .writes(),
        )
}

fn acting(routes: Routes) -> Routes {
    let acts = |does: Does| does.refuses(&[404, 409]).writes();
    routes
        .post(
            "/v1/announcements/{id}/cancel",
            actions::cancel,
            acts(
                does("取消未发的", "Stops what is not out; of an emergency: role `duty`")
                    .takes_perhaps::<Nothing>()
                    .answers::<Withdrawn>(200),
            ),
        )
        .post(
            "/v1/announcements/{id}/delete",
            actions::delete,
            acts(
                does("取消未发的，撤下已发的", "The same, and takes down what is out; of an emergency: role `duty`")
                    .takes_perhaps::<Nothing>()
                    .answers::<Withdrawn>(200),
            ),
        )
        .post(
            "/v1/announcements/{id}/retry",
            actions::retry,
            acts(
                does("重试失败或过期的", "Tries again what failed or expired; of an emergency: role `duty`")
                    .takes_perhaps::<Retry>()
                    .answers::<Retrying>(200),
            ),
        )
        .get(
            "/v1/deliveries/{id}/candidates",
            actions::candidates,
            does("可能就是它的帖", "The posts since that nobody accounts for; the platform is asked")
                .answers::<Candidates>(200)
                .refuses(&[404, 409])
                .writes(),
        )
        .post(
            "/v1/deliveries/{id}/resolve",
            actions::resolve,
            acts(
                does("人来判定未知的", "A person says what became of it; of an emergency: role `duty`")
                    .takes_perhaps::<Resolve>()
                    .answers::<Delivery>(200)
                    .refuses(&[422]),
            ),
        )
        .post(
            "/v1/prune",
            actions::prune,
            does("批准或拒绝批量取消", "Answers the mass-cancel guard")
                .takes::<Prune>()
                .answers::<Pruned>(200)
                .refuses(&[409])
                .writes(),
        )
}
