//! The binding of a rule, compiled.
use crate::binding::{AddressBinding, AgentBinding, Binding, CertificateBinding, Fingerprint};
use crate::config;
use crate::config::{Environment, Invalid, claim_path, secret_from};

const MAX_FORWARDED_FOR: u8 = 16;

/// Which address of X-Forwarded-For is the client's; `None`: the proxy says.
pub(super) fn forwarded_for(document: Option<&config::ClientAddress>) -> Result<Option<usize>, Invalid> {
    match document.map(|document| document.forwarded_for) {
        None => Ok(None),
        Some(nth) if (1..=MAX_FORWARDED_FOR).contains(&nth) => Ok(Some(usize::from(nth))),
        Some(_) => {
            let message = format!("must be within 1 to {MAX_FORWARDED_FOR}");
            Err(Invalid::new("client_address.forwarded_for", message))
        }
    }
}

pub(super) fn compile_binding(
    document: &config::Binding,
    forwarded_for: Option<usize>,
    environment: Environment<'_>,
) -> Result<Binding, Invalid> {
    let certificate = document.certificate.as_ref().map(|binding| {
        let forwarded_by = binding.forwarded_by.clone();
        // Quotes, commas and semicolons would end an element of the header.
        let is_uri = |uri: &str| {
            uri.contains(':') && uri.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && !b"\"\\,;".contains(&byte))
        };
        match &forwarded_by {
            Some(uri) if !is_uri(uri) => Err(Invalid::new("certificate.forwarded_by", "is not a URI")),
            _ => Ok(CertificateBinding { mode: binding.mode, required: binding.required, forwarded_by }),
        }
    });
    let address = document.address.as_ref().map(|binding| {
        let prefix = match &binding.prefix {
            None => None,
            Some(prefix) if !(8..=32).contains(&prefix.v4) => {
                return Err(Invalid::new("address.prefix.v4", "must be within 8 to 32"));
            }
            Some(prefix) if !(16..=128).contains(&prefix.v6) => {
                return Err(Invalid::new("address.prefix.v6", "must be within 16 to 128"));
            }
            Some(prefix) => Some((u32::from(prefix.v4), u32::from(prefix.v6))),
        };
        let claim = claim_path(&binding.claim, "address.claim")?;
        Ok(AddressBinding { mode: binding.mode, required: binding.required, claim, prefix, forwarded_for })
    });
    let user_agent = document.user_agent.as_ref().map(|binding| {
        let at = "user_agent.secret_env";
        let fingerprint = match &binding.secret_env {
            None => Fingerprint::Sha256,
            Some(variable) => {
                let secret = secret_from(environment, variable, binding.secret_encoding, at)?;
                Fingerprint::keyed(&secret).map_err(|message| Invalid::new(at, format!("`{variable}` {message}")))?
            }
        };
        let claim = claim_path(&binding.claim, "user_agent.claim")?;
        Ok(AgentBinding { mode: binding.mode, required: binding.required, claim, fingerprint })
    });
    Ok(Binding {
        certificate: certificate.transpose()?,
        address: address.transpose()?,
        user_agent: user_agent.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_its_field() {
        for (document, error) in [
            (r#"{"certificate":{"mode":"enforce","forwarded_by":"gateway"}}"#, "certificate.forwarded_by: is not"),
            (r#"{"certificate":{"mode":"enforce","forwarded_by":"a:b;Hash=c"}}"#, "certificate.forwarded_by: is not"),
            (
                r#"{"address":{"mode":"enforce","claim":"ip","prefix":{"v4":7,"v6":56}}}"#,
                "address.prefix.v4: must be within",
            ),
            (
                r#"{"address":{"mode":"enforce","claim":"ip","prefix":{"v4":24,"v6":129}}}"#,
                "address.prefix.v6: must be within",
            ),
            (r#"{"address":{"mode":"enforce","claim":[]}}"#, "address.claim: name a claim"),
            (r#"{"user_agent":{"mode":"enforce","claim":"ua","secret_env":"NONE"}}"#, "user_agent.secret_env: the VM"),
            (
                r#"{"user_agent":{"mode":"enforce","claim":"ua","secret_env":"SHORT"}}"#,
                "user_agent.secret_env: `SHORT`",
            ),
        ] {
            let environment = |name: &str| (name == "SHORT").then(|| vec![1; 31]);
            let refused = compile_binding(&serde_json::from_str(document).unwrap(), None, &environment).unwrap_err();
            assert!(refused.to_string().starts_with(error), "{document}: {refused}");
        }
        for nth in [0, 17] {
            let refused = forwarded_for(Some(&config::ClientAddress { forwarded_for: nth })).unwrap_err();
            assert_eq!(refused.field, "client_address.forwarded_for");
        }
    }
}
