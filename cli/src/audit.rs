//! `portcullis audit`: prints the service's audit stream, and follows it.
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use crate::admin::{Admin, Client, date};
use crate::listing::{Listing, Wanted};
use crate::outcome::{Outcome, printable, say, wrong_usage};

/// How often to ask for new entries.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Audit {
    #[command(flatten)]
    admin: Admin,
    /// Wait for new entries, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Start this long ago, for example 24h. Default: the newest 100 entries.
    #[arg(long, value_name = "TIME", value_parser = wire::parse_duration)]
    since: Option<Duration>,
    /// Only entries about this user.
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// Only calls from this address.
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    #[command(flatten)]
    listing: Listing,
}

const COLUMNS: [&str; 9] = ["at", "by", "action", "outcome", "kind", "iss", "sub", "id", "reason"];

impl Audit {
    pub fn run(self) -> Result<Outcome> {
        if self.follow && self.listing.is_whole() {
            wrong_usage("--follow prints entries as they come: use --output text or jsonl");
        }
        let wanted = Wanted { subject: self.subject.as_deref(), ip: self.ip, ..Wanted::default() };
        let (listing, mut kept, mut printed) = (&self.listing, Vec::new(), 0_usize);
        let client = self.admin.client()?;
        let mut after = self.since.map(|since| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.saturating_sub(since).as_millis().to_string()
        });
        loop {
            let from = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
            let page = match client.send(Method::GET, &format!("/v1/audit?limit=100{from}"), String::new()) {
                Ok((200, page)) => page,
                // The service may be back in a moment. No entry is missed, since the next request starts after the last
                // entry.
                Ok((429 | 503, _)) | Err(_) if self.follow && after.is_some() => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                other => return Ok(client.tell(other)),
            };
            let entries = page["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
            for entry in entries.iter().filter(|entry| listing.wants(entry, &wanted)) {
                if printed < listing.limit() {
                    printed += 1;
                    match listing.is_text() {
                        true => print(&client, entry),
                        false => kept.push(entry.clone()),
                    }
                }
            }
            if self.follow && !listing.is_text() {
                kept.drain(..).for_each(|entry| say(&entry.to_string()));
            }
            let newest = after.is_none();
            after = Some(page["next"].as_str().unwrap_or("0-0").to_owned());
            if entries.is_empty() || newest {
                if !self.follow {
                    if !listing.is_text() || printed == 0 {
                        listing.print(&client, &kept, &COLUMNS);
                    }
                    if newest && printed == 0 && !entries.is_empty() {
                        eprintln!("portcullis: only the newest 100 entries were read; --since reads older ones");
                    }
                    return Ok(Outcome::Done);
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn print(client: &Client, entry: &Value) {
    if client.json {
        return say(&entry.to_string());
    }
    let text = |name: &str| printable(entry[name].as_str().unwrap_or("-"));
    let at = entry["at"].as_u64().map_or_else(|| text("id"), date);
    let rest = ["kind", "iss", "sub", "sid", "client_id", "id", "from", "reason"].into_iter().filter_map(|name| {
        // Text from others must not start new lines.
        let value = printable(entry[name].as_str()?);
        Some(format!("  {name}={value}"))
    });
    say(&format!("{at}  {}  {}  {}{}", text("by"), text("action"), text("outcome"), rest.collect::<String>()));
}
