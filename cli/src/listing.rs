//! What the commands that list have in common: which entries are printed, in what order and form. The service knows who
//! is meant only after it has decrypted an entry, so they are chosen here.
use std::net::{IpAddr, SocketAddr};

use authn::time::UnixSeconds;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use wire::Cidr;

use crate::admin::{Client, TIMES};
use crate::instant::date;
use crate::outcome::{printable, say};

#[derive(Args)]
pub struct Listing {
    /// Only those of this issuer.
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// Only those of this client.
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// Only those whose reason contains this text.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How they are printed. `text`: one in a line, with the names of its members. Times are in UTC.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Skip the first N that match. With --limit and --sort, this gives pages.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    skip: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    /// Aligned columns.
    Table,
    /// One JSON array.
    Json,
    /// One JSON object in each line, as with --json.
    Jsonl,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    Newest,
    Oldest,
}

/// Which of them are printed, in addition to [`Listing`].
#[derive(Default)]
pub struct Wanted<'w> {
    pub subject: Option<&'w str>,
    pub kind: Option<&'w str>,
    pub since: Option<UnixSeconds>,
    /// The caller's address (of an audit entry), or one that may use it (of a session that is bound to addresses).
    pub ip: Option<IpAddr>,
}

/// Members of an entry under the names that lists give them.
struct Names {
    issuer: [&'static str; 2],
    at: [&'static str; 3],
}

const NAMES: Names = Names { issuer: ["issuer", "iss"], at: ["at", "created", "time"] };
/// The most characters of one cell.
const MAX_CELL: usize = 60;

impl Listing {
    pub fn wants(&self, entry: &Value, wanted: &Wanted<'_>) -> bool {
        let is = |names: &[&str], value: &str| names.iter().any(|name| entry[*name] == value);
        let is_kind_with_id = |kind: &str, id: &str| entry["kind"] == kind && entry["id"] == id;
        let contains = |name: &str, text: &str| {
            let lower = |text: &str| text.to_lowercase();
            entry[name].as_str().is_some_and(|value| lower(value).contains(&lower(text)))
        };
        let at = || NAMES.at.iter().find_map(|name| entry[*name].as_u64());
        self.issuer.as_deref().is_none_or(|issuer| is(&NAMES.issuer, issuer))
            && self.client.as_deref().is_none_or(|id| is(&["client_id"], id) || is_kind_with_id("client", id))
            && self.reason.as_deref().is_none_or(|text| contains("reason", text))
            && wanted.subject.is_none_or(|id| is(&["sub", "subject"], id) || is_kind_with_id("user", id))
            && wanted.kind.is_none_or(|kind| is(&["kind"], kind))
            && wanted.since.is_none_or(|since| at().is_some_and(|at| at >= since.0))
            && wanted.ip.is_none_or(|ip| is_of_address(entry, ip))
    }

    /// Must all be known before the first is printed?
    pub fn is_whole(&self) -> bool {
        matches!(self.output, Output::Table | Output::Json)
    }

    /// The form that each command has of its own.
    pub fn is_text(&self) -> bool {
        self.output == Output::Text
    }

    /// How many of those that match are needed for all that are printed.
    pub fn needed(&self) -> usize {
        self.skip.saturating_add(self.limit)
    }

    /// Those that are printed, if `before` have matched before these.
    pub fn page(&self, entries: Vec<Value>, before: usize) -> Vec<Value> {
        let skip = self.skip.saturating_sub(before);
        let left = self.needed().saturating_sub(before.max(self.skip));
        entries.into_iter().skip(skip).take(left).collect()
    }

    /// Are some left out for what they are?
    pub fn filters(&self, wanted: &Wanted<'_>) -> bool {
        self.issuer.is_some()
            || self.client.is_some()
            || self.reason.is_some()
            || wanted.subject.is_some()
            || wanted.kind.is_some()
            || wanted.ip.is_some()
    }

    /// Prints all of them. `columns` of a table.
    pub fn print(&self, client: &Client, entries: &[Value], columns: &[&str]) {
        match self.output {
            Output::Text => entries.iter().for_each(|entry| client.print(entry)),
            Output::Jsonl => entries.iter().for_each(|entry| say(&client.in_json(entry))),
            Output::Json => say(&client.in_json(&json!(entries))),
            Output::Table => table(entries, columns).iter().for_each(|line| say(line)),
        }
        if entries.is_empty() && !client.json && self.output != Output::Json && self.output != Output::Jsonl {
            eprintln!("portcullis: nothing matched");
        }
    }
}

fn is_of_address(entry: &Value, ip: IpAddr) -> bool {
    let from = entry["from"]
        .as_str()
        .and_then(|from| from.parse().ok().or_else(|| from.parse::<SocketAddr>().ok().map(|address| address.ip())));
    let blocks = entry["binding"]["client_addresses"].as_array().into_iter().flatten();
    let mut blocks = blocks.filter_map(|block| Cidr::parse(block.as_str()?));
    from.is_some_and(|from: IpAddr| from.to_canonical() == ip.to_canonical()) || blocks.any(|block| block.contains(ip))
}

/// By the time of each.
pub fn sort(entries: &mut [Value], order: Order) {
    let at = |entry: &Value| NAMES.at.iter().find_map(|name| entry[*name].as_u64()).unwrap_or_default();
    entries.sort_by_key(at);
    if order == Order::Newest {
        entries.reverse();
    }
}

fn table(entries: &[Value], columns: &[&str]) -> Vec<String> {
    let cell = |entry: &Value, name: &str| {
        let text = match &entry[name] {
            Value::Null => "-".to_owned(),
            Value::Number(seconds) if TIMES.contains(&name) => seconds.as_u64().map_or("-".to_owned(), date),
            Value::String(text) => printable(text),
            other => other.to_string(),
        };
        match text.char_indices().nth(MAX_CELL) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    };
    let header: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
    let rows = entries.iter().map(|entry| columns.iter().map(|name| cell(entry, name)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(output: Output) -> Listing {
        Listing { issuer: None, client: None, reason: None, output, limit: usize::MAX, skip: 0 }
    }

    #[test]
    fn entries_are_chosen_by_what_each_list_calls_its_members() {
        let revoked = json!({ "kind": "user", "issuer": "i", "id": "alice", "reason": "Stolen laptop", "at": 1 });
        let audited = json!({ "iss": "i", "sub": "alice", "client_id": "app", "at": u64::MAX });
        let all = listing(Output::Text);
        let alice = Wanted { subject: Some("alice"), ..Wanted::default() };
        assert!(all.wants(&revoked, &alice) && all.wants(&audited, &alice));
        let recent = Wanted { since: Some(UnixSeconds(2)), ..Wanted::default() };
        assert!(!all.wants(&revoked, &recent) && all.wants(&audited, &recent));
        let stolen = Listing { reason: Some("LAPTOP".into()), ..listing(Output::Text) };
        assert!(stolen.wants(&revoked, &Wanted::default()) && !stolen.wants(&audited, &Wanted::default()));
        let app = Listing { client: Some("app".into()), issuer: Some("i".into()), ..listing(Output::Text) };
        assert!(!app.wants(&revoked, &Wanted::default()) && app.wants(&audited, &Wanted::default()));
        let bound = json!({ "binding": { "client_addresses": ["10.0.0.0/8", "2001:db8::/32"] } });
        for (entry, ip, is_wanted) in [
            (&bound, "10.1.2.3", true),
            (&bound, "::ffff:10.1.2.3", true),
            (&bound, "2001:db8::1", true),
            (&bound, "11.0.0.1", false),
            (&json!({ "from": "192.0.2.7" }), "192.0.2.7", true),
            (&json!({ "from": "192.0.2.7:4711" }), "192.0.2.7", true),
            (&json!({ "from": "192.0.2.70" }), "192.0.2.7", false),
            (&json!({}), "192.0.2.7", false),
        ] {
            let of_address = Wanted { ip: ip.parse().ok(), ..Wanted::default() };
            assert_eq!(all.wants(entry, &of_address), is_wanted, "{entry} {ip}");
        }
        let of_kind = Wanted { kind: Some("session"), ..Wanted::default() };
        assert!(!all.wants(&revoked, &of_kind));
    }

    #[test]
    fn pages_are_the_same_whether_entries_come_at_once_or_in_parts() {
        let listing = Listing { skip: 2, limit: 3, ..listing(Output::Text) };
        let all: Vec<Value> = (0..9).map(|number| json!(number)).collect();
        assert_eq!(listing.page(all.clone(), 0), [json!(2), json!(3), json!(4)]);
        for size in 1..5 {
            let parts = all.chunks(size).enumerate();
            let printed: Vec<Value> = parts.flat_map(|(at, part)| listing.page(part.to_vec(), at * size)).collect();
            assert_eq!(printed, [json!(2), json!(3), json!(4)], "{size}");
        }
        assert_eq!(listing.needed(), 5);
    }

    #[test]
    fn a_table_has_aligned_columns_readable_times_and_no_lines_of_others() {
        let entries = [json!({ "at": 0, "id": "a" }), json!({ "at": 86_400, "id": "b\nc", "by": "x".repeat(90) })];
        let lines = table(&entries, &["at", "id", "by"]);
        assert_eq!(lines[0], "AT                    ID    BY");
        assert_eq!(lines[1], "1970-01-01T00:00:00Z  a     -");
        assert!(lines[2].starts_with("1970-01-02T00:00:00Z  b\\nc  xxx") && lines[2].ends_with("..."), "{}", lines[2]);
    }

    #[test]
    fn they_are_sorted_by_their_times() {
        let mut entries = [json!({ "at": 2 }), json!({ "at": 3 }), json!({ "at": 1 })];
        sort(&mut entries, Order::Newest);
        assert_eq!(entries, [json!({ "at": 3 }), json!({ "at": 2 }), json!({ "at": 1 })]);
    }
}
