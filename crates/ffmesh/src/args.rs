//! The command line: names, help and examples. What each command does is in [`crate::commands`].

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use ffmesh_api::Change;
use ffmesh_core::id::{MeshName, NodeId};
use ffmesh_core::target::Target;
use ffmesh_node::config::Address;
use ffmesh_node::flow::MAX_DURATION;

use crate::format::parse_duration;

/// A mesh of nodes joined by QUIC: a port on one node reaches a service behind another.
#[derive(Debug, Parser)]
#[command(
    name = "ffmesh",
    version,
    arg_required_else_help = true,
    after_help = "`ffmesh CONFIG.yaml` is short for `ffmesh up CONFIG.yaml`.\n\n\
        Examples:\n  \
        ffmesh demo                                 a mesh on this machine, to try\n  \
        ffmesh init a.yaml                          found a mesh\n  \
        ffmesh a.yaml                               run its first node\n  \
        ffmesh token create --config a.yaml         let another machine in\n  \
        ffmesh join ffm1.… b.yaml && ffmesh b.yaml  there\n\n\
        Exit status: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which node of this machine is meant. May stand before the command or after it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Choosing the node")]
pub(crate) struct Choice {
    /// The node with this id
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<NodeId>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// [`Choice`] without `--node`, for commands where that names another node.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Choosing the node")]
pub(crate) struct Place {
    /// The node of this configuration file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The node with this state directory; overrides FFMESH_STATE_DIR and the file's `state_dir`
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

impl Choice {
    /// What stands after the command goes before what stands before it.
    pub(crate) fn or(self, outer: Self) -> Self {
        Self { node: self.node.or(outer.node), place: self.place.or(outer.place) }
    }
}

impl Place {
    pub(crate) fn or(self, outer: Self) -> Self {
        Self { config: self.config.or(outer.config), state_dir: self.state_dir.or(outer.state_dir) }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the node in the foreground
    #[command(after_help = "Examples:\n  ffmesh up /etc/ffmesh/a.yaml\n  \
        ffmesh up a.yaml --log-level debug\n  ffmesh up a.yaml --log-level info,ffmesh_node::link=trace\n\n\
        SIGHUP applies the file again; SIGTERM and SIGINT let the node end in order; a second one ends it at once.")]
    Up(Up),
    /// Run a whole small mesh on loopback, with a web service to reach through it
    #[command(after_help = "Examples:\n  ffmesh demo\n  ffmesh demo --port 9000\n  ffmesh demo --json\n\n\
        Type `kill relay-1` and `start relay-1` to it to see that no connection breaks; `help` shows the rest. With \
        --json these lines may come from a pipe, and each is answered with a line of JSON.")]
    Demo(Demo),
    /// Check a configuration file
    #[command(after_help = "Examples:\n  ffmesh check a.yaml\n  ffmesh check a.yaml --json\n\n\
        Exit status 2 when the file has errors; warnings alone are no error.")]
    Check(Check),
    /// Look for what usually goes wrong on this machine, and say what to do
    #[command(after_help = "Examples:\n  ffmesh doctor a.yaml\n  ffmesh doctor a.yaml --json\n\n\
        It looks at the configuration, the state directory, the certificate, ports, upstreams, clocks, path MTUs and \
        limits of the system, whether the node is running or not, and changes nothing. Exit status 1 when something \
        failed; warnings alone are no failure. 2 when the configuration has errors.")]
    Doctor(Check),
    /// Found a mesh: make its authority and the identity of its first node
    #[command(after_help = "Examples:\n  ffmesh init a.yaml\n  \
        ffmesh init a.yaml --listen 4000 --advertise vps.example.com:4000 --mesh home\n\n\
        CONFIG is written when it does not exist, and never changed when it does. The node's id is that of \
        CONFIG or --node; without either it is made up.")]
    Init(Init),
    /// Make a token, with which another node joins
    #[command(
        after_help = "Examples:\n  ffmesh token create\n  ffmesh token create --ttl 10m --uses 5 --group dev"
    )]
    Token(Token),
    /// Join a mesh with a token from one of its nodes
    #[command(after_help = "Examples:\n  ffmesh join ffm1.… b.yaml\n  ffmesh join - b.yaml < token\n  \
        ffmesh join --if-needed @/etc/ffmesh/token b.yaml\n\n\
        CONFIG is written when it does not exist, and never changed when it does. The node's id is that of \
        CONFIG or --node; without either it is made up.")]
    Join(Join),
    /// The node at a glance: links, bytes, latency, errors
    #[command(
        after_help = "Examples:\n  ffmesh status\n  ffmesh status --config a.yaml\n  ffmesh status --json"
    )]
    Status(Show),
    /// The nodes it is linked to, or wants to be
    #[command(after_help = "Examples:\n  ffmesh peers\n  ffmesh peers --json")]
    Peers(Show),
    /// The ways to other nodes, with their cost, hops and state
    #[command(
        after_help = "Examples:\n  ffmesh routes\n  ffmesh routes 88b2c4d4e5\n  ffmesh routes --json\n\n\
        The best route to a node comes first. in use: traffic takes it; warm: takes over at once; impaired: loses \
        too much; down: does not answer; known: nobody uses it; unreachable: there is none."
    )]
    Routes(Routes),
    /// Its local listeners
    #[command(after_help = "Examples:\n  ffmesh proxies\n  ffmesh proxies --json")]
    Proxies(Show),
    /// What the nodes of the mesh offer by name
    #[command(after_help = "Examples:\n  ffmesh services\n  ffmesh services --json\n\n\
        This node's come first. Where a service is and who may use it, its own node knows alone.")]
    Services(Show),
    /// Changes of state as they happen: links, nodes, failovers, sessions
    #[command(after_help = "Examples:\n  ffmesh events\n  ffmesh events --kinds peer,failover\n  \
        ffmesh events --json\n\n\
        Samples (one a second) and lines of the log come only with --kinds sample,log. Goes on until Ctrl-C. With --json \
        each event is one line. Exit status 1 when the node ends.")]
    Events(Events),
    /// The connections it carries, and how the last ones ended
    #[command(
        after_help = "Examples:\n  ffmesh flows\n  ffmesh flows --ended --limit 0\n  ffmesh flows --json\n\n\
        The newest come last. --json prints all that the node knows, whatever the limit."
    )]
    Flows(Flows),
    /// Apply the configuration file again, without breaking connections that the change doesn't concern
    #[command(
        after_help = "Examples:\n  ffmesh reload\n  ffmesh reload --config a.yaml\n  ffmesh reload --json\n\n\
        A file with errors changes nothing. Exit status 1 then, and when a proxy cannot listen as the file says; what \
        takes a restart is named and is no error."
    )]
    Reload(Show),
    /// Round trips to a node, end to end
    #[command(after_help = "Examples:\n  ffmesh ping 88b2c4d4e5\n  ffmesh ping 88b2c4d4e5 -c 100 -i 0.2\n  \
        ffmesh ping 88b2c4d4e5 -c 0\n\nExit status 1 when nothing came back.")]
    Ping(Ping),
    /// The nodes on the way to a node, with each one's round trip time and that of the link before it
    #[command(after_help = "Examples:\n  ffmesh trace 88b2c4d4e5\n  ffmesh trace 88b2c4d4e5 -c 10\n  \
        ffmesh trace 88b2c4d4e5 --json\n\n\
        RTT is from here to the hop and back; LINK RTT and LINK LOSS are of the hop's link to the one before it. \
        With --json each trace is one line. Exit status 1 when the node was not reached.")]
    Trace(Trace),
    /// Print a link that opens the node's console in a browser
    #[command(after_help = "Examples:\n  ffmesh console\n  xdg-open \"$(ffmesh console)\"\n  \
        ffmesh console --json\n\nThe link works once, within a minute. The console is there when `admin.listen` is set.")]
    Console(Show),
    /// Let the node end: no new flows, and the open ones may finish
    #[command(after_help = "Examples:\n  ffmesh drain\n  ffmesh drain --config a.yaml --no-wait\n  \
        ffmesh drain --json\n\n\
        The same as SIGTERM. The node tells the mesh, which takes other ways, and ends as soon as nothing goes through \
        it any more, at the latest after `mesh.drain_timeout`. Ctrl-C ends this command only.")]
    Drain(Drain),
    /// Throughput to a node and back over the mesh, with no service behind it
    #[command(after_help = "Examples:\n  ffmesh speedtest 88b2c4d4e5\n  \
        ffmesh speedtest 88b2c4d4e5 --duration 10s\n  ffmesh speedtest 88b2c4d4e5 --json\n\n\
        It takes the whole line for that long, one direction after the other. RTT is that of echoes before and \
        meanwhile: how much it grows is what a full line costs others.")]
    Speedtest(Speedtest),
    /// Connect stdin and stdout to a target behind a node
    #[command(after_help = "Examples:\n  ffmesh nc 88b2c4d4e5 127.0.0.1:80\n  \
        ssh -o ProxyCommand='ffmesh nc 88b2c4d4e5 127.0.0.1:22' user@88b2c4d4e5\n  \
        ffmesh nc 88b2c4d4e5 unix:/run/web.sock\n\n\
        Exit status 1, with the reason, when the target cannot be reached or the connection is cut.")]
    Nc(Nc),
    /// Print the completion script for a shell
    #[command(after_help = "Examples:\n  \
        ffmesh completion bash > ~/.local/share/bash-completion/completions/ffmesh\n  \
        ffmesh completion zsh > ~/.zfunc/_ffmesh\n  \
        ffmesh completion fish > ~/.config/fish/completions/ffmesh.fish")]
    Completion(Completion),
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The configuration file
    #[arg(value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config_file: Option<PathBuf>,
    /// error, warn, info, debug, trace, or directives; overrides FFMESH_LOG and `log.level`
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    #[command(flatten)]
    pub(crate) choice: Choice,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Port of the proxy on 127.0.0.1, 0 for any free one; without it 8080, or a free one when that is taken
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Print one line of JSON when it is ready, one for each command on stdin, and nothing else to stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// error, warn, info, debug, trace, or directives; overrides FFMESH_LOG
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The configuration file
    #[arg(value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The configuration file
    #[arg(value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config_file: Option<PathBuf>,
    /// UDP port that other nodes reach this one at; without it that of the file, or 3334
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) listen: Option<u16>,
    /// Where other nodes reach this one, for tokens; may be repeated
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(crate) advertise: Vec<Address>,
    /// Name of the mesh; made up without it
    #[arg(long, value_name = "NAME")]
    pub(crate) mesh: Option<MeshName>,
    /// How long certificates of nodes live; they renew themselves
    #[arg(long, value_name = "DURATION", default_value = "180d", value_parser = parse_duration)]
    pub(crate) cert_ttl: Duration,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
    #[command(flatten)]
    pub(crate) choice: Choice,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print the command with which another node joins
    #[command(after_help = "Examples:\n  ffmesh token create\n  \
        ffmesh token create --ttl 10m --uses 5 --group dev\n  ffmesh token create --node 88b2c4d4e5 --json\n\n\
        --node after `create` names the node that may join; where the machine has several nodes, choose the \
        one that makes the token with --config, --state-dir or `ffmesh --node ID token create`.")]
    Create(TokenCreate),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// How long it can be used
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub(crate) ttl: Duration,
    /// How many nodes can join with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// The only node that may join with it; it may also replace that node's key
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<NodeId>,
    /// A group of the joining node; may be repeated
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// The joining node must not carry traffic of others
    #[arg(long)]
    pub(crate) no_relay: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The token: ffm1.…, @FILE to read it from a file, or - to read it from stdin
    pub(crate) token: TokenSource,
    /// Do nothing when this node has an identity; the token is not read then
    #[arg(long)]
    pub(crate) if_needed: bool,
    /// The configuration file
    #[arg(value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) show: Show,
}

