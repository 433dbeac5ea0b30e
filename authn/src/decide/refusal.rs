//! The answer to a refused client: status, headers and a problem document (RFC 9457), never the cause.
use crate::claims::step_up::StepUp;
use crate::dpop::SCHEME;
use crate::policy::{Policy, Rule};
use crate::reject::RejectReason;

/// A local answer, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Policy {
    /// `rule` is the one that refused, if a rule was reached. `request` identifies the request, in characters that a URN
    /// may have; it becomes the document's `instance` (RFC 9457 section 3.1.5).
    pub fn refusal(&self, reason: RejectReason, rule: Option<usize>, request: Option<&str>) -> Refusal {
        let status = self.faults.status(reason);
        let mut headers = vec![
            ("content-type", "application/problem+json".to_owned()),
            // A refusal is about this moment: a cache must not serve it after the next login.
            ("cache-control", "no-store".to_owned()),
        ];
        if status == 401 || reason.challenge_error().is_some() {
            let rule = rule.and_then(|rule| self.rules.get(rule));
            headers.push(("www-authenticate", self.challenge(reason, rule)));
        }
        if status == 503 {
            headers.push(("retry-after", RETRY_AFTER_SECONDS.to_owned()));
        }
        let code = reason.code();
        let kind = code.to_ascii_lowercase().replace('_', "-");
        let instance = request.map(|id| format!(r#","instance":"urn:portcullis:request:{id}""#)).unwrap_or_default();
        let body = format!(
            r#"{{"type":"urn:portcullis:fault:{kind}","title":"{}","status":{status},"code":"{code}"{instance}}}"#,
            reason.text()
        );
        Refusal { status, headers, body }
    }

    /// RFC 6750 section 3, RFC 9449 section 7.1. Values are ours or validated at load: none needs quoting.
    fn challenge(&self, reason: RejectReason, rule: Option<&Rule>) -> String {
        let attributes = self.challenge_attributes(reason, rule);
        let challenge = |scheme: &str, attributes: &[String]| match attributes {
            [] => scheme.to_owned(),
            attributes => format!("{scheme} {}", attributes.join(", ")),
        };
        let asked = rule.and_then(|rule| rule.dpop.as_ref());
        let Some((dpop, asked)) = self.dpop.as_ref().zip(asked) else { return challenge("Bearer", &attributes) };
        let algs = std::iter::once(format!("algs=\"{}\"", dpop.algs()));
        let bound = challenge(SCHEME, &attributes.iter().cloned().chain(algs).collect::<Vec<_>>());
        // A client that has a bearer token alone needs to know whether it can be used here.
        if asked.required || reason.is_about_dpop() {
            return bound;
        }
        format!("{}, {bound}", challenge("Bearer", &attributes))
    }

    fn challenge_attributes(&self, reason: RejectReason, rule: Option<&Rule>) -> Vec<String> {
        let mut attributes = Vec::new();
        if let Some(realm) = &self.faults.realm {
            attributes.push(format!("realm=\"{realm}\""));
        }
        if let Some(error) = reason.challenge_error() {
            attributes.push(format!("error=\"{error}\""));
            let step_up = match reason {
                RejectReason::StepUpRequired => rule.and_then(|rule| rule.step_up.as_ref()),
                RejectReason::StepUpDemanded => self.revocation().and_then(|revocation| revocation.step_up.as_ref()),
                _ => None,
            };
            let description = step_up.map_or(reason.text(), StepUp::description);
            attributes.push(format!("error_description=\"{description}\""));
            attributes.extend(step_up.into_iter().flat_map(StepUp::parameters));
        }
        if let (RejectReason::ScopeInsufficient, Some(rule)) = (reason, rule) {
            let scopes: Vec<&str> = rule.scopes.all.iter().chain(&rule.scopes.any).map(String::as_str).collect();
            attributes.push(format!("scope=\"{}\"", scopes.join(" ")));
        }
        attributes
    }
}

/// Long enough not to add load, short enough to be useful after a failover.
const RETRY_AFTER_SECONDS: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    // A client that gets `insufficient_scope` asks for scopes, and one that gets `invalid_token` requests a new token:
    // neither brings a role, and both come back at once.
    #[test]
    fn a_claim_that_does_not_suffice_is_no_reason_to_fetch_a_token() {
        for statuses in ["distinct", "rfc6750"] {
            let text = format!(
                r#"{{"issuers":[{{"issuer":"i","audiences":"any","algorithms":["HS256"],"keys":[{{"secret_env":"S"}}]}}],
                "rules":[{{"access":"required"}}],"faults":{{"statuses":"{statuses}"}}}}"#
            );
            let policy = Policy::from_json(text.as_bytes(), &|_| Some(vec![1; 32])).unwrap();
            let refusal = policy.refusal(RejectReason::ClaimInsufficient, Some(0), None);
            assert_eq!(refusal.status, 403, "{statuses}");
            assert!(refusal.headers.iter().all(|(name, _)| *name != "www-authenticate"), "{statuses}");
            let scope = policy.refusal(RejectReason::ScopeInsufficient, Some(0), Some("r-1"));
            assert!(scope.body.ends_with(r#""instance":"urn:portcullis:request:r-1"}"#), "{}", scope.body);
            assert!(scope.headers.iter().any(|(_, value)| value.contains("insufficient_scope")), "{statuses}");
        }
    }
}
