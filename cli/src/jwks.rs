//! `portcullis jwks`: fetches or reads a key set, and shows it as the filter would see it. The decisions about keys are
//! the core's.
//!
//! Exit codes: 0 there are keys that the filter would use; 1 there are none, or it is not a key set; 2 wrong usage; 3
//! the provider cannot be reached, or its answer is not 200.
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use authn::config::Issuer;
use authn::engine::{Key, Material, ParsedSet};
use authn::keys::answer::max_age;
use authn::keys::discovery::{self, Url};
use authn::keys::source::KeySource;
use clap::Args;
use jose::{Algorithm, Family, base64url, jwks, printable};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use crate::document::{self, Secrets};
use crate::outcome::{Outcome, say, wrong_usage};

#[derive(Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).multiple(true).args(["config", "url", "file"]))]
pub struct Jwks {
    /// The filter's configuration, as for `check-config`. It gives the location of the keys of --issuer, and its
    /// algorithms.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "algorithms", "symmetric"], requires = "issuer")]
    config: Option<PathBuf>,
    /// An issuer: with --config its name there, or its `iss`; with --url the `iss`, and then --url is a discovery
    /// document.
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// The key set, or with --issuer a discovery document that must name this issuer.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Read the key set from this file, `-` for standard input, instead of fetching it.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    file: Option<PathBuf>,
    /// An algorithm that the issuer may use, for example RS256. Repeatable; default: all.
    #[arg(long = "alg", value_name = "ALG", value_parser = algorithm)]
    algorithms: Vec<Algorithm>,
    /// Accept `oct` keys too, like `jwks.symmetric`.
    #[arg(long)]
    symmetric: bool,
    /// Trust the CAs in this PEM file instead of those that browsers trust.
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
    /// One JSON document: `{"source", "ok", "keys": [{"kid", "kty", …}], "left_out", "max_age"}` or `{…, "error"}`.
    #[arg(long)]
    json: bool,
}

/// The terms to judge by: the issuer's, or those of the command line.
struct Terms {
    algorithms: Vec<Algorithm>,
    symmetric: bool,
    timeout: Duration,
    fetch: Option<Fetch>,
}

struct Fetch {
    url: String,
    /// The issuer that the document at `url` must name; without it, `url` is the key set itself.
    discovery: Option<String>,
}

/// A key set as received.
struct Text {
    source: String,
    bytes: Vec<u8>,
    cache_control: Option<String>,
}

/// Why there is none. The variants have different exit codes.
enum Failed {
    Unreachable(String),
    Refused(String),
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// The keys at a URL or in a file that the filter could use, whatever their algorithm. Each is read separately, so that
/// two with one key id are both included.
pub fn read(source: &str, ca_file: Option<&Path>) -> Result<Vec<ParsedSet>> {
    let is_url = source.contains("://");
    let jwks = Jwks {
        config: None,
        issuer: None,
        url: is_url.then(|| source.to_owned()),
        file: (!is_url).then(|| source.into()),
        algorithms: Vec::new(),
        symmetric: true,
        ca_file: ca_file.map(Path::to_owned),
        json: false,
    };
    let terms = jwks.terms()?;
    let text = jwks.text(&terms).map_err(|failed| match failed {
        Failed::Unreachable(why) | Failed::Refused(why) => anyhow::anyhow!("{why}"),
    })?;
    let parsed: ParsedSet =
        jwks::parse(&text.bytes, &terms.algorithms, terms.symmetric).with_context(|| source.to_owned())?;
    let set: Value = serde_json::from_slice(jwks::json_text(&text.bytes)?).with_context(|| source.to_owned())?;
    if !set["keys"].is_array() {
        // A map of certificates: no two of its keys have the same id.
        return Ok(vec![parsed]);
    }
    let alone =
        |jwk: &Value| jwks::parse::<Material>(json!({ "keys": [jwk] }).to_string().as_bytes(), &terms.algorithms, true);
    Ok(set["keys"].as_array().into_iter().flatten().filter_map(|jwk| alone(jwk).ok()).collect())
}

impl Jwks {
    pub fn run(self) -> Result<Outcome> {
        let terms = self.terms()?;
        let source = match (&self.file, &terms.fetch) {
            (Some(file), _) => file.display().to_string(),
            (None, Some(fetch)) => fetch.url.clone(),
            (None, None) => wrong_usage("give one of --config, --url and --file"),
        };
        let judged = self.text(&terms).and_then(|text| {
            let parsed = jwks::parse::<Material>(&text.bytes, &terms.algorithms, terms.symmetric);
            let parsed = parsed.map_err(|refused| Failed::Refused(format!("{}: {refused}", text.source)))?;
            Ok((text, parsed))
        });
        match judged {
            Ok((text, parsed)) => {
                if self.json {
                    say(&as_json(&text, &parsed).to_string());
                } else {
                    print(&text, &parsed);
                }
                Ok(if parsed.keys.keys().is_empty() { Outcome::Refused } else { Outcome::Done })
            }
            Err(failed) => {
                let (why, outcome) = match failed {
                    Failed::Unreachable(why) => (why, Outcome::Unconfirmed),
                    Failed::Refused(why) => (why, Outcome::Refused),
                };
                if self.json {
                    say(&json!({ "source": source, "ok": false, "error": why }).to_string());
                } else {
                    eprintln!("portcullis: {why}");
                }
                Ok(outcome)
            }
        }
    }

