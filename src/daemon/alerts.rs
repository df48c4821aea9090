//! A CAP 1.2 alert as an urgent post; `own` is the other way.
//!
//! An alert is another's word. It is taken only from a sender of the configuration, up to the level that sender may
//! ask for, when it is meant (`Actual`), in force, and new; and then it goes the way of every urgent post, with the
//! same persons and the same hold.

mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Inner;
use super::acts::ActError;
use super::answers::{Before, CancelPreview, TakenBefore};
use super::config::Config;
use super::emergency::kin::root_of;
use super::emergency::{Closed, Key, Urgent, answered_with};
use crate::clock::Time;
use crate::core::accounts::Selector;
use crate::core::alert::{Alert, Info, MsgType, Reference, Response, Scope, Status};
use crate::core::announcement::Level;
use crate::core::change::{Actor, AnnouncementRow, Change};
use crate::core::delivery::{Delivery, State};
use crate::core::template::{Template, spoken};
use crate::core::words::{Words, shown, words};

/// An alert that says no end is not published as news for longer than this.
const FRESH: TimeDelta = TimeDelta::hours(2);
/// Clocks of two offices may differ by this much.
const AHEAD: TimeDelta = TimeDelta::seconds(60);
/// A user whom no machine has: answers to it are the same whoever asks.
const NOBODY: u32 = u32::MAX;
/// The language the city reads.
const LANGUAGE: &str = "zh-CN";

impl Inner {
    /// Takes an alert: an urgent post, an update of one, or its all-clear.
    pub async fn alert(
        self: &Arc<Self>,
        by: &Actor,
        alert: Alert,
        dry_run: bool,
        key: Option<Key>,
    ) -> Result<Value, ActError> {
        let id = name(&alert.reference());
        let drill = self.config().drill;
        let goes_out = !dry_run && alert.kind != MsgType::Cancel;
        let _place = goes_out.then(|| self.leaving());
        // Another message, or a person's act, may be on its way: the newest word is told from older ones in its turn.
        let turn = self.deciding.lock().await;
        if let Some(answer) = self.answered_before(by, key.as_ref()).await? {
            return Ok(answer);
        }
        if let Some(row) = self.announced(&id).await? {
            if !row.file.is_empty() {
                let file = shown(&row.file);
                return Err(ActError::Conflict(words!(
                    "队列文件 {file} 占用了这条警报的名字 `{id}`：改掉那里的 id 再发",
                    "the queue file {file} has the name of this alert, `{id}`: give its entry another id, then send it again"
                )));
            }
            return self.taken_before(by, &row, dry_run).await;
        }
        // What stood then need not stand now: one that changed nothing is looked at anew.
        let before = self.answered_before(by, Some(&once(&id))).await?;
        if let Some(answer) = before.filter(|answer| answer["state"] != json!(Before::Unchanged)) {
            // A look at what was done already shows that, and nothing that would go.
            let before = json!(TakenBefore { id, state: Before::TakenBefore, deliveries: 0 });
            return Ok(if dry_run { before } else { answer });
        }
        if !(alert.status == Status::Actual || drill && alert.status == Status::Exercise) {
            let status = alert.status.as_str();
            return Err(invalid(
                "status",
                words!("status 是 {status}，不作真发布", "its status is {status}: that is never published as real"),
            ));
        }
        if alert.scope != Scope::Public {
            return Err(invalid(
                "scope",
                Words::new("scope 不是 Public，不公开发布", "its scope is not Public: it is not for publication"),
            ));
        }
        let now = self.clock.now();
        if alert.sent > now + AHEAD {
            return Err(invalid("sent", Words::new("发送时刻在将来", "it says it was sent in the future")));
        }
        let kind = match (alert.kind, is_all_clear(&alert, now)?) {
            (MsgType::Alert, true) => {
                let said = Words::new(
                    "responseType 是 AllClear，却是新发的 Alert：解除请用 Update 或 Cancel，并在 <references> 指明解除哪条",
                    "its responseType is AllClear, and it is a new Alert: what ends one is an Update or a Cancel, whose <references> name it",
                );
                return Err(invalid("responseType", said));
            }
            (MsgType::Update, true) => MsgType::Cancel,
            (kind, _) => kind,
        };
        match kind {
            MsgType::Alert | MsgType::Update => {
                if let Some((_, by)) = self.ledger.answered(NOBODY, &cancelled(&id), Time::MIN_UTC).await? {
                    let by = shown(&by);
                    let said = words!(
                        "它到达之前已被 `{by}` 取消；仍要发就人工发布",
                        "it was cancelled by `{by}` before it came; if it should go all the same, send it by hand"
                    );
                    return Err(invalid("identifier", said));
                }
                let urgent = self.of_alert(&alert, &id, now, dry_run).await?;
                // Under its own name too: who has it from elsewhere, without the key, gets the same answer.
                let keys: Vec<Key> = key.into_iter().chain([once(&id)]).collect();
                let (urgent, wording) = self.worded(urgent)?;
                if let Some(said) = self.says_it_already(by, &urgent, &wording).await? {
                    let answer = json!(TakenBefore { id: said.clone(), state: Before::Unchanged, deliveries: 0 });
                    if !dry_run {
                        let mut known = answered_with(by, &keys, &answer);
                        let (key, answer) = (unchanged(&id), said);
                        known.push(Change::Answered { uid: NOBODY, key, hash: String::new(), answer });
                        self.ledger.commit(by, known).await?;
                    }
                    return Ok(answer);
                }
                self.taken(by, urgent, wording, &keys).await
            }
            MsgType::Cancel => {
                self.highest_of(&alert)?;
                let cancelled = match self.referred(&alert).await {
                    Ok(cancelled) => cancelled,
                    Err(unknown) => {
                        if !dry_run {
                            self.never_to_be_taken(by, &alert).await?;
                        }
                        return Err(unknown);
                    }
                };
                self.is_newer(&alert, &cancelled).await?;
                self.is_of_one(&alert).await?;
                let closed = Closed { text: None, dry_run, shown: None };
                if dry_run {
                    let would = self.all_cleared(by, &cancelled, closed, &[], turn).await?;
                    return Ok(json!(CancelPreview { dry_run: true, all_clear: cancelled, would }));
                }
                let keys: Vec<Key> = key.into_iter().chain([once(&id)]).collect();
                self.all_cleared(by, &cancelled, closed, &keys, turn).await
            }
            MsgType::Ack | MsgType::Error => {
                let kind = alert.kind.as_str();
                Err(invalid(
                    "msgType",
                    words!("msgType 是 {kind}，没有可发布的", "its msgType is {kind}: there is nothing to publish"),
                ))
            }
        }
    }

