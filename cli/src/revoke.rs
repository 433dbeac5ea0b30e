//! `portcullis revoke`: asks the service's admin listener to end somebody's tokens, and shows what was ended.
//!
//! Exit codes: 0 done; 1 refused, or some lines of a bulk were; 2 wrong usage; 3 the service cannot be reached, or it
//! could not confirm that the revocation holds.
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use ureq::Agent;
use ureq::http::{Method, Request};

use crate::{Outcome, say};

/// Longer than the service itself waits for Redis.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of a bulk file in one request: few enough that all answers fit the sockets' buffers while we still send.
const BULK_LINES: usize = 500;

#[derive(Args)]
pub struct Revoke {
    /// The service's admin listener.
    #[arg(long, env = "PORTCULLIS_ADMIN", value_name = "URL", default_value = "http://127.0.0.1:7701", global = true)]
    service: String,
    /// A file with the admin listener's bearer secret.
    #[arg(long, env = "PORTCULLIS_ADMIN_TOKEN_FILE", value_name = "PATH", global = true)]
    token_file: Option<PathBuf>,
    /// Print the service's answer as JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One token: the JWT itself, `-` to read it from standard input, or its issuer and jti.
    #[command(group = clap::ArgGroup::new("which").required(true).args(["jwt", "id"]))]
    Token {
        #[arg(conflicts_with_all = ["issuer", "id"])]
        jwt: Option<String>,
        #[arg(long, requires = "id")]
        issuer: Option<String>,
        /// The jti.
        #[arg(long, requires = "issuer")]
        id: Option<String>,
        #[command(flatten)]
        terms: Terms,
    },
    /// One session, by its sid.
    Session(Named),
    /// Everything that a user (sub) holds now. The next login works.
    User(Named),
    /// Everything that a client (client_id or azp) holds now.
    Client(Named),
    /// Everything that a signing key signed, by its RFC 7638 thumbprint.
    Key(Named),
    /// Everything that an issuer issued until now.
    Issuer {
        #[arg(long)]
        issuer: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// What is revoked now.
    List,
    /// One revocation, by the key that revoking printed.
    Show { key: String },
    /// Take a revocation back.
    Lift { key: String },
    /// Many, from a file of JSON objects, one a line; `-` is standard input.
    Bulk { file: PathBuf },
}

#[derive(Args)]
struct Named {
    #[arg(long)]
    issuer: String,
    #[arg(long)]
    id: String,
    #[command(flatten)]
    terms: Terms,
}

#[derive(Args)]
struct Terms {
    /// For whoever reads the list later. Stored encrypted.
    #[arg(long)]
    reason: Option<String>,
    /// How long it holds, as in 48h. At least, and by default: for a session as long as sessions live (the service's
    /// --session-retention), for a signing key `never` ends (30d, say, is allowed once its issuer withdrew it), for all
    /// else as long as a token lives. An earlier revocation that holds longer is not shortened.
    #[arg(long)]
    ttl: Option<String>,
}

impl Revoke {
    pub fn run(self) -> Result<Outcome> {
        let Some(token_file) = self.token_file else {
            crate::wrong_usage("--token-file or PORTCULLIS_ADMIN_TOKEN_FILE is needed");
        };
        let token = fs::read_to_string(&token_file)
            .with_context(|| format!("cannot read the token file {}", token_file.display()))?;
        let service = Client {
            agent: Agent::new_with_config(
                Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build(),
            ),
            base: self.service.trim_end_matches('/').to_owned(),
            token: token.trim_ascii().to_owned(),
            json: self.json,
        };
        match self.what {
            What::Token { jwt: Some(jwt), terms, .. } => {
                let jwt = if jwt == "-" { standard_input()? } else { jwt };
                service.revoke(terms.with([("token", jwt.trim_ascii())]))
            }
            What::Token { jwt: None, issuer, id, terms } => {
                let (Some(issuer), Some(id)) = (issuer, id) else {
                    crate::wrong_usage("give the JWT, or --issuer and --id");
                };
                service.revoke(terms.with([("kind", "token"), ("issuer", &issuer), ("id", &id)]))
            }
            What::Session(named) => service.revoke(named.of("session")),
            What::User(named) => service.revoke(named.of("user")),
            What::Client(named) => service.revoke(named.of("client")),
            What::Key(named) => service.revoke(named.of("key")),
            What::Issuer { issuer, terms } => service.revoke(terms.with([("kind", "issuer"), ("issuer", &issuer)])),
            What::List => service.list(),
            What::Show { key } => service.one(Method::GET, &path_of(&key)),
            What::Lift { key } => service.one(Method::DELETE, &path_of(&key)),
            What::Bulk { file } => service.bulk(&file),
        }
    }
}

impl Named {
    fn of(&self, kind: &str) -> Value {
        self.terms.with([("kind", kind), ("issuer", &self.issuer), ("id", &self.id)])
    }
}

impl Terms {
    fn with<const N: usize>(&self, members: [(&str, &str); N]) -> Value {
        let mut body: Map<_, _> = members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        for (name, value) in [("reason", &self.reason), ("ttl", &self.ttl)] {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.as_str().into());
            }
        }
        Value::Object(body)
    }
}

struct Client {
    agent: Agent,
    base: String,
    token: String,
    json: bool,
}

