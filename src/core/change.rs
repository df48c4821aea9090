//! Everything that can be written to the ledger, and the chain that shows tampering.
//!
//! A commit is a list of `Change`s, all or nothing. Each change that matters to a person leaves one
//! event; an event's hash covers the hash before it, so a changed, removed or reordered record breaks
//! the chain at a named place.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Time;
use super::accounts::AccountId;
use super::announcement::{AnnouncementId, Content, ContentHash, End, Follows, OccurrenceId, Part, Priority};
use super::delivery::{Cause, Delivery, DeliveryId, Step, Stop};
use super::gate::Hold;
use super::words::Words;

/// Number of an event, from 1, in commit order.
pub type Seq = i64;

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// The daemon, at a delivery's due time.
    Daemon,
    /// The queue folder, through the planner.
    Queue,
    /// A person, as the kernel names them.
    Person { uid: u32, name: String },
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::Daemon => f.write_str("fabu"),
            Actor::Queue => f.write_str("queue"),
            Actor::Person { uid, name } => write!(f, "{name}({uid})"),
        }
    }
}

/// What the ledger knows an announcement by.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnouncementRow {
    pub id: AnnouncementId,
    pub file: String,
    pub line: i64,
    /// The content in force, with its accounts.
    pub content: ContentHash,
    /// Hash of the body alone: a changed tree of accounts is no edit.
    pub body: ContentHash,
    /// The last version seen after publication, reported once.
    pub edited: Option<ContentHash>,
    pub priority: Priority,
    pub supersedes: Option<AnnouncementId>,
    /// A repeat's occurrences are written up to here.
    pub planned_to: Option<Time>,
    pub withdrawn: Option<Withdrawal>,
    pub first_seen: Time,
    /// The emergency it is a later word of, by its first post.
    pub follows: Option<(AnnouncementId, Part)>,
    /// Of an emergency's post: how it ended.
    pub ended: Option<Ended>,
    /// One more with each change of this row, and with each order about its deliveries.
    pub version: i64,
}

impl AnnouncementRow {
    /// The content that persons' words can be about: none while its file is gone.
    pub fn agreed(&self) -> Option<&ContentHash> {
        Some(&self.content).filter(|_| self.withdrawn != Some(Withdrawal::Queue))
    }
}

/// The one who withdrew an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// Its file no longer has it: it comes back with the file.
    Queue,
    /// A person; no file brings it back.
    Person(String),
}

impl Withdrawal {
    /// As the ledger keeps it. No person's name is this word: it ends with a uid in brackets.
    const QUEUE: &str = "queue";

    pub fn as_str(&self) -> &str {
        match self {
            Withdrawal::Queue => Withdrawal::QUEUE,
            Withdrawal::Person(name) => name,
        }
    }

    pub fn parse(text: String) -> Withdrawal {
        if text == Withdrawal::QUEUE { Withdrawal::Queue } else { Withdrawal::Person(text) }
    }
}

/// How an emergency's post ended, by whom, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Ended {
    pub how: End,
    pub by: String,
    #[schema(value_type = chrono::DateTime<chrono::Utc>)]
    pub at: Time,
}

/// Closing figures of a release, in milliseconds; whole-second sends count as late beyond `grace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ReleaseClosed)]
pub struct Closing {
    /// From the instant to the first request.
    pub lateness_ms: f64,
    /// From the first request to the last.
    pub skew_ms: f64,
    pub sent: u32,
    pub on_time: u32,
    pub late: u32,
    #[schema(value_type = chrono::DateTime<chrono::Utc>)]
    pub closed_at: Time,
}

