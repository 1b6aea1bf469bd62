//! Keys, in the one form that the change stream has for them.

use std::fmt::Write as _;

use crate::error::ClientError;

/// The type of a feed's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    Int8,
    Uuid,
    Text,
}

impl KeyKind {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "int8" => Some(Self::Int8),
            "uuid" => Some(Self::Uuid),
            "text" => Some(Self::Text),
            _ => None,
        }
    }
}

/// The key of a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CacheKey {
    /// An int8.
    Int(i64),
    /// The 16 bytes of a uuid.
    Uuid([u8; 16]),
    /// A text; or an int8 or a uuid as text.
    Text(String),
}

macro_rules! from {
    ($($type:ty => $variant:ident),*) => {$(
        impl From<$type> for CacheKey {
            fn from(key: $type) -> Self {
                Self::$variant(key.into())
            }
        }
    )*};
}

from!(i64 => Int, i32 => Int, u32 => Int, [u8; 16] => Uuid, &str => Text, String => Text);

impl CacheKey {
    /// Some text form that PostgreSQL understands.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Int(key) => key.to_string(),
            Self::Uuid(key) => uuid(key),
            Self::Text(key) => key.clone(),
        }
    }

    /// PostgreSQL's own text form: a row under another one would never be told to have changed.
    pub(super) fn canonical(&self, kind: KeyKind) -> Result<String, ClientError> {
        let wrong = |what: &str| {
            let message = format!("the key {self:?} is not {what}, as the feed's keys are");
            ClientError::from(tonic::Status::invalid_argument(message))
        };
        match (kind, self) {
            (KeyKind::Int8, Self::Int(key)) => Ok(key.to_string()),
            (KeyKind::Int8, Self::Text(key)) => {
                let number = key.trim().parse::<i64>();
                Ok(number.map_err(|_| wrong("an int8"))?.to_string())
            }
            (KeyKind::Uuid, Self::Uuid(key)) => Ok(uuid(key)),
            (KeyKind::Uuid, Self::Text(key)) => {
                Ok(uuid(&parsed(key).ok_or_else(|| wrong("a uuid"))?))
            }
            (KeyKind::Text, Self::Text(key)) => Ok(key.clone()),
            (KeyKind::Int8, Self::Uuid(_)) => Err(wrong("an int8")),
            (KeyKind::Uuid, Self::Int(_)) => Err(wrong("a uuid")),
            (KeyKind::Text, _) => Err(wrong("a text")),
        }
    }
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// 32 hexadecimal digits, with or without hyphens and braces.
fn parsed(text: &str) -> Option<[u8; 16]> {
    let inner = text.trim();
    let inner = match inner.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => inner,
    };
    let mut digits = inner.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    digits.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(kind: KeyKind, key: impl Into<CacheKey>) -> Option<String> {
        key.into().canonical(kind).ok()
    }

    #[test]
    fn one_key_has_one_form() {
        let long = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for same in [
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ] {
            assert_eq!(form(KeyKind::Uuid, same).as_deref(), Some(long), "{same}");
        }
        let bytes = parsed(long).unwrap();
        assert_eq!(form(KeyKind::Uuid, bytes).as_deref(), Some(long));
        assert_eq!(form(KeyKind::Int8, " 007").as_deref(), Some("7"));
        assert_eq!(form(KeyKind::Int8, -7i64).as_deref(), Some("-7"));
        assert_eq!(form(KeyKind::Text, " 007").as_deref(), Some(" 007"));
    }

    #[test]
    fn keys_of_another_type_are_refused() {
        assert_eq!(form(KeyKind::Int8, "x"), None);
        assert_eq!(form(KeyKind::Uuid, "a0"), None);
        assert_eq!(
            form(KeyKind::Uuid, "a0eebc999c0b4ef8bb6d6bb9bd380a1100"),
            None
        );
        assert_eq!(form(KeyKind::Uuid, 7i64), None);
        assert_eq!(form(KeyKind::Text, 7i64), None);
    }
}
