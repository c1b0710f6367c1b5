//! Opening the control channel: certificates, SYN_MSG and SYN_ACK_MSG.

use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::wire::{Decoder, Message, SynAckMsg, SynMsg, VERSION, encode};
use ffmesh_udp::canonical;
use noq::{Connecting, Connection, ConnectionError, PathId, RecvStream, SendStream, VarInt};
use tokio::sync::oneshot;

use super::{Link, LinkContext, LinkEvent, Made, code, run};
use crate::identity::{Expected, PeerIdentity, explain_connection_error};
use crate::socket::Dialling;
use crate::transport::HANDSHAKE_TIMEOUT;

/// How long a refused neighbour is given to read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Why a link did not come about, as a sentence for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(pub String);

impl LinkError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The bytes and messages of a control stream, read.
pub(super) struct ControlReader {
    own: NodeId,
    stream: RecvStream,
    decoder: Decoder,
}

impl ControlReader {
    fn new(own: NodeId, stream: RecvStream) -> Self {
        Self { own, stream, decoder: Decoder::for_link() }
    }

    /// The next message; cancel safe.
    pub(super) async fn next(&mut self) -> Result<Message, LinkError> {
        loop {
            match self.decoder.message().map_err(|e| LinkError::new(e.to_string()))? {
                Some(envelope) if envelope.to == self.own => return Ok(envelope.message),
                // Nothing is forwarded: every message names the neighbour it is for.
                Some(envelope) => tracing::debug!("control message for {} ignored", envelope.to),
                None => match self.stream.read_chunk(usize::MAX).await {
                    Ok(Some(bytes)) => self.decoder.push(&bytes),
                    Ok(None) => return Err(LinkError::new("it closed the control stream")),
                    Err(e) => return Err(LinkError::new(format!("the control stream broke: {e}"))),
                },
            }
        }
    }
}

/// A dialled connection whose certificate was accepted here, and maybe not there.
pub(super) struct Connected {
    connection: Connection,
    dialling: Dialling,
}

/// Completes the TLS handshake of a dialled connection.
pub(super) async fn connect(
    connecting: Connecting,
    dialling: Dialling,
    node: &NodeId,
) -> Result<Connected, LinkError> {
    let expected = Expected::dialled(canonical(connecting.remote_address()), node);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(Connected { connection, dialling }),
        Ok(Err(e)) => Err(LinkError(explain_connection_error(&e, &expected))),
        Err(_) => Err(LinkError(explain_connection_error(&ConnectionError::TimedOut, &expected))),
    }
}

/// The dialling side: sends SYN_MSG, awaits SYN_ACK_MSG, and runs the link.
pub(super) async fn open(
    context: &LinkContext,
    connected: Connected,
    node: &NodeId,
    made: Made,
) -> Result<Link, LinkError> {
    let Connected { connection, dialling } = connected;
    let peer = identity(context, &connection)?;
    if peer.id != *node {
        connection.close(VarInt::from_u32(code::REFUSED), b"wrong node");
        return Err(LinkError(format!("the node there is {}, not {node}", peer.id)));
    }
    let opened = async {
        let (mut send, stream) = connection
            .open_bi()
            .await
            .map_err(|e| closed(&connection, Some(node)).unwrap_or(LinkError(e.to_string())))?;
        write(&mut send, node, &Message::SynMsg(context.syn())).await?;
        let mut reader = ControlReader::new(context.credentials.node_id(), stream);
        let answer = reader.next().await.map_err(|e| closed(&connection, Some(node)).unwrap_or(e))?;
        Ok::<_, LinkError>((send, reader, answer))
    };
    let (send, reader, answer) = limited(opened).await?;
    let ack = match answer {
        Message::SynAckMsg(ack) if ack.result => ack,
        Message::SynAckMsg(ack) => {
            let reason = ack.reason.unwrap_or_else(|| "no reason given".to_owned());
            return Err(LinkError(format!("{node} refused the link: {}", reason.escape_debug())));
        }
        other => {
            connection.close(VarInt::from_u32(code::PROTOCOL), b"expected SYN_ACK_MSG");
            return Err(LinkError(format!("{node} answered with a message of type {}", other.number())));
        }
    };
    check(context, &peer, &ack.syn)?;
    drop(dialling); // the neighbour has answered: the handshake is confirmed
    let (link, outbox) = Link::new(connection, peer, ack.syn, made);
    admit(context, &link).await.inspect_err(|e| link.close(code::REPLACED, &e.0))?;
    tokio::spawn(run::run(context.clone(), link.clone(), send, reader, outbox));
    Ok(link)
}

