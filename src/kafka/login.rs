//! How a connection comes to be somebody's: the turns of SASL, one message of the client after the other.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use tokio::time::sleep;

use super::{
    auth::Principal,
    broker::Call,
    counters::Cut,
    sasl::{Login, Mechanism, Step, failures::HELD_BACK},
};

/// How far a connection is.
#[derive(Debug, Default)]
pub(crate) enum State {
    /// Nobody is asked who it is.
    #[default]
    NotAsked,
    /// It has not said how it wants to prove who it is.
    Waiting,
    /// It is about to prove it.
    Proving {
        /// As far as it has come.
        login: Login,
        /// Whether its messages stand in no request (after `SaslHandshake` of version 0).
        is_raw: bool,
    },
    /// It has proven it.
    In,
    /// It has not, and may not try again.
    Refused,
}

impl State {
    /// Whether it may ask for everything now.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::NotAsked | Self::In)
    }

    /// Whether its next message stands in no request.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self, Self::Proving { is_raw: true, .. })
    }
}

/// What a message of the client is answered with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// With this; it has logged in, or another message of it is awaited.
    Answer(Vec<u8>),
    /// It is not who it says, or has said so too often.
    Refused,
    /// It was not its turn.
    Illegal,
}

/// Begins to prove who the connection is from.
///
/// # Errors
/// When it is not the moment for it.
pub(crate) fn choose(call: &Call<'_>, mechanism: Mechanism, is_raw: bool) -> Result<(), ()> {
    let mut state = call.session.login.borrow_mut();
    match *state {
        State::Waiting => {
            let login = Login::by(mechanism);
            *state = State::Proving { login, is_raw };
            Ok(())
        }
        State::NotAsked | State::Proving { .. } | State::In | State::Refused => Err(()),
    }
}

/// Goes on with a message of the client. A refusal is held back for a while, and ends the connection.
pub(crate) async fn turn(call: &Call<'_>, message: &[u8]) -> Turn {
    let (session, access) = (call.session, call.broker.access.as_ref());
    let (login, is_raw) = match session.login.replace(State::Refused) {
        State::Proving { login, is_raw } => (login, is_raw),
        other @ (State::NotAsked | State::Waiting | State::In | State::Refused) => {
            session.login.replace(other);
            return Turn::Illegal;
        }
    };
    // All who come over a unix socket are of one machine.
    let address = session.peer.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let now_ns = call.broker.clock.monotonic_ns();
    if access.failures.borrow().wait(address, now_ns).is_some() {
        return refuse(call, None).await;
    }
    let mut nonce = [0; 18];
    if let Err(error) = getrandom::fill(&mut nonce) {
        tracing::error!(%error, "no randomness: nobody can log in");
        return refuse(call, None).await;
    }
    let step = match login.step(message, access, nonce) {
        Step::Compare(comparison) => {
            // It is never closed.
            let one = Arc::clone(&access.comparing).acquire_owned().await;
            let now_ns = call.broker.clock.monotonic_ns();
            // Others from there may have guessed meanwhile.
            if access.failures.borrow().wait(address, now_ns).is_some() {
                drop(one);
                return refuse(call, None).await;
            }
            // Counted first: who goes away before it is compared has guessed all the same, and the next waits.
            access.failures.borrow_mut().note(address, now_ns);
            let compared = tokio::task::spawn_blocking(move || (comparison.done(), one));
            let Ok((step, _one)) = compared.await else {
                return refuse(call, None).await;
            };
            if matches!(step, Step::Proven(..)) {
                access.failures.borrow_mut().forgive(address);
            }
            step
        }
        step @ (Step::GoOn(..) | Step::Proven(..)) => step,
        Step::Refused(user) => {
            access.failures.borrow_mut().note(address, now_ns);
            Step::Refused(user)
        }
    };
    match step {
        Step::GoOn(login, answer) => {
            session.login.replace(State::Proving { login, is_raw });
            Turn::Answer(answer)
        }
        Step::Proven(user, answer) => {
            call.broker.counters.logins.add(1);
            session.principal.replace(Principal::User(user));
            session.login.replace(State::In);
            session.stranger.take();
            Turn::Answer(answer)
        }
        Step::Refused(user) => refuse(call, user).await,
        // A comparison gives none.
        Step::Compare(_) => refuse(call, None).await,
    }
}

/// Takes note of it, and holds the answer back.
async fn refuse(call: &Call<'_>, user: Option<String>) -> Turn {
    let session = call.session;
    call.broker.counters.failed_logins.add(1);
    tracing::info!(peer = ?session.peer, ?user, "a Kafka client has not proven who it is");
    session.ending.set(Some(Cut::Login));
    sleep(HELD_BACK).await;
    Turn::Refused
}
