//! Room kept aside on the ledger's disk, so that an emergency can be recorded when nothing else can (R21).
//!
//! A file of this size stands beside the ledger. When the disk is full it is given up for an emergency, and until there is
//! space again for it nothing new of routine is recorded, and so nothing sent: what is left is for the next urgent post.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::marker::beside;

/// Ten urgent posts to every account of a large city, with their receipts and their part of the trail.
const SIZE: u64 = 64 << 20;
/// A start has to record what it finds, deliveries that were on the wire included: a disk with less space than this is full.
const START: u64 = 8 << 20;

pub struct Room {
    path: PathBuf,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Kept,
    /// Given up: the disk was full.
    Given,
    /// There never was space for it, or this kind of disk keeps none.
    Missing,
}

impl Room {
    /// Keeps room beside a ledger, if there is enough for both.
    pub fn beside(ledger: &Path) -> Room {
        let mut room = Room { path: beside(ledger, ".room"), state: State::Missing };
        match room.keep() {
            Ok(true) => room.state = State::Kept,
            Ok(false) => tracing::warn!(path = %room.path.display(), "the disk has no room to keep for emergencies"),
            Err(error) => tracing::warn!(%error, path = %room.path.display(), "no room is kept for emergencies"),
        }
        room
    }

    /// None at all: a simulation's disk is never full.
    pub fn none() -> Room {
        Room { path: PathBuf::new(), state: State::Missing }
    }

    pub fn is_given(&self) -> bool {
        self.state == State::Given
    }

    /// Gives it up; whether there was any.
    pub fn give(&mut self) -> bool {
        if self.state != State::Kept {
            return false;
        }
        self.state = State::Given;
        match std::fs::remove_file(&self.path) {
            Ok(()) => {
                tracing::error!("the disk is full: the room that was kept for emergencies is used");
                true
            }
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "the room kept for emergencies cannot be given up");
                false
            }
        }
    }

    /// Gives it up where a start might not find the space it needs: without a start there is no emergency to keep it for.
    pub fn give_to_start(&mut self) {
        if self.state == State::Kept && self.free().is_ok_and(|free| free < START) {
            self.give();
        }
    }

    /// Keeps it again, when there is space for twice as much.
    pub fn take_back(&mut self) {
        match self.keep() {
            Ok(true) => {
                self.state = State::Kept;
                tracing::info!("there is space again: room is kept for emergencies");
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, path = %self.path.display(), "no room is kept for emergencies"),
        }
    }

    /// Bytes that are left on its disk.
    fn free(&self) -> std::io::Result<u64> {
        let disk = statvfs(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn keep(&self) -> std::io::Result<bool> {
        let there = std::fs::symlink_metadata(&self.path).map_or(0, |meta| meta.len());
        if there == SIZE {
            return Ok(true);
        }
        if self.free()? < 2 * SIZE {
            return Ok(false);
        }
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&self.path)?;
        if let Err(error) = fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
            // A file of no size keeps nothing.
            std::fs::remove_file(&self.path)?;
            return Err(error.into());
        }
        Ok(true)
    }
}
