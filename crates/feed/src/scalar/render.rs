//! From the router's form back to text, for keys in messages, logs and answers.

use std::fmt::Write;

use pgbraid_shardmap::KeyType;

/// A key as PostgreSQL prints it; a uuid hyphenated in lower case.
///
/// `value` is the key in the router's form. Bytes that are no key of type `ty` are shown in hex
/// (`\xdeadbeef`), so that a message about them can still be written.
pub fn key_text(ty: KeyType, value: &[u8]) -> String {
    let text = match ty {
        KeyType::Int8 => value
            .try_into()
            .ok()
            .map(|bytes| i64::from_le_bytes(bytes).to_string()),
        KeyType::Uuid => uuid::Uuid::from_slice(value)
            .ok()
            .map(|uuid| uuid.hyphenated().to_string()),
        KeyType::Text => std::str::from_utf8(value).ok().map(str::to_owned),
    };
    text.unwrap_or_else(|| {
        value.iter().fold("\\x".to_owned(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    })
}
