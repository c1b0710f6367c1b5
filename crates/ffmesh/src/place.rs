//! Which node of this machine a command is about.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ffmesh_core::id::NodeId;
use ffmesh_node::config::Config;
use ffmesh_node::identity;
use ffmesh_node::state::StateDir;

use crate::args::Choice;
use crate::config_file;
use crate::failure::{Failure, Outcome};
use crate::format::shell_word;

/// Variable that names the state directory.
pub(crate) const VARIABLE: &str = "FFMESH_STATE_DIR";

/// A node's state directory, and how to name the node to the next command.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) state: StateDir,
    /// Its file, when `--config` named it.
    pub(crate) config: Option<Config>,
}

/// The node that a command talks to: by `--state-dir`, FFMESH_STATE_DIR, `--config`, `--node`, in the order of
/// [`StateDir::resolve`]; without any of them the only node of this machine, or the only one that runs.
pub(crate) fn node(choice: &Choice) -> Outcome<Node> {
    let config = choice.place.config.as_deref().map(config_file::load).transpose()?;
    let given = choice.place.state_dir.is_some() || environment().is_some();
    if given || config.is_some() || choice.node.is_some() {
        let state = state_dir(choice, config.as_ref())?;
        return Ok(Node { state, config });
    }
    Ok(Node { state: only_node()?, config: None })
}

/// The state directory for a configuration, which `--state-dir` and FFMESH_STATE_DIR go before.
///
/// # Errors
/// When `--node` names another node than the configuration does.
pub(crate) fn state_dir(choice: &Choice, config: Option<&Config>) -> Outcome<StateDir> {
    let id = node_id(choice, config)?;
    let flag = choice.place.state_dir.as_deref();
    let file = config.and_then(|config| config.state_dir.as_deref());
    let environment = environment();
    Ok(StateDir::resolve(flag, environment.as_deref().map(Path::new), file, id.as_ref()))
}

/// The id that the configuration or `--node` gives.
pub(crate) fn node_id(choice: &Choice, config: Option<&Config>) -> Outcome<Option<NodeId>> {
    match (&choice.node, config.and_then(|config| config.node_id.as_ref())) {
        (Some(chosen), Some(id)) if chosen != id => Err(Failure::usage(format!(
            "--node says {chosen}, and the configuration is that of {id}\nleave one of the two out"
        ))),
        (chosen, id) => Ok(chosen.clone().or(id.cloned())),
    }
}

/// Whether the directory is the one that the node would use without being told.
pub(crate) fn is_default(state: &StateDir, id: &NodeId) -> bool {
    *state == StateDir::resolve(None, None, None, Some(id))
}

/// Whether the directory has an identity.
pub(crate) fn has_identity(state: &StateDir) -> bool {
    identity::is_enrolled(state)
}

/// Whether a node answers on the directory's socket.
pub(crate) fn is_running(state: &StateDir) -> bool {
    std::os::unix::net::UnixStream::connect(state.admin_socket()).is_ok()
}

fn environment() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|value| !value.is_empty())
}

fn only_node() -> Outcome<StateDir> {
    // The default directory of no id in particular stands beside those of all ids.
    let beside = StateDir::resolve(None, None, None, None);
    let root = beside.path().parent().unwrap_or(Path::new("/")).to_owned();
    let mut nodes = Vec::new();
    match std::fs::read_dir(&root) {
        Ok(entries) => nodes.extend(entries.flatten().map(|entry| candidate(&entry.path()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::failed(format!("{} cannot be read: {error}", root.display()))),
    }
    nodes.retain(|node| node.running || has_identity(&node.state));
    choose(nodes, &root)
}

#[derive(Debug)]
struct Candidate {
    state: StateDir,
    running: bool,
}

fn candidate(path: &Path) -> Candidate {
    let state = StateDir::resolve(Some(path), None, None, None);
    Candidate { running: is_running(&state), state }
}

fn choose(mut nodes: Vec<Candidate>, root: &Path) -> Outcome<StateDir> {
    let running = nodes.iter().filter(|node| node.running).count();
    if running == 1 {
        nodes.retain(|node| node.running);
    }
    nodes.sort_by(|a, b| a.state.path().cmp(b.state.path()));
    if nodes.len() > 1 {
        let list = nodes.iter().map(describe).collect::<Vec<_>>().join("\n  ");
        let how = "choose one with --node ID, --config FILE or --state-dir DIR";
        return Err(Failure::usage(format!("this machine has several nodes:\n  {list}\n{how}")));
    }
    let Some(node) = nodes.pop() else {
        return Err(Failure::failed(format!(
            "this machine has no node under {}\n\
             make one with `ffmesh init CONFIG` or `ffmesh join TOKEN CONFIG`; if it is elsewhere, name it with \
             --config FILE or --state-dir DIR",
            root.display()
        )));
    };
    Ok(node.state)
}

fn describe(node: &Candidate) -> String {
    let name = node.state.path().file_name().unwrap_or_default().to_string_lossy();
    let state = if node.running { "running" } else { "not running" };
    format!("{}  {}  {state}", shell_word(&name), node.state.path().display())
}

/// The configuration file of a command that has it as its argument, or as `--config`.
pub(crate) fn file(argument: Option<PathBuf>, choice: &Choice) -> Outcome<PathBuf> {
    match (argument, &choice.place.config) {
        (Some(argument), Some(option)) if argument != *option => Err(Failure::usage(format!(
            "two configuration files are named: {} and {}\nleave one of the two out",
            argument.display(),
            option.display()
        ))),
        (Some(file), _) => Ok(file),
        (None, Some(file)) => Ok(file.clone()),
        (None, None) => Err(Failure::usage(
            "the configuration file is missing\nname it as the argument CONFIG; see --help",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(running: &[bool]) -> Vec<Candidate> {
        let node = |(i, running): (usize, &bool)| Candidate {
            state: StateDir::resolve(Some(Path::new(&format!("/s/n{i}"))), None, None, None),
            running: *running,
        };
        running.iter().enumerate().map(node).collect()
    }

    #[test]
    fn the_only_node_is_chosen_and_the_only_running_one() {
        assert!(choose(nodes(&[false]), Path::new("/s")).is_ok());
        assert!(choose(nodes(&[false, true, false]), Path::new("/s")).is_ok());
    }

    #[test]
    fn none_is_a_failure_and_several_are_wrong_usage() {
        assert_eq!(choose(nodes(&[]), Path::new("/s")).unwrap_err().status(), 1);
        for several in [[true, true], [false, false]] {
            let error = choose(nodes(&several), Path::new("/s")).unwrap_err();
            assert_eq!(error.status(), 2);
            assert!(error.message().contains("--node ID"), "{}", error.message());
        }
    }
}
