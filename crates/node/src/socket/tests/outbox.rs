//! Sends of one turn leave together.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use noq::Runtime as _;

use super::super::outbox::{self, Outbox};
use super::*;

/// What noq hands over when it has more.
const FULL: usize = 10;
const LEN: usize = 100;
const LONG: usize = 1_400;

fn batch<'a>(to: &Socket, contents: &'a [&'a [u8]]) -> Batch<'a> {
    Batch { to: to.local_addr().unwrap(), from: None, ecn: None, header: b"label", contents, segment: LEN }
}

fn packets(fill: u8, lengths: &[usize]) -> Vec<Vec<u8>> {
    lengths.iter().map(|len| [&b"label"[..], &vec![fill; *len]].concat()).collect()
}

async fn bodies(socket: &Socket, count: usize) -> Vec<Vec<u8>> {
    datagrams(socket, count).await.into_iter().map(|(packet, _)| packet).collect()
}

#[tokio::test]
async fn full_batches_of_a_turn_leave_with_it_and_as_one() {
    let (from, to) = (Arc::new(udp()), udp());
    from.writable().await;
    let mut outbox = Outbox::default();
    outbox.gather(|| {
        outbox::send(&from, &batch(&to, &[&[1; FULL * LEN]])).unwrap();
        outbox::send(&from, &batch(&to, &[&[2; FULL * LEN]])).unwrap();
        outbox::send(&from, &batch(&to, &[&[3; 2 * LEN + 7]])).unwrap();
    });
    assert!(!outbox.is_empty(), "nothing left before the end of the turn");
    outbox.flush().unwrap();
    assert!(outbox.is_empty());
    let mut expected = packets(1, &[LEN; FULL]);
    expected.extend(packets(2, &[LEN; FULL]));
    expected.extend(packets(3, &[LEN, LEN, 7]));
    assert_eq!(bodies(&to, 2 * FULL + 3).await, expected);
}

#[tokio::test]
async fn what_cannot_join_comes_after_what_waits() {
    let (from, to, other) = (Arc::new(udp()), udp(), udp());
    from.writable().await;
    let mut outbox = Outbox::default();
    outbox.gather(|| {
        outbox::send(&from, &batch(&to, &[&[1; FULL * LEN]])).unwrap();
        // A short packet ends a send, so the next cannot follow in it.
        outbox::send(&from, &batch(&to, &[&[2; 7]])).unwrap();
        outbox::send(&from, &batch(&to, &[&[3; LEN]])).unwrap();
        // Longer packets and another destination are sends of their own.
        let long = Batch { segment: LEN + 1, ..batch(&to, &[&[4; LEN + 1]]) };
        outbox::send(&from, &batch(&to, &[&[1; FULL * LEN]])).unwrap();
        outbox::send(&from, &long).unwrap();
        outbox::send(&from, &batch(&other, &[&[5; LEN]])).unwrap();
    });
    assert!(outbox.is_empty(), "what is no full batch takes what waits with it");
    let mut expected = packets(1, &[LEN; FULL]);
    expected.extend(packets(2, &[7]));
    expected.extend(packets(3, &[LEN]));
    expected.extend(packets(1, &[LEN; FULL]));
    expected.extend(packets(4, &[LEN + 1]));
    assert_eq!(bodies(&to, 2 * FULL + 3).await, expected);
    assert_eq!(bodies(&other, 1).await, packets(5, &[LEN]));
}

#[tokio::test]
async fn an_outbox_holds_what_one_send_can_have() {
    let (from, to) = (Arc::new(udp()), udp());
    from.writable().await;
    let mut outbox = Outbox::default();
    outbox.gather(|| {
        for _ in 0..20 {
            outbox::send(&from, &batch(&to, &[&[1; FULL * LEN]])).unwrap();
        }
    });
    outbox.flush().unwrap();
    assert_eq!(bodies(&to, 20 * FULL).await, packets(1, &[LEN; 20 * FULL]));

    let one = vec![1; FULL * LONG];
    let most = MAX_SEND / (FULL * (LONG + "label".len()));
    outbox.gather(|| {
        for _ in 0..=most {
            outbox::send(&from, &Batch { segment: LONG, ..batch(&to, &[&one]) }).unwrap();
        }
    });
    assert_eq!(bodies(&to, most * FULL).await, packets(1, &vec![LONG; most * FULL]));
    assert!(!outbox.is_empty(), "the last one did not fit");
}

#[tokio::test]
async fn outside_of_turns_everything_leaves_at_once() {
    let (from, to) = (Arc::new(udp()), udp());
    from.writable().await;
    outbox::send(&from, &batch(&to, &[&[1; FULL * LEN]])).unwrap();
    assert_eq!(bodies(&to, FULL).await, packets(1, &[LEN; FULL]));
}

#[tokio::test]
async fn a_turn_that_panics_leaves_no_outbox_behind() {
    let (from, to) = (Arc::new(udp()), udp());
    from.writable().await;
    let turn = std::panic::AssertUnwindSafe(|| Outbox::default().gather(|| panic!("as planned")));
    std::panic::catch_unwind(turn).unwrap_err();
    outbox::send(&from, &batch(&to, &[&[1; FULL * LEN]])).unwrap();
    assert_eq!(bodies(&to, FULL).await, packets(1, &[LEN; FULL]));
}

/// Runs `step` as one of noq's tasks, until it is ready.
async fn run(mut step: impl FnMut(&mut Context<'_>) -> Poll<()> + Send + 'static) {
    let (done, ended) = tokio::sync::oneshot::channel();
    let mut done = Some(done);
    TurnRuntime.spawn(Box::pin(poll_fn(move |cx| {
        let poll = step(cx);
        if poll.is_ready() {
            done.take().unwrap().send(()).unwrap();
        }
        poll
    })));
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the task was forgotten").unwrap();
}

#[tokio::test]
async fn a_task_that_wakes_itself_goes_on_and_its_sends_arrive() {
    let (from, to) = (Arc::new(udp()), udp());
    from.writable().await;
    let address = to.local_addr().unwrap();
    let mut polls = 0u8;
    run(move |cx| {
        polls += 1;
        let contents: &[&[u8]] = &[&[polls; FULL * LEN]];
        let batch = Batch { to: address, from: None, ecn: None, header: b"label", contents, segment: LEN };
        outbox::send(&from, &batch).unwrap();
        if polls == 9 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    let expected: Vec<_> = (1..=9).flat_map(|fill| packets(fill, &[LEN; FULL])).collect();
    assert_eq!(bodies(&to, 9 * FULL).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_wake_is_lost_whoever_wakes() {
    const WAKES: usize = 2_000;
    let sent = Arc::new(AtomicUsize::new(0));
    let seen = sent.clone();
    let (tell, waker) = std::sync::mpsc::channel::<std::task::Waker>();
    let waking = std::thread::spawn(move || {
        // Each wake is for a message; only a task that is polled after each of them comes to the end.
        for waker in waker {
            sent.fetch_add(1, Ordering::SeqCst);
            waker.wake();
        }
    });
    let mut told = 0;
    run(move |cx| {
        while seen.load(Ordering::SeqCst) == told {
            if told == WAKES {
                return Poll::Ready(());
            }
            told += 1;
            tell.send(cx.waker().clone()).unwrap();
        }
        Poll::Pending
    })
    .await;
    waking.join().unwrap();
}