    /// The same alert again is the same request: it gets the answer it got. A look gets what is known. One that nobody
    /// confirmed waits for nobody any more.
    async fn taken_before(&self, by: &Actor, row: &AnnouncementRow, dry_run: bool) -> Result<Value, ActError> {
        let id = row.id.as_str();
        let rows = self.all_of(id).await?;
        let is_over = |d: &Delivery| matches!(d.state, State::Expired | State::Cancelled | State::Failed);
        let needed = self.config().settings.emergency.persons(&self.content(&row.content).await?.body);
        let is_agreed = self.memory.persons(&row.id, &row.content).len() >= needed;
        if rows.iter().all(is_over) && !is_agreed {
            return Err(ActError::Conflict(words!(
                "这条警报收过（`{id}`），没有及时确认，已作罢：请发送方换标识重发，或人工 fabu urgent",
                "this alert was taken before as `{id}`, and was not confirmed in time: have it sent anew under another identifier, or send a post by hand with `fabu urgent`"
            )));
        }
        if let Actor::Person { uid, .. } = by
            && !dry_run
            && let Some((_, answer)) = self.ledger.answered(*uid, &once(id).key, Time::MIN_UTC).await?
        {
            return Ok(serde_json::from_str(&answer).unwrap_or(Value::Null));
        }
        Ok(json!(TakenBefore { id: id.to_owned(), state: Before::TakenBefore, deliveries: rows.len() }))
    }

    /// The highest level that this sender may ask for.
    fn highest_of(&self, alert: &Alert) -> Result<Level, ActError> {
        let sender = shown(&alert.sender);
        self.config().settings.cap.senders.get(&alert.sender).copied().ok_or_else(|| {
            let said = words!("发送者 `{sender}` 不在 cap.senders 里", "the sender `{sender}` is none of cap.senders");
            invalid("sender", said)
        })
    }

