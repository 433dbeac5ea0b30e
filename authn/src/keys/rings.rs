//! The current keys of all issuers: configured ones and fetched ones.
use crate::engine::KeySet;
use crate::keys::source::{KeySource, Settings};
use crate::reject::Rejection;
use crate::time::Monotonic;

/// By the issuer's index in the configuration.
#[derive(Debug, Clone)]
pub struct Keyrings(Vec<Option<KeySource>>);

/// An issuer's keys, and the generation of the set.
#[derive(Debug, Clone, Copy)]
pub struct Current<'k> {
    pub keys: &'k KeySet,
    pub generation: u32,
}

impl Keyrings {
    /// Of each issuer in the document's order: the settings of its source, if its keys are fetched.
    pub fn new(sources: impl Iterator<Item = Option<Settings>>) -> Self {
        Self(sources.map(|settings| settings.map(KeySource::new)).collect())
    }

    /// # Errors
    /// [`crate::reject::RejectReason::KeysUnavailable`] when there are none to be trusted now.
    pub(crate) fn current<'k>(
        &'k self,
        configured: &'k KeySet,
        issuer: usize,
        now: Monotonic,
    ) -> Result<Current<'k>, Rejection> {
        match self.source(issuer) {
            None => Ok(Current { keys: configured, generation: 0 }),
            Some(source) => Ok(Current { keys: source.keys(now)?, generation: source.generation() }),
        }
    }

    /// `None` for an issuer whose keys are in the configuration.
    pub fn source(&self, issuer: usize) -> Option<&KeySource> {
        self.0.get(issuer)?.as_ref()
    }

    pub fn source_mut(&mut self, issuer: usize) -> Option<&mut KeySource> {
        self.0.get_mut(issuer)?.as_mut()
    }

    /// The issuers whose keys are fetched.
    pub fn fetched(&self) -> impl Iterator<Item = usize> + use<> {
        let indices: Vec<usize> =
            self.0.iter().enumerate().filter(|(_, source)| source.is_some()).map(|(index, _)| index).collect();
        indices.into_iter()
    }
}
