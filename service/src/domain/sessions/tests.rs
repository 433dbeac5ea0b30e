//! What tests of sessions have in common.
use super::*;

pub fn config() -> Config {
    Config {
        issuer: "https://sessions.example".into(),
        audience: vec!["api".into()],
        lifetime: Duration::from_secs(12 * 3600),
        access_lifetime: Duration::from_secs(300),
        refresh_grace: Duration::from_secs(3),
        max_lifetime: Duration::from_secs(86_400),
        token_url: None,
        agent_secret: None,
        revocation_margin: Duration::from_secs(301),
    }
}