/// One thing to be written.
#[derive(Clone, Debug)]
pub enum Change {
    Content(ContentHash, Box<Content>),
    /// An announcement as it is now. Version 1 is a new one; any other is refused unless it follows the row's version.
    Announcement(Box<AnnouncementRow>),
    /// Refused when the delivery is no longer the one that was read: for what was decided on, and stays as it is.
    Expect(DeliveryId, i64),
    /// Refused when the value is another.
    ExpectMeta(String, Option<String>),
    /// A whole announcement is withdrawn.
    Withdrawn(AnnouncementId, Withdrawal),
    /// One occurrence of it is, by a person: no file and no edit brings it back.
    OccurrenceStopped(OccurrenceId, AnnouncementId, String),
    /// An emergency's post has ended, or is in force again.
    Ended(AnnouncementId, Option<Ended>),
    /// An occurrence; one that exists gets the new content and instant.
    Occurrence {
        id: OccurrenceId,
        announcement: AnnouncementId,
        content: ContentHash,
        release: Time,
    },
    Closed(OccurrenceId, Closing),
    /// A new delivery; its `id` is the ledger's to give. An (occurrence, account) that exists is left alone. One that
    /// is `sending` already comes with its intent.
    Add(Box<Delivery>),
    /// A new delivery of a post that says something about earlier ones: decided at the commit by where those are. It
    /// is added as it is, or held until that is known, or left out.
    AddAbout(Box<Delivery>, Vec<AnnouncementId>),
    /// A step of a delivery, refused when the row is not the one it was computed from.
    Step(Box<Step>),
    /// An order, carried out on the rows as they are at the commit; in what the commit returns its steps stand in its
    /// place.
    Stop(Box<Stop>),
    /// These posts were superseded on an account: nothing more of them is planned there.
    Superseded {
        posts: Vec<AnnouncementId>,
        account: AccountId,
        by: AnnouncementId,
    },
    /// It is known now whether an emergency's post is out on this account: what waits to know is decided.
    Decide(AccountId),
    /// Calls counted against a window of an account's or host's budget.
    Spend {
        key: String,
        window: i64,
        calls: u32,
    },
    /// Windows before these are over: nobody asks for their calls any more.
    ForgetCalls {
        hour: i64,
        day: i64,
    },
    /// Nobody asks again with a key of before.
    ForgetAnswers {
        before: Time,
    },
    /// The newest post id known of an account.
    Seen {
        account: AccountId,
        post_id: String,
    },
    /// Whether an account's credential works, as it was seen now.
    Credential {
        account: AccountId,
        /// Why it does not.
        bad: Option<Words>,
        uid: Option<String>,
        expires: Option<Time>,
    },
    Meta {
        key: String,
        value: Option<String>,
    },
    /// A hold begins, or one that stands is changed: refused unless its version follows that of the one that stands.
    Hold(Hold),
    /// Refused when the hold is no longer of this version.
    HoldEnded {
        id: String,
        /// Which of that name.
        begun: Time,
        version: i64,
    },
    /// A person's word to exactly this content.
    Confirmed {
        announcement: AnnouncementId,
        content: ContentHash,
        uid: u32,
        name: String,
    },
    /// What a request with an idempotency key was answered; the same key gets the same answer.
    Answered {
        uid: u32,
        key: String,
        hash: String,
        answer: String,
    },
    Note(Note),
}

impl Change {
    /// The end of this hold.
    pub fn end_of(hold: &Hold) -> Change {
        Change::HoldEnded { id: hold.id.clone(), begun: hold.begun, version: hold.version }
    }

    /// Whether it is part of an emergency, or of a start, without which there is none: such a change waits for nothing of
    /// routine, and has the room that is kept for it on a full disk.
    pub fn is_urgent(&self) -> bool {
        match self {
            Change::Announcement(row) => row.priority == Priority::Emergency,
            Change::Step(step) => {
                step.row.priority == Priority::Emergency || matches!(step.event, "owner_gone" | "doubted")
            }
            Change::Note(note) => matches!(note.kind.as_str(), "started" | "ledger_behind"),
            Change::Stop(stop) => matches!(stop.cause, Cause::Corrected | Cause::Cleared),
            Change::Hold(_) | Change::HoldEnded { .. } | Change::Confirmed { .. } | Change::Ended(..) => true,
            _ => false,
        }
    }

    /// Whether it can be refused because another change came first.
    pub fn is_guarded(&self) -> bool {
        matches!(
            self,
            Change::Announcement(_)
                | Change::Expect(..)
                | Change::ExpectMeta(..)
                | Change::Step(_)
                | Change::Hold(_)
                | Change::HoldEnded { .. }
        )
    }
}

/// An event as it is first said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub kind: String,
    pub subject: String,
    pub body: serde_json::Value,
}

impl Note {
    pub fn change(kind: &str, subject: impl ToString, body: serde_json::Value) -> Change {
        Change::Note(Note { kind: kind.to_owned(), subject: subject.to_string(), body })
    }
}

/// An event as it is kept: one line of the audit trail, one message of the event stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Recorded {
    pub seq: i64,
    #[schema(value_type = chrono::DateTime<chrono::Utc>)]
    pub at: Time,
    pub actor: String,
    pub kind: String,
    pub subject: String,
    pub body: String,
    pub previous: String,
    pub hash: String,
}

/// The chain's beginning.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Recorded {
    /// The hash this record must have: over its fields, each with its length before it, and the hash before.
    pub fn expected_hash(&self) -> String {
        let mut hasher = Sha256::new();
        let micros = self.at.timestamp_micros();
        for field in [
            self.seq.to_string().as_bytes(),
            micros.to_string().as_bytes(),
            self.actor.as_bytes(),
            self.kind.as_bytes(),
            self.subject.as_bytes(),
            self.body.as_bytes(),
            self.previous.as_bytes(),
        ] {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        hex::encode(hasher.finalize())
    }

    /// Whether this record follows the one before, and is as it was written.
    pub fn follows(&self, seq: Seq, hash: &str) -> bool {
        self.seq == seq + 1 && self.previous == hash && self.hash == self.expected_hash()
    }
}

/// Where a trail is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tampered {
    /// This record was changed, removed, added or moved.
    At(Seq),
    /// Whole up to here, and shorter than it was when its head was written down.
    CutAfter(Seq),
}

