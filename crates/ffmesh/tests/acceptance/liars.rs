//! A member that lies: it has credentials, and says what is not so. It is refused and counted, and nobody is harmed.

use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::lsdb::record::{MAX_SERVICES, sign};
use ffmesh_core::lsdb::{Content, KeyHash, Listed, NodeInfo, Service as Offered, Signer, Version};
use ffmesh_core::wire::{
    Advert, AgedRecord, Base64, Decoder, Envelope, Message, Pong, SynMsg, decode_datagram, encode,
    encode_datagram,
};
use ffmesh_lab::{Hasher, Mesh, Node, Plan, until};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SigningKey;
use tokio::time::timeout;

use crate::mesh;
use crate::stranger::{Credentials, Stranger};

/// A version above all others.
const HIGHEST: Version = Version { epoch: u64::MAX, sequence: u32::MAX };
/// How long the liar holds its link after its last word.
const LASTING: Duration = Duration::from_millis(700);

/// The key of a node's state directory.
struct StolenKey(Arc<dyn SigningKey>);

impl StolenKey {
    fn of(node: &Node) -> Self {
        let pem = std::fs::read(node.state_dir().join("node.key")).unwrap();
        let der = PrivateKeyDer::from_pem_slice(&pem).unwrap();
        Self(rustls::crypto::ring::sign::any_supported_type(&der).unwrap())
    }
}

impl Signer for StolenKey {
    fn key(&self) -> KeyHash {
        let mut hasher = Hasher::new();
        hasher.update(&self.0.public_key().unwrap());
        KeyHash(hasher.finish())
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let signer = self.0.choose_scheme(&[rustls::SignatureScheme::ED25519]).unwrap();
        signer.sign(bytes).unwrap()
    }
}

/// A mesh `a`, `r`, `b`, whose member `liar` is enrolled and does not run: the test speaks in its place.
struct Lied {
    mesh: Mesh,
    key: StolenKey,
}

impl Lied {
    fn new(name: &str) -> Option<Self> {
        let plan = Plan::new(&["r", "a", "b", "liar"]).link("a", "r").link("b", "r").link("liar", "r");
        let mut mesh = mesh(name, &plan)?;
        let key = StolenKey::of(mesh.node("liar"));
        mesh.node_mut("liar").stop();
        until("the liar's place is free", Duration::from_secs(5), || !mesh.node("r").sees("liar"));
        Some(Self { mesh, key })
    }

    /// A link as the liar, on which these messages are said. Returns what `r` said before it closed the link, if it did.
    fn say(&self, messages: &[Message]) -> Option<String> {
        let (liar, relay) = ("liar".parse().unwrap(), "r".parse().unwrap());
        let mesh = self.mesh.node("r").status().mesh.parse().unwrap();
        // Later than the liar's own last start.
        let epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let epoch = u64::try_from(epoch).unwrap();
        let syn = Message::SynMsg(SynMsg {
            version: 1,
            node_id: liar,
            mesh,
            epoch,
            capabilities: Vec::new(),
            clock_ms: None,
        });
        let server = self.mesh.address("liar", "r");
        let stranger = Stranger::in_net(self.mesh.net("liar"), Credentials::of(self.mesh.node("liar")));
        stranger.speak(&server, "ffmesh-link/1", async |connection| {
            let (mut send, mut receive) = connection.open_bi().await.expect("a control stream");
            send.write_all(&encode(&relay, &syn)).await.unwrap();
            let mut decoder = Decoder::for_link();
            let accepted = loop {
                if let Some(Envelope { message: Message::SynAckMsg(ack), .. }) = decoder.message().unwrap() {
                    break ack;
                }
                let mut buffer = [0; 1 << 10];
                let count = receive.read(&mut buffer).await.unwrap().expect("an answer");
                decoder.push(&buffer[..count]);
            };
            assert!(accepted.result, "the liar is a member: {:?}", accepted.reason);
            for message in messages {
                // A link that is closed meanwhile is an answer, too.
                if send.write_all(&encode(&relay, message)).await.is_err() {
                    break;
                }
            }
            // It answers PINGs: what keeps a link alive is no lie.
            let answering = async {
                while let Ok(datagram) = connection.read_datagram().await {
                    if let Ok(Envelope { message: Message::Ping(ping), .. }) = decode_datagram(&datagram) {
                        let pong = Message::Pong(Pong { seq: ping.seq });
                        let _ = connection.send_datagram(encode_datagram(&relay, &pong).into());
                    }
                }
            };
            let lasting = timeout(LASTING, answering);
            tokio::select! {
                closed = connection.closed() => Some(closed.to_string()),
                _ = lasting => connection.close_reason().map(|reason| reason.to_string()),
            }
        })
    }

    /// What `origin` says of its links, signed by the liar.
    fn links(&self, origin: &str, version: Version, to: &[&str]) -> Vec<u8> {
        links(origin, version, to, &self.key)
    }

