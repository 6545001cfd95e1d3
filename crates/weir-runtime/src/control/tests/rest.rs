//! One REST call: what Patroni's odd HTTP needs, and every way in which it fails.

use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weir_config::Dns;
use weir_discovery::{ANSWER_BYTES_MAX, Answer, ApiUrl, PollFailure};

use super::fakes::{http, rest};
use super::on_control_thread;
use crate::control::patroni::{Call, Way, call};
use crate::resolver::Resolver;

const DEADLINE: Duration = Duration::from_millis(500);

async fn get(url: &ApiUrl, deadline: Duration) -> Result<Answer, PollFailure> {
    call(url, Call::Get("/primary"), &way(), deadline).await
}

fn way() -> Way {
    Way { resolver: Resolver::new(Dns::default()), tls: None }
}

fn url(text: &str) -> ApiUrl {
    text.parse().unwrap()
}

async fn ask(answer: Vec<u8>) -> Result<Answer, PollFailure> {
    let address = rest(move |path| if path == "/primary" { answer.clone() } else { Vec::new() }).await;
    get(&url(&format!("http://{address}/patroni")), DEADLINE).await
}

#[test]
fn the_body_of_http_1_0_ends_with_the_connection() {
    on_control_thread(async {
        let answer = ask(http(503, r#"{"state": "running"}"#)).await;
        assert_eq!(answer, Ok(Answer { status: 503, body: br#"{"state": "running"}"#.to_vec() }));
    });
}

#[test]
fn a_proxy_in_between_may_speak_http_1_1() {
    on_control_thread(async {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec();
        assert_eq!(ask(chunked).await, Ok(Answer { status: 200, body: b"{}".to_vec() }));
    });
}

#[test]
fn what_is_no_answer_is_a_failure() {
    on_control_thread(async {
        assert!(matches!(ask(Vec::new()).await, Err(PollFailure::Broken(_))), "closed without a word");
        assert!(matches!(ask(b"SSH-2.0-x\r\n".to_vec()).await, Err(PollFailure::Broken(_))));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}".to_vec();
        assert!(matches!(ask(cut).await, Err(PollFailure::Broken(_))));
    });
}

#[test]
fn a_long_body_is_a_failure() {
    on_control_thread(async {
        let long = http(200, &" ".repeat(ANSWER_BYTES_MAX + 1));
        assert!(matches!(ask(long).await, Err(PollFailure::Broken(_))));
    });
}

#[test]
fn a_head_without_end_is_a_failure() {
    on_control_thread(async {
        let endless = [
            b"HTTP/1.0 200 OK
X: "
            .to_vec(),
            vec![b'x'; 1 << 20],
        ]
        .concat();
        assert!(matches!(ask(endless).await, Err(PollFailure::Broken(_))));
    });
}

#[test]
fn nobody_there_is_known_at_once_and_silence_within_the_deadline() {
    on_control_thread(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let began = Instant::now();
        let silent = get(&url(&format!("http://{address}")), DEADLINE).await;
        assert_eq!(silent, Err(PollFailure::TimedOut));
        assert!((DEADLINE..DEADLINE * 4).contains(&began.elapsed()));
        drop(listener);
        let gone = get(&url(&format!("http://{address}")), DEADLINE).await;
        assert_eq!(gone, Err(PollFailure::Unreachable("connection refused".to_owned())));
        let secure = get(&url("https://127.0.0.1:1"), DEADLINE).await;
        assert!(matches!(secure, Err(PollFailure::Tls(_))), "{secure:?}");
    });
}

#[test]
fn a_post_says_who_asks() {
    on_control_thread(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(&format!("http://{}", listener.local_addr().unwrap()));
        let body = r#"{"leader":"n1"}"#;
        let authorization = Some(HeaderValue::from_static("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        let question = Call::Post { path: "/switchover", body: body.to_owned(), authorization };
        let patroni = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(body.as_bytes()) {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            stream.write_all(&http(401, "no auth")).await.unwrap();
            drop(stream);
            String::from_utf8(request).unwrap().to_ascii_lowercase()
        };
        let way = way();
        let (answer, request) = tokio::join!(call(&url, question, &way, DEADLINE), patroni);
        assert_eq!(answer, Ok(Answer { status: 401, body: b"no auth".to_vec() }));
        assert!(request.starts_with("post /switchover http/1.1\r\n"), "{request}");
        for header in
            ["authorization: basic qwxhzgrpbjpvcgvuihnlc2ftzq==", "content-length: 15", "connection: close"]
        {
            assert!(request.contains(&format!("\r\n{header}\r\n")), "{header} in {request}");
        }
    });
}
