//! Running a node in this process: the one place that knows `ffmesh_node::node`.

use ffmesh_node::config::Loaded;
use ffmesh_node::node::Node;
use ffmesh_node::state::StateDir;

use crate::failure::{Failure, Outcome};
use crate::journal::journal;

/// Starts a node. All nodes of this process share its journal.
pub(crate) fn run_node(config: impl Into<Loaded>, state: StateDir) -> Outcome<Node> {
    Node::start(config, state, journal()).map_err(Failure::failed)
}

/// Raises the soft limit on open files to the hard one: each flow takes one or two. Returns the limit.
pub(crate) fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // What cannot be raised still serves as many flows as it has files.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current
}
