//! `ffmesh reload`: the node applies its configuration file again.

use std::fmt::Write as _;

use ffmesh_api as api;
use ffmesh_core::text::escape;
use ffmesh_node::config::{Config, read_again};

use crate::args::Show;
use crate::client::{Client, Refusal};
use crate::failure::{Failure, Outcome};
use crate::{output, place};

/// Prints what has changed. Fails where the file has problems, and where not all of it could be done.
pub(crate) async fn reload(show: &Show) -> Outcome {
    // A file that is wrong does not lead to its node, and would change nothing there.
    if let Some(file) = &show.choice.place.config
        && let Err(problems) = read_again(file).and_then(|bytes| Config::parse_bytes(&bytes, file))
    {
        let error = format!("{} is not valid, and nothing was changed", file.display());
        let problems = problems.0.iter().map(Into::into).collect();
        return refused(&api::Error { problems, ..api::Error::new(error) }, show.json);
    }
    let node = place::node(&show.choice)?;
    match Client::new(&node).post::<api::Reload>("reload", &()).await {
        Ok(reload) => {
            if show.json {
                output::json(&reload)?;
            } else {
                output::text(&draw(&reload))?;
            }
            if reload.failed.is_empty() { Ok(()) } else { Err(Failure::silent(1)) }
        }
        Err(Refusal::Node(error)) if !error.problems.is_empty() => refused(&error, show.json),
        Err(refusal) => Err(refusal.into()),
    }
}

/// The problems of the file, one a line, in the words of `ffmesh check`.
fn refused(error: &api::Error, json: bool) -> Outcome {
    if json {
        output::json(error)?;
        return Err(Failure::silent(1));
    }
    let lines = error.problems.iter().map(|problem| escape(&problem.to_string()));
    let lines: Vec<_> = std::iter::once(escape(&error.error)).chain(lines).collect();
    Err(Failure::failed(lines.join("\n")))
}

fn draw(reload: &api::Reload) -> String {
    let mut text = String::new();
    let mut say = |lines: &[String], what: &str| {
        for line in lines {
            let _ = writeln!(text, "{what}{}", escape(line));
        }
    };
    say(&reload.changed, "changed: ");
    say(&reload.needs_restart, "takes a restart: ");
    say(&reload.failed, "failed, trying on: ");
    let warnings: Vec<_> = reload.warnings.iter().map(ToString::to_string).collect();
    say(&warnings, "warning: ");
    if reload.changed.is_empty() {
        text += if reload.needs_restart.is_empty() {
            "nothing has changed\n"
        } else {
            "nothing else has changed\n"
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_its_line() {
        let reload = api::Reload {
            changed: vec!["proxies.evil\u{1b}[2J: added".to_owned(), "access".to_owned()],
            needs_restart: vec!["quic.mtu".to_owned()],
            failed: vec!["proxy \"web\" cannot listen".to_owned()],
            warnings: vec![],
        };
        assert_eq!(
            draw(&reload),
            "changed: proxies.evil\\u{1b}[2J: added\nchanged: access\ntakes a restart: quic.mtu\n\
             failed, trying on: proxy \"web\" cannot listen\n"
        );
        assert_eq!(draw(&api::Reload::default()), "nothing has changed\n");
    }
}
