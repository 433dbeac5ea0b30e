//! Fields of a value, one after the other, without a description. A value that does not have exactly its fields is not ours.

/// Writes fields. A field of variable length begins with its length, except the last.
#[derive(Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as u64).rest(bytes)
    }

    pub fn optional(self, bytes: Option<&[u8]>) -> Self {
        match bytes {
            None => self.byte(0),
            Some(bytes) => self.byte(1).bytes(bytes),
        }
    }

    /// The last field.
    pub fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn end(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what [`Encoder`] wrote.
#[derive(Debug)]
pub struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn number(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*first))
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    /// The outer `None`: not ours.
    pub fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.bytes().map(Some),
            _ => None,
        }
    }

    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// `None`: there is more.
    pub fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written_and_a_part_is_refused() {
        let value = Encoder::default().byte(7).number(9).bytes(b"abc").optional(None).optional(Some(b"x")).end();
        let read = |bytes: &[u8]| {
            let mut from = Decoder(bytes);
            let fields = (from.byte()?, from.number()?, from.bytes()?.to_vec(), from.optional()?, from.optional()?);
            let fields = (fields.0, fields.1, fields.2, fields.3.map(<[u8]>::to_vec), fields.4.map(<[u8]>::to_vec));
            from.end().map(|()| fields)
        };
        assert_eq!(read(&value), Some((7, 9, b"abc".to_vec(), None, Some(b"x".to_vec()))));
        for length in 0..value.len() {
            assert_eq!(read(&value[..length]), None, "{length}");
        }
        assert_eq!(read(&[&value[..], b"y"].concat()), None);
    }
}
