//! `ffmesh init` and `ffmesh join`: how a node gets its identity and its first configuration file.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use ffmesh_core::id::NodeId;
use ffmesh_node::config::{Address, Config};
use ffmesh_node::identity::{self, Founded, InitOptions, JoinOptions, Joined};
use ffmesh_node::state::StateDir;
use serde_json::json;

use crate::args::{Choice, Init, Join, TokenSource};
use crate::config_file::{self, FirstFile, NewFile, upstream_lines};
use crate::failure::{Failure, Outcome};
use crate::format::{expiry, shell_word};
use crate::{output, place};

/// UDP port of a founder whose file names none.
const DEFAULT_PORT: u16 = 3334;
/// Longest file that is read as a token: several times as long as one with many addresses.
const MAX_TOKEN_FILE: u64 = 64 * 1024;

/// Founds a mesh. Over an existing identity nothing is changed and no file written.
pub(crate) fn init(args: &Init) -> Outcome {
    let node = Newcomer::read(args.config_file.clone(), &args.show.choice)?;
    let port_of_file = node.config.as_ref().and_then(|config| config.quic.listen_port);
    let listen_port = match (args.listen, port_of_file) {
        (Some(flag), Some(file)) if flag != file => {
            return Err(Failure::usage(format!(
                "--listen says {flag}, and {} says quic.listen_port: {file}\nleave --listen out, or change the file",
                node.file.display()
            )));
        }
        (flag, file) => flag.or(file).unwrap_or(DEFAULT_PORT),
    };
    let mut advertise = args.advertise.clone();
    let of_file = node.config.iter().flat_map(|config| config.quic.advertise.iter());
    for address in of_file {
        if !advertise.contains(address) {
            advertise.push(address.clone());
        }
    }

    let new_file = node.new_file()?;
    let options = InitOptions {
        state: node.state.clone(),
        node_id: node.node_id.clone(),
        mesh: args.mesh.clone(),
        advertise,
        listen_port,
        cert_ttl: args.cert_ttl,
    };
    let founded = identity::init(&options)?;
    if let Some(new_file) = new_file {
        new_file.write(&node.first_file(&founded.node_id, Some(listen_port), &[]))?;
    }

    if args.show.json {
        return output::json(&json!({
            "node_id": founded.node_id, "mesh": founded.mesh, "fingerprint": founded.fingerprint,
            "expires": founded.expires, "listen_port": listen_port, "state_dir": node.state.path(),
            "config": node.file, "config_written": node.config.is_none(),
        }));
    }
    output::text(&told_of_init(&node, &founded, listen_port, port_of_file))
}

fn told_of_init(node: &Newcomer, founded: &Founded, port: u16, port_of_file: Option<u16>) -> String {
    let mut text = format!("Founded the mesh {}; this is its node {}.\n\n", founded.mesh, founded.node_id);
    let _ = writeln!(text, "  authority    SHA-256 {}", founded.fingerprint);
    node.tell(&mut text, founded.expires);
    if node.config.is_some() && port_of_file.is_none() {
        let _ = write!(
            text,
            "\nOthers cannot reach it yet. Add to {}:\n\nquic:\n  listen_port: {port}\n",
            node.file.display()
        );
    }
    let _ = write!(
        text,
        "\nNext:\n  {}\n  {}\n",
        node.command("ffmesh", "", "run the node"),
        node.command("ffmesh token create", "--config ", "let another machine in"),
    );
    text
}

/// Joins a mesh. Over an existing identity nothing is changed and no file written.
pub(crate) async fn join(args: &Join) -> Outcome {
    let node = Newcomer::read(args.config_file.clone(), &args.show.choice)?;
    if args.if_needed && place::has_identity(&node.state) {
        return told_of_nothing(&node, args.show.json);
    }
    let token = read_token(&args.token)?;
    let new_file = node.new_file()?;
    let options = JoinOptions { state: node.state.clone(), node_id: node.node_id.clone() };
    let mut joined = identity::join(&token, &options).await?;
    // A node that joins again with a token of a node that dials it: it does not dial itself.
    joined.upstreams.retain(|(id, _)| *id != joined.node_id);
    if let Some(new_file) = new_file {
        new_file.write(&node.first_file(&joined.node_id, None, &joined.upstreams))?;
    }

    if let Some(skew) = &joined.clock_skew {
        output::remark(&format!(
            "warning: this machine's clock is {skew}, as the issuer's says; set it: certificates have a beginning and an end"
        ));
    }
    if args.show.json {
        let upstreams: Vec<_> = joined
            .upstreams
            .iter()
            .map(|(id, address)| json!({"node_id": id, "address": format!("{}:{}", address.host, address.port)}))
            .collect();
        return output::json(&json!({
            "node_id": joined.node_id, "mesh": joined.mesh, "groups": joined.groups, "expires": joined.expires,
            "joined": true, "upstreams": upstreams, "state_dir": node.state.path(),
            "config": node.file, "config_written": node.config.is_none(),
        }));
    }
    output::text(&told_of_join(&node, &joined))
}

