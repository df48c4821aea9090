//! WeChat's other act: a push to all followers (`publish: mass`).
//!
//! The delivery's key goes with it as `clientmsgid`, and is a true key for a day: sent again, the platform
//! tells that it has it. So nothing is looked for after a lost answer; it is sent again. A text in the
//! followers' hands can never be taken back, an article can.

use chrono::TimeDelta;
use serde_json::json;

use super::reply::{sane_id, text_of};
use super::wechat::{Asked, Refused, WeChat, found};
use super::{Call, Look, Wanted};
use crate::core::delivery::{Class, Failure, Prepared, Receipt};
use crate::core::words::Words;

/// What a ticket begins with: the push's id alone would look like a publication's.
const ARTICLE: &str = "mass:";
const TEXT: &str = "mass-text:";
/// The platform keeps a key for 24 hours; near the end it is not relied on.
const KEY_KEPT: TimeDelta = TimeDelta::hours(23);

pub fn is_ticket(ticket: &str) -> bool {
    ticket.starts_with(ARTICLE) || ticket.starts_with(TEXT)
}

fn push_id(ticket: &str) -> &str {
    ticket.split_once(':').map_or(ticket, |(_, id)| id)
}

/// Sends the draft, or the bare text where there is none, to everybody.
pub async fn push(wechat: &WeChat, call: &Call<'_>, post: &Prepared) -> Result<Receipt, Failure> {
    let mut body = json!({ "filter": { "is_to_all": true }, "clientmsgid": post.key });
    let kind = match post.media.first() {
        Some(draft) => {
            body["msgtype"] = "mpnews".into();
            body["mpnews"] = json!({ "media_id": draft });
            body["send_ignore_reprint"] = 0.into();
            ARTICLE
        }
        None => {
            body["msgtype"] = "text".into();
            body["text"] = json!({ "content": post.text });
            TEXT
        }
    };
    let mut receipt = Receipt {
        post_id: String::new(),
        url: None,
        accepted_at: call.clock.now(),
        shown: false,
        read_back: false,
        ticket: None,
    };
    let id = match wechat.ask(call, Asked::publishing("message/mass/sendall", body)).await {
        Ok((reply, json)) => text_of(&json, "msg_id").and_then(sane_id).ok_or_else(|| reply.unclear(call))?,
        // The key is known: it went out, now or before.
        Err(Refused { code: Some(45065), json, .. }) => match text_of(&json, "msg_id").and_then(sane_id) {
            Some(id) => id,
            None => return Ok(Receipt { accepted_at: call.clock.now(), shown: true, ..receipt }),
        },
        Err(refused) => return Err(refused.into()),
    };
    receipt.accepted_at = call.clock.now();
    receipt.ticket = Some(format!("{kind}{id}"));
    receipt.post_id = id;
    Ok(receipt)
}

/// How far a push has come.
pub async fn status(wechat: &WeChat, call: &Call<'_>, ticket: &str) -> Result<Look, Failure> {
    let id = push_id(ticket);
    let (reply, json) = wechat.ask(call, Asked::json("message/mass/get", json!({ "msg_id": id }))).await?;
    let word = text_of(&json, "msg_status").unwrap_or_default();
    Ok(match word.as_str() {
        "SEND_SUCCESS" => Look::Found(found(id.to_owned(), None, call.clock.now(), Some(ticket.to_owned()))),
        "SENDING" => {
            let why = Words::new("群发中，或等管理员确认", "being pushed, or waiting for the administrator");
            Look::Unproven(why)
        }
        "SEND_FAIL" => {
            let why = Words::new("群发失败：审核未通过或无人确认", "the push failed in review, or nobody confirmed it");
            Look::TurnedDown(Class::Policy, why)
        }
        "DELETE" => Look::TurnedDown(Class::Platform, Words::new("群发后被删除", "pushed, and then deleted")),
        _ => return Err(reply.unclear(call)),
    })
}

/// Without a ticket there is nothing to ask: sending again with the same key is what tells.
pub fn look(call: &Call<'_>, wanted: &Wanted) -> Look {
    if call.clock.now() - wanted.since < KEY_KEPT {
        return Look::SendAgain;
    }
    Look::Unproven(Words::new(
        "平台只记 24 小时的 clientmsgid，再发可能重复",
        "the platform keeps a clientmsgid for 24 hours only; sending again could push it twice",
    ))
}

/// The article's page goes; the cards already delivered stay.
pub async fn take_back(wechat: &WeChat, call: &Call<'_>, ticket: &str) -> Result<(), Failure> {
    if ticket.starts_with(TEXT) {
        let why = Words::new("群发的文字无法撤回", "a text that was pushed can never be taken back");
        return Err(Failure::Refused(Class::Platform, why));
    }
    let id = push_id(ticket);
    let body = json!({ "msg_id": id, "article_idx": 0 });
    let refused = match wechat.ask(call, Asked::json("message/mass/delete", body)).await {
        Ok(_) => return Ok(()),
        Err(refused) => refused,
    };
    // No code is told for a push that was taken back before; its status is.
    let answered = refused.code.is_some() && matches!(refused.failure, Failure::Refused(..));
    if answered && is_gone(wechat, call, id).await {
        return Ok(());
    }
    Err(refused.into())
}

async fn is_gone(wechat: &WeChat, call: &Call<'_>, id: &str) -> bool {
    let answer = wechat.ask(call, Asked::json("message/mass/get", json!({ "msg_id": id }))).await;
    answer.is_ok_and(|(_, json)| text_of(&json, "msg_status").as_deref() == Some("DELETE"))
}
