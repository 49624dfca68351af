//! Parts of a message as they are stored.
//!
//! A compiled model repeats its model's description byte for byte. Decoded and encoded again it means the same, but the
//! entries of maps may change their order.

/// A length-delimited field of a message.
const LENGTH_DELIMITED: u64 = 2;

/// All values of a length-delimited field, in order; `None` where the bytes are no message of the wire format's current types.
pub fn fields(mut message: &[u8], number: u64) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => take(&mut message, 8)?,
            LENGTH_DELIMITED => {
                let len = varint(&mut message)?;
                take(&mut message, usize::try_from(len).ok()?)?
            }
            5 => take(&mut message, 4)?,
            _ => return None,
        };
        if key == number << 3 | LENGTH_DELIMITED {
            found.push(value);
        }
    }
    Some(found)
}

/// The value of a field that is there once.
pub fn field(message: &[u8], number: u64) -> Option<&[u8]> {
    match fields(message, number)?.as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

fn take<'b>(bytes: &mut &'b [u8], len: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_among_others() {
        // 1: 300; 2: "ab"; 3: fixed 64; 4: fixed 32; 2: "".
        let message = [
            &[0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x19][..],
            &[0; 8],
            &[0x25, 0, 0, 0, 0, 0x12, 0],
        ]
        .concat();
        assert_eq!(fields(&message, 2), Some(vec![&b"ab"[..], b""]));
        assert_eq!(fields(&message, 1), Some(vec![]));
        assert_eq!(field(&message, 2), None);
        assert_eq!(field(&[0x12, 1, 7], 2), Some(&[7][..]));
    }

    #[test]
    fn what_is_no_message_has_no_fields() {
        for bytes in [
            &[0x12][..],
            &[0x12, 5, 1],
            &[0x0b],
            &[0xff; 11],
            &[
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
        ] {
            assert_eq!(fields(bytes, 2), None, "{bytes:?}");
        }
    }
}
