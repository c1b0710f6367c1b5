//! Who may use the API over TCP: the token in the state directory, the sessions that were got with it, one-time codes.
//!
//! Secrets are compared by their SHA-256: how long that takes tells nothing about them, and what is kept cannot be
//! used by who reads the memory. A right secret is always let in, so that nobody locks others out by trying wrong ones.

mod codes;
mod failures;
mod logins;
mod token;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ffmesh_api as api;
use jiff::Timestamp;
use tracing::warn;

use self::codes::Codes;
use self::failures::Failures;
use self::logins::Logins;
use crate::config;
use crate::metrics::{Counters, ErrorKind};
use crate::repeats::Repeats;
use crate::state::{StateDir, StateError};

pub use self::logins::LOGIN_IDLE;

/// The SHA-256 of a secret.
type Fingerprint = [u8; 32];

/// How the cookie of a session of the console begins. Behind it stands what is each node's own: a browser sends the
/// cookies of a host to all of its ports, and several nodes may be reached at one.
pub const COOKIE: &str = "ffmesh_session";

/// Decides who may use the API over TCP. One for the node: codes are made over the Unix socket and used over TCP.
#[derive(Debug)]
pub struct Auth {
    token: Fingerprint,
    cookie: String,
    listen: SocketAddr,
    hosts: Vec<String>,
    logins: Mutex<Logins>,
    codes: Mutex<Codes>,
    failures: Mutex<Failures>,
    counters: Arc<Counters>,
    repeats: Repeats,
}

/// A session that was found by its cookie.
#[derive(Clone)]
pub(super) struct Login {
    id: Fingerprint,
    csrf: String,
}

impl Login {
    /// Whether this is the session's CSRF token.
    pub(super) fn has_csrf(&self, given: &[u8]) -> bool {
        fingerprint(self.csrf.as_bytes()) == fingerprint(given)
    }
}

impl Auth {
    /// With the token of the state directory, which is made where there is none; for the address that the API
    /// listens on.
    ///
    /// # Errors
    /// [`StateError::Exposed`] when others can read the token.
    pub fn new(
        state: &StateDir,
        admin: &config::Admin,
        listen: SocketAddr,
        counters: Arc<Counters>,
    ) -> Result<Self, StateError> {
        let token = token::load_or_make(state)?;
        // Of a fingerprint's fingerprint: it tells nothing of the token.
        let own = &fingerprint(&token)[..4];
        Ok(Self {
            token,
            cookie: format!("{COOKIE}_{}", data_encoding::HEXLOWER.encode(own)),
            listen,
            hosts: admin.hosts.clone(),
            logins: Mutex::default(),
            codes: Mutex::default(),
            failures: Mutex::default(),
            counters,
            repeats: Repeats::default(),
        })
    }

    /// Name of the cookie of this node's sessions.
    pub(super) fn cookie(&self) -> &str {
        &self.cookie
    }

    /// The address that the API listens on.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Names by which the API may be addressed.
    pub(super) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Whether this is the token.
    pub(super) fn is_token(&self, given: &[u8]) -> bool {
        fingerprint(given) == self.token
    }

    /// Opens a session for who has the token or a code. The session's id goes into the cookie.
    pub(super) fn log_in(&self, login: &api::Login) -> Option<(String, api::Session)> {
        let right = match (&login.token, &login.code) {
            (Some(token), None) => self.is_token(token.as_bytes()),
            (None, Some(code)) => lock(&self.codes).redeem(code.as_bytes(), Instant::now()),
            _ => false,
        };
        right.then(|| {
            let (id, csrf_token) = lock(&self.logins).open(Instant::now());
            (id, api::Session { csrf_token, expires: expiry(LOGIN_IDLE) })
        })
    }

    /// The session of a cookie. Finding it puts its end off.
    pub(super) fn find(&self, id: &[u8]) -> Option<Login> {
        let id = fingerprint(id);
        let csrf = lock(&self.logins).find(&id, Instant::now())?;
        Some(Login { id, csrf })
    }

    /// What the client of a session is told of it.
    pub(super) fn session(login: &Login) -> api::Session {
        api::Session { csrf_token: login.csrf.clone(), expires: expiry(LOGIN_IDLE) }
    }

    /// Ready when the session ends: it was closed, made way, or was found to have been idle for too long.
    pub(super) fn ended(&self, login: &Login) -> impl Future<Output = ()> + Send + use<> {
        let alive = lock(&self.logins).alive(&login.id);
        async move {
            if let Some(mut alive) = alive {
                while alive.changed().await.is_ok() {}
            }
        }
    }

    /// Ends a session, and the event streams that were opened with it.
    pub(super) fn log_out(&self, login: &Login) {
        lock(&self.logins).close(&login.id);
    }

    /// A code that opens one session.
    pub(super) fn create_code(&self) -> api::LoginCode {
        let code = lock(&self.codes).create(Instant::now());
        let url = format!("http://{}/#code={code}", self.address());
        api::LoginCode { code, url, expires: expiry(codes::CODE_LIFE) }
    }

    /// Where a browser on this machine finds the console.
    fn address(&self) -> String {
        let (ip, port) = (self.listen.ip(), self.listen.port());
        match self.hosts.first() {
            Some(host) if ip.is_unspecified() => format!("{host}:{port}"),
            _ if ip.is_unspecified() => format!("127.0.0.1:{port}"),
            _ => self.listen.to_string(),
        }
    }

    /// Counts a wrong token, code or CSRF token; the log has it once a minute for each client.
    pub(super) fn failed(&self, client: Option<IpAddr>, what: &'static str) {
        self.counters.error(ErrorKind::Admin);
        if self.repeats.is_news((client, what)) {
            let client = client.map_or_else(|| "the Unix socket".to_owned(), |client| client.to_string());
            warn!(%client, "the admin API refused a client: {what}");
        }
    }

    /// Counts a failed login as well; too many of them have to wait this long.
    pub(super) fn login_failed(&self, client: Option<IpAddr>) -> Option<Duration> {
        self.failed(client, "wrong token or code");
        lock(&self.failures).add(Instant::now())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fingerprint(secret: &[u8]) -> Fingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, secret);
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest.as_ref());
    fingerprint
}

/// 256 random bits in 43 letters that need no escaping anywhere.
fn random() -> String {
    data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>())
}

fn expiry(life: Duration) -> Timestamp {
    Timestamp::now() + life
}
