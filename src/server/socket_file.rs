//! The file of a Unix socket: made where nobody else listens, and removed by the last process that has the socket. It does not know who
//! accepts on it.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// What is at the path for as long as the socket is there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why nothing can listen at an address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("another process listens there")]
    Occupied,
    #[error("what is there is no socket")]
    NoSocket,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A socket that is bound to `path` and does not listen yet, so that nobody connects before its file has its mode. What a process left
/// there that was killed goes away.
///
/// # Errors
/// When somebody listens there, or there is something else.
pub fn bind(path: &Path, mode: u32) -> Result<Socket, ListenError> {
    remove_stale(path)?;
    let socket = new_socket()?;
    socket.bind(&SockAddr::unix(path)?)?;
    set_mode(path, mode)?;
    Ok(socket)
}

/// # Errors
/// When the file is gone, or belongs to somebody else.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn new_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NoSocket),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match new_socket()?.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        // A queue that is full is somebody's too.
        Ok(()) => Err(ListenError::Occupied),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ListenError::Occupied),
        Err(error) => Err(error.into()),
    }
}

impl SocketFile {
    /// # Errors
    /// When nothing is there.
    pub fn find(path: &Path) -> io::Result<SocketFile> {
        let found = fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Unless another process has put its own there meanwhile.
    pub fn remove(&self) {
        let is_ours = |found: &Metadata| found.dev() == self.device && found.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(|found| is_ours(&found)) {
            // Somebody may have tidied up in between.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(path: &Path) -> Socket {
        let socket = bind(path, 0o640).unwrap();
        socket.listen(1).unwrap();
        socket
    }

    #[test]
    fn has_its_mode_before_anybody_can_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _socket = bind(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn what_a_killed_process_left_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(listening(&path));
        let socket = listening(&path);
        assert!(matches!(bind(&path, 0o640), Err(ListenError::Occupied)));
        // The queue of that one is full by now, or soon.
        for _ in 0..4 {
            assert!(matches!(bind(&path, 0o640), Err(ListenError::Occupied)));
        }
        drop(socket);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert!(matches!(bind(&path, 0o640), Err(ListenError::NoSocket)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn is_removed_unless_it_is_somebody_elses_by_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let before = listening(&path);
        let file = SocketFile::find(&path).unwrap();
        drop(before);
        // The successor's file exists beside ours first, so it has another number.
        let other = folder.path().join("b.sock");
        let _successor = listening(&other);
        fs::rename(&other, &path).unwrap();
        file.remove();
        assert!(path.exists());
        SocketFile::find(&path).unwrap().remove();
        assert!(!path.exists());
        file.remove();
    }
}
