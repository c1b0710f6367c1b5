//! `ffmesh services`: what the nodes of the mesh offer by name.

use comfy_table::Cell;
use ffmesh_api::{Origin, Service};
use ffmesh_core::text::foreign;

use crate::args::Show;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::Column::Text;
use crate::output::{self, Tone, cell, state};
use crate::place;

/// All services, this node's first. Its JSON is that of the API.
pub(crate) async fn services(show: &Show) -> Outcome {
    let node = place::node(&show.choice)?;
    let (json, services) = Client::new(&node).get::<Vec<Service>>("services").await?;
    if show.json {
        return output::json(&json);
    }
    let header = [
        Text("NAME"),
        Text("STATE"),
        Text("PROTOCOL"),
        Text("NODE"),
        Text("ADDRESS"),
        Text("ALLOWED"),
        Text("NOTE"),
    ];
    let rows = services.iter().map(row).collect();
    output::table(&header, rows, "no services; `services` of a node's file names what it offers")
}

fn row(service: &Service) -> Vec<Cell> {
    let (word, tone) = match (&service.error, service.reachable) {
        (Some(error), _) => (foreign(error), Tone::Bad),
        (None, true) => ("reachable".to_owned(), Tone::Good),
        (None, false) => ("unreachable".to_owned(), Tone::Bad),
    };
    let note = match service.origin {
        None => "",
        Some(Origin::File) => "of this node",
        Some(Origin::Runtime) => "of this node, added at run time",
    };
    // Only its own node knows who may use it, and where it is.
    let allowed = match (&service.allow, service.origin) {
        (Some(allow), _) if allow.is_empty() => "nobody".to_owned(),
        (Some(allow), _) => allow.join(", "),
        (None, Some(_)) => "every member".to_owned(),
        (None, None) => "-".to_owned(),
    };
    vec![
        cell(foreign(&service.name)),
        state(word, tone),
        cell(foreign(&service.protocol)),
        cell(service.node_id.as_str()),
        cell(service.address.as_deref().unwrap_or("-")),
        cell(allowed),
        cell(note),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_shown_with_what_is_known_of_it() {
        let own = Service {
            name: "web".to_owned(),
            protocol: "tcp".to_owned(),
            node_id: "a".parse().unwrap(),
            reachable: true,
            address: Some("127.0.0.1:80".to_owned()),
            allow: None,
            origin: Some(Origin::File),
            error: None,
        };
        let theirs = Service {
            name: "evil\x1b[2J".to_owned(),
            node_id: "b".parse().unwrap(),
            reachable: false,
            address: None,
            origin: None,
            ..own.clone()
        };
        let limited =
            Service { allow: Some(vec!["group:dev".to_owned(), "node:b".to_owned()]), ..own.clone() };
        let text = output::draw(&[], vec![row(&own), row(&theirs), row(&limited)]);
        let words: Vec<_> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(words[0], "web reachable tcp a 127.0.0.1:80 every member of this node");
        assert_eq!(words[1], "evil\\u{1b}[2J unreachable tcp b - -");
        assert_eq!(words[2], "web reachable tcp a 127.0.0.1:80 group:dev, node:b of this node");
    }
}
