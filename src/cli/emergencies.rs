//! What `status` says first: the emergencies, what is silent because of them, and what that kept back.

use chrono_tz::Tz;
use serde_json::Value;

use super::show::{state_word, text, when};
use super::text::{BAD, CARE, DRILL, GOOD, STRONG, Voice};
use crate::clock::Time;
use crate::core::words::{Words, shown, words};

/// An emergency first, in words that can be read out: what, since when, by whom, where it stands, where not yet and why.
pub fn tell(value: &Value, zone: Tz, now: Time, voice: Voice) {
    if value["drill"] == true {
        voice.out(voice.paint(DRILL, voice.pick("【演练】以下都在沙箱里", "DRILL: all of this is in the sandbox")));
    }
    let time = |value: &Value, key: &str| when(value, key, zone, now, voice);
    for post in value["emergencies"].as_array().into_iter().flatten() {
        voice.out(headline(post, &time(post, "since"), voice));
        voice.out(format_args!("  {}", shown(text(post, "text"))));
        if text(post, "state") == "awaiting_confirm" {
            let (id, until) = (text(post, "id"), time(post, "confirm_by"));
            let (have, needed) = (&post["persons"]["have"], &post["persons"]["needed"]);
            let until = match until.is_empty() {
                true => Words::same(""),
                false => words!("，{until} 前", " before {until}"),
            };
            let (zh, en) = (&until.zh, &until.en);
            let said = words!(
                "  已有 {have} 人，需要 {needed} 人{zh}：fabu confirm {id}",
                "  {have} of {needed} persons gave their word; the missing one{en}: fabu confirm {id}"
            );
            voice.out(voice.paint(CARE, voice.say(&said)));
            continue;
        }
        if post["ended"].is_object() {
            let (at, by) = (time(&post["ended"], "at"), shown(text(&post["ended"], "by")));
            let said = match text(&post["ended"], "how") {
                "corrected" => words!("  {at} 由 {by} 更正", "  corrected {at} by {by}"),
                _ => words!("  {at} 由 {by} 解除", "  over since {at}, ended by {by}"),
            };
            voice.out(voice.paint(GOOD, voice.say(&said)));
        }
        let places = post["where_not"].as_array().map(Vec::as_slice).unwrap_or_default();
        for place in places {
            let reason = shown(place["reason"][voice.pick("zh", "en")].as_str().unwrap_or(""));
            let (account, state) = (text(place, "account"), text(place, "state"));
            // Some reasons begin with the state's own word.
            let word = if reason.starts_with(state) { String::new() } else { state_word(state, voice) + " " };
            voice.out(voice.say(&words!("  未发出 {account}：{word}{reason}", "  not on {account}: {word}{reason}")));
        }
        let more = post["not_yet"].as_u64().unwrap_or(0).saturating_sub(places.len() as u64);
        if more > 0 {
            let id = text(post, "id");
            voice.out(voice.say(&words!("  还有 {more} 个：fabu status {id}", "  and {more} more: fabu status {id}")));
        }
    }
    tell_holds(value, zone, now, voice);
}

/// The first line of an emergency's post.
fn headline(post: &Value, since: &str, voice: Voice) -> String {
    let n = |key: &str| post[key].as_u64().unwrap_or(0);
    let (id, level) = (text(post, "id"), text(post, "level"));
    let (standing, down) = (n("standing"), n("taken_down"));
    let all = standing + down + n("not_yet");
    let place = match (standing, down) {
        _ if text(post, "state") == "awaiting_confirm" => {
            words!("待确认，{all} 个账号", "not sent yet, to {all} accounts")
        }
        (0, 0) if all == 0 => Words::new("没有发出", "nothing of it went out"),
        (0, 0) => words!("{all} 个账号都未发出", "stands on none of {all} accounts"),
        (0, down) => words!("已从 {down} 个账号撤下", "taken down on {down} accounts"),
        (standing, 0) if standing == all => words!("{all} 个账号全部发出", "stands on all {all} accounts"),
        (standing, 0) => words!("{all} 个账号，已发出 {standing}", "stands on {standing} of {all} accounts"),
        _ => words!(
            "{all} 个账号发出 {standing}，已撤下 {down}",
            "stands on {standing} of {all} accounts, taken down on {down}"
        ),
    };
    let what = match text(post, "part") {
        "update" => Words::new("  更新", "  update"),
        "correction" => Words::new("  更正", "  correction"),
        "all_clear" => Words::new("  解除", "  all-clear"),
        _ => Words::new("紧急", "emergency"),
    };
    let names: Vec<String> =
        post["persons"]["names"].as_array().into_iter().flatten().filter_map(Value::as_str).map(shown).collect();
    let names = names.join(voice.pick("、", ", "));
    let by = if names.is_empty() { Words::new("队列", "the queue") } else { Words::same(names) };
    let (zh, en) = (
        format!("{} {level} {id}（{since}，{}）：{}", what.zh, by.zh, place.zh),
        format!("{} {level} {id}, since {since}, by {}: {}", what.en, by.en, place.en),
    );
    let is_over = post["ended"].is_object() || post["part"].is_string() || text(post, "state") == "superseded";
    voice.paint(if is_over { STRONG } else { BAD }, voice.pick(&zh, &en))
}

/// What is silent, until when and why, and how much waits for a look.
fn tell_holds(value: &Value, zone: Tz, now: Time, voice: Voice) {
    for hold in value["holds"].as_array().into_iter().flatten() {
        let (id, owner, reason) = (text(hold, "id"), shown(text(hold, "owner")), shown(text(hold, "reason")));
        let until = match hold["until"].as_str() {
            Some(_) => when(hold, "until", zone, now, voice),
            None => voice.pick("解除", "it is ended").to_owned(),
        };
        let scope = match hold["accounts"].as_array().map(Vec::len) {
            Some(n) => words!("{n} 个账号", " on {n} accounts"),
            None => Words::same(""),
        };
        let (zh, en) = (&scope.zh, &scope.en);
        voice.out(voice.paint(
            CARE,
            voice.say(&words!(
                "{zh}静默至 {until}：{reason}（{owner}）；结束：fabu resume {id}",
                "routine is silent{en} until {until}: {reason} ({owner}); fabu resume {id} ends it"
            )),
        ));
    }
    let kept = value["kept_back"].as_u64().unwrap_or(0);
    if kept > 0 {
        let said = words!("留住未发的 {kept} 个：fabu held", "{kept} deliveries were kept back: fabu held");
        voice.out(voice.paint(CARE, voice.say(&said)));
    }
}
