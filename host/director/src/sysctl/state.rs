//! The folder of state files, and how they are opened.
//!
//! Directors run as root and believe what these files say, so nobody else may have a hand in them:
//! the folder and every file must be the effective user's own, and no link is followed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::LedgerError;

/// Where directors of every network namespace keep their state.
pub const STATE_FOLDER: &str = "/run/wvs";

/// The largest state file that is read, in octets: some thousand interfaces' settings.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// What is wrong with a folder that should keep state.
#[derive(Debug, thiserror::Error)]
pub enum FolderProblem {
    /// Something else, or a symbolic link.
    #[error("is a symbolic link, or no folder: remove it")]
    NotAFolder,
    /// Not the effective user's.
    #[error("belongs to user {owner}: remove it, or give it to the user that runs directors")]
    OfAnotherUser {
        /// The owner's user number.
        owner: u32,
    },
    /// Not the effective user's alone.
    #[error("may be written by others: look at what is in it, then `chmod go-w` it")]
    WritableByOthers,
}

/// A folder that only the effective user writes to.
#[derive(Clone, Debug)]
pub(super) struct StateFolder(PathBuf);

impl StateFolder {
    /// Opens the folder at `path`, which is made with mode 0700 if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::File { path: path.to_owned(), source };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let problem = if !metadata.is_dir() {
            FolderProblem::NotAFolder
        } else if metadata.uid() != geteuid().as_raw() {
            FolderProblem::OfAnotherUser { owner: metadata.uid() }
        } else if metadata.mode() & 0o022 != 0 {
            FolderProblem::WritableByOthers
        } else {
            return Ok(Self(path.to_owned()));
        };
        Err(LedgerError::Folder { path: path.to_owned(), problem })
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names of all files that are text.
    pub(super) fn names(&self) -> Result<Vec<String>, LedgerError> {
        let failed = |source| LedgerError::File { path: self.0.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Opens a file to be locked, made empty if it is missing.
    pub(super) fn open_lock(&self, name: &str) -> io::Result<File> {
        self.open_own(name, OpenOptions::new().write(true).create(true))
    }

    /// The content of a file.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let file = self.open_own(name, OpenOptions::new().read(true))?;
        file.take(FILE_SIZE_MAX + 1).read_to_end(&mut content)?;
        if content.len() as u64 > FILE_SIZE_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(content)
    }

    /// Replaces a file by renaming a new one to it.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let new = format!("{name}.new");
        match fs::remove_file(self.path_of(&new)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = self.open_own(&new, OpenOptions::new().write(true).create_new(true))?;
        file.write_all(content)?;
        fs::rename(self.path_of(&new), self.path_of(name))
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path_of(name))
    }

    /// Gives a file that is of no use a name under which it is not looked for.
    pub(super) fn put_aside(&self, name: &str) -> io::Result<()> {
        fs::rename(self.path_of(name), self.path_of(&format!("{name}.bad")))
    }

    fn open_own(&self, name: &str, options: &mut OpenOptions) -> io::Result<File> {
        // Opening a FIFO would wait for its other end.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = options.mode(0o600).custom_flags(flags.bits()).open(self.path_of(name))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("no regular file"));
        }
        if metadata.uid() != geteuid().as_raw() {
            return Err(io::Error::other(format!("it belongs to user {}", metadata.uid())));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;

    fn problem_of(path: &Path) -> FolderProblem {
        match StateFolder::open(path) {
            Err(LedgerError::Folder { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn missing_folder_is_made_for_its_owner_alone() {
        let outer = TempDir::new().unwrap();
        let path = outer.path().join("wvs");
        StateFolder::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn folder_that_others_may_write_is_refused() {
        let folder = TempDir::new().unwrap();
        for mode in [0o770, 0o702, 0o1777] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(problem_of(folder.path()), FolderProblem::WritableByOthers));
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        StateFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn link_and_file_are_refused_as_folder() {
        let outer = TempDir::new().unwrap();
        let [link, dangling, file] =
            ["link", "dangling", "file"].map(|name| outer.path().join(name));
        symlink(outer.path(), &link).unwrap();
        symlink(outer.path().join("nowhere"), &dangling).unwrap();
        fs::write(&file, "").unwrap();
        for path in [link, dangling, file] {
            assert!(matches!(problem_of(&path), FolderProblem::NotAFolder));
        }
        assert!(!outer.path().join("nowhere").exists());
    }

    #[test]
    fn no_link_is_followed_and_no_fifo_waited_for() {
        let outer = TempDir::new().unwrap();
        let victim = outer.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let folder = StateFolder::open(&outer.path().join("wvs")).unwrap();
        for name in ["lock", "state", "other.new"] {
            symlink(&victim, folder.path_of(name)).unwrap();
        }
        mkfifo(&folder.path_of("fifo"), Mode::S_IRWXU).unwrap();

        assert!(folder.open_lock("lock").is_err());
        assert!(folder.read("state").is_err());
        assert!(folder.read("fifo").is_err());
        folder.replace("state", b"new").unwrap();
        folder.replace("other", b"new").unwrap();

        assert_eq!(folder.read("state").unwrap(), b"new");
        assert_eq!(folder.read("other").unwrap(), b"new");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn file_that_is_too_large_is_not_read() {
        let outer = TempDir::new().unwrap();
        let folder = StateFolder::open(outer.path()).unwrap();
        let file = File::create(folder.path_of("large")).unwrap();
        file.set_len(FILE_SIZE_MAX + 1).unwrap();
        assert_eq!(folder.read("large").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
