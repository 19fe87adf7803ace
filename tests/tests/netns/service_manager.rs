//! What a service manager hears from a director.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::director::{DirectorProcess, WVS, command};
use crate::server::web_servers;
use crate::stage::{PATIENCE, SERVER_PORT, Stage, run, run_well, wait_until};

trials! {
    once service_manager_hears_of_start_reload_and_end,
    once service_manager_hears_why_a_start_failed,
    once service_manager_hears_that_a_director_is_alive_while_it_is,
}

/// The service manager's end of the socket.
pub(crate) struct Listener {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Listener {
    pub(crate) fn new(stage: &Stage) -> Self {
        let path = stage.folder().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { socket, path }
    }

    /// Has a director tell it.
    pub(crate) fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("NOTIFY_SOCKET", &self.path)
    }

    /// The next message.
    pub(crate) fn hear(&self) -> String {
        let mut octets = [0; 1_024];
        // Other tests of this process may have its signals handled, and the wait has a limit: such
        // a wait ends at each of them.
        let length = loop {
            match self.socket.recv(&mut octets) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.expect("a message"),
            }
        };
        String::from_utf8_lossy(&octets[..length]).into_owned()
    }

    /// Throws away what came so far.
    fn forget(&self) {
        self.socket.set_nonblocking(true).expect("a socket");
        while self.socket.recv(&mut [0; 1_024]).is_ok() {}
        self.socket.set_nonblocking(false).expect("a socket");
    }

    fn has_message(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        let result = self.socket.recv(&mut [0; 1_024]);
        self.socket.set_nonblocking(false).expect("a socket");
        !result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

fn service_manager_hears_of_start_reload_and_end() {
    let stage = Stage::new(2);
    let listener = Listener::new(&stage);
    let config = stage.configure("", &stage.service(false, "rr"));
    let director =
        DirectorProcess::start_command(&stage.lab.director, listener.tell(&mut command(&config)));
    assert_eq!(listener.hear(), "READY=1\nSTATUS=1 service, 2 real servers\n");

    director.signal(Signal::SIGHUP);
    let reloading = listener.hear();
    let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a time");
    assert!(micros.trim_end().parse::<u64>().is_ok_and(|micros| micros > 0), "{reloading}");
    assert_eq!(listener.hear(), "READY=1\nSTATUS=1 service, 2 real servers\n");

    // By the control socket, of which the service manager need not know.
    let text = fs::read_to_string(&config).unwrap();
    let (with_one_server, _) = text.trim_end().rsplit_once('\n').unwrap();
    fs::write(&config, with_one_server).unwrap();
    let socket = stage.socket_of("wvs");
    run_well(&stage.lab.director, WVS, &["reload", "--socket", &socket.to_string_lossy()]);
    assert_eq!(listener.hear(), "STATUS=1 service, 1 real server\n");

    fs::write(&config, "services: nonsense\n").unwrap();
    director.signal(Signal::SIGHUP);
    assert!(listener.hear().starts_with("RELOADING=1\n"));
    let refused = "READY=1\nSTATUS=1 service, 1 real server; the last reload was refused\n";
    assert_eq!(listener.hear(), refused);
    run(&stage.lab.director, WVS, &["reload", "--socket", &socket.to_string_lossy()]);
    assert_eq!(listener.hear(), refused.trim_start_matches("READY=1\n"));

    director.stop();
    assert!(listener.hear().starts_with("STOPPING=1\n"));
}

fn service_manager_hears_why_a_start_failed() {
    let stage = Stage::new(1);
    let listener = Listener::new(&stage);
    let config = stage.configure("device: { name: clients }", &stage.service(false, "rr"));
    let ended =
        DirectorProcess::try_command(&stage.lab.director, listener.tell(&mut command(&config)));
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    let status = listener.hear();
    assert!(status.starts_with("STATUS=a network device clients of another kind"), "{status}");
    assert!(!listener.has_message());
}

/// The thread with the packets stands still, as in a loop or a dead lock, while everything else runs.
fn service_manager_hears_that_a_director_is_alive_while_it_is() {
    const WATCHDOG: &str = "WATCHDOG=1\n";
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let listener = Listener::new(&stage);
    let config = stage.configure("device: { queues: 1 }", &stage.service(false, "rr"));
    let mut command = command(&config);
    listener.tell(&mut command).env("WATCHDOG_USEC", "200000");
    let director = DirectorProcess::start_command(&stage.lab.director, &mut command);
    assert!(listener.hear().starts_with("READY=1\n"));
    // With and without packets.
    assert_eq!(listener.hear(), WATCHDOG);
    assert_eq!(stage.who_answers(1, false), "server1");
    for _ in 0..3 {
        assert_eq!(listener.hear(), WATCHDOG);
    }

    let lines = || director.log().matches("queue 0 does not move").count();
    let before = lines();
    let stopped = Stopped::stop(packet_thread(director.pid()));
    wait_until("a line about it", || lines() > before);
    listener.forget();
    // Three times as long as the service manager waits.
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert!(!listener.has_message());
    drop(stopped);

    assert_eq!(listener.hear(), WATCHDOG);
    assert_eq!(stage.who_answers(2, false), "server1");
    director.stop();
}

/// A thread of another process that stands still until this is dropped, by the thread that stopped it.
struct Stopped(Pid);

impl Stopped {
    fn stop(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).expect("a thread to stop");
        let stopped = Self(thread);
        ptrace::interrupt(thread).expect("a thread to stop");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("a stopped thread");
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

fn packet_thread(pid: Pid) -> Pid {
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let task = tasks.find(|task| {
        let name = fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.starts_with("packets-0"))
    });
    let id = task.expect("a packet thread").file_name();
    Pid::from_raw(id.to_string_lossy().parse().expect("a number"))
}
