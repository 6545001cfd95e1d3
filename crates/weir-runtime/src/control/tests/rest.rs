//! One REST call: what Patroni's odd HTTP needs, and every way in which it fails.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use weir_discovery::{ANSWER_BYTES_MAX, Answer, ApiUrl, PollFailure};

use super::fakes::{http, rest};
use super::on_control_thread;
use crate::control::patroni::get;

const DEADLINE: Duration = Duration::from_millis(500);

fn url(text: &str) -> ApiUrl {
    text.parse().unwrap()
}

async fn ask(answer: Vec<u8>) -> Result<Answer, PollFailure> {
    let address = rest(move |path| if path == "/primary" { answer.clone() } else { Vec::new() }).await;
    get(&url(&format!("http://{address}/patroni")), "/primary", None, DEADLINE).await
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
        let silent = get(&url(&format!("http://{address}")), "/primary", None, DEADLINE).await;
        assert_eq!(silent, Err(PollFailure::TimedOut));
        assert!((DEADLINE..DEADLINE * 4).contains(&began.elapsed()));
        drop(listener);
        let gone = get(&url(&format!("http://{address}")), "/primary", None, DEADLINE).await;
        assert_eq!(gone, Err(PollFailure::Unreachable("connection refused".to_owned())));
        let secure = get(&url("https://127.0.0.1:1"), "/primary", None, DEADLINE).await;
        assert!(matches!(secure, Err(PollFailure::Tls(_))), "{secure:?}");
    });
}
