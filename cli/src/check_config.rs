//! `portcullis check-config`: reports the errors that the filter would report, before Envoy loads the configuration.
use std::path::PathBuf;

use anyhow::Result;
use authn::config::{
    Audiences, Document, Invalid, Match, Mode, OpaqueFormat, PathMatch, RevocationMode, Rule, Tenants,
};
use clap::Args;
use serde_json::json;

use crate::document::{self, Compiled, Found, Secrets};
use crate::outcome::{Outcome, say};
use crate::surroundings::Remark;
use crate::{kept_long_enough, known_issuers};

#[derive(Args)]
pub struct CheckConfig {
    /// JSON or YAML: the configuration itself, or an Envoy bootstrap, an EnvoyExtensionPolicy of Envoy Gateway, or a
    /// WasmPlugin, TrafficExtension or EnvoyFilter of Istio that contains it; `-` for standard input.
    file: PathBuf,
    #[command(flatten)]
    secrets: Secrets,
    /// Also ask this service (its --listen URL) whether its retention is long enough for these tokens. Needs the secret
    /// in the environment.
    #[arg(long, value_name = "URL")]
    service: Option<String>,
    /// One JSON document:
    /// `{"file", "ok", "configurations": [{"place", "ok", "error" and "more_errors", or "issuers", "rules", …, "around": [{"error", "field", "message"}]}]}`.
    /// `around` is about the file that contains the configuration.
    #[arg(long)]
    json: bool,
}

impl CheckConfig {
    pub fn run(self) -> Result<Outcome> {
        let mut found = document::read(&self.file, &self.secrets)?;
        if let Some(url) = &self.service {
            for found in &mut found {
                let remarks = found.compiled.as_ref().map(|compiled| kept_long_enough::remarks(compiled, url));
                found.remarks.extend(remarks.unwrap_or_default());
            }
        }
        let is_ok = found.iter().all(Found::is_ok);
        let file = self.file.display().to_string();
        if self.json {
            let configurations: Vec<_> = found.iter().map(as_json).collect();
            say(&json!({ "file": file, "ok": is_ok, "configurations": configurations }).to_string());
        } else {
            for found in &found {
                print(&file, found);
            }
        }
        Ok(if is_ok { Outcome::Done } else { Outcome::Refused })
    }
}

fn print(file: &str, found: &Found) {
    let place = found.place.as_ref().map_or_else(|| file.to_owned(), |place| format!("{file}: {place}"));
    match &found.compiled {
        Ok(compiled) => {
            let Counts { issuers, keys, introspection, rules, revocation } = Counts::of(compiled);
            let revocation = if revocation { "revocation" } else { "no revocation" };
            let opaque = match introspection {
                0 => String::new(),
                servers => format!("{servers} introspection servers, "),
            };
            say(&format!("{place}: ok: {issuers} issuers, {keys} keys, {opaque}{rules} rules, {revocation}"));
            for name in &compiled.assumed {
                say(&format!("{place}: note: the secret `{name}` is a placeholder"));
            }
            for Warning { field, message } in warnings(&compiled.document) {
                say(&format!("{place}: warning: {field}: {message}"));
            }
        }
        Err(invalid) => {
            for invalid in std::iter::once(invalid).chain(&found.more) {
                eprintln!("{place}: error: {invalid}");
            }
            if !found.missing.is_empty() {
                eprintln!("{place}: note: set it in this command's environment too, or use --assume-secrets");
            }
        }
    }
    for Remark { is_error, field, message } in &found.remarks {
        match is_error {
            true => eprintln!("{file}: error: {field}: {message}"),
            false => say(&format!("{file}: warning: {field}: {message}")),
        }
    }
}

fn as_json(found: &Found) -> serde_json::Value {
    let remark =
        |remark: &Remark| json!({ "error": remark.is_error, "field": remark.field, "message": remark.message });
    let mut answer = configuration_as_json(found);
    answer["ok"] = found.is_ok().into();
    answer["around"] = found.remarks.iter().map(remark).collect();
    answer
}

