//! The driver's exchange for one request, during a hook.
use std::net::IpAddr;
use std::sync::Arc;

use authn::decide::Peer;
use authn::request::Pair;
use driver::{Conclusion, Edit, Exchange, HostError, LocalReply};

use crate::envoy::{Attribute, HeaderMap, Stream};
use crate::flags::flag;
use crate::reply::OwnedReply;
use crate::routes;

pub struct HookExchange<'s, 'hook> {
    pub stream: &'s mut Stream<'hook>,
    /// Sent after the driver has returned, because Envoy may end the stream within that call.
    pub reply: Option<OwnedReply>,
    /// Headers changed after the route was last chosen.
    pub edited: bool,
    /// The stream is to be reset, after the driver has returned, for the same reason.
    pub is_reset: bool,
}

/// The namespace of what this filter says about a request.
const NAMESPACE: &str = "portcullis";

/// Envoy has no request headers.
const NO_HEADERS: HostError = HostError(1);
const NOT_EDITED: HostError = HostError(2);

impl<'s, 'hook> HookExchange<'s, 'hook> {
    pub fn new(stream: &'s mut Stream<'hook>) -> Self {
        Self { stream, reply: None, edited: false, is_reset: false }
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

    fn certificate_uri(&self) -> Option<Vec<u8>> {
        self.stream.attribute(Attribute::ConnectionUriSanPeerCertificate).map(<[u8]>::to_vec)
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
            Edit::Add(_, []) => true,
            Edit::Add(name, value) => self.stream.add(HeaderMap::Request, name, value),
        };
        if is_done { Ok(()) } else { Err(NOT_EDITED) }
    }

    fn choose_route_anew(&mut self) -> Result<(), HostError> {
        self.stream.clear_route_cache();
        self.edited = false;
        Ok(())
    }

    fn route_rule(&mut self) -> Option<Arc<str>> {
        if !routes::exist() {
            return None;
        }
        if std::mem::take(&mut self.edited) {
            self.stream.clear_route_cache();
        }
        self.stream.route_config().map(routes::name_of)
    }

    /// As a flag, and as dynamic metadata and filter state under `portcullis`, which access logs, RBAC and rate limits read.
    fn conclude(&mut self, conclusion: &Conclusion<'_>) {
        if let Some(flag) = flag(conclusion.outcome, conclusion.code) {
            self.stream.add_flag(flag);
        }
        let Some(to) = conclusion.to else { return };
        if to.metadata {
            let headers = conclusion.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let texts = conclusion.facts().filter(|(_, fact)| fact.list.is_none());
            let texts = texts.map(|(name, fact)| (name, fact.text.as_str()));
            // Ours last: a claim that is forwarded under one of these names must not replace them.
            self.stream.set_metadata(NAMESPACE, headers.chain(texts).chain(conclusion.verdict()));
            for (name, fact) in conclusion.facts() {
                self.stream.set_metadata_list(NAMESPACE, name, fact.list.iter().flatten());
            }
        }
        if to.filter_state {
            for (name, value) in conclusion.texts() {
                self.stream.set_filter_state(&format!("{NAMESPACE}.{name}"), value.as_bytes());
            }
        }
    }

    fn reply(&mut self, reply: &LocalReply<'_>) -> Result<(), HostError> {
        self.reply = Some(OwnedReply::of(reply).for_request(self.stream));
        Ok(())
    }

    fn reset(&mut self) -> Result<(), HostError> {
        self.is_reset = true;
        Ok(())
    }
}
