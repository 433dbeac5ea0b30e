//! The driver's exchange in Wasm: one request, by host calls on its context.
use std::net::IpAddr;

use authn::decide::Peer;
use authn::request::Pair;
use driver::{Edit, Exchange, HostError, LocalReply};

use crate::backend::Effective;
use crate::host::{self, MapType};
use crate::pairs;

pub struct Request<'e> {
    context: u32,
    effective: &'e Effective,
}

impl<'e> Request<'e> {
    pub fn new(context: u32, effective: &'e Effective) -> Self {
        Self { context, effective }
    }

    /// Lets a paused request go on.
    pub fn resume(&self) -> Result<(), HostError> {
        self.effective.set(self.context)?;
        host::resume_request()
    }
}

impl Exchange for Request<'_> {
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError> {
        self.effective.set(self.context)?;
        let buffer = host::header_map(MapType::HttpRequestHeaders)?;
        let pairs = pairs::read(&buffer).ok_or(host::INTERNAL_FAILURE)?;
        Ok(read(&pairs))
    }

    fn edit(&mut self, edit: Edit<'_>) -> Result<(), HostError> {
        self.effective.set(self.context)?;
        match edit {
            Edit::Remove(name) => host::remove_header(MapType::HttpRequestHeaders, name),
            Edit::Set(name, value) => host::set_header(MapType::HttpRequestHeaders, name, value),
        }
    }

    fn choose_route_anew(&mut self) -> Result<(), HostError> {
        self.effective.set(self.context)?;
        host::clear_route_cache()
    }

    fn reply(&mut self, reply: &LocalReply<'_>) -> Result<(), HostError> {
        self.effective.set(self.context)?;
        host::answer(reply.status, reply.details, reply.headers, reply.body)
    }
}

impl Peer for Request<'_> {
    /// Envoy's `source.address`: the socket's peer where `use_remote_address` is true, else derived from
    /// X-Forwarded-For, which a client can write.
    fn address(&self) -> Option<IpAddr> {
        self.effective.set(self.context).ok()?;
        let value = host::property(&["source", "address"]).ok()??;
        authn::binding::client_address(&value)
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        self.effective.set(self.context).ok()?;
        host::property(&["connection", "sha256_peer_certificate_digest"]).ok()?
    }
}
