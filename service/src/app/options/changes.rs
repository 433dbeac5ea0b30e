//! Which options a running service takes anew, and which need a restart.
use super::{AdminOptions, EventReceiverOptions, JoinOptions, Options, SessionOptions, SightingOptions};

/// The options that a running service takes anew, by their long names. Every other one needs a restart.
pub const RELOADED_OPTIONS: [&str; 30] = [
    "access-lifetime",
    "admin-client-ca",
    "admin-client-name",
    "admin-rate",
    "admin-require-certificate",
    "admin-tls-cert",
    "admin-tls-key",
    "admin-token-file",
    "agent-secret-file",
    "allow-readable-secrets",
    "audit-retention",
    "client-ca",
    "clients-file",
    "event-receivers-file",
    "issuer",
    "join-secret-file",
    "max-requests",
    "operator-page",
    "providers-file",
    "refresh-grace",
    "secret-file",
    "session-audience",
    "session-lifetime",
    "session-secret-file",
    "sightings-file",
    "status-list-ttl",
    "tls-cert",
    "tls-key",
    "token-claims",
    "token-url",
];

const DATA_TLS: [&str; 3] = ["tls-cert", "tls-key", "client-ca"];
const ADMIN_TLS: [&str; 5] =
    ["admin-tls-cert", "admin-tls-key", "admin-client-ca", "admin-client-name", "admin-require-certificate"];
const SESSIONS: [&str; 9] = [
    "access-lifetime",
    "agent-secret-file",
    "clients-file",
    "refresh-grace",
    "session-audience",
    "session-lifetime",
    "session-secret-file",
    "status-list-ttl",
    "token-url",
];

impl Options {
    /// These options, with those taken from `new` that a running service takes anew. Of some options all or none can be
    /// taken; the names of those that were not are returned.
    pub fn with_changes(&self, new: &Self) -> (Self, Vec<&'static str>) {
        let mut waiting = Vec::new();
        let mut options = Self {
            secret_files: new.secret_files.clone(),
            admin_token_file: new.admin_token_file.clone(),
            allow_readable_secrets: new.allow_readable_secrets,
            issuers: new.issuers.clone(),
            token_claims: new.token_claims.clone(),
            max_requests: new.max_requests,
            providers_file: new.providers_file.clone(),
            join: self.join.with_changes(&new.join, &mut waiting),
            admin: self.admin.with_changes(&new.admin, &mut waiting),
            sessions: self.sessions.with_changes(&new.sessions, &mut waiting),
            sightings: SightingOptions {
                sightings_file: new.sightings.sightings_file.clone(),
                ..self.sightings.clone()
            },
            event_receivers: self.event_receivers.with_changes(&new.event_receivers, self.signs(), &mut waiting),
            ..self.clone()
        };
        // A listener speaks TLS, or does not, from its start on.
        if self.tls_cert.is_some() == new.tls_cert.is_some() {
            options.tls_cert.clone_from(&new.tls_cert);
            options.tls_key.clone_from(&new.tls_key);
            options.client_ca.clone_from(&new.client_ca);
        } else {
            waiting.extend(DATA_TLS);
        }
        (options, waiting)
    }

    /// Does a service that was started with these have keys to sign with?
    fn signs(&self) -> bool {
        self.sessions.session_issuer.is_some() && !self.sessions.signing_keys.is_empty()
    }
}

impl EventReceiverOptions {
    fn with_changes(&self, new: &Self, signs: bool, waiting: &mut Vec<&'static str>) -> Self {
        // Events are signed, and keys come with a start.
        if !signs && new.event_receivers_file.is_some() {
            waiting.push("event-receivers-file");
            return self.clone();
        }
        new.clone()
    }
}

impl AdminOptions {
    fn with_changes(&self, new: &Self, waiting: &mut Vec<&'static str>) -> Self {
        if self.admin_tls_cert.is_some() == new.admin_tls_cert.is_some() {
            return new.clone();
        }
        waiting.extend(ADMIN_TLS);
        Self {
            operator_page: new.operator_page,
            admin_rate: new.admin_rate,
            audit_retention: new.audit_retention,
            ..self.clone()
        }
    }
}

impl SessionOptions {
    fn with_changes(&self, new: &Self, waiting: &mut Vec<&'static str>) -> Self {
        if self.session_issuer != new.session_issuer {
            waiting.extend(SESSIONS);
            return self.clone();
        }
        Self {
            session_audiences: new.session_audiences.clone(),
            session_lifetime: new.session_lifetime,
            access_lifetime: new.access_lifetime,
            refresh_grace: new.refresh_grace,
            token_url: new.token_url.clone(),
            status_list_ttl: new.status_list_ttl,
            clients_file: new.clients_file.clone(),
            agent_secret_file: new.agent_secret_file.clone(),
            session_secret_files: new.session_secret_files.clone(),
            ..self.clone()
        }
    }
}

impl JoinOptions {
    fn with_changes(&self, new: &Self, waiting: &mut Vec<&'static str>) -> Self {
        // Whether other regions may follow this one shapes what is stored, and what the feed reads.
        if self.join_secret_files.is_empty() != new.join_secret_files.is_empty() {
            waiting.push("join-secret-file");
            return self.clone();
        }
        Self { join_secret_files: new.join_secret_files.clone(), ..self.clone() }
    }
}
