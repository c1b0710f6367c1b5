//! What the owner is asked for.

use ffmesh_api as api;
use tokio::sync::{mpsc, oneshot};

use super::Owner;
use super::offer::Offered;
use crate::config::{Proxy, Service};

/// Commands that may wait: each is a request of the API, and those are bounded themselves.
const COMMANDS: usize = 64;

/// What the owner is asked for.
pub(super) enum Command {
    Reload(Answer<api::Reload>),
    PutProxy(Option<String>, api::ProxySpec, Answer<Offered<Proxy>>),
    RemoveProxy(String, Answer<()>),
    PutService(Option<String>, api::ServiceSpec, Answer<Offered<Service>>),
    RemoveService(String, Answer<()>),
    CloseProxies(oneshot::Sender<()>),
}

type Answer<T> = oneshot::Sender<Result<T, api::Error>>;

/// Reaches the [`Owner`]. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::node) struct Settings(mpsc::Sender<Command>);

impl Settings {
    /// Applies the file again.
    pub(in crate::node) async fn reload(&self) -> Result<api::Reload, api::Error> {
        self.ask(Command::Reload).await
    }

    /// Adds a proxy, or puts it in the place of another one that was added.
    pub(in crate::node) async fn put_proxy(
        &self,
        instead: Option<String>,
        spec: api::ProxySpec,
    ) -> Result<Offered<Proxy>, api::Error> {
        self.ask(|answer| Command::PutProxy(instead, spec, answer)).await
    }

    /// Removes a proxy that was added. Its open flows go on.
    pub(in crate::node) async fn remove_proxy(&self, name: String) -> Result<(), api::Error> {
        self.ask(|answer| Command::RemoveProxy(name, answer)).await
    }

    /// Adds a service, or puts it in the place of another one that was added.
    pub(in crate::node) async fn put_service(
        &self,
        instead: Option<String>,
        spec: api::ServiceSpec,
    ) -> Result<Offered<Service>, api::Error> {
        self.ask(|answer| Command::PutService(instead, spec, answer)).await
    }

    /// Removes a service that was added.
    pub(in crate::node) async fn remove_service(&self, name: String) -> Result<(), api::Error> {
        self.ask(|answer| Command::RemoveService(name, answer)).await
    }

    /// Stops listening for new flows, for good: the node is about to end. From then on every change is refused.
    pub(in crate::node) async fn close_proxies(&self) {
        let (answer, done) = oneshot::channel();
        if self.0.send(Command::CloseProxies(answer)).await.is_ok() {
            let _ = done.await; // the owner is gone, and its listeners with it
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, api::Error> {
        let ending = || api::Error::new("the node is about to end: nothing is changed any more");
        let (answer, result) = oneshot::channel();
        self.0.send(command(answer)).await.map_err(|_| ending())?;
        result.await.unwrap_or_else(|_| Err(ending()))
    }
}

/// Commands for an owner that is still to be made.
pub(in crate::node) fn commands() -> (Settings, Commands) {
    let (sender, commands) = mpsc::channel(COMMANDS);
    (Settings(sender), Commands(commands))
}

/// What [`Settings`] ask for.
pub(in crate::node) struct Commands(mpsc::Receiver<Command>);

impl Commands {
    /// The next one; none once nobody can ask any more.
    pub(super) async fn next(&mut self) -> Option<Command> {
        self.0.recv().await
    }
}

impl Owner {
    /// Does what it is asked for. Who asked may be gone by then: it is done all the same.
    pub(super) async fn obey(&mut self, command: Command) {
        match command {
            Command::CloseProxies(answer) => {
                self.ending = true;
                self.ingresses.close().await;
                let _ = answer.send(());
            }
            _ if self.ending => {} // the dropped answer says so
            Command::Reload(answer) => {
                let _ = answer.send(self.reload().await);
            }
            Command::PutProxy(instead, spec, answer) => {
                let _ = answer.send(self.put::<Proxy>(instead, &spec).await);
            }
            Command::RemoveProxy(name, answer) => {
                let _ = answer.send(self.remove::<Proxy>(name).await);
            }
            Command::PutService(instead, spec, answer) => {
                let _ = answer.send(self.put::<Service>(instead, &spec).await);
            }
            Command::RemoveService(name, answer) => {
                let _ = answer.send(self.remove::<Service>(name).await);
            }
        }
    }
}
