//! The demo, as far as it does not go as planned. That it goes as planned, `.ci/run` tries.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::director::WVS;

trials! {
    once interrupted_demo_takes_everything_down,
    once demo_without_rights_says_what_would_help,
    once demo_of_a_file_that_is_no_plugin_is_refused,
}

fn interrupted_demo_takes_everything_down() {
    let mut demo = Command::new(WVS)
        .arg("demo")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wvs runs");
    let mut lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines();
    let first = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("rr: ")));
    assert!(first.is_some(), "the demo does not begin");

    kill(Pid::from_raw(demo.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    let output = demo.wait_with_output().unwrap();

    assert_eq!(output.status.code(), Some(1), "{rest:?} {output:?}");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(complaint, "wvs: interrupted; everything was taken down\n");
}

fn demo_without_rights_says_what_would_help() {
    let complaint = refuse(Command::new("setpriv").args([
        "--inh-caps=-all",
        "--bounding-set=-all",
        WVS,
        "demo",
    ]));
    assert!(complaint.contains("does not allow network namespaces here"), "{complaint}");
    assert!(complaint.contains("run as root, or allow them to users"), "{complaint}");
}

fn demo_of_a_file_that_is_no_plugin_is_refused() {
    let complaint = refuse(Command::new(WVS).args(["demo", "--scheduler", "/proc/version"]));
    assert!(complaint.contains("this is no WebAssembly module"), "{complaint}");
}

fn refuse(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    complaint
}
