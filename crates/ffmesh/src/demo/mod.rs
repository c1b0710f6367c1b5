//! `ffmesh demo`: a mesh of four nodes in one process on loopback, with a web service to reach through it.
//!
//! ```text
//!                                        ┌─▶ relay-1 ◀─┐
//! browser ─▶ 127.0.0.1:8080 ─▶ client ═══┤             ├═══ server ─▶ web service
//!                                        └─▶ relay-2 ◀─┘
//! ```
//!
//! What is typed to it kills a relay and starts it again, and a page of the web service shows that no connection breaks.

mod mesh;
mod relay;
mod terminal;
mod web;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use ffmesh_api::{Route, Status};
use ffmesh_node::config::LogFormat;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::args::Demo;
use crate::client::Client;
use crate::commands::up::Signals;
use crate::failure::{Failure, Outcome};
use crate::format::shell_word;
use crate::run::raise_file_limit;
use crate::{log, output, place};

use mesh::{CLIENT, Mesh, SERVER, Seen};
use terminal::{Command, HELP, Typed, parse};

/// Port of the proxy, unless it is taken.
const PORT: u16 = 8080;
/// Port of the console, unless it is taken: that of the examples of `admin.listen`.
const CONSOLE_PORT: u16 = 9464;
/// How long the first connection through the mesh may take.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
const READY_POLL: Duration = Duration::from_millis(50);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs until `quit`, SIGTERM, SIGINT or the end of its terminal. Its files are in a temporary directory that goes with
/// it.
pub(crate) async fn demo(args: &Demo) -> Outcome {
    // The demo's output is for a newcomer, who is to see warnings but not each step.
    log::start(args.log_level.as_deref(), tracing::Level::WARN, LogFormat::Text)?;
    raise_file_limit();
    let mut signals = Signals::listen()?;
    let (port, taken) = free_port(args.port, PORT)?;
    let (console, _) = free_port(None, CONSOLE_PORT)?;
    let dir = tempfile::Builder::new().prefix("ffmesh-demo-").tempdir()?;

    let ended = tokio::select! {
        mesh = start(dir.path(), port, console) => {
            let mut mesh = mesh?;
            let mut typed = Typed::new(args.json);
            tell(&mesh, args.json, port, taken, typed.is_open()).await?;
            tokio::select! {
                obeyed = obey_all(&mut mesh, &mut typed, args.json) => obeyed?,
                _ = signals.next() => {}
            }
            tokio::select! {
                () = mesh.stop() => Ok(()),
                name = signals.next() => Err(Failure::failed(format!("a second signal ({name}) ended the demo at once"))),
            }
        }
        name = signals.next() => Err(Failure::failed(format!("{name} came before the demo had started"))),
    };
    dir.close()?;
    ended
}

/// Starts web service and nodes, and waits for the first page that comes through.
async fn start(dir: &std::path::Path, port: u16, console: u16) -> Outcome<Mesh> {
    let web = web::start(SERVER.parse().map_err(Failure::failed)?).await?;
    let mesh = Mesh::start(dir, port, console, web).await?;
    reach(port).await?;
    Ok(mesh)
}

