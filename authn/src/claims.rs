//! Claims and their judgement: members, times, scopes, conditions, logins, kinds of tokens, identifiers. Independent of the issuer.
pub(crate) mod condition;
pub(crate) mod identifiers;
pub(crate) mod members;
pub(crate) mod provider;
pub(crate) mod scopes;
pub(crate) mod step_up;
pub(crate) mod tenants;
pub(crate) mod token_kind;
pub(crate) mod window;
