//! The way of one request through the sandbox: met by the rules, delayed, carried out, answered, spoilt.
//!
//! It is the same way in process and on the wire; only how a broken answer looks is the wire's business. The lock is
//! taken three times and never kept while anything waits.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};

use super::call::{Body, Call, Reply};
use super::faults::{Meets, Phase};
use super::script::{Instead, Refusal, Script, Spoil, stand};
use super::settings::Api;
use super::state::{Ctx, Site};
use super::{REQUESTS, Sandbox, Seen, World, mastodon, spoil, statuses, statuses_auth, tencent_weibo, wechat, weibo};
use crate::clock::Time;

/// When a request came, and what its head alone has already met.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    pub first_ns: i64,
    pub last_ns: i64,
    pub head: Script,
}

#[derive(Debug)]
pub(super) enum Sent {
    Whole(Response<Bytes>),
    Broken(Broken),
}

/// An exchange that does not end as HTTP would have it.
#[derive(Debug)]
pub(super) enum Broken {
    Refuse,
    Hang,
    /// TLS is refused with an alert.
    Alert,
    Reset,
    Silence,
    CutLength(Response<Bytes>),
    CutChunked(Response<Bytes>),
    CutHead,
    Trickle(Response<Bytes>, Duration),
    EndlessHeaders,
    EndlessBody,
    Continue,
    Bare(Bytes),
}

impl Sandbox {
    /// What the rules that need no body do to a request; decided before its body is read.
    pub(super) fn head(&self, platform: &str, path: &str) -> Script {
        let mono = self.0.clock.mono();
        let mut world = self.world();
        let op = world.sites.get(platform).map_or("", |site| class(site.api, path));
        let meets = Meets { platform, unit: None, op, path, text: None };
        let mut script = Script::default();
        for rule in &mut world.rules {
            if rule.draw(Phase::Head, meets, mono) {
                script.add(rule.rule.behaviour, &rule.rule.params);
            }
        }
        script
    }

    pub(super) async fn attend(&self, platform: &str, call: Call, arrival: Arrival) -> Sent {
        let Some((n, script, wait)) = self.meet(platform, &call, arrival) else {
            return Sent::Broken(Broken::Refuse);
        };
        self.pause(wait / 2).await;
        let executes = match &script.instead {
            None => true,
            Some(Instead::Page(_, executes)) => *executes,
            Some(Instead::Silence(Some(later))) => {
                self.pause(*later).await;
                true
            }
            Some(_) => false,
        };
        let reply = executes.then(|| self.execute(platform, &call, &script));
        self.pause(wait - wait / 2 + script.key_after).await;
        let mut world = self.world();
        if let Some((key, post)) = reply.as_ref().and_then(|reply| reply.key.as_deref().cloned())
            && let Some(site) = world.sites.get_mut(platform)
        {
            site.keys.store(key, post, self.0.clock.now());
        }
        let done = reply.as_ref().map_or_else(|| "nothing done".to_owned(), |reply| reply.outcome.clone());
        let outcome = match &script.instead {
            Some(instead) => format!("{} ({done})", instead.word()),
            None => done,
        };
        world.note(n, outcome);
        drop(world);
        self.deliver(platform, &call, script, reply)
    }

    fn meet(&self, platform: &str, call: &Call, arrival: Arrival) -> Option<(u64, Script, Duration)> {
        let mono = self.0.clock.mono();
        let mut world = self.world();
        let World { sites, rules, any_token, latency, dice, .. } = &mut *world;
        let site = sites.get_mut(platform)?;
        let unit = who(site, call, *any_token);
        let op = if call.method == Method::HEAD { "warm" } else { class(site.api, &call.path) };
        let text = text(site.api, call);
        let meets = Meets { platform, unit: unit.as_deref(), op, path: &call.path, text: text.as_deref() };
        let mut script = arrival.head;
        for rule in rules.iter_mut() {
            if rule.draw(Phase::Body, meets, mono) {
                script.add(rule.rule.behaviour, &rule.rule.params);
            }
        }
        let wait = script.latency.unwrap_or(*latency).draw(dice);
        world.seen_last += 1;
        let n = world.seen_last;
        let seen = Seen {
            n,
            first_ns: arrival.first_ns,
            last_ns: arrival.last_ns,
            platform: platform.to_owned(),
            account: unit.map(|unit| format!("{platform}:{unit}")),
            op,
            path: call.path.clone(),
            outcome: "pending".to_owned(),
            fault: script.number,
        };
        if world.seen.len() >= REQUESTS {
            world.seen.pop_front();
        }
        world.seen.push_back(seen);
        Some((n, script, wait))
    }

    fn execute(&self, platform: &str, call: &Call, script: &Script) -> Reply {
        let now = self.0.clock.now();
        let mut world = self.world();
        let World { sites, posts, any_token, allow_private_ip, .. } = &mut *world;
        let Some(site) = sites.get_mut(platform) else { return Reply::text(404, "no platform", "text/plain", "") };
        let unit = who(site, call, *any_token);
        let api = site.api;
        for (what, seconds) in &script.account {
            // A call of nobody's changes nobody's standing.
            if let Some(unit) = &unit {
                stand(site, unit, what, *seconds, now);
            }
        }
        let twist = &script.twist;
        let mut ctx = Ctx { site, posts, call, twist, unit, now, allow_private_ip: *allow_private_ip };
        if call.method == Method::HEAD {
            let (clock, limit) = (ctx.clock(), None);
            ctx.site.host_hour.take(clock, 3600, limit);
            return Reply { body: Body::Empty, ..Reply::text(404, "warm", "text/html", "") };
        }
        match (&twist.refuse, api) {
            (Some(refusal), _) => refuse(&mut ctx, refusal),
            (None, Api::Weibo) => weibo::answer(&mut ctx),
            (None, Api::TencentWeibo) => tencent_weibo::answer(&mut ctx),
            (None, Api::Wechat) => wechat::answer(&mut ctx),
            (None, Api::Statuses) => statuses::answer(&mut ctx),
            (None, Api::Mastodon) => mastodon::answer(&mut ctx),
        }
    }

