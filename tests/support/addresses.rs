//! Public addresses of the sandbox's posts, as a person copies them.

use fabu::sandbox::Post;

/// Letters of weibo's addresses: seven digits of the id are four of these.
fn letters(id: &str) -> String {
    const OF: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let digits = id.as_bytes();
    let mut parts: Vec<String> = digits
        .rchunks(7)
        .map(|chunk| {
            let mut number: usize = std::str::from_utf8(chunk).unwrap().parse().unwrap();
            let mut part = Vec::new();
            while number > 0 || part.is_empty() {
                part.insert(0, OF[number % 62]);
                number /= 62;
            }
            format!("{:0>4}", String::from_utf8(part).unwrap())
        })
        .collect();
    parts.reverse();
    parts.concat().trim_start_matches('0').to_owned()
}

/// The addresses a browser shows of a post of this user's, with whatever it adds to them.
pub fn addresses(post: &Post, uid: &str) -> Vec<String> {
    let id = &post.id;
    match post.platform.as_str() {
        "sina" => vec![
            format!("https://weibo.com/{uid}/{}", letters(id)),
            format!("https://weibo.com/{uid}/{}?from=page_1002061_profile&wvr=6&mod=weibotime#comment", letters(id)),
            format!("https://m.weibo.cn/detail/{id}"),
            format!("https://m.weibo.cn/status/{}?jumpfrom=weibocom", letters(id)),
        ],
        "tencent" => vec![format!("http://t.qq.com/p/t/{id}"), format!("https://t.qq.com/p/t/{id}?pgv_ref=w#r")],
        "eastday" => vec![format!("http://127.0.0.1/notice/{id}"), format!("http://127.0.0.1/notice/{id}?utm=x")],
        _ => vec![
            format!("https://xinmin.example/@h0/{id}"),
            format!("https://xinmin.example/users/h0/statuses/{id}"),
            format!("https://xinmin.example/web/@h0/{id}?s=1#top"),
        ],
    }
}
