//! The options about sessions that the service makes.
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use wire::Secret;

use super::secret_files::read_secrets;
use super::{OptionsError, values};
use crate::domain::sessions::Config;
use crate::signing::KeySource;

/// Of all keys: half of the threads for blocking work. A module that hangs may keep those for ever, and files and names
/// must be looked up all the same.
const MAX_TOKEN_THREADS: usize = 256;

#[derive(Clone, Args)]
#[command(next_help_heading = "Sessions")]
pub struct SessionOptions {
    /// Make sessions, whose tokens have this `iss`. Without it the service only knows what was ended.
    #[arg(long, env = "PORTCULLIS_SESSION_ISSUER", value_name = "URL")]
    pub session_issuer: Option<String>,
    /// The `aud` of tokens for which no other is asked; repeat it for several.
    #[arg(
        long = "session-audience",
        env = "PORTCULLIS_SESSION_AUDIENCES",
        value_name = "AUD",
        value_delimiter = ',',
        requires = "session_issuer"
    )]
    pub session_audiences: Vec<String>,
    /// From login to the end of a session for which nothing else is asked; at most --max-lifetime.
    #[arg(long, env = "PORTCULLIS_SESSION_LIFETIME", value_name = "TIME", default_value = "12h", value_parser = values::seconds)]
    pub session_lifetime: Duration,
    /// Of each access token of a session with a refresh token, unless something else is asked.
    #[arg(long, env = "PORTCULLIS_ACCESS_LIFETIME", value_name = "TIME", default_value = "5m", value_parser = values::seconds)]
    pub access_lifetime: Duration,
    /// For so long after a refresh, the replaced token is told that it lost a race; after that its use ends the session.
    #[arg(long, env = "PORTCULLIS_REFRESH_GRACE", value_name = "TIME", default_value = "3s", value_parser = values::refresh_grace)]
    pub refresh_grace: Duration,
    /// A key for sessions with JWTs: RSA signs RS256, P-256 ES256, Ed25519 EdDSA. A file, PKCS#8 in PEM, read again when it
    /// changes; or a key in an HSM, by its PKCS#11 URI (RFC 7512):
    /// pkcs11:token=T;object=K?module-path=/….so&pin-source=file:/… . Repeat it: the first signs, all are published.
    #[arg(
        long = "signing-key",
        env = "PORTCULLIS_SIGNING_KEYS",
        hide_env_values = true,
        value_name = "PATH|URI",
        value_delimiter = ',',
        requires = "session_issuer"
    )]
    pub signing_keys: Vec<String>,
    /// Sessions that each key in an HSM may have open, for as many signatures at once; 64 more wait, others get 503.
    #[arg(long, env = "PORTCULLIS_SIGNING_SESSIONS", value_name = "N", default_value = "4", value_parser = values::signing_sessions)]
    pub signing_sessions: usize,
    /// The longest that a signature of an HSM may take; beyond it the caller gets 503. At most 4s.
    #[arg(long, env = "PORTCULLIS_SIGNING_TIMEOUT", value_name = "TIME", default_value = "3s", value_parser = values::signing_timeout)]
    pub signing_timeout: Duration,
    /// A JSON file with the clients that may introspect, refresh and revoke. Read again when it changes.
    #[arg(long, env = "PORTCULLIS_CLIENTS_FILE", value_name = "PATH", requires = "session_issuer")]
    pub clients_file: Option<PathBuf>,
    /// A file with a secret, at least 32 bytes, that sessions and the audit stream are encrypted with and tokens known by.
    /// Repeat it while it rotates; the first is for what is new. Without it, the shared secrets, which every proxy has.
    #[arg(
        long = "session-secret-file",
        env = "PORTCULLIS_SESSION_SECRET_FILES",
        value_name = "PATH",
        value_delimiter = ',',
        requires = "session_issuer"
    )]
    pub session_secret_files: Vec<PathBuf>,
}

impl SessionOptions {
    /// `None`: the service makes no sessions.
    ///
    /// # Errors
    /// The options do not fit together.
    pub fn config(&self, max_lifetime: Duration, revocation_margin: Duration) -> Result<Option<Config>, OptionsError> {
        let Some(issuer) = self.session_issuer.clone() else { return Ok(None) };
        if issuer.is_empty() {
            return Err(OptionsError::Empty("session-issuer"));
        }
        if self.session_audiences.is_empty() {
            return Err(OptionsError::Empty("session-audience"));
        }
        if self.session_lifetime > max_lifetime {
            return Err(OptionsError::SessionLifetime(max_lifetime.as_secs()));
        }
        Ok(Some(Config {
            issuer,
            audience: self.session_audiences.clone(),
            lifetime: self.session_lifetime,
            access_lifetime: self.access_lifetime,
            refresh_grace: self.refresh_grace,
            max_lifetime,
            revocation_margin,
        }))
    }

    /// # Errors
    /// A URI that is none, or more sessions in tokens than there may be threads.
    pub fn keys(&self) -> Result<Vec<KeySource>, OptionsError> {
        // Not by clap, whose message has the text, and with it perhaps a PIN.
        let keys =
            self.signing_keys.iter().enumerate().map(|(index, text)| {
                text.parse().map_err(|source| OptionsError::SigningKey { nth: index + 1, source })
            });
        let keys = keys.collect::<Result<Vec<KeySource>, _>>()?;
        let in_tokens = keys.iter().filter(|key| matches!(key, KeySource::Token(_))).count();
        match in_tokens.saturating_mul(self.signing_sessions) > MAX_TOKEN_THREADS {
            true => Err(OptionsError::TokenThreads(MAX_TOKEN_THREADS)),
            false => Ok(keys),
        }
    }

    /// Empty: the shared secrets are used.
    ///
    /// # Errors
    /// A file that cannot be used, or one secret twice.
    pub fn secrets(&self) -> Result<Vec<Secret>, OptionsError> {
        read_secrets("session-secret-file", &self.session_secret_files)
    }
}
