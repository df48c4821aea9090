//! Who is asking, and what they may: the kernel's word and the `access` map, nothing else.
//!
//! Headers, bodies and the environment change nothing. Each role includes the one before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use super::problem::Problem;
use crate::clock::{Clock, Mono};
use crate::core::change::Actor;
use crate::core::words::words;
use crate::daemon::{Inner, lock};
use crate::input::settings::Access;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    None,
    View,
    Edit,
    Duty,
    Admin,
}

impl Role {
    pub const ALL: [Role; 5] = [Role::None, Role::View, Role::Edit, Role::Duty, Role::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::None => "none",
            Role::View => "view",
            Role::Edit => "edit",
            Role::Duty => "duty",
            Role::Admin => "admin",
        }
    }
}

/// Names and groups by uid, as the machine's directory had them lately. It may be far away, and hang: it is asked aside,
/// once for everybody who waits, and nobody waits long.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<BTreeMap<u32, Entry>>>);

#[derive(Default)]
struct Entry {
    answer: Option<(Mono, Peer)>,
    /// Done when the directory has answered.
    asking: Option<Shared<BoxFuture<'static, ()>>>,
}

impl Directory {
    /// Who has left a group keeps its role this long, and no longer.
    const LASTS: Duration = Duration::from_secs(5);
    /// A directory that is there answers within this.
    const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
    /// While it does not answer, what it said before serves for so long: an emergency does not wait for it.
    const REMEMBERED: Duration = Duration::from_secs(3600);

    /// The user of a request, as the directory has him now.
    pub async fn peer(&self, uid: u32, clock: &Clock) -> Peer {
        if let Some(peer) = self.known(uid, clock.mono(), Self::LASTS) {
            return peer;
        }
        // Who has every right needs no directory.
        if uid == 0 {
            return Peer { uid, name: "root".to_owned(), groups: Vec::new() };
        }
        clock.timeout(Self::ANSWERS_WITHIN, self.asking(uid, clock)).await;
        if let Some(peer) = self.known(uid, clock.mono(), Self::LASTS) {
            return peer;
        }
        let nobody = || Peer { uid, name: uid.to_string(), groups: Vec::new() };
        let remembered = self.known(uid, clock.mono(), Self::REMEMBERED);
        tracing::error!(
            uid,
            is_known = remembered.is_some(),
            "the machine's directory of users does not answer; what it said within the last hour serves"
        );
        remembered.unwrap_or_else(nobody)
    }

    /// Without asking: what it has said, if that is not older.
    pub fn known(&self, uid: u32, now: Mono, within: Duration) -> Option<Peer> {
        let known = lock(&self.0);
        let (at, peer) = known.get(&uid)?.answer.as_ref()?;
        (now.0.saturating_sub(at.0) < within).then(|| peer.clone())
    }

    /// The same, however old, for a place to sit.
    pub fn last(&self, uid: u32, now: Mono) -> Option<Peer> {
        self.known(uid, now, Self::REMEMBERED)
    }

    fn asking(&self, uid: u32, clock: &Clock) -> Shared<BoxFuture<'static, ()>> {
        let now = clock.mono();
        let mut known = lock(&self.0);
        let is_of_use = |entry: &Entry| {
            let lasts = entry.answer.as_ref().is_some_and(|(at, _)| now.0.saturating_sub(at.0) < Self::REMEMBERED);
            lasts || entry.asking.is_some()
        };
        known.retain(|_, entry| is_of_use(entry));
        let entry = known.entry(uid).or_default();
        if let Some(asking) = &entry.asking {
            return asking.clone();
        }
        let (directory, clock) = (self.clone(), clock.clone());
        // It goes on when nobody waits any more, and its answer is there for the next one.
        let task = tokio::spawn(async move {
            let answer = clock.aside(move || Peer::new(uid)).await;
            let mut known = lock(&directory.0);
            let entry = known.entry(uid).or_default();
            entry.asking = None;
            let was_named = entry.answer.as_ref().is_some_and(|(_, before)| before.is_named());
            match answer {
                // One whom it knew a moment ago: it is more likely away than he is.
                Ok(peer) if was_named && !peer.is_named() => {}
                Ok(peer) => entry.answer = Some((clock.mono(), peer)),
                Err(_) => {}
            }
        });
        let asking = task.map(drop).boxed().shared();
        entry.asking = Some(asking.clone());
        asking
    }
}