/// The head of a whole trail, read from its beginning. With the head that was written down earlier a cut tail shows too.
pub fn verified<'a>(
    records: impl IntoIterator<Item = &'a Recorded>,
    exported: Option<(Seq, &str)>,
) -> Result<(Seq, String), Tampered> {
    let (mut seq, mut hash) = (0, GENESIS);
    for record in records {
        if !record.follows(seq, hash) {
            return Err(Tampered::At(record.seq.min(seq + 1)));
        }
        (seq, hash) = (record.seq, &record.hash);
        if exported.is_some_and(|(at, wanted)| at == seq && wanted != hash) {
            return Err(Tampered::At(seq));
        }
    }
    match exported {
        Some((at, _)) if at > seq => Err(Tampered::CutAfter(seq)),
        _ => Ok((seq, hash.to_owned())),
    }
}

/// Of an emergency, oldest first, the warnings that came after all those that last words are about.
pub fn newer_warnings(family: &[AnnouncementRow], about: &Follows) -> Vec<AnnouncementId> {
    let is_warning = |row: &&AnnouncementRow| matches!(row.follows, None | Some((_, Part::Update)));
    let after = family.iter().rposition(|row| about.posts.contains(&row.id)).map_or(family.len(), |at| at + 1);
    family[after..].iter().filter(is_warning).map(|row| row.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(records: i64) -> Vec<Recorded> {
        let mut trail: Vec<Recorded> = Vec::new();
        for seq in 1..=records {
            let mut record = Recorded {
                seq,
                at: chrono::DateTime::from_timestamp_micros(1_790_000_000_000_000 + seq).unwrap(),
                actor: "duty(1000)".to_owned(),
                kind: "emergency".to_owned(),
                subject: format!("flood-{seq}"),
                body: format!("{{\"text\":\"第{seq}号\"}}"),
                previous: trail.last().map_or(GENESIS.to_owned(), |r| r.hash.clone()),
                hash: String::new(),
            };
            record.hash = record.expected_hash();
            trail.push(record);
        }
        trail
    }

    /// The text with one byte changed, if it still is text.
    fn flipped(text: &str, at: usize) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] ^= 1;
        String::from_utf8(bytes).ok()
    }

    #[test]
    fn r16_any_byte_that_was_changed_is_found_at_its_record() {
        let whole = trail(200);
        assert_eq!(verified(&whole, None).unwrap(), (200, whole[199].hash.clone()));
        type Field = fn(&mut Recorded) -> &mut String;
        let fields: [Field; 6] = [
            |r| &mut r.actor,
            |r| &mut r.kind,
            |r| &mut r.subject,
            |r| &mut r.body,
            |r| &mut r.previous,
            |r| &mut r.hash,
        ];
        let mut tried = 0;
        for n in 0..whole.len() {
            let mut trail = whole.clone();
            let (seq, before) = (whole[n].seq, whole[n].previous.as_str());
            for field in fields {
                for at in 0..field(&mut trail[n]).len() {
                    let was = field(&mut trail[n]).clone();
                    let Some(other) = flipped(&was, at) else { continue };
                    *field(&mut trail[n]) = other;
                    assert!(!trail[n].follows(seq - 1, before));
                    if at == 0 {
                        assert_eq!(verified(&trail, None), Err(Tampered::At(seq)));
                    }
                    *field(&mut trail[n]) = was;
                    tried += 1;
                }
            }
            trail[n].at += chrono::TimeDelta::microseconds(1);
            assert_eq!(verified(&trail, None), Err(Tampered::At(seq)));
        }
        assert!(tried > 30_000, "{tried}");
    }

    #[test]
    fn r16_what_was_removed_repeated_or_moved_is_found_and_a_cut_tail_by_its_head() {
        let whole = trail(200);
        let head = (200, whole[199].hash.as_str());
        for n in 0..200 {
            let seq = n as i64 + 1;
            let (mut removed, mut twice) = (whole.clone(), whole.clone());
            removed.remove(n);
            // The last one's removal shows by the head alone.
            let found = if n == 199 { Tampered::CutAfter(199) } else { Tampered::At(seq) };
            assert_eq!(verified(&removed, Some(head)), Err(found));
            twice.insert(n, whole[n].clone());
            assert!(matches!(verified(&twice, Some(head)), Err(Tampered::At(at)) if at >= seq));
            assert_eq!(verified(&whole[..n], Some(head)), Err(Tampered::CutAfter(n as i64)));
            if n > 0 {
                let mut moved = whole.clone();
                moved.swap(n - 1, n);
                assert_eq!(verified(&moved, Some(head)), Err(Tampered::At(seq - 1)));
            }
        }
        // Written anew from one record on, it is whole in itself; the head that was written down tells.
        let mut forged = whole[..100].to_vec();
        for mut record in whole[100..].iter().cloned() {
            record.actor = "nobody(0)".to_owned();
            record.previous = forged.last().map_or(GENESIS.to_owned(), |r| r.hash.clone());
            record.hash = record.expected_hash();
            forged.push(record);
        }
        assert!(verified(&forged, None).is_ok());
        assert_eq!(verified(&forged, Some(head)), Err(Tampered::At(200)));
    }
}
