//! A request tried against the city: everything that can be wrong with it is found here, before anything is
//! written or held.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Urgent;
use super::kin::{Family, hold_name, reason_of};
use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Body, Closing, Content, Follows, Image, Level, Part, Priority};
use crate::core::change::{Actor, AnnouncementRow};
use crate::core::delivery::{Delivery, State};
use crate::core::fit;
use crate::core::gate::{Choice, Hold};
use crate::core::template::{DRILL_MARK, stamped};
use crate::core::words::{Words, hidden_in, is_hidden, nearest, shown, words};
use crate::daemon::acts::ActError;
use crate::daemon::{Inner, holds, pictures};

/// So many characters of a post are quoted by its correction and its all-clear.
const QUOTED: usize = 24;

/// Whose words it is.
#[derive(Clone)]
pub(crate) enum Wording {
    Own,
    /// Of a template, with what will correct and end it.
    Template(Closing),
    /// Of a correction or an all-clear, as the program or a template has them.
    Standard,
}

impl Wording {
    /// Of a correction or an all-clear with these words of one's own, or none.
    pub(super) fn closing(own: Option<&str>) -> Wording {
        if own.is_some() { Wording::Own } else { Wording::Standard }
    }
}

/// A request tried against the city: what will go where.
pub(super) struct Tried {
    pub(super) id: AnnouncementId,
    pub(super) content: Content,
    pub(super) level: Level,
    pub(super) hold: Option<Hold>,
    /// Posts it says something about: it reaches those of its accounts that carry one of them when it is written, or turn
    /// out to.
    pub(super) about: Vec<AnnouncementId>,
    pub(super) unknown_areas: Vec<String>,
}

impl Inner {
    /// The words of the template it names, with its values; whom it reaches unless the request says so.
    pub(crate) fn worded(&self, mut urgent: Urgent) -> Result<(Urgent, Wording), ActError> {
        let config = self.config();
        let Some(name) = &urgent.template else {
            return match urgent.values.keys().next() {
                Some(_) => {
                    Err(invalid("values", Words::new("`values` 要有 `template`", "`values` go with a `template`")))
                }
                None => Ok((urgent, Wording::Own)),
            };
        };
        let safe = shown(name);
        let Some(template) = config.templates.get(name) else {
            let near = nearest(name, config.templates.keys().map(String::as_str));
            return Err(invalid(
                "template",
                match near {
                    Some(near) => words!(
                        "没有模板 `{safe}`，是否指 `{near}`？",
                        "there is no template `{safe}`: did you mean `{near}`?"
                    ),
                    None => words!("没有模板 `{safe}`", "there is no template `{safe}`"),
                },
            ));
        };
        if !urgent.text.trim().is_empty() {
            let said = Words::new("`text` 和 `template` 只能有一个", "there are both `text` and `template`");
            return Err(invalid("text", said));
        }
        if let Some(level) = urgent.level.filter(|l| *l != template.level) {
            let (is, asked) = (template.level.name(), level.name());
            let said =
                words!("模板 {safe} 是 {is} 级，不是 {asked}", "the template {safe} is of level {is}, not {asked}");
            return Err(invalid("level", said));
        }
        let now = self.clock.now().with_timezone(&config.settings.zone);
        let filled = template.filled(&urgent.values, now);
        let filled = filled.map_err(|unfit| ActError::Invalid(format!("values.{}", unfit.value).into(), unfit.said))?;
        urgent.text = filled.text;
        urgent.level = Some(template.level);
        if urgent.to.is_empty() {
            urgent.to = template.to.clone();
            urgent.except.extend(template.except.iter().cloned());
        }
        Ok((urgent, Wording::Template(filled.closing)))
    }

    /// The post that an update would repeat word for word to the same accounts, if that stands or is on its way.
    pub(crate) async fn says_it_already(
        &self,
        by: &Actor,
        urgent: &Urgent,
        wording: &Wording,
    ) -> Result<Option<String>, ActError> {
        let Some(of) = &urgent.update else { return Ok(None) };
        let (row, _) = self.emergency_row(of).await?;
        let family = self.family(&row).await?;
        let Some(newest) = family.warnings().last().filter(|row| row.ended.is_none()) else { return Ok(None) };
        let choice = Choice { to: urgent.to.clone(), except: urgent.except.clone() };
        let accounts = holds::accounts_of(&self.config(), &choice)?;
        let tried = self.tried(by, urgent, accounts, wording.clone()).await?.content;
        let said = self.content(&newest.content).await?;
        let says = |content: &Content| {
            let body = &content.body;
            (body.text.clone(), body.link.clone(), body.images.clone(), body.level(), content.accounts.clone())
        };
        let lives =
            |d: &Delivery| !matches!(d.state, State::Expired | State::Cancelled | State::Failed | State::Deleted);
        let rows = self.deliveries_named(newest.id.as_str()).await?;
        Ok((says(&tried) == says(&said) && rows.iter().all(lives)).then(|| newest.id.to_string()))
    }

