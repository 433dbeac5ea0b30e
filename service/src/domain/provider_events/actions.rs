//! What each type of event does (CAEP 1.0 section 3, RISC 1.0 section 2): the types that are known, the action of each where
//! the providers file says nothing, and the actions that it may give instead.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::RejectReason;

const PREFIX: &str = "https://schemas.openid.net/secevent/";
const INFIX: &str = "/event-type/";

/// What an event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Ends exactly its subject: the session or the user.
    EndSubject,
    /// Ends the user that its subject names, even if the subject is narrowed down to a session, a device or an application.
    EndUser,
    /// Is acknowledged without effect.
    Acknowledge,
    /// Is refused.
    Refuse,
}

/// The action of one type, as the providers file gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionConfig {
    pub action: Action,
    /// The values of the type's deciding member for which something ends. Others are acknowledged without effect.
    #[serde(default, deserialize_with = "present")]
    pub when: Option<Vec<String>>,
}

/// A type of event.
#[derive(Debug)]
pub struct EventType {
    profile: &'static str,
    pub name: &'static str,
    default: Action,
    /// Its subject is an account (RISC).
    is_account: bool,
    decides: Option<Deciding>,
}

/// The member of an event that says whether it is bad news.
#[derive(Debug)]
struct Deciding {
    member: &'static str,
    values: &'static [&'static str],
    /// The values that end something, unless `when` names others.
    ends: &'static [&'static str],
    missing: &'static str,
}

/// How much of a subject ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Exactly the subject: a session or a user.
    Subject,
    /// The user of an account, exactly. A session is no account.
    Account,
    /// The user that it names, even if it is narrowed down to a session, a device or an application.
    User,
}

/// What an event means for this provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    End(Extent),
    Nothing,
}

const fn caep(name: &'static str) -> EventType {
    EventType { profile: "caep", name, default: Action::Refuse, is_account: false, decides: None }
}

const fn risc(name: &'static str) -> EventType {
    EventType { profile: "risc", name, default: Action::Refuse, is_account: true, decides: None }
}

const fn ending(of: EventType) -> EventType {
    EventType { default: Action::EndSubject, ..of }
}

const fn deciding(of: EventType, decides: Deciding) -> EventType {
    EventType { decides: Some(decides), ..of }
}

pub const TYPES: [EventType; 20] = [
    ending(caep("session-revoked")),
    deciding(
        caep("credential-change"),
        Deciding {
            member: "change_type",
            values: &["create", "revoke", "update", "delete"],
            ends: &["revoke", "delete"],
            missing: "must have a `change_type` of CAEP 1.0 section 3.3",
        },
    ),
    deciding(
        caep("device-compliance-change"),
        Deciding {
            member: "current_status",
            values: &["compliant", "not-compliant"],
            ends: &["not-compliant"],
            missing: "must have a `current_status` of CAEP 1.0 section 3.5",
        },
    ),
    deciding(
        caep("assurance-level-change"),
        Deciding {
            member: "change_direction",
            values: &["increase", "decrease"],
            ends: &["decrease"],
            missing: "must have a `change_direction` of CAEP 1.0 section 3.4: without it nothing says what changed",
        },
    ),
    caep("token-claims-change"),
    caep("session-established"),
    caep("session-presented"),
    deciding(
        caep("risk-level-change"),
        Deciding {
            member: "current_level",
            values: &["LOW", "MEDIUM", "HIGH"],
            ends: &["HIGH"],
            missing: "must have a `current_level` of CAEP 1.0 section 3.8",
        },
    ),
    ending(risc("account-disabled")),
    ending(risc("account-purged")),
    ending(risc("sessions-revoked")),
    risc("credential-compromise"),
    risc("account-credential-change-required"),
    risc("account-enabled"),
    risc("identifier-changed"),
    risc("identifier-recycled"),
    risc("opt-out-effective"),
    risc("recovery-activated"),
    risc("recovery-information-changed"),
    // Google's: all tokens that it issued for one user of one client.
    EventType { profile: "oauth", ..risc("tokens-revoked") },
];

impl EventType {
    /// The type of this URI, if it is known.
    fn of(uri: &str) -> Option<&'static Self> {
        let (profile, name) = uri.strip_prefix(PREFIX)?.split_once(INFIX)?;
        TYPES.iter().find(|known| known.profile == profile && known.name == name)
    }
}

/// # Errors
/// The event is refused: its type is unknown, or not accepted from this provider, or it does not say what it must.
pub fn effect(
    uri: &str,
    event: &Map<String, Value>,
    actions: &BTreeMap<String, ActionConfig>,
) -> Result<Effect, RejectReason> {
    let of = EventType::of(uri).ok_or(RejectReason::Events("has an event of an unknown type"))?;
    let given = actions.get(of.name);
    let extent = match given.map_or(of.default, |given| given.action) {
        Action::EndSubject if of.is_account => Extent::Account,
        Action::EndSubject => Extent::Subject,
        Action::EndUser => Extent::User,
        Action::Acknowledge => return Ok(Effect::Nothing),
        Action::Refuse => {
            return Err(RejectReason::Events(
                "has an event that is not accepted from this provider: see its `actions`",
            ));
        }
    };
    let Some(decides) = &of.decides else { return Ok(Effect::End(extent)) };
    let value = event.get(decides.member).and_then(Value::as_str).filter(|value| decides.values.contains(value));
    let value = value.ok_or(RejectReason::Events(decides.missing))?;
    let ends = match given.and_then(|given| given.when.as_ref()) {
        Some(when) => when.iter().any(|one| one == value),
        None => decides.ends.contains(&value),
    };
    Ok(if ends { Effect::End(extent) } else { Effect::Nothing })
}

/// # Errors
/// What is wrong with it, to be read after the name of its field.
pub fn check_action(name: &str, config: &ActionConfig) -> Result<(), String> {
    let Some(of) = TYPES.iter().find(|of| of.name == name) else {
        let names: Vec<&str> = TYPES.iter().map(|of| of.name).collect();
        return Err(format!("is no known type of event; known are {}", names.join(", ")));
    };
    let Some(when) = &config.when else { return Ok(()) };
    let Some(decides) = of.decides.as_ref().filter(|_| matches!(config.action, Action::EndSubject | Action::EndUser))
    else {
        return Err("must not have `when`: nothing in such an event decides whether it ends something".into());
    };
    match when.iter().find(|one| !decides.values.contains(&one.as_str())) {
        Some(other) => {
            Err(format!("has `when` with {other:?}; values of `{}` are {}", decides.member, decides.values.join(", ")))
        }
        None if when.is_empty() => Err("has an empty `when`; use `action: acknowledge`".into()),
        None => Ok(()),
    }
}

fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
