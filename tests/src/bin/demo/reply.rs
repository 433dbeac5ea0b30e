//! A request of the demo, as curl would send it, and the relevant parts of the answer.
use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;

use harness::{Request, Response};

pub struct Ask {
    pub path: &'static str,
    pub token: Option<String>,
    pub headers: Vec<(&'static str, &'static str)>,
    /// A short note on the user or the error, since all tokens begin alike.
    note: &'static str,
}

#[derive(Debug, Clone)]
pub struct Reply {
    /// 0 if there was none.
    pub status: u16,
    /// Of a refusal.
    pub code: String,
    /// Of a refusal, or why there was no reply.
    detail: String,
    retry_after: Option<String>,
    /// What the upstream received; none if the request did not reach it.
    pub upstream: Option<Received>,
}

#[derive(Debug, Clone)]
pub struct Received {
    /// Headers that only the filter may set, each with every value.
    pub identity: Vec<(String, Vec<String>)>,
    pub token: bool,
}

impl Ask {
    pub fn get(path: &'static str) -> Self {
        Self { path, token: None, headers: Vec::new(), note: "" }
    }

    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn request(&self, envoy: SocketAddr) -> Request {
        let mut request = Request::get(self.path).header("host", envoy.to_string());
        if let Some(token) = &self.token {
            request = request.bearer(token);
        }
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    /// The token is truncated, since the output may end up in a log.
    pub fn curl(&self, envoy: SocketAddr) -> String {
        let mut line = format!("curl {}", url(envoy, self.path));
        if let Some(token) = &self.token {
            let _ = write!(line, " -H 'Authorization: Bearer {}…'", token.get(..8).unwrap_or_default());
        }
        for (name, value) in &self.headers {
            let _ = write!(line, " -H '{name}: {value}'");
        }
        if !self.note.is_empty() {
            let _ = write!(line, "  # {}", self.note);
        }
        line
    }
}

impl Reply {
    pub fn read(response: &Response, identity: &[String]) -> Self {
        let body = response.json();
        let word = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let seen = |name: &String| {
            let values = response.upstream_saw(name);
            (!values.is_empty()).then(|| (name.clone(), values))
        };
        Self {
            status: response.status,
            code: word("code"),
            detail: word("title"),
            retry_after: response.header("retry-after").map(str::to_owned),
            upstream: body["headers"].is_array().then(|| Received {
                identity: identity.iter().filter_map(seen).collect(),
                token: !response.upstream_saw("authorization").is_empty(),
            }),
        }
    }

    pub fn broken(error: &io::Error) -> Self {
        Self { status: 0, code: String::new(), detail: error.to_string(), retry_after: None, upstream: None }
    }

    /// It reached the upstream, and came back.
    pub fn passed(&self) -> bool {
        self.status == 200 && self.upstream.is_some()
    }

    /// It was refused with this status and code, and did not reach the upstream.
    pub fn is(&self, status: u16, code: &str) -> bool {
        self.status == status && self.code == code && self.upstream.is_none()
    }

    /// The upstream received this value under this name, and no other.
    pub fn told(&self, header: &str, value: &str) -> bool {
        let identity = self.upstream.iter().flat_map(|received| &received.identity);
        identity.filter(|(name, _)| name == header).map(|(_, values)| values).eq([&[value.to_owned()]])
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.upstream {
            _ if self.status == 0 => write!(f, "no answer: {}", self.detail),
            Some(received) => {
                write!(f, "{}, from the upstream, which received ", self.status)?;
                let values = |values: &[String]| values.join(" and ");
                let pairs = received.identity.iter().map(|(name, seen)| format!("{name}: {}", values(seen)));
                let pairs = pairs.collect::<Vec<_>>().join(", ");
                f.write_str(if pairs.is_empty() { "no identity" } else { &pairs })?;
                f.write_str(if received.token { ", and the token" } else { "" })
            }
            None => {
                write!(f, "{} {}", self.status, self.code)?;
                if !self.detail.is_empty() {
                    write!(f, " \"{}\"", self.detail)?;
                }
                match &self.retry_after {
                    Some(seconds) => write!(f, ", Retry-After: {seconds}"),
                    None => Ok(()),
                }
            }
        }
    }
}

pub fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}
