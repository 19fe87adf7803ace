//! On what it was measured, and against which versions.

use std::fs;
use std::process::Command;

/// Processors, kernel and date, in one line.
pub(crate) fn describe() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What a distributor calls its build is nobody's business here.
    let kernel = release.trim().split(['-', '+']).next().unwrap_or_default();
    let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        line.split_once(": ").map(|(_, name)| name.trim().to_owned())
    });
    let processor = processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let date = first_line(Command::new("date").args(["-u", "+%F"]));
    format!("{} × {processor}, Linux {kernel}, {date}", crate::processors())
}

/// The versions of the peers that there are.
pub(crate) fn versions() -> String {
    let versions = [
        first_line(Command::new("nft").arg("--version")),
        first_line(Command::new("haproxy").arg("-v")),
        first_line(Command::new("nginx").arg("-v")),
        first_line(Command::new("iperf3").arg("--version")),
    ];
    let versions = versions.iter().filter(|version| !version.is_empty()).map(|version| {
        let words: Vec<&str> = version.split_whitespace().collect();
        // "HAProxy version 2.6.12-1 2026/10/17 - ..." and "nginx version: nginx/1.22.1"
        let number = words
            .iter()
            .find(|word| word.contains(|c: char| c.is_ascii_digit()) && word.contains('.'));
        let number = number.map_or("", |word| word.rsplit('/').next().unwrap_or(word));
        format!("{} {number}", words.first().map_or("", |word| word.trim_end_matches(':')))
    });
    versions.collect::<Vec<_>>().join(", ")
}

/// Of either output; empty where the program is missing.
fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return String::new() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}
