//! The configuration that the demo's director runs with, as a file like any other.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{DemoError, WEIGHTS, failed};
use crate::config::{Config, Reading};
use crate::lab;

/// The name of the one service.
pub(super) const SERVICE: &str = "demo";

/// Its port, and that of the real servers.
pub(super) const PORT: u16 = 80;
pub(super) const SERVER_PORT: u16 = 8080;

/// In the lab's private `/run`, so that it vanishes with the process.
const FILE: &str = "/run/wvs/demo.yaml";

/// Writes the configuration and reads it as `wvs run` would.
pub(super) fn write(scheduler: Option<&Path>) -> Result<Config, DemoError> {
    let text = text(scheduler);
    let path = Path::new(FILE);
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(failed("make a folder in the private /run"))?;
    fs::write(path, text).map_err(failed("write the configuration"))?;
    let (config, _) = Reading::of_file(path).into_config()?;
    Ok(config)
}

fn text(scheduler: Option<&Path>) -> String {
    let mut text = String::new();
    let scheduler = match scheduler {
        // A JSON string is a YAML string, whatever is in it.
        Some(file) => {
            let file = serde_json::Value::from(file.to_string_lossy());
            let _ = writeln!(text, "plugins:\n  yours: {{ file: {file} }}\n");
            "yours"
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
    scheduler: {scheduler}
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
        for scheduler in [None, Some(Path::new("/tmp/a \"b\": c.wasm"))] {
            let reading = Reading::of_text(Path::new("demo.yaml"), &text(scheduler));
            assert!(reading.problems().is_empty(), "{reading}");
        }
    }
}
