//! What other filters and access logs of the proxy may read about a request.
use serde::Deserialize;

use super::OneOrMany;

document! {
    /// What the proxy's other filters and its access log may read about a request: `outcome`, `code`, `rule`, and of a
    /// verified token `issuer`, `subject`, `session`, `client` and the listed claims. docs/exposed.md says how to read
    /// them.
    #[derive(Default)]
    pub struct Expose {
        /// As dynamic metadata in the namespace `portcullis`, which also has the headers of `forward`. The Wasm host has
        /// no dynamic metadata, and ignores this. Default false.
        #[serde(default)]
        pub metadata: bool,
        /// As filter state under `portcullis.NAME`; the Wasm host puts `wasm.` before it. Default false.
        #[serde(default)]
        pub filter_state: bool,
        /// The form of `subject`. Default: `hashed`.
        #[serde(default)]
        pub subject: SubjectForm,
        /// Claims, each under `claim.NAME`. At most 16.
        #[serde(default)]
        pub claims: Vec<ExposedClaim>,
    }

    /// One claim that is exposed. A value that is not a string is exposed as JSON text; as dynamic metadata, an array of
    /// strings is a list.
    pub struct ExposedClaim {
        /// The claim: a name, or a list of names that selects a member of nested objects.
        pub claim: OneOrMany<String>,
        /// The name after `claim.`: letters, digits, `-`, `_`. Default: the claim's, the last of a list.
        pub name: Option<String>,
    }
}

choice! {
    /// The form of `subject`.
    #[derive(Default)]
    pub enum SubjectForm {
        /// The user's revocation key: an HMAC that needs the secret of `revocation`, and the name under which the user's
        /// revocation is stored. `portcullis explain` prints it. Without `revocation` there is no `subject`.
        #[default]
        Hashed,
        /// As in the token.
        Plain,
    }
}
