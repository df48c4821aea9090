//! `cap:` of the configuration: whose alerts are taken, up to which level, and whom a region's concern.
//!
//! Nothing here is dropped in silence: a sender or a region that is missing would be missed in the
//! hour its alert comes.

use super::Reader;
use super::raw::{RawCap, RawSender};
use crate::core::accounts::Selector;
use crate::core::alert;
use crate::core::announcement::Level;
use crate::core::policy::Cap;
use crate::core::words::{Words, shown, words};
use crate::input::yaml;

impl Reader<'_> {
    pub(super) fn cap(&mut self, raw: RawCap) -> Cap {
        let mut cap = Cap::default();
        for (n, sender) in raw.senders.unwrap_or_default().into_iter().enumerate() {
            let Some((id, level)) = self.sender(n, sender.unwrap_or_default()) else { continue };
            if cap.senders.insert(id.clone(), level).is_some() {
                let said = words!("发布者 {id} 写了两次", "the sender {id} is there twice");
                let hint = Words::new("每个发布者只写一次", "write each sender once");
                self.fault(&format!("cap.senders[{n}].id"), "sender_twice", said, hint);
            }
        }
        for (code, selector) in raw.areas.unwrap_or_default() {
            let path = format!("cap.areas.{code}");
            // What is not empty and yet nothing has its fault already.
            let selector = selector.or_else(|| self.is_empty(&path).then(String::new));
            if let Some(selector) = selector.filter(|selector| self.area(&path, &code, selector)) {
                cap.areas.insert(code, selector);
            }
        }
        cap
    }

    fn sender(&mut self, n: usize, raw: RawSender) -> Option<(String, Level)> {
        let path = format!("cap.senders[{n}]");
        if !matches!(self.node.at(&path).kind, yaml::Kind::Map(_) | yaml::Kind::Null) {
            return None;
        }
        // A field that is there and could not be read has its fault already.
        if raw.id.is_none() && self.is_empty(&format!("{path}.id")) {
            let said = Words::new("发布者没有 `id`", "a sender without an `id`");
            let hint = Words::new(
                "写上预警中的 sender，如 id: shanghai@weather.example",
                "give the alert's sender, such as id: shanghai@weather.example",
            );
            self.fault(&path, "sender", said, hint);
        }
        if raw.level.is_none() && self.is_empty(&format!("{path}.level")) {
            let said = Words::new("发布者没有 `level`", "a sender without a `level`");
            let hint = Words::new(
                "`level` 是它最高能发的级别：red、orange、yellow 或 blue",
                "`level` is the highest it may ask: red, orange, yellow or blue",
            );
            self.fault(&path, "sender", said, hint);
        }
        let (id, level) = (raw.id?, raw.level);
        if !alert::is_name(&id) {
            let safe = shown(&id);
            let said = words!("`{safe}` 不能是预警的 sender", "`{safe}` cannot be the sender of an alert");
            let hint = Words::new("不得含空白、`,`、`<`、`&`", "no blanks, `,`, `<` or `&` in it");
            self.fault(&format!("{path}.id"), "sender", said, hint);
            return None;
        }
        Some((id, level?))
    }

    fn area(&mut self, path: &str, code: &str, selector: &str) -> bool {
        // A code of another form would match no alert, and nobody would know until one came.
        if !matches!(code.len(), 6 | 9 | 12) || !code.bytes().all(|b| b.is_ascii_digit()) {
            let safe = shown(code);
            let said = words!("`{safe}` 不是行政区划代码", "`{safe}` is no region's code");
            let hint = Words::new(
                "写 GB/T 2260 的六位数字，如 \"310115\"",
                "write the six digits of GB/T 2260, such as \"310115\"",
            );
            self.fault(path, "region", said, hint);
            return false;
        }
        if let Err(said) = Selector::parse(selector) {
            let hint = Words::new("如 shanghai/pudong/**", "for example shanghai/pudong/**");
            self.fault(path, "selector", said, hint);
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::read;
    use super::*;

    #[test]
    fn senders_have_a_level_and_areas_a_selector() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fabu.yaml");
        let read = |cap: &str| {
            let text = format!(
                "platforms: {{eastday: {{base_url: \"https://e.cn\"}}, xinmin: {{base_url: \"https://x.cn\"}}}}\ncap:\n{cap}"
            );
            std::fs::write(&file, text).unwrap();
            read(&file)
        };
        let (settings, faults) = read(
            "  senders: [{id: a@w.cn, level: red}, {id: b@w.cn, level: blue}]\n  areas: {\"310115\": \"shanghai/pudong/**\"}\n",
        );
        assert_eq!(faults, []);
        let cap = settings.unwrap().cap;
        assert_eq!(
            cap.senders,
            BTreeMap::from([("a@w.cn".to_owned(), Level::Red), ("b@w.cn".to_owned(), Level::Blue)])
        );
        assert_eq!(cap.areas["310115"], "shanghai/pudong/**");
        assert_eq!(read("  senders: []\n").0.unwrap().cap, Cap::default());

        let bad = concat!(
            "  senders:\n    - {level: red}\n    - {id: a@w.cn}\n    - {id: b@w.cn, level: green}\n    - {id: c@w.cn, level: red}\n",
            "    - {id: c@w.cn, level: blue}\n    - {id: \"a b\", level: red}\n    - 7\n    - {id: ~, level: ~}\n    - ~\n",
            "  areas:\n    \"310115\": \"shanghai/\"\n    pudong: shanghai\n    \"310116\": [x]\n    \"310117\":\n",
        );
        let (settings, faults) = read(bad);
        assert!(settings.is_none());
        let places: Vec<_> = faults.iter().map(|f| (f.code, f.start().line)).collect();
        let expected = [
            ("sender", 4),
            ("sender", 5),
            ("value", 6),
            ("sender_twice", 8),
            ("sender", 9),
            ("type", 10),
            ("sender", 11),
            ("sender", 11),
            ("sender", 12),
            ("sender", 12),
            ("selector", 14),
            ("region", 15),
            ("type", 16),
            ("selector", 17),
        ];
        assert_eq!(places, expected);
        assert!(faults[1].hint.as_ref().unwrap().en.contains("the highest it may ask"));
    }
}
