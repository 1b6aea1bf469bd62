//! The decoding of write requests by itself, for benchmarks.

use std::sync::Arc;

use pgbraid_config::IngestConfig;
use pgbraid_feed::{Block, FeedSchema, RequestError};
use pgbraid_proto::v1::write_request::Form;

use super::{decode, together::Together, wire};

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
    let mut together: Option<Together> = None;
    for message in messages {
        let request = wire::read(message)?;
        let [row] = request.rows.as_slice() else {
            return None;
        };
        let all = match &mut together {
            Some(all) if all.has_room() => all,
            Some(_) => return None,
            None => together.insert(Together::new(schema.clone(), &request)?),
        };
        if !all.add(request.sequence, row) {
            return None;
        }
    }
    Some(together?.finish())
}
