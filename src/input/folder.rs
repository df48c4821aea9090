//! The queue folder: every `*.yaml` and `*.yml` below it, and the faults that show only across files.
//!
//! The folder is walked without following links, and what is not a regular file is named and left
//! alone. A folder that is missing or cannot be read is said to be so; that cancels nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::TimeDelta;

use super::queue::{self, Context, Entry};
use super::{Fault, Source, is_nearly_yaml, is_yaml, read_text, values};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Priority, Timing};
use crate::core::plan::Desired;
use crate::core::words::{Words, shown, words};
use crate::core::{Time, fit, repeat};

/// R58: more files or announcements than this are another kind of folder.
const MOST_FILES: usize = 100_000;
const MOST_ANNOUNCEMENTS: usize = 200_000;
/// Of many with the same words each is compared with so many before it.
const MOST_COMPARED: usize = 20;

/// The folder as it was read.
#[derive(Debug, Default)]
pub struct Reading {
    pub desired: Desired,
    pub faults: Vec<Fault>,
    pub files: usize,
    /// Announcements of which the ledger alone can say whether they are a fault's matter: superseded and not in the
    /// queue, or with an hour that is past.
    pub unsure: BTreeSet<AnnouncementId>,
}

/// Announcements that the ledger knows by name.
#[derive(Debug, Default)]
pub struct Named {
    /// Those that `supersedes` may mean, though they have left the queue. `None`: nobody can tell, and all may be there.
    pub earlier: Option<BTreeSet<AnnouncementId>>,
    /// Emergencies that came over the socket: no file may speak in their name.
    pub of_socket: BTreeSet<AnnouncementId>,
    /// Announcements that are emergencies, wherever they came from.
    pub emergencies: BTreeSet<AnnouncementId>,
}

/// Reads everything below the queue folder.
pub fn read(context: &Context<'_>, known: &Named) -> Reading {
    let mut reading = Reading::default();
    let root = context.root;
    let Some(files) = walk(root, &mut reading) else {
        reading.desired.folder_gone = true;
        return reading;
    };
    reading.files = files.len();
    let mut entries: Vec<Entry> = Vec::new();
    for (path, name) in files {
        let shown_path = path.display().to_string();
        let source = match read_text(&path, &shown_path) {
            Ok(source) => source,
            Err(fault) => {
                reading.faults.push(*fault);
                reading.desired.unread_files.insert(name);
                reading.desired.standing.extend(named_in(&lossy(&path)));
                continue;
            }
        };
        let mut read = contained(&source, || queue::read(&source, &name, context));
        if read.unread {
            reading.desired.unread_files.insert(name);
            // One that was moved into it a moment before it broke was not taken out.
            reading.desired.standing.extend(named_in(&source.text));
        }
        reading.faults.append(&mut read.faults);
        reading.desired.standing.append(&mut read.standing);
        let saved = saved(&path);
        for entry in &mut read.announcements {
            entry.announcement.saved = saved;
        }
        entries.append(&mut read.announcements);
        if entries.len() > MOST_ANNOUNCEMENTS {
            let said = words!(
                "队列超过 {MOST_ANNOUNCEMENTS} 条公告",
                "the queue has more than {MOST_ANNOUNCEMENTS} announcements"
            );
            reading.faults.push(source.fault(0..0, "too_many", said));
            reading.desired.folder_gone = true;
            return reading;
        }
    }
    across(entries, &mut reading, known, context);
    super::sort(&mut reading.faults);
    reading
}

/// When the contents of a file were last changed.
fn saved(path: &Path) -> Option<crate::clock::Time> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::symlink_metadata(path).ok()?;
    let micros = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000);
    Some(crate::clock::from_micros(micros(meta.mtime(), meta.mtime_nsec())))
}

/// R26: what makes the reader panic costs its own file, and nothing of what that file had said before is withdrawn.
fn contained(source: &Arc<Source>, read: impl FnOnce() -> queue::Read) -> queue::Read {
    // Nothing outlives the reading but its result.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let name = &source.name;
        let said = words!("读取 {name} 时程序内部出错", "an internal error while {name} was read");
        let hint = Words::new(
            "其中的公告照旧；把文件拆开可找出是哪一条，并请报告",
            "its announcements stay as they were; split the file to find which it is, and report it",
        );
        queue::Read {
            faults: vec![source.fault(0..0, "internal", said).hint(hint)],
            unread: true,
            ..Default::default()
        }
    })
}

