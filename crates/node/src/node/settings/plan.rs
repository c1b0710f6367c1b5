//! What a node is to listen on and to offer when it starts, before anything is bound.

use std::net::SocketAddr;

use ffmesh_api as api;
use jiff::Timestamp;

use super::offer::{self, Offered};
use super::runtime::Entries;
use super::{InForce, offered};
use crate::config::{Config, Problem, Proxy, Service};
use crate::ingress::{BindError, Ingress};
use crate::store::{Store, StoreError};

/// What was added at run time, and what that and the file make together; made before anything is bound.
pub(in crate::node) struct Plan {
    pub(super) proxies: Entries<Proxy>,
    pub(super) services: Entries<Service>,
    offered_proxies: Vec<Offered<Proxy>>,
    offered_services: Vec<Offered<Service>>,
}

/// The proxies of a [`Plan`] that could be bound, and those of run time that could not.
pub(in crate::node) type Bound = (Vec<Ingress>, Vec<BindError>);

impl Plan {
    /// Reads the store.
    pub(in crate::node) fn new(config: &Config, store: &Store) -> Result<Self, StoreError> {
        let (proxies, services) = (Entries::load(store)?, Entries::load(store)?);
        let offered_proxies = offer::proxies(config, proxies.items());
        let offered_services = offer::services(config, services.items());
        for (name, error) in offered_proxies
            .iter()
            .filter(|offered| offered.origin == api::Origin::Runtime)
            .filter_map(|offered| Some((&offered.item.name, offered.error.as_ref()?)))
        {
            tracing::warn!(proxy = ?name, "a proxy that was added at run time does not listen: {error}");
        }
        Ok(Self { proxies, services, offered_proxies, offered_services })
    }

    /// Binds the proxies.
    ///
    /// # Errors
    /// The first of the file that cannot be bound: so a port that is taken is known at once. What was added at run time
    /// is tried again later.
    pub(in crate::node) fn bind(&self) -> Result<Bound, BindError> {
        let (mut bound, mut failed) = (Vec::new(), Vec::new());
        for offered in self.offered_proxies.iter().filter(|offered| offered.error.is_none()) {
            match Ingress::bind(&offered.item) {
                Ok(ingress) => bound.extend(ingress),
                Err(error) if offered.origin == api::Origin::File => return Err(error),
                Err(error) => failed.push(error),
            }
        }
        Ok((bound, failed))
    }

    /// What is offered by name.
    pub(in crate::node) fn services(&self) -> impl Iterator<Item = &Service> {
        offered(&self.offered_services)
    }

    /// What is in force at the start.
    pub(in crate::node) fn in_force(&self, listening: Vec<SocketAddr>, warnings: Vec<Problem>) -> InForce {
        InForce {
            proxies: self.offered_proxies.clone(),
            services: self.offered_services.clone(),
            listening,
            diallers: Vec::new(),
            applied: Timestamp::now(),
            warnings,
            needs_restart: Vec::new(),
        }
    }
}
