//! A session as an operator sees it.
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::records::StoredSession;
use crate::model::session::Format;

/// A session. Times are Unix seconds.
#[derive(Serialize, ToSchema)]
pub struct View {
    pub sid: String,
    pub issuer: String,
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    pub audience: Vec<String>,
    pub scope: String,
    pub format: Format,
    pub created: u64,
    pub auth_time: u64,
    pub ends: u64,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<u64>,
    pub last_used: u64,
    pub refresh: bool,
    pub binding: Map<String, Value>,
    pub claims: Map<String, Value>,
    pub by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<StoredSession> for View {
    fn from(kept: StoredSession) -> Self {
        let data = kept.data;
        View {
            sid: data.sid,
            issuer: data.iss,
            subject: data.sub,
            client_id: data.client_id,
            audience: data.aud,
            scope: data.scopes.join(" "),
            format: data.format,
            created: data.created,
            auth_time: data.auth_time,
            ends: data.ends,
            idle_timeout: data.idle,
            last_used: kept.used / 1000,
            refresh: data.refresh,
            binding: data.binding,
            claims: data.claims,
            by: data.by,
            reason: data.reason,
        }
    }
}
