//! Files: private, whole, and never overwritten.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::state::StateError;

#[tokio::test]
async fn an_existing_identity_is_never_touched() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let files = |state: &StateDir| credential_paths(state).iter().map(std::fs::read).collect::<Vec<_>>();
    let read = |state: &StateDir| files(state).into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let before = read(&mesh.state);
    let founder = JoinOptions { state: mesh.state.clone(), node_id: None };
    let error = join(&mesh.token(|_| {}), &founder).await.unwrap_err();
    assert!(matches!(&error, IdentityError::AlreadyEnrolled { node, .. } if node == "founder"), "{error}");
    let again = InitOptions {
        state: mesh.state.clone(),
        node_id: None,
        mesh: None,
        advertise: Vec::new(),
        listen_port: 3334,
        cert_ttl: HOUR,
    };
    assert!(matches!(init(&again), Err(IdentityError::AlreadyEnrolled { .. })));
    assert_eq!(read(&mesh.state), before);
}

#[test]
fn a_half_written_identity_is_none_and_is_founded_anew() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    std::fs::remove_file(mesh.state.path().join("node.crt")).unwrap();
    let error = Credentials::load(&mesh.state).unwrap_err();
    assert!(
        error.to_string().contains("ffmesh init") && error.to_string().contains("ffmesh join"),
        "{error}"
    );
    let old = std::fs::read(mesh.state.path().join("authority.key")).unwrap();
    let options = InitOptions {
        state: mesh.state.clone(),
        node_id: None,
        mesh: None,
        advertise: vec![address("vps.example.com:3334")],
        listen_port: 3334,
        cert_ttl: HOUR,
    };
    let founded = init(&options).unwrap();
    assert_eq!(founded.node_id.as_str().len(), 10);
    assert!(founded.mesh.as_str().starts_with("mesh-"));
    Credentials::load(&mesh.state).unwrap();
    // The old authority's key was put aside, not lost.
    let kept = std::fs::read_dir(mesh.state.path()).unwrap().flatten().filter(|entry| {
        entry.file_name().to_string_lossy().starts_with("authority.key.before-")
            && std::fs::read(entry.path()).unwrap() == old
    });
    assert_eq!(kept.count(), 1);
    // What `init` was told goes into tokens.
    let token: JoinToken = mesh.token(|t| t.advertise.clear()).parse().unwrap();
    assert_eq!(token.nodes, [(founded.node_id, options.advertise)]);
}

#[test]
fn secrets_are_private_on_disk_and_exposed_ones_are_refused() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    mesh.token(|_| {});
    let mut dirs = vec![mesh.state.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            if entry.path().is_dir() {
                assert_eq!(mode, 0o700, "{:?}", entry.path());
                dirs.push(entry.path());
            } else {
                assert_eq!(mode, 0o600, "{:?}", entry.path());
            }
        }
    }
    for name in ["node.key", "authority.key"] {
        let path = mesh.state.path().join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Credentials::load(&mesh.state).and_then(|_| Issuer::load(&mesh.state)).unwrap_err();
        assert!(matches!(error, IdentityError::State(StateError::Exposed { .. })), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let debug = format!("{:?}{:?}", mesh.credentials, mesh.issuer);
    assert!(!debug.to_lowercase().contains("key {") && !debug.contains("PRIVATE"), "{debug}");
}

#[test]
fn damaged_credentials_are_named() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let other = Mesh::found(DEFAULT_CERT_TTL);
    for name in ["node.key", "node.crt", "ca.crt", "authority.crt", "authority.json"] {
        let path = mesh.state.path().join(name);
        let good = std::fs::read(&path).unwrap();
        let foreign = std::fs::read(other.state.path().join(name)).unwrap();
        for bad in [b"garbage".to_vec(), foreign] {
            if name == "authority.json" && bad != b"garbage" {
                continue;
            }
            std::fs::write(&path, bad).unwrap();
            let error = Credentials::load(&mesh.state).and_then(|_| Issuer::load(&mesh.state)).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{name}: {error}");
        }
        std::fs::write(&path, good).unwrap();
    }
}

#[tokio::test]
async fn impossible_options_and_non_issuers_are_told() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    mesh.member("a").await;
    let options = TokenOptions {
        members: Vec::new(),
        ttl: HOUR,
        uses: 1,
        node: None,
        groups: Vec::new(),
        relay: true,
        advertise: Vec::new(),
        listen_port: Some(4444),
    };
    let error =
        |state: &StateDir, options: TokenOptions| create_token(state, &options).unwrap_err().to_string();
    assert!(error(&mesh.dir("a"), options.clone()).contains("no issuer"));
    assert!(error(&mesh.dir("none"), options.clone()).contains("ffmesh init"));
    assert!(error(&mesh.state, TokenOptions { uses: 0, ..options.clone() }).contains("--uses"));
    assert!(error(&mesh.state, TokenOptions { ttl: Duration::ZERO, ..options.clone() }).contains("--ttl"));
    let groups = vec!["a b".to_owned()];
    assert!(error(&mesh.state, TokenOptions { groups, ..options.clone() }).contains("\"a b\""));
    let groups = (0..33).map(|n| format!("g{n}")).collect();
    assert!(error(&mesh.state, TokenOptions { groups, ..options.clone() }).contains("at most 32"));
    let token: JoinToken = create_token(&mesh.state, &options).unwrap().token.parse().unwrap();
    assert!(token.addresses().all(|(_, address)| address.port == 4444));
}

#[test]
fn reset_keys_follow_from_the_node_key() {
    let (mesh, other) = (Mesh::found(DEFAULT_CERT_TTL), Mesh::found(DEFAULT_CERT_TTL));
    let sign = |credentials: &Credentials| {
        let mut out = [0; 32];
        credentials.stateless_reset_key().sign(b"cid", &mut out);
        out
    };
    assert_eq!(sign(&mesh.credentials), sign(&Credentials::load(&mesh.state).unwrap()));
    assert_ne!(sign(&mesh.credentials), sign(&other.credentials));
}
