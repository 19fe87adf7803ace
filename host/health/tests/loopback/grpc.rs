//! gRPC health.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use wvs_health::{Grpc, Kind};

use super::*;

/// What a server answers.
#[derive(Clone)]
struct Answer {
    http: u16,
    in_headers: Option<&'static str>,
    message: Vec<u8>,
    in_trailers: Option<&'static str>,
}

fn serving(status: u8) -> Answer {
    let message = vec![0, 0, 0, 0, 2, 8, status];
    Answer { http: 200, in_headers: None, message, in_trailers: Some("0") }
}

/// Serves one connection over HTTP/2, and returns path and message of its request.
async fn serve(listener: TcpListener, answer: Answer) -> (String, Bytes) {
    let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, asked) = (answer.clone(), asked.clone());
        async move {
            let path = request.uri().path().to_owned();
            let message = request.into_body().collect().await.unwrap().to_bytes();
            asked.send((path, message)).unwrap();
            let mut trailers = HeaderMap::new();
            if let Some(code) = answer.in_trailers {
                trailers.insert("grpc-status", HeaderValue::from_static(code));
            }
            let body = Full::new(Bytes::from(answer.message))
                .with_trailers(async move { (!trailers.is_empty()).then_some(Ok(trailers)) });
            let mut response = Response::builder().status(answer.http);
            if let Some(code) = answer.in_headers {
                response = response.header("grpc-status", code);
            }
            Ok::<_, Infallible>(response.body(body).unwrap())
        }
    });
    let (stream, _) = listener.accept().await.unwrap();
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // The client hangs up when it has heard enough.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
    heard.recv().await.unwrap()
}

async fn answered(service: &str, answer: Answer) -> (Finding, (String, Bytes)) {
    let (listener, address) = listen().await;
    let kind = Kind::Grpc(Grpc { service: service.to_owned() });
    tokio::join!(ask(kind, address), serve(listener, answer))
}

#[tokio::test]
async fn server_that_says_it_serves_is_good() {
    let (finding, (path, message)) = answered("", serving(1)).await;
    assert_good(&finding, "SERVING");
    assert_eq!((path.as_str(), &message[..]), ("/grpc.health.v1.Health/Check", &[0; 5][..]));
    let (finding, (_, message)) = answered("shop.Cart", serving(1)).await;
    assert_good(&finding, "SERVING");
    assert_eq!(&message[..], b"\0\0\0\0\x0b\x0a\x09shop.Cart");
}

#[tokio::test]
async fn every_other_answer_is_bad() {
    let plain = Answer { in_trailers: None, ..serving(1) };
    for (answer, reason) in [
        (serving(2), "NOT_SERVING"),
        (serving(0), "UNKNOWN"),
        (serving(9), "another status"),
        (Answer { message: Vec::new(), ..serving(1) }, "no answer of grpc.health.v1"),
        (Answer { message: vec![0; 3], ..serving(1) }, "no answer of grpc.health.v1"),
        (Answer { message: vec![0; 100_000], ..serving(1) }, "body: "),
        (Answer { in_trailers: Some("5"), ..serving(1) }, "grpc-status 5"),
        (Answer { in_headers: Some("12"), message: Vec::new(), ..plain.clone() }, "grpc-status 12"),
        (Answer { http: 404, ..plain.clone() }, "status 404"),
        (plain, "no grpc-status"),
    ] {
        let (finding, _) = answered("", answer).await;
        assert_bad(&finding, reason);
    }
}

#[tokio::test]
async fn server_that_does_not_speak_http_2_is_bad() {
    let kind = || Kind::Grpc(Grpc::default());
    let (listener, address) = listen().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1_000]).await;
    };
    let (finding, ()) = tokio::join!(ask(kind(), address), server);
    assert_bad(&finding, "http/2: ");
    let (_listener, address) = listen().await;
    assert_bad(&ask_within(kind(), address, SHORT).await, "no answer within 300ms");
    let (_bound, address) = closed();
    assert_bad(&ask(kind(), address).await, "connect: ");
}
