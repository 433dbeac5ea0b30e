//! The stored types: the note beside a revocation, a session, and the keys that name and encrypt them.
pub mod field_error;
pub mod json;
pub mod note;
pub mod session;
pub mod session_keys;
pub mod status_list;