/// The queue files and their names below the root; `None` when the folder itself cannot be read.
fn walk(root: &Path, reading: &mut Reading) -> Option<Vec<(PathBuf, String)>> {
    let gone = |reading: &mut Reading, why: String| {
        let name = shown(&root.display().to_string());
        let said = words!("队列文件夹 {name} 读不了：{why}", "the queue folder {name} cannot be read: {why}");
        let hint = Words::new("不会因此取消任何公告", "nothing is cancelled because of this");
        reading.faults.push(Source::new(name, "").fault(0..0, "queue_folder", said).hint(hint));
    };
    if let Err(error) = std::fs::read_dir(root) {
        gone(reading, error.to_string());
        return None;
    }
    let mut files = Vec::new();
    for entry in ignore::WalkBuilder::new(root).standard_filters(false).hidden(true).follow_links(false).build() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                // Part of the tree is missing: what came from there must not look deleted.
                let Some(part) = place_of(&error).filter(|part| part.starts_with(root) && *part != root) else {
                    gone(reading, error.to_string());
                    return None;
                };
                passed_over(part, root, reading, words!("读不了：{error}", "it cannot be read: {error}"));
                continue;
            }
        };
        let path = entry.path();
        // A link may lead anywhere, and round in a circle.
        if entry.path_is_symlink() && path.is_dir() {
            let said = Words::new("它是符号链接", "it is a symbolic link");
            passed_over(path, root, reading, said);
            continue;
        }
        if !is_yaml(path) {
            if is_nearly_yaml(path) && entry.file_type().is_some_and(|t| t.is_file()) {
                reading.faults.push(not_read(path));
            }
            continue;
        }
        let below = path.strip_prefix(root).unwrap_or(path);
        let name = below.to_string_lossy().into_owned();
        if entry.file_type().is_some_and(|t| t.is_file()) {
            files.push((path.to_owned(), name));
        } else {
            let safe = shown(&path.display().to_string());
            let said = words!("{safe} 不是普通文件，略过", "{safe} is not a regular file and is passed over");
            reading.faults.push(Source::new(safe, "").fault(0..0, "not_a_file", said));
            reading.desired.unread_files.insert(name);
        }
        if files.len() > MOST_FILES {
            gone(reading, format!("> {MOST_FILES} files"));
            return None;
        }
    }
    files.sort();
    Some(files)
}

/// The folder that an error of the walk is about.
fn place_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => place_of(err),
        _ => None,
    }
}

/// A folder below the queue's that is not read: what is known of its files stays as it is. The one that a file system makes
/// for itself holds nothing of ours.
fn passed_over(part: &Path, root: &Path, reading: &mut Reading, why: Words) {
    let name = shown(&part.display().to_string());
    let (zh, en) = (&why.zh, &why.en);
    let said = words!("略过文件夹 {name}：{zh}", "the folder {name} is passed over: {en}");
    let hint = Words::new(
        "里面已知的公告照旧，不会因此取消",
        "what is known of it stays, and nothing is cancelled because of this",
    );
    let fault = Source::new(name, "").fault(0..0, "folder_not_read", said).hint(hint);
    if part.file_name().is_some_and(|name| name == "lost+found") {
        reading.faults.push(fault.warning());
        return;
    }
    reading.faults.push(fault);
    let below = part.strip_prefix(root).unwrap_or(part).to_string_lossy();
    reading.desired.unread_folders.insert(format!("{below}/"));
}

/// The remark on a file that looks like one of the queue by its name, and is none.
fn not_read(path: &Path) -> Fault {
    let safe = shown(&path.display().to_string());
    let said = words!("{safe} 像队列文件，但不会被读取", "{safe} looks like a queue file and is not read");
    let hint = Words::new("文件名要以 .yaml 或 .yml 结尾", "its name has to end in .yaml or .yml");
    Source::new(safe, "").fault(0..0, "not_read", said).hint(hint).warning()
}