    fn terms(&self) -> Result<Terms> {
        if let (Some(config), Some(name)) = (&self.config, &self.issuer) {
            return self.configured(config, name);
        }
        let algorithms = if self.algorithms.is_empty() { Algorithm::ALL.to_vec() } else { self.algorithms.clone() };
        let fetch = self.url.clone().map(|url| Fetch { url, discovery: self.issuer.clone() });
        Ok(Terms { algorithms, symmetric: self.symmetric, timeout: TIMEOUT, fetch })
    }

    fn configured(&self, config: &Path, name: &str) -> Result<Terms> {
        // No secret is needed here.
        let compiled = document::read_one(config, &Secrets::assumed())?;
        let is_it = |(place, issuer): &(usize, &Issuer)| {
            compiled.policy.issuer_name(*place) == Some(name)
                || issuer.issuer == name
                || compiled.policy.issuer_index(name) == Some(*place)
        };
        let Some((place, issuer)) = compiled.document.issuers.iter().enumerate().find(is_it) else {
            bail!("{} has no issuer `{name}`", config.display());
        };
        let keyrings = compiled.policy.keyrings();
        let (Some(settings), Some(document)) = (keyrings.source(place).map(KeySource::settings), issuer.jwks.as_ref())
        else {
            bail!("the keys of `{name}` are in {} itself: see `portcullis check-config`", config.display());
        };
        let fetch = match &document.uri {
            Some(uri) => Fetch { url: uri.clone(), discovery: None },
            None => Fetch {
                url: format!("{}/.well-known/openid-configuration", issuer.issuer.trim_end_matches('/')),
                discovery: Some(issuer.issuer.clone()),
            },
        };
        Ok(Terms {
            algorithms: settings.algorithms.clone(),
            symmetric: settings.symmetric,
            timeout: settings.timeout,
            fetch: Some(fetch),
        })
    }

    fn text(&self, terms: &Terms) -> Result<Text, Failed> {
        if let Some(file) = &self.file {
            let source = file.display().to_string();
            let bytes = if file == Path::new("-") {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
            } else {
                std::fs::read(file)
            };
            let bytes = bytes.map_err(|error| Failed::Refused(format!("{source}: {error}")))?;
            return Ok(Text { source, bytes, cache_control: None });
        }
        let Some(fetch) = &terms.fetch else { wrong_usage("give one of --config, --url and --file") };
        let agent = self.agent(terms.timeout)?;
        let Some(issuer) = &fetch.discovery else { return get(&agent, &fetch.url) };
        let document = get(&agent, &fetch.url)?;
        let refused = |why: String| Failed::Refused(format!("{}: {why}", fetch.url));
        discovery::parse(&document.bytes, issuer).map_err(|error| refused(error.to_string()))?;
        // The complete URL: the filter's own form of it has no scheme, since in Envoy the cluster decides on TLS.
        let text = jwks::json_text(&document.bytes).map_err(|error| refused(error.to_string()))?;
        let document: Value = serde_json::from_slice(text).map_err(|error| refused(error.to_string()))?;
        get(&agent, document["jwks_uri"].as_str().unwrap_or_default())
    }

