//! What the director may do, and gives up before it has to do with anybody.
//!
//! Capabilities belong to a thread, and no other thread can take them from it. So they are given up before
//! there is a second thread, and what is kept is what a director needs at its start, while it runs and at its
//! end: each of these makes and removes routes and rules and writes settings.
//!
//! | kept | for |
//! | --- | --- |
//! | `CAP_NET_ADMIN` | the device, routes and rules, and settings below `/proc/sys/net`, which it makes its holder's own whoever that is |
//! | `CAP_BPF` | the program that leads connections to queues; without it there is one queue |
//! | `CAP_NET_BIND_SERVICE` | ports below 1024 |
//! | `CAP_DAC_READ_SEARCH` | a configuration that its own user could not read otherwise, and only then |

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use nix::unistd::{Gid, getegid, getgroups};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs, set_thread_groups,
};

/// What a director always needs.
const NEEDED: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::BPF).union(CapabilitySet::NET_BIND_SERVICE);

/// Numbers that capabilities can have. Those that the kernel does not have are at the end.
const NUMBERS: u32 = 64;

/// The capabilities that a director needs, as the kernel's documentation names them, without `CAP_`.
pub fn needed() -> impl Iterator<Item = &'static str> {
    NEEDED.iter_names().map(|(name, _)| name)
}

/// Whether this thread has a capability. One that the kernel does not tell about is not missed.
pub(crate) fn has(capability: CapabilitySet) -> bool {
    capabilities(None).map_or(true, |sets| sets.effective.contains(capability))
}

/// What was not given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept(CapabilitySet);

impl Kept {
    /// Whether any file can be read.
    #[must_use]
    pub fn is_reading_anything(self) -> bool {
        self.0.contains(CapabilitySet::DAC_READ_SEARCH)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter_names().map(|(name, _)| format!("CAP_{name}"));
        f.write_str(&names.collect::<Vec<_>>().join(" "))
    }
}

/// Makes this process a member of a group besides its others, so that it may give files of its own to the group
/// without a right to give away any file. To be called before [`give_up`], while this process has one thread.
///
/// # Errors
/// Not allowed, and no member yet.
pub fn join(group: Gid) -> io::Result<()> {
    let mut groups = getgroups()?;
    if getegid() == group || groups.contains(&group) {
        return Ok(());
    }
    groups.push(group);
    let groups: Vec<_> =
        groups.into_iter().map(|group| rustix::thread::Gid::from_raw(group.as_raw())).collect();
    Ok(set_thread_groups(&groups)?)
}

/// Gives up every right but those that a director with the configuration `file` needs, and returns these:
/// from the permitted and effective capabilities, and from what programs that it starts could ever get. They
/// get none, even when root runs them, nor anything by set-user-ID bits. To be called while this process has
/// one thread.
///
/// # Errors
/// The kernel refuses. It has no reason to.
pub fn give_up(file: &Path) -> io::Result<Kept> {
    let held = capabilities(None)?;
    // What may be raised again as long as it is permitted.
    let lower = |effective| {
        let inheritable = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective, permitted: held.permitted, inheritable })
    };
    let mut kept = held.permitted & NEEDED;
    lower(kept)?;
    if held.permitted.contains(CapabilitySet::DAC_READ_SEARCH) && is_unreadable(file) {
        kept |= CapabilitySet::DAC_READ_SEARCH;
    }
    if held.permitted.contains(CapabilitySet::SETPCAP) {
        lower(kept | CapabilitySet::SETPCAP)?;
        bound(kept)?;
    }
    clear_ambient_capability_set()?;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    set_no_new_privs(true)?;
    Ok(Kept(kept))
}

/// Makes it impossible to get any capability but those `kept`, by whatever program. Others than root need not:
/// without new privileges there is no way for them.
fn bound(kept: CapabilitySet) -> io::Result<()> {
    let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    set_capabilities_secure_bits(capabilities_secure_bits()? | bits)?;
    for number in 0..NUMBERS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(capability) && remove_capability_from_bounding_set(capability).is_err() {
            // The first number that the kernel does not know.
            break;
        }
    }
    Ok(())
}

fn is_unreadable(file: &Path) -> bool {
    File::open(file).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::process::Command;
    use std::thread;

    use tempfile::TempDir;

    use super::*;

    /// On a thread of its own, whose rights no other thread shares.
    fn after_giving_up<T: Send>(file: &Path, look: impl FnOnce(Kept) -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(|| look(give_up(file).unwrap())).join().unwrap())
    }

    fn field(status: &str, name: &str) -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    #[test]
    fn what_is_kept_is_what_the_kernel_says_and_cannot_be_had_back() {
        let held = capabilities(None).unwrap().permitted;
        after_giving_up(Path::new("/dev/null"), |kept| {
            assert_eq!(kept.0, held & NEEDED);
            let sets = capabilities(None).unwrap();
            assert_eq!((sets.permitted, sets.effective), (kept.0, kept.0));
            let more = CapabilitySets { effective: kept.0 | CapabilitySet::CHOWN, ..sets };
            assert!(set_capabilities(None, more).is_err());
        });
        assert_eq!(capabilities(None).unwrap().permitted, held);
    }

    #[test]
    fn programs_that_are_started_afterwards_get_nothing_even_as_root() {
        let status = after_giving_up(Path::new("/dev/null"), |_| {
            let output = Command::new("cat").arg("/proc/self/status").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        for name in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(field(&status, name), 0, "{status}");
        }
        assert_eq!(field(&status, "NoNewPrivs"), 1, "{status}");
    }

    #[test]
    fn group_that_was_joined_can_be_given_files_and_no_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        thread::scope(|scope| {
            let joined = scope.spawn(|| {
                // Only root can join.
                join(Gid::from_raw(65_533)).ok()?;
                give_up(Path::new("/dev/null")).unwrap();
                let give = |number| chown(file.path(), None, Some(number));
                Some((give(65_533).is_ok(), give(65_532).is_ok()))
            });
            assert!(matches!(joined.join().unwrap(), None | Some((true, false))));
        });
    }

    #[test]
    fn only_a_file_of_somebody_elses_keeps_the_right_to_read_it() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("wvs.yaml");
        fs::write(&file, "").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!after_giving_up(&file, Kept::is_reading_anything));
        // Only root can give a folder away.
        if chown(folder.path(), Some(65_534), None).is_ok() {
            after_giving_up(&file, |kept| {
                assert!(kept.is_reading_anything(), "{kept}");
                fs::read(&file).unwrap();
            });
        }
    }
}