/// The accepting side: awaits SYN_MSG, answers, and runs the link.
pub async fn accept(context: &LinkContext, connection: Connection) -> Result<Link, LinkError> {
    let peer = identity(context, &connection)?;
    let opened = async {
        let (send, stream) = connection
            .accept_bi()
            .await
            .map_err(|e| closed(&connection, None).unwrap_or(LinkError(e.to_string())))?;
        let mut reader = ControlReader::new(context.credentials.node_id(), stream);
        let syn = reader.next().await.map_err(|e| closed(&connection, None).unwrap_or(e))?;
        Ok::<_, LinkError>((send, reader, syn))
    };
    let (mut send, reader, first) = limited(opened).await?;
    let Message::SynMsg(syn) = first else {
        connection.close(VarInt::from_u32(code::PROTOCOL), b"expected SYN_MSG");
        return Err(LinkError(format!("{} began with a message of type {}", peer.id, first.number())));
    };
    let node = peer.id.clone();
    let checked = check(context, &peer, &syn);
    let (link, outbox) = Link::new(connection.clone(), peer, syn, Made::Accepted);
    let admitted = match checked {
        Ok(()) => admit(context, &link).await,
        refused => refused,
    };
    let ack = SynAckMsg {
        result: admitted.is_ok(),
        reason: admitted.as_ref().err().map(ToString::to_string),
        syn: context.syn(),
    };
    let written = limited(write(&mut send, &node, &Message::SynAckMsg(ack))).await;
    if let Err(refusal) = admitted {
        // The neighbour closes when it has read the refusal.
        let _ = send.finish();
        let _ = tokio::time::timeout(REFUSAL_LINGER, connection.closed()).await;
        connection.close(VarInt::from_u32(code::REFUSED), b"");
        return Err(refusal);
    }
    if let Err(e) = written {
        // It was admitted, so its end has to be told, which `run` does at once.
        tracing::debug!(peer = %node, "SYN_ACK_MSG not sent: {e}");
    }
    tokio::spawn(run::run(context.clone(), link.clone(), send, reader, outbox));
    Ok(link)
}

/// Writes one message as a frame.
pub(super) async fn write(stream: &mut SendStream, to: &NodeId, message: &Message) -> Result<(), LinkError> {
    stream
        .write_all(&encode(to, message))
        .await
        .map_err(|e| LinkError(format!("the control stream broke: {e}")))
}

fn identity(context: &LinkContext, connection: &Connection) -> Result<PeerIdentity, LinkError> {
    PeerIdentity::of(connection, &context.credentials.mesh()).map_err(|e| {
        connection.close(VarInt::from_u32(code::REFUSED), b"certificate not accepted");
        LinkError(e.to_string())
    })
}

fn check(context: &LinkContext, peer: &PeerIdentity, syn: &SynMsg) -> Result<(), LinkError> {
    let (own, mesh) = (context.credentials.node_id(), context.credentials.mesh());
    if syn.version != VERSION {
        return Err(LinkError(format!(
            "protocol version {} meets version {VERSION}: update the older of the two nodes",
            syn.version
        )));
    }
    if syn.node_id != peer.id || syn.mesh != mesh {
        return Err(LinkError(format!(
            "claims to be {} of mesh {}, but its certificate is for {} of mesh {}",
            syn.node_id, syn.mesh, peer.id, peer.mesh
        )));
    }
    if peer.id == own {
        return Err(LinkError(format!(
            "both ends are {own}: an upstream leads back to this node, or two machines share its state directory"
        )));
    }
    Ok(())
}

async fn admit(context: &LinkContext, link: &Link) -> Result<(), LinkError> {
    let (answer, decision) = oneshot::channel();
    let candidate = LinkEvent::Candidate { link: link.clone(), answer };
    let stopping = || LinkError::new("the node is shutting down");
    context.events.send(candidate).await.map_err(|_| stopping())?;
    decision.await.map_err(|_| stopping())?.map_err(LinkError)
}

async fn limited<T>(step: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, step).await {
        Ok(result) => result,
        Err(_) => Err(LinkError::new("no SYN_MSG or SYN_ACK_MSG within 5 s")),
    }
}

/// Why a connection is closed already: a clearer reason than that of the stream that broke with it.
fn closed(connection: &Connection, dialled: Option<&NodeId>) -> Option<LinkError> {
    let address = canonical(connection.path(PathId::ZERO)?.remote_address().ok()?);
    let expected = dialled.map_or(Expected::accepted(address), |node| Expected::dialled(address, node));
    connection.close_reason().map(|e| LinkError(explain_connection_error(&e, &expected)))
}