    /// Everything that can be wrong with it is found here, before anything is written or held.
    pub(super) async fn tried(
        &self,
        by: &Actor,
        urgent: &Urgent,
        accounts: BTreeSet<AccountId>,
        wording: Wording,
    ) -> Result<Tried, ActError> {
        if accounts.is_empty() {
            return Err(invalid("to", Words::new("没有账号", "it means no account")));
        }
        let drill = self.config().drill;
        let text = said_in(&urgent.text, drill)?;
        let now = self.clock.now();
        let before = match &urgent.update {
            Some(id) => Some(self.updated(id).await?),
            None => None,
        };
        let level = match (urgent.level, &before) {
            (Some(level), _) => level,
            (None, Some((_, content, _))) => content.body.level().unwrap_or(Level::Red),
            (None, None) => Level::Red,
        };
        let supersedes = match (&urgent.supersedes, &before) {
            (Some(id), _) => Some(self.existing(id, "supersedes").await?),
            (None, Some((row, ..))) => Some(row.id.clone()),
            (None, None) => None,
        };
        let standard = matches!(wording, Wording::Standard);
        let follows = match &before {
            // Whatever of it stands on an account goes once this is out there.
            Some((_, _, family)) => Some(Follows {
                emergency: family.root.clone(),
                part: Part::Update,
                posts: family.warnings().map(|row| row.id.clone()).collect(),
                reopens: family.warnings().rev().find_map(|row| row.ended.as_ref()).map(|ended| ended.how),
            }),
            None => urgent.follows.clone(),
        };
        let emergency = &self.config().settings.emergency;
        let is_closing = follows.as_ref().is_some_and(|f| f.part != Part::Update);
        let silence = urgent.hold.or_else(|| emergency.hold.get(&level).copied());
        let silence = silence.filter(|lasts| !is_closing && !lasts.is_zero());
        let mut body = Body {
            link: urgent.link.clone(),
            images: urgent.read.clone(),
            to: urgent.to.clone(),
            except: urgent.except.clone(),
            level: Some(level),
            expires_after: urgent.expires_after,
            supersedes,
            standard,
            silence,
            alert_sent: urgent.alert_sent,
            follows,
            closing: match wording {
                Wording::Template(closing) => Some(closing.said_in(drill)?),
                Wording::Own | Wording::Standard => None,
            },
            ..Body::said(&text)
        };
        // As it is now: a configuration that is read again does not let go what waits for more. And what takes the place
        // of words that several persons answered for needs as many: otherwise it would be a way round them.
        let mut persons = emergency.persons(&body);
        // Somebody's own words about posts of which one was several persons', whatever stands newest.
        let about = body.follows.iter().filter(|_| is_closing && !body.standard).flat_map(|f| &f.posts);
        let replaced = body.replaced().into_iter().filter(|_| !is_closing);
        let answered_for: BTreeSet<AnnouncementId> = about.chain(replaced).cloned().collect();
        for post in &answered_for {
            persons = persons.max(self.persons_of(post).await?);
        }
        body.persons = Some(persons);
        self.fits(&body, &accounts)?;
        for (field, words) in body.closing.iter().flat_map(Closing::words) {
            self.fits(&Body::said(words), &accounts).map_err(|error| error.about(field))?;
        }
        let id = self.name(urgent.id.as_deref(), now).await?;
        // An update and what it updates are one emergency with one hold.
        let root = body.follows.as_ref().map_or(&id, |f| &f.emergency);
        let hold = silence.map(|lasts| {
            let reason = reason_of(&id, &quoted(&body.text));
            let until = holds::until(now, lasts);
            let (owner, post) = (by.to_string(), Some(id.clone()));
            Hold {
                id: hold_name(root),
                reason,
                until,
                accounts: None,
                named: None,
                owner,
                begun: now,
                post,
                ended: None,
                version: 1,
            }
        });
        Ok(Tried {
            id,
            content: Content { body, accounts },
            level,
            hold,
            about: Vec::new(),
            unknown_areas: urgent.unknown_areas.clone(),
        })
    }

    /// How many persons answered for an emergency's post; of what is none, nobody had to.
    async fn persons_of(&self, post: &AnnouncementId) -> Result<usize, ActError> {
        let Some(row) = self.announced(post.as_str()).await?.filter(|row| row.priority == Priority::Emergency) else {
            return Ok(0);
        };
        let content = self.content(&row.content).await?;
        Ok(self.config().settings.emergency.persons(&content.body))
    }

