//! The place of the control socket in the file system: one living director each.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, socket};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, chown};

use super::access::TokenError;
use crate::config::AdminConfig;

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
    /// There is no such group.
    #[error(
        "there is no group {group} for the control socket: `groupadd --system {group}`, or another `admin.group`"
    )]
    NoGroup {
        /// Its name.
        group: String,
    },
    /// The socket may not be given to the group.
    #[error(
        "no right to give the control socket {path} to the group {group}: run as root or as a member \
         of it, or leave `admin.group` out", path = path.display()
    )]
    ForeignGroup {
        /// The socket.
        path: PathBuf,
        /// The group.
        group: String,
    },
    /// No token for those who come over TCP.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No TCP listener.
    #[error(
        "cannot listen on {address}, which is `admin.listen`: {source}; choose an address of this host and a port that is free"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened.
        source: io::Error,
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
    /// Makes the socket, with the mode and the group of `access`, and its folder, with mode 0755, where
    /// that is missing. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// See [`ClaimError`]; what was there is left there.
    pub fn claim(path: &Path, access: &AdminConfig) -> Result<Self, ClaimError> {
        let path = path.to_owned();
        let group = access.group.as_deref().map(group_of).transpose()?;
        match Self::try_claim(&path, access.mode, group) {
            Ok(socket) => Ok(socket),
            Err(Obstacle::Group) => Err(ClaimError::ForeignGroup {
                path,
                group: access.group.clone().unwrap_or_default(),
            }),
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

    fn try_claim(path: &Path, mode: u32, group: Option<Gid>) -> Result<Self, Obstacle> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        }
        let socket = match bind(path, mode) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_left_over(path)?;
                bind(path, mode)
            }
            result => result,
        }?;
        // From here on the file goes when this does.
        let this = Self {
            identity: identity(path)?,
            path: path.to_owned(),
            listener: UnixListener::from(socket),
        };
        if let Some(group) = group {
            match chown(path, None, Some(group)) {
                Err(Errno::EPERM) => return Err(Obstacle::Group),
                result => result.map_err(io::Error::from)?,
            }
        }
        // After the umask, and whoever is let in only now that it is right.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        socket::listen(&this.listener, Backlog::new(QUEUE_LENGTH).map_err(io::Error::from)?)
            .map_err(io::Error::from)?;
        Ok(this)
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
    Group,
    Refused(io::Error),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// Binds a socket to `path`, which has no more than `mode` from the first moment on: the file takes
/// the mode of the socket that is bound to it, less what the process's umask forbids.
fn bind(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&socket, Mode::from_bits_truncate(mode))?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// The group of this name or, where there is none, number.
///
/// # Errors
/// There is none.
pub(crate) fn group_of(name: &str) -> Result<Gid, ClaimError> {
    let found = Group::from_name(name).ok().flatten().map(|group| group.gid);
    let number = || name.parse().ok().map(Gid::from_raw);
    found.or_else(number).ok_or_else(|| ClaimError::NoGroup { group: name.to_owned() })
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
    use nix::unistd::{getegid, geteuid};

    use super::*;

    fn claim(path: &Path) -> Result<ControlSocket, ClaimError> {
        ControlSocket::claim(path, &AdminConfig::default())
    }

    #[test]
    fn socket_has_the_mode_and_the_group_that_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wvs.sock");
        // One of another's own; nobody else can give anything away.
        let group = if geteuid().is_root() { 4_711 } else { getegid().as_raw() };
        for mode in [0o600, 0o666, 0o620] {
            let access = AdminConfig { mode, group: Some(group.to_string()), tcp: None };
            let socket = ControlSocket::claim(&path, &access).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (mode, group));
            drop(socket);
        }
    }

    #[test]
    fn group_that_does_not_exist_is_refused_and_nothing_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wvs.sock");
        let group = Some("no-such-group".to_owned());
        let access = AdminConfig { group, ..AdminConfig::default() };
        let error = ControlSocket::claim(&path, &access).unwrap_err();
        assert!(error.to_string().contains("`groupadd --system no-such-group`"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn socket_is_made_with_its_folder_for_owner_and_group_and_removed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wvs/wvs.sock");
        let socket = claim(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn socket_of_a_living_director_is_refused_and_that_of_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wvs.sock");
        let first = claim(&path).unwrap();
        assert!(matches!(claim(&path), Err(ClaimError::InUse { .. })));

        // As after a kill: the file stays, but nobody listens.
        let dead = folder.path().join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        assert!(dead.exists());
        drop(claim(&dead).unwrap());
        drop(first);
    }

    #[test]
    fn other_file_in_the_place_of_the_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(claim(&path), Err(ClaimError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn file_that_replaced_the_socket_is_not_removed_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wvs.sock");
        let socket = claim(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = claim(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(successor);
    }
}
