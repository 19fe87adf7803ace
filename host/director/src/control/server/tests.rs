use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::super::access::AccessCounters;
use super::super::change::BODY_TIME_MAX;
use super::super::snapshot::{
    AdminSnapshot, ConnectionSnapshot, ConnectionsSnapshot, DeviceSnapshot, FragmentsSnapshot,
    GenerationSnapshot, PacketsSnapshot,
};
use super::super::visit::{
    CONNECTION_TIME_MAX, CONNECTIONS_MAX, REQUEST_OCTETS_MAX, REQUEST_TIME_MAX, STALL_TIME_MAX,
};
use super::super::{AskError, Message, ask, fetch, receive, tell};
use wvs_core::director::Director;
use wvs_core::packet::Packet;
use wvs_core::services::Services;
use wvs_core::time::Moment;
use wvs_core::verdict::Verdict;

use super::super::CONNECTIONS_LISTED;
use super::*;
use crate::capture::{BlockCutter, CaptureStatistics};
use crate::config::Config;
use crate::config::units::Percent;
use crate::config::{AdminConfig, TcpConfig};
use crate::operation::{Proposal, ProposedPlugin};
use crate::run::director_config;
use crate::seat::SeatError;
use crate::tap::{CAPTURES_MAX, Tap, TapPlace};

/// A director with one service, `web`, which does nothing but write down what it is told.
struct Fixed {
    tap: Arc<Tap>,
    director: Arc<Director>,
    told: Mutex<Vec<Action>>,
    /// Changes of the service `slow` that are under way, and the most that ever were.
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Default for Fixed {
    fn default() -> Self {
        let settings = director_config(&Config::default(), 1);
        Self {
            tap: Arc::default(),
            director: Arc::new(Director::new(settings, Services::default())),
            told: Mutex::default(),
            under_way: AtomicUsize::default(),
            most: AtomicUsize::default(),
        }
    }
}

impl Answers for Fixed {
    fn services(&self) -> ServicesSnapshot {
        ServicesSnapshot { version: "1".into(), connections_max: 2, services: Vec::new() }
    }

    fn stats(&self) -> StatsSnapshot {
        StatsSnapshot {
            version: "1".into(),
            uptime_seconds: 3,
            log_lines_lost: 0,
            connections: ConnectionsSnapshot {
                now: 0,
                max: 2,
                half_open: 0,
                half_open_max: 1,
                opened: 0,
                expired: 0,
                replaced: 0,
                evicted: 0,
            },
            packets: PacketsSnapshot {
                forwarded: 0,
                replied: 0,
                passed: 0,
                held: 0,
                dropped: [("stray".to_owned(), 7)].into(),
            },
            fragments: FragmentsSnapshot::default(),
            device: DeviceSnapshot {
                name: "wvs0".into(),
                mtu: 1500,
                queues: 2,
                offload: "tcp".to_owned(),
                read: 0,
                written: 0,
                read_errors: 0,
                write_errors: 0,
                queue_full: 5,
            },
            admin: AdminSnapshot::default(),
        }
    }

    fn plugins(&self) -> PluginsSnapshot {
        PluginsSnapshot { version: "1".into(), services: Vec::new() }
    }

    fn metrics(&self) -> String {
        "# TYPE wvs_one gauge\nwvs_one 1\n".to_owned()
    }

    fn connections(&self, filter: &ConnectionFilter) -> Option<ConnectionList> {
        if filter.service.as_deref() == Some("long") {
            let connection = ConnectionSnapshot {
                protocol: "tcp".to_owned(),
                expires_in_ms: 1,
                state: "ESTABLISHED".to_owned(),
                client: ([192, 0, 2, 1], 1).into(),
                vip: ([192, 0, 2, 2], 1).into(),
                server: ([192, 0, 2, 3], 1).into(),
                generation: 1,
            };
            let connections = vec![connection; 10_000];
            return Some(ConnectionList { total: connections.len(), connections });
        }
        let is_known = filter.service.as_ref().is_none_or(|service| service == "web");
        let total = filter.limit.unwrap_or(CONNECTIONS_LISTED);
        is_known.then(|| ConnectionList { total, connections: Vec::new() })
    }

