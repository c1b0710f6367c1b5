//! The load that wrk(1) makes.

use std::net::SocketAddr;
use std::time::Duration;

use ffmesh_lab::{Net, run};

/// Beyond the time of the load itself.
const PATIENCE: Duration = Duration::from_secs(20);

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