/// What came back: a status and a JSON body, or nothing at all.
type Answer = std::result::Result<(u16, Value), ureq::Error>;

impl Client {
    fn revoke(&self, body: Value) -> Result<Outcome> {
        Ok(self.tell(self.send(Method::POST, "/v1/revocations", body.to_string())))
    }

    fn one(&self, method: Method, path: &str) -> Result<Outcome> {
        Ok(self.tell(self.send(method, path, String::new())))
    }

    fn list(&self) -> Result<Outcome> {
        let mut cursor = "0".to_owned();
        loop {
            let path = format!("/v1/revocations?limit=500&cursor={cursor}");
            let page = match self.send(Method::GET, &path, String::new()) {
                Ok((200, page)) => page,
                other => return Ok(self.tell(other)),
            };
            for revocation in page["revocations"].as_array().into_iter().flatten() {
                self.print(revocation);
            }
            match page["cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return Ok(Outcome::Done),
            }
        }
    }

    /// Sends the file in pieces and prints an answer for each line, numbered as in the file.
    fn bulk(&self, file: &Path) -> Result<Outcome> {
        let input: Box<dyn Read> = if file == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
        };
        let mut lines = BufReader::new(input).lines();
        let (mut before, mut written, mut failed, mut unconfirmed) = (0_u64, 0_u64, 0_u64, false);
        loop {
            let piece = lines.by_ref().take(BULK_LINES).collect::<std::io::Result<Vec<_>>>()?;
            if piece.is_empty() {
                break;
            }
            let answer = self.exchange(Method::POST, "/v1/revocations/bulk", piece.join("\n"));
            let text = match answer {
                Ok((200, text)) => text,
                other => return Ok(self.tell(other.map(|(status, text)| (status, parsed(&text))))),
            };
            let mut summed = false;
            for line in text.lines() {
                let mut answer = parsed(line);
                if let Some(summary) = answer.get("summary") {
                    written += summary["written"].as_u64().unwrap_or(0);
                    failed += summary["failed"].as_u64().unwrap_or(0);
                    summed = summary.get("cut").is_none();
                    continue;
                }
                let number = before + answer["line"].as_u64().unwrap_or(0);
                answer["line"] = number.into();
                unconfirmed |= answer["error"]["status"] == 503;
                if self.json {
                    say(&answer.to_string());
                } else if let Some(error) = answer.get("error") {
                    eprintln!("line {number}: {}", reason(error));
                }
            }
            if !summed {
                eprintln!("portcullis: the service's answer ended early, after line {before}");
                return Ok(Outcome::Unconfirmed);
            }
            before += piece.len() as u64;
        }
        if self.json {
            say(&json!({ "summary": { "lines": before, "written": written, "failed": failed } }).to_string());
        } else {
            say(&format!("{written} revoked, {failed} failed"));
        }
        Ok(match (failed, unconfirmed) {
            (0, _) => Outcome::Done,
            (_, true) => Outcome::Unconfirmed,
            (_, false) => Outcome::Refused,
        })
    }

    fn tell(&self, answer: Answer) -> Outcome {
        match answer {
            Ok((200..=299, body)) => {
                self.print(&body);
                Outcome::Done
            }
            Ok((status, problem)) => {
                if self.json {
                    say(&problem.to_string());
                }
                eprintln!("portcullis: {status}: {}", reason(&problem));
                if status >= 500 { Outcome::Unconfirmed } else { Outcome::Refused }
            }
            Err(error) => {
                eprintln!("portcullis: the service at {} cannot be reached: {error}", self.base);
                Outcome::Unconfirmed
            }
        }
    }

    fn print(&self, body: &Value) {
        if self.json {
            return say(&body.to_string());
        }
        let Some(members) = body.as_object() else { return say(&body.to_string()) };
        // First what matters most: when it ends.
        let until = members.get("until").map(|until| match until.as_u64() {
            Some(until) => format!("until {} ({until})", date(until)),
            None => format!("until {}", until.as_str().unwrap_or("unknown")),
        });
        let rest = members.iter().filter(|(name, _)| *name != "until").map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        });
        say(&until.into_iter().chain(rest).collect::<Vec<_>>().join("  "));
    }

    fn send(&self, method: Method, path: &str, body: String) -> Answer {
        self.exchange(method, path, body).map(|(status, text)| (status, parsed(&text)))
    }

    fn exchange(&self, method: Method, path: &str, body: String) -> std::result::Result<(u16, String), ureq::Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        let mut answer = match body.is_empty() {
            true => self.agent.run(request.body(())?)?,
            false => self.agent.run(request.body(body)?)?,
        };
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    }
}

fn path_of(key: &str) -> String {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        crate::wrong_usage("a key of a revocation is 22 characters of base64url");
    }
    format!("/v1/revocations/{key}")
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!({ "detail": text.trim_ascii() }))
}

fn reason(problem: &Value) -> String {
    let part = |name: &str| problem[name].as_str();
    match (part("code"), part("detail")) {
        (Some(code), Some(detail)) => format!("{code}: {detail}"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => "no reason given".to_owned(),
    }
}

/// Unix seconds as RFC 3339 has them, in UTC. The civil calendar from days, after Hinnant.
fn date(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March, so that the day that leap years add is the last.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn standard_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
        ] {
            assert_eq!(date(seconds), shown);
        }
    }
}