    /// The info for the city, and its level, if this sender may ask for it.
    fn level_of(&self, alert: &Alert, now: Time) -> Result<(Info, Level), ActError> {
        let (sender, highest) = (shown(&alert.sender), self.highest_of(alert)?);
        let info = one_info(alert, now)?;
        // The others are the same in other languages: what they name besides would be left without a warning.
        let own = info.level().map_err(|said| {
            let said = shown(&said.chars().take(60).collect::<String>());
            invalid(
                "severity",
                words!(
                    "看不出是哪一级预警：“{said}”（要红、橙、黄、蓝之一，与 severity 不矛盾）",
                    "its level cannot be told by \"{said}\": it takes one of red, orange, yellow and blue that its severity does not fall short of"
                ),
            )
        })?;
        let named = info.area_codes();
        let is_wider = |other: &Info| other.area_codes().iter().any(|code| !named.contains(code));
        // Red orders first.
        let is_higher = |other: &Info| match other.level() {
            Ok(level) => level.is_some_and(|level| own.is_none_or(|own| level < own)),
            Err(_) => true,
        };
        let mut others = alert.infos.iter().filter(|other| other.is_in_force(now));
        if others.any(|other| is_wider(other) || is_higher(other)) {
            let said = Words::new(
                "另一种语言的 info 说的是别的区域或更高的级别，而只发中文一段：请拆开再发",
                "an info in another language names other areas or a higher level, and only one is published: send each as an alert of its own",
            );
            return Err(invalid("info", said));
        }
        let said =
            || Words::new("看不出预警级别", "its level cannot be told: there is neither a colour nor a severity");
        let level = own.ok_or_else(|| invalid("severity", said()))?;
        // Red orders first.
        if level < highest {
            let (asked, most) = (level.name(), highest.name());
            let said = words!(
                "`{sender}` 最高可发 {most}，不能发 {asked}",
                "`{sender}` may ask for {most} at most, and asks for {asked}"
            );
            return Err(invalid("severity", said));
        }
        Ok((info, level))
    }

    async fn of_alert(&self, alert: &Alert, id: &str, now: Time, dry_run: bool) -> Result<Urgent, ActError> {
        let (info, level) = self.level_of(alert, now)?;
        let info = &info;
        let ends = info.expires;
        if ends.is_none() && alert.sent < now - FRESH {
            let sent = hour(alert.sent, self.config().settings.zone);
            let said = words!(
                "它没有 expires，又是 {sent} 发的：仍有效就请重发，写明 expires",
                "it has no `expires` and was sent at {sent}: if it is in force still, have it sent anew with one"
            );
            return Err(invalid("expires", said));
        }
        if info.effective.is_some_and(|from| from > now + AHEAD) {
            return Err(invalid("effective", Words::new("尚未生效", "it is not in force yet")));
        }
        let config = self.config();
        let template = info
            .event_code()
            .and_then(|code| config.templates.values().find(|t| t.level == level && t.event.as_deref() == Some(code)));
        let update = match alert.kind {
            MsgType::Update => {
                let old = self.referred(alert).await?;
                self.is_newer(alert, &old).await?;
                Some(old)
            }
            _ => None,
        };
        let (to, unknown_areas) = whom(&config, info, template)?;
        let except = template.into_iter().flat_map(|t| &t.except).filter(|s| reaches(&config, s)).cloned().collect();
        let bare = Urgent {
            id: Some(id.to_owned()),
            level: Some(level),
            to,
            except,
            unknown_areas,
            source: Some(format!("CAP {} {}", alert.sender, alert.identifier)),
            update,
            alert_sent: Some(alert.sent),
            expires_after: ends.and_then(|ends| (ends - now).to_std().ok()),
            dry_run,
            ..Urgent::default()
        };
        if let Some(template) = template {
            let worded = Urgent {
                template: Some(template.name.clone()),
                values: self.values_of(alert, info, template),
                ..bare.clone()
            };
            if self.worded(worded.clone()).is_ok() {
                return Ok(worded);
            }
        }
        Ok(Urgent { text: own_words(info)?, ..bare })
    }

