//! The host's knowledge of the client, requested only if a rule binds to it.
use std::net::IpAddr;

use crate::host;

pub struct HostPeer;

impl authn::decide::Peer for HostPeer {
    /// Envoy's `source.address`: the socket's peer with `use_remote_address`, otherwise derived from X-Forwarded-For,
    /// which a client can write.
    fn address(&self) -> Option<IpAddr> {
        let value = host::property(&["source", "address"]).ok()??;
        authn::binding::client_address(&value)
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        host::property(&["connection", "sha256_peer_certificate_digest"]).ok()?
    }
}
