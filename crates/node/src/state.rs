//! The state directory: where a node keeps its keys, certificates and sockets.

use std::path::{Path, PathBuf};

use ffmesh_core::id::NodeId;

/// A node's state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The directory by the order of precedence: `--state-dir`, `FFMESH_STATE_DIR`, `state_dir` of the
    /// configuration, the default for the id (`default` where there is none).
    ///
    /// `env` is the value of `FFMESH_STATE_DIR`.
    pub fn resolve(
        flag: Option<&Path>,
        env: Option<&Path>,
        config: Option<&Path>,
        id: Option<&NodeId>,
    ) -> Self {
        let _ = (flag, env, config, id);
        Self { path: PathBuf::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }
}
