//! Whatever the topology, every pair of nodes carries bytes, exactly.

use std::time::Duration;

use ffmesh_lab::{Family, Mesh, Plan, Service, until};

use crate::{mesh, stopped_mesh};

#[test]
fn a_chain_carries_all_pairs_through_up_to_five_relays() {
    let ids = ["n0", "n1", "n2", "n3", "n4", "n5", "n6"];
    let Some(mesh) = mesh("chain", &Plan::chain(&ids)) else { return };
    // Each node is the end of chains of every length, and the middle of others.
    mesh.assert_carries_all_pairs();
    for (hops, to) in ids.iter().enumerate().skip(1) {
        let routes = mesh.node("n0").routes_to(to);
        let path: Vec<_> = routes[0].path.iter().map(ToString::to_string).collect();
        assert_eq!(path, ids[..=hops], "{routes:?}");
        assert_eq!((routes.len(), routes[0].hops as usize), (1, hops));
    }
    // What the ends said to each other the inner nodes have carried, and counted.
    let carried = mesh.node("n3").status().transit;
    assert!(carried.packets > 0 && carried.bytes > 0, "{carried:?}");
    let none = mesh.node("n0").status().transit;
    assert_eq!((none.circuits, none.packets), (0, 0));
}

#[test]
fn a_ring_carries_all_pairs_and_so_it_does_when_it_is_cut() {
    let ids = ["n0", "n1", "n2", "n3", "n4"];
    let plan = Plan::chain(&ids).link("n4", "n0");
    let Some(mesh) = mesh("ring", &plan) else { return };
    mesh.assert_carries_all_pairs();
    // Two ways around, which share no relay.
    until("both ways around are known", Duration::from_secs(5), || {
        mesh.node("n0").routes_to("n2").len() == 2
    });
    let mut hops: Vec<_> = mesh.node("n0").routes_to("n2").iter().map(|route| route.hops).collect();
    hops.sort_unstable(); // the one in use comes first, which may be the one that was known first
    assert_eq!(hops, [2, 3]);
    mesh.cut("n0", "n1");
    until("only the long way is left", Duration::from_secs(10), || !mesh.node("n0").sees("n1"));
    mesh.assert_carries("n0", "n1");
    mesh.assert_carries("n1", "n0");
    until("and the routes say so", Duration::from_secs(5), || {
        mesh.node("n0").routes_to("n1").first().is_some_and(|route| route.hops == 4)
    });
}

#[test]
fn a_full_mesh_of_six_carries_all_pairs_directly() {
    let ids = ["n0", "n1", "n2", "n3", "n4", "n5"];
    let pairs = ids.iter().enumerate().flat_map(|(n, a)| ids[n + 1..].iter().map(move |b| (a, b)));
    let plan = pairs.fold(Plan::new(&ids), |plan, (a, b)| plan.link(a, b));
    let Some(mesh) = mesh("full", &plan) else { return };
    until("all are linked", Duration::from_secs(10), || {
        ids.iter().all(|id| mesh.node(id).status().links_up == 5)
    });
    mesh.assert_carries_all_pairs();
    for (from, to) in [("n0", "n5"), ("n5", "n0"), ("n2", "n3")] {
        let best = &mesh.node(from).routes_to(to)[0];
        assert_eq!(best.hops, 1, "{best:?}");
    }
}

#[test]
fn a_mesh_over_ipv6_only_carries_all_pairs() {
    let ids = ["n0", "n1", "n2", "n3"];
    let link = |plan: Plan, pair: &[&str]| plan.link_over(Family::V6, pair[0], pair[1]);
    let plan = ids.windows(2).fold(Plan::new(&ids), link);
    let Some(mesh) = mesh("v6", &plan) else { return };
    mesh.assert_carries_all_pairs();
}

#[test]
fn a_mesh_of_both_families_carries_all_pairs() {
    // A relay has one family on each side, and one node dials over the one and is dialled over the other.
    let ids = ["n0", "n1", "n2", "n3"];
    let plan = Plan::new(&ids).link("n0", "n1").link_over(Family::V6, "n1", "n2").link("n2", "n3");
    let plan = plan.link_over(Family::V6, "n3", "n0");
    let Some(mesh) = mesh("both", &plan) else { return };
    mesh.assert_carries_all_pairs();
    for (from, to) in [("n1", "n2"), ("n3", "n0")] {
        let peers = mesh.node(from).peers();
        let peer = peers.iter().find(|peer| peer.node_id.as_str() == to).unwrap();
        assert!(peer.address.as_deref().is_some_and(|address| address.starts_with("[fd72:")), "{peer:?}");
    }
}

/// The seed's own files, with the addresses of the lab in place of those of documentation (RFC 5737).
const SEED: [(&str, &str); 3] = [
    ("ffb213d4e5", include_str!("../../../node/tests/seed/ffb213d4e5.yaml")),
    ("121a93d4e5", include_str!("../../../node/tests/seed/121a93d4e5.yaml")),
    ("88b2c4d4e5", include_str!("../../../node/tests/seed/88b2c4d4e5.yaml")),
];

#[test]
fn the_seeds_files_work_as_they_are_written() {
    let [left, middle, right] = SEED.map(|(id, _)| id);
    // The node in the middle listens nowhere, dials both, and carries what they have to say to each other.
    let plan = Plan::new(&[left, middle, right]).link(middle, left).link(middle, right);
    let Some(mut mesh) = stopped_mesh("seed-files", &plan) else { return };
    let right_host = mesh.address(middle, right).replace(":3334", "");
    mesh.net(middle).hosts(&[("node2.example.com", &right_host)]);
    for (id, text) in SEED {
        // The lab writes the id itself.
        let lines = text.lines().filter(|line| !line.starts_with("node_id:")).collect::<Vec<_>>();
        let text = lines.join("\n").replace("192.0.2.1:3334", &mesh.address(middle, left));
        mesh.node(id).configure(&(text + "\n"));
    }
    let answer = |mesh: &Mesh, at: &str, port: u16, says: &'static [u8]| {
        Service::new(mesh.net(at), &format!("127.0.0.1:{port}"), move |conn| {
            let _ = conn.send(says);
        })
    };
    let _services = [
        answer(&mesh, left, 80, b"the web page of ffb2"),
        answer(&mesh, right, 80, b"the web page of 88b2"),
        answer(&mesh, right, 8080, b"the other web page of 88b2"),
        answer(&mesh, middle, 22, b"SSH-2.0-121a"),
    ];
    mesh.start();
    let proxies: [(&str, u16, &[u8]); 4] = [
        (left, 3333, b"the web page of 88b2"),
        (left, 2222, b"SSH-2.0-121a"),
        (middle, 8001, b"the web page of ffb2"),
        (middle, 8002, b"the other web page of 88b2"),
    ];
    for (at, port, says) in proxies {
        let conn = mesh.net(at).connect(&format!("127.0.0.1:{port}")).unwrap();
        assert_eq!(conn.receive(says.len()).unwrap(), says, "through {at}'s port {port}");
    }
    let route = &mesh.node(left).routes_to(right)[0];
    let path: Vec<_> = route.path.iter().map(ToString::to_string).collect();
    assert_eq!(path, [left, middle, right]);
    assert!(!mesh.node(middle).status().accepts);
    assert!(mesh.node(middle).status().transit.packets > 0);
}
