//! Introspection answers that are kept for longer than others, while the feed of revocations is fresh.
use wire::Kind;

use crate::config::{self, ConfigDuration, Invalid, OpaqueFormat};
use crate::introspection::LONGEST_FRESHNESS;
use crate::revocation::Revocation;

/// The end of a token must reach the filter by the feed, whatever ends it: only our own service does that.
pub(super) fn check_kept(document: &config::Document, revocation: Option<&Revocation>) -> Result<(), Invalid> {
    for (index, issuer) in document.issuers.iter().enumerate() {
        let Some(server) = issuer.introspection.as_ref().filter(|it| it.freshness > ConfigDuration(LONGEST_FRESHNESS))
        else {
            continue;
        };
        let needs = [
            (
                matches!(server.format, Some(OpaqueFormat::Portcullis)),
                "`format: portcullis`, since the feed has the ends of our own service's sessions only",
            ),
            (revocation.is_some_and(|it| it.feed.is_some()), "`revocation.feed`"),
            (
                revocation.is_some_and(|it| it.cluster == server.cluster),
                "the cluster of `revocation`, since another service's feed does not have these sessions",
            ),
            (
                revocation
                    .is_some_and(|it| Kind::ALL.iter().all(|kind| *kind == Kind::StepUp || it.kinds.contains(kind))),
                "all of `revocation.kinds`",
            ),
            (issuer.revocation_claims.is_none(), "the default `revocation_claims`"),
        ];
        if let Some((_, need)) = needs.iter().find(|(is_met, _)| !is_met) {
            let at = format!("issuers[{index}].introspection.freshness");
            return Err(Invalid::new(at, format!("more than 5s needs {need}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::policy::Policy;

    fn document() -> Value {
        json!({
            "issuers": [{ "issuer": "https://sessions.example", "audiences": ["api"], "introspection": {
                "cluster": "sessions", "path": "/oauth2/introspect", "client_auth": "none", "format": "portcullis",
                "freshness": "60s",
            } }],
            "revocation": { "cluster": "sessions", "secret_env": "SECRET", "feed": {} },
            "rules": [{ "access": "required" }],
        })
    }

    fn refused(edit: impl FnOnce(&mut Value)) -> Option<String> {
        let mut document = document();
        edit(&mut document);
        let secret = |_: &str| Some(b"a secret of at least 32 bytes, shared".to_vec());
        Policy::from_json(document.to_string().as_bytes(), &secret).err().map(|invalid| invalid.to_string())
    }

    #[test]
    fn only_answers_whose_end_is_pushed_are_kept_for_longer() {
        assert_eq!(refused(|_| ()), None);
        let at = "issuers[0].introspection.freshness: ";
        type Edit = fn(&mut Value);
        let edits: [(Edit, &str); 6] = [
            (|it| it["issuers"][0]["introspection"]["freshness"] = "61s".into(), ""),
            (
                |it| it["issuers"][0]["introspection"]["format"] = json!({ "shape": { "prefix": "op_" } }),
                "more than 5s needs `format: portcullis`",
            ),
            (|it| it["revocation"]["feed"] = Value::Null, "more than 5s needs `revocation.feed`"),
            (|it| it["revocation"]["cluster"] = "other".into(), "more than 5s needs the cluster of `revocation`"),
            (|it| it["revocation"]["kinds"] = json!(["session"]), "more than 5s needs all of `revocation.kinds`"),
            (
                |it| it["issuers"][0]["revocation_claims"] = json!({ "session": "sess" }),
                "more than 5s needs the default `revocation_claims`",
            ),
        ];
        for (edit, why) in edits {
            let refused = refused(edit).unwrap();
            assert!(refused.starts_with(&format!("{at}{why}")), "{refused}");
        }
        let short = |it: &mut Value| {
            it["issuers"][0]["introspection"]["freshness"] = "5s".into();
            it["revocation"]["feed"] = Value::Null;
        };
        assert_eq!(refused(short), None);
    }
}
