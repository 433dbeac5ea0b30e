//! What Envoy knows of the client.
use std::net::IpAddr;

use authn::decide::Peer;

use crate::envoy::{Attribute, Stream};

impl Peer for Stream<'_> {
    /// Envoy's `source.address`: the socket's peer where `use_remote_address` is true, else derived from
    /// X-Forwarded-For, which a client can write.
    fn address(&self) -> Option<IpAddr> {
        authn::binding::client_address(self.attribute(Attribute::SourceAddress)?)
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        self.attribute(Attribute::ConnectionSha256PeerCertificateDigest).map(<[u8]>::to_vec)
    }
}
