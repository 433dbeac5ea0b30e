//! `portcullis revoke`: asks the service's admin listener to revoke tokens, and prints the result.
//!
//! Exit codes: 0 done; 1 refused, or some lines of a bulk file were; 2 wrong usage; 3 the service cannot be reached, or
//! it could not confirm that the revocation is in force.
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use ureq::http::Method;

use crate::admin::{Admin, Client, parsed, reason};
use crate::listing::{self, Listing, Order, Wanted};
use crate::outcome::{Outcome, say, wrong_usage};
use crate::signing_key::SigningKeyArgs;
use crate::standard_input;

/// Lines of a bulk file per request: few enough that all answers fit the sockets' buffers while the rest is still being
/// sent.
const BULK_LINES: usize = 500;

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
        /// Only those of this kind: token, session, user, client, key or issuer.
        #[arg(long, value_name = "KIND", value_parser = ["token", "session", "user", "client", "key", "issuer"])]
        kind: Option<String>,
        /// Only those made since this long ago, for example 24h.
        #[arg(long, value_name = "TIME", value_parser = wire::parse_duration)]
        since: Option<Duration>,
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
        /// Keep the number of finished lines in this file, and continue after them.
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
            What::User(named) => service.revoke(&named.terms, named.of("user")),
            What::Client(named) => service.revoke(&named.terms, named.of("client")),
            What::Key { issuer, key, terms } => {
                let thumbprint = key.thumbprint()?;
                service.revoke(&terms, terms.with([("kind", "key"), ("issuer", &issuer), ("id", &thumbprint)]))
            }
            What::Issuer { issuer, terms } => {
                service.revoke(&terms, terms.with([("kind", "issuer"), ("issuer", &issuer)]))
            }
            What::List { listing, subject, kind, since, sort } => service.list(
                &listing,
                &Wanted { subject: subject.as_deref(), kind: kind.as_deref(), since, ip: None },
                sort,
            ),
            What::Show { key } => service.0.one(Method::GET, &path_of(&key)),
            What::Lift { key, dry_run: true } => service.0.one(Method::GET, &path_of(&key)),
            What::Lift { key, dry_run: false } => service.0.one(Method::DELETE, &path_of(&key)),
            What::Bulk { file, new_issuer, dry_run, resume } => {
                service.bulk(&file, new_issuer, dry_run, resume.as_deref())
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
        let mut printed = 0;
        let waits = listing.is_whole() || order.is_some();
        loop {
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let path = format!("/v1/revocations?limit=500{after}");
            let page = match self.0.send(Method::GET, &path, String::new()) {
                Ok((200, page)) => page,
                other => return Ok(self.0.tell(other)),
            };
            let found = page["revocations"].as_array().into_iter().flatten().filter(|it| listing.wants(it, wanted));
            kept.extend(found.cloned());
            if !waits && !kept.is_empty() {
                kept.truncate(listing.limit().saturating_sub(printed));
                printed = printed.saturating_add(kept.len());
                listing.print(&self.0, &kept, &COLUMNS);
                kept.clear();
            }
            match page["cursor"].as_str() {
                Some(next) if printed < listing.limit() => cursor = Some(next.to_owned()),
                Some(_) | None => break,
            }
        }
        if let Some(order) = order {
            listing::sort(&mut kept, order);
        }
        kept.truncate(listing.limit());
        if waits || printed == 0 {
            listing.print(&self.0, &kept, &COLUMNS);
        }
        Ok(Outcome::Done)
    }

    /// Sends the file in parts and prints an answer for each line, numbered as in the file.
    fn bulk(&self, file: &Path, new_issuer: bool, dry_run: bool, resume: Option<&Path>) -> Result<Outcome> {
        let input: Box<dyn Read> = if file == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
        };
        let done = resume.map(finished).transpose()?.unwrap_or_default();
        let mut lines = BufReader::new(input).lines();
        for _ in 0..done {
            lines.next().transpose()?;
        }
        if dry_run {
            return would_send(lines, done);
        }
        let bar = progress(file, done);
        let (mut before, mut written, mut failed, mut unconfirmed) = (done, 0_u64, 0_u64, false);
        loop {
            let mut piece = lines.by_ref().take(BULK_LINES).collect::<std::io::Result<Vec<_>>>()?;
            if new_issuer {
                piece.iter_mut().for_each(take_new_issuer);
            }
            if piece.is_empty() {
                break;
            }
            let answer = self.0.exchange(Method::POST, "/v1/revocations/bulk", piece.join("\n"));
            let text = match answer {
                Ok((200, text)) => text,
                other => return Ok(self.0.tell(other.map(|(status, text)| (status, parsed(&text))))),
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
                if self.0.json {
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
            bar.set_position(before);
            if let Some(resume) = resume {
                fs::write(resume, before.to_string()).with_context(|| format!("cannot write {}", resume.display()))?;
            }
        }
        bar.finish_and_clear();
        if before == 0 {
            eprintln!("portcullis: nothing matched: the file has no line");
        }
        if self.0.json {
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
}

/// The lines that an earlier run has finished.
fn finished(resume: &Path) -> Result<u64> {
    match fs::read_to_string(resume) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} holds no number of lines", resume.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", resume.display())),
    }
}

/// Reads the lines as the service would, as far as that needs no service.
fn would_send(lines: impl Iterator<Item = std::io::Result<String>>, done: u64) -> Result<Outcome> {
    let (mut good, mut bad, mut number) = (0_u64, 0_u64, done);
    for line in lines {
        number += 1;
        match serde_json::from_str::<Value>(&line?) {
            Ok(Value::Object(_)) => good += 1,
            Ok(_) => {
                bad += 1;
                eprintln!("line {number}: it is not a JSON object");
            }
            Err(error) => {
                bad += 1;
                eprintln!("line {number}: {error}");
            }
        }
    }
    say(&format!("{good} lines would be sent, {bad} cannot be read, {done} were finished before"));
    Ok(if bad == 0 { Outcome::Done } else { Outcome::Refused })
}

/// Hidden where standard error is no terminal.
fn progress(file: &Path, done: u64) -> ProgressBar {
    let count = || Some(BufReader::new(fs::File::open(file).ok()?).lines().count() as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} lines, {eta} left");
    let bar = match count() {
        Some(count) if file != Path::new("-") => ProgressBar::new(count),
        _ => ProgressBar::no_length(),
    };
    bar.set_position(done);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A line that is not an object is sent unchanged, and the service reports its error.
fn take_new_issuer(line: &mut String) {
    if let Ok(Value::Object(mut members)) = serde_json::from_str(line) {
        members.insert("new_issuer".to_owned(), true.into());
        *line = Value::Object(members).to_string();
    }
}

fn path_of(key: &str) -> String {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        wrong_usage("a key of a revocation is 22 characters of base64url");
    }
    format!("/v1/revocations/{key}")
}
