//! iperf3(1): bulk transfers, as fast as they get.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::net::Net;
use crate::process::{Process, run};

/// Beyond the time of the transfer itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a transfer carried.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// What arrived, in Mbit/s, without the time that `--omit` leaves out
    pub mbit: f64,
    /// All bytes that arrived, with those of that time
    pub bytes: f64,
}

impl Transfer {
    /// Runs a client in a namespace against a server or a proxy at `to`, for so many seconds, with more options of
    /// iperf3.
    pub fn run(net: &Net, to: &str, seconds: u32, options: &[&str]) -> Result<Self, String> {
        let (host, port) = to.rsplit_once(':').ok_or_else(|| format!("{to} has no port"))?;
        let mut command = net.command("iperf3");
        command.args(["--client", host, "--port", port, "--time", &seconds.to_string(), "--json"]);
        // With an answer that never comes it would wait for ever.
        command.args(["--connect-timeout", "5000"]).args(options);
        let outcome = run(command, PATIENCE + Duration::from_secs(seconds.into()));
        Self::parse(&outcome.stdout)
            .map_err(|why| format!("iperf3 to {to}: {why}: {}", outcome.said().trim()))
    }

    fn parse(said: &str) -> Result<Self, String> {
        let answer: Value = serde_json::from_str(said).map_err(|e| format!("no answer ({e})"))?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            return Err(error.to_owned());
        }
        let received =
            |key: &str| answer.pointer(&format!("/end/sum_received/{key}")).and_then(Value::as_f64);
        let omitted = answer["intervals"].as_array().into_iter().flatten();
        let omitted = omitted.map(|interval| &interval["sum"]).filter(|sum| sum["omitted"] == true);
        let omitted: f64 = omitted.filter_map(|sum| sum["bytes"].as_f64()).sum();
        match (received("bits_per_second"), received("bytes")) {
            (Some(bits), Some(bytes)) if bytes > 0.0 => Ok(Self { mbit: bits / 1e6, bytes: bytes + omitted }),
            _ => Err("nothing arrived".to_owned()),
        }
    }

    /// Starts a server in a namespace at an address, with more options of iperf3.
    pub fn serve(net: &Net, at: &str, log: &Path, options: &[&str]) -> Process {
        let (host, port) = at.rsplit_once(':').unwrap_or(("0.0.0.0", at));
        let mut command = net.command("iperf3");
        command.args(["--server", "--bind", host, "--port", port]).args(options);
        Process::start("iperf3", command, log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iperf3_says_is_understood() {
        let said = r#"{"intervals": [{"sum": {"bytes": 500, "omitted": true}}, {"sum": {"bytes": 700, "omitted": false}}],
            "end": {"sum_received": {"bits_per_second": 2500000.0, "bytes": 700}}}"#;
        let transfer = Transfer::parse(said).unwrap();
        assert!((transfer.mbit - 2.5).abs() < 1e-9 && (transfer.bytes - 1200.0).abs() < 1e-9, "{transfer:?}");
        assert!(Transfer::parse(r#"{"error": "unable to connect"}"#).unwrap_err().contains("unable"));
        assert!(Transfer::parse(r#"{"end": {"sum_received": {"bits_per_second": 0, "bytes": 0}}}"#).is_err());
        assert!(Transfer::parse("").is_err());
    }
}