/// The process at the other end, as the kernel names it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub uid: u32,
    pub name: String,
    groups: Vec<String>,
}

impl Peer {
    pub fn new(uid: u32) -> Peer {
        let user = uzers::get_user_by_uid(uid);
        let name = user.as_ref().map_or_else(|| uid.to_string(), |u| u.name().to_string_lossy().into_owned());
        let groups = user
            .and_then(|u| uzers::get_user_groups(u.name(), u.primary_group_id()))
            .unwrap_or_default()
            .into_iter()
            .map(|g| g.name().to_string_lossy().into_owned())
            .collect();
        Peer { uid, name, groups }
    }

    /// The directory knows him.
    fn is_named(&self) -> bool {
        self.name != self.uid.to_string()
    }

    /// The highest role that a configuration gives this person.
    pub fn role(&self, access: Option<&Access>, own_uid: u32) -> Role {
        if self.uid == 0 {
            return Role::Admin;
        }
        let Some(access) = access else {
            return if self.uid == own_uid { Role::Admin } else { Role::None };
        };
        let named = |names: &[String]| {
            names.iter().any(|n| match n.split_once(':') {
                Some(("user", name)) => name == self.name,
                Some(("group", name)) => self.groups.iter().any(|g| g == name),
                _ => false,
            })
        };
        let roles = [
            (Role::Admin, &access.admin),
            (Role::Duty, &access.duty),
            (Role::Edit, &access.edit),
            (Role::View, &access.view),
        ];
        roles.into_iter().find(|(_, names)| named(names)).map_or(Role::None, |(role, _)| role)
    }

    pub fn actor(&self) -> Actor {
        Actor::Person { uid: self.uid, name: self.name.clone() }
    }
}

/// The daemon's own user.
pub fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// A request that was found to come from somebody with at least this role.
pub struct Allowed<const ROLE: u8>(pub Peer, pub Role);

pub const NONE: u8 = 0;
pub const VIEW: u8 = 1;
pub const EDIT: u8 = 2;
pub const DUTY: u8 = 3;

impl<const ROLE: u8> FromRequestParts<Arc<Inner>> for Allowed<ROLE> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, inner: &Arc<Inner>) -> Result<Self, Problem> {
        let State(inner) = State::<Arc<Inner>>::from_request_parts(parts, inner).await.expect("state is always there");
        let peer = parts.extensions.get::<Peer>().cloned().expect("every connection has its peer");
        let config = inner.config();
        let has = peer.role(config.settings.access.as_ref(), own_uid());
        let needed = Role::ALL[usize::from(ROLE)];
        if has < needed {
            return Err(denied(&peer, needed, has));
        }
        Ok(Allowed(peer, has))
    }
}

pub fn denied(peer: &Peer, needed: Role, has: Role) -> Problem {
    let (name, needed, has) = (&peer.name, needed.as_str(), has.as_str());
    Problem::new(
        StatusCode::FORBIDDEN,
        words!(
            "{name} 的角色是 {has}，这需要 {needed}；见配置的 `access`",
            "{name} has the role {has}, and this needs {needed}: see `access` in the configuration"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r32_roles_come_from_the_kernel_and_the_access_map() {
        let peer = |uid, name: &str, groups: &[&str]| Peer {
            uid,
            name: name.to_owned(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        };
        let access = Access {
            view: vec!["group:staff".to_owned()],
            edit: vec!["user:editor".to_owned()],
            duty: vec!["group:duty".to_owned()],
            admin: Vec::new(),
        };
        let role = |p: &Peer, a: Option<&Access>| p.role(a, 500);
        assert_eq!(role(&peer(0, "root", &[]), Some(&access)), Role::Admin);
        assert_eq!(role(&peer(500, "fabu", &[]), None), Role::Admin);
        assert_eq!(role(&peer(501, "other", &[]), None), Role::None);
        assert_eq!(role(&peer(500, "fabu", &[]), Some(&access)), Role::None, "the map names everybody");
        assert_eq!(role(&peer(502, "a", &["staff"]), Some(&access)), Role::View);
        assert_eq!(role(&peer(503, "editor", &["staff"]), Some(&access)), Role::Edit);
        assert_eq!(role(&peer(504, "b", &["staff", "duty"]), Some(&access)), Role::Duty);
    }
}
