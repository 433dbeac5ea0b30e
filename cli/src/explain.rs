//! `portcullis explain`: sends one request through the filter's own driver, and prints each step. It makes no decision
//! itself. With `--live`, the servers that the filter asks give the answers; without, the options do. It can also begin
//! with a refusal that was logged.
//!
//! Tokens, signatures and keys are never printed. Of claims, only the registered ones (RFC 7519 section 4.1) are
//! printed with their values, unless `--show-claims` is given.
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use authn::config::Document;
use authn::reject::Rejection;
use authn::time::UnixSeconds;
use clap::{ArgGroup, Args, Parser};
use wire::check::StoreError;

use crate::document::{self, Compiled, Secrets};
use crate::instant;
use crate::loaded;
use crate::outcome::{Outcome, say, wrong_usage};
use crate::peers::{PeerArgs, Peers};
use crate::standard_input;

mod callouts;
mod exchange;
mod judge;
mod logged;
mod report;
mod steps;
#[cfg(test)]
mod tests;

use callouts::Callouts;
use logged::Logged;
use report::{How, Judged, Verdict};

#[derive(Args)]
#[command(group = ArgGroup::new("where").required(true).multiple(true).args(["config", "envoy"]))]
pub struct Explain {
    /// The filter's configuration, as for `check-config`. Default: the one that --envoy has loaded.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    secrets: Secrets,
    /// A token. It is put into the first place that the configuration names. `-` reads it from standard input, where no
    /// other user of this machine sees it. Without it, the request is as the other options describe.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// In upper case.
    #[arg(long, default_value = "GET")]
    method: String,
    /// The path with its query, as Envoy passes it to the filter.
    #[arg(long, default_value = "/")]
    path: String,
    /// The host, with or without a port.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// A header of the request. Repeatable. With the header `DPoP`, --token goes under the scheme of the same name.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The time of the request: seconds since 1970, a time such as 2026-01-31T23:59:59Z, or now.
    #[arg(long, value_name = "TIME", default_value = "now", value_parser = instant::parse)]
    at: UnixSeconds,
    /// The session service's answer, if it is asked: live, dead, before:TIME (revoked if issued before), unavailable
    /// (no answer), or the reason that the service gives for not answering, such as store_slow (see docs/faults.md).
    /// Without it, a request that needs an answer is `admitted unless revoked`.
    #[arg(long, value_name = "ANSWER")]
    answer: Option<Answer>,
    /// Ask the service, the introspection servers and the issuers, as the filter would.
    #[arg(long, conflicts_with_all = ["answer", "introspection", "jwks"])]
    live: bool,
    #[command(flatten)]
    peers: PeerArgs,
    /// A file with the problem document that a client was given, `-` for standard input. Its `instance` names the
    /// request. Without a token, the refusal itself is explained, from its line in --log.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["path", "method", "host"])]
    problem: Option<PathBuf>,
    /// A file with Envoy's log or access log, to find the request in; `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["path", "method", "host"])]
    log: Option<PathBuf>,
    /// The id of the request in --log, instead of that of --problem.
    #[arg(long, value_name = "ID", requires = "log", conflicts_with = "problem")]
    request_id: Option<String>,
    /// A file with the introspection server's JSON response (RFC 7662 section 2.2), if it is asked. Without it, the
    /// server counts as unavailable.
    #[arg(long, value_name = "FILE")]
    introspection: Option<PathBuf>,
    /// The client's address, for rules that bind tokens to it.
    #[arg(long, value_name = "ADDRESS")]
    client_address: Option<IpAddr>,
    /// The SHA-256 of the client's certificate in hexadecimal, for rules that bind tokens to it.
    #[arg(long, value_name = "HEX")]
    client_certificate_sha256: Option<String>,
    /// The key set of an issuer whose keys are fetched: its name in the configuration, and a file with the published
    /// document. Without it, such an issuer has no keys here.
    #[arg(long, value_name = "ISSUER=FILE")]
    jwks: Vec<String>,
    /// Show the values of all claims, and of the headers made from them.
    #[arg(long)]
    show_claims: bool,
    /// One JSON document: `{"verdict", "rule", "steps", "forward" or "refusal"}`; neither of the last two if the filter
    /// itself answers. The verdict is `admitted`, `admitted_unless_revoked`, `admitted_unchecked`, `reported`, `answered`
    /// or `refused`.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Service(wire::Answer),
    /// The service says that it cannot tell.
    Fails(StoreError),
    Unavailable,
}

