//! Read-back: what a platform says of a post whose answer was lost, in the same steps for every `api`.

use async_trait::async_trait;

use super::{Call, Platform};
use crate::core::delivery::Failure;
use crate::core::timeline::{Look, Page, Rest, Wanted, look};

/// More posts than these pages hold are made by no office in the time until a doubt is settled.
pub const MOST_PAGES: usize = 10;
/// So many posts are read closely: the others are shown to a person as they are.
const MOST_SOURCES: usize = 3;

/// The account's calls: the first of a reading is paid before it begins.
#[async_trait]
pub trait Purse: Send + Sync {
    /// Pays for one call more, where one is left.
    async fn another(&self) -> bool;
}

/// The platform's own means first; otherwise its timeline. What nobody accounts for is read more closely where the
/// platform lets one.
pub async fn read_back(
    platform: &dyn Platform,
    call: &Call<'_>,
    wanted: &Wanted,
    purse: &dyn Purse,
) -> Result<Look, Failure> {
    if let Some(look) = platform.find(call, wanted, purse).await? {
        return Ok(look);
    }
    let mut page = listed(platform, call, wanted, purse).await?;
    let found = look(&page, wanted);
    let Look::Unaccounted(posts) = &found else { return Ok(found) };
    for post in posts.iter().rev().filter(|post| post.source.is_none()).take(MOST_SOURCES) {
        if !purse.another().await {
            break;
        }
        let Some(source) = platform.source(call, post).await? else { break };
        for listed in page.posts.iter_mut().filter(|listed| listed.id == post.id) {
            listed.source = Some(source.clone());
        }
    }
    Ok(look(&page, wanted))
}

/// The account's timeline, back to the send as far as the purse goes, or until the post is found.
pub async fn listed(
    platform: &dyn Platform,
    call: &Call<'_>,
    wanted: &Wanted,
    purse: &dyn Purse,
) -> Result<Page, Failure> {
    let mut page = platform.newest(call).await?;
    for _ in 1..MOST_PAGES {
        let is_open = page.rest == Rest::Older && !page.reaches_back(wanted);
        let known = page.posts.len();
        if !is_open || !matches!(look(&page, wanted), Look::Unproven(_)) || !purse.another().await {
            break;
        }
        let Some(last) = page.posts.last() else { break };
        let Some(below) = platform.below(call, &page, last).await? else { break };
        page.extend(below);
        // A platform that shows the same again has no more to show.
        if page.posts.len() == known {
            break;
        }
    }
    Ok(page)
}
