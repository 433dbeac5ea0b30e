//! The form of a security event (RFC 8417, Shared Signals Framework 1.0 section 4), and what it means: it ends something,
//! says something about its stream, or needs nothing to be done.
use std::borrow::Cow;
use std::collections::BTreeMap;

use jose::Unverified;
use serde_json::{Map, Value};

use super::Ending;
use super::actions::{self, ActionConfig, Effect};
use super::claims::{Claims, Members};
use super::error::RejectReason;
use super::jws::is_typed;
use super::stream::{StreamEvent, StreamStatus};
use super::subjects::{self, Scope};

/// About the stream itself (Shared Signals Framework 1.0 sections 8.1.4.1 and 8.1.5).
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
const STREAM_UPDATED: &str = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated";
/// The same in earlier drafts.
const DRAFT_VERIFICATIONS: [&str; 2] = [
    "https://schemas.openid.net/secevent/risc/event-type/verification",
    "https://schemas.openid.net/secevent/sse/event-type/verification",
];
const DRAFT_STREAM_UPDATED: &str = "https://schemas.openid.net/secevent/sse/event-type/stream-updated";
const TYPE: &str = "secevent+jwt";

/// How the events of a provider are understood.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'p> {
    pub scope: Scope<'p>,
    pub actions: &'p BTreeMap<String, ActionConfig>,
    /// The forms of earlier drafts are accepted too.
    pub drafts: bool,
}

/// What an event asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    Ends(Ending),
    OfStream(StreamEvent),
    Nothing,
}

/// # Errors
/// It is of another type. Events must have theirs (Shared Signals Framework 1.0 section 4.1.1), which drafts did not
/// require.
pub fn judge_type(token: &Unverified<'_>, drafts: bool) -> Result<(), RejectReason> {
    let is_untyped = token.header().typ.is_none() || is_typed(token, &["jwt"]);
    match is_typed(token, &[TYPE]) || (drafts && is_untyped) {
        true => Ok(()),
        false => Err(RejectReason::Type("`secevent+jwt`")),
    }
}

/// # Errors
/// The event is refused, or its subject cannot be ended.
pub fn meaning(claims: &Claims, reading: Reading<'_>) -> Result<Meaning, RejectReason> {
    // Both keep events apart from other tokens (sections 4.1.2 and 4.1.7).
    if claims.sub.is_some() {
        return Err(RejectReason::Claim("sub", "must not be in an event: `sub_id` names its subject"));
    }
    if claims.has_exp() {
        return Err(RejectReason::Claim("exp", "must not be in an event"));
    }
    let Some([(uri, event)]) = claims.events.as_ref().map(|events| events.0.as_slice()) else {
        return Err(RejectReason::Events("must have exactly one event"));
    };
    let Some(event) = event.as_object() else {
        return Err(RejectReason::Events("must have an object for its event"));
    };
    if let Some(of_stream) = of_stream(uri, event, reading.drafts) {
        return match claims.sub_id.is_some() || reading.drafts {
            true => Ok(Meaning::OfStream(of_stream)),
            false => Err(missing()),
        };
    }
    let sub_id = subject(claims, event, reading.drafts)?;
    Ok(match actions::effect(uri, event, reading.actions)? {
        Effect::End(extent) => Meaning::Ends(subjects::ending(&sub_id, reading.scope, extent)?),
        Effect::Nothing => Meaning::Nothing,
    })
}

fn missing() -> RejectReason {
    RejectReason::Subject(super::error::SubjectFault::Malformed, "is missing")
}

fn of_stream(uri: &str, event: &Map<String, Value>, drafts: bool) -> Option<StreamEvent> {
    match uri {
        VERIFICATION => Some(StreamEvent::Verified),
        STREAM_UPDATED => Some(updated(event)),
        uri if drafts && DRAFT_VERIFICATIONS.contains(&uri) => Some(StreamEvent::Verified),
        DRAFT_STREAM_UPDATED if drafts => Some(updated(event)),
        _ => None,
    }
}

fn updated(event: &Map<String, Value>) -> StreamEvent {
    StreamEvent::Updated(event.get("status").and_then(Value::as_str).and_then(StreamStatus::named))
}

/// The one subject of an event. Two that differ would be ambiguous.
fn subject<'c>(claims: &'c Claims, event: &Map<String, Value>, drafts: bool) -> Result<Cow<'c, Members>, RejectReason> {
    let within = event.get("subject");
    // Drafts had the subject there.
    if event.contains_key("sub_id") || (within.is_some() && !drafts) {
        return Err(RejectReason::Events("has a subject within its event: `sub_id` names it"));
    }
    match (&claims.sub_id, within) {
        (Some(sub_id), None) => Ok(Cow::Borrowed(sub_id)),
        (None, None) => Err(missing()),
        (sub_id, Some(within)) => {
            let within = within.as_object().ok_or(RejectReason::Events("has a `subject` that is not an object"))?;
            let within = of_draft(within);
            match sub_id {
                Some(sub_id) if !sub_id.equals(&within) => {
                    Err(RejectReason::Events("has a `subject` that differs from `sub_id`"))
                }
                _ => Ok(Cow::Owned(within)),
            }
        }
    }
}

/// A subject as earlier drafts wrote it: `subject_type` for `format`, hyphens for underscores, and complex without saying
/// so.
fn of_draft(within: &Map<String, Value>) -> Members {
    let mut members: Vec<(String, Value)> = Vec::new();
    for (name, value) in within {
        match (name.as_str(), value) {
            ("subject_type", Value::String(format)) if !within.contains_key("format") => {
                members.push(("format".into(), Value::String(format.replace('-', "_"))));
            }
            (_, Value::Object(member)) => {
                let member = of_draft(member).0.into_iter().collect();
                members.push((name.clone(), Value::Object(member)));
            }
            _ => members.push((name.clone(), value.clone())),
        }
    }
    let is_complex = !members.is_empty() && members.iter().all(|(_, value)| value.is_object());
    if is_complex {
        members.push(("format".into(), Value::String("complex".into())));
    }
    Members(members)
}

#[cfg(test)]
mod tests;