/// A command that prints what a node knows.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) choice: Choice,
}

#[derive(Debug, Args)]
pub(crate) struct Routes {
    /// Only those to the node with this id
    #[arg(value_name = "NODE")]
    pub(crate) to: Option<NodeId>,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Flows {
    /// Only those that ended
    #[arg(long, conflicts_with = "open")]
    pub(crate) ended: bool,
    /// Only those that are open
    #[arg(long)]
    pub(crate) open: bool,
    /// Show at most this many of each; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only these kinds: peer, node, topology, failover, session, proxy, service, reload, drain, certificate, sample, log;
    /// without it all but sample and log
    #[arg(long, value_name = "KINDS", value_parser = kinds)]
    pub(crate) kinds: Option<String>,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// Id of the node to reach
    #[arg(value_name = "NODE")]
    pub(crate) to: NodeId,
    /// How many; 0 goes on until Ctrl-C
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    pub(crate) count: u32,
    /// Seconds from one to the next
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    pub(crate) interval: f64,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// Id of the node to reach
    #[arg(value_name = "NODE")]
    pub(crate) to: NodeId,
    /// How many traces, one a second
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Do not wait until the node has ended
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Speedtest {
    /// Id of the node at the other end
    #[arg(value_name = "NODE")]
    pub(crate) to: NodeId,
    /// How long each direction is measured, 1s to 30s
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = test_duration)]
    pub(crate) duration: Duration,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Debug, Args)]
