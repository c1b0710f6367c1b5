//! `ffmesh token create`.

use ffmesh_api as api;
use ffmesh_node::identity::{self, TokenOptions};

use crate::args::{Choice, TokenCreate};
use crate::client::Client;
use crate::failure::Outcome;
use crate::format::expiry;
use crate::{output, place};

/// Makes a token: by the running node, which knows the file in force, else in the state directory.
pub(crate) async fn create(args: &TokenCreate, choice: &Choice) -> Outcome {
    let node = place::node(choice)?;
    let token = if node.config.is_none() && place::is_running(&node.state) {
        let request = api::TokenRequest {
            ttl_s: args.ttl.as_secs(),
            uses: args.uses,
            node: args.node.clone(),
            groups: args.group.clone(),
            relay: !args.no_relay,
        };
        Client::new(&node).post("tokens", &request).await?
    } else {
        let quic = node.config.as_ref().map(|config| &config.quic);
        let options = TokenOptions {
            ttl: args.ttl,
            uses: args.uses,
            node: args.node.clone(),
            groups: args.group.clone(),
            relay: !args.no_relay,
            members: quic.map(identity::members).unwrap_or_default(),
            advertise: quic.map(|quic| quic.advertise.clone()).unwrap_or_default(),
            listen_port: quic.and_then(|quic| quic.listen_port),
        };
        identity::create_token(&node.state, &options)?
    };
    if args.json {
        return output::json(&token);
    }
    output::line(&token.join)?;
    let now = jiff::Timestamp::now();
    let uses = if args.uses == 1 { "once".to_owned() } else { format!("{} times", args.uses) };
    // To stderr: stdout is the command, ready to be piped.
    output::remark(&format!("works {uses}, until {}", expiry(token.expires, now)));
    Ok(())
}
