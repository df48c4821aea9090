//! The commands as a person meets them: output, exit code, both languages.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn city() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "fabu.yaml",
        "platforms:\n  eastday: {base_url: \"https://t.example\"}\n  sina: {app_key: k, operator_ip: 203.0.113.9, audited: true}\n",
    );
    write(
        "accounts.yaml",
        "units:\n- id: shanghai\n  name: 上海发布\n  accounts:\n    sina: {token: \"env:A_TOKEN\"}\n    eastday: {token: \"env:A_TOKEN2\"}\n",
    );
    std::fs::create_dir(folder.path().join("queue")).unwrap();
    folder
}

fn fabu(folder: &Path, lang: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fabu"))
        .current_dir(folder)
        .env_clear()
        .env("LANG", lang)
        .env("A_TOKEN", "one")
        .env("A_TOKEN2", "two")
        .args(["--config", "fabu.yaml"])
        .args(arguments)
        .output()
        .unwrap()
}

/// Exit code, then what stood on stdout and stderr.
fn told(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("exit {}\n--- stdout\n{out}--- stderr\n{err}", output.status.code().unwrap())
}

const FAULTY: &str = "announcements:\n  - id: a\n    txet: 早安\n    to: [shanghia]\n  - id: b\n    text: 【通知】暂\u{200b}停供水\n    at: 2030-02-30 08:00\n    to: [\"sina:shanghai\"]\n  - id: c\n    text: 正常的一条\n    at: 2030-01-01 08:00\n    to: [shanghai]\n";

#[test]
fn check_names_every_fault_with_its_place_and_a_hint_in_both_languages() {
    let folder = city();
    std::fs::write(folder.path().join("queue/a.yaml"), FAULTY).unwrap();
    insta::assert_snapshot!("check_zh", told(&fabu(folder.path(), "zh_CN.UTF-8", &["check"])));
    insta::assert_snapshot!("check_en", told(&fabu(folder.path(), "en_US.UTF-8", &["check"])));
}

#[test]
fn check_json_is_an_array_with_places() {
    let folder = city();
    std::fs::write(folder.path().join("queue/a.yaml"), FAULTY).unwrap();
    let output = fabu(folder.path(), "C", &["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let faults: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys = ["severity", "code", "message", "hint", "file", "line", "column", "end_line", "end_column"];
    for fault in faults.as_array().unwrap() {
        assert_eq!(fault.as_object().unwrap().keys().len(), keys.len());
        assert!(keys.iter().all(|k| fault.get(*k).is_some()), "{fault}");
    }
    assert_eq!(faults[0]["line"], 3);
}

#[test]
fn a_path_in_which_there_was_nothing_to_read_is_not_called_good() {
    let folder = city();
    let good = "announcements:\n  - {id: a, text: 早安, at: 2036-01-01 08:00, to: [\"**\"]}\n";
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for name in ["a.yaml", "NOTICE.YML", "x.yaml.txt", "notes.txt"] {
        std::fs::write(folder.path().join(name), good).unwrap();
    }
    for (path, exit) in
        [("a.yaml", 0), ("NOTICE.YML", 0), ("x.yaml.txt", 1), ("notes.txt", 1), ("empty", 1), ("nowhere", 1)]
    {
        let output = fabu(folder.path(), "en_US.UTF-8", &["check", path]);
        assert_eq!(output.status.code(), Some(exit), "{path}: {}", told(&output));
    }
    // The configured folder may be empty.
    assert_eq!(fabu(folder.path(), "en_US.UTF-8", &["check"]).status.code(), Some(0));
}

#[test]
fn a_queue_in_order_ends_with_zero_and_one_line() {
    let folder = city();
    std::fs::write(
        folder.path().join("queue/a.yaml"),
        "announcements:\n  - {id: a, text: 早安，上海！, at: 2030-01-01 08:00, to: [\"**\"]}\n",
    )
    .unwrap();
    insta::assert_snapshot!("check_good", told(&fabu(folder.path(), "en_US.UTF-8", &["check"])));
    insta::assert_snapshot!("plan", told(&fabu(folder.path(), "zh_CN.UTF-8", &["plan"])));
}

#[test]
fn without_a_daemon_the_exit_code_is_three_and_the_hint_says_what_to_do() {
    let folder = city();
    for arguments in [
        &["status"][..],
        &["cancel", "a"],
        &["retry", "a"],
        &["prune", "accept"],
        &["resolve", "sina:shanghai", "a", "--not-published"],
        &["resolve", "sina:shanghai", "a"],
    ] {
        let output = fabu(folder.path(), "en_US.UTF-8", arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?} {}", told(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("fabu run"));
    }
    assert_eq!(fabu(folder.path(), "C", &["nonsense"]).status.code(), Some(2));
    assert_eq!(fabu(folder.path(), "C", &["resolve", "sina:shanghai"]).status.code(), Some(2));
}

#[test]
fn a_configuration_that_cannot_be_used_stops_the_start_with_every_fault() {
    let folder = city();
    std::fs::write(folder.path().join("fabu.yaml"), "timezone: Asia/Shanghia\nqueu: q\nplatforms:\n  eastday: {}\n")
        .unwrap();
    let output = fabu(folder.path(), "en_US.UTF-8", &["run"]);
    insta::assert_snapshot!("run_faulty", told(&output));
    assert!(!folder.path().join("state").exists(), "nothing was made");
}

#[test]
fn input_78_a_socket_path_that_is_a_file_is_left_alone() {
    let folder = city();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/fabu.sock"), "mine").unwrap();
    let output = fabu(folder.path(), "en_US.UTF-8", &["run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no socket"));
    assert_eq!(std::fs::read_to_string(folder.path().join("state/fabu.sock")).unwrap(), "mine");
}

#[test]
fn schemas_and_completions_are_printed_and_help_speaks_chinese() {
    let folder = city();
    for what in ["queue", "accounts", "config", "template"] {
        let output = fabu(folder.path(), "C", &["schema", what]);
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{what}");
        assert!(schema["properties"].is_object());
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = fabu(folder.path(), "C", &["completions", shell]).stdout;
        assert!(String::from_utf8_lossy(&script).contains("COMPLETE"), "{shell}: the shell asks fabu itself");
    }
    std::fs::create_dir(folder.path().join("templates")).unwrap();
    let template = "templates:\n  - {name: flood, title: 洪水, level: blue, to: [\"**\"], values: {area: {example: 全市}}, text: \"{{area}}\"}\n";
    std::fs::write(folder.path().join("templates/a.yaml"), template).unwrap();
    for (words, index, offered) in [
        (["fabu", "--config", "fabu.yaml", "urgent", "--template", "", "", ""], 5, "flood"),
        (["fabu", "--config", "fabu.yaml", "urgent", "--template", "flood", "--set", ""], 7, "area="),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_fabu"))
            .current_dir(folder.path())
            .envs([("COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", &index.to_string()), ("_CLAP_IFS", "\n")])
            .arg("--")
            .args(&words[..=index])
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains(offered), "{offered}: {output:?}");
    }
    let help = fabu(folder.path(), "zh_CN.UTF-8", &["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("守护进程"));
}
