//! The key figures are the same in status, proxies, flows and metrics, and the same that a client measures.

use std::thread::sleep;
use std::time::Duration;

use ffmesh_api::{History, Role};
use ffmesh_core::reason::Reason;
use ffmesh_lab::{End, until};

use crate::pair::{CLIENT, Family, Pair, SERVER};

/// Flows that carry, and what each of them sends and gets back.
const FLOWS: u64 = 3;
const BYTES: u64 = 300_000;
/// Flows that are refused.
const REFUSED: u64 = 4;

#[test]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn bytes_flows_errors_and_latency_are_the_same_everywhere() {
    let Some(pair) = Pair::new("figures", Family::V4) else { return };
    for _ in 0..FLOWS {
        let conn = pair.client.net().connect(&pair.proxy("echo")).unwrap();
        let chunk = vec![7; 30_000];
        for _ in 0..BYTES / 30_000 {
            conn.echo(&chunk).unwrap();
        }
        conn.finish().unwrap();
        assert_eq!(conn.end(), End::Closed);
    }
    for _ in 0..REFUSED {
        let (end, _) = pair.client.net().timed_end_of(&pair.proxy("refused")).unwrap();
        assert_eq!(end, End::Reset);
    }
    let all = FLOWS + REFUSED;
    for (node, role) in [(&pair.client, Role::Ingress), (&pair.server, Role::Egress)] {
        until("all flows have ended", Duration::from_secs(5), || node.flows().ended.len() as u64 == all);
        let status = node.status();
        assert_eq!((status.flows_open, status.flows_total), (0, all));
        assert_eq!((status.bytes_sent, status.bytes_received), (FLOWS * BYTES, FLOWS * BYTES));
        let flows = node.flows().ended;
        let sum = |of: fn(&ffmesh_api::Flow) -> u64| flows.iter().map(of).sum::<u64>();
        assert_eq!((sum(|flow| flow.bytes_up), sum(|flow| flow.bytes_down)), (FLOWS * BYTES, FLOWS * BYTES));
        let of_reason = |reason| flows.iter().filter(|flow| flow.reason == Some(reason)).count() as u64;
        assert_eq!((of_reason(Reason::Done), of_reason(Reason::Refused)), (FLOWS, REFUSED));
        let errors: u64 = status.errors.iter().filter(|it| it.kind == "flow_failed").map(|it| it.count).sum();
        assert_eq!(errors, REFUSED);
        assert!(status.errors_per_minute >= REFUSED as f64, "{}", status.errors_per_minute);

        let (carrying, refusing) = match role {
            Role::Ingress => ("echo", "refused"),
            Role::Egress => ("(egress)", "(egress)"),
        };
        let value = |sample: &str| node.metric(sample).unwrap_or_else(|| panic!("no {sample}"));
        for (sample, expected) in [
            (format!("ffmesh_flow_bytes_total{{proxy=\"{carrying}\",direction=\"up\"}}"), FLOWS * BYTES),
            (format!("ffmesh_flow_bytes_total{{proxy=\"{carrying}\",direction=\"down\"}}"), FLOWS * BYTES),
            (format!("ffmesh_flows_total{{proxy=\"{carrying}\",result=\"done\"}}"), FLOWS),
            (format!("ffmesh_flows_total{{proxy=\"{refusing}\",result=\"refused\"}}"), REFUSED),
            (format!("ffmesh_flows_active{{proxy=\"{carrying}\"}}"), 0),
            ("ffmesh_errors_total{kind=\"flow_failed\"}".to_owned(), REFUSED),
            ("ffmesh_peers{state=\"up\"}".to_owned(), status.links_up.into()),
        ] {
            assert_eq!(value(&sample).to_bits(), (expected as f64).to_bits(), "{sample}");
        }
    }
    let proxies = pair.client.proxies();
    let proxy = |name: &str| proxies.iter().find(|proxy| proxy.name == name).unwrap();
    assert_eq!((proxy("echo").bytes_up, proxy("echo").bytes_down), (FLOWS * BYTES, FLOWS * BYTES));
    assert_eq!((proxy("echo").flows_total, proxy("echo").flows_failed), (FLOWS, 0));
    assert_eq!((proxy("refused").flows_total, proxy("refused").flows_failed), (REFUSED, REFUSED));
    assert_eq!(pair.client.metric("ffmesh_flow_open_seconds_count"), Some(FLOWS as f64));

    // With one link, its round trip time is the mean. It is measured anew between two looks.
    until("latency agrees", Duration::from_secs(5), || {
        let rtt = pair.client.status().rtt_ms.unwrap();
        let metric = pair.client.metric(&format!("ffmesh_link_rtt_seconds{{peer=\"{SERVER}\"}}")).unwrap();
        (rtt / 1e3 - metric).abs() < 0.1 * metric
    });
    assert!(pair.server.metric(&format!("ffmesh_link_rtt_seconds{{peer=\"{CLIENT}\"}}")).is_some());
}

#[test]
fn history_outlives_the_node() {
    let Some(mut pair) = Pair::new("history", Family::V4) else { return };
    let seconds = |pair: &Pair| -> History {
        serde_json::from_str(&pair.client.get("/api/v1/history?step=1s")).unwrap()
    };
    let ran = |history: &History| history.columns.links_up.iter().flatten().count();
    until("three seconds are kept", Duration::from_secs(10), || ran(&seconds(&pair)) >= 3);
    pair.client.stop();
    sleep(Duration::from_secs(2));
    pair.client.start();
    assert!(ran(&seconds(&pair)) >= 3, "the seconds before the restart are there");
}
