//! What settings were before a director changed them.
//!
//! One small file for each director in its state directory, written before each change, so that
//! the next start can put back what a crashed director could not. It is replaced by renaming; it
//! is not synced, because settings do not survive the loss of power either.
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

use super::{Spelled, read, write};

/// How often, and how long apart, a held lock is tried: for 10 s, while a start or a stop holds it
/// for milliseconds.
const LOCK_TRIES: u32 = 200;
const LOCK_TRY_INTERVAL: Duration = Duration::from_millis(50);

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
    directory: PathBuf,
    _lock: Flock<File>,
}

impl LedgerLock {
    /// Takes the lock of the state directory `directory`, which is made if it is missing.
    ///
    /// # Errors
    /// The directory cannot be made or written, or the lock is not given up by another for 10 s.
    pub async fn take(directory: &Path) -> Result<Self, LedgerError> {
        let path = directory.join("routing.lock");
        let failed = |source| LedgerError::File { path: path.clone(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let mut file = File::create(&path).map_err(failed)?;
        for _ in 0..LOCK_TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { directory: directory.to_owned(), _lock: lock }),
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
        let path = self.directory.join(format!("sysctl-{device}-{}.json", world.namespace));
        let record = Record { world, device: device.to_owned(), changes: Vec::new() };
        let ledger = Ledger { path, record };
        ledger.save()?;
        Ok(ledger)
    }

    /// Puts back what `ledger` holds, or leaves it to another living director's ledger.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn close(&self, ledger: Ledger) -> Result<(), LedgerError> {
        // Another director may have left its own to ours meanwhile.
        let ledger = Ledger::load(ledger.path.clone())?.unwrap_or(ledger);
        let mut heir =
            self.ledgers()?.into_iter().find(|other| other.path != ledger.path && other.is_alive());
        ledger.put_back_or_leave_to(heir.as_mut())
    }

    /// The ledgers of this boot and network namespace.
    fn ledgers(&self) -> Result<Vec<Ledger>, LedgerError> {
        let here = World::here()?;
        let failed = |source| LedgerError::File { path: self.directory.clone(), source };
        let mut ledgers = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("sysctl-") && name.ends_with(".json") {
                ledgers.extend(Ledger::load(path)?.filter(|ledger| ledger.record.world == here));
            }
        }
        ledgers.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(ledgers)
    }
}

/// The settings that one director changed.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
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

    fn load(path: PathBuf) -> Result<Option<Self>, LedgerError> {
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LedgerError::File { path, source }),
        };
        match serde_json::from_slice(&text) {
            Ok(record) => Ok(Some(Self { path, record })),
            Err(error) => Err(LedgerError::File { path, source: error.into() }),
        }
    }

    fn save(&self) -> Result<(), LedgerError> {
        let failed = |source| LedgerError::File { path: self.path.clone(), source };
        let text = serde_json::to_vec(&self.record).map_err(|error| failed(error.into()))?;
        let new = self.path.with_extension("new");
        fs::write(&new, text).map_err(failed)?;
        fs::rename(&new, &self.path).map_err(failed)
    }

    fn is_alive(&self) -> bool {
        if_nametoindex(self.record.device.as_str()).is_ok()
    }

    fn put_back_or_leave_to(self, heir: Option<&mut Self>) -> Result<(), LedgerError> {
        match heir {
            Some(heir) => {
                let mut changes = self.record.changes;
                changes.append(&mut heir.record.changes);
                heir.record.changes = changes;
                heir.save()?;
            }
            None => {
                for change in self.record.changes.iter().rev() {
                    change.put_back()?;
                }
            }
        }
        fs::remove_file(&self.path)
            .map_err(|source| LedgerError::File { path: self.path.clone(), source })
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
