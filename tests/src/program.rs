//! The program as people call it: words in, words out, exit status.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program under test, `CARGO_BIN_EXE_wvs-under-test`, with nothing of the caller's about it
/// that would change what it says.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    for name in ["COLUMNS", "WVS_LOG"] {
        command.env_remove(name);
    }
    command
}

/// Runs it and shows everything that came of it, with `folder` written as `FOLDER`.
///
/// # Panics
/// When it cannot be run, or says what is no text.
pub fn show(command: &mut Command, folder: &Path) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let code = status.code().map_or_else(|| "none".to_owned(), |code| code.to_string());
    let [stdout, stderr] = [stdout, stderr].map(|octets| String::from_utf8(octets).unwrap());
    let mut text = format!("exit status: {code}\n");
    for (name, octets) in [("stdout", stdout), ("stderr", stderr)] {
        if !octets.is_empty() {
            text += &format!("--- {name}\n{octets}");
        }
    }
    text.replace(folder.to_str().unwrap(), "FOLDER").replace("wvs-under-test", "wvs")
}