/// Two announcements with one id, or ids that look alike; `supersedes` that lead nowhere or in a ring.
fn across(entries: Vec<Entry>, reading: &mut Reading, known: &Named, context: &Context<'_>) {
    let mut by_look: BTreeMap<String, Vec<&Entry>> = BTreeMap::new();
    for entry in &entries {
        by_look.entry(values::look(entry.announcement.id.as_str())).or_default().push(entry);
    }
    let mut bad: BTreeSet<AnnouncementId> = BTreeSet::new();
    for same in by_look.values().filter(|same| same.len() > 1) {
        for entry in same {
            let other = same.iter().find(|o| !std::ptr::eq(**o, *entry)).expect("there are two at least");
            let at = format!("{}:{}", other.source.name, other.source.place(other.id_span.start).line);
            let (mine, theirs) = (shown(entry.announcement.id.as_str()), shown(other.announcement.id.as_str()));
            let said = if mine == theirs {
                words!("id `{mine}` 用了两次", "the id `{mine}` is used twice")
            } else {
                words!("id `{mine}` 与 `{theirs}` 看起来一样", "the ids `{mine}` and `{theirs}` look alike")
            };
            let hint = words!("另一处在 {at}；改其中一个", "the other is at {at}: change one of them");
            reading.faults.push(entry.source.fault(entry.id_span.clone(), "id_twice", said).hint(hint));
            bad.insert(entry.announcement.id.clone());
        }
    }
    for entry in entries.iter().filter(|e| known.of_socket.contains(&e.announcement.id)) {
        let safe = shown(entry.announcement.id.as_str());
        let said = words!("`{safe}` 是一次紧急发布的名字", "`{safe}` is the name of an emergency that was sent");
        let hint = Words::new("换一个 id", "choose another id");
        reading.faults.push(entry.source.fault(entry.id_span.clone(), "id_taken", said).hint(hint));
        bad.insert(entry.announcement.id.clone());
    }
    let ids: BTreeSet<AnnouncementId> = entries.iter().map(|e| e.announcement.id.clone()).collect();
    let emergencies: BTreeSet<AnnouncementId> = entries
        .iter()
        .filter(|e| e.announcement.content.body.priority == Priority::Emergency)
        .map(|e| e.announcement.id.clone())
        .collect();
    let next: BTreeMap<&AnnouncementId, &AnnouncementId> = entries
        .iter()
        .filter_map(|e| Some((&e.announcement.id, e.announcement.content.body.supersedes.as_ref()?)))
        .collect();
    for entry in &entries {
        let Some(old) = &entry.announcement.content.body.supersedes else { continue };
        let in_queue = ids.contains(old) || reading.desired.standing.contains(old);
        if !in_queue {
            reading.unsure.insert(old.clone());
        }
        let there = in_queue || known.earlier.as_ref().is_none_or(|all| all.contains(old));
        let ring = is_ring(&entry.announcement.id, &next);
        // An emergency is its persons': what needs nobody's word does not take its place.
        let is_routine = entry.announcement.content.body.priority != Priority::Emergency;
        let is_emergency = known.emergencies.contains(old) || emergencies.contains(old);
        let is_sent = known.of_socket.contains(old) || is_routine && is_emergency;
        if there && !ring && !is_sent {
            continue;
        }
        let safe = shown(old.as_str());
        let (said, hint) = if is_sent {
            let said = words!(
                "`{safe}` 是紧急发布，队列里的日常内容不能取代它",
                "`{safe}` is an emergency: no file takes its place"
            );
            let hint = words!(
                "用 fabu correct {safe} 或 fabu all-clear {safe}",
                "use `fabu correct {safe}` or `fabu all-clear {safe}`"
            );
            (said, Some(hint))
        } else if ring {
            (words!("`supersedes` 绕成一圈", "`supersedes` leads in a ring"), None)
        } else {
            let near = crate::core::words::nearest(old.as_str(), ids.iter().map(AnnouncementId::as_str));
            let hint = near.map(|meant| words!("是否指 `{meant}`？", "did you mean `{meant}`?"));
            (words!("要取代的 `{safe}` 不存在", "`{safe}`, which it supersedes, does not exist"), hint)
        };
        let fault =
            entry.source.fault(entry.supersedes_span.clone().unwrap_or(entry.id_span.clone()), "supersedes", said);
        reading.faults.push(match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        });
        bad.insert(entry.announcement.id.clone());
    }
    past(&entries, reading, known, context);
    unreached(&entries, reading);
    repeated(&entries, reading, context);
    for entry in entries {
        let id = entry.announcement.id.clone();
        if bad.contains(&id) {
            reading.desired.standing.insert(id);
        } else {
            reading.desired.announcements.insert(id, entry.announcement);
        }
    }
}

