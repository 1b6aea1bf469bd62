//! Requests of random rows, made cheaply: the load must not be what is measured.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use pgbraid_client::proto::{self, column::Values, value::Kind, write_request::Form};

use super::Keys;

/// Keys in a row with `--keys runs`.
const RUN: u64 = 100;

/// What all producers write.
pub struct Shape {
    pub feed: String,
    pub key_type: KeyType,
    pub columns: Vec<String>,
    pub columnar: bool,
    pub batch_rows: u32,
    pub keys: Keys,
    pub key_space: u64,
    pub alert_one_in: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Int8,
    Uuid,
    Text,
}

impl KeyType {
    /// Of a router's `FeedState.key_type`.
    pub fn of(name: &str) -> Self {
        match name {
            "int8" | "bigint" => Self::Int8,
            "uuid" => Self::Uuid,
            _ => Self::Text,
        }
    }
}

/// The requests of one producer.
pub struct Generator {
    shape: Arc<Shape>,
    random: SplitMix,
    /// Sequential keys: this producer's next, and what it skips for the others.
    next: u64,
    skip: u64,
    keys: Vec<u64>,
}

impl Generator {
    pub fn new(shape: Arc<Shape>, number: u32, producers: u32) -> Self {
        let batch = u64::from(shape.batch_rows);
        Self {
            random: SplitMix(rand::random()),
            next: batch * u64::from(number),
            skip: batch * u64::from(producers),
            keys: Vec::with_capacity(shape.batch_rows as usize),
            shape,
        }
    }

    /// Of every request.
    pub fn rows(&self) -> u64 {
        self.shape.batch_rows.into()
    }

    pub fn next_request(&mut self) -> proto::WriteRequest {
        self.choose_keys();
        let form = if self.shape.columnar {
            Form::Columnar(self.columnar())
        } else {
            Form::Rows(self.row_by_row())
        };
        proto::WriteRequest {
            sequence: 0,
            feed: self.shape.feed.clone(),
            form: Some(form),
            timeout: None,
        }
    }

    fn choose_keys(&mut self) {
        let (rows, space) = (self.rows(), self.shape.key_space);
        self.keys.clear();
        match self.shape.keys {
            Keys::Random => {
                let random = &mut self.random;
                self.keys.extend((0..rows).map(|_| random.below(space)));
            }
            Keys::Runs => {
                let mut start = 0;
                for row in 0..rows {
                    if row % RUN == 0 {
                        start = self.random.below(space);
                    }
                    self.keys.push((start + row % RUN) % space);
                }
            }
            Keys::Sequential => {
                let next = self.next;
                self.keys.extend((next..next + rows).map(|key| key % space));
                self.next = next.wrapping_add(self.skip) & (u64::MAX >> 1);
            }
        }
    }

    fn columnar(&mut self) -> proto::ColumnarRows {
        let key = match self.shape.key_type {
            KeyType::Int8 => Values::Int64s(self.packed(8, |data, key| data.put_u64_le(key))),
            KeyType::Uuid => Values::Uuids(self.packed(16, |data, key| data.put_slice(&uuid(key)))),
            KeyType::Text => Values::Texts(proto::Texts {
                values: self.keys.iter().map(u64::to_string).collect(),
            }),
        };
        let rows = self.keys.len();
        let names = &self.shape.columns;
        let mut data: Vec<BytesMut> = names
            .iter()
            .map(|_| BytesMut::with_capacity(4 * rows))
            .collect();
        for _ in 0..rows {
            let base = base(&mut self.random, self.shape.alert_one_in);
            for column in &mut data {
                column.put_i32_le(base + self.random.below(10_000) as i32);
            }
        }
        let columns = names.iter().zip(data).map(|(name, data)| proto::Column {
            name: name.clone(),
            nulls: Default::default(),
            values: Some(Values::Int32s(data.freeze())),
        });
        proto::ColumnarRows {
            operation: proto::Operation::Upsert.into(),
            key: Some(proto::Column {
                name: String::new(),
                nulls: Default::default(),
                values: Some(key),
            }),
            columns: columns.collect(),
        }
    }

