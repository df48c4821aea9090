//! What README and `docs/socket.md` tell a newcomer to type is typed here, in a copy of `config/`, by two persons.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fabu::clock::Clock;
use serde_json::Value;
use tempfile::TempDir;

/// The one who types; who is root is the other person.
const SOMEBODY: u32 = 65_534;
const PATIENCE: Duration = Duration::from_secs(60);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(|_| ()).unwrap_or_default();
    }
}

/// A checkout as a newcomer has it, with the sandbox and the daemon running.
struct Checkout {
    folder: TempDir,
    _running: Vec<Running>,
}

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The commands of the blocks of one language below a heading, or of the whole page.
fn commands(page: &str, below: &str) -> Vec<String> {
    let from = page.find(below).unwrap();
    let section = &page[from..];
    let end = section[1..].find("\n## ").map_or(section.len(), |n| n + 1);
    let section = if below.starts_with("## ") { &section[..end] } else { section };
    let mut found: Vec<String> = Vec::new();
    for block in section.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\\\n", " ");
        found.extend(block.lines().map(str::to_owned).filter(|line| !line.trim().is_empty()));
    }
    found
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (name, kind) = (entry.file_name(), entry.file_type().unwrap());
        if kind.is_dir() && name != "state" && name != "secrets" {
            copied(&entry.path(), &to.join(name));
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Checkout {
    fn new() -> Checkout {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        copied(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"), &folder.path().join("config"));
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_fabu"), folder.path().join("bin/fabu")).unwrap();
        let mut checkout = Checkout { folder, _running: Vec::new() };
        checkout.hand_over();
        assert!(checkout.types("sh config/make-sample-secrets.sh").status.success());
        let mut sandbox = checkout.command("exec fabu --json sandbox --limits off --duplicates off");
        let mut sandbox = sandbox.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(sandbox.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        // The ports of the sample are those of `--port 7800`; here they are whichever are free.
        let file = checkout.path("config/fabu.yaml");
        let ports: BTreeMap<String, String> = serde_json::from_value(said["platforms"].clone()).unwrap();
        let mut text = std::fs::read_to_string(&file).unwrap();
        for (name, sample) in [("eastday", 7801), ("sina", 7802), ("tencent", 7803), ("xinmin", 7804)] {
            text = text.replace(&format!("127.0.0.1:{sample}"), &ports[name]);
        }
        std::fs::write(&file, text).unwrap();
        let log = std::fs::File::create(checkout.path("log")).unwrap();
        let daemon = checkout.command("exec fabu run").stderr(log).spawn().unwrap();
        checkout._running = vec![Running(sandbox), Running(daemon)];
        checkout.until("fabu status");
        checkout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Everything in it is the newcomer's own.
    fn hand_over(&self) {
        if is_root() {
            let owner = format!("{SOMEBODY}:{SOMEBODY}");
            assert!(Command::new("chown").args(["-R", &owner]).arg(self.folder.path()).status().unwrap().success());
        }
    }

    /// A line as it is typed at the top of the checkout; `sudo` makes it the other person's.
    fn command(&self, line: &str) -> Command {
        let own = line.strip_prefix("sudo ").unwrap_or(line);
        let mut command = if is_root() && own == line {
            let mut command = Command::new("setpriv");
            let id = SOMEBODY.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c", own]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", own]);
            command
        };
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.current_dir(self.folder.path()).env("PATH", path).env("LANG", "C").stdin(Stdio::null());
        command
    }

    fn types(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Again and again, until it does what it should.
    fn until(&self, line: &str) {
        let clock = Clock::real();
        let end = clock.mono().0 + PATIENCE;
        while !self.types(line).status.success() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(clock.mono().0 < end, "{line}: {:?}\n{log}", self.types(line));
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// Where a person would type the level.
fn without_asking(line: &str) -> String {
    let asks = ["fabu urgent", "fabu correct", "fabu all-clear", "fabu confirm"];
    let (command, note) = line.split_once('#').unwrap_or((line, ""));
    let asks =
        asks.iter().any(|a| command.contains(a)) && !command.contains("--dry-run") && !command.contains("--help");
    if asks { format!("{} --yes #{note}", command.trim_end()) } else { line.to_owned() }
}

#[test]
fn the_first_emergency_of_the_readme_works_as_it_is_written() {
    let checkout = Checkout::new();
    let english = page("README.md");
    let first = english.lines().find_map(|line| line.strip_prefix("$ fabu urgent")).unwrap();
    let typed: Vec<String> =
        [format!("fabu urgent{first}")].into_iter().chain(commands(&english, "## First emergency")).collect();
    assert!(typed.len() >= 11, "{typed:?}");
    assert_eq!(
        commands(&page("README.zh-CN.md"), "line-2 --wait").len(),
        typed.len() - 1,
        "the same in both languages"
    );
    for line in typed.iter().filter(|line| is_root() || !line.contains("rain")) {
        let output = checkout.types(&without_asking(line));
        // A drill tells of the accounts that an alarm did not reach; this one has such accounts.
        let is_drill = line.starts_with("fabu drill");
        assert!(output.status.success() || is_drill && output.status.code() == Some(5), "{line}: {output:?}");
    }
    let status = checkout.types("fabu status --json");
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let ended: Vec<&str> =
        status["emergencies"].as_array().unwrap().iter().filter_map(|e| e["ended"]["how"].as_str()).collect();
    let expected: &[&str] = if is_root() { &["all_clear", "corrected"] } else { &["corrected"] };
    assert_eq!(ended, expected, "{status}");
}

#[test]
fn curl_alone_can_do_all_that_the_page_of_the_socket_says() {
    let checkout = Checkout::new();
    let hello = "announcements:\n  - {id: hello, text: 【通知】政务服务大厅今日照常开放。, to: [shanghai]}\n";
    std::fs::write(checkout.path("config/queue/hello.yaml"), hello).unwrap();
    checkout.until("fabu status hello --json | grep -q '\"state\":\"published\"'");
    let typed = commands(&page("docs/socket.md"), "# The socket");
    assert!(typed.len() >= 20, "{typed:?}");
    for line in typed.iter().filter(|line| is_root() || !line.contains("rain-9")) {
        assert!(line.contains("curl "), "curl alone: {line}");
        let (sudo, own) = line.strip_prefix("sudo ").map_or(("", line.as_str()), |own| ("sudo ", own));
        let output = checkout.types(&format!("{sudo}{}", own.replacen("curl ", "curl -s -w '\\n%{http_code}' ", 1)));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let status: u16 = said.rsplit('\n').next().unwrap().parse().unwrap_or_else(|_| panic!("{line}: {output:?}"));
        // What was taken down is not tried again: the page shows that request for what failed.
        let expected = if line.contains("/retry") { 409..=409 } else { 200..=202 };
        assert!(expected.contains(&status), "{line}: {said}");
        if line.contains("/v1/urgent") {
            // As a person would: on to the next when it is out.
            std::thread::park_timeout(Duration::from_millis(600));
        }
    }
}
