//! Adding, changing and removing proxies and services at run time.

use std::net::SocketAddr;

use ffmesh_api as api;
use serde::Serialize;

use super::Owner;
use super::offer::{self, Offered, UNSERVED, proxy_conflict, service_conflict};
use super::runtime::{Entries, Kind, MAX_ENTRIES, keep};
use crate::config::{Config, Proxy, Service};

impl Owner {
    /// Adds an entry, or puts it in the place of `instead`. It is in force and in the store, or nothing has changed.
    pub(super) async fn put<T: Entry>(
        &mut self,
        instead: Option<String>,
        spec: &impl Serialize,
    ) -> Result<Offered<T>, api::Error> {
        if let Some(name) = &instead {
            self.is_added::<T>(name)?;
        } else if T::entries(self).len() >= MAX_ENTRIES {
            return Err(api::Error::new(format!(
                "there are {MAX_ENTRIES} entries that were added at run time, which is the most: remove one first"
            )));
        }
        let text = serde_json::to_string(spec).map_err(|error| api::Error::new(error.to_string()))?;
        let item = <T as Kind>::parse(&text).map_err(|problems| {
            let error = format!("the {} is not what one can be, and nothing was changed", T::WORD);
            api::Error { problems: problems.0.iter().map(Into::into).collect(), ..api::Error::new(error) }
        })?;
        let mut others = T::entries(self).clone();
        if let Some(name) = &instead {
            others.remove(name);
        }
        let config = self.parts.config();
        if others.has(item.name()) && !others.items().any(|other| other.name() == item.name()) {
            let name = item.name();
            return Err(api::Error::new(format!(
                "another version has left a {} called {name:?}: remove it first, or choose another name",
                T::WORD
            )));
        }
        if let Some(conflict) = T::conflict(&item, &T::offered(&config, &others), config.admin.listen) {
            return Err(api::Error::new(conflict));
        }
        let name = item.name().to_owned();
        let before = T::entries(self).clone();
        let kept = (name.clone(), text);
        if !T::CAN_FAIL {
            // First, as nothing brings back the flows that end with it.
            keep::<T>(&self.parts.store, instead.clone(), Some(kept.clone()))
                .await
                .map_err(api::Error::new)?;
        }
        T::entries_mut(self).put(instead.as_deref(), item);
        self.settle(T::CONCERNS_POLICY).await;
        if T::CAN_FAIL {
            let done = match self.failed.iter().find(|failed| failed.name == name) {
                Some(failed) => Err(failed.to_string()),
                None => keep::<T>(&self.parts.store, instead, Some(kept)).await,
            };
            if let Err(error) = done {
                *T::entries_mut(self) = before;
                self.settle(T::CONCERNS_POLICY).await;
                self.publish(|_| {});
                return Err(api::Error::new(error));
            }
        }
        self.publish(|_| {});
        tracing::info!(%name, "{} set at run time", T::WORD);
        let offered = T::offered(&config, T::entries(self));
        let added =
            |offered: &Offered<T>| offered.origin == api::Origin::Runtime && offered.item.name() == name;
        offered.into_iter().find(added).ok_or_else(|| api::Error::new(format!("{name:?} is gone again")))
    }

    /// Takes away an entry that was added.
    pub(super) async fn remove<T: Entry>(&mut self, name: String) -> Result<(), api::Error> {
        self.is_added::<T>(&name)?;
        keep::<T>(&self.parts.store, Some(name.clone()), None).await.map_err(api::Error::new)?;
        T::entries_mut(self).remove(&name);
        self.settle(T::CONCERNS_POLICY).await;
        self.publish(|_| {});
        tracing::info!(%name, "{} removed at run time", T::WORD);
        Ok(())
    }

    /// Whether an entry was added at run time, so that it can be changed.
    fn is_added<T: Entry>(&self, name: &str) -> Result<(), api::Error> {
        if T::entries(self).has(name) {
            return Ok(());
        }
        let config = self.parts.config();
        let word = T::WORD;
        if T::offered(&config, &Entries::default()).iter().any(|offered| offered.item.name() == name) {
            let file = config.path.as_ref().map_or("the configuration".into(), |path| path.to_string_lossy());
            return Err(api::Error::new(format!(
                "the {word} {name:?} is of the configuration file: change it in {file} and reload"
            )));
        }
        Err(api::Error::missing(format!("no {word} is called {name:?}")))
    }
}

/// What can be added at run time, as the owner handles it.
pub(super) trait Entry: Kind {
    /// Whether the policy depends on it.
    const CONCERNS_POLICY: bool;
    /// Whether it may turn out that it can't be had. What cannot is kept before it is in force.
    const CAN_FAIL: bool;
    fn entries(owner: &Owner) -> &Entries<Self>;
    fn entries_mut(owner: &mut Owner) -> &mut Entries<Self>;
    fn offered(config: &Config, entries: &Entries<Self>) -> Vec<Offered<Self>>;
    /// What keeps it from standing beside others.
    fn conflict(item: &Self, others: &[Offered<Self>], admin: Option<SocketAddr>) -> Option<String>;
}

impl Entry for Proxy {
    const CONCERNS_POLICY: bool = false;
    const CAN_FAIL: bool = true;

    fn entries(owner: &Owner) -> &Entries<Self> {
        &owner.proxies
    }

    fn entries_mut(owner: &mut Owner) -> &mut Entries<Self> {
        &mut owner.proxies
    }

    fn offered(config: &Config, entries: &Entries<Self>) -> Vec<Offered<Self>> {
        offer::proxies(config, entries.items())
    }

    fn conflict(item: &Self, others: &[Offered<Self>], admin: Option<SocketAddr>) -> Option<String> {
        proxy_conflict(item, others, admin).or_else(|| (!item.is_served()).then(|| UNSERVED.to_owned()))
    }
}

impl Entry for Service {
    const CONCERNS_POLICY: bool = true;
    const CAN_FAIL: bool = false;

    fn entries(owner: &Owner) -> &Entries<Self> {
        &owner.services
    }

    fn entries_mut(owner: &mut Owner) -> &mut Entries<Self> {
        &mut owner.services
    }

    fn offered(config: &Config, entries: &Entries<Self>) -> Vec<Offered<Self>> {
        offer::services(config, entries.items())
    }

    fn conflict(item: &Self, others: &[Offered<Self>], _: Option<SocketAddr>) -> Option<String> {
        service_conflict(item, others)
    }
}
