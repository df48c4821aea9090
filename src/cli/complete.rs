//! Completions: the shell asks `fabu` itself, so that it offers the templates of this city.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;

use super::text::Voice;
use super::{Exit, localised};
use crate::core::template::{Kind, Template};
use crate::core::words::{Lang, Words};
use crate::daemon::config::{self, Env};

/// The variable by which a shell's script asks.
const ASKED_BY: &str = "COMPLETE";

/// Prints the script that makes a shell ask.
pub fn register(shell: clap_complete::Shell, voice: Voice) -> Exit {
    let shells = Shells::builtins();
    let written = match shells.completer(&shell.to_string()) {
        Some(shell) => shell.write_registration(ASKED_BY, "fabu", "fabu", "fabu", &mut std::io::stdout()),
        None => Err(std::io::Error::other("no such shell")),
    };
    match written {
        Ok(()) => Exit::Done,
        Err(error) => {
            voice.error(&Words::same(error.to_string()));
            Exit::Failed
        }
    }
}

/// What a shell asked for, if it was one that asked.
pub fn answered(arguments: &[OsString], lang: Lang, env: &dyn Fn(&str) -> Option<String>) -> Option<Exit> {
    env(ASKED_BY)?;
    let folder = std::env::current_dir().ok();
    let completed = CompleteEnv::with_factory(|| localised(lang)).try_complete(arguments.to_vec(), folder.as_deref());
    match completed {
        Ok(true) => Some(Exit::Done),
        Ok(false) => None,
        // In the middle of somebody's command line there is nobody to tell.
        Err(_) => Some(Exit::Failed),
    }
}

/// Names of the templates, with their titles.
pub fn templates() -> Vec<CompletionCandidate> {
    let offered = |t: &Template| CompletionCandidate::new(&t.name).help(Some(t.title.clone().into()));
    known().iter().map(offered).collect()
}

/// `NAME=` for each value of the template on the command line, and its values where they are few.
pub fn values() -> Vec<CompletionCandidate> {
    let wanted = given("--template");
    let templates = known();
    let Some(template) = templates.iter().find(|t| Some(&t.name) == wanted.as_ref()) else { return Vec::new() };
    let mut all = Vec::new();
    for value in &template.values {
        let offered = |text: &str| {
            CompletionCandidate::new(format!("{}={text}", value.name)).help(Some(value.label.clone().into()))
        };
        match &value.kind {
            Kind::OneOf(known) => all.extend(known.iter().map(|k| offered(k))),
            _ => all.push(offered("")),
        }
    }
    all
}

fn known() -> Vec<Template> {
    let env: Env = Arc::new(|name| std::env::var(name).ok());
    let file = given("--config").or_else(|| env("FABU_CONFIG")).unwrap_or_else(|| "config/fabu.yaml".to_owned());
    let (config, _) = config::read(&PathBuf::from(file), &env, false);
    config.map(|c| c.templates.into_values().collect()).unwrap_or_default()
}

/// What an option has on the command line that is being completed.
fn given(option: &str) -> Option<String> {
    let words: Vec<String> = std::env::args_os().filter_map(|a| a.into_string().ok()).collect();
    words.iter().enumerate().find_map(|(n, word)| {
        let joined = word.strip_prefix(option).and_then(|rest| rest.strip_prefix('=')).map(str::to_owned);
        joined.or_else(|| (word == option).then(|| words.get(n + 1).cloned()).flatten())
    })
}
