//! The driver's response in Wasm: the answer to one request, through host calls on its context.
use authn::browser::Edit;
use authn::request::Pair;
use driver::HostError;

use crate::host::{self, MapType};
use crate::pairs;

/// The answer that the callback is about.
pub struct Response;

impl driver::Response for Response {
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError> {
        let buffer = host::header_map(MapType::HttpResponseHeaders)?;
        let pairs = pairs::read(&buffer).ok_or(host::INTERNAL_FAILURE)?;
        Ok(read(&pairs))
    }

    fn edit(&mut self, edit: &Edit) -> Result<(), HostError> {
        match edit {
            Edit::Remove(name) => host::remove_header(MapType::HttpResponseHeaders, name),
            Edit::Set(name, value) => host::set_header(MapType::HttpResponseHeaders, name.as_bytes(), value),
            Edit::Append(name, value) => host::add_header(MapType::HttpResponseHeaders, name.as_bytes(), value),
        }
    }
}
