//! The log: text with UTC time, coloured on a terminal, or JSON; always to stderr, as stdout is for data.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use ffmesh_core::text::Escaping;
use ffmesh_node::config::LogFormat;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::failure::{Failure, Outcome};
use crate::journal::{self, JournalLayer};
use crate::output;

/// Variable that overrides `log.level`, in the syntax of `--log-level`.
pub(crate) const VARIABLE: &str = "FFMESH_LOG";

/// What is logged, for changing it.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    /// What goes before `log.level`, if anything does.
    fixed: Option<&'static str>,
}

impl Filter {
    /// Another `log.level` from now on. Where something goes before it, that is logged instead.
    pub(crate) fn set(&self, level: tracing::Level) {
        if let Some(fixed) = self.fixed {
            tracing::warn!("log.level is {} now, which has no effect: {fixed} goes before it", word(level));
            return;
        }
        let changed = filter(&word(level)).map(|filter| self.handle.reload(filter));
        match changed {
            Ok(Ok(())) => tracing::info!("log.level is {} now", word(level)),
            Ok(Err(error)) => tracing::error!("log.level cannot be changed: {error}; restart the node"),
            Err(why) => tracing::error!("log.level cannot be changed: {why}"),
        }
    }
}

fn word(level: tracing::Level) -> String {
    level.to_string().to_ascii_lowercase()
}

/// The key of the file.
const LEVEL_KEY: &str = "log.level";

/// Starts logging, once in a process. The level is `flag`, else `FFMESH_LOG`, else `level`; the journal has its own.
pub(crate) fn start(flag: Option<&str>, level: tracing::Level, format: LogFormat) -> Outcome<Filter> {
    let variable = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    let (from, directives) = match (flag, variable) {
        (Some(flag), _) => ("--log-level", flag.to_owned()),
        (None, Some(variable)) => (VARIABLE, variable),
        (None, None) => (LEVEL_KEY, word(level)),
    };
    let filter = filter(&directives).map_err(|why| {
        Failure::usage(format!(
            "{from} is {directives:?}: {why}\nexpected error, warn, info, debug or trace, or directives such as info,ffmesh_node=debug,noq=info"
        ))
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true).with_writer(|| FitJson(io::stderr()));
            layer.with_filter(filter).boxed()
        }
        LogFormat::Text => {
            let colour = io::stderr().is_terminal() && output::colour_wanted();
            let layer = layer.with_target(false).with_ansi(colour).fmt_fields(fields());
            layer.with_filter(filter).boxed()
        }
    };
    let journal = JournalLayer(journal::journal()).with_filter(journal::filter());
    let started = tracing_subscriber::registry().with(layer).with(journal).try_init();
    started.map_err(|error| Failure::failed(format!("logging cannot be started: {error}")))?;
    Ok(Filter { handle, fixed: (from != LEVEL_KEY).then_some(from) })
}

/// Writes lines of JSON, with everything escaped that JSON would let through to a terminal. Each line comes in one
/// piece.
struct FitJson<W>(W);

impl<W: io::Write> io::Write for FitJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        self.0.write_all((output::fit_json(line) + end).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A bare level is for FFMesh; what the libraries have to say below a warning is for their authors.
fn filter(directives: &str) -> Result<EnvFilter, String> {
    let mut expanded = Vec::new();
    for directive in directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        if directive.contains(['=', '[']) {
            expanded.push(directive.to_owned());
            continue;
        }
        let level = directive.to_ascii_lowercase();
        match level.as_str() {
            "off" | "error" => expanded.push(level),
            "warn" | "info" | "debug" | "trace" => expanded.push(format!("warn,ffmesh={level}")),
            _ => return Err(format!("there is no level {directive:?}")),
        }
    }
    EnvFilter::builder().parse(expanded.join(",")).map_err(|error| error.to_string())
}

/// `message key=value key=value`, with everything escaped that is not text: a peer's words start no line of
/// their own and colour nothing.
fn fields() -> impl for<'a> tracing_subscriber::fmt::FormatFields<'a> + 'static {
    debug_fn(|writer: &mut Writer<'_>, field, value| {
        if field.name() != "message" {
            write!(writer, "{}=", field.name())?;
        }
        write!(Escaping(writer), "{value:?}")
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(directives: &str, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_target(false)
            .fmt_fields(fields());
        let subscriber = tracing_subscriber::registry().with(filter(directives).unwrap()).with(layer);
        tracing::subscriber::with_default(subscriber, log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_peers_text_stays_on_its_line() {
        let evil = "x\n2026 ERROR forged\x1b[31m";
        let line = logged("info", || {
            let span = tracing::info_span!(target: "ffmesh", "peer", id = %evil);
            let _in = span.enter();
            tracing::info!(target: "ffmesh", name = %evil, "peer {evil} said");
        });
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(line.ends_with('\n') && !line.contains('\x1b'), "{line:?}");
        assert!(line.contains("name=x\\u{a}2026"), "{line:?}");
    }

    #[test]
    fn json_lines_carry_nothing_that_acts_on_a_terminal() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(move || FitJson(writer.clone()));
        let subscriber = tracing_subscriber::registry().with(filter("info").unwrap()).with(layer);
        let evil = "x\n\u{9b}31m\u{202e}主";
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!(target: "ffmesh", "peer", id = %evil);
            let _in = span.enter();
            tracing::info!(target: "ffmesh", name = %evil, "said");
        });
        let lines = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let line = lines.strip_suffix('\n').unwrap();
        assert!(!line.contains(ffmesh_core::text::is_unfit), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&value["name"], &value["span"]["id"]), (&evil.into(), &evil.into()));
    }

    #[test]
    fn the_time_is_rfc_3339_in_utc() {
        let line = logged("info", || tracing::info!(target: "ffmesh", "x"));
        let time = line.split_whitespace().next().unwrap();
        assert!(time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{line:?}");
    }

    #[test]
    fn libraries_speak_from_warnings_on() {
        let log = || {
            tracing::debug!(target: "ffmesh_node::link", "ours");
            tracing::info!(target: "noq", "theirs");
            tracing::warn!(target: "noq", "urgent");
        };
        let all = logged("debug", log);
        assert!(all.contains("ours") && all.contains("urgent") && !all.contains("theirs"), "{all}");
        let all = logged("warn,noq=info", log);
        assert!(!all.contains("ours") && all.contains("theirs"), "{all}");
    }

    #[test]
    fn the_level_follows_the_file_unless_something_goes_before_it() {
        for (fixed, debug_is_logged) in [(None, true), (Some("--log-level"), false)] {
            let buffer = Buffer::default();
            let writer = buffer.clone();
            let (layer, handle) = reload::Layer::new(filter("info").unwrap());
            let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
            let subscriber = tracing_subscriber::registry().with(layer).with(lines);
            tracing::subscriber::with_default(subscriber, || {
                Filter { handle, fixed }.set(tracing::Level::DEBUG);
                tracing::debug!(target: "ffmesh", "details");
            });
            let all = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
            assert_eq!(all.contains("details"), debug_is_logged, "{all}");
            assert_eq!(all.contains("--log-level goes before it"), !debug_is_logged, "{all}");
        }
    }

    #[test]
    fn refuses_what_is_no_level() {
        assert!(filter("verbose").is_err());
        assert!(filter("ffmesh=loud").is_err());
        assert!(filter("Info").is_ok());
    }
}
