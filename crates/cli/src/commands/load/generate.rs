//! Requests of random rows, made cheaply: the load must not be what is measured.
//!
//! One request is filled again and again, and encoded into a buffer that many of them share.

use std::fmt::Write;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use pgbraid_client::proto::{self, column::Values, value::Kind, write_request::Form};
use prost::Message;

use super::keys::{Choice, Keys};
use super::random::SplitMix;

/// Requests of few rows are encoded into pieces of this.
const CHUNK: usize = 64 << 10;

/// What all producers write.
pub struct Shape {
    pub feed: String,
    pub key_type: KeyType,
    pub columns: Vec<String>,
    pub columnar: bool,
    pub batch_rows: u32,
    pub keys: Choice,
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
    chooser: Keys,
    keys: Vec<u64>,
    request: proto::WriteRequest,
    /// A `Vec` takes single bytes, of which a small message has many, faster than shared memory.
    message: Vec<u8>,
    buffer: BytesMut,
}

impl Generator {
    pub fn new(shape: Arc<Shape>, number: u32, producers: u32) -> Self {
        let rows = u64::from(shape.batch_rows);
        let (number, producers) = (number.into(), producers.into());
        Self {
            random: SplitMix::new(rand::random()),
            chooser: Keys::new(shape.keys, shape.key_space, rows, number, producers),
            keys: Vec::with_capacity(shape.batch_rows as usize),
            request: template(&shape),
            message: Vec::new(),
            buffer: BytesMut::with_capacity(CHUNK),
            shape,
        }
    }

    /// Of every request.
    pub fn rows(&self) -> u64 {
        self.shape.batch_rows.into()
    }

    /// The next request, without a sequence.
    pub fn request(&mut self) -> &proto::WriteRequest {
        self.keys.clear();
        let rows = self.shape.batch_rows as usize;
        self.chooser.draw(rows, &mut self.random, &mut self.keys);
        let mut fill = Fill {
            random: &mut self.random,
            alert_one_in: self.shape.alert_one_in,
            key_type: self.shape.key_type,
        };
        match &mut self.request.form {
            Some(Form::Columnar(form)) => fill.columnar(&self.keys, form),
            Some(Form::Rows(batch)) => fill.rows(&self.keys, batch),
            None => {}
        }
        &self.request
    }

    /// The next request, encoded.
    pub fn encoded(&mut self) -> Bytes {
        self.request();
        self.message.clear();
        // It fails only where a buffer cannot grow.
        let _ = self.request.encode(&mut self.message);
        self.buffer.extend_from_slice(&self.message);
        self.buffer.split().freeze()
    }
}

/// A request that says everything but the values.
fn template(shape: &Shape) -> proto::WriteRequest {
    let column = |name: &str| proto::Column {
        name: name.to_owned(),
        ..Default::default()
    };
    let form = if shape.columnar {
        Form::Columnar(proto::ColumnarRows {
            operation: proto::Operation::Upsert.into(),
            key: Some(column("")),
            columns: shape.columns.iter().map(|name| column(name)).collect(),
        })
    } else {
        let row = proto::Row {
            operation: proto::Operation::Upsert.into(),
            key: Some(proto::Value { kind: None }),
            values: vec![proto::Value { kind: None }; shape.columns.len()],
        };
        Form::Rows(proto::RowBatch {
            columns: shape.columns.clone(),
            rows: vec![row; shape.batch_rows as usize],
        })
    };
    proto::WriteRequest {
        sequence: 0,
        feed: shape.feed.clone(),
        form: Some(form),
        timeout: None,
    }
}

/// Puts keys and random values into a request.
struct Fill<'a> {
    random: &'a mut SplitMix,
    alert_one_in: Option<u64>,
    key_type: KeyType,
}

