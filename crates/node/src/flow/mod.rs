//! Flows: proxied connections, each one bidirectional stream of a session.
//!
//! ```text
//! client ── ingress ── open ── stream ── serve ── egress ── target
//!                        └───── carry ─────┘       (both directions, on each node)
//! ```

mod account;
mod carry;
mod entry;
mod open;
mod release;
mod serve;
mod speedtest;
mod table;

pub use account::ProxyTotals;
pub use entry::{Dialled, Flow, FlowStart};
pub use open::{OpenContext, Opened, new_id, open, ping, request};
pub use serve::{ServeContext, serve};
pub use speedtest::{Arrived, MAX_DURATION, Measured, Speedtests, measure};
pub use table::{FlowLimits, Flows};

use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::wire::{Decoder, FrameError, Message, encode};
use noq::{ReadError, RecvStream, SendStream, WriteError};

/// How long the first frame of a stream may take to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest enrolment or renewal request and answer.
const MAX_REQUEST: usize = 64 << 10;

/// Why a stream's first frame did not come.
#[derive(Debug, thiserror::Error)]
enum HeadError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream ended before its first message")]
    End,
}

/// Reads the first message of a stream, and what came behind it.
async fn read_head(stream: &mut RecvStream) -> Result<(Message, Vec<u8>), HeadError> {
    let mut decoder = Decoder::default();
    loop {
        if let Some(envelope) = decoder.message()? {
            return Ok((envelope.message, decoder.into_rest()));
        }
        match stream.read_chunk(usize::MAX).await? {
            Some(bytes) => decoder.push(&bytes),
            None => return Err(HeadError::End),
        }
    }
}

async fn write_head(stream: &mut SendStream, to: &NodeId, message: &Message) -> Result<(), WriteError> {
    stream.write_all(&encode(to, message)).await
}
