//! Why a revocation would end nothing, in words that help to correct it.
use wire::Kind;

/// More known issuers are not listed in an error.
const LISTED: usize = 5;
/// Known issuers that a misspelt one is compared with, at the most.
const COMPARED: usize = 256;

/// A revocation that would have no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// No filter asks about such an issuer, and it is not configured here.
    Issuer { issuer: String, hint: String },
    /// Filters check this issuer's tokens, but not this kind.
    Kind { issuer: String, kind: Kind },
}

impl Unknown {
    pub fn issuer(issuer: &str, known: impl Iterator<Item = String>) -> Self {
        let mut known: Vec<String> = known.collect();
        known.sort();
        known.dedup();
        Self::Issuer { issuer: issuer.to_owned(), hint: hint(issuer, &known) }
    }

    /// The field that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            Unknown::Issuer { .. } => "issuer",
            Unknown::Kind { .. } => "kind",
        }
    }

    /// What is wrong with it, and what to do.
    pub fn detail(&self) -> String {
        match self {
            Unknown::Issuer { issuer, hint } => format!(
                "is `{issuer}`, and no filter asks about such an issuer, so nothing would end{hint} `new_issuer: true` \
                 (--new-issuer) revokes it anyway"
            ),
            Unknown::Kind { issuer, kind: Kind::StepUp } => format!(
                "is `step_up`, and no filter asks for demands of a login of tokens of `{issuer}`, so nothing would change: set \
                 `revocation.step_up` of the filters. `new_issuer: true` (--new-issuer) demands it anyway"
            ),
            Unknown::Kind { issuer, kind } => format!(
                "is `{kind}`, and no filter asks about the {kind} of tokens of `{issuer}`, so nothing would end: see \
                 `revocation.kinds`, `provider` and `revocation_claims` of the filters. `new_issuer: true` (--new-issuer) \
                 revokes it anyway"
            ),
        }
    }
}

fn hint(issuer: &str, known: &[String]) -> String {
    let is_near = |known: &&String| known.len().abs_diff(issuer.len()) <= issuer.len() / 3;
    let alike = known.iter().filter(is_near).take(COMPARED);
    let alike = alike.map(|known| (strsim::normalized_damerau_levenshtein(issuer, known), known));
    let closest = alike.filter(|(alike, _)| *alike > 0.7).max_by(|(one, _), (other, _)| one.total_cmp(other));
    match (closest, known) {
        (Some((_, closest)), _) => format!("; did you mean `{closest}`?"),
        (None, []) => "; no filter has reported any issuer to this service yet.".to_owned(),
        (None, known) if known.len() <= LISTED => format!("; known are {}.", known.join(", ")),
        (None, known) => format!("; {} others are known.", known.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_issuer_is_answered_with_the_one_that_was_meant() {
        let detail = |issuer: &str, known: &[&str]| {
            Unknown::issuer(issuer, known.iter().map(|known| (*known).to_owned())).detail()
        };
        let known = ["https://idp.example.com", "https://other.test/realms/x"];
        for wrong in ["https://idp.example.com/", "http://idp.example.com", "https://idp.exmaple.com"] {
            assert!(detail(wrong, &known).contains("did you mean `https://idp.example.com`?"), "{wrong}");
        }
        assert!(detail("me", &known).contains("known are https://idp.example.com, https://other.test/realms/x. "));
        assert!(detail("me", &[]).contains("no filter has reported"));
    }
}
