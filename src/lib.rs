//! `fabu` (发布): one thing said by many accounts on several platforms at one instant.
//!
//! ```text
//! queue files → plan → ledger → prepare → release → send → receipt → events, report
//! ```
//!
//! | room | what it is for |
//! | --- | --- |
//! | [`core`] | decisions, pure: the state machine is `core::delivery::step` |
//! | [`input`] | YAML to core types, with the place of every fault |
//! | [`ledger`] | the durable record, which is the truth |
//! | [`platform`] | how to speak each `api`; where error codes get their class |
//! | [`daemon`] | runs it: `daemon::release` keeps the instant |
//! | [`api`] | HTTP on the Unix socket |
//! | [`cli`] | the commands |
//! | [`sandbox`] | the platforms, imitated on loopback |
//! | [`clock`] | the only source of time and chance |

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod clock;
pub mod core;
pub mod daemon;
pub mod input;
pub mod ledger;
pub mod platform;
pub mod sandbox;

/// A fault that the simulation has to find. It is there only in a build with `--cfg fabu_planted`, and only where
/// `FABU_PLANTED` names it; every other build has none.
#[cfg(fabu_planted)]
pub(crate) fn planted(fault: &str) -> bool {
    static NAMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAMED.get_or_init(|| std::env::var("FABU_PLANTED").ok()).as_deref() == Some(fault)
}

#[cfg(not(fabu_planted))]
pub(crate) const fn planted(_: &str) -> bool {
    false
}
