//! A refusal that was logged: its line is found by the problem document's `instance`, explained, and compared with what the
//! servers say now.
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use authn::config::Document;
use authn::policy::Policy;
use authn::reject::{Cause, RejectReason};
use authn::time::UnixSeconds;
use serde_json::{Map, Value};
use wire::{Answer, Kind, RevocationKey};

use super::report::{Judged, Verdict};
use crate::instant::date;
use crate::outcome::wrong_usage;
use crate::peers::Peers;
use crate::question::{self, Said};
use crate::suggest::closest;

/// What begins the line of a refused request, and of one that a rule only reports.
const REFUSED: &str = "portcullis: refused {";
const REPORTED: &str = "portcullis: reported {";
const INSTANCE: &str = "urn:portcullis:request:";
const FETCH: Duration = Duration::from_secs(10);

/// What the logs say of one refused request.
#[derive(Debug)]
pub struct Logged {
    members: Map<String, Value>,
    /// It was forwarded: its rule, or a condition of it, is not enforced.
    is_reported: bool,
}

/// The steps of an explanation.
type Steps = Vec<(&'static str, String)>;

impl Logged {
    /// `None`: the options name no request.
    ///
    /// # Errors
    /// A file cannot be read, or the request is not in it.
    pub fn find(problem: Option<&Path>, log: Option<&Path>, request: Option<&str>) -> Result<Option<Self>> {
        let problem = problem.map(read_problem).transpose()?;
        let instance = problem.as_ref().and_then(|it| it["instance"].as_str()?.strip_prefix(INSTANCE));
        let Some(log) = log else {
            // The document alone has the code.
            return Ok(problem.map(|problem| Self::of_problem(&problem)));
        };
        let Some(id) = request.or(instance) else {
            wrong_usage("--log needs --request-id, or a --problem with an `instance`");
        };
        let text = read(log)?;
        let Some(found) = Self::in_log(&text, id) else {
            bail!(
                "{} has no line of the request {id}: lines beyond ten in 100 ms are left out, and `faults.log` may be off",
                log.display()
            );
        };
        if let Some(code) = problem.as_ref().and_then(|problem| problem["code"].as_str()) {
            let logged = found.text("code").unwrap_or_default();
            ensure!(
                logged == code,
                "the problem document says {code}, and the log says {logged}: is it the same request?"
            );
        }
        Ok(Some(found))
    }

    fn of_problem(problem: &Value) -> Self {
        let code = problem["code"].clone();
        Self { members: Map::from_iter([("code".to_owned(), code)]), is_reported: false }
    }

    /// The line of the filter, else that of an access log.
    fn in_log(text: &str, id: &str) -> Option<Self> {
        let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).ok();
        let has_id = |members: &Map<String, Value>| members.get("request_id").is_some_and(|value| value == id);
        let ours = text.lines().filter_map(|line| {
            let of = |begins: &str| line.split_once(begins).map(|(_, rest)| rest);
            let (rest, is_reported) = of(REFUSED).map(|rest| (rest, false)).or(of(REPORTED).map(|rest| (rest, true)))?;
            // Something may follow the object, such as a thread's name.
            let mut values = serde_json::Deserializer::from_str(&line[line.len() - rest.len() - 1..]).into_iter();
            Some(Self { members: values.next()?.ok()?, is_reported })
        });
        if let Some(found) = ours.into_iter().find(|line| has_id(&line.members)) {
            return Some(found);
        }
        let mut lines = text.lines().filter_map(|line| object(line.trim()));
        let mut members = lines.find(|members| has_id(members) || members.values().any(|value| value == id))?;
        for (ours, theirs) in [("fault", "code"), ("details", "code"), ("session", "sid")] {
            if let (false, Some(value)) =
                (members.get(theirs).is_some_and(Value::is_string), members.get(ours).cloned())
            {
                members.insert(theirs.to_owned(), value);
            }
        }
        let is_reported = members.get("outcome").is_some_and(|outcome| outcome == "reported");
        Some(Self { members, is_reported })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.as_str()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.members.get(name)?.as_i64()
    }

    /// # Errors
    /// The line is not of a refusal.
    pub fn explain(
        &self,
        document: &Document,
        policy: Policy,
        peers: Option<&Peers>,
        now: UnixSeconds,
    ) -> Result<Judged> {
        let code = self.text("code").context("the request was not refused by the filter: its line has no `code`")?;
        let Some(reason) = RejectReason::ALL.iter().find(|reason| reason.code() == code) else {
            bail!("`{code}` is no code of the filter: see docs/faults.md");
        };
        let mut steps: Steps = Vec::new();
        for (name, value) in &self.members {
            let says = match value.as_u64().filter(|_| name == "at") {
                Some(at) => date(at),
                None => value.to_string(),
            };
            steps.push(("logged", format!("{name} {says}")));
        }
        self.compare(document, &mut steps);
        if let (None, Some(key)) = (peers, self.text("revocation")) {
            steps.push(("revocation", format!("`portcullis revoke show {key}` has who made it, when and why")));
        }
        if let Some(peers) = peers {
            self.ask(document, &policy, peers, now, &mut steps);
        }
        let cause = self.text("cause").and_then(|text| Cause::ALL.iter().find(|cause| cause.text() == text));
        let mut advice: Vec<String> = cause.iter().map(|cause| cause.advice().to_owned()).collect();
        advice.push(reason.advice().to_owned());
        advice.push(format!("see docs/faults.md#{}", code.to_ascii_lowercase()));
        let (code, cause) = (code.to_owned(), self.text("cause").map(str::to_owned));
        let verdict = Verdict::Logged { code, cause, advice, is_reported: self.is_reported };
        Ok(Judged { rule: self.text("rule").map(str::to_owned), steps, verdict })
    }

    /// The line with the configuration.
    fn compare(&self, document: &Document, steps: &mut Steps) {
        if let Some(issuer) = self.text("issuer")
            && self.text("cause") == Some(Cause::IssUnknown.text())
        {
            let names = document.issuers.iter().map(|issuer| issuer.issuer.as_str());
            let says = match closest(issuer, names) {
                Some(other) => format!("{issuer:?} is not configured; the closest is {other:?}"),
                None => format!("{issuer:?} is not configured, and no issuer resembles it"),
            };
            steps.push(("issuer", says));
        }
        if let (Some(expires), Some(skew)) = (self.number("expires_in"), self.number("skew")) {
            let passed = expires.saturating_neg();
            if passed > skew {
                steps.push(("times", format!("exp had passed for {passed}s, and skew allows {skew}s")));
            }
        }
        if let Some(age @ ..0) = self.number("age") {
            steps.push(("times", format!("iat was {}s ahead of Envoy's clock", age.saturating_neg())));
        }
    }

    /// The line with what the servers say now.
    fn ask(&self, document: &Document, policy: &Policy, peers: &Peers, now: UnixSeconds, steps: &mut Steps) {
        let key = |name: &str| self.text(name).and_then(|text| text.parse::<RevocationKey>().ok());
        let kind = self.text("revoked_by").and_then(|name| name.parse::<Kind>().ok());
        let named = [
            (kind.map_or("revocation", Kind::name), key("revocation")),
            ("user", key("subject").filter(|_| key("subject") != key("revocation"))),
        ];
        let named: Vec<(&str, RevocationKey)> =
            named.into_iter().filter_map(|(name, key)| Some((name, key?))).collect();
        if document.revocation.is_some() {
            let keys: Vec<RevocationKey> = named.iter().map(|(_, key)| *key).collect();
            match question::ask(document, policy, peers, &keys, now) {
                Said::Answered { answers, .. } if named.is_empty() => {
                    debug_assert!(!answers.is_empty());
                    steps.push(("revocation", "the service answers; the line has no key to ask about".to_owned()));
                }
                Said::Answered { answers, .. } => {
                    for ((name, key), answer) in named.iter().zip(answers) {
                        let says = match answer {
                            Answer::Live => "is not revoked now".to_owned(),
                            Answer::Dead => format!("is revoked: see `portcullis revoke show {key}`"),
                            Answer::Before(before) => {
                                let before = date(before);
                                format!("is revoked, for tokens issued before {before}: `portcullis revoke show {key}`")
                            }
                        };
                        steps.push(("revocation", format!("{name} {key} {says}")));
                    }
                }
                said => steps.push(("revocation", format!("the service cannot tell now: {}", said.trouble()))),
            }
        }
        if let Some(index) = self.text("issuer").and_then(|issuer| policy.issuer_index(issuer)) {
            self.ask_issuer(document, index, peers, steps);
        }
    }

    fn ask_issuer(&self, document: &Document, index: usize, peers: &Peers, steps: &mut Steps) {
        let (Some(issuer), Some(kid)) = (document.issuers.get(index), self.text("kid")) else { return };
        let says = match question::key_set(issuer, peers, FETCH) {
            None => return,
            Some(Err(why)) => format!("the key set cannot be fetched now: {why}"),
            Some(Ok(found)) if found.kids.iter().any(|other| other == kid) => format!("publishes the key {kid:?} now"),
            Some(Ok(found)) => {
                format!("does not publish the key {kid:?} now; it publishes {}", found.kids.join(", "))
            }
        };
        steps.push(("keys", says));
    }
}

