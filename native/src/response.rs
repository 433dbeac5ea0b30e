//! The driver's response for one request, during the hook for its answer.
use authn::browser::Edit;
use authn::request::Pair;
use driver::{HostError, Response};

use crate::envoy::{HeaderMap, Stream};

pub struct HookResponse<'s, 'hook> {
    pub stream: &'s mut Stream<'hook>,
}

/// Envoy has no response headers.
const NO_HEADERS: HostError = HostError(1);
const NOT_EDITED: HostError = HostError(2);

impl Response for HookResponse<'_, '_> {
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError> {
        self.stream.with_headers(HeaderMap::Response, read).ok_or(NO_HEADERS)
    }

    fn edit(&mut self, edit: &Edit) -> Result<(), HostError> {
        let is_done = match edit {
            Edit::Remove(name) => self.stream.remove(HeaderMap::Response, name),
            Edit::Set(name, value) => self.stream.set(HeaderMap::Response, name.as_bytes(), value),
            Edit::Append(name, value) => self.stream.add(HeaderMap::Response, name.as_bytes(), value),
        };
        if is_done { Ok(()) } else { Err(NOT_EDITED) }
    }
}
