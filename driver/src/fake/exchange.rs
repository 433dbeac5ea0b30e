//! One request: its headers as they are edited, and the reply that the filter gives.
use std::net::IpAddr;

use authn::browser;
use authn::decide::Peer;
use authn::request::Pair;

use crate::host::{Conclusion, Edit, Exchange, HostError, LocalReply, Response};

/// A reply of the filter's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub status: u16,
    /// The code of the rejection.
    pub details: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// The headers of an answer, as they are edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeResponse(pub Vec<(String, String)>);

impl Response for FakeResponse {
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError> {
        let pairs: Vec<Pair<'_>> = self.0.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        Ok(read(&pairs))
    }

    fn edit(&mut self, edit: &browser::Edit) -> Result<(), HostError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match edit {
            browser::Edit::Remove(name) => self.0.retain(|(other, _)| other.as_bytes() != name),
            browser::Edit::Set(name, value) => {
                self.0.retain(|(other, _)| other != name);
                self.0.push(((*name).to_owned(), text(value)));
            }
            browser::Edit::Append(name, value) => self.0.push(((*name).to_owned(), text(value))),
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub struct FakeExchange {
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub address: Option<IpAddr>,
    pub certificate_sha256: Option<Vec<u8>>,
    /// Of whoever opened the connection.
    pub certificate_uri: Option<Vec<u8>>,
    pub reply: Option<Sent>,
    /// What was exposed of the request, by name.
    pub exposed: Vec<(String, String)>,
    /// How often the route was chosen anew.
    pub routes_chosen: usize,
    /// The host cannot read the headers.
    pub is_unreadable: bool,
    /// The host refuses to change headers of this name.
    pub refuses_edits_of: Option<Vec<u8>>,
    /// The host refuses to send replies, and to reset streams.
    pub refuses_replies: bool,
    /// Its stream was ended after its response had begun.
    pub is_reset: bool,
}

impl FakeExchange {
    /// Names in lower case, pseudo headers included, as a proxy hands them over.
    pub fn new(headers: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        Self {
            headers,
            address: Some(IpAddr::from([127, 0, 0, 1])),
            certificate_sha256: None,
            certificate_uri: None,
            reply: None,
            exposed: Vec::new(),
            routes_chosen: 0,
            is_unreadable: false,
            refuses_edits_of: None,
            refuses_replies: false,
            is_reset: false,
        }
    }

    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(other, _)| other == name.as_bytes()).map(|(_, value)| value.as_slice())
    }
}

impl Exchange for FakeExchange {
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError> {
        assert!(self.reply.is_none(), "a request that has its reply is asked");
        if self.is_unreadable {
            return Err(HostError(10));
        }
        let pairs: Vec<Pair<'_>> =
            self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        Ok(read(&pairs))
    }

    fn edit(&mut self, edit: Edit<'_>) -> Result<(), HostError> {
        assert!(self.reply.is_none(), "a request that has its reply is changed");
        let (name, value) = match edit {
            Edit::Remove(name) => (name, None),
            Edit::Set(name, value) => (name, Some(value)),
            Edit::Add(name, value) => {
                assert!(self.headers.iter().all(|(other, _)| !other.eq_ignore_ascii_case(name)), "a second value");
                (name, Some(value))
            }
        };
        if self.refuses_edits_of.as_deref() == Some(name) {
            return Err(HostError(10));
        }
        self.headers.retain(|(other, _)| other != name);
        self.headers.extend(value.map(|value| (name.to_vec(), value.to_vec())));
        Ok(())
    }

    fn choose_route_anew(&mut self) -> Result<(), HostError> {
        self.routes_chosen += 1;
        Ok(())
    }

    fn conclude(&mut self, conclusion: &Conclusion<'_>) {
        self.exposed = conclusion.texts().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    fn reply(&mut self, reply: &LocalReply<'_>) -> Result<(), HostError> {
        assert!(self.reply.is_none(), "a request has two replies");
        if self.refuses_replies {
            return Err(HostError(10));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.reply = Some(Sent {
            status: reply.status,
            details: reply.details.to_owned(),
            headers: reply.headers.iter().map(|(name, value)| (text(name), text(value))).collect(),
            body: text(reply.body),
        });
        Ok(())
    }

    fn reset(&mut self) -> Result<(), HostError> {
        assert!(!self.is_reset, "a stream is reset twice");
        if self.refuses_replies {
            return Err(HostError(10));
        }
        self.is_reset = true;
        Ok(())
    }
}

impl Peer for FakeExchange {
    fn address(&self) -> Option<IpAddr> {
        self.address
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        self.certificate_sha256.clone()
    }

    fn certificate_uri(&self) -> Option<Vec<u8>> {
        self.certificate_uri.clone()
    }
}
