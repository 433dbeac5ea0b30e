//! What a transmitter is told of the events that it sent: acknowledged, or refused and why (RFC 8936 section 2.2).
use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::provider_events::error::RejectReason;

/// The longest description of an error, in characters.
const MAX_DESCRIPTION: usize = 256;

#[derive(Debug, Default, Serialize)]
pub struct Reports {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ack: Vec<String>,
    #[serde(rename = "setErrs", skip_serializing_if = "BTreeMap::is_empty")]
    refused: BTreeMap<String, Refused>,
}

/// Section 2.6, with the codes of RFC 8935 section 2.4.
#[derive(Debug, Serialize)]
struct Refused {
    err: &'static str,
    description: String,
}

impl Reports {
    pub fn acknowledge(&mut self, jti: String) {
        self.ack.push(jti);
    }

    pub fn refuse(&mut self, jti: String, why: &RejectReason) {
        let fit = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
        let description = why.to_string().chars().take(MAX_DESCRIPTION).map(fit).collect();
        self.refused.insert(jti, Refused { err: why.set_code(), description });
    }

    pub fn is_empty(&self) -> bool {
        self.ack.is_empty() && self.refused.is_empty()
    }

    pub fn has_refusals(&self) -> bool {
        !self.refused.is_empty()
    }

    pub fn has(&self, jti: &str) -> bool {
        self.refused.contains_key(jti) || self.ack.iter().any(|acknowledged| acknowledged == jti)
    }
}
