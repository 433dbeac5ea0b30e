//! Header maps in the host's format:
//! `count u32 | (name length u32, value length u32) × count | (name 0 value 0) × count`, little-endian.

/// Far more headers than Envoy accepts by default (100); a larger count is a broken buffer.
const MAX_PAIRS: usize = 1024;

/// The pairs of a buffer, borrowed. `None` if the buffer does not have this format.
pub fn read(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (count, rest) = take_u32(bytes)?;
    if count > MAX_PAIRS {
        return None;
    }
    let (mut sizes, mut data) = rest.split_at_checked(count.checked_mul(8)?)?;
    let mut pairs = Vec::with_capacity(count);
    while !sizes.is_empty() {
        let (name_size, after) = take_u32(sizes)?;
        let (value_size, after) = take_u32(after)?;
        sizes = after;
        let (name, after) = take_terminated(data, name_size)?;
        let (value, after) = take_terminated(after, value_size)?;
        data = after;
        pairs.push((name, value));
    }
    Some(pairs)
}

pub fn write(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::with_capacity(pairs.iter().fold(4, |sum: usize, (name, value)| {
        sum.saturating_add(name.len()).saturating_add(value.len()).saturating_add(10)
    }));
    out.extend_from_slice(&u32::try_from(pairs.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (name, value) in pairs {
        out.extend_from_slice(&size(name));
        out.extend_from_slice(&size(value));
    }
    for (name, value) in pairs {
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

fn take_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*head)).ok()?, rest))
}

fn take_terminated(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (taken, rest) = bytes.split_at_checked(size)?;
    let (_zero, rest) = rest.split_first()?;
    Some((taken, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_as_written() {
        let pairs: [(&[u8], &[u8]); 3] = [(b":path", b"/"), (b"x", b""), (b"\xff", b"\xfe\0\x01")];
        assert_eq!(read(&write(&pairs)).unwrap(), pairs);
        assert_eq!(read(&write(&[])).unwrap(), []);
        assert_eq!(read(b"").unwrap(), []);
    }

    #[test]
    fn a_cut_buffer_is_refused_wherever_it_is_cut() {
        let whole = write(&[(b"name", b"value"), (b"a", b"b")]);
        for at in 1..whole.len() {
            assert_eq!(read(&whole[..at]), None, "{at}");
        }
        assert_eq!(read(&u32::MAX.to_le_bytes()), None);
    }
}
