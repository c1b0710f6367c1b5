//! What may be dialled through this node, kept in line with what is in force and with the machine's addresses.

use std::net::SocketAddr;

use ffmesh_core::policy::{Caller, Own};

use super::Owner;
use crate::config::Listen;
use crate::egress;
use crate::node::where_to_dial;

impl Owner {
    /// Sets the policy, with what listens and what is `soon` to listen as FFMesh's own.
    pub(super) fn set_policy(&self, soon: &[Listen]) -> std::io::Result<()> {
        let config = self.parts.config();
        let mut listeners = self.ingresses.addresses();
        listeners.extend(config.admin.listen);
        let mut unix = self.ingresses.paths();
        unix.push(self.parts.admin_path.clone());
        for listen in soon {
            match listen {
                Listen::Port(ip, port) => listeners.push(SocketAddr::new(*ip, *port)),
                Listen::Unix(path) => unix.push(path.clone()),
            }
        }
        let own: Own = egress::own(listeners, &unix)?;
        let services = self.services_in_force();
        self.parts.egress.set_policy(egress::policy(&config, &services, own, &self.hosts));
        Ok(())
    }

    pub(super) fn refresh_policy(&self) {
        if let Err(error) = self.set_policy(&[]) {
            tracing::warn!("addresses of this machine cannot be read: {error}");
        }
    }

    /// Ends the flows that the policy would refuse now.
    pub(super) fn end_refused(&self) {
        let egress = &self.parts.egress;
        let ended = self.parts.flows.revoke(|peer, dialled| {
            let caller = Caller { id: peer, groups: &dialled.groups };
            let refusal = egress.check(&caller, &dialled.target, dialled.address).err()?;
            Some(format!("access was taken away: {}", refusal.detail))
        });
        if ended > 0 {
            tracing::info!(flows = ended, "open flows ended that the new access rules refuse");
        }
    }

    /// Keeps the policy's picture of this machine's addresses, as what a wildcard listener listens on changes with them; and
    /// tells the mesh where this node can be dialled.
    pub(super) async fn follow_addresses(&self) {
        self.refresh_policy();
        let addresses = where_to_dial(&self.parts.config(), self.parts.udp);
        self.parts.sessions.driver().advertise(addresses).await;
    }
}
