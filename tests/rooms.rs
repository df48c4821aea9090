//! The rooms keep to their doors: who may use whom, read from the `use` lines and paths themselves.

use std::path::{Path, PathBuf};

/// What each room may use of the others (`docs/architecture.md`).
const MAY: [(&str, &[&str]); 9] = [
    ("core", &[]),
    ("clock", &[]),
    ("input", &["core", "clock"]),
    ("ledger", &["core", "clock"]),
    ("platform", &["core", "clock"]),
    ("daemon", &["core", "clock", "input", "ledger", "platform"]),
    ("api", &["core", "clock", "daemon", "ledger", "input", "platform"]),
    ("cli", &["core", "clock", "input", "ledger", "platform", "daemon", "api", "sandbox"]),
    ("sandbox", &["clock"]),
];
/// Crates that the pure room may use.
const PURE: [&str; 13] = [
    "std",
    "chrono",
    "chrono_tz",
    "serde",
    "serde_json",
    "croner",
    "sha2",
    "hex",
    "secrecy",
    "thiserror",
    "unicode_normalization",
    "unicode_segmentation",
    "htmlize",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn room(path: &Path) -> Option<String> {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    let name = first.strip_suffix(".rs").unwrap_or(&first).to_owned();
    (name != "lib" && name != "main").then_some(name)
}

/// The code without comments and without its tests, which may reach for more.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or(text);
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_room_keeps_to_its_doors() {
    let mut all = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    assert!(all.len() > 30, "the sources were found");
    let mut broken = Vec::new();
    for path in all.iter().filter(|p| !p.ends_with("tests.rs")) {
        let Some(room) = room(path) else { continue };
        let (_, may) = MAY.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("{room} has no doors"));
        let text = code(&std::fs::read_to_string(path).unwrap());
        for part in text.split("crate::").skip(1) {
            let other: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let is_room = MAY.iter().any(|(name, _)| *name == other);
            if is_room && other != room && !may.contains(&other.as_str()) {
                broken.push(format!("{}: {room} uses {other}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_pure_room_is_pure() {
    let mut all = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core"), &mut all);
    for path in all.iter().filter(|p| !p.ends_with("tests.rs")) {
        let text = code(&std::fs::read_to_string(path).unwrap());
        for line in text.lines().filter(|l| l.starts_with("use ")) {
            let name: String = line[4..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let own = ["crate", "super", "self"].contains(&name.as_str());
            assert!(own || PURE.contains(&name.as_str()), "{}: {line}", path.display());
        }
        for word in ["async fn", "std::fs", "std::net", "HashMap", "HashSet", "Instant", "tokio"] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}
