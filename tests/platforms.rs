//! The five dialects against the sandbox: what is posted, found again and taken down, and what every
//! fault of the platforms page comes to.

#[path = "platforms/codes.rs"]
mod codes;
#[path = "platforms/faults.rs"]
mod faults;
#[path = "platforms/hostile.rs"]
mod hostile;
#[path = "platforms/own_ways.rs"]
mod own_ways;
#[path = "platforms/servers.rs"]
mod servers;
#[path = "platforms/wire.rs"]
mod wire;
#[path = "platforms/world.rs"]
mod world;

use fabu::platform::{Look, Wanted};
use world::{cases, text, world};

/// A push has no timeline: sending again with the same key is what tells.
fn has_timeline(name: &str) -> bool {
    name != "wechat mass"
}

#[tokio::test(start_paused = true)]
async fn every_dialect_posts_a_text_and_a_picture() {
    for case in cases() {
        let w = world(&case);
        let plain = w.out(&w.post(&text(1))).await;
        assert!(!plain.post_id.is_empty(), "{}", case.name);
        w.pass(90).await;
        let pictured = w.out(&w.with_picture(&text(2))).await;
        let posts = w.sandbox.posts();
        assert_eq!((posts.len(), posts[1].pictures), (2, 1), "{}", case.name);
        let ids: Vec<&str> = posts.iter().map(|post| post.id.as_str()).collect();
        assert_eq!(ids, [plain.post_id.as_str(), pictured.post_id.as_str()], "{}", case.name);
        let escaped = text(1).replace('&', "&amp;").replace('<', "&lt;");
        assert!(posts[0].text.contains(&text(1)) || posts[0].text.contains(&escaped), "{}", posts[0].text);
        if has_timeline(case.name) {
            let url = plain.url.as_deref().unwrap_or_default();
            assert!(url.starts_with("http"), "{}: {url}", case.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_dialect_checks_its_credential() {
    for case in cases() {
        let w = world(&case);
        let standing = w.platform.check(&w.call()).await.unwrap();
        assert_eq!(standing.uid.is_some(), case.api != "wechat", "{}", case.name);
        let mut stranger = w.account.clone();
        let bad = case.secret.replace("canary", "nobody").replace("token-key-1", "token-key-9");
        stranger.secret = Some(fabu::core::accounts::Secret::new(bad));
        let refused = w.platform.check(&w.call_as(&stranger)).await;
        assert!(matches!(refused, Err(fabu::core::delivery::Failure::Credential(..))), "{}: {refused:?}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn r09_every_dialect_finds_its_own_post_and_nobody_elses() {
    for case in cases().into_iter().filter(|case| has_timeline(case.name)) {
        let w = world(&case);
        let post = w.post(&text(1));
        let prepared = w.prepare(&post).await.unwrap();
        let before = w.find(&w.wanted(&prepared)).await.unwrap();
        assert_eq!(before, Look::Absent, "{}", case.name);
        let receipt = w.publish(&prepared).await.unwrap();
        w.pass(3).await;
        let Look::Found(found) = w.find(&w.wanted(&prepared)).await.unwrap() else { panic!("{}", case.name) };
        if !receipt.post_id.is_empty() {
            assert_eq!((&found.post_id, &found.url), (&receipt.post_id, &receipt.url), "{}", case.name);
        }
        assert!(found.read_back && found.shown, "{}", case.name);
        // Another delivery's receipt is not this one's.
        let taken = Wanted { taken: vec![found.post_id.clone()], ..w.wanted(&prepared) };
        let looked = w.find(&taken).await.unwrap();
        assert!(!matches!(looked, Look::Found(_)), "{}: {looked:?}", case.name);
        // Nor is a post of the same words that another account made.
        let theirs = w.find_by(&w.call_as(&w.other), &w.wanted(&prepared)).await;
        assert!(!matches!(theirs, Ok(Look::Found(_))), "{}: {theirs:?}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn r09_yesterdays_same_words_are_not_todays_post() {
    for case in cases().into_iter().filter(|case| has_timeline(case.name)) {
        let w = world(&case);
        let yesterday = w.out(&w.post(&text(1))).await;
        w.pass(86_400).await;
        let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
        assert_eq!(w.find(&w.wanted(&prepared)).await.unwrap(), Look::Absent, "{}", case.name);
        let above = Wanted { above: Some(yesterday.post_id), ..w.wanted(&prepared) };
        assert_eq!(w.find(&above).await.unwrap(), Look::Absent, "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn every_dialect_takes_down_and_twice_is_fine() {
    for case in cases() {
        let w = world(&case);
        let receipt = w.out(&w.with_picture(&text(1))).await;
        assert_eq!(w.live(), 1, "{}", case.name);
        for _ in 0..2 {
            w.platform.delete(&w.call(), &receipt).await.unwrap();
            assert_eq!(w.live(), 0, "{}", case.name);
            w.pass(5).await;
        }
        let never = fabu::core::delivery::Receipt { post_id: "987654321".to_owned(), ticket: None, ..receipt };
        if has_timeline(case.name) {
            assert_eq!(w.platform.delete(&w.call(), &never).await, Ok(()), "{}", case.name);
        }
    }
}