fn read_problem(path: &Path) -> Result<Value> {
    let text = read(path)?;
    let problem: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    ensure!(problem["code"].is_string(), "{} is no problem document of the filter: it has no `code`", path.display());
    Ok(problem)
}

/// Logs may hold bytes that are not UTF-8.
fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVOY: &str = r#"[2026-11-28 20:00:00.000][7][warning][wasm] [x.cc:1] wasm log portcullis: portcullis: refused {"at":1,"request_id":"r-1","code":"JWT_EXPIRED","cause":"exp has passed"}
[2026-11-28 20:00:00.000][7][warning][wasm] [x.cc:1] wasm log portcullis: portcullis: refused {"left_out":3}
[2026-11-28 20:00:00.000][7][info][wasm] [x.cc:1] wasm log portcullis: portcullis: reported {"at":1,"request_id":"r-4","code":"SCOPE_INSUFFICIENT"}
{"request_id":"r-2","status":403,"fault":"SESSION_REVOKED","details":"SESSION_REVOKED"}"#;

    #[test]
    fn a_request_is_found_in_envoys_log_and_in_an_access_log() {
        let code = |id| Logged::in_log(ENVOY, id).map(|logged| logged.text("code").unwrap().to_owned());
        assert_eq!(code("r-1").as_deref(), Some("JWT_EXPIRED"));
        assert_eq!(code("r-2").as_deref(), Some("SESSION_REVOKED"));
        assert_eq!(code("r-3"), None);
        let is_reported = |id| Logged::in_log(ENVOY, id).unwrap().is_reported;
        assert_eq!(["r-1", "r-2", "r-4"].map(is_reported), [false, false, true]);
    }
}
