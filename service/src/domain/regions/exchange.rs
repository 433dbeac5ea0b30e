//! One request to another region and its reply, bounded in time and size. Only a reply with the region's MAC counts.
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::rand;
use tokio::sync::oneshot;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};
use wire::DerivedKeys;
use wire::check::{Needs, ReplyError, StoreError};
use wire::feed::Trouble;
use wire::join::{Asking, CONTENT_TYPE, MAX_REPLY_BYTES, PATH, Question, Reply};

use crate::base::current::Current;

/// For one request and its reply, of which the region may hold the request for a part.
const LIMIT: Duration = Duration::from_secs(8);
/// How often the files of TLS are read again.
const REREAD: Duration = Duration::from_secs(60);
/// The longest reason of a failure in a log line.
const MAX_REASON: usize = 200;

/// Another region, as a follower sees it.
#[async_trait]
pub trait Exchange: fmt::Debug + Send + Sync {
    /// For metrics and log lines.
    fn name(&self) -> &str;

    /// With this secret from the next request on.
    fn ask_with(&self, secret: &DerivedKeys);

    /// The reply, and when the request was sent.
    ///
    /// # Errors
    /// See [`AskError`].
    async fn ask(&self, question: &Question, needs: Needs) -> Result<(Reply, Instant), AskError>;
}

/// Why a region was not followed for the moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it refuses our requests with status {0}: is it joined, with the same join secret?")]
    Refused(u16),
    #[error("{0}")]
    Reply(ReplyError),
    #[error("it cannot tell: {}", .0.name())]
    Trouble(Trouble),
    /// Made with our secret, and not what a region sends.
    #[error("its reply breaks the protocol: {0}")]
    Protocol(&'static str),
    #[error("the URL leads to our own store")]
    Ourselves,
    #[error("our own store: {}", .0.name())]
    OurStore(StoreError),
}

/// The files for TLS to other regions. None: the CAs of the web, and no client certificate.
#[derive(Debug, Clone, Default)]
pub struct PeerTls {
    pub ca: Option<PathBuf>,
    pub certificate: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("`join` must be http:// or https:// and a host, without path and query: {0}")]
    Url(String),
    #[error("`join` names {0} twice")]
    Twice(String),
    #[error("at most {} regions can be joined", super::MAX_REGIONS)]
    TooMany,
    #[error("{path}: {why}")]
    File { path: PathBuf, why: String },
}

/// A region at a URL.
pub struct Peer {
    name: String,
    url: String,
    tls: PeerTls,
    /// And when the files of TLS were read for it.
    agent: Mutex<(Agent, Instant)>,
    secret: Current<DerivedKeys>,
}

impl Peer {
    /// # Errors
    /// See [`PeerError`].
    pub fn all(urls: &[String], tls: &PeerTls, secret: &DerivedKeys) -> Result<Vec<Self>, PeerError> {
        if urls.len() > super::MAX_REGIONS {
            return Err(PeerError::TooMany);
        }
        let mut peers: Vec<Self> = Vec::new();
        for url in urls {
            let name = host_of(url).ok_or_else(|| PeerError::Url(url.clone()))?;
            if peers.iter().any(|peer| peer.name == name) {
                return Err(PeerError::Twice(name.to_owned()));
            }
            let (name, agent) = (name.to_owned(), Mutex::new((tls.agent()?, Instant::now())));
            let url = format!("{}{PATH}", url.trim_end_matches('/'));
            peers.push(Self { name, url, tls: tls.clone(), agent, secret: Arc::new(secret.clone()).into() });
        }
        Ok(peers)
    }

    /// Certificates are replaced while we run. Those that cannot be read do not take the place of the ones in use.
    fn agent(&self) -> Agent {
        let mut kept = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if self.tls.has_files() && kept.1.elapsed() > REREAD {
            match self.tls.agent() {
                Ok(agent) => kept.0 = agent,
                Err(error) => tracing::warn!(region = self.name, %error, "the last files for TLS stay in use"),
            }
            kept.1 = Instant::now();
        }
        kept.0.clone()
    }
}

#[async_trait]
impl Exchange for Peer {
    fn name(&self) -> &str {
        &self.name
    }

    fn ask_with(&self, secret: &DerivedKeys) {
        self.secret.replace(Arc::new(secret.clone()));
    }

