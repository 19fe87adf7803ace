//! HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use wvs_health::types::Method;
use wvs_health::{BODY_OCTETS_MAX, Http, Kind};

use super::*;

async fn answered(http: Http, response: impl Into<Vec<u8>>) -> (Finding, String) {
    let (listener, address) = listen().await;
    let (finding, request) =
        tokio::join!(ask(Kind::Http(http), address), serve_once(listener, response.into()));
    (finding, request.replace(&address.to_string(), "ADDRESS"))
}

fn expecting(text: &str) -> Http {
    Http { body: Some(text.to_owned()), ..Http::default() }
}

fn response(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn request_says_what_was_configured() {
    let (finding, request) = answered(Http::default(), response("")).await;
    assert_good(&finding, "status 200");
    let agent = concat!("wvs/", env!("CARGO_PKG_VERSION"));
    let expected = format!(
        "GET / HTTP/1.1\r\nhost: ADDRESS\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(request, expected);

    let http = Http {
        method: Method::HEAD,
        path: "/health?deep=1".parse().unwrap(),
        host: Some("www.example.org:8080".parse().unwrap()),
        ..Http::default()
    };
    let (finding, request) = answered(http, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
    assert_good(&finding, "status 200");
    assert!(request.starts_with("HEAD /health?deep=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: www.example.org:8080\r\n"), "{request}");
}

#[tokio::test]
async fn status_must_be_one_of_the_expected() {
    for (expect, status, is_good) in [
        (vec![200..=299], 200, true),
        (vec![200..=299], 299, true),
        (vec![200..=299], 300, false),
        (vec![200..=299], 503, false),
        (vec![200..=200, 401..=403], 401, true),
        (vec![200..=200, 401..=403], 204, false),
        (vec![301..=301], 301, true),
    ] {
        let http = Http { expect: expect.clone(), ..Http::default() };
        let response = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        let (finding, _) = answered(http, response).await;
        assert_eq!(finding.outcome == GOOD, is_good, "{expect:?}: {}", finding.reason);
        assert_eq!(finding.reason, format!("status {status}"));
    }
}

#[tokio::test]
async fn text_must_be_in_the_body_however_it_is_sent() {
    let (finding, _) = answered(expecting("all is well"), response("<p>all is well</p>")).await;
    assert_good(&finding, "status 200, with the text expected");
    let (finding, _) = answered(expecting("all is well"), response("all is not well")).await;
    assert_bad(&finding, "status 200, without the text expected");
    let (finding, _) = answered(expecting("x"), response("")).await;
    assert_bad(&finding, "without the text expected");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                   6\r\nall is\r\n5\r\n well\r\n0\r\n\r\n";
    let (finding, _) = answered(expecting("all is well"), chunked).await;
    assert_good(&finding, "with the text expected");
    let to_the_end = "HTTP/1.0 200 OK\r\n\r\nall is well";
    let (finding, _) = answered(expecting("all is well"), to_the_end).await;
    assert_good(&finding, "with the text expected");
    let (finding, _) =
        answered(expecting("x"), "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").await;
    assert_bad(&finding, "status 200, but its body");
}

#[tokio::test]
async fn text_is_looked_for_up_to_the_limit() {
    for (before, is_good) in [(BODY_OCTETS_MAX - 4, true), (BODY_OCTETS_MAX - 3, false)] {
        let body = format!("{}text and more", "-".repeat(before));
        let (finding, _) = answered(expecting("text"), response(&body)).await;
        assert_eq!(finding.outcome == GOOD, is_good, "{before}: {}", finding.reason);
    }
}

#[tokio::test]
async fn garbage_is_bad() {
    let long_header = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    for garbage in [
        &b""[..],
        b"\0\x01\x02\x03\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/3 200 OK\r\n\r\n",
        &[0xFF; 100_000],
        long_header.as_bytes(),
        many_headers.as_bytes(),
    ] {
        let (finding, _) = answered(Http::default(), garbage).await;
        assert_bad(&finding, "http: ");
    }
    let (_bound, address) = closed();
    assert_bad(&ask(Kind::Http(Http::default()), address).await, "connect: ");
}

#[tokio::test]
async fn server_that_hangs_or_trickles_is_bad_at_the_timeout() {
    for trickle in [&b""[..], b"x", b"H"] {
        let (listener, address) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            if trickle == b"x" {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            } else if trickle == b"H" {
                stream.write_all(b"HTTP/1.1 200 OK\r\nheader: ").await.unwrap();
            }
            while !trickle.is_empty() && stream.write_all(trickle).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Ends when the check does.
            while stream.read(&mut [0; 1_000]).await.is_ok_and(|length| length > 0) {}
        });
        let finding = ask_within(Kind::Http(expecting("text")), address, SHORT).await;
        assert_bad(&finding, "no answer within 300ms");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn endless_body_is_not_read_to_its_end() {
    for http in [expecting("text"), Http::default()] {
        let (listener, address) = listen().await;
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let block = vec![b'-'; 1 << 20];
            for _ in 0..1_024 {
                if stream.write_all(&block).await.is_err() {
                    break;
                }
                counter.fetch_add(1, Relaxed);
            }
        });
        let is_good = http.body.is_none();
        let finding = ask(Kind::Http(http), address).await;
        assert_eq!(finding.outcome == GOOD, is_good, "{}", finding.reason);
        server.await.unwrap();
        // What the kernel keeps in its buffers on both sides.
        assert!(sent.load(Relaxed) < 64, "{} MiB of 1 GiB", sent.load(Relaxed));
    }
}
