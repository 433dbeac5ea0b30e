//! A local reply that waits until everything else about its request is done.
use authn::browser::Edit;
use authn::request::Pair;
use driver::{HostError, LocalReply, Response};

use crate::envoy::{HeaderMap, Reply, Stream};

pub struct OwnedReply {
    status: u16,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    details: String,
}

impl OwnedReply {
    pub fn new(status: u16, headers: Vec<(Vec<u8>, Vec<u8>)>, body: Vec<u8>, details: &str) -> Self {
        Self { status, headers, body, details: details.to_owned() }
    }

    pub fn of(reply: &LocalReply<'_>) -> Self {
        let headers = reply.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        Self::new(reply.status, headers, reply.body.to_vec(), reply.details)
    }

    /// 503 as a problem document (RFC 9457), for failures without a rejection of `authn`. Both texts are plain.
    pub fn unavailable(details: &str, title: &str) -> Self {
        let body = format!(r#"{{"type":"about:blank","title":"{title}","status":503}}"#);
        let headers = vec![
            (b"content-type".to_vec(), b"application/problem+json".to_vec()),
            (b"retry-after".to_vec(), b"1".to_vec()),
        ];
        Self::new(503, headers, body.into_bytes(), details)
    }

    /// With the gRPC status of this HTTP status if the request is a gRPC call. Without it, Envoy answers such a call
    /// with `grpc-status: 0`, which is OK.
    #[must_use]
    pub fn for_request(mut self, stream: &Stream<'_>) -> Self {
        let content_type = stream.header(HeaderMap::Request, b"content-type");
        if content_type.is_some_and(|(value, _)| is_grpc(value)) {
            self.headers.push((b"grpc-status".to_vec(), grpc_status(self.status).to_string().into_bytes()));
        }
        self
    }

    pub fn send(&self, stream: Stream<'_>) {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        stream.reply(&Reply {
            status: self.status,
            headers: &headers,
            body: &self.body,
            details: self.details.as_bytes(),
        });
    }
}

/// Envoy does not run the hook for response headers for a reply of the module that sends it.
impl Response for OwnedReply {
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError> {
        let pairs: Vec<Pair<'_>> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        Ok(read(&pairs))
    }

    fn edit(&mut self, edit: &Edit) -> Result<(), HostError> {
        let mut remove = |name: &[u8]| self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        match edit {
            Edit::Remove(name) => remove(name),
            Edit::Set(name, value) => {
                remove(name.as_bytes());
                self.headers.push((name.as_bytes().to_vec(), value.clone()));
            }
            Edit::Append(name, value) => self.headers.push((name.as_bytes().to_vec(), value.clone())),
        }
        Ok(())
    }
}

/// As Envoy recognises gRPC calls: `application/grpc`, alone or with a suffix or a parameter.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}

/// As Envoy maps what an upstream answers (gRPC's "HTTP to gRPC Status Code Mapping").
fn grpc_status(http: u16) -> u8 {
    match http {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