/// Says where it is and what to try.
async fn tell(mesh: &Mesh, json: bool, port: u16, taken: bool, can_type: bool) -> Outcome {
    let url = format!("http://127.0.0.1:{port}/");
    let nodes = mesh.nodes();
    let console = console(mesh).await;
    if json {
        let commands = |node: &Seen<'_>| {
            let verbs: &[&str] = if node.is_relay { &["kill", "start"] } else { &[] };
            verbs.iter().map(|verb| format!("{verb} {}", node.id)).collect::<Vec<_>>()
        };
        let node = |node: &Seen<'_>| json!({"node_id": node.id, "state_dir": node.state.path(), "commands": commands(node)});
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        return output::json(
            &json!({"web": url, "console": console, "admin": mesh.admin.to_string(), "nodes": nodes}),
        );
    }
    let dir = |name: &str| {
        let node = nodes.iter().find(|node| node.id.as_str() == name);
        node.map(|node| shell_word(&node.state.path().to_string_lossy())).unwrap_or_default()
    };
    let (client, relay) = (dir(CLIENT), dir("relay-2"));
    let mut text = format!(
        "A mesh of four nodes is running on this machine:\n\n  \
         browser -> 127.0.0.1:{port} -> client == relay-1 or relay-2 == server -> web service\n\n\
         Open   {url}   its clock comes over one connection\n       \
         {console}   the client's console; the link is good for one minute{again}\n",
        again = if can_type { ", `console` gives a new one" } else { "" }
    );
    if taken {
        let _ = writeln!(text, "(port {PORT} is taken, so this is a free one)");
    }
    if can_type {
        let _ = write!(
            text,
            "\nBreak  type   kill relay-1\n       \
             and see that the clock goes on; then   start relay-1   and   kill relay-2\n       \
             (`status` shows what the mesh does about it, `help` the rest)\n"
        );
    }
    let _ = write!(
        text,
        "\nTry    curl -N {url}stream\n       \
         curl -o /dev/null '{url}big?mib=1024'\n       \
         curl --data-binary hello {url}echo\n       \
         ffmesh status --state-dir {client}\n       \
         ffmesh routes {SERVER} --state-dir {client}\n       \
         ffmesh trace {SERVER} --state-dir {client}\n       \
         ffmesh flows --state-dir {client}\n       \
         ffmesh peers --state-dir {relay}\n\n\
         Ctrl-C ends it and removes its files.\n"
    );
    output::text(&text)
}

/// Does what is typed, and what nodes are told with `ffmesh drain`, until `quit` or until an end of the mesh has
/// drained. With `json` each answer is a line of JSON.
async fn obey_all(mesh: &mut Mesh, typed: &mut Typed, json: bool) -> Outcome {
    loop {
        let (line, answer) = tokio::select! {
            line = typed.next() => {
                let answer = match parse(&line) {
                    Ok(Command::Quit) => return Ok(()),
                    Ok(command) => obey(mesh, command).await.map_err(|failure| failure.printable()),
                    Err(error) => Err(error),
                };
                (line, answer)
            }
            id = mesh.drain_asked() => {
                // Without client or server there is no demo.
                let Ok(relay) = mesh.relay(&id) else { return Ok(()) };
                relay.stop().await;
                (format!("drain {id}"), Ok(format!("{id} has drained and ended; `start {id}` brings it back")))
            }
        };
        if json {
            let nodes: Vec<_> = mesh.nodes().iter().map(running).collect();
            let (ok, text) = (answer.is_ok(), answer.unwrap_or_else(|error| error));
            output::json(&json!({"command": line.trim(), "ok": ok, "text": text, "nodes": nodes}))?;
        } else {
            output::line(&answer.unwrap_or_else(|error| error))?;
        }
    }
}

fn running(node: &Seen<'_>) -> Value {
    json!({"node_id": node.id, "running": node.runs})
}

async fn obey(mesh: &mut Mesh, command: Command) -> Outcome<String> {
    match command {
        Command::Kill(id) => {
            mesh.relay(&id)?.kill().await?;
            Ok(if mesh.relays.iter().any(relay::Relay::runs) {
                format!("{id} is dead; `start {id}` brings it back")
            } else {
                format!("{id} is dead, and no relay is left: connections wait for one")
            })
        }
        Command::Start(id) => {
            mesh.relay(&id)?.start()?;
            Ok(format!("{id} runs again"))
        }
        Command::Status => status(mesh).await,
        Command::Console => Ok(console(mesh).await),
        Command::Help | Command::Quit => Ok(HELP.to_owned()),
    }
}

/// A link to the console of the client: a new one each time, which logs one browser in. Without a code the console
/// asks for the token.
async fn console(mesh: &Mesh) -> String {
    let code = async {
        let client = mesh.nodes().into_iter().find(|node| node.id.as_str() == CLIENT)?;
        let node = place::Node { state: client.state.clone(), config: None };
        let code = Client::new(&node).post::<Value>("login-codes", &json!({})).await.ok()?;
        Some(code["url"].as_str()?.to_owned())
    };
    code.await.unwrap_or_else(|| format!("http://{}/", mesh.admin))
}

