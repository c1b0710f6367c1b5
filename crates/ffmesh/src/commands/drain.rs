//! `ffmesh drain`.

use std::time::{Duration, Instant};

use ffmesh_api as api;
use serde::Serialize;
use tokio::time::sleep;

use crate::args::Drain;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::format::{count, duration};
use crate::{output, place};

/// How often the node is asked what is left.
const POLL: Duration = Duration::from_millis(200);
/// How much longer than its timeout a node may take: the mesh is told, and the neighbours.
const GRACE: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Report {
    /// Flows that were open at the beginning
    flows_open: u64,
    /// `mesh.drain_timeout`, seconds
    timeout_s: u64,
    /// Whether the node has ended
    ended: bool,
    /// Flows that were open when it was last heard of
    flows_left: u64,
    /// How long it was followed
    seconds: f64,
}

/// Tells the node to drain and follows until it has ended.
pub(crate) async fn drain(args: &Drain) -> Outcome {
    let node = place::node(&args.show.choice)?;
    let began = Instant::now();
    let told: api::Drain = Client::new(&node).post("drain", &serde_json::json!({})).await?;
    let mut report = Report {
        flows_open: told.flows_open,
        timeout_s: told.timeout_s,
        ended: false,
        flows_left: told.flows_open,
        seconds: 0.0,
    };
    let say = |text: String| if args.show.json { Ok(()) } else { output::line(&text) };
    let timeout = Duration::from_secs(told.timeout_s);
    say(format!("draining for at most {}: {}", duration(timeout), flows(told.flows_open)))?;
    if !args.no_wait {
        follow(&node, timeout + GRACE, &mut report, &say).await?;
        let cut = if report.flows_left > 0 {
            format!("; {} until then", were(report.flows_left))
        } else {
            String::new()
        };
        say(format!("the node has ended after {}{cut}", duration(began.elapsed())))?;
    }
    report.seconds = began.elapsed().as_secs_f64();
    if args.show.json { output::json(&report) } else { Ok(()) }
}

/// Waits until the node has ended.
async fn follow(
    node: &place::Node,
    limit: Duration,
    report: &mut Report,
    say: &impl Fn(String) -> Outcome,
) -> Outcome {
    let client = Client::new(node);
    let gone = async {
        // Its socket goes first, and then it says goodbye.
        while place::is_running(&node.state) || node.state.is_held() {
            // An answer that was cut short is that of a node that is about to go.
            if let Ok((_, status)) = client.get::<api::Status>("status").await
                && status.flows_open != report.flows_left
            {
                report.flows_left = status.flows_open;
                say(flows(status.flows_open))?;
            }
            sleep(POLL).await;
        }
        Outcome::Ok(())
    };
    match tokio::time::timeout(limit, gone).await {
        Ok(followed) => {
            followed?;
            report.ended = true;
            Ok(())
        }
        Err(_) => Err(Failure::failed(format!(
            "the node still runs after {}\nsee its log; a signal (kill PID) ends it at once",
            duration(limit)
        ))),
    }
}

fn were(open: u64) -> String {
    if open == 1 { "1 flow was open".to_owned() } else { format!("{} flows were open", count(open)) }
}

fn flows(open: u64) -> String {
    match open {
        0 => "no flow is open".to_owned(),
        1 => "1 flow is open".to_owned(),
        _ => format!("{} flows are open", count(open)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_open_is_told_in_the_past() {
        assert_eq!([were(1), were(1_200)], ["1 flow was open", "1,200 flows were open"]);
        assert_eq!([flows(0), flows(1)], ["no flow is open", "1 flow is open"]);
    }
}
