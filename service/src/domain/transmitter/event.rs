//! An event and the claims of its token (RFC 8417 section 2.2, CAEP 1.0), for one receiver.
use std::time::Instant;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value, json};
use wire::{Kind, RevocationKey};

use super::settings::{EventType, Receiver, SubjectFormat};
use crate::base::clock::unix_seconds;

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const RISK_LEVEL_CHANGE: &str = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change";

#[derive(Debug, Clone)]
pub struct Event {
    pub subject: Subject,
    pub content: Content,
    /// When it happened, in Unix seconds.
    pub at: u64,
}

/// A session, a token that belongs to none, or a user.
#[derive(Debug, Clone)]
pub struct Subject {
    pub kind: Kind,
    pub key: RevocationKey,
    /// `None`: only the key is known.
    pub issuer: Option<String>,
    pub sub: Option<String>,
    pub sid: Option<String>,
}

#[derive(Debug, Clone)]
pub enum Content {
    /// The session ended, or all sessions of the user.
    Ended { by: Initiator, reason: Option<String> },
    /// The session shows signs of a hijack. The text names them.
    AtRisk(String),
}

/// CAEP 1.0 section 2, `initiating_entity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Initiator {
    Admin,
    Policy,
    System,
}

/// An event that waits to be sent.
#[derive(Debug)]
pub struct Waiting {
    /// The same in each try, so that a receiver which took it before takes it once.
    pub claims: Claims,
    pub since: Instant,
}

#[derive(Debug, Serialize)]
pub struct Claims {
    iss: String,
    aud: String,
    iat: u64,
    pub jti: String,
    sub_id: Value,
    events: Map<String, Value>,
}

impl Initiator {
    /// `by` is as the audit log has it.
    pub fn of(by: &str) -> Self {
        match by {
            "admin" => Self::Admin,
            by if by.starts_with("certificate:") => Self::Admin,
            by if by.starts_with("client:") => Self::System,
            _ => Self::Policy,
        }
    }
}

impl Content {
    pub fn kind(&self) -> EventType {
        match self {
            Self::Ended { .. } => EventType::SessionRevoked,
            Self::AtRisk(_) => EventType::RiskLevelChange,
        }
    }
}

/// `None`: the subject cannot be named in the receiver's format, or the system gave no randomness.
pub fn claims(event: &Event, issuer: &str, receiver: &Receiver) -> Option<Waiting> {
    let sub_id = sub_id(&event.subject, receiver.subject)?;
    let (name, content) = match &event.content {
        Content::Ended { by, reason } => {
            let content = match reason.as_ref().filter(|_| receiver.reasons) {
                None => json!({ "event_timestamp": event.at, "initiating_entity": by }),
                Some(reason) => json!({
                    "event_timestamp": event.at, "initiating_entity": by, "reason_admin": { "en": reason },
                }),
            };
            (SESSION_REVOKED, content)
        }
        Content::AtRisk(signs) => (
            RISK_LEVEL_CHANGE,
            json!({
                "event_timestamp": event.at, "initiating_entity": Initiator::Policy, "principal": "SESSION",
                "current_level": "HIGH", "risk_reason": signs,
            }),
        ),
    };
    let mut random = [0; 16];
    rand::fill(&mut random).ok()?;
    let claims = Claims {
        iss: issuer.to_owned(),
        aud: receiver.audience.clone(),
        iat: unix_seconds(),
        jti: URL_SAFE_NO_PAD.encode(random),
        sub_id,
        events: [(name.to_owned(), content)].into_iter().collect(),
    };
    Some(Waiting { claims, since: Instant::now() })
}

