//! The request, as the driver reads and changes it. Records each change and describes each stage.
use std::cell::RefCell;
use std::net::IpAddr;

use authn::decide::Peer;
use authn::reject::Rejection;
use authn::request::Pair;
use driver::{Edit, Exchange, HostError, LocalReply, Stage};

use super::report::{Change, Reply};
use super::steps::Steps;

pub struct ExplainedRequest<'e> {
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub address: Option<IpAddr>,
    pub certificate_sha256: Option<Vec<u8>>,
    pub reply: Option<Reply>,
    pub changes: Vec<Change>,
    pub seen: RefCell<Seen<'e>>,
}

pub struct Seen<'e> {
    pub steps: Steps<'e>,
    pub rule: Option<usize>,
    pub rejection: Option<Rejection>,
    /// It is admitted by a token; true if it could not be checked.
    pub admitted: Option<bool>,
    /// Its rule looks at no token.
    pub is_open: bool,
    /// What a rule in report mode would refuse it for.
    pub reported: Option<Rejection>,
    /// Changes now belong to the verdict. Earlier ones are made to every request.
    is_decided: bool,
}

impl<'e> Seen<'e> {
    pub fn new(steps: Steps<'e>) -> Self {
        Self { steps, rule: None, rejection: None, admitted: None, is_open: false, reported: None, is_decided: false }
    }

    /// A change before the rules are matched.
    fn cleared(edit: Edit<'_>) -> Change {
        match edit {
            Edit::Remove(name) => Change::Clear(text(name)),
            Edit::Set(b":path", _) => Change::Cut("the query parameters for tokens"),
            Edit::Set(b"cookie", _) => Change::Cut("cookies that could be read as the token's"),
            Edit::Set(name, value) | Edit::Add(name, value) => {
                Change::Set { name: text(name), value: Some(text(value)) }
            }
        }
    }

    /// A change of the verdict.
    fn decided(&self, edit: Edit<'_>) -> Change {
        let Steps { document, show_claims, .. } = self.steps;
        let rule = self.rule.and_then(|rule| document.rules.get(rule)?.forward.as_ref());
        let payload_header = rule.unwrap_or(&document.forward).payload_header.as_deref().unwrap_or_default();
        match edit {
            Edit::Remove(b"cookie") | Edit::Set(b"cookie", _) => Change::Cut("the token's cookie"),
            Edit::Remove(b"sec-websocket-protocol") | Edit::Set(b"sec-websocket-protocol", _) => {
                Change::Cut("the token's WebSocket subprotocol")
            }
            Edit::Remove(name) => Change::Clear(text(name)),
            // The payload segment is a part of the token.
            Edit::Set(name, _) | Edit::Add(name, _) if name.eq_ignore_ascii_case(payload_header.as_bytes()) => {
                Change::SetPayload(text(name))
            }
            Edit::Set(name, value) | Edit::Add(name, value) => {
                Change::Set { name: text(name), value: show_claims.then(|| text(value)) }
            }
        }
    }
}

impl Exchange for ExplainedRequest<'_> {
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError> {
        let pairs: Vec<Pair<'_>> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        Ok(read(&pairs))
    }

    fn edit(&mut self, edit: Edit<'_>) -> Result<(), HostError> {
        let (name, value) = match edit {
            Edit::Remove(name) => (name, None),
            Edit::Set(name, value) | Edit::Add(name, value) => (name, Some(value)),
        };
        self.headers.retain(|(other, _)| other != name);
        self.headers.extend(value.map(|value| (name.to_vec(), value.to_vec())));
        let seen = self.seen.get_mut();
        self.changes.push(if seen.is_decided { seen.decided(edit) } else { Seen::cleared(edit) });
        Ok(())
    }

    /// There is no route.
    fn choose_route_anew(&mut self) -> Result<(), HostError> {
        Ok(())
    }

    fn observe(&self, stage: Stage<'_>) {
        let mut seen = self.seen.borrow_mut();
        match stage {
            Stage::Admitted(admission) => {
                (seen.rule, seen.is_decided) = (Some(admission.rule()), true);
                seen.admitted = Some(admission.unchecked);
            }
            Stage::Open { rule } => (seen.rule, seen.is_open, seen.is_decided) = (Some(rule), true, true),
            Stage::Reported { rule, rejection } => {
                (seen.rule, seen.reported, seen.is_decided) = (rule, Some(rejection.clone()), true);
            }
            Stage::Answered { rule } => seen.rule = Some(rule),
            Stage::Refused { rule, rejection } => (seen.rule, seen.rejection) = (rule, Some(rejection.clone())),
            Stage::Entered(_)
            | Stage::Verified(_)
            | Stage::Accepted
            | Stage::Introspecting { .. }
            | Stage::Asking(_)
            | Stage::Claiming { .. }
            | Stage::Woken(_) => {}
        }
        seen.steps.on_stage(stage);
    }

    fn reply(&mut self, reply: &LocalReply<'_>) -> Result<(), HostError> {
        let headers = reply.headers.iter().map(|(name, value)| (text(name), text(value))).collect();
        self.reply = Some(Reply { status: reply.status, headers, body: text(reply.body) });
        Ok(())
    }

    /// There is no stream.
    fn reset(&mut self) -> Result<(), HostError> {
        Ok(())
    }
}

impl Peer for ExplainedRequest<'_> {
    fn address(&self) -> Option<IpAddr> {
        self.address
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        self.certificate_sha256.clone()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
