//! What settings were before a director changed them.
//!
//! One small file for each director in the state folder, written before each change, so that the
//! next start can put back what a crashed director could not. It is replaced by renaming; it is not
//! synced, because settings do not survive the loss of power either. What cannot be a director's
//! record is passed over with a warning: no file is worth a start.
//!
//! Settings belong to the host, not to a director: while another director lives in the same
//! network namespace, its ledger inherits what this one would have put back.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use super::state::{FolderProblem, StateFolder};
use super::{Spelled, read, write};

/// How often, and how long apart, a held lock is tried: for 10 s, while a start or a stop holds it
/// for milliseconds.
const LOCK_TRIES: u32 = 200;
const LOCK_TRY_INTERVAL: Duration = Duration::from_millis(50);

/// The lock file in the state folder.
const LOCK: &str = "routing.lock";

/// Settings of interfaces that directors change.
const CONF_LEAVES: [&str; 5] =
    ["accept_ra", "accept_redirects", "forwarding", "rp_filter", "send_redirects"];

/// What the names of ledgers begin with.
const PREFIX: &str = "sysctl-";

/// What the names of the ledgers of a network namespace end with.
fn suffix(world: &World) -> String {
    format!("-{}.json", world.namespace)
}

/// Why a setting could not be changed or put back.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The kernel did not take a value.
    #[error("cannot set {name} to {value}: {source}; set it yourself, or run with more rights", name = Spelled(name))]
    Setting {
        /// The setting.
        name: String,
        /// The value it should have got.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The state folder is not for a director alone.
    #[error("the state folder {path} {problem}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: FolderProblem,
    },
    /// A file of ours.
    #[error("cannot keep the settings to be put back in {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Another start or stop does not end.
    #[error("another director holds {path} for more than 10 s: see what hangs there", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
}

/// One director at a time may change settings and ledgers: this lock is held meanwhile.
#[derive(Debug)]
pub struct LedgerLock {
    folder: StateFolder,
    _lock: Flock<File>,
}

impl LedgerLock {
    /// Takes the lock of the state folder at `path`, which is made if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made or written, others may write to it, or the lock is not given up by
    /// another for 10 s.
    pub async fn take(path: &Path) -> Result<Self, LedgerError> {
        let folder = StateFolder::open(path)?;
        let path = folder.path_of(LOCK);
        let mut file = folder
            .open_lock(LOCK)
            .map_err(|source| LedgerError::File { path: path.clone(), source })?;
        for _ in 0..LOCK_TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { folder, _lock: lock }),
                Err((returned, _)) => file = returned,
            }
            tokio::time::sleep(LOCK_TRY_INTERVAL).await;
        }
        Err(LedgerError::Locked { path })
    }

    /// Puts back the settings of directors of this network namespace that are no more: a director
    /// lives as long as its device. `device` is the caller's own, whose earlier ledger is left over
    /// too. Returns how many ledgers were found.
    ///
    /// # Errors
    /// See [`LedgerError`]; ledgers not yet come to stay for another try.
    pub fn put_back_left_over(&self, device: &str) -> Result<usize, LedgerError> {
        let ledgers = self.ledgers()?;
        let (alive, left_over): (Vec<_>, Vec<_>) = ledgers
            .into_iter()
            .partition(|ledger| ledger.is_alive() && ledger.record.device != device);
        let count = left_over.len();
        let mut heir = alive.into_iter().next();
        for ledger in left_over {
            ledger.put_back_or_leave_to(heir.as_mut())?;
        }
        Ok(count)
    }

    /// Starts the ledger of the director whose device is `device`, replacing an earlier one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(&self, device: &str) -> Result<Ledger, LedgerError> {
        let world = World::here()?;
        let name = format!("{PREFIX}{device}{}", suffix(&world));
        let record = Record { world, device: device.to_owned(), changes: Vec::new() };
        let ledger = Ledger { folder: self.folder.clone(), name, record };
        ledger.save()?;
        Ok(ledger)
    }

    /// Reads `ledger` again: another director may have left its own to it.
    pub fn refresh(&self, ledger: &mut Ledger) {
        if let Some(refreshed) = Ledger::load(&self.folder, &ledger.name) {
            *ledger = refreshed;
        }
    }

    /// Puts the settings `names` of `ledger` back, or leaves them to another living director's ledger,
    /// and forgets them. Names that the ledger does not have are passed over.
    ///
    /// # Errors
    /// See [`LedgerError`]. What was not put back stays in the ledger.
    pub fn give_back(&self, ledger: &mut Ledger, names: &[String]) -> Result<(), LedgerError> {
        let Some(mut heir) = self.heir_of(ledger)? else { return self.put_back(ledger, names) };
        heir.inherit(ledger.take(names))?;
        ledger.save()
    }

    /// Puts the settings `names` of `ledger` back, whoever else there is, and forgets them: for what
    /// was changed under this very lock, so that nobody can need it yet.
    ///
    /// # Errors
    /// See [`LedgerError`]. What was not put back stays in the ledger.
    pub fn put_back(&self, ledger: &mut Ledger, names: &[String]) -> Result<(), LedgerError> {
        let mut changes = ledger.take(names);
        let mut result = Ok(());
        while let Some(change) = changes.pop() {
            result = change.put_back();
            if result.is_err() {
                changes.push(change);
                break;
            }
        }
        ledger.inherit(changes)?;
        result
    }

    /// Puts back what `ledger` holds, or leaves it to another living director's ledger.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn close(&self, ledger: Ledger) -> Result<(), LedgerError> {
        // Another director may have left its own to ours meanwhile.
        let ledger = Ledger::load(&self.folder, &ledger.name).unwrap_or(ledger);
        let mut heir = self.heir_of(&ledger)?;
        ledger.put_back_or_leave_to(heir.as_mut())
    }

    /// The ledger of another living director.
    fn heir_of(&self, ledger: &Ledger) -> Result<Option<Ledger>, LedgerError> {
        let mut others = self.ledgers()?.into_iter();
        Ok(others.find(|other| other.name != ledger.name && other.is_alive()))
    }

    /// The ledgers of this boot and network namespace.
    fn ledgers(&self) -> Result<Vec<Ledger>, LedgerError> {
        let here = World::here()?;
        let names = self.folder.names()?;
        let ledgers = names
            .iter()
            .filter(|name| name.starts_with(PREFIX) && name.ends_with(&suffix(&here)))
            .filter_map(|name| Ledger::load(&self.folder, name))
            .filter(|ledger| ledger.record.world == here)
            .collect();
        Ok(ledgers)
    }
}

