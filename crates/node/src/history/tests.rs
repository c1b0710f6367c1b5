//! The history over hours, weeks and restarts, with a clock of the test's own.

use ffmesh_api::{Sample, Step};

use super::*;
use crate::state::StateDir;

/// A full minute.
const START: i64 = 1_800_000_000;

fn open(dir: &tempfile::TempDir) -> History {
    open_at(dir, START)
}

fn open_at(dir: &tempfile::TempDir, now: i64) -> History {
    Store::open(&StateDir::at(dir.path()), |store| History::load(store.clone(), at(now))).unwrap().1
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn sample(number: i64) -> Sample {
    Sample { sent: number as f64, failovers: 1.0, ..Sample::default() }
}

fn query(step: Step, from: i64, to: i64) -> Query {
    Query { step, from: Some(at(from)), to: Some(at(to)) }
}

fn push(history: &History, seconds: impl Iterator<Item = i64>) {
    let neighbor: NodeId = "b".parse().unwrap();
    for second in seconds {
        if history.push(START + second, &sample(second), &[(neighbor.clone(), Some(1.5))]) {
            history.flush().unwrap();
        }
    }
}

#[test]
fn seconds_and_minutes_are_there_after_a_restart_with_gaps_where_the_node_did_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    push(&history, 1..=130);
    history.flush().unwrap();
    drop(history);
    let history = open(&dir);
    push(&history, 135..=190);
    let seconds = history.query(&query(Step::Second, START + 128, START + 136), at(START + 190));
    assert_eq!((seconds.step_s, seconds.from), (1, Some(at(START + 128))));
    let sent: Vec<_> = seconds.columns.sent.iter().map(|sent| sent.unwrap_or(-1.0)).collect();
    assert_eq!(sent, [128.0, 129.0, 130.0, -1.0, -1.0, -1.0, -1.0, 135.0, 136.0]);
    assert_eq!((seconds.peers.len(), seconds.peers[0].rtt_ms.len()), (1, 9));
    assert_eq!([seconds.peers[0].rtt_ms[2], seconds.peers[0].rtt_ms[3]], [Some(1.5), None]);
    // Minutes are means, also of one that the restart was in.
    let minutes = history.query(&query(Step::Minute, START, START + 190), at(START + 190));
    assert_eq!(minutes.columns.sent[..3], [None, Some(30.5), Some(90.5)]);
    let third = f64::from((121..=130).chain(135..=180).sum::<i32>()) / 56.0;
    assert!((minutes.columns.sent[3].unwrap() - third).abs() < 0.001);
    assert_eq!(minutes.columns.failovers, [None, Some(60.0), Some(60.0), Some(56.0)]);
}

#[test]
fn answers_are_bounded_whatever_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    push(&history, 1..=10);
    let now = at(START + 10);
    let all = history
        .query(&Query { from: Some(Timestamp::MIN), to: Some(Timestamp::MAX), ..Query::default() }, now);
    assert_eq!((all.columns.sent.len(), all.from), (MAX_SECONDS, Some(at(START + 10 - 3_599))));
    let all = history.query(&Query { step: Step::Minute, ..Query::default() }, now);
    assert_eq!(all.columns.sent.len(), MAX_MINUTES);
    let none = history.query(&query(Step::Second, START + 9, START + 8), now);
    assert_eq!((none.from, none.columns.sent.len()), (None, 0));
}

#[test]
fn a_clock_that_goes_back_for_a_while_takes_nothing_away() {
    const DAY: i64 = 24 * 3_600;
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    push(&history, 1..=100);
    history.flush().unwrap();
    // It starts in the past, is set, and is stopped, twice.
    push(&history, (70..=90).chain(-DAY..=5 - DAY));
    history.flush().unwrap();
    drop(history);
    let history = open_at(&dir, START - DAY + 10);
    push(&history, (11 - DAY..=20 - DAY).chain(101..=110));
    history.flush().unwrap();
    let assert_complete = |history: &History| {
        let there = history.query(&query(Step::Second, START + 1, START + 110), at(START + 110));
        let there: Vec<_> = there.columns.sent.into_iter().flatten().collect();
        assert_eq!(there, (1..=110).map(f64::from).collect::<Vec<_>>());
        let minute = history.query(&query(Step::Minute, START + 60, START + 60), at(START + 110));
        assert_eq!(minute.columns.sent, [Some(30.5)]);
    };
    assert_complete(&history);
    drop(history);
    assert_complete(&open_at(&dir, START + 110));
}

#[test]
fn what_a_full_disk_did_not_take_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = crate::store::faulty::Full::default();
    let history = History::load(disk.store(&StateDir::at(dir.path())).unwrap(), at(START)).unwrap();
    push(&history, 1..=70);
    disk.set(true);
    for second in 71..=190 {
        if history.push(START + second, &sample(second), &[]) {
            history.flush().unwrap_err();
        }
    }
    disk.set(false);
    push(&history, 191..=200);
    history.flush().unwrap();
    drop(history);
    let history = open(&dir);
    let seconds = history.query(&query(Step::Second, START + 1, START + 200), at(START + 200));
    let sent: Vec<_> = seconds.columns.sent.into_iter().flatten().collect();
    assert_eq!(sent, (1..=200).map(f64::from).collect::<Vec<_>>());
    let minutes = history.query(&query(Step::Minute, START + 60, START + 180), at(START + 200));
    assert_eq!(minutes.columns.sent, [Some(30.5), Some(90.5), Some(150.5)]);
}

#[test]
fn what_waits_for_the_disk_is_bounded() {
    let mut new = vec![(5, vec![5])];
    put_back(&mut new, vec![(2, vec![2]), (3, vec![3]), (4, vec![4])], 3);
    assert_eq!(new, [(3, vec![3]), (4, vec![4]), (5, vec![5])]);
}

#[test]
fn a_month_fits_into_a_file_of_bounded_size() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    let neighbors: Vec<_> =
        (0..MAX_PEERS + 8).map(|i| (format!("n{i}").parse().unwrap(), Some(1.0))).collect();
    // Every tenth second, and a block an hour: what is kept is the same, and the test is quicker.
    for second in (0..30 * 24 * 3_600).step_by(10) {
        history.push(START + second, &sample(second), &neighbors);
        if second % 3_600 == 0 {
            history.flush().unwrap();
        }
    }
    history.flush().unwrap();
    let size = std::fs::metadata(dir.path().join("store.redb")).unwrap().len();
    assert!(size < 16 << 20, "{size} bytes");
    drop(history);
    let now = at(START + 30 * 24 * 3_600);
    let minutes =
        open_at(&dir, START + 30 * 24 * 3_600).query(&Query { step: Step::Minute, ..Query::default() }, now);
    assert_eq!(minutes.columns.sent.iter().flatten().count(), MAX_MINUTES - 1, "the last minute is not over");
    assert_eq!(minutes.peers.len(), MAX_PEERS);
}

#[test]
fn rows_that_cannot_be_read_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir);
    push(&history, 1..=3);
    history.flush().unwrap();
    let damage = |transaction: &redb::WriteTransaction| {
        transaction.open_table(SECONDS)?.insert(START + 2, &[99, 1, 2][..])?;
        Ok(())
    };
    history.store.write(damage).unwrap();
    drop(history);
    let history = open(&dir).query(&query(Step::Second, START + 1, START + 3), at(START + 3));
    assert_eq!(history.columns.sent, [Some(1.0), None, Some(3.0)]);
}