impl FromStr for Answer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "live" => Ok(Self::Service(wire::Answer::Live)),
            "dead" => Ok(Self::Service(wire::Answer::Dead)),
            "unavailable" => Ok(Self::Unavailable),
            _ => {
                if let Some(error) = StoreError::ALL.iter().find(|error| error.name() == text) {
                    return Ok(Self::Fails(*error));
                }
                let time = text.strip_prefix("before:").ok_or_else(|| {
                    let reasons = StoreError::ALL.map(StoreError::name).join(", ");
                    format!("use live, dead, before:TIME, unavailable, or one of {reasons}")
                })?;
                instant::parse(time).map(|time| Self::Service(wire::Answer::Before(time.0)))
            }
        }
    }
}

impl Explain {
    pub fn run(self) -> Result<Outcome> {
        let judged = self.judge()?;
        let outcome = match judged.verdict {
            Verdict::Reported { .. } | Verdict::Logged { is_reported: true, .. } => Outcome::Warned,
            Verdict::Refused { .. } | Verdict::Logged { .. } => Outcome::Refused,
            Verdict::Admitted { .. } | Verdict::Answered => Outcome::Done,
        };
        match self.json {
            true => say(&judged.as_json().to_string()),
            false => judged.lines().iter().for_each(|line| say(line)),
        }
        Ok(outcome)
    }

    fn judge(&self) -> Result<Judged> {
        let logged = Logged::find(self.problem.as_deref(), self.log.as_deref(), self.request_id.as_deref())?;
        let headers: Vec<(String, String)> = self.headers.iter().map(|header| name_and_value(header)).collect();
        if self.config.as_deref() == Some(Path::new("-")) && self.token.as_deref() == Some("-") {
            wrong_usage("standard input can be the configuration or the token, not both");
        }
        let token = self.token.as_deref().map(standard_input::argument).transpose()?;
        // A line of a log is explained without secrets.
        let is_line_alone = logged.is_some() && token.is_none() && self.headers.is_empty();
        let secrets = if is_line_alone && !self.live { &Secrets::assumed() } else { &self.secrets };
        let peers = (self.live || self.config.is_none()).then(|| self.peers.peers()).transpose()?;
        let Compiled { document, policy, assumed } = match (&self.config, &peers) {
            (Some(file), _) => document::read_one(file, secrets)?,
            (None, Some(peers)) => {
                let envoy = peers.envoy.as_deref().unwrap_or_default();
                let dump = loaded::dump(peers, envoy).map_err(anyhow::Error::msg)?;
                if loaded::differ(&dump) {
                    bail!("filters of this Envoy have different configurations: give the right one by --config");
                }
                loaded::compiled(&dump, secrets)?
            }
            (None, None) => wrong_usage("give --config or --envoy"),
        };
        let live = peers.filter(|_| self.live);
        let callouts = Callouts::new(self, &document, &policy, live)?;
        if let (Some(logged), true) = (&logged, is_line_alone) {
            return logged.explain(&document, policy, callouts.live.as_ref(), self.at);
        }
        let sent = Sent::new(self, logged.as_ref(), headers, token.as_deref(), &document);
        judge::judge(self, &document, &assumed, policy, &sent, callouts)
    }
}

/// What the filter does with a token, and what to do about it.
pub enum TokenVerdict {
    Admitted,
    /// The rule admits requests that cannot be checked.
    Unchecked,
    /// The rule of this name looks at no token, or the filter answers itself.
    NotLookedAt(Option<String>),
    /// The rule only reports what it would refuse.
    Reported {
        rejection: Rejection,
        advice: String,
    },
    Refused {
        rejection: Rejection,
        advice: String,
    },
}

