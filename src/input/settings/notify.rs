//! `notify:`: whom to tell of what. What could never be told is a fault here, and no surprise at night.

use std::path::Path;

use super::raw::RawNotify;
use super::{Reader, address};
use crate::core::policy::{Kind, Notify, To};
use crate::core::words::{Words, nearest, shown, words};
use crate::input::yaml;

impl Reader<'_> {
    pub(super) fn notify(&mut self, raw: Vec<Option<RawNotify>>, folder: &Path) -> Vec<Notify> {
        let entries = raw.into_iter().enumerate();
        entries
            .filter_map(|(n, entry)| self.entry(&format!("notify[{n}]"), entry.unwrap_or_default(), folder))
            .collect()
    }

    fn entry(&mut self, path: &str, raw: RawNotify, folder: &Path) -> Option<Notify> {
        // Another kind of value has its fault already.
        if !matches!(self.node.at(path).kind, yaml::Kind::Map(_) | yaml::Kind::Null) {
            return None;
        }
        let on = self.kinds(path, raw.on);
        let to = self.to(path, raw.run, raw.url, folder);
        Some(Notify { on, to: to? })
    }

    fn kinds(&mut self, path: &str, raw: Option<Vec<Option<String>>>) -> Vec<Kind> {
        let all = Kind::ALL.map(Kind::as_str);
        let known = all.join(", ");
        if raw.as_ref().map_or_else(|| self.is_empty(&format!("{path}.on")), Vec::is_empty) {
            let said = Words::new("没有 `on`：通知什么？", "there is no `on`: what is to be told?");
            self.fault(path, "notify", said, words!("可用：{known}", "known: {known}"));
        }
        let mut kinds = Vec::new();
        for (n, word) in raw.into_iter().flatten().enumerate() {
            let Some(word) = word else { continue };
            if let Some(kind) = Kind::parse(&word) {
                kinds.push(kind);
                continue;
            }
            let safe = shown(&word);
            let said = words!("`on` 里不能有 `{safe}`", "`on` cannot have `{safe}`");
            let hint = match nearest(&word, all) {
                Some(meant) => words!("是否指 `{meant}`？", "did you mean `{meant}`?"),
                None => words!("可用：{known}", "known: {known}"),
            };
            self.fault(&format!("{path}.on[{n}]"), "notify", said, hint);
        }
        kinds
    }

    fn to(&mut self, path: &str, run: Option<Vec<Option<String>>>, url: Option<String>, folder: &Path) -> Option<To> {
        let hint = || {
            Words::new(
                "`run: [程序, 参数]` 或 `url: https://…`，二者取一",
                "either `run: [PROGRAM, ARGUMENT]` or `url: https://…`",
            )
        };
        match (run, url) {
            (Some(_), Some(_)) => {
                let said = Words::new("`run` 和 `url` 只能有一个", "there are both `run` and `url`");
                self.fault(path, "notify", said, hint());
                None
            }
            (None, None) => {
                // A field that is there and could not be read has its fault already.
                if self.is_empty(&format!("{path}.run")) && self.is_empty(&format!("{path}.url")) {
                    let said = Words::new("没有 `run` 也没有 `url`", "there is neither `run` nor `url`");
                    self.fault(path, "notify", said, hint());
                }
                None
            }
            (Some(run), None) => self.run(path, run, folder),
            (None, Some(url)) => {
                if let Err(said) = address(&url) {
                    let hint = Words::new(
                        "用 https://主机；http:// 只用于本机；地址带密钥的用 `run`",
                        "use https://HOST; http:// is for loopback only; one with a key in it is for `run`",
                    );
                    self.fault(&format!("{path}.url"), "notify", said, hint);
                    return None;
                }
                Some(To::Url(url))
            }
        }
    }

    fn run(&mut self, path: &str, run: Vec<Option<String>>, folder: &Path) -> Option<To> {
        let mut run: Vec<String> = run.into_iter().flatten().collect();
        let Some(program) = run.first_mut().filter(|program| !program.trim().is_empty()) else {
            let said = Words::new("`run` 没有程序", "there is no program in `run`");
            let hint =
                Words::new("如 run: [/usr/local/bin/tell, duty]", "for example run: [/usr/local/bin/tell, duty]");
            self.fault(&format!("{path}.run"), "notify", said, hint);
            return None;
        };
        // As every path of this file; a bare name is looked for in `PATH`.
        if program.contains('/') {
            *program = folder.join(&*program).display().to_string();
        }
        Some(To::Run(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Fault;
    use crate::input::settings::{Settings, read};

    fn with(notify: &str) -> (Option<Settings>, Vec<Fault>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fabu.yaml");
        let text = format!(
            "platforms: {{eastday: {{base_url: \"https://e.cn\"}}, xinmin: {{base_url: \"https://x.cn\"}}}}\nnotify:\n{notify}"
        );
        std::fs::write(&file, text).unwrap();
        read(&file)
    }

    #[test]
    fn a_program_or_an_address_is_told_of_what_is_named() {
        let (settings, faults) = with(concat!(
            "  - {on: [emergency, confirm], run: [tell, duty]}\n",
            "  - {on: [failed], run: [./bin/tell]}\n",
            "  - {on: [unknown, credential], url: \"https://hooks.example.cn/secret\"}\n",
        ));
        assert_eq!(faults, []);
        let notify = settings.unwrap().notify;
        assert_eq!(notify[0].on, [Kind::Emergency, Kind::Confirm]);
        assert_eq!(notify[0].to, To::Run(vec!["tell".to_owned(), "duty".to_owned()]));
        assert!(matches!(&notify[1].to, To::Run(run) if run[0].starts_with('/') && run[0].ends_with("bin/tell")));
        let names: Vec<String> = [0, 2].iter().map(|n| notify[*n].to.name()).collect();
        assert_eq!(names, ["tell", "https://hooks.example.cn/…"], "arguments and paths may be secrets");
    }

    #[test]
    fn what_could_never_be_told_is_a_fault() {
        let (settings, faults) = with(concat!(
            "  - {on: [failled], run: [tell]}\n",
            "  - {on: [failed], run: [tell], url: \"https://a.cn\"}\n",
            "  - {on: [failed]}\n",
            "  - {on: [failed], run: []}\n",
            "  - {on: [failed], run: [\" \"]}\n",
            "  - {on: [failed], url: \"http://a.cn\"}\n",
            "  - {on: [failed], url: \"https://a.cn/?key=1\"}\n",
            "  - {run: [tell]}\n",
            "  - {on: [], run: [tell]}\n",
            "  - {on: [xyzzyx], url: \"http://127.0.0.1:1/\"}\n",
            "  - ~\n",
            "  - 7\n",
            "  - {on: [failed], url: [x]}\n",
            "  - {on: [failed], shell: x, run: [tell]}\n",
        ));
        assert!(settings.is_none());
        let places: Vec<_> = faults.iter().map(|f| (f.code, f.start().line)).collect();
        let notify = |line| ("notify", line);
        let mut expected: Vec<_> = (3..=12).map(notify).collect();
        expected.extend([notify(13), notify(13), ("type", 14), ("type", 15), ("unknown_key", 16)]);
        assert_eq!(places, expected);
        assert_eq!(faults[0].hint.as_ref().unwrap().en, "did you mean `failed`?");
        assert!(faults[9].hint.as_ref().unwrap().en.contains("emergency, failed"));
    }
}
