//! Row-form write requests, read off the wire without building messages first.
//!
//! What prost allocates for a row (its values, the columns' names, the feed's name) costs several
//! times what the row itself does when a request has few rows. Only requests in the row form
//! without anything unusual are read here; for all others, malformed ones among them, [`read`]
//! gives up, and prost reads them and says what is wrong. Both read the same in the same bytes,
//! which a test holds against each other.

use bytes::BufMut;
use pgbraid_feed::{Operation, input::Scalar};
use smallvec::SmallVec;

/// A request in the row form.
#[derive(Debug)]
pub(super) struct WireRows<'a> {
    pub sequence: u64,
    /// UTF-8, unless [`Self::names`] says otherwise.
    pub feed: &'a [u8],
    pub columns: SmallVec<[&'a [u8]; 8]>,
    pub rows: SmallVec<[&'a [u8]; 1]>,
}

impl<'a> WireRows<'a> {
    /// The feed and the columns as text, which requests that are alike need not check again.
    pub fn names(&self) -> Option<(&'a str, SmallVec<[&'a str; 8]>)> {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let columns: Option<_> = self.columns.iter().map(|bytes| text(bytes)).collect();
        Some((text(self.feed)?, columns?))
    }
}

/// A row of it.
#[derive(Debug, PartialEq)]
pub(super) struct WireRow<'a> {
    pub operation: Operation,
    pub key: Scalar<'a>,
    pub values: SmallVec<[Scalar<'a>; 8]>,
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

/// The wire types that occur.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LEN: u64 = 2;

impl<'a> Reader<'a> {
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        match self.0 {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        if let Some(word) = self.0.first_chunk() {
            let word = u64::from_le_bytes(*word);
            // The first byte without its highest bit is the last one.
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                self.0 = &self.0[ends.trailing_zeros() as usize / 8 + 1..];
                return Some(seven_of_eight(word & (ends ^ (ends - 1))));
            }
        }
        let mut value = 0u64;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }

    /// The next field's number and wire type; `None` at the end.
    #[inline]
    fn field(&mut self) -> Option<Option<(u64, u64)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        Some(Some((tag >> 3, tag & 7)))
    }

    /// This tag, if it comes next.
    #[inline]
    fn tag(&mut self, tag: u8) -> Option<()> {
        match self.0 {
            [first, rest @ ..] if *first == tag => {
                self.0 = rest;
                Some(())
            }
            _ => None,
        }
    }

    /// The sequence number, which is left out if it is 0.
    #[inline]
    fn sequence(&mut self) -> Option<u64> {
        match self.tag(SEQUENCE) {
            Some(()) => self.varint(),
            None => Some(0),
        }
    }

    /// Goes into a field that has the rest of the message.
    #[inline]
    fn last(&mut self, tag: u8) -> Option<()> {
        self.tag(tag)?;
        let len = self.varint()?;
        (len == self.0.len() as u64).then_some(())
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    #[inline]
    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn double(&mut self) -> Option<f64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*bytes))
    }
}

/// The lower seven bits of each byte, side by side.
#[inline]
fn seven_of_eight(word: u64) -> u64 {
    let pairs = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    (fours & 0x0fff_ffff) | (fours & 0x0fff_ffff_0000_0000) >> 4
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Reads a request, if it is one that can be read here.
pub(super) fn read(message: &[u8]) -> Option<WireRows<'_>> {
    let mut reader = Reader(message);
    let mut request = WireRows {
        sequence: 0,
        feed: b"",
        columns: SmallVec::new(),
        rows: SmallVec::new(),
    };
    let mut batch = None;
    while let Some(field) = reader.field()? {
        match field {
            (1, VARINT) => request.sequence = reader.varint()?,
            (2, LEN) => request.feed = reader.bytes()?,
            (4, LEN) if batch.is_none() => batch = Some(reader.bytes()?),
            _ => return None,
        }
    }
    let mut reader = Reader(batch?);
    while let Some(field) = reader.field()? {
        match field {
            (1, LEN) => request.columns.push(reader.bytes()?),
            (2, LEN) => request.rows.push(reader.bytes()?),
            _ => return None,
        }
    }
    Some(request)
}

impl Default for WireRow<'_> {
    fn default() -> Self {
        Self {
            operation: Operation::Upsert,
            key: Scalar::Absent,
            values: SmallVec::new(),
        }
    }
}

