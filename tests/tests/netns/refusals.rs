//! Starts that cannot work: exit status 1, one sentence that names the remedy, nothing touched.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use wvs::lab;

use crate::director::{DirectorProcess, Ended, WVS, command};
use crate::host_state::{assert_unchanged, host_state};
use crate::server::web_servers;
use crate::stage::{PORT, SERVER_PORT, Stage, run, run_well};

trials! {
    once second_director_on_the_same_device_is_refused,
    once device_that_persists_is_refused_and_stays,
    once missing_tun_driver_is_refused,
    once missing_rights_are_refused,
    once device_name_of_another_interface_is_refused,
    once vip_that_is_also_a_local_address_is_refused,
    once pool_address_that_is_also_a_local_address_is_refused,
    once vip_that_is_routed_elsewhere_is_refused,
    once unreachable_server_is_refused,
    once server_on_the_director_itself_is_refused,
    once read_only_settings_are_refused,
    once read_only_settings_that_are_right_already_are_left_alone,
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

fn device_that_persists_is_refused_and_stays() {
    let stage = Stage::new(1);
    for more in [&[][..], &["multi_queue"]] {
        let device = ["tuntap", "add", "dev", "wvs0", "mode", "tun"];
        run_well(&stage.lab.director, "ip", &[&device, more].concat());
        refuse(&stage, &stage.service(false, "rr"), "wvs0 is in use by another process");
        run_well(&stage.lab.director, "ip", &["link", "delete", "wvs0"]);
    }
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
        let sentence = format!("virtual address {vip} is also an address of this host");
        refuse(&stage, &service, &sentence);

        // Said before, too; on another host the same file may be right.
        let config = stage.configure("", &service);
        let check = run(&stage.lab.director, WVS, &["check", "-c", &config.to_string_lossy()]);
        assert!(check.status.success(), "{check:?}");
        assert!(String::from_utf8_lossy(&check.stderr).contains(&sentence), "{check:?}");
    }
}

fn pool_address_that_is_also_a_local_address_is_refused() {
    let stage = Stage::new(1);
    let service =
        stage.service(false, "rr") + "    forward: fullnat\n    pool: { addresses: [10.20.1.1] }\n";
    refuse(&stage, &service, "pool address 10.20.1.1 is also an address of this host");
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

/// As in a container whose settings were made from outside.
fn read_only_settings_that_are_right_already_are_left_alone() {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    stage.lab.director.run(|| {
        for (name, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/ip_early_demux", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
            ("net/ipv4/conf/default/accept_local", "1"),
        ] {
            wvs::sysctl::write(name, value).expect("a setting");
        }
    });
    let config = stage.configure("", &stage.service(false, "rr"));
    let director =
        DirectorProcess::start_command(&stage.lab.director, &mut with_read_only_settings(&config));
    assert_eq!(stage.who_answers(1, false), "server1");
    director.stop();
}

/// A director for which `/proc/sys` is mounted read-only.
fn with_read_only_settings(config: &Path) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-ec"]).arg(
        "mount --bind /proc/sys /proc/sys
        mount -o remount,bind,ro /proc/sys
        exec \"$0\" run -c \"$1\"",
    );
    unshare.arg(WVS).arg(config);
    unshare
}

fn read_only_settings_are_refused() {
    let stage = Stage::new(1);
    let before = host_state(&stage.lab.director);
    let config = stage.configure("", &stage.service(false, "rr"));
    let ended =
        DirectorProcess::try_command(&stage.lab.director, &mut with_read_only_settings(&config));
    assert_refused(&ended, "cannot set net.ipv4.ip_early_demux to 0: Read-only file system");
    // Routes and rules that were set before are taken back.
    assert_unchanged(&stage.lab.director, &before);
}
