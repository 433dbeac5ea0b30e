//! The `:authority` of a callout, from the configuration or from the name of its cluster.
use super::host::Host;
use crate::config::Invalid;

/// The `:authority` of a call; by default the cluster's name, or the host in it where Istio has made it. A proxy on the way
/// answers 400 to an authority that is none.
pub(crate) fn authority_or(authority: Option<&str>, cluster: &str, at: &str) -> Result<String, Invalid> {
    let chosen = authority.unwrap_or_else(|| istio_host(cluster).unwrap_or(cluster));
    match (Host::parse(chosen.as_bytes()), authority) {
        (Ok(_), _) => Ok(chosen.to_owned()),
        (Err(rejection), Some(_)) => {
            Err(Invalid::new(at, format!("must be a host name, with or without a port: {}", rejection.cause)))
        }
        (Err(_), None) => Err(Invalid::new(
            at,
            format!(
                "is needed: the cluster's name `{cluster}` is no host name, so write the one that the server goes by"
            ),
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
