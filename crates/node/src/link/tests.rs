//! Nodes that find each other on the loopback.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use ffmesh_core::target::Target;
use ffmesh_udp::Socket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::wanted::MAX_ATTEMPTS;
use super::*;
use crate::config::{Address, Config, Upstream};
use crate::events::Events;
use crate::identity::tests::Mesh;
use crate::socket::Labels;
use crate::transport::HANDSHAKE_TIMEOUT;

const PATIENCE: Duration = Duration::from_secs(20);

/// A node that takes every link; ends with the test.
struct End {
    context: LinkContext,
    address: SocketAddr,
    /// The links that it has had.
    links: mpsc::Receiver<Link>,
    linked: watch::Receiver<Linked>,
    _tasks: JoinSet<()>,
}

impl End {
    fn start(credentials: Credentials) -> Self {
        let udp = Arc::new(Socket::bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap());
        let address = udp.local_addr().unwrap();
        let transport = Transport::new(udp, Labels::default(), &credentials, &Config::default()).unwrap();
        let (events, mut incoming) = mpsc::channel(64);
        let context = LinkContext {
            transport,
            credentials: Arc::new(credentials),
            epoch: 1,
            capabilities: Vec::new(),
            keep_alive: Duration::from_secs(1),
            events,
            changes: Events::default(),
        };
        let (had, links) = mpsc::channel(64);
        let (publish, linked) = watch::channel(Linked::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut now = BTreeSet::new();
            while let Some(event) = incoming.recv().await {
                match event {
                    LinkEvent::Candidate { link, answer } => {
                        now.insert(link.node().clone());
                        publish.send_replace(Arc::new(now.clone()));
                        answer.send(Ok(())).unwrap();
                        had.try_send(link).unwrap();
                    }
                    LinkEvent::Down { link, .. } => {
                        now.remove(link.node());
                        publish.send_replace(Arc::new(now.clone()));
                    }
                    _ => {}
                }
            }
        });
        let accepting = context.clone();
        tasks.spawn(async move {
            while let Some((incoming, kind)) = accepting.transport.accept().await {
                let Ok(connecting) = accepting.transport.accept_as(incoming, kind) else { continue };
                let Ok(connection) = connecting.await else { continue };
                let _ = accept(&accepting, connection).await;
            }
        });
        Self { context, address, links, linked, _tasks: tasks }
    }

    fn node(&self) -> NodeId {
        self.context.credentials.node_id()
    }

    fn target(&self) -> Target {
        self.address.to_string().parse().unwrap()
    }

    /// Dials what is wanted for as long as the sender lives.
    fn want(&self, wanted: Vec<(NodeId, Vec<Target>)>) -> (WantedDialler, watch::Sender<Wanted>) {
        let (sender, receiver) = watch::channel(Arc::new(wanted.into_iter().collect()));
        let dialler = WantedDialler::new(&[]);
        tokio::spawn(dial_wanted(self.context.clone(), dialler.clone(), receiver, self.linked.clone()));
        (dialler, sender)
    }

    async fn link(&mut self) -> Link {
        timeout(PATIENCE, self.links.recv()).await.expect("no link came about").unwrap()
    }
}

async fn two() -> (Mesh, End, End) {
    let mesh = Mesh::found(Duration::from_hours(1)).serving();
    let (a, b) = (End::start(mesh.member("a").await), End::start(mesh.member("b").await));
    (mesh, a, b)
}

/// An address where nobody answers.
fn silent() -> (std::net::UdpSocket, Target) {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = socket.local_addr().unwrap().to_string().parse().unwrap();
    (socket, target)
}

#[tokio::test]
async fn a_wanted_node_is_linked_where_it_can_be_dialled_and_again_when_the_link_is_lost() {
    let (_mesh, mut a, mut b) = two().await;
    let (_socket, nobody) = silent();
    let (dialler, wanted) = a.want(vec![(b.node(), vec![nobody, b.target()]), (a.node(), vec![a.target()])]);
    let link = a.link().await;
    assert_eq!(*link.node(), b.node());
    assert!(link.is_found() && link.dialled());
    let accepted = b.link().await;
    assert!(!accepted.is_found() && !accepted.dialled());
    let mut linked = a.linked.clone();
    linked.wait_for(|linked| linked.contains(&b.node())).await.unwrap();
    while dialler.state(&b.node()).is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await; // the dialler is yet to look
    }

    accepted.close(code::GOODBYE, "lost");
    let again = a.link().await;
    assert!(again.serial() != link.serial() && again.is_found());
    b.link().await;

    // Nobody wants it: the link stays, as it may be in use, and does not come back.
    wanted.send(Wanted::default()).unwrap();
    again.close(code::GOODBYE, "done");
    linked.wait_for(|linked| !linked.contains(&b.node())).await.unwrap();
    assert!(timeout(Duration::from_secs(2), a.links.recv()).await.is_err());
    assert!(dialler.state(&b.node()).is_none() && dialler.state(&a.node()).is_none());
}

