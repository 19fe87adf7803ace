//! Starts that cannot work: exit status 1, one sentence that names the remedy, nothing touched.

use std::net::IpAddr;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use wvs::lab;

use crate::director::{DirectorProcess, Ended, WVS, command};
use crate::host_state::{assert_unchanged, host_state};
use crate::stage::{PORT, SERVER_PORT, Stage, run_well};

trials! {
    once second_director_on_the_same_device_is_refused,
    once missing_tun_driver_is_refused,
    once missing_rights_are_refused,
    once device_name_of_another_interface_is_refused,
    once vip_that_is_also_a_local_address_is_refused,
    once vip_that_is_routed_elsewhere_is_refused,
    once unreachable_server_is_refused,
    once server_on_the_director_itself_is_refused,
    once read_only_settings_are_refused,
}

#[track_caller]
fn assert_refused(ended: &Ended, sentence: &str) {
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains(sentence), "{}", ended.log);
    let lines: Vec<_> = ended.log.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(lines.len(), 1, "not one sentence: {}", ended.log);
}

/// Starts a director that must be refused with `sentence` and leave the host as it was.
#[track_caller]
fn refuse(stage: &Stage, services: &str, sentence: &str) {
    let before = host_state(&stage.lab.director);
    let config = stage.configure("", services);
    let ended = DirectorProcess::try_start(&stage.lab.director, &config);
    assert_refused(&ended, sentence);
    assert_unchanged(&stage.lab.director, &before);
}

fn second_director_on_the_same_device_is_refused() {
    let stage = Stage::new(1);
    let director = stage.direct(&stage.service(false, "rr"));
    let before = host_state(&stage.lab.director);
    let config = stage.configure_as("other", "", &stage.service(false, "rr"));

    let ended = DirectorProcess::try_start(&stage.lab.director, &config);

    assert_refused(&ended, "wvs0 is in use by another process, probably a second director");
    assert_unchanged(&stage.lab.director, &before);
    director.stop();
}

fn missing_tun_driver_is_refused() {
    let stage = Stage::new(1);
    let config = stage.configure("", &stage.service(false, "rr"));
    let ended = stage.lab.director.run(|| {
        // An empty folder over /dev/net, for this thread and its children.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        mount(Some("none"), "/dev/net", Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .expect("a file system");
        // Children of this thread's begin where it is.
        let mut command = command(&config);
        let output = command.output().expect("wvs runs");
        Ended {
            code: output.status.code(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    });
    assert_refused(&ended, "/dev/net/tun is missing: load the driver with `modprobe tun`");
}

fn missing_rights_are_refused() {
    let stage = Stage::new(1);
    let config = stage.configure("", &stage.service(false, "rr"));
    let mut without_rights = Command::new("setpriv");
    without_rights.args(["--inh-caps=-all", "--bounding-set=-all", WVS, "run", "-c"]).arg(config);
    let ended = DirectorProcess::try_command(&stage.lab.director, &mut without_rights);
    assert_refused(&ended, "run as root or with the capability CAP_NET_ADMIN");
}

fn device_name_of_another_interface_is_refused() {
    let stage = Stage::new(1);
    let config = stage.configure("device: { name: clients }", &stage.service(false, "rr"));
    let ended = DirectorProcess::try_start(&stage.lab.director, &config);
    assert_refused(&ended, "a network device clients of another kind exists already");
}

fn vip_that_is_also_a_local_address_is_refused() {
    let stage = Stage::new(1);
    // By an address, and by a route that makes it one.
    let vips = [
        ("10.30.0.1", &["address", "add", "10.30.0.1/32", "dev", "clients"][..]),
        ("fd00:30::1", &["-6", "route", "add", "local", "fd00:30::1", "dev", "lo"]),
    ];
    for (vip, arguments) in vips {
        run_well(&stage.lab.director, "ip", arguments);
        let service = stage.service(vip.contains(':'), "rr");
        refuse(&stage, &service, &format!("virtual address {vip} is also an address of this host"));
    }
}

fn vip_that_is_routed_elsewhere_is_refused() {
    let stage = Stage::new(1);
    let vip = lab::VIP.to_string();
    run_well(&stage.lab.director, "ip", &["route", "add", &vip, "dev", "clients"]);
    let sentence = format!("this host has a route to exactly {vip} already");
    refuse(&stage, &stage.service(false, "rr"), &sentence);
}

fn unreachable_server_is_refused() {
    let stage = Stage::new(0);
    let vip: IpAddr = lab::VIP;
    let service = format!(
        "  - name: web\n    vip: {vip}\n    port: {PORT}\n    servers:\n      - {{ address: \
         10.99.0.1, port: {SERVER_PORT} }}\n"
    );
    refuse(&stage, &service, "no route to the real server 10.99.0.1:8080");
}

fn server_on_the_director_itself_is_refused() {
    let stage = Stage::new(0);
    let service = format!(
        "  - name: web\n    vip: {}\n    port: {PORT}\n    servers:\n      - {{ address: \
         10.10.0.1, port: {SERVER_PORT} }}\n",
        lab::VIP
    );
    refuse(&stage, &service, "the real server 10.10.0.1:8080 is an address of this host");
}

fn read_only_settings_are_refused() {
    let stage = Stage::new(1);
    let before = host_state(&stage.lab.director);
    let config = stage.configure("", &stage.service(false, "rr"));
    let ended = stage.lab.director.run(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let none = None::<&str>;
        mount(Some("/proc/sys"), "/proc/sys", none, MsFlags::MS_BIND, none).expect("a mount");
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, "/proc/sys", none, flags, none).expect("a mount");
        let output = command(&config).output().expect("wvs runs");
        Ended {
            code: output.status.code(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    });
    assert_refused(&ended, "cannot set net.ipv4.ip_early_demux to 0: Read-only file system");
    // Routes and rules that were set before are taken back.
    assert_unchanged(&stage.lab.director, &before);
}