    fn agent(&self, timeout: Duration) -> Result<Agent, Failed> {
        let mut tls = TlsConfig::builder();
        if let Some(file) = &self.ca_file {
            let roots = certificates(file).map_err(|error| Failed::Refused(format!("{error:#}")))?;
            tls = tls.root_certs(RootCerts::from(roots));
        }
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // The filter does not follow redirects.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls.build());
        Ok(Agent::new_with_config(config.build()))
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.with_context(|| file.display().to_string())? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        bail!("{} has no certificate", file.display());
    }
    Ok(certificates)
}

fn get(agent: &Agent, url: &str) -> Result<Text, Failed> {
    Url::parse(url).map_err(|why| Failed::Refused(format!("{url}: {why}")))?;
    let unreachable = |why: String| Failed::Unreachable(format!("{url}: {why}"));
    let answer = agent.get(url).header("accept", "application/json").header("accept-encoding", "identity").call();
    let mut answer = answer.map_err(|error| unreachable(error.to_string()))?;
    if answer.status() != 200 {
        return Err(unreachable(format!("status {}", answer.status().as_u16())));
    }
    let header = answer.headers().get("cache-control").and_then(|value| value.to_str().ok());
    let cache_control = header.map(str::to_owned);
    let mut bytes = Vec::new();
    let most = u64::try_from(jwks::MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let read = answer.body_mut().as_reader().take(most).read_to_end(&mut bytes);
    read.map_err(|error| unreachable(error.to_string()))?;
    Ok(Text { source: url.to_owned(), bytes, cache_control })
}

fn print(text: &Text, parsed: &ParsedSet) {
    let (keys, left_out) = (parsed.keys.keys(), &parsed.left_out);
    let count = left_out.len().saturating_add(parsed.beyond);
    say(&format!("{}: {} keys, {count} left out", text.source, keys.len()));
    for key in keys {
        let kid = key.kid().map_or_else(|| "(none)".to_owned(), printable);
        let algorithms: Vec<_> = key.algorithms().iter().map(|algorithm| algorithm.name()).collect();
        say(&format!("  kid {kid}: {}, verifies {}", kind(key), algorithms.join(" ")));
        if let Some(thumbprint) = thumbprint(key) {
            say(&format!("    thumbprint {thumbprint}"));
        }
    }
    for why in left_out {
        say(&format!("  left out: {why}"));
    }
    if parsed.beyond > 0 {
        say(&format!("  left out: {} beyond the first {} members", parsed.beyond, jwks::MAX_MEMBERS));
    }
    for name in &parsed.for_encryption {
        say(&format!("  for encryption, not for signatures: {name}"));
    }
    if let Some(age) = text.cache_control.as_deref().and_then(max_age) {
        say(&match age.as_secs() {
            0 => "  not to be cached: the filter fetches again after its own `refresh`".to_owned(),
            age => {
                format!("  max-age {age} s: the filter fetches again then, within its own `min_refresh` and `refresh`")
            }
        });
    }
}

fn as_json(text: &Text, parsed: &ParsedSet) -> Value {
    let keys: Vec<_> = parsed
        .keys
        .keys()
        .iter()
        .map(|key| {
            let (kty, crv) = names(key);
            let algorithms: Vec<_> = key.algorithms().iter().map(|algorithm| algorithm.name()).collect();
            json!({
                "kid": key.kid(), "kty": kty, "crv": crv, "bits": key.rsa_bits(), "algorithms": algorithms,
                "thumbprint": thumbprint(key),
            })
        })
        .collect();
    let max_age = text.cache_control.as_deref().and_then(max_age).map(|age| age.as_secs());
    json!({
        "source": text.source, "ok": !keys.is_empty(), "keys": keys, "left_out": parsed.left_out, "beyond": parsed.beyond,
        "for_encryption": parsed.for_encryption, "max_age": max_age,
    })
}

fn kind(key: &Key) -> String {
    match (names(key), key.rsa_bits()) {
        ((kty, Some(crv)), _) => format!("{kty} {crv}"),
        ((kty, None), Some(bits)) => format!("{kty} of {bits} bits"),
        ((kty, None), None) => kty.to_owned(),
    }
}

/// `kty` and `crv` (RFC 7518 section 6, RFC 8037 section 2).
fn names(key: &Key) -> (&'static str, Option<&'static str>) {
    match key.family() {
        Family::Hmac => ("oct", None),
        Family::Rsa => ("RSA", None),
        Family::P256 => ("EC", Some("P-256")),
        Family::P384 => ("EC", Some("P-384")),
        Family::P521 => ("EC", Some("P-521")),
        Family::Ed25519 => ("OKP", Some("Ed25519")),
    }
}

/// In the form that `portcullis revoke key --id` takes. None for a secret: it would help to guess it.
fn thumbprint(key: &Key) -> Option<String> {
    (key.family() != Family::Hmac).then(|| base64url::encode(key.thumbprint()))
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(name).ok_or_else(|| {
        let known = Algorithm::ALL.map(Algorithm::name);
        format!("is none of {}", known.join(", "))
    })
}
