//! Mastodon's pictures, which may take a while to be ready, and its description of itself.

use serde_json::{Value, json};

use super::call::Reply;
use super::count;
use super::mastodon::error;
use super::state::{Ctx, Media, after};

const IMAGE_BYTES: usize = 16_777_216;
const MOST: usize = 4;
const DESCRIPTION: usize = 1500;

pub(super) fn upload(ctx: &mut Ctx<'_>) -> Reply {
    let Some(part) = ctx.call.file("file") else { return error(422, "Validation failed: File can't be blank") };
    if part.bytes.len() > IMAGE_BYTES {
        return error(422, "Validation failed: File file size must be less than 16 MB");
    }
    if !matches!(count::picture(&part.bytes), Some("jpeg" | "png" | "gif" | "webp")) {
        return error(422, "Validation failed: File content type is invalid");
    }
    if ctx.call.param("description").is_some_and(|text| text.chars().count() > DESCRIPTION) {
        return error(422, "Validation failed: Description is too long");
    }
    let work = std::time::Duration::try_from_secs_f64(ctx.site.settings.work_seconds).unwrap_or_default();
    let ready_at = after(ctx.now, work.max(ctx.twist.delayed.unwrap_or_default()));
    let floor = (ctx.clock().timestamp_millis().max(0) as u64) << 16;
    let (number, clock) = (ctx.site.next_id(floor, false), ctx.clock());
    let id = ctx.site.settings.dialect.media_id(number, clock, &mut ctx.site.dice);
    let url = format!("https://files.{}.example/media/{id}/original.jpg", ctx.site.name);
    let unit = ctx.unit.clone().unwrap_or_default();
    let description = ctx.call.param("description").filter(|text| !text.is_empty()).map(str::to_owned);
    let media = Media { description, ..Media::new(unit, url, ready_at) };
    ctx.site.remember(id.clone(), media.clone());
    let ready = media.ready_at <= ctx.now;
    Reply { status: if ready { 200 } else { 202 }, ..Reply::ok(shown(&id, &media, ready)) }
}

fn shown(id: &str, media: &Media, ready: bool) -> Value {
    json!({
        "id": id, "type": "image", "url": ready.then_some(&media.url), "preview_url": media.url,
        "description": media.description,
    })
}

/// 206 while the picture is being worked on.
pub(super) fn show(ctx: &Ctx<'_>) -> Reply {
    let id = ctx.call.path.rsplit('/').next().unwrap_or_default();
    match ctx.site.media.get(id).filter(|media| Some(&media.unit) == ctx.unit.as_ref()) {
        None => error(404, "Record not found"),
        Some(media) => {
            let ready = media.ready_at <= ctx.now;
            Reply { status: if ready { 200 } else { 206 }, ..Reply::ok(shown(id, media, ready)) }
        }
    }
}

/// A post's pictures as they are shown with it.
pub(super) fn shown_with(ctx: &Ctx<'_>, urls: &[String]) -> Vec<Value> {
    let of = |url: &String| ctx.site.media.iter().find(|(_, media)| media.url == *url);
    let bare = |url: &String| json!({"type": "image", "url": url});
    urls.iter().map(|url| of(url).map_or_else(|| bare(url), |(id, media)| shown(id, media, true))).collect()
}

/// The addresses of a post's pictures.
pub(super) fn attached(ctx: &Ctx<'_>, ids: &[String]) -> Result<Vec<String>, Reply> {
    if ids.len() > MOST {
        return Err(error(422, "Validation failed: Cannot attach more than 4 files"));
    }
    let mut urls = Vec::new();
    for id in ids {
        match ctx.site.media.get(id).filter(|media| Some(&media.unit) == ctx.unit.as_ref()) {
            None => return Err(error(422, "Validation failed: Media attachments are invalid")),
            Some(media) if media.ready_at > ctx.now => {
                return Err(error(
                    422,
                    "Cannot attach files that have not finished processing. Try again in a moment!",
                ));
            }
            Some(media) => urls.push(media.url.clone()),
        }
    }
    Ok(urls)
}

pub(super) fn instance(ctx: &Ctx<'_>) -> Reply {
    Reply::ok(json!({
        "domain": format!("{}.example", ctx.site.name),
        "title": ctx.site.name,
        "version": "4.2.0",
        "configuration": {
            "statuses": {
                "max_characters": ctx.site.settings.text_limit,
                "max_media_attachments": MOST,
                "characters_reserved_per_url": 23,
            },
            "media_attachments": {
                "supported_mime_types": ["image/jpeg", "image/png", "image/gif", "image/webp"],
                "image_size_limit": IMAGE_BYTES,
                "description_limit": DESCRIPTION,
            },
        },
    }))
}
