//! Who is asking, and what they may: the kernel's word and the `access` map, nothing else.
//!
//! Headers, bodies and the environment change nothing. Each role includes the one before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;

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

/// Names and groups by uid, as the machine's directory had them lately: it is asked where nobody waits for it who
/// sends, and seldom.
#[derive(Default)]
pub struct Directory(Mutex<BTreeMap<u32, (Mono, Peer)>>);

impl Directory {
    /// Who has left a group keeps its role this long, and no longer.
    const LASTS: Duration = Duration::from_secs(5);

    pub async fn peer(&self, uid: u32, clock: &Clock) -> Peer {
        let now = clock.mono();
        if let Some((at, peer)) = lock(&self.0).get(&uid)
            && now.0.saturating_sub(at.0) < Self::LASTS
        {
            return peer.clone();
        }
        let nobody = Peer { uid, name: uid.to_string(), groups: Vec::new() };
        let peer = clock.aside(move || Peer::new(uid)).await.unwrap_or(nobody);
        let mut known = lock(&self.0);
        known.retain(|_, (at, _)| now.0.saturating_sub(at.0) < Self::LASTS);
        known.insert(uid, (now, peer.clone()));
        peer
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
