//! All of it together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use wvs_health::{Checkers, Http, Kind, News, Settings};

use super::*;

/// A server that answers every request with the status that holds.
async fn serve(status: Arc<AtomicU16>) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            let status = status.load(Relaxed);
            let response = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(response.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn server_that_fails_and_mends_is_told_beside_others_that_hang_or_are_well() {
    let status = Arc::new(AtomicU16::new(200));
    let failing = serve(Arc::clone(&status)).await;
    let well = serve(Arc::new(AtomicU16::new(200))).await;
    let (_listener, hanging) = listen().await;

    let interval = Duration::from_millis(20);
    let check = |target| Check {
        kind: Kind::Http(Http::default()),
        target,
        interval,
        down_interval: interval,
        timeout: AMPLE,
        rise: 2,
        fall: 3,
        start: Standing::Up,
    };
    let key = |server| ServerKey { service: "web".to_owned(), server };
    let (checkers, mut news) = Checkers::start(Settings { concurrent_max: 8, seed: 1 });
    checkers.set([failing, well, hanging].map(|server| (key(server), check(server))));
    let report = |server| {
        let key = key(server);
        checkers.reports().into_iter().find(|report| report.key == key).unwrap()
    };
    while report(failing).checks == 0 || report(well).checks == 0 {
        tokio::time::sleep(interval).await;
    }

    status.store(503, Relaxed);
    let told = |standing, reason: &str| News {
        key: key(failing),
        standing,
        weight: None,
        reason: reason.to_owned(),
    };
    assert_eq!(news.recv().await, Some(told(Standing::Down, "status 503")));
    assert!(report(failing).bad >= 3);
    status.store(204, Relaxed);
    assert_eq!(news.recv().await, Some(told(Standing::Up, "status 204")));

    assert_eq!(report(failing).changes, 2);
    assert_eq!((report(well).failed, report(well).standing), (0, Standing::Up));
    assert_eq!((report(hanging).checks, report(hanging).standing), (0, Standing::Up));
    assert_eq!(checkers.load().late, 0);
}