/// The token, from wherever it is.
fn read_token(source: &TokenSource) -> Outcome<String> {
    let (from, token) = match source {
        TokenSource::Argument(token) => return Ok(token.clone()),
        TokenSource::Stdin => ("stdin".to_owned(), read_word(std::io::stdin().lock())),
        TokenSource::File(path) => {
            (path.display().to_string(), std::fs::File::open(path).and_then(read_word))
        }
    };
    token.map_err(|error| {
        Failure::failed(format!(
            "the token cannot be read from {from}: {error}\nmake one with `ffmesh token create` on a node of the mesh, \
             and write it there"
        ))
    })
}

/// A file that has a token and nothing else.
fn read_word(file: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    file.take(MAX_TOKEN_FILE).read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(std::io::Error::other("it is empty")),
        word => Ok(word.to_owned()),
    }
}

fn told_of_nothing(node: &Newcomer, json: bool) -> Outcome {
    if json {
        return output::json(&json!({"joined": false, "state_dir": node.state.path(), "config": node.file}));
    }
    output::line(&format!("This node has an identity in {}: nothing to do.", node.state.path().display()))
}

fn told_of_join(node: &Newcomer, joined: &Joined) -> String {
    let mut text = format!("Joined the mesh {} as the node {}.\n\n", joined.mesh, joined.node_id);
    if !joined.groups.is_empty() {
        let _ = writeln!(text, "  groups       {}", joined.groups.join(", "));
    }
    node.tell(&mut text, joined.expires);
    if node.config.as_ref().is_some_and(|config| config.quic.upstreams.is_empty()) {
        let lines = upstream_lines(&joined.upstreams, "  ");
        let _ = write!(text, "\n{} names no node to dial. Add to it:\n\nquic:\n{lines}", node.file.display());
    }
    let _ = write!(text, "\nNext:\n  {}\n", node.command("ffmesh", "", "run the node"));
    text
}

/// The node that is to get an identity, as the command line and an existing file say.
struct Newcomer {
    file: std::path::PathBuf,
    /// None when the file does not exist.
    config: Option<Config>,
    node_id: Option<NodeId>,
    state: StateDir,
}

impl Newcomer {
    fn read(argument: Option<std::path::PathBuf>, choice: &Choice) -> Outcome<Self> {
        let file = place::file(argument, choice)?;
        let config = config_file::load_if_there(&file)?;
        let mut choice = choice.clone();
        if config.is_none() && choice.node.is_none() {
            // The default state directory is named after the id, so the id must be known first.
            choice.node = Some(random_id()?);
        }
        let node_id = place::node_id(&choice, config.as_ref())?;
        let state = place::state_dir(&choice, config.as_ref())?;
        Ok(Self { file, config, node_id, state })
    }

    /// The file that is to be written, when there is none.
    fn new_file(&self) -> Outcome<Option<NewFile>> {
        if self.config.is_some() { Ok(None) } else { NewFile::prepare(&self.file).map(Some) }
    }

    fn first_file(&self, id: &NodeId, port: Option<u16>, upstreams: &[(NodeId, Address)]) -> String {
        let state_dir = (!place::is_default(&self.state, id)).then(|| self.state.path());
        FirstFile { node_id: id, state_dir, listen_port: port, upstreams }.text()
    }

    fn tell(&self, text: &mut String, expires: jiff::Timestamp) {
        let _ = writeln!(
            text,
            "  certificate  until {}; it renews itself",
            expiry(expires, jiff::Timestamp::now())
        );
        let _ = writeln!(text, "  keys         {}", self.state.path().display());
        let written = if self.config.is_none() { "written" } else { "unchanged" };
        let _ = writeln!(text, "  config       {} ({written})", self.file.display());
    }

    /// A command about this node, as it is to be typed.
    fn command(&self, command: &str, before_file: &str, what: &str) -> String {
        let mut line = format!("{command} {before_file}{}", command_path(&self.file));
        let told_by_file = self.config.as_ref().is_none_or(|config| {
            config
                .state_dir
                .as_deref()
                .is_some_and(|dir| StateDir::resolve(None, None, Some(dir), None) == self.state)
        });
        let default = self.node_id.as_ref().is_some_and(|id| place::is_default(&self.state, id));
        if !told_by_file && !default && self.config.is_some() {
            let _ = write!(line, " --state-dir {}", shell_word(&self.state.path().to_string_lossy()));
        }
        format!("{line:<48}  # {what}")
    }
}

/// A path as an argument: one that starts with a hyphen would be an option.
fn command_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('-') { shell_word(&format!("./{text}")) } else { shell_word(&text) }
}

/// 10 random hex digits.
fn random_id() -> Outcome<NodeId> {
    let digits = rand::random::<u64>() & 0xff_ffff_ffff;
    format!("{digits:010x}").parse().map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_word_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let read = || read_token(&TokenSource::File(file.clone()));
        assert!(read().unwrap_err().message().contains("ffmesh token create"));
        std::fs::write(&file, " \n").unwrap();
        assert!(read().unwrap_err().message().contains("it is empty"));
        std::fs::write(&file, "ffm1.x\n").unwrap();
        assert_eq!(read().unwrap(), "ffm1.x");
    }

    #[test]
    fn random_ids_have_ten_digits_and_differ() {
        let (a, b) = (random_id().unwrap(), random_id().unwrap());
        assert_eq!(a.as_str().len(), 10);
        assert_ne!(a, b);
    }
}