/// Judges a GET with this token, as `explain --live` does.
///
/// # Errors
/// It cannot be judged.
pub fn verdict_on(compiled: Compiled, peers: Peers, token: &str, path: &str) -> Result<TokenVerdict> {
    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        explain: Explain,
    }
    let words = ["explain", "--config=-", "--live", &format!("--path={path}")].map(str::to_owned);
    let Words { explain } = Words::try_parse_from(words)?;
    let Compiled { document, policy, assumed } = compiled;
    let sent = Sent::new(&explain, None, Vec::new(), Some(token), &document);
    let callouts = Callouts::new(&explain, &document, &policy, Some(peers))?;
    let judged = judge::judge(&explain, &document, &assumed, policy, &sent, callouts)?;
    let advice =
        |rejection: &Rejection| format!("{} {}", rejection.cause.advice(), rejection.reason.advice()).trim().to_owned();
    Ok(match judged.verdict {
        Verdict::Refused { rejection, .. } => TokenVerdict::Refused { advice: advice(&rejection), rejection },
        Verdict::Reported { rejection, .. } => TokenVerdict::Reported { advice: advice(&rejection), rejection },
        Verdict::Admitted { how: How::Unchecked, .. } => TokenVerdict::Unchecked,
        Verdict::Admitted { how: How::Plainly | How::UnlessRevoked, .. } => TokenVerdict::Admitted,
        Verdict::Admitted { how: How::Open, .. } | Verdict::Answered | Verdict::Logged { .. } => {
            TokenVerdict::NotLookedAt(judged.rule)
        }
    })
}

/// The request as the filter would read it.
struct Sent {
    method: String,
    host: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Sent {
    fn new(
        explain: &Explain,
        logged: Option<&Logged>,
        mut headers: Vec<(String, String)>,
        token: Option<&str>,
        document: &Document,
    ) -> Self {
        let of_log = |name: &str, given: &str| logged.and_then(|it| it.text(name)).unwrap_or(given).to_owned();
        let (method, host) = (of_log("method", &explain.method), of_log("host", &explain.host));
        let mut path = of_log("path", &explain.path);
        let sources = &document.tokens;
        // Beside a proof, the token is a bound one.
        let is_bound = document.dpop.is_some() && headers.iter().any(|(name, _)| name == authn::dpop::HEADER);
        if let Some(token) = token.filter(|_| is_bound) {
            headers.push(("authorization".into(), format!("{} {token}", authn::dpop::SCHEME)));
            return Self { method, host, path, headers };
        }
        match (token, sources.headers.first(), sources.cookies.first(), sources.query.first()) {
            (Some(token), Some(header), _, _) => {
                let scheme = header.scheme.as_ref().map(|scheme| format!("{scheme} ")).unwrap_or_default();
                headers.push((header.name.to_ascii_lowercase(), format!("{scheme}{token}")));
            }
            (Some(token), None, Some(cookie), _) => headers.push(("cookie".into(), format!("{}={token}", cookie.name))),
            (Some(token), None, None, Some(parameter)) => {
                path.push(if path.contains('?') { '&' } else { '?' });
                path.push_str(&format!("{parameter}={token}"));
            }
            (Some(_), None, None, None) | (None, ..) => {}
        }
        Self { method, host, path, headers }
    }

    /// With pseudo headers first, as a proxy passes them to the filter.
    fn pairs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let pseudo =
            [(":method", &*self.method), (":path", &self.path), (":authority", &self.host), (":scheme", "https")];
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        pseudo.into_iter().chain(headers).map(|(name, value)| (name.into(), value.into())).collect()
    }
}

/// A header may contain a token. clap prints values that it cannot parse, so clap does not parse it.
fn name_and_value(header: &str) -> (String, String) {
    match header.split_once(':') {
        Some((name, value)) if !name.is_empty() => {
            let name = name.to_ascii_lowercase();
            if name == "host" {
                wrong_usage("give the host by --host");
            }
            (name, value.trim_ascii().to_owned())
        }
        _ => wrong_usage("write a header as 'name: value'; its name and value are not shown here"),
    }
}
