//! What the service is told of the sessions that it makes.
use std::path::PathBuf;
use std::time::Duration;

use wire::Secret;

use crate::OptionsError;
use crate::app::options::MAX_DURATION;
use crate::signing::KeySource;

/// The data listener answers within 5 s.
const MAX_TOKEN_TIMEOUT: Duration = Duration::from_secs(4);
/// Each is a thread while it signs.
const MAX_TOKEN_SESSIONS: usize = 64;
/// Of all keys: half of the threads for blocking work. A module that hangs may keep those for ever, and files and names
/// must be looked up all the same.
const MAX_TOKEN_THREADS: usize = 256;

#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The `iss` of their tokens.
    pub issuer: String,
    /// The `aud` of tokens for which nothing else is asked.
    pub audience: Vec<String>,
    pub lifetime: Duration,
    /// Of access tokens beside a refresh token.
    pub access_lifetime: Duration,
    /// How long the loser of a race for one refresh token is told so, before it counts as stolen.
    pub refresh_grace: Duration,
    /// The first signs, all are published.
    pub signing_keys: Vec<KeySource>,
    /// Sessions that each key in a token may have open: the most signatures at once.
    pub token_sessions: usize,
    /// For one signature of a token.
    pub token_timeout: Duration,
    /// Who may introspect, refresh and revoke; nobody, without it.
    pub clients: Option<PathBuf>,
    /// What sessions are named, encrypted and their tokens known by, the first for new ones. The shared secrets, if empty.
    pub secrets: Vec<Secret>,
}

impl SessionOptions {
    /// # Errors
    /// The first option that is wrong.
    pub fn check(&self, max_lifetime: Duration) -> Result<(), OptionsError> {
        if self.issuer.is_empty() {
            return Err(OptionsError::Empty("session-issuer"));
        }
        if self.audience.is_empty() {
            return Err(OptionsError::Empty("session-audience"));
        }
        for (name, duration) in [("session-lifetime", self.lifetime), ("access-lifetime", self.access_lifetime)] {
            if duration < Duration::from_secs(1) || duration.subsec_nanos() > 0 || duration > MAX_DURATION {
                return Err(OptionsError::Seconds(name));
            }
        }
        if self.lifetime > max_lifetime {
            return Err(OptionsError::SessionLifetime(max_lifetime.as_secs()));
        }
        if self.refresh_grace > Duration::from_secs(60) {
            return Err(OptionsError::RefreshGrace);
        }
        if self.token_timeout.is_zero() || self.token_timeout > MAX_TOKEN_TIMEOUT {
            return Err(OptionsError::TokenTimeout(MAX_TOKEN_TIMEOUT));
        }
        if !(1..=MAX_TOKEN_SESSIONS).contains(&self.token_sessions) {
            return Err(OptionsError::TokenSessions(MAX_TOKEN_SESSIONS));
        }
        let in_tokens = self.signing_keys.iter().filter(|key| matches!(key, KeySource::Token(_))).count();
        if in_tokens.saturating_mul(self.token_sessions) > MAX_TOKEN_THREADS {
            return Err(OptionsError::TokenThreads(MAX_TOKEN_THREADS));
        }
        if self.secrets.iter().enumerate().any(|(at, secret)| self.secrets.iter().skip(at + 1).any(|s| s == secret)) {
            return Err(OptionsError::SameSecretTwice);
        }
        Ok(())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn session_options() -> SessionOptions {
        SessionOptions {
            issuer: "https://sessions.example".into(),
            audience: vec!["api".into()],
            lifetime: Duration::from_secs(12 * 3600),
            access_lifetime: Duration::from_secs(300),
            refresh_grace: Duration::from_secs(3),
            signing_keys: vec![],
            token_sessions: 4,
            token_timeout: Duration::from_secs(3),
            clients: None,
            secrets: vec![],
        }
    }

    #[test]
    fn refuses_options_that_cannot_work() {
        let day = Duration::from_secs(86_400);
        let with = |change: fn(&mut SessionOptions)| {
            let mut options = session_options();
            change(&mut options);
            options.check(day)
        };
        assert_eq!(session_options().check(day), Ok(()));
        assert_eq!(with(|o| o.issuer.clear()), Err(OptionsError::Empty("session-issuer")));
        assert_eq!(with(|o| o.audience.clear()), Err(OptionsError::Empty("session-audience")));
        assert_eq!(with(|o| o.lifetime = Duration::from_secs(86_401)), Err(OptionsError::SessionLifetime(86_400)));
        assert_eq!(with(|o| o.access_lifetime = Duration::ZERO), Err(OptionsError::Seconds("access-lifetime")));
        assert_eq!(with(|o| o.refresh_grace = Duration::from_secs(61)), Err(OptionsError::RefreshGrace));
        let timeout = Err(OptionsError::TokenTimeout(MAX_TOKEN_TIMEOUT));
        assert_eq!(with(|o| o.token_timeout = Duration::ZERO), timeout);
        assert_eq!(with(|o| o.token_timeout = MAX_TOKEN_TIMEOUT + Duration::from_nanos(1)), timeout);
        assert_eq!(with(|o| o.token_timeout = MAX_TOKEN_TIMEOUT), Ok(()));
        let sessions = Err(OptionsError::TokenSessions(MAX_TOKEN_SESSIONS));
        assert_eq!(with(|o| o.token_sessions = 0), sessions);
        assert_eq!(with(|o| o.token_sessions = MAX_TOKEN_SESSIONS + 1), sessions);
        let keys = |count: usize| {
            let uri: KeySource = "pkcs11:object=a?module-path=/m.so&pin-source=/p".parse().unwrap();
            let signing_keys = [vec![KeySource::File("/key".into())], vec![uri; count]].concat();
            SessionOptions { signing_keys, token_sessions: MAX_TOKEN_SESSIONS, ..session_options() }.check(day)
        };
        assert_eq!(keys(4), Ok(()));
        assert_eq!(keys(5), Err(OptionsError::TokenThreads(MAX_TOKEN_THREADS)));
    }
}
