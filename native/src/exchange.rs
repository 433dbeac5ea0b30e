//! The driver's exchange for one request, during a hook.
use std::net::IpAddr;

use authn::decide::Peer;
use authn::request::Pair;
use driver::{Conclusion, Edit, Exchange, HostError, LocalReply};

use crate::envoy::{Attribute, HeaderMap, Stream};
use crate::reply::OwnedReply;

pub struct HookExchange<'s, 'hook> {
    pub stream: &'s mut Stream<'hook>,
    /// Sent after the driver has returned, because Envoy may end the stream within that call.
    pub reply: Option<OwnedReply>,
    /// Headers changed after the route was last chosen.
    pub edited: bool,
}

/// The namespace of what this filter says about a request.
const METADATA: &str = "portcullis";

/// Envoy has no request headers.
const NO_HEADERS: HostError = HostError(1);
const NOT_EDITED: HostError = HostError(2);

impl<'s, 'hook> HookExchange<'s, 'hook> {
    pub fn new(stream: &'s mut Stream<'hook>) -> Self {
        Self { stream, reply: None, edited: false }
    }
}

impl Peer for HookExchange<'_, '_> {
    /// Envoy's `source.address`: the socket's peer with `use_remote_address`, otherwise derived from X-Forwarded-For,
    /// which a client can write.
    fn address(&self) -> Option<IpAddr> {
        authn::binding::client_address(self.stream.attribute(Attribute::SourceAddress)?)
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        self.stream.attribute(Attribute::ConnectionSha256PeerCertificateDigest).map(<[u8]>::to_vec)
    }
}

impl Exchange for HookExchange<'_, '_> {
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError> {
        self.stream.with_headers(HeaderMap::Request, read).ok_or(NO_HEADERS)
    }

    fn edit(&mut self, edit: Edit<'_>) -> Result<(), HostError> {
        self.edited = true;
        let is_done = match edit {
            Edit::Remove(name) => self.stream.remove(HeaderMap::Request, name),
            // Envoy removes a header if its value is empty: docs/decisions/0105.
            Edit::Set(name, value) => self.stream.set(HeaderMap::Request, name, value),
        };
        if is_done { Ok(()) } else { Err(NOT_EDITED) }
    }

    fn choose_route_anew(&mut self) -> Result<(), HostError> {
        self.stream.clear_route_cache();
        self.edited = false;
        Ok(())
    }

    /// As dynamic metadata under `portcullis`, which access logs, RBAC and rate limits read.
    fn conclude(&mut self, conclusion: &Conclusion<'_>) {
        let facts = [("outcome", Some(conclusion.outcome)), ("code", conclusion.code), ("rule", conclusion.rule)];
        let headers = conclusion.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let facts = facts.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        // Facts last: a claim that is forwarded under one of their names must not replace them.
        self.stream.set_metadata(METADATA, headers.chain(facts));
    }

    fn reply(&mut self, reply: &LocalReply<'_>) -> Result<(), HostError> {
        self.reply = Some(OwnedReply::of(reply).for_request(self.stream));
        Ok(())
    }
}
