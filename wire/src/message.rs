//! The bytes of a message between filter and service: read from the front, signed at the end.
use hmac::Mac as _;

use crate::DerivedKeys;

/// What is left to read. Nothing is read out of bounds.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }
}

/// A reply, with the MAC of replies at its end.
pub(crate) fn sign(derived: &DerivedKeys, mut reply: Vec<u8>) -> Vec<u8> {
    let mut mac = derived.reply_mac();
    mac.update(&reply);
    reply.extend_from_slice(&mac.finalize().into_bytes());
    reply
}