fn sub_id(subject: &Subject, format: SubjectFormat) -> Option<Value> {
    let user = subject.issuer.as_ref().zip(subject.sub.as_ref());
    let user = user.map(|(iss, sub)| json!({ "format": "iss_sub", "iss": iss, "sub": sub }));
    let session = subject.sid.as_ref().map(|sid| json!({ "format": "opaque", "id": sid }));
    match (format, subject.kind) {
        (SubjectFormat::Key, _) => Some(json!({ "format": "opaque", "id": subject.key.to_string() })),
        (SubjectFormat::Complex, Kind::User) => Some(json!({ "format": "complex", "user": user? })),
        // A part of the user's sessions must not be named as all of them.
        (SubjectFormat::Complex, _) => Some(match user {
            None => json!({ "format": "complex", "session": session? }),
            Some(user) => json!({ "format": "complex", "session": session?, "user": user }),
        }),
        (SubjectFormat::Opaque, Kind::User) => None,
        (SubjectFormat::Opaque, _) => session,
        // The operator chose it for a receiver that knows users only.
        (SubjectFormat::IssSub, _) => user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: &str = "https://login.example";

    fn receiver(more: &str) -> Receiver {
        serde_norway::from_str(&format!("{{ url: 'https://siem.example/', audience: siem{more} }}")).unwrap()
    }

    fn subject(kind: Kind, sub: Option<&str>, sid: Option<&str>) -> Subject {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Subject { kind, key: RevocationKey([7; 16]), issuer: Some(LOGIN.into()), sub: text(sub), sid: text(sid) }
    }

    fn named(format: &str, subject: Subject) -> Option<Value> {
        let event = Event { subject, content: Content::AtRisk("travel".into()), at: 5 };
        let waiting = claims(&event, "https://us.example", &receiver(&format!(", subject: {format}")))?;
        Some(serde_json::to_value(waiting.claims).unwrap()["sub_id"].clone())
    }

    #[test]
    fn subjects_are_named_exactly_or_not_at_all() {
        let user = json!({ "format": "iss_sub", "iss": LOGIN, "sub": "u" });
        let session = json!({ "format": "opaque", "id": "s" });
        let key = json!({ "format": "opaque", "id": RevocationKey([7; 16]).to_string() });
        let whole = || subject(Kind::Session, Some("u"), Some("s"));
        let complex = json!({ "format": "complex", "user": user, "session": session });
        assert_eq!(named("complex", whole()), Some(complex));
        assert_eq!(named("opaque", whole()), Some(session.clone()));
        assert_eq!(named("iss_sub", whole()), Some(user.clone()));
        assert_eq!(named("key", whole()), Some(key.clone()));
        let of_operator = || subject(Kind::Session, None, Some("s"));
        assert_eq!(named("complex", of_operator()), Some(json!({ "format": "complex", "session": session })));
        assert_eq!(named("iss_sub", of_operator()), None);
        let of_user = || subject(Kind::User, Some("u"), None);
        assert_eq!(named("complex", of_user()), Some(json!({ "format": "complex", "user": user })));
        assert_eq!(named("opaque", of_user()), None);
        // All of the user's sessions would be too many.
        let token = || subject(Kind::Token, Some("u"), None);
        assert_eq!((named("complex", token()), named("opaque", token())), (None, None));
        let unnamed = || Subject { issuer: None, sub: None, sid: None, ..whole() };
        assert_eq!([named("complex", unnamed()), named("iss_sub", unnamed())], [None, None]);
        assert_eq!(named("key", unnamed()), Some(key));
    }

    #[test]
    fn claims_are_those_of_caep_and_the_reason_stays_here_unless_the_receiver_gets_reasons() {
        let ended = |by: &str| Event {
            subject: subject(Kind::Session, None, Some("s")),
            content: Content::Ended { by: Initiator::of(by), reason: Some("left the company".into()) },
            at: 5,
        };
        let event = |receiver: &Receiver, by: &str| {
            let claims = claims(&ended(by), "https://us.example", receiver).unwrap().claims;
            serde_json::to_value(claims).unwrap()
        };
        let (quiet, told) = (event(&receiver(""), "admin"), event(&receiver(", reasons: true"), "client:app"));
        assert_eq!((&quiet["iss"], &quiet["aud"]), (&json!("https://us.example"), &json!("siem")));
        assert_eq!(quiet["events"][SESSION_REVOKED], json!({ "event_timestamp": 5, "initiating_entity": "admin" }));
        let content = json!({
            "event_timestamp": 5, "initiating_entity": "system", "reason_admin": { "en": "left the company" },
        });
        assert_eq!(told["events"][SESSION_REVOKED], content);
        assert_eq!(quiet["jti"].as_str().unwrap().len(), 22);
        assert_ne!(quiet["jti"], told["jti"]);
        // Neither may be in an event (Shared Signals Framework 1.0 section 4.1).
        assert!(quiet.get("sub").is_none() && quiet.get("exp").is_none());
    }
}
