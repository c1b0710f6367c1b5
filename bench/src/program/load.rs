//! Loads: what is put through a candidate at which site, and which rows that fills.

use std::path::PathBuf;
use std::time::Duration;

use ffmesh_lab::Transfer;

use crate::program::candidate::Running;
use crate::program::client;
use crate::program::site::{IPERF, Kind, Place, Site, iperf_server};
use crate::program::tools;
use crate::program::usage::{cpu_seconds, memory};

/// Connections one after the other.
const CONNECTS: usize = 2000;
/// Connections at once where their rate is measured.
const AT_ONCE: usize = 64;
const RATE_TIME: Duration = Duration::from_secs(2);
const PINGS: usize = 10_000;
const HTTP_CONNECTIONS: u32 = 100;
const HTTP_SECONDS: u32 = 2;
/// Idle connections whose memory is measured.
const IDLE: usize = 2000;
/// Until memory is what it stays.
const SETTLE: Duration = Duration::from_millis(1500);
/// Seconds of a transfer over a long line: it has to find its rate first.
const FAR_SECONDS: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    FirstByte,
    Memory,
    Connect,
    ConnectRate,
    Ping,
    /// Of this page
    Http(&'static str),
    Bulk {
        streams: u32,
        down: bool,
    },
}

/// A load at a site, and the rows that its figures are for.
pub(crate) type Step = (Kind, Load, &'static [&'static str]);

const fn bulk(streams: u32, down: bool) -> Load {
    Load::Bulk { streams, down }
}

/// All loads. Those of a site share a start of the candidate, so memory comes before what makes it grow.
pub(crate) const STEPS: [Step; 17] = [
    (Kind::Direct, Load::Memory, &["memory.node", "memory.connection"]),
    (Kind::Direct, Load::Connect, &["connect.p50", "connect.p99"]),
    (Kind::Direct, Load::ConnectRate, &["connect.rate"]),
    (Kind::Direct, Load::Ping, &["ping.p50", "ping.p99"]),
    (Kind::Direct, Load::Http("64"), &["http.64", "http.64.p99"]),
    (Kind::Direct, Load::Http("16k"), &["http.16k", "http.16k.p99"]),
    (Kind::Direct, bulk(1, false), &["bulk.up1", "bulk.up1.cpu"]),
    (Kind::Direct, bulk(1, true), &["bulk.down1", "bulk.down1.cpu"]),
    (Kind::Direct, bulk(8, false), &["bulk.up8", "bulk.up8.cpu"]),
    (Kind::Direct, bulk(8, true), &["bulk.down8", "bulk.down8.cpu"]),
    (Kind::NoOffloads, bulk(1, false), &["offload.up1"]),
    (Kind::NoOffloads, bulk(1, true), &["offload.down1"]),
    (Kind::Relay, bulk(1, false), &["relay.up1", "relay.up1.cpu", "relay.up1.relay_cpu"]),
    (Kind::Relay, bulk(1, true), &["relay.down1", "", "relay.down1.relay_cpu"]),
    (Kind::Lossy, bulk(1, false), &["far.up1"]),
    (Kind::Lossy, bulk(1, true), &["far.down1"]),
    (Kind::Far, Load::FirstByte, &["first.byte"]),
];

/// What a load runs on.
#[derive(Debug)]
pub(crate) struct On<'a> {
    pub(crate) site: &'a Site,
    pub(crate) running: &'a Running,
    pub(crate) dir: PathBuf,
    pub(crate) seconds: u32,
}

impl Load {
    /// Figures for the rows of its step, in their order. None where a candidate has no such figure.
    pub(crate) fn run(self, on: &On<'_>) -> Result<Vec<Option<f64>>, String> {
        let (client, running) = (&on.site.client, on.running);
        let some = |figures: Vec<f64>| figures.into_iter().map(Some).collect();
        match self {
            Self::FirstByte => client::first_byte(client, running.echo).map(|ms| vec![Some(ms)]),
            Self::Memory => idle_memory(on),
            Self::Connect => client::connects(client, running.echo, CONNECTS).map(some),
            Self::ConnectRate => {
                client::connect_rate(client, running.echo, AT_ONCE, RATE_TIME).map(|rate| vec![Some(rate)])
            }
            Self::Ping => client::pings(client, running.echo, PINGS).map(some),
            Self::Http(page) => {
                tools::wrk(client, running.http, page, HTTP_CONNECTIONS, HTTP_SECONDS).map(some)
            }
            Self::Bulk { streams, down } => transfer(on, streams, down),
        }
    }
}

fn idle_memory(on: &On<'_>) -> Result<Vec<Option<f64>>, String> {
    let pids = on.running.pids();
    if pids.is_empty() {
        return Ok(vec![None, None]);
    }
    std::thread::sleep(SETTLE);
    let before = memory(&pids);
    let idle = client::idle(&on.site.client, on.running.echo, IDLE)?;
    std::thread::sleep(SETTLE);
    let each = (memory(&pids) - before) / f64::from(u32::try_from(idle.len()).unwrap_or(u32::MAX)) / 1024.0;
    let nodes =
        [Place::Client, Place::Relay, Place::Server].map(|place| !on.running.pids_at(place).is_empty());
    let nodes: f64 = nodes.into_iter().map(f64::from).sum();
    Ok(vec![Some(before / nodes / f64::from(1 << 20)), Some(each)])
}

fn transfer(on: &On<'_>, streams: u32, down: bool) -> Result<Vec<Option<f64>>, String> {
    let _server = iperf_server(&on.site.server, IPERF, &on.dir)?;
    let seconds = if on.site.kind == Kind::Lossy { on.seconds.max(FAR_SECONDS) } else { on.seconds };
    let (all, relays) = (on.running.pids(), on.running.pids_at(Place::Relay));
    let before = (cpu_seconds(&all), cpu_seconds(&relays));
    let streams = ["--parallel", &streams.to_string()];
    let options = [&streams[..], if down { &["--reverse"] } else { &[] }].concat();
    let transfer = Transfer::run(&on.site.client, &on.running.iperf.to_string(), seconds, &options)?;
    let per_gb = |pids: &[u32], before: f64| {
        (!pids.is_empty()).then(|| (cpu_seconds(pids) - before) / (transfer.bytes / 1e9))
    };
    Ok(vec![Some(transfer.mbit), per_gb(&all, before.0), per_gb(&relays, before.1)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::row::ROWS;

    #[test]
    fn each_row_is_filled_by_one_step() {
        let filled: Vec<_> =
            STEPS.iter().flat_map(|(_, _, rows)| rows.iter()).filter(|key| !key.is_empty()).collect();
        assert!(filled.iter().all(|key| ROWS.iter().any(|row| row.key == **key)), "{filled:?}");
        for row in ROWS {
            assert_eq!(filled.iter().filter(|key| **key == &row.key).count(), 1, "{}", row.key);
        }
    }
}
