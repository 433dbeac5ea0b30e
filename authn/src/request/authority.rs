//! The `:authority` of a callout, from the configuration or from the name of its cluster.
use super::host::Host;
use crate::config::Invalid;

/// The `:authority` of a callout; by default the cluster's name, or the host in it if Istio created it. A proxy on the
/// way answers 400 to an authority that is not a host.
pub(crate) fn authority_or(authority: Option<&str>, cluster: &str, at: &str) -> Result<String, Invalid> {
    let chosen = authority.unwrap_or_else(|| istio_host(cluster).unwrap_or(cluster));
    match (Host::parse(chosen.as_bytes()), authority) {
        (Ok(_), _) => Ok(chosen.to_owned()),
        (Err(rejection), Some(_)) => {
            Err(Invalid::new(at, format!("must be a host name, with or without a port: {}", rejection.cause)))
        }
        (Err(_), None) => Err(Invalid::new(
            at,
            format!("is needed: the cluster's name `{cluster}` is not a host name, so give the server's host name"),
        )),
    }
}

/// The host of `direction|port|subset|host`.
fn istio_host(cluster: &str) -> Option<&str> {
    let parts: Vec<&str> = cluster.split('|').collect();
    match parts.as_slice() {
        [_direction, port, _subset, host] if port.parse::<u16>().is_ok() => Some(host),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
