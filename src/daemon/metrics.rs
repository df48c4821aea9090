//! What can be counted: lateness and skew, outcomes, requests, budgets; in Prometheus' text form.

use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::core::change::Closing;
use crate::core::delivery::State;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    platform: String,
    operation: String,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPlatform {
    platform: String,
}

pub struct Metrics {
    registry: Mutex<Registry>,
    lateness: Histogram,
    skew: Histogram,
    missed: Counter,
    illegal: Counter,
    needs_person: Counter,
    deliveries: Family<ByState, Gauge>,
    requests: Family<Request, Counter>,
    token_age: Family<ByPlatform, Gauge>,
    calls: Family<ByPlatform, Gauge>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let metrics = Metrics {
            registry: Mutex::new(Registry::with_prefix("fabu")),
            lateness: seconds(),
            skew: seconds(),
            missed: Counter::default(),
            illegal: Counter::default(),
            needs_person: Counter::default(),
            deliveries: Family::default(),
            requests: Family::default(),
            token_age: Family::default(),
            calls: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock().expect("nothing panics while it holds the registry");
        registry.register(
            "release_lateness_seconds",
            "From a release's instant to its first request",
            self.lateness.clone(),
        );
        registry.register("release_skew_seconds", "From a release's first request to its last", self.skew.clone());
        registry.register("deliveries_missed", "Deliveries that expired before they could go out", self.missed.clone());
        registry.register("illegal_steps", "Events refused by the state machine", self.illegal.clone());
        registry.register(
            "deliveries_needing_a_person",
            "Deliveries whose fate has to be settled by a person",
            self.needs_person.clone(),
        );
        registry.register("deliveries", "Deliveries by state", self.deliveries.clone());
        registry.register("requests", "Requests to platforms by outcome", self.requests.clone());
        registry.register(
            "token_seconds_left",
            "Time until a platform's first credential expires",
            self.token_age.clone(),
        );
        registry.register(
            "account_calls_used_most",
            "Most calls any account of a platform used of its day",
            self.calls.clone(),
        );
    }

    pub fn released(&self, closing: &Closing) {
        self.lateness.observe(closing.lateness_ms / 1000.0);
        self.skew.observe(closing.skew_ms / 1000.0);
    }

    pub fn missed(&self, deliveries: usize) {
        self.missed.inc_by(deliveries as u64);
    }

    pub fn illegal(&self) {
        self.illegal.inc();
    }

    pub fn needs_person(&self) {
        self.needs_person.inc();
    }

    pub fn request(&self, platform: &str, operation: &str, outcome: &str) {
        let labels =
            Request { platform: platform.to_owned(), operation: operation.to_owned(), outcome: outcome.to_owned() };
        self.requests.get_or_create(&labels).inc();
    }

    pub fn token_left(&self, platform: &str, seconds: i64) {
        self.token_age.get_or_create(&ByPlatform { platform: platform.to_owned() }).set(seconds);
    }

    pub fn calls_used(&self, platform: &str, calls: u32) {
        self.calls.get_or_create(&ByPlatform { platform: platform.to_owned() }).set(i64::from(calls));
    }

    /// All of it as OpenMetrics text.
    pub fn text(&self, counts: &std::collections::BTreeMap<State, u64>) -> String {
        for state in State::ALL {
            let count = counts.get(&state).copied().unwrap_or(0);
            self.deliveries.get_or_create(&ByState { state: state.as_str().to_owned() }).set(count as i64);
        }
        let mut text = String::new();
        let registry = self.registry.lock().expect("nothing panics while it holds the registry");
        encode(&mut text, &registry).expect("a String takes all that is written");
        text
    }
}