    /// What an alert says, by the names templates give it.
    fn values_of(&self, alert: &Alert, info: &Info, template: &Template) -> BTreeMap<String, String> {
        let zone = self.config().settings.zone;
        let said = [
            ("issuer", info.sender_name.clone()),
            ("time", Some(spoken(alert.sent.with_timezone(&zone)))),
            ("area", Some(info.area_text()).filter(|area| !area.is_empty())),
        ];
        let wanted = |name: &str| template.values.iter().any(|w| w.name == name);
        said.into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), text?)))
            .filter(|(name, _)| wanted(name))
            .collect()
    }

    /// Notes that alerts which have not come are not to be taken when they come.
    async fn never_to_be_taken(&self, by: &Actor, alert: &Alert) -> Result<(), ActError> {
        let own = alert.references.iter().filter(|reference| reference.sender == alert.sender);
        let answer = name(&alert.reference());
        let void = |reference| Change::Answered {
            uid: NOBODY,
            key: cancelled(&name(reference)),
            hash: String::new(),
            answer: answer.clone(),
        };
        self.ledger.commit(by, own.map(void).collect()).await?;
        Ok(())
    }

    /// Refuses a message that was overtaken on its way: its emergency has gone on, or has ended, since it was sent.
    async fn is_newer(&self, alert: &Alert, about: &str) -> Result<(), ActError> {
        let (row, _) = self.emergency_row(about).await?;
        let family = self.family(&row).await?;
        let mut sent = None;
        for warning in family.warnings() {
            sent = sent.max(self.content(&warning.content).await?.body.alert_sent);
        }
        let zone = self.config().settings.zone;
        if let Some(sent) = sent.filter(|sent| alert.sent < *sent) {
            let (mine, theirs) = (hour(alert.sent, zone), hour(sent, zone));
            let said = words!(
                "发送于 {mine}，而已收过 {theirs} 发送的一条",
                "it was sent at {mine}, and one that was sent at {theirs} was taken already"
            );
            return Err(invalid("sent", said));
        }
        // Words of people here, and an end, have an instant of their own.
        let mut came: Vec<Time> = family.warnings().filter_map(|w| Some(w.ended.as_ref()?.at)).collect();
        for warning in family.warnings() {
            if self.content(&warning.content).await?.body.alert_sent.is_none() {
                came.push(warning.first_seen);
            }
        }
        let Some(newest) = came.into_iter().max().filter(|came| alert.sent < *came) else { return Ok(()) };
        let root = &family.root;
        let (sent, newest) = (hour(alert.sent, zone), hour(newest, zone));
        Err(invalid(
            "sent",
            words!(
                "发送于 {sent}，而 `{root}` 在 {newest} 又有变化：请看 fabu status {root}，需要就人工处理",
                "it was sent at {sent}, and `{root}` has changed at {newest}: see `fabu status {root}`, and do by hand what is right now"
            ),
        ))
    }

    /// Refuses a cancel of several emergencies: one all-clear would leave the others standing without a word.
    async fn is_of_one(&self, alert: &Alert) -> Result<(), ActError> {
        let mut open = BTreeSet::new();
        for reference in alert.references.iter().filter(|reference| reference.sender == alert.sender) {
            if let Some(row) = self.announced(&name(reference)).await?.filter(|row| row.ended.is_none()) {
                open.insert(root_of(&row).to_string());
            }
        }
        if open.len() < 2 {
            return Ok(());
        }
        let each: Vec<String> = open.iter().map(|id| format!("fabu all-clear {id}")).collect();
        let each = each.join("; ");
        Err(invalid(
            "references",
            words!(
                "它取消的是几次紧急发布，请逐个解除：{each}",
                "it cancels several emergencies, end each by itself: {each}"
            ),
        ))
    }

    /// The newest of the alerts it refers to that was taken here.
    async fn referred(&self, alert: &Alert) -> Result<String, ActError> {
        let mut references = alert.references.clone();
        references.sort_by_key(|r| r.sent);
        for reference in references.iter().rev() {
            let id = name(reference);
            if reference.sender != alert.sender {
                continue;
            }
            if self.announced(&id).await?.is_some() {
                return Ok(id);
            }
            // One that changed nothing stands for what it left as it was.
            if let Some((_, said)) = self.ledger.answered(NOBODY, &unchanged(&id), Time::MIN_UTC).await? {
                return Ok(said);
            }
        }
        let said =
            Words::new("所引用的警报这里没有发过", "none of the alerts it refers to was taken here from this sender");
        Err(invalid("references", said))
    }
}

/// The info for the city, of those that are in force. Several in its language are one if they say the same to different
/// areas; otherwise each is for other people, and one alone would leave those of the others without a warning.
fn one_info(alert: &Alert, now: Time) -> Result<Info, ActError> {
    let chosen = alert.chosen(LANGUAGE).ok_or_else(|| invalid("info", Words::new("没有 info", "it has no info")))?;
    let alike: Vec<&Info> = alert.alike(chosen).filter(|info| info.is_in_force(now)).collect();
    let Some(chosen) = alike.first().copied() else {
        return Err(invalid("expires", Words::new("已经过期", "it has expired")));
    };
    if !alike.iter().all(|other| chosen.says_the_same(other)) {
        let of = |info: &&Info| format!("{}: {}", info.area_text(), info.headline.as_deref().unwrap_or(&info.event));
        let each = shown(&alike.iter().map(of).collect::<Vec<_>>().join("; ").chars().take(200).collect::<String>());
        let n = alike.len();
        return Err(invalid(
            "info",
            words!(
                "有 {n} 段同语言的 info，说的不同（{each}）：一条警报只发一段，请拆开再发",
                "{n} of its infos are in the same language and say different things ({each}): an alert is published as one post, send each as an alert of its own"
            ),
        ));
    }
    let ends: Option<Vec<Time>> = alike.iter().map(|info| info.expires).collect();
    Ok(Info {
        areas: alike.iter().flat_map(|info| info.areas.clone()).collect(),
        expires: ends.and_then(|ends| ends.into_iter().max()),
        effective: alike.iter().filter_map(|info| info.effective).max(),
        ..chosen.clone()
    })
}