    /// What an update brings up to date: the newest post of the emergency, and all of it.
    async fn updated(&self, id: &str) -> Result<(AnnouncementRow, Arc<Content>, Family), ActError> {
        let (row, _) = self.emergency_row(id).await.map_err(|error| match error {
            ActError::NotFound(said) => invalid("update", said),
            other => other,
        })?;
        let family = self.family(&row).await?;
        let newest = family.warnings().last().cloned().unwrap_or(row);
        let content = self.content(&newest.content).await?;
        Ok((newest, content, family))
    }

    /// Read now, so that what is signed is what is sent; of what is no mere look copies are kept.
    pub(super) async fn pictures(
        &self,
        files: &[(String, Option<String>)],
        is_look: bool,
    ) -> Result<Vec<Image>, ActError> {
        /// No platform takes more than twenty.
        const MOST: usize = 20;
        if files.len() > MOST {
            return Err(invalid("images", words!("最多 {MOST} 张图片", "{MOST} pictures at most")));
        }
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let (config, files) = (self.config(), files.to_vec());
        let read = move || {
            let settings = &config.settings;
            pictures::read(&settings.queue, (!is_look).then_some(settings.ledger.as_path()), files)
        };
        let read = self.clock.aside(read).await;
        let gone = |_| Words::new("图片没有读完", "the pictures were not read");
        read.map_err(gone).and_then(|images| images).map_err(|said| invalid("images", said))
    }

    pub(super) fn fits(&self, body: &Body, accounts: &BTreeSet<AccountId>) -> Result<(), ActError> {
        let config = self.config();
        let platforms: BTreeSet<&str> = accounts.iter().map(AccountId::platform).collect();
        for platform in platforms {
            let Some(rules) = config.rules.get(platform) else { continue };
            if let Some(misfit) = fit::misfits(body, platform, rules).into_iter().find(|m| !m.is_warning) {
                let (zh, en) = (&misfit.hint.zh, &misfit.hint.en);
                let said = Words::new(format!("{}；{zh}", misfit.message.zh), format!("{}: {en}", misfit.message.en));
                return Err(ActError::Invalid(misfit.field.into(), said));
            }
        }
        Ok(())
    }

    pub(super) async fn name(&self, asked: Option<&str>, now: Time) -> Result<AnnouncementId, ActError> {
        let id = match asked {
            Some(id) => {
                crate::input::values::id(id).map_err(|said| invalid("id", said))?;
                AnnouncementId::from(id)
            }
            None => {
                let local = now.with_timezone(&self.config().settings.zone);
                let chance = self.clock.random() & 0xffff;
                // That nobody has it already is a guard of the commit: an emergency waits for no look of its own.
                let id = format!("urgent-{}-{chance:04x}", local.format("%Y%m%d-%H%M%S"));
                return Ok(AnnouncementId::from(id.as_str()));
            }
        };
        if self.announced(id.as_str()).await?.is_some() {
            return Err(ActError::Conflict(words!("已有公告 `{id}`", "there is an announcement `{id}` already")));
        }
        Ok(id)
    }
}

impl Closing {
    fn said_in(self, drill: bool) -> Result<Closing, ActError> {
        let said = |text: Option<String>| text.map(|t| said_in(&t, drill)).transpose();
        Ok(Closing { template: self.template, correction: said(self.correction)?, all_clear: said(self.all_clear)? })
    }
}

pub(super) fn invalid(field: &'static str, said: Words) -> ActError {
    ActError::Invalid(field.into(), said)
}

/// The beginning of a text, to name it by.
pub(crate) fn quoted(text: &str) -> String {
    let text = text.trim_start_matches(DRILL_MARK);
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(QUOTED).collect();
    if short.len() < line.len() { format!("{short}…") } else { short }
}

/// The text as it will be sent, or why it cannot be.
fn said_in(text: &str, drill: bool) -> Result<String, ActError> {
    let text = fit::full_text(text, None);
    let text = if drill && !text.is_empty() { stamped(&text) } else { text };
    if !text.chars().any(|c| !c.is_whitespace() && !is_hidden(c)) {
        return Err(invalid("text", Words::new("`text` 是空的", "the `text` is empty")));
    }
    if let Some(c) = hidden_in(&text) {
        let code = format!("U+{:04X}", u32::from(c));
        return Err(invalid(
            "text",
            words!("文字里有看不见的字符 {code}", "the text has the invisible character {code}"),
        ));
    }
    if !drill && text.contains(DRILL_MARK) {
        let said = Words::new(
            "带有【演练】，正式环境不发",
            "it bears the mark of a drill (【演练】): nothing of a drill goes out live",
        );
        return Err(invalid("text", said));
    }
    Ok(text)
}
