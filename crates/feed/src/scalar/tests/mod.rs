//! Tests of the whole module; see each file.

mod golden;
mod kinds;
mod property;
mod refused;

use super::{ValueError, from_text};
use crate::types::{ColumnType, Storage};

/// What `from_text` appends.
fn text(ty: &ColumnType, text: &str) -> Result<Vec<u8>, ValueError> {
    let mut out = Vec::new();
    from_text(ty, text, &mut out).map(|()| out)
}

/// What PostgreSQL's send function gives for the value, in hex: fixed widths big-endian.
fn sent_hex(ty: &ColumnType, mut bytes: Vec<u8>) -> String {
    if matches!(ty.storage(), Storage::Fixed(_)) && *ty != ColumnType::Uuid {
        bytes.reverse();
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A plain numeric, and one with precision and scale.
const PLAIN: ColumnType = ColumnType::Numeric {
    precision: None,
    scale: 0,
};
const fn declared(precision: u16, scale: i16) -> ColumnType {
    ColumnType::Numeric {
        precision: Some(precision),
        scale,
    }
}
