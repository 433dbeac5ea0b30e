//! The options about sessions that the service makes.
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::hmac;
use clap::Args;
use jose::dpop::TargetUri;
use wire::{Secret, SecretTooShort};

use super::secret_files::{self, SecretFileError, read_secrets};
use super::{OptionsError, values};
use crate::domain::sessions::Config;
use crate::domain::status_lists;
use crate::signing::KeySource;

/// For all keys: half of the threads for blocking work. A module that hangs may block these forever, and files and
/// names must still be read.
const MAX_TOKEN_THREADS: usize = 256;

#[derive(Clone, Args)]
#[command(next_help_heading = "Sessions")]
pub struct SessionOptions {
    /// Issue sessions, whose tokens have this `iss`. Without it the service only keeps revocations.
    #[arg(long, env = "PORTCULLIS_SESSION_ISSUER", value_name = "URL")]
    pub session_issuer: Option<String>,
    /// The default `aud` of tokens. Repeatable.
    #[arg(
        long = "session-audience",
        env = "PORTCULLIS_SESSION_AUDIENCES",
        value_name = "AUD",
        value_delimiter = ',',
        requires = "session_issuer"
    )]
    pub session_audiences: Vec<String>,
    /// The default time from login to the end of a session; at most --max-lifetime.
    #[arg(long, env = "PORTCULLIS_SESSION_LIFETIME", value_name = "TIME", default_value = "12h", value_parser = values::seconds)]
    pub session_lifetime: Duration,
    /// The default lifetime of an access token of a session with a refresh token.
    #[arg(long, env = "PORTCULLIS_ACCESS_LIFETIME", value_name = "TIME", default_value = "5m", value_parser = values::seconds)]
    pub access_lifetime: Duration,
    /// During this time after a refresh, the replaced token gets an error that it lost a race. After that its use ends
    /// the session.
    #[arg(long, env = "PORTCULLIS_REFRESH_GRACE", value_name = "TIME", default_value = "3s", value_parser = values::refresh_grace)]
    pub refresh_grace: Duration,
    /// A key for sessions with JWTs: RSA signs RS256, P-256 ES256, Ed25519 EdDSA. Either a file, PKCS#8 in PEM, read
    /// again when it changes; or a key in an HSM, by its PKCS#11 URI (RFC 7512):
    /// pkcs11:token=T;object=K?module-path=/….so&pin-source=file:/… . Repeatable: the first signs, all are published.
    #[arg(
        long = "signing-key",
        env = "PORTCULLIS_SIGNING_KEYS",
        hide_env_values = true,
        value_name = "PATH|URI",
        value_delimiter = ',',
        requires = "session_issuer"
    )]
    pub signing_keys: Vec<String>,
    /// Open sessions of each key in an HSM, which is the number of concurrent signatures. 64 more requests wait,
    /// further ones get 503.
    #[arg(long, env = "PORTCULLIS_SIGNING_SESSIONS", value_name = "N", default_value = "4", value_parser = values::signing_sessions)]
    pub signing_sessions: usize,
    /// The longest time for a signature of an HSM; after that the caller gets 503. At most 4s.
    #[arg(long, env = "PORTCULLIS_SIGNING_TIMEOUT", value_name = "TIME", default_value = "3s", value_parser = values::signing_timeout)]
    pub signing_timeout: Duration,
    /// The URL of /oauth2/token as clients use it, such as https://login.example/oauth2/token. With it, a proof by DPoP (RFC
    /// 9449) in a token request binds the new access token to its key. Without it, proofs are ignored.
    #[arg(long, env = "PORTCULLIS_TOKEN_URL", value_name = "URL", requires = "session_issuer", value_parser = token_url)]
    pub token_url: Option<TargetUri>,
    /// Publish signed lists of revoked JWTs (Token Status List) under /status/ of the data listener, and name them in the claim
    /// `status` of each JWT. The URL of this path as readers use it, such as https://login.example/status.
    #[arg(long, env = "PORTCULLIS_STATUS_LIST_URL", value_name = "URL", requires = "signing_keys", value_parser = status_list_url)]
    pub status_list_url: Option<String>,
    /// The number of status lists, at most 256. Each has 65,536 indexes; give at least twice as many as JWTs are valid at
    /// once. It may be raised, not lowered while JWTs of the lists are valid.
    #[arg(long, env = "PORTCULLIS_STATUS_LISTS", value_name = "N", default_value = "1", value_parser = values::status_lists)]
    pub status_lists: u16,
    /// How old what a reader of a status list knows may be; 2s to 1h.
    #[arg(long, env = "PORTCULLIS_STATUS_LIST_TTL", value_name = "TIME", default_value = "60s", value_parser = values::status_list_ttl)]
    pub status_list_ttl: Duration,
    /// A file with a secret, at least 32 bytes, that filters have in `binding.user_agent.secret_env`. A session that is made
    /// for a User-Agent then has its HMAC in the claim `user_agent_hmac`, in place of `user_agent_sha256`.
    #[arg(long, env = "PORTCULLIS_AGENT_SECRET_FILE", value_name = "PATH", requires = "session_issuer")]
    pub agent_secret_file: Option<PathBuf>,
    /// A JSON file with the clients that may introspect, refresh and revoke. Read again when it changes.
    #[arg(long, env = "PORTCULLIS_CLIENTS_FILE", value_name = "PATH", requires = "session_issuer")]
    pub clients_file: Option<PathBuf>,
    /// A file with a secret, at least 32 bytes, that encrypts sessions and the audit stream and authenticates tokens.
    /// Repeat it during a rotation; the first is used for new data. Default: the shared secrets, which every proxy has.
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
            token_url: self.token_url.clone(),
            agent_secret: self.agent_secret_file.as_deref().map(agent_key).transpose()?,
            revocation_margin,
        }))
    }

    /// `None`: no status lists are published.
    pub fn status_lists(&self, issuer: &str) -> Option<status_lists::Config> {
        Some(status_lists::Config {
            issuer: issuer.to_owned(),
            url: self.status_list_url.clone()?,
            lists: self.status_lists,
            ttl: self.status_list_ttl,
        })
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

/// The key of the HMACs of User-Agents: the bytes of the file, without spaces and line ends around them.
fn agent_key(file: &Path) -> Result<hmac::Key, OptionsError> {
    let text = secret_files::read(file)?;
    match text.trim_ascii() {
        bytes if bytes.len() < Secret::MIN_BYTES => {
            let source = SecretTooShort(bytes.len());
            Err(SecretFileError::Secret { path: file.to_path_buf(), source }.into())
        }
        bytes => Ok(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
    }
}

fn token_url(text: &str) -> Result<TargetUri, String> {
    TargetUri::parse(text).ok_or_else(|| "is not a URL of http or https".to_owned())
}

fn status_list_url(text: &str) -> Result<String, String> {
    match TargetUri::parse(text) {
        Some(_) if !text.contains(['?', '#']) => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("is not a URL of http or https without query and fragment".to_owned()),
    }
}
