//! What a running director may do, and that it is enough.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use wvs::sysctl::STATE_FOLDER;

use crate::director::{DirectorProcess, WVS};
use crate::host_state::{assert_unchanged, host_state};
use crate::server::web_servers;
use crate::stage::{SERVER_PORT, Stage, has_other_users};

trials! {
    once every_thread_has_only_the_rights_that_a_director_needs,
    once ordinary_user_with_two_capabilities_runs_a_director_and_takes_everything_back,
}

const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const BPF: u64 = 1 << 39;

/// A user without any rights, by convention.
const NOBODY: u32 = 65_534;

/// The sets of a thread's capabilities as the kernel shows them.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    permitted: u64,
    effective: u64,
    inheritable: u64,
    bounding: u64,
    ambient: u64,
    has_no_new_privileges: bool,
}

impl Rights {
    /// Exactly these, and no way to others.
    fn exactly(capabilities: u64) -> Self {
        Self {
            permitted: capabilities,
            effective: capabilities,
            inheritable: 0,
            bounding: capabilities,
            ambient: 0,
            has_no_new_privileges: true,
        }
    }

    fn of(status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
            u64::from_str_radix(line.trim(), 16).expect("a number")
        };
        Self {
            permitted: field("CapPrm:"),
            effective: field("CapEff:"),
            inheritable: field("CapInh:"),
            bounding: field("CapBnd:"),
            ambient: field("CapAmb:"),
            has_no_new_privileges: field("NoNewPrivs:") == 1,
        }
    }
}

/// The rights of each thread of a director.
fn threads(director: &DirectorProcess) -> Vec<Rights> {
    let tasks = fs::read_dir(format!("/proc/{}/task", director.pid())).expect("it runs");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status"));
    tasks.map(|task| Rights::of(&task.and_then(status).expect("a thread"))).collect()
}

fn every_thread_has_only_the_rights_that_a_director_needs() {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let director = stage.direct(&stage.service(false, "rr"));
    assert_eq!(stage.who_answers(1, false), "server1");
    let threads = threads(&director);
    // The control loop, the log and a queue, at the least.
    assert!(threads.len() >= 3, "{threads:#x?}");
    for rights in threads {
        assert_eq!(rights, Rights::exactly(NET_ADMIN | NET_BIND_SERVICE | BPF), "{rights:#x?}");
    }
    director.stop();
}

/// Nothing that a director does needs root: not settings, not routes.
fn ordinary_user_with_two_capabilities_runs_a_director_and_takes_everything_back() {
    if !has_other_users() {
        return;
    }
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let before = host_state(&stage.lab.director);
    let config = stage.configure("device: { queues: 2 }", &stage.service(false, "rr"));
    chown(stage.folder(), Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let director = stage.lab.director.run(|| {
        // A state folder and a device that belong to that user, for this thread and its children.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        fs::create_dir_all(STATE_FOLDER).unwrap();
        let own = format!("mode=755,uid={NOBODY}");
        mount(Some("none"), STATE_FOLDER, Some("tmpfs"), MsFlags::empty(), Some(own.as_str()))
            .expect("a state folder");
        mount(Some("none"), "/dev/net", Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .expect("a folder of devices");
        let node = ["-m", "666", "/dev/net/tun", "c", "10", "200"];
        assert!(Command::new("mknod").args(node).status().is_ok_and(|status| status.success()));
        let mut as_nobody = Command::new("setpriv");
        as_nobody
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--inh-caps=+net_admin,+bpf", "--ambient-caps=+net_admin,+bpf"])
            .args([WVS, "run", "-c"])
            .arg(&config);
        DirectorProcess::start_here(&mut as_nobody)
    });

    assert_eq!(stage.who_answers(1, false), "server1");
    for rights in threads(&director) {
        assert_eq!(rights.effective, NET_ADMIN | BPF, "{rights:#x?}");
        assert_eq!(rights.permitted, NET_ADMIN | BPF, "{rights:#x?}");
        assert_eq!((rights.ambient, rights.inheritable), (0, 0), "{rights:#x?}");
        assert!(rights.has_no_new_privileges);
    }
    director.stop();
    assert_unchanged(&stage.lab.director, &before);
}