impl<'a> WireRow<'a> {
    /// Reads a row of a request in place of what was read before.
    #[inline]
    pub fn read(&mut self, message: &'a [u8]) -> Option<()> {
        let mut reader = Reader(message);
        self.operation = Operation::Upsert;
        self.key = Scalar::Absent;
        self.values.clear();
        let mut keys = 0;
        while let Some(field) = reader.field()? {
            match field {
                (3, LEN) => self.values.push(value(reader.bytes()?)?),
                (2, LEN) if keys == 0 => {
                    keys += 1;
                    self.key = value(reader.bytes()?)?;
                }
                (1, VARINT) => {
                    self.operation = match reader.varint()? {
                        0 => Operation::Upsert,
                        1 => Operation::Delete,
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
        Some(())
    }
}

/// What requests of one row each, encoded in the usual order, have in common with the first.
pub(super) struct Alike<'a> {
    /// The field with the feed's name.
    feed: &'a [u8],
    /// The fields with the columns' names.
    columns: &'a [u8],
}

/// The tags of the fields, in the usual order.
const SEQUENCE: u8 = 1 << 3 | VARINT as u8;
const FEED: u8 = 2 << 3 | LEN as u8;
const ROWS: u8 = 4 << 3 | LEN as u8;
const COLUMN: u8 = 1 << 3 | LEN as u8;
const ROW: u8 = 2 << 3 | LEN as u8;
const INT: u8 = 3 << 3 | VARINT as u8;

impl<'a> Alike<'a> {
    /// `None`: the request is of another kind.
    pub fn of(message: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(message);
        reader.sequence()?;
        let from = reader.0;
        reader.tag(FEED)?;
        reader.bytes()?;
        let feed = &from[..from.len() - reader.0.len()];
        reader.last(ROWS)?;
        let from = reader.0;
        while reader.tag(COLUMN).is_some() {
            reader.bytes()?;
        }
        let columns = &from[..from.len() - reader.0.len()];
        reader.last(ROW)?;
        Some(Self { feed, columns })
    }

    /// The sequence number of a request like the first, and its row.
    #[inline]
    pub fn row<'b>(&self, message: &'b [u8]) -> Option<(u64, &'b [u8])> {
        let mut reader = Reader(message);
        let sequence = reader.sequence()?;
        reader.0 = reader.0.strip_prefix(self.feed)?;
        reader.last(ROWS)?;
        reader.0 = reader.0.strip_prefix(self.columns)?;
        reader.last(ROW)?;
        Some((sequence, reader.0))
    }
}

/// Appends the answer to a request of which all rows are committed, as the message
/// `WriteResponse`.
#[inline]
pub(super) fn put_committed(sequence: u64, rows: u64, to: &mut impl BufMut) {
    // Two tags and two numbers.
    let mut bytes = [0; 22];
    let mut len = 0;
    for (tag, mut value) in [(1u8, sequence), (2, rows)] {
        if value == 0 {
            continue;
        }
        bytes[len] = tag << 3;
        len += 1;
        while value >= 0x80 {
            bytes[len] = value as u8 | 0x80;
            len += 1;
            value >>= 7;
        }
        bytes[len] = value as u8;
        len += 1;
    }
    to.put_slice(&bytes[..len]);
}

#[inline]
fn value(message: &[u8]) -> Option<Scalar<'_>> {
    let mut reader = Reader(message);
    // By far the most.
    if reader.tag(INT).is_some() {
        let value = Scalar::Int(zigzag(reader.varint()?));
        return reader.0.is_empty().then_some(value);
    }
    let Some(field) = reader.field()? else {
        return Some(Scalar::Absent);
    };
    let value = match field {
        (1, LEN) if reader.bytes()?.is_empty() => Scalar::Null,
        (2, VARINT) => Scalar::Bool(reader.varint()? != 0),
        (3, VARINT) => Scalar::Int(zigzag(reader.varint()?)),
        (4, FIXED64) => Scalar::Double(reader.double()?),
        (5, LEN) => Scalar::Text(reader.text()?),
        (6, LEN) => Scalar::Bytes(reader.bytes()?),
        _ => return None,
    };
    reader.0.is_empty().then_some(value)
}

#[cfg(test)]
mod tests;
