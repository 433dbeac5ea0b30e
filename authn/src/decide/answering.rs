//! What the answer to a request must have, for browsers.
use crate::browser::{Answer, Changes};
use crate::policy::Policy;
use crate::request::Pair;

impl Policy {
    /// False if nothing is done about answers to requests of this rule, or of no rule, unless they are of a cookie session.
    pub fn changes_answers(&self, rule: Option<usize>) -> bool {
        self.browser_of(rule).is_some()
    }

    /// The request header by which the upstream gets the nonce of its answer.
    pub fn nonce_header(&self, rule: usize) -> Option<&str> {
        Some(self.browser_of(Some(rule))?.nonce_header.as_ref()?.as_str())
    }

    /// The changes to an answer with these headers.
    pub fn changes(&self, rule: Option<usize>, answer: &Answer, headers: &[Pair<'_>]) -> Changes {
        Changes::new(self.browser_of(rule), answer, headers)
    }

    /// The changes to an answer that the host cannot read.
    pub fn changes_unread(&self, rule: Option<usize>) -> Changes {
        Changes::blind(self.browser_of(rule))
    }

    /// Must trailers of answers be looked at?
    pub fn changes_trailers(&self, rule: Option<usize>) -> bool {
        self.browser_of(rule).is_some_and(|browser| browser.has_trailers_to_remove())
    }

    /// Is a trailer of this name removed from the answer?
    pub fn removes_trailer(&self, rule: Option<usize>, name: &[u8]) -> bool {
        self.browser_of(rule).is_some_and(|browser| browser.removes_trailer(name))
    }
}