impl Fill<'_> {
    fn columnar(&mut self, keys: &[u64], form: &mut proto::ColumnarRows) {
        if let Some(column) = &mut form.key {
            column.values = Some(match self.key_type {
                KeyType::Int8 => Values::Int64s(packed(keys, 8, |data, key| data.put_u64_le(key))),
                KeyType::Uuid => {
                    Values::Uuids(packed(keys, 16, |data, key| data.put_slice(&uuid(key))))
                }
                KeyType::Text => Values::Utf8(texts(keys)),
            });
        }
        let mut data: Vec<BytesMut> = (form.columns.iter())
            .map(|_| BytesMut::with_capacity(4 * keys.len()))
            .collect();
        for _ in keys {
            let base = self.base();
            for column in &mut data {
                column.put_i32_le(base + self.random.below(10_000) as i32);
            }
        }
        for (column, data) in form.columns.iter_mut().zip(data) {
            column.values = Some(Values::Int32s(data.freeze()));
        }
    }

    fn rows(&mut self, keys: &[u64], batch: &mut proto::RowBatch) {
        for (row, &key) in batch.rows.iter_mut().zip(keys) {
            let base = self.base();
            for value in &mut row.values {
                let number = i64::from(base) + self.random.below(10_000) as i64;
                value.kind = Some(Kind::Int(number));
            }
            let Some(value) = &mut row.key else { continue };
            match (self.key_type, &mut value.kind) {
                (KeyType::Int8, kind) => *kind = Some(Kind::Int(key.cast_signed())),
                (KeyType::Uuid, kind) => {
                    *kind = Some(Kind::Bytes(Bytes::copy_from_slice(&uuid(key))));
                }
                (KeyType::Text, Some(Kind::Text(text))) => {
                    text.clear();
                    let _ = write!(text, "{key}");
                }
                (KeyType::Text, kind) => *kind = Some(Kind::Text(key.to_string())),
            }
        }
    }

    /// What is added to a row's values.
    fn base(&mut self) -> i32 {
        match self.alert_one_in {
            Some(n) if self.random.below(n) == 0 => 10_000,
            _ => 0,
        }
    }
}

fn packed(keys: &[u64], width: usize, put: impl Fn(&mut BytesMut, u64)) -> Bytes {
    let mut data = BytesMut::with_capacity(keys.len() * width);
    keys.iter().for_each(|&key| put(&mut data, key));
    data.freeze()
}

fn texts(keys: &[u64]) -> proto::Utf8 {
    let mut data = String::with_capacity(keys.len() * 8);
    let mut ends = BytesMut::with_capacity(keys.len() * 4);
    for key in keys {
        let _ = write!(data, "{key}");
        // 100 000 rows of 19 digits at the most.
        ends.put_u32_le(data.len() as u32);
    }
    proto::Utf8 {
        data: data.into(),
        ends: ends.freeze(),
    }
}

/// Spread like real ones.
fn uuid(key: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&SplitMix::new(key).next().to_be_bytes());
    bytes[8..].copy_from_slice(&key.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator(key_type: KeyType, columnar: bool, alert_one_in: Option<u64>) -> Generator {
        let shape = Shape {
            feed: "orders".into(),
            key_type,
            columns: vec!["c1".into(), "c2".into()],
            columnar,
            batch_rows: 250,
            keys: Choice::Sequential,
            key_space: 1000,
            alert_one_in,
        };
        Generator::new(Arc::new(shape), 1, 2)
    }

    #[test]
    fn alerts_are_in_every_column() {
        let mut generator = generator(KeyType::Int8, true, Some(1));
        let Some(Form::Columnar(rows)) = &generator.request().form else {
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
    }

    #[test]
    fn keys_of_every_type_in_both_forms() {
        for key_type in [KeyType::Int8, KeyType::Uuid, KeyType::Text] {
            let mut columns = generator(key_type, true, None);
            let mut rows = generator(key_type, false, None);
            for first in [250u64, 750] {
                let request = proto::WriteRequest::decode(columns.encoded()).unwrap();
                let Some(Form::Columnar(form)) = request.form else {
                    panic!("not columnar")
                };
                let (values, last) = (form.key.unwrap().values.unwrap(), first + 249);
                match values {
                    Values::Int64s(bytes) => assert_eq!(bytes[249 * 8..], last.to_le_bytes()),
                    Values::Uuids(bytes) => assert_eq!(bytes[249 * 16..], uuid(last)),
                    Values::Utf8(texts) => {
                        assert!(texts.data.ends_with(last.to_string().as_bytes()));
                        assert_eq!(texts.ends.len(), 1000);
                    }
                    other => panic!("{other:?}"),
                }
                let request = proto::WriteRequest::decode(rows.encoded()).unwrap();
                let Some(Form::Rows(batch)) = request.form else {
                    panic!("not rows")
                };
                assert_eq!((batch.rows.len(), batch.rows[0].values.len()), (250, 2));
                match batch.rows[249].key.as_ref().unwrap().kind.as_ref().unwrap() {
                    Kind::Int(key) => assert_eq!(*key, last as i64),
                    Kind::Bytes(bytes) => assert_eq!(bytes[..], uuid(last)),
                    Kind::Text(text) => assert_eq!(*text, last.to_string()),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
