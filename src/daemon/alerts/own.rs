//! An emergency of the city's as a CAP 1.2 alert of its own.

use std::collections::BTreeSet;

use chrono::{TimeDelta, Timelike as _};

use super::LANGUAGE;
use crate::clock::Time;
use crate::core::alert::{
    Alert, Area, Category, Certainty, Info, MsgType, Reference, Response, Scope, Severity, Status, Urgency,
};
use crate::core::announcement::{Content, Level, Part};
use crate::core::delivery::State;
use crate::core::words::{shown, words};
use crate::daemon::Inner;
use crate::daemon::acts::ActError;
use crate::daemon::config::Config;
use crate::daemon::emergency::quoted;

impl Inner {
    /// A published emergency as an alert of the city's own; what never went out is none.
    pub async fn as_alert(&self, id: &str) -> Result<Alert, ActError> {
        let (row, content) = self.emergency_row(id).await?;
        let rows = self.all_of(id).await?;
        let sent = rows.iter().filter_map(|d| Some(d.receipt.as_ref()?.accepted_at)).min();
        let Some(sent) = sent.filter(|_| rows.iter().any(|d| matches!(d.state, State::Published | State::Deleted)))
        else {
            let safe = shown(id);
            return Err(ActError::Conflict(words!("`{safe}` 没有发出去", "nothing of `{safe}` has been published")));
        };
        let config = self.config();
        let lead = config.city.accounts.values().find(|a| a.lead).map(|a| a.id.unit().to_owned());
        let sender = format!("{}@fabu", lead.as_deref().unwrap_or("city").replace('/', "."));
        let references = self.before(&content, &sender).await?;
        let level = content.body.level().unwrap_or(Level::Red);
        let expires =
            content.body.expires_after.and_then(|e| TimeDelta::from_std(e).ok()).map(|e| whole(row.first_seen + e));
        Ok(Alert {
            identifier: row.id.to_string(),
            sender,
            sent: whole(sent),
            status: if config.drill { Status::Exercise } else { Status::Actual },
            kind: match content.body.part() {
                // What is taken back and what is over: of both nothing is in force any more.
                Some(Part::Correction | Part::AllClear) => MsgType::Cancel,
                Some(Part::Update) => MsgType::Update,
                None if references.is_empty() => MsgType::Alert,
                None => MsgType::Update,
            },
            source: None,
            scope: Scope::Public,
            note: None,
            references,
            infos: vec![info_of(&config, &content, level, lead.as_deref(), expires)],
        })
    }

    /// The posts it is about, each as an alert of before.
    async fn before(&self, content: &Content, sender: &str) -> Result<Vec<Reference>, ActError> {
        let mut references = Vec::new();
        for old in content.body.about() {
            let rows = self.all_of(old.as_str()).await.unwrap_or_default();
            // As its own export says it.
            let sent = rows.iter().filter_map(|d| Some(d.receipt.as_ref()?.accepted_at)).min();
            references.extend(sent.map(|sent| Reference {
                sender: sender.to_owned(),
                identifier: old.to_string(),
                sent: whole(sent),
            }));
        }
        Ok(references)
    }
}

fn info_of(config: &Config, content: &Content, level: Level, lead: Option<&str>, expires: Option<Time>) -> Info {
    let template = content.body.closing.as_ref().and_then(|c| config.templates.get(&c.template));
    let units: BTreeSet<&str> = content.accounts.iter().map(|a| a.unit()).collect();
    let area = |unit: &&str| {
        let unit = config.city.units.get(*unit)?;
        let code = unit.region.clone()?;
        let geocodes = vec![("GB/T 2260".to_owned(), code)];
        Some(Area { desc: unit.name.clone(), geocodes, polygons: Vec::new(), circles: Vec::new() })
    };
    let colour = ("colour".to_owned(), level.name().to_owned());
    Info {
        language: Some(LANGUAGE.to_owned()),
        category: vec![Category::Other],
        event: template.map_or_else(|| quoted(&content.body.text), |t| t.title.clone()),
        response: vec![match content.body.part() {
            Some(Part::AllClear) => Response::AllClear,
            Some(Part::Correction) => Response::None,
            _ => Response::Execute,
        }],
        urgency: Urgency::Immediate,
        severity: match level {
            Level::Red => Severity::Extreme,
            Level::Orange => Severity::Severe,
            Level::Yellow => Severity::Moderate,
            Level::Blue => Severity::Minor,
        },
        certainty: Certainty::Observed,
        event_codes: template
            .and_then(|t| t.event.clone())
            .map(|e| ("GB/T 35965.1".to_owned(), e))
            .into_iter()
            .collect(),
        effective: None,
        onset: None,
        expires,
        sender_name: lead.and_then(|id| config.city.units.get(id)).map(|u| u.name.clone()),
        headline: None,
        description: Some(content.body.text.clone()),
        instruction: None,
        web: content.body.link.clone(),
        contact: None,
        parameters: vec![colour],
        areas: units.iter().filter_map(area).collect(),
    }
}

/// CAP knows whole seconds (its schema's pattern has no fraction).
fn whole(at: Time) -> Time {
    at.with_nanosecond(0).unwrap_or(at)
}
