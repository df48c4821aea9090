//! `fabu accounts`: the tree of units with their accounts, and whether their credentials work.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::Exit;
use super::text::{BAD, CARE, GOOD, QUIET, Voice};
use crate::clock::Clock;
use crate::core::accounts::{Account, Status};
use crate::core::delivery::Failure;
use crate::core::words::{Words, shown, words};
use crate::daemon::config::{self, Env};
use crate::platform::{Call, Lane, Standing, http::Net};

/// The tree of units, each with its accounts.
pub fn tree(file: &Path, voice: Voice, env: &Env) -> Exit {
    let (config, faults) = config::read(file, env, true);
    for fault in faults.iter().filter(|f| f.is_error()) {
        voice.note(voice.fault(fault));
    }
    let Some(config) = config else { return Exit::Failed };
    if voice.json {
        let units: Vec<Value> = config
            .city
            .units
            .values()
            .map(|unit| {
                let mine = config.city.accounts.values().filter(|a| a.id.unit() == unit.id.as_str());
                let accounts: Vec<Value> =
                    mine.map(|a| json!({ "account": a.id, "handle": a.handle, "uid": a.uid, "status": a.status, "secret": a.secret.is_some() })).collect();
                json!({ "unit": unit, "accounts": accounts })
            })
            .collect();
        voice.data(&json!({ "items": units, "next": null }));
        return Exit::Done;
    }
    for unit in config.city.units.values() {
        let depth = unit.id.as_str().matches('/').count();
        let mine = config.city.accounts.values().filter(|a| a.id.unit() == unit.id.as_str());
        let platforms: Vec<String> = mine
            .map(|a| {
                let resting = a.status != Status::Active || unit.status != Status::Active;
                let style = if a.secret.is_none() {
                    BAD
                } else if resting {
                    QUIET
                } else {
                    GOOD
                };
                voice.paint(style, a.id.platform())
            })
            .collect();
        let (indent, name, id) = ("  ".repeat(depth), shown(&unit.name), voice.paint(QUIET, &unit.id));
        voice.out(format_args!("{indent}{name} {id} {}", platforms.join(" ")));
    }
    let (units, accounts) = (config.city.units.len(), config.city.accounts.len());
    voice.note(voice.say(&words!("{units} 个单位，{accounts} 个账号", "{units} units, {accounts} accounts")));
    Exit::Done
}

/// Asks each platform whether the credential still works; each account costs one call.
pub async fn check(file: &Path, voice: Voice, env: &Env) -> Exit {
    let (config, faults) = config::read(file, env, true);
    for fault in faults.iter().filter(|f| f.is_error()) {
        voice.note(voice.fault(fault));
    }
    let Some(config) = config else { return Exit::Failed };
    let clock = Clock::real();
    let net = match Net::new(clock.clone(), &config.connections()) {
        Ok(net) => Arc::new(net),
        Err(error) => {
            voice.error(&Words::same(error.to_string()));
            return Exit::Failed;
        }
    };
    let asked = config.city.accounts.values().filter(|a| !config.city.is_resting(&a.id)).map(|account| {
        let (net, clock, platform) = (net.clone(), clock.clone(), config.platform_of(&account.id));
        async move {
            let (Some(platform), Some(token)) = (platform, account.secret.as_ref()) else {
                let why = account.secret_fault.clone().unwrap_or_else(|| Words::new("没有密钥", "no secret"));
                return (account, Known::Bad(why));
            };
            let timeout = platform.settings().timeout;
            let call = Call { http: &*net, barrier: None, clock: &clock, lane: Lane::Routine, account, token, timeout };
            let known = match platform.check(&call).await {
                Ok(standing) => Known::Good(standing),
                Err(failure @ (Failure::Credential(..) | Failure::Astray(_))) => Known::Bad(failure.words().clone()),
                // A limit, or a platform that cannot be reached, says nothing of a credential.
                Err(failure) => Known::Nothing(failure.words().clone()),
            };
            (account, known)
        }
    });
    let results: Vec<_> = futures_util::stream::iter(asked).buffered(16).collect().await;
    let count = |of: fn(&Known) -> bool| results.iter().filter(|(_, known)| of(known)).count();
    let good = count(|known| matches!(known, Known::Good(_)));
    let bad = count(|known| matches!(known, Known::Bad(_)));
    if voice.json {
        let item = |(account, known): &(&Account, Known)| match known {
            Known::Good(standing) => {
                json!({ "account": account.id, "good": true, "uid": standing.uid, "expires": standing.expires })
            }
            Known::Bad(why) => json!({ "account": account.id, "good": false, "reason": voice.say(why) }),
            Known::Nothing(why) => json!({ "account": account.id, "good": null, "reason": voice.say(why) }),
        };
        voice.data(&json!({ "items": results.iter().map(item).collect::<Vec<Value>>(), "next": null }));
    } else {
        let now = clock.now();
        for (account, known) in &results {
            let (sign, said) = match known {
                Known::Good(standing) => {
                    let days = standing.expires.map(|e| (e - now).num_days());
                    let left = days
                        .map_or_else(String::new, |d| voice.say(&words!("还有 {d} 天", "{d} days left")).to_owned());
                    (voice.paint(GOOD, "✓"), left)
                }
                Known::Bad(why) => (voice.paint(BAD, "✗"), shown(voice.say(why))),
                Known::Nothing(why) => (voice.paint(CARE, "?"), shown(voice.say(why))),
            };
            voice.out(format_args!("{sign} {} {said}", account.id));
        }
        let words = match results.len() - good - bad {
            0 => words!("{good} 个有效，{bad} 个失效", "{good} work, {bad} do not"),
            open => words!(
                "{good} 个有效，{bad} 个失效，{open} 个现在问不到",
                "{good} work, {bad} do not, {open} cannot be told now"
            ),
        };
        voice.note(voice.say(&words));
    }
    match good {
        n if n == results.len() => Exit::Done,
        0 => Exit::Failed,
        _ => Exit::Partly,
    }
}

/// A platform's word on a credential.
enum Known {
    Good(Standing),
    Bad(Words),
    /// It could not be asked.
    Nothing(Words),
}
