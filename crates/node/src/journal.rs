//! The last lines of the process's log, for the admin API.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ffmesh_api::{Change, LogEntry, LogLine};
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::events::Events;

/// Lines that are kept.
pub const MAX_LINES: usize = 1_000;
/// Lines that may wait to become events: a burst. More are left out of the events, not of the journal.
const MAX_WAITING: usize = 256;

/// The journal of a process. Whoever writes its log writes here as well; its nodes, one or several, read. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lines: Mutex<VecDeque<LogEntry>>,
    sender: broadcast::Sender<LogLine>,
}

impl Default for Journal {
    fn default() -> Self {
        Self(Arc::new(Inner { lines: Mutex::default(), sender: broadcast::Sender::new(MAX_WAITING) }))
    }
}

impl Journal {
    /// Writes a line. Logs nothing itself, and waits for nobody: it may be called from wherever something is logged.
    pub fn write(&self, line: LogLine) {
        let mut lines = self.lock();
        if lines.len() >= MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(LogEntry { at: Timestamp::now(), line: line.clone() });
        // Sent under the lock, so that events come in the order of the lines. Without a node nobody listens.
        let _ = self.0.sender.send(line);
    }

    /// The last lines, oldest first.
    pub fn lines(&self) -> Vec<LogEntry> {
        self.lock().iter().cloned().collect()
    }

    /// Makes events of the lines from now on. Never ends by itself.
    ///
    /// A task of its own, as lines are written under all kinds of locks.
    pub fn publish_to(&self, events: Events) -> impl Future<Output = ()> + use<> {
        let mut lines = self.0.sender.subscribe();
        async move {
            loop {
                match lines.recv().await {
                    Ok(line) => events.publish(Change::Log(line)),
                    Err(RecvError::Lagged(_)) => {} // they are in the journal
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<LogEntry>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> LogLine {
        let (level, target) = ("INFO".to_owned(), "ffmesh_node".to_owned());
        LogLine { level, target, message: message.to_owned(), fields: [].into() }
    }

    #[test]
    fn the_last_lines_are_kept() {
        let journal = Journal::default();
        for n in 0..=MAX_LINES {
            journal.write(line(&n.to_string()));
        }
        let lines = journal.lines();
        assert_eq!((lines.len(), &*lines[0].line.message), (MAX_LINES, "1"));
        assert_eq!(lines[MAX_LINES - 1].line.message, MAX_LINES.to_string());
    }

    #[tokio::test]
    async fn each_line_becomes_an_event_of_each_node() {
        let (journal, nodes) = (Journal::default(), [Events::default(), Events::default()]);
        let mut live = nodes.each_ref().map(|events| events.subscribe(0).1);
        let tasks = nodes.map(|events| tokio::spawn(journal.publish_to(events)));
        for message in ["a", "b"] {
            journal.write(line(message));
        }
        for live in &mut live {
            for message in ["a", "b"] {
                assert_eq!(live.recv().await.unwrap().change, Change::Log(line(message)));
            }
        }
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_flood_of_lines_is_cut_in_the_events_and_not_in_the_journal() {
        let (journal, events) = (Journal::default(), Events::default());
        let (_, mut live) = events.subscribe(0);
        let publishing = journal.publish_to(events);
        for n in 0..2 * MAX_WAITING {
            journal.write(line(&n.to_string()));
        }
        let task = tokio::spawn(publishing);
        let Change::Log(first) = live.recv().await.unwrap().change.clone() else { panic!("no line") };
        assert_eq!(first.message, MAX_WAITING.to_string());
        assert_eq!(journal.lines().len(), 2 * MAX_WAITING);
        task.abort();
    }
}
