//! `ffmesh up`: the node, in the foreground.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ffmesh_node::config::Config;
use ffmesh_node::node::Node;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::args::Choice;
use crate::failure::{Failure, Outcome};
use crate::format::shell_word;
use crate::run::{raise_file_limit, run_node};
use crate::{log, place, watchdog};

/// Runs until SIGTERM, SIGINT or `ffmesh drain`, then ends in order; a signal meanwhile ends it at once. SIGHUP applies
/// the file again.
pub(crate) async fn up(argument: Option<PathBuf>, log_level: Option<&str>, choice: &Choice) -> Outcome {
    let file = place::file(argument, choice)?;
    let loaded = Config::load(&file).map_err(Failure::usage)?;
    let config = &loaded.config;
    let filter = log::start(log_level, config.log.level, config.log.format)?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let state = place::state_dir(choice, Some(config))?;
    if !place::has_identity(&state) {
        return Err(without_credentials(&file, state.path()));
    }
    let files = raise_file_limit();

    let mut signals = Signals::listen()?;
    let node = run_node(loaded, state)?;
    tokio::spawn(follow_level(node.config(), filter));
    notify(&[NotifyState::Ready]);
    info!(file_limit = files, "node is ready");
    // It goes on while the node ends in order, which may take long.
    watchdog::start(node.liveness());

    loop {
        tokio::select! {
            name = signals.next() => match name {
                HANGUP => tokio::select! {
                    () = reload(&node) => {}
                    name = signals.end() => {
                        info!("{name}: ending in order; a second signal ends the node at once");
                        break;
                    }
                },
                name => {
                    info!("{name}: ending in order; a second signal ends the node at once");
                    break;
                }
            },
            () = node.drain_asked() => {
                info!("told to drain: ending in order; a signal ends the node at once");
                break;
            }
        }
    }
    notify(&[NotifyState::Stopping]);
    // Whatever the service manager's own limit is.
    let limit = node.drain_timeout().saturating_add(END_LIMIT).as_micros();
    notify(&[NotifyState::ExtendTimeoutUsec(u32::try_from(limit).unwrap_or(u32::MAX))]);
    tokio::select! {
        () = node.stop() => {
            info!("node ended");
            Ok(())
        }
        // No failure: it was to end, and a service manager must not start it anew.
        name = signals.ending() => {
            warn!("a signal ({name}) ended the node at once, while it was ending in order");
            Ok(())
        }
    }
}

fn without_credentials(file: &Path, state: &Path) -> Failure {
    let file = shell_word(&file.to_string_lossy());
    Failure::failed(format!(
        "this node has no credentials in {}\nget them with one of:\n  \
         ffmesh init {file:<30}  # found a mesh\n  \
         ffmesh join TOKEN {file:<24}  # join one, with a token from `ffmesh token create` there",
        state.display()
    ))
}

/// Applies the file again, and tells systemd when that begins and ends (`Type=notify-reload`, systemd.service(5)).
async fn reload(node: &Node) {
    info!("{HANGUP}: applying the configuration file again");
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "systemd could not be told of the reload"),
    }
    let _ = node.reload().await; // how it went is in the log
    notify(&[NotifyState::Ready]);
}

/// Keeps the log at the level of the configuration in force.
async fn follow_level(mut config: watch::Receiver<Arc<Config>>, filter: log::Filter) {
    let mut level = config.borrow_and_update().log.level;
    while config.changed().await.is_ok() {
        let new = config.borrow_and_update().log.level;
        if new != level {
            filter.set(new);
            level = new;
        }
    }
}

/// Tells systemd, if it is there and wants to know.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd could not be notified");
    }
}

/// What ending takes at the most, beside `mesh.drain_timeout`: the mesh and the neighbours are told.
const END_LIMIT: Duration = Duration::from_secs(10);

const HANGUP: &str = "SIGHUP";

/// The signals that a program may be sent to end it.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Outcome<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one that ends a node; SIGHUP stays for later.
    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Waits for the next one and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => HANGUP,
        }
    }

    /// Waits for one that ends a node that is about to end anyway.
    async fn ending(&mut self) -> &'static str {
        loop {
            match self.next().await {
                HANGUP => info!("{HANGUP}: the node is about to end, and changes nothing any more"),
                name => return name,
            }
        }
    }
}
