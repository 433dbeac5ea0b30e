//! The verdict on a request, as text and as JSON.
use authn::reject::Rejection;
use serde_json::{Value, json};

/// The verdict, and the steps that led to it.
pub struct Judged {
    /// The rule's name.
    pub rule: Option<String>,
    /// Each step's name and description.
    pub steps: Vec<(&'static str, String)>,
    pub verdict: Verdict,
}

pub enum Verdict {
    /// By the filter itself.
    Answered,
    Admitted {
        how: How,
        changes: Vec<Change>,
    },
    /// Its rule would refuse it and only reports that. It is forwarded without identity.
    Reported {
        rejection: Rejection,
        changes: Vec<Change>,
    },
    /// A refusal that was logged.
    Logged {
        code: String,
        cause: Option<String>,
        advice: Vec<String>,
        /// It was forwarded: its rule, or a condition of it, is not enforced.
        is_reported: bool,
    },
    Refused {
        rejection: Rejection,
        reply: Reply,
    },
}

/// What an admission is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Plainly,
    /// The rule looks at no token.
    Open,
    /// The service was not asked.
    UnlessRevoked,
    /// The service could not answer, and the rule admits such requests.
    Unchecked,
}

impl How {
    fn verdict(self) -> &'static str {
        match self {
            How::Plainly | How::Open => "admitted",
            How::UnlessRevoked => "admitted_unless_revoked",
            How::Unchecked => "admitted_unchecked",
        }
    }
}

/// A reply of the filter's own.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// One change to the request before it is forwarded.
pub enum Change {
    Clear(String),
    Cut(&'static str),
    SetPayload(String),
    /// No value: it must not be shown.
    Set {
        name: String,
        value: Option<String>,
    },
}

impl Change {
    fn text(&self) -> String {
        match self {
            Change::Clear(name) => format!("removes the header {}", name.escape_debug()),
            Change::Cut(what) => format!("removes {what}"),
            Change::SetPayload(name) => format!("sets {name} (the token's payload, never shown)"),
            Change::Set { name, value: Some(value) } => format!("sets {name}: {value}"),
            Change::Set { name, value: None } => format!("sets {name} (its value with --show-claims)"),
        }
    }

    fn as_json(&self) -> Value {
        match self {
            Change::Clear(name) => json!({ "remove_header": name }),
            Change::Cut(what) => json!({ "remove": what }),
            Change::SetPayload(name) => json!({ "set_header": name, "value": null }),
            Change::Set { name, value } => json!({ "set_header": name, "value": value }),
        }
    }
}

impl Judged {
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.steps.iter().map(|(step, says)| format!("{step:<12} {says}")).collect();
        match &self.verdict {
            Verdict::Answered => lines.push("answered".into()),
            Verdict::Admitted { how, changes } => {
                lines.push(how.verdict().replace('_', " "));
                lines.extend(changes.iter().map(|change| format!("  {}", change.text())));
            }
            Verdict::Reported { rejection, changes } => {
                lines.push(format!("reported {}, and forwarded without identity", rejection.reason.code()));
                lines.push(format!("  cause: {rejection}"));
                lines.extend(changes.iter().map(|change| format!("  {}", change.text())));
            }
            Verdict::Logged { code, cause, advice, is_reported } => {
                lines.push(if *is_reported {
                    format!("reported {code}, and forwarded")
                } else {
                    format!("refused {code}")
                });
                lines.extend(cause.iter().map(|cause| format!("  cause: {cause}")));
                lines.extend(advice.iter().map(|advice| format!("  {advice}")));
            }
            Verdict::Refused { rejection, reply } => {
                lines.push(format!("refused {} {}", rejection.reason.code(), reply.status));
                lines.push(format!("  cause: {rejection}"));
                lines.push("  the client sees:".into());
                lines.extend(reply.headers.iter().map(|(name, value)| format!("    {name}: {value}")));
                lines.push(format!("    {}", reply.body));
            }
        }
        lines
    }

    pub fn as_json(&self) -> Value {
        let Self { rule, steps, verdict } = self;
        let steps: Vec<Value> = steps.iter().map(|(step, says)| json!({ "step": step, "says": says })).collect();
        match verdict {
            Verdict::Answered => json!({ "verdict": "answered", "rule": rule, "steps": steps }),
            Verdict::Admitted { how, changes } => {
                let forward: Vec<Value> = changes.iter().map(Change::as_json).collect();
                json!({ "verdict": how.verdict(), "rule": rule, "steps": steps, "forward": forward })
            }
            Verdict::Reported { rejection, changes } => {
                let forward: Vec<Value> = changes.iter().map(Change::as_json).collect();
                json!({
                    "verdict": "reported", "rule": rule, "steps": steps, "forward": forward,
                    "code": rejection.reason.code(), "cause": rejection.to_string(),
                })
            }
            Verdict::Logged { code, cause, advice, is_reported } => json!({
                "verdict": if *is_reported { "reported" } else { "refused" }, "rule": rule, "steps": steps, "code": code, "cause": cause, "advice": advice,
            }),
            Verdict::Refused { rejection, reply } => {
                let headers: Vec<Value> =
                    reply.headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
                let body = serde_json::from_str(&reply.body).unwrap_or_else(|_| Value::String(reply.body.clone()));
                json!({
                    "verdict": "refused", "rule": rule, "steps": steps,
                    "code": rejection.reason.code(), "status": reply.status, "cause": rejection.to_string(),
                    "refusal": { "headers": headers, "body": body },
                })
            }
        }
    }
}
