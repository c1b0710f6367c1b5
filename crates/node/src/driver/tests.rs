//! What those who ask a driver see of one that answers, hangs or has ended.

use tokio::time::timeout;

use super::*;

/// Far more than an answer takes.
const LIMIT: Duration = Duration::from_mins(1);

fn question(answer: oneshot::Sender<()>) -> Request {
    Request::Answer { answer }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_hangs_answers_nobody() {
    let (requests, mut incoming) = mpsc::channel(1);
    // It takes nothing out of its queue, which fills up.
    for _ in 0..2 {
        assert!(timeout(LIMIT, ask(&requests, question)).await.is_err());
    }
    // It takes the request, and gets no further.
    let hangs = timeout(LIMIT, ask(&requests, question));
    let (answered, taken) = tokio::join!(hangs, async { (incoming.recv().await, incoming.recv().await) });
    assert!(answered.is_err() && taken.1.is_some());
}

#[tokio::test]
async fn a_driver_that_works_answers_and_one_that_has_ended_does_not() {
    let (requests, mut incoming) = mpsc::channel(1);
    let works = async {
        if let Some(Request::Answer { answer }) = incoming.recv().await {
            answer.send(()).unwrap();
        }
    };
    assert!(tokio::join!(ask(&requests, question), works).0.is_some());
    drop(incoming);
    assert!(ask(&requests, question).await.is_none());
}