/// The settings that one director changed.
#[derive(Debug)]
pub struct Ledger {
    folder: StateFolder,
    name: String,
    record: Record,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    world: World,
    device: String,
    changes: Vec<Change>,
}

/// Where values are worth putting back: in the same network namespace of the same boot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct World {
    boot: String,
    namespace: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Change {
    name: String,
    was: String,
    set: String,
    /// Settings that the kernel changes along with this one, and what they were.
    along: Vec<(String, String)>,
}

impl Record {
    /// Keeps what a director can have changed: other names, even as part of a path, are not
    /// written to whatever the record says.
    fn drop_foreign_names(&mut self, path: &Path) {
        let is_known = |name: &str| {
            let is_known = is_changed_by_directors(name);
            if !is_known {
                let path = path.display();
                tracing::warn!(%path, name, "passed over a setting that no director changes");
            }
            is_known
        };
        self.changes.retain(|change| is_known(&change.name));
        for change in &mut self.changes {
            change.along.retain(|(name, _)| is_known(name));
        }
    }
}

/// Whether directors change the setting `name`, by themselves or along with another.
fn is_changed_by_directors(name: &str) -> bool {
    let Some(name) = name.strip_prefix("net/") else { return false };
    match name.split('/').collect::<Vec<_>>()[..] {
        ["ipv4", "ip_forward" | "ip_early_demux"] => true,
        ["ipv4" | "ipv6", "conf", interface, leaf] => {
            is_interface(interface) && CONF_LEAVES.contains(&leaf)
        }
        _ => false,
    }
}

/// Whether `name` can be the name of an interface, by the kernel's rules for it.
fn is_interface(name: &str) -> bool {
    let is_foreign = |octet: u8| octet == b':' || octet.is_ascii_whitespace() || octet == 0;
    !matches!(name, "" | "." | "..") && name.len() < 16 && !name.bytes().any(is_foreign)
}

impl World {
    fn here() -> Result<Self, LedgerError> {
        let read = |path: &str| {
            fs::read_to_string(path)
                .map_err(|source| LedgerError::File { path: path.into(), source })
        };
        let boot = read("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
        let path = "/proc/thread-self/ns/net";
        let namespace = fs::metadata(path)
            .map_err(|source| LedgerError::File { path: path.into(), source })
            .map(|metadata| std::os::unix::fs::MetadataExt::ino(&metadata))?;
        Ok(Self { boot, namespace })
    }
}

impl Ledger {
    /// Sets `name` to `value` and remembers what it was, and what the settings `along` were, which
    /// the kernel changes with it. Nothing happens when it has the value already.
    ///
    /// # Errors
    /// See [`LedgerError`]; the setting is then as it was.
    pub fn set(&mut self, name: &str, value: &str, along: &[String]) -> Result<(), LedgerError> {
        let mut names = along.iter().map(String::as_str).chain([name]);
        debug_assert!(names.all(is_changed_by_directors), "{name} would never be put back");
        let failed = |source| LedgerError::Setting {
            name: name.to_owned(),
            value: value.to_owned(),
            source,
        };
        let was = read(name).map_err(failed)?;
        if was == value {
            return Ok(());
        }
        // A setting that cannot be read, of an interface that is just going away, has nothing to
        // be put back.
        let along = along
            .iter()
            .filter_map(|name| read(name).ok().map(|was| (name.clone(), was)))
            .collect();
        let (name, set) = (name.to_owned(), value.to_owned());
        self.record.changes.push(Change { name: name.clone(), was, set, along });
        self.save()?;
        write(&name, value).map_err(failed)
    }