/// What each node says of itself, and by which routes the client reaches the server.
async fn status(mesh: &Mesh) -> Outcome<String> {
    let (mut text, mut routes) = (String::new(), Vec::new());
    for Seen { id, state, runs, .. } in mesh.nodes() {
        if !runs {
            let _ = writeln!(text, "{:<8}  dead", id.as_str());
            continue;
        }
        let node = place::Node { state: state.clone(), config: None };
        let client = Client::new(&node);
        let (_, status) = client.get::<Status>("status").await?;
        let _ = writeln!(
            text,
            "{:<8}  runs: {} links, {} flows, {} failovers, {} packets carried for others",
            id.as_str(),
            status.links_up,
            status.flows_open,
            status.failovers,
            status.transit.packets
        );
        if id.as_str() == CLIENT {
            routes = client.get::<Vec<Route>>(&format!("routes?node={SERVER}")).await?.1;
        }
    }
    for route in routes {
        let path: Vec<_> = route.path.iter().map(ToString::to_string).collect();
        let path = if path.is_empty() { format!("no route to {}", route.node_id) } else { path.join(" > ") };
        let _ = writeln!(text, "{path}: {}", crate::commands::routes::state_word(route.state));
    }
    Ok(text.trim_end().to_owned())
}

/// The port that was asked for, or the usual one, or a free one; and whether the usual one was taken.
fn free_port(asked: Option<u16>, usual: u16) -> Outcome<(u16, bool)> {
    let free = |port| TcpListener::bind((LOOPBACK, port)).and_then(|listener| listener.local_addr());
    match (asked, free(asked.unwrap_or(usual))) {
        (_, Ok(address)) => Ok((address.port(), false)),
        (Some(port), Err(error)) => Err(Failure::failed(format!(
            "port {port} of 127.0.0.1 cannot be used: {error}\nname another one, or leave --port out"
        ))),
        (None, Err(_)) => Ok((free(0)?.port(), true)),
    }
}

/// Fetches a page through the mesh until one comes back.
async fn reach(port: u16) -> Outcome {
    let reached = async {
        while !fetch(port).await.unwrap_or(false) {
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::time::timeout(READY_TIMEOUT, reached).await.map_err(|_| {
        Failure::failed(format!(
            "nothing came back through the mesh within {} s\nrun it with --log-level debug to see why",
            READY_TIMEOUT.as_secs()
        ))
    })
}

async fn fetch(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((LOOPBACK, port)).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply.starts_with("HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_when_it_was_asked_for() {
        let taken = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(free_port(Some(port), PORT).unwrap_err().status(), 1);
        drop(taken);
        assert_eq!(free_port(Some(port), PORT).unwrap(), (port, false));
    }

    #[tokio::test]
    async fn the_web_service_says_that_it_is_there() {
        let web = web::start("server".parse().unwrap()).await.unwrap();
        assert!(fetch(web.port()).await.unwrap());
    }

    #[tokio::test]
    async fn relays_are_killed_and_started_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let web = web::start("server".parse().unwrap()).await.unwrap();
        let [port, console] = [(); 2].map(|()| free_port(Some(0), PORT).unwrap().0);
        let mut mesh = Mesh::start(dir.path(), port, console, web).await.unwrap();
        let names: Vec<_> = mesh.nodes().iter().map(|node| node.id.to_string()).collect();
        assert_eq!(names, ["client", "relay-1", "relay-2", "server"]);

        let mut obeyed = async |line: &str| obey(&mut mesh, parse(line).unwrap()).await;
        while !obeyed("status").await.unwrap().contains("client    runs: 2 links") {
            tokio::time::sleep(READY_POLL).await;
        }
        for (line, part) in [
            ("kill relay-1", "is dead; `start relay-1`"),
            ("status", "relay-1   dead"),
            // It has said no goodbye: its neighbours find out later.
            ("status", "client    runs: 2 links"),
            ("kill relay-2", "no relay is left"),
            ("start relay-1", "runs again"),
            ("start relay-2", "runs again"),
            ("status", "relay-2   runs"),
        ] {
            let text = obeyed(line).await.unwrap();
            assert!(text.contains(part), "{line}: {text}");
        }
        for (line, part) in [
            ("start relay-1", "runs already"),
            ("kill server", "no relay; there are relay-1 and relay-2"),
            ("kill nobody", "no relay"),
        ] {
            let error = obeyed(line).await.unwrap_err();
            assert!(error.message().contains(part), "{line}: {}", error.message());
        }
        mesh.stop().await;
    }
}