/// Whether it says that the danger is over: `Update` with `AllClear` is how the standard's users say it where they do
/// not use `Cancel`.
fn is_all_clear(alert: &Alert, now: Time) -> Result<bool, ActError> {
    let is_said = |info: &Info| info.response.contains(&Response::AllClear);
    if !matches!(alert.kind, MsgType::Alert | MsgType::Update) || !alert.infos.iter().any(is_said) {
        return Ok(false);
    }
    one_info(alert, now)?.ends().map_err(|asked| {
        let asked = asked.as_str();
        let said = words!(
            "responseType 既有 AllClear 又有 {asked}：请拆开再发",
            "its responseType is both AllClear and {asked}: send each as an alert of its own"
        );
        invalid("responseType", said)
    })
}

/// A unit without an account in use has nobody to tell, and is no reason to keep silent.
fn reaches(config: &Config, selector: &str) -> bool {
    Selector::parse(selector).is_ok_and(|s| config.city.select(&s).is_ok())
}

/// The accounts of the template and of the areas named; and the codes of areas that nobody here bears.
fn whom(config: &Config, info: &Info, template: Option<&Template>) -> Result<(Vec<String>, Vec<String>), ActError> {
    let mut to: Vec<String> = template.map(|t| t.to.clone()).unwrap_or_default();
    let mut unknown = Vec::new();
    for code in info.area_codes() {
        let of_region = config.city.units.values().filter(|u| u.region.as_deref() == Some(code));
        let mapped = config.settings.cap.areas.get(code).cloned();
        let selectors: Vec<String> = of_region.map(|u| u.id.to_string()).chain(mapped).collect();
        if selectors.is_empty() {
            unknown.push(code.to_owned());
        }
        to.extend(selectors.into_iter().filter(|selector| reaches(config, selector)));
    }
    let mut seen = BTreeSet::new();
    to.retain(|selector| seen.insert(selector.clone()));
    match to.is_empty() {
        true => Err(invalid(
            "area",
            Words::new("没有模板，区域也对不上任何单位", "there is no template for it, and its areas mean no unit"),
        )),
        false => Ok((to, unknown)),
    }
}

/// Headline and instruction; what does not fit is refused later, never cut.
fn own_words(info: &Info) -> Result<String, ActError> {
    let headline = info.headline.as_deref().or(info.description.as_deref());
    let said = || Words::new("既无模板，也无 headline", "there is neither a template for it nor a headline");
    let headline = headline.ok_or_else(|| invalid("headline", said()))?.trim();
    let instruction = info.instruction.as_deref().unwrap_or("").trim();
    let stop = if headline.ends_with(['。', '！', '.', '!']) || instruction.is_empty() { "" } else { "。" };
    Ok(format!("{headline}{stop}{instruction}"))
}

/// The name of the announcement an alert becomes: the alert's own, and what tells two senders apart.
fn name(alert: &Reference) -> String {
    let whole = format!("{},{},{}", alert.sender, alert.identifier, alert.sent.timestamp_micros());
    let hash = hex::encode(Sha256::digest(whole.as_bytes()));
    let fine = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let readable: String = alert.identifier.chars().map(fine).take(90).collect();
    format!("cap-{readable}-{}", &hash[..12])
}

fn hour(at: Time, zone: chrono_tz::Tz) -> String {
    at.with_timezone(&zone).format("%m-%d %H:%M").to_string()
}

/// The key under which an alert's answer is kept.
fn once(id: &str) -> Key {
    Key { key: format!("cap:{id}"), hash: String::new() }
}

/// The alert of this name is over, whether it has come or not.
fn cancelled(id: &str) -> String {
    format!("cap-cancelled:{id}")
}

/// The alert of this name left what was said as it was.
fn unchanged(id: &str) -> String {
    format!("cap-unchanged:{id}")
}

fn invalid(field: &'static str, said: Words) -> ActError {
    ActError::Invalid(field.into(), said)
}
