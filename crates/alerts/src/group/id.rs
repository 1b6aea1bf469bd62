//! What a member settles a delivery by.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgbraid_shardmap::InstanceName;

use crate::wire::{Reader, Writer};

const VERSION: u8 = 1;
/// Longer than any: version, instance, two varints.
const MAX_CHARS: usize = 32;

/// Names one delivery: of this alert, in this claim. Delivered again, the alert has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The instance that keeps the claim.
    pub instance: InstanceName,
    /// The claim's number there.
    pub claim: i64,
    /// The alert's number there.
    pub seq: i64,
}

/// Why a text is no delivery's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a delivery ({0}); give it back as it was received")]
pub struct DeliveryIdError(&'static str);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = Writer::default();
        writer.bytes(&[VERSION, self.instance.index()]);
        writer.varint(self.claim.unsigned_abs());
        writer.varint(self.seq.unsigned_abs());
        f.write_str(&URL_SAFE_NO_PAD.encode(writer.into_bytes()))
    }
}

impl FromStr for DeliveryId {
    type Err = DeliveryIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_CHARS {
            return Err(DeliveryIdError("too long"));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| DeliveryIdError("not url-safe base64 without padding"))?;
        let mut reader = Reader::new(&bytes);
        let mut read = || {
            let [version, index] = reader.array()?;
            if version != VERSION {
                return Err("of another version");
            }
            let claim = i64::try_from(reader.varint()?).map_err(|_| "out of range")?;
            let seq = i64::try_from(reader.varint()?).map_err(|_| "out of range")?;
            reader.end()?;
            Ok(Self {
                instance: InstanceName::new(index),
                claim,
                seq,
            })
        };
        read().map_err(DeliveryIdError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_comes_back(index: u8, claim in 0..=i64::MAX, seq in 0..=i64::MAX) {
            let id = DeliveryId { instance: InstanceName::new(index), claim, seq };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text in "\\PC{0,40}") {
            if let Ok(id) = text.parse::<DeliveryId>() {
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }
}