    fn change(&self, service: &str, action: Action) -> Result<ChangeSnapshot, ChangeError> {
        let service = service.to_owned();
        if service == "slow" {
            let under_way = self.under_way.fetch_add(1, SeqCst) + 1;
            self.most.fetch_max(under_way, SeqCst);
            std::thread::sleep(Duration::from_millis(500));
            self.under_way.fetch_sub(1, SeqCst);
        }
        if service != "web" {
            return Err(ChangeError::NoService { service });
        }
        match &action {
            Action::Rollback => return Err(SeatError::NoPast.into()),
            Action::Swap(Proposal { plugin: ProposedPlugin::Named(name), .. })
                if name == "nothing" =>
            {
                return Err(ChangeError::NoPlugin { plugin: name.clone() });
            }
            _ => {}
        }
        self.told.lock().unwrap().push(action);
        let plugin = GenerationSnapshot { generation: 7, plugin: "rr".to_owned() };
        Ok(ChangeSnapshot::Reset { service, plugin })
    }

    fn change_server(
        &self,
        service: &str,
        server: &str,
        action: ServerAction,
    ) -> Result<ServerStanding, ChangeError> {
        let (service, server) = (service.to_owned(), server.to_owned());
        match (&*server, action) {
            ("10.0.0.1:80", ServerAction::Weight(weight)) => Ok(ServerStanding {
                service,
                server: server.parse().unwrap(),
                weight: weight.unwrap_or(1),
                connections: 3,
                drain_ms: None,
            }),
            ("10.0.0.1:80", ServerAction::Drain { deadline, .. }) => Ok(ServerStanding {
                service,
                server: server.parse().unwrap(),
                weight: 0,
                connections: 3,
                drain_ms: deadline.map(|deadline| deadline.as_secs() * 1_000),
            }),
            _ => Err(ChangeError::NoServer { service, server }),
        }
    }

    fn preview(&self, text: &str) -> Result<ReloadSnapshot, ReloadError> {
        Err(ReloadError::Restart(vec![text.to_owned()]))
    }

    fn recording(&self, service: &str) -> Result<Vec<u8>, ChangeError> {
        match service {
            "web" => Ok(b"recorded".to_vec()),
            _ => Err(SeatError::NotRecorded.into()),
        }
    }

