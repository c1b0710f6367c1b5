//! Opening flows to other nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use ffmesh_core::wire::{FlowProtocol, Message, SynData, VERSION, encode};
use noq::{RecvStream, SendStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::carry::{Carrier, End, Head, Side, write_end};
use super::entry::{Flow, FlowStart};
use super::table::Flows;
use super::{MAX_REQUEST, read_head, write_head};
use crate::local::Stream;
use crate::session::{Session, SessionError, Sessions};

/// Bytes that a client may have sent already and that travel with SYN_DATA.
const MAX_FIRST: usize = 16 << 10;
/// How long a free stream is waited for: the other node limits them.
const STREAM_WAIT: Duration = Duration::from_secs(3);
/// How long one round trip of [`ping`] may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What opening flows needs of the node.
#[derive(Debug, Clone)]
pub struct OpenContext {
    /// The node's sessions
    pub sessions: Sessions,
    /// The table of flows
    pub flows: Flows,
}

/// What a flow is opened for.
#[derive(Debug)]
pub struct Opened {
    /// Its id, of [`new_id`]
    pub id: String,
    /// The proxy it came through
    pub proxy: Arc<str>,
    /// The node that dials
    pub node: NodeId,
    /// What it dials
    pub target: Target,
    /// The client's address
    pub client: Option<String>,
    /// The proxy's `idle_timeout`
    pub idle_timeout: Option<Duration>,
    /// Told once the target is connected
    pub connected: Option<oneshot::Sender<()>>,
}

/// An id for a flow: 16 random hex digits.
pub fn new_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Carries a client's connection to its target, to the end, and returns how it ended. Whatever goes wrong, the client's
/// connection is reset and the reason is in the table of flows.
pub async fn open(context: &OpenContext, local: Stream, opened: Opened) -> End {
    let Opened { id, proxy, node, target, client, idle_timeout, connected } = opened;
    let start =
        FlowStart { id, role: api::Role::Ingress, proxy, peer: node, target: target.to_string(), client };
    let flow = context.flows.begin(start);
    let (reason, detail) = match connect(context, &flow, &local, target).await {
        Ok((session, send, recv)) => {
            let _counted = session.flow();
            let carrier = Carrier { session: &session, flow: &flow, side: Side::Ingress, idle_timeout };
            carrier.carry(local, send, recv, Head::Ack(connected)).await
        }
        Err(end) => {
            local.reset();
            end
        }
    };
    context.flows.end(&flow, reason, detail.clone());
    (reason, detail)
}

/// Opens a stream to the node and sends SYN_DATA, unless the client leaves meanwhile.
async fn connect(
    context: &OpenContext,
    flow: &Flow,
    local: &Stream,
    target: Target,
) -> Result<(Session, SendStream, RecvStream), End> {
    let connected = async {
        context.flows.admit(flow).map_err(|(reason, detail)| (reason, Some(detail)))?;
        let session = context.sessions.to(flow.peer()).await.map_err(refused)?;
        let (mut send, recv) = stream(&session).await?;
        let syn = Message::SynData(SynData {
            version: VERSION,
            protocol: FlowProtocol::Tcp,
            target: Some(target),
            flow_id: flow.id().to_owned(),
            proxy: flow.proxy().to_owned(),
        });
        // No round trip is lost: what the client has sent goes along, and what it has not is not waited for.
        let first = local.already_sent(MAX_FIRST).unwrap_or_default();
        flow.count_up(first.len());
        let mut chunks = [Bytes::from(encode(flow.peer(), &syn)), Bytes::from(first)];
        match timeout(STREAM_WAIT, send.write_all_chunks(&mut chunks)).await {
            Ok(written) => written.map_err(|e| write_end(&session, &e))?,
            Err(_) => return Err((Reason::Timeout, Some(format!("{} takes no SYN_DATA", flow.peer())))),
        }
        Ok((session, send, recv))
    };
    tokio::select! {
        connected = connected => connected,
        _ = local.reset_by_peer() => Err((Reason::Reset, Some("the client left before it was connected".to_owned()))),
    }
}

/// One round trip to a node, end to end, and the route it took. At most 5 s.
pub async fn ping(context: &OpenContext, node: &NodeId) -> Result<api::Ping, (Reason, String)> {
    let end = |(reason, detail): End| (reason, detail.unwrap_or_else(|| reason.to_string()));
    let session = context.sessions.to(node).await.map_err(|e| end(refused(e)))?;
    let round_trip = async {
        let (mut send, mut recv) = stream(&session).await?;
        let broken = |text: String| (Reason::Reset, Some(text));
        let syn = Message::SynData(SynData {
            version: VERSION,
            protocol: FlowProtocol::Echo,
            target: None,
            flow_id: String::new(),
            proxy: String::new(),
        });
        write_head(&mut send, node, &syn).await.map_err(|e| write_end(&session, &e))?;
        let (head, _) = read_head(&mut recv).await.map_err(|e| broken(e.to_string()))?;
        match head {
            Message::SynAckData(ack) if ack.result => {}
            Message::SynAckData(ack) => {
                let reason = ack.reason.unwrap_or(Reason::Unsupported);
                return Err((reason, Some(format!("{node} does not answer pings now: {reason}"))));
            }
            other => return Err((Reason::Unsupported, Some(format!("message of type {}", other.number())))),
        }
        let start = Instant::now();
        send.write_all(b"ping").await.map_err(|e| write_end(&session, &e))?;
        let mut echo = [0; 4];
        recv.read_exact(&mut echo).await.map_err(|e| broken(e.to_string()))?;
        let _ = send.finish();
        Ok::<_, End>(start.elapsed())
    };
    let rtt = match timeout(PING_TIMEOUT, round_trip).await {
        Ok(result) => result.map_err(end)?,
        Err(_) => return Err((Reason::Timeout, format!("no answer from {node} within 5 s"))),
    };
    let route = first_choice(&context.sessions, node);
    Ok(api::Ping { node_id: node.clone(), rtt_ms: rtt.as_secs_f64() * 1e3, route })
}

/// The route that traffic to a node takes.
pub(super) fn first_choice(sessions: &Sessions, node: &NodeId) -> Vec<NodeId> {
    // Where the other node dialled the session, it chooses; this node would take its own best.
    let best = || sessions.table().offers(node).into_iter().next().map(|offer| offer.route);
    sessions.route_in_use(node).or_else(best).map(|path| path.to_vec()).unwrap_or_default()
}

/// One request to a node that is no flow, and its answer of at most 64 KiB. At most 5 s, once there is a session.
pub async fn request(
    sessions: &Sessions,
    node: &NodeId,
    syn: &Message,
    bytes: &[u8],
) -> Result<Vec<u8>, String> {
    let session = sessions.to(node).await.map_err(|e| e.to_string())?;
    let answered = async {
        let (mut send, mut recv) = stream(&session).await.map_err(|(reason, _)| reason.to_string())?;
        write_head(&mut send, node, syn).await.map_err(|e| e.to_string())?;
        send.write_all(bytes).await.map_err(|e| e.to_string())?;
        send.finish().map_err(|e| e.to_string())?;
        let (head, mut answer) = read_head(&mut recv).await.map_err(|e| e.to_string())?;
        match head {
            Message::SynAckData(ack) if ack.result => {}
            Message::SynAckData(ack) => {
                return Err(format!("refused: {}", ack.reason.unwrap_or(Reason::Refused)));
            }
            other => return Err(format!("answered with a message of type {}", other.number())),
        }
        let limit = MAX_REQUEST.saturating_sub(answer.len());
        answer.extend(recv.read_to_end(limit).await.map_err(|e| e.to_string())?);
        Ok(answer)
    };
    timeout(PING_TIMEOUT, answered).await.unwrap_or_else(|_| Err("no answer within 5 s".to_owned()))
}

pub(super) async fn stream(session: &Session) -> Result<(SendStream, RecvStream), End> {
    if let Ok(opened) = timeout(STREAM_WAIT, session.connection().open_bi()).await {
        return opened.map_err(|e| session.end(&e));
    }
    let detail = format!("{} has no stream left for another flow", session.peer().id);
    Err((Reason::Limit, Some(detail)))
}

pub(super) fn refused(error: SessionError) -> End {
    (error.reason, Some(error.detail))
}
