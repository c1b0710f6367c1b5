//! Renewing this node's certificate, from half of its life on.

use std::sync::Arc;
use std::time::Duration;

use ffmesh_api::Change;
use ffmesh_core::wire::FlowProtocol;
use jiff::Timestamp;

use super::Parts;
use super::accept::ask_issuer;
use crate::identity::Standing;

/// Longest sleep before the certificate is looked at again: clocks are set.
const LOOK_INTERVAL: Duration = Duration::from_hours(1);
/// Shortest, as the moment itself is rounded.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Keeps the certificate fresh. New handshakes use the new one; nothing that is open is touched.
pub(super) async fn renew(parts: Arc<Parts>) {
    loop {
        let renewal = parts.credentials.renewal();
        let now = Timestamp::now();
        let wait = match renewal.due(now) {
            None => Duration::try_from(renewal.due_at().duration_since(now)).unwrap_or_default(),
            Some(left) => match attempt(&parts).await {
                Ok(expires) => {
                    tracing::info!(%expires, "certificate renewed");
                    parts.events.publish(Change::Certificate { expires });
                    // With a clock far ahead of the issuer's, the new one is due at once.
                    renewal.retry_after()
                }
                Err(reason) => {
                    tell(renewal.standing(now), left, &reason);
                    renewal.retry_after()
                }
            },
        };
        tokio::time::sleep(wait.clamp(SHORTEST_WAIT, LOOK_INTERVAL)).await;
    }
}

fn tell(standing: Standing, left: Duration, reason: &str) {
    let left = left.as_secs();
    match standing {
        Standing::Fresh | Standing::Due => tracing::info!(left, "certificate not renewed yet: {reason}"),
        Standing::Overdue => {
            tracing::warn!(
                left,
                "certificate not renewed, and it ends soon: {reason}; check that an issuer is up"
            );
        }
        Standing::Expired => tracing::error!(
            "certificate has ended and is not renewed: {reason}; join again with a token for this node"
        ),
    }
}

async fn attempt(parts: &Parts) -> Result<Timestamp, String> {
    if let Some(issuer) = &parts.issuer {
        let renewed = issuer.clone().renew_own(parts.credentials.clone()).await;
        return renewed.map_err(|e| e.to_string());
    }
    let request = parts.credentials.renewal_request().map_err(|e| e.to_string())?;
    let answer = ask_issuer(parts, FlowProtocol::Renew, request).await?;
    parts.credentials.install(&answer).map_err(|e| e.to_string())
}
