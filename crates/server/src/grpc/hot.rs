//! The decoding of write requests by itself, for benchmarks.

use std::sync::Arc;

use pgbraid_config::IngestConfig;
use pgbraid_feed::{Block, FeedSchema, RequestError};
use pgbraid_proto::v1::write_request::Form;

use super::{
    decode,
    together::Together,
    wire::{self, Alike},
};

/// A request as prost reads it.
pub fn block(
    form: &Form,
    schema: &Arc<FeedSchema>,
    limits: &IngestConfig,
) -> Result<Block, RequestError> {
    decode::block(form, schema, limits)
}

/// A row-form request off the wire; `None`: prost has to read it.
pub fn wire_block(
    message: &[u8],
    schema: &Arc<FeedSchema>,
    limits: &IngestConfig,
) -> Option<Result<Block, RequestError>> {
    decode::wire_rows(&wire::read(message)?, schema, limits)
}

/// Requests of one row each, all alike, as one block, with their sequence numbers; `None`: they are
/// not alike, or too many.
pub fn lone_rows<'a>(
    messages: impl IntoIterator<Item = &'a [u8]>,
    schema: &Arc<FeedSchema>,
) -> Option<(Vec<u64>, Result<Block, RequestError>)> {
    let mut messages = messages.into_iter();
    let first = messages.next()?;
    let request = wire::read(first)?;
    let [row] = request.rows.as_slice() else {
        return None;
    };
    let mut together = Together::new(schema.clone(), &request)?;
    if !together.add(request.sequence, row) {
        return None;
    }
    let alike = Alike::of(first)?;
    for message in messages {
        let (sequence, row) = alike.row(message)?;
        if !together.has_room() || !together.add(sequence, row) {
            return None;
        }
    }
    Some(together.finish())
}
