//! Tracing the route to a node.

use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::trace::Hop;

use super::{SessionError, Sessions};

impl Sessions {
    /// Asks each node of the best route to `node`. Waits up to 3 s for a route, and 2 s for the answers.
    pub async fn trace(&self, node: &NodeId) -> Result<Vec<Hop>, SessionError> {
        let refused = |detail: String| SessionError { reason: Reason::NoRoute, detail };
        if *node == self.context.credentials.node_id() {
            return Err(refused(format!("{node} is this node: there is nothing between")));
        }
        let routes = self.routes_to(node).await?;
        let best = self.route_in_use(node).or_else(|| routes.into_iter().next());
        let best = best.ok_or_else(|| refused(format!("no route to {node}")))?;
        let hops = self.context.driver.trace(best.to_vec()).await;
        hops.ok_or_else(|| refused("the node is shutting down".to_owned()))
    }
}
