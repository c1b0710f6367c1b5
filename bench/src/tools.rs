//! Loads that others make: iperf3(1) and wrk(1).

use std::net::SocketAddr;
use std::time::Duration;

use ffmesh_lab::{Net, run};

/// Beyond the time of the load itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// A transfer by iperf3: its rate, and the bytes that arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) mbit: f64,
    pub(crate) bytes: f64,
}

pub(crate) fn iperf(
    net: &Net,
    to: SocketAddr,
    streams: u32,
    down: bool,
    seconds: u32,
) -> Result<Transfer, String> {
    let (port, streams, time) = (to.port().to_string(), streams.to_string(), seconds.to_string());
    let host = to.ip().to_string();
    let mut command = net.command("iperf3");
    command.args(["-c", &host, "-p", &port, "-P", &streams, "-t", &time, "--json"]);
    // With an answer that never comes it would wait for ever.
    command.args(["--connect-timeout", "5000"]);
    if down {
        command.arg("--reverse");
    }
    let outcome = run(command, PATIENCE + Duration::from_secs(seconds.into()));
    let answer: serde_json::Value = serde_json::from_str(&outcome.stdout)
        .map_err(|e| format!("iperf3 said {:?}: {e}", outcome.said()))?;
    if let Some(error) = answer.get("error").and_then(|error| error.as_str()) {
        return Err(format!("iperf3: {error}"));
    }
    let received =
        |key: &str| answer.pointer(&format!("/end/sum_received/{key}")).and_then(serde_json::Value::as_f64);
    match (received("bits_per_second"), received("bytes")) {
        (Some(bits), Some(bytes)) if bytes > 0.0 => Ok(Transfer { mbit: bits / 1e6, bytes }),
        _ => Err("iperf3 received nothing".to_owned()),
    }
}

/// Requests a second and p99 in ms, over connections that stay open.
pub(crate) fn wrk(
    net: &Net,
    to: SocketAddr,
    page: &str,
    connections: u32,
    seconds: u32,
) -> Result<Vec<f64>, String> {
    let mut command = net.command("wrk");
    command.args(["-t1", "--latency", "--timeout", "5s", "-c", &connections.to_string()]);
    command.args(["-d", &format!("{seconds}s"), &format!("http://{to}/{page}")]);
    let outcome = run(command, PATIENCE + Duration::from_secs(seconds.into()));
    parse_wrk(&outcome.stdout).ok_or_else(|| format!("wrk found no answers: {}", outcome.said().trim()))
}

fn parse_wrk(said: &str) -> Option<Vec<f64>> {
    let value = |key: &str| said.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    let rate: f64 = value("Requests/sec:")?.parse().ok()?;
    (rate > 0.0 && value("Non-2xx").is_none()).then_some(())?;
    Some(vec![rate, milliseconds(value("99%")?)?])
}

/// A time as wrk writes it: `812.00us`, `1.23ms`, `1.00s`.
fn milliseconds(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic())?;
    let unit = match &text[digits..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        _ => return None,
    };
    text[..digits].parse::<f64>().ok().map(|number| number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 2s test @ http://127.0.0.1:18080/64
  1 threads and 100 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.42ms  412.00us   9.71ms   85.43%
  Latency Distribution
     50%    2.35ms
     99%  912.50us
  82000 requests in 2.00s, 23.00MB read
Requests/sec:  40999.50
Transfer/sec:     11.50MB
";

    #[test]
    fn what_wrk_says_is_understood() {
        assert_eq!(parse_wrk(SAID), Some(vec![40_999.5, 0.9125]));
        let failed = SAID.replace("Requests/sec", "  Non-2xx or 3xx responses: 7\nRequests/sec");
        assert_eq!(parse_wrk(&failed), None);
        assert_eq!(parse_wrk("unable to connect"), None);
    }
}
