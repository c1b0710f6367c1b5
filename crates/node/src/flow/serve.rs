//! Serving the streams that other nodes open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::policy::Caller;
use ffmesh_core::reason::Reason;
use ffmesh_core::wire::{FlowProtocol, Message, SynAckData, SynData, VERSION};
use noq::{RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use super::carry::{Carrier, End, Head, Side};
use super::table::{Flow, FlowStart, Flows};
use super::{HEAD_TIMEOUT, MAX_REQUEST, read_head, write_head};
use crate::egress::Egress;
use crate::identity::Issuer;
use crate::metrics::{Counters, ErrorKind};
use crate::session::Session;

/// Streams that one node may open a second, on average and at once.
const MAX_OPENS_PER_SECOND: u32 = 20_000;

/// What serving flows needs of the node.
#[derive(Debug, Clone)]
pub struct ServeContext {
    /// The table of flows
    pub flows: Flows,
    /// Policy and dialling
    pub egress: Arc<Egress>,
    /// Set where this node enrols others
    pub issuer: Option<Arc<Issuer>>,
    /// Where refusals are counted
    pub counters: Arc<Counters>,
}

/// Serves a session's streams to its end.
pub async fn serve(context: ServeContext, session: Session) {
    let mut opens = Bucket::new(MAX_OPENS_PER_SECOND);
    while let Ok((send, recv)) = session.connection().accept_bi().await {
        if !opens.take() {
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
        (FlowProtocol::Echo, _) => echo(peer, send, recv, first).await,
        (FlowProtocol::Enrol, Some(issuer)) => {
            answer(peer, send, recv, first, |request| issuer.enrol(request)).await;
        }
        (FlowProtocol::Renew, Some(issuer)) => {
            answer(peer, send, recv, first, |request| issuer.renew(request, session.peer())).await;
        }
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
    let caller = Caller { id: peer, groups: &session.peer().groups };
    let dialled = async {
        context.flows.admit()?;
        context.egress.dial(&caller, &target).await.map_err(|refusal| (refusal.reason, refusal.detail))
    };
    let stopped = send.stopped();
    let dialled = tokio::select! {
        dialled = dialled => dialled,
        _ = stopped => Err((Reason::Reset, "the client left before its target was connected".to_owned())),
    };
    let end = match dialled {
        Ok(local) => {
            let ack = Message::SynAckData(SynAckData { result: true, reason: None });
            // A failure shows in the first thing that is carried.
            let _ = write_head(&mut send, peer, &ack).await;
            flow.connected();
            carry(session, &flow, local, send, recv, first).await
        }
        Err((reason, detail)) => {
            refuse(peer, send, recv, reason).await;
            (reason, Some(detail))
        }
    };
    context.flows.end(&flow, end.0, end.1);
}

async fn carry(
    session: &Session,
    flow: &Flow,
    local: crate::local::Stream,
    send: SendStream,
    recv: RecvStream,
    first: Vec<u8>,
) -> End {
    // The ingress ends idle flows, as its proxy says.
    let carrier = Carrier { session, flow, side: Side::Egress, idle_timeout: None };
    carrier.carry(local, send, recv, Head::Bytes(first)).await
}

/// Sends back what comes.
async fn echo(peer: &NodeId, mut send: SendStream, mut recv: RecvStream, first: Vec<u8>) {
    let ack = Message::SynAckData(SynAckData { result: true, reason: None });
    let echoed = async {
        write_head(&mut send, peer, &ack).await.ok()?;
        send.write_all(&first).await.ok()?;
        while let Some(bytes) = recv.read_chunk(MAX_REQUEST).await.ok()? {
            send.write_chunk(bytes).await.ok()?;
        }
        send.finish().ok()
    };
    let _ = echoed.await; // one that breaks is the business of who asked
}

/// One request and its answer, for an issuer.
async fn answer(
    peer: &NodeId,
    mut send: SendStream,
    mut recv: RecvStream,
    mut request: Vec<u8>,
    issue: impl FnOnce(&[u8]) -> Vec<u8>,
) {
    let answered = async {
        let limit = MAX_REQUEST.saturating_sub(request.len());
        request.extend(recv.read_to_end(limit).await.ok()?);
        let ack = Message::SynAckData(SynAckData { result: true, reason: None });
        write_head(&mut send, peer, &ack).await.ok()?;
        send.write_all(&issue(&request)).await.ok()?;
        send.finish().ok()
    };
    if !matches!(timeout(HEAD_TIMEOUT, answered).await, Ok(Some(()))) {
        tracing::debug!(%peer, "enrolment or renewal request broke off");
    }
}

async fn refuse(peer: &NodeId, mut send: SendStream, mut recv: RecvStream, reason: Reason) {
    let ack = Message::SynAckData(SynAckData { result: false, reason: Some(reason) });
    let _ = write_head(&mut send, peer, &ack).await;
    let _ = send.finish();
    let _ = recv.stop(VarInt::from_u32(reason.code()));
}

fn malformed(context: &ServeContext, peer: &NodeId, send: SendStream, recv: RecvStream, what: &str) {
    context.counters.error(ErrorKind::Protocol);
    tracing::warn!(%peer, "stream refused: {}", what.escape_debug());
    refuse_stream(send, recv, Reason::Unsupported);
}

fn refuse_stream(mut send: SendStream, mut recv: RecvStream, reason: Reason) {
    let _ = send.reset(VarInt::from_u32(reason.code()));
    let _ = recv.stop(VarInt::from_u32(reason.code()));
}

/// A token bucket: `rate` a second, and as many at once.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: u32) -> Self {
        Self { rate: rate.into(), tokens: rate.into(), filled: Instant::now() }
    }

    fn take(&mut self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&mut self, now: Instant) -> bool {
        let gained =
            now.saturating_duration_since(self.filled).min(Duration::from_secs(1)).as_secs_f64() * self.rate;
        self.filled = now;
        self.tokens = (self.tokens + gained).min(self.rate);
        let taken = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(taken));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let mut bucket = Bucket::new(10);
        let start = Instant::now();
        let mut taken = 0;
        for ms in 0..3_000 {
            taken += u32::from(bucket.take_at(start + Duration::from_millis(ms)));
        }
        assert!((38..=40).contains(&taken), "{taken} in 3 s at 10 a second, 10 at once");
    }
}