    fn packed(&self, width: usize, put: impl Fn(&mut BytesMut, u64)) -> bytes::Bytes {
        let mut data = BytesMut::with_capacity(self.keys.len() * width);
        self.keys.iter().for_each(|&key| put(&mut data, key));
        data.freeze()
    }

    fn row_by_row(&mut self) -> proto::RowBatch {
        let key_type = self.shape.key_type;
        let rows = self.keys.iter().map(|&key| {
            let base = base(&mut self.random, self.shape.alert_one_in);
            let value = |_| proto::Value {
                kind: Some(Kind::Int(
                    i64::from(base) + self.random.below(10_000) as i64,
                )),
            };
            let values = (0..self.shape.columns.len()).map(value).collect();
            let key = match key_type {
                KeyType::Int8 => Kind::Int(key.cast_signed()),
                KeyType::Uuid => Kind::Bytes(uuid(key).to_vec().into()),
                KeyType::Text => Kind::Text(key.to_string()),
            };
            proto::Row {
                operation: proto::Operation::Upsert.into(),
                key: Some(proto::Value { kind: Some(key) }),
                values,
            }
        });
        proto::RowBatch {
            rows: rows.collect(),
            columns: self.shape.columns.clone(),
        }
    }
}

/// What is added to a row's values.
fn base(random: &mut SplitMix, alert_one_in: Option<u64>) -> i32 {
    match alert_one_in {
        Some(n) if random.below(n) == 0 => 10_000,
        _ => 0,
    }
}

/// Spread like real ones.
fn uuid(key: u64) -> [u8; 16] {
    let mut random = SplitMix(key);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next().to_be_bytes());
    bytes[8..].copy_from_slice(&key.to_be_bytes());
    bytes
}

/// SplitMix64 (Steele, Lea, Flood 2014): two multiplications a number.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than the bound, by multiplication in place of a division.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator(keys: Keys, columnar: bool, alert_one_in: Option<u64>) -> Generator {
        let shape = Shape {
            feed: "orders".into(),
            key_type: KeyType::Int8,
            columns: vec!["c1".into(), "c2".into()],
            columnar,
            batch_rows: 250,
            keys,
            key_space: 1000,
            alert_one_in,
        };
        Generator::new(Arc::new(shape), 1, 2)
    }

    #[test]
    fn keys_stay_in_their_space() {
        for keys in [Keys::Random, Keys::Runs, Keys::Sequential] {
            let mut generator = generator(keys, true, None);
            for _ in 0..20 {
                generator.next_request();
                assert_eq!(generator.keys.len(), 250);
                assert!(generator.keys.iter().all(|&key| key < 1000));
            }
        }
        let mut sequential = generator(Keys::Sequential, true, None);
        sequential.next_request();
        assert_eq!((sequential.keys[0], sequential.keys[249]), (250, 499));
        sequential.next_request();
        assert_eq!(sequential.keys[0], 750);
    }

    #[test]
    fn alerts_are_in_every_column() {
        let request = generator(Keys::Random, true, Some(1)).next_request();
        let Some(Form::Columnar(rows)) = request.form else {
            panic!("not columnar")
        };
        for column in &rows.columns {
            let Some(Values::Int32s(bytes)) = &column.values else {
                panic!("not int32s")
            };
            let values = bytes
                .chunks_exact(4)
                .map(|b| i32::from_le_bytes(b.try_into().unwrap()));
            assert!(
                values
                    .clone()
                    .all(|value| (10_000..20_000).contains(&value))
            );
            assert_eq!(values.count(), 250);
        }
        let request = generator(Keys::Random, false, None).next_request();
        let Some(Form::Rows(batch)) = request.form else {
            panic!("not rows")
        };
        assert_eq!((batch.rows.len(), batch.rows[0].values.len()), (250, 2));
    }
}