#[tokio::test]
async fn another_node_at_the_address_is_not_taken_for_the_wanted_one() {
    let (mesh, a, b) = two().await;
    let mut c = End::start(mesh.member("c").await);
    let (dialler, wanted) = c.want(vec![(a.node(), vec![b.target()])]);
    let error = timeout(PATIENCE, async {
        loop {
            let state = dialler.state(&a.node());
            match state.and_then(|state| state.last_error) {
                Some(error) => return error,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let error = error.await.unwrap();
    assert!(error.contains("is b, not a"), "{error}");
    assert!(c.linked.borrow().is_empty());
    // Where it has moved to counts at once, not when the pause is over.
    wanted.send(Arc::new([(a.node(), vec![a.target()])].into())).unwrap();
    assert_eq!(*c.link().await.node(), a.node());
}

fn upstream(end: &End) -> Upstream {
    Upstream {
        name: "b".to_owned(),
        node_id: end.node(),
        address: Address { host: ffmesh_core::target::Host::Ip(end.address.ip()), port: end.address.port() },
        cost: 0,
    }
}

#[tokio::test]
async fn upstreams_are_left_to_the_configuration() {
    let (_mesh, mut a, b) = two().await;
    let upstream = upstream(&b);
    let (_wanted, receiver) = watch::channel(Arc::new([(b.node(), vec![b.target()])].into()));
    let dialler = WantedDialler::new(std::slice::from_ref(&upstream));
    let _task = tokio::spawn(dial_wanted(a.context.clone(), dialler.clone(), receiver, a.linked.clone()));
    assert!(timeout(Duration::from_secs(1), a.links.recv()).await.is_err());
    assert!(dialler.state(&b.node()).is_none());
    let (_, mut changes) = a.context.changes.subscribe(0);
    let mut upstreams = Upstreams::new(a.context.clone(), a.linked.clone());
    upstreams.apply(&[upstream]);
    let link = a.link().await;
    assert!(link.dialled() && !link.is_found());
    let dialling = Change::Peer { node_id: b.node(), state: PeerState::Dialling, reason: None };
    assert_eq!(changes.recv().await.unwrap().change, dialling);
    // Once it is none any more, its link is one of those that are made where they are wanted.
    upstreams.apply(&[]);
    dialler.leave_out(&[]);
    link.close(code::GOODBYE, "no upstream any more");
    assert!(a.link().await.is_found());
}

#[tokio::test]
async fn an_upstream_that_has_moved_is_dialled_although_there_is_a_link() {
    let (_mesh, mut a, b) = two().await;
    let (there, unnamed) = (upstream(&b), Upstream { name: "c".to_owned(), ..upstream(&b) });
    let gone = Address { port: 9, ..there.address.clone() };
    let beside = Upstream { name: "d".to_owned(), address: gone, ..there.clone() };
    let mut upstreams = Upstreams::new(a.context.clone(), a.linked.clone());
    upstreams.apply(&[beside.clone(), there.clone()]);
    let first = a.link().await;
    // Another name or one more address is no reason for another link.
    upstreams.apply(&[beside, unnamed.clone()]);
    assert!(timeout(Duration::from_secs(1), a.links.recv()).await.is_err());
    upstreams.apply(std::slice::from_ref(&unnamed));
    assert_ne!(a.link().await.serial(), first.serial());
    assert_eq!(upstreams.diallers()[0].upstream(), &unnamed);
}

#[tokio::test]
async fn few_attempts_are_under_way_at_once() {
    let (_mesh, a, _b) = two().await;
    let begin = std::time::Instant::now();
    let silent: Vec<_> = (0..MAX_ATTEMPTS + 8).map(|_| silent()).collect();
    for (socket, _) in &silent {
        socket.set_nonblocking(true).unwrap();
    }
    let wanted = silent.iter().enumerate();
    let wanted = wanted.map(|(n, (_, target))| (format!("n{n}").parse().unwrap(), vec![target.clone()]));
    let (_dialler, _wanted) = a.want(wanted.collect());
    let mut dialled = BTreeSet::new();
    let mut look = || {
        let heard = silent.iter().enumerate().filter(|(_, (socket, _))| socket.recv(&mut [0; 2_000]).is_ok());
        dialled.extend(heard.map(|(n, _)| n));
        dialled.len()
    };
    while look() < MAX_ATTEMPTS {
        assert!(begin.elapsed() < PATIENCE, "{} were dialled", look());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let count = look();
    if begin.elapsed() < HANDSHAKE_TIMEOUT {
        assert_eq!(count, MAX_ATTEMPTS); // none has given up yet
    }
}
