//! The state directory and the certificate.

use std::path::Path;

use ffmesh_core::id::NodeId;
use ffmesh_node::identity::{Credentials, IdentityError};
use ffmesh_node::state::StateDir;
use jiff::Timestamp;

use super::finding::Finding;
use crate::format::{bytes, expiry};

/// Free space that the store and keys need with room to spare.
const ENOUGH_SPACE: u64 = 256 << 20;
/// Below this a write is about to fail.
const LEAST_SPACE: u64 = 16 << 20;
/// Share of a certificate's life that is left when something must be wrong with its renewal, which begins at a half.
const RENEWAL_OVERDUE: f64 = 0.3;

const DIRECTORY: &str = "state directory";
const CERTIFICATE: &str = "certificate";

/// Owner, mode and free space.
pub(super) fn directory(state: &StateDir) -> Vec<Finding> {
    let path = state.path();
    let place = path.display();
    if !path.exists() {
        let advice = "`ffmesh init CONFIG` or `ffmesh join TOKEN CONFIG` makes it; is another one meant (--state-dir, user)?";
        return vec![Finding::failed(DIRECTORY, format!("{place} does not exist"), advice)];
    }
    if let Err(error) = state.check() {
        return vec![Finding::failed(DIRECTORY, error.to_string(), "do as it says")];
    }
    vec![Finding::ok(DIRECTORY, format!("{place} belongs to this user alone")), space(path)]
}

fn space(path: &Path) -> Finding {
    match rustix::fs::statvfs(path) {
        Ok(fs) => judge_space(fs.f_bavail.saturating_mul(fs.f_frsize)),
        Err(error) => Finding::skipped("disk space", format!("it cannot be read: {error}")),
    }
}

fn judge_space(free: u64) -> Finding {
    let found = format!("{} free for the state directory", bytes(free));
    let advice = "make room: keys, certificates and the history are written there";
    match free {
        0..LEAST_SPACE => Finding::failed("disk space", found, advice),
        LEAST_SPACE..ENOUGH_SPACE => Finding::warning("disk space", found, advice),
        _ => Finding::ok("disk space", found),
    }
}

/// Keys, certificate, and how long it lasts.
pub(super) fn certificate(
    credentials: &Result<Credentials, IdentityError>,
    configured: Option<&NodeId>,
) -> Vec<Finding> {
    let now = Timestamp::now();
    let credentials = match credentials {
        Ok(credentials) => credentials,
        Err(error) => {
            let advice = "`ffmesh init` or `ffmesh join` makes an identity; a damaged one comes from a backup or from joining anew";
            return vec![Finding::failed("identity", error.to_string(), advice)];
        }
    };
    let identity = credentials.identity();
    if configured.is_some_and(|id| *id != identity.id) {
        let found = credentials.check(configured, now).err().map_or_else(String::new, |e| e.to_string());
        let advice = "correct node_id, or choose the right directory with --state-dir";
        return vec![Finding::failed("identity", found, advice)];
    }
    let found = format!("{} of mesh {}, its key readable by this user alone", identity.id, identity.mesh);
    vec![Finding::ok("identity", found), judge_life(identity.issued, identity.expires, now)]
}

fn judge_life(issued: Timestamp, expires: Timestamp, now: Timestamp) -> Finding {
    let found = expiry(expires, now);
    let left = expires.duration_since(now).as_secs_f64();
    let life = expires.duration_since(issued).as_secs_f64();
    if now < issued {
        let found = format!("it is valid from {issued} on only");
        return Finding::failed(CERTIFICATE, found, "set this machine's clock, for example with NTP");
    }
    if left <= 0.0 {
        let advice = "set the clock if it is wrong; otherwise join again with a token from `ffmesh token create --node ID`";
        return Finding::failed(CERTIFICATE, found, advice);
    }
    if left < life * RENEWAL_OVERDUE {
        let advice = "it renews itself from half of its life on, and has not: is the node running, and does it reach an issuer?";
        return Finding::warning(CERTIFICATE, found, advice);
    }
    Finding::ok(CERTIFICATE, format!("{found}; it renews itself from half of its life on"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_what_is_left_of_it() {
        let issued = Timestamp::UNIX_EPOCH;
        let day = |n: u64| issued + Duration::from_hours(24 * n);
        let judge = |now| judge_life(issued, day(100), now).result;
        assert_eq!(judge(day(10)), Verdict::Ok);
        assert_eq!(judge(day(69)), Verdict::Ok);
        assert_eq!(judge(day(71)), Verdict::Warning);
        assert_eq!(judge(day(100)), Verdict::Failed);
        assert_eq!(judge_life(day(1), day(100), issued).result, Verdict::Failed);
    }

    #[test]
    fn a_full_disk_fails_before_the_node_does() {
        assert_eq!(judge_space(1 << 20).result, Verdict::Failed);
        assert_eq!(judge_space(100 << 20).result, Verdict::Warning);
        assert_eq!(judge_space(1 << 30).result, Verdict::Ok);
    }

    #[test]
    fn a_directory_that_is_missing_or_open_to_others_is_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &Path| directory(&StateDir::at(path))[0].clone();
        assert_eq!(at(&dir.path().join("none")).result, Verdict::Failed);
        assert_eq!(at(dir.path()).result, Verdict::Ok);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let open = at(dir.path());
        assert!(open.result == Verdict::Failed && open.found.contains("chmod go-w"), "{open:?}");
        let none = certificate(&Credentials::load(&StateDir::at(dir.path())), None);
        assert_eq!(none[0].result, Verdict::Failed);
    }
}
