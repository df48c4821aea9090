//! YAML and CAP to core types, with the place of every fault.
//!
//! Reading returns what is good *and* the faults: one bad announcement never stops its neighbours,
//! and all faults of a file are shown, not the first. A fault knows its file, its place to the
//! character, and what to do.

pub mod accounts;
pub mod cap;
pub mod folder;
pub mod images;
pub mod queue;
pub mod scenario;
pub mod settings;
pub mod templates;
pub mod typed;
pub mod values;
pub mod written;
pub mod yaml;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::words::Words;

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// As a person would name it: relative where the argument was.
    pub name: String,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// Something wrong in a file: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub severity: Severity,
    /// Stable name of the kind of fault: `unknown_key`.
    pub code: &'static str,
    pub message: Words,
    pub hint: Option<Words>,
    pub source: Arc<Source>,
    /// Bytes of the source.
    pub span: Range<usize>,
}

/// Line and column, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Source> {
        Arc::new(Source { name: name.into(), text: text.into() })
    }

    /// The place of a byte; one past the end is the end.
    pub fn place(&self, byte: usize) -> Place {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        let before = &self.text[..byte];
        let start = before.rfind('\n').map_or(0, |n| n + 1);
        Place { line: before.matches('\n').count() + 1, column: before[start..].chars().count() + 1 }
    }

    pub fn fault(self: &Arc<Self>, span: Range<usize>, code: &'static str, message: Words) -> Fault {
        Fault { severity: Severity::Error, code, message, hint: None, source: self.clone(), span }
    }
}

impl Fault {
    #[must_use]
    pub fn hint(mut self, hint: Words) -> Fault {
        self.hint = Some(hint);
        self
    }

    #[must_use]
    pub fn warning(mut self) -> Fault {
        self.severity = Severity::Warning;
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub fn start(&self) -> Place {
        self.source.place(self.span.start)
    }

    pub fn end(&self) -> Place {
        self.source.place(self.span.end)
    }
}

/// Orders faults as a reader meets them.
pub fn sort(faults: &mut [Fault]) {
    faults.sort_by(|a, b| (&a.source.name, a.span.start, a.severity).cmp(&(&b.source.name, b.span.start, b.severity)));
}

/// Whether a file's name ends in `.yaml` or `.yml`, in any case.
pub fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("yaml") || end.eq_ignore_ascii_case("yml"))
}

/// Whether a file was most likely meant to be read, and is not: `x.yaml.txt`, `x.yaml `, `x．yaml`. What editors and
/// other programs put beside a file is none of these.
pub fn is_nearly_yaml(path: &Path) -> bool {
    const BESIDE: [&str; 12] =
        ["~", ".bak", ".old", ".orig", ".tmp", ".swp", ".swo", ".part", ".new", ".rej", ".lock", ".d"];
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase().replace(['．', '。'], ".");
    let has_end = name.contains(".yaml") || name.contains(".yml");
    has_end && !is_yaml(path) && !BESIDE.iter().any(|end| name.ends_with(end)) && !name.starts_with(['.', '#'])
}

/// A file itself, or every YAML file below a folder, in the order of their names.
pub fn yaml_files(path: &Path, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let mut files: Vec<PathBuf> = ignore::WalkBuilder::new(path)
        .standard_filters(false)
        .hidden(true)
        .build()
        .filter_map(|entry| match entry {
            Ok(entry) => Some(entry.into_path()),
            Err(error) => {
                let name = path.display().to_string();
                let said = crate::words!("文件夹读不全：{error}", "the folder cannot be read: {error}");
                faults.push(Source::new(name, "").fault(0..0, "unreadable", said));
                None
            }
        })
        .filter(|path| is_yaml(path))
        .collect();
    files.sort();
    files
}

/// Faults of a file that may have a secret in it, wherever a slip has put it: whatever could be one is blotted out of what
/// is shown. The places stay where they are.
pub fn blotted(faults: Vec<Fault>) -> Vec<Fault> {
    let mut sources: Vec<(Arc<Source>, Arc<Source>)> = Vec::new();
    let mut of = |source: &Arc<Source>| {
        if let Some((_, shown)) = sources.iter().find(|(known, _)| Arc::ptr_eq(known, source)) {
            return shown.clone();
        }
        let shown = Source::new(source.name.clone(), blot(&source.text, SECRET_IN_FILE));
        sources.push((source.clone(), shown.clone()));
        shown
    };
    let said = |words: &Words| Words::new(blot(&words.zh, SECRET_IN_WORDS), blot(&words.en, SECRET_IN_WORDS));
    let one = |fault: Fault| Fault {
        source: of(&fault.source),
        message: said(&fault.message),
        hint: fault.hint.as_ref().map(said),
        ..fault
    };
    faults.into_iter().map(one).collect()
}