    /// Errors that `r` has counted.
    fn counted(&self) -> u64 {
        self.mesh.node("r").status().errors.iter().map(|error| error.count).sum()
    }

    /// Nobody is harmed.
    fn assert_unharmed(&mut self) {
        for (from, to) in [("a", "b"), ("b", "a"), ("r", "a")] {
            self.mesh.assert_carries(from, to);
        }
        for id in ["r", "a", "b"] {
            assert!(self.mesh.node_mut(id).is_running(), "{id} is gone");
        }
        assert_eq!(self.mesh.node("a").routes_to("b")[0].hops, 2);
        // The machine that the liar is comes back as an honest one.
        self.mesh.node_mut("liar").start();
        self.mesh.wait_all_reach_all();
        self.mesh.assert_carries("a", "liar");
        self.mesh.node_mut("liar").stop();
    }
}

fn links(origin: &str, version: Version, to: &[&str], key: &StolenKey) -> Vec<u8> {
    let listed = |to: &&str| Listed { neighbor: to.parse().unwrap(), cost: 1, band: 0 };
    sign(&origin.parse().unwrap(), version, &Content::Links(to.iter().map(listed).collect()), key)
}

fn advert(records: Vec<Vec<u8>>) -> Message {
    Message::Advert(Advert {
        records: records.into_iter().map(|record| AgedRecord(0, Base64(record))).collect(),
    })
}

#[test]
fn records_in_the_name_of_others_are_refused_and_counted() {
    let Some(mut lied) = Lied::new("forged") else { return };
    let before = lied.counted();
    // That b has no links, that a knows somebody who is not there, and that r itself is cut off.
    let records = vec![
        lied.links("b", HIGHEST, &[]),
        lied.links("a", HIGHEST, &["nowhere"]),
        lied.links("r", HIGHEST, &[]),
    ];
    lied.say(&[advert(records)]);
    assert!(lied.counted() > before, "{:?}", lied.mesh.node("r").status().errors);
    assert!(!lied.mesh.node("a").routes().iter().any(|route| route.node_id.as_str() == "nowhere"));
    lied.assert_unharmed();
}

#[test]
fn links_that_the_other_end_does_not_confirm_attract_no_traffic() {
    let Some(mut lied) = Lied::new("blackhole") else { return };
    // In its own name: that it is next to everybody, at no cost.
    let epoch = Version { epoch: u64::MAX / 2, sequence: 1 };
    let node = NodeInfo { relay: true, transit: true, ..NodeInfo::default() };
    let node = sign(&"liar".parse().unwrap(), epoch, &Content::Node(node), &lied.key);
    lied.say(&[advert(vec![node, lied.links("liar", epoch, &["a", "b", "r"])])]);
    let routes = lied.mesh.node("a").routes_to("b");
    assert!(routes.iter().all(|route| route.path.iter().all(|id| id.as_str() != "liar")), "{routes:?}");
    lied.assert_unharmed();
}

#[test]
fn records_that_are_old_change_nothing() {
    let Some(mut lied) = Lied::new("old") else { return };
    // What others have said once and have taken back since: genuine, and passed on again by one who kept it.
    let old = Version { epoch: 1, sequence: 1 };
    let kept = |id: &str| links(id, old, &[], &StolenKey::of(lied.mesh.node(id)));
    let records = ["a", "b", "r"].map(kept).to_vec();
    lied.say(&vec![advert(records); 3]);
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "r")] {
        assert!(lied.mesh.node(from).reaches(to), "{from} does not reach {to} any more");
    }
    lied.assert_unharmed();
}

#[test]
fn a_million_services_are_refused_and_so_is_what_is_no_record() {
    let Some(mut lied) = Lied::new("services") else { return };
    let before = lied.counted();
    let service = |n: usize| Offered { name: format!("s{n}"), protocol: 1, attachment: "x".repeat(255) };
    let services: Vec<_> = (0..MAX_SERVICES).map(service).collect();
    let node = NodeInfo { services, ..NodeInfo::default() };
    let mut many = sign(&"liar".parse().unwrap(), HIGHEST, &Content::Node(node), &lied.key);
    // As many again as a message can carry, behind what the record says.
    many.resize(700_000, 0x61);
    let nonsense = vec![0xff; 60_000];
    let answer = lied.say(&[advert(vec![many]), advert(vec![nonsense, Vec::new()])]);
    assert!(answer.is_some() || lied.counted() > before, "{:?}", lied.mesh.node("r").status().errors);
    lied.assert_unharmed();
}

#[test]
fn a_flood_of_records_costs_the_liar_only() {
    let Some(mut lied) = Lied::new("flood") else { return };
    let memory = lied.mesh.node_mut("r").process().memory();
    let forged: Vec<_> = (0..200).map(|_| lied.links("b", HIGHEST, &["a", "r"])).collect();
    lied.say(&vec![advert(forged); 100]);
    let grown = lied.mesh.node_mut("r").process().memory().saturating_sub(memory);
    assert!(grown < 64 << 20, "{grown} bytes more");
    lied.assert_unharmed();
}