/// The text of a plain file that is none, as far as it can be read.
fn lossy(path: &Path) -> String {
    let is_plain = path.symlink_metadata().is_ok_and(|found| found.is_file());
    let mut bytes = Vec::new();
    if is_plain && let Ok(file) = std::fs::File::open(path) {
        file.take(1 << 20).read_to_end(&mut bytes).unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The ids that a file names, though nothing of it can be read.
fn named_in(text: &str) -> impl Iterator<Item = AnnouncementId> {
    const QUOTES: [char; 2] = ['"', '\''];
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '}' | '#');
    let value = move |rest: &'_ str| {
        let rest = rest.trim_start_matches(QUOTES).trim_start().strip_prefix(':')?.trim_start();
        let id = rest.split(ends).next()?.trim_matches(QUOTES);
        (!id.is_empty()).then(|| AnnouncementId::from(id))
    };
    text.split("id").skip(1).filter_map(value)
}

fn is_ring(start: &AnnouncementId, next: &BTreeMap<&AnnouncementId, &AnnouncementId>) -> bool {
    let mut at = start;
    for _ in 0..=next.len() {
        match next.get(at) {
            Some(old) if *old == start => return true,
            Some(old) => at = old,
            None => return false,
        }
    }
    false
}

/// An hour that is over, of what the ledger does not know: it will not go out, or late.
fn past(entries: &[Entry], reading: &mut Reading, known: &Named, context: &Context<'_>) {
    for entry in entries {
        let Timing::At(at) = entry.announcement.content.body.timing else { continue };
        let (Some(span), true) = (entry.at_span.clone(), at < context.now) else { continue };
        reading.unsure.insert(entry.announcement.id.clone());
        if known.earlier.as_ref().is_none_or(|earlier| earlier.contains(&entry.announcement.id)) {
            continue;
        }
        let said = Words::new("这个时刻已经过去", "this time is past");
        let hint = Words::new(
            "没发过的话：在 catch_up 之内会马上补发，否则不再发布；看看日期",
            "if it was not published: it goes at once while `catch_up` lasts, and not at all after that; look at the date",
        );
        reading.faults.push(entry.source.fault(span, "past", said).warning().hint(hint));
    }
}

/// Accounts the new announcement does not reach keep the old one: said, since nobody expects it.
fn unreached(entries: &[Entry], reading: &mut Reading) {
    let by_id: BTreeMap<&AnnouncementId, &Entry> = entries.iter().map(|e| (&e.announcement.id, e)).collect();
    for entry in entries {
        let content = &entry.announcement.content;
        let Some(old) = content.body.supersedes.as_ref().and_then(|old| by_id.get(old)) else { continue };
        let left = old.announcement.content.accounts.difference(&content.accounts).count();
        if left > 0 {
            let said = words!(
                "旧的一条在 {left} 个账号上会留着：新的不发到那里",
                "the old one stays on {left} accounts, which the new one does not reach"
            );
            let span = entry.supersedes_span.clone().unwrap_or(entry.id_span.clone());
            reading.faults.push(entry.source.fault(span, "unreached", said).warning());
        }
    }
}