/// So many signs in a row may be a secret. In our own words there are names of accounts too.
const SECRET_IN_FILE: usize = 8;
const SECRET_IN_WORDS: usize = 12;

/// A secret is a run of signs that stand in no prose, with digits among its letters, or both cases, or very long. A place
/// that a secret is read from is none.
fn blot(text: &str, shortest: usize) -> String {
    const LONG: usize = 24;
    let is_sign =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '=' | '~' | '*' | '!' | '%');
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (run, after) = rest.split_at(rest.find(|c| !is_sign(c)).unwrap_or(rest.len()));
        let many = |kind: fn(&u8) -> bool| run.as_bytes().iter().filter(|byte| kind(byte)).count();
        let is_mixed = many(u8::is_ascii_digit) > 0 && many(u8::is_ascii_alphabetic) > 0
            || many(u8::is_ascii_uppercase) > 1 && many(u8::is_ascii_lowercase) > 1
            || run.len() >= LONG;
        let is_a_place = ["env:", "file:", "credential:"].iter().any(|kind| shown.ends_with(kind));
        match run.len() >= shortest && is_mixed && !is_a_place {
            true => shown.extend(std::iter::repeat_n('*', run.len())),
            false => shown.push_str(run),
        }
        let next = after.chars().next().map_or(0, char::len_utf8);
        shown.push_str(&after[..next]);
        rest = &after[next..];
    }
    shown
}

/// A file's text; what is not UTF-8, too long or unreadable becomes a fault instead.
pub fn read_text(path: &Path, name: &str) -> Result<Arc<Source>, Box<Fault>> {
    /// R40: no file that people write by hand is larger.
    const MOST_BYTES: u64 = 1 << 20;
    let broken = |code, message| Box::new(Source::new(name, "").fault(0..0, code, message));
    let unreadable = |error: std::io::Error| {
        broken("unreadable", crate::words!("无法读取 {name}：{error}", "{name} cannot be read: {error}"))
    };
    let file = images::open_regular(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    if size > MOST_BYTES {
        let said = crate::words!("{name} 有 {size} 字节，上限 1 MiB", "{name} has {size} bytes, the limit is 1 MiB");
        let hint = Words::new("拆成几个文件", "split it into several files");
        return Err(Box::new(broken("too_large", said).hint(hint)));
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MOST_BYTES + 1), &mut bytes).map_err(unreadable)?;
    decode(bytes, name)
}

fn decode(bytes: Vec<u8>, name: &str) -> Result<Arc<Source>, Box<Fault>> {
    match String::from_utf8(bytes) {
        Ok(text) => {
            // A byte order mark and the line ends of other systems are no part of what was written.
            let text = text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned);
            let text = if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text };
            Ok(Source::new(name, text))
        }
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let bytes = error.into_bytes();
            let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
            let likely = if utf16 { "UTF-16" } else { "GB18030" };
            let source = Source::new(name, String::from_utf8_lossy(&bytes[..at]));
            let said = crate::words!("第 {at} 个字节起不是 UTF-8", "not UTF-8 from byte {at} on");
            let hint = crate::words!(
                "文件像是 {likely} 编码，请另存为 UTF-8",
                "the file looks like {likely}: save it as UTF-8"
            );
            Err(Box::new(source.fault(at..at, "not_utf8", said).hint(hint)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_not_bytes() {
        let source = Source::new("a.yaml", "早安: 上海\n第二行");
        assert_eq!(source.place("早安: ".len()), Place { line: 1, column: 5 });
        assert_eq!(source.place(source.text.len()), Place { line: 2, column: 4 });
    }

    #[test]
    fn other_encodings_are_named_with_their_place() {
        let gbk = b"announcements:\n  - id: a\n    text: \xd4\xe7\xb0\xb2".to_vec();
        let fault = decode(gbk, "a.yaml").unwrap_err();
        assert_eq!((fault.start().line, fault.start().column), (3, 11));
        assert!(fault.hint.unwrap().en.contains("GB18030"));
        let plain = decode(b"\xef\xbb\xbfa: 1\r\nb: 2\r".to_vec(), "a.yaml").unwrap();
        assert_eq!(plain.text, "a: 1\nb: 2\n");
    }
}