    /// What cannot be a director's ledger is put aside: the next load does not find it again.
    fn load(folder: &StateFolder, name: &str) -> Option<Self> {
        let record = folder
            .read(name)
            .and_then(|text| serde_json::from_slice::<Record>(&text).map_err(io::Error::from));
        let path = folder.path_of(name);
        match record {
            Ok(mut record) => {
                record.drop_foreign_names(&path);
                Some(Self { folder: folder.clone(), name: name.to_owned(), record })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "put aside a state file that is of no use");
                if let Err(error) = folder.put_aside(name) {
                    tracing::warn!(%path, %error, "could not put it aside: remove it");
                }
                None
            }
        }
    }

    fn save(&self) -> Result<(), LedgerError> {
        let saved = serde_json::to_vec(&self.record)
            .map_err(io::Error::from)
            .and_then(|text| self.folder.replace(&self.name, &text));
        saved.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> LedgerError {
        LedgerError::File { path: self.folder.path_of(&self.name), source }
    }

    fn is_alive(&self) -> bool {
        if_nametoindex(self.record.device.as_str()).is_ok()
    }

    /// The changes of the settings `names`, which the record has no longer, while the file does.
    fn take(&mut self, names: &[String]) -> Vec<Change> {
        let (taken, kept) = std::mem::take(&mut self.record.changes)
            .into_iter()
            .partition(|change| names.contains(&change.name));
        self.record.changes = kept;
        taken
    }

    /// Takes over `changes`, which were before its own.
    fn inherit(&mut self, mut changes: Vec<Change>) -> Result<(), LedgerError> {
        changes.append(&mut self.record.changes);
        self.record.changes = changes;
        self.save()
    }

    fn put_back_or_leave_to(mut self, heir: Option<&mut Self>) -> Result<(), LedgerError> {
        match heir {
            Some(heir) => heir.inherit(std::mem::take(&mut self.record.changes))?,
            None => {
                for change in self.record.changes.iter().rev() {
                    change.put_back()?;
                }
            }
        }
        match self.folder.remove(&self.name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }
}

impl Change {
    /// A value that somebody changed since is theirs and stays, and so does that of an interface
    /// that is gone.
    fn put_back(&self) -> Result<(), LedgerError> {
        if read(&self.name).ok().as_ref() != Some(&self.set) {
            return Ok(());
        }
        let failed = |source| LedgerError::Setting {
            name: self.name.clone(),
            value: self.was.clone(),
            source,
        };
        write(&self.name, &self.was).map_err(failed)?;
        for (name, was) in &self.along {
            if read(name).is_ok_and(|value| value != *was) {
                let _ = write(name, was);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_settings_that_directors_change_are_believed() {
        for name in [
            "net/ipv4/ip_forward",
            "net/ipv4/ip_early_demux",
            "net/ipv4/conf/all/rp_filter",
            "net/ipv4/conf/eth0.100/send_redirects",
            "net/ipv6/conf/br-0@lan/accept_ra",
        ] {
            assert!(is_changed_by_directors(name), "{name}");
        }
        for name in [
            "/tmp/x",
            "kernel/core_pattern",
            "net/core/somaxconn",
            "net/ipv4/tcp_syncookies",
            "net/../kernel/core_pattern",
            "net/ipv4/conf/../ip_forward",
            "net/ipv4/conf/./rp_filter",
            "net/ipv4/conf//rp_filter",
            "net/ipv4/conf/all/../../../../kernel/core_pattern",
            "net//tmp/forwarding",
            "net/ipv4/conf/all/arp_ignore",
            "net/ipv4/conf/all/rp_filter/",
            "",
        ] {
            assert!(!is_changed_by_directors(name), "{name}");
        }
    }

    #[tokio::test]
    async fn garbage_is_put_aside() {
        let outer = TempDir::new().unwrap();
        let lock = LedgerLock::take(outer.path()).await.unwrap();
        let suffix = suffix(&World::here().unwrap());
        let name = format!("{PREFIX}wvs0{suffix}");
        for garbage in ["", "{", "null", "{\"boot\": 1}"] {
            fs::write(outer.path().join(&name), garbage).unwrap();
            assert!(lock.ledgers().unwrap().is_empty());
            assert!(!outer.path().join(&name).exists());
            assert!(outer.path().join(format!("{name}.bad")).exists());
        }
        lock.open("wvs0").unwrap();
        assert_eq!(lock.ledgers().unwrap().len(), 1);
    }
}
