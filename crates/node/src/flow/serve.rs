//! Serving the streams that other nodes open.

use std::sync::Arc;
use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::policy::Caller;
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use ffmesh_core::wire::{FlowProtocol, Message, SynAckData, SynData, VERSION};
use noq::{RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use super::carry::{Carrier, Head, Side};
use super::entry::{Dialled, Flow, FlowStart};
use super::speedtest::{self, Speedtests};
use super::table::Flows;
use super::{HEAD_TIMEOUT, MAX_REQUEST, read_head, write_head};
use crate::egress::{Egress, Refusal};
use crate::identity::Issuer;
use crate::local::Stream;
use crate::metrics::{Counters, ErrorKind};
use crate::repeats::Repeats;
use crate::session::{Session, Sessions};

/// How long the other node may take to take an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one echo may last.
const ECHO_TIMEOUT: Duration = Duration::from_secs(10);

/// What serving flows needs of the node.
#[derive(Debug, Clone)]
pub struct ServeContext {
    /// The node's sessions
    pub sessions: Sessions,
    /// The table of flows
    pub flows: Flows,
    /// Policy and dialling
    pub egress: Arc<Egress>,
    /// Set where this node enrols others
    pub issuer: Option<Arc<Issuer>>,
    /// Speed tests under way
    pub speedtests: Speedtests,
    /// Where refusals are counted
    pub counters: Arc<Counters>,
    /// What was said of refusals
    pub repeats: Arc<Repeats>,
}

/// Serves a session's streams to its end.
pub async fn serve(context: ServeContext, session: Session) {
    let context = Arc::new(context);
    while let Ok((send, recv)) = session.connection().accept_bi().await {
        if !session.take_open() {
            context.counters.error(ErrorKind::Limit);
            refuse_stream(send, recv, Reason::Limit);
            continue;
        }
        let (context, session) = (context.clone(), session.clone());
        tokio::spawn(async move { serve_stream(&context, &session, send, recv).await });
    }
}

async fn serve_stream(context: &ServeContext, session: &Session, send: SendStream, mut recv: RecvStream) {
    let _counted = session.flow();
    let peer = &session.peer().id;
    let (syn, first) = match timeout(HEAD_TIMEOUT, read_head(&mut recv)).await {
        Ok(Ok((Message::SynData(syn), first))) => (syn, first),
        Ok(Ok((other, _))) => {
            return malformed(context, peer, send, recv, &format!("message of type {}", other.number()));
        }
        Ok(Err(e)) => return malformed(context, peer, send, recv, &e.to_string()),
        Err(_) => return malformed(context, peer, send, recv, "no SYN_DATA within 5 s"),
    };
    if syn.version != VERSION {
        return refuse(peer, send, recv, Reason::Unsupported).await;
    }
    match (syn.protocol, &context.issuer) {
        (FlowProtocol::Tcp, _) => serve_flow(context, session, syn, send, recv, first).await,
        (FlowProtocol::Echo, _) => match session.echo_permit() {
            Some(_permit) => echo(session, send, recv, first).await,
            None => refuse(peer, send, recv, Reason::Limit).await,
        },
        (FlowProtocol::Enrol, Some(issuer)) => {
            let issuer = issuer.clone();
            answer(peer, send, recv, first, async |request| issuer.answer_enrol(request).await).await;
        }
        (FlowProtocol::Renew, Some(issuer)) => {
            let (issuer, identity) = (issuer.clone(), context.sessions.identity(session));
            answer(peer, send, recv, first, async |request| issuer.answer_renew(request, identity).await)
                .await;
        }
        (FlowProtocol::Speedtest, _) => speedtest::serve(context, session, syn, send, recv, first).await,
        _ => refuse(peer, send, recv, Reason::Unsupported).await,
    }
}

/// A flow whose target is dialled here.
async fn serve_flow(
    context: &ServeContext,
    session: &Session,
    syn: SynData,
    mut send: SendStream,
    recv: RecvStream,
    first: Vec<u8>,
) {
    let peer = &session.peer().id;
    let Some(target) = syn.target else {
        return malformed(context, peer, send, recv, "SYN_DATA without a target");
    };
    let flow = context.flows.begin(FlowStart {
        id: syn.flow_id,
        role: api::Role::Egress,
        proxy: syn.proxy.into(),
        peer: peer.clone(),
        target: target.to_string(),
        client: None,
    });
    let local = match dial(context, session, &flow, target, &send).await {
        Ok(local) => local,
        Err((reason, detail)) => {
            context.flows.end(&flow, reason, Some(detail));
            return refuse(peer, send, recv, reason).await;
        }
    };
    flow.connected();
    let ack = Message::SynAckData(SynAckData { result: true, reason: None });
    // A stream that breaks here shows in the first thing that is carried.
    let end = if timeout(ANSWER_TIMEOUT, write_head(&mut send, peer, &ack)).await.is_ok() {
        // The ingress ends idle flows, as its proxy says.
        let carrier = Carrier { session, flow: &flow, side: Side::Egress, idle_timeout: None };
        carrier.carry(local, send, recv, Head::Bytes(first)).await
    } else {
        local.reset();
        (Reason::Timeout, Some(format!("{peer} took no answer for {ANSWER_TIMEOUT:?}")))
    };
    context.flows.end(&flow, end.0, end.1);
}

/// Dials a flow's target, as the policy allows, unless the client leaves meanwhile.
async fn dial(
    context: &ServeContext,
    session: &Session,
    flow: &Flow,
    target: Target,
    send: &SendStream,
) -> Result<Stream, (Reason, String)> {
    let identity = context.sessions.identity(session);
    let caller = Caller { id: flow.peer(), groups: &identity.groups };
    let dialled = async {
        context.flows.admit(flow)?;
        let ended = |refusal: Refusal| (refusal.reason, refusal.detail);
        let local = context.egress.dial(&caller, &target).await.map_err(ended)?;
        let address = local.peer_address();
        flow.dialled(Dialled { groups: identity.groups.clone(), target: target.clone(), address });
        // The policy may have become another one meanwhile; from here on the table knows what to put to it.
        context.egress.check(&caller, &target, address).map_err(ended)?;
        Ok(local)
    };
    tokio::select! {
        dialled = dialled => dialled,
        _ = send.stopped() => Err((Reason::Reset, "the client left before its target was connected".to_owned())),
    }
}

/// Sends back what comes, as far as a ping needs it.
async fn echo(session: &Session, mut send: SendStream, mut recv: RecvStream, first: Vec<u8>) {
    let peer = &session.peer().id;
    let ack = Message::SynAckData(SynAckData { result: true, reason: None });
    let echoed = async {
        write_head(&mut send, peer, &ack).await.ok()?;
        let mut left = MAX_REQUEST.checked_sub(first.len())?;
        send.write_all(&first).await.ok()?;
        while let Some(bytes) = recv.read_chunk(left.max(1)).await.ok()? {
            left = left.checked_sub(bytes.len())?;
            send.write_chunk(bytes).await.ok()?;
        }
        send.finish().ok()
    };
    // One that breaks or lasts too long is the business of who asked; what it held is given back.
    let _ = timeout(ECHO_TIMEOUT, echoed).await;
}

/// One request and its answer, for an issuer.
async fn answer(
    peer: &NodeId,
    mut send: SendStream,
    mut recv: RecvStream,
    mut request: Vec<u8>,
    issue: impl AsyncFnOnce(Vec<u8>) -> Vec<u8>,
) {
    let answered = async {
        let limit = MAX_REQUEST.saturating_sub(request.len());
        request.extend(recv.read_to_end(limit).await.ok()?);
        let ack = Message::SynAckData(SynAckData { result: true, reason: None });
        write_head(&mut send, peer, &ack).await.ok()?;
        send.write_all(&issue(request).await).await.ok()?;
        send.finish().ok()
    };
    if !matches!(timeout(HEAD_TIMEOUT, answered).await, Ok(Some(()))) {
        tracing::debug!(%peer, "enrolment or renewal request broke off");
    }
}

pub(super) async fn refuse(peer: &NodeId, mut send: SendStream, mut recv: RecvStream, reason: Reason) {
    let ack = Message::SynAckData(SynAckData { result: false, reason: Some(reason) });
    if matches!(timeout(ANSWER_TIMEOUT, write_head(&mut send, peer, &ack)).await, Ok(Ok(()))) {
        let _ = send.finish();
    } else {
        let _ = send.reset(VarInt::from_u32(reason.code()));
    }
    let _ = recv.stop(VarInt::from_u32(reason.code()));
}

pub(super) fn malformed(
    context: &ServeContext,
    peer: &NodeId,
    send: SendStream,
    recv: RecvStream,
    what: &str,
) {
    context.counters.error(ErrorKind::Protocol);
    if context.repeats.is_news((peer, what)) {
        tracing::warn!(%peer, "stream refused: {}", what.escape_debug());
    }
    refuse_stream(send, recv, Reason::Unsupported);
}

fn refuse_stream(mut send: SendStream, mut recv: RecvStream, reason: Reason) {
    let _ = send.reset(VarInt::from_u32(reason.code()));
    let _ = recv.stop(VarInt::from_u32(reason.code()));
}