pub(crate) struct Nc {
    /// Id of the node that dials
    #[arg(value_name = "NODE")]
    pub(crate) to: NodeId,
    /// What it dials: host:port, [v6]:port or unix:/path
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) choice: Choice,
}

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
    #[command(flatten)]
    pub(crate) choice: Choice,
}

/// Where `join` finds its token. Other users of a machine see the arguments of its commands, but not its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// The argument itself
    Argument(String),
    /// A file
    File(PathBuf),
    /// Standard input
    Stdin,
}

impl FromStr for TokenSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix('@') {
            Some(file) => Self::File(file.into()),
            None if text == "-" => Self::Stdin,
            None => Self::Argument(text.to_owned()),
        })
    }
}

fn address(text: &str) -> Result<Address, String> {
    match text.parse() {
        Ok(Target::Port { host, port }) => Ok(Address { host, port }),
        Ok(Target::Unix(_)) => Err("expected host:port".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Kinds of events with commas between them.
fn kinds(text: &str) -> Result<String, String> {
    let known = Change::KINDS;
    let words: Vec<_> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    match words.iter().find(|word| !known.contains(word)) {
        _ if words.is_empty() => Err("expected words such as peer,failover".to_owned()),
        Some(word) => Err(format!("{word:?} is no kind of event; there are {}", known.join(", "))),
        None => Ok(words.join(",")),
    }
}

fn test_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(duration) if duration > MAX_DURATION => Err("at most 30s: it takes the whole line".to_owned()),
        other => other,
    }
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds from 0.01 to 3600".to_owned()),
    }
}

