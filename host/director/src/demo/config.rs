//! The configuration that the demo's director runs with, as a file like any other.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use wvs_plugin::builtin;

use super::{DemoError, WEIGHTS, failed};
use crate::config::{self, Config, Reading};
use crate::lab;

/// The name of the one service.
pub(super) const SERVICE: &str = "demo";

/// Its port, and that of the real servers.
pub(super) const PORT: u16 = 80;
pub(super) const SERVER_PORT: u16 = 8080;

/// In the lab's private `/run`, so that it vanishes with the process.
const FILE: &str = "/run/wvs/demo.yaml";

/// Where the configuration is.
pub(super) fn file() -> &'static Path {
    Path::new(FILE)
}

/// Writes the configuration and reads it as `wvs run` would.
pub(super) fn write(scheduler: Option<&Path>) -> Result<Config, DemoError> {
    let text = text(scheduler);
    let path = file();
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(failed("make a folder in the private /run"))?;
    fs::write(path, text).map_err(failed("write the configuration"))?;
    let (mut config, _) = Reading::of_file(path).into_config()?;
    // What a plugin that fails costs is shown without its predecessor's help.
    for service in &mut config.services {
        service.scheduler.probation = 0;
    }
    Ok(config)
}

/// The file's name without its ending, where that can be a plugin's name.
fn plugin_name(file: &Path) -> &str {
    file.file_stem()
        .and_then(OsStr::to_str)
        .filter(|stem| config::is_name(stem) && !builtin::NAMES.contains(stem))
        .unwrap_or("yours")
}

fn text(scheduler: Option<&Path>) -> String {
    let mut text = String::new();
    let scheduler = match scheduler {
        // A JSON string is a YAML string, whatever is in it.
        Some(file) => {
            let name = plugin_name(file);
            let file = serde_json::Value::from(file.to_string_lossy());
            let _ = writeln!(text, "plugins:\n  \"{name}\": {{ file: {file} }}\n");
            name
        }
        None => "rr",
    };
    let _ = write!(
        text,
        "services:
  - name: {SERVICE}
    vip: {vip}
    port: {PORT}
    protocol: tcp
    scheduler: \"{scheduler}\"
    # Closed connections are soon forgotten here, so that what is shown for one scheduler does not
    # come from the one before.
    timeouts: {{ fin_wait: 1s, time_wait: 1s, close: 1s, close_wait: 1s, last_ack: 1s }}
    servers:
",
        vip = lab::VIP
    );
    for (number, weight) in (1..).zip(WEIGHTS) {
        let address = lab::server_address(number, false);
        let _ = writeln!(
            text,
            "      - {{ address: {address}, port: {SERVER_PORT}, weight: {weight} }}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_of_the_demo_has_no_problem() {
        for (file, name) in [
            (None, "rr"),
            (Some("/tmp/a \"b\": c.wasm"), "yours"),
            (Some("/tmp/wlc.wasm"), "yours"),
            (Some("/tmp/010.wasm"), "010"),
            (Some("/tmp/two_choices.wasm"), "two_choices"),
        ] {
            let reading = Reading::of_text(Path::new("demo.yaml"), &text(file.map(Path::new)));
            assert!(reading.problems().is_empty(), "{reading}");
            assert_eq!(reading.config().services[0].scheduler.plugin, name);
        }
    }
}
