//! Keeping the last lines of the log, for the admin API of the nodes in this process.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::LazyLock;

use ffmesh_api::LogLine;
use ffmesh_node::journal::Journal;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer::Context;

/// Fields of a line that are kept; ours have a dozen at most.
const MAX_FIELDS: usize = 32;
/// Bytes of a field that are kept.
const MAX_FIELD: usize = 1_024;
/// Bytes of a message that are kept.
const MAX_MESSAGE: usize = 4_096;
/// The field that `tracing` keeps the message in.
const MESSAGE: &str = "message";

/// The journal of this process.
pub(crate) fn journal() -> Journal {
    static JOURNAL: LazyLock<Journal> = LazyLock::new(Journal::default);
    JOURNAL.clone()
}

/// Writes the lines that its [`filter`] lets through to a journal. Text is kept as it is: whoever shows it escapes it.
pub(crate) struct JournalLayer(pub(crate) Journal);

/// Which lines belong in the journal, whatever the log's level is: what FFMesh has to tell from INFO on, and what the
/// libraries warn of.
pub(crate) fn filter() -> FilterFn {
    // With the hint, nothing below INFO is even looked at.
    filter_fn(is_kept as fn(&Metadata<'_>) -> bool).with_max_level_hint(Level::INFO)
}

fn is_kept(metadata: &Metadata<'_>) -> bool {
    let own = metadata.target().starts_with("ffmesh");
    metadata.is_event() && *metadata.level() <= if own { Level::INFO } else { Level::WARN }
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let (level, target) = (event.metadata().level().to_string(), event.metadata().target().to_owned());
        self.0.write(LogLine { level, target, message: line.message, fields: line.fields });
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: BTreeMap<String, String>,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format_args!("{value:?}"));
    }
}

impl Line {
    fn keep(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == MESSAGE {
            self.message = cut(value, MAX_MESSAGE);
        } else if self.fields.len() < MAX_FIELDS {
            self.fields.insert(field.name().to_owned(), cut(value, MAX_FIELD));
        }
    }
}

/// The first `max` bytes of a text, or a few less where a character would be cut.
fn cut(text: fmt::Arguments<'_>, max: usize) -> String {
    struct Cut(String, usize);
    impl Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let left = self.1 - self.0.len();
            self.0.push_str(&text[..text.floor_char_boundary(left)]);
            // What does not fit need not be written at all.
            if text.len() > left { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut cut = Cut(String::new(), max);
    let _ = cut.write_fmt(text);
    cut.0
}

#[cfg(test)]
mod tests {
    use ffmesh_api::LogEntry;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn logged(log: impl FnOnce()) -> Vec<LogEntry> {
        let journal = Journal::default();
        let layer = JournalLayer(journal.clone()).with_filter(filter());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        journal.lines()
    }

    #[test]
    fn what_matters_is_kept() {
        let lines = logged(|| {
            tracing::debug!(target: "ffmesh_node::link", "a step");
            tracing::info!(target: "ffmesh_node::link", peer = "b", port = 7, late = ?Some(1.5), "link up");
            tracing::info!(target: "noq", "a detail");
            tracing::warn!(target: "noq", "urgent");
        });
        let messages: Vec<_> = lines.iter().map(|entry| &*entry.line.message).collect();
        assert_eq!(messages, ["link up", "urgent"]);
        let LogLine { level, target, fields, .. } = &lines[0].line;
        assert_eq!((&**level, &**target), ("INFO", "ffmesh_node::link"));
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(fields, [("late", "Some(1.5)"), ("peer", "b"), ("port", "7")]);
    }

    #[test]
    fn a_peers_text_is_kept_as_data_and_cut() {
        let evil = "x\n\x1b[31m";
        let long = "ü".repeat(5_000);
        let lines = logged(|| {
            tracing::info!(target: "ffmesh", %evil, %long, odd = %format!("a{long}"), "{evil} said {long}");
        });
        let LogLine { message, fields, .. } = &lines[0].line;
        assert_eq!(fields["evil"], evil);
        assert_eq!((fields["long"].len(), fields["odd"].len()), (1_024, 1_023), "no character is cut");
        assert!(message.starts_with(evil) && message.len() > 4_000 && message.len() <= MAX_MESSAGE);
    }
}
