//! `ffmesh nc`: stdin and stdout, connected to a target behind a node.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ffmesh_api::Flow;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::args::Choice;
use crate::client::{Client, OpenFlow};
use crate::failure::{Failure, Outcome};
use crate::format::escape;
use crate::place;

/// As much as a pipe takes.
const BUFFER: usize = 64 * 1024;
/// How soon it is noticed that the flow has ended while stdin is silent. The end of the target's bytes alone is no
/// reason to stop, as it may still be listening.
const END_CHECK: Duration = Duration::from_millis(500);
/// How long a flow whose bytes have ended may take to end in the node's table: the last bytes are acknowledged first,
/// and a reset waits for half a second.
const END_LIMIT: Duration = Duration::from_secs(1);
const END_POLL: Duration = Duration::from_millis(20);

/// Runs until both directions have ended. The end of stdin ends the direction to the target only.
///
/// # Errors
/// When the flow did not end in order: what came out of stdout may be a part of what the target sent.
pub(crate) async fn nc(to: &NodeId, target: &Target, choice: &Choice) -> Outcome {
    let node = place::node(choice)?;
    let client = Client::new(&node);
    let OpenFlow { id, stream, first } = client.nc(to, target).await?;
    let carried = carry(&client, &id, stream, &first).await;
    if let Err(Broken::Here(error)) = carried {
        return Err(Failure::failed(error));
    }
    match (how_it_ended(&client, &id).await?, carried) {
        (Some((Reason::Done, _)) | None, Ok(())) => Ok(()),
        (Some((Reason::Done, _)) | None, Err(Broken::Here(error) | Broken::Flow(error))) => {
            Err(Failure::failed(error))
        }
        (Some((reason, None)), _) => Err(Failure::failed(reason)),
        (Some((reason, Some(detail))), _) => Err(Failure::failed(format!("{reason}: {}", escape(&detail)))),
    }
}

/// Why carrying stopped.
enum Broken {
    /// Stdin or stdout failed.
    Here(String),
    /// The node takes or gives no more of the flow.
    Flow(String),
}

async fn carry(client: &Client<'_>, id: &str, mut stream: UnixStream, first: &[u8]) -> Result<(), Broken> {
    let socket = stream.as_fd().try_clone_to_owned().map_err(|e| Broken::Here(e.to_string()))?;
    let (mut from_target, mut to_target) = stream.split();
    let flow = |e: io::Error| Broken::Flow(format!("the flow was cut: {e}"));
    let up = async {
        let stdin = |e: io::Error| Broken::Here(format!("stdin cannot be read: {e}"));
        copy(&mut tokio::io::stdin(), stdin, &mut to_target, flow).await?;
        to_target.shutdown().await.map_err(flow)
    };
    let down = async {
        let mut out = tokio::io::stdout();
        out.write_all(first).await.map_err(stdout)?;
        out.flush().await.map_err(stdout)?;
        copy(&mut from_target, flow, &mut out, stdout).await
    };
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        sent = &mut up => {
            if let Err(Broken::Here(error)) = sent {
                return Err(Broken::Here(error));
            }
            // What the target said before the flow broke is still to come.
            return down.await.and(sent);
        }
        received = &mut down => received?,
    }
    // A person at a terminal has nothing more to say to a target that has hung up.
    if io::stdin().is_terminal() {
        return Ok(());
    }
    tokio::select! {
        sent = up => sent,
        () = ended(client, id, &socket) => Err(Broken::Flow("the flow was cut".to_owned())),
    }
}

/// Waits until the flow has ended, whatever stdin has still to say.
async fn ended(client: &Client<'_>, id: &str, socket: &OwnedFd) {
    loop {
        sleep(END_CHECK).await;
        // Asked for nothing, poll(2) still tells of a hang-up: the node has closed both directions.
        let mut fds = [PollFd::new(socket, PollFlags::empty())];
        let hung_up = poll(&mut fds, Some(&rustix::event::Timespec::default())).is_ok_and(|ready| ready > 0);
        // A node that does not answer says nothing; one that has gone has hung up.
        if hung_up || matches!(client.flow(id).await, Ok(None | Some(Flow { reason: Some(_), .. }))) {
            return;
        }
    }
}

/// The end of the flow in the node's table; none while its last bytes are still on their way to the target.
async fn how_it_ended(client: &Client<'_>, id: &str) -> Outcome<Option<(Reason, Option<String>)>> {
    let unknown = |why: &str| Failure::failed(format!("how the flow ended is not known: {why}"));
    let start = Instant::now();
    loop {
        match client.flow(id).await {
            Ok(Some(Flow { reason: Some(reason), detail, .. })) => return Ok(Some((reason, detail))),
            Ok(Some(_)) if start.elapsed() >= END_LIMIT => return Ok(None),
            Ok(Some(_)) => sleep(END_POLL).await,
            Ok(None) => return Err(unknown("the node has forgotten it")),
            Err(failure) => return Err(unknown(failure.message())),
        }
    }
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    unreadable: impl Fn(io::Error) -> Broken,
    to: &mut (impl AsyncWriteExt + Unpin),
    unwritable: impl Fn(io::Error) -> Broken,
) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await.map_err(&unreadable)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n]).await.map_err(&unwritable)?;
        // Stdout of tokio keeps what it has until it is told.
        to.flush().await.map_err(&unwritable)?;
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn stdout(error: io::Error) -> Broken {
    Broken::Here(match error.kind() {
        io::ErrorKind::BrokenPipe => "the reader of stdout has gone".to_owned(),
        _ => format!("stdout cannot be written: {error}"),
    })
}
