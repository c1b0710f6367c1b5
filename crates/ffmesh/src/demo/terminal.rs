//! What is typed to a running demo: `kill relay-1`, `start relay-1`, `status`, `console`, `help`, `quit`.

use std::io::{IsTerminal, stdin};

use ffmesh_core::id::NodeId;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

/// A line that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// End a relay without a word to its neighbours
    Kill(NodeId),
    /// Start it again
    Start(NodeId),
    /// What the nodes are doing
    Status,
    /// A new link to the console
    Console,
    /// What can be typed
    Help,
    /// End the demo
    Quit,
}

pub(super) const HELP: &str = "\
kill relay-1    end a relay as if its machine had lost power; the stream goes on over the other
start relay-1   start it again
status          the nodes and the routes that the client uses
console         a new link to the console; each is good for one browser and for a minute
quit            end the demo
With both relays dead the stream stands still, and goes on as soon as one is back.";

/// Reads one line. The error is a sentence for who typed it.
pub(super) fn parse(line: &str) -> Result<Command, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let node = |name: &str| name.parse().map_err(|error| format!("{name} {error}"));
    match words[..] {
        ["kill", name] => Ok(Command::Kill(node(name)?)),
        ["start", name] => Ok(Command::Start(node(name)?)),
        ["kill" | "start"] => Err(format!("{line} which node? For example: {line} relay-1")),
        ["status"] => Ok(Command::Status),
        ["console"] => Ok(Command::Console),
        ["help" | "?"] => Ok(Command::Help),
        ["quit" | "exit"] => Ok(Command::Quit),
        _ => Err("not understood; `help` shows what can be typed".to_owned()),
    }
}

/// The lines that are typed, one by one.
pub(super) struct Typed(Option<Lines<BufReader<Stdin>>>);

impl Typed {
    /// Reads from a terminal that this process is in the foreground of. What is no terminal is read only where a program
    /// is expected to write to it (`piped`).
    pub(super) fn new(piped: bool) -> Self {
        let reads = if stdin().is_terminal() { in_foreground() } else { piped };
        Self(reads.then(|| BufReader::new(tokio::io::stdin()).lines()))
    }

    /// Whether somebody can type.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// The next line that is not blank. After the last one it waits for ever: the end of stdin ends nothing.
    pub(super) async fn next(&mut self) -> String {
        while let Some(lines) = &mut self.0 {
            match lines.next_line().await {
                Ok(Some(line)) if line.trim().is_empty() => {}
                Ok(Some(line)) => return line,
                Ok(None) | Err(_) => self.0 = None,
            }
        }
        std::future::pending().await
    }
}

/// Whether reading the terminal would not stop this process (SIGTTIN), as it does to one that a shell runs with `&`.
fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_or_explained() {
        let relay: NodeId = "relay-1".parse().unwrap();
        assert_eq!(parse("kill relay-1"), Ok(Command::Kill(relay.clone())));
        assert_eq!(parse("  start \t RELAY-1 "), Ok(Command::Start(relay)));
        assert_eq!(parse("status"), Ok(Command::Status));
        assert_eq!(parse("?"), Ok(Command::Help));
        assert_eq!(parse("quit"), Ok(Command::Quit));
        for (line, part) in [
            ("kill", "For example: kill relay-1"),
            ("start a.b", "'.'"),
            ("kill a b", "`help`"),
            ("restart relay-1", "`help`"),
            ("", "`help`"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line:?}: {error}");
        }
        for line in HELP.lines().filter(|line| line.contains("   ")) {
            let typed = line.split("   ").next().unwrap();
            assert!(parse(typed).is_ok(), "{typed:?} is in the help");
        }
    }
}