    fn deliver(&self, platform: &str, call: &Call, script: Script, reply: Option<Reply>) -> Sent {
        let date = {
            let world = self.world();
            let offset = world.sites.get(platform).map_or_else(Default::default, |site| site.offset);
            http_date(self.0.clock.now() + offset + script.twist.offset)
        };
        let reply = match (&script.instead, reply) {
            (Some(Instead::Reset), _) => return Sent::Broken(Broken::Reset),
            (Some(Instead::Refuse), _) => return Sent::Broken(Broken::Refuse),
            (Some(Instead::Hang), _) => return Sent::Broken(Broken::Hang),
            (Some(Instead::Alert), _) => return Sent::Broken(Broken::Alert),
            (Some(Instead::Silence(_)), _) => return Sent::Broken(Broken::Silence),
            (Some(Instead::Page(status, _)), _) => proxy_page(*status),
            (Some(Instead::Redirect(status, to)), _) => {
                Reply::text(*status, "redirect", "text/html", "<html>302 Found</html>").with("location", to.clone())
            }
            (None, Some(reply)) => reply,
            (None, None) => return Sent::Broken(Broken::Reset),
        };
        spoil::spoil(call, reply, &script.spoil, &date)
    }

    pub(super) async fn pause(&self, long: Duration) {
        if !long.is_zero() {
            self.0.clock.sleep(long).await;
        }
    }
}

impl World {
    fn note(&mut self, n: u64, outcome: String) {
        let Some(first) = self.seen.front().map(|seen| seen.n) else { return };
        if let Some(seen) = n.checked_sub(first).and_then(|at| self.seen.get_mut(at as usize)) {
            seen.outcome = outcome;
        }
    }
}

impl Instead {
    fn word(&self) -> &'static str {
        match self {
            Instead::Reset => "reset unread",
            Instead::Refuse => "refused",
            Instead::Hang => "hung",
            Instead::Alert => "tls alert",
            Instead::Silence(_) => "never answered",
            Instead::Page(..) => "proxy page",
            Instead::Redirect(..) => "redirected",
        }
    }
}

impl Spoil {
    /// What `spoil` cannot do to a response but only to the connection.
    pub(super) fn broken(&self, response: Response<Bytes>) -> Sent {
        Sent::Broken(match self {
            Spoil::Reset => Broken::Reset,
            Spoil::Cut(kind) if kind == "chunked" => Broken::CutChunked(response),
            Spoil::Cut(kind) if kind == "header" => Broken::CutHead,
            Spoil::Cut(_) => Broken::CutLength(response),
            Spoil::Trickle(pause) => Broken::Trickle(response, *pause),
            Spoil::EndlessHeaders => Broken::EndlessHeaders,
            Spoil::EndlessBody => Broken::EndlessBody,
            Spoil::Continue => Broken::Continue,
            Spoil::Bare => Broken::Bare(response.into_body()),
            _ => return Sent::Whole(response),
        })
    }
}

fn proxy_page(status: u16) -> Reply {
    let title = if status == 503 { "503 Service Temporarily Unavailable" } else { "502 Bad Gateway" };
    let page = format!("<html>\r\n<head><title>{title}</title></head>\r\n<body><h1>{title}</h1></body>\r\n</html>\r\n");
    Reply::text(status, "proxy page", "text/html", page)
}

fn who(site: &mut Site, call: &Call, any_token: bool) -> Option<String> {
    let token = match site.api {
        Api::Weibo => weibo::token(call),
        Api::TencentWeibo => call.anywhere("access_token").map(str::to_owned),
        Api::Wechat => {
            let known = wechat::who(site, call);
            return known.or_else(|| wechat::stranger(call).filter(|_| any_token).map(|pair| site.welcome(&pair)));
        }
        Api::Statuses => statuses_auth::named(call),
        Api::Mastodon => mastodon::token(call),
    }?;
    let known = site.owner(&token);
    if known.is_none() && any_token && !token.is_empty() {
        return Some(site.welcome(&token));
    }
    known
}

/// The class of an operation by its path, the same words on every platform.
fn class(api: Api, path: &str) -> &'static str {
    match api {
        Api::Weibo => weibo::class(path),
        Api::TencentWeibo => tencent_weibo::class(path),
        Api::Wechat => wechat::class(path),
        Api::Statuses => statuses::class(path),
        Api::Mastodon => mastodon::class(path),
    }
}

/// The text a call carries, for rules that look for one.
fn text(api: Api, call: &Call) -> Option<String> {
    let name = if api == Api::TencentWeibo { "content" } else { "status" };
    match api {
        Api::Wechat => call.json.as_ref().map(ToString::to_string),
        _ => call.param(name).map(str::to_owned).or_else(|| call.member(name)?.as_str().map(str::to_owned)),
    }
}

fn refuse(ctx: &mut Ctx<'_>, refusal: &Refusal) -> Reply {
    match ctx.site.api {
        Api::Weibo => weibo::refusal(ctx, refusal),
        Api::TencentWeibo => tencent_weibo::refusal(ctx, refusal),
        Api::Wechat => wechat::refusal(ctx, refusal),
        Api::Statuses => statuses::refusal(ctx, refusal),
        Api::Mastodon => mastodon::refusal(ctx, refusal),
    }
}

pub(super) fn http_date(at: Time) -> String {
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
