//! The issuers whose tokens a mesh accepts.

pub const ISSUER: &str = "https://issuer.example";
/// A second issuer, for tests that end all that an issuer issued.
pub const OTHER_ISSUER: &str = "https://other.example";
