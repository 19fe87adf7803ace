//! TCP.

use wvs_health::Kind;

use super::*;

#[tokio::test]
async fn server_that_accepts_is_good_in_both_families_and_one_that_refuses_is_bad() {
    let (_listener, address) = listen().await;
    assert_good(&ask(Kind::Tcp, address).await, "accepted");
    let (_listener, address) = listen_ipv6().await;
    assert_good(&ask(Kind::Tcp, address).await, "accepted");
    let (_bound, address) = closed();
    assert_bad(&ask(Kind::Tcp, address).await, "connect: Connection refused");
}

#[tokio::test]
async fn connection_is_closed_in_an_orderly_way() {
    let (listener, address) = listen().await;
    assert_good(&ask(Kind::Tcp, address).await, "accepted");
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn server_that_never_answers_is_bad_at_the_timeout() {
    // A listener with a full queue drops what else comes.
    let (socket, address) = closed();
    socket.listen(0).unwrap();
    let _queued = TcpStream::connect(address).await.unwrap();
    let mut finding = ask_within(Kind::Tcp, address, SHORT).await;
    if finding.outcome == GOOD {
        // The queue had one more place than it was asked for.
        finding = ask_within(Kind::Tcp, address, SHORT).await;
    }
    assert_bad(&finding, "no answer within 300ms");
}
