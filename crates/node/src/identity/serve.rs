//! The accepting end of enrolment: one request and one answer over a connection of ALPN `ffmesh-join`.

use std::time::Duration;

use ffmesh_core::text::foreign;
use tokio::time::timeout;

use super::enrol::MAX_ENROL_LEN;

/// All of a join connection.
const SERVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The request, once connected.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the joining node may take to close after its answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a join connection ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ServeJoinError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Connection(String),
    /// The request is larger than 64 KiB.
    #[error("the request has {0} bytes, more than {MAX_ENROL_LEN}")]
    TooLong(usize),
    /// No request came within 5 s.
    #[error("no request came within 5 s")]
    NoRequest,
    /// It took more than 20 s.
    #[error("no answer was found within 20 s")]
    NoAnswer,
}

/// Serves one joining node: reads one request from its first stream, writes what `answer` makes of it, and closes.
/// Whatever else the peer sends is never read. Bound the number of these by
/// [`super::MAX_JOIN_CONNECTIONS`].
pub async fn serve_join<A, F>(connection: noq::Connection, answer: A) -> Result<(), ServeJoinError>
where
    A: FnOnce(Vec<u8>) -> F,
    F: Future<Output = Vec<u8>>,
{
    let served =
        timeout(SERVE_TIMEOUT, serve(&connection, answer)).await.unwrap_or(Err(ServeJoinError::NoAnswer));
    let reason = served.as_ref().err().map(ToString::to_string).unwrap_or_default();
    connection.close(u32::from(served.is_err()).into(), reason.as_bytes());
    served
}

async fn serve<A, F>(connection: &noq::Connection, answer: A) -> Result<(), ServeJoinError>
where
    A: FnOnce(Vec<u8>) -> F,
    F: Future<Output = Vec<u8>>,
{
    let request = async {
        let (send, mut receive) = connection.accept_bi().await.map_err(failed)?;
        let mut len = [0; 4];
        receive.read_exact(&mut len).await.map_err(failed)?;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > MAX_ENROL_LEN {
            return Err(ServeJoinError::TooLong(len));
        }
        let mut request = vec![0; len];
        receive.read_exact(&mut request).await.map_err(failed)?;
        Ok((send, request))
    };
    let (mut send, request) =
        timeout(REQUEST_TIMEOUT, request).await.unwrap_or(Err(ServeJoinError::NoRequest))?;
    let answer = answer(request).await;
    let len = u32::try_from(answer.len()).unwrap_or(u32::MAX).to_be_bytes();
    send.write_all(&len).await.map_err(failed)?;
    send.write_all(&answer).await.map_err(failed)?;
    send.finish().map_err(failed)?;
    // The joining node closes when it has the answer; closing first could lose it.
    let _ = timeout(CLOSE_TIMEOUT, connection.closed()).await;
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> ServeJoinError {
    ServeJoinError::Connection(foreign(error))
}
