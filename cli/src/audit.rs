//! `portcullis audit`: prints the service's audit stream, and follows it.
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use authn::time::UnixSeconds;
use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use crate::admin::{Admin, Client};
use crate::instant::{self, date};
use crate::listing::{self, Listing, Order, Wanted};
use crate::outcome::{Outcome, printable, say, wrong_usage};

/// Entries in one answer.
const PAGE: usize = 100;
/// How often to ask for new entries.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Audit {
    #[command(flatten)]
    admin: Admin,
    /// Wait for new entries, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Start then: so long ago, for example 24h, or at a time such as 2026-01-31T23:59:59Z. Default: the newest 100 entries.
    #[arg(long, value_name = "TIME", value_parser = instant::since)]
    since: Option<UnixSeconds>,
    /// Only entries about this user.
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// Only calls from this address.
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// By their times. Default: oldest first, as they come.
    #[arg(long, value_enum, conflicts_with = "follow")]
    sort: Option<Order>,
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
        let (listing, mut kept) = (&self.listing, Vec::new());
        let (mut matched, mut printed) = (0_usize, 0_usize);
        let waits = listing.is_whole() || self.sort.is_some();
        let client = self.admin.client()?;
        let mut after = self.since.map(|since| since.0.saturating_mul(1000).to_string());
        loop {
            let from = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
            let page = match client.send(Method::GET, &format!("/v1/audit?limit={PAGE}{from}"), String::new()) {
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
            let wants = |entry: &&Value| listing.wants(entry, &wanted);
            kept.extend(entries.iter().filter(wants).cloned());
            if !waits {
                let count = kept.len();
                let page = listing.page(std::mem::take(&mut kept), matched);
                (matched, printed) = (matched.saturating_add(count), printed.saturating_add(page.len()));
                page.iter().for_each(|entry| print(&client, listing, entry));
            }
            let is_newest = after.is_none();
            after = Some(page["next"].as_str().unwrap_or("0-0").to_owned());
            if matched >= listing.needed() || (!self.follow && (entries.is_empty() || is_newest)) {
                if is_newest && entries.len() == PAGE && listing.filters(&wanted) {
                    eprintln!("portcullis: these are of the newest {PAGE} entries; --since reads older ones");
                }
                break;
            }
            if entries.is_empty() || is_newest {
                std::thread::sleep(PAUSE);
            }
        }
        if let Some(order) = self.sort {
            listing::sort(&mut kept, order);
        }
        let kept = listing.page(kept, matched);
        match listing.is_text() && !kept.is_empty() {
            true => kept.iter().for_each(|entry| print(&client, listing, entry)),
            false if waits || printed == 0 => listing.print(&client, &kept, &COLUMNS),
            false => {}
        }
        Ok(Outcome::Done)
    }
}

fn print(client: &Client, listing: &Listing, entry: &Value) {
    if client.json || !listing.is_text() {
        return say(&client.in_json(entry));
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
