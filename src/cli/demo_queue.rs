//! The sample city of the demo: its units, its accounts, and a queue made for the coming half minute.
//!
//! Everything is written as the YAML an editor would write, by `serde_yaml`, and read back by the same
//! reader as any queue: the demo has no way of its own into the daemon.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::clock::Time;
use crate::daemon::emergency::Urgent;

/// A unit of the sample: id, name, level, tags, platforms.
type Sample = (&'static str, &'static str, &'static str, &'static str, &'static str);

const UNITS: [Sample; 10] = [
    ("shanghai", "上海发布", "city", "lead", "sina tencent eastday xinmin"),
    ("shanghai/pudong", "浦东发布", "district", "district", "sina tencent eastday xinmin"),
    ("shanghai/pudong/lujiazui", "陆家嘴街道", "street", "street", "sina tencent"),
    ("shanghai/xuhui", "徐汇发布", "district", "district", "sina tencent eastday xinmin"),
    ("shanghai/jingan", "静安发布", "district", "district", "sina tencent eastday xinmin"),
    ("shanghai/metro", "上海地铁", "service", "transport", "sina tencent eastday xinmin"),
    ("shanghai/weather", "上海天气", "department", "weather", "sina tencent eastday xinmin"),
    ("shanghai/police", "警民直通车", "department", "police", "sina tencent"),
    ("shanghai/water", "上海水务", "department", "utility", "sina tencent eastday"),
    ("shanghai/library", "上海图书馆", "association", "culture", "sina tencent xinmin"),
];

/// The account whose token has expired, and the one whose answer gets lost.
pub const EXPIRED: &str = "xinmin:shanghai/jingan";
pub const LOST: (&str, &str) = ("sina:shanghai/pudong", "民生实事");

/// The secret of a sample account: made up, and good for the sandbox of this demo alone.
pub fn secret(platform: &str, unit: &str) -> String {
    format!("demo-{platform}-{}", unit.replace('/', "-"))
}

pub fn accounts() -> Value {
    let units: Vec<Value> = UNITS
        .iter()
        .enumerate()
        .map(|(n, (id, name, level, tag, platforms))| {
            let accounts: serde_json::Map<String, Value> = platforms
                .split(' ')
                .map(|platform| {
                    let variable = format!("FABU_DEMO_{}_{}", platform, id.replace('/', "_")).to_uppercase();
                    let handle = id.rsplit('/').next().unwrap_or(id);
                    let uid = (1_800_000_001 + n * 7919).to_string();
                    (platform.to_owned(), json!({ "handle": handle, "uid": uid, "token": format!("env:{variable}") }))
                })
                .collect();
            json!({ "id": id, "name": name, "level": level, "tags": [tag], "accounts": accounts })
        })
        .collect();
    json!({ "units": units })
}

/// What the demo's `env:` finds.
pub fn lookup(name: &str) -> Option<String> {
    let (platform, unit) = name.strip_prefix("FABU_DEMO_")?.split_once('_')?;
    let wanted = unit.to_lowercase();
    let (id, ..) = UNITS.iter().find(|(id, ..)| id.replace('/', "_") == wanted)?;
    Some(secret(&platform.to_lowercase(), id))
}

/// The urgent post of the demo: orange, so a second person has to agree, and routine falls silent.
pub fn flood() -> Urgent {
    Urgent {
        id: Some("flood".to_owned()),
        template: Some("rainstorm-orange".to_owned()),
        values: BTreeMap::from([("area".to_owned(), "本市大部".to_owned())]),
        source: Some("上海中心气象台".to_owned()),
        ..Urgent::default()
    }
}

/// The queue: several kinds of announcement, all within half a minute from `start`.
pub fn queue(start: Time) -> Vec<(&'static str, Value)> {
    let at = |seconds: i64| (start + TimeDelta::seconds(seconds)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let morning = json!({ "announcements": [
        { "id": "city-morning", "text": "早安，上海！今天多云，气温5到12℃，出门前看看天气、查查路况。", "at": at(5), "to": ["**"], "priority": "important" },
        { "id": "city-projects", "at": at(8), "to": ["shanghai", "#district"],
          "text": "【民生实事】今年为老服务、便民早餐、口袋公园等三十个项目已全部开工，年底前完成。",
          "link": "https://www.shanghai.example/projects" },
    ] });
    let weather = json!({ "announcements": [
        { "id": "weather-cold", "text": "【降温提醒】明天夜间起本市气温明显下降，过程降温8到10℃，请注意防寒保暖。", "at": at(11),
          "to": ["#weather", "shanghai"], "images": ["img/weather.png"],
          "variants": { "tencent": { "text": "【降温提醒】明晚起明显降温，最低1到2℃，请添衣。" } } },
        // Two repeats in turn: the platforms refuse the same words twice running.
        { "id": "weather-now", "repeat": "0,20,40 * * * * *", "until": at(32), "catch_up": "none",
          "text": "【实况】徐家汇站10.6℃，东北风3级，空气质量良。", "to": ["sina:shanghai/weather", "tencent:shanghai/weather"] },
        { "id": "weather-sea", "repeat": "10,30,50 * * * * *", "until": at(32), "catch_up": "none",
          "text": "【海上】长江口区偏北风5到6级，阵风7级，能见度良好。", "to": ["sina:shanghai/weather", "tencent:shanghai/weather"] },
    ] });
    let metro = json!({ "announcements": [
        { "id": "metro-line-9-old", "text": "【交通】今晚23时起，地铁9号线松江南站至桂林路站提前结束运营。", "at": at(14), "to": ["shanghai/metro"] },
        { "id": "metro-line-9-closing", "text": "【交通】更新：今晚22时起，地铁9号线全线提前结束运营，请改乘其他线路。", "at": at(20),
          "to": ["shanghai/metro"], "supersedes": "metro-line-9-old" },
    ] });
    let cheer = json!({ "announcements": [
        // Due while the flood is on: it must not go out into it.
        { "id": "library-party", "text": "【活动】今晚图书馆新年音乐会，欢迎来唱歌！", "at": at(40), "to": ["shanghai/library"] },
    ] });
    vec![("library.yaml", cheer), ("city.yaml", morning), ("weather.yaml", weather), ("transport/metro.yaml", metro)]
}

/// Writes configuration, accounts and queue below a folder.
pub fn write(folder: &Path, platforms: &str, start: Time) -> std::io::Result<()> {
    let text = |value: &Value| serde_yaml::to_string(value).map_err(std::io::Error::other);
    let config = format!(
        "timezone: Asia/Shanghai\nqueue: queue\naccounts: accounts.yaml\nledger: sqlite:state/fabu.db\nsocket: state/fabu.sock\n\
         publish: {{lead: 3s}}\n\
         cap: {{senders: [{{id: shanghai@weather.example, level: red}}], areas: {{\"310115\": \"shanghai/pudong/**\"}}}}\n{platforms}"
    );
    std::fs::write(folder.join("fabu.yaml"), config)?;
    std::fs::write(folder.join("accounts.yaml"), text(&accounts())?)?;
    std::fs::write(folder.join("alert.xml"), include_str!("../../config/alerts/rainstorm-orange.xml"))?;
    std::fs::create_dir_all(folder.join("templates"))?;
    std::fs::write(folder.join("templates/emergency.yaml"), include_str!("../../config/templates/emergency.yaml"))?;
    std::fs::create_dir_all(folder.join("queue/transport"))?;
    std::fs::create_dir_all(folder.join("queue/img"))?;
    std::fs::write(folder.join("queue/img/weather.png"), include_bytes!("demo_weather.png"))?;
    for (name, value) in queue(start) {
        std::fs::write(folder.join("queue").join(name), text(&value)?)?;
    }
    Ok(())
}
