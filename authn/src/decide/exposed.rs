//! What is exposed of a verified token to the proxy's other filters and its access log.
use std::sync::Arc;

use jose::json::{Json, Object};
use wire::Kind;

use super::Verified;
use crate::claims::identifiers::Identifiers;
use crate::config::SubjectForm;
use crate::policy::Policy;

/// Facts of one token, by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Exposed {
    facts: Vec<(Name, Fact)>,
}

/// The value of a fact.
#[derive(Debug, PartialEq, Eq)]
pub struct Fact {
    /// A string, or JSON.
    pub text: String,
    /// The members of an array of strings.
    pub list: Option<Vec<String>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Fixed(&'static str),
    Claim(Arc<str>),
}

impl Policy {
    /// Only for verified claims. `None` if nothing is exposed.
    pub(super) fn expose(&self, issuer: &str, identifiers: &Identifiers, claims: &Object<'_>) -> Option<Arc<Exposed>> {
        let exposure = self.exposure.as_ref()?;
        let mut facts = vec![(Name::Fixed("issuer"), Fact::text(issuer))];
        // Claims of another type were refused before, or are not this issuer's identifiers.
        let identifier = |kind| identifiers.find(kind, claims).ok().flatten();
        if let Some(user) = identifier(Kind::User) {
            let text = match exposure.subject {
                SubjectForm::Plain => Some(user.to_owned()),
                SubjectForm::Hashed => self.revocation().map(|revocation| {
                    revocation.derived.revocation_key(Kind::User, issuer, user.as_bytes()).to_string()
                }),
            };
            facts.extend(text.map(|text| (Name::Fixed("subject"), Fact { text, list: None })));
        }
        for (name, kind) in [("session", Kind::Session), ("client", Kind::Client)] {
            facts.extend(identifier(kind).map(|id| (Name::Fixed(name), Fact::text(id))));
        }
        for (name, path) in &exposure.claims {
            let value = path.split_first().and_then(|(first, rest)| claims.claim(first)?.path(rest));
            facts.extend(value.map(|value| (Name::Claim(Arc::clone(name)), Fact::of(value))));
        }
        Some(Arc::new(Exposed { facts }))
    }
}

impl Verified {
    /// What is exposed of it, if the document exposes anything.
    pub fn exposed(&self) -> Option<&Arc<Exposed>> {
        self.exposed.as_ref()
    }
}

impl Exposed {
    pub fn facts(&self) -> impl Iterator<Item = (&str, &Fact)> {
        self.facts.iter().map(|(name, fact)| match name {
            Name::Fixed(name) => (*name, fact),
            Name::Claim(name) => (&**name, fact),
        })
    }
}

impl Fact {
    fn text(text: &str) -> Self {
        Self { text: text.to_owned(), list: None }
    }

    fn of(value: &Json<'_>) -> Self {
        let Json::String(text) = value else {
            let strings = |members: &[Json<'_>]| members.iter().map(|one| one.as_str().map(str::to_owned)).collect();
            return Self { text: value.to_text(), list: value.as_array().and_then(strings) };
        };
        Self::text(text)
    }
}