    async fn ask(&self, question: &Question, needs: Needs) -> Result<(Reply, Instant), AskError> {
        let failed = |why: &str| AskError::Unreachable(why.to_owned());
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).map_err(|_| failed("no randomness"))?;
        let secret = self.secret.get();
        let asking = Asking::new(&secret, nonce, needs, question);
        let (agent, url) = (self.agent(), self.url.clone());
        let sent = Instant::now();
        let (tell, told) = oneshot::channel();
        // A thread of its own, as for provider events: the end of the service must not wait for the region.
        let thread = std::thread::Builder::new().name("join".into());
        let spawned = thread.spawn(move || {
            let _ = tell.send(exchange(&agent, &url, &secret, &asking));
        });
        spawned.map_err(|_| failed("no thread can be started"))?;
        let reply = told.await.unwrap_or_else(|_| Err(failed("the request failed")))?;
        Ok((reply, sent))
    }
}

fn exchange(agent: &Agent, url: &str, secret: &DerivedKeys, asking: &Asking) -> Result<Reply, AskError> {
    let failed = |error: ureq::Error| {
        let mut why = error.to_string();
        why.truncate(why.floor_char_boundary(MAX_REASON));
        AskError::Unreachable(why)
    };
    let mut answer = agent.post(url).content_type(CONTENT_TYPE).send(asking.bytes()).map_err(failed)?;
    let status = answer.status().as_u16();
    let limit = u64::try_from(MAX_REPLY_BYTES).unwrap_or(u64::MAX);
    let body = answer.body_mut().with_config().limit(limit).read_to_vec().map_err(failed)?;
    match asking.read_reply(secret, status, &body) {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(trouble)) => Err(AskError::Trouble(trouble)),
        // Whatever answered, it has not our secret. The status is all that may help to find out.
        Err(_) if status != 200 => Err(AskError::Refused(status)),
        Err(error) => Err(AskError::Reply(error)),
    }
}

impl PeerTls {
    fn has_files(&self) -> bool {
        self.ca.is_some() || self.certificate.is_some()
    }

    fn agent(&self) -> Result<Agent, PeerError> {
        let roots = match &self.ca {
            None => RootCerts::WebPki,
            Some(path) => RootCerts::from(certificates(path)?),
        };
        let client = self.certificate.as_ref().map(|(certificate, key)| {
            let chain = certificates(certificate)?;
            let key = PrivateKey::from_pem(&read(key)?).map_err(|error| wrong(key, error.to_string()))?;
            Ok::<_, PeerError>(ClientCert::new_with_certs(&chain, key))
        });
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .client_cert(client.transpose()?)
            .root_certs(roots);
        let config = Agent::config_builder()
            .timeout_global(Some(LIMIT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls.build());
        Ok(Agent::new_with_config(config.build()))
    }
}

fn wrong(path: &std::path::Path, why: String) -> PeerError {
    PeerError::File { path: path.to_owned(), why }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, PeerError> {
    std::fs::read(path).map_err(|error| wrong(path, format!("cannot be read: {error}")))
}

fn certificates(path: &std::path::Path) -> Result<Vec<Certificate<'static>>, PeerError> {
    let text = read(path)?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(path, format!("is not PEM: {error}")))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(wrong(path, "has no certificate".to_owned()));
    }
    Ok(certificates)
}

/// `None`: this is not the URL of a region.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.strip_suffix('/').unwrap_or(rest);
    let is_host = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte));
    (!host.is_empty() && host.len() <= 255 && is_host).then_some(host)
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_named_by_its_host() {
        assert_eq!(host_of("https://eu.example.com/"), Some("eu.example.com"));
        assert_eq!(host_of("http://10.0.0.1:7700"), Some("10.0.0.1:7700"));
        assert_eq!(host_of("https://[2001:db8::1]:7700"), Some("[2001:db8::1]:7700"));
        for wrong in
            ["", "eu.example.com", "https://", "ftp://a", "https://a/v1", "https://a?b", "https://u@a", "redis://a"]
        {
            assert_eq!(host_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_region_is_joined_once_and_its_files_must_be_usable() {
        let secret = wire::Secret::new(&[7; 32]).unwrap().derive();
        let all = |urls: &[&str], tls: &PeerTls| {
            Peer::all(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>(), tls, &secret)
                .map_err(|e| e.to_string())
        };
        let tls = PeerTls::default();
        assert_eq!(all(&["https://a", "http://b:1"], &tls).unwrap().len(), 2);
        assert!(all(&["https://a", "http://a/"], &tls).unwrap_err().contains("twice"));
        assert!(all(&["https://a"; 17], &tls).unwrap_err().contains("at most 16"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let tls = PeerTls { ca: Some(file.path().to_owned()), certificate: None };
        assert!(all(&["https://a"], &tls).unwrap_err().contains("has no certificate"));
    }
}
