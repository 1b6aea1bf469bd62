//! The resume position of a subscriber: one cursor per instance, as a text to keep and give back.
//!
//! The text is url-safe base64 without padding of: version (1 byte), cluster id (16), number of
//! positions, the positions in the order of their instances, CRC-32 of all before it (4 bytes,
//! little-endian). Integers are varints; transactions in progress are differences.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgbraid_shardmap::InstanceName;

use crate::wire::{Reader, Writer, crc32};
use crate::{Cursor, Identity};

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// The position in one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The PostgreSQL that the cursor was taken on.
    pub identity: Identity,
    /// How far it was delivered.
    pub cursor: Cursor,
}

/// Where a subscription resumes.
///
/// An instance that it lacks is one that did not exist then: it is read from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// One position per instance.
    pub positions: BTreeMap<InstanceName, Position>,
}

/// Why a text is not a token that can be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any token.
    #[error(
        "the token has {0} bytes, more than the {max} a token can have; give it back as it was received",
        max = Token::MAX_BYTES
    )]
    TooLong(usize),
    /// Not made by `encode`.
    #[error("the token is malformed ({0}); give it back as it was received")]
    Malformed(&'static str),
    /// Changed on the way.
    #[error(
        "the token's checksum is wrong: it was changed or cut; give it back as it was received"
    )]
    Checksum,
    /// Made by another version of pgbraid.
    #[error(
        "the token has version {0}, this router knows {VERSION}; use a router that is not older"
    )]
    UnknownVersion(u8),
    /// Its positions mean nothing here.
    #[error("the token is from another cluster; subscribe there, or start without a token")]
    OtherCluster,
}

impl Token {
    /// The longest text that is decoded, and that is ever made.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// The token as text.
    ///
    /// Should thousands of transactions in progress make it longer than [`Token::MAX_BYTES`],
    /// the positions are written coarser: resuming from it then repeats some alerts, and loses none.
    pub fn encode(&self) -> String {
        let text = self.encode_positions(Cursor::clone);
        if text.len() <= Self::MAX_BYTES {
            return text;
        }
        self.encode_positions(Cursor::coarse)
    }

    fn encode_positions(&self, precision: impl Fn(&Cursor) -> Cursor) -> String {
        let mut writer = Writer::default();
        writer.bytes(&[VERSION]);
        writer.bytes(&self.cluster);
        writer.varint(self.positions.len() as u64);
        for (instance, position) in &self.positions {
            writer.bytes(&[instance.index()]);
            writer.varint(position.identity.system_id);
            writer.varint(u64::from(position.identity.timeline));
            writer.cursor(&precision(&position.cursor));
        }
        let mut bytes = writer.into_bytes();
        let checksum = crc32(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The token that a text stands for.
    pub fn decode(text: &str) -> Result<Self, TokenError> {
        if text.len() > Self::MAX_BYTES {
            return Err(TokenError::TooLong(text.len()));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| TokenError::Malformed("not url-safe base64 without padding"))?;
        match bytes.first() {
            None => return Err(TokenError::Malformed("empty")),
            Some(&VERSION) => {}
            Some(&other) => return Err(TokenError::UnknownVersion(other)),
        }
        let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(TokenError::Checksum);
        };
        if crc32(body) != u32::from_le_bytes(*checksum) {
            return Err(TokenError::Checksum);
        }
        Self::read(&mut Reader::new(&body[1..])).map_err(TokenError::Malformed)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, &'static str> {
        let cluster = reader.array()?;
        let count = reader.varint()?;
        let mut positions = BTreeMap::new();
        for _ in 0..count {
            let [index] = reader.array()?;
            let system_id = reader.varint()?;
            let timeline = reader.varint()?;
            let timeline = u32::try_from(timeline).map_err(|_| "timeline out of range")?;
            let identity = Identity {
                system_id,
                timeline,
            };
            let cursor = reader.cursor()?;
            let position = Position { identity, cursor };
            if positions
                .insert(InstanceName::new(index), position)
                .is_some()
            {
                return Err("an instance stands in it twice");
            }
        }
        reader.end()?;
        Ok(Self { cluster, positions })
    }

    /// Refuses a token of another cluster than this one.
    pub fn check_cluster(&self, cluster: &[u8; 16]) -> Result<(), TokenError> {
        if self.cluster == *cluster {
            Ok(())
        } else {
            Err(TokenError::OtherCluster)
        }
    }
}

#[cfg(test)]
mod tests;