    fn explain(&self, question: &Question) -> Result<ExplanationSnapshot, InstanceError> {
        crate::explain::explain(&self.director, question, Moment::default())
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Recording, CaptureRefusal> {
        self.tap.capture(request, &self.director, "wvs0", 1)
    }

    fn reload(&self) -> Result<ReloadSnapshot, ReloadError> {
        Err(ReloadError::Restart(vec!["echo".to_owned()]))
    }
}

fn serve_in(folder: &Path) -> ControlServer {
    serve(folder, Arc::default())
}

fn serve(folder: &Path, director: Arc<Fixed>) -> ControlServer {
    let socket = ControlSocket::claim(&folder.join("wvs.sock"), &AdminConfig::default()).unwrap();
    ControlServer::start(socket, director).unwrap()
}

/// What the server answers to these octets: its status and the rest.
async fn answer(server: &ControlServer, request: &str) -> (u16, String) {
    let mut stream = connect(server).await;
    // The server may hang up before it has read all.
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = rest(stream).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer to {request:.80}: {answer}")), answer)
}

/// A request that brings `body` along.
fn post(path: &str, media: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

async fn connect(server: &ControlServer) -> UnixStream {
    UnixStream::connect(server.socket().path()).await.unwrap()
}

/// What the server says until it hangs up.
async fn rest(mut stream: UnixStream) -> String {
    let mut octets = Vec::new();
    // A reset after the answer is as good as an end, but there must be one.
    let end = timeout(2 * CONNECTION_TIME_MAX, stream.read_to_end(&mut octets)).await;
    assert!(end.is_ok(), "the server did not hang up");
    String::from_utf8(octets).unwrap()
}

#[tokio::test(start_paused = true)]
async fn client_gets_what_the_director_answers() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    let path = server.socket().path();
    assert_eq!(ask::<ServicesSnapshot>(path, SERVICES).await.unwrap(), Fixed::default().services());
    assert_eq!(ask::<StatsSnapshot>(path, STATS).await.unwrap(), Fixed::default().stats());
    match ask::<StatsSnapshot>(path, "/v1/nothing").await {
        Err(AskError::Refused { reason, .. }) => assert!(reason.contains(STATS), "{reason}"),
        other => panic!("{other:?}"),
    }
    match ask::<StatsSnapshot>(path, SERVICES).await {
        Err(AskError::Foreign { .. }) => {}
        other => panic!("{other:?}"),
    }
    let path = path.to_owned();
    drop(server);
    assert!(matches!(ask::<StatsSnapshot>(&path, STATS).await, Err(AskError::NoDirector { .. })));
}

#[tokio::test(start_paused = true)]
async fn recording_comes_as_it_is_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    let path = server.socket().path();
    let recording = |service| scheduler_path(service, RECORDING);
    assert_eq!(fetch(path, &recording("web")).await.unwrap(), b"recorded");
    match fetch(path, &recording("dns")).await {
        Err(AskError::Refused { reason, .. }) => {
            assert!(reason.contains("`record`"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn change_counts_until_it_is_done_though_whoever_asked_has_hung_up() {
    let folder = tempfile::tempdir().unwrap();
    let director = Arc::new(Fixed::default());
    let server = serve(folder.path(), Arc::clone(&director));
    for _ in 0..3 * CHANGES_MAX {
        let mut stream = connect(&server).await;
        let path = scheduler_path("slow", "reset");
        let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(director.most.load(SeqCst), CHANGES_MAX);
}

#[tokio::test(start_paused = true)]
async fn silent_client_is_cut_off_and_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    for half in ["", "GET /v1/stats HTTP/1.1\r\nhost:"] {
        let mut stream = connect(&server).await;
        stream.write_all(half.as_bytes()).await.unwrap();
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{half}: {answer}");
        assert!(answer.ends_with(r#"did not come to its end within 5 s"}"#), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    for garbage in [
        "\0\u{1}\u{2}\r\n\r\n",
        "hello?\r\n\r\n",
        "GET /v1/stats HTTP/9.9\r\n\r\n",
        "GET /v1/stats HTTP/1.1\r\nno colon\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}",
        "SSH-2.0-OpenSSH\r\n\r\n",
    ] {
        let (status, answer) = answer(&server, garbage).await;
        assert_eq!(status, 400, "{garbage:?}: {answer}");
    }
    assert!(ask::<StatsSnapshot>(server.socket().path(), STATS).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_the_first_of_several_requests_in_a_row_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let director = Arc::new(Fixed::default());
    let server = serve(folder.path(), Arc::clone(&director));
    let request = post(&scheduler_path("web", "reset"), "", "");
    let (_, answer) = answer(&server, &request.repeat(100)).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(director.told.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn thousand_clients_at_once_are_all_answered() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    let path = server.socket().path();
    let asked = (0..1_000).map(|_| async {
        // The queue of a listening socket is short, and whoever comes too many is told so.
        loop {
            match ask::<StatsSnapshot>(path, STATS).await {
                Err(AskError::Broken { source, .. })
                    if source.kind() == io::ErrorKind::WouldBlock =>
                {
                    tokio::task::yield_now().await;
                }
                result => return result.is_ok(),
            }
        }
    });
    let answered = futures_util::future::join_all(asked).await;
    assert!(answered.iter().all(|is_answered| *is_answered));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_a_long_answer_is_cut_off_and_others_are_served_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = connect(&server).await;
        stream.write_all(get_connections("service=long").as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let asked = tokio::time::Instant::now();
    // All places are taken, for as long as nothing is taken and no longer.
    assert!(ask::<StatsSnapshot>(server.socket().path(), STATS).await.is_ok());
    assert!(asked.elapsed() < 2 * STALL_TIME_MAX, "{:?}", asked.elapsed());
    for stream in slow {
        let answer = rest(stream).await;
        assert!(!answer.ends_with("]}"), "it was kept in memory after all");
    }
}

#[tokio::test]
async fn whoever_knows_the_token_is_answered_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = serve_in(folder.path());
    let (address, counters) = listen(&mut server, folder.path());
    let get =
        |authorization: &str| format!("GET {STATS} HTTP/1.1\r\nhost: x\r\n{authorization}\r\n");
    for (authorization, expected, part) in [
        (format!("Authorization: Bearer {TOKEN}\r\n"), 200, r#""uptime_seconds":3"#),
        (String::new(), 401, "www-authenticate: Bearer\r\n"),
        ("Authorization: Bearer another-token\r\n".to_owned(), 401, "not the token"),
        ("Authorization: Basic dTpw\r\n".to_owned(), 401, "`Authorization: Bearer TOKEN`"),
    ] {
        let answer = over_tcp(address, &get(&authorization)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
        assert!(answer.contains(part), "{answer}");
    }
    for _ in 1..10 {
        over_tcp(address, &get("Authorization: Bearer wrong\r\n")).await;
    }
    let answer = over_tcp(address, &get(&format!("Authorization: Bearer {TOKEN}\r\n"))).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("retry-after: 60"), "{answer}");
    let counted = AdminSnapshot::from(&*counters);
    assert_eq!((counted.bad_tokens, counted.locked_out), (10, 1));
    // The socket has nothing to do with it.
    assert!(ask::<StatsSnapshot>(server.socket().path(), STATS).await.is_ok());
}

#[tokio::test]
async fn nothing_is_received_or_done_for_those_without_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let director = Arc::new(Fixed::default());
    let mut server = serve(folder.path(), Arc::clone(&director));
    let (address, _) = listen(&mut server, folder.path());
    let reset = post(&scheduler_path("web", "reset"), "", "");
    let large = format!(
        "POST {}?name=a HTTP/1.1\r\nhost: x\r\ncontent-type: application/wasm\r\n\
         content-length: 1000000000\r\n\r\n",
        scheduler_path("web", "swap")
    );
    for request in [reset, large, "GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()] {
        let answer = over_tcp(address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    assert!(director.told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn crowd_at_the_listener_is_not_in_the_way_of_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = serve_in(folder.path());
    let (address, _) = listen(&mut server, folder.path());
    let mut crowd = Vec::new();
    for _ in 0..2 * CONNECTIONS_MAX {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    let asked = ask::<StatsSnapshot>(server.socket().path(), STATS);
    assert!(timeout(REQUEST_TIME_MAX / 2, asked).await.unwrap().is_ok());
}

const TOKEN: &str = "0123456789abcdef";

/// Has the server listen on a free port of loopback.
fn listen(server: &mut ControlServer, folder: &Path) -> (SocketAddr, Arc<AccessCounters>) {
    let token_file = folder.join("token");
    std::fs::write(&token_file, TOKEN).unwrap();
    let only_owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&token_file, only_owner).unwrap();
    let config = TcpConfig { listen: ([127, 0, 0, 1], 0).into(), token_file };
    let counters = Arc::<AccessCounters>::default();
    let listener = TokenListener::claim(&config, Arc::clone(&counters)).unwrap();
    let address = listener.address().unwrap();
    server.listen(listener).unwrap();
    (address, counters)
}

async fn over_tcp(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    let mut octets = Vec::new();
    // What was not received may make it a reset.
    let _ = stream.read_to_end(&mut octets).await;
    String::from_utf8(octets).unwrap()
}

#[tokio::test(start_paused = true)]
async fn request_beyond_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    let mut stream = connect(&server).await;
    let long = "x".repeat(2 * REQUEST_OCTETS_MAX);
    let request = format!("GET /v1/stats HTTP/1.1\r\nhost: {long}\r\n\r\n");
    // The server may hang up before it has read all.
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = rest(stream).await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn one_client_too_many_waits_for_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(connect(&server).await);
    }
    let path = server.socket().path();
    let patience = REQUEST_TIME_MAX / 2;
    assert!(timeout(patience, ask::<StatsSnapshot>(path, STATS)).await.is_err());
    drop(silent);
    assert!(ask::<StatsSnapshot>(path, STATS).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn other_methods_than_get_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    let mut stream = connect(&server).await;
    stream.write_all(b"DELETE /v1/stats HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = rest(stream).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn actions_come_to_the_director_as_they_were_sent() {
    let folder = tempfile::tempdir().unwrap();
    let director = Arc::new(Fixed::default());
    let server = serve(folder.path(), Arc::clone(&director));
    let limits = r#"{"plugin": "a", "config": {"b": [1]}, "faults": 5, "skew": 12.5}"#;
    for (action, media, body) in [
        ("swap", "application/json; charset=utf-8", r#"{"plugin": "wlc"}"#),
        ("swap?name=a&config=%7B%7D", "application/wasm", "octets"),
        ("shadow", "application/json", limits),
        ("shadow?name=b&faults=2&skew=0.25", "application/wasm", ""),
        ("canary", "application/json", r#"{"share": 0.5}"#),
        ("reset", "", ""),
        ("promote", "", ""),
        ("end-trial", "", ""),
    ] {
        let path = scheduler_path("web", action);
        let (status, answer) = answer(&server, &post(&path, media, body)).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    let shown: Vec<_> =
        director.told.lock().unwrap().iter().map(|told| format!("{told:?}")).collect();
    let limits = |faults, skew| format!("TrialLimits {{ faults: {faults}, skew: {skew} }}");
    let module = |name, octets: &[u8]| format!("Module {{ name: \"{name}\", octets: {octets:?} }}");
    let expected = [
        r#"Swap(Proposal { plugin: Named("wlc"), config: None })"#.to_owned(),
        format!(r#"Swap(Proposal {{ plugin: {}, config: Some("{{}}") }})"#, module("a", b"octets")),
        format!(
            r#"Shadow(Proposal {{ plugin: Named("a"), config: Some("{{\"b\":[1]}}") }}, {})"#,
            limits(5, 1_250)
        ),
        format!(
            "Shadow(Proposal {{ plugin: {}, config: None }}, {})",
            module("b", b""),
            limits(2, 25)
        ),
        format!("Canary({:?})", Percent::of_hundredths(50)),
        "Reset".to_owned(),
        "Promote".to_owned(),
        "EndTrial".to_owned(),
    ];
    assert_eq!(shown, expected);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_refused_with_a_reason_and_nothing_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let director = Arc::new(Fixed::default());
    let server = serve(folder.path(), Arc::clone(&director));
    let (json, wasm) = ("application/json", "application/wasm");
    let swap = |query: &str| scheduler_path("web", "swap") + query;
    let long = "x".repeat(200 << 10);
    let requests = [
        (404, "use swap", post(&scheduler_path("web", "nonsense"), "", "")),
        (404, "no service other", post(&scheduler_path("other", "reset"), "", "")),
        (400, "UTF-8", post(&scheduler_path("%ff", "reset"), "", "")),
        (409, "no earlier generation", post(&scheduler_path("web", "rollback"), "", "")),
        (422, "no plugin nothing", post(&swap(""), json, r#"{"plugin": "nothing"}"#)),
        (415, "send a module as", post(&swap(""), "text/plain", "wlc")),
        (400, "not what is wanted", post(&swap(""), json, "wlc")),
        (400, "not what is wanted", post(&swap(""), json, r#"{"plugin": "a", "b": 1}"#)),
        (400, "limits of a trial", post(&swap(""), json, r#"{"plugin": "a", "faults": 1}"#)),
        (413, "more than 131072 octets", post(&swap(""), json, &long)),
        (400, "missing field `name`", post(&swap(""), wasm, "octets")),
        (400, "`name` must be", post(&swap("?name=a%20b"), wasm, "octets")),
        (400, "name of a built-in", post(&swap("?name=rr"), wasm, "octets")),
        (400, "`config` is not JSON", post(&swap("?name=a&config=b"), wasm, "octets")),
        (400, "unknown field", post(&swap("?name=a&b=c"), wasm, "octets")),
        (
            400,
            "a percentage is a number from 0 to 100",
            post(&scheduler_path("web", "canary"), json, r#"{"share": 101}"#),
        ),
        (409, "restart the director", post(RELOAD, "", "")),
        (405, "Allow header", post(STATS, "", "")),
        (405, "Allow header", format!("GET {RELOAD} HTTP/1.1\r\nhost: x\r\n\r\n")),
        (400, "at most 100000", get_connections("limit=100001")),
        (404, "no service other", get_connections("service=other")),
        (400, "unknown field", get_connections("servce=web")),
        (400, "`AWAKE` is no state", get_connections("state=AWAKE")),
    ];
    for (expected, reason, request) in requests {
        let (status, answer) = answer(&server, &request).await;
        assert_eq!(status, expected, "{request:.200}: {answer}");
        assert!(answer.contains(reason), "{request:.200}: {answer}");
        assert!(answer.contains(r#"{"error":""#), "{answer}");
    }
    assert!(director.told.lock().unwrap().is_empty());
}

fn get_connections(query: &str) -> String {
    format!("GET {CONNECTIONS}?{query} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn connections_are_listed_up_to_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    for (query, limit) in [("", CONNECTIONS_LISTED), ("service=web&limit=3", 3)] {
        let path = format!("{CONNECTIONS}?{query}");
        let list: ConnectionList = ask(server.socket().path(), &path).await.unwrap();
        assert_eq!(list.total, limit);
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_any_module_is_cut_off_whether_its_length_is_told_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    let path = scheduler_path("web", "swap") + "?name=a";
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/wasm\r\n");
    let (status, answer) =
        answer(&server, &format!("{head}content-length: 1000000000\r\n\r\n")).await;
    assert_eq!(status, 413, "{answer}");

    let mut stream = connect(&server).await;
    let head = format!("{head}transfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"100000\r\n", &*vec![0; 1 << 20], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 64 && stream.write_all(&chunk).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 64, "the server takes more than any module");
    let answer = rest(stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn half_a_request_is_waited_for_but_not_for_ever_and_others_are_served_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve_in(folder.path());
    let path = scheduler_path("web", "swap") + "?name=a";
    let request = post(&path, "application/wasm", "octets");
    let mut sluggish = Vec::new();
    for _ in 0..CHANGES_MAX {
        let mut stream = connect(&server).await;
        stream.write_all(&request.as_bytes()[..request.len() - 1]).await.unwrap();
        sluggish.push(stream);
    }
    // Until each has its place.
    tokio::time::sleep(BODY_TIME_MAX / 2).await;
    let (socket, reset) = (server.socket().path(), scheduler_path("web", "reset"));
    assert!(ask::<StatsSnapshot>(socket, STATS).await.is_ok());
    match tell::<ChangeSnapshot>(socket, &reset, Message::Empty).await {
        Err(AskError::Refused { reason, .. }) => {
            assert!(reason.contains("under way"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    for stream in sluggish {
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let done = tell::<ChangeSnapshot>(socket, &reset, Message::Empty).await;
    assert!(done.is_ok(), "{done:?}");
}

/// Octets of a datagram that concerns nobody.
fn datagram() -> Vec<u8> {
    let mut octets = vec![0; 60_000];
    octets[..20].copy_from_slice(&[
        0x45, 0, 0xea, 0x60, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ]);
    octets[20..28].copy_from_slice(&[0, 1, 0, 2, 0xea, 0x4c, 0, 0]);
    octets
}

/// Has so many datagrams come by.
fn pass(director: &Fixed, datagrams: usize) {
    let tap = Arc::clone(&director.tap);
    let mut place = TapPlace::new(tap, Arc::clone(&director.director), 0);
    let mut octets = datagram();
    for _ in 0..datagrams {
        assert!(place.look(&Packet::new(&mut octets, 60_000)));
        place.show(Verdict::Pass, &mut octets, true);
    }
}

/// Waits until so many captures are under way; how long it took.
async fn open_captures(director: &Fixed, captures: usize) -> Duration {
    let start = tokio::time::Instant::now();
    while director.tap.open() != captures {
        assert!(start.elapsed() < CONNECTION_TIME_MAX, "never came to be");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn capture_of_a_client_that_reads_nothing_ends() {
    let folder = tempfile::tempdir().unwrap();
    let director = Arc::new(Fixed::default());
    let server = serve(folder.path(), Arc::clone(&director));
    let mut stream = connect(&server).await;
    stream.write_all(post(CAPTURES, "application/json", "{}").as_bytes()).await.unwrap();
    open_captures(&director, 1).await;
    // More than the socket takes.
    pass(&director, 100);
    let took = open_captures(&director, 0).await;
    assert!(took >= STALL_TIME_MAX && took < 2 * STALL_TIME_MAX, "{took:?}");
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn capture_of_a_client_that_hangs_up_ends_at_once_though_nothing_comes() {
    let folder = tempfile::tempdir().unwrap();
    let director = Arc::new(Fixed::default());
    let server = serve(folder.path(), Arc::clone(&director));
    let received = receive(server.socket().path(), CAPTURES, "{}".to_owned()).await.unwrap();
    open_captures(&director, 1).await;
    drop(received);
    let took = open_captures(&director, 0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn capture_lasts_longer_than_anything_else_may_and_ends_with_the_director() {
    let folder = tempfile::tempdir().unwrap();
    let director = Arc::new(Fixed::default());
    let server = serve(folder.path(), Arc::clone(&director));
    let mut received =
        receive(server.socket().path(), CAPTURES, r#"{"snap": 64}"#.to_owned()).await.unwrap();
    let mut cutter = BlockCutter::default();
    let begin = received.next().await.unwrap().unwrap();
    assert!(!cutter.cut(&begin).unwrap().is_empty());
    assert!(timeout(3 * CONNECTION_TIME_MAX, received.next()).await.is_err());
    pass(&director, 3);
    let more = received.next().await.unwrap().unwrap();
    cutter.cut(&more).unwrap();
    assert_eq!(cutter.packets(), 3);
    director.tap.close();
    while let Some(more) = received.next().await.unwrap() {
        cutter.cut(&more).unwrap();
    }
    let expected = CaptureStatistics { seen: 3, matched: 3, missed: 0, written: 3 };
    assert_eq!(cutter.statistics(), expected);
    open_captures(&director, 0).await;
}

#[tokio::test(start_paused = true)]
async fn capture_that_is_not_possible_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let director = Arc::new(Fixed::default());
    let server = serve(folder.path(), Arc::clone(&director));
    let mut captures = Vec::new();
    for (expected, reason, body) in [
        (404, "no service nobody", r#"{"service": "nobody"}"#),
        (400, "unknown field `sevice`", r#"{"sevice": "web"}"#),
        (400, "neither an address nor a network", r#"{"hosts": ["10.0.0"]}"#),
        (400, "64 to 262144", r#"{"snap": 0}"#),
    ] {
        let request = post(CAPTURES, "application/json", body);
        let (status, answer) = answer(&server, &request).await;
        assert_eq!(status, expected, "{answer}");
        assert!(answer.contains(reason), "{answer}");
    }
    for _ in 0..CAPTURES_MAX {
        let socket = server.socket().path();
        captures.push(receive(socket, CAPTURES, "{}".to_owned()).await.unwrap());
    }
    match receive(server.socket().path(), CAPTURES, "{}".to_owned()).await {
        Err(AskError::Refused { reason, .. }) => {
            assert!(reason.starts_with("4 captures are under way"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}
