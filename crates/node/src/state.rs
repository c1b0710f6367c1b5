//! The state directory: where a node keeps its keys, certificates and sockets.
//!
//! Every file is written as a whole with mode 0600: to a temporary name, synced, renamed, and the directory synced,
//! so that a crash leaves either the old file or the new one.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ffmesh_core::id::NodeId;
use ffmesh_core::target::MAX_UNIX_PATH_LEN;

/// Largest file that is read from a state directory, so that a wrong path cannot fill the memory.
const MAX_FILE_LEN: u64 = 16 << 20;
const LOCK_FILE: &str = "lock";
const EPOCH_FILE: &str = "epoch";

/// A node's state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

/// Holds a state directory for this process until it is dropped.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // See `StateDir::is_held`. What stays there is the id of a process that is gone.
        let _ = self.file.set_len(0);
    }
}

/// Why the state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, `create`, `lock`
        action: &'static str,
        /// The file or directory
        path: PathBuf,
        /// What the system says
        source: io::Error,
    },
    /// A key can be read by other users of the machine.
    #[error("{0} can be read or written by other users: run `chmod 600 {0}`, and replace the key if others had access", path.display())]
    Exposed {
        /// The file
        path: PathBuf,
    },
    /// The directory belongs to another user.
    #[error(
        "{0} belongs to the user {owner}, and this runs as the user {uid}: run it as that one (`sudo -u '#{owner}' \
         ffmesh ...`), or give the directory away with `chown -R {uid} {0}`",
        path.display()
    )]
    Foreign {
        /// The directory
        path: PathBuf,
        /// Its user
        owner: u32,
        /// The effective user of this process
        uid: u32,
    },
    /// Other users can put files into the directory.
    #[error("{0} can be written by other users, who could replace the keys in it: run `chmod go-w {0}`", path.display())]
    Open {
        /// The directory
        path: PathBuf,
    },
    /// Another process holds the directory.
    #[error(
        "another node{holder} is using {}: stop it first, or give this one its own directory with --state-dir",
        path.display()
    )]
    Locked {
        /// The directory
        path: PathBuf,
        /// ` (process 123)`, or nothing where it is unknown
        holder: String,
    },
}

impl StateDir {
    /// The directory by the order of precedence: `--state-dir`, `FFMESH_STATE_DIR`, `state_dir` of the
    /// configuration, the default for the id (`default` where there is none).
    ///
    /// `env` is the value of `FFMESH_STATE_DIR`; an empty one counts as unset. The default is `/var/lib/ffmesh/<id>`
    /// for root, else `$XDG_STATE_HOME/ffmesh/<id>`, else `~/.local/state/ffmesh/<id>`. A relative
    /// `XDG_STATE_HOME` is ignored, as the XDG base directory specification demands. Relative paths are taken from
    /// the working directory and made absolute, so that the node and the command line mean the same socket.
    pub fn resolve(
        flag: Option<&Path>,
        env: Option<&Path>,
        config: Option<&Path>,
        id: Option<&NodeId>,
    ) -> Self {
        let chosen = [flag, env, config].into_iter().flatten().find(|path| !path.as_os_str().is_empty());
        match chosen {
            Some(path) => Self::at(path),
            None => Self::at(&default_path(
                effective_uid() == 0,
                std::env::var_os("XDG_STATE_HOME").as_deref(),
                std::env::home_dir(),
                id,
            )),
        }
    }

