//! `ffmesh ping`.

use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::args::Ping;
use crate::client::{Client, Refusal, describe};
use crate::failure::{Failure, Outcome};
use crate::format::{milliseconds, share};
use crate::{output, place};

#[derive(Serialize)]
struct Report<'a> {
    node_id: &'a NodeId,
    sent: u32,
    received: usize,
    /// Share of those sent that did not come back, 0 to 1
    loss: f64,
    rtt_min_ms: Option<f64>,
    rtt_avg_ms: Option<f64>,
    rtt_max_ms: Option<f64>,
    replies: Vec<Reply>,
}

#[derive(Serialize)]
struct Reply {
    seq: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    route: Vec<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<api::Error>,
}

/// Prints each round trip as it comes back, and a summary at the end or at Ctrl-C.
pub(crate) async fn ping(args: &Ping) -> Outcome {
    let node = place::node(&args.show.choice)?;
    let client = Client::new(&node.state);
    let mut replies = Vec::new();
    let stopped = tokio::select! {
        ended = rounds(args, &client, &mut replies) => ended,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::from),
    };
    stopped?;
    let report = summary(&args.to, replies);
    if args.show.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    if report.received > 0 { Ok(()) } else { Err(Failure::silent(1)) }
}

async fn rounds(args: &Ping, client: &Client<'_>, replies: &mut Vec<Reply>) -> Outcome {
    let request = api::PingRequest { node: args.to.clone() };
    let mut pace = interval(Duration::from_secs_f64(args.interval));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seq = 0;
    while args.count == 0 || seq < args.count {
        pace.tick().await;
        seq += 1;
        let reply = match client.post::<api::Ping>("ping", &request).await {
            Ok(ping) => Reply { seq, rtt_ms: Some(ping.rtt_ms), route: ping.route, error: None },
            Err(Refusal::Node(error)) => Reply { seq, rtt_ms: None, route: Vec::new(), error: Some(error) },
            // The local node is not there: neither will it be for the next.
            Err(Refusal::Other(failure)) => return Err(failure),
        };
        if !args.show.json {
            output::line(&line(&args.to, &reply))?;
        }
        replies.push(reply);
    }
    Ok(())
}

fn line(to: &NodeId, reply: &Reply) -> String {
    let seq = reply.seq;
    match (&reply.error, reply.rtt_ms) {
        (Some(error), _) => format!("{to}: seq={seq} {}", describe(error)),
        (None, rtt) => {
            let rtt = rtt.map(milliseconds).unwrap_or_default();
            let route: Vec<_> = reply.route.iter().map(NodeId::as_str).collect();
            let route = if route.len() > 2 { format!("  by {}", route.join(" > ")) } else { String::new() };
            format!("{to}: seq={seq} time={rtt}{route}")
        }
    }
}

fn summary(to: &NodeId, replies: Vec<Reply>) -> Report<'_> {
    let times: Vec<f64> = replies.iter().filter_map(|reply| reply.rtt_ms).collect();
    let sent = u32::try_from(replies.len()).unwrap_or(u32::MAX);
    #[expect(clippy::cast_precision_loss, reason = "counts of pings")]
    let received = times.len() as f64;
    let known = !times.is_empty();
    Report {
        node_id: to,
        sent,
        received: times.len(),
        loss: if sent == 0 { 0.0 } else { 1.0 - received / f64::from(sent) },
        rtt_min_ms: times.iter().copied().reduce(f64::min),
        rtt_avg_ms: known.then(|| times.iter().sum::<f64>() / received),
        rtt_max_ms: times.iter().copied().reduce(f64::max),
        replies,
    }
}

fn print(report: &Report<'_>) -> Outcome {
    let Report { node_id, sent, received, .. } = report;
    output::line(&format!("{node_id}: {sent} sent, {received} received, {} lost", share(report.loss)))?;
    if let (Some(min), Some(avg), Some(max)) = (report.rtt_min_ms, report.rtt_avg_ms, report.rtt_max_ms) {
        let times = [min, avg, max].map(milliseconds).join(" / ");
        output::line(&format!("round trip min / avg / max: {times}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_what_came_back() {
        let to = "b".parse().unwrap();
        let reply = |seq, rtt_ms| Reply { seq, rtt_ms, route: vec![], error: None };
        let report =
            summary(&to, vec![reply(1, Some(1.0)), reply(2, None), reply(3, Some(3.0)), reply(4, None)]);
        assert_eq!((report.sent, report.received), (4, 2));
        assert!((report.loss - 0.5).abs() < 1e-9);
        assert_eq!(
            (report.rtt_min_ms, report.rtt_avg_ms, report.rtt_max_ms),
            (Some(1.0), Some(2.0), Some(3.0))
        );
        assert_eq!(summary(&to, vec![]).rtt_avg_ms, None);
    }
}
