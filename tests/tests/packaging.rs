//! What the package has beside the program, held against the program. `packaging/test-deb.sh` installs it.

use std::fs;
use std::path::Path;
use std::process::Command;

const WVS: &str = env!("CARGO_BIN_EXE_wvs-under-test");

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn unit() -> String {
    fs::read_to_string(workspace().join("packaging/wvs.service")).unwrap()
}

/// The values of a setting, as often as it is there.
fn values<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

#[test]
fn configuration_of_the_package_is_good_and_touches_nobody() {
    let file = workspace().join("packaging/wvs.yaml");
    let output = Command::new(WVS).arg("check").arg("-c").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Blocks for documentation, RFC 5737.
    for line in fs::read_to_string(file).unwrap().lines().filter(|line| !line.starts_with('#')) {
        if line.contains("vip:") || line.contains("address:") {
            assert!(line.contains("192.0.2.") || line.contains("203.0.113."), "{line}");
        }
    }
}

#[test]
fn unit_gives_the_rights_that_a_director_keeps_and_no_others() {
    let unit = unit();
    let mut kept: Vec<String> = wvs::rights::needed().map(|name| format!("CAP_{name}")).collect();
    kept.sort();
    for name in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        let [value] = values(&unit, name)[..] else { panic!("{name}") };
        let mut given: Vec<_> = value.split_whitespace().collect();
        given.sort_unstable();
        assert_eq!(given, kept, "{name}");
    }
}

/// Each would stop a director in a way that only a host with systemd shows.
#[test]
fn unit_does_not_take_what_a_director_needs() {
    let unit = unit();
    for name in
        ["MemoryDenyWriteExecute", "ProtectKernelTunables", "PrivateNetwork", "PrivateDevices"]
    {
        assert!(values(&unit, name).is_empty(), "{name}");
    }
    assert_eq!(values(&unit, "Type"), ["notify"]);
    // Without, what a crashed director left could not be put back.
    assert_eq!(values(&unit, "RuntimeDirectoryPreserve"), ["yes"]);
}

#[test]
fn commands_of_the_unit_exist() {
    let unit = unit();
    for name in ["ExecStart", "ExecReload"] {
        let [line] = values(&unit, name)[..] else { panic!("{name}") };
        let words = line.strip_prefix("/usr/bin/wvs ").unwrap();
        let output = Command::new(WVS).args(words.split(' ')).arg("--help").output().unwrap();
        assert!(output.status.success(), "{line}");
    }
}

#[test]
fn files_of_the_package_exist() {
    let manifest = fs::read_to_string(workspace().join("host/director/Cargo.toml")).unwrap();
    let assets = manifest.split("[\"../../").skip(1).map(|rest| rest.split('"').next().unwrap());
    let mut found = 0;
    for asset in assets.filter(|asset| !asset.starts_with("target/package/")) {
        let path = workspace().join(asset);
        let place = if asset.contains('*') { path.parent().unwrap() } else { &path };
        assert!(place.exists(), "{asset}");
        found += 1;
    }
    assert!(found >= 5, "{found}");
}
