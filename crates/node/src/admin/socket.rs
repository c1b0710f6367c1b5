//! Making the Unix socket of the admin API.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Binds the admin socket at `path` with mode 0600. A socket that a dead process left there is replaced.
///
/// # Errors
/// - `AddrInUse`: a process answers on the socket, or something that is no socket is in the way
/// - anything that `bind(2)`, `chmod(2)` and `rename(2)` say
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    refuse_what_is_in_use(path)?;
    // It is bound under a name that nobody looks for and renamed when its mode is right, so that there is no
    // moment in which another user can connect.
    let unready = unready_path(path)?;
    match fs::remove_file(&unready) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&unready)?;
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&unready, path))
        .inspect_err(|_| drop(fs::remove_file(&unready)))?;
    Ok(listener)
}

fn refuse_what_is_in_use(path: &Path) -> io::Result<()> {
    let in_use = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {what}", path.display()));
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(in_use("something that is no socket is in the way; move it away"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(in_use("a node is already running with this state directory")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Its queue is full (EAGAIN), it belongs to another user: whoever owns it may be alive.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(in_use(&error.to_string())),
        Err(_) => Ok(()),
    }
}

/// `admin.sock` becomes `admin.soc~`: as long as the original, as the room for a socket's path is scarce.
fn unready_path(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.is_ascii());
    let Some(name) = name else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket's path has no ASCII file name"));
    };
    Ok(path.with_file_name(format!("{}~", &name[..name.len() - 1])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_a_dead_socket_and_spares_a_live_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        drop(live);
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn spares_what_is_no_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
