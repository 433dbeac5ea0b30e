//! The secrets that a document takes from SDS: what Envoy has of them now.
use std::fmt;

use crate::envoy::{self, Config, SecretId};

/// One configuration's subscriptions.
pub struct Sds(Vec<(String, SecretId)>);

/// The secrets by name. Without `Debug` of the values.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct Secrets(Vec<(String, Vec<u8>)>);

/// Long enough for every use, and valid base64url.
const PLACEHOLDER: &[u8] = &[b'A'; 128];

impl Sds {
    /// `None` if the document takes none from SDS.
    ///
    /// # Errors
    /// What is wrong with the document, or that Envoy refuses, as text for the log.
    pub fn subscribe(config: &mut Config<'_>, document: &[u8]) -> Result<Option<Self>, String> {
        let wanted = driver::sds_secrets(document.to_vec())?;
        if wanted.is_empty() {
            return Ok(None);
        }
        if !envoy::has_secrets() {
            return Err("sds: Envoy has secrets of SDS for modules from 1.40 on".to_owned());
        }
        let subscribed = wanted.iter().enumerate().map(|(index, secret)| {
            let id = config.subscribe_secret(secret.secret(), secret.source_json().as_deref());
            let id = id.ok_or_else(|| format!("sds[{index}]: Envoy refuses it, and its log has the reason"))?;
            Ok((secret.name.clone(), id))
        });
        subscribed.collect::<Result<_, String>>().map(|subscribed| Some(Self(subscribed)))
    }

    /// Something in their place, to look for other errors of the document while they have not come.
    pub fn placeholder(&self, name: &str) -> Option<Vec<u8>> {
        self.0.iter().any(|(known, _)| known == name).then(|| PLACEHOLDER.to_vec())
    }

    /// # Errors
    /// The name of one that Envoy does not have.
    pub fn read(&self, config: &Config<'_>) -> Result<Secrets, &str> {
        let read = self.0.iter().map(|(name, id)| match config.secret(*id) {
            Some(value) => Ok((name.clone(), value.to_vec())),
            None => Err(name.as_str()),
        });
        read.collect::<Result<_, _>>().map(Secrets)
    }
}

impl Secrets {
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}
