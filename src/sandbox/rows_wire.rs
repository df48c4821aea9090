//! What only sockets can show: resets, cut answers, listeners that go and come back, and the control.

use std::io::ErrorKind;
use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rows::*;
use super::*;

struct Real {
    sandbox: Sandbox,
    served: Served,
    sina: SocketAddr,
}

async fn real() -> Real {
    let sandbox = Sandbox::new(setup(), Clock::real());
    let served = sandbox.serve(None).await.unwrap();
    let sina = served.platforms["sina"];
    Real { sandbox, served, sina }
}

fn raw(text: &str) -> Vec<u8> {
    let body = form(&[("status", text)]);
    let mut raw = format!(
        "POST /2/statuses/update.json HTTP/1.1\r\nhost: x\r\nauthorization: OAuth2 sina-a\r\ncontent-type: \
         application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    raw.extend_from_slice(&body);
    raw
}

impl Real {
    fn fault(&self, rule: Value) {
        self.sandbox.set_faults(vec![serde_json::from_value(rule).unwrap()]);
    }

    /// Sends one post and reads until the end of the connection.
    async fn send(&self, text: &str) -> (Vec<u8>, Option<ErrorKind>) {
        let mut stream = TcpStream::connect(self.sina).await.unwrap();
        stream.write_all(&raw(text)).await.unwrap();
        read(&mut stream, 4 * 1024 * 1024).await
    }

    async fn control(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.served.control).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let (bytes, _) = read(&mut stream, 1 << 20).await;
        String::from_utf8(bytes).unwrap()
    }
}

async fn read(stream: &mut TcpStream, most: usize) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return (all, None),
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error) => return (all, Some(error.kind())),
        }
        if all.len() >= most {
            return (all, None);
        }
    }
}

#[tokio::test]
async fn a_kept_connection_serves_and_is_timed() {
    let r = real().await;
    let mut stream = TcpStream::connect(r.sina).await.unwrap();
    for text in ["一二三", "四五六"] {
        let raw = raw(text);
        let (head, tail) = raw.split_at(40);
        stream.write_all(head).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(tail).await.unwrap();
        let mut buffer = vec![0; 65_536];
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(buffer[..n].starts_with(b"HTTP/1.1 200 OK"));
    }
    let seen = r.sandbox.requests();
    assert!(seen.len() == 2 && seen.iter().all(|s| s.first_ns > 0 && s.first_ns <= s.last_ns));
    assert!(seen[0].last_ns < seen[1].first_ns);
    assert!(r.served.platforms_block().contains(&format!("sina: {{api: weibo, base_url: \"http://{}\"}}", r.sina)));
}

