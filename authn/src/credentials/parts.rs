//! Removal of parts from a list of bytes, such as parameters of a query or cookies of a header.

/// The remainder of a part of a list.
pub(super) enum Kept {
    All,
    Nothing,
    Part(Vec<u8>),
}

/// The list without the parts that are not kept, and without the separators before removed parts. None: all is kept.
pub(super) fn without_parts(list: &[u8], separator: u8, mut keep: impl FnMut(&[u8]) -> Kept) -> Option<Vec<u8>> {
    let mut result: Option<Vec<u8>> = None;
    let mut at = 0usize;
    let mut is_first = true;
    for part in list.split(|byte| *byte == separator) {
        let kept = keep(part);
        if result.is_none() && !matches!(kept, Kept::All) {
            // Everything up to here was kept.
            result = Some(list.get(..at.saturating_sub(1)).unwrap_or_default().to_vec());
            is_first = at == 0;
        }
        if let Some(result) = &mut result {
            let bytes = match &kept {
                Kept::All => Some(part),
                Kept::Part(part) => Some(part.as_slice()),
                Kept::Nothing => None,
            };
            if let Some(bytes) = bytes {
                if !is_first {
                    result.push(separator);
                }
                result.extend_from_slice(bytes);
                is_first = false;
            }
        }
        at = at.saturating_add(part.len()).saturating_add(1);
    }
    result
}