/// The same words to the same account within a day are refused by the platforms.
fn repeated(entries: &[Entry], reading: &mut Reading, context: &Context<'_>) {
    // The words that go out there: the platform's own, with the link.
    let mut by_words: BTreeMap<(String, &str), Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        let (body, accounts) = (&entry.announcement.content.body, &entry.announcement.content.accounts);
        let platforms: BTreeSet<&str> = accounts.iter().map(AccountId::platform).collect();
        for platform in platforms {
            let words = fit::full_text(body.text_for(platform), body.link.as_deref());
            by_words.entry((words, platform)).or_default().push(entry);
        }
    }
    let mut told: BTreeSet<&AnnouncementId> = BTreeSet::new();
    for ((_, platform), same) in by_words.iter().filter(|(_, same)| same.len() > 1) {
        let mut by_account: BTreeMap<&AccountId, Vec<&Entry>> = BTreeMap::new();
        for entry in same {
            for account in entry.announcement.content.accounts.iter().filter(|a| a.platform() == *platform) {
                by_account.entry(account).or_default().push(entry);
            }
        }
        for (account, mut entries) in by_account {
            entries.sort_by_key(|entry| spell(entry, context).0);
            for (n, entry) in entries.iter().enumerate() {
                let near = entries[n.saturating_sub(MOST_COMPARED)..n].iter().rfind(|o| are_near(o, entry, context));
                if let Some(other) = near
                    && told.insert(&entry.announcement.id)
                {
                    let id = &other.announcement.id;
                    let said = words!(
                        "一天内与 `{id}` 同样的文字发到 {account}",
                        "the same text as `{id}` to {account} within a day"
                    );
                    let hint =
                        Words::new("平台会当作重复而拒绝；改动文字", "the platform refuses it as a duplicate: vary it");
                    let span = entry.id_span.clone();
                    reading.faults.push(entry.source.fault(span, "same_text", said).warning().hint(hint));
                }
            }
        }
    }
}

/// From when to when it speaks.
fn spell(entry: &Entry, context: &Context<'_>) -> (Time, Time) {
    match &entry.announcement.content.body.timing {
        Timing::At(at) => (*at, *at),
        Timing::Now => (context.now, context.now),
        Timing::Repeat(repeat) => {
            (repeat.from.unwrap_or(context.now), repeat.until.unwrap_or(context.now + TimeDelta::days(3660)))
        }
    }
}

fn are_near(one: &Entry, other: &Entry, context: &Context<'_>) -> bool {
    let day = TimeDelta::days(1);
    let (one_s, other_s) = (spell(one, context), spell(other, context));
    let overlap = one_s.0 - day < other_s.1 && other_s.0 - day < one_s.1;
    let comes = |repeat: &Entry, at: Time| match &repeat.announcement.content.body.timing {
        Timing::Repeat(repeat) => !repeat::occurrences(repeat, context.zone, at - day, at + day, 1).is_empty(),
        _ => true,
    };
    let is_repeat = |entry: &Entry| entry.announcement.content.is_repeat();
    match (is_repeat(one), is_repeat(other)) {
        (true, false) => overlap && comes(one, other_s.0),
        (false, true) => overlap && comes(other, one_s.0),
        _ => overlap,
    }
}

/// What a change of the folder is known by: names, sizes, times of all that lies below it.
pub fn signature(root: &Path) -> Arc<str> {
    use std::os::unix::fs::MetadataExt as _;
    let mut lines: Vec<String> = ignore::WalkBuilder::new(root)
        .standard_filters(false)
        .hidden(true)
        .follow_links(false)
        .build()
        .filter_map(|entry| match entry {
            Ok(entry) => {
                let meta = entry.metadata().ok()?;
                let path = entry.path().display();
                // A folder's own time changes with files that are passed over, and says nothing.
                let time = if meta.is_dir() { 0 } else { meta.mtime_nsec() + meta.mtime() * 1_000_000_000 };
                Some(format!("{path} {} {} {time} {}", meta.ino(), meta.len(), meta.mode()))
            }
            Err(error) => Some(error.to_string()),
        })
        .collect();
    lines.sort();
    lines.join("\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r26_a_file_that_makes_the_reader_panic_is_one_fault_and_stays_as_it_was() {
        let source = Source::new("poison.yaml", "announcements: []");
        let read = contained(&source, || panic!("a reader that cannot go on"));
        assert!(read.unread && read.announcements.is_empty());
        assert_eq!(read.faults.len(), 1);
        assert!(read.faults[0].is_error());
        assert_eq!((read.faults[0].code, &*read.faults[0].source.name), ("internal", "poison.yaml"));
    }
}