#[tokio::test]
async fn rows_04_to_06_on_a_socket() {
    let r = real().await;
    r.fault(json!({"behaviour": 4}));
    let (cut, end) = r.send("一").await;
    assert!(cut.starts_with(b"HTTP/1.1 200") && !cut.ends_with(b"}") && end.is_none());
    r.fault(json!({"behaviour": 4, "params": {"kind": "chunked"}}));
    let (cut, _) = r.send("二").await;
    assert!(!cut.ends_with(b"0\r\n\r\n") && cut.windows(7).any(|w| w == b"chunked"));
    r.fault(json!({"behaviour": 4, "params": {"kind": "header"}}));
    assert_eq!(r.send("三").await.0, b"HTTP/1.1 200 OK\r\nContent-Ty");
    r.fault(json!({"behaviour": 5}));
    assert_eq!(r.send("四").await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    assert_eq!(r.sandbox.posts().len(), 4);
    r.fault(json!({"behaviour": 6}));
    assert_eq!(r.send("五").await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    assert_eq!(r.sandbox.posts().len(), 4);
}

#[tokio::test]
async fn row_07_on_a_socket_the_post_outlives_its_client() {
    let r = real().await;
    r.fault(json!({"behaviour": 7, "params": {"seconds": 0.05}}));
    let mut stream = TcpStream::connect(r.sina).await.unwrap();
    stream.write_all(&raw("一")).await.unwrap();
    while r.sandbox.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    while r.sandbox.posts().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn row_16_a_refusing_listener_is_gone_and_comes_back() {
    let r = real().await;
    let mut kept = TcpStream::connect(r.sina).await.unwrap();
    r.fault(json!({"behaviour": 16, "platform": "sina"}));
    let refused = async || loop {
        match TcpStream::connect(r.sina).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
            _ => tokio::task::yield_now().await,
        }
    };
    refused().await;
    assert!(read(&mut kept, 1).await.0.is_empty());
    assert!(TcpStream::connect(r.served.platforms["tencent"]).await.is_ok());
    r.sandbox.clear();
    let mut again = loop {
        match TcpStream::connect(r.sina).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    again.write_all(&raw("一")).await.unwrap();
    assert!(read(&mut again, 10).await.0.starts_with(b"HTTP/1.1 200"));
    r.fault(json!({"behaviour": 16, "params": {"kind": "tls"}}));
    let mut stream = TcpStream::connect(r.sina).await.unwrap();
    assert_eq!(read(&mut stream, 64).await.0, [0x15, 3, 3, 0, 2, 2, 0x2A]);
}

#[tokio::test]
async fn row_17_an_idle_connection_is_closed_without_notice() {
    let r = real().await;
    r.fault(json!({"behaviour": 17, "params": {"seconds": 0.03}}));
    let (answer, end) = r.send("一").await;
    assert!(answer.starts_with(b"HTTP/1.1 200") && end == Some(ErrorKind::ConnectionReset));
    r.fault(json!({"behaviour": 17, "params": {"seconds": 0, "kind": "next"}}));
    let mut stream = TcpStream::connect(r.sina).await.unwrap();
    stream.write_all(&raw("二")).await.unwrap();
    let mut buffer = vec![0; 65_536];
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    stream.write_all(&raw("三")).await.unwrap();
    assert_eq!(read(&mut stream, 1).await.1, Some(ErrorKind::ConnectionReset));
    assert_eq!(r.sandbox.posts().len(), 2);
}

#[tokio::test]
async fn row_21_too_many_connections_are_turned_away() {
    let r = real().await;
    r.fault(json!({"behaviour": 21, "platform": "sina", "params": {"count": 1}}));
    let mut first = TcpStream::connect(r.sina).await.unwrap();
    first.write_all(&raw("一")).await.unwrap();
    assert!(first.read(&mut [0; 4096]).await.unwrap() > 0);
    let mut second = TcpStream::connect(r.sina).await.unwrap();
    let (got, _) = read(&mut second, 1).await;
    assert!(got.is_empty() && r.sandbox.posts().len() == 1);
}

#[tokio::test]
async fn endless_answers_go_on_until_the_reader_leaves() {
    let r = real().await;
    for behaviour in ["endless_headers", "endless_body", "continue_flood"] {
        r.fault(json!({"behaviour": behaviour}));
        let (got, _) = r.send(behaviour).await;
        assert!(got.len() >= 4 * 1024 * 1024, "{behaviour}: {}", got.len());
    }
    r.fault(json!({"behaviour": "trickle", "params": {"seconds": 0.0001}}));
    assert!(r.send("一").await.0.ends_with(b"}"));
    r.fault(json!({"behaviour": "http09"}));
    assert!(r.send("二").await.0.starts_with(b"{"));
}

#[tokio::test]
async fn the_control_sets_faults_and_keeps_strangers_out() {
    let r = real().await;
    let host = r.served.control;
    let end = "connection: close\r\n";
    let page = r.control(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n{end}\r\n")).await;
    assert!(page.contains("content-security-policy: default-src 'none'") && page.contains("时间线"));
    let put = |kind: &str, host: &str, path: &str, body: &str| {
        let length = body.len();
        format!(
            "POST /_sandbox/{path} HTTP/1.1\r\nhost: {host}\r\n{end}content-type: {kind}\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
    };
    let (json, own) = ("application/json", host.to_string());
    let rule = r#"{"behaviour":"limit","platform":"sina","times":1}"#;
    assert!(r.control(&put(json, &own, "faults", rule)).await.contains(r#""number":10"#));
    assert!(r.control(&put("text/plain", &own, "faults", rule)).await.starts_with("HTTP/1.1 415"));
    assert!(r.control(&put(json, "evil.example", "faults", rule)).await.starts_with("HTTP/1.1 403"));
    assert!(r.control(&put(json, &own, "faults", "{}")).await.starts_with("HTTP/1.1 400"));
    let token = r#"{"account":"sina:a","state":"captcha"}"#;
    assert!(r.control(&put(json, &own, "token", token)).await.starts_with("HTTP/1.1 200"));
    assert!(r.control(&put(json, &own, "latency", r#"{"latency":"1ms..2ms"}"#)).await.starts_with("HTTP/1.1 200"));
    assert!(r.control(&put(json, &own, "clock", r#"{"seconds":-3}"#)).await.starts_with("HTTP/1.1 200"));
    let view = r.control(&format!("GET /_sandbox/view HTTP/1.1\r\nhost: {host}\r\n{end}\r\n")).await;
    assert!(view.contains(r#""name":"eastday""#) && view.contains(r#""fired":0"#));
    assert!(r.control(&put(json, &own, "reset", "{}")).await.starts_with("HTTP/1.1 200"));
    assert!(r.sandbox.faults().is_empty());
}
