//! The driver's exchange in Wasm: one request, through host calls on its context.
use std::net::IpAddr;

use authn::decide::Peer;
use authn::request::Pair;
use driver::{Conclusion, Edit, Exchange, HostError, LocalReply};

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

    /// Resumes a paused request.
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
            Edit::Set(name, value) | Edit::Add(name, value) => {
                host::set_header(MapType::HttpRequestHeaders, name, value)
            }
        }
    }

    fn choose_route_anew(&mut self) -> Result<(), HostError> {
        self.effective.set(self.context)?;
        host::clear_route_cache()
    }

    /// As filter state, which Envoy names `wasm.portcullis.NAME`. This host has no dynamic metadata.
    fn conclude(&mut self, conclusion: &Conclusion<'_>) {
        if !conclusion.to.is_some_and(|to| to.filter_state) || self.effective.set(self.context).is_err() {
            return;
        }
        for (name, value) in conclusion.texts() {
            // Whoever reads it must take an absent fact for a reason to refuse: docs/exposed.md.
            let _ = host::set_property(&format!("portcullis.{name}"), value.as_bytes());
        }
    }

    fn reply(&mut self, reply: &LocalReply<'_>) -> Result<(), HostError> {
        self.effective.set(self.context)?;
        host::answer(reply.status, reply.details, reply.headers, reply.body)
    }

    fn reset(&mut self) -> Result<(), HostError> {
        self.effective.set(self.context)?;
        host::reset_stream()
    }
}

impl Peer for Request<'_> {
    /// Envoy's `source.address`: the socket's peer with `use_remote_address`, otherwise derived from X-Forwarded-For,
    /// which a client can write.
    fn address(&self) -> Option<IpAddr> {
        self.effective.set(self.context).ok()?;
        let value = host::property(&["source", "address"]).ok()??;
        authn::binding::client_address(&value)
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        self.effective.set(self.context).ok()?;
        host::property(&["connection", "sha256_peer_certificate_digest"]).ok()?
    }

    fn certificate_uri(&self) -> Option<Vec<u8>> {
        self.effective.set(self.context).ok()?;
        host::property(&["connection", "uri_san_peer_certificate"]).ok()?
    }
}