    /// The directory at this very path.
    pub fn at(path: &Path) -> Self {
        Self { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the admin socket: `<state_dir>/admin.sock`, or a short hashed name under the runtime directory when
    /// that is longer than a socket's path may be (107 bytes). Creates nothing.
    pub fn admin_socket(&self) -> PathBuf {
        let socket = self.path.join("admin.sock");
        if socket.as_os_str().len() <= MAX_UNIX_PATH_LEN {
            return socket;
        }
        let hash = ring::digest::digest(&ring::digest::SHA256, self.path.as_os_str().as_encoded_bytes());
        let name = format!("{}.sock", data_encoding::HEXLOWER.encode(&hash.as_ref()[..8]));
        runtime_dir(effective_uid(), std::env::var_os("XDG_RUNTIME_DIR").as_deref()).join(name)
    }

    /// Makes the directory of [`StateDir::admin_socket`] (0700) and returns the socket's path.
    ///
    /// # Errors
    /// When it cannot be made, or another user can write there: the socket could be swapped.
    pub fn prepare_admin_socket(&self) -> Result<PathBuf, StateError> {
        let socket = self.admin_socket();
        if let Some(dir) = socket.parent() {
            create_private_dir(dir)?;
            let meta = fs::symlink_metadata(dir).map_err(|e| io_error("read", dir, e))?;
            if !meta.is_dir() {
                return Err(io_error("use", dir, io::ErrorKind::NotADirectory.into()));
            }
            check_owner(dir, &meta, effective_uid())?;
        }
        Ok(socket)
    }

    /// Makes the directory and its parents (0700) where they are missing.
    ///
    /// # Errors
    /// See also [`StateDir::check`].
    pub fn create(&self) -> Result<(), StateError> {
        create_private_dir(&self.path)?;
        self.check()
    }

    /// Whether the directory, where it exists, belongs to this process's user and nobody else can write there: who
    /// can, replaces keys.
    pub fn check(&self) -> Result<(), StateError> {
        match fs::metadata(&self.path) {
            Ok(meta) => check_owner(&self.path, &meta, effective_uid()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io_error("read", &self.path, e)),
        }
    }

    /// Whether a process of user `uid` may be the node of this directory: one of this process's user or of root; and
    /// where this process is root's, one of the directory's owner.
    pub fn may_be_node(&self, uid: u32) -> bool {
        let own = effective_uid();
        let owner = || fs::metadata(&self.path).is_ok_and(|meta| meta.uid() == uid);
        uid == own || uid == 0 || (own == 0 && owner())
    }

    /// Takes the directory for this process. Two running nodes must not share one.
    ///
    /// # Errors
    /// [`StateError::Locked`] when another process has it.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        self.create()?;
        let path = self.path.join(LOCK_FILE);
        let failed = |e| io_error("lock", &path, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let read = file.take(20).read_to_string(&mut pid);
                let pid = pid.trim();
                let known = read.is_ok() && !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
                let holder = if known { format!(" (process {pid})") } else { String::new() };
                return Err(StateError::Locked { path: self.path.clone(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(StateLock { file })
    }

    /// Whether a node that runs has the directory, as far as this process can see; it takes no lock itself, which a
    /// node that starts at this moment would stumble over.
    pub fn is_held(&self) -> bool {
        let holder = fs::read_to_string(self.path.join(LOCK_FILE)).ok();
        let holder = holder.and_then(|pid| pid.trim().parse().ok()).and_then(rustix::process::Pid::from_raw);
        holder.is_some_and(|pid| {
            // EPERM: it is there, and another user's.
            !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
        })
    }

    /// A number that grows with each start of this node, even when the clock went back: milliseconds since 1970, or
    /// the last one plus 1 where that is larger. It is stored before it is returned.
    pub fn next_epoch(&self) -> io::Result<u64> {
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let last = match fs::read_to_string(self.path.join(EPOCH_FILE)) {
            Ok(text) => text.trim().parse::<u64>().unwrap_or(0),
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        let epoch = now.max(last.saturating_add(1));
        self.create().map_err(io::Error::other)?;
        write_atomic(&self.path.join(EPOCH_FILE), epoch.to_string().as_bytes())?;
        Ok(epoch)
    }

    /// Writes the file `name` (a path relative to the directory), atomically and with mode 0600, making its
    /// directory where it is missing.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        create_private_dir(path.parent().unwrap_or(&self.path))?;
        write_atomic(&path, contents).map_err(|e| io_error("write", &path, e))
    }

    /// Reads the file `name`; none where it does not exist.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(name);
        let read = || {
            let file = File::open(&path)?;
            if file.metadata()?.len() > MAX_FILE_LEN {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB"));
            }
            let mut contents = Vec::new();
            file.take(MAX_FILE_LEN).read_to_end(&mut contents)?;
            Ok(contents)
        };
        match read() {
            Ok(contents) => Ok(Some(contents)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("read", &path, e)),
        }
    }

    /// Like [`StateDir::read`], but refuses a file that other users can read or write, or could have put there.
    pub(crate) fn read_secret(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.check()?;
        let path = self.path.join(name);
        match fs::metadata(&path) {
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Err(StateError::Exposed { path }),
            _ => self.read(name),
        }
    }

    /// Whether the file `name` exists.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// Removes the file `name`; that it is missing is no error.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// Renames the file `from` to `to`, replacing it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), StateError> {
        let path = self.path.join(from);
        fs::rename(&path, self.path.join(to)).map_err(|e| io_error("rename", &path, e))
    }

    /// Names of the files in the directory `name`, in no order; empty where it does not exist.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, StateError> {
        let path = self.path.join(name);
        match fs::read_dir(&path) {
            Ok(entries) => Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(io_error("read", &path, e)),
        }
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { action, path: path.to_owned(), source }
}

fn default_path(
    root: bool,
    xdg_state: Option<&OsStr>,
    home: Option<PathBuf>,
    id: Option<&NodeId>,
) -> PathBuf {
    let base = if root {
        PathBuf::from("/var/lib")
    } else if let Some(xdg) = xdg_state.map(Path::new).filter(|path| path.is_absolute()) {
        xdg.to_owned()
    } else {
        home.unwrap_or_default().join(".local/state")
    };
    base.join("ffmesh").join(id.map_or("default", NodeId::as_str))
}

/// Root's runtime directory is the same in every shell: `sudo` keeps the `XDG_RUNTIME_DIR` of whoever called it, and
/// the node and the command line would look in different places.
fn runtime_dir(uid: u32, xdg_runtime: Option<&OsStr>) -> PathBuf {
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    // A hashed name takes 22 bytes more.
    let fits = |path: &Path| path.as_os_str().len() + "/ffmesh/".len() + 21 <= MAX_UNIX_PATH_LEN;
    match xdg_runtime.map(Path::new).filter(|path| path.is_absolute() && fits(path)) {
        _ if uid == 0 => PathBuf::from("/run/ffmesh"),
        Some(xdg) => xdg.join("ffmesh"),
        None if usual.is_dir() => usual.join("ffmesh"),
        None => PathBuf::from(format!("/tmp/ffmesh-{uid}")),
    }
}

/// The user that this process acts as. The owner of `/proc/self` would be root under file capabilities.
fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether only user `uid` can put files into the directory.
fn check_owner(path: &Path, meta: &fs::Metadata, uid: u32) -> Result<(), StateError> {
    if meta.uid() != uid {
        return Err(StateError::Foreign { path: path.to_owned(), owner: meta.uid(), uid });
    }
    if meta.mode() & 0o022 != 0 {
        return Err(StateError::Open { path: path.to_owned() });
    }
    Ok(())
}

fn create_private_dir(path: &Path) -> Result<(), StateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| io_error("create", path, e))
}

fn write_atomic(path: &Path, contents: &[u8]) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = dir.join(format!(".{name}.{}.{unique}.tmp", std::process::id()));
    let written = (|| {
        // A leftover of a crashed process that had this process id.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, StateDir) {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::at(&temp.path().join("deep/state"));
        (temp, state)
    }

    #[test]
    fn the_first_that_is_set_wins() {
        let [flag, env, config] = ["/flag", "/env", "/config"].map(|p| Some(Path::new(p)));
        let path = |f, e, c| StateDir::resolve(f, e, c, None).path().to_owned();
        assert_eq!(path(flag, env, config), Path::new("/flag"));
        assert_eq!(path(None, env, config), Path::new("/env"));
        assert_eq!(path(None, None, config), Path::new("/config"));
        assert_eq!(path(None, Some(Path::new("")), config), Path::new("/config"));
        assert!(path(Some(Path::new("here")), None, None).is_absolute());
    }

    #[test]
    fn defaults_follow_the_user_and_the_id() {
        let id = "a1".parse().unwrap();
        let home = || Some(PathBuf::from("/home/u"));
        assert_eq!(default_path(true, None, home(), Some(&id)), Path::new("/var/lib/ffmesh/a1"));
        assert_eq!(default_path(false, Some(OsStr::new("/x")), home(), Some(&id)), Path::new("/x/ffmesh/a1"));
        assert_eq!(
            default_path(false, Some(OsStr::new("rel")), home(), None),
            Path::new("/home/u/.local/state/ffmesh/default")
        );
    }

    #[test]
    fn a_long_path_gets_a_short_socket() {
        let short = StateDir::at(Path::new("/var/lib/ffmesh/a"));
        assert_eq!(short.admin_socket(), Path::new("/var/lib/ffmesh/a/admin.sock"));
        let long = StateDir::at(&PathBuf::from(format!("/var/{}", "d".repeat(120))));
        let other = StateDir::at(&PathBuf::from(format!("/var/{}", "e".repeat(120))));
        assert!(long.admin_socket().as_os_str().len() <= MAX_UNIX_PATH_LEN);
        assert_ne!(long.admin_socket(), other.admin_socket());
        assert_eq!(runtime_dir(0, Some(OsStr::new("/run/user/7"))), Path::new("/run/ffmesh"));
        assert_eq!(runtime_dir(7, Some(OsStr::new("/r"))), Path::new("/r/ffmesh"));
    }

    #[test]
    fn files_are_private_and_whole() {
        let (_temp, state) = dir();
        state.write("tokens/a.json", b"1").unwrap();
        state.write("tokens/a.json", b"2").unwrap();
        assert_eq!(state.read("tokens/a.json").unwrap().unwrap(), b"2");
        assert_eq!(state.list("tokens").unwrap(), ["a.json"]);
        let mode = |path: &str| fs::metadata(state.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("tokens/a.json"), mode("tokens"), mode("")), (0o600, 0o700, 0o700));
        assert_eq!(state.read("none").unwrap(), None);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_command_to_run() {
        let (_temp, state) = dir();
        state.write("node.key", b"k").unwrap();
        assert!(state.read_secret("node.key").unwrap().is_some());
        let path = state.path().join("node.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = state.read_secret("node.key").unwrap_err().to_string();
        assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused_with_the_command_to_run() {
        let (_temp, state) = dir();
        state.create().unwrap();
        for mode in [0o770, 0o707, 0o1777] {
            fs::set_permissions(state.path(), fs::Permissions::from_mode(mode)).unwrap();
            for error in [state.lock().err(), state.create().err(), state.read_secret("node.key").err()] {
                let error = error.unwrap().to_string();
                assert!(error.contains(&format!("chmod go-w {}", state.path().display())), "{error}");
            }
        }
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
        state.lock().unwrap();
    }

    #[test]
    fn a_directory_of_another_user_is_refused_with_the_command_to_run() {
        let (_temp, state) = dir();
        state.create().unwrap();
        let meta = fs::metadata(state.path()).unwrap();
        check_owner(state.path(), &meta, meta.uid()).unwrap();
        let other = meta.uid() + 1;
        let error = check_owner(state.path(), &meta, other).unwrap_err().to_string();
        assert!(error.contains(&format!("chown -R {other} {}", state.path().display())), "{error}");
        assert!(state.may_be_node(meta.uid()) && state.may_be_node(0));
        assert!(!state.may_be_node(other));
    }

    #[test]
    fn only_one_holds_the_lock() {
        let (_temp, state) = dir();
        let held = state.lock().unwrap();
        let error = state.lock().unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(state.is_held());
        drop(held);
        assert!(!state.is_held());
        state.lock().unwrap();
    }

    #[test]
    fn what_was_held_by_a_process_that_is_gone_is_not_held() {
        let (_temp, state) = dir();
        assert!(!state.is_held());
        state.create().unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        for (text, held) in [(gone.id(), false), (std::process::id(), true), (0, false)] {
            fs::write(state.path().join(LOCK_FILE), text.to_string()).unwrap();
            assert_eq!(state.is_held(), held, "{text}");
        }
    }

    #[test]
    fn epochs_grow_even_when_the_clock_went_back() {
        let (_temp, state) = dir();
        let first = state.next_epoch().unwrap();
        assert!(state.next_epoch().unwrap() > first);
        let future = first + 1_000_000_000;
        state.write(EPOCH_FILE, future.to_string().as_bytes()).unwrap();
        assert_eq!(state.next_epoch().unwrap(), future + 1);
        state.write(EPOCH_FILE, b"garbage").unwrap();
        assert!(state.next_epoch().unwrap() >= first);
    }
}