/// Puts `up` before a configuration file that stands where a command would: the seed's `ffmesh CONFIG.yaml`.
pub(crate) fn with_up(mut args: Vec<OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let takes_value = |flag: &str| {
        flag == "--log-level"
            || command.get_opts().any(|option| option.get_long().is_some_and(|long| flag[2..] == *long))
    };
    let mut at = 1;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        if !arg.starts_with('-') {
            break;
        }
        at += if arg.starts_with("--") && arg.len() > 2 && takes_value(arg) { 2 } else { 1 };
    }
    let Some(word) = args.get(at) else { return args };
    if command.find_subcommand(word).is_none() && is_config(Path::new(word)) {
        let up = OsString::from("up");
        // Options of `up` may stand before the file as well.
        args.insert(1, up);
    }
    args
}

fn is_config(path: &Path) -> bool {
    let yaml =
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
    yaml || (path.exists() && !path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inserted(line: &str) -> String {
        let args = line.split_whitespace().map(OsString::from).collect();
        with_up(args).join(std::ffi::OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_where_a_command_would_be_is_run() {
        assert_eq!(inserted("ffmesh a.yaml"), "ffmesh up a.yaml");
        assert_eq!(inserted("ffmesh dir/a.YML"), "ffmesh up dir/a.YML");
        assert_eq!(inserted("ffmesh --state-dir s a.yaml"), "ffmesh up --state-dir s a.yaml");
        assert_eq!(inserted("ffmesh --log-level debug a.yaml"), "ffmesh up --log-level debug a.yaml");
        assert_eq!(inserted("ffmesh Cargo.toml"), "ffmesh up Cargo.toml");
    }

    #[test]
    fn commands_and_their_misspellings_stay() {
        for line in
            ["ffmesh", "ffmesh status", "ffmesh staus", "ffmesh up a.yaml", "ffmesh --config a.yaml status"]
        {
            assert_eq!(inserted(line), line);
        }
    }
}
