//! The place of the control socket in the file system: one living director each.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, socket};
use nix::sys::stat::{Mode, fchmod};

/// Read and write, which is what it takes to connect, for the owner and the group.
const MODE: u32 = 0o660;

/// Clients that may wait to be accepted.
const QUEUE_LENGTH: i32 = 64;

/// Why a control socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// A living director answers there.
    #[error(
        "another director is running on the control socket {path}: stop it, or choose another \
         `admin.socket`", path = path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error(
        "{path} exists and is no socket: remove it, or choose another `admin.socket`",
        path = path.display()
    )]
    NoSocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// Not allowed.
    #[error(
        "no right to make the control socket {path}: its folder must be the director's own user's, so \
         choose another `admin.socket`, or run as that folder's user", path = path.display()
    )]
    NoRights {
        /// The socket.
        path: PathBuf,
    },
    /// The operating system refused for a reason that is not ours to explain.
    #[error("the control socket {path} could not be made: {source}", path = path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// A control socket that is ours. Its file is removed when this value is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    /// Device and inode: a file that replaced ours is not ours to remove.
    identity: (u64, u64),
    listener: UnixListener,
}

impl ControlSocket {
    /// Makes the socket, with mode 0660, and its folder, with mode 0755, where that is missing. A
    /// socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// See [`ClaimError`]; what was there is left there.
    pub fn claim(path: &Path) -> Result<Self, ClaimError> {
        let path = path.to_owned();
        match Self::try_claim(&path) {
            Ok(socket) => Ok(socket),
            Err(Obstacle::Director) => Err(ClaimError::InUse { path }),
            Err(Obstacle::OtherFile) => Err(ClaimError::NoSocket { path }),
            Err(Obstacle::Refused(source)) => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Err(ClaimError::NoRights { path })
                }
                _ => Err(ClaimError::Failed { path, source }),
            },
        }
    }

    fn try_claim(path: &Path) -> Result<Self, Obstacle> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        }
        let listener = match bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_left_over(path)?;
                bind(path)
            }
            result => result,
        }?;
        Ok(Self { identity: identity(path)?, path: path.to_owned(), listener })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening end, for tokio.
    pub(super) fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // What cannot be removed now is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What stands where the socket should.
enum Obstacle {
    Director,
    OtherFile,
    Refused(io::Error),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// Listens at `path`, which has no more than mode 0660 from the first moment on: the file takes the
/// mode of the socket that is bound to it, less what the process's umask forbids, which is then
/// put right.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&socket, Mode::from_bits_truncate(MODE))?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    socket::listen(&socket, Backlog::new(QUEUE_LENGTH)?)?;
    Ok(UnixListener::from(socket))
}

fn remove_left_over(path: &Path) -> Result<(), Obstacle> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(Obstacle::OtherFile);
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Obstacle::Director),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(fs::remove_file(path)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_is_made_with_its_folder_for_owner_and_group_and_removed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wvs/wvs.sock");
        let socket = ControlSocket::claim(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn socket_of_a_living_director_is_refused_and_that_of_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wvs.sock");
        let first = ControlSocket::claim(&path).unwrap();
        assert!(matches!(ControlSocket::claim(&path), Err(ClaimError::InUse { .. })));

        // As after a kill: the file stays, but nobody listens.
        let dead = folder.path().join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        assert!(dead.exists());
        drop(ControlSocket::claim(&dead).unwrap());
        drop(first);
    }

    #[test]
    fn other_file_in_the_place_of_the_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::claim(&path), Err(ClaimError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn file_that_replaced_the_socket_is_not_removed_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wvs.sock");
        let socket = ControlSocket::claim(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = ControlSocket::claim(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(successor);
    }
}
