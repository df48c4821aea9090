//! How a command speaks to a person: language, colour, tables, excerpts with a caret.
//!
//! Data goes to stdout and all else to stderr; what came from outside is escaped before it is shown;
//! nothing depends on colour.

use std::io::Write as _;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use anstyle::{AnsiColor, Style};
use chrono_tz::Tz;
use comfy_table::{ContentArrangement, Table, presets};

use crate::clock::Time;
use crate::core::words::{Lang, Words, shown};
use crate::input::Fault;

/// What every command needs to speak.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    pub lang: Lang,
    pub json: bool,
    pub colour: bool,
    pub terminal: bool,
}

pub const GOOD: Style = AnsiColor::Green.on_default().bold();
pub const BAD: Style = AnsiColor::Red.on_default().bold();
pub const CARE: Style = AnsiColor::Yellow.on_default().bold();
pub const QUIET: Style = AnsiColor::BrightBlack.on_default();
/// Whatever belongs to a drill, and nothing live.
pub const DRILL: Style = AnsiColor::Cyan.on_default().bold();
pub const STRONG: Style = Style::new().bold();

impl Voice {
    pub fn say<'a>(&self, words: &'a Words) -> &'a str {
        words.in_(self.lang)
    }

    /// One of two wordings.
    pub fn pick<'a>(&self, zh: &'a str, en: &'a str) -> &'a str {
        match self.lang {
            Lang::Zh => zh,
            Lang::En => en,
        }
    }

    pub fn paint(&self, style: Style, text: impl std::fmt::Display) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// Prints a line of data. A reader that went away (`| head`) is no error.
    pub fn out(&self, text: impl std::fmt::Display) {
        writeln!(std::io::stdout().lock(), "{text}").unwrap_or_default();
    }

    /// Prints a line that is not data.
    pub fn note(&self, text: impl std::fmt::Display) {
        writeln!(std::io::stderr().lock(), "{text}").unwrap_or_default();
    }

    pub fn error(&self, words: &Words) {
        let sign = self.paint(BAD, self.pick("错误", "error"));
        self.note(format_args!("{sign}: {}", self.say(words)));
    }

    pub fn hint(&self, words: &Words) {
        let sign = self.paint(CARE, self.pick("提示", "hint"));
        self.note(format_args!("{sign}: {}", self.say(words)));
    }

    pub fn data(&self, value: &serde_json::Value) {
        let text = if self.terminal { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.out(text.expect("a JSON value is always written"));
    }

    /// A time of day in the configured zone, with its date unless that is today's.
    pub fn time(&self, at: Time, zone: Tz, now: Time) -> String {
        let (local, today) = (at.with_timezone(&zone), now.with_timezone(&zone).date_naive());
        let form = if local.date_naive() == today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
        local.format(form).to_string()
    }

    pub fn table(&self, head: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(if self.terminal {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        table.set_header(head.iter().map(|h| (*h).to_owned()).collect::<Vec<String>>());
        table
    }

    /// A fault with its file, line, an excerpt with a caret, and what to do.
    pub fn fault(&self, fault: &Fault) -> String {
        let level = if fault.is_error() { Level::ERROR } else { Level::WARNING };
        let name = match (fault.is_error(), self.lang) {
            (true, Lang::Zh) => "错误",
            (true, Lang::En) => "error",
            (false, Lang::Zh) => "警告",
            (false, Lang::En) => "warning",
        };
        let level = level.with_name(name);
        let message = shown(self.say(&fault.message));
        let path = shown(&fault.source.name);
        let text = &fault.source.text;
        let renderer = if self.colour { Renderer::styled() } else { Renderer::plain() };
        let title = level.primary_title(message);
        let drawn = if text.is_empty() {
            let group = Group::with_title(title);
            let head = renderer.render(&[group]);
            if path.is_empty() { head } else { format!("{head}\n --> {path}") }
        } else {
            let end = fault.span.end.min(text.len());
            // One line is enough to point at; a caret needs at least one character to stand under.
            let start = fault.span.start.min(text.len());
            let end = text[start..end].find('\n').map_or(end, |n| start + n).max(start);
            let snippet =
                Snippet::source(text.as_str()).path(path).annotation(AnnotationKind::Primary.span(start..end));
            renderer.render(&[Group::with_title(title).element(snippet)])
        };
        match &fault.hint {
            Some(hint) => {
                let sign = self.paint(CARE, self.pick("提示", "hint"));
                format!("{drawn}\n{sign}: {}", shown(self.say(hint)))
            }
            None => drawn,
        }
    }
}

/// The language of a locale's name; one that is neither is answered in English.
pub fn language(wish: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Lang {
    let named = wish
        .map(str::to_owned)
        .or_else(|| ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(|k| env(k).filter(|v| !v.is_empty())));
    match named {
        Some(name) if name.to_lowercase().starts_with("zh") => Lang::Zh,
        _ => Lang::En,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Source;
    use crate::words;

    #[test]
    fn a_caret_stands_under_the_right_character_also_in_chinese() {
        let voice = Voice { lang: Lang::Zh, json: false, colour: false, terminal: false };
        let source = Source::new("queue/metro.yaml", "announcements:\n  - id: a\n    text: 早安，\u{1b}上海\n");
        let at = source.text.find('\u{1b}').unwrap();
        let fault =
            source.fault(at..at + 1, "hidden", words!("看不见的字符", "hidden")).hint(words!("删去它", "delete it"));
        let drawn = voice.fault(&fault);
        assert!(drawn.contains("queue/metro.yaml:3:14"), "{drawn}");
        assert!(!drawn.contains('\u{1b}'), "{drawn}");
        assert!(drawn.ends_with("提示: 删去它"), "{drawn}");
    }
}
