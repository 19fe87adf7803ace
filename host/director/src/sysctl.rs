//! Kernel settings under /proc/sys, and the ledger from which changed ones are put back.
//!
//! A setting is named by its path below /proc/sys, `net/ipv4/ip_forward`: interface names may
//! contain dots. Settings below `net` are those of the calling thread's network namespace.

mod ledger;
mod state;

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

pub use ledger::{Ledger, LedgerError, LedgerLock};
pub use state::{FolderProblem, STATE_FOLDER};

/// The value of the setting `name`, without the line's end.
///
/// # Errors
/// The setting does not exist or may not be read.
pub fn read(name: &str) -> io::Result<String> {
    fs::read_to_string(path(name)).map(|value| value.trim_end().to_owned())
}

/// Sets `name` to `value`.
///
/// # Errors
/// The setting does not exist, may not be written, or does not take the value.
pub fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

/// The settings that match `directory/*/leaf`, sorted: one for each interface, as a rule.
///
/// # Errors
/// The directory cannot be read.
pub fn names_below(directory: &str, leaf: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path(directory))? {
        if let Some(interface) = entry?.file_name().to_str() {
            names.push(format!("{directory}/{interface}/{leaf}"));
        }
    }
    names.sort();
    Ok(names)
}

/// `name` as the program `sysctl` spells it: dots between the parts, slashes for dots within one.
#[derive(Clone, Copy, Debug)]
pub struct Spelled<'a>(pub &'a str);

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            f.write_str(match character {
                '/' => ".",
                '.' => "/",
                _ => {
                    write!(f, "{character}")?;
                    continue;
                }
            })?;
        }
        Ok(())
    }
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_the_program_sysctl_takes_them() {
        let spelled = Spelled("net/ipv4/conf/eth0.100/rp_filter").to_string();
        assert_eq!(spelled, "net.ipv4.conf.eth0/100.rp_filter");
    }
}