fn configuration_as_json(found: &Found) -> serde_json::Value {
    match &found.compiled {
        Ok(compiled) => {
            let Counts { issuers, keys, introspection, rules, revocation } = Counts::of(compiled);
            let warnings: Vec<_> = warnings(&compiled.document)
                .into_iter()
                .map(|Warning { field, message }| json!({ "field": field, "message": message }))
                .collect();
            json!({
                "place": found.place, "ok": true, "issuers": issuers, "keys": keys,
                "introspection_servers": introspection, "rules": rules,
                "revocation": revocation, "assumed_secrets": compiled.assumed, "warnings": warnings,
            })
        }
        Err(invalid) => {
            let error = |invalid: &Invalid| json!({ "field": invalid.field, "message": invalid.message });
            let more: Vec<_> = found.more.iter().map(error).collect();
            json!({ "place": found.place, "ok": false, "error": error(invalid), "more_errors": more })
        }
    }
}

struct Counts {
    issuers: usize,
    keys: usize,
    introspection: usize,
    rules: usize,
    revocation: bool,
}

impl Counts {
    fn of(compiled: &Compiled) -> Self {
        let issuers = &compiled.document.issuers;
        Self {
            issuers: issuers.len(),
            keys: issuers.iter().map(|issuer| issuer.keys.len()).sum(),
            introspection: issuers.iter().filter(|issuer| issuer.introspection.is_some()).count(),
            rules: compiled.policy.rules().len(),
            revocation: compiled.policy.revocation().is_some(),
        }
    }
}

/// The filter accepts it, but a reader should look at it.
struct Warning {
    field: String,
    message: String,
}

fn warnings(document: &Document) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |field: String, message: String| warnings.push(Warning { field, message });
    for (place, issuer) in document.issuers.iter().enumerate() {
        if let Audiences::Any(_) = issuer.audiences {
            let message = "tokens for other services are accepted";
            warn(format!("issuers[{place}].audiences"), message.to_owned());
        }
        for (field, message) in known_issuers::remarks(issuer) {
            warn(format!("issuers[{place}].{field}"), message);
        }
        if let Some(Tenants::Any(_)) = issuer.tenants {
            let message = "users of every tenant of the provider are accepted: let rules check the tenant";
            warn(format!("issuers[{place}].tenants"), message.to_owned());
        }
        let format = issuer.introspection.as_ref().and_then(|introspection| introspection.format.as_ref());
        if let Some(OpaqueFormat::Shape(shape)) = format
            && shape.prefix.is_empty()
        {
            let message = "every made-up token in this alphabet causes an introspection request";
            warn(format!("issuers[{place}].introspection.format.shape.prefix"), format!("is empty: {message}"));
        }
    }
    if !document.tokens.query.is_empty() {
        let message = "tokens in URLs end up in logs, histories and Referer headers before they reach the filter";
        warn("tokens.query".to_owned(), message.to_owned());
    }
    if document.revocation.is_none() {
        warn("revocation".to_owned(), "is absent: a revoked session passes until its token expires".to_owned());
    }
    if document.mode == Mode::Report {
        warn("mode".to_owned(), "no rule is enforced: requests that would be refused pass without identity".to_owned());
    }
    for (place, rule) in document.rules.iter().enumerate() {
        let at = |field: &str| format!("rules[{place}]{field}");
        if let Some(earlier) =
            document.rules.iter().take(place).position(|earlier| covers(&earlier.matches, &rule.matches))
        {
            warn(at(""), format!("is never reached: rules[{earlier}] matches every request that this one does"));
        }
        if rule.revocation == Some(RevocationMode::DangerouslyPassWhenUnavailable) {
            let message = "revoked sessions pass while the service or its store is unreachable";
            warn(at(".revocation"), message.to_owned());
        }
        if rule.mode == Mode::Report {
            warn(at(".mode"), "requests that the rule refuses are reported and pass without identity".to_owned());
        }
        for (field, mode) in condition_modes(rule) {
            if mode == Mode::Report {
                warn(at(&format!(".{field}")), "a mismatch is reported and passes".to_owned());
            }
        }
    }
    warnings
}

