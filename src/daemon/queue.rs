//! The queue folder as it reads now, and what the ledger keeps of how it was read before.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::prune::{self, PRUNE, PRUNE_REFUSED};
use super::{Inner, config};
use crate::clock::Time;
use crate::core::announcement::{AnnouncementId, Body, Priority};
use crate::core::plan;
use crate::input::folder::{self, Named, Reading};
use crate::input::queue::Context;
use crate::input::settings::Settings;
use crate::ledger::LedgerError;

/// Under this name the ledger keeps the zone by which repeats are written ahead.
pub const ZONE: &str = "zone";

/// A superseded announcement may have left the queue; it is known by name for this long.
const SUPERSEDED: TimeDelta = TimeDelta::days(60);

/// Of earlier readings: the zone by which repeats were written ahead, and a person's answers about what was gone.
pub struct Earlier {
    pub zone: Option<String>,
    /// The question that is open.
    pub prune: Option<String>,
    asked: BTreeSet<AnnouncementId>,
    pub refusals: Option<String>,
    pub refused: BTreeSet<AnnouncementId>,
}

impl Earlier {
    pub fn rules<'a>(&'a self, settings: &'a Settings) -> plan::Rules<'a> {
        plan::Rules {
            publish: &settings.publish,
            zone: settings.zone,
            is_new_zone: self.zone.as_ref().is_some_and(|name| name != settings.zone.name()),
            asked: &self.asked,
            refused: &self.refused,
        }
    }
}

/// Reads the queue folder of a configuration.
pub fn read(config: &config::Config, known: &Named, now: Time) -> Reading {
    let context = Context {
        root: &config.settings.queue,
        zone: config.settings.zone,
        city: &config.city,
        rules: &config.rules,
        per_hour: &config.per_hour,
        now,
        drill: config.drill,
    };
    let mut reading = folder::read(&context, known);
    // How many persons it needs is part of what they answer for.
    for announcement in reading.desired.announcements.values_mut() {
        let body = &mut announcement.content.body;
        if body.priority == Priority::Emergency {
            body.persons = Some(config.settings.emergency.persons(body));
        }
    }
    reading
}

impl Inner {
    pub(super) async fn earlier(&self) -> Result<Earlier, LedgerError> {
        let (prune, refusals) = (self.ledger.meta(PRUNE).await?, self.ledger.meta(PRUNE_REFUSED).await?);
        Ok(Earlier {
            zone: self.ledger.meta(ZONE).await?,
            asked: prune::asked(prune.as_deref()),
            prune,
            refused: prune::refused(refusals.as_deref()),
            refusals,
        })
    }

    pub(super) async fn read_queue(&self, now: Time) -> Result<Reading, LedgerError> {
        let known = Named {
            earlier: Some(self.ledger.names(now - SUPERSEDED).await?),
            of_socket: self.ledger.of_socket().await?,
            emergencies: self.ledger.emergencies().await?,
        };
        let config = self.config();
        let work = move || read(&config, &known, now);
        let mut reading = self.clock.aside(work).await.map_err(|e| LedgerError::Unavailable(e.to_string()))?;
        self.as_many_persons(&mut reading).await?;
        Ok(reading)
    }

    /// Of an emergency that the ledger has in these words: how many persons it needed when it was taken.
    async fn persons_as_taken(
        &self,
        id: &AnnouncementId,
        reading: &Reading,
    ) -> Result<Option<Option<usize>>, LedgerError> {
        let Some(row) = self.announced(id.as_str()).await? else { return Ok(None) };
        if row.withdrawn.is_some() || row.priority != Priority::Emergency {
            return Ok(None);
        }
        let was = self.content(&row.content).await?;
        let body = Body { persons: was.body.persons, ..reading.desired.announcements[id].content.body.clone() };
        Ok((body == was.body).then_some(was.body.persons))
    }

    /// How many persons an emergency needs is fixed when it is taken: a configuration that is read again changes nothing of
    /// it. One that takes the place of another needs as many as those it replaces: as many as answer for what is in the
    /// ledger, whatever has become of the file since.
    async fn as_many_persons(&self, reading: &mut Reading) -> Result<(), LedgerError> {
        let emergency = &self.config().settings.emergency;
        let own: BTreeMap<AnnouncementId, (usize, Option<AnnouncementId>)> = (reading.desired.announcements.iter())
            .map(|(id, announcement)| (id, &announcement.content.body))
            .filter(|(_, body)| body.priority == Priority::Emergency)
            .map(|(id, body)| (id.clone(), (emergency.persons(body), body.supersedes.clone())))
            .collect();
        for (id, (needed, mut old)) in own.clone() {
            if let Some(taken) = self.persons_as_taken(&id, reading).await? {
                if let Some(announcement) = reading.desired.announcements.get_mut(&id) {
                    announcement.content.body.persons = taken;
                }
                continue;
            }
            let (mut persons, mut seen) = (needed, BTreeSet::from([id.clone()]));
            while let Some(older) = old.take().filter(|older| seen.insert(older.clone())) {
                let answered_for = match self.announced(older.as_str()).await? {
                    Some(row) if row.priority == Priority::Emergency => {
                        let content = self.content(&row.content).await?;
                        Some((emergency.persons(&content.body), content.body.supersedes.clone()))
                    }
                    _ => own.get(&older).cloned(),
                };
                let Some((of_it, before)) = answered_for else { break };
                (persons, old) = (persons.max(of_it), before);
            }
            if let Some(announcement) = reading.desired.announcements.get_mut(&id) {
                announcement.content.body.persons = Some(persons);
            }
        }
        Ok(())
    }
}
