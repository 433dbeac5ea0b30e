//! `portcullis revoke`: asks the service's admin listener to revoke tokens, and prints the result.
//!
//! Exit codes: 0 done; 1 refused, or some lines of a bulk file were; 2 wrong usage; 3 the service cannot be reached, or
//! it could not confirm that the revocation is in force.
use std::path::PathBuf;

use anyhow::Result;
use authn::time::UnixSeconds;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use ureq::http::Method;

mod bulk;

use crate::admin::{Admin, Client};
use crate::instant;
use crate::listing::{self, Listing, Order, Wanted};
use crate::outcome::{Outcome, say, wrong_usage};
use crate::signing_key::SigningKeyArgs;
use crate::standard_input;

#[derive(Args)]
pub struct Revoke {
    #[command(flatten)]
    admin: Admin,
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
        #[arg(long, requires = "issuer", allow_hyphen_values = true)]
        id: Option<String>,
        #[command(flatten)]
        terms: Terms,
    },
    /// One session, by its sid, or by the issuer's claim for it: docs/providers.
    Session {
        #[command(flatten)]
        named: Named,
        /// Revoke only tokens issued until now: the issuer may give another session this id, as Keycloak does.
        #[arg(long)]
        until_now: bool,
    },
    /// Demand a login of one session, by its sid: its tokens are refused until one comes whose auth_time is later. Filters
    /// need `revocation.step_up`.
    StepUp(Named),
    /// All current tokens of a user, by their sub, or by the issuer's claim for it. The next login works.
    User(Named),
    /// All current tokens of a client, by its client_id, azp, cid or appid.
    Client(Named),
    /// All tokens signed by a signing key.
    Key {
        #[arg(long)]
        issuer: String,
        #[command(flatten)]
        key: SigningKeyArgs,
        #[command(flatten)]
        terms: Terms,
    },
    /// All tokens issued by an issuer until now.
    Issuer {
        #[arg(long)]
        issuer: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// The current revocations.
    List {
        #[command(flatten)]
        listing: Listing,
        /// Only those of this user.
        #[arg(long, value_name = "SUB")]
        subject: Option<String>,
        /// Only those of this kind: token, session, step_up, user, client, key or issuer.
        #[arg(long, value_name = "KIND", value_parser = ["token", "session", "step_up", "user", "client", "key", "issuer"])]
        kind: Option<String>,
        /// Only those made since this time: an age such as 24h, or a date such as 2026-01-31T23:59:59Z.
        #[arg(long, value_name = "TIME", value_parser = instant::since)]
        since: Option<UnixSeconds>,
        // Only to say where it is.
        #[arg(long, value_name = "ADDRESS", hide = true)]
        ip: Option<String>,
        /// By the time at which they were made. Without it, in the store's order, as they come.
        #[arg(long, value_enum)]
        sort: Option<Order>,
    },
    /// One revocation, by the key that `revoke` printed.
    Show {
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
    /// Undo a revocation.
    Lift {
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Show what would be lifted, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Many revocations, from a file of JSON objects, one per line; `-` is standard input.
    Bulk {
        file: PathBuf,
        /// Accept issuers that no filter is configured for, in every line.
        #[arg(long)]
        new_issuer: bool,
        /// Read all lines, show how many would be sent, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Keep in this file how many lines were revoked, and continue after them. A run begins at the first line that was
        /// not revoked, and sends all that follow again, which does no harm.
        #[arg(long, value_name = "PATH")]
        resume: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Named {
    #[arg(long)]
    issuer: String,
    // A sid may begin with `-`, as may the keys above.
    #[arg(long, allow_hyphen_values = true)]
    id: String,
    #[command(flatten)]
    terms: Terms,
}

#[derive(Args)]
struct Terms {
    /// A reason, shown in the list. Stored encrypted.
    #[arg(long)]
    reason: Option<String>,
    /// How long it is in force, for example 48h. The minimum, and the default: for a token its longest lifetime (the
    /// service's --max-lifetime plus clock tolerances), for a signing key forever (31d is allowed, for example, if its
    /// issuer withdrew it), otherwise the longest login (--max-session). An earlier revocation that lasts longer is not
    /// shortened.
    #[arg(long)]
    ttl: Option<String>,
    /// Accept an issuer that no filter is configured for. By default it is refused, since it is probably misspelt, and
    /// the revocation would have no effect.
    #[arg(long)]
    new_issuer: bool,
    /// Show what would be sent to the service, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Revoke {
    pub fn run(self) -> Result<Outcome> {
        let service = Service(self.admin.client()?);
        match self.what {
            What::Token { jwt: Some(jwt), terms, .. } => {
                let jwt = if jwt == "-" { standard_input::read()? } else { jwt };
                let mut body = terms.with([("token", jwt.trim_ascii())]);
                if terms.dry_run {
                    // Never shown.
                    body["token"] = "…".into();
                }
                service.revoke(&terms, body)
            }
            What::Token { jwt: None, issuer, id, terms } => {
                let (Some(issuer), Some(id)) = (issuer, id) else {
                    wrong_usage("give the JWT, or --issuer and --id");
                };
                service.revoke(&terms, terms.with([("kind", "token"), ("issuer", &issuer), ("id", &id)]))
            }
            What::Session { named, until_now } => {
                let mut body = named.of("session");
                if until_now {
                    body["until_now"] = true.into();
                }
                service.revoke(&named.terms, body)
            }
            What::StepUp(named) => service.revoke(&named.terms, named.of("step_up")),
            What::User(named) => service.revoke(&named.terms, named.of("user")),
            What::Client(named) => service.revoke(&named.terms, named.of("client")),
            What::Key { issuer, key, terms } => {
                let thumbprint = key.thumbprint()?;
                service.revoke(&terms, terms.with([("kind", "key"), ("issuer", &issuer), ("id", &thumbprint)]))
            }
            What::Issuer { issuer, terms } => {
                service.revoke(&terms, terms.with([("kind", "issuer"), ("issuer", &issuer)]))
            }
            What::List { ip: Some(_), .. } => wrong_usage(
                "a revocation does not record from which address it was made; the audit log does: `portcullis audit --ip \
                 ADDRESS --since TIME`",
            ),
            What::List { listing, subject, kind, since, sort, ip: None } => service.list(
                &listing,
                &Wanted { subject: subject.as_deref(), kind: kind.as_deref(), since, ip: None },
                sort,
            ),
            What::Show { key } => service.0.one(Method::GET, &path_of(&key)),
            What::Lift { key, dry_run: true } => service.0.one(Method::GET, &path_of(&key)),
            What::Lift { key, dry_run: false } => service.0.one(Method::DELETE, &path_of(&key)),
            What::Bulk { file, new_issuer, dry_run, resume } => {
                bulk::run(&service.0, &file, new_issuer, dry_run, resume.as_deref())
            }
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
        if self.new_issuer {
            body.insert("new_issuer".to_owned(), true.into());
        }
        Value::Object(body)
    }
}

struct Service(Client);

impl Service {
    fn revoke(&self, terms: &Terms, body: Value) -> Result<Outcome> {
        if terms.dry_run {
            say(&json!({ "would_send": body }).to_string());
            return Ok(Outcome::Done);
        }
        Ok(self.0.tell(self.0.send(Method::POST, "/v1/revocations", body.to_string())))
    }

    fn list(&self, listing: &Listing, wanted: &Wanted<'_>, order: Option<Order>) -> Result<Outcome> {
        const COLUMNS: [&str; 7] = ["key", "kind", "issuer", "id", "at", "by", "reason"];
        let mut cursor: Option<String> = None;
        let mut kept: Vec<Value> = Vec::new();
        let (mut matched, mut printed, mut unread) = (0_usize, 0_usize, 0_u64);
        let waits = listing.is_whole() || order.is_some();
        loop {
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let path = format!("/v1/revocations?limit=500{after}");
            let page = match self.0.send(Method::GET, &path, String::new()) {
                Ok((200, page)) => page,
                other => return Ok(self.0.tell(other)),
            };
            for entry in page["revocations"].as_array().into_iter().flatten() {
                if listing.wants(entry, wanted) {
                    kept.push(entry.clone());
                } else if entry["kind"].is_null() {
                    unread += 1;
                }
            }
            if !waits && !kept.is_empty() {
                let found = std::mem::take(&mut kept);
                let count = found.len();
                let page = listing.page(found, matched);
                (matched, printed) = (matched.saturating_add(count), printed.saturating_add(page.len()));
                if !page.is_empty() {
                    listing.print(&self.0, &page, &COLUMNS);
                }
            }
            match page["cursor"].as_str() {
                Some(next) if matched < listing.needed() => cursor = Some(next.to_owned()),
                Some(_) | None => break,
            }
        }
        if let Some(order) = order {
            listing::sort(&mut kept, order);
        }
        let kept = listing.page(kept, matched);
        if waits || printed == 0 {
            listing.print(&self.0, &kept, &COLUMNS);
        }
        if unread > 0 {
            // One of them may be what the operator looks for.
            eprintln!(
                "portcullis: {unread} revocations are in force whose notes cannot be read: they were made with another \
                 shared secret. Whom they end is not known, so they are left out"
            );
        }
        Ok(Outcome::Done)
    }
}

fn path_of(key: &str) -> String {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        wrong_usage("a key of a revocation is 22 characters of base64url");
    }
    format!("/v1/revocations/{key}")
}