fn condition_modes(rule: &Rule) -> impl Iterator<Item = (String, Mode)> {
    let binding = &rule.binding;
    let named = [
        ("scopes", Some(rule.scopes.mode)),
        ("step_up", rule.step_up.as_ref().map(|step_up| step_up.mode)),
        ("binding.certificate", binding.certificate.as_ref().map(|binding| binding.mode)),
        ("binding.address", binding.address.as_ref().map(|binding| binding.mode)),
        ("binding.user_agent", binding.user_agent.as_ref().map(|binding| binding.mode)),
    ];
    let named = named.into_iter().filter_map(|(field, mode)| Some((field.to_owned(), mode?)));
    named.chain(rule.claims.iter().enumerate().map(|(index, claim)| (format!("claims[{index}]"), claim.mode)))
}

/// Does `wide` match everything that `narrow` matches? True is certain. It does not detect several rules that only
/// together cover another one.
fn covers(wide: &Match, narrow: &Match) -> bool {
    let lists = |wide: &Option<Vec<String>>, narrow: &Option<Vec<String>>| match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|one| wide.iter().any(|other| other.eq_ignore_ascii_case(one))),
    };
    lists(&wide.methods, &narrow.methods) && lists(&wide.hosts, &narrow.hosts) && path_covers(wide, narrow)
}

fn path_covers(wide: &Match, narrow: &Match) -> bool {
    let is_below = |prefix: &str, path: &str| {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (&wide.path, &narrow.path) {
        (None, _) => true,
        (Some(PathMatch::Prefix(prefix)), None) => prefix == "/",
        (Some(PathMatch::Prefix(prefix)), Some(PathMatch::Exact(path))) => is_below(prefix, path),
        (Some(PathMatch::Prefix(prefix)), Some(PathMatch::Prefix(path))) => {
            is_below(prefix, path.strip_suffix('/').unwrap_or(path))
        }
        (Some(PathMatch::Exact(one)), Some(PathMatch::Exact(other))) => one == other,
        (Some(PathMatch::Exact(_)), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str) -> Match {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_rule_is_covered_only_by_one_that_matches_all_of_it() {
        let covered = [
            (r#"{}"#, r#"{"path":{"exact":"/a"}}"#),
            (r#"{"path":{"prefix":"/"}}"#, r#"{}"#),
            (r#"{"path":{"prefix":"/a/"}}"#, r#"{"path":{"exact":"/a"}}"#),
            (r#"{"path":{"prefix":"/a"}}"#, r#"{"path":{"prefix":"/a/"}}"#),
            (r#"{"path":{"prefix":"/a"}}"#, r#"{"path":{"prefix":"/a/b"},"methods":["GET"]}"#),
            (r#"{"methods":["GET","PUT"]}"#, r#"{"methods":["PUT"],"hosts":["h"]}"#),
        ];
        for (wide, narrow) in covered {
            assert!(covers(&matches(wide), &matches(narrow)), "{wide} {narrow}");
        }
        let open = [
            (r#"{"path":{"prefix":"/a"}}"#, r#"{"path":{"exact":"/ab"}}"#),
            (r#"{"path":{"prefix":"/a/b"}}"#, r#"{"path":{"prefix":"/a"}}"#),
            (r#"{"path":{"exact":"/a"}}"#, r#"{"path":{"prefix":"/a"}}"#),
            (r#"{"path":{"exact":"/a"}}"#, r#"{"path":{"exact":"/a/"}}"#),
            (r#"{"path":{"exact":"/a"}}"#, r#"{"path":{"exact":"/A"}}"#),
            (r#"{"methods":["GET"]}"#, r#"{"methods":["GET","HEAD"]}"#),
            (r#"{"hosts":["h"]}"#, r#"{}"#),
        ];
        for (wide, narrow) in open {
            assert!(!covers(&matches(wide), &matches(narrow)), "{wide} {narrow}");
        }
    }
}
