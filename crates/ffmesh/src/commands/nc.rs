//! `ffmesh nc`: stdin and stdout, connected to a target behind a node.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::target::Target;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::args::Choice;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::place;

/// As much as a pipe takes.
const BUFFER: usize = 64 * 1024;
/// How soon it is noticed that the flow has ended while stdin is silent. The end of the target's bytes alone is no
/// reason to stop, as it may still be listening.
const HANGUP_CHECK: Duration = Duration::from_millis(200);

/// Runs until both directions have ended. The end of stdin ends the direction to the target only.
pub(crate) async fn nc(to: &NodeId, target: &Target, choice: &Choice) -> Outcome {
    let node = place::node(choice)?;
    let (stream, first) = Client::new(&node.state).nc(to, target).await?;
    carry(stream, &first).await
}

async fn carry(mut stream: UnixStream, first: &[u8]) -> Outcome {
    let socket = stream.as_fd().try_clone_to_owned()?;
    let (mut from_target, mut to_target) = stream.split();
    let up = async {
        let sent = copy(&mut tokio::io::stdin(), &mut to_target).await;
        match sent {
            Ok(()) => to_target.shutdown().await.map_err(cut),
            Err(error) => Err(error),
        }
    };
    let down = async {
        let mut stdout = tokio::io::stdout();
        stdout.write_all(first).await.map_err(Failure::from)?;
        stdout.flush().await?;
        copy(&mut from_target, &mut stdout).await
    };
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        sent = &mut up => {
            sent?;
            return down.await;
        }
        received = &mut down => received?,
    }
    // A person at a terminal has nothing more to say to a target that has hung up.
    if io::stdin().is_terminal() {
        return Ok(());
    }
    tokio::select! {
        sent = up => sent,
        () = hung_up(&socket) => Err(Failure::failed("the flow was cut; `ffmesh flows --ended` says why")),
    }
}

async fn hung_up(socket: &OwnedFd) {
    loop {
        tokio::time::sleep(HANGUP_CHECK).await;
        // Asked for nothing, poll(2) still tells of a hang-up: the node has closed both directions.
        let mut fds = [PollFd::new(socket, PollFlags::empty())];
        if poll(&mut fds, Some(&rustix::event::Timespec::default())).is_ok_and(|ready| ready > 0) {
            return;
        }
    }
}

async fn copy(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) -> Outcome {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await.map_err(cut)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n]).await.map_err(cut)?;
        // Stdout of tokio keeps what it has until it is told.
        to.flush().await.map_err(cut)?;
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn cut(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Failure::failed(
            "the flow was cut, or the reader of stdout has gone; `ffmesh flows --ended` says why",
        ),
        _ => Failure::failed(format!("the flow was cut: {error}")),
    }
}
