//! Access to the service's admin listener, for every command that uses it: connecting, requests, and printing the
//! answers.
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::instant::date;
use crate::outcome::{Outcome, printable, say, url, wrong_usage};
use crate::peers::certificates;

/// Members of answers that are times, in seconds since 1970. Text has them as dates in UTC.
pub const TIMES: [&str; 8] = ["at", "before", "until", "created", "auth_time", "ends", "last_used", "time"];
/// Longer than the service itself waits for Redis.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub struct Admin {
    /// The service's admin listener.
    #[arg(long, env = "PORTCULLIS_ADMIN", value_name = "URL", default_value = "http://127.0.0.1:7701", value_parser = url, global = true)]
    service: String,
    /// A file with the admin token.
    #[arg(long, env = "PORTCULLIS_ADMIN_TOKEN_FILE", value_name = "PATH", global = true)]
    token_file: Option<PathBuf>,
    /// The only CAs to trust for the service's certificate (PEM). Default: those that browsers trust.
    #[arg(long, env = "PORTCULLIS_ADMIN_CA_FILE", value_name = "PATH", global = true)]
    admin_ca_file: Option<PathBuf>,
    /// A client certificate (PEM), instead of the admin token.
    #[arg(long, env = "PORTCULLIS_ADMIN_CERT_FILE", value_name = "PATH", global = true, requires = "admin_key_file")]
    admin_cert_file: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, env = "PORTCULLIS_ADMIN_KEY_FILE", value_name = "PATH", global = true, requires = "admin_cert_file")]
    admin_key_file: Option<PathBuf>,
    /// Print the service's answer as JSON, one object per line.
    #[arg(long, global = true)]
    json: bool,
    /// In JSON, print times as 2026-01-31T23:59:59Z instead of seconds since 1970.
    #[arg(long, global = true)]
    utc: bool,
}

impl Admin {
    pub fn client(self) -> Result<Client> {
        let token = match &self.token_file {
            Some(path) => Some(
                fs::read_to_string(path)
                    .with_context(|| format!("cannot read the token file {}", path.display()))?
                    .trim_ascii()
                    .to_owned(),
            ),
            None if self.admin_cert_file.is_some() => None,
            None => wrong_usage("--token-file or PORTCULLIS_ADMIN_TOKEN_FILE is needed"),
        };
        let mut tls = TlsConfig::builder();
        if let Some(path) = &self.admin_ca_file {
            tls = tls.root_certs(RootCerts::from(certificates(path)?));
        }
        if let (Some(certificate), Some(key)) = (&self.admin_cert_file, &self.admin_key_file) {
            let chain = certificates(certificate)?;
            let key = PrivateKey::from_pem(&fs::read(key).with_context(|| format!("cannot read {}", key.display()))?)
                .with_context(|| format!("no private key in {}", key.display()))?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        let config = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        Ok(Client {
            agent: Agent::new_with_config(config.tls_config(tls.build()).build()),
            base: self.service.trim_end_matches('/').to_owned(),
            token,
            json: self.json,
            utc: self.utc,
        })
    }
}

pub struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
    pub json: bool,
    utc: bool,
}

/// The answer: a status and a JSON body, or no answer.
pub type Answer = std::result::Result<(u16, Value), ureq::Error>;

impl Client {
    pub fn one(&self, method: Method, path: &str) -> Result<Outcome> {
        Ok(self.tell(self.send(method, path, String::new())))
    }

    pub fn tell(&self, answer: Answer) -> Outcome {
        match answer {
            Ok((200..=299, body)) => {
                self.print(&body);
                Outcome::Done
            }
            Ok((status, problem)) => {
                if self.json {
                    say(&self.in_json(&problem));
                }
                let hint = match status {
                    401 => {
                        ": the token is not that of the service's --admin-token-file, or it wants a client certificate"
                    }
                    _ => "",
                };
                eprintln!("portcullis: {status}: {}{hint}", reason(&problem));
                if status >= 500 { Outcome::Unconfirmed } else { Outcome::Refused }
            }
            Err(error) => {
                eprintln!("portcullis: the service at {} cannot be reached: {error}", self.base);
                Outcome::Unconfirmed
            }
        }
    }

    pub fn print(&self, body: &Value) {
        if self.json {
            return say(&self.in_json(body));
        }
        let Some(members) = body.as_object() else { return say(&body.to_string()) };
        // The most important part first: when it expires.
        let until = members.get("until").map(|until| match until.as_u64() {
            Some(until) => format!("until {} ({until})", date(until)),
            None => format!("until {}", until.as_str().unwrap_or("unknown")),
        });
        let rest = members.iter().filter(|(name, _)| *name != "until").map(|(name, value)| match value {
            // Ids and reasons are text of others.
            Value::String(text) => format!("{name}={}", printable(text)),
            Value::Number(seconds) if TIMES.contains(&name.as_str()) => {
                format!("{name}={}", seconds.as_u64().map_or_else(|| seconds.to_string(), date))
            }
            other => format!("{name}={other}"),
        });
        say(&until.into_iter().chain(rest).collect::<Vec<_>>().join("  "));
    }

    /// As asked for, with dates or with seconds.
    pub fn in_json(&self, body: &Value) -> String {
        let mut body = body.clone();
        if self.utc {
            date_times(&mut body);
        }
        body.to_string()
    }

    pub fn send(&self, method: Method, path: &str, body: String) -> Answer {
        self.exchange(method, path, body).map(|(status, text)| (status, parsed(&text)))
    }

    pub fn exchange(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> std::result::Result<(u16, String), ureq::Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json");
        let request = match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        let mut answer = match body.is_empty() {
            true => self.agent.run(request.body(())?)?,
            false => self.agent.run(request.body(body)?)?,
        };
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    }
}

pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!({ "detail": text.trim_ascii() }))
}

pub fn reason(problem: &Value) -> String {
    let part = |name: &str| problem[name].as_str();
    match (part("code"), part("detail")) {
        (Some(code), Some(detail)) => printable(&format!("{code}: {detail}")),
        (Some(only), None) | (None, Some(only)) => printable(only),
        (None, None) => "no reason given".to_owned(),
    }
}

/// Not those inside of members, such as claims, which have names of others.
fn date_times(body: &mut Value) {
    match body {
        Value::Array(entries) => entries.iter_mut().for_each(date_times),
        Value::Object(members) => {
            let times = members.iter_mut().filter(|(name, _)| TIMES.contains(&name.as_str()));
            for (_, value) in times {
                if let Some(seconds) = value.as_u64() {
                    *value = date(seconds).into();
                }
            }
        }
        _ => {}
    }
}

/// A path segment, percent-encoded.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_json_become_dates_and_claims_stay_as_they_are() {
        let mut body = json!([{ "at": 0, "until": "lifted", "claims": { "at": 0 }, "ends": 86_400 }]);
        date_times(&mut body);
        let expected =
            json!([{ "at": date(0), "until": "lifted", "claims": { "at": 0 }, "ends": "1970-01-02T00:00:00Z" }]);
        assert_eq!(body, expected);
    }
}
