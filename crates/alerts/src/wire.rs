//! The bytes inside a token: varints, cursors, checksum.

use crate::{Cursor, PageMark, Snapshot};

/// CRC-32 (IEEE 802.3, reflected, polynomial 0xEDB88320), bit by bit: tokens are short and rare.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, byte)
}

/// Writes what [`Reader`] reads.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// LEB128: seven bits a byte, the lowest first.
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn snapshot(&mut self, snapshot: &Snapshot) {
        self.varint(snapshot.xmin());
        self.varint(snapshot.xmax() - snapshot.xmin());
        self.varint(snapshot.xip().len() as u64);
        let mut last = snapshot.xmin();
        for xid in snapshot.xip() {
            self.varint(xid - last);
            last = *xid;
        }
    }

    pub(crate) fn cursor(&mut self, cursor: &Cursor) {
        self.snapshot(&cursor.base);
        match &cursor.page {
            None => self.bytes(&[0]),
            Some(page) => {
                self.bytes(&[1]);
                self.snapshot(&page.upper);
                // Zigzag: small numbers of either sign stay short.
                let seq = page.after_seq;
                self.varint(((seq << 1) ^ (seq >> 63)) as u64);
            }
        }
    }
}

/// Reads bytes that may be anything: it never panics, and allocates no more than they can fill.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn end(&self) -> Result<(), &'static str> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("bytes after its end")
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or("too short")?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is too great")
    }

    fn snapshot(&mut self) -> Result<Snapshot, &'static str> {
        const RANGE: &str = "a transaction id is out of range";
        let xmin = self.varint()?;
        let xmax = xmin.checked_add(self.varint()?).ok_or(RANGE)?;
        let count = self.varint()?;
        if count > self.0.len() as u64 {
            return Err("too short");
        }
        let mut xip = Vec::with_capacity(count as usize);
        let mut last = xmin;
        for _ in 0..count {
            last = last.checked_add(self.varint()?).ok_or(RANGE)?;
            xip.push(last);
        }
        Snapshot::new(xmin, xmax, xip)
    }

    pub(crate) fn cursor(&mut self) -> Result<Cursor, &'static str> {
        let base = self.snapshot()?;
        let page = match self.array()? {
            [0] => None,
            [1] => {
                let upper = self.snapshot()?;
                let zigzag = self.varint()?;
                let after_seq = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                Some(PageMark { upper, after_seq })
            }
            _ => return Err("an unknown kind of position"),
        };
        Ok(Cursor { base, page })
    }
}
