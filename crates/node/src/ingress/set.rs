//! The proxies that listen, as the configuration changes.
//!
//! A listener belongs to its address, and a proxy is what it leads to at the moment. So another target, another name,
//! and two proxies that swap their ports need no binding, and no client is refused meanwhile. A flow that is open has nothing to do
//! with its listener any more.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;

use super::{BindError, Ingress, Lead, Listener};
use crate::config::{Listen, Proxy};
use crate::flow::OpenContext;
use crate::metrics::Counters;

/// The listeners of a node's proxies. Dropping it closes them.
#[derive(Debug)]
pub struct Ingresses {
    context: OpenContext,
    counters: Arc<Counters>,
    listening: Vec<Listening>,
}

/// One that accepts, in a task of its own.
#[derive(Debug)]
struct Listening {
    /// The proxy that it is of now
    proxy: Proxy,
    address: Option<SocketAddr>,
    lead: Arc<ArcSwap<Lead>>,
    listener: Arc<Listener>,
    task: JoinSet<()>,
}

impl Ingresses {
    /// Lets those accept that are bound.
    pub fn start(context: OpenContext, counters: Arc<Counters>, bound: Vec<Ingress>) -> Self {
        let mut this = Self { context, counters, listening: Vec::new() };
        for ingress in bound {
            this.listen(ingress);
        }
        this
    }

    /// The TCP addresses of those that listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listening.iter().filter_map(|listening| listening.address).collect()
    }

    /// The Unix sockets of those that listen.
    pub fn paths(&self) -> Vec<PathBuf> {
        let path = |listening: &Listening| match &listening.proxy.listen {
            Listen::Unix(path) => Some(path.clone()),
            Listen::Port(..) => None,
        };
        self.listening.iter().filter_map(path).collect()
    }

    /// Where a proxy listens now: elsewhere than it says where it could not be bound there.
    pub fn listens(&self, name: &str) -> Option<&Listen> {
        let found = self.listening.iter().find(|listening| listening.proxy.name == name);
        found.map(|listening| &listening.proxy.listen)
    }

    /// Serves these proxies and no others. One that cannot be bound is in the answer; where it has listened elsewhere until
    /// now, it goes on doing so as before, unless that address is another one's now.
    pub async fn apply(&mut self, proxies: &[Proxy]) -> Vec<BindError> {
        let mut before = std::mem::take(&mut self.listening);
        let mut unbound = Vec::new();
        for proxy in proxies {
            let Some(lead) = Lead::of(proxy) else { continue };
            match before.iter().position(|listening| listening.proxy.listen == proxy.listen) {
                Some(at) => {
                    let mut listening = before.swap_remove(at);
                    listening.lead.store(Arc::new(lead));
                    listening.proxy = proxy.clone();
                    self.listening.push(listening);
                }
                None => unbound.push(proxy),
            }
        }
        let mut failed = Vec::new();
        for proxy in unbound {
            // They are closed once it is bound, or go on.
            let in_the_way: Vec<_> =
                before.extract_if(.., |listening| listening.proxy.overlaps(proxy)).collect();
            let leaving = in_the_way.iter().map(|listening| listening.listener.clone()).collect();
            match bind(proxy.clone(), leaving).await {
                Ok(ingress) => {
                    for listening in in_the_way {
                        listening.close().await;
                    }
                    tracing::info!(proxy = ?proxy.name, listen = %proxy.listen, "proxy listens");
                    self.listen(ingress);
                }
                Err(error) => {
                    failed.push(error);
                    before.extend(in_the_way);
                }
            }
        }
        for listening in before {
            if failed.iter().any(|error| error.name == listening.proxy.name) {
                self.listening.push(listening);
            } else {
                let Proxy { name, listen, .. } = listening.close().await;
                tracing::info!(proxy = ?name, %listen, "listener closed");
            }
        }
        failed
    }

    /// Closes all of them.
    pub async fn close(&mut self) {
        for listening in self.listening.drain(..) {
            listening.close().await;
        }
    }

    fn listen(&mut self, ingress: Ingress) {
        let (proxy, address) = (ingress.proxy.clone(), ingress.address());
        let (lead, listener) = (ingress.lead.clone(), ingress.listener.clone());
        let mut task = JoinSet::new();
        task.spawn(ingress.run(self.context.clone(), self.counters.clone()));
        self.listening.push(Listening { proxy, address, lead, listener, task });
    }
}

impl Listening {
    /// Stops listening, and has when this returns.
    async fn close(mut self) -> Proxy {
        self.task.shutdown().await;
        self.proxy
    }
}

/// Binds on a thread for blocking work: who holds a port that is taken is looked up in `/proc`.
async fn bind(proxy: Proxy, leaving: Vec<Arc<Listener>>) -> Result<Ingress, BindError> {
    let failed = BindError {
        name: proxy.name.clone(),
        listen: proxy.listen.to_string(),
        reason: "this version does not serve proxies of this kind".to_owned(),
    };
    match tokio::task::spawn_blocking(move || Ingress::bind_beside(&proxy, &leaving)).await {
        Ok(bound) => bound?.ok_or(failed),
        Err(error) => Err(BindError { reason: error.to_string(), ..failed }),
    }
}
