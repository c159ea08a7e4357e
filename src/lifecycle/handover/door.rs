//! The Unix socket at which a successor waits: who may come to it, and that it goes away again. The file is there for as long
//! as somebody waits. It does not know what is said.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Whoever reaches the socket gets the listening sockets, or has its own served, so only one user may.
const DIRECTORY_MODE: u32 = 0o700;
const SOCKET_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;

/// Open until it is dropped.
#[derive(Debug)]
pub struct Door {
    pub listener: UnixListener,
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("cannot use the directory of the upgrade socket: `{path}`: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the directory of the upgrade socket belongs to user {owner}: `{path}`")]
    ForeignDirectory { path: PathBuf, owner: u32 },
    #[error("the directory of the upgrade socket is open to others, mode {mode:04o} instead of 0700: `{path}`")]
    OpenDirectory { path: PathBuf, mode: u32 },
    #[error("what is in the place of the upgrade socket is none: `{0}`")]
    NoSocket(PathBuf),
    #[error("another process waits at the upgrade socket already: `{0}`")]
    Occupied(PathBuf),
    #[error("cannot listen at the upgrade socket: `{path}`: {source}")]
    Listen { path: PathBuf, source: io::Error },
}

impl Door {
    /// # Errors
    /// When others could come to it, or somebody waits there already.
    pub fn open(path: &Path) -> Result<Door, DoorError> {
        let directory = directory(path);
        let failed = |source| DoorError::Directory { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed)?;
        check(path)?;
        let failed = |source| DoorError::Listen { path: path.to_owned(), source };
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let door = Door { listener, path: path.to_owned() };
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        door.listener.set_nonblocking(true).map_err(failed)?;
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Somebody may have tidied up already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether nobody else can have put there what is found at `path`.
///
/// # Errors
/// When its directory is somebody else's, or open to others.
pub fn check(path: &Path) -> Result<(), DoorError> {
    let path = directory(path).to_owned();
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        Err(source) => return Err(DoorError::Directory { path, source }),
    };
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(DoorError::ForeignDirectory { path, owner: found.uid() });
    }
    let mode = found.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(DoorError::OpenDirectory { path, mode });
    }
    Ok(())
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// A process that was killed leaves its file behind.
fn remove_stale(path: &Path) -> Result<(), DoorError> {
    let failed = |source| DoorError::Listen { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(DoorError::NoSocket(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(DoorError::Occupied(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn only_its_user_can_come_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/upgrade.sock");
        let door = Door::open(&path).unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        drop(door);
        assert!(!path.exists(), "the file is there for as long as somebody waits");
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        for mode in [0o755, 0o710, 0o701, 0o1777] {
            let folder = tempfile::tempdir().unwrap();
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let refused = Door::open(&folder.path().join("upgrade.sock")).unwrap_err();
            assert!(matches!(refused, DoorError::OpenDirectory { mode: found, .. } if found == mode), "{refused}");
            assert!(refused.to_string().contains(&format!("{mode:04o}")), "{refused}");
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        // Everybody can see it, and it belongs to root; for root, one that does not.
        let (path, owner) = match rustix::process::geteuid().is_root() {
            false => (PathBuf::from("/"), 0),
            true => {
                let folder = tempfile::tempdir().unwrap().keep();
                std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
                (folder, 65_534)
            }
        };
        let refused = Door::open(&path.join("upgrade.sock")).unwrap_err();
        assert!(matches!(refused, DoorError::ForeignDirectory { owner: found, .. } if found == owner), "{refused}");
        let _ = fs::remove_dir(&path);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(DIRECTORY_MODE)).unwrap();
        let path = folder.path().join("upgrade.sock");
        // The listener is gone and its file is not.
        drop(UnixListener::bind(&path).unwrap());
        let door = Door::open(&path).unwrap();
        assert!(matches!(Door::open(&path), Err(DoorError::Occupied(_))));
        drop(door);
        fs::write(&path, "mine").unwrap();
        assert!(matches!(Door::open(&path), Err(DoorError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
