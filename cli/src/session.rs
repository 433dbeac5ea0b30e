//! `portcullis session`: creates, shows and ends sessions at the service's admin listener.
//!
//! Exit codes: 0 done; 1 refused; 2 wrong usage; 3 the service cannot be reached, or could not confirm.
use std::net::IpAddr;

use anyhow::{Context, Result};
use authn::time::UnixSeconds;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use ureq::http::Method;

use crate::admin::{Admin, Client, escaped};
use crate::instant;
use crate::listing::{self, Listing, Order, Wanted};
use crate::outcome::{Outcome, wrong_usage};

#[derive(Args)]
pub struct Session {
    #[command(flatten)]
    admin: Admin,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Create a session and print its tokens, which are secrets.
    Create(Box<Create>),
    /// The sessions of a subject.
    List {
        #[arg(long)]
        subject: String,
        #[command(flatten)]
        listing: Listing,
        /// Only those that began since then: so long ago, for example 24h, or a time such as 2026-01-31T23:59:59Z.
        #[arg(long, value_name = "TIME", value_parser = instant::since)]
        since: Option<UnixSeconds>,
        /// Only those that are bound to addresses, and may be used from this one.
        #[arg(long, value_name = "ADDRESS")]
        ip: Option<IpAddr>,
        #[arg(long, value_enum)]
        sort: Option<Order>,
    },
    /// One session.
    Show {
        // A sid may begin with `-`, here and below.
        #[arg(allow_hyphen_values = true)]
        sid: String,
    },
    /// End one session, all of a subject, or all but one.
    #[command(group = clap::ArgGroup::new("which").required(true).args(["sid", "subject"]))]
    End {
        #[arg(allow_hyphen_values = true)]
        sid: Option<String>,
        /// All sessions of this subject.
        #[arg(long)]
        subject: Option<String>,
        /// Except this one.
        #[arg(long, value_name = "SID", requires = "subject", allow_hyphen_values = true)]
        except: Option<String>,
        /// A reason, shown in the audit log.
        #[arg(long)]
        reason: Option<String>,
        /// Show the sessions that would be ended, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Args)]
struct Create {
    /// The user (sub).
    #[arg(long)]
    subject: String,
    /// The client that it is for.
    #[arg(long)]
    client_id: Option<String>,
    /// Repeatable; default: the service's.
    #[arg(long)]
    audience: Vec<String>,
    /// Words separated by spaces.
    #[arg(long)]
    scope: Option<String>,
    /// Further claims, as a JSON object.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// From now to its end, for example 8h.
    #[arg(long, value_name = "TIME")]
    lifetime: Option<String>,
    /// End it after this time without use.
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<String>,
    /// The lifetime of each access token.
    #[arg(long, value_name = "TIME")]
    access_lifetime: Option<String>,
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Also issue a refresh token; needs --client-id.
    #[arg(long)]
    refresh: bool,
    /// An address or CIDR block that may use it. Repeatable.
    #[arg(long = "bind-address", value_name = "CIDR")]
    addresses: Vec<String>,
    /// The address of the client: its network (24 bits of IPv4, 56 of IPv6) may use it.
    #[arg(long = "bind-network", value_name = "ADDRESS")]
    network: Option<String>,
    /// The User-Agent that may use it.
    #[arg(long = "bind-user-agent", value_name = "TEXT")]
    user_agent: Option<String>,
    /// base64url SHA-256 of the client certificate that may use it.
    #[arg(long = "bind-certificate", value_name = "SHA256")]
    certificate: Option<String>,
    /// RFC 7638 thumbprint (SHA-256, base64url) of the client's key for DPoP (RFC 9449), which its tokens are bound to.
    #[arg(long = "bind-key", value_name = "THUMBPRINT")]
    jkt: Option<String>,
    /// The address of the client that logged in, which hijack detection compares the first use with.
    #[arg(long = "from-address", value_name = "ADDRESS")]
    from_address: Option<String>,
    /// The User-Agent of the client that logged in, for the same.
    #[arg(long = "from-user-agent", value_name = "TEXT")]
    from_user_agent: Option<String>,
    /// A reason, shown in the audit log.
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Opaque,
    Jwt,
}

impl Session {
    pub fn run(self) -> Result<Outcome> {
        let body = match &self.what {
            What::Create(create) => Some(create.body()?),
            _ => None,
        };
        let client = self.admin.client()?;
        match self.what {
            What::Create(_) => {
                let body = body.unwrap_or_default().to_string();
                Ok(client.tell(client.send(Method::POST, "/v1/sessions", body)))
            }
            What::Show { sid } => client.one(Method::GET, &format!("/v1/sessions/{}", escaped(&sid))),
            What::List { subject, listing, since, ip, sort } => {
                let mut found = match sessions(&client, &subject)? {
                    Ok(found) => found,
                    Err(outcome) => return Ok(outcome),
                };
                found.retain(|it| listing.wants(it, &Wanted { since, ip, ..Wanted::default() }));
                if let Some(order) = sort {
                    listing::sort(&mut found, order);
                }
                listing.print(&client, &listing.page(found, 0), &COLUMNS);
                Ok(Outcome::Done)
            }
            What::End { sid: Some(sid), dry_run: true, .. } => {
                client.one(Method::GET, &format!("/v1/sessions/{}", escaped(&sid)))
            }
            What::End { subject: Some(subject), except, dry_run: true, .. } => {
                let mut found = match sessions(&client, &subject)? {
                    Ok(found) => found,
                    Err(outcome) => return Ok(outcome),
                };
                found.retain(|it| except.as_deref().is_none_or(|sid| it["sid"] != sid));
                found.iter().for_each(|session| client.print(session));
                eprintln!("portcullis: {} sessions would be ended", found.len());
                Ok(Outcome::Done)
            }
            What::End { sid, subject, except, reason, .. } => {
                let path = match (sid, subject, except) {
                    (Some(sid), ..) => format!("/v1/sessions/{}", escaped(&sid)),
                    (None, Some(subject), None) => format!("/v1/subjects/{}/sessions", escaped(&subject)),
                    (None, Some(subject), Some(sid)) => {
                        format!("/v1/subjects/{}/sessions?except={}", escaped(&subject), escaped(&sid))
                    }
                    (None, None, _) => wrong_usage("give a sid, or --subject"),
                };
                let body = reason.map(|reason| json!({ "reason": reason }).to_string()).unwrap_or_default();
                let answer = client.send(Method::DELETE, &path, body);
                if let Ok((200, ended)) = &answer
                    && ended["ended"].as_array().is_some_and(Vec::is_empty)
                {
                    eprintln!("portcullis: nothing matched: the subject has no session to end");
                }
                Ok(client.tell(answer))
            }
        }
    }
}

impl Create {
    fn body(&self) -> Result<Value> {
        let mut body = Map::new();
        let format = self.format.map(|format| match format {
            Format::Opaque => "opaque",
            Format::Jwt => "jwt",
        });
        for (name, value) in [
            ("subject", Some(self.subject.as_str())),
            ("client_id", self.client_id.as_deref()),
            ("scope", self.scope.as_deref()),
            ("lifetime", self.lifetime.as_deref()),
            ("idle_timeout", self.idle_timeout.as_deref()),
            ("access_lifetime", self.access_lifetime.as_deref()),
            ("format", format),
            ("reason", self.reason.as_deref()),
        ] {
            body.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        if !self.audience.is_empty() {
            body.insert("audience".into(), self.audience.clone().into());
        }
        if let Some(claims) = &self.claims {
            body.insert("claims".into(), serde_json::from_str(claims).context("--claims is not JSON")?);
        }
        if self.refresh {
            body.insert("refresh".into(), true.into());
        }
        let mut binding = Map::new();
        if !self.addresses.is_empty() {
            binding.insert("addresses".into(), self.addresses.clone().into());
        }
        let given = |name: &str, value: &Option<String>| Some((name.to_owned(), value.as_deref()?.into()));
        binding.extend(given("network", &self.network));
        binding.extend(given("user_agent", &self.user_agent));
        binding.extend(given("certificate", &self.certificate));
        binding.extend(given("jkt", &self.jkt));
        let from = [given("address", &self.from_address), given("user_agent", &self.from_user_agent)];
        let made_from: Map<String, Value> = from.into_iter().flatten().collect();
        if !made_from.is_empty() {
            body.insert("made_from".into(), made_from.into());
        }
        if !binding.is_empty() {
            body.insert("binding".into(), binding.into());
        }
        Ok(body.into())
    }
}

const COLUMNS: [&str; 7] = ["sid", "client_id", "created", "last_used", "ends", "by", "reason"];

/// All of a subject; or how the attempt ended.
fn sessions(client: &Client, subject: &str) -> Result<std::result::Result<Vec<Value>, Outcome>> {
    let mut cursor: Option<String> = None;
    let mut found = Vec::new();
    loop {
        let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("/v1/subjects/{}/sessions?limit=200{after}", escaped(subject));
        let page = match client.send(Method::GET, &path, String::new()) {
            Ok((200, page)) => page,
            other => return Ok(Err(client.tell(other))),
        };
        found.extend(page["sessions"].as_array().into_iter().flatten().cloned());
        match page["cursor"].as_str() {
            Some(next) => cursor = Some(escaped(next)),
            None => return Ok(Ok(found)),
        }
    }
}
